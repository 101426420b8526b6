//! What an operator asks of a node that only its worker can answer: sessions, and the administrative state of servers.
//!
//! The command line and the admin listener ask, the guard passes it on, the worker answers. A session's key is never
//! shown: a question may carry the value that a client sends, an answer has its hash alone.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::status::SessionPoolStatus;

/// The most entries in one answer; there is a cursor for more.
pub const PAGE_ENTRIES_MAX: u32 = 5_000;

/// The longest value that may be asked for: a listener lets no longer head of a request through.
pub const VALUE_BYTES_MAX: usize = 32 * 1024;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// About sessions, or to remove some.
    Sessions(SessionsQuestion),
    /// Sets the administrative state of a server.
    Server {
        /// Its pool.
        pool: String,
        /// Its name.
        server: String,
        /// What it is to be.
        order: Order,
    },
    /// Adds a server to a pool, or removes one.
    Change {
        /// The pool.
        pool: String,
        /// The server's name.
        server: String,
        /// What of it.
        change: ServerOrder,
    },
    /// Asks the HTTP clients of some addresses, which are about to move to the peer, to come back on other connections; and
    /// those of all others to stay. Answered when they have left, or there is another such question. No operator asks it:
    /// the guard does.
    Leave {
        /// Which; with none of them, it is called off.
        addresses: Vec<IpAddr>,
        /// How.
        stage: LeaveStage,
    },
}

/// How clients are asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveStage {
    /// Each response says `Connection: close`, and HTTP/2 clients get GOAWAY. Answered when no connection is left that was
    /// there at the beginning.
    Told,
    /// Also, of those, connections on which nothing is under way are closed.
    Closed,
    /// As before. Answered when no connection is left at all.
    Last,
}

/// What is to be done with a server of a pool, here and on the peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerOrder {
    /// It is added.
    Add {
        /// Where it listens.
        address: String,
        /// Its share beside the others.
        weight: u32,
        /// Used when no other server of the pool is up.
        backup: bool,
        /// Whether it is there after a restart as well.
        keep: bool,
    },
    /// It is removed: it gets no more requests, those under way end, and its clients get other servers.
    Remove {
        /// Whether it is gone after a restart as well.
        keep: bool,
    },
}

/// A question about sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionsQuestion {
    /// The entries themselves, in the order of their keys' hashes.
    List {
        /// Which.
        filter: Filter,
        /// The hash that the last answer ended with.
        after: Option<String>,
        /// How many at most; never more than [`PAGE_ENTRIES_MAX`] are given.
        limit: u32,
    },
    /// How many there are, by pool and server.
    Count {
        /// Which.
        filter: Filter,
    },
    /// Removes them, here and on the peer.
    Clear {
        /// Which; all of them when it names nothing.
        filter: Filter,
    },
}

/// Which sessions. What is `None` does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Of this pool.
    pub pool: Option<String>,
    /// On servers of this name.
    pub server: Option<String>,
    /// Of the client that sends this value: a cookie's, a header's or a parameter's value, or its address.
    pub key: Option<String>,
}

impl Filter {
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a server is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Takes users as its health allows.
    Enable,
    /// Keeps the users that it has, and takes no new ones.
    Drain,
    /// Gets no requests at all.
    Disable,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`SessionsQuestion::List`].
    Entries {
        /// In the order of their keys' hashes.
        entries: Vec<SessionEntry>,
        /// Where to go on; `None` when these were the last.
        next: Option<String>,
    },
    /// To [`SessionsQuestion::Count`].
    Counts(SessionCounts),
    /// To [`SessionsQuestion::Clear`].
    Cleared {
        /// How many were removed.
        count: u64,
    },
    /// To [`Question::Server`].
    Server(ServerAnswer),
    /// To [`Question::Change`].
    Changed(ChangedAnswer),
    /// To [`Question::Leave`].
    Left,
    /// It was not done, and why.
    Refused(Refusal),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of reason it is.
    pub fault: Fault,
    /// The reason, in words.
    pub reason: String,
}

/// What is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The question makes no sense, whatever it is about.
    Malformed,
    /// What it names is not there.
    Unknown,
    /// What it names is there, and is such that it cannot be done with it.
    Unfit,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// The hash of its key, 32 hex digits.
    pub key: String,
    /// Its pool.
    pub pool: String,
    /// The server that it is on.
    pub server: String,
    /// Time since it was last used, in milliseconds, to the step in which that is noted.
    pub idle_ms: u64,
    /// Time until it goes, unless it is used, in milliseconds.
    pub expires_in_ms: u64,
    /// Which write of it stands, of which node: the highest is the newest.
    pub version: String,
}

/// How many sessions there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCounts {
    /// Entries that the filter lets through.
    pub entries: u64,
    /// Memory of the whole table, of all pools, in bytes.
    pub bytes: u64,
    /// The pools that the filter lets through and that keep sessions in the table, with the servers that it lets through.
    pub pools: Vec<SessionPoolStatus>,
    /// Pools whose clients carry the name of their server in a cookie of ours, so that no table is needed.
    pub cookie_pools: Vec<String>,
}

/// What became of a server that was added or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedAnswer {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub server: String,
    /// Where it listens; `None` for one that was removed.
    pub address: Option<SocketAddr>,
    /// Whether that is so after a restart as well.
    pub keep: bool,
}

/// What an order to a server came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAnswer {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub server: String,
    /// What it is now: `enabled`, `draining` or `disabled`.
    pub admin: String,
    /// Sessions on it, where its pool has them in the table.
    pub sessions: Option<u64>,
}
