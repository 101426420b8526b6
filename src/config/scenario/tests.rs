use super::*;

const MINIMAL: &str = r#"
[[node]]
name = "lb-a"
reach = ["ssh", "root@192.0.2.11"]

[[node]]
name = "lb-b"
reach = ["ssh", "root@192.0.2.12"]

[load]
url = "http://192.0.2.100/"
"#;

fn parse(text: &str) -> Result<Scenario, Report> {
    Scenario::parse(text, Path::new("/etc/baton/drill.toml"))
}

fn good(text: &str) -> Scenario {
    parse(text).unwrap_or_else(|report| panic!("{report}"))
}

/// The mistakes of a text, as key and rule.
fn wrong(text: &str) -> Vec<String> {
    let report = parse(text).expect_err("the text has a mistake");
    report.mistakes().iter().map(|mistake| format!("{}: {}", mistake.key, mistake.rule)).collect()
}

#[test]
fn few_lines_are_a_drill() {
    let scenario = good(MINIMAL);
    assert_eq!(scenario.name, "failover drill");
    assert_eq!(scenario.nodes[1].reach, ["ssh", "root@192.0.2.12"]);
    assert_eq!(scenario.nodes[0].baton, "baton");
    let url = &scenario.load.url;
    assert_eq!((url.is_tls, url.host.as_str(), url.port, url.path.as_str()), (false, "192.0.2.100", 80, "/"));
    assert_eq!((scenario.load.new_connections, scenario.load.websockets), (100, 10));
    let kinds: Vec<_> = scenario.events.iter().map(|event| event.kind.title()).collect();
    assert_eq!(kinds, ["switchover", "worker killed", "worker hung", "guard killed", "config reload"]);
    assert_eq!(scenario.events[4].limits.failed, Some(0));
    assert_eq!(scenario.events[4].outcome, ExpectedRole::Stays);
}

#[test]
fn limits_of_an_event_come_before_those_of_all_and_false_takes_one_away() {
    let events = r#"
[limits]
gap_max = "2s"
users_moved_max = false

[[event]]
type = "guard-killed"
gap_max = "0ms"
failed_max = 7

[[event]]
type = "reload"
failed_max = false
"#;
    let scenario = good(&format!("{MINIMAL}{events}"));
    let [killed, reload] = scenario.events.as_slice() else { panic!("two events") };
    assert_eq!((killed.limits.gap, killed.limits.failed), (Some(Duration::ZERO), Some(7)));
    assert_eq!((reload.limits.gap, reload.limits.failed), (Some(Duration::from_secs(2)), None));
    assert_eq!(killed.limits.users_moved, None);
    assert_eq!(killed.limits.recovery, Some(Duration::from_secs(60)));
}

#[test]
fn scripts_run_on_the_node_or_here() {
    let scenario = good(&MINIMAL.replace("name = \"lb-a\"", "name = \"lb-a\"\ncut = \"x\"\nmend = { here = \"y\" }"));
    let scripts = &scenario.nodes[0].scripts;
    assert_eq!(scripts.cut, Some(Script::There("x".to_owned())));
    assert_eq!(scripts.mend, Some(Script::Here("y".to_owned())));
}

#[test]
fn addresses_of_services_are_read_whole() {
    let services =
        "url = \"https://[2001:db8::1]:8443/a?b\"\nwebsocket = \"wss://shop.example/echo\"\ntcp = \"192.0.2.100:7\"";
    let load = good(&MINIMAL.replace("url = \"http://192.0.2.100/\"", services)).load;
    assert_eq!((load.url.is_tls, load.url.host.as_str(), load.url.port), (true, "2001:db8::1", 8443));
    assert_eq!((load.url.authority.as_str(), load.url.path.as_str()), ("[2001:db8::1]:8443", "/a?b"));
    assert_eq!(
        load.websocket.map(|url| (url.is_tls, url.host, url.port)),
        Some((true, "shop.example".to_owned(), 443))
    );
    assert_eq!(load.tcp, Some(("192.0.2.100".to_owned(), 7)));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = r#"
quite = "3s"
steady = "0s"

[[node]]
name = "lb-a"
cut = ""

[load]
url = "ftp://192.0.2.100/"
new_connections = 0
server_from = "head"
websockets = 3

[[event]]
type = "worker-kiled"

[[event]]
type = "upgrade"

[[event]]
type = "reload"
server = "app1"
gap_max = 5

[[event]]
type = "server-killed"
server = "app1"
"#;
    let expected = [
        "quite: unknown key",
        "steady: must be 1s to 1h",
        "node[lb-a].cut: must be a script for sh of 1 to 16384 bytes",
        "load.url: must begin with http:// or https://",
        "load.new_connections: must be 1 to 500",
        "load.server_from: must be \"cookie\", \"body\" or \"header:NAME\"",
        "load.websockets: means nothing without the address of such a service",
        "event[#2]: rolling upgrade needs a script that the node lb-a does not have: upgrade",
        "event[#3].server: only an event of type \"server-killed\" has a server",
        "event[#3].gap_max: a duration needs a unit",
        "event[#4]: there is no server to kill",
        "event[#4]: there is no [[server]] app1",
        ": a drill needs both nodes of a pair",
    ];
    let found = wrong(text);
    for expected in expected {
        assert!(found.iter().any(|found| found == expected), "{expected} is not among {found:#?}");
    }
    assert!(found.iter().any(|found| found.starts_with("event[#1].type: must be \"switchover\"")), "{found:#?}");
    assert_eq!(found.len(), expected.len() + 1, "{found:#?}");
}

#[test]
fn nodes_and_load_are_needed() {
    assert_eq!(wrong(""), ["node: missing", "load: missing"]);
    assert_eq!(wrong(&MINIMAL.replace("lb-b", "lb-a")), [": both nodes are called lb-a"]);
}
