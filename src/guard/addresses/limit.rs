//! Limits on what happens again and again because somebody else works against us.

use std::time::{Duration, Instant};

/// At most so many times a second.
#[derive(Debug, Clone, Copy)]
pub struct PerSecond {
    max: u32,
    since: Option<Instant>,
    used: u32,
    refused: u32,
}

/// What [`PerSecond::ask`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Go on.
    Granted {
        /// How often it was refused since it was granted last.
        refused: u32,
    },
    /// Not now; this is the first time in this second.
    RefusedFirst,
    /// Not now.
    Refused,
}

impl PerSecond {
    /// `max` is at least 1.
    pub const fn new(max: u32) -> Self {
        Self { max, since: None, used: 0, refused: 0 }
    }

    /// Whether it may happen now. A second begins with the first time after the last one has ended.
    pub fn ask(&mut self, now: Instant) -> Leave {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.used) = (Some(now), 0);
        }
        if self.used < self.max {
            self.used += 1;
            return Leave::Granted { refused: std::mem::take(&mut self.refused) };
        }
        self.refused += 1;
        if self.refused == 1 { Leave::RefusedFirst } else { Leave::Refused }
    }

    /// It did not happen after all.
    pub fn give_back(&mut self) {
        self.used = self.used.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_granted_in_each_second() {
        let (mut limit, start) = (PerSecond::new(2), Instant::now());
        let mut ask = |ms| limit.ask(start + Duration::from_millis(ms));
        assert_eq!(ask(0), Leave::Granted { refused: 0 });
        assert_eq!(ask(500), Leave::Granted { refused: 0 });
        assert_eq!(ask(999), Leave::RefusedFirst);
        assert_eq!(ask(999), Leave::Refused);
        assert_eq!(ask(1_000), Leave::Granted { refused: 2 });
        assert_eq!(ask(1_001), Leave::Granted { refused: 0 });
        assert_eq!(ask(1_999), Leave::RefusedFirst);
        assert_eq!(ask(9_000), Leave::Granted { refused: 1 });
    }

    #[test]
    fn what_is_given_back_is_granted_again() {
        let (mut limit, start) = (PerSecond::new(1), Instant::now());
        assert_eq!(limit.ask(start), Leave::Granted { refused: 0 });
        limit.give_back();
        assert_eq!(limit.ask(start), Leave::Granted { refused: 0 });
        assert_eq!(limit.ask(start), Leave::RefusedFirst);
    }
}
