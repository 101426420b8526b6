//! What one node tells the other of ejections and open breakers, as a hint with its age: a node that takes over starts with
//! what was found out before, and with nothing that is older than it would be here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::info;

use super::{Named, milliseconds};
use crate::health::breaker::Position;
use crate::proxy::server::Server;
use crate::proxy::state::{Pool, Site};
use crate::proxy::thread::Place;
use crate::session::facts::FactKey;

/// A node that has had requests of its own to a server in this time knows better.
const EXPERIENCE: Duration = Duration::from_secs(10);

/// What is known of a server, as it is sent: `at=1700000000000 ejected=5000,2 open=1000`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Hint {
    /// When it was written, in milliseconds since 1970.
    at_ms: u64,
    /// Milliseconds that the ejection had left then, and how many ejections make the next one longer.
    ejected: Option<(u64, u32)>,
    /// Milliseconds that the breaker was to stay open then.
    open_ms: Option<u64>,
}

impl Hint {
    fn write(&self) -> String {
        let mut text = format!("at={}", self.at_ms);
        if let Some((left_ms, ejections)) = self.ejected {
            text.push_str(&format!(" ejected={left_ms},{ejections}"));
        }
        if let Some(left_ms) = self.open_ms {
            text.push_str(&format!(" open={left_ms}"));
        }
        text
    }

    /// Passes over words that a later release may add.
    fn read(value: &[u8]) -> Option<Self> {
        let mut hint = Self::default();
        let mut has_time = false;
        for (word, value) in std::str::from_utf8(value).ok()?.split(' ').filter_map(|pair| pair.split_once('=')) {
            match word {
                "at" => {
                    hint.at_ms = value.parse().ok()?;
                    has_time = true;
                }
                "ejected" => {
                    let (left_ms, ejections) = value.split_once(',')?;
                    hint.ejected = Some((left_ms.parse().ok()?, ejections.parse().ok()?));
                }
                "open" => hint.open_ms = Some(value.parse().ok()?),
                _ => {}
            }
        }
        has_time.then_some(hint)
    }

    /// What is left of a time by now. Clocks that differ make it longer by no more than it was.
    fn left(&self, left_ms: u64, now_ms: u64) -> Option<Duration> {
        let age_ms = now_ms.saturating_sub(self.at_ms);
        Some(Duration::from_millis(left_ms.checked_sub(age_ms)?)).filter(|left| !left.is_zero())
    }
}

fn now_ms() -> u64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl Site {
    /// Lets the other node know what came of requests to a server here.
    pub(super) fn publish_outcomes(&self, place: Place) {
        let Some(pool) = self.pool(place.pool) else { return };
        let Some(server) = pool.servers.get(place.server) else { return };
        let now = Instant::now();
        let left_ms = |until: Instant| milliseconds(until.saturating_duration_since(now));
        let standing = server.ejection.judged().standing.clone();
        let hint = Hint {
            at_ms: now_ms(),
            ejected: standing.until().map(|until| (left_ms(until), standing.ejections())),
            open_ms: server.circuit.broken().breaker.until().map(left_ms),
        };
        let key = FactKey::Outcomes {
            node: self.node.clone(),
            pool: pool.config.name.clone(),
            server: pool.server_name(place.server).to_owned(),
        };
        // Where there is no room for it, a node that takes over finds out by itself.
        let _is_told = self.sessions.tell(key, hint.write().into_bytes());
    }

    /// Takes what a node has found out: the other one, or an earlier worker of this one. Whoever has had requests of its
    /// own lately knows better.
    pub fn take_outcomes(&self, pool: &str, server: &str, value: &[u8]) {
        let Some(hint) = Hint::read(value) else { return };
        let Some(pool) = self.pools.iter().find(|known| known.config.name == pool) else { return };
        let Some(index) = pool.config.servers.iter().position(|known| known.name == server) else { return };
        let Some(found) = pool.servers.get(index) else { return };
        let now = Instant::now();
        if found.outcomes.last(now, EXPERIENCE).requests > 0 {
            return;
        }
        let now_ms = now_ms();
        let ejected = hint.ejected.and_then(|(left_ms, ejections)| Some((hint.left(left_ms, now_ms)?, ejections)));
        let age_ms = now_ms.saturating_sub(hint.at_ms);
        pool.eject_as_told(index, found, ejected, age_ms, now);
        let open = hint.open_ms.and_then(|left_ms| hint.left(left_ms, now_ms));
        pool.open_as_told(index, found, open, age_ms, now);
        found.trust_changed(found.is_trusted());
    }
}

impl Pool {
    fn eject_as_told(
        &self,
        index: usize,
        server: &Server,
        ejected: Option<(Duration, u32)>,
        age_ms: u64,
        now: Instant,
    ) {
        let outliers = &self.config.passive.outliers;
        let may_be = outliers.is_on()
            && (server.ejection.is_out() || self.census(index).may_eject(outliers.ejected_percent_max));
        let mut judged = server.ejection.judged();
        match ejected {
            Some((left, ejections)) if may_be => {
                judged.standing.eject_as_told(now, outliers, left, ejections);
                judged.is_told = true;
                judged.reason = format!("ejected by the other node, as it said {age_ms} ms after the fact");
                let (pool, server) = (&self.config.name, self.server_name(index));
                info!(pool, server, left_ms = milliseconds(left), age_ms, "the ejection of a server was learned");
            }
            Some(_) => {}
            // What it has not ejected itself.
            None if judged.is_told => _ = judged.standing.pardon(now),
            None => {}
        }
        server.ejection.follow(&judged);
    }

    fn open_as_told(&self, index: usize, server: &Server, open: Option<Duration>, age_ms: u64, now: Instant) {
        let (Some(left), Some(terms)) = (open, &self.config.passive.server_breaker) else { return };
        let mut broken = server.circuit.broken();
        if broken.breaker.open_as_told(now, terms, left) {
            broken.reason = format!("opened by the other node, as it said {age_ms} ms after the fact");
            let name = Named { pool: &self.config.name, server: self.server_name(index) };
            server.circuit.changed(&broken, Some(Position::Open), terms, &name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_read_as_it_was_written() {
        let hint = Hint { at_ms: 1_700_000_000_000, ejected: Some((5_000, 2)), open_ms: Some(1_000) };
        assert_eq!(hint.write(), "at=1700000000000 ejected=5000,2 open=1000");
        assert_eq!(Hint::read(hint.write().as_bytes()), Some(hint));
        let none = Hint { at_ms: 7, ejected: None, open_ms: None };
        assert_eq!(Hint::read(b"at=7"), Some(none));
        assert_eq!(Hint::read(b"at=7 later=x y"), Some(none));
    }

    #[test]
    fn what_is_no_hint_says_nothing() {
        for bad in
            [&b""[..], b"up", b"ejected=1,2", b"at=x", b"at=1 ejected=5", b"at=1 ejected=,", b"at=1 open=-1", b"\xff"]
        {
            assert_eq!(Hint::read(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_hint_ages_and_a_clock_that_is_ahead_does_not_make_it_younger() {
        let hint = Hint { at_ms: 10_000, ..Hint::default() };
        assert_eq!(hint.left(5_000, 10_000), Some(Duration::from_secs(5)));
        assert_eq!(hint.left(5_000, 14_999), Some(Duration::from_millis(1)));
        assert_eq!(hint.left(5_000, 15_000), None);
        assert_eq!(hint.left(5_000, 90_000), None);
        assert_eq!(hint.left(5_000, 0), Some(Duration::from_secs(5)));
    }
}
