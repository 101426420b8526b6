//! A pair of nodes, servers and a client in network namespaces, for rehearsals: `baton demo`, drills and the tests.
//!
//! Everything here is real: the kernel's own bridge and cables, the program's own processes, TCP connections over them.
//! It needs the kernel and nothing else, no `ip`, no root. Calls block; what needs a runtime makes one on a thread of its own.
//!
//! | file | what it holds |
//! |---|---|
//! | [`namespace`] | entering namespaces of our own, one network namespace for each machine |
//! | [`forbidden`] | which setting of the machine forbids that |
//! | [`topology`] | switch, cables, addresses |
//! | [`web`] | the servers behind the pair |
//! | [`ledger`] | what clients saw, and the figures drawn from it |
//! | [`client`] | where clients ask, and why one got no answer |
//! | [`load`] | the clients |
//! | [`journal`] | every request, in a file |
//! | [`process`] | child processes that cannot outlive us |
//! | [`node`] | one node: start, stop, kill, hang, ask |
//! | [`pair`] | all of it together |

pub mod client;
pub mod forbidden;
pub mod journal;
pub mod ledger;
pub mod load;
pub mod namespace;
pub mod node;
pub mod pair;
pub mod process;
pub mod topology;
pub mod web;

mod netlink;
mod streams;
mod websocket;

use std::io;
use std::time::{Duration, Instant};

/// How often a condition is looked at while it is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Why the lab could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel refused.
    #[error("failed to {doing}: {source}")]
    System {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a request over netlink.
    #[error("failed to {doing}: {reason}")]
    Netlink {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        reason: String,
    },
    /// There is no such machine in the lab.
    #[error("there is no machine `{0}` in the lab")]
    NoSuchHost(String),
    /// A condition that was waited for did not come.
    #[error("waited {} ms in vain: {what}", .within.as_millis())]
    TimedOut {
        /// The condition.
        what: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// A process is not running, or has ended when it should not have.
    #[error("{name}: {state}")]
    Process {
        /// The process.
        name: String,
        /// What is the matter with it.
        state: String,
    },
    /// A node answered its control socket with an error, or with something else than an answer.
    #[error("{node} gave no status: {reason}")]
    Status {
        /// The node.
        node: String,
        /// What it said.
        reason: String,
    },
}

impl LabError {
    /// For `map_err` on a system call: `failed to DOING: REASON`.
    pub(crate) fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> LabError {
        let doing = doing.into();
        move |source| LabError::System { doing, source: source.into() }
    }
}

/// Looks at `condition` every few milliseconds until it gives a value.
///
/// # Errors
/// [`LabError::TimedOut`] with `what` when `within` has passed; the condition is looked at once more at the end.
pub fn wait_for<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T, LabError> {
    let deadline = Instant::now() + within;
    loop {
        let late = Instant::now() >= deadline;
        if let Some(value) = condition() {
            return Ok(value);
        }
        if late {
            return Err(LabError::TimedOut { what: what.to_owned(), within });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
