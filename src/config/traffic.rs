//! Reads `[[listener]]`, whose limits are in `protection`.

use std::path::Path;
use std::time::Duration;

use super::blocks::{ListenerBlock, PoolReference};
use super::model::Protocol;
use super::reader::Table;
use super::report::Mistakes;
use super::{access_log, compression, error_pages, identity, protection, routes, tls, values};

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
    let (access, access_files) = identity::listener_access(&mut table, mistakes, directory);
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
        request_headers: routes::request_headers(&mut table),
        response_headers: routes::response_headers(&mut table),
        access_log: access_log::of_listener(&mut table, directory),
        compression: compression::of_listener(table.optional("compression"), mistakes),
        error_pages: table
            .block("error_pages")
            .map(|table| error_pages::error_pages(table, mistakes, directory))
            .unwrap_or_default(),
        intercept_errors: table.boolean("intercept_errors", false),
        protection: protection::listener(&mut table, protocol),
        http2: table.boolean("http2", true),
        connect: table.boolean("connect", false),
        tunnel_timeout: table.duration("tunnel_timeout", CLIENT_TIMEOUT_MIN..=IDLE_TIMEOUT_MAX, TUNNEL_TIMEOUT),
        identity: identity::identity(&mut table),
        access,
        access_files,
    };
    if block.error_pages.is_empty() && block.protocol == Protocol::Http && !table.has("error_pages") {
        let rule = "has no meaning without error_pages: there is nothing to send instead";
        table.without_meaning(&["intercept_errors"], rule, "leave it out, or write error_pages");
    }
    if block.protocol != Protocol::Http {
        let rule = "has no meaning without protocol = \"http\": there are no headers";
        table.without_meaning(&["request_headers", "response_headers"], rule, "leave it out");
        let rule = "has no meaning without protocol = \"http\": there are no responses";
        table.without_meaning(&["compression", "error_pages", "intercept_errors"], rule, "leave it out");
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
