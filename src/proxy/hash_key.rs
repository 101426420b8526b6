//! What a request is placed by, where its pool picks servers by a hash.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Uri, header};

use super::state::Pool;
use super::sticky::{query_parameter, with_network};
use crate::balance::key_hash;
use crate::config::{self, Algorithm};
use crate::session::cookie::cookie_values;

/// Bits of an address that count: a client has all addresses below 64 bits of IPv6 to choose from.
const PREFIX_V4: u8 = 32;
const PREFIX_V6: u8 = 64;

/// What requests are placed by.
pub enum HashKey {
    /// The client's address.
    Address,
    /// A header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
    /// The path.
    Path,
}

impl HashKey {
    /// What an algorithm hashes, if it does.
    pub fn of(algorithm: &Algorithm) -> Option<Self> {
        let hash = match algorithm {
            Algorithm::IpHash => return Some(Self::Address),
            Algorithm::ConsistentHash(hash) => hash,
            Algorithm::RoundRobin
            | Algorithm::WeightedRoundRobin
            | Algorithm::LeastConnections
            | Algorithm::LeastResponseTime
            | Algorithm::Random
            | Algorithm::PowerOfTwo
            | Algorithm::Resource(_) => return None,
        };
        match &hash.key {
            config::HashKey::Address => Some(Self::Address),
            // The name was checked, so this does not fail.
            config::HashKey::Header { name } => HeaderName::from_bytes(name.as_bytes()).ok().map(Self::Header),
            config::HashKey::Cookie { name } => Some(Self::Cookie(name.clone())),
            config::HashKey::Query { name } => Some(Self::Query(name.clone())),
            config::HashKey::Path => Some(Self::Path),
        }
    }
}

impl Pool {
    /// The hash that a request goes by; `None` where the pool has no use for one, or the request not what is hashed.
    pub fn hash_of_request(&self, address: IpAddr, uri: &Uri, headers: &HeaderMap) -> Option<u64> {
        let value = match self.hash_key.as_ref()? {
            HashKey::Address => return self.hash_of_address(address),
            HashKey::Header(name) => headers.get(name)?.as_bytes().trim_ascii(),
            HashKey::Cookie(name) => {
                let mut fields = headers.get_all(header::COOKIE).iter();
                fields.find_map(|field| cookie_values(field.as_bytes(), name).next())?
            }
            HashKey::Query(name) => query_parameter(uri, name),
            HashKey::Path => uri.path().as_bytes(),
        };
        (!value.is_empty()).then(|| key_hash(value))
    }

    /// The hash that a connection goes by, of which nothing else is known.
    pub fn hash_of_address(&self, address: IpAddr) -> Option<u64> {
        let is_used = matches!(self.hash_key, Some(HashKey::Address));
        is_used.then(|| with_network(address, PREFIX_V4, PREFIX_V6, key_hash))
    }
}
