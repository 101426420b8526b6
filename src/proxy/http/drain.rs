//! How fast a client takes responses, and whether that is fast enough.

use std::time::Duration;

use tokio::net::TcpStream;

use super::body::floor;
use crate::config::RateFloor;
use crate::limit::floor::Meter;
use crate::net::outgoing::unsent_bytes;

/// How fast a client takes responses.
pub struct Drain {
    meter: Meter,
    /// Bytes that the kernel had not brought to the client when we began to wait.
    queued: usize,
}

impl Drain {
    /// Of a client that has all its credit.
    pub fn new(rate: RateFloor) -> Self {
        Self { meter: Meter::new(floor(rate)), queued: 0 }
    }

    /// The kernel has no room for what is written. Gives the time at which the client is late.
    pub fn waits(&mut self, socket: &TcpStream, is_new: bool, now: Duration) -> Duration {
        if is_new {
            self.queued = unsent_bytes(socket);
        }
        self.meter.waits(now)
    }

    /// Whether the client has taken nothing in its time. The kernel asks for more only when a good part of its own
    /// buffer has gone: what has gone of that counts as well.
    pub fn is_late(&mut self, socket: &TcpStream, now: Duration) -> bool {
        let queued = unsent_bytes(socket);
        let gone = self.queued.saturating_sub(queued);
        self.queued = queued;
        self.meter.moved(gone, now);
        self.meter.waits(now) <= now
    }

    /// So many bytes have been written.
    pub fn moved(&mut self, len: usize, now: Duration) {
        self.meter.moved(len, now);
    }
}
