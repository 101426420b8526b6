//! The proxies, with settings that mean the same.
//!
//! Checks every second, down after three and up after two; a connect and a response get a second; what failed is tried again
//! up to three times on other servers, whatever went wrong; a server is out after ten requests in a row that failed. For
//! HAProxy that is `observe layer7` with `on-error mark-down`, and its checks bring the server back; Baton ejects for as long
//! as these would take. That Baton also ejects by share and by time is what its configuration offers beyond that.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy that runs, killed at its drop.
pub struct Proxy {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Proxy {
    pub fn baton(program: &Path, servers: &[SocketAddr], threads: usize) -> Result<Self> {
        let list = servers.iter().enumerate().map(|(n, at)| format!("{{ name = \"s{n}\", address = \"{at}\" }}"));
        let list = list.collect::<Vec<_>>().join(", ");
        let (address, directory) = place()?;
        let config = format!(
            r#"
[[listener]]
name = "http"
bind = ["{address}"]
pool = "app"

[[pool]]
name = "app"
servers = [{list}]
connect_timeout = "1s"
response_timeout = "1s"
idle_connections_max = 1024

[pool.retries]
attempts = 4
on = ["connect_failure", "refused_stream", "broken_connection", "response_timeout", "500"]
budget_percent = 100
budget_per_second = 10000

[pool.health]
path = "/health"
interval = "1s"
timeout = "1s"
fall = 3
rise = 2

[pool.outliers]
consecutive_failures = 10
consecutive_errors = 10
error_percent = 30
latency_factor = 4
window = "5s"
ejection_time = "2s"

[worker]
threads = {threads}
"#
        );
        let file = directory.join("baton.toml");
        fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&file).arg("--runtime-dir").arg(directory.join("run"));
        command.arg("--state-dir").arg(directory.join("state")).args(["--node", "bench"]);
        Self::start(command, address, directory)
    }

    pub fn haproxy(program: &Path, servers: &[SocketAddr], threads: usize) -> Result<Self> {
        let line = |(n, at)| {
            format!(
                "    server s{n} {at} check inter 1s fall 3 rise 2 observe layer7 error-limit 10 on-error mark-down\n"
            )
        };
        let lines: String = servers.iter().enumerate().map(line).collect();
        let (address, directory) = place()?;
        let config = format!(
            "global\n    nbthread {threads}\n    maxconn 8000\n\
             defaults\n    mode http\n    timeout connect 1s\n    timeout server 1s\n    timeout client 30s\n    \
             timeout http-keep-alive 30s\n    timeout check 1s\n    retries 3\n    option redispatch 1\n    \
             retry-on conn-failure empty-response response-timeout 500\n    http-reuse always\n\
             frontend http\n    bind {address}\n    default_backend app\n\
             backend app\n    balance roundrobin\n    option httpchk GET /health\n{lines}"
        );
        let file = directory.join("haproxy.cfg");
        fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        Self::start(command, address, directory)
    }

    fn start(mut command: Command, address: SocketAddr, directory: PathBuf) -> Result<Self> {
        let log = fs::File::create(directory.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut proxy = Self { child, address, directory };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            let log = || fs::read_to_string(proxy.directory.join("log")).unwrap_or_default();
            ensure!(proxy.child.try_wait()?.is_none(), "it ended: {}", log());
            ensure!(Instant::now() < deadline, "it does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(proxy)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A free port and a directory.
fn place() -> Result<(SocketAddr, PathBuf)> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let directory = std::env::temp_dir().join(format!("baton-outages-{}-{}", std::process::id(), address.port()));
    fs::create_dir(&directory)?;
    Ok((address, directory))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = fs::remove_dir_all(&self.directory);
    }
}
