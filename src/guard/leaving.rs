//! Has the clients of addresses leave before these move to the peer, so that they notice nothing of it.
//!
//! HTTP clients are told to come back on another connection, by all that they get on the ones that they have. When nobody is
//! left who was there before, or their time is over, new connections are held back in the kernel, and those that have just
//! come get their answers. Then the addresses may move: nobody is connected. What was held back goes to the peer. Nothing
//! here is decided by what the worker says: it hastens the move at best.

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::reload::Listening;
use super::supervisor::Command;
use crate::inquiry::{LeaveStage, Question};
use crate::net::newcomers::Newcomers;

/// Time for idle connections to close once they are closed on our side.
const CLOSE_MAX: Duration = Duration::from_millis(200);

/// Time in which connections that the kernel had answered before come out of its hands: the way to a client and back.
const SETTLE: Duration = Duration::from_millis(20);

/// Time for the last answers, in which nobody new is served anywhere. Well below the second after which a client that has
/// lost its SYN sends it again.
const LAST_MAX: Duration = Duration::from_millis(250);

/// All of it, where clients get that time; nothing where they get none.
pub fn time_max(drain: Duration) -> Duration {
    if drain.is_zero() { drain } else { drain + CLOSE_MAX + SETTLE + LAST_MAX }
}

/// Addresses that are about to move.
pub struct Leaving {
    worker: mpsc::Sender<Command>,
    addresses: Vec<IpAddr>,
    /// The sockets that listen on them.
    listeners: Vec<Arc<TcpListener>>,
    drain: Duration,
}

impl Leaving {
    /// Nobody has been told yet.
    pub fn new(worker: &mpsc::Sender<Command>, listening: &Listening, addresses: Vec<IpAddr>, drain: Duration) -> Self {
        let is_theirs = |ip: IpAddr| ip.is_unspecified() || addresses.contains(&ip);
        let sockets = listening.iter().filter(|(address, _)| is_theirs(address.ip()));
        let listeners = sockets.flat_map(|(_, sockets)| sockets).cloned().collect();
        Self { worker: worker.clone(), addresses, listeners, drain }
    }

    /// Tells clients, and ends when those that were there have left or their time is over. Cancel safe.
    pub async fn tell(&self) {
        if !self.ask(LeaveStage::Told, self.drain).await {
            self.ask(LeaveStage::Closed, CLOSE_MAX).await;
        }
    }

    /// Holds new connections back, and ends when the last client has its answer, or after a moment. `None` where they cannot
    /// be held back.
    pub async fn hold(&self) -> Option<Newcomers> {
        let held = Newcomers::hold(self.listeners.clone(), self.addresses.clone());
        let held = held.inspect_err(|error| warn!(%error, "new connections cannot be held back")).ok()?;
        sleep(SETTLE).await;
        self.ask(LeaveStage::Last, LAST_MAX).await;
        Some(held)
    }

    /// Clients may stay: the addresses have moved, or will not.
    pub fn over(&self) {
        let (reply, _nobody_waits) = oneshot::channel();
        let question = Question::Leave { addresses: Vec::new(), stage: LeaveStage::Told };
        // A worker that takes nothing ends soon.
        let _full = self.worker.try_send(Command::Ask { question, reply });
    }

    /// Whether the worker says in time that they have left. A worker that has ended has nobody.
    async fn ask(&self, stage: LeaveStage, patience: Duration) -> bool {
        let (reply, left) = oneshot::channel();
        let question = Question::Leave { addresses: self.addresses.clone(), stage };
        self.worker.try_send(Command::Ask { question, reply }).is_err() || timeout(patience, left).await.is_ok()
    }
}
