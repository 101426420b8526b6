//! Other protocols, interim responses and waiting for room, with servers that are spoken to in HTTP/2.

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::Builder;
use http::Response;

use crate::baton::{Baton, Settings};
use crate::h2_server::{Asked, H2Server};
use crate::h2_wire::*;
use crate::nginx::{Authority, Nginx};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// With the key of RFC 6455 section 1.3.
const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn before(server: &H2Server, pool: &str) -> Baton {
    let pool = format!("protocol = \"h2c\"\n{pool}");
    Baton::before_addresses(&[server.address()], &Settings { pool, ..Settings::default() })
}

/// Grants what is asked for and sends back what it gets, in parentheses.
async fn echo(mut asked: Asked) -> Result<(), h2::Error> {
    let head = &asked.request;
    let protocol = head.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
    let is_left = ["upgrade", "connection", "sec-websocket-key"].iter().any(|name| head.headers().contains_key(*name));
    let version = head.headers().get("sec-websocket-version").map(|version| version.to_str().unwrap().to_owned());
    let found = (head.method().as_str(), head.uri().to_string(), protocol.as_deref(), is_left, version.as_deref());
    let expected = ("CONNECT", "http://a.example/chat".to_owned(), Some("websocket"), false, Some("13"));
    let status = if found == expected { 200 } else { 400 };
    let mut sender = asked.respond.send_response(Response::builder().status(status).body(()).unwrap(), false)?;
    let receiver = asked.request.body_mut();
    while let Some(data) = receiver.data().await {
        let data = data?;
        receiver.flow_control().release_capacity(data.len())?;
        if data.is_empty() {
            break;
        }
        sender.send_data(Bytes::from([b"(", &data[..], b")"].concat()), false)?;
    }
    sender.send_data(Bytes::from_static(b"over"), true)
}

fn taking_connect() -> Builder {
    let mut builder = Builder::new();
    builder.enable_connect_protocol();
    builder
}

#[test]
fn an_upgrade_becomes_an_extended_connect() {
    let server = H2Server::start(taking_connect(), echo);
    let baton = before(&server, "");
    // On a connection that is new, and on one that is there.
    for _ in 0..2 {
        let mut client = baton.client();
        client.send(UPGRADE).unwrap();
        let head = client.head().unwrap();
        assert_eq!(head.start, "HTTP/1.1 101 Switching Protocols");
        assert_eq!((head.value("connection"), head.value("upgrade")), (Some("upgrade"), Some("websocket")));
        assert_eq!(head.value("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for bytes in [&b"\x81\x05hello"[..], b"GET / HTTP/1.1\r\n\r\n"] {
            client.send(bytes).unwrap();
            assert_eq!(client.exactly(bytes.len() + 2).unwrap(), [b"(", bytes, b")"].concat());
        }
        client.finish();
        assert_eq!(client.rest().unwrap(), b"over");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn an_extended_connect_stays_one() {
    let server = H2Server::start(taking_connect(), echo);
    let baton = before(&server, "");
    let mut client = H2::connect(baton.address());
    let connect = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "a.example"),
        ("sec-websocket-version", "13"),
    ];
    client.send(&headers(1, 0, &connect));
    client.wait_for("the tunnel", |event| *event == Event::Head(1, Some(200), false));
    client.send(&frame(DATA, 0, 1, b"hello"));
    client.wait_for("an echo", |event| *event == Event::Data(1, b"(hello)".to_vec(), false));
}

const CONNECT: &str = "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n";

fn allowing_connect(server: &H2Server) -> Baton {
    let (pool, listener) = ("protocol = \"h2c\"".to_owned(), "connect = true".to_owned());
    Baton::before_addresses(&[server.address()], &Settings { pool, listener, ..Settings::default() })
}

/// As [`echo`], for CONNECT as RFC 9113 section 8.5 has it.
async fn echo_in_tunnel(mut asked: Asked) -> Result<(), h2::Error> {
    let (method, uri) = (asked.request.method().as_str(), asked.request.uri().to_string());
    let is_tunnel = (method, uri.as_str()) == ("CONNECT", "b.example:443");
    let has_protocol = asked.request.extensions().get::<Protocol>().is_some();
    let status = if is_tunnel && !has_protocol { 200 } else { 400 };
    let mut sender = asked.respond.send_response(Response::builder().status(status).body(()).unwrap(), false)?;
    let receiver = asked.request.body_mut();
    while let Some(data) = receiver.data().await {
        let data = data?;
        receiver.flow_control().release_capacity(data.len())?;
        if !data.is_empty() {
            sender.send_data(Bytes::from([b"(", &data[..], b")"].concat()), false)?;
        }
    }
    sender.send_data(Bytes::from_static(b"over"), true)
}

#[test]
fn connect_is_a_stream_of_an_http2_server() {
    let server = H2Server::start(Builder::new(), echo_in_tunnel);
    let baton = allowing_connect(&server);
    for _ in 0..2 {
        let mut client = baton.client();
        client.send(CONNECT).unwrap();
        assert_eq!(client.head().unwrap().start.get(..12), Some("HTTP/1.1 200"));
        for bytes in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\r\n\r\n"] {
            client.send(bytes).unwrap();
            assert_eq!(client.exactly(bytes.len() + 2).unwrap(), [b"(", bytes, b")"].concat());
        }
        client.finish();
        assert_eq!(client.rest().unwrap(), b"over");
    }
    let mut client = H2::connect(baton.address());
    client.send(&headers(1, 0, &[(":method", "CONNECT"), (":authority", "b.example:443")]));
    client.wait_for("the tunnel", |event| *event == Event::Head(1, Some(200), false));
    client.send(&frame(DATA, 0, 1, b"hello"));
    client.wait_for("an echo", |event| *event == Event::Data(1, b"(hello)".to_vec(), false));
    assert_eq!(server.connections(), 1);
}

#[test]
fn connect_that_an_http2_server_refuses_is_answered() {
    let server = H2Server::start(Builder::new(), |mut asked| async move { asked.say(403, "not there") });
    let baton = allowing_connect(&server);
    let mut client = baton.client();
    let response = client.ask(CONNECT);
    assert_eq!((response.status(), response.text().as_str()), (403, "not there"));
    assert_eq!(client.get("/").status(), 403);
    // Where it is not allowed none gets there.
    let server = H2Server::start(Builder::new(), echo_in_tunnel);
    assert_eq!(before(&server, "").client().ask(CONNECT).status(), 501);
    assert_eq!(server.connections(), 0);
}

#[test]
fn what_a_server_answers_instead_is_passed_on() {
    let server = H2Server::start(taking_connect(), |mut asked| async move { asked.say(403, "not here") });
    let baton = before(&server, "");
    let mut client = baton.client();
    for _ in 0..2 {
        let response = client.ask(UPGRADE);
        assert_eq!((response.status(), response.text().as_str()), (403, "not here"));
    }
}

#[test]
fn a_server_that_does_not_take_it_gets_none() {
    let server = H2Server::saying("hello");
    let baton = before(&server, "");
    let response = baton.client().ask(UPGRADE);
    assert_eq!(response.status(), 501);
    let fault = Some("\"lb-test\"; error=http_upgrade_failed; next-hop=\"app1\"");
    assert_eq!(response.value("proxy-status"), fault);
    assert_eq!(server.requests().len(), 0);
    assert_eq!(baton.client().ask(GET).text(), "hello");
}

#[test]
fn where_there_is_a_choice_an_upgrade_goes_over_http1() {
    let authority = Authority::new();
    let (cert, key) = authority.certificate("server", "DNS:app.internal");
    let directives = format!(
        "ssl_certificate {};\nssl_certificate_key {};\nreturn 200 \"$server_protocol $http_upgrade\";",
        cert.display(),
        key.display()
    );
    let nginx = Nginx::start("ssl http2", &directives);
    let pool =
        format!("protocol = \"auto\"\ntls = {{ ca_file = {:?}, server_name = \"app.internal\" }}", authority.ca_file());
    let baton = Baton::before_addresses(&[nginx.address()], &Settings { pool, ..Settings::default() });
    assert_eq!(baton.client().ask(GET).text(), "HTTP/2.0 ");
    assert_eq!(baton.client().ask(UPGRADE).text(), "HTTP/1.1 websocket");
}

#[test]
fn early_hints_of_an_http2_server_are_passed_on() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        asked.read().await?;
        let hints = Response::builder().status(103).header("link", "</a.css>").body(()).unwrap();
        asked.respond.send_informational(hints)?;
        asked.server.wait_for_signal().await;
        asked.say(200, "ok")
    });
    let baton = before(&server, "");
    let mut client = baton.client();
    client.send(GET).unwrap();
    let hints = client.response();
    assert_eq!((hints.status(), hints.value("link")), (103, Some("</a.css>")));
    server.signal();
    assert_eq!(client.response().text(), "ok");
    let mut client = H2::connect(baton.address());
    client.send(&get(1));
    client.wait_for("hints", |event| *event == Event::Head(1, Some(103), false));
    server.signal();
    assert_eq!(client.response(1), (200, "ok".to_owned()));
}

#[test]
fn too_long_a_wait_for_a_stream_is_503() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        asked.read().await?;
        asked.server.wait_for_signal().await;
        asked.say(200, "ok")
    });
    let baton = before(&server, "connect_timeout = \"100ms\"\nhttp2 = { connections_max = 1, streams_max = 1 }");
    let mut first = baton.client();
    first.send(GET).unwrap();
    server.wait_until("the first is there", |record| record.requests.len() == 1);
    let response = baton.client().ask(GET);
    assert_eq!(response.status(), 503);
    let fault = Some("\"lb-test\"; error=connection_limit_reached; next-hop=\"app1\"");
    assert_eq!(response.value("proxy-status"), fault);
    server.signal();
    assert_eq!(first.response().text(), "ok");
}
