//! The annotated reference says every key there is, and defaults that are real.

use std::path::Path;

use baton::config::{Config, parse};

use super::rules::{PAIR, TRAFFIC, mistakes, vip};

const REFERENCE: &str = include_str!("../../config/baton.toml");

fn good(text: &str) -> Config {
    parse(text, Path::new("/etc/baton/baton.toml")).unwrap_or_else(|report| panic!("{report}"))
}

/// Everything but the checksum of the text.
fn meaning(text: &str) -> Config {
    Config { checksum: String::new(), ..good(text) }
}

#[test]
fn a_default_that_the_reference_shows_is_what_holds_without_it() {
    let original = meaning(REFERENCE);
    let mut tried = 0;
    for (index, line) in REFERENCE.lines().enumerate() {
        let Some(shown) = line.strip_prefix('#').filter(|shown| shown.starts_with(|c: char| c.is_ascii_lowercase()))
        else {
            continue;
        };
        // What is no single value: it depends, or there is none.
        if shown.contains("default:") || shown.starts_with("advert_keys") || shown.starts_with("host") {
            continue;
        }
        tried += 1;
        let lines = REFERENCE.lines().enumerate().map(|(at, line)| if at == index { shown } else { line });
        let text = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(meaning(&text), original, "line {}: {line}", index + 1);
    }
    assert!(tried > 25, "only {tried} defaults were tried");
}

/// The keys of a block, as the answer to an unknown one lists them.
fn keys_of(text: &str) -> Vec<String> {
    let found = mistakes(text);
    let answer = found.iter().find(|found| found.key.ends_with("zzqqzzqq")).expect("the key is unknown");
    let keys = answer.remedy.strip_prefix("remove it; the keys here are ").expect("the answer lists the keys");
    keys.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_reference_has_every_key() {
    let in_vip = |rest: &str| vip("[\"192.0.2.9/24\"]", &format!("virtual_router_id = 1\n{rest}")) + PAIR;
    let in_listener = |rest: &str| {
        format!("[[listener]]\nname = \"x\"\nbind = [\"192.0.2.1:81\"]\npool = \"app\"\n{rest}\n{TRAFFIC}")
    };
    let in_pool = |rest: &str| format!("[[pool]]\nname = \"p\"\n{rest}\n{TRAFFIC}");
    let in_route = |rest: &str| format!("[[route]]\nlistener = \"web\"\n{rest}\n{TRAFFIC}");
    let blocks = [
        format!("zzqqzzqq = 1\n{TRAFFIC}"),
        format!("[[node]]\nzzqqzzqq = 1\n{TRAFFIC}"),
        format!("[pair]\nzzqqzzqq = 1\n{TRAFFIC}"),
        format!("[pair]\nadvert_keys = [{{ zzqqzzqq = 1 }}]\n{TRAFFIC}"),
        in_vip("zzqqzzqq = 1"),
        in_vip("announce = { zzqqzzqq = 1 }"),
        vip("[{ zzqqzzqq = 1 }]", "") + PAIR,
        in_vip("[[fitness]]\nname = \"f\"\nzzqqzzqq = 1"),
        format!("[events]\nzzqqzzqq = 1\n{TRAFFIC}"),
        in_listener("zzqqzzqq = 1"),
        in_listener("rate_limit = { zzqqzzqq = 1 }"),
        in_listener("rate_limit = { by = \"header\", zzqqzzqq = 1 }"),
        in_listener("rate_limits = [{ zzqqzzqq = 1 }]"),
        in_listener("connection_rate = { zzqqzzqq = 1 }"),
        in_listener("connections_per_address_max = { zzqqzzqq = 1 }"),
        in_listener("tls = { zzqqzzqq = 1 }"),
        in_listener("accept_proxy = { zzqqzzqq = 1 }"),
        in_listener("forwarded = { zzqqzzqq = 1 }"),
        in_listener("request_id = { zzqqzzqq = 1 }"),
        in_listener("basic_auth = { zzqqzzqq = 1 }"),
        in_listener("authorize = { zzqqzzqq = 1 }"),
        in_listener("authorize = { url = \"https://10.0.0.9/\", tls = { zzqqzzqq = 1 } }"),
        in_listener("tls = { certificates = [{ zzqqzzqq = 1 }] }"),
        format!("[[route]]\nzzqqzzqq = 1\n{TRAFFIC}"),
        in_route("headers = [{ zzqqzzqq = 1 }]"),
        in_route("pools = [{ zzqqzzqq = 1 }]"),
        in_route("redirect = { zzqqzzqq = 1 }"),
        in_route("respond = { zzqqzzqq = 1 }"),
        in_route("maintenance = { zzqqzzqq = 1 }"),
        in_route("rewrite = { zzqqzzqq = 1 }"),
        in_route("rewrite = { replace = { zzqqzzqq = 1 } }"),
        in_route("request_headers = { zzqqzzqq = 1 }"),
        in_route("mirror = { zzqqzzqq = 1 }"),
        in_pool("zzqqzzqq = 1"),
        in_pool("servers = [{ zzqqzzqq = 1 }]"),
        in_pool("queue = { zzqqzzqq = 1 }"),
        in_pool("health = { zzqqzzqq = 1 }"),
        in_pool("discovery = { type = \"dns\", zzqqzzqq = 1 }"),
        in_pool("discovery = { type = \"consul\", zzqqzzqq = 1 }"),
        in_pool("discovery = { type = \"file\", zzqqzzqq = 1 }"),
        in_pool("discovery = { type = \"http\", zzqqzzqq = 1 }"),
        in_pool("health = { type = \"tls\", tls = {}, zzqqzzqq = 1 }"),
        in_pool("health = { type = \"dns\", zzqqzzqq = 1 }"),
        in_pool("health = { type = \"mysql\", user = \"u\", zzqqzzqq = 1 }"),
        in_pool("health = { type = \"command\", zzqqzzqq = 1 }"),
        in_pool("agent = { port = 1, zzqqzzqq = 1 }"),
        in_pool("http2 = { zzqqzzqq = 1 }"),
        in_pool("outliers = { zzqqzzqq = 1 }"),
        in_pool("breaker = { zzqqzzqq = 1 }"),
        in_pool("server_breaker = { zzqqzzqq = 1 }"),
        in_pool("retries = { zzqqzzqq = 1 }"),
        in_pool("tls = { zzqqzzqq = 1 }"),
        in_pool("tls = { certificate = { zzqqzzqq = 1 } }"),
        in_pool("sticky = { zzqqzzqq = 1 }"),
        format!("[sessions]\nzzqqzzqq = 1\nstore = \"redis://a\"\n{TRAFFIC}"),
        format!("[admin]\nzzqqzzqq = 1\n{TRAFFIC}"),
        format!("[access_log]\nzzqqzzqq = 1\n{TRAFFIC}"),
        in_listener("access_log = { zzqqzzqq = 1 }"),
        in_listener("compression = { zzqqzzqq = 1 }"),
        in_pool("compression = { zzqqzzqq = 1 }"),
        format!("[worker]\nzzqqzzqq = 1\n{TRAFFIC}"),
    ];
    let mut count = 0;
    for block in blocks {
        for key in keys_of(&block) {
            let is_there = [format!("{key} = "), format!("[{key}]"), format!(".{key}]")]
                .iter()
                .any(|written| REFERENCE.contains(written.as_str()));
            assert!(is_there, "{key} is not in the reference\n{block}");
            count += 1;
        }
    }
    assert!(count > 80, "only {count} keys were asked for");
}
