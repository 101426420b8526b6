//! What became of requests, counted over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest time that is looked back.
const LENGTH_MAX: Duration = Duration::from_secs(60);

/// What became of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub requests: u64,
    /// Those that got no response: no connection, one that broke, none in time.
    pub failures: u64,
    /// Those that got a response which counts as an error.
    pub errors: u64,
    /// Those whose time to the response's head was taken.
    pub timed: u64,
    /// These times together, in microseconds.
    pub time_us: u64,
}

impl Tally {
    /// Those that went wrong, with a response or without.
    pub fn bad(&self) -> u64 {
        self.failures.saturating_add(self.errors)
    }

    /// Whether at least `percent` of at least `requests_min` went wrong. 0 percent: never.
    pub fn is_bad(&self, percent: u32, requests_min: u32) -> bool {
        let is_enough = self.requests > 0 && self.requests >= u64::from(requests_min);
        let share = self.bad().saturating_mul(100);
        percent > 0 && is_enough && share >= self.requests.saturating_mul(u64::from(percent))
    }

    /// The mean time to a response, in microseconds, where at least `timed_min` were taken.
    pub fn mean_us(&self, timed_min: u32) -> Option<u64> {
        if self.timed < u64::from(timed_min) { None } else { self.time_us.checked_div(self.timed) }
    }

    /// What is in this and was not in `before`; both count up, and begin at 0 again with 64 bits full.
    fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.wrapping_sub(before.requests),
            failures: self.failures.wrapping_sub(before.failures),
            errors: self.errors.wrapping_sub(before.errors),
            timed: self.timed.wrapping_sub(before.timed),
            time_us: self.time_us.wrapping_sub(before.time_us),
        }
    }

    fn add(&mut self, more: &Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.failures = self.failures.saturating_add(more.failures);
        self.errors = self.errors.saturating_add(more.errors);
        self.timed = self.timed.saturating_add(more.timed);
        self.time_us = self.time_us.saturating_add(more.time_us);
    }
}

/// The tally of the last seconds. Holds one second more than a minute at most.
#[derive(Debug, Default)]
pub struct Window {
    /// What was counted at all when it was looked at last.
    total: Tally,
    /// What each second has added, the oldest first.
    seconds: VecDeque<(Instant, Tally)>,
}

impl Window {
    /// Takes what has been counted at all by now.
    pub fn turn(&mut self, now: Instant, total: Tally) {
        let more = total.since(&self.total);
        self.total = total;
        let is_current = |began: Instant| now.saturating_duration_since(began) < Duration::from_secs(1);
        match self.seconds.back_mut().filter(|(began, _)| is_current(*began)) {
            Some((_, tally)) => tally.add(&more),
            None => self.seconds.push_back((now, more)),
        }
        while self.seconds.front().is_some_and(|(began, _)| now.saturating_duration_since(*began) >= LENGTH_MAX) {
            self.seconds.pop_front();
        }
    }

    /// What the last `length` had, to the second and up to a minute.
    pub fn last(&self, now: Instant, length: Duration) -> Tally {
        let mut sum = Tally::default();
        let recent = self.seconds.iter().filter(|(began, _)| now.saturating_duration_since(*began) < length);
        recent.for_each(|(_, tally)| sum.add(tally));
        sum
    }

    /// Forgets what was counted: it has led to something, and is not to lead to it again.
    pub fn clear(&mut self) {
        self.seconds.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(requests: u64, failures: u64, errors: u64) -> Tally {
        Tally { requests, failures, errors, ..Tally::default() }
    }

    #[test]
    fn a_window_forgets_what_is_older_than_itself() {
        let (start, length) = (Instant::now(), Duration::from_secs(3));
        let mut window = Window::default();
        let mut last = |ms, total| {
            let now = start + Duration::from_millis(ms);
            window.turn(now, total);
            window.last(now, length)
        };
        assert_eq!(last(0, tally(10, 1, 0)), tally(10, 1, 0));
        assert_eq!(last(900, tally(15, 1, 2)), tally(15, 1, 2));
        assert_eq!(last(1_000, tally(16, 1, 2)), tally(16, 1, 2));
        assert_eq!(last(2_999, tally(16, 1, 2)), tally(16, 1, 2));
        assert_eq!(last(3_000, tally(16, 1, 2)), tally(1, 0, 0));
        assert_eq!(last(9_000, tally(16, 1, 2)), tally(0, 0, 0));
    }

    #[test]
    fn what_was_cleared_is_not_counted_again() {
        let (now, length) = (Instant::now(), Duration::from_secs(3));
        let mut window = Window::default();
        window.turn(now, tally(10, 5, 0));
        window.clear();
        window.turn(now, tally(11, 5, 1));
        assert_eq!(window.last(now, length), tally(1, 0, 1));
    }

    #[test]
    fn a_window_stays_small_however_often_it_is_turned() {
        let start = Instant::now();
        let mut window = Window::default();
        for turn in 0..10_000 {
            window.turn(start + Duration::from_millis(turn * 100), Tally::default());
        }
        assert!(window.seconds.len() <= 61, "{}", window.seconds.len());
    }

    #[test]
    fn a_share_is_reached_at_its_percent_and_with_enough_requests() {
        assert!(tally(20, 5, 5).is_bad(50, 20));
        assert!(!tally(20, 5, 4).is_bad(50, 20));
        assert!(!tally(19, 19, 0).is_bad(50, 20));
        assert!(!tally(20, 20, 0).is_bad(0, 20));
        assert!(!tally(0, 0, 0).is_bad(1, 0));
        assert!(tally(1, 0, 1).is_bad(100, 0));
    }

    #[test]
    fn a_mean_needs_enough_times() {
        let timed = Tally { timed: 4, time_us: 10, ..Tally::default() };
        assert_eq!((timed.mean_us(4), timed.mean_us(5)), (Some(2), None));
        assert_eq!(Tally::default().mean_us(0), None);
    }
}
