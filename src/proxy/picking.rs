//! Picks servers for one thread: the shell around `balance`.
//!
//! What there is to pick from is put together anew when something about servers has changed, which one number tells, or
//! when a weight grows with time; never for a request alone.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::HeaderMap;
use tracing::{info, warn};

use super::server::{self, Server};
use super::state::Pool;
use crate::balance::latency::FAILURE_US;
use crate::balance::report::{self, SHARE_WHOLE};
use crate::balance::ring::Ring;
use crate::balance::{Balancer, Condition, Method, Servers, Snapshot, Terms, WEIGHT_ONE};
use crate::config::{self, Algorithm};

/// Time between two looks at what servers report.
const REPORTS_INTERVAL: Duration = Duration::from_millis(100);
/// Steps in which a weight grows, and what a step takes at least and at most.
const RAMP_STEPS: u32 = 50;
const RAMP_STEP_MIN: Duration = Duration::from_millis(10);
const RAMP_STEP_MAX: Duration = Duration::from_secs(1);

/// The picks of a thread from one pool.
pub struct Picker {
    balancer: RefCell<Balancer>,
    /// The number of the last change that was looked at.
    seen: Cell<Option<u64>>,
    /// When to look again, whatever has changed.
    due: Cell<Option<Instant>>,
    conditions: RefCell<Vec<Condition>>,
}

impl Picker {
    /// Of a thread, by its number.
    pub fn new(pool: &Pool, thread: usize) -> Self {
        Self {
            balancer: RefCell::new(Balancer::new(&pool.method, thread, fastrand::u64(..))),
            seen: Cell::new(None),
            due: Cell::new(None),
            conditions: RefCell::default(),
        }
    }

    /// The next server that takes new clients, that `may_try` allows and that `has_room`. `key` is the hash that a request
    /// goes by, where the pool picks by one.
    pub fn pick(
        &self,
        pool: &Pool,
        now: Instant,
        key: Option<u64>,
        may_try: impl Fn(usize) -> bool,
        has_room: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.refresh(pool, now);
        let now_ms = if pool.measures { server::clock_ms(now) } else { 0 };
        let servers = Live { servers: &pool.servers, may_try, has_room, now_ms };
        self.balancer.borrow_mut().pick(&servers, key)
    }

    /// Takes in what has changed since the last time.
    pub fn refresh(&self, pool: &Pool, now: Instant) {
        let changes = server::changes();
        let is_due = self.due.get().is_some_and(|due| now >= due);
        if self.seen.get() == Some(changes) && !is_due {
            return;
        }
        self.seen.set(Some(changes));
        let (conditions, due) = pool.conditions(now);
        self.due.set(due);
        if *self.conditions.borrow() == conditions {
            return;
        }
        let snapshot = Snapshot::new(&conditions, pool.terms());
        pool.panics(&snapshot);
        self.balancer.borrow_mut().refresh(snapshot);
        self.conditions.replace(conditions);
    }
}

/// Servers at the moment of a pick.
struct Live<'a, T, R> {
    servers: &'a [Arc<Server>],
    may_try: T,
    has_room: R,
    now_ms: u64,
}

impl<T: Fn(usize) -> bool, R: Fn(usize) -> bool> Servers for Live<'_, T, R> {
    fn may_try(&self, server: usize) -> bool {
        // What has just changed counts at once.
        self.servers.get(server).is_some_and(|server| server.takes_new()) && (self.may_try)(server)
    }

    fn has_room(&self, server: usize) -> bool {
        (self.has_room)(server)
    }

    fn in_flight(&self, server: usize) -> u32 {
        self.servers.get(server).map_or(0, |server| server.measured.in_flight.load(Ordering::Relaxed))
    }

    fn response_time_us(&self, server: usize) -> Option<u32> {
        self.servers.get(server)?.measured.response_time().estimate_us(self.now_ms)
    }
}

/// How a pool picks.
pub(super) fn method(config: &config::Pool) -> Method {
    let hash = |balance_factor: Option<u32>| {
        let servers = config.servers.iter().map(|server| (server.name.as_str(), server.weight));
        Method::Hash { ring: Arc::new(Ring::new(servers)), load_max_percent: balance_factor.unwrap_or(0) }
    };
    match &config.algorithm {
        Algorithm::RoundRobin | Algorithm::WeightedRoundRobin | Algorithm::Resource(_) => Method::Rotation,
        Algorithm::LeastConnections => Method::LeastConnections,
        Algorithm::LeastResponseTime => Method::LeastResponseTime,
        Algorithm::IpHash => hash(None),
        Algorithm::ConsistentHash(config) => hash(config.balance_factor),
        Algorithm::Random => Method::Random,
        Algorithm::PowerOfTwo => Method::PowerOfTwo,
    }
}

/// Whether what is under way at each server has to be counted.
pub(super) fn counts(config: &config::Pool) -> bool {
    match &config.algorithm {
        Algorithm::LeastConnections | Algorithm::LeastResponseTime | Algorithm::PowerOfTwo => true,
        Algorithm::ConsistentHash(config) => config.balance_factor.is_some(),
        Algorithm::RoundRobin
        | Algorithm::WeightedRoundRobin
        | Algorithm::IpHash
        | Algorithm::Random
        | Algorithm::Resource(_) => false,
    }
}

impl Pool {
    /// What the pool has settled about its servers.
    pub fn terms(&self) -> Terms {
        Terms { panic_percent: self.config.panic_threshold, near_percent: self.config.zone_threshold }
    }

    /// Every server as it is, and when that will be different if nothing happens.
    pub fn conditions(&self, now: Instant) -> (Vec<Condition>, Option<Instant>) {
        let shares = self.shares(now);
        let mut is_ramping = false;
        let servers = self.config.servers.iter().zip(&self.servers).enumerate();
        let condition = |(index, (config, server)): (usize, (&config::Server, &Arc<Server>))| {
            let ramp = self.config.slow_start.map_or(1.0, |time| server.ramp(time, now));
            is_ramping |= ramp < 1.0;
            let share = shares.as_ref().and_then(|shares| shares.get(index)).copied().unwrap_or(SHARE_WHOLE);
            Condition {
                is_healthy: server.is_fit(),
                is_enabled: server.is_enabled(),
                is_backup: config.backup,
                is_near: self.zone.is_some() && config.zone == self.zone,
                weight: effective(wanted(self.base_weight(config), server), share, ramp),
            }
        };
        let conditions = servers.map(condition).collect();
        let step = self.config.slow_start.filter(|_| is_ramping).map(|time| time / RAMP_STEPS);
        let step = step.map(|step| step.clamp(RAMP_STEP_MIN, RAMP_STEP_MAX));
        let step = if shares.is_some() { Some(REPORTS_INTERVAL) } else { step };
        (conditions, step.map(|step| now + step))
    }

    /// The weight of a server when all is well, in 256ths.
    pub fn base_weight(&self, config: &config::Server) -> u32 {
        let weight = match self.config.algorithm {
            // All alike, but for those that are to get nobody.
            Algorithm::RoundRobin => config.weight.min(1),
            _ => config.weight,
        };
        weight * WEIGHT_ONE
    }

    /// What servers report of themselves, where that counts: the part of its weight that each has, in 1000ths.
    fn shares(&self, now: Instant) -> Option<Vec<u32>> {
        let Algorithm::Resource(config) = &self.config.algorithm else { return None };
        let reports: Vec<_> = self.servers.iter().map(|server| server.measured.report()).collect();
        let max_age_ms = u64::try_from(config.max_age.as_millis()).unwrap_or(u64::MAX);
        Some(report::shares(&reports, server::clock_ms(now), max_age_ms))
    }

    /// A server has answered what was begun at a time, where the pool picks by how soon servers answer.
    pub fn answered(&self, server: usize, began: Option<Instant>) {
        if let (Some(began), Some(server)) = (began.filter(|_| self.measures), self.servers.get(server)) {
            let now = Instant::now();
            server.measured.answered(now.saturating_duration_since(began), now);
        }
    }

    /// A server has failed: for those that pick by how soon servers answer that is a slow answer.
    pub fn failed(&self, server: usize) {
        if let Some(server) = self.servers.get(server).filter(|_| self.measures) {
            server.measured.answered(Duration::from_micros(u64::from(FAILURE_US)), Instant::now());
        }
    }

    /// A server had not answered after this time and was not waited for any longer.
    pub fn takes_longer(&self, server: usize, thread: usize, time: Duration) {
        let Some(server) = self.servers.get(server) else { return };
        server.outcomes.takes_longer(thread, time);
        if self.measures {
            server.measured.takes_longer(time, Instant::now());
        }
    }

    /// Takes in what a server says of its load, where the pool goes by that.
    pub fn reported(&self, server: usize, headers: &HeaderMap) {
        let Algorithm::Resource(config) = &self.config.algorithm else { return };
        let load = headers.get(&config.header).and_then(|value| report::load(value.as_bytes()));
        if let (Some(load), Some(server)) = (load, self.servers.get(server)) {
            server.measured.reported(load, Instant::now());
        }
    }

    /// Takes in whether servers are used that are not healthy, and says so when that has changed.
    fn panics(&self, snapshot: &Snapshot) {
        let is_panicking = snapshot.is_panicking();
        // What a server does with clients that belong to it depends on it as well.
        self.servers.iter().for_each(|server| server.set_needed(is_panicking));
        if self.is_panicking.swap(is_panicking, Ordering::Relaxed) == is_panicking {
            return;
        }
        let (pool, threshold) = (&self.config.name, self.config.panic_threshold);
        if is_panicking {
            warn!(pool, threshold, "too few servers are healthy, all of them are used: see to those that are down");
        } else {
            info!(pool, threshold, "enough servers are healthy again, and no others are used");
        }
    }
}

/// The weight that a server wants to have by its agent; of something there is always something left.
fn wanted(weight: u32, server: &Server) -> u32 {
    let percent = u32::from(server.agent().percent);
    (weight.saturating_mul(percent) / 100).max(weight.min(1))
}

/// The weight that remains, in 256ths; of something there is always something left.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it gets no larger than it was")]
fn effective(weight: u32, share: u32, ramp: f64) -> u32 {
    let reported = u64::from(weight) * u64::from(share) / u64::from(SHARE_WHOLE);
    ((reported as f64 * ramp) as u32).max(1).min(weight)
}
