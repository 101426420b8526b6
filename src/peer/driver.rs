//! The thread's loop: has the replica speak with the peer over the connection that there is, and keeps the table swept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::info;

use super::Apply;
use super::Renewed;
use super::connection::{Connection, Ending};
use super::endpoint::Established;
use super::refusals::{Reason, Refusal, Refusals};
use crate::proxy::sessions::Sessions;
use crate::session::frame;
use crate::session::replica::{Fault, LAG_BOUNDS_US, LagCounts, Replica, Settings};
use crate::status::{DelaysStatus, ProgressStatus, SyncStatus};

/// Time between two looks at the table for what has expired, and between two updates of the status.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Time that is left at the end for what has not been sent.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// The loop and what it works on.
pub struct Driver {
    sessions: Arc<Sessions>,
    pair: Option<Conversations>,
    apply: Apply,
    refusals: Arc<Mutex<Refusals>>,
    synced: watch::Sender<bool>,
    /// The connection that there is, and what is said over it.
    conversation: Option<Conversation>,
    history: History,
}

/// What all conversations with the peer have in common.
pub struct Conversations {
    /// For each of them.
    pub settings: Settings,
    /// What is shown of them.
    pub shown: Arc<Mutex<SyncStatus>>,
}

/// A connection and what is said over it.
struct Conversation {
    connection: Connection,
    replica: Replica,
    /// Whether the peer has said hello. Before, it may still refuse this node's key: a client's handshake is over before the
    /// server has looked at that (RFC 8446 section 4.6).
    is_greeted: bool,
}

/// What former conversations have come to.
struct History {
    disconnects: u64,
    entries_sent: u64,
    entries_received: u64,
    entries_useless: u64,
    lags: LagCounts,
    state: &'static str,
    since: Instant,
}

impl Driver {
    /// One without a connection. `pair` is `None` where there is no other node.
    pub fn new(
        sessions: Arc<Sessions>,
        pair: Option<Conversations>,
        apply: Apply,
        refusals: Arc<Mutex<Refusals>>,
        synced: watch::Sender<bool>,
    ) -> Self {
        let history = History {
            disconnects: 0,
            entries_sent: 0,
            entries_received: 0,
            entries_useless: 0,
            lags: LagCounts::default(),
            state: "connecting",
            since: Instant::now(),
        };
        Self { sessions, pair, apply, refusals, synced, conversation: None, history }
    }

    /// Runs until it is stopped.
    pub async fn run(
        mut self,
        mut established: mpsc::Receiver<Established>,
        mut renewals: watch::Receiver<Option<Renewed>>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut sweep_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= sweep_at {
                sweep_at = now + SWEEP_INTERVAL;
                self.sessions.sweep();
                self.publish();
            }
            self.speak();
            let deadline = self.deadline().map_or(sweep_at, |deadline| deadline.min(sweep_at));
            tokio::select! {
                biased;
                _ = &mut stop => return self.part().await,
                Ok(()) = renewals.changed() => self.renew(renewals.borrow_and_update().clone()),
                Some(established) = established.recv() => self.begin(established),
                progress = progress(&mut self.conversation) => match progress {
                    Ok(()) => self.heed(),
                    Err(ending) => self.end(ending),
                },
                () = self.sessions.changed.notified() => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            // After what came in: this thread may have been late itself.
            self.look_at_the_time();
            self.tell_whether_synced();
        }
    }

    /// A new connection takes the place of the one that there is: the peer knows best which one it has lost.
    fn begin(&mut self, established: Established) {
        let Some(settings) = self.pair.as_ref().map(|pair| pair.settings.clone()) else { return };
        if self.conversation.is_some() {
            self.end(Ending::Over("the peer has made another one".to_owned()));
        }
        self.refusals().reached();
        let sessions = &self.sessions;
        let (now, mut facts) = (sessions.now(), sessions.facts());
        let replica = Replica::new(settings, now, &sessions.table, &mut facts, &sessions.limits);
        drop(facts);
        let connection = Connection::new(established);
        self.conversation = Some(Conversation { connection, replica, is_greeted: false });
        self.publish();
    }

    /// Goes over to another configuration. What was said of its pools and limits so far meant those of the one before.
    fn renew(&mut self, renewed: Option<Renewed>) {
        let Some(Renewed { sessions, checksum, pools, limits }) = renewed else { return };
        let settings = self.pair.as_ref().map(|pair| &pair.settings);
        let is_same = settings
            .is_none_or(|before| (&before.pools, &before.limits, before.checksum) == (&pools, &limits, checksum));
        if !is_same || !Arc::ptr_eq(&sessions, &self.sessions) {
            self.end(Ending::Over("the configuration was reloaded".to_owned()));
        }
        self.sessions = sessions;
        if let Some(pair) = &mut self.pair {
            (pair.settings.pools, pair.settings.limits, pair.settings.checksum) = (pools, limits, checksum);
        }
    }

    fn end(&mut self, ending: Ending) {
        let Some(Conversation { connection, mut replica, .. }) = self.conversation.take() else { return };
        let remote = connection.remote;
        match ending {
            Ending::Over(reason) => {
                info!(%remote, reason, "the sync link is down");
                self.refusals().ended(format!("{remote}: {reason}"));
            }
            Ending::Refused(refusal) => {
                let mut last_word = Vec::new();
                frame::put_goodbye(&mut last_word, &refusal.detail);
                connection.break_off(&last_word);
                self.refusals().note(Some(remote), &refusal);
            }
        }
        let state = replica.state(self.sessions.now(), &self.sessions.table);
        replica.close(&self.sessions.table, &self.sessions.limits);
        self.history.disconnects += 1;
        self.history.entries_sent += state.entries_sent;
        self.history.entries_received += state.entries_received;
        self.history.entries_useless += state.entries_useless;
        self.history.lags += replica.lag_counts();
        self.tell_whether_synced();
        self.publish();
    }

    /// Puts what is to be said next into the connection.
    fn speak(&mut self) {
        let Some(Conversation { connection, replica, .. }) = &mut self.conversation else { return };
        if let Some(room) = connection.room() {
            let sessions = &self.sessions;
            replica.transmit(sessions.now(), room, &sessions.table, &mut sessions.facts(), &sessions.limits);
        }
    }

    /// Ends the conversation when the peer lets it wait for too long.
    fn look_at_the_time(&mut self) {
        let Some(Conversation { connection, replica, .. }) = &mut self.conversation else { return };
        let silence = replica.timer(self.sessions.now()).map_err(ending_of);
        if let Err(ending) = connection.check(Instant::now()).and(silence) {
            self.end(ending);
        }
    }

    /// Takes what the peer said.
    fn heed(&mut self) {
        let Some(Conversation { connection, replica, is_greeted }) = &mut self.conversation else { return };
        if connection.received().is_empty() {
            return;
        }
        let sessions = &self.sessions;
        let (now, bytes) = (sessions.now(), connection.received());
        let received = replica.received(now, bytes, &sessions.table, &mut sessions.facts(), &sessions.limits);
        if received.is_ok() && !std::mem::replace(is_greeted, replica.has_heard_hello()) && *is_greeted {
            info!(remote = %connection.remote, "the sync link is up");
        }
        match received {
            Ok(received) if received.facts.is_empty() => {}
            Ok(received) => (self.apply)(&received.facts),
            Err(fault) => self.end(ending_of(fault)),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let Conversation { connection, replica, .. } = self.conversation.as_ref()?;
        // While something waits to be written nothing more can be said, whatever is due.
        let left = replica.deadline().saturating_sub(self.sessions.now());
        connection.deadline().or_else(|| Some(Instant::now() + left))
    }

    fn tell_whether_synced(&mut self) {
        let (now, table) = (self.sessions.now(), &self.sessions.table);
        let is_synced = self.conversation.as_mut().is_some_and(|talk| talk.replica.state(now, table).in_sync);
        if self.synced.send_if_modified(|synced| std::mem::replace(synced, is_synced) != is_synced) {
            self.publish();
        }
    }

    /// Says all that is left to say.
    async fn part(mut self) {
        let farewell = async {
            loop {
                self.speak();
                let Some(conversation) = &mut self.conversation else { return Ok(()) };
                if conversation.connection.is_idle() {
                    return Ok(());
                }
                conversation.connection.progress().await?;
            }
        };
        // Whatever went wrong: there is nobody left to do anything about it.
        let _ended: Result<Result<(), Ending>, _> = timeout(FAREWELL_TIMEOUT, farewell).await;
        if let Some(conversation) = self.conversation.take() {
            let _late = timeout(FAREWELL_TIMEOUT, conversation.connection.close()).await;
        }
    }

    /// Has the status say how it is.
    fn publish(&mut self) {
        let Some(pair) = &self.pair else { return };
        let refusals = lock(&self.refusals);
        let in_sync = *self.synced.borrow();
        let state = match &self.conversation {
            Some(_) if in_sync => "in_sync",
            Some(conversation) if conversation.is_greeted => "connected",
            _ if refusals.is_last() => "refused",
            _ => "connecting",
        };
        let (now, table) = (self.sessions.now(), &self.sessions.table);
        let mut lags = self.history.lags.clone();
        if let Some(conversation) = &self.conversation {
            lags += conversation.replica.lag_counts();
        }
        let replica = self.conversation.as_mut().map(|conversation| conversation.replica.state(now, table));
        let replica = replica.unwrap_or_default();
        if std::mem::replace(&mut self.history.state, state) != state {
            self.history.since = Instant::now();
        }
        let status = SyncStatus {
            peer: pair.settings.peer.clone(),
            state: state.to_owned(),
            in_sync,
            since_ms: u64::try_from(self.history.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            protocol: replica.protocol,
            lag_entries: replica.lag_entries,
            lag_us: micros(replica.lag),
            lag_max_us: micros(replica.lag_max),
            delays: DelaysStatus {
                bounds_us: LAG_BOUNDS_US.to_vec(),
                counts: lags.classes.to_vec(),
                sum_us: lags.sum_us,
            },
            snapshot_sent: progress_of(replica.snapshot_sent, replica.is_snapshot_sent),
            snapshot_received: progress_of(replica.snapshot_received, replica.is_snapshot_received),
            entries_sent: self.history.entries_sent + replica.entries_sent,
            entries_received: self.history.entries_received + replica.entries_received,
            entries_useless: self.history.entries_useless + replica.entries_useless,
            disconnects: self.history.disconnects,
            refused: refusals.counts(),
            last_error: refusals.last().map(str::to_owned),
            config_differs: replica.config_differs,
        };
        *lock(&pair.shown) = status;
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        lock(&self.refusals)
    }
}

/// The conversation's next progress; never without one.
async fn progress(conversation: &mut Option<Conversation>) -> Result<(), Ending> {
    match conversation {
        Some(conversation) => conversation.connection.progress().await,
        None => std::future::pending().await,
    }
}

/// What the replica gives up for. That the peer does so is no fault of what it said: it says what it found wrong itself.
fn ending_of(fault: Fault) -> Ending {
    match fault {
        Fault::Goodbye(_) => Ending::Over(fault.to_string()),
        _ => Ending::Refused(Refusal::new(Reason::Protocol(fault.as_str()), fault)),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn progress_of((done, total): (u64, u64), finished: bool) -> ProgressStatus {
    ProgressStatus { done, total, finished }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
