//! Reads what keeps clients from taking more than their share: limits of listeners, of routes, of pools and of the worker.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::model::{
    AddressLimit, ConnectionRate, ListenerProtection, PoolConnections, Protocol, RateFloor, RateLimit, RateLimitKey,
    WorkerLimits,
};
use super::reader::{Table, Value};
use super::report::Mistakes;
use super::values;

/// Limits of one listener or route: each costs a look-up a request.
const RATE_LIMITS_MAX: usize = 8;
const RATE_MAX: u32 = 1_000_000;
const RATE_PER_MIN: Duration = Duration::from_millis(100);
const RATE_PER_MAX: Duration = Duration::from_secs(24 * 3600);
const ENTRIES_MAX: u32 = 16_000_000;
const ENTRIES_DEFAULT: u32 = 100_000;

const CONNECTIONS_PER_ADDRESS_MAX: u32 = 1_000_000;

const KIB: u64 = 1024;
const HEAD_BYTES: RangeInclusive<u64> = KIB..=256 * KIB;
const HEAD_BYTES_DEFAULT: usize = 32 * 1024;
const HEADERS_MAX: u32 = 1_000;
const HEADERS_DEFAULT: u32 = 100;
/// The largest is what the `http` crate takes.
const URI_BYTES: RangeInclusive<u64> = 64..=65_534;
const URI_BYTES_DEFAULT: usize = 8 * 1024;
const BODY_BYTES: RangeInclusive<u64> = 0..=u64::MAX / 2;

const FLOOR_MAX: u32 = 1_000_000_000;
const GRACE_MIN: Duration = Duration::from_millis(100);
const GRACE_MAX: Duration = Duration::from_secs(3600);
const GRACE_DEFAULT: Duration = Duration::from_secs(10);

const PER_SERVER_MAX: u32 = 1_000_000;
const QUEUE_MAX: u32 = 1_000_000;
const QUEUE_DEFAULT: u32 = 1_000;
const QUEUE_TIMEOUT_MIN: Duration = Duration::from_millis(1);
const QUEUE_TIMEOUT_MAX: Duration = Duration::from_secs(600);
const QUEUE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

const WORKER_MAX: u32 = 10_000_000;
/// Below, the program alone would be over it.
const MEMORY: RangeInclusive<u64> = 32 * KIB * KIB..=KIB * KIB * KIB * KIB;

/// What means nothing where there are only bytes.
const HTTP_ALONE: [&str; 9] = [
    "rate_limit",
    "rate_limits",
    "head_bytes_max",
    "headers_max",
    "uri_bytes_max",
    "body_bytes_max",
    "body_rate_min",
    "response_rate_min",
    "rate_min_grace",
];

/// Reads the keys of a `[[listener]]`.
pub(super) fn listener(table: &mut Table<'_>, protocol: Protocol) -> ListenerProtection {
    let rate_limits = rate_limits(table);
    let grace = table.optional("rate_min_grace");
    let place = grace.as_ref().map(|value| value.place().clone());
    let grace =
        grace.and_then(|value| value.duration(GRACE_MIN..=GRACE_MAX)).map_or(GRACE_DEFAULT, |found| found.value);
    let mut floor = |key| {
        let found = table.optional(key)?.integer(1..=FLOOR_MAX)?;
        Some(RateFloor { bytes_per_second: found.value, grace })
    };
    let (body_rate, response_rate) = (floor("body_rate_min"), floor("response_rate_min"));
    let has_floor = table.has("body_rate_min") || table.has("response_rate_min");
    let size = |value: Option<Value<'_>>, range, default| {
        let found = value.and_then(|value| value.bytes(range));
        found.and_then(|found| usize::try_from(found.value).ok()).unwrap_or(default)
    };
    let protection = ListenerProtection {
        rate_limits,
        connection_rate: table.block("connection_rate").and_then(connection_rate),
        connections_per_address: table.optional("connections_per_address_max").and_then(address_limit),
        head_bytes_max: size(table.optional("head_bytes_max"), HEAD_BYTES, HEAD_BYTES_DEFAULT),
        headers_max: table.integer("headers_max", 1..=HEADERS_MAX, HEADERS_DEFAULT) as usize,
        uri_bytes_max: size(table.optional("uri_bytes_max"), URI_BYTES, URI_BYTES_DEFAULT),
        body_bytes_max: table
            .optional("body_bytes_max")
            .and_then(|value| value.bytes(BODY_BYTES))
            .map(|found| found.value),
        body_rate,
        response_rate,
    };
    if protocol != Protocol::Http {
        let rule = "has no meaning without protocol = \"http\": there are no requests";
        table.without_meaning(&HTTP_ALONE, rule, "leave it out");
    } else if place.is_some() && !has_floor {
        let rule = "has no meaning without body_rate_min or response_rate_min";
        table.without_meaning(&["rate_min_grace"], rule, "leave it out, or say how fast bytes have to come or go");
    }
    protection
}

/// Reads `rate_limit` and `rate_limits`, in this order.
pub(super) fn rate_limits(table: &mut Table<'_>) -> Vec<RateLimit> {
    let first = table.block("rate_limit").and_then(rate_limit);
    let others = table.optional("rate_limits").map(|value| value.blocks(RATE_LIMITS_MAX)).unwrap_or_default();
    first.into_iter().chain(others.into_iter().filter_map(rate_limit)).collect()
}

/// How often something may be done.
struct Often {
    count: u32,
    per: Duration,
    burst: u32,
}

/// `None` where something that has no default is missing or broken, which is reported then.
fn often(table: &mut Table<'_>, what: &'static str, remedies: [&'static str; 2]) -> Option<Often> {
    let [count, time] = remedies;
    let count = table.required(what, count).and_then(|value| value.integer(1..=RATE_MAX));
    let per = table.required("per", time).and_then(|value| value.duration(RATE_PER_MIN..=RATE_PER_MAX));
    let burst = table.optional("burst").map(|value| value.integer(1..=RATE_MAX));
    let count = count?.value;
    let burst = burst.map_or(Some(count), |burst| Some(burst?.value))?;
    Some(Often { count, per: per?.value, burst })
}

fn prefixes(table: &mut Table<'_>) -> (u8, u8) {
    let mut bits = |key, max: u8, default| u8::try_from(table.integer(key, 1..=u32::from(max), default)).unwrap_or(max);
    (bits("prefix_v4", 32, 32), bits("prefix_v6", 128, 64))
}

/// As [`often`].
fn rate_limit(mut table: Table<'_>) -> Option<RateLimit> {
    let often = often(
        &mut table,
        "requests",
        [
            "say how many requests a client may make in `per`, such as requests = 100",
            "say in which time a client may make them, such as per = \"10s\"",
        ],
    );
    let by = rate_limit_key(&mut table);
    let (prefix_v4, prefix_v6) = prefixes(&mut table);
    let entries_max = table.integer("entries_max", 1..=ENTRIES_MAX, ENTRIES_DEFAULT);
    let (log_only, headers) = (table.boolean("log_only", false), table.boolean("headers", false));
    table.finish();
    let Often { count: requests, per, burst } = often?;
    Some(RateLimit { requests, per, burst, by: by?, prefix_v4, prefix_v6, entries_max, log_only, headers })
}

fn rate_limit_key(table: &mut Table<'_>) -> Option<RateLimitKey> {
    /// What a client is known by.
    #[derive(Clone, Copy)]
    enum By {
        SourceIp,
        Header,
        Cookie,
    }
    let words = [("source_ip", By::SourceIp), ("header", By::Header), ("cookie", By::Cookie)];
    let by = table.written("by", |value| value.choice(&words, &[]));
    match by.or_default(By::SourceIp) {
        Some(By::SourceIp) => {
            let remedy = "write by = \"header\" or by = \"cookie\"";
            table.without_meaning(&["name"], "has no meaning with by = \"source_ip\"", remedy);
            Some(RateLimitKey::SourceIp)
        }
        Some(By::Header) => table
            .required("name", "name the header, such as \"X-Api-Key\"")
            .and_then(|value| value.parsed(values::header_name))
            .map(|name| RateLimitKey::Header { name: name.value }),
        Some(By::Cookie) => table
            .required("name", "name the cookie, such as \"SESSION\"")
            .and_then(|value| value.parsed(values::cookie_name))
            .map(|name| RateLimitKey::Cookie { name: name.value }),
        None => {
            table.skip(&["name"]);
            None
        }
    }
}

fn connection_rate(mut table: Table<'_>) -> Option<ConnectionRate> {
    let often = often(
        &mut table,
        "connections",
        [
            "say how many connections a client may make in `per`, such as connections = 100",
            "say in which time a client may make them, such as per = \"10s\"",
        ],
    );
    let (prefix_v4, prefix_v6) = prefixes(&mut table);
    let entries_max = table.integer("entries_max", 1..=ENTRIES_MAX, ENTRIES_DEFAULT);
    table.finish();
    let Often { count: connections, per, burst } = often?;
    Some(ConnectionRate { connections, per, burst, prefix_v4, prefix_v6, entries_max })
}

/// A number of connections of an address, or a table that also says what counts as one address.
fn address_limit(value: Value<'_>) -> Option<AddressLimit> {
    if !value.is_table() {
        let connections = value.integer(1..=CONNECTIONS_PER_ADDRESS_MAX)?.value;
        return Some(AddressLimit { connections, prefix_v4: 32, prefix_v6: 64 });
    }
    let mut table = value.block()?;
    let connections = table
        .required("connections", "say how many connections a client may have at once, such as connections = 100")
        .and_then(|value| value.integer(1..=CONNECTIONS_PER_ADDRESS_MAX));
    let (prefix_v4, prefix_v6) = prefixes(&mut table);
    table.finish();
    Some(AddressLimit { connections: connections?.value, prefix_v4, prefix_v6 })
}

/// Reads `connections_max` of a server.
pub(super) fn connections_max(table: &mut Table<'_>) -> Option<u32> {
    Some(table.optional("connections_max")?.integer(1..=PER_SERVER_MAX)?.value)
}

/// Reads `connections_max` and `queue` of a `[[pool]]`. `limits_servers` is whether some server has a limit of its own.
pub(super) fn pool(table: &mut Table<'_>, mistakes: &Mistakes<'_>, limits_servers: bool) -> Option<PoolConnections> {
    let per_server = table.optional("connections_max").map(|value| value.integer(1..=PER_SERVER_MAX));
    let queue = table.block("queue");
    if let (Some(queue), None, false) = (&queue, &per_server, limits_servers) {
        mistakes.block(
            queue.place(),
            "has no meaning without connections_max: nothing ever waits",
            "add connections_max, the requests that each server may have at once, or leave queue out",
        );
    }
    let (mut queue_max, mut queue_timeout) = (QUEUE_DEFAULT, QUEUE_TIMEOUT_DEFAULT);
    if let Some(mut queue) = queue {
        queue_max = queue.integer("max", 0..=QUEUE_MAX, QUEUE_DEFAULT);
        queue_timeout = queue.duration("timeout", QUEUE_TIMEOUT_MIN..=QUEUE_TIMEOUT_MAX, QUEUE_TIMEOUT_DEFAULT);
        queue.finish();
    }
    if per_server.is_none() && !limits_servers {
        return None;
    }
    Some(PoolConnections { per_server: per_server.flatten().map(|found| found.value), queue_max, queue_timeout })
}

/// Reads the limits of `[worker]`.
pub(super) fn worker(table: &mut Table<'_>) -> WorkerLimits {
    let mut number = |key| Some(table.optional(key)?.integer(1..=WORKER_MAX)?.value);
    WorkerLimits {
        connections_max: number("connections_max"),
        requests_max: number("requests_max"),
        memory_max: table.optional("memory_max").and_then(|value| value.bytes(MEMORY)).map(|found| found.value),
    }
}
