//! `baton reload`: has a running node read its configuration again.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::status::ask_patiently;
use crate::guard::control::{self, Answer, Request};

/// What `--help` says.
pub(super) const ABOUT: &str = "\
Read the configuration again and use it, without breaking a connection

The file is checked whole first, as `baton check` does. With a mistake in it, or an address that cannot be bound, nothing \
changes, the mistakes are printed and the exit status is 1: the configuration before stays in use. Otherwise what has \
changed is printed, and the exit status is 0 when it is in use.

Requests under way end as they began; the next ones on the same connections follow the new file. Listeners that are gone \
take no more connections, and close those that they have after the request under way. Sessions, limits, health and \
administrative states of what keeps its name stay.

[[node]], [pair], [[vip]], [[fitness]], [events], [admin], sessions.store, sessions.snapshot_interval, worker.threads, \
worker.user, worker.probe_interval and worker.probe_timeout need a restart; a reload that would change one of them is \
refused and says so.

SIGHUP to the guard does the same, and opens the files of the access log again; what comes of it stands in the log and in \
`baton status`.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the node keeps its control socket
    #[arg(long, value_name = "DIR", default_value = control::RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

/// Has it done, and says what has changed.
///
/// # Errors
/// When the file is not in use now: every mistake in it, or what else is wrong.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let answer = ask_patiently(&arguments.runtime_dir, &Request::Reload, control::RELOAD_TIMEOUT)?;
    let Answer::Reloaded(changes) = answer else {
        bail!("the guard answered something else than was asked");
    };
    let mut text = changes.iter().map(|change| format!("{change}\n")).collect::<String>();
    if text.is_empty() {
        "nothing has changed\n".clone_into(&mut text);
    }
    super::answer(&text).context("it is done, but failed to say so")
}
