//! What the threads of a worker share of one server: its health and what operators have ordered about it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::outcomes::{Circuit, Ejection, Outcomes};

/// The state of a server. Written by health checks, by operators' commands and by what comes of requests, read by every
/// thread.
pub struct Server {
    up: AtomicBool,
    admin: AtomicU8,
    verdict: Mutex<Verdict>,
    /// What comes of requests to it.
    pub outcomes: Outcomes,
    /// Whether it is ejected for that.
    pub ejection: Ejection,
    /// Its circuit breaker; closed where it has none.
    pub circuit: Circuit,
    trusted_since: Mutex<Option<Instant>>,
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
            verdict: Mutex::new(verdict),
            outcomes: Outcomes::default(),
            ejection: Ejection::default(),
            circuit: Circuit::default(),
            trusted_since: Mutex::default(),
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
        self.admin.store(admin as u8, Ordering::Relaxed);
    }

    /// Whether what came of earlier requests is no reason to send it no more.
    pub fn is_trusted(&self) -> bool {
        !self.ejection.is_out() && self.circuit.lets_pass()
    }

    /// What came of requests has changed whether it is trusted, to this.
    pub fn trust_changed(&self, is_trusted: bool) {
        if is_trusted {
            *self.trusted_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// When it came back from its last ejection, or its breaker let requests pass again: what it gets may grow from then on.
    pub fn trusted_since(&self) -> Option<Instant> {
        *self.trusted_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it gets clients that belong to no server.
    pub fn takes_new(&self) -> bool {
        self.is_up() && self.admin() == Admin::Enabled && self.is_trusted()
    }

    /// Whether it serves the clients that belong to it.
    pub fn keeps_users(&self) -> bool {
        self.is_up() && self.admin() != Admin::Disabled && self.is_trusted()
    }

    /// Takes a verdict and what led to it.
    pub fn judge(&self, up: bool, last_check: String) {
        let mut verdict = self.verdict();
        if self.up.swap(up, Ordering::Relaxed) != up {
            verdict.since = Instant::now();
            // It has been seen to fall and to rise again: what it was ejected for is over.
            self.ejection.pardon(verdict.since);
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
        }
        verdict.last_check = format!("not checked here yet; {} for the other node", if up { "up" } else { "down" });
    }

    /// Whether it is up by this node's own checks; `None` before the first of them.
    pub fn checked(&self) -> Option<bool> {
        let verdict = self.verdict();
        verdict.is_checked.then(|| self.is_up())
    }
}
