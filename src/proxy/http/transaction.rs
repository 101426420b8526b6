//! One request and its response, from the request's head to the response's last byte.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;

use http::{Method, Request, Response};

use super::action::Facts;
use super::client::Client;
use super::compression::negotiate::Accepted;
use super::grpc;
use super::protection::Quotas;
use super::respond::Own;
use super::trace::{Ended, Trace, began_us};
use crate::config::PoolIndex;
use crate::proxy::access_log::line::{self, Entry, Phases};
use crate::proxy::counters::Served;
use crate::proxy::load::Awaited;
use crate::proxy::load::UnderWay;
use crate::proxy::passive::Passage;
use crate::proxy::queue::Slot;
use crate::proxy::state::ListenerLog;
use crate::proxy::tcp::Moved;
use crate::proxy::thread::Place;
use crate::proxy::timers::Party;
use crate::proxy::tls::facts::TlsFacts;

/// The status of a request whose client went away before there was one, as nginx has it.
const CLIENT_GONE: u16 = 499;

/// A request under way, and what is known of it by now. It ends when its response has been sent or given up.
pub struct Transaction {
    /// Who asks.
    pub client: Rc<Client>,
    /// The address that counts as the client's: that of its connection, or what trusted proxies say.
    pub ip: IpAddr,
    /// Its id, where the listener gives ids.
    pub request_id: Option<HeaderValue>,
    /// Its traceparent (W3C Trace Context), where the listener sees to it that there is one.
    pub traceparent: Option<HeaderValue>,
    /// The user whose password came with it, where one is asked for.
    pub user: Option<Arc<str>>,
    /// Index of its route among those of the listener, once one was found.
    pub route: Option<usize>,
    /// The pool that it goes to, once that is known.
    pub pool: Option<PoolIndex>,
    /// What the client is told of the limits that it was counted for, where it is.
    pub quotas: Option<Box<Quotas>>,
    /// What was asked for, where a header is to say so.
    pub facts: Option<Facts>,
    /// The server that answers, once there is one.
    pub place: Option<Place>,
    /// The status that was answered, once there is one.
    pub status: Option<u16>,
    /// Why we have answered ourselves, where we have.
    pub reason: &'static str,
    /// Bytes of the response's body so far, as they go to the client.
    pub bytes_out: u64,
    /// What codings the client accepts, where anything is compressed here.
    pub accepted: Option<Accepted>,
    /// Whether it is a call of gRPC, whose errors are not for people.
    pub is_grpc: bool,
    /// Whether the response has a body to send.
    pub has_body: bool,
    /// Whether all of the response's body has been taken.
    pub is_whole: bool,
    /// What was asked, where that is to be a line of the access log.
    trace: Option<Box<Trace>>,
    /// Tries after the first, and what the last of them was for.
    pub retries: u32,
    /// In the words of `pool.retries.on`, or `idle_connection_closed`.
    pub retried_for: Option<&'static str>,
    /// Its share of what the worker takes on, where that is limited.
    pub under_way: Option<UnderWay>,
    /// Memory set aside until the response begins.
    pub awaited: Option<Awaited>,
    /// Its share of what the server takes on, where that is limited.
    pub slot: Option<Slot>,
    /// Its way past the pool's breaker, where there is one.
    pub passage: Option<Passage>,
    /// What has been passed on since it changed to another protocol, where it has.
    pub tunnelled: Option<Box<Moved>>,
}

impl Transaction {
    /// Begins with a request's head. Boxed, as it is handed on from the request's steps to the response's body.
    pub fn begin(client: &Rc<Client>) -> Box<Self> {
        client.in_flight.set(client.in_flight.get() + 1);
        client.deadlines().clear(Party::ClientRead);
        client.marks.begin(client.is_timed());
        Box::new(Self {
            client: Rc::clone(client),
            ip: client.connection.ip,
            request_id: None,
            traceparent: None,
            user: None,
            route: None,
            pool: None,
            quotas: None,
            facts: None,
            place: None,
            status: None,
            reason: "",
            bytes_out: 0,
            accepted: None,
            is_grpc: false,
            has_body: true,
            is_whole: false,
            trace: None,
            retries: 0,
            retried_for: None,
            under_way: None,
            awaited: None,
            slot: None,
            passage: None,
            tunnelled: None,
        })
    }

    /// It goes on as a tunnel, to the end of that. For the worker it is a connection from here on and no request: among
    /// those, long tunnels would leave no room for others.
    pub fn switched(&mut self) {
        self.under_way = None;
        self.passage.iter_mut().for_each(Passage::tried);
        (self.is_whole, self.tunnelled) = (true, Some(Box::default()));
    }

    /// Bytes from the client and to it.
    fn bytes(&self) -> (u64, u64) {
        let (up, down) = self.tunnelled.as_ref().map_or((0, 0), |moved| (moved.up.get(), moved.down.get()));
        (self.client.marks.bytes_in.get() + up, self.bytes_out + down)
    }

    /// Notes what is asked, where that is to be a line of the access log. `None` for what could not be read: of that,
    /// the line that stands where a request was to begin.
    pub fn note<B>(&mut self, request: Option<&Request<B>>) {
        self.has_body = request.is_none_or(|request| *request.method() != Method::HEAD);
        self.is_grpc = request.is_some_and(grpc::is_call);
        let client = &self.client;
        let Some(log) = client.listener().and_then(|listener| listener.log.as_ref()) else { return };
        if !log.wants(request.map(|request| request.uri().path())) {
            return;
        }
        let Some(lines) = client.thread().lines.get(log.target) else { return };
        let mut trace = client.thread().traces.borrow_mut().pop().unwrap_or_default();
        match request {
            Some(request) => trace.take(request, lines.text_bytes_max()),
            None => trace.take_line(&client.refused_line.take(), lines.text_bytes_max()),
        }
        self.trace = Some(trace);
    }

    /// Notes what is answered.
    pub fn answered<B>(&mut self, response: &Response<B>) {
        self.awaited = None;
        self.status = Some(response.status().as_u16());
        if let Some(own) = response.extensions().get::<Own>() {
            self.reason = own.reason;
        }
    }

    /// How it ended, and why where that was no good end.
    fn ended(&self) -> (Ended, &'static str) {
        if let Some(ended) = self.client.marks.ended() {
            return ended;
        }
        if self.status.is_none() || (self.has_body && !self.is_whole) {
            return (Ended::ClientGone, "");
        }
        let ended = match (self.reason, self.status) {
            ("", _) => Ended::Complete,
            (_, Some(408 | 504)) => Ended::TimedOut,
            (_, Some(502)) | ("destination_unavailable", _) => Ended::ServerFailed,
            (_, Some(..400)) => Ended::Complete,
            _ => Ended::Refused,
        };
        (ended, self.reason)
    }

    fn count(&self, phases: Option<&Phases>) {
        let counters = &self.client.thread().counters;
        let (bytes_in, bytes_out) = self.bytes();
        // Hours of a tunnel say nothing of how long requests take.
        let total_us = |phases: &Phases| match self.tunnelled {
            Some(_) => phases.first_byte_us,
            None => Some(phases.total_us),
        };
        let served = Served {
            listener: self.client.connection.listener,
            pool: self.place.map(|place| place.pool).or(self.pool),
            server: self.place.map(|place| place.server),
            status: self.status.unwrap_or(CLIENT_GONE),
            bytes_in,
            bytes_out,
            retries: self.retries,
            hedge: self.client.marks.hedge.get(),
            first_byte_us: phases.and_then(|phases| phases.first_byte_us),
            total_us: phases.and_then(total_us),
        };
        counters.served(&served);
    }

    fn log(&mut self, log: &ListenerLog, trace: &Trace, phases: Phases) {
        let (client, site) = (&self.client, self.client.site());
        let status = self.status.unwrap_or(CLIENT_GONE);
        let (ended, reason) = self.ended();
        if log.only_errors && status < 400 && ended == Ended::Complete {
            return;
        }
        let listener = client.listener();
        let route = self.route.and_then(|route| listener?.config.routes.get(route));
        let listener = listener.map_or("", |listener| listener.config.name.as_str());
        let pool = self.place.map(|place| place.pool).or(self.pool).and_then(|pool| site.pool(pool));
        let server = self.place.and_then(|place| pool?.config.servers.get(place.server));
        let (marks, tls) = (&client.marks, client.connection.tls());
        let (bytes_in, bytes_out) = self.bytes();
        let entry = Entry {
            time_us: began_us(phases.total_us),
            client: self.ip,
            request_id: self.request_id.as_ref().map_or(b"", |id| id.as_bytes()),
            user: self.user.as_ref().map_or(b"", |user| user.as_bytes()),
            listener,
            request: trace.asked(),
            status,
            bytes_in,
            bytes_out,
            route: route.map_or("", |route| route.label.as_str()),
            pool: pool.map_or("", |pool| pool.config.name.as_str()),
            server: server.map_or("", |server| server.name.as_str()),
            chosen_by: server.map_or("", |_| marks.chosen_by.get().as_str()),
            retries: self.retries,
            retried_for: self.retried_for.unwrap_or(""),
            hedge: marks.hedge.get().as_str(),
            tls: tls.map_or("", TlsFacts::version),
            sni: tls.and_then(TlsFacts::server_name).unwrap_or(""),
            phases,
            ended: ended.as_str(),
            reason,
        };
        if let Some(lines) = client.thread().lines.get(log.target) {
            lines.write(|buffer| line::write(log.format, &entry, buffer));
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let phases = self.client.marks.phases();
        self.count(phases.as_ref());
        if let Some(trace) = self.trace.take() {
            let client = Rc::clone(&self.client);
            if let (Some(log), Some(phases)) = (client.listener().and_then(|listener| listener.log.as_ref()), phases) {
                self.log(log, &trace, phases);
            }
            client.thread().keep_trace(trace);
        }
        let client = &self.client;
        client.in_flight.set(client.in_flight.get().saturating_sub(1));
        client.deadlines().clear(Party::Server);
        client.deadlines().clear(Party::Request);
        // From now on it is the client's turn, and nothing may run that would notice.
        if let Some(listener) = client.listener() {
            client.deadlines().set_once(Party::ClientRead, listener.config.idle_timeout);
        }
    }
}
