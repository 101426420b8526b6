//! What guard and worker say to each other over their socket pair: one JSON object a line, and once, at the start, the
//! listening sockets.
//!
//! The guard trusts nothing that the worker says beyond its form: the worker reads what clients send.

pub mod archive;
pub mod files;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use self::files::HandedFiles;
use crate::config::FoundServer;
use crate::inquiry::{Answer, Question};
use crate::net::descriptors;
use crate::status::{CertificateStatus, LoadStatus, NodeStatus, PoolStatus, SessionsStatus, SyncStatus};

/// The longest line. A report on as many servers as a configuration of a mebibyte can name stays below it.
const LINE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Room for a line that is kept for the next one.
const LINE_BYTES_KEPT_MAX: usize = 1024 * 1024;

/// All that a worker needs, so that it has to open no file. The sockets follow it: for each listener, those of each of its
/// addresses; that of the sync link; and then the further descriptors.
#[derive(Serialize, Deserialize)]
pub struct Bootstrap {
    /// This node's name.
    pub node: String,
    /// Where the configuration came from, for messages.
    pub config_path: PathBuf,
    /// The text that the guard checked.
    pub config_text: String,
    /// Process id of the guard.
    pub guard_pid: u32,
    /// Threads to start.
    pub threads: usize,
    /// How many sockets of listeners follow, for each address: mostly one a thread.
    pub socket_counts: Vec<usize>,
    /// Whether the listening socket of the sync link follows them.
    pub has_sync_socket: bool,
    /// The user to become.
    pub user: Option<String>,
    /// The pair key, when there is one. A secret.
    pub pair_key: Option<Vec<u8>>,
    /// What the files of the configuration held when all of them were last good. Secrets are among them.
    pub files: HandedFiles,
    /// What they hold now, where that is something else.
    pub changed_files: Option<HandedFiles>,
    /// What the descriptors are that follow the listeners' sockets.
    pub further: Vec<Further>,
    /// What operators have said of servers, as an earlier worker last knew it.
    pub administration: Vec<KeptFact>,
    /// The servers that an earlier worker has found.
    #[serde(default)]
    pub found: Vec<KeptList>,
    /// The token that changes over the admin listener need; `None` refuses them. A secret.
    pub admin_token: Option<Vec<u8>>,
    /// What the session store takes, when there is one. A secret.
    #[serde(default)]
    pub store: Option<StoreSecrets>,
    /// The servers that were down for an earlier worker's checks; `None` where there was none that checked them.
    #[serde(default)]
    pub down: Option<Vec<KnownServer>>,
}

/// A server of a pool, by their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownServer {
    /// The pool.
    pub pool: String,
    /// The server.
    pub server: String,
}

/// A descriptor besides the listeners' sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Further {
    /// The file of sessions that was last written, open for reading.
    Archive,
    /// A socket that takes the next one, in the frames of [`archive`].
    ArchiveWriter,
    /// A listening socket of `[admin]`.
    Admin,
    /// A file of the access log.
    AccessLog {
        /// Its index in `Config::log_targets`.
        index: u16,
    },
    /// A socket that brings the descriptors of a [`ToWorker::Reload`].
    Reload,
    /// A socket that brings the files of the access log when they were opened again, as [`ToWorker::AccessLogs`] says.
    AccessLogs,
    /// A socket that takes the sessions for the worker after this one, as [`Further::Predecessor`] has them.
    Successor,
    /// A socket that brings the sessions of the worker before, which still serves: whole archives in the frames of
    /// [`archive`], until that one ends.
    Predecessor,
}

/// A replicated value with its version, as a worker handed it over. Neither is of any meaning to the guard, which keeps
/// it for the next worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFact {
    /// The pool.
    pub pool: String,
    /// The server.
    pub server: String,
    /// The value.
    pub value: Vec<u8>,
    /// Its version.
    pub version: u64,
    /// Whether it is also kept when the guard ends.
    #[serde(default = "yes")]
    pub is_for_disk: bool,
}

fn yes() -> bool {
    true
}

/// The servers of a pool as they were found last, for the next worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptList {
    /// The pool.
    pub pool: String,
    /// What had been asked, in words: those that another source has said count no more.
    pub source: String,
    /// When they were found, in seconds since 1970.
    pub found_at_s: u64,
    /// The servers.
    pub servers: Vec<FoundServer>,
    /// Whether they are also kept when the guard ends.
    pub is_for_disk: bool,
}

/// What the session store takes to be spoken with.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct StoreSecrets {
    /// The password, where it wants one. A secret.
    pub password: Option<String>,
    /// The authorities that its certificate is checked against, in PEM; `None` without TLS.
    pub ca_pem: Option<String>,
}

/// From the guard.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    /// Answer once every thread has shown that it is alive.
    Probe {
        /// Echoed in the answer.
        sequence: u64,
    },
    /// A VIP has come to this node: what it says about sessions goes before what the peer says from now on.
    TookOver,
    /// Take no new connections, finish the requests in flight, say so, end.
    Drain,
    /// The last message of this guard: another one goes on in the same process, and starts another worker. Serve until that
    /// one does, speak with the peer no more, and hand the sessions over on [`Further::Successor`].
    Yield,
    /// After [`ToWorker::Yield`]: the other worker serves. Take no new connections, and end when those that there are have.
    Retire,
    /// Answer a question.
    Ask {
        /// Echoed in the answer.
        id: u64,
        /// What is asked.
        question: Question,
    },
    /// Files of the access log were opened again: their descriptors are in the socket [`Further::AccessLogs`].
    AccessLogs {
        /// The index of each in `Config::log_targets`, in the order of the descriptors.
        files: Vec<u16>,
    },
    /// Files have changed: all of them as they are now.
    Files(Box<HandedFiles>),
    /// Go over to another configuration: its descriptors are in the socket [`Further::Reload`].
    Reload(Box<Reload>),
    /// How a check ended that the worker has asked for.
    Checked {
        /// That of the question.
        id: u64,
        /// What was found, in words: good or bad.
        result: Result<String, String>,
    },
    /// How the node is, as was asked. Without the pools, of which the worker knows more than the guard.
    Status(Box<NodeStatus>),
}

/// Another configuration, which the guard has checked. Its descriptors: what its files hold ([`in_memory`]), for each of the
/// addresses one a thread, and the files of access logs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reload {
    /// Its text.
    pub config_text: String,
    /// Addresses of listeners whose sockets the worker does not have yet.
    pub addresses: Vec<SocketAddr>,
    /// Files of access logs that it does not have yet, by their index in `Config::log_targets`.
    pub logs: Vec<u16>,
}

/// From the worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// Every thread accepts connections.
    Ready,
    /// Every thread is alive.
    Alive {
        /// That of the probe.
        sequence: u64,
        /// How it is doing.
        report: Box<Report>,
    },
    /// Whether both nodes have the same sessions changed. Never said where there is nothing to sync with.
    Synced {
        /// Whether they do.
        synced: bool,
    },
    /// The worker cannot start, and why.
    Failed {
        /// In words.
        reason: String,
    },
    /// To a question.
    Answer {
        /// That of the question.
        id: u64,
        /// What is answered.
        answer: Answer,
    },
    /// Somebody asks the worker how the node is.
    AskStatus,
    /// Run the command that checks the servers of a pool, on one of them.
    Check {
        /// Echoed in the answer.
        id: u64,
        /// The pool whose command it is. The configuration says what that is, and nobody else.
        pool: String,
        /// The server's name.
        server: String,
        /// The server's address.
        address: SocketAddr,
    },
    /// What operators have said of servers, here or on the peer, for the next worker: all of it, whenever it changes.
    Administration(Vec<KeptFact>),
    /// The servers that were found, for the next worker: all lists, whenever one changes.
    Found(Vec<KeptList>),
    /// What came of a [`ToWorker::Reload`].
    Reloaded {
        /// Why the configuration cannot be used; the one before is in use then.
        result: Result<(), String>,
        /// The certificates that are served now.
        certificates: Vec<CertificateStatus>,
    },
    /// The files that it was handed are taken: once at its start, and after each [`ToWorker::Files`].
    FilesTaken {
        /// Whether all of them are good. What is not is as it was before.
        are_good: bool,
        /// The certificates that are served now.
        certificates: Vec<CertificateStatus>,
    },
}

/// How a worker is doing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Open client connections.
    pub connections: u64,
    /// Requests answered.
    pub requests: u64,
    /// Pools and the health of their servers.
    pub pools: Vec<PoolStatus>,
    /// How busy the listeners are, in the order of the configuration.
    pub listeners: Vec<ListenerLoad>,
    /// How much the worker takes on.
    #[serde(default)]
    pub load: LoadStatus,
    /// Sticky sessions.
    #[serde(default)]
    pub sessions: SessionsStatus,
    /// The sync link to the other node's worker.
    #[serde(default)]
    pub sync: Option<SyncStatus>,
    /// What it could not do, in words.
    pub warnings: Vec<String>,
}

impl Report {
    /// What was refused at a listener, by the reason.
    pub fn refused(&self, listener: usize) -> BTreeMap<String, u64> {
        self.listeners.get(listener).map(|load| load.refused.clone()).unwrap_or_default()
    }
}

/// How busy a listener is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerLoad {
    /// Connections accepted since the worker started.
    pub accepted: u64,
    /// Of its sockets, those on which nothing is accepted now: the connection limit is reached, or there are no
    /// descriptors left.
    pub full_sockets: u64,
    /// What was refused since then, by the reason.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
}

/// Reads one message a line.
#[derive(Debug)]
pub struct Receiver {
    reader: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    last_len_bytes: usize,
}

/// Writes one message a line.
#[derive(Debug)]
pub struct Sender {
    writer: OwnedWriteHalf,
}

/// Both directions of a connection.
pub fn halves(stream: UnixStream) -> (Sender, Receiver) {
    let (reader, writer) = stream.into_split();
    (Sender { writer }, Receiver { reader: BufReader::new(reader), line: Vec::new(), last_len_bytes: 0 })
}

impl Receiver {
    /// The next message; `None` when the other side has closed. Cancel safe: a line read in part is kept.
    ///
    /// # Errors
    /// `InvalidData` for a line that is too long or not such a message; what read(2) says.
    pub async fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len() as u64);
        (&mut self.reader).take(room).read_until(b'\n', &mut self.line).await?;
        if self.line.last() != Some(&b'\n') {
            let closed_cleanly = self.line.is_empty();
            return if closed_cleanly { Ok(None) } else { Err(invalid("a line that is cut off or too long")) };
        }
        let message = serde_json::from_slice(&self.line).map_err(|error| invalid(&error.to_string()))?;
        self.last_len_bytes = self.line.len();
        self.line.clear();
        if self.last_len_bytes > LINE_BYTES_KEPT_MAX {
            self.line.shrink_to(LINE_BYTES_KEPT_MAX);
        }
        Ok(Some(message))
    }

    /// Length of the message that came last.
    pub fn last_len_bytes(&self) -> usize {
        self.last_len_bytes
    }
}

impl Sender {
    /// Leaves the connection open for another process that has it.
    pub fn forget(self) {
        self.writer.forget();
    }

    /// Writes one message. Not cancel safe: a part of the line may be out.
    ///
    /// # Errors
    /// What write(2) says, `BrokenPipe` when the other side has closed.
    pub async fn send<M: Serialize>(&mut self, message: &M) -> io::Result<()> {
        self.writer.write_all(&encode(message)?).await
    }
}

/// Hands a worker all that it needs. Never waits for the worker: the text goes in a file in memory, and only the
/// descriptors, small beside the socket's buffer, through the socket.
///
/// # Errors
/// What memfd_create(2), write(2) or sendmsg(2) says.
pub fn send_bootstrap(socket: &StdUnixStream, bootstrap: &Bootstrap, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    descriptors::send(socket, &[in_memory(bootstrap)?.as_fd()])?;
    descriptors::send(socket, sockets)
}

/// A message in a file in memory, for one that is large: whoever gets its descriptor reads it when and where it likes.
///
/// # Errors
/// What memfd_create(2) or write(2) says.
pub fn in_memory<M: Serialize>(message: &M) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("baton-message", MemfdFlags::CLOEXEC)?);
    file.write_all(&encode(message)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// The other end of [`in_memory`].
///
/// # Errors
/// What read(2) says; `InvalidData` when it is no such message.
pub fn from_memory<M: DeserializeOwned>(descriptor: OwnedFd) -> io::Result<M> {
    let mut text = Vec::new();
    File::from(descriptor).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|error| invalid(&error.to_string()))
}

/// The descriptors that a worker gets.
#[derive(Debug)]
pub struct Handed {
    /// The listeners' sockets, in the order of [`Bootstrap`].
    pub sockets: Vec<OwnedFd>,
    /// The others.
    pub further: Vec<(Further, OwnedFd)>,
}

/// The worker's end of [`send_bootstrap`]. Blocks until everything is there.
///
/// # Errors
/// What recvmsg(2) or read(2) says; `InvalidData` when it is not a bootstrap.
pub fn receive_bootstrap(socket: &StdUnixStream) -> io::Result<(Bootstrap, Handed)> {
    let memory = descriptors::receive(socket, 1)?.pop().ok_or_else(|| invalid("no descriptor"))?;
    let bootstrap: Bootstrap = from_memory(memory)?;
    // They come in batches that know nothing of the kinds.
    let listening = bootstrap.socket_counts.iter().sum::<usize>() + usize::from(bootstrap.has_sync_socket);
    let mut sockets = descriptors::receive(socket, listening + bootstrap.further.len())?;
    let further = sockets.split_off(listening.min(sockets.len()));
    let further = bootstrap.further.iter().copied().zip(further).collect();
    Ok((bootstrap, Handed { sockets, further }))
}

/// A message as it goes over the socket.
///
/// # Errors
/// `InvalidData` when it cannot be said in JSON.
pub fn encode<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message).map_err(|error| invalid(&error.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        on_a_runtime(async {
            let (guard, worker) = UnixStream::pair().unwrap();
            let ((mut to_worker, _from), (_to, mut from_guard)) = (halves(guard), halves(worker));
            to_worker.send(&ToWorker::Probe { sequence: 7 }).await.unwrap();
            to_worker.send(&ToWorker::Drain).await.unwrap();
            drop(to_worker);
            drop(_from);
            assert!(matches!(from_guard.receive().await, Ok(Some(ToWorker::Probe { sequence: 7 }))));
            assert!(matches!(from_guard.receive().await, Ok(Some(ToWorker::Drain))));
            assert!(matches!(from_guard.receive::<ToWorker>().await, Ok(None)));
        });
    }

    #[test]
    fn a_line_that_is_no_message_is_an_error() {
        on_a_runtime(async {
            let (mut guard, worker) = UnixStream::pair().unwrap();
            let (_sender, mut receiver) = halves(worker);
            guard.write_all(b"{\"probe\":1}\n").await.unwrap();
            assert_eq!(receiver.receive::<ToWorker>().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        });
    }
}
