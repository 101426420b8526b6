//! Keeps the keys of TLS session tickets young, and the same on both nodes.
//!
//! Keys are made by a node that has become active, or that has no other node; a standby gets them. They travel as a fact
//! ([`FactKey::TicketKeys`]) over the sync link and are written nowhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::proxy::sessions::Sessions;
use crate::proxy::tickets::{Adopted, Tickets};
use crate::session::facts::FactKey;

/// Time between two looks at the age of the keys.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// The keys of this worker, and the way to those of the other node.
pub struct TicketKeeper {
    tickets: Arc<Tickets>,
    sessions: Arc<Sessions>,
    makes_keys: AtomicBool,
}

impl TicketKeeper {
    /// `makes_keys`: there is nobody to wait for, so they are made at once.
    pub fn new(tickets: Arc<Tickets>, sessions: Arc<Sessions>, makes_keys: bool) -> Self {
        let keeper = Self { tickets, sessions, makes_keys: AtomicBool::new(makes_keys) };
        keeper.turn();
        keeper
    }

    /// Makes the next key when it is due. To be called every [`INTERVAL`].
    pub fn turn(&self) {
        if self.tickets.rotate_if_due(since_1970(), self.makes_keys.load(Ordering::Relaxed)) {
            self.tell();
        }
    }

    /// This node has become active: it makes the keys from now on, and at once when the other node has sent none. When
    /// the other node takes over it goes on to, which does no harm: whoever is first has the newest key, and then none is
    /// due.
    pub fn took_over(&self) {
        self.makes_keys.store(true, Ordering::Relaxed);
        self.turn();
    }

    /// The other node has sent these [`FactKey::TicketKeys`]. Does not block.
    pub fn received(&self, keys: &[u8]) {
        match self.tickets.adopt(keys, since_1970()) {
            Ok(Adopted::Ahead) => self.tell(),
            Ok(Adopted::Same) => {}
            Err(error) => {
                warn!(%error, "the keys of TLS session tickets that the peer sent are refused: clients make full handshakes after a failover");
            }
        }
    }

    fn tell(&self) {
        // There is room: it is one fact of all, below the longest.
        let _told = self.sessions.tell(FactKey::TicketKeys, self.tickets.export());
    }
}

/// The time by this machine's clock.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::session::version::{Node, Version};

    struct Side {
        tickets: Arc<Tickets>,
        sessions: Arc<Sessions>,
        keeper: TicketKeeper,
    }

    impl Side {
        fn new(node: Node, makes_keys: bool) -> Self {
            let text = "[[listener]]\nname = \"x\"\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n\
                        [[pool]]\nname = \"p\"\nservers = [{ name = \"s\", address = \"127.0.0.1:2\" }]\n";
            let config = config::parse(text, Path::new("baton.toml")).unwrap();
            let sessions = Arc::new(Sessions::new(&config, node, b"key"));
            let tickets = Arc::new(Tickets::default());
            let keeper = TicketKeeper::new(Arc::clone(&tickets), Arc::clone(&sessions), makes_keys);
            Self { tickets, sessions, keeper }
        }

        /// What the sync link does: facts go over, and those that are news are shown.
        fn send_to(&self, other: &Self) {
            let mut changes = Vec::<(FactKey, Version, Vec<u8>)>::new();
            while let Some((key, version, value)) = self.sessions.facts().take_change() {
                changes.push((key, version, value.to_vec()));
            }
            for (key, version, value) in changes {
                other.sessions.table.saw(version);
                let is_news = other.sessions.facts().merge(&key, version, &value);
                if is_news {
                    other.keeper.received(&value);
                }
            }
        }
    }

    fn pair() -> (Side, Side) {
        (Side::new(Node::First, false), Side::new(Node::Second, false))
    }

    fn has_keys(side: &Side) -> bool {
        !side.tickets.export().is_empty()
    }

    #[test]
    fn a_node_by_itself_makes_keys_at_once_and_one_of_a_pair_when_it_takes_over() {
        assert!(has_keys(&Side::new(Node::Only, true)));
        let (one, other) = pair();
        one.keeper.turn();
        assert!(!has_keys(&one));
        one.keeper.took_over();
        assert!(has_keys(&one));
        one.send_to(&other);
        assert_eq!(other.tickets.export(), one.tickets.export());
        // It has keys, so there is none to make.
        let before = other.tickets.export();
        other.keeper.took_over();
        assert_eq!(other.tickets.export(), before);
    }

    #[test]
    fn nodes_that_were_both_active_end_up_with_the_keys_of_both() {
        for begins in [0, 1] {
            let sides = pair();
            sides.0.keeper.took_over();
            sides.1.keeper.took_over();
            sides.1.sessions.table.take_over();
            let (first, second) = if begins == 0 { (&sides.0, &sides.1) } else { (&sides.1, &sides.0) };
            for _ in 0..3 {
                first.sessions.facts().change_all();
                first.send_to(second);
                second.sessions.facts().change_all();
                second.send_to(first);
            }
            assert_eq!(first.tickets.export(), second.tickets.export());
            assert_eq!(first.tickets.export().len(), 1 + 2 * 64);
            assert!(!first.sessions.facts().has_changes() && !second.sessions.facts().has_changes());
        }
    }

    #[test]
    fn keys_that_cannot_be_read_leave_those_that_are_there() {
        let (one, other) = pair();
        other.keeper.took_over();
        let before = other.tickets.export();
        one.sessions.tell(FactKey::TicketKeys, b"\x09what a later release writes".to_vec());
        one.sessions.facts().change_all();
        other.sessions.table.saw(one.sessions.table.latest());
        one.send_to(&other);
        assert_eq!(other.tickets.export(), before);
    }
}
