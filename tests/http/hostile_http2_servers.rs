//! Servers of HTTP/2 that break the rules: none of it reaches a client as if it were good, and the next client gets its
//! own answer.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::baton::{Baton, Settings};
use crate::h2_wire::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE, SETTINGS,
};
use crate::h2_wire::{frame, headers, reset, settings_frame, window_update};
use crate::server::{Exchange, Server};

/// What a client may get.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// A 502 of our own, or a response that is broken off: never an orderly end.
    Failed,
    /// This response.
    Passed(u16, &'static str),
}

use Outcome::{Failed, Passed};

/// What the server sends on the stream of a request, the connection's end included.
type Answer = fn(u32) -> Vec<u8>;

const STATUS: (&str, &str) = (":status", "200");

fn data(stream: u32, flags: u8, text: &str) -> Vec<u8> {
    frame(DATA, flags, stream, text.as_bytes())
}

fn with_body(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    [headers(stream, 0, fields), data(stream, END_STREAM, "ok")].concat()
}

fn raw_field(stream: u32, name: &[u8], value: &[u8]) -> Vec<u8> {
    let block = h2_wire::block(&[(&b":status"[..], &b"200"[..]), (name, value)]);
    [frame(HEADERS, END_HEADERS, stream, &block), data(stream, END_STREAM, "ok")].concat()
}

const CASES: &[(&str, Answer, Outcome)] = &[
    ("a plain response", |s| with_body(s, &[STATUS]), Passed(200, "ok")),
    ("a length that fits", |s| with_body(s, &[STATUS, ("content-length", "2")]), Passed(200, "ok")),
    ("an unknown frame", |s| [frame(0x77, 0, s, b"x"), with_body(s, &[STATUS])].concat(), Passed(200, "ok")),
    ("an answer of HTTP/1.1", |_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(), Failed),
    ("no status", |s| with_body(s, &[("a", "b")]), Failed),
    ("a status of letters", |s| with_body(s, &[(":status", "abc")]), Failed),
    ("a status of two digits", |s| with_body(s, &[(":status", "20")]), Failed),
    ("an empty status", |s| with_body(s, &[(":status", "")]), Failed),
    ("two statuses", |s| with_body(s, &[STATUS, STATUS]), Failed),
    ("a status behind a field", |s| with_body(s, &[("a", "b"), STATUS]), Failed),
    ("an unknown pseudo-field", |s| with_body(s, &[STATUS, (":foo", "b")]), Failed),
    // h2 drops it, here and in trailers: nothing of it is passed on.
    ("a pseudo-field of requests", |s| with_body(s, &[STATUS, (":path", "/")]), Passed(200, "ok")),
    ("a name in upper case", |s| with_body(s, &[STATUS, ("X-A", "b")]), Failed),
    ("an empty name", |s| with_body(s, &[STATUS, ("", "b")]), Failed),
    ("a name with a space", |s| with_body(s, &[STATUS, ("x a", "b")]), Failed),
    ("a name with a colon", |s| with_body(s, &[STATUS, ("x:a", "b")]), Failed),
    ("connection", |s| with_body(s, &[STATUS, ("connection", "close")]), Failed),
    ("transfer-encoding", |s| with_body(s, &[STATUS, ("transfer-encoding", "chunked")]), Failed),
    ("keep-alive", |s| with_body(s, &[STATUS, ("keep-alive", "1")]), Failed),
    ("upgrade", |s| with_body(s, &[STATUS, ("upgrade", "h2c")]), Failed),
    ("CR LF in a value", |s| raw_field(s, b"x-a", b"b\r\nset-cookie: evil"), Failed),
    ("LF in a value", |s| raw_field(s, b"x-a", b"b\nc"), Failed),
    ("CR in a value", |s| raw_field(s, b"x-a", b"b\rc"), Failed),
    ("NUL in a value", |s| raw_field(s, b"x-a", b"b\0c"), Failed),
    ("CR LF in a name", |s| raw_field(s, b"x\r\na", b"b"), Failed),
    ("more than the length", |s| with_body(s, &[STATUS, ("content-length", "1")]), Failed),
    ("less than the length", |s| with_body(s, &[STATUS, ("content-length", "3")]), Failed),
    ("a length of letters", |s| with_body(s, &[STATUS, ("content-length", "two")]), Failed),
    ("two lengths", |s| with_body(s, &[STATUS, ("content-length", "2"), ("content-length", "3")]), Failed),
    ("a list of lengths", |s| with_body(s, &[STATUS, ("content-length", "2, 2")]), Failed),
    ("a body without a head", |s| data(s, END_STREAM, "ok"), Failed),
    ("a body of stream 0", |s| [data(0, END_STREAM, "ok"), with_body(s, &[STATUS])].concat(), Failed),
    ("an answer to nobody", |s| [with_body(s + 2, &[STATUS]), reset(s, 2)].concat(), Failed),
    ("a stream of the server's", |s| [with_body(2, &[STATUS]), reset(s, 2)].concat(), Failed),
    (
        "a push",
        |s| [frame(PUSH_PROMISE, END_HEADERS, s, &[0, 0, 0, 2, 0x82]), with_body(s, &[STATUS])].concat(),
        Failed,
    ),
    (
        "a continuation of nothing",
        |s| [frame(CONTINUATION, END_HEADERS, s, b""), with_body(s, &[STATUS])].concat(),
        Failed,
    ),
    (
        "a frame within a head",
        |s| [frame(HEADERS, 0, s, &[0x88]), data(s, 0, "x"), with_body(s, &[STATUS])].concat(),
        Failed,
    ),
    (
        "a head without end",
        |s| [frame(HEADERS, 0, s, &[0x88]), frame(CONTINUATION, 0, s, b"").repeat(20_000)].concat(),
        Failed,
    ),
    (
        "a head of 200 KiB",
        |s| {
            let (name, value) = ("x-a", "v".repeat(14 << 10));
            let piece = h2_wire::block(&[(name, value)]);
            let rest = frame(CONTINUATION, 0, s, &piece).repeat(14);
            [frame(HEADERS, 0, s, &[0x88]), rest, frame(CONTINUATION, END_HEADERS, s, b""), data(s, END_STREAM, "ok")]
                .concat()
        },
        Failed,
    ),
    ("an index of no field", |s| frame(HEADERS, END_HEADERS, s, &[0xff, 0xff, 0x7f]), Failed),
    ("an integer that overflows", |s| frame(HEADERS, END_HEADERS, s, &[0xff; 16]), Failed),
    (
        "a frame above the agreed size",
        |s| [headers(s, 0, &[STATUS]), frame(DATA, 0, s, &[0; 17 << 10])].concat(),
        Failed,
    ),
    ("padding beyond the frame", |s| [headers(s, 0, &[STATUS]), frame(DATA, 8, s, &[9, 1])].concat(), Failed),
    ("a window update of nothing", |s| [window_update(s, 0), headers(s, 0, &[STATUS])].concat(), Failed),
    ("a window that overflows", |s| [window_update(0, 0x7fff_ffff), headers(s, 0, &[STATUS])].concat(), Failed),
    (
        "an initial window that is none",
        |s| [settings_frame(&[(4, 1 << 31)]), headers(s, 0, &[STATUS])].concat(),
        Failed,
    ),
    ("a frame size that is none", |s| [settings_frame(&[(5, 1)]), headers(s, 0, &[STATUS])].concat(), Failed),
    ("settings of a stream", |s| [frame(SETTINGS, 0, s, b""), headers(s, 0, &[STATUS])].concat(), Failed),
    ("settings of an odd length", |s| [frame(SETTINGS, 0, 0, b"x"), headers(s, 0, &[STATUS])].concat(), Failed),
    (
        "an acknowledgement of nothing",
        |s| [frame(PING, ACK, 0, &[7; 8]), with_body(s, &[STATUS])].concat(),
        Passed(200, "ok"),
    ),
    ("a ping of an odd length", |s| [frame(PING, 0, 0, b"x"), headers(s, 0, &[STATUS])].concat(), Failed),
    ("a reset", |s| reset(s, 1), Failed),
    ("a reset within the body", |s| [headers(s, 0, &[STATUS]), data(s, 0, "o"), reset(s, 2)].concat(), Failed),
    ("a reset of stream 0", |_| reset(0, 2), Failed),
    (
        "a farewell with an error",
        |s| [headers(s, 0, &[STATUS]), frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1])].concat(),
        Failed,
    ),
    ("interim responses without end", |s| headers(s, 0, &[(":status", "103")]).repeat(1000), Failed),
    ("a switch of protocols", |s| [headers(s, 0, &[(":status", "101")]), with_body(s, &[STATUS])].concat(), Failed),
    ("an interim response that is the last", |s| headers(s, END_STREAM, &[(":status", "103")]), Failed),
    (
        "an interim response",
        |s| [headers(s, 0, &[(":status", "103")]), with_body(s, &[STATUS])].concat(),
        Passed(200, "ok"),
    ),
    (
        "trailers that do not end",
        |s| [headers(s, 0, &[STATUS]), data(s, 0, "ok"), headers(s, 0, &[("a", "b")])].concat(),
        Failed,
    ),
    (
        "a status in trailers",
        |s| [headers(s, 0, &[STATUS]), data(s, 0, "ok"), headers(s, END_STREAM, &[STATUS])].concat(),
        Passed(200, "ok"),
    ),
    ("a second response", |s| [with_body(s, &[STATUS]), with_body(s, &[STATUS])].concat(), Passed(200, "ok")),
    ("a body of 204", |s| with_body(s, &[(":status", "204")]), Passed(204, "")),
];

/// Answers one request as the case says that is at hand, and every other one well.
fn serve(at_hand: &Mutex<Option<usize>>, exchange: &mut Exchange) -> io::Result<()> {
    exchange.exactly(24)?;
    exchange.send(settings_frame(&[]))?;
    loop {
        let head = exchange.exactly(9)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        exchange.exactly(len as usize)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4] & ACK) {
            (SETTINGS, 0) => exchange.send(frame(SETTINGS, ACK, 0, b""))?,
            (HEADERS, _) => {
                let case = at_hand.lock().unwrap().take();
                match case {
                    Some(case) => {
                        exchange.send(CASES[case].1(stream))?;
                        if CASES[case].2 == Failed {
                            exchange.finish();
                        }
                    }
                    None => {
                        exchange.send([headers(stream, 0, &[STATUS]), data(stream, END_STREAM, "next")].concat())?
                    }
                }
            }
            _ => {}
        }
    }
}

fn ask(baton: &Baton) -> Result<(u16, String), String> {
    let mut client = baton.client();
    client.set_patience(Duration::from_secs(5));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut head = client.head().map_err(|error| format!("no head: {error}"))?;
    while (100..200).contains(&head.status()) {
        head = client.head().map_err(|error| format!("no head: {error}"))?;
    }
    if head.status() == 204 {
        return Ok((204, String::new()));
    }
    let body = match head.value("content-length") {
        Some(len) => client.exactly(len.parse().unwrap()),
        None => client.chunked().map(|(body, _)| body),
    };
    match body {
        Ok(body) => Ok((head.status(), String::from_utf8_lossy(&body).into_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Ok((0, "stuck".to_owned()))
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_breaks_the_rules_of_http2_reaches_nobody() {
    assert!(CASES.len() >= 60, "{}", CASES.len());
    let at_hand: Arc<Mutex<Option<usize>>> = Arc::default();
    let shared = Arc::clone(&at_hand);
    let server = Server::start(move |exchange| serve(&shared, exchange));
    let pool = "protocol = \"h2c\"\nresponse_timeout = \"3s\"".to_owned();
    let baton = Baton::with(&[&server], &Settings { pool, ..Settings::default() });
    let mut wrong = Vec::new();
    for (number, (name, _, outcome)) in CASES.iter().enumerate() {
        *at_hand.lock().unwrap() = Some(number);
        let got = ask(&baton);
        let is_as_expected = match outcome {
            Failed => got.as_ref().map_or(true, |(status, _)| *status == 502),
            Passed(status, text) => got.as_ref().is_ok_and(|got| *got == (*status, (*text).to_owned())),
        };
        if !is_as_expected {
            wrong.push(format!("{name}: expected {outcome:?}, got {got:?}"));
        }
        assert_eq!(*at_hand.lock().unwrap(), None, "{name}: the server was not asked");
        // A connection that ends just now may take one request with it; none gets what is another's.
        let next = ask(&baton);
        if !matches!(&next, Ok((200, text)) if text == "next") {
            wrong.push(format!("{name}: the next client got {next:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}
