//! Processes of a guard that another one goes on for: the worker that served until then, which serves until the next one
//! does, and workers that have had their time and finish what they have.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::link::{self, ToWorker};

/// Workers that may finish at a time. Where there are more, the one whose time is over first ends at once.
const LEAVERS_MAX: usize = 8;
/// Time for a worker to take a line that fits its socket many times over.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for other processes of a guard that has gone to end, now that nobody speaks with them.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(10);

/// Workers that finish what they have, and until when they may.
#[derive(Clone, Default)]
pub struct Leavers(Rc<Shared>);

#[derive(Default)]
struct Shared {
    until: RefCell<BTreeMap<u32, Instant>>,
    ended: Notify,
}

impl Leavers {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.until.borrow().len()
    }

    /// Process ids, and the time that each has left.
    pub fn left(&self) -> Vec<(u32, Duration)> {
        let left = |(pid, until): (&u32, &Instant)| (*pid, until.saturating_duration_since(Instant::now()));
        self.0.until.borrow().iter().map(left).collect()
    }

    /// Gives a child, which is to end by itself, so much time. Needs a local tokio runtime.
    pub fn add(&self, pid: u32, patience: Duration) {
        let mut until = self.0.until.borrow_mut();
        let first = until.iter().min_by_key(|(_, until)| **until).map(|(pid, _)| *pid);
        if let Some(first) = first.filter(|_| until.len() >= LEAVERS_MAX) {
            warn!(pid = first, "too many workers finish what they have; the oldest of them is ended");
            // The task that waits for it takes it off the list.
            drop(Process::open(first).and_then(|process| process.kill()));
        }
        until.insert(pid, Instant::now() + patience);
        let leavers = self.clone();
        tokio::task::spawn_local(async move {
            wait(pid, patience).await;
            leavers.0.until.borrow_mut().remove(&pid);
            leavers.0.ended.notify_waiters();
            info!(pid, "a worker that another one has taken over from has ended");
        });
    }

    /// Waits until all have ended, at most for `patience`.
    pub async fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.count() > 0 && timeout_at(until, self.0.ended.notified()).await.is_ok() {}
    }
}

/// Waits for another child of this process, so that nothing is left of it.
pub fn wait_for_other(pid: u32) {
    tokio::task::spawn_local(wait(pid, OTHERS_TIMEOUT));
}

/// The worker that a guard before this one has started, and that serves until the next one does.
pub struct Former {
    pid: u32,
    link: OwnedFd,
    retire: oneshot::Sender<()>,
    gone: oneshot::Receiver<()>,
}

impl Former {
    /// Takes care of it. Needs a local tokio runtime.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn new(pid: u32, link: OwnedFd) -> io::Result<Self> {
        let kept = link.try_clone()?;
        let link = StdUnixStream::from(link);
        link.set_nonblocking(true)?;
        let ((retire, retired), (tell, gone)) = (oneshot::channel(), oneshot::channel());
        tokio::task::spawn_local(speak(UnixStream::from_std(link)?, retired, tell));
        Ok(Self { pid, link: kept, retire, gone })
    }

    /// The next one serves: it takes no more connections, and has so much time to finish.
    pub fn retire(self, leavers: &Leavers, patience: Duration) {
        // It may have ended by itself.
        let _ended = self.retire.send(());
        leavers.add(self.pid, patience);
    }

    /// Its process id and the link to it, for yet another guard: the next one does not come to serve.
    ///
    /// # Errors
    /// What dup(2) says.
    pub fn leave(&self) -> io::Result<(u32, OwnedFd)> {
        Ok((self.pid, self.link.try_clone()?))
    }

    /// It has ended before that.
    pub fn forget(self, leavers: &Leavers) {
        leavers.add(self.pid, SEND_TIMEOUT);
    }

    /// Waits until it ends by itself. Cancel safe.
    pub async fn gone(&mut self) {
        // That nobody will say so any more is as good.
        let _gone = (&mut self.gone).await;
    }
}

/// Reads what a worker says, to whom nobody listens any more, and tells it when to retire. The link stays open until the
/// worker has closed it.
async fn speak(link: UnixStream, retired: oneshot::Receiver<()>, _tell: oneshot::Sender<()>) {
    let (mut reader, mut writer) = link.into_split();
    let told = async {
        if retired.await.is_ok()
            && let Ok(line) = link::encode(&ToWorker::Retire)
            && !matches!(timeout(SEND_TIMEOUT, writer.write_all(&line)).await, Ok(Ok(())))
        {
            warn!(
                "the worker that another one has taken over from cannot be told so; it is ended when its time is over"
            );
        }
        std::future::pending::<()>().await;
    };
    let mut nobody = tokio::io::sink();
    tokio::select! {
        _ = tokio::io::copy(&mut reader, &mut nobody) => {}
        () = told => {}
    }
}

/// Waits for a child of this process, ends it when that takes too long, and reaps it.
async fn wait(pid: u32, patience: Duration) {
    let ended = async {
        let process = Process::open(pid)?;
        if timeout(patience, process.ended()).await.is_err() {
            process.kill()?;
            process.ended().await?;
        }
        process.reap()
    };
    if let Err(error) = ended.await {
        warn!(pid, %error, "a process of the guard before cannot be waited for");
    }
}

/// A child of this process that it did not start itself.
struct Process {
    pid: Pid,
    descriptor: OwnedFd,
}

impl Process {
    fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pid, descriptor: pidfd_open(pid, PidfdFlags::NONBLOCK)? })
    }

    async fn ended(&self) -> io::Result<()> {
        // SAFETY: an `OwnedFd` is one descriptor until it is dropped, and nothing here replaces it.
        let ended = unsafe { AsyncFd::register_with_interest(self.descriptor.try_clone()?, Interest::READABLE) }?;
        ended.readable().await.map(drop)
    }

    fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.descriptor, Signal::KILL)?)
    }

    fn reap(&self) -> io::Result<()> {
        Ok(waitpid(Some(self.pid), WaitOptions::NOHANG).map(drop)?)
    }
}
