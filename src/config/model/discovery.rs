//! Where the servers of a pool are found, as the program uses it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ServerTls;
use crate::units::networks::NetworkSet;

/// Servers that a pool has at most, wherever they come from.
pub const POOL_SERVERS_MAX: usize = 1024;

/// Where systems write down whom to ask for names.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where the servers of a pool are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// What is asked.
    pub source: DiscoverySource,
    /// Who is asked for names, at most 8; those of the system when `None`.
    pub resolvers: Option<Vec<SocketAddr>>,
    /// Where servers may be; `None`: anywhere but on this machine and in its link.
    pub networks: Option<NetworkSet>,
    /// What becomes of a list without a server. Default keep.
    pub on_empty: OnEmpty,
    /// Whether the last list is there after a restart. Default false.
    pub keep: bool,
    /// Time for one answer, 100 ms to 1 min. Default 5 s.
    pub timeout: Duration,
}

/// What is asked for the servers of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoverySource {
    /// Names.
    Dns(DnsSource),
    /// The health API of Consul.
    Consul(ConsulSource),
    /// A file, or a directory of files.
    File {
        /// Where it is, absolute.
        path: PathBuf,
    },
    /// An address that answers with a list.
    Http(HttpSource),
}

impl DiscoverySource {
    /// What it is called in the configuration.
    pub const fn kind(&self) -> &'static str {
        match self {
            DiscoverySource::Dns(_) => "dns",
            DiscoverySource::Consul(_) => "consul",
            DiscoverySource::File { .. } => "file",
            DiscoverySource::Http(_) => "http",
        }
    }

    /// The TLS that it is asked with.
    pub fn tls(&self) -> Option<&ServerTls> {
        match self {
            DiscoverySource::Dns(_) | DiscoverySource::File { .. } => None,
            DiscoverySource::Consul(consul) => consul.tls.as_ref(),
            DiscoverySource::Http(http) => http.tls.as_ref(),
        }
    }

    /// The file of the secret that it is asked with.
    pub fn token_file(&self) -> Option<&PathBuf> {
        match self {
            DiscoverySource::Dns(_) | DiscoverySource::File { .. } => None,
            DiscoverySource::Consul(consul) => consul.token_file.as_ref(),
            DiscoverySource::Http(http) => http.token_file.as_ref(),
        }
    }

    /// Whether a name has to be looked up for it.
    pub fn has_name(&self) -> bool {
        match self {
            DiscoverySource::Dns(_) => true,
            DiscoverySource::File { .. } => false,
            DiscoverySource::Consul(consul) => consul.endpoint.has_name(),
            DiscoverySource::Http(http) => http.endpoint.has_name(),
        }
    }
}

impl fmt::Display for DiscoverySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiscoverySource::Dns(dns) => write!(f, "dns {} {}", dns.record.as_str(), dns.name),
            DiscoverySource::Consul(consul) => write!(f, "consul {} at {}", consul.service, consul.endpoint),
            DiscoverySource::File { path } => write!(f, "file {}", path.display()),
            DiscoverySource::Http(http) => write!(f, "http {}", http.endpoint),
        }
    }
}

/// Names that are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSource {
    /// The name, whole: no domain is put behind it.
    pub name: String,
    /// Which records are asked for. Default any address.
    pub record: DnsRecord,
    /// The port of all servers, 1 to 65535; `None` with SRV, whose records say it.
    pub port: Option<u16>,
    /// An answer is good for no less than this, 1 s to 1 h, whatever its TTL. Default 1 s.
    pub ttl_min: Duration,
    /// And for no more than this, `ttl_min` to 24 h. Default 5 min.
    pub ttl_max: Duration,
}

/// Records of the DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsRecord {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Addresses of both kinds.
    Any,
    /// Servers with their ports, weights and priorities (RFC 2782).
    Srv,
}

impl DnsRecord {
    /// As the configuration has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            DnsRecord::A => "a",
            DnsRecord::Aaaa => "aaaa",
            DnsRecord::Any => "any",
            DnsRecord::Srv => "srv",
        }
    }
}

/// A service that Consul knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulSource {
    /// Where Consul answers; its path is empty.
    pub endpoint: Endpoint,
    /// The service's name.
    pub service: String,
    /// Only what has all of these tags, at most 16.
    pub tags: Vec<String>,
    /// The data centre; that of the asked agent when `None`.
    pub datacenter: Option<String>,
    /// Only what passes all of its checks. Default true.
    pub passing: bool,
    /// Time for which Consul holds an answer until something changes, 1 s to 10 min. Default 1 min.
    pub wait: Duration,
    /// A file with the token that Consul wants.
    pub token_file: Option<PathBuf>,
    /// TLS, exactly with an endpoint of https.
    pub tls: Option<ServerTls>,
}

/// An address that answers with a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSource {
    /// Where.
    pub endpoint: Endpoint,
    /// Time between two questions, 100 ms to 1 h. Default 10 s.
    pub interval: Duration,
    /// A file with the bearer token that it wants.
    pub token_file: Option<PathBuf>,
    /// TLS, exactly with an endpoint of https.
    pub tls: Option<ServerTls>,
}

/// A URL of http or https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it begins with https.
    pub is_tls: bool,
    /// A host name in lower case or an address, IPv6 without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// Path and query; empty where the URL has none.
    pub path: String,
}

impl Endpoint {
    /// Whether its host is a name that has to be looked up.
    pub fn has_name(&self) -> bool {
        self.host != "localhost" && self.host.parse::<std::net::IpAddr>().is_err()
    }

    /// Host and port, as the field Host has them.
    pub fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{open}{}{close}:{}", self.host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        // What a query holds may be a secret.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

/// What becomes of a list without a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// The last one stays: more often than not something is wrong.
    Keep,
    /// It holds: the pool has no servers but those of the file.
    Remove,
}

/// A server that was found, or that an operator has added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundServer {
    /// Unique in its pool: 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share beside the others, 1 to [`FOUND_WEIGHT_MAX`].
    pub weight: u32,
    /// Used when no other server of the pool is up.
    pub backup: bool,
}

/// What an operator has said of a server while the pool runs. Both nodes know of it as of administrative states, under the
/// name of the server with a `+` before it, which no server has: a release that knows nothing of it passes it over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerChange {
    /// It is added; `None`: it is removed.
    pub server: Option<FoundServer>,
    /// Whether that is so after a restart as well.
    pub keep: bool,
}

/// The largest weight that a source may say; larger ones are scaled.
pub const FOUND_WEIGHT_MAX: u32 = 256;
