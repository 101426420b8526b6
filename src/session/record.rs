//! An entry of the session table on its way to another node or a file. Times in it are relative to when it is sent, so
//! that no two clocks have to agree.

use std::time::Duration;

use super::key::Key;
use super::version::Version;

/// A server of a pool, by their places in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerRef {
    /// The pool's index.
    pub pool: u16,
    /// The server's index in it.
    pub server: u16,
}

/// What there is to know about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub key: Key,
    /// The pool's index.
    pub pool: u16,
    /// The server's index in the pool; `None` when the entry was deleted.
    pub server: Option<u16>,
    /// Which write it is.
    pub version: Version,
    /// Time since it was last used, in steps of 100 ms.
    pub idle: Duration,
    /// Time since it was made, or deleted, in steps of 100 ms.
    pub age: Duration,
}
