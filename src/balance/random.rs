//! By chance: one server, or the less busy of two (Mitzenmacher, "The power of two choices in randomized load balancing",
//! 2001). Chance names each as often as its weight says.

use super::mix;
use super::snapshot::{Member, Tier};

/// Draws that may miss before the servers are gone through: with half of them out of the question, one of a thousand picks.
const DRAWS_MAX: usize = 10;

/// The chance of a thread: the SplitMix64 generator.
#[derive(Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// What follows from a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number below `bound`, as likely as any other but for one in 2^32.
    fn below(&mut self, bound: u64) -> u64 {
        let number = mix(self.state);
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let product = u128::from(number) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    fn draw<'tier>(&mut self, tier: &'tier Tier) -> Option<&'tier Member> {
        let members = &tier.members;
        let position = if tier.is_even {
            usize::try_from(self.below(members.len() as u64)).unwrap_or(0)
        } else {
            let drawn = self.below(tier.weights());
            members.partition_point(|member| member.weights_to <= drawn)
        };
        members.get(position)
    }

    /// A server of a tier, among those that `may_take` allows.
    pub(super) fn pick(&mut self, tier: &Tier, may_take: impl Fn(usize) -> bool) -> Option<usize> {
        Some(self.pick_member(tier, &may_take)?.server)
    }

    fn pick_member<'tier>(&mut self, tier: &'tier Tier, may_take: &impl Fn(usize) -> bool) -> Option<&'tier Member> {
        for _ in 0..DRAWS_MAX {
            let member = self.draw(tier)?;
            if may_take(member.server) {
                return Some(member);
            }
        }
        // Few are left: each replaces the one before with the share of its weight.
        let (mut chosen, mut sum) = (None, 0);
        for member in tier.members.iter().filter(|member| may_take(member.server)) {
            sum += u64::from(member.weight);
            if self.below(sum) < u64::from(member.weight) {
                chosen = Some(member);
            }
        }
        chosen
    }

    /// The less busy of two servers, for their weights; the first where both are alike.
    pub(super) fn pick_of_two(
        &mut self,
        tier: &Tier,
        may_take: impl Fn(usize) -> bool,
        in_flight: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let first = self.pick_member(tier, &may_take)?;
        let other = (0..DRAWS_MAX).find_map(|_| {
            let member = self.draw(tier)?;
            (member.server != first.server && may_take(member.server)).then_some(member)
        });
        let Some(other) = other else { return Some(first.server) };
        // Whole requests for each weight, compared without a division.
        let busy = |one: &Member, other: &Member| u64::from(in_flight(one.server)) * u64::from(other.weight);
        let is_first = busy(first, other) <= busy(other, first);
        Some(if is_first { first.server } else { other.server })
    }
}
