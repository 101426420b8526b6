//! What a proxy must change in headers, and nothing else (RFC 9110 section 7.6).

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::request;
use http::uri::{self, PathAndQuery, Uri};

use super::client::Client;
use crate::proxy::tls;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What we add to Via: the version that was spoken to us, and a pseudonym, as no one outside needs our name.
const VIA: HeaderValue = HeaderValue::from_static("1.1 baton");
const VIA_HTTP_10: HeaderValue = HeaderValue::from_static("1.0 baton");
const VIA_HTTP_2: HeaderValue = HeaderValue::from_static("2.0 baton");

/// How often a request may have been with a Baton before. Few sites have as many behind each other, and a request that goes
/// round in a circle costs no more than so many.
const ROUNDS_MAX: usize = 8;

/// Whether a request has been with so many of us before that it can only be going round in a circle (RFC 9110 section
/// 7.6.3).
pub fn goes_round(headers: &HeaderMap) -> bool {
    let hops = headers.get_all(header::VIA).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_ours = |hop: &&[u8]| {
        let mut words = hop.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        words.nth(1) == Some(b"baton")
    };
    hops.filter(is_ours).count() >= ROUNDS_MAX
}

/// Makes a client's request one for a server: origin-form, no hop-by-hop fields.
///
/// A server that is spoken to in HTTP/2 is told of a client that takes trailers: gRPC insists on it, and there the field
/// is not hop-by-hop (RFC 9113 section 8.2.2).
pub fn to_server(parts: &mut request::Parts, client: &Client, keeps_te: bool) {
    let via = match parts.version {
        http::Version::HTTP_10 => VIA_HTTP_10,
        http::Version::HTTP_2 => VIA_HTTP_2,
        _ => VIA,
    };
    to_origin_form(parts);
    let found = Found::among(&parts.headers);
    let takes_trailers = keeps_te && found.hop_by_hop && takes_trailers(&parts.headers);
    remove_hop_by_hop(&mut parts.headers, &found);
    if takes_trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if found.expect {
        // We answer an expectation ourselves by reading the body; the server is not asked twice.
        parts.headers.remove(header::EXPECT);
    }
    parts.version = http::Version::HTTP_11;
    if let Some(facts) = client.connection.tls().filter(|_| asks_for_certificates(client)) {
        tls::client::to_server(&mut parts.headers, facts);
    }
    add_to_list(&mut parts.headers, header::VIA, &via);
    if !parts.headers.contains_key(header::HOST) {
        add_host(&mut parts.headers, client);
    }
}

/// Whether the client's own listener asks for certificates.
fn asks_for_certificates(client: &Client) -> bool {
    let tls = client.listener().and_then(|listener| listener.config.tls.as_ref());
    tls.is_some_and(|tls| tls.client_auth.is_some())
}

/// HTTP/1.0 may leave Host out, HTTP/1.1 may not: then it is the address that the client connected to (RFC 9112 section
/// 3.3), as configured. An empty Host would be allowed, and is refused by servers such as nginx.
fn add_host(headers: &mut HeaderMap, client: &Client) {
    let address = client.listener().and_then(|listener| listener.config.bind.first());
    if let Some(Ok(host)) = address.map(|address| HeaderValue::try_from(address.to_string())) {
        headers.insert(header::HOST, host);
    }
}

/// Makes a server's response one for a client.
pub fn to_client(headers: &mut HeaderMap) {
    let found = Found::among(headers);
    remove_hop_by_hop(headers, &found);
    if found.transfer_encoding {
        // hyper frames what goes to the client by the body itself.
        headers.remove(header::TRANSFER_ENCODING);
    }
    add_to_list(headers, header::VIA, &VIA);
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let words = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    words.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

/// Which fields that need something done are there. Most heads have none, and one pass over the names costs less than
/// looking for each of them.
#[derive(Default)]
struct Found {
    connection: bool,
    hop_by_hop: bool,
    expect: bool,
    transfer_encoding: bool,
}

impl Found {
    fn among(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => found.connection = true,
                "keep-alive" | "proxy-connection" | "te" | "upgrade" => found.hop_by_hop = true,
                "expect" => found.expect = true,
                "transfer-encoding" => found.transfer_encoding = true,
                _ => {}
            }
        }
        found
    }
}

/// `http://host/path` becomes `/path` with Host set from it (RFC 9112 section 3.2.2).
fn to_origin_form(parts: &mut request::Parts) {
    let Some(authority) = parts.uri.authority() else { return };
    if parts.method == http::Method::CONNECT {
        return;
    }
    if let Ok(host) = HeaderValue::try_from(authority.as_str()) {
        parts.headers.insert(header::HOST, host);
    }
    let mut target = uri::Parts::default();
    // `http://host?query` has no path of its own, and a target in origin-form must have one.
    target.path_and_query = match parts.uri.query() {
        Some(query) if parts.uri.path().is_empty() => PathAndQuery::try_from(format!("/?{query}")).ok(),
        _ => parts.uri.path_and_query().cloned(),
    };
    if let Ok(uri) = Uri::from_parts(target) {
        parts.uri = uri;
    }
}

/// Removes Connection, what it names, and the fields that are hop-by-hop without being named (RFC 9110 section 7.6.1).
/// Transfer-Encoding stays: hyper frames by it, and on the way to a server it can only be `chunked`.
fn remove_hop_by_hop(headers: &mut HeaderMap, found: &Found) {
    if found.connection
        && let Entry::Occupied(entry) = headers.entry(header::CONNECTION)
    {
        let (_, values) = entry.remove_entry_mult();
        // Nearly always there is one, which names no field.
        let naming: Vec<HeaderValue> = values.filter(|value| value != "keep-alive" && value != "close").collect();
        for name in naming.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
            remove_named(headers, name.trim());
        }
    }
    if found.hop_by_hop {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TE, header::UPGRADE] {
            headers.remove(name);
        }
    }
}

/// What Connection may say that is no name of a field to remove, or that [`to_server`] looks for itself.
const CONNECTION_OPTIONS: [&str; 5] = ["close", "keep-alive", "upgrade", "te", "http2-settings"];

/// Removes the fields that a client's Connection names, and the names. Done before anything is added: a client must not
/// strip what we tell servers about it.
pub fn remove_named_by_connection(headers: &mut HeaderMap) {
    let is_option = |word: &str| CONNECTION_OPTIONS.iter().any(|option| option.eq_ignore_ascii_case(word));
    let words = |value: &HeaderValue| -> Vec<String> {
        value.to_str().unwrap_or_default().split(',').map(|word| word.trim().to_ascii_lowercase()).collect()
    };
    let is_plain = |value: &HeaderValue| value.to_str().is_ok_and(is_option);
    if headers.get_all(header::CONNECTION).iter().all(is_plain) {
        return;
    }
    let said: Vec<String> = headers.get_all(header::CONNECTION).iter().flat_map(words).collect();
    headers.remove(header::CONNECTION);
    let (options, names): (Vec<String>, Vec<String>) = said.into_iter().partition(|word| is_option(word));
    for name in &names {
        remove_named(headers, name);
    }
    if let Ok(options) = HeaderValue::try_from(options.join(", "))
        && !options.is_empty()
    {
        headers.insert(header::CONNECTION, options);
    }
}

fn remove_named(headers: &mut HeaderMap, name: &str) {
    // A client must not strip what framing and routing hang on by naming it.
    let is_protected =
        ["host", "content-length", "transfer-encoding", "trailer"].iter().any(|kept| name.eq_ignore_ascii_case(kept));
    if !is_protected {
        headers.remove(name);
    }
}

/// Adds to a comma-separated list, or starts one.
pub fn add_to_list(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(entry) => {
            entry.insert(value.clone());
        }
        Entry::Occupied(mut entry) => {
            let values: Vec<&[u8]> = entry.iter().map(HeaderValue::as_bytes).chain([value.as_bytes()]).collect();
            if let Ok(list) = HeaderValue::from_bytes(&values.join(&b", "[..])) {
                entry.insert(list);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_are_removed() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("proxy-connection", "keep-alive"),
            ("x-secret", "1"),
            ("x-kept", "2"),
        ]);
        let found = Found::among(&headers);
        remove_hop_by_hop(&mut headers, &found);
        assert_eq!(headers, map(&[("x-kept", "2")]));
    }

    #[test]
    fn connection_cannot_name_away_what_framing_hangs_on() {
        let kept = [("host", "a"), ("content-length", "3"), ("transfer-encoding", "chunked")];
        let mut headers = map(&kept);
        headers.insert("connection", HeaderValue::from_static("Host, content-length, transfer-encoding"));
        let found = Found::among(&headers);
        remove_hop_by_hop(&mut headers, &found);
        assert_eq!(headers, map(&kept));
    }

    #[test]
    fn fields_that_connection_names_are_removed_and_its_options_stay() {
        let settled = |connection: &'static str| {
            let mut headers = map(&[("te", "trailers"), ("upgrade", "h2c"), ("x-user", "1"), ("host", "a")]);
            headers.insert("connection", HeaderValue::from_static(connection));
            remove_named_by_connection(&mut headers);
            let connection = headers.get("connection").map(|value| value.to_str().unwrap().to_owned());
            (connection, headers.contains_key("x-user"), headers.len())
        };
        assert_eq!(settled("Keep-Alive"), (Some("Keep-Alive".to_owned()), true, 5));
        assert_eq!(settled("X-User, Upgrade ,TE"), (Some("upgrade, te".to_owned()), false, 4));
        assert_eq!(settled("x-user"), (None, false, 3));
        assert_eq!(settled("host, x-other"), (None, true, 4));
        assert_eq!(settled(""), (None, true, 4));
    }

    #[test]
    fn a_request_that_was_with_eight_of_us_goes_round() {
        let goes = |vias: &[&'static str]| {
            let lines = vias.iter().map(|via| (header::VIA, HeaderValue::from_static(via)));
            let mut headers = HeaderMap::new();
            headers.extend(lines);
            goes_round(&headers)
        };
        assert!(!goes(&[]));
        let [four, three] = ["1.1 baton, 2.0 baton,1.1  baton , 1.0 baton", "1.1 baton, 1.1 baton, 1.1 baton"];
        assert!(goes(&[four, four]));
        assert!(!goes(&[four, three, "1.1 edge, HTTP/1.1 baton.example, baton, 1.1 x (1.1 baton)"]));
        assert!(goes(&[four, "1.1 edge", three, "HTTP/1.1 baton (x)"]));
    }

    #[test]
    fn lists_are_continued_over_several_fields() {
        let mut headers = map(&[]);
        headers.append("x-forwarded-for", HeaderValue::from_static("198.51.100.1"));
        headers.append("x-forwarded-for", HeaderValue::from_static("198.51.100.2, 198.51.100.3"));
        add_to_list(&mut headers, HeaderName::from_static("x-forwarded-for"), &HeaderValue::from_static("192.0.2.9"));
        assert_eq!(headers, map(&[("x-forwarded-for", "198.51.100.1, 198.51.100.2, 198.51.100.3, 192.0.2.9")]));
    }
}
