//! TLS to servers, and the PROXY protocol, with the real nginx behind.

use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::nginx::{Authority, Nginx};
use crate::server::Server;

const GET: &str = "GET /path HTTP/1.1\r\nHost: shop.example\r\n\r\n";

/// Says what it was spoken to in.
const SAYING: &str =
    "return 200 \"$server_protocol $ssl_protocol name=$ssl_server_name host=$host client=$ssl_client_s_dn\";";

/// An nginx with a certificate of an authority for these names.
fn nginx(authority: &Authority, options: &str, names: &str, directives: &str) -> Nginx {
    let (cert, key) = authority.certificate("server", names);
    let directives = format!(
        "ssl_certificate {};\nssl_certificate_key {};\nssl_protocols TLSv1.2 TLSv1.3;\n{directives}",
        cert.display(),
        key.display()
    );
    Nginx::start(&format!("ssl {options}"), &directives)
}

fn before(nginx: &Nginx, pool: &str) -> Baton {
    Baton::before_addresses(&[nginx.address()], &Settings { pool: pool.to_owned(), ..Settings::default() })
}

fn assert_refused(baton: &Baton, error: &str) {
    let response = baton.client().ask(GET);
    assert_eq!(response.status(), 502);
    let fault = format!("\"lb-test\"; error={error}; next-hop=\"app1\"");
    assert_eq!(response.value("proxy-status"), Some(fault.as_str()));
}

#[test]
fn server_is_asked_for_by_name_and_checked_against_the_authority() {
    let authority = Authority::new();
    let nginx = nginx(&authority, "", "DNS:app.internal", SAYING);
    let ca = authority.ca_file();
    let baton = before(&nginx, &format!("tls = {{ ca_file = {ca:?}, server_name = \"app.internal\" }}"));
    let mut client = baton.client();
    for _ in 0..3 {
        assert_eq!(client.ask(GET).text(), "HTTP/1.1 TLSv1.3 name=app.internal host=shop.example client=");
    }
}

#[test]
fn http2_is_spoken_within_tls_where_both_want_it() {
    let authority = Authority::new();
    let (both, old) =
        (nginx(&authority, "http2", "DNS:app.internal", SAYING), nginx(&authority, "", "DNS:app.internal", SAYING));
    let ca = authority.ca_file();
    let tls = format!("tls = {{ ca_file = {ca:?}, server_name = \"app.internal\" }}");
    for (server, protocol, expected) in [
        (&both, "h2", "HTTP/2.0"),
        (&both, "auto", "HTTP/2.0"),
        (&old, "auto", "HTTP/1.1"),
        (&both, "http1", "HTTP/1.1"),
    ] {
        let baton = before(server, &format!("protocol = \"{protocol}\"\n{tls}"));
        let mut client = baton.client();
        for _ in 0..3 {
            let text = client.ask(GET).text();
            assert_eq!(text, format!("{expected} TLSv1.3 name=app.internal host=shop.example client="), "{protocol}");
        }
    }
    let baton = before(&old, &format!("protocol = \"h2\"\n{tls}"));
    let response = baton.client().ask(GET);
    assert_eq!(response.status(), 502);
    assert!(response.value("proxy-status").unwrap().contains("error=tls_"), "{response:?}");
}

#[test]
fn certificate_for_another_name_or_of_another_authority_is_refused_unless_nobody_asks() {
    let (authority, other) = (Authority::new(), Authority::new());
    let nginx = nginx(&authority, "", "DNS:app.internal", SAYING);
    let (ca, wrong) = (authority.ca_file(), other.ca_file());
    for tls in [
        format!("ca_file = {ca:?}, server_name = \"other.internal\""),
        format!("ca_file = {wrong:?}, server_name = \"app.internal\""),
        // Its address, which it is not for.
        format!("ca_file = {ca:?}"),
        // The authorities of the system.
        "server_name = \"app.internal\"".to_owned(),
    ] {
        let baton = before(&nginx, &format!("tls = {{ {tls} }}"));
        assert_refused(&baton, "tls_certificate_error");
        baton.wait_for_log("no connection to a server");
    }
    let baton = before(&nginx, "tls = { verify = false }");
    assert_eq!(baton.client().ask(GET).text(), "HTTP/1.1 TLSv1.3 name= host=shop.example client=");
}

#[test]
fn certificate_may_be_for_the_address() {
    let authority = Authority::new();
    let nginx = nginx(&authority, "", "IP:127.0.0.1", SAYING);
    let baton = before(&nginx, &format!("tls = {{ ca_file = {:?} }}", authority.ca_file()));
    assert_eq!(baton.client().ask(GET).text(), "HTTP/1.1 TLSv1.3 name= host=shop.example client=");
}

#[test]
fn server_that_speaks_no_tls_is_502() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let pool = "tls = { verify = false }\nconnect_timeout = \"500ms\"".to_owned();
    let baton = Baton::with(&[&server], &Settings { pool, ..Settings::default() });
    let response = baton.client().ask(GET);
    assert!([502, 504].contains(&response.status()), "{response:?}");
}

#[test]
fn we_show_a_certificate_to_a_server_that_asks_for_one() {
    let authority = Authority::new();
    let ca = authority.ca_file();
    let asks = format!("ssl_client_certificate {};\nssl_verify_client on;\n{SAYING}", ca.display());
    let nginx = nginx(&authority, "", "DNS:app.internal", &asks);
    let (cert, key) = authority.certificate("baton", "DNS:baton.internal");
    let common = format!("ca_file = {ca:?}, server_name = \"app.internal\"");
    let baton = before(&nginx, &format!("tls = {{ {common}, certificate = {{ cert = {cert:?}, key = {key:?} }} }}"));
    assert!(baton.client().ask(GET).text().ends_with("client=CN=baton"));
    let baton = before(&nginx, &format!("tls = {{ {common} }}"));
    assert_eq!(baton.client().ask(GET).status(), 400);
}

#[test]
fn authority_is_taken_up_when_its_file_changes() {
    let (first, second) = (Authority::new(), Authority::new());
    let nginx = nginx(&second, "", "DNS:app.internal", SAYING);
    let ca = first.path("trusted.crt");
    std::fs::copy(first.ca_file(), &ca).unwrap();
    let baton = before(&nginx, &format!("tls = {{ ca_file = {ca:?}, server_name = \"app.internal\" }}"));
    assert_refused(&baton, "tls_certificate_error");
    std::fs::copy(second.ca_file(), &ca).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while baton.client().ask(GET).status() != 200 {
        assert!(Instant::now() < deadline, "the file is not taken up");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn checks_speak_as_requests_do() {
    let authority = Authority::new();
    let nginx = nginx(&authority, "http2", "DNS:app.internal", "return 204;");
    let ca = authority.ca_file();
    for (name, protocol, expected) in [
        ("app.internal", "h2", "status 204"),
        ("app.internal", "http1", "status 204"),
        ("other.internal", "auto", "TLS failed: invalid peer certificate"),
    ] {
        let pool = format!(
            "protocol = \"{protocol}\"\nhealth = {{ interval = \"100ms\", fall = 1 }}\n\
             tls = {{ ca_file = {ca:?}, server_name = \"{name}\" }}"
        );
        let baton = before(&nginx, &pool);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = baton.status()["pools"][0]["servers"][0]["last_check"].as_str().unwrap_or_default().to_owned();
            if said.starts_with(expected) {
                break;
            }
            assert!(Instant::now() < deadline, "the last check says {said:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn bytes_of_a_tcp_listener_are_wrapped_in_tls() {
    let authority = Authority::new();
    let nginx = nginx(&authority, "", "DNS:app.internal", SAYING);
    let tls = format!("{{ ca_file = {:?}, server_name = \"app.internal\" }}", authority.ca_file());
    let pool = format!("[[pool]]\nname = \"app\"\nservers = [{{ name = \"s\", address = \"{}\" }}]", nginx.address());
    let baton =
        Baton::run("pool = \"app\"\nprotocol = \"tcp\"", &format!("{pool}\ntls = {tls}\n[worker]\nthreads = 1"));
    assert_eq!(baton.client().ask(GET).text(), "HTTP/1.1 TLSv1.3 name=app.internal host=shop.example client=");
}

#[test]
fn servers_are_told_whose_connection_it_is() {
    let nginx = Nginx::start("proxy_protocol", "return 200 \"$proxy_protocol_addr $proxy_protocol_port\";");
    for (version, protocol) in [("v1", "http"), ("v2", "http"), ("v1", "tcp"), ("v2", "tcp")] {
        let servers = format!("servers = [{{ name = \"s\", address = \"{}\" }}]", nginx.address());
        let health = "health = { interval = \"100ms\", fall = 1, rise = 1 }";
        let pool = format!("[[pool]]\nname = \"app\"\n{servers}\nsend_proxy = \"{version}\"\n{health}");
        let listener = format!("pool = \"app\"\nprotocol = \"{protocol}\"");
        let baton = Baton::run(&listener, &format!("{pool}\n[worker]\nthreads = 1"));
        // Twice each, in turns: no connection of one is taken for the other.
        let ip = |last: u8| format!("127.0.0.{last}:0").parse().unwrap();
        let mut clients = [Client::connect_from(ip(7), baton.address()), Client::connect_from(ip(8), baton.address())];
        for _ in 0..2 {
            for client in &mut clients {
                let own = client.stream().local_addr().unwrap();
                assert_eq!(client.ask(GET).text(), format!("{} {}", own.ip(), own.port()), "{version} {protocol}");
            }
        }
        // A check says that it is nobody's, and is answered.
        let deadline = Instant::now() + PATIENCE;
        while baton.status()["pools"][0]["servers"][0]["last_check"]
            .as_str()
            .is_none_or(|said| !said.starts_with("status 200"))
        {
            assert!(Instant::now() < deadline, "{}", baton.status());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
