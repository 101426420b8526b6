//! What follows from the outcomes of clients' requests: servers are ejected and come back, breakers open and close.
//!
//! The threads note outcomes ([`Site::came_of`]); what fails in a row is acted on at once, by the thread that sees it.
//! Shares and times are looked at by the worker's own thread ([`Site::turn_outcomes`]), which also ends ejections.

mod hints;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::outcomes::{Broken, Circuit, Outcome, Outcomes, Row};
use super::server::Server;
use super::state::{Pool, Site};
use super::thread::Place;
use crate::config::PoolIndex;
use crate::health::breaker::{self, Position};
use crate::health::outliers::{self, Census};
use crate::status::{BreakerStatus, EjectionStatus};

/// Time between two looks at shares and times, and the most that an ejection or an open breaker outlasts its time.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// The breaker of a pool, and what it counts. Outlives a change of the configuration.
#[derive(Debug, Default)]
pub struct PoolCircuit {
    outcomes: Outcomes,
    circuit: Circuit,
    in_flight: AtomicU32,
    pending: AtomicU32,
    retries: AtomicU32,
    refused: [AtomicU64; Stopped::ALL.len()],
    /// Taken while a server is ejected, so that two at once do not leave the pool with too few.
    deciding: Mutex<()>,
}

/// Why a request does not pass a pool's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It is open, or as many are on trial as may be.
    Open,
    /// As many are under way as may be.
    InFlight,
    /// As many wait for a connection as may be.
    Pending,
    /// As many are tried again as may be. It is answered with what it has by then.
    Retries,
}

impl Stopped {
    const ALL: [Self; 4] = [Self::Open, Self::InFlight, Self::Pending, Self::Retries];

    /// The word of the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::InFlight => "in_flight",
            Self::Pending => "pending",
            Self::Retries => "retries",
        }
    }
}

/// A request that a pool's breaker has let pass; it is under way until this is dropped.
pub struct Passage {
    of: Arc<PoolCircuit>,
    is_trial: bool,
}

impl Passage {
    /// What it is to prove is known, though it is under way for longer.
    pub fn tried(&mut self) {
        if std::mem::take(&mut self.is_trial) {
            self.of.circuit.leave();
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.tried();
        self.of.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among those that are limited, until it is dropped.
pub struct Held {
    of: Arc<PoolCircuit>,
    what: Stopped,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.count(self.what).fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request on trial at a server with a breaker, or at one without; leaves when it is dropped.
pub struct Trial<'a>(Option<&'a Circuit>);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Some(circuit) = self.0 {
            circuit.leave();
        }
    }
}

impl PoolCircuit {
    fn count(&self, what: Stopped) -> &AtomicU32 {
        match what {
            Stopped::Pending => &self.pending,
            Stopped::Retries => &self.retries,
            Stopped::Open | Stopped::InFlight => &self.in_flight,
        }
    }

    /// Takes one of `max` places. False when all are taken, which is counted.
    fn take(&self, what: Stopped, max: Option<u32>) -> bool {
        // Counted first, so that no two take the last place both.
        let before = self.count(what).fetch_add(1, Ordering::Relaxed);
        let has_room = max.is_none_or(|max| before < max);
        if !has_room {
            self.count(what).fetch_sub(1, Ordering::Relaxed);
            self.stopped(what);
        }
        has_room
    }

    fn stopped(&self, why: Stopped) {
        if let Some(count) = self.refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Server {
    /// Takes a place for a request: `None` when its breaker lets none pass.
    pub fn begin(&self) -> Option<Trial<'_>> {
        self.circuit.enter().map(|is_trial| Trial(is_trial.then_some(&self.circuit)))
    }
}

impl Pool {
    /// Lets a request pass the pool's breaker. `Ok(None)` where there is none.
    ///
    /// # Errors
    /// Why it does not pass.
    pub fn admit(&self) -> Result<Option<Passage>, Stopped> {
        let Some(breaker) = &self.config.passive.breaker else { return Ok(None) };
        let Some(is_trial) = self.circuit.circuit.enter() else {
            self.circuit.stopped(Stopped::Open);
            return Err(Stopped::Open);
        };
        if !self.circuit.take(Stopped::InFlight, breaker.in_flight_max) {
            if is_trial {
                self.circuit.circuit.leave();
            }
            return Err(Stopped::InFlight);
        }
        Ok(Some(Passage { of: Arc::clone(&self.circuit), is_trial }))
    }

    /// A connection is going to be made for a request. `Ok(None)` where nobody limits that.
    ///
    /// # Errors
    /// As many wait for one as may.
    pub fn begin_pending(&self) -> Result<Option<Held>, Stopped> {
        let max = self.config.passive.breaker.as_ref().and_then(|breaker| breaker.pending_max);
        self.hold(Stopped::Pending, max)
    }

    /// A request is going to be tried again. `Ok(None)` where nobody limits that.
    ///
    /// # Errors
    /// As many are as may be.
    pub fn begin_retry(&self) -> Result<Option<Held>, Stopped> {
        let max = self.config.passive.breaker.as_ref().and_then(|breaker| breaker.retries_max);
        self.hold(Stopped::Retries, max)
    }

    fn hold(&self, what: Stopped, max: Option<u32>) -> Result<Option<Held>, Stopped> {
        if max.is_none() {
            return Ok(None);
        }
        let of = || Arc::clone(&self.circuit);
        if self.circuit.take(what, max) { Ok(Some(Held { of: of(), what })) } else { Err(what) }
    }

    /// The outcome of a response with this status.
    pub fn outcome(&self, status: u16) -> Outcome {
        if self.config.passive.is_error(status) { Outcome::Error } else { Outcome::Good }
    }

    /// When there may be a server again, of those that are up: the soonest end of an ejection or an open breaker.
    pub fn trusted_again(&self, now: Instant) -> Option<Duration> {
        let ends = self.servers.iter().filter(|server| server.is_up() && !server.is_trusted()).map(|server| {
            let ejected = server.ejection.judged().standing.until();
            let open = server.circuit.broken().breaker.until();
            ejected.into_iter().chain(open).max().map_or(INTERVAL, |until| until.saturating_duration_since(now))
        });
        ends.min()
    }

    /// When the pool's breaker lets requests pass again, and its state, what that means and why, in words.
    pub fn passes_again(&self, now: Instant) -> (Duration, String) {
        let broken = self.circuit.circuit.broken();
        let left = broken.breaker.until().map_or(INTERVAL, |until| until.saturating_duration_since(now));
        (left, format!("{} ({})", broken.breaker.position().meaning(), broken.reason))
    }

    fn census(&self, index: usize) -> Census {
        let serving = self.servers.iter().enumerate().filter(|(other, server)| *other != index && server.takes_new());
        Census {
            servers: self.servers.len(),
            ejected: self.servers.iter().filter(|server| server.ejection.is_out()).count(),
            others_serving: serving.count(),
        }
    }

    /// The state of a server's ejection; `None` while it is not ejected.
    pub fn ejection_status(&self, server: &Server, now: Instant) -> Option<EjectionStatus> {
        let judged = server.ejection.judged();
        let left = judged.standing.until()?.saturating_duration_since(now);
        Some(EjectionStatus {
            reason: judged.reason.clone(),
            left_ms: milliseconds(left),
            in_a_row: judged.standing.ejections(),
        })
    }

    /// The state of the pool's breaker, where it has one.
    pub fn breaker_status(&self, now: Instant) -> Option<BreakerStatus> {
        self.config.passive.breaker.as_ref()?;
        let refused = Stopped::ALL.iter().zip(&self.circuit.refused);
        let refused = refused.map(|(why, count)| (why.as_str().to_owned(), count.load(Ordering::Relaxed))).collect();
        Some(BreakerStatus { refused, ..breaker_status(&self.circuit.circuit, now) })
    }

    /// The state of a server's breaker, where the pool has its servers have any.
    pub fn server_breaker_status(&self, server: &Server, now: Instant) -> Option<BreakerStatus> {
        self.config.passive.server_breaker.as_ref()?;
        Some(breaker_status(&server.circuit, now))
    }
}

fn breaker_status(circuit: &Circuit, now: Instant) -> BreakerStatus {
    let broken = circuit.broken();
    let position = broken.breaker.position();
    BreakerStatus {
        state: position.as_str().to_owned(),
        meaning: position.meaning().to_owned(),
        reason: if position == Position::Closed { String::new() } else { broken.reason.clone() },
        left_ms: broken.breaker.until().map(|until| milliseconds(until.saturating_duration_since(now))),
        opened: circuit.opened(),
        refused: Default::default(),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whose breaker it is, for the log; `server` is empty for that of a whole pool.
struct Named<'a> {
    pool: &'a str,
    server: &'a str,
}

impl Circuit {
    /// A request on trial is over. Whether it has opened or closed for that.
    fn tried(&self, outcome: Outcome, terms: &breaker::Settings, name: &Named<'_>) -> bool {
        let mut broken = self.broken();
        let went_well = outcome == Outcome::Good;
        let changed = broken.breaker.tried(went_well, Instant::now(), terms, fastrand::f64());
        if changed == Some(Position::Open) {
            broken.reason = "a request on trial went wrong".to_owned();
            broken.is_told = false;
        }
        self.changed(&broken, changed, terms, name)
    }

    /// More requests in a row have gone wrong. Whether it has opened for that.
    fn row_grew(&self, row: Row, outcomes: &Outcomes, terms: &breaker::Settings, name: &Named<'_>) -> bool {
        // One look at a row of that length: the lock is for rare events.
        if terms.consecutive_errors == 0 || !row.errors.is_multiple_of(terms.consecutive_errors) {
            return false;
        }
        let mut broken = self.broken();
        let has_opened = broken.breaker.failed_in_a_row(row.errors, Instant::now(), terms, fastrand::f64());
        if has_opened {
            broken.reason = format!("{} requests in a row failed", row.errors);
            broken.is_told = false;
            outcomes.clear();
        }
        self.changed(&broken, has_opened.then_some(Position::Open), terms, name)
    }

    fn turn(&self, outcomes: &Outcomes, now: Instant, terms: &breaker::Settings, name: &Named<'_>) -> bool {
        let tally = outcomes.last(now, terms.window);
        let mut broken = self.broken();
        let changed = broken.breaker.turn(now, &tally, terms, fastrand::f64());
        if changed == Some(Position::Open) {
            let seconds = terms.window.as_secs();
            broken.reason = format!("{} of {} requests failed within {seconds} s", tally.bad(), tally.requests);
            broken.is_told = false;
            outcomes.clear();
        }
        self.changed(&broken, changed, terms, name)
    }

    /// Has a new position hold, and says so.
    fn changed(
        &self,
        broken: &Broken,
        position: Option<Position>,
        terms: &breaker::Settings,
        name: &Named<'_>,
    ) -> bool {
        let Some(position) = position else { return false };
        self.follow(broken, terms.trials);
        let (state, reason, Named { pool, server }) = (position.meaning(), &broken.reason, name);
        match position {
            Position::Open => warn!(pool, server, state, reason, "a circuit breaker opened"),
            Position::HalfOpen => info!(pool, server, state, "a circuit breaker lets requests through on trial"),
            Position::Closed => info!(pool, server, state, "a circuit breaker closed"),
        }
        true
    }
}

impl Site {
    /// Notes what came of a request to a server; `time` to the response's head, where it was taken. Acts on what went wrong
    /// in a row.
    pub fn came_of(&self, place: Place, thread: usize, outcome: Outcome, time: Option<Duration>) {
        let Some(pool) = self.pool(place.pool) else { return };
        let Some(server) = pool.servers.get(place.server) else { return };
        let passive = &pool.config.passive;
        if !passive.follows_servers() {
            return;
        }
        server.outcomes.count(thread, outcome, time);
        let row = server.outcomes.follow(outcome);
        let Some(terms) = &passive.server_breaker else {
            if outcome != Outcome::Good {
                self.row_grew(place, row);
            }
            return;
        };
        let name = Named { pool: &pool.config.name, server: pool.server_name(place.server) };
        let has_changed = match (server.circuit.position(), outcome) {
            (Position::HalfOpen, _) => server.circuit.tried(outcome, terms, &name),
            (_, Outcome::Good) => false,
            (_, Outcome::Error | Outcome::Failure) => {
                self.row_grew(place, row);
                server.circuit.row_grew(row, &server.outcomes, terms, &name)
            }
        };
        if has_changed {
            server.trust_changed(server.is_trusted());
            self.publish_outcomes(place);
        }
    }

    /// Notes how a request to a pool came out, all tries together.
    pub fn settled(&self, index: PoolIndex, thread: usize, outcome: Outcome) {
        let Some(pool) = self.pool(index) else { return };
        let Some(breaker) = &pool.config.passive.breaker else { return };
        let PoolCircuit { outcomes, circuit, .. } = &*pool.circuit;
        outcomes.count(thread, outcome, None);
        let row = outcomes.follow(outcome);
        let name = Named { pool: &pool.config.name, server: "" };
        let has_changed = match (circuit.position(), outcome) {
            (Position::HalfOpen, _) => circuit.tried(outcome, &breaker.terms, &name),
            (_, Outcome::Good) => false,
            (_, Outcome::Error | Outcome::Failure) => circuit.row_grew(row, outcomes, &breaker.terms, &name),
        };
        if has_changed {
            self.publish_breaker(pool);
        }
    }

    /// A connection to a server of `protocol = "tcp"` was made, of which nothing more is known yet.
    pub fn connected(&self, place: Place) {
        let server = self.pool(place.pool).and_then(|pool| pool.servers.get(place.server));
        server.inspect(|server| server.outcomes.connected());
    }

    /// Whether somebody wants to know how long a server took.
    pub fn times_servers(&self, pool: PoolIndex) -> bool {
        self.pool(pool).is_some_and(|pool| pool.config.passive.outliers.latency_factor > 0)
    }

    fn row_grew(&self, place: Place, row: Row) {
        let Some(pool) = self.pool(place.pool) else { return };
        let outliers = &pool.config.passive.outliers;
        let is_reached = |row: u32, limit: u32| limit > 0 && row > 0 && row.is_multiple_of(limit);
        if is_reached(row.failures, outliers.consecutive_failures) {
            self.eject(place, format!("{} requests in a row got no response", row.failures));
        } else if is_reached(row.errors, outliers.consecutive_errors) {
            self.eject(place, format!("{} requests in a row got no response or an error", row.errors));
        }
    }

    /// Ejects a server, unless it is or too few would stay.
    fn eject(&self, place: Place, reason: String) {
        let Some(pool) = self.pool(place.pool) else { return };
        let Some(server) = pool.servers.get(place.server) else { return };
        let outliers = &pool.config.passive.outliers;
        {
            let _deciding = pool.circuit.deciding.lock().unwrap_or_else(PoisonError::into_inner);
            if server.ejection.is_out() || !pool.census(place.server).may_eject(outliers.ejected_percent_max) {
                return;
            }
            let (now, mut judged) = (Instant::now(), server.ejection.judged());
            let until = judged.standing.eject(now, outliers, fastrand::f64());
            judged.is_told = false;
            server.ejection.follow(&judged);
            server.outcomes.starts_on_probation(Row {
                failures: outliers.consecutive_failures,
                errors: outliers.consecutive_errors,
            });
            let (for_ms, in_a_row) = (milliseconds(until.duration_since(now)), judged.standing.ejections());
            let (name, of) = (&pool.config.name, pool.server_name(place.server));
            warn!(pool = name, server = of, reason, for_ms, in_a_row, "a server was ejected");
            judged.reason = reason;
        }
        server.trust_changed(false);
        self.publish_outcomes(place);
    }

    /// Looks at what the threads have counted, and at the time. Called every [`INTERVAL`].
    pub fn turn_outcomes(&self) {
        let now = Instant::now();
        for (index, pool) in self.pools.iter().enumerate() {
            for server in 0..pool.servers.len() {
                self.turn_server(Place { pool: PoolIndex(index), server }, now);
            }
            let outliers = &pool.config.passive.outliers;
            if outliers.looks_back() {
                self.find_outliers(PoolIndex(index), outliers, now);
            }
            let PoolCircuit { outcomes, circuit, .. } = &*pool.circuit;
            match &pool.config.passive.breaker {
                Some(breaker) => {
                    outcomes.turn(now);
                    let name = Named { pool: &pool.config.name, server: "" };
                    if circuit.turn(outcomes, now, &breaker.terms, &name) {
                        self.publish_breaker(pool);
                    }
                }
                None => circuit.give_up(),
            }
        }
    }

    fn turn_server(&self, place: Place, now: Instant) {
        let Some(pool) = self.pool(place.pool) else { return };
        let Some(server) = pool.servers.get(place.server) else { return };
        let passive = &pool.config.passive;
        if passive.follows_servers() {
            server.outcomes.turn(now);
        }
        let name = Named { pool: &pool.config.name, server: pool.server_name(place.server) };
        let mut has_changed = false;
        match &passive.server_breaker {
            Some(terms) => has_changed = server.circuit.turn(&server.outcomes, now, terms, &name),
            None => server.circuit.give_up(),
        }
        let mut judged = server.ejection.judged();
        let is_back = if passive.outliers.is_on() {
            judged.standing.turn(now, &passive.outliers)
        } else {
            judged.standing.pardon(now)
        };
        if is_back {
            server.ejection.follow(&judged);
            let (pool, of, reason) = (name.pool, name.server, &judged.reason);
            info!(pool, server = of, reason, "a server is back from its ejection");
        }
        drop(judged);
        if has_changed || is_back {
            server.trust_changed(server.is_trusted());
            self.publish_outcomes(place);
        }
    }

    /// Ejects the servers whose shares or times stand out.
    fn find_outliers(&self, index: PoolIndex, settings: &outliers::Settings, now: Instant) {
        let Some(pool) = self.pool(index) else { return };
        let tallies = pool.servers.iter().map(|server| server.outcomes.last(now, settings.window));
        let tallies: Vec<_> = tallies.collect();
        let means = pool.servers.iter().zip(&tallies).map(|(server, tally)| {
            let counts = server.is_up() && !server.ejection.is_out();
            counts.then(|| tally.mean_us(settings.requests_min)).flatten()
        });
        let means: Vec<_> = means.collect();
        let seconds = settings.window.as_secs();
        for (server, tally) in tallies.iter().enumerate() {
            let place = Place { pool: index, server };
            if outliers::fails_often(tally, settings) {
                let (bad, all) = (tally.bad(), tally.requests);
                self.eject(place, format!("{bad} of {all} requests failed within {seconds} s"));
            } else if let Some((mean, others)) = outliers::slowness(&means, server, settings) {
                let (mean, others) = (as_ms(mean), as_ms(others));
                self.eject(place, format!("took {mean} ms on average within {seconds} s, the others {others} ms"));
            }
        }
    }
}

/// Microseconds as milliseconds, for people.
fn as_ms(us: u64) -> String {
    format!("{}.{}", us / 1_000, us % 1_000 / 100)
}

impl Circuit {
    /// There is no breaker any more: everything passes.
    fn give_up(&self) {
        if self.position() != Position::Closed {
            let mut broken = self.broken();
            broken.breaker.close();
            self.follow(&broken, 0);
        }
    }
}

#[cfg(test)]
mod tests;
