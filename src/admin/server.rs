//! The admin listener: metrics and the API over HTTP/1.1, on a thread of its own, so that whoever asks here takes nothing
//! from requests. One request a connection. Where all places are taken, whoever has held one the longest without asking
//! anything makes room.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::{access, metrics, questions, target};
use crate::discovery::Overview;
use crate::inquiry::{Answer, Fault, Order, PAGE_ENTRIES_MAX, Question, ServerOrder, SessionsQuestion};
use crate::proxy::reload::Current;
use crate::proxy::traffic::Traffic;
use crate::status::{NodeStatus, PoolStatus};

/// Connections at once. More wait in the kernel's queue while all of these are being answered.
const CONNECTIONS_MAX: usize = 32;
/// Time for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for all of a connection: the longest list takes a fraction of it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// hyper's buffer, and so the longest head.
const BUFFER_BYTES_MAX: usize = 32 * 1024;
/// The longest body, which is not looked at: no request needs one.
const BODY_BYTES_MAX: u64 = 4 * 1024;
/// Lists that are made at a time, for whoever asks: looking through a large table keeps a core busy, and the others are for
/// clients.
static LISTS: Semaphore = Semaphore::const_new(1);
/// Time for the guard to say how the node is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for servers that were added or removed to be in use.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which accepting is tried again when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the thread is started with.
pub struct Setup {
    /// Where it listens.
    pub socket: std::net::TcpListener,
    /// What is asked about.
    pub current: Arc<Current>,
    /// What changes need; `None` refuses them.
    pub token: Option<Vec<u8>>,
    /// Names under which it may be asked, besides addresses and `localhost`.
    pub names: Vec<String>,
    /// Asks the guard how the node is.
    pub status: mpsc::Sender<oneshot::Sender<Box<NodeStatus>>>,
    /// The pools, of which the worker knows.
    pub pools: Box<dyn Fn() -> Vec<PoolStatus> + Send + Sync>,
    /// What the worker's threads have counted.
    pub traffic: Box<dyn Fn() -> Traffic + Send + Sync>,
    /// Called when sessions were removed.
    pub cleared: Box<dyn Fn() + Send + Sync>,
    /// Has servers that were added or removed be applied.
    pub changes: Overview,
}

/// The running listener. It takes no more connections when this is dropped; the socket stays open.
#[derive(Debug)]
pub struct Accepting(oneshot::Sender<Infallible>);

impl Accepting {
    /// Has it take no more connections. Those that it has are answered.
    pub fn stop(self) {
        drop(self.0);
    }
}

/// Starts it.
///
/// # Errors
/// What epoll_create(2) or clone(2) says.
pub fn start(setup: Setup) -> io::Result<Accepting> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    setup.socket.set_nonblocking(true)?;
    let (accepting, stopped) = oneshot::channel();
    let run = move || runtime.block_on(serve(setup, stopped));
    std::thread::Builder::new().name("admin".to_owned()).spawn(run)?;
    Ok(Accepting(accepting))
}

async fn serve(setup: Setup, mut stopped: oneshot::Receiver<Infallible>) -> io::Result<()> {
    let listener = TcpListener::from_std(setup.socket.try_clone()?)?;
    let setup = Arc::new(setup);
    let mut connections = JoinSet::new();
    let mut places = Places::default();
    loop {
        while !places.make_room() {
            // Never without one: the places are all taken.
            drop(connections.join_next().await);
        }
        let accepted = tokio::select! {
            biased;
            _ = &mut stopped => {
                while connections.join_next().await.is_some() {}
                return Ok(());
            }
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let is_answered = Arc::new(AtomicBool::new(false));
        let conversation = converse(stream, Arc::clone(&setup), Arc::clone(&is_answered));
        // Whoever dawdles has no claim to more.
        let handle = connections.spawn(async { drop(timeout(CONNECTION_TIMEOUT, conversation).await) });
        places.0.push_back(Place { handle, is_answered });
    }
}

/// The connections, the oldest first.
#[derive(Default)]
struct Places(VecDeque<Place>);

struct Place {
    handle: AbortHandle,
    /// Whether what it asked is being answered just now.
    is_answered: Arc<AtomicBool>,
}

impl Places {
    /// Makes sure that there is room for one more. False when there is none, as all are being answered.
    fn make_room(&mut self) -> bool {
        self.0.retain(|place| !place.handle.is_finished());
        if self.0.len() < CONNECTIONS_MAX {
            return true;
        }
        let idle = self.0.iter().position(|place| !place.is_answered.load(Ordering::Relaxed));
        let Some(place) = idle.and_then(|idle| self.0.remove(idle)) else { return false };
        place.handle.abort();
        true
    }
}

async fn converse(stream: TcpStream, setup: Arc<Setup>, is_answered: Arc<AtomicBool>) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let (setup, is_answered) = (Arc::clone(&setup), Arc::clone(&is_answered));
        async move {
            is_answered.store(true, Ordering::Relaxed);
            let reply = setup.answer(request).await;
            is_answered.store(false, Ordering::Relaxed);
            Ok::<_, Infallible>(reply)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false).max_buf_size(BUFFER_BYTES_MAX);
    builder.serve_connection(TokioIo::new(stream), service).await
}

/// What is answered when it was not done.
#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
}

/// A page of sessions.
#[derive(Serialize)]
struct SessionsPage<T: Serialize> {
    sessions: T,
    /// For `after` of the next page; `None` on the last one.
    next: Option<String>,
}

#[derive(Serialize)]
struct Removed {
    removed: u64,
}

type Reply = Response<Full<Bytes>>;

/// The guard does not say how the node is.
struct Unknown;

impl Unknown {
    fn reply(self) -> Reply {
        let reason = "the guard does not say how the node is: try again, and see the log if it goes on";
        failure(StatusCode::SERVICE_UNAVAILABLE, reason)
    }
}

fn refused(refusal: access::Refusal) -> Reply {
    let mut reply = failure(refusal.status(), refusal.reason());
    if refusal == access::Refusal::WrongToken {
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    reply
}

impl Setup {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        if request.body().size_hint().upper().is_none_or(|length| length > BODY_BYTES_MAX) {
            return failure(StatusCode::PAYLOAD_TOO_LARGE, "no request needs so long a body");
        }
        if request.uri().authority().is_some() {
            // It would take the place of the Host header (RFC 9112 section 3.2.2), which is what is looked at.
            return failure(StatusCode::BAD_REQUEST, "the target is not a path");
        }
        if let Err(refusal) = access::check_reading(request.headers(), &self.names) {
            return refused(refusal);
        }
        let Some((path, query)) = target::parse(request.uri()) else {
            return failure(StatusCode::BAD_REQUEST, "the target is not percent-encoded UTF-8");
        };
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match (path.as_slice(), request.method()) {
            (["metrics"], &Method::GET | &Method::HEAD) => self.metrics().await,
            (["v1", "status"], &Method::GET | &Method::HEAD) => match self.node_status().await {
                Ok(status) => json(&status),
                Err(unknown) => unknown.reply(),
            },
            (["v1", "sessions"], &Method::GET | &Method::HEAD) => self.list(&query).await,
            (["v1", "sessions"], &Method::DELETE) => match self.admit(&request) {
                Ok(()) => self.clear(&query).await,
                Err(refusal) => refused(refusal),
            },
            (["v1", "servers", pool, server], &Method::POST | &Method::DELETE) => match self.admit(&request) {
                Ok(()) => self.change(pool, server, request.method() == Method::POST, &query).await,
                Err(refusal) => refused(refusal),
            },
            (["v1", "servers", pool, server, order], &Method::POST) => match self.admit(&request) {
                Ok(()) => self.set_admin(pool, server, order).await,
                Err(refusal) => refused(refusal),
            },
            (["metrics"] | ["v1", "status"], _) => not_allowed("GET, HEAD"),
            (["v1", "sessions"], _) => not_allowed("GET, HEAD, DELETE"),
            (["v1", "servers", _, _], _) => not_allowed("POST, DELETE"),
            (["v1", "servers", _, _, _], _) => not_allowed("POST"),
            _ => failure(
                StatusCode::NOT_FOUND,
                "there are /metrics, /v1/status, /v1/sessions, /v1/servers/POOL/SERVER and \
                 /v1/servers/POOL/SERVER/{drain,disable,enable}",
            ),
        }
    }

    /// Lets a request go on that changes something.
    fn admit(&self, request: &Request<Incoming>) -> Result<(), access::Refusal> {
        access::check(request.headers(), self.token.as_deref(), &self.names)
    }

    async fn node_status(&self) -> Result<Box<NodeStatus>, Unknown> {
        let (sender, status) = oneshot::channel();
        let is_asked = self.status.try_send(sender).is_ok();
        let answered = if is_asked { timeout(STATUS_TIMEOUT, status).await.ok().and_then(Result::ok) } else { None };
        let mut status = answered.ok_or(Unknown)?;
        status.pools = (self.pools)();
        Ok(status)
    }

    async fn metrics(&self) -> Reply {
        match self.node_status().await {
            Ok(status) => {
                let page = metrics::render(&status) + &metrics::render_traffic(&(self.traffic)());
                reply(StatusCode::OK, metrics::CONTENT_TYPE, page)
            }
            Err(unknown) => unknown.reply(),
        }
    }

    async fn list(&self, query: &target::Query) -> Reply {
        let asked = query.only(&["pool", "server", "limit", "after"]).and_then(|()| {
            let limit = query.get("limit").map_or(Ok(100), |limit| {
                let limit = limit.parse().ok().filter(|limit| (1..=PAGE_ENTRIES_MAX).contains(limit));
                limit.ok_or_else(|| format!("limit must be 1 to {PAGE_ENTRIES_MAX}; next leads on from there"))
            })?;
            let after = query.get("after").map(str::to_owned);
            Ok(SessionsQuestion::List { filter: query.filter(), after, limit })
        });
        match asked {
            Ok(question) => {
                // Kept until the list is made, also where nobody waits for it any more. Never closed.
                let permit = LISTS.acquire().await.ok();
                self.ask(Question::Sessions(question), permit).await
            }
            Err(reason) => failure(StatusCode::BAD_REQUEST, &reason),
        }
    }

    async fn clear(&self, query: &target::Query) -> Reply {
        let filter = query.filter();
        let is_all = query.get("all") == Some("true");
        if let Err(reason) = query.only(&["pool", "server", "key", "all"]) {
            return failure(StatusCode::BAD_REQUEST, &reason);
        }
        if filter.is_empty() != is_all {
            return failure(StatusCode::BAD_REQUEST, "say which sessions, with pool, server or key; or all=true alone");
        }
        let reply = self.ask(Question::Sessions(SessionsQuestion::Clear { filter }), None).await;
        if reply.status() == StatusCode::OK {
            (self.cleared)();
        }
        reply
    }

    async fn set_admin(&self, pool: &str, server: &str, order: &str) -> Reply {
        let order = match order {
            "drain" => Order::Drain,
            "disable" => Order::Disable,
            "enable" => Order::Enable,
            _ => return failure(StatusCode::NOT_FOUND, "a server can be told to drain, disable and enable"),
        };
        self.ask(Question::Server { pool: pool.to_owned(), server: server.to_owned(), order }, None).await
    }

    /// Adds or removes a server, and answers when that is so.
    async fn change(&self, pool: &str, server: &str, is_new: bool, query: &target::Query) -> Reply {
        let known: &[&str] = if is_new { &["address", "weight", "backup", "keep"] } else { &["keep"] };
        let flag = |name: &str| match query.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(format!("{name} must be true or false")),
        };
        let order = query.only(known).and_then(|()| {
            let keep = flag("keep")?;
            if !is_new {
                return Ok(ServerOrder::Remove { keep });
            }
            let address = query.get("address").ok_or("say where it listens: ?address=10.0.0.4:8080")?.to_owned();
            let weight = query.get("weight").map_or(Ok(1), |weight| weight.parse());
            let weight = weight.map_err(|_| "weight must be a whole number".to_owned())?;
            Ok(ServerOrder::Add { address, weight, backup: flag("backup")?, keep })
        });
        let change = match order {
            Ok(order) => order,
            Err(reason) => return failure(StatusCode::BAD_REQUEST, &reason),
        };
        let reply = self.ask(Question::Change { pool: pool.to_owned(), server: server.to_owned(), change }, None).await;
        if reply.status() != StatusCode::OK {
            return reply;
        }
        if self.changes.applied(self.changes.changed(), APPLY_TIMEOUT).await {
            return reply;
        }
        failure(StatusCode::SERVICE_UNAVAILABLE, "it is noted and will hold, but the worker takes long to apply it")
    }

    async fn ask(&self, question: Question, permit: Option<SemaphorePermit<'static>>) -> Reply {
        let site = Arc::clone(&self.current.load().site);
        let work = move || {
            let answer = questions::answer(&site, &question);
            drop(permit);
            answer
        };
        let answered = tokio::task::spawn_blocking(work).await;
        match answered {
            Ok(Answer::Entries { entries, next }) => json(&SessionsPage { sessions: entries, next }),
            Ok(Answer::Counts(counts)) => json(&counts),
            Ok(Answer::Cleared { count }) => json(&Removed { removed: count }),
            Ok(Answer::Server(done)) => json(&done),
            Ok(Answer::Changed(done)) => json(&done),
            Ok(Answer::Left) => json(&()),
            Ok(Answer::Refused(refusal)) => failure(status_of(refusal.fault), &refusal.reason),
            Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "the question was not answered"),
        }
    }
}

fn status_of(fault: Fault) -> StatusCode {
    match fault {
        Fault::Malformed => StatusCode::BAD_REQUEST,
        Fault::Unknown => StatusCode::NOT_FOUND,
        Fault::Unfit => StatusCode::CONFLICT,
    }
}

fn json(content: &impl Serialize) -> Reply {
    match serde_json::to_string(content) {
        Ok(text) => reply(StatusCode::OK, "application/json", text + "\n"),
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, "application/json", String::new()),
    }
}

fn failure(status: StatusCode, error: &str) -> Reply {
    let text = serde_json::to_string(&Failure { error }).unwrap_or_default() + "\n";
    reply(status, "application/json", text)
}

fn not_allowed(methods: &'static str) -> Reply {
    let mut reply = failure(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    reply
}

fn reply(status: StatusCode, content_type: &'static str, text: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(text)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}
