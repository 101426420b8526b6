//! The privileged process: VRRP, VIPs, listening sockets, and the watch over the worker. It never reads a byte that a
//! client sent.
//!
//! Composition happens here: [`heartbeat`] is a thread that decides about the VIPs, [`addresses`] moves them,
//! [`events`] tells others, [`leases`] are what the witness lends us, [`supervisor`] runs the worker, [`control`] answers questions, [`state`] puts together what all of them say.

mod addresses;
pub mod control;
mod events;
mod heartbeat;
pub mod leases;
mod listeners;
mod notify;
mod state;
mod supervisor;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{error, info, warn};

use self::addresses::{Addresses, Ends};
use self::control::{Answer, Question, Reply, Request};
use self::events::Events;
use self::heartbeat::{Command, VipCounters};
use self::state::{Node, Vip, WorkerState};
use self::supervisor::Supervisor;
use crate::config::{Config, LocalNode, PairKey};
use crate::link::{Bootstrap, CertificatePem};
use crate::net::netlink::{Interface, Netlink, watch_interfaces};
use crate::net::realtime;
use crate::net::vrrp_socket::{Destination, VrrpSocket};
use crate::units::Priority;
use crate::vrrp::machine::{Parameters, Preempt, Resignation, Startup};
use crate::vrrp::packet::{Expected, MULTICAST_GROUP};

/// Messages of each kind that may wait; each sender says what happens at the limit.
const QUEUE_MAX: usize = 256;

/// Time that the heartbeat gets to give every VIP up at a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Time after which links are looked at again, in case a message of the kernel was lost, and failed VIPs tried again.
const REVIEW_INTERVAL: Duration = Duration::from_secs(2);

/// Real-time priority of the guard's own loop, which moves the addresses: below the heartbeat's.
const REALTIME_PRIORITY: i32 = 10;

/// Where a node keeps what has to outlast a restart of the machine, unless told otherwise.
pub const STATE_DIR: &str = "/var/lib/baton";

/// What a node that `prefer` names gets; the other one stays below it.
const PREFERRED: u8 = 254;

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
}

/// Runs the node until it is told to stop.
///
/// # Errors
/// When it cannot start; a node that has started recovers or gives its VIPs up instead.
pub fn run(options: Options) -> anyhow::Result<()> {
    let _lock = lock(&options.runtime_dir)?;
    let threads = options.config.worker.threads;
    let sockets = listeners::open(&options.config, threads)?;
    let mut warnings = Vec::new();
    if let Err(error) = realtime::lock_memory() {
        warnings.push(format!("memory is not locked ({error}): set LimitMEMLOCK=infinity"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let (guard, bootstrapping) = Guard::start(options, warnings).await?;
        guard.run(bootstrapping, sockets).await
    })
}

/// Takes the VIPs off this machine: what a service manager runs after a guard that could not do it itself.
///
/// # Errors
/// A guard that runs, or which VIP is still there, and why.
pub fn release(config: &Config, runtime_dir: &Path) -> anyhow::Result<()> {
    let _lock = lock(runtime_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { addresses::remove_stale(&Netlink::open()?, &config.vips).await })
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
    netlink: Netlink,
    pulse: Option<Arc<AtomicU64>>,
    heartbeat: mpsc::Receiver<heartbeat::Event>,
    failures: mpsc::Receiver<addresses::AcquireFailed>,
    questions: mpsc::Receiver<Question>,
    is_ready: bool,
    status_line: String,
}

/// What each new worker is made from.
struct Bootstrapping {
    config: Config,
    path: PathBuf,
    text: String,
    node: String,
    /// Read once, with the configuration: a worker is restarted with what was checked, whatever the disk says by then.
    pair_key: Option<PairKey>,
    certificates: Vec<Vec<CertificatePem>>,
}

impl Guard {
    async fn start(options: Options, mut warnings: Vec<String>) -> anyhow::Result<(Self, Bootstrapping)> {
        let Options { config, config_path, config_text, local, runtime_dir, state_dir } = options;
        let netlink = Netlink::open().context("the kernel's routing socket cannot be opened")?;
        addresses::remove_stale(&netlink, &config.vips).await?;
        let control = control::listen(&runtime_dir)
            .with_context(|| format!("{} cannot be opened", control::socket_path(&runtime_dir).display()))?;
        let (question_sender, questions) = mpsc::channel(QUEUE_MAX);
        tokio::task::spawn_local(control::serve(control, question_sender));
        let (event_sender, heartbeat) = mpsc::channel(QUEUE_MAX);
        let (order_sender, orders) = mpsc::channel(QUEUE_MAX);
        let (failure_sender, failures) = mpsc::channel(QUEUE_MAX);
        let mut vips = Vec::new();
        let mut pulse = None;
        if !config.vips.is_empty() {
            let (states, setups) = routers(&config, &local, &netlink).await?;
            let ends = ends(&config, &local)?;
            let opened = Addresses::open(config.vips.clone(), ends, netlink.clone(), failure_sender);
            tokio::task::spawn_local(opened.context(NEEDS_CAPABILITIES)?.run(orders));
            let beat = heartbeat::start(setups, order_sender, event_sender);
            let beat = beat.map_err(|(vip, error)| start_failure(&config, vip, error))?;
            let error = beat.not_realtime.or(realtime::schedule_first(REALTIME_PRIORITY).err());
            warnings
                .extend(error.map(|error| format!("adverts have no real-time priority ({error}): set LimitRTPRIO=99")));
            (vips, pulse) = (states, Some(beat.pulse));
        }
        let (events, of_events) = Events::start(&config, &local.name, &state_dir);
        warnings.extend(of_events);
        warnings.iter().for_each(|warning| warn!("{warning}"));
        let bootstrapping = Bootstrapping {
            pair_key: config.pair.key_file.as_deref().map(PairKey::load).transpose()?,
            certificates: listeners::certificates(&config)?,
            config: config.clone(),
            path: config_path,
            text: config_text,
            node: local.name.clone(),
        };
        let node = Node::new(config, local, vips, events, warnings);
        let (is_ready, status_line) = (false, String::new());
        Ok((Self { node, netlink, pulse, heartbeat, failures, questions, is_ready, status_line }, bootstrapping))
    }

    /// The guard's loop, until it is told to stop.
    async fn run(mut self, bootstrapping: Bootstrapping, sockets: Vec<TcpListener>) -> anyhow::Result<()> {
        let (worker_sender, mut worker_events) = mpsc::channel(QUEUE_MAX);
        let (stop_worker, stop) = mpsc::channel(1);
        let settings = self.node.config.worker.clone();
        let supervisor = Supervisor {
            bootstrap: Box::new(move || bootstrapping.bootstrap()),
            sockets,
            probe_interval: settings.probe_interval,
            probe_timeout: settings.probe_timeout,
            drain_timeout: settings.drain_timeout,
            events: worker_sender,
            stop,
        };
        tokio::task::spawn_local(supervisor.run());
        tokio::task::spawn_local(notify::feed_watchdog(self.pulse.take()));
        let mut interfaces = watch_interfaces().context("the kernel's link messages cannot be read")?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut reviews = tokio::time::interval(REVIEW_INTERVAL);
        let mut is_stopping = false;
        info!(node = self.node.local.name, version = env!("CARGO_PKG_VERSION"), "baton starts");
        loop {
            tokio::select! {
                biased;
                Some(event) = worker_events.recv() => {
                    self.node.worker_event(event);
                    if is_stopping && self.node.worker == WorkerState::Draining {
                        self.node.events.finish().await;
                        info!("baton has stopped");
                        return Ok(());
                    }
                }
                Some(interface) = interfaces.next() => self.node.interface_changed(&interface),
                Some(event) = self.heartbeat.recv() => self.node.heartbeat_event(event),
                Some(failure) = self.failures.recv() => self.node.acquire_failed(failure.vip, failure.reason),
                _ = reviews.tick() => self.review().await,
                Some(question) = self.questions.recv() => self.answer(question),
                _ = terminate.recv() => is_stopping = self.stop(is_stopping, &stop_worker).await?,
                _ = interrupt.recv() => is_stopping = self.stop(is_stopping, &stop_worker).await?,
                _ = hangup.recv() => warn!("this release does not re-read its configuration; restart to apply changes"),
            }
            self.tell_service_manager();
        }
    }

    /// Gives every VIP up, then has the worker finish. Asked a second time, does not wait for the worker.
    async fn stop(&mut self, is_stopping: bool, stop_worker: &mpsc::Sender<()>) -> anyhow::Result<bool> {
        if is_stopping {
            bail!("stopped a second time; requests in flight were broken off");
        }
        info!("baton stops");
        notify::stopping();
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
        // The queue holds one, and nobody else sends.
        let _already_told = stop_worker.try_send(());
        Ok(true)
    }

    /// Looks at links again, and lets VIPs try again that failed.
    async fn review(&mut self) {
        self.node.retry();
        let names: std::collections::BTreeSet<_> =
            self.node.config.vips.iter().map(|vip| vip.interface.clone()).collect();
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

    fn answer(&self, (request, reply): Question) {
        let answer = match request {
            Request::Status => Answer::Status(Box::new(self.node.status())),
        };
        // Whoever asked may have gone away.
        drop(reply.send(Reply::Ok(answer)));
    }

    fn tell_service_manager(&mut self) {
        if !self.is_ready && self.node.is_settled() {
            self.is_ready = true;
            info!("baton is ready");
            notify::ready();
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

const NEEDS_CAPABILITIES: &str = "raw sockets cannot be opened: baton needs CAP_NET_ADMIN and CAP_NET_RAW";

fn start_failure(config: &Config, vip: Option<usize>, error: io::Error) -> anyhow::Error {
    let vip = vip.and_then(|vip| config.vips.get(vip));
    match (vip, error.kind()) {
        (_, io::ErrorKind::PermissionDenied) => anyhow!(NEEDS_CAPABILITIES),
        (Some(vip), io::ErrorKind::AddrNotAvailable) => anyhow!(
            "vip {}: the address of this node is on no interface of this machine: check node.address and --node",
            vip.name
        ),
        (Some(vip), _) => anyhow!("vip {}: no adverts can be sent on {}: {error}", vip.name, vip.interface),
        (None, _) => anyhow!("the heartbeat cannot be started: {error}"),
    }
}

/// What each VIP's virtual router is started with, and the guard's side of it.
async fn routers(
    config: &Config,
    local: &LocalNode,
    netlink: &Netlink,
) -> anyhow::Result<(Vec<Vip>, Vec<heartbeat::Setup>)> {
    let own =
        local.index.and_then(|index| config.nodes.get(index)).context("a vip needs a [[node]] for this machine")?;
    let peer = config.nodes.iter().find(|node| node.name != own.name);
    let (own_address, peer_address) = (ipv4(own.address)?, peer.map(|peer| ipv4(peer.address)).transpose()?);
    let mut vips = Vec::new();
    let mut setups = Vec::new();
    for (index, vip) in config.vips.iter().enumerate() {
        let interface = netlink.interface(&vip.interface).await;
        let interface = interface.with_context(|| format!("vip {}: interface {}", vip.name, vip.interface))?;
        let destination = match (vip.transport, peer_address) {
            (crate::config::Transport::Multicast, _) => Destination::Group,
            (crate::config::Transport::Unicast, Some(peer)) => Destination::Peer(peer),
            (crate::config::Transport::Unicast, None) | (crate::config::Transport::Udp, _) => Destination::Nowhere,
        };
        let (priority, preempt) = standing(vip.prefer, local.index, own.priority);
        let addresses: Vec<Ipv4Addr> = vip.addresses.iter().filter_map(|at| ipv4(at.network.address()).ok()).collect();
        let counters = Arc::new(VipCounters::new());
        let (command_sender, commands) = mpsc::channel(QUEUE_MAX);
        let name = vip.interface.clone();
        setups.push(heartbeat::Setup {
            vip: index,
            parameters: Parameters {
                virtual_router_id: vip.virtual_router_id,
                priority,
                advert_interval: vip.advert_interval,
                preempt,
                resignation: Resignation::AtOnce,
                startup: if local.index == Some(vip.prefer.unwrap_or(0)) { Startup::Prompt } else { Startup::Held },
                local_address: own_address,
            },
            expected: Expected {
                virtual_router_id: vip.virtual_router_id,
                local: own_address,
                peer: peer_address.unwrap_or(Ipv4Addr::UNSPECIFIED),
                destination: if destination == Destination::Group { MULTICAST_GROUP } else { own_address },
                addresses: addresses.clone(),
            },
            addresses,
            siblings: siblings(config, index),
            open: Box::new(move || VrrpSocket::open(&name, own_address, destination)),
            destination: destination.address(),
            counters: Arc::clone(&counters),
            commands,
        });
        vips.push(Vip::new(priority, counters, command_sender, interface.index));
    }
    Ok((vips, setups))
}

fn own_node<'config>(config: &'config Config, local: &LocalNode) -> anyhow::Result<&'config crate::config::Node> {
    local.index.and_then(|index| config.nodes.get(index)).context("a vip needs a [[node]] for this machine")
}

/// Where adverts run between; `None` without a peer.
fn ends(config: &Config, local: &LocalNode) -> anyhow::Result<Option<Ends>> {
    let own = own_node(config, local)?;
    let Some(peer) = config.nodes.iter().find(|node| node.name != own.name) else { return Ok(None) };
    Ok(Some(Ends { local: ipv4(own.address)?, peer: ipv4(peer.address)? }))
}

/// Priority and preemption. Whoever holds a VIP keeps it, unless `prefer` names a node: then that one is above all and
/// takes it back, and the other stays below.
fn standing(prefer: Option<usize>, local: Option<usize>, own: Priority) -> (Priority, Preempt) {
    let limited = |priority: u8| Priority::new(priority).unwrap_or(own);
    match prefer {
        None => (own, Preempt::Never),
        Some(_) if prefer == local => (limited(PREFERRED), Preempt::WhenHigher),
        Some(_) => (limited(own.get().min(PREFERRED - 1)), Preempt::Never),
    }
}

/// The router ids of the other VIPs on the same interface.
fn siblings(config: &Config, index: usize) -> Vec<u8> {
    let interface = config.vips.get(index).map(|vip| &vip.interface);
    let others =
        config.vips.iter().enumerate().filter(|(other, vip)| *other != index && Some(&vip.interface) == interface);
    others.map(|(_, vip)| vip.virtual_router_id.get()).collect()
}

fn ipv4(address: IpAddr) -> anyhow::Result<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => Err(anyhow!("node address {address}: adverts over IPv6 are not in this release")),
    }
}

impl Bootstrapping {
    fn bootstrap(&self) -> Bootstrap {
        let threads = self.config.worker.threads;
        let address_count: usize = self.config.listeners.iter().map(|listener| listener.bind.len()).sum();
        Bootstrap {
            node: self.node.clone(),
            config_path: self.path.clone(),
            config_text: self.text.clone(),
            guard_pid: std::process::id(),
            threads,
            socket_count: address_count * threads,
            user: self.config.worker.user.clone(),
            pair_key: self.pair_key.as_ref().map(|key| key.as_bytes().to_vec()),
            certificates: self.certificates.clone(),
        }
    }
}
