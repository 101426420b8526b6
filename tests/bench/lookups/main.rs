//! What it costs to find a request's route among 10, 100 and 1,000, by host, prefix, exact path and expression: at most 2 µs
//! among 1,000 hosts. Run it with `cargo bench --bench lookups`.
//!
//! Each route is asked for as often as any other, in an order that nothing is won by.

#![allow(clippy::panic, clippy::indexing_slicing, missing_docs, reason = "a bench may end itself")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use baton::proxy::http::route::{Asked, Scratch, Table};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::HeaderMap;

const SITE: &str = r#"
[[listener]]
name = "web"
bind = ["192.0.2.1:80"]
pool = "app"
[[pool]]
name = "app"
servers = [{ name = "app1", address = "192.0.2.2:80" }]
"#;

/// Routes that each match one number, and requests for a number.
struct Kind {
    name: &'static str,
    route: fn(usize) -> String,
    host: fn(usize) -> String,
    path: fn(usize) -> String,
}

const SHOP: fn(usize) -> String = |_| "shop.example".to_owned();
const ITEM: fn(usize) -> String = |_| "/items/7".to_owned();

const KINDS: [Kind; 6] = [
    Kind {
        name: "host",
        route: |number| format!("host = \"h{number}.example\""),
        host: |number| format!("h{number}.example"),
        path: ITEM,
    },
    Kind {
        name: "wildcard host",
        route: |number| format!("host = \"*.h{number}.example\""),
        host: |number| format!("www.h{number}.example"),
        path: ITEM,
    },
    Kind {
        name: "prefix",
        route: |number| format!("path_prefix = \"/api/p{number}\""),
        host: SHOP,
        path: |number| format!("/api/p{number}/items/7"),
    },
    Kind {
        name: "exact path",
        route: |number| format!("path = \"/api/p{number}/x\""),
        host: SHOP,
        path: |number| format!("/api/p{number}/x"),
    },
    Kind {
        name: "expression",
        route: |number| format!("path_regex = '^/api/p{number}/[0-9]+$'"),
        host: SHOP,
        path: |number| format!("/api/p{number}/77"),
    },
    Kind {
        name: "host and expression",
        route: |number| format!("host = \"h{number}.example\"\npath_regex = '^/api/[0-9]+$'"),
        host: |number| format!("h{number}.example"),
        path: |_| "/api/77".to_owned(),
    },
];

fn table(kind: &Kind, count: usize) -> Table {
    let mut text = SITE.to_owned();
    for number in 0..count {
        let _written = write!(text, "[[route]]\nlistener = \"web\"\npool = \"app\"\n{}\n", (kind.route)(number));
    }
    let config = baton::config::parse(&text, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    Table::new(&config.listeners[0].routes)
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    let headers = HeaderMap::new();
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for kind in &KINDS {
        for count in [10, 100, 1_000] {
            let table = table(kind, count);
            let asked: Vec<_> = (0..count).map(|number| ((kind.host)(number), (kind.path)(number))).collect();
            let mut scratch = Scratch::default();
            let mut number = 0;
            group.bench_function(BenchmarkId::new(kind.name, count), |bencher| {
                bencher.iter(|| {
                    // Coprime to each count, so that all are asked for, in no order that memory could foresee.
                    number = (number + 37) % count;
                    let (host, path) = &asked[number];
                    let asked = Asked { host, path, query: "", method: "GET", headers: &headers, ip };
                    let found = table.find(black_box(&asked), &mut scratch);
                    assert!(found.is_ok_and(|found| found.route.is_some()));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
