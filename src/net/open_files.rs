//! How many files, sockets among them, this process may have open (getrlimit(2), `RLIMIT_NOFILE`).

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit in force.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the limit to the most that this process may have without privileges. Not for a process that starts programs which
/// know of a thousand files only (select(2)): the limit is theirs too.
///
/// # Errors
/// What setrlimit(2) says.
pub fn raise_limit() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Files that are open now, give or take one.
///
/// # Errors
/// What open(2) says of /proc/self/fd.
pub fn count() -> io::Result<u64> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_open_are_counted() {
        let before = count().unwrap();
        let files: Vec<_> = (0..500).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close some meanwhile.
        assert!(count().unwrap() > before + 300);
        drop(files);
    }
}
