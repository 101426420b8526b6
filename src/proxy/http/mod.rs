//! HTTP/1.1: the life of a request.
//!
//! `client_io` lets only well-formed requests in, hyper parses them, [`answer`] below counts and routes them, `forward`
//! brings them to a server and the response back. One task does all of it for one client connection.

pub mod body;
mod client_io;
mod forward;
mod headers;
mod respond;
mod route;
pub mod strict;

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use self::body::{InFlight, ResponseBody};
use self::client_io::ClientIo;
pub use self::client_io::ClientStream;
use super::state::{Listener, Site};
use super::thread::Thread;
use super::timers::{Deadlines, Registration};
use crate::limit::Verdict;

/// hyper's buffers for one client: no head that `strict` lets through is larger.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// One client connection: what every part of it needs to know.
pub struct Client {
    /// Where it runs.
    pub thread: Rc<Thread>,
    /// Index of the listener that accepted it.
    pub listener: usize,
    /// Where it connects from.
    pub ip: IpAddr,
    /// The same for X-Forwarded-For.
    pub address: HeaderValue,
    /// Whether the client speaks TLS to us.
    pub is_tls: bool,
    /// Requests whose response is not yet sent: 0 or 1.
    pub in_flight: Cell<u32>,
    /// Why the request stream was refused.
    pub refusal: Cell<Option<Refusal>>,
    /// A response was given up in the middle.
    pub broken_off: Cell<bool>,
    /// A request's body is on its way to a server.
    pub is_uploading: Cell<bool>,
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
    /// A connection that was just accepted.
    pub fn new(thread: Rc<Thread>, listener: usize, peer: SocketAddr, is_tls: bool) -> Rc<Self> {
        let ip = peer.ip().to_canonical();
        // An address consists of digits, letters, dots and colons, so this cannot fail.
        let address = HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        let registration = thread.timers.register();
        Rc::new(Self {
            thread,
            listener,
            ip,
            address,
            is_tls,
            in_flight: Cell::new(0),
            refusal: Cell::new(None),
            broken_off: Cell::new(false),
            is_uploading: Cell::new(false),
            registration,
        })
    }

    /// Its deadlines.
    pub fn deadlines(&self) -> &Rc<Deadlines> {
        self.registration.deadlines()
    }

    fn site(&self) -> &Site {
        &self.thread.site
    }

    fn listener(&self) -> Option<&Listener> {
        self.site().listeners.get(self.listener)
    }
}

/// Serves a connection to its end.
pub async fn serve(client: Rc<Client>, stream: ClientStream) {
    let io = TokioIo::new(ClientIo::new(stream, Rc::clone(&client)));
    let service = service_fn(|request| answer(Rc::clone(&client), request));
    let mut builder = http1::Builder::new();
    // No `pipeline_flush`: it lifts the limit on what waits for a slow client (hyper 1.12, `Buffered::can_buffer`).
    builder.half_close(false).max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let mut told_to_end = false;
    // An error here is the client's going away or `ClientIo` giving it up: there is nobody left to tell.
    let _ended = std::future::poll_fn(|context| {
        client.deadlines().attach(context);
        if client.thread.is_draining() && !std::mem::replace(&mut told_to_end, true) {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await;
}

/// From a request to its response.
async fn answer(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
    let in_flight = InFlight::begin(&client);
    client.thread.counters.requests.fetch_add(1, Ordering::Relaxed);
    if client_io::is_refusal(&client.thread.refusal_target, &request) {
        return Ok(respond::refused(&client, client.refusal.get()));
    }
    if let Some(retry_after) = over_the_limit(&client, &request) {
        return Ok(respond::limited(&client, retry_after));
    }
    let pool = client.listener().and_then(|listener| route::pool(&listener.config, &request));
    let Some(pool) = pool else {
        return Ok(respond::own(&client, StatusCode::NOT_FOUND, "no route matches this request", None));
    };
    Ok(forward::forward(&client, pool, request, in_flight).await)
}

/// The time after which the client may ask again, where it has asked too often.
fn over_the_limit<B>(client: &Client, request: &Request<B>) -> Option<Duration> {
    let limit = client.listener()?.rate_limit.as_ref()?;
    let sessions = &client.site().sessions;
    match sessions.limits.check(limit, client.ip, request.headers(), sessions.now()) {
        Verdict::Allowed => None,
        Verdict::Limited { retry_after } => {
            let counters = client.thread.counters.by_listener.get(client.listener);
            counters.map(|counters| counters.rate_limited.fetch_add(1, Ordering::Relaxed));
            Some(retry_after)
        }
    }
}
