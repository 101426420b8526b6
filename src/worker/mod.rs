//! The unprivileged process: composition root of the data plane.
//!
//! The guard starts it as `baton worker` with one descriptor, the socket pair between them. Over that it gets its
//! configuration and its listening sockets. It then gives up every privilege, before it reads a byte from any client.
//! It opens no file and outlives its guard by nothing.

mod archive;
mod found;
mod leaving;
mod open_files;
mod pressure;
mod reload;
mod succession;
mod taking;
pub mod tickets;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{info, warn};

use self::archive::Archive;
use self::pressure::Pressure;
use self::reload::Reloading;
use self::succession::Giving;
use self::taking::Taking;
use self::tickets::TicketKeeper;
use crate::admin::{questions, server};
use crate::config::{self, Config, ServerChange};
use crate::discovery::{Discovery, Overview};
use crate::inquiry::{Answer, Question};
use crate::link::{self, Bootstrap, FromWorker, Further, Handed, KeptFact, KeptList, KnownServer, Report, ToWorker};
use crate::net::child;
use crate::net::descriptors;
use crate::net::memory;
use crate::net::privileges;
use crate::peer;
use crate::peer::endpoint::End;
use crate::peer::identity::Identity;
use crate::probe::command::{self, Asked, Pending};
use crate::probe::{self, Checks};
use crate::proxy::access::Access;
use crate::proxy::access_log::AccessLogs;
use crate::proxy::counters::Counters;
use crate::proxy::files::Files;
use crate::proxy::limits::replicated_limits;
use crate::proxy::passive;
use crate::proxy::reload::{Current, InUse};
use crate::proxy::sessions::{Sessions, replicated_pools};
use crate::proxy::state::{Prepared, Site};
use crate::proxy::thread::{self, Command, Leaving, ListeningSocket, Setup};
use crate::proxy::tickets::Tickets;
use crate::proxy::tls::Termination;
use crate::proxy::upstream::dial::Dialer;
use crate::session::facts::FactKey;
use crate::session::replica::{self, Settings};
use crate::session::version::Node;
use crate::status::NodeStatus;
use crate::status::SessionsStatus;
use crate::store::{self, Store};
use crate::telemetry;

/// Probes on their way to one thread, and answers on their way back.
const QUEUE_MAX: usize = 16;

/// Time after which the guard is asked again how the node is: what is asked may be lost where its queue is full.
const STATUS_PATIENCE: Duration = Duration::from_millis(500);

/// Time that access logs get to take the last lines.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the worker until the guard drains it or goes away.
///
/// # Errors
/// When it cannot start; the guard is told so as well.
pub fn run(descriptor: i32) -> anyhow::Result<()> {
    let socket = child::socket_to_parent(descriptor)?;
    open_files::raise();
    let (bootstrap, handed) = link::receive_bootstrap(&socket).context("the guard sent no configuration")?;
    let warnings = give_up_privileges(&bootstrap)?;
    let _logging = telemetry::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        socket.set_nonblocking(true)?;
        let (mut sender, receiver) = link::halves(UnixStream::from_std(child::close_first(socket)?)?);
        match Worker::start(bootstrap, handed, warnings).await {
            Ok(worker) => worker.serve(sender, receiver).await,
            Err(error) => {
                sender.send(&FromWorker::Failed { reason: format!("{error:#}") }).await?;
                Err(error)
            }
        }
    })
}

/// Gives up every privilege. What could not be done and is no reason to stop is returned in words.
fn give_up_privileges(bootstrap: &Bootstrap) -> anyhow::Result<Vec<String>> {
    let warnings = privileges::give_up(bootstrap.user.as_deref()).context("the worker keeps its privileges")?;
    privileges::die_with_parent(bootstrap.guard_pid).context("the guard is gone")?;
    Ok(warnings.into_iter().map(|warning| format!("worker: {warning}")).collect())
}

/// Somebody who wants to know how the node is.
type Asker = oneshot::Sender<Box<NodeStatus>>;

/// The threads of the data plane and what they report through.
struct Worker {
    /// This node's name.
    node: String,
    config_path: PathBuf,
    /// The configuration in use, what its files hold, and what is made of both.
    config: Config,
    files: Files,
    current: Arc<Current>,
    cookie_key: Vec<u8>,
    ticket_keys: Arc<Tickets>,
    tickets: Arc<TicketKeeper>,
    commands: Vec<mpsc::Sender<Command>>,
    alive: mpsc::Receiver<(usize, u64)>,
    threads: Vec<std::thread::JoinHandle<io::Result<()>>>,
    ended: mpsc::Receiver<usize>,
    archive: Option<Archive>,
    /// Takes the sessions for the next worker.
    successor: Option<OwnedFd>,
    /// The admin listener, where there is one.
    admin: Option<server::Accepting>,
    access_logs: AccessLogs,
    /// Brings sockets and files of another configuration.
    reload_descriptors: Option<StdUnixStream>,
    /// Brings files of the access log that the guard has opened again.
    reopened_logs: Option<StdUnixStream>,
    /// The admin listener asks how the node is. At most as many at a time as it has connections.
    status_asked: mpsc::Receiver<Asker>,
    /// Who waits for the guard to say how the node is, and since when it has been asked.
    curious: Vec<Asker>,
    asked_at: Option<Instant>,
    drain_timeout: Duration,
    /// What the guard keeps for the next worker, as it was told last.
    administration: Vec<KeptFact>,
    warnings: Vec<String>,
    /// Files whose last state cannot be used.
    file_warnings: Vec<String>,
    /// The configuration as it is written: without the servers that were found, or that operators have added.
    base: Config,
    /// The sources of servers.
    discovery: Discovery,
    /// What the guard keeps of them for the next worker, as it was told last.
    found: Vec<KeptList>,
    /// Files that have changed and are not in use yet.
    taking: Taking,
    /// Another configuration that is not in use yet.
    reloading: Reloading,
    /// The link to the other node's worker, which also keeps the session table swept.
    link: peer::Link,
    /// Whoever checks the servers.
    checks: Checks,
    /// Checks that the guard has to make, and those that it was asked for.
    checks_asked: mpsc::Receiver<Asked>,
    checks_pending: Pending,
}

impl Worker {
    async fn start(bootstrap: Bootstrap, handed: Handed, warnings: Vec<String>) -> anyhow::Result<Self> {
        let config = config::parse(&bootstrap.config_text, &bootstrap.config_path)
            .map_err(|report| anyhow!("the configuration that the guard sent is refused: {report}"))?;
        let Handed { mut sockets, mut further } = handed;
        let latest = Files::new(bootstrap.changed_files.clone().unwrap_or_else(|| bootstrap.files.clone()));
        let discovery = Discovery::start(&config, &latest, &bootstrap.found);
        // With the servers that are known so far: sessions that were on them are not lost.
        let base = config;
        let config = discovery.applied_to(&base, &found::changes_kept(&bootstrap.administration));
        let tickets = Arc::new(Tickets::default());
        let files = Files::new(bootstrap.files.clone());
        let site = Arc::new(build_site(&bootstrap, &config, &files, &tickets)?);
        site.restore_administration(&bootstrap.administration);
        let counters = (0..bootstrap.threads).map(|_| Arc::new(site.counters())).collect();
        let current = Arc::new(Current::from_pointee(InUse { site: Arc::clone(&site), counters }));
        let successor = take(&mut further, Further::Successor);
        // Before the other node is there: what it says may be newer.
        if let Some(predecessor) = take(&mut further, Further::Predecessor) {
            succession::take(&current, predecessor)
                .context("there is no thread for the sessions of the worker before")?;
        }
        let archive =
            start_archive(&current, &config, &mut further).context("the thread of the archive cannot be started")?;
        let reload_descriptors = take(&mut further, Further::Reload).map(StdUnixStream::from);
        let reopened_logs = take(&mut further, Further::AccessLogs).map(StdUnixStream::from);
        let access_logs =
            start_access_logs(&bootstrap, &config, &mut further).context("an access log cannot be started")?;
        let admin_socket = take(&mut further, Further::Admin);
        let (status_asked, admin) = start_admin(
            &bootstrap,
            &config,
            &current,
            admin_socket,
            archive.as_ref(),
            &access_logs,
            discovery.overview(),
        )
        .context("the thread of [admin] cannot be started")?;
        let sync_socket = if bootstrap.has_sync_socket { sockets.pop() } else { None };
        let pair = sync_pair(&bootstrap, &config, sync_socket)?;
        // Where no vip can be taken over, each node makes keys, and those of both count.
        let makes_keys = config.vips.is_empty() || pair.is_none();
        let ticket_keys = Arc::clone(&tickets);
        let tickets = Arc::new(TicketKeeper::new(tickets, Arc::clone(&site.sessions), makes_keys));
        let link = peer::Setup {
            sessions: Arc::clone(&site.sessions),
            pair,
            apply: apply(&current, &tickets, discovery.overview()),
        };
        let link = peer::start(link).context("the sync link cannot be started")?;
        let (asker, checks_asked) = command::channel();
        let checks = start_checks(&current, asker, bootstrap.down.as_deref()).await;
        let (alive_sender, alive) = mpsc::channel(QUEUE_MAX * bootstrap.threads.max(1));
        let (ended_sender, ended) = mpsc::channel(bootstrap.threads.max(1));
        let mut worker = Self {
            node: bootstrap.node.clone(),
            config_path: bootstrap.config_path.clone(),
            files,
            current,
            cookie_key: bootstrap.pair_key.clone().unwrap_or_default(),
            ticket_keys,
            tickets,
            reload_descriptors,
            commands: Vec::new(),
            alive,
            threads: Vec::new(),
            ended,
            archive,
            successor,
            admin,
            access_logs,
            reopened_logs,
            status_asked,
            curious: Vec::new(),
            asked_at: None,
            drain_timeout: config.worker.drain_timeout,
            config,
            administration: bootstrap.administration.clone(),
            warnings,
            file_warnings: Vec::new(),
            base,
            discovery,
            found: bootstrap.found.clone(),
            taking: Taking::default(),
            reloading: Reloading::default(),
            link,
            checks,
            checks_asked,
            checks_pending: Pending::default(),
        };
        if let Some(files) = &bootstrap.changed_files {
            worker.files = Files::new(files.clone());
            let warnings = worker.site().files_changed(&worker.files);
            worker.files_taken(warnings);
        }
        let refusal_target = format!("/{}", random_token()?);
        let in_use = worker.current.load_full();
        open_files::bound(&in_use.site);
        for (index, sockets) in share_out(&worker.config, sockets, &bootstrap)?.into_iter().enumerate() {
            let (command_sender, commands) = mpsc::channel(QUEUE_MAX);
            worker.commands.push(command_sender);
            let setup = Setup {
                index,
                site: Arc::clone(&in_use.site),
                counters: in_use.counters.get(index).cloned().unwrap_or_default(),
                sockets,
                thread_count: bootstrap.threads,
                refusal_target: refusal_target.clone(),
                lines: worker.access_logs.of_thread(index),
                commands,
                alive: alive_sender.clone(),
            };
            let ended = ended_sender.clone();
            let run = move || {
                let result = thread::run(setup);
                // Nobody listens any more only when the whole worker ends.
                let _gone = ended.blocking_send(index);
                result
            };
            worker.threads.push(std::thread::Builder::new().name(format!("proxy-{index}")).spawn(run)?);
        }
        Ok(worker)
    }

    /// Answers the guard until it says to drain, or is gone.
    async fn serve(mut self, mut sender: link::Sender, mut receiver: link::Receiver) -> anyhow::Result<()> {
        sender.send(&FromWorker::Ready).await?;
        self.tell_files(&mut sender).await?;
        info!(threads = self.threads.len(), checks = self.checks.len(), "worker serves");
        let mut latest = Probe { sequence: 0, missing: 0 };
        let (answer_sender, mut answers) = mpsc::channel(QUEUE_MAX);
        let mut ticket_turns = tokio::time::interval(tickets::INTERVAL);
        let mut pressure_turns = tokio::time::interval(pressure::INTERVAL);
        pressure_turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pressure = Pressure::new(&self.site());
        let mut outcome_turns = tokio::time::interval(passive::INTERVAL);
        outcome_turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                message = receiver.receive() => match message? {
                    Some(ToWorker::Probe { sequence }) => latest = self.ask_threads(sequence),
                    Some(ToWorker::TookOver) => {
                        self.site().sessions.table.take_over();
                        self.tickets.took_over();
                    }
                    Some(ToWorker::Drain) => return self.drain(Leaving::Stop, None).await,
                    Some(ToWorker::Yield) => return self.make_way(receiver).await,
                    // Never without the message before.
                    Some(ToWorker::Retire) => return self.drain(Leaving::Yield, None).await,
                    Some(ToWorker::Ask { id, question: Question::Leave { addresses, stage } }) => {
                        self.ask_to_leave(id, &addresses, stage, answer_sender.clone());
                    }
                    Some(ToWorker::Ask { id, question }) => self.look_up(id, question, answer_sender.clone()),
                    Some(ToWorker::AccessLogs { files }) => self.logs_reopened(&files)?,
                    Some(ToWorker::Files(files)) => {
                        let files = Files::new(*files);
                        self.discovery.reconfigured(&self.base, &files, &[]);
                        self.take_files(files);
                    }
                    Some(ToWorker::Reload(reload)) => self.begin_reload(*reload),
                    Some(ToWorker::Status(status)) => self.tell_status(&status),
                    Some(ToWorker::Checked { id, result }) => self.checks_pending.answered(id, result),
                    None => return Err(anyhow!("the guard is gone")),
                },
                warnings = self.taking.taken() => {
                    self.files_taken(warnings);
                    if std::mem::take(&mut self.reloading.takes_files) {
                        self.tell_reloaded(Ok(()), &mut sender).await?;
                    } else {
                        self.tell_files(&mut sender).await?;
                    }
                }
                prepared = self.reloading.prepared() => {
                    if let Err(reason) = self.finish_reload(prepared).await {
                        self.tell_reloaded(Err(reason), &mut sender).await?;
                    }
                }
                Some((_, sequence)) = self.alive.recv() => {
                    if latest.answered(sequence) {
                        self.tell_administration(&mut sender).await?;
                        sender.send(&FromWorker::Alive { sequence, report: Box::new(self.report()) }).await?;
                    }
                }
                Some(asker) = self.status_asked.recv() => {
                    if self.has_to_ask(asker) {
                        sender.send(&FromWorker::AskStatus).await?;
                    }
                }
                Some(Asked { pool, server, address, reply }) = self.checks_asked.recv() => {
                    let id = self.checks_pending.insert(reply);
                    sender.send(&FromWorker::Check { id, pool, server, address }).await?;
                }
                () = self.discovery.changed() => self.apply_found(&mut sender).await?,
                Some((id, answer)) = answers.recv() => {
                    if let Answer::Changed(_) = &answer {
                        // Who is told that it is done may rely on it.
                        self.apply_found(&mut sender).await?;
                    }
                    if let (Answer::Cleared { .. }, Some(archive)) = (&answer, &self.archive) {
                        // Or they would be back after a restart.
                        archive.write_soon();
                    }
                    // First what is kept for the next worker: who is told that it is done may rely on it.
                    self.tell_administration(&mut sender).await?;
                    sender.send(&FromWorker::Answer { id, answer }).await?;
                }
                synced = self.link.synced_changed() => sender.send(&FromWorker::Synced { synced }).await?,
                Some(index) = self.ended.recv() => return Err(anyhow!("thread {index} ended")),
                _ = ticket_turns.tick() => self.tickets.turn(),
                _ = outcome_turns.tick() => self.site().turn_outcomes(),
                _ = pressure_turns.tick() => {
                    let in_use = self.current.load();
                    pressure.turn(&in_use.site, &in_use.counters);
                }
            }
        }
    }

    /// Has everything that is made of files made anew, on a thread of its own.
    fn take_files(&mut self, files: Files) {
        let site = self.site();
        self.files = files.clone();
        self.taking.begin(move || {
            let refused = site.files_changed(&files);
            if files.are_large() {
                // The former ones and what was made of them, several times over, is free now.
                drop((site, files));
                memory::give_back();
            }
            refused
        });
    }

    /// Everything that is made of files has been made anew; what could not be used, in words.
    fn files_taken(&mut self, warnings: Vec<String>) {
        warnings.iter().filter(|warning| !self.file_warnings.contains(warning)).for_each(|warning| warn!("{warning}"));
        if warnings.is_empty() {
            info!("changed files are in use");
        }
        self.file_warnings = warnings;
    }

    async fn tell_files(&self, sender: &mut link::Sender) -> io::Result<()> {
        let (are_good, certificates) = (self.file_warnings.is_empty(), self.site().certificates());
        sender.send(&FromWorker::FilesTaken { are_good, certificates }).await
    }

    async fn tell_reloaded(&self, result: Result<(), String>, sender: &mut link::Sender) -> io::Result<()> {
        let certificates = self.site().certificates();
        sender.send(&FromWorker::Reloaded { result, certificates }).await
    }

    /// Takes somebody who wants to know how the node is. Whether the guard has to be asked: not while it is being asked, so
    /// that those who ask here cannot keep it busy.
    fn has_to_ask(&mut self, asker: Asker) -> bool {
        self.curious.retain(|asker| !asker.is_closed());
        self.curious.push(asker);
        let is_asked = self.asked_at.is_some_and(|at| at.elapsed() < STATUS_PATIENCE);
        if !is_asked {
            self.asked_at = Some(Instant::now());
        }
        !is_asked
    }

    fn tell_status(&mut self, status: &NodeStatus) {
        self.asked_at = None;
        for asker in self.curious.drain(..) {
            // Whoever asked may have gone away.
            drop(asker.send(Box::new(status.clone())));
        }
    }

    fn site(&self) -> Arc<Site> {
        Arc::clone(&self.current.load().site)
    }

    fn ask_threads(&self, sequence: u64) -> Probe {
        for commands in &self.commands {
            // A full queue is a thread that does not answer: then neither does the worker.
            let _full = commands.try_send(Command::Probe(sequence));
        }
        Probe { sequence, missing: self.commands.len() }
    }

    /// Takes files of the access log that the guard has opened again. They are in the socket before it says so.
    fn logs_reopened(&self, files: &[u16]) -> io::Result<()> {
        let Some(socket) = &self.reopened_logs else { return Ok(()) };
        for (index, file) in files.iter().zip(descriptors::receive(socket, files.len())?) {
            self.access_logs.reopened(usize::from(*index), file);
        }
        Ok(())
    }

    /// Answers a question on a thread of its own: a table may be large, and probes do not wait.
    fn look_up(&self, id: u64, question: Question, answers: mpsc::Sender<(u64, Answer)>) {
        let site = self.site();
        tokio::task::spawn_blocking(move || {
            // Nobody waits for the answer only when the worker ends.
            let _gone = answers.blocking_send((id, questions::answer(&site, &question)));
        });
    }

    /// Tells the guard what to keep for the next worker, if that has changed.
    async fn tell_administration(&mut self, sender: &mut link::Sender) -> io::Result<()> {
        let now = self.site().administration();
        if now == self.administration {
            return Ok(());
        }
        self.administration.clone_from(&now);
        sender.send(&FromWorker::Administration(now)).await
    }

    fn report(&self) -> Report {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let in_use = self.current.load();
        let InUse { site, counters } = &**in_use;
        let expired_lists = site.expired_lists(now.as_secs().cast_signed());
        let sum = |count: fn(&Counters) -> u64| counters.iter().map(|counters| count(counters)).sum();
        let store_warning = site.sessions.store().and_then(Store::warning);
        let mut pools = site.pool_status(counters);
        let overview = self.discovery.overview();
        overview.add_to(&mut pools);
        let log_problems = self.access_logs.status().into_iter().filter_map(|log| log.problem);
        Report {
            connections: sum(|counters| counters.totals.connections.load(Ordering::Relaxed)),
            requests: sum(|counters| counters.totals.requests.load(Ordering::Relaxed)),
            pools,
            listeners: site.listener_load(counters),
            load: site.load_status(),
            sessions: SessionsStatus {
                archive: self.archive.as_ref().map(Archive::status),
                ..site.sessions.status(&site.pools)
            },
            sync: self.link.status(),
            warnings: self
                .warnings
                .iter()
                .chain(&self.file_warnings)
                .cloned()
                .chain(expired_lists)
                .chain(store_warning)
                .chain(log_problems)
                .chain(overview.warnings())
                .collect(),
        }
    }

    /// Serves until the worker that the next guard starts does.
    async fn make_way(mut self, mut receiver: link::Receiver) -> anyhow::Result<()> {
        info!("another worker is about to take over");
        if let Some(admin) = self.admin.take() {
            admin.stop();
        }
        // What is known of the servers stands: the guard that is to come runs no commands for this worker.
        self.checks = Checks::new(Arc::clone(&self.current), command::channel().0);
        // The next worker writes it.
        self.archive = None;
        let giving = self.successor.take().map(|socket| Giving::start(Arc::clone(&self.current), socket));
        let giving = giving.transpose().context("there is no thread for the sessions")?;
        // The next worker speaks with the peer.
        self.link.stop();
        loop {
            tokio::select! {
                biased;
                message = receiver.receive() => match message? {
                    Some(ToWorker::Retire) => return self.drain(Leaving::Yield, giving).await,
                    Some(_) => {}
                    None => return Err(anyhow!("the guard is gone")),
                },
                Some(index) = self.ended.recv() => return Err(anyhow!("thread {index} ended")),
            }
        }
    }

    /// Lets every thread finish, for as long as the configuration has it, and hands the sessions over for the last time.
    async fn drain(mut self, how: Leaving, giving: Option<Giving>) -> anyhow::Result<()> {
        info!("worker drains");
        let archive = self.archive.take();
        let drained = timeout(self.drain_timeout, self.finish_threads(how)).await;
        // Not before: until now requests have made sessions.
        self.link.stop();
        if let Some(giving) = giving {
            giving.finish();
        }
        if let Some(archive) = archive {
            archive.finish().await;
        }
        // Threads that have not finished end with the process.
        let Ok(drained) = drained else { return Ok(()) };
        self.access_logs.finish(LOG_PATIENCE);
        drained
    }

    async fn finish_threads(&mut self, how: Leaving) -> anyhow::Result<()> {
        for commands in &self.commands {
            // A thread that has ended already needs no telling.
            let _ended = commands.send(Command::Leave(how)).await;
        }
        for _ in 0..self.threads.len() {
            self.ended.recv().await;
        }
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    }
}

/// The probe that is being answered.
struct Probe {
    sequence: u64,
    missing: usize,
}

impl Probe {
    /// Takes one thread's answer. True when it was the last one.
    fn answered(&mut self, sequence: u64) -> bool {
        if sequence != self.sequence || self.missing == 0 {
            return false;
        }
        self.missing -= 1;
        self.missing == 0
    }
}

fn build_site(bootstrap: &Bootstrap, config: &Config, files: &Files, tickets: &Arc<Tickets>) -> anyhow::Result<Site> {
    let termination = |listener: &config::Listener| {
        let termination = Termination::new(listener, files, tickets);
        termination.map(|made| made.map(Arc::new)).map_err(|reason| anyhow!("listener {}: {reason}", listener.name))
    };
    let tls = config.listeners.iter().map(termination).collect::<anyhow::Result<_>>()?;
    let access = |listener: &config::Listener| {
        let access = Access::new(listener, files).map(Arc::new);
        access.map_err(|reason| anyhow!("listener {}: {reason}", listener.name))
    };
    let access = config.listeners.iter().map(access).collect::<anyhow::Result<_>>()?;
    let cookie_key = bootstrap.pair_key.as_deref().unwrap_or_default();
    let sessions = Arc::new(Sessions::new(config, place_in_pair(bootstrap, config), cookie_key));
    if let Some(store) = &config.sessions.store {
        let settings = store::Settings::new(store, bootstrap.store.as_ref());
        sessions.share(settings, config).context("no thread for the session store")?;
    }
    let dialers = Dialer::of_pools(config, files).map_err(|reason| anyhow!(reason))?;
    let dialers = dialers.into_iter().map(Arc::new).collect();
    let site = Site::new(config, bootstrap.node.clone(), sessions, cookie_key, Prepared { tls, access, dialers });
    for listener in &site.listeners {
        let taken = listener.pages_changed(files);
        taken.map_err(|reason| anyhow!("listener {}: {reason}", listener.config.name))?;
    }
    Ok(site)
}

/// Starts the thread that keeps the sessions on the disk, where the guard gives a place for them.
fn start_archive(
    current: &Arc<Current>,
    config: &Config,
    further: &mut Vec<(Further, OwnedFd)>,
) -> io::Result<Option<Archive>> {
    let archive = take(further, Further::Archive);
    let Some(writer) = take(further, Further::ArchiveWriter) else { return Ok(None) };
    let interval = config.sessions.snapshot_interval;
    let current_site = Arc::clone(current);
    Archive::start(archive::Setup { current_site, current: archive, writer, interval }).map(Some)
}

/// Starts the threads of the access logs, with the files that the guard gives.
fn start_access_logs(
    bootstrap: &Bootstrap,
    config: &Config,
    further: &mut Vec<(Further, OwnedFd)>,
) -> io::Result<AccessLogs> {
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for (kind, descriptor) in further.drain(..) {
        match kind {
            Further::AccessLog { index } => files.push((usize::from(index), descriptor)),
            kind => others.push((kind, descriptor)),
        }
    }
    *further = others;
    AccessLogs::start(config, &bootstrap.node, bootstrap.threads, files)
}

fn take(further: &mut Vec<(Further, OwnedFd)>, wanted: Further) -> Option<OwnedFd> {
    let position = further.iter().position(|(kind, _)| *kind == wanted)?;
    Some(further.swap_remove(position).1)
}

/// Starts the admin listener, where the guard gives a socket for it, and gives what it asks of the guard.
fn start_admin(
    bootstrap: &Bootstrap,
    config: &Config,
    current: &Arc<Current>,
    socket: Option<OwnedFd>,
    archive: Option<&Archive>,
    logs: &AccessLogs,
    changes: Overview,
) -> io::Result<(mpsc::Receiver<Asker>, Option<server::Accepting>)> {
    let (curious, status_asked) = mpsc::channel(QUEUE_MAX);
    let Some(socket) = socket else { return Ok((status_asked, None)) };
    let overview = changes.clone();
    let (listed, measured, logs) = (Arc::clone(current), Arc::clone(current), logs.watch());
    let accepting = server::start(server::Setup {
        socket: socket.into(),
        current: Arc::clone(current),
        token: bootstrap.admin_token.clone(),
        names: config.admin.iter().flat_map(|admin| &admin.hosts).chain([&bootstrap.node]).cloned().collect(),
        status: curious,
        pools: Box::new(move || {
            let in_use = listed.load();
            let mut pools = in_use.site.pool_status(&in_use.counters);
            overview.add_to(&mut pools);
            pools
        }),
        changes,
        traffic: Box::new(move || {
            let in_use = measured.load();
            in_use.site.traffic(&in_use.counters, logs())
        }),
        cleared: archive.map_or_else(|| Box::new(|| {}) as Box<_>, Archive::writer),
    })?;
    Ok((status_asked, Some(accepting)))
}

/// What is done with facts of the other node.
fn apply(current: &Arc<Current>, tickets: &Arc<TicketKeeper>, changes: Overview) -> peer::Apply {
    let (current, tickets) = (Arc::clone(current), Arc::clone(tickets));
    Box::new(move |facts| {
        let mut has_changes = false;
        for (key, value) in facts {
            match key {
                FactKey::TicketKeys => tickets.received(value),
                FactKey::Admin { server, .. } if ServerChange::name_in_key(server).is_some() => has_changes = true,
                FactKey::Admin { .. } | FactKey::Health { .. } | FactKey::Outcomes { .. } => {
                    current.load().site.apply_fact(key, value);
                }
            }
        }
        if has_changes {
            let _applied_later = changes.changed();
        }
    })
}

/// The other node, where there is one to sync with.
fn sync_pair(bootstrap: &Bootstrap, config: &Config, socket: Option<OwnedFd>) -> anyhow::Result<Option<peer::Pair>> {
    let (Some(ends), Some(key)) = (config.sync_ends(&bootstrap.node), &bootstrap.pair_key) else { return Ok(None) };
    let end = match socket {
        Some(socket) => End::Listen(std::net::TcpListener::from(socket)),
        None if ends.listens => return Err(anyhow!("the guard sent no socket for the sync link")),
        None => End::Connect { from: ends.own.ip(), to: ends.peer },
    };
    let identity = Identity::derive(key, ends.own_node, ends.peer_node).map_err(|reason| anyhow!(reason))?;
    let settings = Settings {
        node: ends.own_node.to_owned(),
        peer: ends.peer_node.to_owned(),
        boot: u64::from_ne_bytes(random()?),
        checksum: config.short_checksum(),
        versions: replica::VERSIONS,
        pools: replicated_pools(config),
        limits: replicated_limits(config),
    };
    Ok(Some(peer::Pair { identity, end, peer: ends.peer.ip(), settings }))
}

/// Whether there is another node to keep sessions for: two nodes and a key that they share.
fn place_in_pair(bootstrap: &Bootstrap, config: &Config) -> Node {
    match config.nodes.iter().position(|node| node.name == bootstrap.node) {
        Some(index) if config.nodes.len() == 2 && bootstrap.pair_key.is_some() => {
            if index == 0 {
                Node::First
            } else {
                Node::Second
            }
        }
        _ => Node::Only,
    }
}

/// Gives each thread its sockets of each address: one, and more where there were more threads before, as connections may
/// wait in them. They come in the order of [`link::Bootstrap`].
fn share_out(
    config: &Config,
    sockets: Vec<OwnedFd>,
    bootstrap: &Bootstrap,
) -> anyhow::Result<Vec<Vec<ListeningSocket>>> {
    let mut sockets = sockets.into_iter().map(std::net::TcpListener::from);
    let mut shares: Vec<_> = (0..bootstrap.threads).map(|_| Vec::new()).collect();
    let addresses = config.listeners.iter().flat_map(|listener| &listener.bind);
    for (&address, &count) in addresses.zip(&bootstrap.socket_counts) {
        for turn in 0..count {
            let socket = sockets.next().context("the guard sent too few sockets")?;
            let share = shares.get_mut(turn % bootstrap.threads.max(1)).context("there is no thread")?;
            share.push(ListeningSocket { address, socket });
        }
    }
    Ok(shares)
}

/// Begins to check servers. A worker after another believes what that one knew, and serves at once; the first one waits a
/// little, so that no request goes to a server that was down before.
async fn start_checks(current: &Arc<Current>, asker: command::Asker, down: Option<&[KnownServer]>) -> Checks {
    let mut checks = Checks::new(Arc::clone(current), asker);
    let first_round = checks.follow();
    match down {
        Some(down) => current.load().site.recall_down(down),
        None => probe::first_round(first_round).await,
    }
    checks
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(bytes)
}

/// 128 random bits in hex.
fn random_token() -> anyhow::Result<String> {
    let bytes: [u8; 16] = random()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
