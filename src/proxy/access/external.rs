//! A server that is asked whether a request may come in, with a GET and a few fields of the request. Its answer is read
//! whole, within one deadline and up to a limit, before anything else happens.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tracing::{info, warn};

use crate::config::{self, OnAuthorizeError};
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::transaction::Transaction;
use crate::proxy::server_io::ServerStream;
use crate::proxy::socket::Socket;
use crate::proxy::thread::Thread;
use crate::proxy::timers::Deadlines;
use crate::proxy::upstream::http1::{Http1, IdleConnections};

/// Bytes of an answer's body; a longer one is left out of what the client gets.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Connections that a thread keeps to one server, and for how long.
const IDLE_MAX: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// A rule that has another server asked.
pub struct External {
    config: config::Authorize,
    /// Tells it from others where threads keep their connections.
    number: usize,
    path: Uri,
    host: HeaderValue,
    request_headers: Vec<HeaderName>,
    response_headers: Vec<HeaderName>,
    /// Requests that wait for it, of all threads.
    waiting: AtomicUsize,
    /// Whether it did not answer when it was last asked.
    is_failing: AtomicBool,
}

/// What an answer comes to.
pub enum Word {
    /// The request comes in, with these fields instead of those that it has of the same names.
    Allowed(HeaderMap),
    /// It does not, and this is its answer.
    Refused(Response<Bytes>),
    /// Nobody says; why.
    Silent(&'static str),
}

/// The connections of a thread to servers that are asked.
#[derive(Default)]
pub struct KeptConnections(RefCell<HashMap<usize, Rc<IdleConnections>>>);

impl KeptConnections {
    fn to(&self, number: usize) -> Rc<IdleConnections> {
        let new = || Rc::new(IdleConnections::new(IDLE_MAX, IDLE_TIMEOUT));
        Rc::clone(self.0.borrow_mut().entry(number).or_insert_with(new))
    }

    /// Closes what has been idle for too long and what the server has closed.
    pub fn expire(&self, now: Instant) {
        self.0.borrow().values().for_each(|idle| idle.expire(now));
    }
}

/// Somebody who waits, counted as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One question: until when it has to be answered.
struct Question<'a> {
    deadlines: &'a Deadlines,
    until: Instant,
}

impl Question<'_> {
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl External {
    /// As configured.
    pub fn new(config: &config::Authorize) -> Self {
        static NUMBERS: AtomicUsize = AtomicUsize::new(0);
        let path = PathAndQuery::try_from(config.path.as_str());
        Self {
            config: config.clone(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            // Both were checked, so neither can fail.
            path: path.map_or_else(|_| Uri::from_static("/"), Uri::from),
            host: HeaderValue::try_from(config.host.as_str()).unwrap_or(HeaderValue::from_static("authorize")),
            request_headers: header_names(&config.request_headers),
            response_headers: header_names(&config.response_headers),
            waiting: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
        }
    }

    /// What becomes of a request when nobody says.
    pub fn on_error(&self) -> OnAuthorizeError {
        self.config.on_error
    }

    /// Where it is, in words.
    pub fn host(&self) -> &str {
        &self.config.host
    }

    /// The fields that only it may set.
    pub fn response_headers(&self) -> &[HeaderName] {
        &self.response_headers
    }

    /// Asks whether a request may come in.
    pub async fn ask<B>(&self, transaction: &Transaction, request: &Request<B>) -> Word {
        let limit = self.config.requests_max as usize;
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= limit {
            drop(Waiting(&self.waiting));
            return Word::Silent("connection_limit_reached");
        }
        let _waiting = Waiting(&self.waiting);
        let thread = transaction.client.thread();
        let fields = self.fields(transaction, request);
        let question =
            Question { deadlines: transaction.client.deadlines(), until: Instant::now() + self.config.timeout };
        let word = match self.answer(thread, &question, fields).await {
            Ok((parts, body)) => self.judge(parts, body),
            Err(reason) => Word::Silent(reason),
        };
        self.note(&word);
        word
    }

    /// Says when it begins and when it ceases not to answer.
    fn note(&self, word: &Word) {
        let reason = match word {
            Word::Silent(reason) => Some(*reason),
            Word::Allowed(_) | Word::Refused(_) => None,
        };
        if self.is_failing.load(Ordering::Relaxed) == reason.is_some() {
            return;
        }
        self.is_failing.store(reason.is_some(), Ordering::Relaxed);
        match reason {
            Some(reason) => warn!(server = self.config.host, reason, "the server that authorizes does not answer"),
            None => info!(server = self.config.host, "the server that authorizes answers again"),
        }
    }

    fn fields<B>(&self, transaction: &Transaction, request: &Request<B>) -> HeaderMap {
        let came = request.headers();
        let mut fields = HeaderMap::with_capacity(8);
        fields.insert(header::HOST, self.host.clone());
        for name in &self.request_headers {
            for value in came.get_all(name) {
                fields.append(name.clone(), value.clone());
            }
        }
        let connection = &transaction.client.connection;
        let is_told = transaction.client.listener().is_some_and(|listener| listener.identity.tells_proto());
        let told_proto = came.get(X_FORWARDED_PROTO).filter(|_| is_told);
        let text = |text: &str| HeaderValue::try_from(text).ok();
        let proto = if connection.is_tls { "https" } else { "http" };
        let host = request.uri().authority().and_then(|authority| text(authority.as_str()));
        let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let told = [
            (X_FORWARDED_FOR, text(&transaction.ip.to_string())),
            (X_FORWARDED_PROTO, told_proto.cloned().or_else(|| text(proto))),
            (X_FORWARDED_HOST, host.or_else(|| came.get(header::HOST).cloned())),
            (X_FORWARDED_METHOD, text(request.method().as_str())),
            (X_FORWARDED_URI, text(target)),
        ];
        for (name, value) in told {
            if let Some(value) = value {
                fields.insert(name, value);
            }
        }
        fields
    }

    /// Its answer, over a connection that is idle or else a new one. One that had been idle may just have been closed: then
    /// it is asked once more.
    async fn answer(
        &self,
        thread: &Thread,
        question: &Question<'_>,
        fields: HeaderMap,
    ) -> Result<(http::response::Parts, Option<Bytes>), &'static str> {
        let idle = thread.authorizers.to(self.number);
        loop {
            let mut connection = match idle.take() {
                Some(connection) => connection,
                None => self.connect(question).await?,
            };
            let mut request = Request::new(RequestBody::Empty);
            *request.uri_mut() = self.path.clone();
            request.headers_mut().clone_from(&fields);
            let was_reused = connection.reused;
            match connection.exchange(Box::new(request), question.deadlines, question.left()).await {
                Some(Ok(response)) => {
                    let (parts, incoming) = response.into_parts();
                    let body = read(&mut connection, question, incoming).await?;
                    if body.is_some() {
                        idle.put(connection, thread.timers.coarse_now());
                    }
                    return Ok((parts, body));
                }
                Some(Err(_)) if was_reused => {}
                Some(Err(_)) => return Err("connection_terminated"),
                None => return Err("http_response_timeout"),
            }
        }
    }

    async fn connect(&self, question: &Question<'_>) -> Result<Box<Http1>, &'static str> {
        let connect = TcpStream::connect(self.config.address);
        let connected = question.deadlines.within(question.left(), connect).await;
        let stream = connected.ok_or("connection_timeout")?.map_err(|_| "connection_refused")?;
        // Fails only on a socket that is closed already.
        let _closed = stream.set_nodelay(true);
        Http1::begin(ServerStream::Plain(Socket::new(stream))).await.map_err(|_| "connection_terminated")
    }

    fn judge(&self, parts: http::response::Parts, body: Option<Bytes>) -> Word {
        let is_redirection = parts.status.is_redirection() && parts.headers.contains_key(header::LOCATION);
        if parts.status.is_success() {
            let mut copied = HeaderMap::new();
            for name in &self.response_headers {
                for value in parts.headers.get_all(name) {
                    copied.append(name.clone(), value.clone());
                }
            }
            return Word::Allowed(copied);
        }
        if !is_redirection && !matches!(parts.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Word::Silent("http_response_incomplete");
        }
        let mut response = Response::from_parts(parts, body.unwrap_or_default());
        // The body is framed anew.
        for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            response.headers_mut().remove(name);
        }
        Word::Refused(response)
    }
}

/// Names that were checked.
fn header_names(names: &[String]) -> Vec<HeaderName> {
    names.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect()
}

/// The body of an answer; `None` for one over the limit, whose connection is of no more use.
async fn read(
    connection: &mut Http1,
    question: &Question<'_>,
    mut incoming: Incoming,
) -> Result<Option<Bytes>, &'static str> {
    let mut body = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|context| connection.poll_body(context, &mut incoming));
        match question.deadlines.within(question.left(), frame).await {
            None => return Err("http_response_timeout"),
            Some(None) => return Ok(Some(body.freeze())),
            Some(Some(Err(_))) => return Err("connection_terminated"),
            Some(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                if body.len() + data.len() > BODY_BYTES_MAX {
                    return Ok(None);
                }
                body.extend_from_slice(&data);
            }
        }
    }
}
