//! X-Forwarded-*, X-Real-IP and Forwarded: what servers are told of clients and of proxies in front.

use std::net::SocketAddr;

use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::curl::curl;
use crate::haproxy::Haproxy;
use crate::server::Server;
use crate::tls::Site;
use crate::wire::Message;

fn settings(forwarded: &str) -> Settings {
    Settings { listener: format!("forwarded = {{ {forwarded} }}"), ..Settings::default() }
}

/// What the server gets of a request with these fields, from this address of this machine.
fn told(forwarded: &str, from: &str, fields: &str) -> Message {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings(forwarded));
    let from: SocketAddr = format!("{from}:0").parse().expect("an address");
    let mut client = Client::connect_from(from, baton.address());
    assert_eq!(client.ask(format!("GET / HTTP/1.1\r\nHost: a.example:81\r\n{fields}\r\n")).status(), 200);
    server.request()
}

/// The fields that say whose request it is, in this order: X-Forwarded-For, -Proto, -Host, -Port, X-Real-IP, Forwarded.
fn fields(message: &Message) -> [Option<&str>; 6] {
    let names =
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip", "forwarded"];
    names.map(|name| message.value(name))
}

const FORGED: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\
                      X-Forwarded-Port: 443\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6;proto=https\r\n";

#[test]
fn clients_say_nothing_about_themselves_but_what_stands_before_the_truth() {
    let request = told("", "127.0.0.9", FORGED);
    let expected = [Some("6.6.6.6, 127.0.0.9"), Some("http"), Some("a.example:81"), None, None, None];
    assert_eq!(fields(&request), expected);
}

#[test]
fn each_rule_does_what_it_says_to_a_stranger() {
    let rule = |rule: &str| format!("x_forwarded = \"{rule}\", forwarded = \"{rule}\", trusted = [\"127.0.0.1\"]");
    let of_rfc = "for=127.0.0.9;host=\"a.example:81\";proto=http";
    let request = told(&rule("append"), "127.0.0.9", FORGED);
    let both = format!("for=6.6.6.6;proto=https, {of_rfc}");
    let host = Some("a.example:81");
    assert_eq!(fields(&request), [Some("6.6.6.6, 127.0.0.9"), Some("http"), host, None, None, Some(&both[..])]);
    let request = told(&rule("replace"), "127.0.0.9", FORGED);
    assert_eq!(fields(&request), [Some("127.0.0.9"), Some("http"), host, None, None, Some(of_rfc)]);
    assert_eq!(fields(&told(&rule("drop"), "127.0.0.9", FORGED)), [None; 6]);
    let request = told(&rule("pass"), "127.0.0.9", FORGED);
    assert_eq!(
        fields(&request),
        [
            Some("6.6.6.6"),
            Some("https"),
            Some("evil.example"),
            Some("443"),
            Some("6.6.6.6"),
            Some("for=6.6.6.6;proto=https"),
        ]
    );
}

#[test]
fn trusted_proxy_is_believed_in_what_it_saw_and_in_nothing_further_back() {
    let trusted = "trusted = [\"127.0.0.9\", \"10.0.0.0/8\"], real_ip = true, port = true, forwarded = \"replace\"";
    let said = "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.7\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-Host: www.example\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 6.6.6.6\r\n";
    let request = told(trusted, "127.0.0.9", said);
    assert_eq!(
        fields(&request),
        [
            Some("6.6.6.6, 192.0.2.1, 10.0.0.7, 127.0.0.9"),
            Some("https"),
            Some("www.example"),
            Some("443"),
            Some("192.0.2.1"),
            Some("for=192.0.2.1;host=\"a.example:81\";proto=https"),
        ]
    );
    let request = told(&format!("{trusted}, x_forwarded = \"replace\""), "127.0.0.9", said);
    assert_eq!(fields(&request)[..2], [Some("192.0.2.1"), Some("https")]);
    // The same words from anybody else.
    let request = told(&format!("{trusted}, x_forwarded = \"replace\""), "127.0.0.8", said);
    assert_eq!(fields(&request)[..3], [Some("127.0.0.8"), Some("http"), Some("a.example:81")]);
    assert_eq!(request.value("x-real-ip"), Some("127.0.0.8"));
    assert_ne!(request.value("x-forwarded-port"), Some("443"));
}

#[test]
fn client_is_read_from_forwarded_where_that_is_the_field_of_the_proxy() {
    let trusted = "trusted = [\"127.0.0.1\"], client_from = \"forwarded\", real_ip = true, forwarded = \"append\"";
    let said =
        "Forwarded: for=6.6.6.6\r\nForwarded: for=\"[2001:db8::7]:4711\";proto=https\r\nX-Forwarded-For: 7.7.7.7\r\n";
    let request = told(trusted, "127.0.0.1", said);
    assert_eq!(request.value("x-real-ip"), Some("2001:db8::7"));
    let list = "for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https, for=127.0.0.1;host=\"a.example:81\";proto=http";
    assert_eq!(request.value("forwarded"), Some(list));
    // What is no list names nobody, and does not swallow what we say.
    let request = told(trusted, "127.0.0.1", "Forwarded: for=\"6.6.6.6\r\n");
    assert_eq!(request.value("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(request.value("forwarded"), Some("for=127.0.0.1;host=\"a.example:81\";proto=http"));
}

#[test]
fn address_that_counts_is_the_one_that_a_trusted_proxy_names() {
    let server = Server::saying("ok");
    let limit = "rate_limit = { requests = 1, per = \"24h\" }";
    let listener = format!("forwarded = {{ trusted = [\"127.0.0.1\"] }}\n{limit}");
    let baton = Baton::with(&[&server], &Settings { listener, ..Settings::default() });
    let ask = |from: &str, list: &str| {
        let from = format!("{from}:0").parse().expect("an address");
        let mut client = Client::connect_from(from, baton.address());
        client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {list}\r\n\r\n")).status()
    };
    assert_eq!(ask("127.0.0.1", "192.0.2.1"), 200);
    assert_eq!(ask("127.0.0.1", "192.0.2.2"), 200);
    assert_eq!(ask("127.0.0.1", "6.6.6.6, 192.0.2.1"), 429);
    // A stranger who names somebody is himself.
    assert_eq!(ask("127.0.0.2", "192.0.2.3"), 200);
    assert_eq!(ask("127.0.0.2", "192.0.2.4"), 429);
}

#[test]
fn haproxy_in_front_is_believed() {
    let server = Server::saying("ok");
    let baton =
        Baton::with(&[&server], &settings("trusted = [\"127.0.0.1\"], real_ip = true, x_forwarded = \"replace\""));
    let set = "\n  option forwardfor\n  http-request set-header X-Forwarded-Proto https";
    let haproxy = Haproxy::before(baton.address(), "http", "", set);
    let mut client = Client::connect_from("127.0.0.77:0".parse().expect("an address"), haproxy.address());
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n").status(), 200);
    let request = server.request();
    assert_eq!(fields(&request)[..3], [Some("127.0.0.77"), Some("https"), Some("a")]);
    assert_eq!(request.value("x-real-ip"), Some("127.0.0.77"));
}

#[test]
fn port_is_the_one_that_the_client_connected_to() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings("port = true"));
    assert_eq!(baton.client().get("/").status(), 200);
    let port = baton.address().port().to_string();
    assert_eq!(server.request().value("x-forwarded-port"), Some(&port[..]));
}

#[test]
fn tls_is_told_in_every_field() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "forwarded = { forwarded = \"append\" }", "");
    for version in ["--http1.1", "--http2"] {
        assert_eq!(site.curl("a.example", 0, &[version]).text(), "ok");
        let request = server.requests().pop().expect("it has come");
        assert_eq!(request.value("x-forwarded-proto"), Some("https"));
        let host = format!("a.example:{}", site.baton.address().port());
        assert_eq!(request.value("x-forwarded-host"), Some(&host[..]));
        let list = format!("for=127.0.0.1;host=\"{host}\";proto=https");
        assert_eq!(request.value("forwarded"), Some(&list[..]));
    }
}

#[test]
fn what_is_told_cannot_be_named_away() {
    let names = "Connection: x-real-ip, forwarded, x-forwarded-for, x-request-id, traceparent\r\n";
    let server = Server::saying("ok");
    let listener =
        "forwarded = { real_ip = true, forwarded = \"append\" }\nrequest_id = {}\ntrace_context = true".to_owned();
    let baton = Baton::with(&[&server], &Settings { listener, ..Settings::default() });
    assert_eq!(baton.client().ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{names}\r\n")).status(), 200);
    let request = server.request();
    for name in ["x-real-ip", "forwarded", "x-forwarded-for", "x-request-id", "traceparent"] {
        assert!(request.value(name).is_some(), "{name} is gone");
    }
}

#[test]
fn nothing_that_servers_could_take_for_our_word_gets_through() {
    let forged = "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: https\r\nX_Real_IP: 6.6.6.6\r\nX_Request_Id: 1\r\n\
                  Content_Length: 5\r\nTransfer_Encoding: chunked\r\nX_Entry: 1\r\nX_Pool: 1\r\nx-debug: 1\r\n\
                  X_Debug: 1\r\nSession_Token: 1\r\nX_Forwarded_Client: 1\r\n";
    let names = |message: &Message| -> Vec<String> {
        let underscored = message.fields.iter().map(|(name, _)| name.clone()).filter(|name| name.contains('_'));
        underscored.collect()
    };
    let server = Server::saying("ok");
    let edits =
        "request_headers = { set = { X-Entry = \"a\", x_own = \"b\" }, remove = [\"X-Debug\"] }\nrequest_id = {}";
    let settings = Settings {
        listener: edits.to_owned(),
        pool: "request_headers = { set = { X-Pool = \"a\" } }".to_owned(),
        ..Settings::default()
    };
    let baton = Baton::with(&[&server], &settings);
    let ask = |version: &str| {
        let fields = forged.lines().filter(|line| !line.is_empty()).flat_map(|line| ["--header", line]);
        let arguments: Vec<&str> = [version].into_iter().chain(fields).collect();
        assert_eq!(curl(&[&arguments[..], &[&baton.url("/")]].concat()).text(), "ok");
        server.requests().pop().expect("it has come")
    };
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let request = ask(version);
        let mut left = names(&request);
        left.sort_unstable();
        assert_eq!(left, ["session_token", "x_forwarded_client", "x_own"], "{version}");
        assert_eq!((request.value("x-entry"), request.value("x_own")), (Some("a"), Some("b")));
        assert_eq!((request.value("x-pool"), request.value("x-debug")), (Some("a"), None));
    }
    // Who passes on what came passes all of it on.
    let request = told("x_forwarded = \"pass\"", "127.0.0.1", "X_Forwarded_For: 6.6.6.6\r\nX_Real_IP: 1\r\n");
    assert_eq!(names(&request), ["x_forwarded_for", "x_real_ip"]);
    // A trusted proxy that lets them through is no reason to believe them.
    let request =
        told("trusted = [\"127.0.0.1\"]", "127.0.0.1", "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded-For: 1.1.1.1\r\n");
    assert_eq!((names(&request), request.value("x-forwarded-for")), (vec![], Some("1.1.1.1, 127.0.0.1")));
}
