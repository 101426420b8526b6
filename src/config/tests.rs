//! Behaviour of the whole: text in, `Config` or `Report` out. One entry a rule is in `tests/check.rs`.

use std::path::Path;
use std::time::Duration;

use super::*;

const MINIMAL: &str = r#"
[[listener]]
name = "web"
bind = ["0.0.0.0:80"]
pool = "app"

[[pool]]
name = "app"
servers = [{ name = "app1", address = "10.0.0.1:8080" }]
"#;

fn good(text: &str) -> Config {
    parse(text, Path::new("/etc/baton/baton.toml")).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = good(MINIMAL);
    assert_eq!(config.nodes, []);
    assert_eq!(config.pair, Pair { key_file: None, sync_port: 7947, advert_keys: Vec::new(), witness: None });
    let listener = &config.listeners[0];
    assert_eq!(listener.protocol, Protocol::Http);
    assert_eq!(listener.pool, Some(PoolIndex(0)));
    assert_eq!(listener.head_timeout, Duration::from_secs(10));
    assert_eq!(listener.idle_timeout, Duration::from_secs(60));
    assert_eq!(listener.connections_max, 10_000);
    let pool = &config.pools[0];
    assert_eq!((&pool.health, &pool.sticky), (&None, &None));
    assert_eq!(pool.connect_timeout, Duration::from_secs(3));
    assert_eq!(pool.response_timeout, Duration::from_secs(30));
    assert_eq!(pool.idle_timeout, Duration::from_secs(30));
    assert_eq!(pool.idle_connections_max, 64);
    assert_eq!(config.worker.probe_interval, Duration::from_millis(50));
    assert_eq!(config.worker.probe_timeout, Duration::from_millis(200));
    assert_eq!(config.worker.drain_timeout, Duration::from_secs(10));
    assert_eq!(config.worker.user, None);
}

#[test]
fn defaults_of_a_pair_and_its_vips() {
    let config = good(
        r#"
[[node]]
name = "lb-a"
address = "192.0.2.11"
[[node]]
name = "lb-b"
address = "192.0.2.12"
[pair]
key_file = "pair.key"
[[vip]]
name = "web"
addresses = ["192.0.2.100/24"]
interface = "eth0"
virtual_router_id = 51
prefer = "lb-b"
"#,
    );
    assert_eq!(config.nodes.iter().map(|node| node.priority.get()).collect::<Vec<_>>(), [250, 249]);
    assert_eq!(config.pair.key_file.as_deref(), Some(Path::new("/etc/baton/pair.key")));
    let vip = &config.vips[0];
    assert_eq!(vip.advert_interval.get(), Duration::from_millis(100));
    assert_eq!(vip.transport, Transport::Unicast);
    assert_eq!(vip.prefer, Some(1));
    assert_eq!(config.node_named("lb-b"), Some(1));
    assert_eq!(config.node_named("lb-c"), None);
}

#[test]
fn defaults_of_health_and_sticky() {
    let config = good(&format!("{MINIMAL}[pool.health]\n[pool.sticky]\n"));
    let health = config.pools[0].health.as_ref().expect("the block is there");
    assert_eq!(health.check, Check::Http { path: "/".to_owned(), host: None });
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(2), Duration::from_secs(1)));
    assert_eq!((health.fall, health.rise), (3, 2));
    assert_eq!(config.pools[0].sticky, Some(Sticky::Cookie { name: "BATON".to_owned(), ttl: None }));
}

#[test]
fn the_default_health_timeout_follows_a_short_interval() {
    let config = good(&format!("{MINIMAL}[pool.health]\ninterval = \"200ms\"\n"));
    let health = config.pools[0].health.as_ref().expect("the block is there");
    assert_eq!(health.timeout, Duration::from_millis(200));
}

#[test]
fn routes_are_tried_with_a_host_first_then_by_longer_path_then_as_in_the_file() {
    let route = |host: &str, prefix: &str| {
        let host = if host.is_empty() { String::new() } else { format!("host = \"{host}\"\n") };
        let prefix = if prefix.is_empty() { String::new() } else { format!("path_prefix = \"{prefix}\"\n") };
        format!("[[route]]\nlistener = \"web\"\npool = \"app\"\n{host}{prefix}")
    };
    let routes = [
        route("", ""),
        route("", "/a"),
        route("B.example", ""),
        route("", "/a/b/"),
        route("a.example", ""),
        route("a.example", "/a"),
    ];
    let config = good(&format!("{MINIMAL}{}", routes.concat()));
    let order: Vec<_> = config.listeners[0]
        .routes
        .iter()
        .map(|route| (route.host.as_deref().unwrap_or(""), route.path_prefix.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(order, [("a.example", "/a"), ("b.example", ""), ("a.example", ""), ("", "/a/b"), ("", "/a"), ("", "")]);
}

#[test]
fn checksum_is_sha_256_in_lower_case_hex() {
    assert_eq!(checksum(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(good(MINIMAL).checksum, checksum(MINIMAL.as_bytes()));
}

#[test]
fn warnings_name_pools_that_nothing_uses() {
    let config = good(&format!(
        "{MINIMAL}[[pool]]\nname = \"spare\"\nservers = [{{ name = \"a\", address = \"10.0.0.9:80\" }}]\n"
    ));
    assert_eq!(config.warnings(), ["pool spare is used by no listener and no route"]);
}

#[test]
fn an_error_of_syntax_does_not_hide_mistakes_elsewhere() {
    let text = MINIMAL.replace("name = \"web\"", "name = \"web").replace("10.0.0.1:8080", "10.0.0.1");
    let report = parse(&text, Path::new("f")).expect_err("two mistakes are in it");
    let lines: Vec<_> = report.mistakes().iter().filter_map(|at| at.position.as_ref()).map(|at| at.line).collect();
    assert_eq!(lines, [3, 9], "{report}");
}

#[test]
fn no_edit_of_the_reference_makes_the_reader_panic() {
    let original = include_str!("../../config/baton.toml");
    let fragments = [
        "[",
        "]",
        "[[",
        "\"",
        "=",
        "{",
        "}",
        "\n",
        ",",
        "#",
        ".",
        "'''",
        "\"\"\"",
        "\u{0}",
        "é",
        "-1",
        "9999999999999999999999999999999999999999999",
        "[[pool]]\n",
        "[pool.health]\n",
        "0x",
        "1e9",
    ];
    let seed = std::env::var("BATON_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("BATON_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..3000 {
        let mut text: Vec<char> = original.chars().collect();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..text.len());
            let end = (at + random.usize(..40)).min(text.len());
            match random.u8(..4) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, fragments[random.usize(..fragments.len())].chars())),
                2 => drop(text.splice(at..end, fragments[random.usize(..fragments.len())].chars())),
                _ => {
                    let copied = text[at..end].to_vec();
                    let to = random.usize(..text.len());
                    text.splice(to..to, copied);
                }
            }
            if text.is_empty() {
                text.push('\n');
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(report) = parse(&text, Path::new("f")) {
            assert!(!report.mistakes().is_empty());
            assert!(!report.to_string().contains("report this file"), "seed {seed}: {report}\n{text}");
        }
    }
}
