//! The configuration as the program uses it: every name resolved, every value in range.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::units::{AdvertInterval, Ipv4Network, Priority, VirtualRouterId};

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
    /// How the worker process runs and is watched.
    pub worker: WorkerSettings,
    /// SHA-256 of the file's bytes in hex; equal on both nodes when the files are.
    pub checksum: String,
}

/// A machine of the pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique name, matched against `--node`, `BATON_NODE` or the host name.
    pub name: String,
    /// Heartbeat and sync run between the nodes' addresses.
    pub address: IpAddr,
    /// Higher wins when both claim a VIP. Default: 250 for the first node, 249 for the second.
    pub priority: Priority,
}

/// What the two nodes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The file that holds the pair key, made by `baton keygen`; adverts are not authenticated without one.
    pub key_file: Option<PathBuf>,
    /// Port of the sync link, 1 to 65535. Default 7947.
    pub sync_port: u16,
}

/// Virtual addresses that move together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// Unique name: 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// 1 to 16 addresses, none of which is a node's own.
    pub addresses: Vec<Ipv4Network>,
    /// The interface that carries the addresses and the adverts.
    pub interface: String,
    /// Unique on one interface.
    pub virtual_router_id: VirtualRouterId,
    /// Time between adverts. Default 100 ms.
    pub advert_interval: AdvertInterval,
    /// How adverts travel. Default unicast.
    pub transport: Transport,
    /// The node that takes the VIP back whenever it can, as an index into [`Config::nodes`].
    pub prefer: Option<usize>,
}

/// How adverts travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Between the two node addresses; works in any network.
    Unicast,
    /// To 224.0.0.18, as RFC 9568 has it.
    Multicast,
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
    /// Where a request goes when no route matches; `None` answers 404.
    pub pool: Option<PoolIndex>,
    /// In the order in which they are tried: longer host, then longer path prefix, then the order of the file.
    pub routes: Vec<Route>,
    /// Certificates, when the listener speaks TLS.
    pub tls: Option<Tls>,
    /// Time a client may take for a request's head, from its first byte (or the connect), 10 ms to 1 h. Default 10 s.
    pub head_timeout: Duration,
    /// Time a client may be idle between requests, or a body may make no progress, 10 ms to 24 h. Default 60 s.
    pub idle_timeout: Duration,
    /// Connections at once, for each listener, 1 to 1000000; more wait in the kernel's queue. Default 10000.
    pub connections_max: u32,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    Http,
}

/// Certificates of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// 1 to 256; the first is the default.
    pub certificates: Vec<Certificate>,
}

/// A certificate chain and its key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A rule that picks a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Host in lower case without port; `None` matches any.
    pub host: Option<String>,
    /// Starts with `/`; matches whole path segments (`/api` matches `/api` and `/api/x`, not `/apix`); `None` matches any.
    /// Never ends in `/`: the file's `/api/` is `/api` here, and its `/` is `None`.
    pub path_prefix: Option<String>,
    /// Where it goes.
    pub pool: PoolIndex,
}

/// A set of servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Unique name: 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// How a server is picked. Default round robin.
    pub algorithm: Algorithm,
    /// 1 to 1024 servers with unique names.
    pub servers: Vec<Server>,
    /// Active checks; without them a server counts as up.
    pub health: Option<Health>,
    /// Keeps a client on its server.
    pub sticky: Option<Sticky>,
    /// Time for a TCP connect to a server, 10 ms to 5 min. Default 3 s.
    pub connect_timeout: Duration,
    /// Time from the request's last byte to the response's head, and for a body to make progress, 10 ms to 24 h.
    /// Default 30 s.
    pub response_timeout: Duration,
    /// Time an unused connection to a server is kept, 10 ms to 24 h. Default 30 s.
    pub idle_timeout: Duration,
    /// Unused connections kept, for each server and worker thread, 0 to 65536. Default 64.
    pub idle_connections_max: u32,
}

/// How a server is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Each in turn.
    RoundRobin,
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
}

/// Active checks of a pool's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What a check does.
    pub check: Check,
    /// Time between two checks of a server, 100 ms to 1 h. Default 2 s.
    pub interval: Duration,
    /// Time a check may take, 10 ms to the interval. Default 1 s, or the interval where that is shorter.
    pub timeout: Duration,
    /// Failures in a row that take a server down, 1 to 100. Default 3.
    pub fall: u32,
    /// Successes in a row that bring it back, 1 to 100. Default 2.
    pub rise: u32,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// GET of `path`; a status from 200 to 399 is a success.
    Http {
        /// Default `/`. Printable ASCII, at most 1024 characters, with a query or without.
        path: String,
        /// The Host header, in lower case, with a port or without; the server's address when `None`.
        host: Option<String>,
    },
    /// A TCP connect.
    Tcp,
}

/// Keeps a client on its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// With a cookie of ours.
    Cookie {
        /// The cookie's name, a token of 1 to 64 characters. Default `BATON`.
        name: String,
        /// Max-Age, 1 s to 400 days; a session cookie when `None`.
        ttl: Option<Duration>,
    },
}

/// How the worker process runs and is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Threads, each with its own runtime and sockets, 1 to 256. Default: one a core.
    pub threads: usize,
    /// The user that the worker becomes when the guard is root. Default `baton`, or `nobody` where there is none.
    pub user: Option<String>,
    /// Time between two probes of the worker, 10 ms to 10 s. Default 100 ms.
    pub probe_interval: Duration,
    /// Time without an answer after which the worker counts as hung, the probe interval to 60 s. Default 500 ms, or the
    /// interval where that is longer.
    pub probe_timeout: Duration,
    /// Time that requests in flight get at a stop, 0 to 1 h. Default 10 s.
    pub drain_timeout: Duration,
}
