//! The real program: exit status, what goes to stdout, what goes to stderr.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use baton::config::PairKey;

use super::{Directory, baton, stderr, stdout, text};

fn shipped() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files = vec![text(&root.join("baton.toml")).to_owned()];
    for entry in fs::read_dir(root.join("examples")).expect("the examples are there") {
        files.push(text(&entry.expect("the directory is readable").path()).to_owned());
    }
    files
}

/// A pair with a keepalived in it has no key, and here one vip of the old version.
const KEEPALIVED_WARNINGS: &str = "\
warning: pair.key_file is not set, so that adverts are not authenticated
warning: vip old speaks VRRPv2, which says whole seconds: a dead node is noticed after more than 3s
";

#[test]
fn every_file_under_config_passes_without_warnings_but_what_a_keepalived_costs() {
    let files = shipped();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let output = baton(&["check", "--file-only", "--config", &file]);
        assert!(output.status.success(), "{}", stderr(&output));
        let expected = if file.ends_with("/keepalived-peer.toml") { KEEPALIVED_WARNINGS } else { "" };
        assert_eq!(stderr(&output), expected, "{file}");
        assert!(stdout(&output).starts_with(&format!("{file} is good\n")));
    }
}

#[test]
fn check_tells_what_would_run() {
    let file = format!("{}/config/examples/sites.toml", env!("CARGO_MANIFEST_DIR"));
    let output = baton(&["check", "--file-only", "--node", "lb-b", "--config", &file]);
    assert!(output.status.success(), "{}", stderr(&output));
    let summary = stdout(&output);
    let expected = [
        "this machine is node lb-b: --node says so",
        "node lb-a: 192.0.2.11, priority 250",
        "node lb-b: 192.0.2.12, priority 249, this machine",
        "pair key: /etc/baton/pair.key",
        "vip shop: 192.0.2.100/24 on eth0, router id 51, unicast adverts every 100ms; lb-a takes it back after 30s",
        "  VRRPv3, authentication enforced",
        "  announced once, again after 50ms, 100ms, 200ms, 400ms, 800ms, 2s, 5s, then every 1m",
        "listener https: 192.0.2.100:443, 192.0.2.101:443 (https, 2 certificates), at most 10000 connections, head within \
         10s, idle for 1m",
        "  office.example.com/ -> pool office",
        "    route #2: exact host, any path, no further conditions",
        "  shop.example.com/api -> pool shop-api",
        "    route #1: exact host, path prefix of 4 characters, no further conditions",
        "  everything else -> pool shop",
        "pool shop: round_robin, sticky by cookie SHOP for 8h, connect within 3s, response within 30s, at most 64 idle \
         connections for 30s",
        "  health: GET /health every 2s within 1s; down after 3 failures, up after 2 successes",
        "  server sorry: 10.0.1.9:8080 (backup)",
        "  no health checks, every server counts as up",
    ];
    for line in expected {
        assert!(summary.lines().any(|found| found == line), "{line:?} is not in\n{summary}");
    }
}

#[test]
fn check_tells_what_departs_from_the_defaults() {
    let directory = Directory::new("summary");
    let file = directory.write(
        "baton.toml",
        r#"
[[node]]
name = "lb-a"
address = "192.0.2.11"
further_addresses = ["10.9.0.11", "2001:db8::11"]
[[node]]
name = "lb-b"
address = "192.0.2.12"
further_addresses = ["10.9.0.12", "2001:db8::12"]
[pair]
key_file = "pair.key"
advert_keys = [{ id = 2, file = "two.key" }, { id = 1, file = "one.key" }]
witness = "198.51.100.50:7948"
[[vip]]
name = "web"
addresses = ["192.0.2.100/24", { address = "2001:db8::100/64", interface = "eth1" }]
interface = "eth0"
advert_interface = "eth2"
virtual_router_id = 51
version = "2+3"
advert_interval = "1s"
checksum = "without_pseudo_header"
password_file = "password"
virtual_mac = true
probe_first = false
prefer = "lb-a"
prefer_hold = "0s"
announce = { burst = 2, repeat = [], refresh = "0s" }
[[vip]]
name = "cloud"
addresses = ["192.0.2.101/32"]
interface = "eth0"
virtual_router_id = 52
transport = "udp"
[[fitness]]
name = "router"
type = "gateway"
address = "fe80::1"
vips = ["web"]
[[fitness]]
name = "quiet"
type = "file"
path = "/run/quiet"
must = "be_absent"
[events]
command = ["/usr/local/bin/move-route", "now"]
webhook = "https://hooks.example.com/x"
[[listener]]
name = "mail"
bind = ["192.0.2.100:993"]
protocol = "tcp"
pool = "by-address"
[[pool]]
name = "by-address"
servers = [{ name = "s", address = "10.0.0.1:80" }]
sticky = { by = "source_ip", prefix_v4 = 24, ttl_max = "8h", on_down = "fail" }
[[pool]]
name = "by-application"
servers = [{ name = "s", address = "10.0.0.1:80" }]
sticky = { by = "app_cookie", name = "SID", ttl = "30m", entries_max = 5000 }
"#,
        0o644,
    );
    let output = baton(&["check", "--file-only", "--config", text(&file)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let summary = stdout(&output);
    let expected = [
        "listener mail: 192.0.2.100:993 (tcp), at most 10000 connections, head within 10s, idle for 1m",
        "pool by-address: round_robin, sticky by source address (/24, IPv6 /64) for 1h, 1000000 entries, 8h at most, 503 \
         while the server is down, connect within 3s, response within 30s, at most 64 idle connections for 30s",
        "pool by-application: round_robin, sticky by the application's cookie SID for 30m, 5000 entries, connect within 3s, \
         response within 30s, at most 64 idle connections for 30s",
        "node lb-a: 192.0.2.11, 10.9.0.11, 2001:db8::11, priority 250",
        "advert keys: 2, 1; 2 signs",
        "witness: 198.51.100.50:7948",
        "vip web: 192.0.2.100/24, 2001:db8::100/64 (on eth1) on eth0, router id 51, unicast adverts on eth2 every 1s; lb-a \
         takes it back at once",
        "  VRRPv2 and VRRPv3, authentication enforced, checksum without pseudo-header, with a password, virtual MAC, not \
         probed before the first takeover",
        "  announced 2 times",
        "vip cloud: 192.0.2.101/32 on eth0, router id 52, udp adverts every 100ms; whoever holds it keeps it",
        "  no VRRP",
        "fitness router for web: gateway fe80::1 answers on eth0, every 1s within 500ms; unfit after 3 failures, fit after \
         2 successes",
        "fitness quiet for web, cloud: /run/quiet is absent, every 1s within 500ms; unfit after 3 failures, fit after 2 \
         successes",
        "events: to /usr/local/bin/move-route and https://hooks.example.com/x, each within 10s, at most 1000 kept",
    ];
    for line in expected {
        assert!(summary.lines().any(|found| found == line), "{line:?} is not in\n{summary}");
    }
}

#[test]
fn check_reports_every_mistake_to_stderr_and_fails() {
    let file = format!("{}/tests/check/twelve.toml", env!("CARGO_MANIFEST_DIR"));
    let output = baton(&["check", "--file-only", "--config", &file]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let report = stderr(&output);
    assert_eq!(report.matches("error: ").count(), 12, "{report}");
    assert_eq!(report.matches(" = remedy: ").count(), 12, "{report}");
    assert!(report.contains(&format!("--> {file}:18:21\n")), "{report}");
    assert!(report.ends_with(&format!("12 mistakes in {file}\n")), "{report}");
}

#[test]
fn a_node_that_the_file_does_not_have_is_a_mistake_like_any_other() {
    let directory = Directory::new("node");
    let pair = "[[node]]\nname = \"lb-a\"\naddress = \"192.0.2.11\"\n[[node]]\nname = \"lb-b\"\naddress = \"192.0.2.12\"\n\
        [[vip]]\nname = \"web\"\naddresses = [\"192.0.2.100/24\"]\ninterface = \"lo\"\nvirtual_router_id = 51\n";
    let file = directory.write("baton.toml", pair, 0o644);
    let broken = directory.write("broken.toml", pair.replace("= 51", "= 0"), 0o644);

    let output = baton(&["check", "--config", text(&file), "--node", "lb-c"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("error: --node is \"lb-c\""), "{}", stderr(&output));
    assert!(stderr(&output).contains("it has lb-a, lb-b"));
    let output = baton(&["check", "--config", text(&broken), "--node", "lb-c"]);
    assert!(stderr(&output).contains("2 mistakes in"), "{}", stderr(&output));
    let output = baton(&["check", "--file-only", "--config", text(&file), "--node", "lb-c"]);
    assert_eq!(output.status.code(), Some(1));

    let output = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["check", "--config", text(&file)])
        .env("BATON_NODE", "lb-a")
        .output()
        .expect("the program was built for this test");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("this machine is node lb-a: BATON_NODE says so\n"));
    assert!(stderr(&output).contains("warning: pair.key_file is not set"), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: node lb-a has address 192.0.2.11, which is on no interface"));
}

#[test]
fn a_file_that_cannot_be_read_is_answered_with_what_to_do() {
    let directory = Directory::new("unreadable");
    let check = |path: &Path| {
        let output = baton(&["check", "--config", text(path)]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output), "");
        stderr(&output)
    };
    let missing = check(&directory.path("none.toml"));
    assert!(missing.contains("failed to read the configuration: No such file"), "{missing}");
    assert!(missing.contains("--config FILE"), "{missing}");
    assert!(check(&directory.0).contains("Is a directory"));
    let pipe = directory.path("pipe.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let pipe = check(&pipe);
    assert!(pipe.contains("it is not a file") && pipe.contains("--config FILE"), "{pipe}");
    let latin = check(&directory.write("latin.toml", b"# ok\n# \xe9\n", 0o644));
    assert!(latin.contains("line 2 is not UTF-8"), "{latin}");
    let large = check(&directory.write("large.toml", "#".repeat((1 << 20) + 1), 0o644));
    assert!(large.contains("larger than 1 MiB"), "{large}");
}

#[test]
fn keygen_writes_a_key_that_its_owner_alone_can_read() {
    let directory = Directory::new("keygen");
    let path = directory.path("pair.key");
    let output = baton(&["keygen", "--out", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).starts_with(&format!("wrote a new pair key to {}\n", path.display())));
    assert!(stdout(&output).contains("scp -p"));
    let mode = fs::metadata(&path).expect("the key was written").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let line = fs::read_to_string(&path).expect("the key is ours");
    assert_eq!(line.len(), 65);
    assert!(line.ends_with('\n') && line.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(!stdout(&output).contains(line.trim_end()), "the key must not be shown");
    assert_eq!(PairKey::load(&path).expect("the key is good").as_bytes().len(), 32);
}

#[test]
fn keygen_replaces_a_key_only_when_forced() {
    let directory = Directory::new("keygen-force");
    let path = directory.write("pair.key", "old\n", 0o644);
    let output = baton(&["keygen", "--out", text(&path)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is there already"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&path).expect("the key is ours"), "old\n");

    let output = baton(&["keygen", "--force", "--out", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(PairKey::load(&path).is_ok());
    let left = fs::read_dir(&directory.0).expect("the directory is ours").count();
    assert_eq!(left, 1, "no temporary file is left");
}

#[test]
fn keygen_prints_the_key_alone_when_asked() {
    let (first, second) = (baton(&["keygen", "--out", "-"]), baton(&["keygen", "--out", "-"]));
    assert!(first.status.success());
    assert_eq!(stdout(&first).len(), 65);
    assert_ne!(stdout(&first), stdout(&second));
}

#[test]
fn keygen_without_a_directory_says_what_to_do() {
    let directory = Directory::new("keygen-directory");
    let output = baton(&["keygen", "--out", text(&directory.path("none/pair.key"))]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("make its directory first"), "{}", stderr(&output));
}
