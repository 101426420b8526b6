//! HTTP/1.1 connections to servers: used, kept and given up, all by one thread.
//!
//! A connection has no task of its own. Whoever uses it drives it: the task of the client connection reads, writes and
//! parses for both sides, which saves the hand-over between two tasks at each step of a request.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{HeaderMap, Request, Response, Version, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, Parts, SendRequest};
use hyper_util::rt::TokioIo;

use super::{Broken, ExchangeError};
use crate::proxy::http::body::RequestBody;
use crate::proxy::server_io::{ServerIo, ServerStream, Watch};
use crate::proxy::timers::{Deadlines, Party};

/// The largest head that a server may send, and our buffer for it.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// What a server may send from the start of a request to the end of the response's head. hyper skips interim (1xx)
/// responses in a loop of its own and without limit: a server that sends nothing else would keep the thread busy.
///
/// The start of a body, read ahead with the head, counts too. However large the body, that is no danger to it: hyper's
/// buffer is `RESPONSE_HEAD_BYTES_MAX`, and behind the head hyper reads one piece of the body into it at most before
/// [`Http1::exchange`] has the head and lifts the limit.
const UNANSWERED_BYTES_MAX: usize = 256 * 1024;

const _: () = assert!(UNANSWERED_BYTES_MAX > 2 * RESPONSE_HEAD_BYTES_MAX, "a head and one piece of a body fit");

/// A connection to a server, alone with its one request at a time.
pub struct Http1 {
    sender: SendRequest<RequestBody>,
    driven: Driven,
    /// Over what the server sends before it answers.
    watch: Watch,
    bell: Bell,
    /// Has carried a request before: the server may be about to close it.
    pub reused: bool,
    /// The server has said that it closes the connection after the response.
    is_last: bool,
}

impl Http1 {
    /// A connection that was just made.
    ///
    /// # Errors
    /// None that hyper has today.
    pub async fn begin(stream: ServerStream) -> Result<Box<Self>, hyper::Error> {
        let watch = Watch::default();
        let io = TokioIo::new(ServerIo::new(stream, watch.clone()));
        let handshake = http1::Builder::new().max_buf_size(RESPONSE_HEAD_BYTES_MAX).handshake(io).await;
        let (sender, connection) = handshake?;
        Ok(Box::new(Self {
            sender,
            driven: Driven::Open(connection),
            watch,
            bell: Bell::new(),
            reused: false,
            is_last: false,
        }))
    }

    /// Sends a request and waits for the head of its response. Drives the connection meanwhile. `None` when the
    /// server's deadline, set here to `timeout`, has passed. Dropped before its end, the connection is of no more use.
    ///
    /// # Errors
    /// The connection broke, or what came is not HTTP; `unsent` says whether another connection may be tried blindly.
    pub async fn exchange(
        &mut self,
        request: Box<Request<RequestBody>>,
        deadlines: &Deadlines,
        timeout: Duration,
    ) -> Option<Result<Response<Incoming>, ExchangeError>> {
        deadlines.set(Party::Server, timeout);
        self.watch.expect_head(UNANSWERED_BYTES_MAX);
        let mut response = std::pin::pin!(self.sender.try_send_request(*request));
        let (driven, bell) = (&mut self.driven, &self.bell);
        let answer = std::future::poll_fn(|context| {
            // Nothing but the connection, polled here, fills `response`, so there is no need for it to wake this task.
            // When it ends, the request or an error is in `response` at once.
            let _ended = bell.poll(context, |context| drive(driven, context));
            match response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if deadlines.is_server_late() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        deadlines.clear(Party::Server);
        let has_broken_rules = self.watch.is_broken();
        self.watch.lift();
        let into_error = |mut error: TrySendError<Request<RequestBody>>| {
            let unsent = error.take_message().map(Box::new);
            // What came before a request was sent is no answer to it: the connection was of no more use, that is all.
            let is_garbage = unsent.is_none() && (has_broken_rules || error.into_error().is_parse());
            ExchangeError { kind: if is_garbage { Broken::Garbage } else { Broken::Off }, unsent }
        };
        let answer = answer?.map_err(into_error);
        self.is_last = answer.as_ref().is_ok_and(|response| is_last(response.version(), response.headers()));
        Some(answer)
    }

    /// What comes next of a body that this connection reads: what is there already, else what it can bring now.
    pub fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        incoming: &mut Incoming,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let quiet = &mut Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(frame) = self.bell.muted(|| Pin::new(&mut *incoming).poll_frame(quiet)) {
                return Poll::Ready(frame);
            }
            let ended = self.bell.poll(context, |context| drive(&mut self.driven, context)).is_ready();
            let frame = self.bell.muted(|| Pin::new(&mut *incoming).poll_frame(quiet));
            // After its end a connection leaves an end or an error behind, never a wait.
            if frame.is_ready() || ended || !self.bell.take_rung() {
                return frame;
            }
        }
    }

    /// The connection itself, and what has been read of it behind the response, once that has changed the protocol.
    pub fn into_tunnel(mut self) -> Option<(ServerIo, Bytes)> {
        // hyper is through with it when it has read the head of such a response.
        let _ended = drive(&mut self.driven, &mut Context::from_waker(Waker::noop()));
        match self.driven {
            Driven::Ended(io, read_ahead) => Some((io, read_ahead)),
            Driven::Open(_) | Driven::Gone => None,
        }
    }

    /// Whether the connection is open and waits for a request.
    fn is_idle(&mut self) -> bool {
        let closed = drive(&mut self.driven, &mut Context::from_waker(Waker::noop())).is_ready();
        !closed && self.sender.is_ready()
    }
}

/// Whether a server closes the connection after a response with this head (RFC 9112 section 9.3).
fn is_last(version: Version, headers: &HeaderMap) -> bool {
    let says = |wanted: &str| {
        let options = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
        options.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(wanted))
    };
    says("close") || (version == Version::HTTP_10 && !says("keep-alive"))
}

/// What hyper makes of a connection.
#[allow(clippy::large_enum_variant, reason = "nearly always the large one, in a box of its connection's already")]
enum Driven {
    Open(Connection<TokioIo<ServerIo>, RequestBody>),
    /// It speaks HTTP no more; with what has been read behind the last response.
    Ended(ServerIo, Bytes),
    Gone,
}

/// Moves bytes between a connection's socket, its request and its response. `Ready` once it has ended; hyper's part is
/// dropped then, as only that gives a request back that came too late for it.
fn drive(driven: &mut Driven, context: &mut Context<'_>) -> Poll<()> {
    let Driven::Open(open) = driven else { return Poll::Ready(()) };
    let polled = Pin::new(open).poll(context).map(|_| ());
    if polled.is_ready()
        && let Driven::Open(ended) = std::mem::replace(driven, Driven::Gone)
    {
        let Parts { io, read_buf, .. } = ended.into_parts();
        *driven = Driven::Ended(io.into_inner(), read_buf);
    }
    polled
}

/// The waker of a connection. A connection and the bodies on it wake each other through it; as one task drives them
/// all, and looks at each of them anyway, it is muted while that task does. Otherwise every request would have its task
/// run once more for nothing.
struct Bell {
    waker: Waker,
    state: Arc<BellState>,
}

#[derive(Default)]
struct BellState {
    is_muted: AtomicBool,
    has_rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for BellState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_muted.load(Ordering::Relaxed) {
            self.has_rung.store(true, Ordering::Relaxed);
        } else {
            self.task.wake();
        }
    }
}

impl Bell {
    fn new() -> Self {
        let state = Arc::new(BellState::default());
        Self { waker: Waker::from(Arc::clone(&state)), state }
    }

    /// Runs something that may wake the task which is running it.
    fn muted<T>(&self, run: impl FnOnce() -> T) -> T {
        self.state.is_muted.store(true, Ordering::Relaxed);
        let result = run();
        self.state.is_muted.store(false, Ordering::Relaxed);
        result
    }

    /// Polls the connection, which from then on wakes the task of `context`.
    fn poll<T>(&self, context: &Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.state.task.register(context.waker());
        self.state.has_rung.store(false, Ordering::Relaxed);
        let polled = self.muted(|| poll(&mut Context::from_waker(&self.waker)));
        if self.take_rung() && polled.is_pending() {
            // It asked for another turn itself.
            context.waker().wake_by_ref();
        }
        polled
    }

    /// Whether it would have rung since it was last asked.
    fn take_rung(&self) -> bool {
        self.state.has_rung.swap(false, Ordering::Relaxed)
    }

    /// Wakes nobody any more.
    fn disconnect(&self) {
        drop(self.state.task.take());
    }
}

/// The idle connections of one thread to one server, the last used on top.
pub struct IdleConnections {
    stack: RefCell<Vec<(Box<Http1>, Instant)>>,
    count_max: usize,
    timeout: Duration,
}

impl IdleConnections {
    /// At most `count_max` are kept, each for `timeout`; one more is closed instead.
    pub fn new(count_max: usize, timeout: Duration) -> Self {
        Self { stack: RefCell::new(Vec::new()), count_max, timeout }
    }

    /// The most recently used connection. The server may have closed it: then the request comes back unsent.
    pub fn take(&self) -> Option<Box<Http1>> {
        self.stack.borrow_mut().pop().map(|(upstream, _)| upstream)
    }

    /// Keeps a connection whose response has been read to its end; closes it when there are enough, or when the server does.
    pub fn put(&self, mut upstream: Box<Http1>, now: Instant) {
        if upstream.is_last || self.stack.borrow().len() >= self.count_max {
            return;
        }
        upstream.reused = true;
        upstream.bell.disconnect();
        self.stack.borrow_mut().push((upstream, now));
    }

    /// Closes what has been idle for too long and what the server has closed.
    pub fn expire(&self, now: Instant) {
        let timeout = self.timeout;
        self.stack
            .borrow_mut()
            .retain_mut(|(upstream, since)| now.saturating_duration_since(*since) < timeout && upstream.is_idle());
    }
}
