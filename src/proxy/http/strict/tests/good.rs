//! Streams that must pass whole, with the number of heads in them.

use super::*;

const STREAMS: &[(&[u8], u64)] = &[
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"GET / HTTP/1.0\r\n\r\n", 1),
    (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: \t \r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nhOST:\ta.example:8080 \r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: a:65535\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: [::ffff:192.0.2.1]:443\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: under_score-1.example.\r\n\r\n", 1),
    (b"GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"GET HTTP://A:80?c HTTP/1.1\r\nHost: a:80\r\n\r\n", 1),
    (b"GET https://a HTTP/1.1\r\nHost: A\r\n\r\n", 1),
    (b"GET http://[::1]:80/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 1),
    (b"GET http://a/ HTTP/1.0\r\n\r\n", 1),
    (b"\r\nGET http://a/ HTTP/1.1\r\nX: 1\r\nHost: a\r\n\r\n", 1),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"OPTIONS /a HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"M!#$%&'*+-.^_`|~09 / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"GET //a///b/../c HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"GET /%2e%2E/%zz;p=1,2!$&'()*+=:@~-._[]{}|^ HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"GET /?a=/b?c&d[]=`{|}^\\%zz HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \r\nZ:a\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\t1234567890 caf\xc3\xa9 \xff\x80\xa0 \x20~ :;,\"()\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: 1\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\nContent-Lengths: 5, 5\r\nContent-Lengthx: x\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 1),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 1),
    (b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length:  0005\t\r\n\r\nhello", 1),
    (b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", 1),
    (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n\n\n", 1),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1),
    (b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:\t CHUNKed \r\n\r\n5\r\nhello\r\n0\r\n\r\n", 1),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000005\r\nhello\r\n000\r\n\r\n", 1),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a;b=c;d=\"e f\";\tg\r\n\n\r\n0;z\r\n\r\n", 1),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: 1\r\nChecksum:  \xffabc\t\r\n\r\n", 1),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n2\r\n0\n\r\n0\r\n\r\n", 1),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n", 3),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", 2),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 29\r\n\r\nGET / HTTP/1.1\nHost: evil\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nbGET / HTTP/1.0\r\n\r\n", 3),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
];

/// The streams alone, to start mutations from.
pub(super) fn streams() -> impl Iterator<Item = &'static [u8]> + Clone {
    STREAMS.iter().map(|(stream, _)| *stream).chain([CURL, BROWSER])
}

#[test]
fn good_streams_pass_whole_however_they_are_cut() {
    assert!(STREAMS.len() >= 40);
    for (stream, heads_count) in STREAMS {
        let outcome = feed_in_every_way(Limits::default(), stream);
        let expected = Outcome { passed: stream.len(), rejection: None, heads_count: *heads_count, phase: Phase::Idle };
        assert_eq!(outcome, expected, "{}", stream.escape_ascii());
    }
}

#[test]
fn largest_content_length_and_chunk_pass() {
    let largest = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\nabc";
    let outcome = feed_in_every_way(Limits::default(), largest);
    assert_eq!((outcome.passed, outcome.rejection, outcome.phase), (largest.len(), None, Phase::Body));
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nabc";
    let outcome = feed_in_every_way(Limits::default(), chunked);
    assert_eq!((outcome.passed, outcome.rejection, outcome.phase), (chunked.len(), None, Phase::Body));
}

#[test]
fn every_byte_is_judged_in_every_place_of_a_word() {
    // The fast paths take eight bytes at a time: a byte must mean the same wherever it falls.
    for byte in 0..=u8::MAX {
        for pad in 0..17 {
            let fill = vec![b'a'; pad];
            let name = [b"GET / HTTP/1.1\r\nHost: a\r\nX", &fill[..], &[byte], &fill, b": v\r\n\r\n"].concat();
            let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(&byte);
            assert_eq!(feed(Limits::default(), [&name[..]]).rejection.is_none(), is_token, "{}", name.escape_ascii());
            let value = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &fill[..], &[byte], &fill, b"\r\n\r\n"].concat();
            let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            assert_eq!(feed(Limits::default(), [&value[..]]).rejection.is_none(), is_text, "{}", value.escape_ascii());
        }
    }
}
