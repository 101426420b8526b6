//! The checks of the fuzz targets in `tests/fuzz`, on seeded mutations of their samples: in every run of the tests, and
//! without a nightly compiler. A failure prints its seed; `BATON_SEED=n` replays it alone. `BATON_INPUTS=10000000` tries
//! that many of each, 50,000 if not told.

#![allow(clippy::panic, clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)] // a test fails by panicking

#[path = "fuzz/checks/mod.rs"]
mod checks;

use fastrand::Rng;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Puts samples together and damages them; `splinters` are pieces that mean something.
fn mutated(random: &mut Rng, samples: &[&[u8]], splinters: &[&[u8]]) -> Vec<u8> {
    let mut data = samples[random.usize(..samples.len())].to_vec();
    for _ in 0..random.usize(0..8) {
        let at = random.usize(0..=data.len());
        let end = (at + random.usize(0..12)).min(data.len());
        match random.u8(0..6) {
            0 | 1 => drop(data.splice(at..at, splinters[random.usize(..splinters.len())].iter().copied())),
            2 => drop(data.splice(at..end, splinters[random.usize(..splinters.len())].iter().copied())),
            3 => drop(data.drain(at..end)),
            4 => {
                let copied = data[at..end].to_vec();
                drop(data.splice(at..at, copied));
            }
            _ => data.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.u8(0..8)),
        }
    }
    data
}

fn run(samples: &[&[u8]], splinters: &[&[u8]], check: fn(&[u8])) {
    for sample in samples {
        check(sample);
    }
    let inputs = number("BATON_INPUTS").unwrap_or(50_000);
    let seeds = number("BATON_SEED").map_or(0..inputs, |seed| seed..seed + 1);
    for seed in seeds {
        let data = mutated(&mut Rng::with_seed(seed), samples, splinters);
        let result = std::panic::catch_unwind(|| check(&data));
        assert!(result.is_ok(), "replay: BATON_SEED={seed}; the input is {}", data.escape_ascii());
    }
}

#[test]
fn routes() {
    let splinters: &[&[u8]] = &[
        b"/", b"//", b"/../", b"/./", b"..", b".", b"%2e", b"%2E%2e", b"%2f", b"%2F", b"%5c", b"\\", b";", b";a=b",
        b"%3b", b"%3f", b"%23", b"%25", b"%", b"%00", b"%c0%ae", b"admin", b"/admin", b"files", b".php", b"\n", b"%61",
        b"?", b" ",
    ];
    run(checks::route::SAMPLES, splinters, checks::route::check);
}

#[test]
fn cookies() {
    let splinters: &[&[u8]] = &[
        b";",
        b"; ",
        b"=",
        b"\"",
        b"BATON",
        b"BATON=",
        b"; BATON=",
        b"Max-Age=0",
        b"; Expires= 1970 ",
        b"\t",
        b" ",
        b"\0",
        b"f77724814e9d4c5b",
        b"0",
        b"A",
    ];
    run(checks::cookie::SAMPLES, splinters, checks::cookie::check);
}

#[test]
fn forwarded() {
    run(checks::forwarded::SAMPLES, checks::forwarded::SPLINTERS, checks::forwarded::check);
}

#[test]
fn proxy_protocol() {
    run(checks::proxy_protocol::SAMPLES, checks::proxy_protocol::SPLINTERS, checks::proxy_protocol::check);
}

#[test]
fn session_frame() {
    run(checks::session_frame::SAMPLES, checks::session_frame::SPLINTERS, checks::session_frame::check);
}

#[test]
fn vrrp_packet() {
    run(checks::vrrp_packet::SAMPLES, checks::vrrp_packet::SPLINTERS, checks::vrrp_packet::check);
}
