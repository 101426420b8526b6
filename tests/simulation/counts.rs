//! How often what happened, to see that a simulation tests something.

use baton::vrrp::machine::{Reason, State};
use baton::vrrp::packet::DropReason;

use crate::node::Nanos;
use crate::wire::Packet;

#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub events: u64,
    pub adverts: u64,
    pub refused: u64,
    pub forged: u64,
    pub replayed: u64,
    pub claims: u64,
    pub resignations: u64,
    pub ways_given: u64,
    pub stalls: u64,
    pub preemptions: u64,
    pub duals: u64,
    pub dual_in_calm_max: Nanos,
    pub takeovers: u64,
    pub switchovers: u64,
    pub switchovers_failed: u64,
    pub switchovers_in_calm: u64,
    pub leases: u64,
    pub witness_lost: u64,
    pub in_use: u64,
    pub calms_with_a_dead_path: u64,
    pub calms_without_witness: u64,
    pub clock_steps: u64,
}

impl Counts {
    pub fn refuse(&mut self, packet: &Packet, reason: DropReason) {
        self.refused += 1;
        if packet.injected {
            match reason {
                DropReason::Replayed => self.replayed += 1,
                _ => self.forged += 1,
            }
        }
    }

    pub fn role_change(&mut self, to: State, reason: &Reason) {
        match reason {
            Reason::PeerHigher(_) | Reason::PeerAddressHigher(_) => self.ways_given += 1,
            Reason::PeerLower(_) => self.preemptions += 1,
            Reason::LostWitness => self.witness_lost += 1,
            _ => {}
        }
        if to == State::Active {
            self.claims += 1;
        }
    }

    pub fn add(&mut self, other: Self) {
        let Self { dual_in_calm_max, .. } = *self;
        for (sum, more) in self.all_mut().into_iter().zip(other.clone().all_mut()) {
            *sum += *more;
        }
        self.dual_in_calm_max = dual_in_calm_max.max(other.dual_in_calm_max);
    }

    fn all_mut(&mut self) -> [&mut u64; 21] {
        [
            &mut self.events,
            &mut self.adverts,
            &mut self.refused,
            &mut self.forged,
            &mut self.replayed,
            &mut self.claims,
            &mut self.resignations,
            &mut self.ways_given,
            &mut self.stalls,
            &mut self.preemptions,
            &mut self.duals,
            &mut self.takeovers,
            &mut self.switchovers,
            &mut self.switchovers_failed,
            &mut self.switchovers_in_calm,
            &mut self.leases,
            &mut self.witness_lost,
            &mut self.in_use,
            &mut self.calms_with_a_dead_path,
            &mut self.calms_without_witness,
            &mut self.clock_steps,
        ]
    }

    /// A simulation in which nothing happens proves nothing.
    pub fn assert_everything_happened(&mut self) {
        let shown = format!("{self:#?}");
        assert!(self.all_mut().iter().all(|count| **count > 50), "{shown}");
    }
}
