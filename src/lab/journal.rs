//! Every request of a load, in a file: one JSON object a line.
//!
//! Clients hand lines to a thread that writes them and never wait for it: what it cannot take is counted and said in the
//! last line.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::client::Failure;

/// Lines that may wait to be written.
const WAITING_MAX: usize = 65_536;

/// Lines are written when there are so many bytes of them.
const BLOCK_BYTES: usize = 8 * 1024;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The prober, on a new connection.
    New,
    /// A connection that is kept.
    Kept,
    /// A user.
    User,
    /// A WebSocket.
    Websocket,
    /// A TCP connection.
    Tcp,
}

/// One request, message or attempt to connect.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Who asked.
    pub(super) kind: Kind,
    /// Which of them.
    pub(super) number: u16,
    /// When it began.
    pub(super) start: Instant,
    /// How long it took.
    pub(super) latency: Duration,
    /// The server that answered, as far as it is known, or why nobody did.
    pub(super) outcome: Result<Option<String>, Failure>,
}

/// The file. It is whole once it is finished, or this is dropped.
#[derive(Debug)]
pub struct Journal {
    sender: Option<SyncSender<Entry>>,
    lost: AtomicU64,
    writer: Option<JoinHandle<Writer>>,
}

/// What a journal lacks.
#[derive(Debug, Default)]
pub struct Losses {
    /// Requests that are not in the file.
    pub lines: u64,
    /// The first thing that went wrong with the file. Without it, lines that are missing came faster than they could be written.
    pub error: Option<io::Error>,
}

impl Journal {
    /// Creates the file. Times in it are milliseconds since this moment, which its first line has in Unix time.
    ///
    /// # Errors
    /// When it cannot be created, or no thread be started.
    pub fn create(path: &Path) -> io::Result<Self> {
        let (start, began) = (Instant::now(), SystemTime::now());
        let mut file = File::create(path)?;
        let unix_ms = began.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let first = format!("{{\"began_unix_ms\":{unix_ms}}}\n");
        file.write_all(first.as_bytes())?;
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let writer = Writer::new(file, first.len() as u64);
        let thread = thread::Builder::new().name("ledger".to_owned());
        let writer = thread.spawn(move || writer.write_all(&receiver, start))?;
        Ok(Self { sender: Some(sender), lost: AtomicU64::new(0), writer: Some(writer) })
    }

    pub(super) fn record(&self, entry: Entry) {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.try_send(entry).is_ok());
        if !sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what waits and the last line, which says how many are missing, and gives the same.
    pub fn finish(mut self) -> Losses {
        self.end()
    }

    fn end(&mut self) -> Losses {
        self.sender = None;
        let Some(Ok(mut writer)) = self.writer.take().map(JoinHandle::join) else { return Losses::default() };
        let lines = self.lost.load(Ordering::Relaxed).saturating_add(writer.lost);
        let last = writer.file.write_all(format!("{{\"lines_lost\":{lines}}}\n").as_bytes());
        Losses { lines, error: writer.error.or(last.err()) }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes lines in blocks, of which a disk that is full takes whole lines or none.
#[derive(Debug)]
struct Writer {
    file: File,
    /// Bytes of whole lines in the file, and how many of them are the last one's.
    written: u64,
    last_line: u64,
    /// Whole lines that are not in it yet.
    block: Vec<u8>,
    lost: u64,
    error: Option<io::Error>,
}

impl Writer {
    fn new(file: File, written: u64) -> Self {
        Self { file, written, last_line: 0, block: Vec::with_capacity(BLOCK_BYTES), lost: 0, error: None }
    }

    fn write_all(mut self, entries: &Receiver<Entry>, start: Instant) -> Self {
        for entry in entries {
            write_line(&mut self.block, &entry, start);
            if self.block.len() >= BLOCK_BYTES {
                self.flush();
            }
        }
        self.flush();
        self
    }

    fn flush(&mut self) {
        let (mut taken, mut failed) = (0, None);
        while let Some(rest) = self.block.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => failed = Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => failed = Some(error),
            }
            if failed.is_some() {
                break;
            }
        }
        let kept = match failed {
            Some(error) => self.cut(taken, error),
            None => taken,
        };
        let (kept, rest) = self.block.split_at_checked(kept).unwrap_or_default();
        self.written += kept.len() as u64;
        if let Some(before) = kept.len().checked_sub(1) {
            self.last_line = (kept.len() - end_of_line(kept, before)) as u64;
        }
        self.lost += rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.block.clear();
    }

    /// Takes away what is not a whole line after `taken` bytes of the block, and the line before, whose place is for the last one
    /// of all. Gives how many bytes of the block stay.
    fn cut(&mut self, taken: usize, error: io::Error) -> usize {
        let whole = end_of_line(&self.block, taken);
        let kept = whole.checked_sub(1).map_or(0, |before| end_of_line(&self.block, before));
        if whole == 0 && self.error.is_none() && self.last_line > 0 {
            self.written -= self.last_line;
            self.lost += 1;
        }
        self.error.get_or_insert(error);
        // What is no file, such as a pipe, cannot be cut.
        let end = self.written + kept as u64;
        let _ = self.file.set_len(end).and_then(|()| self.file.seek(SeekFrom::Start(end)));
        kept
    }
}

/// Where the last line ends that is whole within the first bytes.
fn end_of_line(bytes: &[u8], within: usize) -> usize {
    let bytes = bytes.get(..within).unwrap_or_default();
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

/// A line as it is written.
#[derive(Serialize)]
struct Line<'a> {
    at_ms: f64,
    client: Kind,
    number: u16,
    took_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

fn write_line(block: &mut Vec<u8>, entry: &Entry, start: Instant) {
    let millis = |duration: Duration| duration.as_micros() as f64 / 1000.0;
    let line = Line {
        at_ms: millis(entry.start.saturating_duration_since(start)),
        client: entry.kind,
        number: entry.number,
        took_ms: millis(entry.latency),
        server: entry.outcome.as_ref().ok().and_then(Option::as_deref),
        failure: entry.outcome.as_ref().err().copied(),
    };
    // Writing to a `Vec` cannot fail, and a line has nothing that JSON could not say.
    let _ = serde_json::to_writer(&mut *block, &line);
    block.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(outcome: Result<Option<String>, Failure>) -> Entry {
        let latency = Duration::from_micros(1500);
        Entry { kind: Kind::User, number: 7, start: Instant::now(), latency, outcome }
    }

    #[test]
    fn lines_that_no_disk_takes_are_counted() {
        let mut writer = Writer::new(File::options().write(true).open("/dev/full").unwrap(), 0);
        for _ in 0..3 {
            write_line(&mut writer.block, &entry(Err(Failure::Broken)), Instant::now());
        }
        writer.flush();
        assert_eq!(writer.lost, 3);
        assert_eq!(writer.error.map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }

    /// What a disk has that took the first block whole and `taken` bytes of the second one.
    fn cut_after(taken: usize) -> (String, u64) {
        let path = std::env::temp_dir().join(format!("baton-ledger-{:08x}", fastrand::u32(..)));
        let mut writer = Writer::new(File::create(&path).unwrap(), 0);
        writer.block.extend(b"1\n2\n");
        writer.flush();
        writer.block.extend(b"33\n44\n55\n");
        writer.file.write_all(&writer.block[..taken]).unwrap();
        let kept = writer.cut(taken, io::ErrorKind::StorageFull.into());
        writer.file.write_all(b"last\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        (text, writer.lost + (3 - kept as u64 / 3))
    }

    #[test]
    fn full_disk_keeps_whole_lines_and_has_room_for_the_last_one() {
        assert_eq!(cut_after(0), ("1\nlast\n".to_owned(), 4));
        assert_eq!(cut_after(2), ("1\nlast\n".to_owned(), 4));
        assert_eq!(cut_after(3), ("1\n2\nlast\n".to_owned(), 3));
        assert_eq!(cut_after(5), ("1\n2\nlast\n".to_owned(), 3));
        assert_eq!(cut_after(8), ("1\n2\n33\nlast\n".to_owned(), 2));
    }

    #[test]
    fn every_request_is_a_line_and_lost_ones_are_counted() {
        let path = std::env::temp_dir().join(format!("baton-ledger-{:08x}", fastrand::u32(..)));
        let journal = Journal::create(&path).unwrap();
        journal.record(entry(Ok(Some("web1".to_owned()))));
        journal.record(entry(Err(Failure::TimedOut)));
        let losses = journal.finish();
        assert!(losses.lines == 0 && losses.error.is_none(), "{losses:?}");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!((&lines[1]["client"], &lines[1]["took_ms"]), (&"user".into(), &1.5.into()));
        assert_eq!((&lines[1]["server"], &lines[2]["failure"]), (&"web1".into(), &"timed_out".into()));
        assert_eq!(lines[3]["lines_lost"], 0);
    }
}
