//! Reads what a `[[pool]]` says about the way to its servers.

use super::model::{Retries, ServerHttp2, ServerProtocol};
use super::reader::{Table, Value, closest};
use super::report::Wrong;

const CONNECTIONS_MAX: u32 = 1024;
const STREAMS_MAX: u32 = 1000;
const ATTEMPTS_MAX: u32 = 10;
const BUDGET_PER_SECOND_MAX: u32 = 10_000;
const REPLAY_BODY_MAX: u32 = 1 << 20;
/// What a retry can be for: four words and any status.
const CAUSES_MAX: usize = 204;

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

#[derive(Clone, Copy)]
enum Cause {
    ConnectFailure,
    RefusedStream,
    BrokenConnection,
    ResponseTimeout,
    Status(u16),
}

const CAUSES: [(&str, Cause); 4] = [
    ("connect_failure", Cause::ConnectFailure),
    ("refused_stream", Cause::RefusedStream),
    ("broken_connection", Cause::BrokenConnection),
    ("response_timeout", Cause::ResponseTimeout),
];

/// Reads a `[pool.retries]`.
pub(super) fn retries(pool: &mut Table<'_>) -> Retries {
    let mut retries = Retries::default();
    let Some(mut table) = pool.block("retries") else { return retries };
    retries.attempts = table.integer("attempts", 1..=ATTEMPTS_MAX, retries.attempts);
    if let Some(list) = table.optional("on") {
        causes(list, &mut retries);
    }
    retries.budget_percent = table.integer("budget_percent", 0..=100, retries.budget_percent);
    retries.budget_per_second =
        table.integer("budget_per_second", 0..=BUDGET_PER_SECOND_MAX, retries.budget_per_second);
    retries.replay_body_max = table.integer("replay_body_max", 0..=REPLAY_BODY_MAX, retries.replay_body_max);
    table.finish();
    retries
}

fn causes(list: Value<'_>, retries: &mut Retries) {
    retries.on_connect_failure = false;
    retries.on_refused_stream = false;
    retries.on_broken_connection = false;
    for found in list.list_of(0, CAUSES_MAX).into_iter().filter_map(|value| value.parsed(cause)) {
        match found.value {
            Cause::ConnectFailure => retries.on_connect_failure = true,
            Cause::RefusedStream => retries.on_refused_stream = true,
            Cause::BrokenConnection => retries.on_broken_connection = true,
            Cause::ResponseTimeout => retries.on_response_timeout = true,
            Cause::Status(status) => retries.on_statuses.push(status),
        }
    }
}

fn cause(text: &str) -> Result<Cause, Wrong> {
    if let Some((_, cause)) = CAUSES.iter().find(|(word, _)| *word == text) {
        return Ok(*cause);
    }
    match text.parse::<u16>() {
        Ok(status @ 400..=599) => Ok(Cause::Status(status)),
        Ok(_) => Err(Wrong::new("must be a status from 400 to 599", "leave it out, or write one such as \"503\"")),
        Err(_) => {
            let words = CAUSES.map(|(word, _)| word);
            let instead = format!("use \"{}\" or a status such as \"503\"", words.join("\", \""));
            let remedy = closest(text, &words).map_or(instead, |meant| format!("did you mean \"{meant}\"?"));
            Err(Wrong::new("is no cause of a retry", remedy))
        }
    }
}
