//! Whether the peer sees more of a VIP's servers than this node does.
//!
//! A node that reaches no server of a pool is not broken: the servers may be down for both. It hands a VIP over only when
//! the peer says that it sees more **pools** with at least one server up, and has said so for [`HOLD`]: a server that
//! goes down is found by the two nodes at different times. The number of servers within a pool moves nothing, since one
//! server that answers serves everybody; it is told for people to see.

use std::time::{Duration, Instant};

/// Time that the peer has to see more before the VIP moves.
pub const HOLD: Duration = Duration::from_secs(3);

/// Time after which a hand-over that did not come about is asked for again.
pub const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What a node sees of a VIP's servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Pools that the VIP's listeners use and that have at least one server up.
    pub pools_up: u16,
    /// Servers of those listeners' pools that are up.
    pub servers_up: u16,
}

/// The two sides for one VIP.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    is_active: bool,
    peer: Option<Seen>,
    /// When to say so, while the peer sees more of a VIP that is held here.
    due: Option<Instant>,
}

impl Comparison {
    /// Takes this node's role. Only an active node has something to hand over.
    pub fn set_active(&mut self, is_active: bool) {
        self.is_active = is_active;
    }

    /// Takes what the peer sees.
    pub fn set_peer(&mut self, seen: Option<Seen>) {
        self.peer = seen;
    }

    /// When to judge again.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Compares with what this node sees, `None` while it does not know. In words, why the VIP should be handed over now.
    pub fn judge(&mut self, now: Instant, own: Option<Seen>) -> Option<String> {
        let (true, Some(own), Some(peer)) = (self.is_active, own, self.peer) else {
            self.due = None;
            return None;
        };
        if own.pools_up >= peer.pools_up {
            self.due = None;
            return None;
        }
        let due = *self.due.get_or_insert(now + HOLD);
        if now < due {
            return None;
        }
        self.due = Some(now + AGAIN_AFTER);
        Some(format!(
            "the peer reaches servers of {} pools ({} servers), this node of {} ({} servers)",
            peer.pools_up, peer.servers_up, own.pools_up, own.servers_up
        ))
    }
}
