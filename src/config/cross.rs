//! Checks across blocks: names, references, listeners and routes. What nodes and vips need of each other is in `pairing`.
//!
//! A check says nothing when what it compares could not be read: that is reported already.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use super::access_log;
use super::balance::HashOn;
use super::blocks::{Blocks, ListenerBlock, PoolReference};
use super::model::Protocol;
use super::pairing;
use super::reader::closest;
use super::report::{Located, Mistakes, Place};
use super::routes::RouteBlock;
use super::sticky::StickyBy;

/// Runs every check.
pub(super) fn check(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let nodes = Names::of(mistakes, "node", blocks.nodes.iter().map(|node| node.name.as_ref()));
    let listeners = Names::of(mistakes, "listener", blocks.listeners.iter().map(|listener| listener.name.as_ref()));
    let pools = Names::of(mistakes, "pool", blocks.pools.iter().map(|pool| pool.name.as_ref()));
    let vips = Names::of(mistakes, "vip", blocks.vips.iter().map(|vip| vip.name.as_ref()));
    Names::of(
        mistakes,
        "route",
        blocks.routes.iter().filter(|route| route.name.is_some()).map(|route| route.name.as_ref()),
    );
    Names::of(mistakes, "fitness check", blocks.fitness.iter().map(|check| check.name.as_ref()));

    pairing::check(blocks, mistakes);
    for prefer in blocks.vips.iter().filter_map(|vip| vip.prefer.as_ref()) {
        nodes.check(prefer, mistakes);
    }
    check_fitness(blocks, &vips, mistakes);
    check_binds(blocks, mistakes);
    check_routes(&blocks.routes, mistakes);
    check_references(blocks, &listeners, &pools, mistakes);
    check_stickiness(blocks, mistakes);
    check_tcp(blocks, mistakes);
    access_log::check(blocks, mistakes);
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
pub(super) fn repeated<'p, K: Hash + Eq + Clone>(
    items: impl Iterator<Item = (K, &'p Place)>,
) -> Vec<(&'p Place, &'p Place, K)> {
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

/// What a fitness check counts for: some vip, each named once.
fn check_fitness(blocks: &Blocks, vips: &Names<'_>, mistakes: &Mistakes<'_>) {
    if let (Some(check), true) = (blocks.fitness.first(), blocks.vips.is_empty()) {
        mistakes.absent(
            &check.place,
            "there is no vip that a node would have to be fit for",
            "leave [[fitness]] out, or add a [[vip]]",
        );
    }
    for named in blocks.fitness.iter().filter_map(|check| check.vips.as_ref()) {
        for (first, again, _) in repeated(named.iter().map(|vip| (vip.value.as_str(), &vip.place))) {
            mistakes.value(again, format!("{} is the same vip", first.key), "leave one of the two out");
        }
        for vip in named.iter().filter(|_| !blocks.vips.is_empty()) {
            vips.check(vip, mistakes);
        }
    }
}

/// No two binds may claim one address and port: whoever came second would get none of the clients, or all at random.
fn check_binds(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let of_admin = blocks.admin.iter().flat_map(|admin| &admin.bind);
    let binds = blocks.listeners.iter().flat_map(|listener| &listener.bind).chain(of_admin);
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
        Some(((listener, route.priority, &route.matches), &route.place))
    });
    for (first, again, _) in repeated(rules) {
        mistakes.block(
            again,
            format!("never reached: {} matches the same requests", first.key),
            "leave one of the two out, or change what it matches",
        );
    }
}

/// A listener that speaks HTTP ends TLS itself, request by request on connections that come and go: what is in a
/// handshake names no user there.
fn check_stickiness(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let of_http = |listener: &&ListenerBlock| match listener.protocol {
        Protocol::Http => true,
        Protocol::Tcp => false,
    };
    let listeners: Vec<&ListenerBlock> = blocks.listeners.iter().filter(of_http).collect();
    let own = listeners.iter().filter_map(|listener| match &listener.pool {
        PoolReference::Named(pool) => Some(pool.value.as_str()),
        PoolReference::None | PoolReference::Broken => None,
    });
    let names: HashSet<&str> =
        listeners.iter().filter_map(|listener| Some(listener.name.as_ref()?.value.as_str())).collect();
    let is_of_http =
        |route: &&RouteBlock| route.listener.as_ref().is_some_and(|name| names.contains(name.value.as_str()));
    let routed =
        blocks.routes.iter().filter(is_of_http).flat_map(RouteBlock::named_pools).map(|pool| pool.value.as_str());
    let reached: HashSet<&str> = own.chain(routed).collect();
    for pool in &blocks.pools {
        let Some(by) = pool.sticky_by.as_ref().filter(|by| by.value.is_of_tls()) else { continue };
        if pool.name.as_ref().is_some_and(|name| reached.contains(name.value.as_str())) {
            mistakes.value(
                &by.place,
                "is for pools of listeners with protocol = \"tcp\" alone, and one with protocol = \"http\" uses this pool",
                "write by = \"cookie\", or by = \"source_ip\" for clients without cookies",
            );
        }
    }
}

fn check_references(blocks: &Blocks, listeners: &Names<'_>, pools: &Names<'_>, mistakes: &Mistakes<'_>) {
    for route in &blocks.routes {
        if let Some(listener) = &route.listener {
            listeners.check(listener, mistakes);
        }
        for pool in route.named_pools() {
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
            PoolReference::None if listener.protocol == Protocol::Tcp => mistakes.absent(
                &listener.place,
                "has no pool, which every connection goes to with protocol = \"tcp\"",
                "add pool = \"…\"",
            ),
            // Requests that no route matches have a place to go to.
            PoolReference::None if listener.redirect_to_https.is_some() => {}
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

/// What only HTTP has is refused where there are only bytes.
fn check_tcp(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let of_tcp = || blocks.listeners.iter().filter(|listener| listener.protocol == Protocol::Tcp);
    let names: HashSet<&str> = of_tcp().flat_map(|listener| &listener.name).map(|name| name.value.as_str()).collect();
    for listener in blocks.routes.iter().filter_map(|route| route.listener.as_ref()) {
        if names.contains(listener.value.as_str()) {
            mistakes.value(
                &listener.place,
                "that listener has protocol = \"tcp\", which has no hosts and paths to route by",
                "leave the route out; the listener's pool takes every connection",
            );
        }
    }
    let sticky =
        blocks.pools.iter().filter_map(|pool| Some((pool.name.as_ref()?.value.as_str(), pool.sticky_by.as_ref()?)));
    let sticky: HashMap<&str, StickyBy> = sticky.map(|(name, by)| (name, by.value)).collect();
    check_hashes(blocks, of_tcp(), mistakes);
    for listener in of_tcp() {
        let PoolReference::Named(pool) = &listener.pool else { continue };
        let Some(by) = sticky.get(pool.value.as_str()) else { continue };
        let word = by.word();
        if by.is_of_http() {
            mistakes.value(
                &pool.place,
                format!("that pool is sticky by {word}, which connections of protocol = \"tcp\" have none of"),
                "write by = \"source_ip\", \"tls_sni\" or \"tls_session_id\" in that pool, or name another pool",
            );
        } else if *by == StickyBy::TlsSessionId && listener.tls.is_some() {
            mistakes.value(
                &pool.place,
                format!("that pool is sticky by {word}, and with tls here servers see no TLS sessions of clients"),
                "leave tls out, so that TLS is passed through, or write by = \"source_ip\" or \"tls_sni\" in that pool",
            );
        }
    }
}

/// Connections of which only the address is known cannot be placed by anything else.
fn check_hashes<'b>(blocks: &Blocks, of_tcp: impl Iterator<Item = &'b ListenerBlock>, mistakes: &Mistakes<'_>) {
    let hashes =
        blocks.pools.iter().filter_map(|pool| Some((pool.name.as_ref()?.value.as_str(), pool.hash_on.as_ref()?)));
    let hashes: HashMap<&str, HashOn> = hashes.map(|(name, on)| (name, on.value)).collect();
    for listener in of_tcp {
        let PoolReference::Named(pool) = &listener.pool else { continue };
        let Some(on) = hashes.get(pool.value.as_str()).filter(|on| **on != HashOn::Address) else { continue };
        mistakes.value(
            &pool.place,
            format!("that pool has hash.on = \"{}\", which connections of protocol = \"tcp\" have none of", on.word()),
            "write on = \"address\" in that pool, or name another pool",
        );
    }
}
