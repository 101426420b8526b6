//! `baton reload`: has a running node read its configuration again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::status::{ask, ask_patiently};
use crate::guard::control::{self, Answer, Request};

/// What `--help` says.
pub(super) const ABOUT: &str = "\
Read the configuration again and use it, without breaking a connection

The file is checked whole first, as `baton check` does. With a mistake in it, an address that cannot be bound, or files that \
cannot be read within 9 s, nothing changes, the mistakes are printed and the exit status is 1: the configuration before stays in use. Otherwise what has \
changed is printed, and the exit status is 0 when it is in use.

Requests under way end as they began; the next ones on the same connections follow the new file. Listeners that are gone \
take no more connections, and close those that they have after the request under way. Sessions, limits, health and \
administrative states of what keeps its name stay.

What a running program cannot change over to ([[node]], [pair], [[vip]], [[fitness]], [events], [admin], \
sessions.store, sessions.snapshot_interval, worker.threads, worker.user, worker.probe_interval and worker.probe_timeout), \
and a program that was replaced on the disk, as by an upgrade of the package, are taken over to: the program is started anew \
in the same process, the virtual addresses that stay the same virtual routers stay where they are, and a new worker takes the \
connections from then on. The former worker answers what it has, tells clients to come back on another connection, and ends \
within worker.drain_timeout. The exit status is 0 when the new worker serves. A program that cannot start, or cannot read what \
the one that runs leaves, is refused before anything changes.

SIGHUP to the guard does the same, and opens the files of the access log again; what comes of it stands in the log and in \
`baton status`.";

/// Time for a program that takes over to have a worker that serves.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks.
const POLL: Duration = Duration::from_millis(20);

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
    let (changes, is_taken_over) =
        match ask_patiently(&arguments.runtime_dir, &Request::Reload, control::RELOAD_TIMEOUT)? {
            Answer::Reloaded(changes) => (changes, false),
            Answer::TakingOver { takeovers, changes } => {
                wait_for(&arguments.runtime_dir, takeovers)?;
                (changes, true)
            }
            _ => bail!("the guard answered something else than was asked"),
        };
    let mut text = changes.iter().map(|change| format!("{change}\n")).collect::<String>();
    if is_taken_over {
        text.push_str("the program has taken over anew, and a new worker serves\n");
    } else if text.is_empty() {
        "nothing has changed\n".clone_into(&mut text);
    }
    super::answer(&text).context("it is done, but failed to say so")
}

/// Waits until the guard that goes on has a worker that serves.
fn wait_for(runtime_dir: &Path, takeovers: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + TAKEOVER_TIMEOUT;
    loop {
        // While one program becomes the other, who asks waits in the queue of the socket, or is sent away.
        let answer = ask(runtime_dir, &Request::Status);
        if let Ok(Answer::Status(status)) = &answer
            && status.takeovers >= takeovers
            && !status.is_taking_over
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let last = match answer {
                Ok(Answer::Status(status)) => status.worker.last_exit,
                Ok(_) => None,
                Err(error) => Some(format!("{error:#}")),
            };
            let last = last.map(|last| format!(" ({last})")).unwrap_or_default();
            bail!(
                "the program has taken over, but its worker does not serve yet, and the one before goes on{last}: \
                 `baton status` and the log say more"
            );
        }
        std::thread::sleep(POLL);
    }
}
