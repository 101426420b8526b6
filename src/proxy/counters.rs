//! What the threads count. Each counts for itself, so that no two cores fight over a line of cache; whoever asks adds up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::http::trace::Hedge;
use super::refusals::Refusals;
use super::tcp::Moved;
use crate::config::PoolIndex;

/// A number that one thread counts up and others read. Without the locked instruction that two writers would need.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Called by the thread that owns it, and by no other.
    pub fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    /// What was counted since the worker started.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Classes of statuses: 1xx to 5xx. What is none of them counts as the last.
pub const CLASSES: usize = 5;

/// Responses by the class of their status, 1xx first.
#[derive(Debug, Default)]
pub struct Classes([Count; CLASSES]);

impl Classes {
    fn count(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES) - 1;
        if let Some(count) = self.0.get(class) {
            count.add(1);
        }
    }

    /// Adds what was counted to `sums`.
    pub fn add_to(&self, sums: &mut [u64; CLASSES]) {
        sums.iter_mut().zip(&self.0).for_each(|(sum, count)| *sum += count.get());
    }
}

/// Upper bounds of the classes of times, in microseconds; times above all of them are in one more class.
pub const BOUNDS_US: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

/// Times by class.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Count; BOUNDS_US.len() + 1],
    sum_us: Count,
}

impl Histogram {
    fn count(&self, us: u64) {
        let class = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(class) {
            count.add(1);
        }
        self.sum_us.add(us);
    }
}

/// Times by class, of all threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times {
    /// For each of [`BOUNDS_US`], and one more.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// All of them together.
    pub sum_us: u64,
}

impl Times {
    /// Adds what a thread has counted.
    pub fn add(&mut self, histogram: &Histogram) {
        self.counts.iter_mut().zip(&histogram.counts).for_each(|(sum, count)| *sum += count.get());
        self.sum_us += histogram.sum_us.get();
    }
}

/// What a thread counts under one configuration. What stays in the next one is counted on.
#[derive(Default)]
pub struct Counters {
    /// Whatever the configuration.
    pub totals: Arc<Totals>,
    /// For each listener.
    pub by_listener: Vec<Arc<ListenerCounters>>,
    /// For each pool.
    pub by_pool: Vec<PoolCounters>,
}

/// What a thread counts whatever the configuration.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Totals {
    /// Requests answered, whoever answered them.
    pub requests: AtomicU64,
    /// Open client connections.
    pub connections: AtomicU64,
}

/// What became of a copy of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorOutcome {
    /// The second pool has answered.
    Answered,
    /// No server could be reached, or it broke off or took too long.
    Failed,
    /// Its body was too large to be kept, and it was not sent.
    TooLarge,
    /// Too many copies were under way, and it was not sent.
    Busy,
    /// Its body did not come to an end, and it was not sent.
    BrokenOff,
}

/// What a thread counts of a listener. Alone on its lines of cache, as all that one thread writes.
#[derive(Default)]
#[repr(align(64))]
pub struct ListenerCounters {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Sockets of the listener on which the thread accepts nothing now, for want of room or descriptors.
    pub full_sockets: AtomicU64,
    /// What was refused, by the reason.
    pub refused: Refusals,
    /// Requests, by the status that they were answered with.
    pub responses: Classes,
    /// Bytes of bodies, or of connections of `protocol = "tcp"`, from clients.
    pub bytes_in: Count,
    /// The same to clients.
    pub bytes_out: Count,
    /// From the head of a request to the last byte of its response. Only where somebody can ask for it.
    pub durations: Histogram,
}

/// What a thread counts of a pool and of its servers.
#[derive(Default)]
pub struct PoolCounters {
    /// Of the pool itself.
    pub own: Arc<OwnPoolCounters>,
    /// Of each server.
    pub by_server: Vec<Arc<ServerCounters>>,
}

/// What a thread counts of a server.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServerCounters {
    /// Requests sent to it, and connections of `protocol = "tcp"`.
    pub requests: AtomicU64,
    /// Its responses.
    pub responses: Classes,
}

/// What a thread counts of a pool, whatever its servers.
#[derive(Default)]
#[repr(align(64))]
pub struct OwnPoolCounters {
    /// Copies of requests, by [`MirrorOutcome`].
    pub mirrored: [AtomicU64; 5],
    /// Requests, by the status that they were answered with, be it by us.
    pub responses: Classes,
    /// From the head of a request to that of the server's response. Only where somebody can ask for it.
    pub first_bytes: Histogram,
    /// Times that a request was sent again.
    pub retries: Count,
    /// Second copies that were not answered with.
    pub hedges_lost: Count,
    /// Those that were.
    pub hedges_won: Count,
}

/// A request that was served, or could not be.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// On which listener.
    pub listener: usize,
    /// For which pool.
    pub pool: Option<PoolIndex>,
    /// By which server of it.
    pub server: Option<usize>,
    /// With which status.
    pub status: u16,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    /// Times that it was sent again.
    pub retries: u32,
    /// What came of its second copy.
    pub hedge: Hedge,
    /// Time until the server answered; `None` where nobody wanted to know.
    pub first_byte_us: Option<u64>,
    /// Time that all of it took; `None` where nobody wanted to know.
    pub total_us: Option<u64>,
}

impl ListenerCounters {
    /// Counts what a connection has moved that is over.
    pub fn moved(&self, moved: &Moved) {
        self.bytes_in.add(moved.up.get());
        self.bytes_out.add(moved.down.get());
    }
}

impl Counters {
    /// Counts a request at its end.
    pub fn served(&self, served: &Served) {
        if let Some(listener) = self.by_listener.get(served.listener) {
            listener.responses.count(served.status);
            listener.bytes_in.add(served.bytes_in);
            listener.bytes_out.add(served.bytes_out);
            served.total_us.into_iter().for_each(|us| listener.durations.count(us));
        }
        let Some(pool) = served.pool.and_then(|pool| self.by_pool.get(pool.0)) else { return };
        pool.own.responses.count(served.status);
        served.first_byte_us.into_iter().for_each(|us| pool.own.first_bytes.count(us));
        if served.retries > 0 {
            pool.own.retries.add(u64::from(served.retries));
        }
        match served.hedge {
            Hedge::Unsent => {}
            Hedge::Lost => pool.own.hedges_lost.add(1),
            Hedge::Won => pool.own.hedges_won.add(1),
        }
        if let Some(server) = served.server.and_then(|server| pool.by_server.get(server)) {
            server.responses.count(served.status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_in_the_class_that_ends_at_or_above_them() {
        let histogram = Histogram::default();
        [0, 250, 251, 30_000_000, 30_000_001].into_iter().for_each(|us| histogram.count(us));
        let mut times = Times::default();
        times.add(&histogram);
        times.add(&histogram);
        assert_eq!(times.counts, [4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2]);
        assert_eq!(times.sum_us, 2 * (250 + 251 + 30_000_000 + 30_000_001));
    }

    #[test]
    fn every_status_has_a_class() {
        let classes = Classes::default();
        [101, 200, 299, 304, 404, 499, 500, 599, 999, 0].into_iter().for_each(|status| classes.count(status));
        let mut sums = [0; CLASSES];
        classes.add_to(&mut sums);
        assert_eq!(sums, [2, 2, 1, 2, 3]);
    }

    #[test]
    fn a_request_is_counted_wherever_it_belongs() {
        let pool = PoolCounters { by_server: vec![Arc::default(), Arc::default()], ..PoolCounters::default() };
        let counters = Counters { by_listener: vec![Arc::default()], by_pool: vec![pool], ..Counters::default() };
        let served = Served {
            listener: 0,
            pool: Some(PoolIndex(0)),
            server: Some(1),
            status: 200,
            bytes_in: 3,
            bytes_out: 4,
            retries: 2,
            hedge: Hedge::Won,
            first_byte_us: Some(7),
            total_us: None,
        };
        counters.served(&served);
        counters.served(&Served { server: None, status: 503, ..served });
        counters.served(&Served { pool: None, status: 404, ..served });
        let sums = |classes: &Classes| {
            let mut sums = [0; CLASSES];
            classes.add_to(&mut sums);
            sums
        };
        assert_eq!(sums(&counters.by_listener[0].responses), [0, 1, 0, 1, 1]);
        assert_eq!(sums(&counters.by_pool[0].own.responses), [0, 1, 0, 0, 1]);
        assert_eq!(sums(&counters.by_pool[0].by_server[0].responses), [0; CLASSES]);
        assert_eq!(sums(&counters.by_pool[0].by_server[1].responses), [0, 1, 0, 0, 0]);
        assert_eq!(counters.by_listener[0].bytes_in.get(), 9);
        assert_eq!(counters.by_pool[0].own.retries.get(), 4);
        assert_eq!((counters.by_pool[0].own.hedges_lost.get(), counters.by_pool[0].own.hedges_won.get()), (0, 2));
    }
}
