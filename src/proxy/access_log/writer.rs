//! The thread of a destination: takes batches of lines, writes them, and gives the buffers back.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use super::frame::{self, Sender};
use super::{BATCH_BYTES, Batch, Destination};
use crate::config::{LogTarget, SyslogFormat};

/// The longest that a system's log may take for a line: until then it is waited for, with the buffers filling up.
const DATAGRAM_TIMEOUT: Duration = Duration::from_millis(500);

/// How much more others than this thread are worth to the scheduler, 0 to 19.
const NICENESS: i32 = 5;

/// What the thread is told.
#[derive(Debug)]
pub enum ToWriter {
    /// Lines to write.
    Batch(Batch),
    /// There may be a file that was opened again.
    Look,
}

/// What lines are written to.
enum Sink {
    /// A file or standard output; `None` where it could not be opened.
    Stream { file: Option<File>, is_within_line: bool },
    /// A socket of the system's log.
    Datagram { socket: UnixDatagram, path: PathBuf, framing: Framing },
}

enum Framing {
    Syslog { format: SyslogFormat, node: String },
    Journal,
}

/// The thread's own.
pub struct Writer {
    name: String,
    sink: Sink,
    destination: Arc<Destination>,
    to_threads: Vec<SyncSender<Batch>>,
    datagram: Vec<u8>,
    /// What the last write failed with.
    failure: Option<io::ErrorKind>,
}

impl Writer {
    /// Prepares the destination. `file` is what the guard opened.
    ///
    /// # Errors
    /// What dup(2) or socket(2) says.
    pub fn new(
        target: &LogTarget,
        node: &str,
        file: Option<OwnedFd>,
        destination: Arc<Destination>,
        to_threads: Vec<SyncSender<Batch>>,
    ) -> io::Result<Self> {
        let datagram = |path: &Path, framing| {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(DATAGRAM_TIMEOUT))?;
            Ok::<_, io::Error>(Sink::Datagram { socket, path: path.to_owned(), framing })
        };
        let sink = match target {
            LogTarget::Stdout => {
                let file = Some(io::stdout().as_fd().try_clone_to_owned()?.into());
                Sink::Stream { file, is_within_line: false }
            }
            LogTarget::File(_) => Sink::Stream { file: file.map(File::from), is_within_line: false },
            LogTarget::Syslog { socket, format } => {
                datagram(socket, Framing::Syslog { format: *format, node: node.to_owned() })?
            }
            LogTarget::Journal { socket } => datagram(socket, Framing::Journal)?,
        };
        Ok(Self { name: target.to_string(), sink, destination, to_threads, datagram: Vec::new(), failure: None })
    }

    /// Writes until nobody has lines any more.
    pub fn run(mut self, from_threads: &Receiver<ToWriter>) {
        // Without it the thread runs all the same.
        let _kept = rustix::process::nice(NICENESS);
        while let Ok(message) = from_threads.recv() {
            self.take_reopened();
            if let ToWriter::Batch(batch) = message {
                self.write(batch);
            }
        }
    }

    fn take_reopened(&mut self) {
        let reopened = self.destination.reopened.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(reopened), Sink::Stream { file, is_within_line }) = (reopened, &mut self.sink) {
            (*file, *is_within_line) = (Some(reopened.into()), false);
            info!(file = self.name, "the access log was opened again");
        }
    }

    fn write(&mut self, mut batch: Batch) {
        let lines = batch.ends.len();
        let (written, error) = match &mut self.sink {
            Sink::Stream { file, is_within_line } => stream(file.as_mut(), is_within_line, &batch),
            Sink::Datagram { socket, path, framing } => datagrams(socket, path, framing, &mut self.datagram, &batch),
        };
        self.destination.written.fetch_add(written as u64, Ordering::Relaxed);
        self.destination.count_dropped(lines.saturating_sub(written));
        self.tell(error);
        batch.bytes.clear();
        batch.ends.clear();
        // A line may have been long; what is usual is kept.
        batch.bytes.shrink_to(2 * BATCH_BYTES);
        if let Some(to_thread) = self.to_threads.get(batch.thread) {
            // It has room for all batches of the thread, or the thread has ended.
            let _ended = to_thread.try_send(batch);
        }
    }

    /// Says once that nothing can be written, and once that it can again.
    fn tell(&mut self, error: Option<io::Error>) {
        let kind = error.as_ref().map(io::Error::kind);
        if kind == self.failure {
            return;
        }
        let mut problem = self.destination.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) => {
                warn!(log = self.name, %error, "lines of the access log are dropped");
                *problem = Some(format!("the access log {} cannot be written, lines are dropped: {error}", self.name));
            }
            None => {
                let dropped = self.destination.dropped.load(Ordering::Relaxed);
                info!(log = self.name, dropped, "the access log can be written again");
                *problem = None;
            }
        }
        self.failure = kind;
    }
}

/// Writes lines one after the other, and gives how many are whole.
fn stream(file: Option<&mut File>, is_within_line: &mut bool, batch: &Batch) -> (usize, Option<io::Error>) {
    let Some(file) = file else {
        return (0, Some(io::Error::new(io::ErrorKind::NotFound, "the file could not be opened")));
    };
    // What a full disk cut off is no line; the next one must not continue it.
    if *is_within_line {
        match file.write(b"\n") {
            Ok(1) => *is_within_line = false,
            Ok(_) => return (0, Some(io::ErrorKind::WriteZero.into())),
            Err(error) => return (0, Some(error)),
        }
    }
    let mut done = 0;
    let error = loop {
        let rest = batch.bytes.get(done..).unwrap_or_default();
        if rest.is_empty() {
            break None;
        }
        match file.write(rest) {
            Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
            Ok(len) => done += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(error),
        }
    };
    let whole = batch.ends.partition_point(|end| *end as usize <= done);
    let end_of_whole = whole.checked_sub(1).and_then(|last| batch.ends.get(last)).map_or(0, |end| *end as usize);
    *is_within_line = done > end_of_whole;
    (whole, error)
}

/// Sends lines one after the other, and gives how many were taken. After one that was not the rest are dropped: a log that
/// is full is waited for once, not for each of them.
fn datagrams(
    socket: &UnixDatagram,
    path: &Path,
    framing: &Framing,
    datagram: &mut Vec<u8>,
    batch: &Batch,
) -> (usize, Option<io::Error>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time_us = u64::try_from(now.as_micros()).unwrap_or(0);
    let (mut sent, mut start) = (0, 0);
    for end in &batch.ends {
        // Without its line feed.
        let line = batch.bytes.get(start..(*end as usize).saturating_sub(1)).unwrap_or_default();
        start = *end as usize;
        match framing {
            Framing::Syslog { format, node } => {
                let sender = Sender { node, pid: std::process::id(), time_us };
                frame::syslog(*format, &sender, line, datagram);
            }
            Framing::Journal => frame::journal(line, datagram),
        }
        // To the path, not to a connected socket: whoever reads there may be restarted.
        match socket.send_to(datagram, path) {
            Ok(_) => sent += 1,
            Err(error) => return (sent, Some(error)),
        }
    }
    (sent, None)
}
