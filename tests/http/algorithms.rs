//! How servers are picked: algorithms, weights, zones, and what happens when few are healthy or one comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::server::Server;

/// A pool of these servers, each with keys of its own; one thread.
fn run(servers: &[(&Server, &str)], pool: &str) -> Baton {
    run_with(servers, pool, "", "")
}

fn run_with(servers: &[(&Server, &str)], pool: &str, listener: &str, others: &str) -> Baton {
    let server = |(index, (server, keys)): (usize, &(&Server, &str))| {
        let (number, address) = (index + 1, server.address());
        format!("{{ name = \"app{number}\", address = \"{address}\"{keys} }}")
    };
    let servers: Vec<_> = servers.iter().enumerate().map(server).collect();
    let servers = servers.join(", ");
    let blocks = format!("[[pool]]\nname = \"app\"\nservers = [{servers}]\n{pool}\n[worker]\nthreads = 1\n{others}");
    Baton::run(&format!("pool = \"app\"\n{listener}"), &blocks)
}

fn named<const N: usize>(names: [&'static str; N]) -> [Server; N] {
    names.map(Server::saying)
}

/// Who answers, over so many requests.
fn answers(client: &mut Client, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        *answers.entry(client.get("/").text()).or_insert(0) += 1;
    }
    answers
}

fn counted<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
    }
}

/// A server that answers when the test lets it, with its name.
fn held(name: &'static str) -> Server {
    Server::start(move |exchange| {
        loop {
            exchange.request()?;
            exchange.wait_for_signal()?;
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))?;
        }
    })
}

#[test]
fn weights_are_turns_that_are_spread_out() {
    let [a, b, c] = &named(["a", "b", "c"]);
    let baton = run(&[(a, ", weight = 5"), (b, ""), (c, "")], "algorithm = \"weighted_round_robin\"");
    let mut client = baton.client();
    let order: String = (0..14).map(|_| client.get("/").text()).collect();
    assert_eq!(order, "abaaacaabaaaca");
    assert_eq!(baton.status()["pools"][0]["algorithm"], "weighted_round_robin");
    assert_eq!(baton.status()["pools"][0]["servers"][0]["effective_weight"], 5.0);
}

#[test]
fn server_of_weight_0_gets_no_new_clients_and_keeps_its_own() {
    let [a, b] = &named(["a", "b"]);
    for algorithm in ["round_robin", "weighted_round_robin", "least_connections", "ip_hash", "random", "power_of_two"] {
        let baton = run(&[(a, ", weight = 0"), (b, "")], &format!("algorithm = \"{algorithm}\""));
        assert_eq!(answers(&mut baton.client(), 10), counted([("b", 10)]), "{algorithm}");
    }
    let baton = run(&[(a, ", weight = 0"), (b, ", weight = 0")], "");
    let response = baton.client().get("/");
    assert_eq!(response.status(), 503);
    assert_eq!(response.text(), "503 Service Unavailable\nno server of pool app takes new clients\n");
}

#[test]
fn least_connections_leave_a_server_alone_that_is_slow() {
    let (slow, fast) = (held("slow"), Server::saying("fast"));
    let baton = run(&[(&slow, ""), (&fast, "")], "algorithm = \"least_connections\"");
    let mut waiting = baton.client();
    waiting.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    slow.wait_until("a request", |record| record.requests.len() == 1);
    assert_eq!(answers(&mut baton.client(), 20), counted([("fast", 20)]));
    wait_until("the status to say so", || {
        let servers = &baton.status()["pools"][0]["servers"];
        servers[0]["in_flight"] == 1 && servers[1]["in_flight"] == 0
    });
    slow.signal();
    assert_eq!(waiting.response().text(), "slow");
    wait_until("the count to go down", || baton.status()["pools"][0]["servers"][0]["in_flight"] == 0);
    // Both are idle: they take turns.
    (0..10).for_each(|_| slow.signal());
    let answers = answers(&mut baton.client(), 10);
    assert!(answers["fast"] >= 4 && answers["slow"] >= 4, "{answers:?}");
}

#[test]
fn least_response_time_leaves_a_server_alone_that_was_slow_once() {
    let slow = Server::start(|exchange| {
        loop {
            exchange.request()?;
            // Long beside what the other one takes, however busy the machine is.
            std::thread::sleep(Duration::from_millis(500));
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")?;
        }
    });
    let fast = Server::saying("fast");
    let baton = run(&[(&slow, ""), (&fast, "")], "algorithm = \"least_response_time\"");
    let answers = answers(&mut baton.client(), 50);
    // The other one may be held up by the machine now and then.
    assert!(answers["fast"] >= 45 && answers["slow"] >= 1, "{answers:?}");
}

#[test]
fn power_of_two_and_random_use_every_server() {
    let [a, b] = &named(["a", "b"]);
    for algorithm in ["power_of_two", "random"] {
        let baton = run(&[(a, ""), (b, "")], &format!("algorithm = \"{algorithm}\""));
        // That one gets none of 60 happens once in 10^18.
        assert_eq!(answers(&mut baton.client(), 60).len(), 2, "{algorithm}");
    }
}

#[test]
fn consistent_hash_keeps_keys_where_they_are_when_a_server_is_drained() {
    let servers = &named(["a", "b", "c", "d"]);
    let [a, b, c, d] = servers;
    let hash = "algorithm = \"consistent_hash\"\nhash = { on = \"header\", name = \"X-User\" }";
    let baton = run(&[(a, ""), (b, ""), (c, ""), (d, "")], hash);
    let mut client = baton.client();
    let mut placed = || -> Vec<String> {
        let ask = |user: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: user{user}\r\n\r\n");
        (0..100).map(|user| client.ask(ask(user)).text()).collect()
    };
    let before = placed();
    assert_eq!(before, placed(), "a key has one place");
    assert!(servers.iter().all(|server| server.requests().len() >= 10));
    baton.done(&["server", "drain", "app/app2"]);
    let after = placed();
    assert!(before.iter().zip(&after).all(|(old, new)| if old == "b" { new != "b" } else { old == new }));
    baton.done(&["server", "enable", "app/app2"]);
    assert_eq!(before, placed(), "and goes back to it");
    // The same on another node.
    let other = run(&[(a, ""), (b, ""), (c, ""), (d, "")], hash);
    let response = other.client().ask("GET / HTTP/1.1\r\nHost: a\r\nX-User: user7\r\n\r\n");
    assert_eq!(response.text(), before[7]);
    // Without the header there is nothing to hash: they take turns.
    assert_eq!(answers(&mut other.client(), 8), counted([("a", 2), ("b", 2), ("c", 2), ("d", 2)]));
}

#[test]
fn hashes_are_of_what_the_pool_names() {
    let [a, b, c] = &named(["a", "b", "c"]);
    for (on, part) in [
        ("on = \"cookie\", name = \"U\"", "/ HTTP/1.1\r\nHost: a\r\nCookie: x=1; U={}\r\n\r\n"),
        ("on = \"query\", name = \"u\"", "/?x=1&u={} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("on = \"path\"", "/users/{}?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let baton = run(&[(a, ""), (b, ""), (c, "")], &format!("algorithm = \"consistent_hash\"\nhash = {{ {on} }}"));
        let mut client = baton.client();
        let mut seen = BTreeMap::new();
        for round in 0..60 {
            let key = (round % 20).to_string();
            let server = client.ask(format!("GET {}", part.replace("{}", &key))).text();
            assert_eq!(*seen.entry(key).or_insert_with(|| server.clone()), server, "{on}");
        }
        let servers: std::collections::BTreeSet<_> = seen.into_values().collect();
        assert!(servers.len() > 1, "{on}: all went to {servers:?}");
    }
}

#[test]
fn clients_of_one_address_stay_together_with_ip_hash_and_tcp_too() {
    let servers = ["a", "b", "c"].map(|name| {
        Server::start(move |exchange| {
            exchange.send(name)?;
            exchange.wait_for_end()
        })
    });
    let [a, b, c] = &servers;
    for pool in ["algorithm = \"ip_hash\"", "algorithm = \"consistent_hash\""] {
        let baton = run_with(&[(a, ""), (b, ""), (c, "")], pool, "protocol = \"tcp\"", "");
        let mut seen = BTreeMap::new();
        for round in 0..40 {
            let own = format!("127.0.0.{}:0", 10 + round % 20).parse().expect("an address");
            let mut client = Client::connect_from(own, baton.address());
            let name = client.exactly(1).expect("the server speaks");
            assert_eq!(*seen.entry(round % 20).or_insert_with(|| name.clone()), name);
        }
        let servers: std::collections::BTreeSet<_> = seen.into_values().collect();
        assert!(servers.len() > 1, "all went to {servers:?}");
    }
}

#[test]
fn tcp_connections_go_where_the_fewest_are() {
    let servers = ["a", "b"].map(|name| {
        Server::start(move |exchange| {
            exchange.send(name)?;
            exchange.wait_for_end()
        })
    });
    let [a, b] = &servers;
    let pool = "algorithm = \"least_connections\"";
    let baton = run_with(&[(a, ", weight = 3"), (b, "")], pool, "protocol = \"tcp\"", "");
    let mut clients: Vec<_> = (0..40).map(|_| baton.client()).collect();
    let names: Vec<_> = clients.iter_mut().map(|client| client.exactly(1).expect("the server speaks")).collect();
    let on_first = names.iter().filter(|name| name.as_slice() == b"a").count();
    assert_eq!(on_first, 30);
}

const ZONES: &str = "[[node]]\nname = \"lb-test\"\naddress = \"192.0.2.1\"\nzone = \"here\"\n";

#[test]
fn servers_of_the_same_zone_serve_while_enough_of_them_are_healthy() {
    let servers = named(["near1", "near2", "far"]);
    let [near1, near2, far] = &servers;
    let here = ", zone = \"here\"";
    let pool = "zone_threshold = 60";
    let baton = run_with(&[(near1, here), (near2, here), (far, ", zone = \"there\"")], pool, "", ZONES);
    assert_eq!(answers(&mut baton.client(), 10), counted([("near1", 5), ("near2", 5)]));
    assert_eq!(baton.status()["pools"][0]["servers"][2]["zone"], "there");
    // One of two is less than 60 %.
    let health = "zone_threshold = 60\nhealth = { type = \"tcp\", interval = \"100ms\", fall = 1, rise = 1 }";
    let mut servers = servers;
    servers[1].pause();
    let [near1, near2, far] = &servers;
    let baton = run_with(&[(near1, here), (near2, here), (far, ", zone = \"there\"")], health, "", ZONES);
    baton.wait_for_log("server is down");
    assert_eq!(answers(&mut baton.client(), 10), counted([("far", 5), ("near1", 5)]));
}

const CHECKS: &str = "health = { type = \"tcp\", interval = \"100ms\", fall = 1, rise = 1 }";

#[test]
fn all_servers_are_used_when_too_few_are_healthy_and_baton_says_so() {
    // Checks fail and requests do not: the case for which there is a threshold.
    let servers = ["a", "b", "c"].map(|name| {
        Server::start(move |exchange| {
            loop {
                let request = exchange.request()?;
                let status = if request.start.contains("/health") && name != "a" { "503 X" } else { "200 OK" };
                exchange.send(format!("HTTP/1.1 {status}\r\nContent-Length: 1\r\n\r\n{name}"))?;
            }
        })
    });
    let [a, b, c] = &servers;
    let health = "health = { path = \"/health\", interval = \"100ms\", fall = 1, rise = 1 }";
    let baton = run(&[(a, ""), (b, ""), (c, "")], &format!("panic_threshold = 50\n{health}"));
    baton.wait_for_log("too few servers are healthy");
    let mut client = baton.client();
    assert_eq!(answers(&mut client, 9), counted([("a", 3), ("b", 3), ("c", 3)]));
    assert_eq!(baton.status()["pools"][0]["panicking"], true);
    assert!(baton.done(&["status"]).contains("too few servers are healthy, and all of them are used"));
    // Without a threshold the healthy one serves alone.
    let baton = run(&[(a, ""), (b, ""), (c, "")], health);
    wait_until("two servers to be down", || {
        let status = baton.status();
        (1..3).all(|server| status["pools"][0]["servers"][server]["up"] == false)
    });
    assert_eq!(answers(&mut baton.client(), 9), counted([("a", 9)]));
    assert_eq!(baton.status()["pools"][0]["panicking"], false);
}

#[test]
fn server_that_comes_back_is_ramped() {
    let (mut back, other) = (Server::saying("back"), Server::saying("other"));
    back.pause();
    let baton = run(&[(&back, ""), (&other, "")], &format!("slow_start = \"1h\"\n{CHECKS}"));
    baton.wait_for_log("server is down");
    back.resume();
    baton.wait_for_log("server is up");
    // A twentieth of the weight, and so a twenty-first of all requests.
    let answers = answers(&mut baton.client(), 210);
    let of_back = answers.get("back").copied().unwrap_or(0);
    assert!((5..=20).contains(&of_back), "{answers:?}");
    let weight = baton.status()["pools"][0]["servers"][0]["effective_weight"].as_f64().expect("a number");
    assert!((0.03..=0.06).contains(&weight), "{weight}");
    // Those that were there from the beginning are not.
    assert_eq!(baton.status()["pools"][0]["servers"][1]["effective_weight"], 1.0);
}

#[test]
fn ramp_ends_at_the_whole_weight() {
    let (mut back, other) = (Server::saying("back"), Server::saying("other"));
    back.pause();
    let baton = run(&[(&back, ""), (&other, "")], &format!("slow_start = \"300ms\"\n{CHECKS}"));
    baton.wait_for_log("server is down");
    back.resume();
    baton.wait_for_log("server is up");
    wait_until("the whole weight", || baton.status()["pools"][0]["servers"][0]["effective_weight"] == 1.0);
    // What the thread picks by is at most a step behind.
    let deadline = Instant::now() + PATIENCE;
    while answers(&mut baton.client(), 10) != counted([("back", 5), ("other", 5)]) {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn server_gets_what_it_says_is_free_of_it() {
    let saying = |name: &'static str, load: &'static str| {
        Server::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Load: {load}\r\n\r\n{name}", name.len()))
    };
    let (idle, busy) = (saying("idle", "cpu=0.1, mem=20%"), saying("busy", "cpu=0.9, mem=0.3"));
    let baton = run(&[(&idle, ""), (&busy, "")], "algorithm = \"resource\"\nresource = { header = \"X-Load\" }");
    let mut client = baton.client();
    answers(&mut client, 10);
    wait_until("what they say to count", || {
        let servers = &baton.status()["pools"][0]["servers"];
        let weight = |server: usize| servers[server]["effective_weight"].as_f64().expect("a number");
        (0.75..=0.8).contains(&weight(0)) && (0.05..=0.1).contains(&weight(1))
    });
    // 8 : 1, once the thread has looked again.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answers = answers(&mut client, 90);
        if (75..=85).contains(&answers["idle"]) {
            return;
        }
        assert!(Instant::now() < deadline, "{answers:?}");
    }
}

#[test]
fn servers_have_limits_of_their_own() {
    let [small, large] = ["small", "large"].map(held);
    let baton = run(&[(&small, ", connections_max = 1"), (&large, "")], "connections_max = 3");
    let ask = || {
        let mut client = baton.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
        client
    };
    let mut clients: Vec<_> = (0..4).map(|_| ask()).collect();
    small.wait_until("a request", |record| record.requests.len() == 1);
    large.wait_until("three requests", |record| record.requests.len() == 3);
    clients.push(ask());
    wait_until("one to wait", || baton.status()["pools"][0]["queue"]["length"] == 1);
    let status = baton.status();
    assert_eq!(status["pools"][0]["servers"][0]["in_flight_max"], 1);
    assert_eq!(status["pools"][0]["servers"][1]["in_flight_max"], 3);
    small.signal();
    small.wait_until("the one that waited", |record| record.requests.len() == 2);
    small.signal();
    (0..3).for_each(|_| large.signal());
    let answered = clients.iter_mut().map(|client| client.response().text());
    assert_eq!(answered.filter(|name| name == "small").count(), 2);
}

#[test]
fn every_algorithm_serves_with_many_threads_and_a_retry() {
    let (mut dead, alive) = (Server::saying("dead"), Server::saying("alive"));
    dead.pause();
    for algorithm in [
        "weighted_round_robin",
        "least_connections",
        "least_response_time",
        "ip_hash",
        "random",
        "power_of_two",
        "resource",
    ] {
        let pool = format!("algorithm = \"{algorithm}\"");
        let settings = Settings { threads: 4, pool, ..Settings::default() };
        let baton = Baton::with(&[&dead, &alive], &settings);
        for _ in 0..8 {
            assert_eq!(answers(&mut baton.client(), 2), counted([("alive", 2)]), "{algorithm}");
        }
    }
}
