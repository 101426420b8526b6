//! Clients that other load balancers know: what the store is asked when the table knows nothing, and what it is told.
//!
//! Everything here is as if it were not there where the configuration names no store.

use super::{Stickiness, Visit};
use crate::proxy::sessions::Sessions;
use crate::session::ServerRef;
use crate::session::key::Key;
use crate::store::Found;

/// What the store has to know before the client does, whose next request may come to another load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    pub(super) key: Key,
    pub(super) server: ServerRef,
}

impl Stickiness {
    /// Asks the store for a client that the table does not know. Waits for no longer than the store's timeout.
    pub async fn recall(&self, sessions: &Sessions, visit: &mut Visit) {
        let (Some(key), None, Some(store)) = (visit.key, visit.home, sessions.store()) else { return };
        if let Found::At(server) = Box::pin(store.lookup(&key, self.pool)).await {
            let standing = sessions.claim(&key, server);
            visit.home = Some(usize::from(standing.server));
            visit.is_known = true;
        }
    }

    /// Before [`Stickiness::settle`]: a server was picked for a client, and no server has failed its request yet. Gives the
    /// server that all load balancers agree on: `picked`, or one that another of them settled on before, or, while the
    /// store is away, the one that `by_hash` gives them all. `may_take` says whether a server may serve it.
    pub async fn agree(
        &self,
        sessions: &Sessions,
        visit: &Visit,
        picked: usize,
        by_hash: impl FnOnce(&Key) -> Option<usize>,
        may_take: impl Fn(usize) -> bool,
    ) -> usize {
        let (Some(key), Some(store)) = (visit.key, sessions.store()) else { return picked };
        let Some(own) = self.server(picked) else { return picked };
        let by_hash = || self.server(by_hash(&key)?);
        let Some(standing) = Box::pin(store.find_or_claim(&key, own, by_hash)).await else { return picked };
        let standing = usize::from(standing.server);
        if standing == picked || may_take(standing) {
            return standing;
        }
        store.put_later(&key, own);
        picked
    }

    /// Waits until the store knows what was learned, or does not answer in time.
    pub async fn share(&self, sessions: &Sessions, learned: Option<Learned>) {
        if let (Some(Learned { key, server }), Some(store)) = (learned, sessions.store()) {
            Box::pin(store.put(&key, server)).await;
        }
    }
}
