//! VRRP adverts: what is read of one is what it says, and says it again.
//!
//! The first byte says what is around the payload of the IP packet, which are the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use baton::vrrp::packet::{self, Checksum, Envelope, Format, TRAILER_LEN, Version, decode_ipv4};

const IPV6: u8 = 1;
const WITHOUT_PSEUDO_HEADER: u8 = 2;
const PASSWORD: u8 = 4;
const TRAILER: u8 = 8;
/// The checksum is put right first, which no fuzzer finds by itself.
const MENDED: u8 = 16;

const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 11);
const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 12);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x11);
const DESTINATION_V6: Ipv6Addr = Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x12);

/// Bytes to begin with: packets of keepalived 2.2.7.
pub const SAMPLES: &[&[u8]] = &[
    b"\x00\x31\x33\x65\x01\x00\x64\x49\x68\x0a\x58\x00\x64",
    b"\x10\x31\x33\x65\x01\x00\x64\x00\x00\x0a\x58\x00\x64",
    b"\x12\x31\x33\x65\x01\x00\x64\x00\x00\x0a\x58\x00\x64",
    b"\x00\x21\x33\x65\x01\x00\x01\x6f\x0e\x0a\x58\x00\x64\0\0\0\0\0\0\0\0",
    b"\x04\x21\x33\x65\x01\x01\x01\xc1\x7c\x0a\x58\x00\x64s3cretpw",
    b"\x01\x31\x34\x65\x01\x00\x64\x6f\x20\xfd\x88\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00",
    b"\x18\x31\x33\x65\x01\x00\x64\x00\x00\x0a\x58\x00\x64this trailer is of 28 bytes.",
    b"\x00\x45\xc0\x00\x20\x00\x01\x00\x00\xff\x70\xa5\xe6\x0a\x58\x00\x0b\x0a\x58\x00\x0c\x31\x33\x65\x01\x00\x64\x49\x68\x0a\x58\x00\x64",
];

/// Pieces that mean something.
pub const SPLINTERS: &[&[u8]] = &[
    b"\x31",
    b"\x21",
    b"\x10",
    b"\x18",
    b"\x00\x64",
    b"\x0a\x58\x00\x64",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff",
    b"s3cretpw",
];

/// Panics when something does not hold.
pub fn check(data: &[u8]) {
    let Some((flags, payload)) = data.split_first() else { return };
    if let Ok((_, inner)) = decode_ipv4(payload) {
        // Behind it may be what the link has filled the packet up with.
        assert!(inner.len() + 20 <= payload.len());
    }
    let has = |flag| flags & flag != 0;
    let (source, destination): (IpAddr, IpAddr) =
        if has(IPV6) { (SOURCE_V6.into(), DESTINATION_V6.into()) } else { (SOURCE.into(), DESTINATION.into()) };
    let checksum = if has(WITHOUT_PSEUDO_HEADER) { Checksum::WithoutPseudoHeader } else { Checksum::Rfc };
    let format = Format { checksum, password: has(PASSWORD).then_some(*b"s3cretpw") };
    let envelope = Envelope { source, destination, hop_limit: 255 };
    let mut payload = payload.to_vec();
    if has(MENDED) {
        let trailer_len = if has(TRAILER) { TRAILER_LEN } else { 0 };
        let pdu_len = payload.len().saturating_sub(trailer_len);
        mend(&mut payload[..pdu_len], source, destination, checksum);
    }
    let Ok(received) = packet::decode(&envelope, &payload, &format) else { return };
    let said = received.pdu.len() + received.trailer.map_or(0, |trailer| trailer.len());
    assert_eq!((received.envelope, said), (envelope, payload.len()));
    let again = received.advert.encode(source, destination, &format);
    assert_eq!(again.len(), received.pdu.len());
    let again = packet::decode(&envelope, &again, &format).map(|again| again.advert);
    assert_eq!(again, Ok(received.advert));
}

/// Writes the checksum of RFC 1071, found the plain way.
fn mend(pdu: &mut [u8], source: IpAddr, destination: IpAddr, checksum: Checksum) {
    let Some(version) = pdu.first().map(|first| first >> 4).filter(|_| pdu.len() >= 8) else { return };
    pdu[6..8].fill(0);
    let mut bytes = pdu.to_vec();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let has_choice = source.is_ipv4() && (version == Version::V2.number() || checksum == Checksum::WithoutPseudoHeader);
    if !has_choice {
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        bytes.extend((pdu.len() as u32).to_be_bytes());
        bytes.extend([0, 0, 0, 112]);
    }
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    pdu[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
