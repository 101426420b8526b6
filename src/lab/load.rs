//! Clients of the pair: what they do all the time, so that what an event does to them can be told.
//!
//! Each kind is on a thread of its own, so that none delays another:
//! - the prober makes a new connection at a fixed pace whether or not the others came back, and so measures time without
//!   service;
//! - busy connections are kept open and ask again at once or nearly so: they show what breaks;
//! - users carry a cookie and should meet the same server for as long as it lives;
//! - WebSockets and TCP connections are kept open for long and have every message sent back.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::LabError;
use super::client::{Answer, Ask, Connection, Failure, NoGoodAnswer, Target};
use super::journal::{Entry, Journal, Kind, Losses};
use super::ledger::{Incident, Probe, ProbeLedger, ProbeOutcome, Slices, TrafficLedger, Window};
use super::namespace::Namespace;
use super::streams;

/// Probes under way at once, as a share of a second's, but never fewer than this.
const PROBES_UNDER_WAY_MIN: usize = 64;

/// Probes under way at once, whatever the pace.
const PROBES_UNDER_WAY_MAX: usize = 1024;

/// Priority of the prober among real-time threads: above ordinary work, below a guard.
const PROBER_PRIORITY: i32 = 5;

/// Time for a busy connection or a user to connect. Below the kernel's first SYN retry (1 s), which would otherwise
/// stretch every outage to a second for whoever connects during it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// Time for an answer on a kept connection. A connection to a node that is gone learns of it when the new one resets it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Wait before connecting again.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Who asks what, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadSpec {
    /// Where new connections, busy ones and users ask.
    pub target: Target,
    /// The servers' names, up to 255; probes refer to them by index.
    pub servers: Vec<String>,
    /// Time between two probes, at least 1 ms.
    pub probe_interval: Duration,
    /// Time for a probe, connect included.
    pub probe_timeout: Duration,
    /// How many busy connections.
    pub busy_connections: u16,
    /// Time between an answer and the next request on a busy connection.
    pub busy_pause: Duration,
    /// How many users.
    pub users: u16,
    /// Time between an answer and the user's next request.
    pub user_pause: Duration,
    /// The cookie that ties a user to a server.
    pub cookie: String,
    /// Where WebSockets are opened, and how many.
    pub websockets: Option<(Target, u16)>,
    /// Where TCP connections are opened, and how many.
    pub tcp_connections: Option<(SocketAddr, u16)>,
    /// Time between two messages of a WebSocket or a TCP connection.
    pub message_pause: Duration,
    /// Time to connect, of all but the prober.
    pub connect_timeout: Duration,
    /// Time for an answer, of all but the prober.
    pub answer_timeout: Duration,
}

impl LoadSpec {
    /// A probe every 2 ms, 16 busy connections, 40 users: some 4,000 requests a second, which leave two cores room to breathe.
    pub fn steady(target: SocketAddr, servers: Vec<String>) -> Self {
        Self {
            target: Target::of_lab(target),
            servers,
            probe_interval: Duration::from_millis(2),
            probe_timeout: Duration::from_millis(50),
            busy_connections: 16,
            busy_pause: Duration::from_millis(5),
            users: 40,
            user_pause: Duration::from_millis(50),
            cookie: "BATON".to_owned(),
            websockets: None,
            tcp_connections: None,
            message_pause: Duration::from_millis(50),
            connect_timeout: CONNECT_TIMEOUT,
            answer_timeout: ANSWER_TIMEOUT,
        }
    }
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) spec: LoadSpec,
    // One lock for each thread of clients, so that the prober never waits for a thread of lower priority.
    probes: Mutex<ProbeLedger>,
    busy: Mutex<TrafficLedger>,
    users: Mutex<TrafficLedger>,
    websockets: Mutex<TrafficLedger>,
    tcp: Mutex<TrafficLedger>,
    journal: Option<Journal>,
}

/// Clients at work. They stop when it is dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    started: Instant,
    stop: watch::Sender<()>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// All that clients saw in an interval, each by itself.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Good answers: when each came, and how long it took.
    pub answers: Vec<(Instant, Duration)>,
    /// When a request failed.
    pub failures: Vec<Instant>,
    /// When a user was answered by another server than before.
    pub moves: Vec<Instant>,
}

impl Load {
    /// Starts all clients inside `namespace`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(namespace: &Namespace, spec: LoadSpec) -> Result<Self, LabError> {
        // A probe a 2 ms holds 30,000 ports for the minute that a closed one is kept, more than the default range has.
        // Where /proc/sys is read-only the default has to do.
        namespace.run(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535").ok())?;
        Self::begin(Some(namespace), spec, None)
    }

    /// Starts all clients where the calling thread is. Every request is written to `journal`.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub fn start_here(spec: LoadSpec, journal: Option<Journal>) -> Result<Self, LabError> {
        Self::begin(None, spec, journal)
    }

    fn begin(namespace: Option<&Namespace>, spec: LoadSpec, journal: Option<Journal>) -> Result<Self, LabError> {
        let now = Instant::now();
        let ledger = || Mutex::new(TrafficLedger::new(now));
        let shared = Arc::new(Shared {
            spec,
            probes: Mutex::new(ProbeLedger::default()),
            busy: ledger(),
            users: ledger(),
            websockets: ledger(),
            tcp: ledger(),
            journal,
        });
        let (stop, _) = watch::channel(());
        let mut load = Self { shared, started: now, stop, threads: Vec::new() };
        load.spawn(namespace, "prober", |shared| async move {
            ask_for_real_time();
            probe_all(shared).await;
        })?;
        load.spawn(namespace, "busy clients", |shared| async move {
            for number in 0..shared.spec.busy_connections {
                tokio::spawn(keep_busy(Arc::clone(&shared), number));
            }
            std::future::pending().await
        })?;
        load.spawn(namespace, "users", |shared| async move {
            for user in 0..shared.spec.users {
                tokio::spawn(be_user(Arc::clone(&shared), user));
            }
            std::future::pending().await
        })?;
        load.spawn(namespace, "streams", |shared| async move {
            streams::open_all(&shared);
            std::future::pending().await
        })?;
        Ok(load)
    }

    fn spawn<F: Future<Output = ()>>(
        &mut self,
        namespace: Option<&Namespace>,
        name: &str,
        work: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> Result<(), LabError> {
        let shared = Arc::clone(&self.shared);
        let mut stopped = self.stop.subscribe();
        let clients = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped.changed() => {}
                    () = work(shared) => {}
                }
            });
        };
        self.threads.push(match namespace {
            Some(namespace) => namespace.spawn(name, clients)?,
            None => {
                let thread = thread::Builder::new().name(name.to_owned());
                let started = thread.spawn(move || {
                    clients();
                    Ok(())
                });
                started.map_err(LabError::system(format!("start the thread {name}")))?
            }
        });
        Ok(())
    }

    /// What clients saw between two times.
    pub fn window(&self, from: Instant, to: Instant) -> Window {
        // Copied under the lock and judged outside: a client must not wait for arithmetic.
        Window::draw(from, to, &self.slices(from, to))
    }

    fn slices(&self, from: Instant, to: Instant) -> Slices {
        let shared = &self.shared;
        Slices {
            probes: lock(&shared.probes).slice(from, to),
            busy: lock(&shared.busy).slice(from, to),
            users: lock(&shared.users).slice(from, to),
            websockets: lock(&shared.websockets).slice(from, to),
            tcp: lock(&shared.tcp).slice(from, to),
        }
    }

    /// What clients saw between two times, each by itself and not in the order of time.
    pub fn trace(&self, from: Instant, to: Instant) -> Trace {
        let slices = self.slices(from, to);
        let mut trace = Trace::default();
        for probe in &slices.probes.probes {
            match probe.outcome {
                ProbeOutcome::Answered { .. } => trace.answers.push((probe.end, probe.end - probe.start)),
                ProbeOutcome::Failed(_) => trace.failures.push(probe.end),
            }
        }
        for (ledger, slice) in self.traffic().into_iter().zip(slices.traffic()) {
            trace.answers.extend(lock(ledger).latencies(from, to));
            let failed = slice.incidents.iter().filter(|(_, incident)| incident.is_failure());
            trace.failures.extend(failed.map(|(at, _)| *at));
            let moved = slice.incidents.iter().filter(|(_, incident)| matches!(incident, Incident::ServerLost { .. }));
            trace.moves.extend(moved.map(|(at, _)| *at));
        }
        trace
    }

    /// The ledgers of all but the prober, in the order of [`Slices::traffic`].
    fn traffic(&self) -> [&Mutex<TrafficLedger>; 4] {
        let shared = &self.shared;
        [&shared.busy, &shared.users, &shared.websockets, &shared.tcp]
    }

    /// The probes that ended between two times.
    pub fn probes(&self, from: Instant, to: Instant) -> Vec<Probe> {
        lock(&self.shared.probes).slice(from, to).probes
    }

    /// Whether a probe that began after `since` has been answered.
    pub fn answered_since(&self, since: Instant) -> bool {
        let answered = |probe: &Probe| probe.start >= since && matches!(probe.outcome, ProbeOutcome::Answered { .. });
        self.probes(since, Instant::now()).iter().any(answered)
    }

    /// Whether nothing has failed for any client in the last `quiet`, in which all of them were at work and answered.
    pub fn is_quiet(&self, quiet: Duration) -> bool {
        let now = Instant::now();
        let Some(since) = now.checked_sub(quiet).filter(|since| *since >= self.started) else { return false };
        let calm = |ledger: &Mutex<TrafficLedger>| lock(ledger).last_incident().is_none_or(|at| at < since);
        let window = self.window(since, now);
        self.traffic().into_iter().all(calm) && window.failed.new_connections == 0 && window.answered > 0
    }
}

impl Load {
    /// Stops all clients, and gives what their journal lacks; `None` where they had none.
    pub fn finish(mut self) -> Option<Losses> {
        self.stop();
        // The clients are gone, and with them all others who had it.
        Some(Arc::get_mut(&mut self.shared)?.journal.take()?.finish())
    }

    fn stop(&mut self) {
        let _ = self.stop.send(());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One request on a connection of its own from inside `namespace`, and the name of the server that answered it.
///
/// # Errors
/// When no thread can be had there; inside, what became of the request.
pub fn ask_once(
    namespace: &Namespace,
    target: SocketAddr,
    within: Duration,
) -> Result<Result<Option<String>, Failure>, LabError> {
    namespace.run(|| ask_once_here(&Target::of_lab(target), within).map_err(|error| error.failure))
}

/// One request on a connection of its own, and the name of the server that answered it. It blocks.
///
/// # Errors
/// What became of the request.
pub fn ask_once_here(target: &Target, within: Duration) -> Result<Option<String>, NoGoodAnswer> {
    let without_status = |failure| NoGoodAnswer { failure, status: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|_| without_status(Failure::NotConnected))?;
    runtime.block_on(async {
        let mut connection = Connection::open(target, within).await.map_err(without_status)?;
        let answer = connection.get(Ask::Close, target, within).await;
        answer.map(|answer| answer.server).map_err(|failure| NoGoodAnswer { failure, status: connection.status() })
    })
}

/// A ledger is whole after every call, so one that a panic left locked is still good.
fn lock<T>(ledger: &Mutex<T>) -> MutexGuard<'_, T> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the calling thread a real-time one where that is permitted, else leaves it as it is: the noise of the measurement
/// grows by a few milliseconds then.
fn ask_for_real_time() {
    let parameters = libc::sched_param { sched_priority: PROBER_PRIORITY };
    // SAFETY: thread 0 is the calling one, and the kernel only reads the parameters.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
}

async fn probe_all(shared: Arc<Shared>) {
    let mut ticks = interval(shared.spec.probe_interval);
    // A stalled machine must not be answered with a burst: the probes of the time lost would say nothing new.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let in_time = shared.spec.probe_timeout.as_nanos() / shared.spec.probe_interval.as_nanos().max(1);
    let places = usize::try_from(in_time * 2).unwrap_or(PROBES_UNDER_WAY_MAX);
    let places = Arc::new(Semaphore::new(places.clamp(PROBES_UNDER_WAY_MIN, PROBES_UNDER_WAY_MAX)));
    loop {
        ticks.tick().await;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let start = Instant::now();
            let answer = timeout(shared.spec.probe_timeout, probe(&shared)).await;
            let answer = answer.unwrap_or(Err(Failure::TimedOut));
            let outcome = match &answer {
                Ok(answer) => ProbeOutcome::Answered { server: shared.server_index(answer) },
                Err(failure) => ProbeOutcome::Failed(*failure),
            };
            let mut probes = lock(&shared.probes);
            // The clock is read under the lock: the ledger is in the order of the ends.
            probes.record(Probe { start, end: Instant::now(), outcome });
            drop(probes);
            shared.write(Kind::New, 0, start, || answer.map(|answer| answer.server));
            drop(place);
        });
    }
}

async fn probe(shared: &Shared) -> Result<Answer, Failure> {
    let within = shared.spec.probe_timeout;
    let mut connection = Connection::open(&shared.spec.target, within).await?;
    connection.get(Ask::Close, &shared.spec.target, within).await
}

impl Shared {
    fn server_index(&self, answer: &Answer) -> Option<u8> {
        let name = answer.server.as_deref()?;
        self.spec.servers.iter().position(|server| server == name).and_then(|index| u8::try_from(index).ok())
    }

    fn ledger(&self, kind: Kind) -> &Mutex<TrafficLedger> {
        match kind {
            // The prober has a ledger of another sort, and never asks for this.
            Kind::Kept | Kind::New => &self.busy,
            Kind::User => &self.users,
            Kind::Websocket => &self.websockets,
            Kind::Tcp => &self.tcp,
        }
    }

    /// Notes a good answer to what began at `start`.
    pub(super) fn answered(&self, kind: Kind, number: u16, start: Instant, server: Option<&str>) {
        let now = Instant::now();
        lock(self.ledger(kind)).record_success(now, now.saturating_duration_since(start));
        self.write(kind, number, start, || Ok(server.map(str::to_owned)));
    }

    /// Notes what went wrong with what began at `start`.
    pub(super) fn went_wrong(&self, kind: Kind, number: u16, start: Instant, incident: Incident) {
        lock(self.ledger(kind)).record_incident(Instant::now(), incident);
        match incident {
            Incident::RequestFailed(failure)
            | Incident::ConnectionBroken(failure)
            | Incident::ReconnectFailed(failure) => self.write(kind, number, start, || Err(failure)),
            Incident::ServerLost { .. } => {}
        }
    }

    fn write(
        &self,
        kind: Kind,
        number: u16,
        start: Instant,
        outcome: impl FnOnce() -> Result<Option<String>, Failure>,
    ) {
        if let Some(journal) = &self.journal {
            journal.record(Entry { kind, number, start, latency: start.elapsed(), outcome: outcome() });
        }
    }
}

/// A connection that is opened, used until it breaks, and opened again.
async fn keep_busy(shared: Arc<Shared>, number: u16) {
    let spec = &shared.spec;
    loop {
        let mut start = Instant::now();
        let wrong = |start, incident| shared.went_wrong(Kind::Kept, number, start, incident);
        let mut connection = match Connection::open(&spec.target, spec.connect_timeout).await {
            Ok(connection) => connection,
            Err(failure) => {
                wrong(start, Incident::ReconnectFailed(failure));
                sleep(RECONNECT_PAUSE).await;
                continue;
            }
        };
        loop {
            start = Instant::now();
            match connection.get(Ask::KeepAlive, &spec.target, spec.answer_timeout).await {
                Ok(answer) => {
                    shared.answered(Kind::Kept, number, start, answer.server.as_deref());
                    if answer.closes {
                        break;
                    }
                }
                Err(Failure::Refused) => wrong(start, Incident::RequestFailed(Failure::Refused)),
                Err(failure) => {
                    wrong(start, Incident::ConnectionBroken(failure));
                    break;
                }
            }
            sleep(spec.busy_pause).await;
        }
        // Whoever accepts and closes at once must not be asked in a tight loop.
        sleep(spec.busy_pause).await;
    }
}

/// A user with a cookie jar of one cookie, on a connection that is opened again whenever it is lost.
async fn be_user(shared: Arc<Shared>, user: u16) {
    let spec = &shared.spec;
    let wrong = |start, incident| shared.went_wrong(Kind::User, user, start, incident);
    let mut jar: Option<String> = None;
    let mut last_server: Option<String> = None;
    let mut connection: Option<Connection> = None;
    // Spread over one pause, or all users would ask in the same millisecond forever.
    sleep(spec.user_pause * u32::from(user) / u32::from(spec.users.max(1))).await;
    loop {
        let start = Instant::now();
        let mut open = match connection.take() {
            Some(open) => open,
            None => match Connection::open(&spec.target, spec.connect_timeout).await {
                Ok(open) => open,
                Err(failure) => {
                    wrong(start, Incident::ReconnectFailed(failure));
                    sleep(RECONNECT_PAUSE).await;
                    continue;
                }
            },
        };
        let ask = Ask::WithCookie { name: &spec.cookie, value: jar.as_deref() };
        match open.get(ask, &spec.target, spec.answer_timeout).await {
            Ok(answer) => {
                jar = answer.cookie.or(jar);
                let server = answer.server.or_else(|| jar.clone());
                shared.answered(Kind::User, user, start, server.as_deref());
                if last_server.is_some() && last_server != server {
                    wrong(start, Incident::ServerLost { user });
                }
                last_server = server;
                connection = (!answer.closes).then_some(open);
            }
            Err(Failure::Refused) => {
                wrong(start, Incident::RequestFailed(Failure::Refused));
                connection = Some(open);
            }
            Err(failure) => wrong(start, Incident::ConnectionBroken(failure)),
        }
        sleep(spec.user_pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn answer_that_is_no_good_one_is_told_by_its_status() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let within = Duration::from_secs(10);
        let limited = ask_once_here(&Target::of_lab(address), within).unwrap_err();
        assert_eq!(limited.to_string(), "the answer has status 429, not 2xx or 3xx");
        server.join().unwrap();
        let gone = ask_once_here(&Target::of_lab(address), within).unwrap_err();
        assert_eq!(gone.to_string(), "no connection can be made");
    }
}
