//! Who clients are taken for, and who of them may come in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Listener, ServerTls};
use crate::units::IpNetwork;

/// Who the clients of a listener are taken for, and what servers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whether proxies in front say with the PROXY protocol whose connection it is. Default no.
    pub accept_proxy: Option<AcceptProxy>,
    /// What is made of X-Forwarded-* and Forwarded. Only with protocol http.
    pub forwarded: Forwarded,
    /// The id that each request gets; `None` for none. Only with protocol http.
    pub request_id: Option<RequestId>,
    /// Whether requests without a W3C traceparent get one. Default false; only with protocol http.
    pub trace_context: bool,
}

/// Who may say with the PROXY protocol whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptProxy {
    /// The proxies in front, 1 to 256 networks.
    pub from: Vec<IpNetwork>,
    /// Whether a connection without a header, or from anywhere else, is closed. Default true. With false it is its own
    /// client's.
    pub required: bool,
}

/// What is made of the fields that say whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The proxies in front whose word counts, at most 256 networks. Default none.
    pub trusted: Vec<IpNetwork>,
    /// X-Forwarded-For, -Proto, -Host and -Port. Default append.
    pub x_forwarded: ForwardedRule,
    /// Forwarded (RFC 7239). Default drop.
    pub forwarded: ForwardedRule,
    /// The field that says who the client is, on connections from a trusted proxy. Default X-Forwarded-For.
    pub client_from: ClientFrom,
    /// Whether X-Forwarded-Port is among what servers are told. Default false.
    pub port: bool,
    /// Whether X-Real-IP is. Default false.
    pub real_ip: bool,
}

impl Default for Forwarded {
    fn default() -> Self {
        Self {
            trusted: Vec::new(),
            x_forwarded: ForwardedRule::Append,
            forwarded: ForwardedRule::Drop,
            client_from: ClientFrom::XForwardedFor,
            port: false,
            real_ip: false,
        }
    }
}

/// What servers are told of what a client's request says about those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedRule {
    /// What came, and behind it whom it came from.
    Append,
    /// The client alone, as far as trusted proxies know it.
    Replace,
    /// Nothing.
    Drop,
    /// What came, as it came.
    Pass,
}

/// The field that says who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFrom {
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `Forwarded`
    Forwarded,
}

/// The id of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// The field that carries it, in lower case. Default `x-request-id`.
    pub header: String,
    /// From whom an id is taken over. Default from trusted proxies.
    pub accept: AcceptId,
    /// Whether the client is told the id. Default true.
    pub response: bool,
}

/// From whom the id of a request is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptId {
    /// From the proxies of `forwarded.trusted`.
    Trusted,
    /// From nobody.
    Never,
    /// From everybody.
    Always,
}

/// Who may come in, of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerAccess {
    /// By address.
    pub lists: AccessLists,
    /// By a password; only with protocol http.
    pub basic_auth: Option<BasicAuth>,
    /// By the word of another server; only with protocol http.
    pub authorize: Option<Authorize>,
}

/// Who may come in, of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteAccess {
    /// By address, of those that the listener lets in.
    pub lists: AccessLists,
    /// By a password.
    pub basic_auth: RouteRule<BasicAuth>,
    /// By the word of another server.
    pub authorize: RouteRule<Authorize>,
}

impl Listener {
    /// The servers that are asked who may come in.
    pub fn authorizers(&self) -> impl Iterator<Item = &Authorize> {
        let of_routes = self.routes.iter().filter_map(|route| route.access.authorize());
        self.access.authorize.iter().chain(of_routes)
    }
}

impl ListenerAccess {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.lists.files().chain(self.basic_auth.as_ref().map(|basic| &basic.users_file))
    }
}

impl RouteAccess {
    /// The server of its own that is asked.
    pub fn authorize(&self) -> Option<&Authorize> {
        match &self.authorize {
            RouteRule::Own(authorize) => Some(authorize),
            RouteRule::OfListener | RouteRule::Off => None,
        }
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let users = match &self.basic_auth {
            RouteRule::Own(basic) => Some(&basic.users_file),
            RouteRule::OfListener | RouteRule::Off => None,
        };
        self.lists.files().chain(users)
    }
}

/// What a route says about something that its listener may say something about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RouteRule<T> {
    /// What the listener says holds.
    #[default]
    OfListener,
    /// It does not hold here.
    Off,
    /// This holds instead.
    Own(T),
}

/// Addresses that may come in, and that may not: an address has to be in the first two lists, where there is one of them,
/// and in none of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLists {
    /// At most 4096 networks; `None` when it is not written.
    pub allow: Option<Vec<IpNetwork>>,
    /// A file with at most 1000000 networks.
    pub allow_file: Option<PathBuf>,
    /// At most 4096 networks.
    pub deny: Vec<IpNetwork>,
    /// A file with at most 1000000 networks.
    pub deny_file: Option<PathBuf>,
}

impl AccessLists {
    /// Whether everybody may come in.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.allow_file.iter().chain(&self.deny_file)
    }
}

/// Users with passwords (RFC 7617).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// What browsers show, 1 to 128 characters. Default `restricted`.
    pub realm: String,
    /// A file of `htpasswd`, see [`crate::config::Users`].
    pub users_file: PathBuf,
    /// Time for which a password that was right is not computed again, 0 to 24 h. Default 5 min.
    pub cache_ttl: Duration,
    /// Whether servers see the field Authorization. Default true.
    pub pass_on: bool,
}

/// A server that is asked whether a request may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorize {
    /// Where it listens.
    pub address: SocketAddr,
    /// The Host header that it gets.
    pub host: String,
    /// The path that is asked for, with a query or without.
    pub path: String,
    /// Present where it is asked over https.
    pub tls: Option<ServerTls>,
    /// Time for connecting and for its answer together, 10 ms to 60 s. Default 2 s.
    pub timeout: Duration,
    /// Fields of the request that it gets, in lower case, at most 64. Default authorization and cookie.
    pub request_headers: Vec<String>,
    /// Fields of its answer that the request then has, in lower case, at most 64. Default none.
    pub response_headers: Vec<String>,
    /// What becomes of a request when it does not answer. Default deny.
    pub on_error: OnAuthorizeError,
    /// Requests that wait for it at once, 1 to 100000; more are as if it did not answer. Default 1000.
    pub requests_max: u32,
}

/// What becomes of a request when nobody says whether it may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAuthorizeError {
    /// It is answered 503.
    Deny,
    /// It comes in.
    Allow,
}
