//! Servers where requests fare badly are ejected, and breakers open: what clients get meanwhile, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::server::Server;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
const BROKEN: &str = "HTTP/1.1 500 Broken\r\nContent-Length: 3\r\n\r\nbad";

fn before(servers: &[&Server], pool: &str) -> Baton {
    Baton::with(servers, &Settings { pool: pool.to_owned(), ..Settings::default() })
}

/// A server that is good or bad as the switch says.
fn switched(is_bad: &Arc<AtomicBool>) -> Server {
    let is_bad = Arc::clone(is_bad);
    Server::start(move |exchange| {
        loop {
            exchange.request()?;
            exchange.send(if is_bad.load(Ordering::SeqCst) { BROKEN } else { OK })?;
        }
    })
}

/// A server that accepts, reads, and never answers.
fn zombie() -> Server {
    Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_end()
    })
}

fn server(status: &Value, index: usize) -> &Value {
    &status["pools"][0]["servers"][index]
}

fn is_ejected(status: &Value, index: usize) -> bool {
    server(status, index)["ejection"].is_object()
}

/// Asks until the answer is as wished.
fn ask_until(baton: &Baton, description: &str, is_as_wished: impl Fn(u16) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut client = baton.client();
    loop {
        let status = client.ask(GET).status();
        if is_as_wished(status) {
            return;
        }
        assert!(Instant::now() < deadline, "{description}: still {status}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_that_refuses_connections_is_ejected_and_nobody_notices() {
    let (mut first, second) = (Server::saying("good"), Server::saying("good"));
    first.pause();
    let baton = before(&[&first, &second], "");
    let mut client = baton.client();
    for _ in 0..20 {
        assert_eq!(client.ask(GET).status(), 200);
    }
    baton.wait_for_log("a server was ejected");
    let status = baton.wait_for_status(|status| is_ejected(status, 0));
    assert!(!is_ejected(&status, 1), "{status:#}");
    assert_eq!(server(&status, 0)["ejection"]["reason"], "5 requests in a row got no response");
    assert_eq!(server(&status, 0)["up"], true);
    let text = baton.done(&["status"]);
    assert!(text.contains("ejected for ") && text.contains("5 requests in a row got no response"), "{text}");
}

#[test]
fn an_ejected_server_is_back_after_its_time_and_serves() {
    let (mut first, second) = (Server::saying("first"), Server::saying("second"));
    first.pause();
    let baton = before(&[&first, &second], "outliers = { ejection_time = \"300ms\" }");
    let mut client = baton.client();
    (0..20).for_each(|_| assert_eq!(client.ask(GET).text(), "second"));
    baton.wait_for_log("a server was ejected");
    first.resume();
    baton.wait_for_log("a server is back from its ejection");
    let deadline = Instant::now() + PATIENCE;
    while client.ask(GET).text() != "first" {
        assert!(Instant::now() < deadline, "it does not serve");
    }
}

#[test]
fn a_zombie_is_out_after_as_many_time_outs_as_count() {
    let (zombie, good) = (zombie(), Server::saying("good"));
    let pool = "response_timeout = \"100ms\"\noutliers = { consecutive_failures = 3 }";
    let baton = before(&[&zombie, &good], pool);
    let mut client = baton.client();
    let statuses: Vec<_> = (0..20).map(|_| client.ask(GET).status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 504).count(), 3, "{statuses:?}");
    assert_eq!(zombie.requests().len(), 3);
    baton.wait_for_status(|status| is_ejected(status, 0));
}

#[test]
fn checks_take_a_zombie_out_within_fall_times_their_time_out() {
    // It accepts, as the kernel does that for it, and nobody ever answers.
    let port = crate::server::Port::reserve();
    let _never_accepted = port.listen(128);
    let good = Server::saying("good");
    let settings = Settings {
        pool: "outliers = { consecutive_failures = 0 }\n\
               [pool.health]\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 2\nrise = 1"
            .to_owned(),
        ..Settings::default()
    };
    let baton = Baton::before_addresses(&[port.address(), good.address()], &settings);
    baton.wait_for_status(|status| server(status, 0)["up"] == false && server(status, 1)["up"] == true);
    let mut client = baton.client();
    (0..10).for_each(|_| assert_eq!(client.ask(GET).text(), "good"));
}

#[test]
fn a_server_that_resets_every_connection_is_ejected() {
    let resetting = Server::start(|exchange| {
        exchange.request()?;
        exchange.reset_at_end();
        Ok(())
    });
    let good = Server::saying("good");
    let baton = before(&[&resetting, &good], "");
    let mut client = baton.client();
    (0..20).for_each(|_| assert_eq!(client.ask(GET).status(), 200));
    baton.wait_for_status(|status| is_ejected(status, 0));
    assert_eq!(resetting.requests().len(), 5);
}

#[test]
fn a_server_that_fails_half_the_time_is_ejected_for_its_share() {
    let count = AtomicUsize::new(0);
    let flaky = Server::start(move |exchange| {
        loop {
            exchange.request()?;
            let is_bad = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            exchange.send(if is_bad { BROKEN } else { OK })?;
        }
    });
    let good = [Server::saying("good"), Server::saying("good")];
    let pool = "outliers = { error_percent = 40, requests_min = 20, consecutive_errors = 5 }";
    let baton = before(&[&flaky, &good[0], &good[1]], pool);
    let mut client = baton.client();
    let deadline = Instant::now() + PATIENCE;
    while !is_ejected(&baton.status(), 0) {
        (0..30).for_each(|_| drop(client.ask(GET)));
        assert!(Instant::now() < deadline, "it is not ejected");
    }
    let status = baton.status();
    let reason = server(&status, 0)["ejection"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("requests failed within 10 s"), "{reason}");
    assert!(!is_ejected(&status, 1) && !is_ejected(&status, 2));
    (0..10).for_each(|_| assert_eq!(client.ask(GET).status(), 200));
}

#[test]
fn a_server_that_is_much_slower_than_the_others_is_ejected() {
    let slow = Server::start(|exchange| {
        loop {
            exchange.request()?;
            std::thread::sleep(Duration::from_millis(200));
            exchange.send(OK)?;
        }
    });
    let good = [Server::saying("good"), Server::saying("good")];
    let pool = "outliers = { latency_factor = 5, latency_min = \"100ms\", requests_min = 5 }";
    let baton = before(&[&slow, &good[0], &good[1]], pool);
    let mut client = baton.client();
    let deadline = Instant::now() + PATIENCE;
    while !is_ejected(&baton.status(), 0) {
        (0..6).for_each(|_| assert_eq!(client.ask(GET).status(), 200));
        assert!(Instant::now() < deadline, "it is not ejected");
    }
    let status = baton.status();
    let reason = server(&status, 0)["ejection"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.starts_with("took ") && reason.contains("on average within 10 s, the others "), "{reason}");
}

#[test]
fn the_last_server_stays_whatever_it_does() {
    let mut server = Server::saying("good");
    server.pause();
    let baton = before(&[&server], "");
    let mut client = baton.client();
    (0..10).for_each(|_| assert_eq!(client.ask(GET).status(), 502));
    server.resume();
    assert_eq!(client.ask(GET).status(), 200);
    assert!(!is_ejected(&baton.status(), 0));
}

#[test]
fn with_all_servers_down_the_answer_is_503_at_once_and_all_is_well_when_one_is_back() {
    let mut servers = [Server::saying("good"), Server::saying("good")];
    servers.iter_mut().for_each(Server::pause);
    let health = "health = { type = \"tcp\", interval = \"100ms\", fall = 1, rise = 1 }";
    let baton = before(&[&servers[0], &servers[1]], health);
    baton.wait_for_status(|status| (0..2).all(|index| server(status, index)["up"] == false));
    let start = Instant::now();
    let response = baton.client().ask(GET);
    assert_eq!(response.status(), 503);
    assert!(response.text().contains("no server of pool app is up"), "{}", response.text());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    servers[1].resume();
    ask_until(&baton, "back when one is", |status| status == 200);
}

#[test]
fn a_connection_of_tcp_ends_at_once_while_all_servers_are_down_and_passes_when_one_is_back() {
    let mut echo = Server::unrecorded(|exchange| {
        loop {
            let bytes = exchange.some(1024)?;
            if bytes.is_empty() {
                return Ok(());
            }
            exchange.send(bytes)?;
        }
    });
    echo.pause();
    let settings = Settings {
        listener: "protocol = \"tcp\"".to_owned(),
        pool: "health = { type = \"tcp\", interval = \"100ms\", fall = 1, rise = 1 }".to_owned(),
        ..Settings::default()
    };
    let baton = Baton::with(&[&echo], &settings);
    baton.wait_for_status(|status| server(status, 0)["up"] == false);
    let start = Instant::now();
    baton.client().expect_closed();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    echo.resume();
    baton.wait_for_status(|status| server(status, 0)["up"] == true);
    let mut client = baton.client();
    client.send("hello").expect("the connection is open");
    assert_eq!(client.exactly(5).expect("it comes back"), b"hello");
}

#[test]
fn the_breaker_of_a_pool_opens_answers_at_once_and_closes_after_trials() {
    let is_bad = Arc::new(AtomicBool::new(true));
    let server = switched(&is_bad);
    let pool = "breaker = { consecutive_errors = 5, open_time = \"500ms\", trials = 1, successes = 2 }";
    let baton = before(&[&server], pool);
    let mut client = baton.client();
    (0..5).for_each(|_| assert_eq!(client.ask(GET).status(), 500));
    let response = client.ask(GET);
    assert_eq!((response.status(), response.value("retry-after")), (503, Some("1")));
    assert!(response.text().contains("the circuit breaker of pool app is open"), "{}", response.text());
    assert!(response.text().contains("5 requests in a row failed"), "{}", response.text());
    assert_eq!(server.requests().len(), 5, "it was not asked again");
    is_bad.store(false, Ordering::SeqCst);
    ask_until(&baton, "closes", |status| status == 200);
    ask_until(&baton, "closes", |status| status == 200);
    let status = baton.wait_for_status(|status| status["pools"][0]["breaker"]["state"] == "closed");
    assert_eq!(status["pools"][0]["breaker"]["meaning"], "closed: requests pass");
    baton.wait_for_log("a circuit breaker closed");
}

#[test]
fn the_breaker_of_a_server_leaves_its_requests_to_the_others() {
    let is_bad = Arc::new(AtomicBool::new(true));
    let (bad, good) = (switched(&is_bad), Server::saying("good"));
    let pool = "server_breaker = { consecutive_errors = 3, open_time = \"3s\", trials = 1, successes = 1 }";
    let baton = before(&[&bad, &good], pool);
    let mut client = baton.client();
    let statuses: Vec<_> = (0..20).map(|_| client.ask(GET).status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 3, "{statuses:?}");
    baton.wait_for_status(|status| server(status, 0)["breaker"]["state"] == "open");
    let text = baton.done(&["status"]);
    assert!(text.contains("breaker open: no request passes"), "{text}");
    is_bad.store(false, Ordering::SeqCst);
    baton.wait_for_log("a circuit breaker lets requests through on trial");
    let seen = bad.requests().len();
    let deadline = Instant::now() + PATIENCE;
    while bad.requests().len() < seen + 5 {
        assert_eq!(client.ask(GET).status(), 200);
        assert!(Instant::now() < deadline, "it gets no requests");
    }
}

#[test]
fn while_every_breaker_is_open_the_answer_says_so_and_when_to_come_back() {
    let bad = [Server::answering(BROKEN), Server::answering(BROKEN)];
    let pool = "server_breaker = { consecutive_errors = 1, open_time = \"30s\" }";
    let baton = before(&[&bad[0], &bad[1]], pool);
    let mut client = baton.client();
    assert_eq!([client.ask(GET).status(), client.ask(GET).status()], [500, 500]);
    let response = client.ask(GET);
    assert_eq!(response.status(), 503);
    assert!(response.text().contains("its circuit breaker is open"), "{}", response.text());
    let seconds: u32 = response.value("retry-after").and_then(|value| value.parse().ok()).expect("it says when");
    assert!((20..=33).contains(&seconds), "{seconds}");
}

#[test]
fn requests_over_the_limit_of_a_breaker_are_answered_at_once() {
    let slow = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.wait_for_signal()?;
            exchange.send(OK)?;
        }
    });
    let baton = before(&[&slow], "breaker = { in_flight_max = 1 }");
    let mut first = baton.client();
    first.send(GET).expect("the connection is open");
    slow.wait_until("the first request is there", |record| record.requests.len() == 1);
    let response = baton.client().ask(GET);
    assert_eq!((response.status(), response.value("retry-after")), (503, Some("1")));
    assert!(response.text().contains("as many requests under way as it may"), "{}", response.text());
    slow.signal();
    assert_eq!(first.response().status(), 200);
    slow.signal();
    ask_until(&baton, "there is room again", |status| status == 200);
}
