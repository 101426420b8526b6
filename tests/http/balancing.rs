//! Which server a request goes to: routes, turns, health. What keeps a client on its server is in `sticky`.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::baton::{Baton, Settings};
use crate::server::Server;

#[test]
fn routes_are_picked_by_host_and_by_whole_segments_of_the_path() {
    let [app, api, shop] = ["app", "api", "shop"].map(Server::saying);
    let pool = |name: &str, server: &Server| {
        format!("[[pool]]\nname = \"{name}\"\nservers = [{{ name = \"one\", address = \"{}\" }}]\n", server.address())
    };
    let routes = "[[route]]\nlistener = \"http\"\npath_prefix = \"/api\"\npool = \"api\"\n\
                  [[route]]\nlistener = \"http\"\nhost = \"shop.example\"\npool = \"shop\"\n";
    let blocks = [routes, &pool("app", &app), &pool("api", &api), &pool("shop", &shop)].concat();
    let baton = Baton::run("pool = \"app\"", &blocks);
    let mut client = baton.client();
    let mut ask =
        |target: &str, host: &str| client.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).text();
    assert_eq!(ask("/", "a.example"), "app");
    assert_eq!(ask("/api", "a.example"), "api");
    assert_eq!(ask("/api/x?y", "a.example"), "api");
    assert_eq!(ask("/api?x", "a.example"), "api");
    assert_eq!(ask("/apix", "a.example"), "app");
    assert_eq!(ask("/x/api", "a.example"), "app");
    assert_eq!(ask("/", "shop.example"), "shop");
    assert_eq!(ask("/", "SHOP.Example:8080"), "shop");
    assert_eq!(ask("/api", "shop.example"), "shop");
    assert_eq!(ask("/", "myshop.example"), "app");
    assert_eq!(ask("http://shop.example/", "shop.example"), "shop");
}

#[test]
fn servers_take_turns() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &Settings::default());
    let mut client = baton.client();
    let order: String = (0..9).map(|_| client.get("/").text()).collect();
    assert_eq!(order, "012012012");
    // A new client takes the next turn, not the first.
    assert_eq!(client.get("/").text(), "0");
    assert_eq!(baton.client().get("/").text(), "1");
}

#[test]
fn backup_serves_only_while_no_other_server_does() {
    let (mut main, backup) = (Server::saying("main"), Server::saying("backup"));
    let blocks = format!(
        "[[pool]]\nname = \"app\"\nservers = [{{ name = \"backup\", address = \"{}\", backup = true }}, \
         {{ name = \"main\", address = \"{}\" }}]\nhealth = {{ type = \"tcp\", interval = \"100ms\", fall = 1, rise = 1 }}\n\
         [worker]\nthreads = 1\n",
        backup.address(),
        main.address()
    );
    let baton = Baton::run("pool = \"app\"", &blocks);
    let mut client = baton.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "main");
    }
    main.pause();
    baton.wait_for_log("server is down");
    assert_eq!(client.get("/").text(), "backup");
    main.resume();
    baton.wait_for_log("server is up");
    assert_eq!(client.get("/").text(), "main");
}

pub const TCP_CHECKS: &str = "health = { type = \"tcp\", interval = \"100ms\", fall = 2, rise = 2 }";

#[test]
fn server_that_is_down_gets_no_requests_until_it_is_up_again() {
    let (mut first, second) = (Server::saying("first"), Server::saying("second"));
    first.pause();
    let settings = Settings { pool: TCP_CHECKS.to_owned(), ..Settings::default() };
    let baton = Baton::with(&[&first, &second], &settings);
    baton.wait_for_log("server is down");
    let mut client = baton.client();
    let order: Vec<_> = (0..3).map(|_| client.get("/").text()).collect();
    assert_eq!(order, ["second", "second", "second"]);
    first.resume();
    baton.wait_for_log("server is up");
    let mut order: Vec<_> = (0..4).map(|_| client.get("/").text()).collect();
    order.sort();
    assert_eq!(order, ["first", "first", "second", "second"]);
}

#[test]
fn no_server_up_is_503() {
    let mut server = Server::saying("ok");
    server.pause();
    let settings = Settings { pool: TCP_CHECKS.to_owned(), ..Settings::default() };
    let baton = Baton::with(&[&server], &settings);
    baton.wait_for_log("server is down");
    let mut client = baton.client();
    let response = client.get("/");
    assert_eq!(
        (response.status(), response.text().as_str()),
        (503, "503 Service Unavailable\nno server of pool app is up\n")
    );
    assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=destination_unavailable"));
    // The client is still connected, and served as soon as there is someone to serve it.
    server.resume();
    baton.wait_for_log("server is up");
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn http_checks_take_a_server_down_and_up_after_so_many_in_a_row() {
    // With fall = 3 and rise = 2 this is: up, up after 2 failures, down after 3, up after 2 successes. One more or one
    // fewer that was asked for would show in the log as another order, or as nothing at all.
    const CHECKS: [u16; 12] = [200, 500, 500, 399, 503, 404, 500, 200, 500, 204, 302, 500];
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&count);
    let server = Server::start(move |exchange| {
        let request = exchange.request()?;
        assert_eq!(request.start, "GET /health?a=b HTTP/1.1");
        let status = CHECKS.get(counted.fetch_add(1, Ordering::SeqCst)).unwrap_or(&500);
        exchange.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"))
    });
    let health =
        "health = { path = \"/health?a=b\", host = \"check.example\", interval = \"100ms\", fall = 3, rise = 2 }";
    let baton = Baton::with(&[&server], &Settings { pool: health.to_owned(), ..Settings::default() });
    baton.wait_for_log("server is down");
    assert!(count.load(Ordering::SeqCst) >= 7, "{count:?}");
    baton.wait_for_log("server is up");
    assert!(count.load(Ordering::SeqCst) >= 11, "{count:?}");
    let check = server.requests().remove(0);
    assert_eq!((check.value("host"), check.value("connection")), (Some("check.example"), None));
    assert_eq!(check.value("user-agent"), Some(concat!("baton/", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn server_that_does_not_answer_checks_goes_down() {
    let server = Server::start(|exchange| exchange.wait_for_end());
    let health = "health = { interval = \"100ms\", timeout = \"100ms\", fall = 1 }";
    let baton = Baton::with(&[&server], &Settings { pool: health.to_owned(), ..Settings::default() });
    baton.wait_for_log("no answer within 100 ms");
    assert_eq!(baton.client().get("/").status(), 503);
}
