//! Rings, sequences, modes, and one rejection a reason. The bytes of keepalived: `tests/vrrp_packets.rs`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::packet::{Advert, Envelope, Format, append_trailer, decode};
use super::*;
use crate::units::AdvertInterval;

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 11));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 12));
const ENVELOPE: Envelope = Envelope { source: NODE, destination: PEER, hop_limit: 255 };

/// 2026-11-21 12:00:00 UTC.
const NOON: Duration = Duration::from_secs(0x6b01_87c0);
const NOON_SEQUENCE: u64 = 0x6b01_87c0_0000_0000;

fn ring() -> KeyRing {
    KeyRing::new(vec![(1, b"first secret".to_vec()), (2, b"second secret".to_vec())]).unwrap()
}

fn advert() -> Advert {
    Advert {
        version: Version::V3,
        virtual_router_id: VirtualRouterId::new(51).unwrap(),
        priority: 101,
        interval: AdvertInterval::new(Duration::from_millis(100)).unwrap(),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 88, 0, 100))],
    }
}

fn context() -> Context {
    Context { version: Version::V3, virtual_router_id: VirtualRouterId::new(51).unwrap(), source: NODE }
}

/// An advert with the next trailer of `signer`.
fn signed(signer: &mut Signer, at: Duration) -> Vec<u8> {
    let pdu = advert().encode(NODE, PEER, &Format::default());
    let trailer = signer.sign(at, &context(), &pdu);
    append_trailer(pdu, &trailer, NODE, PEER)
}

fn unsigned() -> Vec<u8> {
    advert().encode(NODE, PEER, &Format::default())
}

fn verify(verifier: &mut Verifier, payload: &[u8]) -> Result<Authenticity, DropReason> {
    verifier.verify(NOON, &decode(&ENVELOPE, payload, &Format::default()).unwrap())
}

#[test]
fn ring_has_one_to_eight_keys_of_different_numbers() {
    let ring = |ids: &[u8]| KeyRing::new(ids.iter().map(|id| (*id, vec![1; 32])).collect()).is_some();
    assert!(!ring(&[]));
    assert!(ring(&[1]));
    assert!(ring(&[255, 7, 6, 5, 4, 3, 2, 1]));
    assert!(!ring(&[9, 8, 7, 6, 5, 4, 3, 2, 1]));
    assert!(!ring(&[1, 2, 1]));
    assert!(!ring(&[0]));
    assert!(KeyRing::new(vec![(1, Vec::new())]).is_none());
    assert!(KeyRing::new(vec![(1, vec![0])]).is_some());
}

#[test]
fn secrets_are_never_shown() {
    assert_eq!(format!("{:?}", ring()), "KeyRing { ids: [1, 2], .. }");
    let shown = format!("{:?} {:?}", Signer::new(ring(), 0), Verifier::new(ring(), Mode::Enforce, 0));
    assert!(!shown.contains("secret") && !shown.contains("102, 105"), "{shown}");
}

#[test]
fn derived_key_is_number_1_and_depends_on_the_pair_key() {
    let trailer = |ring| Signer::new(ring, 0).sign(NOON, &context(), &unsigned());
    let ours = trailer(KeyRing::derived(b"pair key"));
    assert_eq!(ours[..12], [1, 1, 0, 0, 0x6b, 0x01, 0x87, 0xc0, 0, 0, 0, 0]);
    assert_eq!(ours, trailer(KeyRing::derived(b"pair key")));
    assert_ne!(ours, trailer(KeyRing::derived(b"other key")));
    // Not the pair key itself.
    assert_ne!(ours, trailer(KeyRing::new(vec![(1, b"pair key".to_vec())]).unwrap()));
    // As Python's hmac computes it: key = HMAC("pair key", "baton advert key 1"), f22c8593…c78e2e.
    assert_eq!(
        ours[12..],
        [0x0e, 0xe7, 0x72, 0x5b, 0x77, 0x01, 0x6b, 0x86, 0x51, 0x7b, 0xc2, 0xde, 0x89, 0x3f, 0xae, 0x86]
    );
}

#[test]
fn first_key_signs_and_all_verify() {
    let turned = KeyRing::new(vec![(2, b"second secret".to_vec()), (1, b"first secret".to_vec())]).unwrap();
    let mut verifier = Verifier::new(ring(), Mode::Enforce, 0);
    let by_first = signed(&mut Signer::new(ring(), 0), NOON);
    assert_eq!(by_first[13], 1);
    assert_eq!(verify(&mut verifier, &by_first), Ok(Authenticity::Verified));
    let by_second = signed(&mut Signer::new(turned, NOON_SEQUENCE), NOON);
    assert_eq!(by_second[13], 2);
    assert_eq!(verify(&mut verifier, &by_second), Ok(Authenticity::Verified));
}

#[test]
fn sequence_is_the_wall_clock_while_it_goes_forward() {
    let mut signer = Signer::new(ring(), 0);
    let mut sequence_at = |time| {
        signer.sign(time, &context(), &unsigned());
        signer.last()
    };
    assert_eq!(sequence_at(NOON), 0x6b01_87c0_0000_0000);
    assert_eq!(sequence_at(NOON + Duration::from_millis(500)), 0x6b01_87c0_8000_0000);
    assert_eq!(sequence_at(NOON + Duration::from_millis(750)), 0x6b01_87c0_c000_0000);
    assert_eq!(sequence_at(NOON + Duration::from_nanos(999_999_999)), 0x6b01_87c0_ffff_0000);
    assert_eq!(sequence_at(NOON + Duration::from_secs(1)), 0x6b01_87c1_0000_0000);
}

#[test]
fn sequence_grows_whatever_the_clock_does() {
    let mut signer = Signer::new(ring(), 0);
    let mut sequence_at = |time| {
        signer.sign(time, &context(), &unsigned());
        signer.last()
    };
    assert_eq!(sequence_at(NOON), NOON_SEQUENCE);
    // Within one step of the fraction, which is about 15 µs.
    assert_eq!(sequence_at(NOON), NOON_SEQUENCE + 1);
    assert_eq!(sequence_at(NOON + Duration::from_micros(15)), NOON_SEQUENCE + 2);
    assert_eq!(sequence_at(NOON + Duration::from_micros(16)), NOON_SEQUENCE + 0x1_0000);
    // Back by an hour, and back to the beginning of time.
    assert_eq!(sequence_at(NOON - Duration::from_secs(3600)), NOON_SEQUENCE + 0x1_0001);
    assert_eq!(sequence_at(Duration::ZERO), NOON_SEQUENCE + 0x1_0002);
    assert_eq!(sequence_at(NOON + Duration::from_micros(32)), NOON_SEQUENCE + 0x2_0000);
    // 2106-02-07 06:28:15 UTC is the last second of 32 bits.
    assert_eq!(sequence_at(Duration::from_secs(u64::from(u32::MAX))), 0xffff_ffff_0000_0000);
    assert_eq!(sequence_at(Duration::from_secs(u64::from(u32::MAX) + 1)), 0xffff_ffff_0000_0001);
}

#[test]
fn full_counter_runs_over_into_the_fraction() {
    let mut signer = Signer::new(ring(), 0x6b01_87c0_0000_ffff);
    signer.sign(NOON, &context(), &unsigned());
    assert_eq!(signer.last(), 0x6b01_87c0_0001_0000);
}

#[test]
fn signer_starts_above_its_floor() {
    let mut signer = Signer::new(ring(), NOON_SEQUENCE);
    assert_eq!(signer.last(), NOON_SEQUENCE);
    signer.sign(NOON, &context(), &unsigned());
    assert_eq!(signer.last(), NOON_SEQUENCE + 1);
    let mut ahead = Signer::new(ring(), 0x7000_0000_0000_0000);
    ahead.sign(NOON, &context(), &unsigned());
    assert_eq!(ahead.last(), 0x7000_0000_0000_0001);
}

#[test]
fn every_mode_treats_trailers_as_it_says() {
    let cases = [
        (Mode::Off, Ok(Authenticity::None), Err(DropReason::UnexpectedTrailer), Err(DropReason::UnexpectedTrailer)),
        (Mode::ReceiveOnly, Ok(Authenticity::None), Ok(Authenticity::Verified), Err(DropReason::WrongHmac)),
        (Mode::Permissive, Ok(Authenticity::None), Ok(Authenticity::Verified), Err(DropReason::WrongHmac)),
        (Mode::Enforce, Err(DropReason::MissingTrailer), Ok(Authenticity::Verified), Err(DropReason::WrongHmac)),
    ];
    for (mode, without, genuine, forged) in cases {
        let mut verifier = Verifier::new(ring(), mode, 0);
        let payload = signed(&mut Signer::new(ring(), 0), NOON);
        let mut damaged = payload.clone();
        damaged[39] ^= 1;
        assert_eq!(verify(&mut verifier, &unsigned()), without, "{mode:?}");
        assert_eq!(verify(&mut verifier, &damaged), forged, "{mode:?}");
        assert_eq!(verify(&mut verifier, &payload), genuine, "{mode:?}");
    }
    assert_eq!(verify(&mut Verifier::off(), &unsigned()), Ok(Authenticity::None));
    let payload = signed(&mut Signer::new(ring(), 0), NOON);
    assert_eq!(verify(&mut Verifier::off(), &payload), Err(DropReason::UnexpectedTrailer));
    assert_eq!(
        [Mode::Off, Mode::ReceiveOnly, Mode::Permissive, Mode::Enforce].map(Mode::signs),
        [false, false, true, true]
    );
}

#[test]
fn type_and_key_have_to_be_known() {
    let mut verifier = Verifier::new(ring(), Mode::Enforce, 0);
    let payload = signed(&mut Signer::new(ring(), 0), NOON);
    for kind in [0, 2, 255] {
        let mut other = payload.clone();
        other[12] = kind;
        assert_eq!(verify(&mut verifier, &other), Err(DropReason::WrongTrailerType), "type {kind}");
    }
    for id in [0, 3, 255] {
        let mut other = payload.clone();
        other[13] = id;
        assert_eq!(verify(&mut verifier, &other), Err(DropReason::UnknownKey), "key {id}");
    }
    let mut of_other_key = payload.clone();
    of_other_key[13] = 2;
    assert_eq!(verify(&mut verifier, &of_other_key), Err(DropReason::WrongHmac));
    assert_eq!(verify(&mut verifier, &payload), Ok(Authenticity::Verified));
}

#[test]
fn same_number_with_another_secret_is_forgery() {
    let other = KeyRing::new(vec![(1, b"first Secret".to_vec())]).unwrap();
    let payload = signed(&mut Signer::new(other, 0), NOON);
    assert_eq!(verify(&mut Verifier::new(ring(), Mode::Permissive, 0), &payload), Err(DropReason::WrongHmac));
}

#[test]
fn every_single_bit_of_the_trailer_counts() {
    let payload = signed(&mut Signer::new(ring(), 0), NOON);
    for bit in 12 * 8..40 * 8 {
        let mut damaged = payload.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut verifier = Verifier::new(ring(), Mode::Enforce, 0);
        assert!(verify(&mut verifier, &damaged).is_err(), "bit {bit}");
        assert_eq!(verifier.floor(), 0, "bit {bit}");
    }
}

#[test]
fn checksum_is_not_covered_and_the_rest_of_the_advert_is() {
    let payload = signed(&mut Signer::new(ring(), 0), NOON);
    let received = decode(&ENVELOPE, &payload, &Format::default()).unwrap();
    for byte in 0..12 {
        let mut pdu = received.pdu.to_vec();
        pdu[byte] ^= 1;
        let result = Verifier::new(ring(), Mode::Enforce, 0).verify(NOON, &Received { pdu: &pdu, ..received.clone() });
        if byte == 6 || byte == 7 {
            assert_eq!(result, Ok(Authenticity::Verified), "byte {byte}");
        } else {
            assert_eq!(result, Err(DropReason::WrongHmac), "byte {byte}");
        }
    }
}

#[test]
fn trailer_is_bound_to_version_router_family_and_source() {
    let trailer = |context: &Context| Signer::new(ring(), 0).sign(NOON, context, &unsigned())[12..].to_vec();
    let base = trailer(&context());
    assert_ne!(base, trailer(&Context { version: Version::V2, ..context() }));
    assert_ne!(base, trailer(&Context { virtual_router_id: VirtualRouterId::new(52).unwrap(), ..context() }));
    assert_ne!(base, trailer(&Context { source: PEER, ..context() }));
    // The same sixteen bytes as 10.88.0.11 has with its padding.
    let same_bytes = IpAddr::V6(Ipv6Addr::new(0x0a58, 0x000b, 0, 0, 0, 0, 0, 0));
    assert_ne!(base, trailer(&Context { source: same_bytes, ..context() }));
}

#[test]
fn sequence_has_to_be_above_the_last_one() {
    let mut signer = Signer::new(ring(), NOON_SEQUENCE);
    let [first, second, third] = [(); 3].map(|()| signed(&mut signer, Duration::ZERO));
    let mut verifier = Verifier::new(ring(), Mode::Enforce, 0);
    assert_eq!(verify(&mut verifier, &second), Ok(Authenticity::Verified));
    assert_eq!(verifier.floor(), NOON_SEQUENCE + 2);
    assert_eq!(verify(&mut verifier, &second), Err(DropReason::Replayed));
    assert_eq!(verify(&mut verifier, &first), Err(DropReason::Replayed));
    assert_eq!(verify(&mut verifier, &third), Ok(Authenticity::Verified));
}

#[test]
fn floor_survives_a_restart_and_can_be_set() {
    let payload = signed(&mut Signer::new(ring(), NOON_SEQUENCE), Duration::ZERO);
    let with_floor = |floor| verify(&mut Verifier::new(ring(), Mode::Enforce, floor), &payload);
    assert_eq!(with_floor(NOON_SEQUENCE), Ok(Authenticity::Verified));
    assert_eq!(with_floor(NOON_SEQUENCE + 1), Err(DropReason::Replayed));
    assert_eq!(with_floor(u64::MAX), Err(DropReason::Replayed));
    let mut verifier = Verifier::new(ring(), Mode::Enforce, u64::MAX);
    verifier.set_floor(NOON_SEQUENCE);
    assert_eq!(verify(&mut verifier, &payload), Ok(Authenticity::Verified));
}

#[test]
fn window_limits_the_distance_to_our_clock_in_both_directions() {
    let window = Duration::from_secs(5);
    let result = |signed_at| {
        let payload = signed(&mut Signer::new(ring(), 0), signed_at);
        let mut verifier = Verifier::new(ring(), Mode::Enforce, 0).with_window(window);
        let result = verify(&mut verifier, &payload);
        // What is refused does not count.
        assert_eq!(verifier.floor() == 0, result.is_err());
        result
    };
    assert_eq!(result(NOON), Ok(Authenticity::Verified));
    assert_eq!(result(NOON - window), Ok(Authenticity::Verified));
    assert_eq!(result(NOON + window), Ok(Authenticity::Verified));
    assert_eq!(result(NOON - window - Duration::from_millis(1)), Err(DropReason::Stale));
    assert_eq!(result(NOON + window + Duration::from_millis(1)), Err(DropReason::Stale));
}

#[test]
fn without_a_window_no_clock_is_needed() {
    let payload = signed(&mut Signer::new(ring(), 0), Duration::from_secs(1));
    assert_eq!(verify(&mut Verifier::new(ring(), Mode::Enforce, 0), &payload), Ok(Authenticity::Verified));
}
