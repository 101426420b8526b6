//! The configuration as the program uses it: every name resolved, every value in range.

mod access_log;
mod balance;
mod compression;
mod discovery;
mod error_pages;
mod health;
mod identity;
mod passive;
mod protection;
mod routes;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use self::access_log::{AccessLog, LogFormat, LogTarget, SyslogFormat};
pub use self::balance::{Algorithm, ConsistentHash, HashKey, ResourceReports};
pub use self::compression::{Coding, Compression, CompressionLevel, PoolCompression};
pub use self::error_pages::{ErrorPage, PAGE_BYTES_MAX};
pub use self::tls::{Certificate, ClientAuth, ClientAuthMode, Hsts, RedirectToHttps, Tls, TlsVersion};
use crate::units::{AdvertInterval, IpNetwork, Priority, VirtualRouterId};

pub use discovery::*;
pub use health::*;
pub use identity::*;
pub use passive::*;
pub use protection::*;
pub use routes::*;

/// A whole, valid configuration. The same on both nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// None to two nodes, in the order of the file; none only where there are no vips.
    pub nodes: Vec<Node>,
    /// What the two nodes share.
    pub pair: Pair,
    /// The groups of virtual addresses, at most 64.
    pub vips: Vec<Vip>,
    /// The addresses that clients connect to, at most 256. There is a vip or a listener in every configuration.
    pub listeners: Vec<Listener>,
    /// The sets of servers, at most 1024; [`PoolIndex`] points into it.
    pub pools: Vec<Pool>,
    /// What a node has to be to hold a VIP, besides what is always watched; at most 64.
    pub fitness: Vec<FitnessCheck>,
    /// Who is told of role changes.
    pub events: Events,
    /// How the sessions of all pools are kept.
    pub sessions: Sessions,
    /// Where metrics and the API are served; nowhere when `None`.
    pub admin: Option<Admin>,
    /// How the worker process runs and is watched.
    pub worker: WorkerSettings,
    /// SHA-256 of the file's bytes in hex; equal on both nodes when the files are.
    pub checksum: String,
}

/// A Redis or Valkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where it is: one server, or 1 to 16 of a cluster. All with TLS, or none.
    pub urls: Vec<StoreUrl>,
    /// Whether keys are spread over a cluster. Default: with several URLs.
    pub is_cluster: bool,
    /// The user of its ACL, 1 to 128 characters; only with a password. Default: the one named `default`.
    pub username: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The authorities that its certificate is checked against, in PEM; only with TLS. Default: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The longest that a request waits for it, 1 ms to 10 s. Default 50 ms.
    pub timeout: Duration,
    /// What its keys begin with, at most 64 characters. Default `baton:`.
    pub prefix: String,
}

/// Where a store is. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// A host name in lower case or an address, IPv6 without brackets.
    pub host: String,
    /// 1 to 65535. Default 6379.
    pub port: u16,
    /// Whether it is reached with TLS.
    pub is_tls: bool,
    /// Number of the database, 0 in a cluster. Default 0.
    pub database: u32,
}

impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}/{}", self.host, self.port, self.database)
    }
}

/// A machine of the pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique name, matched against `--node`, `BATON_NODE` or the host name.
    pub name: String,
    /// Heartbeat and sync run between the nodes' addresses.
    pub address: IpAddr,
    /// Further addresses of the node, at most 4: the heartbeat also runs between the n-th ones of both nodes, and a VIP
    /// changes hands only when every path is silent. Both nodes have as many.
    pub further_addresses: Vec<IpAddr>,
    /// Where it is: servers of the same zone are preferred. `None`: there is no preference.
    pub zone: Option<String>,
    /// Higher wins when both claim a VIP. Default: 250 for the first node, 249 for the second.
    pub priority: Priority,
}

impl Node {
    /// [`Node::address`] and then the further ones, so that the n-th ones of both nodes are the ends of one path.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.address).chain(self.further_addresses.iter().copied())
    }
}

/// What the two nodes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The file that holds the pair key, made by `baton keygen`; adverts are not authenticated without one.
    pub key_file: Option<PathBuf>,
    /// Port of the sync link (TCP) and of the heartbeat link (UDP), 1 to 65535. Default 7947.
    pub sync_port: u16,
    /// Keys of the advert authentication, at most 8: the first one signs, all of them verify. Without any, key 1 is
    /// derived from the pair key.
    pub advert_keys: Vec<AdvertKey>,
    /// The witness that decides who may take over when the nodes cannot hear each other; only with a pair key and two
    /// nodes.
    pub witness: Option<SocketAddr>,
    /// Time that HTTP clients of a VIP get to leave before it is moved by a switchover or a stop, 0 to 20 s. Default 1 s; 0
    /// moves it at once.
    pub switchover_drain: Duration,
}

/// A key of the advert authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertKey {
    /// Its number on the wire, 1 to 255.
    pub id: u8,
    /// A file with 32 to 512 bytes in hex, as the pair key's.
    pub file: PathBuf,
}

/// Virtual addresses that move together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// Unique name: 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// 1 to 16 addresses of both families, none of which is a node's own, in the order of the file, except that among
    /// the IPv6 ones the link-local come first (RFC 9568 section 5.2.9).
    pub addresses: Vec<VipAddress>,
    /// The interface that carries the addresses, unless one of them names another.
    pub interface: String,
    /// The interface that carries the adverts. Default: `interface`.
    pub advert_interface: String,
    /// Unique on one advert interface.
    pub virtual_router_id: VirtualRouterId,
    /// Time between adverts. Default 100 ms, with VRRPv2 alone 1 s.
    pub advert_interval: AdvertInterval,
    /// How adverts travel. Default unicast.
    pub transport: Transport,
    /// Versions of VRRP that are spoken. Default 3.
    pub version: VrrpVersion,
    /// What the checksum of a VRRPv3 advert over IPv4 covers. Default as RFC 9568 has it.
    pub checksum: AdvertChecksum,
    /// What is made of the authentication trailer. Default [`Authentication::Enforce`] with a pair key or advert keys and
    /// two nodes, otherwise [`Authentication::Off`]. Never another than that without a key.
    pub authentication: Authentication,
    /// A file with the simple password of VRRPv2 (RFC 2338 section 5.3.6, 1 to 8 bytes); only with version 2.
    pub password_file: Option<PathBuf>,
    /// Whether the addresses live on a macvlan with the virtual router's own hardware address
    /// (RFC 9568 section 7.3). Default false.
    pub virtual_mac: bool,
    /// The node that takes the VIP back whenever it can, as an index into [`Config::nodes`].
    pub prefer: Option<usize>,
    /// Time that the preferred node has to be fit and synced before it takes the VIP back, 0 to 24 h. Default 30 s.
    pub prefer_hold: Duration,
    /// How the addresses are announced to neighbours.
    pub announce: Announce,
    /// Whether to ask the network for another holder before the first takeover (RFC 5227 section 2.1). Default true.
    pub probe_first: bool,
}

/// One virtual address and the interface that carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipAddress {
    /// The address with its prefix length.
    pub network: IpNetwork,
    /// The interface; that of the vip unless the address names another.
    pub interface: String,
}

/// Versions of VRRP that are spoken for a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VrrpVersion {
    /// VRRPv2 (RFC 3768): IPv4 alone, whole seconds from 1 to 40.
    V2,
    /// VRRPv3 (RFC 9568).
    V3,
    /// Both are sent, and both are heard (RFC 5798 section 8.4).
    Mixed,
}

/// What the checksum of a VRRPv3 advert over IPv4 covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdvertChecksum {
    /// The pseudo-header and the packet (RFC 9568 section 5.2.8).
    Rfc,
    /// The packet alone, as keepalived does with `v3_checksum_as_v2`.
    WithoutPseudoHeader,
}

/// What is made of the authentication trailer of adverts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// None is sent; adverts that have one are refused.
    Off,
    /// None is sent; one that comes is verified; adverts without one are heard.
    ReceiveOnly,
    /// One is sent; one that comes is verified; adverts without one are heard.
    Permissive,
    /// One is sent, and adverts without a valid one are refused.
    Enforce,
}

/// How addresses are announced to neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// Announcements of each address at a time, 1 to 10. Default 1.
    pub burst: u32,
    /// Times after a takeover at which the announcement is repeated, ascending, at most 16, each up to 5 min.
    /// Default 50 ms, 200 ms, 700 ms, 2 s, 5 s.
    pub repeat: Vec<Duration>,
    /// Time between announcements for as long as the VIP is held, 1 s to 24 h; `None` for never. Default 60 s.
    pub refresh: Option<Duration>,
}

/// How adverts travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Between the two node addresses; works in any network.
    Unicast,
    /// To 224.0.0.18 and ff02::12, as RFC 9568 has it.
    Multicast,
    /// Over the UDP link of the pair alone, for networks without IP protocol 112.
    Udp,
}

/// An index into [`Config::pools`], valid by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolIndex(pub usize);

/// An address that clients connect to.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique name: 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// 1 to 64 addresses with a port; none is bound twice, and none lies below a wildcard that is bound as well. `[::]`
    /// counts as a wildcard of IPv4 too.
    pub bind: Vec<SocketAddr>,
    /// What is spoken on it. Default http.
    pub protocol: Protocol,
    /// Where a request goes when no route matches; `None` answers 404. Where every connection goes with protocol tcp,
    /// which has no routes and always a pool.
    pub pool: Option<PoolIndex>,
    /// In the order in which they are tried: higher priority; exact host, longer wildcard, none; exact path, longer
    /// prefix, expression, none; more further conditions; the order of the file.
    pub routes: Vec<Route>,
    /// Edits of the headers of every request.
    pub request_headers: HeaderEdits,
    /// Edits of the headers of every response.
    pub response_headers: HeaderEdits,
    /// How the listener speaks TLS, when it does.
    pub tls: Option<Tls>,
    /// What tells browsers to come over HTTPS alone; only with TLS and protocol http.
    pub hsts: Option<Hsts>,
    /// Where requests go that no route matches; never with TLS or a pool, only with protocol http.
    pub redirect_to_https: Option<RedirectToHttps>,
    /// Time a client may take for a request's head, from its first byte (or the connect), 10 ms to 1 h. Default 10 s.
    /// With protocol tcp, for what comes before a server is chosen: a TLS handshake, or a ClientHello to choose it by.
    pub head_timeout: Duration,
    /// Time a client may be idle between requests, or a body may make no progress, 10 ms to 24 h. Default 60 s. With
    /// protocol tcp, the time in which no byte moves in either direction.
    pub idle_timeout: Duration,
    /// Connections at once, for each listener, 1 to 1000000; more wait in the kernel's queue. Default 10000.
    pub connections_max: u32,
    /// What is written of its requests, or of its connections with protocol tcp; `None`: nothing.
    pub access_log: Option<AccessLog>,
    /// How responses are compressed; `None`: not at all. Only with protocol http.
    pub compression: Option<Compression>,
    /// What is sent in place of our errors, those of one status before those of a class. Only with protocol http.
    pub error_pages: Vec<ErrorPage>,
    /// Whether it is sent in place of errors of servers as well. Default false.
    pub intercept_errors: bool,
    /// What it asks of its clients.
    pub protection: ListenerProtection,
    /// Whether HTTP/2 is spoken too: over TLS where the client wants it, in clear text where it begins with it. Default
    /// true; only with protocol http.
    pub http2: bool,
    /// Whether CONNECT goes to servers, which then open the tunnel or do not; otherwise it is refused. Default false; only
    /// with protocol http.
    pub connect: bool,
    /// Time that no byte may move in either direction once a connection or stream has changed to another protocol
    /// (WebSocket, CONNECT), 10 ms to 24 h. Default 1 h; only with protocol http.
    pub tunnel_timeout: Duration,
    /// Who clients are taken for.
    pub identity: Identity,
    /// Who may come in.
    pub access: ListenerAccess,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, HTTP/1.0 and HTTP/2.
    Http,
    /// Bytes, whatever they mean; with `tls`, what is within TLS.
    Tcp,
}

/// A set of servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Unique name: 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// How a server is picked. Default round robin.
    pub algorithm: Algorithm,
    /// Time in which the weight of a server that has come back up grows to what it is, 100 ms to 1 h; `None`: at once.
    pub slow_start: Option<Duration>,
    /// With fewer healthy servers, in percent, all of them are used, 0 to 100; 0: never. Default 0.
    pub panic_threshold: u32,
    /// With fewer healthy servers in the node's zone, in percent of the servers there, those of other zones are used alike, 0
    /// to 100. Default 50.
    pub zone_threshold: u32,
    /// 1 to 1024 servers with unique names; there may be none where they are found.
    pub servers: Vec<Server>,
    /// Where further servers are found.
    pub discovery: Option<Discovery>,
    /// Active checks; without them a server counts as up.
    pub health: Option<Health>,
    /// Where its servers say by themselves how they are.
    pub agent: Option<Agent>,
    /// Keeps a client on its server.
    pub sticky: Option<Sticky>,
    /// Edits of the headers of requests to its servers, after those of the listener.
    pub request_headers: HeaderEdits,
    /// Edits of the headers of responses from it, after those of the listener.
    pub response_headers: HeaderEdits,
    /// Time for a TCP connect to a server, 10 ms to 5 min. Default 3 s.
    pub connect_timeout: Duration,
    /// Time from the request's last byte to the response's head, and for a body to make progress, 10 ms to 24 h.
    /// Default 30 s.
    pub response_timeout: Duration,
    /// Time an unused connection to a server is kept, 10 ms to 24 h. Default 30 s.
    pub idle_timeout: Duration,
    /// Unused connections kept, for each server and worker thread, 0 to 65536. Default 64. Those of HTTP/1 alone.
    pub idle_connections_max: u32,
    /// How responses of its servers are compressed. Default as the listener has it.
    pub compression: PoolCompression,
    /// How many requests its servers get at once; `None`: any number.
    pub connections: Option<PoolConnections>,
    /// What is spoken with the servers. Default HTTP/1.1.
    pub protocol: ServerProtocol,
    /// Bounds of HTTP/2.
    pub http2: ServerHttp2,
    /// Time in which a response's body has to make progress, 10 ms to 24 h. Default `response_timeout`.
    pub body_timeout: Duration,
    /// Time from a request's head to its response's last byte, retries included, 10 ms to 24 h; `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// When a request is tried again.
    pub retries: Retries,
    /// TLS to the servers; `None`: clear text.
    pub tls: Option<ServerTls>,
    /// Servers are told whose connection it is, with the PROXY protocol. Each client has connections of its own then.
    pub send_proxy: Option<SendProxy>,
    /// What follows from the outcomes of clients' requests.
    pub passive: Passive,
}

/// TLS to servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Whether a server's certificate has to be good. Default true.
    pub verify: bool,
    /// The authorities that vouch for servers, in PEM; those of the system when `None`.
    pub ca_file: Option<PathBuf>,
    /// The name that is asked for (SNI) and that the certificate has to be for; when `None`, it has to be for the server's
    /// IP address, and no name is asked for (RFC 6066 section 3).
    pub server_name: Option<String>,
    /// What we show to servers that ask who we are.
    pub certificate: Option<Certificate>,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendProxy {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// When a request that failed is tried again on another server. One that a server may have begun with is repeated only
/// where its method is idempotent and all of it is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Tries of one request, the first included, 1 to 10. Default 5.
    pub attempts: u32,
    /// After a connection that was not made. Default true.
    pub on_connect_failure: bool,
    /// After a stream that the server refused (RFC 9113 section 8.7). Default true.
    pub on_refused_stream: bool,
    /// After a connection that broke. Default true.
    pub on_broken_connection: bool,
    /// After a response that did not begin in time. Default false.
    pub on_response_timeout: bool,
    /// After these statuses, 400 to 599. Default none.
    pub on_statuses: Vec<u16>,
    /// The share of a pool's requests, for each worker thread, that retries may come to over ten seconds, 0 to 100.
    /// Default 20. Those after a connection that was not made do not count.
    pub budget_percent: u32,
    /// Retries a second, for each worker thread, that are there in any case, 0 to 10000. Default 10.
    pub budget_per_second: u32,
    /// Bodies up to this many bytes are read before a server is chosen, so that they can be sent again, 0 to 1 MiB; those
    /// without a length never. Default 0.
    pub replay_body_max: u32,
    /// Time after which a second copy of such a request goes to another server when the first has not begun to answer,
    /// 1 ms to 10 min. Counts as a retry. Default none.
    pub hedge_after: Option<Duration>,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 5,
            on_connect_failure: true,
            on_refused_stream: true,
            on_broken_connection: true,
            on_response_timeout: false,
            on_statuses: Vec::new(),
            budget_percent: 20,
            budget_per_second: 10,
            replay_body_max: 0,
            hedge_after: None,
        }
    }
}

/// What is spoken with servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerProtocol {
    /// HTTP/1.1, with `tls` or without.
    Http1,
    /// HTTP/2 within TLS.
    H2,
    /// HTTP/2 in clear text, without asking first (RFC 9113 section 3.3).
    H2c,
    /// HTTP/2 where the server agrees to it within TLS (ALPN, RFC 7301), otherwise HTTP/1.1.
    Auto,
}

/// Bounds of HTTP/2 with servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHttp2 {
    /// Connections at once, for each server and worker thread, 1 to 1024; more requests wait. Default 8.
    pub connections_max: u32,
    /// Requests at once on a connection, 1 to 1000; a server may allow fewer. Default 100.
    pub streams_max: u32,
}

/// One backend address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Unique in its pool.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Used only when no other server of the pool is up.
    pub backup: bool,
    /// How much it gets beside the others, 0 to 256; 0: no new clients. Default 1.
    pub weight: u32,
    /// Requests, or connections with protocol tcp, that it has at once, 1 to 1000000; `None`: as the pool has it.
    pub connections_max: Option<u32>,
    /// Where it is; `None`: nobody has said.
    pub zone: Option<String>,
    /// Where it comes from.
    pub origin: ServerOrigin,
}

/// Where a server comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerOrigin {
    /// The configuration.
    #[default]
    File,
    /// An operator, who has added it.
    Operator,
    /// The source of the pool's servers.
    Found,
}

impl ServerOrigin {
    /// As it is said to people.
    pub const fn as_str(self) -> &'static str {
        match self {
            ServerOrigin::File => "file",
            ServerOrigin::Operator => "operator",
            ServerOrigin::Found => "found",
        }
    }
}

/// Keeps a client on its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// With a cookie of ours that names the server: nothing has to be remembered here.
    Cookie(StickyCookie),
    /// With something that the client brings along, and a table of which server that belongs to.
    Table(StickyTable),
}

impl Sticky {
    /// What becomes of a client whose server is down.
    pub fn on_down(&self) -> OnDown {
        match self {
            Sticky::Cookie(cookie) => cookie.on_down,
            Sticky::Table(table) => table.on_down,
        }
    }
}

/// A cookie of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name, a token of 1 to 64 characters. Default `BATON`.
    pub name: String,
    /// Time without a request after which it counts no more, 1 s to 400 days; also its Max-Age. `None`: it lasts until
    /// the browser is closed.
    pub ttl: Option<Duration>,
    /// Time after which it counts no more however much it is used, 1 s to 400 days and not below `ttl`. `None`: no limit.
    pub ttl_max: Option<Duration>,
    /// When it is for encrypted connections alone. Default on connections that are.
    pub secure: CookieSecure,
    /// Whether it is kept from scripts. Default true.
    pub http_only: bool,
    /// Whether it goes along with requests from other sites. Default lax.
    pub same_site: SameSite,
    /// The path that it is for. Default `/`.
    pub path: String,
    /// The domain that it is for, in lower case; the host alone when `None`.
    pub domain: Option<String>,
    /// What becomes of a client whose server is down. Default rebalance.
    pub on_down: OnDown,
}

/// When a cookie has the attribute Secure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieSecure {
    /// When the client came over TLS.
    Auto,
    /// Always, such as behind something that ends TLS.
    Always,
    /// Never.
    Never,
}

/// The attribute SameSite of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// `Lax`
    Lax,
    /// `Strict`
    Strict,
    /// `None`, which browsers take with Secure alone.
    None,
    /// The attribute is left out.
    Off,
}

/// Stickiness with a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyTable {
    /// What a client is known by.
    pub key: StickyKey,
    /// Time without a request after which an entry is dropped, 1 s to 400 days. Default 1 h.
    pub ttl: Duration,
    /// Time after which an entry is dropped however much it is used, 1 s to 400 days and not below `ttl`. `None`: no
    /// limit.
    pub ttl_max: Option<Duration>,
    /// Entries of this pool, 1 to 16000000; at the limit the least recently used goes. Default 1000000.
    pub entries_max: u32,
    /// What becomes of a client whose server is down. Default rebalance.
    pub on_down: OnDown,
}

/// What a client is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickyKey {
    /// A cookie that the application sets.
    AppCookie {
        /// Its name, a token of 1 to 64 characters.
        name: String,
    },
    /// The client's network.
    SourceIp {
        /// Bits of an IPv4 address that count, 1 to 32. Default 32.
        prefix_v4: u8,
        /// Bits of an IPv6 address that count, 1 to 128. Default 64, as one client has a whole /64.
        prefix_v6: u8,
    },
    /// A field of the request's head.
    Header {
        /// Its name in lower case, a token of 1 to 64 characters.
        name: String,
    },
    /// A parameter of the request's query.
    Query {
        /// Its name as clients write it, 1 to 64 characters.
        name: String,
    },
    /// The host that the client names in its TLS handshake.
    TlsSni,
    /// The id of the client's TLS session.
    TlsSessionId,
}

/// What becomes of a client whose server is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDown {
    /// It gets another server, for good.
    Rebalance,
    /// It is answered 503 until its server is up again.
    Fail,
}

/// How the sessions of all pools are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// Time between two snapshots of the table on disk, 1 s to 24 h. Default 60 s.
    pub snapshot_interval: Duration,
    /// Where more than two load balancers keep them together; `None` for none.
    pub store: Option<Store>,
}

/// Where metrics and the API are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// An address with a port that no listener has, on both nodes.
    pub bind: SocketAddr,
    /// A file with the token that changes need; without one they are refused.
    pub token_file: Option<PathBuf>,
    /// Names under which it may be asked, besides addresses, `localhost` and the node's own.
    pub hosts: Vec<String>,
}

/// How the worker process runs and is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Threads, each with its own runtime and sockets, 1 to 256. Default: one a core.
    pub threads: usize,
    /// The user that the worker becomes when the guard is root. Default `baton`, or `nobody` where there is none.
    pub user: Option<String>,
    /// Time between two probes of the worker, 10 ms to 10 s. Default 50 ms.
    pub probe_interval: Duration,
    /// Time without an answer after which the worker counts as hung, the probe interval to 60 s. Default 200 ms, or the
    /// interval where that is longer.
    pub probe_timeout: Duration,
    /// Time that requests in flight get at a stop, 0 to 1 h. Default 10 s.
    pub drain_timeout: Duration,
    /// What it takes on.
    pub limits: WorkerLimits,
}

/// One thing that a node has to have to hold a VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FitnessCheck {
    /// Unique name: 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// What is looked at.
    pub subject: FitnessSubject,
    /// Time between two looks, 10 ms to 1 h. Default 1 s.
    pub interval: Duration,
    /// Time that a look may take, 10 ms to the interval. Default 500 ms, or the interval where that is shorter.
    pub timeout: Duration,
    /// Failures in a row that make the node unfit, 1 to 100. Default 3.
    pub fall: u32,
    /// Successes in a row that make it fit again, 1 to 100. Default 2.
    pub rise: u32,
    /// The VIPs that it counts for, as indexes into [`Config::vips`]. Default: all.
    pub vips: Vec<usize>,
}

/// What a fitness check looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FitnessSubject {
    /// A gateway that has to answer ARP or neighbour solicitations.
    Gateway {
        /// Its address, on the link of the interface.
        address: IpAddr,
        /// The interface. Default: that of the first of the check's VIPs.
        interface: String,
    },
    /// A command that has to exit with status 0. Run without a shell; the path is absolute.
    Command {
        /// Program and arguments, 1 to 64.
        command: Vec<String>,
    },
    /// A file that has to be there, or must not be there.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether it has to be there; `must = "exist"` or `"be_absent"`. Default exist.
        must_exist: bool,
    },
    /// A process of this name (the kernel's `comm`, at most 15 bytes) has to run.
    Process {
        /// The name.
        process: String,
    },
}

/// Who is told of role changes. Nobody when both are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// Program and arguments, 1 to 64, run without a shell once for each event, which it gets as JSON on its standard
    /// input. The path is absolute.
    pub command: Option<Vec<String>>,
    /// A URL, http or https, that each event is posted to as JSON.
    pub webhook: Option<String>,
    /// Time that one delivery may take, 100 ms to 10 min. Default 10 s.
    pub timeout: Duration,
    /// Events kept for delivery, 1 to 100000; the oldest go first. Default 1000.
    pub kept_max: u32,
    /// The user that delivers, when the guard is root. Default as the worker's.
    pub user: Option<String>,
}
