//! A redis-server of a test's own, on a loopback port, ended by its process id.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What anything may take that is bound to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is so.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A directory of one test, removed at its end.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("baton-store-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("the directory for temporary files is writable");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port that nothing listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    arguments: Vec<String>,
    directory: Directory,
}

impl RedisServer {
    /// Listens in clear text.
    pub fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let of_port = ["--port".to_owned(), port.to_string()];
        Self::with(port, of_port.into_iter().chain(arguments.iter().map(|&argument| argument.to_owned())).collect())
    }

    /// With all that it is told about how to listen.
    pub fn with(port: u16, arguments: Vec<String>) -> Self {
        let mut server = Self { child: None, port, arguments, directory: Directory::new() };
        server.restart();
        server
    }

    /// Starts it, empty, where it was before.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = fs::File::create(self.directory.path().join("log")).expect("the directory is writable");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args(&self.arguments);
        command.arg("--dir").arg(self.directory.path()).stdin(Stdio::null()).stdout(log).stderr(Stdio::inherit());
        let child = command.spawn();
        let child =
            child.unwrap_or_else(|error| panic!("redis-server cannot be run ({error}): install package redis-server"));
        self.child = Some(child);
        wait_for("redis-server listens", || match TcpStream::connect(("127.0.0.1", self.port)) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
                assert!(ended.is_none(), "redis-server ended: {}", self.log());
                false
            }
        });
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it has ended");
    }

    /// It takes connections and answers nothing, as one does whose machine is too busy.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("it runs"));
        kill_process(pid, signal).expect("it runs");
    }

    /// What redis-cli says to a command, without the newline at its end.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output();
        let output =
            output.unwrap_or_else(|error| panic!("redis-cli cannot be run ({error}): install package redis-tools"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text").trim_end().to_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
