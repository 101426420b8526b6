//! The pair of the lab as the site of a drill.

use std::time::{Duration, Instant};

use crate::config::scenario::EventKind;
use crate::lab::node::Node;
use crate::lab::pair::{NODES, Pair};

use super::Halt;
use super::site::{Blow, Job, Sighting, Site};

/// Time for a node to leave after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A pair in network namespaces. Servers, power and releases are nothing that it could lose.
#[derive(Debug)]
pub struct Rehearsal {
    /// The pair.
    pub pair: Pair,
}

impl Rehearsal {
    fn node(&mut self, blow: &Blow) -> Result<&mut Node, Halt> {
        Ok(self.pair.node_mut(&blow.name)?)
    }
}

impl Site for Rehearsal {
    fn nodes(&self) -> [String; 2] {
        NODES.map(str::to_owned)
    }

    fn look(&mut self) -> [Sighting; 2] {
        let holders = self.pair.holders().unwrap_or_default();
        let [first, second] = self.pair.statuses();
        let [first_name, second_name] = NODES;
        let sighting = |name: &str, status| {
            let carries = Some(holders.iter().any(|holder| holder == name));
            Sighting { at: Instant::now(), status, carries, trouble: None }
        };
        [sighting(first_name, first), sighting(second_name, second)]
    }

    fn strike(&mut self, blow: &Blow, _within: Duration) -> Result<Job, Halt> {
        match blow.kind {
            EventKind::WorkerKilled => self.node(blow)?.kill_worker()?,
            EventKind::LinkCut => self.pair.topology().cut_cable(&blow.name)?,
            EventKind::GuardKilled => self.node(blow)?.kill_guard()?,
            EventKind::NodeStopped => self.node(blow)?.ask_to_stop()?,
            EventKind::WorkerHung => self.node(blow)?.hang_worker()?,
            EventKind::Switchover
            | EventKind::NodeRebooted
            | EventKind::PowerCut
            | EventKind::ServerKilled
            | EventKind::Reload
            | EventKind::Upgrade => {
                return Err(Halt::Failed(format!("{} cannot be played in namespaces", blow.kind.title())));
            }
        }
        Ok(Job::done())
    }

    fn is_over(&mut self, blow: &Blow) -> Result<bool, Halt> {
        if blow.kind != EventKind::NodeStopped {
            return Ok(true);
        }
        match self.node(blow)?.exit_status()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => Err(Halt::Failed(format!("{}: stopped with {status} and not 0", blow.name))),
        }
    }

    fn mend(&mut self, blow: &Blow) -> Result<Job, Halt> {
        match blow.kind {
            EventKind::LinkCut => self.pair.topology().restore_cable(&blow.name)?,
            EventKind::GuardKilled if self.node(blow)?.guard_pid().is_none() => self.node(blow)?.start()?,
            EventKind::NodeStopped if self.node(blow)?.guard_pid().is_some() => {
                self.node(blow)?.wait_stopped(STOP_TIMEOUT)?;
                self.node(blow)?.start()?;
            }
            EventKind::WorkerHung => self.node(blow)?.wake_worker(),
            _ => {}
        }
        Ok(Job::done())
    }

    fn inspect(&mut self) -> Result<(), Halt> {
        match self.pair.first_ended()? {
            Some((name, status)) => Err(Halt::Failed(format!("{name}: ended ({status}) without being asked to"))),
            None => Ok(()),
        }
    }
}
