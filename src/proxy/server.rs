//! What the threads of a worker share of one server: its health and what operators have ordered about it.

use std::fmt;
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
    /// An [`AgentState`] in bits.
    agent: AtomicU32,
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

    /// It had not answered after so long, and was not waited for any longer.
    pub fn takes_longer(&self, time: Duration, now: Instant) {
        let time_us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let now_ms = clock_ms(now);
        let after = |bits| PeakEwma::from_bits(bits).after_waiting(time_us, now_ms).map(PeakEwma::to_bits);
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

/// What the agent beside a server last said of it; nothing is as good as `100% up ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentState {
    /// How much of its weight it wants, 0 to 256 percent. Without any it gets no new clients.
    pub percent: u16,
    /// It says that it is down.
    pub is_down: bool,
    /// What it orders, as an operator would.
    pub order: Admin,
}

/// A word of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentWord {
    /// So much of the server's weight.
    Percent(u16),
    /// Up, as far as the agent can say.
    Up,
    /// Down.
    Down,
    /// No longer in `drain` or `maint`.
    Ready,
    /// As [`Admin::Draining`].
    Drain,
    /// As [`Admin::Disabled`].
    Maint,
}

impl Default for AgentState {
    fn default() -> Self {
        Self { percent: 100, is_down: false, order: Admin::Enabled }
    }
}

impl AgentState {
    const DOWN_BIT: u32 = 1 << 16;
    const ORDER_SHIFT: u32 = 24;

    /// What holds after one more word.
    #[must_use]
    pub fn followed(self, word: AgentWord) -> Self {
        match word {
            AgentWord::Percent(percent) => Self { percent, ..self },
            AgentWord::Up => Self { is_down: false, ..self },
            AgentWord::Down => Self { is_down: true, ..self },
            AgentWord::Ready => Self { order: Admin::Enabled, ..self },
            AgentWord::Drain => Self { order: Admin::Draining, ..self },
            AgentWord::Maint => Self { order: Admin::Disabled, ..self },
        }
    }

    const fn bits(self) -> u32 {
        let down = if self.is_down { Self::DOWN_BIT } else { 0 };
        self.percent as u32 | down | (self.order as u32) << Self::ORDER_SHIFT
    }

    fn from_bits(bits: u32) -> Self {
        let order = (bits >> Self::ORDER_SHIFT) as u8;
        Self { percent: (bits & 0xffff) as u16, is_down: bits & Self::DOWN_BIT != 0, order: Admin::from_byte(order) }
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Admin::Enabled => None,
            Admin::Draining => Some("drain".to_owned()),
            Admin::Disabled => Some("maint".to_owned()),
        };
        let down = self.is_down.then(|| "down".to_owned());
        let is_plain = order.is_none() && down.is_none();
        let percent = (self.percent != 100 || is_plain).then(|| format!("{}%", self.percent));
        let words: Vec<String> = [order, down, percent].into_iter().flatten().collect();
        f.write_str(&words.join(" "))
    }
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

impl Admin {
    fn from_byte(byte: u8) -> Self {
        let known = [Self::Draining, Self::Disabled].into_iter().find(|known| *known as u8 == byte);
        known.unwrap_or(Self::Enabled)
    }
}

impl Server {
    /// What an unchecked server begins with: up and enabled.
    ///
    /// Where nothing checks it, that is as good as a verdict.
    pub fn new(is_never_checked: bool) -> Self {
        Self::starting(is_never_checked, true)
    }

    /// As [`Server::new`], for one that may have to wait for its first check.
    pub fn starting(is_never_checked: bool, is_up: bool) -> Self {
        let verdict =
            Verdict { since: Instant::now(), is_checked: is_never_checked, last_check: "not checked".to_owned() };
        let admin = AtomicU8::new(Admin::Enabled as u8);
        Self {
            up: AtomicBool::new(is_up),
            admin,
            needed: AtomicBool::new(false),
            returned_ms: AtomicU64::new(0),
            agent: AtomicU32::new(AgentState::default().bits()),
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
        Admin::from_byte(self.admin.load(Ordering::Relaxed))
    }

    /// What its agent last said.
    pub fn agent(&self) -> AgentState {
        AgentState::from_bits(self.agent.load(Ordering::Relaxed))
    }

    /// Takes what its agent says.
    pub fn set_agent(&self, state: AgentState) {
        let before = AgentState::from_bits(self.agent.swap(state.bits(), Ordering::Relaxed));
        if before.is_down && !state.is_down {
            self.returned();
        }
        if before != state {
            changed();
        }
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
        self.is_up() && self.is_trusted() && !self.agent().is_down
    }

    /// Whether operators and its agent let it have new clients.
    pub fn is_enabled(&self) -> bool {
        let agent = self.agent();
        self.admin() == Admin::Enabled && agent.order == Admin::Enabled && agent.percent > 0
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
        self.may_serve() && self.admin() != Admin::Disabled && self.agent().order != Admin::Disabled
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

    /// Takes what an earlier worker of this node knew, as [`Server::hint`] does.
    pub fn recall(&self, up: bool) {
        self.believe(up, format!("not checked since the worker was restarted; {} before", word(up)));
    }

    /// Takes what the other node's checks say, for as long as there were none here: a node that has just started would
    /// send users to servers that are known to be down.
    pub fn hint(&self, up: bool) {
        self.believe(up, format!("not checked here yet; {} for the other node", word(up)));
    }

    fn believe(&self, up: bool, said: String) {
        let mut verdict = self.verdict();
        if verdict.is_checked {
            return;
        }
        if self.up.swap(up, Ordering::Relaxed) != up {
            verdict.since = Instant::now();
            self.turned(up);
        }
        verdict.last_check = said;
    }

    /// Whether it is up by this node's own checks; `None` before the first of them.
    pub fn checked(&self) -> Option<bool> {
        let verdict = self.verdict();
        verdict.is_checked.then(|| self.is_up())
    }
}

const fn word(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}
