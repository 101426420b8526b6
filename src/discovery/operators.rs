//! Servers that operators add and remove while a pool runs: what both nodes know of it, as the changes of a pool. Core.

use std::collections::HashMap;

use super::list::Changes;
use crate::config::ServerChange;

/// What operators have changed, by the names of pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllChanges(HashMap<String, Changes>);

impl AllChanges {
    /// Of the facts about servers: pool, server and value of each. Those that are none of these are passed over.
    pub fn of<'a>(facts: impl Iterator<Item = (&'a str, &'a str, &'a [u8])>) -> Self {
        let mut all: HashMap<String, Changes> = HashMap::new();
        for (pool, key, value) in facts {
            let Some(name) = ServerChange::name_in_key(key) else { continue };
            let Some(change) = ServerChange::from_value(name, value) else { continue };
            let changes = all.entry(pool.to_owned()).or_default();
            match change.server {
                Some(server) => changes.added.push(server),
                None => drop(changes.removed.insert(name.to_owned())),
            }
        }
        all.values_mut().for_each(|changes| changes.added.sort_by(|one, other| one.name.cmp(&other.name)));
        Self(all)
    }

    /// Those of a pool.
    pub fn of_pool(&self, pool: &str) -> Changes {
        self.0.get(pool).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FoundServer;

    #[test]
    fn facts_become_changes_and_others_are_passed_over() {
        let server = FoundServer::parse(Some("b"), "10.0.0.2:80", 3, true).unwrap();
        let added = ServerChange { server: Some(server.clone()), keep: true }.to_value();
        let removed = ServerChange { server: None, keep: false }.to_value();
        let facts: [(&str, &str, &[u8]); 5] = [
            ("app", "+b", &added),
            ("app", "a", b"draining"),
            ("app", "+c", &removed),
            ("app", "+d", b"what a later release writes"),
            ("app", "+e", &added),
        ];
        let changes = AllChanges::of(facts.into_iter()).of_pool("app");
        assert_eq!((changes.added, changes.removed), (vec![server], std::collections::HashSet::from(["c".to_owned()])));
        assert_eq!(AllChanges::default().of_pool("app"), Changes::default());
    }
}
