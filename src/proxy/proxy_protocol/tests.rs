//! Headers as HAProxy 2.6 wrote them, each rule by itself, and streams that are cut and mutated.

use fastrand::Rng;

use super::*;

/// `send-proxy`
const HAPROXY_V1: &[u8] = b"PROXY TCP4 127.0.0.1 127.0.0.1 40001 29200\r\nGET / HTTP/1.1\r\n";
/// `send-proxy` over IPv6
const HAPROXY_V1_IPV6: &[u8] = b"PROXY TCP6 ::1 ::1 42274 29204\r\n";
/// `send-proxy-v2`
const HAPROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\0\0\x01\x7f\0\0\x01\x9c\x41\x72\x11GET /";
/// `check-send-proxy`
const HAPROXY_CHECK: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// `proxy-v2-options crc32c,unique-id`
const HAPROXY_CRC32C: &str =
    "0d0a0d0a000d0a515549540a2111001f7f0000017f0000019c417212030004aa709c150500097265712d3239373731";
/// `proxy-v2-options ssl,cert-cn,ssl-cipher,authority,crc32c`, of a client that spoke TLS
const HAPROXY_TLS: &str = "0d0a0d0a000d0a515549540a2111004a7f0000017f000001b7967213030004c711e158020009612e6578616d706c65\
                           2000280100000000210007544c5376312e33230016544c535f4145535f3235365f47434d5f534841333834";
/// `send-proxy-v2` over IPv6
const HAPROXY_V2_IPV6: &str = "0d0a0d0a000d0a515549540a2121002400000000000000000000000000000001000000000000000000000000000000\
                               01821a7215";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn client(source: &str, destination: &str, is_tls: bool) -> Origin {
    Origin::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap(), is_tls }
}

fn whole(bytes: &[u8], len_bytes: usize, origin: Origin) {
    assert_eq!(decode(bytes), Ok(Some(Header { len_bytes, origin })), "{}", bytes.escape_ascii());
    for cut in 0..len_bytes {
        assert_eq!(decode(&bytes[..cut]), Ok(None), "cut at {cut}: {}", bytes.escape_ascii());
    }
}

#[test]
fn headers_of_haproxy_are_understood_and_every_part_of_one_waits_for_more() {
    whole(HAPROXY_V1, 44, client("127.0.0.1:40001", "127.0.0.1:29200", false));
    whole(HAPROXY_V1_IPV6, 32, client("[::1]:42274", "[::1]:29204", false));
    whole(HAPROXY_V2, 28, client("127.0.0.1:40001", "127.0.0.1:29201", false));
    whole(HAPROXY_CHECK, 16, Origin::Itself);
    whole(&hex(HAPROXY_CRC32C), 47, client("127.0.0.1:40001", "127.0.0.1:29202", false));
    whole(&hex(HAPROXY_TLS), 90, client("127.0.0.1:46998", "127.0.0.1:29203", true));
    whole(&hex(HAPROXY_V2_IPV6), 52, client("[::1]:33306", "[::1]:29205", false));
}

#[test]
fn examples_of_the_specification_are_understood() {
    let longest =
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let end = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    assert_eq!(longest.len(), 104);
    whole(longest.as_bytes(), 104, client(end, end, false));
    whole(b"PROXY UNKNOWN\r\n", 15, Origin::Itself);
    whole(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\nx", 59, Origin::Itself);
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    whole(longest.as_bytes(), 107, Origin::Itself);
    whole(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", 56, {
        client("255.255.255.255:65535", "255.255.255.255:65535", false)
    });
}

#[test]
fn what_is_no_line_of_version_1_is_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY tcp4 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
        "PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.01 1 1\r\n",
        "PROXY TCP4 ::1 ::1 1 1\r\n",
        "PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n\r\n",
        "PROXY TCP4 \u{b9}.1.1.1 1.1.1.1 1 1\r\n",
    ] {
        assert_eq!(decode(line.as_bytes()), Err(Refusal::Line), "{line:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(92));
    assert_eq!(endless.len(), 106);
    assert_eq!(decode(endless.as_bytes()), Ok(None));
    assert_eq!(decode(format!("{endless}x").as_bytes()), Err(Refusal::Line));
    assert_eq!(decode(format!("{endless}\r\n").as_bytes()), Err(Refusal::Line));
}

#[test]
fn what_is_no_header_is_refused_at_the_first_byte_that_tells() {
    for bytes in
        [&b"G"[..], b"GET / HTTP/1.1\r\n", b"PROPFIND", b"PROXYx", b"\x16\x03\x01", b"\r\n\r\n\0\r\nQUIT\r", b"\r\nG"]
    {
        assert_eq!(decode(bytes), Err(Refusal::Missing), "{}", bytes.escape_ascii());
    }
    for bytes in [&b""[..], b"P", b"PROXY", b"PROXY ", b"\r", b"\r\n\r\n\0\r\nQUIT\n"] {
        assert_eq!(decode(bytes), Ok(None), "{}", bytes.escape_ascii());
    }
}

/// A header of version 2 with these last two bytes in front of the length, and this block.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &len, block].concat()
}

const V4_ENDS: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187];

#[test]
fn versions_commands_and_families_that_there_are_none_of_are_refused() {
    for command in [0x00, 0x10, 0x11, 0x22, 0x2f, 0x31] {
        assert_eq!(decode(&v2(command, 0x11, V4_ENDS)), Err(Refusal::Command), "{command:#x}");
    }
    for family in [0x01, 0x02, 0x10, 0x13, 0x20, 0x30, 0x33, 0x41, 0xff] {
        assert_eq!(decode(&v2(0x21, family, &[0; 216])), Err(Refusal::Family), "{family:#x}");
    }
}

#[test]
fn connections_without_an_address_of_tcp_are_the_proxys_own() {
    for (command, family, block) in [
        // LOCAL: the block counts for nothing, whatever is in it.
        (0x20, 0x11, V4_ENDS.to_vec()),
        (0x20, 0xff, vec![1; 3]),
        // Unspecified: nobody knows where the addresses end.
        (0x21, 0x00, vec![]),
        (0x21, 0x00, vec![9; 7]),
        (0x21, 0x12, V4_ENDS.to_vec()),
        (0x21, 0x22, vec![0; 36]),
        (0x21, 0x31, vec![b'/'; 216]),
        (0x21, 0x32, vec![b'/'; 216]),
    ] {
        whole(&v2(command, family, &block), 16 + block.len(), Origin::Itself);
    }
}

#[test]
fn blocks_too_short_for_their_addresses_are_refused() {
    for (family, len) in [(0x11, 11), (0x12, 11), (0x21, 35), (0x22, 35), (0x31, 215), (0x32, 0)] {
        assert_eq!(decode(&v2(0x21, family, &vec![0; len])), Err(Refusal::Truncated), "{family:#x}");
    }
}

#[test]
fn extensions_may_not_go_over_the_end() {
    let with = |extensions: &[u8]| decode(&v2(0x21, 0x11, &[V4_ENDS, extensions].concat()));
    let is_tls = |extensions: &[u8]| match with(extensions) {
        Ok(Some(Header { origin: Origin::Client { is_tls, .. }, .. })) => is_tls,
        other => panic!("{other:?}"),
    };
    assert!(!is_tls(&[0x04, 0, 0]));
    assert!(!is_tls(&[0xee, 0, 2, 1, 1]));
    assert!(is_tls(&[0x20, 0, 5, 1, 0, 0, 0, 0]));
    assert!(!is_tls(&[0x20, 0, 5, 2, 0, 0, 0, 0]));
    for extensions in [&[0x04][..], &[0x04, 0], &[0x04, 0, 1], &[0x04, 0, 0, 0x04], &[0x20, 0, 0], &[0x04, 255, 255, 1]]
    {
        assert_eq!(with(extensions), Err(Refusal::Truncated), "{extensions:?}");
    }
}

#[test]
fn headers_over_the_limit_are_refused_before_they_have_come() {
    let longest = HEADER_BYTES_MAX - V2_FIXED_BYTES;
    let mut block = V4_ENDS.to_vec();
    block.extend_from_slice(&[0x04, 0x0f, 0xe1]);
    block.resize(longest, 0);
    whole(&v2(0x21, 0x11, &block), HEADER_BYTES_MAX, client("192.0.2.1:80", "192.0.2.2:443", false));
    let long = v2(0x21, 0x11, &vec![0; longest + 1]);
    assert_eq!(decode(&long[..V2_FIXED_BYTES]), Err(Refusal::TooLong));
}

#[test]
fn every_changed_bit_of_a_checked_header_is_found() {
    // The example of RFC 3720 appendix B.4.
    assert_eq!(crc32c([0_u8; 32].into_iter()), 0x8a91_36aa);
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    let good = hex(HAPROXY_CRC32C);
    // From behind the length on: what stands before decides whether it is one at all.
    for index in V2_FIXED_BYTES..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[index] ^= 1 << bit;
            let is_tag = index == 28;
            let is_len = (29..=30).contains(&index) || (36..=37).contains(&index);
            let found = decode(&bad);
            // Without the tag it is an extension that nobody knows.
            assert!(is_tag || found.is_err(), "byte {index} bit {bit}: {found:?}");
            assert!(is_tag || is_len || found == Err(Refusal::Checksum), "byte {index} bit {bit}: {found:?}");
        }
    }
    let twice = hex("0d0a0d0a000d0a515549540a2111001a7f0000017f0000019c41721203000400000000030004000000 00");
    assert_eq!(decode(&twice), Err(Refusal::Checksum));
}

#[test]
fn mutated_headers_end_nothing_and_more_bytes_never_change_what_was_said() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let corpus = [
        HAPROXY_V1.to_vec(),
        HAPROXY_V1_IPV6.to_vec(),
        HAPROXY_V2.to_vec(),
        HAPROXY_CHECK.to_vec(),
        hex(HAPROXY_CRC32C),
        hex(HAPROXY_TLS),
        hex(HAPROXY_V2_IPV6),
    ];
    for _ in 0..20_000 {
        let mut bytes = corpus[rng.usize(..corpus.len())].clone();
        for _ in 0..rng.usize(..4) {
            let index = rng.usize(..bytes.len());
            match rng.u8(..3) {
                0 => bytes[index] = rng.u8(..),
                1 => bytes.insert(index, rng.u8(..)),
                _ => drop(bytes.remove(index)),
            }
        }
        let mut said = None;
        for cut in 0..=bytes.len() {
            let found = decode(&bytes[..cut]);
            if let Ok(Some(header)) = found {
                assert!(header.len_bytes <= cut, "{header:?} of {cut} bytes");
            }
            match (said, found) {
                (None, Ok(None)) => {}
                (None, found) => said = Some(found),
                (Some(said), found) => assert_eq!(said, found, "{}", bytes.escape_ascii()),
            }
        }
    }
}
