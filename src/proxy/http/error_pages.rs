//! Pages of the operator's own in place of our errors, and of those of servers where that is configured.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use super::body::ResponseBody;
use super::respond::Own;
use super::transaction::Transaction;
use crate::config::{ERROR_PAGE_BYTES_MAX, ErrorPage};
use crate::proxy::files::Files;

/// The pages of a listener.
#[derive(Debug, Default)]
pub struct ErrorPages {
    /// Those of one status before those of a class.
    pages: Vec<Page>,
    /// Whether errors of servers are replaced as well.
    intercepts: bool,
}

#[derive(Debug)]
struct Page {
    config: ErrorPage,
    content_type: &'static str,
    body: ArcSwap<Bytes>,
}

impl ErrorPages {
    /// Prepares what is configured. Empty until it is given files.
    pub fn new(config: &[ErrorPage], intercepts: bool) -> Self {
        let page = |config: &ErrorPage| Page {
            content_type: content_type(&config.file),
            config: config.clone(),
            body: ArcSwap::default(),
        };
        Self { pages: config.iter().map(page).collect(), intercepts }
    }

    /// Takes files, at the start and when they have changed. Those that cannot be used stay as they were.
    ///
    /// # Errors
    /// In words: which those are, and why.
    pub fn files_changed(&self, files: &Files) -> Result<(), String> {
        let mut result = Ok(());
        for page in &self.pages {
            match body(&page.config, files) {
                Ok(body) => page.body.store(Arc::new(body)),
                Err(reason) => result = Err(reason),
            }
        }
        result
    }

    fn of(&self, status: u16) -> Option<&Page> {
        self.pages.iter().find(|page| (page.config.from..=page.config.to).contains(&status))
    }
}

fn body(config: &ErrorPage, files: &Files) -> Result<Bytes, String> {
    let path = config.file.display();
    let content = files.get(&config.file).ok_or_else(|| format!("{path} was not handed over"))?;
    if content.len() > ERROR_PAGE_BYTES_MAX {
        return Err(format!("{path} is larger than {} KiB", ERROR_PAGE_BYTES_MAX >> 10));
    }
    Ok(Bytes::copy_from_slice(&content))
}

fn content_type(path: &Path) -> &'static str {
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

/// Puts the operator's page in the place of an error, where there is one for it.
pub fn apply(transaction: &Transaction, response: Response<ResponseBody>) -> Response<ResponseBody> {
    let status = response.status().as_u16();
    let Some(pages) = transaction.client.listener().map(|listener| &listener.error_pages) else { return response };
    if status < 400 || pages.pages.is_empty() || transaction.is_grpc {
        return response;
    }
    let is_ours = response.extensions().get::<Own>().is_some();
    let Some(page) = pages.of(status).filter(|_| is_ours || pages.intercepts) else { return response };
    let (mut parts, _body) = response.into_parts();
    forget_representation(&mut parts.headers);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    Response::from_parts(parts, ResponseBody::text(Bytes::clone(&page.body.load())))
}

/// Fields that are about the body that was there before (RFC 9110 section 8).
fn forget_representation(headers: &mut HeaderMap) {
    for name in [
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LENGTH,
        header::CONTENT_LOCATION,
        header::CONTENT_RANGE,
        header::CONTENT_DISPOSITION,
        header::ACCEPT_RANGES,
        header::ETAG,
        header::LAST_MODIFIED,
        header::TRAILER,
    ] {
        headers.remove(name);
    }
    for name in ["content-digest", "repr-digest", "digest", "content-md5"] {
        headers.remove(HeaderName::from_static(name));
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
