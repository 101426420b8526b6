//! `baton switchover`: moves VIPs to the other node, planned: clients leave, that one claims, then the holder lets go.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::status::{ask, ask_patiently};
use crate::guard::control::{self, Answer, RELOAD_TIMEOUT, Request};
use crate::status::{NodeStatus, Role};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The vip to move; all of them if none is named
    #[arg(value_name = "VIP")]
    vip: Option<String>,
    /// Also when sessions would be lost, because the node that gets the VIP is not synced; never to a node that is unfit
    #[arg(long)]
    force: bool,
    /// Without waiting for HTTP clients to leave (pair.switchover_drain): their connections break
    #[arg(long)]
    now: bool,
    /// Where the node keeps its control socket
    #[arg(long, value_name = "DIR", default_value = control::RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

/// Moves them.
///
/// # Errors
/// When one of them did not move: which, and why.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (vip, force, now) = (arguments.vip.clone(), arguments.force, arguments.now);
    let Answer::Status(status) = ask(&arguments.runtime_dir, &Request::Status)? else {
        bail!("the guard answered something else than was asked");
    };
    if let Some(text) = waits_for(&status, arguments) {
        super::complain(&text);
    }
    let request = Request::Switchover { vip, force, now };
    let Answer::Switchover(moves) = ask_patiently(&arguments.runtime_dir, &request, RELOAD_TIMEOUT)? else {
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

/// What is waited for before anything moves, where it is.
fn waits_for(status: &NodeStatus, arguments: &Arguments) -> Option<String> {
    let is_meant = |name: &str| arguments.vip.as_deref().is_none_or(|wanted| wanted == name);
    let mut meant = status.vips.iter().filter(|vip| is_meant(&vip.name) && vip.role != Role::Unfit).peekable();
    meant.peek()?;
    let (time_ms, count) = (status.switchover_drain_ms, status.worker.connections);
    let whose =
        if meant.all(|vip| vip.role == Role::Active) { format!("{count} connections here") } else { "all".to_owned() };
    (time_ms > 0 && !arguments.now).then(|| {
        format!("waiting for HTTP clients to leave ({whose}), for at most {time_ms} ms; --now moves it without them")
    })
}
