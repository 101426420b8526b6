//! What the places in the other node's entries and counters mean here. Pools, servers and limits go by name, so that two
//! nodes of which one has a newer configuration understand each other.

use std::collections::HashMap;

use super::super::counters::CounterRecord;
use super::super::frame::{Limits, Names};
use super::super::record::Record;
use super::PoolNames;

/// Places that the other node may name; beyond, its entries are unknown here.
const PLACES_MAX: usize = 4_096;

/// No server or limit here.
const UNKNOWN: u16 = u16::MAX;

/// From its places to ours.
#[derive(Debug)]
pub(super) struct Directory {
    own: HashMap<String, OwnPool>,
    pools: HashMap<u16, TheirPool>,
    own_limits: HashMap<String, u16>,
    /// For each of its limits, the place here.
    limits: Vec<u16>,
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
    pub(super) fn new(pools: Vec<PoolNames>, limits: Vec<String>) -> Self {
        let own = pools.into_iter().map(|pool| {
            let servers = pool.servers.into_iter().zip(0_u16..).collect();
            (pool.name, OwnPool { place: pool.pool, servers })
        });
        let own_limits = limits.into_iter().zip(0_u16..).collect();
        Self { own: own.collect(), pools: HashMap::new(), own_limits, limits: Vec::new() }
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
        write_places(&mut theirs.servers, names.first, &names.servers, &own.servers);
    }

    /// Takes what the other node calls the place of a limit.
    pub(super) fn learn_limits(&mut self, limits: &Limits) {
        if usize::from(limits.first) + limits.names.len() <= PLACES_MAX {
            write_places(&mut self.limits, limits.first, &limits.names, &self.own_limits);
        }
    }

    /// A counter in our places; `None` when there is no such limit here.
    pub(super) fn translate_counter(&self, record: CounterRecord) -> Option<CounterRecord> {
        let limit = *self.limits.get(usize::from(record.limit)).filter(|place| **place != UNKNOWN)?;
        Some(CounterRecord { limit, ..record })
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

/// Writes for each name, from a first place on, the place that it has here.
fn write_places(places: &mut Vec<u16>, first: u16, names: &[String], own: &HashMap<String, u16>) {
    let end = usize::from(first) + names.len();
    if places.len() < end {
        places.resize(end, UNKNOWN);
    }
    for (place, name) in places.iter_mut().skip(usize::from(first)).zip(names) {
        *place = own.get(name).copied().unwrap_or(UNKNOWN);
    }
}
