//! Looks at the memory of the worker, and says in the log what is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::config::bytes_text;
use crate::limit::pressure::{self, Pressure as Level};
use crate::net::memory::{self, Resident};
use crate::proxy::counters::Counters;
use crate::proxy::refusals;
use crate::proxy::state::Site;

/// Time between two looks. What may come meanwhile is bounded by what servers send: once memory is short, nothing is read from
/// them for clients that have yet to take what is there.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Time between two lines of the log on the same thing.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Time between two times that memory is given back while it is short.
const GIVE_BACK_INTERVAL: Duration = Duration::from_millis(250);

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
    /// Looks since memory is short.
    short_looks: u32,
    /// Clients that had been cut off when that was in the log last.
    cut_off: (u64, Option<Instant>),
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
        Self { resident, turns: 0, logged: None, given_back: None, short_looks: 0, cut_off: (0, None), refused }
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
        self.short_looks = if after == Level::None { 0 } else { self.short_looks.saturating_add(1) };
        let patience = self.short_looks.checked_sub(1).map(pressure::patience);
        site.load.patience().set(patience);
        self.tell_cut_off(site, now);
        if after != Level::None && is_due(self.given_back, now, GIVE_BACK_INTERVAL) {
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

    fn tell_cut_off(&mut self, site: &Site, now: Instant) {
        let (known, at) = &mut self.cut_off;
        let count = site.load.patience().cut_off();
        let more = count.saturating_sub(*known);
        if more > 0 && is_due(*at, now, LOG_INTERVAL) {
            (*known, *at) = (count, Some(now));
            warn!(
                count = more,
                "clients that took nothing of their responses were cut off: the worker is short of memory"
            );
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
