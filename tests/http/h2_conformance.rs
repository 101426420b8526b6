//! HTTP/2 as RFC 9113 has it, one row a rule: what a client sends, frame by frame, and what becomes of it.

use std::time::Duration;

use crate::baton::Baton;
use crate::h2_wire::*;
use crate::server::Server;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// GOAWAY with one of these codes, and the end.
    Connection(&'static [u32]),
    /// RST_STREAM of this stream with one of these codes; or the same for the connection, which every endpoint may make of
    /// an error of a stream (section 5.4.1).
    Stream(u32, &'static [u32]),
    /// A response with this status on this stream, and the connection goes on.
    Answer(u32, u16),
    /// Nothing: a PING that is sent behind it is answered.
    Alive,
}

use Outcome::{Alive, Answer, Connection, Stream};

const PROTOCOL: &[u32] = &[PROTOCOL_ERROR];
const SIZE: &[u32] = &[FRAME_SIZE_ERROR];
const CLOSED: &[u32] = &[STREAM_CLOSED];
const FLOW: &[u32] = &[FLOW_CONTROL_ERROR];

/// A rule: its section, what it is about, what the client sends behind the SETTINGS, and what follows.
type Row = (&'static str, &'static str, Vec<u8>, Outcome);

fn row(section: &'static str, about: &'static str, parts: &[Vec<u8>], outcome: Outcome) -> Row {
    (section, about, parts.concat(), outcome)
}

fn ping() -> Vec<u8> {
    frame(PING, 0, 0, b"conforms")
}

/// HEADERS of a POST whose body follows.
fn open(stream: u32) -> Vec<u8> {
    headers(stream, 0, POST)
}

fn framing() -> Vec<Row> {
    let big = vec![b'x'; 16 * 1024];
    let mut reserved = get(1);
    reserved[5] |= 0x80;
    let first_half = frame(HEADERS, END_STREAM, 1, &block(GET));
    vec![
        row("4.1", "unknown frame type is ignored", &[frame(0x16, 0xff, 0, b"what?")], Alive),
        row("4.1", "undefined flags are ignored", &[frame(PING, 0xfe, 0, &[0; 8])], Alive),
        row("4.1", "reserved bit is ignored", &[reserved], Answer(1, 200)),
        row("4.2", "DATA of 2^14 bytes", &[open(1), frame(DATA, END_STREAM, 1, &big)], Answer(1, 200)),
        row("4.2", "DATA beyond the limit", &[open(1), frame(DATA, 1, 1, &[&big[..], b"x"].concat())], Stream(1, SIZE)),
        row("4.2", "HEADERS beyond the limit", &[frame(HEADERS, 5, 1, &[&big[..], b"x"].concat())], Connection(SIZE)),
        row("4.3", "block that refers to nothing", &[frame(HEADERS, 5, 1, &[0xff, 0xff, 0x7f])], Connection(&[9, 1])),
        row(
            "4.3",
            "PRIORITY inside a block",
            &[first_half.clone(), frame(PRIORITY, 0, 1, &[0; 5])],
            Connection(PROTOCOL),
        ),
        row("4.3", "HEADERS of another stream inside a block", &[first_half.clone(), get(3)], Connection(PROTOCOL)),
        row("5.5", "unknown frame inside a block", &[first_half.clone(), frame(0x16, 0, 1, b"")], Connection(PROTOCOL)),
        row("6.1", "DATA on stream 0", &[frame(DATA, 0, 0, b"x")], Connection(PROTOCOL)),
        row("6.1", "DATA with padding", &[open(1), frame(DATA, 9, 1, b"\x03ok\0\0\0")], Answer(1, 200)),
        row(
            "6.1",
            "DATA with more padding than it is long",
            &[open(1), frame(DATA, 9, 1, b"\x06ok\0\0\0")],
            Connection(PROTOCOL),
        ),
        row("6.2", "HEADERS on stream 0", &[headers(0, END_STREAM, GET)], Connection(PROTOCOL)),
        row(
            "6.2",
            "HEADERS with padding and priority",
            &[frame(HEADERS, 0x2d, 1, &[&[2, 0, 0, 0, 0, 15][..], &block(GET), &[0, 0]].concat())],
            Answer(1, 200),
        ),
        row(
            "6.2",
            "HEADERS with too much padding",
            &[frame(HEADERS, 0x0d, 1, &[&[255][..], &block(GET)].concat())],
            Connection(PROTOCOL),
        ),
        row("6.3", "PRIORITY on stream 0", &[frame(PRIORITY, 0, 0, &[0; 5])], Connection(PROTOCOL)),
        row("6.3", "PRIORITY of a wrong length", &[open(1), frame(PRIORITY, 0, 1, &[0; 4])], Stream(1, &[6, 1])),
        row("6.3", "PRIORITY on an idle stream", &[frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 9])], Alive),
        row("6.4", "RST_STREAM on stream 0", &[reset(0, CANCEL)], Connection(PROTOCOL)),
        row("6.4", "RST_STREAM of an idle stream", &[reset(1, CANCEL)], Connection(PROTOCOL)),
        row("6.4", "RST_STREAM of a wrong length", &[open(1), frame(RST_STREAM, 0, 1, &[0; 3])], Connection(&[6, 1])),
        row("6.4", "RST_STREAM with an unknown code", &[open(1), reset(1, 0xdead)], Alive),
        row(
            "6.6",
            "PUSH_PROMISE from a client",
            &[get(1), frame(PUSH_PROMISE, 4, 1, &[&[0, 0, 0, 2][..], &block(GET)].concat())],
            Connection(PROTOCOL),
        ),
        row("6.7", "PING on a stream", &[frame(PING, 0, 1, &[0; 8])], Connection(PROTOCOL)),
        row("6.7", "PING of a wrong length", &[frame(PING, 0, 0, &[0; 6])], Connection(&[6, 1])),
        row("6.7", "PING with ACK that nobody asked for", &[frame(PING, ACK, 0, &[7; 8])], Alive),
        row("6.8", "GOAWAY on a stream", &[frame(GOAWAY, 0, 1, &[0; 8])], Connection(PROTOCOL)),
        row("6.9", "WINDOW_UPDATE of 0 for the connection", &[window_update(0, 0)], Connection(PROTOCOL)),
        row("6.9", "WINDOW_UPDATE of 0 for a stream", &[open(1), window_update(1, 0)], Stream(1, PROTOCOL)),
        row("6.9", "WINDOW_UPDATE of a wrong length", &[frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])], Connection(&[6, 1])),
        row("6.9", "WINDOW_UPDATE of an idle stream", &[window_update(1, 100)], Connection(PROTOCOL)),
        row("6.9.1", "window of the connection beyond 2^31-1", &[window_update(0, 0x7fff_ffff)], Connection(FLOW)),
        row("6.9.1", "window of a stream beyond 2^31-1", &[open(1), window_update(1, 0x7fff_ffff)], Stream(1, FLOW)),
        row("6.10", "CONTINUATION", &[split(&block(GET), 3)], Answer(1, 200)),
        row("6.10", "many CONTINUATION", &[split(&block(GET), 5)], Answer(1, 200)),
        row(
            "6.10",
            "CONTINUATION behind a whole block",
            &[get(1), frame(CONTINUATION, 4, 1, b"")],
            Connection(PROTOCOL),
        ),
        row("6.10", "CONTINUATION of an idle stream", &[frame(CONTINUATION, 4, 1, &block(GET))], Connection(PROTOCOL)),
        row(
            "6.10",
            "CONTINUATION on stream 0",
            &[first_half.clone(), frame(CONTINUATION, 4, 0, b"")],
            Connection(PROTOCOL),
        ),
        row(
            "6.10",
            "CONTINUATION of another stream",
            &[first_half.clone(), frame(CONTINUATION, 4, 3, b"")],
            Connection(PROTOCOL),
        ),
        row(
            "6.10",
            "DATA inside a block",
            &[frame(HEADERS, 0, 1, &block(POST)), frame(DATA, 1, 1, b"x")],
            Connection(PROTOCOL),
        ),
    ]
}

/// A GET whose block is in so many frames.
fn split(block: &[u8], count: usize) -> Vec<u8> {
    let parts: Vec<_> = block.chunks(block.len().div_ceil(count)).collect();
    let last = parts.len() - 1;
    let part = |(index, part): (usize, &&[u8])| {
        let kind = if index == 0 { HEADERS } else { CONTINUATION };
        let flags = if index == 0 { END_STREAM } else { 0 } | if index == last { END_HEADERS } else { 0 };
        frame(kind, flags, 1, part)
    };
    parts.iter().enumerate().flat_map(part).collect()
}

fn settings() -> Vec<Row> {
    vec![
        row("6.5", "SETTINGS with ACK and a payload", &[frame(SETTINGS, ACK, 0, &[0; 6])], Connection(&[6, 1])),
        row("6.5", "SETTINGS on a stream", &[frame(SETTINGS, 0, 1, &[])], Connection(PROTOCOL)),
        row("6.5", "SETTINGS of a wrong length", &[frame(SETTINGS, 0, 0, &[0; 5])], Connection(&[6, 1])),
        row("6.5.2", "ENABLE_PUSH of 2", &[settings_frame(&[(2, 2)])], Connection(PROTOCOL)),
        row("6.5.2", "INITIAL_WINDOW_SIZE beyond 2^31-1", &[settings_frame(&[(4, 0x8000_0000)])], Connection(&[3, 1])),
        row("6.5.2", "MAX_FRAME_SIZE below 2^14", &[settings_frame(&[(5, 16_383)])], Connection(PROTOCOL)),
        row("6.5.2", "MAX_FRAME_SIZE beyond 2^24-1", &[settings_frame(&[(5, 16_777_216)])], Connection(PROTOCOL)),
        row("6.5.2", "unknown setting", &[settings_frame(&[(0xff, 1)])], Alive),
        row("6.5.2", "ENABLE_CONNECT_PROTOCOL of 2", &[settings_frame(&[(8, 2)])], Connection(PROTOCOL)),
        row(
            "6.5.3",
            "one setting twice: the last one counts",
            &[settings_frame(&[(4, 0), (4, 65_535)]), get(1)],
            Answer(1, 200),
        ),
        row(
            "6.9.2",
            "window of 1 that grows",
            &[settings_frame(&[(4, 1)]), get(1), settings_frame(&[(4, 100)])],
            Answer(1, 200),
        ),
        row(
            "6.9.2",
            "SETTINGS that make a window overflow",
            &[open(1), window_update(1, 0x7fff_0000), settings_frame(&[(4, 0x7fff_ffff)])],
            Connection(FLOW),
        ),
    ]
}

fn states() -> Vec<Row> {
    let data = |stream| frame(DATA, END_STREAM, stream, b"x");
    let self_dependent = frame(HEADERS, 0x25, 1, &[&[0, 0, 0, 1, 15][..], &block(GET)].concat());
    vec![
        row("5.1", "DATA on an idle stream", &[data(1)], Connection(&[1, 5])),
        // The RFC has STREAM_CLOSED; h2 ends the connection with the more general code.
        row("5.1", "DATA behind the end", &[get(1), data(1)], Stream(1, &[5, 1])),
        row("5.1", "HEADERS behind the end", &[get(1), get(1)], Stream(1, &[5, 1])),
        row("5.1", "DATA behind a reset", &[open(1), reset(1, CANCEL), data(1)], Stream(1, CLOSED)),
        row(
            "5.1",
            "HEADERS behind a reset",
            &[open(1), reset(1, CANCEL), headers(1, 1, &[("x", "y")])],
            Stream(1, &[5, 1]),
        ),
        row("5.1", "WINDOW_UPDATE behind the end", &[get(1), window_update(1, 5)], Answer(1, 200)),
        row(
            "5.1",
            "PRIORITY behind a reset",
            &[open(1), reset(1, CANCEL), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])],
            Alive,
        ),
        row("5.1.1", "stream with an even number", &[get(2)], Connection(PROTOCOL)),
        row("5.1.1", "stream with a number below the last one", &[get(5), get(3)], Connection(PROTOCOL)),
        row("5.1.1", "numbers that are left out", &[get(7)], Answer(7, 200)),
        row("5.3.1", "HEADERS that depend on themselves", &[self_dependent], Stream(1, PROTOCOL)),
        row(
            "5.3.1",
            "PRIORITY that depends on itself",
            &[frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 1])],
            Stream(1, PROTOCOL),
        ),
        row(
            "8.1",
            "trailers that do not end the stream",
            &[open(1), headers(1, 0, &[("x", "y")])],
            Stream(1, PROTOCOL),
        ),
        row("8.1", "trailers", &[open(1), frame(DATA, 0, 1, b"x"), headers(1, 1, &[("x-sum", "y")])], Answer(1, 200)),
    ]
}

/// Requests that are malformed (section 8.1.1): none may reach a server.
fn malformed() -> Vec<Row> {
    let request = |about, section, fields: &[(&str, &str)]| {
        row(section, about, &[frame(HEADERS, 5, 1, &block(fields))], Stream(1, &[1, 9]))
    };
    let more = |about, section, more: &[(&'static str, &'static str)]| request(about, section, &with(GET, more));
    let without = |about, name| {
        let fields: Vec<_> = GET.iter().copied().filter(|field| field.0 != name).collect();
        request(about, "8.3.1", &fields)
    };
    let length = |about, length, parts: &[Vec<u8>]| {
        let head = headers(1, 0, &with(POST, &[("content-length", length)]));
        row("8.1.1", about, &[&[head][..], parts].concat(), Stream(1, PROTOCOL))
    };
    let data = |flags, data: &[u8]| frame(DATA, flags, 1, data);
    vec![
        more("name in upper case", "8.2.1", &[("X-Upper", "y")]),
        more("name with a space", "8.2.1", &[("x y", "z")]),
        more("name with a colon", "8.2.1", &[("x:y", "z")]),
        more("name with a control byte", "8.2.1", &[("x\x01", "z")]),
        more("name with a line end", "8.2.1", &[("x\r\ny", "z")]),
        more("name with an umlaut", "8.2.1", &[("ü", "z")]),
        more("empty name", "8.2.1", &[("", "z")]),
        more("value with CR", "8.2.1", &[("x", "a\rb")]),
        more("value with LF", "8.2.1", &[("x", "a\nb")]),
        more("value with CRLF and a field", "8.2.1", &[("x", "a\r\nhost: b")]),
        more("value with NUL", "8.2.1", &[("x", "a\0b")]),
        more("value that begins with a space", "8.2.1", &[("x", " a")]),
        more("value that ends with a tab", "8.2.1", &[("x", "a\t")]),
        more("Connection", "8.2.2", &[("connection", "keep-alive")]),
        more("Keep-Alive", "8.2.2", &[("keep-alive", "5")]),
        more("Proxy-Connection", "8.2.2", &[("proxy-connection", "keep-alive")]),
        more("Transfer-Encoding", "8.2.2", &[("transfer-encoding", "chunked")]),
        more("Upgrade", "8.2.2", &[("upgrade", "websocket")]),
        more("TE other than trailers", "8.2.2", &[("te", "gzip")]),
        more("TE with trailers and more", "8.2.2", &[("te", "trailers, gzip")]),
        more("unknown pseudo-header field", "8.3", &[(":test", "x")]),
        more("pseudo-header field of responses", "8.3", &[(":status", "200")]),
        request("pseudo-header field behind another", "8.3", &[&GET[..3], &[("x", "y")], &GET[3..]].concat()),
        more("second :method", "8.3", &[(":method", "GET")]),
        request("two :method", "8.3.1", &[&[(":method", "GET")], GET].concat()),
        request("two :scheme", "8.3.1", &[&[(":scheme", "http")], GET].concat()),
        request("two :path", "8.3.1", &[&[(":path", "/x")], GET].concat()),
        request("two :authority", "8.3.1", &[&[(":authority", "b")], GET].concat()),
        without("no :method", ":method"),
        without("no :scheme", ":scheme"),
        without("no :path", ":path"),
        request("empty :path", "8.3.1", &[&GET[..2], &[(":path", ""), GET[3]]].concat()),
        request("path that does not begin with a slash", "8.3.1", &[GET[0], GET[1], (":path", "x"), GET[3]]),
        request("absolute target as a path", "8.3.1", &[GET[0], GET[1], (":path", "http://b.example/"), GET[3]]),
        request("no :path and no :authority", "8.3.1", &[GET[0], GET[1], ("host", "a")]),
        request("empty :method", "8.3.1", &[&[(":method", "")], &GET[1..]].concat()),
        request(":method with a space", "8.3.1", &[&[(":method", "GET /")], &GET[1..]].concat()),
        request(
            ":method with a line end",
            "8.3.1",
            &[&[(":method", "GET / HTTP/1.1\r\nx: y\r\n\r\n")], &GET[1..]].concat(),
        ),
        request(":path with a space", "8.3.1", &[&GET[..2], &[(":path", "/ HTTP/1.1"), GET[3]]].concat()),
        request(":path with a line end", "8.3.1", &[&GET[..2], &[(":path", "/\r\nx: y"), GET[3]]].concat()),
        request(":authority with a space", "8.3.1", &[&GET[..3], &[(":authority", "a b")]].concat()),
        request(":authority with a line end", "8.3.1", &[&GET[..3], &[(":authority", "a\r\nx: y")]].concat()),
        request(":protocol without CONNECT", "8.5", &with(GET, &[(":protocol", "websocket")])),
        request(":scheme and :path in CONNECT", "8.5", &[&[(":method", "CONNECT")], &GET[1..]].concat()),
        more("Content-Length of a request that has ended", "8.1.1", &[("content-length", "1")]),
        length("Content-Length above DATA", "2", &[data(1, b"x")]),
        length("Content-Length below DATA", "1", &[data(1, b"xy")]),
        length("Content-Length below two DATA", "2", &[data(0, b"xy"), data(1, b"z")]),
        length("Content-Length above DATA with trailers", "2", &[data(0, b"x"), headers(1, 1, &[("x", "y")])]),
        length("Content-Length that is no number", "x", &[data(1, b"x")]),
        length("Content-Length with a sign", "+1", &[data(1, b"x")]),
        length("empty Content-Length", "", &[data(1, b"")]),
        length("Content-Length as a list", "1, 1", &[data(1, b"x")]),
        length("Content-Length beyond 64 bits", "18446744073709551617", &[data(1, b"x")]),
        row(
            "8.1.1",
            "two Content-Length",
            &[headers(1, 0, &with(POST, &[("content-length", "1"), ("content-length", "1")])), data(1, b"x")],
            Stream(1, PROTOCOL),
        ),
        row(
            "8.1.1",
            "two Content-Length that differ",
            &[headers(1, 0, &with(POST, &[("content-length", "1"), ("content-length", "2")])), data(1, b"x")],
            Stream(1, PROTOCOL),
        ),
    ]
}

/// Requests that are refused as on HTTP/1: none may reach a server.
fn refused() -> Vec<Row> {
    let request = |about, section, fields: &[(&str, &str)], status| {
        row(section, about, &[frame(HEADERS, 5, 1, &block(fields))], Answer(1, status))
    };
    let path = |about, path, status| request(about, "8.3.1", &[GET[0], GET[1], (":path", path), GET[3]], status);
    let authority = |about, host| request(about, "8.3.1", &[GET[0], GET[1], GET[2], (":authority", host)], 400);
    vec![
        request("Host that is not :authority", "8.3.1", &with(GET, &[("host", "b.example")]), 400),
        request("two Host", "8.3.1", &with(GET, &[("host", "a.example"), ("host", "a.example")]), 400),
        request("neither Host nor :authority", "8.3.1", &GET[..3], 400),
        authority(":authority with user information", "user@a.example"),
        authority(":authority with a port that is none", "a.example:http"),
        authority(":authority with a port beyond 65535", "a.example:65536"),
        path("* of another method than OPTIONS", "*", 400),
        path("path with a backslash", "/\\b.example", 400),
        request("scheme that is not ours", "8.3.1", &[GET[0], (":scheme", "ftp"), GET[2], GET[3]], 400),
        request("CONNECT", "8.5", &[(":method", "CONNECT"), (":authority", "a.example:443")], 501),
    ]
}

/// Requests that are good.
fn good() -> Vec<Row> {
    let request = |about, section, fields: &[(&str, &str)]| {
        row(section, about, &[frame(HEADERS, 5, 1, &block(fields))], Answer(1, 200))
    };
    vec![
        request("TE with trailers", "8.2.2", &with(GET, &[("te", "trailers")])),
        request("Host that is :authority", "8.3.1", &with(GET, &[("host", "A.example")])),
        request("Host alone", "8.3.1", &[GET[0], GET[1], GET[2], ("host", "a.example")]),
        request("* of OPTIONS", "8.3.1", &[(":method", "OPTIONS"), GET[1], (":path", "*"), GET[3]]),
        request("pseudo-header fields in another order", "8.3", &[GET[3], GET[2], GET[1], GET[0]]),
        request("value with bytes beyond ASCII", "8.2.1", &with(GET, &[("x", "ü")])),
        request("empty value", "8.2.1", &with(GET, &[("x", "")])),
        request("Content-Length of 0", "8.1.1", &with(GET, &[("content-length", "0")])),
        row(
            "8.1.1",
            "Content-Length that is right",
            &[headers(1, 0, &with(POST, &[("content-length", "2")])), frame(DATA, 0, 1, b"x"), frame(DATA, 1, 1, b"y")],
            Answer(1, 200),
        ),
    ]
}

/// RFC 7541.
fn hpack() -> Vec<Row> {
    let block = |bytes: &[u8]| vec![frame(HEADERS, 5, 1, &[&block(GET)[..], bytes].concat())];
    vec![
        row("7541 2.3.3", "index beyond both tables", &block(&[0xc6]), Connection(&[9, 1])),
        row(
            "7541 4.2",
            "size of the table beyond the limit",
            &[frame(HEADERS, 5, 1, &[&[0x3f, 0xe2, 0x7f][..], &self::block(GET)].concat())],
            Connection(&[9, 1]),
        ),
        row("7541 4.2", "size of the table behind a field", &block(&[0x20]), Connection(&[9, 1])),
        row("7541 5.2", "padding of more than 7 bits", &block(&[0, 1, b'x', 0x82, 0x1f, 0xff]), Connection(&[9, 1])),
        row("7541 5.2", "padding that is not of ones", &block(&[0, 1, b'x', 0x81, 0x00]), Connection(&[9, 1])),
        row(
            "7541 5.2",
            "the end of a string inside it",
            &block(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
            Connection(&[9, 1]),
        ),
        row("7541 6.1", "index 0", &block(&[0x80]), Connection(&[9, 1])),
        row(
            "7541 5.1",
            "integer that does not end",
            &block(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Connection(&[9, 1]),
        ),
        row("7541 5.2", "string that is longer than the block", &block(&[0, 0x7e, b'x']), Connection(&[9, 1])),
    ]
}

fn table() -> Vec<Row> {
    [framing(), settings(), states(), malformed(), refused(), good(), hpack()].concat()
}

/// What a connection has come to, in words, where that is not what is expected.
fn judge(baton: &Baton, sent: &[u8], outcome: Outcome) -> Result<(), String> {
    let mut client = H2::connect(baton.address());
    // The program may close before all is sent.
    client.try_send(sent);
    if !matches!(outcome, Connection(_)) {
        client.try_send(&ping());
    }
    let mut events = Vec::new();
    let has_ponged = |events: &[Event]| events.contains(&Event::Pong);
    loop {
        let Some(event) = client.event(Duration::from_secs(5)) else {
            return Err(format!("nothing more after {events:?}"));
        };
        events.push(event.clone());
        match (outcome, &event) {
            (Connection(codes) | Stream(_, codes), Event::Goaway(code)) if codes.contains(code) => {
                let rest = client.rest();
                let is_quiet = !rest.iter().any(|event| matches!(event, Event::Head(..)));
                return if is_quiet { Ok(()) } else { Err(format!("answered after GOAWAY: {rest:?}")) };
            }
            (Stream(wanted, codes), Event::Reset(stream, code)) if stream == &wanted && codes.contains(code) => {
                return Ok(());
            }
            (Alive, Event::Pong) => return Ok(()),
            (Answer(wanted, expected), Event::Head(stream, Some(status), _)) if *stream == wanted => {
                if *status != expected {
                    return Err(format!("{events:?}"));
                }
                if !has_ponged(&events) {
                    client.wait_for("the connection lives", |event| *event == Event::Pong);
                }
                return Ok(());
            }
            (_, Event::Goaway(_) | Event::Reset(..) | Event::Closed) => return Err(format!("{events:?}")),
            _ => {}
        }
    }
}

#[test]
fn every_rule_of_rfc_9113_is_kept() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let table = table();
    assert!(table.len() >= 140, "{}", table.len());
    let mut wrong = Vec::new();
    for (section, about, sent, outcome) in &table {
        if let Err(came) = judge(&baton, sent, *outcome) {
            wrong.push(format!("{section} {about}: {outcome:?} expected, came {came}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn malformed_and_refused_requests_of_http2_reach_no_server() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let has_body = |sent: &[u8]| sent[4] & END_STREAM == 0;
    let whole: Vec<_> = [malformed(), refused(), hpack()].concat();
    for (section, about, sent, outcome) in whole.iter().filter(|(.., sent, _)| !has_body(sent)) {
        let judged = judge(&baton, sent, *outcome);
        assert!(judged.is_ok(), "{section} {about}: {judged:?}");
    }
    assert!(server.connections().is_empty(), "{:?}", server.connections());
    // Of those with a body the head may have gone on; no server sees one whole.
    for (section, about, sent, outcome) in malformed().iter().filter(|(.., sent, _)| has_body(sent)) {
        let judged = judge(&baton, sent, *outcome);
        assert!(judged.is_ok(), "{section} {about}: {judged:?}");
    }
    assert!(server.requests().is_empty(), "{:?}", server.requests());
}

#[test]
fn anything_but_the_preface_is_http_1() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    for opening in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n\r\n\r\n\r\n\r\n",
        "PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut client = baton.client();
        client.send(opening).expect("the connection is open");
        let response = client.response();
        assert!(matches!(response.status(), 400 | 505), "{opening:?}: {response:?}");
    }
}

#[test]
fn preface_may_come_byte_by_byte() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = H2::raw(baton.address());
    [PREFACE, &settings_frame(&[]), &get(1)].concat().iter().for_each(|byte| client.send(&[*byte]));
    assert_eq!(client.response(1), (200, "ok".to_owned()));
}

#[test]
fn first_frame_has_to_be_settings() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = H2::raw(baton.address());
    client.send(&[PREFACE, &get(1)].concat());
    let events = client.rest();
    assert!(events.contains(&Event::Goaway(PROTOCOL_ERROR)), "{events:?}");
    assert!(server.connections().is_empty(), "{:?}", server.connections());
}

#[test]
fn preface_is_refused_where_http2_is_off() {
    let server = Server::saying("ok");
    let settings = crate::baton::Settings { listener: "http2 = false".to_owned(), ..Default::default() };
    let baton = Baton::with(&[&server], &settings);
    let mut client = baton.client();
    client.send(PREFACE).expect("the connection is open");
    assert_eq!(client.response().status(), 505);
    client.expect_closed();
}

#[test]
fn settings_say_what_a_client_may_do() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = H2::raw(baton.address());
    client.send(&[PREFACE, &settings_frame(&[])].concat());
    let events = client.wait_for("SETTINGS", |event| matches!(event, Event::Settings(_)));
    let Some(Event::Settings(settings)) = events.last() else { panic!("{events:?}") };
    for (key, value) in [(3, 100), (4, 128 * 1024), (6, 32 * 1024 + 105 * 32)] {
        assert!(settings.contains(&(key, value)), "{key}: {settings:?}");
    }
}

#[test]
fn stream_beyond_the_limit_is_refused_and_may_be_tried_again() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_signal()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    });
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    client.send(&(0..101).flat_map(|index| get(2 * index + 1)).collect::<Vec<_>>());
    client.wait_for("the last one is refused", |event| *event == Event::Reset(201, REFUSED_STREAM));
    server.wait_until("the others are served", |record| record.requests.len() == 100);
    (0..101).for_each(|_| server.signal());
    for index in 0..3 {
        client.wait_for("one is answered", |event| matches!(event, Event::Data(_, _, true)));
        client.send(&get(203 + 2 * index));
    }
}
