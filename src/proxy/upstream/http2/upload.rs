//! A request's body on its way into a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::proxy::http::body::RequestBody;

/// What is left of a body, and where it goes.
pub struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// Data that the server has no room for yet.
    waiting: Bytes,
    is_ended: bool,
    is_touched: bool,
}

/// How an upload has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All is sent, or the server wants no more of it.
    Ended,
    /// The client broke it off, so the stream was reset.
    BrokenByClient,
}

impl Upload {
    /// Begins with nothing sent. A body that is at its end has gone with the head.
    pub fn new(body: RequestBody, stream: SendStream<Bytes>) -> Self {
        let is_ended = body.is_end_stream();
        Self { body, stream, waiting: Bytes::new(), is_ended, is_touched: false }
    }

    /// The body, where nothing of it has been sent.
    pub fn into_untouched(self) -> Option<RequestBody> {
        (!self.is_touched).then_some(self.body)
    }

    /// The stream alone, for something else than the body.
    pub fn into_stream(self) -> SendStream<Bytes> {
        self.stream
    }

    /// Ends the stream where its head did not.
    pub fn ended(mut self) -> Self {
        // Fails on a stream that is gone.
        let _gone = self.end();
        self
    }

    /// Sends as much as there is and as the server has room for.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Progress> {
        while !self.is_ended {
            // A server that wants no more says so; the response says what that means.
            if self.stream.poll_reset(context).is_ready() || ready!(self.poll_waiting(context)).is_err() {
                self.is_ended = true;
            }
            if self.is_ended {
                break;
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            self.is_touched = true;
            let sent = match frame {
                None => self.end(),
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    self.is_ended = true;
                    return Poll::Ready(Progress::BrokenByClient);
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.waiting = data;
                        continue;
                    }
                    Err(frame) => match frame.into_trailers() {
                        Ok(trailers) => {
                            self.is_ended = true;
                            self.stream.send_trailers(trailers)
                        }
                        Err(_unknown) => continue,
                    },
                },
            };
            // Fails on a stream that is gone, and then the response says so too.
            self.is_ended |= sent.is_err();
        }
        Poll::Ready(Progress::Ended)
    }

    fn end(&mut self) -> Result<(), h2::Error> {
        self.is_ended = true;
        self.stream.send_data(Bytes::new(), true)
    }

    /// Sends what waits, piece by piece as the server makes room (RFC 9113 section 5.2).
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.waiting.is_empty() {
            self.stream.reserve_capacity(self.waiting.len());
            while self.stream.capacity() == 0 {
                match ready!(self.stream.poll_capacity(context)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                }
            }
            let len = self.stream.capacity().min(self.waiting.len());
            let piece = self.waiting.split_to(len);
            let is_last = self.waiting.is_empty() && self.body.is_end_stream();
            self.is_ended = is_last;
            self.stream.send_data(piece, is_last)?;
        }
        Poll::Ready(Ok(()))
    }
}
