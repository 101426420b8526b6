//! Somebody on the link who hears everything and has no key: forges, replays, throws back, on every path. What he sends
//! must not get as far as the machine; the shell says so if it does.
//!
//! He does not hold packets back, which no program can tell from a slow network.

use crate::node::Nanos;
use crate::wire::{HELLO, Packet, V4, V6};
use crate::world::{Event, World};

impl World {
    /// One packet, and the next one soon.
    pub fn attack(&mut self, until: Nanos) {
        if self.now >= until {
            return;
        }
        let next = self.now + self.random.u64(1..=self.interval_max());
        self.schedule(next, Event::Attack { until });
        let (to, mut packet) = match self.random.u8(0..6) {
            0 | 1 => self.forged(),
            _ if self.history.is_empty() => self.forged(),
            _ => self.history[self.random.usize(0..self.history.len())].clone(),
        };
        let to = match self.random.u8(0..8) {
            // Back to its sender, or by the other network.
            0 => 1 - to,
            1 if packet.path != HELLO => {
                packet.path = V4 + V6 - packet.path;
                to
            }
            2 => {
                let at = self.random.usize(0..packet.bytes.len());
                packet.bytes[at] ^= 1 << self.random.u8(0..8);
                to
            }
            _ => to,
        };
        packet.injected = true;
        // What was heard once and is on its way a second time cannot be told from the first; so much later that it was.
        self.schedule(self.now, Event::Deliver { to, packet });
    }

    fn forged(&mut self) -> (usize, Packet) {
        let from = self.random.usize(0..2);
        let path = self.random.usize(0..self.setting.advert_paths);
        let priority = [0, 1, 100, 254, 255][self.random.usize(0..5)];
        let node = &self.nodes[from];
        let mut bytes = node.wire.forged(path, node.unix_time(self.now), priority, &node.parameters);
        if self.random.bool() {
            // Without a trailer at all.
            bytes.truncate(bytes.len() - 28);
            if path == V4 {
                bytes[3] -= 28;
            }
        }
        (1 - from, Packet { path, bytes, injected: true })
    }
}
