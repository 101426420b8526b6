//! What both nodes share besides sessions: a few small values, each under a key, of which the newest write stands.

use std::collections::{BTreeMap, BTreeSet};

use super::version::Version;

/// Values at most, besides [`FactKey::TicketKeys`]: three for each of as many servers as a configuration can name, which is
/// what an operator wants of it and what the checks of each node say.
pub const FACTS_MAX: usize = 131_072;
/// Bytes of all values and names at most, besides that one: more than what all of them take with the longest names of a
/// configuration.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a value at most.
pub const VALUE_BYTES_MAX: usize = 4_096;
/// Bytes of a name in a key at most; names in the configuration are shorter.
pub const NAME_BYTES_MAX: usize = 255;

/// What a value is about. Pools and servers go by name, for their places may differ while one node has a newer file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKey {
    /// What an operator wants of a server, on both nodes.
    Admin {
        /// The pool.
        pool: String,
        /// The server.
        server: String,
    },
    /// What a node's own checks say of a server.
    Health {
        /// The node that checks.
        node: String,
        /// The pool.
        pool: String,
        /// The server.
        server: String,
    },
    /// What came of clients' requests to a server at a node: that it was ejected, or its breaker opened.
    Outcomes {
        /// The node that found out.
        node: String,
        /// The pool.
        pool: String,
        /// The server.
        server: String,
    },
    /// The keys of TLS session tickets. Secret.
    TicketKeys,
}

impl FactKey {
    /// Bytes of its names.
    fn len_bytes(&self) -> usize {
        match self {
            FactKey::Admin { pool, server } => pool.len() + server.len(),
            FactKey::Health { node, pool, server } | FactKey::Outcomes { node, pool, server } => {
                node.len() + pool.len() + server.len()
            }
            FactKey::TicketKeys => 0,
        }
    }
}

/// A value and when it was written.
#[derive(Clone, PartialEq, Eq)]
struct Fact {
    version: Version,
    value: Vec<u8>,
}

/// The values.
#[derive(Default)]
pub struct Facts {
    values: BTreeMap<FactKey, Fact>,
    /// Bytes of the values and their keys' names.
    bytes: usize,
    /// What the other node has not been sent yet.
    changed: BTreeSet<FactKey>,
}

impl Facts {
    /// Writes a value. False when there is no room for it, or it is too long; nothing has changed then.
    pub fn set(&mut self, key: FactKey, value: Vec<u8>, version: Version) -> bool {
        if self.get(&key) == Some(&value) {
            return true;
        }
        let is_taken = self.merge(&key, version, &value);
        if is_taken {
            self.changed.insert(key);
        }
        is_taken
    }

    /// A value, when there is one.
    pub fn get(&self, key: &FactKey) -> Option<&[u8]> {
        self.values.get(key).map(|fact| fact.value.as_slice())
    }

    /// Every value.
    pub fn iter(&self) -> impl Iterator<Item = (&FactKey, &[u8])> {
        self.values.iter().map(|(key, fact)| (key, fact.value.as_slice()))
    }

    /// As [`Facts::iter`], with the version of each.
    pub fn iter_with_versions(&self) -> impl Iterator<Item = (&FactKey, Version, &[u8])> {
        self.values.iter().map(|(key, fact)| (key, fact.version, fact.value.as_slice()))
    }

    /// Takes a value from elsewhere, if it is newer than the one that is there. True when it was taken.
    pub fn merge(&mut self, key: &FactKey, version: Version, value: &[u8]) -> bool {
        let known = self.values.get(key);
        let is_newer = known.is_none_or(|known| (version, value) > (known.version, &known.value));
        // Whatever there is of the others, resumption of TLS sessions does not suffer for it.
        let is_apart = *key == FactKey::TicketKeys;
        let others = self.values.len() - usize::from(self.values.contains_key(&FactKey::TicketKeys));
        let has_place = is_apart || known.is_some() || others < FACTS_MAX;
        let freed = known.map_or(0, |known| key.len_bytes() + known.value.len());
        let bytes = if is_apart { self.bytes } else { self.bytes - freed + key.len_bytes() + value.len() };
        // What takes no more than before always has room.
        let has_room = has_place && (bytes <= BYTES_MAX || bytes <= self.bytes);
        if !is_newer || !has_room || value.len() > VALUE_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.values.insert(key.clone(), Fact { version, value: value.to_vec() });
        true
    }

    /// Has every value sent again: there is a new connection to the other node.
    pub fn change_all(&mut self) {
        self.changed = self.values.keys().cloned().collect();
    }

    /// Whether there is anything to send.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The next value to send, with its version.
    pub fn take_change(&mut self) -> Option<(FactKey, Version, &[u8])> {
        let key = self.changed.pop_first()?;
        let fact = self.values.get(&key)?;
        Some((key, fact.version, &fact.value))
    }
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secret.
        f.debug_set().entries(self.values.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> Version {
        Version::new(number).unwrap()
    }

    fn admin(server: &str) -> FactKey {
        FactKey::Admin { pool: "app".to_owned(), server: server.to_owned() }
    }

    #[test]
    fn the_newest_write_stands() {
        let mut facts = Facts::default();
        assert!(facts.set(admin("one"), b"drain".to_vec(), version(5)));
        assert!(!facts.merge(&admin("one"), version(4), b"enable"));
        assert_eq!(facts.get(&admin("one")), Some(&b"drain"[..]));
        assert!(facts.merge(&admin("one"), version(6), b"enable"));
        assert!(!facts.merge(&admin("one"), version(6), b"enable"));
        assert_eq!(facts.get(&admin("one")), Some(&b"enable"[..]));
    }

    #[test]
    fn only_what_was_written_here_and_differs_is_to_be_sent_until_all_is_asked_for() {
        let mut facts = Facts::default();
        facts.set(admin("one"), b"drain".to_vec(), version(5));
        facts.merge(&admin("two"), version(6), b"drain");
        assert_eq!(facts.take_change(), Some((admin("one"), version(5), &b"drain"[..])));
        assert!(facts.set(admin("two"), b"drain".to_vec(), version(7)));
        assert_eq!(facts.take_change(), None);
        facts.change_all();
        assert!(facts.has_changes());
        assert_eq!(facts.take_change().map(|(key, ..)| key), Some(admin("one")));
        assert_eq!(facts.take_change().map(|(key, ..)| key), Some(admin("two")));
        assert!(!facts.has_changes());
    }

    #[test]
    fn what_is_too_long_or_too_much_is_refused() {
        let mut facts = Facts::default();
        assert!(!facts.set(admin("one"), vec![0; VALUE_BYTES_MAX + 1], version(1)));
        for number in 0..FACTS_MAX {
            assert!(facts.merge(&admin(&number.to_string()), version(1), b"x"));
        }
        assert!(!facts.set(admin("one more"), b"x".to_vec(), version(2)));
        assert!(facts.set(admin("7"), b"y".to_vec(), version(2)));
    }

    #[test]
    fn ticket_keys_always_have_a_place() {
        let long = vec![0; VALUE_BYTES_MAX];
        for (value, count) in [(&long[..], 4_087), (b"", FACTS_MAX)] {
            let mut facts = Facts::default();
            // As many as there may be by bytes, or by number.
            for number in 0..FACTS_MAX + 1_000 {
                facts.merge(&admin(&format!("{number:06}")), version(1), value);
            }
            assert!(facts.set(FactKey::TicketKeys, long.clone(), version(2)));
            assert!(facts.set(FactKey::TicketKeys, b"short".to_vec(), version(3)));
            assert!(facts.set(FactKey::TicketKeys, vec![1; VALUE_BYTES_MAX], version(4)));
            assert!(!facts.set(FactKey::TicketKeys, vec![0; VALUE_BYTES_MAX + 1], version(5)));
            assert!(!facts.set(admin("one more"), value.to_vec(), version(5)), "they free no place for another");
            assert_eq!(facts.values.len(), count + 1);
        }
    }

    #[test]
    fn all_of_them_take_no_more_than_sixteen_mebibytes() {
        let mut facts = Facts::default();
        let long = vec![0; VALUE_BYTES_MAX];
        let fits = |facts: &mut Facts, number: usize, value: &[u8], at| {
            facts.merge(&admin(&format!("{number:05}")), version(at), value)
        };
        // 3 + 5 bytes of names and 4096 of value.
        let taken = (0..10_000).filter(|number| fits(&mut facts, *number, &long, 1)).count();
        assert_eq!(taken, 4_088);
        assert!(fits(&mut facts, 7, &long, 2), "in place of one as long");
        assert!(fits(&mut facts, 8, b"short", 2), "in place of a longer one");
        assert!(fits(&mut facts, 4_088, &long[..4_000], 3), "where another has become shorter");
        assert!(!fits(&mut facts, 4_089, &long[..4_000], 3));
    }
}
