//! One literal a rule on how servers are checked: a file with one mistake, and the line, key and rule that the report must give.

use std::path::Path;

use baton::config::{Check, CheckTls, Expected, HttpCheck, Role, parse};

use super::rules::{TRAFFIC, check_one, refused};

/// A pool whose health is on line 4.
fn health(keys: &str) -> String {
    pool(&format!("health = {{ {keys} }}"))
}

fn pool(keys: &str) -> String {
    format!("[[pool]]\nname = \"p\"\nservers = [{{ name = \"a\", address = \"10.0.0.9:80\" }}]\n{keys}\n{TRAFFIC}")
}

refused! {
    method_in_small_letters: [health("method = \"get\"")], 4, "pool[p].health.method", "must be a method in capitals";
    status_out_of_range: [health("statuses = \"600\"")], 4, "pool[p].health.statuses", "100 to 599";
    statuses_backwards: [health("statuses = [\"200\", \"299-200\"]")], 4, "pool[p].health.statuses[#2]", "100 to 599";
    statuses_without_any: [health("statuses = []")], 4, "pool[p].health.statuses", "must have 1 to 32 entries";
    header_of_framing: [health("headers = { Connection = \"close\" }")], 4, "pool[p].health.headers.Connection", "HTTP itself needs";
    header_with_a_line_break: [health("headers = { X-A = \"a\\r\\nb\" }")], 4, "pool[p].health.headers.X-A", "printable ASCII";
    expect_nothing: [health("expect = \"\"")], 4, "pool[p].health.expect", "must be 1 to 1024 bytes";
    expect_twice: [health("expect = \"a\", expect_regex = \"b\"")], 4, "pool[p].health.expect_regex", "one thing alone";
    expect_regex_that_is_none: [health("expect_regex = \"(\"")], 4, "pool[p].health.expect_regex", "must be a regular expression";
    expect_hex_of_http: [health("expect_hex = \"00\"")], 4, "pool[p].health.expect_hex", "no meaning with type = \"http\"";
    expect_of_head: [health("method = \"HEAD\", expect = \"a\"")], 4, "pool[p].health.expect", "has no body";
    http2_in_words: [health("http2 = \"yes\"")], 4, "pool[p].health.http2", "must be true or false";
    send_of_http: [health("send = \"a\"")], 4, "pool[p].health.send", "no meaning with type = \"http\"";
    send_hex_odd: [health("type = \"tcp\", send_hex = \"abc\"")], 4, "pool[p].health.send_hex", "pairs of hex digits";
    send_hex_that_is_none: [health("type = \"tcp\", send_hex = \"zz\"")], 4, "pool[p].health.send_hex", "pairs of hex digits";
    send_twice: [health("type = \"tcp\", send = \"a\", send_hex = \"61\"")], 4, "pool[p].health.send_hex", "beside send";
    send_too_long: [health(&format!("type = \"tcp\", send = \"{}\"", "a".repeat(1025)))], 4, "pool[p].health.send", "must be 1 to 1024 bytes";
    udp_without_send: [health("type = \"udp\"")], 4, "pool[p].health.send", "missing";
    tls_without_a_judge: [health("type = \"tls\"")], 4, "pool[p].health", "nothing says which certificates are good";
    tls_expiry_too_soon: [health("type = \"tls\", tls = {}, expires_within = \"59s\"")], 4, "pool[p].health.expires_within", "must be 1m to";
    tls_expiring_of_nothing: [health("type = \"tls\", tls = {}, expiring = \"fail\"")], 4, "pool[p].health.expiring", "no meaning without expires_within";
    tls_expiring_unknown: [health("type = \"tls\", tls = {}, expires_within = \"1h\", expiring = \"ignore\"")], 4, "pool[p].health.expiring", "must be \"warn\" or \"fail\"";
    tls_of_its_own_is_checked: [health("tls = { verify = false, ca_file = \"a.pem\" }")], 4, "pool[p].health.tls.ca_file", "no meaning with verify = false";
    tls_of_dns: [health("type = \"dns\", query = \"a\", tls = {}")], 4, "pool[p].health.tls", "no meaning with type = \"dns\"";
    service_with_spaces: [health("type = \"grpc\", service = \"a b\"")], 4, "pool[p].health.service", "without spaces";
    dns_without_query: [health("type = \"dns\"")], 4, "pool[p].health.query", "missing";
    dns_query_with_an_empty_label: [health("type = \"dns\", query = \"a..b\"")], 4, "pool[p].health.query", "must be the name of a host";
    dns_record_unknown: [health("type = \"dns\", query = \"a\", record = \"ANY\"")], 4, "pool[p].health.record", "must be \"A\"";
    dns_answer_of_another_family: [health("type = \"dns\", query = \"a\", answer = \"2001:db8::1\"")], 4, "pool[p].health.answer", "no record of that type";
    dns_rcode_unknown: [health("type = \"dns\", query = \"a\", rcode = \"FINE\"")], 4, "pool[p].health.rcode", "must be \"NOERROR\"";
    role_unknown: [health("type = \"redis\", role = \"master\"")], 4, "pool[p].health.role", "must be \"any\", \"primary\" or \"replica\"";
    role_of_mysql_without_a_user: [health("type = \"mysql\", role = \"primary\"")], 4, "pool[p].health.role", "no meaning without a user";
    password_of_mysql_without_a_user: [health("type = \"mysql\", password_file = \"a\"")], 4, "pool[p].health.password_file", "a password needs a user";
    database_of_redis: [health("type = \"redis\", database = \"a\"")], 4, "pool[p].health.database", "no meaning with type = \"redis\"";
    user_empty: [health("type = \"postgres\", user = \"\"")], 4, "pool[p].health.user", "must be a name of 1 to 128 bytes";
    command_missing: [health("type = \"command\"")], 4, "pool[p].health.command", "missing";
    command_relative: [health("type = \"command\", command = [\"check\"]")], 4, "pool[p].health.command[#1]", "absolute path";
    command_with_a_port: [health("type = \"command\", command = [\"/bin/true\"], port = 1")], 4, "pool[p].health.port", "no meaning with type = \"command\"";
    interval_when_down_above_interval: [health("interval = \"1s\", interval_when_down = \"2s\"")], 4, "pool[p].health.interval_when_down", "must not be above interval, which is 1s";
    interval_when_down_too_short: [health("interval_when_down = \"99ms\"")], 4, "pool[p].health.interval_when_down", "must be 100ms to 1h";
    start_unknown: [health("start = \"maybe\"")], 4, "pool[p].health.start", "must be \"up\" or \"down\"";
    port_zero: [health("port = 0")], 4, "pool[p].health.port", "must be 1 to 65535";
    address_is_a_name: [health("address = \"localhost\"")], 4, "pool[p].health.address", "must be an IP address";
    agent_without_port: [pool("agent = {}")], 4, "pool[p].agent.port", "missing";
    agent_port_zero: [pool("agent = { port = 0 }")], 4, "pool[p].agent.port", "must be 1 to 65535";
    agent_on_silence: [pool("agent = { port = 1, on_silence = \"down\" }")], 4, "pool[p].agent.on_silence", "must be \"keep\" or \"reset\"";
    agent_timeout: [pool("agent = { port = 1, interval = \"1s\", timeout = \"2s\" }")], 4, "pool[p].agent.timeout", "must not be above interval";
}

fn check(keys: &str) -> baton::config::Health {
    let config = parse(&health(keys), Path::new("/etc/baton/baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    config.pools.first().and_then(|pool| pool.health.clone()).expect("the block is there")
}

#[test]
fn checks_are_what_is_written() {
    let http = check(
        "method = \"POST\", path = \"/a?b\", host = \"App:81\", headers = { X-A = \"b\" }, statuses = [\"204\", \"301-302\"], \
         expect = \"ok\", http2 = true, tls = false, port = 81, interval_when_down = \"500ms\", start = \"down\"",
    );
    let expected = HttpCheck {
        method: "POST".to_owned(),
        path: "/a?b".to_owned(),
        host: Some("app:81".to_owned()),
        headers: vec![("x-a".to_owned(), "b".to_owned())],
        statuses: vec![(204, 204), (301, 302)],
        body: Some(Expected::Bytes(b"ok".to_vec())),
    };
    assert_eq!(http.check, Check::Http(expected));
    assert_eq!((http.way.http2, &http.way.tls, http.way.port), (Some(true), &CheckTls::Off, Some(81)));
    assert_eq!((http.interval_when_down.as_millis(), http.starts_up), (500, false));
    let tcp = check("type = \"tcp\", send_hex = \"00 ff\", expect_regex = \"^a\"");
    let expect = Some(Expected::Regex("^a".to_owned()));
    assert_eq!(tcp.check, Check::Tcp { send: vec![0, 255], expect });
    let redis = check("type = \"redis\", role = \"primary\", password_file = \"redis.password\"");
    assert_eq!(redis.check, Check::Redis { user: None, role: Role::Primary });
    assert_eq!(redis.way.password_file.as_deref(), Some(Path::new("/etc/baton/redis.password")));
    let postgres = check("type = \"postgres\"");
    let [user, database] = ["postgres", "postgres"].map(str::to_owned);
    assert_eq!(postgres.check, Check::Postgres { user, database, role: Role::Any });
}
