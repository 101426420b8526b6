//! What the nodes ought to know, told without versions: which write came after which, by who knew of what.

use baton::session::version::Version;

use crate::wire::Micros;

/// A write, by its place in [`Model::writes`].
pub type WriteId = usize;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    Server(u16),
    Deleted,
    /// Of a fact.
    Value(u64),
}

/// All that a node heard of, in any way: how many writes of each incarnation of a node, and the highest epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knowledge {
    pub epoch: u64,
    pub writes: Vec<u32>,
}

impl Knowledge {
    pub fn add(&mut self, other: &Knowledge) {
        self.epoch = self.epoch.max(other.epoch);
        if self.writes.len() < other.writes.len() {
            self.writes.resize(other.writes.len(), 0);
        }
        for (own, other) in self.writes.iter_mut().zip(&other.writes) {
            *own = (*own).max(*other);
        }
    }
}

#[derive(Debug, Clone)]
pub struct Write {
    pub key: usize,
    pub content: Content,
    pub version: Version,
    pub at: Micros,
    /// What its writer knew, with this write.
    knowledge: Knowledge,
    incarnation: usize,
    number: u32,
}

/// All writes of a run.
#[derive(Debug, Default)]
pub struct Model {
    pub writes: Vec<Write>,
    of_key: Vec<Vec<WriteId>>,
    incarnations: usize,
    /// Keys of which two incarnations of a node made one and the same write: which of them it is, nobody can tell.
    unclear: Vec<usize>,
    /// Keys of which they gave one version to two contents.
    pub twice: Vec<usize>,
}

/// What one incarnation of a node ought to have in its memory.
#[derive(Debug, Clone)]
pub struct Memory {
    incarnation: usize,
    pub knowledge: Knowledge,
    /// For each key, the writes that it took in, but for those after which another of them came.
    pub newest: Vec<Vec<WriteId>>,
}

impl Model {
    pub fn memory(&mut self, keys: usize) -> Memory {
        self.incarnations += 1;
        Memory {
            incarnation: self.incarnations - 1,
            knowledge: Knowledge { epoch: 0, writes: vec![0; self.incarnations] },
            newest: vec![Vec::new(); keys],
        }
    }

    /// Whether one write came after another: its writer knew of it, or became active knowing of the epoch.
    pub fn is_after(&self, newer: WriteId, older: WriteId) -> bool {
        let (newer, older) = (&self.writes[newer], &self.writes[older]);
        let heard = newer.knowledge.writes.get(older.incarnation).is_some_and(|heard| *heard >= older.number);
        let is_itself = (newer.incarnation, newer.number) == (older.incarnation, older.number);
        newer.knowledge.epoch > older.knowledge.epoch || heard && !is_itself
    }

    pub fn is_clear(&self, key: usize) -> bool {
        !self.unclear.contains(&key)
    }

    pub fn find(&self, key: usize, version: Version, content: Content) -> Option<WriteId> {
        let is_it = |id: &&WriteId| (self.writes[**id].version, self.writes[**id].content) == (version, content);
        self.of_key.get(key)?.iter().rev().find(is_it).copied()
    }

    /// The highest epoch in which any of the keys was written.
    pub fn epoch_max(&self, keys: usize) -> u64 {
        let writes = self.writes.iter().filter(|write| write.key < keys);
        writes.map(|write| write.knowledge.epoch).max().unwrap_or(0)
    }

    /// A write by the node with this memory.
    pub fn wrote(&mut self, memory: &mut Memory, key: usize, version: Version, content: Content, at: Micros) {
        let number = &mut memory.knowledge.writes[memory.incarnation];
        *number += 1;
        let (number, knowledge) = (*number, memory.knowledge.clone());
        let write = Write { key, content, version, at, knowledge, incarnation: memory.incarnation, number };
        let id = self.writes.len();
        self.of_key.resize(self.of_key.len().max(key + 1), Vec::new());
        if self.find(key, version, content).is_some() {
            self.unclear.push(key);
        } else if self.of_key[key].iter().any(|id| self.writes[*id].version == version) {
            self.twice.push(key);
        }
        self.of_key[key].push(id);
        self.writes.push(write);
        self.add(&mut memory.newest[key], id);
    }

    /// The node with this memory was told of a write.
    pub fn told(&self, memory: &mut Memory, id: WriteId) {
        memory.knowledge.add(&self.writes[id].knowledge);
        self.add(&mut memory.newest[self.writes[id].key], id);
    }

    /// The newest of what either of two memories has of a key.
    pub fn newest(&self, memories: [&Memory; 2], key: usize) -> Vec<WriteId> {
        let mut newest = Vec::new();
        for memory in memories {
            memory.newest[key].iter().for_each(|id| self.add(&mut newest, *id));
        }
        newest
    }

    fn add(&self, newest: &mut Vec<WriteId>, id: WriteId) {
        if newest.contains(&id) || newest.iter().any(|other| self.is_after(*other, id)) {
            return;
        }
        newest.retain(|other| !self.is_after(id, *other));
        newest.push(id);
    }
}
