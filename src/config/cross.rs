//! Checks across blocks: names, references, addresses and what two nodes need to share a vip.
//!
//! A check says nothing when what it compares could not be read: that is reported already.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use super::blocks::{Blocks, ListenerBlock, NodeBlock, PoolReference, RouteBlock, VipBlock};
use super::reader::closest;
use super::report::{Located, Mistakes, Place};

/// Runs every check.
pub(super) fn check(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let nodes = Names::of(mistakes, "node", blocks.nodes.iter().map(|node| node.name.as_ref()));
    let listeners = Names::of(mistakes, "listener", blocks.listeners.iter().map(|listener| listener.name.as_ref()));
    let pools = Names::of(mistakes, "pool", blocks.pools.iter().map(|pool| pool.name.as_ref()));
    Names::of(mistakes, "vip", blocks.vips.iter().map(|vip| vip.name.as_ref()));

    check_nodes(blocks, mistakes);
    check_vips(blocks, &nodes, mistakes);
    check_binds(&blocks.listeners, mistakes);
    check_routes(&blocks.routes, mistakes);
    check_references(blocks, &listeners, &pools, mistakes);
    if blocks.listeners.is_empty() && blocks.vips.is_empty() {
        mistakes.file("nothing to do: there is no [[listener]] and no [[vip]]", "begin with the annotated baton.toml");
    }
}

/// Names that are searched for the one that was meant. Each is compared letter by letter, and a file can have thousands
/// of references to a thousand names.
const SUGGEST_AMONG_MAX: usize = 256;

/// The names of one kind of block.
struct Names<'a> {
    kind: &'static str,
    names: Vec<&'a str>,
    set: HashSet<&'a str>,
    /// Whether every block's name could be read; otherwise one that seems to dangle may be there.
    are_all_known: bool,
}

impl<'a> Names<'a> {
    /// Collects the names, and refuses the second use of one.
    fn of(
        mistakes: &Mistakes<'_>,
        kind: &'static str,
        blocks: impl Iterator<Item = Option<&'a Located<String>>>,
    ) -> Self {
        let blocks: Vec<_> = blocks.collect();
        let located: Vec<_> = blocks.iter().flatten().map(|name| (name.value.as_str(), &name.place)).collect();
        for (_, again, _) in repeated(located.iter().copied()) {
            mistakes.value(again, format!("another {kind} has that name"), "choose a name of its own for each");
        }
        let names: Vec<&str> = located.into_iter().map(|(name, _)| name).collect();
        let set = names.iter().copied().collect();
        Self { kind, are_all_known: names.len() == blocks.len(), names, set }
    }

    fn knows(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    /// Reports a reference to nothing.
    fn check(&self, reference: &Located<String>, mistakes: &Mistakes<'_>) {
        if self.knows(&reference.value) || !self.are_all_known {
            return;
        }
        let kind = self.kind;
        let is_worth_it = self.names.len() <= SUGGEST_AMONG_MAX && !mistakes.is_full();
        let meant = if is_worth_it { closest(&reference.value, &self.names) } else { None };
        let remedy = match meant {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if self.names.is_empty() => format!("add a [[{kind}]] of that name"),
            None => format!("the file has {}", listed(&self.names)),
        };
        mistakes.dangling(&reference.place, format!("there is no {kind} of that name"), remedy);
    }
}

/// Names for a remedy; a file may have a thousand of them.
pub(super) fn listed(names: &[&str]) -> String {
    const SHOWN_MAX: usize = 10;
    let shown: Vec<&str> = names.iter().take(SHOWN_MAX).copied().collect();
    let more = names.len().saturating_sub(SHOWN_MAX);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// The second and later appearances of each key, with the place of its first.
fn repeated<'p, K: Hash + Eq + Clone>(items: impl Iterator<Item = (K, &'p Place)>) -> Vec<(&'p Place, &'p Place, K)> {
    let mut first: HashMap<K, &'p Place> = HashMap::new();
    let mut repeated = Vec::new();
    for (key, place) in items {
        match first.get(&key) {
            Some(original) => repeated.push((*original, place, key)),
            None => {
                first.insert(key, place);
            }
        }
    }
    repeated
}

fn check_nodes(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    for third in blocks.nodes.iter().skip(2) {
        mistakes.block(&third.place, "a pair has at most two nodes", "leave one [[node]] out");
    }
    let addresses = blocks.nodes.iter().filter_map(|node| node.address.as_ref());
    for (first, again, _) in repeated(addresses.clone().map(|address| (address.value.to_canonical(), &address.place))) {
        mistakes.value(again, format!("{} is the same address", first.key), "write each node's own address");
    }
    for address in addresses {
        if !blocks.vips.is_empty() && address.value.is_ipv6() {
            mistakes.value(
                &address.place,
                "adverts between IPv6 addresses are not in this release",
                "write the node's IPv4 address",
            );
        }
        if blocks.nodes.len() > 1 && address.value.to_canonical().is_loopback() {
            mistakes.value(
                &address.place,
                "the other node cannot reach a loopback address",
                "write the address that the other node reaches this one at",
            );
        }
    }
    check_priorities(&blocks.nodes, mistakes);
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

fn check_vips(blocks: &Blocks, nodes: &Names<'_>, mistakes: &Mistakes<'_>) {
    if let (Some(vip), true) = (blocks.vips.first(), blocks.nodes.is_empty()) {
        mistakes.absent(
            &vip.place,
            "a vip needs a [[node]] to hold it, and there is none",
            "add a [[node]] with name and address for each machine of the pair",
        );
    }
    for prefer in blocks.vips.iter().filter_map(|vip| vip.prefer.as_ref()) {
        nodes.check(prefer, mistakes);
    }
    check_router_ids(&blocks.vips, mistakes);
    check_vip_addresses(blocks, mistakes);
}

fn check_router_ids(vips: &[VipBlock], mistakes: &Mistakes<'_>) {
    let ids = vips.iter().filter_map(|vip| {
        let (id, interface) = (vip.virtual_router_id.as_ref()?, vip.interface.as_ref()?);
        Some(((id.value, interface.value.as_str()), &id.place))
    });
    for (first, again, (_, interface)) in repeated(ids) {
        mistakes.value(
            again,
            format!("{} is the same on {interface}", first.key),
            "choose a number that no other virtual router on that interface uses",
        );
    }
}

fn check_vip_addresses(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let addresses = blocks.vips.iter().flat_map(|vip| &vip.addresses);
    for (first, again, _) in repeated(addresses.clone().map(|found| (found.value.address(), &found.place))) {
        mistakes.value(again, format!("{} is the same address", first.key), "leave one of the two out");
    }
    for address in addresses {
        let ip = address.value.address();
        let owner = blocks.nodes.iter().filter_map(|node| node.address.as_ref()).find(|node| node.value == ip);
        if let Some(owner) = owner {
            mistakes.value(
                &address.place,
                format!("{} is that address, and a vip must be nobody's own", owner.place.key),
                "choose a free address of the network",
            );
        }
    }
}

/// No two binds may claim one address and port: whoever came second would get none of the clients, or all at random.
fn check_binds(listeners: &[ListenerBlock], mistakes: &Mistakes<'_>) {
    let binds = listeners.iter().flat_map(|listener| &listener.bind);
    let mut by_port: HashMap<u16, Claims<'_>> = HashMap::new();
    for bind in binds {
        let claims = by_port.entry(bind.value.port()).or_default();
        if let Some(first) = claims.conflict(bind.value) {
            let remedy = "bind each address and port once; routes by host let one listener serve many sites";
            let rule = if first.value == bind.value {
                format!("{} is the same address", first.place.key)
            } else {
                format!("{} = {} overlaps with it", first.place.key, first.value)
            };
            mistakes.value(&bind.place, rule, remedy);
        } else {
            claims.add(bind);
        }
    }
}

/// The binds of one port.
#[derive(Default)]
struct Claims<'a> {
    exact: HashMap<IpAddr, &'a Located<SocketAddr>>,
    first_v4: Option<&'a Located<SocketAddr>>,
    first: Option<&'a Located<SocketAddr>>,
    any_v4: Option<&'a Located<SocketAddr>>,
    any: Option<&'a Located<SocketAddr>>,
}

impl<'a> Claims<'a> {
    /// `[::]` takes IPv4 connections as well, so it overlaps with everything on its port.
    fn conflict(&self, bind: SocketAddr) -> Option<&'a Located<SocketAddr>> {
        let ip = bind.ip().to_canonical();
        self.exact.get(&ip).copied().or(self.any).or(match ip {
            IpAddr::V6(v6) if v6.is_unspecified() => self.first,
            IpAddr::V6(_) => None,
            IpAddr::V4(v4) if v4.is_unspecified() => self.first_v4,
            IpAddr::V4(_) => self.any_v4,
        })
    }

    fn add(&mut self, bind: &'a Located<SocketAddr>) {
        let ip = bind.value.ip().to_canonical();
        self.exact.insert(ip, bind);
        self.first.get_or_insert(bind);
        if ip.is_ipv4() {
            self.first_v4.get_or_insert(bind);
        }
        match ip {
            IpAddr::V6(v6) if v6.is_unspecified() => self.any = Some(bind),
            IpAddr::V4(v4) if v4.is_unspecified() => self.any_v4 = Some(bind),
            _ => {}
        }
    }
}

/// Of two routes that match the same requests the second would never be used.
fn check_routes(routes: &[RouteBlock], mistakes: &Mistakes<'_>) {
    let rules = routes.iter().filter(|route| route.is_whole).filter_map(|route| {
        let listener = route.listener.as_ref()?.value.as_str();
        Some(((listener, route.host.as_deref(), route.path_prefix.as_deref()), &route.place))
    });
    for (first, again, _) in repeated(rules) {
        mistakes.block(
            again,
            format!("never reached: {} matches the same requests", first.key),
            "leave one of the two out, or change its host or path_prefix",
        );
    }
}

fn check_references(blocks: &Blocks, listeners: &Names<'_>, pools: &Names<'_>, mistakes: &Mistakes<'_>) {
    for route in &blocks.routes {
        if let Some(listener) = &route.listener {
            listeners.check(listener, mistakes);
        }
        if let Some(pool) = &route.pool {
            pools.check(pool, mistakes);
        }
    }
    // A route that names no listener we know may have been meant for any of them.
    let all_routes_belong =
        blocks.routes.iter().all(|route| route.listener.as_ref().is_some_and(|name| listeners.knows(&name.value)));
    let routed: HashSet<&str> =
        blocks.routes.iter().flat_map(|route| &route.listener).map(|listener| listener.value.as_str()).collect();
    for listener in &blocks.listeners {
        match &listener.pool {
            PoolReference::Named(pool) => pools.check(pool, mistakes),
            PoolReference::Broken => {}
            PoolReference::None => {
                let Some(name) = &listener.name else { continue };
                if !routed.contains(name.value.as_str()) && all_routes_belong {
                    mistakes.absent(
                        &listener.place,
                        "has neither a pool nor a route, so every request would be answered 404",
                        "add pool = \"…\", or a [[route]] with this listener's name",
                    );
                }
            }
        }
    }
}
