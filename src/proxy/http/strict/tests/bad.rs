//! Streams that must be refused, each with the rule it breaks.

use super::Rejection::*;
use super::*;

/// First lines, followed by `Host: a` and the empty line.
const REQUEST_LINES: &[(&[u8], Rejection)] = &[
    (b"GET / HTTP/1.1\n", BareLf),
    (b"\nGET / HTTP/1.1\r\n", BareLf),
    (b"\r\n\nGET / HTTP/1.1\r\n", BareLf),
    (b"GET / HTTP/1.1\r\r\n", BareCr),
    (b"GET /\r HTTP/1.1\r\n", BareCr),
    (b"GET\r / HTTP/1.1\r\n", BareCr),
    (b"\rGET / HTTP/1.1\r\n", BareCr),
    (b"GET / HTTP/1.1\rHost: b\r\n", BareCr),
    (b"\r\n\r\nGET / HTTP/1.1\r\n", EmptyLines),
    (b"GET /\r\n", RequestLine),
    (b"GET\r\n", RequestLine),
    (b"GET \r\n", RequestLine),
    (b"GET / HTTP/1.1 \r\n", RequestLine),
    (b"GET / HTTP/1.1 x\r\n", RequestLine),
    (b"GET  / HTTP/1.1\r\n", RequestLine),
    (b"GET /  HTTP/1.1\r\n", RequestLine),
    (b"GET /a b HTTP/1.1\r\n", RequestLine),
    (b" GET / HTTP/1.1\r\n", Method),
    (b"\tGET / HTTP/1.1\r\n", Method),
    (b"GET\t/ HTTP/1.1\r\n", Method),
    (b"G\0T / HTTP/1.1\r\n", Method),
    (b"GE:T / HTTP/1.1\r\n", Method),
    (b"G(T / HTTP/1.1\r\n", Method),
    (b"\x16\x03\x01\x02\r\n", Method),
    (b"G\xc3\x89T / HTTP/1.1\r\n", Method),
    (b"GET /\t HTTP/1.1\r\n", Target),
    (b"GET /\x0b HTTP/1.1\r\n", Target),
    (b"GET /\0 HTTP/1.1\r\n", Target),
    (b"GET /\x7f HTTP/1.1\r\n", Target),
    (b"GET /caf\xc3\xa9 HTTP/1.1\r\n", Target),
    (b"GET /a?caf\xe9 HTTP/1.1\r\n", Target),
    (b"GET /#fragment HTTP/1.1\r\n", Target),
    (b"GET /?q#fragment HTTP/1.1\r\n", Target),
    (b"GET /a\\..\\b HTTP/1.1\r\n", Target),
    (b"GET /<b> HTTP/1.1\r\n", Target),
    (b"GET /?\" HTTP/1.1\r\n", Target),
    (b"GET index.html HTTP/1.1\r\n", Target),
    (b"GET ?q HTTP/1.1\r\n", Target),
    (b"GET * HTTP/1.1\r\n", Target),
    (b"OPTIONS *a HTTP/1.1\r\n", Target),
    (b"GET a:80 HTTP/1.1\r\n", Target),
    (b"GET a HTTP/1.1\r\n", Target),
    (b"GET ftp://a/ HTTP/1.1\r\n", Target),
    (b"GET http:/a/ HTTP/1.1\r\n", Target),
    (b"GET http:a HTTP/1.1\r\n", Target),
    (b"GET http://a#f HTTP/1.1\r\n", Target),
    (b"GET http://a/ \x80 HTTP/1.1\r\n", RequestLine),
    (b"GET http:// HTTP/1.1\r\n", Authority),
    (b"GET http:///a HTTP/1.1\r\n", Authority),
    (b"GET http://:80/ HTTP/1.1\r\n", Authority),
    (b"GET http://a:b/ HTTP/1.1\r\n", Authority),
    (b"GET http://a\\@b/ HTTP/1.1\r\n", UserInfo),
    (b"GET http://user@a/ HTTP/1.1\r\n", UserInfo),
    (b"GET http://user:word@a/ HTTP/1.1\r\n", UserInfo),
    (b"GET http://@a/ HTTP/1.1\r\n", UserInfo),
    (b"GET http://b/ HTTP/1.1\r\n", HostMismatch),
    (b"GET http://a:80/ HTTP/1.1\r\n", HostMismatch),
    (b"GET http://aa/ HTTP/1.0\r\n", HostMismatch),
    (b"GET / http/1.1\r\n", Version),
    (b"GET / HTTP/1\r\n", Version),
    (b"GET / HTTP/11\r\n", Version),
    (b"GET / HTTP/1.10\r\n", Version),
    (b"GET / HTTP/01.1\r\n", Version),
    (b"GET / HTTP/1.x\r\n", Version),
    (b"GET / HTTPS/1.1\r\n", Version),
    (b"GET / XTTP/1.1\r\n", Version),
    (b"GET / \r\n", Version),
    (b"GET / HTTP/1.1\0\r\n", Version),
    (b"GET / HTTP/0.9\r\n", VersionNotSupported),
    (b"GET / HTTP/1.2\r\n", VersionNotSupported),
    (b"GET / HTTP/2.0\r\n", VersionNotSupported),
    (b"PRI * HTTP/2.0\r\n", VersionNotSupported),
    (b"GET / HTTP/9.9\r\n", VersionNotSupported),
    (b"CONNECT a:443 HTTP/1.1\r\n", Connect),
    (b"CONNECT / HTTP/1.1\r\n", Connect),
    (b"connect a:443 HTTP/1.1\r\n", Target),
];

/// What follows `POST / HTTP/1.1` and `Host: a`, in front of the empty line.
const FIELDS: &[(&[u8], Rejection)] = &[
    (b"X: 1\n", BareLf),
    (b"\nX: 1\r\n", BareLf),
    (b"X: 1\n\r\n", BareLf),
    (b"X: 1\r\r\n", BareCr),
    (b"X: 1\rY: 2\r\n", BareCr),
    (b"X\r: 1\r\n", BareCr),
    (b"\rX: 1\r\n", BareCr),
    (b"X: 1234567890\rTransfer-Encoding: chunked\r\n", BareCr),
    (b" X: 1\r\n", FieldFolded),
    (b"\tX: 1\r\n", FieldFolded),
    (b"X: 1\r\n 2\r\n", FieldFolded),
    (b"X: 1\r\n\t2\r\n", FieldFolded),
    (b" \r\n", FieldFolded),
    (b"X\r\n", FieldColon),
    (b"GET\r\n", FieldColon),
    (b": 1\r\n", FieldNameEmpty),
    (b":\r\n", FieldNameEmpty),
    (b"X : 1\r\n", FieldNameSpace),
    (b"X\t: 1\r\n", FieldNameSpace),
    (b"Content-Length : 5\r\n", FieldNameSpace),
    (b"Transfer-Encoding : chunked\r\n", FieldNameSpace),
    (b"X Y: 1\r\n", FieldNameSpace),
    (b"POST / HTTP/1.1\r\n", FieldNameSpace),
    (b"X\0: 1\r\n", FieldName),
    (b"X\x0b: 1\r\n", FieldName),
    (b"X(Y): 1\r\n", FieldName),
    (b"X,Y: 1\r\n", FieldName),
    (b"X\xe9: 1\r\n", FieldName),
    (b"\"X\": 1\r\n", FieldName),
    (b"X@Y: 1\r\n", FieldName),
    (b"X[: 1\r\n", FieldName),
    (b"X: \0\r\n", FieldValue),
    (b"X: a\x01b\r\n", FieldValue),
    (b"X: a\x08\r\n", FieldValue),
    (b"X: \x0b\r\n", FieldValue),
    (b"X: \x0c\r\n", FieldValue),
    (b"X: 12345678901234567890\x1f\r\n", FieldValue),
    (b"X: 1\t2\t345678901\x7f\r\n", FieldValue),
    (b"X:\x7f\r\n", FieldValue),
    (b"Transfer-Encoding: \x0bchunked\r\n", FieldValue),
    (b"Transfer-Encoding: chunked\x0c\r\n", FieldValue),
    (b"Content-Length: 5\0\r\n", FieldValue),
    (b"Host: a\r\n", HostRepeated),
    (b"host: b\r\n", HostRepeated),
    (b"Content-Length:\r\n", ContentLength),
    (b"Content-Length: +5\r\n", ContentLength),
    (b"Content-Length: -5\r\n", ContentLength),
    (b"Content-Length: 0x5\r\n", ContentLength),
    (b"Content-Length: 5 5\r\n", ContentLength),
    (b"Content-Length: 5.0\r\n", ContentLength),
    (b"Content-Length: 1e3\r\n", ContentLength),
    (b"Content-Length: 5;\r\n", ContentLength),
    (b"Content-Length: \"5\"\r\n", ContentLength),
    (b"Content-Length: \xb2\r\n", ContentLength),
    (b"Content-Length: 5\r\nContent-Length: 5\r\n", ContentLengthRepeated),
    (b"Content-Length: 5\r\ncontent-length: 6\r\n", ContentLengthRepeated),
    (b"Content-Length: 5, 5\r\n", ContentLengthRepeated),
    (b"Content-Length: 5,\r\n", ContentLengthRepeated),
    (b"Content-Length: ,5\r\n", ContentLengthRepeated),
    (b"Content-Length: 9223372036854775808\r\n", ContentLengthOverflow),
    (b"Content-Length: 18446744073709551621\r\n", ContentLengthOverflow),
    (b"Content-Length: 00000000000000000005\r\n", ContentLengthOverflow),
    (b"Transfer-Encoding:\r\n", TransferEncoding),
    (b"Transfer-Encoding: ,chunked\r\n", TransferEncoding),
    (b"Transfer-Encoding: chunked,\r\n", TransferEncoding),
    (b"Transfer-Encoding: chunked, chunked\r\n", TransferEncoding),
    (b"Transfer-Encoding: chunked, gzip\r\n", TransferEncoding),
    (b"Transfer-Encoding: chunked, identity\r\n", TransferEncoding),
    (b"Transfer-Encoding: gzip, chunked, chunked\r\n", TransferEncoding),
    (b"Transfer-Encoding: chunked;q=1\r\n", TransferEncoding),
    (b"Transfer-Encoding: \"chunked\"\r\n", TransferEncoding),
    (b"Transfer-Encoding: chun ked\r\n", TransferEncoding),
    (b"Transfer-Encoding: chunked\xff\r\n", TransferEncoding),
    (b"Transfer-Encoding: gzip,, chunked\r\n", TransferEncoding),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TransferEncodingRepeated),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", TransferEncodingRepeated),
    (b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", TransferCodingUnknown),
    (b"Transfer-Encoding: gzip, chunked\r\n", TransferCodingUnknown),
    (b"Transfer-Encoding: gzip\r\n", TransferCodingUnknown),
    (b"Transfer-Encoding: identity\r\n", TransferCodingUnknown),
    (b"Transfer-Encoding: xchunked\r\n", TransferCodingUnknown),
    (b"Transfer-Encoding: chunke\r\n", TransferCodingUnknown),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", TwoFramings),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", TwoFramings),
    (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", TwoFramings),
    (b"TRANSFER-ENCODING: CHUNKED\r\nCONTENT-LENGTH: 5\r\n", TwoFramings),
];

/// Values of Host.
const HOSTS: &[&[u8]] = &[
    b"a b",
    b"a, b",
    b"a,b",
    b"a/b",
    b"a\\b",
    b"user@a",
    b"a?b",
    b"a#b",
    b"a:80:80",
    b"a:x",
    b"a:-1",
    b"a:65536",
    b"a:000080",
    b":80",
    b":",
    b"::1",
    b"[::1",
    b"[]",
    b"[a]",
    b"[::1]a",
    b"[::1]:x",
    b"[fe80::1%25eth0]",
    b"[v1.a]",
    b"[127.0.0.1]",
    b"a]",
    b"caf\xc3\xa9",
    b"a%2eb",
    b"http://a",
    b"a\tb",
    b"\"a\"",
    b"a;b",
    b"*",
];

/// Whole streams, with the number of bytes that pass.
const STREAMS: &[(&[u8], usize, Rejection)] = &[
    (b"GET / HTTP/1.1\r\n\r\n", 0, HostMissing),
    (b"GET http://a/ HTTP/1.1\r\n\r\n", 0, HostMissing),
    (b"GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", 0, HostMismatch),
    (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 0, HostRepeated),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 0, TransferEncodingOnHttp10),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n", 0, TransferEncodingOnHttp10),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 0, BareLf),
    (b"GET / HTTP/1.1\nHost: a\n\n", 0, BareLf),
    // A body longer than its head says is the next request.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nab\r\n", 48, RequestLine),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n", 27, RequestLine),
];

/// Bodies behind a head with `Transfer-Encoding: chunked`, with the number of bytes of them that pass.
const CHUNKED: &[(&[u8], usize, Rejection)] = &[
    (b"\r\n", 0, ChunkSize),
    (b"x\r\n", 0, ChunkSize),
    (b"0x5\r\nhello\r\n", 0, ChunkSize),
    (b"-1\r\n", 0, ChunkSize),
    (b"+5\r\n", 0, ChunkSize),
    (b" 5\r\n", 0, ChunkSize),
    (b"5 \r\nhello\r\n", 0, ChunkSize),
    (b"5 ;a\r\nhello\r\n", 0, ChunkSize),
    (b"5\t\r\n", 0, ChunkSize),
    (b"5,5\r\n", 0, ChunkSize),
    (b";a=b\r\n", 0, ChunkSize),
    (b"5g\r\n", 0, ChunkSize),
    (b"5\nhello\r\n", 0, BareLf),
    (b"5;a\nhello\r\n", 0, BareLf),
    (b"5\rhello\r\n", 0, BareCr),
    (b"5\r\r\n", 0, BareCr),
    (b"5;a\rb\r\n", 0, BareCr),
    (b"5;a\0\r\n", 0, ChunkExtension),
    (b"5;a=\"\x0b\"\r\n", 0, ChunkExtension),
    (b"5;a\x7f\r\n", 0, ChunkExtension),
    (b"5;\xc3\xa9\r\n", 0, ChunkExtension),
    (b"8000000000000000\r\n", 0, ChunkSizeOverflow),
    (b"ffffffffffffffff\r\n", 0, ChunkSizeOverflow),
    (b"00000000000000005\r\n", 0, ChunkSizeOverflow),
    (b"10000000000000005\r\n", 0, ChunkSizeOverflow),
    (b"5\r\nhello!\r\n", 8, ChunkEnd),
    (b"5\r\nhello\n", 8, ChunkEnd),
    (b"5\r\nhello\r\r\n", 8, ChunkEnd),
    (b"5\r\nhello0\r\n\r\n", 8, ChunkEnd),
    (b"5\r\nhello\r\n\r\n", 10, ChunkSize),
    (b"5\r\nhello\r\nGET / HTTP/1.1\r\n", 10, ChunkSize),
    (b"0\n\r\n", 0, BareLf),
    (b"0\r\n\n", 3, BareLf),
    (b"0\r\nX: 1\n\r\n", 3, BareLf),
    (b"0\r\nX: 1\rY: 2\r\n\r\n", 3, BareCr),
    (b"0\r\n X: 1\r\n\r\n", 3, FieldFolded),
    (b"0\r\nX: 1\r\n 2\r\n\r\n", 3, FieldFolded),
    (b"0\r\nX : 1\r\n\r\n", 3, FieldNameSpace),
    (b"0\r\nX\r\n\r\n", 3, FieldColon),
    (b"0\r\n: 1\r\n\r\n", 3, FieldNameEmpty),
    (b"0\r\nX: \0\r\n\r\n", 3, FieldValue),
    (b"0\r\nGET / HTTP/1.1\r\n", 3, FieldNameSpace),
    (b"0\r\nContent-Length: 5\r\n\r\n", 3, TrailerForbidden),
    (b"0\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 3, TrailerForbidden),
    (b"0\r\nHOST: b\r\n\r\n", 3, TrailerForbidden),
];

const GOOD: &[u8] = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
const CHUNKED_HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fn table() -> Vec<(Vec<u8>, usize, Rejection)> {
    let request_lines =
        REQUEST_LINES.iter().map(|(line, rejection)| ([line, &b"Host: a\r\n\r\n"[..]].concat(), 0, *rejection));
    let fields = FIELDS
        .iter()
        .map(|(fields, rejection)| ([b"POST / HTTP/1.1\r\nHost: a\r\n", *fields, b"\r\n"].concat(), 0, *rejection));
    let hosts = HOSTS.iter().map(|host| ([b"GET / HTTP/1.1\r\nHost: ", *host, b"\r\n\r\n"].concat(), 0, HostInvalid));
    let streams = STREAMS.iter().map(|(stream, passed, rejection)| (stream.to_vec(), *passed, *rejection));
    let chunked = CHUNKED
        .iter()
        .map(|(body, passed, rejection)| ([CHUNKED_HEAD, body].concat(), CHUNKED_HEAD.len() + passed, *rejection));
    request_lines.chain(fields).chain(hosts).chain(streams).chain(chunked).collect()
}

/// The streams alone, to start mutations from.
pub(super) fn streams() -> Vec<Vec<u8>> {
    table().into_iter().map(|(stream, ..)| stream).collect()
}

#[test]
fn malformed_and_ambiguous_streams_are_refused_by_the_rule_they_break() {
    let table = table();
    assert!(table.len() >= 240, "{}", table.len());
    for (stream, passed, rejection) in table {
        let outcome = feed_in_every_way(Limits::default(), &stream);
        assert_eq!((outcome.rejection, outcome.passed), (Some(rejection), passed), "{}", stream.escape_ascii());
    }
}

#[test]
fn bad_message_behind_a_good_one_leaves_the_good_one_whole() {
    for (stream, passed, rejection) in table().iter().filter(|(stream, ..)| !stream.starts_with(b"\r\n")) {
        let stream = [GOOD, stream].concat();
        let outcome = feed_in_every_way(Limits::default(), &stream);
        let expected = (Some(*rejection), GOOD.len() + passed);
        assert_eq!((outcome.rejection, outcome.passed), expected, "{}", stream.escape_ascii());
        assert!(outcome.heads_count >= 1);
    }
}

/// Streams at a limit, with what comes of them. `None`: they pass.
fn at_the_limits() -> Vec<(&'static str, Vec<u8>, Option<Rejection>)> {
    let head = |first: &str, fields: &str| format!("{first}\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let uri = |len: usize| head(&format!("GET /{} HTTP/1.1", "a".repeat(len - 1)), "");
    // The rest of the head is 32 bytes: 16 and 9 of its first two lines, 5 of the field around its value, 2 of the end.
    let sized = |len: usize| head("GET / HTTP/1.1", &format!("X: {}\r\n", "x".repeat(len - 32)));
    let counted = |count: usize| head("GET / HTTP/1.1", &"X: 1\r\n".repeat(count - 1));
    let chunked = |body: &str| [CHUNKED_HEAD, body.as_bytes()].concat();
    let size_line = |len: usize| chunked(&format!("0;{}\r\n\r\n", "e".repeat(len - 4)));
    let extensions = |len: usize| {
        let chunk = format!("1;{}\r\na\r\n", "e".repeat(127));
        chunked(&format!("{}0{}\r\n\r\n", chunk.repeat(len / 128), ";e".get(..len % 128).unwrap()))
    };
    let trailers = |len: usize| chunked(&format!("0\r\nX: {}\r\n\r\n", "x".repeat(len - 7)));
    vec![
        ("uri", uri(8 * 1024), None),
        ("uri", uri(8 * 1024 + 1), Some(UriTooLong)),
        ("request line", head(&"A".repeat(32 * 1024), ""), Some(UriTooLong)),
        ("head", sized(32 * 1024), None),
        ("head", sized(32 * 1024 + 1), Some(HeadTooLarge)),
        ("fields", counted(100), None),
        ("fields", counted(101), Some(TooManyFields)),
        ("size line", size_line(256), None),
        ("size line", size_line(257), Some(ChunkLineTooLong)),
        ("extensions", extensions(4096), None),
        ("extensions", extensions(4097), Some(ChunkExtensionsTooLarge)),
        ("trailers", trailers(8 * 1024), None),
        ("trailers", trailers(8 * 1024 + 1), Some(TrailersTooLarge)),
        ("trailer fields", chunked(&format!("0\r\n{}\r\n", "X: 1\r\n".repeat(100))), None),
        ("trailer fields", chunked(&format!("0\r\n{}\r\n", "X: 1\r\n".repeat(101))), Some(TooManyFields)),
    ]
}

#[test]
fn limits_hold_to_the_byte() {
    for (name, stream, rejection) in at_the_limits() {
        let whole = feed(Limits::default(), [&stream[..]]);
        assert_eq!(whole.rejection, rejection, "{name} of a stream of {} bytes", stream.len());
        if rejection.is_none() {
            assert_eq!((whole.passed, whole.phase), (stream.len(), Phase::Idle), "{name}");
        }
        for piece_len in [1, 2, 3, 1460, 4096] {
            assert_eq!(feed(Limits::default(), stream.chunks(piece_len)), whole, "{name} in pieces of {piece_len}");
        }
    }
}

#[test]
fn every_rule_has_a_stream_that_breaks_it() {
    let broken: Vec<_> = table()
        .iter()
        .map(|(.., rejection)| *rejection)
        .chain(at_the_limits().iter().filter_map(|(.., rejection)| *rejection))
        .collect();
    // This one only where CONNECT is allowed: below.
    for rejection in Rejection::ALL.iter().filter(|rejection| **rejection != ConnectBody) {
        assert!(broken.contains(rejection), "{rejection:?}");
    }
}

#[test]
fn connect_is_judged_where_it_is_allowed() {
    let judge = |stream: &[u8]| {
        let mut gate = Gate::new(Limits { allows_connect: true, ..Limits::default() });
        let verdict = gate.inspect(stream);
        match verdict {
            Verdict::Pass { len } => Ok((len, gate.is_switching())),
            Verdict::Reject { rejection, .. } => Err(rejection),
        }
    };
    let head = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
    assert_eq!(judge(&[&head[..], b"GET / whatever follows"].concat()), Ok((head.len(), true)));
    for target in ["a.example", "a.example:", "/", "http://a.example:443", "[2001:db8::1]"] {
        let stream = format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(judge(stream.as_bytes()), Err(Target), "{target}");
    }
    assert_eq!(judge(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\n"), Err(ConnectBody));
    assert_eq!(judge(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(ConnectBody));
    assert_eq!(judge(b"CONNECT a:1 HTTP/1.0\r\n\r\n"), Err(Connect));
}

#[test]
fn what_follows_a_head_that_asks_for_another_protocol_is_held_until_it_stays_http() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut gate = Gate::new(Limits::default());
    assert_eq!(gate.inspect(&[&upgrade[..], b"\0"].concat()), Verdict::Pass { len: upgrade.len() });
    assert!(gate.is_switching());
    assert_eq!(gate.inspect(b"\0\x01"), Verdict::Pass { len: 0 });
    gate.stays_http();
    assert_eq!(gate.inspect(b"\0\x01"), Verdict::Reject { after: 0, rejection: Method });
    // With a body there is no switching.
    let with_body = b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx";
    let mut gate = Gate::new(Limits::default());
    assert_eq!(gate.inspect(with_body), Verdict::Pass { len: with_body.len() });
    assert!(!gate.is_switching());
}

#[test]
fn endless_line_is_refused_at_the_limit_and_not_kept() {
    let mut gate = Gate::new(Limits::default());
    let bytes = vec![b'A'; 32 * 1024];
    assert_eq!(gate.inspect(&bytes[..bytes.len() - 1]), Verdict::Pass { len: 0 });
    assert_eq!(gate.inspect(&bytes), Verdict::Reject { after: 0, rejection: UriTooLong });
}

#[test]
fn statuses_are_those_of_the_rfc() {
    let status = |rejection: Rejection| rejection.status().as_u16();
    assert_eq!(status(BareLf), 400);
    assert_eq!(status(TwoFramings), 400);
    assert_eq!(status(ChunkSize), 400);
    assert_eq!(status(UriTooLong), 414);
    assert_eq!(status(HeadTooLarge), 431);
    assert_eq!(status(TooManyFields), 431);
    assert_eq!(status(TrailersTooLarge), 431);
    assert_eq!(status(TransferCodingUnknown), 501);
    assert_eq!(status(Connect), 501);
    assert_eq!(status(VersionNotSupported), 505);
}
