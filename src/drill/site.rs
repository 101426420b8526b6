//! What a drill needs of a pair, wherever it is.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::scenario::EventKind;
use crate::status::{NodeStatus, Role, VipStatus};

use super::Halt;

/// A pair that can be struck.
pub trait Site {
    /// The names of both nodes.
    fn nodes(&self) -> [String; 2];

    /// How both are, at the latest look.
    fn look(&mut self) -> [Sighting; 2];

    /// Begins to do to a node, or to a server, what the event is. It fails when it takes longer than `within`.
    ///
    /// # Errors
    /// When it cannot be done.
    fn strike(&mut self, blow: &Blow, within: Duration) -> Result<Job, Halt>;

    /// Whether the node that was struck has done its own part.
    ///
    /// # Errors
    /// When it did something else.
    fn is_over(&mut self, blow: &Blow) -> Result<bool, Halt>;

    /// Begins to take the cause away, as an operator or the service manager would.
    ///
    /// # Errors
    /// When that cannot be done.
    fn mend(&mut self, blow: &Blow) -> Result<Job, Halt>;

    /// Finds what has ended by itself and should not have.
    ///
    /// # Errors
    /// That.
    fn inspect(&mut self) -> Result<(), Halt>;
}

/// Something that is done to the pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blow {
    /// What.
    pub kind: EventKind,
    /// To which node: 0 or 1.
    pub node: usize,
    /// The name of that node, or of the server that is struck instead.
    pub name: String,
}

impl Blow {
    /// What is done, in a sentence.
    pub fn story(&self) -> String {
        let name = &self.name;
        match self.kind {
            EventKind::Switchover => format!("move the VIP away from {name}, as planned"),
            EventKind::WorkerKilled => format!("kill -9 the worker of {name}"),
            EventKind::WorkerHung => format!("hang the worker of {name} (SIGSTOP)"),
            EventKind::GuardKilled => format!("kill -9 the guard of {name}, and start it again"),
            EventKind::NodeStopped => format!("stop {name} (SIGTERM), and start it again"),
            EventKind::LinkCut => format!("pull the cable of {name}, and plug it in again later"),
            EventKind::NodeRebooted => format!("reboot {name}"),
            EventKind::PowerCut => format!("cut the power of {name}, and give it back later"),
            EventKind::ServerKilled => format!("kill the server {name}, and start it again"),
            EventKind::Reload => "have both nodes read their configuration again".to_owned(),
            EventKind::Upgrade => "upgrade both nodes, the standby first".to_owned(),
        }
    }
}

/// How a node was when it was looked at.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// When.
    pub at: Instant,
    /// What it said; `None` when it did not answer.
    pub status: Option<NodeStatus>,
    /// Whether its kernel carries the VIP; `None` when nobody can tell.
    pub carries: Option<bool>,
    /// Why it did not answer, where that is known.
    pub trouble: Option<String>,
}

impl Sighting {
    /// The drilled VIP in its status: the one of that name, or the first.
    pub fn vip(&self, name: Option<&str>) -> Option<&VipStatus> {
        let vips = &self.status.as_ref()?.vips;
        match name {
            Some(name) => vips.iter().find(|vip| vip.name == name),
            None => vips.first(),
        }
    }

    /// Whether it holds the VIP: by what its kernel says, or else by its own word.
    pub fn holds(&self, vip: Option<&str>) -> bool {
        self.carries.unwrap_or_else(|| self.vip(vip).is_some_and(|vip| vip.role == Role::Active))
    }
}

/// What shows that a scenario with these nodes and this VIP is not about the nodes that answered; `None` while nothing does.
/// Struck would be something else than was meant, and reported under the wrong name.
pub fn mistaken(nodes: &[String; 2], vip: Option<&str>, sightings: &[Sighting; 2]) -> Option<String> {
    let [first, second] = sightings.each_ref().map(|sighting| sighting.status.as_ref());
    let [first_name, second_name] = nodes;
    if let (Some(one), Some(other)) = (first, second)
        && one.node == other.node
    {
        return Some(format!(
            "`reach` of [[node]] {first_name} and of [[node]] {second_name} lead to the same node, {}: correct one of them",
            one.node
        ));
    }
    let found = || [(first_name, second_name, first), (second_name, first_name, second)].into_iter();
    let found = || found().filter_map(|(name, other, status)| Some((name, other, status?)));
    if let Some((name, _, status)) = found().find(|(name, _, status)| status.node != **name) {
        let is = &status.node;
        return Some(format!(
            "the node that `reach` of [[node]] {name} leads to says that it is {is}: correct `reach`, or write name = \"{is}\""
        ));
    }
    let peer_of = |status: &NodeStatus| status.peer.as_ref().map(|peer| peer.node.clone());
    for (name, other, status) in found() {
        if let Some(peer) = peer_of(status).filter(|peer| peer != other) {
            return Some(format!("{name} says that its peer is {peer}, not {other}: name both nodes of one pair"));
        }
    }
    let vip = vip?;
    let (name, _, status) = found().find(|(_, _, status)| !status.vips.iter().any(|known| known.name == vip))?;
    let known: Vec<&str> = status.vips.iter().map(|vip| vip.name.as_str()).collect();
    // One that has none at all is not whole, which is said elsewhere.
    (!known.is_empty()).then(|| format!("{name} has no VIP {vip}: name one of {}", known.join(", ")))
}

/// Work that may take a while.
#[derive(Debug)]
pub struct Job(Receiver<Result<(), String>>);

impl Job {
    /// Done already.
    pub fn done() -> Self {
        let (sender, receiver) = sync_channel(1);
        let _ = sender.send(Ok(()));
        Self(receiver)
    }

    /// Begins it on a thread of its own.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn begin(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<Self, Halt> {
        let (sender, receiver) = sync_channel(1);
        let started = thread::Builder::new().name("drill job".to_owned()).spawn(move || {
            // Nobody waits any more for what took too long.
            let _ = sender.send(work());
        });
        started.map_err(|error| Halt::Failed(format!("failed to start a thread: {error}")))?;
        Ok(Self(receiver))
    }

    /// Whether it is done.
    ///
    /// # Errors
    /// When it has failed.
    pub fn is_done(&self) -> Result<bool, Halt> {
        match self.0.try_recv() {
            Ok(Ok(())) => Ok(true),
            Ok(Err(reason)) => Err(Halt::Failed(reason)),
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => Err(Halt::Failed("a job ended without a word".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::PeerStatus;

    fn vip(name: &str) -> VipStatus {
        VipStatus { name: name.to_owned(), ..VipStatus::default() }
    }

    fn seen(node: &str, peer: Option<&str>) -> Sighting {
        let mut status = samples::status(node, vec![vip("web"), vip("api")]);
        status.peer =
            peer.map(|node| PeerStatus { node: node.to_owned(), address: String::new(), last_heard_ms: None });
        Sighting { at: Instant::now(), status: Some(status), carries: None, trouble: None }
    }

    fn said(vip: Option<&str>, sightings: [Sighting; 2]) -> Option<String> {
        mistaken(&["lb-a", "lb-b"].map(str::to_owned), vip, &sightings)
    }

    #[test]
    fn nodes_and_vip_of_a_scenario_are_those_of_the_status() {
        let pair = || [seen("lb-a", Some("lb-b")), seen("lb-b", Some("lb-a"))];
        assert_eq!(said(None, pair()), None);
        assert_eq!(said(Some("api"), pair()), None);
        let unknown = said(Some("nope"), pair());
        assert_eq!(unknown.as_deref(), Some("lb-a has no VIP nope: name one of web, api"));
        let swapped = said(None, [seen("lb-b", None), seen("lb-a", None)]).unwrap();
        assert!(swapped.contains("[[node]] lb-a leads to says that it is lb-b: "), "{swapped}");
        let other = said(None, [seen("lb-a", None), seen("lb-x", None)]).unwrap();
        assert!(other.ends_with("or write name = \"lb-x\""), "{other}");
        let same = said(None, [seen("lb-a", None), seen("lb-a", None)]).unwrap();
        assert!(same.contains("lead to the same node, lb-a: "), "{same}");
        let strangers = said(None, [seen("lb-a", Some("lb-b")), seen("lb-b", Some("lb-c"))]).unwrap();
        assert!(strangers.starts_with("lb-b says that its peer is lb-c, not lb-a: "), "{strangers}");
    }

    #[test]
    fn node_that_does_not_answer_contradicts_nothing() {
        let silent = || Sighting { at: Instant::now(), status: None, carries: None, trouble: None };
        assert_eq!(said(Some("web"), [seen("lb-a", Some("lb-b")), silent()]), None);
        assert_eq!(said(Some("nope"), [silent(), silent()]), None);
        assert!(said(None, [silent(), seen("lb-a", None)]).is_some());
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// A node in good health.
    pub(crate) fn status(node: &str, vips: Vec<VipStatus>) -> NodeStatus {
        let status = serde_json::json!({
            "node": node, "version": "0.1.0", "config_checksum": "c0ffee", "guard_pid": 1,
            "vips": [], "peer": null, "listeners": [], "pools": [], "warnings": [],
            "worker": {"state": "running", "pid": 2, "restarts": 0, "last_exit": null, "threads": 1, "connections": 0, "requests": 0},
        });
        NodeStatus { vips, ..serde_json::from_value(status).unwrap() }
    }
}
