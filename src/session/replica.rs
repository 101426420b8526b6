//! One node's end of a connection to the other: what to say next, and what to make of what came. One for each connection.
//!
//! Both sides say hello, name their servers, and send a snapshot of their whole table, and changes as they come, changes
//! first. Counters of rate limits go as they change, all of them at the beginning, and at most every 10 ms, for what a frame
//! of them says holds for all that came before. Each frame of entries has a number, and the other side says up to which
//! number it has dealt with them; no more than a window of them is under way. A table keeps no queue of changes but a mark on each changed entry, so that nothing
//! overflows while the other side is slow. A new connection starts with a new snapshot.
//!
//! The shell gives it what it read ([`Replica::received`]), writes what it has to say ([`Replica::transmit`]) whenever
//! something was received, changed, or the [deadline](Replica::deadline) has come, and ends the connection at a [`Fault`].

mod directory;
mod lag;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use self::directory::Directory;
use self::lag::Lags;
pub use self::lag::{LAG_BOUNDS_US, LagCounts};
use super::counters::{CounterRecord, Counters};
use super::facts::{FactKey, Facts};
use super::frame::{self, Frame, FrameError, Hello};
use super::table::{Cursor, Merged, Table};

/// The versions of the protocol that this release speaks.
pub const VERSIONS: RangeInclusive<u8> = 1..=1;

/// Bytes that one call of [`Replica::transmit`] appends, about.
const TRANSMIT_BYTES: usize = 64 * 1024;
/// Bytes that may be under way, and of the snapshot's: so few that a change behind them is not late.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
const SNAPSHOT_WINDOW_BYTES: usize = 192 * 1024;
/// Time between two tellings of counters: a busy client's is told once for many requests.
const COUNTERS_INTERVAL: Duration = Duration::from_millis(10);
/// Time after which something is said in any case.
const HEARTBEAT: Duration = Duration::from_millis(300);
/// Time without a word after which the other side is gone.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// Time that the other side may take to deal with what it was sent.
const STALL_MAX: Duration = Duration::from_secs(5);

/// A pool that keeps sessions, by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolNames {
    /// Its place here.
    pub pool: u16,
    /// Its name.
    pub name: String,
    /// Its servers' names, in the order of their places.
    pub servers: Vec<String>,
}

/// What a connection is begun with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This node's name.
    pub node: String,
    /// The name of the node that the other end has proved to be.
    pub peer: String,
    /// Another number each time that the process starts.
    pub boot: u64,
    /// The first bytes of the checksum of the configuration in use.
    pub checksum: [u8; 8],
    /// Versions of the protocol that are spoken; [`VERSIONS`].
    pub versions: RangeInclusive<u8>,
    /// The pools that keep sessions.
    pub pools: Vec<PoolNames>,
    /// The names of the rate limits, in the order of their places in [`CounterRecord::limit`].
    pub limits: Vec<String>,
}

/// Why a connection has to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It speaks no version of the protocol that this node does.
    #[error("it speaks versions {min} to {max} of the protocol, and this node {own_min} to {own_max}: upgrade the older node", own_min = own.start(), own_max = own.end())]
    Version {
        /// Its lowest.
        min: u8,
        /// Its highest.
        max: u8,
        /// This node's.
        own: RangeInclusive<u8>,
    },
    /// It calls itself otherwise than its key does.
    #[error("it calls itself {0}")]
    Stranger(String),
    /// A frame came at a time at which it cannot.
    #[error("a frame came out of order")]
    OutOfOrder,
    /// Nothing came for too long.
    #[error("nothing came for {} ms", SILENCE_MAX.as_millis())]
    Silent,
    /// It does not deal with what it was sent.
    #[error("it has not dealt with what it was sent for {} s", STALL_MAX.as_secs())]
    Stalled,
    /// Another connection to it has begun. What this one still brings would not be in the snapshot that the other may
    /// have sent by now, and it is all in the snapshot that comes to it, unless the other side has lost it.
    #[error("another connection has begun")]
    Replaced,
    /// It ended the connection.
    #[error("it ended the connection: {0}")]
    Goodbye(String),
}

impl Fault {
    /// For counters.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Fault::Frame(_) => "malformed_frame",
            Fault::Version { .. } => "unknown_version",
            Fault::Stranger(_) => "wrong_name",
            Fault::OutOfOrder => "out_of_order",
            Fault::Silent => "silent",
            Fault::Stalled => "stalled",
            Fault::Replaced => "replaced",
            Fault::Goodbye(_) => "goodbye",
        }
    }
}

/// What came, but for sessions, which are in the table already.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Facts that are new here.
    pub facts: Vec<(FactKey, Vec<u8>)>,
}

/// How a connection is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Version that is spoken; 0 before both have said hello.
    pub protocol: u8,
    /// Whether both snapshots have arrived whole.
    pub in_sync: bool,
    /// Whether the peer runs another configuration.
    pub config_differs: bool,
    /// Entries that changed here and that the other side has not dealt with yet.
    pub lag_entries: u64,
    /// Time since the oldest of these changed; zero without any.
    pub lag: Duration,
    /// The longest that a change took to be dealt with, in the last ten seconds.
    pub lag_max: Duration,
    /// Entries of our snapshot that the other side has dealt with, and all that there are.
    pub snapshot_sent: (u64, u64),
    /// Whether it has dealt with all of it.
    pub is_snapshot_sent: bool,
    /// Entries of its snapshot that came, and all that it announced.
    pub snapshot_received: (u64, u64),
    /// Whether all of it has come.
    pub is_snapshot_received: bool,
    /// Entries sent in all.
    pub entries_sent: u64,
    /// Entries received in all.
    pub entries_received: u64,
    /// Of these, those of no use here: of servers or pools that this node does not have, or expired.
    pub entries_useless: u64,
}

/// Bytes that a connection keeps or keeps count of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buffered {
    /// Of a frame that has not come whole: less than [`frame::HEADER_BYTES`] and [`frame::FRAME_BYTES_MAX`].
    pub partial: usize,
    /// Said, and not dealt with yet: at most two windows, 2 MiB and 192 KiB, and a frame beyond each.
    pub under_way: usize,
}

/// A frame that is under way.
#[derive(Debug)]
struct UnderWay {
    sequence: u64,
    bytes: usize,
    entries: u64,
    sent_at: Duration,
    kind: Kind,
}

/// What it brings.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Changes, and when the first of them came about.
    Changes {
        since: Duration,
    },
    Snapshot,
    SnapshotEnd,
    Fact,
    Counters,
}

/// The connection's state.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    /// As which the table keeps its changes.
    keeper: u64,
    state: State,
    has_said_hello: bool,
    has_heard_hello: bool,
    /// The next of our pools to be named.
    names_next: usize,
    are_limits_named: bool,
    directory: Directory,
    /// When counters are told next, if there are any.
    counters_at: Duration,
    /// Whether there were any left when there was last something to say.
    are_counters_left: bool,
    /// Whether all that there were at the beginning have been sent.
    are_counters_told: bool,
    /// `None` once all has been sent.
    snapshot: Option<Cursor>,
    is_snapshot_end_sent: bool,
    sequence: u64,
    under_way: VecDeque<UnderWay>,
    under_way_bytes: usize,
    snapshot_bytes: usize,
    lags: Lags,
    /// What came and is not a whole frame yet.
    partial: Vec<u8>,
    handled: u64,
    is_handled_told: bool,
    spoke_at: Duration,
    heard_at: Duration,
}

impl Replica {
    /// The beginning of a connection. From now on the table and the counters keep their changes for it, and one before it is
    /// of no more use.
    pub fn new(settings: Settings, now: Duration, table: &Table, facts: &mut Facts, counters: &dyn Counters) -> Self {
        let keeper = table.keep_changes(true);
        facts.change_all();
        counters.keep_changes(true);
        let directory = Directory::new(settings.pools.clone(), settings.limits.clone());
        Self {
            settings,
            keeper,
            state: State { snapshot_sent: (0, table.slots_in_use() as u64), ..State::default() },
            has_said_hello: false,
            has_heard_hello: false,
            names_next: 0,
            are_limits_named: false,
            counters_at: now,
            are_counters_left: false,
            are_counters_told: false,
            directory,
            snapshot: Some(Cursor::default()),
            is_snapshot_end_sent: false,
            sequence: 0,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            snapshot_bytes: 0,
            lags: Lags::new(now),
            partial: Vec::new(),
            handled: 0,
            is_handled_told: true,
            spoke_at: now,
            heard_at: now,
        }
    }

    /// Takes what was read: frames in whole or in part.
    ///
    /// # Errors
    /// A [`Fault`], after which the connection is of no more use. What came before it counts.
    pub fn received(
        &mut self,
        now: Duration,
        bytes: &[u8],
        table: &Table,
        facts: &mut Facts,
        counters: &dyn Counters,
    ) -> Result<Received, Fault> {
        if self.is_replaced(table) {
            return Err(Fault::Replaced);
        }
        self.heard_at = now;
        let mut received = Received::default();
        let mut partial = std::mem::take(&mut self.partial);
        // A frame that is there in one piece is not copied, and one in many pieces not with each of them.
        let is_whole = partial.is_empty();
        if !is_whole {
            partial.extend_from_slice(bytes);
        }
        let mut rest = if is_whole { bytes } else { &partial };
        while let Some((frame, length)) = frame::decode(rest)? {
            self.handle(now, frame, table, facts, counters, &mut received)?;
            rest = rest.get(length..).unwrap_or_default();
        }
        let left = rest.len();
        self.partial = if is_whole {
            rest.to_vec()
        } else {
            partial.drain(..partial.len() - left);
            partial
        };
        Ok(received)
    }

    /// Appends what there is to say now, about 64 KiB at most; nothing when there is nothing to say, or when too much is
    /// under way. To be called until it appends nothing.
    pub fn transmit(
        &mut self,
        now: Duration,
        out: &mut Vec<u8>,
        table: &Table,
        facts: &mut Facts,
        counters: &dyn Counters,
    ) {
        if self.is_replaced(table) {
            return;
        }
        let before = out.len();
        let end = before + TRANSMIT_BYTES;
        if !self.has_said_hello {
            frame::put_hello(out, &self.hello(table));
            self.has_said_hello = true;
        }
        if self.has_heard_hello {
            if !self.is_handled_told {
                frame::put_handled(out, self.handled);
                self.is_handled_told = true;
            }
            self.tell_names(out, end);
            self.tell_facts(now, out, end, facts);
            self.tell_changes(now, out, end, table);
            self.tell_counters(now, out, end, counters);
            self.tell_snapshot(now, out, end, table);
        }
        if self.has_heard_hello && out.len() == before && now.saturating_sub(self.spoke_at) >= HEARTBEAT {
            frame::put_handled(out, self.handled);
        }
        if out.len() > before {
            self.spoke_at = now;
        }
    }

    /// When [`Replica::timer`] and [`Replica::transmit`] are to be called at the latest.
    pub fn deadline(&self) -> Duration {
        let stall = self.under_way.front().map(|first| first.sent_at + STALL_MAX);
        // Before the other side has said hello there is nothing to say in between.
        let heartbeat = self.has_heard_hello.then_some(self.spoke_at + HEARTBEAT);
        // With a full window there is nothing to be done before something is heard.
        let counters = (self.are_counters_left && self.has_window()).then_some(self.counters_at);
        let silence = self.heard_at + SILENCE_MAX;
        stall.into_iter().chain(heartbeat).chain(counters).fold(silence, Duration::min)
    }

    /// Looks whether the other side has been silent or idle for too long.
    ///
    /// # Errors
    /// [`Fault::Silent`] and [`Fault::Stalled`].
    pub fn timer(&mut self, now: Duration) -> Result<(), Fault> {
        if now.saturating_sub(self.heard_at) >= SILENCE_MAX {
            return Err(Fault::Silent);
        }
        let first = self.under_way.front();
        if first.is_some_and(|first| now.saturating_sub(first.sent_at) >= STALL_MAX) {
            return Err(Fault::Stalled);
        }
        Ok(())
    }

    /// Whether the other side has said hello, and what it said was good.
    pub fn has_heard_hello(&self) -> bool {
        self.has_heard_hello
    }

    /// How it is doing.
    pub fn state(&mut self, now: Duration, table: &Table) -> State {
        let changes = self.under_way.iter().filter_map(|frame| match frame.kind {
            Kind::Changes { since } => Some((frame.entries, since)),
            Kind::Snapshot | Kind::SnapshotEnd | Kind::Fact | Kind::Counters => None,
        });
        let oldest = changes.clone().map(|(_, since)| since).chain(table.changed_since()).min();
        let under_way: u64 = changes.map(|(entries, _)| entries).sum();
        State {
            in_sync: self.state.is_snapshot_sent && self.state.is_snapshot_received,
            lag_entries: under_way + table.pending_changes() as u64,
            lag: oldest.map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            lag_max: self.lags.longest(now),
            ..self.state.clone()
        }
    }

    /// How much waits here, and for the other side.
    pub fn buffered(&self) -> Buffered {
        Buffered { partial: self.partial.len(), under_way: self.under_way_bytes }
    }

    /// How long changes took to be dealt with, since the connection began.
    pub fn lag_counts(&self) -> &LagCounts {
        self.lags.counts()
    }

    /// Appends a last word: why this side ends the connection.
    pub fn farewell(fault: &Fault, out: &mut Vec<u8>) {
        frame::put_goodbye(out, &fault.to_string());
    }

    /// Ends the connection: table and counters keep no changes any more, unless another connection has begun.
    pub fn close(&self, table: &Table, counters: &dyn Counters) {
        if !self.is_replaced(table) {
            table.keep_changes(false);
            counters.keep_changes(false);
        }
    }

    /// Whether another connection has begun: the changes are its own, not this one's.
    fn is_replaced(&self, table: &Table) -> bool {
        table.keeper() != self.keeper
    }

    fn hello(&self, table: &Table) -> Hello {
        Hello {
            version_min: *self.settings.versions.start(),
            version_max: *self.settings.versions.end(),
            boot: self.settings.boot,
            latest: table.latest(),
            checksum: self.settings.checksum,
            entries: table.slots_in_use() as u64,
            node: self.settings.node.clone(),
        }
    }

    fn tell_names(&mut self, out: &mut Vec<u8>, end: usize) {
        if !std::mem::replace(&mut self.are_limits_named, true) {
            frame::put_limits(out, &self.settings.limits);
        }
        while out.len() < end
            && let Some(pool) = self.settings.pools.get(self.names_next)
        {
            frame::put_names(out, pool.pool, &pool.name, &pool.servers);
            self.names_next += 1;
        }
    }

    /// Whether everything that gives entries a meaning has been said.
    fn may_tell_entries(&self) -> bool {
        self.names_next >= self.settings.pools.len()
    }

    fn has_window(&self) -> bool {
        self.under_way_bytes < WINDOW_BYTES
    }

    fn tell_facts(&mut self, now: Duration, out: &mut Vec<u8>, end: usize, facts: &mut Facts) {
        while out.len() < end
            && self.has_window()
            && let Some((key, version, value)) = facts.take_change()
        {
            let (sequence, start) = (self.sequence + 1, out.len());
            frame::put_fact(out, sequence, &key, version, value);
            self.sent(now, out.len() - start, 0, Kind::Fact);
        }
    }

    fn tell_changes(&mut self, now: Duration, out: &mut Vec<u8>, end: usize, table: &Table) {
        while out.len() < end && self.has_window() && self.may_tell_entries() {
            let Some(since) = table.changed_since() else { return };
            let (start, pending) = (out.len(), table.pending_changes());
            let count = frame::put_entries(out, self.sequence + 1, false, |out| {
                table.take_changes(now, frame::RECORDS_MAX, |record| frame::put_record(out, &record));
            });
            if count > 0 {
                self.sent(now, out.len() - start, count as u64, Kind::Changes { since });
            } else if table.pending_changes() >= pending {
                return;
            }
            // Else changed entries were gone by now, and there may be others.
        }
    }

    fn tell_counters(&mut self, now: Duration, out: &mut Vec<u8>, end: usize, counters: &dyn Counters) {
        self.are_counters_left = counters.has_changes();
        if now < self.counters_at {
            return;
        }
        while out.len() < end && self.has_window() && counters.has_changes() {
            let start = out.len();
            let count = frame::put_counters(out, self.sequence + 1, |out| {
                counters.take_changes(now, frame::RECORDS_MAX, &mut |record| frame::put_counter(out, record));
            });
            if count > 0 {
                self.sent(now, out.len() - start, 0, Kind::Counters);
            }
        }
        self.are_counters_left = counters.has_changes();
        if !self.are_counters_left {
            self.are_counters_told = true;
            self.counters_at = now + COUNTERS_INTERVAL;
        }
    }

    fn tell_snapshot(&mut self, now: Duration, out: &mut Vec<u8>, end: usize, table: &Table) {
        while out.len() < end && self.snapshot_bytes < SNAPSHOT_WINDOW_BYTES && self.may_tell_entries() {
            let Some(cursor) = &mut self.snapshot else { break };
            let start = out.len();
            let mut has_more = false;
            let count = frame::put_entries(out, self.sequence + 1, true, |out| {
                has_more = table.scan(cursor, now, frame::RECORDS_MAX, |record| frame::put_record(out, &record));
            });
            if !has_more {
                self.snapshot = None;
            }
            if count > 0 {
                self.sent(now, out.len() - start, count as u64, Kind::Snapshot);
            }
        }
        if self.snapshot.is_none() && self.are_counters_told && !self.is_snapshot_end_sent && self.has_window() {
            self.is_snapshot_end_sent = true;
            let start = out.len();
            frame::put_snapshot_end(out, self.sequence + 1);
            self.sent(now, out.len() - start, 0, Kind::SnapshotEnd);
        }
    }

    fn sent(&mut self, now: Duration, bytes: usize, entries: u64, kind: Kind) {
        self.sequence += 1;
        self.under_way_bytes += bytes;
        if kind == Kind::Snapshot {
            self.snapshot_bytes += bytes;
        }
        self.state.entries_sent += entries;
        self.under_way.push_back(UnderWay { sequence: self.sequence, bytes, entries, sent_at: now, kind });
    }

    fn handle(
        &mut self,
        now: Duration,
        frame: Frame<'_>,
        table: &Table,
        facts: &mut Facts,
        counters: &dyn Counters,
        received: &mut Received,
    ) -> Result<(), Fault> {
        match frame {
            Frame::Hello(hello) => return self.greeted(&hello, table),
            Frame::Goodbye { reason } => return Err(Fault::Goodbye(reason)),
            _ if !self.has_heard_hello => return Err(Fault::OutOfOrder),
            Frame::Names(names) => self.directory.learn(&names),
            Frame::Limits(limits) => self.directory.learn_limits(&limits),
            Frame::Counters { sequence, records } => {
                self.follow(sequence)?;
                let known = |record: Option<CounterRecord>| self.directory.translate_counter(record?);
                records.iter().filter_map(known).for_each(|record| counters.merge(&record, now));
            }
            Frame::Entries { sequence, is_snapshot, records } => {
                self.follow(sequence)?;
                self.take_entries(now, is_snapshot, &records, table);
            }
            Frame::Fact { sequence, key, version, value } => {
                self.follow(sequence)?;
                table.saw(version);
                if facts.merge(&key, version, value) {
                    received.facts.push((key, value.to_vec()));
                }
            }
            Frame::SnapshotEnd { sequence } => {
                self.follow(sequence)?;
                self.state.is_snapshot_received = true;
                let (done, _) = self.state.snapshot_received;
                self.state.snapshot_received = (done, done);
            }
            Frame::Handled { sequence } => self.acknowledged(now, sequence)?,
        }
        Ok(())
    }

    fn greeted(&mut self, hello: &Hello, table: &Table) -> Result<(), Fault> {
        if self.has_heard_hello {
            return Err(Fault::OutOfOrder);
        }
        let own = &self.settings.versions;
        let (min, max) = (hello.version_min.max(*own.start()), hello.version_max.min(*own.end()));
        if min > max {
            return Err(Fault::Version { min: hello.version_min, max: hello.version_max, own: own.clone() });
        }
        if hello.node != self.settings.peer {
            return Err(Fault::Stranger(hello.node.clone()));
        }
        self.has_heard_hello = true;
        self.state.protocol = max;
        self.state.config_differs = hello.checksum != self.settings.checksum;
        self.state.snapshot_received = (0, hello.entries);
        table.saw(hello.latest);
        Ok(())
    }

    /// Frames that are acknowledged come in order and without gaps: the connection sees to that.
    fn follow(&mut self, sequence: u64) -> Result<(), Fault> {
        if sequence != self.handled + 1 {
            return Err(Fault::OutOfOrder);
        }
        self.handled = sequence;
        self.is_handled_told = false;
        Ok(())
    }

    fn take_entries(&mut self, now: Duration, is_snapshot: bool, records: &frame::Records<'_>, table: &Table) {
        let count = records.len() as u64;
        self.state.entries_received += count;
        if is_snapshot {
            let (done, total) = self.state.snapshot_received;
            self.state.snapshot_received = (done + count, total.max(done + count));
        }
        for record in records.iter() {
            let record = record.and_then(|record| self.directory.translate(record));
            match record.map(|record| table.merge(&record, now)) {
                Some(Merged::Taken | Merged::Known) => {}
                None | Some(Merged::Useless) => self.state.entries_useless += 1,
            }
        }
    }

    fn acknowledged(&mut self, now: Duration, sequence: u64) -> Result<(), Fault> {
        if sequence > self.sequence {
            return Err(Fault::OutOfOrder);
        }
        while let Some(first) = self.under_way.front()
            && first.sequence <= sequence
            && let Some(frame) = self.under_way.pop_front()
        {
            self.under_way_bytes -= frame.bytes;
            match frame.kind {
                Kind::Changes { since } => self.lags.note(now, since, frame.entries),
                Kind::Snapshot => {
                    self.snapshot_bytes -= frame.bytes;
                    let (done, total) = self.state.snapshot_sent;
                    self.state.snapshot_sent = (done + frame.entries, total.max(done + frame.entries));
                }
                Kind::SnapshotEnd => {
                    let (done, _) = self.state.snapshot_sent;
                    self.state.snapshot_sent = (done, done);
                    self.state.is_snapshot_sent = true;
                }
                Kind::Fact | Kind::Counters => {}
            }
        }
        Ok(())
    }
}
