use std::net::IpAddr;

use pnet::util::MacAddr;

use super::{Claim, announcement, claim_in, probe, question};

/// The node of the captures, see tests/vectors/README.md.
const NODE: MacAddr = MacAddr(2, 0, 0, 0x88, 0, 0x0b);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The frames of a file under tests/vectors.
fn captured(file: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(bytes).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn announcements_are_byte_for_byte_what_keepalived_sends() {
    let arp = announcement(NODE, ip("10.88.0.100")).unwrap();
    assert_eq!(captured("garp_on_takeover.hex.txt"), vec![arp; 10]);
    let advert = announcement(NODE, ip("fd88::100")).unwrap();
    assert_eq!(captured("na_on_takeover.hex.txt"), vec![advert; 10]);
}

#[test]
fn question_over_ipv4_has_the_fields_of_rfc_826_in_their_places() {
    let expected = bytes(
        "ffffffffffff 02000088000b 0806  0001 0800 06 04 0001
         02000088000b 0a4d000c  000000000000 0a4d000b",
    );
    assert_eq!(question(NODE, ip("10.77.0.12"), ip("10.77.0.11")), Some(expected));
}

/// As the kernel of a machine at fd88::12, 02:00:00:88:00:0c asked for fd88::11 while this was written (Linux 6.18).
#[test]
fn question_over_ipv6_is_what_linux_asks() {
    let expected = bytes(
        "3333ff000011 02000088000c 86dd  60000000 0020 3a ff
         fd880000000000000000000000000012 ff0200000000000000000001ff000011
         87 00 827a 00000000 fd880000000000000000000000000011 01 01 02000088000c",
    );
    assert_eq!(question(MacAddr::new(2, 0, 0, 0x88, 0, 0x0c), ip("fd88::12"), ip("fd88::11")), Some(expected));
}

#[test]
fn question_between_families_cannot_be_asked() {
    assert_eq!(question(NODE, ip("fd88::12"), ip("10.88.0.11")), None);
    assert_eq!(question(NODE, ip("10.88.0.11"), ip("fd88::12")), None);
}

/// RFC 5227 section 2.1.1: sender protocol address and target hardware address are zero.
#[test]
fn probe_over_ipv4_names_no_sender() {
    let expected = bytes(
        "ffffffffffff 02000088000b 0806  0001 0800 06 04 0001
         02000088000b 00000000  000000000000 0a580064",
    );
    assert_eq!(probe(NODE, ip("10.88.0.100")), Some(expected));
}

/// RFC 4862 section 5.4.2: from the unspecified address to the solicited-node group; RFC 4861 section 4.3: no option then.
#[test]
fn probe_over_ipv6_names_no_sender() {
    let expected = bytes(
        "3333ff000100 02000088000b 86dd  60000000 0018 3a ff
         00000000000000000000000000000000 ff0200000000000000000001ff000100
         87 00 7a78 00000000 fd880000000000000000000000000100",
    );
    assert_eq!(probe(NODE, ip("fd88::100")), Some(expected));
}

#[test]
fn announcements_claim_their_address() {
    let [arp, advert] = ["garp_on_takeover.hex.txt", "na_on_takeover.hex.txt"].map(|file| captured(file).remove(0));
    assert_eq!(claim_in(&arp), Some(Claim { address: ip("10.88.0.100"), hardware: NODE }));
    assert_eq!(claim_in(&advert), Some(Claim { address: ip("fd88::100"), hardware: NODE }));
}

#[test]
fn arp_answers_and_questions_claim_the_address_of_their_sender() {
    let mut frame = question(NODE, ip("10.77.0.12"), ip("10.77.0.11")).unwrap();
    assert_eq!(claim_in(&frame), Some(Claim { address: ip("10.77.0.12"), hardware: NODE }));
    frame[21] = 2;
    assert_eq!(claim_in(&frame), Some(Claim { address: ip("10.77.0.12"), hardware: NODE }));
}

#[test]
fn probes_and_questions_of_neighbour_discovery_claim_nothing() {
    assert_eq!(claim_in(&probe(NODE, ip("10.88.0.100")).unwrap()), None);
    assert_eq!(claim_in(&probe(NODE, ip("fd88::100")).unwrap()), None);
    assert_eq!(claim_in(&question(NODE, ip("fd88::11"), ip("fd88::100")).unwrap()), None);
}

/// The captured frame of a family with one thing changed, and for IPv6 its checksum made good again unless that is it.
fn changed(frame: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Option<Claim> {
    let mut frame = frame.to_vec();
    change(&mut frame);
    claim_in(&frame)
}

/// Adds to the checksum of an advertisement what was taken from one of its 16-bit words.
fn corrected(frame: &mut [u8], taken: u16) {
    let sum = u32::from(u16::from_be_bytes([frame[56], frame[57]])) + u32::from(taken);
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn arp_of_other_networks_and_other_frames_claim_nothing() {
    let arp = captured("garp_on_takeover.hex.txt").remove(0);
    assert!(changed(&arp, |_| ()).is_some());
    assert_eq!(changed(&arp, |frame| frame[12..14].copy_from_slice(&[0x08, 0x00])), None, "ethertype");
    assert_eq!(changed(&arp, |frame| frame[15] = 6), None, "hardware type");
    assert_eq!(changed(&arp, |frame| frame[16] = 0x86), None, "protocol type");
    assert_eq!(changed(&arp, |frame| frame[18] = 8), None, "length of hardware addresses");
    assert_eq!(changed(&arp, |frame| frame[19] = 16), None, "length of protocol addresses");
    assert_eq!(changed(&arp, |frame| frame.truncate(41)), None, "cut");
    assert!(changed(&arp, |frame| frame.extend([0; 18])).is_some(), "padding");
}

#[test]
fn advertisements_with_anything_wrong_claim_nothing() {
    let advert = captured("na_on_takeover.hex.txt").remove(0);
    assert!(changed(&advert, |_| ()).is_some());
    assert_eq!(changed(&advert, |frame| frame[21] = 254), None, "hop limit");
    assert_eq!(changed(&advert, |frame| frame[20] = 17), None, "next header");
    assert_eq!(changed(&advert, |frame| frame[57] ^= 1), None, "checksum");
    let from_router = |frame: &mut Vec<u8>| {
        frame[54] = 134;
        corrected(frame, 0x0200);
    };
    assert_eq!(changed(&advert, from_router), None, "type");
    let with_code = |frame: &mut Vec<u8>| {
        frame[55] = 1;
        corrected(frame, 0xfffe);
    };
    assert_eq!(changed(&advert, with_code), None, "code");
    let without_length = |frame: &mut Vec<u8>| {
        frame[79] = 0;
        corrected(frame, 0x0001);
    };
    assert_eq!(changed(&advert, without_length), None, "option of length zero");
    let too_long = |frame: &mut Vec<u8>| {
        frame[79] = 2;
        corrected(frame, 0xfffe);
    };
    assert_eq!(changed(&advert, too_long), None, "option past the end");
    for len_bytes in 0..advert.len() {
        assert_eq!(changed(&advert, |frame| frame.truncate(len_bytes)), None, "cut to {len_bytes}");
    }
    assert!(changed(&advert, |frame| frame.extend([0; 4])).is_some(), "padding");
}

/// As a host answers a question of somebody who knows where it is (RFC 4861 section 4.4).
#[test]
fn advertisement_without_hardware_address_claims_for_its_sender() {
    let mut frame = captured("na_on_takeover.hex.txt").remove(0);
    frame.truncate(78);
    frame[19] = 24;
    // Out of the sum: the option, 0201 0200 0088 000b, and 8 of the length.
    corrected(&mut frame, 0x0201 + 0x0200 + 0x0088 + 0x000b + 8);
    assert_eq!(claim_in(&frame), Some(Claim { address: ip("fd88::100"), hardware: NODE }));
}

#[test]
fn random_frames_never_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    let frames = ["garp_on_takeover.hex.txt", "na_on_takeover.hex.txt"].map(|file| captured(file).remove(0));
    for turn in 0..200_000 {
        let mut frame = frames[turn % 2].clone();
        for _ in 0..random.usize(0..4) {
            let at = random.usize(0..frame.len());
            frame[at] = random.u8(..);
        }
        frame.truncate(random.usize(0..=frame.len()));
        std::hint::black_box(claim_in(&frame));
    }
}
