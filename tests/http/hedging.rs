//! A second copy of a request that takes too long, for another server.

use std::fs;
use std::time::{Duration, Instant};

use h2::Reason;
use h2::server::Builder;

use crate::PATIENCE;
use crate::baton::{Baton, Directory, Settings};
use crate::client::Client;
use crate::h2_server::H2Server;
use crate::server::{Port, Server};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

fn before(servers: &[&Server], pool: &str) -> Baton {
    Baton::with(servers, &Settings { pool: pool.to_owned(), ..Settings::default() })
}

/// A server that reads a request and says nothing.
fn silent() -> Server {
    Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_end()
    })
}

/// A server that answers when the test lets it.
fn told(response: &'static str) -> Server {
    Server::start(move |exchange| {
        loop {
            exchange.request()?;
            exchange.wait_for_signal()?;
            exchange.send(response)?;
        }
    })
}

#[test]
fn another_server_answers_for_one_that_is_silent_and_the_first_copy_is_broken_off() {
    let (silent, good) = (silent(), Server::saying("good"));
    let (admin, directory) = (Port::reserve(), Directory::new());
    let log = directory.path("access.log");
    let pool = "retries = { hedge_after = \"20ms\" }\nconnections_max = 1";
    let worker = format!("[admin]\nbind = \"{}\"\n[access_log]\nto = \"{}\"", admin.address(), log.display());
    let settings = Settings { pool: pool.to_owned(), worker, ..Settings::default() };
    let baton = Baton::with(&[&silent, &good], &settings);
    let mut client = baton.client();
    // Each begins at the silent server, as the second copy is a turn too, and finds its only place free again.
    for _ in 0..6 {
        assert_eq!(client.ask(GET).text(), "good");
    }
    let asked = silent.requests().len();
    assert!(asked >= 3, "{asked}");
    silent.wait_until("its connections are closed", |record| {
        record.connections.len() == asked && record.connections.iter().all(|connection| connection.is_ended)
    });
    assert_eq!(good.requests().len(), 6);
    let page = || Client::connect(admin.address()).ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").text();
    wait_for("the metric", || {
        page().lines().any(|line| line == format!("baton_pool_hedges_total{{pool=\"app\",outcome=\"won\"}} {asked}"))
    });
    wait_for("lines of the log", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let won = |line: &&str| line.contains("\"chosen_by\":\"hedge\"") && line.contains("\"hedge\":\"won\"");
        text.lines().count() == 6 && text.lines().filter(won).count() == asked
    });
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_first_copy_may_still_be_the_faster_one() {
    const FIRST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst";
    let (first, second) = (told(FIRST), silent());
    let baton = before(&[&first, &second], "retries = { hedge_after = \"20ms\" }");
    let mut client = baton.client();
    client.send(GET).unwrap();
    second.wait_until("the second copy is there", |record| record.requests.len() == 1);
    first.signal();
    assert_eq!(client.response().text(), "first");
    second.wait_until("it is broken off", |record| record.connections.iter().all(|connection| connection.is_ended));
}

#[test]
fn an_error_of_one_server_does_not_hide_the_answer_of_the_other() {
    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    let good = told(GOOD);
    let closing = Server::start(|exchange| exchange.request().map(|_| ()));
    let busy = Server::answering("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    for bad in [&closing, &busy] {
        let baton = before(&[&good, bad], "retries = { hedge_after = \"20ms\" }");
        let mut client = baton.client();
        client.send(GET).unwrap();
        bad.wait_until("the second copy has failed", |record| record.requests.len() == 1);
        good.signal();
        assert_eq!(client.response().text(), "good");
    }
}

#[test]
fn an_answer_of_either_is_better_than_none() {
    let (closing, busy) = (
        Server::start(|exchange| {
            exchange.request()?;
            exchange.wait_for_signal()
        }),
        told("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"),
    );
    let baton = before(&[&closing, &busy], "retries = { hedge_after = \"20ms\" }");
    let mut client = baton.client();
    client.send(GET).unwrap();
    busy.wait_until("the second copy is there", |record| record.requests.len() == 1);
    busy.signal();
    closing.signal();
    assert_eq!(client.response().text(), "busy");
}

/// A server that reads a request and closes the connection when the test lets it.
fn closing() -> Server {
    Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_signal()
    })
}

#[test]
fn when_both_copies_fail_a_retry_asks_a_third_server() {
    // Which of the two has the first copy, and fails last, makes no difference.
    for first_fails_first in [true, false] {
        let (one, two, good) = (closing(), closing(), Server::saying("good"));
        let pool =
            "algorithm = \"round_robin\"\nretries = { attempts = 4, hedge_after = \"20ms\", budget_percent = 100 }";
        let baton = before(&[&one, &two, &good], pool);
        let mut client = baton.client();
        client.send(GET).unwrap();
        one.wait_until("the first copy is there", |record| record.requests.len() == 1);
        two.wait_until("the second copy is there", |record| record.requests.len() == 1);
        let order = if first_fails_first { [&one, &two] } else { [&two, &one] };
        order[0].signal();
        order[0].wait_until("it has failed", |record| record.connections.iter().all(|connection| connection.is_ended));
        order[1].signal();
        assert_eq!(client.response().text(), "good");
        assert_eq!((one.requests().len(), two.requests().len(), good.requests().len()), (1, 1, 1));
    }
}

/// Whether the line of metrics about the first or second server is there.
fn says(admin: &Port, line: &str) -> bool {
    let page = Client::connect(admin.address()).ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").text();
    page.lines().any(|found| found == line)
}

#[test]
fn a_copy_that_fails_counts_against_its_server() {
    // The second copy's server fails first, then the first one's while the other answers.
    for failing in ["app1", "app2"] {
        const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
        let (bad, good, admin) = (closing(), told(GOOD), Port::reserve());
        let servers = if failing == "app1" { [&bad, &good] } else { [&good, &bad] };
        let pool = "algorithm = \"round_robin\"\nretries = { hedge_after = \"20ms\" }\n\
                    outliers = { consecutive_failures = 1, ejection_time = \"10m\" }";
        let worker = format!("[admin]\nbind = \"{}\"", admin.address());
        let settings = Settings { pool: pool.to_owned(), worker, ..Settings::default() };
        let baton = Baton::with(&servers, &settings);
        let mut client = baton.client();
        client.send(GET).unwrap();
        for server in servers {
            server.wait_until("its copy is there", |record| record.requests.len() == 1);
        }
        bad.signal();
        bad.wait_until("it has failed", |record| record.connections.iter().all(|connection| connection.is_ended));
        good.signal();
        assert_eq!(client.response().text(), "good");
        let ejected = |server, is| format!("baton_server_ejected{{pool=\"app\",server=\"{server}\"}} {is}");
        wait_for("the ejection", || says(&admin, &ejected(failing, 1)));
        let other = if failing == "app1" { "app2" } else { "app1" };
        assert!(says(&admin, &ejected(other, 0)));
    }
}

#[test]
fn a_copy_that_is_broken_off_shows_that_its_server_is_slow() {
    let (first, slow) = (Server::saying("first"), silent());
    let admin = Port::reserve();
    let pool = "algorithm = \"least_response_time\"\nretries = { hedge_after = \"500ms\" }";
    let worker = format!("[admin]\nbind = \"{}\"", admin.address());
    let settings = Settings { pool: pool.to_owned(), worker, ..Settings::default() };
    let baton = Baton::with(&[&first, &slow], &settings);
    let mut client = baton.client();
    // Each server is tried once, as nothing is known of it; the silent one is found out by the copy that is broken off.
    for _ in 0..20 {
        assert_eq!(client.ask(GET).text(), "first");
    }
    assert_eq!(slow.requests().len(), 1);
}

#[test]
fn only_what_could_be_repeated_has_a_second_copy() {
    let (silent, good) = (silent(), Server::saying("good"));
    let pool =
        "response_timeout = \"200ms\"\nretries = { attempts = 2, on = [], hedge_after = \"20ms\", replay_body_max = ";
    let statuses = |baton: &Baton, request: &str| {
        let mut statuses = [baton.client().ask(request).status(), baton.client().ask(request).status()];
        statuses.sort_unstable();
        statuses
    };
    let baton = before(&[&silent, &good], &format!("{pool}0 }}"));
    assert_eq!(statuses(&baton, POST), [200, 504]);
    assert_eq!(statuses(&baton, PUT), [200, 504]);
    assert_eq!(statuses(&baton, GET), [200, 200]);
    let baton = before(&[&silent, &good], &format!("{pool}2 }}"));
    assert_eq!(statuses(&baton, POST), [200, 504]);
    assert_eq!(statuses(&baton, PUT), [200, 200]);
}

#[test]
fn without_budget_there_is_no_second_copy() {
    let (silent, good) = (silent(), Server::saying("good"));
    let pool =
        "response_timeout = \"200ms\"\nretries = { hedge_after = \"20ms\", budget_percent = 0, budget_per_second = 0 }";
    let baton = before(&[&silent, &good], pool);
    assert_eq!(baton.client().ask(GET).status(), 504);
    assert_eq!(good.requests().len(), 0);
}

#[test]
fn both_copies_end_with_the_time_of_the_request() {
    let servers = [silent(), silent()];
    let pool = "request_timeout = \"300ms\"\nretries = { hedge_after = \"20ms\" }";
    let baton = before(&[&servers[0], &servers[1]], pool);
    assert_eq!(baton.client().ask(GET).status(), 504);
    for server in &servers {
        server.wait_until("it is broken off", |record| {
            record.requests.len() == 1 && record.connections.iter().all(|connection| connection.is_ended)
        });
    }
}

#[test]
fn the_stream_of_the_slower_server_is_reset() {
    let slow = H2Server::start(Builder::new(), |mut asked| async move {
        asked.read().await?;
        let reason = std::future::poll_fn(|context| asked.respond.poll_reset(context)).await?;
        assert_eq!(reason, Reason::CANCEL);
        asked.server.signal();
        Ok(())
    });
    let good = H2Server::saying("good");
    let addresses = [slow.address(), good.address()];
    let pool = "protocol = \"h2c\"\nretries = { hedge_after = \"20ms\" }".to_owned();
    let baton = Baton::before_addresses(&addresses, &Settings { pool, ..Settings::default() });
    let mut client = baton.client();
    for _ in 0..2 {
        assert_eq!(client.ask(GET).text(), "good");
    }
    slow.wait_until("its stream is reset", |record| record.signals >= 1);
}
