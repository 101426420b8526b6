//! Answers, read and judged: by their own rules, by what this machine has, then by what the network says.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::finding::Finding;
use super::machine::{Interface, Machine};
use super::network;
use crate::config;
use crate::net::listen;
use crate::net::sysctl::is_without_ipv6;
use crate::units::IpNetwork;

/// The number that is suggested, as keepalived's examples have it.
const USUAL_ROUTER_ID: u8 = 51;

/// The port of the link between both nodes, as the configuration has it by default.
const SYNC_PORT: u16 = 7947;

/// What is said where the network could not be asked for want of a right.
const NEEDS_RAW: &str = "asking the network needs CAP_NET_RAW; run it as root";

/// One of the two machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) address: IpAddr,
}

/// A server behind the pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) address: SocketAddr,
}

/// This machine as a node.
pub(super) fn this_node(text: &str, machine: &Machine, said: &mut Vec<Finding>) -> Result<Node, Finding> {
    let node = node(text, Some(&machine.host_name))?;
    let Some(interface) = machine.carrier_of(node.address) else {
        let what = format!("{} is on no interface of this machine", node.address);
        return Err(Finding::error(what, "write an address of this node that the other one reaches it at"));
    };
    if machine.is_called(&node.name) {
        said.push(Finding::ok(format!("this machine is {}, with {} on {interface}", node.name, node.address)));
    } else {
        said.push(Finding::warning(
            format!("this machine's host name is {}, not {}", machine.host_name, node.name),
            format!("write BATON_NODE={} to /etc/default/baton (RPM: /etc/sysconfig/baton)", node.name),
        ));
    }
    Ok(node)
}

/// The other machine.
pub(super) fn other_node(
    text: &str,
    own: Option<&Node>,
    machine: &Machine,
    said: &mut Vec<Finding>,
) -> Result<Node, Finding> {
    let guess = own.and_then(|own| sibling(&own.name));
    let peer = node(text, guess.as_deref())?;
    if let Some(interface) = machine.carrier_of(peer.address) {
        let what = format!("{} is an address of this machine, on {interface}", peer.address);
        return Err(Finding::error(what, "write the other machine's address"));
    }
    if let Some(own) = own {
        if own.name.eq_ignore_ascii_case(&peer.name) {
            let what = format!("both nodes would be called {}", own.name);
            return Err(Finding::error(what, "write the other machine's host name before the ="));
        }
        if own.address.is_ipv4() != peer.address.is_ipv4() {
            let what = format!("{} and {} are of different families", own.address, peer.address);
            return Err(Finding::error(
                what,
                "give both nodes an address of one family: the heartbeat runs between them",
            ));
        }
    }
    said.push(match network::reach(SocketAddr::new(peer.address, SYNC_PORT)) {
        // Nothing runs there yet, and its kernel has said so.
        Ok(()) => Finding::ok(format!("{} answers at {}", peer.name, peer.address)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Finding::ok(format!("{} answers at {}", peer.name, peer.address))
        }
        Err(error) => Finding::warning(
            format!("{} does not answer at {} ({error})", peer.name, peer.address),
            format!(
                "it may be off; else let port {SYNC_PORT} (TCP and UDP) and IP protocol 112 through between the nodes"
            ),
        ),
    });
    Ok(peer)
}

fn node(text: &str, usual_name: Option<&str>) -> Result<Node, Finding> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (name.trim(), address.trim()),
        None => match usual_name {
            Some(name) => (name, text),
            None => {
                return Err(Finding::error(
                    format!("{text} has no name"),
                    "write NAME=ADDRESS, such as lb-b=192.0.2.12",
                ));
            }
        },
    };
    config::check_name(name).map_err(|(rule, remedy)| Finding::error(format!("{name} as a name {rule}"), remedy))?;
    let Ok(address) = address.parse::<IpAddr>() else {
        let what = format!("{address} is no IPv4 or IPv6 address");
        return Err(Finding::error(what, "write NAME=ADDRESS, such as lb-b=192.0.2.12"));
    };
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_link_local {
        let what = format!("{address} is no address that the other node reaches it at");
        return Err(Finding::error(what, "write the address that the machine has in its network"));
    }
    Ok(Node { name: name.to_owned(), address })
}

/// What the other node is called where names go by letter or number: `lb-b` beside `lb-a`, `proxy2` beside `proxy1`.
fn sibling(name: &str) -> Option<String> {
    let last = match name.chars().next_back()? {
        'a' => 'b',
        'b' => 'a',
        '1' => '2',
        '2' => '1',
        _ => return None,
    };
    let stem = &name.get(..name.len() - 1)?;
    let ends_a_word = |c: char| !c.is_ascii_alphabetic() || last.is_ascii_digit();
    stem.chars().next_back().is_some_and(ends_a_word).then(|| format!("{stem}{last}"))
}

/// The virtual addresses.
pub(super) fn vips(
    text: &str,
    interface: &Interface,
    nodes: &[Node],
    machine: &Machine,
    said: &mut Vec<Finding>,
) -> Result<Vec<IpNetwork>, Finding> {
    let mut vips: Vec<IpNetwork> = Vec::new();
    for word in words(text) {
        let vip = vip(word, interface)?;
        let address = vip.address();
        if let Some(node) = nodes.iter().find(|node| node.address == address) {
            let what = format!("{address} is the own address of {}", node.name);
            return Err(Finding::error(what, "choose a free address: a virtual one moves between the nodes"));
        }
        if let Some(interface) = machine.carrier_of(address) {
            let what = format!("{address} is on {interface} of this machine");
            return Err(Finding::error(
                what,
                "take it off there first, Baton puts it on itself; or choose a free address",
            ));
        }
        if vips.iter().any(|other| other.address() == address) {
            return Err(Finding::error(format!("{address} is there twice"), "write it once"));
        }
        vips.push(vip);
    }
    if vips.is_empty() {
        return Err(Finding::error("there is no address", "write one such as 192.0.2.100/24"));
    }
    are_free(&vips, interface, said)?;
    Ok(vips)
}

/// One virtual address; without a prefix length it gets that of the interface's network.
fn vip(text: &str, interface: &Interface) -> Result<IpNetwork, Finding> {
    let whole = match text.parse::<IpAddr>() {
        Ok(address) => match network_of(interface, address) {
            Some(network) => format!("{address}/{}", network.prefix_len()),
            None => text.to_owned(),
        },
        Err(_) => text.to_owned(),
    };
    let parsed = config::parse_vip_address(&whole);
    // Of an address without prefix the network is what is missing, which is said below.
    let vip = match (parsed, text.parse::<IpAddr>()) {
        (Ok(vip), _) => vip,
        (Err(_), Ok(address)) => return Err(outside(address, interface)),
        (Err((rule, remedy)), Err(_)) => return Err(Finding::error(format!("{text} {rule}"), remedy)),
    };
    let address = vip.address();
    if address.is_ipv6() && is_without_ipv6(&interface.name) {
        let what = format!("IPv6 is off on {}, so that it cannot carry {address}", interface.name);
        let remedy =
            format!("sysctl net.ipv6.conf.{}.disable_ipv6=0 on both nodes, or take an IPv4 address", interface.name);
        return Err(Finding::error(what, remedy));
    }
    let Some(network) = network_of(interface, address) else { return Err(outside(address, interface)) };
    let is_point_to_point = network.prefix_len() + 1 >= if address.is_ipv4() { 32 } else { 128 };
    let is_network = address == network.first_address();
    let is_broadcast = address.is_ipv4() && address == network.last_address();
    if !is_point_to_point && (is_network || is_broadcast) {
        let kind = if is_network { "the network itself" } else { "the broadcast address" };
        let what = format!("{address} is {kind} of {network} on {}", interface.name);
        return Err(Finding::error(what, "choose a free address of one machine"));
    }
    if let Err(subnet) = config::has_prefix_of(vip, interface.networks.iter().copied()) {
        let (own, reached) = (config::subnet_text(subnet), config::subnet_text(vip));
        let name = &interface.name;
        let what =
            format!("{vip} is of {own} on {name}, and whoever holds it would look for all of {reached} on {name}");
        return Err(Finding::error(what, format!("write {address}/{}", subnet.prefix_len())));
    }
    Ok(vip)
}

fn network_of(interface: &Interface, address: IpAddr) -> Option<IpNetwork> {
    interface.networks.iter().find(|network| network.contains(address)).copied()
}

fn outside(address: IpAddr, interface: &Interface) -> Finding {
    let networks: Vec<String> = interface
        .networks
        .iter()
        .map(|network| format!("{}/{}", network.first_address(), network.prefix_len()))
        .collect();
    let what = format!("{address} is in no subnet of {}, which has {}", interface.name, networks.join(", "));
    Finding::error(what, "choose an address of that subnet, or the interface that has its subnet")
}

/// Asks the link whether somebody has one of the addresses.
fn are_free(vips: &[IpNetwork], interface: &Interface, said: &mut Vec<Finding>) -> Result<(), Finding> {
    let hardware = match interface.hardware {
        Some(hardware) if interface.has_carrier => hardware,
        _ => {
            let what =
                format!("whether anybody holds an address is not checked: {} carries nothing now", interface.name);
            said.push(Finding::warning(what, "run it again when it does"));
            return Ok(());
        }
    };
    for (vip, holder) in vips.iter().zip(network::holders(interface.index, hardware, vips)) {
        let address = vip.address();
        said.push(match holder {
            Ok(None) => Finding::ok(format!("{address} is free: nobody on {} answers for it", interface.name)),
            Ok(Some(holder)) => {
                let what =
                    format!("{address} is in use: the machine with the hardware address {holder} answers for it");
                return Err(Finding::error(what, "choose a free address, or take it from that machine first"));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Finding::warning(format!("whether {address} is free is not checked"), NEEDS_RAW)
            }
            Err(error) => Finding::warning(
                format!("whether {address} is free is not known ({error})"),
                format!("make sure that nobody on {} has it", interface.name),
            ),
        });
    }
    Ok(())
}

/// The servers; those without a name are called app1, app2 and so on.
pub(super) fn servers(
    text: &str,
    interface: &Interface,
    nodes: &[Node],
    vips: &[IpNetwork],
    said: &mut Vec<Finding>,
) -> Result<Vec<Server>, Finding> {
    let mut servers: Vec<Server> = Vec::new();
    for (index, word) in words(text).enumerate() {
        let (name, address) = match word.split_once('=') {
            Some((name, address)) => (name.to_owned(), address),
            None => (format!("app{}", index + 1), word),
        };
        config::check_name(&name)
            .map_err(|(rule, remedy)| Finding::error(format!("{name} as a name {rule}"), remedy))?;
        let address = address.parse::<SocketAddr>().ok().filter(|at| at.port() != 0 && !at.ip().is_unspecified());
        let Some(address) = address else {
            let remedy = "write ADDRESS:PORT or NAME=ADDRESS:PORT, such as 10.0.0.1:8080 or app1=[2001:db8::1]:8080";
            return Err(Finding::error(format!("{word} is no address with a port"), remedy));
        };
        is_of_a_machine(address, interface, vips)?;
        if servers.iter().any(|server| server.name == name || server.address == address) {
            return Err(Finding::error(
                format!("{word} is there twice"),
                "write each server once, each with a name of its own",
            ));
        }
        servers.push(Server { name, address });
    }
    if servers.is_empty() {
        return Err(Finding::error("there is no server", "write one such as 10.0.0.1:8080"));
    }
    for (server, node) in servers.iter().filter_map(|server| Some((server, node_at(server.address, nodes)?))) {
        said.push(Finding::warning(
            format!("server {} at {} is on {}, a node of the pair itself", server.name, server.address, node.name),
            "it goes down with the node; write the address of another machine if you meant one",
        ));
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    for (server, reached) in servers.iter().zip(network::reach_all(&addresses)) {
        said.push(match reached {
            Ok(()) => Finding::ok(format!("server {} answers at {}", server.name, server.address)),
            Err(error) => Finding::warning(
                format!("server {} does not answer at {} ({error})", server.name, server.address),
                "it gets no requests until it does",
            ),
        });
    }
    Ok(servers)
}

/// Makes sure that an address is not where clients connect to, and that one machine has it.
fn is_of_a_machine(address: SocketAddr, interface: &Interface, vips: &[IpNetwork]) -> Result<(), Finding> {
    let ip = address.ip().to_canonical();
    if vips.iter().any(|vip| vip.address() == ip) {
        let what = format!("{address} is at a virtual address of this pair, which leads back to itself");
        return Err(Finding::error(what, "write an address that the server has of its own"));
    }
    if let Err((rule, remedy)) = config::parse_server_address(&address.to_string()) {
        return Err(Finding::error(format!("{address} {rule}"), remedy));
    }
    let nobodys = interface.networks.iter().find_map(|network| Some((config::nobodys(ip, *network)?, *network)));
    match nobodys {
        None => Ok(()),
        Some((what, network)) => {
            let subnet = config::subnet_text(network);
            let what = format!("{address} is at {what} of {subnet} on {}", interface.name);
            Err(Finding::error(what, "write the address of one machine"))
        }
    }
}

fn node_at(address: SocketAddr, nodes: &[Node]) -> Option<&Node> {
    nodes.iter().find(|node| node.address == address.ip().to_canonical())
}

/// The port of the listener, on each virtual address.
pub(super) fn port(text: &str, vips: &[IpNetwork], said: &mut Vec<Finding>) -> Result<u16, Finding> {
    let Some(port) = text.parse::<u16>().ok().filter(|port| *port != 0) else {
        return Err(Finding::error(format!("{text} is no port"), "write a number from 1 to 65535"));
    };
    for address in vips.iter().map(|vip| SocketAddr::new(vip.address(), port)).filter(is_bindable) {
        said.push(match listen::tcp(address, 1) {
            Ok(_) => Finding::ok(format!("port {port} is free on this node for {}", address.ip())),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let what = format!("port {port} is in use on this node by another program");
                return Err(Finding::error(
                    what,
                    format!("`ss -ltnp sport = {port}` names it; end it, or choose another port"),
                ));
            }
            Err(error) => Finding::warning(
                format!("whether port {port} is free for {} is not known ({error})", address.ip()),
                "run it as root, or make sure with `ss -ltn`",
            ),
        });
    }
    Ok(port)
}

/// Whether a listener can have the address: a link-local one would have to name its link.
pub(super) fn is_bindable(address: &SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

/// The number of the virtual router; `heard` are those of others.
pub(super) fn virtual_router(
    given: Option<u8>,
    heard: io::Result<BTreeSet<u8>>,
    said: &mut Vec<Finding>,
) -> Result<u8, Finding> {
    let heard = match heard {
        Ok(heard) => heard,
        Err(error) => {
            let id = given.unwrap_or(USUAL_ROUTER_ID);
            let remedy =
                if error.kind() == io::ErrorKind::PermissionDenied { NEEDS_RAW } else { "look with tcpdump proto 112" };
            let what = format!("whether another virtual router has the id {id} is not checked ({error})");
            said.push(Finding::warning(what, remedy));
            return Ok(id);
        }
    };
    let free = || (USUAL_ROUTER_ID..=255).chain(1..USUAL_ROUTER_ID).find(|id| !heard.contains(id));
    let ids: Vec<String> = heard.iter().map(ToString::to_string).collect();
    match (given, free()) {
        (Some(id), free) if heard.contains(&id) => {
            let remedy = free.map_or_else(|| "none is free".to_owned(), |free| format!("{free} is free"));
            Err(Finding::error(format!("another virtual router on this network has the id {id}"), remedy))
        }
        (Some(id), _) => {
            said.push(Finding::ok(format!("no other virtual router was heard with the id {id}")));
            Ok(id)
        }
        (None, Some(id)) if heard.is_empty() => {
            said.push(Finding::ok(format!("no other virtual router was heard; this one gets the id {id}")));
            Ok(id)
        }
        (None, Some(id)) => {
            said.push(Finding::ok(format!("other virtual routers have the id {}; this one gets {id}", ids.join(", "))));
            Ok(id)
        }
        (None, None) => {
            Err(Finding::error("every id of a virtual router is in use on this network", "choose another interface"))
        }
    }
}

/// Several answers in one line.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', '\t']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests;
