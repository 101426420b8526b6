//! The access log: what a line says, where it goes, and that nothing that goes wrong with it is felt by a client.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;
use crate::baton::{Baton, Directory, Settings};
use crate::client::Client;
use crate::curl::curl;
use crate::server::{Port, Server};
use crate::tls::certificate;

/// A server that answers every request with two bytes.
fn greeter() -> Server {
    Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")?;
        }
    })
}

/// A file of the access log, and its settings.
pub struct Log {
    directory: Directory,
}

impl Log {
    pub fn new() -> Self {
        Self { directory: Directory::new() }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path("access.log")
    }

    /// Settings that write to it, with further keys.
    pub fn settings(&self, keys: &str) -> Settings {
        let worker = format!("[access_log]\nto = \"{}\"\n{keys}", self.path().display());
        Settings { worker, ..Settings::default() }
    }
}

/// Waits until a file has so many lines.
fn lines(path: &Path, count: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8(text).expect("a log is UTF-8");
        if text.lines().count() >= count && text.ends_with('\n') {
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            assert_eq!(lines.len(), count, "{lines:#?}");
            return lines;
        }
        assert!(Instant::now() < deadline, "{} has not {count} lines: {text}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same, of JSON.
pub fn objects(path: &Path, count: usize) -> Vec<Value> {
    let read = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    lines(path, count).iter().map(read).collect()
}

fn names(line: &Value) -> Vec<&str> {
    line.as_object().expect("a line is an object").keys().map(String::as_str).collect()
}

#[test]
fn a_line_says_who_asked_for_what_and_how_it_went() {
    let (log, server) = (Log::new(), greeter());
    let baton = Baton::with(&[&server], &log.settings(""));
    let ran = curl(&["-A", "agent/1", "-e", "http://from.example/", "-d", "abc", &baton.url("/a/b?c=d")]);
    assert_eq!(ran.text(), "hi");
    let line = &objects(&log.path(), 1)[0];
    let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}")).to_owned();
    assert_eq!(text("client"), "127.0.0.1");
    assert_eq!(text("listener"), "http");
    assert_eq!(text("method"), "POST");
    assert_eq!(text("host"), baton.address().to_string());
    assert_eq!(text("path"), "/a/b?c=d");
    assert_eq!(text("protocol"), "HTTP/1.1");
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes_in"], 3);
    assert_eq!(line["bytes_out"], 2);
    assert_eq!(text("referer"), "http://from.example/");
    assert_eq!(text("user_agent"), "agent/1");
    assert_eq!(text("pool"), "app");
    assert_eq!(text("server"), "app1");
    assert_eq!(text("chosen_by"), "algorithm");
    assert_eq!(text("ended"), "complete");
    let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"));
    assert!(number("connect_us") <= number("first_byte_us"), "{line}");
    assert!(number("first_byte_us") <= number("total_us"), "{line}");
    let time = text("time");
    assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    // A second request over the same connection to the server has nothing to connect.
    assert_eq!(curl(&[&baton.url("/")]).text(), "hi");
    let second = &objects(&log.path(), 2)[1];
    assert!(!names(second).contains(&"connect_us"), "{second}");
    assert!(!names(second).contains(&"referer"), "{second}");
}

#[test]
fn a_line_names_the_route_of_its_request() {
    let (log, server) = (Log::new(), greeter());
    let mut settings = log.settings("");
    settings.worker.push_str(
        "[[route]]\nlistener = \"http\"\nname = \"api\"\npath_prefix = \"/api\"\npool = \"app\"\n\
         [[route]]\nlistener = \"http\"\npath = \"/no\"\nrespond = { status = 403, body = \"no\" }",
    );
    let baton = Baton::with(&[&server], &settings);
    for path in ["/api/x", "/no", "/elsewhere"] {
        assert_eq!(curl(&[&baton.url(path)]).code, Some(0), "{path}");
    }
    let lines = objects(&log.path(), 3);
    assert_eq!(lines[0]["route"], "api", "{}", lines[0]);
    assert_eq!(lines[1]["route"], "#2", "{}", lines[1]);
    assert_eq!(lines[2].get("route"), None, "{}", lines[2]);
}

#[test]
fn connections_that_servers_close_are_no_reason_for_retries() {
    for head in ["HTTP/1.0 200 OK\r\n", "HTTP/1.1 200 OK\r\nConnection: Foo, Close\r\n"] {
        let server = Server::start(move |exchange| {
            exchange.request()?;
            exchange.send(format!("{head}Content-Length: 2\r\n\r\nok"))
        });
        let log = Log::new();
        let baton = Baton::with(&[&server], &log.settings(""));
        let mut client = baton.client();
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), "ok");
        }
        for line in objects(&log.path(), 3) {
            assert_eq!(line.get("retries"), None, "{line}");
        }
    }
}

#[test]
fn combined_lines_are_those_of_nginx() {
    let (log, server) = (Log::new(), greeter());
    let baton = Baton::with(&[&server], &log.settings("format = \"combined\""));
    assert_eq!(curl(&["-A", "agent \"1\"\\", &baton.url("/a?b")]).text(), "hi");
    let line = &lines(&log.path(), 1)[0];
    let (before, rest) = line.split_once('[').expect("there is a time");
    let (time, after) = rest.split_once(']').expect("it ends");
    assert_eq!(before, "127.0.0.1 - - ");
    assert_eq!(after, " \"GET /a?b HTTP/1.1\" 200 2 \"-\" \"agent \\x221\\x22\\x5C\"");
    assert!(time.len() == 26 && time.ends_with(" +0000"), "{time}");
}

#[test]
fn hostile_values_stay_within_their_field() {
    for format in ["json", "combined"] {
        // One that need not understand what it gets.
        let server = Server::start(|exchange| {
            exchange.some(4096)?;
            exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")?;
            exchange.wait_for_end()
        });
        let log = Log::new();
        let baton = Baton::with(&[&server], &log.settings(&format!("format = \"{format}\"")));
        let mut client = baton.client();
        let request = b"GET /%0a%22x HTTP/1.1\r\nHost: a.example\r\nUser-Agent: a\", \"status\":500}\t\xff\xe2\x80\xa8\xc2\x9b1m\r\n\
                        Referer: \\\" 500 0\r\n\r\n";
        assert_eq!(client.ask(request).status(), 200);
        let line = lines(&log.path(), 1).remove(0);
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line:?}");
        if format == "json" {
            let line: Value = serde_json::from_str(&line).expect("it is JSON");
            assert_eq!(line["user_agent"], "a\", \"status\":500}\t\u{ff}\u{2028}\u{9b}1m");
            assert_eq!(line["referer"], "\\\" 500 0");
            assert_eq!(line["status"], 200);
        } else {
            let fields = "\"GET /%0a%22x HTTP/1.1\" 200 2 \"\\x5C\\x22 500 0\" \
                          \"a\\x22, \\x22status\\x22:500}\\x09\\xFF\\xE2\\x80\\xA8\\xC2\\x9B1m\"";
            assert!(line.ends_with(fields), "{line}");
        }
    }
}

#[test]
fn a_renamed_file_is_left_at_a_hangup() {
    let (log, server) = (Log::new(), greeter());
    let baton = Baton::with(&[&server], &log.settings(""));
    let mut client = baton.client();
    assert_eq!(client.get("/before").status(), 200);
    lines(&log.path(), 1);
    let rotated = log.directory.path("access.log.1");
    fs::rename(log.path(), &rotated).expect("it is ours");
    assert_eq!(client.get("/still-there").status(), 200);
    lines(&rotated, 2);
    baton.hang_up();
    baton.wait_for_log("the access log was opened again");
    assert_eq!(client.get("/after").status(), 200);
    assert_eq!(objects(&log.path(), 1)[0]["path"], "/after");
    lines(&rotated, 2);
    // Once more, and by a worker that was started since.
    fs::rename(log.path(), log.directory.path("access.log.2")).expect("it is ours");
    baton.hang_up();
    baton.wait_for_logs(2, "the access log was opened again");
    rustix::process::kill_process(baton.worker(), rustix::process::Signal::KILL).expect("it runs");
    baton.wait_for_logs(2, "worker serves");
    assert_eq!(baton.client().get("/new-worker").status(), 200);
    assert_eq!(objects(&log.path(), 1)[0]["path"], "/new-worker");
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let server = greeter();
    let worker = "[access_log]\nto = \"/dev/full\"\n".to_owned();
    let baton = Baton::with(&[&server], &Settings { worker, ..Settings::default() });
    let mut client = baton.client();
    for _ in 0..100 {
        assert_eq!(client.get("/").status(), 200);
    }
    baton.wait_for_log("lines of the access log are dropped");
    let deadline = Instant::now() + PATIENCE;
    let told = |status: &Value| {
        let warnings = status["warnings"].as_array().expect("there is a list").clone();
        warnings.iter().any(|warning| warning.as_str().unwrap_or("").contains("/dev/full cannot be written"))
    };
    while !told(&baton.status()) {
        assert!(Instant::now() < deadline, "nobody is told: {}", baton.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    baton.wait_for_logs(1, "lines of the access log are dropped");
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn refused_requests_are_logged_with_the_reason() {
    let (log, server) = (Log::new(), greeter());
    let mut settings = log.settings("");
    settings.listener = "rate_limit = { requests = 1, per = \"1h\" }".to_owned();
    let baton = Baton::with(&[&server], &settings);
    assert_eq!(baton.client().ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status(), 400);
    assert_eq!(baton.client().get("/1").status(), 200);
    assert_eq!(baton.client().get("/2").status(), 429);
    let found = objects(&log.path(), 3);
    assert_eq!(found[0]["status"], 400);
    assert_eq!(found[0]["ended"], "refused");
    assert!(found[0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{}", found[0]);
    // Not the request that stands for the refusal within the program.
    assert!(!names(&found[0]).contains(&"path") && !names(&found[0]).contains(&"host"), "{}", found[0]);
    assert_eq!(found[1]["ended"], "complete");
    assert_eq!((&found[2]["path"], &found[2]["reason"]), (&Value::from("/2"), &Value::from("rate_limited")));
    assert_eq!((&found[2]["status"], &found[2]["ended"]), (&Value::from(429), &Value::from("refused")));
}

#[test]
fn request_that_could_not_be_read_has_its_first_line_in_the_log() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000));
    let cases: [(&[u8], u64, String); 6] = [
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "GET / HTTP/1.1".to_owned()),
        (b"\r\nGET  /x HTTP/1.1\r\n\r\n", 400, "GET  /x HTTP/1.1".to_owned()),
        (b"\x16\x03\x01\"\xff\n", 400, "\x16\x03\x01\"\u{ff}".to_owned()),
        (long.as_bytes(), 414, long[..1024].to_owned()),
        // Behind one that is good, of which no line is kept.
        (b"GET /good HTTP/1.1\r\nHost: a\r\n\r\nGET bad HTTP/1.1\r\n\r\n", 400, "GET bad HTTP/1.1".to_owned()),
        // It does not come to its end in time.
        (b"GET /slow HT", 408, "GET /slow HT".to_owned()),
    ];
    for (sent, status, expected) in cases {
        let (log, server) = (Log::new(), greeter());
        let mut settings = log.settings("");
        settings.listener = "head_timeout = \"300ms\"".to_owned();
        let baton = Baton::with(&[&server], &settings);
        let mut client = baton.client();
        client.send(sent).expect("the connection is open");
        let has_good = sent.starts_with(b"GET /good");
        if has_good {
            assert_eq!(client.response().status(), 200);
        }
        assert_eq!(u64::from(client.response().status()), status);
        let lines = objects(&log.path(), 1 + usize::from(has_good));
        let line = &lines[usize::from(has_good)];
        assert_eq!((&line["status"], &line["request_line"]), (&Value::from(status), &Value::from(expected)), "{line}");
        assert!(!names(&lines[0]).contains(&"request_line") || !has_good, "{}", lines[0]);
    }
    let (log, server) = (Log::new(), greeter());
    let baton = Baton::with(&[&server], &log.settings("format = \"combined\""));
    assert_eq!(baton.client().ask("GET\t\"/\" HTTP/1.1\r\n\r\n").status(), 400);
    let line = lines(&log.path(), 1).remove(0);
    assert!(line.contains("] \"GET\\x09\\x22/\\x22 HTTP/1.1\" 400 "), "{line}");
}

#[test]
fn a_line_says_who_broke_it_off() {
    let log = Log::new();
    let server = Server::start(|exchange| {
        let request = exchange.request()?;
        if request.start.contains("/short") {
            exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhi")?;
            return Ok(());
        }
        if request.start.contains("/stall") {
            exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhi")?;
        }
        exchange.signal();
        exchange.wait_for_end()
    });
    let mut settings = log.settings("");
    settings.pool = "response_timeout = \"200ms\"".to_owned();
    let baton = Baton::with(&[&server], &settings);
    let ask = |path: &str| {
        let mut client = baton.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).expect("it is open");
        client
    };
    let _broken = ask("/short").rest();
    let line = objects(&log.path(), 1).remove(0);
    assert_eq!((&line["status"], &line["ended"]), (&Value::from(200), &Value::from("server_failed")), "{line}");
    let _stalled = ask("/stall").rest();
    let line = objects(&log.path(), 2).remove(1);
    assert_eq!((&line["status"], &line["ended"]), (&Value::from(200), &Value::from("timed_out")), "{line}");
    let mut client = ask("/silent");
    assert_eq!(client.response().status(), 504);
    let line = objects(&log.path(), 3).remove(2);
    assert_eq!((&line["ended"], &line["reason"]), (&Value::from("timed_out"), &Value::from("http_response_timeout")));
    assert_eq!(line["pool"], "app");
}

#[test]
fn a_client_that_goes_away_is_499() {
    let log = Log::new();
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.signal();
        exchange.wait_for_end()
    });
    let baton = Baton::with(&[&server], &log.settings(""));
    let mut client = baton.client();
    client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is open");
    server.wait_until("the request is there", |record| record.signals() > 0);
    drop(client);
    let line = objects(&log.path(), 1).remove(0);
    assert_eq!((&line["status"], &line["ended"]), (&Value::from(499), &Value::from("client_gone")), "{line}");
    assert_eq!(line["path"], "/gone");
}

#[test]
fn a_line_says_why_a_server_was_chosen() {
    let (log, server, dead) = (Log::new(), greeter(), Port::reserve());
    let mut settings = log.settings("");
    settings.pool = "[pool.sticky]\nby = \"cookie\"".to_owned();
    let baton = Baton::before_addresses(&[dead.address(), server.address()], &settings);
    let response = baton.client().get("/first");
    let cookie = response.value("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("there is one");
    let again = format!("GET /again HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    assert_eq!(baton.client().ask(again).status(), 200);
    let found = objects(&log.path(), 2);
    assert_eq!((&found[0]["server"], &found[0]["chosen_by"]), (&Value::from("app2"), &Value::from("retry")));
    assert_eq!(found[0]["retries"], 1);
    assert_eq!((&found[1]["server"], &found[1]["chosen_by"]), (&Value::from("app2"), &Value::from("session")));
    assert!(!names(&found[1]).contains(&"retries"), "{}", found[1]);
}

#[test]
fn errors_alone_paths_left_out_and_a_share() {
    let (log, server) = (Log::new(), greeter());
    let keys = "only = \"errors\"\nexcept_paths = [\"/health\"]";
    let mut settings = log.settings(keys);
    settings.listener = "rate_limit = { requests = 2, per = \"1h\" }".to_owned();
    let baton = Baton::with(&[&server], &settings);
    let mut client = baton.client();
    for (path, status) in [("/1", 200), ("/2", 200), ("/health", 429), ("/health/x", 429), ("/healthy", 429)] {
        assert_eq!(client.get(path).status(), status);
    }
    assert_eq!(objects(&log.path(), 1)[0]["path"], "/healthy");

    // All but certainly neither none nor all of two thousand.
    let (log, server) = (Log::new(), greeter());
    let baton = Baton::with(&[&server], &log.settings("sample = 0.5"));
    let mut client = baton.client();
    (0..2000).for_each(|_| assert_eq!(client.get("/").status(), 200));
    drop(client);
    baton.terminate();
    baton.wait_for_log("baton has stopped");
    let count = fs::read_to_string(log.path()).expect("there are some").lines().count();
    assert!((600..1400).contains(&count), "{count}");
}

#[test]
fn a_listener_may_have_a_log_of_its_own_or_none() {
    let (all, own, server) = (Log::new(), Log::new(), greeter());
    let (silent, apart) = (Port::reserve(), Port::reserve());
    let blocks = format!(
        "[[listener]]\nname = \"silent\"\nbind = [\"{}\"]\npool = \"app\"\naccess_log = \"off\"\n\
         [[listener]]\nname = \"apart\"\nbind = [\"{}\"]\npool = \"app\"\n[listener.access_log]\nto = \"{}\"\n\
         [[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]\n\
         [access_log]\nto = \"{}\"\nformat = \"combined\"\n[worker]\nthreads = 1\n",
        silent.address(),
        apart.address(),
        own.path().display(),
        server.address(),
        all.path().display()
    );
    let baton = Baton::run("pool = \"app\"", &blocks);
    for (address, path) in [(silent.address(), "/silent"), (apart.address(), "/apart"), (baton.address(), "/all")] {
        assert_eq!(Client::connect(address).get(path).status(), 200);
    }
    assert!(lines(&all.path(), 1)[0].contains("\"GET /all HTTP/1.1\""));
    // What it does not say itself it has from the others.
    assert!(lines(&own.path(), 1)[0].contains("\"GET /apart HTTP/1.1\""));
}

#[test]
fn lines_go_to_standard_output_at_the_end_at_the_latest() {
    let server = greeter();
    let worker = "[access_log]\n".to_owned();
    let mut baton = Baton::with(&[&server], &Settings { worker, ..Settings::default() });
    assert_eq!(baton.client().get("/out").status(), 200);
    baton.terminate();
    assert!(baton.wait().success());
    assert_eq!(objects(&baton.stdout(), 1)[0]["path"], "/out");
}

#[test]
fn lines_go_to_syslog_and_to_the_journal() {
    for (keys, begin, end) in [
        ("to = \"syslog\"", "<134>baton[", "}"),
        ("to = \"syslog\"\nsyslog_format = \"rfc5424\"", "<134>1 20", "}"),
        (
            "to = \"journal\"",
            "PRIORITY=6\nSYSLOG_FACILITY=16\nSYSLOG_IDENTIFIER=baton\nBATON_LOG=access\nMESSAGE={",
            "}\n",
        ),
    ] {
        let (directory, server) = (Directory::new(), greeter());
        let path = directory.path("socket");
        let socket = open_to_all(&path);
        let worker = format!("[access_log]\n{keys}\nsocket = \"{}\"\n", path.display());
        let baton = Baton::with(&[&server], &Settings { worker, ..Settings::default() });
        assert_eq!(baton.client().get("/logged").status(), 200);
        let message = receive(&socket);
        assert!(message.starts_with(begin) && message.ends_with(end), "{message}");
        let object = message.get(message.find('{').expect("there is an object")..).expect("it is there").trim_end();
        assert_eq!(serde_json::from_str::<Value>(object).expect("it is JSON")["path"], "/logged");
        // Whoever reads there may go away and come back.
        drop(socket);
        fs::remove_file(&path).expect("it is ours");
        assert_eq!(baton.client().get("/lost").status(), 200);
        baton.wait_for_log("lines of the access log are dropped");
        let socket = open_to_all(&path);
        assert_eq!(baton.client().get("/back").status(), 200);
        assert!(receive(&socket).contains("\"/back\""));
        baton.wait_for_log("the access log can be written again");
    }
}

/// A socket that the worker may write to, whoever it is.
fn open_to_all(path: &Path) -> UnixDatagram {
    use std::os::unix::fs::PermissionsExt as _;
    let socket = UnixDatagram::bind(path).expect("the directory is writable");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is open");
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("it is ours");
    socket
}

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = vec![0; 64 * 1024];
    let len = socket.recv(&mut buffer).expect("a line comes");
    String::from_utf8(buffer[..len].to_vec()).expect("it is UTF-8")
}

#[test]
fn a_connection_of_tcp_is_one_line() {
    let log = Log::new();
    let server = Server::start(|exchange| {
        exchange.some(100)?;
        exchange.send("pong!")?;
        Ok(())
    });
    let mut settings = log.settings("");
    settings.listener = "protocol = \"tcp\"".to_owned();
    let baton = Baton::with(&[&server], &settings);
    let mut client = baton.client();
    client.send("ping").expect("it is open");
    assert_eq!(client.rest().expect("an orderly end"), b"pong!");
    drop(client);
    let line = objects(&log.path(), 1).remove(0);
    assert_eq!((&line["protocol"], &line["client"]), (&Value::from("TCP"), &Value::from("127.0.0.1")));
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&Value::from(4), &Value::from(5)));
    assert_eq!((&line["server"], &line["chosen_by"]), (&Value::from("app1"), &Value::from("algorithm")));
    assert_eq!((&line["ended"], &line["reason"]), (&Value::from("complete"), &Value::from("server_closed")));
    assert!(line["connect_us"].is_u64() && line["total_us"].is_u64() && !names(&line).contains(&"status"), "{line}");
}

#[test]
fn a_line_names_protocol_tls_host_and_request() {
    let (log, server) = (Log::new(), greeter());
    let certificate = certificate(&log.directory, "a.example");
    let mut settings = log.settings("");
    let (cert, key) = (&certificate.cert, &certificate.key);
    settings.listener = format!("request_id = {{}}\ntls = {{ certificates = [{{ cert = {cert:?}, key = {key:?} }}] }}");
    let baton = Baton::with(&[&server], &settings);
    let (url, resolve) = (
        format!("https://a.example:{}/x", baton.address().port()),
        format!("a.example:{}:127.0.0.1", baton.address().port()),
    );
    for (version, protocol) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let ran = curl(&["--insecure", "--resolve", &resolve, version, &url]);
        assert_eq!(ran.text(), "hi", "{ran:?}");
        let count = 1 + usize::from(version == "--http2");
        let line = objects(&log.path(), count).pop().expect("there is one");
        assert_eq!((&line["protocol"], &line["path"]), (&Value::from(protocol), &Value::from("/x")), "{line}");
        assert_eq!((&line["tls"], &line["sni"]), (&Value::from("TLSv1.3"), &Value::from("a.example")), "{line}");
        let host = format!("a.example:{}", baton.address().port());
        assert_eq!((&line["host"], &line["bytes_out"]), (&Value::from(host), &Value::from(2)), "{line}");
        assert!(line["request_id"].as_str().is_some_and(|id| id.len() >= 16), "{line}");
        assert_eq!(line["ended"], "complete", "{line}");
    }
}
