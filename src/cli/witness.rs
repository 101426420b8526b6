//! `baton witness`: the third place that decides who may hold a VIP while two nodes cannot hear each other.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::anyhow;

use crate::config::PairKey;

/// What is read before anything is opened.
/// What `--help` begins with.
pub(super) const ABOUT: &str = "\
Decide, from a third place, who may hold a VIP while two nodes cannot hear each other.

A node asks here before it takes a VIP from a peer that it does not hear, and goes on asking for as long as it holds it.
Each VIP is lent to one node at a time, for five seconds at most. Run one witness for a pair, on a machine that fails
independently of both nodes, and name it in the configuration of both: [pair] witness = \"ADDR:PORT\".
It needs no configuration and no root, only the pair's key, and keeps nothing on disk. For five seconds after a restart
it lends only to nodes that hold a VIP already.";

/// What is read before anything is opened.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to listen (UDP)
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7948")]
    listen: SocketAddr,
    /// The key of the pair, made by `baton keygen`; given several times it serves several pairs
    #[arg(long = "key-file", value_name = "FILE", default_value = "/etc/baton/pair.key")]
    key_files: Vec<PathBuf>,
}

/// Runs the witness until it is told to stop.
///
/// # Errors
/// A key that cannot be used, an address that cannot be had, or privileges that cannot be given up.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let load = |path: &PathBuf| PairKey::load(path).map_err(|error| anyhow!("{error}; {}", error.remedy()));
    let keys = arguments.key_files.iter().map(load).collect::<anyhow::Result<Vec<_>>>()?;
    crate::witness::run(arguments.listen, &keys)
}
