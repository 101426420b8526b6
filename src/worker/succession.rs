//! Sessions from one worker to the next, while both run: the one before writes whole archives of its table into a socket, the
//! next one merges each. What is newer in its own table stays, so that nothing is lost and nothing is undone.
//!
//! The first archive comes before the next worker serves, another once the one before takes no more connections, and the
//! last one when its last connection has ended.

use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::archive::{self, Merging};
use crate::link::archive::{FRAME_BYTES_MAX, Frame, receive};
use crate::net::realtime::schedule_as_batch;
use crate::proxy::reload::Current;
use crate::session::archive::Decoder;

/// Time that the start of a worker waits for the sessions of the one before.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks of a worker that leaves whether its table has changed.
const INTERVAL: Duration = Duration::from_millis(200);
/// Time that the end of a worker waits for the last archive to be taken.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks whether it was.
const LAST_POLL: Duration = Duration::from_millis(5);

/// The side of the worker that leaves: a thread that writes.
pub struct Giving {
    end: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Giving {
    /// Begins with an archive of all that there is.
    ///
    /// # Errors
    /// What clone(2) says.
    pub fn start(current: Arc<Current>, socket: OwnedFd) -> io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let run = move || {
            // Without it the thread runs all the same.
            let _as_usual = schedule_as_batch();
            if let Err(error) = give(&current, socket.into(), &ended) {
                warn!(%error, "the next worker takes no more sessions of this one");
            }
        };
        let thread = std::thread::Builder::new().name("succession".to_owned()).spawn(run)?;
        Ok(Self { end, thread })
    }

    /// Hands over what has changed since, for the last time, and waits a while for that. Blocks.
    pub fn finish(self) {
        // It has ended already where the next worker is gone.
        let _ended = self.end.send(());
        let deadline = Instant::now() + LAST_PATIENCE;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(LAST_POLL);
        }
    }
}

fn give(current: &Current, mut socket: UnixStream, ended: &mpsc::Receiver<()>) -> io::Result<()> {
    let mut written = None;
    loop {
        let sessions = Arc::clone(&current.load().site.sessions);
        let latest = sessions.table.latest();
        if written != Some(latest) {
            archive::write(&sessions, &mut socket)?;
            written = Some(latest);
        }
        match ended.recv_timeout(INTERVAL) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                // Renewals of sessions that it has had count no higher, and are among them.
                return archive::write(&sessions, &mut socket).map(drop);
            }
        }
    }
}

/// The side of the worker that comes. Waits until what the one before has is in the table, or for two seconds, and goes on
/// taking what follows.
///
/// # Errors
/// What clone(2) says.
pub fn take(current: &Arc<Current>, socket: OwnedFd) -> io::Result<()> {
    let (loaded_sender, loaded) = mpsc::channel();
    let current = Arc::downgrade(current);
    let run = move || {
        let mut socket = BufReader::with_capacity(FRAME_BYTES_MAX, UnixStream::from(socket));
        loop {
            match take_one(&current, &mut socket) {
                Ok(Some(taken)) => {
                    info!(taken, "sessions of the worker before were taken");
                    // Nobody waits for any but the first, and for that not for ever.
                    let _given_up = loaded_sender.send(());
                }
                Ok(None) => return,
                Err(reason) => return warn!(reason, "sessions of the worker before cannot be taken any more"),
            }
        }
    };
    std::thread::Builder::new().name("succession".to_owned()).spawn(run)?;
    if loaded.recv_timeout(PATIENCE).is_err() {
        warn!("the sessions of the worker before take long to come; serving without them for now");
    }
    Ok(())
}

/// The next archive: how many of its sessions were new; `None` when the worker before has ended.
fn take_one(current: &Weak<Current>, socket: &mut impl io::Read) -> Result<Option<u64>, String> {
    let (mut decoder, mut records) = (Decoder::new(), Vec::new());
    loop {
        match receive(socket).map_err(|error| error.to_string())? {
            None => return Ok(None),
            Some(Frame::Part(part)) => {
                decoder.feed(&part, |_, record| records.push(record)).map_err(|damage| damage.to_string())?;
            }
            Some(Frame::Damaged(reason)) => return Err(reason),
            Some(Frame::Complete) => break,
        }
    }
    let Some(current) = current.upgrade() else { return Ok(None) };
    let mut merging = Merging::new(Arc::clone(&current.load().site.sessions));
    records.into_iter().for_each(|record| merging.take(&decoder, record));
    decoder.finish().map_err(|damage| damage.to_string())?;
    Ok(Some(merging.taken))
}
