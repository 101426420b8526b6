//! How the worker is, as the guard sees it.

/// The worker, as the guard sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Started, not serving yet.
    Starting,
    /// Serving.
    Running,
    /// Not answering.
    Hung,
    /// Ended; the next one is due.
    Waiting,
    /// Finishing its requests, because the node stops.
    Draining,
}

impl WorkerState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            WorkerState::Starting => "starting",
            WorkerState::Running => "running",
            WorkerState::Hung => "hung",
            WorkerState::Waiting => "waiting",
            WorkerState::Draining => "draining",
        }
    }
}
