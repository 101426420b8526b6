//! From a request of HTTP/2 to one that means the same to everybody behind (RFC 9113 section 8).
//!
//! h2 has checked: which pseudo-header fields are there, once and in front (section 8.3); names in lower case and values
//! without CR, LF and NUL (8.2.1); no connection-specific fields, and TE only with `trailers` (8.2.2); DATA as long as
//! Content-Length says (8.1.1). Here is checked what it leaves open, with the rules that `strict` has for HTTP/1: so that
//! no request reaches a server that would not have reached it in HTTP/1.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::{self, Uri};
use http::{Method, uri::Scheme};

use super::strict::{self, Limits, Rejection};

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is malformed by RFC 9113 section 8.1.1: a stream error.
    Malformed,
    /// It is answered as on HTTP/1.
    Refused(Rejection),
}

/// Judges a request and gives it the form that one of HTTP/1 has: a target in origin-form, or the `*` of OPTIONS, and
/// the authority in Host. Its version stays.
///
/// # Errors
/// The first rule that it breaks.
pub fn translate(parts: &mut Parts, limits: &Limits) -> Result<(), Fault> {
    check_fields(parts, limits)?;
    let authority = authority(parts)?;
    check_target(parts, limits)?;
    if let Some(authority) = authority {
        parts.headers.insert(header::HOST, authority);
    }
    join_cookies(&mut parts.headers);
    let mut target = uri::Parts::default();
    target.path_and_query = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from_parts(target).map_err(|_| Fault::Refused(Rejection::Target))?;
    Ok(())
}

fn check_fields(parts: &Parts, limits: &Limits) -> Result<(), Fault> {
    let headers = &parts.headers;
    if headers.len() > limits.headers_max {
        return Err(Fault::Refused(Rejection::TooManyFields));
    }
    let line = |(name, value): (&header::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    if headers.iter().map(line).sum::<usize>() > limits.head_bytes_max {
        return Err(Fault::Refused(Rejection::HeadTooLarge));
    }
    if headers.values().any(|value| is_padded(value.as_bytes())) {
        return Err(Fault::Malformed);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next().map(HeaderValue::as_bytes), lengths.next()) {
        (None, _) => Ok(()),
        // At most 19 digits: more, and h2 has refused it.
        (Some(length), None) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => Ok(()),
        (Some(_), _) => Err(Fault::Malformed),
    }
}

/// White space at an end of a value (RFC 9113 section 8.2.1).
fn is_padded(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.first()) || is_space(value.last())
}

/// What Host has to be, where it is not that already. A request without an authority is as good as one of HTTP/1 with
/// Host (RFC 9113 section 8.3.1); with both, they have to be the same.
fn authority(parts: &Parts) -> Result<Option<HeaderValue>, Fault> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next().map(HeaderValue::as_bytes), hosts.next());
    if second.is_some() {
        return Err(Fault::Refused(Rejection::HostRepeated));
    }
    if host.is_some_and(|host| !strict::is_host_and_port(host)) {
        return Err(Fault::Refused(Rejection::HostInvalid));
    }
    let Some(authority) = parts.uri.authority().map(uri::Authority::as_str) else {
        return if host.is_some() { Ok(None) } else { Err(Fault::Refused(Rejection::HostMissing)) };
    };
    if authority.contains('@') {
        return Err(Fault::Refused(Rejection::UserInfo));
    }
    if !strict::is_host_and_port(authority.as_bytes()) {
        return Err(Fault::Refused(Rejection::Authority));
    }
    match host {
        Some(host) if host.eq_ignore_ascii_case(authority.as_bytes()) => Ok(None),
        Some(_) => Err(Fault::Refused(Rejection::HostMismatch)),
        None => HeaderValue::try_from(authority).map(Some).map_err(|_| Fault::Refused(Rejection::Authority)),
    }
}

fn check_target(parts: &Parts, limits: &Limits) -> Result<(), Fault> {
    if parts.method == Method::CONNECT {
        return Err(Fault::Refused(Rejection::Connect));
    }
    if parts.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err(Fault::Refused(Rejection::Target));
    }
    // Without `:path` there is nothing here; h2 notices that only together with an authority.
    let target = parts.uri.path_and_query().map_or("", uri::PathAndQuery::as_str).as_bytes();
    if target.len() > limits.uri_bytes_max {
        return Err(Fault::Refused(Rejection::UriTooLong));
    }
    match target {
        b"" => Err(Fault::Malformed),
        b"*" if parts.method == Method::OPTIONS => Ok(()),
        [b'/', ..] if strict::is_path_and_query(target) => Ok(()),
        _ => Err(Fault::Refused(Rejection::Target)),
    }
}

/// A client may send each cookie in a field of its own (RFC 9113 section 8.2.3); in HTTP/1 there is one field for all.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// As h2 hands a request over.
    fn request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().version(http::Version::HTTP_2).method(method).uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn translated(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<Parts, Fault> {
        let mut parts = request(method, uri, fields);
        translate(&mut parts, &Limits::default()).map(|()| parts)
    }

    #[test]
    fn authority_becomes_host_and_the_target_origin_form() {
        let parts = translated("GET", "https://shop.example:8443/a?b=c", &[]).unwrap();
        assert_eq!(parts.uri.to_string(), "/a?b=c");
        assert_eq!(parts.headers["host"], "shop.example:8443");
        let parts = translated("GET", "https://shop.example/", &[("host", "Shop.Example")]).unwrap();
        assert_eq!(parts.headers["host"], "Shop.Example");
        let parts = translated("GET", "/only-host", &[("host", "a")]).unwrap();
        assert_eq!((parts.uri.to_string().as_str(), &parts.headers["host"]), ("/only-host", &"a".parse().unwrap()));
        let mut options = request("OPTIONS", "/", &[("host", "a")]);
        options.uri = Uri::from_static("*");
        translate(&mut options, &Limits::default()).unwrap();
        assert_eq!(options.uri.to_string(), "*");
    }

    #[test]
    fn cookies_become_one_field() {
        let cookies = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3; d=4")];
        let parts = translated("GET", "http://a/", &cookies).unwrap();
        let joined: Vec<_> = parts.headers.get_all("cookie").iter().collect();
        assert_eq!(joined, ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn what_http_1_would_refuse_is_refused() {
        let refused = |rejection| Err(Fault::Refused(rejection));
        let judge = |method, uri: &str, fields: &[(&str, &str)]| translated(method, uri, fields).map(drop);
        assert_eq!(judge("GET", "http://a/", &[("host", "b")]), refused(Rejection::HostMismatch));
        assert_eq!(judge("GET", "http://a/", &[("host", "a"), ("host", "a")]), refused(Rejection::HostRepeated));
        assert_eq!(judge("GET", "/", &[]), refused(Rejection::HostMissing));
        assert_eq!(judge("GET", "/", &[("host", "a b")]), refused(Rejection::HostInvalid));
        assert_eq!(judge("GET", "http://user@a/", &[]), refused(Rejection::UserInfo));
        assert_eq!(judge("GET", "ftp://a/", &[]), refused(Rejection::Target));
        assert_eq!(judge("GET", "http://a/\\b", &[]), refused(Rejection::Target));
        assert_eq!(judge("GET", "*", &[("host", "a")]), refused(Rejection::Target));
        let long = format!("http://a/{}", "x".repeat(8 * 1024));
        assert_eq!(judge("GET", &long, &[]), refused(Rejection::UriTooLong));
        assert_eq!(judge("GET", "http://a/", &[("x", "1"); 101]), refused(Rejection::TooManyFields));
        assert_eq!(judge("GET", "http://a/", &[("x", &"x".repeat(32 * 1024))]), refused(Rejection::HeadTooLarge));
    }

    #[test]
    fn what_rfc_9113_calls_malformed_is() {
        let judge = |fields: &[(&str, &str)]| translated("POST", "http://a/", fields).map(drop);
        assert_eq!(judge(&[("x", " y")]), Err(Fault::Malformed));
        assert_eq!(judge(&[("x", "y\t")]), Err(Fault::Malformed));
        assert_eq!(judge(&[("content-length", "")]), Err(Fault::Malformed));
        assert_eq!(judge(&[("content-length", "1"), ("content-length", "1")]), Err(Fault::Malformed));
        assert_eq!(judge(&[("x", ""), ("content-length", "10")]), Ok(()));
    }
}
