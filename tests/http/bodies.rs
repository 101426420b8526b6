//! Bodies on their way through: framing, trailers, size, speed.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use crate::PATIENCE;
use crate::baton::Baton;
use crate::curl::curl;
use crate::server::{Exchange, Server};
use crate::wire::{Kind, Wire};

const MIB: usize = 1024 * 1024;

#[test]
fn chunked_request_reaches_the_server_chunk_by_chunk() {
    let server = Server::start(|exchange| {
        let head = exchange.head()?;
        assert_eq!(head.values("transfer-encoding"), ["chunked"]);
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            // Each chunk is answered before the next one is sent.
            let chunk = exchange.chunk()?;
            exchange.send(format!("{:x}\r\n{}\r\n", chunk.len(), chunk.escape_ascii()))?;
            if chunk.is_empty() {
                return exchange.wait_for_end();
            }
        }
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").expect("the connection is open");
    let head = client.head().expect("the response begins while the request goes on");
    assert_eq!((head.status(), head.value("transfer-encoding")), (200, Some("chunked")));
    for word in ["one", "two", "three"] {
        client.send(format!("{:X};extension=\"x\"\r\n{word}\r\n", word.len())).expect("the connection is open");
        assert_eq!(client.chunk().expect("the server answers the chunk"), word.as_bytes());
    }
    client.send("0\r\n\r\n").expect("the connection is open");
    assert_eq!(client.chunked().expect("the response ends"), (Vec::new(), Vec::new()));
}

#[test]
fn request_trailers_reach_the_server_when_the_head_announces_them() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let response = baton.client().ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum, X-Other\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Checksum: abc\r\nX-Other: 2\r\n\r\n",
    );
    assert_eq!(response.status(), 200);
    let request = server.request();
    assert_eq!((request.text().as_str(), request.value("trailer")), ("hello", Some("X-Checksum, X-Other")));
    let expected = [("x-checksum", "abc"), ("x-other", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(request.trailers, expected);
}

#[test]
fn request_trailers_that_nobody_announced_do_no_harm() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..2 {
        let response = client.ask(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Checksum: abc\r\n\r\n",
        );
        assert_eq!((response.status(), response.text().as_str()), (200, "ok"));
    }
    assert_eq!(server.requests().iter().filter(|request| request.text() == "hello").count(), 2);
}

/// A server whose response has a trailer section.
fn with_trailers() -> Server {
    Server::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Checksum: abc\r\n\r\n",
    )
}

#[test]
fn response_trailers_reach_a_client_that_takes_them() {
    let server = with_trailers();
    let baton = Baton::before(&[&server]);
    for te in ["trailers", "gzip;q=0.5, trailers", "Trailers"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: {te}\r\n\r\n");
        let response = baton.client().ask(request);
        assert_eq!((response.text().as_str(), response.value("trailer")), ("hello", Some("X-Checksum")));
        assert_eq!(response.trailers, [("x-checksum".to_owned(), "abc".to_owned())], "TE: {te}");
    }
}

#[test]
fn response_trailers_are_left_out_for_a_client_that_does_not_take_them() {
    let server = with_trailers();
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.text().as_str(), response.trailers), ("hello", Vec::new()));
    }
    let output = curl(&[&baton.url("/")]);
    assert_eq!((output.code, output.text().as_str()), (Some(0), "hello"), "{}", output.stderr);
}

#[test]
fn response_that_ends_with_its_connection_is_framed_for_the_client() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\n\r\nuntil the end")
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.value("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), "until the end");
    }
    let response = baton.client().ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(response.value("transfer-encoding"), None);
    assert_eq!(response.text(), "until the end");
}

#[test]
fn chunked_response_is_unframed_for_a_client_of_http_10() {
    let server =
        Server::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n");
    let baton = Baton::before(&[&server]);
    let response = baton.client().ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!((response.start.as_str(), response.text().as_str()), ("HTTP/1.0 200 OK", "one two"));
    assert_eq!((response.value("transfer-encoding"), response.value("content-length")), (None, None));
}

#[test]
fn parts_of_a_response_are_passed_on_as_they_come() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")?;
        // The rest comes only once the client has the first part.
        exchange.wait_for_signal()?;
        exchange.send("two")
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    client.head().expect("a head comes");
    assert_eq!(client.exactly(3).expect("the first part comes"), b"one");
    server.signal();
    assert_eq!(client.exactly(3).expect("the second part comes"), b"two");
}

/// Bytes that differ from their neighbours at any distance a mistake would shift them by.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|index| (index.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn send_pattern(wire: &mut Wire, len: usize) -> io::Result<()> {
    const PIECE: usize = 256 * 1024;
    (0..len).step_by(PIECE).try_for_each(|from| wire.send(pattern(from, PIECE.min(len - from))))
}

/// Reads the pattern, from one byte of it to another.
fn check_pattern(wire: &mut Wire, mut from: usize, to: usize) -> io::Result<()> {
    while from < to {
        let part = wire.some(to - from)?;
        if part.is_empty() || part != pattern(from, part.len()) {
            return Err(io::Error::other(format!("other bytes, or none, from {from} on")));
        }
        from += part.len();
    }
    Ok(())
}

/// Sends a large body while it reads one.
fn upload_and_download(exchange: &mut Exchange, len: usize) -> io::Result<()> {
    exchange.head()?;
    exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n"))?;
    let mut other = Wire::new(exchange.stream().try_clone()?, |_| {});
    // A response that is complete ends the exchange, whether the request is or not: so the last byte waits.
    let download = std::thread::spawn(move || send_pattern(&mut other, len - 1));
    check_pattern(exchange, 0, len)?;
    download.join().expect("it does not panic")?;
    exchange.send(pattern(len - 1, 1))
}

#[test]
fn large_bodies_pass_in_both_directions_at_once_without_being_kept() {
    const LEN: usize = 64 * MIB;
    let (verdict, server_says) = mpsc::channel();
    let server = Server::unrecorded(move |exchange| {
        let result = upload_and_download(exchange, LEN);
        verdict.send(result.map_err(|error| error.to_string())).expect("the test waits");
        Ok(())
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let before = baton.worker_memory();
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LEN}\r\n\r\n"))
        .expect("the connection is open");
    let mut other = Wire::new(client.stream().try_clone().expect("descriptors are left"), |_| {});
    let upload = std::thread::spawn(move || send_pattern(&mut other, LEN));
    let head = client.head().expect("a response comes");
    assert_eq!(head.value("content-length"), Some("67108864"));
    check_pattern(&mut client, 0, LEN / 2).expect("the download is whole");
    let during = baton.worker_memory();
    check_pattern(&mut client, LEN / 2, LEN).expect("the download is whole");
    upload.join().expect("it does not panic").expect("the upload is taken");
    assert_eq!(server_says.recv_timeout(PATIENCE), Ok(Ok(())));
    let grown = during.max(baton.worker_memory()).saturating_sub(before);
    assert!(grown < 4 * MIB as u64, "the worker grew by {grown} bytes");
}

#[test]
fn slow_reader_holds_the_server_up_and_not_the_memory() {
    const LEN: usize = 256 * MIB;
    let server = Server::start(move |exchange| {
        exchange.request()?;
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"))?;
        // Far more than all buffers hold: this ends when the connection does.
        exchange.set_write_patience(Duration::from_millis(500));
        send_pattern(exchange, LEN)
    });
    let baton = Baton::before(&[&server]);
    let before = baton.worker_memory();
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    client.head().expect("a head comes");
    // The server sends until nobody takes more, and gives up.
    server.wait_until("the server could not send on", |record| record.connections[0].is_ended);
    let grown = baton.worker_memory().saturating_sub(before);
    assert!(grown < 2 * MIB as u64, "the worker grew by {grown} bytes");
}

#[test]
fn client_that_reads_byte_by_byte_gets_everything() {
    const LEN: usize = 3000;
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"))?;
        pattern(0, LEN).iter().try_for_each(|byte| exchange.send([*byte]))
    });
    let baton = Baton::before(&[&server]);
    assert_eq!(baton.client().get("/").body, pattern(0, LEN));
}

#[test]
fn request_that_arrives_byte_by_byte_is_served() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let request = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for byte in request.as_bytes().iter().chain(request.as_bytes()) {
        client.send([*byte]).expect("the connection is open");
    }
    assert_eq!(client.response().text(), "ok");
    assert_eq!(client.response().text(), "ok");
    assert_eq!(server.requests().iter().filter(|request| request.text() == "hello").count(), 2);
}

#[test]
fn server_that_breaks_off_is_never_taken_for_one_that_has_finished() {
    let cases = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
    ];
    for response in cases {
        let server = Server::start(move |exchange| {
            exchange.request()?;
            exchange.send(response)
        });
        let baton = Baton::before(&[&server]);
        let mut client = baton.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
        let outcome = client.message(Kind::Response);
        assert!(outcome.is_err(), "{response:?} looked complete: {outcome:?}");
        let output = curl(&[&baton.url("/")]);
        assert_ne!(output.code, Some(0), "{response:?}: {}", output.text());
    }
}

#[test]
fn reset_does_not_end_a_response_that_ends_with_its_connection() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\n\r\nhello")?;
        // Only once it has been passed on: a reset may overtake what was sent before it.
        exchange.wait_for_signal()?;
        exchange.reset_at_end();
        Ok(())
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    assert_eq!(client.head().expect("a head comes").value("transfer-encoding"), Some("chunked"));
    assert_eq!(client.chunk().expect("some of the body comes"), b"hello");
    server.signal();
    let outcome = client.chunk();
    assert!(outcome.is_err(), "the body looked complete: {outcome:?}");
}

#[test]
fn http_10_client_sees_a_broken_chunked_response_as_broken() {
    // No framing could tell it; a reset does.
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        exchange.wait_for_signal()
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").expect("the connection is open");
    client.head().expect("a head comes");
    assert_eq!(client.exactly(5).expect("some of the body comes"), b"hello");
    server.signal();
    assert_eq!(client.rest().map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
}

#[test]
fn slow_server_holds_the_client_up_and_not_the_memory() {
    const LEN: usize = 256 * MIB;
    let server = Server::start(|exchange| {
        exchange.head()?;
        exchange.wait_for_signal()
    });
    let baton = Baton::before(&[&server]);
    let before = baton.worker_memory();
    let mut client = baton.client();
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LEN}\r\n\r\n"))
        .expect("the connection is open");
    client.set_write_patience(Duration::from_millis(500));
    let error = send_pattern(&mut client, LEN).expect_err("nobody takes that much");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let grown = baton.worker_memory().saturating_sub(before);
    assert!(grown < 2 * MIB as u64, "the worker grew by {grown} bytes");
    server.signal();
}
