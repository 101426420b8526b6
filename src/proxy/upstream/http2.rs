//! HTTP/2 connections to servers (RFC 9113), shared by the requests of one thread.
//!
//! Each connection has a task that drives it; a request takes a [`Stream`] of one, sends itself there and reads its
//! response in its own task. While a thread has no connection to a server, one request makes it and the others wait for
//! it. hyper's own engine, `h2`, is used directly: hyper's client tells neither how many streams a server allows nor
//! whether one was begun, and hands every body to a task of its own.

mod upload;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header, request};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::upload::{Progress, Upload};
use super::dial::{DialError, Spoken};
use super::{Broken, ExchangeError};
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::interim::Mailbox;
use crate::proxy::http::tunnel::{self, ServerEnd, StreamIo};
use crate::proxy::server_io::ServerStream;
use crate::proxy::timers::{Deadlines, Party};

/// The largest head or trailer section that a server may send (RFC 9113 section 6.5.2).
const HEAD_BYTES_MAX: u32 = 64 * 1024;

/// What a server may send on a stream before the client has taken any of it.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Streams before the server has said how many it allows. The requests beyond wait for that, not for a connection more.
const STREAMS_UNTIL_KNOWN: usize = 1;

/// Interim (1xx) responses that a request may get.
const INTERIM_MAX: usize = 16;

/// How long a connection on which a request timed out has for a sign of life.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How many connections and streams there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one thread to one server.
    pub connections_max: usize,
    /// Streams at once on one connection; the server may allow fewer.
    pub streams_max: usize,
    /// How long a connection without streams is kept.
    pub idle_timeout: Duration,
}

/// The connections of one thread to one server.
pub struct SharedConnections {
    open: RefCell<Vec<Rc<Shared>>>,
    limits: Limits,
    is_connecting: Cell<bool>,
    /// How often a connection was begun, and the last time that it failed.
    attempts: Cell<u64>,
    failure: RefCell<Option<(u64, DialError)>>,
    /// The server chose HTTP/1 the last time that it had the choice: then nobody waits for a connection to share.
    prefers_http1: Cell<bool>,
    changed: Notify,
}

/// What a request can be sent on.
pub enum Obtained {
    /// A stream of a shared connection.
    Stream(Box<Stream>),
    /// A connection that is not shared.
    Http1(ServerStream),
}

/// A connection, as those who use it see it. It closes once none of them is left and [`SharedConnections`] has dropped it.
struct Shared {
    sender: RefCell<SendRequest<Bytes>>,
    /// The scheme of what is asked for on it.
    scheme: Scheme,
    streams: Cell<usize>,
    /// How many there may be, by both sides' settings.
    streams_max: Cell<usize>,
    /// A response has come on it.
    has_answered: Cell<bool>,
    idle_since: Cell<Option<Instant>>,
    health: RefCell<Liveness>,
    owner: Weak<SharedConnections>,
    driver: RefCell<Option<AbortHandle>>,
    /// The server may have said what it takes.
    settled: Notify,
}

/// Whether a connection on which a request has timed out is dead.
#[derive(Default)]
struct Liveness {
    is_suspect: bool,
    /// When that was first seen by a sweep.
    since: Option<Instant>,
    /// The task that drives it.
    task: Option<Waker>,
}

impl SharedConnections {
    /// None yet.
    pub fn new(limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            open: RefCell::default(),
            limits,
            is_connecting: Cell::new(false),
            attempts: Cell::new(0),
            failure: RefCell::new(None),
            prefers_http1: Cell::new(false),
            changed: Notify::new(),
        })
    }

    /// A stream on a connection that is there, or on one that `dial` makes; waits where there are enough of both.
    /// Cancel safe.
    ///
    /// # Errors
    /// What `dial` says, here or in the request that this one waited for.
    pub async fn obtain<F>(self: &Rc<Self>, dial: impl FnOnce() -> F) -> Result<Obtained, DialError>
    where
        F: Future<Output = Result<(ServerStream, Spoken), DialError>>,
    {
        loop {
            if let Some(stream) = self.free_stream() {
                return Ok(Obtained::Stream(stream));
            }
            let is_awaited = self.is_connecting.get() || self.open.borrow().iter().any(|shared| !shared.is_known());
            if (!is_awaited || self.prefers_http1.get()) && self.open.borrow().len() < self.limits.connections_max {
                return self.connect(dial).await;
            }
            let awaited = self.is_connecting.get().then(|| self.attempts.get());
            self.changed.notified().await;
            if let Some((attempt, failure)) = &*self.failure.borrow()
                && awaited == Some(*attempt)
            {
                return Err(failure.clone());
            }
        }
    }

    /// Whether there are as many connections as may be, and none has a stream left.
    pub fn is_full(&self) -> bool {
        let open = self.open.borrow();
        open.len() >= self.limits.connections_max && !open.iter().any(|shared| shared.has_room())
    }

    async fn connect<F>(self: &Rc<Self>, dial: impl FnOnce() -> F) -> Result<Obtained, DialError>
    where
        F: Future<Output = Result<(ServerStream, Spoken), DialError>>,
    {
        let attempt = self.attempts.get() + 1;
        self.attempts.set(attempt);
        let connecting = Connecting::begin(self);
        let made = match dial().await {
            Ok((stream, Spoken::Http2)) => self.open_on(stream).await.map(Obtained::Stream),
            Ok((stream, Spoken::Http1)) => Ok(Obtained::Http1(stream)),
            Err(error) => Err(error),
        };
        match &made {
            Ok(obtained) => self.prefers_http1.set(matches!(obtained, Obtained::Http1(_))),
            Err(error) => *self.failure.borrow_mut() = Some((attempt, error.clone())),
        }
        drop(connecting);
        made
    }

    /// Speaks first on a connection that was just made, and takes its first stream.
    async fn open_on(self: &Rc<Self>, stream: ServerStream) -> Result<Box<Stream>, DialError> {
        let scheme = if stream.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
        let streams_max = u32::try_from(self.limits.streams_max).unwrap_or(u32::MAX);
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(HEAD_BYTES_MAX)
            .initial_window_size(STREAM_WINDOW)
            // However many clients are slow to take their responses, there is room for the others'.
            .initial_connection_window_size(
                STREAM_WINDOW.saturating_mul(streams_max.saturating_add(1)).min(i32::MAX as u32),
            )
            .initial_max_send_streams(STREAMS_UNTIL_KNOWN);
        let broken = |error: h2::Error| DialError { error: "http_protocol_error", reason: error.to_string() };
        let (sender, mut connection) = builder.handshake(stream).await.map_err(broken)?;
        let shared = Rc::new(Shared {
            sender: RefCell::new(sender),
            scheme,
            streams: Cell::new(0),
            streams_max: Cell::new(STREAMS_UNTIL_KNOWN),
            has_answered: Cell::new(false),
            idle_since: Cell::new(None),
            health: RefCell::default(),
            owner: Rc::downgrade(self),
            driver: RefCell::new(None),
            settled: Notify::new(),
        });
        let pings = connection.ping_pong();
        let task = tokio::task::spawn_local(drive(connection, pings, Rc::downgrade(&shared), Rc::downgrade(self)));
        *shared.driver.borrow_mut() = Some(task.abort_handle());
        self.open.borrow_mut().push(Rc::clone(&shared));
        Ok(Box::new(Stream::on(shared)))
    }

    /// A stream on the connection that has the most: the others may become idle and go.
    fn free_stream(&self) -> Option<Box<Stream>> {
        let mut open = self.open.borrow_mut();
        open.retain(|shared| !shared.is_closing());
        let free = open.iter().filter(|shared| shared.has_room());
        free.max_by_key(|shared| shared.streams.get()).map(|shared| Box::new(Stream::on(Rc::clone(shared))))
    }

    /// Closes what has been idle for too long, and what gives no sign of life.
    pub fn expire(&self, now: Instant) {
        self.open.borrow_mut().retain(|shared| {
            shared.give_up_if_dead(now);
            !shared.is_closing() && shared.idle_for(now) < self.limits.idle_timeout
        });
    }

    /// The connection's end: whoever waits for room may make another.
    fn ended(&self, ended: &Weak<Shared>) {
        self.open.borrow_mut().retain(|shared| !std::ptr::eq(Rc::as_ptr(shared), ended.as_ptr()));
        self.changed.notify_waiters();
    }
}

/// While it lives, a connection is being made.
struct Connecting<'a>(&'a SharedConnections);

impl<'a> Connecting<'a> {
    fn begin(connections: &'a SharedConnections) -> Self {
        connections.is_connecting.set(true);
        Self(connections)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.is_connecting.set(false);
        self.0.changed.notify_waiters();
    }
}

impl Shared {
    /// The server, or the connection's end, takes no new streams.
    fn is_closing(&self) -> bool {
        let polled = self.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(Err(_)))
    }

    /// Whether the server has said how many streams it allows. With one that allows a single one, its first response says
    /// that it has.
    fn is_known(&self) -> bool {
        self.streams_max.get() != STREAMS_UNTIL_KNOWN || self.has_answered.get()
    }

    fn takes_extended_connect(&self) -> bool {
        self.sender.borrow().is_extended_connect_protocol_enabled()
    }

    fn answered(&self) {
        if !self.has_answered.replace(true)
            && let Some(owner) = self.owner.upgrade()
        {
            owner.changed.notify_waiters();
        }
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.streams_max.get() && !self.health.borrow().is_suspect
    }

    fn idle_for(&self, now: Instant) -> Duration {
        if self.streams.get() > 0 {
            self.idle_since.set(None);
            return Duration::ZERO;
        }
        let since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(since));
        now.saturating_duration_since(since)
    }

    /// A request got no answer: before the next one is sent here, the server has to answer a ping.
    fn suspect(&self) {
        let mut health = self.health.borrow_mut();
        health.is_suspect = true;
        if let Some(task) = health.task.take() {
            task.wake();
        }
    }

    fn give_up_if_dead(&self, now: Instant) {
        let mut health = self.health.borrow_mut();
        if !health.is_suspect {
            return;
        }
        let since = *health.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= PING_TIMEOUT {
            drop(health);
            self.driver.borrow_mut().take().inspect(AbortHandle::abort);
        }
    }

    /// Takes note of what has become of the connection. True when others can use it that could not before.
    fn follow(&self, streams_max: usize, pings: Option<&mut PingPong>, context: &mut Context<'_>) -> bool {
        let limit = self.owner.upgrade().map_or(1, |owner| owner.limits.streams_max);
        let has_more = self.streams_max.replace(streams_max.min(limit)) < streams_max.min(limit);
        if has_more {
            self.settled.notify_waiters();
        }
        let mut health = self.health.borrow_mut();
        health.task = Some(context.waker().clone());
        let Some(pings) = pings.filter(|_| health.is_suspect) else { return has_more };
        // Fails while one is under way.
        let _sent = pings.send_ping(Ping::opaque());
        let is_alive = matches!(pings.poll_pong(context), Poll::Ready(Ok(_)));
        if is_alive {
            (health.is_suspect, health.since) = (false, None);
        }
        has_more || is_alive
    }
}

/// Drives a connection to its end.
async fn drive(
    mut connection: Connection<ServerStream, Bytes>,
    mut pings: Option<PingPong>,
    shared: Weak<Shared>,
    owner: Weak<SharedConnections>,
) {
    let _ended = Ended { shared: Weak::clone(&shared), owner: Weak::clone(&owner) };
    std::future::poll_fn(|context| {
        let polled = Pin::new(&mut connection).poll(context).map(|_| ());
        let streams_max = connection.max_concurrent_send_streams();
        if let Some(shared) = shared.upgrade()
            && shared.follow(streams_max, pings.as_mut(), context)
            && let Some(owner) = owner.upgrade()
        {
            owner.changed.notify_waiters();
        }
        polled
    })
    .await;
}

/// Says that a connection has ended, when its task ends or is ended.
struct Ended {
    shared: Weak<Shared>,
    owner: Weak<SharedConnections>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.settled.notify_waiters();
        }
        if let Some(owner) = self.owner.upgrade() {
            owner.ended(&self.shared);
        }
    }
}

/// Room for one request on a shared connection.
pub struct Stream {
    shared: Rc<Shared>,
    is_reused: bool,
}

impl Stream {
    fn on(shared: Rc<Shared>) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        let is_reused = shared.has_answered.get();
        Self { shared, is_reused }
    }

    /// Whether the connection had carried a response before.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Whether the server takes extended CONNECT (RFC 8441 section 3). Waits until it has said so, or not. Cancel safe.
    pub async fn takes_extended_connect(&self) -> bool {
        loop {
            let is_taken = self.shared.takes_extended_connect();
            if is_taken || self.shared.is_known() || self.shared.is_closing() {
                return is_taken;
            }
            self.shared.settled.notified().await;
        }
    }

    /// As [`super::Upstream::exchange`]. What CONNECT asks for makes the stream a tunnel; with a [`Protocol`] among its
    /// extensions it is an extended CONNECT, whose success is made a switch of protocols.
    pub async fn exchange(
        self: Box<Self>,
        request: Box<Request<RequestBody>>,
        deadlines: &Deadlines,
        timeout: Duration,
    ) -> Option<Result<Response<Arriving>, ExchangeError>> {
        deadlines.set(Party::Server, timeout);
        let (parts, body) = (*request).into_parts();
        let mut sender = self.shared.sender.borrow().clone();
        let is_connect = parts.method == Method::CONNECT;
        let is_whole = body.is_end_stream() && !is_connect;
        let sent = match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => sender.send_request(head(&parts, &self.shared.scheme), is_whole),
            Poll::Ready(Err(error)) => return Some(Err(failed(&error, parts, Some(body)))),
            // It is asked for a clone, which has no stream that waits.
            Poll::Pending => return Some(Err(ExchangeError { kind: Broken::Off, unsent: None })),
        };
        let (mut response, stream) = match sent {
            Ok(sent) => sent,
            Err(_unsendable) => return Some(Err(ExchangeError { kind: Broken::Off, unsent: None })),
        };
        let mut upload = Upload::new(body, stream);
        let mut interim = Interim { count: 0, mailbox: parts.extensions.get::<Mailbox>() };
        let answer = std::future::poll_fn(|context| {
            if let Poll::Ready(Progress::BrokenByClient) = upload.poll(context) {
                return Poll::Ready(Some(Err(None)));
            }
            match poll_response(&mut response, &mut interim, context) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if deadlines.is_server_late() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        deadlines.clear(Party::Server);
        match answer {
            Some(Ok(response)) => {
                self.shared.answered();
                if !is_connect {
                    return Some(Ok(response.map(|body| Arriving::new(body, upload, self))));
                }
                let (mut head, body) = response.into_parts();
                if !head.status.is_success() {
                    return Some(Ok(Response::from_parts(head, Arriving::new(body, upload.ended(), self))));
                }
                if let Some(protocol) = parts.extensions.get::<Protocol>() {
                    tunnel::as_switch(&mut head, protocol, parts.headers.get(header::SEC_WEBSOCKET_KEY));
                }
                Some(Ok(Response::from_parts(head, Arriving::tunnel(upload.into_stream(), body, self))))
            }
            Some(Err(Some(error))) => Some(Err(failed(&error, parts, upload.into_untouched()))),
            Some(Err(None)) => Some(Err(ExchangeError { kind: Broken::Garbage, unsent: None })),
            None => {
                self.shared.suspect();
                None
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get().saturating_sub(1));
        if let Some(owner) = self.shared.owner.upgrade() {
            owner.changed.notify_one();
        }
    }
}

/// Interim responses to one request.
struct Interim<'a> {
    count: usize,
    /// Where the client's wait, where it can take any.
    mailbox: Option<&'a Mailbox>,
}

/// The final response. `Err(None)`: what came before it, or how much of that, breaks the rules.
fn poll_response(
    response: &mut ResponseFuture,
    interim: &mut Interim<'_>,
    context: &mut Context<'_>,
) -> Poll<Result<Response<RecvStream>, Option<h2::Error>>> {
    while let Poll::Ready(Some(Ok(came))) = response.poll_informational(context) {
        interim.count += 1;
        // HTTP/2 has no switch of protocols (RFC 9113 section 8.6).
        if interim.count > INTERIM_MAX || came.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Err(None));
        }
        if let Some(mailbox) = interim.mailbox {
            mailbox.put(came.status(), came.headers());
        }
    }
    Pin::new(response).poll(context).map_err(Some)
}

/// Makes of a broken stream what the caller has to know. `body` is given where none of it was sent.
fn failed(error: &h2::Error, parts: request::Parts, body: Option<RequestBody>) -> ExchangeError {
    let is_refused = error.is_remote() && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    // A GOAWAY reaches those streams alone that are beyond the last one that the server may have begun with (RFC 9113
    // section 6.8); the others end as the connection does.
    let is_beyond_last = error.is_remote() && error.is_go_away();
    let kind = match () {
        () if is_refused => Broken::Refused,
        () if error.is_library() => Broken::Garbage,
        () => Broken::Off,
    };
    let body = body.filter(|_| is_refused || is_beyond_last);
    ExchangeError { kind, unsent: body.map(|body| Box::new(Request::from_parts(parts, body))) }
}

/// The head of a request as HTTP/2 has it (RFC 9113 sections 8.2.2 and 8.3.1). Of CONNECT without a protocol, h2 sends the
/// authority alone (section 8.5).
fn head(parts: &request::Parts, scheme: &Scheme) -> Request<()> {
    let mut head = Request::new(());
    head.method_mut().clone_from(&parts.method);
    let protocol = parts.extensions.get::<Protocol>();
    let host = parts.headers.get(header::HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut target = parts.uri.clone().into_parts();
    // That of a tunnel is where it is to lead, whatever Host says.
    let tunnel = target.authority.take().filter(|_| parts.method == Method::CONNECT && protocol.is_none());
    target.scheme = Some(scheme.clone());
    target.authority = Some(tunnel.or(authority).unwrap_or_else(|| Authority::from_static("localhost")));
    target.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    if let Ok(uri) = Uri::from_parts(target) {
        *head.uri_mut() = uri;
    }
    let mut headers: HeaderMap = parts.headers.clone();
    headers.remove(header::HOST);
    // What of it may come this far says how HTTP/1 frames the body.
    headers.remove(header::TRANSFER_ENCODING);
    if let Some(protocol) = protocol {
        head.extensions_mut().insert(protocol.clone());
        // What of the upgrade has no place in it (RFC 8441 section 5).
        for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_KEY] {
            headers.remove(name);
        }
    }
    *head.headers_mut() = headers;
    head
}

/// A response's body on its stream, and the rest of the request's.
pub struct Arriving {
    /// `None` once it is a tunnel's.
    body: Option<RecvStream>,
    /// The other direction of a tunnel.
    tunnel: Option<SendStream<Bytes>>,
    /// No data comes any more, trailers may.
    is_past_data: bool,
    upload: Option<Upload>,
    /// After the parts of the stream: room for another is there once they are gone.
    stream: Option<Box<Stream>>,
}

impl Arriving {
    fn new(body: RecvStream, upload: Upload, stream: Box<Stream>) -> Self {
        Self { body: Some(body), tunnel: None, is_past_data: false, upload: Some(upload), stream: Some(stream) }
    }

    fn tunnel(sender: SendStream<Bytes>, body: RecvStream, stream: Box<Stream>) -> Self {
        Self { body: Some(body), tunnel: Some(sender), is_past_data: false, upload: None, stream: Some(stream) }
    }

    /// The stream as a tunnel, once its server has granted one.
    pub fn take_tunnel(&mut self) -> Option<ServerEnd> {
        let io = StreamIo::new(self.tunnel.take()?, self.body.take()?);
        Some(ServerEnd::Stream(io, self.stream.take()?))
    }

    /// What comes next. Sends on what is left of the request.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(upload) = &mut self.upload
            && upload.poll(context).is_ready()
        {
            self.upload = None;
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if !self.is_past_data {
            match ready!(body.poll_data(context)) {
                Some(Ok(data)) => {
                    // Fails where the stream is gone, and nothing is owed then.
                    let _gone = body.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.is_past_data = true,
            }
        }
        let trailers = ready!(body.poll_trailers(context));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// How much comes, where that is known: hyper takes a length from the head by itself.
    pub fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::new() }
    }
}
