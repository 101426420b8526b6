//! Reads `[pool.sticky]` and `[sessions]`: what keeps a client on its server, and how that is remembered.

use std::path::Path;
use std::time::Duration;

use super::blocks::SessionsBlock;
use super::model::{CookieSecure, OnDown, SameSite, Sessions, Sticky, StickyCookie, StickyKey, StickyTable};
use super::reader::Table;
use super::report::{Located, Mistakes};
use super::store::StoreBlock;
use super::{store, values};

const TTL_MIN: Duration = Duration::from_secs(1);
/// What browsers keep a cookie for at most.
const TTL_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
const TABLE_TTL_DEFAULT: Duration = Duration::from_secs(3600);
const ENTRIES_MAX: u32 = 16_000_000;
const ENTRIES_DEFAULT: u32 = 1_000_000;
const SNAPSHOT_INTERVAL_MIN: Duration = Duration::from_secs(1);
const SNAPSHOT_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
const SNAPSHOT_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);

/// What a client is known by, and so which keys the block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StickyBy {
    Cookie,
    AppCookie,
    SourceIp,
    Header,
    Query,
    TlsSni,
    TlsSessionId,
}

const KINDS: [(&str, StickyBy); 7] = [
    ("cookie", StickyBy::Cookie),
    ("app_cookie", StickyBy::AppCookie),
    ("source_ip", StickyBy::SourceIp),
    ("header", StickyBy::Header),
    ("query", StickyBy::Query),
    ("tls_sni", StickyBy::TlsSni),
    ("tls_session_id", StickyBy::TlsSessionId),
];

const COOKIE_KEYS: &[&str] = &["secure", "http_only", "same_site", "path", "domain"];
const SOURCE_KEYS: &[&str] = &["prefix_v4", "prefix_v6"];
const TABLE_KEYS: &[&str] = &["entries_max"];

impl StickyBy {
    /// As the file has it.
    pub(super) fn word(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }

    /// Whether it is read in the TLS handshake of a connection that is passed on as it is.
    pub(super) fn is_of_tls(self) -> bool {
        matches!(self, StickyBy::TlsSni | StickyBy::TlsSessionId)
    }

    /// Whether it is read in a request.
    pub(super) fn is_of_http(self) -> bool {
        matches!(self, StickyBy::Cookie | StickyBy::AppCookie | StickyBy::Header | StickyBy::Query)
    }

    fn has_name(self) -> bool {
        matches!(self, StickyBy::Cookie | StickyBy::AppCookie | StickyBy::Header | StickyBy::Query)
    }
}

/// Reads a `[pool.sticky]`: its `by`, when that could be read, and what it means, when all of it could be.
pub(super) fn sticky(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> (Option<Located<StickyBy>>, Option<Sticky>) {
    let by = match table.optional("by") {
        Some(value) => value.choice(&KINDS, &[]),
        None => Some(Located { value: StickyBy::Cookie, place: table.place().clone() }),
    };
    let Some(kind) = by.as_ref().map(|by| by.value) else {
        // Nobody knows which of them were meant.
        for keys in [&["name", "ttl", "ttl_max", "on_down"], COOKIE_KEYS, SOURCE_KEYS, TABLE_KEYS] {
            table.skip(keys);
        }
        table.finish();
        return (None, None);
    };
    let name = name(kind, &mut table);
    let (ttl, ttl_max) = times_to_live(kind, &mut table, mistakes);
    let on_down = table
        .optional("on_down")
        .and_then(|value| value.choice(&[("rebalance", OnDown::Rebalance), ("fail", OnDown::Fail)], &[]))
        .map_or(OnDown::Rebalance, |found| found.value);
    refuse_keys_of_others(kind, &mut table);
    let sticky = if kind == StickyBy::Cookie {
        let name = name.unwrap_or_else(|| "BATON".to_owned());
        Some(Sticky::Cookie(cookie(&mut table, mistakes, name, (ttl, ttl_max), on_down)))
    } else {
        let key = key(kind, &mut table, name);
        let ttl = ttl.unwrap_or(TABLE_TTL_DEFAULT);
        let entries_max = table.integer("entries_max", 1..=ENTRIES_MAX, ENTRIES_DEFAULT);
        key.map(|key| Sticky::Table(StickyTable { key, ttl, ttl_max, entries_max, on_down }))
    };
    table.finish();
    (by, sticky)
}

/// The name, which three kinds cannot do without and three have none of.
fn name(kind: StickyBy, table: &mut Table<'_>) -> Option<String> {
    let value = match kind {
        StickyBy::Cookie => table.optional("name"),
        StickyBy::AppCookie => table.required("name", "name the application's cookie, such as \"JSESSIONID\""),
        StickyBy::Header => table.required("name", "name the header, such as \"X-User\""),
        StickyBy::Query => table.required("name", "name the query parameter, such as \"user\""),
        StickyBy::SourceIp | StickyBy::TlsSni | StickyBy::TlsSessionId => None,
    };
    let read = match kind {
        StickyBy::Header => values::header_name,
        StickyBy::Query => values::query_name,
        _ => values::cookie_name,
    };
    Some(value?.parsed(read)?.value)
}

/// The idle and the absolute time to live.
fn times_to_live(
    kind: StickyBy,
    table: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
) -> (Option<Duration>, Option<Duration>) {
    let ttl = table.written("ttl", |value| value.duration(TTL_MIN..=TTL_MAX));
    let ttl_max = table.optional("ttl_max").and_then(|value| value.duration(TTL_MIN..=TTL_MAX));
    let is_broken = ttl.is_there() && ttl.known().is_none();
    let default = (kind != StickyBy::Cookie).then_some(TABLE_TTL_DEFAULT);
    let idle = ttl.known().map(|ttl| ttl.value).or(default);
    if let (Some(absolute), Some(idle), false) = (&ttl_max, idle, is_broken)
        && absolute.value < idle
    {
        let ttl = values::duration_text(idle);
        mistakes.value(
            &absolute.place,
            format!("must not be below ttl, which is {ttl}"),
            format!("write at least \"{ttl}\", or a shorter ttl"),
        );
    }
    (idle, ttl_max.map(|found| found.value))
}

/// Keys that say nothing about this kind.
fn refuse_keys_of_others(kind: StickyBy, table: &mut Table<'_>) {
    let word = kind.word();
    let rule = format!("has no meaning with by = \"{word}\"");
    let mut refuse = |keys: &[&'static str], remedy: &str| table.without_meaning(keys, &rule, remedy);
    if !kind.has_name() {
        refuse(&["name"], "leave it out");
    }
    if kind == StickyBy::Cookie {
        refuse(TABLE_KEYS, "leave it out: Baton's own cookie needs no table");
    } else {
        refuse(COOKIE_KEYS, "leave it out, or write by = \"cookie\"");
    }
    if kind != StickyBy::SourceIp {
        refuse(SOURCE_KEYS, "leave it out, or write by = \"source_ip\"");
    }
}

fn cookie(
    table: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
    name: String,
    (ttl, ttl_max): (Option<Duration>, Option<Duration>),
    on_down: OnDown,
) -> StickyCookie {
    let secure = [("auto", CookieSecure::Auto), ("always", CookieSecure::Always), ("never", CookieSecure::Never)];
    let secure = table
        .optional("secure")
        .and_then(|value| value.choice(&secure, &[]))
        .map_or(CookieSecure::Auto, |found| found.value);
    let same_site =
        [("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None), ("off", SameSite::Off)];
    let same_site = table.optional("same_site").and_then(|value| value.choice(&same_site, &[]));
    if let Some(found) = &same_site
        && found.value == SameSite::None
        && secure == CookieSecure::Never
    {
        mistakes.value(
            &found.place,
            "browsers take SameSite=None with Secure alone, and secure is \"never\"",
            "write secure = \"auto\" or \"always\", or same_site = \"lax\"",
        );
    }
    let text = |value: Option<Located<String>>| value.map(|found| found.value);
    StickyCookie {
        name,
        ttl,
        ttl_max,
        secure,
        http_only: table.boolean("http_only", true),
        same_site: same_site.map_or(SameSite::Lax, |found| found.value),
        path: text(table.optional("path").and_then(|value| value.parsed(values::cookie_path)))
            .unwrap_or_else(|| "/".to_owned()),
        domain: text(table.optional("domain").and_then(|value| value.parsed(values::cookie_domain))),
        on_down,
    }
}

/// `None` where a name is missing or broken, which is reported then.
fn key(kind: StickyBy, table: &mut Table<'_>, name: Option<String>) -> Option<StickyKey> {
    let mut bits = |key, max: u8| {
        let read = table.integer(key, 1..=u32::from(max), if max == 32 { 32 } else { 64 });
        u8::try_from(read).unwrap_or(max)
    };
    match kind {
        StickyBy::Cookie => None,
        StickyBy::AppCookie => Some(StickyKey::AppCookie { name: name? }),
        StickyBy::SourceIp => {
            Some(StickyKey::SourceIp { prefix_v4: bits("prefix_v4", 32), prefix_v6: bits("prefix_v6", 128) })
        }
        StickyBy::Header => Some(StickyKey::Header { name: name? }),
        StickyBy::Query => Some(StickyKey::Query { name: name? }),
        StickyBy::TlsSni => Some(StickyKey::TlsSni),
        StickyBy::TlsSessionId => Some(StickyKey::TlsSessionId),
    }
}

/// Reads `[sessions]`.
pub(super) fn sessions(table: Option<Table<'_>>, mistakes: &Mistakes<'_>, directory: &Path) -> SessionsBlock {
    let mut sessions = Sessions { snapshot_interval: SNAPSHOT_INTERVAL_DEFAULT, store: None };
    let Some(mut table) = table else { return SessionsBlock { sessions, store: StoreBlock::default() } };
    sessions.snapshot_interval =
        table.duration("snapshot_interval", SNAPSHOT_INTERVAL_MIN..=SNAPSHOT_INTERVAL_MAX, sessions.snapshot_interval);
    let (store, files) = store::store(&mut table, mistakes, directory);
    sessions.store = store;
    table.finish();
    SessionsBlock { sessions, store: files }
}
