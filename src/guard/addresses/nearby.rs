//! Other machines on the link that say that a virtual address is theirs.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::place::{Carrier, Placed};
use super::stub::{Announcer, Claim, ClaimWatcher, probe};
use crate::net::netlink::Netlink;

/// Questions for each address before the first claim (`PROBE_NUM` of RFC 5227 section 1.1).
const PROBES: u32 = 3;

/// A claim to an address of a VIP that is held.
pub type Heard = (usize, Claim);

/// Watches for claims to what is placed. The task ends when it is aborted, or when the interface goes.
pub fn watch(vip: usize, placed: &Placed, heard: mpsc::Sender<Heard>) -> io::Result<JoinHandle<()>> {
    let addresses = placed.networks.iter().map(|network| network.address()).collect();
    let mut watcher = ClaimWatcher::open(placed.link_index, addresses)?;
    let own = placed.hardware;
    Ok(tokio::spawn(async move {
        while let Ok(claim) = watcher.next().await {
            // The other node of the pair has the same virtual hardware address. Its adverts say who it is.
            if claim.hardware != own {
                // A full queue holds claims enough.
                drop(heard.try_send((vip, claim)));
            }
        }
    }))
}

/// Asks who has the addresses of `carriers`, spread over `within`, and hands on the first answer. Nobody answers when
/// `found` is dropped.
pub async fn ask(netlink: Netlink, carriers: Vec<Carrier>, within: Duration, found: oneshot::Sender<Claim>) {
    let deadline = Instant::now() + within;
    let (answers, mut first) = mpsc::channel(1);
    let asking = carriers.iter().map(|carrier| ask_on(&netlink, carrier, within, answers.clone()));
    let asking = futures_util::future::join_all(asking);
    tokio::select! {
        Some(claim) = first.recv() => drop(found.send(claim)),
        _ = timeout_at(deadline, asking) => {}
    }
}

/// The same on one interface, until it is dropped.
async fn ask_on(netlink: &Netlink, carrier: &Carrier, within: Duration, answers: mpsc::Sender<Claim>) {
    if let Err(error) = try_ask_on(netlink, carrier, within, answers).await {
        warn!(interface = carrier.interface, %error, "whether somebody else has the addresses could not be asked");
    }
}

async fn try_ask_on(
    netlink: &Netlink,
    carrier: &Carrier,
    within: Duration,
    answers: mpsc::Sender<Claim>,
) -> io::Result<()> {
    let interface = netlink.interface(&carrier.interface).await?;
    let addresses: Vec<IpAddr> = carrier.networks.iter().map(|network| network.address()).collect();
    let frames: Vec<_> = addresses.iter().filter_map(|address| probe(interface.hardware, *address)).collect();
    // Listening comes first: an answer takes less time than opening a socket may.
    let mut watcher = ClaimWatcher::open(interface.index, addresses)?;
    let announcer = Announcer::open()?;
    let asking = async {
        for _ in 0..PROBES {
            for frame in &frames {
                announcer.send(interface.index, frame)?;
            }
            sleep(within / PROBES).await;
        }
        Ok(())
    };
    tokio::select! {
        claim = watcher.next() => drop(answers.send(claim?).await),
        asked = asking => return asked,
    }
    Ok(())
}
