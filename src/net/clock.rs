//! The clock of the heartbeat.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A clock that also counts the time a machine was suspended (`CLOCK_BOOTTIME`, clock_gettime(2)).
///
/// `Instant::now` stops during a suspend, so that a node that wakes up would believe that no time has passed and that it
/// still holds its VIPs. The readings are given as `Instant`s on a common origin, so that cores need no type of their own.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_since_boot: Duration,
}

impl Clock {
    /// Starts from the present.
    pub fn start() -> Self {
        Self { origin: Instant::now(), origin_since_boot: since_boot() }
    }

    /// The present.
    pub fn now(&self) -> Instant {
        self.origin + since_boot().saturating_sub(self.origin_since_boot)
    }
}

/// Time since the system started, suspends included.
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_never_runs_backwards() {
        let clock = Clock::start();
        let readings: Vec<Instant> = (0..1000).map(|_| clock.now()).collect();
        assert!(readings.is_sorted());
    }
}
