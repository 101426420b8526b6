//! What operators do while the program serves: sessions, servers in and out of service, metrics, the API.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::PATIENCE;
use crate::baton::{Baton, Directory, Settings};
use crate::client::Client;
use crate::server::{Port, Server};
use crate::wire::Message;

const BY_USER: &str = "[pool.sticky]\nby = \"header\"\nname = \"X-User\"\n";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn by_user(servers: &[Server]) -> Baton {
    let settings = Settings { pool: BY_USER.to_owned(), ..Settings::default() };
    Baton::with(&servers.iter().collect::<Vec<_>>(), &settings)
}

fn two_servers() -> [Server; 2] {
    ["0", "1"].map(Server::saying)
}

/// The number of the server that a user is served by.
fn server_of(client: &mut Client, user: &str) -> String {
    client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n")).text()
}

/// So many users, and who serves each.
fn users(baton: &Baton, count: usize) -> BTreeMap<String, String> {
    let mut client = baton.client();
    (0..count).map(|user| format!("user{user}")).map(|user| (user.clone(), server_of(&mut client, &user))).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What the status says of a server.
fn server_status(baton: &Baton, server: usize) -> Value {
    json(&baton.done(&["status", "--json"]))["pools"][0]["servers"][server].clone()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn sessions_are_listed_by_hash_and_found_by_value() {
    let servers = two_servers();
    let baton = by_user(&servers);
    let users = users(&baton, 30);
    let listed = baton.done(&["sessions", "list"]);
    assert_eq!(listed.lines().count(), 31, "{listed}");
    assert!(listed.starts_with("KEY "), "{listed}");
    assert!(!listed.contains("user"), "keys are secrets: {listed}");
    let some = baton.done(&["sessions", "list", "--limit", "7", "--json"]);
    let keys: Vec<String> = some.lines().map(|line| json(line)["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!((keys.len(), keys.is_sorted(), keys[0].len()), (7, true, 32));
    for user in ["user3", "user17"] {
        let found = json(&baton.done(&["sessions", "show", "--key", user, "--json"]));
        assert_eq!(found.as_array().map(Vec::len), Some(1));
        let server = if users[user] == "0" { "app1" } else { "app2" };
        assert_eq!((found[0]["pool"].as_str(), found[0]["server"].as_str()), (Some("app"), Some(server)));
    }
    assert_eq!(baton.refused(&["sessions", "show", "--key", "nobody"]), "there is no session of this key");
}

#[test]
fn sessions_are_counted_by_server() {
    let servers = two_servers();
    let baton = by_user(&servers);
    let users = users(&baton, 20);
    let on_first = users.values().filter(|server| *server == "0").count();
    let shown = json(&baton.done(&["sessions", "show", "--json"]));
    assert_eq!((shown["entries"].as_u64(), shown["pools"][0]["entries_max"].as_u64()), (Some(20), Some(1_000_000)));
    assert_eq!(shown["pools"][0]["by_server"][0]["entries"].as_u64(), Some(on_first as u64));
    let one = json(&baton.done(&["sessions", "show", "--server", "app2", "--json"]));
    assert_eq!(one["entries"].as_u64(), Some(20 - on_first as u64));
    let text = baton.done(&["sessions", "show"]);
    assert!(text.starts_with("20 sessions, 1.0 KiB\n\npool app   20 of at most 1000000 sessions, 0 evicted"), "{text}");
    until("the status to say so", || {
        let status = baton.done(&["status"]);
        status.contains("pool app   round_robin, 2 of 2 servers up, 20 sessions, ")
            && status.contains(&format!("requests, {on_first} sessions"))
    });
}

#[test]
fn sessions_are_cleared_by_server_key_and_all() {
    let servers = two_servers();
    let baton = by_user(&servers);
    let users = users(&baton, 20);
    let on_first = users.values().filter(|server| *server == "0").count();
    assert_eq!(baton.refused(&["sessions", "clear"]), "say which sessions, with --pool, --server or --key; or --all");
    let user = users.iter().find(|(_, server)| *server == "1").unwrap().0;
    let (is_done, shown, _) = baton.command_with(&["sessions", "show", "--key", "-"], &format!("{user}\nmore\n"));
    assert!(is_done && shown.starts_with("app/app2\n"), "{shown}");
    assert_eq!(baton.refused(&["sessions", "show", "--key", "-"]), "there is no session of this key");
    assert_eq!(baton.done(&["sessions", "clear", "--key", user]), "removed 1 session\n");
    assert_eq!(baton.done(&["sessions", "clear", "--key", user]), "removed 0 sessions\n");
    let cleared = baton.done(&["sessions", "clear", "--pool", "app", "--server", "app1"]);
    assert_eq!(cleared, format!("removed {on_first} sessions\n"));
    assert_eq!(baton.done(&["sessions", "clear", "--all"]), format!("removed {} sessions\n", 19 - on_first));
    assert_eq!(baton.done(&["sessions", "list"]), "");
}

#[test]
fn names_that_are_not_there_are_told_with_those_that_are() {
    let servers = two_servers();
    let baton = by_user(&servers);
    assert_eq!(baton.refused(&["sessions", "list", "--pool", "ap"]), "there is no pool ap; this node has app");
    let unknown = baton.refused(&["sessions", "clear", "--server", "app3"]);
    assert_eq!(unknown, "there is no server app3; pool app has app1, app2");
    let unknown = baton.refused(&["server", "drain", "app/app3"]);
    assert_eq!(unknown, "there is no server app3; pool app has app1, app2");
    let unnamed = baton.refused(&["server", "drain", "app1"]);
    assert_eq!(unnamed, "app1 names no server: write its pool in front, as in app/app1");
}

#[test]
fn pools_that_are_sticky_by_our_cookie_are_said_to_keep_nothing() {
    let server = Server::saying("ok");
    let settings = Settings { pool: "[pool.sticky]\n".to_owned(), ..Settings::default() };
    let baton = Baton::with(&[&server], &settings);
    let refused = baton.refused(&["sessions", "list", "--pool", "app"]);
    assert!(
        refused.ends_with(
            "pool app keeps no sessions here: each client carries the name of its server in a cookie of ours"
        ),
        "{refused}"
    );
    let shown = baton.done(&["sessions", "show"]);
    assert!(shown.contains("pool app   no sessions here: each client carries"), "{shown}");
}

#[test]
fn drained_server_keeps_its_users_and_gets_no_new_ones() {
    let servers = two_servers();
    let baton = by_user(&servers);
    let users = users(&baton, 10);
    let on_first = users.values().filter(|server| *server == "0").count();
    let said = baton.done(&["server", "drain", "app/app1"]);
    assert_eq!(said, format!("server app/app1 is draining now, with {on_first} sessions\n"));
    let mut client = baton.client();
    for (user, server) in &users {
        assert_eq!(server_of(&mut client, user), *server);
    }
    for user in 0..10 {
        assert_eq!(server_of(&mut client, &format!("new{user}")), "1");
    }
    until("the status to say so", || server_status(&baton, 0)["admin"] == "draining");
    assert!(baton.done(&["status"]).contains("draining"));
}

#[test]
fn disabled_server_gets_no_requests_until_it_is_enabled() {
    let servers = two_servers();
    let baton = by_user(&servers);
    let users = users(&baton, 10);
    assert!(baton.done(&["server", "disable", "app/app1", "--json"]).contains("\"admin\": \"disabled\""));
    let mut client = baton.client();
    for user in users.keys() {
        assert_eq!(server_of(&mut client, user), "1");
    }
    assert_eq!(baton.done(&["server", "enable", "app/app1"]), "server app/app1 is enabled now, with 0 sessions\n");
    let served: BTreeSet<String> = (0..4).map(|user| server_of(&mut client, &format!("new{user}"))).collect();
    assert_eq!(served.len(), 2, "both serve again");
}

#[test]
fn administrative_state_outlives_a_worker() {
    let servers = two_servers();
    let baton = by_user(&servers);
    baton.done(&["server", "drain", "app/app1"]);
    baton.done(&["server", "disable", "app/app2"]);
    baton.done(&["server", "enable", "app/app2"]);
    // At once: what was said is kept by the time that it is said to be done.
    kill_process(baton.worker(), Signal::KILL).expect("the worker runs");
    baton.wait_for_logs(2, "worker serves");
    until("a status of the new worker", || server_status(&baton, 0)["admin"] == "draining");
    assert_eq!(server_status(&baton, 1)["admin"], "enabled");
    let mut client = baton.client();
    for user in 0..6 {
        assert_eq!(server_of(&mut client, &format!("new{user}")), "1");
    }
}

#[test]
fn administrative_state_outlives_a_restart_of_the_only_node() {
    let servers = two_servers();
    let mut baton = by_user(&servers);
    baton.done(&["server", "drain", "app/app1"]);
    baton.terminate();
    assert!(baton.wait().success());
    baton.start_again();
    until("a status of the next start", || server_status(&baton, 0)["admin"] == "draining");
    assert_eq!(server_of(&mut baton.client(), "new"), "1");
    // What is said now is newer than what was kept.
    baton.done(&["server", "enable", "app/app1"]);
    baton.done(&["server", "disable", "app/app2"]);
    until("it to be on the disk", || {
        std::fs::read_to_string(baton.state_file("servers")).is_ok_and(|text| text.matches("\"version\"").count() == 2)
    });
    baton.kill();
    baton.wait();
    baton.start_again();
    until("a status of the next start", || server_status(&baton, 1)["admin"] == "disabled");
    assert_eq!(server_status(&baton, 0)["admin"], "enabled");
}

#[test]
fn damaged_administrative_state_is_set_aside_and_reported() {
    let servers = two_servers();
    let mut baton = by_user(&servers);
    baton.done(&["server", "drain", "app/app1"]);
    baton.terminate();
    assert!(baton.wait().success());
    std::fs::write(baton.state_file("servers"), "something else").expect("it is writable");
    baton.start_again();
    let warnings = baton.status()["warnings"].to_string();
    assert!(warnings.contains("servers.damaged; drain and disable servers again"), "{warnings}");
    assert_eq!(server_status(&baton, 0)["admin"], "enabled");
    assert!(baton.state_file("servers.damaged").exists());
    baton.done(&["server", "disable", "app/app1"]);
    until("the warning to go", || !baton.status()["warnings"].to_string().contains("servers.damaged"));
}

#[test]
fn questions_to_a_worker_that_hangs_are_answered_with_an_error() {
    let servers = two_servers();
    let baton = by_user(&servers);
    let worker = baton.worker();
    kill_process(worker, Signal::STOP).expect("the worker runs");
    let begun = Instant::now();
    let refused = baton.refused(&["sessions", "list"]);
    assert!(refused.contains("the worker did not answer within 4 s") || refused.contains("the worker does not answer"));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    // The guard goes on: it can say how it is.
    until("the guard to see it", || json(&baton.done(&["status", "--json"]))["worker"]["state"] == "hung");
    let refused = baton.refused(&["server", "drain", "app/app1"]);
    assert!(refused.ends_with("the worker does not answer"), "{refused}");
    kill_process(worker, Signal::CONT).expect("the worker is there");
    until("the worker to answer again", || baton.command(&["sessions", "list"]).0);
}

/// A program with an admin listener.
struct Admin {
    baton: Baton,
    port: Port,
    _token: Directory,
}

impl Admin {
    fn new(servers: &[Server], has_token: bool) -> Self {
        let (port, directory) = (Port::reserve(), Directory::new());
        let file = directory.path("token");
        fs::write(&file, format!("{TOKEN}\n")).expect("the directory is writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        let token = if has_token { format!("token_file = \"{}\"", file.display()) } else { String::new() };
        let admin = format!("[admin]\nbind = \"{}\"\nhosts = [\"lb.example.com\"]\n{token}\n", port.address());
        let settings = Settings { pool: format!("{BY_USER}\n{admin}"), ..Settings::default() };
        let baton = Baton::with(&servers.iter().collect::<Vec<_>>(), &settings);
        Self { baton, port, _token: directory }
    }

    fn address(&self) -> SocketAddr {
        self.port.address()
    }

    fn ask(&self, method: &str, target: &str, fields: &str) -> Message {
        let host = self.address();
        Client::connect(host).ask(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
    }

    fn change(&self, method: &str, target: &str) -> Message {
        self.ask(method, target, &format!("Authorization: Bearer {TOKEN}\r\n"))
    }
}

/// The samples of a page of metrics, by name and labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}")));
    samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

#[test]
fn metrics_say_what_the_program_did() {
    let servers = two_servers();
    let admin = Admin::new(&servers, false);
    let users = users(&admin.baton, 12);
    let on_first = users.values().filter(|server| *server == "0").count();
    let page = || {
        let message = admin.ask("GET", "/metrics", "");
        assert_eq!(message.status(), 200);
        assert_eq!(message.value("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        samples(&message.text())
    };
    // What the guard knows of requests and sessions comes with the worker's reports.
    until("the requests to be counted", || page().get("baton_requests_total") == Some(&12.0));
    let samples = page();
    let expected = [
        (r#"baton_sessions{pool="app",server="app1"}"#, on_first as f64),
        (r#"baton_sessions{pool="app",server="app2"}"#, (12 - on_first) as f64),
        (r#"baton_sessions_limit{pool="app"}"#, 1_000_000.0),
        (r#"baton_server_requests_total{pool="app",server="app1"}"#, on_first as f64),
        (r#"baton_server_up{pool="app",server="app1"}"#, 1.0),
        (r#"baton_server_admin{pool="app",server="app1",state="enabled"}"#, 1.0),
        ("baton_worker_up", 1.0),
        ("baton_worker_restarts_total", 0.0),
        ("baton_connections", 0.0),
    ];
    for (sample, value) in expected {
        if sample == "baton_connections" {
            until("the client to be gone", || page().get(sample) == Some(&value));
        } else {
            assert_eq!(samples.get(sample), Some(&value), "{sample}");
        }
    }
    let mut client = Client::connect(admin.address());
    client.send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the connection is open");
    assert_eq!(client.head().expect("a head comes").status(), 200);
    client.expect_closed();
}

/// A browser can be made to ask here under a name that leads elsewhere as well (DNS rebinding).
#[test]
fn who_asks_under_a_name_that_is_not_ours_is_refused() {
    let servers = two_servers();
    let admin = Admin::new(&servers, false);
    let status = |host: &str, target: &str| {
        let message = Client::connect(admin.address()).ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        message.status()
    };
    for target in ["/metrics", "/v1/status", "/v1/sessions"] {
        assert_eq!(status("evil.example", target), 403, "{target}");
        for host in ["localhost", "lb-test:9909", "LB.example.com", "192.0.2.7:80"] {
            assert_eq!(status(host, target), 200, "{target} of {host}");
        }
    }
}

#[test]
fn api_shows_status_and_sessions() {
    let servers = two_servers();
    let admin = Admin::new(&servers, false);
    users(&admin.baton, 5);
    let status = json(&admin.ask("GET", "/v1/status", "").text());
    assert_eq!((status["node"].as_str(), status["pools"][0]["name"].as_str()), (Some("lb-test"), Some("app")));
    let first = json(&admin.ask("GET", "/v1/sessions?pool=app&limit=3", "").text());
    assert_eq!(first["sessions"].as_array().map(Vec::len), Some(3));
    let next = first["next"].as_str().expect("there are more");
    let rest = json(&admin.ask("GET", &format!("/v1/sessions?after={next}&limit=3"), "").text());
    assert_eq!((rest["sessions"].as_array().map(Vec::len), rest["next"].is_null()), (Some(2), true));
    for (target, status) in [
        ("/v1/sessions?pool=ap", 404),
        ("/v1/sessions?limit=0", 400),
        ("/v1/sessions?limit=5001", 400),
        ("/v1/sessions?pol=app", 400),
        ("/v1/sessions?pool=%ff", 400),
        ("/v1/nothing", 404),
        ("/", 404),
    ] {
        assert_eq!(admin.ask("GET", target, "").status(), status, "{target}");
    }
    let wrong = admin.ask("PUT", "/v1/status", "");
    assert_eq!((wrong.status(), wrong.value("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn api_changes_nothing_without_a_token() {
    let servers = two_servers();
    let admin = Admin::new(&servers, false);
    users(&admin.baton, 5);
    let refused = admin.change("DELETE", "/v1/sessions?all=true");
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("has no [admin] token_file"), "{}", refused.text());
    assert_eq!(admin.change("POST", "/v1/servers/app/app1/drain").status(), 403);
    let with_token = Admin::new(&servers, true);
    users(&with_token.baton, 5);
    for fields in ["", "Authorization: Bearer x\r\n", &format!("Authorization: Basic {TOKEN}\r\n")] {
        let refused = with_token.ask("DELETE", "/v1/sessions?all=true", fields);
        assert_eq!((refused.status(), refused.value("www-authenticate")), (401, Some("Bearer")));
    }
    let foreign = format!("Authorization: Bearer {TOKEN}\r\nOrigin: http://evil.example\r\n");
    assert_eq!(with_token.ask("POST", "/v1/servers/app/app1/disable", &foreign).status(), 403);
    let rebound =
        format!("DELETE /v1/sessions?all=true HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    assert_eq!(Client::connect(with_token.address()).ask(rebound).status(), 403);
    let absolute = format!(
        "POST http://evil.example/v1/servers/app/app1/disable HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
        with_token.address()
    );
    assert_eq!(Client::connect(with_token.address()).ask(absolute).status(), 400);
    for admin in [&admin, &with_token] {
        assert_eq!(json(&admin.baton.done(&["sessions", "show", "--json"]))["entries"].as_u64(), Some(5));
        assert_eq!(server_status(&admin.baton, 0)["admin"], "enabled");
    }
}

#[test]
fn api_drains_servers_and_removes_sessions_with_the_token() {
    let servers = two_servers();
    let admin = Admin::new(&servers, true);
    let users = users(&admin.baton, 5);
    let drained = admin.change("POST", "/v1/servers/app/app1/drain");
    assert_eq!((drained.status(), json(&drained.text())["admin"].as_str()), (200, Some("draining")));
    until("the status to say so", || server_status(&admin.baton, 0)["admin"] == "draining");
    assert_eq!(admin.change("POST", "/v1/servers/app/app9/drain").status(), 404);
    assert_eq!(admin.change("POST", "/v1/servers/app/app1/stop").status(), 404);
    assert_eq!(admin.change("DELETE", "/v1/sessions").status(), 400);
    assert_eq!(admin.change("DELETE", "/v1/sessions?pool=app&all=true").status(), 400);
    let removed = admin.change("DELETE", "/v1/sessions?key=user1");
    assert_eq!((removed.status(), json(&removed.text())["removed"].as_u64()), (200, Some(1)));
    let removed = admin.change("DELETE", "/v1/sessions?all=true");
    assert_eq!(json(&removed.text())["removed"].as_u64(), Some(users.len() as u64 - 1));
}

/// The guard is asked once for all who ask while it is being asked, and lists are made one after the other.
#[test]
fn everybody_who_asks_at_once_is_answered() {
    let servers = two_servers();
    let admin = Admin::new(&servers, false);
    users(&admin.baton, 5);
    std::thread::scope(|scope| {
        for asker in 0..12 {
            let (admin, target) = (&admin, ["/v1/status", "/metrics", "/v1/sessions"][asker % 3]);
            scope.spawn(move || {
                for _ in 0..20 {
                    let answer = admin.ask("GET", target, "");
                    assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
                }
            });
        }
    });
    assert_eq!(server_status(&admin.baton, 0)["admin"], "enabled");
}

#[test]
fn slow_and_many_clients_of_the_admin_listener_harm_nobody_else() {
    let servers = two_servers();
    let admin = Admin::new(&servers, false);
    let local: IpAddr = "127.0.0.1".parse().expect("an address");
    let slow: Vec<TcpStream> =
        (0..32).map(|_| TcpStream::connect((local, admin.address().port())).expect("the listener accepts")).collect();
    assert_eq!(admin.baton.client().get("/").status(), 200, "clients are served");
    // One more takes the place of the oldest, long before that one's head is overdue.
    let begun = Instant::now();
    assert_eq!(admin.ask("GET", "/v1/status", "").status(), 200);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let mut nothing = [0; 1];
    slow[0].set_read_timeout(Some(Duration::from_secs(4))).expect("it is a time");
    assert_eq!((&slow[0]).read(&mut nothing).expect("it is closed"), 0);
    drop(slow);
    let large = admin.ask("POST", "/v1/servers/app/app1/drain", "Content-Length: 5000\r\n");
    assert_eq!(large.status(), 413);
}
