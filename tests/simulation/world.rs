//! Two nodes, the link between them, and virtual time. Checks run after every event.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use baton::vrrp::machine::{Action, Input, Machine, Reason, State};
use baton::vrrp::packet::{self, Advert, ExpectedSource, Format, Heard, Version};

use crate::checks::Dual;
use crate::faults::Fault;
use crate::node::{Nanos, Node, Operation, QUEUE_MAX, VIP};

pub const MICROSECOND: Nanos = 1_000;
pub const MILLISECOND: Nanos = 1_000_000;

/// Adding or removing the addresses takes at most this long.
pub const OPERATION_MAX: Nanos = 2 * MILLISECOND;
/// A timer fires at most this late while the process runs.
pub const JITTER_MAX: Nanos = 200 * MICROSECOND;

pub enum Event {
    Deliver { to: usize, packet: Vec<u8> },
    Wake { node: usize },
    Fault(Fault),
}

/// One direction of the link.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    /// Cuts in force. They may overlap.
    pub cuts: u32,
    /// In percent.
    pub loss: u8,
    /// In percent.
    pub duplication: u8,
    /// In percent.
    pub corruption: u8,
    /// Up to this much over the latency of the link, and packets overtake one another. Without it they keep order.
    pub delay_max: Nanos,
}

/// How often what happened, to see that a simulation tests something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub events: u64,
    pub adverts: u64,
    pub refused: u64,
    pub claims: u64,
    pub resignations: u64,
    pub ways_given: u64,
    pub stalls: u64,
    pub preemptions: u64,
    pub duals: u64,
    pub dual_in_calm_max: Nanos,
    pub takeovers: u64,
}

pub struct World {
    pub now: Nanos,
    zero: Instant,
    pub random: fastrand::Rng,
    events: BTreeMap<(Nanos, u64), Event>,
    event_count: u64,
    pub nodes: [Node; 2],
    /// By sender.
    pub links: [Link; 2],
    /// By sender: when the packet sent last arrives, unless it was delayed.
    last_arrival: [Nanos; 2],
    pub latency_max: Nanos,
    /// Faults that can make two nodes active, or keep them so, are over from here on.
    pub trouble_until: Nanos,
    /// Adverts sent, to replay: receiver and packet.
    pub history: Vec<(usize, Vec<u8>)>,
    pub dual: Option<Dual>,
    pub counts: Counts,
    trace: bool,
}

impl World {
    pub fn new(random: fastrand::Rng, nodes: [Node; 2], latency_max: Nanos, trace: bool) -> Self {
        Self {
            now: 0,
            zero: Instant::now(),
            random,
            events: BTreeMap::new(),
            event_count: 0,
            nodes,
            links: [Link::default(); 2],
            last_arrival: [0; 2],
            latency_max,
            trouble_until: 0,
            history: Vec::new(),
            dual: None,
            counts: Counts::default(),
            trace,
        }
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>14.3} ms  {}", self.now as f64 / 1e6, what());
        }
    }

    /// The longer of the two advert intervals.
    pub fn interval_max(&self) -> Nanos {
        self.nodes[0].interval().max(self.nodes[1].interval())
    }

    pub fn trouble(&mut self, until: Nanos) {
        self.trouble_until = self.trouble_until.max(until);
    }

    pub fn is_troubled(&self) -> bool {
        self.now <= self.trouble_until
    }

    pub fn schedule(&mut self, at: Nanos, event: Event) {
        self.event_count += 1;
        self.events.insert((at.max(self.now), self.event_count), event);
    }

    /// Lets the world run until `end`, with every check after every event.
    pub fn run_until(&mut self, end: Nanos) -> Result<(), String> {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.counts.events += 1;
            match event {
                Event::Deliver { to, packet } => self.deliver(to, packet)?,
                Event::Wake { node } => self.turn(node)?,
                Event::Fault(fault) => self.begin(fault)?,
            }
            self.check()?;
        }
        self.now = end;
        self.check()
    }

    fn deliver(&mut self, to: usize, packet: Vec<u8>) -> Result<(), String> {
        let node = &mut self.nodes[to];
        if node.machine.is_some() && node.queue.len() < QUEUE_MAX {
            node.queue.push_back(packet);
        }
        self.turn(to)
    }

    pub fn signal(&mut self, index: usize, input: Input) -> Result<(), String> {
        if self.nodes[index].machine.is_some() {
            self.nodes[index].signals.push_back(input);
        }
        self.turn(index)
    }

    /// The process starts. It removes what an earlier one left behind before it takes part.
    pub fn start(&mut self, index: usize) -> Result<(), String> {
        let duration = self.operation_duration();
        let now = self.instant();
        let node = &mut self.nodes[index];
        if node.machine.is_some() {
            return Ok(());
        }
        node.machine = Some(Machine::new(node.parameters.clone(), now));
        if node.vip_held {
            node.operation = Some((self.now + duration, Operation::RemoveStale));
            self.schedule(self.now + duration, Event::Wake { node: index });
        }
        if self.nodes[index].fit {
            self.signal(index, Input::Fit)?;
        }
        self.turn(index)
    }

    pub fn instant(&self) -> Instant {
        self.zero + Duration::from_nanos(self.now)
    }

    fn operation_duration(&mut self) -> Nanos {
        self.random.u64(50 * MICROSECOND..=OPERATION_MAX)
    }

    /// One turn of the shell's loop: what is under way first, then the socket, then signals, and the timer last.
    pub fn turn(&mut self, index: usize) -> Result<(), String> {
        self.see_whether_it_overslept(index);
        loop {
            let now = self.now;
            let deadline = self.deadline(index);
            let node = &mut self.nodes[index];
            if !node.is_running() {
                return Ok(());
            }
            if let Some((done_at, operation)) = node.operation {
                if now < done_at {
                    return Ok(());
                }
                node.operation = None;
                self.finish(index, operation);
            } else if let Some(action) = node.pending.pop_front() {
                self.perform(index, action)?;
            } else if let Some(packet) = node.queue.pop_front() {
                match examine(&packet, node) {
                    Ok(heard) => self.handle(index, Input::Heard(heard))?,
                    Err(_) => self.counts.refused += 1,
                }
            } else if let Some(signal) = node.signals.pop_front() {
                self.handle(index, signal)?;
            } else if deadline.is_some_and(|deadline| deadline <= now) {
                self.handle(index, Input::Timer)?;
                self.check_deadline(index)?;
            } else {
                break;
            }
        }
        if self.nodes[index].stopping {
            self.note(|| format!("{}: process ended", self.nodes[index].name));
            self.nodes[index].end();
        } else if self.random.u8(..) == 0 {
            self.spurious_timer(index)?;
        }
        self.schedule_wake(index);
        Ok(())
    }

    pub fn deadline(&self, index: usize) -> Option<Nanos> {
        let deadline = self.nodes[index].machine.as_ref()?.deadline()?;
        Some(deadline.saturating_duration_since(self.zero).as_nanos() as Nanos)
    }

    fn schedule_wake(&mut self, index: usize) {
        let deadline = self.deadline(index);
        if deadline != self.nodes[index].wake_scheduled {
            self.nodes[index].wake_scheduled = deadline;
            if let Some(deadline) = deadline {
                let jitter = self.random.u64(0..=JITTER_MAX);
                self.schedule(deadline + jitter, Event::Wake { node: index });
            }
        }
    }

    fn handle(&mut self, index: usize, input: Input) -> Result<(), String> {
        self.note(|| format!("{}: {}", self.nodes[index].name, show(&input)));
        let now = self.instant();
        let node = &mut self.nodes[index];
        if input == Input::Stop {
            node.stopping = true;
        }
        let Some(machine) = &mut node.machine else { return Ok(()) };
        let actions = machine.handle(now, input);
        node.pending.extend(actions);
        Ok(())
    }

    fn perform(&mut self, index: usize, action: Action) -> Result<(), String> {
        self.note(|| format!("{}:     {action:?}", self.nodes[index].name));
        match action {
            Action::SendAdvert { priority } => self.send(index, priority)?,
            Action::AcquireVip => {
                self.check_acquire(index)?;
                self.nodes[index].announcement_asked = self.now;
                self.nodes[index].left_unheard = false;
                self.begin_operation(index, Operation::Acquire);
            }
            Action::ReleaseVip => {
                self.check_release(index)?;
                self.begin_operation(index, Operation::Release);
            }
            Action::Announce => {
                self.check_announce(index)?;
                self.nodes[index].last_announced = Some(self.now);
                self.nodes[index].announcement_asked = self.now;
            }
            Action::DiscardQueued => {
                self.counts.stalls += 1;
                self.nodes[index].queue.clear();
            }
            Action::RoleChanged { from, to, reason } => {
                self.check_role_change(index, from, &reason)?;
                self.count_role_change(to, &reason);
                self.nodes[index].transitions += 1;
                if from == State::Active {
                    self.nodes[index].left_unheard |= self.is_troubled();
                }
            }
        }
        Ok(())
    }

    fn count_role_change(&mut self, to: State, reason: &Reason) {
        match reason {
            Reason::PeerHigher(_) | Reason::PeerAddressHigher(_) => self.counts.ways_given += 1,
            Reason::PeerLower(_) => self.counts.preemptions += 1,
            _ => {}
        }
        if to == State::Active {
            self.counts.claims += 1;
        }
    }

    fn begin_operation(&mut self, index: usize, operation: Operation) {
        let done_at = self.now + self.operation_duration();
        self.nodes[index].operation = Some((done_at, operation));
        self.schedule(done_at, Event::Wake { node: index });
    }

    fn finish(&mut self, index: usize, operation: Operation) {
        let now = self.now;
        let node = &mut self.nodes[index];
        match operation {
            Operation::Acquire => {
                node.vip_held = true;
                node.last_announced = Some(now);
            }
            Operation::Release | Operation::RemoveStale => {
                node.vip_held = false;
                node.must_release = false;
            }
        }
    }

    fn send(&mut self, from: usize, priority: u8) -> Result<(), String> {
        self.check_send(from, priority)?;
        self.counts.adverts += 1;
        if priority == 0 {
            self.counts.resignations += 1;
        }
        let node = &mut self.nodes[from];
        node.last_sent = self.now;
        let (IpAddr::V4(source), ExpectedSource::Exactly(IpAddr::V4(destination))) =
            (node.expected.local, node.expected.peer)
        else {
            return Err("the simulation speaks IPv4".to_owned());
        };
        let advert = Advert {
            version: Version::V3,
            virtual_router_id: node.parameters.virtual_router_id,
            priority,
            interval: node.parameters.advert_interval,
            addresses: vec![VIP],
        };
        let pdu = advert.encode(source.into(), destination.into(), &Format::default());
        let packet = ip_packet([source.octets(), destination.octets()], &pdu);
        self.history.push((1 - from, packet.clone()));
        self.carry(from, packet);
        Ok(())
    }

    /// Puts a packet on the link, which may lose, damage, delay or double it.
    fn carry(&mut self, from: usize, packet: Vec<u8>) {
        let link = self.links[from];
        let copies = if self.random.u8(0..100) < link.duplication { 2 } else { 1 };
        for _ in 0..copies {
            let lost = link.cuts > 0 || self.random.u8(0..100) < link.loss;
            let mut packet = packet.clone();
            if self.random.u8(0..100) < link.corruption {
                let at = self.random.usize(20..packet.len());
                packet[at] ^= 1 << self.random.u8(0..8);
            }
            let mut at = self.now + self.random.u64(20 * MICROSECOND..=self.latency_max);
            if link.delay_max > 0 {
                at += self.random.u64(0..=link.delay_max);
            } else {
                at = at.max(self.last_arrival[from]);
                self.last_arrival[from] = at;
            }
            if !lost {
                self.schedule(at, Event::Deliver { to: 1 - from, packet });
            }
        }
    }
}

fn examine(packet: &[u8], node: &Node) -> Result<Heard, packet::DropReason> {
    let (envelope, payload) = packet::decode_ipv4(packet)?;
    packet::judge(&packet::decode(&envelope, payload, &Format::default())?, &node.expected)
}

/// An IP packet around `pdu`, as a raw socket delivers it.
fn ip_packet(addresses: [[u8; 4]; 2], pdu: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0xc0, 0, 20 + pdu.len() as u8, 0, 0, 0, 0, 255, 112, 0, 0];
    packet.extend(addresses.concat());
    packet.extend(pdu);
    packet
}

fn show(input: &Input) -> String {
    match input {
        Input::Heard(heard) => format!("hears priority {}, {} ms", heard.priority, heard.interval.get().as_millis()),
        other => format!("{other:?}"),
    }
}
