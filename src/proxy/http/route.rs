//! Which route a request matches, and which pool it goes to.

use http::{Request, header};

use crate::config::{Listener, PoolIndex, Route};

/// What a request matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The index of the route among those of the listener; `None` where none matched.
    pub route: Option<usize>,
    /// Where the request goes; `None`: nowhere.
    pub pool: Option<PoolIndex>,
}

/// The first route that matches, else the listener's own pool. Routes come in the order in which they are tried.
pub fn find<B>(listener: &Listener, request: &Request<B>) -> Match {
    if listener.routes.is_empty() {
        return Match { route: None, pool: listener.pool };
    }
    let host = host(request);
    let path = request.uri().path();
    match listener.routes.iter().enumerate().find(|(_, route)| matches(route, host, path)) {
        Some((index, route)) => Match { route: Some(index), pool: Some(route.pool) },
        None => Match { route: None, pool: listener.pool },
    }
}

fn matches(route: &Route, host: &str, path: &str) -> bool {
    let host_matches = route.host.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(host));
    host_matches && route.path_prefix.as_ref().is_none_or(|prefix| is_below(path, prefix))
}

/// Whole segments only: `/api` covers `/api` and `/api/x`, not `/apix`.
fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The host that a request is for, without port. An absolute target counts more than Host (RFC 9112 section 3.2.2).
pub fn host<B>(request: &Request<B>) -> &str {
    if let Some(host) = request.uri().host() {
        return host;
    }
    let authority = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => authority.get(..colon).unwrap_or(authority),
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RouteAccess;

    fn request(target: &str, host: &str) -> Request<()> {
        Request::builder().uri(target).header("host", host).body(()).unwrap()
    }

    fn route(host: Option<&str>, path_prefix: Option<&str>, pool: usize) -> Route {
        Route {
            host: host.map(str::to_owned),
            path_prefix: path_prefix.map(str::to_owned),
            pool: PoolIndex(pool),
            access: RouteAccess::default(),
            rate_limits: Vec::new(),
        }
    }

    #[test]
    fn host_is_taken_without_port_from_wherever_it_stands() {
        assert_eq!(host(&request("/", "shop.example")), "shop.example");
        assert_eq!(host(&request("/", "shop.example:8080")), "shop.example");
        assert_eq!(host(&request("/", "[2001:db8::1]:80")), "[2001:db8::1]");
        assert_eq!(host(&request("/", "[2001:db8::1]")), "[2001:db8::1]");
        assert_eq!(host(&request("http://other.example/", "other.example")), "other.example");
    }

    #[test]
    fn a_route_matches_host_in_any_case_and_whole_segments_of_the_path() {
        let api = route(Some("shop.example"), Some("/api"), 1);
        assert!(matches(&api, "Shop.Example", "/api"));
        assert!(matches(&api, "shop.example", "/api/x"));
        assert!(!matches(&api, "shop.example", "/apix"));
        assert!(!matches(&api, "shop.example", "/"));
        assert!(!matches(&api, "other.example", "/api"));
        assert!(matches(&route(None, Some("/"), 1), "any", "/x"));
        assert!(matches(&route(None, None, 1), "", "*"));
    }
}
