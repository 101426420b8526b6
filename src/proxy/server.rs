//! What the threads of a worker share of one server: its health and what operators have ordered about it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The state of a server. Written by health checks and by operators' commands, read by every thread.
pub struct Server {
    up: AtomicBool,
    admin: AtomicU8,
    /// An [`AgentState`] in bits.
    agent: AtomicU32,
    verdict: Mutex<Verdict>,
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
        let agent = AtomicU32::new(AgentState::default().bits());
        Self { up: AtomicBool::new(is_up), admin, agent, verdict: Mutex::new(verdict) }
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
        self.agent.store(state.bits(), Ordering::Relaxed);
    }

    /// Takes an operator's order.
    pub fn set_admin(&self, admin: Admin) {
        self.admin.store(admin as u8, Ordering::Relaxed);
    }

    /// Whether it gets clients that belong to no server.
    pub fn takes_new(&self) -> bool {
        let agent = self.agent();
        let agent_agrees = !agent.is_down && agent.percent > 0 && agent.order == Admin::Enabled;
        self.is_up() && self.admin() == Admin::Enabled && agent_agrees
    }

    /// Whether it serves the clients that belong to it.
    pub fn keeps_users(&self) -> bool {
        let agent = self.agent();
        self.is_up() && self.admin() != Admin::Disabled && !agent.is_down && agent.order != Admin::Disabled
    }

    /// Takes a verdict and what led to it.
    pub fn judge(&self, up: bool, last_check: String) {
        let mut verdict = self.verdict();
        if self.up.swap(up, Ordering::Relaxed) != up {
            verdict.since = Instant::now();
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
