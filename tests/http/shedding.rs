//! Work that is turned away before it is too much.

use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::limits::wait_for_refusals;
use crate::server::Server;

fn worker(keys: &str) -> Settings {
    Settings { worker: keys.to_owned(), ..Settings::default() }
}

#[test]
fn request_beyond_as_many_as_may_be_under_way_is_503() {
    let server = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.wait_for_signal()?;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    });
    let baton = Baton::with(&[&server], &Settings { threads: 2, ..worker("requests_max = 2") });
    let ask = || {
        let mut client = baton.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
        client
    };
    let mut held = [ask(), ask()];
    server.wait_until("both requests have come", |record| record.requests.len() == 2);
    let mut third = baton.client();
    let response = third.get("/");
    assert_eq!((response.status(), response.value("retry-after")), (503, Some("1")));
    assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=http_request_denied"));
    assert_eq!(
        response.text(),
        "503 Service Unavailable\nas many requests are under way as this load balancer takes\n"
    );
    let deadline = Instant::now() + PATIENCE;
    while baton.status()["worker"]["load"]["requests"] != 2 {
        assert!(Instant::now() < deadline, "{}", baton.status()["worker"]);
    }
    (0..3).for_each(|_| server.signal());
    held.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    // The connection is as good as before. That the others have ended here is seen in their last bytes, or just after.
    let deadline = Instant::now() + PATIENCE;
    while third.get("/").status() != 200 {
        assert!(Instant::now() < deadline, "requests that have ended count for ever");
    }
    wait_for_refusals_at_least(&baton, 1);
}

fn wait_for_refusals_at_least(baton: &Baton, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while baton.status()["listeners"][0]["refused"]["requests_max"].as_u64() < Some(count) {
        assert!(Instant::now() < deadline, "{}", baton.status()["listeners"][0]);
    }
}

fn wait_for_pressure(baton: &Baton, levels: &[&str]) {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let status = baton.status();
        let load = &status["worker"]["load"];
        if load["pressure"].as_str().is_some_and(|level| levels.contains(&level)) {
            return;
        }
        assert!(Instant::now() < deadline, "{levels:?} is expected: {load}");
    }
}

/// Clients that send a part of a head each, which has to be kept in memory, until the worker has had enough.
fn fill(baton: &Baton) -> Vec<Client> {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(240 * 1024));
    let mut clients = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while baton.status()["worker"]["load"]["pressure"] == "none" {
        for _ in 0..20 {
            let mut client = baton.client();
            // At the limit nobody takes it.
            client.set_write_patience(Duration::from_millis(100));
            let _is_taken = client.send(&head);
            clients.push(client);
        }
        assert!(Instant::now() < deadline, "{} heads are taken", clients.len());
    }
    clients
}

#[test]
fn requests_are_503_before_memory_runs_out_and_served_again_when_it_is_back() {
    let server = Server::saying("ok");
    let settings = Settings { listener: "head_bytes_max = \"256KiB\"".to_owned(), ..worker("memory_max = \"64MiB\"") };
    let baton = Baton::with(&[&server], &settings);
    let mut client = baton.client();
    assert_eq!(client.get("/").status(), 200);
    let held = fill(&baton);
    let response = client.get("/");
    assert_eq!((response.status(), response.value("retry-after")), (503, Some("1")));
    assert_eq!(response.value("connection"), Some("close"), "a connection is memory as well");
    assert_eq!(response.text(), "503 Service Unavailable\nthis load balancer has no memory left for more requests\n");
    client.expect_closed();
    assert_eq!(server.requests().len(), 1);
    baton.wait_for_log("the worker is short of memory and answers requests with 503");
    wait_for_refusals(&baton, "memory", 1);
    assert_eq!(baton.status()["worker"]["restarts"], 0);
    drop(held);
    wait_for_pressure(&baton, &["none"]);
    // The kernel may still have had connections with a whole head each for us.
    let deadline = Instant::now() + PATIENCE;
    while baton.client().get("/").status() != 200 {
        assert!(Instant::now() < deadline, "memory that was given back counts for ever");
    }
    let memory = baton.worker_memory();
    assert!(memory < 64 << 20, "{memory}");
}
