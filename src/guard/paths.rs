//! The paths of a VIP: the ways over which its adverts are sent and heard. A VIP changes hands only when every one of
//! them is silent.
//!
//! VRRP over IPv4 and over IPv6, one each at most, on the VIP's own interface; and, with a pair key, the links of the
//! pair, one for each pair of node addresses, which all VIPs share. Worked out here from the configuration, opened by
//! [`super::speaker`].

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::{Config, LocalNode, Node, Transport, Vip};
use crate::net::vrrp_socket::{Destination, Spec};
use crate::vrrp::packet::{Expected, ExpectedSource, MULTICAST_GROUP, MULTICAST_GROUP_V6, Versions};

/// A way for VRRP adverts of one family.
#[derive(Debug, Clone)]
pub struct VrrpPath {
    /// What its socket is opened with.
    pub spec: Spec,
    /// The peer's address; `None` for any link-local one, as over IPv6 multicast.
    pub peer: Option<IpAddr>,
    /// The virtual addresses of the family, which its adverts list.
    pub addresses: Vec<IpAddr>,
}

/// A link between two addresses of the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkPath {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
}

impl VrrpPath {
    /// Its name in status and logs: `vrrp ipv4 on eth0`.
    pub fn name(&self) -> String {
        format!("vrrp {} on {}", if self.is_ipv4() { "ipv4" } else { "ipv6" }, self.spec.interface)
    }

    /// Whether it carries the IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.addresses.first().is_some_and(IpAddr::is_ipv4)
    }

    /// What an advert on it has to be, given the address that its socket sends from.
    pub fn expected(&self, vip: &Vip, local: IpAddr) -> Expected {
        let group = if self.is_ipv4() { IpAddr::V4(MULTICAST_GROUP) } else { IpAddr::V6(MULTICAST_GROUP_V6) };
        Expected {
            virtual_router_id: vip.virtual_router_id,
            local,
            peer: self.peer.map_or(ExpectedSource::AnyLinkLocal, ExpectedSource::Exactly),
            destination: if self.spec.destination == Destination::Group { group } else { local },
            addresses: self.addresses.clone(),
            versions: versions(vip, self.is_ipv4()),
            interval: vip.advert_interval,
        }
    }

    /// Where its adverts go, for the checksum; `None` when they go nowhere.
    pub fn destination(&self) -> Option<IpAddr> {
        match self.spec.destination {
            Destination::Peer(address) => Some(address),
            Destination::Group if self.is_ipv4() => Some(IpAddr::V4(MULTICAST_GROUP)),
            Destination::Group => Some(IpAddr::V6(MULTICAST_GROUP_V6)),
            Destination::Nowhere => None,
        }
    }
}

impl LinkPath {
    /// Its name in status and logs: `link 192.0.2.11 - 192.0.2.12`.
    pub fn name(&self) -> String {
        format!("link {} - {}", self.local.ip(), self.peer.ip())
    }
}

/// The versions that are spoken over a family: VRRPv2 knows IPv4 alone (RFC 3768 section 1.2).
pub fn versions(vip: &Vip, is_ipv4: bool) -> Versions {
    match vip.version {
        crate::config::VrrpVersion::V2 if is_ipv4 => Versions::V2,
        crate::config::VrrpVersion::Mixed if is_ipv4 => Versions::Mixed,
        _ => Versions::V3,
    }
}

/// The links of the pair: none without a pair key or a peer.
pub fn links(config: &Config, local: &LocalNode) -> Vec<LinkPath> {
    let Some((own, Some(peer))) = config.local_and_peer(local) else { return Vec::new() };
    if config.pair.key_file.is_none() {
        return Vec::new();
    }
    let end = |address| SocketAddr::new(address, config.pair.sync_port);
    let ends = own.all_addresses().zip(peer.all_addresses());
    ends.map(|(own, peer)| LinkPath { local: end(own), peer: end(peer) }).collect()
}

/// The VRRP paths of a VIP, IPv4 first.
pub fn vrrp(config: &Config, local: &LocalNode, vip: &Vip) -> Vec<VrrpPath> {
    let Some((own, peer)) = config.local_and_peer(local) else { return Vec::new() };
    let of_family = |is_ipv4| {
        let path = vrrp_of_family(vip, own, peer, is_ipv4)?;
        // Those of the other VIPs too, which an earlier life of this node may have left on the interface.
        let virtual_addresses = config.vips.iter().flat_map(|vip| &vip.addresses).map(|at| at.network.address());
        Some(VrrpPath { spec: Spec { never_local: virtual_addresses.collect(), ..path.spec }, ..path })
    };
    [true, false].into_iter().filter_map(of_family).collect()
}

fn vrrp_of_family(vip: &Vip, own: &Node, peer: Option<&Node>, is_ipv4: bool) -> Option<VrrpPath> {
    let virtual_addresses: Vec<IpAddr> =
        vip.addresses.iter().map(|at| at.network.address()).filter(|address| address.is_ipv4() == is_ipv4).collect();
    if virtual_addresses.is_empty() {
        return None;
    }
    let ends =
        peer.and_then(|peer| own.all_addresses().zip(peer.all_addresses()).find(|(own, _)| own.is_ipv4() == is_ipv4));
    let own_address = ends.map(|(own, _)| own).or_else(|| own.all_addresses().find(|own| own.is_ipv4() == is_ipv4));
    let (local, peer, destination) = match (vip.transport, ends) {
        (Transport::Udp, _) => return None,
        // Sent from the interface's link-local address (RFC 9568 section 5.1.2.1), which the socket finds.
        (Transport::Multicast, _) if !is_ipv4 => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), None, Destination::Group),
        (Transport::Multicast, Some((own, peer))) => (own, Some(peer), Destination::Group),
        (Transport::Multicast, None) => (own_address?, own_address, Destination::Group),
        (Transport::Unicast, Some((own, peer))) => (own, Some(peer), Destination::Peer(peer)),
        (Transport::Unicast, None) => (own_address?, own_address, Destination::Nowhere),
    };
    let spec = Spec { interface: vip.advert_interface.clone(), local, destination, never_local: Vec::new() };
    Some(VrrpPath { spec, peer, addresses: virtual_addresses })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, NodeHints, Scope};

    const TWO_VIPS: &str = r#"
        [[node]]
        name = "lb-a"
        address = "fd00::11"
        [[node]]
        name = "lb-b"
        address = "fd00::12"
        [[vip]]
        name = "one"
        addresses = ["fe80::1:1/64"]
        interface = "eth0"
        virtual_router_id = 1
        transport = "multicast"
        [[vip]]
        name = "two"
        addresses = ["fe80::1:2/64"]
        interface = "eth0"
        virtual_router_id = 2
        transport = "multicast"
    "#;

    #[test]
    fn adverts_come_from_no_address_of_any_vip() {
        let hints = NodeHints { flag: Some("lb-a"), environment: None, host_name: "" };
        let (config, local) =
            config::parse_for_node(TWO_VIPS, Path::new("baton.toml"), Scope::File, hints).expect("a configuration");
        let paths = vrrp(&config, &local, config.vips.first().expect("a vip"));
        let never_local: Vec<String> =
            paths.iter().flat_map(|path| &path.spec.never_local).map(ToString::to_string).collect();
        assert_eq!(never_local, ["fe80::1:1", "fe80::1:2"]);
    }
}
