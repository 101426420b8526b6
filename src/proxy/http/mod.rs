//! HTTP/1.1 and HTTP/2: the life of a request.
//!
//! On HTTP/1, `client_io` lets only well-formed requests in and hyper parses them; on HTTP/2, h2 parses them and
//! `h2_request` judges them. [`answer`] below is the life of a request: `process`
//! finds out who asks and what for and has `forward` bring it to a server, `finish` makes the response ready for the
//! client. One task does all of it for one [`client::Client`]; what is known of the request is its
//! [`transaction::Transaction`].

pub mod body;
pub mod client;
mod client_body;
mod client_io;
mod date;
mod forward;
pub mod forwarded;
mod h2_body;
mod h2_connection;
mod h2_frames;
mod h2_io;
mod h2_request;
mod h2_stream;
mod headers;
mod protection;
mod respond;
mod route;
pub mod strict;
pub mod transaction;

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use self::body::ResponseBody;
use self::client::Client;
use self::client_body::ClientBody;
use self::client_io::ClientIo;
pub use self::client_io::ClientStream;
use self::route::Match;
use self::transaction::Transaction;

/// hyper's buffers for one client, unless its head may be larger.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Fields of a head that hyper takes without being told; more cost it an allocation for each request.
const HYPER_HEADERS_MAX: usize = 100;
/// The name of HTTP/2 in ALPN (RFC 9113 section 3.2).
const ALPN_HTTP2: &[u8] = b"h2";

/// Serves a connection to its end.
pub async fn serve(client: Rc<Client>, stream: ClientStream) {
    if stream.negotiated() == Some(ALPN_HTTP2) {
        return h2_connection::serve(client, stream, Bytes::new()).await;
    }
    if let Some((stream, read_ahead)) = serve_http1(&client, stream).await {
        h2_connection::serve(client, stream, read_ahead).await;
    }
}

/// Serves a connection of HTTP/1 to its end; one that begins with the preface of HTTP/2 comes back.
async fn serve_http1(client: &Rc<Client>, stream: ClientStream) -> Option<(ClientStream, Bytes)> {
    let io = TokioIo::new(ClientIo::new(stream, Rc::clone(client)));
    let service = service_fn(|request: Request<_>| answer(Rc::clone(client), request.map(ClientBody::Http1)));
    let mut builder = http1::Builder::new();
    // No `pipeline_flush`: it lifts the limit on what waits for a slow client (hyper 1.12, `Buffered::can_buffer`).
    let limits = client_io::limits(client);
    // No head that `strict` lets through is larger.
    builder.half_close(false).max_buf_size(BUFFER_BYTES_MAX.max(limits.head_bytes_max * 2));
    if limits.headers_max > HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
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
    connection.into_parts().io.into_inner().finish()
}

/// From a request to its response.
async fn answer(client: Rc<Client>, request: Request<ClientBody>) -> Result<Response<ResponseBody>, Infallible> {
    let mut transaction = Transaction::begin(&client);
    let response = process(&mut transaction, request).await;
    Ok(finish(transaction, response))
}

/// Finds out who asks and what for, and gets it.
async fn process(transaction: &mut Transaction, request: Request<ClientBody>) -> Response<ResponseBody> {
    let client = Rc::clone(&transaction.client);
    client.thread().counters.requests.fetch_add(1, Ordering::Relaxed);
    if is_refused(&client, &request) {
        return respond::refused(&client, client.refusal.get());
    }
    if let Some(refusal) = protection::admit(transaction, &request) {
        return refusal;
    }
    let found = client.listener().map(|listener| route::find(&listener.config, &request));
    let Some(Match { route, pool: Some(pool) }) = found else {
        return respond::own(&client, StatusCode::NOT_FOUND, "no route matches this request", None);
    };
    if let Some(refusal) = protection::admit_to_route(transaction, route, &request) {
        return refusal;
    }
    forward::forward(transaction, pool, request).await
}

/// Whether the client's request was refused: on HTTP/1 another one stands in its place.
fn is_refused<B>(client: &Client, request: &Request<B>) -> bool {
    let is_on_http2 = request.version() == Version::HTTP_2;
    is_on_http2 && client.refusal.get().is_some() || client_io::is_refusal(&client.thread().refusal_target, request)
}

/// Makes a response ready for the client. The transaction lasts as long as the response's body.
fn finish(transaction: Transaction, response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.map(|body| body.of(transaction))
}
