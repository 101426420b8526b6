//! The thread's loop: has the replica speak with the peer over the connection that there is, and keeps the table swept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::info;

use super::Apply;
use super::connection::{Connection, Ending};
use super::endpoint::Established;
use super::refusals::{Reason, Refusal, Refusals};
use crate::proxy::sessions::Sessions;
use crate::session::replica::{Fault, Replica, Settings};
use crate::status::SyncStatus;

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
    /// The other node's name.
    pub peer_node: String,
    /// What is shown of them.
    pub shown: Arc<Mutex<SyncStatus>>,
}

/// A connection and what is said over it.
struct Conversation {
    connection: Connection,
    replica: Replica,
}

/// What former conversations have come to.
struct History {
    disconnects: u64,
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
        let history = History { disconnects: 0, state: "connecting", since: Instant::now() };
        Self { sessions, pair, apply, refusals, synced, conversation: None, history }
    }

    /// Runs until it is stopped.
    pub async fn run(mut self, mut established: mpsc::Receiver<Established>, mut stop: oneshot::Receiver<()>) {
        let mut sweep_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= sweep_at {
                sweep_at = now + SWEEP_INTERVAL;
                self.sessions.table.sweep(self.sessions.now());
                self.publish();
            }
            self.attend(now);
            let deadline = self.deadline().map_or(sweep_at, |deadline| deadline.min(sweep_at));
            tokio::select! {
                biased;
                _ = &mut stop => return self.part().await,
                Some(established) = established.recv() => self.begin(established),
                progress = progress(&mut self.conversation) => match progress {
                    Ok(()) => self.heed(),
                    Err(ending) => self.end(ending),
                },
                () = self.sessions.changed.notified() => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
    }

    /// A new connection takes the place of the one that there is: the peer knows best which one it has lost.
    fn begin(&mut self, established: Established) {
        let Some(settings) = self.pair.as_ref().map(|pair| pair.settings.clone()) else { return };
        if self.conversation.is_some() {
            self.end(Ending::Over("the peer has made another one".to_owned()));
        }
        self.refusals().reached();
        info!(remote = %established.remote, "the sync link is up");
        let replica = Replica::new(settings, self.sessions.now());
        self.conversation = Some(Conversation { connection: Connection::new(established), replica });
        self.publish();
    }

    fn end(&mut self, ending: Ending) {
        let Some(Conversation { connection, .. }) = self.conversation.take() else { return };
        match ending {
            Ending::Over(reason) => {
                info!(remote = %connection.remote, reason, "the sync link is down");
                self.refusals().ended(format!("{}: {reason}", connection.remote));
            }
            Ending::Refused(refusal) => self.refusals().note(Some(connection.remote), &refusal),
        }
        self.history.disconnects += 1;
        self.publish();
    }

    /// Does what is due, and puts what is to be said next into the connection.
    fn attend(&mut self, now: Instant) {
        if let Err(ending) = self.try_attend(now) {
            self.end(ending);
        }
        self.tell_whether_synced();
    }

    fn try_attend(&mut self, now: Instant) -> Result<(), Ending> {
        let Some(Conversation { connection, replica }) = &mut self.conversation else { return Ok(()) };
        let session_now = self.sessions.now();
        connection.check(now)?;
        if replica.deadline().is_some_and(|deadline| deadline <= session_now) {
            replica.timer(session_now).map_err(ending_of)?;
        }
        if let Some(room) = connection.room() {
            replica.transmit(session_now, room, &self.sessions.table, &mut lock(&self.sessions.facts));
        }
        Ok(())
    }

    /// Takes what the peer said.
    fn heed(&mut self) {
        let Some(Conversation { connection, replica }) = &mut self.conversation else { return };
        if connection.received().is_empty() {
            return;
        }
        let now = self.sessions.now();
        let result = replica.received(now, connection.received(), &self.sessions.table, &mut lock(&self.sessions.facts));
        match result {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => (self.apply)(&changes),
            Err(fault) => self.end(ending_of(fault)),
        }
        self.tell_whether_synced();
    }

    fn deadline(&self) -> Option<Instant> {
        let Conversation { connection, replica } = self.conversation.as_ref()?;
        let left = replica.deadline().map(|deadline| deadline.saturating_sub(self.sessions.now()));
        let said_at = left.map(|left| Instant::now() + left);
        [connection.deadline(), said_at].into_iter().flatten().min()
    }

    fn tell_whether_synced(&mut self) {
        let is_synced = self.conversation.as_ref().is_some_and(|conversation| conversation.replica.is_synced());
        if self.synced.send_if_modified(|synced| std::mem::replace(synced, is_synced) != is_synced) {
            self.publish();
        }
    }

    /// Says all that is left to say.
    async fn part(mut self) {
        let farewell = async {
            loop {
                self.try_attend(Instant::now())?;
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
            Some(_) => "connected",
            None if refusals.is_last() => "refused",
            None => "connecting",
        };
        if std::mem::replace(&mut self.history.state, state) != state {
            self.history.since = Instant::now();
        }
        let status = SyncStatus {
            peer: pair.peer_node.clone(),
            state: state.to_owned(),
            in_sync,
            since_ms: u64::try_from(self.history.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            disconnects: self.history.disconnects,
            refused: refusals.counts(),
            last_error: refusals.last().map(str::to_owned),
            ..SyncStatus::default()
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

/// Who is at fault when the replica gives up, for the status.
fn ending_of(fault: Fault) -> Ending {
    let reason = match fault {
        Fault::Version => Reason::Version,
        Fault::Silent => Reason::Silent,
        Fault::Frame(_) => Reason::Protocol,
    };
    Ending::Refused(Refusal::new(reason, fault))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
