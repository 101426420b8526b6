//! The server with the least to do for its weight: least connections, and least response time.
//!
//! Where several have as little, as idle ones do, the one whose turn it is: each has a time at which it is next, which goes
//! on by the inverse of its weight whenever it is picked (start-time fair queueing), so that idle servers are picked as often
//! as their weights say.
//!
//! Of more than [`WINDOW`] servers so many are compared, the next ones each time: all of them come about within a few picks,
//! and a pick costs no more than a thousand nanoseconds with any number of servers.

use super::snapshot::{Member, Snapshot, Tier};

/// Servers that are compared for one pick.
pub const WINDOW: usize = 64;

/// The turns of a thread.
#[derive(Debug, Default)]
pub struct Least {
    starting_at: usize,
    /// The time at which each server is next.
    next: Vec<u64>,
    now: u64,
    cursor: usize,
}

impl Least {
    /// Starts at a server, so that threads that start together do not all begin with the first.
    pub fn starting_at(starting_at: usize) -> Self {
        Self { starting_at, ..Self::default() }
    }

    pub(super) fn refresh(&mut self, snapshot: &Snapshot) {
        let (known, count) = (self.next.len(), snapshot.server_count());
        self.next.resize(count, 0);
        if known == 0 && count > 0 {
            let start = self.starting_at % count;
            self.cursor = start;
            for (index, next) in self.next.iter_mut().enumerate() {
                *next = ((index + count - start) % count) as u64;
            }
        }
    }

    /// The server of a tier with the least `burden` for its weight, among those that `may_take` allows; one with `None` only
    /// where there is no other.
    pub(super) fn pick(
        &mut self,
        tier: &Tier,
        may_take: impl Fn(usize) -> bool,
        burden: impl Fn(usize) -> Option<u64>,
    ) -> Option<usize> {
        let members = &tier.members;
        let start = if members.len() > WINDOW { self.cursor.min(members.len()) } else { 0 };
        let (before, after) = members.split_at_checked(start)?;
        let in_turn = after.iter().chain(before).enumerate();
        let mut best: Option<(u64, u64, &Member)> = None;
        let mut compared = 0;
        for (index, member) in in_turn {
            // Beyond the window only for want of anybody.
            if index >= WINDOW && best.is_some() {
                break;
            }
            compared = index + 1;
            let next = self.next.get(member.server).map_or(self.now, |next| (*next).max(self.now));
            let cost = match burden(member.server) {
                Some(burden) => burden.saturating_mul(member.inverse),
                None => u64::MAX,
            };
            let is_better = best.is_none_or(|(least, first, _)| (cost, next) < (least, first));
            if is_better && may_take(member.server) {
                best = Some((cost, next, member));
            }
        }
        self.cursor = (start + compared) % members.len().max(1);
        let (_, turn, member) = best?;
        self.now = turn;
        if let Some(next) = self.next.get_mut(member.server) {
            *next = turn + member.inverse;
        }
        Some(member.server)
    }
}
