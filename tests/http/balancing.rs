//! Which server a request goes to: routes, turns, health, cookies.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::baton::{Baton, Settings};
use crate::curl::curl;
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

const TCP_CHECKS: &str = "health = { type = \"tcp\", interval = \"100ms\", fall = 2, rise = 2 }";

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
    assert_eq!((check.value("host"), check.value("connection")), (Some("check.example"), Some("close")));
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

// printf '\0\0\0\0\0\0\0\3appapp1' | openssl dgst -sha256 -mac hmac -macopt hexkey: , the first 16 digits
const FIRST: &str = "63dd98b3b3949ee6";
const SECOND: &str = "f2f4fce63f17f3d9";

fn sticky(more: &str) -> Settings {
    Settings { pool: format!("{more}\n[pool.sticky]\nby = \"cookie\"\n"), ..Settings::default() }
}

fn with_cookie(cookie: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")
}

#[test]
fn cookie_is_set_once_and_keeps_a_client_on_its_server() {
    let servers = ["0", "1"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky(""));
    let mut client = baton.client();
    let first = client.get("/");
    let expected = format!("BATON={FIRST}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!((first.text().as_str(), first.value("set-cookie")), ("0", Some(expected.as_str())));
    for _ in 0..3 {
        let again = client.ask(with_cookie(&format!("a=b; BATON={FIRST}; c=d")));
        assert_eq!((again.text().as_str(), again.value("set-cookie")), ("0", None));
    }
    let other = client.get("/");
    let expected = format!("BATON={SECOND}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!((other.text().as_str(), other.value("set-cookie")), ("1", Some(expected.as_str())));
}

#[test]
fn servers_cookies_are_passed_on_next_to_ours() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nContent-Length: 2\r\n\r\nok");
    let settings =
        Settings { pool: "[pool.sticky]\nname = \"STICK\"\nttl = \"1h\"\n".to_owned(), ..Settings::default() };
    let baton = Baton::with(&[&server], &settings);
    let response = baton.client().get("/");
    let ours = format!("STICK={FIRST}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
    assert_eq!(response.values("set-cookie"), ["own=1", ours.as_str()]);
}

#[test]
fn cookie_that_is_not_ours_is_ignored_and_replaced() {
    let servers = ["0", "1"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky(""));
    let mut client = baton.client();
    let mut tampered = FIRST.to_owned();
    tampered.replace_range(15.., if FIRST.ends_with('0') { "1" } else { "0" });
    for (index, value) in [tampered.as_str(), "", "app1", "0", "127.0.0.1", "../../x"].into_iter().enumerate() {
        let response = client.ask(with_cookie(&format!("BATON={value}")));
        assert_eq!(response.text(), (index % 2).to_string(), "{value:?} has a turn like any other");
        assert!(response.value("set-cookie").is_some(), "{value:?}");
    }
}

#[test]
fn client_whose_server_is_down_gets_another_and_its_cookie() {
    let (mut first, second) = (Server::saying("0"), Server::saying("1"));
    let baton = Baton::with(&[&first, &second], &sticky(TCP_CHECKS));
    let mut client = baton.client();
    assert_eq!(client.ask(with_cookie(&format!("BATON={FIRST}"))).text(), "0");
    first.pause();
    baton.wait_for_log("server is down");
    let moved = client.ask(with_cookie(&format!("BATON={FIRST}")));
    let expected = format!("BATON={SECOND}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!((moved.text().as_str(), moved.value("set-cookie")), ("1", Some(expected.as_str())));
    first.resume();
    baton.wait_for_log("server is up");
    let stays = client.ask(with_cookie(&format!("BATON={SECOND}")));
    assert_eq!((stays.text().as_str(), stays.value("set-cookie")), ("1", None));
}

#[test]
fn client_whose_server_refuses_before_any_check_gets_another_and_its_cookie() {
    let (mut first, second) = (Server::saying("0"), Server::saying("1"));
    first.pause();
    let baton = Baton::with(&[&first, &second], &sticky(""));
    let moved = baton.client().ask(with_cookie(&format!("BATON={FIRST}")));
    let expected = format!("BATON={SECOND}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!((moved.text().as_str(), moved.value("set-cookie")), ("1", Some(expected.as_str())));
}

#[test]
fn curl_keeps_its_server_with_a_cookie_jar() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky(""));
    let url = baton.url("/");
    let output = curl(&["--cookie", "", &url, &url, &url, &url]);
    assert_eq!((output.code, output.text().as_str()), (Some(0), "0000"), "{}", output.stderr);
}
