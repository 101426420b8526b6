//! Two nodes, a witness, the links between them, and virtual time. Checks run after every event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use baton::vrrp::witness::{Key, Server};

use crate::checks::Dual;
use crate::counts::Counts;
use crate::faults::Fault;
use crate::node::{Nanos, Node};
use crate::wire::{ANSWER, ASK, HELLO, LINKS, PAIR_KEY, Packet, V6};

pub const MICROSECOND: Nanos = 1_000;
pub const MILLISECOND: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000_000_000;

/// Adding or removing the addresses takes at most this long.
pub const OPERATION_MAX: Nanos = 2 * MILLISECOND;
/// A timer fires at most this late while the process runs.
pub const JITTER_MAX: Nanos = 200 * MICROSECOND;

/// Packets that an attacker remembers.
const HISTORY_MAX: usize = 256;

pub enum Event {
    Deliver {
        to: usize,
        packet: Packet,
    },
    /// At the witness, from this node.
    Ask {
        from: usize,
        bytes: Vec<u8>,
    },
    Wake {
        node: usize,
    },
    /// A hello is due, if the process is still the same.
    Hello {
        node: usize,
        life: u64,
    },
    /// Somebody answers a probe of this process.
    InUse {
        node: usize,
        life: u64,
    },
    /// The attacker does something, and goes on until then.
    Attack {
        until: Nanos,
    },
    Fault(Fault),
}

/// One direction of a link.
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

/// What the nodes of a run have.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// 1 or 2 networks that carry adverts.
    pub advert_paths: usize,
    /// Whether there are hellos.
    pub hellos: bool,
    /// Whether adverts are signed.
    pub authentic: bool,
    pub witness: bool,
}

impl Setting {
    pub fn paths(self) -> Vec<usize> {
        let hello = self.hellos.then_some(HELLO);
        (0..self.advert_paths).chain(hello).collect()
    }

    pub fn links(self) -> Vec<usize> {
        let witness = if self.witness { vec![ASK, ANSWER] } else { Vec::new() };
        self.paths().into_iter().chain(witness).collect()
    }
}

pub struct World {
    pub now: Nanos,
    zero: Instant,
    pub random: fastrand::Rng,
    events: BTreeMap<(Nanos, u64), Event>,
    event_count: u64,
    pub setting: Setting,
    pub nodes: [Node; 2],
    pub server: Server,
    /// By link and by the node at one end: the sender, or the only one.
    pub links: [[Link; 2]; LINKS],
    /// Likewise: when the packet sent last arrives, unless it was delayed.
    last_arrival: [[Nanos; 2]; LINKS],
    pub latency_max: Nanos,
    /// Faults that can make two nodes active, or keep them so, are over from here on.
    pub trouble_until: Nanos,
    /// Somebody who speaks no VRRP uses the addresses until then.
    pub stranger_until: Nanos,
    /// What was taken from the network, to replay: receiver and packet.
    pub history: Vec<(usize, Packet)>,
    /// Somebody has to hold the VIP at all times.
    pub continuous: bool,
    pub dual: Option<Dual>,
    pub counts: Counts,
    trace: bool,
}

impl World {
    pub fn new(mut random: fastrand::Rng, setting: Setting, nodes: [Node; 2], latency_max: Nanos, trace: bool) -> Self {
        // The witness has been there for an hour.
        let started = Instant::now();
        let zero = started + Duration::from_secs(3600);
        let server = Server::new(vec![Key::derived(PAIR_KEY)], random.u64(1..), started);
        Self {
            now: 0,
            zero,
            random,
            events: BTreeMap::new(),
            event_count: 0,
            setting,
            nodes,
            server,
            links: [[Link::default(); 2]; LINKS],
            last_arrival: [[0; 2]; LINKS],
            latency_max,
            trouble_until: 0,
            stranger_until: 0,
            history: Vec::new(),
            continuous: false,
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

    pub fn instant(&self) -> Instant {
        self.instant_of(self.now)
    }

    pub fn instant_of(&self, at: Nanos) -> Instant {
        self.zero + Duration::from_nanos(at)
    }

    pub fn nanos(&self, instant: Instant) -> Nanos {
        instant.saturating_duration_since(self.zero).as_nanos() as Nanos
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
                Event::Ask { from, bytes } => self.ask(from, &bytes),
                Event::Wake { node } => self.turn(node)?,
                Event::Hello { node, life } => self.hello_due(node, life)?,
                Event::InUse { node, life } if self.nodes[node].life == life => self.tell_in_use(node)?,
                Event::InUse { .. } => {}
                Event::Attack { until } => self.attack(until),
                Event::Fault(fault) => self.begin(fault)?,
            }
            self.check()?;
        }
        self.now = end;
        self.check()
    }

    fn ask(&mut self, from: usize, bytes: &[u8]) {
        let now = self.instant();
        if let Ok(reply) = self.server.handle(now, bytes) {
            self.carry(ANSWER, from, reply.datagram);
        }
    }

    /// Puts a packet on a link, which may lose, damage, delay or double it. `end` is the node at one end: the sender, or
    /// the only one.
    pub fn carry(&mut self, path: usize, end: usize, bytes: Vec<u8>) {
        let link = self.links[path][end];
        let copies = if self.random.u8(0..100) < link.duplication { 2 } else { 1 };
        for _ in 0..copies {
            let lost = link.cuts > 0 || self.random.u8(0..100) < link.loss;
            let mut bytes = bytes.clone();
            if self.random.u8(0..100) < link.corruption {
                // Past the IPv4 header, which the kernel checks.
                let from = if path < V6 { 20 } else { 0 };
                let at = self.random.usize(from..bytes.len());
                bytes[at] ^= 1 << self.random.u8(0..8);
            }
            let mut at = self.now + self.random.u64(20 * MICROSECOND..=self.latency_max);
            if link.delay_max > 0 {
                at += self.random.u64(0..=link.delay_max);
            } else {
                at = at.max(self.last_arrival[path][end]);
                self.last_arrival[path][end] = at;
            }
            if lost {
                continue;
            }
            let packet = |bytes| Packet { path, bytes, injected: false };
            self.schedule(
                at,
                match path {
                    ASK => Event::Ask { from: end, bytes },
                    ANSWER => Event::Deliver { to: end, packet: packet(bytes) },
                    _ => Event::Deliver { to: 1 - end, packet: packet(bytes) },
                },
            );
        }
    }

    /// A packet that a node has taken in may come again.
    pub fn record(&mut self, to: usize, packet: &Packet) {
        if packet.injected || packet.path > HELLO {
            return;
        }
        if self.history.len() < HISTORY_MAX {
            self.history.push((to, packet.clone()));
        } else {
            let at = self.random.usize(0..HISTORY_MAX);
            self.history[at] = (to, packet.clone());
        }
    }
}
