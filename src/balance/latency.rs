//! How long a server takes to answer: a moving average that goes up at once and comes down in time (the peak EWMA of
//! Finagle), so that a server that has become slow is left alone after one answer, and asked again some seconds later.

/// The time in which half of what is known is forgotten, in milliseconds: about that of Finagle, whose time constant is ten
/// seconds. A power of two, as this is worked out for every server at every pick.
pub const HALF_LIFE_MS: u64 = 8_192;

/// Time between two answers that bring the estimate down.
const STEP_MS: u64 = HALF_LIFE_MS / 64;

/// What a failure counts as, at least, in microseconds: one that comes fast is no good answer.
pub const FAILURE_US: u32 = 1_000_000;

/// An estimate and when it was made. All zeros: nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeakEwma {
    /// Microseconds.
    estimate_us: u32,
    /// Milliseconds of some clock, modulo 2^32.
    at_ms: u32,
}

impl PeakEwma {
    /// As an atomic keeps it.
    pub fn to_bits(self) -> u64 {
        u64::from(self.estimate_us) << 32 | u64::from(self.at_ms)
    }

    /// From what an atomic keeps.
    pub fn from_bits(bits: u64) -> Self {
        let half = |half: u64| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { estimate_us: half(bits >> 32), at_ms: half(bits) }
    }

    /// After an answer that took `sample_us`, at `now_ms` of the same clock. `None` where that changes nothing: one that is no
    /// peak counts only when some time has gone by since the last that did, or whole numbers would never come down.
    #[must_use]
    pub fn after(self, sample_us: u32, now_ms: u64) -> Option<Self> {
        let peak = Self { estimate_us: sample_us.max(1), at_ms: half(now_ms) };
        let Some(kept) = self.estimate_us(now_ms) else { return Some(peak) };
        if sample_us >= kept {
            return Some(peak);
        }
        let forgotten = u64::from(self.estimate_us.saturating_sub(kept));
        if forgotten == 0 || self.age_ms(now_ms) < STEP_MS {
            return None;
        }
        // What is forgotten of the old estimate is filled up with the new one.
        let share = u64::from(sample_us) * forgotten / u64::from(self.estimate_us.max(1));
        let average = u32::try_from(u64::from(kept) + share).unwrap_or(u32::MAX);
        Some(Self { estimate_us: average.max(peak.estimate_us), ..peak })
    }

    /// After an answer that had not come after `waited_us` and is not waited for: that it takes longer is all that is known.
    #[must_use]
    pub fn after_waiting(self, waited_us: u32, now_ms: u64) -> Option<Self> {
        let is_peak = self.estimate_us(now_ms).is_none_or(|known| waited_us >= known);
        is_peak.then(|| self.after(waited_us, now_ms)).flatten()
    }

    /// A time before the last answer, as another thread's clock may have it, counts as the same time.
    fn age_ms(self, now_ms: u64) -> u64 {
        let age = half(now_ms).wrapping_sub(self.at_ms);
        if age > u32::MAX / 2 { 0 } else { u64::from(age) }
    }

    /// What it is at a time, in microseconds: it halves every [`HALF_LIFE_MS`]. `None` where nothing is known.
    pub fn estimate_us(self, now_ms: u64) -> Option<u32> {
        if self.estimate_us == 0 {
            return None;
        }
        let age = self.age_ms(now_ms);
        let (halvings, rest) = (age / HALF_LIFE_MS, age % HALF_LIFE_MS);
        let halved = u64::from(self.estimate_us).checked_shr(u32::try_from(halvings).unwrap_or(64)).unwrap_or(0);
        // A straight line between two halvings: at most 6 % above the curve.
        let estimate = halved - halved * rest / (2 * HALF_LIFE_MS);
        Some(u32::try_from(estimate).unwrap_or(u32::MAX))
    }
}

fn half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// What one more request would cost at a server: its answers' time, for each request under way and this one. A server that
/// nobody knows gets one request, and until that is answered no other: `None`.
pub fn cost(response_time_us: Option<u32>, in_flight: u32) -> Option<u64> {
    match response_time_us {
        Some(time) => Some(u64::from(time) * (u64::from(in_flight) + 1)),
        None => (in_flight == 0).then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(known: PeakEwma, sample_us: u32, now_ms: u64) -> PeakEwma {
        known.after(sample_us, now_ms).unwrap_or(known)
    }

    fn first(sample_us: u32, now_ms: u64) -> PeakEwma {
        after(PeakEwma::default(), sample_us, now_ms)
    }

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        assert_eq!(PeakEwma::default().estimate_us(5), None);
        assert_eq!(first(300, 5).estimate_us(5), Some(300));
        assert_eq!(first(0, 5).estimate_us(5), Some(1));
    }

    #[test]
    fn it_goes_up_at_once_and_comes_down_by_half_in_eight_seconds() {
        let slow = after(first(1_000, 0), 80_000, 1_000);
        assert_eq!(slow.estimate_us(1_000), Some(80_000));
        assert_eq!(slow.estimate_us(9_192), Some(40_000));
        assert_eq!(slow.estimate_us(17_384), Some(20_000));
        assert_eq!(slow.estimate_us(5_096), Some(60_000));
        // 40000 are left of it, and half of the new one makes up for the rest.
        assert_eq!(after(slow, 1_000, 9_192).estimate_us(9_192), Some(40_500));
        // One that comes soon changes nothing.
        assert_eq!(slow.after(1_000, 1_000), None);
        assert_eq!(slow.after(1_000, 1_127), None);
        assert!(slow.after(1_000, 1_128).is_some());
    }

    #[test]
    fn an_answer_that_was_not_waited_for_only_brings_it_up() {
        let waited = PeakEwma::default().after_waiting(2_000, 0).unwrap();
        assert_eq!(waited.estimate_us(0), Some(2_000));
        assert_eq!(waited.after_waiting(1_999, 0), None);
        assert_eq!(waited.after_waiting(999, 8_192), None);
        assert_eq!(waited.after_waiting(1_500, 8_192).unwrap().estimate_us(8_192), Some(1_500));
    }

    #[test]
    fn it_ends_at_what_answers_take_however_often_they_come() {
        for (interval_ms, answer_us) in [(1, 2_000), (10, 2_000), (1_000, 2_000), (1, 90), (1, 1)] {
            let mut known = first(500_000, 0);
            (1..=200_000 / interval_ms).for_each(|number| known = after(known, answer_us, number * interval_ms));
            let estimate = known.estimate_us(200_000).unwrap();
            assert!((answer_us..=answer_us + answer_us / 10 + 128).contains(&estimate), "{estimate} for {answer_us}");
        }
    }

    #[test]
    fn clocks_may_wrap_and_differ() {
        let wrap = u64::from(u32::MAX);
        let known = first(1_000, wrap - 999);
        assert_eq!(known.estimate_us(wrap + 7_193), Some(500));
        assert_eq!(known.estimate_us(wrap - 1_500), Some(1_000));
        assert_eq!(PeakEwma::from_bits(known.to_bits()), known);
        assert_eq!(PeakEwma::from_bits(0), PeakEwma::default());
        assert_eq!(known.estimate_us(wrap + 2_000_000_000), Some(0));
    }

    #[test]
    fn the_largest_values_do_not_overflow() {
        let slowest = after(first(u32::MAX, 0), u32::MAX, 8_192);
        assert_eq!(slowest.estimate_us(8_192), Some(u32::MAX));
        assert_eq!(cost(Some(u32::MAX), u32::MAX), Some(u64::from(u32::MAX) << 32));
    }

    #[test]
    fn one_request_finds_out_about_a_server_that_nobody_knows() {
        assert_eq!(cost(None, 0), Some(0));
        assert_eq!(cost(None, 1), None);
        assert_eq!(cost(Some(200), 2), Some(600));
    }
}
