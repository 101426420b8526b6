//! Adverts to bytes and back, RFC 9568 section 5.2 and RFC 3768 section 5.3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::checksum::{self, Coverage};
use super::{ADDRESS_COUNT_MAX, Advert, DropReason, Envelope, Format, Received, TRAILER_LEN, TTL, Version};
use crate::units::{AdvertInterval, VirtualRouterId};

const TYPE_ADVERTISEMENT: u8 = 1;
const CENTISECOND_MS: u64 = 10;

/// Bytes of an advert before its addresses, in either version.
const FIXED_LEN: usize = 8;
const IPV4_LEN: usize = 4;
const IPV6_LEN: usize = 16;

/// VRRPv2 has this much authentication data after the addresses, whether it is used or not (RFC 3768 section 5.3.10).
const PASSWORD_LEN: usize = 8;
const AUTH_TYPE_NONE: u8 = 0;
/// Simple text password (RFC 2338 section 5.3.6).
const AUTH_TYPE_PASSWORD: u8 = 1;

impl Advert {
    /// The VRRP packet with its checksum, without an IP header, which the kernel writes, and without a trailer.
    ///
    /// `source` and `destination` have to be what the IP header will say, since the checksum may cover them
    /// (RFC 9568 section 5.2.8). Addresses past [`ADDRESS_COUNT_MAX`] are left out, as the wire cannot count them, and so
    /// are those of the other family. VRRPv2 says whole seconds: an interval between two is rounded up. Over IPv6, for
    /// which there is no VRRPv2, every advert is in VRRPv3.
    pub fn encode(&self, source: IpAddr, destination: IpAddr, format: &Format) -> Vec<u8> {
        let version = if source.is_ipv6() { Version::V3 } else { self.version };
        let of_family = self.addresses.iter().filter(|address| address.is_ipv4() == source.is_ipv4());
        let addresses: Vec<&IpAddr> = of_family.take(ADDRESS_COUNT_MAX).collect();
        let mut pdu = Vec::with_capacity(FIXED_LEN + addresses.len() * IPV6_LEN + TRAILER_LEN);
        let version_and_type = version.number() << 4 | TYPE_ADVERTISEMENT;
        pdu.extend([version_and_type, self.virtual_router_id.get(), self.priority, addresses.len() as u8]);
        match version {
            Version::V2 => pdu.extend([auth_type(format), whole_seconds(self.interval)]),
            Version::V3 => pdu.extend(centiseconds(self.interval).to_be_bytes()),
        }
        pdu.extend([0, 0]);
        for address in addresses {
            match address {
                IpAddr::V4(address) => pdu.extend(address.octets()),
                IpAddr::V6(address) => pdu.extend(address.octets()),
            }
        }
        if version == Version::V2 {
            pdu.extend(format.password.unwrap_or_default());
        }
        checksum::write(&mut pdu, Coverage::of(version, format.checksum, source, destination));
        pdu
    }
}

/// Checks the payload of an IP packet of protocol 112 as RFC 9568 section 7.1 and RFC 3768 section 7.1 ask, and reads it.
///
/// The hop limit has to be 255, except with IPv6 unicast, for which no RFC speaks and keepalived leaves it at 64.
///
/// # Errors
/// The first check that failed, in the order of the variants of [`DropReason`] from `WrongTtl` to `WrongPassword`; and
/// [`DropReason::WrongInterval`] for an interval of VRRPv2 that VRRPv3 cannot say, from 41 s.
pub fn decode<'payload>(
    envelope: &Envelope,
    payload: &'payload [u8],
    format: &Format,
) -> Result<Received<'payload>, DropReason> {
    let Envelope { source, destination, hop_limit } = *envelope;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(DropReason::WrongIpVersion);
    }
    if hop_limit != TTL && (source.is_ipv4() || destination.is_multicast()) {
        return Err(DropReason::WrongTtl);
    }
    let fixed = payload.first_chunk::<FIXED_LEN>().ok_or(DropReason::Short)?;
    let [version_and_type, id, priority, count, ..] = *fixed;
    let version = match version_and_type >> 4 {
        2 if source.is_ipv4() => Version::V2,
        3 => Version::V3,
        _ => return Err(DropReason::WrongVersion),
    };
    if version_and_type & 0x0f != TYPE_ADVERTISEMENT {
        return Err(DropReason::WrongType);
    }
    let virtual_router_id = VirtualRouterId::new(id).ok_or(DropReason::ZeroRouterId)?;
    let layout = Layout::of(version, source, count)?;
    let (pdu, trailer) = layout.split(payload)?;
    let interval = decode_interval(version, fixed)?;
    let coverage = Coverage::of(version, format.checksum, source, destination);
    // Over IPv6 the checksum covers the trailer, see `append_trailer`; one that does not is as good against damage.
    let over_all = source.is_ipv6() && checksum::is_right(payload, coverage);
    if !over_all && !checksum::is_right(pdu, coverage) {
        return Err(DropReason::WrongChecksum);
    }
    if version == Version::V2 {
        check_password(fixed, pdu, format)?;
    }
    let addresses = layout.addresses(pdu);
    let advert = Advert { version, virtual_router_id, priority, interval, addresses };
    Ok(Received { envelope: *envelope, advert, pdu, trailer })
}

/// How long the parts of an advert are.
struct Layout {
    address_len: usize,
    addresses_len: usize,
    password_len: usize,
}

impl Layout {
    fn of(version: Version, source: IpAddr, count: u8) -> Result<Self, DropReason> {
        if count == 0 {
            return Err(DropReason::NoAddresses);
        }
        let address_len = if source.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
        let password_len = if version == Version::V2 { PASSWORD_LEN } else { 0 };
        Ok(Self { address_len, addresses_len: usize::from(count) * address_len, password_len })
    }

    fn split<'payload>(
        &self,
        payload: &'payload [u8],
    ) -> Result<(&'payload [u8], Option<&'payload [u8; TRAILER_LEN]>), DropReason> {
        let pdu_len = FIXED_LEN + self.addresses_len + self.password_len;
        let (pdu, rest) = payload.split_at_checked(pdu_len).ok_or(DropReason::MissingAddresses)?;
        match rest.first_chunk::<TRAILER_LEN>() {
            _ if rest.is_empty() => Ok((pdu, None)),
            Some(trailer) if rest.len() == TRAILER_LEN => Ok((pdu, Some(trailer))),
            _ => Err(DropReason::TrailingBytes),
        }
    }

    fn addresses(&self, pdu: &[u8]) -> Vec<IpAddr> {
        let bytes = pdu.get(FIXED_LEN..FIXED_LEN + self.addresses_len).unwrap_or_default();
        if self.address_len == IPV4_LEN {
            let (addresses, _) = bytes.as_chunks::<IPV4_LEN>();
            addresses.iter().map(|octets| Ipv4Addr::from(*octets).into()).collect()
        } else {
            let (addresses, _) = bytes.as_chunks::<IPV6_LEN>();
            addresses.iter().map(|octets| Ipv6Addr::from(*octets).into()).collect()
        }
    }
}

fn decode_interval(version: Version, fixed: &[u8; FIXED_LEN]) -> Result<AdvertInterval, DropReason> {
    let [.., high, low, _, _] = *fixed;
    let interval = match version {
        Version::V2 => Duration::from_secs(u64::from(low)),
        // The four bits above the interval are reserved and ignored (RFC 9568 section 5.2.6).
        Version::V3 => Duration::from_millis(u64::from(u16::from_be_bytes([high & 0x0f, low])) * CENTISECOND_MS),
    };
    if interval.is_zero() {
        return Err(DropReason::ZeroInterval);
    }
    AdvertInterval::new(interval).ok_or(DropReason::WrongInterval)
}

fn check_password(fixed: &[u8; FIXED_LEN], pdu: &[u8], format: &Format) -> Result<(), DropReason> {
    let [_, _, _, _, theirs, ..] = *fixed;
    if theirs != auth_type(format) {
        return Err(DropReason::WrongAuthType);
    }
    // Without a password the data is to be ignored (RFC 3768 section 5.3.10).
    let Some(ours) = format.password else { return Ok(()) };
    let theirs = pdu.last_chunk::<PASSWORD_LEN>().ok_or(DropReason::Short)?;
    verify_slices_are_equal(theirs, &ours).map_err(|_| DropReason::WrongPassword)
}

fn auth_type(format: &Format) -> u8 {
    if format.password.is_some() { AUTH_TYPE_PASSWORD } else { AUTH_TYPE_NONE }
}

/// The interval in the unit of VRRPv3, 1 to 4095.
fn centiseconds(interval: AdvertInterval) -> u16 {
    (interval.get().as_millis() / u128::from(CENTISECOND_MS)) as u16
}

/// The interval in the unit of VRRPv2, 1 to 41, rounded up.
pub(super) fn whole_seconds(interval: AdvertInterval) -> u8 {
    interval.get().as_millis().div_ceil(1000) as u8
}
