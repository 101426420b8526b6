//! What must hold, whatever happens.

use std::collections::HashMap;
use std::time::Duration;

use baton::session::facts::FactKey;
use baton::session::frame::{self, Frame};

use crate::model::{Content, Memory, Model};
use crate::node::{CLIENTS, End, FACTS, Held, KEYS, KEYS_OF_POOL, LIMITS, Setting, TICK};
use crate::wire::Micros;
use crate::world::World;
use baton::session::counters::Counters;

/// Bytes that wait for the rest of a frame at most.
const PARTIAL_MAX: usize = 256 * 1024 + 5;
/// Bytes under way at most: both windows, and a frame beyond each.
const UNDER_WAY_MAX: usize = 2 * 1024 * 1024 + 192 * 1024 + 2 * 37 * 1024;
/// Until what was counted is told, by a clock that is slow.
const COUNTERS_WITHIN: Micros = 10_010;
/// Bytes under way at which a node may stop speaking.
const WINDOW: usize = 2 * 1024 * 1024;

/// Reads along with a node, to know what it ought to know.
pub struct Hearing<'a> {
    pub node: usize,
    pub setting: &'a Setting,
    pub model: &'a Model,
    pub memory: &'a mut Memory,
    /// What the other node knew when it said hello.
    pub greeting: Option<&'a Memory>,
    /// What was said of facts.
    pub facts: Vec<(FactKey, Vec<u8>)>,
}

impl Hearing<'_> {
    /// True when there was anything in it that is to be dealt with.
    pub fn hear(&mut self, end: &mut End) -> Result<bool, String> {
        let before = end.came_sequence;
        let came = std::mem::take(&mut end.came);
        let mut rest = &came[..];
        while let Some((frame, length)) = frame::decode(rest).map_err(|error| error.to_string())? {
            let sequence = match frame {
                Frame::Hello(_) => {
                    end.heard_hello = true;
                    self.greeting.into_iter().for_each(|other| self.memory.knowledge.add(&other.knowledge));
                    None
                }
                Frame::Names(_) | Frame::Limits(_) | Frame::Goodbye { .. } => None,
                Frame::Counters { sequence, .. } => Some(sequence),
                Frame::Handled { sequence } => {
                    let done = end.sent.iter().take_while(|sent| sent.0 <= sequence).count();
                    end.snapshot_went |= end.sent.drain(..done).any(|sent| sent.3);
                    None
                }
                Frame::Entries { sequence, records, .. } => {
                    for record in records.iter() {
                        let record = record.ok_or("said an unbelievable version")?;
                        self.entry(Held::new(1 - self.node, &record, self.setting), record.key)?;
                    }
                    Some(sequence)
                }
                Frame::Fact { sequence, key, version, value } => {
                    let number = (KEYS..KEYS + FACTS).find(|number| Setting::fact(*number) == key).unwrap();
                    self.write(number, version, value_content(value))?;
                    self.facts.push((key, value.to_vec()));
                    Some(sequence)
                }
                Frame::SnapshotEnd { sequence } => {
                    end.snapshot_came = true;
                    self.check_snapshot()?;
                    Some(sequence)
                }
            };
            if let Some(sequence) = sequence {
                if sequence != end.came_sequence + 1 {
                    return Err(format!("frame {sequence} follows frame {}", end.came_sequence));
                }
                end.came_sequence = sequence;
            }
            rest = &rest[length..];
        }
        end.came = rest.to_vec();
        Ok(end.came_sequence > before)
    }

    /// The snapshot is said to be over: it brought all that the other node had when the connection began.
    fn check_snapshot(&self) -> Result<(), String> {
        let Some(other) = self.greeting.filter(|_| !self.setting.is_full) else { return Ok(()) };
        let is_checked = |key: &usize| self.model.is_clear(*key) && !self.model.twice.contains(key);
        for key in (0..KEYS).filter(|key| self.setting.is_lasting(*key)).filter(is_checked) {
            // The table has one of those of which neither writer knew of the other.
            let had = other.newest[key].iter().max_by_key(|write| self.model.writes[**write].version);
            let Some(had) = had else { continue };
            // One that stands against it may have come there first.
            let stands = |own: &usize| self.model.writes[*own].version >= self.model.writes[*had].version;
            if !self.memory.newest[key].iter().any(stands) {
                return Err(format!("the snapshot is over and lacked key {key}"));
            }
        }
        Ok(())
    }

    /// The node that says so wrote it in its own places, which `held` has undone.
    fn entry(&mut self, held: Held, key: baton::session::key::Key) -> Result<(), String> {
        let Some(number) = self.setting.number(&key) else { return Ok(()) };
        if usize::from(held.pool) != number / KEYS_OF_POOL {
            return Err(format!("key {number} is said to be of pool {}", held.pool));
        }
        self.write(number, held.version, held.content)
    }

    fn write(&mut self, key: usize, version: baton::session::version::Version, content: Content) -> Result<(), String> {
        let write = self.model.find(key, version, content);
        let write = write.ok_or_else(|| format!("nobody wrote {content:?} {version} to key {key}"))?;
        self.model.told(self.memory, write);
        Ok(())
    }
}

pub fn value_content(value: &[u8]) -> Content {
    Content::Value(value.try_into().map(u64::from_be_bytes).unwrap_or(u64::MAX))
}

impl World {
    /// After every event, at a node.
    pub fn check(&mut self, node: usize) -> Result<(), String> {
        let now = self.now;
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let clock = process.clock(now);
        let entries_max: usize = self.setting.limits.iter().map(|limits| limits.entries_max).sum();
        if process.table.slots_in_use() > entries_max {
            return Err(format!("{} entries, {entries_max} at most", process.table.slots_in_use()));
        }
        let table = &process.table;
        for end in process.end.iter().chain(&process.old) {
            let buffered = end.replica.buffered();
            let under_way: usize = end.sent.iter().map(|sent| sent.1).sum();
            if buffered.partial != end.came.len() || buffered.partial > PARTIAL_MAX {
                return Err(format!("{} bytes are no whole frame, {buffered:?}", end.came.len()));
            }
            if buffered.under_way != under_way || under_way > UNDER_WAY_MAX {
                return Err(format!("{under_way} bytes are under way, {buffered:?}"));
            }
        }
        let Some(end) = &mut process.end else {
            if table.pending_changes() > 0 || process.counters.has_changes() {
                return Err("keeps changes for nobody".to_owned());
            }
            return Ok(());
        };
        let (pending, state) = (table.pending_changes(), end.replica.state(clock, table));
        let lag: u64 = end.sent.iter().map(|sent| sent.2).sum::<u64>() + pending as u64;
        if state.lag_entries != lag || (lag == 0) != (state.lag == Duration::ZERO) && state.lag > Duration::ZERO {
            return Err(format!("{lag} entries lag behind, {state:?}"));
        }
        if state.in_sync != (end.snapshot_came && end.snapshot_went) {
            return Err(format!("both snapshots: {}, {}; {state:?}", end.snapshot_came, end.snapshot_went));
        }
        if pending > table.slots_in_use() && self.setting.is_lasting(0) && !self.setting.is_full {
            return Err(format!("{pending} changes of {} entries", table.slots_in_use()));
        }
        let is_quiet = !end.is_due && end.out.is_empty() && end.heard_hello;
        let has_work = pending > 0 || process.facts.has_changes();
        if has_work && is_quiet && end.replica.buffered().under_way < WINDOW {
            return Err(format!("{pending} changes, and nobody was told"));
        }
        let is_planned = end.timer_at <= now + COUNTERS_WITHIN;
        if process.counters.has_changes() && is_quiet && !is_planned && end.replica.buffered().under_way < WINDOW {
            return Err("counters changed, and nobody will be told".to_owned());
        }
        self.counts.lag_max = self.counts.lag_max.max(lag);
        self.counts.under_way_max = self.counts.under_way_max.max(end.replica.buffered().under_way as u64);
        Ok(())
    }

    /// A node has of each key the newest write that it was told of, and of each fact.
    pub fn check_table(&self, node: usize) -> Result<(), String> {
        let Some(process) = self.nodes[node].as_ref().filter(|_| !self.setting.is_full) else { return Ok(()) };
        let entries = process.entries(node, self.now, &self.setting);
        for (key, held) in (0..).zip(entries).filter(|(key, _)| self.model.is_clear(*key)) {
            let newest = &process.memory.newest[key];
            let held =
                held.map(|held| self.model.find(key, held.version, held.content).ok_or("made up")).transpose()?;
            if self.setting.is_lasting(key) && held.map_or(!newest.is_empty(), |held| !newest.contains(&held)) {
                return Err(self.tell(node, key, held, newest));
            }
        }
        for key in (KEYS..KEYS + FACTS).filter(|key| self.model.is_clear(*key)) {
            let newest = &process.memory.newest[key];
            let held = process.facts.get(&Setting::fact(key)).map(value_content);
            let mut newest = newest.iter().map(|write| self.model.writes[*write].content);
            if held.map_or(newest.len() > 0, |held| !newest.any(|newest| newest == held)) {
                return Err(format!("node {node} has {held:?} as fact {key}"));
            }
        }
        Ok(())
    }

    fn tell(&self, node: usize, key: usize, held: Option<usize>, newest: &[usize]) -> String {
        let told = |id: &usize| {
            let write = &self.model.writes[*id];
            format!("{:?} {} of {} us", write.content, write.version, write.at)
        };
        let newest: Vec<_> = newest.iter().map(told).collect();
        format!("node {node} has {:?} under key {key}, and the newest are {newest:?}", held.as_ref().map(told))
    }

    /// After some time without writes and faults: both nodes have the same, which is the newest of all that is known.
    pub fn check_settled(&mut self) -> Result<(), String> {
        for node in 0..2 {
            let Some(process) = &mut self.nodes[node] else { return Err(format!("node {node} is down")) };
            let clock = process.clock(self.now);
            let state = process.end.as_mut().map(|end| end.replica.state(clock, &process.table));
            let Some(state) = state.clone().filter(|state| state.in_sync && state.lag_entries == 0) else {
                return Err(format!("node {node} did not come into sync: {state:?}"));
            };
            let (done, all) = state.snapshot_received;
            if done != all
                || state.snapshot_sent.0 != state.snapshot_sent.1
                || state.entries_useless > 0 && self.lasts() && !self.setting.is_full
            {
                return Err(format!("node {node} is in sync, but {state:?}"));
            }
            self.check_table(node)?;
        }
        self.check_counters()?;
        if self.setting.is_full {
            return Ok(());
        }
        self.check_equal()?;
        self.check_bulk()?;
        self.counts.settled += 1;
        Ok(())
    }

    fn lasts(&self) -> bool {
        (0..KEYS).all(|key| self.setting.is_lasting(key))
    }

    fn check_equal(&mut self) -> Result<(), String> {
        let [Some(one), Some(other)] = &self.nodes else { return Err("a node is down".to_owned()) };
        let entries = [one.entries(0, self.now, &self.setting), other.entries(1, self.now, &self.setting)];
        // A tick for each of the roundings, and what lies under way ages as well.
        let tolerance = 3 * TICK + Duration::from_micros(2 * self.delay_max + self.late_max);
        let [ones, others] = entries;
        for (key, (one_held, other_held)) in ones.into_iter().zip(others).enumerate() {
            let limits = &self.setting.limits[key / KEYS_OF_POOL];
            let ends_soon = |held: &Held| held.left(limits) <= 2 * tolerance;
            if [one_held, other_held].iter().flatten().any(ends_soon) {
                continue;
            }
            // Which of two contents of one version is the newer one is a matter of places.
            if self.setting.turned && self.model.twice.contains(&key) {
                continue;
            }
            let what = |held: Option<Held>| held.map(|held| (held.version, held.content));
            if what(one_held) != what(other_held) {
                let newest = self.model.newest([&one.memory, &other.memory], key);
                let told = self.tell(9, key, None, &newest);
                return Err(format!("of key {key} one node has {one_held:?}, the other {other_held:?}; {told}"));
            }
            let Some((one_held, other_held)) = one_held.zip(other_held) else { continue };
            if one_held.idle.abs_diff(other_held.idle) > tolerance {
                return Err(format!("key {key} was last used {:?} and {:?} ago", one_held.idle, other_held.idle));
            }
            self.counts.equal += 1;
            let newest = self.model.newest([&one.memory, &other.memory], key);
            let held = self.model.find(key, one_held.version, one_held.content).ok_or("made up")?;
            if !self.model.is_clear(key) || !self.setting.is_lasting(key) {
                continue;
            }
            if !newest.contains(&held) {
                return Err(self.tell(9, key, Some(held), &newest));
            }
            if self.is_orderly {
                let latest = newest.iter().max_by_key(|write| (self.model.writes[**write].at, **write));
                if newest.len() != 1 || latest != Some(&held) {
                    return Err(format!("in order, {}", self.tell(9, key, Some(held), &newest)));
                }
                self.counts.equal_in_order += 1;
            }
        }
        for key in KEYS..KEYS + FACTS {
            let [one, other] = [one, other].map(|node| node.facts.get(&Setting::fact(key)));
            if one != other {
                return Err(format!("fact {key} is {one:?} at one node, {other:?} at the other"));
            }
            self.counts.equal_facts += u64::from(one.is_some());
        }
        Ok(())
    }

    /// Both nodes count the same requests of a client: none that both know of twice, and none that one told the other of
    /// not at all. Of a whole request a little comes back during a run, at two nodes that are apart twice.
    fn check_counters(&mut self) -> Result<(), String> {
        for (limit, client) in (0..LIMITS).flat_map(|limit| (0..CLIENTS).map(move |client| (limit, client))) {
            let counts = |node: usize| {
                let (place, process) = (self.setting.limit(node, limit), self.nodes[node].as_ref()?);
                process.counters.0.peek(place, &[client; 16], process.clock(self.now))
            };
            let (one, other) = (counts(0), counts(1));
            let missing = |counts: Option<baton::limit::Counts>| counts.map_or(0, |counts| counts.missing);
            if missing(one).abs_diff(missing(other)) > 990 {
                return Err(format!("of client {client} one node counts {one:?}, the other {other:?}"));
            }
            self.counts.equal_counters += u64::from(one.is_some());
        }
        Ok(())
    }

    fn check_bulk(&self) -> Result<(), String> {
        let [Some(one), Some(other)] = &self.nodes else { return Ok(()) };
        if self.setting.bulk == 0 {
            return Ok(());
        }
        // Many expire at once, a tick or two apart on the two nodes: those that are about to may be gone on one already.
        let lasts = |held: &Held| held.left(&self.setting.limits[usize::from(held.pool)]) > Duration::from_secs(1);
        let all = |node: usize, process: &crate::node::Process| {
            let records = process.scan(self.now).into_iter();
            let bulk = records.filter(|record| self.setting.number(&record.key).is_none());
            let held = bulk.map(|record| (record.key, Held::new(node, &record, &self.setting)));
            held.map(|(key, held)| (key, (held.version, held.content, lasts(&held)))).collect::<HashMap<_, _>>()
        };
        let (one, other) = (all(0, one), all(1, other));
        let is_in = |these: &HashMap<_, (_, _, bool)>, those: &HashMap<_, (_, _, bool)>| {
            let mut lasting = these.iter().filter(|(_, (.., lasts))| *lasts);
            lasting.all(|(key, (version, content, _))| {
                those.get(key).is_some_and(|(v, c, _)| (v, c) == (version, content))
            })
        };
        if !is_in(&one, &other) || !is_in(&other, &one) {
            return Err(format!("{} and {} entries are not the same", one.len(), other.len()));
        }
        Ok(())
    }
}
