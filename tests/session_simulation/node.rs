//! A node: its table and facts, its end of the connection, its clock, and what it ought to know.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton::limit::{Buckets, Change, Terms};
use baton::session::counters::{CounterRecord, Counters};
use baton::session::facts::{FactKey, Facts};
use baton::session::key::Key;
use baton::session::record::Record;
use baton::session::replica::{PoolNames, Replica, Settings, VERSIONS};
use baton::session::table::{Cursor, PoolLimits, Table};
use baton::session::version::{self, Version};

use crate::model::{Content, Memory};
use crate::wire::Micros;

pub const NAMES: [&str; 2] = ["lb-a", "lb-b"];
pub const POOLS: usize = 2;
pub const KEYS_OF_POOL: usize = 25;
pub const KEYS: usize = POOLS * KEYS_OF_POOL;
pub const SERVERS: u16 = 8;
/// Where a key has its number.
pub const NUMBER_BYTE: usize = 4;
pub const FACTS: usize = 10;
pub const LIMITS: u16 = 2;
/// Clients that are counted.
pub const CLIENTS: u8 = 6;
/// A request comes back after a minute and a half, and so none does during a run.
const TERMS: Terms =
    Terms { requests: 1_000, per: Duration::from_secs(24 * 3_600), burst: 1_000_000, entries_max: 100 };
/// The length of a tick of the table.
pub const TICK: Duration = Duration::from_millis(100);

/// What is the same for both nodes during a run.
#[derive(Debug)]
pub struct Setting {
    pub limits: [PoolLimits; POOLS],
    /// The second node's configuration lists pools and servers the other way round.
    pub turned: bool,
    pub keys: Vec<Key>,
    /// Full tables, of which only the bounds are checked.
    pub is_full: bool,
    /// Entries beyond the keys that are checked one by one.
    pub bulk: u64,
}

impl Setting {
    /// From a pool to its place in a node's configuration, and back.
    pub fn pool(&self, node: usize, pool: u16) -> u16 {
        if self.turned && node == 1 { 2 - pool } else { pool }
    }

    pub fn server(&self, node: usize, server: u16) -> u16 {
        if self.turned && node == 1 { SERVERS - 1 - server } else { server }
    }

    pub fn limit(&self, node: usize, limit: u16) -> u16 {
        if self.turned && node == 1 { LIMITS - 1 - limit } else { limit }
    }

    /// The number of a key that is checked one by one; it is in one of its bytes.
    pub fn number(&self, key: &Key) -> Option<usize> {
        let number = usize::from(key.to_bytes()[NUMBER_BYTE]);
        self.keys.get(number).filter(|own| *own == key).map(|_| number)
    }

    /// Whether an entry of this key outlives the run.
    pub fn is_lasting(&self, key: usize) -> bool {
        self.limits[key / KEYS_OF_POOL].idle > Duration::from_secs(1_000)
    }

    /// The key of a fact, by its number behind those of entries.
    pub fn fact(number: usize) -> FactKey {
        let (node, pool, server) = (NAMES[number % 2].to_owned(), "app".to_owned(), format!("s{number}"));
        match number - KEYS {
            0 => FactKey::TicketKeys,
            1..5 => FactKey::Admin { pool, server },
            _ => FactKey::Health { node, pool, server },
        }
    }

    fn names(&self, node: usize) -> Vec<PoolNames> {
        let servers = |node| (0..SERVERS).map(move |server| format!("s{}", self.server(node, server))).collect();
        let pool = |(pool, name): (u16, &str)| PoolNames {
            pool: self.pool(node, pool),
            name: name.to_owned(),
            servers: servers(node),
        };
        [(0, "app"), (1, "web")].into_iter().map(pool).collect()
    }

    fn limit_names(&self, node: usize) -> Vec<String> {
        (0..LIMITS).map(|limit| format!("l{}", self.limit(node, limit))).collect()
    }
}

/// Counters of requests.
pub struct Tallies(pub Buckets);

impl Counters for Tallies {
    fn keep_changes(&self, are_kept: bool) {
        self.0.keep_changes(are_kept);
    }

    fn has_changes(&self) -> bool {
        self.0.has_changes()
    }

    fn take_changes(&self, now: Duration, count: usize, take: &mut dyn FnMut(&CounterRecord)) {
        self.0.take_changes(now, count, |change| {
            let Change { key, limit, life, total, peer_life, peer_total, missing } = change;
            let key = Key::from_bytes(key);
            take(&CounterRecord { key, limit, life, total, peer_life, peer_total, missing });
        });
    }

    fn merge(&self, record: &CounterRecord, now: Duration) {
        let CounterRecord { key, limit, life, total, peer_life, peer_total, missing } = *record;
        let key = key.to_bytes();
        self.0.merge(&Change { key, limit, life, total, peer_life, peer_total, missing }, now);
    }
}

/// A node's end of a connection.
pub struct End {
    pub connection: usize,
    pub replica: Replica,
    /// What the connection did not take yet.
    pub out: Vec<u8>,
    /// Whether its next turn to speak is planned.
    pub is_due: bool,
    /// When it looks at its clock next.
    pub timer_at: Micros,
    pub heard_hello: bool,
    /// Frames under way: number, bytes, changed entries, and whether it is the end of the snapshot.
    pub sent: VecDeque<(u64, usize, u64, bool)>,
    /// What came and is no whole frame yet, as the checks see it.
    pub came: Vec<u8>,
    pub came_sequence: u64,
    pub snapshot_came: bool,
    pub snapshot_went: bool,
}

/// A process.
pub struct Process {
    pub incarnation: u64,
    pub table: Table,
    pub facts: Facts,
    pub counters: Tallies,
    pub end: Option<End>,
    /// A connection that came to its end, or was taken for such, and of which something may still come.
    pub old: Option<End>,
    pub memory: Memory,
    woken: Arc<AtomicBool>,
    origin: Duration,
    /// Of a million.
    rate: i64,
    began: Micros,
}

/// Entries as a file keeps them.
pub struct Archive {
    pub at: Micros,
    pub records: Vec<Record>,
}

impl Process {
    pub fn new(
        node: usize,
        incarnation: u64,
        now: Micros,
        setting: &Setting,
        memory: Memory,
        random: &mut fastrand::Rng,
    ) -> Self {
        let woken = Arc::new(AtomicBool::new(false));
        let wake = || {
            let woken = Arc::clone(&woken);
            Box::new(move || woken.store(true, Ordering::Relaxed))
        };
        // Far enough apart that no two processes give a counter the same life.
        let seed = (incarnation * 1_009 % 65_536) as u16;
        let mut pools = vec![None; 3];
        for (pool, limits) in (0..).zip(setting.limits) {
            pools[usize::from(setting.pool(node, pool))] = Some(limits);
        }
        let number = [version::Node::First, version::Node::Second][node];
        Self {
            incarnation,
            table: Table::new(number, &pools, wake()),
            facts: Facts::default(),
            counters: Tallies(Buckets::new(&[TERMS; LIMITS as usize], seed, wake())),
            end: None,
            old: None,
            memory,
            woken,
            origin: Duration::from_micros(random.u64(0..100_000_000)),
            rate: random.i64(-200..=200),
            began: now,
        }
    }

    /// What its clock shows.
    pub fn clock(&self, now: Micros) -> Duration {
        let passed = (now - self.began) as i64;
        self.origin + Duration::from_micros((passed + passed * self.rate / 1_000_000) as u64)
    }

    /// When its clock will show a time, or a little later.
    pub fn when(&self, time: Duration) -> Micros {
        let ahead = time.saturating_sub(self.origin).as_micros() as i64;
        self.began + (ahead - ahead * self.rate / 1_000_000) as u64 + 2
    }

    pub fn begin(&mut self, node: usize, connection: usize, now: Micros, setting: &Setting) {
        let settings = Settings {
            node: NAMES[node].to_owned(),
            peer: NAMES[1 - node].to_owned(),
            boot: self.incarnation,
            checksum: [u8::from(setting.turned) * node as u8; 8],
            versions: VERSIONS,
            pools: setting.names(node),
            limits: setting.limit_names(node),
        };
        let replica = Replica::new(settings, self.clock(now), &self.table, &mut self.facts, &self.counters);
        self.old = self.end.replace(End {
            connection,
            replica,
            out: Vec::new(),
            is_due: false,
            timer_at: Micros::MAX,
            heard_hello: false,
            sent: VecDeque::new(),
            came: Vec::new(),
            came_sequence: 0,
            snapshot_came: false,
            snapshot_went: false,
        });
    }

    pub fn was_woken(&self) -> bool {
        self.woken.swap(false, Ordering::Relaxed)
    }

    /// The end of this connection, if it still is one that is spoken on.
    pub fn end(&mut self, connection: usize) -> Option<&mut End> {
        self.end.as_mut().filter(|end| end.connection == connection)
    }

    pub fn scan(&self, now: Micros) -> Vec<Record> {
        let (mut cursor, mut records) = (Cursor::default(), Vec::new());
        while self.table.scan(&mut cursor, self.clock(now), 1_000, |record| records.push(record)) {}
        records
    }

    /// What the table has of each key, and since when it was not used.
    pub fn entries(&self, node: usize, now: Micros, setting: &Setting) -> Vec<Option<Held>> {
        let mut held = vec![None; KEYS];
        for record in self.scan(now) {
            if let Some(number) = setting.number(&record.key) {
                held[number] = Some(Held::new(node, &record, setting));
            }
        }
        held
    }
}

/// What a table has of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub pool: u16,
    pub content: Content,
    pub version: Version,
    pub idle: Duration,
    pub age: Duration,
}

impl Held {
    pub fn new(node: usize, record: &Record, setting: &Setting) -> Self {
        let server = |server| Content::Server(setting.server(node, server));
        Self {
            pool: setting.pool(node, record.pool),
            content: record.server.map_or(Content::Deleted, server),
            version: record.version,
            idle: record.idle,
            age: record.age,
        }
    }

    /// Time that is left, if nobody uses it.
    pub fn left(&self, limits: &PoolLimits) -> Duration {
        let idle = limits.idle.saturating_sub(self.idle);
        limits.absolute.map_or(idle, |absolute| idle.min(absolute.saturating_sub(self.age)))
    }
}
