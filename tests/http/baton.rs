//! The program under test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;
use crate::client::Client;
use crate::server::{Port, Server};

/// A directory of one program, removed at its end.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Not below the target directory: the path of a control socket may not be long.
        let path = std::env::temp_dir().join(format!("baton-http-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("the directory for temporary files is writable");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running `baton run`, killed at its drop together with its worker.
pub struct Baton {
    child: Child,
    port: Port,
    log: Arc<Log>,
    directory: Directory,
}

/// What the program has logged so far.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    is_ended: AtomicBool,
    changed: Condvar,
}

/// What a test changes of the usual configuration: one listener `http`, one pool `app` with the servers `app1`, `app2`
/// and so on.
pub struct Settings {
    /// Threads of the worker. One by default: then servers take turns over all clients.
    pub threads: usize,
    /// Keys of the listener.
    pub listener: String,
    /// Keys of the pool.
    pub pool: String,
    /// Keys of the worker.
    pub worker: String,
}

impl Default for Settings {
    fn default() -> Self {
        let [listener, pool, worker] = [(); 3].map(|()| String::new());
        Self { threads: 1, listener, pool, worker }
    }
}

impl Baton {
    /// In front of these servers, with every setting at its default.
    pub fn before(servers: &[&Server]) -> Self {
        Self::with(servers, &Settings::default())
    }

    /// In front of these servers.
    pub fn with(servers: &[&Server], settings: &Settings) -> Self {
        let addresses: Vec<_> = servers.iter().map(|server| server.address()).collect();
        Self::before_addresses(&addresses, settings)
    }

    /// In front of whatever is at these addresses.
    pub fn before_addresses(addresses: &[SocketAddr], settings: &Settings) -> Self {
        let Settings { threads, listener, pool, worker } = settings;
        let server = |(index, address)| format!("{{ name = \"app{}\", address = \"{address}\" }}", index + 1);
        let servers: Vec<_> = addresses.iter().enumerate().map(server).collect();
        let pool = format!("[[pool]]\nname = \"app\"\nservers = [{}]\n{pool}\n", servers.join(", "));
        let listener = format!("pool = \"app\"\n{listener}");
        Self::run(&listener, &format!("{pool}\n[worker]\nthreads = {threads}\n{worker}\n"))
    }

    /// With a listener of these keys and whatever else a configuration has.
    pub fn run(listener: &str, blocks: &str) -> Self {
        Self::run_under("", listener, blocks)
    }

    /// The same under limits that a shell's commands set.
    pub fn run_under(limits: &str, listener: &str, blocks: &str) -> Self {
        let directory = Directory::new();
        let port = Port::reserve();
        let bind = port.address();
        let config = format!("[[listener]]\nname = \"http\"\nbind = [\"{bind}\"]\n{listener}\n{blocks}");
        let file = directory.path("baton.toml");
        fs::write(&file, config).expect("the directory is writable");
        let child = start(&file, &directory, limits);
        let mut baton = Self { child, port, log: Arc::default(), directory };
        baton.follow();
        baton
    }

    fn follow(&mut self) {
        self.log.follow(&mut self.child);
        self.wait_for_log("baton is ready");
        self.wait_for_log("worker serves");
    }

    /// Starts it once more, after its end. The log begins anew.
    pub fn start_again(&mut self) {
        self.child = start(&self.directory.path("baton.toml"), &self.directory, "");
        self.log = Arc::default();
        self.follow();
    }

    /// Writes another configuration into its file: a listener of these keys on the usual port, and these blocks.
    pub fn write_config(&self, listener: &str, blocks: &str) {
        let bind = self.port.address();
        self.write_file(&format!("[[listener]]\nname = \"http\"\nbind = [\"{bind}\"]\n{listener}\n{blocks}"));
    }

    /// Writes its configuration, as a whole.
    pub fn write_file(&self, text: &str) {
        // As an editor does it: whoever reads sees one or the other.
        let (new, file) = (self.directory.path("baton.toml.new"), self.directory.path("baton.toml"));
        fs::write(&new, text).expect("the directory is writable");
        fs::rename(new, file).expect("the directory is writable");
    }

    /// A file that it keeps for its next start.
    /// Puts a named pipe in the place of the configuration.
    pub fn put_pipe(&self) {
        let (new, file) = (self.directory.path("baton.toml.new"), self.directory.path("baton.toml"));
        mknodat(CWD, &new, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("the directory is writable");
        fs::rename(new, file).expect("the directory is writable");
    }

    pub fn state_file(&self, name: &str) -> PathBuf {
        self.directory.path("state").join(name)
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// What an operator's command says about this program: whether it was done, stdout and stderr.
    pub fn command(&self, arguments: &[&str]) -> (bool, String, String) {
        self.command_with(arguments, "")
    }

    /// As [`Baton::command`], with something on its standard input.
    pub fn command_with(&self, arguments: &[&str], input: &str) -> (bool, String, String) {
        let file = self.directory.path(&format!("input-{:016x}", fastrand::u64(..)));
        fs::write(&file, input).expect("the directory is writable");
        let input = fs::File::open(&file).expect("it was just written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(arguments).arg("--runtime-dir").arg(self.directory.path("run")).env_clear().stdin(input);
        let output = command.output().expect("the program was built for this test");
        let text = |bytes| String::from_utf8(bytes).expect("what it says is UTF-8");
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// What a command says that is done.
    pub fn done(&self, arguments: &[&str]) -> String {
        let (is_done, stdout, stderr) = self.command(arguments);
        assert!(is_done, "{arguments:?}: {stderr}");
        stdout
    }

    /// Why a command is not done.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let (is_done, stdout, stderr) = self.command(arguments);
        assert!(!is_done && stdout.is_empty(), "{arguments:?}: {stdout}");
        stderr.trim_end().to_owned()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// What `baton status --json` prints.
    pub fn status(&self) -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(["status", "--json", "--runtime-dir"]).arg(self.directory.path("run"));
        let output = command.output().expect("the program was built for this test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("it is JSON")
    }

    /// The process id of the worker that was started last.
    pub fn worker(&self) -> Pid {
        let lines = self.log.lines();
        let started = lines.iter().rev().find_map(|line| line.split_once("worker started pid="));
        let pid = started.and_then(|(_, pid)| pid.trim().parse().ok()).and_then(Pid::from_raw);
        pid.expect("the log names the worker")
    }

    /// Resident memory of the worker in bytes.
    pub fn worker_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.worker().as_raw_nonzero());
        let status = fs::read_to_string(path).expect("the worker runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("the kernel says how much it uses") * 1024
    }

    pub fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("it runs");
    }

    /// Has it open its access logs again.
    pub fn hang_up(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::HUP).expect("it runs");
    }

    /// Where its standard output goes.
    pub fn stdout(&self) -> PathBuf {
        self.directory.path("stdout")
    }

    /// Kills the guard.
    pub fn kill(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::KILL).expect("it runs");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until so many lines of the log contain the text.
    pub fn wait_for_logs(&self, count: usize, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines();
        while lines.iter().filter(|line| line.contains(text)).count() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let may_come = !left.is_zero() && !self.log.is_ended.load(Ordering::SeqCst);
            assert!(may_come, "{text:?} is not {count} times in the log: {lines:#?}");
            lines = self.log.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether a line of the log contains the text by now.
    pub fn has_logged(&self, text: &str) -> bool {
        self.log.lines().iter().any(|line| line.contains(text))
    }

    pub fn wait_for_log(&self, text: &str) {
        self.wait_for_logs(1, text);
    }

    /// Waits until what `baton status --json` prints is as wished, and gives it.
    pub fn wait_for_status(&self, is_as_wished: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if is_as_wished(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "the status does not become as wished: {status:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// In place of a shell, which has run `limits` before.
fn start(config: &Path, directory: &Directory, limits: &str) -> Child {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{limits}\nexec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_baton"));
    command.arg("run").arg("--config").arg(config).arg("--runtime-dir").arg(directory.path("run"));
    command.arg("--state-dir").arg(directory.path("state"));
    command.args(["--node", "lb-test"]).env_clear().stdin(Stdio::null()).stderr(Stdio::piped());
    command.stdout(fs::File::create(directory.path("stdout")).expect("the directory is writable"));
    command.spawn().expect("the program was built for this test")
}

impl Drop for Baton {
    fn drop(&mut self) {
        // The worker ends with its guard.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the program's log:\n{}", self.log.lines().join("\n"));
        }
    }
}

impl Log {
    fn follow(self: &Arc<Self>, child: &mut Child) {
        let stderr = child.stderr.take().expect("it is piped");
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.lines().push(line);
                log.changed.notify_all();
            }
            let _lines = log.lines();
            log.is_ended.store(true, Ordering::SeqCst);
            log.changed.notify_all();
        });
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
