//! dnsmasq, which answers for the names of a test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::Directory;

/// A running dnsmasq, killed at its drop.
pub struct Dnsmasq {
    child: Option<Child>,
    address: SocketAddr,
    directory: Directory,
}

impl Dnsmasq {
    /// One that knows these records, in the words of its configuration, and answers NXDOMAIN for other names below `test`.
    pub fn start(records: &str) -> Self {
        let mut dnsmasq = Self { child: None, address: free_port(), directory: Directory::new() };
        dnsmasq.restart(records);
        dnsmasq
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, and starts it with other records.
    pub fn restart(&mut self, records: &str) {
        self.kill();
        let file = self.directory.path("dnsmasq.conf");
        fs::write(&file, format!("local=/test/\nlocal-ttl=1\nneg-ttl=1\n{records}\n"))
            .expect("the directory is writable");
        let deadline = Instant::now() + PATIENCE;
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--pid-file=", "--log-facility=-"]);
        command.args(["--bind-interfaces", "--except-interface=lo0", "--user=root"]);
        command.arg(format!("--port={}", self.address.port())).arg("--listen-address=127.0.0.1");
        command.arg(format!("--conf-file={}", file.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("dnsmasq is installed (package dnsmasq-base)"));
        while !self.answers() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("it is our child"));
            assert!(ended.is_none() && Instant::now() < deadline, "dnsmasq does not answer: {ended:?}");
        }
    }

    /// Ends it: nobody answers then.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
    }

    /// Whether it answers a question for the A records of "test".
    fn answers(&self) -> bool {
        const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04test\x00\x00\x01\x00\x01";
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports are left");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("it is open");
        socket.connect(self.address).expect("it is a local address");
        let _refused = socket.send(QUESTION);
        let is_answered = socket.recv(&mut [0; 512]).is_ok();
        if !is_answered {
            std::thread::sleep(Duration::from_millis(5));
        }
        is_answered
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that is free for TCP and UDP, and that the kernel gives to nobody else soon.
fn free_port() -> SocketAddr {
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports are left");
        let address = socket.local_addr().expect("it is bound");
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
