//! Virtual time, and all that happens in it but for faults.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use baton::limit::Verdict;
use baton::session::frame::{self, Frame};
use baton::session::replica::{Fault, Replica};

use crate::counts::Counts;
use crate::faults::Trouble;
use crate::model::{Content, Model};
use crate::node::{Archive, CLIENTS, End, FACTS, Held, KEYS, LIMITS, Process, Setting};
use crate::wire::{Connection, MILLISECOND, Micros, Pieces};

/// Until a node's turn comes that has something to say.
const TURN_MAX: Micros = 500;
/// Until a lost connection is tried anew.
pub const BACKOFF: std::ops::RangeInclusive<Micros> = 50 * MILLISECOND..=1_000 * MILLISECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A piece arrives at a node.
    Deliver {
        connection: usize,
        to: usize,
    },
    /// A node speaks.
    Speak {
        node: usize,
        connection: usize,
    },
    /// An end of a connection looks at its clock.
    Timer {
        node: usize,
        connection: usize,
    },
    /// The second node begins a connection.
    Connect,
    /// The first node takes it.
    Accept {
        connection: usize,
    },
    Sweep {
        node: usize,
        incarnation: u64,
    },
    /// Somebody writes.
    Write {
        node: usize,
    },
    Trouble(Trouble),
}

pub struct World {
    pub now: Micros,
    pub random: fastrand::Rng,
    pub setting: Setting,
    pub model: Model,
    pub nodes: [Option<Process>; 2],
    pub archives: [Option<Archive>; 2],
    pub connections: Vec<Connection>,
    pub counts: Counts,
    /// Who serves, and writes.
    pub active: [bool; 2],
    /// Both may be active at once.
    pub may_be_two: bool,
    /// Whoever became active knew of the newest epoch, and the other had stopped.
    pub is_orderly: bool,
    pub writes_until: Micros,
    /// Between two writes.
    pub pace: Micros,
    pub delay_max: Micros,
    /// The longest hold so far.
    pub late_max: Micros,
    pub room: usize,
    pub pieces: Pieces,
    pub is_connecting: bool,
    incarnations: u64,
    value: u64,
    trace: bool,
    queue: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    order: u64,
}

impl World {
    pub fn new(random: fastrand::Rng, setting: Setting, trace: bool) -> Self {
        Self {
            now: 0,
            random,
            setting,
            model: Model::default(),
            nodes: [None, None],
            archives: [None, None],
            connections: Vec::new(),
            counts: Counts::default(),
            active: [false; 2],
            may_be_two: false,
            is_orderly: true,
            writes_until: 0,
            pace: 10 * MILLISECOND,
            delay_max: MILLISECOND,
            late_max: 0,
            room: 64 * 1024,
            pieces: Pieces::Large,
            is_connecting: false,
            incarnations: 0,
            value: 0,
            trace,
            queue: BinaryHeap::new(),
            order: 0,
        }
    }

    pub fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12} {}", self.now, text());
        }
    }

    pub fn schedule(&mut self, at: Micros, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at.max(self.now), self.order, event)));
    }

    pub fn run_until(&mut self, end: Micros) -> Result<(), String> {
        while let Some(Reverse((at, ..))) = self.queue.peek()
            && *at <= end
            && let Some(Reverse((at, _, event))) = self.queue.pop()
        {
            self.now = at;
            if std::env::var("BATON_TR").is_ok() {
                eprintln!("{at} {event:?}")
            }
            self.counts.events += 1;
            self.handle(event).map_err(|failure| format!("at {at} us, {event:?}: {failure}"))?;
            for node in 0..2 {
                self.look_for_work(node);
                self.check(node).map_err(|failure| format!("at {at} us, node {node}, {event:?}: {failure}"))?;
            }
        }
        self.now = end;
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Deliver { connection, to } => self.deliver(connection, to),
            Event::Speak { node, connection } => self.speak(node, connection),
            Event::Timer { node, connection } => self.timer(node, connection),
            Event::Connect => {
                self.connect();
                Ok(())
            }
            Event::Accept { connection } => {
                self.accept(connection);
                Ok(())
            }
            Event::Sweep { node, incarnation } => {
                if let Some(process) = self.nodes[node].as_ref().filter(|process| process.incarnation == incarnation) {
                    process.table.sweep(process.clock(self.now));
                    process.counters.0.sweep(process.clock(self.now));
                    self.schedule(self.now + 100 * MILLISECOND, Event::Sweep { node, incarnation });
                }
                Ok(())
            }
            Event::Write { node } => self.write_some(node),
            Event::Trouble(trouble) => self.trouble(trouble),
        }
    }

    /// What the shell does after anything: if the table calls, the connection has something to say.
    fn look_for_work(&mut self, node: usize) {
        if let Some(process) = &self.nodes[node]
            && process.was_woken()
        {
            self.counts.wakes += 1;
            self.let_speak(node);
        }
        if node == 1 && self.nodes[1].as_ref().is_some_and(|process| process.end.is_none()) && !self.is_connecting {
            self.is_connecting = true;
            let backoff = self.random.u64(BACKOFF);
            self.schedule(self.now + backoff, Event::Connect);
        }
    }

    /// Starts a node, with what the archive has of it or with nothing.
    pub fn start(&mut self, node: usize, is_restored: bool) {
        if self.nodes[node].is_some() {
            return;
        }
        self.incarnations += 1;
        let memory = self.model.memory(KEYS + FACTS);
        let mut process = Process::new(node, self.incarnations, self.now, &self.setting, memory, &mut self.random);
        let archive = self.archives[node].as_ref().filter(|_| is_restored);
        self.note(|| format!("node {node} starts with {} entries", archive.map_or(0, |file| file.records.len())));
        if let Some(archive) = archive {
            let passed = Duration::from_micros(self.now - archive.at);
            for record in &archive.records {
                let mut record = *record;
                (record.idle, record.age) = (record.idle + passed, record.age + passed);
                process.table.merge(&record, process.clock(self.now));
                if let Some(number) = self.setting.number(&record.key) {
                    let held = Held::new(node, &record, &self.setting);
                    let write = self.model.find(number, held.version, held.content);
                    write.into_iter().for_each(|write| self.model.told(&mut process.memory, write));
                }
                self.counts.restored += 1;
            }
        }
        self.nodes[node] = Some(process);
        self.counts.starts += 1;
        self.schedule(self.now, Event::Sweep { node, incarnation: self.incarnations });
    }

    /// A node becomes active.
    pub fn take_over(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node] else { return };
        process.table.take_over();
        self.is_orderly &= self.model.epoch_max(KEYS) <= process.memory.knowledge.epoch && !self.active[1 - node];
        process.memory.knowledge.epoch += 1;
        self.active[node] = true;
        self.counts.takeovers += 1;
        self.note(|| format!("node {node} takes over"));
    }
}

/// Connections.
impl World {
    fn connect(&mut self) {
        self.is_connecting = false;
        let is_there = self.nodes[0].is_some();
        let idle = self.nodes[1].as_mut().filter(|process| process.end.is_none() && is_there);
        let Some(process) = idle else { return };
        let connection = self.connections.len();
        self.connections.push(Connection::default());
        process.begin(1, connection, self.now, &self.setting);
        let process = self.nodes[1].as_mut();
        process.into_iter().for_each(|process| process.old = None);
        self.begun(1, connection);
        let at = self.now + self.random.u64(0..=self.delay_max);
        self.connections[connection].pipes[1].opened_at = at;
        self.schedule(at, Event::Accept { connection });
    }

    /// The second node takes its connection for lost and begins another, while the old one still brings something.
    pub fn connect_again(&mut self) {
        let Some(end) = self.nodes[1].as_mut().and_then(|process| process.end.take()) else { return };
        self.connect();
        let at = self.connections[end.connection].pipes[1].close(true);
        self.connections[end.connection].is_troubled = true;
        self.schedule(at, Event::Deliver { connection: end.connection, to: 0 });
        if let Some(process) = self.nodes[1].as_mut() {
            if process.end.is_none() {
                // There is nobody to connect to: the connection is closed as any other.
                end.replica.close(&process.table, &process.counters);
            } else {
                process.old = Some(end);
                self.counts.old_connections += 1;
            }
        }
    }

    fn accept(&mut self, connection: usize) {
        let Some(process) = &mut self.nodes[0] else { return self.hang_up(0, connection) };
        if self.connections[connection].pipes[1].closed.is_some() {
            return self.hang_up(0, connection);
        }
        process.begin(0, connection, self.now, &self.setting);
        let old = process.old.as_ref().map(|old| old.connection);
        self.counts.old_connections += u64::from(old.is_some());
        old.into_iter().for_each(|old| {
            self.connections[old].is_troubled = true;
            self.hang_up(0, old);
        });
        self.begun(0, connection);
    }

    fn begun(&mut self, node: usize, connection: usize) {
        self.note(|| format!("node {node} begins connection {connection}"));
        self.counts.connections += 1;
        self.let_speak(node);
        self.plan_timer(node, connection);
    }

    /// A node writes nothing more to a connection.
    pub fn hang_up(&mut self, node: usize, connection: usize) {
        let at = self.connections[connection].pipes[node].close(true);
        self.schedule(at, Event::Deliver { connection, to: 1 - node });
    }

    /// A node's end of a connection is over.
    fn close(&mut self, node: usize, connection: usize, why: &str) {
        self.note(|| format!("node {node} closes connection {connection}: {why}"));
        self.hang_up(node, connection);
        let Some(process) = &mut self.nodes[node] else { return };
        if process.end(connection).is_some() {
            process.end.as_ref().into_iter().for_each(|end| end.replica.close(&process.table, &process.counters));
            process.end = None;
        } else {
            // Which must not touch the changes of the new one.
            process.old.take().into_iter().for_each(|old| old.replica.close(&process.table, &process.counters));
        }
    }

    /// Plans a node's next turn to speak, if none is planned.
    pub fn let_speak(&mut self, node: usize) {
        let Some(end) = self.nodes[node].as_mut().and_then(|process| process.end.as_mut()) else { return };
        if end.is_due || !end.out.is_empty() {
            return;
        }
        end.is_due = true;
        let connection = end.connection;
        let at = self.now + self.random.u64(0..=TURN_MAX);
        self.schedule(at, Event::Speak { node, connection });
    }

    fn plan_timer(&mut self, node: usize, connection: usize) {
        let Some(process) = &mut self.nodes[node] else { return };
        let Some(deadline) = process.end(connection).map(|end| end.replica.deadline()) else { return };
        let at = process.when(deadline).max(self.now);
        if let Some(end) = process.end(connection).filter(|end| end.timer_at > at) {
            end.timer_at = at;
            self.schedule(at, Event::Timer { node, connection });
        }
    }

    fn timer(&mut self, node: usize, connection: usize) -> Result<(), String> {
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let now = process.clock(self.now);
        let Some(end) = process.end(connection) else { return Ok(()) };
        if end.timer_at > self.now {
            return Ok(());
        }
        end.timer_at = Micros::MAX;
        let result = end.replica.timer(now);
        let is_spoken = end.replica.deadline() <= now;
        if let Err(fault) = result {
            return self.fault(node, connection, &fault);
        }
        if is_spoken {
            // Which plans it anew, unless the connection takes nothing just now.
            self.let_speak(node);
            let end = self.nodes[node].as_mut().and_then(|process| process.end(connection));
            if let Some(end) = end.filter(|end| !end.is_due) {
                end.timer_at = self.now + 10 * MILLISECOND;
                self.schedule(self.now + 10 * MILLISECOND, Event::Timer { node, connection });
            }
        } else {
            self.plan_timer(node, connection);
        }
        Ok(())
    }

    fn fault(&mut self, node: usize, connection: usize, fault: &Fault) -> Result<(), String> {
        let is_due = self.connections[connection].is_troubled
            && matches!(fault, Fault::Silent | Fault::Stalled | Fault::Goodbye(_));
        if !is_due {
            return Err(format!("node {node} gives connection {connection} up for no reason: {fault}"));
        }
        self.counts.fault(fault);
        if let Some(end) = self.nodes[node].as_mut().and_then(|process| process.end(connection)) {
            let mut last = Vec::new();
            Replica::farewell(fault, &mut last);
            if end.out.is_empty() {
                end.out = last;
                self.flush(node, connection);
            }
        }
        self.close(node, connection, fault.as_str());
        Ok(())
    }

    fn speak(&mut self, node: usize, connection: usize) -> Result<(), String> {
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let now = process.clock(self.now);
        let Process { end, table, facts, counters, memory, .. } = process;
        let Some(end) = end.as_mut().filter(|end| end.connection == connection) else { return Ok(()) };
        end.is_due = false;
        if !end.out.is_empty() {
            self.plan_timer(node, connection);
            return Ok(());
        }
        loop {
            let before = end.out.len();
            end.replica.transmit(now, &mut end.out, table, facts, counters);
            if end.out.len() == before {
                break;
            }
            let greeting = note_sent(end, before)?;
            if greeting {
                self.connections[connection].pipes[node].greeting = Some(memory.clone());
            }
            self.counts.bytes += (end.out.len() - before) as u64;
        }
        self.flush(node, connection);
        self.plan_timer(node, connection);
        Ok(())
    }

    /// Gives the connection as much as it takes.
    fn flush(&mut self, node: usize, connection: usize) {
        let Some(end) = self.nodes[node].as_mut().and_then(|process| process.end(connection)) else { return };
        let pipe = &mut self.connections[connection].pipes[node];
        if pipe.closed.is_some() {
            end.out.clear();
        }
        while !end.out.is_empty() && pipe.bytes < self.room {
            let size = self.pieces.size(&mut self.random).min(self.room - pipe.bytes).min(end.out.len());
            let rest = end.out.split_off(size);
            let piece = std::mem::replace(&mut end.out, rest);
            let at = pipe.arrival(self.now, self.random.u64(0..=self.delay_max));
            pipe.bytes += size;
            pipe.pieces.push_back((at, piece));
            self.order += 1;
            self.queue.push(Reverse((at, self.order, Event::Deliver { connection, to: 1 - node })));
        }
    }

    fn deliver(&mut self, connection: usize, to: usize) -> Result<(), String> {
        let pipe = &mut self.connections[connection].pipes[1 - to];
        if pipe.held_until > self.now {
            let at = pipe.held_until;
            self.schedule(at, Event::Deliver { connection, to });
            return Ok(());
        }
        let has_arrived = pipe.pieces.front().is_some_and(|(at, _)| *at <= self.now);
        let piece = if has_arrived { pipe.pieces.pop_front() } else { None };
        let is_over = pipe.pieces.is_empty() && pipe.closed == Some(true);
        if let Some((_, piece)) = piece {
            pipe.bytes -= piece.len();
            self.read(to, connection, &piece)?;
            self.flush(1 - to, connection);
            let writer = self.nodes[1 - to].as_mut().and_then(|process| process.end(connection));
            if writer.is_some_and(|end| end.out.is_empty()) {
                self.let_speak(1 - to);
            }
        }
        let Some(process) = &mut self.nodes[to] else { return Ok(()) };
        let is_known =
            process.end(connection).is_some() || process.old.as_ref().is_some_and(|old| old.connection == connection);
        if is_over && is_known {
            self.close(to, connection, "it ended");
        }
        Ok(())
    }

    fn read(&mut self, node: usize, connection: usize, piece: &[u8]) -> Result<(), String> {
        let greeting = self.connections[connection].pipes[1 - node].greeting.clone();
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let now = process.clock(self.now);
        let Process { end, old, table, facts, counters, memory, .. } = process;
        let is_current = end.as_ref().is_some_and(|end| end.connection == connection);
        let end = if is_current { end.as_mut() } else { old.as_mut().filter(|old| old.connection == connection) };
        let Some(end) = end else { return Ok(()) };
        let result = end.replica.received(now, piece, table, facts, counters);
        if !is_current {
            self.counts.old_pieces += 1;
            let is_refused = result == Err(Fault::Replaced);
            return if is_refused { Ok(()) } else { Err(format!("heard an old connection: {result:?}")) };
        }
        end.came.extend_from_slice(piece);
        let mut hearing = crate::checks::Hearing {
            node,
            setting: &self.setting,
            model: &self.model,
            memory,
            greeting: greeting.as_ref(),
            facts: Vec::new(),
        };
        let has_heard = hearing.hear(end)?;
        let told = hearing.facts;
        match result {
            Ok(received) => {
                for (key, value) in received.facts {
                    if !told.iter().any(|told| told.0 == key && told.1 == value) {
                        return Err(format!("{key:?} was never told"));
                    }
                    self.counts.facts_received += 1;
                }
            }
            Err(fault) => self.fault(node, connection, &fault)?,
        }
        self.let_speak(node);
        self.plan_timer(node, connection);
        if has_heard && self.setting.bulk == 0 {
            self.check_table(node)?;
        }
        Ok(())
    }
}

/// Decodes what a node has just said. True when it said hello.
fn note_sent(end: &mut End, before: usize) -> Result<bool, String> {
    let mut said_hello = false;
    let mut rest = &end.out[before..];
    while !rest.is_empty() {
        let (frame, length) = match frame::decode(rest) {
            Ok(Some(frame)) => frame,
            other => return Err(format!("said what is no frame: {other:?}")),
        };
        let (sequence, entries, is_end) = match frame {
            Frame::Hello(_) => {
                said_hello = true;
                (0, 0, false)
            }
            Frame::Names(_) | Frame::Limits(_) | Frame::Goodbye { .. } => (0, 0, false),
            Frame::Handled { sequence } if sequence > end.came_sequence => {
                return Err(format!("has dealt with frame {sequence}, and {} came", end.came_sequence));
            }
            Frame::Handled { .. } => (0, 0, false),
            Frame::Entries { sequence, is_snapshot, records } => {
                (sequence, if is_snapshot { 0 } else { records.len() as u64 }, false)
            }
            Frame::Fact { sequence, .. } | Frame::Counters { sequence, .. } => (sequence, 0, false),
            Frame::SnapshotEnd { sequence } => (sequence, 0, true),
        };
        if sequence > 0 {
            end.sent.push_back((sequence, length, entries, is_end));
        }
        rest = &rest[length..];
    }
    Ok(said_hello)
}

/// Writes.
impl World {
    /// One of the active nodes writes, now and then both do.
    fn write_some(&mut self, node: usize) -> Result<(), String> {
        if self.now >= self.writes_until {
            return Ok(());
        }
        let next = self.now + self.random.u64(0..=2 * self.pace);
        self.schedule(next, Event::Write { node });
        if self.random.u8(0..10) == 0 {
            self.write_fact(node)?;
        }
        for _ in 0..self.random.usize(1..=4) {
            if self.active[node] {
                self.write(node)?;
                self.count(node);
            }
        }
        Ok(())
    }

    /// A client asks an active node.
    fn count(&mut self, node: usize) {
        let limit = self.random.u16(0..LIMITS);
        let key = [self.random.u8(0..CLIENTS); 16];
        let Some(process) = &self.nodes[node] else { return };
        let verdict = process.counters.0.take(self.setting.limit(node, limit), &key, process.clock(self.now));
        self.counts.requests += u64::from(verdict == Verdict::Allowed);
    }

    fn write_fact(&mut self, node: usize) -> Result<(), String> {
        let key = KEYS + self.random.usize(0..FACTS);
        self.value += 1;
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let version = process.table.next_version();
        if !process.facts.set(Setting::fact(key), self.value.to_be_bytes().to_vec(), version) {
            return Err(format!("fact {key} was refused"));
        }
        self.model.wrote(&mut process.memory, key, version, Content::Value(self.value), self.now);
        self.counts.facts_written += 1;
        self.let_speak(node);
        Ok(())
    }

    fn write(&mut self, node: usize) -> Result<(), String> {
        let number = self.random.usize(0..KEYS);
        let (key, pool) = (self.setting.keys[number], (number / crate::node::KEYS_OF_POOL) as u16);
        let server = self.random.u16(0..crate::node::SERVERS);
        let place = baton::session::ServerRef {
            pool: self.setting.pool(node, pool),
            server: self.setting.server(node, server),
        };
        let action = self.random.u8(0..100);
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let (table, now) = (&process.table, process.clock(self.now));
        let (latest, before) = (table.latest(), table.peek(&key, now).map(|entry| entry.server));
        let content = match action {
            0..45 => {
                let stands = table.claim(&key, place, now);
                if stands != before.unwrap_or(place) {
                    return Err(format!("key {number} was claimed for {place:?}, had {before:?}, is {stands:?}"));
                }
                Content::Server(server)
            }
            45..75 => {
                table.put(&key, place, now);
                if !self.setting.is_full && table.peek(&key, now).map(|entry| entry.server) != Some(place) {
                    return Err(format!("key {number} was not put"));
                }
                Content::Server(server)
            }
            75..85 => {
                if table.remove(&key, now) != before.is_some() {
                    return Err(format!("key {number} was removed, had {before:?}"));
                }
                Content::Deleted
            }
            85..99 => {
                if table.find(&key, now) != before {
                    return Err(format!("key {number} was looked up, had {before:?}"));
                }
                return Ok(());
            }
            _ => {
                let server = self.random.bool().then_some(place.server);
                return self.clear(node, place.pool, server);
            }
        };
        if table.latest() != latest {
            let version = table.latest();
            self.model.wrote(&mut process.memory, number, version, content, self.now);
            self.counts.writes += 1;
            self.note(|| format!("node {node} writes {number}: {content:?} {version}"));
        }
        Ok(())
    }

    fn clear(&mut self, node: usize, pool: u16, server: Option<u16>) -> Result<(), String> {
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        let latest = process.table.latest();
        let cleared = process.table.clear(Some(pool), server, process.clock(self.now));
        let entries = process.entries(node, self.now, &self.setting);
        let mut found: Vec<_> = (0..).zip(entries).filter_map(|(key, held)| Some((held?.version, key))).collect();
        // Above the latest, but for the node that made it.
        found.retain(|(version, _)| version.get() >> 1 > latest.get() >> 1);
        found.sort_unstable();
        if found.len() as u64 != cleared && !self.setting.is_full && self.setting.bulk == 0 {
            return Err(format!("cleared {cleared}, of which {} are deleted", found.len()));
        }
        for (version, key) in found {
            self.model.wrote(&mut process.memory, key, version, Content::Deleted, self.now);
        }
        self.counts.clears += 1;
        Ok(())
    }
}
