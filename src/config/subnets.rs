//! What addresses of the configuration are in the subnets of this machine.

use std::collections::HashSet;
use std::net::IpAddr;

use super::model::Config;
use crate::units::IpNetwork;

/// An interface's name, and one of its addresses.
pub(super) type Subnet = (String, IpNetwork);

/// The subnets of this machine. What it has because it holds a vip now is none of them.
pub(super) fn of_machine(config: &Config, interfaces: &[pnet::datalink::NetworkInterface]) -> Vec<Subnet> {
    let vips: HashSet<IpAddr> =
        config.vips.iter().flat_map(|vip| &vip.addresses).map(|at| at.network.address()).collect();
    let of_interface = |interface: &pnet::datalink::NetworkInterface| {
        let networks = interface.ips.iter().filter_map(|at| IpNetwork::new(at.ip(), at.prefix()));
        networks.map(|network| (interface.name.clone(), network)).collect::<Vec<Subnet>>()
    };
    interfaces.iter().flat_map(of_interface).filter(|(_, network)| !vips.contains(&network.address())).collect()
}

/// What is odd about vips and servers in these subnets.
pub(super) fn warn(config: &Config, subnets: &[Subnet], warnings: &mut Vec<String>) {
    for vip in &config.vips {
        for at in &vip.addresses {
            let of_interface = subnets.iter().filter(|(interface, _)| *interface == at.interface);
            if let Err(subnet) = has_prefix_of(at.network, of_interface.map(|(_, network)| *network)) {
                let (address, interface) = (at.network.address(), &at.interface);
                let (reached, meant) = (subnet_text(at.network), subnet.prefix_len());
                warnings.push(format!(
                    "vip {} has {}, and its subnet on {interface} is {}: the node that holds it looks for all of {reached} \
                     on {interface}; write {address}/{meant}",
                    vip.name,
                    at.network,
                    subnet_text(subnet)
                ));
            }
        }
    }
    for pool in &config.pools {
        for server in &pool.servers {
            let nobody = subnets.iter().find_map(|(interface, network)| {
                nobodys(server.address.ip(), *network).map(|what| (what, subnet_text(*network), interface))
            });
            if let Some((what, subnet, interface)) = nobody {
                warnings.push(format!(
                    "server {} of pool {} is at {}, {what} of {subnet} on {interface}: write the address of one machine",
                    server.name,
                    pool.name,
                    server.address.ip()
                ));
            }
        }
    }
}

/// Whether a virtual address has the prefix length of a subnet that it is in. One of its own alone, /32 or /128, reaches
/// nobody by itself, and is good in any.
///
/// # Errors
/// The subnet that it is in.
pub fn has_prefix_of(vip: IpNetwork, subnets: impl Iterator<Item = IpNetwork>) -> Result<(), IpNetwork> {
    let address_len = if vip.address().is_ipv4() { 32 } else { 128 };
    let around: Vec<IpNetwork> = subnets.filter(|subnet| subnet.contains(vip.address())).collect();
    let is_good =
        vip.prefix_len() == address_len || around.iter().any(|subnet| subnet.prefix_len() == vip.prefix_len());
    match around.first() {
        Some(subnet) if !is_good => Err(*subnet),
        Some(_) | None => Ok(()),
    }
}

/// What an address is that is no machine's in a subnet; `None` where it may be one's.
pub fn nobodys(address: IpAddr, subnet: IpNetwork) -> Option<&'static str> {
    // A /31 has two usable addresses (RFC 3021), a /32 one.
    if !address.is_ipv4() || subnet.prefix_len() > 30 {
        return None;
    }
    match address {
        _ if address == subnet.first_address() => Some("the network's own address"),
        _ if address == subnet.last_address() => Some("the broadcast address"),
        _ => None,
    }
}

/// A subnet without the bits of one of its machines.
pub fn subnet_text(network: IpNetwork) -> String {
    format!("{}/{}", network.first_address(), network.prefix_len())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::*;

    fn network(text: &str) -> IpNetwork {
        let (address, prefix_len) = text.split_once('/').unwrap();
        IpNetwork::new(address.parse::<IpAddr>().unwrap(), prefix_len.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_vip_has_the_prefix_length_of_its_subnet_or_none_to_speak_of() {
        let subnets = ["10.66.0.11/24", "10.0.0.1/8", "fd00::11/64", "198.51.100.1/31"].map(network);
        let judged = |vip: &str, count: usize| has_prefix_of(network(vip), subnets[..count].iter().copied());
        assert_eq!(judged("10.66.0.100/24", 4), Ok(()));
        assert_eq!(judged("10.66.0.100/32", 1), Ok(()));
        assert_eq!(judged("10.66.0.100/8", 1), Err(subnets[0]));
        assert_eq!(judged("10.66.0.100/25", 1), Err(subnets[0]));
        assert_eq!(judged("10.66.0.100/8", 2), Ok(()), "one of two subnets has it");
        assert_eq!(judged("10.67.0.100/24", 1), Ok(()), "in no subnet");
        assert_eq!(judged("fd00::100/48", 4), Err(subnets[2]));
        assert_eq!(judged("fd00::100/128", 4), Ok(()));
    }

    #[test]
    fn addresses_of_a_subnet_that_are_no_machines_are_known() {
        let subnet = network("10.66.0.11/24");
        let what = |address: &str| nobodys(address.parse().unwrap(), subnet);
        assert_eq!(what("10.66.0.255"), Some("the broadcast address"));
        assert_eq!(what("10.66.0.0"), Some("the network's own address"));
        assert_eq!((what("10.66.0.254"), what("10.66.1.255"), what("fd00::")), (None, None, None));
        let pair = network("198.51.100.0/31");
        assert_eq!(nobodys("198.51.100.1".parse().unwrap(), pair), None, "a network of two");
    }

    #[test]
    fn what_is_odd_is_said_with_a_remedy() {
        let text = "[[node]]\nname = \"a\"\naddress = \"10.66.0.11\"\n[pair]\nkey_file = \"k\"\n[[vip]]\nname = \"web\"\n\
                    addresses = [\"10.66.0.100/8\"]\ninterface = \"eth0\"\nvirtual_router_id = 1\n[[listener]]\nname = \"l\"\n\
                    bind = [\"10.66.0.100:80\"]\npool = \"p\"\n[[pool]]\nname = \"p\"\nservers = [\n\
                    { name = \"one\", address = \"10.66.0.255:80\" }, { name = \"two\", address = \"10.66.0.21:80\" }]\n";
        let config = parse(text, Path::new("x")).unwrap_or_else(|report| panic!("{report}"));
        let warned = |subnets: &[(&str, &str)]| {
            let subnets: Vec<Subnet> = subnets.iter().map(|(name, at)| ((*name).to_owned(), network(at))).collect();
            let mut warnings = Vec::new();
            warn(&config, &subnets, &mut warnings);
            warnings
        };
        assert_eq!(
            warned(&[("lo", "127.0.0.1/8"), ("eth0", "10.66.0.11/24")]),
            [
                "vip web has 10.66.0.100/8, and its subnet on eth0 is 10.66.0.0/24: the node that holds it looks for all of \
                 10.0.0.0/8 on eth0; write 10.66.0.100/24",
                "server one of pool p is at 10.66.0.255, the broadcast address of 10.66.0.0/24 on eth0: write the address of \
                 one machine",
            ]
        );
        assert_eq!(warned(&[("eth0", "10.66.0.11/8")]), [""; 0]);
        assert_eq!(warned(&[("eth1", "10.66.0.11/20")]), [""; 0], "another interface");
    }
}
