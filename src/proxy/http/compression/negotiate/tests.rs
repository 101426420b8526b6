use http::HeaderValue;

use super::*;
use crate::config::CompressionLevel;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

fn best(accept: &[&'static str]) -> Option<Coding> {
    let fields: Vec<_> = accept.iter().map(|value| ("accept-encoding", *value)).collect();
    Accepted::of(&map(&fields)).best(&[Coding::Zstd, Coding::Brotli, Coding::Gzip])
}

#[test]
fn the_client_chooses_and_where_it_does_not_care_the_order_does() {
    assert_eq!(best(&["gzip, deflate, br, zstd"]), Some(Coding::Zstd));
    assert_eq!(best(&["gzip, deflate, br"]), Some(Coding::Brotli));
    assert_eq!(best(&["gzip", "br"]), Some(Coding::Brotli));
    assert_eq!(best(&["GZIP;Q=1.0"]), Some(Coding::Gzip));
    assert_eq!(best(&["x-gzip"]), Some(Coding::Gzip));
    assert_eq!(best(&["br;q=0.5, gzip;q=0.8, zstd; q=0.799"]), Some(Coding::Gzip));
    assert_eq!(best(&["*"]), Some(Coding::Zstd));
    assert_eq!(best(&["zstd;q=0, *"]), Some(Coding::Brotli));
    assert_eq!(best(&["gzip;q=0.001"]), Some(Coding::Gzip));
}

#[test]
fn nobody_gets_what_was_not_asked_for() {
    assert_eq!(best(&[]), None);
    assert_eq!(best(&[""]), None);
    assert_eq!(best(&["deflate, compress"]), None);
    assert_eq!(best(&["gzip;q=0, br;q=0.000, zstd;q=0."]), None);
    assert_eq!(best(&["*;q=0"]), None);
    assert_eq!(best(&["identity"]), None);
    assert_eq!(best(&["gzip;q=0.5, identity"]), None);
    assert_eq!(best(&["gzip, identity;q=0.5"]), Some(Coding::Gzip));
    // Malformed.
    for accept in ["gzip;q=2", "gzip;q=1.001", "gzip;q=0.1234", "gzip;q=-1", "gzip;q", "gzip;q=", "gzip;q=x", "g zip"] {
        assert_eq!(best(&[accept]), None, "{accept}");
    }
}

fn compression() -> Compression {
    Compression {
        algorithms: vec![Coding::Gzip],
        types: vec!["text/html".to_owned(), "application/*".to_owned()],
        min_bytes: 100,
        level: CompressionLevel::Balanced,
    }
}

fn decision(status: u16, fields: &[(&'static str, &'static str)]) -> Decision {
    let accepted = Accepted::of(&map(&[("accept-encoding", "gzip")]));
    decide(&compression(), &accepted, StatusCode::from_u16(status).unwrap(), &map(fields))
}

#[test]
fn whole_bodies_of_a_known_type_and_enough_length_are_encoded() {
    let html = ("content-type", "text/html");
    assert_eq!(decision(200, &[html]), Decision::Encode(Coding::Gzip));
    assert_eq!(decision(404, &[html]), Decision::Encode(Coding::Gzip));
    assert_eq!(decision(200, &[("content-type", "Text/HTML; charset=utf-8")]), Decision::Encode(Coding::Gzip));
    assert_eq!(decision(200, &[("content-type", "application/json")]), Decision::Encode(Coding::Gzip));
    assert_eq!(decision(200, &[html, ("content-length", "100")]), Decision::Encode(Coding::Gzip));
    assert_eq!(decision(200, &[html, ("content-length", "99")]), Decision::Leave);
    assert_eq!(decision(200, &[]), Decision::Leave);
    assert_eq!(decision(200, &[("content-type", "text/htmlx")]), Decision::Leave);
    assert_eq!(decision(200, &[("content-type", "image/png")]), Decision::Leave);
    assert_eq!(decision(200, &[("content-type", "application/grpc+proto")]), Decision::Leave);
    for status in [100, 101, 204, 205, 206, 304] {
        assert_eq!(decision(status, &[html]), Decision::Leave, "{status}");
    }
}

#[test]
fn what_may_not_be_changed_is_left() {
    for field in [
        ("content-encoding", "gzip"),
        ("content-encoding", "identity"),
        ("content-range", "bytes 0-1/2"),
        ("cache-control", "public, No-Transform"),
        ("repr-digest", "sha-256=:x:"),
        ("content-md5", "x"),
    ] {
        assert_eq!(decision(200, &[("content-type", "text/html"), field]), Decision::Leave, "{field:?}");
    }
    assert_eq!(
        decision(200, &[("content-type", "text/html"), ("cache-control", "no-transformers")]),
        Decision::Encode(Coding::Gzip)
    );
}

#[test]
fn a_client_that_accepts_none_is_told_that_others_get_another() {
    let headers = map(&[("content-type", "text/html")]);
    assert_eq!(decide(&compression(), &Accepted::default(), StatusCode::OK, &headers), Decision::Vary);
}
