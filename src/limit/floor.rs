//! How slow a client may be: bytes that come or go have to do so at a rate, on the whole.
//!
//! A client has some time of credit, spends it while it is waited for, and earns it back with each byte, up to the credit
//! that it began with. So no burst buys a long silence, and the time that a server takes is not charged to the client.

use std::time::Duration;

/// The rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Bytes a second, at least 1.
    pub bytes_per_second: u32,
    /// The credit.
    pub grace: Duration,
}

/// The credit of one client. `now` is the time since any origin, the same for all calls.
#[derive(Debug, Clone)]
pub struct Meter {
    terms: Terms,
    credit: Duration,
    waiting_since: Option<Duration>,
}

impl Meter {
    /// One with all its credit.
    pub fn new(terms: Terms) -> Self {
        Self { terms, credit: terms.grace, waiting_since: None }
    }

    /// The client is waited for. Gives the time at which its credit is used up.
    pub fn waits(&mut self, now: Duration) -> Duration {
        self.waiting_since.get_or_insert(now).saturating_add(self.credit)
    }

    /// It was not for the client that was waited since [`Meter::waits`]: that time costs it nothing.
    pub fn excuse(&mut self) {
        self.waiting_since = None;
    }

    /// So many bytes have come or gone, and the client is not waited for any more.
    pub fn moved(&mut self, bytes: usize, now: Duration) {
        let earned = bytes as u128 * 1_000_000_000 / u128::from(self.terms.bytes_per_second.max(1));
        let earned = Duration::from_nanos(u64::try_from(earned).unwrap_or(u64::MAX));
        // Earned first: who is waited for longer than the credit lasts owes the rest.
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.credit = self.credit.saturating_add(earned).saturating_sub(waited).min(self.terms.grace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn meter() -> Meter {
        Meter::new(Terms { bytes_per_second: 1_000, grace: ms(2_000) })
    }

    #[test]
    fn silence_is_over_with_the_credit() {
        let mut meter = meter();
        assert_eq!(meter.waits(ms(500)), ms(2_500));
        assert_eq!(meter.waits(ms(900)), ms(2_500), "the wait has begun before");
    }

    #[test]
    fn bytes_earn_time_at_the_rate() {
        let mut meter = meter();
        meter.waits(ms(0));
        meter.moved(500, ms(1_500));
        assert_eq!(meter.waits(ms(1_500)), ms(2_500), "500 ms were left, and 500 bytes are worth 500 ms");
    }

    #[test]
    fn client_at_the_rate_goes_on_for_ever_and_a_slower_one_does_not() {
        for (bytes, goes_on) in [(100, true), (99, false)] {
            let mut meter = meter();
            let in_time = (0..10_000).all(|turn| {
                let is_in_time = meter.waits(ms(turn * 100)) >= ms(turn * 100 + 100);
                meter.moved(bytes, ms(turn * 100 + 100));
                is_in_time
            });
            assert_eq!(in_time, goes_on, "{bytes} bytes each 100 ms");
        }
    }

    #[test]
    fn burst_buys_no_more_than_the_credit_of_the_beginning() {
        let mut meter = meter();
        meter.moved(1_000_000_000, ms(0));
        assert_eq!(meter.waits(ms(100)), ms(2_100));
    }

    #[test]
    fn time_that_was_not_the_clients_costs_it_nothing() {
        let mut meter = meter();
        meter.waits(ms(0));
        meter.excuse();
        assert_eq!(meter.waits(ms(1_500)), ms(3_500));
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_client_costs_it_nothing() {
        let mut meter = meter();
        meter.waits(ms(0));
        meter.moved(1, ms(0));
        assert_eq!(meter.waits(ms(60_000)), ms(62_000));
    }
}
