//! One check: what was found so far, and what it amounts to.
//!
//! **Hold-down.** A subject that flaps would drag the VIP to and fro. Each fall within [`FORGIVEN_AFTER`] of the recovery
//! before it is a relapse. The first [`RELAPSES_FREE`] relapses cost nothing, so that a restarted worker is fit at once;
//! after each further one the subject has to be good for twice as long before it counts as good: 1 s, 2 s, 4 s and so on
//! up to [`HOLD_MAX`]. A single bad finding in that time starts it again. A subject that stays good for
//! [`FORGIVEN_AFTER`] begins anew.

use std::time::{Duration, Instant};

use super::{Check, Finding, Severity, Start, State, Verdict};

/// A recovery that lasted this long is believed: the next fall is the first one.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Relapses after which the recovery still counts at once: the first fall and these make three recoveries.
pub const RELAPSES_FREE: u32 = 2;

/// The time that the first relapse which is not free has to be good for; doubled with each further one.
pub const HOLD_MIN: Duration = Duration::from_secs(1);

/// The longest time that a subject has to be good for.
pub const HOLD_MAX: Duration = Duration::from_secs(60);

/// Time after which a broken subject that cannot be looked at is taken for good on trial.
pub const TRIAL_AFTER: Duration = Duration::from_secs(10);

/// What is thought of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Not looked at yet, or it cannot be looked at.
    Unknown,
    /// Good.
    Good,
    /// Not good.
    Bad,
    /// Good again, or untested since it was bad; believed from this time on.
    HeldDown {
        /// That time.
        until: Instant,
        /// What it will be then is unknown, for it could not be looked at.
        is_trial: bool,
    },
}

/// A check and its history.
#[derive(Debug, Clone)]
pub struct Track {
    check: Check,
    standing: Standing,
    /// Findings in a row that contradict the standing.
    streak: u32,
    evidence: String,
    since: Instant,
    /// When it last counted as good again after it was bad.
    recovered: Option<Instant>,
    relapses: u32,
    servers_up: u16,
    /// The last bad finding was one of slowness.
    is_slow: bool,
}

impl Track {
    /// Goes on with what was thought of its subject before.
    pub(super) fn adopt(&mut self, former: &Self) {
        let check = self.check.clone();
        *self = Self { check, ..former.clone() };
    }

    /// A subject that was not looked at.
    pub fn new(check: Check, now: Instant) -> Self {
        let evidence = format!("{} was not looked at yet", check.subject);
        Self {
            check,
            standing: Standing::Unknown,
            streak: 0,
            evidence,
            since: now,
            recovered: None,
            relapses: 0,
            servers_up: 0,
            is_slow: false,
        }
    }

    /// What is checked.
    pub fn check(&self) -> &Check {
        &self.check
    }

    /// What is thought of it.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Servers that were up when the worker last reported.
    pub fn servers_up(&self) -> u16 {
        self.servers_up
    }

    /// Takes that number.
    pub fn set_servers_up(&mut self, count: u16) {
        self.servers_up = count;
    }

    /// Whether it is not good for being slow.
    pub fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// What is thought of it, for the outside.
    pub fn verdict(&self) -> Verdict<'_> {
        let is_bad = match self.standing {
            Standing::Unknown => self.check.start == Start::Closed,
            Standing::Good => false,
            Standing::Bad | Standing::HeldDown { .. } => true,
        };
        let state = match (&self.standing, self.check.severity) {
            (Standing::Unknown, _) => State::Unknown,
            (Standing::Good, _) => State::Good,
            (Standing::Bad, Severity::Broken) => State::Broken,
            (Standing::Bad, Severity::Weaker) => State::Weaker,
            (Standing::HeldDown { .. }, _) => State::HeldDown,
        };
        Verdict {
            subject: &self.check.subject,
            state,
            evidence: &self.evidence,
            since: self.since,
            is_fault: is_bad && self.check.severity == Severity::Broken,
        }
    }

    /// When the hold-down ends.
    pub fn deadline(&self) -> Option<Instant> {
        match self.standing {
            Standing::HeldDown { until, .. } => Some(until),
            Standing::Unknown | Standing::Good | Standing::Bad => None,
        }
    }

    /// Ends a hold-down whose time has come. True when it did.
    pub fn let_time_pass(&mut self, now: Instant) -> bool {
        match self.standing {
            Standing::HeldDown { until, is_trial } if until <= now => {
                self.recovered = Some(now);
                self.enter(now, if is_trial { Standing::Unknown } else { Standing::Good });
                true
            }
            _ => false,
        }
    }

    /// Takes a finding. True when the verdict changed.
    pub fn record(&mut self, now: Instant, finding: Finding) -> bool {
        match finding {
            Finding::Good(evidence) => self.good(now, evidence),
            Finding::Bad(evidence) => {
                self.is_slow = false;
                self.bad(now, evidence)
            }
            Finding::Slow(evidence) => {
                self.is_slow = true;
                self.bad(now, evidence)
            }
            Finding::Untested(evidence) => self.untested(now, evidence),
        }
    }

    fn good(&mut self, now: Instant, evidence: String) -> bool {
        match self.standing {
            Standing::Good => {
                self.streak = 0;
                self.evidence = evidence;
                false
            }
            Standing::Unknown => {
                self.evidence = evidence;
                self.enter(now, Standing::Good)
            }
            Standing::Bad => {
                self.streak += 1;
                self.streak >= self.check.rise && self.recover(now, evidence)
            }
            Standing::HeldDown { until, is_trial } => {
                // What was to be tried has shown that it works.
                if is_trial {
                    self.standing = Standing::HeldDown { until, is_trial: false };
                }
                false
            }
        }
    }

    fn recover(&mut self, now: Instant, evidence: String) -> bool {
        let hold = hold(self.relapses);
        if hold.is_zero() {
            self.recovered = Some(now);
            self.evidence = evidence;
            return self.enter(now, Standing::Good);
        }
        self.evidence = format!("{}; good again, which has to last {} s", self.evidence, hold.as_secs());
        self.enter(now, Standing::HeldDown { until: now + hold, is_trial: false })
    }

    fn bad(&mut self, now: Instant, evidence: String) -> bool {
        let needed = match self.standing {
            Standing::Bad => {
                self.streak = 0;
                self.evidence = evidence;
                return false;
            }
            Standing::HeldDown { .. } => {
                self.evidence = evidence;
                return self.enter(now, Standing::Bad);
            }
            Standing::Unknown if self.check.start == Start::Closed => 1,
            Standing::Unknown | Standing::Good => self.check.fall,
        };
        self.streak += 1;
        if self.streak < needed {
            return false;
        }
        let is_relapse = self.recovered.is_some_and(|at| now.saturating_duration_since(at) < FORGIVEN_AFTER);
        self.relapses = if is_relapse { self.relapses.saturating_add(1) } else { 0 };
        self.evidence = evidence;
        self.enter(now, Standing::Bad)
    }

    fn untested(&mut self, now: Instant, evidence: String) -> bool {
        match (&self.standing, self.check.severity) {
            (Standing::Unknown, _) => {
                self.streak = 0;
                self.evidence = evidence;
                false
            }
            (Standing::Good, _) | (_, Severity::Weaker) => {
                self.evidence = evidence;
                self.enter(now, Standing::Unknown)
            }
            (Standing::Bad, Severity::Broken) => {
                let hold = hold(self.relapses).max(TRIAL_AFTER);
                self.evidence = format!("{}; tried again after {} s, as {evidence}", self.evidence, hold.as_secs());
                self.enter(now, Standing::HeldDown { until: now + hold, is_trial: true })
            }
            (Standing::HeldDown { .. }, Severity::Broken) => false,
        }
    }

    fn enter(&mut self, now: Instant, standing: Standing) -> bool {
        (self.standing, self.streak, self.since) = (standing, 0, now);
        true
    }
}

/// Time that a subject has to be good for after so many relapses.
pub fn hold(relapses: u32) -> Duration {
    match relapses.checked_sub(RELAPSES_FREE + 1) {
        None => Duration::ZERO,
        Some(doublings) => HOLD_MIN.saturating_mul(1 << doublings.min(16)).min(HOLD_MAX),
    }
}
