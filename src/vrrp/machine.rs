//! The state machine of one virtual router, RFC 9568 section 6.4, for a pair of nodes.
//!
//! It decides when this node claims the VIP and when it gives it up. It is not the shell: it holds no socket, reads no
//! clock and knows no address but the one that breaks a tie. `guard::heartbeat` drives it; `tests/simulation.rs` drives
//! two of them against each other.
//!
//! # Contract with the shell
//! [`Machine::handle`] is called with every input and, with [`Input::Timer`], as soon as [`Machine::deadline`] has
//! passed. `now` never goes backwards. Actions are performed in their order, each to its end before the next:
//!
//! | transition | actions |
//! |---|---|
//! | Init → Backup | RoleChanged |
//! | Backup → Active | SendAdvert (own priority), AcquireVip, RoleChanged |
//! | Active → Init | ReleaseVip, SendAdvert (0), RoleChanged |
//! | Active → Backup, a better node is active | ReleaseVip, SendAdvert (own priority), RoleChanged |
//! | Active → Backup or Init, after a stall | ReleaseVip, DiscardQueued, RoleChanged |
//! | Backup → Init | RoleChanged |
//!
//! The advert goes before the addresses, so that a peer about to claim as well hears of it first (RFC 9568 section
//! 6.4.2 sends it before the gratuitous ARP too). The addresses go before the resignation, because the peer claims them
//! the moment it hears it. The change of role comes last: what it reports has been done.
//!
//! One departure from RFC 9568: a node that gives way to a better one sends a last advert with its own priority, once
//! its addresses are gone. Without it, the winner of a healed partition may never hear that there was another holder,
//! and would have no reason to announce the addresses to neighbours that send to the loser. To the winner the advert is
//! that of any lesser claimant, to which it asserts and announces.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::packet::{Heard, PRIORITY_RESIGNED};
use crate::units::{AdvertInterval, Priority, VirtualRouterId};

#[cfg(test)]
mod tests;

/// A peer gives an active node up after this many intervals without an advert, and its skew
/// (RFC 9568 section 6.1, `Active_Down_Interval`).
const MISSED_ADVERTS_MAX: u32 = 3;

/// The steps of a skew: a node of priority p waits (256 − p)/256 of an interval (RFC 9568 section 6.1).
const SKEW_STEPS: u32 = 256;

/// The highest priority that a node can have.
const PRIORITY_MAX: u32 = 254;

/// What a machine is built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The virtual router that it speaks for.
    pub virtual_router_id: VirtualRouterId,
    /// Our priority.
    pub priority: Priority,
    /// Time between our adverts when we are active.
    pub advert_interval: AdvertInterval,
    /// Whether to take the VIP from a living peer of lower priority.
    pub preempt: Preempt,
    /// How fast to follow a peer that resigned.
    pub resignation: Resignation,
    /// How long to listen before the first claim.
    pub startup: Startup,
}

/// Whether a node takes the VIP from a living peer of lower priority (RFC 9568 section 6.1, `Preempt_Mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preempt {
    /// Whoever holds the VIP keeps it.
    Never,
    /// The node of higher priority takes it.
    WhenHigher,
}

/// When a backup claims after it heard the active node resign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resignation {
    /// Right away. In a pair no third node could claim at the same time, so a skew would only be downtime.
    AtOnce,
    /// After the skew, as RFC 9568 section 6.4.2 has it, so that of several backups the best comes first.
    AfterSkew,
}

/// How long a node that begins to take part listens beyond the usual time before its first claim, unless it hears an
/// advert. The two nodes of a pair differ in it, so that of two that start together one claims and the other hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// No longer than usual: the first node of the pair.
    Prompt,
    /// One advert interval longer: the second node.
    Held,
}

/// The states of RFC 9568 section 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Takes no part: starting, unfit or stopped.
    Init,
    /// Listens, ready to take the VIP.
    Backup,
    /// Holds the VIP and sends adverts.
    Active,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Init => "init",
            Self::Backup => "backup",
            Self::Active => "active",
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This node may take part.
    Fit,
    /// This node must not hold the VIP, and why, as a phrase for [`Reason::Unfit`]: `worker exited`.
    Unfit(Cow<'static, str>),
    /// This node is being stopped.
    Stop,
    /// An advert of the peer, valid and for our virtual router. Everything else stops at `packet::judge`.
    Heard(Heard),
    /// The deadline may have passed. Early or repeated, it does nothing.
    Timer,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send an advert with this priority: our own, or 0 to resign.
    SendAdvert {
        /// 0 to 254.
        priority: u8,
    },
    /// Add the virtual addresses and announce them by gratuitous ARP.
    AcquireVip,
    /// Remove the virtual addresses, and stop announcing them. Complete before the next action.
    ReleaseVip,
    /// Announce the virtual addresses by gratuitous ARP once more: somebody else claimed them too.
    Announce,
    /// Throw away every packet that waits in the socket: they are from before a stall and prove nothing.
    DiscardQueued,
    /// Record a change of state; it is done.
    RoleChanged {
        /// The state before.
        from: State,
        /// The state now.
        to: State,
        /// Why.
        reason: Reason,
    },
}

/// Why the state changed. Displays as a phrase for logs and `baton status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The node became fit.
    Ready,
    /// The peer sent an advert of priority 0.
    PeerResigned,
    /// No advert that counts came for this long.
    PeerSilent(Duration),
    /// The peer is active with a lower priority than ours, this one, and we preempt.
    PeerLower(u8),
    /// The peer is active with a higher priority than ours, this one.
    PeerHigher(u8),
    /// The peer is active with our priority and a higher address than ours, this one.
    PeerAddressHigher(IpAddr),
    /// The node became unfit, and why.
    Unfit(Cow<'static, str>),
    /// The process was frozen for about this long, long enough for the peer to have taken over.
    Stalled(Duration),
    /// The node is being stopped.
    Stopping,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::PeerResigned => f.write_str("peer resigned"),
            Self::PeerSilent(time) => write!(f, "no advert from the peer for {}", Readable(*time)),
            Self::PeerLower(priority) => write!(f, "peer has lower priority {priority}"),
            Self::PeerHigher(priority) => write!(f, "peer has higher priority {priority}"),
            Self::PeerAddressHigher(address) => write!(f, "peer has the same priority and higher address {address}"),
            Self::Unfit(why) => f.write_str(why),
            Self::Stalled(time) => write!(f, "woke from a stall of {}", Readable(*time)),
            Self::Stopping => f.write_str("stopping"),
        }
    }
}

/// A duration to read: `302 ms`, and from one second on `4.1 s`, cut and not rounded.
struct Readable(Duration);

impl fmt::Display for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms < 1000 { write!(f, "{ms} ms") } else { write!(f, "{}.{} s", ms / 1000, ms % 1000 / 100) }
    }
}

/// One virtual router on one node.
#[derive(Debug, Clone)]
pub struct Machine {
    parameters: Parameters,
    phase: Phase,
    since: Instant,
    /// The peer's interval as it last told, ours until then (RFC 9568 section 6.1, `Active_Adver_Interval`).
    /// Kept while we are active: after a stall it is the best guess at how often the peer speaks.
    peer_interval: Duration,
}

/// A state and the timers that only exist in it.
#[derive(Debug, Clone)]
enum Phase {
    Init,
    Backup {
        /// `Active_Down_Timer`: when to claim the VIP.
        active_down_at: Instant,
        /// What it will mean when that time comes.
        expiry: Expiry,
    },
    Active(Claim),
}

/// What it means when a backup's wait is over.
#[derive(Debug, Clone, Copy)]
enum Expiry {
    /// No advert came since then.
    Silence(Instant),
    /// The peer resigned and the skew is over.
    Resignation,
    /// The peer is active with this lower priority.
    Preemption(u8),
}

/// The timers of an active node.
#[derive(Debug, Clone)]
struct Claim {
    /// `Adver_Timer`: when the next advert is due.
    advert_at: Instant,
    /// When the last advert was sent: from here the peer counts.
    advert_sent_at: Instant,
    /// When the addresses were last announced.
    announced_at: Instant,
    /// The peer claimed the addresses and may have announced them after us, so one more announcement has to follow.
    announce_owed: bool,
}

impl Claim {
    /// Announces, unless the last announcement is less than `interval` ago; whether it did.
    fn announce(&mut self, now: Instant, interval: Duration, actions: &mut Vec<Action>) -> bool {
        let allowed = now.saturating_duration_since(self.announced_at) >= interval;
        if allowed {
            self.announced_at = now;
            actions.push(Action::Announce);
        }
        allowed
    }
}

/// The last advert of a node that stops being active.
enum Farewell {
    /// Priority 0: the peer is to take over at once.
    Resign,
    /// Our own priority: the peer is active, and is to announce the addresses that we held too.
    Yield,
    /// None: what we believe is old.
    None,
}

impl Machine {
    /// A machine in [`State::Init`], which waits for [`Input::Fit`].
    pub fn new(parameters: Parameters, now: Instant) -> Self {
        let peer_interval = parameters.advert_interval.get();
        Self { parameters, phase: Phase::Init, since: now, peer_interval }
    }

    /// The state.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Init => State::Init,
            Phase::Backup { .. } => State::Backup,
            Phase::Active(_) => State::Active,
        }
    }

    /// When the state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What the machine was built with.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// When [`Input::Timer`] is due; `None` in Init, which waits for nothing.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Init => None,
            Phase::Backup { active_down_at, .. } => Some(active_down_at),
            Phase::Active(Claim { advert_at, .. }) => Some(advert_at),
        }
    }

    /// Takes an input and returns what to do, in order: at most three actions, mostly none.
    ///
    /// When the call comes so late that the peer may have taken over, the process was frozen, and what it believes is
    /// old: the VIP is released before anything else, nothing is sent, and the input is ignored, except that
    /// [`Input::Unfit`] and [`Input::Stop`] still lead to Init.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(stall) = self.stall(now) {
            self.woke(now, stall, input, &mut actions);
            return actions;
        }
        match input {
            Input::Fit => self.became_fit(now, &mut actions),
            Input::Unfit(why) => self.withdraw(now, Reason::Unfit(why), &mut actions),
            Input::Stop => self.withdraw(now, Reason::Stopping, &mut actions),
            Input::Heard(heard) => self.heard(now, heard, &mut actions),
            Input::Timer => self.timer(now, &mut actions),
        }
        actions
    }

    fn became_fit(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Init => {
                self.peer_interval = self.parameters.advert_interval.get();
                let hold = match self.parameters.startup {
                    Startup::Prompt => Duration::ZERO,
                    Startup::Held => self.parameters.advert_interval.get(),
                };
                self.enter_backup(now, self.active_down_interval() + hold, Reason::Ready, actions);
            }
            Phase::Backup { .. } | Phase::Active(_) => {}
        }
    }

    fn withdraw(&mut self, now: Instant, reason: Reason, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Init => return,
            Phase::Backup { .. } => {}
            Phase::Active(_) => self.leave_active(Farewell::Resign, actions),
        }
        self.enter_init(now, reason, actions);
    }

    fn heard(&mut self, now: Instant, heard: Heard, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Init => {}
            Phase::Backup { .. } => self.heard_as_backup(now, heard, actions),
            Phase::Active(_) => self.heard_as_active(now, heard, actions),
        }
    }

    fn heard_as_backup(&mut self, now: Instant, heard: Heard, actions: &mut Vec<Action>) {
        if heard.priority == PRIORITY_RESIGNED {
            match self.parameters.resignation {
                Resignation::AtOnce => self.enter_active(now, Reason::PeerResigned, actions),
                Resignation::AfterSkew => self.wait(now + self.skew(), Expiry::Resignation),
            }
            return;
        }
        let counts = match self.parameters.preempt {
            Preempt::Never => true,
            Preempt::WhenHigher => heard.priority >= self.parameters.priority.get(),
        };
        if counts {
            self.peer_interval = heard.interval.get();
            self.wait(now + self.active_down_interval(), Expiry::Silence(now));
        } else if let Phase::Backup { expiry, .. } = &mut self.phase {
            // Discarded: the timer runs on, and at its end we preempt (RFC 9568 section 6.4.2).
            *expiry = Expiry::Preemption(heard.priority);
        }
    }

    fn heard_as_active(&mut self, now: Instant, heard: Heard, actions: &mut Vec<Action>) {
        let own = self.parameters.priority.get();
        if heard.priority > own {
            self.give_way(now, heard, Reason::PeerHigher(heard.priority), actions);
        } else if heard.priority == own && heard.source > heard.local {
            self.give_way(now, heard, Reason::PeerAddressHigher(heard.source), actions);
        } else {
            self.assert_claim(now, heard, actions);
        }
    }

    /// A better node is active too. No advert of priority 0: the peer needs no call.
    fn give_way(&mut self, now: Instant, heard: Heard, reason: Reason, actions: &mut Vec<Action>) {
        self.peer_interval = heard.interval.get();
        self.leave_active(Farewell::Yield, actions);
        self.enter_backup(now, self.active_down_interval(), reason, actions);
    }

    /// The peer was active too and is the lesser, or resigned just now. An advert at once makes it give way at once
    /// (RFC 9568 section 6.4.3).
    ///
    /// Neighbours may have learned the peer's claim last. An announcement now shortens that; but the peer gives way
    /// only when our advert arrives and may announce until then, so one more is owed at the next advert.
    fn assert_claim(&mut self, now: Instant, heard: Heard, actions: &mut Vec<Action>) {
        let interval = self.parameters.advert_interval.get();
        let priority = self.parameters.priority.get();
        let Phase::Active(claim) = &mut self.phase else { return };
        actions.push(Action::SendAdvert { priority });
        claim.advert_sent_at = now;
        claim.announce_owed = true;
        if heard.priority == PRIORITY_RESIGNED {
            claim.advert_at = now + interval;
        } else {
            claim.announce(now, interval, actions);
        }
    }

    fn timer(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Init => {}
            Phase::Backup { active_down_at, expiry } => {
                if now >= active_down_at {
                    let reason = match expiry {
                        Expiry::Silence(since) => Reason::PeerSilent(now.saturating_duration_since(since)),
                        Expiry::Resignation => Reason::PeerResigned,
                        Expiry::Preemption(priority) => Reason::PeerLower(priority),
                    };
                    self.enter_active(now, reason, actions);
                }
            }
            Phase::Active(Claim { advert_at, .. }) => {
                if now >= advert_at {
                    self.advert_due(now, actions);
                }
            }
        }
    }

    fn advert_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let interval = self.parameters.advert_interval.get();
        let priority = self.parameters.priority.get();
        let Phase::Active(claim) = &mut self.phase else { return };
        actions.push(Action::SendAdvert { priority });
        claim.advert_sent_at = now;
        // From deadline to deadline, so that wake-ups that come late do not add up. A whole interval late, the
        // adverts that were missed are not made up for.
        let next = claim.advert_at + interval;
        claim.advert_at = if next > now { next } else { now + interval };
        if claim.announce_owed {
            claim.announce_owed = !claim.announce(now, interval, actions);
        }
    }

    /// The process did not run for so long that nothing it believes holds.
    fn woke(&mut self, now: Instant, stall: Duration, input: Input, actions: &mut Vec<Action>) {
        let was_active = matches!(self.phase, Phase::Active(_));
        if was_active {
            self.leave_active(Farewell::None, actions);
        }
        actions.push(Action::DiscardQueued);
        match input {
            Input::Unfit(why) => self.enter_init(now, Reason::Unfit(why), actions),
            Input::Stop => self.enter_init(now, Reason::Stopping, actions),
            Input::Fit | Input::Heard(_) | Input::Timer if was_active => {
                self.enter_backup(now, self.active_down_interval(), Reason::Stalled(stall), actions);
            }
            Input::Fit | Input::Heard(_) | Input::Timer => {
                self.wait(now + self.active_down_interval(), Expiry::Silence(now));
            }
        }
    }

    /// How long the process was frozen at least, if that was so long that the peer may have taken over.
    ///
    /// A backup that wakes late has queued adverts to read and should not claim on the strength of its own absence.
    fn stall(&self, now: Instant) -> Option<Duration> {
        let (deadline, stalled) = match self.phase {
            Phase::Init => return None,
            Phase::Backup { active_down_at, .. } => {
                let late = now.saturating_duration_since(active_down_at);
                (active_down_at, late >= self.active_down_interval())
            }
            Phase::Active(Claim { advert_at, advert_sent_at, .. }) => {
                let unheard = now.saturating_duration_since(advert_sent_at);
                (advert_at, unheard >= self.shortest_patience_of_peer())
            }
        };
        stalled.then(|| now.saturating_duration_since(deadline))
    }

    // Every change of state goes through these, and so has all its effects.

    fn enter_init(&mut self, now: Instant, reason: Reason, actions: &mut Vec<Action>) {
        self.enter(now, Phase::Init, reason, actions);
    }

    fn enter_backup(&mut self, now: Instant, patience: Duration, reason: Reason, actions: &mut Vec<Action>) {
        self.enter(
            now,
            Phase::Backup { active_down_at: now + patience, expiry: Expiry::Silence(now) },
            reason,
            actions,
        );
    }

    fn enter_active(&mut self, now: Instant, reason: Reason, actions: &mut Vec<Action>) {
        actions.push(Action::SendAdvert { priority: self.parameters.priority.get() });
        actions.push(Action::AcquireVip);
        let claim = Claim {
            advert_at: now + self.parameters.advert_interval.get(),
            advert_sent_at: now,
            announced_at: now,
            announce_owed: false,
        };
        self.enter(now, Phase::Active(claim), reason, actions);
    }

    /// The effects of no longer being active. The caller enters another state next.
    fn leave_active(&mut self, farewell: Farewell, actions: &mut Vec<Action>) {
        actions.push(Action::ReleaseVip);
        match farewell {
            Farewell::Resign => actions.push(Action::SendAdvert { priority: PRIORITY_RESIGNED }),
            Farewell::Yield => actions.push(Action::SendAdvert { priority: self.parameters.priority.get() }),
            Farewell::None => {}
        }
    }

    fn enter(&mut self, now: Instant, phase: Phase, reason: Reason, actions: &mut Vec<Action>) {
        let from = self.state();
        self.phase = phase;
        self.since = now;
        actions.push(Action::RoleChanged { from, to: self.state(), reason });
    }

    // Timers.

    /// Restarts the wait of a backup.
    fn wait(&mut self, until: Instant, meaning: Expiry) {
        if let Phase::Backup { active_down_at, expiry } = &mut self.phase {
            *active_down_at = until;
            *expiry = meaning;
        }
    }

    /// How long a backup waits for an advert, by the interval at which the peer sends them
    /// (RFC 9568 section 6.1, `Active_Down_Interval`).
    fn active_down_interval(&self) -> Duration {
        self.peer_interval * MISSED_ADVERTS_MAX + self.skew()
    }

    /// RFC 9568 section 6.1, `Skew_Time`: the higher the priority, the shorter.
    fn skew(&self) -> Duration {
        self.peer_interval * (SKEW_STEPS - u32::from(self.parameters.priority.get())) / SKEW_STEPS
    }

    /// The shortest time after our last advert at which any peer may have claimed the VIP: it counts our intervals,
    /// and its skew depends on its priority, which a backup does not tell. So the highest priority is assumed.
    fn shortest_patience_of_peer(&self) -> Duration {
        let interval = self.parameters.advert_interval.get();
        interval * MISSED_ADVERTS_MAX + interval * (SKEW_STEPS - PRIORITY_MAX) / SKEW_STEPS
    }
}
