//! Bytes that no honest node says, through the decoder of frames and the end of a connection that hears them.
//!
//! `BATON_FRAMES=10000000 cargo test --release --test session_fuzz` tries that many, 30,000 if not told.
//! `BATON_SEED=7 cargo test --test session_fuzz` replays one world, of 100 frames and one conversation.
//!
//! Valid frames and whole conversations are damaged: bits flipped, cut off, doubled, spliced with others, made longer than
//! there is, or replaced by noise. Whatever comes, nothing panics, no more is allocated than what a frame may take, what
//! was heard before the damage stands, and the end of the connection either goes on or says what is wrong.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

#[path = "fuzz/checks/session_frame/again.rs"]
mod again;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use baton::session::counters::CounterRecord;
use baton::session::facts::{FactKey, Facts};
use baton::session::frame::{self, Frame, FrameError, Hello};
use baton::session::key::Key;
use baton::session::record::{Record, ServerRef};
use baton::session::replica::{Fault, PoolNames, Replica, Settings, VERSIONS};
use baton::session::table::{Cursor, PoolLimits, Table};
use baton::session::version::{Node, Version};
use fastrand::Rng;

const FRAMES_OF_A_WORLD: u64 = 100;
const ENTRIES_MAX: usize = 400;
const NOW: Duration = Duration::from_secs(100);
/// What one allocation may take: a frame that has not come whole and the piece that goes on with it, doubled by the
/// growth of a vector.
const ALLOCATION_MAX: usize = 2 * (frame::FRAME_BYTES_MAX + frame::HEADER_BYTES + 64 * 1024);

#[test]
fn no_bytes_do_any_harm() {
    let mut counts = Counts::default();
    if let Some(seed) = number("BATON_SEED") {
        world(seed, &mut counts);
        return eprintln!("{counts:#?}");
    }
    let frames = number("BATON_FRAMES").unwrap_or(30_000);
    for seed in 0..frames.div_ceil(FRAMES_OF_A_WORLD) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world(seed, &mut counts)));
        assert!(result.is_ok(), "replay: BATON_SEED={seed} cargo test --test session_fuzz");
    }
    eprintln!("{frames} frames: {counts:#?}");
    if frames >= 30_000 {
        counts.assert_everything_happened();
    }
}

#[test]
fn a_length_beyond_any_frame_allocates_nothing() {
    let mut end = End::new(Node::First, 0);
    for length in [256 * 1024 + 1, 0x7fff_ffff, u32::MAX] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.push(3);
        largest_allocation();
        assert_eq!(frame::decode(&bytes), Err(FrameError::TooLong(length as usize)));
        assert_eq!(largest_allocation(), 0);
        assert_eq!(end.hears(&bytes), Err(Fault::Frame(FrameError::TooLong(length as usize))));
        assert_eq!(largest_allocation(), 0);
    }
    // One that is allowed takes what has come of it.
    let mut end = End::new(Node::First, 0);
    largest_allocation();
    assert!(end.hears(&[0, 4, 0, 0, 3, 1, 2, 3]).is_ok());
    assert!(largest_allocation() <= 64);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// The system's allocator, and the largest piece that this thread had of it.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(bytes: usize) {
    LARGEST.with(|largest| largest.set(largest.get().max(bytes)));
}

/// Since it was last asked for.
fn largest_allocation() -> usize {
    LARGEST.with(|largest| largest.replace(0))
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// How often what happened, to see that something was tested.
#[derive(Debug, Default)]
struct Counts {
    decoded: u64,
    unfinished: u64,
    refused: BTreeMap<String, u64>,
    conversations_survived: u64,
    damaged_entries_taken: u64,
    largest_allocation: usize,
    faults: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn assert_everything_happened(&self) {
        let refused = ["malformed 1", "malformed 2", "malformed 3", "malformed 4", "malformed 5", "malformed 6"];
        let refused =
            refused.into_iter().chain(["malformed 7", "malformed 8", "malformed 9", "too long", "unknown kind"]);
        let missing: Vec<_> = refused.filter(|reason| !self.refused.contains_key(*reason)).collect();
        assert!(missing.is_empty(), "never refused: {missing:?}, {self:#?}");
        let faults = ["malformed_frame", "out_of_order", "unknown_version", "wrong_name", "goodbye"];
        let missing: Vec<_> = faults.into_iter().filter(|fault| !self.faults.contains_key(fault)).collect();
        assert!(missing.is_empty(), "never a fault: {missing:?}, {self:#?}");
        let counts = [self.decoded, self.unfinished, self.conversations_survived, self.damaged_entries_taken];
        assert!(counts.iter().all(|count| *count > 20), "{self:#?}");
    }
}

fn world(seed: u64, counts: &mut Counts) {
    let mut random = Rng::with_seed(seed);
    for _ in 0..FRAMES_OF_A_WORLD {
        decode_damaged(&mut random, counts);
    }
    hear_damaged(&mut random, counts);
}

/// Damages bytes, and gives the place up to which they are as they were.
fn damage(random: &mut Rng, bytes: &mut Vec<u8>, others: &[u8]) -> usize {
    let at = random.usize(0..=bytes.len());
    let some = random.usize(0..=(bytes.len() - at).min(4_000));
    match random.u8(0..8) {
        0 => bytes.truncate(at),
        1 => {
            let doubled = bytes[at..at + some].to_vec();
            bytes.splice(at..at, doubled);
        }
        2 => _ = bytes.drain(at..at + some),
        3 => {
            let from = random.usize(0..=others.len());
            let length = random.usize(0..=(others.len() - from).min(4_000));
            bytes.splice(at..at + some, others[from..from + length].iter().copied());
        }
        4 => {
            let noise: Vec<u8> = (0..random.usize(0..64)).map(|_| random.u8(..)).collect();
            bytes.splice(at..at, noise);
        }
        5 if at + 4 <= bytes.len() => {
            let length = [0, 1, 256 * 1024, 256 * 1024 + 1, u32::MAX][random.usize(0..5)];
            bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
        _ if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
        _ => {}
    }
    at
}

/// Doubles a whole frame, leaves it out, or has it change places with the next.
fn damage_order(random: &mut Rng, bytes: &mut Vec<u8>) -> usize {
    let (mut frames, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((_, length)) = frame::decode(rest).unwrap() {
        frames.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    let at = random.usize(0..frames.len() - 1);
    let intact = frames[..at].iter().map(Vec::len).sum();
    match random.u8(0..3) {
        0 => frames.insert(at, frames[at].clone()),
        1 => _ = frames.remove(at),
        _ => frames.swap(at, at + 1),
    }
    *bytes = frames.concat();
    intact
}

fn text(random: &mut Rng) -> String {
    (0..random.usize(0..20)).map(|_| random.alphanumeric()).collect()
}

fn version(random: &mut Rng) -> Version {
    Version::new(random.u64(0..=Version::MAX.get())).unwrap()
}

fn record(random: &mut Rng) -> Record {
    Record {
        key: Key::from_bytes(random.u128(..).to_be_bytes()),
        pool: random.u16(..),
        server: Some(random.u16(..)).filter(|server| *server != u16::MAX),
        version: version(random),
        idle: Duration::from_millis(100) * random.u32(..),
        age: Duration::from_millis(100) * random.u32(..),
    }
}

fn counter(random: &mut Rng) -> CounterRecord {
    CounterRecord {
        key: Key::from_bytes(random.u128(..).to_be_bytes()),
        limit: random.u16(..),
        life: random.u16(1..),
        total: random.u32(..),
        peer_life: random.u16(..),
        peer_total: random.u32(..),
        missing: random.u32(..),
    }
}

/// Some valid frame.
fn any_frame(random: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    match random.u8(0..9) {
        0 => {
            let hello = Hello {
                version_min: random.u8(..),
                version_max: random.u8(..),
                boot: random.u64(..),
                latest: version(random),
                checksum: random.u64(..).to_be_bytes(),
                entries: random.u64(..),
                node: text(random),
            };
            frame::put_hello(&mut out, &hello);
        }
        1 => {
            let servers: Vec<_> = (0..random.usize(1..40)).map(|_| text(random)).collect();
            frame::put_names(&mut out, random.u16(..), &text(random), &servers);
        }
        2 => {
            let records: Vec<_> = (0..random.usize(1..30)).map(|_| record(random)).collect();
            let fill = |out: &mut Vec<u8>| records.iter().for_each(|record| frame::put_record(out, record));
            frame::put_entries(&mut out, random.u64(..), random.bool(), fill);
        }
        3 => {
            let key = match random.u8(0..3) {
                0 => FactKey::Admin { pool: text(random), server: text(random) },
                1 => FactKey::Health { node: text(random), pool: text(random), server: text(random) },
                _ => FactKey::TicketKeys,
            };
            let value: Vec<u8> = (0..random.usize(0..100)).map(|_| random.u8(..)).collect();
            frame::put_fact(&mut out, random.u64(..), &key, version(random), &value);
        }
        7 => {
            let names: Vec<_> = (0..random.usize(1..40)).map(|_| text(random)).collect();
            frame::put_limits(&mut out, &names);
        }
        8 => {
            let counters: Vec<_> = (0..random.usize(1..30)).map(|_| counter(random)).collect();
            let fill = |out: &mut Vec<u8>| counters.iter().for_each(|record| frame::put_counter(out, record));
            frame::put_counters(&mut out, random.u64(..), fill);
        }
        4 => frame::put_snapshot_end(&mut out, random.u64(..)),
        5 => frame::put_handled(&mut out, random.u64(..)),
        _ => frame::put_goodbye(&mut out, &text(random)),
    }
    out
}

fn decode_damaged(random: &mut Rng, counts: &mut Counts) {
    let (mut bytes, others) = (any_frame(random), any_frame(random));
    let (whole, length) = frame::decode(&bytes).unwrap().unwrap();
    assert_eq!((length, again::said(&whole)), (bytes.len(), Some(bytes.clone())));
    if random.u8(0..16) == 0 {
        bytes = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
    }
    for _ in 0..random.usize(1..=3) {
        damage(random, &mut bytes, &others);
    }
    largest_allocation();
    let decoded = frame::decode(&bytes);
    assert!(largest_allocation() <= bytes.len() * 24 + 128, "{bytes:02x?}");
    match decoded {
        Ok(Some((frame, length))) => {
            let again = again::said(&frame);
            assert!(again.is_none_or(|again| again == bytes[..length]), "{frame:?}");
            counts.decoded += 1;
        }
        Ok(None) => {
            let announced = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
            assert!(bytes.len() < announced + frame::HEADER_BYTES && announced <= frame::FRAME_BYTES_MAX);
            counts.unfinished += 1;
        }
        Err(error) => {
            let reason = match error {
                FrameError::TooLong(_) => "too long".to_owned(),
                FrameError::UnknownKind(_) => "unknown kind".to_owned(),
                FrameError::Malformed(kind) => format!("malformed {kind}"),
            };
            *counts.refused.entry(reason).or_default() += 1;
        }
    }
}

/// A node and its end of the connection.
struct End {
    table: Table,
    facts: Facts,
    replica: Replica,
}

impl End {
    fn new(node: Node, entries: u64) -> Self {
        let servers: Vec<_> = (0..5).map(|server| format!("s{server}")).collect();
        let limits = PoolLimits {
            entries_max: ENTRIES_MAX,
            idle: Duration::from_secs(3_600),
            absolute: None,
            servers: servers.len(),
        };
        let table = Table::new(node, &[Some(limits), None, Some(limits)], Box::new(|| {}));
        let is_first = node == Node::First;
        for number in 0..entries {
            // Half of them at both nodes.
            let key = number / 2 + if is_first { 0 } else { entries / 4 };
            let pool = if key % 3 == 0 { 2 } else { 0 };
            table.put(&hashed(key), ServerRef { pool, server: (number % 5) as u16 }, NOW);
        }
        for key in 0..entries / 16 {
            table.remove(&hashed(key * 3), NOW);
        }
        let mut facts = Facts::default();
        for server in servers.iter().take(entries as usize) {
            let key = FactKey::Admin { pool: "app".to_owned(), server: server.clone() };
            facts.set(key, b"draining".to_vec(), table.next_version());
        }
        let [own, peer] = if is_first { ["lb-a", "lb-b"] } else { ["lb-b", "lb-a"] };
        let pools = [(0, "app"), (2, "web")];
        let pools = pools.map(|(pool, name)| PoolNames { pool, name: name.to_owned(), servers: servers.clone() });
        let settings = Settings {
            node: own.to_owned(),
            peer: peer.to_owned(),
            boot: 1,
            checksum: *b"checksum",
            versions: VERSIONS,
            pools: pools.to_vec(),
            limits: vec!["http".to_owned()],
        };
        let replica = Replica::new(settings, NOW, &table, &mut facts, &());
        Self { table, facts, replica }
    }

    fn says(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut before = 1;
        while before != out.len() {
            before = out.len();
            self.replica.transmit(NOW, &mut out, &self.table, &mut self.facts, &());
        }
        out
    }

    fn hears(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.replica.received(NOW, bytes, &self.table, &mut self.facts, &()).map(|_| ())
    }

    fn scan(&self) -> BTreeMap<Key, (Version, Option<u16>)> {
        let (mut cursor, mut held) = (Cursor::default(), BTreeMap::new());
        let mut add = |record: Record| {
            let twice = held.insert(record.key, (record.version, record.server));
            assert_eq!(twice, None, "two entries of {}", record.key);
        };
        while self.table.scan(&mut cursor, NOW, 64, &mut add) {}
        held
    }

    /// Whatever was heard, the node's own books are right.
    fn check(&mut self) {
        let held = self.scan();
        // What was said to be older than it can be has expired and is not shown, but may be there.
        assert!(held.len() <= self.table.slots_in_use());
        assert!(self.table.slots_in_use() <= 2 * ENTRIES_MAX);
        let live = held.values().filter(|(_, server)| server.is_some()).count();
        assert!(live <= self.live());
        let mut shown = 0;
        self.table.each(None, NOW, |_| {
            shown += 1;
            true
        });
        assert_eq!(shown, live);
        assert!(self.replica.buffered().partial < frame::FRAME_BYTES_MAX + frame::HEADER_BYTES);
    }

    fn live(&self) -> usize {
        self.table.stats(0).entries + self.table.stats(2).entries
    }

    /// Everything can be deleted, and swept once it is no longer needed.
    fn empty(&self) {
        let live = self.live() as u64;
        assert_eq!(self.table.clear(None, None, NOW), live);
        assert_eq!(self.live(), 0);
        (0..10).for_each(|_| self.table.sweep(NOW + Duration::from_secs(7_200)));
        assert_eq!(self.table.slots_in_use(), 0);
    }
}

/// As evenly spread as real ones.
fn hashed(number: u64) -> Key {
    let spread = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Key::from_bytes((spread ^ spread >> 64).to_be_bytes())
}

/// All that two nodes say to each other.
fn conversation(entries: u64) -> [Vec<u8>; 2] {
    let mut ends = [End::new(Node::First, entries), End::new(Node::Second, entries)];
    let mut said = [Vec::new(), Vec::new()];
    loop {
        let [one, other] = ends.each_mut().map(End::says);
        if one.is_empty() && other.is_empty() {
            break;
        }
        ends[1].hears(&one).unwrap();
        ends[0].hears(&other).unwrap();
        said[0].extend(one);
        said[1].extend(other);
    }
    let mut last = Vec::new();
    Replica::farewell(&Fault::OutOfOrder, &mut last);
    said[0].extend(last);
    said
}

/// The second node hears what the first said, damaged somewhere.
fn hear_damaged(random: &mut Rng, counts: &mut Counts) {
    let entries = random.u64(0..300);
    let [genuine, others] = conversation(entries);
    let mut bytes = genuine.clone();
    let mut intact = bytes.len();
    if random.u8(0..3) == 0 {
        intact = damage_order(random, &mut bytes);
    } else {
        for _ in 0..random.usize(1..=4) {
            intact = intact.min(damage(random, &mut bytes, &others));
        }
    }
    // Somebody who calls himself otherwise, or speaks otherwise, comes too rarely by chance.
    match random.u8(0..16) {
        0 if bytes.len() > 10 => (bytes[9], bytes[10], intact) = (200, 201, 0),
        1 if bytes.len() > 47 => (bytes[47], intact) = (b'x', 0),
        _ => {}
    }
    let (mut end, mut twin) = (End::new(Node::Second, entries), End::new(Node::Second, entries));
    let is_small = random.u8(0..8) == 0;
    let (mut done, mut result) = (0, Ok(()));
    while done < bytes.len() && result.is_ok() {
        let most = if is_small { 8 } else { 2_000 };
        let mut next = (done + random.usize(1..=most)).min(bytes.len());
        if done < intact {
            next = next.min(intact);
        }
        // What it says in between is what the first node's acknowledgements are about.
        assert!(end.says().len() <= 3 * 64 * 1024);
        largest_allocation();
        result = end.hears(&bytes[done..next]);
        let largest = largest_allocation();
        assert!(largest <= ALLOCATION_MAX, "{largest}");
        counts.largest_allocation = counts.largest_allocation.max(largest);
        done = next;
        if done == intact && result.is_ok() {
            end.check();
            same_as_twin(&mut end, &mut twin, &bytes[..intact]);
        }
    }
    end.check();
    let held = end.scan();
    for (key, (version, _)) in twin.scan() {
        // Damage may make an entry newer, and old enough to be gone; never older.
        assert!(held.get(&key).is_none_or(|(newer, _)| *newer >= version), "{key} became older");
    }
    counts.damaged_entries_taken += u64::from(end.table.latest() > twin.table.latest());
    end.empty();
    if matches!(result, Ok(()) | Err(Fault::Goodbye(_))) {
        check_order(&bytes[..done]);
    }
    match result {
        Ok(()) => counts.conversations_survived += 1,
        Err(fault) => *counts.faults.entry(fault.as_str()).or_default() += 1,
    }
}

/// What was heard without a fault began with one hello, and its numbers went up one by one.
fn check_order(heard: &[u8]) {
    let (mut rest, mut count, mut handled) = (heard, 0, 0);
    while let Some((frame, length)) = frame::decode(rest).unwrap() {
        if matches!(frame, Frame::Goodbye { .. }) {
            return;
        }
        assert_eq!(matches!(frame, Frame::Hello(_)), count == 0);
        if let Frame::Entries { sequence, .. } | Frame::Fact { sequence, .. } | Frame::SnapshotEnd { sequence } = frame
        {
            handled += 1;
            assert_eq!(sequence, handled);
        }
        count += 1;
        rest = &rest[length..];
    }
}

/// One that heard the same in one piece has the same.
fn same_as_twin(end: &mut End, twin: &mut End, heard: &[u8]) {
    // Frame by frame, for each may answer what the twin says in between.
    let mut rest = heard;
    while let Some((_, length)) = frame::decode(rest).unwrap() {
        twin.says();
        twin.hears(&rest[..length]).unwrap();
        rest = &rest[length..];
    }
    assert_eq!(end.scan(), twin.scan());
    assert!(end.facts.iter().eq(twin.facts.iter()));
    let (own, other) = (end.replica.state(NOW, &end.table), twin.replica.state(NOW, &twin.table));
    assert_eq!((own.snapshot_received, own.in_sync), (other.snapshot_received, other.in_sync));
    assert_eq!((own.entries_received, own.protocol), (other.entries_received, other.protocol));
}
