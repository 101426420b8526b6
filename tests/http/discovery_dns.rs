//! Servers found by their names, of a dnsmasq.

use std::time::{Duration, Instant};

use crate::baton::Baton;
use crate::discovery::{finding, wait_for_problem, wait_for_servers, wait_until_good};
use crate::dnsmasq::Dnsmasq;
use crate::server::Server;

fn found(dnsmasq: &Dnsmasq, keys: &str) -> Baton {
    finding(&format!("type = \"dns\"\nresolvers = [\"{}\"]\ntimeout = \"1s\"\n{keys}", dnsmasq.address()))
}

fn srv(priority: u16, weight: u16, target: &str, server: &Server) -> String {
    format!("srv-host=_http._tcp.app.test,{target},{},{priority},{weight}\n", server.address().port())
}

#[test]
fn addresses_are_followed_and_the_last_ones_stay() {
    let server = Server::saying("one");
    let mut dnsmasq = Dnsmasq::start("host-record=app.test,127.0.0.1\n");
    let port = server.address().port();
    let baton = found(&dnsmasq, &format!("name = \"app.test\"\nrecord = \"a\"\nport = {port}\nttl_max = \"1s\"\n"));
    let status = wait_for_servers(&baton, &["127.0.0.1"]);
    assert_eq!(status["pools"][0]["servers"][0]["address"], format!("127.0.0.1:{port}"));
    let mut client = baton.client();
    assert_eq!(client.get("/").text(), "one");
    dnsmasq.restart("host-record=app.test,127.0.0.1\nhost-record=app.test,127.0.0.2\n");
    wait_for_servers(&baton, &["127.0.0.1", "127.0.0.2"]);
    dnsmasq.restart("host-record=app.test,127.0.0.1\n");
    wait_for_servers(&baton, &["127.0.0.1"]);
    // Lies, an answer without a record, no such name, and nobody there.
    dnsmasq.restart("host-record=app.test,0.0.0.0\n");
    wait_for_problem(&baton, "0.0.0.0, which no server can have");
    dnsmasq.restart("host-record=app.test,192.0.2.1\n");
    wait_for_problem(&baton, "in none of the networks");
    dnsmasq.restart("txt-record=app.test,hello\n");
    wait_for_problem(&baton, "app.test has no A records");
    dnsmasq.restart("");
    wait_for_problem(&baton, "there is no name app.test");
    dnsmasq.kill();
    // Whichever time-out is over first.
    baton.wait_for_status(|status| {
        let problem = status["pools"][0]["discovery"]["problem"].as_str().unwrap_or_default();
        problem.contains("no answer within 1000 ms") || problem.starts_with("no A records of app.test: ")
    });
    assert_eq!(client.get("/").text(), "one");
    dnsmasq.restart("host-record=app.test,127.0.0.3\n");
    wait_for_servers(&baton, &["127.0.0.3"]);
    wait_until_good(&baton);
}

#[test]
fn services_have_ports_weights_and_backups() {
    let (one, two) = (Server::saying("one"), Server::saying("two"));
    let hosts = "host-record=a.test,127.0.0.1\nhost-record=b.test,127.0.0.1\n";
    let mut dnsmasq = Dnsmasq::start(&(hosts.to_owned() + &srv(10, 5, "a.test", &one) + &srv(20, 1, "b.test", &two)));
    let baton = found(&dnsmasq, "name = \"_http._tcp.app.test\"\nrecord = \"srv\"\nttl_max = \"1s\"\n");
    let (first, second) = (format!("a.test-{}", one.address().port()), format!("b.test-{}", two.address().port()));
    wait_for_servers(&baton, &[&first, &second]);
    let mut client = baton.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "one", "the other is a backup");
    }
    dnsmasq.restart(&(hosts.to_owned() + &srv(10, 5, "b.test", &two)));
    wait_for_servers(&baton, &[&second]);
    assert_eq!(client.get("/").text(), "two");
    // The target has gone, so that the list is not whole.
    dnsmasq.restart(&srv(10, 5, "c.test", &two));
    wait_for_problem(&baton, "c.test: there is no name c.test");
    assert_eq!(client.get("/").text(), "two");
}

#[test]
fn an_answer_is_asked_for_again_when_it_is_over_and_no_sooner_than_is_set() {
    let mut dnsmasq = Dnsmasq::start("host-record=app.test,127.0.0.1,60\n");
    let baton = found(&dnsmasq, "name = \"app.test\"\nport = 80\nttl_min = \"3s\"\nttl_max = \"3s\"\n");
    wait_for_servers(&baton, &["127.0.0.1"]);
    let began = Instant::now();
    dnsmasq.restart("host-record=app.test,127.0.0.2,60\n");
    wait_for_servers(&baton, &["127.0.0.2"]);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(1), "asked again after {took:?}");
}
