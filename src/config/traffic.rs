//! Reads `[[listener]]`, whose limits are in `protection`, and `[[route]]`.

use std::path::Path;
use std::time::Duration;

use super::blocks::{CertificateBlock, ListenerBlock, PoolReference, RouteBlock, file};
use super::model::Protocol;
use super::reader::Table;
use super::{identity, protection, values};

const BIND_MAX: usize = 64;
const CERTIFICATES_MAX: usize = 256;
const CONNECTIONS_MAX: u32 = 1_000_000;

/// The range of what a client may take: short enough to test with, and an end to waiting in any case.
const CLIENT_TIMEOUT_MIN: Duration = Duration::from_millis(10);
const HEAD_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// As others have it: what speaks in a tunnel has keep-alives of its own.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(3600);

/// Reads a `[[listener]]`.
pub(super) fn listener(mut table: Table<'_>, directory: &Path) -> ListenerBlock {
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
        tls: table.block("tls").map(|tls| certificates(tls, directory)),
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
    }
    table.finish();
    block
}

fn certificates(mut tls: Table<'_>, directory: &Path) -> Vec<CertificateBlock> {
    let list =
        tls.required("certificates", "list at least one: certificates = [{ cert = \"site.crt\", key = \"site.key\" }]");
    let certificate = |mut table: Table<'_>| {
        let cert = table.required("cert", "name the PEM file of the certificate chain, leaf first");
        let key = table.required("key", "name the PEM file of the certificate's private key");
        let block = CertificateBlock {
            cert: cert.and_then(|value| file(value, directory)),
            key: key.and_then(|value| file(value, directory)),
        };
        table.finish();
        block
    };
    let blocks = list.map(|value| value.blocks(CERTIFICATES_MAX)).unwrap_or_default();
    let certificates = blocks.into_iter().map(certificate).collect();
    tls.finish();
    certificates
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
