//! Puts the VIPs on their interfaces and takes them off, on the orders of the heartbeat, tells the link about it, and
//! sees to it that it stays so: an address that somebody else takes off is put back, one that turns up on a node that does
//! not hold it is taken off, and another machine's claim to one is answered.

mod announce;
mod keep;
mod limit;
mod nearby;
mod place;
mod record;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use pnet::util::MacAddr;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tracing::{error, warn};

use self::limit::PerSecond;
use self::nearby::{Defence, Heard, Listening, Probing};
use self::place::{Placed, Put};
use crate::config::{Transport, Vip};
use crate::net::clock::Clock;
use crate::net::neighbour::{Announcer, Claim, question};
use crate::net::netlink::{Address, Change, Netlink, watch};
use crate::net::sysctl::promote_secondaries;

pub use self::place::Carrier;
pub use self::place::carriers;
pub use self::place::remove_all_but;
pub use self::place::remove_stale;
pub use self::place::take_all_off;
pub use self::record::Record;

/// How often this node makes itself known, an advert interval apart: all of it before its first claim.
const INTRODUCTIONS: u32 = 3;

/// Time after which everything is looked at in case a message of the kernel was lost, and tried again what failed.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);

/// Time for which a macvlan stays without its addresses. To remove one takes the kernel tens of milliseconds, in which it
/// changes nothing else of any interface: neither for another VIP nor for the peer, where that is on this machine too.
const MACVLAN_REST: Duration = Duration::from_millis(500);

/// How often in a second a VIP is put back, or taken off where it does not belong, at once. Somebody who goes on longer
/// than that is fought once a [`REVIEW_INTERVAL`], so that two programs that disagree do not take a whole core.
const ACTS_PER_SECOND: u32 = 20;

/// Lines a second about that; those between are counted in the next one.
const LINES_PER_SECOND: u32 = 2;

/// Claims that may wait; further ones are dropped, as one is enough.
const CLAIMS_MAX: usize = 64;

/// From the heartbeat.
#[derive(Debug)]
pub enum Order {
    /// Put the VIP on its interfaces and announce it, then say whether it is there.
    Acquire {
        /// Its place among the VIPs.
        vip: usize,
        /// Gets true once it is on its interfaces and announced.
        done: oneshot::Sender<bool>,
    },
    /// Take it off, then say whether it is off.
    Release {
        /// Its place among the VIPs.
        vip: usize,
        /// Gets true once no address of the VIP is left on this machine.
        done: oneshot::Sender<bool>,
    },
    /// Make this node known to the peer, because it begins to listen for its adverts.
    Introduce {
        /// Its place among the VIPs.
        vip: usize,
    },
    /// Announce it again.
    Announce {
        /// Its place among the VIPs.
        vip: usize,
    },
    /// Ask whether another machine has its addresses (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2). An acquisition or
    /// another question ends it.
    Probe {
        /// Its place among the VIPs.
        vip: usize,
        /// Time to ask and listen in.
        within: Duration,
        /// Gets the first answer; dropped when there is none.
        found: oneshot::Sender<Claim>,
    },
}

/// The two ends of unicast adverts.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// This node's heartbeat address.
    pub local: IpAddr,
    /// The peer's.
    pub peer: IpAddr,
}

/// To the guard. Each was logged where it happened.
#[derive(Debug)]
pub enum Event {
    /// The VIP could not be put on its interfaces; none of its addresses is there.
    AcquireFailed {
        /// Its place among the VIPs.
        vip: usize,
        /// In words.
        reason: String,
    },
    /// Addresses that somebody else on this machine took off were put back.
    Restored {
        /// Their VIP's place among the VIPs.
        vip: usize,
        /// How many.
        count: usize,
    },
    /// The kernel refused to use an address, because another machine answered for it. It was put there anew.
    Duplicate {
        /// Its VIP's place among the VIPs.
        vip: usize,
        /// The address.
        address: IpAddr,
    },
    /// Another machine claims an address of a VIP that is held here.
    Conflict {
        /// Its VIP's place among the VIPs.
        vip: usize,
        /// The address.
        address: IpAddr,
        /// The other machine's hardware address.
        hardware: MacAddr,
    },
}

/// What is to be true of a VIP on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// It is not here, and taken off when it turns up.
    Free,
    /// It is here, and put back when somebody takes it off.
    Held,
    /// It has to go and could not be taken off yet.
    Leaving,
}

/// The addresses of a VIP.
struct Group {
    vip: Vip,
    carriers: Vec<Carrier>,
    holding: Holding,
    placed: Vec<Placed>,
    /// When macvlans are to go that nothing needs any more.
    macvlans_go_at: Option<Instant>,
    announcing: Option<JoinHandle<()>>,
    listening: Vec<Listening>,
    probing: Option<Probing>,
    acts: PerSecond,
    lines: PerSecond,
    defence: Option<Defence>,
    defended: Option<Instant>,
}

impl Group {
    fn new(vip: Vip, carriers: Vec<Carrier>) -> Self {
        Self {
            vip,
            carriers,
            holding: Holding::Free,
            placed: Vec::new(),
            macvlans_go_at: None,
            announcing: None,
            listening: Vec::new(),
            probing: None,
            acts: PerSecond::new(ACTS_PER_SECOND),
            lines: PerSecond::new(LINES_PER_SECOND),
            defence: None,
            defended: None,
        }
    }

    /// Ends what is only done while the VIP is held.
    fn stop_tasks(&mut self) {
        if let Some(task) = self.announcing.take() {
            task.abort();
        }
        self.defence = None;
    }

    /// Whether the address is where it belongs.
    fn is_placed(&self, address: &Address) -> bool {
        self.placed.iter().any(|placed| {
            placed.index == address.interface_index
                && placed.networks.iter().any(|network| network.address() == address.network.address())
        })
    }

    /// Whether all that was placed is among `found`.
    fn is_complete(&self, found: &[Address]) -> bool {
        let is_found = |index: u32, address: IpAddr| {
            found.iter().any(|at| (at.interface_index, at.network.address()) == (index, address) && !at.is_duplicate)
        };
        let mut placed = self.placed.iter();
        !self.placed.is_empty()
            && placed.all(|placed| placed.networks.iter().all(|network| is_found(placed.index, network.address())))
    }
}

/// Owns the VIPs' addresses.
pub struct Addresses {
    groups: Vec<Group>,
    /// `None` for a node without a peer.
    ends: Option<Ends>,
    netlink: Netlink,
    /// One for all and for ever: closing it takes the kernel milliseconds.
    announcer: Arc<Announcer>,
    claims: mpsc::Receiver<Heard>,
    claim_sender: mpsc::Sender<Heard>,
    events: mpsc::Sender<Event>,
}

impl Addresses {
    /// Needs `CAP_NET_RAW`, later `CAP_NET_ADMIN`, and a tokio runtime.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn open(vips: Vec<Vip>, ends: Option<Ends>, netlink: Netlink, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let carriers = place::carriers(&vips);
        let groups = vips.into_iter().zip(carriers).map(|(vip, carriers)| Group::new(vip, carriers)).collect();
        let (claim_sender, claims) = mpsc::channel(CLAIMS_MAX);
        Ok(Self { groups, ends, netlink, announcer: Arc::new(Announcer::open()?), claims, claim_sender, events })
    }

    /// It is here already: a guard before this one has put it there, and what is missing of it is put there as well.
    pub fn hold(&mut self, vip: usize) {
        if let Some(group) = self.groups.get_mut(vip) {
            group.holding = Holding::Held;
        }
    }

    /// Carries orders out, one after the other, until the heartbeat is gone.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut reviews = interval_at(Instant::now() + REVIEW_INTERVAL, REVIEW_INTERVAL);
        reviews.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = watched();
        self.listen_everywhere().await;
        loop {
            let due = self.next_due();
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order).await,
                    None => return,
                },
                change = next(&mut changes) => match change {
                    Some(change) => self.changed(change).await,
                    None => changes = None,
                },
                Some((vip, claim)) = self.claims.recv() => self.claim_heard(vip, claim),
                () = wait_until(due) => self.attend(),
                () = wait_until(self.groups.iter().filter_map(|group| group.macvlans_go_at).min()) => {
                    self.remove_macvlans().await;
                }
                _ = reviews.tick() => {
                    if changes.is_none() {
                        changes = watched();
                    }
                    self.review().await;
                }
            }
        }
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Acquire { vip, done } => {
                let acquired = self.acquire(vip).await;
                // The heartbeat only waits where the peer holds the VIP until it hears of us.
                let _gone = done.send(acquired);
            }
            Order::Release { vip, done } => {
                let released = self.release(vip).await;
                // The heartbeat may have gone on without us after its time-out.
                let _gone = done.send(released);
            }
            Order::Introduce { vip } => self.introduce(vip).await,
            Order::Announce { vip } => self.announce(vip),
            Order::Probe { vip, within, found } => self.probe(vip, within, found).await,
        }
    }

    /// Asks for the peer's hardware address by a broadcast, from which the peer learns ours.
    ///
    /// While we were away the peer's kernel asked for us once a second, and keeps its unicast adverts back until it is
    /// answered. Heard a second late, a living peer would have been taken for a silent one.
    async fn introduce(&self, index: usize) {
        let group = self.groups.get(index).filter(|group| group.vip.transport != Transport::Multicast);
        let (Some(Group { vip, .. }), Some(ends)) = (group, self.ends) else { return };
        let Ok(interface) = self.netlink.interface(&vip.advert_interface).await else { return };
        let Some(frame) = question(interface.hardware, ends.local, ends.peer) else { return };
        send(&self.announcer, &vip.name, &[(interface.index, frame.clone())]);
        let announcer = Arc::clone(&self.announcer);
        let pause = vip.advert_interval.get();
        tokio::spawn(async move {
            for _ in 1..INTRODUCTIONS {
                sleep(pause).await;
                // One that is lost is followed by another; the first was logged.
                drop(announcer.send(interface.index, &frame));
            }
        });
    }

    async fn acquire(&mut self, index: usize) -> bool {
        let Some(group) = self.groups.get_mut(index) else { return false };
        (group.holding, group.macvlans_go_at) = (Holding::Held, None);
        group.probing = None;
        for carrier in group.carriers.iter().filter(|carrier| carrier.virtual_mac.is_none()) {
            if let Err(error) = promote_secondaries(&carrier.interface) {
                warn!(
                    interface = carrier.interface,
                    %error,
                    "set the sysctl promote_secondaries to 1, or this node may lose its own address with the VIP"
                );
            }
        }
        let is_put = self.put(index).await.is_some();
        if is_put {
            self.announce(index);
        }
        is_put
    }

    /// Puts a VIP on its interfaces. All of its addresses or none: a VIP of which only a part is reachable would look
    /// served.
    async fn put(&mut self, index: usize) -> Option<Put> {
        let group = self.groups.get_mut(index)?;
        match place::put(&self.netlink, &group.carriers).await {
            Ok(put) => {
                group.placed.clone_from(&put.placed);
                Some(put)
            }
            Err(reason) => {
                error!(vip = group.vip.name, reason, "the VIP could not be taken");
                self.release(index).await;
                // The guard reads this queue as long as it lives.
                drop(self.events.send(Event::AcquireFailed { vip: index, reason }).await);
                None
            }
        }
    }

    /// Takes a VIP off. What it needed besides its addresses goes later, as that takes a time that nobody waits for.
    async fn release(&mut self, index: usize) -> bool {
        let Some(group) = self.groups.get_mut(index) else { return false };
        group.holding = Holding::Leaving;
        group.stop_tasks();
        match place::take_off(&self.netlink, &group.carriers).await {
            Ok(_) => {
                group.placed.clear();
                group.macvlans_go_at = group.vip.virtual_mac.then(|| Instant::now() + MACVLAN_REST);
                group.holding = Holding::Free;
                true
            }
            Err(error) => {
                error!(vip = group.vip.name, interface = group.vip.interface, %error, "the VIP could not be taken off");
                false
            }
        }
    }

    /// Removes the macvlans of one VIP that has not needed them for a while.
    async fn remove_macvlans(&mut self) {
        let now = Instant::now();
        let is_due = |group: &&mut Group| group.macvlans_go_at.is_some_and(|at| at <= now);
        let Some(group) = self.groups.iter_mut().find(is_due) else { return };
        group.macvlans_go_at = None;
        if let Err(error) = place::remove_macvlans(&self.netlink, &group.carriers).await {
            error!(vip = group.vip.name, interface = group.vip.interface, %error, "its macvlan could not be removed");
            // Tried again at the next review.
            group.holding = Holding::Leaving;
        }
    }

    fn announce(&mut self, index: usize) {
        let Some(group) = self.groups.get(index).filter(|group| !group.placed.is_empty()) else { return };
        let frames = announce::frames(&group.placed, group.vip.announce.burst);
        // The first ones now, before anything else gets a turn.
        send(&self.announcer, &group.vip.name, &frames);
        let announcer = Arc::clone(&self.announcer);
        let clock = Clock::start();
        let (schedule, advert_interval) = (group.vip.announce.clone(), group.vip.advert_interval.get());
        let repeat = announce::repeat(announcer, frames, schedule, clock, clock.now(), advert_interval);
        if let Some(group) = self.groups.get_mut(index)
            && let Some(previous) = group.announcing.replace(tokio::spawn(repeat))
        {
            previous.abort();
        }
    }

    /// What is only counted must not hold up what is done.
    fn tell(&self, event: Event) {
        drop(self.events.try_send(event));
    }
}

type Changes = Box<dyn Stream<Item = Change> + Unpin>;

/// The kernel's messages; `None` where they cannot be had, and is asked again at the next review.
fn watched() -> Option<Changes> {
    match watch() {
        Ok(changes) => Some(Box::new(changes)),
        Err(error) => {
            warn!(%error, "the kernel's messages about addresses cannot be read; looking once a second");
            None
        }
    }
}

async fn next(changes: &mut Option<Changes>) -> Option<Change> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

fn send(announcer: &Announcer, vip: &str, frames: &[announce::Outgoing]) {
    for (interface_index, frame) in frames {
        if let Err(error) = announcer.send(*interface_index, frame) {
            warn!(vip, interface_index, %error, "an announcement could not be sent");
        }
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
