//! Processes that the guard starts from its own program, each with one descriptor: the socket to the guard.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Stdio;

use tokio::process::Command;

/// The command that starts one, as `baton SUBCOMMAND DESCRIPTOR`, with nothing in its environment but what logs need.
pub fn command(subcommand: &str, socket: BorrowedFd<'_>) -> Command {
    let descriptor = socket.as_raw_fd();
    // This very program, even when the file it came from has been replaced by an upgrade meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("baton").arg(subcommand).arg(descriptor.to_string());
    command.stdin(Stdio::null()).kill_on_drop(true).env_clear();
    for kept in ["BATON_LOG", "NO_COLOR", "JOURNAL_STREAM"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    // SAFETY: between fork and exec only fcntl(2) is called, on a descriptor that is open in the child; it allocates
    // nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(descriptor), rustix::io::FdFlags::empty())
                .map_err(io::Error::from)
        });
    }
    command
}
