//! Rejections one by one, judgement, round trips, and noise. Packets of a program we did not write: `tests/vrrp_packets.rs`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::checksum::Coverage;
use super::*;

/// keepalived 2.2.7, unicast 10.88.0.11 to 10.88.0.12, router id 51, priority 101, 1 s, 10.88.0.100.
const PACKET: [u8; 32] = [
    0x45, 0xc0, 0x00, 0x20, 0x00, 0x01, 0x00, 0x00, 0xff, 0x70, 0xa5, 0xe6, // IP header
    10, 88, 0, 11, 10, 88, 0, 12, // source and destination
    0x31, 51, 101, 1, 0x00, 0x64, 0x49, 0x68, // advert: 100 centiseconds, checksum 0x4968
    10, 88, 0, 100,
];

/// The same in version 2, with authentication type 0.
const V2: [u8; 20] = [0x21, 51, 101, 1, 0, 1, 0x6f, 0x0e, 10, 88, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0];

/// With type 1 and the password `s3cretpw`.
const V2_PASSWORD: [u8; 20] = *b"\x21\x33\x65\x01\x01\x01\xc1\x7c\x0a\x58\x00\x64s3cretpw";

/// keepalived 2.2.7, unicast fd88::11 to fd88::12, router id 52, priority 101, 1 s, fd88::100.
const V6: [u8; 24] = [
    0x31, 52, 101, 1, 0x00, 0x64, 0x6f, 0x20, //
    0xfd, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00,
];

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 11));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 12));
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 100));
const NODE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x11));
const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x12));
const VIP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x100));
const NODE_LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11));
const PEER_LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x12));
const GROUP_V6: IpAddr = IpAddr::V6(MULTICAST_GROUP_V6);

const IPV4: Envelope = Envelope { source: NODE, destination: PEER, hop_limit: 255 };
const IPV6: Envelope = Envelope { source: NODE_V6, destination: PEER_V6, hop_limit: 255 };

fn read(ip_packet: &[u8]) -> Result<Received<'_>, DropReason> {
    let (envelope, payload) = decode_ipv4(ip_packet)?;
    decode(&envelope, payload, &Format::default())
}

fn changed<const LEN: usize>(bytes: [u8; LEN], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut packet = bytes.to_vec();
    for (at, byte) in changes {
        packet[*at] = *byte;
    }
    packet
}

fn refused(changes: &[(usize, u8)]) -> DropReason {
    read(&changed(PACKET, changes)).unwrap_err()
}

fn interval(ms: u64) -> AdvertInterval {
    AdvertInterval::new(Duration::from_millis(ms)).unwrap()
}

fn id(id: u8) -> VirtualRouterId {
    VirtualRouterId::new(id).unwrap()
}

fn advert(version: Version, address: IpAddr) -> Advert {
    Advert { version, virtual_router_id: id(51), priority: 101, interval: interval(1000), addresses: vec![address] }
}

#[test]
fn unchanged_packets_are_accepted() {
    let received = read(&PACKET).unwrap();
    assert_eq!(received.envelope, IPV4);
    assert_eq!(received.advert, advert(Version::V3, VIP));
    assert_eq!((received.pdu, received.trailer), (&PACKET[20..], None));
    let received = decode(&IPV4, &V2, &Format::default()).unwrap();
    assert_eq!((received.advert, received.pdu), (advert(Version::V2, VIP), &V2[..]));
    let received = decode(&IPV6, &V6, &Format::default()).unwrap();
    let on_ipv6 = Advert { virtual_router_id: id(52), ..advert(Version::V3, VIP_V6) };
    assert_eq!((received.advert, received.pdu), (on_ipv6, &V6[..]));
}

#[test]
fn every_shorter_packet_is_refused() {
    for len in 0..32 {
        assert_eq!(read(&PACKET[..len]), Err(DropReason::Short), "{len} bytes");
    }
    let refused = |payload: &[u8], envelope| decode(envelope, payload, &Format::default()).unwrap_err();
    for len in 0..8 {
        assert_eq!(refused(&V2[..len], &IPV4), DropReason::Short, "{len} bytes");
        assert_eq!(refused(&V6[..len], &IPV6), DropReason::Short, "{len} bytes");
    }
    for len in 8..20 {
        assert_eq!(refused(&V2[..len], &IPV4), DropReason::MissingAddresses, "{len} bytes");
    }
    for len in 8..24 {
        assert_eq!(refused(&V6[..len], &IPV6), DropReason::MissingAddresses, "{len} bytes");
    }
}

#[test]
fn advert_without_its_fixed_part_is_short() {
    assert_eq!(read(&changed(PACKET, &[(3, 27)])[..27]), Err(DropReason::Short));
    assert_eq!(read(&changed(PACKET, &[(3, 20)])[..20]), Err(DropReason::Short));
}

#[test]
fn ip_header_that_contradicts_itself_is_refused() {
    assert_eq!(refused(&[(0, 0x44)]), DropReason::BadIpHeader);
    assert_eq!(refused(&[(3, 19)]), DropReason::BadIpHeader);
    assert_eq!(refused(&[(0, 0x4f)]), DropReason::BadIpHeader);
    assert_eq!(refused(&[(3, 33)]), DropReason::Short);
}

#[test]
fn other_ip_versions_are_refused() {
    assert_eq!(refused(&[(0, 0x65)]), DropReason::WrongIpVersion);
    assert_eq!(refused(&[(0, 0x05)]), DropReason::WrongIpVersion);
    assert_eq!(decode_ipv4(&[0x60]), Err(DropReason::WrongIpVersion));
    let torn = Envelope { source: NODE, destination: PEER_V6, hop_limit: 255 };
    assert_eq!(decode(&torn, &V6, &Format::default()), Err(DropReason::WrongIpVersion));
}

#[test]
fn other_protocols_are_refused() {
    assert_eq!(refused(&[(9, 111)]), DropReason::WrongProtocol);
    assert_eq!(refused(&[(9, 51)]), DropReason::WrongProtocol);
}

#[test]
fn fragments_are_refused_and_dont_fragment_is_not_one() {
    assert_eq!(refused(&[(6, 0x20)]), DropReason::Fragment);
    assert_eq!(refused(&[(7, 1)]), DropReason::Fragment);
    assert_eq!(refused(&[(6, 0x10)]), DropReason::Fragment);
    assert!(read(&changed(PACKET, &[(6, 0x40)])).is_ok());
}

#[test]
fn any_ttl_but_255_is_refused_over_ipv4() {
    assert_eq!(refused(&[(8, 254)]), DropReason::WrongTtl);
    assert_eq!(refused(&[(8, 64)]), DropReason::WrongTtl);
    assert_eq!(refused(&[(8, 0)]), DropReason::WrongTtl);
    let to_group = Envelope { destination: MULTICAST_GROUP.into(), hop_limit: 254, ..IPV4 };
    assert_eq!(decode(&to_group, &V2, &Format::default()), Err(DropReason::WrongTtl));
}

#[test]
fn hop_limit_matters_over_ipv6_with_multicast_alone() {
    let result = |hop_limit, source: IpAddr, destination: IpAddr| {
        let pdu = advert(Version::V3, VIP_V6).encode(source, destination, &Format::default());
        decode(&Envelope { source, destination, hop_limit }, &pdu, &Format::default()).map(|_| ())
    };
    assert_eq!(result(255, NODE_LINK_LOCAL, GROUP_V6), Ok(()));
    assert_eq!(result(254, NODE_LINK_LOCAL, GROUP_V6), Err(DropReason::WrongTtl));
    assert_eq!(result(64, NODE_LINK_LOCAL, GROUP_V6), Err(DropReason::WrongTtl));
    assert_eq!(result(255, NODE_V6, PEER_V6), Ok(()));
    assert_eq!(result(64, NODE_V6, PEER_V6), Ok(()));
    assert_eq!(result(1, NODE_V6, PEER_V6), Ok(()));
}

#[test]
fn other_vrrp_versions_are_refused() {
    assert_eq!(refused(&[(20, 0x11)]), DropReason::WrongVersion);
    assert_eq!(refused(&[(20, 0x41)]), DropReason::WrongVersion);
    // Version 2 knows no IPv6.
    let v2 = changed(V6, &[(0, 0x21)]);
    assert_eq!(decode(&IPV6, &v2, &Format::default()), Err(DropReason::WrongVersion));
}

#[test]
fn other_types_are_refused() {
    assert_eq!(refused(&[(20, 0x30)]), DropReason::WrongType);
    assert_eq!(refused(&[(20, 0x32)]), DropReason::WrongType);
    assert_eq!(refused(&[(20, 0x22)]), DropReason::WrongType);
}

#[test]
fn router_id_zero_is_refused() {
    assert_eq!(refused(&[(21, 0)]), DropReason::ZeroRouterId);
}

#[test]
fn address_count_has_to_match_the_length() {
    assert_eq!(refused(&[(23, 0)]), DropReason::NoAddresses);
    assert_eq!(refused(&[(23, 2)]), DropReason::MissingAddresses);
    assert_eq!(refused(&[(23, 255)]), DropReason::MissingAddresses);
    // One byte of the only address is missing.
    assert_eq!(read(&changed(PACKET, &[(3, 31)])), Err(DropReason::MissingAddresses));
}

#[test]
fn twenty_eight_bytes_after_the_advert_are_a_trailer_and_others_are_refused() {
    for (envelope, advert) in [(IPV4, &PACKET[20..]), (IPV4, &V2[..]), (IPV6, &V6[..])] {
        for extra in 1..=60 {
            let payload = [advert, &vec![0; extra]].concat();
            let result = decode(&envelope, &payload, &Format::default());
            if extra == 28 {
                let received = result.unwrap();
                assert_eq!((received.pdu, received.trailer), (advert, Some(&[0; 28])));
            } else {
                assert_eq!(result, Err(DropReason::TrailingBytes), "{extra} bytes more");
            }
        }
    }
}

#[test]
fn checksum_covers_the_trailer_over_ipv6_alone() {
    let trailer = [0x5a; 28];
    assert_eq!(append_trailer(V2.to_vec(), &trailer, NODE, PEER), [&V2[..], &trailer].concat());
    // The sum behind 0x6f20 is 0x90df. Fourteen times 0x5a5a and a length of 28 more make it 0x581e7, so 0x81ec.
    let payload = append_trailer(V6.to_vec(), &trailer, NODE_V6, PEER_V6);
    assert_eq!(payload[6..8], [0x7e, 0x13]);
    let received = decode(&IPV6, &payload, &Format::default()).unwrap();
    assert_eq!(received.trailer, Some(&trailer));
    // A sender that leaves the trailer out is understood too. Damage is not.
    let without = [&V6[..], &trailer].concat();
    assert!(decode(&IPV6, &without, &Format::default()).is_ok());
    let mut damaged = payload;
    damaged[2] ^= 1;
    assert_eq!(decode(&IPV6, &damaged, &Format::default()), Err(DropReason::WrongChecksum));
}

#[test]
fn bytes_after_the_ip_packet_are_padding() {
    let mut frame = PACKET.to_vec();
    frame.extend([0xaa; 28]);
    assert_eq!(read(&frame), read(&PACKET));
}

#[test]
fn ip_options_are_skipped() {
    let mut packet = changed(PACKET, &[(0, 0x46), (3, 36)]);
    packet.splice(20..20, [0x94, 0x04, 0x00, 0x00]);
    assert_eq!(read(&packet), read(&PACKET));
}

#[test]
fn interval_zero_is_refused() {
    assert_eq!(refused(&[(25, 0)]), DropReason::ZeroInterval);
    assert_eq!(refused(&[(24, 0xf0), (25, 0)]), DropReason::ZeroInterval);
    let v2 = changed(V2, &[(5, 0), (7, 0x0f)]);
    assert_eq!(decode(&IPV4, &v2, &Format::default()), Err(DropReason::ZeroInterval));
}

#[test]
fn every_single_bit_of_damage_to_the_advert_is_refused() {
    for bit in 0..12 * 8 {
        let mut packet = PACKET;
        packet[20 + bit / 8] ^= 1 << (bit % 8);
        assert!(read(&packet).is_err(), "bit {bit}");
    }
    for bit in 0..20 * 8 {
        let mut payload = V2;
        payload[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&IPV4, &payload, &Format::default()).is_err(), "bit {bit}");
    }
    for bit in 0..24 * 8 {
        let mut payload = V6;
        payload[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&IPV6, &payload, &Format::default()).is_err(), "bit {bit}");
    }
    assert_eq!(refused(&[(22, 102)]), DropReason::WrongChecksum);
    assert_eq!(refused(&[(26, 0), (27, 0)]), DropReason::WrongChecksum);
}

#[test]
fn checksum_of_version_3_covers_source_and_destination() {
    assert_eq!(refused(&[(15, 13)]), DropReason::WrongChecksum);
    assert_eq!(refused(&[(19, 13)]), DropReason::WrongChecksum);
    let other = Envelope { source: IpAddr::from([10, 88, 0, 13]), ..IPV4 };
    assert!(decode(&other, &V2, &Format::default()).is_ok());
    let other = Envelope { source: PEER_V6, ..IPV6 };
    assert_eq!(decode(&other, &V6, &Format::default()), Err(DropReason::WrongChecksum));
}

#[test]
fn checksum_without_pseudo_header_is_that_of_the_packet_alone() {
    let format = Format { checksum: Checksum::WithoutPseudoHeader, ..Format::default() };
    let pdu = advert(Version::V3, VIP).encode(NODE, PEER, &format);
    // 0x3133 + 0x6501 + 0x0064 + 0x0a58 + 0x0064 = 0xa154, and its complement.
    assert_eq!(pdu[6..8], [0x5e, 0xab]);
    assert!(decode(&IPV4, &pdu, &format).is_ok());
    assert_eq!(decode(&IPV4, &pdu, &Format::default()), Err(DropReason::WrongChecksum));
    assert_eq!(decode(&IPV4, &PACKET[20..], &format), Err(DropReason::WrongChecksum));
}

#[test]
fn reserved_bits_are_ignored() {
    // 0xf000 more in the data is 0xf000 less in the checksum, and one for the carry: 0x4968 - 0xf000 = 0x5967.
    let packet = changed(PACKET, &[(24, 0xf0), (26, 0x59), (27, 0x67)]);
    assert_eq!(read(&packet).unwrap().advert.interval, interval(1000));
}

#[test]
fn authentication_type_and_password_have_to_be_ours() {
    let ask = Format { password: Some(*b"s3cretpw"), ..Format::default() };
    let result = |payload: &[u8], format: &Format| decode(&IPV4, payload, format).map(|_| ());
    assert_eq!(result(&V2_PASSWORD, &ask), Ok(()));
    assert_eq!(result(&V2, &Format::default()), Ok(()));
    assert_eq!(result(&V2_PASSWORD, &Format::default()), Err(DropReason::WrongAuthType));
    assert_eq!(result(&V2, &ask), Err(DropReason::WrongAuthType));
    // Type 2, an authentication header, would come under another protocol: 2 more in the data, 2 less in the checksum.
    assert_eq!(result(&changed(V2, &[(4, 2), (6, 0x6d)]), &Format::default()), Err(DropReason::WrongAuthType));
    for at in 0..8 {
        let mut other = *b"s3cretpw";
        other[at] ^= 1;
        let format = Format { password: Some(other), ..Format::default() };
        assert_eq!(result(&V2_PASSWORD, &format), Err(DropReason::WrongPassword), "byte {at}");
    }
    // Without a password the data says nothing: 0x0001 more there, 0x0001 less in the checksum.
    assert_eq!(result(&changed(V2, &[(19, 1), (7, 0x0d)]), &Format::default()), Ok(()));
    // Version 3 has none.
    assert_eq!(result(&PACKET[20..], &ask), Ok(()));
}

#[test]
fn password_is_written_and_never_shown() {
    let format = Format { password: Some(*b"s3cretpw"), ..Format::default() };
    assert_eq!(advert(Version::V2, VIP).encode(NODE, PEER, &format), V2_PASSWORD);
    assert_eq!(advert(Version::V2, VIP).encode(NODE, PEER, &Format::default()), V2);
    assert_eq!(format!("{format:?}"), r#"Format { checksum: Rfc, password: Some("hidden") }"#);
}

#[test]
fn interval_is_centiseconds_on_the_wire_and_whole_seconds_in_version_2() {
    let encoded = |version, ms| {
        let advert = Advert { interval: interval(ms), ..advert(version, VIP) };
        let pdu = advert.encode(NODE, PEER, &Format::default());
        [pdu[4], pdu[5]]
    };
    assert_eq!(encoded(Version::V3, 10), [0x00, 0x01]);
    assert_eq!(encoded(Version::V3, 100), [0x00, 0x0a]);
    assert_eq!(encoded(Version::V3, 1000), [0x00, 0x64]);
    assert_eq!(encoded(Version::V3, 2560), [0x01, 0x00]);
    assert_eq!(encoded(Version::V3, 40_950), [0x0f, 0xff]);
    assert_eq!(encoded(Version::V2, 10), [0, 1]);
    assert_eq!(encoded(Version::V2, 1000), [0, 1]);
    assert_eq!(encoded(Version::V2, 1010), [0, 2]);
    assert_eq!(encoded(Version::V2, 40_000), [0, 40]);
    assert_eq!(encoded(Version::V2, 40_950), [0, 41]);
}

#[test]
fn version_2_is_read_up_to_forty_seconds() {
    let result = |seconds: u8| {
        let mut payload = V2;
        payload[5] = seconds;
        checksum::write(&mut payload, Coverage::PacketAlone);
        decode(&IPV4, &payload, &Format::default()).map(|received| received.advert.interval)
    };
    assert_eq!(result(1), Ok(interval(1000)));
    assert_eq!(result(40), Ok(interval(40_000)));
    assert_eq!(result(41), Err(DropReason::WrongInterval));
    assert_eq!(result(255), Err(DropReason::WrongInterval));
}

#[test]
fn addresses_past_255_are_left_out() {
    let pdu = |count| {
        let advert = Advert { addresses: vec![VIP; count], ..advert(Version::V3, VIP) };
        advert.encode(NODE, PEER, &Format::default())
    };
    assert_eq!((pdu(255).len(), pdu(255)[3]), (1028, 255));
    assert_eq!((pdu(256).len(), pdu(256)[3]), (1028, 255));
}

#[test]
fn addresses_of_the_other_family_are_left_out() {
    let both = Advert { addresses: vec![VIP_V6, VIP], ..advert(Version::V3, VIP) };
    assert_eq!(both.encode(NODE, PEER, &Format::default()), &PACKET[20..]);
    let both = Advert { virtual_router_id: id(52), ..both };
    assert_eq!(both.encode(NODE_V6, PEER_V6, &Format::default()), V6);
    let in_version_2 = Advert { version: Version::V2, ..both };
    assert_eq!(in_version_2.encode(NODE_V6, PEER_V6, &Format::default()), V6);
}

fn expected() -> Expected {
    Expected {
        virtual_router_id: id(51),
        local: PEER,
        peer: ExpectedSource::Exactly(NODE),
        destination: PEER,
        addresses: vec![VIP],
        versions: Versions::V3,
        interval: interval(1000),
    }
}

fn received() -> Received<'static> {
    Received { envelope: IPV4, advert: advert(Version::V3, VIP), pdu: &[], trailer: None }
}

fn from(source: IpAddr, destination: IpAddr) -> Received<'static> {
    Received { envelope: Envelope { source, destination, hop_limit: 255 }, ..received() }
}

fn heard(version: Version, interval_ms: u64) -> Heard {
    Heard {
        source: NODE,
        local: PEER,
        version,
        priority: 101,
        interval: interval(interval_ms),
        addresses_differ: false,
    }
}

#[test]
fn advert_of_the_peer_is_heard() {
    assert_eq!(judge(&received(), &expected()), Ok(heard(Version::V3, 1000)));
}

#[test]
fn advert_for_another_router_id_is_dropped() {
    let mut received = received();
    received.advert.virtual_router_id = id(52);
    assert_eq!(judge(&received, &expected()), Err(DropReason::WrongRouterId));
}

#[test]
fn own_advert_is_dropped() {
    assert_eq!(judge(&from(PEER, PEER), &expected()), Err(DropReason::OwnAdvert));
}

#[test]
fn advert_of_a_third_node_is_dropped() {
    assert_eq!(judge(&from(IpAddr::from([10, 88, 0, 13]), PEER), &expected()), Err(DropReason::UnknownSource));
}

#[test]
fn any_link_local_source_but_our_own_may_be_the_peer() {
    let expected =
        Expected { local: PEER_LINK_LOCAL, peer: ExpectedSource::AnyLinkLocal, destination: GROUP_V6, ..expected() };
    let result = |source: &str| judge(&from(source.parse().unwrap(), GROUP_V6), &expected).map(|heard| heard.local);
    assert_eq!(result("fe80::11"), Ok(PEER_LINK_LOCAL));
    assert_eq!(result("febf:ffff::1"), Ok(PEER_LINK_LOCAL));
    assert_eq!(result("fe80::12"), Err(DropReason::OwnAdvert));
    assert_eq!(result("fe7f:ffff::1"), Err(DropReason::UnknownSource));
    assert_eq!(result("fec0::11"), Err(DropReason::UnknownSource));
    assert_eq!(result("fd88::11"), Err(DropReason::UnknownSource));
    assert_eq!(judge(&from(NODE, GROUP_V6), &expected), Err(DropReason::UnknownSource));
}

#[test]
fn advert_by_the_other_transport_is_dropped() {
    let by_multicast = from(NODE, MULTICAST_GROUP.into());
    assert_eq!(judge(&by_multicast, &expected()), Err(DropReason::WrongDestination));
    let expects_multicast = Expected { destination: MULTICAST_GROUP.into(), ..expected() };
    assert!(judge(&by_multicast, &expects_multicast).is_ok());
    assert_eq!(judge(&received(), &expects_multicast), Err(DropReason::WrongDestination));
}

#[test]
fn only_the_versions_that_we_speak_are_heard() {
    let result = |version, versions| {
        let mut received = received();
        received.advert.version = version;
        judge(&received, &Expected { versions, ..expected() }).map(|heard| heard.version)
    };
    assert_eq!(result(Version::V2, Versions::V2), Ok(Version::V2));
    assert_eq!(result(Version::V3, Versions::V2), Err(DropReason::WrongVersion));
    assert_eq!(result(Version::V2, Versions::V3), Err(DropReason::WrongVersion));
    assert_eq!(result(Version::V3, Versions::V3), Ok(Version::V3));
    assert_eq!(result(Version::V2, Versions::Mixed), Ok(Version::V2));
    assert_eq!(result(Version::V3, Versions::Mixed), Ok(Version::V3));
}

#[test]
fn version_2_has_to_keep_our_interval_in_whole_seconds_and_version_3_may_keep_its_own() {
    let result = |version, theirs, ours| {
        let mut received = received();
        (received.advert.version, received.advert.interval) = (version, interval(theirs));
        judge(&received, &Expected { versions: Versions::Mixed, interval: interval(ours), ..expected() })
    };
    assert_eq!(result(Version::V2, 1000, 1000), Ok(heard(Version::V2, 1000)));
    assert_eq!(result(Version::V2, 1000, 10), Ok(heard(Version::V2, 1000)));
    assert_eq!(result(Version::V2, 1000, 1010), Err(DropReason::WrongInterval));
    assert_eq!(result(Version::V2, 2000, 1010), Ok(heard(Version::V2, 2000)));
    assert_eq!(result(Version::V2, 2000, 1000), Err(DropReason::WrongInterval));
    assert_eq!(result(Version::V3, 2000, 1000), Ok(heard(Version::V3, 2000)));
}

#[test]
fn other_addresses_are_reported_and_do_not_drop_the_advert() {
    let differ = |theirs: &[u8], ours: &[u8]| {
        let addresses = |last: &[u8]| last.iter().map(|last| IpAddr::from([10, 88, 0, *last])).collect();
        let mut received = received();
        received.advert.addresses = addresses(theirs);
        judge(&received, &Expected { addresses: addresses(ours), ..expected() }).unwrap().addresses_differ
    };
    assert!(!differ(&[100, 101], &[100, 101]));
    assert!(!differ(&[101, 100], &[100, 101]));
    assert!(!differ(&[100, 100], &[100]));
    assert!(differ(&[100], &[100, 101]));
    assert!(differ(&[100, 101], &[100]));
    assert!(differ(&[102], &[100]));
}

#[test]
fn version_2_is_ignored_for_four_intervals_after_version_3() {
    let zero = Instant::now();
    let at = |ms| zero + Duration::from_millis(ms);
    let mut filter = MixedFilter::new();
    assert_eq!(filter.admit(at(0), &heard(Version::V2, 1000)), Ok(()));
    assert_eq!(filter.admit(at(0), &heard(Version::V3, 100)), Ok(()));
    assert_eq!(filter.admit(at(0), &heard(Version::V2, 1000)), Err(DropReason::SupersededVersion));
    assert_eq!(filter.admit(at(399), &heard(Version::V2, 1000)), Err(DropReason::SupersededVersion));
    assert_eq!(filter.admit(at(400), &heard(Version::V2, 1000)), Ok(()));
    assert_eq!(filter.admit(at(500), &heard(Version::V3, 1000)), Ok(()));
    assert_eq!(filter.admit(at(4499), &heard(Version::V2, 1000)), Err(DropReason::SupersededVersion));
    assert_eq!(filter.admit(at(4500), &heard(Version::V2, 1000)), Ok(()));
}

#[test]
fn drop_reasons_have_distinct_names_and_places() {
    for (place, reason) in DropReason::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), place);
    }
    let names: BTreeSet<&str> = DropReason::ALL.into_iter().map(DropReason::as_str).collect();
    assert_eq!(names.len(), 32);
    assert!(names.iter().all(|name| name.chars().all(|letter| letter == '_' || letter.is_ascii_lowercase())));
}

fn random_address(random: &mut fastrand::Rng, is_ipv4: bool) -> IpAddr {
    if is_ipv4 { Ipv4Addr::from(random.u32(..)).into() } else { Ipv6Addr::from(random.u128(..)).into() }
}

fn random_advert(random: &mut fastrand::Rng, is_ipv4: bool) -> Advert {
    let version = if is_ipv4 && random.bool() { Version::V2 } else { Version::V3 };
    let interval = match version {
        Version::V2 => interval(random.u64(1..=40) * 1000),
        Version::V3 => interval(random.u64(1..=4095) * 10),
    };
    let count = if random.u8(0..8) == 0 { random.usize(1..=255) } else { random.usize(1..=4) };
    let addresses = (0..count).map(|_| random_address(random, is_ipv4)).collect();
    Advert { version, virtual_router_id: id(random.u8(1..=255)), priority: random.u8(..), interval, addresses }
}

fn random_format(random: &mut fastrand::Rng) -> Format {
    let checksum = if random.bool() { Checksum::Rfc } else { Checksum::WithoutPseudoHeader };
    Format { checksum, password: random.bool().then(|| random.u64(..).to_be_bytes()) }
}

#[test]
fn what_is_encoded_is_decoded() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let is_ipv4 = random.bool();
        let (source, destination) = (random_address(&mut random, is_ipv4), random_address(&mut random, is_ipv4));
        let (advert, format) = (random_advert(&mut random, is_ipv4), random_format(&mut random));
        let envelope = Envelope { source, destination, hop_limit: 255 };
        let pdu = advert.encode(source, destination, &format);
        let alone = Received { envelope, advert: advert.clone(), pdu: &pdu, trailer: None };
        assert_eq!(decode(&envelope, &pdu, &format), Ok(alone), "seed {seed}");
        let trailer = std::array::from_fn(|_| random.u8(..));
        let payload = append_trailer(pdu.clone(), &trailer, source, destination);
        let received = decode(&envelope, &payload, &format).unwrap();
        assert_eq!((received.advert, received.trailer), (advert, Some(&trailer)), "seed {seed}");
        assert_eq!(received.pdu.len(), pdu.len());
    }
}

/// Noise, and valid adverts with damage that often includes a new checksum, so that the checks behind it are reached.
fn hostile_payload(random: &mut fastrand::Rng, envelope: &Envelope, format: &Format) -> Vec<u8> {
    let is_ipv4 = envelope.source.is_ipv4();
    let mut payload = match random.u8(0..4) {
        0 => (0..random.usize(0..80)).map(|_| random.u8(..)).collect(),
        _ => random_advert(random, is_ipv4).encode(envelope.source, envelope.destination, format),
    };
    for _ in 0..random.usize(0..4) {
        let at = random.usize(0..payload.len().clamp(1, 24));
        if let Some(byte) = payload.get_mut(at) {
            *byte = random.u8(..);
        }
    }
    match random.u8(0..8) {
        0 => payload.truncate(random.usize(0..=payload.len())),
        1 => payload.extend(std::iter::repeat_n(0, random.usize(0..32))),
        _ => {}
    }
    if random.bool() {
        let version = if payload.first().is_some_and(|byte| byte >> 4 == 2) { Version::V2 } else { Version::V3 };
        let coverage = Coverage::of(version, format.checksum, envelope.source, envelope.destination);
        checksum::write(&mut payload, coverage);
    }
    payload
}

#[test]
fn hostile_payloads_are_refused_or_say_what_they_encode_to() {
    let count: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut accepted = 0;
    let mut refused = [0_u64; DropReason::ALL.len()];
    for seed in 0..count {
        let mut random = fastrand::Rng::with_seed(seed);
        let is_ipv4 = random.bool();
        let (source, destination) = (random_address(&mut random, is_ipv4), random_address(&mut random, is_ipv4));
        let hop_limit = if random.u8(0..16) == 0 { random.u8(..) } else { 255 };
        let envelope = Envelope { source, destination, hop_limit };
        let format = random_format(&mut random);
        let payload = hostile_payload(&mut random, &envelope, &format);
        match decode(&envelope, &payload, &format) {
            Ok(Received { advert, pdu, trailer, .. }) => {
                accepted += 1;
                // Reserved bits and unused authentication data are ignored and not kept, which changes the checksum;
                // and over IPv6 it may cover the trailer.
                let is_whole = match advert.version {
                    Version::V2 => format.password.is_some() || pdu.ends_with(&[0; 8]),
                    Version::V3 => pdu[4] & 0xf0 == 0,
                };
                let covers_trailer = trailer.is_some() && !is_ipv4;
                if is_whole && !covers_trailer {
                    assert_eq!(advert.encode(source, destination, &format), pdu, "seed {seed}");
                }
            }
            Err(reason) => refused[reason.index()] += 1,
        }
    }
    assert!(accepted > count / 10, "the noise is too loud to test anything: {accepted} of {count} accepted");
    let found = DropReason::ALL.into_iter().filter(|reason| refused[reason.index()] > 0);
    // All that it can find in a payload; the rest is of IP headers, of judgement and of authentication.
    assert_eq!(
        found.map(DropReason::as_str).collect::<Vec<_>>(),
        [
            "short",
            "wrong_ttl",
            "wrong_version",
            "wrong_type",
            "zero_router_id",
            "no_addresses",
            "missing_addresses",
            "trailing_bytes",
            "zero_interval",
            "wrong_checksum",
            "wrong_auth_type",
            "wrong_password",
            "wrong_interval",
        ]
    );
}

#[test]
fn noise_for_an_ip_header_is_refused_or_read() {
    let mut read_count = 0;
    for seed in 0..100_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut packet = PACKET.to_vec();
        for _ in 0..random.usize(0..4) {
            let at = random.usize(0..20);
            packet[at] = random.u8(..);
        }
        packet.truncate(random.usize(0..64));
        if let Ok((envelope, payload)) = decode_ipv4(&packet) {
            read_count += 1;
            assert!(envelope.source.is_ipv4() && payload.len() <= 12, "seed {seed}");
        }
    }
    assert!(read_count > 10_000, "{read_count}");
}
