//! What comes of clients' requests, noted where they are served, and the gates that follow from it.
//!
//! Threads only count here, each in a place of its own; what the counts lead to is decided in `passive`.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::health::breaker::{Breaker, Position};
use crate::health::outliers::Standing;
use crate::health::window::{Tally, Window};

/// Places to count in. Threads beyond that share one, which costs time and loses nothing.
const SHARDS: usize = 8;

/// What came of a request to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response that is no error.
    Good,
    /// A response that counts as one; with `protocol = "tcp"` a connection that the server ended without a word.
    Error,
    /// No response: no connection, one that broke, none in time.
    Failure,
}

/// What one thread counts; alone on its line of cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    requests: AtomicU64,
    failures: AtomicU64,
    errors: AtomicU64,
    timed: AtomicU64,
    time_us: AtomicU64,
}

impl Shard {
    fn took(&self, time: Duration) {
        self.timed.fetch_add(1, Ordering::Relaxed);
        self.time_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// How many requests in a row went wrong by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Those without a response.
    pub failures: u32,
    /// Those and errors.
    pub errors: u32,
}

/// What came of the requests to a server, or of those to a pool.
#[derive(Debug, Default)]
pub struct Outcomes {
    shards: [Shard; SHARDS],
    failures: AtomicU32,
    errors: AtomicU32,
    window: Mutex<Window>,
}

impl Outcomes {
    /// Counts a request in the place of a thread; `time` to the response's head, where somebody took it.
    pub fn count(&self, thread: usize, outcome: Outcome, time: Option<Duration>) {
        let Some(shard) = self.shards.get(thread % SHARDS) else { return };
        shard.requests.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Good => {}
            Outcome::Error => _ = shard.errors.fetch_add(1, Ordering::Relaxed),
            Outcome::Failure => _ = shard.failures.fetch_add(1, Ordering::Relaxed),
        }
        if let Some(time) = time {
            shard.took(time);
        }
    }

    /// Counts a request that had not been answered after `time`, when nobody waited for it any longer: what would have come
    /// of it is not known.
    pub fn takes_longer(&self, thread: usize, time: Duration) {
        self.shards.get(thread % SHARDS).inspect(|shard| shard.took(time));
    }

    /// Counts what goes wrong in a row; a good outcome, which is the rule, only reads.
    pub fn follow(&self, outcome: Outcome) -> Row {
        let more = |row: &AtomicU32| row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let ends = |row: &AtomicU32| {
            if row.load(Ordering::Relaxed) != 0 {
                row.store(0, Ordering::Relaxed);
            }
        };
        match outcome {
            Outcome::Good => {
                ends(&self.failures);
                ends(&self.errors);
                Row { failures: 0, errors: 0 }
            }
            Outcome::Error => {
                ends(&self.failures);
                Row { failures: 0, errors: more(&self.errors) }
            }
            Outcome::Failure => Row { failures: more(&self.failures), errors: more(&self.errors) },
        }
    }

    /// A connection was made, of which nothing more is known yet.
    pub fn connected(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Takes the counts of all threads.
    pub fn turn(&self, now: Instant) {
        let mut total = Tally::default();
        for shard in &self.shards {
            total.requests = total.requests.wrapping_add(shard.requests.load(Ordering::Relaxed));
            total.failures = total.failures.wrapping_add(shard.failures.load(Ordering::Relaxed));
            total.errors = total.errors.wrapping_add(shard.errors.load(Ordering::Relaxed));
            total.timed = total.timed.wrapping_add(shard.timed.load(Ordering::Relaxed));
            total.time_us = total.time_us.wrapping_add(shard.time_us.load(Ordering::Relaxed));
        }
        self.window().turn(now, total);
    }

    /// What came of requests in the last `length`, as of the last turn.
    pub fn last(&self, now: Instant, length: Duration) -> Tally {
        self.window().last(now, length)
    }

    /// What was counted has led to something. From now on one failure stands for `row` of them, so that a server that
    /// comes back and has not changed is found out by its first request.
    pub fn starts_on_probation(&self, row: Row) {
        self.window().clear();
        for (count, row) in [(&self.failures, row.failures), (&self.errors, row.errors)] {
            // Where a row of any length is nothing here, it may be to a breaker.
            if let Some(rest) = row.checked_sub(1) {
                count.store(rest, Ordering::Relaxed);
            }
        }
    }

    /// What was counted has led to something, and is not to lead to it again.
    pub fn clear(&self) {
        self.window().clear();
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a server is ejected: one bit that every request reads, and what led to it.
#[derive(Debug, Default)]
pub struct Ejection {
    is_out: AtomicBool,
    count: AtomicU64,
    judged: Mutex<Judged>,
}

/// What led to an ejection.
#[derive(Debug, Default)]
pub struct Judged {
    /// Whether it is ejected, and how often it has been of late.
    pub standing: Standing,
    /// Why it was ejected last, with figures.
    pub reason: String,
    /// It was another node that ejected it.
    pub is_told: bool,
}

impl Ejection {
    /// Whether the server gets no requests.
    pub fn is_out(&self) -> bool {
        self.is_out.load(Ordering::Relaxed)
    }

    /// Ejections since the worker started.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// What led to it.
    pub fn judged(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what was judged hold.
    pub fn follow(&self, judged: &Judged) {
        let is_out = judged.standing.until().is_some();
        if is_out && !self.is_out.swap(is_out, Ordering::Relaxed) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        self.is_out.store(is_out, Ordering::Relaxed);
    }

    /// The server comes back at once. True when it was ejected.
    pub fn pardon(&self, now: Instant) -> bool {
        let mut judged = self.judged();
        let was_out = judged.standing.pardon(now);
        self.follow(&judged);
        was_out
    }
}

/// A circuit breaker: the position that every request reads, and what led to it.
#[derive(Debug, Default)]
pub struct Circuit {
    position: AtomicU8,
    trials: AtomicU32,
    trials_max: AtomicU32,
    opened: AtomicU64,
    broken: Mutex<Broken>,
}

/// What led to the position of a breaker.
#[derive(Debug, Default)]
pub struct Broken {
    /// Where it stands.
    pub breaker: Breaker,
    /// Why it opened last, with figures.
    pub reason: String,
    /// It was another node that opened it.
    pub is_told: bool,
}

impl Circuit {
    /// Where it stands.
    pub fn position(&self) -> Position {
        let position = self.position.load(Ordering::Relaxed);
        let known = [Position::Open, Position::HalfOpen].into_iter().find(|known| *known as u8 == position);
        known.unwrap_or(Position::Closed)
    }

    /// Whether a request may pass now.
    pub fn lets_pass(&self) -> bool {
        match self.position() {
            Position::Closed => true,
            Position::Open => false,
            Position::HalfOpen => self.trials.load(Ordering::Relaxed) < self.trials_max.load(Ordering::Relaxed),
        }
    }

    /// Lets a request pass: `Some(true)` when it is on trial, and has to leave again; `None` when it may not.
    pub fn enter(&self) -> Option<bool> {
        match self.position() {
            Position::Closed => Some(false),
            Position::Open => None,
            // Counted first, so that no two take the last place both.
            Position::HalfOpen => {
                let before = self.trials.fetch_add(1, Ordering::Relaxed);
                let has_room = before < self.trials_max.load(Ordering::Relaxed);
                if !has_room {
                    self.leave();
                }
                has_room.then_some(true)
            }
        }
    }

    /// A request on trial is over.
    pub fn leave(&self) {
        self.trials.fetch_sub(1, Ordering::Relaxed);
    }

    /// Times that it has opened since the worker started.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// What led to its position.
    pub fn broken(&self) -> MutexGuard<'_, Broken> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what was decided hold. While it is half-open, `trials` requests pass at once.
    pub fn follow(&self, broken: &Broken, trials: u32) {
        let position = broken.breaker.position();
        self.trials_max.store(trials, Ordering::Relaxed);
        let before = self.position.swap(position as u8, Ordering::Relaxed);
        if position == Position::Open && before != position as u8 {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::breaker::Settings;

    #[test]
    fn a_good_outcome_ends_a_row_and_an_error_ends_that_of_failures() {
        let outcomes = Outcomes::default();
        let row = |failures, errors| Row { failures, errors };
        assert_eq!(outcomes.follow(Outcome::Failure), row(1, 1));
        assert_eq!(outcomes.follow(Outcome::Failure), row(2, 2));
        assert_eq!(outcomes.follow(Outcome::Error), row(0, 3));
        assert_eq!(outcomes.follow(Outcome::Failure), row(1, 4));
        assert_eq!(outcomes.follow(Outcome::Good), row(0, 0));
        assert_eq!(outcomes.follow(Outcome::Error), row(0, 1));
        outcomes.connected();
        assert_eq!(outcomes.follow(Outcome::Failure), row(1, 2));
    }

    #[test]
    fn the_first_failure_on_probation_stands_for_the_whole_row() {
        let outcomes = Outcomes::default();
        outcomes.starts_on_probation(Row { failures: 5, errors: 0 });
        assert_eq!(outcomes.follow(Outcome::Failure).failures, 5);
        outcomes.starts_on_probation(Row { failures: 5, errors: 0 });
        outcomes.follow(Outcome::Good);
        assert_eq!(outcomes.follow(Outcome::Failure).failures, 1);
    }

    #[test]
    fn all_threads_count_together() {
        let outcomes = Outcomes::default();
        let now = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..20 {
                let outcomes = &outcomes;
                scope.spawn(move || {
                    for number in 0..1_000_u32 {
                        let outcome = if number.is_multiple_of(10) { Outcome::Failure } else { Outcome::Good };
                        outcomes.count(thread, outcome, Some(Duration::from_micros(3)));
                    }
                });
            }
        });
        outcomes.turn(now);
        let tally = outcomes.last(now, Duration::from_secs(10));
        let expected = Tally { requests: 20_000, failures: 2_000, errors: 0, timed: 20_000, time_us: 60_000 };
        assert_eq!(tally, expected);
    }

    #[test]
    fn half_open_lets_so_many_pass_at_once_and_not_more() {
        let settings = Settings {
            consecutive_errors: 1,
            error_percent: 0,
            requests_min: 1,
            window: Duration::from_secs(1),
            open_time: Duration::from_secs(1),
            trials: 2,
            successes: 1,
        };
        let (circuit, now) = (Circuit::default(), Instant::now());
        assert_eq!(circuit.enter(), Some(false));
        circuit.broken().breaker.open(now, &settings, 0.0);
        circuit.follow(&circuit.broken(), settings.trials);
        assert_eq!((circuit.enter(), circuit.lets_pass(), circuit.opened()), (None, false, 1));
        circuit.broken().breaker.turn(now + settings.open_time, &Tally::default(), &settings, 0.0);
        circuit.follow(&circuit.broken(), settings.trials);
        assert_eq!((circuit.enter(), circuit.enter(), circuit.enter()), (Some(true), Some(true), None));
        assert!(!circuit.lets_pass());
        circuit.leave();
        assert!(circuit.lets_pass());
        assert_eq!(circuit.opened(), 1);
    }
}
