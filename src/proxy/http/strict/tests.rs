use std::hint::black_box;
use std::time::Instant;

use super::*;

mod bad;
mod fuzz;
mod good;

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    passed: usize,
    rejection: Option<Rejection>,
    heads_count: u64,
    phase: Phase,
}

/// Feeds the pieces as the connection task does: what is held back is shown again in front of the next piece.
fn feed<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut gate = Gate::new(limits);
    let mut held = Vec::new();
    let mut outcome = Outcome { passed: 0, rejection: None, heads_count: 0, phase: Phase::Idle };
    for piece in pieces {
        held.extend_from_slice(piece);
        let (len, rejection) = match gate.inspect(&held) {
            Verdict::Pass { len } => (len, None),
            Verdict::Reject { after, rejection } => (after, Some(rejection)),
        };
        outcome =
            Outcome { passed: outcome.passed + len, rejection, heads_count: gate.heads_count(), phase: gate.phase() };
        if rejection.is_some() {
            break;
        }
        held.drain(..len);
    }
    outcome
}

/// Feeds `stream` whole, cut in two at every position, and byte by byte. It must make no difference.
fn feed_in_every_way(limits: Limits, stream: &[u8]) -> Outcome {
    let whole = feed(limits, [stream]);
    for cut in 1..stream.len() {
        let (front, back) = stream.split_at(cut);
        assert_eq!(feed(limits, [front, back]), whole, "cut at {cut}: {}", stream.escape_ascii());
    }
    assert_eq!(feed(limits, stream.chunks(1)), whole, "byte by byte: {}", stream.escape_ascii());
    whole
}

#[test]
fn nothing_passes_after_a_rejection() {
    let mut gate = Gate::new(Limits::default());
    let rejection = Rejection::RequestLine;
    assert_eq!(gate.inspect(b"GET /\r\n\r\n"), Verdict::Reject { after: 0, rejection });
    assert_eq!(gate.inspect(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Verdict::Reject { after: 0, rejection });
}

#[test]
fn incomplete_head_is_held_back_behind_a_complete_one() {
    let mut gate = Gate::new(Limits::default());
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HT";
    assert_eq!(gate.inspect(bytes), Verdict::Pass { len: 27 });
    assert_eq!(gate.phase(), Phase::Head);
    assert_eq!(gate.inspect(b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"), Verdict::Pass { len: 28 });
    assert_eq!(gate.heads_count(), 2);
}

#[test]
fn phase_follows_the_message() {
    let mut gate = Gate::new(Limits::default());
    let mut inspect = |bytes: &[u8]| {
        let verdict = gate.inspect(bytes);
        (verdict, gate.phase())
    };
    let pass = |len| Verdict::Pass { len };
    assert_eq!(inspect(b""), (pass(0), Phase::Idle));
    assert_eq!(inspect(b"\r\n"), (pass(0), Phase::Idle));
    assert_eq!(inspect(b"\r\nP"), (pass(0), Phase::Head));
    assert_eq!(inspect(b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"), (pass(51), Phase::Body));
    assert_eq!(inspect(b"c"), (pass(1), Phase::Idle));
    assert_eq!(inspect(b"P"), (pass(0), Phase::Head));
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(inspect(chunked), (pass(56), Phase::Body));
    assert_eq!(inspect(b"0\r\n"), (pass(3), Phase::Body));
    assert_eq!(inspect(b"\r\n"), (pass(2), Phase::Idle));
}

#[test]
fn phase_of_a_rejection_is_where_the_bad_byte_fell() {
    let phase = |stream: &[u8]| feed(Limits::default(), [stream]).phase;
    assert_eq!(phase(b"GET /\r\n\r\n"), Phase::Head);
    assert_eq!(phase(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"), Phase::Body);
}

#[test]
fn tls_handshake_is_refused_at_its_first_byte() {
    let mut gate = Gate::new(Limits::default());
    let rejection = Rejection::Method;
    assert_eq!(gate.inspect(b"\x16"), Verdict::Reject { after: 0, rejection });
}

#[test]
fn reasons_are_words_and_unique() {
    let mut reasons: Vec<_> = Rejection::ALL.iter().map(|rejection| rejection.reason()).collect();
    assert!(
        reasons.iter().all(|reason| reason.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit()))
    );
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), Rejection::ALL.len());
}

const CURL: &[u8] =
    b"GET /api/items?page=2 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\
    X-Request-Id: 8c1f6a0e-2b7d-4f0a-9b1e-2f6f0f5f3d11\r\n\r\n";
const BROWSER: &[u8] = b"GET /static/app.js HTTP/1.1\r\nHost: shop.example.com\r\nConnection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: */*\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.example.com/\r\nCookie: BATON=AwoBAgMEBQYHCAkK; theme=dark; consent=1\r\n\
    Sec-Fetch-Mode: no-cors\r\n\r\n";

/// Run with `cargo test --release --lib strict -- --ignored --nocapture`.
#[test]
#[ignore = "measurement"]
fn nanoseconds_a_head() {
    for (name, head) in
        [("wrk", &b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"[..]), ("curl", CURL), ("browser", BROWSER)]
    {
        const ROUNDS: u32 = 1_000_000;
        let mut gate = Gate::new(Limits::default());
        let best = (0..7)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..ROUNDS {
                    assert_eq!(gate.inspect(black_box(head)), Verdict::Pass { len: head.len() });
                }
                start.elapsed() / ROUNDS
            })
            .min()
            .unwrap();
        let parse = Instant::now();
        for _ in 0..ROUNDS {
            let mut headers = [httparse::EMPTY_HEADER; 100];
            assert!(httparse::Request::new(&mut headers).parse(black_box(head)).unwrap().is_complete());
        }
        let parse = parse.elapsed() / ROUNDS;
        eprintln!("{name}: {} bytes, {best:?} a head (httparse: {parse:?})", head.len());
    }
}
