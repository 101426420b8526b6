//! How many connections the limit on open files allows.

use tracing::warn;

use crate::net::open_files;
use crate::proxy::state::Site;

/// Kept for what is no connection of a client, and no connection to a server for one: checks, the other node, questions, files
/// that are read again.
const RESERVE: u64 = 64;

/// A connection of a client needs one to a server beside its own.
const EACH: u64 = 2;

/// Raises the limit as far as it goes without privileges; the worker starts no program that could be surprised by it. Where
/// that fails, [`bound`] has what there is.
pub fn raise() {
    let _as_it_was = open_files::raise_limit();
}

/// Has no more connections be taken than the limit allows, with what is open now and a reserve set aside. For a worker that has
/// all its sockets and no client.
pub fn bound(site: &Site) {
    let (limit, open) = (open_files::limit(), open_files::count().unwrap_or(0));
    let servers = site.pools.iter().map(|pool| pool.config.servers.len() as u64).sum::<u64>();
    let reserve = open + RESERVE + servers;
    site.load.bound_by_open_files((limit.saturating_sub(reserve) / EACH).max(1));
    if let Some(connections) = site.connections_by_open_files() {
        let needed = site.connections_max().saturating_mul(EACH).saturating_add(reserve);
        warn!(
            limit,
            needed,
            connections,
            "the limit on open files is too low for connections_max, and more connections will wait: raise it (LimitNOFILE, \
             ulimit -Hn) or lower connections_max"
        );
    }
}
