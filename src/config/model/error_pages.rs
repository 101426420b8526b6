//! Pages that are sent from files: `error_pages` of a listener, `body_file` of routes.

use std::path::PathBuf;

/// Bytes of a page.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// A page of the operator's own for some errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// The first status that it is for, 400 to 599.
    pub from: u16,
    /// The last one, not below `from`.
    pub to: u16,
    /// What is sent, of at most [`PAGE_BYTES_MAX`]. The end of its name says what it is.
    pub file: PathBuf,
}
