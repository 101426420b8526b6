//! What one node tells the other of ejections and open breakers, of servers and of pools, as a hint with its age: a node that takes over starts with
//! what was found out before, and with nothing that is older than it would be here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::info;

use super::{Named, milliseconds};
use crate::health::breaker::{self, Position};
use crate::proxy::outcomes::Circuit;
use crate::proxy::server::Server;
use crate::proxy::state::{Pool, Site};
use crate::proxy::thread::Place;
use crate::session::facts::FactKey;

/// A node that has had requests of its own to a server in this time knows better.
const EXPERIENCE: Duration = Duration::from_secs(10);

/// The name of a server that none has: what is said of it is about the pool as a whole.
const WHOLE_POOL: &str = "";

/// What is known of a server or of a pool, as it is sent: `at=1700000000000 ejected=5000,2 open=1000`, or
/// `half_open=1`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Hint {
    /// When it was written, in milliseconds since 1970.
    at_ms: u64,
    /// Milliseconds that the ejection had left then, and how many ejections make the next one longer.
    ejected: Option<(u64, u32)>,
    /// Where the breaker stood then; `None` where it was closed.
    broken: Option<ToldBreaker>,
}

/// A breaker that does not let all requests pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToldBreaker {
    /// Milliseconds that it was to stay open then.
    Open(u64),
    HalfOpen,
}

impl ToldBreaker {
    fn of(circuit: &Circuit, now: Instant) -> Option<Self> {
        let broken = circuit.broken();
        match (broken.breaker.position(), broken.breaker.until()) {
            (Position::Open, until) => Some(Self::Open(until.map_or(0, |until| left_ms(until, now)))),
            (Position::HalfOpen, _) => Some(Self::HalfOpen),
            (Position::Closed, _) => None,
        }
    }
}

impl Hint {
    fn write(&self) -> String {
        let mut text = format!("at={}", self.at_ms);
        if let Some((left_ms, ejections)) = self.ejected {
            text.push_str(&format!(" ejected={left_ms},{ejections}"));
        }
        match self.broken {
            Some(ToldBreaker::Open(left_ms)) => text.push_str(&format!(" open={left_ms}")),
            Some(ToldBreaker::HalfOpen) => text.push_str(" half_open=1"),
            None => {}
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
                "open" => hint.broken = Some(ToldBreaker::Open(value.parse().ok()?)),
                "half_open" => hint.broken = Some(ToldBreaker::HalfOpen),
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

fn left_ms(until: Instant, now: Instant) -> u64 {
    milliseconds(until.saturating_duration_since(now))
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
        let standing = server.ejection.judged().standing.clone();
        let ejected = standing.until().map(|until| (left_ms(until, now), standing.ejections()));
        let hint = Hint { at_ms: now_ms(), ejected, broken: ToldBreaker::of(&server.circuit, now) };
        self.publish(pool, pool.server_name(place.server), &hint);
    }

    /// Lets the other node know how the breaker of a pool stands here.
    pub(super) fn publish_breaker(&self, pool: &Pool) {
        let broken = ToldBreaker::of(&pool.circuit.circuit, Instant::now());
        self.publish(pool, WHOLE_POOL, &Hint { at_ms: now_ms(), ejected: None, broken });
    }

    fn publish(&self, pool: &Pool, server: &str, hint: &Hint) {
        let (node, pool) = (self.node.clone(), pool.config.name.clone());
        let key = FactKey::Outcomes { node, pool, server: server.to_owned() };
        // Where there is no room for it, a node that takes over finds out by itself.
        let _is_told = self.sessions.tell(key, hint.write().into_bytes());
    }

    /// Takes what a node has found out: the other one, or an earlier worker of this one. Whoever has had requests of its
    /// own lately knows better.
    pub fn take_outcomes(&self, pool: &str, server: &str, value: &[u8]) {
        let Some(hint) = Hint::read(value) else { return };
        let Some(pool) = self.pools.iter().find(|known| known.config.name == pool) else { return };
        if server == WHOLE_POOL {
            return pool.break_as_told(&hint);
        }
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
        if let Some(terms) = &pool.config.passive.server_breaker {
            let name = Named { pool: &pool.config.name, server: pool.server_name(index) };
            found.circuit.follow_told(&hint, terms, &name, now);
        }
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

    fn break_as_told(&self, hint: &Hint) {
        let Some(breaker) = &self.config.passive.breaker else { return };
        let now = Instant::now();
        if self.circuit.outcomes.last(now, EXPERIENCE).requests == 0 {
            let name = Named { pool: &self.config.name, server: WHOLE_POOL };
            self.circuit.circuit.follow_told(hint, &breaker.terms, &name, now);
        }
    }
}

impl Circuit {
    /// Opens as the other node's has. What was opened so closes when that one's has closed, as no request comes here on
    /// which it could be tried.
    fn follow_told(&self, hint: &Hint, terms: &breaker::Settings, name: &Named<'_>, now: Instant) {
        let mut broken = self.broken();
        let now_ms = now_ms();
        let changed = match hint.broken {
            Some(ToldBreaker::Open(left_ms)) => {
                let left = hint.left(left_ms, now_ms);
                left.is_some_and(|left| broken.breaker.open_as_told(now, terms, left)).then_some(Position::Open)
            }
            // This one gets there when its time is over.
            Some(ToldBreaker::HalfOpen) => None,
            None => (broken.is_told && broken.breaker.close()).then_some(Position::Closed),
        };
        if changed == Some(Position::Open) {
            let age_ms = now_ms.saturating_sub(hint.at_ms);
            broken.reason = format!("opened by the other node, as it said {age_ms} ms after the fact");
            broken.is_told = true;
        }
        self.changed(&broken, changed, terms, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_read_as_it_was_written() {
        let hint = Hint { at_ms: 1_700_000_000_000, ejected: Some((5_000, 2)), broken: Some(ToldBreaker::Open(1_000)) };
        assert_eq!(hint.write(), "at=1700000000000 ejected=5000,2 open=1000");
        assert_eq!(Hint::read(hint.write().as_bytes()), Some(hint));
        let none = Hint { at_ms: 7, ejected: None, broken: None };
        assert_eq!(Hint::read(b"at=7"), Some(none));
        assert_eq!(Hint::read(b"at=7 later=x y"), Some(none));
        let trying = Hint { broken: Some(ToldBreaker::HalfOpen), ..none };
        assert_eq!(trying.write(), "at=7 half_open=1");
        assert_eq!(Hint::read(b"at=7 half_open=1"), Some(trying));
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
