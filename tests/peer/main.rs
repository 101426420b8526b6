//! The sync link on loopback: two nodes in one process, and everybody else who may come to the port.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod counters;
mod hostile;
mod pair;
mod rig;
mod strangers;
