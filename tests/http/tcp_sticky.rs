//! Clients of `protocol = "tcp"` and the servers that they belong to: by address, and by what their TLS handshake says
//! while it passes through.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::baton::{Baton, Directory, Settings};
use crate::client::Client;
use crate::server::Server;
use crate::tls::{Certificate, Site, certificate};

fn settings(sticky: &str) -> Settings {
    Settings {
        listener: "protocol = \"tcp\"".to_owned(),
        pool: format!("[pool.sticky]\n{sticky}"),
        ..Settings::default()
    }
}

/// A server that says who it is once it has heard something, and then waits for the client's end.
fn named(name: &'static str) -> Server {
    Server::start(move |exchange| {
        exchange.some(64 * 1024)?;
        exchange.send(name)?;
        exchange.wait_for_end()
    })
}

/// A ClientHello of TLS 1.2 with a server name and a session id.
fn hello(name: &str, session_id: &[u8]) -> Vec<u8> {
    let with_len = |len: &[u8], bytes: &[u8]| [len, bytes].concat();
    let in_two = |bytes: &[u8]| with_len(&(bytes.len() as u16).to_be_bytes(), bytes);
    let names = in_two(&[&[0][..], &in_two(name.as_bytes())].concat());
    let extensions = in_two(&[&[0, 0][..], &in_two(&names)].concat());
    let session_id = with_len(&[session_id.len() as u8], session_id);
    let body = [&[3, 3][..], &[7; 32], &session_id, &[0, 2, 0xc0, 0x2f, 1, 0], &extensions].concat();
    let message = [&[1, 0][..], &in_two(&body)].concat();
    [&[22, 3, 1][..], &in_two(&message)].concat()
}

/// Who answers to these first bytes.
fn answer(baton: &Baton, bytes: &[u8]) -> String {
    let mut client = baton.client();
    client.send(bytes).expect("the connection is open");
    String::from_utf8(client.exactly(1).expect("a server answers")).expect("it is text")
}

#[test]
fn clients_of_one_address_go_to_one_server() {
    let (one, two) = (named("1"), named("2"));
    let baton = Baton::with(&[&one, &two], &settings("by = \"source_ip\""));
    let from = |address: &str| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let source: SocketAddr = format!("{address}:0").parse().expect("an address");
        socket.bind(&source.into()).expect("all of 127.0.0.0/8 is ours");
        socket.connect(&baton.address().into()).expect("the listener accepts");
        let mut client = Client::of(TcpStream::from(socket));
        client.send("who?").expect("the connection is open");
        client.exactly(1).expect("a server answers")
    };
    let answers = ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"].map(from);
    assert_eq!(answers, [b"1", b"2", b"1", b"1", b"2", b"2"]);
}

#[test]
fn clients_that_ask_for_one_host_go_to_one_server_and_no_byte_is_lost() {
    let (one, two) = (named("1"), named("2"));
    let baton = Baton::with(&[&one, &two], &settings("by = \"tls_sni\""));
    let names = ["a.example", "b.example", "A.EXAMPLE", "a.example", "b.example", "B.example"];
    assert_eq!(names.map(|name| answer(&baton, &hello(name, b""))), ["1", "2", "1", "1", "2", "2"]);
    assert_eq!(one.connections()[0].received, hello("a.example", b""));
    assert_eq!(two.connections()[2].received, hello("B.example", b""));
}

#[test]
fn client_hello_may_come_in_pieces() {
    let (one, two) = (named("1"), named("2"));
    let baton = Baton::with(&[&one, &two], &settings("by = \"tls_sni\""));
    assert_eq!(answer(&baton, &hello("a.example", b"")), "1");
    let mut client = baton.client();
    let hello = hello("a.example", b"");
    let (first, rest) = hello.split_at(40);
    client.send(first).expect("the connection is open");
    // A second client is served in between, so the first piece has been read by itself.
    assert_eq!(answer(&baton, &hello_of_b()), "2");
    client.send([rest, b"and more"].concat()).expect("the connection is open");
    assert_eq!(client.exactly(1).expect("a server answers"), b"1");
    one.wait_until("all of it has come", |record| record.connections[1].received == [&hello[..], b"and more"].concat());
}

fn hello_of_b() -> Vec<u8> {
    hello("b.example", b"")
}

#[test]
fn bytes_that_are_no_tls_are_passed_on_and_go_to_any_server() {
    let (one, two) = (named("1"), named("2"));
    let baton = Baton::with(&[&one, &two], &settings("by = \"tls_sni\""));
    let answers = [(); 4].map(|()| answer(&baton, b"GET / HTTP/1.1\r\n\r\n"));
    assert_eq!(answers, ["1", "2", "1", "2"]);
    assert_eq!(one.connections()[0].received, b"GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn client_hello_that_does_not_come_ends_with_the_time_for_a_head() {
    let server = named("1");
    let mut settings = settings("by = \"tls_session_id\"");
    settings.listener.push_str("\nhead_timeout = \"300ms\"");
    let baton = Baton::with(&[&server], &settings);
    let mut client = baton.client();
    let started = Instant::now();
    client.send(&hello("a.example", b"")[..20]).expect("the connection is open");
    client.expect_closed();
    let taken = started.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_secs(4)).contains(&taken), "{taken:?}");
    assert_eq!(server.connections().len(), 0);
}

#[test]
fn stop_does_not_wait_for_a_client_hello() {
    let server = named("1");
    let mut baton = Baton::with(&[&server], &settings("by = \"tls_sni\""));
    let mut client = baton.client();
    client.send(&hello("a.example", b"")[..20]).expect("the connection is open");
    assert_eq!(answer(&baton, &hello("b.example", b"")), "1");
    let started = Instant::now();
    baton.terminate();
    assert_eq!(baton.wait().code(), Some(0));
    // Well below head_timeout and drain_timeout, which are 10 s.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    client.expect_closed();
}

#[test]
fn client_whose_server_is_gone_moves_and_stays_there() {
    let (mut one, two) = (named("1"), named("2"));
    let baton = Baton::with(&[&one, &two], &settings("by = \"tls_sni\""));
    let ask = || answer(&baton, &hello("a.example", b""));
    assert_eq!([ask(), ask()], ["1", "1"]);
    one.pause();
    assert_eq!(ask(), "2");
    one.resume();
    assert_eq!([ask(), ask(), ask()], ["2", "2", "2"]);
}

#[test]
fn connection_that_outlasts_the_time_to_live_does_not_cost_the_client_its_server() {
    let (one, two) = (named("1"), named("2"));
    let baton = Baton::with(&[&one, &two], &settings("by = \"tls_sni\"\nttl = \"1s\""));
    let mut client = baton.client();
    client.send(hello("a.example", b"")).expect("the connection is open");
    assert_eq!(client.exactly(1).expect("a server answers"), b"1");
    // No synchronisation: the time is what is tested.
    std::thread::sleep(Duration::from_millis(2500));
    client.finish();
    assert_eq!(client.rest().expect("an orderly end"), b"");
    assert_eq!(answer(&baton, &hello("a.example", b"")), "1");
}

#[test]
fn client_that_may_not_move_is_reset_while_its_server_is_gone() {
    let (mut one, two) = (named("1"), named("2"));
    let baton = Baton::with(&[&one, &two], &settings("by = \"tls_sni\"\non_down = \"fail\""));
    let ask = || answer(&baton, &hello("a.example", b""));
    assert_eq!(ask(), "1");
    one.pause();
    let mut client = baton.client();
    client.send(hello("a.example", b"")).expect("the connection is open");
    let error = client.rest().expect_err("it is reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    one.resume();
    assert_eq!(ask(), "1");
}

#[test]
fn host_is_known_where_tls_ends_here_as_well() {
    let saying = |text| Server::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{text}"));
    let (one, two) = (saying("1"), saying("2"));
    let site = Site::before_all(&[&one, &two], "protocol = \"tcp\"", "[pool.sticky]\nby = \"tls_sni\"");
    let ask = |name: &str, trusted| site.curl(name, trusted, &[]).text();
    let answers = [("a.example", 0), ("b.example", 1), ("a.example", 0), ("a.example", 0), ("b.example", 1)];
    assert_eq!(answers.map(|(name, trusted)| ask(name, trusted)), ["1", "2", "1", "1", "2"]);
}

/// `openssl s_server`, which tells who it is by its certificate.
struct TlsServer {
    child: Child,
    address: SocketAddr,
}

impl TlsServer {
    fn start(Certificate { cert, key }: &Certificate) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-no_ticket", "-cert"]).arg(cert);
        command.arg("-key").arg(key).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("openssl runs, as it made the certificate");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("ACCEPT ")?.trim().parse().ok());
        // It writes a line for each connection.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it listens") }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Two TLS servers, and the program in front of them that passes TLS through.
struct Passthrough {
    directory: Directory,
    baton: Baton,
    _servers: [TlsServer; 2],
}

impl Passthrough {
    fn new(by: &str) -> Self {
        let directory = Directory::new();
        let servers = ["one.example", "two.example"].map(|name| TlsServer::start(&certificate(&directory, name)));
        let addresses = servers.each_ref().map(|server| server.address);
        let baton = Baton::before_addresses(&addresses, &settings(&format!("by = \"{by}\"")));
        Self { directory, baton, _servers: servers }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path(name)
    }

    /// One connection: the name of the server that answers, and whether the session was resumed.
    fn visit(&self, version: &str, name: &str, offered: Option<&Path>, kept: Option<&Path>) -> (String, bool) {
        let address = self.baton.address().to_string();
        let mut command = Command::new("openssl");
        command.args(["s_client", "-ign_eof", "-connect", &address, "-servername", name, version]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (option, file) in [("-sess_in", offered), ("-sess_out", kept)] {
            if let Some(file) = file {
                command.arg(option).arg(file);
            }
        }
        let mut child = command.spawn().expect("openssl runs");
        child.stdin.take().expect("it is piped").write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout);
        let subject = text.lines().find_map(|line| line.strip_prefix("subject=CN = "));
        let subject = subject.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        (subject.to_owned(), text.contains("\nReused, TLSv1."))
    }
}

#[test]
fn tls_passes_through_and_a_host_stays_on_its_server() {
    let site = Passthrough::new("tls_sni");
    for version in ["-tls1_2", "-tls1_3"] {
        let names = ["a.example", "b.example", "A.example", "b.example", "b.example", "a.example"];
        let servers = names.map(|name| site.visit(version, name, None, None).0);
        let (one, two) = ("one.example", "two.example");
        assert_eq!(servers, [one, two, one, two, two, one], "{version}");
    }
}

#[test]
fn session_of_tls_12_is_resumed_on_the_server_that_has_it() {
    let site = Passthrough::new("tls_session_id");
    let files = ["first", "second", "third"].map(|name| site.file(name));
    let servers = files.each_ref().map(|file| site.visit("-tls1_2", "a.example", None, Some(file)));
    let (one, two) = ("one.example".to_owned(), "two.example".to_owned());
    assert_eq!(servers, [(one.clone(), false), (two.clone(), false), (one.clone(), false)]);
    for _ in 0..3 {
        let again = files.each_ref().map(|file| site.visit("-tls1_2", "a.example", Some(file), None));
        assert_eq!(again, [(one.clone(), true), (two.clone(), true), (one.clone(), true)]);
    }
}

#[test]
fn tls_13_has_no_session_id_to_be_known_by() {
    let site = Passthrough::new("tls_session_id");
    let servers = [(); 4].map(|()| site.visit("-tls1_3", "a.example", None, None).0);
    assert_eq!(servers, ["one.example", "two.example", "one.example", "two.example"]);
}
