//! Random routes and requests: the table must find what trying one route after the other finds, and no spelling of a path
//! may take another route than the path. A failure prints its seed; `SEED=n` replays it alone.

use fastrand::Rng;

use super::super::path::{self, Buffers};
use super::*;
use crate::config::expression;

/// Pieces of paths: few, so that routes and requests meet, and those that have meant different things to different readers.
const PIECES: [&str; 30] = [
    "a", "b", "ab", "admin", "/", "/", "/", "//", ".", "..", "/../", "/./", "%61", "%2e", "%2E%2e", "%2f", "%2F",
    "%5c", "\\", ";", ";x=1", "%3b", "%3f", "%23", "%25", "%252f", "%00", "%", "%c3%a9", "%c0%ae",
];

const HOSTS: [&str; 6] = ["a.example", "b.a.example", "example", "c.example", "x.b.a.example", "other.test"];

fn for_each_seed(seeds: u64, check: impl Fn(&mut Rng)) {
    struct Announce(u64);
    impl Drop for Announce {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with SEED={}", self.0);
            }
        }
    }
    let only: Option<u64> = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in only.map_or(0..seeds, |seed| seed..seed + 1) {
        let _announce = Announce(seed);
        check(&mut Rng::with_seed(seed));
    }
}

fn path_of(rng: &mut Rng) -> String {
    let pieces: String = (0..rng.usize(0..8)).map(|_| PIECES[rng.usize(..PIECES.len())]).collect();
    format!("/{pieces}")
}

/// A path as the configuration would have it.
fn written(rng: &mut Rng) -> String {
    const SEGMENTS: [&str; 5] = ["a", "b", "ab", "admin", "%C3%A9"];
    (0..rng.usize(1..4)).map(|_| format!("/{}", SEGMENTS[rng.usize(..SEGMENTS.len())])).collect()
}

fn random_routes(rng: &mut Rng) -> Vec<(HostMatch, PathMatch)> {
    let host = |rng: &mut Rng| HOSTS[rng.usize(..HOSTS.len())].to_owned();
    let one = |rng: &mut Rng| {
        let matched = match rng.u8(..3) {
            0 => HostMatch::Any,
            1 => HostMatch::Exact(host(rng)),
            _ => HostMatch::Below(host(rng)),
        };
        let path = match rng.u8(..5) {
            0 => PathMatch::Any,
            1 => PathMatch::Exact(if rng.bool() { written(rng) + "/" } else { written(rng) }),
            2 => PathMatch::Regex(["^/a", "b$", "admin"][rng.usize(..3)].to_owned()),
            _ => PathMatch::Prefix(written(rng)),
        };
        (matched, path)
    };
    (0..rng.usize(0..12)).map(|_| one(rng)).collect()
}

/// The plain way: one route after the other, on a path that is read already.
fn one_by_one(routes: &[(HostMatch, PathMatch)], host: &str, path: Option<&[u8]>) -> Option<usize> {
    let decoded = |written: &str| {
        let mut buffers = Buffers::default();
        path::read(written, &mut buffers).unwrap().path.to_vec()
    };
    routes.iter().position(|(wanted, matched)| {
        let host_matches = match wanted {
            HostMatch::Any => true,
            HostMatch::Exact(wanted) => host == wanted,
            HostMatch::Below(wanted) => host.strip_suffix(wanted).is_some_and(|rest| rest.ends_with('.')),
        };
        let path_matches = match (matched, path) {
            (PathMatch::Any, _) => true,
            (_, None) => false,
            (PathMatch::Exact(wanted), Some(path)) => decoded(wanted) == path,
            (PathMatch::Prefix(wanted), Some(path)) => {
                path.strip_prefix(decoded(wanted).as_slice()).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
            }
            (PathMatch::Regex(wanted), Some(path)) => expression(wanted).unwrap().is_match(path),
        };
        host_matches && path_matches
    })
}

#[test]
fn the_table_finds_what_trying_one_after_the_other_finds() {
    let hits = std::cell::Cell::new(0);
    for_each_seed(20_000, |rng| {
        let routes = random_routes(rng);
        let table = table(&routes);
        let host = HOSTS[rng.usize(..HOSTS.len())];
        let path = path_of(rng);
        let has_paths = routes.iter().any(|(_, path)| *path != PathMatch::Any);
        let mut buffers = Buffers::default();
        let expected = match path::read(&path, &mut buffers) {
            _ if !has_paths => Ok(one_by_one(&routes, host, None)),
            Err(refusal) => Err(refusal),
            Ok(reading) => {
                let found = one_by_one(&routes, host, Some(reading.path));
                match reading.wide {
                    Some(wide) if one_by_one(&routes, host, Some(wide)) != found => Err(Refusal::TwoReadings),
                    _ => Ok(found),
                }
            }
        };
        assert_eq!(find(&table, host, &path), expected, "{host}{path} {routes:?}");
        hits.set(hits.get() + u32::from(matches!(expected, Ok(Some(_)))));
    });
    assert!(hits.get() > 3_000 || std::env::var("SEED").is_ok(), "only {} requests took a route", hits.get());
}

/// One way that a careless reader might take: which of the things that are not clear it resolves.
struct Reader {
    splits_escaped: bool,
    splits_backslashes: bool,
    cuts_parameters: bool,
    cuts_escaped_parameters: bool,
    merges_slashes: bool,
}

impl Reader {
    fn any(rng: &mut Rng) -> Self {
        Self {
            splits_escaped: rng.bool(),
            splits_backslashes: rng.bool(),
            cuts_parameters: rng.bool(),
            cuts_escaped_parameters: rng.bool(),
            merges_slashes: rng.bool(),
        }
    }

    /// The segments that it sees in a path without dot segments.
    fn segments(&self, path: &str) -> Vec<Vec<u8>> {
        let mut text = path.to_owned();
        if self.splits_escaped {
            text = text.replace("%2f", "/").replace("%2F", "/");
        }
        if self.splits_backslashes {
            text = text.replace("%5c", "/").replace('\\', "/");
        }
        if self.cuts_escaped_parameters {
            text = text.replace("%3b", ";");
        }
        let segments = text.split('/').skip(1);
        let cut = |segment: &str| {
            let cuts = self.cuts_parameters || self.cuts_escaped_parameters;
            let name = if cuts { segment.split(';').next().unwrap() } else { segment };
            decoded(name)
        };
        segments.map(cut).filter(|segment| !self.merges_slashes || !segment.is_empty()).collect()
    }
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = after;
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    bytes
}

#[test]
fn a_reader_who_sees_a_protected_path_never_gets_it_by_another_route() {
    let protected = std::cell::Cell::new(0);
    let table = table(&[(HostMatch::Any, prefix("/admin")), (HostMatch::Any, PathMatch::Any)]);
    for_each_seed(100_000, |rng| {
        let mut path = path_of(rng);
        if rng.bool() {
            path = path.replacen("a", "admin", 1);
        }
        let headers = HeaderMap::new();
        let asked = Asked { host: "", path: &path, query: "", method: "GET", headers: &headers, ip: NOBODY };
        let Ok(found) = table.find(&asked, &mut Scratch::default()) else { return };
        let sent = found.path.unwrap_or_else(|| path.clone());
        let reader = Reader::any(rng);
        let segments = reader.segments(&sent);
        let dots = |segment: &&Vec<u8>| matches!(segment.as_slice(), b"." | b"..");
        assert_eq!(segments.iter().find(dots), None, "{path} is sent as {sent}");
        if segments.first().is_some_and(|first| first == b"admin") {
            protected.set(protected.get() + 1);
            assert_eq!(found.route, Some(0), "{path} is sent as {sent}");
        }
    });
    assert!(protected.get() > 500 || std::env::var("SEED").is_ok(), "only {} were protected", protected.get());
}
