//! Metrics of requests: what was answered, by whom, how long it took, and what went through.

use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Directory, Settings};
use crate::client::Client;
use crate::server::{Port, Server};

/// The value of a sample.
fn sample(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {page}")).parse().expect("a value is a number")
}

fn metrics(admin: &Port) -> String {
    Client::connect(admin.address()).ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").text()
}

/// Waits until a counter has a value.
fn metrics_when(admin: &Port, name: &str, value: f64) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = metrics(admin);
        if sample(&page, name).to_bits() == value.to_bits() {
            return page;
        }
        assert!(Instant::now() < deadline, "{name} is not {value} in {page}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn requests_are_counted_by_listener_pool_server_and_class() {
    let server = Server::start(|exchange| {
        loop {
            let request = exchange.request()?;
            let status = if request.start.contains("/bad") { "503 Busy" } else { "200 OK" };
            exchange.send(format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nbody"))?;
        }
    });
    let (admin, dead, directory) = (Port::reserve(), Port::reserve(), Directory::new());
    let log = directory.path("access.log");
    let worker = format!("[admin]\nbind = \"{}\"\n[access_log]\nto = \"{}\"", admin.address(), log.display());
    let settings =
        Settings { worker, listener: "rate_limit = { requests = 5, per = \"1h\" }".to_owned(), ..Settings::default() };
    let baton = Baton::before_addresses(&[server.address(), dead.address()], &settings);
    let mut client = baton.client();
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(client.ask(post).status(), 200);
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(client.get("/bad").status(), 503);
    assert_eq!(client.get("/").status(), 429);

    let page = metrics_when(&admin, "baton_listener_responses_total{listener=\"http\",class=\"4xx\"}", 1.0);
    let of = |name: &str| sample(&page, name);
    let expect = |name: &str, value: u32| assert_eq!(of(name).to_bits(), f64::from(value).to_bits(), "{name}: {page}");
    expect("baton_listener_responses_total{listener=\"http\",class=\"2xx\"}", 4);
    expect("baton_listener_responses_total{listener=\"http\",class=\"5xx\"}", 1);
    expect("baton_pool_responses_total{pool=\"app\",class=\"2xx\"}", 4);
    expect("baton_pool_responses_total{pool=\"app\",class=\"4xx\"}", 0);
    expect("baton_pool_responses_total{pool=\"app\",class=\"5xx\"}", 1);
    expect("baton_server_responses_total{pool=\"app\",server=\"app1\",class=\"2xx\"}", 4);
    expect("baton_server_responses_total{pool=\"app\",server=\"app2\",class=\"2xx\"}", 0);
    expect("baton_listener_received_bytes_total{listener=\"http\"}", 3);
    // Four bytes each of the server, and our own text.
    assert!(of("baton_listener_sent_bytes_total{listener=\"http\"}") > 20.0, "{page}");
    expect("baton_request_duration_seconds_count{listener=\"http\"}", 6);
    expect("baton_request_duration_seconds_bucket{listener=\"http\",le=\"+Inf\"}", 6);
    expect("baton_first_byte_seconds_count{pool=\"app\"}", 5);
    assert!(of("baton_request_duration_seconds_sum{listener=\"http\"}") > 0.0, "{page}");
    // Each second pick was of the server that is not there.
    assert!(of("baton_pool_retries_total{pool=\"app\"}") >= 1.0, "{page}");
    let lines = format!("baton_access_log_lines_total{{log=\"{}\"}}", log.display());
    metrics_when(&admin, &lines, 6.0);
    expect(&format!("baton_access_log_dropped_lines_total{{log=\"{}\"}}", log.display()), 0);

    let deadline = Instant::now() + PATIENCE;
    while !baton.done(&["status"]).contains("5 requests, 1 errors") {
        assert!(Instant::now() < deadline, "{}", baton.done(&["status"]));
        std::thread::sleep(Duration::from_millis(20));
    }
}
