//! How threads are scheduled, and locked memory: the heartbeat before everything else, and work that nobody waits for behind
//! those who serve clients.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Puts the calling thread on `SCHED_FIFO` at `priority` (1 to 99, sched(7)), so that no ordinary process delays it.
/// Children do not inherit it.
///
/// # Errors
/// `PermissionDenied` without `CAP_SYS_NICE` or a sufficient `RLIMIT_RTPRIO`.
pub fn schedule_first(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the pointer is to a live `sched_param` for the whole call; 0 means the calling thread.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the calling thread comes before ordinary ones, whoever has put it there.
pub fn is_first() -> bool {
    // SAFETY: takes a plain number; 0 means the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    matches!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO | libc::SCHED_RR)
}

/// Puts the calling thread on `SCHED_BATCH` (sched(7)): it gets as much of the processor as before, but does not push aside
/// whoever runs when there is something for it to do. Needs no privilege.
///
/// # Errors
/// What sched_setscheduler(2) says.
pub fn schedule_as_batch() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: as above.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps every page that the process uses in memory from now on (mlockall(2)), so that no heartbeat waits for a disk.
///
/// # Errors
/// `PermissionDenied` where the limit on locked memory could be reached: with `MCL_FUTURE` in force an allocation past
/// that limit fails, which would end the process, so it is only done where there is no limit.
pub fn lock_memory() -> io::Result<()> {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    let privileged = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
        && in_first_user_namespace();
    if !unlimited && !privileged {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "locked memory is limited"));
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    Ok(())
}

/// Capabilities over machine-wide resources only count in the first user namespace (user_namespaces(7)).
fn in_first_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
