//! What the heartbeat counts and the guard reads: atomics, so that neither waits for the other.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::status::PathStatus;
use crate::vrrp::hello::Hello;
use crate::vrrp::packet::DropReason;

/// What one VIP counts.
#[derive(Debug)]
pub struct VipCounters {
    /// Adverts sent, on whatever path.
    pub sent: AtomicU64,
    /// Valid adverts of the peer, on whatever path.
    pub received: AtomicU64,
    /// Packets dropped, by [`DropReason::index`].
    pub dropped: [AtomicU64; DropReason::ALL.len()],
    /// The last valid advert: priority in the lowest byte, interval in milliseconds above it; 0 before the first.
    pub last_heard: AtomicU64,
    /// When it came, in milliseconds after `epoch`.
    pub last_heard_at_ms: AtomicU64,
    /// The sequence of the last advert that was signed.
    pub sequence: AtomicU64,
    /// The VRRP paths, then the links.
    pub paths: Vec<PathCounters>,
    /// What the peer last said over a link, and when.
    pub hello: Mutex<Option<(Hello, Instant)>>,
    /// The origin of the times here.
    pub epoch: Instant,
}

/// What one path of a VIP counts.
#[derive(Debug)]
pub struct PathCounters {
    /// Its name for people.
    pub name: String,
    /// Whether it is a link of the pair.
    pub is_link: bool,
    /// Adverts and hellos sent.
    pub sent: AtomicU64,
    /// Valid ones that came.
    pub received: AtomicU64,
    /// Sends that failed.
    pub send_failures: AtomicU64,
    /// When the last valid one came, in milliseconds after the epoch of [`VipCounters`]; 0 before the first.
    pub last_heard_at_ms: AtomicU64,
    /// The sequence of the last signed advert that was accepted on it.
    pub floor: AtomicU64,
}

impl VipCounters {
    /// All zero.
    pub fn new(paths: Vec<PathCounters>) -> Self {
        Self {
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
            last_heard: AtomicU64::new(0),
            last_heard_at_ms: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            paths,
            hello: Mutex::new(None),
            epoch: Instant::now(),
        }
    }

    /// An advert of the peer, on a path.
    pub fn heard(&self, path: usize, priority: u8, interval: Duration) {
        let at_ms = millis(self.epoch.elapsed());
        self.received.fetch_add(1, Ordering::Relaxed);
        self.last_heard_at_ms.store(at_ms, Ordering::Relaxed);
        self.last_heard.store((millis(interval) << 8) | u64::from(priority), Ordering::Relaxed);
        self.present(path);
    }

    /// A valid packet of the peer, on a path.
    pub fn present(&self, path: usize) {
        if let Some(path) = self.paths.get(path) {
            path.received.fetch_add(1, Ordering::Relaxed);
            path.last_heard_at_ms.store(millis(self.epoch.elapsed()).max(1), Ordering::Relaxed);
        }
    }

    /// A packet that was refused.
    pub fn dropped(&self, reason: DropReason) {
        if let Some(count) = self.dropped.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A packet that went out on a path, or could not.
    pub fn sent(&self, path: usize, is_sent: bool) {
        if let Some(path) = self.paths.get(path) {
            let count = if is_sent { &path.sent } else { &path.send_failures };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The sequence of the last signed advert that was accepted on a path.
    pub fn floor(&self, path: usize, floor: u64) {
        if let Some(path) = self.paths.get(path) {
            path.floor.store(floor, Ordering::Relaxed);
        }
    }

    /// Keeps what the peer said. The heartbeat does not wait for whoever reads just now: the next hello says it again.
    pub fn keep(&self, hello: &Hello) {
        if let Ok(mut kept) = self.hello.try_lock() {
            *kept = Some((*hello, Instant::now()));
        }
    }

    /// What the peer last said, and how long ago.
    pub fn last_hello(&self) -> Option<(Hello, Duration)> {
        let kept = *self.hello.lock().ok()?;
        kept.map(|(hello, at)| (hello, at.elapsed()))
    }

    /// Priority, interval in milliseconds and age in milliseconds of the last valid advert.
    pub fn last_advert(&self) -> Option<(u8, u64, u64)> {
        let last = self.last_heard.load(Ordering::Relaxed);
        (last != 0).then(|| (last.to_le_bytes()[0], last >> 8, self.age_ms(&self.last_heard_at_ms)))
    }

    /// Time since `at_ms` in milliseconds.
    pub fn age_ms(&self, at_ms: &AtomicU64) -> u64 {
        millis(self.epoch.elapsed()).saturating_sub(at_ms.load(Ordering::Relaxed))
    }

    /// Which of the paths, by bit, the peer was heard on within `recently`.
    pub fn heard_paths(&self, recently: Duration) -> u8 {
        let is_heard = |path: &PathCounters| {
            path.last_heard_at_ms.load(Ordering::Relaxed) != 0
                && self.age_ms(&path.last_heard_at_ms) <= millis(recently)
        };
        let heard = self.paths.iter().take(8).enumerate().filter(|(_, path)| is_heard(path));
        heard.fold(0, |bits, (index, _)| bits | 1 << index)
    }
}

impl PathCounters {
    /// All zero.
    pub fn new(name: String, is_link: bool) -> Self {
        let [sent, received, send_failures, last_heard_at_ms, floor] = [const { AtomicU64::new(0) }; 5];
        Self { name, is_link, sent, received, send_failures, last_heard_at_ms, floor }
    }
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A path as it is shown.
pub fn path_status(counters: &VipCounters, path: &PathCounters) -> PathStatus {
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    PathStatus {
        name: path.name.clone(),
        is_link: path.is_link,
        sent: count(&path.sent),
        received: count(&path.received),
        send_failures: count(&path.send_failures),
        last_heard_ms: (count(&path.last_heard_at_ms) != 0).then(|| counters.age_ms(&path.last_heard_at_ms)),
    }
}

/// Time since anything valid of the peer came, on any path.
pub fn last_heard_ms(counters: &VipCounters) -> Option<u64> {
    counters.paths.iter().filter_map(|path| path_status(counters, path).last_heard_ms).min()
}
