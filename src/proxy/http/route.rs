//! Which route a request takes. A core: it decides on what it is told, and allocates nothing for it.
//!
//! Routes come from the configuration in the order in which they are to be tried; the first that matches is the one. A
//! thousand of them are not tried one by one: hosts lie in maps, paths in a tree of segments ([`tree`]), and what is left
//! are the few that match host and path, whose further conditions ([`condition`]) are looked at in order. How the path of a
//! request is read is in [`path`].

mod condition;
pub mod path;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Request, Uri, header};

use self::condition::Rule;
use self::tree::Paths;
use crate::config::{HostMatch, PathMatch, Route};

pub use self::path::Refusal;

/// Characters of a host name (RFC 1035 section 2.3.4). A longer one is no name that a route could have.
const HOST_MAX: usize = 253;

/// What routes look at in a request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The host without port; empty when none was named.
    pub host: &'a str,
    /// The path as it was sent, without the query; `*` or empty where the target has none.
    pub path: &'a str,
    /// The query without its question mark; empty when there is none.
    pub query: &'a str,
    /// The method.
    pub method: &'a str,
    /// The fields of the head.
    pub headers: &'a HeaderMap,
    /// The address that counts as the client's.
    pub ip: IpAddr,
}

/// Memory that is used again for each request.
#[derive(Debug, Default)]
pub struct Scratch {
    paths: path::Buffers,
    value: Vec<u8>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The route's index, if any matches.
    pub route: Option<usize>,
    /// The path that servers are to see, where it is not the one that was sent: without its dot segments.
    pub path: Option<String>,
}

/// The routes of a listener.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rules: Vec<Rule>,
    exact: HashMap<Box<str>, Paths>,
    /// By what follows the `*.`.
    below: HashMap<Box<str>, Paths>,
    any: Paths,
    /// Whether some route looks at paths. If none does they need not be understood, and are left as they are.
    has_paths: bool,
}

impl Table {
    /// Prepares routes that come in the order in which they are tried. [`Found::route`] is an index into them.
    pub fn new(routes: &[Route]) -> Self {
        let mut table =
            Self { rules: routes.iter().map(|route| Rule::new(&route.matches)).collect(), ..Self::default() };
        for (rank, route) in routes.iter().enumerate() {
            table.has_paths |= route.matches.path != PathMatch::Any;
            let paths = match &route.matches.host {
                HostMatch::Any => &mut table.any,
                HostMatch::Exact(host) => table.exact.entry(host.as_str().into()).or_default(),
                HostMatch::Below(host) => table.below.entry(host.as_str().into()).or_default(),
            };
            paths.add(rank, &route.matches.path);
        }
        table
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The first route that matches.
    ///
    /// # Errors
    /// When the path could be understood in two ways that are not one to the routes, or in none.
    pub fn find(&self, asked: &Asked<'_>, scratch: &mut Scratch) -> Result<Found, Refusal> {
        let Scratch { paths, value } = scratch;
        if !self.has_paths || !asked.path.starts_with('/') {
            return Ok(Found { route: self.first(asked, None, value), path: None });
        }
        let reading = path::read(asked.path, paths)?;
        let route = self.first(asked, Some(reading.path), value);
        if let Some(wide) = reading.wide
            && self.first(asked, Some(wide), value) != route
        {
            return Err(Refusal::TwoReadings);
        }
        let path = reading.has_dot_segments.then(|| path::without_dot_segments(asked.path));
        Ok(Found { route, path })
    }

    /// The first that matches, with the path as it is read; without one, of those that ask for none.
    fn first(&self, asked: &Asked<'_>, path: Option<&[u8]>, value: &mut Vec<u8>) -> Option<usize> {
        let mut best = usize::MAX;
        let mut holds = |rank: usize| self.rules.get(rank).is_some_and(|rule| rule.holds(asked, value));
        let mut lower = [0_u8; HOST_MAX];
        if let Some(host) = self.lower_case(asked.host, &mut lower) {
            if let Some(paths) = self.exact.get(host) {
                paths.first(path, &mut best, &mut holds);
            }
            let mut rest = host;
            while let (false, Some((_, parent))) = (self.below.is_empty(), rest.split_once('.')) {
                if let Some(paths) = self.below.get(parent) {
                    paths.first(path, &mut best, &mut holds);
                }
                rest = parent;
            }
        }
        self.any.first(path, &mut best, &mut holds);
        (best != usize::MAX).then_some(best)
    }

    /// A host as routes have it: in lower case, and without the dot that ends an absolute name (RFC 1034 section 3.1).
    /// `None` for one that no route can have.
    fn lower_case<'l>(&self, host: &str, lower: &'l mut [u8; HOST_MAX]) -> Option<&'l str> {
        if self.exact.is_empty() && self.below.is_empty() {
            return None;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let lower = lower.get_mut(..host.len())?;
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        std::str::from_utf8(lower).ok()
    }
}

/// The host that a request is for, without port; empty when none was named.
pub fn host<B>(request: &Request<B>) -> &str {
    host_of(request.uri(), request.headers().get(header::HOST))
}

/// The host of a target and a Host field, without port. An absolute target counts more (RFC 9112 section 3.2.2).
pub fn host_of<'r>(target: &'r Uri, field: Option<&'r HeaderValue>) -> &'r str {
    if let Some(host) = target.host() {
        return host;
    }
    let authority = field.and_then(|host| host.to_str().ok()).unwrap_or("");
    match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => authority.get(..colon).unwrap_or(authority),
        _ => authority,
    }
}
