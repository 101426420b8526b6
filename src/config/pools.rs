//! Reads `[[pool]]` with its servers and health checks. Its stickiness is in `sticky`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::blocks::{PoolBlock, Rhythm, interval_and_timeout};
use super::model::{Algorithm, Check, Health, POOL_SERVERS_MAX, Pool, Server, ServerOrigin};
use super::reader::Table;
use super::report::{Located, Mistakes};
use super::{compression, discovery, protection, routes, sticky, upstream, values};

const IDLE_CONNECTIONS_MAX: u32 = 65_536;
const SERVER_TIMEOUT_MIN: Duration = Duration::from_millis(10);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 3600);
const HEALTH_RHYTHM: Rhythm = Rhythm {
    interval_min: Duration::from_millis(100),
    interval_default: Duration::from_secs(2),
    timeout_default: Duration::from_secs(1),
};

/// Named in the design, not built yet.
const ALGORITHMS_PLANNED: [&str; 8] = [
    "weighted_round_robin",
    "least_connections",
    "least_response_time",
    "ip_hash",
    "consistent_hash",
    "random",
    "power_of_two",
    "resource",
];
const CHECKS_PLANNED: [&str; 9] = ["https", "grpc", "udp", "tls", "command", "script", "exec", "redis", "postgres"];

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
    let pool = Pool {
        name: name.as_ref().map(|name| name.value.clone()).unwrap_or_default(),
        algorithm: table
            .optional("algorithm")
            .and_then(|value| value.choice(&[("round_robin", Algorithm::RoundRobin)], &ALGORITHMS_PLANNED))
            .map_or(Algorithm::RoundRobin, |found| found.value),
        servers: servers(&mut table, mistakes, is_found),
        discovery,
        health: table.block("health").map(|table| health(table, mistakes)),
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
        connections: protection::pool(&mut table, mistakes),
        protocol: way.protocol,
        tls: way.tls,
        send_proxy: way.send_proxy,
        http2: upstream::http2(&mut table),
        retries: upstream::retries(&mut table, mistakes, response_timeout, is_sticky),
    };
    table.finish();
    PoolBlock { name, sticky_by: sticky_by.flatten(), files: way.files, discovery_files, pool }
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
        let (name, address, backup) = server(table);
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
            servers.push(Server { name: name.value, address: address.value, backup, origin: ServerOrigin::File });
        }
    }
    servers
}

fn server(mut table: Table<'_>) -> (Option<Located<String>>, Option<Located<SocketAddr>>, bool) {
    let name = table.name();
    let address = table
        .required("address", "write where the server listens, such as \"10.0.0.1:8080\"")
        .and_then(|value| value.parsed(values::server_address));
    let backup = table.boolean("backup", false);
    if let Some(weight) = table.optional("weight") {
        weight.only_one("weights other than 1 are not in this release", "leave weight out, or write 1");
    }
    table.finish();
    (name, address, backup)
}

#[derive(Clone, Copy)]
enum CheckKind {
    Http,
    Tcp,
}

fn health(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> Health {
    let kind = table
        .optional("type")
        .and_then(|value| value.choice(&[("http", CheckKind::Http), ("tcp", CheckKind::Tcp)], &CHECKS_PLANNED))
        .map_or(CheckKind::Http, |found| found.value);
    let path = table.optional("path");
    let host = table.optional("host");
    if let CheckKind::Tcp = kind {
        for value in path.iter().chain(&host) {
            mistakes.block(
                value.place(),
                "has no meaning with type = \"tcp\"",
                "leave it out, or write type = \"http\"",
            );
        }
    }
    let path = path.and_then(|value| value.parsed(values::path)).map_or_else(|| "/".to_owned(), |found| found.value);
    let host = host.and_then(|value| value.parsed(values::host_header)).map(|found| found.value);
    let (interval, timeout) = interval_and_timeout(&mut table, mistakes, &HEALTH_RHYTHM);
    let health = Health {
        check: match kind {
            CheckKind::Http => Check::Http { path, host },
            CheckKind::Tcp => Check::Tcp,
        },
        interval,
        timeout,
        fall: table.integer("fall", 1..=100, 3),
        rise: table.integer("rise", 1..=100, 2),
    };
    table.finish();
    health
}
