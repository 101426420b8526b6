//! Checks against stand-ins that answer with literal bytes, good and bad.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::check::Checker;
use crate::config::Config;
use crate::proxy::files::Files;
use crate::proxy::upstream::dial::Dialer;

fn config(keys: &str) -> Config {
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n[[pool]]\nname = \"p\"\n\
         servers = [{{ name = \"s\", address = \"127.0.0.1:2\" }}]\nhealth = {{ {keys} }}\n"
    );
    crate::config::parse(&text, Path::new("/x.toml")).unwrap_or_else(|report| panic!("{report}"))
}

/// One check of whatever is at this address.
async fn check(keys: &str, address: SocketAddr) -> Result<String, String> {
    let config = config(keys);
    let dialer = Dialer::of_pools(&config, &Files::default()).unwrap().remove(0);
    let health = config.pools[0].health.clone().unwrap();
    Checker::new(&health, &dialer, address).check().await
}

/// What a stand-in does on a connection, step after step.
#[derive(Clone, Copy)]
enum Step {
    /// Reads what has come, at least a byte.
    Read,
    /// Writes these bytes.
    Write(&'static [u8]),
    /// Writes so many times the letter x.
    Flood(usize),
    /// Writes a byte again and again, with a pause.
    Drip,
    /// Leaves the connection open until the other side closes it.
    Stay,
}

async fn play(mut stream: TcpStream, steps: &[Step]) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    for step in steps {
        match step {
            Step::Read => drop(stream.read(&mut buffer).await?),
            Step::Write(bytes) => stream.write_all(bytes).await?,
            Step::Flood(len) => stream.write_all(&vec![b'x'; *len]).await?,
            Step::Drip => loop {
                stream.write_all(b"2").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            },
            Step::Stay => while stream.read(&mut buffer).await? > 0 {},
        }
    }
    Ok(())
}

/// A server that does this on each connection.
async fn server(steps: &'static [Step]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever checks may close at any time.
            tokio::spawn(async move { drop(play(stream, steps).await) });
        }
    });
    address
}

fn ok(said: &str) -> Result<String, String> {
    Ok(said.to_owned())
}

fn bad(said: &str) -> Result<String, String> {
    Err(said.to_owned())
}

const HTTP: &str = "path = \"/health\", timeout = \"2s\"";

#[tokio::test]
async fn a_good_status_is_a_success_and_a_bad_one_is_not() {
    let good = server(&[Step::Read, Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    assert_eq!(check(HTTP, good).await, ok("status 200"));
    let moved = server(&[Step::Read, Step::Write(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n")]).await;
    assert_eq!(check(HTTP, moved).await, ok("status 302"));
    assert_eq!(check("statuses = [\"200\", \"204-299\"]", moved).await, bad("status 302"));
    assert_eq!(check("statuses = [\"200\", \"300-302\"]", moved).await, ok("status 302"));
    let unavailable = server(&[Step::Read, Step::Write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")]).await;
    assert_eq!(check(HTTP, unavailable).await, bad("status 503"));
}

#[tokio::test]
async fn garbage_silence_and_refusal_are_failures_with_a_reason() {
    let garbage = server(&[Step::Read, Step::Write(b"SSH-2.0-OpenSSH\r\n")]).await;
    assert!(check(HTTP, garbage).await.is_err());
    let closed = server(&[Step::Read]).await;
    assert!(check(HTTP, closed).await.is_err());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    assert_eq!(check("timeout = \"50ms\"", silent).await, bad("no answer within 50 ms"));
    assert_eq!(check("type = \"tcp\"", silent).await, ok("connected"));
    drop(listener);
    assert_eq!(check(HTTP, silent).await, bad("connect failed: connection refused"));
}

#[tokio::test]
async fn a_body_is_read_until_what_is_expected_is_there_and_no_further() {
    let body = server(&[
        Step::Read,
        Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\nstatus: fi"),
        Step::Write(b"ne\n"),
        Step::Stay,
    ]);
    let body = body.await;
    assert_eq!(check("expect = \"status: fine\"", body).await, ok("status 200"));
    assert_eq!(check("expect_regex = \"status: (fine|good)\"", body).await, ok("status 200"));
    let short = server(&[Step::Read, Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsick")]).await;
    assert_eq!(check("expect = \"fine\"", short).await, bad("what is expected is not in its answer \"sick\""));
    let large = server(&[Step::Read, Step::Write(b"HTTP/1.1 200 OK\r\n\r\n"), Step::Flood(1 << 20), Step::Stay]).await;
    let too_far = bad("what is expected is not in the first 64 KiB of its body");
    assert_eq!(check("expect = \"fine\"", large).await, too_far);
}

/// Every check that reads bytes, and what it is called.
const READERS: [&str; 9] = [
    "path = \"/\"",
    "expect = \"fine\"",
    "type = \"tcp\", expect = \"fine\"",
    "type = \"tls\", tls = { verify = false }",
    "type = \"grpc\"",
    "type = \"dns\", query = \"example.com\", over = \"tcp\"",
    "type = \"postgres\"",
    "type = \"mysql\"",
    "type = \"redis\"",
];

#[tokio::test]
async fn a_server_that_drips_fails_at_the_timeout_whatever_it_is_asked() {
    let drip = server(&[Step::Drip]).await;
    for keys in READERS.into_iter().chain(["type = \"smtp\""]) {
        let started = std::time::Instant::now();
        let result = check(&format!("{keys}, timeout = \"200ms\""), drip).await;
        assert!(result.is_err(), "{keys}: {result:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{keys}");
    }
}

#[tokio::test]
async fn a_megabyte_of_garbage_fails_with_a_reason_and_before_the_timeout() {
    let flood = server(&[Step::Flood(1 << 20), Step::Stay]).await;
    for keys in READERS.into_iter().chain(["type = \"smtp\""]) {
        let result = check(&format!("{keys}, interval = \"60s\", timeout = \"60s\""), flood).await;
        let reason = result.expect_err(keys);
        assert!(!reason.starts_with("no answer within") && reason.len() < 200, "{keys}: {reason}");
    }
}

#[tokio::test]
async fn a_server_that_closes_fails_at_once() {
    let closes = server(&[]).await;
    for keys in READERS {
        let result = check(&format!("{keys}, interval = \"60s\", timeout = \"60s\""), closes).await;
        assert!(result.is_err(), "{keys}: {result:?}");
    }
}

#[tokio::test]
async fn bytes_are_sent_and_expected() {
    let echo = server(&[Step::Read, Step::Write(b"+PO"), Step::Write(b"NG\r\n"), Step::Stay]).await;
    let said = ok("the answer that is expected");
    assert_eq!(check("type = \"tcp\", send = \"PING\\r\\n\", expect = \"+PONG\"", echo).await, said);
    assert_eq!(check("type = \"tcp\", send_hex = \"50\", expect_hex = \"2b 50\"", echo).await, said);
    assert_eq!(check("type = \"tcp\", send = \"x\", expect_regex = \"^.P[A-Z]NG\"", echo).await, said);
    let closing = server(&[Step::Write(b"busy\r\n")]).await;
    let reason = "what is expected is not in its answer \"busy\", and it closed the connection";
    assert_eq!(check("type = \"tcp\", expect = \"ready\"", closing).await, bad(reason));
    let flood = server(&[Step::Flood(1 << 20), Step::Stay]).await;
    let reason = check("type = \"tcp\", expect = \"ready\"", flood).await.unwrap_err();
    assert!(reason.ends_with("and it sent more than 64 KiB"), "{reason}");
}

#[tokio::test]
async fn a_mail_server_is_greeted() {
    let mail = server(&[
        Step::Write(b"220-mx.example.com\r\n220 ESMTP\r\n"),
        Step::Read,
        Step::Write(b"250-mx.example.com\r\n250-PIPELINING\r\n250 SIZE 10\r\n"),
        Step::Read,
    ]);
    assert_eq!(check("type = \"smtp\"", mail.await).await, ok("SMTP says \"220 ESMTP\""));
    let busy = server(&[Step::Write(b"421 too busy\r\n"), Step::Stay]).await;
    assert_eq!(check("type = \"smtp\"", busy).await, bad("SMTP says \"421 too busy\""));
}

#[tokio::test]
async fn redis_says_pong_and_its_role() {
    let any = server(&[Step::Read, Step::Write(b"+PONG\r\n"), Step::Stay]).await;
    assert_eq!(check("type = \"redis\"", any).await, ok("Redis answers"));
    let replica = server(&[
        Step::Read,
        Step::Write(b"+PONG\r\n"),
        Step::Read,
        Step::Write(b"$58\r\n# Replication\r\nrole:slave\r\nmaster_link_status:down\r\n1234\r\n\r\n"),
        Step::Stay,
    ])
    .await;
    let said = ok("Redis, replica, its link to the primary is down");
    assert_eq!(check("type = \"redis\", role = \"replica\"", replica).await, said);
    let reason = bad("it is a replica, and the primary is wanted");
    assert_eq!(check("type = \"redis\", role = \"primary\"", replica).await, reason);
    let closed = server(&[Step::Read, Step::Write(b"-NOAUTH Authentication required.\r\n"), Step::Stay]).await;
    assert_eq!(check("type = \"redis\"", closed).await, bad("Redis says \"NOAUTH Authentication required.\""));
    let endless = server(&[Step::Read, Step::Write(b"+PONG\r\n"), Step::Read, Step::Write(b"$99999999\r\n")]).await;
    assert!(check("type = \"redis\", role = \"primary\"", endless).await.is_err());
}

#[tokio::test]
async fn mysql_is_greeted() {
    // The greeting of MariaDB 10.11, as Wireshark shows it.
    let greeting: &[u8] = b"\x51\0\0\0\x0a5.5.5-10.11.6\0\x05\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\x07\0\0\0ijklmnopqrst\0mysql_native_password\0";
    assert_eq!(greeting.len(), 4 + 0x51);
    let good: &[Step] = Box::leak(Box::new([Step::Write(greeting), Step::Stay]));
    assert_eq!(check("type = \"mysql\"", server(good).await).await, ok("MySQL 5.5.5-10.11.6"));
    let logged_in: &[Step] = Box::leak(Box::new([
        Step::Write(greeting),
        Step::Read,
        Step::Write(b"\x07\0\0\x02\0\0\0\x02\0\0\0"),
        Step::Read,
        Step::Write(
            b"\x01\0\0\x01\x01\x03\0\0\x02def\x05\0\0\x03\xfe\0\0\x02\0\x02\0\0\x04\x011\x05\0\0\x05\xfe\0\0\x02\0",
        ),
        Step::Stay,
    ]));
    let keys = "type = \"mysql\", user = \"u\", role";
    let replica = server(logged_in).await;
    assert_eq!(check(&format!("{keys} = \"replica\""), replica).await, ok("MySQL, replica"));
    let reason = bad("it is a replica, and the primary is wanted");
    assert_eq!(check(&format!("{keys} = \"primary\""), replica).await, reason);
    let refusing = server(&[Step::Write(b"\x17\0\0\0\xff\x10\x04Too many connections"), Step::Stay]).await;
    assert_eq!(check("type = \"mysql\"", refusing).await, bad("MySQL says \"Too many connections\""));
}

#[tokio::test]
async fn postgres_says_whether_it_is_in_recovery() {
    let replica = server(&[
        Step::Read,
        Step::Write(b"R\0\0\0\x08\0\0\0\0S\0\0\0\x09a\0bc\0Z\0\0\0\x05I"),
        Step::Read,
        Step::Write(b"T\0\0\0\x06\0\x01D\0\0\0\x0b\0\x01\0\0\0\x01tC\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"),
        Step::Stay,
    ])
    .await;
    assert_eq!(check("type = \"postgres\", role = \"replica\"", replica).await, ok("PostgreSQL, replica"));
    let reason = bad("it is a replica, and the primary is wanted");
    assert_eq!(check("type = \"postgres\", role = \"primary\"", replica).await, reason);
    let locked = server(&[Step::Read, Step::Write(b"R\0\0\0\x08\0\0\0\x03"), Step::Stay]).await;
    assert_eq!(check("type = \"postgres\"", locked).await, ok("PostgreSQL asks for a password"));
    let reason = bad("PostgreSQL asks for a password: set password_file");
    assert_eq!(check("type = \"postgres\", role = \"primary\"", locked).await, reason);
    let starting = server(&[Step::Read, Step::Write(b"E\0\0\0\x1cSFATAL\0Mit is starting\0\0"), Step::Stay]).await;
    assert_eq!(check("type = \"postgres\"", starting).await, bad("PostgreSQL says \"it is starting\""));
}

#[tokio::test]
async fn datagrams_are_answered_or_refused() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let nothing = ok("nothing says that its port is unreachable");
    assert_eq!(check("type = \"udp\", send = \"ping\", timeout = \"100ms\"", address).await, nothing);
    let silent = bad("no answer within 100 ms");
    assert_eq!(check("type = \"udp\", send = \"ping\", expect = \"pong\", timeout = \"100ms\"", address).await, silent);
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 64];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let answer: &[u8] = if &buffer[..len] == b"ping" { b"pong" } else { b"what?" };
            socket.send_to(answer, from).await.unwrap();
        }
    });
    let said = ok("the answer that is expected");
    assert_eq!(check("type = \"udp\", send = \"ping\", expect = \"pong\"", address).await, said);
    let reason = bad("what is expected is not in its answer \"what?\"");
    assert_eq!(check("type = \"udp\", send = \"gnip\", expect = \"pong\"", address).await, reason);
    answering.abort();
    let _aborted = answering.await;
    let unreachable = bad("its port is unreachable");
    assert_eq!(check("type = \"udp\", send = \"ping\", timeout = \"1s\"", address).await, unreachable);
    assert_eq!(check("type = \"udp\", send = \"ping\", expect = \"pong\"", address).await, unreachable);
}

#[tokio::test]
async fn checks_go_to_another_port_where_that_is_said() {
    let good = server(&[Step::Read, Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let elsewhere: SocketAddr = "127.0.0.2:9".parse().unwrap();
    let keys = format!("address = \"127.0.0.1\", port = {}", good.port());
    assert_eq!(check(&keys, elsewhere).await, ok("status 200"));
}
