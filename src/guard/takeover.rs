//! A guard that goes on as another program, in the same process: with another configuration that the one that runs cannot
//! change over to, or as another release.
//!
//! [`check`] has the program on the disk say beforehand whether it can. Then this guard leaves all that lasts, by
//! execve(2): the process id with the service manager's watchdog, the worker, the sockets, and what the peer knows of us.
//! What was decided stands in a [`Legacy`], and the descriptors come in a socket, so that they alone pass over. The next
//! guard takes both in [`inherited`], goes on with the VIPs where they are, and starts a worker of its own, which takes over
//! from the one that serves ([`super::supervisor::former`]).
//!
//! A peer that waits for adverts is told to wait longer ([`super::heartbeat::Command::Leave`]). Signals that come in between
//! are kept for the next program.

pub mod check;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{error, info, warn};

use self::check::Approved;
use super::addresses;
use super::addresses::Carrier;
use super::control::{Answer, Reply};
use super::heartbeat;
use super::listeners::AdminListener;
use super::paths::LinkPath;
use super::reload::Listening;
use super::setup;
use super::state::VipLegacy;
use super::store::Memory;
use super::supervisor::former::{Former, Leavers, wait_for_other};
use super::supervisor::{Command, Left};
use super::{Guard, STOP_TIMEOUT};
use crate::config::{self, Config, Vip};
use crate::link::{KeptFact, KeptList, KnownServer, Report};
use crate::net::child;
use crate::net::descriptors;
use crate::net::netlink::Netlink;
use crate::vrrp::machine::State;

/// What a [`Legacy`] consists of; goes up when an older program could not read it.
pub const VERSION: u32 = 1;

/// Has the number of the socket that the next guard takes everything from.
pub const VARIABLE: &str = "BATON_TAKEOVER";

/// Time for the supervisor to leave the worker, and for the heartbeat to leave its VIPs.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Turns that other tasks get before this program ends: one would do.
const TURNS: u32 = 16;

/// Signals that wait for the next program.
const SIGNALS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// What one guard leaves to the next, besides descriptors.
#[derive(Serialize, Deserialize)]
pub struct Legacy {
    version: u32,
    /// Where the configuration is.
    pub config_path: PathBuf,
    /// The configuration that the next guard uses, as it was checked.
    pub config_text: String,
    /// The one that was in use.
    pub former_text: String,
    /// The file that the program is started from.
    pub program: PathBuf,
    /// How often a guard has gone on for another one in this process.
    pub takeovers: u64,
    /// What hellos say of this process.
    pub boot: Option<u64>,
    /// The VIPs that go on, by their names.
    pub vips: BTreeMap<String, (VipLegacy, heartbeat::Legacy)>,
    /// How far adverts had counted.
    pub memory: Memory,
    /// What operators have said of servers.
    pub facts: Vec<KeptFact>,
    /// The servers that were found.
    pub found: Vec<KeptList>,
    /// The servers that are down.
    pub down: Option<Vec<KnownServer>>,
    /// What the worker has said last.
    pub report: Report,
    /// What keeps VIPs from being held: the subjects of checks.
    pub broken: Vec<String>,
    /// Process id of the worker that serves.
    worker: u32,
    /// Workers that finish, and the time that each has left.
    leavers: Vec<(u32, Duration)>,
    /// Other children, which end by themselves.
    others: Vec<u32>,
    handed: Vec<Handed>,
}

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Handed {
    Lock,
    Control,
    Listener(SocketAddr),
    Sync(SocketAddr),
    Admin(SocketAddr),
    Link(LinkPath),
    WorkerLink,
    WorkerSessions,
}

/// The descriptors.
pub struct Descriptors(Vec<(Handed, OwnedFd)>);

impl Descriptors {
    /// The lock of the runtime directory.
    ///
    /// # Errors
    /// When it is not there.
    pub fn lock(&mut self) -> anyhow::Result<File> {
        self.take(Handed::Lock).map(File::from)
    }

    /// The socket of `baton status` and the like.
    ///
    /// # Errors
    /// When it is not there.
    pub fn control(&mut self) -> anyhow::Result<OwnedFd> {
        self.take(Handed::Control)
    }

    fn take(&mut self, wanted: Handed) -> anyhow::Result<OwnedFd> {
        self.find(|handed| handed == wanted).with_context(|| format!("the guard before has left no {wanted:?}"))
    }

    fn find(&mut self, is_wanted: impl Fn(Handed) -> bool) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(handed, _)| is_wanted(*handed))?;
        Some(self.0.swap_remove(at).1)
    }

    /// The sockets of listeners.
    pub fn listening(&mut self) -> Listening {
        let mut listening = Listening::new();
        for (handed, descriptor) in std::mem::take(&mut self.0) {
            match handed {
                Handed::Listener(address) => {
                    listening.entry(address).or_default().push(Arc::new(TcpListener::from(descriptor)));
                }
                _ => self.0.push((handed, descriptor)),
            }
        }
        listening
    }

    /// The socket of the sync link, where that is at this address.
    pub fn sync(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.find(|handed| handed == Handed::Sync(address)).map(TcpListener::from)
    }

    /// The socket of `[admin]`, where that is at this address.
    pub fn admin(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.find(|handed| handed == Handed::Admin(address)).map(TcpListener::from)
    }

    fn links(&mut self) -> Vec<(LinkPath, OwnedFd)> {
        let mut links = Vec::new();
        for (handed, descriptor) in std::mem::take(&mut self.0) {
            match handed {
                Handed::Link(path) => links.push((path, descriptor)),
                _ => self.0.push((handed, descriptor)),
            }
        }
        links
    }
}

/// What a guard before this one has left in this process; `None` when there was none.
///
/// # Errors
/// When it cannot be read.
pub fn inherited() -> anyhow::Result<Option<(Legacy, Descriptors)>> {
    let Some(number) = std::env::var(VARIABLE).ok().and_then(|number| number.parse().ok()) else { return Ok(None) };
    let socket = child::socket_to_parent(number).with_context(|| format!("{VARIABLE} is not for people"))?;
    let mut json = Vec::new();
    for descriptor in descriptors::receive(&socket, 1)? {
        File::from(descriptor).read_to_end(&mut json)?;
    }
    let legacy: Legacy = serde_json::from_slice(&json)?;
    let received = descriptors::receive(&socket, legacy.handed.len())?;
    let descriptors = legacy.handed.iter().copied().zip(received).collect();
    Ok(Some((legacy, Descriptors(descriptors))))
}

/// Takes what waits for this program.
pub fn take_signals() {
    set_mask(libc::SIG_UNBLOCK);
}

fn set_mask(how: i32) {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to room for a set, which this fills.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in SIGNALS {
        // SAFETY: the set was made by the call above, and these are signals.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: as above; the former mask is not asked for. It fails for another `how` alone.
    unsafe { libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut()) };
}

impl Legacy {
    /// Takes the VIPs off that this guard cannot go on with.
    pub fn give_up(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let given_up = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
            runtime.block_on(async { addresses::remove_stale(&Netlink::open()?, &self.former()?.vips).await })
        });
        if let Err(error) = given_up {
            error!("{error:#}");
        }
    }

    fn former(&self) -> anyhow::Result<Config> {
        config::parse(&self.former_text, &self.config_path).map_err(|report| anyhow!("{report}"))
    }

    /// Leaves the VIPs alone that go on, and takes everything off that neither configuration has a use for now.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn clean_up(&mut self, config: &Config, netlink: &Netlink) -> anyhow::Result<()> {
        for (name, (_, heartbeat)) in &mut self.vips {
            if heartbeat.machine.state != State::Init && heartbeat.is_stale() {
                warn!(vip = name, "the program took so long to start that the peer may have taken over");
                heartbeat.begin_anew();
            }
        }
        let former = self.former().map(|former| former.vips).unwrap_or_default();
        let all: Vec<Vip> = former.into_iter().chain(config.vips.iter().cloned()).collect();
        let kept: Vec<Carrier> = config
            .vips
            .iter()
            .zip(addresses::carriers(&config.vips))
            .filter(|(vip, _)| self.is_active(&vip.name))
            .flat_map(|(_, carriers)| carriers)
            .collect();
        Ok(addresses::remove_all_but(netlink, &all, &kept).await?)
    }

    /// Whether this node holds a VIP.
    pub fn is_active(&self, vip: &str) -> bool {
        self.vips.get(vip).is_some_and(|(_, heartbeat)| heartbeat.machine.state == State::Active)
    }

    /// What the heartbeat goes on with.
    pub fn heartbeat(&self, descriptors: &mut Descriptors) -> setup::Inheritance {
        let vips = self.vips.iter().map(|(name, (_, heartbeat))| (name.clone(), heartbeat.clone()));
        let (vips, links) = (vips.collect(), descriptors.links());
        setup::Inheritance { vips, boot: self.boot, generation: self.takeovers, links }
    }

    /// The worker that serves, with where its sessions come; and takes care of other processes that the guard before has
    /// left. Needs a local tokio runtime.
    ///
    /// # Errors
    /// When the worker's link is not there.
    pub fn processes(&self, descriptors: &mut Descriptors, leavers: &Leavers) -> anyhow::Result<(Former, OwnedFd)> {
        self.leavers.iter().for_each(|(pid, left)| leavers.add(*pid, *left));
        self.others.iter().for_each(|pid| wait_for_other(*pid));
        let former = Former::new(self.worker, descriptors.take(Handed::WorkerLink)?)?;
        Ok((former, descriptors.take(Handed::WorkerSessions)?))
    }
}

/// What a guard keeps at hand to leave it.
pub struct ToLeave {
    /// The lock of the runtime directory, held for as long as this is open.
    pub lock: File,
    /// The socket of `baton status` and the like.
    pub control: OwnedFd,
    /// The links of the pair.
    pub links: Vec<(LinkPath, OwnedFd)>,
    /// What hellos say of this process.
    pub boot: Option<u64>,
    /// The file that the program is started from.
    pub program: PathBuf,
    /// How often a guard has gone on for another one in this process.
    pub takeovers: u64,
    /// The task of the janitor, which would take the end of this guard for one.
    pub janitor: Option<tokio::task::JoinHandle<()>>,
}

/// The sockets of a guard that are in its worker's bootstrap.
pub struct Sockets<'a> {
    /// Of the listeners.
    pub listening: &'a Listening,
    /// Of the sync link.
    pub sync: Option<&'a Arc<TcpListener>>,
    /// Of `[admin]`.
    pub admin: Option<&'a AdminListener>,
}

impl Sockets<'_> {
    fn handed(&self) -> io::Result<Vec<(Handed, OwnedFd)>> {
        let mut handed = Vec::new();
        for (address, sockets) in self.listening {
            for socket in sockets {
                handed.push((Handed::Listener(*address), socket.try_clone()?.into()));
            }
        }
        if let Some(socket) = self.sync {
            handed.push((Handed::Sync(socket.local_addr()?), socket.try_clone()?.into()));
        }
        if let Some(AdminListener { socket, .. }) = self.admin {
            handed.push((Handed::Admin(socket.local_addr()?), socket.try_clone()?.into()));
        }
        Ok(handed)
    }
}

/// Why a guard goes on as it is, or cannot go on.
pub enum Failure {
    /// Nothing was changed.
    Refused(anyhow::Error),
    /// What was given up cannot be taken back: the guard has to end.
    Fatal(anyhow::Error),
}

impl Guard {
    /// Goes on as the program on the disk. Returns only where that fails.
    pub(super) async fn take_over(
        &mut self,
        approved: Approved,
        asker: Option<oneshot::Sender<Reply>>,
        worker: &mpsc::Sender<Command>,
    ) -> (Failure, Option<oneshot::Sender<Reply>>) {
        let (reply, left) = oneshot::channel();
        let is_asked = worker.try_send(Command::Yield(reply)).is_ok();
        let left = match timeout(LEAVE_TIMEOUT, left).await {
            Ok(Ok(Ok(left))) if is_asked => left,
            Ok(Ok(Err(reason))) => return (Failure::Refused(anyhow!(reason)), asker),
            _ => return (Failure::Refused(anyhow!("the worker cannot be asked: try again")), asker),
        };
        // From here on there is no way back.
        info!(program = %approved.program.display(), "another program takes over");
        // What comes of it the next guard says: who asked looks for it there.
        if let Some(asker) = asker {
            let (takeovers, changes) = (self.to_leave.takeovers + 1, approved.changes.clone());
            // Whoever asked may have gone away.
            drop(asker.send(Reply::Ok(Answer::TakingOver { takeovers, changes })));
            for _ in 0..TURNS {
                // The conversation, which is another task, gets its turn to write.
                tokio::task::yield_now().await;
            }
        }
        (Failure::Fatal(self.go_on_as(approved, left).await), None)
    }

    async fn go_on_as(&mut self, approved: Approved, left: Left) -> anyhow::Error {
        self.give_up_but(&approved.kept).await;
        if let Some(janitor) = self.to_leave.janitor.take() {
            janitor.abort();
            // Its process is killed with the task.
            drop(janitor.await);
        }
        let vips = self.leave_vips().await;
        self.note_memory();
        let program = approved.program.clone();
        let (legacy, descriptors) = match self.bequeath(approved, vips, left) {
            Ok(legacy) => legacy,
            Err(error) => return error.context("a guard that goes on cannot be given what it needs"),
        };
        let error = exec(&program, legacy, &descriptors);
        anyhow!("{} cannot be started: {error}", program.display())
    }

    /// Gives the VIPs up that do not go on. That is done before they are left.
    async fn give_up_but(&mut self, kept: &[String]) {
        let is_other = |vip: &usize| self.node.config.vips.get(*vip).is_some_and(|vip| !kept.contains(&vip.name));
        let others: Vec<usize> = (0..self.node.vips.len()).filter(is_other).collect();
        if others.is_empty() {
            return;
        }
        for vip in others.iter().filter_map(|vip| self.node.vips.get(*vip)) {
            vip.tell(heartbeat::Command::Unfit("it is another virtual router from now on".to_owned()));
        }
        let until = tokio::time::Instant::now() + STOP_TIMEOUT;
        while others.iter().filter_map(|vip| self.node.vips.get(*vip)).any(|vip| vip.state != State::Init) {
            match tokio::time::timeout_at(until, self.heartbeat.recv()).await {
                Ok(Some(event)) => self.node.heartbeat_event(event),
                // What is left of them the next guard takes off.
                Ok(None) | Err(_) => break,
            }
        }
        self.node.events.finish().await;
    }

    /// The VIPs that go on, of which nothing is said by this guard any more.
    async fn leave_vips(&mut self) -> BTreeMap<String, (VipLegacy, heartbeat::Legacy)> {
        let mut leaving = Vec::new();
        for (vip, config) in self.node.vips.iter().zip(&self.node.config.vips) {
            let (reply, left) = oneshot::channel();
            if vip.commands.try_send(heartbeat::Command::Leave(reply)).is_ok() {
                leaving.push((config.name.clone(), left));
            }
        }
        let mut left = BTreeMap::new();
        let until = tokio::time::Instant::now() + LEAVE_TIMEOUT;
        for (name, legacy) in leaving {
            if let Ok(Ok(legacy)) = tokio::time::timeout_at(until, legacy).await {
                left.insert(name, legacy);
            }
        }
        // What the heartbeat has said until now.
        while let Ok(event) = self.heartbeat.try_recv() {
            self.node.heartbeat_event(event);
        }
        let vips = self.node.vips.iter().zip(&self.node.config.vips);
        let both =
            vips.filter_map(|(vip, config)| Some((config.name.clone(), (vip.leave(), left.remove(&config.name)?))));
        both.collect()
    }

    fn bequeath(
        &mut self,
        approved: Approved,
        vips: BTreeMap<String, (VipLegacy, heartbeat::Legacy)>,
        left: Left,
    ) -> anyhow::Result<(Legacy, Vec<OwnedFd>)> {
        let now = self.bootstrapping.borrow();
        let sockets = Sockets { listening: &now.listening, sync: now.sync_socket.as_ref(), admin: now.admin.as_ref() };
        let mut handed = sockets.handed()?;
        let to_leave = &self.to_leave;
        handed.push((Handed::Lock, to_leave.lock.try_clone()?.into()));
        handed.push((Handed::Control, to_leave.control.try_clone()?));
        for (path, link) in &to_leave.links {
            handed.push((Handed::Link(*path), link.try_clone()?));
        }
        handed.push((Handed::WorkerLink, left.link));
        handed.push((Handed::WorkerSessions, left.sessions));
        let leavers = self.leavers.left();
        let is_worker = |pid: &u32| *pid == left.pid || leavers.iter().any(|(leaver, _)| leaver == pid);
        let (handed, descriptors): (Vec<_>, Vec<_>) = handed.into_iter().unzip();
        let legacy = Legacy {
            version: VERSION,
            config_path: now.path.clone(),
            config_text: approved.config_text,
            former_text: now.text.clone(),
            program: approved.program,
            takeovers: to_leave.takeovers + 1,
            boot: to_leave.boot,
            vips,
            memory: self.memory.clone(),
            facts: now.administration.facts(),
            found: now.administration.found(),
            down: left.down,
            report: self.node.last_report().clone(),
            broken: self.node.broken(),
            worker: left.pid,
            others: children()?.into_iter().filter(|pid| !is_worker(pid)).collect(),
            leavers,
            handed,
        };
        Ok((legacy, descriptors))
    }
}

/// The children of this process that were not waited for.
fn children() -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        let list = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(children)
}

/// Becomes another program, with this one's arguments. Where that one cannot be started, this very one begins anew.
fn exec(program: &Path, legacy: Legacy, descriptors: &[OwnedFd]) -> io::Error {
    set_mask(libc::SIG_BLOCK);
    let error = try_exec(program, &legacy, descriptors);
    error!(program = %program.display(), %error, "the program cannot be started; this one goes on");
    let error = try_exec(Path::new("/proc/self/exe"), &legacy, descriptors);
    set_mask(libc::SIG_UNBLOCK);
    error
}

fn try_exec(program: &Path, legacy: &Legacy, descriptors: &[OwnedFd]) -> io::Error {
    match socket_of(legacy, descriptors) {
        Ok(socket) => {
            let mut arguments = std::env::args_os();
            let mut command = Program::new(program);
            if let Some(name) = arguments.next() {
                command.arg0(name);
            }
            command.args(arguments).env(VARIABLE, socket.as_raw_fd().to_string()).exec()
        }
        Err(error) => error,
    }
}

/// A socket with everything in it, which stays open over execve(2).
fn socket_of(legacy: &Legacy, descriptors: &[OwnedFd]) -> io::Result<UnixStream> {
    let mut file = File::from(memfd_create("baton-takeover", MemfdFlags::CLOEXEC)?);
    serde_json::to_writer(&file, legacy).map_err(io::Error::other)?;
    file.rewind()?;
    let (ours, theirs) = UnixStream::pair()?;
    // Rather an error than a wait for nobody.
    ours.set_nonblocking(true)?;
    descriptors::send(&ours, &[file.as_fd()])?;
    let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    descriptors::send(&ours, &descriptors)?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
    Ok(theirs)
}

/// Refuses to go on with what another release has left.
///
/// # Errors
/// Which release is needed.
pub fn check_version(version: u32) -> anyhow::Result<()> {
    if version != VERSION {
        bail!(
            "the program that runs leaves its state in form {version}, and this one reads form {VERSION}: restart it"
        );
    }
    Ok(())
}

/// When something happened that was so long ago.
pub fn ago(age: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}
