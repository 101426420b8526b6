//! Tables of what matches, the order, every spelling of a path, and what a look-up costs.

mod fuzz;
mod paths;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::config::{FieldMatch, HeaderEdits, PoolIndex, Rewrite, Route, RouteAction, RouteMatch, ValueMatch};

fn route(matches: RouteMatch) -> Route {
    Route {
        label: String::new(),
        matches,
        priority: 0,
        action: RouteAction::Pool(PoolIndex(0)),
        maintenance: None,
        rewrite: Rewrite::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        mirror: None,
        access: crate::config::RouteAccess::default(),
        rate_limits: Vec::new(),
    }
}

fn exact_host(host: &str) -> HostMatch {
    HostMatch::Exact(host.to_owned())
}

fn below(host: &str) -> HostMatch {
    HostMatch::Below(host.to_owned())
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.to_owned())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.to_owned())
}

fn regex(path: &str) -> PathMatch {
    PathMatch::Regex(path.to_owned())
}

/// Routes by host and path alone, tried in this order.
fn table(routes: &[(HostMatch, PathMatch)]) -> Table {
    let route = |(host, path): &(HostMatch, PathMatch)| {
        route(RouteMatch { host: host.clone(), path: path.clone(), ..RouteMatch::default() })
    };
    Table::new(&routes.iter().map(route).collect::<Vec<_>>())
}

const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn find(table: &Table, host: &str, path: &str) -> Result<Option<usize>, Refusal> {
    let headers = HeaderMap::new();
    let asked = Asked { host, path, query: "", method: "GET", headers: &headers, ip: NOBODY };
    table.find(&asked, &mut Scratch::default()).map(|found| found.route)
}

#[test]
fn hosts_match_in_any_case_with_a_dot_at_the_end_or_without() {
    let table = table(&[
        (exact_host("shop.example"), PathMatch::Any),
        (below("shop.example"), PathMatch::Any),
        (below("example"), PathMatch::Any),
    ]);
    let found = |host: &str| find(&table, host, "/").unwrap();
    assert_eq!(found("shop.example"), Some(0));
    assert_eq!(found("SHOP.Example."), Some(0));
    assert_eq!(found("a.shop.example"), Some(1));
    assert_eq!(found("a.b.Shop.example"), Some(1));
    assert_eq!(found("other.example"), Some(2));
    assert_eq!(found("example"), None);
    assert_eq!(found("shop.example.org"), None);
    assert_eq!(found(".shop.example"), Some(1));
    assert_eq!(found(""), None);
    assert_eq!(found("["), None);
    assert_eq!(found(&format!("{}.shop.example", "a".repeat(240))), Some(1));
    assert_eq!(found(&format!("{}.shop.example", "a".repeat(241))), None);
}

#[test]
fn paths_match_whole_or_by_whole_segments_or_anywhere() {
    let table = table(&[
        (HostMatch::Any, exact("/a")),
        (HostMatch::Any, exact("/a/")),
        (HostMatch::Any, exact("/")),
        (HostMatch::Any, prefix("/a/b")),
        (HostMatch::Any, prefix("/a")),
        (HostMatch::Any, regex(r"\.php$")),
    ]);
    let found = |path: &str| find(&table, "", path).unwrap();
    assert_eq!(found("/a"), Some(0));
    assert_eq!(found("/a/"), Some(1));
    assert_eq!(found("/"), Some(2));
    assert_eq!(found("/a/b"), Some(3));
    assert_eq!(found("/a/b/c/d"), Some(3));
    assert_eq!(found("/a/bc"), Some(4));
    assert_eq!(found("/A"), None);
    assert_eq!(found("/ab"), None);
    assert_eq!(found("/x/y.php"), Some(5));
    assert_eq!(found("/x/y.php/z"), None);
    assert_eq!(found("*"), None);
    assert_eq!(found(""), None);
}

#[test]
fn the_order_of_the_routes_decides_and_not_where_they_lie() {
    let any = || (HostMatch::Any, PathMatch::Any);
    let special = || (exact_host("a.example"), exact("/x"));
    assert_eq!(find(&table(&[any(), special()]), "a.example", "/x"), Ok(Some(0)));
    assert_eq!(find(&table(&[special(), any()]), "a.example", "/x"), Ok(Some(0)));
    assert_eq!(find(&table(&[special(), any()]), "a.example", "/y"), Ok(Some(1)));
    let mixed = [(HostMatch::Any, regex("x")), (below("example"), prefix("/x")), special()];
    assert_eq!(find(&table(&mixed), "a.example", "/x"), Ok(Some(0)));
    assert_eq!(find(&table(&mixed[1..]), "a.example", "/x"), Ok(Some(0)));
    assert_eq!(find(&table(&mixed[2..]), "a.example", "/x"), Ok(Some(0)));
}

#[test]
fn a_host_without_a_route_for_the_path_leaves_it_to_wider_hosts() {
    let table = table(&[
        (exact_host("a.example"), prefix("/x")),
        (below("example"), prefix("/y")),
        (HostMatch::Any, PathMatch::Any),
    ]);
    assert_eq!(find(&table, "a.example", "/x"), Ok(Some(0)));
    assert_eq!(find(&table, "a.example", "/y"), Ok(Some(1)));
    assert_eq!(find(&table, "a.example", "/z"), Ok(Some(2)));
}

fn field(name: &str, value: ValueMatch) -> Vec<FieldMatch> {
    vec![FieldMatch { name: name.to_owned(), value }]
}

/// Whether a route of these conditions matches a request.
fn matches(matches: RouteMatch, method: &str, query: &str, fields: &[(&'static str, &str)], ip: &str) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let asked = Asked { host: "a", path: "/", query, method, headers: &headers, ip: ip.parse().unwrap() };
    let found = Table::new(&[route(matches)]).find(&asked, &mut Scratch::default()).unwrap();
    found.route == Some(0)
}

#[test]
fn values_are_compared_as_the_condition_says() {
    let is = |value: ValueMatch, fields: &[(&'static str, &str)]| {
        matches(RouteMatch { headers: field("x-a", value), ..RouteMatch::default() }, "GET", "", fields, "::1")
    };
    let text = |text: &str| text.to_owned();
    assert!(is(ValueMatch::Present, &[("x-a", "")]));
    assert!(!is(ValueMatch::Present, &[("x-b", "1")]));
    assert!(is(ValueMatch::Absent, &[("x-b", "1")]));
    assert!(!is(ValueMatch::Absent, &[("x-a", "")]));
    assert!(is(ValueMatch::Exact(text("one")), &[("x-a", "two"), ("x-a", " one ")]));
    assert!(!is(ValueMatch::Exact(text("one")), &[("x-a", "One")]));
    assert!(!is(ValueMatch::Exact(text("one")), &[("x-a", "one, two")]));
    assert!(is(ValueMatch::Prefix(text("on")), &[("x-a", "one")]));
    assert!(!is(ValueMatch::Prefix(text("on")), &[("x-a", "no")]));
    assert!(is(ValueMatch::Regex(text("^o.e$")), &[("x-a", "one")]));
    assert!(!is(ValueMatch::Regex(text("^o.e$")), &[("x-a", "ones")]));
    assert!(!is(ValueMatch::Regex(text("(")), &[("x-a", "(")]));
}

#[test]
fn parameters_are_compared_with_their_escapes_resolved() {
    let is = |value: ValueMatch, query: &str| {
        matches(RouteMatch { query: field("user", value), ..RouteMatch::default() }, "GET", query, &[], "::1")
    };
    let one = || ValueMatch::Exact("a b".to_owned());
    assert!(is(one(), "user=a%20b"));
    assert!(is(one(), "x=1&%75ser=a+b&user=2"));
    assert!(!is(one(), "user=a&b"));
    assert!(!is(one(), "User=a%20b"));
    assert!(is(ValueMatch::Present, "user"));
    assert!(is(ValueMatch::Present, "&&user=&"));
    assert!(!is(ValueMatch::Present, "users=1"));
    assert!(is(ValueMatch::Absent, ""));
    assert!(is(ValueMatch::Absent, "x=user"));
    assert!(!is(ValueMatch::Absent, "us%65r"));
    assert!(is(ValueMatch::Exact("%zz%".to_owned()), "user=%zz%"));
}

#[test]
fn cookies_methods_and_sources_are_compared() {
    let cookie = || RouteMatch { cookies: field("beta", ValueMatch::Exact("1".to_owned())), ..RouteMatch::default() };
    assert!(matches(cookie(), "GET", "", &[("cookie", "a=2; beta=1")], "::1"));
    assert!(matches(cookie(), "GET", "", &[("cookie", "a=2"), ("cookie", "beta=1")], "::1"));
    assert!(!matches(cookie(), "GET", "", &[("cookie", "a=2; beta=2")], "::1"));
    let methods = || RouteMatch { methods: vec!["GET".to_owned(), "PUT".to_owned()], ..RouteMatch::default() };
    assert!(matches(methods(), "PUT", "", &[], "::1"));
    assert!(!matches(methods(), "HEAD", "", &[], "::1"));
    assert!(!matches(methods(), "get", "", &[], "::1"));
    let network = crate::units::IpNetwork::new("10.0.0.0".parse::<IpAddr>().unwrap(), 8).unwrap();
    let sources = || RouteMatch { sources: vec![network], ..RouteMatch::default() };
    assert!(matches(sources(), "GET", "", &[], "10.1.2.3"));
    assert!(matches(sources(), "GET", "", &[], "::ffff:10.1.2.3"));
    assert!(!matches(sources(), "GET", "", &[], "11.1.2.3"));
    let mut all = cookie();
    all.methods = methods().methods;
    all.sources = sources().sources;
    assert!(matches(all.clone(), "GET", "", &[("cookie", "beta=1")], "10.1.2.3"));
    assert!(!matches(all.clone(), "POST", "", &[("cookie", "beta=1")], "10.1.2.3"));
    assert!(!matches(all, "GET", "", &[("cookie", "beta=1")], "192.0.2.1"));
}

#[test]
fn routes_that_look_at_no_path_leave_paths_alone() {
    let table = table(&[(exact_host("a"), PathMatch::Any)]);
    for path in ["/%zz", "/..", "/a%00", "/x/../y"] {
        let headers = HeaderMap::new();
        let asked = Asked { host: "a", path, query: "", method: "GET", headers: &headers, ip: NOBODY };
        let expected = Found { route: Some(0), path: None };
        assert_eq!(table.find(&asked, &mut Scratch::default()), Ok(expected));
    }
}

/// A thousand routes as a large site has them: 100 hosts of 8 prefixes, 100 wildcards, 100 routes for any host.
fn thousand() -> Table {
    let hosts = (0..100).flat_map(|host| {
        (0..8).map(move |path| (exact_host(&format!("site{host}.example.com")), prefix(&format!("/area{path}/part"))))
    });
    let wildcards = (0..100).map(|host| (below(&format!("zone{host}.example.net")), PathMatch::Any));
    let any = (0..100).map(|path| (HostMatch::Any, exact(&format!("/common/{path}"))));
    table(&hosts.chain(wildcards).chain(any).collect::<Vec<_>>())
}

/// The requests of it: host, path, and the route that they take.
const THOUSAND: [(&str, &str, Option<usize>); 5] = [
    ("site99.example.com", "/area7/part/of/a/longer/path/index.html", Some(799)),
    ("site0.example.com", "/area0/part", Some(0)),
    ("a.b.zone50.example.net", "/area7/part/of/a/longer/path", Some(850)),
    ("unknown.example.org", "/common/99", Some(999)),
    ("unknown.example.org", "/nothing/of/the/kind", None),
];

#[test]
fn among_a_thousand_routes_only_those_of_host_and_path_are_looked_at() {
    let table = thousand();
    for (host, path, expected) in THOUSAND {
        assert_eq!(find(&table, host, path), Ok(expected), "{host}{path}");
        // A look-up asks whether a route holds for those alone that match host and path already.
        let asked = std::cell::Cell::new(0);
        let mut best = usize::MAX;
        let mut holds = |_: usize| {
            asked.set(asked.get() + 1);
            true
        };
        for paths in table.exact.get(host).into_iter().chain([&table.any]) {
            paths.first(Some(path.as_bytes()), &mut best, &mut holds);
        }
        assert!(asked.get() <= 1, "{host}{path}: {} routes were looked at", asked.get());
    }
}

/// What a look-up takes: `cargo test --release --lib route::tests::what_a_look_up_costs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, for a release build on a quiet machine"]
fn what_a_look_up_costs() {
    let table = thousand();
    let headers = HeaderMap::new();
    let mut scratch = Scratch::default();
    for (host, path, expected) in THOUSAND {
        let asked = Asked { host, path, query: "", method: "GET", headers: &headers, ip: NOBODY };
        let begin = std::time::Instant::now();
        for _ in 0..1_000_000 {
            assert_eq!(std::hint::black_box(&table).find(&asked, &mut scratch).map(|found| found.route), Ok(expected));
        }
        eprintln!("{host}{path}: {} ns", begin.elapsed().as_nanos() / 1_000_000);
    }
}

#[test]
fn expressions_match_as_if_each_were_tried_in_turn_wherever_they_lie_in_the_tree() {
    let written = [
        "^/api/p1/[0-9]+$",
        "^/api/p1$",
        "^/api/p1",
        "^/(api|app)/x$",
        "^/(?:api/p2|api/p3)/y",
        "^/api?/z",
        "^/api(/v)*/w$",
        "(?i)^/API/q",
        "(?m)^/api/m",
        "^/api/a|/b$",
        r"\.php$",
        r"^/a\.b/c",
        "^api",
        "^",
    ];
    let paths = [
        "/",
        "/api",
        "/api/",
        "/api/p1",
        "/api/p1/",
        "/api/p1/7",
        "/api/p1/7/",
        "/api/p10",
        "/api/x",
        "/app/x",
        "/api/p2/y",
        "/api/p3/yy",
        "/api/p4/y",
        "/ap/z",
        "/api/z",
        "/apii/z",
        "/api/w",
        "/api/v/v/w",
        "/aPi/q",
        "/api/m",
        "/api/abc",
        "/x/b",
        "/x/b/c",
        "/i.php",
        "/a.b/c",
        "/aXb/c",
        "/a.b",
    ];
    let matching =
        |expression: &str, path: &str| crate::config::expression(expression).unwrap().is_match(path.as_bytes());
    for from in 0..written.len() {
        let rules: Vec<_> = written[from..].iter().map(|written| (HostMatch::Any, regex(written))).collect();
        let table = table(&rules);
        for path in paths {
            let expected = written[from..].iter().position(|expression| matching(expression, path));
            assert_eq!(find(&table, "", path), Ok(expected), "{path} among {:?}", &written[from..]);
        }
    }
}
