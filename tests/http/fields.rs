//! What a server sees of a request, and a client of a response.

use crate::baton::Baton;
use crate::curl::curl;
use crate::limits::wait_for_refusals;
use crate::server::Server;
use crate::wire::Fields;

fn sorted(fields: &[(&str, &str)]) -> Fields {
    let mut fields: Fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    fields.sort();
    fields
}

/// The request line and the fields, in alphabetical order, of what a server gets for these bytes.
fn forwarded(request: &str) -> (String, Fields) {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let response = baton.client().ask(request);
    assert_eq!((response.status(), response.text()), (200, "ok".to_owned()));
    let mut request = server.request();
    request.fields.sort();
    (request.start, request.fields)
}

/// The status line and the fields, in alphabetical order, of what a client gets for these bytes.
fn returned(response: &'static str) -> (String, Fields) {
    let server = Server::answering(response);
    let baton = Baton::before(&[&server]);
    let mut response = baton.client().get("/");
    response.fields.sort();
    (response.start, response.fields)
}

#[test]
fn server_sees_the_request_with_forwarded_fields_and_nothing_else_added() {
    let (start, fields) =
        forwarded("GET /a?b=c HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: test\r\nX-Own: 1\r\n\r\n");
    assert_eq!(start, "GET /a?b=c HTTP/1.1");
    let expected = [
        ("host", "shop.example:8080"),
        ("user-agent", "test"),
        ("via", "1.1 baton"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "shop.example:8080"),
        ("x-forwarded-proto", "http"),
        ("x-own", "1"),
    ];
    assert_eq!(fields, sorted(&expected));
}

#[test]
fn forwarded_for_and_via_continue_the_lists_that_came_and_the_rest_is_replaced() {
    let (_, fields) = forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\nVia: 1.1 edge\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\r\n",
    );
    let expected = [
        ("host", "a"),
        ("via", "1.1 edge, 1.1 baton"),
        ("x-forwarded-for", "192.0.2.1, 192.0.2.2, 127.0.0.1"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-proto", "http"),
    ];
    assert_eq!(fields, sorted(&expected));
}

#[test]
fn hop_by_hop_fields_and_those_that_connection_names_do_not_reach_the_server() {
    let (_, fields) = forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Secret\r\nConnection: upgrade\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nX-Secret: 1\r\nX-Kept: 2\r\n\r\n",
    );
    let expected = [
        ("host", "a"),
        ("via", "1.1 baton"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-proto", "http"),
        ("x-kept", "2"),
    ];
    assert_eq!(fields, sorted(&expected));
}

#[test]
fn connection_cannot_name_away_host_or_framing() {
    let (_, fields) = forwarded(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: host, content-length, transfer-encoding\r\n\r\nhi",
    );
    assert!(fields.contains(&("host".to_owned(), "a".to_owned())), "{fields:?}");
    assert!(fields.contains(&("content-length".to_owned(), "2".to_owned())), "{fields:?}");
}

#[test]
fn connection_cannot_name_away_the_fields_that_baton_adds() {
    let (_, fields) = forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\
         Connection: x-forwarded-for, x-forwarded-proto, x-forwarded-host, via\r\n\r\n",
    );
    let expected = [
        ("host", "a"),
        ("via", "1.1 baton"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-proto", "http"),
    ];
    assert_eq!(fields, sorted(&expected));
}

#[test]
fn absolute_target_becomes_a_path_and_its_authority_host() {
    let (start, fields) = forwarded("GET http://Shop.Example:81/a?b HTTP/1.1\r\nHost: shop.example:81\r\n\r\n");
    assert_eq!(start, "GET /a?b HTTP/1.1");
    let hosts: Vec<_> = fields.iter().filter(|(name, _)| name == "host").map(|(_, value)| value.as_str()).collect();
    assert_eq!(hosts, ["Shop.Example:81"]);
    assert_eq!(forwarded("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").0, "GET / HTTP/1.1");
    assert_eq!(forwarded("GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n").0, "GET /?b HTTP/1.1");
}

#[test]
fn options_for_the_whole_server_stays_so() {
    assert_eq!(forwarded("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").0, "OPTIONS * HTTP/1.1");
}

#[test]
fn targets_arrive_as_they_were_written() {
    for target in ["//a///b/../c", "/%2e%2E/%zz;p=1,2!$&'()*+=:@~-._", "/?", "/a?b?c=/d&e[]=%20", "/[]{}|^"] {
        let (start, _) = forwarded(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(start, format!("GET {target} HTTP/1.1"));
    }
}

#[test]
fn methods_arrive_as_they_were_written() {
    for method in ["DELETE", "PATCH", "PROPFIND", "get", "M!#$%&'*+-.^_`|~09"] {
        let (start, _) = forwarded(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(start, format!("{method} / HTTP/1.1"));
    }
}

#[test]
fn http_10_request_reaches_the_server_as_http_11() {
    let (start, fields) = forwarded("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(start, "GET / HTTP/1.1");
    let expected = [
        ("host", "a"),
        ("via", "1.0 baton"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-proto", "http"),
    ];
    assert_eq!(fields, sorted(&expected));
}

#[test]
fn http_10_request_without_host_gets_one() {
    // RFC 9112 section 3.2: a request in HTTP/1.1 without Host is answered with 400.
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    assert_eq!(baton.client().ask("GET / HTTP/1.0\r\n\r\n").text(), "ok");
    let request = server.request();
    assert_eq!(request.start, "GET / HTTP/1.1");
    assert_eq!(request.value("host"), Some(baton.address().to_string().as_str()));
    assert_eq!(request.value("x-forwarded-host"), None);
}

#[test]
fn body_without_bytes_keeps_its_length() {
    let (_, fields) = forwarded("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(fields.contains(&("content-length".to_owned(), "0".to_owned())), "{fields:?}");
}

#[test]
fn get_keeps_its_body() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = baton.client();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").text(), "ok");
    assert_eq!(client.get("/").text(), "ok");
    let bodies: Vec<_> = server.requests().iter().map(|request| request.text()).collect();
    assert_eq!(bodies, ["hello", ""]);
}

#[test]
fn field_values_keep_their_bytes() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let latin = b"GET / HTTP/1.1\r\nHost: a\r\nX-Latin: caf\xe9 \xff\r\nX-Empty:\r\nX-Tab: a\tb\r\n\r\n";
    let mut client = baton.client();
    client.send(latin).expect("the connection is open");
    // The server's reader takes UTF-8 only, so the record of bytes is what counts.
    server.wait_until("the head has come", |record| {
        record.connections.first().is_some_and(|connection| connection.received.ends_with(b"\r\n\r\n"))
    });
    let received = server.connections()[0].received.clone();
    let has = |line: &[u8]| received.windows(line.len()).any(|window| window == line);
    assert!(has(b"\r\nx-latin: caf\xe9 \xff\r\n"), "{}", received.escape_ascii());
    assert!(has(b"\r\nx-empty: \r\n"), "{}", received.escape_ascii());
    assert!(has(b"\r\nx-tab: a\tb\r\n"), "{}", received.escape_ascii());
}

#[test]
fn repeated_fields_stay_apart_and_in_order() {
    let (_, fields) = forwarded("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nX-Between: 1\r\nCookie: b=2\r\n\r\n");
    let cookies: Vec<_> = fields.iter().filter(|(name, _)| name == "cookie").map(|(_, value)| value.as_str()).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[test]
fn client_gets_the_response_with_via_and_without_hop_by_hop_fields() {
    let (start, fields) = returned(
        "HTTP/1.1 200 OK\r\nDate: Mon, 06 Jul 2026 10:00:00 GMT\r\nServer: test/1\r\nContent-Length: 2\r\n\
         Connection: X-Secret\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nX-Secret: 1\r\n\
         Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Kept: 1\r\n\r\nok",
    );
    assert_eq!(start, "HTTP/1.1 200 OK");
    let expected = [
        ("content-length", "2"),
        ("date", "Mon, 06 Jul 2026 10:00:00 GMT"),
        ("server", "test/1"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("via", "1.1 baton"),
        ("x-kept", "1"),
    ];
    assert_eq!(fields, sorted(&expected));
}

#[test]
fn reason_phrase_of_the_server_is_kept() {
    assert_eq!(returned("HTTP/1.1 404 Nothing Here\r\nContent-Length: 0\r\n\r\n").0, "HTTP/1.1 404 Nothing Here");
    assert_eq!(returned("HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n").0.trim_end().split(' ').nth(1), Some("299"));
}

#[test]
fn response_of_an_http_10_server_is_one_of_http_11() {
    let (start, fields) = returned("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(start, "HTTP/1.1 200 OK");
    assert!(fields.contains(&("content-length".to_owned(), "2".to_owned())), "{fields:?}");
}

#[test]
fn curl_gets_what_the_server_says() {
    let server = Server::answering("HTTP/1.1 201 Created\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello");
    let baton = Baton::before(&[&server]);
    let output = curl(&["--include", "--data", "name=value", &baton.url("/form")]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let text = output.text();
    assert!(text.starts_with("HTTP/1.1 201 Created\r\n"), "{text}");
    assert!(text.contains("\r\nx-own: 1\r\n") && text.ends_with("\r\n\r\nhello"), "{text}");
    let request = server.request();
    assert_eq!((request.start.as_str(), request.text().as_str()), ("POST /form HTTP/1.1", "name=value"));
}

#[test]
fn request_that_goes_round_in_a_circle_is_answered_after_eight_rounds() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let ask = |fields: &str| baton.client().ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let was_with = |count: usize| format!("Via: 1.1 edge{}\r\n", ", 1.1 baton".repeat(count));
    assert_eq!(ask(&was_with(7)).status(), 200);
    let response = ask(&was_with(8));
    assert_eq!(
        (response.status(), response.value("proxy-status")),
        (508, Some("\"lb-test\"; error=proxy_loop_detected"))
    );
    assert_eq!(server.requests().len(), 1);
    wait_for_refusals(&baton, "loop", 1);
    // A listener that is its own server: eight rounds, and one refusal.
    let pool =
        format!("[[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]\n", baton.address());
    baton.write_config("pool = \"app\"", &format!("{pool}[worker]\nthreads = 1\n"));
    baton.done(&["reload"]);
    let response = ask("");
    assert_eq!(response.status(), 508);
    assert_eq!(response.value("via").map(|via| via.matches("baton").count()), Some(8));
    wait_for_refusals(&baton, "loop", 2);
}
