//! A circuit breaker: lets requests pass, or stops them, or lets a few through to see whether they fare better.
//!
//! The words are those of electricity, where *closed* is what conducts. So that nobody reads them the other way round, they
//! are never shown without what they mean: [`Position::meaning`].

use std::time::{Duration, Instant};

use super::window::Tally;

/// When it opens, and how it closes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Requests in a row that got no response or an error. 0: never, up to 1000.
    pub consecutive_errors: u32,
    /// Share of requests in the window that got no response or an error. 0: never, up to 100.
    pub error_percent: u32,
    /// Requests in the window without which their share says nothing, 1 to 1000000.
    pub requests_min: u32,
    /// How far shares look back, 1 s to 60 s.
    pub window: Duration,
    /// Time that no request passes, 100 ms to 1 h; up to a tenth longer, by chance.
    pub open_time: Duration,
    /// Requests at once that pass then, on trial, 1 to 1000.
    pub trials: u32,
    /// Of these, how many have to go well in a row before all requests pass again, 1 to 1000.
    pub successes: u32,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Position {
    /// All requests pass.
    Closed,
    /// None does.
    Open,
    /// A few do.
    HalfOpen,
}

impl Position {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its name, and as a number says it in an atomic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// What that means for requests.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Closed => "closed: requests pass",
            Self::Open => "open: no request passes",
            Self::HalfOpen => "half-open: a few requests pass on trial",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { successes: u32 },
}

/// A breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker(State);

impl Default for Breaker {
    fn default() -> Self {
        Self(State::Closed)
    }
}

impl Breaker {
    /// Where it stands.
    pub fn position(&self) -> Position {
        match self.0 {
            State::Closed => Position::Closed,
            State::Open { .. } => Position::Open,
            State::HalfOpen { .. } => Position::HalfOpen,
        }
    }

    /// When requests may pass on trial again; `None` unless it is open.
    pub fn until(&self) -> Option<Instant> {
        match self.0 {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Opens it, whatever the reason, unless it is open already. True when it was not.
    pub fn open(&mut self, now: Instant, settings: &Settings, chance: f64) -> bool {
        let time = settings.open_time;
        self.open_for(now, time + time.mul_f64(chance.clamp(0.0, 1.0) / 10.0))
    }

    /// As [`Breaker::open`], for as long as another node says, but no longer than this one would.
    pub fn open_as_told(&mut self, now: Instant, settings: &Settings, left: Duration) -> bool {
        self.open_for(now, left.min(settings.open_time.mul_f64(1.1)))
    }

    fn open_for(&mut self, now: Instant, time: Duration) -> bool {
        if self.until().is_some() {
            return false;
        }
        self.0 = State::Open { until: now + time };
        true
    }

    /// So many requests in a row have gone wrong. True when it has opened.
    pub fn failed_in_a_row(&mut self, count: u32, now: Instant, settings: &Settings, chance: f64) -> bool {
        let is_enough = settings.consecutive_errors > 0 && count >= settings.consecutive_errors;
        self.0 == State::Closed && is_enough && self.open(now, settings, chance)
    }

    /// Time passes; `tally` is what became of the requests in the window. The new position, where that is another one.
    pub fn turn(&mut self, now: Instant, tally: &Tally, settings: &Settings, chance: f64) -> Option<Position> {
        match self.0 {
            State::Closed if tally.is_bad(settings.error_percent, settings.requests_min) => {
                self.open(now, settings, chance);
            }
            State::Open { until } if now >= until => self.0 = State::HalfOpen { successes: 0 },
            State::Closed | State::Open { .. } | State::HalfOpen { .. } => return None,
        }
        Some(self.position())
    }

    /// A request on trial is over. The new position, where that is another one.
    pub fn tried(&mut self, went_well: bool, now: Instant, settings: &Settings, chance: f64) -> Option<Position> {
        let State::HalfOpen { successes } = self.0 else { return None };
        if !went_well {
            self.open(now, settings, chance);
            return Some(Position::Open);
        }
        let successes = successes.saturating_add(1);
        if successes < settings.successes {
            self.0 = State::HalfOpen { successes };
            return None;
        }
        self.0 = State::Closed;
        Some(Position::Closed)
    }

    /// Closes it: there is no more reason for it. True when it was not closed.
    pub fn close(&mut self) -> bool {
        std::mem::replace(&mut self.0, State::Closed) != State::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_TIME: Duration = Duration::from_secs(5);

    fn settings() -> Settings {
        Settings {
            consecutive_errors: 3,
            error_percent: 50,
            requests_min: 10,
            window: Duration::from_secs(10),
            open_time: OPEN_TIME,
            trials: 2,
            successes: 2,
        }
    }

    fn bad() -> Tally {
        Tally { requests: 10, failures: 3, errors: 2, ..Tally::default() }
    }

    #[test]
    fn opens_on_failures_in_a_row() {
        let (now, settings, mut breaker) = (Instant::now(), settings(), Breaker::default());
        assert!(!breaker.failed_in_a_row(2, now, &settings, 0.0));
        assert!(breaker.failed_in_a_row(3, now, &settings, 0.0));
        assert_eq!(breaker.until(), Some(now + OPEN_TIME));
        assert!(!breaker.failed_in_a_row(4, now, &settings, 0.0), "it is open already");
        let never = Settings { consecutive_errors: 0, ..settings };
        assert!(!Breaker::default().failed_in_a_row(u32::MAX, now, &never, 0.0));
    }

    #[test]
    fn opens_on_the_share_of_failures_and_tries_again_after_its_time() {
        let (now, settings, mut breaker) = (Instant::now(), settings(), Breaker::default());
        assert_eq!(breaker.turn(now, &Tally { errors: 1, ..bad() }, &settings, 1.0), None);
        assert_eq!(breaker.turn(now, &bad(), &settings, 1.0), Some(Position::Open));
        let until = now + Duration::from_millis(5_500);
        assert_eq!(breaker.turn(until - Duration::from_millis(1), &bad(), &settings, 1.0), None);
        assert_eq!(breaker.turn(until, &bad(), &settings, 1.0), Some(Position::HalfOpen));
        assert_eq!(breaker.turn(until, &bad(), &settings, 1.0), None, "what was before says nothing of the trials");
    }

    #[test]
    fn closes_after_enough_trials_went_well_in_a_row() {
        let (now, settings, mut breaker) = (Instant::now(), settings(), Breaker::default());
        breaker.open(now, &settings, 0.0);
        assert_eq!(breaker.tried(true, now, &settings, 0.0), None, "not on trial yet");
        let later = now + OPEN_TIME;
        breaker.turn(later, &Tally::default(), &settings, 0.0);
        assert_eq!(breaker.tried(true, later, &settings, 0.0), None);
        assert_eq!(breaker.tried(false, later, &settings, 0.0), Some(Position::Open));
        let later = later + OPEN_TIME;
        breaker.turn(later, &Tally::default(), &settings, 0.0);
        assert_eq!(breaker.tried(true, later, &settings, 0.0), None, "those before it opened do not count");
        assert_eq!(breaker.tried(true, later, &settings, 0.0), Some(Position::Closed));
        assert!(!breaker.close());
    }

    #[test]
    fn what_another_node_says_holds_no_longer_than_our_own_time() {
        let (now, settings, mut breaker) = (Instant::now(), settings(), Breaker::default());
        assert!(breaker.open_as_told(now, &settings, Duration::from_secs(3_600)));
        assert_eq!(breaker.until(), Some(now + Duration::from_millis(5_500)));
        assert!(!breaker.open_as_told(now, &settings, Duration::from_secs(1)));
        assert!(breaker.close());
    }

    #[test]
    fn no_name_stands_without_its_meaning() {
        let meanings = Position::ALL.map(Position::meaning);
        assert_eq!(
            meanings,
            ["closed: requests pass", "open: no request passes", "half-open: a few requests pass on trial"]
        );
    }

    /// An open one never lets a request pass before its time, and never stays open for longer.
    #[test]
    fn in_any_course_of_events_it_tries_again_when_its_time_is_over() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (settings, mut breaker, mut now) = (settings(), Breaker::default(), Instant::now());
            let mut opened_at = None;
            for _ in 0..1_000 {
                now += Duration::from_millis(random.u64(0..1_000));
                let before = breaker.position();
                let tally = if random.bool() { bad() } else { Tally::default() };
                match random.u8(..3) {
                    0 => _ = breaker.turn(now, &tally, &settings, random.f64()),
                    1 => _ = breaker.tried(random.bool(), now, &settings, random.f64()),
                    _ => _ = breaker.failed_in_a_row(random.u32(..5), now, &settings, random.f64()),
                }
                match (before, breaker.position()) {
                    (Position::Closed | Position::HalfOpen, Position::Open) => opened_at = Some(now),
                    (Position::Open, Position::HalfOpen) => {
                        let open = now - opened_at.unwrap();
                        assert!(open >= OPEN_TIME, "seed {seed}: open for {open:?}");
                    }
                    (Position::Open, Position::Closed) => panic!("seed {seed}: closed without a trial"),
                    _ => {}
                }
            }
            breaker.turn(now + OPEN_TIME * 2, &Tally::default(), &settings, 0.0);
            assert_ne!(breaker.position(), Position::Open, "seed {seed}");
        }
    }
}
