//! Compresses responses on their way to the client, frame by frame.
//!
//! What the server has sent is passed on as soon as there is no more of it for the moment: a stream of events stays one.
//! Memory is bounded by the windows of the codings and by what all compressions of a thread may have together; a response
//! beyond that goes as it is.

mod encoder;
pub mod negotiate;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, Version, header};
use http_body::{Body, Frame};

use self::encoder::Encoder;
use self::negotiate::{Accepted, Decision, decide};
use super::body::{BodyError, ResponseBody};
use super::transaction::Transaction;
use crate::config::{Coding, Compression, PoolCompression};

/// Memory that the compressions of a thread may take together.
const MEMORY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Output after which a frame is passed on.
const FRAME_BYTES: usize = 16 * 1024;

/// Input after which other connections get their turn.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// The memory of a thread that compressions have.
pub type Memory = Rc<Cell<usize>>;

/// A part of it, given back at its drop.
struct Share {
    memory: Memory,
    bytes: usize,
}

impl Share {
    fn take(memory: &Memory, bytes: usize) -> Option<Self> {
        let taken = memory.get() + bytes;
        if taken > MEMORY_BYTES_MAX {
            return None;
        }
        memory.set(taken);
        Some(Self { memory: Rc::clone(memory), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.set(self.memory.get().saturating_sub(self.bytes));
    }
}

/// Compresses a response where that is configured and the client accepts it.
pub fn apply(transaction: &Transaction, response: Response<ResponseBody>) -> Response<ResponseBody> {
    let Some(accepted) = transaction.accepted else { return response };
    let Some(compression) = of(transaction) else { return response };
    let (mut parts, body) = response.into_parts();
    let body = match decide(compression, &accepted, parts.status, &parts.headers) {
        Decision::Leave => body,
        Decision::Vary => {
            vary(&mut parts.headers);
            body
        }
        Decision::Encode(coding) => {
            vary(&mut parts.headers);
            if !transaction.has_body {
                // The head that a GET would get.
                encoded(&mut parts.headers, coding);
                return Response::from_parts(parts, body);
            }
            match start(transaction, compression, coding) {
                Some((encoder, share)) => {
                    encoded(&mut parts.headers, coding);
                    ResponseBody::compressed(Compressed::new(body, encoder, share))
                }
                None => body,
            }
        }
    };
    Response::from_parts(parts, body)
}

/// What a request's client accepts, where anything is compressed here at all.
pub fn accepted<B>(transaction: &Transaction, request: &http::Request<B>) -> Option<Accepted> {
    let site = transaction.client.site();
    // A client of HTTP/1.0 would learn the end of what it gets from the end of the connection alone.
    (site.compresses && request.version() != Version::HTTP_10).then(|| Accepted::of(request.headers()))
}

fn of(transaction: &Transaction) -> Option<&Compression> {
    let client = &transaction.client;
    let pool = transaction.pool.and_then(|pool| client.site().pool(pool));
    match pool.map_or(&PoolCompression::Inherited, |pool| &pool.config.compression) {
        PoolCompression::Own(compression) => Some(compression),
        PoolCompression::Off => None,
        PoolCompression::Inherited => client.listener()?.config.compression.as_ref(),
    }
}

fn start(transaction: &Transaction, compression: &Compression, coding: Coding) -> Option<(Encoder, Share)> {
    let memory = &transaction.client.thread().compression_memory;
    let share = Share::take(memory, Encoder::memory_bytes(coding))?;
    Some((Encoder::new(coding, compression.level).ok()?, share))
}

/// Says that the response depends on what the client accepts (RFC 9110 section 12.5.5).
fn vary(headers: &mut HeaderMap) {
    let values = headers.get_all(header::VARY).iter().filter_map(|value| value.to_str().ok());
    let mut names = values.flat_map(|value| value.split(','));
    if !names.any(|name| name.trim() == "*" || name.trim().eq_ignore_ascii_case("accept-encoding")) {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Makes a head that of the encoded response.
fn encoded(headers: &mut HeaderMap, coding: Coding) {
    let name = match coding {
        Coding::Zstd => "zstd",
        Coding::Brotli => "br",
        Coding::Gzip => "gzip",
    };
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    headers.remove(header::CONTENT_LENGTH);
    // Ranges would be ranges of what is encoded, which is not the same each time.
    headers.remove(header::ACCEPT_RANGES);
    // The same to who reads it, and not the same bytes (RFC 9110 section 8.8.1).
    let strong = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    if let Some(Ok(weak)) = strong.map(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())) {
        headers.insert(header::ETAG, weak);
    }
}

/// A body that is compressed as it comes.
pub struct Compressed {
    inner: Box<ResponseBody>,
    /// `None` once it is finished.
    encoder: Option<Encoder>,
    /// What comes behind the last of the body.
    last: Option<HeaderMap>,
    /// Something was taken in that may not have come out yet.
    is_dirty: bool,
    _share: Share,
}

impl Compressed {
    fn new(inner: ResponseBody, encoder: Encoder, share: Share) -> Self {
        Self { inner: Box::new(inner), encoder: Some(encoder), last: None, is_dirty: false, _share: share }
    }

    /// The next frame.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut taken = 0;
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(self.last.take().map(|trailers| Ok(Frame::trailers(trailers))));
            };
            if encoder.len() >= FRAME_BYTES {
                return Poll::Ready(Some(Ok(Frame::data(encoder.take()))));
            }
            let frame = match Pin::new(&mut *self.inner).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return self.poll_flush(),
            };
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => {
                    encoder.write(&data).map_err(BodyError::Compression)?;
                    taken += data.len();
                    self.is_dirty |= !data.is_empty();
                    if taken >= INPUT_BYTES_MAX {
                        return self.poll_flush();
                    }
                }
                Some(Err(other)) => self.last = other.into_trailers().ok(),
                None => {
                    let rest = self.encoder.take().map(Encoder::finish).transpose().map_err(BodyError::Compression)?;
                    if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                        return Poll::Ready(Some(Ok(Frame::data(rest))));
                    }
                }
            }
        }
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.last.is_none()
    }

    /// Passes on what has come in so far.
    fn poll_flush(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(encoder) = &mut self.encoder else { return Poll::Pending };
        if !std::mem::take(&mut self.is_dirty) {
            return Poll::Pending;
        }
        encoder.flush().map_err(BodyError::Compression)?;
        if encoder.len() == 0 { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(encoder.take())))) }
    }
}

#[cfg(test)]
mod tests;
