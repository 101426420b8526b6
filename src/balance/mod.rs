//! Picks a server of a pool. A core, used by `proxy`.
//!
//! What may change while requests run is put together into a [`Snapshot`] whenever it has changed: who serves, in which
//! order of preference, and with which weight. A [`Balancer`] belongs to one thread and picks from its snapshot; the state
//! of its policy is its own, so that threads share nothing here but what [`Servers`] reads of the servers.
//!
//! | algorithm | file |
//! |---|---|
//! | round robin, weighted or not, and by what servers report | [`rotation`], [`report`] |
//! | least connections, least response time | [`least`], [`latency`] |
//! | hashing | [`ring`], [`rendezvous`] |
//! | random, power of two choices | [`random`] |

pub mod latency;
pub mod least;
pub mod random;
pub mod rendezvous;
pub mod report;
pub mod ring;
pub mod rotation;
pub mod snapshot;

use std::sync::Arc;

pub use self::snapshot::{Condition, Snapshot, Terms, Tier, WEIGHT_ONE};

use self::least::Least;
use self::random::Random;
use self::ring::{Ring, Walk};
use self::rotation::Rotation;

/// What a pick has to know of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// May be given requests: up, and not tried for this request already.
    pub eligible: bool,
    /// Used only when no other server is eligible.
    pub backup: bool,
}

/// How a pool picks.
#[derive(Debug, Clone)]
pub enum Method {
    /// Each in turn, as often as its weight says.
    Rotation,
    /// The one with the fewest requests under way for its weight.
    LeastConnections,
    /// The one that answers soonest, by how long its last answers took and how many are under way.
    LeastResponseTime,
    /// By a hash of something in the request; in turn where there is none.
    Hash {
        /// Where servers stand among the hashes.
        ring: Arc<Ring>,
        /// The most that a server may have under way, in percent of its even share; 0: any number. At least 100 otherwise.
        load_max_percent: u32,
    },
    /// By chance, as often as the weight says.
    Random,
    /// The one with fewer requests under way for its weight of two that chance names.
    PowerOfTwo,
}

/// What servers are like at the moment of a pick. Indexes are those of the pool's configuration.
pub trait Servers {
    /// Whether a server may be given this request: it is as fit as the snapshot has it, and has not failed the request.
    fn may_try(&self, server: usize) -> bool;

    /// Whether a server has room for one more.
    fn has_room(&self, server: usize) -> bool;

    /// Requests under way at a server.
    fn in_flight(&self, server: usize) -> u32;

    /// How long a server takes to answer, in microseconds; `None` where nobody knows.
    fn response_time_us(&self, server: usize) -> Option<u32>;
}

/// Picks servers of one pool for one thread.
#[derive(Debug)]
pub struct Balancer {
    policy: Policy,
    snapshot: Snapshot,
}

#[derive(Debug)]
enum Policy {
    Rotation(Rotation),
    LeastConnections(Least),
    LeastResponseTime(Least),
    Hash { ring: Arc<Ring>, walk: Walk, without_key: Rotation },
    Random(Random),
    PowerOfTwo(Random),
}

impl Balancer {
    /// One that knows of no servers yet. Those that begin with other numbers begin with other servers; `seed` is for what is
    /// left to chance.
    pub fn new(method: &Method, starting_at: usize, seed: u64) -> Self {
        let policy = match method {
            Method::Rotation => Policy::Rotation(Rotation::starting_at(starting_at)),
            Method::LeastConnections => Policy::LeastConnections(Least::starting_at(starting_at)),
            Method::LeastResponseTime => Policy::LeastResponseTime(Least::starting_at(starting_at)),
            Method::Hash { ring, load_max_percent } => Policy::Hash {
                ring: Arc::clone(ring),
                walk: Walk::new(*load_max_percent),
                without_key: Rotation::starting_at(starting_at),
            },
            Method::Random => Policy::Random(Random::new(seed)),
            Method::PowerOfTwo => Policy::PowerOfTwo(Random::new(seed)),
        };
        Self { policy, snapshot: Snapshot::default() }
    }

    /// What it picks from.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Takes a snapshot to pick from. Turns go on where they were.
    pub fn refresh(&mut self, snapshot: Snapshot) {
        self.snapshot = snapshot;
        match &mut self.policy {
            Policy::Rotation(rotation) | Policy::Hash { without_key: rotation, .. } => rotation.refresh(&self.snapshot),
            Policy::LeastConnections(least) | Policy::LeastResponseTime(least) => least.refresh(&self.snapshot),
            Policy::Random(_) | Policy::PowerOfTwo(_) => {}
        }
    }

    /// A server for a request; `None` where none may be tried or none has room. `key` is the hash that the request goes by.
    pub fn pick(&mut self, servers: &impl Servers, key: Option<u64>) -> Option<usize> {
        for index in 0..self.snapshot.tiers().len() {
            let found = self.pick_of(index, servers, key);
            if found.is_some() {
                return found;
            }
            let tier = self.snapshot.tiers().get(index)?;
            let is_next_for_backup = self.snapshot.tiers().get(index + 1).is_some_and(|next| next.is_backup);
            // That the others are full is no reason for a backup to serve, nor one for a server further away not to.
            if is_next_for_backup && !tier.is_backup && tier.servers().any(|server| servers.may_try(server)) {
                return None;
            }
        }
        None
    }

    fn pick_of(&mut self, index: usize, servers: &impl Servers, key: Option<u64>) -> Option<usize> {
        let Self { policy, snapshot } = self;
        let tier = snapshot.tiers().get(index)?;
        let may_take = |server: usize| servers.may_try(server) && servers.has_room(server);
        match (policy, key) {
            (Policy::Rotation(rotation), _) => rotation.pick(index, may_take),
            (Policy::Hash { without_key, .. }, None) => without_key.pick(index, may_take),
            (Policy::Hash { ring, walk, .. }, Some(key)) => {
                walk.pick(ring, snapshot, index, key, may_take, |server| servers.in_flight(server))
            }
            (Policy::LeastConnections(least), _) => {
                least.pick(tier, may_take, |server| Some(u64::from(servers.in_flight(server))))
            }
            (Policy::LeastResponseTime(least), _) => least.pick(tier, may_take, |server| {
                latency::cost(servers.response_time_us(server), servers.in_flight(server))
            }),
            (Policy::Random(random), _) => random.pick(tier, may_take),
            (Policy::PowerOfTwo(random), _) => random.pick_of_two(tier, may_take, |server| servers.in_flight(server)),
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): every bit
/// of the input changes about half of the output's.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// FNV-1a, 64 bits.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The hash that a request goes by, of what it is to be placed by. The same on every node and in every release.
pub fn key_hash(value: &[u8]) -> u64 {
    let hashed = value.chunks(8).fold(value.len() as u64, |hash, chunk| {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(chunk) {
            *to = *from;
        }
        mix(hash ^ u64::from_le_bytes(bytes))
    });
    mix(hashed)
}

#[cfg(test)]
mod tests;
