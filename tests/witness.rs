//! The real `baton witness` on the loopback interface, asked as nodes ask it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a helper of a test may end the test")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baton::vrrp::witness::{Answer, Client, Key, Name, Refusal};
use rustix::process::{Pid, Signal, kill_process};

/// Time for anything that has no limit of its own.
const PATIENCE: Duration = Duration::from_secs(15);
const LEASE: Duration = Duration::from_millis(2000);

/// A directory with a pair key, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("baton-witness-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let key = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join("pair.key"));
        key.unwrap().write_all("07".repeat(32).as_bytes()).unwrap();
        Self(path)
    }

    fn key(&self) -> PathBuf {
        self.0.join("pair.key")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running witness, killed at its drop.
struct Witness {
    child: Child,
    log: BufReader<ChildStderr>,
    addr: SocketAddr,
}

impl Witness {
    fn start(key: &Path, listen: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(["witness", "--listen", listen, "--key-file"]).arg(key).env("NO_COLOR", "1");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let line = line_with(&mut log, "addr=");
        let addr = line.split("addr=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
        Self { child, log, addr: addr.parse().unwrap() }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next line that holds `text`. A witness that never writes it is ended by whoever runs the tests.
fn line_with(log: &mut impl BufRead, text: &str) -> String {
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        if line.contains(text) {
            return line;
        }
        line.clear();
    }
    panic!("the witness ended without a line with {text}")
}

struct Node {
    socket: UdpSocket,
    client: Client,
}

impl Node {
    fn new(name: &str, boot: u64, key: &[u8], witness: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(witness).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let [node, vip] = [name, "web"].map(|name| Name::new(name).unwrap());
        let client = Client::new(Key::derived(key), node, vip, boot);
        Self { socket, client }
    }

    fn ask(&mut self) -> Answer {
        let question = self.client.ask(Instant::now(), LEASE);
        self.exchange(question)
    }

    fn give_back(&mut self) -> Answer {
        let question = self.client.give_back(Instant::now());
        self.exchange(question)
    }

    fn exchange(&mut self, mut question: Vec<u8>) -> Answer {
        loop {
            self.socket.send(&question).unwrap();
            let mut buffer = [0; 512];
            let length = self.socket.recv(&mut buffer).unwrap();
            match self.client.answer(Instant::now(), &buffer[..length]).unwrap() {
                Answer::Again(again) => question = again,
                answer => return answer,
            }
        }
    }

    /// Asks until the lease is granted, and gives what was answered before.
    fn ask_until_granted(&mut self) -> Vec<Refusal> {
        let deadline = Instant::now() + PATIENCE;
        let mut refusals = Vec::new();
        loop {
            match self.ask() {
                Answer::Granted { .. } => return refusals,
                Answer::Refused(refusal) => refusals.push(refusal),
                answer => panic!("{answer:?}"),
            }
            assert!(Instant::now() < deadline, "never granted: {:?}", refusals.last());
            // Paced as a node's adverts are; what is waited for is the grant.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn is_held_by(answer: &Answer, node: &str) -> bool {
    matches!(answer, Answer::Refused(Refusal::Held { holder, .. }) if holder.as_str() == node)
}

const KEY: [u8; 32] = [7; 32];

#[test]
fn lease_goes_from_node_to_node() {
    let directory = Directory::new();
    let mut witness = Witness::start(&directory.key(), "127.0.0.1:0");
    let (mut a, mut b) = (Node::new("lb-a", 1, &KEY, witness.addr), Node::new("lb-b", 2, &KEY, witness.addr));
    // It has just started, and lends to no stranger yet.
    assert!(matches!(a.ask(), Answer::Refused(Refusal::Starting { left }) if left <= Duration::from_millis(5_100)));
    let refusals = a.ask_until_granted();
    assert!(refusals.iter().all(|refusal| matches!(refusal, Refusal::Starting { .. })), "{refusals:?}");
    assert!(line_with(&mut witness.log, "lease granted").contains("node=lb-a"));
    assert!(is_held_by(&b.ask(), "lb-a"));

    assert_eq!(a.give_back(), Answer::Seen { holder: None });
    assert!(line_with(&mut witness.log, "lease given back").contains("node=lb-a"));
    assert!(matches!(b.ask(), Answer::Granted { .. }));
    assert!(line_with(&mut witness.log, "other node").contains("node=lb-b before=lb-a"));

    // Nobody hears of lb-b any more: its lease runs out.
    let until = Instant::now() + LEASE;
    let refusals = a.ask_until_granted();
    assert!(Instant::now() >= until, "granted while lb-b could still count on it");
    assert!(refusals.iter().all(|refusal| matches!(refusal, Refusal::Held { .. })), "{refusals:?}");
}

#[test]
fn holder_keeps_its_lease_when_the_witness_is_killed_and_started_again() {
    let directory = Directory::new();
    let mut witness = Witness::start(&directory.key(), "127.0.0.1:0");
    let addr = witness.addr;
    let (mut a, mut b) = (Node::new("lb-a", 1, &KEY, addr), Node::new("lb-b", 2, &KEY, addr));
    a.ask_until_granted();
    assert!(is_held_by(&b.ask(), "lb-a"));
    witness.signal(Signal::KILL);
    witness.wait();
    let _second = Witness::start(&directory.key(), &addr.to_string());
    assert!(matches!(b.ask(), Answer::Refused(Refusal::Starting { .. })));
    assert!(matches!(a.ask(), Answer::Granted { .. }));
    assert!(is_held_by(&b.ask(), "lb-a"));
}

#[test]
fn garbage_and_strangers_get_no_answer() {
    let directory = Directory::new();
    let mut witness = Witness::start(&directory.key(), "127.0.0.1:0");
    let mut node = Node::new("lb-a", 1, &KEY, witness.addr);
    let mut stranger = Node::new("lb-a", 1, &[8; 32], witness.addr);
    for garbage in [&[][..], b"hello", &[0; 196], &[0xff; 1400]] {
        stranger.socket.send(garbage).unwrap();
    }
    let question = stranger.client.ask(Instant::now(), LEASE);
    stranger.socket.send(&question).unwrap();
    // What comes after all of that is answered, so all of that was read.
    assert!(matches!(node.ask(), Answer::Refused(Refusal::Starting { .. })));
    stranger.socket.set_nonblocking(true).unwrap();
    let nothing = stranger.socket.recv(&mut [0; 512]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    assert!(line_with(&mut witness.log, "datagrams were dropped").contains("reason=wrong length"));
    // One line, for all five came within the time for one.
    witness.signal(Signal::TERM);
    assert!(line_with(&mut witness.log, "").contains("witness stops"));
    assert_eq!(witness.wait().code(), Some(0));
}

#[test]
fn one_witness_serves_several_pairs() {
    let directory = Directory::new();
    let second = directory.0.join("second.key");
    fs::write(&second, "08".repeat(32)).unwrap();
    fs::set_permissions(&second, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(["witness", "--listen", "127.0.0.1:0", "--key-file"]).arg(directory.key());
    command.arg("--key-file").arg(&second).env("NO_COLOR", "1").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let line = line_with(&mut log, "addr=");
    let addr = line.split("addr=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().parse().unwrap();
    let _witness = Witness { child, log, addr };
    for key in [KEY, [8; 32]] {
        assert!(matches!(Node::new("lb-a", 1, &key, addr).ask(), Answer::Refused(Refusal::Starting { .. })));
    }
}

#[test]
fn witness_says_what_keeps_it_from_starting() {
    let directory = Directory::new();
    let run = |listen: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        let output = command.args(["witness", "--listen", listen, "--key-file"]).arg(directory.key()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    assert!(run(&addr.to_string()).contains(&format!("failed to listen on UDP {addr}: Address already in use")));
    fs::set_permissions(directory.key(), fs::Permissions::from_mode(0o644)).unwrap();
    let said = run("127.0.0.1:0");
    assert!(said.contains("mode 0644") && said.contains("chmod 600"), "{said}");
    fs::remove_file(directory.key()).unwrap();
    let said = run("127.0.0.1:0");
    assert!(said.contains("failed to read") && said.contains("baton keygen"), "{said}");
}
