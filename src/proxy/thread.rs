//! One thread of the worker: accepts connections, serves them, and owns what they use.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tracing::warn;

use super::accept::{self, Ends};
use super::access::basic::KeptByThread;
use super::access::external::KeptConnections;
use super::access_log::{Lines, LinesSetup, NextLines};
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
use super::visits::Doors;
use crate::balance::rendezvous;
use crate::config::{PoolIndex, Protocol, Server};
use crate::inquiry::LeaveStage;
use crate::session::key::Key;

/// Time after which accepting is tried again when the process has no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two lines of the log on there being no room for connections.
const FULL_INTERVAL: Duration = Duration::from_secs(10);

const FILES_REMEDY: &str = "raise the limit on open files (LimitNOFILE, ulimit -Hn) or lower connections_max";

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

/// What the connections of a thread share, under one configuration. The next one has a `Thread` of its own, which shares
/// with this one whatever has not changed; a connection goes over to it where it stands between two requests.
pub struct Thread {
    /// What all threads share.
    pub site: Arc<Site>,
    /// What this thread counts.
    pub counters: Arc<Counters>,
    /// The deadlines of its connections.
    pub timers: Rc<Timers>,
    /// What bytes of TCP connections pass through.
    pub buffers: Rc<Buffers>,
    /// The target of the request that stands for a refusal; a secret of this process.
    pub refusal_target: Rc<str>,
    /// Its ends of the access logs, in the order of `Config::log_targets`.
    pub lines: Vec<Rc<Lines>>,
    /// What the compressions of responses take of it.
    pub compression_memory: Memory,
    /// What texts of requests were taken with, for the next ones.
    pub traces: Rc<RefCell<Vec<Box<Trace>>>>,
    /// Random bytes, for ids.
    pub chance: Rc<Chance>,
    /// Passwords that were right.
    pub verified: Rc<KeptByThread>,
    /// Connections to servers that are asked who may come in.
    pub authorizers: Rc<KeptConnections>,
    /// The routes of its requests.
    pub routing: Routing,
    pools: Vec<Rc<ThreadPool>>,
    /// This thread's share of how many connections there may be, over all listeners.
    open_max: usize,
    is_superseded: Cell<bool>,
    steady: Rc<Steady>,
}

/// What stays with a thread whatever the configuration.
struct Steady {
    /// Its number, from 0, and how many there are.
    index: usize,
    thread_count: usize,
    /// Open client connections.
    open: Cell<usize>,
    leaving: Cell<Option<Leaving>>,
    /// The addresses that clients have come to.
    doors: Rc<Doors>,
    /// Told of a drain, of room for connections, and of a new configuration.
    changed: Notify,
    /// When the log was told last that there is no room for connections.
    told_full: Cell<Option<Instant>>,
    /// The thread under the configuration in use.
    latest: RefCell<Weak<Thread>>,
}

/// A pool, as one thread uses it.
struct ThreadPool {
    picker: Picker,
    idle: Vec<Rc<IdleConnections>>,
    shared: Vec<Rc<SharedConnections>>,
    retries: Rc<RefCell<Budget>>,
    /// When a failed connection was last warned of.
    warned: Cell<Option<Instant>>,
}

impl ThreadPool {
    /// A pool whose servers are reached by connections of `former`, where these are the same.
    fn new(pool: &Pool, thread: usize, former: Option<(&Pool, &Self)>) -> Self {
        let is_same = |(before, _): &(&Pool, &Self)| {
            let settings = |pool: &Pool| {
                let config = &pool.config;
                (config.idle_connections_max, config.idle_timeout, config.http2)
            };
            Arc::ptr_eq(&before.dialer, &pool.dialer) && settings(before) == settings(pool)
        };
        let connections = former.filter(is_same);
        let place = |server: &Server| connections.and_then(|(before, own)| Some((own, before.same_server(server)?)));
        let (count_max, idle_timeout) = (pool.config.idle_connections_max as usize, pool.config.idle_timeout);
        let limits = http2::Limits {
            connections_max: pool.config.http2.connections_max as usize,
            streams_max: pool.config.http2.streams_max as usize,
            idle_timeout,
        };
        let idle = |server: &Server| {
            let kept = place(server).and_then(|(own, at)| own.idle.get(at)).map(Rc::clone);
            kept.unwrap_or_else(|| Rc::new(IdleConnections::new(count_max, idle_timeout)))
        };
        let shared = |server: &Server| {
            let kept = place(server).and_then(|(own, at)| own.shared.get(at)).map(Rc::clone);
            kept.unwrap_or_else(|| SharedConnections::new(limits))
        };
        let retries = former.map(|(_, own)| Rc::clone(&own.retries));
        Self {
            picker: Picker::new(pool, thread),
            idle: pool.config.servers.iter().map(idle).collect(),
            shared: pool.config.servers.iter().map(shared).collect(),
            retries: retries.unwrap_or_else(|| Rc::new(RefCell::new(Budget::new(Instant::now())))),
            warned: Cell::new(None),
        }
    }
}

/// What the worker asks of a thread.
#[derive(Debug)]
pub enum Command {
    /// Say that it is alive, by echoing the number.
    Probe(u64),
    /// Go on under another configuration.
    Reload(Box<Next>),
    /// Ask clients to come back elsewhere, as [`crate::inquiry::Question::Leave`] says. The sender is dropped when it is
    /// answered.
    AskToLeave(Vec<IpAddr>, LeaveStage, mpsc::Sender<()>),
    /// Accept nothing more, and end when every connection has.
    Leave(Leaving),
}

/// What becomes of connections on which nothing is under way, when a thread takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// They are closed: the node stops.
    Stop,
    /// They may ask once more, and are told to come back on another one: another worker listens on the same sockets. So
    /// no request meets a connection that is being closed.
    Yield,
}

/// Another configuration, as a thread takes it.
pub struct Next {
    /// What all threads share.
    pub site: Arc<Site>,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Sockets that it does not have yet.
    pub sockets: Vec<ListeningSocket>,
    /// Its ends of the access logs, in the order of `Config::log_targets`.
    pub lines: Vec<NextLines>,
    /// There are listeners that it has not: their connections end.
    pub has_ended_listeners: bool,
    /// Told when it is in use.
    pub taken: mpsc::Sender<()>,
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

/// A socket of an address.
pub struct ListeningSocket {
    /// As it stands in the configuration.
    pub address: SocketAddr,
    /// Open, and of this thread alone.
    pub socket: std::net::TcpListener,
}

/// What a thread is started with.
pub struct Setup {
    /// Its number, from 0.
    pub index: usize,
    /// What all threads share.
    pub site: Arc<Site>,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Its sockets: one of each address of each listener.
    pub sockets: Vec<ListeningSocket>,
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
        let pools = setup.site.pools.iter().map(|pool| Rc::new(ThreadPool::new(pool, setup.index, None)));
        let steady = Steady {
            index: setup.index,
            thread_count: setup.thread_count,
            open: Cell::new(0),
            leaving: Cell::new(None),
            doors: Rc::default(),
            changed: Notify::new(),
            told_full: Cell::new(None),
            latest: RefCell::default(),
        };
        let thread = Rc::new(Self {
            site: Arc::clone(&setup.site),
            counters: Arc::clone(&setup.counters),
            timers: Rc::new(Timers::new(Arc::clone(setup.site.load.patience()))),
            buffers: Rc::default(),
            refusal_target: setup.refusal_target.as_str().into(),
            compression_memory: Memory::default(),
            traces: Rc::default(),
            lines: std::mem::take(&mut setup.lines).into_iter().map(|setup| Rc::new(Lines::new(setup))).collect(),
            chance: Rc::default(),
            verified: Rc::default(),
            authorizers: Rc::default(),
            routing: Routing::new(&setup.site, None),
            pools: pools.collect(),
            open_max: setup.site.load.connection_share(setup.thread_count),
            is_superseded: Cell::new(false),
            steady: Rc::new(steady),
        });
        *thread.steady.latest.borrow_mut() = Rc::downgrade(&thread);
        thread
    }

    /// The thread under another configuration, which is in use from now on.
    fn next(&self, site: Arc<Site>, counters: Arc<Counters>, lines: Vec<Rc<Lines>>) -> Rc<Self> {
        let former = |name: &str| self.site.pools.iter().position(|pool| pool.config.name == name);
        let pool = |pool: &Arc<Pool>| {
            let former = former(&pool.config.name);
            let former = former.and_then(|at| Some((self.site.pools.get(at)?, self.pools.get(at)?)));
            match former {
                Some((before, own)) if Arc::ptr_eq(before, pool) => Rc::clone(own),
                _ => {
                    let former = former.map(|(before, own)| (&**before, &**own));
                    Rc::new(ThreadPool::new(pool, self.steady.index, former))
                }
            }
        };
        let thread = Rc::new(Self {
            counters,
            timers: Rc::clone(&self.timers),
            buffers: Rc::clone(&self.buffers),
            refusal_target: Rc::clone(&self.refusal_target),
            lines,
            compression_memory: Rc::clone(&self.compression_memory),
            traces: Rc::clone(&self.traces),
            chance: Rc::clone(&self.chance),
            verified: Rc::clone(&self.verified),
            authorizers: Rc::clone(&self.authorizers),
            routing: Routing::new(&site, Some((&self.site, &self.routing))),
            pools: site.pools.iter().map(pool).collect(),
            open_max: site.load.connection_share(self.steady.thread_count),
            is_superseded: Cell::new(false),
            steady: Rc::clone(&self.steady),
            site,
        });
        self.is_superseded.set(true);
        *self.steady.latest.borrow_mut() = Rc::downgrade(&thread);
        thread
    }

    /// Whether there is another configuration, and so another [`Thread::latest`].
    pub fn is_superseded(&self) -> bool {
        self.is_superseded.get()
    }

    /// The thread under the configuration in use.
    pub fn latest(self: &Rc<Self>) -> Rc<Self> {
        if !self.is_superseded() {
            return Rc::clone(self);
        }
        self.steady.latest.borrow().upgrade().unwrap_or_else(|| Rc::clone(self))
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.steady.index
    }

    /// Whether no more requests are taken.
    pub fn is_draining(&self) -> bool {
        self.steady.leaving.get() == Some(Leaving::Stop)
    }

    /// Whether no more connections are taken, and those that there are end when they have been told so.
    pub fn is_leaving(&self) -> bool {
        self.steady.leaving.get().is_some()
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
        self.pools.get(place.pool.0)?.idle.get(place.server).map(|idle| &**idle)
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
        self.steady.open.get() >= self.open_max || self.site.load.is_closed()
    }

    /// Counts a request, or a connection of `protocol = "tcp"`, that goes to a server.
    pub fn count(&self, place: Place) {
        let pool = self.counters.by_pool.get(place.pool.0);
        if let Some(server) = pool.and_then(|pool| pool.by_server.get(place.server)) {
            server.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what became of a copy of a request.
    pub fn count_mirrored(&self, pool: PoolIndex, outcome: MirrorOutcome) {
        let pool = self.counters.by_pool.get(pool.0);
        let count = pool.and_then(|pool| pool.own.mirrored.get(outcome as usize));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Something that is no connection and has deadlines has ended: a drain may have waited for it.
    pub fn work_ended(&self) {
        if self.is_leaving() {
            self.steady.changed.notify_waiters();
        }
    }

    async fn expire_idle_connections(self: Rc<Self>) {
        let mut turns = tokio::time::interval(EXPIRY_INTERVAL);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut thread = self;
        loop {
            turns.tick().await;
            thread = thread.latest();
            let now = Instant::now();
            thread.pools.iter().flat_map(|pool| &pool.idle).for_each(|idle| idle.expire(now));
            thread.authorizers.expire(now);
            thread.pools.iter().flat_map(|pool| &pool.shared).for_each(|shared| shared.expire(now));
            thread.site.pools.iter().zip(&thread.pools).for_each(|(pool, own)| own.picker.refresh(pool, now));
            // Servers may have come back, and those who wait for one hear of it when a request ends, which may be late.
            thread.site.pools.iter().for_each(|pool| pool.hand_out_slots());
        }
    }

    fn leave(&self, how: Leaving) {
        self.steady.leaving.set(Some(how));
        self.steady.changed.notify_waiters();
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
    let mut running = Running::new(&mut setup)?;
    tokio::task::spawn_local(Rc::clone(&running.thread.timers).sweep());
    tokio::task::spawn_local(Rc::clone(&running.thread).expire_idle_connections());
    while let Some(command) = setup.commands.recv().await {
        match command {
            // A full queue means that the worker itself is behind; it will ask again.
            Command::Probe(sequence) => drop(setup.alive.try_send((setup.index, sequence))),
            Command::Reload(next) => running.reload(*next)?,
            Command::AskToLeave(addresses, stage, left) => {
                let doors = Rc::clone(&running.thread.steady.doors);
                let order = doors.ask_to_leave(addresses, stage);
                running.thread.timers.wake_all();
                tokio::task::spawn_local(async move {
                    doors.left(order).await;
                    drop(left);
                });
            }
            Command::Leave(how) => {
                let thread = running.thread;
                thread.leave(how);
                while thread.timers.connection_count() > 0 {
                    thread.steady.changed.notified().await;
                }
                thread.lines.iter().for_each(|lines| lines.flush());
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A thread at work.
struct Running {
    thread: Rc<Thread>,
    acceptors: Vec<Accepting>,
    /// For each of its lines, what hands them over.
    flushers: Vec<JoinHandle<()>>,
}

/// This thread's share of a listener's connections, at least one.
fn connection_share(site: &Site, listener: usize, thread_count: usize) -> usize {
    let limit = site.listener(listener).map_or(1, |listener| listener.config.connections_max as usize);
    limit.div_ceil(thread_count.max(1)).max(1)
}

/// Where the connections of an address go: which listener; `None` once there is none any more.
struct Accepting {
    address: SocketAddr,
    listener: Rc<Cell<Option<usize>>>,
}

impl Running {
    fn new(setup: &mut Setup) -> io::Result<Self> {
        let thread = Thread::new(setup);
        let flushers = thread.lines.iter().map(keep_flushing).collect();
        let mut running = Self { thread, acceptors: Vec::new(), flushers };
        running.listen(std::mem::take(&mut setup.sockets))?;
        Ok(running)
    }

    /// Begins to accept connections of sockets.
    fn listen(&mut self, sockets: Vec<ListeningSocket>) -> io::Result<()> {
        for ListeningSocket { address, socket } in sockets {
            let listener = Rc::new(Cell::new(listener_of(&self.thread.site, address)));
            let socket = TcpListener::from_std(socket)?;
            let (thread, place) = (Rc::clone(&self.thread), Rc::clone(&listener));
            tokio::task::spawn_local(Acceptor { thread, place, address: address.ip(), socket }.run());
            self.acceptors.push(Accepting { address, listener });
        }
        Ok(())
    }

    /// Goes on under another configuration.
    fn reload(&mut self, next: Next) -> io::Result<()> {
        let Next { site, counters, sockets, lines, has_ended_listeners, taken } = next;
        let lines = self.take_lines(lines);
        self.thread = self.thread.next(site, counters, lines);
        let site = &self.thread.site;
        self.acceptors.iter().for_each(|known| known.listener.set(listener_of(site, known.address)));
        self.acceptors.retain(|known| known.listener.get().is_some());
        if has_ended_listeners {
            self.thread.timers.wake_all();
        }
        self.listen(sockets)?;
        self.thread.steady.changed.notify_waiters();
        // The worker may be on its way out.
        let _gone = taken.try_send(());
        Ok(())
    }

    fn take_lines(&mut self, next: Vec<NextLines>) -> Vec<Rc<Lines>> {
        let mut former: Vec<_> = self.flushers.drain(..).map(Some).collect();
        let (mut lines, mut flushers) = (Vec::new(), Vec::new());
        for next in next {
            let kept = match next {
                NextLines::Kept(index) => {
                    let flusher = former.get_mut(index).and_then(Option::take);
                    self.thread.lines.get(index).map(Rc::clone).zip(flusher)
                }
                NextLines::New(setup) => {
                    let lines = Rc::new(Lines::new(setup));
                    let flusher = keep_flushing(&lines);
                    Some((lines, flusher))
                }
            };
            if let Some((of_target, flusher)) = kept {
                lines.push(of_target);
                flushers.push(flusher);
            }
        }
        // What is still written there goes out when the last request that does so has ended.
        former.into_iter().flatten().for_each(|flusher| flusher.abort());
        self.flushers = flushers;
        lines
    }
}

fn keep_flushing(lines: &Rc<Lines>) -> JoinHandle<()> {
    let lines = Rc::clone(lines);
    tokio::task::spawn_local(async move { lines.keep_flushing().await })
}

fn listener_of(site: &Site, address: SocketAddr) -> Option<usize> {
    site.listeners.iter().position(|listener| listener.config.bind.contains(&address))
}

/// Accepts the connections of one socket.
struct Acceptor {
    thread: Rc<Thread>,
    place: Rc<Cell<Option<usize>>>,
    address: IpAddr,
    socket: TcpListener,
}

impl Acceptor {
    async fn run(mut self) {
        let open = Rc::new(Cell::new(0_usize));
        let Some(mut listener) = self.place.get() else { return };
        loop {
            // At the limit, connections wait in the kernel's queue, which is bounded too.
            if self.is_full(listener, &open) {
                self.tell_full();
                self.while_full(listener, self.room(listener, &open)).await;
            }
            let accepted = tokio::select! {
                biased;
                () = self.thread.steady.changed.notified(), if !self.thread.is_leaving() => None,
                accepted = self.socket.accept() => Some(accepted),
            };
            if self.thread.is_leaving() {
                // Who was accepted before that was seen is answered.
                if let (Some(Ok((stream, peer))), Some(now)) = (accepted, self.place.get())
                    && !self.thread.is_draining()
                {
                    self.start(now, stream, peer, &open);
                }
                return;
            }
            match self.place.get() {
                Some(now) => (self.thread, listener) = (self.thread.latest(), now),
                None => return self.close(listener, &open),
            }
            match accepted {
                Some(Ok((stream, peer))) => self.start(listener, stream, peer, &open),
                Some(Err(error)) => self.accept_failed(listener, &error).await,
                None => {}
            }
        }
    }

    /// The listener is configured no more: who has connected already gets an answer.
    fn close(&self, listener: usize, open: &Rc<Cell<usize>>) {
        while !self.is_full(listener, open)
            && let Some(Ok((stream, peer))) = self.socket.accept().now_or_never()
        {
            self.start(listener, stream, peer, open);
        }
    }

    async fn room(&self, listener: usize, open: &Cell<usize>) {
        while self.is_full(listener, open) && !self.thread.is_leaving() && !self.thread.is_superseded() {
            // Nobody tells of memory that has become free.
            let _timed_out = tokio::time::timeout(CLOSED_PAUSE, self.thread.steady.changed.notified()).await;
        }
    }

    fn is_full(&self, listener: usize, open: &Cell<usize>) -> bool {
        let limit = connection_share(&self.thread.site, listener, self.thread.steady.thread_count);
        open.get() >= limit || self.thread.is_full()
    }

    /// Says in the log, now and then, that connections wait for the limit on open files, where they do.
    fn tell_full(&self) {
        let thread = &self.thread;
        let bound = thread.site.connections_by_open_files();
        if let Some(connections) = bound.filter(|_| thread.steady.open.get() >= thread.open_max)
            && self.has_to_tell()
        {
            warn!(connections, "connections wait: {FILES_REMEDY}");
        }
    }

    /// Whether the log is to be told again that there is no room.
    fn has_to_tell(&self) -> bool {
        let (told, now) = (&self.thread.steady.told_full, self.thread.timers.coarse_now());
        let is_due = told.get().is_none_or(|last| now.saturating_duration_since(last) >= FULL_INTERVAL);
        if is_due {
            told.set(Some(now));
        }
        is_due
    }

    /// Waits with the socket counted as full: who looks at the listener then sees a crowd, not a fault.
    async fn while_full(&self, listener: usize, wait: impl Future<Output = ()>) {
        let full = self.counters(listener).map(|counters| &counters.full_sockets);
        full.map(|count| count.fetch_add(1, Ordering::Relaxed));
        wait.await;
        full.map(|count| count.fetch_sub(1, Ordering::Relaxed));
    }

    fn counters(&self, listener: usize) -> Option<&ListenerCounters> {
        self.thread.counters.by_listener.get(listener).map(|counters| &**counters)
    }

    fn start(&self, listener: usize, stream: TcpStream, peer: SocketAddr, open: &Rc<Cell<usize>>) {
        open.set(open.get() + 1);
        if let Some(counters) = self.counters(listener) {
            counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
        self.thread.counters.totals.connections.fetch_add(1, Ordering::Relaxed);
        let steady = &self.thread.steady;
        steady.open.set(steady.open.get() + 1);
        let limit = connection_share(&self.thread.site, listener, steady.thread_count);
        let (thread, address, open) = (Rc::clone(&self.thread), self.address, Rc::clone(open));
        tokio::task::spawn_local(async move {
            let (totals, steady) = (Arc::clone(&thread.counters.totals), Rc::clone(&thread.steady));
            let open_max = thread.open_max;
            converse(thread, (listener, address), stream, peer).await;
            totals.connections.fetch_sub(1, Ordering::Relaxed);
            let was_full = open.get() >= limit || steady.open.get() >= open_max;
            open.set(open.get() - 1);
            steady.open.set(steady.open.get() - 1);
            if steady.leaving.get().is_some() || was_full {
                steady.changed.notify_waiters();
            }
        });
    }

    async fn accept_failed(&self, listener: usize, error: &io::Error) {
        let is_ours = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM));
        // Any other error is of the one connection that went away before it was accepted (accept(2)).
        if is_ours {
            if self.has_to_tell() {
                warn!(%error, "no connection can be accepted: {FILES_REMEDY}");
            }
            self.while_full(listener, tokio::time::sleep(ACCEPT_PAUSE)).await;
        }
    }
}

/// One connection, from its accept to its end. `address` is the one that its socket listens on.
async fn converse(thread: Rc<Thread>, (listener, address): (usize, IpAddr), stream: TcpStream, peer: SocketAddr) {
    let Some(config) = thread.site.listener(listener) else { return };
    let Some(ends) = accept::ends(&thread, (listener, config), &stream, peer).await else { return };
    let Some(_admission) = admission::admit(&thread, listener, ends.source.ip()) else {
        // A reset: nothing waits for the client to take it, and the guard, which looks whether we react, is answered too.
        // Fails only on a socket that is closed already.
        let _closed = stream.set_zero_linger();
        return;
    };
    match config.config.protocol {
        Protocol::Http => converse_http(Rc::clone(&thread), (listener, address), stream, ends).await,
        // Boxed, or each connection of HTTP would have room for it.
        Protocol::Tcp => Box::pin(tcp::serve(&thread, listener, stream, peer, ends)).await,
    }
}

async fn converse_http(thread: Rc<Thread>, (listener, address): (usize, IpAddr), stream: TcpStream, ends: Ends) {
    let Some(config) = thread.site.listeners.get(listener) else { return };
    let own = if address.is_unspecified() { stream.local_addr().map_or(address, |own| own.ip()) } else { address };
    let visit = thread.steady.doors.visit(own.to_canonical());
    let behalf = OnBehalf::of(&thread.site, &stream, &ends);
    let connection = Connection::new(Rc::clone(&thread), listener, &ends, config.tls.is_some(), behalf, visit);
    let client = Client::new(connection);
    let stream = match &config.tls {
        None => ClientStream::Plain(Socket::new(stream)),
        Some(tls) => {
            client.deadlines().attach_here().await;
            let handshake = Box::pin(tls.accept(Socket::new(stream)));
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
