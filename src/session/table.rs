//! The session table: which server each key belongs to, for all pools of a worker that need one, shared by its threads.
//!
//! Looking up takes no lock and writes nothing, but for the time of last use, once in a sixteenth of the time to live. Writers
//! lock a 64th of the table for well under a microsecond. An entry costs 48 bytes and 4 for its place in a bucket; nothing
//! is allocated before it is needed, nothing is ever moved. At a pool's maximum the entry goes that was not used for the
//! longest time: exactly so in tables of up to a few thousand entries, in larger ones the oldest of eight parts of it.
//!
//! `now` is the time since any origin, the same for all calls. It is kept in steps of 100 ms; 13 years fit.

mod shard;
mod slot;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use self::shard::{Seen, Shard, Writer};
use self::slot::{Halves, INDEX_MAX, Meta, NONE, Slot, halves};
use super::key::Key;
use super::record::{Record, ServerRef};
use super::version::{Node, Version, WriterClock};

/// Parts of a large table. A power of two, at most 64.
const SHARDS_MAX: usize = 64;
/// Entries below which a part is not divided.
const SHARD_ENTRIES_MIN: usize = 1_024;
/// Parts whose oldest entries are compared when one has to go.
const EVICTION_SAMPLE: usize = 8;
/// The time of last use is written when it is this part of the time to live off.
const REFRESH_SHARE: u32 = 16;
/// Expired entries that one call of [`Table::sweep`] removes from a part.
const SWEEP_MAX: usize = 1_024;
/// Ticks for which an expired entry is kept where there is another node: longer than anything is under way.
const GRACE: u32 = 20;
/// Entries that are read under one hold of a lock.
const PAGE: u32 = 256;
/// Room for changes that a part keeps.
const CHANGES_SPARE: usize = 1_024;

/// Length of a tick.
const TICK_MS: u64 = 100;
/// The tick of the origin: so that entries which are older than it have a time.
const ORIGIN_TICKS: u32 = 1 << 30;

/// What a pool may keep in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Entries at most, at least 1.
    pub entries_max: usize,
    /// Time without use after which an entry ends.
    pub idle: Duration,
    /// Time after which it ends in any case.
    pub absolute: Option<Duration>,
    /// The pool's servers, for counting.
    pub servers: usize,
}

/// An entry as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Where it leads.
    pub server: ServerRef,
    /// Time since it was last used.
    pub idle: Duration,
    /// Time since it was made.
    pub age: Duration,
    /// Time that is left, if nobody uses it.
    pub expires_in: Duration,
    /// Which write it is.
    pub version: Version,
}

/// What became of an entry that came from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// It is in the table, in place of an older one if there was one.
    Taken,
    /// The table has the same one, or a newer one.
    Known,
    /// It has expired, is older than all of a full pool, or is of a pool that has no place in this table.
    Useless,
}

/// A pool, as it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Entries that are not deleted; some may have expired and not been swept yet.
    pub entries: usize,
    /// Entries that had to go because the pool was full, since the start.
    pub evicted: u64,
    /// Entries whose time had come, since the start.
    pub expired: u64,
}

/// The session table.
pub struct Table {
    node: Node,
    clock: WriterClock,
    pools: Box<[Option<Pool>]>,
    shards: Box<[Shard]>,
    changes: Changes,
    /// The part that is swept next.
    sweeping: AtomicUsize,
}

/// A pool's settings in ticks, and its counts.
struct Pool {
    entries_max: usize,
    idle: u32,
    absolute: Option<u32>,
    /// Slots in use, with those of deleted entries.
    slots: AtomicUsize,
    by_server: Box<[AtomicUsize]>,
    evicted: AtomicU64,
    expired: AtomicU64,
}

/// What the other node has not been sent yet.
struct Changes {
    /// Whether anybody asks for them.
    are_kept: AtomicBool,
    /// How often somebody began or ended to.
    keeper: AtomicU64,
    pending: AtomicUsize,
    /// When the first of them came, in microseconds.
    since: AtomicU64,
    /// A bit for each part that has any.
    shards: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// Where a [scan](Table::scan) is.
#[derive(Debug, Default)]
pub struct Cursor {
    shard: usize,
    /// Slots of the part that are still to come, the least lately used last.
    order: Vec<u32>,
    is_begun: bool,
}

impl Table {
    /// An empty table. `pools` are in the order of the configuration, `None` for those that need no entries. `wake` is
    /// called when there is a change to send and there was none before.
    pub fn new(node: Node, pools: &[Option<PoolLimits>], wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let entries_max: usize = pools.iter().flatten().map(|pool| pool.entries_max.max(1)).sum();
        let shard_count = (entries_max / SHARD_ENTRIES_MIN).next_power_of_two().clamp(1, SHARDS_MAX);
        let slots_max = if entries_max == 0 { 0 } else { entries_max.div_ceil(shard_count) + 1 };
        let pools: Box<[_]> = pools.iter().map(|limits| limits.as_ref().map(Pool::new)).collect();
        let changes = Changes {
            are_kept: AtomicBool::new(false),
            keeper: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            shards: AtomicU64::new(0),
            wake,
        };
        Self {
            node,
            clock: WriterClock::new(node),
            shards: (0..shard_count).map(|_| Shard::new(slots_max, pools.len())).collect(),
            pools,
            changes,
            sweeping: AtomicUsize::new(0),
        }
    }

    /// The server that a key belongs to, which counts as a use.
    pub fn find(&self, key: &Key, now: Duration) -> Option<ServerRef> {
        let (halves, now) = (halves(key), ticks(now));
        let (_, shard) = self.shard(&halves)?;
        let seen = shard.read(&halves)?;
        let pool = self.pool(seen.meta.pool())?;
        if pool.is_expired(&seen, now) {
            return None;
        }
        let server = seen.meta.server()?;
        if pool.is_to_be_refreshed(&seen, now) {
            // Another writer is at work: then the next use writes it down.
            if let Some(mut writer) = shard.try_lock() {
                self.refresh(&mut writer, &halves, now);
            }
        }
        Some(ServerRef { pool: seen.meta.pool(), server })
    }

    /// Gives a key to a server unless it belongs to one already, and says to which it belongs then. Of two threads that do
    /// so at once, one decides.
    pub fn claim(&self, key: &Key, server: ServerRef, now: Duration) -> ServerRef {
        self.write(key, server, now, false).unwrap_or(server)
    }

    /// Gives a key to a server, whatever it belonged to.
    pub fn put(&self, key: &Key, server: ServerRef, now: Duration) {
        // What it belonged to is of no interest.
        let _stands = self.write(key, server, now, true);
    }

    /// Deletes an entry. False when there was none.
    pub fn remove(&self, key: &Key, now: Duration) -> bool {
        let (halves, ticks) = (halves(key), ticks(now));
        let Some((index, shard)) = self.shard(&halves) else { return false };
        let mut writer = shard.lock();
        let Some((number, slot)) = writer.find(&halves) else { return false };
        let Some(pool) = self.pool(slot.meta().pool()) else { return false };
        let was_live = slot.meta().server().is_some() && !pool.is_expired(&seen(slot), ticks);
        if slot.meta().server().is_some() {
            self.delete(&mut writer, index, (number, slot), now);
        }
        was_live
    }

    /// Deletes the entries of a pool, or of one server of it, or all, and gives their number.
    pub fn clear(&self, pool: Option<u16>, server: Option<u16>, now: Duration) -> u64 {
        let mut cleared = 0;
        for (index, shard) in self.shards.iter().enumerate() {
            let mut page = 0;
            loop {
                let mut writer = shard.lock();
                let end = writer.touched().min(page + PAGE);
                for number in page..end {
                    let Some(slot) = writer.taken(number) else { continue };
                    let of = slot.meta();
                    let is_meant = pool.is_none_or(|pool| pool == of.pool())
                        && of.server().is_some_and(|own| server.is_none_or(|server| server == own));
                    if is_meant {
                        self.delete(&mut writer, index, (number, slot), now);
                        cleared += 1;
                    }
                }
                if end == writer.touched() {
                    break;
                }
                page = end;
            }
        }
        cleared
    }

    /// Shows every live entry of a pool, or of all, until `show` says false. Holds a part's lock for 256 entries at a time.
    pub fn each(&self, pool: Option<u16>, now: Duration, mut show: impl FnMut(&Entry) -> bool) {
        let now = ticks(now);
        for shard in &self.shards {
            let mut page = 0;
            loop {
                let writer = shard.lock();
                let end = writer.touched().min(page + PAGE);
                for slot in (page..end).filter_map(|number| writer.taken(number)) {
                    let is_meant = pool.is_none_or(|pool| pool == slot.meta().pool());
                    let entry = if is_meant { self.entry(slot, now) } else { None };
                    if entry.is_some_and(|entry| !show(&entry)) {
                        return;
                    }
                }
                if end == writer.touched() {
                    break;
                }
                page = end;
            }
        }
    }

    /// Shows one live entry. Does not count as a use.
    pub fn peek(&self, key: &Key, now: Duration) -> Option<Entry> {
        let halves = halves(key);
        let (_, shard) = self.shard(&halves)?;
        let writer = shard.lock();
        let (_, slot) = writer.find(&halves)?;
        self.entry(slot, ticks(now))
    }

    /// A pool's counts; all zero for one without a table.
    pub fn stats(&self, pool: u16) -> PoolStats {
        self.pool(pool).map_or_else(PoolStats::default, |pool| PoolStats {
            entries: pool.by_server.iter().map(|count| count.load(Ordering::Relaxed)).sum(),
            evicted: pool.evicted.load(Ordering::Relaxed),
            expired: pool.expired.load(Ordering::Relaxed),
        })
    }

    /// Entries of each server of a pool.
    pub fn counts(&self, pool: u16) -> Vec<usize> {
        let counts = self.pool(pool).map(|pool| pool.by_server.iter().map(|count| count.load(Ordering::Relaxed)));
        counts.map(Iterator::collect).unwrap_or_default()
    }

    /// Removes what has expired from a part of the table; called every 100 ms it has been everywhere after a second.
    pub fn sweep(&self, now: Duration) {
        let now = ticks(now);
        for _ in 0..self.shards.len().div_ceil(10) {
            let index = self.sweeping.fetch_add(1, Ordering::Relaxed) % self.shards.len().max(1);
            let Some(shard) = self.shards.get(index) else { return };
            let mut writer = shard.lock();
            for order in &shard.orders {
                for _ in 0..SWEEP_MAX {
                    let number = order.oldest.load(Ordering::Relaxed);
                    let oldest = writer.taken(number);
                    if !oldest
                        .is_some_and(|slot| self.expire(&mut writer, number, slot, now.saturating_sub(self.grace())))
                    {
                        break;
                    }
                }
            }
            writer.trim_changes(CHANGES_SPARE);
        }
    }

    /// Begins a new writer epoch: this node has become active, and what it writes from now on is newer than all that was
    /// written before, here or at the other node.
    pub fn take_over(&self) {
        self.clock.begin_epoch();
    }

    /// The highest version made or seen.
    pub fn latest(&self) -> Version {
        self.clock.latest()
    }

    /// Takes note of the other node's highest version.
    pub fn saw(&self, version: Version) {
        self.clock.seen(version);
    }

    /// A version for a write to something else that both nodes share.
    pub fn next_version(&self) -> Version {
        self.clock.next()
    }
}

/// For the other node.
impl Table {
    /// Begins or ends the keeping of changes. What was kept is forgotten: a [scan](Table::scan) begun afterwards has it.
    /// Gives the number of this call, to know whether [another](Table::keeper) came after it.
    pub fn keep_changes(&self, are_kept: bool) -> u64 {
        let keeper = self.changes.keeper.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes.are_kept.store(false, Ordering::SeqCst);
        for shard in &self.shards {
            let mut writer = shard.lock();
            while writer.take_change().is_some() {
                self.changes.pending.fetch_sub(1, Ordering::Relaxed);
            }
            writer.trim_changes(CHANGES_SPARE);
        }
        self.changes.are_kept.store(are_kept, Ordering::SeqCst);
        keeper
    }

    /// The number of the latest call of [`Table::keep_changes`].
    pub fn keeper(&self) -> u64 {
        self.changes.keeper.load(Ordering::Acquire)
    }

    /// Entries that changed and were not taken yet. An entry that changes twice counts once, so that there are never more
    /// than entries in the table, however long nobody takes them.
    pub fn pending_changes(&self) -> usize {
        self.changes.pending.load(Ordering::Acquire)
    }

    /// When the oldest of the pending changes came, or earlier; `None` when there is none.
    pub fn changed_since(&self) -> Option<Duration> {
        let is_pending = self.pending_changes() > 0;
        is_pending.then(|| Duration::from_micros(self.changes.since.load(Ordering::Relaxed)))
    }

    /// Takes at most `count` changes and gives each to `take`.
    pub fn take_changes(&self, now: Duration, count: usize, mut take: impl FnMut(Record)) {
        let (now, mut left) = (ticks(now), count);
        let shards = self.changes.shards.swap(0, Ordering::AcqRel);
        for (index, shard) in self.shards.iter().enumerate().filter(|(index, _)| shards >> index & 1 == 1) {
            if left == 0 {
                self.changes.shards.fetch_or(1 << index, Ordering::AcqRel);
                continue;
            }
            let mut writer = shard.lock();
            while left > 0 {
                let Some(slot) = writer.take_change() else { break };
                self.changes.pending.fetch_sub(1, Ordering::Relaxed);
                if let Some(record) = record(slot, now) {
                    take(record);
                    left -= 1;
                }
            }
            if left == 0 {
                self.changes.shards.fetch_or(1 << index, Ordering::AcqRel);
            }
        }
    }

    /// Gives at most `count` entries to `take`, deleted ones too, in the order of use within each part. False when there
    /// are no more. What changes while the scan is under way may be missed or come twice.
    pub fn scan(&self, cursor: &mut Cursor, now: Duration, count: usize, mut take: impl FnMut(Record)) -> bool {
        let (now, mut left) = (ticks(now), count);
        while left > 0 {
            let Some(shard) = self.shards.get(cursor.shard) else { return false };
            if !cursor.is_begun {
                cursor.order = self.in_order(shard);
                cursor.is_begun = true;
            }
            let writer = shard.lock();
            while left > 0 {
                let Some(number) = cursor.order.pop() else {
                    (cursor.shard, cursor.is_begun) = (cursor.shard + 1, false);
                    break;
                };
                let slot = writer.taken(number);
                let slot =
                    slot.filter(|slot| self.pool_of(slot).is_some_and(|pool| !pool.is_expired(&seen(slot), now)));
                if let Some(record) = slot.and_then(|slot| record(slot, now)) {
                    take(record);
                    left -= 1;
                }
            }
        }
        cursor.shard < self.shards.len()
    }

    /// Entries that a scan finds, with those of all pools.
    pub fn slots_in_use(&self) -> usize {
        self.pools.iter().flatten().map(|pool| pool.slots.load(Ordering::Relaxed)).sum()
    }

    /// Takes an entry from elsewhere. Of two writes the newer one counts, and of two uses the later one, whichever write it
    /// was of: so both nodes come to the same in whatever order they hear of them.
    pub fn merge(&self, record: &Record, now: Duration) -> Merged {
        self.clock.seen(record.version);
        let (halves, ticks) = (halves(&record.key), ticks(now));
        let fits = record.pool <= INDEX_MAX && record.server.is_none_or(|server| server <= INDEX_MAX);
        let Some(pool) = self.pool(record.pool).filter(|_| fits) else { return Merged::Useless };
        let Some((index, shard)) = self.shard(&halves) else { return Merged::Useless };
        let (used, made) = (ticks.saturating_sub(span(record.idle)), ticks.saturating_sub(span(record.age)));
        let meta = meta(record);
        let mut writer = shard.lock();
        let Some((number, slot)) = writer.find(&halves) else {
            // In a full pool, what would be the next to go must not take the place of what is used.
            let is_full = pool.slots.load(Ordering::Relaxed) >= pool.entries_max;
            let is_last = is_full && self.oldest(index, record.pool).is_some_and(|(oldest, _)| used < oldest);
            if is_last || pool.is_expired(&Seen { meta, used, made }, ticks) {
                return Merged::Useless;
            }
            self.add(&mut writer, &halves, meta, record.version, (used, made));
            return Merged::Taken;
        };
        let before = seen(slot);
        if before.meta.pool() != record.pool {
            return Merged::Useless;
        }
        // A node that lost its memory may have given one version twice: both nodes then choose the same one.
        let known = (slot.version.load(Ordering::Relaxed), before.meta.server());
        let told = (record.version.get(), record.server);
        // Only by version: of one version given twice each node may hold another to be the newer one, without end.
        let (is_newer, is_older) = (told > known, record.version.get() < slot.version.load(Ordering::Relaxed));
        let latest = used.max(before.used);
        // A write whose absolute time is over gives way to an older one that is not over.
        let is_over = |made: u32| pool.is_expired(&Seen { meta, used: latest, made }, ticks);
        let counts = match (is_newer, is_over(made), is_over(before.made)) {
            (true, true, false) => {
                // The other node may have passed over what stands here for it.
                self.note_change(&mut writer, index, number, now);
                return Merged::Useless;
            }
            (false, false, true) => is_older,
            _ => is_newer,
        };
        if counts {
            self.count(before.meta, -1);
            writer.write(slot, meta, record.version.get(), made);
            self.count(meta, 1);
        }
        if used > before.used {
            writer.use_at(number, slot, used);
        }
        // The other node has not heard of what stands now: that its write is not the newest, or that the newest is over, or
        // of the newest write together with this use.
        if is_older || counts && used < before.used {
            self.note_change(&mut writer, index, number, now);
        }
        if counts || used > before.used { Merged::Taken } else { Merged::Known }
    }
}

impl Table {
    fn pool(&self, index: u16) -> Option<&Pool> {
        self.pools.get(usize::from(index))?.as_ref()
    }

    fn pool_of(&self, slot: &Slot) -> Option<&Pool> {
        self.pool(slot.meta().pool())
    }

    fn shard(&self, halves: &Halves) -> Option<(usize, &Shard)> {
        let [high, _] = halves;
        // A power of two.
        let index = usize::try_from(high & (self.shards.len() as u64 - 1)).ok()?;
        Some((index, self.shards.get(index)?))
    }

    fn write(&self, key: &Key, server: ServerRef, now: Duration, over: bool) -> Option<ServerRef> {
        let (halves, at) = (halves(key), ticks(now));
        let pool = self.pool(server.pool).filter(|_| server.pool <= INDEX_MAX && server.server <= INDEX_MAX)?;
        let (index, shard) = self.shard(&halves)?;
        let mut writer = shard.lock();
        let meta = Meta::live(server.pool, server.server);
        // A key is of one pool. That another has it can only be the other node's mistake, whose entry would stand in the
        // order of a pool that it is not of.
        let alien = writer.find(&halves).filter(|(_, slot)| slot.meta().pool() != server.pool);
        if let Some((number, slot)) = alien {
            self.take_out(&mut writer, number, slot);
        }
        let Some((number, slot)) = writer.find(&halves) else {
            let version = self.clock.next();
            let number = self.add(&mut writer, &halves, meta, version, (at, at))?;
            self.note_change(&mut writer, index, number, now);
            return Some(server);
        };
        let stands = slot.meta().server().filter(|_| !pool.is_expired(&seen(slot), at));
        if let Some(stands) = stands.filter(|stands| !over || *stands == server.server) {
            if pool.is_to_be_refreshed(&seen(slot), at) {
                writer.use_at(number, slot, at);
                self.note_change(&mut writer, index, number, now);
            }
            return Some(ServerRef { server: stands, ..server });
        }
        self.count(slot.meta(), -1);
        // A session that moves to another server is still the one that was made when it was made.
        let made = if stands.is_some() { slot.made.load(Ordering::Relaxed) } else { at };
        writer.write(slot, meta, self.clock.next().get(), made);
        writer.use_at(number, slot, at);
        self.count(meta, 1);
        self.note_change(&mut writer, index, number, now);
        Some(server)
    }

    fn refresh(&self, writer: &mut Writer<'_>, halves: &Halves, now: u32) {
        let Some((number, slot)) = writer.find(halves) else { return };
        let Some((index, _)) = self.shard(halves) else { return };
        writer.use_at(number, slot, now);
        self.note_change(writer, index, number, duration(now.saturating_sub(ORIGIN_TICKS)));
    }

    /// Deletes an entry. Where there is another node, what is left has to tell it for as long as it may have the entry.
    fn delete(&self, writer: &mut Writer<'_>, index: usize, (number, slot): (u32, &Slot), now: Duration) {
        if self.node == Node::Only {
            return self.take_out(writer, number, slot);
        }
        let at = ticks(now);
        self.count(slot.meta(), -1);
        writer.write(slot, Meta::deleted(slot.meta().pool()), self.clock.next().get(), at);
        writer.use_at(number, slot, at);
        self.note_change(writer, index, number, now);
    }

    fn add(
        &self,
        writer: &mut Writer<'_>,
        halves: &Halves,
        meta: Meta,
        version: Version,
        times: (u32, u32),
    ) -> Option<u32> {
        let pool = self.pool(meta.pool())?;
        // Two, so that a pool that is over its limit because a lock was held comes back to it.
        for _ in 0..2 {
            if pool.slots.load(Ordering::Relaxed) >= pool.entries_max {
                self.evict(writer, halves, meta.pool());
            }
        }
        let number = writer.insert(halves, meta, version.get(), times)?;
        pool.slots.fetch_add(1, Ordering::Relaxed);
        self.count(meta, 1);
        Some(number)
    }

    /// Makes room: the oldest entry goes. Never waits for a second lock while it holds one.
    fn evict(&self, writer: &mut Writer<'_>, halves: &Halves, pool: u16) {
        let Some((own, shard)) = self.shard(halves) else { return };
        match self.oldest(own, pool) {
            Some((_, index)) if index != own => {
                let other = self.shards.get(index).and_then(|shard| Some((shard, shard.try_lock()?)));
                match other {
                    Some((shard, mut writer)) => self.evict_from(&mut writer, shard, pool),
                    None => self.evict_from(writer, shard, pool),
                }
            }
            _ => self.evict_from(writer, shard, pool),
        }
    }

    /// When a pool's oldest entry was used, and the part that it is in: the oldest of a few parts, this one among them, or of
    /// all where these have none. Without locks: a guess.
    fn oldest(&self, own: usize, pool: u16) -> Option<(u32, usize)> {
        let count = self.shards.len();
        let used = |index: usize| Some((self.shards.get(index)?.oldest(pool)?.1, index));
        let stride = (count / EVICTION_SAMPLE).max(1);
        let sampled = (0..count).step_by(stride).map(|step| (own + step) % count).filter_map(used).min();
        sampled.or_else(|| (0..count).filter_map(used).min())
    }

    fn evict_from(&self, writer: &mut Writer<'_>, shard: &Shard, pool: u16) {
        let oldest = shard.oldest(pool).and_then(|(number, _)| Some((number, writer.taken(number)?)));
        if let Some((number, slot)) = oldest {
            if let Some(pool) = self.pool(pool).filter(|_| slot.meta().server().is_some()) {
                pool.evicted.fetch_add(1, Ordering::Relaxed);
            }
            self.take_out(writer, number, slot);
        }
    }

    /// Ticks for which what has expired is kept: a later use of it at the other node may be under way.
    const fn grace(&self) -> u32 {
        match self.node {
            Node::Only => 0,
            Node::First | Node::Second => GRACE,
        }
    }

    /// Takes an entry out if its time has come. False if it has not.
    fn expire(&self, writer: &mut Writer<'_>, number: u32, slot: &Slot, now: u32) -> bool {
        let Some(pool) = self.pool_of(slot).filter(|pool| pool.is_expired(&seen(slot), now)) else { return false };
        if slot.meta().server().is_some() {
            pool.expired.fetch_add(1, Ordering::Relaxed);
        }
        self.take_out(writer, number, slot);
        true
    }

    fn take_out(&self, writer: &mut Writer<'_>, number: u32, slot: &Slot) {
        self.count(slot.meta(), -1);
        if let Some(pool) = self.pool_of(slot) {
            pool.slots.fetch_sub(1, Ordering::Relaxed);
        }
        writer.remove(number, slot);
    }

    fn count(&self, meta: Meta, step: isize) {
        let Some(server) = meta.server() else { return };
        let count = self.pool(meta.pool()).and_then(|pool| pool.by_server.get(usize::from(server)));
        // Wraps to the right sum for a step of -1.
        count.map(|count| count.fetch_add(step.cast_unsigned(), Ordering::Relaxed));
    }

    fn note_change(&self, writer: &mut Writer<'_>, shard: usize, number: u32, now: Duration) {
        if !self.changes.are_kept.load(Ordering::Relaxed) {
            return;
        }
        let Some(slot) = writer.taken(number) else { return };
        if !writer.note_change(number, slot) {
            return;
        }
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        // The part is marked before the change is counted: whoever sees the count finds the change.
        self.changes.shards.fetch_or(1 << shard, Ordering::AcqRel);
        if self.changes.pending.fetch_add(1, Ordering::AcqRel) == 0 {
            self.changes.since.store(micros, Ordering::Relaxed);
            (self.changes.wake)();
        }
    }

    /// The slots of a part, the least lately used last. Read without its lock, for it is no more than an order to go in.
    fn in_order(&self, shard: &Shard) -> Vec<u32> {
        let touched = shard.lock().touched();
        let slot = |number| Some((number, shard.slots.get(number).filter(|slot| slot.meta().is_taken())?));
        let used = |(number, slot): (u32, &Slot)| (slot.used.load(Ordering::Relaxed), number);
        let mut order: Vec<_> = (0..touched).filter_map(slot).map(used).collect();
        order.sort_unstable_by(|one, other| other.cmp(one));
        order.into_iter().map(|(_, number)| number).collect()
    }

    fn entry(&self, slot: &Slot, now: u32) -> Option<Entry> {
        let (meta, pool) = (slot.meta(), self.pool_of(slot)?);
        let seen = seen(slot);
        if pool.is_expired(&seen, now) {
            return None;
        }
        Some(Entry {
            key: slot.key(),
            server: ServerRef { pool: meta.pool(), server: meta.server()? },
            idle: duration(now.saturating_sub(seen.used)),
            age: duration(now.saturating_sub(seen.made)),
            expires_in: duration(pool.ends(&seen).saturating_sub(now)),
            version: Version::new(slot.version.load(Ordering::Relaxed)).unwrap_or(Version::MAX),
        })
    }
}

impl Pool {
    fn new(limits: &PoolLimits) -> Self {
        Self {
            entries_max: limits.entries_max.max(1),
            idle: span(limits.idle).max(1),
            absolute: limits.absolute.map(|absolute| span(absolute).max(1)),
            slots: AtomicUsize::new(0),
            by_server: (0..limits.servers).map(|_| AtomicUsize::new(0)).collect(),
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    /// The tick at which an entry ends. What is left of a deleted one stays for as long as the other node may still have
    /// the entry, which knows of no later use of it.
    fn ends(&self, seen: &Seen) -> u32 {
        let idle = seen.used.saturating_add(self.idle);
        self.absolute.map_or(idle, |absolute| idle.min(seen.made.saturating_add(absolute)))
    }

    fn is_expired(&self, seen: &Seen, now: u32) -> bool {
        self.ends(seen) <= now
    }

    fn is_to_be_refreshed(&self, seen: &Seen, now: u32) -> bool {
        now.saturating_sub(seen.used) >= (self.idle / REFRESH_SHARE).max(1)
    }
}

fn seen(slot: &Slot) -> Seen {
    let (used, made) = (slot.used.load(Ordering::Relaxed), slot.made.load(Ordering::Relaxed));
    Seen { meta: slot.meta(), used, made }
}

fn meta(record: &Record) -> Meta {
    record.server.map_or_else(|| Meta::deleted(record.pool), |server| Meta::live(record.pool, server))
}

fn record(slot: &Slot, now: u32) -> Option<Record> {
    let meta = slot.meta();
    let since = |at: u32| duration(now.saturating_sub(at));
    meta.is_taken().then(|| Record {
        key: slot.key(),
        pool: meta.pool(),
        server: meta.server(),
        version: Version::new(slot.version.load(Ordering::Relaxed)).unwrap_or(Version::MAX),
        idle: since(slot.used.load(Ordering::Relaxed)),
        age: since(slot.made.load(Ordering::Relaxed)),
    })
}

/// A point in time.
fn ticks(now: Duration) -> u32 {
    span(now).saturating_add(ORIGIN_TICKS)
}

/// A length of time.
fn span(length: Duration) -> u32 {
    u32::try_from(length.as_millis() / u128::from(TICK_MS)).unwrap_or(NONE)
}

fn duration(ticks: u32) -> Duration {
    Duration::from_millis(u64::from(ticks) * TICK_MS)
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("slots", &self.slots_in_use()).finish_non_exhaustive()
    }
}
