//! A request's body as it comes from its client, whichever version of HTTP the client speaks.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::h2_body::StreamBody;

/// A request's body, read from its client.
pub enum ClientBody {
    /// There is none.
    Empty,
    /// On a connection of HTTP/1; `client_io` judges its framing and has its deadline.
    Http1(Incoming),
    /// On a stream of HTTP/2, with a deadline of its own.
    Http2(StreamBody),
}

/// Why a client's body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ClientBodyError {
    /// Its connection broke, or its framing is malformed.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// Its stream was reset, or its connection broke.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// Nothing of it came for too long.
    #[error("nothing came for too long")]
    TooSlow,
    /// A trailer field that a server could act on as if it stood in the head (RFC 9110 section 6.5.1).
    #[error("a trailer field decides about framing or routing")]
    TrailerForbidden,
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(incoming) => {
                let polled = Pin::new(incoming).poll_frame(context);
                polled.map(|frame| frame.map(|frame| frame.map_err(ClientBodyError::Http1)))
            }
            Self::Http2(stream) => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(stream) => stream.size_hint(),
        }
    }
}
