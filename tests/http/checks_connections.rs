//! Health checks over HTTP keep their connection from check to check, and nothing that happens to it meanwhile is a failure.

use bytes::Bytes;
use h2::server::Builder;
use http::{HeaderMap, Response};

use crate::baton::{Baton, Settings};
use crate::h2_server::H2Server;
use crate::server::Server;

/// Checks of which the first that fails takes a server down, with time enough for a busy machine.
fn often(keys: &str, pool: &str) -> Settings {
    let health = format!("health = {{ interval = \"400ms\", fall = 1, rise = 1{keys} }}\n{pool}");
    Settings { pool: health, ..Settings::default() }
}

/// Fails when a check has failed so far. The worker tells of its checks a little later than it makes them.
fn assert_never_down(baton: &Baton) {
    let servers = |status: &serde_json::Value| status["pools"][0]["servers"].as_array().cloned().unwrap_or_default();
    let status = baton.wait_for_status(|status| {
        let servers = servers(status);
        !servers.is_empty() && servers.iter().all(|server| server["checked"] == true)
    });
    assert!(servers(&status).iter().all(|server| server["up"] == true), "{status:#}");
    assert!(!baton.has_logged("server is down"));
}

#[test]
fn ten_checks_go_over_one_connection_of_http1() {
    let server = Server::saying("fine");
    let baton = Baton::with(&[&server], &often("", ""));
    server.wait_until("eleven checks", |record| record.requests.len() >= 11);
    let connections = server.connections();
    assert_eq!(connections.len(), 2);
    for connection in &connections[..1] {
        let text = String::from_utf8_lossy(&connection.received);
        assert_eq!(text.matches("GET / HTTP/1.1\r\n").count(), 10, "{text}");
        assert!(!text.contains("onnection:"), "{text}");
    }
    assert_never_down(&baton);
}

#[test]
fn server_that_closes_in_between_has_not_failed() {
    // Without a word, after its answer: some checks find that out beforehand, and some when they ask.
    let closing = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    // When the next request has come, as one does whose time was over just then.
    let late = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")?;
        exchange.request().map(drop)
    });
    let baton = Baton::with(&[&closing, &late], &often("", ""));
    closing.wait_until("eight checks", |record| record.requests.len() >= 8);
    late.wait_until("eight checks that were asked twice", |record| record.requests.len() >= 16);
    assert_never_down(&baton);
}

#[test]
fn failed_check_ends_the_connection_and_so_does_an_endless_answer() {
    let failing = Server::answering("HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n");
    let endless = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nfine so far")?;
        exchange.wait_for_end()
    });
    let _baton = Baton::with(&[&failing, &endless], &often(", expect = \"fine\"", ""));
    for server in [&failing, &endless] {
        server.wait_until("three connections that have ended", |record| {
            record.connections.len() >= 4 && record.connections[..3].iter().all(|connection| connection.is_ended)
        });
        let connections = server.connections();
        let checks = |received: &[u8]| String::from_utf8_lossy(received).matches("GET / ").count();
        assert!(connections[..3].iter().all(|connection| checks(&connection.received) == 1), "{connections:?}");
    }
}

#[test]
fn another_configuration_ends_the_connection() {
    let server = Server::saying("fine");
    let baton = Baton::with(&[&server], &often("", ""));
    server.wait_until("three checks", |record| record.requests.len() >= 3);
    assert_eq!(server.connections().len(), 1);
    let pool =
        format!("[[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]\n", server.address());
    let health = "health = { path = \"/other\", interval = \"100ms\", fall = 1, rise = 1 }\n";
    baton.write_config("pool = \"app\"", &format!("{pool}{health}[worker]\nthreads = 1\n"));
    baton.done(&["reload"]);
    server.wait_until("the first connection ends", |record| record.connections[0].is_ended);
    server.wait_until("checks of the other kind", |record| {
        record.requests.iter().any(|request| request.start.contains("/other"))
    });
    assert_never_down(&baton);
}

#[test]
fn ten_checks_go_over_one_connection_of_http2() {
    let server = H2Server::saying("fine");
    let settings = often("", "protocol = \"h2c\"\n");
    let baton = Baton::before_addresses(&[server.address()], &settings);
    server.wait_until("eleven checks", |record| record.requests.len() >= 11);
    assert_eq!(server.connections(), 2);
    assert_eq!(server.requests()[10].uri, format!("http://{}/", server.address()));
    assert_never_down(&baton);
}

#[test]
fn ten_checks_of_grpc_go_over_one_connection_and_one_that_is_sent_away_goes_over_another() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        asked.read().await?;
        if asked.request.uri().authority().is_some_and(|host| host.as_str() == "away.example") {
            asked.goaway.notify_one();
        }
        let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = asked.respond.send_response(response, false)?;
        stream.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false)?;
        let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
        stream.send_trailers(HeaderMap::from_iter(trailers))
    });
    let baton = Baton::before_addresses(&[server.address()], &often(", type = \"grpc\"", ""));
    server.wait_until("eleven checks", |record| record.requests.len() >= 11);
    assert_eq!(server.connections(), 2);
    assert_eq!(server.requests()[10].body, [0, 0, 0, 0, 0]);
    assert_never_down(&baton);
    drop(baton);
    server.wait_until("all connections end", |record| record.ended == record.connections);
    let before = server.connections();
    let keys = ", type = \"grpc\", host = \"away.example\"";
    let baton = Baton::before_addresses(&[server.address()], &often(keys, ""));
    server.wait_until("a connection for each check", |record| record.connections >= before + 5);
    assert_never_down(&baton);
}
