//! The access log: lines on their way from the threads of the proxy to a file, standard output or the system's log.
//!
//! A thread writes a line into a buffer of its own ([`Lines`]), which goes to the thread of that destination ([`writer`])
//! when it is full or a tenth of a second old, and comes back empty. So no request waits for a disk, and memory stays
//! what it was: a line for which no buffer is free is dropped and counted. How a line looks is in [`line`], what a
//! request leaves behind for it in `proxy::http::trace`.

pub mod frame;
pub mod line;
mod writer;

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use self::writer::{ToWriter, Writer};
use crate::config::{Config, LogTarget};

/// Bytes after which a buffer is handed over. A line makes it longer than that once, by what a line has at most.
const BATCH_BYTES: usize = 32 * 1024;

/// Buffers of each thread for each destination: one that is filled, and some on their way or being written.
const BATCHES: usize = 4;

/// The longest that a line waits for others.
const DELAY_MAX: Duration = Duration::from_millis(100);

/// The longest text of a client that goes into a line: for a file, and where each line has to fit a datagram. What is
/// longer is cut off there.
const TEXT_BYTES_MAX: usize = 8 * 1024;
const TEXT_BYTES_MAX_OF_DATAGRAM: usize = 1024;

/// Lines on their way.
#[derive(Debug, Default)]
struct Batch {
    /// Whose buffer it is.
    thread: usize,
    bytes: Vec<u8>,
    /// Where each line ends.
    ends: Vec<u32>,
}

/// What is known of a destination from outside its thread.
#[derive(Debug, Default)]
pub struct Destination {
    /// Lines written.
    pub written: AtomicU64,
    /// Lines that were dropped, because it took none or was too slow.
    pub dropped: AtomicU64,
    /// Why nothing can be written, while that is so.
    problem: Mutex<Option<String>>,
    /// The file as it was opened again.
    reopened: Mutex<Option<OwnedFd>>,
}

impl Destination {
    /// Why nothing can be written, while that is so.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count_dropped(&self, lines: usize) {
        self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
    }
}

/// Destinations by what they are called.
type Known = Vec<(String, Arc<Destination>)>;

/// All destinations of a worker, and the threads that write to them.
pub struct AccessLogs {
    outlets: Vec<Outlet>,
    /// What is known of each, for who watches.
    known: Arc<Mutex<Known>>,
    /// For threads that are started later.
    end: Sender<()>,
    /// Says when all of them have ended, as each drops its end.
    ended: Receiver<()>,
}

struct Outlet {
    target: LogTarget,
    to_writer: SyncSender<ToWriter>,
    destination: Arc<Destination>,
    /// What comes back, by thread; taken when the thread is started.
    returned: Vec<Option<Receiver<Batch>>>,
}

/// A destination as it is, by what was counted since the worker started.
#[derive(Debug, Clone)]
pub struct DestinationStatus {
    /// `stdout`, `syslog`, `journal` or the path of a file.
    pub name: String,
    /// Lines written.
    pub written: u64,
    /// Lines dropped.
    pub dropped: u64,
    /// Why nothing can be written, while that is so.
    pub problem: Option<String>,
}

impl AccessLogs {
    /// Starts a thread for each destination of the configuration. `files` are what the guard opened, each with its
    /// index in [`Config::log_targets`].
    ///
    /// # Errors
    /// What clone(2) or dup(2) says.
    pub fn start(config: &Config, node: &str, threads: usize, files: Vec<(usize, OwnedFd)>) -> io::Result<Self> {
        let mut files = files;
        let (end, ended) = mpsc::channel();
        let mut outlets = Vec::new();
        for (index, target) in config.log_targets().into_iter().enumerate() {
            let file = files.iter().position(|(of, _)| *of == index).map(|at| files.swap_remove(at).1);
            outlets.push(Outlet::start(target, node, threads, file, end.clone())?);
        }
        let known = Arc::new(Mutex::new(known(&outlets)));
        Ok(Self { outlets, known, end, ended })
    }

    /// Goes over to the destinations of another configuration. `files` are those that the guard opened, each with its
    /// index there. Gives the ends of each thread.
    ///
    /// # Errors
    /// What clone(2) or dup(2) says. Everything is as before then.
    pub fn next(
        &mut self,
        config: &Config,
        node: &str,
        threads: usize,
        mut files: Vec<(usize, OwnedFd)>,
    ) -> io::Result<Vec<Vec<NextLines>>> {
        let mut started = Vec::new();
        let targets = config.log_targets();
        let place = |target: &LogTarget| self.outlets.iter().position(|outlet| outlet.target == *target);
        let places: Vec<_> = targets.iter().map(|target| place(target)).collect();
        for (index, target) in targets.into_iter().enumerate().filter(|(index, _)| places.get(*index) == Some(&None)) {
            let file = files.iter().position(|(of, _)| *of == index).map(|at| files.swap_remove(at).1);
            started.push(Outlet::start(target, node, threads, file, self.end.clone())?);
        }
        let mut former: Vec<_> = std::mem::take(&mut self.outlets).into_iter().map(Some).collect();
        let mut started = started.into_iter();
        let mut lines: Vec<Vec<NextLines>> = (0..threads).map(|_| Vec::new()).collect();
        for place in places {
            let kept = place.and_then(|place| former.get_mut(place)?.take().zip(Some(place)));
            if let Some((outlet, place)) = kept {
                lines.iter_mut().for_each(|lines| lines.push(NextLines::Kept(place)));
                self.outlets.push(outlet);
            } else if let Some(mut outlet) = started.next() {
                let ends = lines.iter_mut().enumerate();
                ends.for_each(|(thread, lines)| lines.push(NextLines::New(outlet.of_thread(thread))));
                self.outlets.push(outlet);
            }
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known(&self.outlets);
        Ok(lines)
    }

    /// The ends of one thread, in the order of [`Config::log_targets`]. Each thread asks once.
    pub fn of_thread(&mut self, thread: usize) -> Vec<LinesSetup> {
        self.outlets.iter_mut().map(|outlet| outlet.of_thread(thread)).collect()
    }

    /// Takes a file that was opened again in place of the one before.
    pub fn reopened(&self, index: usize, file: OwnedFd) {
        let Some(outlet) = self.outlets.get(index) else { return };
        *outlet.destination.reopened.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        // Where the queue is full there is enough to wake it.
        let _full = outlet.to_writer.try_send(ToWriter::Look);
    }

    /// Every destination as it is.
    pub fn status(&self) -> Vec<DestinationStatus> {
        self.watch()()
    }

    /// What gives every destination as it is, wherever it is asked.
    pub fn watch(&self) -> impl Fn() -> Vec<DestinationStatus> + Send + Sync + use<> {
        let known = Arc::clone(&self.known);
        move || {
            let status = |(name, destination): &(String, Arc<Destination>)| DestinationStatus {
                name: name.clone(),
                written: destination.written.load(Ordering::Relaxed),
                dropped: destination.dropped.load(Ordering::Relaxed),
                problem: destination.problem(),
            };
            known.lock().unwrap_or_else(PoisonError::into_inner).iter().map(status).collect()
        }
    }

    /// Waits until everything that threads have handed over is written, at most for `patience`. The threads have ended.
    pub fn finish(self, patience: Duration) {
        let Self { outlets, ended, end, .. } = self;
        drop((outlets, end));
        // Either all ends are dropped, or somebody takes too long.
        let _ended = ended.recv_timeout(patience);
    }
}

fn known(outlets: &[Outlet]) -> Known {
    outlets.iter().map(|outlet| (outlet.target.to_string(), Arc::clone(&outlet.destination))).collect()
}

impl Outlet {
    fn start(
        target: &LogTarget,
        node: &str,
        threads: usize,
        file: Option<OwnedFd>,
        end: Sender<()>,
    ) -> io::Result<Self> {
        // There is always room for all batches, and for one reason to look.
        let (to_writer, from_threads) = mpsc::sync_channel(threads * BATCHES + 1);
        let destination = Arc::<Destination>::default();
        let (mut returned, mut to_threads) = (Vec::new(), Vec::new());
        for thread in 0..threads {
            let (to_thread, back) = mpsc::sync_channel(BATCHES);
            for _ in 0..BATCHES {
                // The channel is as long as that.
                let _fits = to_thread.try_send(Batch { thread, ..Batch::default() });
            }
            to_threads.push(to_thread);
            returned.push(Some(back));
        }
        let writer = Writer::new(target, node, file, Arc::clone(&destination), to_threads)?;
        let run = move || {
            writer.run(&from_threads);
            drop(end);
        };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(run)?;
        Ok(Self { target: target.clone(), to_writer, destination, returned })
    }

    /// The end of one thread, which asks once.
    fn of_thread(&mut self, thread: usize) -> LinesSetup {
        let returned = self.returned.get_mut(thread).and_then(Option::take);
        let text_bytes_max = match self.target {
            LogTarget::Stdout | LogTarget::File(_) => TEXT_BYTES_MAX,
            LogTarget::Syslog { .. } | LogTarget::Journal { .. } => TEXT_BYTES_MAX_OF_DATAGRAM,
        };
        LinesSetup {
            returned: returned.unwrap_or_else(|| mpsc::channel().1),
            to_writer: self.to_writer.clone(),
            destination: Arc::clone(&self.destination),
            text_bytes_max,
        }
    }
}

/// A thread's end of a destination of another configuration.
pub enum NextLines {
    /// The one that has had this index until now.
    Kept(usize),
    /// Another one.
    New(LinesSetup),
}

/// One thread's end of a destination, before the thread has started.
pub struct LinesSetup {
    returned: Receiver<Batch>,
    to_writer: SyncSender<ToWriter>,
    destination: Arc<Destination>,
    text_bytes_max: usize,
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

/// One thread's end of a destination.
pub struct Lines {
    setup: LinesSetup,
    open: RefCell<Option<Batch>>,
    /// Somebody has begun a buffer.
    begun: Notify,
}

impl Lines {
    /// An end without lines.
    pub fn new(setup: LinesSetup) -> Self {
        Self { setup, open: RefCell::new(None), begun: Notify::new() }
    }

    /// The longest text of a client that is to go into a line, in bytes.
    pub fn text_bytes_max(&self) -> usize {
        self.setup.text_bytes_max
    }

    /// Writes a line: `compose` appends it. Never waits.
    pub fn write(&self, compose: impl FnOnce(&mut Vec<u8>)) {
        let mut open = self.open.borrow_mut();
        if open.is_none() {
            *open = self.setup.returned.try_recv().ok();
            self.begun.notify_one();
        }
        let Some(batch) = open.as_mut() else { return self.setup.destination.count_dropped(1) };
        compose(&mut batch.bytes);
        batch.ends.push(u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX));
        if batch.bytes.len() >= BATCH_BYTES
            && let Some(full) = open.take()
        {
            self.hand_over(full);
        }
    }

    /// Hands over what there is.
    pub fn flush(&self) {
        if let Some(batch) = self.open.borrow_mut().take() {
            self.hand_over(batch);
        }
    }

    /// Hands lines over that wait for others, for as long as the runtime lives.
    pub async fn keep_flushing(&self) {
        loop {
            self.begun.notified().await;
            tokio::time::sleep(DELAY_MAX).await;
            self.flush();
        }
    }

    fn hand_over(&self, batch: Batch) {
        let lines = batch.ends.len();
        if self.setup.to_writer.try_send(ToWriter::Batch(batch)).is_err() {
            // The writer is gone.
            self.setup.destination.count_dropped(lines);
        }
    }
}
