//! Adverts on the wire: VRRPv3 over IPv4, RFC 9568 section 5.
//!
//! [`decode`] says whether a packet is a valid advert, [`judge`] whether it is one for us. Both are pure, and both name
//! the reason for each refusal, so that the shell can count drops by [`DropReason`]. A packet that is refused never
//! reaches the state machine and so never moves a timer.
//! Centiseconds, the unit of the wire, do not leave this module.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::units::{AdvertInterval, VirtualRouterId};

#[cfg(test)]
mod tests;

/// Where adverts go with multicast transport (RFC 9568 section 5.1.1.2).
pub const MULTICAST_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// The protocol number of VRRP in an IP header (RFC 9568 section 5.1.1.4).
pub const IP_PROTOCOL: u8 = 112;

/// The TTL of every advert. A router would have lowered it, so 255 proves a sender on the same link
/// (RFC 9568 section 5.1.1.3).
pub const TTL: u8 = 255;

/// The most addresses an advert can count (RFC 9568 section 5.2.5).
pub const ADDRESS_COUNT_MAX: usize = 255;

/// The priority that says "I no longer take part" (RFC 9568 section 5.2.4).
pub const PRIORITY_RESIGNED: u8 = 0;

const VERSION: u8 = 3;
const TYPE_ADVERTISEMENT: u8 = 1;
const CENTISECOND_MS: u64 = 10;

/// Bytes of an IPv4 header without options.
const IP_HEADER_LEN: usize = 20;
/// Bytes of an advert before its addresses.
const FIXED_LEN: usize = 8;
/// Bytes of one address.
const ADDRESS_LEN: usize = 4;

/// A VRRP advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advert {
    /// The virtual router that it speaks for.
    pub virtual_router_id: VirtualRouterId,
    /// 0 to 255: a node's own 1 to 254, 0 for "I resign", 255 for "I own the address", which a Baton node never says.
    pub priority: u8,
    /// Time until the sender's next advert.
    pub interval: AdvertInterval,
    /// The virtual addresses, 1 to [`ADDRESS_COUNT_MAX`] of them.
    pub addresses: Vec<Ipv4Addr>,
}

impl Advert {
    /// The VRRP packet with its checksum, without an IP header, which the kernel writes.
    ///
    /// `source` and `destination` have to be what the IP header will say, since the checksum covers them
    /// (RFC 9568 section 5.2.8). Addresses past [`ADDRESS_COUNT_MAX`] are left out, as the wire cannot count them.
    pub fn encode(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let count = self.addresses.len().min(ADDRESS_COUNT_MAX);
        let [interval_high, interval_low] = centiseconds(self.interval).to_be_bytes();
        let mut pdu = Vec::with_capacity(FIXED_LEN + count * ADDRESS_LEN);
        pdu.extend([VERSION << 4 | TYPE_ADVERTISEMENT, self.virtual_router_id.get(), self.priority, count as u8]);
        pdu.extend([interval_high, interval_low, 0, 0]);
        for address in self.addresses.iter().take(count) {
            pdu.extend(address.octets());
        }
        let sum = checksum(source, destination, &pdu).to_be_bytes();
        if let Some(field) = pdu.get_mut(6..8) {
            field.copy_from_slice(&sum);
        }
        pdu
    }
}

/// A valid advert and the addresses of the IP header that carried it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Source address of the IP header.
    pub source: Ipv4Addr,
    /// Destination address of the IP header.
    pub destination: Ipv4Addr,
    /// What it said.
    pub advert: Advert,
}

/// Takes a whole IPv4 packet as a raw socket delivers it, header and options included, and checks it as
/// RFC 9568 section 7.1 asks. Bytes past the packet's total length are padding and ignored; the checksum of the IP
/// header is the kernel's to check.
///
/// # Errors
/// The first check that failed, in the order of the variants of [`DropReason`].
pub fn decode(ip_packet: &[u8]) -> Result<Received, DropReason> {
    let (source, destination, pdu) = decode_ip(ip_packet)?;
    let (fixed, addresses) = pdu.split_first_chunk::<FIXED_LEN>().ok_or(DropReason::Short)?;
    let [version_and_type, id, priority, count, interval_high, interval_low, sum_high, sum_low] = *fixed;
    if version_and_type >> 4 != VERSION {
        return Err(DropReason::WrongVersion);
    }
    if version_and_type & 0x0f != TYPE_ADVERTISEMENT {
        return Err(DropReason::WrongType);
    }
    let virtual_router_id = VirtualRouterId::new(id).ok_or(DropReason::ZeroRouterId)?;
    let addresses = decode_addresses(count, addresses)?;
    // The four bits above the interval are reserved and ignored (RFC 9568 section 5.2.6).
    let interval_cs = u16::from_be_bytes([interval_high & 0x0f, interval_low]);
    let interval = Duration::from_millis(u64::from(interval_cs) * CENTISECOND_MS);
    let interval = AdvertInterval::new(interval).ok_or(DropReason::ZeroInterval)?;
    if checksum(source, destination, pdu) != u16::from_be_bytes([sum_high, sum_low]) {
        return Err(DropReason::WrongChecksum);
    }
    Ok(Received { source, destination, advert: Advert { virtual_router_id, priority, interval, addresses } })
}

/// What an advert has to be to count as the peer's. A pair has exactly one other speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Our virtual router.
    pub virtual_router_id: VirtualRouterId,
    /// Our heartbeat address.
    pub local: Ipv4Addr,
    /// The peer's heartbeat address.
    pub peer: Ipv4Addr,
    /// Where the peer sends: our own address with unicast transport, [`MULTICAST_GROUP`] with multicast.
    pub destination: Ipv4Addr,
    /// Our virtual addresses, in any order.
    pub addresses: Vec<Ipv4Addr>,
}

/// An advert of the peer for our virtual router: what the state machine needs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The peer's address.
    pub source: IpAddr,
    /// Ours on the same path: between equal priorities the higher address wins.
    pub local: IpAddr,
    /// 0 to 255.
    pub priority: u8,
    /// The peer's interval.
    pub interval: AdvertInterval,
    /// The peer lists other virtual addresses than we do. It is heard all the same: dropping it would turn a drifted
    /// configuration into two holders. Worth a warning.
    pub addresses_differ: bool,
}

/// Says whether a valid advert is one of the peer for our virtual router.
///
/// # Errors
/// [`DropReason::WrongRouterId`], [`DropReason::OwnAdvert`], [`DropReason::UnknownSource`] or
/// [`DropReason::WrongDestination`], checked in this order.
pub fn judge(received: &Received, expected: &Expected) -> Result<Heard, DropReason> {
    let Received { source, destination, advert } = received;
    if advert.virtual_router_id != expected.virtual_router_id {
        return Err(DropReason::WrongRouterId);
    }
    if *source == expected.local {
        return Err(DropReason::OwnAdvert);
    }
    if *source != expected.peer {
        return Err(DropReason::UnknownSource);
    }
    if *destination != expected.destination {
        return Err(DropReason::WrongDestination);
    }
    let theirs: BTreeSet<&Ipv4Addr> = advert.addresses.iter().collect();
    let ours: BTreeSet<&Ipv4Addr> = expected.addresses.iter().collect();
    Ok(Heard {
        source: IpAddr::V4(*source),
        local: IpAddr::V4(expected.local),
        priority: advert.priority,
        interval: advert.interval,
        addresses_differ: theirs != ours,
    })
}

/// Why a packet was not taken for an advert of the peer, in the order in which [`decode`] and then [`judge`] check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Fewer bytes than an IPv4 header, than its total length says, or than an advert without addresses.
    Short,
    /// Not IPv4.
    WrongIpVersion,
    /// The lengths in the IP header contradict each other.
    BadIpHeader,
    /// Not VRRP; a VRRPv2 authentication header (protocol 51) is one of these.
    WrongProtocol,
    /// Part of a larger packet. An advert fits into one.
    Fragment,
    /// It came through a router, or from somebody who does not speak VRRP.
    WrongTtl,
    /// Not VRRPv3.
    WrongVersion,
    /// Not an advertisement.
    WrongType,
    /// Virtual router 0, which does not exist.
    ZeroRouterId,
    /// It counts no address.
    NoAddresses,
    /// It counts more addresses than it has.
    MissingAddresses,
    /// More bytes than its addresses need, such as keepalived's `auth_hmac` trailer.
    TrailingBytes,
    /// Interval 0: its sender would be dead by the time it is heard.
    ZeroInterval,
    /// Damaged, or the addresses of the IP header are not those it was sent with.
    WrongChecksum,
    /// Of another virtual router on the same link.
    WrongRouterId,
    /// Ours, come back.
    OwnAdvert,
    /// Neither ours nor the peer's.
    UnknownSource,
    /// The peer's, by the other transport.
    WrongDestination,
}

impl DropReason {
    /// Every reason, in the order of [`DropReason::index`].
    pub const ALL: [Self; 18] = [
        Self::Short,
        Self::WrongIpVersion,
        Self::BadIpHeader,
        Self::WrongProtocol,
        Self::Fragment,
        Self::WrongTtl,
        Self::WrongVersion,
        Self::WrongType,
        Self::ZeroRouterId,
        Self::NoAddresses,
        Self::MissingAddresses,
        Self::TrailingBytes,
        Self::ZeroInterval,
        Self::WrongChecksum,
        Self::WrongRouterId,
        Self::OwnAdvert,
        Self::UnknownSource,
        Self::WrongDestination,
    ];

    /// Its place in [`DropReason::ALL`], for an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics and in `baton status`. Stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::WrongIpVersion => "wrong_ip_version",
            Self::BadIpHeader => "bad_ip_header",
            Self::WrongProtocol => "wrong_protocol",
            Self::Fragment => "fragment",
            Self::WrongTtl => "wrong_ttl",
            Self::WrongVersion => "wrong_version",
            Self::WrongType => "wrong_type",
            Self::ZeroRouterId => "zero_router_id",
            Self::NoAddresses => "no_addresses",
            Self::MissingAddresses => "missing_addresses",
            Self::TrailingBytes => "trailing_bytes",
            Self::ZeroInterval => "zero_interval",
            Self::WrongChecksum => "wrong_checksum",
            Self::WrongRouterId => "wrong_router_id",
            Self::OwnAdvert => "own_advert",
            Self::UnknownSource => "unknown_source",
            Self::WrongDestination => "wrong_destination",
        }
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Source, destination and payload of an IPv4 packet that may carry an advert.
fn decode_ip(packet: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr, &[u8]), DropReason> {
    match packet.first() {
        None => return Err(DropReason::Short),
        Some(byte) if byte >> 4 != 4 => return Err(DropReason::WrongIpVersion),
        Some(_) => {}
    }
    let header = packet.first_chunk::<IP_HEADER_LEN>().ok_or(DropReason::Short)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < IP_HEADER_LEN || total_len < header_len {
        return Err(DropReason::BadIpHeader);
    }
    let payload = packet.get(header_len..total_len).ok_or(DropReason::Short)?;
    if header[9] != IP_PROTOCOL {
        return Err(DropReason::WrongProtocol);
    }
    // More fragments to come, or an offset. "Don't fragment" (0x4000) is allowed.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(DropReason::Fragment);
    }
    if header[8] != TTL {
        return Err(DropReason::WrongTtl);
    }
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    Ok((source, destination, payload))
}

fn decode_addresses(count: u8, bytes: &[u8]) -> Result<Vec<Ipv4Addr>, DropReason> {
    let needed = usize::from(count) * ADDRESS_LEN;
    if count == 0 {
        return Err(DropReason::NoAddresses);
    }
    if bytes.len() < needed {
        return Err(DropReason::MissingAddresses);
    }
    if bytes.len() > needed {
        return Err(DropReason::TrailingBytes);
    }
    let (addresses, _) = bytes.as_chunks::<ADDRESS_LEN>();
    Ok(addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect())
}

/// The interval in the unit of the wire, 1 to 4095.
fn centiseconds(interval: AdvertInterval) -> u16 {
    (interval.get().as_millis() / u128::from(CENTISECOND_MS)) as u16
}

/// The Internet checksum (RFC 1071) over pseudo-header and packet, with the packet's own checksum field taken as zero.
fn checksum(source: Ipv4Addr, destination: Ipv4Addr, pdu: &[u8]) -> u16 {
    let [a, b, c, d] = source.octets();
    let [e, f, g, h] = destination.octets();
    let pseudo_header = [[a, b], [c, d], [e, f], [g, h], [0, IP_PROTOCOL], (pdu.len() as u16).to_be_bytes()];
    // Every packet that gets here is a multiple of four bytes long, so no odd byte is left over.
    let (words, _) = pdu.as_chunks::<2>();
    let words = words.iter().enumerate().filter(|(index, _)| *index != 3).map(|(_, word)| word);
    let mut sum: u32 = pseudo_header.iter().chain(words).map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
