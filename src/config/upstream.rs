//! Reads what a `[[pool]]` says about the way to its servers.

use super::model::{ServerHttp2, ServerProtocol};
use super::reader::Table;

const CONNECTIONS_MAX: u32 = 1024;
const STREAMS_MAX: u32 = 1000;

const PROTOCOLS: [(&str, ServerProtocol); 2] = [("http1", ServerProtocol::Http1), ("h2c", ServerProtocol::H2c)];

/// What needs TLS to servers.
const PROTOCOLS_PLANNED: [&str; 2] = ["h2", "auto"];

/// What is spoken with servers.
pub(super) fn protocol(pool: &mut Table<'_>) -> ServerProtocol {
    let choice = pool.optional("protocol").and_then(|value| value.choice(&PROTOCOLS, &PROTOCOLS_PLANNED));
    choice.map_or(ServerProtocol::Http1, |found| found.value)
}

/// Reads a `[pool.http2]`.
pub(super) fn http2(pool: &mut Table<'_>) -> ServerHttp2 {
    let mut bounds = ServerHttp2 { connections_max: 8, streams_max: 100 };
    if let Some(mut table) = pool.block("http2") {
        bounds.connections_max = table.integer("connections_max", 1..=CONNECTIONS_MAX, bounds.connections_max);
        bounds.streams_max = table.integer("streams_max", 1..=STREAMS_MAX, bounds.streams_max);
        table.finish();
    }
    bounds
}
