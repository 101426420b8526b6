//! Other machines on the link that say that a virtual address is theirs: asked for before the first claim, and answered
//! while a VIP is held.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use pnet::util::MacAddr;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::announce::{self, Outgoing};
use super::place::Carrier;
use super::{Addresses, Event, Holding, send};
use crate::net::neighbour::{Claim, ClaimWatcher, probe};
use crate::net::netlink::Interface;

/// Time between two defences of a VIP against another machine's claims. (RFC 5227 section 2.4 asks for ten seconds; for
/// as long clients would be without service here.)
const DEFENCE_INTERVAL: Duration = Duration::from_secs(1);

/// Time that passes between a claim and the defence, unless the advert interval is shorter. At a takeover the peer claims
/// and announces in the same moment: its advert has us release the VIP, and an announcement of ours in between would
/// draw the traffic to where nobody takes it.
const DEFENCE_DELAY_MAX: Duration = Duration::from_millis(100);

/// Questions for each address before the first claim (`PROBE_NUM` of RFC 5227 section 1.1).
const PROBES: u32 = 3;

/// Time after which an interface that could not be listened on is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// A claim of another machine, and the VIP's place among the VIPs.
pub type Heard = (usize, Claim);

/// What is to be done about another machine's claims.
pub struct Defence {
    /// When.
    pub due: Instant,
    /// The first of them.
    claim: Claim,
    /// How many there were.
    count: u32,
}

/// A question for other holders that is under way.
pub struct Probing {
    /// When to ask again, or to give up.
    pub due: Instant,
    left: u32,
    pause: Duration,
    frames: Vec<Outgoing>,
    found: oneshot::Sender<Claim>,
}

/// A task that hears claims on one interface. It goes on when the VIP is given up: closing its socket takes the kernel
/// milliseconds, which a release cannot spare.
pub struct Listening {
    interface: String,
    index: u32,
    hardware: MacAddr,
    task: JoinHandle<()>,
}

impl Listening {
    fn is_on(&self, interface: &Interface) -> bool {
        (&self.interface, self.index, self.hardware) == (&interface.name, interface.index, interface.hardware)
            && !self.task.is_finished()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(vip: usize, carrier: &Carrier, link: &Interface, heard: mpsc::Sender<Heard>) -> io::Result<JoinHandle<()>> {
    let addresses = addresses(carrier);
    // The other node of the pair has the same virtual hardware address. Its adverts say who it is.
    let own = carrier.virtual_mac.iter().map(|mac| mac.hardware).chain([link.hardware]).collect();
    let mut watcher = ClaimWatcher::open(link.index, addresses, own)?;
    Ok(tokio::spawn(async move {
        loop {
            match watcher.next().await {
                // A full queue holds claims enough.
                Ok(claim) => _ = heard.try_send((vip, claim)),
                // It went down, and may come up again.
                Err(_) => sleep(PAUSE).await,
            }
        }
    }))
}

fn addresses(carrier: &Carrier) -> Vec<IpAddr> {
    carrier.networks.iter().map(|network| network.address()).collect()
}

impl Addresses {
    /// Hears claims on every interface of every VIP, as far as they are up.
    pub(super) async fn listen_everywhere(&mut self) {
        let carriers = self.groups.iter().flat_map(|group| &group.carriers);
        let names: std::collections::BTreeSet<String> = carriers.map(|carrier| carrier.interface.clone()).collect();
        for name in names {
            if let Ok(interface) = self.netlink.interface(&name).await {
                self.listen_on(&interface);
            }
        }
    }

    /// Hears claims on an interface, anew if it is another one than before.
    pub(super) fn listen_on(&mut self, interface: &Interface) {
        if !interface.has_carrier {
            return;
        }
        for (vip, group) in self.groups.iter_mut().enumerate() {
            if group.listening.iter().any(|listening| listening.is_on(interface)) {
                continue;
            }
            group.listening.retain(|listening| listening.interface != interface.name);
            for carrier in group.carriers.iter().filter(|carrier| carrier.interface == interface.name) {
                let Interface { name, index, hardware, .. } = interface.clone();
                match listen(vip, carrier, interface, self.claim_sender.clone()) {
                    Ok(task) => group.listening.push(Listening { interface: name, index, hardware, task }),
                    Err(error) => {
                        warn!(vip = group.vip.name, interface = name, %error, "claims of others cannot be heard");
                    }
                }
            }
        }
    }

    /// Begins to ask who has the addresses of a VIP.
    pub(super) async fn probe(&mut self, index: usize, within: Duration, found: oneshot::Sender<Claim>) {
        let Some(group) = self.groups.get_mut(index).filter(|group| group.holding != Holding::Held) else { return };
        let mut frames = Vec::new();
        for carrier in &group.carriers {
            // One that is not there has nobody on it. The VIP could not be put there either.
            let Ok(link) = self.netlink.interface(&carrier.interface).await else { continue };
            let of_carrier = addresses(carrier).into_iter().filter_map(|address| probe(link.hardware, address));
            frames.extend(of_carrier.map(|frame| (link.index, frame)));
        }
        let (due, pause) = (Instant::now(), within / PROBES);
        group.probing = Some(Probing { due, left: PROBES, pause, frames, found });
    }

    pub(super) fn claim_heard(&mut self, index: usize, claim: Claim) {
        let Some(group) = self.groups.get_mut(index) else { return };
        if let Some(probing) = group.probing.take() {
            // The heartbeat may have decided otherwise meanwhile.
            let _gone = probing.found.send(claim);
        }
        if group.holding != Holding::Held {
            return;
        }
        if let Some(defence) = &mut group.defence {
            defence.count = defence.count.saturating_add(1);
            return;
        }
        let soon = Instant::now() + group.vip.advert_interval.get().min(DEFENCE_DELAY_MAX);
        let due = group.defended.map_or(soon, |defended| soon.max(defended + DEFENCE_INTERVAL));
        group.defence = Some(Defence { due, claim, count: 1 });
    }

    /// The next time at which [`Addresses::attend`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let defences = self.groups.iter().filter_map(|group| group.defence.as_ref().map(|defence| defence.due));
        let probes = self.groups.iter().filter_map(|group| group.probing.as_ref().map(|probing| probing.due));
        defences.chain(probes).min()
    }

    /// Asks again, and announces VIPs again that another machine has claimed and that are held here still.
    pub(super) fn attend(&mut self) {
        let now = Instant::now();
        for index in 0..self.groups.len() {
            self.ask_again(index, now);
            self.defend(index, now);
        }
    }

    fn ask_again(&mut self, index: usize, now: Instant) {
        let Some(group) = self.groups.get_mut(index) else { return };
        let Some(probing) = group.probing.as_mut().filter(|probing| probing.due <= now) else { return };
        if probing.left == 0 {
            group.probing = None;
            return;
        }
        send(&self.announcer, &group.vip.name, &probing.frames);
        probing.left -= 1;
        probing.due = now + probing.pause;
    }

    fn defend(&mut self, index: usize, now: Instant) {
        let Some(group) = self.groups.get_mut(index) else { return };
        let Some(Defence { claim, count, .. }) = group.defence.take_if(|defence| defence.due <= now) else { return };
        group.defended = Some(now);
        let (vip, Claim { address, hardware }) = (&group.vip.name, claim);
        warn!(vip, %address, %hardware, count, "another machine claims an address that is held here");
        send(&self.announcer, vip, &announce::frames(&group.placed, group.vip.announce.burst));
        self.tell(Event::Conflict { vip: index, address, hardware });
    }
}
