//! Servers found in a file, or in the files of a directory.

use std::fs;

use crate::baton::Directory;
use crate::discovery::{finding, finding_with, list, put, wait_for_problem, wait_for_servers, wait_until_good};
use crate::server::Server;

#[test]
fn a_file_is_followed_and_a_bad_or_missing_one_changes_nothing() {
    let (one, two) = (Server::saying("one"), Server::saying("two"));
    let directory = Directory::new();
    let file = directory.path("servers.json");
    put(&file, &list(&[("one", &one)]));
    let baton = finding(&format!("type = \"file\"\npath = \"{}\"\n", file.display()));
    let mut client = baton.client();
    // There from the first request on.
    assert_eq!(client.get("/").text(), "one");
    put(&file, &list(&[("two", &two)]));
    let status = wait_for_servers(&baton, &["two"]);
    assert_eq!(status["pools"][0]["servers"][0]["origin"], "found");
    assert_eq!(status["pools"][0]["discovery"]["kind"], "file");
    assert_eq!(client.get("/").text(), "two");
    put(&file, "[{");
    wait_for_problem(&baton, "the list is no JSON");
    put(&file, &list(&[("two", &two), ("two", &one)]));
    wait_for_problem(&baton, "two servers are named two");
    put(&file, "[]");
    wait_for_problem(&baton, "it has no servers");
    fs::remove_file(&file).unwrap();
    wait_for_problem(&baton, "is not there, cannot be read, or is empty");
    assert_eq!(client.get("/").text(), "two");
    put(&file, &list(&[("one", &one), ("two", &two)]));
    wait_for_servers(&baton, &["one", "two"]);
    wait_until_good(&baton);
}

#[test]
fn the_files_of_a_directory_are_one_list() {
    let (one, two) = (Server::saying("one"), Server::saying("two"));
    let directory = Directory::new();
    let lists = directory.path("lists");
    fs::create_dir(&lists).unwrap();
    put(&lists.join("one.json"), &format!(r#"{{"name":"one","address":"{}"}}"#, one.address()));
    fs::write(lists.join("README"), "no list").unwrap();
    let baton = finding(&format!("type = \"file\"\npath = \"{}\"\n", lists.display()));
    wait_for_servers(&baton, &["one"]);
    put(&lists.join("two.toml"), &format!("name = \"two\"\naddress = \"{}\"\nbackup = true\n", two.address()));
    wait_for_servers(&baton, &["one", "two"]);
    let mut client = baton.client();
    assert_eq!((client.get("/").text(), client.get("/").text()), ("one".to_owned(), "one".to_owned()));
    fs::remove_file(lists.join("one.json")).unwrap();
    wait_for_servers(&baton, &["two"]);
    assert_eq!(client.get("/").text(), "two");
    fs::remove_dir_all(&lists).unwrap();
    wait_for_problem(&baton, "is not there");
    assert_eq!(client.get("/").text(), "two");
}

#[test]
fn a_pool_that_finds_none_answers_503_until_it_does() {
    let one = Server::saying("one");
    let directory = Directory::new();
    let file = directory.path("servers.toml");
    let baton = finding(&format!("type = \"file\"\npath = \"{}\"\n", file.display()));
    let mut client = baton.client();
    assert_eq!(client.get("/").status(), 503);
    put(&file, &format!("[[servers]]\nname = \"one\"\naddress = \"{}\"\n", one.address()));
    wait_for_servers(&baton, &["one"]);
    assert_eq!(client.get("/").text(), "one");
}

#[test]
fn found_servers_stand_beside_those_of_the_file_and_users_stay_where_they_are() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let directory = Directory::new();
    let file = directory.path("servers.json");
    put(&file, &list(&[("m", &servers[1])]));
    let fixed = format!(
        "servers = [{{ name = \"z\", address = \"{}\" }}]\n[pool.sticky]\nby = \"header\"\nname = \"X-User\"\n",
        servers[0].address()
    );
    let baton = finding_with(&fixed, &format!("type = \"file\"\npath = \"{}\"\n", file.display()), "");
    let mut client = baton.client();
    let mut ask = |user: usize| client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n")).text();
    let before: Vec<String> = (0..10).map(&mut ask).collect();
    assert!(before.iter().any(|server| server == "0") && before.iter().any(|server| server == "1"), "{before:?}");
    // One that goes before them in the order of names.
    put(&file, &list(&[("a", &servers[2]), ("m", &servers[1])]));
    wait_for_servers(&baton, &["a", "m", "z"]);
    assert_eq!((0..10).map(&mut ask).collect::<Vec<_>>(), before);
    put(&file, &list(&[("a", &servers[2])]));
    wait_for_servers(&baton, &["a", "z"]);
    for (user, server) in before.iter().enumerate() {
        let now = ask(user);
        if server == "0" {
            assert_eq!(now, "0", "user {user}");
        } else {
            assert_ne!(now, "1", "user {user}");
        }
    }
}
