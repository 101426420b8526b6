//! A connection over which a server is asked in HTTP/1.1 or HTTP/2, kept from check to check.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::exchange::BYTES_MAX;
use crate::proxy::upstream::dial::{Dialer, OnBehalf, Spoken};

/// The most that the head of an answer to a check may take.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

pub(super) const USER_AGENT: &str = concat!("baton/", env!("CARGO_PKG_VERSION"));

/// So many checks over one connection: the next ones tell whether the server still takes new ones.
const CHECKS_MAX: u32 = 10;

/// Why a check over HTTP has failed.
pub(super) enum Failure {
    /// There is no answer, or it breaks off.
    Broken(String),
    /// By what the server answers.
    Answer(String),
}

impl Failure {
    /// That there is no answer.
    fn silent(error: &hyper::Error) -> Self {
        Self::Broken(format!("no HTTP answer: {}", in_words(error)))
    }

    /// That an answer breaks off.
    pub(super) fn cut(error: &hyper::Error) -> Self {
        Self::Broken(format!("its body breaks off: {}", in_words(error)))
    }

    pub(super) fn into_reason(self) -> String {
        let (Self::Broken(reason) | Self::Answer(reason)) = self;
        reason
    }
}

/// hyper's own words for what goes wrong with HTTP/2 do not say what.
fn in_words(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A connection. It ends when this is dropped.
pub(super) struct Connection {
    sender: Sender,
    scheme: &'static str,
    checks: u32,
    /// Move its bytes.
    tasks: Tasks,
    /// Reads what is left of the last answer, and says whether that has come to its end.
    rest: JoinSet<bool>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What hyper starts for one connection. Not one of them outlives it, whatever they wait for.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl Connection {
    /// Connects, as checks do.
    pub(super) async fn dial(dialer: &Dialer, address: SocketAddr) -> Result<Self, String> {
        let dialled = dialer.dial(address, OnBehalf::Ourselves).await;
        let (stream, spoken) = dialled.map_err(|error| error.reason)?;
        let scheme = if stream.is_tls() { "https" } else { "http" };
        let stream = TokioIo::new(stream);
        let no_handshake = |error: hyper::Error| Failure::silent(&error).into_reason();
        let tasks = Tasks::default();
        let sender = match spoken {
            Spoken::Http1 => {
                let mut builder = http1::Builder::new();
                let handshake = builder.max_buf_size(HEAD_BYTES_MAX as usize).handshake(stream).await;
                let (sender, connection) = handshake.map_err(no_handshake)?;
                tasks.execute(async move { drop(connection.await) });
                Sender::Http1(sender)
            }
            Spoken::Http2 => {
                let mut builder = http2::Builder::new(tasks.clone());
                let handshake = builder.max_header_list_size(HEAD_BYTES_MAX).handshake(stream).await;
                let (sender, connection) = handshake.map_err(no_handshake)?;
                tasks.execute(async move { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Ok(Self { sender, scheme, checks: 0, tasks, rest: JoinSet::new() })
    }

    /// Whether what is spoken is HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Whether another check may go over it: the last answer was read to its end, and neither side wants to close.
    pub(super) fn is_fit(&mut self) -> bool {
        let is_closed = match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        };
        !is_closed && self.checks < CHECKS_MAX && matches!(self.rest.try_join_next(), Some(Ok(true)))
    }

    /// Asks, for a path of a host.
    pub(super) async fn ask(
        &mut self,
        host: &str,
        path: &str,
        mut head: Parts,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        self.checks += 1;
        let silent = |error: hyper::Error| Failure::silent(&error);
        let wrong = |error: String| Failure::Answer(format!("the request cannot be made: {error}"));
        match &mut self.sender {
            Sender::Http1(sender) => {
                head.uri = path.parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
                let host = host.parse().map_err(|error: header::InvalidHeaderValue| wrong(error.to_string()))?;
                head.headers.insert(header::HOST, host);
                sender.ready().await.map_err(silent)?;
                sender.send_request(Request::from_parts(head, Full::new(body))).await.map_err(silent)
            }
            Sender::Http2(sender) => {
                let uri = Uri::builder().scheme(self.scheme).authority(host).path_and_query(path).build();
                head.uri = uri.map_err(|error| wrong(error.to_string()))?;
                sender.ready().await.map_err(silent)?;
                sender.send_request(Request::from_parts(head, Full::new(body))).await.map_err(silent)
            }
        }
    }

    /// Keeps the connection for another check, once what is left of an answer is read. One that has more than
    /// [`BYTES_MAX`] left, or does not end until then, costs the connection.
    pub(super) fn keep(&mut self, mut answer: Incoming) {
        self.rest.spawn(async move {
            let mut left = BYTES_MAX;
            while let Some(frame) = answer.frame().await {
                let Ok(frame) = frame else { return false };
                let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return false };
                left = rest;
            }
            true
        });
    }
}
