//! Bodies on their way through, frame by frame: never more of one than a read at a time is in memory.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::action::MirrorBody;
use super::client::{Client, Refusal};
use super::client_body::{ClientBody, ClientBodyError};
use super::compression::Compressed;
use super::trace::Ended;
use super::transaction::Transaction;
use crate::config;
use crate::limit::floor::{self, Meter};
use crate::proxy::outcomes::Outcome;
use crate::proxy::refusals::Reason;
use crate::proxy::thread::Place;
use crate::proxy::timers::Party;
use crate::proxy::upstream::{ArrivalError, Arriving};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client's, on its way to a server.
    #[error("the client's body ended early")]
    Client(#[source] ClientBodyError),
    /// The client's is too large or too slow; the client is refused.
    #[error("the client's body breaks a limit")]
    Refused,
    /// The server's, on its way to a client.
    #[error("the server's body ended early")]
    Server(#[source] ArrivalError),
    /// It could not be compressed.
    #[error("the body could not be compressed")]
    Compression(#[source] std::io::Error),
    /// The server sent nothing for too long.
    #[error("the server's body made no progress in time")]
    ServerTimeout,
}

/// A request's body on its way to a server.
pub enum RequestBody {
    /// There is none.
    Empty,
    /// All of it, so that it can be sent again.
    Whole {
        /// Not sent yet.
        data: Option<Bytes>,
        /// Not sent yet.
        trailers: Option<HeaderMap>,
    },
    /// From the client.
    Client {
        /// The rest of it.
        incoming: ClientBody,
        /// A part that was read before a server was chosen.
        first: Option<Frame<Bytes>>,
        /// Whose it is.
        client: Rc<Client>,
        /// Time that the server gets after each part.
        server_timeout: Duration,
        /// Its copy for a second pool, where there is one.
        mirror: Option<Box<MirrorBody>>,
        /// What the client may do, where there are limits.
        bounds: Option<Box<Bounds>>,
    },
}

/// What a client may do while it sends a body.
pub struct Bounds {
    /// Bytes that may still come.
    left: Option<u64>,
    meter: Option<Meter>,
}

impl Bounds {
    fn of(client: &Client) -> Option<Box<Self>> {
        let protection = &client.listener()?.config.protection;
        let (left, rate) = (protection.body_bytes_max, protection.body_rate);
        let meter = rate.map(|rate| Meter::new(floor(rate)));
        (left.is_some() || meter.is_some()).then(|| Box::new(Self { left, meter }))
    }

    /// Takes a part that has come. False when it is too much.
    fn came(&mut self, client: &Client, len: usize) -> bool {
        if let Some(meter) = &mut self.meter {
            meter.moved(len, client.now());
            client.deadlines().clear(Party::ClientBody);
        }
        match self.left.map(|left| left.checked_sub(len as u64)) {
            Some(None) => {
                client.refuse(Refusal::TooLarge);
                false
            }
            Some(left) => {
                self.left = left;
                true
            }
            None => true,
        }
    }

    /// Nothing has come. False when the client has taken too long.
    fn waits(&mut self, client: &Client) -> bool {
        let Some(meter) = &mut self.meter else { return true };
        let deadlines = client.deadlines();
        if deadlines.is_late(Party::ClientBody) {
            deadlines.clear(Party::ClientBody);
            client.refused(Reason::BodyTooSlow);
            client.refuse(Refusal::TooSlow);
            return false;
        }
        let now = client.now();
        deadlines.set_no_later(Party::ClientBody, meter.waits(now).saturating_sub(now));
        true
    }
}

/// A rate of the configuration.
pub fn floor(rate: config::RateFloor) -> floor::Terms {
    floor::Terms { bytes_per_second: rate.bytes_per_second, grace: rate.grace }
}

impl RequestBody {
    /// Looks at the part of the body that has arrived already, without waiting for more.
    ///
    /// # Errors
    /// When it is malformed: then no server has to see the request at all.
    pub fn begin(
        client: &Rc<Client>,
        mut incoming: ClientBody,
        expects_100: bool,
        server_timeout: Duration,
    ) -> Result<Self, BodyError> {
        if incoming.is_end_stream() {
            return Ok(Self::Empty);
        }
        // With an expectation, looking would tell the client to send before a server was found.
        let looked = if expects_100 {
            Poll::Pending
        } else {
            Pin::new(&mut incoming).poll_frame(&mut Context::from_waker(Waker::noop()))
        };
        let first = match looked {
            Poll::Ready(Some(Err(error))) => return Err(BodyError::Client(error)),
            Poll::Ready(Some(Ok(frame))) => Some(frame),
            Poll::Ready(None) | Poll::Pending => None,
        };
        let mut bounds = Bounds::of(client);
        if let (Some(bounds), Some(data)) = (&mut bounds, first.as_ref().and_then(Frame::data_ref))
            && !bounds.came(client, data.len())
        {
            return Err(BodyError::Refused);
        }
        client.is_uploading.set(true);
        Ok(Self::Client { incoming, first, client: Rc::clone(client), server_timeout, mirror: None, bounds })
    }
}

fn count_in<E>(client: &Client, frame: &Option<Result<Frame<Bytes>, E>>) {
    if let Some(Ok(frame)) = frame {
        let len = frame.data_ref().map_or(0, |data| data.len() as u64);
        client.marks.bytes_in.set(client.marks.bytes_in.get() + len);
    }
}

impl RequestBody {
    /// Reads all of a body of `len` bytes. The client's own deadlines hold meanwhile.
    ///
    /// # Errors
    /// When it is malformed or ends early.
    pub async fn read_whole(mut self, len: usize) -> Result<Self, BodyError> {
        let mut data = BytesMut::with_capacity(len);
        let mut trailers = None;
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await {
            match frame?.into_data() {
                Ok(part) => data.extend_from_slice(&part),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Self::Whole { data: Some(data.freeze()), trailers })
    }

    /// A second one, where all of it is still there.
    pub fn copy(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Whole { data, trailers } => Some(Self::Whole { data: data.clone(), trailers: trailers.clone() }),
            Self::Client { .. } => None,
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Self::Client { client, .. } = self {
            client.is_uploading.set(false);
            client.deadlines().clear(Party::ClientBody);
        }
    }
}

/// Tells the copy of a request what of its body has passed: a part, or nothing more.
fn copy(mirror: &mut Option<Box<MirrorBody>>, frame: Option<&Frame<Bytes>>, is_end: bool) {
    let Some(body) = mirror else { return };
    let has_room = frame.and_then(Frame::data_ref).is_none_or(|part| body.passed(part));
    if !has_room {
        *mirror = None;
    } else if is_end || frame.is_none() {
        mirror.take().into_iter().for_each(|body| body.ended());
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (incoming, first, client, server_timeout, mirror, bounds) = match self.get_mut() {
            Self::Client { incoming, first, client, server_timeout, mirror, bounds } => {
                (incoming, first, client, server_timeout, mirror, bounds)
            }
            Self::Whole { data, trailers } => {
                let next = data.take().map(Frame::data).or_else(|| trailers.take().map(Frame::trailers));
                return Poll::Ready(next.map(Ok));
            }
            Self::Empty => return Poll::Ready(None),
        };
        if let Some(frame) = first.take() {
            copy(mirror, Some(&frame), incoming.is_end_stream());
            client.marks.bytes_in.set(frame.data_ref().map_or(0, |data| data.len() as u64));
            return Poll::Ready(Some(Ok(frame)));
        }
        match Pin::new(&mut *incoming).poll_frame(context) {
            Poll::Ready(frame) => {
                count_in(client, &frame);
                client.deadlines().set(Party::Server, *server_timeout);
                let len = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
                if bounds.as_mut().is_some_and(|bounds| !bounds.came(client, len)) {
                    return Poll::Ready(Some(Err(BodyError::Refused)));
                }
                if !matches!(frame, Some(Err(_))) {
                    copy(mirror, frame.as_ref().and_then(|frame| frame.as_ref().ok()), incoming.is_end_stream());
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
            }
            Poll::Pending => {
                // It is the client's turn now; `client_io` has its deadline.
                client.deadlines().clear(Party::Server);
                if bounds.as_mut().is_some_and(|bounds| !bounds.waits(client)) {
                    return Poll::Ready(Some(Err(BodyError::Refused)));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole { data, trailers } => data.is_none() && trailers.is_none(),
            Self::Client { incoming, first, .. } => first.is_none() && incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole { data, .. } => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Client { incoming, first, .. } => {
                let first = first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
                incoming.size_hint().exact().map_or_else(SizeHint::new, |rest| SizeHint::with_exact(rest + first))
            }
        }
    }
}

/// A response's body on its way to a client.
pub struct ResponseBody {
    source: Source,
    /// Ends with it.
    transaction: Option<Box<Transaction>>,
}

enum Source {
    Text(Option<Bytes>),
    Server(ServerBody),
    Compressed(Compressed),
}

/// A body that is read from a server.
struct ServerBody {
    /// `None` once it is given up.
    arriving: Option<Arriving>,
    /// The last frame has been read.
    is_complete: bool,
    place: Place,
    client: Rc<Client>,
    timeout: Duration,
}

impl ResponseBody {
    /// No body.
    pub fn empty() -> Self {
        Self { source: Source::Text(None), transaction: None }
    }

    /// A text of our own.
    pub fn text(text: Bytes) -> Self {
        Self { source: Source::Text(Some(text)), transaction: None }
    }

    /// The body that arrives from a server; its connection goes back to `place` at its end.
    pub fn from_server(arriving: Arriving, place: Place, client: &Rc<Client>, timeout: Duration) -> Self {
        let client = Rc::clone(client);
        let body = ServerBody { arriving: Some(arriving), is_complete: false, place, client, timeout };
        Self { source: Source::Server(body), transaction: None }
    }

    /// A body that is compressed.
    pub fn compressed(body: Compressed) -> Self {
        Self { source: Source::Compressed(body), transaction: None }
    }

    /// The text, where it is one of our own.
    pub fn own_text(&self) -> Option<&Bytes> {
        match &self.source {
            Source::Text(text) => text.as_ref(),
            Source::Server(_) | Source::Compressed(_) => None,
        }
    }

    /// The same, as the body of a transaction's response.
    pub fn of(mut self, transaction: Box<Transaction>) -> Self {
        self.transaction = Some(transaction);
        self
    }

    /// Notes what goes to the client.
    fn note(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>) {
        let Some(transaction) = &mut self.transaction else { return };
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                transaction.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(BodyError::ServerTimeout))) => {
                transaction.client.marks.ends(Ended::TimedOut, "http_response_timeout");
            }
            Poll::Ready(Some(Err(BodyError::Client(_) | BodyError::Server(_) | BodyError::Compression(_)))) => {
                transaction.client.marks.ends(Ended::ServerFailed, "connection_terminated");
            }
            // Of a request's body, and said where that is refused.
            Poll::Ready(Some(Err(BodyError::Refused))) | Poll::Pending => {}
            Poll::Ready(None) => transaction.is_whole = true,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Server(body) => body.poll_frame(context),
            Source::Compressed(body) => body.poll_frame(context),
        };
        this.note(&polled);
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Text(text) => text.is_none(),
            Source::Server(body) => body.arriving.as_ref().is_none_or(Arriving::is_end_stream),
            Source::Compressed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Server(body) => body.arriving.as_ref().map_or_else(SizeHint::default, Arriving::size_hint),
            Source::Compressed(_) => SizeHint::new(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // hyper does not ask for the end of a body whose length it knows.
        let is_whole = self.is_end_stream();
        if let Some(transaction) = &mut self.transaction {
            transaction.is_whole |= is_whole;
        }
    }
}

impl ServerBody {
    /// The client cannot be told any more, and the server has failed after all.
    fn broke_off(&self) {
        self.client.broken_off.set(true);
        self.client.site().came_of(self.place, self.client.thread().index(), Outcome::Failure, None);
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let deadlines = Rc::clone(self.client.deadlines());
        if deadlines.is_server_late() {
            self.arriving = None;
            self.broke_off();
            return Poll::Ready(Some(Err(BodyError::ServerTimeout)));
        }
        let Some(arriving) = &mut self.arriving else { return Poll::Ready(None) };
        if deadlines.is_set(Party::ClientWrite) && self.client.site().load.is_short() {
            // `client_io` wakes it when the client has taken something.
            self.client.is_held_back.set(true);
            return Poll::Pending;
        }
        match arriving.poll_frame(context) {
            Poll::Ready(frame) => {
                deadlines.clear(Party::Server);
                self.is_complete = frame.is_none();
                if matches!(frame, Some(Err(_))) {
                    self.broke_off();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Server)))
            }
            Poll::Pending => {
                deadlines.set_once(Party::Server, self.timeout);
                Poll::Pending
            }
        }
    }
}

impl Drop for ServerBody {
    fn drop(&mut self) {
        // A body that was not read to its end leaves bytes on the connection that would be taken for the next response.
        let is_complete = self.is_complete || self.arriving.as_ref().is_some_and(Arriving::is_end_stream);
        // A server that answers early leaves the connection in the middle of a request, with the client inside it.
        let is_free = is_complete && !self.client.is_uploading.get();
        if is_free && let Some(connection) = self.arriving.as_mut().and_then(Arriving::take_connection) {
            self.client.thread().give_back(self.place, connection);
        }
    }
}
