//! One stream of an HTTP/2 connection: a request, and its response.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;

use super::answer;
use super::body::{ResponseBody, floor};
use super::client::{Client, Refusal};
use super::client_body::ClientBody;
use super::client_io;
use super::h2_body::StreamBody;
use super::h2_connection;
use super::h2_io::Ledger;
use super::h2_part::Backlog;
use super::h2_part::Part;
use super::h2_request::{self, Fault};
use super::trace::Ended;
use super::tunnel::StreamIo;
use crate::limit::floor::Meter;
use crate::proxy::refusals::Reason as RefusalReason;
use crate::proxy::timers::Party;

/// Fields that HTTP/2 has no use for (RFC 9113 section 8.2.2).
const CONNECTION_SPECIFIC: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Where the response goes; its clones are one.
#[derive(Clone)]
pub struct Reply(Rc<RefCell<SendResponse<Part>>>);

impl Reply {
    fn new(respond: SendResponse<Part>) -> Self {
        Self(Rc::new(RefCell::new(respond)))
    }

    /// `100 Continue`: the client sends its body.
    pub fn say_continue(&self) {
        self.inform(StatusCode::CONTINUE, HeaderMap::new());
    }

    /// An interim response. Nothing happens when the stream has ended, or the response has begun.
    pub fn inform(&self, status: StatusCode, headers: HeaderMap) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        remove_connection_specific(response.headers_mut());
        // Whoever waits for the response learns of the end of the stream.
        let _ended = self.0.borrow_mut().send_informational(response);
    }

    fn begin(&self, response: Response<()>, is_end: bool) -> Result<SendStream<Part>, h2::Error> {
        self.0.borrow_mut().send_response(response, is_end)
    }

    fn reset(&self, reason: Reason) {
        self.0.borrow_mut().send_reset(reason);
    }

    /// `Ready` once the client wants no response any more.
    fn poll_reset(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.borrow_mut().poll_reset(context).map(drop)
    }
}

/// A stream that is served, from its request to its end.
struct Open(Rc<Ledger>);

impl Open {
    fn new(ledger: Rc<Ledger>) -> Self {
        ledger.open.set(ledger.open.get() + 1);
        Self(ledger)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let ledger = &self.0;
        ledger.open.set(ledger.open.get().saturating_sub(1));
        // From now on it may be the client's turn, which the connection has to notice.
        if ledger.open.get() == 0 {
            ledger.client().deadlines().wake();
        }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With the last byte of its response.
    Complete,
    /// The client reset it, or its connection broke.
    TakenBack,
    /// We reset it.
    GivenUp,
}

/// Serves a stream to its end. It counts as open from now on, and not from the time at which it is polled first: the
/// connection would be idle between the two.
pub fn serve(
    client: Rc<Client>,
    ledger: Rc<Ledger>,
    request: Request<RecvStream>,
    respond: SendResponse<Part>,
) -> impl Future<Output = ()> {
    let open = Open::new(ledger);
    async move {
        match converse(&client, &open.0, request, Reply::new(respond)).await {
            End::Complete => open.0.completed(),
            End::TakenBack => open.0.taken_back(),
            End::GivenUp => {}
        }
    }
}

async fn converse(client: &Rc<Client>, ledger: &Ledger, request: Request<RecvStream>, reply: Reply) -> End {
    let Some((request, receiver)) = accept(client, request, &reply) else { return End::GivenUp };
    let is_head = request.method() == Method::HEAD;
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).filter(|_| receiver.is_some()).cloned();
    let Some(response) = answered(client, request, &reply).await else { return End::TakenBack };
    match (client.tunnel.take(), receiver) {
        (Some(tunnel), Some(receiver)) if h2_request::accepts(key.as_ref(), response.headers()) => {
            let Ok(sender) = switch(&reply, response) else { return End::TakenBack };
            // Boxed: every stream would hold the memory that tunnels need.
            Box::pin(tunnel.relay(client, StreamIo::new(sender, receiver), Bytes::new())).await;
            End::Complete
        }
        (Some(_tunnel), _) => {
            client.marks.ends(Ended::ServerFailed, "http_upgrade_failed");
            reply.reset(Reason::CONNECT_ERROR);
            End::GivenUp
        }
        (None, _) => match respond((client, ledger), &reply, response, is_head) {
            Ok(mut sending) => std::future::poll_fn(|context| sending.poll(context)).await,
            Err(end) => end,
        },
    }
}

/// The response to a request, and on its way there what servers say in between. `None` once nobody wants it any more.
async fn answered(
    client: &Rc<Client>,
    request: Box<Request<ClientBody>>,
    reply: &Reply,
) -> Option<Response<ResponseBody>> {
    let mut answer = pin!(answer(Rc::clone(client), request));
    std::future::poll_fn(|context| {
        client.deadlines().attach(context);
        let answered = answer.as_mut().poll(context);
        for interim in client.interim.take() {
            reply.inform(interim.status, interim.headers);
        }
        match answered {
            Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
            Poll::Pending => reply.poll_reset(context).map(|()| None),
        }
    })
    .await
}

/// Tells the client that its tunnel is open (RFC 8441 section 5).
fn switch(reply: &Reply, response: Response<ResponseBody>) -> Result<SendStream<Part>, h2::Error> {
    let (mut parts, _empty) = response.into_parts();
    remove_connection_specific(&mut parts.headers);
    parts.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    parts.status = StatusCode::OK;
    reply.begin(Response::from_parts(parts, ()), false)
}

/// Makes a request of h2's one of ours; what comes on the stream of one that asks for a tunnel is the tunnel's. `None` when
/// it is malformed, and its stream was reset.
fn accept(
    client: &Rc<Client>,
    request: Request<RecvStream>,
    reply: &Reply,
) -> Option<(Box<Request<ClientBody>>, Option<RecvStream>)> {
    let (mut parts, stream) = request.into_parts();
    let is_connect = parts.method == Method::CONNECT;
    match h2_request::translate(&mut parts, &client_io::limits(client)) {
        Ok(()) => {}
        Err(Fault::Malformed) => {
            reply.reset(Reason::PROTOCOL_ERROR);
            return None;
        }
        Err(Fault::Refused(rejection)) => client.refusal.set(Some(Refusal::Malformed(rejection))),
    }
    if is_connect {
        return Some((Box::new(Request::from_parts(parts, ClientBody::Empty)), Some(stream)));
    }
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let expects_100 = parts.headers.contains_key(header::EXPECT).then(|| reply.clone());
    let body = StreamBody::new(stream, Rc::clone(client), length, expects_100);
    Some((Box::new(Request::from_parts(parts, ClientBody::Http2(body))), None))
}

/// Begins a response.
///
/// # Errors
/// The end of the stream, where nothing is left to send.
fn respond<'a>(
    (client, ledger): (&'a Rc<Client>, &'a Ledger),
    reply: &Reply,
    response: Response<ResponseBody>,
    is_head: bool,
) -> Result<Sending<'a>, End> {
    let (mut parts, body) = response.into_parts();
    remove_connection_specific(&mut parts.headers);
    parts.headers.entry(header::DATE).or_insert_with(super::date::now);
    let is_end = is_head || body.is_end_stream();
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    match reply.begin(Response::from_parts(parts, ()), is_end) {
        Ok(_) if is_end => Err(End::Complete),
        Ok(stream) => {
            let share = Share::new(client, ledger);
            Ok(Sending { client, ledger, stream, body, share, backlog: Backlog::new() })
        }
        Err(_ended) => Err(End::TakenBack),
    }
}

fn remove_connection_specific(headers: &mut HeaderMap) {
    // Nearly always there are none, and one pass over the names costs less than looking for each of them.
    if headers.keys().any(|name| CONNECTION_SPECIFIC.contains(name)) {
        for name in CONNECTION_SPECIFIC {
            headers.remove(name);
        }
    }
}

/// Why a response ends early: what the server's stream was reset with, where it was one.
fn reason(error: &(dyn std::error::Error + 'static)) -> Reason {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| cause.downcast_ref::<h2::Error>()?.reason()).unwrap_or(Reason::INTERNAL_ERROR)
}

/// A response's body on its way.
struct Sending<'a> {
    client: &'a Rc<Client>,
    ledger: &'a Ledger,
    stream: SendStream<Part>,
    body: ResponseBody,
    share: Option<Box<Share>>,
    backlog: Backlog,
}

impl Sending<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.client.deadlines().attach(context);
        match self.poll_body(context) {
            Poll::Pending if self.stream.poll_reset(context).is_ready() => Poll::Ready(End::TakenBack),
            polled => polled,
        }
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<End> {
        loop {
            if !std::task::ready!(self.poll_room(context)) {
                return Poll::Ready(if self.client.broken_off.get() { End::GivenUp } else { End::TakenBack });
            }
            let Some(frame) = std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                return Poll::Ready(self.end(Bytes::new()));
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    self.stream.send_reset(reason(&error));
                    return Poll::Ready(End::GivenUp);
                }
            };
            match frame.into_data() {
                Ok(data) if self.body.is_end_stream() => return Poll::Ready(self.end(data)),
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.moved(data.len());
                    let part = self.backlog.part(data, self.client.deadlines());
                    if self.stream.send_data(part, false).is_err() {
                        return Poll::Ready(End::TakenBack);
                    }
                }
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    remove_connection_specific(&mut trailers);
                    let is_sent = self.stream.send_trailers(trailers).is_ok();
                    return Poll::Ready(if is_sent { End::Complete } else { End::TakenBack });
                }
            }
        }
    }

    fn end(&mut self, data: Bytes) -> End {
        if self.stream.send_data(data.into(), true).is_ok() { End::Complete } else { End::TakenBack }
    }

    /// Waits until the client takes more, for `idle_timeout` at most: then the stream is reset. False when it has ended.
    ///
    /// h2 keeps what it is given and cannot send, up to its limit and ours; a part of the body is read when some room is
    /// there.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        self.stream.reserve_capacity(1);
        let deadlines = self.client.deadlines();
        loop {
            let polled = match self.stream.capacity() {
                0 => self.stream.poll_capacity(context),
                _ if self.has_backlog() => Poll::Pending,
                _ => break,
            };
            match polled {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(false),
                Poll::Pending if deadlines.is_late(Party::ClientWrite) && self.is_late() => {
                    self.client.broken_off.set(true);
                    self.client.marks.ends(Ended::TimedOut, "client_write_timeout");
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(false);
                }
                Poll::Pending => {
                    if let Some(listener) = self.client.listener() {
                        deadlines.set_once(Party::ClientWrite, listener.config.idle_timeout);
                    }
                    self.wait();
                    return Poll::Pending;
                }
            }
        }
        deadlines.clear(Party::ClientWrite);
        // What the server takes from here on is not the client's time.
        self.moved(0);
        Poll::Ready(true)
    }

    /// Whether as much waits in h2 as may.
    fn has_backlog(&self) -> bool {
        self.backlog.is_full(self.ledger.open.get(), || self.client.site().load.is_short())
    }

    /// Counts what the client has opened its window for.
    fn moved(&mut self, len: usize) {
        if let Some(share) = &mut self.share {
            share.moved(len, self.ledger, self.client.now());
        }
    }

    /// Sets the time at which a client that opens no window is late.
    fn wait(&mut self) {
        let Some(share) = &mut self.share else { return };
        let now = self.client.now();
        let late_at = share.meter.waits(now);
        self.client.deadlines().set_no_later(Party::ClientWrite, late_at.saturating_sub(now));
    }

    /// Whether a deadline that has passed is one that the client has missed.
    fn is_late(&mut self) -> bool {
        let Some(share) = &mut self.share else { return true };
        if !share.is_late(self.ledger, self.client.now()) {
            self.client.deadlines().clear(Party::ClientWrite);
            return false;
        }
        self.client.refused(RefusalReason::ResponseTooSlow);
        true
    }
}

/// How fast a client takes a response, where there is a limit. All responses of a connection have the rate together.
struct Share {
    meter: Meter,
    /// Bytes that had been written to the client when it was last looked at.
    seen: u64,
    /// Bytes of other responses that may go before it is this one's turn.
    others: u64,
}

impl Share {
    fn new(client: &Client, ledger: &Ledger) -> Option<Box<Self>> {
        let rate = client.listener()?.config.protection.response_rate?;
        Some(Box::new(Self { meter: Meter::new(floor(rate)), seen: ledger.sent_bytes.get(), others: turn(ledger) }))
    }

    /// The client takes so many bytes of it, or is not waited for any more.
    fn moved(&mut self, len: usize, ledger: &Ledger, now: Duration) {
        let others = self.others_served(ledger);
        self.meter.moved(len.saturating_add(others), now);
        if len > 0 {
            self.others = turn(ledger);
        }
    }

    /// Whether the client has neither opened its window in its time nor taken enough of other responses meanwhile. While
    /// what is written waits in the kernel, windows say nothing of the client: then `h2_io` has its deadline.
    fn is_late(&mut self, ledger: &Ledger, now: Duration) -> bool {
        if ledger.is_congested() {
            self.meter.excuse();
            return false;
        }
        let others = self.others_served(ledger);
        self.meter.moved(others, now);
        self.meter.waits(now) <= now
    }

    /// What the client has taken since this was last asked, as far as it went in front of this response.
    fn others_served(&mut self, ledger: &Ledger) -> usize {
        let sent = ledger.sent_bytes.get();
        let served = (sent - std::mem::replace(&mut self.seen, sent)).min(self.others);
        self.others -= served;
        usize::try_from(served).unwrap_or(usize::MAX)
    }
}

/// What may go to a client before it is a stream's turn: h2 gives the window of the connection to streams in their order,
/// to each as much as it holds of it. That is its buffer and the part of a body that went beyond.
fn turn(ledger: &Ledger) -> u64 {
    let each = 2 * h2_connection::SEND_BUFFER_BYTES;
    ledger.open.get().saturating_mul(each) as u64
}
