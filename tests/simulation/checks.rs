//! What must hold, whatever happens.

use std::time::Duration;

use baton::vrrp::machine::{Action, Input, Machine, Preempt, Reason, State, Waiting};

use crate::node::{Nanos, Node, Operation};
use crate::world::{JITTER_MAX, OPERATION_MAX, SECOND, World};

/// Two nodes active at once.
#[derive(Debug, Clone, Copy)]
pub struct Dual {
    since: Nanos,
    /// It began in trouble, so that the nodes may not have heard each other's claim.
    in_trouble: bool,
}

/// A node that stands by in silence claims within as many intervals: a startup hold, three, and a skew.
const SILENCE_INTERVALS: u64 = 5;

impl World {
    /// The checks that hold between any two events.
    pub fn check(&mut self) -> Result<(), String> {
        for node in &self.nodes {
            check_vip(node)?;
        }
        if self.continuous && !self.nodes.iter().any(|node| node.is_running() && node.vip_held) {
            return Err("nobody holds the VIP during a switchover".to_owned());
        }
        if self.setting.witness {
            self.check_holders()?;
        }
        self.check_dual()
    }

    /// A claim is heard within one latency and answered within another, each time by a node that may be busy with its
    /// addresses. Claims made in trouble are repeated within an interval of its end, and then it is the same.
    pub fn dual_max(&self, in_trouble: bool) -> Nanos {
        let answer = 2 * (self.latency_max + OPERATION_MAX + JITTER_MAX);
        if in_trouble { self.interval_max() + answer } else { answer }
    }

    /// A preferred node takes the VIP back just now, and the other has not heard of it yet.
    pub fn is_preempting(&self) -> bool {
        let has_preempted = |node: &Node| matches!(&node.claim, Some((Reason::PeerLower(_), _))) || node.is_busy();
        self.nodes.iter().all(Node::is_active) && self.nodes.iter().any(has_preempted)
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
                // A claim so soon after trouble is of that silence, in which the nodes forgot each other's hellos.
                let in_trouble = self.now <= self.trouble_until + SILENCE_INTERVALS * self.interval_max();
                Dual { since: self.now, in_trouble }
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

    /// With a witness, two running processes hold the VIP only by intent: in a switchover or a preemption, until the
    /// claimer's first right is over. Or one of them was frozen and takes it off just now, or takes off what a process
    /// before it left behind.
    fn check_holders(&self) -> Result<(), String> {
        let is_stale = |node: &Node| matches!(node.operation, Some((_, Operation::RemoveStale)));
        let holds = |node: &Node| node.is_running() && node.vip_held && !node.must_release && !is_stale(node);
        if !self.nodes.iter().all(holds) {
            return Ok(());
        }
        let is_meant = |node: &Node| match &node.claim {
            Some((Reason::PeerHandedOver | Reason::PeerLower(_), at)) => {
                self.now < at + patience_of_peer(node) + OPERATION_MAX + JITTER_MAX
            }
            _ => false,
        };
        if self.nodes.iter().any(is_meant) {
            return Ok(());
        }
        Err("both nodes hold the VIP in spite of the witness".to_owned())
    }

    /// Called when a process gets to run: did the peer have time to give it up? 3 intervals, and the 2/256 of an
    /// interval that a peer of priority 254 adds. Or is its right over?
    pub fn see_whether_it_overslept(&mut self, index: usize) {
        let now = self.now;
        let right_until = self.nodes[index].machine.as_ref().and_then(Machine::right_until);
        let right_is_over = right_until.is_some_and(|until| now > self.nanos(until) + JITTER_MAX);
        let node = &mut self.nodes[index];
        if node.is_active() && now - node.last_sent >= patience_of_peer(node) {
            node.must_release = true;
            node.left_unheard = true;
        }
        if node.is_active() && right_is_over && std::mem::take(&mut node.has_slept) {
            node.must_release = true;
        }
    }

    /// A node that takes the VIP from its peer adds the addresses first, and then has an advert to send.
    pub fn check_deadline(&self, index: usize) -> Result<(), String> {
        let is_claiming = self.nodes[index].pending.contains(&Action::AcquireVip);
        match self.deadline(index) {
            Some(deadline) if deadline <= self.now && !is_claiming => {
                Err(format!("{}: deadline {deadline} is not in the future after a timer", self.nodes[index].name))
            }
            _ => Ok(()),
        }
    }

    /// A timer that fires early changes nothing, unless it shows that the process did not run.
    pub fn spurious_timer(&mut self, index: usize) -> Result<(), String> {
        if self.now >= self.nodes[index].decided_at + 2 * self.nodes[index].interval() {
            return Ok(());
        }
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
        if priority > 0 && node.must_release {
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

    pub fn check_role_change(&self, index: usize, from: State, to: State, reason: &Reason) -> Result<(), String> {
        let (node, peer) = (&self.nodes[index], &self.nodes[1 - index]);
        // Only the lesser node gives way.
        let gives_way = matches!(reason, Reason::PeerHigher(_) | Reason::PeerAddressHigher(_));
        if from == State::Active && gives_way && node.rank() > peer.rank() {
            return Err(format!("{}: gave way to the lesser node", node.name));
        }
        match (to, reason) {
            (State::Active, Reason::PeerSilent(_)) => self.check_claim_out_of_silence(index),
            _ => Ok(()),
        }
    }

    /// Every path was silent for three intervals of the peer; nobody who uses the addresses was seen lately; and with a
    /// witness there is a lease, unless the peer said that it takes no part.
    fn check_claim_out_of_silence(&self, index: usize) -> Result<(), String> {
        let node = &self.nodes[index];
        if let Some((at, interval)) = node.heard_at
            && self.now < at + 3 * interval
        {
            return Err(format!("{}: claimed though it heard the peer on some path", node.name));
        }
        if node.in_use_at.is_some_and(|at| self.now < at + SECOND) {
            return Err(format!("{}: claimed addresses that are in use", node.name));
        }
        // When it decided; a process that is frozen right after that knows nothing of what ends meanwhile.
        let has_lease = node.wire.client.is_held(self.instant_of(node.decided_at));
        let peer_was_out = node.peer_out_at.is_some_and(|at| self.now < at + 2 * node.interval() + SLACK);
        if self.setting.witness && !has_lease && !peer_was_out {
            return Err(format!("{}: claimed without a lease", node.name));
        }
        Ok(())
    }

    /// In a network that has had the time to settle, exactly one node that may take part is active and holds the VIP.
    /// Returns it.
    pub fn check_settled(&self) -> Result<Option<usize>, String> {
        let eligible: Vec<usize> = (0..2).filter(|index| self.nodes[*index].is_eligible()).collect();
        let active: Vec<usize> = (0..2).filter(|index| self.nodes[*index].is_active()).collect();
        if let Some(node) = self.nodes.iter().find(|node| node.switchover_open) {
            return Err(format!("{}: the operator still waits for an answer", node.name));
        }
        match (eligible.as_slice(), active.as_slice()) {
            ([], []) => Ok(None),
            ([alone], []) if self.is_alone_without_witness(*alone) => Ok(None),
            ([_, ..], [active]) => {
                let node = &self.nodes[*active];
                if !node.vip_held {
                    return Err(format!("{} is active and has not got the VIP", node.name));
                }
                self.check_announced_last(*active)?;
                Ok(Some(*active))
            }
            _ => Err(format!("eligible nodes {eligible:?} and active nodes {active:?} after the time to settle")),
        }
    }

    /// Neither the witness nor the peer backs it.
    fn is_alone_without_witness(&self, index: usize) -> bool {
        let peer_is_there = self.nodes[1 - index].is_running() && self.is_linked_by_hellos();
        self.setting.witness && !self.reaches_witness(index) && !peer_is_there
    }

    pub fn check_preference(&self, active: usize) -> Result<(), String> {
        let (node, peer) = (&self.nodes[active], &self.nodes[1 - active]);
        let preempts = matches!(peer.parameters.preempt, Preempt::WhenHigher { .. });
        let rests = peer.machine.as_ref().and_then(Machine::waiting_for) == Some(Waiting::HandedOver);
        let is_higher = peer.parameters.priority > node.parameters.priority;
        if preempts && peer.is_eligible() && peer.synced && !rests && is_higher {
            return Err(format!("{} is active though {} has a higher priority and preempts", node.name, peer.name));
        }
        Ok(())
    }

    /// Both know of the last takeover.
    pub fn check_epochs(&self) -> Result<(), String> {
        let epochs = self.nodes.each_ref().map(|node| node.machine.as_ref().map(Machine::epoch));
        match epochs {
            [Some(a), Some(b)] if a != b && self.nodes.iter().all(Node::is_running) && self.is_linked_by_hellos() => {
                Err(format!("the nodes count {a} and {b} takeovers"))
            }
            _ => Ok(()),
        }
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

/// A hello may have waited for the process to get to it.
const SLACK: Nanos = OPERATION_MAX + JITTER_MAX;

/// As `Machine::shortest_patience_of_peer` has it.
pub fn patience_of_peer(node: &Node) -> Nanos {
    node.interval() * 3 + node.interval() * 2 / 256
}

/// A process that runs and is not busy with it holds the VIP if and only if it is active.
fn check_vip(node: &Node) -> Result<(), String> {
    let busy = !node.is_running() || node.operation.is_some();
    if busy || node.vip_held == (node.state() == State::Active) {
        return Ok(());
    }
    Err(format!("{}: {} and holds the VIP: {}", node.name, node.state(), node.vip_held))
}
