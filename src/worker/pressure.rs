//! Looks at the memory of the worker, and says in the log what is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::config::bytes_text;
use crate::limit::pressure::Pressure as Level;
use crate::net::memory::{self, Resident};
use crate::proxy::counters::Counters;
use crate::proxy::refusals;
use crate::proxy::state::Site;

/// Time between two looks. What clients can make the worker take meanwhile is far below a tenth of any limit.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Time between two lines of the log on the same thing.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Looks between two looks at what was refused.
const TURNS_PER_SECOND: u32 = 10;

/// Looks after which a part of the start is over: first the files have been read, then the peer has been met and servers have
/// been looked at.
const START_TURNS: [u32; 2] = [1, 100];

/// What the looks remember.
pub struct Pressure {
    resident: Option<Resident>,
    turns: u32,
    /// When the memory was in the log last.
    logged: Option<Instant>,
    given_back: Option<Instant>,
    /// What was refused at each listener, by the reason, when it was in the log last.
    refused: Vec<Vec<(u64, Option<Instant>)>>,
}

impl Pressure {
    /// Before the first look.
    pub fn new(site: &Site) -> Self {
        let resident = site.load.memory_max().and_then(|_| {
            let resident = Resident::open();
            let failed = |error: &std::io::Error| warn!(%error, "memory_max is of no effect: the memory is not known");
            resident.inspect_err(failed).ok()
        });
        let refused = site.listeners.iter().map(|_| Vec::new()).collect();
        Self { resident, turns: 0, logged: None, given_back: None, refused }
    }

    /// Takes a look.
    pub fn turn(&mut self, site: &Site, threads: &[Arc<Counters>]) {
        self.look_at_memory(site);
        self.turns += 1;
        if START_TURNS.contains(&self.turns) {
            memory::shed_start();
        }
        if self.turns.is_multiple_of(TURNS_PER_SECOND) {
            self.tell_refusals(site, threads);
        }
    }

    fn look_at_memory(&mut self, site: &Site) {
        let Some(bytes) = self.resident.as_ref().and_then(|resident| resident.bytes().ok()) else { return };
        let (before, after) = site.load.measured(bytes);
        let now = Instant::now();
        if after != Level::None && is_due(self.given_back, now, Duration::from_secs(1)) {
            // What was freed since may be all that it takes. It is done while others wait for nothing here.
            self.given_back = Some(now);
            memory::give_back();
        }
        if after == before || !is_due(self.logged, now, LOG_INTERVAL) && after < before {
            return;
        }
        let max = site.load.memory_max().map(bytes_text).unwrap_or_default();
        match after {
            Level::None => info!(bytes, max, "the worker has memory again and takes requests"),
            Level::Shedding | Level::Closed if is_due(self.logged, now, LOG_INTERVAL) => {
                self.logged = Some(now);
                warn!(
                    bytes,
                    max,
                    "the worker is short of memory and answers requests with 503: raise memory_max or lower connections_max"
                );
            }
            Level::Shedding | Level::Closed => {}
        }
    }

    fn tell_refusals(&mut self, site: &Site, threads: &[Arc<Counters>]) {
        let now = Instant::now();
        for (index, (listener, told)) in site.listeners.iter().zip(&mut self.refused).enumerate() {
            let counts = refusals::at_listener(threads, index);
            told.resize(counts.len(), (0, None));
            for ((reason, count), (known, at)) in counts.iter().zip(told) {
                let more = count.saturating_sub(*known);
                if more > 0 && is_due(*at, now, LOG_INTERVAL) {
                    (*known, *at) = (*count, Some(now));
                    warn!(listener = listener.config.name, reason, count = more, "clients were over a limit");
                }
            }
        }
    }
}

fn is_due(last: Option<Instant>, now: Instant, interval: Duration) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) >= interval)
}
