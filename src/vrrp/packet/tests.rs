//! Rejections one by one, judgement, round trips, and noise. Packets of a program we did not write: `tests/vrrp_packets.rs`.

use super::*;

/// keepalived 2.2.7, unicast 10.88.0.11 to 10.88.0.12, router id 51, priority 101, 1 s, 10.88.0.100.
const PACKET: [u8; 32] = [
    0x45, 0xc0, 0x00, 0x20, 0x00, 0x01, 0x00, 0x00, 0xff, 0x70, 0xa5, 0xe6, // IP header
    10, 88, 0, 11, 10, 88, 0, 12, // source and destination
    0x31, 51, 101, 1, 0x00, 0x64, 0x49, 0x68, // advert: 100 centiseconds, checksum 0x4968
    10, 88, 0, 100,
];

fn changed(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut packet = PACKET.to_vec();
    for (at, byte) in changes {
        packet[*at] = *byte;
    }
    packet
}

fn refused(changes: &[(usize, u8)]) -> DropReason {
    decode(&changed(changes)).unwrap_err()
}

fn interval(ms: u64) -> AdvertInterval {
    AdvertInterval::new(Duration::from_millis(ms)).unwrap()
}

fn id(id: u8) -> VirtualRouterId {
    VirtualRouterId::new(id).unwrap()
}

#[test]
fn unchanged_packet_is_accepted() {
    let received = decode(&PACKET).unwrap();
    assert_eq!(received.source, Ipv4Addr::new(10, 88, 0, 11));
    assert_eq!(received.destination, Ipv4Addr::new(10, 88, 0, 12));
    assert_eq!(received.advert.virtual_router_id, id(51));
    assert_eq!(received.advert.priority, 101);
    assert_eq!(received.advert.interval, interval(1000));
    assert_eq!(received.advert.addresses, [Ipv4Addr::new(10, 88, 0, 100)]);
}

#[test]
fn every_shorter_packet_is_refused() {
    for len in 0..32 {
        assert_eq!(decode(&PACKET[..len]), Err(DropReason::Short), "{len} bytes");
    }
}

#[test]
fn advert_without_its_fixed_part_is_short() {
    assert_eq!(decode(&changed(&[(3, 27)])[..27]), Err(DropReason::Short));
    assert_eq!(decode(&changed(&[(3, 20)])[..20]), Err(DropReason::Short));
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
    assert_eq!(decode(&[0x60]), Err(DropReason::WrongIpVersion));
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
    assert!(decode(&changed(&[(6, 0x40)])).is_ok());
}

#[test]
fn any_ttl_but_255_is_refused() {
    assert_eq!(refused(&[(8, 254)]), DropReason::WrongTtl);
    assert_eq!(refused(&[(8, 64)]), DropReason::WrongTtl);
    assert_eq!(refused(&[(8, 0)]), DropReason::WrongTtl);
}

#[test]
fn other_vrrp_versions_are_refused() {
    assert_eq!(refused(&[(20, 0x21)]), DropReason::WrongVersion);
    assert_eq!(refused(&[(20, 0x41)]), DropReason::WrongVersion);
}

#[test]
fn other_types_are_refused() {
    assert_eq!(refused(&[(20, 0x30)]), DropReason::WrongType);
    assert_eq!(refused(&[(20, 0x32)]), DropReason::WrongType);
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
    assert_eq!(decode(&changed(&[(3, 31)])), Err(DropReason::MissingAddresses));
}

#[test]
fn bytes_after_the_addresses_are_refused() {
    let mut packet = changed(&[(3, 33)]);
    packet.push(0);
    assert_eq!(decode(&packet), Err(DropReason::TrailingBytes));
}

#[test]
fn bytes_after_the_ip_packet_are_padding() {
    let mut frame = PACKET.to_vec();
    frame.extend([0xaa; 14]);
    assert_eq!(decode(&frame), decode(&PACKET));
}

#[test]
fn ip_options_are_skipped() {
    let mut packet = changed(&[(0, 0x46), (3, 36)]);
    packet.splice(20..20, [0x94, 0x04, 0x00, 0x00]);
    assert_eq!(decode(&packet), decode(&PACKET));
}

#[test]
fn interval_zero_is_refused() {
    assert_eq!(refused(&[(25, 0)]), DropReason::ZeroInterval);
    assert_eq!(refused(&[(24, 0xf0), (25, 0)]), DropReason::ZeroInterval);
}

#[test]
fn every_single_bit_of_damage_to_the_advert_is_refused() {
    for bit in 0..12 * 8 {
        let mut packet = PACKET;
        packet[20 + bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&packet).is_err(), "bit {bit}");
    }
    assert_eq!(refused(&[(22, 102)]), DropReason::WrongChecksum);
    assert_eq!(refused(&[(26, 0), (27, 0)]), DropReason::WrongChecksum);
}

#[test]
fn checksum_covers_source_and_destination() {
    assert_eq!(refused(&[(15, 13)]), DropReason::WrongChecksum);
    assert_eq!(refused(&[(19, 13)]), DropReason::WrongChecksum);
}

#[test]
fn reserved_bits_are_ignored() {
    // 0xf000 more in the data is 0xf000 less in the checksum, and one for the carry: 0x4968 - 0xf000 = 0x5967.
    let received = decode(&changed(&[(24, 0xf0), (26, 0x59), (27, 0x67)])).unwrap();
    assert_eq!(received.advert.interval, interval(1000));
}

#[test]
fn interval_is_centiseconds_on_the_wire() {
    let encoded = |ms| {
        let advert = Advert { virtual_router_id: id(1), priority: 100, interval: interval(ms), addresses: vec![] };
        let pdu = advert.encode(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
        [pdu[4], pdu[5]]
    };
    assert_eq!(encoded(10), [0x00, 0x01]);
    assert_eq!(encoded(100), [0x00, 0x0a]);
    assert_eq!(encoded(1000), [0x00, 0x64]);
    assert_eq!(encoded(2560), [0x01, 0x00]);
    assert_eq!(encoded(40_950), [0x0f, 0xff]);
}

#[test]
fn addresses_past_255_are_left_out() {
    let pdu = |count| {
        let addresses = vec![Ipv4Addr::new(10, 0, 0, 1); count];
        let advert = Advert { virtual_router_id: id(1), priority: 100, interval: interval(100), addresses };
        advert.encode(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST)
    };
    assert_eq!((pdu(255).len(), pdu(255)[3]), (1028, 255));
    assert_eq!((pdu(256).len(), pdu(256)[3]), (1028, 255));
}

fn expected() -> Expected {
    Expected {
        virtual_router_id: id(51),
        local: Ipv4Addr::new(10, 88, 0, 12),
        peer: Ipv4Addr::new(10, 88, 0, 11),
        destination: Ipv4Addr::new(10, 88, 0, 12),
        addresses: vec![Ipv4Addr::new(10, 88, 0, 100)],
    }
}

fn received() -> Received {
    Received {
        source: Ipv4Addr::new(10, 88, 0, 11),
        destination: Ipv4Addr::new(10, 88, 0, 12),
        advert: Advert {
            virtual_router_id: id(51),
            priority: 101,
            interval: interval(1000),
            addresses: vec![Ipv4Addr::new(10, 88, 0, 100)],
        },
    }
}

#[test]
fn advert_of_the_peer_is_heard() {
    let heard = judge(&received(), &expected()).unwrap();
    assert_eq!(
        heard,
        Heard {
            source: Ipv4Addr::new(10, 88, 0, 11).into(),
            local: expected().local.into(),
            priority: 101,
            interval: interval(1000),
            addresses_differ: false,
        }
    );
}

#[test]
fn advert_for_another_router_id_is_dropped() {
    let mut received = received();
    received.advert.virtual_router_id = id(52);
    assert_eq!(judge(&received, &expected()), Err(DropReason::WrongRouterId));
}

#[test]
fn own_advert_is_dropped() {
    let received = Received { source: Ipv4Addr::new(10, 88, 0, 12), ..received() };
    assert_eq!(judge(&received, &expected()), Err(DropReason::OwnAdvert));
}

#[test]
fn advert_of_a_third_node_is_dropped() {
    let received = Received { source: Ipv4Addr::new(10, 88, 0, 13), ..received() };
    assert_eq!(judge(&received, &expected()), Err(DropReason::UnknownSource));
}

#[test]
fn advert_by_the_other_transport_is_dropped() {
    let by_multicast = Received { destination: Ipv4Addr::new(224, 0, 0, 18), ..received() };
    assert_eq!(judge(&by_multicast, &expected()), Err(DropReason::WrongDestination));
    let expects_multicast = Expected { destination: MULTICAST_GROUP, ..expected() };
    assert!(judge(&by_multicast, &expects_multicast).is_ok());
    assert_eq!(judge(&received(), &expects_multicast), Err(DropReason::WrongDestination));
}

#[test]
fn other_addresses_are_reported_and_do_not_drop_the_advert() {
    let differ = |theirs: &[u8], ours: &[u8]| {
        let addresses = |last: &[u8]| last.iter().map(|last| Ipv4Addr::new(10, 88, 0, *last)).collect();
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
fn drop_reasons_have_distinct_names_and_places() {
    for (place, reason) in DropReason::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), place);
    }
    let names: BTreeSet<&str> = DropReason::ALL.into_iter().map(DropReason::as_str).collect();
    assert_eq!(names.len(), 18);
    assert!(names.iter().all(|name| name.chars().all(|letter| letter == '_' || letter.is_ascii_lowercase())));
}

/// An IP packet around `pdu`, without options.
fn ip_packet(source: Ipv4Addr, destination: Ipv4Addr, pdu: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0xc0];
    packet.extend((20 + pdu.len() as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 255, 112, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(pdu);
    packet
}

fn random_advert(random: &mut fastrand::Rng) -> Advert {
    Advert {
        virtual_router_id: id(random.u8(1..=255)),
        priority: random.u8(..),
        interval: interval(u64::from(random.u16(1..=4095)) * 10),
        addresses: (0..random.usize(1..=255)).map(|_| Ipv4Addr::from(random.u32(..))).collect(),
    }
}

#[test]
fn what_is_encoded_is_decoded() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (source, destination) = (Ipv4Addr::from(random.u32(..)), Ipv4Addr::from(random.u32(..)));
        let advert = random_advert(&mut random);
        let packet = ip_packet(source, destination, &advert.encode(source, destination));
        assert_eq!(decode(&packet), Ok(Received { source, destination, advert }), "seed {seed}");
    }
}

/// Noise, and valid packets with damage that often includes a new checksum, so that the checks behind it are reached.
fn hostile_packet(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut packet = match random.u8(0..4) {
        0 => (0..random.usize(0..80)).map(|_| random.u8(..)).collect(),
        1 => PACKET.to_vec(),
        _ => {
            let (source, destination) = (Ipv4Addr::from(random.u32(..)), MULTICAST_GROUP);
            let mut advert = random_advert(random);
            advert.addresses.truncate(random.usize(1..=4));
            ip_packet(source, destination, &advert.encode(source, destination))
        }
    };
    for _ in 0..random.usize(0..4) {
        let at = random.usize(0..packet.len().max(1));
        if let Some(byte) = packet.get_mut(at) {
            *byte = random.u8(..);
        }
    }
    match random.u8(0..8) {
        0 => packet.truncate(random.usize(0..=packet.len())),
        1 => packet.extend(std::iter::repeat_n(0, random.usize(0..32))),
        _ => {}
    }
    if random.bool()
        && let Ok((source, destination, pdu)) = decode_ip(&packet)
    {
        let sum = checksum(source, destination, pdu).to_be_bytes();
        let at = usize::from(packet[0] & 0x0f) * 4 + 6;
        if let Some(field) = packet.get_mut(at..at + 2) {
            field.copy_from_slice(&sum);
        }
    }
    packet
}

#[test]
fn hostile_packets_are_refused_or_say_what_they_encode_to() {
    let count: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut accepted = 0;
    let mut refused = [0_u64; DropReason::ALL.len()];
    for seed in 0..count {
        let packet = hostile_packet(&mut fastrand::Rng::with_seed(seed));
        match decode(&packet) {
            Ok(Received { source, destination, advert }) => {
                accepted += 1;
                let pdu = decode_ip(&packet).unwrap().2;
                // Reserved bits are ignored and not kept, which also changes the checksum.
                if pdu[4] & 0xf0 == 0 {
                    assert_eq!(advert.encode(source, destination), pdu, "seed {seed}");
                }
            }
            Err(reason) => refused[reason.index()] += 1,
        }
    }
    assert!(accepted > count / 10, "the noise is too loud to test anything: {accepted} of {count} accepted");
    // All that decode can find, it finds; the last four are judge's.
    assert!(refused[..14].iter().all(|count| *count > 0), "{refused:?}");
}
