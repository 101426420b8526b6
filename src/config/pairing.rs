//! What nodes and vips need of each other: addresses that are told apart, keys, and a path for the heartbeat.
//!
//! As in `cross`, a check says nothing when what it compares could not be read: that is reported already.

use std::net::IpAddr;

use super::blocks::{Blocks, NodeBlock, SubjectBlock, VipBlock};
use super::cross::repeated;
use super::model::{Authentication, Transport};
use super::report::{Mistakes, Place};
use super::values;

/// Runs every check.
pub(super) fn check(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    check_nodes(blocks, mistakes);
    check_witness(blocks, mistakes);
    check_gateways(blocks, mistakes);
    if let (Some(vip), true) = (blocks.vips.first(), blocks.nodes.is_empty()) {
        mistakes.absent(
            &vip.place,
            "a vip needs a [[node]] to hold it, and there is none",
            "add a [[node]] with name and address for each machine of the pair",
        );
    }
    check_router_ids(&blocks.vips, mistakes);
    check_vip_addresses(blocks, mistakes);
    for vip in &blocks.vips {
        check_keys(vip, blocks, mistakes);
        check_path(vip, blocks, mistakes);
    }
}

fn check_nodes(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    for third in blocks.nodes.iter().skip(2) {
        mistakes.block(&third.place, "a pair has at most two nodes", "leave one [[node]] out");
    }
    let addresses = || blocks.nodes.iter().flat_map(NodeBlock::all_addresses);
    for (first, again, _) in repeated(addresses().map(|address| (address.value, &address.place))) {
        mistakes.value(again, format!("{} is the same address", first.key), "write each node's own address");
    }
    for address in addresses().filter(|address| blocks.nodes.len() > 1 && address.value.is_loopback()) {
        mistakes.value(
            &address.place,
            "the other node cannot reach a loopback address",
            "write the address that the other node reaches this one at",
        );
    }
    if let [first, second] = blocks.nodes.as_slice() {
        check_families(first, second, mistakes);
    }
    check_priorities(&blocks.nodes, mistakes);
}

/// The n-th addresses of both nodes talk to each other.
fn check_families(first: &NodeBlock, second: &NodeBlock, mistakes: &Mistakes<'_>) {
    let (counts, places) =
        ((first.further_addresses.len(), second.further_addresses.len()), (&first.place, &second.place));
    if counts.0 != counts.1 {
        let (fewer, place) = if counts.0 < counts.1 { (counts.0, places.0) } else { (counts.1, places.1) };
        mistakes.absent(
            place,
            format!("has {fewer} further_addresses, and the other node {}", counts.0.max(counts.1)),
            "write as many for both nodes: the heartbeat runs between the first ones, the second ones and so on",
        );
    }
    let address = |node: &NodeBlock| node.address.clone();
    let firsts = std::iter::once(address(first)).chain(first.further_addresses.iter().cloned());
    let seconds = std::iter::once(address(second)).chain(second.further_addresses.iter().cloned());
    for (one, other) in firsts.zip(seconds).filter_map(|(one, other)| one.zip(other)) {
        if one.value.is_ipv4() != other.value.is_ipv4() {
            mistakes.value(
                &other.place,
                format!("{} is {}, and this one is not", one.place.key, family(one.value)),
                "give both nodes an address of one family there: the heartbeat runs between the two",
            );
        }
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// A witness has to live where neither node does, or it would go with one of them.
fn check_witness(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let Some(witness) = &blocks.pair.witness else { return };
    if !blocks.pair.key_file.is_there() {
        mistakes.dangling(
            &witness.place,
            "a witness is spoken to with the pair key, and there is no key_file",
            "add key_file = \"/etc/baton/pair.key\", made by `baton keygen`",
        );
    }
    if blocks.nodes.len() < 2 {
        mistakes.dangling(
            &witness.place,
            "a witness decides between two nodes, and there are fewer",
            "leave it out, or add the other [[node]]",
        );
    }
    if let Some(place) = of_the_pair(blocks, witness.value.ip()) {
        mistakes.value(
            &witness.place,
            format!("{} is that address, and a witness has to outlive both nodes", place.key),
            "run `baton witness` on a third machine, and write its address",
        );
    }
}

/// A gateway that is one of the pair would make a node unfit just when the other has died.
fn check_gateways(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    for check in &blocks.fitness {
        let Some(SubjectBlock::Gateway { address: Some(gateway), .. }) = &check.subject else { continue };
        if let Some(place) = of_the_pair(blocks, gateway.value) {
            mistakes.value(
                &gateway.place,
                format!("{} is that address, and a gateway is neither a node nor a vip", place.key),
                "write the address of the router that clients are reached by",
            );
        }
    }
}

/// Where the file says that the address is a node's or a vip's.
fn of_the_pair(blocks: &Blocks, ip: IpAddr) -> Option<&Place> {
    let nodes = blocks.nodes.iter().flat_map(NodeBlock::all_addresses).map(|node| (node.value, &node.place));
    let vips = blocks.vips.iter().flat_map(|vip| &vip.addresses);
    let mut all = nodes.chain(vips.map(|at| (at.network.value.address(), &at.network.place)));
    all.find(|(address, _)| *address == ip).map(|(_, place)| place)
}

/// Equal priorities would leave the choice between two claims to their addresses, which nobody chose for that.
fn check_priorities(nodes: &[NodeBlock], mistakes: &Mistakes<'_>) {
    let [first, second, ..] = nodes else { return };
    let written = second.priority.as_ref().or(first.priority.as_ref());
    let (Some(a), Some(b)) = (effective_priority(first, 0), effective_priority(second, 1)) else { return };
    if let Some(written) = written
        && a == b
    {
        mistakes.value(
            &written.place,
            format!("both nodes have priority {a}"),
            "give the node that should win the higher one; the defaults are 250 and 249",
        );
    }
}

fn effective_priority(node: &NodeBlock, index: u8) -> Option<u8> {
    match &node.priority {
        Some(written) => Some(written.value.get()),
        None => 250_u8.checked_sub(index),
    }
}

/// Two virtual routers of one id on a link would hear each other; with a virtual MAC they would also share one.
fn check_router_ids(vips: &[VipBlock], mistakes: &Mistakes<'_>) {
    let adverts = vips.iter().filter_map(|vip| {
        let id = vip.virtual_router_id.as_ref()?;
        Some(((id.value, vip.advert_interface()?), &id.place))
    });
    let same_link = repeated(adverts);
    for (first, again, (_, interface)) in &same_link {
        mistakes.value(
            again,
            format!("{} is the same on {interface}", first.key),
            "choose a number that no other virtual router on that interface uses",
        );
    }
    let mut macs: Vec<(_, &Place)> = Vec::new();
    for vip in vips.iter().filter(|vip| vip.virtual_mac) {
        let Some(id) = &vip.virtual_router_id else { continue };
        let mut interfaces: Vec<&str> = vip.addresses.iter().filter_map(|at| vip.interface_of(at)).collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        macs.extend(interfaces.into_iter().map(|interface| ((id.value, interface), &id.place)));
    }
    for (first, again, (_, interface)) in repeated(macs.into_iter()) {
        if same_link.iter().all(|(_, known, _)| *known != again) {
            mistakes.value(
                again,
                format!("{} is the same, and both would have one virtual MAC on {interface}", first.key),
                "choose a number that no other virtual router on that interface uses",
            );
        }
    }
}

fn check_vip_addresses(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let addresses = || blocks.vips.iter().flat_map(|vip| vip.addresses.iter().map(move |address| (vip, address)));
    let keys = addresses().map(|(vip, address)| {
        let ip = address.network.value.address();
        // Every link has link-local addresses of its own.
        let link = if values::is_link_local_v6(ip) { vip.interface_of(address) } else { None };
        ((ip, link), &address.network.place)
    });
    for (first, again, _) in repeated(keys) {
        mistakes.value(again, format!("{} is the same address", first.key), "leave one of the two out");
    }
    for (_, address) in addresses() {
        let ip = address.network.value.address();
        let owner = blocks.nodes.iter().flat_map(NodeBlock::all_addresses).find(|node| node.value == ip);
        if let Some(owner) = owner {
            mistakes.value(
                &address.network.place,
                format!("{} is that address, and a vip must be nobody's own", owner.place.key),
                "choose a free address of the network",
            );
        }
    }
}

/// Authentication needs something to authenticate with.
fn check_keys(vip: &VipBlock, blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let has_key = blocks.pair.key_file.is_there() || blocks.pair.has_advert_keys;
    if let Some(authentication) = vip.authentication.known()
        && authentication.value != Authentication::Off
        && !has_key
    {
        mistakes.dangling(
            &authentication.place,
            "there is no key to authenticate with",
            "add key_file or advert_keys to [pair], or write \"off\"",
        );
    }
}

/// Adverts must be able to get from one node to the other.
fn check_path(vip: &VipBlock, blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let has_link = blocks.pair.key_file.is_there() && blocks.nodes.len() == 2;
    match (&vip.transport.or_default(Transport::Unicast), vip.transport.known()) {
        (Some(Transport::Udp), Some(transport)) if !has_link => mistakes.dangling(
            &transport.place,
            "the UDP link needs two nodes and a pair key",
            "add the other [[node]], and key_file = \"/etc/baton/pair.key\" to [pair]; or choose another transport",
        ),
        (Some(Transport::Unicast), _) if !has_link => check_unicast_path(vip, &blocks.nodes, mistakes),
        _ => {}
    }
}

fn check_unicast_path(vip: &VipBlock, nodes: &[NodeBlock], mistakes: &Mistakes<'_>) {
    let [first, second] = nodes else { return };
    let is_whole = |node: &NodeBlock| node.address.is_some() && node.further_addresses.iter().all(Option::is_some);
    if !vip.are_addresses_whole || !is_whole(first) || !is_whole(second) {
        return;
    }
    let has = |node: &NodeBlock, ip: IpAddr| node.all_addresses().any(|own| own.value.is_ipv4() == ip.is_ipv4());
    let mut families = vip.addresses.iter().map(|address| address.network.value.address());
    if families.all(|ip| !has(first, ip) || !has(second, ip)) {
        let wanted = vip.addresses.first().map_or("", |address| family(address.network.value.address()));
        mistakes.absent(
            &vip.place,
            format!("no path for its adverts: it has {wanted} addresses, and the nodes have none"),
            format!(
                "give both nodes an {wanted} address in further_addresses, add key_file to [pair], or write transport = \
                 \"multicast\""
            ),
        );
    }
}
