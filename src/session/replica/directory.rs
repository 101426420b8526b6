//! What the places in the other node's entries mean here. Pools and servers go by name, so that two nodes of which one has
//! a newer configuration understand each other.

use std::collections::HashMap;

use super::super::frame::Names;
use super::super::record::Record;
use super::PoolNames;

/// Places that the other node may name; beyond, its entries are unknown here.
const PLACES_MAX: usize = 4_096;

/// No server here.
const UNKNOWN: u16 = u16::MAX;

/// From its places to ours.
#[derive(Debug)]
pub(super) struct Directory {
    own: HashMap<String, OwnPool>,
    pools: HashMap<u16, TheirPool>,
}

#[derive(Debug)]
struct OwnPool {
    place: u16,
    servers: HashMap<String, u16>,
}

#[derive(Debug)]
struct TheirPool {
    /// Its place here.
    pool: u16,
    /// For each of its servers, the place here.
    servers: Vec<u16>,
}

impl Directory {
    pub(super) fn new(pools: Vec<PoolNames>) -> Self {
        let own = pools.into_iter().map(|pool| {
            let servers = pool.servers.into_iter().zip(0_u16..).collect();
            (pool.name, OwnPool { place: pool.pool, servers })
        });
        Self { own: own.collect(), pools: HashMap::new() }
    }

    /// Takes what the other node calls a place.
    pub(super) fn learn(&mut self, names: &Names) {
        let Some(own) = self.own.get(&names.name) else { return };
        let end = usize::from(names.first) + names.servers.len();
        if end > PLACES_MAX || (self.pools.len() >= PLACES_MAX && !self.pools.contains_key(&names.pool)) {
            return;
        }
        let theirs = self.pools.entry(names.pool).or_insert_with(|| TheirPool { pool: own.place, servers: Vec::new() });
        theirs.pool = own.place;
        if theirs.servers.len() < end {
            theirs.servers.resize(end, UNKNOWN);
        }
        for (place, name) in theirs.servers.iter_mut().skip(usize::from(names.first)).zip(&names.servers) {
            *place = own.servers.get(name).copied().unwrap_or(UNKNOWN);
        }
    }

    /// An entry in our places; `None` when there is no such server here.
    pub(super) fn translate(&self, record: Record) -> Option<Record> {
        let theirs = self.pools.get(&record.pool)?;
        let server = match record.server {
            None => None,
            Some(server) => Some(*theirs.servers.get(usize::from(server)).filter(|place| **place != UNKNOWN)?),
        };
        Some(Record { pool: theirs.pool, server, ..record })
    }
}
