//! Routes: one test a rule, and what `baton check` prints of them.

use crate::rules::{TRAFFIC, check_one, refused};
use crate::{Directory, baton, stderr, stdout, text};

/// A route to a pool on line 1; `rest` begins on line 4.
fn route(rest: &str) -> String {
    format!("[[route]]\nlistener = \"web\"\npool = \"app\"\n{rest}\n{TRAFFIC}")
}

/// A route without a pool on line 1; `rest` begins on line 3.
fn bare(rest: &str) -> String {
    format!("[[route]]\nlistener = \"web\"\n{rest}\n{TRAFFIC}")
}

fn named(name: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\nlistener = \"web\"\npool = \"app\"\nhost = \"{name}.example\"\n")
}

refused! {
    name_with_a_space: [route("name = \"a b\"")], 4, "route[#1].name", "must be 1 to 63 letters";
    names_equal: [named("x"), named("x").replace("x.example", "y.example"), TRAFFIC.to_owned()], 7, "route[x].name", "another route has that name";
    wildcard_without_a_dot: [route("host = \"*shop.example\"")], 4, "route[#1].host", "'*' in front alone";
    wildcard_of_everything: [route("host = \"*\"")], 4, "route[#1].host", "'*' in front alone";
    wildcard_of_nothing: [route("host = \"*.\"")], 4, "route[#1].host", "must be a host name";
    host_not_a_string: [route("host = 1")], 4, "route[#1].host", "must be a string";
    path_without_slash: [route("path = \"api\"")], 4, "route[#1].path", "must begin with '/'";
    path_with_query: [route("path = \"/a?b\"")], 4, "route[#1].path", "without a query";
    path_with_parameter: [route("path = \"/a;b\"")], 4, "route[#1].path", "no ';'";
    path_with_dots: [route("path_prefix = \"/a/../b\"")], 4, "route[#1].path_prefix", "no empty segment";
    path_with_escaped_dots: [route("path_prefix = \"/a/%2e%2E/b\"")], 4, "route[#1].path_prefix", "no empty segment";
    path_with_empty_segment: [route("path_prefix = \"/a//b\"")], 4, "route[#1].path_prefix", "no empty segment";
    path_with_escaped_slash: [route("path = \"/a%2fb\"")], 4, "route[#1].path", "must not escape a character that divides paths: %2f";
    path_with_bad_escape: [route("path = \"/a%g1\"")], 4, "route[#1].path", "without two hexadecimal digits";
    path_and_prefix: [route("path = \"/a\"\npath_prefix = \"/b\"")], 5, "route[#1].path_prefix", "no meaning beside path";
    regex_unclosed: [route("path_regex = \"(a\"")], 4, "route[#1].path_regex", "unclosed group";
    regex_with_back_reference: [route("path_regex = '(a)\\1'")], 4, "route[#1].path_regex", "backreferences are not supported";
    regex_too_large: [route("path_regex = '((a{100}){100}){100}'")], 4, "route[#1].path_regex", "more than 256 KiB";
    regex_too_long: [route(&format!("path_regex = \"{}\"", "a".repeat(1025)))], 4, "route[#1].path_regex", "at most 1024";
    method_in_small_letters: [route("methods = [\"get\"]")], 4, "route[#1].methods[#1]", "must be a method in capitals";
    method_connect: [route("methods = [\"CONNECT\"]")], 4, "route[#1].methods[#1]", "no method that routes are for";
    no_methods: [route("methods = []")], 4, "route[#1].methods", "must have 1 to 16 entries";
    methods_not_a_list: [route("methods = \"GET\"")], 4, "route[#1].methods", "must be a list";
    header_without_name: [route("headers = [{ exact = \"1\" }]")], 4, "route[#1].headers[#1].name", "missing";
    header_without_condition: [route("headers = [{ name = \"X\" }]")], 4, "route[#1].headers[X]", "has no condition";
    header_with_two_conditions: [route("headers = [{ name = \"X\", exact = \"1\", prefix = \"2\" }]")], 4, "route[#1].headers[X]", "several conditions: exact, prefix";
    header_name: [route("headers = [{ name = \"X Y\", present = true }]")], 4, "route[#1].headers[#1].name", "must be the name of a header";
    header_present_is_false: [route("headers = [{ name = \"X\", present = false }]")], 4, "route[#1].headers[X].present", "must be true";
    header_regex: [route("headers = [{ name = \"X\", regex = \"[\" }]")], 4, "route[#1].headers[X].regex", "must be a regular expression";
    header_unknown_condition: [route("headers = [{ name = \"X\", present = true, sufix = \"a\" }]")], 4, "route[#1].headers[X].sufix", "unknown key";
    header_text_with_line_end: [route("headers = [{ name = \"X\", exact = \"a\\nb\" }]")], 4, "route[#1].headers[X].exact", "control character";
    query_name: [route("query = [{ name = \"a=b\", present = true }]")], 4, "route[#1].query[#1].name", "name of a query parameter";
    cookie_name: [route("cookies = [{ name = \"a;b\", present = true }]")], 4, "route[#1].cookies[#1].name", "must be a cookie name";
    seventeen_cookies: [route(&format!("cookies = [{}]", "{ name = \"a\", present = true },".repeat(17)))], 4, "route[#1].cookies", "has 17";
    source_not_a_network: [route("sources = [\"office\"]")], 4, "route[#1].sources[#1]", "must be a network or an address";
    source_with_host_bits: [route("sources = [\"10.0.0.1/8\"]")], 4, "route[#1].sources[#1]", "bits set behind its prefix";
    source_prefix_too_long: [route("sources = [\"10.0.0.0/33\"]")], 4, "route[#1].sources[#1]", "0 to 32";
    priority_too_high: [route("priority = 1001")], 4, "route[#1].priority", "must be -1000 to 1000";
    priority_too_low: [route("priority = -1001")], 4, "route[#1].priority", "must be -1000 to 1000";
    priority_as_text: [route("priority = \"high\"")], 4, "route[#1].priority", "must be a whole number";
    no_action: [bare("host = \"a\"")], 1, "route[#1].pool", "missing";
    two_actions: [route("redirect = { to = \"/a\" }")], 4, "route[#1].redirect", "no meaning beside pool";
    split_of_no_weight: [bare("pools = [{ pool = \"app\", weight = 0 }]")], 3, "route[#1].pools", "no weight above 0";
    split_without_weight: [bare("pools = [{ pool = \"app\" }]")], 3, "route[#1].pools[#1].weight", "missing";
    split_weight_too_large: [bare("pools = [{ pool = \"app\", weight = 1000001 }]")], 3, "route[#1].pools[#1].weight", "must be 0 to 1000000";
    split_to_no_pool: [bare("pools = [{ pool = \"apx\", weight = 1 }]")], 3, "route[#1].pools[#1].pool", "no pool of that name";
    split_twice_to_a_pool: [bare("pools = [{ pool = \"app\", weight = 1 }, { pool = \"app\", weight = 2 }]")], 3, "route[#1].pools[#2].pool", "is the same pool";
    redirect_without_target: [bare("redirect = { status = 301 }")], 3, "route[#1].redirect.to", "missing";
    redirect_to_a_word: [bare("redirect = { to = \"home\" }")], 3, "route[#1].redirect.to", "must begin with http:// or https://";
    redirect_to_another_scheme: [bare("redirect = { to = \"ftp://a/\" }")], 3, "route[#1].redirect.to", "must begin with http:// or https://";
    redirect_to_two_slashes: [bare("redirect = { to = \"//{host}/\" }")], 3, "route[#1].redirect.to", "a single '/'";
    redirect_to_two_slashes_of_a_path: [bare("redirect = { to = \"/{path}\" }")], 3, "route[#1].redirect.to", "may begin with \"//\"";
    redirect_to_two_slashes_of_a_query: [bare("redirect = { to = \"/{tls_sni}{query}\" }")], 3, "route[#1].redirect.to", "may begin with \"//\"";
    redirect_to_no_host: [bare("redirect = { to = \"https://{path}\" }")], 3, "route[#1].redirect.to", "must not let a variable";
    location_of_the_client: [bare("respond = { status = 302, headers = { Location = \"{path}\" } }")], 3, "route[#1].respond.headers.Location", "must begin with http:// or https://";
    redirect_to_a_host_of_the_client: [bare("redirect = { to = \"https://{query}/\" }")], 3, "route[#1].redirect.to", "must not let a variable";
    redirect_with_an_unknown_variable: [bare("redirect = { to = \"https://{hots}/\" }")], 3, "route[#1].redirect.to", "there is no variable {hots}";
    redirect_with_a_line_end: [bare("redirect = { to = \"/a\\r\\nSet-Cookie: b\" }")], 3, "route[#1].redirect.to", "no line ends";
    redirect_with_a_space: [bare("redirect = { to = \"/a b\" }")], 3, "route[#1].redirect.to", "printable ASCII";
    redirect_status: [bare("redirect = { to = \"/a\", status = 304 }")], 3, "route[#1].redirect.status", "must be 301, 302, 303, 307 or 308";
    respond_status: [bare("respond = { status = 199 }")], 3, "route[#1].respond.status", "must be 200 to 599";
    respond_body_without_room: [bare("respond = { status = 204, body = \"a\" }")], 3, "route[#1].respond.status", "without a body";
    respond_content_type: [bare("respond = { content_type = \"a\\nb\" }")], 3, "route[#1].respond.content_type", "printable ASCII";
    respond_framing_header: [bare("respond = { headers = { Content-Length = \"3\" } }")], 3, "route[#1].respond.headers.Content-Length", "must not be a header that frames";
    respond_body_too_large: [bare(&format!("respond = {{ body = \"{}\" }}", "a".repeat(65_537)))], 3, "route[#1].respond.body", "at most 64 KiB";
    maintenance_that_exempts_without_a_pool: [bare("maintenance = { exempt = [\"10.0.0.0/8\"] }")], 1, "route[#1].pool", "missing";
    maintenance_over_too_soon: [bare("maintenance = { retry_after = \"10ms\" }")], 3, "route[#1].maintenance.retry_after", "must be 1s to 720h";
    maintenance_exempts_a_name: [route("maintenance = { exempt = [\"office\"] }")], 4, "route[#1].maintenance.exempt[#1]", "must be a network or an address";
    rewrite_of_nothing: [route("rewrite = {}")], 4, "route[#1].rewrite", "changes nothing";
    rewrite_twice: [route("rewrite = { path = \"/a\", strip_prefix = \"/b\" }")], 4, "route[#1].rewrite.strip_prefix", "no meaning beside path";
    rewrite_path: [route("rewrite = { path = \"a\" }")], 4, "route[#1].rewrite.path", "must begin with '/' or {path}";
    rewrite_path_with_query: [route("rewrite = { path = \"/a?b\" }")], 4, "route[#1].rewrite.path", "without query and fragment";
    rewrite_replacement: [route("rewrite = { replace = { regex = \"a\", with = \"b c\" } }")], 4, "route[#1].rewrite.replace.with", "a piece of a path";
    rewrite_without_replacement: [route("rewrite = { replace = { regex = \"a\" } }")], 4, "route[#1].rewrite.replace.with", "missing";
    rewrite_regex: [route("rewrite = { replace = { regex = \"(\", with = \"b\" } }")], 4, "route[#1].rewrite.replace.regex", "must be a regular expression";
    rewrite_host: [route("rewrite = { host = \"a b\" }")], 4, "route[#1].rewrite.host", "must be a host name";
    rewrite_host_of_the_client: [route("rewrite = { host = \"{path}\" }")], 4, "route[#1].rewrite.host", "what is no host";
    rewrite_without_a_pool: [bare("respond = {}\nrewrite = { path = \"/a\" }")], 4, "route[#1].rewrite", "goes to no pool";
    mirror_without_a_pool: [bare("respond = {}\nmirror = { pool = \"app\" }")], 4, "route[#1].mirror", "goes to no pool";
    mirror_to_no_pool: [route("mirror = { pool = \"apx\" }")], 4, "route[#1].mirror.pool", "no pool of that name";
    mirror_of_nothing: [route("mirror = { pool = \"app\", percent = 0 }")], 4, "route[#1].mirror.percent", "must be 1 to 100";
    mirror_body: [route("mirror = { pool = \"app\", body_max = \"17MiB\" }")], 4, "route[#1].mirror.body_max", "must be 0 to 16MiB";
    mirror_concurrency: [route("mirror = { pool = \"app\", concurrency_max = 0 }")], 4, "route[#1].mirror.concurrency_max", "must be 1 to 10000";
    mirror_timeout: [route("mirror = { pool = \"app\", timeout = \"6m\" }")], 4, "route[#1].mirror.timeout", "must be 10ms to 5m";
    edit_of_host: [route("request_headers = { set = { Host = \"a\" } }")], 4, "route[#1].request_headers.set.Host", "must not be a header that frames";
    edit_of_transfer_encoding: [route("request_headers = { remove = [\"Transfer-Encoding\"] }")], 4, "route[#1].request_headers.remove[#1]", "must not be a header that frames";
    edit_of_connection: [route("response_headers = { add = { connection = \"close\" } }")], 4, "route[#1].response_headers.add.connection", "must not be a header that frames";
    edit_with_line_end: [route("response_headers = { set = { X-A = \"a\\r\\nX-B: c\" } }")], 4, "route[#1].response_headers.set.X-A", "no line ends";
    edit_with_an_unknown_variable: [route("request_headers = { set = { X-A = \"{client}\" } }")], 4, "route[#1].request_headers.set.X-A", "there is no variable {client}";
    edit_with_an_open_brace: [route("request_headers = { set = { X-A = \"{client_ip\" } }")], 4, "route[#1].request_headers.set.X-A", "not closed";
    edit_of_a_request_with_its_server: [route("request_headers = { set = { X-A = \"{server}\" } }")], 4, "route[#1].request_headers.set.X-A", "not known yet";
    edit_with_a_space_in_front: [route("request_headers = { set = { X-A = \" a\" } }")], 4, "route[#1].request_headers.set.X-A", "begin or end with a space";
    edit_of_no_header: [route("request_headers = { set = { \"X A\" = \"a\" } }")], 4, "route[#1].request_headers.set.X A", "must be the name of a header";
    edit_with_an_unknown_key: [route("request_headers = { append = { X-A = \"a\" } }")], 4, "route[#1].request_headers.append", "unknown key";
    edits_of_a_tcp_listener: ["[[listener]]\nname = \"x\"\nbind = [\"192.0.2.1:81\"]\npool = \"app\"\nprotocol = \"tcp\"\nresponse_headers = { remove = [\"Server\"] }\n", TRAFFIC], 6, "listener[x].response_headers", "there are no headers";
    edits_of_a_pool: ["[[pool]]\nname = \"p\"\nservers = [{ name = \"s\", address = \"10.0.0.1:1\" }]\nrequest_headers = { set = { TE = \"trailers\" } }\n", TRAFFIC], 4, "pool[p].request_headers.set.TE", "must not be a header that frames";
}

#[test]
fn a_route_that_another_matches_wholly_is_refused_unless_its_priority_differs() {
    let first = "[[route]]\nlistener = \"web\"\npool = \"app\"\nmethods = [\"GET\"]\npath = \"/%61\"\n";
    let second = "[[route]]\nlistener = \"web\"\npool = \"app\"\nmethods = [\"GET\"]\npath = \"/a\"\n";
    check_one(&[first, second, TRAFFIC].concat(), 6, "route[#2]", "never reached");
    let other = format!("{second}priority = 1\n");
    assert!(crate::rules::mistakes(&[first, &other, TRAFFIC].concat()).is_empty());
}

#[test]
fn check_prints_the_routes_in_their_order_and_why_and_warns_of_hidden_ones() {
    let directory = Directory::new("routes");
    let routes = r#"
[[route]]
listener = "web"
name = "all"
priority = 7
path_prefix = "/x"
pool = "app"
[[route]]
listener = "web"
host = "*.example"
path = "/x/y"
methods = ["GET"]
headers = [{ name = "X-A", prefix = "1" }]
sources = ["10.0.0.0/8"]
respond = { status = 403 }
[[route]]
listener = "web"
name = "split"
path_regex = "^/v[0-9]"
pools = [{ pool = "app", weight = 3 }, { pool = "new", weight = 1 }]
mirror = { pool = "new", percent = 5 }
rewrite = { strip_prefix = "/v1" }
[[route]]
listener = "web"
name = "closed"
host = "b.example"
maintenance = {}
[[pool]]
name = "new"
servers = [{ name = "n", address = "10.0.0.2:80" }]
"#;
    let file = directory.write("baton.toml", format!("{TRAFFIC}{routes}"), 0o644);
    let output = baton(&["check", "--file-only", "--config", text(&file)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let expected = "  any host, /x -> pool app
    route all: priority 7, any host, path prefix of 2 characters, no further conditions
  b.example/ -> maintenance, back in 5m
    route closed: exact host, any path, no further conditions
  *.example, path = /x/y, method GET, header x-a = \"1…\", from 10.0.0.0/8 -> answer 403
    route #2: wildcard host of 7 characters, exact path, 3 further conditions
  any host, path ~ ^/v[0-9] -> pool app (3 of 4) or pool new (1 of 4); without /v1; 5% copied to pool new
    route split: any host, path expression, no further conditions
  everything else -> pool app
";
    let summary = stdout(&output);
    assert!(summary.contains(expected), "{summary}");
    let warning = "warning: route #2 of listener web is never reached: route all comes before it and matches all of its requests\n";
    assert_eq!(stderr(&output), warning);
}
