//! Servers that break the rules: what of it reaches a client, and that nothing of it reaches the next one.

use std::io;
use std::time::Duration;

use crate::baton::{Baton, Settings};
use crate::server::{Exchange, Server};

/// What a client gets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// A 502 of our own.
    Refused,
    /// The head of the server's response, and then no orderly end.
    BrokenOff,
    /// The server's response with this status and body, and the connection is closed.
    Once(u16, &'static str),
    /// The same, and the connection is used again.
    Good(u16, &'static str),
}

use Outcome::{BrokenOff, Good, Once, Refused};

/// What a server does with its connection after its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    /// Leaves it open.
    Waits,
    /// Ends its direction.
    Closes,
}

use Then::{Closes, Waits};

struct Case {
    name: &'static str,
    method: &'static str,
    answer: Vec<u8>,
    then: Then,
    outcome: Outcome,
}

fn case(name: &'static str, answer: impl Into<Vec<u8>>, then: Then, outcome: Outcome) -> Case {
    Case { name, method: "GET", answer: answer.into(), then, outcome }
}

fn head(name: &'static str, answer: &str, outcome: Outcome) -> Case {
    Case { name, method: "HEAD", answer: answer.into(), then: Waits, outcome }
}

/// A response that would be good but for this field.
fn field(name: &'static str, field: &str) -> Case {
    case(name, format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 2\r\n\r\nok"), Waits, Refused)
}

/// A response that is good but for how its body is framed.
fn framed(name: &'static str, fields: &str) -> Case {
    case(name, format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Waits, Refused)
}

/// A response with these chunks.
fn chunks(name: &'static str, chunks: &str, then: Then) -> Case {
    case(name, format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"), then, BrokenOff)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn status_lines() -> Vec<Case> {
    let line = |name, line: &str| case(name, format!("{line}\r\nContent-Length: 2\r\n\r\nok"), Waits, Refused);
    vec![
        case("no status line at all", "hello, world\r\n", Closes, Refused),
        case("a page without a head, as HTTP/0.9 has it", "<html></html>", Closes, Refused),
        case("a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Waits, Refused),
        case("the hello of another protocol", "SSH-2.0-OpenSSH_9.2\r\n", Waits, Refused),
        line("HTTP/2.0", "HTTP/2.0 200 OK"),
        line("HTTP/1.2", "HTTP/1.2 200 OK"),
        line("HTTP/0.9", "HTTP/0.9 200 OK"),
        line("HTTP/1.10", "HTTP/1.10 200 OK"),
        line("lower case", "http/1.1 200 OK"),
        line("another name", "ICY/1.1 200 OK"),
        line("two digits", "HTTP/1.1 20 OK"),
        line("four digits", "HTTP/1.1 2000 OK"),
        line("a status below 100", "HTTP/1.1 099 OK"),
        line("a status of letters", "HTTP/1.1 abc OK"),
        line("a status with a sign", "HTTP/1.1 +20 OK"),
        line("two spaces before the status", "HTTP/1.1  200 OK"),
        line("a tab before the status", "HTTP/1.1\t200 OK"),
        line("a space before the version", " HTTP/1.1 200 OK"),
        line("NUL in the reason", "HTTP/1.1 200 O\0K"),
        line("bare CR in the reason", "HTTP/1.1 200 O\rK"),
        line("an empty line before", "\r\nHTTP/1.1 200 OK"),
        line("a response before the response's own version", "HTTP/1.1 HTTP/1.1 200 OK"),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        case("bare LF everywhere", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Waits, Refused),
        case("bare LF after the status line", "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", Waits, Refused),
        field("bare LF between fields", "X-A: 1\nX-B: 2"),
        case("bare LF at the end of the head", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok", Waits, Refused),
        field("bare CR in a value", "X-A: 1\rX-B: 2"),
        field("CR CR LF", "X-A: 1\r"),
        field("NUL in a value", "X-A: 1\x002"),
        field("NUL in a name", "X\0A: 1"),
        field("a control character in a value", "X-A: 1\x012"),
        field("DEL in a value", "X-A: 1\x7f2"),
        field("a line that goes on, with a space", "X-A: 1\r\n 2"),
        field("a line that goes on, with a tab", "X-A: 1\r\n\t2"),
        field("a space before the first field", " X-A: 1"),
        field("a space before the colon", "X-A : 1"),
        field("a space within a name", "X A: 1"),
        field("an empty name", ": 1"),
        field("no colon", "X-A"),
        field("brackets in a name", "X(A): 1"),
        field("letters beyond ASCII in a name", "X-\u{e4}: 1"),
        field("a second status line", "HTTP/1.1 200 OK"),
        case("a head that ends early", "HTTP/1.1 200 OK\r\nContent-Le", Closes, Refused),
        case("a head without its last line", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Closes, Refused),
        case("nothing", "", Closes, Refused),
        case(
            "one value of 200 KiB",
            format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(200 << 10)),
            Waits,
            Refused,
        ),
        case("one name of 200 KiB", format!("HTTP/1.1 200 OK\r\n{}: a\r\n\r\n", "a".repeat(200 << 10)), Waits, Refused),
        case("ten thousand fields", format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(10_000)), Waits, Refused),
        case("a status line without an end", format!("HTTP/1.1 200 {}", "O".repeat(300 << 10)), Waits, Refused),
    ]
}

fn framing() -> Vec<Case> {
    vec![
        framed("a length below zero", "Content-Length: -1"),
        framed("a length with a sign", "Content-Length: +5"),
        framed("a list of equal lengths", "Content-Length: 5, 5"),
        framed("a list of lengths", "Content-Length: 5, 6"),
        framed("two lengths", "Content-Length: 5\r\nContent-Length: 6"),
        framed("one length twice", "Content-Length: 5\r\nContent-Length: 5"),
        framed("a length of letters", "Content-Length: five"),
        framed("a length in hex", "Content-Length: 0x5"),
        framed("a length with a fraction", "Content-Length: 5.0"),
        framed("a length with a space within", "Content-Length: 1 5"),
        framed("an empty length", "Content-Length:"),
        framed("a length beyond 64 bits", "Content-Length: 18446744073709551616"),
        framed("a length and a coding", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        framed("a coding and a length", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
        framed("a coding that is not chunked", "Transfer-Encoding: gzip"),
        framed("chunked twice", "Transfer-Encoding: chunked, chunked"),
        framed("two codings in two fields", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        framed("chunked and then another", "Transfer-Encoding: chunked, gzip"),
        framed("another and then chunked", "Transfer-Encoding: gzip, chunked"),
        framed("identity", "Transfer-Encoding: identity"),
        framed("nearly chunked", "Transfer-Encoding: xchunked"),
        framed("chunked with a parameter", "Transfer-Encoding: chunked;a=b"),
        framed("an empty coding", "Transfer-Encoding:"),
        case(
            "a coding in HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Waits,
            Refused,
        ),
        case("less than the length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Closes, BrokenOff),
        case("more than the length", format!("{OK}, or is it"), Waits, Once(200, "ok")),
        case(
            "a second response",
            format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
            Waits,
            Once(200, "ok"),
        ),
        case("a line after the response", format!("{OK}\r\n"), Waits, Once(200, "ok")),
        head("a body after HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Once(200, "")),
        head(
            "a second response after HEAD",
            &format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{OK}"),
            Once(200, ""),
        ),
        head("chunks after HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Once(200, "")),
        case("a body of 204", "HTTP/1.1 204 No Content\r\n\r\nevil", Waits, Once(204, "")),
        case("a body of 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", Waits, Once(304, "")),
        case("a response of 204 that is two", format!("HTTP/1.1 204 No Content\r\n\r\n{OK}"), Waits, Once(204, "")),
    ]
}

fn chunked() -> Vec<Case> {
    let good = "2\r\nok\r\n";
    let mut cases = vec![
        chunks("a size of letters", "zz\r\nok\r\n0\r\n\r\n", Waits),
        chunks("a size below zero", "-2\r\nok\r\n0\r\n\r\n", Waits),
        chunks("a size with a sign", "+2\r\nok\r\n0\r\n\r\n", Waits),
        chunks("a size with a prefix", "0x2\r\nok\r\n0\r\n\r\n", Waits),
        chunks("a size beyond 64 bits", "10000000000000002\r\nok\r\n0\r\n\r\n", Waits),
        chunks("an empty size", "\r\nok\r\n0\r\n\r\n", Waits),
        chunks("bare LF after a size", "2\nok\r\n0\r\n\r\n", Waits),
        chunks("bare CR after a size", "2\rok\r\n0\r\n\r\n", Waits),
        chunks("bare LF after the data", "2\r\nok\n0\r\n\r\n", Waits),
        chunks("more data than the size", "2\r\nokay\r\n0\r\n\r\n", Waits),
        chunks("less data than the size", "9\r\nok\r\n0\r\n\r\n", Closes),
        chunks("no last chunk", good, Closes),
        chunks("bare LF in an extension", "2;a\nb\r\nok\r\n0\r\n\r\n", Waits),
        chunks("an extension of 70 KiB", &format!("2;{}\r\nok\r\n0\r\n\r\n", "a".repeat(70 << 10)), Waits),
        chunks("a trailer without a colon", &format!("{good}0\r\nevil\r\n\r\n"), Waits),
        chunks("a trailer with NUL", &format!("{good}0\r\nx: a\0b\r\n\r\n"), Waits),
        chunks("bare LF at the end", &format!("{good}0\n\n"), Waits),
        chunks("bare LF after the last chunk", &format!("{good}0\r\n\n"), Waits),
        chunks("bare LF in the trailers", &format!("{good}0\r\nx: a\ny: b\r\n\r\n"), Waits),
        chunks("trailers of 300 KiB", &format!("{good}0\r\n{}\r\n", "x: a\r\n".repeat(50_000)), Waits),
    ];
    let response = |chunks: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let second = format!("{good}0\r\n\r\n{OK}");
    cases.push(case("a second response after the last chunk", response(&second), Waits, Once(200, "ok")));
    cases
}

fn interim() -> Vec<Case> {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    vec![
        case(
            "a switch of protocols that nobody asked for",
            "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
            Waits,
            Refused,
        ),
        case("interim responses without end", early.repeat(20_000), Waits, Refused),
        case("an interim response with bare LF", format!("HTTP/1.1 103 Early\nLink: a\r\n\r\n{OK}"), Waits, Refused),
        case("an interim response and no other", early, Closes, Refused),
        case(
            "an interim response with a body",
            format!("HTTP/1.1 103 Early\r\nContent-Length: 4\r\n\r\nevil{OK}"),
            Waits,
            Refused,
        ),
        case("100 that nobody asked for", format!("HTTP/1.1 100 Continue\r\n\r\n{OK}"), Waits, Good(200, "ok")),
    ]
}

fn good() -> Vec<Case> {
    vec![
        case("a plain response", OK, Waits, Good(200, "ok")),
        case("no reason", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Waits, Good(200, "ok")),
        case("neither reason nor space", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Waits, Good(200, "ok")),
        case("a status beyond 599", "HTTP/1.1 999 No\r\nContent-Length: 2\r\n\r\nno", Waits, Good(999, "no")),
        case("zeros before the length", "HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nok", Waits, Good(200, "ok")),
        case("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Closes, Once(200, "ok")),
        case("a body up to the end", "HTTP/1.1 200 OK\r\n\r\nok", Closes, Once(200, "ok")),
        head("a length after HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", Good(200, "")),
        case("304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", Waits, Good(304, "")),
        case("204", "HTTP/1.1 204 No Content\r\n\r\n", Waits, Good(204, "")),
        case(
            "bytes beyond ASCII in a value",
            "HTTP/1.1 200 OK\r\nX-A: \u{e4}\r\nContent-Length: 2\r\n\r\nok",
            Waits,
            Good(200, "ok"),
        ),
        case(
            "a tab within a value",
            "HTTP/1.1 200 OK\r\nX-A: a\tb\r\nContent-Length: 2\r\n\r\nok",
            Waits,
            Good(200, "ok"),
        ),
        case(
            "chunks with extensions and trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;a=\"b\"\r\nok\r\n000\r\nx: y\r\n\r\n",
            Waits,
            Once(200, "ok"),
        ),
    ]
}

fn cases() -> Vec<Case> {
    [status_lines(), fields(), framing(), chunked(), interim(), good()].into_iter().flatten().collect()
}

/// Serves the case that a path names, and what is no case with the path itself.
fn serve(cases: &[Case], exchange: &mut Exchange) -> io::Result<()> {
    loop {
        let request = exchange.request()?;
        let path = request.start.split(' ').nth(1).unwrap_or_default();
        match path.strip_prefix("/case/").and_then(|number| cases.get(number.parse::<usize>().ok()?)) {
            None => exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()))?,
            Some(case) => {
                exchange.send(&case.answer)?;
                if case.then == Closes {
                    exchange.finish();
                }
            }
        }
    }
}

/// What a client gets, and whether it is as it should be.
fn ask(baton: &Baton, number: usize, case: &Case) -> Result<(), String> {
    let mut client = baton.client();
    client.set_patience(Duration::from_secs(5));
    client.send(format!("{} /case/{number} HTTP/1.1\r\nHost: a\r\n\r\n", case.method)).unwrap();
    let head = match client.head() {
        // A reset may overtake the head.
        Err(error) if case.outcome == BrokenOff && error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
        head => head.map_err(|error| format!("no head: {error}"))?,
    };
    let status = head.status();
    let mut body = String::new();
    let end = if case.method == "HEAD" || [204, 304].contains(&status) {
        Ok(())
    } else if let Some(len) = head.value("content-length") {
        client.exactly(len.parse().unwrap()).map(|bytes| body = String::from_utf8_lossy(&bytes).into_owned())
    } else {
        client.chunked().map(|(bytes, _)| body = String::from_utf8_lossy(&bytes).into_owned())
    };
    let got = format!("{status} {body:?} {end:?}");
    let is_as_expected = match case.outcome {
        Refused => status == 502 && head.value("proxy-status").is_some(),
        BrokenOff => {
            status == 200
                && end.is_err_and(|error| {
                    error.kind() != io::ErrorKind::TimedOut && error.kind() != io::ErrorKind::WouldBlock
                })
        }
        Once(expected, text) | Good(expected, text) => status == expected && body == text && end.is_ok(),
    };
    if is_as_expected { Ok(()) } else { Err(got) }
}

#[test]
fn what_breaks_the_rules_reaches_nobody() {
    let table: &'static [Case] = Vec::leak(cases());
    assert!(table.len() >= 100, "{}", table.len());
    let server = Server::start(|exchange| serve(table, exchange));
    let baton =
        Baton::with(&[&server], &Settings { pool: "response_timeout = \"3s\"".to_owned(), ..Settings::default() });
    let mut wrong = Vec::new();
    for (number, case) in table.iter().enumerate() {
        if let Err(got) = ask(&baton, number, case) {
            wrong.push(format!("{}: expected {:?}, got {got}", case.name, case.outcome));
        }
        // The next client gets its own answer.
        let next = baton.client().get(&format!("/next/{number}")).text();
        if next != format!("/next/{number}") {
            wrong.push(format!("{}: the next client got {next:?}", case.name));
        }
        let requests: Vec<String> = server
            .connections()
            .iter()
            .map(|connection| String::from_utf8_lossy(&connection.received).into_owned())
            .find(|received| received.contains(&format!("/case/{number} ")))
            .map(|received| received.split("\r\n\r\n").filter(|head| !head.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default();
        let is_last = requests.last().is_some_and(|last| last.contains(&format!("/case/{number} ")));
        if is_last == matches!(case.outcome, Good(..)) {
            wrong.push(format!("{}: the connection was used again: {}", case.name, !is_last));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}
