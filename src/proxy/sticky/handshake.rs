//! What stickiness has to know where connections are passed on as they are: what a TLS handshake says, and that a
//! connection may last longer than its client is remembered for.

use super::{Stickiness, Visit};
use crate::proxy::sessions::Sessions;

impl Visit {
    /// The same, of a client that the table knows; otherwise nothing. For ids that are not the client's to choose: most
    /// of those that it comes up with are random and never come again, and each would take up an entry.
    pub fn if_known(self) -> Self {
        if self.is_known { self } else { Self::default() }
    }
}

impl Stickiness {
    /// A connection has ended. The client's time to come back begins now, also where its time to live has passed while it
    /// was here.
    pub fn left(&self, sessions: &Sessions, visit: &Visit, server: usize) {
        let (Some(key), Some(own)) = (visit.key, self.server(server)) else { return };
        if sessions.find(&key).is_none() {
            // Another connection may have been first, which then stands.
            let _standing = sessions.claim(&key, own);
            sessions.store().inspect(|store| store.claim_later(&key, own));
        }
    }

    /// Remembers what a server called its client, so that the client is found by it when it comes again.
    pub fn learned(&self, sessions: &Sessions, value: &[u8], server: usize) {
        let (Some(key), Some(own)) = (sessions.keys.key(self.pool, value), self.server(server)) else { return };
        if sessions.find(&key) != Some(own) {
            sessions.put(&key, own);
            // The server's bytes do not wait for the store: the client is busy with its handshake meanwhile.
            sessions.store().inspect(|store| store.put_later(&key, own));
        }
    }
}
