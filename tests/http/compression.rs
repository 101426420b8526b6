//! Compression of responses, read back by programs that we did not write.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::curl::curl;
use crate::server::Server;
use crate::wire::{Kind, Message};

/// About 90 KB that compress well.
fn page() -> String {
    (0..3000).map(|line| format!("<p>line {line} of the page</p>\n")).collect()
}

/// A server that answers every request with the page, and fields as its path says.
fn server() -> Server {
    Server::start(|exchange| {
        loop {
            let request = exchange.request()?;
            let path = request.start.split(' ').nth(1).unwrap_or("/").to_owned();
            let page = if path == "/short" { "short".to_owned() } else { page() };
            let fields = match path.as_str() {
                "/image" => "content-type: image/png",
                "/encoded" => "content-type: text/html\r\ncontent-encoding: br",
                "/fixed" => "content-type: text/html\r\ncache-control: no-transform",
                "/tagged" => {
                    "content-type: text/html; charset=utf-8\r\netag: \"v1\"\r\naccept-ranges: bytes\r\nvary: Origin"
                }
                _ => "content-type: text/html",
            };
            let status = if path == "/part" { "206 Partial Content" } else { "200 OK" };
            let head = format!("HTTP/1.1 {status}\r\n{fields}\r\ncontent-length: {}\r\n\r\n", page.len());
            exchange.send(head)?;
            if !request.start.starts_with("HEAD") {
                exchange.send(page)?;
            }
        }
    })
}

fn settings(keys: &str) -> Settings {
    Settings { listener: format!("compression = {{ {keys} }}"), ..Settings::default() }
}

fn ask(client: &mut Client, path: &str, accept: &str) -> Message {
    client.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n\r\n"))
}

/// What a program makes of bytes.
fn piped(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    let mut child = command
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} cannot be run ({error}): install package {program}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().expect("it is our child");
    assert!(output.status.success(), "{program} refuses it");
    writer.join().expect("it does not panic").expect("it reads all");
    output.stdout
}

#[test]
fn each_coding_is_read_by_its_own_program() {
    let server = server();
    for level in ["fast", "balanced", "small"] {
        let baton = Baton::with(&[&server], &settings(&format!("level = \"{level}\"")));
        let mut client = baton.client();
        for (accept, coding, program) in
            [("gzip, deflate, br, zstd", "zstd", "zstd"), ("br, gzip", "br", "brotli"), ("gzip", "gzip", "gzip")]
        {
            let response = ask(&mut client, "/", accept);
            assert_eq!(response.value("content-encoding"), Some(coding));
            assert_eq!((response.value("content-length"), response.value("vary")), (None, Some("Accept-Encoding")));
            assert!(response.body.len() < page().len() / 5, "{coding}: {} bytes", response.body.len());
            assert_eq!(piped(program, &response.body), page().as_bytes());
        }
        let whole = curl(&["--compressed", &baton.url("/")]);
        assert_eq!(whole.text(), page());
    }
}

#[test]
fn what_should_stay_as_it_is_does() {
    let server = server();
    let baton = Baton::with(&[&server], &settings(""));
    let mut client = baton.client();
    for (path, vary) in [("/image", None), ("/encoded", None), ("/fixed", None), ("/part", None), ("/short", None)] {
        let response = ask(&mut client, path, "gzip");
        assert_eq!(response.value("vary"), vary, "{path}");
        assert_eq!(response.value("content-encoding"), (path == "/encoded").then_some("br"), "{path}");
        let expected = if path == "/short" { "short".to_owned() } else { page() };
        assert_eq!(response.text(), expected, "{path}");
    }
    // Others may get something else: a cache has to know.
    for accept in ["identity", "deflate", "gzip;q=0"] {
        let response = ask(&mut client, "/", accept);
        assert_eq!((response.value("content-encoding"), response.value("vary")), (None, Some("Accept-Encoding")));
        assert_eq!(response.text(), page());
    }
    // A client of HTTP/1.0 cannot tell the end of such a body from its being cut off.
    let mut client = baton.client();
    let response = client.ask("GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!((response.value("content-encoding"), response.text()), (None, page()));
}

#[test]
fn a_head_is_that_of_the_get_and_an_etag_is_weak() {
    let server = server();
    let baton = Baton::with(&[&server], &settings(""));
    let mut client = baton.client();
    let response = ask(&mut client, "/tagged", "gzip");
    assert_eq!(response.value("etag"), Some("W/\"v1\""));
    assert_eq!(response.values("vary"), ["Origin", "Accept-Encoding"]);
    assert_eq!(response.value("accept-ranges"), None);
    client.send("HEAD /tagged HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").expect("it is open");
    let head = client.message(Kind::ResponseToHead).expect("a response comes");
    assert_eq!((head.value("content-encoding"), head.value("etag")), (Some("gzip"), Some("W/\"v1\"")));
    assert_eq!(head.value("content-length"), None);
    // The connection goes on.
    assert_eq!(ask(&mut client, "/short", "gzip").text(), "short");
}

#[test]
fn a_pool_may_have_its_own_or_none() {
    let server = server();
    let mut off = settings("");
    off.pool = "compression = \"off\"".to_owned();
    let baton = Baton::with(&[&server], &off);
    assert_eq!(ask(&mut baton.client(), "/", "gzip").value("content-encoding"), None);
    let own = Settings { pool: "compression = { algorithms = [\"gzip\"] }".to_owned(), ..Settings::default() };
    let baton = Baton::with(&[&server], &own);
    assert_eq!(ask(&mut baton.client(), "/", "zstd, br, gzip").value("content-encoding"), Some("gzip"));
}

#[test]
fn a_stream_of_events_stays_one() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        exchange.send("b\r\ndata: one\n\n\r\n")?;
        // Goes on only when the client has the first.
        exchange.wait_for_signal()?;
        exchange.send("b\r\ndata: two\n\n\r\n")?;
        exchange.wait_for_signal()?;
        exchange.send("0\r\n\r\n")?;
        exchange.wait_for_end()
    });
    for (coding, program) in [("gzip", "gzip"), ("br", "brotli"), ("zstd", "zstd")] {
        let keys = format!("types = [\"text/event-stream\"], algorithms = [\"{coding}\"]");
        let baton = Baton::with(&[&server], &settings(&keys));
        let mut client = baton.client();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n");
        client.send(request).expect("it is open");
        let mut seen = Vec::new();
        // Each comes before the server sends any more.
        for count in 1..=2 {
            while chunks(&seen) < count {
                seen.extend(client.some(4096).expect("it comes at once"));
            }
            server.signal();
        }
        while !seen.ends_with(b"0\r\n\r\n") {
            seen.extend(client.some(4096).expect("the end comes"));
        }
        assert_eq!(piped(program, &body(&seen)), b"data: one\n\ndata: two\n\n", "{coding}");
    }
}

/// Where the body begins.
fn start_of_body(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The chunks of a response that are complete.
fn parts(bytes: &[u8]) -> Vec<Vec<u8>> {
    let Some(mut at) = start_of_body(bytes) else { return Vec::new() };
    let mut parts = Vec::new();
    while let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[at..at + end]).expect("a size is text");
        let size = usize::from_str_radix(size, 16).expect("a size is a number");
        let start = at + end + 2;
        if size == 0 || bytes.len() < start + size + 2 {
            break;
        }
        parts.push(bytes[start..start + size].to_vec());
        at = start + size + 2;
    }
    parts
}

fn chunks(bytes: &[u8]) -> usize {
    parts(bytes).len()
}

fn body(bytes: &[u8]) -> Vec<u8> {
    parts(bytes).concat()
}

#[test]
fn a_body_that_breaks_off_is_not_made_whole() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 100000\r\n\r\n")?;
        exchange.send("x".repeat(50_000))?;
        Ok(())
    });
    let baton = Baton::with(&[&server], &settings(""));
    let broken = curl(&["--compressed", &baton.url("/")]);
    assert_ne!(broken.code, Some(0), "{broken:?}");
}
