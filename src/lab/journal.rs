//! Every request of a load, in a file: one JSON object a line.
//!
//! Clients hand lines to a thread that writes them and never wait for it: what it cannot take is counted and said in the
//! last line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::client::Failure;

/// Lines that may wait to be written.
const WAITING_MAX: usize = 65_536;

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

/// The file. It is whole once this is dropped.
#[derive(Debug)]
pub struct Journal {
    sender: Option<SyncSender<Entry>>,
    lost: AtomicU64,
    writer: Option<JoinHandle<io::Result<File>>>,
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
        writeln!(file, "{{\"began_unix_ms\":{unix_ms}}}")?;
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let writer = thread::Builder::new().name("ledger".to_owned());
        let writer = writer.spawn(move || write_all(file, &receiver, start))?;
        Ok(Self { sender: Some(sender), lost: AtomicU64::new(0), writer: Some(writer) })
    }

    pub(super) fn record(&self, entry: Entry) {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.try_send(entry).is_ok());
        if !sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.sender = None;
        let Some(Ok(Ok(mut file))) = self.writer.take().map(JoinHandle::join) else { return };
        let _ = writeln!(file, "{{\"lines_lost\":{}}}", self.lost.load(Ordering::Relaxed));
    }
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

fn write_all(file: File, entries: &Receiver<Entry>, start: Instant) -> io::Result<File> {
    let mut file = BufWriter::new(file);
    let millis = |duration: Duration| duration.as_micros() as f64 / 1000.0;
    for entry in entries {
        let line = Line {
            at_ms: millis(entry.start.saturating_duration_since(start)),
            client: entry.kind,
            number: entry.number,
            took_ms: millis(entry.latency),
            server: entry.outcome.as_ref().ok().and_then(Option::as_deref),
            failure: entry.outcome.as_ref().err().copied(),
        };
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n")?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_a_line_and_lost_ones_are_counted() {
        let path = std::env::temp_dir().join(format!("baton-ledger-{:08x}", fastrand::u32(..)));
        let journal = Journal::create(&path).unwrap();
        let entry = |outcome| Entry {
            kind: Kind::User,
            number: 7,
            start: Instant::now(),
            latency: Duration::from_micros(1500),
            outcome,
        };
        journal.record(entry(Ok(Some("web1".to_owned()))));
        journal.record(entry(Err(Failure::TimedOut)));
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!((&lines[1]["client"], &lines[1]["took_ms"]), (&"user".into(), &1.5.into()));
        assert_eq!((&lines[1]["server"], &lines[2]["failure"]), (&"web1".into(), &"timed_out".into()));
        assert_eq!(lines[3]["lines_lost"], 0);
    }
}
