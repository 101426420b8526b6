//! What operators and the other node have said of servers: the few values beside the sessions that both nodes share, and
//! what follows from them here.

use std::cell::LazyCell;
use std::collections::HashSet;

use tracing::info;

use super::server::{Admin, Server};
use super::state::Site;
use crate::config::ServerChange;
use crate::link::KeptFact;
use crate::session::facts::FactKey;
use crate::session::version::Version;

/// The value of a health that is good.
const UP: &[u8] = b"up";
/// And of one that is not.
const DOWN: &[u8] = b"down";

impl Admin {
    const ALL: [Admin; 3] = [Admin::Enabled, Admin::Draining, Admin::Disabled];

    /// As it is said to people and to the other node.
    pub const fn as_str(self) -> &'static str {
        match self {
            Admin::Enabled => "enabled",
            Admin::Draining => "draining",
            Admin::Disabled => "disabled",
        }
    }

    fn from_value(value: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|admin| admin.as_str().as_bytes() == value)
    }
}

impl Server {
    /// Takes what operators have said of it before it was there.
    pub(super) fn recall_admin(&self, value: &[u8]) {
        Admin::from_value(value).into_iter().for_each(|admin| self.set_admin(admin));
    }

    /// Takes what the other node has said of it before it was there.
    pub(super) fn recall_health(&self, value: &[u8]) {
        self.hint(value == UP);
    }
}

impl Site {
    /// Takes an operator's order, here and on the other node. False when there is no such server.
    pub fn administer(&self, pool: &str, server: &str, admin: Admin) -> bool {
        let Some(found) = self.server(pool, server) else { return false };
        info!(pool, server, state = admin.as_str(), "the administrative state of a server was set");
        let key = FactKey::Admin { pool: pool.to_owned(), server: server.to_owned() };
        if self.sessions.tell(key.clone(), admin.as_str().into()) {
            self.follow(&key, found);
        } else {
            // There is room for two values of every server, unless the other node has filled it.
            found.set_admin(admin);
        }
        true
    }

    /// Has a server be what the value says that stands now. Under the lock, so that of two writes at once, here and at the
    /// other node, the one that stands is also the one that is followed.
    fn follow(&self, key: &FactKey, server: &Server) -> Option<Admin> {
        let facts = self.sessions.facts();
        let admin = Admin::from_value(facts.get(key)?)?;
        server.set_admin(admin);
        Some(admin)
    }

    /// Lets the other node know what this node's checks say of a server.
    pub fn publish_health(&self, pool: &str, server: &str, is_up: bool) {
        let key = FactKey::Health { node: self.node.clone(), pool: pool.to_owned(), server: server.to_owned() };
        let _is_told = self.sessions.tell(key, if is_up { UP } else { DOWN }.to_vec());
    }

    /// Does what follows from a value that came from the other node and stands now. What is about servers that are not in
    /// this node's configuration is of no consequence.
    pub fn apply_fact(&self, key: &FactKey, value: &[u8]) {
        match key {
            FactKey::Admin { pool, server } => {
                if let Some(admin) = self.server(pool, server).and_then(|found| self.follow(key, found)) {
                    info!(pool, server, state = admin.as_str(), "the administrative state of a server was learned");
                }
            }
            FactKey::Health { node, pool, server } => {
                let Some(found) = self.server(pool, server) else { return };
                if *node != self.node {
                    found.hint(value == UP);
                } else if let Some(is_up) = found.checked().filter(|is_up| (value == UP) != *is_up) {
                    // What an earlier worker of this node had found.
                    self.publish_health(pool, server, is_up);
                }
            }
            FactKey::TicketKeys => {}
        }
    }

    /// What operators have said of this node's servers, for its next worker. Nothing that is no such word, whatever the other
    /// node says: it goes to the guard.
    pub fn administration(&self) -> Vec<KeptFact> {
        // Mostly there is nothing to be looked up in it.
        let servers = self.pools.iter().flat_map(|pool| {
            let servers = pool.config.servers.iter();
            servers.map(|server| (pool.config.name.as_str(), server.name.as_str()))
        });
        let known: LazyCell<HashSet<(&str, &str)>, _> = LazyCell::new(|| servers.collect());
        let is_known = |pool: &str, server: &str| known.contains(&(pool, server));
        let facts = self.sessions.facts();
        let kept = facts.iter_with_versions().filter_map(|(key, version, value)| match key {
            FactKey::Admin { pool, server } => {
                let is_state = || is_known(pool, server) && Admin::from_value(value).is_some();
                let change = ServerChange::name_in_key(server).filter(|_| self.has_pool(pool));
                let change = change.and_then(|name| ServerChange::from_value(name, value));
                let is_for_disk = change.as_ref().is_none_or(|change| change.keep);
                (change.is_some() || is_state()).then(|| KeptFact {
                    pool: pool.clone(),
                    server: server.clone(),
                    value: value.to_vec(),
                    version: version.get(),
                    is_for_disk,
                })
            }
            FactKey::Health { .. } | FactKey::TicketKeys => None,
        });
        kept.collect()
    }

    /// Takes what an earlier worker has left.
    pub fn restore_administration(&self, kept: &[KeptFact]) {
        for KeptFact { pool, server, value, version, is_for_disk: _ } in kept {
            let Some(version) = Version::new(*version) else { continue };
            let key = FactKey::Admin { pool: pool.clone(), server: server.clone() };
            self.sessions.table.saw(version);
            let is_taken = self.sessions.facts().merge(&key, version, value);
            if is_taken {
                self.apply_fact(&key, value);
            }
        }
    }

    fn has_pool(&self, pool: &str) -> bool {
        self.pools.iter().any(|known| known.config.name == pool)
    }

    fn server(&self, pool: &str, server: &str) -> Option<&Server> {
        let pool = self.pools.iter().find(|known| known.config.name == pool)?;
        let position = pool.config.servers.iter().position(|known| known.name == server)?;
        pool.servers.get(position).map(|server| &**server)
    }
}

#[cfg(test)]
mod tests;
