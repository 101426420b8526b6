//! Looks whether a process of a name runs.

use std::fs;

use crate::config::{Config, FitnessSubject};
use crate::fitness::Finding;

/// Checks of processes where those of other users cannot be seen, in sentences: what they look for may run all the same.
pub(super) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let are_hidden = others_are_hidden();
    let checks = config
        .fitness
        .iter()
        .filter(move |check| are_hidden && matches!(check.subject, FitnessSubject::Process { .. }));
    checks.map(|check| {
        format!(
            "fitness check {} sees no process of another user, as /proc hides them: let the service have ProtectProc=default",
            check.name
        )
    })
}

/// Whether /proc hides the processes of others (`hidepid`, proc(5)). The first process is always there.
fn others_are_hidden() -> bool {
    fs::read("/proc/1/comm").is_err()
}

/// One look through /proc. The name is the kernel's (`comm`, proc_pid_comm(5)); a process that has ended and was not
/// waited for does not run. Some microseconds for each process of the machine.
pub(super) fn look(name: &str) -> Finding {
    let processes = match fs::read_dir("/proc") {
        Ok(processes) => processes,
        Err(error) => return Finding::Bad(format!("/proc cannot be read: {error}")),
    };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    match ids.into_iter().find(|id| is_named(*id, name) && is_running(*id)) {
        Some(id) => Finding::Good(format!("process {id} is {name}")),
        None if others_are_hidden() => Finding::Bad(format!("no process {name} of our user runs; others are hidden")),
        None => Finding::Bad(format!("no process {name} runs")),
    }
}

fn is_named(id: u32, name: &str) -> bool {
    fs::read(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.strip_suffix(b"\n") == Some(name.as_bytes()))
}

fn is_running(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !['Z', 'X', 'x'].contains(&state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn process_runs_until_it_has_ended_even_when_nobody_waits_for_it() {
        // A name that no other process has.
        let directory = std::env::temp_dir().join(format!("baton-process-{:08x}", fastrand::u32(..)));
        fs::create_dir(&directory).unwrap();
        let name = format!("bt-{:08x}", fastrand::u32(..));
        let program = directory.join(&name);
        fs::copy("/bin/sleep", &program).unwrap();
        assert_eq!(look(&name), Finding::Bad(format!("no process {name} runs")));
        let mut child = Command::new(&program).arg("1000").spawn().unwrap();
        // The parent goes on once the child has its new memory, which is a little before it has its new name (execve(2)).
        while !is_named(child.id(), &name) {
            std::thread::yield_now();
        }
        assert_eq!(look(&name), Finding::Good(format!("process {} is {name}", child.id())));
        child.kill().unwrap();
        while is_running(child.id()) {
            std::thread::yield_now();
        }
        assert!(is_named(child.id(), &name), "it is still in the table");
        assert_eq!(look(&name), Finding::Bad(format!("no process {name} runs")));
        child.wait().unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }
}
