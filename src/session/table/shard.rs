//! A part of the table with a lock of its own for writers. Readers take no lock: they read, and look afterwards whether
//! the shard was written meanwhile (a sequence lock).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::slot::{Halves, Meta, NONE, Slot, Slots};

/// Attempts to read without the lock, each of them a few dozen nanoseconds, before a reader takes it.
const ATTEMPTS: usize = 64;

/// Steps along a chain after which it can only be a chain that is being rewritten.
const CHAIN_MAX: usize = 4_096;

/// Entries that are stepped over to put one in its place in the order of use. Beyond, the order is a little wrong.
const ORDER_STEPS_MAX: usize = 16;

/// A part of the table.
pub(super) struct Shard {
    /// Odd while it is written.
    sequence: AtomicU64,
    pub(super) slots: Slots,
    buckets: Box<[AtomicU32]>,
    /// For each pool, its entries in the order of use.
    pub(super) orders: Box<[Order]>,
    writers: Mutex<Free>,
}

/// A pool's entries in the order of use. Changed under the lock, peeked at without.
pub(super) struct Order {
    pub(super) oldest: AtomicU32,
    pub(super) newest: AtomicU32,
}

/// What only writers look at.
#[derive(Default)]
struct Free {
    /// The first free slot, when one was used before; chained through [`Slot::next`].
    first: Option<u32>,
    /// Slots that were ever used.
    touched: u32,
    /// Slots that changed since the changes were last taken.
    changed: VecDeque<u32>,
}

/// What a reader finds in a slot.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) meta: Meta,
    pub(super) used: u32,
    pub(super) made: u32,
}

impl Shard {
    pub(super) fn new(slots_max: usize, pools: usize) -> Self {
        let empty = || AtomicU32::new(NONE);
        let buckets = slots_max.next_power_of_two().max(2) / 2;
        Self {
            sequence: AtomicU64::new(0),
            // Twice the mean: keys are evenly spread over shards, but not perfectly so.
            slots: Slots::new(slots_max.saturating_mul(2)),
            buckets: std::iter::repeat_with(empty).take(buckets).collect(),
            orders: (0..pools).map(|_| Order { oldest: empty(), newest: empty() }).collect(),
            writers: Mutex::default(),
        }
    }

    /// Reads an entry without a lock.
    pub(super) fn read(&self, key: &Halves) -> Option<Seen> {
        for _ in 0..ATTEMPTS {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let seen = self.look_up(key).map(|(_, slot)| seen(slot));
                // The reads above come before the one below (Boehm, "Can seqlocks get along with programming language
                // memory models?", 2012).
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return seen;
                }
            }
            std::hint::spin_loop();
        }
        let _writing = self.lock();
        self.look_up(key).map(|(_, slot)| seen(slot))
    }

    /// Locks out other writers.
    pub(super) fn lock(&self) -> Writer<'_> {
        Writer { shard: self, free: self.writers.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Locks out other writers, unless there is one at work.
    pub(super) fn try_lock(&self) -> Option<Writer<'_>> {
        match self.writers.try_lock() {
            Ok(free) => Some(Writer { shard: self, free }),
            Err(TryLockError::Poisoned(poisoned)) => Some(Writer { shard: self, free: poisoned.into_inner() }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The slot of a pool's entry that was not used for the longest time, and when it was. Without the lock: a guess.
    pub(super) fn oldest(&self, pool: u16) -> Option<(u32, u32)> {
        let number = self.orders.get(usize::from(pool))?.oldest.load(Ordering::Relaxed);
        Some((number, self.slots.get(number)?.used.load(Ordering::Relaxed)))
    }

    fn look_up(&self, key: &Halves) -> Option<(u32, &Slot)> {
        let mut number = self.bucket(key)?.load(Ordering::Relaxed);
        for _ in 0..CHAIN_MAX {
            let slot = self.slots.get(number)?;
            // A free one: the chain is being rewritten, and the rest of the way leads through free ones.
            if !slot.meta().is_taken() {
                return None;
            }
            if slot.has_key(key) {
                return Some((number, slot));
            }
            number = slot.next.load(Ordering::Relaxed);
        }
        None
    }

    fn bucket(&self, key: &Halves) -> Option<&AtomicU32> {
        let [_, low] = key;
        // A power of two.
        let mask = self.buckets.len() as u64 - 1;
        self.buckets.get(usize::try_from(low & mask).ok()?)
    }
}

fn seen(slot: &Slot) -> Seen {
    let (used, made) = (slot.used.load(Ordering::Relaxed), slot.made.load(Ordering::Relaxed));
    Seen { meta: slot.meta(), used, made }
}

/// The one writer of a shard, for as long as it lives.
pub(super) struct Writer<'shard> {
    shard: &'shard Shard,
    free: MutexGuard<'shard, Free>,
}

/// Readers that come across it know that what they read may be half of one thing and half of another.
struct Writing<'shard>(&'shard AtomicU64);

impl<'shard> Writing<'shard> {
    fn begin(sequence: &'shard AtomicU64) -> Self {
        let odd = sequence.load(Ordering::Relaxed).wrapping_add(1);
        sequence.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        Self(sequence)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let even = self.0.load(Ordering::Relaxed).wrapping_add(1);
        self.0.store(even, Ordering::Release);
    }
}

impl<'shard> Writer<'shard> {
    /// The slot that holds a key.
    pub(super) fn find(&self, key: &Halves) -> Option<(u32, &'shard Slot)> {
        self.shard.look_up(key)
    }

    /// A slot that holds an entry.
    pub(super) fn taken(&self, number: u32) -> Option<&'shard Slot> {
        self.shard.slots.get(number).filter(|slot| slot.meta().is_taken())
    }

    /// Slots that were ever used: the numbers below.
    pub(super) fn touched(&self) -> u32 {
        self.free.touched
    }

    /// Changes what an entry says, but not how old it is.
    pub(super) fn write(&mut self, slot: &Slot, meta: Meta, version: u64, made: u32) {
        let _writing = Writing::begin(&self.shard.sequence);
        slot.set_meta(meta.with_changed(slot.meta().is_changed()));
        slot.version.store(version, Ordering::Relaxed);
        slot.made.store(made, Ordering::Relaxed);
    }

    /// Notes that an entry was used, and puts it in its place in the order of use.
    pub(super) fn use_at(&mut self, number: u32, slot: &Slot, used: u32) {
        let _writing = Writing::begin(&self.shard.sequence);
        self.unlink_order(slot);
        slot.used.store(used, Ordering::Relaxed);
        self.link_order(number, slot);
    }

    /// Makes an entry. `None` when there is no slot left.
    pub(super) fn insert(&mut self, key: &Halves, meta: Meta, version: u64, times: (u32, u32)) -> Option<u32> {
        let (number, slot) = self.free_slot()?;
        let bucket = self.shard.bucket(key)?;
        let _writing = Writing::begin(&self.shard.sequence);
        slot.set_key(key);
        slot.set_meta(meta.with_changed(slot.meta().is_changed()));
        slot.version.store(version, Ordering::Relaxed);
        let (used, made) = times;
        slot.used.store(used, Ordering::Relaxed);
        slot.made.store(made, Ordering::Relaxed);
        slot.next.store(bucket.load(Ordering::Relaxed), Ordering::Relaxed);
        bucket.store(number, Ordering::Relaxed);
        self.link_order(number, slot);
        Some(number)
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, number: u32, slot: &Slot) {
        let key = super::slot::halves(&slot.key());
        let _writing = Writing::begin(&self.shard.sequence);
        self.unlink_order(slot);
        self.unlink_chain(&key, number, slot);
        // A slot that is listed as changed stays so, and tells of whatever it holds by then.
        slot.set_meta(Meta::FREE.with_changed(slot.meta().is_changed()));
        slot.next.store(self.free.first.unwrap_or(NONE), Ordering::Relaxed);
        self.free.first = Some(number);
    }

    /// Lists a slot as changed. False when it is listed already.
    pub(super) fn note_change(&mut self, number: u32, slot: &Slot) -> bool {
        if slot.meta().is_changed() {
            return false;
        }
        slot.set_meta(slot.meta().with_changed(true));
        self.free.changed.push_back(number);
        true
    }

    /// Takes the slot off the list that changed first.
    pub(super) fn take_change(&mut self) -> Option<&'shard Slot> {
        let slot = self.shard.slots.get(self.free.changed.pop_front()?)?;
        slot.set_meta(slot.meta().with_changed(false));
        Some(slot)
    }

    /// Gives the memory of the list back after a burst.
    pub(super) fn trim_changes(&mut self, spare: usize) {
        if self.free.changed.is_empty() && self.free.changed.capacity() > spare {
            self.free.changed = VecDeque::new();
        }
    }

    fn free_slot(&mut self) -> Option<(u32, &'shard Slot)> {
        if let Some(number) = self.free.first {
            let slot = self.shard.slots.get(number)?;
            self.free.first = Some(slot.next.load(Ordering::Relaxed)).filter(|next| *next != NONE);
            return Some((number, slot));
        }
        let number = self.free.touched;
        if number >= self.shard.slots.count_max() {
            return None;
        }
        let slot = self.shard.slots.allocate(number)?;
        self.free.touched += 1;
        Some((number, slot))
    }

    fn unlink_chain(&self, key: &Halves, number: u32, slot: &Slot) {
        let Some(mut link) = self.shard.bucket(key) else { return };
        while link.load(Ordering::Relaxed) != number {
            let Some(before) = self.shard.slots.get(link.load(Ordering::Relaxed)) else { return };
            link = &before.next;
        }
        link.store(slot.next.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn order(&self, slot: &Slot) -> Option<&'shard Order> {
        self.shard.orders.get(usize::from(slot.meta().pool()))
    }

    fn unlink_order(&self, slot: &Slot) {
        let Some(order) = self.order(slot) else { return };
        let (older, newer) = (slot.older.load(Ordering::Relaxed), slot.newer.load(Ordering::Relaxed));
        let after = self.shard.slots.get(older).map_or(&order.oldest, |older| &older.newer);
        after.store(newer, Ordering::Relaxed);
        let before = self.shard.slots.get(newer).map_or(&order.newest, |newer| &newer.older);
        before.store(older, Ordering::Relaxed);
    }

    /// Most are the newest. What comes from the other node may be older than some.
    fn link_order(&self, number: u32, slot: &Slot) {
        let Some(order) = self.order(slot) else { return };
        let used = slot.used.load(Ordering::Relaxed);
        let (mut older, mut newer) = (order.newest.load(Ordering::Relaxed), NONE);
        for _ in 0..ORDER_STEPS_MAX {
            match self.shard.slots.get(older) {
                Some(at) if at.used.load(Ordering::Relaxed) > used => {
                    newer = older;
                    older = at.older.load(Ordering::Relaxed);
                }
                _ => break,
            }
        }
        slot.older.store(older, Ordering::Relaxed);
        slot.newer.store(newer, Ordering::Relaxed);
        let after = self.shard.slots.get(older).map_or(&order.oldest, |older| &older.newer);
        after.store(number, Ordering::Relaxed);
        let before = self.shard.slots.get(newer).map_or(&order.newest, |newer| &newer.older);
        before.store(number, Ordering::Relaxed);
    }
}
