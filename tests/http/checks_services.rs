//! Health checks of real services, of what servers say by themselves, and by commands.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::PATIENCE;
use crate::baton::{Baton, Directory, Settings};
use crate::redis::server::free_port;
use crate::server::{Port, Server};
use crate::tls_files::{Authority, Kind};

/// A process, killed at its drop.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn with(keys: &str) -> Settings {
    let often = "interval = \"100ms\", fall = 1, rise = 1";
    Settings { pool: format!("health = {{ {often}, {keys} }}\n"), ..Settings::default() }
}

/// Waits until a server is up or down, and gives what its last check said.
fn wait_for(baton: &Baton, server: usize, up: bool) -> String {
    let is_so = |status: &serde_json::Value| {
        let server = &status["pools"][0]["servers"][server];
        server["up"] == up && server["checked"] == true
    };
    let status = baton.wait_for_status(is_so);
    status["pools"][0]["servers"][server]["last_check"].as_str().expect("it is said").to_owned()
}

#[test]
fn grpc_services_say_how_they_are() {
    let script = format!("{}/tests/http/programs/health_of_grpc.py", env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new("/usr/bin/python3");
    python.arg(script).arg("server").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = Process(python.spawn().expect("package python3 is installed"));
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says its port");
    let port: u16 = line.trim().parse().expect("it serves: is package python3-grpcio installed?");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let pool = |name: &str, service: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\nservers = [{{ name = \"one\", address = \"{address}\" }}]\nhealth = {{ type = \
             \"grpc\", {service} interval = \"100ms\", fall = 1, rise = 1 }}\n"
        )
    };
    let pools =
        [("up", "service = \"up\","), ("sick", "service = \"sick\","), ("all", ""), ("none", "service = \"x.Y\",")];
    let blocks: String = pools.iter().map(|(name, service)| pool(name, service)).collect();
    let routes: String = ["sick", "all", "none"]
        .map(|name| format!("[[route]]\nlistener = \"http\"\npath_prefix = \"/{name}\"\npool = \"{name}\"\n"))
        .concat();
    let baton = Baton::run("pool = \"up\"", &format!("{routes}{blocks}"));
    let said = |status: &serde_json::Value, pool: usize| {
        let server = &status["pools"][pool]["servers"][0];
        (server["up"] == true, server["last_check"].as_str().unwrap_or_default().to_owned())
    };
    let status = baton.wait_for_status(|status| (0..4).map(|pool| said(status, pool).0).eq([true, false, true, false]));
    assert!(said(&status, 0).1.starts_with("SERVING in "), "{status:#}");
    assert_eq!(said(&status, 1).1, "NOT_SERVING");
    assert_eq!(said(&status, 3).1, "gRPC status 5 \"no such service\"");
    let mut stdin = server.0.stdin.take().expect("it is piped");
    stdin.write_all(b"2\n").expect("it reads");
    baton.wait_for_status(|status| said(status, 0) == (false, "NOT_SERVING".to_owned()));
    stdin.write_all(b"1\n").expect("it reads");
    baton.wait_for_status(|status| said(status, 0).0);
}

#[test]
fn name_servers_are_asked() {
    let port = free_port();
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--no-daemon",
        "--conf-file=/dev/null",
        "--bind-interfaces",
    ]);
    dnsmasq.args(["--listen-address=127.0.0.1", "--address=/a.example/192.0.2.7", "--log-facility=-"]);
    dnsmasq.arg(format!("--port={port}")).stderr(Stdio::null()).stdout(Stdio::null());
    let dnsmasq = Process(dnsmasq.spawn().expect("package dnsmasq-base is installed"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "dnsmasq does not listen");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for over in ["udp", "tcp"] {
        let keys = format!("type = \"dns\", query = \"a.example\", over = \"{over}\"");
        let good = Baton::before_addresses(&[address], &with(&format!("{keys}, answer = \"192.0.2.7\"")));
        assert!(wait_for(&good, 0, true).starts_with("1 records in "));
        let other = Baton::before_addresses(&[address], &with(&format!("{keys}, answer = \"192.0.2.8\"")));
        assert_eq!(wait_for(&other, 0, false), "192.0.2.8 is not in its answer");
    }
    let refused = "type = \"dns\", query = \"b.example\", rcode = \"REFUSED\"";
    let baton = Baton::before_addresses(&[address], &with(refused));
    assert!(wait_for(&baton, 0, true).starts_with("it answers REFUSED in "));
    drop(dnsmasq);
    assert_eq!(wait_for(&baton, 0, false), "its port is unreachable");
}

#[test]
fn name_server_that_lies_or_says_nothing_is_down() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = socket.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // The question itself, and an answer to nobody's.
            let _gone = socket.send_to(&buffer[..len], from);
            let _gone = socket.send_to(b"\0\0\x81\x80\0\x01\0\0\0\0\0\0", from);
        }
    });
    let keys = "type = \"dns\", query = \"a.example\", timeout = \"100ms\"";
    let baton = Baton::before_addresses(&[address], &with(keys));
    assert_eq!(wait_for(&baton, 0, false), "no answer within 100 ms");
}

#[test]
fn agents_say_how_their_servers_are() {
    let agent = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = agent.local_addr().expect("it is bound").port();
    let line = Arc::new(Mutex::new("up 75%\n"));
    let says = Arc::clone(&line);
    std::thread::spawn(move || {
        for mut stream in agent.incoming().flatten() {
            let line = *says.lock().unwrap();
            let _gone = stream.write_all(line.as_bytes());
        }
    });
    let server = Server::saying("one");
    let pool = format!("agent = {{ port = {port}, interval = \"100ms\" }}\n");
    let baton = Baton::with(&[&server], &Settings { pool, ..Settings::default() });
    let heard = |said: &str| {
        baton.wait_for_status(|status| status["pools"][0]["servers"][0]["agent"] == said);
    };
    let say = |words: &'static str| *line.lock().unwrap() = words;
    heard("75%");
    let mut client = baton.client();
    assert_eq!(client.get("/").status(), 200);
    for (words, said, status) in [
        ("drain\n", "drain 75%", 503),
        ("ready\n", "75%", 200),
        ("down # the disk is full\n", "down 75%", 503),
        ("UP, 100%\r\n", "100%", 200),
        ("0%", "0%", 503),
        ("30%", "30%", 200),
        ("maint fail", "maint down 30%", 503),
        ("ready,up", "30%", 200),
    ] {
        say(words);
        heard(said);
        assert_eq!(client.get("/").status(), status, "{words}");
    }
    // What makes no sense changes nothing.
    say("SSH-2.0-OpenSSH\r\n");
    baton.wait_for_log("the agent of a server does not answer");
    heard("30%");
    let (_, text, _) = baton.command(&["status"]);
    assert!(text.contains("not checked, its agent says 30%"), "{text}");
    // And that much of its weight of 1 it has, in 256ths.
    baton.wait_for_status(|status| status["pools"][0]["servers"][0]["effective_weight"] == 76.0 / 256.0);
}

#[test]
fn commands_check_servers_without_privileges() {
    let directory = Directory::new();
    let (script, verdict) = (directory.path("check"), directory.path("verdict"));
    let text = format!(
        "#!/bin/sh\necho \"$BATON_POOL_NAME $BATON_SERVER_NAME $BATON_SERVER_ADDRESS $BATON_SERVER_PORT $(id -u)\"\n. {}\n",
        verdict.display()
    );
    fs::write(&script, text).expect("the directory is writable");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::write(&verdict, "exit 0\n").expect("the directory is writable");
    let server = Server::saying("one");
    let keys = format!("type = \"command\", command = [{script:?}, \"word\"], interval = \"500ms\"");
    let settings = Settings {
        pool: format!("health = {{ {keys}, fall = 1, rise = 1 }}\n"),
        worker: "user = \"nobody\"\n".to_owned(),
        ..Settings::default()
    };
    let baton = Baton::with(&[&server], &settings);
    let address = server.address();
    let user = if rustix::process::geteuid().is_root() { 65_534 } else { rustix::process::geteuid().as_raw() };
    let said = format!("exit status 0: app app1 {} {} {user} in ", address.ip(), address.port());
    let heard = wait_for(&baton, 0, true);
    assert!(heard.starts_with(&said), "{heard}");
    fs::write(&verdict, "exit 3\n").expect("the directory is writable");
    assert!(wait_for(&baton, 0, false).starts_with("exit status 3: app app1 "));
    fs::write(&verdict, "exec sleep 60\n").expect("the directory is writable");
    let is_killed = |status: &serde_json::Value| {
        let said = status["pools"][0]["servers"][0]["last_check"].as_str().unwrap_or_default();
        said.starts_with("it ran for more than 500 ms and was killed: app app1 ")
    };
    baton.wait_for_status(is_killed);
    fs::write(&verdict, "exit 0\n").expect("the directory is writable");
    wait_for(&baton, 0, true);
}

#[test]
fn certificates_are_looked_at() {
    let directory = Directory::new();
    let authority = Authority::new(&directory, "ca");
    let [cert, key] = authority.server(&directory, "server", Kind::Ecdsa);
    let port = free_port();
    let mut openssl = Command::new("openssl");
    openssl.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert"]).arg(&cert);
    openssl.arg("-key").arg(&key).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Process(openssl.spawn().expect("package openssl is installed"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let tls = format!("tls = {{ ca_file = {:?}, server_name = \"localhost\" }}", authority.cert);
    let baton = Baton::before_addresses(&[address], &with(&format!("type = \"tls\", {tls}")));
    assert!(wait_for(&baton, 0, true).starts_with("TLS handshake in "));
    // It is good for ninety days.
    let soon = format!("type = \"tls\", {tls}, expires_within = \"2400h\"");
    let warned = Baton::before_addresses(&[address], &with(&soon));
    let said = wait_for(&warned, 0, true);
    let day_of = |said: &str| {
        // Ninety days, or a second less.
        let days = ["89 days", "90 days"].into_iter().find(|days| said.contains(days));
        days.map(|days| said.replace(days, "so many days")).unwrap_or_default()
    };
    let warning = "TLS handshake; warning: its certificate expires in so many days in ";
    assert!(day_of(&said).starts_with(warning), "{said}");
    let failed = Baton::before_addresses(&[address], &with(&format!("{soon}, expiring = \"fail\"")));
    assert_eq!(day_of(&wait_for(&failed, 0, false)), "its certificate expires in so many days");
    let other = "type = \"tls\", tls = { server_name = \"b.example\", ca_file = ";
    let refused = Baton::before_addresses(&[address], &with(&format!("{other}{:?} }}", authority.cert)));
    assert!(wait_for(&refused, 0, false).starts_with("TLS failed: "));
}

#[test]
fn first_request_goes_to_no_server_that_is_down() {
    let server = Server::saying("one");
    let dead = Port::reserve();
    // Nobody checks a second time for an hour.
    let pool = "health = { type = \"tcp\", interval = \"1h\", timeout = \"1s\" }\nretries = { attempts = 1 }\n";
    let settings = Settings { pool: pool.to_owned(), ..Settings::default() };
    let mut baton = Baton::before_addresses(&[dead.address(), server.address()], &settings);
    for _ in 0..4 {
        assert_eq!(baton.client().get("/").text(), "one");
    }
    // The next worker knows what this one knew, and serves before it has checked anything.
    baton.wait_for_status(|status| status["pools"][0]["servers"][0]["checked"] == true);
    let worker = baton.worker();
    rustix::process::kill_process(worker, rustix::process::Signal::KILL).expect("it runs");
    baton.wait_for_logs(2, "worker serves");
    for _ in 0..4 {
        assert_eq!(baton.client().get("/").text(), "one");
    }
    baton.terminate();
    assert!(baton.wait().success());
}

#[test]
fn servers_that_start_down_serve_once_they_are_checked() {
    // It takes connections and answers nothing until it is let on.
    let server = Server::start(|exchange| {
        let request = exchange.request()?;
        if request.start.contains("/health") {
            exchange.wait_for_signal()?;
        }
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let keys = "start = \"down\", path = \"/health\", timeout = \"30s\", interval = \"30s\"";
    let pool = format!("health = {{ {keys} }}\n");
    let baton = Baton::with(&[&server], &Settings { pool, ..Settings::default() });
    assert_eq!(baton.client().get("/").status(), 503);
    server.signal();
    baton.wait_for_status(|status| status["pools"][0]["servers"][0]["up"] == true);
    assert_eq!(baton.client().get("/").text(), "ok");
}
