//! The heartbeat: one thread that sends and hears adverts, and does nothing else.
//!
//! It is scheduled before every ordinary process, opens no file, writes no log and makes no netlink call. What has to
//! be done about a decision it tells others over bounded queues: [`super::addresses`] moves the VIP, [`super`] logs.
//! Each VIP has a task here, a [`Router`]: its machine decides, its [`Speaker`] talks.

mod router;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use self::router::Legacy;
use self::router::{Parts, Router};
use super::addresses::Order;
use super::counters::VipCounters;
use super::leases::{self, Lease};
use super::links;
use super::speaker::{Speaker, Voice};
use super::vitals::Vitals;
use crate::net::clock::Clock;
use crate::units::AdvertInterval;
use crate::vrrp::hello::Stamps;
use crate::vrrp::machine::{Parameters, Reason, State};
use crate::vrrp::packet::DropReason;

/// Real-time priority of the thread: above the usual 1 to 49 of ordinary real-time work, below kernel threads at 99.
const REALTIME_PRIORITY: i32 = 50;

/// Time between two signs of life of the thread.
const PULSE_INTERVAL: Duration = Duration::from_millis(100);

/// Time that the node's own addresses get at the start to become usable, and time between two looks.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
const ADDRESS_POLL: Duration = Duration::from_millis(100);

/// What one VIP is started with.
pub struct Setup {
    /// Its place among the VIPs.
    pub vip: usize,
    /// For its machine.
    pub parameters: Parameters,
    /// For its speaker.
    pub voice: Voice,
    /// The first bytes of the configuration's checksum.
    pub config_checksum: [u8; 8],
    /// Time that the peer may take before it begins a switchover that it is asked for.
    pub drain_max: Duration,
    /// What it counts.
    pub counters: Arc<VipCounters>,
    /// From the guard.
    pub commands: mpsc::Receiver<Command>,
    /// What a guard before this one, in the same process, has left of it.
    pub legacy: Option<Legacy>,
}

/// What a switchover came to: why it was refused, in words.
pub type SwitchoverReply = oneshot::Sender<Result<(), String>>;

/// From the guard to one VIP.
#[derive(Debug)]
pub enum Command {
    /// It may take part.
    Fit,
    /// It must not hold the VIP, and why.
    Unfit(String),
    /// What this node sees of the servers behind the VIP: pools with a server that is up, and servers that are up.
    Servers(u16, u16),
    /// Whether this node has what the peer has.
    Synced(bool),
    /// The first bytes of the checksum of the configuration in use.
    Configured([u8; 8]),
    /// Open the sockets anew, and tell how that went.
    Reopen,
    /// Tell whether the VIP could be moved to the peer now.
    MayHandOver {
        /// As in [`Command::HandOver`].
        force: bool,
        /// Told why not.
        reply: SwitchoverReply,
    },
    /// Move the VIP: to the peer when we hold it, to us when the peer does.
    HandOver {
        /// Also while this node or the peer is not synced.
        force: bool,
        /// Told in the end.
        reply: SwitchoverReply,
    },
    /// Give the VIP up and say when that is done.
    Stop(oneshot::Sender<()>),
    /// Keep the VIP, tell the peer to have patience, and leave everything to the guard that goes on for this one.
    Leave(oneshot::Sender<Legacy>),
}

/// From the heartbeat to the guard.
#[derive(Debug)]
pub enum Event {
    /// The role for a VIP changed.
    Changed {
        /// Which.
        vip: usize,
        /// From this.
        from: State,
        /// To this.
        to: State,
        /// Why.
        reason: Reason,
        /// Takeovers of this VIP so far, by whichever node.
        epoch: u32,
    },
    /// The VIP could not be taken off the interface in time, so no resignation was sent.
    NotReleased {
        /// Which.
        vip: usize,
    },
    /// Adverts cannot be sent: several in a row failed on every path, or the sockets could not be opened anew.
    Mute {
        /// Which.
        vip: usize,
        /// Why.
        error: std::io::Error,
    },
    /// The sockets were opened anew.
    Reopened {
        /// Which.
        vip: usize,
    },
    /// The peer lists other addresses for this VIP than our configuration does.
    AddressesDiffer {
        /// Which.
        vip: usize,
    },
    /// The peer runs another configuration.
    ConfigDiffers {
        /// The VIP it was noticed for.
        vip: usize,
    },
    /// Packets were refused. At most one event in ten seconds for each VIP and reason.
    Refused {
        /// Which.
        vip: usize,
        /// Why.
        reason: DropReason,
        /// Where the last one came from, where that could be read.
        source: Option<IpAddr>,
        /// How many since the last event.
        count: u64,
    },
    /// What the machine waits for changed.
    Waits {
        /// Which.
        vip: usize,
        /// In words; `None` when it waits for nothing but the silence of the peer.
        what: Option<String>,
    },
    /// The peer asks for the VIP, as an operator wants it there.
    Asked {
        /// Which.
        vip: usize,
    },
    /// A switchover did not come about, and why.
    HandOverFailed {
        /// Which.
        vip: usize,
        /// In words.
        reason: String,
    },
}

/// The witness that decides when the nodes cannot hear each other.
pub struct Witness {
    /// Where it is.
    pub address: SocketAddr,
    /// Where it is noted how it is.
    pub health: Arc<leases::Health>,
}

/// The running thread.
pub struct Heartbeat {
    /// Rises ten times a second while the thread lives.
    pub pulse: Arc<AtomicU64>,
    /// Why it is not scheduled before other processes, where it is not.
    pub not_realtime: Option<std::io::Error>,
    /// The links of the pair, for the janitor.
    pub links: Vec<OwnedFd>,
}

/// Which VIP could not be started, where it was one, and what the kernel says.
pub type StartFailure = (Option<usize>, std::io::Error);

/// Starts the thread, which holds the lifeline of `vitals`. Returns once every socket is open.
///
/// # Errors
/// When the thread cannot be started or a socket cannot be opened: which VIP, and what the kernel says.
pub fn start(
    setups: Vec<Setup>,
    links: links::Setup,
    witness: Option<Witness>,
    vitals: Vitals,
    orders: mpsc::Sender<Order>,
    events: mpsc::Sender<Event>,
) -> Result<Heartbeat, StartFailure> {
    let pulse = Arc::new(AtomicU64::new(0));
    let (report, started) = std::sync::mpsc::channel();
    let thread_pulse = Arc::clone(&pulse);
    let run = move || {
        let not_realtime = crate::net::realtime::schedule_first(REALTIME_PRIORITY).err();
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(report.send(Err((None, error)))),
        };
        runtime.block_on(async move {
            match open_all(setups, links, witness, &vitals, &orders, &events).await {
                Ok((routers, links)) => {
                    for router in routers {
                        tokio::task::spawn_local(router.run());
                    }
                    drop(report.send(Ok((not_realtime, links))));
                    beat(&thread_pulse).await;
                }
                Err(error) => drop(report.send(Err(error))),
            }
        });
    };
    std::thread::Builder::new().name("heartbeat".to_owned()).spawn(run).map_err(|error| (None, error))?;
    let started = started.recv().map_err(|_| (None, std::io::Error::other("the heartbeat thread ended")))?;
    let (not_realtime, links) = started?;
    Ok(Heartbeat { pulse, not_realtime, links })
}

/// Shows that the thread lives, for as long as the process does: also while the worker drains, with every router stopped.
async fn beat(pulse: &AtomicU64) {
    let mut turns = tokio::time::interval(PULSE_INTERVAL);
    loop {
        turns.tick().await;
        pulse.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tries again while an address cannot be used yet: until the kernel has asked the link whether somebody else has a new
/// IPv6 address, which takes it a second or two after boot (RFC 4862 section 5.4).
async fn once_addressed<T>(mut open: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    let until = Instant::now() + ADDRESS_TIMEOUT;
    loop {
        match open() {
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable && Instant::now() < until => {
                tokio::time::sleep(ADDRESS_POLL).await;
            }
            result => return result,
        }
    }
}

async fn open_all(
    setups: Vec<Setup>,
    links: links::Setup,
    witness: Option<Witness>,
    vitals: &Vitals,
    orders: &mpsc::Sender<Order>,
    events: &mpsc::Sender<Event>,
) -> Result<(Vec<Router>, Vec<OwnedFd>), StartFailure> {
    let clock = Clock::start();
    vitals.hold_lifeline().map_err(|error| (None, error))?;
    let opened = once_addressed(|| links::open(&links)).await.map_err(|error| (None, error))?;
    let for_janitor = links::descriptors(&opened).map_err(|error| (None, error))?;
    let vips = setups.iter().map(|setup| (setup.voice.vip.name.as_str(), setup.voice.vip.advert_interval)).collect();
    let mut leases = open_leases(&links, witness, vips, clock).map_err(|error| (None, error))?.into_iter();
    let mut mailboxes = HashMap::new();
    let mut routers = Vec::new();
    for Setup { vip, parameters, voice, config_checksum, drain_max, counters, commands, legacy } in setups {
        let (ends, mailbox) = links::join(&links, &opened, &voice.vip.name, &mut mailboxes);
        let mut speaker = Speaker::new(voice, ends, mailbox, Arc::clone(&counters));
        once_addressed(|| speaker.open_vrrp()).await.map_err(|error| (Some(vip), error))?;
        legacy.as_ref().inspect(|legacy| speaker.take_over(&legacy.speaker));
        routers.push(Router::new(Parts {
            vip,
            hello: links::first_hello(config_checksum, &parameters, !links.syncs()),
            parameters,
            drain_max,
            speaker,
            stamps: legacy.as_ref().map_or_else(|| Stamps::new(links.boot), |legacy| Stamps::resume(legacy.stamp)),
            clock,
            lease: leases.next(),
            vitals: vitals.clone(),
            counters,
            commands,
            orders: orders.clone(),
            events: events.clone(),
            legacy,
        }));
    }
    let mailboxes = Rc::new(mailboxes);
    for (index, link) in opened.into_iter().enumerate() {
        tokio::task::spawn_local(links::read(index, link, Rc::clone(&mailboxes)));
    }
    Ok((routers, for_janitor))
}

/// A lease for each VIP, and the task that speaks with the witness; none without one.
fn open_leases(
    links: &links::Setup,
    witness: Option<Witness>,
    vips: Vec<(&str, AdvertInterval)>,
    clock: Clock,
) -> std::io::Result<Vec<Lease>> {
    let Some(Witness { address, health }) = witness else { return Ok(Vec::new()) };
    let (pair_key, node) = (links.key.as_slice(), links.own_node.as_str());
    let (task, leases) = leases::open(leases::Setup { witness: address, pair_key, node, vips, clock, health })?;
    tokio::task::spawn_local(task.run());
    Ok(leases)
}
