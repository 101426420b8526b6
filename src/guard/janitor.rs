//! The janitor: a third, tiny process that cleans up after a guard that was killed or hangs. It takes the VIPs off and
//! resigns in the guard's name, so that the peer takes over in milliseconds and nobody else answers for the addresses.
//! It speaks to nobody while the guard lives, reads nothing from the network, and ends when the guard has ended.
//!
//! The guard starts it ([`Janitor::keep`]) and shares its [`Vitals`] with it. A guard counts as hung when the task of a
//! VIP that it holds has not run for [`PATIENCE_INTERVALS`] advert intervals: by then the peer, which heard nothing
//! for as long, has taken over, and two machines answer for the address. It is killed then, as it cannot know what it
//! missed. Time in which the janitor itself did not run does not count: the machine was frozen and not the guard, and the
//! guard's own machines see to that.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::process::Child;
use tracing::{error, info, warn};

use super::addresses;
use super::links;
use super::setup::{self, Setups};
use super::speaker::Speaker;
use super::store::Memory;
use super::vitals::Vitals;
use crate::config::{self, Config, NodeHints, PairKey, Scope};
use crate::net::child;
use crate::net::clock;
use crate::net::descriptors;
use crate::net::netlink::Netlink;
use crate::net::realtime;
use crate::telemetry;
use crate::units::AdvertInterval;
use crate::vrrp::hello::Hello;
use crate::vrrp::machine::State;
use crate::vrrp::packet::PRIORITY_RESIGNED;

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
}

/// The guard's side.
pub struct Janitor {
    bootstrap: Bootstrap,
    vitals: Vitals,
}

impl Janitor {
    /// What the guard knows.
    pub fn new(
        node: &str,
        config_path: &Path,
        config_text: &str,
        pair_key: Option<&PairKey>,
        boot: u64,
        vitals: &Vitals,
    ) -> Self {
        let bootstrap = Bootstrap {
            node: node.to_owned(),
            config_path: config_path.to_owned(),
            config_text: config_text.to_owned(),
            guard_pid: std::process::id(),
            boot,
            pair_key: pair_key.map(|key| key.as_bytes().to_vec()),
        };
        Self { bootstrap, vitals: vitals.clone() }
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
        let (child, ours) = child::spawn("janitor")?;
        let mut file = File::from(memfd_create("baton-janitor", MemfdFlags::CLOEXEC)?);
        serde_json::to_writer(&file, &self.bootstrap).map_err(io::Error::other)?;
        file.flush()?;
        file.rewind()?;
        descriptors::send(&ours, &[file.as_fd(), self.vitals.file()])?;
        Ok(child)
    }
}

/// Runs the janitor until the guard has ended.
///
/// # Errors
/// When it was not started by a guard; which VIP could not be taken off.
pub fn run(descriptor: i32) -> anyhow::Result<()> {
    let socket = child::socket_to_parent(descriptor)?;
    let (bootstrap, vitals) = receive(&socket).context("the guard sent nothing")?;
    // A stop of the service is the guard's to handle; this process ends after it, whoever is signalled.
    ignore_signals();
    let guard = watch_parent(bootstrap.guard_pid)?;
    // Without it the janitor may be late on a busy machine, which the guard has warned of for itself already.
    let _not_realtime = realtime::schedule_first(REALTIME_PRIORITY);
    let _logging = telemetry::start();
    let config = config::parse(&bootstrap.config_text, &bootstrap.config_path)
        .map_err(|report| anyhow!("the configuration that the guard sent is refused: {report}"))?;
    match wait_for_end(&guard, &config, &vitals)? {
        End::Died => {}
        End::Hung(vip) => {
            error!(vip, "the guard hangs and is killed: the peer has taken over meanwhile");
            kill(&guard)?;
        }
    }
    let is_held = (0..config.vips.len()).any(|vip| vitals.is_held(vip));
    if is_held { clean_up(&bootstrap, &config, &vitals) } else { Ok(()) }
}

fn receive(socket: &UnixStream) -> anyhow::Result<(Bootstrap, Vitals)> {
    let mut files = descriptors::receive(socket, 2)?.into_iter();
    let (Some(text), Some(vitals)) = (files.next(), files.next()) else { return Err(anyhow!("too few files")) };
    let mut json = Vec::new();
    File::from(text).read_to_end(&mut json)?;
    Ok((serde_json::from_slice(&json)?, Vitals::map(vitals)?))
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

fn wait_for_end(guard: &OwnedFd, config: &Config, vitals: &Vitals) -> anyhow::Result<End> {
    let shortest =
        config.vips.iter().map(|vip| vip.advert_interval).min().map_or(LOOK_INTERVAL_MAX, AdvertInterval::get);
    let look_interval = shortest.min(LOOK_INTERVAL_MAX);
    let mut watch = Watch::new(clock::since_boot());
    loop {
        if has_ended(guard, look_interval)? {
            return Ok(End::Died);
        }
        let now = clock::since_boot();
        watch.looked(now, look_interval);
        for (index, vip) in config.vips.iter().enumerate() {
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

/// Waits for the end of the guard, at most for `patience`.
fn has_ended(guard: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    let mut polled = [PollFd::new(guard, PollFlags::IN)];
    match poll(&mut polled, Some(&patience)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn kill(guard: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(guard, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    has_ended(guard, END_TIMEOUT).map(|_| ())
}

/// Takes every VIP off, and resigns from those that were held.
fn clean_up(bootstrap: &Bootstrap, config: &Config, vitals: &Vitals) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let netlink = Netlink::open()?;
        // The addresses first: the peer claims them the moment it hears the resignation.
        addresses::remove_stale(&netlink, &config.vips).await?;
        info!("the guard has ended without giving its VIPs up; they were taken off");
        resign(bootstrap, config, vitals, &netlink).await
    })
}

async fn resign(bootstrap: &Bootstrap, config: &Config, vitals: &Vitals, netlink: &Netlink) -> anyhow::Result<()> {
    let hints = NodeHints { flag: Some(&bootstrap.node), environment: None, host_name: "" };
    let (_, local) = config::parse_for_node(&bootstrap.config_text, &bootstrap.config_path, Scope::File, hints)
        .map_err(|report| anyhow!("{report}"))?;
    let key = bootstrap.pair_key.clone().map(PairKey::from_bytes);
    let Setups { routers, mut links, .. } =
        setup::setups(config, &local, key.as_ref(), &Memory::default(), netlink).await?;
    links.boot = bootstrap.boot;
    let opened = links::open(&links)?;
    for router in routers.into_iter().filter(|router| vitals.is_held(router.vip)) {
        let (index, mut voice) = (router.vip, router.voice);
        voice.sequence_floor = vitals.sequence(index);
        let (mut ends, mailbox) = links::join(&links, &opened, &voice.vip.name, &mut Default::default());
        for (link, end) in ends.iter_mut().enumerate() {
            end.channel.resume(vitals.hellos(index, link));
        }
        let hello = links::first_hello(router.config_checksum, &router.parameters);
        let hello = Hello { state: State::Init, priority: PRIORITY_RESIGNED, ..hello };
        let name = voice.vip.name.clone();
        let mut speaker = Speaker::new(voice, ends, mailbox, router.counters);
        match speaker.open_vrrp().and_then(|()| speaker.advertise(PRIORITY_RESIGNED, &hello)) {
            Ok(()) => info!(vip = name, "resigned in the guard's name"),
            Err(error) => {
                warn!(vip = name, %error, "no resignation could be sent; the peer takes over when it has waited")
            }
        }
    }
    Ok(())
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
