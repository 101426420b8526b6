//! Requests shared among pools, and copies of requests for a second pool.

use std::time::Instant;

use crate::PATIENCE;
use crate::baton::Baton;
use crate::routes::run;
use crate::server::Server;

const CANARY: &str = "pools = [{ pool = \"app\", weight = 3 }, { pool = \"new\", weight = 1 }]";

#[test]
fn requests_are_shared_by_weight() {
    let [app, new] = ["app", "new"].map(Server::saying);
    let baton = run("", &[CANARY], &[("app", &app, ""), ("new", &new, "")]);
    let mut client = baton.client();
    let count = (0..400).filter(|_| client.get("/").text() == "new").count();
    // 100 expected with a standard deviation of 8.7: this fails once in more than 10^12 runs.
    assert!((35..=165).contains(&count), "{count} of 400 requests went to the pool with a quarter of the weight");
}

#[test]
fn sticky_clients_stay_in_their_pool() {
    let [app, new] = ["app", "new"].map(Server::saying);
    let sticky = "sticky = { by = \"cookie\" }";
    let baton = run("", &[CANARY], &[("app", &app, sticky), ("new", &new, sticky)]);
    let mut seen = [0, 0];
    for _ in 0..40 {
        let mut client = baton.client();
        let first = client.get("/");
        let cookie = first.value("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        for _ in 0..5 {
            let again = client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
            assert_eq!((again.text(), again.value("set-cookie")), (first.text(), None));
        }
        seen[usize::from(first.text() == "new")] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn clients_known_by_address_stay_in_a_pool_without_weight() {
    let [app, new] = ["app", "new"].map(Server::saying);
    let sticky = "sticky = { by = \"source_ip\" }";
    let routes =
        ["path = \"/new\"\npool = \"new\"", "pools = [{ pool = \"app\", weight = 1 }, { pool = \"new\", weight = 0 }]"];
    let baton = run("", &routes, &[("app", &app, sticky), ("new", &new, sticky)]);
    let mut client = baton.client();
    assert_eq!(client.get("/new").text(), "new");
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "new");
    }
    let mut other = crate::client::Client::connect_from("127.0.0.9:0".parse().unwrap(), baton.address());
    for _ in 0..20 {
        assert_eq!(other.get("/").text(), "app");
    }
}

#[test]
fn a_pool_without_servers_gets_no_share() {
    let app = Server::saying("app");
    let mut new = Server::saying("new");
    new.pause();
    let health = "health = { type = \"tcp\", interval = \"100ms\", fall = 1 }";
    let route = "pools = [{ pool = \"app\", weight = 1 }, { pool = \"new\", weight = 1000 }]";
    let baton = run("", &[route], &[("app", &app, ""), ("new", &new, health)]);
    let deadline = Instant::now() + PATIENCE;
    while baton.status()["pools"][1]["servers"][0]["up"] != false {
        assert!(Instant::now() < deadline, "the server is not seen to be down");
    }
    let mut client = baton.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "app");
    }
}

fn mirrored(keys: &str) -> String {
    format!("path_prefix = \"/m\"\npool = \"app\"\nmirror = {{ pool = \"copy\", {keys} }}")
}

/// Waits until the copies have come to these ends: answered, failed, too large, busy, broken off.
fn wait_for(baton: &Baton, expected: [u64; 5]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = baton.status();
        let mirrored = &status["pools"][1]["mirrored"];
        let counts =
            ["answered", "failed", "too_large", "busy", "broken_off"].map(|key| mirrored[key].as_u64().unwrap());
        if counts == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{mirrored} and not {expected:?}");
    }
}

#[test]
fn copies_have_head_and_body_of_their_requests_and_their_answers_are_thrown_away() {
    let app = Server::saying("app");
    let copy =
        Server::answering("HTTP/1.1 500 Internal Server Error\r\nSet-Cookie: a=b\r\nContent-Length: 4\r\n\r\ncopy");
    let route = mirrored("percent = 100") + "\nrequest_headers = { set = { X-A = \"{path}\" } }";
    let baton = run("", &[route.as_str()], &[("app", &app, ""), ("copy", &copy, "")]);
    let mut client = baton.client();
    let response = client.ask("POST /m/x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((response.status(), response.text().as_str(), response.value("set-cookie")), (200, "app", None));
    let response =
        client.ask("PUT /m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(response.text(), "app");
    assert_eq!(client.get("/m/get").text(), "app");
    assert_eq!(client.get("/other").text(), "app");
    wait_for(&baton, [3, 0, 0, 0, 0]);
    let seen = copy.requests();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        let original = app.requests().into_iter().find(|original| original.start == request.start).unwrap();
        assert_eq!(request.body, original.body);
        assert_eq!(request.value("x-a"), original.value("x-a"));
        assert_eq!(request.value("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[test]
fn nobody_waits_for_a_copy() {
    let app = Server::saying("app");
    let copy = Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_signal()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    let route = mirrored("concurrency_max = 2, timeout = \"5m\"");
    let baton = run("", &[route.as_str()], &[("app", &app, ""), ("copy", &copy, "")]);
    let mut client = baton.client();
    for _ in 0..5 {
        assert_eq!(client.get("/m").text(), "app");
    }
    copy.wait_until("two copies are under way", |record| record.requests.len() == 2);
    wait_for(&baton, [0, 0, 0, 3, 0]);
    copy.signal();
    copy.signal();
    wait_for(&baton, [2, 0, 0, 3, 0]);
    assert_eq!(client.get("/m").text(), "app");
    copy.signal();
    wait_for(&baton, [3, 0, 0, 3, 0]);
}

#[test]
fn copies_are_bounded_in_size_and_time_and_fail_alone() {
    let app = Server::saying("app");
    let copy = Server::start(|exchange| exchange.wait_for_end());
    let route = mirrored("body_max = 4, timeout = \"100ms\"");
    let baton = run("", &[route.as_str()], &[("app", &app, ""), ("copy", &copy, "")]);
    let mut client = baton.client();
    let response = client.ask("POST /m HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(response.text(), "app");
    wait_for(&baton, [0, 0, 1, 0, 0]);
    let chunked = "POST /m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(client.ask(chunked).text(), "app");
    wait_for(&baton, [0, 0, 2, 0, 0]);
    // One that is small enough, and never answered.
    assert_eq!(client.ask("POST /m HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhell").text(), "app");
    wait_for(&baton, [0, 1, 2, 0, 0]);
    // One whose client goes away in the middle.
    let mut leaving = baton.client();
    leaving.send("POST /m HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhe").unwrap();
    app.wait_until("the request has begun", |record| {
        record.connections.iter().any(|connection| connection.received.ends_with(b"\r\n\r\nhe"))
    });
    drop(leaving);
    wait_for(&baton, [0, 1, 2, 0, 1]);
}

#[test]
fn copies_that_are_answered_reuse_their_connection() {
    let app = Server::saying("app");
    let copy = Server::saying("copy");
    let route = mirrored("percent = 100");
    let baton = run("", &[route.as_str()], &[("app", &app, ""), ("copy", &copy, "")]);
    let mut client = baton.client();
    for count in 1..=5 {
        assert_eq!(client.get("/m").text(), "app");
        wait_for(&baton, [count, 0, 0, 0, 0]);
    }
    assert_eq!(copy.connections().len(), 1);
}
