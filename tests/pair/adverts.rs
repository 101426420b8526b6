//! What goes over the wire: adverts, announcements, and what becomes of adverts that lie.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use baton::lab::namespace::Namespace;
use baton::lab::pair::{CLIENT, NODES, VIP};
use baton::status::VipStatus;
use baton::units::{AdvertInterval, VirtualRouterId};
use baton::vrrp::packet::{Advert, Format, MULTICAST_GROUP, Version};
use libtest_mimic::Trial;
use pnet::util::MacAddr;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};
use crate::wire::{Content, Seen, hardware_address, send_packet};

const NODE_B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);

/// How often each hostile advert is sent.
const REPEATS: u64 = 3;

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("unicast_adverts_go_to_the_peer_alone", unicast_adverts_go_to_the_peer_alone),
        Plan::usual().multicast().trial("multicast_adverts_go_to_the_group", multicast_adverts_go_to_the_group),
        Plan::usual().trial("adverts_keep_their_interval", adverts_keep_their_interval),
        Plan::usual().trial("takeover_is_announced_and_repeated", takeover_is_announced_and_repeated),
        Plan::usual().trial("hostile_adverts_are_dropped_and_counted", hostile_adverts_are_dropped_and_counted),
        Plan::usual().multicast().trial("hostile_multicast_is_dropped_and_counted", hostile_multicast_is_dropped),
        Plan::usual().trial("flood_of_hostile_adverts_delays_no_takeover", flood_delays_no_takeover),
    ]
}

/// The advert that lb-a sends with 100 ms between two.
fn advert(priority: u8) -> Advert {
    Advert {
        version: Version::V3,
        virtual_router_id: VirtualRouterId::new(51).unwrap(),
        priority,
        interval: AdvertInterval::new(Duration::from_millis(100)).unwrap(),
        addresses: vec![VIP.into()],
    }
}

fn expect_adverts(scene: &mut Scene, destination: Ipv4Addr, hardware: Option<MacAddr>) -> Outcome {
    let (active, standby) = scene.form_on(NODES[0])?;
    let hardware = match hardware {
        Some(hardware) => hardware,
        None => scene.node(standby).namespace().run(hardware_address)??,
    };
    let capture = scene.capture(active)?;
    let seen = capture.wait("three adverts", Instant::now(), 3, |seen| seen.priority().is_some())?;
    for seen in seen {
        assert_eq!(seen.destination, hardware);
        let addresses = (scene.address(active).into(), destination.into());
        assert_eq!(seen.content, Content::Advert { advert: advert(250), addresses, ttl_and_tos: (255, 0xc0) });
    }
    let is_damaged = |seen: &Seen| matches!(seen.content, Content::NoAdvert(_));
    assert!(!capture.all().iter().any(is_damaged));
    Ok(())
}

fn unicast_adverts_go_to_the_peer_alone(scene: &mut Scene) -> Outcome {
    expect_adverts(scene, NODE_B, None)
}

fn multicast_adverts_go_to_the_group(scene: &mut Scene) -> Outcome {
    expect_adverts(scene, MULTICAST_GROUP, Some(MacAddr::new(0x01, 0x00, 0x5e, 0x00, 0x00, 0x12)))
}

/// From deadline to deadline: late wake-ups do not add up, so that 30 intervals take 3 s and not more.
fn adverts_keep_their_interval(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form_on(NODES[0])?;
    let capture = scene.capture(active)?;
    let seen = capture.wait("31 adverts", Instant::now(), 31, |seen| seen.priority() == Some(250))?;
    let took = seen[30].at - seen[0].at;
    // A machine that does not run us for a whole interval may cost one; the median of the distances tells the rest.
    let mut distances: Vec<Duration> = seen.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    distances.sort_unstable();
    assert!(distances[15].abs_diff(scene.interval) < Duration::from_millis(10), "{distances:?}");
    assert!(took >= scene.interval * 29, "{took:?}");
    Ok(())
}

/// The advert comes first, so that a peer about to claim as well hears of it; then neighbours are told, and told again.
fn takeover_is_announced_and_repeated(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let capture = scene.capture(standby)?;
    let from = Instant::now();
    scene.node(active).kill_worker()?;
    let announced = capture.wait("seven announcements", from, 7, |seen| seen.announces(VIP))?;
    for seen in &announced {
        assert_eq!(seen.destination, MacAddr::broadcast());
        assert_eq!(seen.content, Content::Arp { operation: 1, sender: VIP, target: VIP });
    }
    let all = capture.since(from);
    let first = all.iter().position(|seen| seen.announces(VIP));
    let first_advert = all.iter().position(|seen| seen.priority() == Some(249));
    assert!(first_advert < first, "an announcement went before the first advert: {all:?}");
    assert!(announced[1].at - announced[0].at < Duration::from_secs(1), "the first repeat is for a lost packet");
    assert!(
        announced[6].at - announced[0].at >= Duration::from_secs(1),
        "the next ones are for a switch that restarts"
    );
    Ok(())
}

/// A packet that must not be believed, and the reason under which it is counted.
struct Hostile {
    reason: &'static str,
    source: Ipv4Addr,
    ttl: u8,
    pdu: Vec<u8>,
}

impl Hostile {
    /// An advert of the peer with one thing changed, and its checksum made good again.
    fn changed(reason: &'static str, ends: (Ipv4Addr, Ipv4Addr), change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut pdu = encoded(&advert(254), ends);
        change(&mut pdu);
        seal(&mut pdu, ends);
        Self { reason, source: ends.0, ttl: 255, pdu }
    }
}

/// Writes the checksum of RFC 9568 section 5.2.8, for packets that our own encoder refuses to build.
fn seal(pdu: &mut [u8], (source, destination): (Ipv4Addr, Ipv4Addr)) {
    if pdu.len() < 8 {
        return;
    }
    pdu[6..8].fill(0);
    let mut covered = Vec::from_iter(source.octets().into_iter().chain(destination.octets()));
    covered.extend([0, 112, 0, u8::try_from(pdu.len()).unwrap()]);
    covered.extend_from_slice(pdu);
    if covered.len() % 2 == 1 {
        covered.push(0);
    }
    let sum: u32 = covered.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    pdu[6..8].copy_from_slice(&sum.to_be_bytes());
}

/// Lies from the peer's own address: each is valid but for one thing, and would take the VIP if that were overlooked.
fn lies_of_the_peer(ends: (Ipv4Addr, Ipv4Addr)) -> Vec<Hostile> {
    let changed = |reason, change: &dyn Fn(&mut Vec<u8>)| Hostile::changed(reason, ends, change);
    vec![
        changed("short", &|pdu| pdu.truncate(7)),
        Hostile { ttl: 254, ..changed("wrong_ttl", &|_| ()) },
        changed("wrong_version", &|pdu| pdu[0] = 0x41),
        Hostile { pdu: in_version_2(ends), ..changed("wrong_version", &|_| ()) },
        changed("wrong_type", &|pdu| pdu[0] = 0x32),
        changed("zero_router_id", &|pdu| pdu[1] = 0),
        changed("wrong_router_id", &|pdu| pdu[1] = 52),
        changed("no_addresses", &|pdu| {
            pdu[3] = 0;
            pdu.truncate(8);
        }),
        changed("missing_addresses", &|pdu| pdu[3] = 2),
        changed("trailing_bytes", &|pdu| pdu.extend([0; 4])),
        changed("zero_interval", &|pdu| pdu[4..6].fill(0)),
        // Damaged on the way: a bit of the priority, with the checksum of before.
        Hostile { pdu: damaged(ends), ..changed("wrong_checksum", &|_| ()) },
    ]
}

fn encoded(advert: &Advert, (source, destination): (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    advert.encode(source.into(), destination.into(), &Format::default())
}

fn in_version_2(ends: (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    encoded(&Advert { version: Version::V2, ..advert(254) }, ends)
}

fn damaged(ends: (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    let mut pdu = encoded(&advert(250), ends);
    pdu[2] ^= 0x04;
    pdu
}

/// Valid adverts from an address that is none of the pair's, with the priorities that would move a VIP at once.
fn lies_of_a_stranger(destination: Ipv4Addr) -> Vec<Hostile> {
    let forged = |priority| {
        let pdu = encoded(&advert(priority), (STRANGER, destination));
        Hostile { reason: "unknown_source", source: STRANGER, ttl: 255, pdu }
    };
    vec![forged(0), forged(254), forged(255)]
}

fn send_all(from: &Namespace, lies: &[Hostile], destination: Ipv4Addr) -> Outcome {
    for lie in lies {
        for _ in 0..REPEATS {
            send_packet(from, lie.source, destination, lie.ttl, &lie.pdu)?;
        }
    }
    Ok(())
}

/// Waits until a node has counted every lie under its reason, and no other.
fn expect_counted(scene: &Scene, node: &str, lies: &[&[Hostile]]) -> Outcome {
    let mut expected = std::collections::BTreeMap::new();
    for lie in lies.iter().copied().flatten() {
        *expected.entry(lie.reason.to_owned()).or_insert(0) += REPEATS;
    }
    let mut last = Default::default();
    let counted = until(&format!("{node} to count every lie"), PATIENCE, || {
        last = scene.vip(node)?.adverts_dropped;
        Ok((last == expected).then_some(()))
    });
    assert!(counted.is_ok(), "{node} counted {last:?}, and {expected:?} were sent");
    Ok(())
}

/// What must not change, whatever lies are told.
fn standing(vip: &VipStatus) -> (baton::status::Role, u64, String) {
    (vip.role, vip.transitions, vip.reason.clone())
}

fn hostile_adverts_are_dropped_and_counted(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let before = [standing(&scene.vip(active)?), standing(&scene.vip(standby)?)];
    let stranger = scene.pair.topology().host(CLIENT)?.clone();
    for (node, peer) in [(active, standby), (standby, active)] {
        let ends = (scene.address(peer), scene.address(node));
        let (of_peer, of_stranger) = (lies_of_the_peer(ends), lies_of_a_stranger(ends.1));
        send_all(scene.node(peer).namespace(), &of_peer, ends.1)?;
        send_all(&stranger, &of_stranger, ends.1)?;
        expect_counted(scene, node, &[&of_peer, &of_stranger])?;
    }
    assert_eq!(scene.holders()?, [active]);
    assert_eq!([standing(&scene.vip(active)?), standing(&scene.vip(standby)?)], before);
    Ok(())
}

/// Over multicast a lie reaches both nodes at once, and unicast ones are not for a pair that speaks by the group.
fn hostile_multicast_is_dropped(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let before = [standing(&scene.vip(active)?), standing(&scene.vip(standby)?)];
    let stranger = scene.pair.topology().host(CLIENT)?.clone();
    let of_stranger = lies_of_a_stranger(MULTICAST_GROUP);
    send_all(&stranger, &of_stranger, MULTICAST_GROUP)?;
    let of_standby = lies_of_the_peer((scene.address(standby), MULTICAST_GROUP));
    send_all(scene.node(standby).namespace(), &of_standby, MULTICAST_GROUP)?;
    expect_counted(scene, active, &[&of_stranger, &of_standby])?;
    expect_counted(scene, standby, &[&of_stranger])?;
    assert_eq!(scene.holders()?, [active]);
    assert_eq!([standing(&scene.vip(active)?), standing(&scene.vip(standby)?)], before);
    Ok(())
}

/// An invalid advert touches no timer: the standby counts the silence of its peer through any noise.
fn flood_delays_no_takeover(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let stranger = scene.pair.topology().host(CLIENT)?.clone();
    let ends = (scene.address(active), scene.address(standby));
    let lies: Vec<Hostile> = lies_of_a_stranger(ends.1).into_iter().chain(lies_of_the_peer(ends)).collect();
    scene.node_mut(active).kill_all()?;
    let killed = Instant::now();
    let deadline = killed + Duration::from_secs(2);
    while !scene.holds(standby)? {
        assert!(Instant::now() < deadline, "no takeover within 2 s under a flood");
        send_all(&stranger, &lies, ends.1)?;
    }
    let reason = scene.vip(standby)?.reason;
    assert!(reason.starts_with("no advert from the peer for "), "{reason}");
    assert!(scene.vip(standby)?.adverts_dropped["unknown_source"] >= REPEATS);
    Ok(())
}
