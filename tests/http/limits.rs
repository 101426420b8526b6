//! More than one limit on how often a client may ask: by cookie, by route, and those that only count.

use std::time::Instant;

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::server::Server;

fn listener(keys: &str) -> Settings {
    Settings { listener: keys.to_owned(), ..Settings::default() }
}

fn status_of(client: &mut Client, head: &str) -> u16 {
    client.ask(format!("GET {head}\r\n")).status()
}

/// Waits until so many requests were refused for a reason.
pub fn wait_for_refusals(baton: &Baton, reason: &str, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = baton.status();
        let refused = &status["listeners"][0]["refused"];
        if refused[reason] == count {
            return;
        }
        assert!(Instant::now() < deadline, "{count} of {reason} are expected: {refused}");
    }
}

#[test]
fn clients_are_counted_by_a_cookie_and_those_without_by_their_address() {
    let server = Server::saying("ok");
    let limit = "rate_limit = { requests = 1, per = \"24h\", by = \"cookie\", name = \"sid\" }";
    let baton = Baton::with(&[&server], &listener(limit));
    let mut client = baton.client();
    let mut with = |cookie: &str| status_of(&mut client, &format!("/ HTTP/1.1\r\nHost: a\r\n{cookie}"));
    assert_eq!(with("Cookie: other=1; sid=one\r\n"), 200);
    assert_eq!(with("Cookie: sid=one\r\n"), 429);
    // In a second field, as HTTP/2 clients send them.
    assert_eq!(with("Cookie: other=1\r\nCookie: sid=one\r\n"), 429);
    assert_eq!(with("Cookie: sid=two\r\n"), 200);
    assert_eq!(with(""), 200);
    assert_eq!(with("Cookie: sid=\r\n"), 429, "without a value it is as if it were not there");
    assert_eq!(with("Cookie: xsid=one\r\n"), 429, "another cookie");
}

#[test]
fn request_has_to_be_within_all_limits_of_its_listener() {
    let server = Server::saying("ok");
    let limits = "rate_limits = [{ requests = 3, per = \"24h\" }, { requests = 1, per = \"20h\", by = \"header\", name = \"X-Key\" }]";
    let baton = Baton::with(&[&server], &listener(limits));
    let mut client = baton.client();
    let mut with = |key: &str| {
        let response = client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n"));
        (response.status(), response.value("retry-after").map(str::to_owned))
    };
    assert_eq!(with("a"), (200, None));
    assert_eq!(with("a"), (429, Some("72000".to_owned())), "the second limit is a key's");
    assert_eq!(with("b"), (200, None));
    assert_eq!(with("c"), (429, Some("28800".to_owned())), "the first limit counts what the second one refuses");
    wait_for_refusals(&baton, "rate_limit", 2);
}

#[test]
fn limit_and_limits_stand_beside_each_other() {
    let server = Server::saying("ok");
    let limits =
        "rate_limit = { requests = 2, per = \"24h\" }\nrate_limits = [{ requests = 1, per = \"24h\", prefix_v4 = 8 }]";
    let baton = Baton::with(&[&server], &listener(limits));
    assert_eq!(baton.client().get("/").status(), 200);
    assert_eq!(baton.client().get("/").status(), 429);
}

#[test]
fn route_has_limits_of_its_own() {
    let server = Server::saying("ok");
    let address = server.address();
    let pool = format!("[[pool]]\nname = \"app\"\nservers = [{{ name = \"a\", address = \"{address}\" }}]\n");
    let route = |path: &str, limit: &str| {
        format!("[[route]]\nlistener = \"http\"\npath_prefix = \"{path}\"\npool = \"app\"\n{limit}\n")
    };
    let limit = "rate_limit = { requests = 1, per = \"24h\" }";
    let blocks = [route("/a", limit), route("/b", limit), route("/free", ""), pool].concat();
    let baton = Baton::run("pool = \"app\"", &format!("{blocks}[worker]\nthreads = 1\n"));
    let mut client = baton.client();
    let paths = [("/a", 200), ("/a/x", 429), ("/b", 200), ("/b", 429), ("/free", 200), ("/free", 200), ("/", 200)];
    for (path, status) in paths {
        assert_eq!(client.get(path).status(), status, "{path}");
    }
    assert_eq!(server.requests().len(), 5);
    wait_for_refusals(&baton, "rate_limit", 2);
}

#[test]
fn limit_that_only_counts_lets_everything_through_and_says_so() {
    let server = Server::saying("ok");
    let limit = "rate_limit = { requests = 1, per = \"24h\", log_only = true }";
    let baton = Baton::with(&[&server], &listener(limit));
    let mut client = baton.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").status(), 200);
    }
    wait_for_refusals(&baton, "rate_limit_log_only", 3);
    wait_for_refusals(&baton, "rate_limit", 0);
    baton.wait_for_log("clients were over a limit listener=\"http\" reason=\"rate_limit_log_only\" count=3");
}

#[test]
fn large_heads_are_taken_where_they_may_be() {
    let server = Server::saying("ok");
    let limits = "head_bytes_max = \"128KiB\"\nheaders_max = 300\nuri_bytes_max = 60000";
    let baton = Baton::with(&[&server], &listener(limits));
    let mut client = baton.client();
    let fields: String = (0..298).map(|number| format!("X-{number}: {}\r\n", "v".repeat(200))).collect();
    let path = format!("/{}", "p".repeat(50_000));
    assert_eq!(status_of(&mut client, &format!("{path} HTTP/1.1\r\nHost: a\r\n{fields}")), 200);
    assert!(server.request().start.len() > 50_000);
    let one_too_many = format!("/ HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n{fields}");
    assert_eq!(status_of(&mut client, &one_too_many), 431);
}

#[test]
fn heads_are_refused_as_small_as_the_listener_has_it() {
    let server = Server::saying("ok");
    let limits = "head_bytes_max = 1024\nheaders_max = 5\nuri_bytes_max = 100";
    let baton = Baton::with(&[&server], &listener(limits));
    let ask = |head: &str| status_of(&mut baton.client(), head);
    let path = |len: usize| "p".repeat(len);
    assert_eq!(ask(&format!("/{} HTTP/1.1\r\nHost: a\r\n", path(99))), 200);
    assert_eq!(ask(&format!("/{} HTTP/1.1\r\nHost: a\r\n", path(100))), 414);
    assert_eq!(ask("/ HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n"), 200);
    assert_eq!(ask("/ HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\nE: 1\r\n"), 431);
    assert_eq!(ask(&format!("/ HTTP/1.1\r\nHost: a\r\nA: {}\r\n", "v".repeat(1024))), 431);
}

#[test]
fn body_that_says_that_it_is_too_large_is_413_at_once() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("body_bytes_max = 10"));
    let mut client = baton.client();
    let post = |len: usize, rest: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n{rest}");
    assert_eq!(client.ask(post(10, "\r\n0123456789")).status(), 200);
    // Not one byte of it has to come.
    let response = client.ask(post(11, "Expect: 100-continue\r\n\r\n"));
    assert_eq!((response.status(), response.value("connection")), (413, Some("close")));
    assert_eq!(response.text(), "413 Payload Too Large\nthe request's body is larger than this listener takes\n");
    client.expect_closed();
    assert_eq!(server.requests().len(), 1);
    wait_for_refusals(&baton, "body_too_large", 1);
}

#[test]
fn body_that_turns_out_to_be_too_large_is_413() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("body_bytes_max = 10"));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = baton.client();
    assert_eq!(client.ask(format!("{chunked}4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n")).status(), 200);
    // At once, and after a part has gone to the server.
    let mut client = baton.client();
    let response = client.ask(format!("{chunked}b\r\n0123456789a\r\n0\r\n\r\n"));
    assert_eq!((response.status(), response.value("connection")), (413, Some("close")));
    client.expect_closed();
    let mut client = baton.client();
    client.send(format!("{chunked}8\r\n01234567\r\n")).expect("the connection is open");
    server.wait_until("the first part has come", |record| {
        record.connections.iter().any(|connection| connection.received.ends_with(b"01234567\r\n"))
    });
    let response = client.ask("3\r\n89a\r\n");
    assert_eq!(response.status(), 413);
    client.expect_closed();
    assert_eq!(server.requests().len(), 1, "no server has seen the end of such a body");
    wait_for_refusals(&baton, "body_too_large", 2);
}
