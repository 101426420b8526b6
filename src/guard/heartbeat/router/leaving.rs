//! The end of a router whose guard goes on as another program: what the peer and the witness are told before, so that both
//! wait until the next one speaks, and what is left for it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::super::super::leases::{Lease, LeaseAnswer};
use super::super::super::speaker;
use super::Router;
use crate::net::clock::since_boot;
use crate::units::AdvertInterval;
use crate::vrrp::hello::Hello;
use crate::vrrp::machine::{self, State};
use crate::vrrp::witness;

/// What the last advert of a guard says of its interval, at least, where another one goes on for it in the same process: the
/// peer then waits three times that long, and a new program has as much time to start. With a witness the lease is asked for
/// accordingly.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often that advert is sent, as one may be lost.
const LAST_WORDS: u32 = 2;

/// Time that the witness gets to lend the VIP for longer. Without its answer we go on all the same, with the right that
/// there is.
const LEASE_TIMEOUT: Duration = Duration::from_millis(300);

/// What is left of a VIP for the guard that goes on with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Legacy {
    /// What its machine leaves.
    pub machine: machine::Legacy,
    /// What its speaker leaves.
    pub speaker: speaker::Legacy,
    /// The stamp of its last advert.
    pub stamp: u64,
    pub(super) lease: Option<witness::Legacy>,
    /// When, in time since the system started.
    left_at: Duration,
    /// The interval that its last advert said.
    interval: Duration,
}

impl Legacy {
    /// Whether the peer, which waits three intervals, may have taken over since.
    pub fn is_stale(&self) -> bool {
        self.passed() >= self.interval * 3
    }

    /// Has it begin as at a start. What was said to the peer, which takes nothing twice, still counts.
    pub fn begin_anew(&mut self) {
        self.machine.state = State::Init;
    }

    pub(super) fn passed(&self) -> Duration {
        since_boot().saturating_sub(self.left_at)
    }
}

/// A guard that goes on as another program waits for this router.
pub(super) struct Leaving {
    reply: oneshot::Sender<Legacy>,
    /// The lease is to last until then.
    lease_until: Instant,
    /// It is waited for until then.
    pub(super) until: Instant,
}

impl Router {
    /// Leaves at the end of this turn. Where the VIP is held by the word of a witness, only when that has lent it for as long
    /// as the peer is about to wait, or did not answer in time; until then everything goes on, and every advert asks again.
    pub(super) fn begin_to_leave(&mut self, now: Instant, reply: oneshot::Sender<Legacy>) {
        let lease = self.lease.as_ref().filter(|_| self.machine.state() == State::Active);
        let (time, timeout) = match lease {
            Some(lease) => (lease.ask_for_longer(self.last_interval()), LEASE_TIMEOUT),
            None => (Duration::ZERO, Duration::ZERO),
        };
        self.leaving = Some(Leaving { reply, lease_until: now + time, until: now + timeout });
    }

    /// The witness may have said what is waited for.
    pub(super) fn note_lease(&mut self, now: Instant, answer: &LeaseAnswer) {
        if let (Some(leaving), LeaseAnswer::Granted { until }) = (&mut self.leaving, answer)
            && *until >= leaving.lease_until
        {
            leaving.until = now;
        }
    }

    /// Whether this router is to end, as it has left everything to the next one.
    pub(super) fn leaves(&mut self, now: Instant) -> bool {
        let is_active = self.machine.state() == State::Active;
        let Some(leaving) = self.leaving.take_if(|leaving| now >= leaving.until || !is_active) else { return false };
        // The guard lost patience, and ends.
        let _gone = leaving.reply.send(self.leave(self.clock.now()));
        true
    }

    /// Says a last word by which the peer waits longer than it takes the next process to speak.
    fn leave(&mut self, now: Instant) -> Legacy {
        self.settle(Err("a new program takes over on this node: ask again".to_owned()));
        let interval = self.speaker.slow_down(self.last_interval());
        let priority = self.machine.parameters().priority.get();
        let mut hello = Hello { interval, ..self.present_hello(priority) };
        for _ in 0..LAST_WORDS {
            if self.machine.state() == State::Active {
                hello.advert_stamp = self.stamps.next(now);
                drop(self.speaker.advertise(priority, &hello));
            } else if self.speaker.has_links() {
                drop(self.speaker.hello(&hello));
            }
        }
        Legacy {
            machine: self.machine.leave(now),
            speaker: self.speaker.leave(),
            stamp: self.stamps.last(),
            lease: self.lease.as_ref().and_then(Lease::leave),
            left_at: since_boot(),
            interval: interval.get(),
        }
    }

    /// What the last word says of our interval.
    fn last_interval(&self) -> AdvertInterval {
        let own = self.machine.parameters().advert_interval;
        AdvertInterval::new(PATIENCE).map_or(own, |patience| own.max(patience))
    }
}
