//! Who may change something over the admin listener. A core of decisions on what a request's head says.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderName, StatusCode, header};

/// Why a change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no token that it could bring along.
    NoToken,
    /// It brings none along, or a wrong one.
    WrongToken,
    /// It was meant for another host, or comes from a page of another site: a browser was led here.
    Foreign,
}

impl Refusal {
    /// The status to answer with.
    pub const fn status(self) -> StatusCode {
        match self {
            Refusal::NoToken | Refusal::Foreign => StatusCode::FORBIDDEN,
            Refusal::WrongToken => StatusCode::UNAUTHORIZED,
        }
    }

    /// Why, in words.
    pub const fn reason(self) -> &'static str {
        match self {
            Refusal::NoToken => "nothing can be changed here: the configuration has no [admin] token_file",
            Refusal::WrongToken => "this needs the header Authorization: Bearer with the content of [admin] token_file",
            Refusal::Foreign => {
                "the request was meant for another host, or comes from a page of another site: ask by address, or write the \
                 name into [admin] hosts"
            }
        }
    }
}

/// Whether a request may read. `names` are those under which this node may be asked for, besides its addresses. One without
/// a Host header comes from no browser.
///
/// # Errors
/// Why not.
pub fn check_reading(headers: &HeaderMap, names: &[String]) -> Result<(), Refusal> {
    let is_browser = headers.contains_key(header::HOST) || headers.contains_key(header::ORIGIN);
    if !is_browser || is_ours(headers, names) { Ok(()) } else { Err(Refusal::Foreign) }
}

/// Whether a request may change something; `names` as in [`check_reading`].
///
/// # Errors
/// Why not.
pub fn check(headers: &HeaderMap, token: Option<&[u8]>, names: &[String]) -> Result<(), Refusal> {
    let token = token.ok_or(Refusal::NoToken)?;
    if !is_ours(headers, names) {
        return Err(Refusal::Foreign);
    }
    let given = only(headers, &header::AUTHORIZATION).and_then(|value| {
        let (scheme, given) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
    });
    // In a time that tells nothing of how much of it is right.
    let is_right = given.is_some_and(|given| verify_slices_are_equal(given.as_bytes(), token).is_ok());
    if is_right { Ok(()) } else { Err(Refusal::WrongToken) }
}

/// Whether it was meant for this node. A name that somebody else can make lead here (DNS rebinding) does not count; an
/// address cannot be made to.
fn is_ours(headers: &HeaderMap, names: &[String]) -> bool {
    let Some(host) = only(headers, &header::HOST) else { return false };
    let name = host_name(host);
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let is_named = names.iter().any(|known| name.eq_ignore_ascii_case(known));
    let is_known = is_address || name.eq_ignore_ascii_case("localhost") || is_named;
    let origin_fits = match headers.get(header::ORIGIN) {
        None => true,
        Some(_) => only(headers, &header::ORIGIN)
            .and_then(|origin| origin.strip_prefix("http://"))
            .is_some_and(|origin| origin.eq_ignore_ascii_case(host)),
    };
    is_known && origin_fits
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

/// The value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { first.to_str().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &[u8] = b"0123456789abcdef012345";

    fn checked(fields: &[(&'static str, &'static str)]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        check(&headers, Some(TOKEN), &["lb-a".to_owned()])
    }

    fn read(fields: &[(&'static str, &'static str)]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        check_reading(&headers, &["lb-a".to_owned(), "lb.example.com".to_owned()])
    }

    #[test]
    fn who_reads_needs_no_token_but_a_name_that_nobody_else_can_make_lead_here() {
        for host in ["127.0.0.1:9909", "[::1]:9909", "localhost", "lb-a", "LB.example.com:9909"] {
            assert_eq!(read(&[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(read(&[]), Ok(()));
        assert_eq!(read(&[("host", "evil.example")]), Err(Refusal::Foreign));
        assert_eq!(read(&[("host", "localhost"), ("host", "evil.example")]), Err(Refusal::Foreign));
        assert_eq!(read(&[("host", "localhost"), ("origin", "http://evil.example")]), Err(Refusal::Foreign));
        assert_eq!(read(&[("origin", "http://evil.example")]), Err(Refusal::Foreign));
    }

    #[test]
    fn the_right_token_opens_and_nothing_else_does() {
        let host = ("host", "127.0.0.1:9909");
        assert_eq!(checked(&[host, ("authorization", "Bearer 0123456789abcdef012345")]), Ok(()));
        assert_eq!(checked(&[host, ("authorization", "bearer 0123456789abcdef012345")]), Ok(()));
        for wrong in [
            "Bearer 0123456789abcdef012344",
            "Bearer ",
            "Bearer",
            "0123456789abcdef012345",
            "Basic 0123456789abcdef012345",
        ] {
            assert_eq!(checked(&[host, ("authorization", wrong)]), Err(Refusal::WrongToken), "{wrong}");
        }
        assert_eq!(checked(&[host]), Err(Refusal::WrongToken));
        let twice = ("authorization", "Bearer 0123456789abcdef012345");
        assert_eq!(checked(&[host, twice, twice]), Err(Refusal::WrongToken));
        assert_eq!(check(&HeaderMap::new(), None, &[]), Err(Refusal::NoToken));
    }

    #[test]
    fn browsers_that_were_led_here_are_refused() {
        let token = ("authorization", "Bearer 0123456789abcdef012345");
        for host in ["127.0.0.1:9909", "[::1]:9909", "[::1]", "localhost:9909", "LB-A:9909", "192.0.2.11"] {
            assert_eq!(checked(&[("host", host), token]), Ok(()), "{host}");
        }
        for host in ["evil.example", "evil.example:9909", "127.0.0.1.evil.example:9909", "localhost.evil.example", ""] {
            assert_eq!(checked(&[("host", host), token]), Err(Refusal::Foreign), "{host}");
        }
        assert_eq!(checked(&[token]), Err(Refusal::Foreign));
        let host = ("host", "localhost:9909");
        assert_eq!(checked(&[host, token, ("origin", "http://localhost:9909")]), Ok(()));
        for origin in ["http://evil.example", "null", "https://localhost:9909", "http://localhost:80"] {
            assert_eq!(checked(&[host, token, ("origin", origin)]), Err(Refusal::Foreign), "{origin}");
        }
    }
}
