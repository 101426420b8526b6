//! The sessions of a worker: the table that its threads and the link to the other node share, and the time that it keeps.
//! With them goes what else both nodes share.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::Limits;
use super::state::Pool;
use crate::config::{self, Config, Sticky};
use crate::session::ServerRef;
use crate::session::archive::{self, Mapping};
use crate::session::facts::{FactKey, Facts};
use crate::session::key::{Key, KeyMaker};
use crate::session::replica::PoolNames;
use crate::session::table::{Cursor, PoolLimits, Table};
use crate::session::version::Node;
use crate::status::{ServerSessionsStatus, SessionPoolStatus, SessionsStatus};
use crate::store::{Apply, Seen, Settings, Store, StorePool};

/// The sessions of all pools.
pub struct Sessions {
    /// Which server each key belongs to.
    pub table: Arc<Table>,
    /// Makes the keys.
    pub keys: KeyMaker,
    /// The counters of rate limits.
    pub limits: Limits,
    /// What both nodes share besides.
    facts: Arc<Mutex<Facts>>,
    /// Told when there is a change to send to the other node and there was none before.
    pub changed: Arc<Notify>,
    /// By the numbers of this plan.
    store: OnceLock<Store>,
    origin: Instant,
    node: Node,
    /// What the table was made for.
    plan: Vec<Planned>,
    /// All that came one after the other.
    line: Arc<Line>,
    /// Others are in use, with another table. What is still under way here finds its sessions there.
    is_superseded: AtomicBool,
}

/// A pool as the table has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    name: String,
    /// What it may keep, and its servers by name; `None` for a pool that keeps nothing there.
    table: Option<(PoolLimits, Vec<String>)>,
}

/// The sessions in use, from configuration to configuration.
#[derive(Default)]
struct Line(Mutex<Weak<Sessions>>);

impl Line {
    fn latest(&self) -> Option<Arc<Sessions>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }
}

/// Entries that are copied from one table to another under one hold of a lock.
const COPIED_ENTRIES: usize = 512;

impl Sessions {
    /// An empty table that fits the configuration. `secret` is the pair key; both nodes must use the same.
    pub fn new(config: &Config, node: Node, secret: &[u8]) -> Self {
        let changed = Arc::new(Notify::new());
        let wake = || {
            let changed = Arc::clone(&changed);
            Box::new(move || changed.notify_one())
        };
        let limits: Vec<_> = config.pools.iter().map(pool_limits).collect();
        Self {
            table: Arc::new(Table::new(node, &limits, wake())),
            keys: KeyMaker::new(secret, config.pools.iter().map(|pool| pool.name.as_str())),
            limits: Limits::new(config, secret, wake()),
            facts: Arc::default(),
            changed,
            store: OnceLock::new(),
            origin: Instant::now(),
            node,
            plan: config.pools.iter().map(Planned::new).collect(),
            line: Arc::default(),
            is_superseded: AtomicBool::new(false),
        }
    }

    /// Those of the next configuration. The same ones where they fit it; otherwise what is known is copied, and these here
    /// stay in use until [`Sessions::take_over_from`]. `secret` is the pair key. Takes a fifth of a second for a million
    /// sessions whose pools or servers are not the same.
    pub fn next(self: &Arc<Self>, config: &Config, secret: &[u8]) -> Arc<Self> {
        let plan: Vec<_> = config.pools.iter().map(Planned::new).collect();
        let limits = self.limits.next(config, secret);
        if plan == self.plan && limits.is_none() {
            return Arc::clone(self);
        }
        let changed = Arc::clone(&self.changed);
        let table = if plan == self.plan {
            Arc::clone(&self.table)
        } else {
            let limits: Vec<_> = config.pools.iter().map(pool_limits).collect();
            let changed = Arc::clone(&changed);
            Arc::new(Table::new(self.node, &limits, Box::new(move || changed.notify_one())))
        };
        let limits = limits.unwrap_or_else(|| self.limits.same());
        let next = Self {
            keys: KeyMaker::new(secret, config.pools.iter().map(|pool| pool.name.as_str())),
            table,
            limits,
            facts: Arc::clone(&self.facts),
            changed,
            store: self
                .store()
                .map(|store| store.with_pools(shared_pools(config)))
                .map_or_else(OnceLock::new, OnceLock::from),
            origin: self.origin,
            node: self.node,
            plan,
            line: Arc::clone(&self.line),
            is_superseded: AtomicBool::new(false),
        };
        next.copy_from(self);
        Arc::new(next)
    }

    /// Is used from now on in place of `former`, which it was made of. What is under way with that one finds and keeps its
    /// sessions here.
    pub fn take_over_from(self: &Arc<Self>, former: &Arc<Self>) {
        if Arc::ptr_eq(self, former) {
            return;
        }
        *self.line.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(self);
        former.is_superseded.store(!Arc::ptr_eq(&self.table, &former.table), Ordering::SeqCst);
        former.limits.give_way_to(&self.limits);
        // What was written since the first time.
        self.copy_from(former);
    }

    fn copy_from(&self, former: &Self) {
        if Arc::ptr_eq(&self.table, &former.table) {
            return;
        }
        self.table.saw(former.table.latest());
        let mapping = Mapping::new(&former.names(), &self.names());
        let (mut cursor, mut is_more) = (Cursor::default(), true);
        let mut records = Vec::with_capacity(COPIED_ENTRIES);
        while is_more {
            let now = self.now();
            is_more = former.table.scan(&mut cursor, now, COPIED_ENTRIES, |record| records.push(record));
            for record in records.drain(..).filter_map(|record| mapping.apply(record, Duration::ZERO)) {
                self.table.merge(&record, now);
            }
        }
    }

    /// The names of all pools, in the order that the indexes of entries mean.
    pub fn names(&self) -> Vec<archive::PoolNames> {
        let names = |pool: &Planned| archive::PoolNames {
            pool: pool.name.clone(),
            servers: pool.table.iter().flat_map(|(_, servers)| servers).cloned().collect(),
        };
        self.plan.iter().map(names).collect()
    }

    /// The server that a key belongs to, which counts as a use.
    pub fn find(&self, key: &Key) -> Option<ServerRef> {
        match self.successor() {
            None => self.table.find(key, self.now()),
            Some(latest) => self.found_in(&latest, key),
        }
    }

    /// Gives a key to a server unless it belongs to one already, and says to which it belongs then.
    pub fn claim(&self, key: &Key, server: ServerRef) -> ServerRef {
        let Some(latest) = self.successor() else { return self.table.claim(key, server, self.now()) };
        let claimed = self.found_in(&latest, key).or_else(|| {
            let standing = latest.table.claim(key, latest.named(self.name_of(server)?)?, self.now());
            self.named(latest.name_of(standing)?)
        });
        claimed.unwrap_or(server)
    }

    /// Gives a key to a server, whatever it belonged to.
    pub fn put(&self, key: &Key, server: ServerRef) {
        match self.successor() {
            None => self.table.put(key, server, self.now()),
            Some(latest) => {
                let there = self.name_of(server).and_then(|name| latest.named(name));
                there.inspect(|there| latest.table.put(key, *there, self.now()));
            }
        }
    }

    /// What is in use in place of these; `None` as long as these are.
    fn successor(&self) -> Option<Arc<Self>> {
        if !self.is_superseded.load(Ordering::Relaxed) {
            return None;
        }
        self.line.latest()
    }

    /// Where a key belongs by a later table, or by this one as long as not all of it is there.
    fn found_in(&self, latest: &Self, key: &Key) -> Option<ServerRef> {
        let now = self.now();
        let standing = latest.table.find(key, now).or_else(|| {
            let there = latest.named(self.name_of(self.table.find(key, now)?)?)?;
            Some(latest.table.claim(key, there, now))
        });
        self.named(latest.name_of(standing?)?)
    }

    fn name_of(&self, server: ServerRef) -> Option<(&str, &str)> {
        let pool = self.plan.get(usize::from(server.pool))?;
        let (_, servers) = pool.table.as_ref()?;
        Some((&pool.name, servers.get(usize::from(server.server))?))
    }

    fn named(&self, (pool, server): (&str, &str)) -> Option<ServerRef> {
        let index = self.plan.iter().position(|known| known.name == pool)?;
        let (_, servers) = self.plan.get(index)?.table.as_ref()?;
        let position = servers.iter().position(|known| known == server)?;
        Some(ServerRef { pool: u16::try_from(index).ok()?, server: u16::try_from(position).ok()? })
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
        let successor = self.successor();
        let version = successor.as_deref().unwrap_or(self).table.next_version();
        let is_told = self.facts().set(key, value, version);
        self.changed.notify_one();
        is_told
    }

    /// Shares the sessions with other load balancers from now on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn share(self: &Arc<Self>, settings: Settings, config: &Config) -> io::Result<()> {
        let line = Arc::clone(&self.line);
        *line.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(self);
        let apply: Apply = Box::new(move |key, seen| {
            line.latest().inspect(|sessions| sessions.apply(key, seen));
        });
        let store = Store::start(settings, shared_pools(config), apply)?;
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
        let successor = self.successor();
        successor.as_deref().unwrap_or(self).table.remove(key, self.now())
    }

    /// Another load balancer knows better.
    fn apply(&self, key: &Key, seen: Seen) {
        match seen {
            Seen::Moved { pool, server } => {
                self.named((&pool, &server)).inspect(|server| self.table.put(key, *server, self.now()));
            }
            // That there was none is as good.
            Seen::Gone => {
                self.table.remove(key, self.now());
            }
        }
    }

    /// How many sessions there are.
    pub fn status(&self, pools: &[Arc<Pool>]) -> SessionsStatus {
        let of_table = pools.iter().zip(0_u16..).filter_map(|(pool, index)| {
            let entries_max = pool_limits(&pool.config)?.entries_max as u64;
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
    let of_table = config.pools.iter().zip(0_u16..).filter(|(pool, _)| pool_limits(pool).is_some());
    let names = |(pool, index): (&config::Pool, u16)| PoolNames {
        pool: index,
        name: pool.name.clone(),
        servers: pool.servers.iter().map(|server| server.name.clone()).collect(),
    };
    of_table.map(names).collect()
}

impl Planned {
    fn new(pool: &config::Pool) -> Self {
        let names = || pool.servers.iter().map(|server| server.name.clone()).collect();
        Self { name: pool.name.clone(), table: pool_limits(pool).map(|limits| (limits, names())) }
    }
}

fn shared_pools(config: &Config) -> Vec<StorePool> {
    config.pools.iter().map(shared_pool).collect()
}

/// A pool as the store has to know it. What never asks the store has no limits.
fn shared_pool(pool: &config::Pool) -> StorePool {
    let limits = pool_limits(pool);
    StorePool {
        name: pool.name.clone(),
        servers: pool.servers.iter().map(|server| server.name.clone()).collect(),
        idle: limits.as_ref().map_or(Duration::ZERO, |limits| limits.idle),
        absolute: limits.and_then(|limits| limits.absolute),
    }
}

/// What a pool may keep in the table; nothing when our cookie says it all.
fn pool_limits(pool: &config::Pool) -> Option<PoolLimits> {
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
