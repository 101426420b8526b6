//! Resumption of TLS sessions, as openssl sees it: on the worker that gave the ticket, and on others that hold its keys.
//!
//! Here the acceptor of the data plane runs alone, as how keys travel between two nodes is tested with a pair.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use baton::config;
use baton::link::files::{FileContent, HandedFiles};
use baton::proxy::files::Files;
use baton::proxy::tickets::Tickets;
use baton::proxy::tls::Termination;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::baton::Directory;
use crate::server::Server;
use crate::tls::{Certificate, Site, certificate};

const START: Duration = Duration::from_secs(1_790_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const VERSIONS: [&str; 2] = ["-tls1_3", "-tls1_2"];

/// A TLS listener of a worker, as far as handshakes go.
struct Endpoint(SocketAddr);

impl Endpoint {
    fn start(tickets: &Arc<Tickets>, listener: &str, Certificate { cert, key }: &Certificate) -> Self {
        let read = |path: &PathBuf| FileContent(std::fs::read(path).expect("openssl wrote it").into());
        let files = [cert, key].map(|path| (path.clone(), read(path)));
        let config = format!(
            "[[listener]]\nname = \"{listener}\"\nbind = [\"0.0.0.0:443\"]\npool = \"app\"\ntls = {{ certificates = [{{ cert = {cert:?}, \
             key = {key:?} }}] }}\n[[pool]]\nname = \"app\"\nservers = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\n"
        );
        let config = config::parse(&config, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
        let files = Files::new(HandedFiles(files.into()));
        let tls = Termination::new(&config.listeners[0], &files, tickets).expect("it is whole");
        let tls = tls.expect("the listener has tls");
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        socket.set_nonblocking(true).expect("it is open");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let socket = tokio::net::TcpListener::from_std(socket).expect("it is non-blocking");
                while let Ok((stream, _)) = socket.accept().await {
                    // An error is the client's affair, which it tells.
                    let Ok(mut stream) = tls.accept(stream).await else { continue };
                    // What is unread at the close would become a reset, which overtakes the answer.
                    let _read = stream.read_exact(&mut [0; 18]).await;
                    let _sent = stream.write_all(b"\nok\n").await;
                    let _closed = stream.shutdown().await;
                }
            });
        });
        Self(address)
    }

    fn connect(&self, version: &str, name: &str, offered: Option<&Path>, kept: &Path) -> bool {
        connect(self.0, version, name, offered, kept)
    }
}

/// Connects, offers the session in `offered`, and keeps the one that it is given in `kept`. True when it was resumed.
fn connect(address: SocketAddr, version: &str, name: &str, offered: Option<&Path>, kept: &Path) -> bool {
    let mut command = Command::new("openssl");
    // It ends when the server closes, so it has seen the tickets of TLS 1.3, which come after the handshake.
    command.args(["s_client", "-ign_eof", "-connect", &address.to_string(), "-servername", name, version]);
    command.arg("-sess_out").arg(kept).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(offered) = offered {
        command.arg("-sess_in").arg(offered);
    }
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("openssl cannot be run ({error}): install package openssl"));
    child.stdin.take().expect("it is piped").write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let (new, reused) = (text.contains("\nNew, TLSv1."), text.contains("\nReused, TLSv1."));
    assert!(new != reused && text.contains("\nok"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    reused
}

/// Files for sessions, and a certificate.
struct Scene {
    directory: Directory,
    certificate: Certificate,
}

impl Scene {
    fn new() -> Self {
        let directory = Directory::new();
        let certificate = certificate(&directory, "a.example");
        Self { directory, certificate }
    }

    fn listener(&self, tickets: &Arc<Tickets>) -> Endpoint {
        Endpoint::start(tickets, "https", &self.certificate)
    }

    /// A session that an endpoint has given.
    fn session(&self, endpoint: &Endpoint, version: &str) -> PathBuf {
        let kept = self.directory.path(&format!("session{version}"));
        assert!(!endpoint.connect(version, "a.example", None, &kept));
        kept
    }

    fn resumes(&self, endpoint: &Endpoint, version: &str, session: &Path) -> bool {
        endpoint.connect(version, "a.example", Some(session), &self.directory.path("next"))
    }
}

fn own_keys() -> Arc<Tickets> {
    let tickets = Arc::new(Tickets::default());
    assert!(tickets.rotate_if_due(START, true));
    tickets
}

#[test]
fn session_is_resumed_on_a_node_that_adopted_the_keys_and_on_no_other() {
    let scene = Scene::new();
    let (one, peer) = (own_keys(), Arc::new(Tickets::default()));
    peer.adopt(&one.export(), START).expect("it is a set of keys");
    let (first, second, stranger) = (scene.listener(&one), scene.listener(&peer), scene.listener(&own_keys()));
    for version in VERSIONS {
        let session = scene.session(&first, version);
        assert!(scene.resumes(&first, version, &session), "{version}");
        assert!(scene.resumes(&second, version, &session), "{version}");
        assert!(!scene.resumes(&stranger, version, &session), "{version}");
        // And back, as after a second failover.
        let session = scene.session(&second, version);
        assert!(scene.resumes(&first, version, &session), "{version}");
    }
}

#[test]
fn program_resumes_a_session() {
    let server = Server::saying("\nok");
    let (scene, site) = (Scene::new(), Site::before(&server, "", ""));
    let endpoint = Endpoint(site.baton.address());
    for version in VERSIONS {
        let session = scene.session(&endpoint, version);
        let ticket = std::fs::read_to_string(&session).expect("it was kept");
        assert!(ticket.starts_with("-----BEGIN SSL SESSION"), "{ticket}");
        assert!(scene.resumes(&endpoint, version, &session), "{version}");
    }
}

#[test]
fn session_is_resumed_after_the_keys_have_rotated_and_not_when_its_key_has_expired() {
    let scene = Scene::new();
    let tickets = own_keys();
    let endpoint = scene.listener(&tickets);
    let sessions = VERSIONS.map(|version| scene.session(&endpoint, version));
    assert!(tickets.rotate_if_due(START + 8 * HOUR, true));
    for (version, session) in VERSIONS.iter().zip(&sessions) {
        assert!(scene.resumes(&endpoint, version, session), "{version}");
    }
    assert!(tickets.rotate_if_due(START + 24 * HOUR, true));
    for (version, session) in VERSIONS.iter().zip(&sessions) {
        assert!(!scene.resumes(&endpoint, version, session), "{version}");
    }
}

#[test]
fn session_is_resumed_under_the_name_it_was_made_for_and_on_the_listener_that_made_it() {
    let scene = Scene::new();
    let tickets = own_keys();
    let endpoint = scene.listener(&tickets);
    let other_listener = Endpoint::start(&tickets, "other", &scene.certificate);
    for version in VERSIONS {
        let session = scene.session(&endpoint, version);
        assert!(!scene.resumes(&other_listener, version, &session), "{version}");
        assert!(!endpoint.connect(version, "b.example", Some(&session), &scene.directory.path("next")), "{version}");
    }
}

#[test]
fn tampered_ticket_leads_to_a_full_handshake() {
    let scene = Scene::new();
    let endpoint = scene.listener(&own_keys());
    for version in VERSIONS {
        let session = scene.session(&endpoint, version);
        let shown = Command::new("openssl").args(["sess_id", "-noout", "-text", "-in"]).arg(&session).output();
        let shown = String::from_utf8(shown.expect("openssl runs").stdout).expect("it is text");
        assert!(shown.contains("TLS session ticket:"), "{shown}");
        let altered = with_another_ticket(&session);
        assert!(scene.resumes(&endpoint, version, &session), "{version}");
        assert!(!scene.resumes(&endpoint, version, &altered), "{version}");
    }
}

/// A copy of a session whose ticket has another last byte. The ticket is the context tag 10 of the structure
/// (SSL_SESSION_ASN1 in OpenSSL), an octet string within.
fn with_another_ticket(session: &Path) -> PathBuf {
    let openssl = |arguments: &[&str], from: &Path, to: &Path| {
        let output = Command::new("openssl").args(arguments).arg("-in").arg(from).arg("-out").arg(to).output();
        assert!(output.expect("openssl runs").status.success());
    };
    let (der, pem) = (session.with_extension("der"), session.with_extension("altered"));
    openssl(&["sess_id", "-outform", "DER"], session, &der);
    let mut bytes = std::fs::read(&der).expect("it was written");
    let parsed = Command::new("openssl").args(["asn1parse", "-inform", "DER", "-in"]).arg(&der).output();
    let parsed = String::from_utf8(parsed.expect("openssl runs").stdout).expect("it is text");
    let lines: Vec<_> = parsed.lines().collect();
    let tag = lines.iter().position(|line| line.contains("cont [ 10 ]")).expect("the session has a ticket");
    let number = |name: &str| -> usize {
        let rest = lines[tag + 1].split(name).nth(1).expect("asn1parse shows it").trim_start();
        rest.split([':', ' ']).next().and_then(|number| number.parse().ok()).expect("it is a number")
    };
    let offset: usize = lines[tag + 1].split(':').next().and_then(|it| it.trim().parse().ok()).expect("a number");
    let end = offset + number("hl=") + number(" l=");
    bytes[end - 1] ^= 1;
    std::fs::write(&der, bytes).expect("it is ours");
    openssl(&["sess_id", "-inform", "DER"], &der, &pem);
    pem
}
