//! Pages of the operator's own in place of our errors, and of those of servers where that is configured.

use std::ops::RangeInclusive;

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use super::body::ResponseBody;
use super::pages::{self, Page};
use super::respond::Own;
use super::transaction::Transaction;
use crate::config;
use crate::proxy::files::Files;

/// The pages of a listener.
#[derive(Debug, Default)]
pub struct ErrorPages {
    /// Those of one status before those of a class.
    pages: Vec<ErrorPage>,
    /// Whether errors of servers are replaced as well.
    intercepts: bool,
}

#[derive(Debug)]
struct ErrorPage {
    /// The statuses that it is for.
    statuses: RangeInclusive<u16>,
    content_type: &'static str,
    page: Page,
}

impl ErrorPages {
    /// Prepares what is configured. Empty until it is given files.
    pub fn new(config: &[config::ErrorPage], intercepts: bool) -> Self {
        let page = |config: &config::ErrorPage| ErrorPage {
            statuses: config.from..=config.to,
            content_type: config::content_type(&config.file),
            page: Page::new(&config.file),
        };
        Self { pages: config.iter().map(page).collect(), intercepts }
    }

    /// Takes files, at the start and when they have changed. Those that cannot be used stay as they were.
    ///
    /// # Errors
    /// In words: which those are, and why.
    pub fn files_changed(&self, files: &Files) -> Result<(), String> {
        pages::files_changed(self.pages.iter().map(|page| &page.page), files)
    }

    fn of(&self, status: u16) -> Option<&ErrorPage> {
        self.pages.iter().find(|page| page.statuses.contains(&status))
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
    Response::from_parts(parts, ResponseBody::text(page.page.body()))
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
