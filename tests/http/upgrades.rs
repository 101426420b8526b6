//! Connections that change to another protocol, interim responses, and bodies that come in pieces.

use std::time::{Duration, Instant};

use crate::baton::{Baton, Settings};
use crate::h2_wire::*;
use crate::server::Server;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nX-Kept: 1\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";

fn listener(keys: &str) -> Settings {
    Settings { listener: keys.to_owned(), ..Settings::default() }
}

/// A server that answers the first request with this and then sends back what it gets, in parentheses.
fn echo_behind(head: &'static str) -> Server {
    Server::start(move |exchange| {
        exchange.request()?;
        exchange.send(head)?;
        loop {
            let bytes = exchange.some(1024)?;
            if bytes.is_empty() {
                return exchange.send("over");
            }
            exchange.send([b"(", &bytes[..], b")"].concat())?;
        }
    })
}

#[test]
fn upgrade_is_asked_for_and_bytes_pass_in_both_directions() {
    let server =
        echo_behind("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\nfirst");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send(UPGRADE).expect("the connection is open");
    let head = client.head().expect("a head");
    assert_eq!(head.start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!((head.value("connection"), head.value("upgrade")), (Some("upgrade"), Some("WebSocket")));
    // What came with the head, and bytes that are no HTTP.
    assert_eq!(client.exactly(5).expect("the first bytes"), b"first");
    for bytes in [&b"\x81\x05hello"[..], b"\0\r\n\r\n", b"GET / HTTP/1.1\r\nbad\r\n\r\n"] {
        client.send(bytes).expect("the connection is open");
        assert_eq!(client.exactly(bytes.len() + 2).expect("an echo"), [b"(", bytes, b")"].concat());
    }
    client.finish();
    assert_eq!(client.rest().expect("an orderly end"), b"over");
    let request = server.request();
    assert_eq!((request.value("connection"), request.value("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!((request.value("x-kept"), request.values("via")), (Some("1"), vec!["1.1 baton"]));
}

#[test]
fn bytes_that_a_client_sends_before_the_answer_are_the_tunnels() {
    let server = echo_behind(SWITCHED);
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send([UPGRADE.as_bytes(), b"\x81\x05early"].concat()).expect("the connection is open");
    assert_eq!(client.head().expect("a head").start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(client.exactly(9).expect("an echo"), b"(\x81\x05early)");
}

#[test]
fn upgrade_that_is_declined_leaves_http() {
    let server = Server::saying("no");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let next = "GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n";
    client.send([UPGRADE, next].concat()).expect("the connection is open");
    assert_eq!(client.response().text(), "no");
    assert_eq!(client.response().text(), "no");
    assert_eq!(client.get("/third").text(), "no");
    client.send([UPGRADE, "GET /bad HTTP/1.1\r\nHost : a\r\n\r\n"].concat()).expect("the connection is open");
    assert_eq!(client.response().text(), "no");
    assert_eq!(client.response().status(), 400);
    let starts: Vec<_> = server.requests().iter().map(|request| request.start.clone()).collect();
    let gets = ["/chat", "/next", "/third", "/chat"].map(|path| format!("GET {path} HTTP/1.1"));
    assert_eq!(starts, gets);
}

#[test]
fn request_behind_an_earlier_one_may_ask_for_an_upgrade() {
    let server = Server::start(|exchange| {
        loop {
            let request = exchange.request()?;
            if request.value("upgrade").is_some() {
                exchange.send(SWITCHED)?;
                let bytes = exchange.exactly(3)?;
                exchange.send(bytes)?;
                return Ok(());
            }
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send(["GET /a HTTP/1.1\r\nHost: a\r\n\r\n", UPGRADE, "abc"].concat()).expect("the connection is open");
    assert_eq!(client.response().text(), "ok");
    assert_eq!(client.head().expect("a head").start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(client.rest().expect("an orderly end"), b"abc");
}

#[test]
fn answer_that_switches_to_what_nobody_asked_for_is_refused() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: irc\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let server = echo_behind(answer);
        let baton = Baton::before(&[&server]);
        assert_eq!(baton.client().ask(UPGRADE).status(), 502, "{answer}");
        assert_eq!(baton.client().get("/").status(), 502, "{answer}");
    }
}

#[test]
fn upgrade_to_http_is_not_asked_for() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    for fields in
        ["Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c", "Connection: upgrade\r\nUpgrade: H2C, websocket"]
    {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
        assert_eq!(baton.client().ask(request).text(), "ok");
    }
    assert!(server.requests().iter().all(|request| request.value("upgrade").is_none()));
}

#[test]
fn tunnel_in_which_nothing_moves_is_closed() {
    let server = echo_behind(SWITCHED);
    let baton = Baton::with(&[&server], &listener("tunnel_timeout = \"500ms\"\nidle_timeout = \"100ms\""));
    let mut client = baton.client();
    client.send(UPGRADE).expect("the connection is open");
    client.head().expect("a head");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(800) {
        client.send("x").expect("the connection is open");
        assert_eq!(client.exactly(3).expect("what moves stays"), b"(x)");
    }
    let begun = Instant::now();
    client.rest().expect("an end");
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[test]
fn connect_is_refused_unless_it_is_allowed() {
    let server = echo_behind("HTTP/1.1 200 Connection established\r\n\r\nhello");
    let connect = "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n";
    let baton = Baton::before(&[&server]);
    assert_eq!(baton.client().ask(connect).status(), 501);
    assert!(server.connections().is_empty());
    let baton = Baton::with(&[&server], &listener("connect = true"));
    let mut client = baton.client();
    client.send(connect).expect("the connection is open");
    let head = client.head().expect("a head");
    assert_eq!(head.start.get(..12), Some("HTTP/1.1 200"));
    assert_eq!(client.exactly(5).expect("the first bytes"), b"hello");
    client.send("\x16\x03\x01").expect("the connection is open");
    assert_eq!(client.exactly(5).expect("an echo"), b"(\x16\x03\x01)");
    assert_eq!(server.request().start, "CONNECT b.example:443 HTTP/1.1");
}

#[test]
fn connect_that_the_server_refuses_is_answered() {
    let server = Server::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let baton = Baton::with(&[&server], &listener("connect = true"));
    let mut client = baton.client();
    let response = client.ask("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n");
    assert_eq!((response.status(), response.text().as_str()), (403, "no"));
    assert_eq!(client.get("/").status(), 403);
}

/// What a client of RFC 8441 sends.
const EXTENDED: &[(&str, &str)] = &[
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/chat"),
    (":authority", "a.example"),
    ("sec-websocket-version", "13"),
];

/// A server that upgrades as RFC 6455 has it, and echoes.
fn websocket_server() -> Server {
    Server::start(|exchange| {
        let request = exchange.request()?;
        let key = request.value("sec-websocket-key").unwrap_or_default().to_owned();
        let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let accept = base64(digest.as_ref());
        let switched = SWITCHED.trim_end();
        exchange.send(format!(
            "{switched}\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\nfirst"
        ))?;
        loop {
            let bytes = exchange.some(1024)?;
            if bytes.is_empty() {
                return Ok(());
            }
            exchange.send([b"(", &bytes[..], b")"].concat())?;
        }
    })
}

fn base64(bytes: &[u8]) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |chunk: &[u8]| {
        let bits = chunk.iter().chain(&[0, 0]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let digit = |at: usize| if at <= chunk.len() { char::from(letters[bits >> (18 - 6 * at) & 63]) } else { '=' };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(encode).collect()
}

/// The data of a stream, until so many bytes have come.
fn data(client: &mut H2, stream: u32, len: usize) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() < len {
        let event = client.event(crate::PATIENCE).expect("more comes");
        match event {
            Event::Data(of, bytes, _) if of == stream => data.extend(bytes),
            Event::Reset(..) | Event::Goaway(_) | Event::Closed => panic!("{event:?} after {data:?}"),
            _ => {}
        }
    }
    data
}

#[test]
fn websocket_over_http2_becomes_one_over_http1() {
    let server = websocket_server();
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    client.send(&headers(1, 0, EXTENDED));
    let events = client.wait_for("a head", |event| matches!(event, Event::Head(..)));
    assert_eq!(events.last(), Some(&Event::Head(1, Some(200), false)));
    assert_eq!(data(&mut client, 1, 5), b"first");
    client.send(&frame(DATA, 0, 1, b"\x81\x05hello"));
    assert_eq!(data(&mut client, 1, 9), b"(\x81\x05hello)");
    // Other streams are served meanwhile, on another connection to the server.
    client.send(&headers(3, 0, EXTENDED));
    client.wait_for("a second one", |event| *event == Event::Head(3, Some(200), false));
    client.send(&frame(DATA, END_STREAM, 1, b""));
    client.wait_for("the end of the first", |event| *event == Event::Data(1, Vec::new(), true));
    let request = &server.requests()[0];
    assert_eq!(request.start, "GET /chat HTTP/1.1");
    let fields =
        ["host", "connection", "upgrade", "sec-websocket-version"].map(|name| request.value(name).unwrap_or(""));
    assert_eq!(fields, ["a.example", "upgrade", "websocket", "13"]);
}

#[test]
fn websocket_over_http2_that_is_declined_is_answered() {
    let server = Server::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    client.send(&headers(1, 0, EXTENDED));
    assert_eq!(client.response(1), (403, "no".to_owned()));
}

#[test]
fn server_that_does_not_understand_websocket_is_not_taken_for_one_that_does() {
    let server = echo_behind(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
    );
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    client.send(&headers(1, 0, EXTENDED));
    client.wait_for("the stream is reset", |event| *event == Event::Reset(1, 10));
    server.wait_until("the server is let go", |record| record.connections[0].is_ended);
}

#[test]
fn client_that_leaves_its_tunnel_over_http2_leaves_the_server() {
    let server = websocket_server();
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    client.send(&headers(1, 0, EXTENDED));
    client.wait_for("a head", |event| matches!(event, Event::Head(..)));
    client.send(&reset(1, CANCEL));
    server.wait_until("the server is let go", |record| record.connections[0].is_ended);
    client.send(&frame(PING, 0, 0, &[0; 8]));
    client.wait_for("the connection lives", |event| *event == Event::Pong);
}

#[test]
fn connect_over_http2_is_a_tunnel_where_it_is_allowed() {
    let server = echo_behind("HTTP/1.1 200 OK\r\n\r\n");
    let baton = Baton::with(&[&server], &listener("connect = true"));
    let mut client = H2::connect(baton.address());
    client.send(&headers(1, 0, &[(":method", "CONNECT"), (":authority", "b.example:443")]));
    client.wait_for("a head", |event| *event == Event::Head(1, Some(200), false));
    client.send(&frame(DATA, 0, 1, b"hello"));
    assert_eq!(data(&mut client, 1, 7), b"(hello)");
    assert_eq!(server.request().start, "CONNECT b.example:443 HTTP/1.1");
    client.send(&headers(3, 0, &[(":method", "CONNECT"), (":authority", "b.example")]));
    client.wait_for("a target without a port is refused", |event| *event == Event::Head(3, Some(400), false));
}

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that gives a hint and, once it is let go on, the response.
fn hinting() -> Server {
    Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send(HINTS)?;
            exchange.wait_for_signal()?;
            exchange.send(FINAL)?;
        }
    })
}

#[test]
fn early_hints_are_passed_on_over_http1() {
    let server = hinting();
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
        let hints = client.response();
        assert_eq!((hints.status(), hints.value("link")), (103, Some("</a.css>; rel=preload")));
        server.signal();
        assert_eq!(client.response().text(), "ok");
    }
}

#[test]
fn early_hints_come_in_front_of_a_response_that_comes_with_them() {
    let server = Server::answering([HINTS, HINTS, FINAL].concat());
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3)).expect("the connection is open");
    for _ in 0..3 {
        assert_eq!([client.response().status(), client.response().status()], [103, 103]);
        assert_eq!(client.response().text(), "ok");
    }
    // HTTP/1.0 knows no interim responses.
    assert_eq!(baton.client().ask("GET / HTTP/1.0\r\n\r\n").status(), 200);
}

#[test]
fn early_hints_are_passed_on_over_http2() {
    let server = hinting();
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    client.send(&get(1));
    client.wait_for("hints", |event| *event == Event::Head(1, Some(103), false));
    server.signal();
    assert_eq!(client.response(1), (200, "ok".to_owned()));
}

#[test]
fn continue_is_said_over_http2_when_a_server_takes_the_body() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    client.send(&headers(1, 0, &with(POST, &[("expect", "100-continue")])));
    client.wait_for("100", |event| *event == Event::Head(1, Some(100), false));
    client.send(&frame(DATA, END_STREAM, 1, b"body"));
    assert_eq!(client.response(1), (200, "ok".to_owned()));
    assert_eq!(server.request().text(), "body");
}

#[test]
fn events_of_a_server_come_one_by_one() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        for number in 0..3 {
            exchange.wait_for_signal()?;
            exchange.send(format!("data: {number}\n\n"))?;
        }
        Ok(())
    });
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    client.send(&get(1));
    client.wait_for("the head alone", |event| *event == Event::Head(1, Some(200), false));
    for number in 0..3 {
        server.signal();
        assert_eq!(data(&mut client, 1, 9), format!("data: {number}\n\n").as_bytes());
    }
    client.wait_for("the end", |event| matches!(event, Event::Data(1, _, true)));
}

#[test]
fn trailers_pass_in_both_directions() {
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    let server = Server::answering(answer);
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    let head = headers(1, 0, &with(POST, &[("trailer", "x-up")]));
    client.send(&[head, frame(DATA, 0, 1, b"body"), headers(1, END_STREAM, &[("x-up", "9")])].concat());
    let events = client.wait_for("trailers", |event| matches!(event, Event::Head(1, None, true)));
    assert!(events.contains(&Event::Data(1, b"ok".to_vec(), false)), "{events:?}");
    let request = server.request();
    assert_eq!(
        (request.text().as_str(), request.trailers.clone()),
        ("body", vec![("x-up".to_owned(), "9".to_owned())])
    );
}

#[test]
fn trailers_of_an_http1_server_reach_http2_clients_announced_or_not() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    let server = Server::answering(answer);
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    client.send(&get(1));
    client.wait_for("trailers", |event| matches!(event, Event::Head(1, None, true)));
}
