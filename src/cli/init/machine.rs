//! This machine: its interfaces and their addresses, its name, and what they suggest.

use std::fs;
use std::net::IpAddr;

use pnet::datalink::{self, NetworkInterface};
use pnet::util::MacAddr;

use super::finding::Finding;
use crate::units::IpNetwork;

/// Where the kernel shows the routes of IPv4.
const ROUTES: &str = "/proc/self/net/route";

/// An interface that carries a virtual address.
#[derive(Debug, Clone)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) hardware: Option<MacAddr>,
    pub(super) has_carrier: bool,
    pub(super) networks: Vec<IpNetwork>,
}

/// What there is, as it was at the start.
#[derive(Debug)]
pub(super) struct Machine {
    interfaces: Vec<NetworkInterface>,
    default_route: Option<String>,
    full_name: String,
    /// Up to its first dot, as nodes are called.
    pub(super) host_name: String,
}

impl Machine {
    pub(super) fn look() -> Self {
        let full_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            interfaces: datalink::interfaces(),
            default_route: fs::read_to_string(ROUTES).ok().and_then(|routes| default_route(&routes)),
            host_name: full_name.split('.').next().unwrap_or_default().to_owned(),
            full_name,
        }
    }

    /// Which interface is meant most likely: that of the default route, else the first one that others can be reached by.
    pub(super) fn usual_interface(&self) -> Option<String> {
        let is_usable =
            |interface: &&NetworkInterface| !interface.is_loopback() && own_address(&networks(interface)).is_some();
        let usable = || self.interfaces.iter().filter(is_usable);
        let first = usable().find(|interface| interface.is_lower_up()).or_else(|| usable().next());
        self.default_route.clone().or_else(|| first.map(|interface| interface.name.clone()))
    }

    /// This node, as its host name and the interface's first address suggest.
    pub(super) fn usual_node(&self, interface: &Interface) -> Option<String> {
        own_address(&interface.networks).map(|address| format!("{}={address}", self.host_name))
    }

    /// Whether its host name says that it is this node.
    pub(super) fn is_called(&self, node: &str) -> bool {
        [&self.full_name, &self.host_name].into_iter().any(|name| name.eq_ignore_ascii_case(node))
    }

    /// The interface that carries an address, if one does.
    pub(super) fn carrier_of(&self, address: IpAddr) -> Option<&str> {
        let carries = |interface: &&NetworkInterface| interface.ips.iter().any(|network| network.ip() == address);
        self.interfaces.iter().find(carries).map(|interface| interface.name.as_str())
    }

    /// Whether the interface can carry a virtual address.
    pub(super) fn check_interface(&self, name: &str, said: &mut Vec<Finding>) -> Result<Interface, Finding> {
        let Some(found) = self.interfaces.iter().find(|interface| interface.name == name) else {
            let names: Vec<&str> = self.interfaces.iter().map(|interface| interface.name.as_str()).collect();
            let what = format!("this machine has no interface {name}");
            return Err(Finding::error(what, format!("it has {}", names.join(", "))));
        };
        let networks = networks(found);
        if networks.is_empty() {
            let what = format!("{name} has no address");
            return Err(Finding::error(what, "give it the node's own address first, or choose another interface"));
        }
        let addresses: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        let has_carrier = found.is_up() && found.is_lower_up();
        said.push(match (found.is_up(), found.is_lower_up()) {
            (true, true) => Finding::ok(format!("{name} is up, has a carrier and {addresses}")),
            (true, false) => Finding::warning(
                format!("{name} has {addresses} and no carrier"),
                "look after its cable or its switch; what is asked of the network is not checked",
            ),
            (false, _) => Finding::warning(
                format!("{name} has {addresses} and is down"),
                format!("ip link set {name} up; what is asked of the network is not checked"),
            ),
        });
        let (name, index) = (found.name.clone(), found.index);
        Ok(Interface { name, index, hardware: found.mac, has_carrier, networks })
    }
}

fn networks(interface: &NetworkInterface) -> Vec<IpNetwork> {
    interface.ips.iter().filter_map(|network| IpNetwork::new(network.ip(), network.prefix())).collect()
}

/// The address that a node is most likely called by: IPv4 before IPv6, and none that means something on one link alone.
fn own_address(networks: &[IpNetwork]) -> Option<IpAddr> {
    let mut addresses: Vec<IpAddr> = networks.iter().map(|network| network.address()).collect();
    addresses.retain(|address| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    });
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.first().copied()
}

/// The interface of the default route with the lowest metric.
fn default_route(routes: &str) -> Option<String> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[interface, "00000000", _, _, _, _, metric, "00000000", ..] = fields.as_slice() else { return None };
        Some((metric.parse::<u32>().ok()?, interface.to_owned()))
    };
    routes.lines().filter_map(route).min().map(|(_, interface)| interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth1\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

    #[test]
    fn the_default_route_with_the_lowest_metric_counts() {
        assert_eq!(default_route(ROUTES).as_deref(), Some("eth1"));
        assert_eq!(default_route("Iface\tDestination\neth0\t0000000A\t0\t1\t0\t0\t0\t00FFFFFF\t0\n"), None);
        assert_eq!(default_route(""), None);
    }

    #[test]
    fn a_node_is_called_by_an_address_that_others_can_use() {
        let networks = |texts: &[&str]| -> Vec<IpNetwork> {
            let network = |text: &&str| {
                let (address, prefix_len) = text.split_once('/').unwrap();
                IpNetwork::new(address.parse::<IpAddr>().unwrap(), prefix_len.parse().unwrap()).unwrap()
            };
            texts.iter().map(network).collect()
        };
        let own = |texts: &[&str]| own_address(&networks(texts)).map(|address| address.to_string());
        assert_eq!(
            own(&["fe80::1/64", "2001:db8::1/64", "169.254.0.1/16", "192.0.2.11/24"]).as_deref(),
            Some("192.0.2.11")
        );
        assert_eq!(own(&["fe80::1/64", "2001:db8::1/64"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(own(&["fe80::1/64"]), None);
    }
}
