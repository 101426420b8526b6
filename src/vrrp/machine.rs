//! The state machine of one VIP, RFC 9568 section 6.4, for a pair of nodes.
//!
//! It decides when this node claims the VIP and when it gives it up. It is not the shell: it holds no socket, reads no
//! clock and knows no address but those that break a tie. `guard::heartbeat` drives it; `tests/simulation.rs` drives
//! two of them against each other.
//!
//! One machine speaks for all addresses of a VIP. Adverts of the peer may come over several paths, each of them more
//! than once; any of them counts, so the VIP changes hands only when every path is silent.
//!
//! # Contract with the shell
//! [`Machine::handle`] is called with every input and, with [`Input::Timer`], as soon as [`Machine::deadline`] has
//! passed. `now` never goes backwards. Actions are performed in their order, each to its end before the next input. An
//! advert that could only be sent three intervals after that `now`, because the process was frozen in between, is not
//! sent: what it says, a resignation above all, is old.
//!
//! | transition | actions |
//! |---|---|
//! | Init → Backup | RoleChanged, ProbeAddresses ᵖ |
//! | Backup, silence is over and there is a witness | AskLease, again each interval |
//! | Backup that asked in vain and sees the peer as a fit backup, second node only | SendAdvert (0) |
//! | Backup → Active | SendAdvert (own priority), AcquireVip, RoleChanged, AskLease ʷ (unless it has just been granted) |
//! | Backup → Active, on request or by preference | AcquireVip, RoleChanged; an advert is due at once |
//! | Active, an advert is due | SendAdvert (own priority), Announce (if owed), RequestClaim ʰ, AskLease ʷ |
//! | Active → Init | ReleaseVip, SendAdvert (0), GiveLeaseBack ʷ, RoleChanged |
//! | Active → Backup, a better node is active | ReleaseVip, SendAdvert (own priority), GiveLeaseBack ʷ, RoleChanged |
//! | Active → Backup, handed over | ReleaseVip, SendAdvert (0), GiveLeaseBack ʷ, RoleChanged, HandOverDone |
//! | Active → Backup, lost the witness | ReleaseVip, SendAdvert (0), GiveLeaseBack, RoleChanged |
//! | Active → Backup or Init, after a stall | ReleaseVip, GiveLeaseBack ʷ, DiscardQueued, RoleChanged |
//! | Backup → Init | RoleChanged |
//!
//! ᵖ with [`Parameters::probe_first`], ʷ with [`Parameters::witness`], ʰ while a switchover is under way. Whatever ends
//! a switchover otherwise adds HandOverFailed after RoleChanged.
//!
//! The advert goes before the addresses, so that a peer about to claim as well hears of it first (RFC 9568 section
//! 6.4.2 sends it before the gratuitous ARP too). Where the peer is known to hold the VIP, the timer sends
//! it once they are there, because the peer releases the moment it hears it. A hello that says Active counts as an
//! advert: it goes with SendAdvert and RequestClaim and at no other time, and no hello goes between two actions. The
//! addresses go before the resignation, because the peer claims them
//! the moment it hears it, and before the lease, because the witness may give it to the peer. The change of role comes
//! when what it reports has been done; what follows it is what the new state begins with, and the operator's answer.
//!
//! One departure from RFC 9568: a node that gives way to a better one sends a last advert with its own priority, once
//! its addresses are gone. Without it, the winner of a healed partition may never hear that there was another holder,
//! and would have no reason to announce the addresses to neighbours that send to the loser. To the winner the advert is
//! that of any lesser claimant, to which it asserts and announces.
//!
//! Another: a backup that will take the VIP back from a lesser node does not ignore that node's adverts, as RFC 9568
//! section 6.4.2 has it. It waits for two things at once, for the peer to fall silent and for its own hold time.
//!
//! # Switchover: make before break
//! The active node asks ([`Action::RequestClaim`]) and stays active. The standby claims at once, and for the
//! active-down interval does not give way to the one that asked. That one takes the first advert it hears for the
//! claim, and only then releases. The claimer adds its addresses before it says so. Both hold the VIP in between, for two latencies and the time the addresses take; at
//! no time does neither. It leaves with priority 0, so that whoever has lost the claim meanwhile claims again.
//! A claim that comes after the time-out still counts, for the active-down interval.
//! After that the preference for this node rests until it is active again: because the peer failed, resigned, became
//! unfit (which makes it resign) or handed back.
//!
//! # With a witness: why two nodes never hold the VIP by themselves
//! Three parties, and whoever holds the VIP needs a second one behind it. An active node has a right to the VIP until
//! the latest of these:
//! - the end of its lease, counted from the moment it *asked*. The witness counts from *receipt*, later, and gives the
//!   lease to nobody else before;
//! - [`Machine::shortest_patience_of_peer`] after it *sent* the newest advert that the peer acknowledged while not
//!   active. The peer counts its silence from *receipt*, later, and claims by lease after that only;
//! - the same time after its claim, where the peer itself let it claim: resigned, asked for it, or is to be preempted.
//!   A peer that has resigned waits twice its active-down interval unless it hears us, in which case the last point
//!   holds. So a resignation may be one active-down interval under way.
//!
//! Where the witness does not answer and the nodes see each other, any two of the three are still enough; one alone is
//! not. The second node lets the first one claim and then waits as one that resigned. A node that is in Init lets the
//! other claim too: it would have to become fit and to wait as a newcomer first.
//!
//! It acts as if all of these ended a quarter of an interval earlier ([`RELEASE_MARGIN_DIVISOR`]), which is for taking
//! the addresses off and for clocks that do not run equally fast. No two of these rights overlap by what the network
//! does, only by intent: in a switchover and in a preemption until the other hears the claim, at most for that time.
//! What is left is a process that is frozen past its right, whose addresses stay until it wakes.
//! It needs authentic adverts, and the same advert interval on both nodes.

use std::time::{Duration, Instant};

use super::packet::{Heard, PRIORITY_RESIGNED};

mod active;
mod backup;
mod legacy;
mod terms;

#[cfg(test)]
mod tests;

pub use legacy::Legacy;
pub use terms::Action;
pub use terms::HandOverRefusal;
pub use terms::Input;
pub use terms::LeaseAnswer;
pub use terms::Parameters;
pub use terms::PeerSeen;
pub use terms::Preempt;
pub use terms::Reason;
pub use terms::Resignation;
pub use terms::Startup;
pub use terms::State;
pub use terms::Waiting;

use active::Claim;
use backup::Watch;

/// A peer gives an active node up after this many intervals without an advert, and its skew
/// (RFC 9568 section 6.1, `Active_Down_Interval`).
const MISSED_ADVERTS_MAX: u32 = 3;

/// With a witness, a machine that was not called for so many intervals was frozen: the shell calls it once in each, to
/// say hello.
const SLEEP_INTERVALS_MAX: u32 = 2;

/// The steps of a skew: a node of priority p waits (256 − p)/256 of an interval (RFC 9568 section 6.1).
const SKEW_STEPS: u32 = 256;

/// The highest priority that a node can have.
const PRIORITY_MAX: u32 = 254;

/// A right to the VIP ends this part of our interval earlier for its holder than for everybody else.
const RELEASE_MARGIN_DIVISOR: u32 = 4;

/// One virtual router on one node.
#[derive(Debug, Clone)]
pub struct Machine {
    parameters: Parameters,
    phase: Phase,
    since: Instant,
    reason: Option<Reason>,
    /// The peer's interval as it last told, ours until then (RFC 9568 section 6.1, `Active_Adver_Interval`).
    /// Kept while we are active: after a stall it is the best guess at how often the peer speaks.
    peer_interval: Duration,
    /// The last hello of a peer that was not active, and when it came.
    peer: Option<(Instant, PeerSeen)>,
    /// When the last hello of the peer came, whatever its state.
    peer_seen_at: Option<Instant>,
    epoch: u32,
    synced: bool,
    /// Since when we are fit and synced, without having been frozen.
    ready_since: Instant,
    /// When the last input was handled.
    ran_at: Instant,
    /// The VIP was handed over to the peer, so our preference rests.
    handed_over: bool,
}

/// A state and what only exists in it.
#[derive(Debug, Clone)]
enum Phase {
    Init,
    Backup(Watch),
    Active(Claim),
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
        let epoch = parameters.epoch;
        Self {
            parameters,
            phase: Phase::Init,
            since: now,
            reason: None,
            peer_interval,
            peer: None,
            peer_seen_at: None,
            epoch,
            synced: true,
            ready_since: now,
            ran_at: now,
            handed_over: false,
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Init => State::Init,
            Phase::Backup(_) => State::Backup,
            Phase::Active(_) => State::Active,
        }
    }

    /// When the state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Why the state was entered; `None` before the first change.
    pub fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }

    /// What the machine was built with.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Counts takeovers of the VIP by either node: the highest number that this node knows of. It grows by one whenever
    /// this node becomes active, before the actions of that are performed. Worth keeping over a restart.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What to wait for next, and until when; `None` for an active node, unless a switchover is under way.
    pub fn waiting_for(&self) -> Option<Waiting> {
        match &self.phase {
            Phase::Init => Some(Waiting::Fitness),
            Phase::Backup(watch) => Some(self.waiting_of(watch)),
            Phase::Active(claim) => claim.requested_until().map(|until| Waiting::Claim { until }),
        }
    }

    /// What every hello says in `claim_request`: our epoch, while a switchover to the peer is under way.
    pub fn claim_request(&self) -> Option<u32> {
        match &self.phase {
            Phase::Active(claim) => claim.requested_until().map(|_| self.epoch),
            Phase::Init | Phase::Backup(_) => None,
        }
    }

    /// With a witness and active: until when we may hold the VIP if nothing more comes from the witness and the peer.
    pub fn right_until(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Active(claim) if self.parameters.witness => Some(claim.right_until),
            Phase::Init | Phase::Backup(_) | Phase::Active(_) => None,
        }
    }

    /// When [`Input::Timer`] is due; `None` in Init, which waits for nothing.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Init => None,
            Phase::Backup(watch) => {
                let take_back_at = self.take_back_at(watch);
                Some(take_back_at.map_or(watch.active_down_at, |at| at.min(watch.active_down_at)))
            }
            Phase::Active(claim) => {
                let due = [Some(claim.advert_at), claim.requested_until(), self.right_until()];
                due.into_iter().flatten().min()
            }
        }
    }

    /// Takes an input and returns what to do, in order: mostly nothing, and never more than a few actions.
    ///
    /// When the call comes so late that the peer may have taken over, the process was frozen, and what it believes is
    /// old: the VIP is released before anything else, nothing is sent, and the input is ignored, except that
    /// [`Input::Unfit`] and [`Input::Stop`] still lead to Init, and [`Input::Synced`] and the interval of an
    /// [`Input::Heard`] are noted.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        let stall = self.stall(now);
        self.ran_at = now;
        if let Some(stall) = stall {
            self.woke(now, stall, input, &mut actions);
            return actions;
        }
        // These may bring the right that would otherwise be over. If they do not, the timer is next.
        if !matches!(input, Input::Lease(_) | Input::PeerSeen(_)) {
            self.release_without_right(now, &mut actions);
        }
        match input {
            Input::Fit => self.became_fit(now, &mut actions),
            Input::Unfit(why) => self.withdraw(now, Reason::Unfit(why), &mut actions),
            Input::Stop => self.withdraw(now, Reason::Stopping, &mut actions),
            Input::Heard(heard) => self.heard(now, heard, &mut actions),
            Input::PeerSeen(seen) => self.peer_seen(now, seen),
            Input::HandOver { force } => self.hand_over(now, force, &mut actions),
            Input::ClaimRequested { epoch } => self.claim_requested(now, epoch, &mut actions),
            Input::InUse(who) => self.in_use(now, who),
            Input::Lease(answer) => self.lease_answered(now, answer, &mut actions),
            Input::Synced(synced) => self.synced(now, synced),
            Input::Timer => self.timer(now, &mut actions),
        }
        actions
    }

    fn became_fit(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Init => {
                self.peer_interval = self.parameters.advert_interval.get();
                self.ready_since = now;
                let hold = match self.parameters.startup {
                    Startup::Prompt => Duration::ZERO,
                    Startup::Held => self.parameters.advert_interval.get(),
                };
                self.enter_backup(now, self.patience_of_a_newcomer() + hold, Reason::Ready, actions);
                self.begin_probing(actions);
            }
            Phase::Backup(_) | Phase::Active(_) => {}
        }
    }

    fn withdraw(&mut self, now: Instant, reason: Reason, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Init => return,
            Phase::Backup(_) => {}
            Phase::Active(_) => self.leave_active(Farewell::Resign, actions),
        }
        self.enter_init(now, reason, actions);
    }

    fn heard(&mut self, now: Instant, heard: Heard, actions: &mut Vec<Action>) {
        self.note_interval(&heard);
        match self.phase {
            Phase::Init => {}
            Phase::Backup(_) => self.heard_as_backup(now, heard, actions),
            Phase::Active(_) => self.heard_as_active(now, heard, actions),
        }
    }

    /// A last advert tells nothing of how often others follow.
    fn note_interval(&mut self, heard: &Heard) {
        if heard.priority != PRIORITY_RESIGNED {
            self.peer_interval = heard.interval.get();
        }
    }

    /// An active peer is no evidence of anything but its epoch: its adverts are.
    fn peer_seen(&mut self, now: Instant, seen: PeerSeen) {
        let is_newer = seen.epoch > self.epoch;
        let patience = self.patience_with(seen.interval.get());
        let was_gone = self.peer_seen_at.replace(now).is_none_or(|at| now.saturating_duration_since(at) >= patience);
        self.epoch = self.epoch.max(seen.epoch);
        match (seen.state, &mut self.phase) {
            (State::Active, _) => return,
            (State::Init | State::Backup, phase) => {
                // It was active after us, or may have been while we did not see it, and gave way before we heard of it.
                if (is_newer || was_gone)
                    && let Phase::Active(claim) = phase
                {
                    claim.owe_announcement();
                }
                self.peer = Some((now, seen));
            }
        }
        self.listen_again(now);
        if let Some(sent_at) = seen.acknowledged {
            self.extend_right(sent_at.min(now) + self.shortest_patience_of_peer());
        }
    }

    fn lease_answered(&mut self, now: Instant, answer: LeaseAnswer, actions: &mut Vec<Action>) {
        match (&self.phase, answer) {
            (Phase::Active(_), LeaseAnswer::Granted { until }) => self.extend_right(until),
            (Phase::Backup(_), LeaseAnswer::Granted { until }) => self.granted_as_backup(now, until, actions),
            // Asked for when we were something else: the peer may need it.
            (Phase::Init, LeaseAnswer::Granted { .. }) => actions.push(Action::GiveLeaseBack),
            (Phase::Backup(_), LeaseAnswer::Refused { holder }) => self.refused_as_backup(holder),
            // The right of an active node ends by itself.
            (Phase::Init | Phase::Active(_), LeaseAnswer::Refused { .. }) => {}
        }
    }

    fn synced(&mut self, now: Instant, synced: bool) {
        if synced && !self.synced {
            self.ready_since = now;
        }
        self.synced = synced;
    }

    fn timer(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Init => {}
            Phase::Backup(_) => self.timer_of_backup(now, actions),
            Phase::Active(_) => self.timer_of_active(now, actions),
        }
    }

    /// The process did not run for so long that nothing it believes holds.
    fn woke(&mut self, now: Instant, stall: Duration, input: Input, actions: &mut Vec<Action>) {
        let was_active = matches!(self.phase, Phase::Active(_));
        let was_requested = self.claim_request().is_some();
        if was_active {
            self.leave_active(Farewell::None, actions);
        }
        actions.push(Action::DiscardQueued);
        self.ready_since = now;
        match &input {
            Input::Unfit(why) => return self.enter_init(now, Reason::Unfit(why.clone()), actions),
            Input::Stop => return self.enter_init(now, Reason::Stopping, actions),
            Input::Synced(synced) => self.synced = *synced,
            Input::Heard(heard) => self.note_interval(heard),
            _ => {}
        }
        if was_active {
            self.enter_backup(now, self.active_down_interval(), Reason::Stalled(stall), actions);
        } else {
            self.watch_anew(now, actions);
        }
        match input {
            Input::HandOver { .. } if !was_requested => {
                actions.push(Action::HandOverFailed { reason: HandOverRefusal::NotActive });
            }
            Input::Lease(LeaseAnswer::Granted { .. }) if !was_active => actions.push(Action::GiveLeaseBack),
            _ => {}
        }
    }

    /// How long the process was frozen at least, if that was so long that the peer may have taken over.
    ///
    /// A backup that wakes late has queued adverts to read and should not claim on the strength of its own absence. With a
    /// witness, neither should it on that of a resignation among them, which is good for one active-down interval.
    fn stall(&self, now: Instant) -> Option<Duration> {
        let (deadline, stalled) = match &self.phase {
            Phase::Init => return None,
            Phase::Backup(Watch { active_down_at, .. }) => {
                let late = now.saturating_duration_since(*active_down_at);
                (active_down_at, late >= self.active_down_interval())
            }
            Phase::Active(Claim { advert_at, advert_sent_at, .. }) => {
                let unheard = now.saturating_duration_since(*advert_sent_at);
                (advert_at, unheard >= self.shortest_patience_of_peer())
            }
        };
        let slept = now.saturating_duration_since(self.ran_at);
        let is_late = self.parameters.witness && slept >= self.parameters.advert_interval.get() * SLEEP_INTERVALS_MAX;
        (stalled || is_late).then(|| now.saturating_duration_since(*deadline))
    }

    // Every change of state goes through these, and so has all its effects.

    fn enter_init(&mut self, now: Instant, reason: Reason, actions: &mut Vec<Action>) {
        self.enter(now, Phase::Init, reason, actions);
    }

    fn enter_backup(&mut self, now: Instant, patience: Duration, reason: Reason, actions: &mut Vec<Action>) {
        self.enter(now, Phase::Backup(Watch::new(now, patience)), reason, actions);
    }

    fn enter_active(&mut self, now: Instant, claim: Claim, reason: Reason, actions: &mut Vec<Action>) {
        // Otherwise it is due at once, when the addresses are there.
        if claim.advert_at > now {
            actions.push(Action::SendAdvert { priority: self.parameters.priority.get() });
        }
        actions.push(Action::AcquireVip);
        self.epoch = self.epoch.saturating_add(1);
        self.handed_over = false;
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
        if self.parameters.witness {
            actions.push(Action::GiveLeaseBack);
        }
    }

    fn enter(&mut self, now: Instant, phase: Phase, reason: Reason, actions: &mut Vec<Action>) {
        let from = self.state();
        let was_requested = self.claim_request().is_some();
        self.phase = phase;
        self.since = now;
        self.reason = Some(reason.clone());
        let handed_over = reason == Reason::HandedOver;
        actions.push(Action::RoleChanged { from, to: self.state(), reason });
        if was_requested && handed_over {
            actions.push(Action::HandOverDone);
        } else if was_requested {
            actions.push(Action::HandOverFailed { reason: HandOverRefusal::Interrupted });
        }
    }

    /// What the last hello of a peer that was not active said, if no three of them are missing since. The peer sends
    /// them at its own interval, which we have not heard in an advert yet if it was never active.
    fn recent_peer(&self, now: Instant) -> Option<PeerSeen> {
        let (seen_at, peer) = self.peer?;
        (now.saturating_duration_since(seen_at) < self.patience_with(peer.interval.get())).then_some(peer)
    }

    // Timers.

    /// How long a backup waits for an advert, by the interval at which the peer sends them
    /// (RFC 9568 section 6.1, `Active_Down_Interval`).
    fn active_down_interval(&self) -> Duration {
        self.patience_with(self.peer_interval)
    }

    /// How long to wait for a peer that speaks at this interval.
    fn patience_with(&self, interval: Duration) -> Duration {
        interval * MISSED_ADVERTS_MAX + self.skew_with(interval)
    }

    /// RFC 9568 section 6.1, `Skew_Time`: the higher the priority, the shorter.
    fn skew(&self) -> Duration {
        self.skew_with(self.peer_interval)
    }

    fn skew_with(&self, interval: Duration) -> Duration {
        interval * (SKEW_STEPS - u32::from(self.parameters.priority.get())) / SKEW_STEPS
    }

    /// How long a backup waits that has heard nothing yet. With a witness, the peer may be active by our own word, for
    /// as long as that may take to reach it and then counts; see the module's page.
    fn patience_of_a_newcomer(&self) -> Duration {
        let patience = self.active_down_interval();
        if self.parameters.witness { patience * 2 } else { patience }
    }

    /// The shortest time after our last advert at which any peer may have claimed the VIP: it counts our intervals,
    /// and its skew depends on its priority, which a backup does not tell. So the highest priority is assumed.
    fn shortest_patience_of_peer(&self) -> Duration {
        let interval = self.parameters.advert_interval.get();
        interval * MISSED_ADVERTS_MAX + interval * (SKEW_STEPS - PRIORITY_MAX) / SKEW_STEPS
    }
}
