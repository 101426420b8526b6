//! How servers are picked.

use std::time::Duration;

/// How a server is picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Algorithm {
    /// Each in turn, whatever its weight.
    RoundRobin,
    /// Each in turn, as often as its weight says, spread out.
    WeightedRoundRobin,
    /// The one with the fewest requests under way for its weight.
    LeastConnections,
    /// The one that answers soonest, by its last answers and what is under way.
    LeastResponseTime,
    /// By a hash of the client's address.
    IpHash,
    /// By a hash of something in the request.
    ConsistentHash(ConsistentHash),
    /// By chance, as often as the weight says.
    Random,
    /// The less busy one of two that chance names.
    PowerOfTwo,
    /// Each in turn, as often as its weight and what it reports of its load say.
    Resource(ResourceReports),
}

impl Algorithm {
    /// As the file has it.
    pub fn word(&self) -> &'static str {
        match self {
            Algorithm::RoundRobin => "round_robin",
            Algorithm::WeightedRoundRobin => "weighted_round_robin",
            Algorithm::LeastConnections => "least_connections",
            Algorithm::LeastResponseTime => "least_response_time",
            Algorithm::IpHash => "ip_hash",
            Algorithm::ConsistentHash(_) => "consistent_hash",
            Algorithm::Random => "random",
            Algorithm::PowerOfTwo => "power_of_two",
            Algorithm::Resource(_) => "resource",
        }
    }
}

/// What is hashed, and what bounds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What is hashed. Default the address.
    pub key: HashKey,
    /// The most that a server may have under way in percent of its even share, 100 to 10000; `None`: any number.
    pub balance_factor: Option<u32>,
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address: the whole of an IPv4 address, and of an IPv6 address the first 64 bits.
    Address,
    /// The value of a header.
    Header {
        /// Its name.
        name: String,
    },
    /// The value of a cookie.
    Cookie {
        /// Its name.
        name: String,
    },
    /// The value of a parameter of the query.
    Query {
        /// Its name.
        name: String,
    },
    /// The path, without the query.
    Path,
}

/// How servers report their load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceReports {
    /// The header of responses that has it. Default `endpoint-load-metrics`.
    pub header: String,
    /// Time for which a report counts in full, 100 ms to 1 h; in as much again it fades. Default 10 s.
    pub max_age: Duration,
}
