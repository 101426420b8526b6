//! Whether a process takes on more work, by the memory that it has.

use std::time::Duration;

/// How long clients that take nothing of what waits for them are kept when memory becomes short, and at least.
const PATIENCE: Duration = Duration::from_secs(32);
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Looks after which they are kept for half the time.
const LOOKS_EACH: u32 = 2;

/// How much it takes on. Each level does what the ones before it do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Everything.
    #[default]
    None,
    /// No requests: they are answered at once, and their connections close.
    Shedding,
    /// No connections either.
    Closed,
}

impl Pressure {
    /// The level after one look. It begins at 90 % and at all of `max`, and ends 5 % below that, so that a process at an edge
    /// does not change its mind with each look.
    pub fn after(self, bytes: u64, max: u64) -> Self {
        let is_over = |percent: u64| u128::from(bytes) * 100 >= u128::from(max) * u128::from(percent);
        let is_closed = is_over(if self == Self::Closed { 95 } else { 100 });
        let is_shedding = is_over(if self == Self::None { 90 } else { 85 });
        match (is_closed, is_shedding) {
            (true, _) => Self::Closed,
            (false, true) => Self::Shedding,
            (false, false) => Self::None,
        }
    }

    /// The word of the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Shedding => "shedding",
            Self::Closed => "closed",
        }
    }
}

/// How long a client that takes nothing is kept, where memory has been short for so many looks. It becomes less while memory
/// stays so: those go first that have taken nothing for longest, and no more of them than have to.
pub fn patience(looks: u32) -> Duration {
    (PATIENCE / 2_u32.saturating_pow(looks / LOOKS_EACH)).max(PATIENCE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_halved_down_to_a_second() {
        let seconds = |looks| patience(looks).as_secs();
        assert_eq!([0, 1, 2, 4, 9, 10, 11, u32::MAX].map(seconds), [32, 32, 16, 8, 2, 1, 1, 1]);
    }

    #[test]
    fn levels_begin_and_end_at_their_edges() {
        use Pressure::{Closed, None, Shedding};
        let table = [
            (None, 0, None),
            (None, 899, None),
            (None, 900, Shedding),
            (None, 1_000, Closed),
            (Shedding, 850, Shedding),
            (Shedding, 849, None),
            (Shedding, 999, Shedding),
            (Shedding, 1_000, Closed),
            (Closed, 950, Closed),
            (Closed, 949, Shedding),
            (Closed, 850, Shedding),
            (Closed, 849, None),
        ];
        for (before, bytes, after) in table {
            assert_eq!(before.after(bytes, 1_000), after, "{before:?} at {bytes}");
        }
    }
}
