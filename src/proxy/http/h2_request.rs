//! From a request of HTTP/2 to one that means the same to everybody behind (RFC 9113 section 8).
//!
//! h2 has checked: which pseudo-header fields are there, once and in front (section 8.3); names in lower case and values
//! without CR, LF and NUL (8.2.1); no connection-specific fields, and TE only with `trailers` (8.2.2); DATA as long as
//! Content-Length says (8.1.1). Here is checked what it leaves open, with the rules that `strict` has for HTTP/1: so that
//! no request reaches a server that would not have reached it in HTTP/1.

use h2::ext::Protocol;
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
    let protocol = parts.extensions.remove::<Protocol>();
    let is_connect = parts.method == Method::CONNECT && protocol.is_none();
    if is_connect {
        check_connect(parts, limits)?;
    } else {
        check_target(parts, limits)?;
    }
    if let Some(authority) = authority {
        parts.headers.insert(header::HOST, authority);
    }
    join_cookies(&mut parts.headers);
    if is_connect {
        return Ok(());
    }
    if let Some(protocol) = protocol {
        upgrade(parts, &protocol)?;
    }
    let mut target = uri::Parts::default();
    target.path_and_query = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from_parts(target).map_err(|_| Fault::Refused(Rejection::Target))?;
    Ok(())
}

fn check_fields(parts: &Parts, limits: &Limits) -> Result<(), Fault> {
    let headers = &parts.headers;
    // As it would be on HTTP/1, where the authority stands in Host.
    let host = parts.uri.authority().filter(|_| !headers.contains_key(header::HOST));
    if headers.len() + usize::from(host.is_some()) > limits.headers_max {
        return Err(Fault::Refused(Rejection::TooManyFields));
    }
    let line = |(name, value): (&header::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let host_len = host.map_or(0, |host| "host: \r\n".len() + host.as_str().len());
    let target_len = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let request_line_len = parts.method.as_str().len() + target_len + "  HTTP/1.1\r\n".len();
    if request_line_len + host_len + headers.iter().map(line).sum::<usize>() > limits.head_bytes_max {
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

/// The target of CONNECT has a port, and no body follows.
fn check_connect(parts: &Parts, limits: &Limits) -> Result<(), Fault> {
    if !limits.allows_connect {
        return Err(Fault::Refused(Rejection::Connect));
    }
    if has_length(parts) {
        return Err(Fault::Refused(Rejection::ConnectBody));
    }
    if parts.uri.port().is_none() { Err(Fault::Refused(Rejection::Target)) } else { Ok(()) }
}

/// An extended CONNECT (RFC 8441) becomes the upgrade that means the same. What WebSocket over HTTP/1 needs and over HTTP/2
/// does not have (RFC 8441 section 5.1), a key, is made up: [`accepts`] is its counterpart.
fn upgrade(parts: &mut Parts, protocol: &Protocol) -> Result<(), Fault> {
    if has_length(parts) {
        return Err(Fault::Refused(Rejection::ConnectBody));
    }
    let name = HeaderValue::try_from(protocol.as_str()).map_err(|_| Fault::Malformed)?;
    parts.method = Method::GET;
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, name);
    if protocol.as_str().eq_ignore_ascii_case("websocket") {
        let key = base64(&fastrand::u128(..).to_be_bytes());
        let key = HeaderValue::try_from(key).map_err(|_| Fault::Malformed)?;
        parts.headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
    Ok(())
}

fn has_length(parts: &Parts) -> bool {
    parts.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Whether a server that has upgraded to WebSocket has understood it: it answers the key with its digest (RFC 6455 section
/// 4.2.2). True for other protocols.
pub fn accepts(request_key: Option<&HeaderValue>, response: &HeaderMap) -> bool {
    let Some(key) = request_key else { return true };
    let answer = response.get(header::SEC_WEBSOCKET_ACCEPT).map(|answer| answer.as_bytes().trim_ascii());
    answer == Some(digest_of_key(key).as_bytes())
}

/// What a server that speaks WebSocket answers a key with.
pub fn digest_of_key(key: &HeaderValue) -> String {
    let text = [key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    base64(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref())
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |index: u32| LETTERS.get(index as usize & 63).map_or('=', |letter| char::from(*letter));
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| chunk.get(at).map_or(0, |byte| u32::from(*byte));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digits = [18, 12, 6, 0].map(|shift| letter(bits >> shift));
        text.extend(digits.iter().take(chunk.len() + 1));
        text.extend(std::iter::repeat_n('=', 3 - chunk.len()));
    }
    text
}

fn check_target(parts: &Parts, limits: &Limits) -> Result<(), Fault> {
    if parts.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err(Fault::Refused(Rejection::Target));
    }
    // Without `:path` it is empty, which h2 notices only together with an authority, and which reads like `/`.
    let target = parts.uri.path_and_query().filter(|target| !is_empty(target));
    let target = target.map_or("", uri::PathAndQuery::as_str).as_bytes();
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

/// Whether there is nothing, not even the slash that it reads as.
fn is_empty(target: &uri::PathAndQuery) -> bool {
    target.as_str() == "/" && *target != uri::PathAndQuery::from_static("/")
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
    fn extended_connect_becomes_an_upgrade() {
        let mut parts = request("CONNECT", "https://a.example/chat", &[("sec-websocket-version", "13")]);
        parts.extensions.insert(Protocol::from_static("websocket"));
        translate(&mut parts, &Limits::default()).unwrap();
        assert_eq!((parts.method.as_str(), parts.uri.to_string().as_str()), ("GET", "/chat"));
        let field = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
        let names = ["host", "connection", "upgrade", "sec-websocket-version"];
        assert_eq!(names.map(field), ["a.example", "upgrade", "websocket", "13"]);
        assert_eq!(field("sec-websocket-key").len(), 24);
    }

    #[test]
    fn key_of_a_websocket_is_answered_as_rfc_6455_has_it() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        let answer =
            |text: &'static str| HeaderMap::from_iter([(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static(text))]);
        assert!(accepts(Some(&key), &answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        assert!(!accepts(Some(&key), &answer("s3pPLMBiTxaQ9kYGzzhZRbK+xO0=")));
        assert!(!accepts(Some(&key), &HeaderMap::new()));
        assert!(accepts(None, &HeaderMap::new()));
    }

    #[test]
    fn connect_is_a_request_where_it_is_allowed() {
        let judge = |authority: &str, fields: &[(&str, &str)], allows_connect| {
            let mut parts = request("CONNECT", authority, fields);
            translate(&mut parts, &Limits { allows_connect, ..Limits::default() }).map(|()| parts.uri.to_string())
        };
        assert_eq!(judge("a.example:443", &[], true), Ok("a.example:443".to_owned()));
        assert_eq!(judge("a.example:443", &[], false), Err(Fault::Refused(Rejection::Connect)));
        assert_eq!(judge("a.example", &[], true), Err(Fault::Refused(Rejection::Target)));
        let body = [("content-length", "1")];
        assert_eq!(judge("a.example:443", &body, true), Err(Fault::Refused(Rejection::ConnectBody)));
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
