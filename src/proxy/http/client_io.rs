//! The client's socket as hyper sees it: only bytes that `strict` has passed, and an end where a deadline has passed.
//!
//! When a request is refused, or does not arrive in time, hyper is given a request of our own in its place. So the
//! refusal takes its turn after the responses to earlier, pipelined requests, and hyper closes the connection after it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::client::{Client, Refusal};
use super::drain::Drain;
use super::h2_frames::PREFACE;
use super::interim;
use super::strict::{Gate, Limits, Phase, Verdict};
use super::trace::Ended;
use super::tunnel::{self, Switch};
use crate::proxy::socket::{Socket, Stream};
use crate::proxy::timers::Party;

/// Read at once into our own buffer, when a part of a head is already there.
const READ_BYTES: usize = 4096;

/// What is kept of the first line of a request that is refused.
const REFUSED_LINE_BYTES_MAX: usize = 1024;

/// How long a client that has not been heard out is listened to after its answer. Were the connection closed with bytes
/// of it unread, the kernel would send a reset, which can overtake the answer (RFC 9112 section 9.6).
pub(super) const LINGER_MAX: Duration = Duration::from_secs(1);

/// The same for a client that is asked to leave: until it has closed, its address does not move, and it had better have all
/// of its answer by then.
const FAREWELL_MAX: Duration = Duration::from_millis(100);

/// A client's connection, with or without TLS.
pub type ClientStream = Stream<TlsStream<Socket>>;

impl ClientStream {
    /// The connection below.
    pub fn socket(&self) -> &TcpStream {
        match self {
            ClientStream::Plain(stream) => stream.tcp(),
            ClientStream::Tls(stream) => stream.get_ref().0.tcp(),
        }
    }

    /// The protocol that the client and we have agreed on in the TLS handshake.
    pub fn negotiated(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}

/// Whether this is the request that stands for a refusal. `target` is known to nobody outside this process.
pub fn is_refusal<B>(target: &str, request: &Request<B>) -> bool {
    request.uri().path() == target
}

/// The request that stands for a refusal.
fn refusal_request(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: refused\r\n\r\n").into_bytes()
}

/// Keeps the first line of what is refused for the log; one empty line may stand in front of a request. In the middle of a
/// body there is none: the request has its line in the log already.
fn note_line(client: &Client, phase: Phase, refused: &[u8]) {
    if phase == Phase::Body || client.listener().is_none_or(|listener| listener.log.is_none()) {
        return;
    }
    let line = refused.strip_prefix(b"\r\n").unwrap_or(refused);
    let len = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(line.len());
    client.refused_line.set(line.get(..len.min(REFUSED_LINE_BYTES_MAX)).unwrap_or_default().into());
}

/// What a client may send.
pub fn limits(client: &Client) -> Limits {
    client.listener().map_or_else(Limits::default, |listener| Limits {
        allows_connect: listener.config.connect,
        head_bytes_max: listener.config.protection.head_bytes_max,
        headers_max: listener.config.protection.headers_max,
        uri_bytes_max: listener.config.protection.uri_bytes_max,
    })
}

/// What hyper reads from and writes to.
pub struct ClientIo {
    stream: ClientStream,
    client: Rc<Client>,
    gate: Gate,
    /// Bytes of a head that is not complete yet.
    held: Vec<u8>,
    /// Bytes that may go to hyper, from `passed_from` on.
    passed: Vec<u8>,
    passed_from: usize,
    /// Nothing more will be read.
    is_ended: bool,
    /// Nothing more will be written.
    is_shut_down: bool,
    /// The client is listened to after its last answer.
    has_to_linger: bool,
    /// How the client takes responses.
    drain: Drain,
    opening: Opening,
    /// Interim responses, from the first byte that is not written on.
    interim: Vec<u8>,
}

/// What a connection in clear text turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// What has come so far may be the preface of HTTP/2.
    Unknown,
    Http1,
    /// The preface has come, and is held with all that came behind it.
    Http2,
}

/// What becomes of a connection that hyper is through with.
pub enum Outcome {
    /// It is over.
    Ended,
    /// It speaks HTTP/2.
    Http2(tunnel::Rest),
    /// It speaks what client and server have agreed on.
    Tunnel(tunnel::Tunnel, tunnel::Rest),
}

impl Opening {
    fn of(bytes: &[u8]) -> Self {
        match bytes.get(..PREFACE.len()) {
            Some(front) if front == PREFACE => Self::Http2,
            None if PREFACE.starts_with(bytes) => Self::Unknown,
            _ => Self::Http1,
        }
    }
}

impl ClientIo {
    /// A connection in front of its first request.
    pub fn new(stream: ClientStream, client: Rc<Client>) -> Self {
        if let Some(listener) = client.listener() {
            client.deadlines().set(Party::ClientRead, listener.config.head_timeout);
        }
        let (gate, drain) = (Gate::new(limits(&client)), Drain::new(&client));
        // With TLS it is the handshake that chooses (RFC 9113 section 3.2).
        let is_open = matches!(stream, ClientStream::Plain(_)) && client.listener().is_some_and(|l| l.config.http2);
        let opening = if is_open { Opening::Unknown } else { Opening::Http1 };
        Self {
            stream,
            client,
            gate,
            held: Vec::new(),
            passed: Vec::new(),
            passed_from: 0,
            is_ended: false,
            is_shut_down: false,
            has_to_linger: false,
            drain,
            opening,
            interim: Vec::new(),
        }
    }

    /// Goes on with the same client under another configuration. Nothing of a request has come.
    pub fn go_over(&mut self, client: Rc<Client>) {
        self.gate.set_limits(limits(&client));
        self.drain = Drain::new(&client);
        self.client = client;
    }

    /// Waits until there is something to do: bytes have come, a deadline has passed, or the thread drains. Nothing may have
    /// been read that was not handed out.
    pub async fn rest(&self) {
        std::future::poll_fn(|context| {
            let deadlines = self.client.deadlines();
            deadlines.attach(context);
            if deadlines.is_late(Party::ClientRead) || self.client.connection.is_ending() {
                return Poll::Ready(());
            }
            // An error is for who reads.
            self.stream.socket().poll_read_ready(context).map(|_ready| ())
        })
        .await;
    }

    /// Whether TLS lies between the client and us: what it has read ahead is not seen in the socket.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, ClientStream::Tls(_))
    }

    /// What becomes of the connection when hyper is through with it: where it began with the preface of HTTP/2, it goes
    /// on, from that on. Otherwise it ends here, with a reset where a response was broken off: for a client of HTTP/1.0 an
    /// orderly end would be the end of the body, and one that reads nothing would leave the kernel with all that waits
    /// for it.
    ///
    /// `unparsed` is what hyper has read and not parsed: nothing, but where the protocol has changed.
    pub fn finish(self, unparsed: &[u8]) -> Outcome {
        if self.opening == Opening::Http2 {
            return Outcome::Http2((self.stream, Bytes::from(self.held)));
        }
        if let Some(tunnel) = self.client.tunnel.take() {
            let passed = self.passed.get(self.passed_from..).unwrap_or_default();
            let read_ahead = Bytes::from([unparsed, passed, &self.held].concat());
            return Outcome::Tunnel(tunnel, (self.stream, read_ahead));
        }
        if self.client.broken_off.get() {
            // Fails only on a socket that is closed already.
            let _closed = self.stream.socket().set_zero_linger();
        }
        Outcome::Ended
    }

    /// Hands out what has been passed before. False when there is nothing.
    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let rest = self.passed.get(self.passed_from..).unwrap_or_default();
        let part = rest.get(..rest.len().min(buffer.remaining())).unwrap_or_default();
        if part.is_empty() {
            return false;
        }
        buffer.put_slice(part);
        self.passed_from += part.len();
        if self.passed_from == self.passed.len() {
            self.passed = Vec::new();
            self.passed_from = 0;
        }
        true
    }

    /// Reads straight into hyper's buffer and judges what came there. `Ready(false)`: nothing for hyper yet.
    fn poll_read_direct(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let start = buffer.filled().len();
        ready!(self.poll_stream(context, buffer))?;
        let fresh = buffer.filled().get(start..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.opening == Opening::Unknown {
            self.opening = Opening::of(fresh);
            if self.opening != Opening::Http1 {
                self.held.extend_from_slice(fresh);
                buffer.set_filled(start);
                return Poll::Ready(Ok(self.opening == Opening::Http2));
            }
        }
        let phase_before = self.gate.phase();
        let len = match self.gate.inspect(fresh) {
            Verdict::Pass { len } => {
                self.held.extend_from_slice(fresh.get(len..).unwrap_or_default());
                len
            }
            Verdict::Reject { after, rejection } => {
                let refused = fresh.get(after..).unwrap_or_default();
                note_line(&self.client, self.gate.phase(), refused);
                self.refuse(Refusal::Malformed(rejection));
                after
            }
        };
        buffer.set_filled(start + len);
        self.progressed(phase_before);
        Poll::Ready(Ok(len > 0))
    }

    /// Reads behind the part of a head that is held, and judges both together. `Ready(true)`: the stream has ended.
    fn poll_read_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [std::mem::MaybeUninit::uninit(); READ_BYTES];
        let mut fresh = ReadBuf::uninit(&mut space);
        ready!(self.poll_stream(context, &mut fresh))?;
        if fresh.filled().is_empty() {
            return Poll::Ready(Ok(true));
        }
        self.held.extend_from_slice(fresh.filled());
        if self.opening == Opening::Unknown {
            self.opening = Opening::of(&self.held);
            if self.opening != Opening::Http1 {
                return Poll::Ready(Ok(self.opening == Opening::Http2));
            }
        }
        self.inspect_held();
        Poll::Ready(Ok(false))
    }

    /// Judges what is held.
    fn inspect_held(&mut self) {
        let phase_before = self.gate.phase();
        match self.gate.inspect(&self.held) {
            Verdict::Pass { len } => {
                let rest = self.held.split_off(len);
                self.passed = std::mem::replace(&mut self.held, rest);
            }
            Verdict::Reject { after, rejection } => {
                note_line(&self.client, self.gate.phase(), self.held.get(after..).unwrap_or_default());
                self.held.truncate(after);
                self.passed = std::mem::take(&mut self.held);
                self.refuse(Refusal::Malformed(rejection));
            }
        }
        self.progressed(phase_before);
    }

    /// Whether what the client sends has to wait, because it may not be HTTP. Once it is HTTP after all, it is judged.
    fn has_to_wait(&mut self) -> bool {
        if !self.gate.is_switching() {
            return false;
        }
        if self.client.switch.get() == Switch::Declined {
            self.client.switch.set(Switch::Http);
            self.gate.stays_http();
            if !self.held.is_empty() {
                self.inspect_held();
            }
        }
        self.gate.is_switching() && self.passed.is_empty()
    }

    /// Ends reading, with a request of our own where the client can still be answered. In the middle of a body the read
    /// that comes after all that has passed fails instead: the request is under way, and `forward` breaks it off.
    fn refuse(&mut self, refusal: Refusal) {
        self.client.refusal.set(Some(refusal));
        self.is_ended = true;
        if self.gate.phase() != Phase::Body {
            self.passed.extend_from_slice(&refusal_request(&self.client.thread().refusal_target));
        }
    }

    /// Moves the deadline after bytes have come. A head gets one deadline, from its first byte: trickling does not help.
    fn progressed(&self, phase_before: Phase) {
        let deadlines = self.client.deadlines();
        if self.gate.is_switching() {
            self.client.switch.set(Switch::Asked);
        }
        match (phase_before, self.gate.phase()) {
            (Phase::Head, Phase::Head) => {}
            (_, Phase::Head) => {
                if let Some(listener) = self.client.listener() {
                    deadlines.set(Party::ClientRead, listener.config.head_timeout);
                }
                if self.client.is_timed() {
                    self.client.marks.head_begins();
                }
            }
            (_, Phase::Idle | Phase::Body) => deadlines.clear(Party::ClientRead),
        }
    }

    /// Sets the deadline for what the client owes, when it owes something.
    fn wait_for_client(&self) {
        let Some(listener) = self.client.listener() else { return };
        match self.gate.phase() {
            // Between requests the client owes nothing while it waits for a response of ours.
            Phase::Idle if self.client.in_flight.get() > 0 => {}
            Phase::Idle | Phase::Body => {
                self.client.deadlines().set_once(Party::ClientRead, listener.config.idle_timeout);
            }
            Phase::Head => self.client.deadlines().set_once(Party::ClientRead, listener.config.head_timeout),
        }
    }

    /// What happens when the client was too slow: `Ok(true)` ends the stream.
    fn give_up(&mut self) -> io::Result<bool> {
        self.client.deadlines().clear(Party::ClientRead);
        match self.gate.phase() {
            Phase::Idle => Ok(true),
            Phase::Head => {
                note_line(&self.client, Phase::Head, &self.held);
                self.refuse(Refusal::TooSlow);
                Ok(false)
            }
            Phase::Body => {
                self.client.refusal.set(Some(Refusal::TooSlow));
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Reads and forgets, until the client ends or its time does.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut space = [std::mem::MaybeUninit::uninit(); READ_BYTES];
            let mut forgotten = ReadBuf::uninit(&mut space);
            let is_open = match self.poll_stream(context, &mut forgotten) {
                Poll::Ready(read) => read.is_ok() && !forgotten.filled().is_empty(),
                Poll::Pending if self.client.deadlines().is_late(Party::ClientRead) => false,
                Poll::Pending => return Poll::Pending,
            };
            if !is_open {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_stream(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.client.is_quiet.set(false);
        loop {
            if this.hand_out(buffer) {
                return Poll::Ready(Ok(()));
            }
            if this.has_to_wait() {
                return Poll::Pending;
            }
            if this.hand_out(buffer) {
                return Poll::Ready(Ok(()));
            }
            if this.is_ended {
                return match this.gate.phase() {
                    // A body cannot be completed any more.
                    Phase::Body => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                    // hyper closes once it has answered; an end here would make it break the answer off.
                    Phase::Idle | Phase::Head => Poll::Pending,
                };
            }
            if this.client.deadlines().is_late(Party::ClientRead) && this.give_up()? {
                return Poll::Ready(Ok(()));
            }
            let polled = if this.is_ended {
                continue;
            } else if this.held.is_empty() {
                this.poll_read_direct(context, buffer)
            } else {
                this.poll_read_held(context)
            };
            match polled {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.wait_for_client();
                    this.client.is_quiet.set(this.gate.phase() == Phase::Idle && this.held.is_empty());
                    return Poll::Pending;
                }
            }
        }
    }
}

impl ClientIo {
    /// A write that made no progress sets a deadline, one that did takes it back.
    fn poll_write_with<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut ClientStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match write(Pin::new(&mut self.stream), context) {
            Poll::Pending if self.drain.is_late(&self.client, self.stream.socket()) => {
                self.client.broken_off.set(true);
                self.client.marks.ends(Ended::TimedOut, "client_write_timeout");
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => {
                self.drain.waits(&self.client, self.stream.socket());
                Poll::Pending
            }
            ready => {
                self.client.deadlines().clear(Party::ClientWrite);
                if self.client.is_held_back.replace(false) {
                    self.client.deadlines().wake();
                }
                ready
            }
        }
    }

    /// Counts what the client has made room for.
    fn written(&mut self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(len)) = polled {
            self.drain.moved(&self.client, *len);
        }
    }
}

impl ClientIo {
    /// Writes what has begun of interim responses: nothing may come in between.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let interim = std::mem::take(&mut self.interim);
            let written = self.poll_write_with(context, |stream, context| stream.poll_write(context, &interim));
            self.interim = interim;
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => drop(self.interim.drain(..len)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Waits until the interim responses that have come are on their way, so that the final one does not overtake them. On
/// HTTP/2 they are sent by the stream, as soon as this is awaited.
pub async fn interim_sent(client: &Client) {
    std::future::poll_fn(|context| {
        if client.interim.is_empty() {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_interim(context))?;
        let polled = this.poll_write_with(context, |stream, context| stream.poll_write(context, bytes));
        this.written(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_interim(context))?;
        let polled = this.poll_write_with(context, |stream, context| stream.poll_write_vectored(context, slices));
        this.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper flushes when it has written all it has to: what goes out now stands between two of its messages.
        for interim in this.client.interim.take() {
            interim::write(&interim, &mut this.interim);
        }
        ready!(this.poll_interim(context))?;
        this.poll_write_with(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.opening == Opening::Http2 || this.client.is_resting.get() {
            return Poll::Ready(Ok(()));
        }
        if !this.is_shut_down {
            ready!(this.poll_write_with(context, |stream, context| stream.poll_shutdown(context)))?;
            this.is_shut_down = true;
            let is_heard_out = this.client.refusal.get().is_none() && this.gate.phase() != Phase::Body;
            this.has_to_linger = !is_heard_out || this.client.connection.visit.is_asked_to_leave();
            this.client.deadlines().set(Party::ClientRead, if is_heard_out { FAREWELL_MAX } else { LINGER_MAX });
        }
        if this.has_to_linger { this.poll_linger(context) } else { Poll::Ready(Ok(())) }
    }
}
