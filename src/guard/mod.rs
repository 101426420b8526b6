//! The privileged process: VRRP, VIPs, listening sockets, and the watch over the worker. It never reads a byte that a
//! client sent.
//!
//! Composition happens here: [`heartbeat`] is a thread that decides about the VIPs, [`addresses`] moves them,
//! [`events`] tells others, [`leases`] are what the witness lends us, [`supervisor`] runs the worker, [`archive`]
//! keeps its sessions on the disk and [`administration`] what was said of servers, [`files`] reads for it,
//! [`access_log`] opens its logs, [`switchover`] moves
//! VIPs as operators want it, [`fitness`] looks at what a VIP depends on, [`control`] answers questions, [`state`]
//! puts together what all of them say, [`takeover`] has another program go on in this process, and [`janitor`] cleans up
//! when all of them are gone.

mod access_log;
mod addresses;
mod administration;
mod archive;
mod checks;
pub mod control;
mod counters;
mod events;
mod files;
mod fitness;
mod found;
mod heartbeat;
pub mod janitor;
pub mod leases;
mod leaving;
mod links;
mod listeners;
mod notify;
mod paths;
mod questions;
mod release;
mod reload;
mod session_store;
mod setup;
mod speaker;
mod state;
mod store;
mod supervisor;
mod switchover;
pub mod takeover;
mod vitals;

pub use self::release::release;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{error, info, warn};

use self::access_log::AccessLogs;
use self::addresses::{Addresses, Ends, Record};
use self::administration::Administration;
use self::archive::Archive;
use self::control::{Answer, Question, Reply, Request};
use self::events::Events;
use self::heartbeat::{Command, Witness};
use self::janitor::Inheritance;
use self::janitor::Janitor;
use self::listeners::AdminListener;
use self::reload::{Done, Listening, Reloader};
use self::state::{Node, WorkerState};
use self::store::{Keeper, Memory};
use self::supervisor::former::{Former, Leavers};
use self::supervisor::{Handing, Supervisor};
use self::switchover::{Order, once};
use self::takeover::{Descriptors, Failure, Legacy, ToLeave};
use self::vitals::Vitals;
use crate::config::{Config, LocalNode, PairKey};
use crate::fitness::Input;
use crate::inquiry::Question as WorkerQuestion;
use crate::link::files::HandedFiles;
use crate::link::{Bootstrap, Further, KnownServer, StoreSecrets, ToWorker};
use crate::net::memory;
use crate::net::netlink::{Interface, Netlink, watch_interfaces};
use crate::net::realtime;

/// Messages of each kind that may wait; each sender says what happens at the limit.
const QUEUE_MAX: usize = 256;

/// Events of the worker that are dealt with before everybody else gets a turn.
const WORKER_EVENTS_MAX: u32 = 16;

/// Time that the heartbeat gets to give every VIP up at a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Time after which links are looked at again, in case a message of the kernel was lost, and failed VIPs tried again.
const REVIEW_INTERVAL: Duration = Duration::from_secs(2);

/// Time after which the start of a node that is ready is over: the peer has been met, and the VIPs are where they belong.
const START_MAX: Duration = Duration::from_secs(10);

/// Time at the end for threads that wait for a disk or a file server. Nobody can end them, but the end of the process.
const BLOCKED_MAX: Duration = Duration::from_secs(2);

/// Real-time priority of the guard's own loop, which moves the addresses: below the heartbeat's.
const REALTIME_PRIORITY: i32 = 10;

/// Where a node keeps what has to outlast a restart of the machine, unless told otherwise.
pub const STATE_DIR: &str = "/var/lib/baton";

/// What `baton run` was told.
pub struct Options {
    /// The checked configuration.
    pub config: Config,
    /// Where it came from.
    pub config_path: PathBuf,
    /// Its text, as it was checked.
    pub config_text: String,
    /// Which node this is.
    pub local: LocalNode,
    /// Where sockets and locks are kept.
    pub runtime_dir: PathBuf,
    /// Where is kept what has to outlast the machine's restart.
    pub state_dir: PathBuf,
    /// The node that was named, where one was.
    pub node: Option<String>,
    /// What a guard before this one has left in this process.
    pub inherited: Option<(Legacy, Descriptors)>,
}

/// Runs the node until it is told to stop.
///
/// # Errors
/// When it cannot start; a node that has started recovers or gives its VIPs up instead.
pub fn run(mut options: Options) -> anyhow::Result<()> {
    let Some((mut legacy, mut descriptors)) = options.inherited.take() else { return start(options) };
    let went_on = go_on(options, &mut legacy, &mut descriptors);
    if went_on.is_err() {
        legacy.give_up();
    }
    went_on
}

fn start(options: Options) -> anyhow::Result<()> {
    let lock = lock(&options.runtime_dir)?;
    let threads = options.config.worker.threads;
    let listening = listeners::open(&options.config, threads)?;
    let sync_socket = listeners::open_sync(options.config.sync_ends(&options.local.name))?;
    on_a_runtime(async {
        let mut guard = Guard::start(options, lock, None).await?;
        guard.take_sockets(listening, sync_socket);
        guard.run().await
    })
}

/// Goes on for another guard in this process. The peer waits for an advert: whatever takes long comes after it.
fn go_on(options: Options, legacy: &mut Legacy, descriptors: &mut Descriptors) -> anyhow::Result<()> {
    let lock = descriptors.lock()?;
    let known = descriptors.listening();
    let (config, local) = (options.config.clone(), options.local.name.clone());
    on_a_runtime(async {
        let mut guard = Guard::start(options, lock, Some((legacy, descriptors))).await?;
        let listening = listeners::open_besides(&config, config.worker.threads, known)?;
        let ends = config.sync_ends(&local);
        let known = ends.filter(|ends| ends.listens).and_then(|ends| descriptors.sync(ends.own));
        let sync_socket = match known {
            Some(known) => Some(known),
            None => listeners::open_sync(config.sync_ends(&local))?,
        };
        guard.take_sockets(listening, sync_socket);
        guard.former = Some(legacy.processes(descriptors, &guard.leavers)?);
        info!(takeovers = legacy.takeovers, "goes on for the program before");
        guard.run().await
    })
}

/// The guard's loop, and after it what still writes to a disk, but not longer than [`BLOCKED_MAX`].
fn on_a_runtime(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let ended = runtime.block_on(run);
    runtime.shutdown_timeout(BLOCKED_MAX);
    ended
}

/// What is less than it should be for now, before anything is started.
fn lock_memory() -> Vec<String> {
    let mut warnings = Vec::new();
    if let Err(error) = realtime::lock_memory() {
        warnings.push(format!("memory is not locked ({error}): set LimitMEMLOCK=infinity"));
    }
    warnings
}

/// Makes sure that no other guard runs on this directory. The lock lasts as long as the file is open.
fn lock(runtime_dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(runtime_dir).with_context(|| {
        format!("the runtime directory {} cannot be made; --runtime-dir names another", runtime_dir.display())
    })?;
    let path = runtime_dir.join("guard.lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be opened", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!("another baton runs on {}", runtime_dir.display()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

/// What the guard's loop reads.
struct Guard {
    node: Node,
    bootstrapping: Rc<RefCell<Bootstrapping>>,
    signals: Signals,
    /// For a guard that goes on for this one.
    to_leave: ToLeave,
    /// The worker that another guard has left, and where its sessions come.
    former: Option<(Former, OwnedFd)>,
    /// The servers that were down for that one.
    down: Option<Vec<KnownServer>>,
    /// Workers that finish.
    leavers: Leavers,
    netlink: Netlink,
    record: Record,
    pulse: Option<Arc<AtomicU64>>,
    heartbeat: mpsc::Receiver<heartbeat::Event>,
    address_events: mpsc::Receiver<addresses::Event>,
    questions: mpsc::Receiver<Question>,
    memory: Memory,
    keeper: Keeper,
    ready_at: Option<Instant>,
    /// What to warn of where nobody gives the priority that we could not take.
    not_realtime: Option<String>,
    status_line: String,
}

/// What each new worker is made from.
struct Bootstrapping {
    config: Config,
    path: PathBuf,
    text: String,
    node: String,
    /// The node that was named, where one was.
    named: Option<String>,
    /// The file that the program is started from.
    program: PathBuf,
    /// Read once, with the configuration: a worker is restarted with what was checked, whatever the disk says by then.
    pair_key: Option<PairKey>,
    watch: files::Watch,
    archive: Option<Rc<Archive>>,
    administration: Rc<Administration>,
    admin: Option<AdminListener>,
    access_logs: Rc<AccessLogs>,
    store: Option<StoreSecrets>,
    /// The listening sockets, which outlast any worker.
    listening: Listening,
    sync_socket: Option<Arc<TcpListener>>,
}

impl Guard {
    async fn start(
        options: Options,
        lock: File,
        mut inherited: Option<(&mut Legacy, &mut Descriptors)>,
    ) -> anyhow::Result<Self> {
        let signals = Signals::open()?;
        let mut warnings = lock_memory();
        let Options { config, config_path, config_text, local, runtime_dir, state_dir, node: named, .. } = options;
        let pair_key = config.pair.key_file.as_deref().map(PairKey::load).transpose()?;
        let known = inherited.as_mut().zip(config.admin.as_ref());
        let admin =
            listeners::open_admin_besides(&config, known.and_then(|((_, known), admin)| known.admin(admin.bind)))?;
        let memory = match &inherited {
            Some((legacy, _)) => legacy.memory.clone(),
            None => remember(&state_dir, &mut warnings),
        };
        // The guard says by its own thread whether there is a real-time priority.
        let netlink = Netlink::open_prepared(|| drop(realtime::schedule_first(REALTIME_PRIORITY)));
        let netlink = netlink.context("the kernel's routing socket cannot be opened")?;
        let record = Record::of(&runtime_dir);
        match &mut inherited {
            Some((legacy, _)) => legacy.clean_up(&config, &netlink).await?,
            None => {
                record.take_off(&netlink).await?;
                addresses::remove_stale(&netlink, &config.vips).await?;
            }
        }
        record.write(&config.vips);
        let control = inherited.as_mut().map(|(_, descriptors)| descriptors.control()).transpose()?;
        let (questions, control) = open_control(&runtime_dir, control)?;
        let program = match &inherited {
            Some((legacy, _)) => legacy.program.clone(),
            None => std::env::current_exe().context("the file of this program is not known")?,
        };
        let takeovers = inherited.as_ref().map_or(0, |(legacy, _)| legacy.takeovers);
        let mut to_leave = ToLeave { lock, control, links: Vec::new(), boot: None, program, takeovers, janitor: None };
        let (event_sender, heartbeat) = mpsc::channel(QUEUE_MAX);
        let (order_sender, orders) = mpsc::channel(QUEUE_MAX);
        let (address_sender, address_events) = mpsc::channel(QUEUE_MAX);
        let mut vips = Vec::new();
        let (mut pulse, mut witness_health, mut not_realtime) = (None, None, None);
        if !config.vips.is_empty() {
            let known = inherited.as_mut().map(|(legacy, descriptors)| legacy.heartbeat(descriptors));
            let known = known.unwrap_or_default();
            let setups = setup::setups(&config, &local, pair_key.as_ref(), &memory, known, &netlink).await?;
            let paths = setups.links.paths.clone();
            let vitals = Vitals::new().context("no memory can be shared with the janitor")?;
            let boot = setups.links.boot;
            let ends = ends(&config, &local);
            let opened = Addresses::open(config.vips.clone(), ends, netlink.clone(), address_sender);
            let mut opened = opened.context(NEEDS_CAPABILITIES)?;
            for (index, vip) in config.vips.iter().enumerate() {
                if inherited.as_ref().is_some_and(|(legacy, _)| legacy.is_active(&vip.name)) {
                    opened.hold(index);
                }
            }
            tokio::task::spawn_local(opened.run(orders));
            let witness = config.pair.witness.map(|address| {
                let health = Arc::clone(witness_health.insert(Arc::new(leases::Health::new(address))));
                Witness { address, health }
            });
            let shared = vitals.clone();
            let beat = heartbeat::start(setups.routers, setups.links, witness, shared, order_sender, event_sender);
            let beat = beat.map_err(|(vip, error)| start_failure(&config, vip, error))?;
            to_leave.boot = Some(boot);
            for (path, link) in paths.into_iter().zip(&beat.links) {
                to_leave.links.push((path, link.try_clone()?));
            }
            let inheritance = Inheritance { vitals, boot, links: beat.links };
            let janitor = Janitor::new(&local.name, &config_path, &config_text, pair_key.as_ref(), inheritance);
            to_leave.janitor = Some(tokio::task::spawn_local(janitor.keep()));
            let error = beat.not_realtime.or(realtime::schedule_first(REALTIME_PRIORITY).err());
            not_realtime =
                error.map(|error| format!("adverts have no real-time priority ({error}): {REALTIME_REMEDY}"));
            (vips, pulse) = (setups.vips, Some(beat.pulse));
        }
        warnings.extend(fitness::warnings(&config));
        let (events, of_events) = Events::start(&config, &local.name, &state_dir);
        warnings.extend(of_events);
        let own = local.index.and_then(|index| config.nodes.get(index));
        warnings.iter().chain(&config.machine_warnings(own)).for_each(|warning| warn!("{warning}"));
        let archive = Archive::open(&config, &state_dir).map(Rc::new);
        let bootstrapping = Bootstrapping {
            archive: archive.clone(),
            administration: Administration::open(&config, &state_dir, inherited.as_ref().map(|(legacy, _)| &**legacy)),
            admin,
            program: to_leave.program.clone(),
            named,
            access_logs: AccessLogs::open(&config)?,
            pair_key,
            watch: files::Reader::start(config.worker_files())?.watch().context("no thread for the files")?,
            store: session_store::secrets(&config)?,
            config: config.clone(),
            path: config_path,
            text: config_text,
            node: local.name.clone(),
            listening: Listening::new(),
            sync_socket: None,
        };
        let mut node = Node::new(config, local, vips, events, warnings);
        node.witness = witness_health;
        (node.archive, node.administration) = (archive, Some(Rc::clone(&bootstrapping.administration)));
        let leavers = Leavers::default();
        (node.leavers, node.takeovers) = (leavers.clone(), to_leave.takeovers);
        if let Some((legacy, _)) = &inherited {
            node.resume(legacy);
        }
        Ok(Self {
            node,
            bootstrapping: Rc::new(RefCell::new(bootstrapping)),
            signals,
            to_leave,
            former: None,
            down: inherited.and_then(|(legacy, _)| legacy.down.take()),
            leavers,
            netlink,
            record,
            pulse,
            heartbeat,
            address_events,
            questions,
            memory,
            keeper: Keeper::new(state_dir),
            ready_at: None,
            not_realtime,
            status_line: String::new(),
        })
    }

    fn take_sockets(&mut self, listening: Listening, sync_socket: Option<TcpListener>) {
        let mut bootstrapping = self.bootstrapping.borrow_mut();
        (bootstrapping.listening, bootstrapping.sync_socket) = (listening, sync_socket.map(Arc::new));
    }

    /// The guard's loop, until it is told to stop.
    async fn run(mut self) -> anyhow::Result<()> {
        let (worker_sender, mut worker_events) = mpsc::channel(QUEUE_MAX);
        let (stop_worker, stop) = mpsc::channel(1);
        let (to_worker, commands) = mpsc::channel(QUEUE_MAX);
        let (order_sender, worker_orders) = mpsc::channel(QUEUE_MAX);
        self.node.orders = Some(order_sender);
        let settings = self.node.config.worker.clone();
        let (reopen_logs, hangups) = mpsc::channel(1);
        let bootstrapping = Rc::clone(&self.bootstrapping);
        let logs = Rc::clone(&bootstrapping.borrow().access_logs);
        tokio::task::spawn_local(logs.keep(hangups, to_worker.clone()));
        let mut files = bootstrapping.borrow().watch.receiver();
        let sockets = bootstrapping.borrow().sockets(&self.node.config, &bootstrapping.borrow().listening);
        let (outcome_sender, mut outcomes) = mpsc::channel(QUEUE_MAX);
        let mut reloader = Reloader::new(Rc::clone(&bootstrapping), to_worker.clone(), outcome_sender);
        let supervisor = Supervisor {
            bootstrap: Box::new(move || bootstrapping.borrow().hand_over()),
            sockets,
            reload_socket: None,
            probe_interval: settings.probe_interval,
            probe_timeout: settings.probe_timeout,
            drain_timeout: settings.drain_timeout,
            events: worker_sender,
            orders: worker_orders,
            stop,
            commands,
            // They were checked together with the configuration.
            good_files: Arc::clone(&files.borrow().files),
            down: self.down.take(),
            files: files.clone(),
            to_leave: None,
            former: self.former.take(),
            leavers: self.leavers.clone(),
        };
        tokio::task::spawn_local(supervisor.run());
        tokio::task::spawn_local(notify::feed_watchdog(self.pulse.take()));
        let mut interfaces = watch_interfaces().context("the kernel's link messages cannot be read")?;
        let (finding_sender, mut findings) = mpsc::channel(QUEUE_MAX);
        let (checks, situation) = (&self.node.checks, self.node.situation());
        let mut looks = fitness::start(checks, &self.node.config, &self.netlink, &situation, &finding_sender)
            .context("a thread for fitness checks cannot be started")?;
        let commands = checks::start(to_worker.clone());
        let mut reviews = tokio::time::interval(REVIEW_INTERVAL);
        let mut memories = tokio::time::interval(store::WRITE_INTERVAL);
        let (mut is_stopping, mut moved) = (false, None);
        let mut worker_events_count = 0;
        info!(node = self.node.local.name, version = env!("CARGO_PKG_VERSION"), "baton starts");
        loop {
            tokio::select! {
                biased;
                // First, as the others judge by what it said; but not for as long as it goes on.
                Some(event) = worker_events.recv(), if worker_events_count < WORKER_EVENTS_MAX => {
                    worker_events_count += 1;
                    if matches!(event, supervisor::Event::StatusAsked) {
                        // A full queue has the worker ask again.
                        drop(to_worker.try_send(supervisor::Command::Tell(self.status_for_worker())));
                    }
                    if let supervisor::Event::CheckAsked(asked) = &event {
                        commands.ask(&self.node.config, asked);
                    }
                    if matches!(event, supervisor::Event::Certificates(_)) && files.borrow().files.are_large() {
                        // The worker has taken them. What reading and writing them took, several times over, is free now.
                        drop(tokio::task::spawn_blocking(memory::give_back));
                    }
                    self.node.worker_event(event);
                    if is_stopping && self.node.worker == WorkerState::Draining {
                        self.node.finish().await;
                        info!("baton has stopped");
                        return Ok(());
                    }
                }
                Some(interface) = interfaces.next() => self.node.interface_changed(&interface),
                Ok(()) = files.changed() => self.node.file_warnings.clone_from(&files.borrow_and_update().warnings),
                Some(event) = self.heartbeat.recv() => {
                    if let heartbeat::Event::Asked { vip } = &event {
                        self.asked_for(*vip, &to_worker);
                    }
                    self.node.heartbeat_event(event);
                }
                Some(event) = self.address_events.recv() => self.node.address_event(event),
                Some((check, finding)) = findings.recv() => self.node.found(check, finding),
                () = sleep_until(self.node.checks.fitness.deadline()) => self.node.observe(Input::Timer),
                () = sleep_until(self.node.took_over_due_at()) => self.node.tell_took_over(),
                _ = reviews.tick() => self.review().await,
                _ = memories.tick() => if self.note_memory() { self.keeper.write_soon(&self.memory) },
                Some(question) = self.questions.recv() => self.answer(question, &to_worker, &mut reloader),
                Some(mut outcome) = outcomes.recv() => {
                    if let Ok(Done::TakeOver(_)) = &outcome.result
                        && !is_stopping
                        && !self.node.switchovers.is_busy()
                        && let Ok(Done::TakeOver(approved)) = std::mem::replace(&mut outcome.result, Err(String::new()))
                    {
                        let (failure, asker) = self.take_over(approved, outcome.asker.take(), &to_worker).await;
                        match failure {
                            Failure::Refused(error) => outcome.result = Err(format!("{error:#}")),
                            Failure::Fatal(error) => {
                                // No node ends with an address that it does not serve.
                                addresses::remove_stale(&self.netlink, &self.node.config.vips).await?;
                                return Err(error);
                            }
                        }
                        outcome.asker = asker;
                    }
                    if let Ok(Done::TakeOver(_)) = &outcome.result {
                        outcome.result = Err("a switchover or a stop is under way: reload again when it is over".to_owned());
                    }
                    if let Ok(Done::InPlace(config, _)) = &outcome.result
                        && self.node.reloaded(Config::clone(config))
                    {
                        // What was found until now is of checks of other numbers.
                        drop(looks);
                        while findings.try_recv().is_ok() {}
                        let (checks, config) = (&self.node.checks, &self.node.config);
                        looks = fitness::start(checks, config, &self.netlink, &situation, &finding_sender)
                            .context("a thread for fitness checks cannot be started")?;
                    }
                    self.node.loaded.take(outcome.result.as_ref().map(drop));
                    outcome.tell();
                    reloader.done();
                }
                _ = either(&mut self.signals.terminate, &mut self.signals.interrupt) => match &moved {
                    None if is_stopping => bail!("stopped a second time; requests in flight were broken off"),
                    None => moved = Some(self.move_away(&to_worker)),
                    Some(_) => self.node.switchovers.hurry(),
                },
                () = once(&mut moved) => {
                    moved = None;
                    self.stop(&stop_worker).await?;
                    is_stopping = true;
                }
                _ = self.signals.hangup.recv() => {
                    // Where one is waiting already, the files are opened once more after this.
                    let _waiting = reopen_logs.try_send(());
                    reloader.start(None);
                }
                () = std::future::ready(()), if worker_events_count >= WORKER_EVENTS_MAX => worker_events_count = 0,
            }
            self.tell_service_manager();
        }
    }

    /// Gives every VIP up, then has the worker finish.
    async fn stop(&mut self, stop_worker: &mpsc::Sender<()>) -> anyhow::Result<()> {
        let mut stopped = Vec::new();
        for vip in &self.node.vips {
            let (done, is_done) = oneshot::channel();
            if vip.commands.try_send(Command::Stop(done)).is_ok() {
                stopped.push(is_done);
            }
        }
        let all = futures_util::future::join_all(stopped);
        if timeout(STOP_TIMEOUT, all).await.is_err() {
            error!("the heartbeat did not stop in time; taking the VIPs off without it");
        }
        // What it said while it stopped is told to others as well, however soon the worker has finished.
        while let Ok(event) = self.heartbeat.try_recv() {
            self.node.heartbeat_event(event);
        }
        // Whatever went wrong before: no node stops with an address that it does not serve.
        addresses::remove_stale(&self.netlink, &self.node.config.vips).await?;
        self.record.clear();
        if self.note_memory() {
            self.keeper.write_now(&self.memory);
        }
        // The queue holds one, and nobody else sends.
        let _already_told = stop_worker.try_send(());
        Ok(())
    }

    /// Looks at links again, and lets VIPs try again that failed.
    async fn review(&mut self) {
        self.node.retry();
        self.warn_of_priority();
        let ready_for = self.ready_at.map_or(Duration::ZERO, |at| at.elapsed());
        // Once more, for what it took to meet the peer. At one review, or two.
        if ready_for >= START_MAX && ready_for < START_MAX + REVIEW_INTERVAL {
            memory::shed_start();
        }
        let of_vips = self.node.config.vips.iter().flat_map(state::interfaces).map(str::to_owned);
        let carriers = self.node.checks.carriers.iter().map(|(name, _)| name.clone());
        let names: std::collections::BTreeSet<_> = of_vips.chain(carriers).collect();
        for name in names {
            let gone = |_| Interface {
                name: name.clone(),
                index: 0,
                hardware: pnet::util::MacAddr::zero(),
                has_carrier: false,
            };
            let interface = self.netlink.interface(&name).await.unwrap_or_else(gone);
            self.node.interface_changed(&interface);
        }
    }

    /// A service manager may give the priority from outside, as soon as the node is ready (`ExecStartPost=+chrt`).
    fn warn_of_priority(&mut self) {
        if self.ready_at.is_some_and(|at| at.elapsed() >= REVIEW_INTERVAL)
            && let Some(warning) = self.not_realtime.take()
            && !realtime::is_first()
        {
            warn!("{warning}");
            self.node.warnings.push(warning);
        }
    }

    /// How the node is, but for what the worker has said itself.
    fn status_for_worker(&self) -> ToWorker {
        let mut status = self.node.status();
        status.pools = Vec::new();
        ToWorker::Status(Box::new(status))
    }

    fn answer(&self, (request, reply): Question, worker: &mpsc::Sender<supervisor::Command>, reloader: &mut Reloader) {
        match request {
            Request::Reload => reloader.start(Some(reply)),
            // Whoever asked may have gone away.
            Request::Status => drop(reply.send(Reply::Ok(Answer::Status(Box::new(self.node.status()))))),
            Request::Switchover { vip, force, now } => {
                let order = Order { vip: vip.as_deref(), away: false, force, now };
                let bootstrapping = self.bootstrapping.borrow();
                self.node.switchovers.start(&self.node, worker, &bootstrapping.listening, order, reply);
            }
            Request::Change { pool, server, change } => {
                questions::start(worker, WorkerQuestion::Change { pool, server, change }, reply);
            }
            Request::Sessions { question } => questions::start(worker, WorkerQuestion::Sessions(question), reply),
            Request::Server { pool, server, order } => {
                questions::start(worker, WorkerQuestion::Server { pool, server, order }, reply);
            }
        }
    }

    /// Notes what the next guard has to know; false when there is nothing.
    fn note_memory(&mut self) -> bool {
        for (vip, config) in self.node.vips.iter().zip(&self.node.config.vips) {
            self.memory.note(&config.name, vip.epoch, &vip.counters);
        }
        !self.node.vips.is_empty()
    }

    fn tell_service_manager(&mut self) {
        if self.ready_at.is_none() && self.node.is_settled() {
            self.ready_at = Some(Instant::now());
            info!("baton is ready");
            notify::ready();
            memory::shed_start();
        }
        let roles = self.node.vips.iter().zip(&self.node.config.vips);
        let roles: Vec<_> = roles.map(|(vip, config)| format!("{}: {}", config.name, state::role(vip.state))).collect();
        let line = if roles.is_empty() { "serving".to_owned() } else { roles.join(", ") };
        if line != self.status_line {
            notify::status(&line);
            self.status_line = line;
        }
    }
}

/// What somebody tells this process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// First of all: those that came while another guard became this one wait.
    fn open() -> io::Result<Self> {
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        takeover::take_signals();
        Ok(signals)
    }
}

/// Waits for either of two signals.
async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Waits for a time; for ever where there is none.
async fn sleep_until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

const REALTIME_REMEDY: &str = "set LimitRTPRIO=99, or have the service manager run chrt";

const NEEDS_CAPABILITIES: &str = "raw sockets cannot be opened: baton needs CAP_NET_ADMIN and CAP_NET_RAW";

fn start_failure(config: &Config, vip: Option<usize>, error: io::Error) -> anyhow::Error {
    let vip = vip.and_then(|vip| config.vips.get(vip));
    match (vip, error.kind()) {
        (_, io::ErrorKind::PermissionDenied) => anyhow!(NEEDS_CAPABILITIES),
        (Some(vip), io::ErrorKind::AddrNotAvailable) => anyhow!(
            "vip {}: the address of this node is on no interface of this machine: check node.address and --node",
            vip.name
        ),
        (Some(vip), _) => anyhow!("vip {}: no adverts can be sent on {}: {error}", vip.name, vip.advert_interface),
        (None, io::ErrorKind::AddrNotAvailable) => {
            anyhow!(
                "an address of this node is on no interface of this machine: check address, further_addresses and --node"
            )
        }
        (None, _) => anyhow!("the heartbeat cannot be started: {error}"),
    }
}

/// Opens the control socket, and gives what is asked on it.
fn open_control(runtime_dir: &Path, known: Option<OwnedFd>) -> anyhow::Result<(mpsc::Receiver<Question>, OwnedFd)> {
    let control = match known {
        Some(known) => control::inherit(known),
        None => control::listen(runtime_dir),
    };
    let control =
        control.with_context(|| format!("{} cannot be opened", control::socket_path(runtime_dir).display()))?;
    let descriptor = control.as_fd().try_clone_to_owned()?;
    let (question_sender, questions) = mpsc::channel(QUEUE_MAX);
    tokio::task::spawn_local(control::serve(control, question_sender));
    Ok((questions, descriptor))
}

/// What an earlier guard left behind. Without it the node starts all the same.
fn remember(state_dir: &Path, warnings: &mut Vec<String>) -> Memory {
    if let Err(error) = std::fs::create_dir_all(state_dir) {
        warnings.push(format!("the state directory {} cannot be made: {error}", state_dir.display()));
    }
    Memory::read(state_dir).unwrap_or_else(|error| {
        warnings.push(format!("what was kept in {} cannot be read: {error}", state_dir.display()));
        Memory::default()
    })
}

/// Where unicast adverts run between; `None` without a peer.
fn ends(config: &Config, local: &LocalNode) -> Option<Ends> {
    let (own, peer) = config.local_and_peer(local)?;
    Some(Ends { local: own.address, peer: peer?.address })
}

impl Bootstrapping {
    /// The sockets that a worker with a configuration gets, in the order of [`Bootstrap`].
    fn sockets(&self, config: &Config, listening: &Listening) -> Vec<Arc<TcpListener>> {
        let addresses = config.listeners.iter().flat_map(|listener| &listener.bind);
        let sockets = addresses.filter_map(|address| listening.get(address)).flatten();
        sockets.chain(&self.sync_socket).cloned().collect()
    }

    /// What a new worker gets, with the descriptors besides the listeners' sockets.
    fn hand_over(&self) -> Handing {
        let archive = self.archive.as_ref().map(|archive| archive.for_worker());
        let further = archive.unwrap_or(Ok(Vec::new())).unwrap_or_else(|error| {
            warn!(%error, "this worker cannot keep its sessions on the disk");
            Vec::new()
        });
        let admin = self.admin.as_ref().and_then(|admin| {
            let copied = admin.socket.try_clone();
            copied.inspect_err(|error| warn!(%error, "this worker cannot serve [admin]")).ok()
        });
        let access_logs = self.access_logs.for_worker().unwrap_or_else(|error| {
            warn!(%error, "this worker cannot write its access logs");
            Vec::new()
        });
        let further = further.into_iter().chain(access_logs).chain(admin.map(|socket| (Further::Admin, socket.into())));
        let (kinds, descriptors): (Vec<_>, Vec<OwnedFd>) = further.unzip();
        (Bootstrap { further: kinds, ..self.bootstrap() }, descriptors)
    }

    fn bootstrap(&self) -> Bootstrap {
        let threads = self.config.worker.threads;
        let token = self.admin.as_ref().and_then(|admin| admin.token.as_ref());
        let addresses = self.config.listeners.iter().flat_map(|listener| &listener.bind);
        let socket_counts = addresses.map(|address| self.listening.get(address).map_or(0, Vec::len));
        Bootstrap {
            node: self.node.clone(),
            config_path: self.path.clone(),
            config_text: self.text.clone(),
            guard_pid: std::process::id(),
            threads,
            socket_counts: socket_counts.collect(),
            has_sync_socket: self.sync_socket.is_some(),
            user: self.config.worker.user.clone(),
            pair_key: self.pair_key.as_ref().map(|key| key.as_bytes().to_vec()),
            // The supervisor knows which are good.
            files: HandedFiles::default(),
            changed_files: None,
            further: Vec::new(),
            administration: self.administration.facts(),
            found: self.administration.found(),
            admin_token: token.map(|token| token.as_bytes().to_vec()),
            store: self.store.clone(),
            // As above.
            down: None,
        }
    }
}
