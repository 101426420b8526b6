//! One node: a real `Machine`, and a model of the shell that drives it by the contract that `vrrp` states.
//!
//! Removing and adding addresses takes time, in which the shell does nothing else. A process can be paused anywhere,
//! and can crash anywhere, which leaves its addresses behind until a restart removes them.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use baton::vrrp::machine::{Action, Input, Machine, Parameters, State};
use baton::vrrp::packet::Expected;

/// Virtual time since the start.
pub type Nanos = u64;

pub const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100));

/// Packets that a socket buffers; the newest are lost.
pub const QUEUE_MAX: usize = 32;

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
    pub expected: Expected,
    /// `None` while no process runs.
    pub machine: Option<Machine>,
    pub paused: bool,
    /// The worker is well.
    pub fit: bool,
    /// It was told to stop and ends when it has done so.
    pub stopping: bool,
    /// What the socket holds.
    pub queue: VecDeque<Vec<u8>>,
    /// What the rest of the guard has to say to the machine.
    pub signals: VecDeque<Input>,
    pub operation: Option<(Nanos, Operation)>,
    /// Actions to perform after the operation.
    pub pending: VecDeque<Action>,
    pub vip_held: bool,

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
}

impl Node {
    pub fn new(name: &'static str, parameters: Parameters, expected: Expected) -> Self {
        Self {
            name,
            parameters,
            expected,
            machine: None,
            paused: false,
            fit: true,
            stopping: false,
            queue: VecDeque::new(),
            signals: VecDeque::new(),
            operation: None,
            pending: VecDeque::new(),
            vip_held: false,
            last_sent: 0,
            last_announced: None,
            announcement_asked: 0,
            must_release: false,
            left_unheard: false,
            transitions: 0,
            wake_scheduled: None,
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

    pub fn interval(&self) -> Nanos {
        self.parameters.advert_interval.get().as_nanos() as Nanos
    }

    /// Higher wins.
    pub fn rank(&self) -> (u8, IpAddr) {
        (self.parameters.priority.get(), self.expected.local)
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

    /// The process is gone, and what only it knew.
    pub fn end(&mut self) {
        self.machine = None;
        self.paused = false;
        self.stopping = false;
        self.must_release = false;
        self.operation = None;
        self.wake_scheduled = None;
        self.queue.clear();
        self.signals.clear();
        self.pending.clear();
    }
}
