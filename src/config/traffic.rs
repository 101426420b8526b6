//! Reads `[[listener]]`, whose limits are in `protection`, and `[[route]]`.

use std::path::Path;
use std::time::Duration;

use super::blocks::{ListenerBlock, PoolReference, RouteBlock};
use super::model::Protocol;
use super::reader::Table;
use super::report::Mistakes;
use super::{identity, protection, tls, values};

const BIND_MAX: usize = 64;
const CONNECTIONS_MAX: u32 = 1_000_000;

/// The range of what a client may take: short enough to test with, and an end to waiting in any case.
const CLIENT_TIMEOUT_MIN: Duration = Duration::from_millis(10);
const HEAD_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// As others have it: what speaks in a tunnel has keep-alives of its own.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(3600);

/// Reads a `[[listener]]`.
pub(super) fn listener(mut table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> ListenerBlock {
    let protocol = table
        .optional("protocol")
        .and_then(|value| value.choice(&[("http", Protocol::Http), ("tcp", Protocol::Tcp)], &["udp"]))
        .map_or(Protocol::Http, |found| found.value);
    let (access, access_files) = identity::listener_access(&mut table, directory);
    let block = ListenerBlock {
        place: table.place().clone(),
        name: table.name(),
        bind: table
            .required("bind", "list the addresses to listen on, such as [\"192.0.2.100:80\"] or [\"0.0.0.0:80\"]")
            .map(|value| value.list(BIND_MAX))
            .unwrap_or_default()
            .into_iter()
            .filter_map(|value| value.parsed(values::bind))
            .collect(),
        protocol,
        pool: match table.optional("pool").map(|value| value.parsed(values::reference)) {
            None => PoolReference::None,
            Some(None) => PoolReference::Broken,
            Some(Some(name)) => PoolReference::Named(name),
        },
        tls: table.block("tls").map(|table| tls::tls(table, mistakes, directory)),
        hsts: table.block("hsts").map(|table| tls::hsts(table, mistakes)),
        redirect_to_https: table.optional("redirect_to_https").and_then(tls::redirect_to_https),
        head_timeout: table.duration("head_timeout", CLIENT_TIMEOUT_MIN..=HEAD_TIMEOUT_MAX, Duration::from_secs(10)),
        idle_timeout: table.duration("idle_timeout", CLIENT_TIMEOUT_MIN..=IDLE_TIMEOUT_MAX, Duration::from_secs(60)),
        connections_max: table.integer("connections_max", 1..=CONNECTIONS_MAX, 10_000),
        protection: protection::listener(&mut table, protocol),
        http2: table.boolean("http2", true),
        connect: table.boolean("connect", false),
        tunnel_timeout: table.duration("tunnel_timeout", CLIENT_TIMEOUT_MIN..=IDLE_TIMEOUT_MAX, TUNNEL_TIMEOUT),
        identity: identity::identity(&mut table),
        access,
        access_files,
    };
    if block.protocol != Protocol::Http {
        let rule = "has no meaning without protocol = \"http\": what is spoken is between clients and servers";
        table.without_meaning(&["http2", "connect", "tunnel_timeout"], rule, "leave it out");
        let rule = "has no meaning without protocol = \"http\": there are no requests";
        table.without_meaning(&identity::OF_HTTP, rule, "leave it out");
        let rule = "has no meaning without protocol = \"http\": there are no requests and responses";
        table.without_meaning(&["hsts", "redirect_to_https"], rule, "leave it out");
    }
    if block.tls.is_none() {
        let rule = "has no meaning without tls: browsers do not believe it in clear text (RFC 6797 section 8.1)";
        table.without_meaning(&["hsts"], rule, "move it to the listener that has tls");
    }
    if block.redirect_to_https.is_some() {
        let rule = "has no meaning with redirect_to_https, which is where requests go that no route matches";
        table.without_meaning(&["pool"], rule, "leave one of the two out");
        let rule = "has no meaning with redirect_to_https: who comes over TLS is there already";
        table.without_meaning(&["tls"], rule, "leave one of the two out");
    }
    table.finish();
    block
}

/// Reads a `[[route]]`.
pub(super) fn route(mut table: Table<'_>, directory: &Path) -> RouteBlock {
    let place = table.place().clone();
    let listener = table
        .required("listener", "name the listener whose requests it picks")
        .and_then(|value| value.parsed(values::reference));
    let host = table.optional("host").map(|value| value.parsed(values::host));
    let path_prefix = table.optional("path_prefix").map(|value| value.parsed(values::path_prefix));
    let pool = table
        .required("pool", "name the pool that its requests go to")
        .and_then(|value| value.parsed(values::reference));
    let rate_limits = protection::rate_limits(&mut table);
    let (access, access_files) = identity::route_access(&mut table, directory);
    table.finish();
    RouteBlock {
        access,
        access_files,
        place,
        listener,
        is_whole: !matches!(host, Some(None)) && !matches!(path_prefix, Some(None)),
        host: host.flatten().map(|found| found.value),
        path_prefix: path_prefix.flatten().and_then(|found| found.value),
        pool,
        rate_limits,
    }
}
