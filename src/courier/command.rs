//! Runs the operator's command for one event.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::event::Event;

/// Where commands find programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of what a command complains of is passed on.
const COMPLAINT_BYTES_MAX: usize = 300;

/// Time for the rest of a complaint, once the command has ended: a process that it left behind may hold the pipe open.
const COMPLAINT_TIMEOUT: Duration = Duration::from_millis(50);

/// Runs the command once, with the event as JSON on its standard input and its fields in the environment. It is killed
/// with its process group after `patience`.
///
/// # Errors
/// Any end but exit status 0, in words.
pub async fn run(words: &[String], event: &Event, patience: Duration) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let mut child = spawn(program, arguments, event).map_err(|error| format!("{program} cannot be run: {error}"))?;
    let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let text = serde_json::to_vec(event).map_err(|error| error.to_string())?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let mut complaint = Vec::new();
    let ended = {
        let talk = async {
            if let Some(mut stdin) = stdin {
                // A command that does not want to know closes it.
                drop(stdin.write_all(&text).await);
            }
            read(stderr, &mut complaint).await;
        };
        timeout(patience, wait(&mut child, talk)).await
    };
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failure(status, &complaint)),
        Ok(Err(error)) => Err(format!("{program} cannot be waited for: {error}")),
        Err(_) => {
            if let Some(group) = group {
                // It may have ended this very moment.
                let _ = kill_process_group(group, Signal::KILL);
            }
            drop(child.wait().await);
            Err(format!("did not end within {} ms and was killed", patience.as_millis()))
        }
    }
}

fn spawn(program: &str, arguments: &[String], event: &Event) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let fields = [
        ("SEQUENCE", event.sequence.to_string()),
        ("TIME", event.time.clone()),
        ("NODE", event.node.clone()),
        ("VIP", event.vip.clone()),
        ("FROM", event.from.to_string()),
        ("TO", event.to.to_string()),
        ("REASON", event.reason.clone()),
        ("EPOCH", event.epoch.to_string()),
        ("ADDRESSES", event.addresses.join(" ")),
        ("PEER", event.peer.clone().unwrap_or_default()),
    ];
    command.envs(fields.map(|(name, value)| (format!("BATON_EVENT_{name}"), value.replace('\0', ""))));
    // SAFETY: between fork and exec only prctl(2) is called; it allocates nothing and takes no lock.
    unsafe {
        // A command that outlived its courier would run beside the next attempt at the same event.
        command.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from));
    }
    command.spawn()
}

/// Waits for the end, while `talk` goes on, and a moment longer.
async fn wait(child: &mut Child, talk: impl Future<Output = ()>) -> io::Result<ExitStatus> {
    tokio::pin!(talk);
    let mut is_talking = true;
    loop {
        tokio::select! {
            () = &mut talk, if is_talking => is_talking = false,
            ended = child.wait() => {
                if is_talking {
                    drop(timeout(COMPLAINT_TIMEOUT, &mut talk).await);
                }
                return ended;
            }
        }
    }
}

/// Reads to the end, so that nobody waits for us to read, and keeps the beginning.
async fn read(stderr: Option<ChildStderr>, complaint: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        let room = COMPLAINT_BYTES_MAX.saturating_sub(complaint.len());
        complaint.extend(buffer.iter().take(length.min(room)));
    }
}

fn failure(status: ExitStatus, complaint: &[u8]) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    let complaint = String::from_utf8_lossy(complaint);
    // One line, without what a terminal would obey.
    let first = complaint.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let first: String = first.chars().filter(|c| !c.is_control()).collect();
    if first.is_empty() { how } else { format!("{how}: {first}") }
}
