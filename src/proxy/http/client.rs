//! Who speaks with us: a connection, and on it one or more requests.

use std::cell::{Cell, OnceCell};
use std::net::IpAddr;
use std::rc::Rc;

use http::HeaderValue;

use super::interim::Mailbox;
use super::strict;
use super::tunnel::{self, Switch};
use crate::proxy::accept::Ends;
use crate::proxy::state::{Listener, Site};
use crate::proxy::thread::Thread;
use crate::proxy::timers::{Deadlines, Registration};
use crate::proxy::tls::facts::TlsFacts;
use crate::proxy::upstream::dial::OnBehalf;

/// One client connection: what all requests on it share.
pub struct Connection {
    /// Where it runs.
    pub thread: Rc<Thread>,
    /// Index of the listener that accepted it.
    pub listener: usize,
    /// Where the client is, or what it is to a proxy in front that says so (`proxy::accept`).
    pub ip: IpAddr,
    /// The client's port.
    pub port: u16,
    /// The port that the client connected to, where servers are told it.
    pub destination_port: Option<u16>,
    /// The same for X-Forwarded-For.
    pub address: HeaderValue,
    /// Whether the client speaks TLS, to us or to a proxy in front that says so.
    pub is_tls: bool,
    /// Set once the handshake is done.
    tls: OnceCell<Box<TlsFacts>>,
    behalf: OnBehalf,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(thread: Rc<Thread>, listener: usize, ends: &Ends, is_tls: bool, behalf: OnBehalf) -> Rc<Self> {
        let ip = ends.source.ip().to_canonical();
        // An address consists of digits, letters, dots and colons, so this cannot fail.
        let address = HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        let (port, destination_port) = (ends.source.port(), ends.destination.map(|destination| destination.port()));
        let (is_tls, tls) = (is_tls || ends.is_tls, OnceCell::new());
        Rc::new(Self { thread, listener, ip, port, destination_port, address, is_tls, tls, behalf })
    }

    /// Notes what its TLS handshake has come to. Once: it changes no more.
    pub fn set_tls(&self, facts: TlsFacts) {
        // Set before it is not, as there is one handshake.
        let _first = self.tls.set(Box::new(facts));
    }

    /// What its TLS handshake has come to; `None` in clear text.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.get().map(|facts| &**facts)
    }

    /// Whose connection it is, for servers that are told.
    pub fn on_behalf(&self) -> OnBehalf {
        self.behalf
    }

    /// What all threads share.
    pub fn site(&self) -> &Site {
        &self.thread.site
    }

    /// The listener that accepted it.
    pub fn listener(&self) -> Option<&Listener> {
        self.site().listeners.get(self.listener)
    }
}

/// Who speaks in one task: an HTTP/1 connection, whose requests take turns, or one stream of an HTTP/2 connection.
pub struct Client {
    /// The connection that it is or is on.
    pub connection: Rc<Connection>,
    /// Requests whose response is not yet sent: 0 or 1.
    pub in_flight: Cell<u32>,
    /// Why the request stream was refused.
    pub refusal: Cell<Option<Refusal>>,
    /// A response was given up in the middle.
    pub broken_off: Cell<bool>,
    /// A request's body is on its way to a server.
    pub is_uploading: Cell<bool>,
    /// Whether an HTTP/1 connection changes to another protocol.
    pub switch: Cell<Switch>,
    /// What it changes to, once that is granted.
    pub tunnel: tunnel::Slot,
    /// Interim responses for it.
    pub interim: Mailbox,
    registration: Registration,
}

/// Why no more requests are read from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It broke a rule of HTTP.
    Malformed(strict::Rejection),
    /// It took too long to say what it wants.
    TooSlow,
}

impl Client {
    /// One in front of its first request.
    pub fn new(connection: Rc<Connection>) -> Rc<Self> {
        let registration = connection.thread.timers.register();
        Rc::new(Self {
            connection,
            in_flight: Cell::new(0),
            refusal: Cell::new(None),
            broken_off: Cell::new(false),
            is_uploading: Cell::new(false),
            switch: tunnel::unasked(),
            tunnel: tunnel::Slot::default(),
            interim: Mailbox::default(),
            registration,
        })
    }

    /// Its deadlines.
    pub fn deadlines(&self) -> &Rc<Deadlines> {
        self.registration.deadlines()
    }

    /// What all threads share.
    pub fn site(&self) -> &Site {
        self.connection.site()
    }

    /// The listener that accepted its connection.
    pub fn listener(&self) -> Option<&Listener> {
        self.connection.listener()
    }

    /// The thread that it runs on.
    pub fn thread(&self) -> &Rc<Thread> {
        &self.connection.thread
    }
}
