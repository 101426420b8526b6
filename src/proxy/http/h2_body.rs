//! A request's body on a stream of HTTP/2.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::client::{Client, Refusal};
use super::client_body::ClientBodyError;
use super::h2_stream::Reply;
use crate::proxy::timers::Party;

/// What a client sends on its stream behind a request's head.
pub struct StreamBody {
    stream: RecvStream,
    client: Rc<Client>,
    /// To say `100 Continue` on, until that is said.
    expects_100: Option<Reply>,
    /// What is left of the length that the head gives; h2 resets a stream whose DATA are not as long.
    length: Option<u64>,
    is_data_over: bool,
    is_ended: bool,
}

impl StreamBody {
    /// The body behind a head with this Content-Length. `expects_100` when the client waits for `100 Continue`.
    pub fn new(stream: RecvStream, client: Rc<Client>, length: Option<u64>, expects_100: Option<Reply>) -> Self {
        Self { stream, client, expects_100, length, is_data_over: false, is_ended: false }
    }

    /// The next part of the body. The client has `idle_timeout` for it.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        if let Some(reply) = self.expects_100.take() {
            reply.say_continue();
        }
        let polled = self.poll_stream(context);
        let deadlines = self.client.deadlines();
        match &polled {
            Poll::Pending if deadlines.is_late(Party::ClientRead) => {
                self.is_ended = true;
                self.client.refusal.set(Some(Refusal::TooSlow));
                return Poll::Ready(Some(Err(ClientBodyError::TooSlow)));
            }
            Poll::Pending => {
                if let Some(listener) = self.client.listener() {
                    deadlines.set_once(Party::ClientRead, listener.config.idle_timeout);
                }
            }
            Poll::Ready(frame) => {
                deadlines.clear(Party::ClientRead);
                self.is_ended = !matches!(frame, Some(Ok(frame)) if frame.is_data());
            }
        }
        polled
    }

    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        while !self.is_data_over {
            match std::task::ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    // What is handed on is no more than what h2 holds; the client may send as much again.
                    self.stream.flow_control().release_capacity(data.len())?;
                    self.length = self.length.map(|length| length.saturating_sub(data.len() as u64));
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => self.is_data_over = true,
            }
        }
        match std::task::ready!(self.stream.poll_trailers(context)) {
            Ok(None) => Poll::Ready(None),
            Ok(Some(trailers)) if is_forbidden(&trailers) => Poll::Ready(Some(Err(ClientBodyError::TrailerForbidden))),
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.is_ended || self.stream.is_end_stream()
    }

    /// As the head has it.
    pub fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// The same trailers as on HTTP/1.
fn is_forbidden(trailers: &HeaderMap) -> bool {
    trailers.keys().any(|name| matches!(name.as_str(), "host" | "content-length" | "transfer-encoding"))
}
