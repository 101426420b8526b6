//! What the threads of a worker share of one server: its health and what operators have ordered about it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::outcomes::{Circuit, Ejection, Outcomes};
use crate::balance::latency::PeakEwma;
use crate::balance::report::Report;

/// What a ramp begins with: some clients at once show whether it can serve.
const RAMP_MIN: f64 = 0.05;

/// Goes on whenever something about any server has changed that picks depend on. One number for all of them: who looks at
/// a server in vain because of another one loses little, and it holds over every reload.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// How often something about servers has changed by now.
pub fn changes() -> u64 {
    CHANGES.load(Ordering::Acquire)
}

fn changed() {
    CHANGES.fetch_add(1, Ordering::Release);
}

/// Milliseconds of the clock that servers' figures are dated with.
pub fn clock_ms(now: Instant) -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    // Nothing is dated with 0, which stands for never.
    let since = now.saturating_duration_since(*BEGIN.get_or_init(Instant::now));
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// The state of a server. Written by health checks, by operators' commands and by what comes of requests, read by every
/// thread.
pub struct Server {
    up: AtomicBool,
    admin: AtomicU8,
    /// It is used whether it is healthy or not, as too few are.
    needed: AtomicBool,
    /// When it came back last; 0 for never.
    returned_ms: AtomicU64,
    verdict: Mutex<Verdict>,
    /// What requests have shown.
    pub measured: Measured,
    /// What comes of requests to it.
    pub outcomes: Outcomes,
    /// Whether it is ejected for that.
    pub ejection: Ejection,
    /// Its circuit breaker; closed where it has none.
    pub circuit: Circuit,
}

/// What requests have shown of a server. Written by threads for pools whose algorithm goes by it, and apart from what is
/// only read.
#[repr(align(128))]
#[derive(Default)]
pub struct Measured {
    /// Requests under way.
    pub in_flight: AtomicU32,
    response_time: AtomicU64,
    report: AtomicU64,
}

impl Measured {
    /// How long it takes to answer.
    pub fn response_time(&self) -> PeakEwma {
        PeakEwma::from_bits(self.response_time.load(Ordering::Relaxed))
    }

    /// It took so long to answer.
    pub fn answered(&self, time: Duration, now: Instant) {
        let time_us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let now_ms = clock_ms(now);
        let after = |bits| PeakEwma::from_bits(bits).after(time_us, now_ms).map(PeakEwma::to_bits);
        // Most answers change nothing, and then nothing is written.
        let _before = self.response_time.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }

    /// What it has said of its load.
    pub fn report(&self) -> Report {
        Report::from_bits(self.report.load(Ordering::Relaxed))
    }

    /// It says that so many 1000ths of it are taken.
    pub fn reported(&self, load: u32, now: Instant) {
        let now_ms = clock_ms(now);
        let after = |bits| Some(Report::from_bits(bits).after(load, now_ms).to_bits());
        let _before = self.report.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }
}

/// What an operator has ordered about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// It serves.
    Enabled,
    /// It keeps the clients that belong to it, and gets no new ones.
    Draining,
    /// It serves nobody.
    Disabled,
}

/// What is known of a server's health beside the one bit that every request reads.
pub struct Verdict {
    /// When it went up or down last.
    pub since: Instant,
    /// Whether this node has checked it, or nothing does.
    pub is_checked: bool,
    /// What the last check said, in words.
    pub last_check: String,
}

impl Server {
    /// What an unchecked server begins with: up and enabled.
    ///
    /// Where nothing checks it, that is as good as a verdict.
    pub fn new(is_never_checked: bool) -> Self {
        let verdict =
            Verdict { since: Instant::now(), is_checked: is_never_checked, last_check: "not checked".to_owned() };
        let admin = AtomicU8::new(Admin::Enabled as u8);
        Self {
            up: AtomicBool::new(true),
            admin,
            needed: AtomicBool::new(false),
            returned_ms: AtomicU64::new(0),
            verdict: Mutex::new(verdict),
            measured: Measured::default(),
            outcomes: Outcomes::default(),
            ejection: Ejection::default(),
            circuit: Circuit::default(),
        }
    }

    /// The last verdict and what led to it.
    pub fn verdict(&self) -> MutexGuard<'_, Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is healthy.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// What an operator has ordered.
    pub fn admin(&self) -> Admin {
        let admin = self.admin.load(Ordering::Relaxed);
        let known = [Admin::Draining, Admin::Disabled].into_iter().find(|known| *known as u8 == admin);
        known.unwrap_or(Admin::Enabled)
    }

    /// Takes an operator's order.
    pub fn set_admin(&self, admin: Admin) {
        let before = self.admin.swap(admin as u8, Ordering::Relaxed);
        if before == Admin::Disabled as u8 && admin == Admin::Enabled {
            self.returned();
        }
        changed();
    }

    /// Whether it is fit to serve, whatever operators want.
    pub fn is_fit(&self) -> bool {
        self.is_up() && self.is_trusted()
    }

    /// Whether operators let it have new clients.
    pub fn is_enabled(&self) -> bool {
        self.admin() == Admin::Enabled
    }

    /// Whether what came of earlier requests is no reason to send it no more.
    pub fn is_trusted(&self) -> bool {
        !self.ejection.is_out() && self.circuit.lets_pass()
    }

    /// What came of requests has changed whether it is trusted, to this.
    pub fn trust_changed(&self, is_trusted: bool) {
        self.turned(is_trusted);
    }

    /// Whether it gets clients that belong to no server.
    pub fn takes_new(&self) -> bool {
        self.may_serve() && self.is_enabled()
    }

    /// Whether it serves the clients that belong to it.
    pub fn keeps_users(&self) -> bool {
        self.may_serve() && self.admin() != Admin::Disabled
    }

    fn may_serve(&self) -> bool {
        self.is_fit() || self.needed.load(Ordering::Relaxed)
    }

    /// Says whether it is used even if it is not fit.
    pub fn set_needed(&self, is_needed: bool) {
        self.needed.store(is_needed, Ordering::Relaxed);
    }

    /// It is back: what it gets grows from now on, where its pool has it so.
    pub fn returned(&self) {
        self.returned_ms.store(clock_ms(Instant::now()), Ordering::Relaxed);
        changed();
    }

    /// The part of its weight that it has at a time, where weights grow over `slow_start`: above 0, and 1 for all of it.
    pub fn ramp(&self, slow_start: Duration, now: Instant) -> f64 {
        let returned_ms = self.returned_ms.load(Ordering::Relaxed);
        if returned_ms == 0 {
            return 1.0;
        }
        let age = Duration::from_millis(clock_ms(now).saturating_sub(returned_ms));
        if age >= slow_start { 1.0 } else { age.div_duration_f64(slow_start).max(RAMP_MIN) }
    }

    fn turned(&self, up: bool) {
        if up { self.returned() } else { changed() }
    }

    /// Takes a verdict and what led to it.
    pub fn judge(&self, up: bool, last_check: String) {
        let mut verdict = self.verdict();
        if self.up.swap(up, Ordering::Relaxed) != up {
            verdict.since = Instant::now();
            // It has been seen to fall and to rise again: what it was ejected for is over.
            self.ejection.pardon(verdict.since);
            self.turned(up);
        }
        verdict.is_checked = true;
        verdict.last_check = last_check;
    }

    /// Takes what the other node's checks say, for as long as there were none here: a node that has just started would
    /// send users to servers that are known to be down.
    pub fn hint(&self, up: bool) {
        let mut verdict = self.verdict();
        if verdict.is_checked {
            return;
        }
        if self.up.swap(up, Ordering::Relaxed) != up {
            verdict.since = Instant::now();
            self.turned(up);
        }
        verdict.last_check = format!("not checked here yet; {} for the other node", if up { "up" } else { "down" });
    }

    /// Whether it is up by this node's own checks; `None` before the first of them.
    pub fn checked(&self) -> Option<bool> {
        let verdict = self.verdict();
        verdict.is_checked.then(|| self.is_up())
    }
}
