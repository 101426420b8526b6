//! Whether a valid advert is one of the peer for our virtual router.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::codec::whole_seconds;
use super::{DropReason, Envelope, Received, Version};
use crate::units::{AdvertInterval, VirtualRouterId};

/// What an advert has to be to count as the peer's. A pair has exactly one other speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Our virtual router.
    pub virtual_router_id: VirtualRouterId,
    /// The address that our adverts come from.
    pub local: IpAddr,
    /// Where the peer's come from.
    pub peer: ExpectedSource,
    /// Where the peer sends: our own address with unicast transport, the group with multicast.
    pub destination: IpAddr,
    /// Our virtual addresses of the family, in any order.
    pub addresses: Vec<IpAddr>,
    /// What we listen to.
    pub versions: Versions,
    /// Our interval, which VRRPv2 wants to be the peer's too.
    pub interval: AdvertInterval,
}

/// Where the peer's adverts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedSource {
    /// This address.
    Exactly(IpAddr),
    /// Any of `fe80::/10` but our own: over IPv6 multicast a node sends from the link-local address of its interface
    /// (RFC 9568 section 5.1.2.1), which nobody configures and which changes with the hardware.
    AnyLinkLocal,
}

/// Versions of VRRP that are listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// VRRPv2 alone.
    V2,
    /// VRRPv3 alone.
    V3,
    /// Both (RFC 5798 section 8.4); [`super::MixedFilter`] decides which one counts.
    Mixed,
}

impl Versions {
    fn include(self, version: Version) -> bool {
        match self {
            Self::V2 => version == Version::V2,
            Self::V3 => version == Version::V3,
            Self::Mixed => true,
        }
    }
}

/// An advert of the peer for our virtual router: what the state machine needs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The peer's address. Between equal priorities the higher of the two wins.
    pub source: IpAddr,
    /// Our own address on the path by which it came, of the same family.
    pub local: IpAddr,
    /// The version that it was in.
    pub version: Version,
    /// 0 to 255.
    pub priority: u8,
    /// The peer's interval.
    pub interval: AdvertInterval,
    /// The peer lists other virtual addresses than we do. It is heard all the same: dropping it would turn a drifted
    /// configuration into two holders. Worth a warning.
    pub addresses_differ: bool,
}

/// Says whether a valid advert is one of the peer for our virtual router. Where adverts are authenticated, the trailer
/// is yet to be verified.
///
/// # Errors
/// [`DropReason::WrongRouterId`], [`DropReason::OwnAdvert`], [`DropReason::UnknownSource`],
/// [`DropReason::WrongDestination`], [`DropReason::WrongVersion`] or [`DropReason::WrongInterval`], checked in this order.
pub fn judge(received: &Received<'_>, expected: &Expected) -> Result<Heard, DropReason> {
    let Received { envelope: Envelope { source, destination, .. }, advert, .. } = received;
    if advert.virtual_router_id != expected.virtual_router_id {
        return Err(DropReason::WrongRouterId);
    }
    if *source == expected.local {
        return Err(DropReason::OwnAdvert);
    }
    if !expected.peer.includes(*source) {
        return Err(DropReason::UnknownSource);
    }
    if *destination != expected.destination {
        return Err(DropReason::WrongDestination);
    }
    if !expected.versions.include(advert.version) {
        return Err(DropReason::WrongVersion);
    }
    // RFC 3768 section 7.1. A node of VRRPv3 learns the interval instead.
    if advert.version == Version::V2 && whole_seconds(advert.interval) != whole_seconds(expected.interval) {
        return Err(DropReason::WrongInterval);
    }
    let theirs: BTreeSet<&IpAddr> = advert.addresses.iter().collect();
    let ours: BTreeSet<&IpAddr> = expected.addresses.iter().collect();
    Ok(Heard {
        source: *source,
        local: expected.local,
        version: advert.version,
        priority: advert.priority,
        interval: advert.interval,
        addresses_differ: theirs != ours,
    })
}

impl ExpectedSource {
    fn includes(self, source: IpAddr) -> bool {
        match (self, source) {
            (Self::Exactly(peer), source) => source == peer,
            (Self::AnyLinkLocal, IpAddr::V6(source)) => source.is_unicast_link_local(),
            (Self::AnyLinkLocal, IpAddr::V4(_)) => false,
        }
    }
}
