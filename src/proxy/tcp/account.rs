//! What a connection leaves behind for the access log and the metrics.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use super::relay::{End, Side};
use crate::proxy::access_log::line::{self, Asked, Entry};
use crate::proxy::http::trace::{Ended, Marks, began_us};
use crate::proxy::state::Pool;
use crate::proxy::thread::Thread;

/// What is noted of a connection while it lasts.
#[derive(Default)]
pub struct Account {
    /// Its times, and why its server was chosen.
    pub marks: Marks,
    /// Bytes that were passed on to the server and to the client.
    pub moved: Moved,
    /// The server.
    pub server: Cell<Option<usize>>,
    /// The host that its TLS handshake names.
    pub sni: RefCell<String>,
    /// The version of TLS that ends here.
    pub tls: Cell<&'static str>,
    /// It was nobody who wanted something.
    pub is_knock: Cell<bool>,
}

/// Bytes that were passed on.
#[derive(Default)]
pub struct Moved {
    /// To the server.
    pub up: Cell<u64>,
    /// To the client.
    pub down: Cell<u64>,
}

/// Notes how a relay ended.
pub fn note_end(marks: &Marks, end: End) {
    match end {
        End::Orderly(Side::Client) => marks.ends(Ended::Complete, "client_closed"),
        End::Orderly(Side::Server) => marks.ends(Ended::Complete, "server_closed"),
        End::ClientBroke => marks.ends(Ended::ClientGone, "connection_reset"),
        End::ServerBroke => marks.ends(Ended::ServerFailed, "connection_terminated"),
        End::Idle => marks.ends(Ended::TimedOut, "idle"),
    }
}

impl Account {
    /// Counts it, and writes its line.
    pub fn close(&self, thread: &Thread, listener: usize, pool: &Pool, client: IpAddr) {
        if let Some(counters) = thread.counters.by_listener.get(listener) {
            counters.moved(&self.moved);
        }
        let Some(listener) = thread.site.listener(listener) else { return };
        let (Some(log), Some(phases)) = (&listener.log, self.marks.phases()) else { return };
        let (ended, reason) = self.marks.ended().unwrap_or((Ended::Complete, ""));
        if self.is_knock.get() || (log.only_errors && ended == Ended::Complete) || !log.wants(None) {
            return;
        }
        let Some(lines) = thread.lines.get(log.target) else { return };
        let server = self.server.get().and_then(|server| pool.config.servers.get(server));
        let sni = self.sni.borrow();
        let entry = Entry {
            time_us: began_us(phases.total_us),
            client: client.to_canonical(),
            request_id: b"",
            user: b"",
            listener: &listener.config.name,
            request: Asked { protocol: "TCP", ..Asked::default() },
            status: 0,
            bytes_in: self.moved.up.get(),
            bytes_out: self.moved.down.get(),
            route: "",
            pool: &pool.config.name,
            server: server.map_or("", |server| server.name.as_str()),
            chosen_by: server.map_or("", |_| self.marks.chosen_by.get().as_str()),
            retries: self.marks.retries.get(),
            retried_for: "",
            hedge: "",
            tls: self.tls.get(),
            sni: &sni,
            phases,
            ended: ended.as_str(),
            reason,
        };
        lines.write(|buffer| line::write(log.format, &entry, buffer));
    }
}
