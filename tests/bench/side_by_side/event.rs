//! How the active node is lost, or made to hand over.

use std::fmt;
use std::str::FromStr;

/// What is done to the active node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Every process killed, and the cable without carrier: a power cut.
    NodeGone,
    /// The load balancer's process killed.
    WorkerKilled,
    /// The load balancer's process stopped in its tracks.
    WorkerHung,
    /// The process that sends adverts killed, and no other.
    GuardKilled,
    /// The processes of the heartbeat stopped in their tracks.
    GuardHung,
    /// No carrier, as the switch made it.
    LinkCutAtSwitch,
    /// The interface taken down on the node.
    LinkCutAtNode,
    /// Nothing passes, and the carrier stays.
    BlackHole,
    /// SIGTERM.
    Stopped,
    /// `baton switchover`; for keepalived a lower priority, by a tracked file.
    Switchover,
}

impl Event {
    pub const ALL: [Event; 10] = [
        Event::NodeGone,
        Event::WorkerKilled,
        Event::WorkerHung,
        Event::GuardKilled,
        Event::GuardHung,
        Event::LinkCutAtSwitch,
        Event::LinkCutAtNode,
        Event::BlackHole,
        Event::Stopped,
        Event::Switchover,
    ];

    /// The two ways of a planned hand-over.
    pub const PLANNED: [Event; 2] = [Event::Stopped, Event::Switchover];

    /// The name on the command line and in the raw figures.
    pub fn name(self) -> &'static str {
        match self {
            Event::NodeGone => "node-gone",
            Event::WorkerKilled => "worker-killed",
            Event::WorkerHung => "worker-hung",
            Event::GuardKilled => "guard-killed",
            Event::GuardHung => "guard-hung",
            Event::LinkCutAtSwitch => "link-cut-at-switch",
            Event::LinkCutAtNode => "link-cut-at-node",
            Event::BlackHole => "black-hole",
            Event::Stopped => "stopped",
            Event::Switchover => "switchover",
        }
    }

    /// The name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Event::NodeGone => "node gone",
            Event::WorkerKilled => "worker killed",
            Event::WorkerHung => "worker hung",
            Event::GuardKilled => "guard killed",
            Event::GuardHung => "guard hung",
            Event::LinkCutAtSwitch => "link cut at the switch",
            Event::LinkCutAtNode => "link cut at the node",
            Event::BlackHole => "black hole",
            Event::Stopped => "planned: SIGTERM",
            Event::Switchover => "planned: switchover",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Event::ALL.map(Event::name).join(", ");
        Event::ALL.into_iter().find(|event| event.name() == name).ok_or_else(|| format!("known events: {}", known()))
    }
}
