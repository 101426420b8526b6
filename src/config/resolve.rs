//! From blocks without mistakes to the [`Config`] that the program uses: names become indexes, defaults are filled in.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use crate::units::{AdvertInterval, Priority};

use super::access_log;
use super::blocks::{
    AdvertKeyBlock, Blocks, FitnessBlock, ListenerBlock, NodeBlock, PairBlock, PoolReference, SubjectBlock,
    VipAddressBlock, VipBlock,
};
use super::error_pages;
use super::model::{
    Admin, AdvertKey, Authentication, Config, FitnessCheck, FitnessSubject, HostMatch, Listener, Mirror, Node, Pair,
    PathMatch, PoolIndex, Route, RouteAction, Share, Transport, Vip, VipAddress, VrrpVersion,
};
use super::report::Located;
use super::routes::{ActionBlock, RouteBlock, ShareBlock};
use super::values;

const SYNC_PORT_DEFAULT: u16 = 7947;
const PRIORITIES_DEFAULT: [u8; 2] = [250, 249];
const ADVERT_INTERVAL_DEFAULT: Duration = Duration::from_millis(100);
/// VRRPv2 cannot say less.
const V2_ADVERT_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// `None` when a value is missing, which the readers and checks have then reported.
pub(super) fn resolve(blocks: Blocks, checksum: String) -> Option<Config> {
    let Blocks {
        nodes,
        pair,
        vips,
        listeners,
        routes,
        pools,
        fitness,
        events,
        sessions,
        admin,
        access_log,
        worker,
        worker_user: _,
    } = blocks;
    let pools: Vec<_> = pools.into_iter().map(|block| block.pool).collect();
    let pool_names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    let nodes: Vec<Node> = nodes
        .into_iter()
        .zip(PRIORITIES_DEFAULT)
        .map(|(block, priority)| node(block, priority))
        .collect::<Option<_>>()?;
    let listener = |block: ListenerBlock| {
        let access_log = access_log::resolved(access_log.as_ref(), &block.access_log);
        Some(Listener { access_log, ..listener(block, &routes, &pool_names)? })
    };
    let listeners = listeners.into_iter().map(listener).collect::<Option<Vec<_>>>()?;
    let has_key = (pair.key_file.is_there() || pair.has_advert_keys) && nodes.len() == 2;
    let vips: Vec<Vip> = vips.into_iter().map(|block| vip(block, &nodes, has_key)).collect::<Option<_>>()?;
    Some(Config {
        fitness: fitness.into_iter().map(|block| fitness_check(block, &vips)).collect::<Option<_>>()?,
        vips,
        nodes,
        pair: resolved_pair(pair)?,
        listeners,
        pools,
        events: events.events,
        sessions: sessions.sessions,
        admin: match admin {
            Some(block) => Some(Admin {
                bind: block.bind?.value,
                token_file: block.token_file.into_known().map(|file| file.value),
                hosts: block.hosts,
            }),
            None => None,
        },
        worker,
        checksum,
    })
}

fn node(block: NodeBlock, default: u8) -> Option<Node> {
    let priority = match block.priority {
        Some(written) => written.value,
        None => Priority::new(default)?,
    };
    let further = block.further_addresses.into_iter().map(|address| Some(address?.value));
    Some(Node {
        name: block.name?.value,
        address: block.address?.value,
        further_addresses: further.collect::<Option<_>>()?,
        zone: block.zone,
        priority,
    })
}

fn resolved_pair(block: PairBlock) -> Option<Pair> {
    let key = |key: AdvertKeyBlock| Some(AdvertKey { id: key.id?.value, file: key.file?.value });
    Some(Pair {
        key_file: block.key_file.into_known().map(|file| file.value),
        sync_port: block.sync_port.unwrap_or(SYNC_PORT_DEFAULT),
        advert_keys: block.advert_keys.into_iter().map(key).collect::<Option<_>>()?,
        witness: block.witness.map(|witness| witness.value),
        switchover_drain: block.switchover_drain,
    })
}

fn vip(block: VipBlock, nodes: &[Node], has_key: bool) -> Option<Vip> {
    let prefer = match block.prefer {
        Some(name) => Some(nodes.iter().position(|node| node.name == name.value)?),
        None => None,
    };
    let advert_interval = match (block.advert_interval, block.version) {
        (Some(written), _) => written,
        (None, VrrpVersion::V2) => AdvertInterval::new(V2_ADVERT_INTERVAL_DEFAULT)?,
        (None, VrrpVersion::V3 | VrrpVersion::Mixed) => AdvertInterval::new(ADVERT_INTERVAL_DEFAULT)?,
    };
    let authentication = if has_key { Authentication::Enforce } else { Authentication::Off };
    let interface = block.interface?.value;
    let address = |at: VipAddressBlock| VipAddress {
        network: at.network.value,
        interface: at.interface.into_known().map_or_else(|| interface.clone(), |found| found.value),
    };
    Some(Vip {
        name: block.name?.value,
        addresses: link_local_first(block.addresses.into_iter().map(address).collect()),
        advert_interface: block.advert_interface.into_known().map_or_else(|| interface.clone(), |found| found.value),
        interface,
        virtual_router_id: block.virtual_router_id?.value,
        advert_interval,
        transport: block.transport.or_default(Transport::Unicast)?,
        version: block.version,
        checksum: block.checksum,
        authentication: block.authentication.or_default(authentication)?,
        password_file: block.password_file.map(|file| file.value),
        virtual_mac: block.virtual_mac,
        prefer,
        prefer_hold: block.prefer_hold,
        announce: block.announce,
        probe_first: block.probe_first,
    })
}

/// An advert's first IPv6 address has to be a link-local one (RFC 9568 section 5.2.9), where there is one: those go to the
/// front of the IPv6 addresses, and otherwise the order of the file stays.
fn link_local_first(mut addresses: Vec<VipAddress>) -> Vec<VipAddress> {
    let is_v6 = |at: &VipAddress| at.network.address().is_ipv6();
    let mut ordered: Vec<VipAddress> = addresses.iter().filter(|at| is_v6(at)).cloned().collect();
    ordered.sort_by_key(|at| !values::is_link_local_v6(at.network.address()));
    for (slot, address) in addresses.iter_mut().filter(|at| is_v6(at)).zip(ordered) {
        *slot = address;
    }
    addresses
}

fn fitness_check(block: FitnessBlock, vips: &[Vip]) -> Option<FitnessCheck> {
    let vip_index = |name: &str| vips.iter().position(|vip| vip.name == name);
    let counts_for: Vec<usize> = match block.vips {
        Some(names) => names.iter().map(|name| vip_index(&name.value)).collect::<Option<_>>()?,
        None => (0..vips.len()).collect(),
    };
    let subject = match block.subject? {
        SubjectBlock::Gateway { address, interface } => FitnessSubject::Gateway {
            address: address?.value,
            interface: match interface {
                Some(interface) => interface.value,
                None => vips.get(*counts_for.first()?)?.interface.clone(),
            },
        },
        SubjectBlock::Command { command } => {
            FitnessSubject::Command { command: command.into_iter().map(|word| word.value).collect() }
        }
        SubjectBlock::File { path, must_exist } => FitnessSubject::File { path: path?.value, must_exist },
        SubjectBlock::Process { process } => FitnessSubject::Process { process: process?.value },
    };
    Some(FitnessCheck {
        name: block.name?.value,
        subject,
        interval: block.interval,
        timeout: block.timeout,
        fall: block.fall,
        rise: block.rise,
        vips: counts_for,
    })
}

fn listener(block: ListenerBlock, routes: &[RouteBlock], pools: &[&str]) -> Option<Listener> {
    let name = block.name?.value;
    let tls = match block.tls {
        Some(tls) => Some(tls.resolve()?),
        None => None,
    };
    Some(Listener {
        bind: block.bind.into_iter().map(|bind| bind.value).collect(),
        protocol: block.protocol,
        pool: match block.pool {
            PoolReference::None => None,
            PoolReference::Broken => return None,
            PoolReference::Named(pool) => Some(pool_index(&pool.value, pools)?),
        },
        routes: routes_of(&name, routes, pools)?,
        tls,
        hsts: block.hsts,
        redirect_to_https: block.redirect_to_https,
        head_timeout: block.head_timeout,
        idle_timeout: block.idle_timeout,
        connections_max: block.connections_max,
        request_headers: block.request_headers,
        response_headers: block.response_headers,
        access_log: None,
        compression: block.compression,
        error_pages: error_pages::resolved(block.error_pages),
        intercept_errors: block.intercept_errors,
        protection: block.protection,
        http2: block.http2,
        connect: block.connect,
        tunnel_timeout: block.tunnel_timeout,
        identity: block.identity,
        access: block.access,
        name,
    })
}

fn pool_index(name: &str, pools: &[&str]) -> Option<PoolIndex> {
    pools.iter().position(|pool| *pool == name).map(PoolIndex)
}

/// The routes of a listener in the order in which they are tried.
fn routes_of(listener: &str, routes: &[RouteBlock], pools: &[&str]) -> Option<Vec<Route>> {
    let of_listener = |route: &&RouteBlock| route.listener.as_ref().is_some_and(|name| name.value == listener);
    let resolved = routes.iter().enumerate().filter(|(_, block)| of_listener(block));
    let mut resolved = resolved.map(|(index, block)| route(index, block, pools)).collect::<Option<Vec<_>>>()?;
    order(&mut resolved);
    Some(resolved)
}

fn route(index: usize, block: &RouteBlock, pools: &[&str]) -> Option<Route> {
    let pool = |name: &Located<String>| pool_index(&name.value, pools);
    let action = match block.action.as_ref()? {
        ActionBlock::Pool(name) => RouteAction::Pool(pool(name)?),
        ActionBlock::Split(shares) => {
            let share = |share: &ShareBlock| Some(Share { pool: pool(&share.pool)?, weight: share.weight });
            RouteAction::Split(shares.iter().map(share).collect::<Option<_>>()?)
        }
        ActionBlock::Redirect(redirect) => RouteAction::Redirect(redirect.clone()),
        ActionBlock::Respond(response) => RouteAction::Respond(response.clone()),
        ActionBlock::Unavailable => RouteAction::Unavailable,
    };
    let mirror = match &block.mirror {
        Some(mirror) => Some(Mirror {
            pool: pool(&mirror.pool)?,
            percent: mirror.percent,
            body_max_bytes: mirror.body_max_bytes,
            concurrency_max: mirror.concurrency_max,
            timeout: mirror.timeout,
        }),
        None => None,
    };
    Some(Route {
        label: block.name.as_ref().map_or_else(|| format!("#{}", index + 1), |name| name.value.clone()),
        matches: block.matches.clone(),
        priority: block.priority,
        action,
        maintenance: block.maintenance.clone(),
        rewrite: block.rewrite.clone(),
        request_headers: block.request_headers.clone(),
        response_headers: block.response_headers.clone(),
        rate_limits: block.rate_limits.clone(),
        mirror,
        access: block.access.clone(),
    })
}

/// Puts routes into the order in which they are tried. The sort is stable, so that equals stay as in the file. Hosts that
/// are equally specific have no request in common: they stay together, in the order in which they first appear.
fn order(routes: &mut [Route]) {
    let mut first: HashMap<HostMatch, usize> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        first.entry(route.matches.host.clone()).or_insert(index);
    }
    routes.sort_by_key(|route| {
        let host = match &route.matches.host {
            HostMatch::Exact(_) => (2, 0),
            HostMatch::Below(host) => (1, host.len()),
            HostMatch::Any => (0, 0),
        };
        let path = match &route.matches.path {
            PathMatch::Exact(_) => (3, 0),
            PathMatch::Prefix(prefix) => (2, prefix.len()),
            PathMatch::Regex(_) => (1, 0),
            PathMatch::Any => (0, 0),
        };
        let appearance = first.get(&route.matches.host).copied();
        (Reverse(route.priority), Reverse(host), appearance, Reverse(path), Reverse(route.matches.further_count()))
    });
}
