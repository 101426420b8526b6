//! Limits, stops and deaths of the program itself.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process, test_kill_process};

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::server::Server;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server that answers each request once the test lets it.
fn held() -> Server {
    Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.wait_for_signal()?;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    })
}

/// A client whose request has reached the server.
fn in_flight(baton: &Baton, server: &Server) -> Client {
    let mut client = baton.client();
    client.send(GET).expect("the connection is open");
    server.wait_until("the request has come", |record| record.requests.len() == 1);
    client
}

#[test]
fn connections_beyond_the_limit_wait_and_are_not_refused() {
    let server = Server::saying("ok");
    let settings = Settings { listener: "connections_max = 2".to_owned(), ..Settings::default() };
    let baton = Baton::with(&[&server], &settings);
    let (mut first, mut second) = (baton.client(), baton.client());
    assert_eq!(first.get("/").text(), "ok");
    assert_eq!(second.get("/").text(), "ok");
    let (mut third, mut fourth) = (baton.client(), baton.client());
    third.send(GET).expect("the connection is open");
    fourth.send(GET).expect("the connection is open");
    third.set_patience(Duration::from_millis(300));
    assert_eq!(third.fill().map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
    third.set_patience(PATIENCE);
    assert_eq!(second.get("/").text(), "ok");
    drop(first);
    assert_eq!(third.response().text(), "ok");
    drop(second);
    assert_eq!(fourth.response().text(), "ok");
}

#[test]
fn stop_lets_a_request_in_flight_complete_and_closes_idle_connections() {
    let server = held();
    let mut baton = Baton::before(&[&server]);
    let mut fresh = baton.client();
    let mut idle = baton.client();
    idle.send(GET).expect("the connection is open");
    server.signal();
    assert_eq!(idle.response().text(), "ok");
    server.wait_until("the first request has come", |record| record.requests.len() == 1);
    let mut busy = baton.client();
    busy.send(GET).expect("the connection is open");
    server.wait_until("the second request has come", |record| record.requests.len() == 2);
    baton.terminate();
    assert_eq!(idle.rest().expect("an orderly end"), b"");
    assert_eq!(fresh.rest().expect("an orderly end"), b"");
    server.signal();
    let response = busy.response();
    assert_eq!((response.text().as_str(), response.value("connection")), ("ok", Some("close")));
    busy.expect_closed();
    assert_eq!(baton.wait().code(), Some(0));
    baton.wait_for_log("baton has stopped");
}

#[test]
fn stop_lets_a_body_on_its_way_complete() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")?;
        exchange.wait_for_signal()?;
        exchange.send("two")
    });
    let mut baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send(GET).expect("the connection is open");
    client.head().expect("a head comes");
    assert_eq!(client.exactly(3).expect("the first part comes"), b"one");
    baton.terminate();
    baton.wait_for_log("worker drains");
    server.signal();
    assert_eq!(client.rest().expect("an orderly end"), b"two");
    assert_eq!(baton.wait().code(), Some(0));
}

#[test]
fn stop_does_not_wait_for_a_head_that_has_not_come() {
    let server = Server::saying("ok");
    let mut baton = Baton::before(&[&server]);
    let mut client = baton.client();
    assert_eq!(client.get("/").text(), "ok");
    client.send("GET / HTTP/1.1\r\nHo").expect("the connection is open");
    let started = Instant::now();
    baton.terminate();
    assert_eq!(baton.wait().code(), Some(0));
    // Well below head_timeout and drain_timeout, which are 10 s.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    client.expect_closed();
}

#[test]
fn stop_ends_after_the_drain_timeout_at_the_latest() {
    let server = held();
    let settings = Settings { worker: "drain_timeout = \"300ms\"".to_owned(), ..Settings::default() };
    let mut baton = Baton::with(&[&server], &settings);
    let mut client = in_flight(&baton, &server);
    let started = Instant::now();
    baton.terminate();
    assert_eq!(baton.wait().code(), Some(0));
    let taken = started.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(4)).contains(&taken), "{taken:?}");
    client.expect_closed();
}

#[test]
fn second_stop_does_not_wait_for_requests_in_flight() {
    let server = held();
    let mut baton = Baton::before(&[&server]);
    let mut client = in_flight(&baton, &server);
    let started = Instant::now();
    baton.terminate();
    baton.wait_for_log("worker drains");
    baton.terminate();
    assert_eq!(baton.wait().code(), Some(1));
    // Well below drain_timeout, which is 10 s.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    client.expect_closed();
}

#[test]
fn worker_that_is_killed_is_started_again_under_the_same_address() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    assert_eq!(client.get("/").text(), "ok");
    for count in 1..=2 {
        kill_process(baton.worker(), Signal::KILL).expect("the worker runs");
        baton.wait_for_logs(count, "the worker has ended reason=\"it was killed by signal 9\"");
        // The guard holds the socket: whoever connects meanwhile waits and is served.
        assert_eq!(baton.client().get("/").text(), "ok");
        baton.wait_for_logs(count + 1, "worker serves");
    }
    client.expect_closed();
}

#[test]
fn worker_ends_with_its_guard() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let worker = baton.worker();
    let mut client = baton.client();
    assert_eq!(client.get("/").text(), "ok");
    baton.kill();
    client.expect_closed();
    let deadline = Instant::now() + PATIENCE;
    while test_kill_process(worker).is_ok() && !is_zombie(worker) {
        assert!(Instant::now() < deadline, "the worker lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process has ended and nobody has asked how, as in a container without an init.
fn is_zombie(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}
