//! Child processes of the lab: started into a log file, signalled without ever hitting a stranger, and never left behind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, set_child_subreaper, waitid,
};

use super::{LabError, wait_for};

/// How far back from its end a log is read for its tail.
const TAIL_MAX_BYTES: u64 = 64 * 1024;

/// Time for a process to end after SIGKILL.
const REAP_TIMEOUT: Duration = Duration::from_secs(1);

/// A child process. Dropping it kills it and its children, and waits for it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with both its outputs appended to the file `log`.
    ///
    /// Build the command with [`Namespace::command`](super::namespace::Namespace::command), so that the process cannot
    /// outlive this one.
    ///
    /// # Errors
    /// When the log cannot be opened, or the program not started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self, LabError> {
        let output = || OpenOptions::new().create(true).append(true).open(log);
        let opening = || LabError::system::<io::Error>(format!("open the log {}", log.display()));
        let (stdout, stderr) = (output().map_err(opening())?, output().map_err(opening())?);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = command.spawn().map_err(LabError::system(format!("start {name}")))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().map_err(LabError::system(format!("look after {}", self.name)))
    }

    /// Sends a signal. Until it is waited for the process id cannot be another's.
    ///
    /// # Errors
    /// [`LabError::Process`] when it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        if let Some(status) = self.exit_status()? {
            return Err(LabError::Process { name: self.name.clone(), state: format!("already ended, {status}") });
        }
        let doing = || format!("send a signal to {}", self.name);
        let pid = pid_of(self.pid()).map_err(LabError::system(doing()))?;
        rustix::process::kill_process(pid, signal).map_err(LabError::system(doing()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] when it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus, LabError> {
        let what = format!("{} (process {}) to end", self.name, self.pid());
        wait_for(&what, within, || self.exit_status().transpose())?
    }

    /// Its children at this moment.
    pub fn children(&self) -> Vec<ProcessHandle> {
        children_of(self.pid())
    }
}

fn children_of(pid: u32) -> Vec<ProcessHandle> {
    // The file belongs to the thread that forked, so each thread has to be asked.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let text = lists.collect::<Vec<_>>().join(" ");
    let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter_map(|pid| ProcessHandle::open(pid).ok()).collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        let children = self.children();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for child in children {
            let _ = child.signal(Signal::KILL);
            child.reap(REAP_TIMEOUT);
        }
    }
}

/// Holds on to a process that need not be our child. A signal goes to this process or to none, even when its id is
/// in use again.
#[derive(Debug)]
pub struct ProcessHandle {
    pid: u32,
    fd: OwnedFd,
}

impl ProcessHandle {
    /// Takes hold of the process that has this id now.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pid: u32) -> Result<Self, LabError> {
        let doing = || format!("take hold of process {pid}");
        let process = pid_of(pid).map_err(LabError::system(doing()))?;
        let fd = pidfd_open(process, PidfdFlags::empty()).map_err(LabError::system(doing()))?;
        Ok(Self { pid, fd })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        pidfd_send_signal(&self.fd, signal).map_err(LabError::system(format!("send a signal to process {}", self.pid)))
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A pidfd turns readable when its process ends.
        matches!(poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&now)), Ok(0))
    }

    /// Waits for its end and takes its exit status, if it has been left to us by then.
    pub fn reap(&self, within: Duration) {
        let _ = wait_for("the end of a process", within, || (!self.is_running()).then_some(()));
        let _ = waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// Has children of killed guards left to us instead of to process 1, which in a container may never take their exit status:
/// they would stay in the process table.
pub(super) fn adopt_orphans() {
    // A kernel that cannot do it leaves them to process 1.
    let _ = set_child_subreaper(Some(rustix::process::getpid()));
}

/// Takes the exit status of children that were left to us and have ended. `ours` are waited for elsewhere.
pub(super) fn reap_orphans(ours: &[u32]) {
    for child in children_of(std::process::id()) {
        if !ours.contains(&child.pid) && !child.is_running() {
            child.reap(Duration::ZERO);
        }
    }
}

fn pid_of(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The last lines of a log, at most `lines_max`; empty when it cannot be read.
pub fn log_tail(log: &Path, lines_max: usize) -> Vec<String> {
    let text = read_tail(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(lines_max)).map(|line| (*line).to_owned()).collect()
}

fn read_tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_MAX_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
