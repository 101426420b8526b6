//! Work that is turned away before it is too much.

use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::h2_wire;
use crate::h2_wire::Event;
use crate::h2_wire::H2;
use crate::limits::wait_for_refusals;
use crate::server::Server;

fn worker(keys: &str) -> Settings {
    Settings { worker: keys.to_owned(), ..Settings::default() }
}

#[test]
fn request_beyond_as_many_as_may_be_under_way_is_503() {
    let server = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.wait_for_signal()?;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    });
    let baton = Baton::with(&[&server], &Settings { threads: 2, ..worker("requests_max = 2") });
    let ask = || {
        let mut client = baton.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
        client
    };
    let mut held = [ask(), ask()];
    server.wait_until("both requests have come", |record| record.requests.len() == 2);
    let mut third = baton.client();
    let response = third.get("/");
    assert_eq!((response.status(), response.value("retry-after")), (503, Some("1")));
    assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=http_request_denied"));
    assert_eq!(
        response.text(),
        "503 Service Unavailable\nas many requests are under way as this load balancer takes\n"
    );
    let deadline = Instant::now() + PATIENCE;
    while baton.status()["worker"]["load"]["requests"] != 2 {
        assert!(Instant::now() < deadline, "{}", baton.status()["worker"]);
    }
    (0..3).for_each(|_| server.signal());
    held.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    // The connection is as good as before. That the others have ended here is seen in their last bytes, or just after.
    let deadline = Instant::now() + PATIENCE;
    while third.get("/").status() != 200 {
        assert!(Instant::now() < deadline, "requests that have ended count for ever");
    }
    wait_for_refusals_at_least(&baton, 1);
}

fn wait_for_refusals_at_least(baton: &Baton, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while baton.status()["listeners"][0]["refused"]["requests_max"].as_u64() < Some(count) {
        assert!(Instant::now() < deadline, "{}", baton.status()["listeners"][0]);
    }
}

fn wait_for_pressure(baton: &Baton, levels: &[&str]) {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let status = baton.status();
        let load = &status["worker"]["load"];
        if load["pressure"].as_str().is_some_and(|level| levels.contains(&level)) {
            return;
        }
        assert!(Instant::now() < deadline, "{levels:?} is expected: {load}");
    }
}

/// Clients that send a part of a head each, which has to be kept in memory, until the worker has had enough.
fn fill(baton: &Baton) -> Vec<Client> {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(240 * 1024));
    let mut clients = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while baton.status()["worker"]["load"]["pressure"] == "none" {
        for _ in 0..20 {
            let mut client = baton.client();
            // At the limit nobody takes it.
            client.set_write_patience(Duration::from_millis(100));
            let _is_taken = client.send(&head);
            clients.push(client);
        }
        assert!(Instant::now() < deadline, "{} heads are taken", clients.len());
    }
    clients
}

#[test]
fn requests_are_503_before_memory_runs_out_and_served_again_when_it_is_back() {
    let server = Server::saying("ok");
    let settings = Settings { listener: "head_bytes_max = \"256KiB\"".to_owned(), ..worker("memory_max = \"64MiB\"") };
    let baton = Baton::with(&[&server], &settings);
    let mut client = baton.client();
    assert_eq!(client.get("/").status(), 200);
    let held = fill(&baton);
    let response = client.get("/");
    assert_eq!((response.status(), response.value("retry-after")), (503, Some("1")));
    assert_eq!(response.value("connection"), Some("close"), "a connection is memory as well");
    assert_eq!(response.text(), "503 Service Unavailable\nthis load balancer has no memory left for more requests\n");
    client.expect_closed();
    assert_eq!(server.requests().len(), 1);
    baton.wait_for_log("the worker is short of memory and answers requests with 503");
    wait_for_refusals(&baton, "memory", 1);
    assert_eq!(baton.status()["worker"]["restarts"], 0);
    drop(held);
    wait_for_pressure(&baton, &["none"]);
    // The kernel may still have had connections with a whole head each for us.
    let deadline = Instant::now() + PATIENCE;
    while baton.client().get("/").status() != 200 {
        assert!(Instant::now() < deadline, "memory that was given back counts for ever");
    }
    let memory = baton.worker_memory();
    assert!(memory < 64 << 20, "{memory}");
}

/// A server whose responses never end, and of which so much comes.
fn endless(len: usize) -> Server {
    Server::unrecorded(move |exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        exchange.send(vec![b'r'; len])?;
        exchange.wait_for_end()
    })
}

/// A client of HTTP/2 that opens all windows, asks for as much as it may at once, and reads nothing.
fn greedy_h2(baton: &Baton) -> H2 {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const WINDOW_MAX: u32 = (1 << 31) - 1;
    let settings = h2_wire::settings_frame(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
    let mut bytes = [h2_wire::PREFACE, &settings, &h2_wire::window_update(0, WINDOW_MAX - 65_535)].concat();
    (0..100).for_each(|number| bytes.extend(h2_wire::get(2 * number + 1)));
    let mut client = H2::raw(baton.address());
    client.send(&bytes);
    client
}

#[test]
fn clients_that_open_their_windows_and_read_nothing_are_cut_off_when_memory_is_short() {
    let (endless, server) = (endless(512 << 10), Server::saying("ok"));
    let pools = format!(
        "[[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]\n\
         [[pool]]\nname = \"ok\"\nservers = [{{ name = \"ok1\", address = \"{}\" }}]\n\
         [[route]]\nlistener = \"http\"\npath_prefix = \"/ok\"\npool = \"ok\"\n\
         [worker]\nthreads = 1\nmemory_max = \"64MiB\"\n",
        endless.address(),
        server.address()
    );
    let baton = Baton::run("pool = \"app\"\nconnections_max = 1000", &pools);
    let deadline = Instant::now() + PATIENCE;
    let mut held = Vec::new();
    while baton.status()["worker"]["load"]["pressure"] == "none" {
        held.push(greedy_h2(&baton));
        assert!(Instant::now() < deadline, "{} connections are taken", held.len());
    }
    // They are still there, and wait for nothing: far longer than this, were nobody to cut them off.
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        let memory = baton.worker_memory();
        // What they ask for between two looks comes on top.
        assert!(memory < 96 << 20, "{memory}");
        if baton.client().get("/ok").status() == 200 {
            break;
        }
        assert!(Instant::now() < deadline, "{}", baton.status()["worker"]["load"]);
    }
    baton.wait_for_log("clients that took nothing of their responses were cut off");
    assert_eq!(baton.status()["worker"]["restarts"], 0);
    drop(held);
}

#[test]
fn stream_that_is_read_goes_on_beside_all_others_of_its_connection_that_are_not() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const BYTES: usize = 400 << 10;
    let server = endless(512 << 10);
    let baton = Baton::before(&[&server]);
    // What each has is one byte of room; the connection has enough for all.
    let mut client = H2::with_settings(baton.address(), &[(INITIAL_WINDOW_SIZE, 1)]);
    client.send(&h2_wire::window_update(0, 1 << 24));
    (0..100).for_each(|number| client.send(&h2_wire::get(2 * number + 1)));
    server.wait_until("all requests have come", |record| record.requests.len() == 100);
    client.send(&h2_wire::window_update(1, 1 << 24));
    let mut received = 0;
    while received < BYTES {
        match client.event(PATIENCE).expect("the response goes on") {
            Event::Data(1, data, _) => received += data.len(),
            Event::Reset(..) | Event::Closed => panic!("it ended after {received} bytes"),
            _ => {}
        }
    }
    // And one of the others, whose client has come to it at last.
    client.send(&h2_wire::window_update(101, 1 << 24));
    let is_of_it = |event: &Event| matches!(event, Event::Data(101, data, _) if data.len() > 1000);
    client.wait_for("another stream goes on", is_of_it);
}
