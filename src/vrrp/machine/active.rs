//! The machine as the active node: how it claims, asserts its claim, hands it over and gives it up.

use std::time::{Duration, Instant};

use super::{Action, Farewell, HandOverRefusal, Machine, Phase, Reason, State};
use super::{MISSED_ADVERTS_MAX, RELEASE_MARGIN_DIVISOR};
use crate::vrrp::packet::{Heard, PRIORITY_RESIGNED};

/// The shortest time that the peer gets to claim when it is asked to.
const HAND_OVER_TIMEOUT_MIN: Duration = Duration::from_millis(500);

/// A rival is answered with an advert of ours, unless it was within this part of the shorter of our intervals: the same
/// advert comes once on every path.
const ASSERTION_DIVISOR: u32 = 4;

/// How long at most an advert that a resigned peer sent before may come after the resignation, on a slower path. A true
/// claim of the peer within this time is heard an interval later.
pub(super) const OVERTAKEN_MAX: Duration = Duration::from_millis(50);

/// The timers of an active node.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// `Adver_Timer`: when the next advert is due.
    pub(super) advert_at: Instant,
    /// When the last advert was sent: from here the peer counts.
    pub(super) advert_sent_at: Instant,
    /// When a rival was last answered, by our claim itself at first. An advert that was due says nothing here: the rival
    /// claims because it did not hear it.
    answered_at: Instant,
    /// When the addresses were last announced.
    announced_at: Instant,
    /// The peer claimed the addresses and may have announced them after us, so one more announcement has to follow.
    announce_owed: bool,
    /// The peer let us claim: until then, its adverts are from before it knew that we did.
    deaf_until: Instant,
    /// A switchover to the peer.
    switchover: Option<Switchover>,
    /// With a witness: until when we may hold the VIP, as things stand.
    pub(super) right_until: Instant,
}

/// A switchover to the peer.
#[derive(Debug, Clone, Copy)]
enum Switchover {
    /// The peer was asked to claim, and has until then.
    Requested(Instant),
    /// It did not claim in time, but until then it may still be about to.
    Late(Instant),
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

    /// Has the addresses announced with the next advert.
    pub(super) fn owe_announcement(&mut self) {
        self.announce_owed = true;
    }

    /// While a switchover is under way: when we give it up.
    pub(super) fn requested_until(&self) -> Option<Instant> {
        match self.switchover {
            Some(Switchover::Requested(until)) => Some(until),
            Some(Switchover::Late(_)) | None => None,
        }
    }
}

impl Machine {
    // How to become active.

    /// Without a witness.
    pub(super) fn claim_after_silence(&mut self, now: Instant, reason: Reason, actions: &mut Vec<Action>) {
        self.enter_active(now, self.claim(now), reason, actions);
    }

    /// By the word of the witness, unless it came too late to be worth anything.
    pub(super) fn claim_by_lease(&mut self, now: Instant, until: Instant, reason: Reason, actions: &mut Vec<Action>) {
        let claim = Claim { right_until: self.less_margin(until), ..self.claim(now) };
        if claim.right_until > now {
            self.enter_active(now, claim, reason, actions);
        }
    }

    pub(super) fn claim_after_resignation(&mut self, now: Instant, resigned_at: Instant, actions: &mut Vec<Action>) {
        let deaf_until = resigned_at + self.overtaken_max();
        self.claim_without_lease(now, Claim { deaf_until, ..self.claim(now) }, Reason::PeerResigned, actions);
    }

    /// The peer goes on as the active node until it hears us.
    pub(super) fn claim_on_request(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let deaf_until = now + self.active_down_interval();
        let claim = Claim { advert_at: now, deaf_until, ..self.claim(now) };
        self.claim_without_lease(now, claim, Reason::PeerHandedOver, actions);
    }

    pub(super) fn claim_from_lesser(&mut self, now: Instant, priority: u8, actions: &mut Vec<Action>) {
        let claim = Claim { advert_at: now, ..self.claim(now) };
        self.claim_without_lease(now, claim, Reason::PeerLower(priority), actions);
    }

    /// By the word of the peer, which is as good as a lease at first.
    pub(super) fn claim_without_lease(
        &mut self,
        now: Instant,
        claim: Claim,
        reason: Reason,
        actions: &mut Vec<Action>,
    ) {
        let asks_with_its_advert = claim.advert_at <= now;
        self.enter_active(now, claim, reason, actions);
        if self.parameters.witness && !asks_with_its_advert {
            actions.push(Action::AskLease);
        }
    }

    pub(super) fn claim(&self, now: Instant) -> Claim {
        Claim {
            advert_at: now + self.parameters.advert_interval.get(),
            advert_sent_at: now,
            answered_at: now,
            announced_at: now,
            announce_owed: false,
            deaf_until: now,
            switchover: None,
            right_until: self.less_margin(now + self.shortest_patience_of_peer()),
        }
    }

    // While active.

    pub(super) fn heard_as_active(&mut self, now: Instant, heard: Heard, actions: &mut Vec<Action>) {
        let Phase::Active(claim) = &self.phase else { return };
        let own = self.parameters.priority.get();
        let outranks = heard.priority > own || heard.priority == own && heard.source > heard.local;
        if heard.priority == PRIORITY_RESIGNED {
            self.listen_again(now);
            return self.assert_claim(now, heard, actions);
        }
        match claim.switchover {
            Some(Switchover::Requested(_)) => self.handed_over(now, actions),
            Some(Switchover::Late(until)) if !outranks && now < until => self.handed_over(now, actions),
            Some(Switchover::Late(_)) | None if now < claim.deaf_until => {}
            Some(Switchover::Late(_)) | None if heard.priority > own => {
                self.give_way(now, Reason::PeerHigher(heard.priority), actions);
            }
            Some(Switchover::Late(_)) | None if outranks => {
                self.give_way(now, Reason::PeerAddressHigher(heard.source), actions);
            }
            Some(Switchover::Late(_)) | None => self.assert_claim(now, heard, actions),
        }
    }

    /// The peer is not active any more, so if it claims, it does so anew: from here on only those of its adverts do not
    /// count that it sent before and that come on a slower path.
    pub(super) fn listen_again(&mut self, now: Instant) {
        let deaf_until = now + self.overtaken_max();
        if let Phase::Active(claim) = &mut self.phase {
            claim.deaf_until = claim.deaf_until.min(deaf_until);
        }
    }

    /// How long after a word of the peer an earlier one may come, on a slower path.
    pub(super) fn overtaken_max(&self) -> Duration {
        self.peer_interval.min(OVERTAKEN_MAX)
    }

    /// A better node is active too. No advert of priority 0: the peer needs no call.
    fn give_way(&mut self, now: Instant, reason: Reason, actions: &mut Vec<Action>) {
        self.leave_active(Farewell::Yield, actions);
        self.enter_backup(now, self.active_down_interval(), reason, actions);
    }

    /// The peer claimed, as we asked it to.
    fn handed_over(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.handed_over = true;
        self.leave_active(Farewell::Resign, actions);
        self.enter_backup(now, self.patience_of_a_newcomer(), Reason::HandedOver, actions);
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
        let repeats_within = interval.min(heard.interval.get()) / ASSERTION_DIVISOR;
        let is_repeated = now.saturating_duration_since(claim.answered_at) < repeats_within;
        let has_resigned = heard.priority == PRIORITY_RESIGNED;
        // The resignation that we follow comes by every path. Whoever sent it announces no more.
        if is_repeated && has_resigned {
            return;
        }
        if !is_repeated {
            actions.push(Action::SendAdvert { priority });
            claim.advert_sent_at = now;
            claim.answered_at = now;
        }
        claim.owe_announcement();
        if has_resigned {
            claim.advert_at = now + interval;
        } else {
            claim.announce(now, interval, actions);
        }
    }

    pub(super) fn timer_of_active(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let late_until = now + self.active_down_interval();
        let Phase::Active(claim) = &mut self.phase else { return };
        if claim.requested_until().is_some_and(|until| now >= until) {
            claim.switchover = Some(Switchover::Late(late_until));
            actions.push(Action::HandOverFailed { reason: HandOverRefusal::PeerDidNotClaim });
        }
        if now >= claim.advert_at {
            self.advert_due(now, actions);
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
        if claim.requested_until().is_some() {
            actions.push(Action::RequestClaim);
        }
        if self.parameters.witness {
            actions.push(Action::AskLease);
        }
    }

    // Switchover.

    /// Whether [`Input::HandOver`](super::Input::HandOver) would begin a switchover now, and why not.
    pub fn hand_over_is_refused(&self, now: Instant, force: bool) -> Option<HandOverRefusal> {
        match &self.phase {
            Phase::Init | Phase::Backup(_) => Some(HandOverRefusal::NotActive),
            Phase::Active(_) => self.hand_over_refusal(now, force),
        }
    }

    pub(super) fn hand_over(&mut self, now: Instant, force: bool, actions: &mut Vec<Action>) {
        let timeout = (self.parameters.advert_interval.get() * MISSED_ADVERTS_MAX).max(HAND_OVER_TIMEOUT_MIN);
        let refusal = self.hand_over_refusal(now, force);
        match (&mut self.phase, refusal) {
            (Phase::Init | Phase::Backup(_), _) => {
                actions.push(Action::HandOverFailed { reason: HandOverRefusal::NotActive });
            }
            (Phase::Active(claim), _) if claim.requested_until().is_some() => {}
            (Phase::Active(_), Some(reason)) => actions.push(Action::HandOverFailed { reason }),
            (Phase::Active(claim), None) => {
                claim.switchover = Some(Switchover::Requested(now + timeout));
                actions.push(Action::RequestClaim);
            }
        }
    }

    /// What stands against handing over. A peer in Init could not claim, whatever the operator wants.
    fn hand_over_refusal(&self, now: Instant, force: bool) -> Option<HandOverRefusal> {
        let Some(peer) = self.recent_peer(now) else { return Some(HandOverRefusal::PeerNotSeen) };
        if peer.state == State::Init || !(peer.fit || force) {
            return Some(HandOverRefusal::PeerUnfit);
        }
        (!(peer.synced || force)).then_some(HandOverRefusal::PeerNotSynced)
    }

    // The right to be active, with a witness.

    /// Something gave us the right until then.
    pub(super) fn extend_right(&mut self, until: Instant) {
        let until = self.less_margin(until);
        if let Phase::Active(claim) = &mut self.phase {
            claim.right_until = claim.right_until.max(until);
        }
    }

    pub(super) fn release_without_right(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.right_until().is_some_and(|until| now >= until) {
            self.leave_active(Farewell::Resign, actions);
            self.enter_backup(now, self.patience_of_a_newcomer(), Reason::LostWitness, actions);
        }
    }

    fn less_margin(&self, until: Instant) -> Instant {
        until.checked_sub(self.parameters.advert_interval.get() / RELEASE_MARGIN_DIVISOR).unwrap_or(until)
    }
}
