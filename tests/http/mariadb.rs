//! MariaDB servers of a test's own, a primary and its replica, ended by their process ids.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::baton::Directory;
use crate::postgres::{USER, directory};
use crate::redis::server::free_port;

/// How long its first tables and its start may take: some seconds, more on a busy machine.
const START: Duration = Duration::from_secs(60);

/// One server, with its data in a directory of its own.
pub struct MariaDb {
    child: Child,
    port: u16,
    data: PathBuf,
}

fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.arg("--no-defaults").stdin(Stdio::null()).env_clear().current_dir("/");
    command.env("PATH", "/usr/bin:/usr/sbin:/bin").env("LC_ALL", "C");
    if rustix::process::geteuid().is_root() {
        command.uid(USER).gid(USER);
    }
    command
}

/// Makes the first tables.
fn install(within: &Directory, name: &str) -> PathBuf {
    let data = directory(within, name);
    // Two that share one fail.
    let [log, temporary] = [data.with_extension("log"), directory(within, &format!("{name}.tmp"))];
    let mut install = command("mariadb-install-db");
    install.arg("--auth-root-authentication-method=normal").args(["--skip-test-db", "--skip-name-resolve"]);
    install
        .args(["--innodb-flush-method=nosync", "--innodb-use-native-aio=0"])
        .arg(format!("--datadir={}", data.display()));
    install.env("TMPDIR", temporary);
    let output = fs::File::create(&log).expect("the directory is writable");
    let output = install.stdout(output.try_clone().expect("descriptors are left")).stderr(output);
    let mut install = output.spawn().expect("package mariadb-server-core is installed");
    let deadline = Instant::now() + START;
    let status = loop {
        if let Some(status) = install.try_wait().expect("it is our child") {
            break status;
        }
        if Instant::now() >= deadline {
            install.kill().expect("it is our child");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = fs::read_to_string(log).unwrap_or_default();
    assert!(status.success(), "mariadb-install-db: {status}: {said}");
    data
}

impl MariaDb {
    /// One with nothing in it.
    pub fn alone(within: &Directory) -> Self {
        let data = install(within, "alone");
        Self::start(data, &[])
    }

    /// A primary and a replica that follows it. Their user `checker` has a password, and `app` none.
    pub fn pair(within: &Directory) -> [Self; 2] {
        let [primary, replica] = ["primary", "replica"].map(|name| install(within, name));
        let primary = Self::start(primary, &["--server-id=1", "--log-bin=binlog"]);
        let replica = Self::start(replica, &["--server-id=2", "--read-only"]);
        for statement in [
            "create user checker identified by 's3cret'",
            "create user app",
            "create database shop",
            "grant create, insert, select on shop.* to app",
            "grant replication slave on *.* to app",
        ] {
            assert_eq!(primary.administer(statement), Ok(String::new()));
        }
        let follow = format!(
            "change master to master_host = '127.0.0.1', master_port = {}, master_user = 'app', \
             master_use_gtid = slave_pos; start slave",
            primary.port
        );
        assert_eq!(replica.administer(&follow), Ok(String::new()));
        [primary, replica]
    }

    fn start(data: PathBuf, settings: &[&str]) -> Self {
        let port = free_port();
        let log = fs::File::create(data.with_extension("log")).expect("the directory is writable");
        let mut server = command("mariadbd");
        server.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}/socket", data.display()));
        server.arg(format!("--pid-file={}/pid", data.display())).arg(format!("--port={port}")).args(settings);
        server.args([
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-flush-method=nosync",
            "--innodb-use-native-aio=0",
        ]);
        server.args(["--innodb-buffer-pool-size=8M", "--key-buffer-size=1M", "--aria-pagecache-buffer-size=8M"]);
        server.env("TMPDIR", data.with_extension("tmp"));
        let child = server.stdout(Stdio::null()).stderr(log).spawn().expect("mariadb-server-core is installed");
        let server = Self { child, port, data };
        let deadline = Instant::now() + START;
        while server.administer("select 1") != Ok("1".to_owned()) {
            let log = fs::read_to_string(server.data.with_extension("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "MariaDB does not answer: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What it prints for statements of its administrator, or why they fail.
    pub fn administer(&self, statements: &str) -> Result<String, String> {
        client(&["--user=root", &format!("--socket={}/socket", self.data.display())], statements)
    }

    /// Ends it at once, as a crash does.
    pub fn crash(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Makes it the primary.
    pub fn promote(&self) {
        assert_eq!(self.administer("stop slave; set global read_only = 0"), Ok(String::new()));
    }
}

/// What the application is told at an address.
pub fn sql(address: SocketAddr, statement: &str) -> Result<String, String> {
    client(&["--user=app", "--host=127.0.0.1", &format!("--port={}", address.port()), "--connect-timeout=5"], statement)
}

fn client(arguments: &[&str], statements: &str) -> Result<String, String> {
    let mut client = command("mariadb");
    client.args(arguments).args(["--batch", "--skip-column-names", "--execute", statements]);
    let output = client.output().expect("package mariadb-client-core is installed");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.crash();
    }
}
