//! The loop of the store's thread: connect, serve until the store does not answer, connect again.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::connection::Connection;
use super::errand::{Background, Done, Errand, Request};
use super::owed::Owed;
use super::{OPEN_TIMEOUT, Shared};

/// Tasks at once. What is asked beyond waits in the queue.
const TASKS_MAX: usize = 1024;
/// As above, for what nobody waits for.
const BACKGROUND_TASKS_MAX: usize = 256;
/// Debts that are written at once.
const WRITES_MAX: usize = 256;
/// Time between two looks at a store that nobody asks anything.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A store that answered for so long is tried again at once when it goes away, and not as one that comes and goes.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// The longest that the end waits for what is owed to a store that answers.
const LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Thread {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    background: mpsc::Receiver<Background>,
    owed: Owed,
    tasks: JoinSet<Result<Done, String>>,
}

/// Why the store is not served any more.
enum Ended {
    /// It does not answer.
    Away(String),
    /// Nobody is there to ask.
    Dropped,
}

impl Thread {
    pub(super) fn new(
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        background: mpsc::Receiver<Background>,
    ) -> Self {
        Self { shared, requests, background, owed: Owed::default(), tasks: JoinSet::new() }
    }

    pub(super) async fn run(mut self) {
        let mut retry = RETRY_MIN;
        loop {
            let url = self.shared.settings.url();
            let Some(opened) = self.while_away(open(Arc::clone(&self.shared))).await else { return };
            let reason = match opened {
                Ok(connection) => {
                    self.shared.set_connected(None);
                    self.owed.store_is_back();
                    info!(url, owed = self.owed.len(), "the session store is connected");
                    let since = Instant::now();
                    let errand = Errand { connection, shared: Arc::clone(&self.shared) };
                    let reason = match self.serve(&errand).await {
                        Ended::Away(reason) => reason,
                        Ended::Dropped => return self.write_last(&errand).await,
                    };
                    if since.elapsed() >= STEADY_AFTER {
                        retry = RETRY_MIN;
                    }
                    reason
                }
                Err(reason) => reason,
            };
            // Those who wait are told at once, by the end of what would have answered them.
            self.tasks = JoinSet::new();
            self.owed.store_went_away();
            if self.shared.set_connected(Some(reason.clone())) {
                warn!(url, reason, "the session store is away: sessions are placed by hashing");
            }
            // Half of it at random, so that load balancers which lost the store together do not come back together.
            let pause = retry.mul_f64(0.5 + fastrand::f64() / 2.0);
            if self.while_away(sleep(pause)).await.is_none() {
                return;
            }
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    /// Waits for something while the store is away: requests are turned down, what is to be written is kept. `None` when
    /// nobody is there to ask any more.
    async fn while_away<T>(&mut self, something: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(something);
        loop {
            tokio::select! {
                biased;
                done = &mut something => return Some(done),
                request = self.requests.recv() => drop(request?),
                errand = self.background.recv() => self.keep(errand?),
            }
        }
    }

    /// Serves until the store does not answer or nobody asks any more.
    async fn serve(&mut self, errand: &Errand) -> Ended {
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (has_room, has_background_room) =
                (self.tasks.len() < TASKS_MAX, self.tasks.len() < BACKGROUND_TASKS_MAX);
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => {
                    if let Err(reason) = self.done(done) {
                        return Ended::Away(reason);
                    }
                }
                request = self.requests.recv(), if has_room => match request {
                    // Nobody waits for the answer any more.
                    Some(request) if request.reply.is_closed() => {}
                    Some(request) => drop(self.tasks.spawn(errand.clone().answer(request))),
                    None => return Ended::Dropped,
                },
                () = ready_if(self.owed.can_send()) => {
                    drop(self.tasks.spawn(errand.clone().write(self.owed.send(WRITES_MAX))));
                }
                told = self.background.recv(), if has_background_room => match told {
                    Some(Background::Recheck { key, server }) => {
                        // What is to be written yet is newer than what would be found.
                        if !self.owed.has(&key) {
                            drop(self.tasks.spawn(errand.clone().compare(key, server)));
                        }
                    }
                    Some(told) => self.keep(told),
                    None => return Ended::Dropped,
                },
                _ = ping.tick() => drop(self.tasks.spawn(errand.clone().ping())),
            }
        }
    }

    fn done(&mut self, done: Result<Result<Done, String>, JoinError>) -> Result<(), String> {
        // None is told to end while it is looked at, and one that panics ends the program.
        let Ok(done) = done else { return Ok(()) };
        match done? {
            Done::Answered => {}
            Done::Written => {
                self.owed.written();
                self.show_owed();
            }
            Done::Compared(key, seen) => {
                if let Some(seen) = seen.filter(|_| !self.owed.has(&key)) {
                    (self.shared.apply)(&key, seen);
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, told: Background) {
        if !self.owed.add(told) {
            self.shared.counters.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        self.show_owed();
    }

    fn show_owed(&self) {
        self.shared.counters.owed.store(self.owed.len() as u64, Ordering::Relaxed);
    }

    /// Writes what is owed before the end, as far as the time goes.
    async fn write_last(mut self, errand: &Errand) {
        while let Ok(told) = self.background.try_recv() {
            self.keep(told);
        }
        let last = async {
            while self.owed.len() > 0 {
                if self.owed.can_send() {
                    self.tasks.spawn(errand.clone().write(self.owed.send(WRITES_MAX)));
                }
                let Some(done) = self.tasks.join_next().await else { return };
                if self.done(done).is_err() {
                    return;
                }
            }
        };
        // What is not written then, the tables of the others still have.
        let _late = timeout(LAST_WRITES_TIMEOUT, last).await;
    }
}

async fn open(shared: Arc<Shared>) -> Result<Connection, String> {
    match timeout(OPEN_TIMEOUT, Connection::open(&shared.settings)).await {
        Ok(opened) => opened,
        Err(_) => Err(format!("it did not let us in within {} s", OPEN_TIMEOUT.as_secs())),
    }
}

async fn ready_if(condition: bool) {
    if !condition {
        pending::<()>().await;
    }
}
