//! Which sessions of the worker's own table were compared with the store lately.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::session::key::Key;

/// The longest that a session which is in use is not compared: so long may a move that another load balancer made go
/// unnoticed. Sessions that live shorter are compared three times in their idle time.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(3);

/// 1 MiB. With more sessions in use within an interval than this, some are compared more often than they need be.
const SLOTS: usize = 1 << 17;

/// Times and hashes, without a lock: a slot belongs to whichever key was there last. Two keys that share one cost a
/// comparison more, and nothing else.
pub(super) struct Rechecks {
    slots: Box<[AtomicU64]>,
}

/// Bits of a slot that hold the time, in milliseconds; it comes around after 12 days, when a slot may be passed over once.
const TIME_BITS: u32 = 30;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

impl Rechecks {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether it is time to compare a session, and if so takes note that it is done. `now` counts from any one time.
    pub(super) fn is_due(&self, key: &Key, interval: Duration, now: Duration) -> bool {
        let hash = u128::from_be_bytes(key.to_bytes());
        let (index, tag) = (hash as usize % SLOTS, (hash >> 94) as u64);
        let Some(slot) = self.slots.get(index) else { return false };
        // One more than the time, so that an empty slot is no time at all.
        let now_ms = (u64::try_from(now.as_millis()).unwrap_or(u64::MAX) & TIME_MASK).max(1);
        let old = slot.load(Ordering::Relaxed);
        let passed = now_ms.wrapping_sub(old) & TIME_MASK;
        if old & TIME_MASK != 0 && old >> TIME_BITS == tag && u128::from(passed) < interval.as_millis() {
            return false;
        }
        // Of two threads that see the same session at once, one compares it.
        let new = tag << TIME_BITS | now_ms;
        slot.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_session_is_due_once_in_an_interval() {
        let rechecks = Rechecks::new();
        let due = |now_ms| rechecks.is_due(&Key::from_bytes([1; 16]), SECOND, Duration::from_millis(now_ms));
        assert!(due(0));
        assert!(!due(999));
        assert!(due(1001));
        assert!(!due(1500));
        assert!(due(2001));
    }

    #[test]
    fn sessions_do_not_stand_in_for_each_other() {
        let rechecks = Rechecks::new();
        let (mut one, mut two) = ([0; 16], [0; 16]);
        assert!(rechecks.is_due(&Key::from_bytes(one), SECOND, SECOND));
        two[15] = 1; // Another slot.
        assert!(rechecks.is_due(&Key::from_bytes(two), SECOND, SECOND));
        one[0] = 1; // The slot of the first key.
        assert!(rechecks.is_due(&Key::from_bytes(one), SECOND, SECOND));
        assert!(!rechecks.is_due(&Key::from_bytes(one), SECOND, SECOND));
        assert!(rechecks.is_due(&Key::from_bytes([0; 16]), SECOND, SECOND));
    }

    #[test]
    fn a_clock_that_came_around_is_no_reason_to_wait_for_ever() {
        let rechecks = Rechecks::new();
        let around = Duration::from_millis(TIME_MASK);
        assert!(rechecks.is_due(&Key::from_bytes([1; 16]), SECOND, around));
        assert!(!rechecks.is_due(&Key::from_bytes([1; 16]), SECOND, around + Duration::from_millis(500)));
        assert!(rechecks.is_due(&Key::from_bytes([1; 16]), SECOND, around + Duration::from_millis(1500)));
    }
}
