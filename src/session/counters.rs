//! Counters that both nodes keep together, as the sync link sees them: those of rate limits. What a count means, and how two
//! of them make one, is the affair of whoever keeps them.

use std::time::Duration;

use super::key::Key;

/// What one node says of a counter to the other. All of it is so far, not since the last time: a record that comes twice,
/// or is lost before the next one, does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterRecord {
    /// Whose it is.
    pub key: Key,
    /// The limit's place.
    pub limit: u16,
    /// Another number each time that the node begins to count; not 0.
    pub life: u16,
    /// What the node has counted itself in that life. Wraps.
    pub total: u32,
    /// The life of the other node's counter that it last heard of, 0 for none.
    pub peer_life: u16,
    /// What that one's total was.
    pub peer_total: u32,
    /// How far the limit is used up by both, in thousandths of a request.
    pub missing: u32,
}

/// Whoever keeps counters.
pub trait Counters {
    /// Begins or ends the keeping of changes. At the beginning, every counter counts as changed.
    fn keep_changes(&self, are_kept: bool);
    /// Whether there are changes to take.
    fn has_changes(&self) -> bool;
    /// Takes at most `count` changes and gives each to `take`.
    fn take_changes(&self, now: Duration, count: usize, take: &mut dyn FnMut(&CounterRecord));
    /// Takes what the other node says.
    fn merge(&self, record: &CounterRecord, now: Duration);
}

/// No counters.
impl Counters for () {
    fn keep_changes(&self, _are_kept: bool) {}

    fn has_changes(&self) -> bool {
        false
    }

    fn take_changes(&self, _now: Duration, _count: usize, _take: &mut dyn FnMut(&CounterRecord)) {}

    fn merge(&self, _record: &CounterRecord, _now: Duration) {}
}
