//! The PROXY protocol: proxies in front that say whose connection it is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::baton::{Baton, Directory, Settings};
use crate::client::Client;
use crate::curl::curl;
use crate::haproxy::Haproxy;
use crate::limits::wait_for_refusals;
use crate::server::Server;
use crate::tls::{Certificate, Site, certificate};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn settings(rest: &str) -> Settings {
    Settings { listener: format!("accept_proxy = {{ from = [\"127.0.0.0/8\"]{rest} }}"), ..Settings::default() }
}

fn tcp(rest: &str) -> Settings {
    let Settings { listener, .. } = settings(rest);
    Settings { listener: format!("protocol = \"tcp\"\n{listener}"), ..Settings::default() }
}

/// A header of version 2 for a client at 192.0.2.7:4711.
fn v2(command: u8, family: u8) -> Vec<u8> {
    let block = [192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 1, 187];
    [SIGNATURE, &[command, family, 0, 12], &block].concat()
}

/// What the server is told of the client of the only request.
fn client_of(server: &Server) -> (Option<String>, Option<String>) {
    let request = server.request();
    let value = |name| request.value(name).map(str::to_owned);
    (value("x-forwarded-for"), value("x-forwarded-proto"))
}

fn closed(client: &mut Client, bytes: &[u8]) {
    // It may be closed before all has been sent.
    let _closed = client.send(bytes);
    client.expect_closed();
}

#[test]
fn haproxy_in_front_says_who_the_client_is_in_both_versions() {
    for options in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"] {
        let server = Server::saying("ok");
        let baton = Baton::with(&[&server], &settings(""));
        let haproxy = Haproxy::before(baton.address(), "tcp", "", options);
        let from: SocketAddr = "127.0.0.77:0".parse().expect("an address");
        let mut client = Client::connect_from(from, haproxy.address());
        assert_eq!(client.get("/").status(), 200, "{options}");
        assert_eq!(client_of(&server), (Some("127.0.0.77".to_owned()), Some("http".to_owned())), "{options}");
    }
}

#[test]
fn haproxy_that_ends_tls_says_that_the_client_spoke_it() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let baton = Baton::with(&[&server], &settings(""));
    let Certificate { cert, key } = certificate(&directory, "a.example");
    let joined = [cert, key].map(|file| std::fs::read_to_string(file).expect("openssl wrote it")).concat();
    let pem = directory.path("joined.pem");
    std::fs::write(&pem, joined).expect("the directory is writable");
    let bind = format!("ssl crt {}", pem.display());
    let haproxy = Haproxy::before(baton.address(), "http", &bind, "send-proxy-v2-ssl");
    let found = curl(&["--insecure", &format!("https://{}/", haproxy.address())]);
    assert_eq!(found.text(), "ok", "{found:?}");
    assert_eq!(client_of(&server), (Some("127.0.0.1".to_owned()), Some("https".to_owned())));
}

#[test]
fn checks_of_haproxy_are_its_own_and_reach_the_listener() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings(""));
    let options = "send-proxy-v2 check inter 50ms check-send-proxy";
    let haproxy = Haproxy::before(baton.address(), "http", "", &format!("{options}\n  option httpchk GET /check"));
    server.wait_until("a check has come", |record| {
        record.requests.iter().any(|request| request.start.contains("/check"))
    });
    let check = server.requests().into_iter().find(|request| request.start.contains("/check")).expect("it has come");
    assert_eq!(check.value("x-forwarded-for"), Some("127.0.0.1"));
    drop(haproxy);
}

#[test]
fn curl_sends_a_header_and_is_who_it_says() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings(""));
    let found = curl(&["--haproxy-protocol", "--interface", "127.0.0.9", &baton.url("/")]);
    assert_eq!(found.text(), "ok", "{found:?}");
    assert_eq!(client_of(&server).0.as_deref(), Some("127.0.0.9"));
}

#[test]
fn header_comes_before_tls_and_in_any_pieces() {
    let server = Server::saying("ok");
    let site = Site::before(&server, &settings("").listener, "");
    let found = site.curl("a.example", 0, &["--haproxy-protocol"]);
    assert_eq!(found.text(), "ok", "{found:?}");
    assert_eq!(client_of(&server), (Some("127.0.0.1".to_owned()), Some("https".to_owned())));

    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings(""));
    let mut client = baton.client();
    // Each piece is a segment of its own, as the socket does not wait for more.
    for piece in v2(0x21, 0x11).chunks(1) {
        client.send(piece).expect("the connection is open");
    }
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(client_of(&server).0.as_deref(), Some("192.0.2.7"));
}

#[test]
fn header_and_request_may_come_at_once() {
    for header in [v2(0x21, 0x11), b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n".to_vec()] {
        let server = Server::saying("ok");
        let baton = Baton::with(&[&server], &settings(""));
        let mut client = baton.client();
        assert_eq!(client.ask([&header[..], GET.as_bytes()].concat()).status(), 200);
        assert_eq!(client_of(&server).0.as_deref(), Some("192.0.2.7"));
    }
}

#[test]
fn local_and_unknown_connections_are_the_proxys_own() {
    let unknown = b"PROXY UNKNOWN ffff:: ffff:: 1 1\r\n".to_vec();
    let unix = [SIGNATURE, &[0x21, 0x31, 0, 216], &[b'/'; 216]].concat();
    for header in [v2(0x20, 0x11), v2(0x21, 0x00), unknown, unix] {
        let server = Server::saying("ok");
        let baton = Baton::with(&[&server], &settings(""));
        let mut client = baton.client();
        assert_eq!(client.ask([&header[..], GET.as_bytes()].concat()).status(), 200);
        assert_eq!(client_of(&server).0.as_deref(), Some("127.0.0.1"));
    }
}

#[test]
fn connection_without_a_good_header_is_closed_and_nothing_reaches_a_server() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings(""));
    let wrong_checksum = [SIGNATURE, &[0x21, 0x11, 0, 19], &[1; 12], &[3, 0, 4, 0, 0, 0, 0]].concat();
    let too_long = [SIGNATURE, &[0x21, 0x11, 0x10, 0]].concat();
    for bytes in [
        GET.as_bytes(),
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711\r\n",
        &wrong_checksum,
        &too_long,
        &v2(0x22, 0x11),
        &v2(0x21, 0x41),
    ] {
        closed(&mut baton.client(), bytes);
    }
    // One that ends in the middle, and before its beginning.
    for part in [&b""[..], b"PROXY TCP4", &SIGNATURE[..5]] {
        let mut client = baton.client();
        client.send(part).expect("the connection is open");
        client.finish();
        client.expect_closed();
    }
    assert_eq!(server.requests(), []);
}

#[test]
fn header_has_to_come_in_time() {
    let server = Server::saying("ok");
    let listener = format!("{}\nhead_timeout = \"200ms\"", settings("").listener);
    let baton = Baton::with(&[&server], &Settings { listener, ..Settings::default() });
    for part in [&b""[..], b"PROXY TCP4 "] {
        let (mut client, start) = (baton.client(), Instant::now());
        client.send(part).expect("the connection is open");
        client.expect_closed();
        assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    }
}

#[test]
fn strangers_are_refused_or_are_themselves() {
    let stranger = |baton: &Baton| Client::connect_from("127.0.0.2:0".parse().expect("an address"), baton.address());
    let from = |rest: &str| Settings {
        listener: format!("accept_proxy = {{ from = [\"127.0.0.1\"]{rest} }}"),
        ..Settings::default()
    };
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &from(""));
    closed(&mut stranger(&baton), &[&v2(0x21, 0x11)[..], GET.as_bytes()].concat());
    closed(&mut stranger(&baton), GET.as_bytes());
    assert_eq!(server.requests(), []);
    wait_for_refusals(&baton, "proxy_protocol", 2);

    let baton = Baton::with(&[&server], &from(", required = false"));
    assert_eq!(stranger(&baton).ask([&v2(0x21, 0x11)[..], GET.as_bytes()].concat()).status(), 400);
    assert_eq!(server.requests(), []);
    assert_eq!(stranger(&baton).get("/").status(), 200);
    assert_eq!(client_of(&server).0.as_deref(), Some("127.0.0.2"));
}

#[test]
fn header_that_is_not_required_may_be_left_out() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings(", required = false"));
    assert_eq!(baton.client().get("/").status(), 200);
    assert_eq!(baton.client().ask([&v2(0x21, 0x11)[..], GET.as_bytes()].concat()).status(), 200);
    // It begins as a header does.
    assert_eq!(baton.client().ask("PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    let clients: Vec<_> =
        server.requests().iter().map(|request| request.value("x-forwarded-for").map(str::to_owned)).collect();
    assert_eq!(clients.iter().flatten().collect::<Vec<_>>(), ["127.0.0.1", "192.0.2.7", "127.0.0.1"]);
}

#[test]
fn bytes_of_tcp_follow_the_header_and_stick_by_the_client() {
    let echo = || {
        Server::start(|exchange| {
            exchange.send("x")?;
            exchange.wait_for_end()
        })
    };
    let servers = [echo(), echo()];
    let pool = "sticky = { by = \"source_ip\" }".to_owned();
    let baton = Baton::with(&[&servers[0], &servers[1]], &Settings { pool, ..tcp("") });
    for _ in 0..3 {
        let mut client = baton.client();
        client.send([&v2(0x21, 0x11)[..], b"hello"].concat()).expect("the connection is open");
        assert_eq!(client.exactly(1).expect("it comes back"), b"x");
        client.finish();
        client.rest().expect("an orderly end");
    }
    let received =
        |server: &Server| server.connections().iter().map(|connection| connection.received.clone()).collect();
    let received: Vec<Vec<Vec<u8>>> = servers.iter().map(received).collect();
    let all = vec![b"hello".to_vec(); 3];
    assert!(received == [all.clone(), vec![]] || received == [vec![], all], "{received:?}");
    // Without one it is closed.
    closed(&mut baton.client(), b"hello");
}

/// The guard looks at a listener so: it connects, ends its direction, and waits for the worker to do the same.
#[test]
fn look_of_this_node_itself_is_answered_without_a_header_and_goes_on_to_no_server() {
    for settings in [settings(""), settings(", required = false"), tcp(""), tcp(", required = false")] {
        let server = Server::saying("ok");
        let listener = format!("{}\nhead_timeout = \"1h\"\nidle_timeout = \"1h\"", settings.listener);
        let baton = Baton::with(&[&server], &Settings { listener, ..Settings::default() });
        let mut client = baton.client();
        client.finish();
        client.expect_closed();
        assert!(server.connections().is_empty(), "a look went on to a server: {}", settings.listener);
    }
}
