//! Reads the files that the worker needs, and watches them: the worker itself opens no file.
//!
//! A thread of its own looks at them each second, so that a disk or a file server that hangs keeps nobody waiting. What
//! cannot be read stays as it was read before, and a warning says so.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{anyhow, bail};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{FileError, FileKind, WorkerFile, list_directory, list_servers, read_file};
use crate::link::files::{COST_MAX, FileContent, HandedFiles};
use crate::status::CertificateStatus;
use crate::status::OcspStatus;

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
        let refused = |error: FileError| anyhow!("{error}: {}", error.remedy());
        let all = expand(&wanted).map_err(|(_, error)| refused(error))?;
        let stamps = stamps(&all);
        let mut files = HandedFiles::default();
        let mut failures = BTreeMap::new();
        for file in &all {
            match read(file) {
                Ok(content) => drop(files.0.insert(file.path.clone(), content)),
                Err(error) if is_missing_staple(file, &error) => {}
                Err(error) if file.kind == FileKind::Servers => {
                    warn!("{}", not_there(&error));
                    failures.insert(file.path.clone(), not_there(&error));
                }
                Err(error) => return Err(refused(error)),
            }
        }
        if files.cost() > COST_MAX {
            bail!("the files that the configuration names are too large together: {}", TOO_LARGE_REMEDY);
        }
        let snapshot = Snapshot { files: Arc::new(files), warnings: failures.values().cloned().collect() };
        Ok(Self { wanted, stamps, snapshot, failures })
    }

    /// The files as they were last read.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Watches them for as long as what is given lives.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn watch(self) -> io::Result<Watch> {
        let (sender, readers) = (watch::Sender::new(self.snapshot()), Arc::default());
        let watch = Watch { sender, reader: Arc::clone(&readers) };
        *readers.lock().unwrap_or_else(PoisonError::into_inner) = Some(self);
        let (sender, readers) = (watch.sender.clone(), Arc::downgrade(&readers));
        std::thread::Builder::new().name("files".to_owned()).spawn(move || run(&readers, &sender))?;
        Ok(watch)
    }

    /// Looks whether anything has changed, and reads that. True when there is something to hand over or to say.
    fn look(&mut self) -> bool {
        let all = match expand(&self.wanted) {
            Ok(all) => all,
            // What it held is kept, and nothing else is looked at until it is back.
            Err((path, error)) => {
                self.fail(&path, Some(in_use(&error)));
                return self.take(HandedFiles::clone(&self.snapshot.files));
            }
        };
        let Some(stamps) = settled(&all, &self.stamps) else { return self.take_failures(&all) };
        let mut files = HandedFiles::clone(&self.snapshot.files);
        // What a directory does not hold any more is gone; a file that the configuration names stays as it was.
        files.0.retain(|path, _| stamps.contains_key(path));
        for file in &all {
            if stamps.get(&file.path) == self.stamps.get(&file.path) {
                continue;
            }
            let failure = match read(file) {
                Ok(content) => files.0.insert(file.path.clone(), content).and(None),
                // The worker keeps the servers that it has, and knows that they are the last ones.
                Err(error) if file.kind == FileKind::Servers => {
                    files.0.remove(&file.path);
                    Some(not_there(&error))
                }
                Err(error) if is_missing_staple(file, &error) => {
                    files.0.remove(&file.path);
                    None
                }
                Err(error) => Some(in_use(&error)),
            };
            self.fail(&file.path, failure);
        }
        let is_too_large = files.cost() > COST_MAX;
        let failure = format!("files are too large together, and those in use are older: {TOO_LARGE_REMEDY}");
        self.fail(Path::new(""), is_too_large.then_some(failure));
        if is_too_large {
            files = HandedFiles::clone(&self.snapshot.files);
        } else {
            self.stamps = stamps;
        }
        self.take_failures(&all);
        self.take(files)
    }

    /// Forgets what was wrong with files that are no longer looked at, and with directories that can be read again. True
    /// when there was something.
    fn take_failures(&mut self, all: &[WorkerFile]) -> bool {
        let is_known = |path: &PathBuf| path.as_os_str().is_empty() || all.iter().any(|file| file.path == *path);
        let before = self.failures.len();
        self.failures.retain(|path, _| is_known(path));
        before != self.failures.len() && self.take(HandedFiles::clone(&self.snapshot.files))
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

/// The files as they change.
#[derive(Debug)]
pub struct Watch {
    sender: watch::Sender<Snapshot>,
    /// Who looks next. `None` while a look is under way.
    reader: Arc<Mutex<Option<Reader>>>,
}

impl Watch {
    /// Told of each change.
    pub fn receiver(&self) -> watch::Receiver<Snapshot> {
        self.sender.subscribe()
    }

    /// Watches other files from now on. Waits for nothing: what a look that is under way brings is forgotten.
    pub fn replace(&self, reader: Reader) {
        let snapshot = reader.snapshot();
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
        self.sender.send_replace(snapshot);
    }
}

fn run(readers: &Weak<Mutex<Option<Reader>>>, sender: &watch::Sender<Snapshot>) {
    loop {
        std::thread::sleep(INTERVAL);
        let Some(shared) = readers.upgrade() else { return };
        let taken = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut reader) = taken else { continue };
        let is_new = reader.look();
        let mut next = shared.lock().unwrap_or_else(PoisonError::into_inner);
        // Otherwise there are other files by now.
        if next.is_none() {
            if is_new {
                sender.send_replace(reader.snapshot());
            }
            *next = Some(reader);
        }
    }
}

/// Time before its end in which a certificate is spoken of.
const EXPIRY_NOTICE: Duration = Duration::from_secs(14 * 24 * 3600);
const DAY: i64 = 24 * 3600;

/// The certificates that have expired or are about to, and the OCSP responses that are not stapled, in words.
pub fn expiring(certificates: &[CertificateStatus], now: SystemTime) -> impl Iterator<Item = String> {
    let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()).cast_signed();
    let staples = certificates.iter().filter_map(move |certificate| {
        let CertificateStatus { file, listener, ocsp, .. } = certificate;
        let reason = match ocsp {
            OcspStatus::Stapled { until_s } if *until_s <= now_s => "has expired",
            OcspStatus::None | OcspStatus::Stapled { .. } => return None,
            OcspStatus::Refused { reason } => reason,
        };
        Some(format!(
            "the OCSP response in {file}.ocsp is not stapled to the certificate of listener {listener}: it {reason}"
        ))
    });
    let certificates = certificates.iter().filter_map(move |certificate| {
        let left_s = certificate.not_after_s - now_s;
        let CertificateStatus { file, listener, .. } = certificate;
        if left_s < 0 {
            Some(format!("the certificate in {file} of listener {listener} has expired: put a new one there"))
        } else if left_s < EXPIRY_NOTICE.as_secs().cast_signed() {
            let left = match left_s / DAY {
                0 => "less than a day".to_owned(),
                1 => "1 day".to_owned(),
                days => format!("{days} days"),
            };
            Some(format!("the certificate in {file} of listener {listener} expires in {left}: put a new one there"))
        } else {
            None
        }
    });
    certificates.chain(staples)
}

const TOO_LARGE_REMEDY: &str = "they may have 30 MiB, or 15 MiB where they are not text";

fn in_use(error: &FileError) -> String {
    format!("{error}; what it held before is in use: {}", error.remedy())
}

fn not_there(error: &FileError) -> String {
    format!("{error}; the servers found last are in use: {}", error.remedy())
}

/// All files, with those of the directories.
fn expand(wanted: &[WorkerFile]) -> Result<Vec<WorkerFile>, (PathBuf, FileError)> {
    let mut all = Vec::new();
    for file in wanted {
        match file.kind {
            FileKind::Certificates => {
                all.extend(list_directory(&file.path).map_err(|error| (file.path.clone(), error))?)
            }
            // What cannot be listed is said where it is read.
            FileKind::Servers => all.extend(list_servers(&file.path).unwrap_or_else(|_| vec![file.clone()])),
            FileKind::Staple | FileKind::Public | FileKind::Secret => all.push(file.clone()),
        }
    }
    Ok(all)
}

/// Most certificates have none.
fn is_missing_staple(file: &WorkerFile, error: &FileError) -> bool {
    let is_missing = matches!(error, FileError::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound);
    file.kind == FileKind::Staple && is_missing
}

fn read(file: &WorkerFile) -> Result<FileContent, FileError> {
    if file.kind == FileKind::Servers && file.path.is_dir() {
        list_servers(&file.path)?;
    }
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
