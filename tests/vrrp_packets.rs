//! Adverts of keepalived, captured from the wire: what we read from them, and that we would have sent the same bytes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::net::Ipv4Addr;
use std::time::Duration;

use baton::units::{AdvertInterval, VirtualRouterId};
use baton::vrrp::packet::{self, Advert, DropReason, Expected, Heard, Received};

const MULTICAST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 11);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 12);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 100);

/// Ethernet header: two addresses and the type.
const ETHERNET_LEN: usize = 14;

/// The frames of a vector file: lines of hex, and comments.
fn frames(vectors: &str) -> Vec<Vec<u8>> {
    let lines = vectors.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

macro_rules! vectors {
    ($name:literal) => {
        frames(include_str!(concat!("vectors/", $name, ".hex.txt")))
    };
}

/// Checks that `frames` are `count` adverts that say this, and that encoding it gives the bytes of the frame.
fn assert_adverts(frames: &[Vec<u8>], count: usize, destination: Ipv4Addr, says: (u8, u64, &[Ipv4Addr])) {
    let (priority, interval_ms, addresses) = says;
    let advert = Advert {
        virtual_router_id: VirtualRouterId::new(51).unwrap(),
        priority,
        interval: AdvertInterval::new(Duration::from_millis(interval_ms)).unwrap(),
        addresses: addresses.to_vec(),
    };
    assert_eq!(frames.len(), count);
    for frame in frames {
        let ip_packet = &frame[ETHERNET_LEN..];
        let received = packet::decode(ip_packet).unwrap();
        assert_eq!(received, Received { source: NODE, destination, advert: advert.clone() });
        assert_eq!(advert.encode(NODE, destination), &ip_packet[20..]);
    }
}

fn assert_refused(frames: &[Vec<u8>], count: usize, reason: DropReason) {
    assert_eq!(frames.len(), count);
    for frame in frames {
        assert_eq!(packet::decode(&frame[ETHERNET_LEN..]), Err(reason));
    }
}

#[test]
fn reads_and_writes_multicast_adverts() {
    assert_adverts(&vectors!("v3_ipv4_multicast"), 3, MULTICAST, (101, 1000, &[VIP]));
    assert_adverts(&vectors!("v3_ipv4_multicast_100ms"), 3, MULTICAST, (101, 100, &[VIP]));
    assert_adverts(&vectors!("v3_ipv4_multicast_10ms"), 3, MULTICAST, (101, 10, &[VIP]));
}

#[test]
fn reads_and_writes_unicast_adverts() {
    assert_adverts(&vectors!("v3_ipv4_unicast"), 3, PEER, (101, 1000, &[VIP]));
}

#[test]
fn reads_and_writes_several_addresses_in_their_order() {
    let addresses = [Ipv4Addr::new(10, 88, 0, 101), Ipv4Addr::new(10, 88, 0, 102), Ipv4Addr::new(10, 88, 0, 100)];
    assert_adverts(&vectors!("v3_ipv4_3addr"), 3, MULTICAST, (101, 1000, &addresses));
}

#[test]
fn reads_and_writes_a_resignation() {
    assert_adverts(&vectors!("v3_ipv4_prio0_on_sigterm"), 1, MULTICAST, (0, 100, &[VIP]));
}

#[test]
fn reads_and_writes_adverts_from_a_virtual_mac() {
    let vrrp: Vec<_> = vectors!("v3_ipv4_vmac").into_iter().filter(|frame| frame[12..14] == [0x08, 0x00]).collect();
    assert_adverts(&vrrp, 3, MULTICAST, (101, 1000, &[VIP]));
}

#[test]
fn unicast_advert_of_the_peer_is_heard() {
    let expected = Expected {
        virtual_router_id: VirtualRouterId::new(51).unwrap(),
        local: PEER,
        peer: NODE,
        destination: PEER,
        addresses: vec![VIP],
    };
    let frame = &vectors!("v3_ipv4_unicast")[0];
    let heard = packet::judge(&packet::decode(&frame[ETHERNET_LEN..]).unwrap(), &expected);
    let interval = AdvertInterval::new(Duration::from_secs(1)).unwrap();
    let (source, local) = (NODE.into(), PEER.into());
    assert_eq!(heard, Ok(Heard { source, local, priority: 101, interval, addresses_differ: false }));
}

#[test]
fn refuses_vrrp_version_2() {
    assert_refused(&vectors!("v2_ipv4_multicast"), 4, DropReason::WrongVersion);
    assert_refused(&vectors!("v2_ipv4_unicast"), 3, DropReason::WrongVersion);
    assert_refused(&vectors!("v2_ipv4_multicast_auth_pass"), 3, DropReason::WrongVersion);
    assert_refused(&vectors!("hmac_v2_ipv4_multicast"), 3, DropReason::WrongVersion);
}

#[test]
fn refuses_an_authentication_header() {
    assert_refused(&vectors!("v2_ipv4_multicast_auth_ah"), 3, DropReason::WrongProtocol);
}

#[test]
fn refuses_an_hmac_trailer() {
    assert_refused(&vectors!("hmac_v3_ipv4_multicast"), 3, DropReason::TrailingBytes);
    assert_refused(&vectors!("hmac_v3_ipv4_unicast_key2"), 3, DropReason::TrailingBytes);
}

#[test]
fn refuses_ipv6() {
    assert_refused(&vectors!("v3_ipv6_multicast"), 3, DropReason::WrongIpVersion);
    assert_refused(&vectors!("v3_ipv6_unicast"), 3, DropReason::WrongIpVersion);
    assert_refused(&vectors!("v3_ipv6_prio0_on_sigterm"), 1, DropReason::WrongIpVersion);
    assert_refused(&vectors!("hmac_v3_ipv6_multicast"), 3, DropReason::WrongIpVersion);
}

#[test]
fn refuses_what_is_not_ip_at_all() {
    // Gratuitous ARP: its first byte after the Ethernet header is 0.
    assert_refused(&vectors!("garp_on_takeover"), 10, DropReason::WrongIpVersion);
}
