//! One node: a real `Machine`, and what a model of the shell around it has to keep.
//!
//! Removing and adding addresses takes time, in which the shell does nothing else. A process can be paused anywhere,
//! and can crash anywhere, which leaves its addresses behind until a restart removes them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use baton::vrrp::machine::{Action, HandOverRefusal, Input, Machine, Parameters, Reason, State};

use crate::wire::{Packet, Wire};

/// Virtual time since the start.
pub type Nanos = u64;

/// Packets that the sockets buffer; the newest are lost.
pub const QUEUE_MAX: usize = 48;

/// Noon of some day, as the wall clocks have it at first.
const NOON: Duration = Duration::from_secs(1_795_262_400);

/// A slow step of the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Acquire,
    Release,
    /// Before a restarted process takes part.
    RemoveStale,
}

pub struct Node {
    pub name: &'static str,
    pub parameters: Parameters,
    pub wire: Wire,
    /// `None` while no process runs.
    pub machine: Option<Machine>,
    /// Counts processes.
    pub life: u64,
    pub paused: bool,
    /// The worker is well.
    pub fit: bool,
    /// The sessions are in sync.
    pub synced: bool,
    /// It was told to stop and ends when it has done so.
    pub stopping: bool,
    /// What the sockets hold.
    pub queue: VecDeque<Packet>,
    /// What is left of a hello, which is several inputs.
    pub at_hand: VecDeque<Input>,
    /// What the rest of the guard has to say to the machine.
    pub signals: VecDeque<Input>,
    pub operation: Option<(Nanos, Operation)>,
    /// Actions to perform after the operation.
    pub pending: VecDeque<Action>,
    /// A hello of a peer that wants to prove itself waits for an answer.
    pub answer_owed: bool,
    pub vip_held: bool,
    /// How far the wall clock is ahead of all others, in seconds.
    pub wall_offset: i64,

    // What the checks need to know.
    pub last_sent: Nanos,
    /// When neighbours last heard an announcement.
    pub last_announced: Option<Nanos>,
    /// When the machine last asked for one; a pause can lie between.
    pub announcement_asked: Nanos,
    /// It slept so long that the peer may have claimed the VIP, and has not released yet.
    pub must_release: bool,
    /// It last left Active by a crash or after a stall, or in trouble, so the winner may not know that it held the VIP.
    pub left_unheard: bool,
    pub transitions: u64,
    pub wake_scheduled: Option<Nanos>,
    /// When an advert of the peer that counts was last heard on any path, and its interval.
    pub heard_at: Option<(Nanos, Nanos)>,
    /// Of what the operator asked for and was not told about yet.
    pub switchover_open: bool,
    /// What the operator was told last.
    pub last_refusal: Option<HandOverRefusal>,
    /// When it was last told that the addresses are in use, before it heard the peer.
    pub in_use_at: Option<Nanos>,
    /// When the peer last said that it takes no part.
    pub peer_out_at: Option<Nanos>,
    /// It was paused, and has not been seen to run since.
    pub has_slept: bool,
    /// Why and when it became active.
    pub claim: Option<(Reason, Nanos)>,
}

impl Node {
    pub fn new(name: &'static str, parameters: Parameters, wire: Wire) -> Self {
        Self {
            name,
            parameters,
            wire,
            machine: None,
            life: 0,
            paused: false,
            fit: true,
            synced: true,
            stopping: false,
            queue: VecDeque::new(),
            at_hand: VecDeque::new(),
            signals: VecDeque::new(),
            operation: None,
            pending: VecDeque::new(),
            answer_owed: false,
            vip_held: false,
            wall_offset: 0,
            last_sent: 0,
            last_announced: None,
            announcement_asked: 0,
            must_release: false,
            left_unheard: false,
            transitions: 0,
            wake_scheduled: None,
            heard_at: None,
            switchover_open: false,
            last_refusal: None,
            in_use_at: None,
            peer_out_at: None,
            has_slept: false,
            claim: None,
        }
    }

    pub fn state(&self) -> State {
        self.machine.as_ref().map_or(State::Init, Machine::state)
    }

    pub fn is_running(&self) -> bool {
        self.machine.is_some() && !self.paused
    }

    /// Believes that it holds the VIP, and can act on it.
    pub fn is_active(&self) -> bool {
        self.is_running() && self.state() == State::Active
    }

    /// Ought to take part.
    pub fn is_eligible(&self) -> bool {
        self.is_running() && self.fit && !self.stopping
    }

    /// In the middle of what the machine wants done.
    pub fn is_busy(&self) -> bool {
        self.operation.is_some() || !self.pending.is_empty()
    }

    pub fn interval(&self) -> Nanos {
        self.parameters.advert_interval.get().as_nanos() as Nanos
    }

    /// Higher wins.
    pub fn rank(&self) -> (u8, IpAddr) {
        (self.parameters.priority.get(), self.wire.address())
    }

    /// What the wall clock says. It may have been put forward or back.
    pub fn unix_time(&self, now: Nanos) -> Duration {
        let time = NOON + Duration::from_nanos(now);
        let offset = Duration::from_secs(self.wall_offset.unsigned_abs());
        if self.wall_offset < 0 { time - offset } else { time + offset }
    }

    pub fn crash(&mut self, operation_took_effect: bool) {
        // The advert that was to follow a release is among the pending actions.
        self.left_unheard |= self.state() == State::Active || !self.pending.is_empty();
        if operation_took_effect {
            match self.operation {
                Some((_, Operation::Acquire)) => self.vip_held = true,
                Some((_, Operation::Release | Operation::RemoveStale)) => self.vip_held = false,
                None => {}
            }
        }
        self.end();
    }

    /// The process is gone, and what only it knew. The epoch is kept.
    pub fn end(&mut self) {
        if let Some(machine) = self.machine.take() {
            self.parameters.epoch = machine.epoch();
        }
        self.paused = false;
        self.stopping = false;
        self.must_release = false;
        self.operation = None;
        self.wake_scheduled = None;
        self.answer_owed = false;
        self.switchover_open = false;
        self.in_use_at = None;
        self.heard_at = None;
        self.peer_out_at = None;
        self.queue.clear();
        self.at_hand.clear();
        self.signals.clear();
        self.pending.clear();
    }
}
