//! Reads `[pool.health]` and `[pool.agent]`: how servers are checked, and where they say by themselves how they are.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::blocks::{LOOK_INTERVAL_MAX, Rhythm, file, interval_and_timeout};
use super::model::{Agent, Check, CheckTls, CheckWay, DnsCheck, Expected, Health, HttpCheck, Role};
use super::reader::{Table, Value};
use super::report::{Located, Mistakes, Wrong};
use super::upstream::{self, WayFiles};
use super::{route_values, values, watching};

const INTERVAL_MIN: Duration = Duration::from_millis(100);
const RHYTHM: Rhythm = Rhythm {
    interval_min: INTERVAL_MIN,
    interval_default: Duration::from_secs(2),
    timeout_default: Duration::from_secs(1),
};
const HEADERS_MAX: usize = 32;
const STATUSES_MAX: usize = 32;
/// What fits into one datagram on any network, and is more than any check sends.
const SEND_BYTES_MAX: usize = 1024;
const USER_MAX: usize = 128;
const EXPIRY_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Tcp,
    Tls,
    Grpc,
    Dns,
    Udp,
    Postgres,
    Mysql,
    Redis,
    Smtp,
    Command,
}

const KINDS: [(&str, Kind); 11] = [
    ("http", Kind::Http),
    ("tcp", Kind::Tcp),
    ("tls", Kind::Tls),
    ("grpc", Kind::Grpc),
    ("dns", Kind::Dns),
    ("udp", Kind::Udp),
    ("postgres", Kind::Postgres),
    ("mysql", Kind::Mysql),
    ("redis", Kind::Redis),
    ("smtp", Kind::Smtp),
    ("command", Kind::Command),
];

/// The keys that say something about some checks alone.
const KEYS: [(&str, &[Kind]); 25] = [
    ("path", &[Kind::Http]),
    ("host", &[Kind::Http, Kind::Grpc]),
    ("method", &[Kind::Http]),
    ("headers", &[Kind::Http]),
    ("statuses", &[Kind::Http]),
    ("http2", &[Kind::Http]),
    ("send", &[Kind::Tcp, Kind::Udp]),
    ("send_hex", &[Kind::Tcp, Kind::Udp]),
    ("expect", &[Kind::Http, Kind::Tcp, Kind::Udp]),
    ("expect_regex", &[Kind::Http, Kind::Tcp, Kind::Udp]),
    ("expect_hex", &[Kind::Tcp, Kind::Udp]),
    ("expires_within", &[Kind::Tls]),
    ("expiring", &[Kind::Tls]),
    ("service", &[Kind::Grpc]),
    ("query", &[Kind::Dns]),
    ("record", &[Kind::Dns]),
    ("over", &[Kind::Dns]),
    ("rcode", &[Kind::Dns]),
    ("answer", &[Kind::Dns]),
    ("user", &[Kind::Postgres, Kind::Mysql, Kind::Redis]),
    ("password_file", &[Kind::Postgres, Kind::Mysql, Kind::Redis]),
    ("database", &[Kind::Postgres]),
    ("role", &[Kind::Postgres, Kind::Mysql, Kind::Redis]),
    ("command", &[Kind::Command]),
    ("tls", &[Kind::Http, Kind::Tcp, Kind::Tls, Kind::Grpc, Kind::Postgres, Kind::Redis, Kind::Smtp]),
];

/// The types of records that a name server may be asked for, by their numbers (RFC 1035 section 3.2.2, RFC 3596, RFC 2782).
const RECORDS: [(&str, u16); 9] =
    [("A", 1), ("AAAA", 28), ("NS", 2), ("CNAME", 5), ("SOA", 6), ("PTR", 12), ("MX", 15), ("TXT", 16), ("SRV", 33)];
/// Codes of answers (RFC 1035 section 4.1.1).
const RCODES: [(&str, u8); 4] = [("NOERROR", 0), ("SERVFAIL", 2), ("NXDOMAIN", 3), ("REFUSED", 5)];

/// `[pool.health]` with what only this machine can judge.
#[derive(Default)]
pub(super) struct HealthBlock {
    pub(super) health: Option<Health>,
    /// What its own TLS needs.
    pub(super) files: WayFiles,
    pub(super) password_file: Option<Located<PathBuf>>,
    /// The program of a command.
    pub(super) program: Option<Located<String>>,
}

/// Reads a `[pool.health]`. `has_tls` is whether the servers of the pool are reached with TLS.
pub(super) fn health(mut table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path, has_tls: bool) -> HealthBlock {
    let written = table.optional("type");
    let kind = written.and_then(|value| value.choice(&KINDS, &[]));
    let kind = kind.map_or(Kind::Http, |found| found.value);
    without_meaning(kind, &mut table);
    let mut block = HealthBlock::default();
    let check = check(kind, &mut table, mistakes, &mut block);
    let way = way(kind, &mut table, mistakes, directory, has_tls, &mut block);
    let (interval, timeout) = interval_and_timeout(&mut table, mistakes, &RHYTHM);
    let when_down = table.optional("interval_when_down");
    let when_down = when_down.and_then(|value| value.duration(INTERVAL_MIN..=LOOK_INTERVAL_MAX));
    if let Some(found) = when_down.as_ref().filter(|found| found.value > interval) {
        let interval = values::duration_text(interval);
        let rule = format!("must not be above interval, which is {interval}");
        mistakes.value(&found.place, rule, "write a shorter one, or leave it out");
    }
    let starts = table.optional("start").and_then(|value| value.choice(&[("up", true), ("down", false)], &[]));
    block.health = Some(Health {
        check,
        way,
        interval,
        interval_when_down: when_down.map_or(interval, |found| found.value),
        timeout,
        fall: table.integer("fall", 1..=100, 3),
        rise: table.integer("rise", 1..=100, 2),
        starts_up: starts.is_none_or(|found| found.value),
    });
    table.finish();
    block
}

/// Refuses the keys that are for other checks.
fn without_meaning(kind: Kind, table: &mut Table<'_>) {
    let word = |kind: Kind| KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word);
    for (key, kinds) in KEYS.iter().filter(|(_, kinds)| !kinds.contains(&kind)) {
        let words: Vec<String> = kinds.iter().map(|kind| format!("type = \"{}\"", word(*kind))).collect();
        table.without_meaning(
            &[key],
            &format!("has no meaning with type = \"{}\"", word(kind)),
            &format!("leave it out, or write {}", words.join(" or ")),
        );
    }
}

fn way(
    kind: Kind,
    table: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
    directory: &Path,
    has_tls: bool,
    block: &mut HealthBlock,
) -> CheckWay {
    let mut way = CheckWay { address: None, port: port(table), ..CheckWay::default() };
    way.address = table.optional("address").and_then(|value| value.parsed(address)).map(|found| found.value);
    if kind == Kind::Command && (way.port.is_some() || way.address.is_some()) {
        let rule = "has no meaning with type = \"command\"";
        table.without_meaning(&["port", "address"], rule, "leave it out: the command is told the server's address");
    }
    let own = table.optional("tls").filter(|_| kind_has("tls", kind));
    let is_judged = has_tls || own.is_some();
    way.tls = match own {
        None => CheckTls::AsPool,
        Some(value) if value.is_false() && kind != Kind::Tls => CheckTls::Off,
        Some(value) => match value.block().map(|table| upstream::tls(table, mistakes, directory)) {
            Some((Some(tls), files)) => {
                block.files = files;
                CheckTls::Own(tls)
            }
            Some((None, _)) | None => CheckTls::AsPool,
        },
    };
    if kind == Kind::Tls && !is_judged {
        let remedy = "add tls = {}, or tls = { verify = false } where any certificate will do";
        mistakes.block(table.place(), "nothing says which certificates are good: the pool has no tls", remedy);
    }
    if kind_has("http2", kind) {
        way.http2 = table.optional("http2").and_then(Value::boolean);
    }
    if kind_has("password_file", kind) {
        block.password_file = table.optional("password_file").and_then(|value| file(value, directory));
        way.password_file = block.password_file.as_ref().map(|found| found.value.clone());
        if kind == Kind::Mysql && !table.has("user") {
            table.without_meaning(&["password_file"], "a password needs a user", "add user = \"…\"");
        }
    }
    way
}

fn kind_has(key: &str, kind: Kind) -> bool {
    KEYS.iter().any(|(known, kinds)| *known == key && kinds.contains(&kind))
}

fn port(table: &mut Table<'_>) -> Option<u16> {
    let port = table.optional("port").and_then(|value| value.integer(1..=65_535))?;
    u16::try_from(port.value).ok()
}

/// An address of one machine.
fn address(text: &str) -> Result<IpAddr, Wrong> {
    let wrong = |_| Wrong::new("must be an IP address", "write an address such as \"10.0.0.1\"");
    text.parse::<IpAddr>().map_err(wrong)
}

fn check(kind: Kind, table: &mut Table<'_>, mistakes: &Mistakes<'_>, block: &mut HealthBlock) -> Check {
    match kind {
        Kind::Http => Check::Http(http(table, mistakes)),
        Kind::Tcp => Check::Tcp { send: send(table, mistakes), expect: expected(table, mistakes) },
        Kind::Tls => tls(table),
        Kind::Grpc => Check::Grpc {
            service: text(table, "service", service).unwrap_or_default(),
            host: text(table, "host", values::host_header),
        },
        Kind::Dns => Check::Dns(dns(table, mistakes)),
        Kind::Udp => {
            let send = send(table, mistakes);
            if !table.has("send") && !table.has("send_hex") {
                let _absent = table.required("send", "write what the server is sent, such as send = \"ping\"");
            }
            Check::Udp { send, expect: expected(table, mistakes) }
        }
        Kind::Postgres => Check::Postgres {
            user: text(table, "user", user).unwrap_or_else(|| "postgres".to_owned()),
            database: text(table, "database", user).unwrap_or_else(|| "postgres".to_owned()),
            role: role(table),
        },
        Kind::Mysql => {
            let (user, role) = (text(table, "user", user), role(table));
            if user.is_none() && role != Role::Any {
                let rule = "has no meaning without a user: only who is logged in can ask";
                table.without_meaning(&["role"], rule, "add user = \"…\"");
            }
            Check::Mysql { user, role }
        }
        Kind::Redis => Check::Redis { user: text(table, "user", user), role: role(table) },
        Kind::Smtp => Check::Smtp,
        Kind::Command => {
            let words = table
                .required("command", "list the program and its arguments, such as [\"/usr/local/bin/check\"]")
                .map(watching::command)
                .unwrap_or_default();
            block.program = words.first().cloned();
            Check::Command(words.into_iter().map(|word| word.value).collect())
        }
    }
}

fn text(table: &mut Table<'_>, key: &'static str, parse: impl FnOnce(&str) -> Result<String, Wrong>) -> Option<String> {
    table.optional(key).and_then(|value| value.parsed(parse)).map(|found| found.value)
}

fn role(table: &mut Table<'_>) -> Role {
    let roles = [("any", Role::Any), ("primary", Role::Primary), ("replica", Role::Replica)];
    table.optional("role").and_then(|value| value.choice(&roles, &[])).map_or(Role::Any, |found| found.value)
}

fn http(table: &mut Table<'_>, mistakes: &Mistakes<'_>) -> HttpCheck {
    let default = HttpCheck::default();
    let path = text(table, "path", values::path).unwrap_or(default.path);
    let host = text(table, "host", values::host_header);
    let method = text(table, "method", route_values::method).unwrap_or(default.method);
    let statuses = table.optional("statuses").map(|value| value.one_or_list(STATUSES_MAX));
    let statuses = statuses.map(|list| {
        let read = list.into_iter().filter_map(|value| value.parsed(statuses_of));
        read.map(|found| found.value).collect()
    });
    let body = expected(table, mistakes);
    if method == "HEAD" && body.is_some() {
        let keys = ["expect", "expect_regex"];
        table.without_meaning(&keys, "an answer to HEAD has no body", "leave it out, or write another method");
    }
    HttpCheck { method, path, host, headers: headers(table), statuses: statuses.unwrap_or(default.statuses), body }
}

fn headers(table: &mut Table<'_>) -> Vec<(String, String)> {
    let entries = table.block("headers").map(|table| table.into_entries(HEADERS_MAX)).unwrap_or_default();
    let header = |(name, value): (&str, Value<'_>)| {
        let name = value.key_parsed(name, values::free_header_name)?;
        Some((name, value.parsed(route_values::field_text)?.value))
    };
    entries.into_iter().filter_map(header).collect()
}

/// `200`, or `200-299`.
fn statuses_of(text: &str) -> Result<(u16, u16), Wrong> {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (status(from), status(to)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => Err(Wrong::new("must be a status or a range of them, 100 to 599", "write \"200\" or \"200-299\"")),
    }
}

/// What is sent; empty where nothing is.
fn send(table: &mut Table<'_>, mistakes: &Mistakes<'_>) -> Vec<u8> {
    let plain = table.optional("send").and_then(|value| value.parsed(bytes));
    let in_hex = table.optional("send_hex").and_then(|value| value.parsed(hex));
    let (Some(_), Some(second)) = (&plain, &in_hex) else {
        return plain.or(in_hex).map(|found| found.value).unwrap_or_default();
    };
    mistakes.value(&second.place, "has no meaning beside send", "keep one of them");
    Vec::new()
}

fn expected(table: &mut Table<'_>, mistakes: &Mistakes<'_>) -> Option<Expected> {
    let plain = table.optional("expect").and_then(|value| value.parsed(bytes));
    let regex = table.optional("expect_regex").and_then(|value| value.parsed(route_values::regex));
    let in_hex = table.optional("expect_hex").and_then(|value| value.parsed(hex));
    let into = |found: Located<Vec<u8>>| Located { value: Expected::Bytes(found.value), place: found.place };
    let regex = regex.map(|found| Located { value: Expected::Regex(found.value), place: found.place });
    let mut found = plain.map(into).into_iter().chain(regex).chain(in_hex.map(into));
    let first = found.next();
    for further in found {
        mistakes.value(
            &further.place,
            "one thing alone can be expected",
            "keep one of expect, expect_regex, expect_hex",
        );
    }
    first.map(|found| found.value)
}

fn bytes(text: &str) -> Result<Vec<u8>, Wrong> {
    if !text.is_empty() && text.len() <= SEND_BYTES_MAX {
        return Ok(text.as_bytes().to_vec());
    }
    Err(Wrong::new(format!("must be 1 to {SEND_BYTES_MAX} bytes"), "write a text such as \"PING\\r\\n\""))
}

fn hex(text: &str) -> Result<Vec<u8>, Wrong> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|character| *character != ' ')
        .map(|character| character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .unwrap_or_default();
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.is_empty() || pairs.len() > SEND_BYTES_MAX || !rest.is_empty() {
        let rule = format!("must be 1 to {SEND_BYTES_MAX} bytes as pairs of hex digits");
        return Err(Wrong::new(rule, "write them such as \"50 49 4e 47\""));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn tls(table: &mut Table<'_>) -> Check {
    let expires_within = table.optional("expires_within");
    let expires_within = expires_within.and_then(|value| value.duration(Duration::from_secs(60)..=EXPIRY_MAX));
    let expiring = table.optional("expiring").and_then(|value| value.choice(&[("warn", false), ("fail", true)], &[]));
    if expires_within.is_none() && !table.has("expires_within") {
        let remedy = "leave it out, or add expires_within = \"336h\"";
        table.without_meaning(&["expiring"], "has no meaning without expires_within", remedy);
    }
    Check::Tls {
        expires_within: expires_within.map(|found| found.value),
        fails: expiring.is_some_and(|found| found.value),
    }
}

/// The name of a service of gRPC.
fn service(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    let remedy = "write a name such as \"shop.Cart\", or leave it out to ask for the whole server";
    Err(Wrong::new("must be 1 to 256 printable characters without spaces", remedy))
}

/// A user or a database.
fn user(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.len() <= USER_MAX && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("must be a name of 1 to {USER_MAX} bytes"), "write a name such as \"baton\""))
}

fn dns(table: &mut Table<'_>, mistakes: &Mistakes<'_>) -> DnsCheck {
    let name = table.required("query", "write the name that is asked for, such as query = \"example.com\"");
    let record = table.optional("record").and_then(|value| value.choice(&RECORDS, &[])).map_or(1, |found| found.value);
    let over = table.optional("over").and_then(|value| value.choice(&[("udp", false), ("tcp", true)], &[]));
    let rcode = table.optional("rcode").and_then(|value| value.choice(&RCODES, &[])).map_or(0, |found| found.value);
    let answer = table.optional("answer").and_then(|value| value.parsed(address));
    if let Some(found) = &answer {
        let fits = matches!((record, found.value), (1, IpAddr::V4(_)) | (28, IpAddr::V6(_)));
        if !fits {
            let remedy = "write an IPv4 address with record = \"A\", or an IPv6 address with record = \"AAAA\"";
            mistakes.value(&found.place, "no record of that type has such an answer", remedy);
        }
    }
    DnsCheck {
        name: name.and_then(|value| value.parsed(query)).map(|found| found.value).unwrap_or_default(),
        record,
        over_tcp: over.is_some_and(|found| found.value),
        rcode,
        answer: answer.map(|found| found.value),
    }
}

/// A name as it is asked for: labels of 1 to 63 bytes, 253 in all; `.` is the root.
fn query(text: &str) -> Result<String, Wrong> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic());
    if text == "." || (name.len() <= 253 && name.split('.').all(is_label)) {
        return Ok(name.to_owned());
    }
    Err(Wrong::new("must be the name of a host or a domain", "write a name such as \"example.com\""))
}

/// Reads a `[pool.agent]`.
pub(super) fn agent(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> Agent {
    if !table.has("port") {
        let _absent = table.required("port", "write the port at which servers say how they are, such as 9777");
    }
    let port = port(&mut table).unwrap_or_default();
    let address = table.optional("address").and_then(|value| value.parsed(address)).map(|found| found.value);
    let send = table.optional("send").and_then(|value| value.parsed(bytes)).map(|found| found.value);
    let (interval, timeout) = interval_and_timeout(&mut table, mistakes, &RHYTHM);
    let on_silence = [("keep", false), ("reset", true)];
    let forgets = table.optional("on_silence").and_then(|value| value.choice(&on_silence, &[]));
    table.finish();
    Agent {
        port,
        address,
        send: send.unwrap_or_default(),
        interval,
        timeout,
        forgets: forgets.is_some_and(|found| found.value),
    }
}
