//! Turns: round robin, and smooth weighted round robin.
//!
//! Servers of one weight form a class and take turns within it. Between classes it is the smooth weighted round robin of
//! nginx: each time every class gains its weight, the richest is taken and pays what all have gained. So a pick costs as
//! much as there are different weights, and one of 5, 1 and 1 gives a b a a a c a. With one class it is plain round robin.
//! When weights or servers change, what each had gained and whose turn was longest ago are kept.

use super::snapshot::{Snapshot, Tier};

/// The turns of a thread.
#[derive(Debug, Default)]
pub struct Rotation {
    starting_at: usize,
    tiers: Vec<Vec<Class>>,
    /// When each server was picked last, as the number of that pick.
    picked: Vec<u64>,
    picks: u64,
}

/// Servers of one weight.
#[derive(Debug)]
struct Class {
    /// The sum of its servers' weights.
    weight: i64,
    /// What it has gained and not paid.
    gained: i64,
    servers: Vec<usize>,
    next: usize,
}

impl Rotation {
    /// Starts at a server, so that threads that start together do not all begin with the first.
    pub fn starting_at(starting_at: usize) -> Self {
        Self { starting_at, ..Self::default() }
    }

    /// Takes other servers or weights.
    pub(super) fn refresh(&mut self, snapshot: &Snapshot) {
        let gained = self.shares(snapshot.server_count());
        let known = self.picked.len();
        let count = snapshot.server_count();
        // Those that nobody has seen yet come first, and in their order.
        self.picked.resize(count, 0);
        if known == 0 && count > 0 {
            self.picks = count as u64;
            let start = self.starting_at % count;
            for (index, picked) in self.picked.iter_mut().enumerate() {
                *picked = ((index + count - start) % count) as u64;
            }
        }
        self.tiers = snapshot.tiers().iter().map(|tier| classes(tier, &self.picked, &gained)).collect();
    }

    /// What each server has of what its class has gained.
    fn shares(&self, count: usize) -> Vec<i64> {
        let mut gained = vec![0; count];
        for class in self.tiers.first().into_iter().flatten() {
            let share = class.gained / i64::try_from(class.servers.len()).unwrap_or(i64::MAX).max(1);
            for server in &class.servers {
                if let Some(gained) = gained.get_mut(*server) {
                    *gained = share;
                }
            }
        }
        gained
    }

    /// The next server of a tier that `may_take` allows.
    pub(super) fn pick(&mut self, tier: usize, may_take: impl Fn(usize) -> bool) -> Option<usize> {
        let classes = self.tiers.get_mut(tier)?;
        let server = match classes.as_mut_slice() {
            [only] => only.take(&may_take)?,
            classes => take(classes, &may_take)?,
        };
        self.picks += 1;
        if let Some(picked) = self.picked.get_mut(server) {
            *picked = self.picks;
        }
        Some(server)
    }
}

/// The heaviest first, which wins where two have gained as much.
fn classes(tier: &Tier, picked: &[u64], gained: &[i64]) -> Vec<Class> {
    let mut members: Vec<_> = tier.members.iter().collect();
    let last = |server: usize| picked.get(server).copied().unwrap_or(0);
    members.sort_by_key(|member| (std::cmp::Reverse(member.weight), last(member.server), member.server));
    let classes = members.chunk_by(|one, other| one.weight == other.weight);
    let classes = classes.map(|members| Class {
        weight: members.iter().map(|member| i64::from(member.weight)).sum(),
        gained: members.iter().filter_map(|member| gained.get(member.server)).sum(),
        servers: members.iter().map(|member| member.server).collect(),
        next: 0,
    });
    let mut classes: Vec<Class> = classes.collect();
    // Who has gone took along what it had gained, or owed: that is nobody's.
    let count = i64::try_from(classes.len()).unwrap_or(i64::MAX).max(1);
    let surplus = classes.iter().map(|class| class.gained).sum::<i64>() / count;
    classes.iter_mut().for_each(|class| class.gained = (class.gained - surplus).clamp(-class.weight, class.weight));
    classes
}

/// Takes a server of the richest class that has one.
fn take(classes: &mut [Class], may_take: &impl Fn(usize) -> bool) -> Option<usize> {
    let rank = |(index, class): (usize, &Class)| (class.gained + class.weight, std::cmp::Reverse(index));
    let mut above = None;
    let (rank_of_chosen, server) = loop {
        let ranks = classes.iter().enumerate().map(rank).filter(|rank| above.is_none_or(|above| *rank < above));
        let richest = ranks.max()?;
        if let Some(server) = classes.get_mut(richest.1.0).and_then(|class| class.take(may_take)) {
            break (richest, server);
        }
        // Nobody there can serve. Such a class gains nothing: it would be served in one go later.
        above = Some(richest);
    };
    let mut sum = 0;
    for (index, class) in classes.iter_mut().enumerate() {
        if rank((index, class)) <= rank_of_chosen {
            class.gained += class.weight;
            sum += class.weight;
        }
    }
    if let Some(chosen) = classes.get_mut(rank_of_chosen.1.0) {
        chosen.gained -= sum;
    }
    Some(server)
}

impl Class {
    /// The next one in turn that may be taken.
    fn take(&mut self, may_take: &impl Fn(usize) -> bool) -> Option<usize> {
        let (before, after) = self.servers.split_at_checked(self.next)?;
        let in_turn = after.iter().chain(before).copied();
        let (offset, server) = in_turn.enumerate().find(|(_, server)| may_take(*server))?;
        let count = self.servers.len();
        let position = self.next + offset;
        let next = if position >= count { position - count + 1 } else { position + 1 };
        self.next = if next == count { 0 } else { next };
        Some(server)
    }
}
