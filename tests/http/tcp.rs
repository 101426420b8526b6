//! `protocol = "tcp"`: bytes on their way through, and the ends of connections.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::server::{Port, Server};
use crate::tls::Site;

fn settings(listener: &str) -> Settings {
    Settings { listener: format!("protocol = \"tcp\"\n{listener}"), ..Settings::default() }
}

fn tcp(servers: &[&Server]) -> Baton {
    Baton::with(servers, &settings(""))
}

/// A server that sends back what it gets, and ends when the client does.
fn echo() -> Server {
    Server::unrecorded(|exchange| {
        loop {
            let bytes = exchange.some(64 * 1024)?;
            if bytes.is_empty() {
                return Ok(());
            }
            exchange.send(bytes)?;
        }
    })
}

/// A server that says who it is, and then waits for the client's end.
fn named(name: &'static str) -> Server {
    Server::start(move |exchange| {
        exchange.send(name)?;
        exchange.wait_for_end()
    })
}

fn is_reset(read: &io::Result<Vec<u8>>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[test]
fn bytes_pass_in_both_directions_as_they_are() {
    let server = echo();
    let baton = tcp(&[&server]);
    let mut client = baton.client();
    for bytes in [&b"\0\r\n\xff"[..], b"GET / HTTP/9.9\r\n\r\n", b"x"] {
        client.send(bytes).expect("the connection is open");
        assert_eq!(client.exactly(bytes.len()).expect("it comes back"), bytes);
    }
}

#[test]
fn server_may_speak_first() {
    let server = named("220 welcome\r\n");
    let baton = tcp(&[&server]);
    assert_eq!(baton.client().exactly(13).expect("it greets"), b"220 welcome\r\n");
}

#[test]
fn end_of_the_clients_direction_is_passed_on_and_the_answer_still_comes() {
    let server = Server::start(|exchange| {
        let question = exchange.rest()?;
        exchange.send([b"asked: ", &question[..]].concat())
    });
    let baton = tcp(&[&server]);
    let mut client = baton.client();
    client.send("what").expect("the connection is open");
    client.finish();
    assert_eq!(client.rest().expect("an orderly end"), b"asked: what");
}

#[test]
fn end_of_the_servers_direction_is_passed_on_and_the_client_may_go_on() {
    let server = Server::start(|exchange| {
        exchange.send("enough")?;
        exchange.finish();
        exchange.wait_for_end()
    });
    let baton = tcp(&[&server]);
    let mut client = baton.client();
    assert_eq!(client.rest().expect("an orderly end"), b"enough");
    client.send("one more thing").expect("that direction is open");
    client.finish();
    server.wait_until("the client has ended", |record| record.connections[0].is_ended);
    assert_eq!(server.connections()[0].received, b"one more thing");
}

#[test]
fn reset_of_the_server_reaches_the_client_as_one() {
    let server = Server::start(|exchange| {
        exchange.exactly(3)?;
        exchange.reset_at_end();
        Ok(())
    });
    let baton = tcp(&[&server]);
    let mut client = baton.client();
    client.send("die").expect("the connection is open");
    assert!(is_reset(&client.rest()));
}

#[test]
fn reset_of_the_client_reaches_the_server_as_one() {
    let server = Server::start(|exchange| {
        let end = exchange.rest();
        assert!(is_reset(&end), "{end:?}");
        exchange.signal();
        Ok(())
    });
    let baton = tcp(&[&server]);
    let mut client = baton.client();
    client.send("hello").expect("the connection is open");
    server.wait_until("the bytes have come", |record| {
        record.connections.first().is_some_and(|connection| connection.received == b"hello")
    });
    SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).expect("the socket is open");
    drop(client);
    server.wait_until("the reset has come", |record| record.signals() == 1);
}

/// Bytes that repeat only after a long time, from a seed.
fn bytes_of(seed: u64, chunk: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..chunk).map(|_| random.u8(..)).collect()
}

#[test]
fn large_transfers_arrive_whole_in_both_directions_at_once() {
    const CHUNK: usize = 1024 * 1024;
    const CHUNKS: u64 = 48;
    let server = Server::unrecorded(|exchange| {
        let mut writer = exchange.stream().try_clone()?;
        let sender = std::thread::spawn(move || {
            (0..CHUNKS).try_for_each(|chunk| io::Write::write_all(&mut writer, &bytes_of(1000 + chunk, CHUNK)))
        });
        for chunk in 0..CHUNKS {
            assert!(exchange.exactly(CHUNK)? == bytes_of(chunk, CHUNK), "chunk {chunk} differs on its way up");
        }
        sender.join().expect("it does not panic")?;
        exchange.signal();
        Ok(())
    });
    let baton = tcp(&[&server]);
    let mut client = baton.client();
    let mut writer = client.stream().try_clone().expect("descriptors are left");
    let sender = std::thread::spawn(move || {
        (0..CHUNKS).try_for_each(|chunk| io::Write::write_all(&mut writer, &bytes_of(chunk, CHUNK)))
    });
    for chunk in 0..CHUNKS {
        let bytes = client.exactly(CHUNK).expect("it arrives");
        assert!(bytes == bytes_of(1000 + chunk, CHUNK), "chunk {chunk} differs on its way down");
    }
    sender.join().expect("it does not panic").expect("all of it was sent");
    server.wait_until("all of it has arrived", |record| record.signals() == 1);
}

#[test]
fn client_that_reads_nothing_holds_up_the_server_and_fills_no_memory() {
    let server = Server::unrecorded(|exchange| {
        exchange.set_write_patience(Duration::from_millis(500));
        while exchange.send(vec![b'x'; 1024 * 1024]).is_ok() {}
        exchange.signal();
        exchange.wait_for_end()
    });
    let baton = tcp(&[&server]);
    let mut client = baton.client();
    client.send("go").expect("the connection is open");
    assert_eq!(client.exactly(1).expect("it begins"), b"x");
    let before = baton.worker_memory();
    server.wait_until("the server can send no more", |record| record.signals() == 1);
    let grown = baton.worker_memory().saturating_sub(before);
    assert!(grown < 4 * 1024 * 1024, "{grown} bytes");
}

#[test]
fn connection_on_which_nothing_moves_is_broken_off() {
    let server = named("hello");
    let baton = Baton::with(&[&server], &settings("idle_timeout = \"300ms\""));
    let mut client = baton.client();
    assert_eq!(client.exactly(5).expect("it greets"), b"hello");
    let started = Instant::now();
    client.expect_closed();
    let taken = started.elapsed();
    assert!((Duration::from_millis(200)..Duration::from_secs(4)).contains(&taken), "{taken:?}");
    server.wait_until("the server's side has ended as well", |record| record.connections[0].is_ended);
}

#[test]
fn connection_on_which_one_direction_moves_is_not_idle() {
    let server = Server::start(|exchange| {
        for _ in 0..30 {
            exchange.send("x")?;
            // No synchronisation: the time between two bytes is what is tested.
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    let baton = Baton::with(&[&server], &settings("idle_timeout = \"2500ms\""));
    assert_eq!(baton.client().rest().expect("an orderly end"), [b'x'; 30]);
}

#[test]
fn connections_go_to_each_server_in_turn() {
    let (one, two) = (named("1"), named("2"));
    let baton = tcp(&[&one, &two]);
    let answers: Vec<_> = (0..4).map(|_| baton.client().exactly(1).expect("it greets")).collect();
    assert_eq!(answers, [b"1", b"2", b"1", b"2"]);
}

#[test]
fn server_that_refuses_is_passed_over() {
    let (down, server) = (Port::reserve(), named("up"));
    let baton = Baton::before_addresses(&[down.address(), server.address()], &settings(""));
    for _ in 0..3 {
        assert_eq!(baton.client().exactly(2).expect("it greets"), b"up");
    }
}

#[test]
fn client_is_reset_when_no_server_can_be_reached() {
    let down = Port::reserve();
    let baton = Baton::before_addresses(&[down.address()], &settings(""));
    assert!(is_reset(&baton.client().rest()));
}

#[test]
fn five_servers_are_tried_and_no_more() {
    let (ports, server) = ([(); 6].map(|()| Port::reserve()), named("up"));
    let mut addresses: Vec<SocketAddr> = ports.iter().map(Port::address).collect();
    addresses.push(server.address());
    let baton = Baton::before_addresses(&addresses, &settings(""));
    assert!(is_reset(&baton.client().rest()));
    // It begins where the first one gave up.
    assert_eq!(baton.client().exactly(2).expect("it greets"), b"up");
}

#[test]
fn server_that_does_not_answer_the_connect_is_passed_over_in_time() {
    // Its queue is full: further connects are not answered.
    let port = Port::reserve();
    let _listener = port.listen(0);
    let _queued: Vec<_> = (0..4)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("it is open");
            let _in_progress = socket.connect(&port.address().into());
            socket
        })
        .collect();
    let server = named("up");
    let pool = "connect_timeout = \"200ms\"".to_owned();
    let baton = Baton::before_addresses(&[port.address(), server.address()], &Settings { pool, ..settings("") });
    assert_eq!(baton.client().exactly(2).expect("it greets"), b"up");
}

#[test]
fn client_of_this_machine_that_leaves_without_a_word_bothers_no_server() {
    let server = named("hello");
    let baton = tcp(&[&server]);
    for _ in 0..5 {
        let mut client = baton.client();
        client.finish();
        assert_eq!(client.rest().expect("an orderly end"), b"");
    }
    assert_eq!(server.connections().len(), 0);
}

#[test]
fn connections_beyond_the_limit_wait() {
    let server = named("hello");
    let baton = Baton::with(&[&server], &settings("connections_max = 1"));
    let mut first = baton.client();
    assert_eq!(first.exactly(5).expect("it greets"), b"hello");
    let mut second = baton.client();
    second.set_patience(Duration::from_millis(300));
    assert_eq!(second.fill().map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
    second.set_patience(PATIENCE);
    drop(first);
    assert_eq!(second.exactly(5).expect("it greets"), b"hello");
}

#[test]
fn stop_lets_a_connection_go_on_to_its_end() {
    let server = echo();
    let mut baton = tcp(&[&server]);
    let mut client = baton.client();
    client.send("before").expect("the connection is open");
    assert_eq!(client.exactly(6).expect("it comes back"), b"before");
    baton.terminate();
    baton.wait_for_log("worker drains");
    client.send("after").expect("the connection is open");
    assert_eq!(client.exactly(5).expect("it comes back"), b"after");
    client.finish();
    assert_eq!(client.rest().expect("an orderly end"), b"");
    assert_eq!(baton.wait().code(), Some(0));
}

#[test]
fn stop_ends_connections_after_the_drain_timeout() {
    let server = echo();
    let worker = "drain_timeout = \"300ms\"".to_owned();
    let mut baton = Baton::with(&[&server], &Settings { worker, ..settings("") });
    let mut client = baton.client();
    client.send("x").expect("the connection is open");
    assert_eq!(client.exactly(1).expect("it comes back"), b"x");
    let started = Instant::now();
    baton.terminate();
    assert_eq!(baton.wait().code(), Some(0));
    let taken = started.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(4)).contains(&taken), "{taken:?}");
    client.expect_closed();
}

#[test]
fn tls_is_ended_here_where_the_listener_has_certificates() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "protocol = \"tcp\"", "");
    let output = site.curl("a.example", 0, &["--data", "hello"]);
    assert_eq!((output.code, output.text().as_str()), (Some(0), "ok"), "{}", output.stderr);
    let request = server.request();
    assert_eq!((request.start.as_str(), request.text().as_str()), ("POST /path HTTP/1.1", "hello"));
    // It is the client's own, untouched.
    assert_eq!(request.value("x-forwarded-for"), None);
}

#[test]
fn large_answer_passes_through_tls() {
    let body = "0123456789abcdef".repeat(256 * 1024);
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let site = Site::before(&server, "protocol = \"tcp\"", "");
    let output = site.curl("a.example", 0, &[]);
    assert_eq!((output.code, output.stdout.len()), (Some(0), 4 * 1024 * 1024), "{}", output.stderr);
    assert!(output.stdout == body.as_bytes());
}

#[test]
fn handshake_that_stops_ends_with_the_time_for_a_head() {
    let server = named("hello");
    let site = Site::before(&server, "protocol = \"tcp\"\nhead_timeout = \"300ms\"", "");
    let mut client = Client::connect(site.baton.address());
    client.send(b"\x16\x03\x01\x02\x00\x01").expect("the connection is open");
    client.expect_closed();
    assert_eq!(server.connections().len(), 0);
}
