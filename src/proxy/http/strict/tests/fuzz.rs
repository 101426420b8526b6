//! Mutated streams: the gate must not depend on how they are cut, and two other readers must understand what it passes
//! exactly as it did. A failure prints its seed; `SEED=n` replays it alone.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::FutureExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::*;

/// Bytes that have meant different things to different readers.
const SPLINTERS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b"\xff",
    b":",
    b",",
    b";",
    b"#",
    b"@",
    b"/",
    b"0",
    b"5",
    b"0\r\n\r\n",
    b"1\r\na\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length:",
    b"Host: b\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:",
    b"chunked",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"http://a",
    b"\r\n ",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
];

fn mutated(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..rng.usize(1..4) {
        stream.extend_from_slice(rng.choice(corpus).unwrap());
    }
    for _ in 0..rng.usize(0..5) {
        let at = rng.usize(0..=stream.len());
        let end = rng.usize(at..=stream.len().min(at + 20));
        match rng.u8(0..5) {
            0 => drop(stream.splice(at..at, rng.choice(SPLINTERS).unwrap().iter().copied())),
            1 => drop(stream.splice(at..end, rng.choice(SPLINTERS).unwrap().iter().copied())),
            2 => drop(stream.drain(at..end)),
            3 => {
                let copy = stream[at..end].to_vec();
                drop(stream.splice(at..at, copy));
            }
            _ => stream.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.u8(0..8)),
        }
    }
    stream
}

/// Runs `check` on the mutations of many seeds, and says which seed was the one that failed.
fn for_each_mutation(seeds: u64, check: impl Fn(&mut Rng, &[u8])) {
    struct Announce(u64);
    impl Drop for Announce {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with SEED={}", self.0);
            }
        }
    }
    // Good ones weigh more: what passes is what other readers are asked about.
    let good = good::streams().map(<[u8]>::to_vec);
    let corpus: Vec<_> = std::iter::repeat_n(good, 20).flatten().chain(bad::streams()).collect();
    let only: Option<u64> = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in only.map_or(0..seeds, |seed| seed..seed + 1) {
        let _announce = Announce(seed);
        let mut rng = Rng::with_seed(seed);
        let stream = mutated(&mut rng, &corpus);
        check(&mut rng, &stream);
    }
}

#[test]
fn cutting_a_mutated_stream_makes_no_difference() {
    for_each_mutation(10_000, |rng, stream| {
        let whole = feed(Limits::default(), [stream]);
        let mut cuts: Vec<_> = (0..rng.usize(0..8)).map(|_| rng.usize(0..=stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
        assert_eq!(feed(Limits::default(), pieces), whole, "{cuts:?} {}", stream.escape_ascii());
        assert_eq!(feed(Limits::default(), stream.chunks(1)), whole, "{}", stream.escape_ascii());
    });
}

/// The heads that pass, found by feeding single bytes: a head passes alone, in the call that shows its last byte.
fn heads_of(stream: &[u8]) -> Vec<Vec<u8>> {
    let (mut gate, mut held, mut heads) = (Gate::new(Limits::default()), Vec::new(), Vec::new());
    for byte in stream {
        held.push(*byte);
        let before = gate.heads_count();
        let Verdict::Pass { len } = gate.inspect(&held) else { break };
        if gate.heads_count() > before {
            assert_eq!(len, held.len());
            heads.push(held.clone());
        }
        held.drain(..len);
    }
    heads
}

#[test]
fn httparse_reads_every_head_that_passes_to_the_same_end() {
    let heads_count = Cell::new(0);
    for_each_mutation(10_000, |_, stream| {
        for head in heads_of(stream) {
            heads_count.set(heads_count.get() + 1);
            let mut headers = [httparse::EMPTY_HEADER; 100];
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request.parse(&head);
            assert_eq!(parsed, Ok(httparse::Status::Complete(head.len())), "{}", head.escape_ascii());
            let target = request.path.unwrap();
            assert!(target.parse::<http::Uri>().is_ok(), "{}", head.escape_ascii());
            let named = |name: &str| request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
            assert!(named("host") == 1 || (named("host") == 0 && request.version == Some(0)));
            assert!(named("content-length") + named("transfer-encoding") <= 1);
            for header in request.headers.iter() {
                let bad = header.value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0'));
                assert!(!bad && !header.name.is_empty() && !header.name.contains([' ', '\t']));
            }
        }
    });
    assert!(heads_count.get() > 5_000 || std::env::var("SEED").is_ok(), "only {} heads passed", heads_count.get());
}

/// A connection on which a client has sent some bytes and waits.
struct Sent(Vec<u8>);

impl Read for Sent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let len = self.0.len().min(buf.remaining());
        buf.put_slice(&self.0.drain(..len).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl Write for Sent {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Understood {
    requests: u64,
    bodies: u64,
    /// hyper refused something, or saw the connection out after a request that closes it.
    closed: bool,
    failed: bool,
}

/// What hyper's server makes of a stream.
fn understood_by_hyper(stream: &[u8]) -> Understood {
    let (requests, bodies) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let service = service_fn(|request: Request<Incoming>| {
        let bodies = bodies.clone();
        requests.set(requests.get() + 1);
        async move {
            if request.into_body().collect().await.is_ok() {
                bodies.set(bodies.get() + 1);
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut connection = hyper::server::conn::http1::Builder::new().serve_connection(Sent(stream.to_vec()), service);
    let end = (0..1_000).find_map(|_| (&mut connection).now_or_never());
    Understood {
        requests: requests.get(),
        bodies: bodies.get(),
        closed: end.is_some(),
        failed: end.is_some_and(|end| end.is_err()),
    }
}

#[test]
fn hyper_finds_the_same_messages_in_what_passes() {
    let messages_count = Cell::new(0);
    for_each_mutation(10_000, |_, stream| {
        let outcome = feed(Limits::default(), [stream]);
        let understood = understood_by_hyper(&stream[..outcome.passed]);
        // hyper closes by itself after HTTP/1.0 and `Connection: close`, and then does not look at what follows.
        let expected =
            if understood.closed { 1..=outcome.heads_count } else { outcome.heads_count..=outcome.heads_count };
        assert!(expected.contains(&understood.requests), "{understood:?} {outcome:?} {}", stream.escape_ascii());
        assert!(!understood.failed, "{understood:?} {outcome:?} {}", stream.escape_ascii());
        if !understood.closed {
            let is_open = outcome.phase == Phase::Body;
            assert_eq!(understood.bodies + u64::from(is_open), outcome.heads_count, "{}", stream.escape_ascii());
        }
        messages_count.set(messages_count.get() + understood.bodies);
    });
    assert!(messages_count.get() > 5_000 || std::env::var("SEED").is_ok(), "only {} messages", messages_count.get());
}
