//! Servers that operators add and remove while a pool runs. Both nodes get to know of it, and each applies it.

use tracing::info;

use super::{malformed, unfit, unknown, unknown_pool, unknown_server};
use crate::config::{FoundServer, POOL_SERVERS_MAX, Server, ServerChange, ServerOrigin};
use crate::inquiry::{Answer, ChangedAnswer, Refusal, ServerOrder};
use crate::proxy::state::{Pool, Site};
use crate::session::facts::FactKey;

/// Changes of one pool that are remembered, those of servers that are gone again among them: the other node may not have
/// heard of these yet.
const CHANGES_MAX: usize = 4 * POOL_SERVERS_MAX;

/// Adds or removes a server, as soon as what is known is applied.
pub(super) fn change(site: &Site, pool: &str, name: &str, order: &ServerOrder) -> Result<Answer, Refusal> {
    let found = site.pools.iter().find(|known| known.config.name == pool);
    let found = found.ok_or_else(|| unknown(unknown_pool(site, pool)))?;
    let change = match order {
        ServerOrder::Add { address, weight, backup, keep } => {
            let server = FoundServer::parse(Some(name), address, *weight, *backup).map_err(malformed)?;
            check_new(found, &server)?;
            ServerChange { server: Some(server), keep: *keep }
        }
        ServerOrder::Remove { keep } => {
            check_known(found, name)?;
            ServerChange { server: None, keep: *keep }
        }
    };
    let (address, keep) = (change.server.as_ref().map(|server| server.address), change.keep);
    tell(site, pool, name, &change)?;
    let what = if address.is_some() { "added" } else { "removed" };
    info!(
        pool,
        server = name,
        address = address.map(|address| address.to_string()),
        keep,
        what,
        "a server was changed"
    );
    Ok(Answer::Changed(ChangedAnswer { pool: pool.to_owned(), server: name.to_owned(), address, keep }))
}

fn check_new(pool: &Pool, server: &FoundServer) -> Result<(), Refusal> {
    let (name, servers) = (&pool.config.name, &pool.config.servers);
    let has = |is_same: &dyn Fn(&Server) -> bool| servers.iter().find(|known| is_same(known));
    if let Some(known) = has(&|known| known.name == server.name) {
        let address = known.address;
        return Err(unfit(format!("pool {name} has a server {} already, at {address}: remove it first", server.name)));
    }
    if let Some(known) = has(&|known| known.address == server.address) {
        return Err(unfit(format!("server {} of pool {name} has the address {} already", known.name, server.address)));
    }
    if servers.len() >= POOL_SERVERS_MAX {
        return Err(unfit(format!("pool {name} has {POOL_SERVERS_MAX} servers, and can have no more: remove some")));
    }
    Ok(())
}

fn check_known(pool: &Pool, name: &str) -> Result<(), Refusal> {
    let server = pool.config.servers.iter().find(|known| known.name == name);
    let server = server.ok_or_else(|| unknown(unknown_server(&[pool], name)))?;
    match (server.origin, &pool.config.discovery) {
        (ServerOrigin::Found, Some(discovery)) => {
            Err(unfit(format!("server {name} was found by {}: remove it there, or disable it here", discovery.source)))
        }
        _ => Ok(()),
    }
}

/// Has both nodes know of it.
fn tell(site: &Site, pool: &str, name: &str, change: &ServerChange) -> Result<(), Refusal> {
    let key = FactKey::Admin { pool: pool.to_owned(), server: ServerChange::key(name) };
    let is_change = |key: &FactKey| matches!(key, FactKey::Admin { pool: of, server } if of == pool && ServerChange::name_in_key(server).is_some());
    let count = {
        let facts = site.sessions.facts();
        if facts.get(&key).is_some() { 0 } else { facts.iter().filter(|(key, _)| is_change(key)).count() }
    };
    if count >= CHANGES_MAX {
        return Err(unfit(format!(
            "{CHANGES_MAX} servers of pool {pool} were added and removed since both nodes have started: use names again, or \
             have a source list them ([pool.discovery])"
        )));
    }
    if site.sessions.tell(key, change.to_value()) {
        return Ok(());
    }
    Err(unfit("there is no room for more that both nodes have to know"))
}
