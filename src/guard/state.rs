//! What the guard knows of its node: the roles, the worker, the links. It decides here whether a VIP is fit, and makes
//! up the status from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::events::{Change, Events};
use super::heartbeat::{self, Command, VipCounters, millis};
use super::supervisor;
use crate::config::{Config, LocalNode};
use crate::link::Report;
use crate::net::netlink::Interface;
use crate::status::{HeardAdvert, ListenerStatus, NodeStatus, PeerStatus, Role, VipStatus, WorkerStatus};
use crate::units::Priority;
use crate::vrrp::machine::State;
use crate::vrrp::packet::DropReason;

/// What can keep a node from holding a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The worker does not serve.
    Worker,
    /// The interface has no carrier.
    Link,
    /// The addresses could not be put on the interface.
    Addresses,
    /// Adverts cannot be sent: the peer takes this node for dead, or is about to.
    Adverts,
}

/// A VIP, as the guard sees it.
pub struct Vip {
    /// This node's priority for it.
    pub priority: Priority,
    /// The state of its machine.
    pub state: State,
    /// What it counts.
    pub counters: Arc<VipCounters>,
    /// To its machine.
    pub commands: mpsc::Sender<Command>,
    /// The interface that its socket was opened on; another index under the same name is another interface.
    interface_index: u32,
    since: Instant,
    reason: String,
    transitions: u64,
    /// What keeps it from taking part; the machine is told of every change between none and some.
    faults: BTreeMap<Fault, String>,
}

impl Vip {
    /// A VIP that takes no part yet.
    pub fn new(
        priority: Priority,
        counters: Arc<VipCounters>,
        commands: mpsc::Sender<Command>,
        interface_index: u32,
    ) -> Self {
        let faults = BTreeMap::from([(Fault::Worker, "the worker is starting".to_owned())]);
        let (state, since, reason) = (State::Init, Instant::now(), "starting".to_owned());
        Self { priority, state, counters, commands, interface_index, since, reason, transitions: 0, faults }
    }

    fn add_fault(&mut self, fault: Fault, reason: String) {
        let was_fit = self.faults.is_empty();
        self.faults.insert(fault, reason.clone());
        if was_fit {
            self.tell(Command::Unfit(reason));
        }
    }

    fn clear_fault(&mut self, fault: Fault) {
        if self.faults.remove(&fault).is_some() && self.faults.is_empty() {
            self.tell(Command::Fit);
        }
    }

    /// The queue holds more changes than a heartbeat that lives can be behind; the watchdog sees to one that does not.
    fn tell(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            error!("the heartbeat takes no commands");
        }
    }
}

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
    fn as_str(self) -> &'static str {
        match self {
            WorkerState::Starting => "starting",
            WorkerState::Running => "running",
            WorkerState::Hung => "hung",
            WorkerState::Waiting => "waiting",
            WorkerState::Draining => "draining",
        }
    }
}

/// The node.
pub struct Node {
    /// The configuration in use.
    pub config: Config,
    /// Which node of it this is.
    pub local: LocalNode,
    /// In the order of the configuration.
    pub vips: Vec<Vip>,
    /// The worker.
    pub worker: WorkerState,
    /// What is less than it should be.
    pub warnings: Vec<String>,
    /// Who else is told of changes.
    pub events: Events,
    threads: usize,
    pid: Option<u32>,
    starts: u64,
    last_exit: Option<String>,
    report: Report,
}

impl Node {
    /// A node whose worker has not been started.
    pub fn new(config: Config, local: LocalNode, vips: Vec<Vip>, events: Events, warnings: Vec<String>) -> Self {
        let threads = config.worker.threads;
        Self {
            config,
            local,
            vips,
            worker: WorkerState::Starting,
            warnings,
            events,
            threads,
            pid: None,
            starts: 0,
            last_exit: None,
            report: Report::default(),
        }
    }

    /// Whether every VIP takes part, or is kept from it by something that waiting for us would not mend.
    pub fn is_settled(&self) -> bool {
        self.worker == WorkerState::Running
            && self.vips.iter().all(|vip| vip.state != State::Init || vip.faults.contains_key(&Fault::Link))
    }

    /// Takes what the supervisor says of the worker.
    pub fn worker_event(&mut self, event: supervisor::Event) {
        match event {
            supervisor::Event::Started { pid } => {
                info!(pid, "worker started");
                (self.worker, self.pid) = (WorkerState::Starting, Some(pid));
                self.starts += 1;
            }
            supervisor::Event::Ready => self.worker_serves(),
            supervisor::Event::Alive(report) => {
                self.report = report;
                if self.worker == WorkerState::Hung {
                    warn!("the worker answers again");
                    self.worker_serves();
                }
            }
            supervisor::Event::Hung(time) => {
                error!(for_ms = millis(time), "the worker does not answer");
                self.worker = WorkerState::Hung;
                self.worker_fails(&format!("the worker did not answer for {} ms", millis(time)));
            }
            supervisor::Event::Ended(reason) => {
                error!(reason, "the worker has ended");
                (self.worker, self.pid) = (WorkerState::Waiting, None);
                self.worker_fails(&format!("the worker has ended: {reason}"));
                self.last_exit = Some(reason);
                self.report = Report::default();
            }
            supervisor::Event::Drained => (self.worker, self.pid) = (WorkerState::Draining, None),
        }
    }

    fn worker_serves(&mut self) {
        self.worker = WorkerState::Running;
        self.vips.iter_mut().for_each(|vip| vip.clear_fault(Fault::Worker));
    }

    fn worker_fails(&mut self, reason: &str) {
        self.vips.iter_mut().for_each(|vip| vip.add_fault(Fault::Worker, reason.to_owned()));
    }

    /// Takes what the kernel says of an interface.
    pub fn interface_changed(&mut self, interface: &Interface) {
        for (vip, config) in self.vips.iter_mut().zip(&self.config.vips) {
            if config.interface != interface.name {
                continue;
            }
            if interface.index != 0 && interface.index != vip.interface_index {
                vip.interface_index = interface.index;
                vip.add_fault(Fault::Adverts, format!("interface {} was made anew", interface.name));
                vip.tell(Command::Reopen);
            }
            if interface.has_carrier {
                vip.clear_fault(Fault::Link);
            } else {
                vip.add_fault(Fault::Link, format!("interface {} has no carrier", interface.name));
            }
        }
    }

    /// The addresses of a VIP could not be put on its interface.
    pub fn acquire_failed(&mut self, vip: usize, reason: String) {
        if let Some(vip) = self.vips.get_mut(vip) {
            vip.add_fault(Fault::Addresses, reason);
        }
    }

    /// Lets VIPs try again whose addresses could not be put on their interface, or that could send no adverts.
    pub fn retry(&mut self) {
        for vip in &mut self.vips {
            vip.clear_fault(Fault::Addresses);
            if vip.faults.contains_key(&Fault::Adverts) {
                vip.tell(Command::Reopen);
            }
        }
    }

    /// Takes what the heartbeat says.
    pub fn heartbeat_event(&mut self, event: heartbeat::Event) {
        let name = |vip: usize| self.config.vips.get(vip).map_or("", |vip| vip.name.as_str());
        match event {
            heartbeat::Event::Changed { vip: index, from, to, reason } => {
                let reason = reason.to_string();
                let change = Change { vip: index, from: role(from), to: role(to), reason: reason.clone(), epoch: 0 };
                self.events.record(change);
                info!(vip = name(index), %from, %to, reason, "role changed");
                if let Some(vip) = self.vips.get_mut(index) {
                    (vip.state, vip.since, vip.reason) = (to, Instant::now(), reason);
                    vip.transitions += 1;
                }
            }
            heartbeat::Event::NotReleased { vip } => {
                error!(vip = name(vip), "the VIP could not be taken off in time; no resignation was sent");
            }
            heartbeat::Event::Mute { vip: index, error } => {
                let reason = format!("adverts cannot be sent: {error}");
                if self.vips.get(index).is_some_and(|vip| !vip.faults.contains_key(&Fault::Adverts)) {
                    error!(vip = name(index), reason, "the VIP is given up");
                }
                if let Some(vip) = self.vips.get_mut(index) {
                    vip.add_fault(Fault::Adverts, reason);
                }
            }
            heartbeat::Event::Reopened { vip: index } => {
                info!(vip = name(index), "adverts can be sent again");
                if let Some(vip) = self.vips.get_mut(index) {
                    vip.clear_fault(Fault::Adverts);
                }
            }
            heartbeat::Event::AddressesDiffer { vip } => warn!(
                vip = name(vip),
                "the peer's adverts list other addresses than this configuration: make the files on both nodes the same"
            ),
        }
    }

    /// How the node is.
    pub fn status(&self) -> NodeStatus {
        let vips = self.vips.iter().zip(&self.config.vips).map(|(vip, config)| self.vip_status(vip, config)).collect();
        let listeners = self.config.listeners.iter().map(|listener| ListenerStatus {
            name: listener.name.clone(),
            bind: listener.bind.clone(),
            protocol: if listener.tls.is_some() { "https" } else { "http" }.to_owned(),
        });
        NodeStatus {
            node: self.local.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_checksum: self.config.checksum.clone(),
            guard_pid: std::process::id(),
            vips,
            peer: self.peer_status(),
            worker: self.worker_status(),
            listeners: listeners.collect(),
            pools: self.report.pools.clone(),
            events: self.events.status(),
            warnings: self.warnings.iter().chain(&self.report.warnings).cloned().collect(),
        }
    }

    fn worker_status(&self) -> WorkerStatus {
        WorkerStatus {
            state: self.worker.as_str().to_owned(),
            pid: self.pid,
            restarts: self.starts.saturating_sub(1),
            last_exit: self.last_exit.clone(),
            threads: self.threads,
            connections: self.report.connections,
            requests: self.report.requests,
        }
    }

    fn peer(&self) -> Option<&crate::config::Node> {
        self.config.nodes.iter().enumerate().find(|(index, _)| Some(*index) != self.local.index).map(|(_, node)| node)
    }

    fn peer_status(&self) -> Option<PeerStatus> {
        let peer = self.peer()?;
        let last_heard_ms = self.vips.iter().filter_map(|vip| heard(&vip.counters)).map(|(_, _, age_ms)| age_ms).min();
        Some(PeerStatus { node: peer.name.clone(), address: peer.address.to_string(), last_heard_ms })
    }

    fn vip_status(&self, vip: &Vip, config: &crate::config::Vip) -> VipStatus {
        let counters = &vip.counters;
        let dropped = DropReason::ALL.iter().zip(&counters.dropped);
        let dropped = dropped.map(|(reason, count)| (reason.as_str().to_owned(), count.load(Ordering::Relaxed)));
        let address = self.peer().map_or(String::new(), |peer| peer.address.to_string());
        let heard = heard(counters).map(|(priority, advert_interval_ms, age_ms)| HeardAdvert {
            address,
            priority,
            advert_interval_ms,
            age_ms,
        });
        VipStatus {
            name: config.name.clone(),
            role: role(vip.state),
            since_ms: millis(vip.since.elapsed()),
            reason: vip.reason.clone(),
            faults: vip.faults.values().cloned().collect(),
            addresses: config.addresses.iter().map(|at| at.network.to_string()).collect(),
            interface: config.interface.clone(),
            virtual_router_id: config.virtual_router_id.get(),
            priority: vip.priority.get(),
            advert_interval_ms: millis(config.advert_interval.get()),
            transitions: vip.transitions,
            adverts_sent: counters.sent.load(Ordering::Relaxed),
            adverts_received: counters.received.load(Ordering::Relaxed),
            adverts_dropped: dropped.filter(|(_, count)| *count > 0).collect(),
            peer: heard,
        }
    }
}

/// The role that a state of the machine is to an operator.
pub fn role(state: State) -> Role {
    match state {
        State::Init => Role::Unfit,
        State::Backup => Role::Standby,
        State::Active => Role::Active,
    }
}

/// Priority, interval in milliseconds and age in milliseconds of the last valid advert.
fn heard(counters: &VipCounters) -> Option<(u8, u64, u64)> {
    let last = counters.last_heard.load(Ordering::Relaxed);
    let at = Duration::from_millis(counters.last_heard_at_ms.load(Ordering::Relaxed));
    let age_ms = millis(counters.epoch.elapsed().saturating_sub(at));
    (last != 0).then_some((last.to_le_bytes()[0], last >> 8, age_ms))
}
