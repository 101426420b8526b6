//! Limits on how often a client may ask.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::server::Server;
use crate::wire::Message;

fn limited(limit: &str) -> Settings {
    Settings { listener: format!("rate_limit = {{ {limit} }}"), ..Settings::default() }
}

fn with_field(client: &mut Client, field: &str) -> u16 {
    client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n")).status()
}

fn from(baton: &Baton, own: [u8; 4]) -> Client {
    Client::connect_from(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(own)), 0), baton.address())
}

fn assert_refused(response: &Message, seconds: &str) {
    assert_eq!((response.status(), response.value("retry-after")), (429, Some(seconds)));
    let text = format!(
        "429 Too Many Requests\ntoo many requests from this client; the next one is let through after {seconds} s\n"
    );
    assert_eq!(response.text(), text);
    assert_eq!(response.value("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(response.value("cache-control"), Some("no-store"));
    assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=http_request_denied"));
}

#[test]
fn client_that_asks_too_often_is_429_on_all_of_its_connections_and_nothing_reaches_a_server() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &limited("requests = 2, per = \"20h\", burst = 3"));
    let mut client = baton.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_refused(&client.get("/"), "36000");
    // The connection is as good as before.
    assert_refused(&client.get("/"), "36000");
    let mut other = baton.client();
    assert_refused(&other.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"), "36000");
    assert_eq!(server.requests().len(), 3);
    let deadline = Instant::now() + PATIENCE;
    while baton.status()["listeners"][0]["rate_limited"] != 3 {
        assert!(Instant::now() < deadline, "the status says {}", baton.status()["listeners"][0]);
    }
}

#[test]
fn client_may_ask_again_when_it_was_told_to() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &limited("requests = 1, per = \"700ms\""));
    let mut client = baton.client();
    let start = Instant::now();
    assert_eq!(client.get("/").status(), 200);
    let mut refused = 0;
    loop {
        let response = client.get("/");
        if response.status() == 200 {
            break;
        }
        refused += 1;
        assert_refused(&response, "1");
        assert!(start.elapsed() < PATIENCE, "refused for ever");
    }
    assert!(refused > 0 && start.elapsed() >= Duration::from_millis(700), "{refused} in {:?}", start.elapsed());
}

#[test]
fn limit_is_the_same_for_all_threads() {
    let server = Server::saying("ok");
    let settings = Settings { threads: 2, ..limited("requests = 10, per = \"24h\"") };
    let baton = Baton::with(&[&server], &settings);
    let statuses: Vec<u16> = (0..40).map(|_| baton.client().get("/").status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
    assert!(statuses[10..].iter().all(|status| *status == 429), "{statuses:?}");
}

#[test]
fn clients_of_one_network_are_counted_together() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &limited("requests = 2, per = \"24h\", prefix_v4 = 24"));
    assert_eq!(from(&baton, [127, 0, 0, 1]).get("/").status(), 200);
    assert_eq!(from(&baton, [127, 0, 0, 2]).get("/").status(), 200);
    assert_eq!(from(&baton, [127, 0, 0, 3]).get("/").status(), 429);
    assert_eq!(from(&baton, [127, 0, 1, 3]).get("/").status(), 200);
}

#[test]
fn clients_are_counted_by_their_whole_address_unless_told_otherwise() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &limited("requests = 1, per = \"24h\""));
    assert_eq!(from(&baton, [127, 0, 0, 2]).get("/").status(), 200);
    assert_eq!(from(&baton, [127, 0, 0, 3]).get("/").status(), 200);
    assert_eq!(from(&baton, [127, 0, 0, 2]).get("/").status(), 429);
    // Nobody is somebody else by saying so.
    assert_eq!(with_field(&mut from(&baton, [127, 0, 0, 2]), "X-Forwarded-For: 192.0.2.1\r\n"), 429);
}

#[test]
fn clients_are_counted_by_a_header_and_those_without_by_their_address() {
    let server = Server::saying("ok");
    let limit = "requests = 1, per = \"24h\", by = \"header\", name = \"X-Key\"";
    let baton = Baton::with(&[&server], &limited(limit));
    let mut client = baton.client();
    assert_eq!(with_field(&mut client, "X-Key: one\r\n"), 200);
    assert_eq!(with_field(&mut client, "x-key:  one \r\n"), 429);
    assert_eq!(with_field(&mut client, "X-Key: two\r\n"), 200);
    assert_eq!(with_field(&mut from(&baton, [127, 0, 0, 2]), "X-Key: two\r\n"), 429);
    // Without a value it is as if it were not there.
    assert_eq!(with_field(&mut client, ""), 200);
    assert_eq!(with_field(&mut client, "X-Key: \r\n"), 429);
    assert_eq!(with_field(&mut from(&baton, [127, 0, 0, 2]), ""), 200);
}

#[test]
fn oldest_client_is_forgotten_when_there_are_too_many() {
    let server = Server::saying("ok");
    let limit = "requests = 1, per = \"24h\", by = \"header\", name = \"X-Key\", entries_max = 2";
    let baton = Baton::with(&[&server], &limited(limit));
    let mut client = baton.client();
    for (key, status) in [("a", 200), ("b", 200), ("a", 429), ("c", 200), ("a", 429), ("b", 200)] {
        assert_eq!(with_field(&mut client, &format!("X-Key: {key}\r\n")), status, "{key}");
    }
}

#[test]
fn clients_are_told_of_their_limits_where_that_is_wanted() {
    let server =
        Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRateLimit: \"own\";r=9;t=1\r\n\r\nok".to_owned());
    let route = "[[route]]\nlistener = \"http\"\nname = \"api\"\npath_prefix = \"/api\"\npool = \"app\"\n\
                 rate_limit = { requests = 2, per = \"20h\", headers = true }\n";
    let settings = Settings {
        listener: "rate_limits = [{ requests = 100, per = \"10h\", headers = true }, { requests = 9, per = \"1h\" }]"
            .to_owned(),
        worker: route.to_owned(),
        ..Settings::default()
    };
    let baton = Baton::with(&[&server], &settings);
    let mut client = baton.client();
    let response = client.get("/");
    assert_eq!(response.values("ratelimit-policy"), ["\"http\";q=100;w=36000"]);
    // Beside what the server says of its own.
    assert_eq!(response.values("ratelimit"), ["\"own\";r=9;t=1", "\"http\";r=99;t=360"]);
    assert_eq!(response.value("retry-after"), None);
    client.get("/api");
    let response = client.get("/api");
    assert_eq!(response.values("ratelimit-policy"), ["\"http\";q=100;w=36000, \"http route api\";q=2;w=72000"]);
    let standing = response.values("ratelimit").remove(1).to_owned();
    assert!(standing.starts_with("\"http\";r=97;t=") && standing.contains("\"http route api\";r=0;t="), "{standing}");
    let response = client.get("/api");
    assert_eq!((response.status(), response.value("retry-after")), (429, Some("36000")));
    let standing = response.values("ratelimit").remove(0).to_owned();
    assert!(standing.ends_with(", \"http route api\";r=0;t=36000"), "{standing}");
}

#[test]
fn clients_are_not_told_of_their_limits_otherwise() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &limited("requests = 1, per = \"1h\""));
    let mut client = baton.client();
    for status in [200, 429] {
        let response = client.get("/");
        assert_eq!(
            (response.status(), response.value("ratelimit"), response.value("ratelimit-policy")),
            (status, None, None)
        );
    }
}
