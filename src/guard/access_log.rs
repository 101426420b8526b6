//! The files of the access log: opened here, as the worker opens none, and opened again at a SIGHUP, so that a file can be
//! renamed and a new one begun.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context as _;
use rustix::fs::OFlags;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::supervisor::Command;
use crate::config::{Config, LogTarget};
use crate::link::{Further, ToWorker};
use crate::net::descriptors;

/// Access of a file that is made: lines name clients and what they asked for.
const MODE: u32 = 0o640;

/// The files, and the way to the worker.
pub struct AccessLogs {
    files: RefCell<Vec<LogFile>>,
    /// Takes descriptors; of the worker that was started last.
    to_worker: RefCell<Option<UnixStream>>,
}

struct LogFile {
    /// In [`Config::log_targets`].
    index: u16,
    path: PathBuf,
    file: File,
}

/// A file of another configuration.
pub struct Opened {
    /// In [`Config::log_targets`].
    pub index: u16,
    /// Where it is.
    pub path: PathBuf,
    /// Open; `None` where the one that is open already is the same.
    pub file: Option<File>,
}

/// Opens the files of another configuration, but for those that are `known`. Blocks.
///
/// # Errors
/// Which file cannot be opened, and why.
pub fn open_new(config: &Config, known: &[PathBuf]) -> anyhow::Result<Vec<Opened>> {
    let mut all = Vec::new();
    for (index, target) in (0..).zip(config.log_targets()) {
        if let LogTarget::File(path) = target {
            let opened = (!known.contains(path)).then(|| open(path)).transpose();
            let file = opened.with_context(|| format!("the access log {} cannot be opened", path.display()))?;
            all.push(Opened { index, path: path.clone(), file });
        }
    }
    Ok(all)
}

impl AccessLogs {
    /// Opens every file.
    ///
    /// # Errors
    /// Which file cannot be opened, and why.
    pub fn open(config: &Config) -> anyhow::Result<Rc<Self>> {
        let mut files = Vec::new();
        for (index, target) in (0..).zip(config.log_targets()) {
            if let LogTarget::File(path) = target {
                let file = open(path).with_context(|| format!("the access log {} cannot be opened", path.display()))?;
                files.push(LogFile { index, path: path.clone(), file });
            }
        }
        Ok(Rc::new(Self { files: RefCell::new(files), to_worker: RefCell::new(None) }))
    }

    /// What a new worker gets. Never waits for the disk.
    ///
    /// # Errors
    /// What dup(2) or socketpair(2) says.
    pub fn for_worker(&self) -> io::Result<Vec<(Further, OwnedFd)>> {
        let files = self.files.borrow();
        let (ours, theirs) = UnixStream::pair()?;
        // A worker that hangs may not keep the guard waiting.
        ours.set_nonblocking(true)?;
        let mut handed = vec![(Further::AccessLogs, theirs.into())];
        for file in files.iter() {
            handed.push((Further::AccessLog { index: file.index }, file.file.try_clone()?.into()));
        }
        *self.to_worker.borrow_mut() = Some(ours);
        Ok(handed)
    }

    /// Where the files are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.borrow().iter().map(|file| file.path.clone()).collect()
    }

    /// Goes over to the files of another configuration.
    pub fn replace(&self, opened: Vec<Opened>) {
        let mut files = self.files.borrow_mut();
        let mut former = std::mem::take(&mut *files);
        for Opened { index, path, file } in opened {
            let known = former.iter().position(|known| known.path == path).map(|at| former.swap_remove(at).file);
            files.extend(file.or(known).map(|file| LogFile { index, path, file }));
        }
    }

    /// Opens the files again each time that it is told to, and hands them to the worker.
    pub async fn keep(self: Rc<Self>, mut hangups: mpsc::Receiver<()>, worker: mpsc::Sender<Command>) {
        while hangups.recv().await.is_some() {
            let paths: Vec<_> = self.files.borrow().iter().map(|file| file.path.clone()).collect();
            // The disk may take its time, and the guard has none.
            let wanted = paths.clone();
            let opened =
                tokio::task::spawn_blocking(move || wanted.iter().map(|path| open(path)).collect::<Vec<_>>()).await;
            for (path, opened) in paths.iter().zip(opened.unwrap_or_default()) {
                let mut files = self.files.borrow_mut();
                // A reload may have taken it away meanwhile.
                let Some(known) = files.iter_mut().find(|known| known.path == *path) else { continue };
                let file = known.path.display();
                match opened {
                    Ok(opened) => known.file = opened,
                    Err(error) => warn!(%file, %error, "the access log cannot be opened again; the one before is kept"),
                }
            }
            if let Some(message) = self.hand_over() {
                info!("access logs are opened again");
                // A worker that is just started has got the new ones, or is told at the next time.
                drop(worker.send(Command::Tell(message)).await);
            }
        }
    }

    /// Puts the descriptors on their way. What tells the worker of them.
    fn hand_over(&self) -> Option<ToWorker> {
        let socket = self.to_worker.borrow();
        let files = self.files.borrow();
        let mut sent = Vec::new();
        for file in files.iter() {
            match descriptors::send(socket.as_ref()?, &[file.file.as_fd()]) {
                Ok(()) => sent.push(file.index),
                Err(error) => warn!(%error, "the worker does not take the access log"),
            }
        }
        (!sent.is_empty()).then_some(ToWorker::AccessLogs { files: sent })
    }
}

/// Opens a file to append to; makes it where it is missing.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Whatever is there in place of a file, such as a pipe, is not waited for.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = options.append(true).create(true).mode(MODE).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_char_device() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file that lines can be appended to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_without_a_wait() {
        let directory = std::env::temp_dir().join(format!("baton-access-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let pipe = directory.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(open(&pipe).is_err());
        assert!(open(&directory).is_err());
        assert!(open(Path::new("/dev/full")).is_ok());
        assert!(open(&directory.join("new.log")).is_ok());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
