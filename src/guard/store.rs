//! What a guard leaves for its successor on this machine: how far its signed adverts and those of the peer had counted,
//! and how many takeovers there were. Without it a clock that was set back, or a replayed advert, would be believed after
//! a restart.
//!
//! Written every few seconds and at a stop, to `adverts.json` in the state directory. Where it cannot be written the node
//! runs all the same, with a warning.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tracing::warn;

use super::counters::VipCounters;

/// Time between two writes.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// What the sequence may have grown by after the last write, in its own unit (2^-32 s): twice the time between writes.
const UNWRITTEN: u64 = 10 << 32;

const FILE: &str = "adverts.json";
/// Bytes of the file that are read: 64 VIPs with six paths take a hundredth of it.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Writes on a thread of its own, so that a disk that takes its time holds nobody up.
#[derive(Debug)]
pub struct Keeper {
    state_dir: PathBuf,
    under_way: Option<JoinHandle<io::Result<()>>>,
    has_warned: bool,
}

impl Keeper {
    /// One that writes to this directory.
    pub fn new(state_dir: PathBuf) -> Self {
        Self { state_dir, under_way: None, has_warned: false }
    }

    /// Begins to write, unless the last time has not ended yet. Needs a tokio runtime.
    pub fn write_soon(&mut self, memory: &Memory) {
        if let Some(under_way) = &mut self.under_way {
            let Some(ended) = under_way.now_or_never() else { return };
            self.judge(ended.unwrap_or_else(|error| Err(io::Error::other(error))));
        }
        let (memory, state_dir) = (memory.clone(), self.state_dir.clone());
        self.under_way = Some(tokio::task::spawn_blocking(move || memory.write(&state_dir)));
    }

    /// Writes for the last time, and waits for it.
    pub fn write_now(&mut self, memory: &Memory) {
        let ended = memory.write(&self.state_dir);
        self.judge(ended);
    }

    fn judge(&mut self, ended: io::Result<()>) {
        match ended {
            Ok(()) => self.has_warned = false,
            Err(error) if !std::mem::replace(&mut self.has_warned, true) => warn!(
                directory = %self.state_dir.display(),
                %error,
                "the sequence of signed adverts cannot be kept; a clock that is set back before the next start would \
                 have the peer refuse them for that long"
            ),
            Err(_) => {}
        }
    }
}

/// What was left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    vips: BTreeMap<String, VipMemory>,
}

/// What was left of one VIP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct VipMemory {
    epoch: u32,
    sequence: u64,
    floors: BTreeMap<String, u64>,
}

impl Memory {
    /// Reads what is there; nothing when there is no file.
    ///
    /// # Errors
    /// A file that cannot be read or is not ours.
    pub fn read(state_dir: &Path) -> io::Result<Self> {
        use std::io::Read as _;
        let file = match std::fs::File::open(path(state_dir)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(FILE_MAX_BYTES).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Writes it, in one step: a crash leaves the old file or the new one.
    ///
    /// # Errors
    /// What open(2), write(2) or rename(2) says.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let temporary = state_dir.join(".adverts.json.new");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&text)?;
        std::fs::rename(&temporary, path(state_dir))
    }

    /// Takes over what the heartbeat has counted.
    pub fn note(&mut self, vip: &str, epoch: u32, counters: &VipCounters) {
        let kept = self.vips.entry(vip.to_owned()).or_default();
        kept.epoch = kept.epoch.max(epoch);
        kept.sequence = kept.sequence.max(counters.sequence.load(Ordering::Relaxed));
        for path in &counters.paths {
            let floor = path.floor.load(Ordering::Relaxed);
            if floor != 0 {
                kept.floors.insert(path.name.clone(), floor);
            }
        }
    }

    /// Takeovers of a VIP.
    pub fn epoch(&self, vip: &str) -> u32 {
        self.vips.get(vip).map_or(0, |kept| kept.epoch)
    }

    /// What the sequence of a VIP's adverts has to be above. Nothing while the clock, which it follows, is past the last
    /// one; a receiver may refuse what is ahead of its own clock, so it is ahead only after the clock was set back.
    pub fn sequence(&self, vip: &str, since_epoch: Duration) -> u64 {
        let kept = self.vips.get(vip).map_or(0, |kept| kept.sequence);
        if since_epoch.as_secs() >= kept >> 32 { 0 } else { kept.saturating_add(UNWRITTEN) }
    }

    /// The last sequence of the peer on a path.
    pub fn floor(&self, vip: &str, path: &str) -> u64 {
        self.vips.get(vip).and_then(|kept| kept.floors.get(path)).copied().unwrap_or(0)
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::super::counters::PathCounters;
    use super::*;

    fn counters(sequence: u64, floor: u64) -> VipCounters {
        let counters = VipCounters::new(vec![PathCounters::new("vrrp ipv4 on eth0".to_owned(), false)]);
        counters.sequence.store(sequence, Ordering::Relaxed);
        counters.paths[0].floor.store(floor, Ordering::Relaxed);
        counters
    }

    #[test]
    fn what_was_written_is_read_again() {
        let directory = std::env::temp_dir().join(format!("baton-store-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(Memory::read(&directory).unwrap(), Memory::default());
        let mut memory = Memory::default();
        memory.note("web", 7, &counters(100 << 32, 90 << 32));
        memory.write(&directory).unwrap();
        let read = Memory::read(&directory).unwrap();
        assert_eq!(read, memory);
        assert_eq!((read.epoch("web"), read.floor("web", "vrrp ipv4 on eth0")), (7, 90 << 32));
        std::fs::write(directory.join("adverts.json"), "{").unwrap();
        assert_eq!(Memory::read(&directory).unwrap_err().kind(), io::ErrorKind::InvalidData);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_sequence_is_ahead_of_the_clock_only_when_that_was_set_back() {
        let mut memory = Memory::default();
        memory.note("web", 0, &counters(100 << 32, 0));
        assert_eq!(memory.sequence("web", Duration::from_secs(100)), 0);
        assert_eq!(memory.sequence("web", Duration::from_secs(99)), 110 << 32);
        assert_eq!(memory.sequence("other", Duration::from_secs(0)), 0);
    }
}
