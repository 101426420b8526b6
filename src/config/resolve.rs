//! From blocks without mistakes to the [`Config`] that the program uses: names become indexes, defaults are filled in.

use std::cmp::Reverse;

use crate::units::{AdvertInterval, Priority};

use super::blocks::{Blocks, CertificateBlock, ListenerBlock, NodeBlock, PoolReference, RouteBlock, VipBlock};
use super::model::{Certificate, Config, Listener, Node, Pair, PoolIndex, Route, Tls, Vip};

const SYNC_PORT_DEFAULT: u16 = 7947;
const PRIORITIES_DEFAULT: [u8; 2] = [250, 249];
const ADVERT_INTERVAL_DEFAULT: std::time::Duration = std::time::Duration::from_millis(100);

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
    Some(Config {
        vips: vips.into_iter().map(|block| vip(block, &nodes)).collect::<Option<_>>()?,
        nodes,
        pair: Pair {
            key_file: pair.key_file.map(|file| file.value),
            sync_port: pair.sync_port.unwrap_or(SYNC_PORT_DEFAULT),
        },
        listeners,
        pools,
        worker,
        checksum,
    })
}

fn node(block: NodeBlock, default: u8) -> Option<Node> {
    let priority = match block.priority {
        Some(written) => written.value,
        None => Priority::new(default)?,
    };
    Some(Node { name: block.name?.value, address: block.address?.value, priority })
}

fn vip(block: VipBlock, nodes: &[Node]) -> Option<Vip> {
    let prefer = match block.prefer {
        Some(name) => Some(nodes.iter().position(|node| node.name == name.value)?),
        None => None,
    };
    let advert_interval = match block.advert_interval {
        Some(written) => written,
        None => AdvertInterval::new(ADVERT_INTERVAL_DEFAULT)?,
    };
    Some(Vip {
        name: block.name?.value,
        addresses: block.addresses.into_iter().map(|address| address.value).collect(),
        interface: block.interface?.value,
        virtual_router_id: block.virtual_router_id?.value,
        advert_interval,
        transport: block.transport,
        prefer,
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
