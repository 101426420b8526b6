//! Reads `error_pages` of a `[[listener]]`, and looks at the files of pages.

use std::path::{Path, PathBuf};

use super::blocks::{Blocks, file};
use super::files::{FileKind, read_file};
use super::model::{ErrorPage, PAGE_BYTES_MAX};
use super::reader::Table;
use super::report::{Located, Mistakes, Wrong};

const PAGES_MAX: usize = 64;

/// A page, and where its file stands.
pub(super) struct ErrorPageBlock {
    from: u16,
    to: u16,
    file: Located<PathBuf>,
}

/// Reads the table: a status or a class of them, and a file.
pub(super) fn error_pages(table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> Vec<ErrorPageBlock> {
    let place = table.place().clone();
    let entries = table.into_entries(PAGES_MAX);
    if entries.is_empty() {
        mistakes.block(
            &place,
            "must not be empty",
            "write a status and a file, such as { \"404\" = \"/etc/baton/404.html\" }",
        );
    }
    let mut pages = Vec::new();
    for (key, value) in entries {
        match statuses(key) {
            Ok((from, to)) => {
                pages.extend(file(value, directory).map(|file| ErrorPageBlock { from, to, file }));
            }
            Err(wrong) => mistakes.block(value.place(), wrong.rule, wrong.remedy),
        }
    }
    pages
}

/// `404`, or `4xx` for all of a class.
fn statuses(text: &str) -> Result<(u16, u16), Wrong> {
    let classes = [("4xx", (400, 499)), ("5xx", (500, 599))];
    if let Some((_, class)) = classes.iter().find(|(name, _)| *name == text) {
        return Ok(*class);
    }
    match text.parse::<u16>() {
        Ok(status @ 400..=599) if text.len() == 3 => Ok((status, status)),
        _ => Err(Wrong::new(
            "must be a status from 400 to 599, or a class of them",
            "write a key such as \"404\", \"4xx\" or \"5xx\"",
        )),
    }
}

/// Those of one status before those of a class.
pub(super) fn resolved(blocks: Vec<ErrorPageBlock>) -> Vec<ErrorPage> {
    let page = |block: ErrorPageBlock| ErrorPage { from: block.from, to: block.to, file: block.file.value };
    let mut pages: Vec<_> = blocks.into_iter().map(page).collect();
    pages.sort_by_key(|page| page.to - page.from);
    pages
}

/// Checks the files of pages, those of routes too, against this machine.
pub(super) fn check_files(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let of_errors = blocks.listeners.iter().flat_map(|listener| &listener.error_pages).map(|page| &page.file);
    for file in of_errors.chain(blocks.routes.iter().flat_map(|route| &route.body_files)) {
        match read_file(&file.value, FileKind::Public) {
            Err(error) => mistakes.value(&file.place, error.to_string(), error.remedy()),
            Ok(content) if content.len() > PAGE_BYTES_MAX => {
                let rule = format!("is larger than {} KiB", PAGE_BYTES_MAX >> 10);
                mistakes.value(&file.place, rule, "have the page load what is large from elsewhere");
            }
            Ok(_) => {}
        }
    }
}

/// What the end of a page's name says that it is.
pub fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "xhtml" => "application/xhtml+xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "gif" => "image/gif",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        _ => "text/html; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_says_what_a_page_is() {
        assert_eq!(content_type(Path::new("/a/404.HTML")), "text/html; charset=utf-8");
        assert_eq!(content_type(Path::new("/a/404")), "text/html; charset=utf-8");
        assert_eq!(content_type(Path::new("/a/404.json")), "application/json");
        assert_eq!(content_type(Path::new("/a/404.txt")), "text/plain; charset=utf-8");
    }
}
