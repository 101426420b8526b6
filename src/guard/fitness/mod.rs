//! The shells around the core `fitness`: what is watched of this node, and how each thing is looked at.
//!
//! [`Checks`] makes the list of checks from the configuration; [`start`] spawns a task for each that has to be looked at.
//! A task looks at its interval, one look at a time, and sends what it found; nothing here blocks the guard's loop. What
//! the guard learns without looking (worker, carriers, addresses, adverts, servers) it tells the core itself.

pub mod command;
mod file;
mod gateway;
mod listener;
mod process;
pub mod threads;
mod worker_thread;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

pub use self::listener::Situation;
use crate::config::{Config, FitnessCheck, FitnessSubject, Listener, Route};
use crate::fitness::{Check, CheckId, Finding, Fitness, Severity, Start, Subject};
use crate::net::netlink::Netlink;

/// Unanswered probes of a listener in a row that make it broken. They are a second apart.
const LISTENER_FALL: u32 = 3;

/// The core, and which of its checks is which.
pub struct Checks {
    /// The core.
    pub fitness: Fitness,
    /// The worker.
    pub worker: CheckId,
    /// The carrier of each interface that carries addresses.
    pub carriers: Vec<(String, CheckId)>,
    /// For each VIP, whether its addresses could be set.
    pub addresses: Vec<CheckId>,
    /// For each VIP, whether its adverts can be sent.
    pub adverts: Vec<CheckId>,
    /// For each pool, its servers, where a VIP uses it.
    pub pools: Vec<Option<CheckId>>,
    listeners: Vec<Option<CheckId>>,
    configured: Vec<CheckId>,
}

impl Checks {
    /// The checks of this configuration. Faults are listed in the order in which they are made here.
    pub fn new(config: &Config) -> Self {
        let now = Instant::now();
        let mut fitness = Fitness::new(config.vips.len());
        let mut add = |subject, severity, start, vips, fall, rise| {
            fitness.add(Check { subject, severity, start, vips, fall, rise }, now)
        };
        let all: Vec<usize> = (0..config.vips.len()).collect();
        // Verdicts that come from the kernel or from a watch of their own are counted there, so that one is enough here.
        let mut broken = |subject, start, vips| add(subject, Severity::Broken, start, vips, 1, 1);
        let worker = broken(Subject::Worker, Start::Closed, all.clone());
        let carriers = interfaces(config);
        let carriers = carriers.into_iter().map(|(name, vips)| {
            let check = broken(Subject::Carrier(name.clone()), Start::Open, vips);
            (name, check)
        });
        let carriers = carriers.collect();
        let addresses = all.iter().map(|vip| broken(Subject::Addresses, Start::Open, vec![*vip])).collect();
        let adverts = all.iter().map(|vip| broken(Subject::Adverts, Start::Open, vec![*vip])).collect();
        let listeners = config.listeners.iter().map(|listener| {
            let (subject, vips) = (Subject::Listener(listener.name.clone()), vips_of_listener(config, listener));
            let is_used = !vips.is_empty();
            is_used.then(|| add(subject, Severity::Broken, Start::Open, vips, LISTENER_FALL, 1))
        });
        let listeners = listeners.collect();
        let configured = config.fitness.iter().map(|check| {
            let vips = check.vips.clone();
            add(subject_of(check), Severity::Broken, Start::Closed, vips, check.fall, check.rise)
        });
        let configured = configured.collect();
        let pools = config.pools.iter().enumerate().map(|(index, pool)| {
            let (subject, vips) = (Subject::Servers(pool.name.clone()), vips_of_pool(config, index));
            let is_used = !vips.is_empty();
            is_used.then(|| add(subject, Severity::Weaker, Start::Open, vips, 1, 1))
        });
        let pools = pools.collect();
        Self { fitness, worker, carriers, addresses, adverts, pools, listeners, configured }
    }
}

impl Checks {
    /// Those that keep VIPs from being held until they were looked at.
    pub fn closed(&self) -> impl Iterator<Item = CheckId> {
        std::iter::once(self.worker).chain(self.configured.iter().copied())
    }
}

/// The tasks that look. They end when this is dropped.
pub struct Looks(Vec<AbortHandle>);

impl Drop for Looks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// What an operator should know of the configured checks on this machine, in sentences.
pub fn warnings(config: &Config) -> Vec<String> {
    command::warnings(config).chain(process::warnings(config)).collect()
}

/// The interfaces that carry addresses, with the VIPs whose addresses they carry. One that carries adverts alone is not
/// among them: over a cable between the two nodes the end of the peer takes the carrier of both, and the node that is
/// left must not give its VIPs up for that.
fn interfaces(config: &Config) -> Vec<(String, Vec<usize>)> {
    let mut found: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, vip) in config.vips.iter().enumerate() {
        for name in vip.addresses.iter().map(|address| &address.interface) {
            match found.iter_mut().find(|(known, _)| known == name) {
                Some((_, vips)) if vips.contains(&index) => {}
                Some((_, vips)) => vips.push(index),
                None => found.push((name.clone(), vec![index])),
            }
        }
    }
    found
}

/// The VIPs whose clients a listener serves: those whose addresses it is bound to, all of them for a wildcard.
fn vips_of_listener(config: &Config, listener: &Listener) -> Vec<usize> {
    let serves = |index: &usize| {
        let addresses = config.vips.get(*index).into_iter().flat_map(|vip| &vip.addresses);
        addresses
            .map(|address| address.network.address())
            .any(|address| listener.bind.iter().any(|bind| covers(bind, address)))
    };
    (0..config.vips.len()).filter(serves).collect()
}

/// Whether a connection to `address` comes out at `bind`. `[::]` takes IPv4 too.
fn covers(bind: &SocketAddr, address: IpAddr) -> bool {
    match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.is_ipv4(),
        IpAddr::V6(ip) if ip.is_unspecified() => true,
        ip => ip == address,
    }
}

fn vips_of_pool(config: &Config, pool: usize) -> Vec<usize> {
    let uses = |listener: &&Listener| {
        let of_routes = listener.routes.iter().flat_map(Route::pools);
        listener.pool.into_iter().chain(of_routes).any(|used| used.0 == pool)
    };
    let mut vips: Vec<usize> =
        config.listeners.iter().filter(uses).flat_map(|listener| vips_of_listener(config, listener)).collect();
    vips.sort_unstable();
    vips.dedup();
    vips
}

fn subject_of(check: &FitnessCheck) -> Subject {
    let name = check.name.clone();
    match &check.subject {
        FitnessSubject::Gateway { .. } => Subject::Gateway(name),
        FitnessSubject::Command { .. } => Subject::Command(name),
        FitnessSubject::File { .. } => Subject::File(name),
        FitnessSubject::Process { .. } => Subject::Process(name),
    }
}

/// Where a listener can be reached from its own machine.
fn ways_in(config: &Config, listener: &Listener) -> Vec<listener::WayIn> {
    let ways = listener.bind.iter().flat_map(|bind| {
        let loopback = match bind.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
            IpAddr::V6(ip) if ip.is_unspecified() => Some(IpAddr::from(Ipv6Addr::LOCALHOST)),
            _ => None,
        };
        let always =
            loopback.map(|ip| listener::WayIn { address: SocketAddr::new(ip, bind.port()), while_active: None });
        let carries =
            |vip: &crate::config::Vip| vip.addresses.iter().any(|address| address.network.address() == bind.ip());
        let of_vips = config.vips.iter().enumerate().filter(move |(_, vip)| carries(vip));
        let of_vips = of_vips.map(|(vip, _)| listener::WayIn { address: *bind, while_active: Some(vip) });
        always.into_iter().chain(of_vips).collect::<Vec<_>>()
    });
    ways.collect()
}

/// What a look that was made is sent as.
pub type Found = (CheckId, Finding);

/// Spawns the tasks that look, on the current `LocalSet` or local runtime. They end with it, or with
/// what is given.
///
/// # Errors
/// When a thread for looks that may block cannot be started.
pub fn start(
    checks: &Checks,
    config: &Config,
    netlink: &Netlink,
    situation: &watch::Receiver<Situation>,
    found: &mpsc::Sender<Found>,
) -> io::Result<Looks> {
    let mut looks = Looks(Vec::new());
    let mut spawn = |look: LocalBoxFuture<'static, ()>| looks.0.push(tokio::task::spawn_local(look).abort_handle());
    for (index, (listener, check)) in config.listeners.iter().zip(&checks.listeners).enumerate() {
        if let Some(check) = check {
            let ways_in = ways_in(config, listener);
            let listener = (index, listener::patience(config.worker.probe_timeout));
            spawn(listener::watch(*check, listener, ways_in, situation.clone(), found.clone()).boxed_local());
        }
    }
    for (check, id) in config.fitness.iter().zip(&checks.configured) {
        let rhythm = Rhythm { check: *id, interval: check.interval, timeout: check.timeout, found: found.clone() };
        match check.subject.clone() {
            FitnessSubject::Gateway { address, interface } => {
                let vips = config.vips.iter().flat_map(|vip| &vip.addresses);
                let vips = vips.map(|address| address.network.address()).collect();
                let gateway = gateway::Gateway { address, interface, vips, netlink: netlink.clone() };
                spawn(gateway.watch(rhythm).boxed_local());
            }
            FitnessSubject::Command { command } => {
                spawn(command::watch(command, rhythm).boxed_local());
            }
            FitnessSubject::File { path, must_exist } => {
                let look = move || file::look(&path, must_exist);
                spawn(worker_thread::watch(look, rhythm)?.boxed_local());
            }
            FitnessSubject::Process { process } => {
                let look = move || process::look(&process);
                spawn(worker_thread::watch(look, rhythm)?.boxed_local());
            }
        }
    }
    Ok(looks)
}

/// When a configured check looks, and where what it finds goes.
struct Rhythm {
    check: CheckId,
    interval: Duration,
    timeout: Duration,
    found: mpsc::Sender<Found>,
}

impl Rhythm {
    /// Fires at once and then at the interval; a look that took too long moves the ones after it.
    fn turns(&self) -> tokio::time::Interval {
        let mut turns = interval(self.interval);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        turns
    }

    /// False when nobody wants to know any more.
    async fn report(&self, finding: Finding) -> bool {
        self.found.send((self.check, finding)).await.is_ok()
    }

    fn too_slow(&self) -> String {
        format!("no answer within {} ms", self.timeout.as_millis())
    }
}

#[cfg(test)]
mod tests;
