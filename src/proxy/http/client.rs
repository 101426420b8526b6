//! Who speaks with us: a connection, and on it one or more requests.

use std::cell::{Cell, OnceCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::interim::Mailbox;
use super::strict;
use super::trace::Marks;
use super::tunnel::{self, Switch};
use crate::proxy::accept::Ends;
use crate::proxy::refusals::Reason;
use crate::proxy::state::{Listener, Site};
use crate::proxy::thread::Thread;
use crate::proxy::timers::{Deadlines, Registration};
use crate::proxy::tls::facts::TlsFacts;
use crate::proxy::upstream::dial::OnBehalf;
use crate::proxy::visits::Visit;

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
    tls: OnceCell<Rc<TlsFacts>>,
    behalf: OnBehalf,
    /// It, among the connections to its address.
    pub visit: Rc<Visit>,
    /// It cannot go on under the configuration in use.
    is_outdated: Cell<bool>,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(
        thread: Rc<Thread>,
        listener: usize,
        ends: &Ends,
        is_tls: bool,
        behalf: OnBehalf,
        visit: Rc<Visit>,
    ) -> Rc<Self> {
        let ip = ends.source.ip().to_canonical();
        // An address consists of digits, letters, dots and colons, so this cannot fail.
        let address = HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        let (port, destination_port) = (ends.source.port(), ends.destination.map(|destination| destination.port()));
        let (is_tls, tls) = (is_tls || ends.is_tls, OnceCell::new());
        let is_outdated = Cell::new(false);
        Rc::new(Self { thread, listener, ip, port, destination_port, address, is_tls, tls, behalf, visit, is_outdated })
    }

    /// Notes what its TLS handshake has come to. Once: it changes no more.
    pub fn set_tls(&self, facts: TlsFacts) {
        // Set before it is not, as there is one handshake.
        let _first = self.tls.set(Rc::new(facts));
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
        self.site().listener(self.listener)
    }

    /// The same connection under the configuration in use. Where it cannot go on under that one, it is left as it is, and is
    /// to end.
    pub fn latest(self: &Rc<Self>) -> Rc<Self> {
        if !self.thread.is_superseded() {
            return Rc::clone(self);
        }
        let thread = self.thread.latest();
        let own = self.listener();
        let is_own = |known: &Arc<Listener>| own.is_some_and(|own| Arc::ptr_eq(&known.presence, &own.presence));
        let listener = thread.site.listeners.iter().enumerate().find(|(_, known)| is_own(known));
        let Some((listener, known)) = listener else { return self.outdated() };
        // What servers are told from now on was not asked for when it was accepted.
        let lacks_ends = thread.site.tells_clients && self.behalf == OnBehalf::Ourselves;
        let lacks_port = known.identity.tells_port() && self.destination_port.is_none();
        if lacks_ends || lacks_port {
            return self.outdated();
        }
        Rc::new(Self {
            thread: Rc::clone(&thread),
            listener,
            ip: self.ip,
            port: self.port,
            destination_port: self.destination_port,
            address: self.address.clone(),
            is_tls: self.is_tls,
            tls: self.tls.clone(),
            behalf: self.behalf,
            visit: Rc::clone(&self.visit),
            is_outdated: Cell::new(false),
        })
    }

    fn outdated(self: &Rc<Self>) -> Rc<Self> {
        self.is_outdated.set(true);
        Rc::clone(self)
    }

    /// Whether its client is to come back on another one: another worker takes over, or the address moves to the peer.
    pub fn is_leaving(&self) -> bool {
        self.thread.is_leaving() || self.visit.is_asked_to_leave()
    }

    /// Whether it takes no more requests: the worker drains, the address is about to move, or its listener is configured no
    /// more.
    pub fn is_ending(&self) -> bool {
        let is_over = || self.listener().is_some_and(|listener| listener.presence.is_over());
        self.thread.is_draining() || self.visit.has_to_leave() || self.is_outdated.get() || is_over()
    }
}

/// Who has one request at a time: an HTTP/1 connection, or one stream of an HTTP/2 connection.
pub struct Client {
    /// The connection that it is or is on.
    pub connection: Rc<Connection>,
    /// Requests whose response is not yet sent: 0 or 1.
    pub in_flight: Cell<u32>,
    /// Why the request stream was refused.
    pub refusal: Cell<Option<Refusal>>,
    /// What stood where the request line of a refused request was to stand, where a log is kept: its first line, or the
    /// beginning of that.
    pub refused_line: Cell<Box<[u8]>>,
    /// A response was given up in the middle.
    pub broken_off: Cell<bool>,
    /// Memory is short, and nothing is read for it from a server until it has taken some of what waits.
    pub is_held_back: Cell<bool>,
    /// A request's body is on its way to a server.
    pub is_uploading: Cell<bool>,
    /// What is noted of the request that it makes now.
    pub marks: Marks,
    /// Of an HTTP/1 connection: nothing has come that was not answered or handed on.
    pub is_quiet: Cell<bool>,
    /// hyper is sent away, and the connection stays.
    pub is_resting: Cell<bool>,
    /// Whether an HTTP/1 connection changes to another protocol.
    pub switch: Cell<Switch>,
    /// What it changes to, once that is granted.
    pub tunnel: tunnel::Slot,
    /// Interim responses for it.
    pub interim: Mailbox,
    registration: Rc<Registration>,
}

/// Why no more requests are read from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It broke a rule of HTTP.
    Malformed(strict::Rejection),
    /// It took too long to say what it wants.
    TooSlow,
    /// It has more to say than it may.
    TooLarge,
}

impl Client {
    /// One in front of its first request.
    pub fn new(connection: Rc<Connection>) -> Rc<Self> {
        let registration = Rc::new(connection.thread.timers.register());
        Self::with(connection, registration)
    }

    /// The same client on its connection under the configuration in use. Nothing of a request is under way.
    pub fn latest(&self) -> Rc<Self> {
        Self::with(self.connection.latest(), Rc::clone(&self.registration))
    }

    fn with(connection: Rc<Connection>, registration: Rc<Registration>) -> Rc<Self> {
        Rc::new(Self {
            connection,
            in_flight: Cell::new(0),
            refusal: Cell::new(None),
            refused_line: Cell::default(),
            broken_off: Cell::new(false),
            is_held_back: Cell::new(false),
            is_uploading: Cell::new(false),
            marks: Marks::default(),
            is_quiet: Cell::new(false),
            is_resting: Cell::new(false),
            switch: tunnel::unasked(),
            tunnel: tunnel::Slot::default(),
            interim: Mailbox::default(),
            registration,
        })
    }

    /// Whether somebody wants to know how long its requests take.
    pub fn is_timed(&self) -> bool {
        self.site().is_measured || self.listener().is_some_and(|listener| listener.log.is_some())
    }

    /// The time since any origin, to the nanosecond, as [`Meter`](crate::limit::floor::Meter) wants it.
    pub fn now(&self) -> Duration {
        self.site().sessions.now()
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

    /// Reads no more from it than is on its way already.
    pub fn refuse(&self, refusal: Refusal) {
        match refusal {
            Refusal::TooLarge => self.refused(Reason::BodyTooLarge),
            Refusal::Malformed(_) | Refusal::TooSlow => {}
        }
        self.refusal.set(Some(refusal));
    }

    /// Counts something that was refused.
    pub fn refused(&self, reason: Reason) {
        self.thread().refused(self.connection.listener, reason);
    }

    /// The thread that it runs on.
    pub fn thread(&self) -> &Rc<Thread> {
        &self.connection.thread
    }
}
