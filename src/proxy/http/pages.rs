//! Bodies that are read from files of the operator's: of routes here, of errors in `error_pages`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::config::{PAGE_BYTES_MAX, Route};
use crate::proxy::files::Files;

/// What a file holds, which may change.
#[derive(Debug)]
pub struct Page {
    file: PathBuf,
    body: ArcSwap<Bytes>,
}

impl Page {
    /// Empty until it is given files.
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), body: ArcSwap::default() }
    }

    /// What it holds now.
    pub fn body(&self) -> Bytes {
        Bytes::clone(&self.body.load())
    }

    fn file_changed(&self, files: &Files) -> Result<(), String> {
        let path = self.file.display();
        let content = files.get(&self.file).ok_or_else(|| format!("{path} was not handed over"))?;
        if content.len() > PAGE_BYTES_MAX {
            return Err(format!("{path} is larger than {} KiB", PAGE_BYTES_MAX >> 10));
        }
        self.body.store(Arc::new(Bytes::copy_from_slice(&content)));
        Ok(())
    }
}

/// Takes files, at the start and when they have changed. Those that cannot be used stay as they were.
///
/// # Errors
/// In words: one that cannot be used, and why.
pub fn files_changed<'a>(pages: impl Iterator<Item = &'a Page>, files: &Files) -> Result<(), String> {
    let mut result = Ok(());
    for page in pages {
        if let Err(reason) = page.file_changed(files) {
            result = Err(reason);
        }
    }
    result
}

/// The pages of a listener's routes.
#[derive(Debug, Default)]
pub struct RoutePages(Vec<Page>);

impl RoutePages {
    /// Prepares what is configured. Empty until it is given files.
    pub fn new(routes: &[Route]) -> Self {
        let mut paths: Vec<&Path> = routes.iter().flat_map(Route::body_files).collect();
        paths.sort_unstable();
        paths.dedup();
        Self(paths.into_iter().map(Page::new).collect())
    }

    /// As [`files_changed`].
    ///
    /// # Errors
    /// As [`files_changed`].
    pub fn files_changed(&self, files: &Files) -> Result<(), String> {
        files_changed(self.0.iter(), files)
    }

    /// The page of a file.
    pub fn of(&self, file: &Path) -> Option<&Page> {
        let at = self.0.binary_search_by(|page| page.file.as_path().cmp(file)).ok()?;
        self.0.get(at)
    }
}
