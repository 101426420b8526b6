//! How long changes take to reach the other node.

use std::time::Duration;

/// Upper bounds of the classes of [`LagCounts`], in microseconds; the last class has none.
pub const LAG_BOUNDS_US: [u64; 13] =
    [100, 250, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000];

/// Half of the time over which the longest lag is remembered.
const HALF_WINDOW: Duration = Duration::from_secs(5);

/// Entries by the time that they took, from the change to the word that it was dealt with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LagCounts {
    /// For each of [`LAG_BOUNDS_US`], and beyond, the entries in that class alone.
    pub classes: [u64; LAG_BOUNDS_US.len() + 1],
    /// The sum of all times in microseconds.
    pub sum_us: u64,
}

impl std::ops::AddAssign<&Self> for LagCounts {
    fn add_assign(&mut self, other: &Self) {
        self.classes.iter_mut().zip(&other.classes).for_each(|(class, more)| *class += more);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }
}

#[derive(Debug)]
pub(super) struct Lags {
    counts: LagCounts,
    began: Duration,
    now: Duration,
    before: Duration,
}

impl Lags {
    pub(super) fn new(now: Duration) -> Self {
        Self { counts: LagCounts::default(), began: now, now: Duration::ZERO, before: Duration::ZERO }
    }

    pub(super) fn note(&mut self, now: Duration, since: Duration, entries: u64) {
        self.turn(now);
        let lag = now.saturating_sub(since);
        self.now = self.now.max(lag);
        let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        let class = LAG_BOUNDS_US.iter().position(|bound| micros <= *bound).unwrap_or(LAG_BOUNDS_US.len());
        if let Some(count) = self.counts.classes.get_mut(class) {
            *count += entries;
        }
        self.counts.sum_us = self.counts.sum_us.saturating_add(micros.saturating_mul(entries));
    }

    /// The longest of the last five to ten seconds.
    pub(super) fn longest(&mut self, now: Duration) -> Duration {
        self.turn(now);
        self.now.max(self.before)
    }

    pub(super) fn counts(&self) -> &LagCounts {
        &self.counts
    }

    fn turn(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.began);
        if passed >= HALF_WINDOW {
            let is_long_ago = passed >= HALF_WINDOW * 2;
            self.before = if is_long_ago { Duration::ZERO } else { self.now };
            (self.now, self.began) = (Duration::ZERO, now);
        }
    }
}
