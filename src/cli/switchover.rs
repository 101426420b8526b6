//! `baton switchover`: moves VIPs to the other node, planned: that one claims first, then the holder lets go.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::status::ask;
use crate::guard::control::{self, Answer, Request};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The vip to move; all of them if none is named
    #[arg(value_name = "VIP")]
    vip: Option<String>,
    /// Also when sessions would be lost, because the node that gets the VIP is not synced; never to a node that is unfit
    #[arg(long)]
    force: bool,
    /// Where the node keeps its control socket
    #[arg(long, value_name = "DIR", default_value = control::RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

/// Moves them.
///
/// # Errors
/// When one of them did not move: which, and why.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let request = Request::Switchover { vip: arguments.vip.clone(), force: arguments.force };
    let Answer::Switchover(moves) = ask(&arguments.runtime_dir, &request)? else {
        bail!("the guard answered something else than was asked");
    };
    let mut text = String::new();
    let mut failed = Vec::new();
    for moved in moves {
        match moved.refused {
            None => text += &format!("vip {} is {} here now\n", moved.vip, moved.role),
            Some(reason) => failed.push(format!("vip {} was not moved: {reason}", moved.vip)),
        }
    }
    super::answer(&text).context("failed to print what was moved")?;
    if failed.is_empty() { Ok(()) } else { bail!(failed.join("\n")) }
}
