//! Baton among programs that others wrote: keepalived as the other node, tshark as the judge of what Baton sends, scapy as
//! the forger of what it must refuse.

mod common_start;
mod forged;
mod judge;
mod keepalived;
mod matrix;
mod recording;
mod rows;
mod table;

use libtest_mimic::Trial;

/// How an active node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It stops, and says so with priority 0.
    Stopped,
    /// All of it is killed, and it says nothing.
    Killed,
}

pub fn trials() -> Vec<Trial> {
    [matrix::trials(), common_start::trials(), judge::trials(), forged::trials()].into_iter().flatten().collect()
}
