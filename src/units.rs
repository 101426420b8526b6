//! Values that are valid once they exist: each can only be built through a constructor that checks its range.

pub mod networks;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Identifies a virtual router on a link, 1 to 255 (RFC 9568 section 5.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualRouterId(u8);

impl VirtualRouterId {
    /// `None` for 0, which RFC 9568 does not allow.
    pub const fn new(id: u8) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The number on the wire.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for VirtualRouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who wins when two nodes claim a VIP, 1 to 254; higher wins (RFC 9568 section 5.2.4).
///
/// 0 (I resign) and 255 (I own the address) are values of the wire, not of a configured node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Priority(u8);

impl Priority {
    /// `None` for 0 and 255.
    pub const fn new(priority: u8) -> Option<Self> {
        if priority == 0 || priority == 255 { None } else { Some(Self(priority)) }
    }

    /// The number on the wire.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Time between two adverts: 10 ms to 40.95 s in steps of 10 ms, the unit of the wire (RFC 9568 section 5.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdvertInterval(Duration);

impl AdvertInterval {
    /// The shortest interval that the wire can say.
    pub const MIN: Duration = Duration::from_millis(10);
    /// The longest interval that the wire can say (12 bits of centiseconds).
    pub const MAX: Duration = Duration::from_millis(40_950);

    /// `None` outside the range or between two steps.
    pub fn new(interval: Duration) -> Option<Self> {
        let in_range = (Self::MIN..=Self::MAX).contains(&interval);
        let on_a_step = interval.as_nanos().is_multiple_of(Self::MIN.as_nanos());
        (in_range && on_a_step).then_some(Self(interval))
    }

    /// The interval as a duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// An address with the length of its network's prefix, as `192.0.2.100/24` or `2001:db8::100/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpNetwork {
    address: IpAddr,
    prefix_len: u8,
}

impl IpNetwork {
    /// `None` when `prefix_len` is over 32 for IPv4, over 128 for IPv6.
    pub fn new(address: impl Into<IpAddr>, prefix_len: u8) -> Option<Self> {
        let address = address.into();
        let prefix_len_max = if address.is_ipv4() { 32 } else { 128 };
        (prefix_len <= prefix_len_max).then_some(Self { address, prefix_len })
    }

    /// The address itself, host bits included.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// The first address of the network.
    pub fn first_address(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !self.rest_v4()).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !self.rest_v6()).into(),
        }
    }

    /// The last address of the network.
    pub fn last_address(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | self.rest_v4()).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | self.rest_v6()).into(),
        }
    }

    fn rest_v4(self) -> u32 {
        u32::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0)
    }

    fn rest_v6(self) -> u128 {
        u128::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0)
    }

    /// The length of the prefix in bits.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Whether an address is of this network. One of IPv4 in IPv6 form (`::ffff:192.0.2.1`) is one of IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix_len)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix_len)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn router_id_zero_cannot_be_built() {
        assert_eq!(VirtualRouterId::new(0), None);
        assert_eq!(VirtualRouterId::new(1).map(VirtualRouterId::get), Some(1));
        assert_eq!(VirtualRouterId::new(255).map(VirtualRouterId::get), Some(255));
    }

    #[test]
    fn priorities_of_the_wire_alone_cannot_be_built() {
        assert_eq!(Priority::new(0), None);
        assert_eq!(Priority::new(1).map(Priority::get), Some(1));
        assert_eq!(Priority::new(254).map(Priority::get), Some(254));
        assert_eq!(Priority::new(255), None);
    }

    #[test]
    fn advert_interval_is_ten_milliseconds_to_forty_seconds_in_steps_of_ten() {
        let built = |ms| AdvertInterval::new(Duration::from_millis(ms)).is_some();
        assert!(!built(0));
        assert!(!built(9));
        assert!(built(10));
        assert!(!built(11));
        assert!(built(100));
        assert!(built(40_950));
        assert!(!built(40_960));
    }

    #[test]
    fn a_network_contains_the_addresses_of_its_prefix() {
        let contains = |network: &str, prefix_len, address: &str| {
            let network = IpNetwork::new(network.parse::<IpAddr>().unwrap(), prefix_len).unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0", 8, "10.255.0.1"));
        assert!(!contains("10.0.0.0", 8, "11.0.0.0"));
        assert!(contains("192.0.2.7", 32, "192.0.2.7"));
        assert!(!contains("192.0.2.7", 32, "192.0.2.6"));
        assert!(contains("0.0.0.0", 0, "255.255.255.255"));
        assert!(!contains("0.0.0.0", 0, "2001:db8::1"));
        assert!(contains("10.0.0.0", 8, "::ffff:10.1.2.3"));
        assert!(contains("2001:db8::", 32, "2001:db8:ffff::1"));
        assert!(!contains("2001:db8::", 33, "2001:db8:8000::1"));
        assert!(contains("::", 0, "2001:db8::1"));
    }

    #[test]
    fn prefix_length_ends_at_32_and_128() {
        let v4 = Ipv4Addr::new(192, 0, 2, 100);
        assert_eq!(IpNetwork::new(v4, 24).map(|n| n.to_string()), Some("192.0.2.100/24".to_owned()));
        assert!(IpNetwork::new(v4, 32).is_some());
        assert!(IpNetwork::new(v4, 33).is_none());
        let v6: Ipv6Addr = "2001:db8::100".parse().unwrap();
        assert_eq!(IpNetwork::new(v6, 64).map(|n| n.to_string()), Some("2001:db8::100/64".to_owned()));
        assert!(IpNetwork::new(v6, 128).is_some());
        assert!(IpNetwork::new(v6, 129).is_none());
    }
}
