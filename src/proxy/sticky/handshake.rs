//! Stickiness by what a TLS handshake says, where connections are passed on as they are.

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
    /// Remembers what a server called its client, so that the client is found by it when it comes again.
    pub fn learned(&self, sessions: &Sessions, value: &[u8], server: usize) {
        let (Some(key), Some(own)) = (sessions.keys.key(self.pool, value), self.server(server)) else { return };
        if sessions.table.find(&key, sessions.now()) != Some(own) {
            sessions.table.put(&key, own, sessions.now());
        }
    }
}
