//! Whether a client takes what is written to it, and takes it fast enough.
//!
//! `client_io` and `h2_io` ask for it when the kernel has no room for more.

use std::time::Duration;

use tokio::net::TcpStream;

use super::body::floor;
use super::client::Client;
use crate::config::RateFloor;
use crate::limit::floor::Meter;
use crate::net::outgoing::unsent_bytes;
use crate::proxy::refusals::Reason;
use crate::proxy::timers::Party;

/// What is known of a connection to which more is to be written than it takes.
#[derive(Default)]
pub struct Drain(Option<Box<Pace>>);

impl Drain {
    /// Of a client that has all its credit.
    pub fn new(client: &Client) -> Self {
        let rate = client.listener().and_then(|listener| listener.config.protection.response_rate);
        Self(rate.map(|rate| Box::new(Pace::new(rate))))
    }

    /// The kernel has no room: sets the time until which it has to have some.
    pub fn waits(&mut self, client: &Client, socket: &TcpStream) {
        let Some(listener) = client.listener() else { return };
        let deadlines = client.deadlines();
        deadlines.set_once(Party::ClientWrite, listener.config.idle_timeout);
        if let Some(pace) = &mut self.0 {
            let now = client.now();
            let late_at = pace.waits(socket, now);
            deadlines.set_no_later(Party::ClientWrite, late_at.saturating_sub(now));
        }
    }

    /// Whether the client has taken too long to take what is written, or too little of it.
    pub fn is_late(&mut self, client: &Client, socket: &TcpStream) -> bool {
        let deadlines = client.deadlines();
        if !deadlines.is_late(Party::ClientWrite) {
            return false;
        }
        let Some(pace) = &mut self.0 else { return true };
        if pace.is_late(socket, client.now()) {
            client.refused(Reason::ResponseTooSlow);
            return true;
        }
        // The rate has been kept, and so the client was not idle.
        deadlines.clear(Party::ClientWrite);
        false
    }

    /// So many bytes have been written.
    pub fn moved(&mut self, client: &Client, len: usize) {
        if let Some(pace) = &mut self.0 {
            pace.moved(len, client.now());
        }
    }
}

/// How fast a client takes responses.
struct Pace {
    meter: Meter,
    /// Bytes that the kernel had not brought to the client when we began to wait.
    queued: usize,
    /// Something was written since the last wait for room.
    has_written: bool,
}

impl Pace {
    fn new(rate: RateFloor) -> Self {
        Self { meter: Meter::new(floor(rate)), queued: 0, has_written: true }
    }

    /// Gives the time at which the client is late.
    fn waits(&mut self, socket: &TcpStream, now: Duration) -> Duration {
        if std::mem::take(&mut self.has_written) {
            self.queued = unsent_bytes(socket);
        }
        self.meter.waits(now)
    }

    /// Whether the client has taken nothing in its time. The kernel asks for more only when a good part of its own
    /// buffer has gone: what has gone of that counts as well.
    fn is_late(&mut self, socket: &TcpStream, now: Duration) -> bool {
        let queued = unsent_bytes(socket);
        let gone = self.queued.saturating_sub(queued);
        self.queued = queued;
        self.meter.moved(gone, now);
        self.meter.waits(now) <= now
    }

    fn moved(&mut self, len: usize, now: Duration) {
        self.meter.moved(len, now);
        self.has_written = true;
    }
}
