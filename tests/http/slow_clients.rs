//! Clients that send or take bytes too slowly.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::limits::wait_for_refusals;
use crate::server::Server;

fn listener(keys: &str) -> Settings {
    Settings { listener: keys.to_owned(), ..Settings::default() }
}

/// Sends so many bytes each 20 ms until the sender that it gives is dropped.
fn trickle(client: &Client, bytes: &'static [u8]) -> std::sync::mpsc::Sender<()> {
    let mut stream = client.stream().try_clone().expect("descriptors are left");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        while std::io::Write::write_all(&mut stream, bytes).is_ok() {
            if stopped.recv_timeout(Duration::from_millis(20)) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    });
    stop
}

#[test]
fn body_that_trickles_is_answered_with_408() {
    let server = Server::saying("ok");
    // 50 bytes a second come, and the idle time-out never sees a pause.
    let baton = Baton::with(&[&server], &listener("body_rate_min = 1000\nrate_min_grace = \"500ms\""));
    let mut client = baton.client();
    let started = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").expect("the connection is open");
    let stop = trickle(&client, b"b");
    let response = client.response();
    assert_eq!((response.status(), response.value("connection")), (408, Some("close")));
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
    drop(stop);
    assert_eq!(server.requests().len(), 0);
    wait_for_refusals(&baton, "body_too_slow", 1);
}

#[test]
fn body_that_comes_at_the_rate_may_take_its_time() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("body_rate_min = 100\nrate_min_grace = \"1s\""));
    let mut client = baton.client();
    // Ten bytes each 20 ms are 500 a second: five times what is asked for, for three times the grace.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1500\r\n\r\n").expect("the connection is open");
    let started = Instant::now();
    let stop = trickle(&client, b"0123456789");
    assert_eq!(client.response().status(), 200);
    assert!(started.elapsed() > Duration::from_secs(2), "{:?}", started.elapsed());
    drop(stop);
    wait_for_refusals(&baton, "body_too_slow", 0);
}

#[test]
fn time_that_the_server_takes_is_not_the_clients() {
    // It reads nothing of the body until the test lets it.
    let server = Server::start(|exchange| {
        exchange.head()?;
        exchange.wait_for_signal()?;
        exchange.exactly(4_000_000)?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        exchange.wait_for_end()
    });
    let baton = Baton::with(&[&server], &listener("body_rate_min = 1000000\nrate_min_grace = \"200ms\""));
    let mut client = baton.client();
    let mut stream = client.stream().try_clone().expect("descriptors are left");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n").expect("the connection is open");
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut stream, &[b'b'; 4_000_000]));
    // Another client's time runs out meanwhile.
    let mut other = baton.client();
    other.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").expect("the connection is open");
    assert_eq!(other.response().status(), 408);
    server.signal();
    server.signal();
    assert_eq!(client.response().status(), 200);
    sender.join().expect("it does not panic").expect("all of it is taken");
}

#[test]
fn client_that_takes_its_response_too_slowly_is_reset() {
    const LEN: usize = 64 << 20;
    let server = Server::unrecorded(|exchange| {
        exchange.request()?;
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"))?;
        exchange.send(vec![b'r'; LEN])?;
        exchange.wait_for_end()
    });
    let limits = "response_rate_min = 100000000\nrate_min_grace = \"300ms\"\nidle_timeout = \"1h\"";
    let baton = Baton::with(&[&server], &listener(limits));
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    // It reads, so that it is never idle, and too little.
    let deadline = Instant::now() + PATIENCE;
    let mut read = 0;
    loop {
        match client.some(1_000) {
            Ok(bytes) if bytes.is_empty() => panic!("an orderly end after {read} bytes"),
            Ok(bytes) => read += bytes.len(),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
                break;
            }
        }
        assert!(Instant::now() < deadline && read < LEN, "it goes on after {read} bytes");
        std::thread::sleep(Duration::from_millis(5));
    }
    wait_for_refusals(&baton, "response_too_slow", 1);
}

#[test]
fn client_that_takes_its_response_at_the_rate_gets_all_of_it() {
    const LEN: usize = 24 << 20;
    let server = Server::unrecorded(|exchange| {
        exchange.request()?;
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"))?;
        exchange.send(vec![b'r'; LEN])?;
        exchange.wait_for_end()
    });
    // The kernel takes megabytes before it asks for more: what it has brought to the client meanwhile has to count.
    let limits = "response_rate_min = 1000000\nrate_min_grace = \"300ms\"";
    let baton = Baton::with(&[&server], &listener(limits));
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    assert_eq!(client.head().expect("a head comes").status(), 200);
    let mut read = 0;
    while read < LEN {
        let len = client.some(65_536).expect("the connection is open").len();
        assert!(len > 0, "it ended after {read} bytes");
        read += len;
        // About ten megabytes a second.
        std::thread::sleep(Duration::from_millis(6));
    }
    wait_for_refusals(&baton, "response_too_slow", 0);
}
