//! The control socket: how `baton status` and the like ask a running guard.
//!
//! One JSON object a line in each direction, over a Unix socket that only its owner may open.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::inquiry::{self, SessionsQuestion};
use crate::link;
use crate::status::NodeStatus;
use crate::status::SwitchoverStatus;

/// Where a node keeps its sockets and locks, unless told otherwise.
pub const RUNTIME_DIR: &str = "/run/baton";
const SOCKET: &str = "control.sock";
/// Conversations at once; one more waits in the kernel's queue.
const CONVERSATIONS_MAX: usize = 16;
/// Time for one question and its answer.
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a reload: files are read, and the worker takes them; and for a switchover, before which clients leave.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// How the node is.
    Status,
    /// Move VIPs to the other node.
    Switchover {
        /// Which; all of them when `None`.
        vip: Option<String>,
        /// Also to a node that is not synced.
        force: bool,
        /// Without waiting for clients to leave.
        #[serde(default)]
        now: bool,
    },
    /// Show sessions, count them, or remove some.
    Sessions {
        /// What of it.
        question: SessionsQuestion,
    },
    /// Read the configuration again and use it.
    Reload,
    /// Set the administrative state of a server.
    Server {
        /// Its pool.
        pool: String,
        /// Its name.
        server: String,
        /// What it is to be.
        order: inquiry::Order,
    },
    /// Add a server to a pool, or remove one.
    Change {
        /// The pool.
        pool: String,
        /// The server's name.
        server: String,
        /// What of it.
        change: inquiry::ServerOrder,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done.
    Ok(Answer),
    /// It was not, and why.
    Error(String),
}

/// What an answer consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How the node is.
    Status(Box<NodeStatus>),
    /// What came of each switchover.
    Switchover(Vec<SwitchoverStatus>),
    /// What a reload has changed, a line each.
    Reloaded(Vec<String>),
    /// Another program takes over, for the new configuration or as a new release. It is done when the status says that
    /// there were so many takeovers and none is under way.
    TakingOver {
        /// How many, with this one.
        takeovers: u64,
        /// What is otherwise, a line each.
        changes: Vec<String>,
    },
    /// What the worker says; never [`inquiry::Answer::Refused`].
    Worker(inquiry::Answer),
}

/// A question, and where its answer goes.
pub type Question = (Request, oneshot::Sender<Reply>);

/// The path of the control socket.
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET)
}

/// Opens the control socket. The caller holds the lock of the directory, so a socket that is there is a left-over.
///
/// # Errors
/// What unlink(2), bind(2) or chmod(2) says.
pub fn listen(runtime_dir: &Path) -> io::Result<UnixListener> {
    let path = socket_path(runtime_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Takes over the control socket that a guard before this one in the same process has opened.
///
/// # Errors
/// What epoll_ctl(2) says.
pub fn inherit(descriptor: OwnedFd) -> io::Result<UnixListener> {
    let listener = StdUnixListener::from(descriptor);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Takes questions and hands them to the guard, until the runtime ends.
pub async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>) {
    let conversations = std::sync::Arc::new(tokio::sync::Semaphore::new(CONVERSATIONS_MAX));
    loop {
        let Ok(permit) = std::sync::Arc::clone(&conversations).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: the pause keeps this from turning in circles.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let questions = questions.clone();
        tokio::spawn(async move {
            // Whoever asks and goes away, or dawdles, has no claim to more.
            drop(timeout(RELOAD_TIMEOUT + CONVERSATION_TIMEOUT, converse(stream, questions)).await);
            drop(permit);
        });
    }
}

async fn converse(stream: UnixStream, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let (mut sender, mut receiver) = link::halves(stream);
    loop {
        let received = timeout(CONVERSATION_TIMEOUT, receiver.receive::<Request>());
        let reply = match received.await? {
            Ok(None) => return Ok(()),
            Ok(Some(request)) => {
                let takes_time = matches!(request, Request::Reload | Request::Switchover { .. });
                let patience = if takes_time { RELOAD_TIMEOUT } else { CONVERSATION_TIMEOUT };
                timeout(patience, ask(&questions, request)).await?
            }
            Err(error) => Reply::Error(format!("the request is not understood: {error}")),
        };
        let is_last = matches!(reply, Reply::Error(_));
        sender.send(&reply).await?;
        if is_last {
            return Ok(());
        }
    }
}

async fn ask(questions: &mpsc::Sender<Question>, request: Request) -> Reply {
    let (answer, answered) = oneshot::channel();
    let is_asked = questions.send((request, answer)).await.is_ok();
    let reply = if is_asked { answered.await.ok() } else { None };
    reply.unwrap_or_else(|| Reply::Error("the guard is stopping".to_owned()))
}

/// Asks a running guard. Blocks, at most for `patience`.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when no guard runs there, `PermissionDenied` for other users, `TimedOut`
/// or `WouldBlock` when it does not answer, `UnexpectedEof` when it has become another program meanwhile or ended, `Other`
/// with the guard's own words when it refuses.
pub fn request(runtime_dir: &Path, request: &Request, patience: Duration) -> io::Result<Answer> {
    let mut stream = StdUnixStream::connect(socket_path(runtime_dir))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&link::encode(request)?)?;
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let reply = serde_json::from_str(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match reply {
        Reply::Ok(answer) => Ok(answer),
        Reply::Error(reason) => Err(io::Error::other(reason)),
    }
}
