//! Namespaces of our own: one around the whole lab, then a network namespace for each machine in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::LabError;
use super::forbidden::{Forbidden, Step};

/// Where `ip netns` looks for network namespaces.
const NAMED_NAMESPACES: &str = "/run/netns";

/// How the process entered namespaces of its own; other terminals need to know to follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// As root, into a network and a mount namespace.
    AsRoot,
    /// Into a user namespace as well, where the user who started it is root.
    InUserNamespace,
}

/// Takes the process out of the machine's network: into a network and a mount namespace of its own with an empty /run,
/// and when it has no right to that, into a user namespace in which it has.
///
/// Must be called before the process has a second thread, since the kernel moves only the calling one. A private /run keeps
/// /run/baton and /run/netns of the lab apart from those of the machine. Nothing is left behind: the kernel drops all of it
/// with the last process in it.
///
/// # Errors
/// [`Forbidden`] says which setting of the machine stands against it.
pub fn enter() -> Result<Entered, Forbidden> {
    let entered = if rustix::process::geteuid().is_root() {
        match unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS) {
            Ok(()) => Entered::AsRoot,
            // Root without CAP_SYS_ADMIN, as in a container: try as anybody else would.
            Err(Errno::PERM) => enter_user_namespace()?,
            Err(errno) => return Err(Forbidden::at(Step::Unshare, errno)),
        }
    } else {
        enter_user_namespace()?
    };
    mount_private_run().map_err(|errno| Forbidden::at(Step::Mount, errno))?;
    Ok(entered)
}

/// Enters a user namespace together with the others, and becomes root in it.
fn enter_user_namespace() -> Result<Entered, Forbidden> {
    // Read first: inside, unmapped ids all read as 65534.
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS)
        .map_err(|errno| Forbidden::at(Step::Unshare, errno))?;
    // The kernel accepts a group map from an ordinary user only after setgroups is given up (user_namespaces(7)).
    let map = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| Forbidden::at_io(Step::MapIds, &error))
    };
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("0 {user} 1"))?;
    map("gid_map", format!("0 {group} 1"))?;
    Ok(Entered::InUserNamespace)
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: unshare is unsafe for CLONE_FILES alone, which no caller here asks for.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn mount_private_run() -> Result<(), Errno> {
    // Before anything is mounted, or it would appear on the machine itself.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::mount("baton", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755,size=16m")
}

/// The network namespace of one machine of the lab. Clones are the same namespace; it goes with the last clone, thread,
/// socket and process in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    fd: OwnedFd,
    /// The file under /run/netns that shows it to other programs.
    path: Option<PathBuf>,
}

impl Namespace {
    /// Makes an empty one. `name` is for messages and thread names.
    ///
    /// # Errors
    /// [`LabError::System`] with the text of [`Forbidden`] when the kernel refuses.
    pub fn create(name: &str) -> Result<Self, LabError> {
        let fd = open_new_network_namespace(name)?;
        Ok(Self { inner: Arc::new(Inner { name: name.to_owned(), fd, path: None }) })
    }

    /// The same, and shown as /run/netns/`path_name`, so that `ip netns exec` and `nsenter --net=` reach it.
    ///
    /// # Errors
    /// As [`Namespace::create`]; and when the file exists already.
    pub fn create_exposed(name: &str, path_name: &str) -> Result<Self, LabError> {
        let fd = open_new_network_namespace(name)?;
        let path = Path::new(NAMED_NAMESPACES).join(path_name);
        expose(fd.as_fd(), &path)
            .map_err(LabError::system(format!("show a network namespace as {}", path.display())))?;
        Ok(Self { inner: Arc::new(Inner { name: name.to_owned(), fd, path: Some(path) }) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The file under /run/netns that shows it to other programs, when it was asked for.
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// Moves the calling thread into it, for good.
    ///
    /// # Errors
    /// What setns(2) says.
    pub fn enter_this_thread(&self) -> io::Result<()> {
        Ok(rustix::thread::move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Runs `work` on a thread inside it and waits for the result. A panic in `work` goes on in the caller.
    ///
    /// # Errors
    /// When the thread cannot be started or moved.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let doing = || format!("run a thread in the namespace of {}", self.name());
        let outcome = thread::scope(|scope| {
            let inside = || self.enter_this_thread().map(|()| work());
            let thread = thread::Builder::new().name(self.name().to_owned()).spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        outcome.map_err(|source: io::Error| LabError::System { doing: doing(), source })
    }

    /// Starts a thread inside it. `work` runs only once the thread is there; the error of not getting there is its result.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(
        &self,
        thread_name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<io::Result<()>>, LabError> {
        let namespace = self.clone();
        thread::Builder::new()
            .name(thread_name.to_owned())
            .spawn(move || namespace.enter_this_thread().map(|()| work()))
            .map_err(LabError::system(format!("start the thread {thread_name}")))
    }

    /// A command that will run inside it, in a process group of its own (Ctrl-C is for us to pass on), and that the kernel
    /// kills when the *thread* that starts it ends: start it from one that lives as long as the lab does.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.process_group(0);
        let namespace = self.clone();
        let parent = rustix::process::getpid();
        let before_exec = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above; then nobody would ever send the signal.
            if rustix::process::getppid() != Some(parent) {
                return Err(Errno::CHILD.into());
            }
            namespace.enter_this_thread()
        };
        // SAFETY: between fork and exec the closure makes three system calls, and neither allocates nor takes a lock.
        unsafe { command.pre_exec(before_exec) };
        command
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

/// A thread moves into a new namespace and opens it; the descriptor keeps it when the thread is gone.
fn open_new_network_namespace(name: &str) -> Result<OwnedFd, LabError> {
    let doing = format!("make the network namespace of {name}");
    let made = thread::scope(|scope| {
        let inside = || -> io::Result<OwnedFd> {
            unshare(UnshareFlags::NEWNET)
                .map_err(|errno| io::Error::other(Forbidden::at(Step::NetworkNamespace, errno)))?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        };
        let thread = thread::Builder::new().spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    made.map_err(|source| LabError::System { doing, source })
}

/// Binds the namespace over an empty file at `path`.
fn expose(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    fs::create_dir_all(NAMED_NAMESPACES)?;
    File::create_new(path)?;
    let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(rustix::mount::mount_bind(source, path)?)
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A failure leaves a name behind, in a file system that goes with the process.
            let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
            let _ = fs::remove_file(path);
        }
    }
}
