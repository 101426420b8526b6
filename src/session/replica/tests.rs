use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::super::key::Key;
use super::super::record::ServerRef;
use super::super::table::PoolLimits;
use super::super::version::Node;
use super::*;

const LIMITS: PoolLimits =
    PoolLimits { entries_max: 100_000, idle: Duration::from_secs(3_600), absolute: None, servers: 4 };

/// A node and its end of the connection.
struct End {
    table: Table,
    facts: Facts,
    counters: Tally,
    replica: Replica,
}

/// Counters of the simplest kind: of each key a total, and what the other node said of it.
#[derive(Default)]
struct Tally {
    own: RefCell<BTreeMap<(u16, Key), u32>>,
    theirs: RefCell<BTreeMap<(u16, Key), u32>>,
    changed: RefCell<BTreeSet<(u16, Key)>>,
    are_kept: Cell<bool>,
}

impl Tally {
    fn count(&self, limit: u16, key: Key, by: u32) {
        *self.own.borrow_mut().entry((limit, key)).or_default() += by;
        if self.are_kept.get() {
            self.changed.borrow_mut().insert((limit, key));
        }
    }
}

impl Counters for Tally {
    fn keep_changes(&self, are_kept: bool) {
        self.are_kept.set(are_kept);
        *self.changed.borrow_mut() =
            if are_kept { self.own.borrow().keys().copied().collect() } else { BTreeSet::new() };
    }

    fn has_changes(&self) -> bool {
        !self.changed.borrow().is_empty()
    }

    fn take_changes(&self, _: Duration, count: usize, take: &mut dyn FnMut(&CounterRecord)) {
        for _ in 0..count {
            let Some((limit, key)) = self.changed.borrow_mut().pop_first() else { return };
            let total = self.own.borrow()[&(limit, key)];
            take(&CounterRecord { key, limit, life: 1, total, peer_life: 0, peer_total: 0, missing: 0 });
        }
    }

    fn merge(&self, record: &CounterRecord, _: Duration) {
        self.theirs.borrow_mut().insert((record.limit, record.key), record.total);
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn key(number: u64) -> Key {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &number.to_be_bytes());
    Key::from_bytes(*digest.as_ref().first_chunk().unwrap())
}

fn settings(node: &str, servers: &[&str]) -> Settings {
    let peer = if node == "lb-a" { "lb-b" } else { "lb-a" };
    let servers = servers.iter().map(|name| (*name).to_owned()).collect();
    Settings {
        node: node.to_owned(),
        peer: peer.to_owned(),
        boot: 1,
        checksum: *b"checksum",
        versions: VERSIONS,
        limits: vec!["web".to_owned(), "api".to_owned()],
        pools: vec![PoolNames { pool: 0, name: "app".to_owned(), servers }],
    }
}

fn end(node: Node, settings: Settings, entries: std::ops::Range<u64>) -> End {
    let table = Table::new(node, &[Some(LIMITS)], Box::new(|| {}));
    for number in entries {
        table.claim(&key(number), ServerRef { pool: 0, server: u16::try_from(number % 3).unwrap() }, ms(0));
    }
    let mut facts = Facts::default();
    let counters = Tally::default();
    let replica = Replica::new(settings, ms(0), &table, &mut facts, &counters);
    End { table, facts, counters, replica }
}

fn pair(entries: std::ops::Range<u64>) -> (End, End) {
    let servers = ["one", "two", "three"];
    (end(Node::First, settings("lb-a", &servers), entries), end(Node::Second, settings("lb-b", &servers), 0..0))
}

impl End {
    fn says(&mut self, now: Duration) -> Vec<u8> {
        let mut out = Vec::new();
        self.replica.transmit(now, &mut out, &self.table, &mut self.facts, &self.counters);
        out
    }

    fn hears(&mut self, now: Duration, bytes: &[u8]) -> Result<Received, Fault> {
        self.replica.received(now, bytes, &self.table, &mut self.facts, &self.counters)
    }

    fn state(&mut self, now: Duration) -> State {
        self.replica.state(now, &self.table)
    }
}

/// Lets both talk until neither has anything to say.
fn talk(now: Duration, one: &mut End, other: &mut End) {
    loop {
        let (from_one, from_other) = (one.says(now), other.says(now));
        if from_one.is_empty() && from_other.is_empty() {
            return;
        }
        other.hears(now, &from_one).unwrap();
        one.hears(now, &from_other).unwrap();
    }
}

#[test]
fn two_tables_become_equal_and_both_know_it() {
    let (mut a, mut b) = pair(0..20_000);
    b.table.claim(&key(50_000), ServerRef { pool: 0, server: 1 }, ms(0));
    assert!(!a.state(ms(0)).in_sync);
    talk(ms(0), &mut a, &mut b);
    assert_eq!(a.table.counts(0), b.table.counts(0));
    assert_eq!(b.table.stats(0).entries, 20_001);
    for end in [&mut a, &mut b] {
        let state = end.state(ms(0));
        assert!(state.in_sync && state.is_snapshot_sent && state.is_snapshot_received);
        assert_eq!((state.protocol, state.lag_entries, state.lag, state.config_differs), (1, 0, ms(0), false));
    }
    // With the one that came from the other side before its turn.
    assert_eq!(a.state(ms(0)).snapshot_sent, (20_001, 20_001));
    assert_eq!(b.state(ms(0)).snapshot_received, (20_001, 20_001));
}

#[test]
fn a_change_goes_before_the_rest_of_the_snapshot() {
    let (mut a, mut b) = pair(0..50_000);
    for _ in 0..3 {
        let (from_a, from_b) = (a.says(ms(0)), b.says(ms(0)));
        b.hears(ms(0), &from_a).unwrap();
        a.hears(ms(0), &from_b).unwrap();
    }
    assert!(!a.state(ms(0)).is_snapshot_sent);
    a.table.put(&key(1_000_000), ServerRef { pool: 0, server: 2 }, ms(1));
    assert_eq!((a.state(ms(3)).lag_entries, a.state(ms(3)).lag), (1, ms(2)));
    let said = a.says(ms(3));
    b.hears(ms(3), &said).unwrap();
    assert_eq!(b.table.find(&key(1_000_000), ms(3)), Some(ServerRef { pool: 0, server: 2 }));
    assert_eq!(a.state(ms(4)).lag, ms(3));
    let said = b.says(ms(5));
    a.hears(ms(5), &said).unwrap();
    let state = a.state(ms(5));
    assert_eq!((state.lag_entries, state.lag, state.lag_max), (0, ms(0), ms(4)));
    assert_eq!(a.replica.lag_counts().classes, [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn deletions_and_facts_come_along_with_changes() {
    let (mut a, mut b) = pair(0..10);
    let drained = FactKey::Admin { pool: "app".to_owned(), server: "one".to_owned() };
    a.facts.set(drained.clone(), b"draining".to_vec(), a.table.next_version());
    a.facts.change_all();
    let (from_a, from_b) = (a.says(ms(0)), b.says(ms(0)));
    b.hears(ms(0), &from_a).unwrap();
    a.hears(ms(0), &from_b).unwrap();
    let said = a.says(ms(0));
    let received = b.hears(ms(0), &said).unwrap();
    assert_eq!(received.facts, [(drained.clone(), b"draining".to_vec())]);
    talk(ms(0), &mut a, &mut b);
    assert!(b.table.find(&key(3), ms(1)).is_some());
    assert!(a.table.remove(&key(3), ms(1)));
    // 0, 3, 6 and 9: that 3 is gone it has not heard yet.
    assert_eq!(b.table.clear(Some(0), Some(0), ms(1)), 4);
    talk(ms(1), &mut a, &mut b);
    assert_eq!((a.table.stats(0).entries, b.table.stats(0).entries), (6, 6));
    assert_eq!(b.facts.get(&drained), Some(&b"draining"[..]));
}

#[test]
fn servers_go_by_name() {
    let mut a = end(Node::First, settings("lb-a", &["one", "two", "three"]), 0..9);
    let mut b = end(Node::Second, settings("lb-b", &["three", "one", "new"]), 0..0);
    talk(ms(0), &mut a, &mut b);
    // three, one, new
    assert_eq!(b.table.counts(0), [3, 3, 0, 0]);
    assert_eq!(b.state(ms(0)).entries_useless, 3);
}

#[test]
fn no_more_than_a_window_is_under_way_and_a_stalled_peer_is_given_up() {
    let (mut a, mut b) = pair(0..0);
    talk(ms(0), &mut a, &mut b);
    (0..100_000).for_each(|number| _ = a.table.claim(&key(number), ServerRef { pool: 0, server: 1 }, ms(1)));
    let mut sent = 0;
    loop {
        let said = a.says(ms(1)).len();
        if said == 0 {
            break;
        }
        sent += said;
    }
    assert!((WINDOW_BYTES..WINDOW_BYTES + TRANSMIT_BYTES).contains(&sent), "{sent}");
    assert_eq!(a.state(ms(1)).lag_entries, 100_000);
    // It still says that it is alive, but deals with nothing.
    let mut alive = Vec::new();
    frame::put_handled(&mut alive, a.replica.sequence - a.replica.under_way.len() as u64);
    a.hears(ms(5_000), &alive).unwrap();
    assert_eq!(a.replica.timer(ms(5_000)), Ok(()));
    assert_eq!(a.replica.timer(ms(5_001)), Err(Fault::Stalled));
}

#[test]
fn each_says_something_now_and_then_and_notices_silence() {
    let (mut a, mut b) = pair(0..0);
    talk(ms(0), &mut a, &mut b);
    assert_eq!(a.replica.deadline(), ms(300));
    assert!(a.says(ms(299)).is_empty());
    let said = a.says(ms(300));
    assert!(!said.is_empty());
    assert_eq!(a.replica.deadline(), ms(600));
    b.hears(ms(301), &said).unwrap();
    assert_eq!(b.replica.timer(ms(1_800)), Ok(()));
    assert_eq!(b.replica.timer(ms(1_801)), Err(Fault::Silent));
}

#[test]
fn bytes_may_come_one_by_one() {
    let (mut a, mut b) = pair(0..100);
    for _ in 0..4 {
        let (from_a, from_b) = (a.says(ms(0)), b.says(ms(0)));
        from_a.iter().for_each(|byte| assert!(b.hears(ms(0), &[*byte]).is_ok()));
        from_b.iter().for_each(|byte| assert!(a.hears(ms(0), &[*byte]).is_ok()));
    }
    assert_eq!(b.table.stats(0).entries, 100);
    assert!(a.state(ms(0)).in_sync && b.state(ms(0)).in_sync);
}

#[test]
fn releases_next_to_each_other_find_a_version_and_others_say_which_they_speak() {
    let servers = ["one"];
    let newer = Settings { versions: 1..=2, ..settings("lb-a", &servers) };
    let (mut a, mut b) = (end(Node::First, newer, 0..5), end(Node::Second, settings("lb-b", &servers), 0..0));
    talk(ms(0), &mut a, &mut b);
    assert_eq!((a.state(ms(0)).protocol, b.state(ms(0)).protocol), (1, 1));
    let newest = Settings { versions: 2..=3, ..settings("lb-a", &servers) };
    let (mut a, mut b) = (end(Node::First, newest, 0..5), end(Node::Second, settings("lb-b", &servers), 0..0));
    let said = a.says(ms(0));
    let fault = b.hears(ms(0), &said).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "it speaks versions 2 to 3 of the protocol, and this node 1 to 1: upgrade the older node"
    );
    let mut last = Vec::new();
    Replica::farewell(&fault, &mut last);
    assert_eq!(a.hears(ms(0), &last), Err(Fault::Goodbye(fault.to_string())));
}

#[test]
fn what_comes_out_of_order_is_a_fault() {
    let mut entries = Vec::new();
    frame::put_handled(&mut entries, 0);
    let (mut a, mut b) = pair(0..0);
    assert_eq!(a.hears(ms(0), &entries), Err(Fault::OutOfOrder));
    let hello = b.says(ms(0));
    a.hears(ms(0), &hello).unwrap();
    assert_eq!(a.hears(ms(0), &hello), Err(Fault::OutOfOrder));
    let (mut gap, mut early) = (Vec::new(), Vec::new());
    frame::put_snapshot_end(&mut gap, 2);
    assert_eq!(a.hears(ms(0), &gap), Err(Fault::OutOfOrder));
    frame::put_handled(&mut early, 1);
    assert_eq!(a.hears(ms(0), &early), Err(Fault::OutOfOrder));
    let impostor = Settings { node: "lb-c".to_owned(), ..settings("lb-a", &["one"]) };
    let (mut c, mut d) = (end(Node::First, impostor, 0..0), end(Node::Second, settings("lb-b", &["one"]), 0..0));
    let hello = c.says(ms(0));
    assert_eq!(d.hears(ms(0), &hello), Err(Fault::Stranger("lb-c".to_owned())));
}

#[test]
fn counters_are_told_at_the_beginning_before_the_snapshot_ends_and_then_as_they_change() {
    let (mut a, mut b) = pair(0..5_000);
    // More than one frame.
    (0..1_500).for_each(|number| a.counters.count(0, key(number), 300));
    b.counters.count(0, key(7), 300);
    [&a, &b].into_iter().for_each(|end| end.counters.keep_changes(true));
    let mut told = 0;
    while !b.state(ms(0)).is_snapshot_received {
        told = b.counters.theirs.borrow().len();
        let (from_a, from_b) = (a.says(ms(0)), b.says(ms(0)));
        b.hears(ms(0), &from_a).unwrap();
        a.hears(ms(0), &from_b).unwrap();
    }
    assert_eq!((told, a.counters.theirs.borrow()[&(0, key(7))]), (1_500, 300));
    talk(ms(0), &mut a, &mut b);
    a.counters.count(1, key(7), 1);
    talk(ms(10), &mut a, &mut b);
    assert_eq!(b.counters.theirs.borrow()[&(1, key(7))], 1);
    // They make no lag, which is of sessions.
    assert_eq!((a.state(ms(10)).in_sync, a.state(ms(10)).lag_entries), (true, 0));
}

#[test]
fn counters_of_a_busy_client_are_told_every_ten_milliseconds() {
    let (mut a, mut b) = pair(0..0);
    talk(ms(0), &mut a, &mut b);
    a.counters.count(0, key(1), 1);
    talk(ms(9), &mut a, &mut b);
    assert!(b.counters.theirs.borrow().is_empty());
    assert_eq!(a.replica.deadline(), ms(10));
    a.counters.count(0, key(1), 1);
    let said = a.says(ms(10));
    // One frame: its header, its number and one counter.
    assert_eq!(said.len(), frame::HEADER_BYTES + 8 + frame::COUNTER_BYTES);
    b.hears(ms(10), &said).unwrap();
    assert_eq!(b.counters.theirs.borrow()[&(0, key(1))], 2);
    let said = b.says(ms(10));
    a.hears(ms(10), &said).unwrap();
    assert_eq!(a.replica.deadline(), ms(310));
}

#[test]
fn limits_go_by_name() {
    let limits = |names: [&str; 3]| names.map(str::to_owned).to_vec();
    let mut a =
        end(Node::First, Settings { limits: limits(["old", "web", "api"]), ..settings("lb-a", &["one"]) }, 0..0);
    let mut b =
        end(Node::Second, Settings { limits: limits(["api", "new", "web"]), ..settings("lb-b", &["one"]) }, 0..0);
    (0..4).for_each(|limit| a.counters.count(limit, key(1), u32::from(limit) + 10));
    a.counters.keep_changes(true);
    talk(ms(0), &mut a, &mut b);
    let theirs = b.counters.theirs.take();
    assert_eq!(theirs, BTreeMap::from([((0, key(1)), 12), ((2, key(1)), 11)]));
}

#[test]
fn counters_wait_for_the_window_and_nobody_keeps_them_after_the_end() {
    let (mut a, mut b) = pair(0..0);
    talk(ms(0), &mut a, &mut b);
    (0..100_000).for_each(|number| a.counters.count(0, key(number), 1));
    let mut said = Vec::new();
    loop {
        let more = a.says(ms(10));
        if more.is_empty() {
            break;
        }
        said.extend(more);
    }
    assert!((WINDOW_BYTES..WINDOW_BYTES + TRANSMIT_BYTES).contains(&said.len()), "{}", said.len());
    // Nothing to be done but to wait.
    assert_eq!(a.replica.deadline(), ms(310));
    b.hears(ms(11), &said).unwrap();
    talk(ms(11), &mut a, &mut b);
    assert_eq!(b.counters.theirs.borrow().len(), 100_000);
    a.counters.count(0, key(1), 1);
    a.replica.close(&a.table, &a.counters);
    assert!(!a.counters.has_changes() && !a.counters.are_kept.get());
}

#[test]
fn a_connection_that_was_replaced_touches_nothing() {
    let (mut a, mut b) = pair(0..0);
    talk(ms(0), &mut a, &mut b);
    b.table.claim(&key(1), ServerRef { pool: 0, server: 1 }, ms(0));
    let late = b.says(ms(0));
    let new = Replica::new(settings("lb-a", &["one"]), ms(1), &a.table, &mut a.facts, &a.counters);
    a.table.claim(&key(2), ServerRef { pool: 0, server: 1 }, ms(1));
    assert_eq!(a.hears(ms(1), &late), Err(Fault::Replaced));
    assert!(a.says(ms(1)).is_empty());
    a.replica.close(&a.table, &a.counters);
    assert!(a.counters.are_kept.get());
    assert_eq!((a.table.find(&key(1), ms(1)), a.table.pending_changes()), (None, 1));
    a.table.claim(&key(3), ServerRef { pool: 0, server: 1 }, ms(1));
    assert_eq!(a.table.pending_changes(), 2);
    new.close(&a.table, &a.counters);
    assert_eq!(a.table.pending_changes(), 0);
}
