//! What the guard knows of its node: the roles, the worker, the links. It decides here whether a VIP is fit, and makes
//! up the status from it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use super::addresses;
use super::administration::Administration;
use super::archive::Archive;
use super::counters::{VipCounters, millis, path_status};
use super::events::{self, Events};
use super::files;
use super::fitness::{Checks, Situation};
use super::heartbeat::{self, Command};
use super::leases;
use super::reload::Loaded;
use super::supervisor;
use super::supervisor::attention::Paced;
use super::supervisor::former::Leavers;
use super::switchover::Switchovers;
use crate::config::{Authentication, Config, LocalNode};
use crate::fitness::comparison::Seen;
use crate::fitness::listener::Load;
use crate::fitness::{self, Change, CheckId, Finding, Input, Subject};
use crate::link::{ListenerLoad, Report, ToWorker};
use crate::net::netlink::Interface;
use crate::status::{
    CertificateStatus, HeardAdvert, ListenerStatus, NodeStatus, PoolStatus, Role, SessionsStatus, SyncStatus,
    VerdictStatus, VipStatus, WorkerStatus,
};
use crate::units::Priority;
use crate::vrrp::machine::State;
use crate::vrrp::packet::DropReason;

mod legacy;
mod peer;
mod worker;

pub use self::legacy::VipLegacy;
pub use self::worker::WorkerState;

/// How another machine was found to have an address of a VIP as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Conflict {
    /// By the kernel, which then did not use it.
    Duplicate,
    /// It said so.
    Claimed,
}

/// Time between two times that the worker is told that VIPs have come here. Each begins an epoch of the sessions, of which
/// there are not so many, and many VIPs come one after the other when a peer is gone. The first begins one at once, before
/// anything is served; the last is sure to begin one as well, above whatever the peer wrote until it gave that VIP up.
const TOOK_OVER_INTERVAL: Duration = Duration::from_millis(100);

/// What a VIP waits for whose clients are asked to leave.
const LEAVING: &str = "for its HTTP clients to leave, as it is about to move to the peer";

/// How long a conflict over an address is spoken of in the status.
const NOTICE_KEPT: Duration = Duration::from_secs(60);

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
    /// Takeovers so far, by whichever node.
    pub epoch: u32,
    /// What its machine waits for, in words.
    pub waiting: Option<String>,
    /// What this node sees of the servers behind it.
    seen: Seen,
    /// What the peer says it sees, while that can be compared.
    seen_by_peer: Option<Seen>,
    /// The peer says that it cannot hold it.
    is_peer_unfit: bool,
    /// Addresses put back that somebody else had removed.
    restored: u64,
    /// Claims of other machines to its addresses that were answered.
    conflicts: u64,
    /// The last of each kind, in words.
    notices: BTreeMap<Conflict, (Instant, String)>,
}

impl Vip {
    /// A VIP that takes no part yet.
    pub fn new(
        priority: Priority,
        counters: Arc<VipCounters>,
        commands: mpsc::Sender<Command>,
        interface_index: u32,
    ) -> Self {
        let (state, since, reason) = (State::Init, Instant::now(), "starting".to_owned());
        Self {
            priority,
            state,
            counters,
            commands,
            interface_index,
            since,
            reason,
            transitions: 0,
            epoch: 0,
            waiting: None,
            seen: Seen::default(),
            seen_by_peer: None,
            is_peer_unfit: false,
            restored: 0,
            conflicts: 0,
            notices: BTreeMap::new(),
        }
    }

    fn notice_conflict(&mut self, conflict: Conflict, notice: String) {
        self.conflicts += 1;
        self.notices.insert(conflict, (Instant::now(), notice));
    }

    /// The queue holds more changes than a heartbeat that lives can be behind; the watchdog sees to one that does not.
    pub fn tell(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            error!("the heartbeat takes no commands");
        }
    }
}

/// The node.
pub struct Node {
    /// The configuration in use.
    pub config: Config,
    /// How it came to be in use.
    pub loaded: Loaded,
    /// Which node of it this is.
    pub local: LocalNode,
    /// In the order of the configuration.
    pub vips: Vec<Vip>,
    /// The worker.
    pub worker: WorkerState,
    /// What is less than it should be.
    pub warnings: Vec<String>,
    /// Files that are not as they are in use.
    pub file_warnings: Vec<String>,
    /// The certificates that the worker serves.
    certificates: Vec<CertificateStatus>,
    /// What is thought of everything that counts for a VIP.
    pub checks: Checks,
    /// What the looks at listeners depend on.
    situation: watch::Sender<Situation>,
    /// Who else is told of changes.
    pub events: Events,
    /// How the witness is, where there is one.
    pub witness: Option<Arc<leases::Health>>,
    /// Where sessions are kept, where a pool has any.
    pub archive: Option<Rc<Archive>>,
    /// What operators have said of servers, for the next worker; `None` where nothing is kept.
    pub administration: Option<Rc<Administration>>,
    /// To the worker; `None` before there is one.
    pub orders: Option<mpsc::Sender<ToWorker>>,
    /// That VIPs have come here, as the worker is to be told.
    took_over: Paced<()>,
    /// Whether the worker has what the peer has; `None` where there is nothing to sync.
    synced: Option<bool>,
    threads: usize,
    pid: Option<u32>,
    starts: u64,
    last_exit: Option<String>,
    report: Report,
    /// How often a guard has gone on for another one in this process.
    pub takeovers: u64,
    /// The first worker of this guard does not serve yet, and the one before does.
    is_taking_over: bool,
    /// Workers that finish.
    pub leavers: Leavers,
    /// Planned moves.
    pub switchovers: Switchovers,
}

impl Node {
    /// A node whose worker has not been started.
    pub fn new(config: Config, local: LocalNode, vips: Vec<Vip>, events: Events, warnings: Vec<String>) -> Self {
        let threads = config.worker.threads;
        let synced = config.sync_ends(&local.name).map(|_| false);
        Self {
            loaded: Loaded::now(),
            local,
            vips,
            worker: WorkerState::Starting,
            warnings,
            file_warnings: Vec::new(),
            certificates: Vec::new(),
            checks: Checks::new(&config),
            situation: watch::Sender::new(Situation::default()),
            events,
            witness: None,
            archive: None,
            administration: None,
            orders: None,
            took_over: Paced::new(tokio::time::Instant::now(), TOOK_OVER_INTERVAL),
            synced,
            threads,
            pid: None,
            starts: 0,
            last_exit: None,
            report: Report::default(),
            takeovers: 0,
            is_taking_over: false,
            leavers: Leavers::default(),
            switchovers: Switchovers::default(),
            config,
        }
    }

    /// What the looks at listeners depend on, as it changes.
    pub fn situation(&self) -> watch::Receiver<Situation> {
        self.situation.subscribe()
    }

    /// Takes something that bears on fitness, and tells the machines what follows from it.
    pub fn observe(&mut self, input: Input) {
        for change in self.checks.fitness.handle(Instant::now(), input) {
            match change {
                Change::Verdict(check) => self.log_verdict(check),
                Change::Fit { vip } => self.tell(vip, Command::Fit),
                Change::Unfit { vip, reason } => self.tell(vip, Command::Unfit(reason)),
                Change::PeerSeesMore { vip: index, reason } => {
                    let vip = self.config.vips.get(index).map_or("", |vip| vip.name.as_str());
                    info!(vip, reason, "the peer sees more servers and is to take over");
                    // How that goes is logged by what the machine does, or does not. Also to a peer that is not in sync: users
                    // who lose their server are better off than those who reach none.
                    let (reply, _) = oneshot::channel();
                    self.tell(index, Command::HandOver { force: true, reply });
                }
            }
        }
    }

    /// As [`Node::observe`], for what was found about a check.
    pub fn found(&mut self, check: CheckId, finding: Finding) {
        self.observe(Input::Found { check, finding });
    }

    /// What is logged where it happens, with more to say, is not logged again.
    fn log_verdict(&self, check: CheckId) {
        let Some(verdict) = self.checks.fitness.verdict(check) else { return };
        if matches!(verdict.subject, Subject::Worker | Subject::Addresses | Subject::Adverts | Subject::Servers(_)) {
            return;
        }
        let (subject, evidence) = (verdict.subject, verdict.evidence);
        match verdict.state {
            fitness::State::Broken => warn!(%subject, evidence, "not fit"),
            fitness::State::HeldDown => info!(%subject, evidence, "good again, and held down"),
            fitness::State::Good => info!(%subject, evidence, "fit"),
            fitness::State::Unknown | fitness::State::Weaker => debug!(%subject, evidence, "not known"),
        }
    }

    fn tell(&self, vip: usize, command: Command) {
        if let Some(vip) = self.vips.get(vip) {
            vip.tell(command);
        }
    }

    /// Whether every VIP takes part, or is kept from it by something that waiting for us would not mend.
    pub fn is_settled(&self) -> bool {
        let is_lasting = |verdict: fitness::Verdict<'_>| {
            let is_ours = matches!(verdict.subject, Subject::Worker | Subject::Addresses | Subject::Adverts);
            verdict.is_fault && !is_ours && verdict.state != fitness::State::Unknown
        };
        let is_settled = |(index, vip): (usize, &Vip)| {
            vip.state != State::Init || self.checks.fitness.verdicts(index).any(is_lasting)
        };
        self.worker == WorkerState::Running && self.vips.iter().enumerate().all(is_settled)
    }

    /// Takes what the supervisor says of the worker.
    pub fn worker_event(&mut self, event: supervisor::Event) {
        match event {
            supervisor::Event::Started { pid } => {
                info!(pid, "worker started");
                (self.worker, self.pid) = (WorkerState::Starting, Some(pid));
                self.set_synced(false);
                self.starts += 1;
            }
            supervisor::Event::Ready => {
                self.is_taking_over = false;
                self.worker_serves();
                if self.vips.iter().any(|vip| vip.state == State::Active) {
                    // It has begun no epoch yet, whatever the one before it was told.
                    self.took_over.skip(tokio::time::Instant::now());
                    self.order(ToWorker::TookOver);
                }
            }
            supervisor::Event::Synced(synced) => self.set_synced(synced),
            supervisor::Event::Alive(report) => {
                self.take_report(*report);
                if self.worker == WorkerState::Hung {
                    warn!("the worker answers again");
                    self.worker_serves();
                }
            }
            supervisor::Event::Hung { silent_for, evidence, is_starved } => {
                error!(for_ms = millis(silent_for), evidence, "the worker does not answer");
                self.worker = WorkerState::Hung;
                // Else it is done whenever the worker answers.
                self.compare_with_peer();
                let evidence = format!("the worker did not answer for {} ms: {evidence}", millis(silent_for));
                let finding = if is_starved { Finding::Slow(evidence) } else { Finding::Bad(evidence) };
                self.found(self.checks.worker, finding);
            }
            supervisor::Event::Closed => {
                self.worker = WorkerState::Waiting;
                self.worker_fails("the worker closed its link".to_owned());
                self.set_synced(false);
            }
            supervisor::Event::Ended(reason) => {
                error!(reason, "the worker has ended");
                (self.worker, self.pid) = (WorkerState::Waiting, None);
                self.worker_fails(format!("the worker has ended: {reason}"));
                self.last_exit = Some(reason);
                self.set_synced(false);
                self.take_report(Report::default());
            }
            supervisor::Event::StatusAsked | supervisor::Event::CheckAsked(_) => {}
            supervisor::Event::Administration(facts) => {
                if let Some(administration) = &self.administration {
                    administration.said(&self.config, facts);
                }
            }
            supervisor::Event::Certificates(certificates) => self.certificates = certificates,
            supervisor::Event::Drained => (self.worker, self.pid) = (WorkerState::Draining, None),
        }
        self.publish();
    }

    /// Takes whether the worker has what the peer has, and tells the peer. Nothing changes where there is nothing to sync.
    fn set_synced(&mut self, synced: bool) {
        let Some(before) = self.synced.as_mut() else { return };
        if std::mem::replace(before, synced) == synced {
            return;
        }
        if synced {
            info!("sessions are in sync with the peer");
        } else {
            warn!("sessions are not in sync with the peer");
        }
        self.vips.iter().for_each(|vip| vip.tell(Command::Synced(synced)));
    }

    /// Has the worker put what it says before what the peer says, if a VIP has come here since it was last told to, but not
    /// within [`TOOK_OVER_INTERVAL`]: then it is done at its end.
    pub fn tell_took_over(&mut self) {
        if self.took_over.take(tokio::time::Instant::now()).is_some() {
            self.order(ToWorker::TookOver);
        }
    }

    /// When [`Node::tell_took_over`] is to be called.
    pub fn took_over_due_at(&self) -> Option<Instant> {
        self.took_over.due_at().map(tokio::time::Instant::into_std)
    }

    /// The queue holds more than a worker that lives can be behind; one that does not is replaced, and told anew.
    fn order(&self, order: ToWorker) {
        if let Some(orders) = &self.orders
            && orders.try_send(order).is_err()
        {
            error!("the worker takes no orders");
        }
    }

    fn worker_serves(&mut self) {
        self.worker = WorkerState::Running;
        self.found(self.checks.worker, Finding::Good("it serves".to_owned()));
    }

    fn worker_fails(&mut self, reason: String) {
        self.found(self.checks.worker, Finding::Bad(reason));
    }

    /// Takes a report; an empty one when the worker is gone.
    fn take_report(&mut self, report: Report) {
        for index in 0..self.checks.pools.len() {
            let Some(check) = self.checks.pools.get(index).copied().flatten() else { continue };
            let (before, now) = (self.report.pools.get(index), report.pools.get(index));
            match now.and_then(servers_up) {
                Some((up, count)) if before.and_then(servers_up) != Some((up, count)) => {
                    self.observe(Input::Servers { check, up, count });
                }
                None if before.and_then(servers_up).is_some() => {
                    self.found(check, Finding::Untested("the worker says nothing of it".to_owned()));
                }
                _ => {}
            }
        }
        self.report = report;
        self.compare_with_peer();
    }

    /// Lets the looks at listeners know what they depend on.
    fn publish(&self) {
        let load = |load: &ListenerLoad| Load { accepted: load.accepted, full_sockets: load.full_sockets };
        let now = Situation {
            serves: self.worker == WorkerState::Running,
            active: self.vips.iter().map(|vip| vip.state == State::Active).collect(),
            load: self.report.listeners.iter().map(load).collect(),
        };
        self.situation.send_if_modified(|situation| std::mem::replace(situation, now.clone()) != now);
    }

    /// Takes what the kernel says of an interface.
    pub fn interface_changed(&mut self, interface: &Interface) {
        let carrier = self.checks.carriers.iter().find(|(name, _)| *name == interface.name).map(|(_, check)| *check);
        if let Some(check) = carrier {
            self.found(check, carrier_finding(interface));
        }
        for index in 0..self.vips.len() {
            let (Some(vip), Some(config)) = (self.vips.get_mut(index), self.config.vips.get(index)) else { continue };
            let is_another = interface.index != 0 && interface.index != vip.interface_index;
            if config.advert_interface != interface.name || !is_another {
                continue;
            }
            vip.interface_index = interface.index;
            vip.tell(Command::Reopen);
            self.adverts_fail(index, format!("interface {} was made anew", interface.name));
        }
    }

    fn adverts_fail(&mut self, vip: usize, reason: String) {
        if let Some(check) = self.checks.adverts.get(vip) {
            self.found(*check, Finding::Bad(reason));
        }
    }

    /// Takes what befell the addresses of a VIP.
    pub fn address_event(&mut self, event: addresses::Event) {
        match event {
            addresses::Event::AcquireFailed { vip, reason } => {
                if let Some(check) = self.checks.addresses.get(vip) {
                    self.found(*check, Finding::Bad(reason));
                }
            }
            addresses::Event::Restored { vip, count } => {
                if let Some(vip) = self.vips.get_mut(vip) {
                    vip.restored += u64::try_from(count).unwrap_or(0);
                }
            }
            addresses::Event::Duplicate { vip, address } => {
                let notice = format!("the kernel found {address} in use at another machine (dadfailed)");
                if let Some(vip) = self.vips.get_mut(vip) {
                    vip.notice_conflict(Conflict::Duplicate, notice);
                }
            }
            addresses::Event::Conflict { vip, address, hardware } => {
                let notice = format!("another machine ({hardware}) claims {address} as well");
                if let Some(vip) = self.vips.get_mut(vip) {
                    vip.notice_conflict(Conflict::Claimed, notice);
                }
            }
        }
    }

    /// What befell the addresses of late, in sentences.
    fn notices(&self) -> impl Iterator<Item = String> {
        self.vips.iter().zip(&self.config.vips).flat_map(|(vip, config)| {
            let recent = vip.notices.values().filter(|(at, _)| at.elapsed() < NOTICE_KEPT);
            recent.map(|(at, notice)| format!("vip {}: {notice}, {} s ago", config.name, at.elapsed().as_secs()))
        })
    }

    /// Lets VIPs try again whose addresses could not be put on their interface, or that could send no adverts.
    pub fn retry(&mut self) {
        self.compare_with_peer();
        for vip in 0..self.vips.len() {
            if let Some(check) = self.checks.addresses.get(vip).copied().filter(|check| self.is_broken(*check)) {
                self.found(check, Finding::Good("to be tried again".to_owned()));
            }
            if self.checks.adverts.get(vip).is_some_and(|check| self.is_broken(*check)) {
                self.tell(vip, Command::Reopen);
            }
        }
    }

    fn is_broken(&self, check: CheckId) -> bool {
        self.checks.fitness.verdict(check).is_some_and(|verdict| verdict.state == fitness::State::Broken)
    }

    /// Takes what the heartbeat says.
    pub fn heartbeat_event(&mut self, event: heartbeat::Event) {
        let name = |vip: usize| self.config.vips.get(vip).map_or("", |vip| vip.name.as_str());
        match event {
            heartbeat::Event::Changed { vip: index, from, to, reason, epoch } => {
                let reason = reason.to_string();
                let (from, to_role) = (role(from), role(to));
                info!(vip = name(index), %from, to = %to_role, reason, "role changed");
                self.events.record(events::Change { vip: index, from, to: to_role, reason: reason.clone(), epoch });
                if let Some(vip) = self.vips.get_mut(index) {
                    (vip.state, vip.since, vip.reason) = (to, Instant::now(), reason);
                    vip.transitions += 1;
                    vip.epoch = epoch;
                }
                if to == State::Active {
                    self.took_over.put(());
                    self.tell_took_over();
                }
                self.observe(Input::Role { vip: index, is_active: to == State::Active });
                self.publish();
            }
            heartbeat::Event::NotReleased { vip } => {
                error!(vip = name(vip), "the VIP could not be taken off in time; no resignation was sent");
            }
            heartbeat::Event::Mute { vip: index, error } => {
                let reason = format!("adverts cannot be sent: {error}");
                if self.checks.adverts.get(index).is_some_and(|check| !self.is_broken(*check)) {
                    error!(vip = name(index), reason, "the VIP is given up");
                }
                self.adverts_fail(index, reason);
            }
            heartbeat::Event::Reopened { vip: index } => {
                info!(vip = name(index), "adverts can be sent again");
                if let Some(check) = self.checks.adverts.get(index) {
                    self.found(*check, Finding::Good("they can be sent".to_owned()));
                }
            }
            heartbeat::Event::AddressesDiffer { vip } => warn!(
                vip = name(vip),
                "the peer's adverts list other addresses than this configuration: make the files on both nodes the same"
            ),
            heartbeat::Event::ConfigDiffers { vip } => {
                warn!(vip = name(vip), "the peer runs another configuration: make the files on both nodes the same")
            }
            heartbeat::Event::Refused { vip, reason, source, count } => {
                let source = source.map_or_else(|| "unknown".to_owned(), |source| source.to_string());
                warn!(vip = name(vip), %reason, source, count, remedy = reason.remedy(), "adverts were refused");
            }
            heartbeat::Event::Waits { vip, what } => {
                if let Some(vip) = self.vips.get_mut(vip) {
                    vip.waiting = what;
                }
            }
            // The guard's loop sees to it.
            heartbeat::Event::Asked { .. } => {}
            heartbeat::Event::HandOverFailed { vip, reason } => {
                warn!(vip = name(vip), reason, "the VIP was not handed over");
            }
        }
    }

    /// Waits, for a while, until what outlasts this process is on the disk and told to others.
    pub async fn finish(&self) {
        if let Some(archive) = &self.archive {
            archive.finish(supervisor::ARCHIVE_TIMEOUT).await;
        }
        if let Some(administration) = &self.administration {
            administration.finish(supervisor::ARCHIVE_TIMEOUT).await;
        }
        self.events.finish().await;
    }

    /// How the node is.
    pub fn status(&self) -> NodeStatus {
        let vips = self.vips.iter().zip(&self.config.vips).enumerate();
        let vips = vips.map(|(index, (vip, config))| self.vip_status(index, vip, config)).collect();
        let listeners = self.config.listeners.iter().enumerate().map(|(index, listener)| ListenerStatus {
            rate_limited: self.report.refused(index).get("rate_limit").copied().unwrap_or(0),
            refused: self.report.refused(index),
            name: listener.name.clone(),
            bind: listener.bind.clone(),
            protocol: if listener.tls.is_some() { "https" } else { "http" }.to_owned(),
        });
        NodeStatus {
            node: self.local.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_checksum: self.config.checksum.clone(),
            config_age_ms: self.loaded.age_ms(),
            refused_reload: self.loaded.refused(),
            guard_pid: std::process::id(),
            takeovers: self.takeovers,
            is_taking_over: self.is_taking_over,
            vips,
            peer: self.peer_status(),
            worker: self.worker_status(),
            listeners: listeners.collect(),
            pools: self.report.pools.clone(),
            certificates: self.certificates.clone(),
            warnings: self.status_warnings(),
            sync: self.sync_status(),
            events: self.events.status(),
            witness: self.witness.as_ref().map(|health| health.status()),
            switchover_drain_ms: millis(self.config.pair.switchover_drain),
            sessions: self.sessions_status(),
        }
    }

    fn sessions_status(&self) -> SessionsStatus {
        let mut sessions = self.report.sessions.clone();
        if let Some(archive) = &self.archive {
            archive.complete(sessions.archive.get_or_insert_default());
        }
        sessions
    }

    fn status_warnings(&self) -> Vec<String> {
        let lasting = self.warnings.iter().chain(&self.file_warnings).chain(&self.report.warnings).cloned();
        let of_archive = self.archive.iter().flat_map(|archive| archive.warnings());
        let of_servers = self.administration.iter().filter_map(|administration| administration.warning());
        let expiring = files::expiring(&self.certificates, SystemTime::now());
        lasting.chain(of_archive).chain(of_servers).chain(expiring).chain(self.notices()).collect()
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
            load: self.report.load.clone(),
            finishing: self.leavers.count(),
        }
    }

    /// As the worker last told, except for what it told since.
    fn sync_status(&self) -> Option<SyncStatus> {
        let in_sync = self.synced?;
        let silent = || SyncStatus {
            peer: self.peer().map(|peer| peer.name.clone()).unwrap_or_default(),
            state: "connecting".to_owned(),
            last_error: Some("the worker has not told yet".to_owned()),
            ..SyncStatus::default()
        };
        let mut status = self.report.sync.clone().unwrap_or_else(silent);
        if status.in_sync != in_sync {
            let state = if in_sync { "in_sync" } else { "connecting" };
            (status.in_sync, status.state, status.since_ms) = (in_sync, state.to_owned(), 0);
        }
        Some(status)
    }

    fn vip_status(&self, index: usize, vip: &Vip, config: &crate::config::Vip) -> VipStatus {
        let counters = &vip.counters;
        let dropped = DropReason::ALL.iter().zip(&counters.dropped);
        let dropped = dropped.map(|(reason, count)| (reason.as_str().to_owned(), count.load(Ordering::Relaxed)));
        let address = self.peer().map_or(String::new(), |peer| peer.address.to_string());
        let heard = counters.last_advert().map(|(priority, advert_interval_ms, age_ms)| HeardAdvert {
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
            faults: self.checks.fitness.faults(index).map(str::to_owned).collect(),
            verdicts: self.checks.fitness.verdicts(index).map(verdict_status).collect(),
            addresses: config.addresses.iter().map(|at| at.network.to_string()).collect(),
            interface: config.interface.clone(),
            virtual_router_id: config.virtual_router_id.get(),
            priority: vip.priority.get(),
            advert_interval_ms: millis(config.advert_interval.get()),
            transitions: vip.transitions,
            addresses_restored: vip.restored,
            address_conflicts: vip.conflicts,
            adverts_sent: counters.sent.load(Ordering::Relaxed),
            adverts_received: counters.received.load(Ordering::Relaxed),
            adverts_dropped: dropped.filter(|(_, count)| *count > 0).collect(),
            peer: heard,
            peer_says: self.peer_says(counters),
            paths: counters.paths.iter().map(|path| path_status(counters, path)).collect(),
            epoch: vip.epoch,
            waiting: self.switchovers.is_leaving(index).then(|| LEAVING.to_owned()).or_else(|| vip.waiting.clone()),
            patience_ms: patience_ms(vip, config),
            prefer: config.prefer.and_then(|node| self.config.nodes.get(node)).map(|node| node.name.clone()),
            prefer_hold_ms: millis(config.prefer_hold),
            authentication: authentication(config).to_owned(),
        }
    }
}

/// Up and all servers of a pool; `None` while none is known to be up and not all of them are known to be down.
fn servers_up(pool: &PoolStatus) -> Option<(u16, u16)> {
    let count = |servers: usize| u16::try_from(servers).unwrap_or(u16::MAX);
    let up = pool.servers.iter().filter(|server| server.up && server.checked).count();
    let is_known = up > 0 || pool.servers.iter().all(|server| server.checked);
    is_known.then(|| (count(up), count(pool.servers.len())))
}

fn carrier_finding(interface: &Interface) -> Finding {
    if interface.has_carrier {
        Finding::Good("it has one".to_owned())
    } else {
        Finding::Bad(format!("interface {} has no carrier", interface.name))
    }
}

fn verdict_status(verdict: fitness::Verdict<'_>) -> VerdictStatus {
    VerdictStatus {
        subject: verdict.subject.to_string(),
        state: verdict.state.as_str().to_owned(),
        evidence: verdict.evidence.to_owned(),
        since_ms: millis(verdict.since.elapsed()),
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

/// The interfaces of a VIP: of its addresses, and of its adverts.
pub fn interfaces(vip: &crate::config::Vip) -> impl Iterator<Item = &str> {
    vip.addresses.iter().map(|at| at.interface.as_str()).chain([vip.advert_interface.as_str()])
}

/// Three intervals and the skew: how long a standby waits (RFC 9568 section 6.1). By the interval that the peer's last
/// advert said, and by ours before the first one.
fn patience_ms(vip: &Vip, config: &crate::config::Vip) -> u64 {
    let learned = vip.counters.last_advert().map(|(_, interval_ms, _)| Duration::from_millis(interval_ms));
    let interval = learned.unwrap_or_else(|| config.advert_interval.get());
    millis(interval * 3 + interval * (256 - u32::from(vip.priority.get())) / 256)
}

fn authentication(vip: &crate::config::Vip) -> &'static str {
    match vip.authentication {
        Authentication::Off => "off",
        Authentication::ReceiveOnly => "receive_only",
        Authentication::Permissive => "permissive",
        Authentication::Enforce => "enforce",
    }
}

#[cfg(test)]
mod tests;
