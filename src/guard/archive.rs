//! The archive of sessions on disk: `sessions` in the state directory. The worker makes it and may open no file; here its
//! parts are written, on a thread for each worker, so that a disk that takes its time holds up nobody but that thread.
//!
//! A new archive replaces the old one when all of it is on the disk, and not before. One that the worker could not read is
//! set aside as `sessions.damaged`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tokio::sync::watch;
use tracing::warn;

use super::counters::millis;
use crate::config::{Config, Sticky};
use crate::link::Further;
use crate::link::archive::{self, Frame};
use crate::session::archive::ENTRY_LEN_BYTES;
use crate::status::ArchiveStatus;

const FILE: &str = "sessions";
const NEW_FILE: &str = "sessions.new";
const DAMAGED_FILE: &str = "sessions.damaged";
/// How long a damaged archive is spoken of once there is a good one again: so long that somebody sees it.
const DAMAGE_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Beside the entries: the names of every pool and server that a configuration can hold, and to spare.
const NAMES_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where the sessions of a node are kept while it does not run.
pub struct Archive(Arc<Shared>);

/// What the guard's loop and the threads that write share.
struct Shared {
    directory: PathBuf,
    /// No archive is longer: a worker that would fill the disk is not believed.
    bytes_max: u64,
    /// What the next worker reads; opened where it was written, as opening may take its time too.
    current: Mutex<Option<File>>,
    /// Held while a file is written or set aside: a worker that has ended may have left something to write.
    disk: Mutex<()>,
    /// When the last one was complete, and its length.
    written: Mutex<Option<(Instant, u64)>>,
    write_problem: Mutex<Option<String>>,
    /// What befell the archive, and when: for an operator to see even where a new one has been written since.
    damage: Mutex<Option<(Instant, String)>>,
    /// Threads that write.
    threads: watch::Sender<usize>,
}

impl Archive {
    /// Opens what is there. `None` where no pool keeps sessions in the table, and where they are in a store that knows
    /// more of them than an old copy.
    pub fn open(config: &Config, state_dir: &Path) -> Option<Self> {
        if config.sessions.store.is_some() {
            return None;
        }
        let limits = config.pools.iter().filter_map(|pool| match &pool.sticky {
            Some(Sticky::Table(table)) => Some(u64::from(table.entries_max)),
            _ => None,
        });
        let entries_max = limits.reduce(u64::saturating_add)?;
        // Deleted entries are kept for a while as well.
        let bytes_max = NAMES_BYTES_MAX + entries_max.saturating_mul(2 * ENTRY_LEN_BYTES);
        let shared = Shared {
            directory: state_dir.to_owned(),
            bytes_max,
            current: Mutex::new(None),
            disk: Mutex::new(()),
            written: Mutex::new(None),
            write_problem: Mutex::new(None),
            damage: Mutex::new(None),
            threads: watch::Sender::new(0),
        };
        match shared.open_current() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let problem = format!("{} cannot be read: {error}", shared.path(FILE).display());
                warn!("{problem}");
                *lock(&shared.damage) = Some((Instant::now(), problem));
            }
            _ => {}
        }
        Some(Self(Arc::new(shared)))
    }

    /// What a new worker gets, and starts the thread that takes what it writes. Never waits for the disk.
    ///
    /// # Errors
    /// What socketpair(2), dup(2) or clone(2) says.
    pub fn for_worker(&self) -> io::Result<Vec<(Further, OwnedFd)>> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut handed = vec![(Further::ArchiveWriter, theirs.into())];
        if let Some(file) = &*lock(&self.0.current) {
            handed.push((Further::Archive, file.try_clone()?.into()));
        }
        let shared = Arc::clone(&self.0);
        self.0.threads.send_modify(|count| *count += 1);
        let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(move || {
            shared.receive(ours);
            shared.threads.send_modify(|count| *count -= 1);
        });
        if let Err(error) = thread {
            self.0.threads.send_modify(|count| *count -= 1);
            return Err(error);
        }
        Ok(handed)
    }

    /// Waits until what workers have handed over is on the disk, at most for `patience`.
    pub async fn finish(&self, patience: Duration) {
        let mut threads = self.0.threads.subscribe();
        let finished = tokio::time::timeout(patience, threads.wait_for(|count| *count == 0)).await.is_ok();
        if !finished {
            warn!("the sessions are not all on the disk yet; the archive before is kept");
        }
    }

    /// How it is on the disk, put into what the worker says of it.
    pub fn complete(&self, status: &mut ArchiveStatus) {
        if let Some((at, length)) = *lock(&self.0.written) {
            (status.written_ms, status.bytes) = (Some(millis(at.elapsed())), length);
        }
        status.last_error = self.warnings().next();
    }

    /// What is less than it should be, in sentences.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let damage = lock(&self.0.damage).clone().filter(|(at, _)| at.elapsed() < DAMAGE_KEPT || self.0.is_unwritten());
        let damage = damage.map(|(at, problem)| format!("{problem}, {} min ago", at.elapsed().as_secs() / 60));
        lock(&self.0.write_problem).clone().into_iter().chain(damage)
    }
}

impl Shared {
    fn is_unwritten(&self) -> bool {
        lock(&self.written).is_none()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn open_current(&self) -> io::Result<()> {
        // Whatever is there in place of a file, such as a pipe, is not waited for.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(self.path(FILE));
        *lock(&self.current) = opened.as_ref().ok().map(File::try_clone).transpose()?;
        opened.map(drop)
    }

    /// Takes what a worker hands over, until it ends.
    fn receive(&self, socket: UnixStream) {
        let mut socket = BufReader::with_capacity(archive::FRAME_BYTES_MAX, socket);
        loop {
            match archive::receive(&mut socket) {
                Ok(Some(Frame::Damaged(reason))) => self.set_aside(&reason),
                Ok(Some(Frame::Part(part))) => {
                    let mut is_whole = false;
                    match self.write(part, &mut socket, &mut is_whole) {
                        Ok(()) => *lock(&self.write_problem) = None,
                        // The worker has ended in the middle. The archive before stands.
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
                        Err(error) => self.write_fails(&error),
                    }
                    if !is_whole && !drain(&mut socket) {
                        return;
                    }
                }
                Ok(Some(Frame::Complete)) => {}
                Ok(None) => return,
                Err(error) => return warn!(%error, "the worker's sessions cannot be taken any more"),
            }
        }
    }

    /// Writes an archive of which this is the first part, and says whether all of it was taken from the socket.
    ///
    /// # Errors
    /// `UnexpectedEof` when the rest never came; what the disk says.
    fn write(&self, first: Vec<u8>, socket: &mut impl io::Read, is_whole: &mut bool) -> io::Result<()> {
        let _alone = lock(&self.disk);
        let path = self.path(NEW_FILE);
        let written = self.write_new(&path, first, socket, is_whole);
        if written.is_err() {
            // What is left of it is of no use, and may be what fills the disk. It is not there when it was renamed.
            drop(std::fs::remove_file(&path));
        }
        written
    }

    fn write_new(
        &self,
        path: &Path,
        first: Vec<u8>,
        socket: &mut impl io::Read,
        is_whole: &mut bool,
    ) -> io::Result<()> {
        // Not a file that somebody has put there with other permissions.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut length = 0;
        let mut next = Frame::Part(first);
        loop {
            match next {
                Frame::Part(part) => {
                    length += part.len() as u64;
                    if length > self.bytes_max {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than any table"));
                    }
                    file.write_all(&part)?;
                }
                Frame::Complete => {
                    *is_whole = true;
                    file.sync_all()?;
                    std::fs::rename(path, self.path(FILE))?;
                    File::open(&self.directory)?.sync_all()?;
                    *lock(&self.written) = Some((Instant::now(), length));
                    return self.open_current();
                }
                Frame::Damaged(_) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it is interrupted by something else"));
                }
            }
            next = archive::receive(socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
    }

    fn write_fails(&self, error: &io::Error) {
        let directory = self.directory.display();
        let problem = format!("the sessions cannot be kept in {directory}: {error}; the archive before is kept");
        let mut known = lock(&self.write_problem);
        if known.as_ref() != Some(&problem) {
            warn!("{problem}");
        }
        *known = Some(problem);
    }

    fn set_aside(&self, reason: &str) {
        let _alone = lock(&self.disk);
        *lock(&self.current) = None;
        let (from, to) = (self.path(FILE), self.path(DAMAGED_FILE));
        // The reason comes from the worker: of one line and no great length, whatever that says.
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
        let outcome = match std::fs::rename(&from, &to) {
            Ok(()) => format!("it is set aside as {}", to.display()),
            Err(error) => format!("it could not be set aside ({error})"),
        };
        let problem = format!("the archive of sessions {} was not used: {reason}; {outcome}", from.display());
        warn!("{problem}");
        *lock(&self.damage) = Some((Instant::now(), problem));
    }
}

/// Reads the rest of an archive that cannot be written. False when the worker is gone.
fn drain(socket: &mut impl io::Read) -> bool {
    loop {
        match archive::receive(socket) {
            Ok(Some(Frame::Part(_) | Frame::Damaged(_))) => {}
            Ok(Some(Frame::Complete)) => return true,
            Ok(None) | Err(_) => return false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
