//! Routes: which request goes where, and what is done with it on the way.

use crate::baton::Baton;
use crate::client::Client;
use crate::curl::curl;
use crate::server::Server;
use crate::wire::Message;

/// A program with these routes in front of pools of one server each; requests without a route go to the first.
pub fn run(listener: &str, routes: &[&str], pools: &[(&str, &Server, &str)]) -> Baton {
    let pool = |(name, server, keys): &(&str, &Server, &str)| {
        let address = server.address();
        format!("[[pool]]\nname = \"{name}\"\nservers = [{{ name = \"{name}1\", address = \"{address}\" }}]\n{keys}\n")
    };
    let routes: String = routes.iter().map(|keys| format!("[[route]]\nlistener = \"http\"\n{keys}\n")).collect();
    let pools: String = pools.iter().map(pool).collect();
    Baton::run(&format!("pool = \"app\"\n{listener}"), &format!("{routes}{pools}[worker]\nthreads = 1\n"))
}

fn get(client: &mut Client, host: &str, target: &str, fields: &str) -> Message {
    client.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
}

#[test]
fn requests_take_the_most_specific_route() {
    let [app, below, shop, api, status, beta] = ["app", "below", "shop", "api", "status", "beta"].map(Server::saying);
    let pools = [
        ("app", &app, ""),
        ("below", &below, ""),
        ("shop", &shop, ""),
        ("api", &api, ""),
        ("status", &status, ""),
        ("beta", &beta, ""),
    ];
    let routes = [
        "host = \"*.example\"\npool = \"below\"",
        "host = \"shop.example\"\npool = \"shop\"",
        "host = \"shop.example\"\npath_prefix = \"/api\"\npool = \"api\"",
        "host = \"shop.example\"\npath = \"/api/status\"\npool = \"status\"",
        "host = \"shop.example\"\npath_prefix = \"/api\"\nheaders = [{ name = \"X-Beta\", exact = \"1\" }]\n\
         cookies = [{ name = \"old\", absent = true }]\nquery = [{ name = \"v\", prefix = \"2\" }]\n\
         methods = [\"GET\"]\nsources = [\"127.0.0.0/8\"]\npool = \"beta\"",
        "path_regex = '\\.php$'\npool = \"beta\"",
    ];
    let baton = run("", &routes, &pools);
    let mut client = baton.client();
    let mut goes = |host: &str, target: &str, fields: &str| get(&mut client, host, target, fields).text();
    assert_eq!(goes("other.test", "/api", ""), "app");
    assert_eq!(goes("a.b.example", "/api", ""), "below");
    assert_eq!(goes("shop.example", "/", ""), "shop");
    assert_eq!(goes("SHOP.example.:8080", "/apix", ""), "shop");
    assert_eq!(goes("shop.example", "/api/x", ""), "api");
    assert_eq!(goes("shop.example", "/api/status", ""), "status");
    assert_eq!(goes("shop.example", "/api/status/", ""), "api");
    assert_eq!(goes("shop.example", "/api/x?a=b&v=2.1", "X-Beta: 1\r\n"), "beta");
    assert_eq!(goes("shop.example", "/api/x?v=2.1", "X-Beta: 1\r\nCookie: a=b; old=1\r\n"), "api");
    assert_eq!(goes("shop.example", "/api/x?v=1", "X-Beta: 1\r\n"), "api");
    assert_eq!(goes("other.test", "/x/y.php", ""), "beta");
    assert_eq!(
        goes("shop.example", "/api/%zz", ""),
        "400 Bad Request\nthe request is ambiguous: its path has a '%' without two hexadecimal digits\n"
    );
}

#[test]
fn no_spelling_of_a_path_reaches_what_a_route_keeps() {
    let app = Server::saying("app");
    let routes = ["path_prefix = \"/admin\"\nrespond = { status = 403, body = \"no\" }"];
    let baton = run("", &routes, &[("app", &app, "")]);
    let mut client = baton.client();
    let kept = [
        "/admin",
        "/admin/x?y",
        "/%61dmin",
        "//admin",
        "///admin//",
        "/x/../admin",
        "/./admin",
        "/x/%2e%2e/%61dmin/",
        "/admin;a=b",
        "/;a/admin",
    ];
    for target in kept {
        let response = get(&mut client, "a", target, "");
        assert_eq!((response.status(), response.text().as_str()), (403, "no"), "{target}");
    }
    let refused = [
        "/%2fadmin",
        "/admin%2fx",
        "/%5Cadmin",
        "/x/..%2fadmin",
        "/x/..;/admin",
        "/x//../admin",
        "/%c0%ae./admin",
        "/../admin",
        "/admin%00",
        "/%",
        "/admin%3Fx",
        "/admin%23",
    ];
    for target in refused {
        let response = get(&mut client, "a", target, "");
        assert_eq!(response.status(), 400, "{target}");
        assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=http_request_error"), "{target}");
    }
    assert!(app.requests().is_empty());
    // What is not about it passes, and looks as it did but for its dot segments.
    let passed = [
        ("/files/a%2Fb//c;d?e=%2F../", "/files/a%2Fb//c;d?e=%2F../"),
        ("/files/./a/../b%20c?x", "/files/b%20c?x"),
        ("/Admin/%7Euser", "/Admin/%7Euser"),
    ];
    for (target, seen) in passed {
        assert_eq!(get(&mut client, "a", target, "").text(), "app", "{target}");
        assert_eq!(app.requests().last().unwrap().start, format!("GET {seen} HTTP/1.1"));
    }
}

#[test]
fn without_routes_by_path_paths_are_nobodys_business() {
    let app = Server::saying("app");
    let baton = run("", &["host = \"b\"\npool = \"app\""], &[("app", &app, "")]);
    let mut client = baton.client();
    for target in ["/x/../y", "/%zz", "/a%00b", "//"] {
        assert_eq!(get(&mut client, "a", target, "").text(), "app");
        assert_eq!(app.requests().last().unwrap().start, format!("GET {target} HTTP/1.1"));
    }
}

#[test]
fn redirects_name_the_new_place() {
    let app = Server::saying("app");
    let routes = [
        "path_prefix = \"/secure\"\nredirect = { to = \"https://{host}{path}\", status = 301 }",
        "path = \"/landing\"\nredirect = { to = \"https://www.example/start\", keep_query = false }",
        "path = \"/search\"\nredirect = { to = \"/find?old=1&{query}\", status = 308 }",
        "path_prefix = \"/moved\"\nredirect = { to = \"/new{path}\", status = 307 }",
        "path_prefix = \"/sni\"\nredirect = { to = \"https://{tls_sni}{path}\" }",
    ];
    let baton = run("", &routes, &[("app", &app, "")]);
    let mut client = baton.client();
    let mut location = |target: &str| {
        let response = get(&mut client, "shop.example:8080", target, "");
        (response.status(), response.value("location").unwrap().to_owned())
    };
    let expect = |status, text: &str| (status, text.to_owned());
    assert_eq!(location("/secure/a%20b?c=d"), expect(301, "https://shop.example/secure/a%20b?c=d"));
    assert_eq!(location("/landing?c=d"), expect(302, "https://www.example/start"));
    assert_eq!(location("/search?q=%0D%0Ax"), expect(308, "/find?old=1&q=%0D%0Ax"));
    assert_eq!(location("/moved?c"), expect(307, "/new/moved?c"));
    // A client that names no host cannot be sent to it.
    assert_eq!(baton.client().ask("GET /secure HTTP/1.0\r\n\r\n").status(), 400);
    // Nor to a host that TLS would have named: a browser would take the path's first segment for it.
    assert_eq!(get(&mut baton.client(), "a", "/sni/evil.example/", "").status(), 400);
    let target = baton.url("/moved/x");
    let followed = curl(&["--write-out", " %{redirect_url}", target.as_str()]);
    assert_eq!(followed.text(), format!(" {}", baton.url("/new/moved/x")));
    assert!(app.requests().is_empty());
}

#[test]
fn fixed_answers_are_what_the_configuration_says() {
    let app = Server::saying("app");
    let routes = [
        "path = \"/robots.txt\"\nrespond = { body = \"Disallow: /\\n\", headers = { X-Path = \"{path} of {host}\" } }",
        "path = \"/empty\"\nrespond = { status = 204 }",
        "path = \"/gone\"\nrespond = { status = 410, body = \"{}\", content_type = \"application/json\" }",
    ];
    let baton = run("", &routes, &[("app", &app, "")]);
    let mut client = baton.client();
    let robots = get(&mut client, "a.example", "/robots.txt", "");
    assert_eq!((robots.status(), robots.text().as_str()), (200, "Disallow: /\n"));
    assert_eq!(robots.value("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(robots.value("x-path"), Some("/robots.txt of a.example"));
    let empty = get(&mut client, "a.example", "/empty", "");
    assert_eq!((empty.status(), empty.text().as_str(), empty.value("content-type")), (204, "", None));
    let gone = client.ask("POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!((gone.status(), gone.text().as_str()), (410, "{}"));
    assert_eq!(gone.value("content-type"), Some("application/json"));
    let url = baton.url("/robots.txt");
    let head = curl(&["--head", url.as_str()]).text();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("content-length: 12\r\n"), "{head}");
}

#[test]
fn maintenance_answers_all_but_those_who_work_on_it() {
    let app = Server::saying("app");
    let exempting =
        "path_prefix = \"/a\"\npool = \"app\"\nmaintenance = { retry_after = \"90s\", exempt = [\"127.0.0.7\"] }";
    let closed = "path_prefix = \"/b\"\nmaintenance = { body = \"<p>later</p>\", content_type = \"text/html\" }";
    let baton = run("", &[exempting, closed], &[("app", &app, "")]);
    let mut client = baton.client();
    let response = get(&mut client, "a", "/a/x", "");
    assert_eq!((response.status(), response.value("retry-after")), (503, Some("90")));
    assert_eq!(response.value("cache-control"), Some("no-store"));
    assert_eq!(response.text(), "503 Service Unavailable\nThis site is being worked on and will be back soon.\n");
    let response = get(&mut client, "a", "/b", "");
    assert_eq!((response.status(), response.value("retry-after")), (503, Some("300")));
    assert_eq!((response.text().as_str(), response.value("content-type")), ("<p>later</p>", Some("text/html")));
    assert_eq!(get(&mut client, "a", "/c", "").text(), "app");
    let mut exempt = Client::connect_from("127.0.0.7:0".parse().unwrap(), baton.address());
    assert_eq!(get(&mut exempt, "a", "/a/x", "").text(), "app");
    assert_eq!(get(&mut exempt, "a", "/b", "").status(), 503);
}

#[test]
fn targets_and_hosts_are_rewritten_on_the_way() {
    let app = Server::saying("app");
    let routes = [
        "path_prefix = \"/api\"\npool = \"app\"\nrewrite = { strip_prefix = \"/api\", host = \"{pool}.internal:8080\" }",
        "path_prefix = \"/v1\"\npool = \"app\"\nrewrite = { replace = { regex = '^/v1/([a-z]+)', with = \"/v2/$1-\" } }",
        "path = \"/one\"\npool = \"app\"\nrewrite = { path = \"/two{path}\" }",
    ];
    let baton = run("", &routes, &[("app", &app, "")]);
    let mut client = baton.client();
    let mut seen = |target: &str| {
        assert_eq!(get(&mut client, "a.example", target, "").text(), "app", "{target}");
        let request = app.requests().pop().unwrap();
        let host = request.value("host").unwrap().to_owned();
        (request.start.clone(), host, request.value("x-forwarded-host").unwrap().to_owned())
    };
    let expect = |target: &str, host: &str| (format!("GET {target} HTTP/1.1"), host.to_owned(), "a.example".to_owned());
    assert_eq!(seen("/api/x%20y?q=/api"), expect("/x%20y?q=/api", "app.internal:8080"));
    assert_eq!(seen("/%61pi"), expect("/", "app.internal:8080"));
    assert_eq!(seen("/z/../api/"), expect("/", "app.internal:8080"));
    assert_eq!(seen("/v1/users/7?a=b"), expect("/v2/users-/7?a=b", "a.example"));
    assert_eq!(seen("/%761/users/a%2Fb%20c"), expect("/v2/users-/a%2Fb%20c", "a.example"));
    assert_eq!(seen("/v1"), expect("/v1", "a.example"));
    assert_eq!(seen("/one?x"), expect("/two/one?x", "a.example"));
}

#[test]
fn headers_are_edited_by_listener_then_pool_then_route() {
    let app = Server::answering(
        "HTTP/1.1 200 OK\r\nServer: secret\r\nX-Level: server\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
    );
    let listener = "request_headers = { set = { X-Level = \"listener\", X-Client = \"{client_ip}\" } }\n\
                    response_headers = { remove = [\"Server\"], set = { X-Level = \"listener\", X-Node = \"{node}\" } }";
    let pool = "request_headers = { set = { X-Level = \"pool {pool}\" } }\nresponse_headers = { add = { X-Level = \"pool\" } }";
    let route = "path_prefix = \"/r\"\npool = \"app\"\n\
                 request_headers = { set = { X-Level = \"route\" }, add = { X-Level = \"{method} {path} {query} {host}\" }, \
                 remove = [\"X-Debug\"] }\n\
                 response_headers = { set = { X-Level = \"{server} of {pool} for {path} on {listener}\" } }";
    let baton = run(listener, &[route], &[("app", &app, pool)]);
    let mut client = baton.client();
    let response = get(&mut client, "a.example", "/r/x?y", "X-Debug: 1\r\nX-Client: forged\r\nX-Level: mine\r\n");
    let request = app.request();
    assert_eq!(request.values("x-level"), ["route", "GET /r/x y a.example"]);
    assert_eq!((request.values("x-client"), request.value("x-debug")), (vec!["127.0.0.1"], None));
    assert_eq!(response.values("x-level"), ["app1 of app for /r/x on http"]);
    assert_eq!(
        (response.value("server"), response.value("x-node"), response.value("x-kept")),
        (None, Some("lb-test"), Some("1"))
    );
    let response = get(&mut client, "a.example", "/other", "");
    assert_eq!(app.requests()[1].values("x-level"), ["pool app"]);
    assert_eq!(response.values("x-level"), ["listener", "pool"]);
}

#[test]
fn our_own_answers_have_the_edits_of_responses_too() {
    let app = Server::saying("app");
    let listener = "response_headers = { set = { X-Frame-Options = \"DENY\", X-Server = \"<{server}>\" } }";
    let routes = ["path = \"/no\"\nrespond = { status = 403 }\nresponse_headers = { set = { X-Why = \"{path}\" } }"];
    let baton = run(listener, &routes, &[("app", &app, "")]);
    let mut client = baton.client();
    let response = get(&mut client, "a", "/no", "");
    assert_eq!((response.value("x-frame-options"), response.value("x-why")), (Some("DENY"), Some("/no")));
    assert_eq!(response.value("x-server"), Some("<>"));
    let response = get(&mut client, "a", "/%", "");
    assert_eq!((response.status(), response.value("x-frame-options")), (400, Some("DENY")));
}
