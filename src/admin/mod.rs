//! What operators and their programs ask of a worker: sessions and the administrative state of servers.
//!
//! [`questions`] answers what comes over the link from the guard.

pub mod questions;
