//! Servers that were found, and those that operators have added and removed: put into the configuration in use.

use std::io;

use tracing::error;

use super::Worker;
use crate::discovery::operators::AllChanges;
use crate::link::{self, FromWorker, KeptFact};
use crate::session::facts::FactKey;

impl Worker {
    /// Has every thread use the servers as they are known now, and the guard keep them for the next worker.
    pub(super) async fn apply_found(&mut self, sender: &mut link::Sender) -> io::Result<()> {
        let revision = self.discovery.revision();
        let config = self.discovery.applied_to(&self.base, &self.changes());
        if config != self.config
            && let Err(reason) = self.apply(config, None).await
        {
            error!(reason, "the servers as they are known now cannot be used, and those before stay");
        }
        self.discovery.took(revision);
        self.tell_found(sender).await
    }

    /// What operators have changed, here and at the other node.
    pub(super) fn changes(&self) -> AllChanges {
        let site = self.site();
        let facts = site.sessions.facts();
        let admin = facts.iter().filter_map(|(key, value)| match key {
            FactKey::Admin { pool, server } => Some((pool.as_str(), server.as_str(), value)),
            FactKey::Health { .. } | FactKey::TicketKeys => None,
        });
        AllChanges::of(admin)
    }

    async fn tell_found(&mut self, sender: &mut link::Sender) -> io::Result<()> {
        let now = self.discovery.kept();
        let is_same =
            |(one, other): (&link::KeptList, &link::KeptList)| one.pool == other.pool && one.servers == other.servers;
        if now.len() == self.found.len() && now.iter().zip(&self.found).all(is_same) {
            return Ok(());
        }
        self.found.clone_from(&now);
        sender.send(&FromWorker::Found(now)).await
    }
}

/// What an earlier worker has left of operators' changes.
pub(super) fn changes_kept(kept: &[KeptFact]) -> AllChanges {
    AllChanges::of(kept.iter().map(|fact| (fact.pool.as_str(), fact.server.as_str(), fact.value.as_slice())))
}
