//! Files that are there whole or not at all: written beside their place first, and put there in one step.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A file that is written and not in its place yet. Dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Staged {
    temporary: PathBuf,
    place: PathBuf,
}

impl Staged {
    /// Writes `content` beside `place`, down to the disk, with these permissions whatever the umask is.
    ///
    /// # Errors
    /// What the kernel says; nothing is left then.
    pub(super) fn write(place: &Path, content: &str, mode: u32) -> io::Result<Self> {
        // Closed to others from its first moment: a file that is narrowed later can be opened in between.
        let (staged, mut file) = Self::open(place, 0o600)?;
        file.write_all(content.as_bytes())?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(staged)
    }

    /// The same with the permissions of what is there, or else those that any new file gets.
    ///
    /// # Errors
    /// As [`Staged::write`].
    pub(super) fn beside(place: &Path, content: &str) -> io::Result<Self> {
        let (staged, mut file) = Self::open(place, 0o666)?;
        if let Ok(present) = fs::metadata(place) {
            file.set_permissions(present.permissions())?;
        }
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        Ok(staged)
    }

    fn open(place: &Path, mode: u32) -> io::Result<(Self, File)> {
        let name = place.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let temporary = place.with_file_name(format!(".{}.{:016x}", name.to_string_lossy(), fastrand::u64(..)));
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        Ok((Self { temporary, place: place.to_owned() }, file))
    }

    /// Puts it where nothing is yet.
    ///
    /// # Errors
    /// `AlreadyExists` when something is there, which stays as it is.
    pub(super) fn create(self) -> io::Result<()> {
        // A second name for it, which unlike renaming replaces nothing; the first one goes with `self`.
        fs::hard_link(&self.temporary, &self.place)
    }

    /// Puts it in the place of what is there: whoever opens that finds either the old file or this one.
    ///
    /// # Errors
    /// What rename(2) says; what is there stays as it is.
    pub(super) fn replace(self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.place)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already once it was put in its place; a failure would add nothing to what is reported.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Without it the file's name can be gone after a power failure, though its content was written.
pub(super) fn sync_directory(place: &Path) -> anyhow::Result<()> {
    let directory = directory_of(place);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("failed to write {} to disk", directory.display()))
}

/// The directory that a file is in.
pub(super) fn directory_of(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Why a file could not be written, and what to do; `flag` names another place for it.
pub(super) fn failed_to_write(place: &Path, error: &io::Error, flag: &str) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => format!("; make its directory first, or choose another place with {flag} FILE"),
        io::ErrorKind::PermissionDenied => format!("; run as root, or choose another place with {flag} FILE"),
        io::ErrorKind::StorageFull => format!("; make room, or choose another place with {flag} FILE"),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("; mount it for writing, or choose another place with {flag} FILE")
        }
        _ => String::new(),
    };
    anyhow::anyhow!("failed to write {}: {error}{remedy}", place.display())
}
