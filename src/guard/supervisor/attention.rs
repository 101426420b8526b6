//! How much of the guard's time a worker can take by what it says.
//!
//! The worker reads what clients send, and whoever has taken it over may say whatever the link carries, as fast as the
//! link takes it. The guard reads it on a thread that is scheduled before every ordinary process. So it reads at a pace
//! that a worker in its right mind stays far below, and leaves the rest in the socket, where the worker waits with it. A
//! worker whose answers to probes wait there too counts as hung, and is replaced for that.

use std::time::Duration;

use tokio::time::Instant;

/// What reading one message is taken to cost, whatever is in it...
const MESSAGE_COST: Duration = Duration::from_micros(300);
/// ...and for each 64 bytes of it: about what it takes to decode them.
const BLOCK_COST: Duration = Duration::from_micros(1);
const BLOCK_BYTES: usize = 64;
/// What may be read in a row.
const BURST: Duration = Duration::from_millis(50);

/// Keeps to the pace.
#[derive(Debug)]
pub struct Attention {
    /// Until when what was read so far would have taken at the pace.
    paid_until: Instant,
}

impl Attention {
    /// For a worker that has said nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { paid_until: now }
    }

    /// Takes note of a message that was read.
    pub fn spend(&mut self, now: Instant, len_bytes: usize) {
        let blocks = u32::try_from(len_bytes / BLOCK_BYTES).unwrap_or(u32::MAX);
        self.paid_until = self.paid_until.max(now) + MESSAGE_COST + BLOCK_COST * blocks;
    }

    /// When the next message may be read; in the past when it may be now.
    pub fn listens_at(&self) -> Instant {
        self.paid_until.checked_sub(BURST).unwrap_or(self.paid_until)
    }
}

/// Lets through the latest of some values: the first one at once, and then one in each interval.
#[derive(Debug)]
pub struct Paced<T> {
    interval: Duration,
    free_at: Instant,
    waiting: Option<T>,
}

impl<T> Paced<T> {
    /// With nothing waiting.
    pub fn new(now: Instant, interval: Duration) -> Self {
        Self { interval, free_at: now, waiting: None }
    }

    /// Takes a value, in place of one that still waits.
    pub fn put(&mut self, value: T) {
        self.waiting = Some(value);
    }

    /// When there is one to be let through; `None` while there is none.
    pub fn due_at(&self) -> Option<Instant> {
        self.waiting.is_some().then_some(self.free_at)
    }

    /// Notes that one was let through elsewhere, in place of what waits.
    pub fn skip(&mut self, now: Instant) {
        (self.waiting, self.free_at) = (None, now + self.interval);
    }

    /// Lets one through.
    pub fn take(&mut self, now: Instant) -> Option<T> {
        if now < self.free_at {
            return None;
        }
        let value = self.waiting.take()?;
        self.free_at = now + self.interval;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_messages_are_read_in_a_row_and_then_at_a_pace() {
        let start = Instant::now();
        let mut attention = Attention::new(start);
        let mut count = 0;
        while attention.listens_at() <= start {
            attention.spend(start, 20);
            count += 1;
        }
        assert_eq!(count, 167);
        let later = start + Duration::from_secs(1);
        for _ in 0..3_334 {
            attention.spend(start, 20);
        }
        assert!(attention.listens_at() > later);
        let rested = start + Duration::from_secs(10);
        assert!(attention.listens_at() <= rested);
        attention.spend(rested, 20);
        assert!(attention.listens_at() <= rested, "a rest is not saved up, and a message is not a burst");
    }

    #[test]
    fn a_long_message_counts_for_its_length() {
        let start = Instant::now();
        let mut attention = Attention::new(start);
        attention.spend(start, 32 * 1024 * 1024);
        assert_eq!(attention.listens_at() - start, Duration::from_micros(524_288 + 300 - 50_000));
    }

    #[test]
    fn the_latest_value_is_let_through_once_an_interval() {
        let start = Instant::now();
        let mut paced = Paced::new(start, Duration::from_millis(100));
        assert_eq!((paced.due_at(), paced.take(start)), (None, None));
        paced.put(1);
        assert_eq!((paced.due_at(), paced.take(start)), (Some(start), Some(1)));
        paced.put(2);
        paced.put(3);
        let next = start + Duration::from_millis(100);
        assert_eq!((paced.due_at(), paced.take(start)), (Some(next), None));
        assert_eq!((paced.take(next), paced.take(next)), (Some(3), None));
    }
}
