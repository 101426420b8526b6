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
pub mod compression;
mod date;
mod drain;
pub mod error_pages;
mod forward;
pub mod forwarded;
mod grpc;
mod h2_body;
mod h2_connection;
mod h2_frames;
mod h2_io;
mod h2_part;
mod h2_request;
mod h2_stream;
mod h2_turns;
mod headers;
mod hedge;
pub mod https;
pub mod identity;
pub mod ids;
pub mod interim;
pub mod pages;
mod protection;
mod respond;
pub mod route;
pub mod strict;
pub mod trace;
pub mod transaction;
pub mod tunnel;
pub mod vouched;

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
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
use crate::proxy::timers::Party;

/// hyper's buffers for one client, unless its head may be larger.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Fields of a head that hyper takes without being told; more cost it an allocation for each request.
const HYPER_HEADERS_MAX: usize = 100;

/// Silence after which a connection rests. A client that asks again sooner has hyper waiting for it; for one that asks
/// later, what it costs to set hyper up again, about a microsecond, does not count.
const REST_AFTER: Duration = Duration::from_millis(50);

/// What `Connection` says of the last response on a connection.
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The name of HTTP/2 in ALPN (RFC 9113 section 3.2).
const ALPN_HTTP2: &[u8] = b"h2";

/// Serves a connection to its end. What is not for every connection is boxed: it would be memory of idle ones too.
pub async fn serve(mut client: Rc<Client>, stream: ClientStream) {
    // Boxed: what HTTP/2 and tunnels need of memory, connections of HTTP/1 would hold too.
    if stream.negotiated() == Some(ALPN_HTTP2) {
        return Box::pin(h2_connection::serve(client, stream, Bytes::new())).await;
    }
    match serve_http1(&mut client, stream).await {
        Outcome::Ended => {}
        Outcome::Http2((stream, read_ahead)) => Box::pin(h2_connection::serve(client, stream, read_ahead)).await,
        Outcome::Tunnel(tunnel, (stream, read_ahead)) => {
            // It cannot be asked to leave.
            client.connection.visit.end();
            Box::pin(tunnel.relay(&client, stream, read_ahead)).await;
        }
    }
}

/// Serves a connection of HTTP/1, until it is over or speaks something else.
///
/// While the client says nothing, hyper is not there: its buffers and the state of the last request would be most of the
/// memory that an idle connection takes.
async fn serve_http1(client: &mut Rc<Client>, stream: ClientStream) -> Outcome {
    let mut io = ClientIo::new(stream, Rc::clone(client));
    if io.is_tls() {
        // The handshake may have brought a request along.
        go_over(client, &mut io);
        io = match exchange(client, io).await {
            Spell::Quiet(io) => io,
            Spell::Over(outcome) => return outcome,
        };
    }
    loop {
        io.rest().await;
        go_over(client, &mut io);
        io = match exchange(client, io).await {
            Spell::Quiet(io) => io,
            Spell::Over(outcome) => return outcome,
        };
    }
}

/// Has a connection that stands between two requests go on under the configuration in use.
fn go_over(client: &mut Rc<Client>, io: &mut ClientIo) {
    if client.thread().is_superseded() {
        *client = client.latest();
        io.go_over(Rc::clone(client));
    }
}

/// What a connection of HTTP/1 comes to.
enum Spell {
    /// The client has said nothing for a while.
    Quiet(ClientIo),
    /// HTTP/1 is over.
    Over(Outcome),
}

/// Answers requests for as long as they come one soon after the other.
async fn exchange(client: &Rc<Client>, io: ClientIo) -> Spell {
    let service = service_fn(|request: Request<_>| answer(Rc::clone(client), Box::new(request.map(ClientBody::Http1))));
    // In a box of its own, which is gone while the connection rests.
    let mut connection = Box::new(builder(client).serve_connection(TokioIo::new(io), service));
    let mut told_to_end = false;
    // An error here is the client's going away or `ClientIo` giving it up: there is nobody left to tell.
    let _ended = std::future::poll_fn(|context| {
        client.deadlines().attach(context);
        if client.connection.is_ending() && !std::mem::replace(&mut told_to_end, true) {
            Pin::new(&mut *connection).graceful_shutdown();
        }
        // Before hyper reads the next request, which is the next configuration's.
        if !has_to_go_over(client) {
            let polled = Pin::new(&mut *connection).poll(context);
            if polled.is_ready() || !(is_time_to_rest(client) || has_to_go_over(client)) {
                return polled;
            }
        }
        // hyper has nothing to do and so ends at once; `ClientIo` stays open.
        client.is_resting.set(true);
        Pin::new(&mut *connection).graceful_shutdown();
        Pin::new(&mut *connection).poll(context)
    })
    .await;
    client.deadlines().clear(Party::Rest);
    let parts = connection.into_parts();
    let io = parts.io.into_inner();
    if client.is_resting.replace(false) { Spell::Quiet(io) } else { Spell::Over(io.finish(&parts.read_buf)) }
}

/// How hyper is told to speak HTTP/1 with a client.
fn builder(client: &Client) -> http1::Builder {
    let mut builder = http1::Builder::new();
    let limits = client_io::limits(client);
    // No `pipeline_flush`: it lifts the limit on what waits for a slow client (hyper 1.12, `Buffered::can_buffer`).
    // No head that `strict` lets through is larger.
    builder.half_close(false).max_buf_size(BUFFER_BYTES_MAX.max(limits.head_bytes_max * 2));
    if limits.headers_max > HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
    builder
}

/// Whether nothing is under way, nothing has been for a while, and all that was written is out.
fn is_time_to_rest(client: &Client) -> bool {
    let deadlines = client.deadlines();
    if !is_quiet(client) {
        deadlines.clear(Party::Rest);
        return false;
    }
    deadlines.set_once(Party::Rest, REST_AFTER);
    deadlines.is_late(Party::Rest) && !client.connection.is_ending()
}

/// Whether nothing is under way, and all that was written is out.
fn is_quiet(client: &Client) -> bool {
    let is_quiet = client.is_quiet.get() && client.in_flight.get() == 0 && client.refusal.get().is_none();
    is_quiet && !client.deadlines().is_set(Party::ClientWrite)
}

/// Whether another configuration is in use, and the connection stands between two requests.
fn has_to_go_over(client: &Client) -> bool {
    client.thread().is_superseded() && is_quiet(client) && !client.connection.is_ending()
}

/// From a request to its response. The request is boxed, as each of the steps that it is handed on to would have room for
/// it, and whoever polls this moves it about.
async fn answer(client: Rc<Client>, request: Box<Request<ClientBody>>) -> Result<Response<ResponseBody>, Infallible> {
    let mut transaction = Transaction::begin(&client);
    let is_waited_for = tunnel::is_waited_for(&request);
    let is_on_http2 = request.version() == Version::HTTP_2;
    let mut response = process(&mut transaction, request).await;
    if is_waited_for {
        tunnel::answered(&client);
    }
    match (transaction.is_grpc, is_on_http2) {
        (true, true) => response = grpc::translate(response),
        (true, false) => grpc::announce(&mut response),
        (false, _) => {}
    }
    client_io::interim_sent(&client).await;
    let mut response = finish(transaction, response);
    if client.connection.is_leaving() && !is_on_http2 && !response.status().is_informational() {
        // Another worker or node is there for the next request, on a connection of its own (RFC 9112 section 9.6).
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    Ok(response)
}

/// Finds out who asks and what for, and gets it.
async fn process(transaction: &mut Transaction, mut request: Box<Request<ClientBody>>) -> Response<ResponseBody> {
    let client = Rc::clone(&transaction.client);
    client.thread().counters.totals.requests.fetch_add(1, Ordering::Relaxed);
    if is_refused(&client, &request) {
        // On HTTP/1 another one stands in its place.
        transaction.note(Some(&*request).filter(|request| request.version() == Version::HTTP_2));
        return respond::refused(&client, client.refusal.get());
    }
    transaction.note(Some(&*request));
    transaction.accepted = compression::accepted(transaction, &request);
    identity::establish(transaction, &mut *request);
    if let Some(refusal) = access::admit(transaction).or_else(|| protection::admit(transaction, &request)) {
        return refusal;
    }
    if https::is_misdirected(&client, &request) {
        return https::misdirected(&client);
    }
    if let Some(refusal) = action::find(transaction, &mut request) {
        return refusal;
    }
    if let Some(refusal) = protection::admit_to_route(transaction, &request) {
        return refusal;
    }
    if let Some(refusal) = access::authorize(transaction, &mut *request).await {
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

/// Makes a response ready for the client. The transaction lasts as long as the response's body, or the tunnel that the
/// response opens.
fn finish(mut transaction: Box<Transaction>, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    transaction.answered(&response);
    https::add_hsts(&transaction.client, &mut response);
    identity::sign(&transaction, &mut response);
    let mut response = error_pages::apply(&transaction, response);
    protection::tell(&transaction, response.headers_mut());
    action::to_client(&transaction, response.headers_mut());
    let response = compression::apply(&transaction, response);
    let client = Rc::clone(&transaction.client);
    match &mut *client.tunnel.borrow_mut() {
        None => response.map(|body| body.of(transaction)),
        Some(tunnel) => {
            tunnel.carry(transaction);
            response
        }
    }
}
