//! What clients may take. A core, used by `proxy`.
//!
//! Here: rate limits, how many requests each client may make in a time, counted by both nodes together. Beside them:
//! [`concurrent`], how many connections a client has at once; [`floor`], how slow it may be; [`queue`], how many requests a
//! server has at once and who waits; [`pressure`], whether a process takes on more at all.
//!
//! A client, known by a key of 16 bytes, has a token bucket: it holds `burst` tokens, fills at `requests` in `per`, and a
//! request takes one. A request that finds none is refused and takes nothing, so that a client which keeps asking is let
//! through as often as one that waits. [`bucket`] is the arithmetic, [`shard`] keeps the buckets, [`Buckets`] shares them
//! between threads: a request locks one part of 64 for well under a microsecond.
//!
//! Both nodes count the same clients. A node says of a bucket how many requests it has let through itself since the bucket
//! was made, in all ([`Change::total`]), and the other one takes as many tokens out of its own bucket as that number has
//! grown. So a change that is lost, comes twice or in another order does no harm, and no two clocks have to agree.
//!
//! Memory is bounded: 57 bytes a bucket, and four more while it is to be sent. Buckets that are full again vanish. At a
//! limit's `entries_max` a bucket has to go: of the eight that were not used for the longest time the first that is full, or
//! the oldest. Its client begins anew; one that keeps asking stays.
//!
//! `now` is the time since any origin, the same for all calls.

mod bucket;
pub mod concurrent;
pub mod floor;
pub mod pressure;
pub mod queue;
mod shard;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::bucket::Rate;
use self::shard::Shard;

/// Parts of a large limit. A power of two.
const SHARDS_MAX: usize = 64;
/// Buckets below which a part is not divided.
const SHARD_ENTRIES_MIN: usize = 1_024;
/// Calls of [`Buckets::sweep`] that it takes to have been everywhere.
const SWEEPS: usize = 10;

/// What a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Requests in `per`, at least 1.
    pub requests: u32,
    /// Their time.
    pub per: Duration,
    /// Requests at once, at least 1.
    pub burst: u32,
    /// Clients that are counted at once.
    pub entries_max: usize,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is let through.
    Allowed,
    /// It is refused.
    Limited {
        /// Time after which one would be let through.
        retry_after: Duration,
    },
}

/// What one node says of a bucket to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Whose bucket it is.
    pub key: [u8; 16],
    /// The limit's place.
    pub limit: u16,
    /// Another number each time that the node makes the bucket; not 0.
    pub life: u16,
    /// Requests that the node has let through in that life. Wraps.
    pub total: u32,
    /// The life of the other node's bucket that it last heard of, 0 for none.
    pub peer_life: u16,
    /// What that one's total was.
    pub peer_total: u32,
    /// Tokens that the bucket lacks, in thousandths, the requests of both nodes among them.
    pub missing: u32,
}

/// A bucket as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests that this node has let through since it made the bucket.
    pub own: u32,
    /// Those of the other node, as far as it is known.
    pub peer: u32,
    /// Tokens that are missing, in thousandths.
    pub missing: u32,
}

/// The buckets of all limits of a worker, shared by its threads.
pub struct Buckets {
    limits: Box<[Arc<Limit>]>,
    changes: Arc<Changes>,
    sweeping: AtomicUsize,
}

struct Limit {
    rate: Rate,
    shards: Box<[Mutex<Shard>]>,
    /// Buckets that the other node has to be told of.
    pending: AtomicUsize,
    /// It is configured no more: nobody is told of its buckets.
    is_over: AtomicBool,
}

/// What the other node has not been told.
struct Changes {
    /// Whether anybody asks for them.
    are_kept: AtomicBool,
    pending: AtomicUsize,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Buckets {
    /// Buckets that are all full. `limits` are in the order of their places. `seed` is another number each time that the
    /// process starts. `wake` is called when there is a change to send and there was none before.
    pub fn new(limits: &[Terms], seed: u16, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let changes = Changes { are_kept: AtomicBool::new(false), pending: AtomicUsize::new(0), wake };
        let limits = limits.iter().map(|terms| Arc::new(Limit::new(terms, seed))).collect();
        Self { limits, changes: Arc::new(changes), sweeping: AtomicUsize::new(0) }
    }

    /// The buckets of another configuration: for each of its limits the terms, and the place of the one here whose buckets
    /// it goes on with. Those here stay usable for who still has them.
    pub fn next(&self, limits: &[(Terms, Option<u16>)], seed: u16) -> Self {
        let next = |(terms, place): &(Terms, Option<u16>)| {
            let kept = place.and_then(|place| self.limits.get(usize::from(place)));
            kept.map_or_else(|| Arc::new(Limit::new(terms, seed)), Arc::clone)
        };
        let (limits, changes) = (limits.iter().map(next).collect(), Arc::clone(&self.changes));
        Self { limits, changes, sweeping: AtomicUsize::new(0) }
    }

    /// Forgets what the other node was to be told of limits that `next` has not, once that is in use.
    pub fn give_way_to(&self, next: &Self) {
        let is_kept = |limit: &Arc<Limit>| next.limits.iter().any(|kept| Arc::ptr_eq(kept, limit));
        for limit in self.limits.iter().filter(|limit| !is_kept(limit)) {
            limit.is_over.store(true, Ordering::SeqCst);
            for shard in &limit.shards {
                let forgotten = lock(shard).forget_marks();
                self.unmark(limit, forgotten);
            }
        }
    }

    /// Takes a token for a request, if there is one. A limit that is not there limits nothing.
    pub fn take(&self, limit: u16, key: &[u8; 16], now: Duration) -> Verdict {
        let now = nanos(now);
        let Some((limit, mut shard)) = self.shard(limit, key) else { return Verdict::Allowed };
        let (number, verdict) = shard.take(key, &limit.rate, now);
        if verdict == Verdict::Allowed {
            self.mark(limit, &mut shard, number);
        }
        verdict
    }

    /// A bucket, when there is one. One that is not there is full.
    pub fn peek(&self, limit: u16, key: &[u8; 16], now: Duration) -> Option<Counts> {
        let (limit, shard) = self.shard(limit, key)?;
        let bucket = &shard.get(shard.find(key)?)?.bucket;
        let missing = limit.rate.to_thousandths(bucket.missing(nanos(now)));
        Some(Counts { own: bucket.total, peer: bucket.peer_total, missing })
    }

    /// Buckets of a limit, with those that are full and were not swept yet.
    pub fn len(&self, limit: u16) -> usize {
        let limit = self.limits.get(usize::from(limit));
        limit.map_or(0, |limit| limit.shards.iter().map(|shard| lock(shard).len()).sum())
    }

    /// Whether a limit has none.
    pub fn is_empty(&self, limit: u16) -> bool {
        self.len(limit) == 0
    }

    /// Removes buckets that are full from a tenth of the parts; called every 100 ms it has been everywhere after a second.
    pub fn sweep(&self, now: Duration) {
        let (now, turn) = (nanos(now), self.sweeping.fetch_add(1, Ordering::Relaxed) % SWEEPS);
        for limit in &self.limits {
            limit.shards.iter().skip(turn).step_by(SWEEPS).for_each(|shard| lock(shard).sweep(now));
        }
    }

    /// Begins or ends the keeping of changes. At the beginning, every bucket counts as changed.
    pub fn keep_changes(&self, are_kept: bool) {
        self.changes.are_kept.store(are_kept, Ordering::SeqCst);
        for limit in &self.limits {
            for shard in &limit.shards {
                let mut shard = lock(shard);
                let forgotten = shard.forget_marks();
                self.unmark(limit, forgotten);
                if are_kept {
                    let numbers = 0..shard.touched();
                    numbers.for_each(|number| self.mark(limit, &mut shard, number));
                }
            }
        }
    }

    /// Whether there are changes to take.
    pub fn has_changes(&self) -> bool {
        self.changes.pending.load(Ordering::Acquire) > 0
    }

    /// Takes at most `count` changes and gives each to `take`. A bucket that changes twice meanwhile is one change, so that
    /// there are never more than buckets, however long nobody takes them.
    pub fn take_changes(&self, now: Duration, count: usize, mut take: impl FnMut(Change)) {
        let (now, mut left) = (nanos(now), count);
        for (limit, place) in self.limits.iter().zip(0_u16..) {
            for shard in &limit.shards {
                if left == 0 || limit.pending.load(Ordering::Acquire) == 0 {
                    break;
                }
                let mut shard = lock(shard);
                while left > 0
                    && let Some(slot) = shard.take_mark()
                {
                    self.unmark(limit, 1);
                    if let Some(slot) = slot {
                        take(slot.bucket.change(slot.key, place, &limit.rate, now));
                        left -= 1;
                    }
                }
            }
        }
    }

    /// Takes what the other node says of a bucket.
    pub fn merge(&self, change: &Change, now: Duration) {
        let now = nanos(now);
        let Some((limit, mut shard)) = self.shard(change.limit, &change.key) else { return };
        shard.merge(change, &limit.rate, now);
    }

    fn shard(&self, limit: u16, key: &[u8; 16]) -> Option<(&Limit, MutexGuard<'_, Shard>)> {
        let limit = self.limits.get(usize::from(limit))?;
        let [first, ..] = *key;
        // A power of two, so that the low bits choose.
        let shard = limit.shards.get(usize::from(first) & (limit.shards.len() - 1))?;
        Some((&**limit, lock(shard)))
    }

    fn mark(&self, limit: &Limit, shard: &mut Shard, number: u32) {
        let is_told = self.changes.are_kept.load(Ordering::Relaxed) && !limit.is_over.load(Ordering::Relaxed);
        if !is_told || !shard.mark(number) {
            return;
        }
        // The limit's count comes first: whoever sees that there are changes finds them.
        limit.pending.fetch_add(1, Ordering::AcqRel);
        if self.changes.pending.fetch_add(1, Ordering::AcqRel) == 0 {
            (self.changes.wake)();
        }
    }

    fn unmark(&self, limit: &Limit, count: usize) {
        self.changes.pending.fetch_sub(count, Ordering::AcqRel);
        limit.pending.fetch_sub(count, Ordering::AcqRel);
    }
}

impl Limit {
    fn new(terms: &Terms, seed: u16) -> Self {
        let entries_max = terms.entries_max.max(1);
        let shard_count = prev_power_of_two(entries_max / SHARD_ENTRIES_MIN).clamp(1, SHARDS_MAX);
        let shard = |_| Mutex::new(Shard::new(entries_max / shard_count, seed));
        Self {
            rate: Rate::new(terms),
            shards: (0..shard_count).map(shard).collect(),
            pending: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }
}

/// The largest power of two that is not above a number, 0 for 0.
fn prev_power_of_two(number: usize) -> usize {
    number.checked_ilog2().map_or(0, |log| 1 << log)
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").field("limits", &self.limits.len()).finish_non_exhaustive()
    }
}
