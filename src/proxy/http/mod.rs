//! HTTP/1.1 and HTTP/2: the life of a request.
//!
//! On HTTP/1, `client_io` lets only well-formed requests in and hyper parses them; on HTTP/2, h2 parses them and
//! `h2_request` judges them. [`answer`] below is the life of a request: `process` finds out who asks and what for and has
//! `action` do what its route says and `forward` bring it to a server, `finish` makes the response ready for the client.
//! One task does all of it for one [`client::Client`]; what is known of the request is its
//! [`transaction::Transaction`].

mod access;
mod action;
pub mod body;
pub mod client;
mod client_body;
mod client_io;
mod date;
mod forward;
pub mod forwarded;
mod grpc;
mod h2_body;
mod h2_connection;
mod h2_frames;
mod h2_io;
mod h2_request;
mod h2_stream;
mod headers;
pub mod https;
pub mod identity;
pub mod ids;
mod interim;
mod respond;
pub mod route;
pub mod strict;
pub mod transaction;
pub mod tunnel;

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

pub use self::action::Routing;
use self::body::ResponseBody;
use self::client::Client;
use self::client_body::ClientBody;
pub use self::client_io::ClientStream;
use self::client_io::{ClientIo, Outcome};
use self::transaction::Transaction;
use crate::limit::Verdict;

/// hyper's buffers for one client: no head that `strict` lets through is larger.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// The name of HTTP/2 in ALPN (RFC 9113 section 3.2).
const ALPN_HTTP2: &[u8] = b"h2";

/// Serves a connection to its end.
pub async fn serve(client: Rc<Client>, stream: ClientStream) {
    // Boxed: what HTTP/2 and tunnels need of memory, connections of HTTP/1 would hold too.
    if stream.negotiated() == Some(ALPN_HTTP2) {
        return Box::pin(h2_connection::serve(client, stream, Bytes::new())).await;
    }
    match serve_http1(&client, stream).await {
        Outcome::Ended => {}
        Outcome::Http2((stream, read_ahead)) => Box::pin(h2_connection::serve(client, stream, read_ahead)).await,
        Outcome::Tunnel(tunnel, (stream, read_ahead)) => Box::pin(tunnel.relay(&client, stream, read_ahead)).await,
    }
}

/// Serves a connection of HTTP/1, until it is over or speaks something else.
async fn serve_http1(client: &Rc<Client>, stream: ClientStream) -> Outcome {
    let io = TokioIo::new(ClientIo::new(stream, Rc::clone(client)));
    let service = service_fn(|request: Request<_>| answer(Rc::clone(client), request.map(ClientBody::Http1)));
    let mut builder = http1::Builder::new();
    // No `pipeline_flush`: it lifts the limit on what waits for a slow client (hyper 1.12, `Buffered::can_buffer`).
    builder.half_close(false).max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = builder.serve_connection(io, service);
    let mut told_to_end = false;
    // An error here is the client's going away or `ClientIo` giving it up: there is nobody left to tell.
    let _ended = std::future::poll_fn(|context| {
        client.deadlines().attach(context);
        if client.thread().is_draining() && !std::mem::replace(&mut told_to_end, true) {
            Pin::new(&mut connection).graceful_shutdown();
        }
        Pin::new(&mut connection).poll(context)
    })
    .await;
    let parts = connection.into_parts();
    parts.io.into_inner().finish(&parts.read_buf)
}

/// From a request to its response.
async fn answer(client: Rc<Client>, request: Request<ClientBody>) -> Result<Response<ResponseBody>, Infallible> {
    let mut transaction = Transaction::begin(&client);
    let is_waited_for = tunnel::is_waited_for(&request);
    let is_grpc = grpc::is_call(&request);
    let mut response = process(&mut transaction, request).await;
    if is_waited_for {
        tunnel::answered(&client);
    }
    if is_grpc {
        response = grpc::translate(response);
    }
    client_io::interim_sent(&client).await;
    Ok(finish(transaction, response))
}

/// Finds out who asks and what for, and gets it.
async fn process(transaction: &mut Transaction, mut request: Request<ClientBody>) -> Response<ResponseBody> {
    let client = Rc::clone(&transaction.client);
    client.thread().counters.requests.fetch_add(1, Ordering::Relaxed);
    if is_refused(&client, &request) {
        return respond::refused(&client, client.refusal.get());
    }
    identity::establish(transaction, &mut request);
    if let Some(refusal) = access::admit(transaction) {
        return refusal;
    }
    if let Some(retry_after) = over_the_limit(transaction, &request) {
        return respond::limited(&client, retry_after);
    }
    if https::is_misdirected(&client, &request) {
        return https::misdirected(&client);
    }
    if let Some(refusal) = action::find(transaction, &mut request) {
        return refusal;
    }
    if let Some(refusal) = access::authorize(transaction, &mut request).await {
        return refusal;
    }
    match action::perform(transaction, &request).await {
        Ok(pool) => forward::forward(transaction, pool, request).await,
        Err(response) => response,
    }
}

/// Whether the client's request was refused: on HTTP/1 another one stands in its place.
fn is_refused<B>(client: &Client, request: &Request<B>) -> bool {
    let is_on_http2 = request.version() == Version::HTTP_2;
    is_on_http2 && client.refusal.get().is_some() || client_io::is_refusal(&client.thread().refusal_target, request)
}

/// Makes a response ready for the client. The transaction lasts as long as the response's body.
fn finish(transaction: Transaction, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    https::add_hsts(&transaction.client, &mut response);
    identity::sign(&transaction, &mut response);
    action::to_client(&transaction, response.headers_mut());
    response.map(|body| body.of(transaction))
}

/// The time after which the client may ask again, where it has asked too often.
fn over_the_limit<B>(transaction: &Transaction, request: &Request<B>) -> Option<Duration> {
    let client = &transaction.client;
    let limit = client.listener()?.rate_limit.as_ref()?;
    let sessions = &client.site().sessions;
    match sessions.limits.check(limit, transaction.ip, request.headers(), sessions.now()) {
        Verdict::Allowed => None,
        Verdict::Limited { retry_after } => {
            let counters = client.thread().counters.by_listener.get(client.connection.listener);
            counters.map(|counters| counters.rate_limited.fetch_add(1, Ordering::Relaxed));
            Some(retry_after)
        }
    }
}
