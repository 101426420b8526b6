//! Clients and servers that others wrote, on both sides of the program: nghttp2's h2load, grpcio, websockets, Chromium.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::baton::{Baton, Directory, Settings};
use crate::curl::curl;
use crate::server::Server;
use crate::tls::Site;

/// A script of `tests/http/programs` that serves, stopped at its drop.
struct Service {
    child: Child,
    address: SocketAddr,
}

/// Debian's python, which has Debian's libraries.
fn python(script: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(format!("{}/tests/http/programs/{script}", env!("CARGO_MANIFEST_DIR"))).stdin(Stdio::null());
    command
}

impl Service {
    fn start(script: &str) -> Self {
        let mut child =
            python(script).arg("server").stdout(Stdio::piped()).spawn().expect("package python3 is installed");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("{script} does not serve: is its package installed?"));
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a command prints, errors included.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

fn settings(pool: &str) -> Settings {
    Settings { pool: pool.to_owned(), ..Settings::default() }
}

#[test]
fn curl_speaks_http2_in_clear_text_and_over_tls() {
    let body = "0123456789abcdef".repeat(64 * 1024);
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let baton = Baton::before(&[&server]);
    let version = ["--write-out", "%{stderr}%{http_version}"];
    let plain = curl(&[&["--http2-prior-knowledge", &baton.url("/")][..], &version].concat());
    let site = Site::before(&server, "", "");
    let tls = site.curl("a.example", 0, &[&["--http2"][..], &version].concat());
    for output in [plain, tls] {
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), "2"));
        assert!(output.stdout == body.as_bytes());
    }
    // Over HTTP/1.1 it offers to change to h2c, which is not passed on.
    let offered = curl(&[&["--http2", &baton.url("/")][..], &version].concat());
    assert_eq!((offered.code, offered.stderr.as_str()), (Some(0), "1.1"));
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.value("upgrade").is_none()), "{requests:?}");
}

#[test]
fn curl_uploads_over_http2() {
    let server = Server::start(|exchange| {
        loop {
            let request = exchange.request()?;
            let len = request.text().len().to_string();
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{len}", len.len()))?;
        }
    });
    let baton = Baton::before(&[&server]);
    let directory = Directory::new();
    let file = directory.path("upload");
    std::fs::write(&file, "x".repeat(3_000_000)).expect("the directory is writable");
    let (data, url) = (format!("@{}", file.display()), baton.url("/"));
    for further in [&[][..], &["--header", "Expect: 100-continue"], &["--header", "Transfer-Encoding: chunked"]] {
        let arguments = [&["--http2-prior-knowledge", "--data-binary", &data, &url][..], further].concat();
        let output = curl(&arguments);
        assert_eq!((output.code, output.text().as_str()), (Some(0), "3000000"), "{}", output.stderr);
    }
}

#[test]
fn h2load_is_answered_each_time() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &Settings { threads: 2, ..Settings::default() });
    let mut h2load = Command::new("h2load");
    let said = output(h2load.args(["-n", "5000", "-c", "20", "-m", "50", &baton.url("/")]));
    assert!(said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains("status codes: 5000 2xx"), "{said}");
}

#[test]
fn grpc_calls_and_streams_go_through_in_both_directions() {
    let service = Service::start("grpc_echo.py");
    let baton = Baton::before_addresses(&[service.address], &settings("protocol = \"h2c\""));
    let said = output(python("grpc_echo.py").args(["client", &baton.address().port().to_string()]));
    assert_eq!(said, "ok\n");
}

#[test]
fn grpc_client_learns_in_its_own_words_that_no_server_is_there() {
    let port = crate::server::Port::reserve();
    let baton = Baton::before_addresses(&[port.address()], &settings("protocol = \"h2c\""));
    let said = output(python("grpc_echo.py").args(["call", &baton.address().port().to_string()]));
    assert_eq!(said, "UNAVAILABLE the server could not be reached or broke off\n");
}

#[test]
fn grpc_client_learns_in_its_own_words_that_a_server_is_too_slow() {
    let server = Server::start(|exchange| exchange.wait_for_end());
    let baton = Baton::with(&[&server], &settings("response_timeout = \"200ms\""));
    let said = output(python("grpc_echo.py").args(["call", &baton.address().port().to_string()]));
    assert_eq!(said, "DEADLINE_EXCEEDED the server did not answer in time\n");
}

#[test]
fn websockets_go_through_in_clear_text_and_over_tls() {
    let service = Service::start("websocket_echo.py");
    let baton = Baton::before_addresses(&[service.address], &Settings::default());
    let said = output(python("websocket_echo.py").args(["client", &format!("ws://{}/chat", baton.address())]));
    assert_eq!(said, "ok\n");
    let site = Site::before_addresses(&[service.address], "", "");
    let url = format!("wss://{}/chat", site.baton.address());
    let trusted = site.certificates[0].cert.to_str().expect("test directories are UTF-8");
    let said = output(python("websocket_echo.py").args(["client", &url, trusted]));
    assert_eq!(said, "ok\n");
}

#[test]
fn chromium_loads_a_page_over_http2() {
    let server = Server::start(|exchange| {
        loop {
            let request = exchange.request()?;
            let (kind, body) = match request.start.split(' ').nth(1) {
                Some("/path") => ("text/html", PAGE.to_owned()),
                Some("/script.js") => ("text/javascript", SCRIPT.to_owned()),
                Some(path) => ("text/plain", format!("{path} by {}", request.value("via").unwrap_or("nobody"))),
                None => continue,
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
            exchange.send(head + &body)?;
        }
    });
    let site = Site::before(&server, "", "");
    let url = format!("https://a.example:{}/path", site.baton.address().port());
    let mut chromium = Command::new("chromium");
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors"])
        .args(["--no-first-run", "--disable-background-networking", "--no-proxy-server"])
        .args(["--host-resolver-rules=MAP a.example 127.0.0.1", "--virtual-time-budget=20000", "--timeout=20000"])
        .arg(format!("--user-data-dir={}", site.directory().path("chromium").display()))
        .args(["--dump-dom", &url])
        .stdin(Stdio::null());
    let said = output(&mut chromium);
    // What the page wrote of itself: the protocol of each of its parts, and the bodies of twenty of them.
    assert!(said.contains("<p id=\"protocols\">h2</p>"), "{said}");
    assert!(said.contains("<p id=\"parts\">20 of 20, such as /part/7 by 2.0 baton</p>"), "{said}");
}

const PAGE: &str =
    "<!doctype html><title>page</title><p id=protocols>?</p><p id=parts>?</p><script src=/script.js></script>";

const SCRIPT: &str = "(async () => {
    const numbers = Array.from({ length: 20 }, (_, number) => number);
    const texts = await Promise.all(numbers.map(async number => (await fetch('/part/' + number)).text()));
    const good = texts.filter((text, number) => text.startsWith('/part/' + number + ' by')).length;
    document.getElementById('parts').textContent = `${good} of 20, such as ${texts[7]}`;
    const loaded = performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'));
    document.getElementById('protocols').textContent = [...new Set(loaded.map(entry => entry.nextHopProtocol))].join();
})();";
