//! `baton reload` and SIGHUP: another configuration under load, and one that cannot be used.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::Baton;
use crate::client::Client;
use crate::h2_wire::{self, H2};
use crate::server::{Port, Server};

const WORKER: &str = "[worker]\nthreads = 2\n";

pub fn pool(name: &str, servers: &[(&str, SocketAddr)], keys: &str) -> String {
    let servers: Vec<_> =
        servers.iter().map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }}")).collect();
    format!("[[pool]]\nname = \"{name}\"\nservers = [{}]\n{keys}\n", servers.join(", "))
}

fn listener(name: &str, address: SocketAddr, pool: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\nbind = [\"{address}\"]\npool = \"{pool}\"\n")
}

fn route(host: &str, pool: &str) -> String {
    format!("[[route]]\nlistener = \"http\"\nhost = \"{host}\"\npool = \"{pool}\"\n")
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Somebody who asks over and over, until told to stop; counts what was answered.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<(JoinHandle<()>, Arc<AtomicU64>)>,
}

impl Load {
    pub fn new() -> Self {
        Self { stop: Arc::default(), clients: Vec::new() }
    }

    /// `ask` makes one request and fails the test where it is not answered as it has to be.
    pub fn add(&mut self, mut ask: impl FnMut() + Send + 'static) {
        let (stop, count) = (Arc::clone(&self.stop), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&count);
        let run = move || {
            while !stop.load(Ordering::SeqCst) {
                ask();
                counted.fetch_add(1, Ordering::SeqCst);
            }
        };
        self.clients.push((std::thread::spawn(run), count));
    }

    /// Waits until each has been answered so many times since.
    pub fn goes_on(&self, times: u64) {
        let before: Vec<u64> = self.clients.iter().map(|(_, count)| count.load(Ordering::SeqCst)).collect();
        until("every client to be answered", || {
            self.clients.iter().zip(&before).all(|((thread, count), before)| {
                assert!(!thread.is_finished(), "a client has failed");
                count.load(Ordering::SeqCst) >= before + times
            })
        });
    }

    pub fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().for_each(|(thread, _)| thread.join().expect("no request has failed"));
    }
}

/// Sends a body byte by byte to the server that answers `slow`.
pub fn upload(client: &mut Client) {
    client.send("POST /u HTTP/1.1\r\nHost: slow.example\r\nContent-Length: 6\r\n\r\n").unwrap();
    for byte in ["a", "b", "c", "d", "e", "f"] {
        std::thread::sleep(Duration::from_millis(10));
        client.send(byte).unwrap();
    }
    assert_eq!(client.response().text(), "slow");
}

#[test]
fn a_hundred_reloads_under_load_fail_no_request_and_close_no_kept_connection() {
    let servers = ["one", "two", "three"].map(Server::saying);
    let [one, two, three] = [0, 1, 2].map(|index: usize| servers[index].address());
    let slow = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")?;
        }
    });
    let further = Port::reserve();
    let first = [
        pool("app", &[("a", one), ("b", two)], "response_headers = { set = { X-File = \"first\" } }"),
        pool("slow", &[("s", slow.address())], ""),
        route("slow.example", "slow"),
        WORKER.to_owned(),
    ]
    .concat();
    let second = [
        pool("slow", &[("s", slow.address())], ""),
        pool("other", &[("c", three)], ""),
        pool("app", &[("b", two), ("c", three)], "response_headers = { set = { X-File = \"second\" } }"),
        listener("further", further.address(), "other"),
        route("slow.example", "slow"),
        route("other.example", "other"),
        WORKER.to_owned(),
    ]
    .concat();
    let baton = Baton::run("pool = \"app\"\nhttp2 = true\n", &first);
    let address = baton.address();
    let mut load = Load::new();
    for _ in 0..3 {
        let mut client = baton.client();
        load.add(move || assert_eq!(client.get("/kept").status(), 200));
    }
    load.add(move || assert_eq!(Client::connect(address).get("/new").status(), 200));
    for _ in 0..2 {
        let (mut client, mut stream) = (H2::connect(address), 1);
        load.add(move || {
            // With room on the connection for its response: that of the beginning lasts for 19,000 of them.
            client.send(&[h2_wire::window_update(0, 16), h2_wire::get(stream)].concat());
            assert_eq!(client.response(stream).0, 200);
            stream += 2;
        });
    }
    let mut uploading = baton.client();
    load.add(move || upload(&mut uploading));
    load.goes_on(3);
    let mut kept = baton.client();
    for turn in 0..100 {
        let (blocks, name) = if turn % 2 == 0 { (&second, "second") } else { (&first, "first") };
        baton.write_config("pool = \"app\"\nhttp2 = true\n", blocks);
        let said = baton.done(&["reload"]);
        assert!(said.contains("pool app has changed: "), "{said}");
        // At the next request on a connection that was there before.
        assert_eq!(kept.get("/file").value("x-file"), Some(name), "turn {turn}");
        if turn % 2 == 0 {
            assert_eq!(Client::connect(further.address()).get("/").text(), "three");
        } else {
            until("the listener to be gone", || TcpStream::connect(further.address()).is_err());
        }
    }
    load.goes_on(3);
    load.end();
    let status = baton.status();
    assert_eq!(status["worker"]["restarts"], 0, "{status:#}");
    assert_eq!(status["refused_reload"], serde_json::Value::Null);
    let pools = status["pools"].as_array().unwrap();
    let app = pools.iter().find(|pool| pool["name"] == "app").unwrap();
    assert!(app["requests"].as_u64().unwrap() >= 100, "what stays is counted on: {app:#}");
}

#[test]
fn a_wrong_file_is_refused_whole_and_the_one_before_stays() {
    let server = Server::saying("fine");
    let app = pool("app", &[("a", server.address())], "");
    let baton = Baton::run("pool = \"app\"\n", &[&app, WORKER].concat());
    let before = baton.status()["config_checksum"].clone();
    let mut client = baton.client();
    assert_eq!(client.get("/").text(), "fine");
    baton.write_config("pool = \"gone\"\nno_such_key = 1\n", &[&app, WORKER].concat());
    let refused = baton.refused(&["reload"]);
    assert!(refused.contains("gone") && refused.contains("no_such_key"), "both mistakes are told: {refused}");
    assert_eq!(client.get("/").text(), "fine");
    let status = baton.status();
    assert_eq!(status["config_checksum"], before);
    assert!(status["refused_reload"]["reason"].as_str().unwrap().contains("no_such_key"), "{status:#}");
    baton.wait_for_log("the reload is refused");
    assert!(baton.done(&["status"]).contains("the last reload was refused"));
    baton.write_config("pool = \"app\"\n", &[&app, "[worker]\nthreads = 0\nuser = \"no-such-user\"\n"].concat());
    let refused = baton.refused(&["reload"]);
    assert!(refused.contains("threads") && refused.contains("no-such-user"), "both mistakes are told: {refused}");
    baton.write_config("pool = \"app\"\nidle_timeout = \"50s\"\n", &[&app, WORKER].concat());
    assert_eq!(baton.done(&["reload"]), "listener http has changed: other settings\n");
    assert_eq!(baton.status()["refused_reload"], serde_json::Value::Null);
    assert_eq!(baton.done(&["reload"]), "nothing has changed\n");
}

#[test]
fn a_listener_whose_port_is_taken_is_refused_with_all_that_comes_with_it() {
    let server = Server::saying("fine");
    let app = pool("app", &[("a", server.address())], "");
    let baton = Baton::run("pool = \"app\"\n", &[&app, WORKER].concat());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let further = listener("further", taken.local_addr().unwrap(), "app");
    baton.write_config(
        "pool = \"app\"\n[listener.response_headers]\nset = { X-New = \"1\" }\n",
        &[&app, &further, WORKER].concat(),
    );
    let refused = baton.refused(&["reload"]);
    assert!(refused.contains("listener further cannot bind") && refused.contains("another program"), "{refused}");
    assert_eq!(baton.client().get("/").value("x-new"), None);
    drop(taken);
    baton.done(&["reload"]);
    assert_eq!(baton.client().get("/").value("x-new"), Some("1"));
}

#[test]
fn users_and_drained_servers_stay_where_they_are_when_pools_and_servers_change_places() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let [zero, one, two] = [0, 1, 2].map(|index: usize| servers[index].address());
    let by_user = "[pool.sticky]\nby = \"header\"\nname = \"X-User\"\n";
    let other = pool("other", &[("x", two)], "");
    let app = pool("app", &[("s0", zero), ("s1", one)], by_user);
    let baton = Baton::run("pool = \"app\"\n", &[&app, &other, WORKER].concat());
    let who =
        |user: usize| baton.client().ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: user{user}\r\n\r\n")).text();
    let users: BTreeMap<usize, String> = (0..40).map(|user| (user, who(user))).collect();
    assert!(users.values().any(|server| server == "0") && users.values().any(|server| server == "1"));
    baton.done(&["server", "drain", "app/s0"]);
    let app = pool("app", &[("s2", two), ("s1", one), ("s0", zero)], by_user);
    let turns = [[&other, &app, WORKER].concat(), [&app, &other, WORKER].concat()];
    for turn in turns.iter().cycle().take(6) {
        baton.write_config("pool = \"app\"\n", turn);
        baton.done(&["reload"]);
        users.iter().for_each(|(user, server)| assert_eq!(&who(*user), server, "user{user}"));
    }
    let status = baton.status();
    let app = status["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == "app").unwrap().clone();
    let admin = |name: &str| {
        let servers = app["servers"].as_array().unwrap();
        servers.iter().find(|server| server["name"] == name).unwrap()["admin"].clone()
    };
    assert_eq!((admin("s0"), admin("s1")), ("draining".into(), "enabled".into()));
    assert!((100..130).all(|user| who(user) != "0"), "a drained server gets no new users");
    let counted = baton.done(&["sessions", "list", "--limit", "1000"]);
    assert_eq!(counted.lines().count(), 71, "{counted}");
    assert!(counted.lines().filter(|line| line.contains(" s0 ")).count() >= 1, "{counted}");
}

#[test]
fn sighup_reloads_too_and_a_worker_that_dies_comes_back_with_what_is_in_use() {
    let servers = ["old", "new"].map(Server::saying);
    let [old, new] = [0, 1].map(|index: usize| servers[index].address());
    let further = Port::reserve();
    let baton = Baton::run("pool = \"app\"\n", &[&pool("app", &[("a", old)], ""), WORKER].concat());
    assert_eq!(baton.client().get("/").text(), "old");
    let mut kept = Client::connect(baton.address());
    assert_eq!(kept.get("/").text(), "old");
    let blocks = [&pool("app", &[("a", new)], ""), &listener("further", further.address(), "app"), WORKER].concat();
    baton.write_config("pool = \"app\"\n", &blocks);
    baton.hang_up();
    baton.wait_for_log("the configuration was reloaded");
    assert_eq!(kept.get("/").text(), "new");
    assert_eq!(Client::connect(further.address()).get("/").text(), "new");
    rustix::process::kill_process(baton.worker(), rustix::process::Signal::KILL).unwrap();
    baton.wait_for_logs(2, "worker serves");
    assert_eq!(baton.client().get("/").text(), "new");
    assert_eq!(Client::connect(further.address()).get("/").text(), "new");
}

#[test]
fn connections_of_a_listener_that_is_gone_end_after_the_request_under_way() {
    let server = Server::start(|exchange| {
        loop {
            let request = exchange.request()?;
            if request.start.contains("/slow") {
                std::thread::sleep(Duration::from_millis(300));
            }
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    });
    let further = Port::reserve();
    let app = pool("app", &[("a", server.address())], "");
    let with = [&app, &listener("further", further.address(), "app"), WORKER].concat();
    let baton = Baton::run("pool = \"app\"\n", &with);
    let [mut idle, mut busy] = [(); 2].map(|()| Client::connect(further.address()));
    assert_eq!(idle.get("/").text(), "ok");
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    until("the request to be under way", || server.requests().len() >= 2);
    baton.write_config("pool = \"app\"\n", &[&app, WORKER].concat());
    assert_eq!(baton.done(&["reload"]), "listener further is gone\n");
    idle.expect_closed();
    let response = busy.response();
    assert_eq!((response.text().as_str(), response.value("connection")), ("ok", Some("close")));
    busy.expect_closed();
}

/// A pipe, whose open(2) waits for somebody who writes to it.
#[test]
fn a_pipe_in_place_of_the_file_is_refused_and_keeps_neither_reload_nor_stop_waiting() {
    let server = Server::saying("fine");
    let blocks = [pool("app", &[("a", server.address())], ""), WORKER.to_owned()].concat();
    let mut baton = Baton::run("pool = \"app\"\n", &blocks);
    baton.put_pipe();
    let refused = baton.refused(&["reload"]);
    assert!(refused.contains("failed to read the configuration: it is not a file"), "{refused}");
    assert!(baton.done(&["status"]).contains("the last reload was refused"));
    baton.write_config("pool = \"app\"\nidle_timeout = \"50s\"\n", &blocks);
    assert_eq!(baton.done(&["reload"]), "listener http has changed: other settings\n");
    baton.put_pipe();
    baton.hang_up();
    baton.terminate();
    assert!(baton.wait().success());
}
