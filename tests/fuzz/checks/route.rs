//! Routes: no spelling of a path takes another route than the path, and what servers get is clear.
//!
//! The bytes are a host, a line end, and a path.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use baton::proxy::http::route::{Asked, Found, Refusal, Scratch, Table};
use http::HeaderMap;

/// Bytes to begin with.
pub const SAMPLES: &[&[u8]] = &[
    b"shop.example\n/admin/x",
    b"a.shop.example\n/%61dmin",
    b"a\n/x/../admin",
    b"a\n//admin",
    b"a\n/files/..%2fadmin",
    b"a\n/files/..;/admin",
    b"a\n/admin;a=b/c%20d",
    b"a\n/files/group%2Fproject/%e2%82%ac",
    b"a\n/x%3Fy%23z%5c..%252e",
    b"shop.example.\n/a/./b/.%2E/c.php",
    b"\n*",
];

const ROUTES: &str = r#"
[[listener]]
name = "web"
bind = ["192.0.2.1:80"]
pool = "app"
[[pool]]
name = "app"
servers = [{ name = "app1", address = "192.0.2.2:80" }]
[[route]]
listener = "web"
path_prefix = "/admin"
priority = 9
pool = "app"
[[route]]
listener = "web"
host = "shop.example"
path = "/admin/x"
pool = "app"
[[route]]
listener = "web"
host = "*.shop.example"
path_prefix = "/files"
pool = "app"
[[route]]
listener = "web"
path_regex = '\.php$'
pool = "app"
[[route]]
listener = "web"
path = "/files/"
pool = "app"
"#;

thread_local! {
    static TABLE: Table = {
        let config = baton::config::parse(ROUTES, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
        Table::new(&config.listeners[0].routes)
    };
}

fn find(host: &str, path: &str) -> Result<Found, Refusal> {
    let headers = HeaderMap::new();
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let asked = Asked { host, path, query: "", method: "GET", headers: &headers, ip };
    TABLE.with(|table| table.find(&asked, &mut Scratch::default()))
}

/// Panics when something does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((host, path)) = text.split_once('\n') else { return };
    // No parser of requests takes these into a path.
    if path.bytes().any(|byte| byte <= b' ' || matches!(byte, b'?' | b'#' | 0x7f)) {
        return;
    }
    let found = find(host, path);
    let escaped = if path.starts_with('/') { with_escapes(path) } else { path.to_owned() };
    let route = |found: &Result<Found, Refusal>| found.as_ref().map(|found| found.route).map_err(|refusal| *refusal);
    assert_eq!(route(&find(host, &escaped)), route(&found), "{path} and {escaped}");
    let Ok(Found { route, path: changed }) = found else { return };
    let sent = changed.unwrap_or_else(|| path.to_owned());
    // A second proxy with the same routes changes nothing more, and takes the same route.
    assert_eq!(find(host, &sent), Ok(Found { route, path: None }), "{path} is sent as {sent}");
    if !path.starts_with('/') {
        return;
    }
    for bits in 0..32 {
        let segments = segments(&sent, bits);
        let is_dots = |segment: &Vec<u8>| matches!(segment.as_slice(), b"." | b"..");
        assert!(!segments.iter().any(is_dots), "{path} is sent as {sent}, and has dot segments to reader {bits}");
        if segments.first().is_some_and(|first| first == b"admin") {
            assert_eq!(route, Some(0), "{path} is sent as {sent}, and reader {bits} sees /admin");
        }
    }
}

/// The same path with every letter escaped that is not part of an escape.
fn with_escapes(path: &str) -> String {
    let mut escaped = String::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let len =
            if first == '%' && rest.is_char_boundary(3.min(rest.len())) { 3.min(rest.len()) } else { first.len_utf8() };
        let (piece, after) = rest.split_at(len);
        match first {
            'a'..='z' | 'A'..='Z' | '0'..='9' => escaped.push_str(&format!("%{:02x}", u32::from(first))),
            _ => escaped.push_str(piece),
        }
        rest = after;
    }
    escaped
}

/// The segments that a reader sees who resolves what its bits say too early.
fn segments(path: &str, bits: u32) -> Vec<Vec<u8>> {
    let does = |bit: u32| bits & (1 << bit) != 0;
    let mut text = path.to_owned();
    let mut replace = |bit, escapes: [&str; 2], by| {
        if does(bit) {
            escapes.iter().for_each(|escape| text = text.replace(escape, by));
        }
    };
    replace(0, ["%2f", "%2F"], "/");
    replace(1, ["%5c", "%5C"], "/");
    replace(1, ["\\", "\\"], "/");
    replace(2, ["%3b", "%3B"], ";");
    let cut = |segment: &str| decoded(if does(3) { segment.split(';').next().unwrap_or_default() } else { segment });
    text.split('/').skip(1).map(cut).filter(|segment| !does(4) || !segment.is_empty()).collect()
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escape = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let (value, after) = match (byte, escape) {
            (b'%', Some(value)) => (value, &after[2..]),
            _ => (*byte, after),
        };
        bytes.push(value);
        rest = after;
    }
    bytes
}
