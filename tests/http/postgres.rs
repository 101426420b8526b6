//! PostgreSQL servers of a test's own, a primary and its replica, ended by their process ids.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;
use crate::baton::Directory;
use crate::redis::server::free_port;

/// Somebody who is not root, whom PostgreSQL refuses: `nobody`.
pub const USER: u32 = 65_534;

/// One server, with its data in a directory of its own.
pub struct Postgres {
    child: Option<Child>,
    port: u16,
    data: PathBuf,
    sockets: PathBuf,
}

/// Where Debian has the programs of the newest version that is installed.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("package postgresql is installed");
    let newest = versions.filter_map(Result::ok).map(|entry| entry.path()).max();
    newest.expect("package postgresql is installed").join("bin").join(name)
}

fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.stdin(Stdio::null()).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(USER).gid(USER);
    }
    command
}

fn done(command: &mut Command) {
    let output = command.output().expect("package postgresql is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A directory that the servers can write to.
pub fn directory(within: &Directory, name: &str) -> PathBuf {
    let path = within.path(name);
    fs::create_dir(&path).expect("the directory is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("it is ours");
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(USER), Some(USER)).expect("root may");
    }
    path
}

impl Postgres {
    /// A primary, whose user `checker` has a password over TCP.
    pub fn primary(within: &Directory) -> Self {
        let (data, sockets) = (directory(within, "primary"), directory(within, "sockets"));
        done(command("initdb").arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--no-sync"]));
        let access = "host all checker all scram-sha-256\nlocal all all trust\nhost all all all trust\n\
                      host replication all all trust\n";
        fs::write(data.join("pg_hba.conf"), access).expect("root may");
        let mut server = Self { child: None, port: free_port(), data, sockets };
        server.start();
        let role = "create role checker login password 's3cret'";
        assert_eq!(sql(server.address(), role), Ok("CREATE ROLE".to_owned()));
        server
    }

    /// One that follows it.
    pub fn replica(within: &Directory, primary: &Self) -> Self {
        let data = directory(within, "replica");
        let port = primary.address().port().to_string();
        let mut copy = command("pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-R", "-c", "fast", "--no-sync", "-D"]).arg(&data);
        done(&mut copy);
        let mut server = Self { child: None, port: free_port(), data, sockets: primary.sockets.clone() };
        server.start();
        server
    }

    fn start(&mut self) {
        let settings = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", self.sockets.display()),
            "fsync=off".to_owned(),
            "max_connections=20".to_owned(),
            "shared_buffers=1MB".to_owned(),
        ];
        let log = fs::File::create(self.log_path()).expect("root may");
        let mut server = command("postgres");
        server.arg("-D").arg(&self.data).args(settings.iter().flat_map(|setting| ["-c", setting.as_str()]));
        self.child = Some(server.stderr(log).stdout(Stdio::null()).spawn().expect("it was just found"));
        let deadline = Instant::now() + PATIENCE;
        while sql(self.address(), "select 1") != Ok("1".to_owned()) {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL does not answer: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Ends it at once, as a crash does.
    pub fn crash(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        kill_process(Pid::from_child(&child), Signal::QUIT).expect("it runs");
        let _ended = child.wait();
    }

    /// Makes it the primary.
    pub fn promote(&self) {
        done(command("pg_ctl").arg("-D").arg(&self.data).args(["-w", "promote"]));
    }
}

/// What psql prints for a statement at an address, or why it fails.
pub fn sql(address: SocketAddr, statement: &str) -> Result<String, String> {
    let mut psql = Command::new("psql");
    psql.args([
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-d",
        "postgres",
        "-p",
        &address.port().to_string(),
        "-X",
        "-A",
        "-t",
    ]);
    psql.env("PGCONNECT_TIMEOUT", "5").args(["-c", statement]).stdin(Stdio::null());
    let output = psql.output().expect("package postgresql-client is installed");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Writes a secret that its owner alone can read.
pub fn secret(path: &Path, text: &str) {
    fs::write(path, text).expect("the directory is writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}
