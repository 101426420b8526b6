//! What a worker takes on at all, over all its listeners: requests under way, and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::refusals::Reason;
use super::state::Site;
use super::timers::Patience;
use crate::config::WorkerLimits;
use crate::limit::pressure::Pressure;
use crate::status::LoadStatus;

/// What a request takes of memory when its response begins, beside what it has before. Without it, as many requests could be taken
/// while servers are slow as have no room once these answer.
const RESPONSE_BYTES: u64 = 32 * 1024;

/// How busy a worker is, as far as there are limits.
pub struct Load {
    limits: WorkerLimits,
    now: Arc<Now>,
}

/// How busy it is, whatever the limits.
#[derive(Default)]
struct Now {
    /// Requests under way; counted where there is a limit.
    requests: AtomicU64,
    /// Those whose response has not begun; counted where there is a limit on memory.
    awaited: AtomicU64,
    /// Bytes of memory at the last look.
    memory: AtomicU64,
    pressure: AtomicU8,
    patience: Arc<Patience>,
    /// Connections that the limit on open files allows; 0 while that is not known.
    by_open_files: AtomicU64,
}

/// A request under way, counted until it is dropped.
pub struct UnderWay(Arc<Site>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.load.now.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response for which memory is set aside, until this is dropped.
pub struct Awaited(Arc<Site>);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.load.now.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Load {
    /// Of a worker that does nothing yet.
    pub fn new(limits: WorkerLimits) -> Self {
        Self { limits, now: Arc::default() }
    }

    /// Of the same worker, with other limits.
    pub fn with_limits(&self, limits: WorkerLimits) -> Self {
        Self { limits, now: Arc::clone(&self.now) }
    }

    /// The most memory that the worker may have, where there is a limit.
    pub fn memory_max(&self) -> Option<u64> {
        self.limits.memory_max
    }

    /// This thread's share of the connections of all listeners. The kernel spreads them evenly over threads.
    pub fn connection_share(&self, threads: usize) -> usize {
        let configured = self.limits.connections_max.map_or(u64::MAX, u64::from);
        let max = usize::try_from(configured.min(self.allowed_by_open_files())).unwrap_or(usize::MAX);
        if max == usize::MAX { max } else { max.div_ceil(threads.max(1)).max(1) }
    }

    /// Has no more connections be taken than this, which is what the limit on open files allows.
    pub fn bound_by_open_files(&self, connections: u64) {
        self.now.by_open_files.store(connections, Ordering::Relaxed);
    }

    fn allowed_by_open_files(&self) -> u64 {
        let connections = self.now.by_open_files.load(Ordering::Relaxed);
        if connections == 0 { u64::MAX } else { connections }
    }

    /// How long clients may take nothing while memory is short.
    pub fn patience(&self) -> &Arc<Patience> {
        &self.now.patience
    }

    /// Takes a look at the memory. Gives the pressure before and after it.
    pub fn measured(&self, bytes: u64) -> (Pressure, Pressure) {
        let before = self.pressure();
        let after = self.limits.memory_max.map_or(Pressure::None, |max| before.after(bytes, max));
        self.now.memory.store(bytes, Ordering::Relaxed);
        self.now.pressure.store(after as u8, Ordering::Relaxed);
        (before, after)
    }

    /// How much is taken on.
    pub fn pressure(&self) -> Pressure {
        let pressure = self.now.pressure.load(Ordering::Relaxed);
        let known = [Pressure::Shedding, Pressure::Closed].into_iter().find(|known| *known as u8 == pressure);
        known.unwrap_or_default()
    }

    /// Whether memory is short: what is under way goes on, and nothing is kept that need not be.
    pub fn is_short(&self) -> bool {
        self.limits.memory_max.is_some() && self.pressure() != Pressure::None
    }

    /// Whether no connections are taken for now.
    pub fn is_closed(&self) -> bool {
        self.pressure() == Pressure::Closed
    }

    /// How it is, but for what follows from the limit on open files.
    fn status(&self) -> LoadStatus {
        LoadStatus {
            pressure: self.pressure().as_str().to_owned(),
            memory_bytes: self.now.memory.load(Ordering::Relaxed),
            memory_bytes_max: self.limits.memory_max,
            requests: self.now.requests.load(Ordering::Relaxed),
            requests_max: self.limits.requests_max.map(u64::from),
            connections_max: self.limits.connections_max.map(u64::from),
            connections_max_by_open_files: None,
        }
    }
}

impl Site {
    /// Begins a request: `Ok(None)` where nobody counts them.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn begin_request(self: &Arc<Self>) -> Result<Option<UnderWay>, Reason> {
        let load = &self.load;
        if load.is_short() {
            return Err(Reason::Memory);
        }
        let Some(max) = load.limits.requests_max else { return Ok(None) };
        // Counted first, so that no two threads take the last place both.
        let under_way = UnderWay(Arc::clone(self));
        let before = load.now.requests.fetch_add(1, Ordering::Relaxed);
        if before < u64::from(max) { Ok(Some(under_way)) } else { Err(Reason::RequestsMax) }
    }

    /// Sets memory aside for the response to a request: `Ok(None)` where there is no limit on it.
    ///
    /// # Errors
    /// There is none left by the last look.
    pub fn await_response(self: &Arc<Self>) -> Result<Option<Awaited>, Reason> {
        let load = &self.load;
        let Some(max) = load.limits.memory_max else { return Ok(None) };
        let room = max.saturating_sub(load.now.memory.load(Ordering::Relaxed));
        let awaited = Awaited(Arc::clone(self));
        let before = load.now.awaited.fetch_add(1, Ordering::Relaxed);
        if before < room / RESPONSE_BYTES { Ok(Some(awaited)) } else { Err(Reason::Memory) }
    }

    /// Client connections that the configuration lets in.
    pub fn connections_max(&self) -> u64 {
        let of_listeners = self.listeners.iter().map(|listener| u64::from(listener.config.connections_max)).sum();
        self.load.limits.connections_max.map_or(of_listeners, |max| u64::from(max).min(of_listeners))
    }

    /// Client connections that the limit on open files lets in, where that is fewer.
    pub fn connections_by_open_files(&self) -> Option<u64> {
        Some(self.load.allowed_by_open_files()).filter(|allowed| *allowed < self.connections_max())
    }

    /// How much is taken on.
    pub fn load_status(&self) -> LoadStatus {
        LoadStatus { connections_max_by_open_files: self.connections_by_open_files(), ..self.load.status() }
    }
}
