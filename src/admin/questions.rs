//! Answers questions about sessions and servers from what the threads of a worker share. Takes milliseconds in a table of a
//! million entries, so that it is for a thread that nobody waits for.

mod changes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use tracing::info;

use crate::config::{Sticky, StickyKey};
use crate::inquiry::{Answer, Fault, Filter, Order, PAGE_ENTRIES_MAX, Question, Refusal, ServerAnswer};
use crate::inquiry::{SessionCounts, SessionEntry, SessionsQuestion, VALUE_BYTES_MAX};
use crate::proxy::server::Admin;
use crate::proxy::state::{Pool, Site};
use crate::proxy::sticky::with_network;
use crate::session::ServerRef;
use crate::session::key::Key;
use crate::session::table::Entry;

/// Memory that an entry takes in the table, with its share of the index.
const ENTRY_BYTES: u64 = 52;

/// Why not all of what a store holds is removed here.
const IN_STORE: &str = "the sessions are in the store, and other load balancers use them too: remove one with its key, or \
                        all of them there";

/// Answers a question. What it cannot do is [`Answer::Refused`].
pub fn answer(site: &Site, question: &Question) -> Answer {
    let answered = match question {
        Question::Sessions(SessionsQuestion::List { filter, after, limit }) => {
            list(site, filter, after.as_deref(), *limit)
        }
        Question::Sessions(SessionsQuestion::Count { filter }) => count(site, filter),
        Question::Sessions(SessionsQuestion::Clear { filter }) => clear(site, filter),
        Question::Server { pool, server, order } => set_admin(site, pool, server, *order),
        Question::Change { pool, server, change } => changes::change(site, pool, server, change),
        // The threads of the worker are asked, and nobody here knows them.
        Question::Leave { .. } => Err(malformed("only the guard asks that")),
    };
    answered.unwrap_or_else(Answer::Refused)
}

/// A filter whose names are known.
struct Chosen<'site> {
    /// The pools whose sessions are in the table, with their indexes, and in each the servers that are meant; all of them
    /// when `None`.
    pools: Vec<(u16, &'site Pool, Option<u16>)>,
    /// Pools of the filter that need no table.
    cookie_pools: Vec<&'site str>,
    /// The keys that the filter's value gives in those pools.
    keys: Option<Vec<Key>>,
}

impl Chosen<'_> {
    fn has(&self, entry: &Entry) -> bool {
        let ServerRef { pool, server } = entry.server;
        self.pools.iter().any(|(index, _, only)| *index == pool && only.is_none_or(|only| only == server))
    }
}

fn malformed(reason: impl Into<String>) -> Refusal {
    Refusal { fault: Fault::Malformed, reason: reason.into() }
}

fn unknown(reason: String) -> Refusal {
    Refusal { fault: Fault::Unknown, reason }
}

fn unfit(reason: impl Into<String>) -> Refusal {
    Refusal { fault: Fault::Unfit, reason: reason.into() }
}

fn choose<'site>(site: &'site Site, filter: &Filter) -> Result<Chosen<'site>, Refusal> {
    let indexed = || site.pools.iter().zip(0_u16..);
    let is_named = |pool: &Pool| filter.pool.as_ref().is_none_or(|name| *name == pool.config.name);
    if !indexed().any(|(pool, _)| is_named(pool)) {
        return Err(unknown(unknown_pool(site, filter.pool.as_deref().unwrap_or_default())));
    }
    let server_of = |pool: &Pool, name: &str| {
        let position = pool.config.servers.iter().position(|server| server.name == name);
        position.and_then(|position| u16::try_from(position).ok())
    };
    let mut chosen = Chosen { pools: Vec::new(), cookie_pools: Vec::new(), keys: None };
    let mut has_server = filter.server.is_none();
    for (pool, index) in indexed().filter(|(pool, _)| is_named(pool)) {
        let server = filter.server.as_deref().map(|name| server_of(pool, name));
        if server == Some(None) {
            continue;
        }
        has_server = true;
        match &pool.config.sticky {
            Some(Sticky::Table(_)) => chosen.pools.push((index, pool, server.flatten())),
            Some(Sticky::Cookie(_)) => chosen.cookie_pools.push(&pool.config.name),
            None => {}
        }
    }
    if !has_server {
        let named: Vec<&Pool> = site.pools.iter().map(|pool| &**pool).filter(|pool| is_named(pool)).collect();
        return Err(unknown(unknown_server(&named, filter.server.as_deref().unwrap_or_default())));
    }
    if let Some(value) = &filter.key {
        if value.len() > VALUE_BYTES_MAX {
            let reason = format!("the key is longer than {VALUE_BYTES_MAX} bytes, so that no client sends it");
            return Err(malformed(reason));
        }
        let key = |(index, pool, _): &(u16, &Pool, Option<u16>)| key_of(site, *index, pool, value);
        let keys: Vec<Key> = chosen.pools.iter().filter_map(key).collect();
        if keys.is_empty() && !chosen.pools.is_empty() {
            return Err(malformed("the key has to be an address, as the pool is sticky by source_ip"));
        }
        chosen.keys = Some(keys);
    }
    Ok(chosen)
}

/// As [`choose`], where there has to be a table.
fn choose_in_table<'site>(site: &'site Site, filter: &Filter) -> Result<Chosen<'site>, Refusal> {
    let chosen = choose(site, filter)?;
    if !chosen.pools.is_empty() {
        return Ok(chosen);
    }
    let whose = match &filter.pool {
        Some(pool) => format!("pool {pool} keeps"),
        None => "the pools of this node keep".to_owned(),
    };
    Err(unfit(if chosen.cookie_pools.is_empty() {
        format!("{whose} no sessions: not sticky")
    } else {
        format!("{whose} no sessions here: each client carries the name of its server in a cookie of ours")
    }))
}

fn unknown_pool(site: &Site, name: &str) -> String {
    let known: Vec<&str> = site.pools.iter().map(|pool| pool.config.name.as_str()).collect();
    match known.as_slice() {
        [] => "this node has no pools".to_owned(),
        known => format!("there is no pool {name}; this node has {}", known.join(", ")),
    }
}

fn unknown_server(pools: &[&Pool], name: &str) -> String {
    let of_pool = |pool: &&Pool| {
        let servers: Vec<&str> = pool.config.servers.iter().map(|server| server.name.as_str()).collect();
        format!("pool {} has {}", pool.config.name, servers.join(", "))
    };
    let known: Vec<String> = pools.iter().map(of_pool).collect();
    format!("there is no server {name}; {}", known.join("; "))
}

/// The key of what a client of a pool sends; `None` when no client of it can send that.
fn key_of(site: &Site, index: u16, pool: &Pool, value: &str) -> Option<Key> {
    let Some(Sticky::Table(table)) = &pool.config.sticky else { return None };
    match &table.key {
        StickyKey::SourceIp { prefix_v4, prefix_v6 } => {
            let address = IpAddr::from_str(value).ok()?;
            with_network(address, *prefix_v4, *prefix_v6, |network| site.sessions.keys.key(index, network))
        }
        _ => site.sessions.keys.key(index, value.as_bytes()),
    }
}

/// Entries of the filter's keys.
fn looked_up(site: &Site, chosen: &Chosen<'_>, keys: &[Key]) -> Vec<Entry> {
    let found = keys.iter().filter_map(|key| site.sessions.table.peek(key, site.sessions.now()));
    found.filter(|entry| chosen.has(entry)).collect()
}

fn list(site: &Site, filter: &Filter, after: Option<&str>, limit: u32) -> Result<Answer, Refusal> {
    let chosen = choose_in_table(site, filter)?;
    let after = after
        .map(|hex| key_from_hex(hex).ok_or_else(|| malformed("the place to go on from is not understood")))
        .transpose()?;
    let limit = usize::try_from(limit.clamp(1, PAGE_ENTRIES_MAX)).unwrap_or(1);
    let mut page = BTreeMap::new();
    let mut is_more = false;
    let mut take = |entry: &Entry| {
        if !chosen.has(entry) || after.is_some_and(|after| entry.key <= after) {
            return;
        }
        // The page has the lowest keys, whatever order they come in: however the table changes between two pages, no entry
        // that stays is missed and none comes twice.
        if page.len() < limit || page.last_key_value().is_some_and(|(last, _)| entry.key < *last) {
            page.insert(entry.key, *entry);
        } else {
            is_more = true;
        }
        if page.len() > limit {
            page.pop_last();
            is_more = true;
        }
    };
    match &chosen.keys {
        Some(keys) => looked_up(site, &chosen, keys).iter().for_each(&mut take),
        None => {
            for pool in scanned(&chosen) {
                site.sessions.table.each(pool, site.sessions.now(), |entry| {
                    take(entry);
                    true
                });
            }
        }
    }
    let next = page.last_key_value().filter(|_| is_more).map(|(key, _)| key.to_string());
    let entries = page.into_values().filter_map(|entry| shown(site, &entry)).collect();
    Ok(Answer::Entries { entries, next })
}

/// The pools to look through: one, or all in one go.
fn scanned(chosen: &Chosen<'_>) -> [Option<u16>; 1] {
    match chosen.pools.as_slice() {
        [(only, _, _)] => [Some(*only)],
        _ => [None],
    }
}

fn shown(site: &Site, entry: &Entry) -> Option<SessionEntry> {
    let pool = site.pools.get(usize::from(entry.server.pool))?;
    let server = pool.config.servers.get(usize::from(entry.server.server))?;
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Some(SessionEntry {
        key: entry.key.to_string(),
        pool: pool.config.name.clone(),
        server: server.name.clone(),
        idle_ms: millis(entry.idle),
        expires_in_ms: millis(entry.expires_in),
        version: entry.version.to_string(),
    })
}

fn key_from_hex(hex: &str) -> Option<Key> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    let bytes: [u8; 16] = bytes.filter(|_| rest.is_empty())?.try_into().ok()?;
    Some(Key::from_bytes(bytes))
}

fn count(site: &Site, filter: &Filter) -> Result<Answer, Refusal> {
    let chosen = choose(site, filter)?;
    let is_chosen = |name: &str| chosen.pools.iter().any(|(_, pool, _)| pool.config.name == name);
    let status = site.sessions.status(&site.pools);
    let mut pools: Vec<_> = status.pools.into_iter().filter(|pool| is_chosen(&pool.pool)).collect();
    if let Some(name) = &filter.server {
        for pool in &mut pools {
            pool.by_server.retain(|server| server.server == *name);
        }
    }
    let entries = pools.iter().flat_map(|pool| &pool.by_server).map(|server| server.entries).sum();
    let bytes = ENTRY_BYTES.saturating_mul(site.sessions.table.slots_in_use() as u64);
    let cookie_pools = chosen.cookie_pools.iter().map(|name| (*name).to_owned()).collect();
    Ok(Answer::Counts(SessionCounts { entries, bytes, pools, cookie_pools }))
}

fn clear(site: &Site, filter: &Filter) -> Result<Answer, Refusal> {
    let chosen = choose_in_table(site, filter)?;
    let (table, now) = (&site.sessions.table, site.sessions.now());
    let has_store = site.sessions.store().is_some();
    let count: u64 = match &chosen.keys {
        // The store may have one that this node has never seen, on whatever server.
        Some(keys) if has_store && filter.server.is_none() => {
            keys.iter().map(|key| u64::from(site.sessions.remove(key))).sum()
        }
        Some(keys) => {
            let found = looked_up(site, &chosen, keys);
            found.iter().map(|entry| u64::from(site.sessions.remove(&entry.key))).sum()
        }
        None if has_store => return Err(unfit(IN_STORE)),
        None => chosen.pools.iter().map(|(pool, _, server)| table.clear(Some(*pool), *server, now)).sum(),
    };
    // The key is a secret, and so is not told.
    info!(pool = filter.pool, server = filter.server, count, "sessions were removed");
    Ok(Answer::Cleared { count })
}

fn set_admin(site: &Site, pool_name: &str, name: &str, order: Order) -> Result<Answer, Refusal> {
    let found = site.pools.iter().zip(0_u16..).find(|(pool, _)| pool.config.name == pool_name);
    let (pool, index) = found.ok_or_else(|| unknown(unknown_pool(site, pool_name)))?;
    let position = pool.config.servers.iter().position(|server| server.name == name);
    let server = position.and_then(|position| Some((position, pool.servers.get(position)?)));
    let (position, server) = server.ok_or_else(|| unknown(unknown_server(&[pool], name)))?;
    let admin = match order {
        Order::Enable => Admin::Enabled,
        Order::Drain => Admin::Draining,
        Order::Disable => Admin::Disabled,
    };
    // It is there, as was just seen.
    let _is_there = site.administer(pool_name, name, admin);
    let has_table = matches!(pool.config.sticky, Some(Sticky::Table(_)));
    let sessions = site.sessions.table.counts(index).get(position).map(|count| *count as u64).filter(|_| has_table);
    let admin = server.admin().as_str().to_owned();
    Ok(Answer::Server(ServerAnswer { pool: pool_name.to_owned(), server: name.to_owned(), admin, sessions }))
}

#[cfg(test)]
mod tests;
