//! Starts the worker, watches it, and starts it again.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::debug;

use super::fitness::threads;
use crate::fitness::silence::{Judged, Silence};
use crate::link::{self, Bootstrap, FromWorker, Report, ToWorker};
use crate::net::child;

/// Time for a new worker to say that it serves.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A worker that has not answered for this long will not come back by itself.
const HUNG_MAX: Duration = Duration::from_secs(10);
/// Time for a worker to end that has closed its link, before its VIPs are given up for that.
const EXIT_TIMEOUT: Duration = Duration::from_millis(2);
/// And before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a restart: doubled each time, from this...
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// ...to this...
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// ...and forgotten after a worker has run for this long.
const BACKOFF_RESET: Duration = Duration::from_secs(30);

/// What the supervisor tells the guard.
#[derive(Debug)]
pub enum Event {
    /// A worker was started.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It serves.
    Ready,
    /// It answered a probe.
    Alive(Box<Report>),
    /// Whether it has what the peer has changed.
    Synced(bool),
    /// It does not answer and will not.
    Hung {
        /// Time without an answer.
        silent_for: Duration,
        /// What shows it, in words.
        evidence: String,
    },
    /// It has closed its link and takes its time to end: the kernel closes its connections one by one.
    Closed,
    /// It has ended, and why, in words.
    Ended(String),
    /// It has drained and ended, as it was told to.
    Drained,
}

/// How workers are started and watched.
pub struct Supervisor {
    /// What each worker gets.
    pub bootstrap: Box<dyn Fn() -> Bootstrap>,
    /// The listening sockets, in the order of [`Bootstrap`].
    pub sockets: Vec<std::net::TcpListener>,
    /// Time between two probes.
    pub probe_interval: Duration,
    /// Time without an answer after which its threads are looked at, and it counts as hung or as starved.
    pub probe_timeout: Duration,
    /// Time that it gets to drain.
    pub drain_timeout: Duration,
    /// To the guard.
    pub events: mpsc::Sender<Event>,
    /// For the worker that runs. What comes before it serves waits for it.
    pub orders: mpsc::Receiver<ToWorker>,
    /// One message: drain and end.
    pub stop: mpsc::Receiver<()>,
}

/// Why watching a worker ended.
enum Ending {
    /// By itself, or because it had to be killed.
    Ended(String),
    /// Because it was told to.
    Drained,
}

impl Supervisor {
    /// Keeps a worker running until it is told to stop.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let started = Instant::now();
            let ending = match self.spawn() {
                Ok((child, socket)) => self.watch(child, socket).await,
                Err(error) => Ending::Ended(format!("it could not be started: {error}")),
            };
            match ending {
                Ending::Drained => return self.tell(Event::Drained).await,
                Ending::Ended(reason) => self.tell(Event::Ended(reason)).await,
            }
            if started.elapsed() >= BACKOFF_RESET {
                backoff = BACKOFF_MIN;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                _ = self.stop.recv() => return self.tell(Event::Drained).await,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Starts a worker and hands it its bootstrap. Never waits for it.
    fn spawn(&self) -> io::Result<(Child, UnixStream)> {
        let (child, ours) = child::spawn("worker")?;
        let sockets: Vec<_> = self.sockets.iter().map(AsFd::as_fd).collect();
        link::send_bootstrap(&ours, &(self.bootstrap)(), &sockets)?;
        ours.set_nonblocking(true)?;
        Ok((child, UnixStream::from_std(ours)?))
    }

    async fn watch(&mut self, mut child: Child, socket: UnixStream) -> Ending {
        let pid = child.id().unwrap_or_default();
        self.tell(Event::Started { pid }).await;
        let (mut sender, mut receiver) = link::halves(socket);
        let mut probes = interval(self.probe_interval);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut state = Watched::new(Instant::now());
        let mut failure = None;
        loop {
            // What has arrived comes before any judgement: this loop may have been late itself.
            tokio::select! {
                biased;
                ended = child.wait() => return Ending::Ended(failure.unwrap_or_else(|| exit_reason(ended))),
                _ = self.stop.recv() => return self.drain(child, sender).await,
                message = receiver.receive() => match message {
                    Ok(Some(FromWorker::Ready)) => {
                        state.ready(Instant::now());
                        self.tell(Event::Ready).await;
                    }
                    Ok(Some(FromWorker::Alive { report, .. })) => {
                        state.answered(Instant::now());
                        self.tell(Event::Alive(report)).await;
                    }
                    Ok(Some(FromWorker::Synced { synced })) => self.tell(Event::Synced(synced)).await,
                    Ok(Some(FromWorker::Failed { reason })) => failure = Some(reason),
                    // It is about to end, or talks nonsense; either way it is of no more use.
                    Ok(None) | Err(_) => return Ending::Ended(self.last_words(child, failure).await),
                },
                Some(order) = self.orders.recv(), if state.is_ready => {
                    if timeout(self.probe_interval, sender.send(&order)).await.is_err() {
                        return kill(child, "it reads no orders".to_owned()).await;
                    }
                }
                // One question at a time: a worker that is behind must not have to answer the last of many.
                _ = probes.tick(), if state.may_ask() => {
                    let probe = state.ask(self.probe_interval, self.probe_timeout);
                    // A worker that hangs reads nothing. The socket holds far more than the one probe.
                    if timeout(self.probe_interval, sender.send(&probe)).await.is_err() {
                        return kill(child, "it reads no probes".to_owned()).await;
                    }
                }
                () = sleep_until(state.look_at()), if state.may_look() => {
                    if let Judged::Hung { silent_for, evidence } = state.look(pid) {
                        self.tell(Event::Hung { silent_for, evidence }).await;
                    }
                }
                () = sleep_until(state.give_up_at()), if !state.is_ready || state.is_hung => {
                    return kill(child, state.why_given_up()).await;
                }
            }
        }
    }

    /// Why a worker ended whose link has closed. A process that ends closes its link first, and only then can be asked how
    /// it ended.
    async fn last_words(&self, mut child: Child, failure: Option<String>) -> String {
        let mut ended = timeout(EXIT_TIMEOUT, child.wait()).await;
        if ended.is_err() {
            self.tell(Event::Closed).await;
            ended = timeout(END_TIMEOUT, child.wait()).await;
        }
        if ended.is_err() {
            // It may have ended by itself a moment ago, which is as good.
            drop(child.kill().await);
        }
        failure.unwrap_or_else(|| ended.map_or_else(|_| "it closed its link".to_owned(), exit_reason))
    }

    async fn drain(&self, mut child: Child, mut sender: link::Sender) -> Ending {
        let asked = timeout(self.probe_interval, sender.send(&ToWorker::Drain)).await;
        if matches!(asked, Ok(Ok(()))) && timeout(self.drain_timeout, child.wait()).await.is_ok() {
            return Ending::Drained;
        }
        kill(child, String::new()).await;
        Ending::Drained
    }

    async fn tell(&self, event: Event) {
        // The guard reads this queue for as long as it lives.
        drop(self.events.send(event).await);
    }
}

/// A worker that runs, as the supervisor sees it.
struct Watched {
    started: Instant,
    is_ready: bool,
    is_hung: bool,
    last_alive: Instant,
    sequence: u64,
    /// While a question waits for its answer.
    silence: Option<Silence>,
}

impl Watched {
    fn new(now: Instant) -> Self {
        Self { started: now, is_ready: false, is_hung: false, last_alive: now, sequence: 0, silence: None }
    }

    fn ready(&mut self, now: Instant) {
        (self.is_ready, self.last_alive) = (true, now);
    }

    fn answered(&mut self, now: Instant) {
        (self.is_hung, self.silence, self.last_alive) = (false, None, now);
    }

    fn may_ask(&self) -> bool {
        self.is_ready && self.silence.is_none()
    }

    fn ask(&mut self, probe_interval: Duration, probe_timeout: Duration) -> ToWorker {
        let (now, last_alive) = (Instant::now().into_std(), self.last_alive.into_std());
        self.silence = Some(Silence::begin(now, last_alive, probe_interval, probe_timeout));
        self.sequence += 1;
        ToWorker::Probe { sequence: self.sequence }
    }

    fn may_look(&self) -> bool {
        self.silence.is_some() && !self.is_hung
    }

    fn look_at(&self) -> Instant {
        self.silence.as_ref().map_or(self.last_alive, |silence| Instant::from_std(silence.deadline()))
    }

    fn look(&mut self, pid: u32) -> Judged {
        let Some(silence) = &mut self.silence else { return Judged::Wait };
        let threads = threads::of_worker(pid);
        debug!(?threads, "the worker has not answered yet");
        let judged = silence.look(Instant::now().into_std(), threads);
        self.is_hung = judged != Judged::Wait;
        judged
    }

    fn give_up_at(&self) -> Instant {
        if self.is_ready { self.last_alive + HUNG_MAX } else { self.started + START_TIMEOUT }
    }

    fn why_given_up(&self) -> String {
        if self.is_ready {
            format!("it did not answer for {} s and was killed", HUNG_MAX.as_secs())
        } else {
            format!("it did not serve within {} s", START_TIMEOUT.as_secs())
        }
    }
}

async fn kill(mut child: Child, reason: String) -> Ending {
    // It may have ended by itself a moment ago, which is as good.
    drop(child.kill().await);
    Ending::Ended(reason)
}

/// How a process ended, in words.
pub fn exit_reason(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("it exited with status {code}"),
            (None, Some(signal)) => format!("it was killed by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        },
        Err(error) => format!("it cannot be waited for: {error}"),
    }
}
