//! The session table under many threads at once: readers without a lock, writers, eviction, clearing, sweeping, and
//! another node that takes the changes and now and then begins anew with a scan. On real threads, for a few seconds.
//!
//! `BATON_ROUNDS=1000000 cargo test --release --test session_stress` has each writer do that many rounds, 40,000 if not
//! told.
//!
//! Every key has a server of its own, so that half a write, or an entry of another key, shows. At the end the books are
//! right, and the other node has every change; it took them only when it was woken.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use baton::session::key::Key;
use baton::session::record::ServerRef;
use baton::session::table::{Cursor, Merged, PoolLimits, Table};
use baton::session::version::{Node, Version};

const KEYS: u64 = 12_000;
const SERVERS: u64 = 7;
const WRITERS: u64 = 3;
/// A woken thread that sleeps on is one that was not woken.
const PATIENCE: Duration = Duration::from_secs(20);

/// As evenly spread as real ones.
fn key(number: u64) -> Key {
    let spread = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Key::from_bytes((spread ^ spread >> 64).to_be_bytes())
}

/// The only server that a key ever belongs to.
fn server(number: u64) -> ServerRef {
    ServerRef { pool: 0, server: u16::try_from(number % SERVERS).unwrap() }
}

fn limits(entries_max: usize) -> PoolLimits {
    PoolLimits { entries_max, idle: Duration::from_secs(3_600), absolute: None, servers: SERVERS as usize }
}

fn rounds() -> u64 {
    std::env::var("BATON_ROUNDS").map_or(40_000, |rounds| rounds.parse().unwrap())
}

/// Lets the thread sleep that takes the changes.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    /// False when nobody rang for a long time.
    fn wait(&self) -> bool {
        let rung = self.rung.lock().unwrap();
        let (mut rung, timeout) = self.changed.wait_timeout_while(rung, PATIENCE, |rung| !*rung).unwrap();
        *rung = false;
        !timeout.timed_out()
    }
}

struct Stress {
    table: Table,
    bell: Arc<Bell>,
    other: Table,
    is_over: AtomicBool,
    found: AtomicU64,
    taken: AtomicU64,
    scanned: AtomicU64,
}

/// The time by the tables' clock, at a round.
fn at(round: u64) -> Duration {
    // An hour's idle time is refreshed after 225 s: here, every 2,250 rounds.
    Duration::from_millis(round * 100)
}

impl Stress {
    fn new(entries_max: usize) -> Self {
        let bell = Arc::new(Bell::default());
        let rung = Arc::clone(&bell);
        Self {
            table: Table::new(Node::First, &[Some(limits(entries_max))], Box::new(move || rung.ring())),
            bell,
            // Has room for all, whatever the first one evicts.
            other: Table::new(Node::Second, &[Some(limits(100_000))], Box::new(|| {})),
            is_over: AtomicBool::new(false),
            found: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            scanned: AtomicU64::new(0),
        }
    }

    fn write(&self, writer: u64) {
        let mut random = fastrand::Rng::with_seed(writer);
        for round in 0..rounds() {
            let number = random.u64(0..KEYS);
            let now = at(round.min(20_000));
            match random.u8(0..16) {
                0..8 => assert_eq!(self.table.claim(&key(number), server(number), now), server(number)),
                8..11 => self.table.put(&key(number), server(number), now),
                11..13 => _ = self.table.remove(&key(number), now),
                _ if round % 4_096 == 0 => {
                    _ = self.table.clear(Some(0), Some(random.u16(0..SERVERS as u16)), now);
                }
                _ if round % 16 == 0 => self.table.sweep(now),
                _ => self.look_up(number, now),
            }
        }
    }

    fn read(&self) {
        let mut random = fastrand::Rng::with_seed(99);
        while !self.is_over.load(Ordering::Relaxed) {
            self.look_up(random.u64(0..KEYS), at(0));
        }
    }

    fn look_up(&self, number: u64, now: Duration) {
        if let Some(found) = self.table.find(&key(number), now) {
            assert_eq!(found, server(number), "key {number}");
            self.found.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Another node: it begins with a scan, and again now and then, and takes changes when it is woken.
    fn follow(&self) {
        let mut random = fastrand::Rng::with_seed(77);
        let mut merge = |record: baton::session::Record| {
            // Of a deleted one only the version is left.
            assert_ne!(self.other.merge(&record, at(20_000)), Merged::Useless);
        };
        let begin = |merge: &mut dyn FnMut(baton::session::Record)| {
            self.table.keep_changes(true);
            let mut cursor = Cursor::default();
            while self.table.scan(&mut cursor, at(20_000), 300, &mut *merge) {}
            self.scanned.fetch_add(1, Ordering::Relaxed);
        };
        begin(&mut merge);
        loop {
            let is_over = self.is_over.load(Ordering::Acquire);
            while self.table.pending_changes() > 0 {
                self.table.take_changes(at(20_000), random.usize(1..500), |record| {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    merge(record);
                });
            }
            if is_over {
                return;
            }
            if random.u8(0..=255) == 0 {
                begin(&mut merge);
                continue;
            }
            assert!(self.bell.wait(), "{} changes, and nobody rang", self.table.pending_changes());
        }
    }

    fn run(&self) {
        thread::scope(|scope| {
            let reader = scope.spawn(|| self.read());
            let follower = scope.spawn(|| self.follow());
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || self.write(writer))).collect();
            let written = writers.into_iter().map(thread::ScopedJoinHandle::join).collect::<Result<Vec<_>, _>>();
            // The last changes are taken without any more ado.
            let patience = Instant::now() + PATIENCE;
            while self.table.pending_changes() > 0 && Instant::now() < patience && !follower.is_finished() {
                thread::yield_now();
            }
            let pending = self.table.pending_changes();
            self.is_over.store(true, Ordering::Release);
            self.bell.ring();
            assert!(pending == 0 || follower.is_finished(), "{pending} changes, and nobody rang");
            for result in [written.map(|_| ()), reader.join(), follower.join()] {
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
        let (found, taken) = (self.found.load(Ordering::Relaxed), self.taken.load(Ordering::Relaxed));
        let scanned = self.scanned.load(Ordering::Relaxed);
        assert!(found > 1_000 && taken > 1_000 && scanned > 0, "{found} {taken} {scanned}");
        assert_eq!((self.table.pending_changes(), self.table.changed_since()), (0, None));
    }

    /// The counts are those of the entries, and a table that is emptied is empty.
    fn check_books(&self) {
        let mut counts = vec![0; SERVERS as usize];
        let mut live = BTreeMap::new();
        self.table.each(None, at(20_000), |entry| {
            counts[usize::from(entry.server.server)] += 1;
            live.insert(entry.key, entry.server).is_none()
        });
        assert_eq!(self.table.counts(0), counts);
        assert_eq!(self.table.stats(0).entries, live.len());
        assert_eq!(self.table.slots_in_use(), entries(&self.table).len());
        for number in 0..KEYS {
            assert_eq!(self.table.find(&key(number), at(20_000)), live.get(&key(number)).copied());
        }
    }

    fn check_empty(&self) {
        self.table.clear(None, None, at(20_000));
        assert_eq!(self.table.stats(0).entries, 0);
        (0..100).for_each(|_| self.table.sweep(at(100_000)));
        assert_eq!(self.table.slots_in_use(), 0);
        assert!(entries(&self.table).is_empty());
    }
}

fn entries(table: &Table) -> BTreeMap<Key, (Version, Option<u16>)> {
    let (mut cursor, mut entries) = (Cursor::default(), BTreeMap::new());
    let mut add = |record: baton::session::Record| {
        let twice = entries.insert(record.key, (record.version, record.server));
        assert_eq!(twice, None, "two entries of {}", record.key);
    };
    while table.scan(&mut cursor, at(20_000), 1_000, &mut add) {}
    entries
}

#[test]
fn no_change_is_lost_while_all_write_at_once() {
    let stress = Stress::new(20_000);
    stress.run();
    assert_eq!(stress.table.stats(0).evicted, 0);
    assert_eq!(entries(&stress.table), entries(&stress.other));
    stress.check_books();
    stress.check_empty();
}

#[test]
fn a_full_table_evicts_while_all_write_at_once() {
    const ENTRIES_MAX: usize = 6_000;
    let stress = Stress::new(ENTRIES_MAX);
    stress.run();
    assert!(stress.table.stats(0).evicted > 1_000);
    // A writer that finds the oldest entry's part locked may go over the maximum, each by one.
    assert!(stress.table.slots_in_use() <= ENTRIES_MAX + WRITERS as usize, "{}", stress.table.slots_in_use());
    let known = entries(&stress.other);
    for (key, entry) in entries(&stress.table) {
        assert_eq!(known.get(&key), Some(&entry), "{key}");
    }
    stress.check_books();
    stress.check_empty();
}
