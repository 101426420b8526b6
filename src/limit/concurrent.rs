//! How many connections each client has at once.
//!
//! A table of those that have any, in 64 parts, each behind a lock that is held for one look-up: when a connection begins
//! and when it ends. Threads have to share it, as the kernel spreads the connections of one client over all of them. It has
//! no limit of its own and needs none: there are never more clients in it than there are connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts. A power of two.
const SHARDS: usize = 64;
/// Room that a part keeps when nobody is in it any more.
const ROOM_MIN: usize = 16;

/// The connections of clients, by whatever tells one client from another.
pub struct Concurrent {
    /// Secret, so that nobody can choose addresses that fall into one part.
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<u128, u32>>]>,
}

impl Default for Concurrent {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Concurrent {
    /// Counts a connection of a client that has fewer than `max`. What is taken has to be given back.
    pub fn take(&self, client: u128, max: u32) -> bool {
        let Some(mut shard) = self.shard(client) else { return true };
        let count = shard.entry(client).or_default();
        // At a `max` of 0 nobody would ever be in, and the entry would stay.
        if *count >= max.max(1) {
            return false;
        }
        *count += 1;
        true
    }

    /// Takes back what [`Concurrent::take`] counted.
    pub fn give_back(&self, client: u128) {
        let Some(mut shard) = self.shard(client) else { return };
        let Entry::Occupied(mut entry) = shard.entry(client) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
            if shard.is_empty() {
                // A flood leaves no room behind.
                shard.shrink_to(ROOM_MIN);
            }
        }
    }

    /// Connections that a client has.
    pub fn count(&self, client: u128) -> u32 {
        self.shard(client).and_then(|shard| shard.get(&client).copied()).unwrap_or(0)
    }

    /// Clients that have any.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether nobody has any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, client: u128) -> Option<MutexGuard<'_, HashMap<u128, u32>>> {
        let hash = usize::try_from(self.hasher.hash_one(client) & (SHARDS as u64 - 1)).unwrap_or(0);
        self.shards.get(hash).map(lock)
    }
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_has_as_many_as_the_limit_and_one_more_when_one_ends() {
        let connections = Concurrent::default();
        assert_eq!([1, 1, 1].map(|client| connections.take(client, 2)), [true, true, false]);
        assert!(connections.take(2, 2), "another client");
        connections.give_back(1);
        assert_eq!([1, 1].map(|client| connections.take(client, 2)), [true, false]);
        assert_eq!((connections.count(1), connections.count(2), connections.count(3)), (2, 1, 0));
    }

    #[test]
    fn nothing_is_kept_of_clients_that_are_gone() {
        let connections = Concurrent::default();
        (0..1_000).for_each(|client| assert!(connections.take(client, 1)));
        assert_eq!(connections.len(), 1_000);
        (0..1_000).for_each(|client| connections.give_back(client));
        assert!(connections.is_empty());
        assert!(connections.shards.iter().all(|shard| lock(shard).capacity() <= 2 * ROOM_MIN));
    }

    #[test]
    fn giving_back_what_was_not_taken_does_no_harm() {
        let connections = Concurrent::default();
        connections.give_back(1);
        assert!(connections.take(1, 1));
    }

    #[test]
    fn no_more_than_the_limit_get_in_from_many_threads() {
        let connections = Concurrent::default();
        let taken = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        taken.fetch_add(u32::from(connections.take(7, 1_500)), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((taken.into_inner(), connections.count(7)), (1_500, 1_500));
    }
}
