//! Limits on the connections of a client, and of all clients.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::limits::wait_for_refusals;
use crate::server::Server;
use crate::wire::Kind;

fn listener(keys: &str) -> Settings {
    Settings { listener: keys.to_owned(), ..Settings::default() }
}

fn from(baton: &Baton, own: [u8; 4]) -> Client {
    Client::connect_from(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(own)), 0), baton.address())
}

/// A connection that has asked and was answered; `None` where it was reset.
fn let_in(baton: &Baton, own: [u8; 4]) -> Option<Client> {
    let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(own)), 0);
    let asked = Client::try_connect_from(own, baton.address()).and_then(|mut client| {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let status = client.message(Kind::Response)?.status();
        assert_eq!(status, 200);
        Ok(client)
    });
    match asked {
        Ok(client) => Some(client),
        Err(error) => {
            let resets = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(resets.contains(&error.kind()), "{error}");
            None
        }
    }
}

/// A worker that lets clients wait still answers the guard.
fn assert_listener_is_well(baton: &Baton) {
    let status = baton.status();
    assert_eq!(status["worker"]["state"], "running");
    assert_eq!(status["worker"]["restarts"], 0);
    assert!(status["warnings"].as_array().is_some_and(Vec::is_empty), "{}", status["warnings"]);
}

#[test]
fn client_has_as_many_connections_as_it_may_and_another_one_when_one_ends() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("connections_per_address_max = 2"));
    let mut kept = [from(&baton, [127, 0, 0, 2]), from(&baton, [127, 0, 0, 2])];
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    assert!(let_in(&baton, [127, 0, 0, 2]).is_none());
    assert_eq!(from(&baton, [127, 0, 0, 3]).get("/").status(), 200);
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    wait_for_refusals(&baton, "connections_per_address", 1);
    let [first, _second] = kept;
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    while let_in(&baton, [127, 0, 0, 2]).is_none() {
        assert!(Instant::now() < deadline, "a connection that has ended counts for ever");
    }
}

#[test]
fn clients_of_one_network_share_its_connections_on_all_threads() {
    let server = Server::saying("ok");
    let limit = "connections_per_address_max = { connections = 6, prefix_v4 = 24 }";
    let baton = Baton::with(&[&server], &Settings { threads: 2, ..listener(limit) });
    let clients: Vec<_> = (1..=20).filter_map(|last| let_in(&baton, [127, 0, 1, last])).collect();
    assert_eq!(clients.len(), 6);
    assert_eq!(from(&baton, [127, 0, 2, 1]).get("/").status(), 200);
}

#[test]
fn client_connects_as_often_as_it_may() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("connection_rate = { connections = 3, per = \"24h\" }"));
    for number in 0..5 {
        assert_eq!(let_in(&baton, [127, 0, 0, 2]).is_some(), number < 3, "{number}");
    }
    // Requests are no connections.
    let mut client = from(&baton, [127, 0, 0, 3]);
    (0..10).for_each(|_| assert_eq!(client.get("/").status(), 200));
    wait_for_refusals(&baton, "connection_rate", 2);
}

#[test]
fn connections_of_bytes_are_limited_as_well() {
    let server = Server::start(|exchange| {
        exchange.send("hello")?;
        exchange.wait_for_end()
    });
    let limit =
        "protocol = \"tcp\"\nconnections_per_address_max = 2\nconnection_rate = { connections = 3, per = \"24h\" }";
    let baton = Baton::with(&[&server], &listener(limit));
    let open = |own: [u8; 4]| {
        let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(own)), 0);
        let mut client = Client::try_connect_from(own, baton.address()).ok()?;
        client.exactly(5).ok().map(|_hello| client)
    };
    let (first, second) = (open([127, 0, 0, 2]), open([127, 0, 0, 2]));
    assert!(first.is_some() && second.is_some() && open([127, 0, 0, 2]).is_none());
    wait_for_refusals(&baton, "connections_per_address", 1);
    drop((first, second));
    // What was refused for the number has not used up the rate.
    let deadline = Instant::now() + PATIENCE;
    while open([127, 0, 0, 2]).is_none() {
        assert!(Instant::now() < deadline, "connections that have ended count for ever");
    }
    assert!(open([127, 0, 0, 2]).is_none());
    assert!(open([127, 0, 0, 3]).is_some());
}

#[test]
fn all_clients_together_have_as_many_connections_as_the_worker_takes() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &Settings { worker: "connections_max = 2".to_owned(), ..Settings::default() });
    let mut clients: Vec<Client> = (0..2).map(|_| from(&baton, [127, 0, 0, 2])).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    // One more waits, and is served when there is room.
    let mut waiting = from(&baton, [127, 0, 0, 3]);
    waiting.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    assert!(!server.requests().iter().any(|request| request.start.contains("/late")));
    clients.remove(0);
    assert_eq!(waiting.response().status(), 200);
    assert_listener_is_well(&baton);
}
