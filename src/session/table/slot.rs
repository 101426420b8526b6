//! The place of one entry: atomics, so that it can be read while it is written. Whoever reads it without its shard's lock
//! has to ask afterwards whether the shard was written meanwhile.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::super::key::Key;

/// No slot: the end of a chain or list.
pub(super) const NONE: u32 = u32::MAX;

/// Slots that are allocated at a time: 12 KiB, so that little lies unused in each shard.
const CHUNK: usize = 256;

/// Bits of [`Slot::meta`]: server and pool, 14 bits each, and what kind of entry it is.
const INDEX_BITS: u32 = 14;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const DELETED: u32 = 1 << 28;
const CHANGED: u32 = 1 << 29;
const TAKEN: u32 = 1 << 30;

/// The highest index of a pool or server that fits.
pub(super) const INDEX_MAX: u16 = INDEX_MASK as u16;

/// 48 bytes.
#[derive(Default)]
pub(super) struct Slot {
    key: [AtomicU64; 2],
    pub(super) version: AtomicU64,
    meta: AtomicU32,
    /// When it was last used and made, in ticks.
    pub(super) used: AtomicU32,
    pub(super) made: AtomicU32,
    /// The next one of the same bucket, or the next free one.
    pub(super) next: AtomicU32,
    /// Its neighbours in the order of use within its pool.
    pub(super) older: AtomicU32,
    pub(super) newer: AtomicU32,
}

/// What kind of entry a slot holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta(u32);

impl Meta {
    /// A free slot.
    pub(super) const FREE: Self = Self(0);

    pub(super) fn live(pool: u16, server: u16) -> Self {
        Self(TAKEN | (u32::from(pool) & INDEX_MASK) << INDEX_BITS | u32::from(server) & INDEX_MASK)
    }

    pub(super) fn deleted(pool: u16) -> Self {
        Self(Self::live(pool, 0).0 | DELETED)
    }

    pub(super) fn is_taken(self) -> bool {
        self.0 & TAKEN != 0
    }

    pub(super) fn is_changed(self) -> bool {
        self.0 & CHANGED != 0
    }

    pub(super) fn with_changed(self, changed: bool) -> Self {
        Self(if changed { self.0 | CHANGED } else { self.0 & !CHANGED })
    }

    pub(super) fn pool(self) -> u16 {
        u16::try_from(self.0 >> INDEX_BITS & INDEX_MASK).unwrap_or(INDEX_MAX)
    }

    /// `None` when the entry was deleted.
    pub(super) fn server(self) -> Option<u16> {
        let is_live = self.0 & (TAKEN | DELETED) == TAKEN;
        is_live.then(|| u16::try_from(self.0 & INDEX_MASK).unwrap_or(INDEX_MAX))
    }
}

impl Slot {
    pub(super) fn key(&self) -> Key {
        let [high, low] = self.key.each_ref().map(|half| half.load(Ordering::Relaxed));
        Key::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    pub(super) fn has_key(&self, key: &Halves) -> bool {
        self.key.iter().zip(key).all(|(half, wanted)| half.load(Ordering::Relaxed) == *wanted)
    }

    pub(super) fn set_key(&self, key: &Halves) {
        for (half, value) in self.key.iter().zip(key) {
            half.store(*value, Ordering::Relaxed);
        }
    }

    pub(super) fn meta(&self) -> Meta {
        Meta(self.meta.load(Ordering::Relaxed))
    }

    pub(super) fn set_meta(&self, meta: Meta) {
        self.meta.store(meta.0, Ordering::Relaxed);
    }
}

/// A key as a slot holds it.
pub(super) type Halves = [u64; 2];

/// Both halves of a key. Its bits are evenly spread, so that any of them choose shard and bucket.
pub(super) fn halves(key: &Key) -> Halves {
    let bits = u128::from_be_bytes(key.to_bytes());
    // The cast takes the lower half.
    [(bits >> 64) as u64, bits as u64]
}

/// Slots by number, allocated as they are needed and never moved, so that a reader needs no lock.
pub(super) struct Slots {
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
}

impl Slots {
    pub(super) fn new(slots_max: usize) -> Self {
        Self { chunks: (0..slots_max.div_ceil(CHUNK).max(1)).map(|_| OnceLock::new()).collect() }
    }

    /// How many there can be.
    pub(super) fn count_max(&self) -> u32 {
        u32::try_from(self.chunks.len() * CHUNK).unwrap_or(NONE)
    }

    /// A slot that was allocated; `None` for [`NONE`].
    pub(super) fn get(&self, number: u32) -> Option<&Slot> {
        self.chunks.get(number as usize / CHUNK)?.get()?.get(number as usize % CHUNK)
    }

    /// A slot, allocated if it was not.
    pub(super) fn allocate(&self, number: u32) -> Option<&Slot> {
        let chunk = self.chunks.get(number as usize / CHUNK)?;
        let chunk = chunk.get_or_init(|| std::iter::repeat_with(Slot::default).take(CHUNK).collect());
        chunk.get(number as usize % CHUNK)
    }
}
