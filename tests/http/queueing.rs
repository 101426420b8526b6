//! Servers that get so many requests at once, and those that wait for them.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::server::Server;

fn pool(keys: &str) -> Settings {
    Settings { pool: keys.to_owned(), ..Settings::default() }
}

/// A server that answers each request with its target, when the test lets it.
fn held() -> Server {
    Server::start(|exchange| {
        loop {
            let request = exchange.request()?;
            exchange.wait_for_signal()?;
            let target = request.start.split(' ').nth(1).unwrap_or_default();
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()))?;
        }
    })
}

fn asking(baton: &Baton, path: &str) -> Client {
    let mut client = baton.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).expect("the connection is open");
    client
}

/// Waits until the queue of the pool is as described.
fn wait_for_queue(baton: &Baton, is_so: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = baton.status();
        let queue = &status["pools"][0]["queue"];
        if is_so(queue) {
            return;
        }
        assert!(Instant::now() < deadline, "{queue}");
    }
}

fn wait_for_length(baton: &Baton, length: u64) {
    wait_for_queue(baton, |queue| queue["length"] == length);
}

fn wait_for_requests(server: &Server, count: usize) {
    server.wait_until(&format!("{count} requests"), |record| record.requests.len() == count);
}

#[test]
fn server_gets_as_many_requests_as_it_may_and_the_rest_in_their_order() {
    let server = held();
    let baton = Baton::with(&[&server], &pool("connections_max = 2"));
    let mut clients: Vec<_> = [asking(&baton, "/0"), asking(&baton, "/1")].into();
    wait_for_requests(&server, 2);
    for number in 2..5 {
        clients.push(asking(&baton, &format!("/{number}")));
        wait_for_length(&baton, number - 1);
    }
    assert_eq!(server.requests().len(), 2, "more than it may have");
    assert_eq!(baton.status()["pools"][0]["servers"][0]["in_flight"], 2);
    for count in 3..=5 {
        server.signal();
        wait_for_requests(&server, count);
    }
    (0..2).for_each(|_| server.signal());
    let order: Vec<_> = server.requests().into_iter().skip(2).map(|request| request.start).collect();
    assert_eq!(order, ["GET /2 HTTP/1.1", "GET /3 HTTP/1.1", "GET /4 HTTP/1.1"]);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response().text(), format!("/{number}"));
    }
    wait_for_queue(&baton, |queue| queue["length"] == 0 && queue["waited"] == 3 && queue["dropped"]["timeout"] == 0);
    assert_eq!(baton.status()["pools"][0]["servers"][0]["in_flight"], 0);
}

#[test]
fn slot_is_held_until_the_last_byte_of_the_response() {
    let server = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nla")?;
            exchange.wait_for_signal()?;
            exchange.send("st")?;
        }
    });
    let baton = Baton::with(&[&server], &pool("connections_max = 1"));
    let mut first = asking(&baton, "/");
    assert_eq!(first.head().expect("a head comes").status(), 200);
    let mut second = asking(&baton, "/");
    wait_for_length(&baton, 1);
    assert_eq!(server.requests().len(), 1);
    server.signal();
    server.signal();
    assert_eq!(second.response().text(), "last");
}

#[test]
fn one_more_than_may_wait_is_503_with_the_time_to_come_back() {
    let server = held();
    let baton = Baton::with(&[&server], &pool("connections_max = 1\nqueue = { max = 1, timeout = \"7s\" }"));
    let (mut first, mut second) = (asking(&baton, "/1"), asking(&baton, "/2"));
    wait_for_length(&baton, 1);
    let mut third = baton.client();
    for _ in 0..2 {
        let response = third.get("/3");
        assert_eq!((response.status(), response.value("retry-after")), (503, Some("7")));
        assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=connection_limit_reached"));
        assert_eq!(
            response.text(),
            "503 Service Unavailable\nevery server of pool app has as many requests as it may, and so has the queue\n"
        );
    }
    server.signal();
    server.signal();
    assert_eq!([first.response().status(), second.response().status()], [200, 200]);
    wait_for_queue(&baton, |queue| queue["dropped"]["full"] == 2);
    assert_eq!(baton.status()["listeners"][0]["refused"]["queue_full"], 2);
}

#[test]
fn request_that_waits_for_too_long_is_503() {
    let server = held();
    let baton = Baton::with(&[&server], &pool("connections_max = 1\nqueue = { timeout = \"300ms\" }"));
    let mut first = asking(&baton, "/1");
    wait_for_requests(&server, 1);
    let started = Instant::now();
    let response = baton.client().get("/2");
    assert_eq!((response.status(), response.value("retry-after")), (503, Some("1")));
    assert_eq!(response.text(), "503 Service Unavailable\nno server of pool app had room for this request in time\n");
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    wait_for_queue(&baton, |queue| queue["length"] == 0 && queue["dropped"]["timeout"] == 1);
    server.signal();
    assert_eq!(first.response().status(), 200);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn client_that_leaves_is_out_of_the_queue() {
    let server = held();
    let baton = Baton::with(&[&server], &pool("connections_max = 1"));
    let mut first = asking(&baton, "/1");
    wait_for_requests(&server, 1);
    let gone = asking(&baton, "/gone");
    wait_for_length(&baton, 1);
    let mut last = asking(&baton, "/2");
    wait_for_length(&baton, 2);
    drop(gone);
    wait_for_queue(&baton, |queue| queue["length"] == 1 && queue["dropped"]["client_left"] == 1);
    server.signal();
    server.signal();
    assert_eq!((first.response().text(), last.response().text()), ("/1".to_owned(), "/2".to_owned()));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn client_that_leaves_in_the_middle_gives_its_slot_to_the_next() {
    let server = held();
    let baton = Baton::with(&[&server], &pool("connections_max = 1"));
    let first = asking(&baton, "/1");
    wait_for_requests(&server, 1);
    let mut second = asking(&baton, "/2");
    wait_for_length(&baton, 1);
    drop(first);
    wait_for_requests(&server, 2);
    server.signal();
    server.signal();
    assert_eq!(second.response().text(), "/2");
}

#[test]
fn server_with_room_is_taken_before_anybody_waits_and_no_backup_for_want_of_room() {
    let (first, second, spare) = (held(), held(), held());
    let addresses = [&first, &second, &spare].map(Server::address);
    let [one, two, three] = addresses;
    let servers = format!(
        "servers = [{{ name = \"a\", address = \"{one}\" }}, {{ name = \"b\", address = \"{two}\" }}, {{ name = \"c\", \
         address = \"{three}\", backup = true }}]"
    );
    let pool = format!("[[pool]]\nname = \"app\"\n{servers}\nconnections_max = 1\n");
    let baton = Baton::run("pool = \"app\"", &format!("{pool}[worker]\nthreads = 1\n"));
    let mut clients = [asking(&baton, "/1"), asking(&baton, "/2"), asking(&baton, "/3")];
    [&first, &second].into_iter().for_each(|server| wait_for_requests(server, 1));
    wait_for_length(&baton, 1);
    second.signal();
    wait_for_requests(&second, 2);
    second.signal();
    first.signal();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    assert_eq!(spare.requests().len(), 0);
}

#[test]
fn client_of_a_server_waits_for_it_before_others_that_would_take_any() {
    let (first, second) = (held(), held());
    let sticky = "connections_max = 1\nsticky = { name = \"S\" }";
    let baton = Baton::with(&[&first, &second], &pool(sticky));
    // Whose client it is.
    let mut client = asking(&baton, "/login");
    wait_for_requests(&first, 1);
    first.signal();
    let cookie = client.response().value("set-cookie").map(|cookie| cookie.split(';').next().unwrap().to_owned());
    let cookie = cookie.expect("a cookie is set");
    let (mut any, mut busy) = (asking(&baton, "/b"), asking(&baton, "/a"));
    [(&first, 2), (&second, 1)].into_iter().for_each(|(server, count)| wait_for_requests(server, count));
    let mut stranger = asking(&baton, "/stranger");
    wait_for_length(&baton, 1);
    client.send(format!("GET /home HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")).expect("the connection is open");
    wait_for_length(&baton, 2);
    first.signal();
    wait_for_requests(&first, 3);
    assert_eq!(first.requests()[2].start, "GET /home HTTP/1.1");
    first.signal();
    wait_for_requests(&first, 4);
    assert_eq!(first.requests()[3].start, "GET /stranger HTTP/1.1");
    [&first, &second].into_iter().for_each(Server::signal);
    for client in [&mut client, &mut any, &mut busy, &mut stranger] {
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn requests_of_all_threads_count_together() {
    let server = held();
    let settings = Settings { threads: 2, ..pool("connections_max = 3") };
    let baton = Baton::with(&[&server], &settings);
    let mut clients: Vec<_> = (0..12).map(|number| asking(&baton, &format!("/{number}"))).collect();
    wait_for_length(&baton, 9);
    wait_for_requests(&server, 3);
    (0..12).for_each(|_| server.signal());
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    wait_for_length(&baton, 0);
}

#[test]
fn connections_of_bytes_wait_as_well_and_are_reset_when_they_may_not() {
    let server = Server::start(|exchange| {
        exchange.send("hello")?;
        exchange.wait_for_end()
    });
    let settings = Settings {
        listener: "protocol = \"tcp\"".to_owned(),
        ..pool("connections_max = 1\nqueue = { max = 1, timeout = \"10m\" }")
    };
    let baton = Baton::with(&[&server], &settings);
    let hello = |client: &mut Client| client.exactly(5).map(|bytes| bytes == b"hello");
    let mut first = baton.client();
    assert!(hello(&mut first).expect("the server speaks"));
    let mut second = baton.client();
    wait_for_length(&baton, 1);
    let mut third = baton.client();
    assert_eq!(hello(&mut third).expect_err("it is reset").kind(), std::io::ErrorKind::ConnectionReset);
    drop(first);
    assert!(hello(&mut second).expect("the server speaks"));
}
