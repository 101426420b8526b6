//! Reads what `[[listener]]` and `[[route]]` say about who clients are, and who of them may come in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::units::IpNetwork;
use crate::units::networks::{NetworkError, parse_network};

use super::blocks::file;
use super::model::{
    AcceptId, AcceptProxy, AccessLists, Authorize, BasicAuth, ClientFrom, Forwarded, ForwardedRule, Identity,
    ListenerAccess, OnAuthorizeError, RequestId, RouteAccess, RouteRule, ServerTls,
};
use super::reader::{Table, Value};
use super::report::{Located, Mistakes, Wrong};
use super::upstream::{self, WayFiles};
use super::values;

const PROXIES_MAX: usize = 256;
const NETWORKS_MAX: usize = 4096;
const HEADERS_MAX: usize = 64;
const CACHE_TTL_MAX: Duration = Duration::from_secs(24 * 3600);
const CACHE_TTL_DEFAULT: Duration = Duration::from_secs(300);
const AUTHORIZE_TIMEOUT_MIN: Duration = Duration::from_millis(10);
const AUTHORIZE_TIMEOUT_MAX: Duration = Duration::from_secs(60);
const AUTHORIZE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
const REALM_DEFAULT: &str = "restricted";
const REQUEST_ID_DEFAULT: &str = "x-request-id";

/// What only HTTP has, of the keys that are read here.
pub(super) const OF_HTTP: [&str; 5] = ["forwarded", "request_id", "trace_context", "basic_auth", "authorize"];

/// The files that a listener's or a route's rules name, with their places.
#[derive(Default)]
pub(super) struct AccessFiles {
    /// Lists of networks.
    pub(super) lists: Vec<Located<PathBuf>>,
    /// Files of users.
    pub(super) users: Vec<Located<PathBuf>>,
    /// What TLS to servers that are asked needs.
    pub(super) ways: Vec<WayFiles>,
}

/// Reads who clients are taken for.
pub(super) fn identity(table: &mut Table<'_>) -> Identity {
    Identity {
        accept_proxy: table.block("accept_proxy").and_then(accept_proxy),
        forwarded: table.block("forwarded").map(forwarded).unwrap_or_default(),
        request_id: table.block("request_id").map(request_id),
        trace_context: table.boolean("trace_context", false),
    }
}

/// Reads who may come in, of a listener.
pub(super) fn listener_access(
    table: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
    directory: &Path,
) -> (ListenerAccess, AccessFiles) {
    let mut files = AccessFiles::default();
    let access = ListenerAccess {
        lists: access_lists(table, directory, &mut files),
        basic_auth: table.block("basic_auth").and_then(|table| basic_auth(table, directory, &mut files)),
        authorize: table.block("authorize").and_then(|table| authorize(table, mistakes, directory, &mut files)),
    };
    (access, files)
}

/// Reads who may come in, of a route.
pub(super) fn route_access(
    table: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
    directory: &Path,
) -> (RouteAccess, AccessFiles) {
    let mut files = AccessFiles::default();
    let access = RouteAccess {
        lists: access_lists(table, directory, &mut files),
        basic_auth: rule(table, "basic_auth", |table| basic_auth(table, directory, &mut files)),
        authorize: rule(table, "authorize", |table| authorize(table, mistakes, directory, &mut files)),
    };
    (access, files)
}

/// A table, or `false`.
fn rule<'a, T>(table: &mut Table<'a>, key: &'static str, read: impl FnOnce(Table<'a>) -> Option<T>) -> RouteRule<T> {
    let Some(value) = table.optional(key) else { return RouteRule::OfListener };
    if value.is_false() {
        return RouteRule::Off;
    }
    value.block().and_then(read).map_or(RouteRule::OfListener, RouteRule::Own)
}

fn networks(list: Option<Value<'_>>, min: usize, max: usize) -> Vec<IpNetwork> {
    let list = list.map(|value| value.list_of(min, max)).unwrap_or_default();
    list.into_iter().filter_map(|value| value.parsed(network)).map(|found| found.value).collect()
}

/// The addresses of a network, or one address.
pub(super) fn network(text: &str) -> Result<IpNetwork, Wrong> {
    parse_network(text).map_err(|error| match error {
        NetworkError::Malformed => Wrong::new(
            "must be a network or an address",
            "write a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", or an address; names are not looked up",
        ),
        NetworkError::PrefixLen { max } => {
            Wrong::new(format!("the prefix length must be 0 to {max}"), "write a network such as \"10.0.0.0/8\"")
        }
        NetworkError::HostBits(network) => Wrong::new(
            "must be a network, and has bits set behind its prefix",
            format!("write \"{network}\", or the address alone for itself"),
        ),
        NetworkError::Mapped => {
            Wrong::new("must not be an IPv4 network in IPv6 form", "write it as IPv4, such as \"10.0.0.0/8\"")
        }
    })
}

fn accept_proxy(mut table: Table<'_>) -> Option<AcceptProxy> {
    let from = table.required("from", "list the proxies that send the header, such as from = [\"10.0.0.0/8\"]");
    let is_there = from.is_some();
    let accept = AcceptProxy { from: networks(from, 1, PROXIES_MAX), required: table.boolean("required", true) };
    table.finish();
    is_there.then_some(accept)
}

fn forwarded(mut table: Table<'_>) -> Forwarded {
    const RULES: &[(&str, ForwardedRule)] = &[
        ("append", ForwardedRule::Append),
        ("replace", ForwardedRule::Replace),
        ("drop", ForwardedRule::Drop),
        ("pass", ForwardedRule::Pass),
    ];
    let default = Forwarded::default();
    let mut rule = |key, default| {
        let choice = table.optional(key).and_then(|value| value.choice(RULES, &[]));
        choice.map_or(default, |found| found.value)
    };
    let (x_forwarded, of_rfc) = (rule("x_forwarded", default.x_forwarded), rule("forwarded", default.forwarded));
    let fields = [("x_forwarded_for", ClientFrom::XForwardedFor), ("forwarded", ClientFrom::Forwarded)];
    let client_from = table.optional("client_from").and_then(|value| value.choice(&fields, &[]));
    let forwarded = Forwarded {
        trusted: networks(table.optional("trusted"), 0, PROXIES_MAX),
        x_forwarded,
        forwarded: of_rfc,
        client_from: client_from.map_or(default.client_from, |found| found.value),
        port: table.boolean("port", default.port),
        real_ip: table.boolean("real_ip", default.real_ip),
    };
    table.finish();
    forwarded
}

fn request_id(mut table: Table<'_>) -> RequestId {
    let words = [("trusted", AcceptId::Trusted), ("never", AcceptId::Never), ("always", AcceptId::Always)];
    let header = table.optional("header").and_then(|value| value.parsed(values::free_header_name));
    let accept = table.optional("accept").and_then(|value| value.choice(&words, &[]));
    let request_id = RequestId {
        header: header.map_or_else(|| REQUEST_ID_DEFAULT.to_owned(), |found| found.value),
        accept: accept.map_or(AcceptId::Trusted, |found| found.value),
        response: table.boolean("response", true),
    };
    table.finish();
    request_id
}

fn access_lists(table: &mut Table<'_>, directory: &Path, files: &mut AccessFiles) -> AccessLists {
    let allow = table.optional("allow").map(|value| networks(Some(value), 0, NETWORKS_MAX));
    let deny = networks(table.optional("deny"), 0, NETWORKS_MAX);
    let mut list_file = |key| {
        let found = table.optional(key).and_then(|value| file(value, directory))?;
        let path = found.value.clone();
        files.lists.push(found);
        Some(path)
    };
    AccessLists { allow, deny, allow_file: list_file("allow_file"), deny_file: list_file("deny_file") }
}

/// `None` where something that has no default is missing or broken, which is reported then.
fn basic_auth(mut table: Table<'_>, directory: &Path, files: &mut AccessFiles) -> Option<BasicAuth> {
    let realm = table.optional("realm").and_then(|value| value.parsed(realm));
    let users = table
        .required("users_file", "name a file that `htpasswd -B` makes, such as \"/etc/baton/users\"")
        .and_then(|value| file(value, directory));
    let cache_ttl = table.duration("cache_ttl", Duration::ZERO..=CACHE_TTL_MAX, CACHE_TTL_DEFAULT);
    let pass_on = table.boolean("pass_on", true);
    table.finish();
    let users = users?;
    let users_file = users.value.clone();
    files.users.push(users);
    let realm = realm.map_or_else(|| REALM_DEFAULT.to_owned(), |found| found.value);
    Some(BasicAuth { realm, users_file, cache_ttl, pass_on })
}

/// What a browser shows; as a quoted string without anything that has to be escaped (RFC 9110 section 5.6.4).
fn realm(text: &str) -> Result<String, Wrong> {
    let allowed = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        "must be 1 to 128 characters of ASCII without quotes and backslashes",
        "write what browsers shall show, such as \"staff only\"",
    ))
}

/// `None` where something that has no default is missing or broken, which is reported then.
fn authorize(
    mut table: Table<'_>,
    mistakes: &Mistakes<'_>,
    directory: &Path,
    files: &mut AccessFiles,
) -> Option<Authorize> {
    let place = table.place().clone();
    let url = table
        .required("url", "write where to ask, such as \"http://10.0.0.9:9000/check\"")
        .and_then(|value| value.parsed(authorize_url));
    let timeout = table.duration("timeout", AUTHORIZE_TIMEOUT_MIN..=AUTHORIZE_TIMEOUT_MAX, AUTHORIZE_TIMEOUT_DEFAULT);
    let mut headers = |key| {
        let list = table.optional(key)?.list_of(0, HEADERS_MAX).into_iter();
        let names = list.filter_map(|value| value.parsed(values::free_header_name)).map(|found| found.value);
        Some(names.collect::<Vec<_>>())
    };
    let request_headers = headers("request_headers");
    let response_headers = headers("response_headers").unwrap_or_default();
    let words = [("deny", OnAuthorizeError::Deny), ("allow", OnAuthorizeError::Allow)];
    let on_error = table.optional("on_error").and_then(|value| value.choice(&words, &[]));
    let requests_max = table.integer("requests_max", 1..=100_000, 1000);
    let tls = table.block("tls").map(|table| (table.place().clone(), upstream::tls(table, mistakes, directory)));
    table.finish();
    let Url { address, host, path, is_https } = url?.value;
    let tls = match tls {
        Some((place, _)) if !is_https => {
            mistakes.block(&place, "is for https, and url begins with http:", "write https: in url, or leave tls out");
            None
        }
        Some((_, (tls, way))) => {
            files.ways.push(way);
            tls
        }
        None if is_https => {
            files.ways.push(WayFiles { system_roots: Some(place), ..WayFiles::default() });
            Some(ServerTls { verify: true, ca_file: None, server_name: None, certificate: None })
        }
        None => None,
    };
    Some(Authorize {
        address,
        host,
        path,
        tls,
        timeout,
        request_headers: request_headers.unwrap_or_else(|| ["authorization", "cookie"].map(str::to_owned).to_vec()),
        response_headers,
        on_error: on_error.map_or(OnAuthorizeError::Deny, |found| found.value),
        requests_max,
    })
}

struct Url {
    address: SocketAddr,
    host: String,
    path: String,
    is_https: bool,
}

/// A URL whose host is an address: where requests wait for an answer, none waits for a name to be looked up.
fn authorize_url(text: &str) -> Result<Url, Wrong> {
    let example = "write a URL such as \"http://10.0.0.9:9000/check\"";
    let text = values::webhook(text).map_err(|wrong| Wrong::new(wrong.rule, example))?;
    let wrong = || Wrong::new("must be a URL", example);
    let is_https = text.starts_with("https:");
    let url: http::Uri = text.parse().map_err(|_| wrong())?;
    let authority = url.authority().ok_or_else(wrong)?;
    let ip = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .map_err(|_| Wrong::new("the host must be an IP address; host names are not looked up", example))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    Ok(Url {
        address: SocketAddr::new(ip, authority.port_u16().unwrap_or(if is_https { 443 } else { 80 })),
        is_https,
        host: authority.as_str().to_owned(),
        path: path.to_owned(),
    })
}
