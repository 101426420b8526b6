//! Routes: what is read of them, the order in which they are tried, and which are never reached.

use super::*;

#[test]
fn routes_are_tried_by_priority_host_path_conditions_and_place_in_the_file() {
    let route =
        |name: &str, keys: &str| format!("[[route]]\nlistener = \"web\"\npool = \"app\"\nname = \"{name}\"\n{keys}\n");
    let routes = [
        route("any", ""),
        route("first-regex", "path_regex = \"a\""),
        route("second-regex", "path_regex = \"aaaa\""),
        route("prefix", "path_prefix = \"/a\""),
        route("of-b", "host = \"B.example\""),
        route("longer-prefix", "path_prefix = \"/a/b/\""),
        route("of-a", "host = \"a.example\""),
        route("of-a-prefix", "host = \"a.example\"\npath_prefix = \"/a\""),
        route("exact", "path = \"/\""),
        route("late", "priority = -1\nhost = \"a.example\"\npath = \"/late\""),
        route("wildcard", "host = \"*.example\""),
        route("longer-wildcard", "host = \"*.a.example\""),
        route("prefix-post", "path_prefix = \"/a\"\nmethods = [\"POST\"]"),
        route(
            "prefix-post-x",
            "path_prefix = \"/a\"\nmethods = [\"POST\"]\nheaders = [{ name = \"X\", present = true }]",
        ),
        route("early", "priority = 5"),
    ];
    let config = good(&format!("{MINIMAL}{}", routes.concat()));
    let order: Vec<_> = config.listeners[0].routes.iter().map(|route| route.label.as_str()).collect();
    let expected = [
        "early",
        "of-b",
        "of-a-prefix",
        "of-a",
        "longer-wildcard",
        "wildcard",
        "exact",
        "longer-prefix",
        "prefix-post-x",
        "prefix-post",
        "prefix",
        "first-regex",
        "second-regex",
        "any",
        "late",
    ];
    assert_eq!(order, expected);
}

#[test]
fn everything_that_a_route_can_say_is_read() {
    let config = good(&format!(
        "{MINIMAL}{}",
        r#"
[[route]]
listener = "web"
name = "canary"
host = "*.Shop.example"
path = "/%61/b%20c"
methods = ["GET", "HEAD"]
headers = [{ name = "X-A", exact = "1" }, { name = "X-B", absent = true }]
query = [{ name = "q", prefix = "v" }]
cookies = [{ name = "c", regex = "^x" }, { name = "d", present = true }]
sources = ["10.0.0.0/8", "2001:db8::1"]
priority = -7
pools = [{ pool = "app", weight = 9 }, { pool = "new", weight = 0 }]
rewrite = { path = "/v2{path}", host = "{host}.internal:8080" }
request_headers = { set = { X-Client = "{client_ip}:{client_port}" }, add = { X-Add = "a" }, remove = ["X-Debug"] }
response_headers = { set = { X-Server = "{server}" } }
mirror = { pool = "new", percent = 10, body_max = "1KiB", concurrency_max = 3, timeout = "2s" }
[route.maintenance]
body = "later"
content_type = "text/html"
retry_after = "10m"
exempt = ["192.0.2.0/24"]

[[route]]
listener = "web"
path = "/old"
redirect = { to = "https://{host}/new", status = 308, keep_query = false }

[[route]]
listener = "web"
path = "/no"
respond = { status = 403, body = "no", content_type = "application/json", headers = { X-Why = "{method}" } }

[[pool]]
name = "new"
servers = [{ name = "n", address = "10.0.0.2:80" }]
"#
    ));
    let [redirect, respond, canary] = config.listeners[0].routes.as_slice() else { panic!("{config:?}") };
    let network = |text: &str, len| IpNetwork::new(text.parse::<IpAddr>().unwrap(), len).unwrap();
    let field = |name: &str, value| FieldMatch { name: name.to_owned(), value };
    let variable = TemplatePart::Variable;
    let text = |text: &str| TemplatePart::Text(text.to_owned());
    let template = |parts: Vec<TemplatePart>| Template { parts };
    assert_eq!(
        canary.matches,
        RouteMatch {
            host: HostMatch::Below("shop.example".to_owned()),
            path: PathMatch::Exact("/a/b%20c".to_owned()),
            methods: vec!["GET".to_owned(), "HEAD".to_owned()],
            headers: vec![field("x-a", ValueMatch::Exact("1".to_owned())), field("x-b", ValueMatch::Absent)],
            query: vec![field("q", ValueMatch::Prefix("v".to_owned()))],
            cookies: vec![field("c", ValueMatch::Regex("^x".to_owned())), field("d", ValueMatch::Present)],
            sources: vec![network("10.0.0.0", 8), network("2001:db8::1", 128)],
        }
    );
    assert_eq!((canary.label.as_str(), canary.priority), ("canary", -7));
    let shares = [Share { pool: PoolIndex(0), weight: 9 }, Share { pool: PoolIndex(1), weight: 0 }];
    assert_eq!(canary.action, RouteAction::Split(shares.to_vec()));
    assert_eq!(
        canary.rewrite,
        Rewrite {
            path: Some(PathRewrite::To(template(vec![text("/v2"), variable(Variable::Path)]))),
            host: Some(template(vec![variable(Variable::Host), text(".internal:8080")])),
        }
    );
    let client = template(vec![variable(Variable::ClientIp), text(":"), variable(Variable::ClientPort)]);
    assert_eq!(
        canary.request_headers,
        HeaderEdits {
            set: vec![("x-client".to_owned(), client)],
            add: vec![("x-add".to_owned(), Template::fixed("a"))],
            remove: vec!["x-debug".to_owned()],
        }
    );
    assert_eq!(canary.response_headers.set, [("x-server".to_owned(), template(vec![variable(Variable::Server)]))]);
    let mirror = Mirror {
        pool: PoolIndex(1),
        percent: 10,
        body_max_bytes: 1024,
        concurrency_max: 3,
        timeout: Duration::from_secs(2),
    };
    assert_eq!(canary.mirror, Some(mirror));
    let maintenance = canary.maintenance.as_ref().unwrap();
    assert_eq!((maintenance.response.status, maintenance.response.body.as_str()), (503, "later"));
    assert_eq!(maintenance.response.content_type, "text/html");
    assert_eq!(maintenance.retry_after, Duration::from_secs(600));
    assert_eq!(maintenance.exempt, [network("192.0.2.0", 24)]);
    let to = template(vec![text("https://"), variable(Variable::Host), text("/new")]);
    assert_eq!(redirect.action, RouteAction::Redirect(Redirect { to, status: 308, keep_query: false }));
    let response = FixedResponse {
        status: 403,
        body: "no".to_owned(),
        body_file: None,
        content_type: "application/json".to_owned(),
        headers: vec![("x-why".to_owned(), template(vec![variable(Variable::Method)]))],
    };
    assert_eq!(respond.action, RouteAction::Respond(response));
}

#[test]
fn defaults_of_what_a_route_does() {
    let route = |keys: &str| {
        let route = format!("[[route]]\nlistener = \"web\"\n{keys}\n");
        good(&format!("{MINIMAL}{route}")).listeners[0].routes[0].clone()
    };
    let plain = route("pool = \"app\"");
    assert_eq!((plain.label.as_str(), plain.priority, &plain.matches), ("#1", 0, &RouteMatch::default()));
    assert_eq!(plain.action, RouteAction::Pool(PoolIndex(0)));
    assert_eq!((plain.rewrite, plain.mirror, plain.maintenance), (Rewrite::default(), None, None));
    assert!(plain.request_headers.is_empty() && plain.response_headers.is_empty());
    let RouteAction::Redirect(redirect) = route("redirect = { to = \"/x\" }").action else { panic!("a redirect") };
    assert_eq!((redirect.status, redirect.keep_query), (302, true));
    let RouteAction::Respond(response) = route("respond = {}").action else { panic!("a response") };
    assert_eq!((response.status, response.body.as_str()), (200, ""));
    assert_eq!(response.content_type, "text/plain; charset=utf-8");
    let closed = route("maintenance = {}");
    assert_eq!(closed.action, RouteAction::Unavailable);
    let maintenance = closed.maintenance.unwrap();
    assert_eq!((maintenance.retry_after, maintenance.exempt.len()), (Duration::from_secs(300), 0));
    assert_eq!(maintenance.response.status, 503);
    let mirror = route("pool = \"app\"\nmirror = { pool = \"app\" }").mirror.unwrap();
    assert_eq!((mirror.percent, mirror.body_max_bytes, mirror.concurrency_max), (100, 65_536, 100));
    assert_eq!(mirror.timeout, Duration::from_secs(10));
    assert_eq!(route("pool = \"app\"\npath_prefix = \"/\"").matches.path, PathMatch::Any);
}

#[test]
fn routes_that_an_earlier_one_hides_are_warned_of() {
    let route =
        |name: &str, keys: &str| format!("[[route]]\nlistener = \"web\"\npool = \"app\"\nname = \"{name}\"\n{keys}\n");
    let warnings =
        |first: &str, second: &str| good(&format!("{MINIMAL}{}{}", route("a", first), route("b", second))).warnings();
    let hidden = "route b of listener web is never reached: route a comes before it and matches all of its requests";
    let hides = [
        ("priority = 1", "host = \"x.example\""),
        ("priority = 1\nhost = \"*.example\"", "host = \"x.example\"\npath = \"/a\""),
        ("priority = 1\nhost = \"*.example\"", "host = \"*.x.example\""),
        ("priority = 1\npath_prefix = \"/a\"", "path = \"/a/b\""),
        ("priority = 1\npath_prefix = \"/a\"", "path_prefix = \"/a/b\""),
        ("priority = 1\npath_regex = \"x\"", "path_regex = \"x\"\nmethods = [\"GET\"]"),
        ("methods = [\"GET\", \"PUT\"]", "methods = [\"PUT\"]"),
        ("sources = [\"10.0.0.0/8\"]", "sources = [\"10.1.0.0/16\", \"10.2.0.0/16\"]"),
        ("headers = [{ name = \"x\", present = true }]", "headers = [{ name = \"x\", exact = \"1\" }]"),
        ("query = [{ name = \"x\", prefix = \"1\" }]", "query = [{ name = \"x\", exact = \"12\" }]"),
    ];
    for (first, second) in hides {
        assert_eq!(warnings(first, second), [hidden], "{first} / {second}");
    }
    let both = [
        ("priority = 1\nhost = \"*.example\"", "host = \"example\""),
        ("priority = 1\npath_prefix = \"/a\"", "path = \"/ab\""),
        ("priority = 1\npath = \"/a\"", "path_prefix = \"/a\""),
        ("methods = [\"PUT\"]", "methods = [\"GET\", \"PUT\"]"),
        ("headers = [{ name = \"x\", absent = true }]", "headers = [{ name = \"x\", exact = \"1\" }]"),
        ("headers = [{ name = \"x\", present = true }]", "headers = [{ name = \"y\", exact = \"1\" }]"),
        ("sources = [\"10.1.0.0/16\"]", "sources = [\"10.0.0.0/8\"]"),
    ];
    for (first, second) in both {
        assert_eq!(warnings(first, second), [""; 0], "{first} / {second}");
    }
}
