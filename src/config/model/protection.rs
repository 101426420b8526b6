//! What keeps clients from taking more than their share, as the configuration has it.

use std::time::Duration;

use super::Listener;

/// What a listener asks of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerProtection {
    /// How often a client may ask, at most 8 limits, each of which counts for itself. Only with protocol http.
    pub rate_limits: Vec<RateLimit>,
    /// How often a client may connect; `None`: as often as it likes.
    pub connection_rate: Option<ConnectionRate>,
    /// How many connections a client may have at once; `None`: as many as the listener takes.
    pub connections_per_address: Option<AddressLimit>,
    /// Bytes of a request's head, 1 KiB to 256 KiB. Default 32 KiB.
    pub head_bytes_max: usize,
    /// Fields of a request's head, 1 to 1000. Default 100.
    pub headers_max: usize,
    /// Bytes of a request's target, 64 to 65534. Default 8 KiB.
    pub uri_bytes_max: usize,
    /// Bytes of a request's body; `None`: any number.
    pub body_bytes_max: Option<u64>,
    /// How fast a request's body has to come; `None`: it only has to go on.
    pub body_rate: Option<RateFloor>,
    /// How fast a client has to take a response; `None`: it only has to go on.
    pub response_rate: Option<RateFloor>,
}

/// How often a client may ask. Both nodes count together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests that a client may make in `per`, 1 to 1000000.
    pub requests: u32,
    /// Their time, 100 ms to 24 h.
    pub per: Duration,
    /// Requests that it may make at once after a time of quiet, 1 to 1000000. Default: `requests`.
    pub burst: u32,
    /// What a client is known by. Default its address.
    pub by: RateLimitKey,
    /// Bits of an IPv4 address that count, 1 to 32. Default 32.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that count, 1 to 128. Default 64, as one client has a whole /64.
    pub prefix_v6: u8,
    /// Clients that are counted at once, 1 to 16000000; at the limit the least recently seen is forgotten. Default 100000.
    pub entries_max: u32,
    /// Whether requests over the limit are counted and logged, and let through all the same. Default false.
    pub log_only: bool,
    /// Whether clients are told of it in the fields RateLimit-Policy and RateLimit of responses. Default false.
    pub headers: bool,
}

/// What a client is known by when its requests are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateLimitKey {
    /// Its network.
    SourceIp,
    /// A field of the request's head; its network where that is missing.
    Header {
        /// Its name in lower case, a token of 1 to 64 characters.
        name: String,
    },
    /// A cookie; its network where that is missing.
    Cookie {
        /// Its name, a token of 1 to 64 characters.
        name: String,
    },
}

/// How often a client may connect. Both nodes count together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRate {
    /// Connections that a client may make in `per`, 1 to 1000000.
    pub connections: u32,
    /// Their time, 100 ms to 24 h.
    pub per: Duration,
    /// Connections that it may make at once after a time of quiet, 1 to 1000000. Default: `connections`.
    pub burst: u32,
    /// Bits of an IPv4 address that count, 1 to 32. Default 32.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that count, 1 to 128. Default 64.
    pub prefix_v6: u8,
    /// Clients that are counted at once, 1 to 16000000; at the limit the least recently seen is forgotten. Default 100000.
    pub entries_max: u32,
}

/// How many connections a client may have at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressLimit {
    /// Connections, 1 to 1000000.
    pub connections: u32,
    /// Bits of an IPv4 address that count, 1 to 32. Default 32.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that count, 1 to 128. Default 64.
    pub prefix_v6: u8,
}

/// How fast bytes have to come or go, on the average of the time that was spent waiting for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateFloor {
    /// Bytes a second, 1 to 1000000000.
    pub bytes_per_second: u32,
    /// Time that the client may take beyond that, 100 ms to 1 h. Default 10 s.
    pub grace: Duration,
}

/// How many requests the servers of a pool get at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConnections {
    /// Requests, or connections with protocol tcp, that a server has at once, from all threads together, 1 to 1000000, where
    /// it has no limit of its own; `None`: any number.
    pub per_server: Option<u32>,
    /// Requests that wait at once, 0 to 1000000; one more is refused. Default 1000.
    pub queue_max: u32,
    /// Time that a request waits, 1 ms to 10 min. Default 5 s.
    pub queue_timeout: Duration,
}

/// What a worker takes on. `None`: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Client connections of all listeners together, 1 to 10000000; more of them wait.
    pub connections_max: Option<u32>,
    /// Requests under way, 1 to 10000000; one more is answered 503.
    pub requests_max: Option<u32>,
    /// Bytes of memory that the worker may have resident, 32 MiB to 1 TiB: from 90 % of it on, requests are answered 503,
    /// from all of it on no connection is taken either, and clients that take nothing of their responses are cut off.
    pub memory_max: Option<u64>,
}

impl Listener {
    /// Whether it or one of its routes counts what clients do.
    pub fn counts_clients(&self) -> bool {
        let of_routes = self.routes.iter().any(|route| !route.rate_limits.is_empty());
        of_routes || !self.protection.rate_limits.is_empty() || self.protection.connection_rate.is_some()
    }
}
