//! One thread of the worker: accepts connections, serves them, and owns what they use.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tracing::warn;

use super::accept::{self, Ends};
use super::access::basic::KeptByThread;
use super::access::external::KeptConnections;
use super::access_log::{Lines, LinesSetup};
use super::admission;
use super::chance::Chance;
use super::counters::{Counters, ListenerCounters, MirrorOutcome};
use super::http::client::{Client, Connection};
use super::http::compression::Memory;
use super::http::trace::Trace;
use super::http::{self, ClientStream, Routing};
use super::picking::Picker;
use super::refusals::Reason;
use super::socket::Socket;
use super::state::{Pool, Site};
use super::tcp::{self, Buffers};
use super::timers::{Deadlines, Timers};
use super::tls::facts::TlsFacts;
use super::upstream::dial::{DialError, OnBehalf};
use super::upstream::http1::{Http1, IdleConnections};
use super::upstream::http2::{self, SharedConnections};
use super::upstream::retry::Budget;
use crate::balance::rendezvous;
use crate::config::{PoolIndex, Protocol};
use crate::session::key::Key;

/// Time after which accepting is tried again when the process has no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time after which is looked again whether there is memory for connections.
const CLOSED_PAUSE: Duration = Duration::from_millis(100);

/// Time between two clean-ups of idle connections.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// Texts of requests whose room is kept for the next ones; each has some kilobytes.
const TRACES_MAX: usize = 64;
/// Time between two warnings of a thread about connections to a pool's servers.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// A server's place: which pool, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The pool.
    pub pool: PoolIndex,
    /// The server's index in it.
    pub server: usize,
}

/// What the connections of a thread share.
pub struct Thread {
    /// What all threads share.
    pub site: Arc<Site>,
    /// What this thread counts.
    pub counters: Arc<Counters>,
    /// The deadlines of its connections.
    pub timers: Rc<Timers>,
    /// What bytes of TCP connections pass through.
    pub buffers: Buffers,
    /// The target of the request that stands for a refusal; a secret of this process.
    pub refusal_target: String,
    /// Its ends of the access logs, in the order of `Config::log_targets`.
    pub lines: Vec<Rc<Lines>>,
    /// What the compressions of responses take of it.
    pub compression_memory: Memory,
    /// What texts of requests were taken with, for the next ones.
    pub traces: RefCell<Vec<Box<Trace>>>,
    /// Random bytes, for ids.
    pub chance: Chance,
    /// Passwords that were right.
    pub verified: KeptByThread,
    /// Connections to servers that are asked who may come in.
    pub authorizers: KeptConnections,
    /// The routes of its requests.
    pub routing: Routing,
    pools: Vec<ThreadPool>,
    /// Open client connections, and this thread's share of how many there may be, over all listeners.
    open: Cell<usize>,
    open_max: usize,
    is_draining: Cell<bool>,
    changed: Notify,
}

/// A pool, as one thread uses it.
struct ThreadPool {
    picker: Picker,
    idle: Vec<IdleConnections>,
    shared: Vec<Rc<SharedConnections>>,
    retries: RefCell<Budget>,
    /// When a failed connection was last warned of.
    warned: Cell<Option<Instant>>,
}

/// What the worker asks of a thread.
#[derive(Debug)]
pub enum Command {
    /// Say that it is alive, by echoing the number.
    Probe(u64),
    /// Accept nothing more, and end when every connection has.
    Drain,
}

/// What a thread is started with.
pub struct Setup {
    /// Its number, from 0.
    pub index: usize,
    /// What all threads share.
    pub site: Arc<Site>,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Its sockets, each with the index of its listener.
    pub sockets: Vec<(usize, std::net::TcpListener)>,
    /// The threads of the worker, for its share of the connection limits.
    pub thread_count: usize,
    /// The target of the request that stands for a refusal.
    pub refusal_target: String,
    /// Its ends of the access logs, in the order of `Config::log_targets`.
    pub lines: Vec<LinesSetup>,
    /// From the worker.
    pub commands: mpsc::Receiver<Command>,
    /// To the worker: number of the thread, number of the probe.
    pub alive: mpsc::Sender<(usize, u64)>,
}

impl Thread {
    fn new(setup: &mut Setup) -> Rc<Self> {
        let pools = setup.site.pools.iter().map(|pool| {
            let idle = || IdleConnections::new(pool.config.idle_connections_max as usize, pool.config.idle_timeout);
            let limits = http2::Limits {
                connections_max: pool.config.http2.connections_max as usize,
                streams_max: pool.config.http2.streams_max as usize,
                idle_timeout: pool.config.idle_timeout,
            };
            ThreadPool {
                picker: Picker::new(pool, setup.index),
                idle: pool.config.servers.iter().map(|_| idle()).collect(),
                shared: pool.config.servers.iter().map(|_| SharedConnections::new(limits)).collect(),
                retries: RefCell::new(Budget::new(Instant::now())),
                warned: Cell::new(None),
            }
        });
        Rc::new(Self {
            site: Arc::clone(&setup.site),
            counters: Arc::clone(&setup.counters),
            timers: Rc::default(),
            buffers: Buffers::default(),
            refusal_target: setup.refusal_target.clone(),
            compression_memory: Memory::default(),
            traces: RefCell::default(),
            lines: std::mem::take(&mut setup.lines).into_iter().map(|setup| Rc::new(Lines::new(setup))).collect(),
            chance: Chance::default(),
            verified: KeptByThread::default(),
            authorizers: KeptConnections::default(),
            routing: Routing::new(&setup.site),
            pools: pools.collect(),
            open: Cell::new(0),
            open_max: setup.site.load.connection_share(setup.thread_count),
            is_draining: Cell::new(false),
            changed: Notify::new(),
        })
    }

    /// Whether no more requests are taken.
    pub fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Keeps what the texts of a request were taken with for the next one.
    pub fn keep_trace(&self, trace: Box<Trace>) {
        let mut traces = self.traces.borrow_mut();
        if traces.len() < TRACES_MAX {
            traces.push(trace);
        }
    }

    /// The server of a pool that a hash gives a key to, the same on all load balancers, among those that take new clients.
    pub fn pick_by_hash(&self, index: PoolIndex, key: &Key) -> Option<usize> {
        let pool = self.site.pool(index)?;
        let names = pool.config.servers.iter().map(|server| server.name.as_str());
        rendezvous::pick(&key.to_bytes(), names, |server| pool.candidate(server))
    }

    /// The next server of a pool that takes new clients, that `may_try` allows and that `has_room`. `key` is the hash that
    /// the request goes by, if by any.
    pub fn pick(
        &self,
        index: PoolIndex,
        key: Option<u64>,
        may_try: impl Fn(usize) -> bool,
        has_room: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (pool, own) = (self.site.pool(index)?, self.pools.get(index.0)?);
        own.picker.pick(pool, self.timers.coarse_now(), key, may_try, has_room)
    }

    /// An idle connection to a server.
    pub fn idle_connection(&self, place: Place) -> Option<Box<Http1>> {
        self.idle(place)?.take()
    }

    /// Takes a connection back whose response has been read to its end.
    pub fn give_back(&self, place: Place, connection: Box<Http1>) {
        let is_of_all = self.site.pool(place.pool).is_some_and(|pool| !pool.dialer.tells_client());
        if is_of_all && let Some(idle) = self.idle(place) {
            idle.put(connection, self.timers.coarse_now());
        }
    }

    /// The connections to a server that requests share.
    pub fn shared_connections(&self, place: Place) -> Option<&Rc<SharedConnections>> {
        self.pools.get(place.pool.0)?.shared.get(place.server)
    }

    /// Says in the log, now and then, why there is no connection to a server, where that is not plain.
    pub fn warn_of_dial(&self, place: Place, error: &DialError) {
        let Some(warned) = self.pools.get(place.pool.0).map(|pool| &pool.warned) else { return };
        let now = self.timers.coarse_now();
        let is_due = warned.get().is_none_or(|last| now.saturating_duration_since(last) >= WARNING_INTERVAL);
        let pool = self.site.pool(place.pool).map(|pool| &pool.config);
        let server = pool.and_then(|pool| pool.servers.get(place.server));
        if let (Some(pool), Some(server)) = (pool, server)
            && is_due
            && error.is_of_tls()
        {
            warned.set(Some(now));
            warn!(pool = pool.name, server = server.name, reason = error.reason, "no connection to a server");
        }
    }

    /// What is left for retries of requests to a pool.
    pub fn retry_budget(&self, pool: PoolIndex) -> Option<RefMut<'_, Budget>> {
        Some(self.pools.get(pool.0)?.retries.borrow_mut())
    }

    fn idle(&self, place: Place) -> Option<&IdleConnections> {
        self.pools.get(place.pool.0)?.idle.get(place.server)
    }

    /// What a connection waits for before there is work to lose: `None` where it takes longer than `timeout`, and at a
    /// drain. The deadlines have to be attached to the task that awaits this.
    pub async fn before_work<F: Future>(&self, deadlines: &Deadlines, timeout: Duration, wait: F) -> Option<F::Output> {
        let mut wait = std::pin::pin!(wait);
        let wait = std::future::poll_fn(|context| match wait.as_mut().poll(context) {
            Poll::Pending if self.is_draining() => Poll::Ready(None),
            polled => polled.map(Some),
        });
        deadlines.within(timeout, wait).await.flatten()
    }

    /// Counts something that was refused at a listener.
    pub fn refused(&self, listener: usize, reason: Reason) {
        self.counters.by_listener.get(listener).inspect(|counters| counters.refused.count(reason));
    }

    /// Whether no listener takes a connection for now.
    fn is_full(&self) -> bool {
        self.open.get() >= self.open_max || self.site.load.is_closed()
    }

    /// Counts a request, or a connection of `protocol = "tcp"`, that goes to a server.
    pub fn count(&self, place: Place) {
        let by_server = &self.counters.by_server;
        if let Some(count) = by_server.get(place.pool.0).and_then(|pool| pool.get(place.server)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what became of a copy of a request.
    pub fn count_mirrored(&self, pool: PoolIndex, outcome: MirrorOutcome) {
        let count = self.counters.mirrored.get(pool.0).and_then(|by_outcome| by_outcome.get(outcome as usize));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Something that is no connection and has deadlines has ended: a drain may have waited for it.
    pub fn work_ended(&self) {
        if self.is_draining() {
            self.changed.notify_waiters();
        }
    }

    async fn expire_idle_connections(self: Rc<Self>) {
        let mut turns = tokio::time::interval(EXPIRY_INTERVAL);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let now = Instant::now();
            self.pools.iter().flat_map(|pool| &pool.idle).for_each(|idle| idle.expire(now));
            self.authorizers.expire(now);
            self.pools.iter().flat_map(|pool| &pool.shared).for_each(|shared| shared.expire(now));
            self.site.pools.iter().zip(&self.pools).for_each(|(pool, own)| own.picker.refresh(pool, now));
            // Servers may have come back, and those who wait for one hear of it when a request ends, which may be late.
            self.site.pools.iter().for_each(Pool::hand_out_slots);
        }
    }

    fn drain(&self) {
        self.is_draining.set(true);
        self.changed.notify_waiters();
        self.timers.wake_all();
    }
}

/// Runs a thread until it is drained, or the worker has gone.
///
/// # Errors
/// What epoll_create(2) says.
pub fn run(setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(serve(setup))
}

async fn serve(mut setup: Setup) -> io::Result<()> {
    let thread = Thread::new(&mut setup);
    tokio::task::spawn_local(Rc::clone(&thread.timers).sweep());
    tokio::task::spawn_local(Rc::clone(&thread).expire_idle_connections());
    for lines in &thread.lines {
        let lines = Rc::clone(lines);
        tokio::task::spawn_local(async move { lines.keep_flushing().await });
    }
    for (listener, socket) in std::mem::take(&mut setup.sockets) {
        let limit = connection_share(&thread.site, listener, setup.thread_count);
        let socket = TcpListener::from_std(socket)?;
        tokio::task::spawn_local(Acceptor { thread: Rc::clone(&thread), listener, socket, limit }.run());
    }
    while let Some(command) = setup.commands.recv().await {
        match command {
            // A full queue means that the worker itself is behind; it will ask again.
            Command::Probe(sequence) => drop(setup.alive.try_send((setup.index, sequence))),
            Command::Drain => {
                thread.drain();
                while thread.timers.connection_count() > 0 {
                    thread.changed.notified().await;
                }
                thread.lines.iter().for_each(|lines| lines.flush());
                return Ok(());
            }
        }
    }
    Ok(())
}

/// This thread's share of a listener's connections, at least one.
fn connection_share(site: &Site, listener: usize, thread_count: usize) -> usize {
    let limit = site.listeners.get(listener).map_or(1, |listener| listener.config.connections_max as usize);
    limit.div_ceil(thread_count.max(1)).max(1)
}

/// Accepts the connections of one socket.
struct Acceptor {
    thread: Rc<Thread>,
    listener: usize,
    socket: TcpListener,
    limit: usize,
}

impl Acceptor {
    async fn run(self) {
        let open = Rc::new(Cell::new(0_usize));
        loop {
            // At the limit, connections wait in the kernel's queue, which is bounded too.
            if self.is_full(&open) {
                self.while_full(self.room(&open)).await;
            }
            let accepted = tokio::select! {
                biased;
                () = self.thread.changed.notified(), if !self.thread.is_draining() => None,
                accepted = self.socket.accept() => Some(accepted),
            };
            if self.thread.is_draining() {
                return;
            }
            match accepted {
                Some(Ok((stream, peer))) => self.start(stream, peer, &open),
                Some(Err(error)) => self.accept_failed(&error).await,
                None => {}
            }
        }
    }

    async fn room(&self, open: &Cell<usize>) {
        while self.is_full(open) && !self.thread.is_draining() {
            // Nobody tells of memory that has become free.
            let _timed_out = tokio::time::timeout(CLOSED_PAUSE, self.thread.changed.notified()).await;
        }
    }

    fn is_full(&self, open: &Cell<usize>) -> bool {
        open.get() >= self.limit || self.thread.is_full()
    }

    /// Waits with the socket counted as full: who looks at the listener then sees a crowd, not a fault.
    async fn while_full(&self, wait: impl Future<Output = ()>) {
        let full = self.counters().map(|counters| &counters.full_sockets);
        full.map(|count| count.fetch_add(1, Ordering::Relaxed));
        wait.await;
        full.map(|count| count.fetch_sub(1, Ordering::Relaxed));
    }

    fn counters(&self) -> Option<&ListenerCounters> {
        self.thread.counters.by_listener.get(self.listener)
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, open: &Rc<Cell<usize>>) {
        open.set(open.get() + 1);
        if let Some(counters) = self.counters() {
            counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
        self.thread.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.thread.open.set(self.thread.open.get() + 1);
        let (thread, listener, limit, open) = (Rc::clone(&self.thread), self.listener, self.limit, Rc::clone(open));
        tokio::task::spawn_local(async move {
            converse(Rc::clone(&thread), listener, stream, peer).await;
            thread.counters.connections.fetch_sub(1, Ordering::Relaxed);
            let was_full = open.get() >= limit || thread.open.get() >= thread.open_max;
            open.set(open.get() - 1);
            thread.open.set(thread.open.get() - 1);
            if thread.is_draining() || was_full {
                thread.changed.notify_waiters();
            }
        });
    }

    async fn accept_failed(&self, error: &io::Error) {
        let is_ours = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM));
        // Any other error is of the one connection that went away before it was accepted (accept(2)).
        if is_ours {
            warn!(%error, "no connection can be accepted: raise the limit on open files (LimitNOFILE) or lower connections_max");
            self.while_full(tokio::time::sleep(ACCEPT_PAUSE)).await;
        }
    }
}

/// One connection, from its accept to its end.
async fn converse(thread: Rc<Thread>, listener: usize, stream: TcpStream, peer: SocketAddr) {
    let Some(config) = thread.site.listeners.get(listener) else { return };
    let Some(ends) = accept::ends(&thread, config, &stream, peer).await else { return };
    let Some(_admission) = admission::admit(&thread, listener, ends.source.ip()) else {
        // A reset: nothing waits for the client to take it, and the guard, which looks whether we react, is answered too.
        // Fails only on a socket that is closed already.
        let _closed = stream.set_zero_linger();
        return;
    };
    match config.config.protocol {
        Protocol::Http => converse_http(Rc::clone(&thread), listener, stream, ends).await,
        // Boxed, or each connection of HTTP would have room for it.
        Protocol::Tcp => Box::pin(tcp::serve(&thread, listener, stream, peer, ends)).await,
    }
}

async fn converse_http(thread: Rc<Thread>, listener: usize, stream: TcpStream, ends: Ends) {
    let Some(config) = thread.site.listeners.get(listener) else { return };
    let behalf = OnBehalf::of(&thread.site, &stream, &ends);
    let connection = Connection::new(Rc::clone(&thread), listener, &ends, config.tls.is_some(), behalf);
    let client = Client::new(connection);
    let stream = match &config.tls {
        None => ClientStream::Plain(Socket::new(stream)),
        Some(tls) => {
            client.deadlines().attach_here().await;
            let handshake = Box::pin(tls.acceptor().accept(Socket::new(stream)));
            match thread.before_work(client.deadlines(), config.config.head_timeout, handshake).await {
                Some(Ok(stream)) => {
                    client.connection.set_tls(TlsFacts::of(stream.get_ref().1));
                    ClientStream::Tls(Box::new(stream))
                }
                // It failed or took too long, which is the client's affair.
                Some(Err(_)) | None => return,
            }
        }
    };
    http::serve(client, stream).await;
}
