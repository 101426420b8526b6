//! The real HAProxy, as a proxy in front.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::PATIENCE;
use crate::baton::Directory;
use crate::server::Port;

/// A running HAProxy, killed at its drop.
pub struct Haproxy {
    child: Child,
    port: Port,
    _directory: Directory,
}

impl Haproxy {
    /// One that passes connections on to an address. `server` are the options of its server, `mode` is tcp or http, `bind`
    /// are options of its own port. A machine without it fails the test.
    pub fn before(address: SocketAddr, mode: &str, bind: &str, server: &str) -> Self {
        let (directory, port) = (Directory::new(), Port::reserve());
        let config = format!(
            "defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
             listen front\n  bind {} {bind}\n  server baton {address} {server}\n",
            port.address(),
        );
        let file = directory.path("haproxy.cfg");
        fs::write(&file, config).expect("the directory is writable");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("haproxy cannot be run ({error}): install package haproxy"));
        let mut haproxy = Self { child, port, _directory: directory };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(haproxy.address()).is_err() {
            let ended = haproxy.child.try_wait().expect("it is our child");
            assert!(ended.is_none() && Instant::now() < deadline, "haproxy does not listen: {ended:?}");
            std::thread::yield_now();
        }
        haproxy
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
