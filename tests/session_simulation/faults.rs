//! What goes wrong.

use baton::session::ServerRef;

use crate::node::Archive;
use crate::wire::{MILLISECOND, Micros, SECOND};
use crate::world::{Event, World};

/// Longer than this nobody may hold a connection up without being given up.
const HOLD_HARMLESS: Micros = 500 * MILLISECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The connection breaks, at some byte of each direction.
    Break,
    /// A node reads nothing until then.
    Hold {
        to: usize,
        until: Micros,
    },
    Crash {
        node: usize,
    },
    Start {
        node: usize,
    },
    /// A node writes its entries into a file.
    Archive {
        node: usize,
    },
    /// The other node becomes active, or both are.
    Role,
    ConnectAgain,
    /// Many entries at once.
    Burst {
        node: usize,
    },
}

impl World {
    /// Something goes wrong before `end`.
    pub fn plan_trouble(&mut self, end: Micros) {
        let at = self.random.u64(self.now..end);
        let node = self.random.usize(0..2);
        let trouble = match self.random.u8(0..16) {
            0..3 => Trouble::Break,
            3..6 => {
                let time = if self.random.bool() { 7 * SECOND } else { HOLD_HARMLESS };
                Trouble::Hold { to: node, until: at + self.random.u64(0..time) }
            }
            6..9 => {
                let down = self.random.u64(0..SECOND);
                self.schedule(at + down, Event::Trouble(Trouble::Start { node }));
                Trouble::Crash { node }
            }
            9..11 => Trouble::Archive { node },
            11..14 => Trouble::Role,
            14 => Trouble::ConnectAgain,
            _ => Trouble::Burst { node },
        };
        self.schedule(at, Event::Trouble(trouble));
    }

    pub fn trouble(&mut self, trouble: Trouble) -> Result<(), String> {
        self.note(|| format!("{trouble:?}"));
        match trouble {
            Trouble::Break => self.break_connection(),
            Trouble::Hold { to, until } => self.hold(to, until),
            Trouble::Crash { node } => self.crash(node),
            Trouble::Start { node } => {
                let is_restored = self.random.bool();
                self.start(node, is_restored);
                if self.active == [false; 2] {
                    self.take_over(node);
                }
            }
            Trouble::Archive { node } => {
                let records = self.nodes[node].as_ref().map(|process| process.scan(self.now));
                records.into_iter().for_each(|records| self.archives[node] = Some(Archive { at: self.now, records }));
            }
            Trouble::Role => self.change_roles(),
            Trouble::ConnectAgain => self.connect_again(),
            Trouble::Burst { node } => self.burst(node),
        }
        Ok(())
    }

    fn break_connection(&mut self) {
        let Some(connection) = self.connections.len().checked_sub(1) else { return };
        self.connections[connection].is_troubled = true;
        self.counts.breaks += 1;
        for from in 0..2 {
            let is_told = self.random.bool();
            let at = self.connections[connection].pipes[from].cut(&mut self.random, is_told);
            self.schedule(at, Event::Deliver { connection, to: 1 - from });
        }
    }

    fn hold(&mut self, to: usize, until: Micros) {
        let Some(connection) = self.connections.last_mut() else { return };
        let pipe = &mut connection.pipes[1 - to];
        connection.is_troubled |= until - self.now > HOLD_HARMLESS || pipe.held_until > 0;
        pipe.held_until = pipe.held_until.max(until);
        self.late_max = self.late_max.max(pipe.held_until - self.now);
        self.counts.holds += 1;
    }

    /// Everybody reads on.
    pub fn end_holds(&mut self) {
        for connection in 0..self.connections.len() {
            for from in 0..2 {
                let pipe = &mut self.connections[connection].pipes[from];
                let (pieces, at) = (pipe.release(self.now), self.now.max(pipe.opened_at));
                (0..=pieces).for_each(|_| self.schedule(at, Event::Deliver { connection, to: 1 - from }));
            }
        }
    }

    fn crash(&mut self, node: usize) {
        let Some(process) = self.nodes[node].take() else { return };
        self.counts.crashes += 1;
        self.active[node] = false;
        for connection in [process.end, process.old].into_iter().flatten().map(|end| end.connection) {
            self.connections[connection].is_troubled = true;
            let is_told = self.random.bool();
            let at = self.connections[connection].pipes[node].cut(&mut self.random, is_told);
            self.schedule(at, Event::Deliver { connection, to: 1 - node });
        }
        if self.active == [false; 2] && self.random.bool() {
            self.take_over(1 - node);
        }
    }

    pub fn change_roles(&mut self) {
        let node = usize::from(self.active[0]);
        if self.nodes[node].is_none() || self.active[node] {
            return;
        }
        if !self.may_be_two || self.random.bool() {
            self.active[1 - node] = false;
        }
        self.take_over(node);
        self.counts.duals += u64::from(self.active == [true; 2]);
    }

    /// Writes to keys that nobody looks at one by one: more than a window, in runs that have so many.
    fn burst(&mut self, node: usize) {
        let Some(process) = self.nodes[node].as_ref().filter(|_| self.active[node]) else { return };
        let server = ServerRef { pool: self.setting.pool(node, 0), server: self.random.u16(0..8) };
        for number in 0..self.setting.bulk {
            process.table.put(&crate::bulk_key(number), server, process.clock(self.now));
        }
    }
}
