//! Sessions across a restart of both nodes: reads the archive that the guard opened, and hands the guard a new one now and
//! then and at the end. On a thread of its own with a low priority, so that no request and no probe waits for it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::link::archive::{self, FRAME_BYTES_MAX};
use crate::net::realtime::schedule_as_batch;
use crate::proxy::reload::Current;
use crate::proxy::sessions::Sessions;
use crate::session::Record;
use crate::session::archive::{Decoder, Encoder, Mapping};
use crate::session::table::{Cursor, Merged};
use crate::status::ArchiveStatus;

/// Entries that are taken from the table at a time. Its locks are held for no more than that.
const BATCH_ENTRIES: usize = 512;
/// Time that the start of a worker waits for its sessions: a disk that takes longer may not keep it from serving.
const LOAD_PATIENCE: Duration = Duration::from_secs(2);
/// How much more others than this thread are worth to the scheduler, 0 to 19.
const NICENESS: i32 = 10;

/// What the thread starts with.
pub struct Setup {
    /// Whose sessions.
    pub current_site: Arc<Current>,
    /// The archive that is there, open for reading.
    pub current: Option<OwnedFd>,
    /// Where the next one goes.
    pub writer: OwnedFd,
    /// Time between two of them.
    pub interval: Duration,
}

/// The thread.
pub struct Archive {
    orders: mpsc::Sender<Order>,
    is_due: Arc<AtomicBool>,
    status: Arc<Mutex<ArchiveStatus>>,
}

/// What the thread is to do, besides what it does in any case.
enum Order {
    /// Write, as something was removed that the archive still has.
    Write,
    /// Write for the last time, and end.
    Finish(oneshot::Sender<()>),
}

impl Archive {
    /// Starts it, and waits until the sessions of the archive are in the table, or for two seconds.
    ///
    /// # Errors
    /// What clone(2) says.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let (orders, ordered) = mpsc::channel();
        let (loaded_sender, loaded) = mpsc::channel();
        let is_due = Arc::new(AtomicBool::new(false));
        let status = Arc::default();
        let thread = Thread {
            current: setup.current_site,
            socket: UnixStream::from(setup.writer),
            is_due: Arc::clone(&is_due),
            status: Arc::clone(&status),
        };
        let run = move || {
            // Without them the thread runs all the same.
            let (_kept, _as_usual) = (rustix::process::nice(NICENESS), schedule_as_batch());
            if let Err(error) = thread.run(setup.current.map(File::from), &loaded_sender, setup.interval, &ordered) {
                warn!(%error, "sessions are not kept on the disk any more");
            }
        };
        std::thread::Builder::new().name("archive".to_owned()).spawn(run)?;
        if loaded.recv_timeout(LOAD_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            warn!("the archive of sessions takes long to read; serving without it for now");
        }
        Ok(Self { orders, is_due, status })
    }

    /// Has an archive written soon.
    pub fn write_soon(&self) {
        order_soon(&self.orders, &self.is_due);
    }

    /// What has an archive written soon when it is called.
    pub fn writer(&self) -> Box<dyn Fn() + Send + Sync> {
        let (orders, is_due) = (self.orders.clone(), Arc::clone(&self.is_due));
        Box::new(move || order_soon(&orders, &is_due))
    }

    /// Writes for the last time. The guard has all of it, though not on the disk yet, when this returns.
    pub async fn finish(self) {
        let (done, is_done) = oneshot::channel();
        if self.orders.send(Order::Finish(done)).is_ok() {
            drop(is_done.await);
        }
    }

    /// What there is to say of it: what came back, and what was handed over last.
    pub fn status(&self) -> ArchiveStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn order_soon(orders: &mpsc::Sender<Order>, is_due: &AtomicBool) {
    if !is_due.swap(true, Ordering::AcqRel) {
        // The thread ends early only when the guard takes nothing.
        drop(orders.send(Order::Write));
    }
}

struct Thread {
    current: Arc<Current>,
    socket: UnixStream,
    is_due: Arc<AtomicBool>,
    status: Arc<Mutex<ArchiveStatus>>,
}

impl Thread {
    fn run(
        mut self,
        current: Option<File>,
        loaded: &mpsc::Sender<()>,
        interval: Duration,
        orders: &mpsc::Receiver<Order>,
    ) -> io::Result<()> {
        if let Some(file) = current {
            self.load(&file)?;
        }
        // Nobody waits for it after some time.
        let _given_up = loaded.send(());
        loop {
            match orders.recv_timeout(interval) {
                Ok(Order::Write) | Err(RecvTimeoutError::Timeout) => {
                    self.is_due.store(false, Ordering::Release);
                    self.write()?;
                }
                Ok(Order::Finish(done)) => {
                    let written = self.write();
                    let _given_up = done.send(());
                    return written;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Reads the archive twice: once to see that all of it is good, and then for its entries.
    fn load(&mut self, file: &File) -> io::Result<()> {
        match read(file, |_, _| {}).and_then(|_| self.merge(file)) {
            Ok(restored) => {
                self.status.lock().unwrap_or_else(PoisonError::into_inner).restored = restored;
                info!(restored, "sessions were read from the archive");
                Ok(())
            }
            Err(reason) => {
                warn!(reason, "the archive of sessions cannot be used");
                archive::send_damaged(&mut self.socket, &reason)
            }
        }
    }

    fn merge(&self, file: &File) -> Result<u64, String> {
        let mut merging = Merging::new(Arc::clone(&self.current.load().site.sessions));
        read(file, |decoder, record| merging.take(decoder, record))?;
        Ok(merging.taken)
    }

    /// Hands over what is in the table.
    fn write(&mut self) -> io::Result<()> {
        // The names and the table of one configuration, whatever comes meanwhile.
        let sessions = Arc::clone(&self.current.load().site.sessions);
        let (entries, bytes) = write(&sessions, &mut self.socket)?;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        (status.entries, status.bytes) = (entries, bytes);
        Ok(())
    }
}

/// Writes what is in the table, and gives its entries and bytes.
///
/// # Errors
/// What write(2) says.
pub(super) fn write(sessions: &Sessions, socket: &mut UnixStream) -> io::Result<(u64, u64)> {
    let mut part = Vec::with_capacity(FRAME_BYTES_MAX);
    let mut encoder = Encoder::begin(since_epoch(), &sessions.names(), &mut part);
    let mut batch = Vec::with_capacity(BATCH_ENTRIES);
    let (mut cursor, mut entries, mut bytes) = (Cursor::default(), 0, 0);
    let mut is_more = true;
    while is_more {
        batch.clear();
        // Copied first and written afterwards: the table's lock is not for the length of a checksum.
        is_more = sessions.table.scan(&mut cursor, sessions.now(), BATCH_ENTRIES, |record| batch.push(record));
        batch.iter().for_each(|record| encoder.record(record, &mut part));
        entries += batch.iter().filter(|record| record.server.is_some()).count() as u64;
        bytes += part.len() as u64;
        archive::send_part(socket, &part)?;
        part.clear();
    }
    encoder.finish(&mut part);
    bytes += part.len() as u64;
    archive::send_part(socket, &part)?;
    archive::send_complete(socket)?;
    Ok((entries, bytes))
}

/// Takes the records of an archive into the table.
pub(super) struct Merging {
    sessions: Arc<Sessions>,
    /// From the names of the archive to ours, and the time since it was written.
    mapping: Option<(Mapping, Duration)>,
    /// Sessions that the table did not know.
    pub(super) taken: u64,
}

impl Merging {
    pub(super) fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions, mapping: None, taken: 0 }
    }

    pub(super) fn take(&mut self, decoder: &Decoder, record: Record) {
        let Self { sessions, mapping, taken } = self;
        let (mapping, passed) = mapping.get_or_insert_with(|| {
            // A clock that was set back has made nothing younger.
            let passed = since_epoch().saturating_sub(decoder.written_at());
            (Mapping::new(decoder.pools(), &sessions.names()), passed)
        });
        let record = mapping.apply(record, *passed);
        let is_taken = record.is_some_and(|record| sessions.table.merge(&record, sessions.now()) == Merged::Taken);
        let is_live = record.is_some_and(|record| record.server.is_some());
        *taken += u64::from(is_taken && is_live);
    }
}

/// Reads an archive to its end.
///
/// # Errors
/// Why it cannot be used, in words.
fn read(file: &File, mut on_record: impl FnMut(&Decoder, Record)) -> Result<(), String> {
    let mut decoder = Decoder::new();
    let mut piece = vec![0; FRAME_BYTES_MAX];
    let mut offset = 0;
    loop {
        // At an offset, as the guard's other descriptors of the file share one position with this one.
        let length = file.read_at(&mut piece, offset).map_err(|error| format!("it cannot be read: {error}"))?;
        if length == 0 {
            return decoder.finish().map_err(|damage| damage.to_string());
        }
        offset += length as u64;
        let read = piece.get(..length).unwrap_or_default();
        decoder.feed(read, &mut on_record).map_err(|damage| damage.to_string())?;
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
