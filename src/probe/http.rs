//! A request of HTTP, and whether the answer is one that is expected.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::exchange::{BYTES_MAX, Pattern, missing};
use crate::config::HttpCheck;
use crate::proxy::server_io::ServerStream;
use crate::proxy::upstream::dial::{Dialer, OnBehalf, Spoken};

/// The most that the head of an answer to a check may take.
pub(super) const HEAD_BYTES_MAX: u32 = 16 * 1024;

pub(super) const USER_AGENT: &str = concat!("baton/", env!("CARGO_PKG_VERSION"));

/// Asks, and judges the answer.
pub(super) async fn ask(
    dialer: &Dialer,
    address: SocketAddr,
    check: &HttpCheck,
    body: Option<&Pattern>,
) -> Result<String, String> {
    let dialled = dialer.dial(address, OnBehalf::Ourselves).await;
    let (stream, spoken) = dialled.map_err(|error| error.reason)?;
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    match spoken {
        Spoken::Http1 => ask_in_http1(stream, check, &host, body).await,
        Spoken::Http2 => ask_in_http2(stream, check, &host, body).await,
    }
}

fn request(check: &HttpCheck, uri: Uri) -> http::request::Builder {
    let mut request = Request::builder().method(check.method.as_str()).uri(uri);
    if !check.headers.iter().any(|(name, _)| name == header::USER_AGENT.as_str()) {
        request = request.header(header::USER_AGENT, USER_AGENT);
    }
    check.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

async fn ask_in_http1(
    stream: ServerStream,
    check: &HttpCheck,
    host: &str,
    body: Option<&Pattern>,
) -> Result<String, String> {
    let uri: Uri = check.path.parse().map_err(|_| "the path is none".to_owned())?;
    let request = request(check, uri)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX as usize).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(|error| format!("no HTTP answer: {error}"))?;
        let said = judged(response.status(), check)?;
        let Some(pattern) = body else { return Ok(said) };
        let mut incoming = response.into_body();
        let mut found = Found::new(pattern);
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| format!("its body breaks off: {error}"))?;
            if frame.data_ref().is_some_and(|data| found.takes(data)) {
                return Ok(said);
            }
            found.has_room()?;
        }
        Err(missing(&found.bytes))
    };
    let mut asking = std::pin::pin!(asking);
    // The connection fills the response. When it ends first, the response is there, or has become an error.
    tokio::select! {
        biased;
        answered = &mut asking => answered,
        _ended = connection => asking.await,
    }
}

async fn ask_in_http2(
    stream: ServerStream,
    check: &HttpCheck,
    host: &str,
    body: Option<&Pattern>,
) -> Result<String, String> {
    let scheme = if stream.is_tls() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(check.path.as_str()).build();
    let request =
        request(check, uri.map_err(|error| error.to_string())?).body(()).map_err(|error| error.to_string())?;
    let no_answer = |error: h2::Error| format!("no HTTP/2 answer: {error}");
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(no_answer)?;
    let asking = async {
        let (response, _no_body) = sender.send_request(request, true).map_err(no_answer)?;
        let response = response.await.map_err(no_answer)?;
        let said = judged(response.status(), check)?;
        let Some(pattern) = body else { return Ok(said) };
        let mut incoming = response.into_body();
        let mut found = Found::new(pattern);
        while let Some(data) = incoming.data().await {
            let data = data.map_err(|error| format!("its body breaks off: {error}"))?;
            let _ended = incoming.flow_control().release_capacity(data.len());
            if found.takes(&data) {
                return Ok(said);
            }
            found.has_room()?;
        }
        Err(missing(&found.bytes))
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answered = &mut asking => answered,
        _ended = connection => asking.await,
    }
}

/// A body, as far as it was read, and what has to be in it.
struct Found<'p> {
    pattern: &'p Pattern,
    bytes: Vec<u8>,
}

impl<'p> Found<'p> {
    fn new(pattern: &'p Pattern) -> Self {
        Self { pattern, bytes: Vec::new() }
    }

    /// Whether it is there now.
    fn takes(&mut self, data: &[u8]) -> bool {
        let room = BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend(data.iter().take(room));
        self.pattern.is_in(&self.bytes)
    }

    fn has_room(&self) -> Result<(), String> {
        if self.bytes.len() < BYTES_MAX {
            return Ok(());
        }
        Err(format!("what is expected is not in the first {} KiB of its body", BYTES_MAX / 1024))
    }
}

fn judged(status: StatusCode, check: &HttpCheck) -> Result<String, String> {
    let status = status.as_u16();
    let is_expected = check.statuses.iter().any(|(from, to)| (*from..=*to).contains(&status));
    let said = format!("status {status}");
    if is_expected { Ok(said) } else { Err(said) }
}
