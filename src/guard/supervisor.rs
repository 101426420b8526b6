//! Starts the worker, watches it, and starts it again. What it says is believed as far as it was asked for, and heard no
//! faster than [`attention`] has it.

pub mod attention;
pub mod former;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, warn};

use self::attention::{Attention, Paced};
use self::former::{Former, Leavers};
use super::administration::Said;
use super::files::Snapshot;
use super::fitness::threads;
use crate::fitness::silence::{Judged, Silence};
use crate::inquiry::{Answer, Question};
use crate::link::files::HandedFiles;
use crate::link::{self, Bootstrap, FromWorker, KnownServer, Report, ToWorker};
use crate::net::child;
use crate::net::descriptors;
use crate::status::{CertificateStatus, PoolStatus, ServerStatus};

/// Time for a new worker to say that it serves.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A worker that has not answered for this long will not come back by itself.
const HUNG_MAX: Duration = Duration::from_secs(10);
/// Time for a worker to end that has closed its link, before its VIPs are given up for that.
const EXIT_TIMEOUT: Duration = Duration::from_millis(2);
/// Time for a worker to read what it is told last.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// And before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a worker that has drained to write its sessions down.
pub const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause before a restart: doubled each time, from this...
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// ...to this...
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// ...and forgotten after a worker has run for this long.
const BACKOFF_RESET: Duration = Duration::from_secs(30);

/// Time between two times that it says whether it is in sync: each is told to every VIP's machine, and logged.
const SYNCED_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two questions of the worker how the node is: the answer is made up each time.
const STATUS_INTERVAL: Duration = Duration::from_millis(10);

/// Questions that a worker has not answered, whether or not somebody still waits for the answer.
const QUESTIONS_MAX: usize = 8;
/// Messages that wait for a worker to read them: all questions, the probe, a status, and to spare.
const MESSAGES_MAX: usize = 16;

/// What the guard asks of the supervisor.
#[derive(Debug)]
pub enum Command {
    /// Have the worker answer a question.
    Ask {
        /// What.
        question: Question,
        /// The answer, or why there is none, in words.
        reply: oneshot::Sender<Result<Answer, String>>,
    },
    /// Tell the worker something, if there is one.
    Tell(ToWorker),
    /// Have the worker go over to another configuration.
    Reload(Box<Reloading>),
    /// Leave the worker to a guard that goes on for this one. Nothing else is done with it afterwards.
    Yield(oneshot::Sender<Result<Left, String>>),
}

/// A worker that serves, as it is left to the next guard.
#[derive(Debug)]
pub struct Left {
    /// Its process id.
    pub pid: u32,
    /// The link to it.
    pub link: OwnedFd,
    /// Brings its sessions.
    pub sessions: OwnedFd,
    /// The servers that are down.
    pub down: Option<Vec<KnownServer>>,
}

/// Another configuration, on its way to the worker.
pub struct Reloading {
    /// What the worker is told.
    pub message: link::Reload,
    /// What its files hold.
    pub files: Arc<HandedFiles>,
    /// The descriptors that go with it.
    pub descriptors: Vec<OwnedFd>,
    /// The listening sockets of the next workers, in the order of [`Bootstrap`].
    pub sockets: Vec<Arc<TcpListener>>,
    /// Time that the worker gets to drain.
    pub drain_timeout: Duration,
    /// Called once the worker uses it: the next one is to begin with it.
    pub commit: Box<dyn FnOnce()>,
    /// Told what came of it. Dropped when the worker ends before it has said so: the next one begins with what was in use.
    pub reply: oneshot::Sender<Result<(), String>>,
}

impl std::fmt::Debug for Reloading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading").field("message", &self.message).finish_non_exhaustive()
    }
}

/// What the supervisor tells the guard.
#[derive(Debug)]
pub enum Event {
    /// A worker was started.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It serves.
    Ready,
    /// It answered a probe.
    Alive(Box<Report>),
    /// Whether it has what the peer has changed.
    Synced(bool),
    /// It does not answer and will not.
    Hung {
        /// Time without an answer.
        silent_for: Duration,
        /// What shows it, in words.
        evidence: String,
        /// It would go on if it got a processor.
        is_starved: bool,
    },
    /// It has closed its link and takes its time to end: the kernel closes its connections one by one.
    Closed,
    /// It has ended, and why, in words.
    Ended(String),
    /// It wants to know how the node is.
    StatusAsked,
    /// It wants a command to be run that checks a server.
    CheckAsked(CheckAsked),
    /// What operators have said of servers, or the servers that were found, for the next worker.
    Administration(Said),
    /// The certificates that it serves.
    Certificates(Vec<CertificateStatus>),
    /// It has drained and ended, as it was told to.
    Drained,
}

/// A check that a worker has the guard run.
#[derive(Debug)]
pub struct CheckAsked {
    /// What the answer has to bear.
    pub id: u64,
    /// The pool whose command it is.
    pub pool: String,
    /// The server's name, as the worker has it.
    pub server: String,
    /// The server's address, as the worker has it.
    pub address: SocketAddr,
}

/// What a worker gets besides the listeners' sockets.
pub type Handing = (Bootstrap, Vec<OwnedFd>);

/// How workers are started and watched.
pub struct Supervisor {
    /// What each worker gets, with the descriptors that [`Bootstrap::further`] lists.
    pub bootstrap: Box<dyn Fn() -> Handing>,
    /// The listening sockets, in the order of [`Bootstrap`].
    pub sockets: Vec<Arc<TcpListener>>,
    /// Takes the descriptors of another configuration to the worker that runs.
    pub reload_socket: Option<StdUnixStream>,
    /// Time between two probes.
    pub probe_interval: Duration,
    /// Time without an answer after which its threads are looked at, and it counts as hung or as starved.
    pub probe_timeout: Duration,
    /// Time that it gets to drain.
    pub drain_timeout: Duration,
    /// To the guard.
    pub events: mpsc::Sender<Event>,
    /// For the worker that runs. What comes before it serves waits for it.
    pub orders: mpsc::Receiver<ToWorker>,
    /// One message: drain and end.
    pub stop: mpsc::Receiver<()>,
    /// From the guard.
    pub commands: mpsc::Receiver<Command>,
    /// What the worker needs of files.
    pub files: watch::Receiver<Snapshot>,
    /// What they held when all of them were last good. Each worker begins with these, and then takes what there is now, so
    /// that one that dies while a file is bad comes back.
    pub good_files: Arc<HandedFiles>,
    /// The servers that were down by the last report of a worker that had checked them all.
    pub down: Option<Vec<KnownServer>>,
    /// Of the worker that runs, for a guard that goes on for this one: the link, and where its sessions come.
    pub to_leave: Option<(OwnedFd, StdUnixStream)>,
    /// The worker that serves until the first one of this guard does, and where its sessions come.
    pub former: Option<(Former, OwnedFd)>,
    /// Workers that finish.
    pub leavers: Leavers,
}

/// `None` while the worker still knows less than one before it may have known.
fn down_servers(report: &Report) -> Option<Vec<KnownServer>> {
    let servers = || report.pools.iter().flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)));
    let known =
        |pool: &PoolStatus, server: &ServerStatus| KnownServer { pool: pool.name.clone(), server: server.name.clone() };
    let are_checked = servers().all(|(_, server)| server.checked);
    let down = servers().filter(|(_, server)| !server.up);
    are_checked.then(|| down.map(|(pool, server)| known(pool, server)).collect())
}

/// Why watching a worker ended.
enum Ending {
    /// By itself, or because it had to be killed.
    Ended(String),
    /// Because it was told to.
    Drained,
}

impl Supervisor {
    /// Keeps a worker running until it is told to stop.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let started = Instant::now();
            let ending = match self.spawn() {
                Ok((child, socket, files)) => self.watch(child, socket, files).await,
                Err(error) => Ending::Ended(format!("it could not be started: {error}")),
            };
            match ending {
                Ending::Drained => return self.drained().await,
                Ending::Ended(reason) if self.former.is_some() => {
                    warn!(reason, "the worker that is to take over has ended, and the one before goes on for now");
                }
                Ending::Ended(reason) => self.tell(Event::Ended(reason)).await,
            }
            if started.elapsed() >= BACKOFF_RESET {
                backoff = BACKOFF_MIN;
            }
            let restart_at = Instant::now() + backoff;
            loop {
                tokio::select! {
                    () = sleep_until(restart_at) => break,
                    _ = self.stop.recv() => return self.drained().await,
                    () = gone(&mut self.former) => self.former_ended().await,
                    Some(command) = self.commands.recv() => match (command, self.leave_former()) {
                        (Command::Yield(reply), Some(left)) => {
                            drop(reply.send(Ok(left)));
                            std::future::pending::<()>().await;
                        }
                        (command, _) => refuse(command, "there is no worker now; it is restarted"),
                    },
                }
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// The node stops, and the worker has ended. Those that finish have the same time.
    async fn drained(&mut self) {
        if let Some((former, _)) = self.former.take() {
            former.retire(&self.leavers, self.drain_timeout + ARCHIVE_TIMEOUT);
        }
        self.leavers.finish(self.drain_timeout).await;
        self.tell(Event::Drained).await;
    }

    /// The worker that served has ended, and no other one serves yet.
    async fn former_ended(&mut self) {
        if let Some((former, _)) = self.former.take() {
            former.forget(&self.leavers);
            self.tell(Event::Ended("the worker that served until now has ended".to_owned())).await;
        }
    }

    /// Starts a worker and hands it its bootstrap, the files among it. Never waits for it.
    fn spawn(&mut self) -> io::Result<(Child, UnixStream, Arc<HandedFiles>)> {
        let (child, ours) = child::spawn("worker", child::Capabilities::None)?;
        let files = Arc::clone(&self.files.borrow_and_update().files);
        let (mut bootstrap, mut further) = (self.bootstrap)();
        let (reload_socket, theirs) = StdUnixStream::pair()?;
        // A worker that hangs may not keep the guard waiting.
        reload_socket.set_nonblocking(true)?;
        self.reload_socket = Some(reload_socket);
        bootstrap.further.push(link::Further::Reload);
        further.push(theirs.into());
        let (sessions, theirs) = StdUnixStream::pair()?;
        self.to_leave = Some((ours.try_clone()?.into(), sessions));
        bootstrap.further.push(link::Further::Successor);
        further.push(theirs.into());
        if let Some((_, sessions)) = &self.former {
            bootstrap.further.push(link::Further::Predecessor);
            further.push(sessions.try_clone()?);
        }
        bootstrap.files = HandedFiles::clone(&self.good_files);
        bootstrap.down.clone_from(&self.down);
        bootstrap.changed_files = (files != self.good_files).then(|| HandedFiles::clone(&files));
        let sockets = self.sockets.iter().map(|socket| socket.as_fd()).chain(further.iter().map(AsFd::as_fd));
        link::send_bootstrap(&ours, &bootstrap, &sockets.collect::<Vec<_>>())?;
        ours.set_nonblocking(true)?;
        Ok((child, UnixStream::from_std(ours)?, files))
    }

    async fn watch(&mut self, mut child: Child, socket: UnixStream, files: Arc<HandedFiles>) -> Ending {
        let pid = child.id().unwrap_or_default();
        self.tell(Event::Started { pid }).await;
        let (sender, mut receiver) = link::halves(socket);
        let (to_worker, written) = write_to(sender);
        let mut written = Some(written);
        let mut questions = Questions::default();
        let mut probes = interval(self.probe_interval);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut state = Watched::new(Instant::now());
        let mut order = None;
        let mut heard = Heard::new(Instant::now());
        heard.files = Some(files);
        loop {
            let (now, has_former) = (Instant::now(), self.former.is_some());
            self.pass_on(&mut heard, now).await;
            if let Some(reloading) = heard.waiting.take() {
                self.reload(reloading, &mut heard, &state, &to_worker);
            }
            // What has arrived comes before any judgement: this loop may have been late itself.
            tokio::select! {
                biased;
                ended = child.wait() => return Ending::Ended(heard.failure.unwrap_or_else(|| exit_reason(ended))),
                _ = self.stop.recv() => return self.drain(child, to_worker).await,
                message = receiver.receive(), if heard.listens(now) => {
                    heard.spend(Instant::now(), receiver.last_len_bytes());
                    match message {
                        Ok(Some(message)) => {
                            self.hear(message, &mut state, &mut heard, &mut questions).await;
                            if state.is_ready && let Some((former, _)) = self.former.take() {
                                former.retire(&self.leavers, self.drain_timeout + ARCHIVE_TIMEOUT);
                            }
                            if let Some(good) = heard.good_files.take() {
                                self.good_files = good;
                            }
                            if let Some(result) = heard.reloaded.take() {
                                self.reloaded(heard.reloading.take(), result);
                            }
                            self.down = heard.down.take().or(self.down.take());
                        }
                        // It is about to end, or talks nonsense; either way it is of no more use.
                        Ok(None) | Err(_) => return Ending::Ended(self.last_words(child, heard.failure).await),
                    }
                }
                // Orders may come in a burst, one for each vip. A worker that reads none answers no probe either.
                Some(next) = self.orders.recv(), if state.is_ready && order.is_none() => order = Some(next),
                Ok(room) = to_worker.clone().reserve_owned(), if order.is_some() => {
                    if let Some(order) = order.take() {
                        room.send(order);
                    }
                }
                // The next ones when these are taken: then it is known which of them are good.
                Ok(()) = self.files.changed(), if state.is_ready && order.is_none() && heard.is_free() && heard.waiting.is_none() => {
                    let files = Arc::clone(&self.files.borrow_and_update().files);
                    order = Some(ToWorker::Files(Box::new(HandedFiles::clone(&files))));
                    heard.files = Some(files);
                }
                // One question at a time: a worker that is behind must not have to answer the last of many.
                _ = probes.tick(), if state.may_ask() => {
                    let probe = state.ask(self.probe_interval, self.probe_timeout);
                    // A worker that hangs reads nothing. The socket and the queue hold far more than the one probe.
                    if to_worker.try_send(probe).is_err() {
                        return kill(child, "it reads no probes".to_owned()).await;
                    }
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Ask { question, reply } => questions.ask(question, reply, &state, &to_worker),
                    // What it has asked for and does not read is its own loss.
                    Command::Tell(message) => drop(to_worker.try_send(message)),
                    Command::Reload(reloading) => self.reload(*reloading, &mut heard, &state, &to_worker),
                    Command::Yield(reply) => {
                        let left = if let Some(left) = self.leave_former() {
                            Ok(left)
                        } else if state.is_ready && !state.is_hung {
                            self.leave(pid, &to_worker, &mut written).await
                        } else {
                            Err("the worker does not answer yet: try again in a moment".to_owned())
                        };
                        let is_left = left.is_ok();
                        // The guard waits for it.
                        drop(reply.send(left));
                        if is_left {
                            // The process goes on as another one, with the worker as its child.
                            std::future::pending::<()>().await;
                        }
                    }
                },
                () = gone(&mut self.former) => self.former_ended().await,
                () = sleep_until(heard.wakes_at(now)) => {}
                () = sleep_until(state.look_at()), if state.may_look() => {
                    if let Judged::Hung { silent_for, evidence, is_starved } = state.look(pid) {
                        self.tell(Event::Hung { silent_for, evidence, is_starved }).await;
                    }
                }
                () = sleep_until(state.give_up_at(has_former)), if !state.is_ready || state.is_hung => {
                    return kill(child, state.why_given_up()).await;
                }
            }
        }
    }

    /// Leaves the worker that another guard has left to this one, where that still serves.
    fn leave_former(&self) -> Option<Left> {
        let (former, sessions) = self.former.as_ref()?;
        let (pid, link) = former.leave().ok()?;
        Some(Left { pid, link, sessions: sessions.try_clone().ok()?, down: self.down.clone() })
    }

    /// Has the worker serve until the one that the next guard starts does, and leaves it. Nothing of a line is on its way
    /// then.
    async fn leave(
        &mut self,
        pid: u32,
        to_worker: &mpsc::Sender<ToWorker>,
        written: &mut Option<JoinHandle<()>>,
    ) -> Result<Left, String> {
        let not_now = |_| "the worker reads nothing: `baton status` says how it is".to_owned();
        to_worker.try_send(ToWorker::Yield).map_err(|error| not_now(error.to_string()))?;
        if let Some(written) = written.take() {
            let written = timeout(SEND_TIMEOUT, written).await.map_err(|error| not_now(error.to_string()))?;
            written.map_err(|error| not_now(error.to_string()))?;
        }
        let (link, sessions) = self.to_leave.take().ok_or("there is no worker now")?;
        Ok(Left { pid, link, sessions: sessions.into(), down: self.down.clone() })
    }

    /// Takes what a worker says.
    async fn hear(&self, message: FromWorker, state: &mut Watched, heard: &mut Heard, questions: &mut Questions) {
        let now = Instant::now();
        match message {
            FromWorker::Ready => {
                if !state.is_ready {
                    state.ready(now);
                    self.tell(Event::Ready).await;
                }
            }
            FromWorker::Alive { sequence, report } => {
                // What was not asked for shows nothing.
                if state.answered(now, sequence) {
                    heard.down = down_servers(&report);
                    self.tell(Event::Alive(report)).await;
                }
            }
            FromWorker::Synced { synced } => heard.synced.put(synced),
            FromWorker::Failed { reason } => heard.failure = Some(reason),
            FromWorker::Answer { id, answer } => questions.answered(id, answer),
            FromWorker::AskStatus => heard.status_asked.put(()),
            FromWorker::Check { id, pool, server, address } => {
                self.tell(Event::CheckAsked(CheckAsked { id, pool, server, address })).await;
            }
            FromWorker::Administration(facts) => self.tell(Event::Administration(Said::Facts(facts))).await,
            FromWorker::Found(lists) => self.tell(Event::Administration(Said::Found(lists))).await,
            FromWorker::Reloaded { result, certificates } => {
                heard.reloaded = Some(result);
                self.tell(Event::Certificates(certificates)).await;
            }
            FromWorker::FilesTaken { are_good, certificates } => {
                heard.good_files = heard.files.take().filter(|_| are_good);
                self.tell(Event::Certificates(certificates)).await;
            }
        }
    }

    /// Passes another configuration on to the worker.
    fn reload(&self, reloading: Reloading, heard: &mut Heard, state: &Watched, to_worker: &mpsc::Sender<ToWorker>) {
        let refusal = if !state.is_ready || state.is_hung {
            Some("the worker does not answer yet: try again in a moment; `baton status` says how it is".to_owned())
        } else if !heard.is_free() {
            // Files are on their way. There is one reload at a time.
            heard.waiting = Some(reloading);
            return;
        } else {
            self.hand_over(&reloading, to_worker).err()
        };
        match refusal {
            // Whoever asked may have gone away.
            Some(reason) => drop(reloading.reply.send(Err(reason))),
            None => heard.reloading = Some(reloading),
        }
    }

    fn hand_over(&self, reloading: &Reloading, to_worker: &mpsc::Sender<ToWorker>) -> Result<(), String> {
        let socket = self.reload_socket.as_ref().ok_or("there is no worker now")?;
        let room = to_worker.try_reserve().map_err(|_| "the worker reads nothing")?;
        let descriptors: Vec<_> = reloading.descriptors.iter().map(AsFd::as_fd).collect();
        // First the descriptors: the worker waits for them when it has read the message.
        descriptors::send(socket, &descriptors).map_err(|error| format!("the worker takes no sockets: {error}"))?;
        room.send(ToWorker::Reload(Box::new(reloading.message.clone())));
        Ok(())
    }

    /// The worker has gone over to another configuration, or has not.
    fn reloaded(&mut self, reloading: Option<Reloading>, result: Result<(), String>) {
        let Some(Reloading { files, sockets, drain_timeout, commit, reply, .. }) = reloading else { return };
        if result.is_ok() {
            self.sockets = sockets;
            self.good_files = files;
            self.drain_timeout = drain_timeout;
            commit();
        }
        // Whoever asked may have gone away.
        drop(reply.send(result));
    }

    /// Tells the guard what it may be told now of what a worker has said.
    async fn pass_on(&self, heard: &mut Heard, now: Instant) {
        if let Some(synced) = heard.synced.take(now) {
            self.tell(Event::Synced(synced)).await;
        }
        if let Some(()) = heard.status_asked.take(now) {
            self.tell(Event::StatusAsked).await;
        }
    }

    /// Why a worker ended whose link has closed. A process that ends closes its link first, and only then can be asked how
    /// it ended.
    async fn last_words(&self, mut child: Child, failure: Option<String>) -> String {
        let mut ended = timeout(EXIT_TIMEOUT, child.wait()).await;
        if ended.is_err() {
            if self.former.is_none() {
                self.tell(Event::Closed).await;
            }
            ended = timeout(END_TIMEOUT, child.wait()).await;
        }
        if ended.is_err() {
            // It may have ended by itself a moment ago, which is as good.
            drop(child.kill().await);
        }
        failure.unwrap_or_else(|| ended.map_or_else(|_| "it closed its link".to_owned(), exit_reason))
    }

    async fn drain(&self, mut child: Child, to_worker: mpsc::Sender<ToWorker>) -> Ending {
        let is_asked = to_worker.try_send(ToWorker::Drain).is_ok();
        if is_asked && timeout(self.drain_timeout + ARCHIVE_TIMEOUT, child.wait()).await.is_ok() {
            return Ending::Drained;
        }
        kill(child, String::new()).await;
        Ending::Drained
    }

    async fn tell(&self, event: Event) {
        // The guard reads this queue for as long as it lives.
        drop(self.events.send(event).await);
    }
}

/// Writes to a worker what is put into the queue, until either side is gone or the last message is out. A task of its own,
/// so that a worker that does not read keeps nobody waiting.
fn write_to(mut sender: link::Sender) -> (mpsc::Sender<ToWorker>, JoinHandle<()>) {
    let (queue, mut messages) = mpsc::channel(MESSAGES_MAX);
    let writing = tokio::task::spawn_local(async move {
        while let Some(message) = messages.recv().await {
            let is_last = matches!(message, ToWorker::Yield);
            // That it has closed its link is seen where it is read.
            if sender.send(&message).await.is_err() {
                return;
            }
            if is_last {
                // Dropped, it would shut the connection down for the next guard as well.
                return sender.forget();
            }
        }
    });
    (queue, writing)
}

/// Waits until the worker before, where there is one, ends by itself.
async fn gone(former: &mut Option<(Former, OwnedFd)>) {
    match former {
        Some((former, _)) => former.gone().await,
        None => std::future::pending().await,
    }
}

/// Answers a command that there is no worker for.
fn refuse(command: Command, reason: &str) {
    // Whoever asked may have gone away.
    match command {
        Command::Ask { reply, .. } => drop(reply.send(Err(reason.to_owned()))),
        Command::Reload(reloading) => drop(reloading.reply.send(Err(reason.to_owned()))),
        Command::Yield(reply) => drop(reply.send(Err(reason.to_owned()))),
        Command::Tell(_) => {}
    }
}

/// Questions on their way. One that nobody waits for any more counts until the worker has answered it, so that a worker
/// that is behind is not given more and more.
#[derive(Default)]
struct Questions {
    last_id: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Answer, String>>>,
}

impl Questions {
    fn ask(
        &mut self,
        question: Question,
        reply: oneshot::Sender<Result<Answer, String>>,
        state: &Watched,
        to_worker: &mpsc::Sender<ToWorker>,
    ) {
        let refusal = if !state.is_ready {
            Some("the worker is not ready yet: try again in a moment; `baton status` says how it is")
        } else if state.is_hung {
            Some("the worker does not answer")
        } else if self.waiting.len() >= QUESTIONS_MAX {
            Some("the worker has too many questions to answer already: try again")
        } else {
            None
        };
        if let Some(reason) = refusal {
            return refuse(Command::Ask { question, reply }, reason);
        }
        self.last_id += 1;
        match to_worker.try_send(ToWorker::Ask { id: self.last_id, question }) {
            Ok(()) => drop(self.waiting.insert(self.last_id, reply)),
            Err(_) => drop(reply.send(Err("the worker reads nothing".to_owned()))),
        }
    }

    fn answered(&mut self, id: u64, answer: Answer) {
        if let Some(reply) = self.waiting.remove(&id) {
            drop(reply.send(Ok(answer)));
        }
    }
}

/// What a worker has said, and how fast it is listened to.
struct Heard {
    attention: Attention,
    has_warned: bool,
    /// Why it cannot start, as it says.
    failure: Option<String>,
    synced: Paced<bool>,
    status_asked: Paced<()>,
    /// Files that it was handed and has not taken yet.
    files: Option<Arc<HandedFiles>>,
    /// Files that it has found to be good.
    good_files: Option<Arc<HandedFiles>>,
    /// A configuration that it was handed and has not taken yet, and what it says of it.
    reloading: Option<Reloading>,
    /// One that waits until it has taken files.
    waiting: Option<Reloading>,
    reloaded: Option<Result<(), String>>,
    /// What its last report says, for the next worker.
    down: Option<Vec<KnownServer>>,
}

impl Heard {
    fn new(now: Instant) -> Self {
        let (synced, status_asked) = (Paced::new(now, SYNCED_INTERVAL), Paced::new(now, STATUS_INTERVAL));
        Self {
            attention: Attention::new(now),
            has_warned: false,
            failure: None,
            synced,
            status_asked,
            files: None,
            good_files: None,
            reloading: None,
            waiting: None,
            reloaded: None,
            down: None,
        }
    }

    /// Whether it has taken all that it was handed.
    fn is_free(&self) -> bool {
        self.files.is_none() && self.reloading.is_none()
    }

    fn listens(&self, now: Instant) -> bool {
        self.attention.listens_at() <= now
    }

    fn spend(&mut self, now: Instant, len_bytes: usize) {
        self.attention.spend(now, len_bytes);
        if !self.listens(now) && !std::mem::replace(&mut self.has_warned, true) {
            warn!("the worker says more than it is asked for; it is read more slowly");
        }
    }

    /// When there is something to do that nothing else wakes for. Never when it listens and nothing waits.
    fn wakes_at(&self, now: Instant) -> Instant {
        let listens_at = Some(self.attention.listens_at()).filter(|at| *at > now);
        let due = [listens_at, self.synced.due_at(), self.status_asked.due_at()];
        due.into_iter().flatten().min().unwrap_or(now + HUNG_MAX)
    }
}

/// A worker that runs, as the supervisor sees it.
struct Watched {
    started: Instant,
    is_ready: bool,
    is_hung: bool,
    last_alive: Instant,
    sequence: u64,
    /// While a question waits for its answer.
    silence: Option<Silence>,
}

impl Watched {
    fn new(now: Instant) -> Self {
        Self { started: now, is_ready: false, is_hung: false, last_alive: now, sequence: 0, silence: None }
    }

    fn ready(&mut self, now: Instant) {
        (self.is_ready, self.last_alive) = (true, now);
    }

    /// Takes an answer. False when it was not asked for.
    fn answered(&mut self, now: Instant, sequence: u64) -> bool {
        if self.silence.is_none() || sequence != self.sequence {
            return false;
        }
        (self.is_hung, self.silence, self.last_alive) = (false, None, now);
        true
    }

    fn may_ask(&self) -> bool {
        self.is_ready && self.silence.is_none()
    }

    fn ask(&mut self, probe_interval: Duration, probe_timeout: Duration) -> ToWorker {
        let (now, last_alive) = (Instant::now().into_std(), self.last_alive.into_std());
        self.silence = Some(Silence::begin(now, last_alive, probe_interval, probe_timeout));
        self.sequence += 1;
        ToWorker::Probe { sequence: self.sequence }
    }

    fn may_look(&self) -> bool {
        self.silence.is_some() && !self.is_hung
    }

    fn look_at(&self) -> Instant {
        self.silence.as_ref().map_or(self.last_alive, |silence| Instant::from_std(silence.deadline()))
    }

    fn look(&mut self, pid: u32) -> Judged {
        let Some(silence) = &mut self.silence else { return Judged::Wait };
        let threads = threads::of_worker(pid);
        debug!(?threads, "the worker has not answered yet");
        let judged = silence.look(Instant::now().into_std(), threads);
        self.is_hung = judged != Judged::Wait;
        judged
    }

    /// A worker that another one serves in place of has time.
    fn give_up_at(&self, has_former: bool) -> Instant {
        let start_timeout = if has_former { START_TIMEOUT * 6 } else { START_TIMEOUT };
        if self.is_ready { self.last_alive + HUNG_MAX } else { self.started + start_timeout }
    }

    fn why_given_up(&self) -> String {
        if self.is_ready {
            format!("it did not answer for {} s and was killed", HUNG_MAX.as_secs())
        } else {
            format!("it did not serve within {} s", self.started.elapsed().as_secs())
        }
    }
}

async fn kill(mut child: Child, reason: String) -> Ending {
    // It may have ended by itself a moment ago, which is as good.
    drop(child.kill().await);
    Ending::Ended(reason)
}

/// How a process ended, in words.
pub fn exit_reason(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("it exited with status {code}"),
            (None, Some(signal)) => format!("it was killed by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        },
        Err(error) => format!("it cannot be waited for: {error}"),
    }
}
