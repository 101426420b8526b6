//! HAProxy with a stick table and peers: its configuration, and its socket, over which its table is filled and looked at.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton::lab::namespace::Namespace;
use baton::lab::pair::VIP;
use baton::lab::process::Process;
use baton::lab::topology::Topology;
use baton::lab::wait_for;
use rustix::process::Signal;

use crate::client::user_name;
use crate::keepalived::start_haproxy;

/// Time for HAProxy to answer its socket, or end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Time for an answer on the socket.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Commands in a line: with more of them it takes no more a second.
const BATCH: u32 = 20;

/// What follows each answer on an interactive connection.
const PROMPT: &str = "\n> ";

/// TLS of the pair's second listener.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Both in one, as HAProxy wants it.
    pub both: PathBuf,
    /// Three keys for tickets, copied to both nodes by hand.
    pub ticket_keys: PathBuf,
}

/// Checks at the pace of Baton's, and the table that one reads about: strings of `key_bytes`, shared by peers.
pub fn configuration(key_bytes: u32, tls: &TlsFiles, with_ticket_keys: bool) -> String {
    let servers: String = (1..=3)
        .map(|number| format!("  server web{number} 10.77.0.2{number}:8080 check inter 500ms fall 2 rise 1\n"))
        .collect();
    let keys = if with_ticket_keys { format!(" tls-ticket-keys {}", tls.ticket_keys.display()) } else { String::new() };
    let certificate = tls.both.display();
    format!(
        "global
  maxconn 4096
  stats socket DIRECTORY/haproxy.sock mode 600 level admin
  stats timeout 1h
defaults
  mode http
  option redispatch
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  timeout check 300ms
peers pair
  peer lb-a 10.77.0.11:10000
  peer lb-b 10.77.0.12:10000
frontend users
  bind {VIP}:80 transparent
  bind {VIP}:81 transparent
  bind {VIP}:443 transparent ssl crt {certificate}{keys}
  default_backend users
frontend health
  bind :8404
  http-request return status 200 content-type text/plain string ok
backend users
  balance roundrobin
  option httpchk GET /health
  http-reuse always
  stick-table type string len {key_bytes} size 2m expire 1h peers pair
  stick on req.hdr(X-User)
{servers}"
    )
}

/// HAProxy on one node, without keepalived.
pub struct Haproxy {
    process: Process,
    directory: PathBuf,
}

impl Haproxy {
    /// Starts it, and returns at once.
    pub fn start(namespace: &Namespace, directory: &Path, node: &str, configuration: &str) -> Result<Self> {
        let directory = directory.join(node);
        fs::create_dir_all(&directory)?;
        // One that an earlier process left there answers nobody.
        let _absent = fs::remove_file(socket_in(&directory));
        Ok(Self { process: start_haproxy(namespace, &directory, node, configuration)?, directory })
    }

    /// Starts it on a machine of the lab, and returns once its socket answers.
    pub fn start_on(topology: &Topology, directory: &Path, node: &str, configuration: &str) -> Result<Self> {
        let haproxy = Self::start(topology.host(node)?, directory, node, configuration)?;
        haproxy.admin()?;
        Ok(haproxy)
    }

    pub fn admin(&self) -> Result<Admin> {
        Admin::connect(&self.directory)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(PATIENCE)?;
        Ok(())
    }
}

/// Where the socket of a node with this directory is.
fn socket_in(directory: &Path) -> PathBuf {
    directory.join("haproxy.sock")
}

/// An interactive connection to HAProxy's socket.
pub struct Admin {
    stream: UnixStream,
    answer: String,
}

impl Admin {
    /// Waits until it answers.
    pub fn connect(directory: &Path) -> Result<Self> {
        let path = socket_in(directory);
        let stream = wait_for("HAProxy's socket to answer", PATIENCE, || UnixStream::connect(&path).ok())?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut admin = Self { stream, answer: String::new() };
        admin.ask("prompt", 1)?;
        Ok(admin)
    }

    /// Sends a line with that many commands, and gives all answers.
    pub fn ask(&mut self, line: &str, commands: usize) -> Result<&str> {
        self.stream.write_all(format!("{line}\n").as_bytes())?;
        self.answer.clear();
        let mut piece = [0; 65_536];
        let (mut prompts, mut seen) = (0, 0);
        while prompts < commands {
            let length = self.stream.read(&mut piece).context("HAProxy does not answer")?;
            ensure!(length > 0, "HAProxy has closed its socket");
            self.answer.push_str(&String::from_utf8_lossy(&piece[..length]));
            // A prompt may come in two pieces.
            while let Some(at) = self.answer[seen..].find(PROMPT) {
                (prompts, seen) = (prompts + 1, seen + at + PROMPT.len());
            }
        }
        Ok(&self.answer)
    }

    /// Entries in the table.
    pub fn used(&mut self) -> Result<u64> {
        let answer = self.ask("show table", 1)?;
        let used = answer.split("used:").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        used.with_context(|| format!("no number of entries in {answer:?}"))
    }

    /// Whether the table has this entry.
    pub fn has(&mut self, name: &str) -> Result<bool> {
        let wanted = format!("key={name} ");
        Ok(self.ask(&format!("show table users key {name}"), 1)?.contains(&wanted))
    }

    /// Whether the connection to the other node is up.
    pub fn is_connected_to(&mut self, node: &str) -> Result<bool> {
        let peer = format!("id={node}(remote");
        let answer = self.ask("show peers", 1)?;
        Ok(answer.lines().any(|line| line.contains(&peer) && line.contains("last_status=ESTA")))
    }

    /// Waits until it is.
    pub fn wait_until_connected_to(&mut self, node: &str) -> Result<Instant> {
        let what = format!("HAProxy to be connected to {node}");
        wait_for(&what, PATIENCE, || self.is_connected_to(node).map(|is| is.then(Instant::now)).transpose())?
    }

    /// Sets entries: these users, all with the same server.
    pub fn set(&mut self, tag: u32, users: std::ops::Range<u32>, server: u8) -> Result<()> {
        let command = |user| format!("set table users key {} data.server_id {server}", user_name(tag, user));
        let commands: Vec<String> = users.map(command).collect();
        self.ask(&commands.join("; "), commands.len())?;
        Ok(())
    }

    /// The same for many, as fast as it goes.
    pub fn fill(&mut self, tag: u32, count: u32) -> Result<()> {
        for first in (0..count).step_by(BATCH as usize) {
            self.set(tag, first..(first + BATCH).min(count), u8::try_from(first / BATCH % 3 + 1)?)?;
        }
        Ok(())
    }
}

/// Waits until the table has that many entries, asked without a pause but for a millisecond.
pub fn wait_until_used(admin: &mut Admin, count: u64, within: Duration) -> Result<Instant> {
    let deadline = Instant::now() + within;
    loop {
        let used = admin.used()?;
        if used >= count {
            return Ok(Instant::now());
        }
        ensure!(Instant::now() < deadline, "HAProxy has {used} of {count} entries after {within:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
