//! `baton switchover`: moves VIPs to the other node, planned: clients leave, that one claims, then the holder lets go.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::status::{ask, ask_patiently};
use crate::guard::control::{self, Answer, RELOAD_TIMEOUT, Request};

/// Time after which it is said what takes so long.
const SILENCE_MAX: Duration = Duration::from_millis(200);

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
    let request = Request::Switchover { vip, force, now };
    let (answered, answer) = mpsc::channel();
    let runtime_dir = arguments.runtime_dir.clone();
    thread::spawn(move || answered.send(ask_patiently(&runtime_dir, &request, RELOAD_TIMEOUT)));
    let answer = answer.recv_timeout(SILENCE_MAX).or_else(|_| {
        if !now {
            say_what_is_waited_for(&arguments.runtime_dir);
        }
        answer.recv()
    });
    let Answer::Switchover(moves) = answer.context("nobody asks the guard")?? else {
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

fn say_what_is_waited_for(runtime_dir: &Path) {
    let Ok(Answer::Status(status)) = ask(runtime_dir, &Request::Status) else { return };
    let time_ms = status.switchover_drain_ms;
    if time_ms > 0 {
        super::complain(&format!("waiting for HTTP clients to leave, for at most {time_ms} ms; --now does not wait"));
    }
}
