//! What becomes of target and host on the way to a server.

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri, header};
use regex::bytes::Regex;

use super::variables::{self, View};
use crate::config::{PathRewrite, Rewrite, Template, expression};
use crate::proxy::http::route::path;

/// The rewrites of a route, prepared.
#[derive(Default)]
pub(super) struct Rewriter {
    path: Option<PathRewriter>,
    host: Option<Template>,
}

enum PathRewriter {
    To(Template),
    StripPrefix(String),
    Replace { regex: Regex, with: Vec<u8> },
}

impl Rewriter {
    /// Prepares a block. Its expression was checked, so that it is not lost here.
    pub(super) fn new(rewrite: &Rewrite) -> Self {
        let path = rewrite.path.as_ref().and_then(|path| {
            Some(match path {
                PathRewrite::To(template) => PathRewriter::To(template.clone()),
                PathRewrite::StripPrefix(prefix) => PathRewriter::StripPrefix(prefix.clone()),
                PathRewrite::Replace { regex, with } => {
                    PathRewriter::Replace { regex: expression(regex)?, with: with.clone().into_bytes() }
                }
            })
        });
        Self { path, host: rewrite.host.clone() }
    }

    /// Whether what a request asked for is a part of it.
    pub(super) fn needs_facts(&self) -> bool {
        let of_path = match &self.path {
            Some(PathRewriter::To(template)) => Some(template),
            Some(PathRewriter::StripPrefix(_) | PathRewriter::Replace { .. }) | None => None,
        };
        of_path.into_iter().chain(&self.host).flat_map(Template::variables).any(variables::is_of_request)
    }

    /// Does what it says. The query stays.
    pub(super) fn apply<B>(&self, view: &View<'_>, request: &mut Request<B>) {
        if let Some(path) = &self.path
            && let Some(path) = path.rewritten(view, request.uri().path())
        {
            set_path(request.uri_mut(), &path);
        }
        if let Some(host) = &self.host {
            let mut name = Vec::new();
            view.render(host, &mut name);
            // A name of the client's that is no host stays where it was: in nobody's Host.
            if let (Ok(_), Ok(value)) =
                (http::uri::Authority::try_from(name.as_slice()), HeaderValue::from_bytes(&name))
            {
                request.headers_mut().insert(header::HOST, value);
            }
        }
    }
}

impl PathRewriter {
    /// The new path; `None` when it stays.
    fn rewritten(&self, view: &View<'_>, old: &str) -> Option<String> {
        match self {
            PathRewriter::To(template) => {
                let mut new = Vec::new();
                view.render(template, &mut new);
                Some(path::escaped(&new))
            }
            PathRewriter::StripPrefix(prefix) => path::without_prefix(old, prefix).map(str::to_owned),
            PathRewriter::Replace { regex, with } => {
                let mut buffers = path::Buffers::default();
                // The expression sees what `path_regex` sees, so that no other spelling gets past it.
                let read = path::read(old, &mut buffers).ok()?.path;
                match regex.replace_all(read, with.as_slice()) {
                    std::borrow::Cow::Borrowed(_) => None,
                    std::borrow::Cow::Owned(new) => Some(path::escaped(&new)),
                }
            }
        }
    }
}

/// Gives a target another path, which is escaped already. One that is none leaves the target as it was.
pub(super) fn set_path(uri: &mut Uri, path: &str) {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let target = match uri.query() {
        Some(query) => format!("{slash}{path}?{query}"),
        None => format!("{slash}{path}"),
    };
    let mut parts = uri.clone().into_parts();
    let Ok(target) = PathAndQuery::try_from(target) else { return };
    parts.path_and_query = Some(target);
    if let Ok(changed) = Uri::from_parts(parts) {
        *uri = changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_changes_and_the_query_stays() {
        let set = |uri: &str, path: &str| {
            let mut uri: Uri = uri.parse().unwrap();
            set_path(&mut uri, path);
            uri.to_string()
        };
        assert_eq!(set("/a/b?c=d", "/x"), "/x?c=d");
        assert_eq!(set("/a/b", "x"), "/x");
        assert_eq!(set("http://h.example/a?b", "/x"), "http://h.example/x?b");
        assert_eq!(set("/a", "/x y"), "/a");
        assert_eq!(set("/a", "//x"), "//x");
    }
}
