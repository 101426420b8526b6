//! One bucket. It keeps no count of tokens but the time at which it will be full again, which says both how many are missing
//! and since when (the generic cell rate algorithm, ITU-T I.371): a token is the time that it takes to come back.

use std::time::Duration;

use super::{Change, Terms, Verdict, nanos};

/// Terms as times, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// One request.
    cost: u64,
    /// All tokens of a full bucket.
    capacity: u64,
    /// What may be missing at most. Only two nodes that let requests through at once come over the capacity, and then a
    /// client waits for the time of the limit and that of one request, not longer.
    missing_max: u64,
}

/// A client's bucket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// When it is full again, in nanoseconds since the origin: the high half and the low one, which need no padding.
    full_at: [u32; 2],
    /// As in [`Change`].
    pub(super) total: u32,
    /// The other node's total, as it last said.
    pub(super) peer_total: u32,
    /// As in [`Change`].
    life: u16,
    peer_life: u16,
}

impl Rate {
    pub(super) fn new(terms: &Terms) -> Self {
        let per = nanos(terms.per);
        let cost = (per / u64::from(terms.requests.max(1))).max(1);
        let capacity = cost.saturating_mul(u64::from(terms.burst.max(1)));
        Self { cost, capacity, missing_max: capacity.saturating_add(per) }
    }

    pub(super) fn to_thousandths(self, missing: u64) -> u32 {
        // Rounded up, so that what came in whole tokens stays so.
        u32::try_from((u128::from(missing) * 1_000).div_ceil(u128::from(self.cost))).unwrap_or(u32::MAX)
    }

    fn of_thousandths(self, missing: u32) -> u64 {
        u64::try_from(u128::from(missing) * u128::from(self.cost) / 1_000).unwrap_or(u64::MAX)
    }

    fn of_requests(self, count: u32) -> u64 {
        self.cost.saturating_mul(u64::from(count))
    }
}

impl Bucket {
    /// A full one.
    pub(super) fn new(life: u16) -> Self {
        Self { life, ..Self::default() }
    }

    pub(super) fn is_full(&self, now: u64) -> bool {
        self.missing(now) == 0
    }

    /// Time until it is full.
    pub(super) fn missing(&self, now: u64) -> u64 {
        let [high, low] = self.full_at;
        (u64::from(high) << 32 | u64::from(low)).saturating_sub(now)
    }

    fn lack(&mut self, missing: u64, now: u64) {
        let full_at = now.saturating_add(missing);
        let low = u32::try_from(full_at & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        self.full_at = [u32::try_from(full_at >> 32).unwrap_or(u32::MAX), low];
    }

    pub(super) fn take(&mut self, rate: &Rate, now: u64) -> Verdict {
        let missing = self.missing(now).saturating_add(rate.cost);
        if missing > rate.capacity {
            return Verdict::Limited { retry_after: Duration::from_nanos(missing - rate.capacity) };
        }
        self.lack(missing, now);
        self.total = self.total.wrapping_add(1);
        Verdict::Allowed
    }

    pub(super) fn change(&self, key: [u8; 16], limit: u16, rate: &Rate, now: u64) -> Change {
        Change {
            key,
            limit,
            life: self.life,
            total: self.total,
            peer_life: self.peer_life,
            peer_total: self.peer_total,
            missing: rate.to_thousandths(self.missing(now)),
        }
    }

    /// Takes what the other node says.
    pub(super) fn merge(&mut self, change: &Change, rate: &Rate, now: u64) {
        let (own, theirs) = (self.missing(now), rate.of_thousandths(change.missing));
        // Of its requests that are new here, those that are older than its bucket takes to fill do not count any more.
        let grown = |requests: u32| own.saturating_add(rate.of_requests(requests).min(theirs));
        let missing = match self.peer_life {
            // The first word of it. It may know of requests that this node has forgotten, as after a restart: so all that
            // it says counts, and what this node has let through that it has not heard of.
            0 => {
                let heard = if change.peer_life == self.life { change.peer_total } else { 0 };
                let unheard = rate.of_requests(self.total.wrapping_sub(heard)).min(own);
                theirs.saturating_add(unheard).max(own)
            }
            life if life == change.life => {
                let growth = change.total.wrapping_sub(self.peer_total);
                // A total that is behind the one that is known is an old word.
                if growth > u32::MAX / 2 {
                    return;
                }
                grown(growth)
            }
            // It has made the bucket anew, and counts from 0.
            _ => grown(change.total),
        };
        (self.peer_life, self.peer_total) = (change.life, change.total);
        self.lack(missing.min(rate.missing_max.max(own)), now);
    }
}
