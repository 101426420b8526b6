//! One node of the pair: a real `baton run` in a namespace, and what can happen to it.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use super::namespace::Namespace;
use super::process::{Process, ProcessHandle, log_tail};
use super::{LabError, wait_for};
use crate::guard::control;
use crate::status::NodeStatus;

/// Time for the worker to end by itself after its guard was killed.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for killed processes to end. The kernel closes their sockets one by one, which takes a while on a busy machine.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a node to give its status when it is asked about its worker.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// How to start a node.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Its name in the configuration.
    pub name: String,
    /// The program `baton`.
    pub program: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// A directory of its own, for its log and its runtime directory.
    pub directory: PathBuf,
}

/// A node. Dropping it kills what is left of it.
#[derive(Debug)]
pub struct Node {
    spec: NodeSpec,
    namespace: Namespace,
    guard: Option<Process>,
    hung_worker: Option<ProcessHandle>,
}

impl Node {
    /// A node that is not started yet.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn new(spec: NodeSpec, namespace: &Namespace) -> Result<Self, LabError> {
        let node = Self { spec, namespace: namespace.clone(), guard: None, hung_worker: None };
        let runtime_dir = node.runtime_dir();
        fs::create_dir_all(&runtime_dir).map_err(LabError::system(format!("make {}", runtime_dir.display())))?;
        Ok(node)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where its control socket is.
    pub fn runtime_dir(&self) -> PathBuf {
        self.spec.directory.join("run")
    }

    /// Where it keeps what outlives a restart.
    pub fn state_dir(&self) -> PathBuf {
        self.spec.directory.join("state")
    }

    /// Where its output goes, of all its starts.
    pub fn log(&self) -> PathBuf {
        self.spec.directory.join("log")
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines_max: usize) -> Vec<String> {
        log_tail(&self.log(), lines_max)
    }

    /// Process id of the guard while it runs, as far as we have looked.
    pub fn guard_pid(&self) -> Option<u32> {
        self.guard.as_ref().map(Process::pid)
    }

    /// Starts it. It need not be ready when this returns. The kernel kills it when the calling thread ends.
    ///
    /// # Errors
    /// When it runs already, or the program cannot be started.
    pub fn start(&mut self) -> Result<(), LabError> {
        if let Some(guard) = &mut self.guard
            && guard.exit_status()?.is_none()
        {
            return Err(LabError::Process { name: self.spec.name.clone(), state: "already running".to_owned() });
        }
        let mut command = self.namespace.command(&self.spec.program);
        command.arg("run").arg("--config").arg(&self.spec.config).args(["--node", &self.spec.name]);
        command.arg("--runtime-dir").arg(self.runtime_dir()).arg("--state-dir").arg(self.state_dir());
        self.guard = Some(Process::spawn(&self.spec.name, command, &self.log())?);
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// When it does not run, or not end within `within`.
    pub fn stop(&mut self, within: Duration) -> Result<ExitStatus, LabError> {
        self.ask_to_stop()?;
        self.wait_stopped(within)
    }

    /// Asks it to stop (SIGTERM).
    ///
    /// # Errors
    /// When it does not run.
    pub fn ask_to_stop(&mut self) -> Result<(), LabError> {
        self.running_guard()?.signal(Signal::TERM)
    }

    /// Waits for the end of a node that was asked to stop.
    ///
    /// # Errors
    /// When it was not running, or does not end within `within`.
    pub fn wait_stopped(&mut self, within: Duration) -> Result<ExitStatus, LabError> {
        let status = self.running_guard()?.wait(within)?;
        self.guard = None;
        Ok(status)
    }

    /// How the guard ended, if it has; `None` while it runs, and once its end was waited for.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.guard.as_mut().map_or(Ok(None), Process::exit_status)
    }

    /// The processes that the guard has started.
    ///
    /// # Errors
    /// When it does not run.
    pub fn children(&mut self) -> Result<Vec<ProcessHandle>, LabError> {
        Ok(self.running_guard()?.children())
    }

    /// Stops the guard in its tracks (SIGSTOP), and nothing else.
    ///
    /// # Errors
    /// When it does not run.
    pub fn hang_guard(&mut self) -> Result<(), LabError> {
        self.running_guard()?.signal(Signal::STOP)
    }

    /// Kills the guard as `kill -9` does, and waits until all that it had started is gone too.
    ///
    /// # Errors
    /// When it does not run, or its worker or janitor outlives it by a second; they are killed then.
    pub fn kill_guard(&mut self) -> Result<(), LabError> {
        let guard = self.running_guard()?;
        let workers = guard.children();
        guard.signal(Signal::KILL)?;
        guard.wait(ORPHAN_TIMEOUT)?;
        self.guard = None;
        let what = format!("the worker of {} to end after its guard", self.spec.name);
        let gone = || workers.iter().all(|worker| !worker.is_running()).then_some(());
        let waited = wait_for(&what, ORPHAN_TIMEOUT, gone);
        for worker in &workers {
            let _ = worker.signal(Signal::KILL);
            worker.reap(ORPHAN_TIMEOUT);
        }
        waited
    }

    /// Kills all of its processes at once, as a power cut does. The addresses that it holds stay on the interface.
    /// One that does not run is left as it is.
    ///
    /// # Errors
    /// When the guard cannot be waited for.
    pub fn kill_all(&mut self) -> Result<(), LabError> {
        let Some(mut guard) = self.guard.take() else { return Ok(()) };
        if guard.exit_status()?.is_some() {
            return Ok(());
        }
        // Stopped first, or it would see its children end and resign.
        guard.signal(Signal::STOP)?;
        let children = guard.children();
        for child in &children {
            let _ = child.signal(Signal::KILL);
        }
        guard.signal(Signal::KILL)?;
        let ended = guard.wait(KILL_TIMEOUT);
        children.iter().for_each(|child| child.reap(KILL_TIMEOUT));
        ended.map(drop)
    }

    /// Its processes at this moment: the guard first, then its children; none when it does not run.
    pub fn processes(&self) -> Vec<ProcessHandle> {
        let Some(guard) = &self.guard else { return Vec::new() };
        let mut processes: Vec<ProcessHandle> = ProcessHandle::open(guard.pid()).into_iter().collect();
        processes.extend(guard.children());
        processes
    }

    /// Kills the worker as `kill -9` does.
    ///
    /// # Errors
    /// When the node has none, or does not say which.
    pub fn kill_worker(&self) -> Result<(), LabError> {
        self.worker()?.signal(Signal::KILL)
    }

    /// Stops the worker in its tracks (SIGSTOP): alive, holding its sockets, and answering nobody.
    ///
    /// # Errors
    /// As [`Node::kill_worker`].
    pub fn hang_worker(&mut self) -> Result<(), LabError> {
        let worker = self.worker()?;
        worker.signal(Signal::STOP)?;
        self.hung_worker = Some(worker);
        Ok(())
    }

    /// Lets a hung worker go on, unless its guard has ended it by now.
    pub fn wake_worker(&mut self) {
        if let Some(worker) = self.hung_worker.take() {
            let _ = worker.signal(Signal::CONT);
        }
    }

    /// The worker that the node says it has.
    ///
    /// # Errors
    /// When it has none, or does not say.
    pub fn worker(&self) -> Result<ProcessHandle, LabError> {
        match self.status(STATUS_TIMEOUT)?.worker.pid {
            Some(pid) => ProcessHandle::open(pid),
            None => Err(LabError::Process { name: self.spec.name.clone(), state: "has no worker".to_owned() }),
        }
    }

    /// Asks it how it is.
    ///
    /// # Errors
    /// [`LabError::Status`] when it does not answer within `within`, or not with a status.
    pub fn status(&self, within: Duration) -> Result<NodeStatus, LabError> {
        let refused = |reason: String| LabError::Status { node: self.spec.name.clone(), reason };
        match control::request(&self.runtime_dir(), &control::Request::Status, within) {
            Ok(control::Answer::Status(status)) => Ok(*status),
            Ok(
                control::Answer::Switchover(_)
                | control::Answer::Reloaded(_)
                | control::Answer::TakingOver { .. }
                | control::Answer::Worker(_),
            ) => Err(refused("it answered something else".to_owned())),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    fn running_guard(&mut self) -> Result<&mut Process, LabError> {
        let name = &self.spec.name;
        self.guard.as_mut().ok_or_else(|| LabError::Process { name: name.clone(), state: "not running".to_owned() })
    }
}
