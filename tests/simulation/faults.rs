//! What can go wrong, at random.

use baton::vrrp::machine::Input;

use crate::node::Nanos;
use crate::world::{Event, Link, World};

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Pause { node: usize, until: Nanos },
    Resume { node: usize },
    Crash { node: usize },
    Start { node: usize },
    Unfit { node: usize },
    Fit { node: usize },
    Stop { node: usize },
    Cut { sender: usize, until: Nanos },
    Mend { sender: usize },
    Noise { sender: usize, link: Link, until: Nanos },
    Quiet { sender: usize },
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
        match self.random.u8(0..10) {
            0 | 1 => self.plan(at, Fault::Pause { node, until }, until, Fault::Resume { node }),
            2 => self.plan(at, Fault::Crash { node }, until, Fault::Start { node }),
            3 => self.plan(at, Fault::Unfit { node }, until, Fault::Fit { node }),
            4 => self.plan(at, Fault::Stop { node }, until, Fault::Start { node }),
            5 => self.plan(at, Fault::Cut { sender: node, until }, until, Fault::Mend { sender: node }),
            6 => {
                for sender in 0..2 {
                    self.plan(at, Fault::Cut { sender, until }, until, Fault::Mend { sender });
                }
            }
            7 | 8 => {
                let link = self.random_noise();
                self.plan(at, Fault::Noise { sender: node, link, until }, until, Fault::Quiet { sender: node });
            }
            _ => self.schedule(at, Event::Fault(Fault::Replay)),
        }
    }

    fn plan(&mut self, at: Nanos, fault: Fault, until: Nanos, end: Fault) {
        self.schedule(at, Event::Fault(fault));
        self.schedule(until, Event::Fault(end));
    }

    fn random_noise(&mut self) -> Link {
        Link {
            cuts: 0,
            loss: self.random.u8(0..=80),
            duplication: self.random.u8(0..=30),
            corruption: self.random.u8(0..=20),
            delay_max: if self.random.bool() { self.random.u64(0..=2 * self.interval_max()) } else { 0 },
        }
    }

    pub fn begin(&mut self, fault: Fault) -> Result<(), String> {
        self.note(|| format!("-- {fault:?}"));
        let latency_max = self.latency_max;
        match fault {
            Fault::Pause { node, until } => {
                self.trouble(until);
                self.nodes[node].paused = self.nodes[node].machine.is_some();
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
            Fault::Cut { sender, until } => {
                // The adverts sent just before the end are lost just after it.
                self.trouble(until + latency_max);
                self.links[sender].cuts += 1;
            }
            Fault::Mend { sender } => self.links[sender].cuts -= 1,
            Fault::Noise { sender, link, until } => {
                self.trouble(until + link.delay_max + latency_max);
                self.links[sender] = Link { cuts: self.links[sender].cuts, ..link };
            }
            Fault::Quiet { sender } => {
                self.links[sender] = Link { cuts: self.links[sender].cuts, ..Link::default() };
            }
            Fault::Replay => self.replay(),
        }
        Ok(())
    }

    /// An advert of the past arrives once more.
    fn replay(&mut self) {
        if self.history.is_empty() {
            return;
        }
        let (to, packet) = self.history[self.random.usize(0..self.history.len())].clone();
        let at = self.now + self.random.u64(0..=self.latency_max);
        self.trouble(at);
        self.schedule(at, Event::Deliver { to, packet });
    }
}
