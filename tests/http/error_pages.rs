//! Pages of the operator's own in place of errors.

use std::fs;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Directory, Settings};
use crate::curl::curl;
use crate::server::{Port, Server};
use crate::wire::Kind;

/// A server that answers every request with an error of its own.
fn failing() -> Server {
    Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send(
                "HTTP/1.1 500 Oops\r\ncontent-type: application/json\r\netag: \"x\"\r\nset-cookie: a=b\r\n\
                 content-length: 2\r\n\r\n{}",
            )?;
        }
    })
}

/// Settings with pages for 404, for 5xx and in JSON for 429.
fn settings(directory: &Directory, further: &str) -> Settings {
    for (name, content) in [("404.html", "<p>lost</p>"), ("5xx.txt", "down"), ("429.json", "{\"slow\":true}")] {
        fs::write(directory.path(name), content).expect("it is ours");
    }
    let path = |name: &str| directory.path(name).display().to_string();
    let (a, b, c) = (path("404.html"), path("5xx.txt"), path("429.json"));
    let listener = format!("error_pages = {{ 404 = \"{a}\", 5xx = \"{b}\", 429 = \"{c}\" }}\n{further}");
    Settings { listener, ..Settings::default() }
}

#[test]
fn our_errors_get_the_page_and_those_of_servers_stay_theirs() {
    let (directory, dead, server) = (Directory::new(), Port::reserve(), failing());
    let baton = Baton::before_addresses(&[dead.address()], &settings(&directory, ""));
    let response = baton.client().get("/");
    assert_eq!((response.status(), response.text().as_str()), (502, "down"));
    assert_eq!(response.value("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(response.value("content-length"), Some("4"));
    assert_eq!(response.value("cache-control"), Some("no-store"));
    assert!(response.value("proxy-status").is_some_and(|status| status.contains("connection_refused")));
    // A head says how long the page would be.
    let mut client = baton.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is open");
    let head = client.message(Kind::ResponseToHead).expect("a response comes");
    assert_eq!((head.status(), head.value("content-length")), (502, Some("4")));
    // Nobody who speaks gRPC reads pages.
    let call = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto\r\nContent-Length: 0\r\n\r\n";
    assert_ne!(baton.client().ask(call).text(), "down");

    let baton = Baton::with(&[&server], &settings(&directory, ""));
    let response = baton.client().get("/");
    assert_eq!((response.status(), response.text().as_str()), (500, "{}"));
    assert_eq!(response.value("etag"), Some("\"x\""));
}

#[test]
fn errors_of_servers_get_the_page_where_that_is_wanted() {
    let (directory, server) = (Directory::new(), failing());
    let limit = "intercept_errors = true\nrate_limit = { requests = 2, per = \"1h\" }";
    let baton = Baton::with(&[&server], &settings(&directory, limit));
    let mut client = baton.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.status(), response.text().as_str()), (500, "down"));
        assert_eq!(response.value("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!((response.value("etag"), response.value("set-cookie")), (None, Some("a=b")));
    }
    let response = client.get("/");
    assert_eq!((response.status(), response.text().as_str()), (429, "{\"slow\":true}"));
    assert_eq!(response.value("content-type"), Some("application/json"));
    assert!(response.value("retry-after").is_some());
}

#[test]
fn a_page_that_has_changed_is_sent_without_a_restart() {
    let directory = Directory::new();
    let blocks = "[[route]]\nlistener = \"http\"\npath_prefix = \"/elsewhere\"\npool = \"app\"\n[[pool]]\nname = \"app\"\nservers = [{ name = \"a\", address = \"127.0.0.1:9\" }]\n[worker]\nthreads = 1\n";
    let baton = Baton::run(&settings(&directory, "").listener, blocks);
    assert_eq!(curl(&[&baton.url("/")]).text(), "<p>lost</p>");
    fs::write(directory.path("404.html"), "<p>still lost</p>").expect("it is ours");
    let deadline = Instant::now() + PATIENCE;
    while curl(&[&baton.url("/")]).text() != "<p>still lost</p>" {
        assert!(Instant::now() < deadline, "the page stays as it was");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn maintenance_and_answers_come_from_files_that_are_read_again() {
    let directory = Directory::new();
    fs::write(directory.path("down.html"), "<p>back at noon</p>").expect("it is ours");
    fs::write(directory.path("robots.txt"), "User-agent: *\n").expect("it is ours");
    let path = |name: &str| directory.path(name).display().to_string();
    let route = |keys: String| format!("[[route]]\nlistener = \"http\"\n{keys}\n");
    let maintenance = format!(
        "path_prefix = \"/shop\"\nmaintenance = {{ body_file = \"{}\", retry_after = \"10m\" }}",
        path("down.html")
    );
    let robots = format!("path = \"/robots.txt\"\nrespond = {{ body_file = \"{}\" }}", path("robots.txt"));
    let pool = "[[pool]]\nname = \"app\"\nservers = [{ name = \"a\", address = \"127.0.0.1:9\" }]\n";
    let blocks = [&route(maintenance), &route(robots), pool, "[worker]\nthreads = 1\n"].concat();
    let baton = Baton::run("pool = \"app\"", &blocks);
    let response = baton.client().get("/shop/cart");
    assert_eq!((response.status(), response.text().as_str()), (503, "<p>back at noon</p>"));
    assert_eq!(response.value("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!((response.value("retry-after"), response.value("cache-control")), (Some("600"), Some("no-store")));
    let response = baton.client().get("/robots.txt");
    assert_eq!((response.status(), response.text().as_str()), (200, "User-agent: *\n"));
    assert_eq!(response.value("content-type"), Some("text/plain; charset=utf-8"));
    fs::write(directory.path("down.html"), "<p>back at one</p>").expect("it is ours");
    let deadline = Instant::now() + PATIENCE;
    while baton.client().get("/shop").text() != "<p>back at one</p>" {
        assert!(Instant::now() < deadline, "the page stays as it was");
        std::thread::sleep(Duration::from_millis(50));
    }
    // One that cannot be used is said, and the former one stays.
    fs::write(directory.path("down.html"), vec![b'x'; 512 * 1024 + 1]).expect("it is ours");
    baton.wait_for_log("keeps a former page");
    assert_eq!(baton.client().get("/shop").text(), "<p>back at one</p>");
}
