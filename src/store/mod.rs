//! Sessions in a Redis or Valkey, for more than two load balancers. Called by `proxy` where a session is not in the worker's
//! own table, which stands in front of the store as a near cache.
//!
//! A thread of its own speaks with the store. Requests ask it through a bounded queue, and wait for at most the configured
//! time, once: after the first request that waits in vain the store counts as away, and nobody waits for it any more until
//! it has answered again. While it is away, new sessions are placed by a hash that all load balancers share
//! ([`crate::balance::rendezvous`]), and what was placed so is written when it is back, unless another one was faster.
//!
//! What is found in the table is not asked for again. It is compared with the store in the background, at most every
//! [`RECHECK_INTERVAL`], which also tells the store that the session is in use.
//!
//! `entry` is what stands in the store, `connection` the commands, `errand` what one request comes to, `thread` the loop,
//! `owed` what is still to be written, `recheck` when to compare.

mod connection;
mod entry;
mod errand;
mod owed;
mod recheck;
mod thread;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use self::entry::{Directory, Placed};
use self::errand::{Background, Question, Request};
use self::recheck::Rechecks;
use crate::config::{self, StoreUrl};
use crate::link::StoreSecrets;
use crate::session::ServerRef;
use crate::session::key::Key;
use crate::status::StoreStatus;

pub use self::recheck::RECHECK_INTERVAL;

/// Requests that wait to be asked. More are answered as if the store were away.
const REQUESTS_MAX: usize = 4096;
/// What waits to be written or compared. More is dropped, and counted.
const BACKGROUND_MAX: usize = 16_384;
/// The longest that connecting takes, with TLS and looking the name up.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// The least that the store gets for what nobody waits for.
const BACKGROUND_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Where the store is and how it is used.
#[derive(Clone)]
pub struct Settings {
    /// One server, or some of a cluster.
    pub urls: Vec<StoreUrl>,
    /// Whether it is a cluster.
    pub is_cluster: bool,
    /// The user of its ACL.
    pub username: Option<String>,
    /// A secret.
    pub password: Option<String>,
    /// The authorities that its certificate is checked against.
    pub ca_pem: Option<Vec<u8>>,
    /// The longest that a request waits.
    pub timeout: Duration,
    /// What keys begin with.
    pub prefix: String,
}

impl Settings {
    /// From the configuration and what the guard read for it.
    pub fn new(config: &config::Store, secrets: Option<&StoreSecrets>) -> Self {
        Self {
            urls: config.urls.clone(),
            is_cluster: config.is_cluster,
            username: config.username.clone(),
            password: secrets.and_then(|secrets| secrets.password.clone()),
            ca_pem: secrets.and_then(|secrets| secrets.ca_pem.clone()).map(String::into_bytes),
            timeout: config.timeout,
            prefix: config.prefix.clone(),
        }
    }

    fn background_timeout(&self) -> Duration {
        self.timeout.max(BACKGROUND_TIMEOUT_MIN)
    }

    fn url(&self) -> String {
        self.urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// A pool as the store has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePool {
    /// Its name.
    pub name: String,
    /// Its servers' names, in the order of their indexes.
    pub servers: Vec<String>,
    /// How long a session lives that is not used.
    pub idle: Duration,
    /// How long it lives however much it is used; `None` for as long as that.
    pub absolute: Option<Duration>,
}

/// What a comparison with the store found that the table does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Another load balancer moved the session to this server. By name, as numbers may be others by now.
    Moved {
        /// The pool.
        pool: String,
        /// The server.
        server: String,
    },
    /// It was removed, or its time is over.
    Gone,
}

/// Takes what a comparison found. Runs on the store's thread and must not wait.
pub type Apply = Box<dyn Fn(&Key, Seen) + Send + Sync>;

/// What the store said about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is on this server.
    At(ServerRef),
    /// It has no server, or one that this load balancer does not have.
    Nothing,
    /// The store did not say.
    Away,
}

/// A handle on the store, which knows pools and servers by the numbers of one configuration. Dropping the last one ends the
/// thread, after what is still owed to a store that answers is written.
pub struct Store {
    owner: Arc<Owner>,
    directory: Arc<Directory>,
}

/// What all handles have in common.
struct Owner {
    shared: Arc<Shared>,
    rechecks: Rechecks,
    /// `None` only while it is dropped.
    senders: Option<Senders>,
    thread: Option<JoinHandle<()>>,
}

struct Senders {
    requests: mpsc::Sender<Request>,
    background: mpsc::Sender<Background>,
}

/// What the thread and its callers share.
struct Shared {
    settings: Settings,
    apply: Apply,
    is_connected: AtomicBool,
    state: Mutex<State>,
    counters: Counters,
    origin: Instant,
}

struct State {
    since: Instant,
    last_error: Option<String>,
}

#[derive(Default)]
struct Counters {
    lookups: AtomicU64,
    hits: AtomicU64,
    timeouts: AtomicU64,
    queue_full: AtomicU64,
    hashed: AtomicU64,
    rechecks: AtomicU64,
    owed: AtomicU64,
    unwritten: AtomicU64,
}

impl Store {
    /// Starts the thread, which connects by itself. The store counts as away until it has. `pools` are in the order of
    /// their indexes.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(settings: Settings, pools: Vec<StorePool>, apply: Apply) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            settings,
            apply,
            is_connected: AtomicBool::new(false),
            state: Mutex::new(State { since: Instant::now(), last_error: None }),
            counters: Counters::default(),
            origin: Instant::now(),
        });
        let (request_sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (background_sender, background) = mpsc::channel(BACKGROUND_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Thread::new(Arc::clone(&shared), requests, background);
        let run = move || {
            runtime.block_on(thread.run());
            // A name that is being looked up, which may take long, is not waited for.
            runtime.shutdown_background();
        };
        let owner = Owner {
            thread: Some(std::thread::Builder::new().name("store".to_owned()).spawn(run)?),
            senders: Some(Senders { requests: request_sender, background: background_sender }),
            rechecks: Rechecks::new(),
            shared,
        };
        Ok(Self { owner: Arc::new(owner), directory: Arc::new(Directory { pools }) })
    }

    /// The same store, for a configuration with other pools or servers. Entries go by name, and so they stay.
    pub fn with_pools(&self, pools: Vec<StorePool>) -> Self {
        Self { owner: Arc::clone(&self.owner), directory: Arc::new(Directory { pools }) }
    }

    /// Where a session of a pool is. Waits for at most the configured time, and not at all while the store is away.
    /// Cancel safe.
    pub async fn lookup(&self, key: &Key, pool: u16) -> Found {
        self.ask(key, pool, Question::Lookup).await
    }

    /// Takes a session for a server unless it has one, in one step for all load balancers: the server that it is on then,
    /// or `None` when the store did not say. Waits as [`Store::lookup`]; when it is cancelled, it may or may not have been
    /// done.
    pub async fn claim(&self, key: &Key, server: ServerRef) -> Option<ServerRef> {
        match self.ask(key, server.pool, Question::Claim(server)).await {
            Found::At(stands) => Some(stands),
            Found::Nothing | Found::Away => None,
        }
    }

    /// What a session that is not in the table asks: the server that it is on already, or else `proposed` from now on.
    /// While the store does not say, it is `by_hash`, which every load balancer works out alike; that is written when the
    /// store is back, unless there is an entry by then. `None` only when `by_hash` is.
    pub async fn find_or_claim(
        &self,
        key: &Key,
        proposed: ServerRef,
        by_hash: impl FnOnce() -> Option<ServerRef>,
    ) -> Option<ServerRef> {
        if let Some(stands) = self.claim(key, proposed).await {
            return Some(stands);
        }
        let hashed = by_hash()?;
        self.owner.shared.counters.hashed.fetch_add(1, Ordering::Relaxed);
        self.claim_later(key, hashed);
        Some(hashed)
    }

    /// As [`Store::claim`], in the background; kept while the store is away.
    pub fn claim_later(&self, key: &Key, server: ServerRef) {
        self.tell(Background::Claim { key: *key, server: self.placed(server) });
    }

    /// Moves a session to a server, and waits until that is so, as [`Store::lookup`] does. When the store does not say so,
    /// it is done in the background.
    pub async fn put(&self, key: &Key, server: ServerRef) {
        if self.ask(key, server.pool, Question::Put(server)).await == Found::Away {
            self.put_later(key, server);
        }
    }

    /// As [`Store::put`], in the background: a server failed. While the store is away, it is kept as a claim, since another
    /// load balancer may know better by then.
    pub fn put_later(&self, key: &Key, server: ServerRef) {
        self.tell(Background::Put { key: *key, server: self.placed(server) });
    }

    /// Removes a session, in the background; kept while the store is away.
    pub fn remove(&self, key: &Key) {
        self.tell(Background::Remove { key: *key });
    }

    /// A session was found in the table. Compares it with the store in the background when that was not done lately.
    /// Cheap, and waits for nothing: it is called on every request.
    pub fn used(&self, key: &Key, server: ServerRef) {
        if !self.is_connected() {
            return;
        }
        let idle = self.directory.pools.get(usize::from(server.pool)).map(|pool| pool.idle);
        let interval = RECHECK_INTERVAL.min(idle.unwrap_or(RECHECK_INTERVAL) / 3);
        if self.owner.rechecks.is_due(key, interval, self.owner.shared.origin.elapsed()) {
            self.tell(Background::Recheck { key: *key, server: self.placed(server) });
        }
    }

    /// Whether the store answers.
    pub fn is_connected(&self) -> bool {
        self.owner.shared.is_connected.load(Ordering::Relaxed)
    }

    /// How it is.
    pub fn status(&self) -> StoreStatus {
        self.owner.shared.status()
    }

    /// What an operator is told while the store is away.
    pub fn warning(&self) -> Option<String> {
        let status = self.status();
        let error = status.last_error.as_deref().unwrap_or("not connected yet");
        let is_away = !self.is_connected();
        is_away.then(|| format!("the session store {} is away ({error}): sessions are placed by hashing", status.url))
    }

    async fn ask(&self, key: &Key, pool: u16, question: Question) -> Found {
        if !self.is_connected() {
            return Found::Away;
        }
        let counters = &self.owner.shared.counters;
        counters.lookups.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let directory = Arc::clone(&self.directory);
        let deadline = tokio::time::Instant::now() + self.owner.shared.settings.timeout;
        let request = Request { key: *key, pool, directory, question, deadline, reply };
        let sent = self.owner.senders.as_ref().is_some_and(|senders| senders.requests.try_send(request).is_ok());
        if !sent {
            counters.queue_full.fetch_add(1, Ordering::Relaxed);
            return Found::Away;
        }
        // The thread holds the deadline, and drops the other end when the store goes away.
        answer.await.unwrap_or(Found::Away)
    }

    fn placed(&self, server: ServerRef) -> Placed {
        Placed { server, directory: Arc::clone(&self.directory) }
    }

    fn tell(&self, errand: Background) {
        let is_write = !matches!(errand, Background::Recheck { .. });
        let sent = self.owner.senders.as_ref().is_some_and(|senders| senders.background.try_send(errand).is_ok());
        if !sent && is_write {
            self.owner.shared.counters.unwritten.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.senders = None;
        // The last owner may be the thread itself, which was about to tell it something.
        let other = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id());
        if let Some(thread) = other {
            // A thread that panicked has said so.
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    /// Says that the store answers, or why it does not. Whether that is news.
    fn set_connected(&self, error: Option<String>) -> bool {
        let is_connected = error.is_none();
        let was_connected = self.is_connected.swap(is_connected, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = state.last_error.is_none() && !is_connected;
        if was_connected != is_connected {
            state.since = Instant::now();
        }
        if error.is_some() {
            state.last_error = error;
        }
        was_connected != is_connected || is_first
    }

    fn status(&self) -> StoreStatus {
        let is_connected = self.is_connected.load(Ordering::Relaxed);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStatus {
            url: self.settings.url(),
            state: if is_connected { "connected" } else { "away" }.to_owned(),
            since_ms: u64::try_from(state.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            last_error: state.last_error.clone(),
            lookups: count(&self.counters.lookups),
            hits: count(&self.counters.hits),
            timeouts: count(&self.counters.timeouts),
            queue_full: count(&self.counters.queue_full),
            hashed: count(&self.counters.hashed),
            rechecks: count(&self.counters.rechecks),
            owed: count(&self.counters.owed),
            unwritten: count(&self.counters.unwritten),
        }
    }
}
