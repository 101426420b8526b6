//! Servers found in Consul, by its blocking queries as they are documented.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::Directory;
use crate::discovery::{finding, wait_for_problem, wait_for_servers, wait_until_good};
use crate::server::Server;

/// What stands in for Consul: it holds a question with its own index until something changes, or the wait is over.
struct Consul {
    server: Server,
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    index: u64,
    /// Status and body.
    answer: (u16, String),
    /// Whether the field with the index is left out.
    is_mute: bool,
}

impl Consul {
    fn new(index: u64, body: &str) -> Self {
        let state = State { index, answer: (200, body.to_owned()), is_mute: false };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let held = Arc::clone(&shared);
        let server = Server::start(move |exchange| {
            let request = exchange.request()?;
            let asked = parameter(&request.start, "index").and_then(|index| index.parse::<u64>().ok());
            let (state, changed) = &*held;
            let began = Instant::now();
            let mut state = state.lock().unwrap();
            while asked == Some(state.index) && state.answer.0 == 200 && began.elapsed() < Duration::from_secs(60) {
                state = changed.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
            }
            let ((status, body), index) = (state.answer.clone(), state.index);
            let index = if state.is_mute { String::new() } else { format!("X-Consul-Index: {index}\r\n") };
            drop(state);
            exchange.send(format!("HTTP/1.1 {status} S\r\n{index}Content-Length: {}\r\n\r\n{body}", body.len()))
        });
        Self { server, shared }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }

    fn targets(&self) -> Vec<String> {
        self.server.requests().into_iter().map(|request| request.start).collect()
    }

    fn discovery(&self) -> String {
        format!("type = \"consul\"\nservice = \"web\"\naddress = \"http://{}\"\n", self.server.address())
    }
}

fn parameter<'t>(start: &'t str, name: &str) -> Option<&'t str> {
    let query = start.split_whitespace().nth(1)?.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn entries(servers: &[(&str, &Server)]) -> String {
    let entry = |(node, server): &(&str, &Server)| {
        let port = server.address().port();
        format!(
            r#"{{"Node":{{"Node":"{node}","Address":"127.0.0.1"}},"Service":{{"ID":"web","Service":"web","Address":"","Port":{port},"Weights":{{"Passing":1,"Warning":1}}}},"Checks":[{{"Status":"passing"}}]}}"#
        )
    };
    format!("[{}]", servers.iter().map(entry).collect::<Vec<_>>().join(","))
}

#[test]
fn changes_are_followed_by_blocking_queries() {
    let (one, two) = (Server::saying("one"), Server::saying("two"));
    let consul = Consul::new(7, &entries(&[("n1", &one)]));
    let baton = finding(&consul.discovery());
    wait_for_servers(&baton, &["n1.web"]);
    consul.server.wait_until("a second question", |record| record.requests.len() == 2);
    assert_eq!(
        consul.targets(),
        ["GET /v1/health/service/web?passing HTTP/1.1", "GET /v1/health/service/web?passing&index=7&wait=60s HTTP/1.1"]
    );
    consul.set(|state| (state.index, state.answer.1) = (9, entries(&[("n2", &two)])));
    wait_for_servers(&baton, &["n2.web"]);
    assert_eq!(baton.client().get("/").text(), "two");
    consul.server.wait_until("a third question", |record| record.requests.len() == 3);
    assert!(consul.targets()[2].contains("index=9&"), "{:?}", consul.targets());
}

#[test]
fn an_index_that_goes_back_begins_again() {
    let (one, two) = (Server::saying("one"), Server::saying("two"));
    let consul = Consul::new(100, &entries(&[("n1", &one)]));
    let baton = finding(&consul.discovery());
    wait_for_servers(&baton, &["n1.web"]);
    consul.server.wait_until("a second question", |record| record.requests.len() == 2);
    // As after a restored snapshot.
    consul.set(|state| (state.index, state.answer.1) = (3, entries(&[("n2", &two)])));
    wait_for_servers(&baton, &["n2.web"]);
    let began = Instant::now();
    consul.server.wait_until("a question from the beginning", |record| record.requests.len() >= 3);
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(consul.targets()[2], "GET /v1/health/service/web?passing HTTP/1.1");
}

#[test]
fn without_an_index_it_is_asked_slowly() {
    let one = Server::saying("one");
    let consul = Consul::new(1, &entries(&[("n1", &one)]));
    consul.set(|state| state.is_mute = true);
    let baton = finding(&consul.discovery());
    wait_for_servers(&baton, &["n1.web"]);
    let began = Instant::now();
    consul.server.wait_until("a second question", |record| record.requests.len() == 2);
    assert!(began.elapsed() > Duration::from_secs(2), "asked again after {:?}", began.elapsed());
    assert!(!consul.targets()[1].contains("index="));
}

#[test]
fn what_consul_refuses_empties_or_garbles_changes_nothing() {
    let one = Server::saying("one");
    let directory = Directory::new();
    let token = directory.path("token");
    std::fs::write(&token, "c0ffee\n").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut consul = Consul::new(7, &entries(&[("n1", &one)]));
    let keys = format!("tags = [\"eu\"]\ndatacenter = \"dc1\"\ntoken_file = \"{}\"\n", token.display());
    let baton = finding(&(consul.discovery() + &keys));
    wait_for_servers(&baton, &["n1.web"]);
    let first = consul.server.requests().remove(0);
    assert_eq!(first.start, "GET /v1/health/service/web?passing&dc=dc1&tag=eu HTTP/1.1");
    assert_eq!(first.value("x-consul-token"), Some("c0ffee"));
    let mut client = baton.client();
    for (index, answer, problem) in [
        (8, (200, "[]".to_owned()), "it has no servers"),
        (9, (200, "garbage".to_owned()), "not understood"),
        (10, (403, "Permission denied".to_owned()), "status 403: see to its token"),
    ] {
        consul.set(|state| (state.index, state.answer) = (index, answer));
        wait_for_problem(&baton, problem);
        assert_eq!(client.get("/").text(), "one");
    }
    consul.server.pause();
    wait_for_problem(&baton, "Connection refused");
    assert_eq!(client.get("/").text(), "one");
    consul.set(|state| (state.index, state.answer) = (1, (200, entries(&[("n1", &one)]))));
    consul.server.resume();
    wait_until_good(&baton);
}
