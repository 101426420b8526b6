//! What the threads of the worker are doing, from proc(5). For a look at a worker that does not answer, and only then.

use std::fs;
use std::time::Duration;

use crate::fitness::silence::{Doing, Thread};

/// Threads looked at; a worker has at most 256 and its main one.
const THREADS_MAX: usize = 300;

/// The threads of a worker that have to answer: its main one and the proxy's. Others wait for disks and the like and owe
/// nobody an answer. `None` when they cannot be read. A few microseconds a thread.
pub fn of_worker(pid: u32) -> Option<Vec<Thread>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let ids = tasks.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let read = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{id}/stat")).ok()?;
        let mut thread = parse(id, &stat)?;
        if id == pid {
            thread.name = "main".to_owned();
        }
        (id == pid || thread.name.starts_with("proxy-")).then_some(thread)
    };
    let threads: Vec<Thread> = ids.take(THREADS_MAX).filter_map(read).collect();
    (!threads.is_empty()).then_some(threads)
}

/// A line of proc_pid_stat(5). The name stands in brackets and may itself have brackets and blanks.
fn parse(id: u32, stat: &str) -> Option<Thread> {
    let (start, end) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat.get(start + 1..end)?.to_owned();
    let mut fields = stat.get(end + 1..)?.split_ascii_whitespace();
    let doing = Doing::from_letter(fields.next()?.chars().next()?);
    // The state is field 3; utime and stime are fields 14 and 15.
    let ticks: u64 = fields.nth(10)?.parse::<u64>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    Some(Thread { id, name, doing, used: Duration::from_millis(ticks.saturating_mul(1000 / ticks_per_second())) })
}

/// The unit of processor time in proc(5), 100 on nearly every machine.
fn ticks_per_second() -> u64 {
    // SAFETY: sysconf(3) takes no pointers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100).clamp(1, 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_the_kernel_is_read() {
        let stat = "4711 (proxy-1) R 4700 4711 9428 0 -1 4194304 136 0 0 0 57 23 0 0 20 0 4 0 1869062 3133440 416";
        let used = Duration::from_millis(800);
        assert_eq!(
            parse(4711, stat),
            Some(Thread { id: 4711, name: "proxy-1".to_owned(), doing: Doing::Running, used })
        );
    }

    #[test]
    fn brackets_and_blanks_in_a_name_do_no_harm() {
        let stat = "1 (a) S (b)) T 4700 4711 9428 0 -1 4194304 136 0 0 0 0 1 0 0 20 0";
        let thread = parse(1, stat).unwrap();
        assert_eq!(
            (thread.name.as_str(), thread.doing, thread.used),
            ("a) S (b)", Doing::Stopped, Duration::from_millis(10))
        );
    }

    #[test]
    fn line_that_is_cut_off_is_no_thread() {
        for stat in ["", "1", "1 (a", "1 (a)", "1 (a) R", "1 (a) R 1 2 3 4 5 6 7 8 9 10 11", ")1("] {
            assert_eq!(parse(1, stat), None, "{stat}");
        }
    }

    #[test]
    fn own_main_thread_is_found_running() {
        let threads = of_worker(std::process::id()).unwrap();
        assert_eq!(threads.iter().filter(|thread| thread.name == "main").count(), 1);
        assert_eq!(of_worker(u32::MAX), None);
    }
}
