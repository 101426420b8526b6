//! Bad input through the whole program: the answer, the end of the connection, and what the server got of it.

mod streams;

use std::net::SocketAddr;

use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::curl::curl;
use crate::server::Server;

const CHUNKED_HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Streams no part of which may reach a server, with the status they are refused with.
fn table() -> Vec<(u16, Vec<u8>)> {
    let line = |(status, line): &(u16, &[u8])| (*status, [line, &b"Host: a\r\n\r\n"[..]].concat());
    let field =
        |(status, fields): &(u16, &[u8])| (*status, [b"POST / HTTP/1.1\r\nHost: a\r\n", *fields, b"\r\n"].concat());
    let host = |host: &&[u8]| (400, [b"GET / HTTP/1.1\r\nHost: ", *host, b"\r\n\r\n"].concat());
    let stream = |(status, stream): &(u16, &[u8])| (*status, stream.to_vec());
    let lines = streams::REQUEST_LINES.iter().map(line);
    let others = streams::FIELDS.iter().map(field).chain(streams::HOSTS.iter().map(host));
    lines.chain(others).chain(streams::STREAMS.iter().map(stream)).chain(oversized()).collect()
}

/// Heads just beyond a limit.
fn oversized() -> Vec<(u16, Vec<u8>)> {
    let head = |first: &str, fields: &str| format!("{first}\r\nHost: a\r\n{fields}\r\n").into_bytes();
    vec![
        (414, head(&format!("GET /{} HTTP/1.1", "a".repeat(8 * 1024)), "")),
        (414, "A".repeat(32 * 1024).into_bytes()),
        (431, head("GET / HTTP/1.1", &format!("X: {}\r\n", "x".repeat(32 * 1024)))),
        (431, head("GET / HTTP/1.1", &"X: 1\r\n".repeat(100))),
    ]
}

#[test]
fn request_at_the_limits_is_served() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let target = format!("/{}", "a".repeat(8 * 1024 - 1));
    assert_eq!(client.get(&target).text(), "ok");
    // Request line, Host, the field around its value and the empty line are 16 + 9 + 5 + 2 bytes.
    let value = "x".repeat(32 * 1024 - 32);
    assert_eq!(client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n")).text(), "ok");
    let fields = "X: 1\r\n".repeat(99);
    assert_eq!(client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).text(), "ok");
    let requests = server.requests();
    assert_eq!(requests[0].start, format!("GET {target} HTTP/1.1"));
    assert_eq!(requests[1].value("x"), Some(value.as_str()));
    assert_eq!(requests[2].values("x").len(), 99);
}

/// What the client gets for a stream that is sent in these parts: everything, up to the end of the connection.
fn answer(address: SocketAddr, parts: &[&[u8]]) -> Result<String, String> {
    let mut client = Client::connect(address);
    for part in parts {
        // The program may have answered and closed already.
        if client.send(part).is_err() {
            break;
        }
    }
    let answer = client.rest().map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether this is one response of this status, and the last one.
fn is_refusal(answer: &Result<String, String>, status: u16) -> bool {
    let Ok(answer) = answer else { return false };
    let is_one = answer.matches("HTTP/1.1 ").count() == 1;
    is_one && answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains("\r\nconnection: close\r\n")
}

/// Sends every stream cut into the parts that `cut` makes of it.
fn refused_without_a_trace(cut: impl Fn(&[u8]) -> Vec<&[u8]>) {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let table = table();
    assert!(table.len() >= 200, "{}", table.len());
    let mut wrong = Vec::new();
    for (status, stream) in &table {
        let answer = answer(baton.address(), &cut(stream));
        if !is_refusal(&answer, *status) {
            wrong.push(format!("{status} expected for {}: {answer:?}", stream[..stream.len().min(200)].escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), table.len());
    assert!(server.connections().is_empty(), "{:?}", server.connections());
    // The server is there, and would have recorded it.
    assert_eq!(baton.client().get("/").text(), "ok");
    assert_eq!(server.connections().len(), 1);
}

#[test]
fn malformed_request_is_refused_and_reaches_no_server() {
    refused_without_a_trace(|stream| vec![stream]);
}

#[test]
fn malformed_request_in_two_packets_is_refused_and_reaches_no_server() {
    refused_without_a_trace(|stream| vec![&stream[..stream.len() / 2], &stream[stream.len() / 2..]]);
}

#[test]
fn malformed_request_in_small_packets_is_refused_and_reaches_no_server() {
    refused_without_a_trace(|stream| stream.chunks(7.max(stream.len() / 20)).collect());
}

#[test]
fn malformed_request_behind_a_good_one_is_refused_after_its_answer() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let good = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
    // An empty line behind a request is the one in front of the next, so two of them are one too many.
    let table: Vec<_> = table().into_iter().filter(|(_, stream)| !stream.starts_with(b"\r\n")).collect();
    let mut wrong = Vec::new();
    for (status, stream) in &table {
        let answer = answer(baton.address(), &[&[good, &stream[..]].concat()]).unwrap_or_else(|error| error);
        let refusal = answer.strip_prefix("HTTP/1.1 200 OK\r\n").and_then(|rest| rest.split_once("\r\n\r\nok"));
        let refusal = refusal.map_or(Err(answer.clone()), |(_, refusal)| Ok(refusal.to_owned()));
        if !is_refusal(&refusal, *status) {
            wrong.push(format!("{status} expected for {}: {answer:?}", stream[..stream.len().min(200)].escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), table.len());
    assert_eq!(server.requests().len(), table.len());
    assert!(server.requests().iter().all(|request| request.start == "GET /good HTTP/1.1"));
}

/// Whether bytes that a server got hold a whole chunked request.
fn has_complete_request(received: &[u8]) -> bool {
    received.windows(5).any(|window| window == b"0\r\n\r\n")
}

#[test]
fn malformed_chunks_are_refused_and_never_complete_a_request() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut wrong = Vec::new();
    for body in streams::CHUNKED {
        let answer = answer(baton.address(), &[&[CHUNKED_HEAD.as_bytes(), body].concat()]);
        if !is_refusal(&answer, 400) {
            wrong.push(format!("400 expected for {}: {answer:?}", body.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), streams::CHUNKED.len());
    assert!(server.requests().is_empty(), "{:?}", server.requests());
    assert!(!server.connections().iter().any(|connection| has_complete_request(&connection.received)));
}

#[test]
fn malformed_first_chunk_reaches_no_server_when_it_comes_with_its_head() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    for body in ["x\r\n", "5 \r\nhello\r\n", "-1\r\n", "5\nhello\r\n", "ffffffffffffffff\r\n", ";a=b\r\n"] {
        let answer = answer(baton.address(), &[format!("{CHUNKED_HEAD}{body}").as_bytes()]);
        assert!(is_refusal(&answer, 400), "{body:?}: {answer:?}");
    }
    assert!(server.connections().is_empty(), "{:?}", server.connections());
}

#[test]
fn malformed_chunks_behind_a_head_that_has_gone_on_never_complete_a_request() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut wrong = Vec::new();
    for (index, body) in streams::CHUNKED.iter().enumerate() {
        let mut client = baton.client();
        client.send(format!("{CHUNKED_HEAD}4\r\ngood\r\n")).expect("the connection is open");
        server.wait_until("the first chunk has come", |record| {
            record.connections.get(index).is_some_and(|connection| connection.received.ends_with(b"4\r\ngood\r\n"))
        });
        client.send(body).expect("the connection is open");
        let answer = client.rest().map(|answer| String::from_utf8_lossy(&answer).into_owned());
        let answer = answer.map_err(|error| error.to_string());
        if !is_refusal(&answer, 400) {
            wrong.push(format!("400 expected for {}: {answer:?}", body.escape_ascii()));
        }
        server.wait_until("the server is let go", |record| record.connections[index].is_ended);
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), streams::CHUNKED.len());
    assert!(server.requests().is_empty(), "{:?}", server.requests());
    assert!(!server.connections().iter().any(|connection| has_complete_request(&connection.received)));
}

#[test]
fn trailers_beyond_the_limit_are_refused_with_431() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    for trailers in [format!("X: {}\r\n", "x".repeat(8 * 1024)), "X: 1\r\n".repeat(101)] {
        let answer = answer(baton.address(), &[format!("{CHUNKED_HEAD}0\r\n{trailers}\r\n").as_bytes()]);
        assert!(is_refusal(&answer, 431), "{answer:?}");
    }
    assert!(server.requests().is_empty(), "{:?}", server.requests());
}

#[test]
fn refusal_says_what_is_wrong() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let response = baton.client().ask("GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    assert_eq!(response.status(), 400);
    assert_eq!(response.text(), "400 Bad Request\nthe request is malformed: field name space\n");
    assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=http_request_error"));
    assert_eq!(response.value("content-type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn refusal_reaches_a_client_that_is_still_sending() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\n").expect("the connection is open");
    // Were the connection closed with some of this unread, the kernel would send a reset, which can overtake the answer.
    client.send("x".repeat(8 * 1024 * 1024)).expect("all of it is taken");
    assert_eq!(client.response().status(), 400);
    assert_eq!(client.rest().expect("an orderly end"), b"");
    let header = format!("X: {}", "x".repeat(100_000));
    let output = curl(&["--write-out", "%{http_code}", "--output", "/dev/null", "--header", &header, &baton.url("/")]);
    assert_eq!((output.code, output.text().as_str()), (Some(0), "431"), "{}", output.stderr);
    assert_eq!(server.connections().len(), 0);
}

#[test]
fn client_that_stays_after_its_refusal_is_not_kept() {
    let server = Server::saying("ok");
    let baton =
        Baton::with(&[&server], &Settings { listener: "connections_max = 1".to_owned(), ..Settings::default() });
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\n").expect("the connection is open");
    assert_eq!(client.response().status(), 400);
    // It has the only connection there may be, for as long as it is listened to.
    assert_eq!(baton.client().get("/").text(), "ok");
}
