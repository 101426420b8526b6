//! Checks that are programs. The worker starts none: it asks the guard for it, who runs them as the worker's user and tells how
//! they ended.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

/// Checks on their way to the guard. More than that wait for room, each no longer than it may take.
const QUEUE_MAX: usize = 64;

/// One check that the guard is asked for.
#[derive(Debug)]
pub struct Asked {
    /// The pool whose command it is.
    pub pool: String,
    /// The server that it is about.
    pub server: String,
    /// That server's address.
    pub address: SocketAddr,
    /// What was found: in words, and whether it is good.
    pub reply: oneshot::Sender<Result<String, String>>,
}

/// Where checks ask.
pub type Asker = mpsc::Sender<Asked>;

/// A way to ask, and its other end.
pub fn channel() -> (Asker, mpsc::Receiver<Asked>) {
    mpsc::channel(QUEUE_MAX)
}

/// Has the guard run the command of a pool on a server.
pub(super) async fn ask(asker: &Asker, pool: &str, server: &str, address: SocketAddr) -> Result<String, String> {
    let (reply, answer) = oneshot::channel();
    let asked = Asked { pool: pool.to_owned(), server: server.to_owned(), address, reply };
    let gone = || "the guard does not run it".to_owned();
    asker.send(asked).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

/// Checks that the guard has been asked for and that it has not answered.
#[derive(Debug, Default)]
pub struct Pending {
    latest: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Result<String, String>>>,
}

impl Pending {
    /// Notes who waits, and gives the number that the answer will have.
    pub fn insert(&mut self, reply: oneshot::Sender<Result<String, String>>) -> u64 {
        // There is at most one for each server, and those that have run out of time are gone.
        self.waiting.retain(|_, reply| !reply.is_closed());
        self.latest += 1;
        self.waiting.insert(self.latest, reply);
        self.latest
    }

    /// Hands an answer to whoever waits for it.
    pub fn answered(&mut self, id: u64, result: Result<String, String>) {
        if let Some(reply) = self.waiting.remove(&id) {
            // Nobody waits any more where the time was up.
            let _gone = reply.send(result);
        }
    }
}
