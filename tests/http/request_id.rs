//! Ids of requests, and W3C Trace Context.

use std::collections::HashSet;

use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::server::Server;

fn settings(listener: &str) -> Settings {
    Settings { listener: listener.to_owned(), ..Settings::default() }
}

fn with_field(client: &mut Client, field: &str) -> Option<String> {
    let response = client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
    assert_eq!(response.status(), 200);
    response.value("x-request-id").map(str::to_owned)
}

/// Digits and hyphens of a UUID of version 7 (RFC 9562 section 5.7).
fn is_uuid_v7(id: &str) -> bool {
    let parts: Vec<&str> = id.split('-').collect();
    let lens: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_hex = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    lens == [8, 4, 4, 4, 12] && is_hex && parts[2].starts_with('7') && parts[3].starts_with(['8', '9', 'a', 'b'])
}

#[test]
fn every_request_gets_an_id_that_server_and_client_see() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings("request_id = {}"));
    let mut client = baton.client();
    let mut told = Vec::new();
    for _ in 0..50 {
        told.push(with_field(&mut client, "X-Request-Id: mine\r\n").expect("the client is told"));
    }
    assert!(told.iter().all(|id| is_uuid_v7(id)), "{told:?}");
    assert_eq!(told.iter().collect::<HashSet<_>>().len(), 50);
    assert!(told.is_sorted_by_key(|id| id[..13].to_owned()), "{told:?}");
    let seen: Vec<String> =
        server.requests().iter().map(|request| request.value("x-request-id").expect("it has one").to_owned()).collect();
    assert_eq!(seen, told);
}

#[test]
fn answers_of_our_own_have_the_id_too() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings("request_id = {}\ndeny = [\"127.0.0.0/8\"]"));
    let response = baton.client().get("/");
    assert_eq!(response.status(), 403);
    assert!(response.value("x-request-id").is_some_and(is_uuid_v7), "{response:?}");
}

#[test]
fn id_of_a_trusted_proxy_is_taken_over_when_it_is_one() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings("request_id = {}\nforwarded = { trusted = [\"127.0.0.1\"] }"));
    let mut client = baton.client();
    assert_eq!(with_field(&mut client, "X-Request-Id: abc-1.2\r\n").as_deref(), Some("abc-1.2"));
    assert_eq!(server.requests()[0].value("x-request-id"), Some("abc-1.2"));
    let two = "X-Request-Id: a\r\nX-Request-Id: b\r\n";
    for bad in ["X-Request-Id: a b\r\n", "X-Request-Id: \r\n", "X-Request-Id: \"a\"\r\n", two] {
        let id = with_field(&mut client, bad).expect("it is told");
        assert!(is_uuid_v7(&id), "{bad:?} became {id}");
        let request = server.requests().pop().expect("it has come");
        assert_eq!(request.value("x-request-id"), Some(&id[..]));
    }
    let mut stranger = Client::connect_from("127.0.0.2:0".parse().expect("an address"), baton.address());
    assert!(with_field(&mut stranger, "X-Request-Id: abc\r\n").is_some_and(|id| is_uuid_v7(&id)));
}

#[test]
fn header_acceptance_and_answer_are_as_configured() {
    let server = Server::saying("ok");
    let own = "header = \"X-Correlation\", accept = \"always\", response = false";
    let baton = Baton::with(&[&server], &settings(&format!("request_id = {{ {own} }}")));
    let mut client = baton.client();
    let response = client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Correlation: mine\r\n\r\n");
    assert_eq!(response.value("x-correlation"), None);
    assert_eq!(server.request().value("x-correlation"), Some("mine"));
    let baton = Baton::with(
        &[&server],
        &settings("forwarded = { trusted = [\"127.0.0.1\"] }\nrequest_id = { accept = \"never\" }"),
    );
    assert!(with_field(&mut baton.client(), "X-Request-Id: mine\r\n").is_some_and(|id| is_uuid_v7(&id)));
}

#[test]
fn without_the_setting_ids_pass_as_they_are() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let fields = "X-Request-Id: mine\r\nTraceparent: nonsense\r\nTracestate: a=b\r\n";
    assert_eq!(with_field(&mut baton.client(), fields), None);
    let request = server.request();
    assert_eq!(request.value("x-request-id"), Some("mine"));
    assert_eq!((request.value("traceparent"), request.value("tracestate")), (Some("nonsense"), Some("a=b")));
}

#[test]
fn traces_go_on_or_begin() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings("trace_context = true"));
    let mut client = baton.client();
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    with_field(&mut client, &format!("Traceparent: {good}\r\nTracestate: a=b\r\n"));
    let request = server.requests().remove(0);
    assert_eq!((request.value("traceparent"), request.value("tracestate")), (Some(good), Some("a=b")));
    let mut made = HashSet::new();
    for field in
        ["", "Traceparent: 00-x\r\nTracestate: a=b\r\n", &format!("Traceparent: {good}\r\nTraceparent: {good}\r\n")]
    {
        with_field(&mut client, field);
        let request = server.requests().pop().expect("it has come");
        let parent = request.value("traceparent").expect("it has one");
        assert!(
            parent.len() == 55 && parent.starts_with("00-") && parent.ends_with("-00") && parent != good,
            "{parent}"
        );
        assert_eq!(request.value("tracestate"), None);
        made.insert(parent.to_owned());
    }
    assert_eq!(made.len(), 3);
}
