//! Patience: with clients that are slow to ask, slow to send and slow to read, and with servers that are slow to answer.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::server::{Port, Server};
use crate::wire::Kind;

const TIMEOUT: Duration = Duration::from_millis(300);
/// The same, in the configuration.
const TEXT: &str = "\"300ms\"";
/// Far more than a time-out of 300 ms takes on a busy machine, and less than any other time-out of these tests.
const SOON: Duration = Duration::from_secs(4);

fn listener(key: &str) -> Settings {
    Settings { listener: format!("{key} = {TEXT}"), ..Settings::default() }
}

fn pool(key: &str) -> Settings {
    Settings { pool: format!("{key} = {TEXT}"), ..Settings::default() }
}

/// What took place, not before the time-out and soon after it.
fn after_timeout<T>(what: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = what();
    let taken = started.elapsed();
    assert!((TIMEOUT..SOON).contains(&taken), "{taken:?}");
    result
}

fn assert_request_timeout(client: &mut Client) {
    let response = client.response();
    assert_eq!((response.status(), response.value("connection")), (408, Some("close")));
    assert_eq!(response.text(), "408 Request Timeout\nthe request did not arrive in time\n");
    client.expect_closed();
}

#[test]
fn head_that_stops_is_answered_with_408() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("head_timeout"));
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").expect("the connection is open");
    after_timeout(|| assert_request_timeout(&mut client));
    assert_eq!(server.connections().len(), 0);
}

#[test]
fn head_that_trickles_is_answered_with_408_all_the_same() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("head_timeout"));
    let mut client = baton.client();
    let mut other = client.stream().try_clone().expect("descriptors are left");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let trickle = std::thread::spawn(move || {
        // A byte every 20 ms, for as long as the test goes on.
        for byte in b"GET / HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'a')) {
            let sent = io::Write::write_all(&mut other, &[*byte]);
            let timed_out = Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if sent.is_err() || stopped.recv_timeout(Duration::from_millis(20)) != timed_out {
                return;
            }
        }
    });
    let response = after_timeout(|| client.response());
    assert_eq!(response.status(), 408);
    client.expect_closed();
    drop(stop);
    trickle.join().expect("it does not panic");
    assert_eq!(server.connections().len(), 0);
}

#[test]
fn head_of_a_later_request_has_its_own_time() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("head_timeout"));
    let mut client = baton.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").status(), 200);
    }
    client.send("GET /").expect("the connection is open");
    after_timeout(|| assert_request_timeout(&mut client));
}

#[test]
fn connection_without_a_request_is_closed_silently() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("head_timeout"));
    let mut client = baton.client();
    assert_eq!(after_timeout(|| client.rest()).expect("an orderly end"), b"");
}

#[test]
fn idle_connection_is_closed_silently() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("idle_timeout"));
    let mut client = baton.client();
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(after_timeout(|| client.rest()).expect("an orderly end"), b"");
}

#[test]
fn slow_server_does_not_make_its_client_idle() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_signal()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")?;
        exchange.wait_for_end()
    });
    let baton = Baton::with(&[&server], &listener("idle_timeout"));
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    // Another client's time runs out meanwhile: when it has, so would this one's have.
    let mut idle = baton.client();
    idle.send("\r\n").expect("the connection is open");
    assert_eq!(idle.rest().expect("an orderly end"), b"");
    server.signal();
    assert_eq!(client.response().text(), "late");
}

#[test]
fn request_body_that_stops_is_answered_with_408() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("idle_timeout"));
    let mut client = baton.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").expect("the connection is open");
    after_timeout(|| assert_request_timeout(&mut client));
    server.wait_until("the connection is closed", |record| record.connections[0].is_ended);
    assert_eq!(server.requests(), []);
}

#[test]
fn request_body_that_goes_on_slowly_is_not_cut_off() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("idle_timeout"));
    let mut client = baton.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").expect("the connection is open");
    // Longer in all than the time-out, each part of it shorter.
    for _ in 0..8 {
        std::thread::sleep(TIMEOUT / 4);
        client.send("x").expect("the connection is open");
    }
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn client_that_stops_reading_is_cut_off() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        // Ends with an error when the program closes.
        loop {
            exchange.send([0; 64 * 1024])?;
        }
    });
    let baton = Baton::with(&[&server], &listener("idle_timeout"));
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    client.head().expect("a head comes");
    server.wait_until("the server is let go", |record| record.connections[0].is_ended);
    assert_eq!(client.rest().map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
}

#[test]
fn server_that_does_not_answer_is_given_up_with_504() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_end()
    });
    let baton = Baton::with(&[&server], &pool("response_timeout"));
    let mut client = baton.client();
    let response = after_timeout(|| client.get("/"));
    assert_eq!(response.status(), 504);
    let expected = "\"lb-test\"; error=http_response_timeout; next-hop=\"app1\"";
    assert_eq!(response.value("proxy-status"), Some(expected));
    assert_eq!(response.text(), "504 Gateway Timeout\nthe server did not answer in time\n");
    server.wait_until("the connection is closed", |record| record.connections[0].is_ended);
    // Asked once, although a GET could be asked again: the next server would be as slow for the client.
    assert_eq!(server.connections().len(), 1);
}

#[test]
fn server_that_begins_a_head_and_stops_is_given_up_with_504() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-")?;
        exchange.wait_for_end()
    });
    let baton = Baton::with(&[&server], &pool("response_timeout"));
    assert_eq!(after_timeout(|| baton.client().get("/")).status(), 504);
}

#[test]
fn response_that_stops_is_broken_off() {
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let server = Server::start(move |exchange| {
            exchange.request()?;
            exchange.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhel"))?;
            exchange.wait_for_end()
        });
        let baton = Baton::with(&[&server], &pool("response_timeout"));
        let mut client = baton.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
        client.head().expect("a head comes");
        let outcome = client.message(Kind::Response).map_err(|error| error.kind());
        assert!(outcome.is_err(), "{outcome:?}");
        server.wait_until("the connection is closed", |record| record.connections[0].is_ended);
    }
}

#[test]
fn response_that_goes_on_slowly_is_not_broken_off() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")?;
        for _ in 0..8 {
            std::thread::sleep(TIMEOUT / 4);
            exchange.send("x")?;
        }
        exchange.wait_for_end()
    });
    let baton = Baton::with(&[&server], &pool("response_timeout"));
    assert_eq!(baton.client().get("/").text(), "xxxxxxxx");
}

#[test]
fn time_that_a_client_takes_for_its_body_is_not_the_servers() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &pool("response_timeout"));
    let mut client = baton.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh").expect("the connection is open");
    server.wait_until("the request is under way", |record| record.connections.len() == 1);
    std::thread::sleep(TIMEOUT * 3);
    assert_eq!(client.ask("i").text(), "ok");
}

/// A port whose queue of connections is full, so that the kernel answers no further one.
fn silent_port() -> (Port, Vec<TcpStream>, std::net::TcpListener) {
    let port = Port::reserve();
    let listener = port.listen(0);
    let address: SocketAddr = port.address();
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        filling.push(stream);
        assert!(filling.len() < 100, "the queue does not fill");
    }
    (port, filling, listener)
}

#[test]
fn server_that_cannot_be_connected_to_in_time_is_given_up_with_504() {
    let (port, _filling, _listener) = silent_port();
    let baton = Baton::before_addresses(&[port.address()], &pool("connect_timeout"));
    let mut client = baton.client();
    let response = after_timeout(|| client.get("/"));
    assert_eq!(response.status(), 504);
    let expected = "\"lb-test\"; error=connection_timeout; next-hop=\"app1\"";
    assert_eq!(response.value("proxy-status"), Some(expected));
}

#[test]
fn server_that_cannot_be_connected_to_in_time_is_passed_over() {
    let (port, _filling, _listener) = silent_port();
    let server = Server::saying("ok");
    let baton = Baton::before_addresses(&[port.address(), server.address()], &pool("connect_timeout"));
    assert_eq!(after_timeout(|| baton.client().get("/")).text(), "ok");
}

#[test]
fn time_outs_hold_for_a_client_behind_another_that_is_served() {
    // One thread serves both: what one waits for must not keep the other's time from running.
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("head_timeout"));
    let mut slow = baton.client();
    slow.send("GET /").expect("the connection is open");
    let deadline = Instant::now() + PATIENCE;
    let mut busy = baton.client();
    slow.set_patience(Duration::from_millis(1));
    loop {
        assert_eq!(busy.get("/").status(), 200);
        match slow.fill() {
            Ok(true) => break,
            Ok(false) => panic!("closed without an answer"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
        assert!(Instant::now() < deadline, "the slow client is not answered");
    }
    assert_eq!(slow.response().status(), 408);
}
