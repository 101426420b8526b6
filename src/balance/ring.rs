//! Consistent hashing: servers stand at many points of a ring of hashes, and a request goes to the server whose point comes
//! next after its own hash (Karger et al., 1997).
//!
//! When a server goes, its keys alone move, to those whose points come next; when it comes back, they return. The points
//! come from names and weights, so that both nodes of a pair, and any other with the same servers, decide alike. A server
//! that is ramped has the first of its points alone.
//!
//! With a bound, a server that has more under way than so many percent of its even share is passed over, and its keys go on
//! to the next (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2016).

use super::snapshot::Snapshot;
use super::{WEIGHT_ONE, mix, name_hash};

/// Points of a server for each weight. With 256 the shares of servers differ by 6 % (a standard deviation).
const POINTS_PER_WEIGHT: u32 = 256;

/// Points at most, about: with more weight than that is for, each weight has half as many, or a quarter, and so on.
const POINTS_MAX: u64 = 256 * 1024;

/// Points that a pick looks at before it takes the best by name: servers that cannot be picked have to be passed over.
const STEPS_MAX: usize = 64;

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u32,
    /// Its place among the points of its server, of 65536: a ramped server has those below its share.
    share: u16,
    server: u16,
}

/// The ring of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ring {
    points: Vec<Point>,
    /// For each value of the first bits of a hash, the first point at or after it.
    starts: Vec<u32>,
    start_bits: u32,
    /// The hash of each server's name, and the weight that its points stand for.
    servers: Vec<(u64, u32)>,
}

impl Ring {
    /// Of servers with their names and whole weights, in the order of the pool; 65536 of them at most.
    pub fn new<'name>(servers: impl Iterator<Item = (&'name str, u32)>) -> Self {
        let servers: Vec<(u64, u32)> = servers.map(|(name, weight)| (mix(name_hash(name)), weight)).collect();
        let total: u64 = servers.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut per_weight = POINTS_PER_WEIGHT;
        while per_weight > 1 && total * u64::from(per_weight) > POINTS_MAX {
            per_weight /= 2;
        }
        let points = servers.iter().enumerate().flat_map(|(server, (name, weight))| {
            let count = weight.saturating_mul(per_weight);
            (0..count).map(move |number| Point {
                hash: position(mix(name ^ mix(u64::from(number)))),
                share: u16::try_from(u64::from(number) * 65_536 / u64::from(count.max(1))).unwrap_or(u16::MAX),
                server: u16::try_from(server).unwrap_or(u16::MAX),
            })
        });
        let mut points: Vec<Point> = points.collect();
        // Two at one place stand in the order of their names' hashes, whatever the order of the file.
        let name = |point: &Point| servers.get(usize::from(point.server)).map_or(0, |(name, _)| *name);
        points.sort_unstable_by_key(|point| (point.hash, name(point), point.share));
        let start_bits = points.len().max(1).ilog2();
        let starts = starts(&points, start_bits);
        Self { points, starts, start_bits, servers }
    }

    /// The index of the first point at or after a hash; that of the first point of all after the last one.
    fn first_after(&self, hash: u32) -> usize {
        let first_bits = u64::from(hash) >> (32 - self.start_bits);
        let start =
            usize::try_from(first_bits).ok().and_then(|bits| self.starts.get(bits)).copied().unwrap_or(0) as usize;
        let after = self.points.get(start..).unwrap_or_default();
        let offset = after.iter().position(|point| point.hash >= hash).unwrap_or(after.len());
        if start + offset < self.points.len() { start + offset } else { 0 }
    }

    /// The points from a hash on, all around the ring.
    fn from(&self, hash: u32) -> impl Iterator<Item = &Point> {
        let (before, after) = self.points.split_at_checked(self.first_after(hash)).unwrap_or_default();
        after.iter().chain(before)
    }

    /// Of the servers that `may_take` allows, the one that a key and the names' hashes say (rendezvous hashing).
    fn best_by_name(&self, key: u64, servers: impl Iterator<Item = usize>) -> Option<usize> {
        let score = |server: &usize| self.servers.get(*server).map(|(name, _)| (mix(key ^ name), *name));
        servers.max_by_key(score)
    }
}

fn position(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or(u32::MAX)
}

fn starts(points: &[Point], bits: u32) -> Vec<u32> {
    let mut starts = Vec::new();
    let mut index = 0;
    for first_bits in 0_u64..1 << bits {
        let from = first_bits << (32 - bits);
        while points.get(index).is_some_and(|point| u64::from(point.hash) < from) {
            index += 1;
        }
        starts.push(u32::try_from(index).unwrap_or(u32::MAX));
    }
    starts
}

/// How a thread goes along a ring.
#[derive(Debug)]
pub struct Walk {
    load_max_percent: u32,
    /// Requests under way at all servers when they were last counted.
    in_flight: u64,
    /// Picks until they are counted again.
    until_count: usize,
}

impl Walk {
    /// One that passes over servers with more under way than so many percent of their even share; 0: over none.
    pub fn new(load_max_percent: u32) -> Self {
        Self { load_max_percent, in_flight: 0, until_count: 0 }
    }

    /// The server of a tier that a key belongs to, among those that `may_take` allows.
    pub(super) fn pick(
        &mut self,
        ring: &Ring,
        snapshot: &Snapshot,
        tier: usize,
        key: u64,
        may_take: impl Fn(usize) -> bool,
        in_flight: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let limit = self.limit(snapshot, tier, &in_flight);
        let mut passed_over = None;
        for point in ring.from(position(key)).take(STEPS_MAX) {
            let server = usize::from(point.server);
            let standing = snapshot.standing(server);
            let whole = ring.servers.get(server).map_or(0, |(_, weight)| u64::from(*weight) * u64::from(WEIGHT_ONE));
            let is_there = u64::from(point.share) * whole < u64::from(standing.weight) * 65_536;
            if !is_there || !standing.is_in(tier) || !may_take(server) {
                continue;
            }
            if limit.is_none_or(|limit| limit.allows(in_flight(server), standing.weight)) {
                return Some(server);
            }
            passed_over = passed_over.or(Some(server));
        }
        passed_over.or_else(|| {
            let servers = snapshot.tiers().get(tier)?.servers();
            ring.best_by_name(key, servers.filter(|server| may_take(*server)))
        })
    }

    /// What a server may have under way, where that is bounded. Counted every few picks, so that counting costs each pick no
    /// more than eight servers do.
    fn limit(&mut self, snapshot: &Snapshot, tier: usize, in_flight: &impl Fn(usize) -> u32) -> Option<Limit> {
        if self.load_max_percent == 0 {
            return None;
        }
        let tier = snapshot.tiers().get(tier)?;
        if self.until_count == 0 {
            self.in_flight = tier.servers().map(|server| u64::from(in_flight(server))).sum();
            self.until_count = tier.members.len() / 8 + 1;
        } else {
            self.until_count -= 1;
        }
        Some(Limit { percent: self.load_max_percent, in_flight: self.in_flight + 1, weights: tier.weights() })
    }
}

/// How many requests may be under way at a server for its weight.
#[derive(Clone, Copy)]
struct Limit {
    percent: u32,
    in_flight: u64,
    weights: u64,
}

impl Limit {
    /// Whether a server may have one more: as many as its share of all of them, and `percent` of that, rounded up.
    fn allows(&self, in_flight: u32, weight: u32) -> bool {
        let share = self.in_flight.saturating_mul(u64::from(self.percent)).saturating_mul(u64::from(weight));
        (u64::from(in_flight) * 100).saturating_mul(self.weights) < share
    }
}
