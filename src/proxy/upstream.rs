//! Connections to servers: made, used, kept and given up, all by one thread.
//!
//! A connection has no task of its own. Whoever uses it drives it: the task of the client connection reads, writes and
//! parses for both sides, which saves the hand-over between two tasks at each step of a request.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::http::body::RequestBody;

/// The largest head that a server may send, and our buffer for it.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection to a server, alone with its one request at a time.
pub struct Upstream {
    sender: SendRequest<RequestBody>,
    connection: Connection<TokioIo<TcpStream>, RequestBody>,
    /// Has carried a request before: the server may be about to close it.
    pub reused: bool,
}

/// Why a request got no response.
pub struct ExchangeError {
    /// What hyper says.
    pub error: hyper::Error,
    /// The request, when no byte of it was sent.
    pub unsent: Option<Request<RequestBody>>,
}

impl Upstream {
    /// Connects. Cancel safe: a half-made connection is dropped.
    ///
    /// # Errors
    /// What connect(2) says.
    pub async fn connect(address: SocketAddr) -> std::io::Result<Box<Self>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let handshake =
            http1::Builder::new().max_buf_size(RESPONSE_HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(std::io::Error::other)?;
        Ok(Box::new(Self { sender, connection, reused: false }))
    }

    /// Sends a request and waits for the head of its response. Drives the connection meanwhile.
    ///
    /// # Errors
    /// The connection broke, or what came is not HTTP; `unsent` says whether another connection may be tried blindly.
    pub async fn exchange(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, ExchangeError> {
        let mut response = std::pin::pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        std::future::poll_fn(|context| {
            // Nothing but the connection, polled here, fills `response`, so there is no need for it to wake this task.
            let closed = Pin::new(&mut *connection).poll(context).is_ready();
            let answer = response.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if closed && answer.is_pending() {
                // Its error went into `response`; what is left to do is to let it out.
                context.waker().wake_by_ref();
            }
            answer
        })
        .await
        .map_err(|mut error| ExchangeError { unsent: error.take_message(), error: error.into_error() })
    }

    /// Moves bytes between the socket and a body being read or written. `Ready` when the connection has ended.
    pub fn poll_drive(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.connection).poll(context).map(|_| ())
    }

    /// Whether the connection is open and waits for a request.
    fn is_idle(&mut self) -> bool {
        let closed = self.poll_drive(&mut Context::from_waker(Waker::noop())).is_ready();
        !closed && self.sender.is_ready()
    }
}

/// The idle connections of one thread to one server, the last used on top.
pub struct IdleConnections {
    stack: RefCell<Vec<(Box<Upstream>, Instant)>>,
    count_max: usize,
    timeout: Duration,
}

impl IdleConnections {
    /// At most `count_max` are kept, each for `timeout`; one more is closed instead.
    pub fn new(count_max: usize, timeout: Duration) -> Self {
        Self { stack: RefCell::new(Vec::new()), count_max, timeout }
    }

    /// The most recently used connection that is still open.
    pub fn take(&self) -> Option<Box<Upstream>> {
        loop {
            let (mut upstream, _) = self.stack.borrow_mut().pop()?;
            if upstream.is_idle() {
                return Some(upstream);
            }
        }
    }

    /// Keeps a connection whose response has been read to its end; closes it when there are enough.
    pub fn put(&self, mut upstream: Box<Upstream>, now: Instant) {
        if self.stack.borrow().len() >= self.count_max {
            return;
        }
        upstream.reused = true;
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
