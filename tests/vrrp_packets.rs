//! Adverts of keepalived, captured from the wire: what we read from them, and that we would have sent the same bytes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use baton::units::{AdvertInterval, VirtualRouterId};
use baton::vrrp::auth::{Authenticity, Context, KeyRing, Mode, Signer, Verifier};
use baton::vrrp::packet::{
    self, Advert, Checksum, DropReason, Envelope, Expected, ExpectedSource, Format, Heard, Received, Version, Versions,
};

const MULTICAST: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 11));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 12));
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 100));

const MULTICAST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12));
const NODE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x11));
const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x12));
const NODE_LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe88, 0x0b));
const PEER_LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe88, 0x0c));
const VIP_LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x5e, 0x52));
const VIP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x100));

/// Ethernet header: two addresses and the type.
const ETHERNET_LEN: usize = 14;
const IPV6_HEADER_LEN: usize = 40;

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

/// What a frame's IP header says, and its payload. The IPv6 header is read here, as a kernel would do it for us.
fn open(frame: &[u8]) -> Result<(Envelope, &[u8]), DropReason> {
    let ip = &frame[ETHERNET_LEN..];
    if frame[12..ETHERNET_LEN] != [0x86, 0xdd] {
        return packet::decode_ipv4(ip);
    }
    let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
    assert_eq!(ip[6], 112);
    assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])), ip.len() - IPV6_HEADER_LEN);
    let envelope = Envelope { source: address(8), destination: address(24), hop_limit: ip[7] };
    Ok((envelope, &ip[IPV6_HEADER_LEN..]))
}

fn decode<'frame>(frame: &'frame [u8], format: &Format) -> Result<Received<'frame>, DropReason> {
    let (envelope, payload) = open(frame)?;
    packet::decode(&envelope, payload, format)
}

fn interval(ms: u64) -> AdvertInterval {
    AdvertInterval::new(Duration::from_millis(ms)).unwrap()
}

fn advert(priority: u8, interval_ms: u64, addresses: &[IpAddr]) -> Advert {
    Advert {
        version: Version::V3,
        virtual_router_id: VirtualRouterId::new(if addresses[0].is_ipv4() { 51 } else { 52 }).unwrap(),
        priority,
        interval: interval(interval_ms),
        addresses: addresses.to_vec(),
    }
}

fn v2(advert: Advert) -> Advert {
    Advert { version: Version::V2, ..advert }
}

fn envelope(source: IpAddr, destination: IpAddr, hop_limit: u8) -> Envelope {
    Envelope { source, destination, hop_limit }
}

/// Checks that `frames` are `count` adverts that say this, and that encoding it gives the bytes of the frame.
fn assert_adverts(frames: &[Vec<u8>], count: usize, from: Envelope, advert: &Advert, format: &Format) {
    assert_eq!(frames.len(), count);
    for frame in frames {
        let (_, payload) = open(frame).unwrap();
        let received = decode(frame, format).unwrap();
        assert_eq!(received, Received { envelope: from, advert: advert.clone(), pdu: payload, trailer: None });
        assert_eq!(advert.encode(from.source, from.destination, format), payload);
    }
}

fn assert_refused(frames: &[Vec<u8>], count: usize, format: &Format, reason: DropReason) {
    assert_eq!(frames.len(), count);
    for frame in frames {
        assert_eq!(decode(frame, format).unwrap_err(), reason);
    }
}

fn rfc() -> Format {
    Format::default()
}

fn password() -> Format {
    Format { password: Some(*b"s3cretpw"), ..Format::default() }
}

#[test]
fn reads_and_writes_multicast_adverts() {
    let from = envelope(NODE, MULTICAST, 255);
    assert_adverts(&vectors!("v3_ipv4_multicast"), 3, from, &advert(101, 1000, &[VIP]), &rfc());
    assert_adverts(&vectors!("v3_ipv4_multicast_100ms"), 3, from, &advert(101, 100, &[VIP]), &rfc());
    assert_adverts(&vectors!("v3_ipv4_multicast_10ms"), 3, from, &advert(101, 10, &[VIP]), &rfc());
}

#[test]
fn reads_and_writes_unicast_adverts() {
    let from = envelope(NODE, PEER, 255);
    assert_adverts(&vectors!("v3_ipv4_unicast"), 3, from, &advert(101, 1000, &[VIP]), &rfc());
}

#[test]
fn reads_and_writes_several_addresses_in_their_order() {
    let [a, b, c] = [101, 102, 100].map(|last| IpAddr::from([10, 88, 0, last]));
    let from = envelope(NODE, MULTICAST, 255);
    assert_adverts(&vectors!("v3_ipv4_3addr"), 3, from, &advert(101, 1000, &[a, b, c]), &rfc());
}

#[test]
fn reads_and_writes_a_resignation() {
    let from = envelope(NODE, MULTICAST, 255);
    assert_adverts(&vectors!("v3_ipv4_prio0_on_sigterm"), 1, from, &advert(0, 100, &[VIP]), &rfc());
    let from = envelope(NODE_LINK_LOCAL, MULTICAST_V6, 255);
    assert_adverts(&vectors!("v3_ipv6_prio0_on_sigterm"), 1, from, &advert(0, 100, &[VIP_V6]), &rfc());
}

#[test]
fn reads_and_writes_adverts_from_a_virtual_mac() {
    let vrrp: Vec<_> = vectors!("v3_ipv4_vmac").into_iter().filter(|frame| frame[12..14] == [0x08, 0x00]).collect();
    assert_adverts(&vrrp, 3, envelope(NODE, MULTICAST, 255), &advert(101, 1000, &[VIP]), &rfc());
}

#[test]
fn reads_and_writes_ipv6() {
    let advert = advert(101, 1000, &[VIP_V6]);
    let multicast = envelope(NODE_LINK_LOCAL, MULTICAST_V6, 255);
    assert_adverts(&vectors!("v3_ipv6_multicast"), 3, multicast, &advert, &rfc());
    assert_adverts(&vectors!("v3_ipv6_unicast"), 3, envelope(NODE_V6, PEER_V6, 64), &advert, &rfc());
}

#[test]
fn reads_and_writes_version_2() {
    let advert = v2(advert(101, 1000, &[VIP]));
    assert_adverts(&vectors!("v2_ipv4_multicast"), 4, envelope(NODE, MULTICAST, 255), &advert, &rfc());
    assert_adverts(&vectors!("v2_ipv4_unicast"), 3, envelope(NODE, PEER, 255), &advert, &rfc());
}

#[test]
fn reads_and_writes_version_2_with_a_password() {
    let advert = v2(advert(101, 1000, &[VIP]));
    let vectors = vectors!("v2_ipv4_multicast_auth_pass");
    assert_adverts(&vectors, 3, envelope(NODE, MULTICAST, 255), &advert, &password());
}

#[test]
fn a_password_is_asked_for_and_has_to_be_right() {
    let with = vectors!("v2_ipv4_multicast_auth_pass");
    assert_refused(&with, 3, &rfc(), DropReason::WrongAuthType);
    let other = Format { password: Some(*b"s3cretpX"), ..Format::default() };
    assert_refused(&with, 3, &other, DropReason::WrongPassword);
    assert_refused(&vectors!("v2_ipv4_multicast"), 4, &password(), DropReason::WrongAuthType);
}

#[test]
fn refuses_an_authentication_header() {
    assert_refused(&vectors!("v2_ipv4_multicast_auth_ah"), 3, &rfc(), DropReason::WrongProtocol);
}

#[test]
fn refuses_what_is_not_ip_at_all() {
    // Gratuitous ARP: its first byte after the Ethernet header is 0.
    assert_refused(&vectors!("garp_on_takeover"), 10, &rfc(), DropReason::WrongIpVersion);
}

#[test]
fn the_variant_of_the_checksum_has_to_be_agreed_upon() {
    let without = Format { checksum: Checksum::WithoutPseudoHeader, ..Format::default() };
    assert_refused(&vectors!("v3_ipv4_multicast"), 3, &without, DropReason::WrongChecksum);
    // It says nothing of VRRPv2 and IPv6.
    let advert = advert(101, 1000, &[VIP]);
    assert_adverts(&vectors!("v2_ipv4_unicast"), 3, envelope(NODE, PEER, 255), &v2(advert.clone()), &without);
    let on_ipv6 = Advert { addresses: vec![VIP_V6], virtual_router_id: VirtualRouterId::new(52).unwrap(), ..advert };
    assert_adverts(&vectors!("v3_ipv6_unicast"), 3, envelope(NODE_V6, PEER_V6, 64), &on_ipv6, &without);
}

fn expected(local: IpAddr, peer: ExpectedSource, destination: IpAddr, addresses: &[IpAddr]) -> Expected {
    Expected {
        virtual_router_id: VirtualRouterId::new(if local.is_ipv4() { 51 } else { 52 }).unwrap(),
        local,
        peer,
        destination,
        addresses: addresses.to_vec(),
        versions: Versions::V3,
        interval: interval(1000),
    }
}

fn heard(source: IpAddr, local: IpAddr, version: Version) -> Heard {
    Heard { source, local, version, priority: 101, interval: interval(1000), addresses_differ: false }
}

#[test]
fn adverts_of_the_peer_are_heard_on_every_path() {
    let judge = |frames: &[Vec<u8>], expected: &Expected| packet::judge(&decode(&frames[0], &rfc()).unwrap(), expected);
    let ours = expected(PEER, ExpectedSource::Exactly(NODE), PEER, &[VIP]);
    assert_eq!(judge(&vectors!("v3_ipv4_unicast"), &ours), Ok(heard(NODE, PEER, Version::V3)));
    assert_eq!(judge(&vectors!("v2_ipv4_unicast"), &ours), Err(DropReason::WrongVersion));
    let in_version_2 = Expected { versions: Versions::V2, ..ours.clone() };
    assert_eq!(judge(&vectors!("v2_ipv4_unicast"), &in_version_2), Ok(heard(NODE, PEER, Version::V2)));
    assert_eq!(judge(&vectors!("v3_ipv4_unicast"), &in_version_2), Err(DropReason::WrongVersion));
    let ours = expected(PEER_V6, ExpectedSource::Exactly(NODE_V6), PEER_V6, &[VIP_V6]);
    assert_eq!(judge(&vectors!("v3_ipv6_unicast"), &ours), Ok(heard(NODE_V6, PEER_V6, Version::V3)));
    let ours = expected(PEER_LINK_LOCAL, ExpectedSource::AnyLinkLocal, MULTICAST_V6, &[VIP_V6]);
    let from_link_local = heard(NODE_LINK_LOCAL, PEER_LINK_LOCAL, Version::V3);
    assert_eq!(judge(&vectors!("v3_ipv6_multicast"), &ours), Ok(from_link_local));
}

/// Keys 1 and 2 of the captures.
fn keys() -> KeyRing {
    KeyRing::new(vec![(1, (0x00..=0x1f).collect()), (2, vec![0xaa; 48])]).unwrap()
}

/// Key 2 first, so that it signs.
fn keys_2_first() -> KeyRing {
    KeyRing::new(vec![(2, vec![0xaa; 48]), (1, (0x00..=0x1f).collect())]).unwrap()
}

/// A captured path: its frames, what they say, and the times at which they were signed, as seconds and 1/65536.
struct Signed {
    frames: Vec<Vec<u8>>,
    from: Envelope,
    advert: Advert,
    signing: KeyRing,
    at: [(u64, u64); 3],
}

fn signed_captures() -> [Signed; 4] {
    let v3 = advert(101, 100, &[VIP]);
    let multicast = envelope(NODE, MULTICAST, 255);
    [
        Signed {
            frames: vectors!("hmac_v2_ipv4_multicast"),
            from: multicast,
            advert: v2(advert(101, 1000, &[VIP])),
            signing: keys(),
            at: [(0x6b01_655a, 0xd17c), (0x6b01_655b, 0xd596), (0x6b01_655c, 0xd59d)],
        },
        Signed {
            frames: vectors!("hmac_v3_ipv4_multicast"),
            from: multicast,
            advert: v3.clone(),
            signing: keys(),
            at: [(0x6b01_654e, 0x59e4), (0x6b01_654e, 0x742c), (0x6b01_654e, 0x8dce)],
        },
        Signed {
            frames: vectors!("hmac_v3_ipv4_unicast_key2"),
            from: envelope(NODE, PEER, 255),
            advert: v3,
            signing: keys_2_first(),
            at: [(0x6b01_6551, 0x6c78), (0x6b01_6551, 0x8a44), (0x6b01_6551, 0xa3e6)],
        },
        Signed {
            frames: vectors!("hmac_v3_ipv6_multicast"),
            from: envelope(NODE_LINK_LOCAL, MULTICAST_V6, 255),
            advert: advert(101, 100, &[VIP_LINK_LOCAL, VIP_V6]),
            signing: keys(),
            at: [(0x6b01_6554, 0x8025), (0x6b01_6554, 0xa243), (0x6b01_6554, 0xbbe3)],
        },
    ]
}

fn unix_time((seconds, fraction): (u64, u64)) -> Duration {
    Duration::from_secs(seconds) + Duration::from_nanos((fraction * 1_000_000_000).div_ceil(65_536))
}

#[test]
fn captured_trailers_are_verified_in_their_order_and_once() {
    for capture in signed_captures() {
        let mut verifier = Verifier::new(keys(), Mode::Enforce, 0);
        assert_eq!(capture.frames.len(), 3);
        for (frame, at) in capture.frames.iter().zip(capture.at) {
            let received = decode(frame, &rfc()).unwrap();
            assert_eq!(received.advert, capture.advert);
            assert_eq!(received.envelope, capture.from);
            assert_eq!(verifier.verify(Duration::ZERO, &received), Ok(Authenticity::Verified));
            assert_eq!(verifier.floor(), at.0 << 32 | at.1 << 16);
            assert_eq!(verifier.verify(Duration::ZERO, &received), Err(DropReason::Replayed));
        }
        let first = decode(&capture.frames[0], &rfc()).unwrap();
        assert_eq!(verifier.verify(Duration::ZERO, &first), Err(DropReason::Replayed));
    }
}

#[test]
fn we_sign_the_same_bytes() {
    for capture in signed_captures() {
        let mut signer = Signer::new(capture.signing.clone(), 0);
        let Envelope { source, destination, .. } = capture.from;
        for (frame, at) in capture.frames.iter().zip(capture.at) {
            let pdu = capture.advert.encode(source, destination, &rfc());
            let Advert { version, virtual_router_id, .. } = capture.advert;
            let trailer = signer.sign(unix_time(at), &Context { version, virtual_router_id, source }, &pdu);
            let (_, payload) = open(frame).unwrap();
            assert_eq!(packet::append_trailer(pdu, &trailer, source, destination), payload);
        }
    }
}

#[test]
fn a_captured_trailer_fits_no_other_advert() {
    for capture in signed_captures() {
        let mut verifier = Verifier::new(keys(), Mode::Enforce, 0);
        let frame = &capture.frames[0];
        let received = decode(frame, &rfc()).unwrap();
        let other = |change: &dyn Fn(&mut Received<'_>)| {
            let mut received = received.clone();
            change(&mut received);
            verifier.clone().verify(Duration::ZERO, &received)
        };
        let resigned = {
            let mut pdu = received.pdu.to_vec();
            pdu[2] = 0;
            pdu
        };
        assert_eq!(other(&|received| received.envelope.source = PEER), Err(DropReason::WrongHmac));
        assert_eq!(
            other(&|received| received.advert.virtual_router_id = VirtualRouterId::new(53).unwrap()),
            Err(DropReason::WrongHmac)
        );
        let mut changed = received.clone();
        changed.pdu = &resigned;
        assert_eq!(verifier.verify(Duration::ZERO, &changed), Err(DropReason::WrongHmac));
        assert_eq!(verifier.floor(), 0);
        assert_eq!(verifier.verify(Duration::ZERO, &received), Ok(Authenticity::Verified));
    }
}
