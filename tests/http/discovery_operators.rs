//! Servers that operators add and remove while a pool runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::baton::{Baton, Directory, Settings};
use crate::client::Client;
use crate::discovery::{finding, list, put, wait_for_servers};
use crate::server::{Port, Server};

#[test]
fn servers_are_added_and_removed_under_load_without_a_failed_request() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let baton = Baton::before(&[&servers[0]]);
    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, asked, address) = (Arc::clone(&is_over), Arc::clone(&asked), baton.address());
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut answers = [0; 3];
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get("/");
                    assert_eq!(answer.status(), 200);
                    answers[answer.text().parse::<usize>().unwrap()] += 1;
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                answers
            })
        })
        .collect();
    for _ in 0..5 {
        for (name, server) in [("app/more", &servers[1]), ("app/most", &servers[2])] {
            let said = baton.done(&["server", "add", name, &server.address().to_string()]);
            assert!(said.contains("is added; not after a restart"), "{said}");
        }
        let before = asked.load(Ordering::Relaxed);
        while asked.load(Ordering::Relaxed) < before + 100 {
            std::thread::yield_now();
        }
        assert!(baton.done(&["server", "remove", "app/more"]).contains("server app/more is removed"));
        baton.done(&["server", "remove", "app/most"]);
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        let answers = client.join().expect("no request failed");
        assert!(answers.iter().all(|count| *count > 0), "{answers:?}");
    }
    wait_for_servers(&baton, &["app1"]);
}

#[test]
fn what_cannot_be_done_is_refused_with_a_reason() {
    let (one, two) = (Server::saying("one"), Server::saying("two"));
    let directory = Directory::new();
    let file = directory.path("servers.json");
    put(&file, &list(&[("found", &one)]));
    let baton = finding(&format!("type = \"file\"\npath = \"{}\"\n", file.display()));
    let (at_one, at_two) = (one.address().to_string(), two.address().to_string());
    for (arguments, reason) in [
        (vec!["add", "app", &at_two], "app names no server: write its pool in front"),
        (vec!["add", "none/x", &at_two], "there is no pool none"),
        (vec!["add", "app/found", &at_two], "has a server found already"),
        (vec!["add", "app/x", &at_one], "server found of pool app has the address"),
        (vec!["add", "app/x", "example.com:80"], "must be an IP address and a port"),
        (vec!["add", "app/x y", &at_two], "name \"x y\" must be 1 to 63 letters"),
        (vec!["add", "app/x", &at_two, "--weight", "0"], "weight 0 of server x must be 1 to 256"),
        (vec!["remove", "app/x"], "there is no server x"),
        (vec!["remove", "app/found"], "server found was found by file"),
    ] {
        let refused = baton.refused(&[vec!["server"], arguments].concat());
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn what_is_asked_to_be_kept_is_there_after_a_restart_and_nothing_else() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let mut baton = Baton::before(&[&servers[0]]);
    baton.done(&["server", "add", "app/kept", &servers[1].address().to_string(), "--keep"]);
    baton.done(&["server", "add", "app/other", &servers[2].address().to_string()]);
    baton.done(&["server", "drain", "app/kept"]);
    let status = wait_for_servers(&baton, &["app1", "kept", "other"]);
    assert_eq!(status["pools"][0]["servers"][1]["origin"], "operator");
    rustix::process::kill_process(baton.worker(), rustix::process::Signal::KILL).unwrap();
    baton.wait_for_logs(2, "worker serves");
    wait_for_servers(&baton, &["app1", "kept", "other"]);
    baton.terminate();
    baton.wait();
    baton.start_again();
    let status = wait_for_servers(&baton, &["app1", "kept"]);
    assert_eq!(status["pools"][0]["servers"][1]["admin"], "draining");
    // One of the file as well.
    baton.done(&["server", "remove", "app/app1", "--keep"]);
    baton.done(&["server", "enable", "app/kept"]);
    baton.terminate();
    baton.wait();
    baton.start_again();
    wait_for_servers(&baton, &["kept"]);
    assert_eq!(baton.client().get("/").text(), "1");
}

#[test]
fn the_api_does_it_as_well_with_the_token() {
    let servers = ["0", "1"].map(Server::saying);
    let directory = Directory::new();
    let (token, port) = (directory.path("token"), Port::reserve());
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let admin = format!("[admin]\nbind = \"{}\"\ntoken_file = \"{}\"\n", port.address(), token.display());
    let baton = Baton::with(&[&servers[0]], &Settings { pool: admin, ..Settings::default() });
    let ask = |method: &str, target: &str, fields: &str| {
        let host = port.address();
        let request =
            format!("{method} /v1/servers/{target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{fields}\r\n");
        Client::connect(host).ask(request)
    };
    let bearer = "Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n";
    let target = format!("app/more?address={}&weight=3", servers[1].address());
    assert_eq!(ask("POST", &target, "").status(), 401);
    let added = ask("POST", &target, bearer);
    assert_eq!((added.status(), added.text().contains("\"server\":\"more\"")), (200, true), "{}", added.text());
    // In use when it is answered.
    let mut client = baton.client();
    let answers = std::collections::BTreeSet::from([client.get("/").text(), client.get("/").text()]);
    assert_eq!(answers.len(), 2);
    assert_eq!(ask("POST", &target, bearer).status(), 409);
    assert_eq!(ask("POST", "app/x?addres=1", bearer).status(), 400);
    assert_eq!(ask("DELETE", "app/none", bearer).status(), 404);
    assert_eq!(ask("PUT", "app/more", bearer).status(), 405);
    assert_eq!(ask("DELETE", "app/more", bearer).status(), 200);
    assert_eq!((client.get("/").text(), client.get("/").text()), ("0".to_owned(), "0".to_owned()));
}
