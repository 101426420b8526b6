//! The janitor: a third, tiny process that cleans up after a guard that was killed or hangs. It takes the VIPs off and
//! resigns in the guard's name, so that the peer takes over in milliseconds and nobody else answers for the addresses.
//! It speaks to nobody while the guard lives, reads nothing from the network, and ends when the guard has ended. All that
//! it needs in the end it makes ready in the beginning ([`Cleaner`]), and it learns of the end by a lifeline ([`Vitals`])
//! that the kernel lets go of long before it says that the process is gone.
//!
//! The guard starts it ([`Janitor::keep`]) and shares its [`Vitals`] with it. A guard counts as hung when the task of a
//! VIP that it holds has not run for [`PATIENCE_INTERVALS`] advert intervals: by then the peer, which heard nothing
//! for as long, has taken over, and two machines answer for the address. It is killed then, as it cannot know what it
//! missed. Time in which the janitor itself did not run does not count: the machine was frozen and not the guard, and the
//! guard's own machines see to that.

mod cleaner;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::process::Child;
use tracing::{error, warn};

use self::cleaner::Cleaner;
use super::vitals::Vitals;
use crate::config::{PairKey, Vip};
use crate::net::child;
use crate::net::clock;
use crate::net::descriptors;
use crate::net::memory;
use crate::net::realtime;
use crate::telemetry;
use crate::units::AdvertInterval;

/// Advert intervals without a run of a VIP's task after which the guard counts as hung: one more than the peer waits.
const PATIENCE_INTERVALS: u32 = 4;
/// Below this no task counts as late, however short the interval: the peer may take over, but nobody is killed for a
/// hiccup of the machine.
const PATIENCE_MIN: Duration = Duration::from_millis(60);
/// Time between two looks, at most.
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(50);
/// Time for a killed guard to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Real-time priority: below the heartbeat's, so that it never takes a guard for hung that it keeps from running.
const REALTIME_PRIORITY: i32 = 40;
/// Time before a janitor that has ended is replaced.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What a janitor is started with.
#[derive(Serialize, Deserialize)]
struct Bootstrap {
    node: String,
    config_path: PathBuf,
    config_text: String,
    guard_pid: u32,
    /// The guard's, so that the peer believes that it is the guard who resigns.
    boot: u64,
    /// A secret.
    pair_key: Option<Vec<u8>>,
    /// How many links follow.
    links: usize,
}

/// What a janitor needs of the heartbeat that it may have to speak for.
pub struct Inheritance {
    /// Its signs of life.
    pub vitals: Vitals,
    /// What its hellos say of its process.
    pub boot: u64,
    /// Its links, which only one process at a time can open.
    pub links: Vec<OwnedFd>,
}

/// The guard's side.
pub struct Janitor {
    bootstrap: Bootstrap,
    inheritance: Inheritance,
}

impl Janitor {
    /// What the guard knows.
    pub fn new(
        node: &str,
        config_path: &Path,
        config_text: &str,
        pair_key: Option<&PairKey>,
        inheritance: Inheritance,
    ) -> Self {
        let bootstrap = Bootstrap {
            node: node.to_owned(),
            config_path: config_path.to_owned(),
            config_text: config_text.to_owned(),
            guard_pid: std::process::id(),
            boot: inheritance.boot,
            pair_key: pair_key.map(|key| key.as_bytes().to_vec()),
            links: inheritance.links.len(),
        };
        Self { bootstrap, inheritance }
    }

    /// Keeps a janitor running for as long as the guard does.
    pub async fn keep(self) {
        loop {
            match self.spawn() {
                Ok(mut child) => match child.wait().await {
                    Ok(status) => warn!(%status, "the janitor has ended; another one is started"),
                    Err(error) => warn!(%error, "the janitor cannot be waited for"),
                },
                Err(error) => warn!(%error, "the janitor cannot be started: a guard that is killed leaves its VIPs"),
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        // Killed when this process ends in an orderly way and has nothing left to clean up.
        let (child, ours) = child::spawn("janitor", child::Capabilities::Ours)?;
        let mut file = File::from(memfd_create("baton-janitor", MemfdFlags::CLOEXEC)?);
        serde_json::to_writer(&file, &self.bootstrap).map_err(io::Error::other)?;
        file.flush()?;
        file.rewind()?;
        let Inheritance { vitals, links, .. } = &self.inheritance;
        let links = links.iter().map(AsFd::as_fd);
        descriptors::send(&ours, &[file.as_fd(), vitals.file()].into_iter().chain(links).collect::<Vec<_>>())?;
        Ok(child)
    }
}

/// Runs the janitor until the guard has ended.
///
/// # Errors
/// When it was not started by a guard; which VIP could not be taken off.
pub fn run(descriptor: i32) -> anyhow::Result<()> {
    let socket = child::socket_to_parent(descriptor)?;
    let (bootstrap, vitals, links) = receive(&socket).context("the guard sent nothing")?;
    // A stop of the service is the guard's to handle; this process ends after it, whoever is signalled.
    ignore_signals();
    let guard = watch_parent(bootstrap.guard_pid)?;
    let _logging = telemetry::start();
    let mut cleaner = Cleaner::prepare(bootstrap, links)?;
    let lifeline = watch_lifeline(&vitals)?;
    // After all that took time. Without these the janitor may be late on a busy machine, which the guard has warned of for
    // itself already.
    let _not_realtime = realtime::schedule_first(REALTIME_PRIORITY);
    memory::shed_start();
    let _not_locked = realtime::lock_memory();
    let signs = [guard.as_fd(), lifeline.as_fd()];
    let end = wait_for_end(&signs, cleaner.vips(), &vitals)?;
    // Also where it was killed already: a guard without its heartbeat must not go on.
    kill(&guard)?;
    if let End::Hung(vip) = end {
        error!(vip, "the guard hangs and is killed: the peer has taken over meanwhile");
        has_ended(&signs, END_TIMEOUT)?;
    }
    cleaner.clean(&vitals);
    has_ended(&[guard.as_fd()], END_TIMEOUT)?;
    cleaner.clean_again()
}

fn receive(socket: &UnixStream) -> anyhow::Result<(Bootstrap, Vitals, Vec<OwnedFd>)> {
    let mut files = descriptors::receive(socket, 2)?.into_iter();
    let (Some(text), Some(vitals)) = (files.next(), files.next()) else { return Err(anyhow!("too few files")) };
    let mut json = Vec::new();
    File::from(text).read_to_end(&mut json)?;
    let bootstrap: Bootstrap = serde_json::from_slice(&json)?;
    // They came with the others.
    let links: Vec<_> = files.collect();
    anyhow::ensure!(links.len() == bootstrap.links, "too few links");
    Ok((bootstrap, Vitals::map(vitals)?, links))
}

/// What is sent to a whole service or terminal is not for this process.
fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is no handler that could run.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// A descriptor that tells when the guard has ended.
fn watch_parent(pid: u32) -> anyhow::Result<OwnedFd> {
    let guard = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the guard has no process id")?;
    let descriptor = pidfd_open(guard, PidfdFlags::empty())?;
    // Had it ended before, the number could be somebody else's by now.
    anyhow::ensure!(std::os::unix::process::parent_id() == pid, "the guard is gone");
    Ok(descriptor)
}

/// How a guard ended, or did not.
enum End {
    Died,
    /// The VIP whose task did not run.
    Hung(String),
}

/// A descriptor that tells when the guard's heartbeat has ended.
fn watch_lifeline(vitals: &Vitals) -> io::Result<OwnedFd> {
    let ended = eventfd(0, EventfdFlags::CLOEXEC)?;
    let (vitals, tell) = (vitals.clone(), ended.try_clone()?);
    let wait = move || {
        let _not_realtime = realtime::schedule_first(REALTIME_PRIORITY);
        let told = vitals.wait_for_end().and_then(|()| Ok(rustix::io::write(&tell, &1_u64.to_ne_bytes())?));
        if let Err(error) = told {
            warn!(%error, "the end of the guard will be noticed late");
        }
    };
    std::thread::Builder::new().name("lifeline".to_owned()).spawn(wait)?;
    Ok(ended)
}

fn wait_for_end(signs: &[BorrowedFd<'_>], vips: &[Vip], vitals: &Vitals) -> anyhow::Result<End> {
    let shortest = vips.iter().map(|vip| vip.advert_interval).min().map_or(LOOK_INTERVAL_MAX, AdvertInterval::get);
    let look_interval = shortest.min(LOOK_INTERVAL_MAX);
    let mut watch = Watch::new(clock::since_boot());
    loop {
        if has_ended(signs, look_interval)? {
            return Ok(End::Died);
        }
        let now = clock::since_boot();
        watch.looked(now, look_interval);
        for (index, vip) in vips.iter().enumerate() {
            let last_ran = Duration::from_millis(vitals.last_ran_at(index));
            if vitals.is_held(index) && watch.is_hung(now, last_ran, vip.advert_interval.get()) {
                return Ok(End::Hung(vip.name.clone()));
            }
        }
    }
}

/// Judges how long the guard has not run, in time that this process did run.
struct Watch {
    /// Since when there was no gap in the looks.
    awake_since: Duration,
    looked_at: Duration,
}

impl Watch {
    fn new(now: Duration) -> Self {
        Self { awake_since: now, looked_at: now }
    }

    /// A look. One that comes late shows that this process did not run either.
    fn looked(&mut self, now: Duration, look_interval: Duration) {
        if now.saturating_sub(self.looked_at) > look_interval * 2 + PATIENCE_MIN / 4 {
            self.awake_since = now;
        }
        self.looked_at = now;
    }

    fn is_hung(&self, now: Duration, last_ran: Duration, advert_interval: Duration) -> bool {
        let silent = now.saturating_sub(last_ran.max(self.awake_since));
        silent > (advert_interval * PATIENCE_INTERVALS).max(PATIENCE_MIN)
    }
}

/// Waits for any sign that the guard has ended, at most for `patience`.
fn has_ended(signs: &[BorrowedFd<'_>], patience: Duration) -> io::Result<bool> {
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    let mut polled: Vec<_> = signs.iter().map(|sign| PollFd::new(sign, PollFlags::IN)).collect();
    match poll(&mut polled, Some(&patience)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn kill(guard: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(guard, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_task_that_did_not_run_for_four_intervals_hangs() {
        let watch = Watch { awake_since: Duration::ZERO, looked_at: Duration::ZERO };
        assert!(!watch.is_hung(1400 * MS, 1000 * MS, 100 * MS));
        assert!(watch.is_hung(1401 * MS, 1000 * MS, 100 * MS));
    }

    #[test]
    fn short_intervals_are_given_sixty_milliseconds() {
        let watch = Watch { awake_since: Duration::ZERO, looked_at: Duration::ZERO };
        assert!(!watch.is_hung(1060 * MS, 1000 * MS, 10 * MS));
        assert!(watch.is_hung(1061 * MS, 1000 * MS, 10 * MS));
    }

    #[test]
    fn time_in_which_nobody_ran_does_not_count() {
        let mut watch = Watch::new(1000 * MS);
        watch.looked(1010 * MS, 10 * MS);
        // Frozen for four seconds: the guard gets its full time once more.
        watch.looked(5010 * MS, 10 * MS);
        assert!(!watch.is_hung(5010 * MS, 1000 * MS, 10 * MS));
        watch.looked(5020 * MS, 10 * MS);
        assert!(!watch.is_hung(5070 * MS, 1000 * MS, 10 * MS));
        assert!(watch.is_hung(5071 * MS, 1000 * MS, 10 * MS));
    }
}
