//! Reads `[[listener]]` with its rate limit.

use std::path::Path;
use std::time::Duration;

use super::blocks::{ListenerBlock, PoolReference};
use super::model::{Protocol, RateLimit, RateLimitKey};
use super::reader::Table;
use super::report::Mistakes;
use super::{identity, routes, tls, values};

const BIND_MAX: usize = 64;
const CONNECTIONS_MAX: u32 = 1_000_000;

/// The range of what a client may take: short enough to test with, and an end to waiting in any case.
const CLIENT_TIMEOUT_MIN: Duration = Duration::from_millis(10);
const HEAD_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// As others have it: what speaks in a tunnel has keep-alives of its own.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(3600);

const RATE_REQUESTS_MAX: u32 = 1_000_000;
const RATE_PER_MIN: Duration = Duration::from_millis(100);
const RATE_PER_MAX: Duration = Duration::from_secs(24 * 3600);
const RATE_ENTRIES_MAX: u32 = 16_000_000;
const RATE_ENTRIES_DEFAULT: u32 = 100_000;

/// Reads a `[[listener]]`.
pub(super) fn listener(mut table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> ListenerBlock {
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
        protocol: table
            .optional("protocol")
            .and_then(|value| value.choice(&[("http", Protocol::Http), ("tcp", Protocol::Tcp)], &["udp"]))
            .map_or(Protocol::Http, |found| found.value),
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
        rate_limit: table.block("rate_limit").and_then(rate_limit),
        request_headers: routes::request_headers(&mut table),
        response_headers: routes::response_headers(&mut table),
        http2: table.boolean("http2", true),
        connect: table.boolean("connect", false),
        tunnel_timeout: table.duration("tunnel_timeout", CLIENT_TIMEOUT_MIN..=IDLE_TIMEOUT_MAX, TUNNEL_TIMEOUT),
        identity: identity::identity(&mut table),
        access,
        access_files,
    };
    if block.protocol != Protocol::Http {
        let rule = "has no meaning without protocol = \"http\": there are no requests to count";
        table.without_meaning(&["rate_limit"], rule, "leave it out");
        let rule = "has no meaning without protocol = \"http\": there are no headers";
        table.without_meaning(&["request_headers", "response_headers"], rule, "leave it out");
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

/// `None` where something that has no default is missing or broken, which is reported then.
fn rate_limit(mut table: Table<'_>) -> Option<RateLimit> {
    /// What a client is known by.
    #[derive(Clone, Copy)]
    enum By {
        SourceIp,
        Header,
    }
    let requests = table
        .required("requests", "say how many requests a client may make in `per`, such as requests = 100")
        .and_then(|value| value.integer(1..=RATE_REQUESTS_MAX));
    let per = table
        .required("per", "say in which time a client may make them, such as per = \"10s\"")
        .and_then(|value| value.duration(RATE_PER_MIN..=RATE_PER_MAX));
    let burst = table.optional("burst").map(|value| value.integer(1..=RATE_REQUESTS_MAX));
    let by = table.written("by", |value| value.choice(&[("source_ip", By::SourceIp), ("header", By::Header)], &[]));
    let by = match by.or_default(By::SourceIp) {
        Some(By::SourceIp) => {
            table.without_meaning(&["name"], "has no meaning with by = \"source_ip\"", "write by = \"header\"");
            Some(RateLimitKey::SourceIp)
        }
        Some(By::Header) => table
            .required("name", "name the header, such as \"X-Api-Key\"")
            .and_then(|value| value.parsed(values::header_name))
            .map(|name| RateLimitKey::Header { name: name.value }),
        None => {
            table.skip(&["name"]);
            None
        }
    };
    let mut bits = |key, max: u8, default| u8::try_from(table.integer(key, 1..=u32::from(max), default)).unwrap_or(max);
    let (prefix_v4, prefix_v6) = (bits("prefix_v4", 32, 32), bits("prefix_v6", 128, 64));
    let entries_max = table.integer("entries_max", 1..=RATE_ENTRIES_MAX, RATE_ENTRIES_DEFAULT);
    table.finish();
    let requests = requests?.value;
    let burst = burst.map_or(Some(requests), |burst| Some(burst?.value))?;
    Some(RateLimit { requests, per: per?.value, burst, by: by?, prefix_v4, prefix_v6, entries_max })
}
