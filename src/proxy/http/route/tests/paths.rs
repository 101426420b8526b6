//! Every spelling of a path that two readers could understand differently.

use super::super::path::{self, Buffers, Reading};
use super::*;

fn read(path: &str) -> Result<(String, Option<String>, bool), Refusal> {
    let mut buffers = Buffers::default();
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    path::read(path, &mut buffers)
        .map(|Reading { path, wide, has_dot_segments }| (text(path), wide.map(text), has_dot_segments))
}

#[test]
fn paths_are_read_as_what_they_mean() {
    let same = [
        ("/", "/"),
        ("/a/b.c/~d", "/a/b.c/~d"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/a/..b", "/a/..b"),
        ("/%61dmin", "/admin"),
        ("/%41%2d%2E%5f%7e", "/A-._~"),
        ("/a%20b%40c", "/a b@c"),
        ("/caf%c3%A9", r"/caf\xc3\xa9"),
        ("/100%25", "/100%25"),
        ("/%2561dmin", "/%2561dmin"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/a%0Ab%7f", "/a%0Ab%7F"),
        ("//a", "/a"),
        ("/a//b///c", "/a/b/c"),
        ("/a//", "/a/"),
        ("//", "/"),
        ("/a;v=1/b;w", "/a/b"),
        ("/a/;x", "/a/"),
        ("/;x/a", "/a"),
        ("/https://example.com/x", "/https:/example.com/x"),
    ];
    for (path, expected) in same {
        assert_eq!(read(path), Ok((expected.to_owned(), None, false)), "{path}");
    }
}

#[test]
fn dot_segments_are_resolved_for_routes_and_servers() {
    let resolved = [
        ("/x/../admin", "/admin", "/admin"),
        ("/x/%2e%2E/admin", "/admin", "/admin"),
        ("/x/.%2e/%61dmin", "/admin", "/%61dmin"),
        ("/./admin", "/admin", "/admin"),
        ("/%2e/admin", "/admin", "/admin"),
        ("/admin/.", "/admin/", "/admin/"),
        ("/admin/x/..", "/admin/", "/admin/"),
        ("/a/b/../../c/./d", "/c/d", "/c/d"),
        ("/a/..", "/", "/"),
        ("/.", "/", "/"),
        ("/a/./b%20c/../d;e", "/a/d", "/a/d;e"),
    ];
    for (path, expected, sent) in resolved {
        assert_eq!(read(path), Ok((expected.to_owned(), None, true)), "{path}");
        assert_eq!(path::without_dot_segments(path), sent, "{path}");
    }
}

#[test]
fn what_nobody_can_mean_is_refused() {
    let refused = [
        ("/%", Refusal::Escape),
        ("/%6", Refusal::Escape),
        ("/%zz", Refusal::Escape),
        ("/a;%g0", Refusal::Escape),
        ("/%u002e", Refusal::Escape),
        ("/a%00b", Refusal::Zero),
        ("/a;%00", Refusal::Zero),
        ("/%c0%ae", Refusal::Overlong),
        ("/%e0%80%ae", Refusal::Overlong),
        ("/%f0%80%80%ae", Refusal::Overlong),
        ("/..", Refusal::AboveRoot),
        ("/a/../../b", Refusal::AboveRoot),
        ("/%2e%2e/b", Refusal::AboveRoot),
        ("/a/..;x/b", Refusal::HiddenDotSegment),
        ("/a/.;x/b", Refusal::HiddenDotSegment),
        ("/a/..%2fb", Refusal::HiddenDotSegment),
        ("/a%2f../b", Refusal::HiddenDotSegment),
        ("/a%2F..%2Fb", Refusal::HiddenDotSegment),
        ("/a/..%5cb", Refusal::HiddenDotSegment),
        ("/a%5c..%5cb", Refusal::HiddenDotSegment),
        ("/%3b\\a//b", Refusal::TwoReadings),
        ("/%3bx%2fa/b", Refusal::TwoReadings),
        ("/a%3B%5cb", Refusal::TwoReadings),
        ("/a/..\\b", Refusal::HiddenDotSegment),
        ("/a/..%3bx/b", Refusal::HiddenDotSegment),
        ("/a/..%3fx", Refusal::HiddenDotSegment),
        ("/a/..%23x", Refusal::HiddenDotSegment),
        ("/a//../b", Refusal::HiddenDotSegment),
        ("/a//./../b", Refusal::HiddenDotSegment),
        ("/a//b/../../c", Refusal::HiddenDotSegment),
    ];
    for (path, refusal) in refused {
        assert_eq!(read(path), Err(refusal), "{path}");
    }
}

#[test]
fn escaped_separators_are_read_both_ways() {
    let both = [
        ("/a%2Fb", "/a%2Fb", "/a/b"),
        ("/a%2f%2Fb", "/a%2F%2Fb", "/a/b"),
        ("/%2fadmin", "/%2Fadmin", "/admin"),
        ("/a%5Cb", "/a%5Cb", "/a/b"),
        ("/admin%3Bx/b", "/admin%3Bx/b", "/admin/b"),
        ("/admin%3fx/b", "/admin%3Fx/b", "/admin"),
        ("/admin%23", "/admin%23", "/admin"),
        ("/a%2F", "/a%2F", "/a/"),
        ("/x/../a%2Fb", "/a%2Fb", "/a/b"),
    ];
    for (path, narrow, wide) in both {
        let (read, other, _) = read(path).unwrap();
        assert_eq!((read.as_str(), other.as_deref()), (narrow, Some(wide)), "{path}");
    }
}

#[test]
fn no_spelling_of_a_path_gets_around_its_route() {
    let table = table(&[
        (HostMatch::Any, prefix("/admin")),
        (HostMatch::Any, prefix("/files")),
        (HostMatch::Any, PathMatch::Any),
    ]);
    let denied = [
        "/admin",
        "/admin/",
        "/admin/x",
        "/%61dmin",
        "/%61%64%6d%69%6e/x",
        "//admin",
        "///admin//x",
        "/x/../admin",
        "/./admin",
        "/x/%2e%2e/admin",
        "/x/.%2E/admin/y",
        "/admin;x=1",
        "/admin;x/y",
        "/;/admin",
        "/admin/.",
        "/files/../admin",
    ];
    for path in denied {
        assert_eq!(find(&table, "", path), Ok(Some(0)), "{path}");
    }
    let refused = [
        "/%2fadmin",
        "/%2Fadmin/x",
        "/admin%2Fx",
        "/admin%2f",
        "/%5cadmin",
        "/admin%5Cx",
        "\\admin".replace('\\', "/\\").leak(),
        "/admin%3Bx",
        "/admin%3fx",
        "/admin%23",
        "/files/..%2fadmin",
        "/files%2f..%2fadmin",
        "/files/..;/admin",
        "/files/..%5cadmin",
        "/files//../admin",
        "/%c0%ae%c0%ae/admin",
        "/../admin",
        "/%zz/../admin",
        "/admin%00",
    ];
    for path in refused {
        assert!(find(&table, "", path).is_err(), "{path}");
    }
    // What means the same to all readers as far as routes go takes its route: names of objects with a slash in them.
    assert_eq!(find(&table, "", "/files/group%2Fproject"), Ok(Some(1)));
    assert_eq!(find(&table, "", "/other/a%2Fb"), Ok(Some(2)));
    assert_eq!(find(&table, "", "/Admin"), Ok(Some(2)));
    assert_eq!(find(&table, "", "/administrator"), Ok(Some(2)));
    assert_eq!(find(&table, "", "/%2561dmin"), Ok(Some(2)));
}

#[test]
fn a_prefix_is_left_out_however_it_is_spelt() {
    let stripped = [
        ("/api/x", "/api", Some("/x")),
        ("/api", "/api", Some("/")),
        ("/api/", "/api", Some("/")),
        ("/%61pi/x%20y", "/api", Some("/x%20y")),
        ("//api//x", "/api", Some("//x")),
        ("/api;v=1/x", "/api", Some("/x")),
        ("/a/b/c", "/a/b", Some("/c")),
        ("/a//b/c", "/a/b", Some("/c")),
        ("/apix", "/api", None),
        ("/a", "/a/b", None),
        ("/", "/a", None),
        ("/caf%C3%A9/x", "/caf%c3%a9", Some("/x")),
    ];
    for (path, prefix, expected) in stripped {
        assert_eq!(path::without_prefix(path, prefix), expected, "{path} without {prefix}");
    }
}

#[test]
fn what_is_read_is_written_so_that_it_can_be_sent() {
    let written = [
        (b"/a b".as_slice(), "/a%20b"),
        (b"/a%2Fb%25", "/a%2Fb%25"),
        (b"/100%", "/100%25"),
        (b"/a?b#c", "/a%3Fb%23c"),
        (b"/\xc3\xa9\r\n\"<>\\", "/%C3%A9%0D%0A%22%3C%3E%5C"),
        (b"/~a:@!$&'()*+,;=", "/~a:@!$&'()*+,;="),
    ];
    for (path, expected) in written {
        assert_eq!(path::escaped(path), expected);
    }
}
