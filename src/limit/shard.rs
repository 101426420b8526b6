//! A part of a limit's buckets: found by key, kept in the order of use, and marked when the other node has to be told.

use super::bucket::{Bucket, Rate};
use super::{Change, Verdict};

/// No slot.
const NONE: u32 = u32::MAX;
/// Slots that are made at a time, so that nothing is ever moved.
const CHUNK: usize = 64;
/// Buckets that are looked at for a full one when one has to go.
const EVICTION_SAMPLE: usize = 8;
/// Buckets that are removed under one hold of the lock.
const SWEEP_MAX: usize = 1_024;

/// The buckets of a part.
pub(super) struct Shard {
    slots_max: usize,
    chunks: Vec<Vec<Slot>>,
    /// For each low part of a key the first slot of its chain, counted from 1. Zeros cost no memory before they are touched.
    heads: Vec<u32>,
    newest: u32,
    oldest: u32,
    /// The first of the slots that are free again, chained as those in use.
    free: u32,
    /// Slots that were ever used, and those that are.
    touched: u32,
    taken: usize,
    /// The slots that are marked.
    marked: Vec<u32>,
    /// The life of the bucket that was made last.
    life: u16,
}

/// The place of a bucket.
pub(super) struct Slot {
    pub(super) key: [u8; 16],
    pub(super) bucket: Bucket,
    next: u32,
    newer: u32,
    older: u32,
    is_taken: bool,
    /// Stays when the slot is free, so that no slot is ever marked twice.
    is_marked: bool,
}

impl Shard {
    pub(super) fn new(slots_max: usize, seed: u16) -> Self {
        let slots_max = slots_max.clamp(1, NONE as usize - 1);
        Self {
            slots_max,
            chunks: Vec::new(),
            heads: vec![0; slots_max.next_power_of_two().max(2) / 2],
            newest: NONE,
            oldest: NONE,
            free: NONE,
            touched: 0,
            taken: 0,
            marked: Vec::new(),
            life: seed,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.taken
    }

    pub(super) fn get(&self, number: u32) -> Option<&Slot> {
        let number = number as usize;
        self.chunks.get(number / CHUNK)?.get(number % CHUNK)
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Slot> {
        let number = number as usize;
        self.chunks.get_mut(number / CHUNK)?.get_mut(number % CHUNK)
    }

    pub(super) fn find(&self, key: &[u8; 16]) -> Option<u32> {
        let mut number = self.heads.get(self.head(key))?.wrapping_sub(1);
        while let Some(slot) = self.get(number) {
            if slot.key == *key {
                return Some(number);
            }
            number = slot.next;
        }
        None
    }

    /// Takes a token out of a key's bucket, which is made when there is none.
    pub(super) fn take(&mut self, key: &[u8; 16], rate: &Rate, now: u64) -> (u32, Verdict) {
        let number = self.used(key, now);
        let verdict = self.get_mut(number).map(|slot| slot.bucket.take(rate, now));
        (number, verdict.unwrap_or(Verdict::Allowed))
    }

    /// Takes what the other node says of a bucket; of a full one that is not there, there is nothing to take.
    pub(super) fn merge(&mut self, change: &Change, rate: &Rate, now: u64) {
        if change.missing == 0 && self.find(&change.key).is_none() {
            return;
        }
        let number = self.used(&change.key, now);
        if let Some(slot) = self.get_mut(number) {
            slot.bucket.merge(change, rate, now);
        }
    }

    /// Removes full buckets that were not used lately.
    pub(super) fn sweep(&mut self, now: u64) {
        for _ in 0..SWEEP_MAX {
            // What was used later than a bucket that is not full has not much longer to wait itself.
            if self.get(self.oldest).is_none_or(|slot| !slot.bucket.is_full(now)) {
                return;
            }
            self.remove(self.oldest);
        }
    }

    /// Slots that were ever used; the others are free.
    pub(super) fn touched(&self) -> u32 {
        self.touched
    }

    /// Marks a slot. False when it is marked already, or free.
    pub(super) fn mark(&mut self, number: u32) -> bool {
        let slot = self.get_mut(number).filter(|slot| slot.is_taken);
        let is_new = slot.is_some_and(|slot| !std::mem::replace(&mut slot.is_marked, true));
        if is_new {
            self.marked.push(number);
        }
        is_new
    }

    /// Takes the mark off a slot: `None` when there is none, and nothing within when its bucket is gone.
    pub(super) fn take_mark(&mut self) -> Option<Option<&Slot>> {
        let number = self.marked.pop()?;
        if self.marked.is_empty() {
            // A flood leaves no room behind.
            self.marked.shrink_to(CHUNK);
        }
        let slot = self.get_mut(number)?;
        slot.is_marked = false;
        Some(Some(&*slot).filter(|slot| slot.is_taken))
    }

    /// Takes all marks off, and says how many there were.
    pub(super) fn forget_marks(&mut self) -> usize {
        std::iter::from_fn(|| self.take_mark().map(|_| ())).count()
    }

    /// The slot of a key's bucket, which is the newest from now on. Made when there is none.
    fn used(&mut self, key: &[u8; 16], now: u64) -> u32 {
        if let Some(number) = self.find(key) {
            if number != self.newest {
                self.leave_order(number);
                self.enter_order(number);
            }
            return number;
        }
        if self.taken >= self.slots_max {
            self.remove(self.to_go(now));
        }
        self.insert(key)
    }

    fn insert(&mut self, key: &[u8; 16]) -> u32 {
        self.life = self.life.checked_add(1).unwrap_or(1);
        let (number, head) = (self.free_slot(), self.head(key));
        let bucket = Bucket::new(self.life);
        let next = self.heads.get_mut(head).map_or(NONE, |head| std::mem::replace(head, number + 1).wrapping_sub(1));
        if let Some(slot) = self.get_mut(number) {
            (slot.key, slot.bucket, slot.next, slot.is_taken) = (*key, bucket, next, true);
        }
        self.taken += 1;
        self.enter_order(number);
        number
    }

    fn free_slot(&mut self) -> u32 {
        if let Some(next) = self.get(self.free).map(|slot| slot.next) {
            return std::mem::replace(&mut self.free, next);
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let slot = Slot {
            key: [0; 16],
            bucket: Bucket::default(),
            next: NONE,
            newer: NONE,
            older: NONE,
            is_taken: false,
            is_marked: false,
        };
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(slot);
        }
        self.touched += 1;
        self.touched - 1
    }

    /// The bucket that is missed least: of the oldest, the first that is full, for a new one is full too.
    fn to_go(&self, now: u64) -> u32 {
        let mut number = self.oldest;
        for _ in 0..EVICTION_SAMPLE {
            let Some(slot) = self.get(number) else { break };
            if slot.bucket.is_full(now) {
                return number;
            }
            number = slot.newer;
        }
        self.oldest
    }

    fn remove(&mut self, number: u32) {
        let Some(slot) = self.get(number) else { return };
        let (key, next) = (slot.key, slot.next);
        let head = self.head(&key);
        let first = self.heads.get(head).map_or(NONE, |head| head.wrapping_sub(1));
        if first == number {
            if let Some(head) = self.heads.get_mut(head) {
                *head = next.wrapping_add(1);
            }
        } else {
            let mut before = first;
            while let Some(slot) = self.get_mut(before) {
                if slot.next == number {
                    slot.next = next;
                    break;
                }
                before = slot.next;
            }
        }
        self.leave_order(number);
        let free = std::mem::replace(&mut self.free, number);
        if let Some(slot) = self.get_mut(number) {
            (slot.is_taken, slot.next) = (false, free);
        }
        self.taken -= 1;
    }

    fn enter_order(&mut self, number: u32) {
        let older = std::mem::replace(&mut self.newest, number);
        match self.get_mut(older) {
            Some(slot) => slot.newer = number,
            None => self.oldest = number,
        }
        if let Some(slot) = self.get_mut(number) {
            (slot.newer, slot.older) = (NONE, older);
        }
    }

    fn leave_order(&mut self, number: u32) {
        let Some(slot) = self.get(number) else { return };
        let (newer, older) = (slot.newer, slot.older);
        match self.get_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.get_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// The part of a key that chooses no shard.
    fn head(&self, key: &[u8; 16]) -> usize {
        let [.., a, b, c, d] = *key;
        u32::from_be_bytes([a, b, c, d]) as usize & (self.heads.len() - 1)
    }
}

/// With its place in [`Shard::marked`], and in [`Shard::heads`], which has no more places than there may be buckets.
const _: () = assert!(size_of::<Slot>() + 2 * size_of::<u32>() <= 60);
