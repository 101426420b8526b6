//! Which requests are tried again on another server, and how long one may take in all.

use std::time::{Duration, Instant};

use crate::baton::{Baton, Settings};
use crate::server::Server;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";

fn before(servers: &[&Server], pool: &str) -> Baton {
    Baton::with(servers, &Settings { pool: pool.to_owned(), ..Settings::default() })
}

/// A server that reads a request and closes.
fn closing() -> Server {
    Server::start(|exchange| exchange.request().map(|_| ()))
}

#[test]
fn a_chosen_status_is_tried_again_elsewhere_when_the_method_is_idempotent() {
    let (busy, good) = (Server::answering(BUSY), Server::saying("good"));
    let baton = before(&[&busy, &good], "retries = { on = [\"503\"] }");
    let mut client = baton.client();
    for _ in 0..4 {
        assert_eq!(client.ask(GET).text(), "good");
    }
    let (first, second) = (client.ask(POST), client.ask(POST));
    let mut statuses = [first.status(), second.status()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}

#[test]
fn a_status_that_is_not_chosen_passes() {
    let (busy, good) = (Server::answering(BUSY), Server::saying("good"));
    let baton = before(&[&busy, &good], "retries = { on = [\"502\"] }");
    let mut client = baton.client();
    let answers = [client.ask(GET).text(), client.ask(GET).text()];
    assert_eq!(answers, ["busy", "good"]);
}

#[test]
fn the_last_answer_passes_when_no_server_is_left() {
    let servers = [Server::answering(BUSY), Server::answering(BUSY)];
    let baton = before(&[&servers[0], &servers[1]], "retries = { on = [\"503\"] }");
    let response = baton.client().ask(GET);
    assert_eq!((response.status(), response.text().as_str()), (503, "busy"));
    assert_eq!(servers.map(|server| server.requests().len()), [1, 1]);
}

#[test]
fn a_body_is_sent_again_only_when_it_was_kept() {
    let (busy, good) = (Server::answering(BUSY), Server::saying("good"));
    let baton = before(&[&busy, &good], "retries = { on = [\"503\"], replay_body_max = 2 }");
    let mut client = baton.client();
    for _ in 0..4 {
        assert_eq!(client.ask(PUT).text(), "good");
    }
    assert!(good.requests().iter().all(|request| request.text() == "hi"), "{:?}", good.requests());
    let longer = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nhey";
    let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    for request in [longer, chunked, POST] {
        let mut statuses = [client.ask(request).status(), client.ask(request).status()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 503], "{request}");
    }
}

#[test]
fn a_broken_connection_is_tried_again_elsewhere_unless_that_is_not_wanted() {
    let (broken, good) = (closing(), Server::saying("good"));
    let baton = before(&[&broken, &good], "");
    assert_eq!(baton.client().ask(GET).text(), "good");
    let baton = before(&[&broken, &good], "retries = { on = [\"connect_failure\"] }");
    let response = baton.client().ask(GET);
    assert_eq!(response.status(), 502);
    assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=connection_terminated; next-hop=\"app1\""));
}

#[test]
fn without_budget_nothing_is_tried_again_but_what_reached_nobody() {
    let (mut broken, good) = (closing(), Server::saying("good"));
    let baton = before(&[&broken, &good], "retries = { budget_percent = 0, budget_per_second = 0 }");
    assert_eq!(baton.client().ask(GET).status(), 502);
    broken.pause();
    let mut client = baton.client();
    for _ in 0..4 {
        assert_eq!(client.ask(GET).text(), "good");
    }
}

#[test]
fn a_request_is_tried_so_often_and_not_more() {
    let servers = [closing(), closing(), closing()];
    let all: Vec<_> = servers.iter().collect();
    for (attempts, expected) in [(1, 1), (2, 2), (3, 3)] {
        let baton = before(&all, &format!("retries = {{ attempts = {attempts} }}"));
        let seen = || servers.iter().map(|server| server.requests().len()).sum::<usize>();
        let already = seen();
        assert_eq!(baton.client().ask(GET).status(), 502);
        assert_eq!(seen() - already, expected);
    }
}

#[test]
fn a_slow_server_is_left_for_another_when_that_is_wanted() {
    let slow = Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_end()
    });
    let good = Server::saying("good");
    let pool = "response_timeout = \"100ms\"\nretries = { on = [\"response_timeout\"] }";
    let baton = before(&[&slow, &good], pool);
    assert_eq!(baton.client().ask(GET).text(), "good");
    // It may have been executed.
    let mut statuses = [baton.client().ask(POST).status(), baton.client().ask(POST).status()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
}

#[test]
fn a_request_takes_no_longer_than_its_time_in_all() {
    let slow = || {
        Server::start(|exchange| {
            exchange.request()?;
            exchange.wait_for_end()
        })
    };
    let servers = [slow(), slow(), slow()];
    let pool = "response_timeout = \"200ms\"\nrequest_timeout = \"300ms\"\nretries = { on = [\"response_timeout\"] }";
    let baton = before(&[&servers[0], &servers[1], &servers[2]], pool);
    let start = Instant::now();
    let response = baton.client().ask(GET);
    assert_eq!(response.status(), 504);
    let fault = Some("\"lb-test\"; error=http_response_timeout; next-hop=\"app2\"");
    assert_eq!(response.value("proxy-status"), fault);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(servers.map(|server| server.requests().len()), [1, 1, 0]);
}

#[test]
fn a_response_that_trickles_is_broken_off_when_the_time_is_over() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
        loop {
            exchange.send("x")?;
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let baton = before(&[&server], "response_timeout = \"10s\"\nrequest_timeout = \"300ms\"");
    let mut client = baton.client();
    client.send(GET).unwrap();
    assert_eq!(client.head().unwrap().status(), 200);
    let end = client.rest().map_err(|error| error.kind());
    assert!(matches!(end, Err(std::io::ErrorKind::ConnectionReset)), "{end:?}");
}

#[test]
fn a_body_has_a_time_of_its_own_between_its_parts() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")?;
        exchange.wait_for_end()
    });
    let baton = before(&[&server], "response_timeout = \"1h\"\nbody_timeout = \"100ms\"");
    let mut client = baton.client();
    client.send(GET).unwrap();
    assert_eq!(client.head().unwrap().status(), 200);
    let end = client.rest().map_err(|error| error.kind());
    assert!(matches!(end, Err(std::io::ErrorKind::ConnectionReset)), "{end:?}");
}
