//! Clients of the pair: what they do all the time, so that what an event does to them can be told.
//!
//! Three kinds, each on a thread of its own inside the client's namespace, so that none delays another:
//! - the prober makes a new connection every 2 ms whether or not the others came back, and so measures time without service;
//! - busy connections are kept open and ask again at once or nearly so: they show what breaks;
//! - users carry a cookie and should meet the same server for as long as it lives.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::LabError;
use super::client::{Answer, Ask, Connection, Failure};
use super::ledger::{Incident, Probe, ProbeLedger, ProbeOutcome, TrafficLedger, Window};
use super::namespace::Namespace;

/// Probes under way at once; at the default pace and time-out there are never more than 26.
const PROBES_UNDER_WAY_MAX: usize = 64;

/// Priority of the prober among real-time threads: above ordinary work, below a guard.
const PROBER_PRIORITY: i32 = 5;

/// Time for a busy connection or a user to connect. Below the kernel's first SYN retry (1 s), which would otherwise
/// stretch every outage to a second for whoever connects during it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// Time for an answer on a kept connection. A connection to a node that is gone learns of it when the new one resets it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Wait before connecting again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Who asks what, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadSpec {
    /// Where all of them connect.
    pub target: SocketAddr,
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
}

impl LoadSpec {
    /// A probe every 2 ms, 16 busy connections, 40 users: some 4,000 requests a second, which leave two cores room to breathe.
    pub fn steady(target: SocketAddr, servers: Vec<String>) -> Self {
        Self {
            target,
            servers,
            probe_interval: Duration::from_millis(2),
            probe_timeout: Duration::from_millis(50),
            busy_connections: 16,
            busy_pause: Duration::from_millis(5),
            users: 40,
            user_pause: Duration::from_millis(50),
            cookie: "BATON".to_owned(),
        }
    }
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    spec: LoadSpec,
    host: String,
    // One lock for each thread of clients, so that the prober never waits for a thread of lower priority.
    probes: Mutex<ProbeLedger>,
    busy: Mutex<TrafficLedger>,
    users: Mutex<TrafficLedger>,
}

/// Clients at work. They stop when it is dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    started: Instant,
    stop: watch::Sender<()>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Load {
    /// Starts all clients inside `namespace`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(namespace: &Namespace, spec: LoadSpec) -> Result<Self, LabError> {
        let now = Instant::now();
        let shared = Arc::new(Shared {
            host: spec.target.to_string(),
            spec,
            probes: Mutex::new(ProbeLedger::default()),
            busy: Mutex::new(TrafficLedger::new(now)),
            users: Mutex::new(TrafficLedger::new(now)),
        });
        // A probe a 2 ms holds 30,000 ports for the minute that a closed one is kept, more than the default range has.
        // Where /proc/sys is read-only the default has to do.
        namespace.run(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535").ok())?;
        let (stop, _) = watch::channel(());
        let mut load = Self { shared, started: now, stop, threads: Vec::new() };
        load.spawn(namespace, "prober", |shared| async move {
            ask_for_real_time();
            probe_all(shared).await;
        })?;
        load.spawn(namespace, "busy clients", |shared| async move {
            for _ in 0..shared.spec.busy_connections {
                tokio::spawn(keep_busy(Arc::clone(&shared)));
            }
            std::future::pending().await
        })?;
        load.spawn(namespace, "users", |shared| async move {
            for user in 0..shared.spec.users {
                tokio::spawn(be_user(Arc::clone(&shared), user));
            }
            std::future::pending().await
        })?;
        Ok(load)
    }

    fn spawn<F: Future<Output = ()>>(
        &mut self,
        namespace: &Namespace,
        name: &str,
        work: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> Result<(), LabError> {
        let shared = Arc::clone(&self.shared);
        let mut stopped = self.stop.subscribe();
        let thread = namespace.spawn(name, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped.changed() => {}
                    () = work(shared) => {}
                }
            });
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// What clients saw between two times.
    pub fn window(&self, from: Instant, to: Instant) -> Window {
        // Copied under the lock and judged outside: a client must not wait for arithmetic.
        let probes = lock(&self.shared.probes).slice(from, to);
        let busy = lock(&self.shared.busy).slice(from, to);
        let users = lock(&self.shared.users).slice(from, to);
        Window::draw(from, to, &probes, &busy, &users)
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
        calm(&self.shared.busy) && calm(&self.shared.users) && window.failed.new_connections == 0 && window.answered > 0
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
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
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|_| Failure::NotConnected)?;
        runtime.block_on(async {
            let mut connection = Connection::open(target, within).await?;
            let answer = connection.get(Ask::Close, &target.to_string(), within).await?;
            Ok(answer.server)
        })
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
    let places = Arc::new(Semaphore::new(PROBES_UNDER_WAY_MAX));
    loop {
        ticks.tick().await;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let start = Instant::now();
            let outcome = timeout(shared.spec.probe_timeout, probe(&shared)).await;
            let outcome = match outcome.unwrap_or(Err(Failure::TimedOut)) {
                Ok(answer) => ProbeOutcome::Answered { server: shared.server_index(&answer) },
                Err(failure) => ProbeOutcome::Failed(failure),
            };
            let mut probes = lock(&shared.probes);
            // The clock is read under the lock: the ledger is in the order of the ends.
            probes.record(Probe { start, end: Instant::now(), outcome });
            drop(probes);
            drop(place);
        });
    }
}

async fn probe(shared: &Shared) -> Result<Answer, Failure> {
    let within = shared.spec.probe_timeout;
    let mut connection = Connection::open(shared.spec.target, within).await?;
    connection.get(Ask::Close, &shared.host, within).await
}

impl Shared {
    fn server_index(&self, answer: &Answer) -> Option<u8> {
        let name = answer.server.as_deref()?;
        self.spec.servers.iter().position(|server| server == name).and_then(|index| u8::try_from(index).ok())
    }
}

/// A connection that is opened, used until it breaks, and opened again.
async fn keep_busy(shared: Arc<Shared>) {
    let note = |incident| lock(&shared.busy).record_incident(Instant::now(), incident);
    loop {
        let mut connection = match Connection::open(shared.spec.target, CONNECT_TIMEOUT).await {
            Ok(connection) => connection,
            Err(failure) => {
                note(Incident::ReconnectFailed(failure));
                sleep(RECONNECT_PAUSE).await;
                continue;
            }
        };
        loop {
            match connection.get(Ask::KeepAlive, &shared.host, ANSWER_TIMEOUT).await {
                Ok(answer) => {
                    lock(&shared.busy).record_success(Instant::now());
                    if answer.closes {
                        break;
                    }
                }
                Err(Failure::Refused) => note(Incident::RequestFailed(Failure::Refused)),
                Err(failure) => {
                    note(Incident::ConnectionBroken(failure));
                    break;
                }
            }
            sleep(shared.spec.busy_pause).await;
        }
        // Whoever accepts and closes at once must not be asked in a tight loop.
        sleep(shared.spec.busy_pause).await;
    }
}

/// A user with a cookie jar of one cookie, on a connection that is opened again whenever it is lost.
async fn be_user(shared: Arc<Shared>, user: u16) {
    let note = |incident| lock(&shared.users).record_incident(Instant::now(), incident);
    let mut jar: Option<String> = None;
    let mut last_server: Option<String> = None;
    let mut connection: Option<Connection> = None;
    // Spread over one pause, or all users would ask in the same millisecond forever.
    sleep(shared.spec.user_pause * u32::from(user) / u32::from(shared.spec.users.max(1))).await;
    loop {
        let mut open = match connection.take() {
            Some(open) => open,
            None => match Connection::open(shared.spec.target, CONNECT_TIMEOUT).await {
                Ok(open) => open,
                Err(failure) => {
                    note(Incident::ReconnectFailed(failure));
                    sleep(RECONNECT_PAUSE).await;
                    continue;
                }
            },
        };
        let ask = Ask::WithCookie { name: &shared.spec.cookie, value: jar.as_deref() };
        match open.get(ask, &shared.host, ANSWER_TIMEOUT).await {
            Ok(answer) => {
                lock(&shared.users).record_success(Instant::now());
                if last_server.is_some() && last_server != answer.server {
                    note(Incident::ServerLost { user });
                }
                last_server = answer.server;
                jar = answer.cookie.or(jar);
                connection = (!answer.closes).then_some(open);
            }
            Err(Failure::Refused) => {
                note(Incident::RequestFailed(Failure::Refused));
                connection = Some(open);
            }
            Err(failure) => note(Incident::ConnectionBroken(failure)),
        }
        sleep(shared.spec.user_pause).await;
    }
}
