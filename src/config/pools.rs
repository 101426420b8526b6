//! Reads `[[pool]]` with its servers. Its health checks are in `health`, its stickiness in `sticky`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::blocks::PoolBlock;
use super::model::{POOL_SERVERS_MAX, Pool, Server, ServerOrigin};
use super::reader::Table;
use super::report::{Located, Mistakes};
use super::{balance, compression, discovery, health, passive, protection, routes, sticky, upstream, values};

const IDLE_CONNECTIONS_MAX: u32 = 65_536;
const SERVER_TIMEOUT_MIN: Duration = Duration::from_millis(10);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 3600);

const WEIGHT_MAX: u32 = 256;
const SLOW_START_MIN: Duration = Duration::from_millis(100);
const SLOW_START_MAX: Duration = Duration::from_secs(3600);
const ZONE_THRESHOLD_DEFAULT: u32 = 50;

/// Reads a `[[pool]]`.
pub(super) fn pool(mut table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> PoolBlock {
    let name = table.name();
    let response_timeout = table.duration("response_timeout", SERVER_TIMEOUT_MIN..=DAY, Duration::from_secs(30));
    let (sticky_by, sticky) = table.block("sticky").map(|table| sticky::sticky(table, mistakes)).unzip();
    let is_sticky = sticky.is_some();
    let discovery_block = table.block("discovery");
    let is_found = table.has("discovery");
    let (discovery, discovery_files) =
        discovery_block.map(|table| discovery::discovery(table, mistakes, directory)).unwrap_or_default();
    let way = upstream::way(&mut table, mistakes, directory);
    let (algorithm, hash_on) = balance::algorithm(&mut table);
    let servers = servers(&mut table, mistakes, is_found);
    let limits_servers = servers.iter().any(|server| server.connections_max.is_some());
    let checked = table.block("health");
    let checked = checked.map(|table| health::health(table, mistakes, directory, way.tls.is_some()));
    let mut checked = checked.unwrap_or_default();
    let pool = Pool {
        name: name.as_ref().map(|name| name.value.clone()).unwrap_or_default(),
        algorithm,
        slow_start: table
            .optional("slow_start")
            .and_then(|value| value.duration(SLOW_START_MIN..=SLOW_START_MAX))
            .map(|found| found.value),
        panic_threshold: table.integer("panic_threshold", 0..=100, 0),
        zone_threshold: table.integer("zone_threshold", 0..=100, ZONE_THRESHOLD_DEFAULT),
        servers,
        discovery,
        health: checked.health.take(),
        agent: table.block("agent").map(|table| health::agent(table, mistakes)),
        sticky: sticky.flatten(),
        request_headers: routes::request_headers(&mut table),
        response_headers: routes::response_headers(&mut table),
        connect_timeout: table.duration(
            "connect_timeout",
            SERVER_TIMEOUT_MIN..=CONNECT_TIMEOUT_MAX,
            Duration::from_secs(3),
        ),
        response_timeout,
        body_timeout: table.duration("body_timeout", SERVER_TIMEOUT_MIN..=DAY, response_timeout),
        request_timeout: table
            .optional("request_timeout")
            .and_then(|value| value.duration(SERVER_TIMEOUT_MIN..=DAY))
            .map(|found| found.value),
        idle_timeout: table.duration("idle_timeout", SERVER_TIMEOUT_MIN..=DAY, Duration::from_secs(30)),
        idle_connections_max: table.integer("idle_connections_max", 0..=IDLE_CONNECTIONS_MAX, 64),
        compression: compression::of_pool(table.optional("compression"), mistakes),
        connections: protection::pool(&mut table, mistakes, limits_servers),
        protocol: way.protocol,
        tls: way.tls,
        send_proxy: way.send_proxy,
        http2: upstream::http2(&mut table),
        retries: upstream::retries(&mut table, mistakes, response_timeout, is_sticky),
        passive: passive::passive(&mut table, mistakes),
    };
    table.finish();
    PoolBlock {
        name,
        sticky_by: sticky_by.flatten(),
        hash_on,
        files: way.files,
        health: checked,
        discovery_files,
        pool,
    }
}

fn servers(pool: &mut Table<'_>, mistakes: &Mistakes<'_>, is_found: bool) -> Vec<Server> {
    let list = if is_found {
        pool.optional("servers")
    } else {
        pool.required("servers", "list at least one: servers = [{ name = \"app1\", address = \"10.0.0.1:8080\" }]")
    };
    let tables = list.map(|value| value.blocks(POOL_SERVERS_MAX)).unwrap_or_default();
    let mut names: HashMap<String, String> = HashMap::new();
    let mut addresses: HashMap<SocketAddr, String> = HashMap::new();
    let mut servers = Vec::new();
    for table in tables {
        let label = table.place().key.clone();
        let ServerBlock { name, address, backup, weight, connections_max, zone } = server(table);
        if let Some(Located { value, place }) = &name
            && names.insert(value.clone(), label.clone()).is_some()
        {
            mistakes.value(place, "two servers of this pool have that name", "choose a name of its own for each");
        }
        if let Some(Located { value, place }) = &address
            && let Some(first) = addresses.insert(*value, label)
        {
            mistakes.value(place, format!("{first} has that address as well"), "leave one of the two out");
        }
        if let (Some(name), Some(address)) = (name, address) {
            let (name, address) = (name.value, address.value);
            servers.push(Server { name, address, backup, weight, connections_max, zone, origin: ServerOrigin::File });
        }
    }
    servers
}

/// An entry of `pool.servers`.
struct ServerBlock {
    name: Option<Located<String>>,
    address: Option<Located<SocketAddr>>,
    backup: bool,
    weight: u32,
    connections_max: Option<u32>,
    zone: Option<String>,
}

fn server(mut table: Table<'_>) -> ServerBlock {
    let name = table.name();
    let address = table
        .required("address", "write where the server listens, such as \"10.0.0.1:8080\"")
        .and_then(|value| value.parsed(values::server_address));
    let block = ServerBlock {
        name,
        address,
        backup: table.boolean("backup", false),
        weight: table.integer("weight", 0..=WEIGHT_MAX, 1),
        connections_max: protection::connections_max(&mut table),
        zone: table.optional("zone").and_then(|value| value.parsed(values::name)).map(|found| found.value),
    };
    table.finish();
    block
}
