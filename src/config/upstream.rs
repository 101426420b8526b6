//! Reads what a `[[pool]]` says about the way to its servers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::blocks::file;
use super::model::{Certificate, Retries, SendProxy, ServerHttp2, ServerProtocol, ServerTls};
use super::reader::{Table, Value, closest};
use super::report::{Located, Mistakes, Place, Wrong};
use super::tls::{CertificateBlock, certificate};
use super::values;

const CONNECTIONS_MAX: u32 = 1024;
const STREAMS_MAX: u32 = 1000;
const ATTEMPTS_MAX: u32 = 10;
const BUDGET_PER_SECOND_MAX: u32 = 10_000;
const REPLAY_BODY_MAX: u32 = 1 << 20;
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(1);
const HEDGE_AFTER_MAX: Duration = Duration::from_secs(600);
/// What a retry can be for: four words and any status.
const CAUSES_MAX: usize = 204;

const PROTOCOLS: [(&str, ServerProtocol); 4] = [
    ("http1", ServerProtocol::Http1),
    ("h2", ServerProtocol::H2),
    ("h2c", ServerProtocol::H2c),
    ("auto", ServerProtocol::Auto),
];

/// How servers are reached, with the places of what only this machine or the whole file can judge.
pub(super) struct Way {
    pub(super) protocol: ServerProtocol,
    pub(super) send_proxy: Option<SendProxy>,
    pub(super) tls: Option<ServerTls>,
    pub(super) files: WayFiles,
}

/// The files that TLS to servers needs.
#[derive(Default)]
pub(super) struct WayFiles {
    pub(super) ca_file: Option<Located<PathBuf>>,
    pub(super) certificate: Option<CertificateBlock>,
    /// Where the block stands that needs the authorities of the system.
    pub(super) system_roots: Option<Place>,
}

/// Reads what a `[[pool]]` says about how its servers are reached.
pub(super) fn way(pool: &mut Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> Way {
    let protocol = pool.optional("protocol").and_then(|value| value.choice(&PROTOCOLS, &[]));
    let versions = [("v1", SendProxy::V1), ("v2", SendProxy::V2)];
    let send_proxy = pool.optional("send_proxy").and_then(|value| value.choice(&versions, &[]));
    let block = pool.optional("tls");
    let has_tls = block.is_some();
    let (tls, files) = match block.and_then(Value::block) {
        Some(table) => tls(table, mistakes, directory),
        None => (None, WayFiles::default()),
    };
    if let Some(found) = &protocol {
        check_protocol(found, has_tls, send_proxy.is_some(), mistakes);
    }
    Way {
        protocol: protocol.map_or(ServerProtocol::Http1, |found| found.value),
        send_proxy: send_proxy.map(|found| found.value),
        tls,
        files,
    }
}

fn check_protocol(protocol: &Located<ServerProtocol>, has_tls: bool, tells_client: bool, mistakes: &Mistakes<'_>) {
    let place = &protocol.place;
    match protocol.value {
        ServerProtocol::H2 if !has_tls => {
            mistakes.value(place, "is HTTP/2 within TLS, and this pool has no tls", "write \"h2c\", or add tls = {}");
        }
        ServerProtocol::Auto if !has_tls => mistakes.value(
            place,
            "asks servers within TLS what they speak, and this pool has no tls",
            "write \"http1\" or \"h2c\", or add tls = {}",
        ),
        ServerProtocol::H2c if has_tls => {
            mistakes.value(place, "is HTTP/2 in clear text, and this pool has tls", "write \"h2\" or \"auto\"");
        }
        ServerProtocol::Http1 | ServerProtocol::H2 | ServerProtocol::H2c | ServerProtocol::Auto => {}
    }
    if tells_client && protocol.value != ServerProtocol::Http1 {
        mistakes.value(
            place,
            "clients share connections of HTTP/2, and send_proxy tells a server of one client for each",
            "write protocol = \"http1\", or leave send_proxy out: servers see X-Forwarded-For",
        );
    }
}

/// Reads a `[pool.tls]`, or the same of something else that is asked over TLS.
pub(super) fn tls(mut table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> (Option<ServerTls>, WayFiles) {
    let verify = table.boolean("verify", true);
    let ca_file = table.optional("ca_file");
    if let Some(value) = ca_file.as_ref().filter(|_| !verify) {
        mistakes.block(value.place(), "has no meaning with verify = false", "leave one of the two out");
    }
    let ca_file = ca_file.and_then(|value| file(value, directory));
    let server_name = table.optional("server_name").and_then(|value| value.parsed(values::host));
    let system_roots = (verify && ca_file.is_none()).then(|| table.place().clone());
    let certificate = table.block("certificate").map(|table| certificate(table, directory));
    table.finish();
    let pair = certificate.as_ref().and_then(|block| {
        Some(Certificate { cert: block.cert.as_ref()?.value.clone(), key: block.key.as_ref()?.value.clone() })
    });
    let tls = ServerTls {
        verify,
        ca_file: ca_file.as_ref().map(|file| file.value.clone()),
        server_name: server_name.map(|name| name.value),
        certificate: pair,
    };
    (Some(tls), WayFiles { ca_file, certificate, system_roots })
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

/// Reads a `[pool.retries]` of a pool whose servers have `response_timeout` to answer.
pub(super) fn retries(
    pool: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
    response_timeout: Duration,
    is_sticky: bool,
) -> Retries {
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
    let hedge_after = table.optional("hedge_after").and_then(|value| value.duration(HEDGE_AFTER_MIN..=HEDGE_AFTER_MAX));
    if let Some(found) = &hedge_after {
        check_hedge(found, &retries, mistakes, response_timeout, is_sticky);
    }
    retries.hedge_after = hedge_after.map(|found| found.value);
    table.finish();
    retries
}

fn check_hedge(
    hedge_after: &Located<Duration>,
    retries: &Retries,
    mistakes: &Mistakes<'_>,
    response_timeout: Duration,
    is_sticky: bool,
) {
    let place = &hedge_after.place;
    match () {
        () if is_sticky => mistakes.value(
            place,
            "sends copies to other servers, and in this pool a client stays with one (sticky)",
            "leave hedge_after out",
        ),
        () if retries.attempts < 2 => mistakes.value(
            place,
            "sends a second copy, and attempts = 1 is the first alone",
            "write attempts = 2 or more, or leave hedge_after out",
        ),
        () if hedge_after.value >= response_timeout => mistakes.value(
            place,
            "must be below response_timeout, after which a request is given up",
            "write a time that most requests are answered in, such as \"100ms\"",
        ),
        () => {}
    }
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
