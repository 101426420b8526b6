//! Rules of `error_pages`.

use std::path::{Path, PathBuf};

use baton::config::{ErrorPage, parse};

use super::rules::{check_one, refused};
use super::{Directory, baton, stderr};

/// A listener, to be continued, and its pool.
const LISTENER: &str = "[[listener]]\nname = \"web\"\nbind = [\"0.0.0.0:80\"]\npool = \"app\"\n";
const POOL: &str = "[[pool]]\nname = \"app\"\nservers = [{ name = \"app1\", address = \"10.0.0.1:8080\" }]\n";

refused! {
    no_error: [LISTENER, "error_pages = { 200 = \"a.html\" }\n", POOL], 5, "listener[web].error_pages.200", "from 400 to 599";
    no_status: [LISTENER, "error_pages = { 600 = \"a.html\" }\n", POOL], 5, "listener[web].error_pages.600", "from 400 to 599";
    no_class: [LISTENER, "error_pages = { 3xx = \"a.html\" }\n", POOL], 5, "listener[web].error_pages.3xx", "from 400 to 599";
    padded: [LISTENER, "error_pages = { 0404 = \"a.html\" }\n", POOL], 5, "listener[web].error_pages.0404", "from 400 to 599";
    no_page: [LISTENER, "error_pages = {}\n", POOL], 5, "listener[web].error_pages", "must not be empty";
    no_file: [LISTENER, "error_pages = { 404 = \"\" }\n", POOL], 5, "listener[web].error_pages.404", "must be the path";
    number_for_a_file: [LISTENER, "error_pages = { 404 = 1 }\n", POOL], 5, "listener[web].error_pages.404", "must be a string";
    no_table: [LISTENER, "error_pages = \"a.html\"\n", POOL], 5, "listener[web].error_pages", "must be a table";
    nothing_to_intercept_with: [LISTENER, "intercept_errors = true\n", POOL],
        5, "listener[web].intercept_errors", "has no meaning without error_pages";
    body_beside_a_file: [LISTENER, "[[route]]\nlistener = \"web\"\nmaintenance = { body = \"x\", body_file = \"a.html\" }\n", POOL],
        7, "route[#1].maintenance.body", "has no meaning beside body_file";
    body_file_without_a_path: [LISTENER, "[[route]]\nlistener = \"web\"\nmaintenance = { body_file = \"\" }\n", POOL],
        7, "route[#1].maintenance.body_file", "must be the path of a file";
    body_file_of_a_status_without_a_body: [LISTENER, "[[route]]\nlistener = \"web\"\nrespond = { status = 204, body_file = \"a\" }\n", POOL],
        7, "route[#1].respond.status", "is a status without a body";
    of_tcp: [LISTENER, "protocol = \"tcp\"\nerror_pages = { 404 = \"a.html\" }\n", POOL],
        6, "listener[web].error_pages", "there are no responses";
}

#[test]
fn a_status_goes_before_its_class() {
    let pages = "error_pages = { 5xx = \"5.html\", 404 = \"/4.html\", 4xx = \"x.txt\" }\n";
    let text = [LISTENER, pages, POOL].concat();
    let config = parse(&text, Path::new("/etc/baton/baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    let page = |from, to, file: &str| ErrorPage { from, to, file: PathBuf::from(file) };
    let expected = [page(404, 404, "/4.html"), page(400, 499, "/etc/baton/x.txt"), page(500, 599, "/etc/baton/5.html")];
    let mut found = config.listeners[0].error_pages.clone();
    // Those of equal breadth stand in the order of the table, which has none.
    found.sort_by_key(|page| (page.to - page.from, page.from));
    assert_eq!(found, expected);
}

#[test]
fn a_file_of_a_route_is_what_the_end_of_its_name_says_unless_that_is_written() {
    let route = |keys: &str| {
        let text = [LISTENER, "[[route]]\nlistener = \"web\"\n", keys, "\n", POOL].concat();
        let config = parse(&text, Path::new("/etc/baton/baton.toml")).unwrap_or_else(|report| panic!("{report}"));
        config.listeners[0].routes[0].maintenance.clone().expect("it was written").response
    };
    let found = route("maintenance = { body_file = \"down.html\" }");
    assert_eq!(found.body_file, Some(PathBuf::from("/etc/baton/down.html")));
    assert_eq!(found.content_type, "text/html; charset=utf-8");
    let found = route("maintenance = { body_file = \"/down.json\", content_type = \"text/plain\" }");
    assert_eq!((found.body_file, found.content_type), (Some(PathBuf::from("/down.json")), "text/plain".to_owned()));
}

#[test]
fn a_file_that_is_missing_or_too_large_is_found_on_the_machine() {
    let directory = Directory::new("error-pages");
    let listener = "error_pages = { 404 = \"page.html\" }\n";
    let route = |action: &str| format!("[[route]]\nlistener = \"web\"\n{action} = {{ body_file = \"page.html\" }}\n");
    check_files(&directory, listener, "error_pages.404");
    check_files(&directory, &route("respond"), "route[#1].respond.body_file");
    check_files(&directory, &route("maintenance"), "route[#1].maintenance.body_file");
}

/// Checks what is said of the file that these blocks name at this key.
fn check_files(directory: &Directory, blocks: &str, key: &str) {
    let check = |content: Option<usize>| {
        let page = directory.path("page.html");
        match content {
            Some(len) => std::fs::write(&page, vec![b'x'; len]).expect("it is ours"),
            None => drop(std::fs::remove_file(&page)),
        }
        let text = [LISTENER, blocks, POOL].concat();
        let file = directory.write("baton.toml", text, 0o644);
        let output = baton(&["check", "--config", &file.display().to_string()]);
        (output.status.success(), stderr(&output))
    };
    let (is_good, said) = check(None);
    assert!(!is_good && said.contains(key) && said.contains("failed to read"), "{said}");
    assert!(check(Some(512 * 1024)).0);
    let (is_good, said) = check(Some(512 * 1024 + 1));
    assert!(!is_good && said.contains(key) && said.contains("larger than 512 KiB"), "{said}");
}
