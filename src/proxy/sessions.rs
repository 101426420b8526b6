//! The sessions of a worker: the table that its threads and the link to the other node share, and the time that it keeps.
//! With them goes what else both nodes share.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::Limits;
use super::state::Pool;
use crate::config::{self, Config, Sticky};
use crate::session::facts::{FactKey, Facts};
use crate::session::key::{Key, KeyMaker};
use crate::session::replica::PoolNames;
use crate::session::table::{PoolLimits, Table};
use crate::session::version::Node;
use crate::status::{ServerSessionsStatus, SessionPoolStatus, SessionsStatus};
use crate::store::{Apply, Seen, Settings, Store, StorePool};

/// The sessions of all pools.
pub struct Sessions {
    /// Which server each key belongs to.
    pub table: Table,
    /// Makes the keys.
    pub keys: KeyMaker,
    /// The counters of rate limits.
    pub limits: Limits,
    /// What both nodes share besides.
    facts: Mutex<Facts>,
    /// Told when there is a change to send to the other node and there was none before.
    pub changed: Arc<Notify>,
    store: OnceLock<Store>,
    origin: Instant,
}

impl Sessions {
    /// An empty table that fits the configuration. `secret` is the pair key; both nodes must use the same.
    pub fn new(config: &Config, node: Node, secret: &[u8]) -> Self {
        let changed = Arc::new(Notify::new());
        let wake = || {
            let changed = Arc::clone(&changed);
            Box::new(move || changed.notify_one())
        };
        let limits: Vec<_> = config.pools.iter().map(limits).collect();
        Self {
            table: Table::new(node, &limits, wake()),
            keys: KeyMaker::new(secret, config.pools.iter().map(|pool| pool.name.as_str())),
            limits: Limits::new(config, secret, wake()),
            facts: Mutex::default(),
            changed,
            store: OnceLock::new(),
            origin: Instant::now(),
        }
    }

    /// The time that the table and the limits are given.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Removes what has expired from a tenth of it all; to be called every 100 ms.
    pub fn sweep(&self) {
        let now = self.now();
        self.table.sweep(now);
        self.limits.sweep(now);
    }

    /// What both nodes share besides. Not for the request path: it is locked.
    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a value that both nodes share, and has it sent. False when there is no room for it.
    pub fn tell(&self, key: FactKey, value: Vec<u8>) -> bool {
        let is_told = self.facts().set(key, value, self.table.next_version());
        self.changed.notify_one();
        is_told
    }

    /// Shares the sessions with other load balancers from now on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn share(self: &Arc<Self>, settings: Settings, pools: &[config::Pool]) -> io::Result<()> {
        let sessions = Arc::downgrade(self);
        let apply: Apply = Box::new(move |key, seen| {
            sessions.upgrade().inspect(|sessions| sessions.apply(key, seen));
        });
        let store = Store::start(settings, pools.iter().map(shared_pool).collect(), apply)?;
        // Once, by the one that makes the sessions.
        self.store.get_or_init(|| store);
        Ok(())
    }

    /// What other load balancers share their sessions through, where the configuration names it.
    pub fn store(&self) -> Option<&Store> {
        self.store.get()
    }

    /// Removes a session, here and from the store. False when there was none here.
    pub fn remove(&self, key: &Key) -> bool {
        self.store().inspect(|store| store.remove(key));
        self.table.remove(key, self.now())
    }

    /// Another load balancer knows better.
    fn apply(&self, key: &Key, seen: Seen) {
        match seen {
            Seen::Moved(server) => self.table.put(key, server, self.now()),
            // That there was none is as good.
            Seen::Gone => {
                self.table.remove(key, self.now());
            }
        }
    }

    /// How many sessions there are.
    pub fn status(&self, pools: &[Pool]) -> SessionsStatus {
        let of_table = pools.iter().zip(0_u16..).filter_map(|(pool, index)| {
            let entries_max = limits(&pool.config)?.entries_max as u64;
            let (stats, counts) = (self.table.stats(index), self.table.counts(index));
            let by_server = pool.config.servers.iter().zip(counts);
            let by_server = by_server
                .map(|(server, entries)| ServerSessionsStatus { server: server.name.clone(), entries: entries as u64 });
            Some(SessionPoolStatus {
                pool: pool.config.name.clone(),
                entries: stats.entries as u64,
                entries_max,
                evicted: stats.evicted,
                expired: stats.expired,
                by_server: by_server.collect(),
            })
        });
        let store = self.store().map(Store::status);
        SessionsStatus { pools: of_table.collect(), store, ..SessionsStatus::default() }
    }

    /// The key of what tells a client of a pool from others.
    pub fn key(&self, pool: usize, value: &[u8]) -> Option<Key> {
        self.keys.key(u16::try_from(pool).ok()?, value)
    }
}

/// The pools that keep sessions, by the names that mean the same to the other node.
pub fn replicated_pools(config: &Config) -> Vec<PoolNames> {
    let of_table = config.pools.iter().zip(0_u16..).filter(|(pool, _)| limits(pool).is_some());
    let names = |(pool, index): (&config::Pool, u16)| PoolNames {
        pool: index,
        name: pool.name.clone(),
        servers: pool.servers.iter().map(|server| server.name.clone()).collect(),
    };
    of_table.map(names).collect()
}

/// A pool as the store has to know it. What never asks the store has no limits.
fn shared_pool(pool: &config::Pool) -> StorePool {
    let limits = limits(pool);
    StorePool {
        name: pool.name.clone(),
        servers: pool.servers.iter().map(|server| server.name.clone()).collect(),
        idle: limits.as_ref().map_or(Duration::ZERO, |limits| limits.idle),
        absolute: limits.and_then(|limits| limits.absolute),
    }
}

/// What a pool may keep in the table; nothing when our cookie says it all.
fn limits(pool: &config::Pool) -> Option<PoolLimits> {
    match &pool.sticky {
        None | Some(Sticky::Cookie(_)) => None,
        Some(Sticky::Table(sticky)) => Some(PoolLimits {
            entries_max: usize::try_from(sticky.entries_max).unwrap_or(usize::MAX),
            idle: sticky.ttl,
            absolute: sticky.ttl_max,
            servers: pool.servers.len(),
        }),
    }
}
