//! The Internet checksum (RFC 1071) of adverts.

use std::net::IpAddr;

use super::{Checksum, IP_PROTOCOL, TRAILER_LEN, Version};

/// Where the checksum stands in an advert of either version.
const FIELD: std::ops::Range<usize> = 6..8;

/// What is summed before the packet itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// Nothing.
    PacketAlone,
    /// The pseudo-header of RFC 9568 section 5.2.8, with these addresses.
    PseudoHeader(IpAddr, IpAddr),
}

impl Coverage {
    /// Of an advert of this version between these addresses.
    pub fn of(version: Version, variant: Checksum, source: IpAddr, destination: IpAddr) -> Self {
        match (version, variant) {
            (Version::V2, _) => Self::PacketAlone,
            (Version::V3, Checksum::WithoutPseudoHeader) if source.is_ipv4() => Self::PacketAlone,
            (Version::V3, Checksum::Rfc | Checksum::WithoutPseudoHeader) => Self::PseudoHeader(source, destination),
        }
    }
}

/// Puts the authentication trailer behind an advert as [`super::Advert::encode`] made it.
///
/// Over IPv4 the checksum stays as it is. Over IPv6 it is computed anew and covers the trailer: keepalived leaves it to
/// the kernel (RFC 3542 section 3.1), which sums whatever is sent, and drops what does not add up when it arrives.
pub fn append_trailer(mut pdu: Vec<u8>, trailer: &[u8; TRAILER_LEN], source: IpAddr, destination: IpAddr) -> Vec<u8> {
    pdu.extend(trailer);
    if source.is_ipv6() {
        write(&mut pdu, Coverage::PseudoHeader(source, destination));
    }
    pdu
}

/// Computes the checksum of a packet and puts it in its place.
pub fn write(packet: &mut [u8], coverage: Coverage) {
    if let Some(field) = packet.get_mut(FIELD) {
        field.fill(0);
    }
    let checksum = (!sum(packet, coverage)).to_be_bytes();
    if let Some(field) = packet.get_mut(FIELD) {
        field.copy_from_slice(&checksum);
    }
}

/// Whether the checksum in a packet is right: with it, the sum has every bit set.
pub fn is_right(packet: &[u8], coverage: Coverage) -> bool {
    sum(packet, coverage) == 0xffff
}

fn sum(packet: &[u8], coverage: Coverage) -> u16 {
    // At most 4 KiB of words, far from an overflow.
    let mut sum = words(packet);
    if let Coverage::PseudoHeader(source, destination) = coverage {
        // The length has 16 bits over IPv4 and 32 over IPv6, which makes no difference to the sum.
        sum += address(source) + address(destination) + u32::from(IP_PROTOCOL) + packet.len() as u32;
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn address(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => words(&address.octets()),
        IpAddr::V6(address) => words(&address.octets()),
    }
}

/// Every advert is a multiple of four bytes long, as is the trailer, so no odd byte is left over.
fn words(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<2>();
    words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum()
}
