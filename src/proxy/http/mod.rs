//! HTTP/1.1: the life of a request.
//!
//! `client_io` lets only well-formed requests in, hyper parses them. [`answer`] below is the life of a request: `process`
//! finds out who asks and what for and has `forward` bring it to a server, `finish` makes the response ready for the
//! client. One task does all of it for one [`client::Client`]; what is known of the request is its
//! [`transaction::Transaction`].

pub mod body;
pub mod client;
mod client_io;
pub mod compression;
pub mod error_pages;
mod forward;
mod headers;
mod respond;
mod route;
pub mod strict;
pub mod trace;
pub mod transaction;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use self::body::ResponseBody;
use self::client::Client;
use self::client_io::ClientIo;
pub use self::client_io::ClientStream;
use self::transaction::Transaction;
use crate::limit::Verdict;

/// hyper's buffers for one client: no head that `strict` lets through is larger.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Serves a connection to its end.
pub async fn serve(client: Rc<Client>, stream: ClientStream) {
    let io = TokioIo::new(ClientIo::new(stream, Rc::clone(&client)));
    let service = service_fn(|request| answer(Rc::clone(&client), request));
    let mut builder = http1::Builder::new();
    // No `pipeline_flush`: it lifts the limit on what waits for a slow client (hyper 1.12, `Buffered::can_buffer`).
    builder.half_close(false).max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let mut told_to_end = false;
    // An error here is the client's going away or `ClientIo` giving it up: there is nobody left to tell.
    let _ended = std::future::poll_fn(|context| {
        client.deadlines().attach(context);
        if client.thread().is_draining() && !std::mem::replace(&mut told_to_end, true) {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await;
}

/// From a request to its response.
async fn answer(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
    let mut transaction = Transaction::begin(&client);
    let response = process(&mut transaction, request).await;
    Ok(finish(transaction, response))
}

/// Finds out who asks and what for, and gets it.
async fn process(transaction: &mut Transaction, request: Request<Incoming>) -> Response<ResponseBody> {
    let client = Rc::clone(&transaction.client);
    client.thread().counters.requests.fetch_add(1, Ordering::Relaxed);
    if client_io::is_refusal(&client.thread().refusal_target, &request) {
        transaction.note::<Incoming>(None);
        return respond::refused(&client, client.refusal.get());
    }
    transaction.note(Some(&request));
    transaction.accepted = compression::accepted(transaction, &request);
    if let Some(retry_after) = over_the_limit(transaction, &request) {
        return respond::limited(&client, retry_after);
    }
    let pool = client.listener().and_then(|listener| route::pool(&listener.config, &request));
    let Some(pool) = pool else {
        return respond::own(&client, StatusCode::NOT_FOUND, "no route matches this request", None);
    };
    forward::forward(transaction, pool, request).await
}

/// Makes a response ready for the client. The transaction lasts as long as the response's body.
fn finish(mut transaction: Transaction, response: Response<ResponseBody>) -> Response<ResponseBody> {
    transaction.answered(&response);
    let response = error_pages::apply(&transaction, response);
    let response = compression::apply(&transaction, response);
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
