//! From blocks without mistakes to the [`Config`] that the program uses: names become indexes, defaults are filled in.

use std::cmp::Reverse;
use std::time::Duration;

use crate::units::{AdvertInterval, Priority};

use super::blocks::{Blocks, CertificateBlock, ListenerBlock, NodeBlock, PoolReference, RouteBlock, VipBlock};
use super::model::{
    AdvertChecksum, Announce, Authentication, Certificate, Config, Events, Listener, Node, Pair, PoolIndex, Route, Tls,
    Vip, VipAddress, VrrpVersion,
};

const SYNC_PORT_DEFAULT: u16 = 7947;
const PRIORITIES_DEFAULT: [u8; 2] = [250, 249];
const ADVERT_INTERVAL_DEFAULT: Duration = Duration::from_millis(100);
const PREFER_HOLD_DEFAULT: Duration = Duration::from_secs(30);
/// The first announcement moves the traffic; the others are for when it was lost, the last for hosts and switches that
/// were just then restarting.
const ANNOUNCEMENTS_MS_DEFAULT: [u64; 5] = [50, 200, 700, 2_000, 5_000];
const ANNOUNCE_REFRESH_DEFAULT: Duration = Duration::from_secs(60);
const EVENT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const EVENTS_KEPT_DEFAULT: u32 = 1000;

/// `None` when a value is missing, which the readers and checks have then reported.
pub(super) fn resolve(blocks: Blocks, checksum: String) -> Option<Config> {
    let Blocks { nodes, pair, vips, listeners, routes, pools, worker, worker_user: _ } = blocks;
    let pools: Vec<_> = pools.into_iter().map(|block| block.pool).collect();
    let pool_names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    let nodes: Vec<Node> = nodes
        .into_iter()
        .zip(PRIORITIES_DEFAULT)
        .map(|(block, priority)| node(block, priority))
        .collect::<Option<_>>()?;
    let listeners =
        listeners.into_iter().map(|block| listener(block, &routes, &pool_names)).collect::<Option<Vec<_>>>()?;
    let has_key = pair.key_file.is_some() && nodes.len() == 2;
    Some(Config {
        vips: vips.into_iter().map(|block| vip(block, &nodes, has_key)).collect::<Option<_>>()?,
        nodes,
        pair: Pair {
            key_file: pair.key_file.map(|file| file.value),
            sync_port: pair.sync_port.unwrap_or(SYNC_PORT_DEFAULT),
            advert_keys: Vec::new(),
            witness: None,
        },
        listeners,
        pools,
        fitness: Vec::new(),
        events: Events {
            command: None,
            webhook: None,
            timeout: EVENT_TIMEOUT_DEFAULT,
            kept_max: EVENTS_KEPT_DEFAULT,
            user: None,
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
    Some(Node { name: block.name?.value, address: block.address?.value, further_addresses: Vec::new(), priority })
}

fn vip(block: VipBlock, nodes: &[Node], has_key: bool) -> Option<Vip> {
    let prefer = match block.prefer {
        Some(name) => Some(nodes.iter().position(|node| node.name == name.value)?),
        None => None,
    };
    let advert_interval = match block.advert_interval {
        Some(written) => written,
        None => AdvertInterval::new(ADVERT_INTERVAL_DEFAULT)?,
    };
    let interface = block.interface?.value;
    Some(Vip {
        name: block.name?.value,
        addresses: block
            .addresses
            .into_iter()
            .map(|address| VipAddress { network: address.value, interface: interface.clone() })
            .collect(),
        advert_interface: interface.clone(),
        interface,
        virtual_router_id: block.virtual_router_id?.value,
        advert_interval,
        transport: block.transport,
        version: VrrpVersion::V3,
        checksum: AdvertChecksum::Rfc,
        authentication: if has_key { Authentication::Enforce } else { Authentication::Off },
        password_file: None,
        virtual_mac: false,
        prefer,
        prefer_hold: PREFER_HOLD_DEFAULT,
        announce: Announce {
            burst: 1,
            repeat: ANNOUNCEMENTS_MS_DEFAULT.map(Duration::from_millis).to_vec(),
            refresh: Some(ANNOUNCE_REFRESH_DEFAULT),
        },
        probe_first: true,
    })
}

fn listener(block: ListenerBlock, routes: &[RouteBlock], pools: &[&str]) -> Option<Listener> {
    let name = block.name?.value;
    let tls = match block.tls {
        Some(certificates) => {
            Some(Tls { certificates: certificates.into_iter().map(certificate).collect::<Option<_>>()? })
        }
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
        head_timeout: block.head_timeout,
        idle_timeout: block.idle_timeout,
        connections_max: block.connections_max,
        name,
    })
}

fn certificate(block: CertificateBlock) -> Option<Certificate> {
    Some(Certificate { cert: block.cert?.value, key: block.key?.value })
}

fn pool_index(name: &str, pools: &[&str]) -> Option<PoolIndex> {
    pools.iter().position(|pool| *pool == name).map(PoolIndex)
}

/// The routes of a listener in the order in which they are tried. The sort is stable, so equals stay as in the file.
fn routes_of(listener: &str, routes: &[RouteBlock], pools: &[&str]) -> Option<Vec<Route>> {
    let of_listener = |route: &&RouteBlock| route.listener.as_ref().is_some_and(|name| name.value == listener);
    let mut resolved = Vec::new();
    for route in routes.iter().filter(of_listener) {
        let pool = pool_index(&route.pool.as_ref()?.value, pools)?;
        resolved.push(Route { host: route.host.clone(), path_prefix: route.path_prefix.clone(), pool });
    }
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    resolved.sort_by_key(|route| Reverse((length(&route.host), length(&route.path_prefix))));
    Some(resolved)
}
