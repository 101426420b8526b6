//! What must hold, whatever happens.

use std::time::Duration;

use baton::vrrp::machine::{Input, Preempt, Reason, State};

use crate::node::{Nanos, Node};
use crate::world::{JITTER_MAX, OPERATION_MAX, World};

/// Two nodes active at once.
#[derive(Debug, Clone, Copy)]
pub struct Dual {
    since: Nanos,
    /// It began in trouble, so that the nodes may not have heard each other's claim.
    in_trouble: bool,
}

impl World {
    /// The checks that hold between any two events.
    pub fn check(&mut self) -> Result<(), String> {
        for node in &self.nodes {
            check_vip(node)?;
        }
        self.check_dual()
    }

    /// A claim is heard within one latency and answered within another, each time by a node that may be busy with its
    /// addresses. Claims made in trouble are repeated within an interval of its end, and then it is the same.
    pub fn dual_max(&self, in_trouble: bool) -> Nanos {
        let answer = 2 * (self.latency_max + OPERATION_MAX + JITTER_MAX);
        if in_trouble { self.interval_max() + answer } else { answer }
    }

    fn check_dual(&mut self) -> Result<(), String> {
        if !self.nodes.iter().all(Node::is_active) {
            self.dual = None;
            return Ok(());
        }
        let troubled = self.is_troubled();
        let dual = match self.dual {
            Some(dual) => Dual { in_trouble: dual.in_trouble || troubled, ..dual },
            None => {
                self.counts.duals += 1;
                Dual { since: self.now, in_trouble: troubled }
            }
        };
        self.dual = Some(dual);
        if troubled {
            return Ok(());
        }
        let lasted = self.now - dual.since.max(self.trouble_until);
        self.counts.dual_in_calm_max = self.counts.dual_in_calm_max.max(lasted);
        if lasted > self.dual_max(dual.in_trouble) {
            return Err(format!("both nodes active for {:?} without trouble", Duration::from_nanos(lasted)));
        }
        Ok(())
    }

    /// Called when a process gets to run: did the peer have time to give it up? 3 intervals, and the 2/256 of an
    /// interval that a peer of priority 254 adds.
    pub fn see_whether_it_overslept(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let patience_of_peer = node.interval() * 3 + node.interval() * 2 / 256;
        if node.is_active() && now - node.last_sent >= patience_of_peer {
            node.must_release = true;
            node.left_unheard = true;
        }
    }

    pub fn check_deadline(&self, index: usize) -> Result<(), String> {
        match self.deadline(index) {
            Some(deadline) if deadline <= self.now => {
                Err(format!("{}: deadline {deadline} is not in the future after a timer", self.nodes[index].name))
            }
            _ => Ok(()),
        }
    }

    /// A timer that fires early changes nothing.
    pub fn spurious_timer(&mut self, index: usize) -> Result<(), String> {
        let (now, deadline) = (self.instant(), self.deadline(index));
        let node = &mut self.nodes[index];
        let Some(machine) = &mut node.machine else { return Ok(()) };
        let state = machine.state();
        let actions = machine.handle(now, Input::Timer);
        if !actions.is_empty() || machine.state() != state || self.deadline(index) != deadline {
            return Err(format!("{}: an early timer did something: {actions:?}", self.nodes[index].name));
        }
        Ok(())
    }

    pub fn check_send(&self, index: usize, priority: u8) -> Result<(), String> {
        let node = &self.nodes[index];
        if node.must_release {
            return Err(format!("{}: sent an advert between waking from a stall and release", node.name));
        }
        if priority == 0 && node.vip_held {
            return Err(format!("{}: resigned with the VIP in hand", node.name));
        }
        Ok(())
    }

    pub fn check_acquire(&self, index: usize) -> Result<(), String> {
        let node = &self.nodes[index];
        if node.vip_held { Err(format!("{}: acquired the VIP twice", node.name)) } else { Ok(()) }
    }

    pub fn check_release(&self, index: usize) -> Result<(), String> {
        let node = &self.nodes[index];
        if node.vip_held { Ok(()) } else { Err(format!("{}: released a VIP it did not hold", node.name)) }
    }

    pub fn check_announce(&self, index: usize) -> Result<(), String> {
        let node = &self.nodes[index];
        if !node.vip_held || node.must_release {
            return Err(format!("{}: announced a VIP it did not hold, or before it noticed its stall", node.name));
        }
        if self.now - node.announcement_asked < node.interval() {
            return Err(format!("{}: announced twice within an interval", node.name));
        }
        Ok(())
    }

    /// Only the lesser node gives way.
    pub fn check_role_change(&self, index: usize, from: State, reason: &Reason) -> Result<(), String> {
        let (node, peer) = (&self.nodes[index], &self.nodes[1 - index]);
        let gives_way = matches!(reason, Reason::PeerHigher(_) | Reason::PeerAddressHigher(_));
        if from == State::Active && gives_way && node.rank() > peer.rank() {
            return Err(format!("{}: gave way to the lesser node", node.name));
        }
        Ok(())
    }

    /// In a network that has had the time to settle, exactly one node that may take part is active and holds the VIP.
    /// Returns it.
    pub fn check_settled(&self) -> Result<Option<usize>, String> {
        let eligible: Vec<usize> = (0..2).filter(|index| self.nodes[*index].is_eligible()).collect();
        let active: Vec<usize> = (0..2).filter(|index| self.nodes[*index].is_active()).collect();
        match (eligible.as_slice(), active.as_slice()) {
            ([], []) => Ok(None),
            ([_, ..], [active]) => {
                let node = &self.nodes[*active];
                if !node.vip_held {
                    return Err(format!("{} is active and has not got the VIP", node.name));
                }
                self.check_preemption(*active, &eligible)?;
                self.check_announced_last(*active)?;
                Ok(Some(*active))
            }
            _ => Err(format!("eligible nodes {eligible:?} and active nodes {active:?} after the time to settle")),
        }
    }

    fn check_preemption(&self, active: usize, eligible: &[usize]) -> Result<(), String> {
        let (node, peer) = (&self.nodes[active], &self.nodes[1 - active]);
        let preempts = peer.parameters.preempt == Preempt::WhenHigher;
        if preempts && eligible.len() == 2 && peer.parameters.priority > node.parameters.priority {
            return Err(format!("{} is active though {} has a higher priority and preempts", node.name, peer.name));
        }
        Ok(())
    }

    /// Neighbours send to whoever announced last, which has to be the holder. A node that leaves in trouble, by a crash
    /// or silently after a stall cannot let the winner know that there is something to announce; those are left out.
    fn check_announced_last(&self, active: usize) -> Result<(), String> {
        let (node, peer) = (&self.nodes[active], &self.nodes[1 - active]);
        if peer.last_announced > node.last_announced && !peer.left_unheard && peer.machine.is_some() {
            return Err(format!("{} holds the VIP, but neighbours heard {} last", node.name, peer.name));
        }
        Ok(())
    }
}

/// A process that runs and is not busy with it holds the VIP if and only if it is active.
fn check_vip(node: &Node) -> Result<(), String> {
    let busy = !node.is_running() || node.operation.is_some();
    if busy || node.vip_held == (node.state() == State::Active) {
        return Ok(());
    }
    Err(format!("{}: {} and holds the VIP: {}", node.name, node.state(), node.vip_held))
}
