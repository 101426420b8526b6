//! Connections and streams that have changed to another protocol, to their end: their line in the log, and their place at the
//! server.

use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::access_log::{Log, objects};
use crate::baton::{Baton, Settings};
use crate::h2_wire::*;
use crate::server::Server;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";

/// A server that upgrades who asks for it, greets it, sends back what it gets, and closes after `bye`. Others get a response.
fn server() -> Server {
    Server::start(|exchange| {
        loop {
            let request = exchange.request()?;
            if request.value("upgrade").is_some() {
                break;
            }
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nwelcome")?;
        loop {
            let bytes = exchange.some(1024)?;
            if bytes.is_empty() || bytes == b"bye" {
                return Ok(());
            }
            exchange.send(bytes)?;
        }
    })
}

/// A client whose tunnel is open.
fn tunnel(baton: &Baton) -> crate::client::Client {
    let mut client = baton.client();
    client.send(UPGRADE).expect("the connection is open");
    assert_eq!(client.head().expect("a head").status(), 101);
    assert_eq!(client.exactly(7).expect("the server greets"), b"welcome");
    client
}

#[test]
fn tunnel_is_logged_at_its_end_with_what_has_passed() {
    let (log, server) = (Log::new(), server());
    let baton = Baton::with(&[&server], &log.settings(""));
    let mut client = tunnel(&baton);
    client.send("hello").expect("the tunnel is open");
    assert_eq!(client.exactly(5).expect("an echo"), b"hello");
    // A request that begins and ends meanwhile stands in front of it.
    assert_eq!(baton.client().get("/meanwhile").status(), 200);
    assert_eq!(objects(&log.path(), 1)[0]["path"], "/meanwhile");
    client.finish();
    assert_eq!(client.rest().expect("an orderly end"), b"");
    let line = &objects(&log.path(), 2)[1];
    assert_eq!((&line["path"], &line["status"]), (&Value::from("/chat"), &Value::from(101)));
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&Value::from(5), &Value::from(12)));
    assert_eq!((&line["ended"], &line["reason"]), (&Value::from("complete"), &Value::from("client_closed")));
    assert_eq!((&line["server"], &line["chosen_by"]), (&Value::from("app1"), &Value::from("algorithm")));
    assert!(line["first_byte_us"].as_u64() <= line["total_us"].as_u64(), "{line}");
}

#[test]
fn log_says_who_ended_a_tunnel() {
    let log = Log::new();
    let (first, settings) = (server(), log.settings(""));
    let settings = Settings { listener: "tunnel_timeout = \"500ms\"".to_owned(), ..settings };
    let baton = Baton::with(&[&first], &settings);
    let ended = |count: usize| {
        let lines = objects(&log.path(), count);
        let line = &lines[count - 1];
        [&line["ended"], &line["reason"]].map(|text| text.as_str().unwrap_or("").to_owned())
    };
    let mut client = tunnel(&baton);
    client.send("bye").expect("the tunnel is open");
    client.rest().expect("an orderly end");
    // The server's end is passed on; the tunnel is over when the client's is there too.
    drop(client);
    assert_eq!(ended(1), ["complete", "server_closed"]);
    let client = tunnel(&baton);
    SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).expect("the socket is open");
    drop(client);
    assert_eq!(ended(2), ["client_gone", "connection_reset"]);
    let mut client = tunnel(&baton);
    client.expect_closed();
    assert_eq!(ended(3), ["timed_out", "idle"]);
}

#[test]
fn tunnel_over_http2_is_logged_at_its_end() {
    let (log, server) = (Log::new(), server());
    let baton = Baton::with(&[&server], &log.settings(""));
    let mut client = H2::connect(baton.address());
    let extended = [(":protocol", "chat"), GET[1], (":path", "/chat"), GET[3]];
    client.send(&headers(1, 0, &[&[(":method", "CONNECT")][..], &extended].concat()));
    client.wait_for("the greeting", |event| *event == Event::Data(1, b"welcome".to_vec(), false));
    client.send(&get(3));
    assert_eq!(client.response(3), (200, "ok".to_owned()));
    assert_eq!(objects(&log.path(), 1)[0]["path"], "/");
    client.send(&frame(DATA, END_STREAM, 1, b"abc"));
    client.wait_for("the end", |event| matches!(event, Event::Data(1, _, true)));
    let line = &objects(&log.path(), 2)[1];
    assert_eq!((&line["path"], &line["protocol"]), (&Value::from("/chat"), &Value::from("HTTP/2.0")));
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&Value::from(3), &Value::from(10)));
    assert_eq!((&line["ended"], &line["reason"]), (&Value::from("complete"), &Value::from("client_closed")));
    client.send(&headers(5, 0, &[&[(":method", "CONNECT")][..], &extended].concat()));
    client.wait_for("the greeting", |event| *event == Event::Data(5, b"welcome".to_vec(), false));
    client.send(&reset(5, CANCEL));
    let line = &objects(&log.path(), 3)[2];
    assert_eq!((&line["ended"], &line["reason"]), (&Value::from("client_gone"), &Value::from("connection_reset")));
}

#[test]
fn tunnel_has_its_place_at_the_server_until_it_ends() {
    let server = server();
    let limit = "connections_max = 1\nqueue = { max = 1, timeout = \"200ms\" }".to_owned();
    let baton = Baton::with(&[&server], &Settings { pool: limit, ..Settings::default() });
    let mut client = tunnel(&baton);
    let mut other = baton.client();
    assert_eq!(other.get("/").status(), 503);
    client.send("still").expect("the tunnel is open");
    assert_eq!(client.exactly(5).expect("an echo"), b"still");
    client.finish();
    client.rest().expect("an orderly end");
    assert_eq!(other.get("/").status(), 200);
}

#[test]
fn tunnel_is_no_request_under_way_for_the_worker() {
    let server = server();
    let baton = Baton::with(&[&server], &Settings { worker: "requests_max = 1".to_owned(), ..Settings::default() });
    let _client = tunnel(&baton);
    assert_eq!(baton.client().get("/").status(), 200);
}
