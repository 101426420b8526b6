//! What the store is still to be told.

use std::collections::HashMap;

use super::entry::Placed;
use super::errand::Background;
use crate::session::key::Key;

/// Sessions that are remembered for it while it is away. More are dropped, and counted.
const OWED_MAX: usize = 65_536;

/// What is to be written for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Debt {
    /// It is on this server unless the store knows another.
    Claim(Placed),
    /// It is on this server whatever the store knows.
    Put(Placed),
    /// It is no more.
    Remove,
}

/// One debt a session: the newest.
#[derive(Default)]
pub(super) struct Owed {
    debts: HashMap<Key, Debt>,
    /// Being written, and owed again if that fails.
    sent: Vec<(Key, Debt)>,
}

impl Owed {
    /// Takes note of what is to be written. False when there is no room.
    pub(super) fn add(&mut self, errand: Background) -> bool {
        let (key, debt) = match errand {
            Background::Claim { key, server } => (key, Debt::Claim(server)),
            Background::Put { key, server } => (key, Debt::Put(server)),
            Background::Remove { key } => (key, Debt::Remove),
            Background::Recheck { .. } => return true,
        };
        if self.debts.len() >= OWED_MAX && !self.debts.contains_key(&key) {
            return false;
        }
        self.debts.insert(key, debt);
        true
    }

    /// How many are owed.
    pub(super) fn len(&self) -> usize {
        self.debts.len() + self.sent.len()
    }

    /// Whether there is something to write and nothing being written: two writes of one session could overtake each other.
    pub(super) fn can_send(&self) -> bool {
        self.sent.is_empty() && !self.debts.is_empty()
    }

    /// The next ones to write, at most `max`.
    pub(super) fn send(&mut self, max: usize) -> Vec<(Key, Debt)> {
        let keys: Vec<Key> = self.debts.keys().take(max).copied().collect();
        self.sent = keys.into_iter().filter_map(|key| self.debts.remove_entry(&key)).collect();
        self.sent.clone()
    }

    /// They are written.
    pub(super) fn written(&mut self) {
        self.sent.clear();
    }

    /// Whether something is to be written for a session, or being written.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.debts.contains_key(key) || self.sent.iter().any(|(sent, _)| sent == key)
    }

    /// The store went away: what was being written is owed again.
    pub(super) fn store_went_away(&mut self) {
        for (key, debt) in std::mem::take(&mut self.sent) {
            self.debts.entry(key).or_insert(debt);
        }
    }

    /// The store is back: a move becomes a claim, since another load balancer may know better by now.
    pub(super) fn store_is_back(&mut self) {
        for debt in self.debts.values_mut() {
            if let Debt::Put(server) = debt {
                *debt = Debt::Claim(server.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::ServerRef;
    use crate::store::entry::Directory;

    fn placed(server: u16) -> Placed {
        Placed { server: ServerRef { pool: 0, server }, directory: Arc::new(Directory { pools: Vec::new() }) }
    }

    const KEY: Key = Key::from_bytes([1; 16]);
    const OTHER: Key = Key::from_bytes([2; 16]);

    #[test]
    fn the_newest_debt_of_a_session_counts() {
        let mut owed = Owed::default();
        assert!(owed.add(Background::Claim { key: KEY, server: placed(0) }));
        assert!(owed.add(Background::Put { key: KEY, server: placed(1) }));
        assert!(owed.add(Background::Recheck { key: OTHER, server: placed(0) }));
        assert_eq!(owed.send(10), [(KEY, Debt::Put(placed(1)))]);
    }

    #[test]
    fn what_was_not_written_is_owed_again_unless_there_is_newer() {
        let mut owed = Owed::default();
        owed.add(Background::Put { key: KEY, server: placed(0) });
        owed.add(Background::Remove { key: OTHER });
        owed.send(10);
        assert!(!owed.can_send());
        owed.add(Background::Remove { key: KEY });
        owed.store_went_away();
        let mut again = owed.send(10);
        again.sort_by_key(|(key, _)| *key);
        assert_eq!(again, [(KEY, Debt::Remove), (OTHER, Debt::Remove)]);
        owed.written();
        assert_eq!(owed.len(), 0);
    }

    #[test]
    fn a_move_becomes_a_claim_when_the_store_was_away() {
        let mut owed = Owed::default();
        owed.add(Background::Put { key: KEY, server: placed(0) });
        owed.store_went_away();
        owed.store_is_back();
        assert_eq!(owed.send(10), [(KEY, Debt::Claim(placed(0)))]);
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let mut owed = Owed::default();
        for number in 0..65_536_u128 {
            assert!(owed.add(Background::Claim { key: Key::from_bytes(number.to_be_bytes()), server: placed(0) }));
        }
        assert!(!owed.add(Background::Claim { key: Key::from_bytes([0xff; 16]), server: placed(0) }));
        assert!(owed.add(Background::Claim { key: Key::from_bytes([0; 16]), server: placed(1) }));
        assert_eq!(owed.len(), 65_536);
    }
}
