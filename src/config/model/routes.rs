//! Routes: which requests they match, and what is done with those.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{PoolIndex, RateLimit, RouteAccess};
use crate::units::IpNetwork;

/// A rule that says what is done with the requests that it matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// What messages call it; a number where the file gives no name.
    pub label: String,
    /// Which requests it matches: those for which all of it holds.
    pub matches: RouteMatch,
    /// Routes with a higher one are tried first, however specific they are; -1000 to 1000. Default 0.
    pub priority: i32,
    /// What is done with a request.
    pub action: RouteAction,
    /// Answers in place of the action for as long as it stands in the file.
    pub maintenance: Option<Maintenance>,
    /// What becomes of the target and the host on the way to a server.
    pub rewrite: Rewrite,
    /// Edits of the request's headers, after those of listener and pool.
    pub request_headers: HeaderEdits,
    /// Edits of the response's headers, after those of listener and pool.
    pub response_headers: HeaderEdits,
    /// Where a share of its requests goes as well.
    pub mirror: Option<Mirror>,
    /// Who may come in.
    pub access: RouteAccess,
    /// How often a client may ask for what matches, at most 8 limits, besides those of the listener.
    pub rate_limits: Vec<RateLimit>,
}

impl Route {
    /// The pools that its requests go to, without that of the mirror.
    pub fn pools(&self) -> impl Iterator<Item = PoolIndex> {
        let (one, split) = match &self.action {
            RouteAction::Pool(pool) => (Some(*pool), [].as_slice()),
            RouteAction::Split(split) => (None, split.as_slice()),
            RouteAction::Redirect(_) | RouteAction::Respond(_) | RouteAction::Unavailable => (None, [].as_slice()),
        };
        one.into_iter().chain(split.iter().map(|share| share.pool))
    }
}

/// Which requests a route matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RouteMatch {
    /// The host that is asked for.
    pub host: HostMatch,
    /// The path that is asked for, after its escapes are resolved.
    pub path: PathMatch,
    /// One of these methods, spelt as they are; any when empty. At most 16.
    pub methods: Vec<String>,
    /// Fields of the head; their names are in lower case. At most 16.
    pub headers: Vec<FieldMatch>,
    /// Parameters of the query, both halves with their escapes resolved. At most 16.
    pub query: Vec<FieldMatch>,
    /// Cookies. At most 16.
    pub cookies: Vec<FieldMatch>,
    /// One of these networks has the client; any when empty. At most 256.
    pub sources: Vec<IpNetwork>,
}

impl RouteMatch {
    /// Conditions besides host and path.
    pub fn further_count(&self) -> usize {
        let lists = usize::from(!self.methods.is_empty()) + usize::from(!self.sources.is_empty());
        lists + self.headers.len() + self.query.len() + self.cookies.len()
    }
}

/// A host, in lower case and without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum HostMatch {
    /// Every host, and requests without one.
    #[default]
    Any,
    /// This one.
    Exact(String),
    /// Every host below this one, at any depth: `example.com` for `*.example.com`.
    Below(String),
}

/// A path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum PathMatch {
    /// Every target, `*` among them.
    #[default]
    Any,
    /// This path and no other, a slash at its end included.
    Exact(String),
    /// Whole segments (`/api` has `/api` and `/api/x` below it, not `/apix`). Never ends in `/`: the file's `/api/` is
    /// `/api` here, and its `/` is [`PathMatch::Any`].
    Prefix(String),
    /// An expression of the regex crate that is found anywhere in the path; at most 1024 characters, and it compiles.
    Regex(String),
}

/// A condition on a header, a parameter or a cookie. One that occurs several times holds if one of its values does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldMatch {
    /// Its name.
    pub name: String,
    /// What its value is.
    pub value: ValueMatch,
}

/// A condition on a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// It is there, whatever it says.
    Present,
    /// It is not there.
    Absent,
    /// It is this, in the same case.
    Exact(String),
    /// It begins with this, in the same case.
    Prefix(String),
    /// This expression of the regex crate is found in it; at most 1024 characters, and it compiles.
    Regex(String),
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAction {
    /// It goes to this pool.
    Pool(PoolIndex),
    /// It goes to one of these pools: 2 to 16, one of them at least with a weight above 0.
    Split(Vec<Share>),
    /// It is answered with another place to go to.
    Redirect(Redirect),
    /// It is answered with this.
    Respond(FixedResponse),
    /// There is nothing but the route's maintenance, which exempts nobody.
    Unavailable,
}

/// A pool's part of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The pool.
    pub pool: PoolIndex,
    /// Its part, against the sum of all; 0 to 1000000. With 0 it keeps its sticky clients and gets no new ones.
    pub weight: u32,
}

/// Another place to go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Its address.
    pub to: Template,
    /// 301, 302, 303, 307 or 308. Default 302.
    pub status: u16,
    /// Whether the query goes along; not where `to` has one. Default true.
    pub keep_query: bool,
}

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedResponse {
    /// 200 to 599 but for 204, 205 and 304 with a body. Default 200.
    pub status: u16,
    /// At most 64 KiB.
    pub body: String,
    /// A file that holds the body instead, of at most [`PAGE_BYTES_MAX`](super::PAGE_BYTES_MAX).
    pub body_file: Option<PathBuf>,
    /// What the body is. Default `text/plain; charset=utf-8`, and of a file what the end of its name says.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, Template)>,
}

impl Route {
    /// The files that hold its answers.
    pub fn body_files(&self) -> impl Iterator<Item = &Path> {
        let of_action = match &self.action {
            RouteAction::Respond(response) => response.body_file.as_deref(),
            RouteAction::Pool(_) | RouteAction::Split(_) | RouteAction::Redirect(_) | RouteAction::Unavailable => None,
        };
        let of_maintenance =
            self.maintenance.as_ref().and_then(|maintenance| maintenance.response.body_file.as_deref());
        of_action.into_iter().chain(of_maintenance)
    }
}

/// An answer while something is worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// 503, with a body that says that the site is back soon where none is given.
    pub response: FixedResponse,
    /// Time after which clients may come again, 1 s to 30 days. Default 5 min.
    pub retry_after: Duration,
    /// Clients that are served all the same. At most 256.
    pub exempt: Vec<IpNetwork>,
}

/// What becomes of target and host on the way to a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// What becomes of the path.
    pub path: Option<PathRewrite>,
    /// The host that servers see.
    pub host: Option<Template>,
}

/// What becomes of a path. The query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// It is this.
    To(Template),
    /// These segments in front are left out. Written as a prefix to match by.
    StripPrefix(String),
    /// What the expression finds, each time, becomes something else.
    Replace {
        /// An expression of the regex crate; at most 1024 characters, and it compiles.
        regex: String,
        /// With `$1` or `${name}` for what a group found.
        with: String,
    },
}

/// Edits of headers, in this order. None of them is of a field that frames or is hop-by-hop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// Left out. Names are in lower case here and below. At most 64 of each kind.
    pub remove: Vec<String>,
    /// In place of what was there.
    pub set: Vec<(String, Template)>,
    /// Beside what was there.
    pub add: Vec<(String, Template)>,
}

impl HeaderEdits {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// All templates.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        self.set.iter().chain(&self.add).map(|(_, template)| template)
    }
}

/// A second pool for a share of the requests. What it answers is thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The pool.
    pub pool: PoolIndex,
    /// Of a hundred requests, this many; 1 to 100. Default 100.
    pub percent: u32,
    /// The longest body that is copied, in bytes; requests with a longer one are not mirrored. 0 to 16 MiB. Default 64 KiB.
    pub body_max_bytes: usize,
    /// Copies under way at once, for each worker thread, 1 to 10000; beyond, requests are not mirrored. Default 100.
    pub concurrency_max: u32,
    /// Time that a copy may take altogether, 10 ms to 5 min. Default 10 s.
    pub timeout: Duration,
}

/// A text with variables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    /// What it is made of, in order.
    pub parts: Vec<TemplatePart>,
}

/// A piece of a text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// As it is.
    Text(String),
    /// What is known of the request.
    Variable(Variable),
}

impl Template {
    /// One without variables.
    pub fn fixed(text: &str) -> Self {
        Self { parts: vec![TemplatePart::Text(text.to_owned())] }
    }

    /// Its text, when it has no variables.
    pub fn as_fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [TemplatePart::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Its variables.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Variable(variable) => Some(*variable),
            TemplatePart::Text(_) => None,
        })
    }
}

/// Something that is known of a request. What is not known is an empty text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variable {
    /// The address that counts as the client's.
    ClientIp,
    /// The port that the connection comes from.
    ClientPort,
    /// The host that was asked for, without port.
    Host,
    /// The path that was asked for, as it was written.
    Path,
    /// The query without its question mark.
    Query,
    /// The method.
    Method,
    /// The request's id.
    RequestId,
    /// The name of the server that answered; of responses alone.
    Server,
    /// The name of the pool.
    Pool,
    /// The version of TLS, such as `TLSv1.3`.
    TlsVersion,
    /// The cipher suite, such as `TLS13_AES_128_GCM_SHA256`.
    TlsCipher,
    /// The host that the TLS handshake named.
    TlsSni,
    /// The subject of the client's certificate.
    TlsClientSubject,
    /// The name of the listener.
    Listener,
    /// The name of this node.
    Node,
}

impl Variable {
    /// All of them, as the file writes them.
    pub const NAMES: [(&'static str, Variable); 15] = [
        ("client_ip", Variable::ClientIp),
        ("client_port", Variable::ClientPort),
        ("host", Variable::Host),
        ("path", Variable::Path),
        ("query", Variable::Query),
        ("method", Variable::Method),
        ("request_id", Variable::RequestId),
        ("server", Variable::Server),
        ("pool", Variable::Pool),
        ("tls_version", Variable::TlsVersion),
        ("tls_cipher", Variable::TlsCipher),
        ("tls_sni", Variable::TlsSni),
        ("tls_client_subject", Variable::TlsClientSubject),
        ("listener", Variable::Listener),
        ("node", Variable::Node),
    ];
}

/// Whether an address is of one of some networks. An IPv4 address in IPv6 form is an IPv4 address.
pub fn is_in(networks: &[IpNetwork], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}
