//! Looks by running a command: its exit status is the finding, what it says is the evidence.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Rhythm;
use crate::config::{Config, FitnessSubject};
use crate::fitness::Finding;
use crate::net::privileges;
use crate::net::privileges::User;

/// Where the command finds other programs; the guard's own environment is no business of it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes of its output that are kept as evidence. The rest is read and thrown away, so that it can always write.
const SAID_BYTES_MAX: usize = 200;

/// Reads of output that was left in the pipe at its end.
const LAST_READS_MAX: usize = 4;

/// Time to see the end of a command that was killed, before that is told.
const KILLED_TIMEOUT: Duration = Duration::from_millis(100);

/// Commands that others than root could change, in sentences: they would run with the guard's privileges.
pub(super) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let programs = config.fitness.iter().filter_map(|check| match &check.subject {
        FitnessSubject::Command { command } => command.first().map(|program| (&check.name, program)),
        _ => None,
    });
    let warning = |(name, program): (&String, &String)| {
        let metadata = std::fs::metadata(Path::new(program)).ok()?;
        let own = rustix::process::geteuid().as_raw();
        let reason = if metadata.mode() & 0o022 != 0 {
            format!("has mode {:04o}", metadata.mode() & 0o7777)
        } else if ![0, own].contains(&metadata.uid()) {
            format!("belongs to user {}", metadata.uid())
        } else {
            return None;
        };
        Some(format!("fitness check {name} runs {program}, which {reason}: others than root can make it run anything"))
    };
    programs.filter_map(warning)
}

/// A program to run.
#[derive(Debug)]
pub struct Program<'p> {
    /// Its absolute path and its arguments.
    pub words: &'p [String],
    /// What it finds in its environment besides `PATH`.
    pub environment: &'p [(&'static str, String)],
    /// As whom it runs.
    pub as_whom: AsWhom<'p>,
}

/// As whom a program runs.
#[derive(Debug, Clone, Copy)]
pub enum AsWhom<'p> {
    /// With all that the guard may do.
    Guard,
    /// With no privileges, and as this user where one is given.
    Nobody(Option<&'p User>),
}

/// Runs the command at its interval until the guard ends; never twice at a time.
pub(super) async fn watch(command: Vec<String>, rhythm: Rhythm) {
    let mut turns = rhythm.turns();
    let mut stuck: Option<Child> = None;
    loop {
        turns.tick().await;
        let is_stuck = match &mut stuck {
            Some(child) => timeout(KILLED_TIMEOUT, child.wait()).await.is_err(),
            None => false,
        };
        let finding = if is_stuck {
            Finding::Bad("it was killed and does not end".to_owned())
        } else {
            let (finding, killed) = look(&fitness(&command), rhythm.timeout).await;
            stuck = killed;
            finding
        };
        if !rhythm.report(finding).await {
            return;
        }
    }
}

fn fitness(words: &[String]) -> Program<'_> {
    Program { words, environment: &[], as_whom: AsWhom::Guard }
}

/// One run. Gives the process as well where it had to be killed and has not ended.
pub async fn look(program: &Program<'_>, patience: Duration) -> (Finding, Option<Child>) {
    let (mut child, output) = match spawn(program) {
        Ok(started) => started,
        Err(error) => return (Finding::Bad(format!("it cannot be started: {error}")), None),
    };
    let mut said = Vec::new();
    match timeout(patience, finish(&mut child, &output, &mut said)).await {
        Ok(Ok(status)) if status.success() => (Finding::Good(with_words("exit status 0", &said)), None),
        Ok(Ok(status)) => (Finding::Bad(with_words(&ending(status), &said)), None),
        Ok(Err(error)) => (Finding::Bad(format!("it cannot be waited for: {error}")), None),
        Err(_) => {
            kill_group(&mut child);
            let reason = format!("it ran for more than {} ms and was killed", patience.as_millis());
            let is_gone = timeout(KILLED_TIMEOUT, child.wait()).await.is_ok();
            (Finding::Bad(with_words(&reason, &said)), (!is_gone).then_some(child))
        }
    }
}

/// In a process group of its own, so that what it starts can be ended with it, and gone with the guard.
fn spawn(asked: &Program<'_>) -> io::Result<(Child, pipe::Receiver)> {
    let (program, arguments) = asked.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(OsStr::new(program));
    command.args(arguments).env_clear().env("PATH", PATH).current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    command.envs(asked.environment.iter().map(|(name, value)| (name, value)));
    let nobody = match asked.as_whom {
        AsWhom::Guard => None,
        AsWhom::Nobody(user) => Some(user.cloned()),
    };
    // SAFETY: between fork and exec only prctl(2), capset(2) and those that set user and groups are called, which allocate
    // nothing and take no lock: in the child there is one thread.
    unsafe {
        command.pre_exec(move || {
            if let Some(user) = &nobody {
                // As the worker does inside a user namespace that maps one user.
                privileges::drop_all(user.as_ref()).or_else(|_| privileges::drop_all(None))?;
            }
            // A change of user forgets it.
            set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)
        });
    }
    let child = command.spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(reader.into())?))
}

/// Waits for its end. A descendant that keeps the output open is not waited for.
async fn finish(child: &mut Child, output: &pipe::Receiver, said: &mut Vec<u8>) -> io::Result<ExitStatus> {
    let mut is_open = true;
    let status = loop {
        tokio::select! {
            biased;
            readable = output.readable(), if is_open => is_open = readable.is_ok() && read(output, said),
            status = child.wait() => break status?,
        }
    };
    for _ in 0..LAST_READS_MAX {
        if !is_open || !read(output, said) {
            break;
        }
    }
    Ok(status)
}

/// Reads what is there and keeps the beginning. False at the end of the output.
fn read(output: &pipe::Receiver, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match output.try_read(&mut buffer) {
        Ok(0) => false,
        Ok(len) => {
            let room = SAID_BYTES_MAX.saturating_sub(said.len());
            said.extend(buffer.iter().take(len.min(room)));
            true
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Kills it and everything in its group. It was not waited for yet, so that the number is still its own.
fn kill_group(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        // It may have ended by itself a moment ago, which is as good.
        let _ended = kill_process_group(group, Signal::KILL);
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// What happened, with what the command said about it, in one printable line.
fn with_words(what: &str, said: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(said).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.trim() {
        "" => what.to_owned(),
        words => format!("{what}: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, patience_ms: u64) -> Finding {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (finding, stuck) = runtime.block_on(look(&fitness(&words), Duration::from_millis(patience_ms)));
        assert!(stuck.is_none());
        finding
    }

    #[test]
    fn exit_status_decides_and_the_output_is_the_evidence() {
        assert_eq!(run("exit 0", 5_000), Finding::Good("exit status 0".to_owned()));
        assert_eq!(run("echo fine; exit 0", 5_000), Finding::Good("exit status 0: fine".to_owned()));
        let bad = Finding::Bad("exit status 7: no  route".to_owned());
        assert_eq!(run("printf 'no\\n\\troute\\n' >&2; exit 7", 5_000), bad);
        assert_eq!(run("kill -9 $$", 5_000), Finding::Bad("killed by signal 9".to_owned()));
    }

    #[test]
    fn two_hundred_bytes_are_kept_and_more_do_no_harm() {
        let said = run(
            "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done",
            9_000,
        );
        let Finding::Good(evidence) = said else { panic!("{said:?}") };
        assert_eq!(evidence.len(), "exit status 0: ".len() + 200);
    }

    #[test]
    fn environment_is_empty_but_for_the_path() {
        let said = run("env | grep -v -e ^PWD= -e ^SHLVL= -e ^_=", 5_000);
        assert_eq!(said, Finding::Good(format!("exit status 0: PATH={PATH}")));
    }

    #[test]
    fn command_that_hangs_is_killed_with_what_it_started() {
        let directory = std::env::temp_dir().join(format!("baton-command-{:08x}", fastrand::u32(..)));
        std::fs::create_dir(&directory).unwrap();
        let pid_file = directory.join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo started; wait", pid_file.display());
        let bad = Finding::Bad("it ran for more than 300 ms and was killed: started".to_owned());
        assert_eq!(run(&script, 300), bad);
        let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        // Gone, or dead and waiting for somebody to take note of it.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(std::time::Instant::now() < deadline, "process {pid} still runs");
            std::thread::yield_now();
        }
    }

    #[test]
    fn descendant_that_keeps_the_output_open_is_not_waited_for() {
        assert_eq!(run("sleep 2 & exit 0", 5_000), Finding::Good("exit status 0".to_owned()));
    }

    #[test]
    fn program_that_is_not_there_is_bad() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (finding, _) = runtime.block_on(look(&fitness(&["/nowhere".to_owned()]), Duration::from_secs(1)));
        assert_eq!(finding, Finding::Bad("it cannot be started: No such file or directory (os error 2)".to_owned()));
    }
}
