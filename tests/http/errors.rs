//! What a client gets when a server fails, and when a request may be sent a second time.

use std::time::{Duration, Instant};

use crate::baton::Baton;
use crate::server::Server;
use crate::wire::Message;

/// A server that reads one request on each connection, answers with these bytes and closes.
fn closing_after(answer: impl AsRef<[u8]> + Send + Sync + 'static) -> Server {
    Server::start(move |exchange| {
        exchange.request()?;
        exchange.send(&answer)
    })
}

fn assert_own(response: &Message, status: u16, text: &str, proxy_status: Option<&str>) {
    assert_eq!((response.status(), response.text().as_str()), (status, text));
    assert_eq!(response.value("proxy-status"), proxy_status);
    assert_eq!(response.value("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(response.value("cache-control"), Some("no-store"));
}

const UNREACHABLE: &str = "502 Bad Gateway\nthe server could not be reached or broke off\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn server_that_refuses_is_502_and_the_client_stays_connected() {
    let mut server = Server::saying("ok");
    server.pause();
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let fault = Some("\"lb-test\"; error=connection_refused; next-hop=\"app1\"");
    assert_own(&client.ask(GET), 502, UNREACHABLE, fault);
    assert_own(&client.ask(GET), 502, UNREACHABLE, fault);
    server.resume();
    assert_eq!(client.ask(GET).text(), "ok");
}

#[test]
fn server_that_closes_without_an_answer_is_502() {
    let server = closing_after("");
    let baton = Baton::before(&[&server]);
    let fault = Some("\"lb-test\"; error=connection_terminated; next-hop=\"app1\"");
    assert_own(&baton.client().ask(POST), 502, UNREACHABLE, fault);
    assert_eq!(server.requests().len(), 1);
    assert_own(&baton.client().ask(GET), 502, UNREACHABLE, fault);
}

#[test]
fn server_that_resets_is_502() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.reset_at_end();
        Ok(())
    });
    let baton = Baton::before(&[&server]);
    let fault = Some("\"lb-test\"; error=connection_terminated; next-hop=\"app1\"");
    assert_own(&baton.client().ask(POST), 502, UNREACHABLE, fault);
}

#[test]
fn server_that_ends_in_the_middle_of_a_head_is_502() {
    let server = closing_after("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-");
    let baton = Baton::before(&[&server]);
    let response = baton.client().ask(POST);
    assert_eq!(response.status(), 502);
    assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=connection_terminated; next-hop=\"app1\""));
}

/// Responses that can be read in two ways, or in none.
const MALFORMED: &[&str] = &[
    "SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    "HTTP/2 200\r\n\r\n",
    "HTTP/1.1 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok!",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX : 1\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nNo colon\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
];

#[test]
fn malformed_response_is_502_and_nothing_of_it_reaches_the_client() {
    let server = Server::start(|exchange| {
        let request = exchange.request()?;
        let index: usize = request.text().parse().expect("the test sends a number");
        exchange.send(MALFORMED[index])
    });
    let baton = Baton::before(&[&server]);
    let fault = "proxy-status: \"lb-test\"; error=http_protocol_error; next-hop=\"app1\"";
    let mut wrong = Vec::new();
    for (index, response) in MALFORMED.iter().enumerate() {
        let mut client = baton.client();
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{index:02}");
        client.send(request).expect("the connection is open");
        let answer = String::from_utf8_lossy(&client.rest().expect("an orderly end")).into_owned();
        if !answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n") || !answer.contains(fault) {
            wrong.push((response, answer));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Each was asked once, and nothing that followed was read from the same connection.
    assert_eq!(server.connections().len(), MALFORMED.len());
}

#[test]
fn length_that_a_server_says_twice_reaches_the_client_once() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok");
    let baton = Baton::before(&[&server]);
    let response = baton.client().get("/");
    assert_eq!((response.values("content-length"), response.text().as_str()), (vec!["2"], "ok"));
}

#[test]
fn response_head_that_is_too_large_is_502() {
    let server = closing_after(format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok", "x".repeat(500_000)));
    let baton = Baton::before(&[&server]);
    assert_eq!(baton.client().ask(POST).status(), 502);
}

#[test]
fn endless_interim_responses_are_502_and_hold_up_nobody_else() {
    let server = Server::start(|exchange| {
        while !exchange.request()?.start.contains("/flood") {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        let flood = "HTTP/1.1 103 E\r\n\r\n".repeat(4096);
        loop {
            exchange.send(&flood)?;
        }
    });
    let baton = Baton::before(&[&server]);
    let mut flooded = [(); 4].map(|()| baton.client());
    let begin = Instant::now();
    for client in &mut flooded {
        client.send("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    }
    let mut other = baton.client();
    for _ in 0..20 {
        assert_eq!(other.ask(POST).text(), "ok");
    }
    let fault = Some("\"lb-test\"; error=http_protocol_error; next-hop=\"app1\"");
    for client in &mut flooded {
        // Some of them are passed on.
        let mut response = client.response();
        while response.status() == 103 {
            response = client.response();
        }
        assert_own(&response, 502, UNREACHABLE, fault);
    }
    let taken = begin.elapsed();
    assert!(taken < Duration::from_secs(5), "{taken:?}");
    // Each was asked for once, and its connection given up.
    server.wait_until("the program has closed", |record| {
        record.connections.iter().filter(|connection| connection.is_ended).count() == flooded.len()
    });
    assert_eq!(server.requests().len(), 20 + flooded.len());
}

#[test]
fn response_head_of_32_kib_passes() {
    let value = "x".repeat(32 * 1024);
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\nX: {value}\r\nContent-Length: 2\r\n\r\nok"));
    let baton = Baton::before(&[&server]);
    let response = baton.client().ask(POST);
    assert_eq!((response.status(), response.value("x")), (200, Some(value.as_str())));
}

#[test]
fn response_of_100_fields_passes_and_one_of_101_is_502() {
    for (count, status) in [(100, 200), (101, 502)] {
        let fields = "X: 1\r\n".repeat(count - 1);
        let server = Server::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"));
        let baton = Baton::before(&[&server]);
        assert_eq!(baton.client().ask(POST).status(), status);
    }
}

#[test]
fn request_without_a_route_is_404() {
    let server = Server::saying("ok");
    let blocks = format!(
        "[[route]]\nlistener = \"http\"\nhost = \"a.example\"\npool = \"app\"\n\
         [[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]\n",
        server.address()
    );
    let baton = Baton::run("", &blocks);
    let mut client = baton.client();
    assert_own(&client.ask(GET), 404, "404 Not Found\nno route matches this request\n", None);
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn server_that_refuses_is_passed_over() {
    let (mut dead, alive) = (Server::saying("dead"), Server::saying("alive"));
    dead.pause();
    let baton = Baton::before(&[&dead, &alive]);
    let mut client = baton.client();
    for _ in 0..4 {
        assert_eq!(client.ask(POST).text(), "alive");
    }
}

#[test]
fn get_that_a_server_leaves_unanswered_goes_to_the_next_one() {
    let (broken, alive) = (closing_after(""), Server::saying("alive"));
    let baton = Baton::before(&[&broken, &alive]);
    for method in ["GET", "OPTIONS", "DELETE", "PUT"] {
        let response = baton.client().ask(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((response.status(), response.text().as_str()), (200, "alive"), "{method}");
    }
}

#[test]
fn post_that_was_sent_is_not_sent_again() {
    let (broken, alive) = (closing_after(""), Server::saying("alive"));
    let baton = Baton::before(&[&broken, &alive]);
    assert_eq!(baton.client().ask(POST).status(), 502);
    assert_eq!((broken.requests().len(), alive.requests().len()), (1, 0));
    // Without a body it is as little repeatable.
    let empty = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let statuses = [baton.client().ask(empty).status(), baton.client().ask(empty).status()];
    assert!(statuses.contains(&200) && statuses.contains(&502), "{statuses:?}");
    assert_eq!((broken.requests().len(), alive.requests().len()), (2, 1));
}

#[test]
fn put_whose_body_is_gone_is_not_sent_again() {
    let (broken, alive) = (closing_after(""), Server::saying("alive"));
    let baton = Baton::before(&[&broken, &alive]);
    assert_eq!(baton.client().ask("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").status(), 502);
    assert_eq!((broken.requests().len(), alive.requests().len()), (1, 0));
}

#[test]
fn one_request_is_tried_five_times_at_most() {
    let servers: Vec<_> = (0..8).map(|_| closing_after("")).collect();
    let baton = Baton::before(&servers.iter().collect::<Vec<_>>());
    assert_eq!(baton.client().ask(GET).status(), 502);
    let tried: Vec<_> = servers.iter().map(|server| server.requests().len()).collect();
    assert_eq!(tried, [1, 1, 1, 1, 1, 0, 0, 0]);
}

/// A server that answers the first request on a connection and closes in the face of the second.
fn closing_on_the_second() -> Server {
    Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        exchange.request()?;
        Ok(())
    })
}

#[test]
fn get_on_a_connection_that_closes_at_that_moment_is_sent_again() {
    let server = closing_on_the_second();
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..4 {
        assert_eq!(client.ask(GET).text(), "ok");
    }
    // 1 on the first connection; then 1 in vain and 1 on a new one, three times.
    assert_eq!((server.requests().len(), server.connections().len()), (7, 4));
}

#[test]
fn post_on_a_connection_that_closes_at_that_moment_is_not_sent_again() {
    let server = closing_on_the_second();
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    assert_eq!(client.ask(POST).text(), "ok");
    assert_eq!(client.ask(POST).status(), 502);
    assert_eq!(server.requests().len(), 2);
    assert_eq!(client.ask(POST).text(), "ok");
}

#[test]
fn post_goes_out_on_a_new_connection_when_the_old_one_was_closed_before() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for count in 1..=10 {
        assert_eq!(client.ask(POST).text(), "ok");
        server.wait_until("the server has closed", |record| {
            record.connections.len() == count && record.connections.iter().all(|connection| connection.is_ended)
        });
    }
    assert_eq!(server.requests().len(), 10);
}

#[test]
fn garbage_is_not_asked_for_twice() {
    let (garbage, alive) = (closing_after("garbage\r\n\r\n"), Server::saying("alive"));
    let baton = Baton::before(&[&garbage, &alive]);
    assert_eq!(baton.client().ask(GET).status(), 502);
    assert_eq!((garbage.requests().len(), alive.requests().len()), (1, 0));
}
