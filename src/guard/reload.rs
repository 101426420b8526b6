//! Another configuration for a node that runs: the file is read again, checked whole, and handed to the worker. What is
//! wrong with it, or cannot be changed in this way, leaves everything as it was.
//!
//! All that may block (the file and those that it names, new sockets) is done on a thread of its own; the guard's loop
//! takes what came of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{error, info};

use super::Bootstrapping;
use super::access_log;
use super::control::{Answer, Reply};
use super::files;
use super::fitness::Checks;
use super::heartbeat;
use super::listeners;
use super::state::Node;
use super::supervisor::{Command, Reloading};
use super::takeover::check::{self, Approved};
use crate::config::{self, Changes, Config, NodeHints, Scope};
use crate::link;
use crate::link::files::HandedFiles;
use crate::status::RefusedReload;

/// Time for what may block and is of this machine alone: to read the file and those that it names, to open sockets. With the
/// worker's time it is less than who asks waits.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(9);

/// The same to have another program approved, which has a limit of its own for its answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for the worker to go over to another configuration.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sockets of each address, one a thread.
pub type Listening = BTreeMap<SocketAddr, Vec<Arc<TcpListener>>>;

/// How the configuration in use came to be.
#[derive(Debug)]
pub struct Loaded {
    at: Instant,
    refused: Option<(Instant, String)>,
}

impl Loaded {
    /// At the start.
    pub fn now() -> Self {
        Self { at: Instant::now(), refused: None }
    }

    /// Time since then, in milliseconds.
    pub fn age_ms(&self) -> u64 {
        millis(self.at.elapsed())
    }

    /// The reload that was refused since.
    pub fn refused(&self) -> Option<RefusedReload> {
        let (at, reason) = self.refused.as_ref()?;
        Some(RefusedReload { age_ms: millis(at.elapsed()), reason: reason.clone() })
    }

    /// Takes what came of a reload.
    pub fn take(&mut self, result: Result<(), &String>) {
        match result {
            Ok(()) => *self = Self::now(),
            Err(reason) => self.refused = Some((Instant::now(), reason.clone())),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a reload comes to.
pub enum Done {
    /// The configuration that is in use now, and what it changed.
    InPlace(Box<Config>, Vec<String>),
    /// A program that is to take over with the configuration.
    TakeOver(Approved),
}

/// What came of a reload.
pub struct Outcome {
    /// What it comes to, or why the configuration before is still in use.
    pub result: Result<Done, String>,
    /// Who asked, where it was no signal.
    pub asker: Option<oneshot::Sender<Reply>>,
}

impl Outcome {
    /// Says in the log and to who asked what came of it.
    pub fn tell(self) {
        let reply = match self.result {
            // It ends with this guard.
            Ok(Done::TakeOver(_)) => return,
            Ok(Done::InPlace(_, changes)) => {
                info!(changes = changes.join("; "), "the configuration was reloaded");
                Reply::Ok(Answer::Reloaded(changes))
            }
            Err(reason) => {
                error!(reason, "the reload is refused; the configuration before stays in use");
                Reply::Error(reason)
            }
        };
        // Whoever asked may have gone away.
        self.asker.map(|asker| asker.send(reply));
    }
}

/// Who has reloads done, one at a time.
pub struct Reloader {
    bootstrapping: Rc<RefCell<Bootstrapping>>,
    worker: mpsc::Sender<Command>,
    outcomes: mpsc::Sender<Outcome>,
    is_busy: bool,
    /// Somebody wants another one, as the file may have changed since the one under way read it.
    waiting: Option<Vec<Option<oneshot::Sender<Reply>>>>,
}

impl Reloader {
    /// One that has nothing to do. What comes of each reload goes to `outcomes`, which the guard's loop reads.
    pub fn new(
        bootstrapping: Rc<RefCell<Bootstrapping>>,
        worker: mpsc::Sender<Command>,
        outcomes: mpsc::Sender<Outcome>,
    ) -> Self {
        Self { bootstrapping, worker, outcomes, is_busy: false, waiting: None }
    }

    /// Begins one, or has it done after the one under way. Does not wait.
    pub fn start(&mut self, asker: Option<oneshot::Sender<Reply>>) {
        if self.is_busy {
            let waiting = self.waiting.get_or_insert_default();
            if waiting.len() < super::QUEUE_MAX {
                waiting.push(asker);
            }
            return;
        }
        self.is_busy = true;
        let (bootstrapping, worker) = (Rc::clone(&self.bootstrapping), self.worker.clone());
        let outcomes = self.outcomes.clone();
        tokio::task::spawn_local(async move {
            let result = reload(&bootstrapping, &worker).await.map_err(|error| format!("{error:#}"));
            // The guard reads this queue for as long as it lives.
            drop(outcomes.send(Outcome { result, asker }).await);
        });
    }

    /// One is done.
    pub fn done(&mut self) {
        self.is_busy = false;
        for asker in self.waiting.take().into_iter().flatten() {
            self.start(asker);
        }
    }
}

/// What another configuration needs.
enum Plan {
    InPlace(Box<Prepared>),
    /// Another program, or this one anew, has to take over.
    TakeOver(Box<Present>),
}

/// What was read and opened for another configuration.
struct Prepared {
    config: Config,
    text: String,
    changes: Vec<String>,
    reader: files::Reader,
    files: Arc<HandedFiles>,
    /// The files, for the worker.
    memory: OwnedFd,
    opened: Listening,
    logs: Vec<access_log::Opened>,
}

async fn reload(bootstrapping: &Rc<RefCell<Bootstrapping>>, worker: &mpsc::Sender<Command>) -> anyhow::Result<Done> {
    let present = Present::of(&bootstrapping.borrow());
    let prepared = match within(PREPARE_TIMEOUT, move || present.prepare()).await? {
        Plan::InPlace(prepared) => *prepared,
        Plan::TakeOver(present) => {
            return within(ASK_TIMEOUT, move || present.ask_program()).await.map(Done::TakeOver);
        }
    };
    let Prepared { config, text, changes, reader, files, memory, opened, logs } = prepared;
    let mut descriptors = vec![memory];
    for socket in opened.values().flatten() {
        descriptors.push(socket.try_clone()?.into());
    }
    let mut new_logs = Vec::new();
    for log in &logs {
        if let Some(file) = &log.file {
            descriptors.push(file.try_clone()?.into());
            new_logs.push(log.index);
        }
    }
    let message =
        link::Reload { config_text: text.clone(), addresses: opened.keys().copied().collect(), logs: new_logs };
    let listening = merged(&bootstrapping.borrow().listening, opened, &config);
    let sockets = bootstrapping.borrow().sockets(&config, &listening);
    let (reply, answered) = oneshot::channel();
    let commit = commit(bootstrapping, &config, text, listening, reader, logs);
    let drain_timeout = config.worker.drain_timeout;
    let reloading = Reloading { message, files, descriptors, sockets, drain_timeout, commit, reply };
    if worker.try_send(Command::Reload(Box::new(reloading))).is_err() {
        bail!("too much waits for the worker: try again");
    }
    match timeout(PATIENCE, answered).await {
        Ok(Ok(Ok(()))) => Ok(Done::InPlace(Box::new(config), changes)),
        Ok(Ok(Err(reason))) => Err(anyhow!(reason)),
        Ok(Err(_)) => Err(anyhow!("the worker ended before it used the new configuration; the next one has the old")),
        Err(_) => Err(anyhow!("the worker does not answer: `baton status` says how it is")),
    }
}

/// Does what may block on a thread of its own.
///
/// # Errors
/// That of the work, or that it takes longer than `limit`. The thread cannot be ended: what it still comes to is dropped.
async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let Ok(done) = timeout(limit, tokio::task::spawn_blocking(work)).await else {
        bail!(
            "the configuration and the files that it names are not read after {} s: a disk or a file server may hang; \
             mend that, or name other files, and try again",
            limit.as_secs()
        );
    };
    done?
}

/// What is in use, for a thread that may block.
struct Present {
    path: PathBuf,
    node: String,
    named: Option<String>,
    program: PathBuf,
    config: Config,
    text: String,
    logs: Vec<PathBuf>,
    /// Addresses of listeners.
    known: Vec<SocketAddr>,
    /// Other addresses that are bound.
    others: Vec<SocketAddr>,
}

impl Present {
    fn of(now: &Bootstrapping) -> Self {
        let others = now.sync_socket.iter().map(|socket| socket.local_addr());
        let others = others.chain(now.admin.iter().map(|admin| admin.socket.local_addr()));
        Self {
            path: now.path.clone(),
            node: now.node.clone(),
            named: now.named.clone(),
            program: now.program.clone(),
            config: now.config.clone(),
            text: now.text.clone(),
            logs: now.access_logs.paths(),
            known: now.listening.keys().copied().collect(),
            others: others.flatten().collect(),
        }
    }

    /// Reads and opens all that the configuration in the file needs, where it can be changed over to in place.
    fn prepare(self) -> anyhow::Result<Plan> {
        if check::is_other(&self.program) {
            return Ok(Plan::TakeOver(Box::new(self)));
        }
        let text = config::read(&self.path)?;
        let hints = NodeHints { flag: Some(&self.node), environment: None, host_name: &self.node };
        let hints = if self.config.nodes.is_empty() { NodeHints { flag: None, ..hints } } else { hints };
        let (config, _) = config::parse_for_node(&text, &self.path, Scope::Machine, hints)?;
        let Changes { lines, fixed } = Changes::between(&self.config, &config);
        if !fixed.is_empty() {
            return Ok(Plan::TakeOver(Box::new(self)));
        }
        let reader = files::Reader::start(config.worker_files())?;
        let files = reader.snapshot().files;
        let memory = link::in_memory(&*files).context("the files cannot be handed over")?;
        let opened = listeners::open_new(&config, config.worker.threads, &self.known)?;
        let logs = access_log::open_new(&config, &self.logs)?;
        let prepared = Prepared { config, text, changes: lines, reader, files, memory, opened, logs };
        Ok(Plan::InPlace(Box::new(prepared)))
    }

    /// Has a program approved that takes over with the configuration in the file.
    fn ask_program(self) -> anyhow::Result<Approved> {
        let bound = self.known.into_iter().chain(self.others).collect();
        check::ask(&self.program, &self.path, self.text, self.named, bound)
    }
}

/// The sockets of all addresses of a configuration: those that there were, and those that were opened.
fn merged(before: &Listening, opened: Listening, config: &Config) -> Listening {
    let mut listening = opened;
    for address in config.listeners.iter().flat_map(|listener| &listener.bind) {
        if let Some(sockets) = before.get(address) {
            listening.entry(*address).or_insert_with(|| sockets.clone());
        }
    }
    listening
}

/// What makes the next worker begin with this configuration.
fn commit(
    bootstrapping: &Rc<RefCell<Bootstrapping>>,
    config: &Config,
    text: String,
    listening: Listening,
    reader: files::Reader,
    logs: Vec<access_log::Opened>,
) -> Box<dyn FnOnce()> {
    let (bootstrapping, config) = (Rc::clone(bootstrapping), config.clone());
    Box::new(move || {
        let mut now = bootstrapping.borrow_mut();
        now.access_logs.replace(logs);
        now.watch.replace(reader);
        (now.config, now.text, now.listening) = (config, text, listening);
    })
}

impl Node {
    /// Another configuration is in use. True when there are other checks now, though not of anything that the VIPs depended
    /// on before.
    pub fn reloaded(&mut self, config: Config) -> bool {
        for vip in &self.vips {
            vip.tell(heartbeat::Command::Configured(config.short_checksum()));
        }
        let has_other_checks = (&self.config.listeners, &self.config.pools) != (&config.listeners, &config.pools);
        self.config = config;
        if has_other_checks {
            let mut checks = Checks::new(&self.config);
            checks.fitness.adopt(&self.checks.fitness);
            self.checks = checks;
        }
        has_other_checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_given_up_and_keeps_no_end_waiting() {
        // Without the mend this would hang: somebody else looks at the clock.
        let (done, is_done) = std::sync::mpsc::channel();
        let (_end, ends) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let ended = super::super::on_a_runtime(async {
                assert_eq!(within(PREPARE_TIMEOUT, || Ok(7)).await?, 7);
                let failed = within(PREPARE_TIMEOUT, || Err::<(), _>(anyhow!("no such file"))).await;
                assert_eq!(failed.unwrap_err().to_string(), "no such file");
                within(Duration::ZERO, move || Ok(ends.recv().is_ok())).await.map(drop)
            });
            let _ = done.send(ended);
        });
        let ended = is_done.recv_timeout(Duration::from_secs(60)).expect("it ends while its thread still waits");
        assert!(ended.unwrap_err().to_string().contains("a file server may hang"));
    }

    #[test]
    fn reload_is_answered_before_who_asks_gives_up() {
        assert!(PREPARE_TIMEOUT + PATIENCE < super::super::control::RELOAD_TIMEOUT);
        assert!(PREPARE_TIMEOUT + ASK_TIMEOUT < super::super::control::RELOAD_TIMEOUT);
    }
}
