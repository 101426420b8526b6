//! Puts the VIPs on their interfaces and takes them off, on the orders of the heartbeat, and tells the link about it.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::{error, info, warn};

use crate::config::{Transport, Vip};
use crate::net::clock::Clock;
use crate::net::neighbour::{Announcer, announcement, question};
use crate::net::netlink::{Interface, Netlink, promote_secondaries};

/// Times after a takeover at which the addresses are announced. The first one moves the traffic; the others are for
/// when it was lost, the last for hosts and switches that were just then restarting.
const ANNOUNCEMENTS_MS: [u64; 6] = [0, 50, 200, 700, 2_000, 5_000];

/// How often this node makes itself known, an advert interval apart: all of it before its first claim.
const INTRODUCTIONS: u32 = 3;

/// Time after which addresses that somebody else took off are put back, at the latest.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);

/// The loopback interface has this index in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// From the heartbeat.
#[derive(Debug)]
pub enum Order {
    /// Put the VIP on its interface and announce it.
    Acquire {
        /// Its place among the VIPs.
        vip: usize,
    },
    /// Take it off, then say whether it is off.
    Release {
        /// Its place among the VIPs.
        vip: usize,
        /// Gets true once no address of the VIP is left on the interface.
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
}

/// The two ends of unicast adverts.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// This node's heartbeat address.
    pub local: Ipv4Addr,
    /// The peer's.
    pub peer: Ipv4Addr,
}

/// The VIP could not be put on its interface.
#[derive(Debug)]
pub struct AcquireFailed {
    /// Its place among the VIPs.
    pub vip: usize,
    /// In words.
    pub reason: String,
}

/// What is to be true of a VIP on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// It is not here.
    Free,
    /// It is here, and put back when somebody takes it off.
    Held,
    /// It has to go and could not be taken off yet.
    Leaving,
}

/// Owns the VIPs' addresses.
pub struct Addresses {
    vips: Vec<Vip>,
    /// `None` for a node without a peer.
    ends: Option<Ends>,
    netlink: Netlink,
    announcer: Announcer,
    announcing: Vec<Option<JoinHandle<()>>>,
    holdings: Vec<Holding>,
    failures: mpsc::Sender<AcquireFailed>,
}

impl Addresses {
    /// Needs `CAP_NET_RAW`, later `CAP_NET_ADMIN`, and a tokio runtime.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn open(
        vips: Vec<Vip>,
        ends: Option<Ends>,
        netlink: Netlink,
        failures: mpsc::Sender<AcquireFailed>,
    ) -> io::Result<Self> {
        let announcing = vips.iter().map(|_| None).collect();
        let holdings = vec![Holding::Free; vips.len()];
        Ok(Self { vips, ends, netlink, announcer: Announcer::open()?, announcing, holdings, failures })
    }

    /// Carries orders out, one after the other, until the heartbeat is gone.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut reviews = interval_at(Instant::now() + REVIEW_INTERVAL, REVIEW_INTERVAL);
        reviews.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order).await,
                    None => return,
                },
                _ = reviews.tick() => self.review().await,
            }
        }
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Acquire { vip } => self.acquire(vip).await,
            Order::Release { vip, done } => {
                let released = self.release(vip).await;
                // The heartbeat may have gone on without us after its time-out.
                let _gone = done.send(released);
            }
            Order::Introduce { vip } => self.introduce(vip).await,
            Order::Announce { vip } => self.announce(vip).await,
        }
    }

    /// Asks for the peer's hardware address by a broadcast, from which the peer learns ours.
    ///
    /// While we were away the peer's kernel asked for us once a second, and keeps its unicast adverts back until it is
    /// answered. Heard a second late, a living peer would have been taken for a silent one.
    async fn introduce(&self, index: usize) {
        let Some(vip) = self.vips.get(index).filter(|vip| vip.transport == Transport::Unicast) else { return };
        let (Some(ends), Ok(interface)) = (self.ends, self.netlink.interface(&vip.interface).await) else { return };
        let Some(frame) = question(interface.hardware, ends.local.into(), ends.peer.into()) else { return };
        self.send(&vip.name, &interface, std::slice::from_ref(&frame));
        let Ok(announcer) = Announcer::open() else { return };
        let pause = vip.advert_interval.get();
        tokio::spawn(async move {
            for _ in 1..INTRODUCTIONS {
                sleep(pause).await;
                // One that is lost is followed by another; the first was logged.
                drop(announcer.send(interface.index, &frame));
            }
        });
    }

    async fn acquire(&mut self, index: usize) {
        self.set(index, Holding::Held);
        if let Some(vip) = self.vips.get(index)
            && let Err(error) = promote_secondaries(&vip.interface)
        {
            warn!(
                interface = vip.interface,
                %error,
                "set the sysctl promote_secondaries to 1, or this node may lose its own address with the VIP"
            );
        }
        if self.put(index).await.is_some() {
            self.announce(index).await;
        }
    }

    /// Puts back what somebody else took off, and takes off what could not be taken off before. It happens between
    /// orders, so it cannot undo one.
    async fn review(&mut self) {
        for (index, holding) in self.holdings.clone().into_iter().enumerate() {
            match holding {
                Holding::Free => {}
                Holding::Held => self.put_back(index).await,
                Holding::Leaving => drop(self.release(index).await),
            }
        }
    }

    async fn put_back(&mut self, index: usize) {
        if let Some(added) = self.put(index).await
            && added > 0
        {
            warn!(vip = self.name(index), addresses = added, "put back addresses that somebody else removed");
            self.announce(index).await;
        }
    }

    fn set(&mut self, index: usize, holding: Holding) {
        if let Some(place) = self.holdings.get_mut(index) {
            *place = holding;
        }
    }

    /// Puts a VIP on its interface, and says how many of its addresses were not there.
    async fn put(&mut self, index: usize) -> Option<usize> {
        let vip = self.vips.get(index)?;
        match self.add_all(vip).await {
            Ok(added) => Some(added),
            Err(reason) => {
                error!(vip = vip.name, reason, "the VIP could not be taken");
                // The guard reads this queue as long as it lives.
                drop(self.failures.send(AcquireFailed { vip: index, reason }).await);
                None
            }
        }
    }

    fn name(&self, index: usize) -> &str {
        self.vips.get(index).map_or("", |vip| vip.name.as_str())
    }

    async fn add_all(&self, vip: &Vip) -> Result<usize, String> {
        let failed = |what: &str, error: &io::Error| format!("failed to add {what} to {}: {error}", vip.interface);
        let interface = self.netlink.interface(&vip.interface).await;
        let interface = interface.map_err(|error| failed(&vip.name, &error))?;
        let mut count = 0;
        for address in &vip.addresses {
            let added = self.netlink.add_address(interface.index, address.network).await;
            count += usize::from(added.map_err(|error| failed(&address.network.to_string(), &error))?);
        }
        Ok(count)
    }

    async fn release(&mut self, index: usize) -> bool {
        self.set(index, Holding::Leaving);
        if let Some(task) = self.announcing.get_mut(index).and_then(Option::take) {
            task.abort();
        }
        let Some(vip) = self.vips.get(index) else { return false };
        match remove_all(&self.netlink, vip).await {
            Ok(_) => {
                self.set(index, Holding::Free);
                true
            }
            Err(error) => {
                error!(vip = vip.name, interface = vip.interface, %error, "the VIP could not be taken off");
                false
            }
        }
    }

    async fn announce(&mut self, index: usize) {
        let Some(vip) = self.vips.get(index) else { return };
        let Ok(interface) = self.netlink.interface(&vip.interface).await else { return };
        let frames: Vec<_> =
            vip.addresses.iter().filter_map(|at| announcement(interface.hardware, at.network.address())).collect();
        // The first ones now, before anything else gets a turn.
        self.send(&vip.name, &interface, &frames);
        let Ok(announcer) = Announcer::open() else { return };
        let (clock, advert_interval) = (Clock::start(), vip.advert_interval.get());
        let started = clock.now();
        let repeat = async move {
            for at_ms in ANNOUNCEMENTS_MS.into_iter().skip(1) {
                sleep_without_stall(clock, started + Duration::from_millis(at_ms), advert_interval).await;
                for frame in &frames {
                    // One that is lost is followed by another; the first was logged.
                    drop(announcer.send(interface.index, frame));
                }
            }
        };
        if let Some(slot) = self.announcing.get_mut(index)
            && let Some(previous) = slot.replace(tokio::spawn(repeat))
        {
            previous.abort();
        }
    }

    fn send(&self, vip: &str, interface: &Interface, frames: &[Vec<u8>]) {
        for frame in frames {
            if let Err(error) = self.announcer.send(interface.index, frame) {
                warn!(vip, interface = interface.name, %error, "an announcement could not be sent");
            }
        }
    }
}

/// Sleeps until `until`, and longer when the process was stalled meanwhile: what it believes is old then, and the
/// heartbeat, which woke at the same moment, gets an advert interval to release the VIP and so end this task.
async fn sleep_without_stall(clock: Clock, until: std::time::Instant, advert_interval: Duration) {
    let mut is_late = false;
    loop {
        let before = clock.now();
        let left = until.saturating_duration_since(before);
        if left.is_zero() && !is_late {
            return;
        }
        // In steps no longer than an interval: a stall within a long sleep would not show at its end.
        let step = if is_late { advert_interval } else { left.min(advert_interval) };
        sleep(step).await;
        is_late = clock.now().saturating_duration_since(before) >= step + advert_interval;
    }
}

/// Takes every address of a VIP off this machine, and says which were there. It looks on all interfaces, since the one
/// that got them may have been renamed; loopback is left alone, where others may have put them on purpose.
///
/// # Errors
/// What the kernel says; the other addresses were still tried.
pub async fn remove_all(netlink: &Netlink, vip: &Vip) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    let mut failure = None;
    for (interface_index, network) in netlink.all_addresses().await? {
        let is_ours = vip.addresses.iter().any(|address| address.network.address() == network.address());
        if !is_ours || interface_index == LOOPBACK_INDEX {
            continue;
        }
        match netlink.remove_address(interface_index, network).await {
            Ok(true) => removed.push(network.to_string()),
            Ok(false) => {}
            // The interface went, and the address with it.
            Err(error) if is_no_device(&error) => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(removed), Err)
}

/// Takes off what a guard that was killed left behind, before this one takes part.
///
/// # Errors
/// What the kernel says, with the VIP's name.
pub async fn remove_stale(netlink: &Netlink, vips: &[Vip]) -> anyhow::Result<()> {
    for vip in vips {
        let removed = remove_all(netlink, vip).await;
        let removed = removed
            .map_err(|error| anyhow::anyhow!("failed to take vip {} off {}: {error}", vip.name, vip.interface))?;
        if !removed.is_empty() {
            info!(
                vip = vip.name,
                interface = vip.interface,
                addresses = removed.join(" "),
                "removed a VIP that was left behind"
            );
        }
    }
    Ok(())
}

fn is_no_device(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
