//! Reads the files that the worker needs, and watches them: the worker itself opens no file.
//!
//! A thread of its own looks at them each second, so that a disk or a file server that hangs keeps nobody waiting. What
//! cannot be read stays as it was read before, and a warning says so.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{FileError, WorkerFile, read_file};
use crate::link::files::{COST_MAX, FileContent, HandedFiles};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time after which a file that has changed is looked at again, so that one that is being written is read when it is
/// whole; and how often it is at most, for one that is written all the time.
const SETTLING: Duration = Duration::from_millis(100);
const SETTLING_LOOKS_MAX: usize = 20;

/// The files as they were last read.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// For the worker.
    pub files: Arc<HandedFiles>,
    /// What could not be read again and is as it was before, in words.
    pub warnings: Vec<String>,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len_bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of the last change of owner, mode or name.
    changed: (i64, i64),
}

impl Stamp {
    /// `None` for a file that is not there.
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            len_bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// Who reads the files.
#[derive(Debug)]
pub struct Reader {
    wanted: Vec<WorkerFile>,
    stamps: Stamps,
    snapshot: Snapshot,
    /// What is wrong with a file now, by its path, and with all of them together by an empty one.
    failures: BTreeMap<PathBuf, String>,
}

impl Reader {
    /// Reads all of them for the first time.
    ///
    /// # Errors
    /// Which file cannot be used, why, and what to do about it.
    pub fn start(wanted: Vec<WorkerFile>) -> anyhow::Result<Self> {
        let stamps = stamps(&wanted);
        let mut files = HandedFiles::default();
        for file in &wanted {
            let content = read(file).map_err(|error| anyhow!("{error}: {}", error.remedy()))?;
            files.0.insert(file.path.clone(), content);
        }
        if files.cost() > COST_MAX {
            bail!("the files that the configuration names are too large together: {}", TOO_LARGE_REMEDY);
        }
        let snapshot = Snapshot { files: Arc::new(files), warnings: Vec::new() };
        Ok(Self { wanted, stamps, snapshot, failures: BTreeMap::new() })
    }

    /// The files as they were last read.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Watches them for as long as somebody receives what changes.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn watch(self) -> io::Result<watch::Receiver<Snapshot>> {
        let (sender, receiver) = watch::channel(self.snapshot());
        if !self.wanted.is_empty() {
            std::thread::Builder::new().name("files".to_owned()).spawn(move || self.run(&sender))?;
        }
        Ok(receiver)
    }

    fn run(mut self, sender: &watch::Sender<Snapshot>) {
        while !sender.is_closed() {
            std::thread::sleep(INTERVAL);
            if self.look() {
                sender.send_replace(self.snapshot());
            }
        }
    }

    /// Looks whether anything has changed, and reads that. True when there is something to hand over or to say.
    fn look(&mut self) -> bool {
        let Some(stamps) = settled(&self.wanted, &self.stamps) else { return false };
        let mut files = HandedFiles::clone(&self.snapshot.files);
        let has_changed = |file: &&WorkerFile| stamps.get(&file.path) != self.stamps.get(&file.path);
        let changed: Vec<WorkerFile> = self.wanted.iter().filter(has_changed).cloned().collect();
        for file in &changed {
            let failure = match read(file) {
                Ok(content) => files.0.insert(file.path.clone(), content).and(None),
                Err(error) => Some(format!("{error}; what it held before is in use: {}", error.remedy())),
            };
            self.fail(&file.path, failure);
        }
        if files.cost() > COST_MAX {
            let failure = format!("files are too large together, and those in use are older: {TOO_LARGE_REMEDY}");
            self.fail(Path::new(""), Some(failure));
            files = HandedFiles::clone(&self.snapshot.files);
        } else {
            self.fail(Path::new(""), None);
            self.stamps = stamps;
        }
        self.take(files)
    }

    /// Notes what is wrong with a file, or that nothing is any more.
    fn fail(&mut self, path: &Path, failure: Option<String>) {
        match failure {
            Some(failure) if self.failures.get(path) == Some(&failure) => {}
            Some(failure) => {
                warn!("{failure}");
                self.failures.insert(path.to_owned(), failure);
            }
            None => drop(self.failures.remove(path)),
        }
    }

    fn take(&mut self, files: HandedFiles) -> bool {
        for (path, _) in files.0.iter().filter(|(path, content)| self.snapshot.files.0.get(*path) != Some(*content)) {
            info!(path = %path.display(), "file has changed");
        }
        let warnings: Vec<String> = self.failures.values().cloned().collect();
        let is_new = files != *self.snapshot.files || warnings != self.snapshot.warnings;
        self.snapshot = Snapshot { files: Arc::new(files), warnings };
        is_new
    }
}

const TOO_LARGE_REMEDY: &str = "they may have 30 MiB, or 15 MiB where they are not text";

fn read(file: &WorkerFile) -> Result<FileContent, FileError> {
    read_file(&file.path, file.kind).map(|content| FileContent(content.into()))
}

fn stamps(wanted: &[WorkerFile]) -> Stamps {
    wanted.iter().map(|file| (file.path.clone(), Stamp::of(&file.path))).collect()
}

/// The stamps of files that differ from `known`, once they have stopped changing; `None` where nothing differs.
fn settled(wanted: &[WorkerFile], known: &Stamps) -> Option<Stamps> {
    let mut seen = stamps(wanted);
    if seen == *known {
        return None;
    }
    for _ in 0..SETTLING_LOOKS_MAX {
        std::thread::sleep(SETTLING);
        let before = std::mem::replace(&mut seen, stamps(wanted));
        if seen == before {
            break;
        }
    }
    Some(seen)
}
