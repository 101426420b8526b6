//! Connections on both sides: kept, shared out, pipelined; and messages without a body.

use std::io;
use std::time::{Duration, Instant};

use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::curl::curl;
use crate::server::Server;
use crate::wire::Kind;

/// A server whose answer is the target that was asked for.
fn echoing_targets() -> Server {
    Server::start(|exchange| {
        loop {
            let request = exchange.request()?;
            let target = request.start.split(' ').nth(1).unwrap_or_default();
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()))?;
        }
    })
}

#[test]
fn one_connection_on_each_side_carries_many_requests() {
    let server = echoing_targets();
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for number in 0..20 {
        let path = format!("/{number}");
        assert_eq!(client.get(&path).text(), path);
    }
    assert_eq!((server.connections().len(), server.requests().len()), (1, 20));
}

#[test]
fn connection_to_a_server_serves_one_client_after_another() {
    let server = echoing_targets();
    let baton = Baton::before(&[&server]);
    for number in 0..5 {
        let mut client = baton.client();
        assert_eq!(client.get(&format!("/{number}")).status(), 200);
    }
    assert_eq!(server.connections().len(), 1);
}

#[test]
fn curl_reuses_its_connection() {
    let server = echoing_targets();
    let baton = Baton::before(&[&server]);
    let format = "\n%{num_connects}\n";
    let output = curl(&["--write-out", format, &baton.url("/a"), &baton.url("/b"), &baton.url("/c")]);
    assert_eq!(output.text(), "/a\n1\n/b\n0\n/c\n0\n", "{}", output.stderr);
}

#[test]
fn client_that_asks_for_close_gets_it_and_the_server_connection_stays() {
    let server = echoing_targets();
    let baton = Baton::before(&[&server]);
    for _ in 0..2 {
        let mut client = baton.client();
        let response = client.ask("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!((response.text().as_str(), response.value("connection")), ("/a", Some("close")));
        client.expect_closed();
    }
    assert_eq!(server.connections().len(), 1);
}

#[test]
fn http_10_client_is_kept_only_when_it_asks() {
    let server = echoing_targets();
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let response = client.ask("GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((response.text().as_str(), response.value("connection")), ("/a", Some("keep-alive")));
    assert_eq!(response.start, "HTTP/1.0 200 OK");
    assert_eq!(client.ask("GET /b HTTP/1.0\r\nHost: a\r\n\r\n").text(), "/b");
    client.expect_closed();
}

#[test]
fn server_that_says_close_is_connected_to_anew() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
        exchange.wait_for_end()
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..3 {
        let response = client.get("/");
        // What the server says about its connection is not about the client's.
        assert_eq!((response.text().as_str(), response.value("connection")), ("ok", None));
    }
    assert_eq!(server.connections().len(), 3);
}

#[test]
fn http_10_server_is_connected_to_anew() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        exchange.wait_for_end()
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(server.connections().len(), 2);
}

#[test]
fn no_idle_connection_is_kept_where_none_may_be() {
    let server = echoing_targets();
    let settings = Settings { pool: "idle_connections_max = 0".to_owned(), ..Settings::default() };
    let baton = Baton::with(&[&server], &settings);
    let mut client = baton.client();
    for _ in 0..3 {
        client.get("/");
    }
    assert_eq!(server.connections().len(), 3);
}

#[test]
fn idle_connection_to_a_server_is_closed_after_its_time() {
    let server = echoing_targets();
    let settings = Settings { pool: "idle_timeout = \"200ms\"".to_owned(), ..Settings::default() };
    let baton = Baton::with(&[&server], &settings);
    baton.client().get("/");
    server.wait_until("the idle connection is closed", |record| record.connections[0].is_ended);
}

#[test]
fn bytes_that_a_server_sends_unasked_are_never_an_answer() {
    let server = Server::start(|exchange| {
        loop {
            exchange.request()?;
            // A second response that nobody asked for, in one packet with the first.
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
            exchange.send(format!("{answer}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))?;
        }
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..5 {
        let response = client.get("/");
        assert_eq!((response.status(), response.text().as_str()), (200, "good"));
    }
    assert_eq!(server.connections().len(), 5);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = echoing_targets();
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let requests: String = (0..50).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests).expect("the connection is open");
    for number in 0..50 {
        assert_eq!(client.response().text(), format!("/{number}"));
    }
}

#[test]
fn pipelined_bodies_do_not_run_into_one_another() {
    let server = Server::start(|exchange| {
        loop {
            let body = exchange.request()?.text();
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))?;
        }
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n";
    client.send(format!("{sized}{chunked}{sized}{chunked}")).expect("the connection is open");
    for _ in 0..2 {
        assert_eq!(client.response().text(), "GET / HTTP/1.1\r\nHost: b\r\n\r\n");
        assert_eq!(client.response().text(), "one two");
    }
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn good_requests_before_a_malformed_one_are_answered_then_400_then_the_end() {
    let server = echoing_targets();
    let baton = Baton::before(&[&server]);
    for cut in [0, 1, 40, 80] {
        let stream = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost : a\r\n\r\n\
             GET /4 HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut client = baton.client();
        let (first, second) = stream.split_at(cut);
        client.send(first).expect("the connection is open");
        client.send(second).expect("the connection is open");
        assert_eq!(client.response().text(), "/1");
        assert_eq!(client.response().text(), "/2");
        let refusal = client.response();
        assert_eq!((refusal.status(), refusal.value("connection")), (400, Some("close")));
        client.expect_closed();
    }
    let targets: Vec<_> = server.requests().into_iter().map(|request| request.start).collect();
    assert_eq!(targets, ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1"].repeat(4));
}

#[test]
fn head_keeps_the_length_and_has_no_body() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..3 {
        client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
        let response = client.message(Kind::ResponseToHead).expect("a response comes");
        assert_eq!((response.status(), response.value("content-length")), (200, Some("1000")));
    }
    assert_eq!(server.connections().len(), 1);
    assert_eq!(server.requests()[0].start, "HEAD /a HTTP/1.1");
    let output = curl(&["--head", &baton.url("/")]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

#[test]
fn head_of_a_chunked_response_claims_no_length() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
        let response = client.message(Kind::ResponseToHead).expect("a response comes");
        assert_eq!((response.status(), response.value("content-length")), (200, None));
    }
}

#[test]
fn responses_without_body_leave_the_connection_in_step() {
    let server = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send("HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n")?;
            exchange.request()?;
            exchange.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\n")?;
        }
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..2 {
        let empty = client.get("/");
        assert_eq!((empty.status(), empty.value("x-a")), (204, Some("1")));
        assert_eq!((empty.value("content-length"), empty.value("transfer-encoding")), (None, None));
        let same = client.get("/");
        assert_eq!((same.status(), same.value("etag")), (304, Some("\"a\"")));
        assert_eq!(same.value("transfer-encoding"), None);
    }
    assert_eq!(server.connections().len(), 1);
}

#[test]
fn body_that_a_204_cannot_have_is_never_an_answer() {
    let server = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send(
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            )?;
        }
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!((response.status(), response.value("content-length")), (204, None));
    }
    assert_eq!(server.connections().len(), 3);
}

#[test]
fn client_that_waits_for_100_gets_it_and_the_server_is_not_asked_twice() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    for _ in 0..2 {
        let interim = client.ask(head);
        assert_eq!(interim.start, "HTTP/1.1 100 Continue");
        let response = client.ask("hello");
        assert_eq!((response.status(), response.text().as_str()), (200, "ok"));
    }
    for request in server.requests() {
        assert_eq!((request.text().as_str(), request.value("expect")), ("hello", None));
    }
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn curl_sends_a_body_that_it_announces_with_an_expectation() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    // So long that only a 100 makes curl send in time.
    let patient = ["--expect100-timeout", "15", "--header", "Expect: 100-continue", "--data", "hello"];
    let output = curl(&[&patient[..], &["--max-time", "10", &baton.url("/")]].concat());
    assert_eq!((output.code, output.text().as_str()), (Some(0), "ok"), "{}", output.stderr);
    assert_eq!(server.request().text(), "hello");
}

#[test]
fn expectation_is_not_met_when_no_server_can_be_reached() {
    let mut server = Server::saying("ok");
    server.pause();
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let response = client.ask("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(response.status(), 502);
    client.expect_closed();
}

#[test]
fn interim_responses_of_a_server_are_not_taken_for_the_final_one() {
    let server = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")?;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal")?;
        }
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"] {
        client.send(request).expect("the connection is open");
        let mut response = client.response();
        while (100..200).contains(&response.status()) {
            response = client.response();
        }
        assert_eq!((response.status(), response.text().as_str()), (200, "final"));
    }
    assert_eq!(server.connections().len(), 1);
}

#[test]
fn protocol_switch_that_nobody_asked_for_is_an_error() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")?;
        exchange.wait_for_end()
    });
    let baton = Baton::before(&[&server]);
    assert_eq!(baton.client().get("/").status(), 502);
}

#[test]
fn server_learns_at_once_that_a_client_has_gone() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_end()
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    server.wait_until("the request has come", |record| record.requests.len() == 1);
    drop(client);
    server.wait_until("the connection is closed", |record| record.connections[0].is_ended);
}

#[test]
fn server_learns_at_once_that_a_client_has_left_in_the_middle_of_a_response() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        exchange.wait_for_end()
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    client.head().expect("a head comes");
    drop(client);
    server.wait_until("the connection is closed", |record| record.connections[0].is_ended);
}

#[test]
fn many_clients_at_once_get_what_is_theirs() {
    let servers = [(); 3].map(|()| echoing_targets());
    let baton = Baton::with(&servers.each_ref(), &Settings { threads: 2, ..Settings::default() });
    std::thread::scope(|scope| {
        for client in 0..16 {
            let address = baton.address();
            scope.spawn(move || {
                let mut connection = Client::connect(address);
                for number in 0..50 {
                    if number % 10 == 9 {
                        connection = Client::connect(address);
                    }
                    let path = format!("/{client}/{number}/{}", "x".repeat(number * 20));
                    assert_eq!(connection.get(&path).text(), path);
                }
            });
        }
    });
    let counts = servers.each_ref().map(|server| server.requests().len());
    assert_eq!(counts.iter().sum::<usize>(), 16 * 50);
    assert!(counts.iter().all(|&count| count > 200), "{counts:?}");
}

#[test]
fn body_that_a_client_breaks_off_never_looks_complete_to_the_server() {
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let server = Server::saying("ok");
        let baton = Baton::before(&[&server]);
        let mut client = baton.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n9\r\nab")).expect("the connection is open");
        server.wait_until("the head has come", |record| {
            record.connections.first().is_some_and(|first| first.received.windows(2).any(|pair| pair == b"ab"))
        });
        client.finish();
        server.wait_until("the connection is closed", |record| record.connections[0].is_ended);
        assert_eq!(server.requests(), []);
        assert!(!server.connections()[0].received.ends_with(b"0\r\n\r\n"));
    }
}

#[test]
fn server_may_answer_before_the_body_has_come() {
    let server = Server::start(|exchange| {
        exchange.head()?;
        exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")?;
        exchange.wait_for_end()
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    let response = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc");
    assert_eq!((response.status(), response.text().as_str()), (413, "big"));
    // The rest of the body cannot be told from a next request by anyone but us: both connections end.
    match client.rest() {
        Ok(rest) => assert_eq!(rest, b""),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    server.wait_until("the connection is closed", |record| record.connections[0].is_ended);
}

#[test]
fn upload_that_was_answered_early_does_not_hold_a_stop_up() {
    let server = Server::start(|exchange| {
        exchange.head()?;
        exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")?;
        exchange.wait_for_end()
    });
    let mut baton = Baton::before(&[&server]);
    let mut client = baton.client();
    assert_eq!(client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc").status(), 413);
    // Nothing is left of the client but its unfinished request.
    drop(client);
    let started = Instant::now();
    baton.terminate();
    assert_eq!(baton.wait().code(), Some(0));
    // Well below drain_timeout, which is 10 s.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn early_answer_reaches_a_client_that_is_still_sending() {
    let server = Server::start(|exchange| {
        exchange.head()?;
        exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")?;
        exchange.wait_for_end()
    });
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").expect("the connection is open");
    client.send("x".repeat(8 * 1024 * 1024)).expect("what it sends is taken");
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (413, "big"));
    assert_eq!(client.rest().expect("an orderly end"), b"");
}
