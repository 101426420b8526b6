//! Who may come in: lists of addresses, users with passwords, and the word of another server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Directory, Settings};
use crate::client::Client;
use crate::curl::curl;
use crate::limits::wait_for_refusals;
use crate::nginx::{Authority, Nginx};
use crate::server::Server;

fn settings(listener: &str) -> Settings {
    Settings { listener: listener.to_owned(), ..Settings::default() }
}

fn from(baton: &Baton, own: &str) -> Client {
    let own: SocketAddr = format!("{own}:0").parse().expect("an address");
    Client::connect_from(own, baton.address())
}

fn status(baton: &Baton, own: &str) -> u16 {
    from(baton, own).get("/").status()
}

/// Puts a file there at once, as those do who care for their readers.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).expect("the directory is writable");
    fs::rename(&new, path).expect("the directory is writable");
}

/// Asks until the answer is as expected.
fn becomes(baton: &Baton, own: &str, expected: u16) {
    let deadline = Instant::now() + PATIENCE;
    while status(baton, own) != expected {
        assert!(Instant::now() < deadline, "{own} is not answered {expected}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn addresses_are_let_in_or_not_by_the_lists() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &settings("allow = [\"127.0.0.0/29\", \"127.0.1.1\"]\ndeny = [\"127.0.0.2\"]"));
    let asked = ["127.0.0.1", "127.0.0.2", "127.0.0.7", "127.0.0.8", "127.0.1.1", "127.0.1.2"];
    assert_eq!(asked.map(|own| status(&baton, own)), [200, 403, 200, 403, 200, 403]);
    let response = from(&baton, "127.0.0.2").get("/");
    assert_eq!(response.text(), "403 Forbidden\nthis address is not let in\n");
    assert_eq!(response.value("proxy-status"), Some("\"lb-test\"; error=http_request_denied"));
    assert_eq!(server.requests().len(), 3);
    wait_for_refusals(&baton, "address", 4);
}

#[test]
fn list_counts_for_the_client_that_a_trusted_proxy_names() {
    let server = Server::saying("ok");
    let baton =
        Baton::with(&[&server], &settings("deny = [\"192.0.2.0/24\"]\nforwarded = { trusted = [\"127.0.0.1\"] }"));
    let ask = |own: &str, list: &str| {
        from(&baton, own).ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {list}\r\n\r\n")).status()
    };
    assert_eq!(ask("127.0.0.1", "192.0.2.1"), 403);
    assert_eq!(ask("127.0.0.1", "192.0.3.1"), 200);
    assert_eq!(ask("127.0.0.2", "192.0.2.1"), 200);
}

#[test]
fn files_are_read_again_when_they_change_and_a_bad_one_changes_nothing() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let file = directory.path("deny");
    fs::write(&file, "# nobody yet\n127.0.0.2 ; one\n").expect("the directory is writable");
    let baton = Baton::with(&[&server], &settings(&format!("deny_file = {file:?}")));
    assert_eq!(["127.0.0.2", "127.0.0.3"].map(|own| status(&baton, own)), [403, 200]);
    replace(&file, "127.0.0.3\n");
    becomes(&baton, "127.0.0.3", 403);
    assert_eq!(status(&baton, "127.0.0.2"), 200);
    replace(&file, "127.0.0.2\nmoon\n");
    let status_with = baton.wait_for_status(|status| !status["warnings"].as_array().is_none_or(Vec::is_empty));
    let warning = status_with["warnings"][0].as_str().expect("a text");
    assert!(
        warning.ends_with("line 2: \"moon\" is no address and no network; the list as it was before is in use"),
        "{warning}"
    );
    assert_eq!(["127.0.0.2", "127.0.0.3"].map(|own| status(&baton, own)), [200, 403]);
    replace(&file, "127.0.0.2\n");
    becomes(&baton, "127.0.0.2", 403);
    baton.wait_for_status(|status| status["warnings"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn connections_of_tcp_are_closed_by_the_lists() {
    let server = Server::start(|exchange| {
        exchange.send("hello")?;
        exchange.wait_for_end()
    });
    let baton = Baton::with(&[&server], &settings("protocol = \"tcp\"\ndeny = [\"127.0.0.2\"]"));
    from(&baton, "127.0.0.2").expect_closed();
    assert_eq!(from(&baton, "127.0.0.3").exactly(5).expect("it greets"), b"hello");
    assert_eq!(server.connections().len(), 1);
    wait_for_refusals(&baton, "address", 1);
}

/// With a route for /in of these keys.
fn with_route(server: &Server, listener: &str, route: &str) -> Baton {
    let listener = format!("pool = \"app\"\n{listener}");
    let blocks = format!(
        "[[route]]\nlistener = \"http\"\npath_prefix = \"/in\"\npool = \"app\"\n{route}\n\
         [[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]\n[worker]\nthreads = 1\n",
        server.address()
    );
    Baton::run(&listener, &blocks)
}

#[test]
fn lists_of_a_route_are_for_those_whom_the_listener_lets_in() {
    let server = Server::saying("ok");
    let baton = with_route(&server, "deny = [\"127.0.0.2\"]", "allow = [\"127.0.0.2\", \"127.0.0.3\"]");
    let ask = |own: &str, path: &str| from(&baton, own).get(path).status();
    assert_eq!(["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|own| ask(own, "/in/x")), [403, 200, 403]);
    assert_eq!(["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|own| ask(own, "/")), [403, 200, 200]);
}

/// A file of users as htpasswd makes it.
fn users(directory: &Directory, users: &[(&str, &str, &str)]) -> String {
    let file = directory.path("users");
    let lines = users.iter().map(|(method, name, password)| {
        let mut command = Command::new("htpasswd");
        command.args(["-nb", method]).args(if *method == "-B" { &["-C", "4"][..] } else { &[] }).args([name, password]);
        let output = command.output();
        let output =
            output.unwrap_or_else(|error| panic!("htpasswd cannot be run ({error}): install package apache2-utils"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text")
    });
    replace(&file, &lines.collect::<String>());
    file.to_str().expect("test directories are UTF-8").to_owned()
}

#[test]
fn users_of_htpasswd_come_in_with_curl_and_others_are_asked_for_a_password() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let file = users(&directory, &[("-B", "ann", "secret"), ("-5", "bob", "Grüße: 1")]);
    let baton =
        Baton::with(&[&server], &settings(&format!("basic_auth = {{ users_file = {file:?}, realm = \"staff\" }}")));
    let ask = |user: &str| {
        curl(&["--user", user, "--write-out", "%{http_code}", "--output", "/dev/null", &baton.url("/")]).text()
    };
    assert_eq!(ask("ann:secret"), "200");
    assert_eq!(ask("bob:Grüße: 1"), "200");
    for wrong in ["ann:Secret", "ann:", "bob:secret", "eve:secret", ":secret"] {
        assert_eq!(ask(wrong), "401", "{wrong}");
    }
    let response = baton.client().get("/");
    assert_eq!(response.status(), 401);
    assert_eq!(response.value("www-authenticate"), Some("Basic realm=\"staff\", charset=\"UTF-8\""));
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].value("authorization"), Some("Basic YW5uOnNlY3JldA=="));
}

#[test]
fn password_that_was_right_is_known_until_the_file_changes() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let file = users(&directory, &[("-B", "ann", "secret")]);
    let basic = format!("basic_auth = {{ users_file = {file:?}, pass_on = false }}");
    let baton = Baton::with(&[&server], &settings(&basic));
    let mut client = baton.client();
    let mut ask = |credentials: &str| {
        client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {credentials}\r\n\r\n")).status()
    };
    for _ in 0..20 {
        assert_eq!(ask("Basic YW5uOnNlY3JldA=="), 200);
    }
    assert!(server.requests().iter().all(|request| request.value("authorization").is_none()));
    for bad in [
        "Basic YW5uOnNlY3JldA",
        "Bearer YW5uOnNlY3JldA==",
        "Basic YW5u",
        "Basic YW5uOnNlY3JldA==\r\nAuthorization: Basic YTpi",
    ] {
        assert_eq!(ask(bad), 401, "{bad}");
    }
    users(&directory, &[("-B", "ann", "new")]);
    let deadline = Instant::now() + PATIENCE;
    while ask("Basic YW5uOnNlY3JldA==") != 401 {
        assert!(Instant::now() < deadline, "the old password is still good");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ask("Basic YW5uOm5ldw=="), 200);
    replace(Path::new(&file), "ann:plain\n");
    let status = baton.wait_for_status(|status| !status["warnings"].as_array().is_none_or(Vec::is_empty));
    let warning = status["warnings"][0].as_str().expect("a text");
    assert!(
        warning.contains("line 1: user ann: the password is in clear") && warning.contains("htpasswd -B"),
        "{warning}"
    );
    assert_eq!(ask("Basic YW5uOm5ldw=="), 200);
}

#[test]
fn route_may_leave_the_password_of_its_listener_out() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let file = users(&directory, &[("-B", "ann", "secret")]);
    let baton = with_route(&server, &format!("basic_auth = {{ users_file = {file:?} }}"), "basic_auth = false");
    assert_eq!(["/in", "/", "/inn"].map(|path| baton.client().get(path).status()), [200, 401, 401]);
    let baton = with_route(&server, "", &format!("basic_auth = {{ users_file = {file:?} }}"));
    assert_eq!(["/in", "/", "/inn"].map(|path| baton.client().get(path).status()), [401, 200, 200]);
}

fn authorized_by(judge: &Server, rest: &str) -> Settings {
    settings(&format!("authorize = {{ url = \"http://{}/check?x=1\"{rest} }}", judge.address()))
}

#[test]
fn another_server_lets_requests_in_and_tells_servers_who_it_is() {
    let server = Server::saying("ok");
    let judge =
        Server::answering("HTTP/1.1 204 No Content\r\nX-User: ann\r\nX-Group: a\r\nX-Group: b\r\nX-Other: no\r\n\r\n");
    let rest = ", request_headers = [\"X-Token\"], response_headers = [\"X-User\", \"X-Group\", \"X-Gone\"]";
    let baton = Baton::with(&[&server], &authorized_by(&judge, rest));
    let mut client = baton.client();
    for _ in 0..3 {
        let forged = "X-User: root\r\nX-Gone: root\r\nConnection: x-user\r\n";
        let request = format!(
            "POST /a?b HTTP/1.1\r\nHost: a.example\r\nX-Token: t\r\nCookie: c=1\r\n{forged}Content-Length: 4\r\n\r\nbody"
        );
        assert_eq!(client.ask(request).status(), 200);
    }
    for request in server.requests() {
        assert_eq!((request.value("x-user"), request.values("x-group")), (Some("ann"), vec!["a", "b"]));
        assert_eq!((request.value("x-gone"), request.value("x-other")), (None, None));
        assert_eq!(request.body, b"body");
    }
    let asked = judge.requests();
    assert_eq!((asked.len(), judge.connections().len()), (3, 1), "the connection is used again");
    assert_eq!(asked[0].start, "GET /check?x=1 HTTP/1.1");
    let host = judge.address().to_string();
    let mut fields = asked[0].fields.clone();
    fields.sort();
    let expected = [
        ("host", &host[..]),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-uri", "/a?b"),
        ("x-token", "t"),
    ];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn what_the_other_server_says_no_client_says_on_any_route_and_in_no_other_spelling() {
    let server = Server::saying("ok");
    let judge = Server::answering("HTTP/1.1 204 No Content\r\nX-User: ann\r\nX-Role: staff\r\n\r\n");
    let by = |rest: &str| format!("authorize = {{ url = \"http://{}/\"{rest} }}", judge.address());
    let both = by(", request_headers = [\"x-role\"], response_headers = [\"X-User\", \"x-role\", \"authorization\"]");
    let forged =
        "X-User: root\r\nX_User: root\r\nx-ROLE: admin\r\nX_Role: admin\r\nX_Own: 1\r\nAuthorization: Basic YTpi\r\n";
    let ask = |baton: &Baton, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{forged}\r\n");
        assert_eq!(baton.client().ask(request).status(), 200);
        let request = server.requests().pop().expect("it was asked");
        let found = ["x-user", "x_user", "x-role", "x_role", "x_own", "authorization"]
            .map(|name| request.values(name).join("|"));
        found.join(" ")
    };
    let baton = with_route(&server, &both, "authorize = false");
    assert_eq!(ask(&baton, "/"), "ann  staff  1 ");
    assert_eq!(ask(&baton, "/in"), "    1 Basic YTpi");
    assert_eq!(judge.requests().len(), 1);
    assert_eq!(judge.requests()[0].values("x-role"), ["admin"], "it is asked with what the client says");
    // The same where the route alone has somebody asked.
    let baton = with_route(&server, "", &by(", response_headers = [\"X-User\"]"));
    assert_eq!(ask(&baton, "/in"), "ann  admin admin 1 Basic YTpi");
    assert_eq!(ask(&baton, "/"), "  admin admin 1 Basic YTpi");
    // No route goes by it either.
    let staff = "headers = [{ name = \"x-user\", exact = \"root\" }]\nrespond = { status = 418 }";
    let blocks = format!("authorize = false\n[[route]]\nlistener = \"http\"\n{staff}");
    let baton = with_route(&server, &by(", response_headers = [\"X-User\"]"), &blocks);
    assert_eq!(ask(&baton, "/"), "ann  admin admin 1 Basic YTpi");
}

#[test]
fn refusals_of_the_other_server_are_the_answer() {
    for (answer, status, text) in [
        ("401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 5\r\n\r\nlogin", 401, "login"),
        ("403 Forbidden\r\nSet-Cookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 403, "no"),
        ("302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", 302, ""),
    ] {
        let server = Server::saying("ok");
        let judge = Server::answering(format!("HTTP/1.1 {answer}"));
        let baton = Baton::with(&[&server], &authorized_by(&judge, ""));
        let mut client = baton.client();
        for _ in 0..2 {
            let response = client.get("/");
            assert_eq!((response.status(), response.text()), (status, text.to_owned()));
            let told = ["www-authenticate", "set-cookie", "location"].map(|name| response.value(name));
            assert_eq!(told.into_iter().flatten().count(), 1, "{response:?}");
        }
        assert_eq!(server.requests(), []);
        assert_eq!(judge.connections().len(), 1);
        wait_for_refusals(&baton, "authorize", 2);
    }
}

#[test]
fn body_of_a_refusal_over_the_limit_is_left_out() {
    let server = Server::saying("ok");
    let body = "x".repeat(64 * 1024 + 1);
    let judge = Server::answering(format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let baton = Baton::with(&[&server], &authorized_by(&judge, ""));
    let response = baton.client().get("/");
    assert_eq!((response.status(), response.body.len()), (403, 0));
    assert_eq!(response.value("content-length"), Some("0"));
}

#[test]
fn without_a_word_requests_are_refused_or_let_in_as_configured() {
    let silent = || Server::start(|exchange| exchange.wait_for_end());
    let broken = || Server::start(|_| Ok(()));
    let confused = || Server::answering("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let mut gone = Server::saying("ok");
    gone.pause();
    for (judge, error) in [
        (silent(), "http_response_timeout"),
        (broken(), "connection_terminated"),
        (confused(), "http_response_incomplete"),
        (gone, "connection_refused"),
    ] {
        let server = Server::saying("ok");
        let baton = Baton::with(&[&server], &authorized_by(&judge, ", timeout = \"200ms\""));
        let response = baton.client().get("/");
        assert_eq!(response.status(), 503, "{error}");
        let status = format!("\"lb-test\"; error={error}; next-hop=\"{}\"", judge.address());
        assert_eq!(response.value("proxy-status"), Some(&status[..]));
        assert_eq!(server.requests(), []);
        baton.wait_for_log("the server that authorizes does not answer");
        let baton = Baton::with(&[&server], &authorized_by(&judge, ", timeout = \"200ms\", on_error = \"allow\""));
        assert_eq!(baton.client().get("/").status(), 200, "{error}");
    }
}

#[test]
fn body_that_does_not_end_is_waited_for_no_longer_than_the_timeout() {
    let server = Server::saying("ok");
    let judge = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")?;
        exchange.wait_for_end()
    });
    let baton = Baton::with(&[&server], &authorized_by(&judge, ", timeout = \"200ms\""));
    assert_eq!(baton.client().get("/").status(), 503);
}

#[test]
fn only_so_many_wait_for_a_word_at_once() {
    let server = Server::saying("ok");
    let judge = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.wait_for_signal()?;
            exchange.send("HTTP/1.1 204 No Content\r\n\r\n")?;
        }
    });
    let baton = Baton::with(&[&server], &authorized_by(&judge, ", timeout = \"10s\", requests_max = 1"));
    let mut first = baton.client();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    judge.wait_until("it is asked", |record| !record.requests.is_empty());
    let response = baton.client().get("/");
    assert_eq!(response.status(), 503);
    assert!(response.value("proxy-status").is_some_and(|status| status.contains("connection_limit_reached")));
    judge.signal();
    assert_eq!(first.response().status(), 200);
    judge.signal();
    assert_eq!(baton.client().get("/").status(), 200);
}

#[test]
fn connection_that_was_closed_meanwhile_costs_no_answer() {
    let server = Server::saying("ok");
    let judge = Server::start(|exchange| {
        exchange.request()?;
        exchange.send("HTTP/1.1 204 No Content\r\n\r\n")
    });
    let baton = Baton::with(&[&server], &authorized_by(&judge, ""));
    let mut client = baton.client();
    for number in 1..=5 {
        assert_eq!(client.get("/").status(), 200);
        judge.wait_until("it has closed", |record| {
            record.connections.iter().filter(|one| one.is_ended).count() == number
        });
    }
}

#[test]
fn a_server_that_authorizes_is_asked_over_https_and_has_to_be_the_right_one() {
    let server = Server::saying("ok");
    let authority = Authority::new();
    let (cert, key) = authority.certificate("judge", "DNS:auth.internal");
    let directives = format!(
        "ssl_certificate {};\nssl_certificate_key {};\nadd_header X-User \"$ssl_server_name\";\nreturn 204;",
        cert.display(),
        key.display()
    );
    let judge = Nginx::start("ssl", &directives);
    let by = |name: &str| {
        let (address, ca) = (judge.address(), authority.ca_file());
        let tls = format!("tls = {{ ca_file = {ca:?}, server_name = \"{name}\" }}");
        settings(&format!("authorize = {{ url = \"https://{address}/\", response_headers = [\"x-user\"], {tls} }}"))
    };
    let baton = Baton::with(&[&server], &by("auth.internal"));
    for _ in 0..2 {
        assert_eq!(baton.client().get("/").status(), 200);
    }
    assert_eq!(server.requests()[0].value("x-user"), Some("auth.internal"));
    let baton = Baton::with(&[&server], &by("other.internal"));
    assert_eq!(baton.client().get("/").status(), 503);
    baton.wait_for_log("tls_certificate_error");
    wait_for_refusals(&baton, "authorize_error", 1);
}
