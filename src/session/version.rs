//! Which of two writes of one entry is the newer one, without asking anybody's clock.
//!
//! A version is an epoch, a counter and the node that wrote. A node that takes over begins a new epoch, so that what the
//! former active node wrote and could not send any more loses, however much that was. Within an epoch the counter is a
//! Lamport clock: whoever has seen a version writes a higher one. The node's bit decides between writes of which neither
//! knew of the other, the same way on both nodes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of the counter and, below it, of the node.
const COUNTER_BITS: u32 = 47;
const NODE_BITS: u32 = 1;
const EPOCH_SHIFT: u32 = COUNTER_BITS + NODE_BITS;

/// A node of the pair, as the writer of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// There is no other: nothing has to be kept for one.
    Only,
    /// The first of the configuration.
    First,
    /// The second.
    Second,
}

impl Node {
    const fn bit(self) -> u64 {
        match self {
            Node::Only | Node::First => 0,
            Node::Second => 1,
        }
    }
}

/// The version of an entry; a higher one is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(u64);

impl Version {
    /// The highest that is believed: from it, this node's clock can still go on for longer than a machine lives.
    pub const MAX: Self = Self(u64::MAX - (1 << EPOCH_SHIFT));

    /// `None` above [`Version::MAX`].
    pub const fn new(bits: u64) -> Option<Self> {
        if bits <= Self::MAX.0 { Some(Self(bits)) } else { None }
    }

    /// As it is stored and sent.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Takeovers before it was written.
    pub const fn epoch(self) -> u64 {
        self.0 >> EPOCH_SHIFT
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counter = (self.0 & ((1 << EPOCH_SHIFT) - 1)) >> NODE_BITS;
        write!(f, "{}.{counter}.{}", self.epoch(), self.0 & 1)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Gives each write of this node its version. Shared by all threads.
#[derive(Debug)]
pub struct WriterClock {
    latest: AtomicU64,
    node: Node,
}

impl WriterClock {
    /// A clock that has seen nothing yet.
    pub fn new(node: Node) -> Self {
        Self { latest: AtomicU64::new(node.bit()), node }
    }

    /// The version of a write; higher than all that were made or seen.
    pub fn next(&self) -> Version {
        let step = 1 << NODE_BITS;
        Version(self.latest.fetch_add(step, Ordering::Relaxed).wrapping_add(step))
    }

    /// Takes note of a version that the other node made.
    pub fn seen(&self, version: Version) {
        // One of this node's own of the same counter: `next` is above both.
        let own = (version.0 & !1) | self.node.bit();
        self.latest.fetch_max(own, Ordering::Relaxed);
    }

    /// The highest made or seen, but for the node.
    pub fn latest(&self) -> Version {
        Version(self.latest.load(Ordering::Relaxed))
    }

    /// Begins a new epoch: this node has become active. At the last epoch it stays there, and the counter decides alone.
    pub fn begin_epoch(&self) {
        let next = |latest: u64| {
            let epoch = (latest >> EPOCH_SHIFT) + 1;
            (epoch <= Version::MAX.epoch()).then_some(epoch << EPOCH_SHIFT | self.node.bit())
        };
        // Refused only at the last epoch.
        let _unchanged = self.latest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_newer_than_all_that_its_writer_made_or_saw() {
        let (first, second) = (WriterClock::new(Node::First), WriterClock::new(Node::Second));
        let one = first.next();
        let two = first.next();
        assert!(one < two);
        assert_eq!((one.get(), two.get()), (2, 4));
        second.seen(two);
        let three = second.next();
        assert!(three > two);
        assert_eq!(three.get(), 7);
        first.seen(three);
        assert_eq!(first.next().get(), 8);
        first.seen(one);
        assert_eq!(first.next().get(), 10);
    }

    #[test]
    fn writes_that_know_nothing_of_each_other_are_ordered_by_node() {
        let (first, second) = (WriterClock::new(Node::First), WriterClock::new(Node::Second));
        assert!(first.next() < second.next());
    }

    #[test]
    fn a_new_epoch_is_above_whatever_was_written_before() {
        let (old, new) = (WriterClock::new(Node::First), WriterClock::new(Node::Second));
        new.seen(old.next());
        for _ in 0..1_000 {
            old.next();
        }
        new.begin_epoch();
        assert!(new.next() > old.next());
        assert_eq!(new.latest().epoch(), 1);
        assert_eq!(new.latest().to_string(), "1.1.1");
    }

    #[test]
    fn the_last_epoch_is_stayed_in_and_versions_above_the_highest_are_not_believed() {
        let clock = WriterClock::new(Node::First);
        clock.seen(Version::MAX);
        clock.begin_epoch();
        assert_eq!(clock.latest().epoch(), 65_534);
        assert!(clock.next() > Version::MAX);
        assert_eq!(Version::new(u64::MAX), None);
        assert_eq!(Version::new(Version::MAX.get() + 1), None);
    }
}
