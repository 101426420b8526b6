use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn limits(entries_max: usize, idle_s: u64) -> PoolLimits {
    PoolLimits { entries_max, idle: Duration::from_secs(idle_s), absolute: None, servers: 4 }
}

fn table(node: Node, limits: PoolLimits) -> Table {
    Table::new(node, &[Some(limits)], Box::new(|| {}))
}

/// Keys as evenly spread as real ones.
fn key(number: u64) -> Key {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &number.to_be_bytes());
    Key::from_bytes(*digest.as_ref().first_chunk().unwrap())
}

fn server(server: u16) -> ServerRef {
    ServerRef { pool: 0, server }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn changes(table: &Table, now: Duration) -> Vec<Record> {
    let mut taken = Vec::new();
    table.take_changes(now, usize::MAX, |record| taken.push(record));
    taken
}

fn scanned(table: &Table, now: Duration, page: usize) -> Vec<Record> {
    let (mut cursor, mut taken) = (Cursor::default(), Vec::new());
    while table.scan(&mut cursor, now, page, |record| taken.push(record)) {}
    taken
}

#[test]
fn a_slot_is_48_bytes() {
    assert_eq!(size_of::<slot::Slot>(), 48);
}

#[test]
fn a_key_stays_with_the_server_that_was_claimed_first() {
    let table = table(Node::Only, limits(10, 60));
    assert_eq!(table.find(&key(1), s(0)), None);
    assert_eq!(table.claim(&key(1), server(2), s(0)), server(2));
    assert_eq!(table.claim(&key(1), server(3), s(1)), server(2));
    assert_eq!(table.find(&key(1), s(2)), Some(server(2)));
    table.put(&key(1), server(3), s(3));
    assert_eq!(table.find(&key(1), s(4)), Some(server(3)));
    assert_eq!(table.counts(0), [0, 0, 0, 1]);
    assert!(table.remove(&key(1), s(5)));
    assert!(!table.remove(&key(1), s(5)));
    assert_eq!(table.find(&key(1), s(5)), None);
    assert_eq!(table.stats(0).entries, 0);
}

#[test]
fn an_entry_ends_when_it_was_not_used_for_the_idle_time() {
    let table = table(Node::Only, limits(10, 16));
    table.claim(&key(1), server(1), s(0));
    assert_eq!(table.find(&key(1), Duration::from_millis(15_900)), Some(server(1)));
    assert_eq!(table.find(&key(1), Duration::from_millis(31_800)), Some(server(1)));
    assert_eq!(table.find(&key(1), Duration::from_millis(47_800)), None);
    assert_eq!(table.claim(&key(1), server(2), Duration::from_millis(47_800)), server(2));
}

#[test]
fn an_entry_ends_after_the_absolute_time_however_much_it_is_used() {
    let table = table(Node::Only, PoolLimits { absolute: Some(s(30)), ..limits(10, 10) });
    table.claim(&key(1), server(1), s(0));
    for at in 1..30 {
        assert_eq!(table.find(&key(1), s(at)), Some(server(1)), "{at}");
    }
    assert_eq!(table.find(&key(1), s(30)), None);
}

#[test]
fn the_entry_that_was_not_used_for_the_longest_time_makes_room() {
    let table = table(Node::Only, limits(3, 3600));
    for number in 1..=3 {
        table.claim(&key(number), server(0), s(number));
    }
    assert_eq!(table.find(&key(1), s(400)), Some(server(0)));
    table.claim(&key(4), server(0), s(401));
    assert_eq!(table.find(&key(2), s(402)), None);
    for number in [1, 3, 4] {
        assert_eq!(table.find(&key(number), s(402)), Some(server(0)), "{number}");
    }
    assert_eq!(table.stats(0), PoolStats { entries: 3, evicted: 1, expired: 0 });
}

#[test]
fn a_large_table_stays_at_its_maximum_and_loses_old_entries() {
    let table = table(Node::Only, limits(100_000, 36_000));
    for number in 0..200_000 {
        table.claim(&key(number), server(0), Duration::from_millis(number));
    }
    let stats = table.stats(0);
    assert!((99_990..=100_010).contains(&stats.entries), "{stats:?}");
    assert_eq!(stats.entries as u64 + stats.evicted, 200_000);
    let now = s(200);
    let kept = |range: std::ops::Range<u64>| range.filter(|number| table.find(&key(*number), now).is_some()).count();
    assert!(kept(150_000..200_000) == 50_000);
    assert!(kept(0..50_000) < 500);
}

#[test]
fn pools_have_limits_of_their_own() {
    let pools = [Some(limits(2, 60)), None, Some(limits(5, 60))];
    let table = Table::new(Node::Only, &pools, Box::new(|| {}));
    for number in 0..5 {
        table.claim(&key(number), ServerRef { pool: 0, server: 0 }, s(number));
        table.claim(&key(number + 100), ServerRef { pool: 2, server: 0 }, s(number));
    }
    assert_eq!((table.stats(0).entries, table.stats(1).entries, table.stats(2).entries), (2, 0, 5));
    let of_none = ServerRef { pool: 1, server: 1 };
    assert_eq!(table.claim(&key(200), of_none, s(9)), of_none);
    assert_eq!(table.find(&key(200), s(9)), None);
}

#[test]
fn a_sweep_removes_what_has_expired() {
    let table = table(Node::Only, limits(100_000, 10));
    for number in 0..10_000 {
        table.claim(&key(number), server(1), s(number / 1_000));
    }
    (0..10).for_each(|_| table.sweep(s(15)));
    assert_eq!(table.stats(0).entries, 4_000);
    assert_eq!(table.stats(0).expired, 6_000);
    assert_eq!(table.slots_in_use(), 4_000);
    (0..10).for_each(|_| table.sweep(s(30)));
    assert_eq!(table.slots_in_use(), 0);
}

#[test]
fn clear_takes_out_what_is_meant_and_nothing_else() {
    let table = table(Node::Only, limits(10_000, 60));
    for number in 0..4_000 {
        table.claim(&key(number), server(u16::try_from(number % 4).unwrap()), s(0));
    }
    assert_eq!(table.clear(Some(0), Some(1), s(1)), 1_000);
    assert_eq!(table.counts(0), [1_000, 0, 1_000, 1_000]);
    assert_eq!(table.clear(Some(1), None, s(1)), 0);
    assert_eq!(table.clear(None, None, s(1)), 3_000);
    assert_eq!(table.slots_in_use(), 0);
}

#[test]
fn each_shows_every_live_entry_once_and_stops_when_told() {
    let table = table(Node::First, limits(10_000, 60));
    (0..1_000).for_each(|number| _ = table.claim(&key(number), server(1), s(0)));
    assert!(table.remove(&key(7), s(1)));
    let mut seen = std::collections::BTreeSet::new();
    table.each(Some(0), s(10), |entry| {
        assert_eq!((entry.idle, entry.age, entry.expires_in), (s(10), s(10), s(50)));
        seen.insert(entry.key)
    });
    assert_eq!(seen.len(), 999);
    let mut count = 0;
    table.each(None, s(10), |_| {
        count += 1;
        count < 5
    });
    assert_eq!(count, 5);
}

#[test]
fn changes_are_kept_once_each_and_wake_once() {
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let wake = Box::new(move || _ = count.fetch_add(1, Ordering::Relaxed));
    let table = Table::new(Node::First, &[Some(limits(10_000, 3_600))], wake);
    table.claim(&key(1), server(1), s(0));
    assert_eq!(table.pending_changes(), 0);
    table.keep_changes(true);
    table.claim(&key(2), server(1), s(1));
    table.put(&key(2), server(2), s(1));
    table.claim(&key(3), server(3), s(2));
    assert!(table.remove(&key(1), s(3)));
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert_eq!(table.pending_changes(), 3);
    assert_eq!(table.changed_since(), Some(s(1)));
    let mut taken = changes(&table, s(4));
    taken.sort_by_key(|record| record.version);
    let said: Vec<_> = taken.iter().map(|record| (record.key, record.server, record.idle)).collect();
    assert_eq!(said, [(key(2), Some(2), s(3)), (key(3), Some(3), s(2)), (key(1), None, s(1))]);
    assert_eq!((table.pending_changes(), table.changed_since()), (0, None));
    table.claim(&key(4), server(1), s(4));
    assert_eq!(woken.load(Ordering::Relaxed), 2);
    table.keep_changes(true);
    assert_eq!(table.pending_changes(), 0);
}

#[test]
fn changes_can_be_taken_in_parts() {
    let table = table(Node::First, limits(100_000, 3_600));
    table.keep_changes(true);
    (0..1_000).for_each(|number| _ = table.claim(&key(number), server(1), s(0)));
    let mut keys = std::collections::BTreeSet::new();
    for left in [700, 400, 100, 0, 0] {
        table.take_changes(s(1), 300, |record| assert!(keys.insert(record.key)));
        assert_eq!(table.pending_changes(), left);
    }
    assert_eq!(keys.len(), 1_000);
}

#[test]
fn a_use_is_a_change_only_a_sixteenth_of_the_idle_time_later() {
    let table = table(Node::First, limits(10, 160));
    table.claim(&key(1), server(1), s(0));
    table.keep_changes(true);
    table.find(&key(1), Duration::from_millis(9_900));
    assert_eq!(table.pending_changes(), 0);
    table.find(&key(1), Duration::from_millis(10_000));
    assert_eq!(changes(&table, s(10)).len(), 1);
}

#[test]
fn a_scan_tells_everything_and_another_table_becomes_equal() {
    let (one, other) = (table(Node::First, limits(50_000, 3_600)), table(Node::Second, limits(50_000, 3_600)));
    for number in 0..20_000 {
        one.claim(&key(number), server(u16::try_from(number % 4).unwrap()), Duration::from_millis(number));
    }
    assert!(one.remove(&key(5), s(30)));
    let records = scanned(&one, s(40), 777);
    assert_eq!(records.len(), 20_000);
    // The origins of the two nodes' times differ.
    records.iter().for_each(|record| assert_eq!(other.merge(record, s(7_000)), Merged::Taken));
    records.iter().for_each(|record| assert_eq!(other.merge(record, s(7_000)), Merged::Known));
    assert_eq!(other.counts(0), one.counts(0));
    let mut known = scanned(&other, s(7_000), 1_000);
    let mut told = records;
    known.sort_by_key(|record| record.key);
    told.sort_by_key(|record| record.key);
    assert_eq!(known, told);
    assert_eq!(other.find(&key(5), s(7_000)), None);
    // The order of use has come along: what the first would evict, the second evicts.
    assert_eq!(other.find(&key(0), s(7_000) + HOUR - s(40)), None);
    assert_eq!(other.find(&key(19_999), s(7_000) + HOUR - s(40)), Some(server(3)));
}

#[test]
fn the_newest_write_stands_wherever_it_was_made() {
    let (one, other) = (table(Node::First, limits(10, 60)), table(Node::Second, limits(10, 60)));
    one.keep_changes(true);
    other.keep_changes(true);
    one.claim(&key(1), server(1), s(0));
    changes(&one, s(0)).iter().for_each(|record| _ = other.merge(record, s(0)));
    // The first writes on and is cut off; the second takes over and writes later.
    (0..5).for_each(|number| one.put(&key(1), server(number % 2 + 2), s(1)));
    other.take_over();
    other.put(&key(1), server(0), s(2));
    let (from_one, from_other) = (changes(&one, s(3)), changes(&other, s(3)));
    assert_eq!((from_one.len(), from_other.len()), (1, 1));
    assert_eq!(other.merge(&from_one[0], s(3)), Merged::Known);
    assert_eq!(one.merge(&from_other[0], s(3)), Merged::Taken);
    assert_eq!((one.find(&key(1), s(3)), other.find(&key(1), s(3))), (Some(server(0)), Some(server(0))));
    // Both count on from there.
    one.put(&key(1), server(3), s(4));
    assert_eq!(other.merge(&changes(&one, s(4))[0], s(4)), Merged::Taken);
}

#[test]
fn one_version_with_two_contents_comes_to_the_same_on_both_nodes() {
    let (one, other) = (table(Node::First, limits(10, 60)), table(Node::First, limits(10, 60)));
    one.claim(&key(1), server(1), s(0));
    other.claim(&key(1), server(2), s(0));
    let (from_one, from_other) = (scanned(&one, s(0), 10), scanned(&other, s(0), 10));
    one.merge(&from_other[0], s(0));
    other.merge(&from_one[0], s(0));
    assert_eq!((one.find(&key(1), s(0)), other.find(&key(1), s(0))), (Some(server(2)), Some(server(2))));
}

#[test]
fn a_later_use_at_the_other_node_counts_here() {
    let (one, other) = (table(Node::First, limits(10, 60)), table(Node::Second, limits(10, 60)));
    one.claim(&key(1), server(1), s(0));
    scanned(&one, s(0), 10).iter().for_each(|record| _ = other.merge(record, s(0)));
    one.find(&key(1), s(50));
    let record = scanned(&one, s(50), 10)[0];
    assert_eq!(other.merge(&record, s(50)), Merged::Taken);
    assert_eq!(other.find(&key(1), s(100)), Some(server(1)));
}

#[test]
fn a_deleted_entry_does_not_come_back_from_the_other_node() {
    let (one, other) = (table(Node::First, limits(10, 60)), table(Node::Second, limits(10, 60)));
    one.claim(&key(1), server(1), s(0));
    let stale = scanned(&one, s(0), 10)[0];
    other.merge(&stale, s(0));
    assert!(other.remove(&key(1), s(1)));
    assert_eq!(other.merge(&stale, s(0)), Merged::Known);
    assert_eq!(other.find(&key(1), s(2)), None);
    // Once no copy can be left, what was left of it goes as well, two seconds later.
    (0..10).for_each(|_| other.sweep(s(62)));
    assert_eq!(other.slots_in_use(), 1);
    (0..10).for_each(|_| other.sweep(s(63)));
    assert_eq!(other.slots_in_use(), 0);
    assert_eq!(other.merge(&Record { idle: s(60), ..stale }, s(61)), Merged::Useless);
}

#[test]
fn readers_never_see_half_a_write() {
    let table = Arc::new(table(Node::First, limits(2_000, 3_600)));
    let is_over = Arc::new(AtomicBool::new(false));
    // Key n belongs to server n % 4, whoever writes it; slots are reused all the time.
    let of = |number: u64| server(u16::try_from(number % 4).unwrap());
    let writers: Vec<_> = (0..2_u64)
        .map(|writer| {
            let table = Arc::clone(&table);
            std::thread::spawn(move || {
                for round in 0..60_000_u64 {
                    let number = (round * 7 + writer * 3) % 5_000;
                    table.claim(&key(number), of(number), s(round / 1_000));
                    if round % 3 == 0 {
                        table.remove(&key((number + 11) % 5_000), s(round / 1_000));
                    }
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (table, is_over) = (Arc::clone(&table), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let keys: Vec<Key> = (0..5_000).map(key).collect();
                let mut found = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    for (number, key) in (0_u64..).zip(&keys) {
                        if let Some(seen) = table.find(key, s(1)) {
                            assert_eq!(seen, of(number));
                            found += 1;
                        }
                    }
                }
                found
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    is_over.store(true, Ordering::Relaxed);
    let found: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert!(found > 0);
    assert!(table.stats(0).entries <= 2_000);
    let mut shown = 0;
    table.each(None, s(60), |_| {
        shown += 1;
        true
    });
    assert_eq!(shown, table.stats(0).entries);
}

#[test]
fn the_newest_write_and_the_latest_use_stand_whichever_expired_meanwhile() {
    let (one, other) = (table(Node::First, limits(10, 60)), table(Node::Second, limits(10, 60)));
    one.claim(&key(1), server(1), s(0));
    scanned(&one, s(0), 10).iter().for_each(|record| _ = other.merge(record, s(0)));
    // While the nodes are apart.
    other.put(&key(1), server(2), s(1));
    assert_eq!(one.find(&key(1), s(50)), Some(server(1)));
    // The second's write has expired, and so it does not tell of it, until it hears of the later use.
    other.keep_changes(true);
    let record = scanned(&one, s(61), 10)[0];
    assert_eq!(scanned(&other, s(61), 10), []);
    assert_eq!(other.merge(&record, s(61)), Merged::Taken);
    assert_eq!(other.find(&key(1), s(61)), Some(server(2)));
    let told = changes(&other, s(61));
    assert_eq!(told.len(), 1);
    assert_eq!(one.merge(&told[0], s(61)), Merged::Taken);
    assert_eq!((one.find(&key(1), s(62)), other.find(&key(1), s(62))), (Some(server(2)), Some(server(2))));
}

#[test]
fn a_deletion_lasts_as_long_as_the_other_node_may_have_the_entry() {
    let (one, other) = (table(Node::First, limits(10, 60)), table(Node::Second, limits(10, 60)));
    one.claim(&key(1), server(1), s(0));
    scanned(&one, s(0), 10).iter().for_each(|record| _ = other.merge(record, s(0)));
    // While the nodes are apart one deletes what the other goes on using.
    assert!(other.remove(&key(1), s(1)));
    assert_eq!(one.find(&key(1), s(50)), Some(server(1)));
    other.merge(&scanned(&one, s(55), 10)[0], s(55));
    (0..10).for_each(|_| other.sweep(s(100)));
    one.merge(&scanned(&other, s(100), 10)[0], s(100));
    assert_eq!((one.find(&key(1), s(100)), other.find(&key(1), s(100))), (None, None));
}

#[test]
fn an_entry_that_the_other_node_has_under_another_pool_makes_way() {
    let pools = [Some(limits(2, 60)), Some(limits(2, 60))];
    let table = Table::new(Node::First, &pools, Box::new(|| {}));
    let of_other =
        Record { key: key(1), pool: 1, server: Some(3), version: Version::new(9).unwrap(), idle: s(0), age: s(0) };
    assert_eq!(table.merge(&of_other, s(0)), Merged::Taken);
    table.claim(&key(2), ServerRef { pool: 1, server: 0 }, s(1));
    assert_eq!(table.claim(&key(1), server(2), s(2)), server(2));
    assert_eq!((table.counts(0), table.counts(1)), (vec![0, 0, 1, 0], vec![1, 0, 0, 0]));
    assert_eq!(table.merge(&of_other, s(2)), Merged::Useless);
    // Both orders of use are whole: everything is found to be swept.
    (0..10).for_each(|_| table.sweep(s(100)));
    assert_eq!(table.slots_in_use(), 0);
}

#[test]
fn what_comes_from_elsewhere_and_is_older_than_all_of_a_full_pool_takes_no_place() {
    let (one, other) = (table(Node::First, limits(3, 600)), table(Node::Second, limits(3, 600)));
    (1..=3).for_each(|number| _ = one.claim(&key(number), server(1), s(number)));
    (4..=6).for_each(|number| _ = other.claim(&key(number), server(2), s(100 + number)));
    for record in scanned(&one, s(200), 10) {
        assert_eq!(other.merge(&record, s(200)), Merged::Useless);
    }
    assert_eq!(other.stats(0), PoolStats { entries: 3, evicted: 0, expired: 0 });
    for record in scanned(&other, s(200), 10) {
        assert_eq!(one.merge(&record, s(200)), Merged::Taken);
    }
    assert_eq!((one.counts(0), one.stats(0).evicted), (vec![0, 0, 3, 0], 3));
}

#[test]
fn a_small_pool_beside_a_large_one_keeps_to_its_maximum() {
    let pools = [Some(limits(500_000, 600)), Some(limits(2, 600))];
    let table = Table::new(Node::Only, &pools, Box::new(|| {}));
    for number in 0..500 {
        table.claim(&key(number), ServerRef { pool: 1, server: 0 }, s(number));
        assert!(table.stats(1).entries <= 2, "{number}");
    }
    assert!(table.find(&key(499), s(500)).is_some());
}
