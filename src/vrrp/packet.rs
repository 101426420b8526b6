//! Adverts on the wire: VRRPv3 over IPv4 and IPv6 (RFC 9568 section 5) and VRRPv2 over IPv4 (RFC 3768 section 5).
//!
//! In the order of a packet's way in: [`decode_ipv4`] reads an IPv4 header (IPv6 sockets deliver none, there the shell
//! fills in the [`Envelope`]), [`decode`] says whether the payload is a valid advert, [`judge`] whether it is one of the
//! peer for us, [`super::auth::Verifier`] whether the peer really sent it, and, where two versions are heard,
//! [`MixedFilter`] which of them counts. On the way out: [`Advert::encode`], [`super::auth::Signer`],
//! [`append_trailer`].
//!
//! All of it is pure and names the reason for each refusal, so that the shell can count drops by [`DropReason`]. A packet
//! that is refused never reaches the state machine and so never moves a timer.
//! Centiseconds, the unit of the wire, do not leave this module.

mod checksum;
mod codec;
mod ip;
mod judge;
mod mixed;
mod reason;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::units::{AdvertInterval, VirtualRouterId};

pub use checksum::append_trailer;
pub use codec::decode;
pub use ip::decode_ipv4;
pub use judge::{Expected, ExpectedSource, Heard, Versions, judge};
pub use mixed::MixedFilter;
pub use reason::DropReason;

/// Where adverts go with multicast transport over IPv4 (RFC 9568 section 5.1.1.2).
pub const MULTICAST_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Where adverts go with multicast transport over IPv6 (RFC 9568 section 5.1.2.2).
pub const MULTICAST_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// The protocol number of VRRP in an IP header (RFC 9568 section 5.1.1.4).
pub const IP_PROTOCOL: u8 = 112;

/// The TTL or hop limit of every advert. A router would have lowered it, so 255 proves a sender on the same link
/// (RFC 9568 sections 5.1.1.3 and 5.1.2.3).
pub const TTL: u8 = 255;

/// The most addresses an advert can count (RFC 9568 section 5.2.5).
pub const ADDRESS_COUNT_MAX: usize = 255;

/// The priority that says "I no longer take part" (RFC 9568 section 5.2.4).
pub const PRIORITY_RESIGNED: u8 = 0;

/// Bytes of the authentication trailer that may follow an advert. [`super::auth`] knows what is in it.
pub const TRAILER_LEN: usize = 28;

/// A version of VRRP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// RFC 3768. IPv4 only.
    V2,
    /// RFC 9568, and RFC 5798 before it.
    V3,
}

impl Version {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// What the IP header around an advert says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
}

/// What an advert's bytes depend on besides what it says. The default is what the RFCs have.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Format {
    /// For VRRPv3 over IPv4.
    pub checksum: Checksum,
    /// For VRRPv2: authentication type 1 with this password, padded with zeros (RFC 2338 section 5.3.6). With `None`,
    /// type 0. RFC 3768 abolished the password because it stands in every packet for all to read; older routers ask
    /// for it.
    pub password: Option<[u8; 8]>,
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.map(|_| "hidden");
        f.debug_struct("Format").field("checksum", &self.checksum).field("password", &password).finish()
    }
}

/// What the checksum of a VRRPv3 advert over IPv4 covers. Others have no choice: VRRPv2 does without the pseudo-header,
/// IPv6 with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Pseudo-header and packet (RFC 9568 section 5.2.8).
    #[default]
    Rfc,
    /// The packet alone, as VRRPv2 has it and some VRRPv3 routers too: keepalived's `v3_checksum_as_v2`.
    WithoutPseudoHeader,
}

/// A VRRP advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advert {
    /// The version that it is in.
    pub version: Version,
    /// The virtual router that it speaks for.
    pub virtual_router_id: VirtualRouterId,
    /// 0 to 255: a node's own 1 to 254, 0 for "I resign", 255 for "I own the address", which a Baton node never says.
    pub priority: u8,
    /// Time until the sender's next advert.
    pub interval: AdvertInterval,
    /// The virtual addresses, 1 to [`ADDRESS_COUNT_MAX`] of them, all of the family of the IP header. Over IPv6 the
    /// first is link-local (RFC 9568 section 5.2.9).
    pub addresses: Vec<IpAddr>,
}

/// A valid advert, and what [`judge`] and [`super::auth`] need besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received<'payload> {
    /// What the IP header said.
    pub envelope: Envelope,
    /// What it said.
    pub advert: Advert,
    /// Its bytes without the trailer.
    pub pdu: &'payload [u8],
    /// The bytes after it. Whether they may be there, and what they have to be, [`super::auth`] decides.
    pub trailer: Option<&'payload [u8; TRAILER_LEN]>,
}
