//! The sync link: one connection to the worker of the other node, over which sessions and the few other things that both
//! nodes share go in both directions. A shell: what is said, [`crate::session::replica`] decides.
//!
//! It runs on a thread of its own, started by the worker, so that neither side waits for the other's requests. Read
//! [`identity`] first, who is let in; [`endpoint`], how the nodes come together; [`connection`], the bytes; then [`driver`],
//! which drives it all. [`refusals`] keeps what was refused. The thread also removes sessions whose time has come, with or
//! without another node.

pub mod connection;
pub mod driver;
pub mod endpoint;
pub mod identity;
pub mod refusals;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch};

use self::driver::{Conversations, Driver};
use self::endpoint::{End, Gate};
use self::identity::Identity;
use self::refusals::Refusals;
use crate::net::realtime::schedule_as_batch;
use crate::proxy::sessions::Sessions;
use crate::session::facts::FactKey;
use crate::session::replica::{PoolNames, Settings};
use crate::status::SyncStatus;

/// What the thread is started with.
pub struct Setup {
    /// What is shared with the other node, and swept.
    pub sessions: Arc<Sessions>,
    /// The other node; `None` where there is none.
    pub pair: Option<Pair>,
    /// Told of what came from the other node beside sessions.
    pub apply: Apply,
}

/// Takes the facts that came from the other node. Called on the thread, and must not block.
pub type Apply = Box<dyn Fn(&[(FactKey, Vec<u8>)]) + Send>;

/// The other node, and how to come together with it.
pub struct Pair {
    /// Who is who.
    pub identity: Identity,
    /// Which part this node has.
    pub end: End,
    /// The other node's address. Nobody else is listened to.
    pub peer: IpAddr,
    /// For each conversation.
    pub settings: Settings,
}

/// Another configuration, as far as the link has to know it.
#[derive(Clone)]
pub struct Renewed {
    /// What is shared with the other node, and swept.
    pub sessions: Arc<Sessions>,
    /// Of the configuration.
    pub checksum: [u8; 8],
    /// The pools that keep sessions.
    pub pools: Vec<PoolNames>,
    /// The names of the rate limits, in the order of their places.
    pub limits: Vec<String>,
}

/// The running thread.
pub struct Link {
    renewed: watch::Sender<Option<Renewed>>,
    status: Option<Arc<Mutex<SyncStatus>>>,
    synced: watch::Receiver<bool>,
    /// Until it is stopped.
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Starts the thread.
///
/// # Errors
/// When there is no thread or no event queue to be had.
pub fn start(setup: Setup) -> io::Result<Link> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (synced_sender, synced) = watch::channel(false);
    let (stop, stopped) = oneshot::channel();
    let Setup { sessions, pair, apply } = setup;
    let (established_sender, established) = mpsc::channel(1);
    let refusals = Arc::new(Mutex::new(Refusals::default()));
    let (mut gate, mut status, mut conversations) = (None, None, None);
    if let Some(Pair { identity, end, peer, settings }) = pair {
        let refusals = Arc::clone(&refusals);
        gate = Some((Gate { identity, peer, refusals, established: established_sender }, end));
        let shown = Arc::new(Mutex::new(SyncStatus::default()));
        status = Some(Arc::clone(&shown));
        conversations = Some(Conversations { settings, shown });
    }
    let (renewed, renewals) = watch::channel(None);
    let driver = Driver::new(sessions, conversations, apply, refusals, synced_sender);
    let run = move || {
        // It wakes for every burst of changes, and each time would take the processor from a thread in the middle of a request
        // where none is free. It waits for that one's turn to end instead, which on the way to the peer is little; where a
        // processor is free it waits for nothing. Without it the thread runs all the same.
        let _as_usual = schedule_as_batch();
        runtime.block_on(async {
            let opened = gate.map(|(gate, end)| tokio::spawn(gate.run(end)));
            driver.run(established, renewals, stopped).await;
            if let Some(opened) = opened {
                opened.abort();
            }
        });
    };
    let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(run)?;
    Ok(Link { renewed, status, synced, running: Some((stop, thread)) })
}

impl Link {
    /// Goes over to another configuration. Where what both nodes share is called otherwise than before, the conversation
    /// with the other node begins anew.
    pub fn renew(&self, renewed: Renewed) {
        self.renewed.send_replace(Some(renewed));
    }

    /// How it is; `None` without another node.
    pub fn status(&self) -> Option<SyncStatus> {
        self.status.as_ref().map(|status| status.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Waits until the nodes have come into sync or fallen out of it, and says which. Cancel safe.
    pub async fn synced_changed(&mut self) -> bool {
        if self.synced.changed().await.is_err() {
            // The thread is gone, and with it the process before long.
            std::future::pending::<()>().await;
        }
        *self.synced.borrow_and_update()
    }

    /// Sends what is still to be sent, and ends. Blocks, for [`driver::FAREWELL_TIMEOUT`] at most.
    pub fn stop(&mut self) {
        let Some((stop, thread)) = self.running.take() else { return };
        // It may have ended by itself, which is as good.
        let _ended = stop.send(());
        let _panicked = thread.join();
    }
}
