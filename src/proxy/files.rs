//! What the files of the configuration hold, as the guard has read them: the worker opens none itself.
//!
//! Each consumer makes of a file what it needs, when the worker starts (`Site::new`) and when files have changed
//! ([`Site::files_changed`](super::state::Site::files_changed)), and keeps what it had where the new file is bad.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::link::files::HandedFiles;

/// All files at one time. Secrets are among them, so that it is dropped once everything is made of it.
#[derive(Debug, Clone, Default)]
pub struct Files(HandedFiles);

impl Files {
    /// What the guard has handed over.
    pub fn new(handed: HandedFiles) -> Self {
        Self(handed)
    }

    /// What a file holds; `None` for one that `Config::worker_files` does not name.
    pub fn get(&self, path: &Path) -> Option<Arc<[u8]>> {
        self.0.get(path)
    }

    /// As [`HandedFiles::are_large`].
    pub fn are_large(&self) -> bool {
        self.0.are_large()
    }

    /// The paths of the files of a directory, in their order.
    pub fn below<'f>(&'f self, directory: &'f Path) -> impl Iterator<Item = &'f Path> {
        self.0.0.keys().map(PathBuf::as_path).filter(move |path| path.parent() == Some(directory))
    }
}
