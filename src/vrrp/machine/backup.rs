//! The machine as a backup: what it waits for, and when it claims.

use std::time::{Duration, Instant};

use super::active::OVERTAKEN_MAX;
use super::{Action, Machine, PeerSeen, Phase, Preempt, Reason, Resignation, Startup, State, Waiting};
use crate::vrrp::packet::{Heard, PRIORITY_RESIGNED};

/// The shortest time to wait after somebody answered for the addresses.
const IN_USE_WAIT_MIN: Duration = Duration::from_secs(1);

/// For how many intervals it counts that the peer said that it takes no part. A newcomer waits for six and more, and a
/// claim on the peer's word is good for three.
const PEER_OUT_INTERVALS_MAX: u32 = 2;

/// The timers of a backup.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// Since when we stand by for the peer: when we became a backup, woke from a stall, or let the peer claim.
    began_at: Instant,
    /// `Active_Down_Timer`: when the wait is over.
    pub(super) active_down_at: Instant,
    /// What it will mean when that time comes.
    expiry: Expiry,
    /// The peer is active with this lower priority, since about then.
    lesser_peer: Option<(u8, Instant)>,
    /// The first wait, in which nobody may be using the addresses; over as soon as the peer is heard.
    probing: Option<Probing>,
}

/// What it means when a backup's wait is over.
#[derive(Debug, Clone)]
enum Expiry {
    /// No advert came since then.
    Silence(Instant),
    /// The peer resigned then, and the skew is over.
    Resignation(Instant),
    /// No advert came since then, and the witness has not given us the lease.
    NoLease {
        /// Since then.
        since: Instant,
        /// Who has it, if the witness said so.
        holder: Option<String>,
    },
}

/// What is known about the use of the addresses before the first claim.
#[derive(Debug, Clone, Default)]
struct Probing {
    /// Who answered for them last.
    user: Option<String>,
    /// Whether anybody did since we last asked.
    answered: bool,
}

impl Watch {
    /// Waits from now on.
    pub(super) fn new(now: Instant, patience: Duration) -> Self {
        let (active_down_at, expiry) = (now + patience, Expiry::Silence(now));
        Self { began_at: now, active_down_at, expiry, lesser_peer: None, probing: None }
    }

    /// Restarts the wait.
    fn wait(&mut self, until: Instant, meaning: Expiry) {
        self.active_down_at = until;
        self.expiry = meaning;
    }
}

impl Machine {
    pub(super) fn heard_as_backup(&mut self, now: Instant, heard: Heard, actions: &mut Vec<Action>) {
        if heard.priority == PRIORITY_RESIGNED {
            return self.peer_resigned(now, actions);
        }
        let until = now + self.active_down_interval();
        let is_lesser = heard.priority < self.parameters.priority.get();
        let Phase::Backup(watch) = &mut self.phase else { return };
        watch.probing = None;
        let since = watch.lesser_peer.map_or(now, |(_, since)| since);
        watch.lesser_peer = is_lesser.then_some((heard.priority, since));
        watch.wait(until, Expiry::Silence(now));
    }

    fn peer_resigned(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let (skew, overtaken_max) = (self.skew(), self.overtaken_max());
        let Phase::Backup(watch) = &self.phase else { return };
        if self.parameters.witness && now < watch.began_at + overtaken_max {
            // It may be from before we stood by, on a slower path: the peer may have followed our own resignation since.
            return;
        }
        match self.parameters.resignation {
            Resignation::AtOnce => self.claim_after_resignation(now, now, actions),
            Resignation::AfterSkew => {
                let Phase::Backup(watch) = &mut self.phase else { return };
                watch.probing = None;
                watch.lesser_peer = None;
                watch.wait(now + skew, Expiry::Resignation(now));
            }
        }
    }

    /// The active peer wants us to claim. It has looked at how fit we are, or its operator forces it.
    pub(super) fn claim_requested(&mut self, now: Instant, epoch: u32, actions: &mut Vec<Action>) {
        let is_stale = epoch < self.epoch;
        self.epoch = self.epoch.max(epoch);
        if !is_stale && matches!(self.phase, Phase::Backup(_)) {
            self.claim_on_request(now, actions);
        }
    }

    pub(super) fn timer_of_backup(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Backup(watch) = &self.phase else { return };
        if now >= watch.active_down_at {
            return self.wait_is_over(now, actions);
        }
        if let (Some((priority, _)), Some(at)) = (watch.lesser_peer, self.take_back_at(watch))
            && now >= at
        {
            self.claim_from_lesser(now, priority, actions);
        }
    }

    fn wait_is_over(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let in_use_until = now + self.in_use_wait();
        let Phase::Backup(watch) = &mut self.phase else { return };
        if let Some(probing) = &mut watch.probing
            && probing.answered
        {
            probing.answered = false;
            watch.active_down_at = in_use_until;
            actions.push(Action::ProbeAddresses);
            return;
        }
        match watch.expiry.clone() {
            Expiry::Resignation(at) => self.claim_after_resignation(now, at, actions),
            Expiry::Silence(since) if self.parameters.witness => self.ask_for_lease(now, since, actions),
            Expiry::NoLease { since, holder: None } if self.concedes(now) => self.concede(now, since, actions),
            Expiry::NoLease { since, holder: None } if self.peer_is_out(now) => {
                let reason = Reason::PeerSilent(now.saturating_duration_since(since));
                self.claim_without_lease(now, self.claim(now), reason, actions);
            }
            Expiry::NoLease { since, .. } => self.ask_for_lease(now, since, actions),
            Expiry::Silence(since) => {
                let reason = Reason::PeerSilent(now.saturating_duration_since(since));
                self.claim_after_silence(now, reason, actions);
            }
        }
    }

    fn ask_for_lease(&mut self, now: Instant, since: Instant, actions: &mut Vec<Action>) {
        let until = now + self.parameters.advert_interval.get();
        let Phase::Backup(watch) = &mut self.phase else { return };
        watch.lesser_peer = None;
        watch.wait(until, Expiry::NoLease { since, holder: None });
        actions.push(Action::AskLease);
    }

    /// Both nodes are there and see each other, nobody is active, and the witness does not answer. Two of three are
    /// enough, so the second node lets the first one claim, in the way of a node that resigns.
    fn concedes(&self, now: Instant) -> bool {
        let is_claimant = |peer: PeerSeen| peer.state == State::Backup && peer.fit;
        self.parameters.startup == Startup::Held && self.recent_peer(now).is_some_and(is_claimant)
    }

    /// As before, and the peer takes no part. It said so so lately that it cannot be back before our claim has to be
    /// backed by something else.
    fn peer_is_out(&self, now: Instant) -> bool {
        let lately = self.parameters.advert_interval.get() * PEER_OUT_INTERVALS_MAX;
        let is_recent = |seen_at: Instant| now.saturating_duration_since(seen_at) < lately;
        self.peer.is_some_and(|(seen_at, peer)| peer.state == State::Init && is_recent(seen_at))
    }

    fn concede(&mut self, now: Instant, since: Instant, actions: &mut Vec<Action>) {
        let until = now + self.patience_of_a_newcomer();
        let Phase::Backup(watch) = &mut self.phase else { return };
        watch.began_at = now;
        watch.wait(until, Expiry::Silence(since));
        actions.push(Action::SendAdvert { priority: PRIORITY_RESIGNED });
    }

    /// The lease, if we still want it.
    pub(super) fn granted_as_backup(&mut self, now: Instant, until: Instant, actions: &mut Vec<Action>) {
        let Phase::Backup(watch) = &self.phase else { return };
        match watch.expiry {
            Expiry::NoLease { since, .. } => {
                let reason = Reason::PeerSilent(now.saturating_duration_since(since));
                self.claim_by_lease(now, until, reason, actions);
            }
            // The peer spoke after we asked.
            Expiry::Silence(_) | Expiry::Resignation(_) => actions.push(Action::GiveLeaseBack),
        }
    }

    pub(super) fn refused_as_backup(&mut self, by: String) {
        if let Phase::Backup(Watch { expiry: Expiry::NoLease { holder, .. }, .. }) = &mut self.phase {
            *holder = Some(by);
        }
    }

    /// Only before anything was heard of the peer: a failover does not wait for strangers.
    pub(super) fn in_use(&mut self, now: Instant, who: String) {
        let until = now + self.in_use_wait();
        let Phase::Backup(watch) = &mut self.phase else { return };
        let Some(probing) = &mut watch.probing else { return };
        probing.user = Some(who);
        probing.answered = true;
        let (Expiry::Silence(since) | Expiry::NoLease { since, .. }) = watch.expiry else { return };
        let until = until.max(watch.active_down_at);
        watch.wait(until, Expiry::Silence(since));
    }

    /// Asks whether somebody uses the addresses, at the start of the first wait.
    pub(super) fn begin_probing(&mut self, actions: &mut Vec<Action>) {
        if self.parameters.probe_first
            && let Phase::Backup(watch) = &mut self.phase
        {
            watch.probing = Some(Probing::default());
            actions.push(Action::ProbeAddresses);
        }
    }

    /// Begins to wait as if nothing had been heard, after a stall.
    pub(super) fn watch_anew(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let patience = self.active_down_interval();
        let Phase::Backup(watch) = &mut self.phase else { return };
        let was_probing = watch.probing.is_some();
        *watch = Watch::new(now, patience);
        if was_probing {
            self.begin_probing(actions);
        }
    }

    fn in_use_wait(&self) -> Duration {
        self.active_down_interval().max(IN_USE_WAIT_MIN)
    }

    /// When a preferred node takes the VIP back from the lesser peer that is active; `None` while it does not.
    ///
    /// A peer that has claimed because we resigned does not listen to us at first, see `OVERTAKEN_MAX`.
    pub(super) fn take_back_at(&self, watch: &Watch) -> Option<Instant> {
        let (_, since) = watch.lesser_peer?;
        match self.parameters.preempt {
            Preempt::WhenHigher { hold } if self.synced && !self.handed_over => {
                let heard_at = since + self.parameters.advert_interval.get().min(OVERTAKEN_MAX);
                let ready_at = self.ready_since + hold;
                Some(ready_at.max(heard_at).max(watch.began_at + self.active_down_interval()))
            }
            Preempt::WhenHigher { .. } | Preempt::Never => None,
        }
    }

    pub(super) fn waiting_of(&self, watch: &Watch) -> Waiting {
        let until = watch.active_down_at;
        let prefers = watch.lesser_peer.is_some() && self.parameters.preempt != Preempt::Never;
        match &watch.expiry {
            Expiry::Resignation(_) => Waiting::Skew { until },
            Expiry::NoLease { since, holder } => Waiting::Lease { since: *since, holder: holder.clone(), until },
            Expiry::Silence(since) => match (&watch.probing, self.take_back_at(watch)) {
                (Some(Probing { user: Some(who), .. }), _) => Waiting::AddressInUse { who: who.clone(), until },
                (_, Some(until)) => Waiting::Hold { until },
                _ if prefers && self.handed_over => Waiting::HandedOver,
                _ if prefers && !self.synced => Waiting::Sync,
                _ => Waiting::Silence { since: *since, until },
            },
        }
    }
}
