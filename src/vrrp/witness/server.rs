//! The table of the witness.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{FRESH, Key, Kind, LEASE_MAX, LEASE_MIN, Message, Name, QUIET, Rejection, wire_ms};

/// VIPs of all pairs together.
const VIPS_MAX: usize = 1024;

/// Nodes that ask for one VIP. A pair has two; the rest is for nodes that were replaced.
const NODES_MAX: usize = 4;

/// By how much of a lease the witness counts longer than it says, in case its clock runs faster than a node's. Clocks of
/// machines differ by less than a thousandth.
const CLOCK_MARGIN_DIVISOR: u32 = 64;

/// The witness: who holds what, and until when.
#[derive(Debug)]
pub struct Server {
    keys: Vec<Key>,
    boot: u64,
    started: Instant,
    last_stamp: u64,
    vips: HashMap<([u8; 8], Name), Vip>,
}

/// What is kept of a VIP.
#[derive(Debug, Default)]
struct Vip {
    lease: Option<Lease>,
    /// Who held it last, to tell a change from a renewal after a pause.
    last_holder: Option<Name>,
    /// The last request taken of each node.
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Lease {
    node: Name,
    /// Of the node: two processes under one name are two.
    boot: u64,
    expires: Instant,
}

#[derive(Debug)]
struct Seen {
    node: Name,
    stamp: u64,
    number: u64,
}

/// What is to be sent back, and what is worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// To where the request came from.
    pub datagram: Vec<u8>,
    /// What became different.
    pub change: Option<Change>,
}

/// A lease that changed hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was lent to another node than the last time, or for the first time.
    Granted {
        /// The pair, as on the wire.
        pair: [u8; 8],
        /// What.
        vip: Name,
        /// To whom.
        node: Name,
        /// Who had it before, and let it go or run out.
        before: Option<Name>,
    },
    /// Its holder gave it back.
    GivenBack {
        /// The pair, as on the wire.
        pair: [u8; 8],
        /// What.
        vip: Name,
        /// Who.
        node: Name,
    },
}

/// What a request comes to.
enum Verdict {
    Granted(Duration),
    Refused { holder: Name, left: Duration },
    Free,
    Stale,
    Starting(Duration),
    Full,
}

impl Server {
    /// An empty table. `boot` is random and never 0; `now` is when this witness started: no lease that an earlier one gave
    /// may be younger.
    pub fn new(keys: Vec<Key>, boot: u64, now: Instant) -> Self {
        Self { keys, boot, started: now, last_stamp: 0, vips: HashMap::new() }
    }

    /// Whether leases of an earlier witness may still run.
    pub fn is_quiet(&self, now: Instant) -> bool {
        now < self.started + QUIET
    }

    /// Takes a datagram.
    ///
    /// # Errors
    /// Why it gets no answer. The table is as before.
    pub fn handle(&mut self, now: Instant, datagram: &[u8]) -> Result<Reply, Rejection> {
        let (key, request) = Message::decode(datagram, &self.keys)?;
        let key = key.clone();
        let node = request.node.clone().ok_or(Rejection::Name)?;
        let (verdict, change) = match request.kind {
            Kind::Ask => self.asked(now, &key, &request, &node),
            Kind::GiveBack => self.given_back(now, &key, &request, &node),
            Kind::Look => (self.look(now, &key, &request), None),
            Kind::Granted | Kind::Refused | Kind::Free | Kind::Stale | Kind::Starting | Kind::Full => {
                return Err(Rejection::Kind);
            }
        };
        let datagram = self.answer(now, &key, request, node, verdict);
        Ok(Reply { datagram, change })
    }

    fn asked(&mut self, now: Instant, key: &Key, request: &Message, node: &Name) -> (Verdict, Option<Change>) {
        let is_quiet = self.is_quiet(now);
        let vip = match self.take(now, key, request, node) {
            Ok(vip) => vip,
            Err(verdict) => return (verdict, None),
        };
        if let Some(refused) = vip.lease_of_another(now, node, request.node_boot) {
            return (refused, None);
        }
        let is_renewal = vip.lease.is_some() || request.holds;
        if is_quiet && !is_renewal {
            return (Verdict::Starting((self.started + QUIET).saturating_duration_since(now)), None);
        }
        let time = Duration::from_millis(u64::from(request.time_ms)).clamp(LEASE_MIN, LEASE_MAX);
        let expires = now + time + time / CLOCK_MARGIN_DIVISOR;
        // Never sooner than was said before: the answer that shortened it might not arrive.
        let expires = vip.lease.take().map_or(expires, |lease| lease.expires.max(expires));
        vip.lease = Some(Lease { node: node.clone(), boot: request.node_boot, expires });
        let before = vip.last_holder.replace(node.clone());
        let has_changed = before.as_ref() != Some(node);
        let change = Change::Granted { pair: key.pair(), vip: request.vip.clone(), node: node.clone(), before };
        (Verdict::Granted(time), has_changed.then_some(change))
    }

    fn given_back(&mut self, now: Instant, key: &Key, request: &Message, node: &Name) -> (Verdict, Option<Change>) {
        let vip = match self.take(now, key, request, node) {
            Ok(vip) => vip,
            Err(verdict) => return (verdict, None),
        };
        if let Some(refused) = vip.lease_of_another(now, node, request.node_boot) {
            return (refused, None);
        }
        let change = Change::GivenBack { pair: key.pair(), vip: request.vip.clone(), node: node.clone() };
        (Verdict::Free, vip.lease.take().map(|_| change))
    }

    /// Changes nothing, so it may be as old as it likes.
    fn look(&self, now: Instant, key: &Key, request: &Message) -> Verdict {
        let vip = self.vips.get(&(key.pair(), request.vip.clone()));
        let lease = vip.and_then(|vip| vip.lease.as_ref()).filter(|lease| lease.expires > now);
        lease.map_or(Verdict::Free, |lease| lease.refusal(now))
    }

    /// The VIP of a request that is fresh, with its lease if that still runs.
    fn take(&mut self, now: Instant, key: &Key, request: &Message, node: &Name) -> Result<&mut Vip, Verdict> {
        let clock = micros(now.saturating_duration_since(self.started));
        let is_of_this_run = request.witness_boot == self.boot && request.stamp <= self.last_stamp;
        if !is_of_this_run || clock.saturating_sub(request.stamp) > micros(FRESH) {
            return Err(Verdict::Stale);
        }
        let place = (key.pair(), request.vip.clone());
        if !self.vips.contains_key(&place) && self.vips.len() >= VIPS_MAX {
            self.make_room(now, clock);
            if self.vips.len() >= VIPS_MAX {
                return Err(Verdict::Full);
            }
        }
        let vip = self.vips.entry(place).or_default();
        vip.take(clock, request, node)?;
        vip.lease.take_if(|lease| lease.expires <= now);
        Ok(vip)
    }

    /// Forgets VIPs that nobody holds and that nobody has a usable stamp for.
    fn make_room(&mut self, now: Instant, clock: u64) {
        self.vips.retain(|_, vip| {
            vip.seen.retain(|seen| seen.is_fresh(clock));
            !vip.seen.is_empty() || vip.lease.as_ref().is_some_and(|lease| lease.expires > now)
        });
    }

    fn answer(&mut self, now: Instant, key: &Key, request: Message, asker: Name, verdict: Verdict) -> Vec<u8> {
        let clock = micros(now.saturating_duration_since(self.started));
        self.last_stamp = clock.max(self.last_stamp.saturating_add(1));
        let (kind, node, time) = match verdict {
            Verdict::Granted(time) => (Kind::Granted, Some(asker), time),
            Verdict::Refused { holder, left } => (Kind::Refused, Some(holder), left),
            Verdict::Free => (Kind::Free, None, Duration::ZERO),
            Verdict::Stale => (Kind::Stale, None, Duration::ZERO),
            Verdict::Starting(left) => (Kind::Starting, None, left),
            Verdict::Full => (Kind::Full, None, Duration::ZERO),
        };
        let answer = Message {
            kind,
            holds: false,
            witness_boot: self.boot,
            stamp: self.last_stamp,
            time_ms: wire_ms(time),
            node,
            ..request
        };
        answer.encode(key)
    }
}

impl Vip {
    /// Notes a request as taken. Of one node none is taken that is not newer than the last one: its number within one
    /// boot, and the stamp, which no two boots share, across them.
    fn take(&mut self, clock: u64, request: &Message, node: &Name) -> Result<(), Verdict> {
        let known = self.seen.iter_mut().find(|seen| seen.node == *node);
        if let Some(seen) = known {
            if (request.stamp, request.number) <= (seen.stamp, seen.number) {
                return Err(Verdict::Stale);
            }
            (seen.stamp, seen.number) = (request.stamp, request.number);
            return Ok(());
        }
        if self.seen.len() >= NODES_MAX {
            self.seen.retain(|seen| seen.is_fresh(clock));
        }
        if self.seen.len() >= NODES_MAX {
            return Err(Verdict::Full);
        }
        self.seen.push(Seen { node: node.clone(), stamp: request.stamp, number: request.number });
        Ok(())
    }

    fn lease_of_another(&self, now: Instant, node: &Name, boot: u64) -> Option<Verdict> {
        let lease = self.lease.as_ref().filter(|lease| lease.node != *node || lease.boot != boot);
        lease.map(|lease| lease.refusal(now))
    }
}

impl Lease {
    fn refusal(&self, now: Instant) -> Verdict {
        Verdict::Refused { holder: self.node.clone(), left: self.expires.saturating_duration_since(now) }
    }
}

impl Seen {
    /// Whether a request with this stamp would still be looked at, and so has to be told from a repetition.
    fn is_fresh(&self, clock: u64) -> bool {
        clock.saturating_sub(self.stamp) <= micros(FRESH)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
