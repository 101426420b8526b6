//! What HTTP says about HTTPS: the way there, staying there, and names that a TLS connection is not for.

use http::{HeaderValue, Request, Response, StatusCode, header};

use super::body::ResponseBody;
use super::client::Client;
use super::respond;
use super::route;
use crate::config::{Hsts, RedirectToHttps};

/// Sends a client to the same place over HTTPS, where the listener says so; for requests that no route matches.
pub fn redirect<B>(client: &Client, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let redirect = client.listener()?.config.redirect_to_https.as_ref()?;
    let Some(location) = location(redirect, request) else {
        let message = "the request names no host, so that there is none to send it to over HTTPS";
        return Some(respond::own(client, StatusCode::BAD_REQUEST, message, None));
    };
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    let mut response = respond::own(client, status, "this site is served over HTTPS", None);
    // It may be kept: nothing in it is of this one request.
    response.headers_mut().remove(header::CACHE_CONTROL);
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

fn location<B>(redirect: &RedirectToHttps, request: &Request<B>) -> Option<HeaderValue> {
    let host = Some(route::host(request)).filter(|host| !host.is_empty())?;
    let port = if redirect.port == 443 { String::new() } else { format!(":{}", redirect.port) };
    // `OPTIONS *` is about the server as a whole.
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let target = if target.starts_with('/') { target } else { "/" };
    HeaderValue::try_from(format!("https://{host}{port}{target}")).ok()
}

/// Whether a request is for another host than its TLS connection (RFC 9110 section 15.5.20): where clients have to say who
/// they are, that was said to the one host alone. Browsers ask again on a connection of its own.
pub fn is_misdirected<B>(client: &Client, request: &Request<B>) -> bool {
    let Some(listener) = client.listener() else { return false };
    if listener.config.tls.as_ref().is_none_or(|tls| tls.client_auth.is_none()) {
        return false;
    }
    let name = client.connection.tls().and_then(|facts| facts.server_name());
    name.is_some_and(|name| !route::host(request).trim_end_matches('.').eq_ignore_ascii_case(name))
}

/// The answer to a misdirected request.
pub fn misdirected(client: &Client) -> Response<ResponseBody> {
    let message = "this TLS connection was made for another host, and clients have to say to each who they are";
    respond::own(client, StatusCode::MISDIRECTED_REQUEST, message, None)
}

/// Tells a browser to come over HTTPS alone, in place of what the server says about that.
pub fn add_hsts<B>(client: &Client, response: &mut Response<B>) {
    if let Some(value) = client.listener().and_then(|listener| listener.hsts.as_ref()) {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, value.clone());
    }
}

/// The field as it is sent (RFC 6797 section 6.1).
pub fn hsts_value(hsts: &Hsts) -> HeaderValue {
    let subdomains = if hsts.include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if hsts.preload { "; preload" } else { "" };
    let text = format!("max-age={}{subdomains}{preload}", hsts.max_age.as_secs());
    // Digits and letters: this cannot fail.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("max-age=0"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn location_is_the_same_place_over_https() {
        let to = |port, target: &str, host: &str| {
            let request = Request::builder().uri(target).header("host", host).body(()).unwrap();
            location(&RedirectToHttps { status: 308, port }, &request).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(to(443, "/a?b=c", "Site.example").as_deref(), Some("https://Site.example/a?b=c"));
        assert_eq!(to(8443, "/", "site.example:8080").as_deref(), Some("https://site.example:8443/"));
        assert_eq!(to(443, "http://other.example/x", "other.example").as_deref(), Some("https://other.example/x"));
        assert_eq!(to(443, "*", "[2001:db8::1]:80").as_deref(), Some("https://[2001:db8::1]/"));
        assert_eq!(to(443, "/", ""), None);
    }

    #[test]
    fn hsts_is_written_as_the_rfc_has_it() {
        let value = |secs, include_subdomains, preload| {
            let max_age = Duration::from_secs(secs);
            hsts_value(&Hsts { max_age, include_subdomains, preload }).to_str().unwrap().to_owned()
        };
        assert_eq!(value(31_536_000, true, true), "max-age=31536000; includeSubDomains; preload");
        assert_eq!(value(0, false, false), "max-age=0");
    }
}
