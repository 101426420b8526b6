//! The five ways in which the active node is lost, and what makes each good again.

use std::time::Duration;

use crate::lab::LabError;
use crate::lab::pair::Pair;

/// Time for a node to leave after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens to the active node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Its worker is killed.
    WorkerKilled,
    /// Its cable is pulled.
    LinkCut,
    /// Its guard is killed.
    GuardKilled,
    /// It is stopped as an operator stops it.
    CleanStop,
    /// Its worker neither works nor ends.
    WorkerHung,
}

impl Event {
    /// In the order in which they are played.
    pub(super) const ALL: [Event; 5] =
        [Event::WorkerKilled, Event::LinkCut, Event::GuardKilled, Event::CleanStop, Event::WorkerHung];

    /// Its name in the table.
    pub(super) fn title(self) -> &'static str {
        match self {
            Event::WorkerKilled => "worker killed",
            Event::LinkCut => "link cut",
            Event::GuardKilled => "guard killed",
            Event::CleanStop => "clean stop",
            Event::WorkerHung => "worker hung",
        }
    }

    /// What is done to `node`, in a sentence.
    pub(super) fn story(self, node: &str) -> String {
        match self {
            Event::WorkerKilled => format!("kill -9 the worker of {node}"),
            Event::LinkCut => format!("pull the cable of {node}, and plug it in again later"),
            Event::GuardKilled => format!("kill -9 the guard of {node}, and start it again"),
            Event::CleanStop => format!("stop {node} (SIGTERM), and start it again"),
            Event::WorkerHung => format!("hang the worker of {node} (SIGSTOP)"),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done, which is a failure of the demo: the node was healthy a moment ago.
    pub(super) fn strike(self, pair: &mut Pair, node: &str) -> Result<(), LabError> {
        match self {
            Event::WorkerKilled => pair.node(node)?.kill_worker(),
            Event::LinkCut => pair.topology().cut_cable(node),
            Event::GuardKilled => pair.node_mut(node)?.kill_guard(),
            Event::CleanStop => pair.node_mut(node)?.ask_to_stop(),
            Event::WorkerHung => pair.node_mut(node)?.hang_worker(),
        }
    }

    /// What [`Event::is_over`] waits for, in words.
    pub(super) fn end_awaited(self) -> &'static str {
        match self {
            Event::CleanStop => "the stopped node to end with status 0",
            Event::LinkCut | Event::WorkerHung => "the lost node to give the VIP up",
            Event::WorkerKilled | Event::GuardKilled => "the event to be over",
        }
    }

    /// Whether the node has done its own part: ended when asked to, or given the VIP up while it still can.
    ///
    /// # Errors
    /// When it ended otherwise than it should.
    pub(super) fn is_over(self, pair: &mut Pair, node: &str) -> Result<bool, LabError> {
        match self {
            Event::CleanStop => match pair.node_mut(node)?.exit_status()? {
                None => Ok(false),
                Some(status) if status.success() => Ok(true),
                Some(status) => {
                    Err(LabError::Process { name: node.to_owned(), state: format!("stopped with {status} and not 0") })
                }
            },
            Event::LinkCut | Event::WorkerHung => Ok(!pair.holders()?.iter().any(|holder| holder == node)),
            // A killed guard leaves its VIP behind until it is started again; a killed worker is back in no time.
            Event::WorkerKilled | Event::GuardKilled => Ok(true),
        }
    }

    /// Takes the cause away, as an operator or the service manager would.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(super) fn repair(self, pair: &mut Pair, node: &str) -> Result<(), LabError> {
        match self {
            Event::WorkerKilled => Ok(()),
            Event::LinkCut => pair.topology().restore_cable(node),
            Event::GuardKilled => pair.node_mut(node)?.start(),
            Event::CleanStop => {
                pair.node_mut(node)?.wait_stopped(STOP_TIMEOUT)?;
                pair.node_mut(node)?.start()
            }
            Event::WorkerHung => {
                pair.node_mut(node)?.wake_worker();
                Ok(())
            }
        }
    }
}
