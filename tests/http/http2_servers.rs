//! Servers that are spoken to in HTTP/2.

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::{HeaderMap, HeaderValue, Response};

use crate::baton::{Baton, Settings};
use crate::h2_server::H2Server;

const GET: &str = "GET /path?q=1 HTTP/1.1\r\nHost: a.example:8080\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

fn before(servers: &[&H2Server], pool: &str) -> Baton {
    let addresses: Vec<_> = servers.iter().map(|server| server.address()).collect();
    let pool = format!("protocol = \"h2c\"\n{pool}");
    Baton::before_addresses(&addresses, &Settings { pool, ..Settings::default() })
}

#[test]
fn request_and_response_pass_with_their_heads_and_bodies() {
    let server = H2Server::saying("hello");
    let baton = before(&[&server], "");
    let mut client = baton.client();
    let response = client.ask(GET);
    assert_eq!((response.status(), response.text().as_str()), (200, "hello"));
    assert_eq!(response.value("content-length"), Some("5"));
    assert_eq!(
        client.ask("PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").status(),
        200
    );
    let requests = server.requests();
    assert_eq!((requests[0].method.as_str(), requests[0].uri.as_str()), ("GET", "http://a.example:8080/path?q=1"));
    assert_eq!(requests[0].headers.get("x-forwarded-host").unwrap(), "a.example:8080");
    assert_eq!(requests[0].headers.get("host"), None);
    assert_eq!((requests[1].method.as_str(), requests[1].body.as_slice()), ("PUT", &b"abc"[..]));
    assert_eq!(requests[1].headers.get("transfer-encoding"), None);
    assert_eq!(server.connections(), 1);
}

#[test]
fn requests_share_one_connection_at_once() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        asked.read().await?;
        asked.server.wait_for_signal().await;
        asked.say(200, "ok")
    });
    let baton = before(&[&server], "");
    let mut clients: Vec<_> = (0..20).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.send(GET).unwrap();
    }
    server.wait_until("all are there", |record| record.requests.len() == 20);
    clients.iter().for_each(|_| server.signal());
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn what_a_server_allows_at_once_is_honoured_and_more_connections_are_made_within_the_limit() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let server = H2Server::start(builder, |mut asked| async move {
        asked.read().await?;
        asked.server.wait_for_signal().await;
        asked.say(200, "ok")
    });
    let baton = before(&[&server], "http2 = { connections_max = 3 }");
    let mut clients: Vec<_> = (0..10).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.send(GET).unwrap();
    }
    server.wait_until("as many as there is room for", |record| record.requests.len() == 6);
    clients.iter().for_each(|_| server.signal());
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    server.wait_until("all are done", |record| record.requests.len() == 10 && record.streams_max == 2);
    assert_eq!(server.connections(), 3);
}

#[test]
fn trailers_pass_both_ways_and_the_server_learns_that_the_client_takes_them() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        asked.read().await?;
        let response = Response::builder().header("trailer", "grpc-status").body(()).unwrap();
        let mut stream = asked.respond.send_response(response, false)?;
        stream.send_data(Bytes::from_static(b"data"), false)?;
        let trailers = [("grpc-status", HeaderValue::from_static("0"))];
        stream.send_trailers(trailers.into_iter().map(|(name, value)| (name.parse().unwrap(), value)).collect())
    });
    let baton = before(&[&server], "");
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: x-sum\r\n\
        Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n";
    let response = baton.client().ask(request);
    assert_eq!((response.status(), response.text().as_str()), (200, "data"));
    assert_eq!(response.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    let request = &server.requests()[0];
    assert_eq!(request.headers.get("te").unwrap(), "trailers");
    let sum: HeaderMap = [("x-sum".parse().unwrap(), HeaderValue::from_static("7"))].into_iter().collect();
    assert_eq!(request.trailers, Some(sum));
}

/// What a client of HTTP/1.1 that takes trailers gets of a server that announces none.
fn unannounced(content_type: &str) -> (String, Vec<(String, String)>) {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        asked.read().await?;
        let mut stream = asked.respond.send_response(Response::new(()), false)?;
        stream.send_data(Bytes::from_static(b"data"), false)?;
        let trailers = [("grpc-status", "5"), ("grpc-message", "no such")];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        stream.send_trailers(trailers.into_iter().collect())
    });
    let baton = before(&[&server], "");
    let mut client = baton.client();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nContent-Type: {content_type}\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let response = client.ask(&request);
    assert_eq!(response.status(), 200);
    // The connection goes on behind them.
    assert_eq!(client.ask(&request).text(), "data");
    (response.text(), response.trailers)
}

#[test]
fn trailers_of_grpc_reach_clients_of_http1_that_take_them_announced_or_not() {
    let (body, trailers) = unannounced("application/grpc+proto");
    assert_eq!(body, "data");
    let expected = [("grpc-status", "5"), ("grpc-message", "no such")];
    assert_eq!(trailers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn other_trailers_that_nobody_announced_are_left_out_for_clients_of_http1() {
    assert_eq!(unannounced("text/plain"), ("data".to_owned(), Vec::new()));
}

#[test]
fn large_bodies_pass_both_ways_at_once() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        let mut stream = asked.respond.send_response(Response::new(()), false)?;
        let body = asked.request.body_mut();
        while let Some(data) = body.data().await {
            let mut data = data?;
            body.flow_control().release_capacity(data.len())?;
            while !data.is_empty() {
                stream.reserve_capacity(data.len());
                let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await.unwrap()?;
                stream.send_data(data.split_to(room.min(data.len())), false)?;
            }
        }
        stream.send_data(Bytes::new(), true)
    });
    let baton = before(&[&server], "");
    let body = "0123456789abcdef".repeat(128 * 1024);
    let mut client = baton.client();
    let mut writer = client.stream().try_clone().unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let sent = std::thread::spawn(move || std::io::Write::write_all(&mut writer, head.as_bytes()));
    let response = client.response();
    sent.join().unwrap().unwrap();
    assert!(response.text() == body, "{} bytes came back", response.text().len());
}

#[test]
fn refused_stream_is_sent_again_even_with_a_body_that_was_not_begun() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = H2Server::start(Builder::new(), move |mut asked| {
        let is_first = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        async move {
            if is_first {
                asked.respond.send_reset(Reason::REFUSED_STREAM);
                return Ok(());
            }
            asked.read().await?;
            asked.say(200, "second")
        }
    });
    let other = H2Server::saying("other");
    let baton = before(&[&server, &other], "");
    assert_eq!(baton.client().get("/").text(), "other");
}

#[test]
fn goaway_ends_a_connection_without_failing_a_request() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        asked.read().await?;
        asked.goaway.notify_one();
        asked.say(200, "ok")
    });
    let baton = before(&[&server], "");
    let mut client = baton.client();
    for _ in 0..20 {
        assert_eq!(client.ask(POST).text(), "ok");
    }
    assert!(server.connections() >= 2, "{}", server.connections());
}

#[test]
fn reset_before_the_head_is_502_and_in_the_body_breaks_the_response_off() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        let is_early = asked.read().await?.uri.ends_with("/early");
        if is_early {
            asked.respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        let response = Response::builder().header("content-length", 10).body(()).unwrap();
        let mut stream = asked.respond.send_response(response, false)?;
        stream.send_data(Bytes::from_static(b"01234"), false)?;
        asked.server.wait_for_signal().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        Ok(())
    });
    let baton = before(&[&server], "");
    let response = baton.client().ask("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(response.status(), 502);
    let fault = Some("\"lb-test\"; error=connection_terminated; next-hop=\"app1\"");
    assert_eq!(response.value("proxy-status"), fault);
    let mut client = baton.client();
    client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.head().unwrap().status(), 200);
    assert_eq!(client.exactly(5).unwrap(), b"01234");
    server.signal();
    let end = client.rest();
    assert!(end.as_ref().map_or(true, Vec::is_empty), "{end:?}");
    // Only the streams were broken, not the connection.
    assert_eq!(server.connections(), 1);
}

#[test]
fn client_that_leaves_has_its_stream_reset() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        asked.read().await?;
        let reason = std::future::poll_fn(|context| asked.respond.poll_reset(context)).await?;
        assert_eq!(reason, Reason::CANCEL);
        asked.server.signal();
        Ok(())
    });
    let baton = before(&[&server], "");
    let mut client = baton.client();
    client.send(GET).unwrap();
    server.wait_until("the request is there", |record| record.requests.len() == 1);
    drop(client);
    server.wait_until("the stream is reset", |record| record.signals == 1);
}

#[test]
fn server_that_does_not_answer_is_504_and_the_connection_goes_on_for_the_others() {
    let server = H2Server::start(Builder::new(), |mut asked| async move {
        if asked.read().await?.uri.ends_with("/slow") {
            std::future::pending::<()>().await;
        }
        asked.say(200, "ok")
    });
    let baton = before(&[&server], "response_timeout = \"100ms\"");
    let mut client = baton.client();
    let response = client.get("/slow");
    assert_eq!(response.status(), 504);
    assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=http_response_timeout; next-hop=\"app1\""));
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn unreachable_server_is_502_for_all_who_wait_for_the_connection() {
    let mut server = crate::server::Server::saying("x");
    server.pause();
    let settings = Settings { pool: "protocol = \"h2c\"".to_owned(), ..Settings::default() };
    let baton = Baton::before_addresses(&[server.address()], &settings);
    let mut clients: Vec<_> = (0..5).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.send(GET).unwrap();
    }
    for client in &mut clients {
        let response = client.response();
        assert_eq!(response.status(), 502);
        assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=connection_refused; next-hop=\"app1\""));
    }
}
