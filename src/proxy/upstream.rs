//! Connections to servers, whatever is spoken on them.
//!
//! `http1` has connections that carry one request at a time and are driven by whoever uses them, `http2` those that the
//! requests of a thread share. `dial` makes both.

pub mod dial;
pub mod head_gate;
pub mod http1;
pub mod http2;
pub mod retry;
pub mod tls;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use self::http1::Http1;
use self::http2::Stream;
use super::http::body::RequestBody;
use super::http::tunnel::ServerEnd;
use super::timers::Deadlines;

/// What carries one request to a server.
pub enum Upstream {
    /// A connection of its own.
    Http1(Box<Http1>),
    /// A stream of a shared connection.
    Http2(Box<Stream>),
}

/// Why a request got no response.
pub struct ExchangeError {
    /// What went wrong.
    pub kind: Broken,
    /// The request, when no server has begun to do it: nothing of it was sent, or the server says so.
    pub unsent: Option<Box<Request<RequestBody>>>,
}

/// How an exchange broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// What the server sent is not a response, or too much of it came before one.
    Garbage,
    /// The connection ended, or the server gave the request up.
    Off,
    /// The server has not begun with it and says so (RFC 9113 section 8.7).
    Refused,
}

impl Upstream {
    /// Whether the server may have been about to close it before it got the request.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.reused,
            Self::Http2(stream) => stream.is_reused(),
        }
    }

    /// Sends a request and waits for the head of its response. `None` when the server's deadline, set here to `timeout`,
    /// has passed. Dropped before its end, an HTTP/1 connection is closed, and an HTTP/2 stream is reset.
    ///
    /// # Errors
    /// The connection broke, or what came is not HTTP; `unsent` says whether another connection may be tried blindly.
    pub async fn exchange(
        self,
        request: Box<Request<RequestBody>>,
        deadlines: &Deadlines,
        timeout: Duration,
    ) -> Option<Result<Response<Arriving>, ExchangeError>> {
        match self {
            Self::Http1(mut connection) => {
                let answer = connection.exchange(request, deadlines, timeout).await?;
                Some(answer.map(|response| {
                    response.map(|incoming| Arriving::Http1 { incoming, connection: Some(connection) })
                }))
            }
            Self::Http2(stream) => {
                let answer = stream.exchange(request, deadlines, timeout).await?;
                Some(answer.map(|response| response.map(|arriving| Arriving::Http2(Box::new(arriving)))))
            }
        }
    }
}

/// A response's body, with what brings it.
pub enum Arriving {
    /// On a connection of its own.
    Http1 {
        /// The body.
        incoming: Incoming,
        /// `None` once it is given back or given up.
        connection: Option<Box<Http1>>,
    },
    /// On a stream.
    Http2(Box<http2::Arriving>),
}

impl Arriving {
    /// What comes next of it. Drives what brings it.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ArrivalError>>> {
        match self {
            Self::Http1 { incoming, connection: Some(connection) } => {
                connection.poll_body(context, incoming).map_err(ArrivalError::Http1)
            }
            Self::Http1 { incoming, connection: None } => {
                Pin::new(incoming).poll_frame(context).map_err(ArrivalError::Http1)
            }
            Self::Http2(arriving) => arriving.poll_frame(context).map_err(ArrivalError::Http2),
        }
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1 { incoming, .. } => incoming.is_end_stream(),
            Self::Http2(arriving) => arriving.is_end_stream(),
        }
    }

    /// How much comes.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1 { incoming, .. } => incoming.size_hint(),
            Self::Http2(arriving) => arriving.size_hint(),
        }
    }

    /// The connection below, once its protocol has changed, and what has been read of it since.
    pub fn take_tunnel(&mut self) -> Option<(ServerEnd, Bytes)> {
        match self {
            Self::Http1 { connection, .. } => {
                let (io, read_ahead) = connection.take()?.into_tunnel()?;
                Some((ServerEnd::Connection(Box::new(io)), read_ahead))
            }
            Self::Http2(arriving) => Some((arriving.take_tunnel()?, Bytes::new())),
        }
    }

    /// The connection, where it has been this body's alone.
    pub fn take_connection(&mut self) -> Option<Box<Http1>> {
        match self {
            Self::Http1 { connection, .. } => connection.take(),
            Self::Http2(_) => None,
        }
    }
}

/// Why a response's body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalError {
    /// On a connection of its own.
    #[error(transparent)]
    Http1(hyper::Error),
    /// On a stream; hyper passes its code on to a client of HTTP/2.
    #[error("the stream was reset")]
    Http2(#[source] h2::Error),
}
