//! Connections whose clients say nothing for a while: they take little memory, and are as good as before.

use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::server::Server;

/// Clients have this long for a head.
const HEAD_TIMEOUT: &str = "head_timeout = \"300ms\"";

fn started(server: &Server) -> Baton {
    Baton::with(&[server], &Settings { listener: HEAD_TIMEOUT.to_owned(), ..Settings::default() })
}

/// Waits for as long as it takes a client to be too slow: by then, others have rested for long.
fn let_time_pass(baton: &Baton) {
    let mut slow = baton.client();
    slow.send("GET").expect("the connection is open");
    assert_eq!(slow.response().status(), 408);
}

#[test]
fn connection_that_has_rested_is_as_good_as_before() {
    let server = Server::saying("ok");
    let baton = started(&server);
    let mut client = baton.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
        assert_eq!(client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").text(), "ok");
        let_time_pass(&baton);
    }
    assert_eq!(server.requests().len(), 6);
}

#[test]
fn requests_that_come_together_after_a_rest_are_all_answered() {
    let server = Server::saying("ok");
    let baton = started(&server);
    let mut client = baton.client();
    assert_eq!(client.get("/").status(), 200);
    let_time_pass(&baton);
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20)).expect("the connection is open");
    (0..20).for_each(|_| assert_eq!(client.response().status(), 200));
}

#[test]
fn head_that_begins_after_a_rest_has_its_own_time() {
    let server = Server::saying("ok");
    let baton = started(&server);
    let mut client = baton.client();
    assert_eq!(client.get("/").status(), 200);
    let_time_pass(&baton);
    client.send("GET / HT").expect("the connection is open");
    assert_eq!(client.response().status(), 408);
    client.expect_closed();
}

#[test]
fn malformed_request_after_a_rest_is_refused() {
    let server = Server::saying("ok");
    let baton = started(&server);
    let mut client = baton.client();
    assert_eq!(client.get("/").status(), 200);
    let_time_pass(&baton);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost : a\r\n\r\n").status(), 400);
    client.expect_closed();
}

#[test]
fn response_that_comes_slowly_is_no_rest() {
    let server = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nla")?;
            exchange.wait_for_signal()?;
            exchange.send("st")?;
        }
    });
    let baton = started(&server);
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    assert_eq!(client.head().expect("a head comes").status(), 200);
    let_time_pass(&baton);
    server.signal();
    assert_eq!(client.exactly(4).expect("the rest comes"), b"last");
}

#[test]
fn resting_connections_end_when_the_program_does() {
    let server = Server::saying("ok");
    let mut baton = started(&server);
    let mut client = baton.client();
    assert_eq!(client.get("/").status(), 200);
    let_time_pass(&baton);
    baton.terminate();
    client.expect_closed();
    assert!(baton.wait().success());
}

#[test]
fn idle_connections_take_little_memory() {
    const COUNT: usize = 2_000;
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let ask = || {
        let mut client = baton.client();
        assert_eq!(client.get("/").status(), 200);
        client
    };
    // What the program needs once is not theirs.
    drop((0..100).map(|_| ask()).collect::<Vec<Client>>());
    let before = baton.worker_memory();
    let mut clients: Vec<Client> = (0..COUNT).map(|_| ask()).collect();
    let each = baton.worker_memory().saturating_sub(before) / COUNT as u64;
    assert!(each <= 12 * 1024, "{each} bytes for each connection");
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
}
