//! Which server a client belongs to, and how that is remembered: `[pool.sticky]`, prepared for the request path.
//!
//! `forward` asks in this order: [`Stickiness::visit`] before a server is picked, [`Stickiness::settle`] when one was,
//! [`Stickiness::answered`] when it has answered. Where load balancers share their sessions, [`Stickiness::recall`] comes
//! after the first, [`Stickiness::agree`] before the second, [`Stickiness::share`] after the third. Whoever passes
//! connections on begins with [`Stickiness::connection`], and ends with [`Stickiness::connected`].

mod handshake;
mod shared;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use super::server::Server;
use super::sessions::Sessions;
use crate::config::{self, CookieSecure, OnDown, SameSite, StickyCookie, StickyKey};
use crate::session::ServerRef;
use crate::session::cookie::{Life, Named, ServerCookies, SetCookie, cookie_values, set_cookie};
use crate::session::key::Key;

pub use self::shared::Learned;

/// How a pool keeps clients on their servers.
pub struct Stickiness {
    pool: u16,
    server_count: usize,
    on_down: OnDown,
    memory: Memory,
}

/// Who remembers.
enum Memory {
    /// The client, in a cookie of ours.
    Cookie(Box<OwnCookie>),
    /// The table, by something that the client brings along.
    Table(Source),
}

/// Where the key of the table comes from.
enum Source {
    AppCookie(String),
    Address {
        prefix_v4: u8,
        prefix_v6: u8,
    },
    Header(HeaderName),
    Query(String),
    /// What a TLS handshake says, which is read where connections are passed on as they are.
    Handshake,
}

/// What is known of a client when it asks for something. Nothing by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Visit {
    /// What the table knows it by.
    key: Option<Key>,
    /// The server that it belongs to.
    home: Option<usize>,
    /// Whether it belonged there before.
    is_known: bool,
    /// The cookie of ours that it has.
    cookie: Option<Named>,
}

/// Where a client has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To any server that takes new clients.
    Any,
    /// To the server that it belongs to.
    Home(usize),
    /// Nowhere: this server is down or disabled, and no other may serve the client.
    Closed(usize),
}

impl Stickiness {
    /// Prepares what a pool has configured. `index` is the pool's, `key` the pair key.
    pub fn new(config: &config::Sticky, pool: &config::Pool, index: usize, key: &[u8]) -> Self {
        let memory = match config {
            config::Sticky::Cookie(cookie) => Memory::Cookie(Box::new(OwnCookie::new(cookie, pool, key))),
            config::Sticky::Table(table) => Memory::Table(Source::new(&table.key)),
        };
        Self {
            // There are 1024 pools at most.
            pool: u16::try_from(index).unwrap_or(u16::MAX),
            server_count: pool.servers.len(),
            on_down: config.on_down(),
            memory,
        }
    }

    /// What is known of the client of a request.
    pub fn visit<B>(&self, sessions: &Sessions, address: IpAddr, request: &Request<B>) -> Visit {
        match &self.memory {
            Memory::Cookie(own) => {
                let cookie = own.read(request.headers());
                Visit { home: cookie.map(|cookie| cookie.server), is_known: cookie.is_some(), cookie, key: None }
            }
            Memory::Table(source) => source.of_request(address, request, |value| self.look_up(sessions, value)),
        }
    }

    /// What is known of the client of a connection. `handshake` is the host that its TLS handshake names, or the id of its
    /// TLS session, whichever the pool is sticky by.
    pub fn connection(&self, sessions: &Sessions, address: IpAddr, handshake: Option<&[u8]>) -> Visit {
        match &self.memory {
            Memory::Table(Source::Handshake) => self.look_up(sessions, handshake.unwrap_or_default()),
            Memory::Table(Source::Address { prefix_v4, prefix_v6 }) => {
                with_network(address, *prefix_v4, *prefix_v6, |network| self.look_up(sessions, network))
            }
            Memory::Table(Source::AppCookie(_) | Source::Header(_) | Source::Query(_)) | Memory::Cookie(_) => {
                Visit::default()
            }
        }
    }

    /// Nobody is known by an empty value, and nobody belongs to a server that is not there: the other node, with a newer
    /// file, may know more of them.
    fn look_up(&self, sessions: &Sessions, value: &[u8]) -> Visit {
        let key = if value.is_empty() { None } else { sessions.keys.key(self.pool, value) };
        let Some(key) = key else { return Visit::default() };
        let found = sessions.find(&key).filter(|found| usize::from(found.server) < self.server_count);
        if let (Some(found), Some(store)) = (found, sessions.store()) {
            store.used(&key, found);
        }
        let home = found.map(|found| usize::from(found.server));
        Visit { key: Some(key), home, is_known: home.is_some(), cookie: None }
    }

    /// Where the client has to go. A server that is being drained keeps those who belong to it.
    pub fn way(&self, visit: &Visit, servers: &[Arc<Server>]) -> Way {
        let home = visit.home.and_then(|home| Some((home, servers.get(home)?)));
        match (home, self.on_down) {
            (None, _) => Way::Any,
            (Some((home, server)), _) if server.keeps_users() => Way::Home(home),
            (Some(_), OnDown::Rebalance) => Way::Any,
            (Some((home, _)), OnDown::Fail) => Way::Closed(home),
        }
    }

    /// Whether the client may go to no other server than the one that it belonged to before.
    pub fn is_bound(&self, visit: &Visit) -> bool {
        visit.is_known && self.on_down == OnDown::Fail
    }

    /// A server was picked for a client that belongs to none, or to one that cannot serve it. Gives the server that it
    /// goes to: `picked`, or the one that another request of the client, at the same time, was the first to settle on.
    ///
    /// `may_take` says whether a server may serve it. `is_first`: no server has failed this request yet. When one has,
    /// the client moves only once another has answered, so that a network that fails for a moment moves nobody.
    pub fn settle(
        &self,
        sessions: &Sessions,
        visit: &mut Visit,
        picked: usize,
        is_first: bool,
        may_take: impl Fn(usize) -> bool,
    ) -> usize {
        let (Some(key), Some(own)) = (visit.key, self.server(picked)) else { return picked };
        let standing = usize::from(sessions.claim(&key, own).server);
        if standing == picked || may_take(standing) {
            visit.home = Some(standing);
            return standing;
        }
        if is_first {
            sessions.put(&key, own);
            visit.home = Some(picked);
        }
        picked
    }

    /// A server has answered. Remembers that the client belongs to it, before the client sees the response. Gives what
    /// other load balancers have to know by then, too.
    pub fn answered(
        &self,
        sessions: &Sessions,
        visit: &Visit,
        server: usize,
        is_tls: bool,
        headers: &mut HeaderMap,
    ) -> Option<Learned> {
        match &self.memory {
            Memory::Cookie(own) => {
                let is_due = visit.cookie.is_some_and(|cookie| cookie.is_due);
                if (visit.home != Some(server) || is_due)
                    && let Some(cookie) = own.header(visit, server, is_tls)
                {
                    headers.append(header::SET_COOKIE, cookie);
                }
                None
            }
            Memory::Table(source) => {
                self.connected(sessions, visit, server);
                match source {
                    Source::AppCookie(name) => self.learn(sessions, visit, server, name, headers),
                    Source::Address { .. } | Source::Header(_) | Source::Query(_) | Source::Handshake => None,
                }
            }
        }
    }

    /// A server serves the client: it belongs there from now on, unless another of its requests moved it already.
    pub fn connected(&self, sessions: &Sessions, visit: &Visit, server: usize) {
        let (Some(key), Some(own)) = (visit.key, self.server(server)) else { return };
        if visit.home == Some(server) {
            return;
        }
        let standing = sessions.claim(&key, own);
        if visit.home == Some(usize::from(standing.server)) {
            sessions.put(&key, own);
            sessions.store().inspect(|store| store.put_later(&key, own));
        } else if standing == own {
            sessions.store().inspect(|store| store.claim_later(&key, own));
        }
    }

    /// Takes what the application does to its cookie.
    fn learn(
        &self,
        sessions: &Sessions,
        visit: &Visit,
        server: usize,
        name: &str,
        headers: &HeaderMap,
    ) -> Option<Learned> {
        let own = self.server(server)?;
        let mut learned = None;
        for change in headers.get_all(header::SET_COOKIE).iter().filter_map(|field| set_cookie(field.as_bytes(), name))
        {
            match change {
                SetCookie::Value(value) => {
                    let Some(key) = sessions.keys.key(self.pool, value) else { continue };
                    // Some applications set it with every response.
                    if sessions.find(&key) != Some(own) {
                        sessions.put(&key, own);
                        learned = Some(Learned { key, server: own });
                    }
                }
                SetCookie::Removed => {
                    if let Some(key) = &visit.key {
                        sessions.remove(key);
                    }
                }
            }
        }
        learned
    }

    fn server(&self, server: usize) -> Option<ServerRef> {
        Some(ServerRef { pool: self.pool, server: u16::try_from(server).ok()? })
    }
}

impl Source {
    fn new(key: &StickyKey) -> Self {
        match key {
            StickyKey::AppCookie { name } => Source::AppCookie(name.clone()),
            StickyKey::SourceIp { prefix_v4, prefix_v6 } => {
                Source::Address { prefix_v4: *prefix_v4, prefix_v6: *prefix_v6 }
            }
            // The name was checked, so this cannot fail.
            StickyKey::Header { name } => Source::Header(
                HeaderName::from_bytes(name.as_bytes()).unwrap_or(HeaderName::from_static("x-baton-no-such-header")),
            ),
            StickyKey::Query { name } => Source::Query(name.clone()),
            StickyKey::TlsSni | StickyKey::TlsSessionId => Source::Handshake,
        }
    }
}

impl Source {
    /// Calls `found` with what a request's client is known by; an empty value when there is nothing.
    fn of_request<B, T>(&self, address: IpAddr, request: &Request<B>, found: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Source::AppCookie(name) => {
                let mut cookies = request.headers().get_all(header::COOKIE).iter();
                let cookie = cookies.find_map(|field| cookie_values(field.as_bytes(), name).next());
                found(cookie.filter(|value| !value.is_empty()).unwrap_or_else(|| path_parameter(request, name)))
            }
            Source::Address { prefix_v4, prefix_v6 } => with_network(address, *prefix_v4, *prefix_v6, found),
            Source::Header(name) => {
                found(request.headers().get(name).map(|value| value.as_bytes().trim_ascii()).unwrap_or_default())
            }
            Source::Query(name) => found(query_parameter(request, name)),
            Source::Handshake => found(b""),
        }
    }
}

/// A parameter of a segment of the path, such as `;jsessionid=…`: where servlet containers write the session of a client
/// that takes no cookies (Jakarta Servlet 6.0, section 7.1.3), and in lower case whatever the cookie's name.
fn path_parameter<'request, B>(request: &'request Request<B>, name: &str) -> &'request [u8] {
    let segments = request.uri().path().split('/');
    let mut parameters = segments.flat_map(|segment| segment.split(';').skip(1));
    let value = parameters.find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.eq_ignore_ascii_case(name).then_some(value)
    });
    value.unwrap_or_default().as_bytes()
}

/// The first value of a parameter of the query, as it is written.
fn query_parameter<'request, B>(request: &'request Request<B>, name: &str) -> &'request [u8] {
    let mut parameters = request.uri().query().unwrap_or_default().split('&');
    let value = parameters.find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().as_bytes()
}

/// Calls `found` with the network that an address is of. An IPv4 address in IPv6 form is an IPv4 address.
pub(crate) fn with_network<T>(address: IpAddr, prefix_v4: u8, prefix_v6: u8, found: impl FnOnce(&[u8]) -> T) -> T {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let rest = u32::MAX.checked_shr(u32::from(prefix_v4)).unwrap_or(0);
            found(&(address.to_bits() & !rest).to_be_bytes())
        }
        IpAddr::V6(address) => {
            let rest = u128::MAX.checked_shr(u32::from(prefix_v6)).unwrap_or(0);
            found(&(address.to_bits() & !rest).to_be_bytes())
        }
    }
}

/// A cookie of ours.
struct OwnCookie {
    name: String,
    cookies: ServerCookies,
    /// What follows the value.
    attributes: BySecurity<String>,
    /// The whole header for each server, where no dates stand in it.
    ready: Vec<BySecurity<HeaderValue>>,
}

/// The same for both kinds of connection.
struct BySecurity<T> {
    plain: T,
    tls: T,
}

impl<T> BySecurity<T> {
    fn of(&self, is_tls: bool) -> &T {
        if is_tls { &self.tls } else { &self.plain }
    }
}

impl OwnCookie {
    fn new(config: &StickyCookie, pool: &config::Pool, key: &[u8]) -> Self {
        let names = pool.servers.iter().map(|server| server.name.as_str());
        let life = Life { idle: config.ttl, absolute: config.ttl_max };
        let cookies = ServerCookies::derive(key, &pool.name, names, life);
        let attributes = BySecurity { plain: attributes(config, false), tls: attributes(config, true) };
        let mut own = Self { name: config.name.clone(), cookies, attributes, ready: Vec::new() };
        if !own.cookies.have_dates() {
            let both =
                |server| Some(BySecurity { plain: own.made(server, 0, 0, false)?, tls: own.made(server, 0, 0, true)? });
            own.ready = (0..pool.servers.len()).map_while(both).collect();
        }
        own
    }

    /// The first of the cookies that counts.
    fn read(&self, headers: &HeaderMap) -> Option<Named> {
        let now = self.now();
        let fields = headers.get_all(header::COOKIE).iter();
        let mut values = fields.flat_map(|field| cookie_values(field.as_bytes(), &self.name));
        values.find_map(|value| self.cookies.read(value, now))
    }

    /// The header that names a server. A cookie of that server already keeps its date of issue.
    fn header(&self, visit: &Visit, server: usize, is_tls: bool) -> Option<HeaderValue> {
        if !self.cookies.have_dates() {
            return self.ready.get(server).map(|ready| ready.of(is_tls).clone());
        }
        let now = self.now();
        let issued = visit.cookie.filter(|cookie| cookie.server == server).and_then(|cookie| cookie.issued);
        self.made(server, issued.unwrap_or(now), now, is_tls)
    }

    fn made(&self, server: usize, issued: u64, now: u64, is_tls: bool) -> Option<HeaderValue> {
        let value = self.cookies.write(server, issued, now)?;
        let max_age = self.cookies.max_age(issued, now).map(|left| format!("; Max-Age={left}")).unwrap_or_default();
        HeaderValue::try_from(format!("{}={value}{}{max_age}", self.name, self.attributes.of(is_tls))).ok()
    }

    /// Seconds since 1970, where they matter.
    fn now(&self) -> u64 {
        if !self.cookies.have_dates() {
            return 0;
        }
        // A clock before 1970 is one that nobody has set.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// The attributes of a cookie that is set over clear text or TLS.
fn attributes(config: &StickyCookie, is_tls: bool) -> String {
    let is_secure = match config.secure {
        CookieSecure::Auto => is_tls,
        CookieSecure::Always => true,
        CookieSecure::Never => false,
    };
    let domain = config.domain.as_ref().map(|domain| format!("; Domain={domain}")).unwrap_or_default();
    let http_only = if config.http_only { "; HttpOnly" } else { "" };
    let same_site = match config.same_site {
        SameSite::Lax => "; SameSite=Lax",
        SameSite::Strict => "; SameSite=Strict",
        SameSite::None if is_secure => "; SameSite=None",
        // Browsers refuse None without Secure, so the cookie would be lost.
        SameSite::None | SameSite::Off => "",
    };
    let secure = if is_secure { "; Secure" } else { "" };
    format!("; Path={}{domain}{http_only}{same_site}{secure}", config.path)
}

#[cfg(test)]
mod tests;
