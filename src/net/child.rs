//! Processes of this very program, started with one socket to their parent.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::process::{Resource, getrlimit};
use tokio::process::{Child, Command};

use super::privileges;

/// What children take over of our environment: how to log, and where an operator keeps certificate authorities.
const KEPT_VARIABLES: [&str; 5] = ["BATON_LOG", "NO_COLOR", "JOURNAL_STREAM", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// More descriptors than a worker has at its usual limits; the kernel's table of them has eight bytes for each.
const DESCRIPTORS_MAX: u64 = 65_536;

/// What a child may do that is not root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capabilities {
    /// As much as we may.
    Ours,
    /// Nothing, from its first moment.
    None,
}

/// Starts `baton SUBCOMMAND DESCRIPTOR`, and gives our end of the socket whose other end has that number in the child.
/// The child is killed when the handle is dropped.
///
/// # Errors
/// What socketpair(2), fork(2) or execve(2) says.
pub fn spawn(subcommand: &str, capabilities: Capabilities) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let descriptor = theirs.as_raw_fd();
    // This very program, even when the file it came from has been replaced by an upgrade meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("baton").arg(subcommand).arg(descriptor.to_string());
    command.stdin(Stdio::null()).kill_on_drop(true).env_clear();
    for kept in KEPT_VARIABLES {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    // SAFETY: between fork and exec only fcntl(2), on a descriptor that is open in the child, and prctl(2) are called,
    // which allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            if capabilities == Capabilities::None {
                privileges::keep_none_over_exec()?;
            }
            rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(descriptor), rustix::io::FdFlags::empty())
                .map_err(io::Error::from)
        });
    }
    let child = command.spawn()?;
    drop(theirs);
    Ok((child, ours))
}

/// Takes over, in the child, the descriptor that it was started with.
///
/// # Errors
/// `InvalidInput` when it is no such socket: the command was typed by hand.
pub fn socket_to_parent(descriptor: i32) -> io::Result<UnixStream> {
    let by_hand = || io::Error::new(io::ErrorKind::InvalidInput, "this command is started by `baton run`, not by hand");
    // SAFETY: borrowed for this one question only; for a number that is not open the answer is an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor.max(3)) };
    let domain = rustix::net::sockopt::socket_domain(borrowed).map_err(|_| by_hand())?;
    if descriptor < 3 || domain != rustix::net::AddressFamily::UNIX {
        return Err(by_hand());
    }
    // SAFETY: it is open, it is a socket that we were started with, and nothing else in this process knows of it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC)?;
    Ok(UnixStream::from(owned))
}

/// Gives the socket to the parent a high number. The kernel closes what a killed process had one after the other, and
/// begins (Linux since 4.4, in practice) with the highest number: with thousands of connections open, the parent learns
/// of the end in two milliseconds this way, and in dozens otherwise.
///
/// # Errors
/// What fcntl(2) says.
pub fn close_first(socket: UnixStream) -> io::Result<UnixStream> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let highest = i32::try_from(limit.min(DESCRIPTORS_MAX).saturating_sub(1)).unwrap_or(0);
    Ok(UnixStream::from(rustix::io::fcntl_dupfd_cloexec(&socket, highest)?))
}
