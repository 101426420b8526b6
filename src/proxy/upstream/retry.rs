//! Whether a request that failed is tried again. Decides and does nothing else.
//!
//! Two things are asked: is it safe, which is nobody's choice (RFC 9110 section 9.2.2), and is it wanted, which is the
//! operator's. A budget keeps the retries of all requests together below a share of them, so that servers that fail
//! under load do not get more of it.

use std::time::{Duration, Instant};

use crate::config::Retries;

/// Seconds that a budget looks back.
const WINDOW_SECONDS: usize = 10;

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection was made: the request has reached nobody.
    Connect,
    /// The server says that it has not begun.
    Refused,
    /// The connection broke.
    Broken,
    /// No response began in time.
    Timeout,
    /// A status that the operator has chosen.
    Status(u16),
}

impl Failure {
    /// As the file and the access log have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect_failure",
            Self::Refused => "refused_stream",
            Self::Broken => "broken_connection",
            Self::Timeout => "response_timeout",
            Self::Status(_) => "status",
        }
    }

    /// Whether a server may have done what was asked for.
    fn may_be_executed(self) -> bool {
        !matches!(self, Self::Connect | Self::Refused)
    }
}

/// Whether the operator wants a request tried again after this.
pub fn is_wanted(retries: &Retries, failure: Failure) -> bool {
    match failure {
        Failure::Connect => retries.on_connect_failure,
        Failure::Refused => retries.on_refused_stream,
        Failure::Broken => retries.on_broken_connection,
        Failure::Timeout => retries.on_response_timeout,
        Failure::Status(status) => retries.on_statuses.contains(&status),
    }
}

/// Whether a request may be done once more. `is_repeatable`: doing it twice is the same as doing it once, and all of it is
/// still there.
pub fn is_safe(failure: Failure, is_repeatable: bool) -> bool {
    is_repeatable || !failure.may_be_executed()
}

/// The retries of one pool on one thread, and what they are a share of.
#[derive(Debug)]
pub struct Budget {
    start: Instant,
    /// Requests and retries of a second, at its number modulo the window.
    seconds: [Second; WINDOW_SECONDS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    requests: u32,
    retries: u32,
}

impl Budget {
    /// Nothing has been asked yet.
    pub fn new(start: Instant) -> Self {
        Self { start, seconds: [Second::default(); WINDOW_SECONDS] }
    }

    /// A request begins.
    pub fn asked(&mut self, now: Instant) {
        if let Some(second) = self.second(now) {
            second.requests = second.requests.saturating_add(1);
        }
    }

    /// Takes a retry out of the budget. False when it has none left. A try after [`Failure::Connect`] is never asked for:
    /// it put no load on any server.
    pub fn take(&mut self, retries: &Retries, now: Instant) -> bool {
        let current = self.number(now);
        let recent = self.seconds.iter().filter(|second| current.saturating_sub(second.number) < WINDOW_SECONDS as u64);
        let (mut asked, mut retried) = (0_u64, 0_u64);
        for second in recent {
            asked += u64::from(second.requests);
            retried += u64::from(second.retries);
        }
        let share = asked * u64::from(retries.budget_percent) / 100;
        let floor = u64::from(retries.budget_per_second) * WINDOW_SECONDS as u64;
        let has_left = retried < share + floor;
        if has_left && let Some(second) = self.second(now) {
            second.retries = second.retries.saturating_add(1);
        }
        has_left
    }

    fn number(&self, now: Instant) -> u64 {
        // Not zero: that is a second that never was.
        now.saturating_duration_since(self.start).max(Duration::ZERO).as_secs() + WINDOW_SECONDS as u64
    }

    fn second(&mut self, now: Instant) -> Option<&mut Second> {
        let number = self.number(now);
        let index = usize::try_from(number % WINDOW_SECONDS as u64).ok()?;
        let second = self.seconds.get_mut(index)?;
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        Some(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(budget_percent: u32, budget_per_second: u32) -> Retries {
        Retries { budget_percent, budget_per_second, on_statuses: vec![503], ..Retries::default() }
    }

    #[test]
    fn what_may_have_been_executed_is_repeated_only_when_that_is_the_same() {
        let table = [
            (Failure::Connect, false, true),
            (Failure::Refused, false, true),
            (Failure::Broken, false, false),
            (Failure::Broken, true, true),
            (Failure::Timeout, false, false),
            (Failure::Timeout, true, true),
            (Failure::Status(503), false, false),
            (Failure::Status(503), true, true),
        ];
        for (failure, is_repeatable, expected) in table {
            assert_eq!(is_safe(failure, is_repeatable), expected, "{failure:?} {is_repeatable}");
        }
    }

    #[test]
    fn the_operator_says_what_is_tried_again() {
        let retries = retries(20, 10);
        let wanted = [Failure::Connect, Failure::Refused, Failure::Broken, Failure::Status(503)];
        assert!(wanted.into_iter().all(|failure| is_wanted(&retries, failure)));
        let unwanted = [Failure::Timeout, Failure::Status(502), Failure::Status(500)];
        assert!(!unwanted.into_iter().any(|failure| is_wanted(&retries, failure)));
    }

    #[test]
    fn a_budget_is_a_share_of_the_last_ten_seconds() {
        let start = Instant::now();
        let retries = retries(20, 0);
        let mut budget = Budget::new(start);
        assert!(!budget.take(&retries, start));
        (0..100).for_each(|_| budget.asked(start));
        let granted = (0..100).filter(|_| budget.take(&retries, start + Duration::from_secs(9))).count();
        assert_eq!(granted, 20);
        // The requests are forgotten, the retries not yet.
        assert!(!budget.take(&retries, start + Duration::from_secs(10)));
        (0..100).for_each(|_| budget.asked(start + Duration::from_secs(19)));
        let granted = (0..100).filter(|_| budget.take(&retries, start + Duration::from_secs(19))).count();
        assert_eq!(granted, 20);
    }

    #[test]
    fn a_floor_lets_a_quiet_pool_retry() {
        let start = Instant::now();
        let retries = retries(0, 2);
        let mut budget = Budget::new(start);
        assert_eq!((0..100).filter(|_| budget.take(&retries, start)).count(), 20);
        assert_eq!((0..100).filter(|_| budget.take(&retries, start + Duration::from_secs(10))).count(), 20);
    }
}
