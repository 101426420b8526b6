//! Servers found at an address that lists them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::baton::Baton;
use crate::client::Client;
use crate::discovery::{finding, finding_with, list, wait_for_problem, wait_for_servers, wait_until_good};
use crate::redis::server::wait_for;
use crate::server::{Port, Server};

/// An address whose answers a test sets.
struct Source {
    server: Server,
    answer: Arc<Mutex<String>>,
}

impl Source {
    fn new(answer: String) -> Self {
        let answer = Arc::new(Mutex::new(answer));
        let current = Arc::clone(&answer);
        let server = Server::unrecorded(move |exchange| {
            exchange.request()?;
            let text = current.lock().unwrap().clone();
            exchange.send(text)
        });
        Self { server, answer }
    }

    fn set(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    fn url(&self) -> String {
        format!("http://{}/servers.json?key=secret", self.server.address())
    }

    fn found(&self) -> Baton {
        finding(&format!("type = \"http\"\nurl = \"{}\"\ninterval = \"100ms\"\ntimeout = \"1s\"\n", self.url()))
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_list_is_followed_and_what_is_none_changes_nothing() {
    let (one, two) = (Server::saying("one"), Server::saying("two"));
    let source = Source::new(ok(&list(&[("one", &one)])));
    let baton = source.found();
    wait_for_servers(&baton, &["one"]);
    let mut client = baton.client();
    assert_eq!(client.get("/").text(), "one");
    source.set(ok(&list(&[("two", &two)])));
    let status = wait_for_servers(&baton, &["two"]);
    assert_eq!(client.get("/").text(), "two");
    // What the query holds may be a secret.
    let shown = status["pools"][0]["discovery"]["source"].as_str().unwrap().to_owned();
    assert_eq!(shown, format!("http http://{}/servers.json", source.server.address()));
    for (answer, problem) in [
        (ok("garbage"), "the list is no JSON"),
        (ok("[]"), "it has no servers"),
        (ok(r#"[{"name":"x","address":"10.0.0.1:80"}]"#), "in none of the networks"),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned(), "status 500"),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_owned(), "is not followed"),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), "no HTTP answer"),
        (ok(&" ".repeat(3 << 20)), "more than 1024 KiB"),
        (String::new(), "no HTTP answer"),
    ] {
        source.set(answer);
        wait_for_problem(&baton, problem);
        assert_eq!(client.get("/").text(), "two", "{problem}");
    }
    source.set(ok(&list(&[("one", &one), ("two", &two)])));
    wait_for_servers(&baton, &["one", "two"]);
    wait_until_good(&baton);
}

#[test]
fn an_answer_that_has_not_changed_is_asked_for_by_its_tag() {
    let one = Server::saying("one");
    let body = list(&[("one", &one)]);
    let source = Server::start(move |exchange| {
        let request = exchange.request()?;
        match request.value("if-none-match") {
            Some("\"v1\"") => exchange.send("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n"),
            _ => exchange.send(ok(&body).replace("200 OK", "200 OK\r\nETag: \"v1\"")),
        }
    });
    let baton = finding(&format!("type = \"http\"\nurl = \"http://{}/\"\ninterval = \"100ms\"\n", source.address()));
    wait_for_servers(&baton, &["one"]);
    source.wait_until("four questions", |record| record.requests.len() >= 4);
    let tags: Vec<_> =
        source.requests().iter().take(4).map(|request| request.value("if-none-match").map(str::to_owned)).collect();
    let tag = Some("\"v1\"".to_owned());
    assert_eq!(tags, [None, tag.clone(), tag.clone(), tag]);
    let status = baton.wait_for_status(|status| status["pools"][0]["discovery"]["answers"].as_u64() >= Some(3));
    assert_eq!(status["pools"][0]["discovery"]["failures"], 0);
}

#[test]
fn metrics_and_status_say_how_a_source_is_and_that_it_has_vanished() {
    let one = Server::saying("one");
    let mut source = Source::new(ok(&list(&[("one", &one)])));
    let port = Port::reserve();
    let discovery = format!("type = \"http\"\nurl = \"{}\"\ninterval = \"100ms\"\n", source.url());
    let baton = finding_with("", &discovery, &format!("[admin]\nbind = \"{}\"\n", port.address()));
    let metric = |name: &str| {
        let text = Client::connect(port.address()).ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").text();
        let line = format!("baton_discovery_{name}{{pool=\"app\",source=\"http\"}} ");
        let value = text.lines().find_map(|known| known.strip_prefix(&line));
        value.map(|value| value.parse::<f64>().expect("it is a number"))
    };
    wait_for_servers(&baton, &["one"]);
    wait_for("a second answer in the metrics", || metric("answers_total") >= Some(2.0));
    assert_eq!((metric("good"), metric("servers"), metric("failures_total")), (Some(1.0), Some(1.0), Some(0.0)));
    assert!(metric("age_seconds") < Some(5.0));
    let (_, text, _) = baton.command(&["status"]);
    let shown = format!("found by http http://{}/servers.json: 1 servers, said ", source.server.address());
    assert!(text.contains(&shown) && !text.contains("the last list stays"), "{text}");
    source.server.pause();
    wait_for("the failure in the metrics", || metric("good") == Some(0.0) && metric("failures_total") >= Some(1.0));
    assert_eq!(metric("servers"), Some(1.0));
    wait_for_problem(&baton, "Connection refused");
    let (_, text, _) = baton.command(&["status"]);
    assert!(text.contains("; the last list stays: ") && text.contains(&shown), "{text}");
    let (answers, age) = (metric("answers_total"), metric("age_seconds"));
    wait_for("the list to become older", || metric("age_seconds") > age.map(|age| age + 0.2));
    assert_eq!(metric("answers_total"), answers);
    source.server.resume();
    wait_for("a good source in the metrics", || metric("good") == Some(1.0));
    assert!(metric("answers_total") > answers);
}

#[test]
fn one_byte_a_second_is_no_answer() {
    let one = Server::saying("one");
    let source = Server::unrecorded(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) {
            exchange.send(" ")?;
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    });
    let servers = format!("servers = [{{ name = \"one\", address = \"{}\" }}]\n", one.address());
    let discovery = format!("type = \"http\"\nurl = \"http://{}/\"\ntimeout = \"1s\"\n", source.address());
    let baton = finding_with(&servers, &discovery, "");
    wait_for_problem(&baton, "no answer within 1000 ms");
    assert_eq!(baton.client().get("/").text(), "one");
}

#[test]
fn the_last_list_is_kept_over_a_worker_and_where_asked_over_a_restart() {
    let (one, two) = (Server::saying("one"), Server::saying("two"));
    let mut source = Source::new(ok(&list(&[("one", &one)])));
    let keep = |url: &str| finding(&format!("type = \"http\"\nurl = \"{url}\"\ninterval = \"100ms\"\nkeep = true\n"));
    let mut baton = keep(&source.url());
    wait_for_servers(&baton, &["one"]);
    source.server.pause();
    rustix::process::kill_process(baton.worker(), rustix::process::Signal::KILL).unwrap();
    baton.wait_for_logs(2, "worker serves");
    assert_eq!(baton.client().get("/").text(), "one");
    let file = baton.state_file("discovery");
    let written = |file: &std::path::Path| std::fs::read_to_string(file).is_ok_and(|text| text.contains("\"one\""));
    let deadline = Instant::now() + crate::PATIENCE;
    while !written(&file) {
        assert!(Instant::now() < deadline, "nothing is kept in {}", file.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    baton.terminate();
    baton.wait();
    baton.start_again();
    assert_eq!(baton.client().get("/").text(), "one");
    let status = baton.wait_for_status(|status| status["pools"][0]["discovery"]["is_kept"] == true);
    assert!(status["pools"][0]["discovery"]["age_ms"].is_u64());
    source.set(ok(&list(&[("two", &two)])));
    source.server.resume();
    let status = wait_for_servers(&baton, &["two"]);
    assert_eq!(status["pools"][0]["discovery"]["is_kept"], false);
}
