//! What can go wrong, at random.

use baton::vrrp::machine::Input;
use baton::vrrp::witness::{Key, QUIET, Server};

use crate::node::Nanos;
use crate::wire::{ANSWER, ASK, HELLO, PAIR_KEY, Packet};
use crate::world::{Event, Link, MILLISECOND, SECOND, World};

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Pause { node: usize, until: Nanos },
    Resume { node: usize },
    Crash { node: usize },
    Start { node: usize },
    Unfit { node: usize },
    Fit { node: usize },
    Stop { node: usize },
    Synced { node: usize, synced: bool },
    Cut { path: usize, end: usize, until: Nanos },
    Mend { path: usize, end: usize },
    Noise { path: usize, end: usize, link: Link, until: Nanos },
    Quiet { path: usize, end: usize },
    ClockStep { node: usize, seconds: i64 },
    HandOver { node: usize, force: bool },
    Stranger { until: Nanos },
    WitnessRestart,
    Attack { until: Nanos },
    Replay,
}

impl World {
    /// Plans a random fault between now and `end`, and its end not after `end`.
    pub fn plan_fault(&mut self, end: Nanos) {
        let at = self.random.u64(self.now..end);
        // Short and long alike: what is as long as a timer finds more than what is far from all of them.
        let interval = self.interval_max();
        let longest = if self.random.bool() { 8 * interval } else { interval };
        let until = (at + self.random.u64(1..=longest)).min(end);
        let node = self.random.usize(0..2);
        match self.random.u8(0..18) {
            0 | 1 => self.plan(at, Fault::Pause { node, until }, until, Fault::Resume { node }),
            2 => self.plan(at, Fault::Crash { node }, until, Fault::Start { node }),
            3 => self.plan(at, Fault::Unfit { node }, until, Fault::Fit { node }),
            4 => self.plan(at, Fault::Stop { node }, until, Fault::Start { node }),
            5 | 6 => {
                let link = self.random_link();
                let ends = if self.random.bool() { vec![node] } else { vec![0, 1] };
                self.plan_cut(at, until, &[link], &ends);
            }
            7 => self.plan_cut(at, until, &self.setting.paths(), &[node]),
            8 => self.plan_cut(at, until, &self.setting.paths(), &[0, 1]),
            9 => self.plan_isolation(at, until, node),
            10 | 11 => self.plan_noise(at, until),
            12 => {
                let seconds = self.random.i64(-7200..=7200);
                self.schedule(at, Event::Fault(Fault::ClockStep { node, seconds }));
            }
            13 => {
                let (worse, better) = (Fault::Synced { node, synced: false }, Fault::Synced { node, synced: true });
                self.plan(at, worse, until, better);
            }
            14 | 15 => {
                let force = self.random.bool();
                self.schedule(at, Event::Fault(Fault::HandOver { node, force }));
            }
            16 if self.setting.witness && self.random.u8(0..8) == 0 => {
                self.schedule(at, Event::Fault(Fault::WitnessRestart));
            }
            16 => self.schedule(at, Event::Fault(Fault::Stranger { until })),
            _ if self.setting.authentic => self.schedule(at, Event::Fault(Fault::Attack { until })),
            _ => self.schedule(at, Event::Fault(Fault::Replay)),
        }
    }

    fn plan(&mut self, at: Nanos, fault: Fault, until: Nanos, end: Fault) {
        self.schedule(at, Event::Fault(fault));
        self.schedule(until, Event::Fault(end));
    }

    fn plan_cut(&mut self, at: Nanos, until: Nanos, paths: &[usize], ends: &[usize]) {
        for path in paths {
            for end in ends {
                let (path, end) = (*path, *end);
                self.plan(at, Fault::Cut { path, end, until }, until, Fault::Mend { path, end });
            }
        }
    }

    /// A node loses its network: whatever it sends, or whatever comes to it, or both.
    fn plan_isolation(&mut self, at: Nanos, until: Nanos, node: usize) {
        let (deaf, mute) = [(true, true), (true, false), (false, true)][self.random.usize(0..3)];
        if mute {
            self.plan_cut(at, until, &self.setting.paths(), &[node]);
            self.plan_cut(at, until, &[ASK], &[node]);
        }
        if deaf {
            self.plan_cut(at, until, &self.setting.paths(), &[1 - node]);
            self.plan_cut(at, until, &[ANSWER], &[node]);
        }
    }

    fn random_link(&mut self) -> usize {
        let links = self.setting.links();
        links[self.random.usize(0..links.len())]
    }

    fn plan_noise(&mut self, at: Nanos, until: Nanos) {
        let paths = if self.random.bool() { vec![self.random_link()] } else { self.setting.links() };
        let end = self.random.usize(0..2);
        // What the witness makes sure of holds as long as an advert that is late is less late than a claim on the peer's
        // word is good for.
        let delay_max = if self.setting.witness { self.interval_max() / 8 } else { 2 * self.interval_max() };
        let link = Link {
            cuts: 0,
            loss: self.random.u8(0..=80),
            duplication: self.random.u8(0..=30),
            corruption: self.random.u8(0..=20),
            delay_max: if self.random.bool() { self.random.u64(0..=delay_max) } else { 0 },
        };
        for path in paths {
            self.plan(at, Fault::Noise { path, end, link, until }, until, Fault::Quiet { path, end });
        }
    }

    pub fn begin(&mut self, fault: Fault) -> Result<(), String> {
        self.note(|| format!("-- {fault:?}"));
        let latency_max = self.latency_max;
        match fault {
            Fault::Pause { node, until } => {
                self.trouble(until);
                self.nodes[node].paused = self.nodes[node].machine.is_some();
                self.nodes[node].has_slept = true;
            }
            Fault::Resume { node } => {
                self.nodes[node].paused = false;
                self.turn(node)?;
            }
            Fault::Crash { node } => {
                let operation_took_effect = self.random.bool();
                self.nodes[node].crash(operation_took_effect);
            }
            Fault::Start { node } => self.start(node)?,
            Fault::Unfit { node } => {
                self.nodes[node].fit = false;
                self.signal(node, Input::Unfit("worker exited".into()))?;
            }
            Fault::Fit { node } => {
                self.nodes[node].fit = true;
                self.signal(node, Input::Fit)?;
            }
            Fault::Stop { node } => self.signal(node, Input::Stop)?,
            Fault::Synced { node, synced } => self.set_synced(node, synced)?,
            Fault::Cut { path, end, until } => {
                // The adverts sent just before the end are lost just after it.
                self.trouble(until + latency_max);
                self.links[path][end].cuts += 1;
            }
            Fault::Mend { path, end } => self.links[path][end].cuts -= 1,
            Fault::Noise { path, end, link, until } => {
                self.trouble(until + link.delay_max + latency_max);
                self.links[path][end] = Link { cuts: self.links[path][end].cuts, ..link };
            }
            Fault::Quiet { path, end } => {
                self.links[path][end] = Link { cuts: self.links[path][end].cuts, ..Link::default() };
            }
            Fault::ClockStep { node, seconds } => {
                self.counts.clock_steps += 1;
                self.nodes[node].wall_offset = seconds;
            }
            Fault::HandOver { node, force } => {
                // It is given up after half a second or three intervals, and may take place for four more.
                self.trouble(self.now + 500 * MILLISECOND + 8 * self.interval_max());
                self.hand_over(node, force)?;
            }
            Fault::Stranger { until } => {
                self.stranger_until = until;
                self.trouble(until + 2 * SECOND + 10 * self.interval_max());
            }
            Fault::WitnessRestart => {
                let (now, boot) = (self.instant(), self.random.u64(1..));
                self.server = Server::new(vec![Key::derived(PAIR_KEY)], boot, now);
                self.trouble(self.now + QUIET.as_nanos() as Nanos);
            }
            Fault::Attack { until } => self.schedule(self.now, Event::Attack { until }),
            Fault::Replay => self.replay(),
        }
        Ok(())
    }

    pub fn set_synced(&mut self, node: usize, synced: bool) -> Result<(), String> {
        self.nodes[node].synced = synced;
        self.signal(node, Input::Synced(synced))
    }

    /// The operator asks, unless he still waits for an answer.
    pub fn hand_over(&mut self, node: usize, force: bool) -> Result<(), String> {
        let target = &mut self.nodes[node];
        if target.machine.is_none() || target.stopping || target.switchover_open {
            return Ok(());
        }
        target.switchover_open = true;
        self.signal(node, Input::HandOver { force })
    }

    /// An advert of the past arrives once more, and nothing shows that it is old.
    fn replay(&mut self) {
        let adverts: Vec<(usize, Packet)> =
            self.history.iter().filter(|(_, packet)| packet.path != HELLO).cloned().collect();
        if adverts.is_empty() {
            return;
        }
        let (to, packet) = adverts[self.random.usize(0..adverts.len())].clone();
        let at = self.now + self.random.u64(0..=self.latency_max);
        self.trouble(at);
        self.schedule(at, Event::Deliver { to, packet });
    }

    /// Whether hellos go both ways.
    pub fn is_linked_by_hellos(&self) -> bool {
        self.setting.hellos && self.links[HELLO].iter().all(|link| link.cuts == 0)
    }

    pub fn reaches_witness(&self, node: usize) -> bool {
        self.links[ASK][node].cuts == 0 && self.links[ANSWER][node].cuts == 0
    }
}
