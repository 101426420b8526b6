//! TLS towards clients, with certificates that openssl makes for the test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::baton::{Baton, Directory};
use crate::client::Client;
use crate::curl::{Curl, curl};
use crate::server::Server;

/// A self-signed certificate and its key.
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

pub fn certificate(directory: &Directory, name: &str) -> Certificate {
    let (cert, key) = (directory.path(&format!("{name}.crt")), directory.path(&format!("{name}.key")));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")]);
    let output = command.arg("-keyout").arg(&key).arg("-out").arg(&cert).output();
    let output = output.unwrap_or_else(|error| panic!("openssl cannot be run ({error}): install package openssl"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Certificate { cert, key }
}

/// A listener with certificates for a.example and, second, for b.example.
pub struct Site {
    pub baton: Baton,
    pub certificates: [Certificate; 2],
    directory: Directory,
}

impl Site {
    /// `listener` are further keys of the listener, `pool` of the pool.
    pub fn before(server: &Server, listener: &str, pool: &str) -> Self {
        Self::before_all(&[server], listener, pool)
    }

    pub fn before_all(servers: &[&Server], listener: &str, pool: &str) -> Self {
        let addresses: Vec<_> = servers.iter().map(|server| server.address()).collect();
        Self::before_addresses(&addresses, listener, pool)
    }

    pub fn before_addresses(addresses: &[std::net::SocketAddr], listener: &str, pool: &str) -> Self {
        let directory = Directory::new();
        let certificates = ["a.example", "b.example"].map(|name| certificate(&directory, name));
        let files =
            certificates.iter().map(|Certificate { cert, key }| format!("{{ cert = {cert:?}, key = {key:?} }}"));
        let tls = format!("tls = {{ certificates = [{}] }}", files.collect::<Vec<_>>().join(", "));
        let server = |(index, address): (usize, &std::net::SocketAddr)| {
            format!("{{ name = \"app{}\", address = \"{address}\" }}", index + 1)
        };
        let servers = addresses.iter().enumerate().map(server).collect::<Vec<_>>().join(", ");
        let pool = format!("[[pool]]\nname = \"app\"\nservers = [{servers}]\n{pool}\n[worker]\nthreads = 1\n");
        let baton = Baton::run(&format!("pool = \"app\"\n{listener}\n{tls}"), &pool);
        Self { baton, certificates, directory }
    }

    /// Where its files are.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// curl to a name, trusting one of the certificates alone.
    pub fn curl(&self, name: &str, trusted: usize, arguments: &[&str]) -> Curl {
        self.curl_trusting(name, &self.certificates[trusted].cert, arguments)
    }

    /// curl to a name, trusting this certificate alone.
    pub fn curl_trusting(&self, name: &str, trusted: &Path, arguments: &[&str]) -> Curl {
        let port = self.baton.address().port();
        let resolve = format!("{name}:{port}:127.0.0.1");
        let trusted = trusted.to_str().expect("test directories are UTF-8");
        let url = format!("https://{name}:{port}/path");
        curl(&[&["--resolve", &resolve, "--cacert", trusted, &url], arguments].concat())
    }
}

#[test]
fn certificate_is_picked_by_the_name_that_the_client_asks_for() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    for (name, own, other) in [("a.example", 0, 1), ("b.example", 1, 0)] {
        let output = site.curl(name, own, &[]);
        assert_eq!((output.code, output.text().as_str()), (Some(0), "ok"), "{}", output.stderr);
        // 60: curl knows nobody who vouches for the certificate, as it trusts the other one.
        assert_eq!(site.curl(name, other, &[]).code, Some(60));
    }
    // For a name that no certificate has there is the first one, which the client will not like.
    let output = site.curl("c.example", 0, &["--insecure"]);
    assert_eq!((output.code, output.text().as_str()), (Some(0), "ok"), "{}", output.stderr);
    assert_eq!(site.curl("c.example", 0, &[]).code, Some(60));
}

#[test]
fn server_learns_that_the_client_came_by_https() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    assert_eq!(site.curl("a.example", 0, &["--data", "hello"]).code, Some(0));
    let request = server.request();
    assert_eq!((request.start.as_str(), request.text().as_str()), ("POST /path HTTP/1.1", "hello"));
    assert_eq!(request.value("x-forwarded-proto"), Some("https"));
    let host = format!("a.example:{}", site.baton.address().port());
    assert_eq!(request.value("x-forwarded-host"), Some(host.as_str()));
}

#[test]
fn version_of_http_is_negotiated_in_tls_12_and_13() {
    let server = Server::saying("ok");
    let both = Site::before(&server, "", "");
    let http_1 = Site::before(&server, "http2 = false", "");
    for version in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
        let format = &["--write-out", " %{http_version}"][..];
        for (site, wanted, expected) in
            [(&both, "--http2", "2"), (&both, "--http1.1", "1.1"), (&http_1, "--http2", "1.1")]
        {
            let output = site.curl("a.example", 0, &[version, &[wanted], format].concat());
            let text = output.text();
            assert_eq!((output.code, text.as_str()), (Some(0), format!("ok {expected}").as_str()), "{}", output.stderr);
        }
    }
}

#[test]
fn sticky_cookie_is_secure_over_tls() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "[pool.sticky]\nby = \"cookie\"");
    let output = site.curl("a.example", 0, &["--include"]);
    let text = output.text();
    let cookie = "\r\nset-cookie: BATON=63dd98b3b3949ee6; Path=/; HttpOnly; SameSite=Lax; Secure\r\n";
    assert!(text.contains(cookie), "{text}");
}

#[test]
fn large_body_passes_through_tls() {
    let body = "0123456789abcdef".repeat(256 * 1024);
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let site = Site::before(&server, "", "");
    let output = site.curl("a.example", 0, &[]);
    assert_eq!((output.code, output.stdout.len()), (Some(0), 4 * 1024 * 1024), "{}", output.stderr);
    assert!(output.stdout == body.as_bytes());
}

#[test]
fn clear_text_on_a_tls_port_ends_at_once() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    let mut client = site.baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    let answer = client.rest().unwrap_or_default();
    assert!(!answer.starts_with(b"HTTP/"), "{}", answer.escape_ascii());
    assert_eq!(server.connections().len(), 0);
}

#[test]
fn handshake_that_stops_ends_with_the_time_for_a_head() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "head_timeout = \"300ms\"", "");
    let mut client = Client::connect(site.baton.address());
    let started = Instant::now();
    client.send(b"\x16\x03\x01\x02\x00\x01").expect("the connection is open");
    assert_eq!(client.rest().unwrap_or_default(), b"");
    let taken = started.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(4)).contains(&taken), "{taken:?}");
}

#[test]
fn stop_does_not_wait_for_a_handshake() {
    let server = Server::saying("ok");
    let mut site = Site::before(&server, "", "");
    let mut client = site.baton.client();
    client.send(b"\x16\x03\x01\x02\x00\x01").expect("the connection is open");
    // It is accepted in turn: when a later connection is served, this one has been taken as well.
    assert_eq!(site.curl("a.example", 0, &[]).text(), "ok");
    let started = Instant::now();
    site.baton.terminate();
    assert_eq!(site.baton.wait().code(), Some(0));
    // Well below head_timeout and drain_timeout, which are 10 s.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    client.expect_closed();
}

#[test]
fn tls_on_a_clear_text_port_ends_at_once() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let output = curl(&["--insecure", &baton.url("/").replace("http://", "https://")]);
    // 35: the handshake failed.
    assert_eq!(output.code, Some(35), "{}", output.stderr);
    assert_eq!(server.connections().len(), 0);
}
