//! A new worker under the same sockets, for a setting that the one that runs cannot change over to: what clients of every
//! kind see of it, which is nothing but the advice to come back on another connection.

use std::collections::BTreeMap;

use crate::PATIENCE;
use crate::baton::Baton;
use crate::client::Client;
use crate::h2_wire::{self, Event, H2};
use crate::reload::{Load, pool, upload};
use crate::server::{Port, Server};

fn worker(threads: usize) -> String {
    format!("[worker]\nthreads = {threads}\ndrain_timeout = \"8s\"\n")
}

/// Asks on a kept connection, and on another one where it is told to.
fn ask_kept(baton: std::net::SocketAddr) -> impl FnMut() + Send {
    let mut client = Client::connect(baton);
    move || {
        let response = client.get("/kept");
        assert_eq!(response.status(), 200);
        if response.value("connection") == Some("close") {
            client.expect_closed();
            client = Client::connect(baton);
        }
    }
}

/// Asks on a kept connection of HTTP/2, one stream after the other, and on another one once it is told to go away. A stream
/// that the program has not seen by its own word is asked again.
fn ask_http2(baton: std::net::SocketAddr) -> impl FnMut() + Send {
    let (mut client, mut stream, mut last) = (H2::connect(baton), 1, None);
    move || {
        // With room for one more response, as its connection has room for so many bytes in all.
        let request = || [h2_wire::window_update(0, 16), h2_wire::get(stream)].concat();
        let is_open = last.is_none() && client.try_send(&request());
        let mut is_answered = !is_open;
        while is_open && !is_answered {
            match client.event(PATIENCE).expect("an answer in time") {
                Event::Head(of, Some(status), is_end) if of == stream => {
                    assert_eq!(status, 200);
                    is_answered = is_end;
                }
                Event::Data(of, _, is_end) if of == stream => is_answered = is_end,
                Event::Goaway(code) => {
                    assert_eq!(code, 0);
                    last = Some(stream);
                }
                Event::Reset(of, code) => panic!("stream {of} was reset with {code}"),
                Event::Closed if last.is_some() => break,
                Event::Closed => panic!("closed without a word"),
                _ => {}
            }
        }
        stream += 2;
        if last.is_some() || !is_open {
            (client, stream, last) = (H2::connect(baton), 1, None);
        }
    }
}

#[test]
fn another_number_of_threads_is_taken_over_to_and_no_request_fails() {
    let servers = ["one", "two"].map(Server::saying);
    let [one, two] = [0, 1].map(|index: usize| servers[index].address());
    let slow = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")?;
        }
    });
    let blocks = |threads: usize| {
        let by_user = "[pool.sticky]\nby = \"header\"\nname = \"X-User\"\n";
        let route = "[[route]]\nlistener = \"http\"\nhost = \"slow.example\"\npool = \"slow\"\n";
        let (app, slow) = (pool("app", &[("a", one), ("b", two)], by_user), pool("slow", &[("s", slow.address())], ""));
        [app, slow, route.to_owned(), worker(threads)].concat()
    };
    let listener = "pool = \"app\"\nhttp2 = true\n";
    let baton = Baton::run(listener, &blocks(1));
    let address = baton.address();
    let who = |user: usize| baton.client().ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n")).text();
    let users: BTreeMap<usize, String> = (0..40).map(|user| (user, who(user))).collect();
    assert!(users.values().any(|server| server == "one") && users.values().any(|server| server == "two"));
    let mut load = Load::new();
    load.add(ask_kept(address));
    load.add(ask_kept(address));
    load.add(move || assert_eq!(Client::connect(address).get("/new").status(), 200));
    load.add(ask_http2(address));
    load.add(move || upload(&mut Client::connect(address)));
    load.goes_on(3);
    let guard = baton.status()["guard_pid"].clone();
    for turn in 1..=10 {
        let before = baton.status()["worker"]["pid"].clone();
        let mut idle = baton.client();
        assert_eq!(idle.get("/").status(), 200);
        baton.write_config(listener, &blocks(1 + turn % 4));
        let said = baton.done(&["reload"]);
        assert!(said.contains("worker.threads has changed") && said.contains("a new worker serves"), "{said}");
        // A connection that was idle may ask once more.
        let last = idle.get("/");
        assert_eq!((last.status(), last.value("connection")), (200, Some("close")));
        let status = baton.status();
        assert_eq!((&status["guard_pid"], &status["takeovers"]), (&guard, &turn.into()), "{status:#}");
        assert_eq!(status["worker"]["threads"], 1 + turn % 4);
        assert_ne!(status["worker"]["pid"], before);
        users.iter().for_each(|(user, server)| assert_eq!(&who(*user), server, "user {user} in turn {turn}"));
        load.goes_on(3);
    }
    load.end();
    baton.wait_for_status(|status| status["worker"]["finishing"] == 0);
}

#[test]
fn what_is_under_way_is_finished_by_the_worker_before() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        loop {
            let bytes = exchange.some(1024)?;
            if bytes.is_empty() {
                return Ok(());
            }
            exchange.send(bytes)?;
        }
    });
    let admin = Port::reserve();
    let app = pool("app", &[("a", server.address())], "");
    let baton = Baton::run("pool = \"app\"\n", &[&app, &worker(1)[..]].concat());
    let mut tunnel = baton.client();
    tunnel.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert_eq!(tunnel.head().expect("a head").start, "HTTP/1.1 101 Switching Protocols");
    let admin_block = format!("[admin]\nbind = \"{}\"\n", admin.address());
    baton.write_config("pool = \"app\"\n", &[&app, &admin_block, &worker(1)[..]].concat());
    assert!(baton.done(&["reload"]).contains("[admin] has changed"));
    let mut asked = Client::connect(admin.address());
    assert_eq!(asked.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").status(), 200);
    tunnel.send("still there").unwrap();
    assert_eq!(tunnel.exactly(11).expect("an echo"), b"still there");
    assert_eq!(baton.status()["worker"]["finishing"], 1);
    tunnel.finish();
    baton.wait_for_status(|status| status["worker"]["finishing"] == 0);
    baton.wait_for_log("a worker that another one has taken over from has ended");
}

#[test]
fn hangup_takes_over_too_and_a_node_that_has_taken_over_stops_as_any_other() {
    let server = Server::saying("fine");
    let app = pool("app", &[("a", server.address())], "");
    let mut baton = Baton::run("pool = \"app\"\n", &[&app, &worker(1)[..]].concat());
    baton.write_config("pool = \"app\"\n", &[&app, &worker(2)[..]].concat());
    baton.hang_up();
    baton.wait_for_status(|status| status["takeovers"] == 1 && status["is_taking_over"] == false);
    assert_eq!(baton.client().get("/").text(), "fine");
    rustix::process::kill_process(baton.worker(), rustix::process::Signal::KILL).unwrap();
    baton.wait_for_logs(3, "worker serves");
    assert_eq!(baton.client().get("/").text(), "fine");
    baton.terminate();
    assert!(baton.wait().success());
}
