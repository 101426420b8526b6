//! A session with a node that says over and over how it is: its status, and the addresses that its kernel carries.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::status::NodeStatus;

use super::Halt;
use super::site::Sighting;

/// Time between two words of a node that is well.
const WORD_INTERVAL: &str = "0.1";

/// Silence after which a node counts as unreachable.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Time for a session to say its first word: SSH agrees on keys before, and a machine that has just started is busy. Who
/// waits for it counts the node as unreachable until then.
const FIRST_WORD_TIMEOUT: Duration = Duration::from_secs(15);

/// Wait before another session is begun.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// How often it is looked whether all of it is to end.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// A word of a node that is longer is none.
const WORD_MAX_BYTES: usize = 4 << 20;

/// Marks in what a session says.
const ADDRESSES: &str = "@baton-addresses";
const END: &str = "@baton-end";

/// How a shell on a node is begun.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The command and its arguments that come before `sh`; empty for this machine.
    pub prefix: Vec<String>,
}

impl Reach {
    /// A shell that reads `script` and says everything on the pipe that is returned. It is in a process group of its own:
    /// Ctrl-C is for the drill to pass on.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn shell(&self, script: &str) -> io::Result<(Child, io::PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let mut words = self.prefix.iter().map(String::as_str).chain(["sh"]);
        let mut command = Command::new(words.next().unwrap_or("sh"));
        command.args(words).stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends before it has read all of it says why in its own words.
            let _ = stdin.write_all(script.as_bytes());
        }
        Ok((child, reader))
    }

    /// Runs `script` to its end.
    ///
    /// # Errors
    /// Its last words when it does not end with status 0 within `within`, after which it is killed.
    pub fn run(&self, script: &str, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let (mut child, mut reader) = self.shell(script).map_err(|error| self.unreached(&error))?;
        let mut said = Vec::new();
        let status = loop {
            // What runs on in the background may keep the pipe: the end is that of the shell.
            if let Ok(Some(status)) = child.try_wait() {
                while matches!(read_some(&mut reader, &mut said, Duration::ZERO), Ok(count) if count > 0) {}
                break status;
            }
            if Instant::now() >= deadline {
                end(&mut child);
                return Err(format!("it takes longer than {} s{}", within.as_secs(), last_words(&said)));
            }
            if !matches!(read_some(&mut reader, &mut said, STOP_INTERVAL / 5), Ok(count) if count > 0) {
                thread::sleep(STOP_INTERVAL / 10);
            }
            let surplus = said.len().saturating_sub(WORD_MAX_BYTES);
            said.drain(..surplus);
        };
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}{}", last_words(&said))) }
    }

    fn unreached(&self, error: &io::Error) -> String {
        format!("failed to start `{}`: {error}", self.prefix.first().map_or("sh", String::as_str))
    }
}

/// The last line of an output, after a colon.
fn last_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or_else(String::new, |line| format!(": {}", line.trim().chars().take(300).collect::<String>()))
}

/// Reads what there is within `within`; 0 for nothing.
fn read_some(reader: &mut io::PipeReader, into: &mut Vec<u8>, within: Duration) -> io::Result<usize> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(within.subsec_nanos()) };
    if poll(&mut [PollFd::new(&reader.as_fd(), PollFlags::IN)], Some(&timeout))? == 0 {
        return Ok(0);
    }
    let mut room = [0; 16 * 1024];
    let count = reader.read(&mut room)?;
    into.extend_from_slice(room.get(..count).unwrap_or_default());
    Ok(count)
}

/// Ends a shell of ours and all that it has started.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// A node that is watched until this is dropped.
#[derive(Debug)]
pub struct Watch {
    latest: Arc<Mutex<Sighting>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch. `status` is the command line that prints the status as JSON there; of its VIPs counts the one of this
    /// name, or the first.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn begin(reach: Reach, status: &str, vip: Option<String>) -> Result<Self, Halt> {
        let script = format!(
            "while :; do {status} 2>&1 || :; echo; echo {ADDRESSES}; ip -o address show 2>/dev/null || :; \
             echo {END} || exit; sleep {WORD_INTERVAL}; done\n"
        );
        let nothing = Sighting {
            at: Instant::now(),
            status: None,
            carries: None,
            trouble: Some("it has not been asked yet".to_owned()),
        };
        let latest = Arc::new(Mutex::new(nothing));
        let stopping = Arc::new(AtomicBool::new(false));
        let session = Session {
            reach,
            script,
            latest: Arc::clone(&latest),
            stopping: Arc::clone(&stopping),
            vip,
            vip_addresses: Vec::new(),
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || session.watch());
        let thread = thread.map_err(|error| Halt::Failed(format!("failed to start a thread: {error}")))?;
        Ok(Self { latest, stopping, thread: Some(thread) })
    }

    /// How the node was last.
    pub fn latest(&self) -> Sighting {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Session {
    reach: Reach,
    script: String,
    latest: Arc<Mutex<Sighting>>,
    stopping: Arc<AtomicBool>,
    /// The name of the VIP that counts.
    vip: Option<String>,
    /// Of that VIP, by its last status: a guard that is gone leaves them, and cannot say so.
    vip_addresses: Vec<String>,
}

impl Session {
    fn watch(mut self) {
        while !self.is_stopping() {
            let trouble = match self.reach.shell(&self.script) {
                Ok((mut child, mut reader)) => {
                    let trouble = self.listen(&mut reader);
                    end(&mut child);
                    trouble
                }
                Err(error) => self.reach.unreached(&error),
            };
            self.saw(Sighting { at: Instant::now(), status: None, carries: None, trouble: Some(trouble) });
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// Takes words until the session ends or falls silent, and says how.
    fn listen(&mut self, reader: &mut io::PipeReader) -> String {
        let mut said: Vec<u8> = Vec::new();
        let (mut heard, mut began, mut patience) = (Instant::now(), None, FIRST_WORD_TIMEOUT);
        loop {
            if self.is_stopping() {
                return String::new();
            }
            let len = said.len();
            match read_some(reader, &mut said, STOP_INTERVAL) {
                Ok(0) if heard.elapsed() >= patience => {
                    return format!("it has been silent for {} s", patience.as_secs());
                }
                // Readable, and nothing to read: the session has ended.
                Ok(0) if is_at_end(reader) => return format!("the session ended{}", last_words(&said)),
                Ok(0) => continue,
                Ok(_) => {}
                Err(error) => return format!("the session broke: {error}"),
            }
            heard = Instant::now();
            if len == 0 || began.is_none() {
                began = Some(heard);
            }
            while let Some((word, rest)) = first_word(&said) {
                let sighting = self.understand(&word, began.unwrap_or(heard));
                self.saw(sighting);
                patience = SILENCE_MAX;
                said = rest;
                began = (!said.is_empty()).then_some(heard);
            }
            if said.len() > WORD_MAX_BYTES {
                return "it says more than a status".to_owned();
            }
        }
    }

    fn understand(&mut self, word: &str, at: Instant) -> Sighting {
        let (status, addresses) = word.split_once(ADDRESSES).unwrap_or((word, ""));
        let json = status.find('{').and_then(|start| status.get(start..)).unwrap_or_default();
        let parsed: Result<NodeStatus, _> = serde_json::from_str(json.trim());
        let trouble = match &parsed {
            Ok(_) => None,
            Err(error) if !json.is_empty() => Some(format!("its status cannot be read: {error}")),
            Err(_) => Some(last_words(status.as_bytes()).trim_start_matches(": ").to_owned()),
        };
        let mut sighting = Sighting { at, status: parsed.ok(), carries: None, trouble };
        if sighting.status.is_some() {
            let bare = |address: &String| address.split('/').next().unwrap_or_default().to_owned();
            let vip = sighting.vip(self.vip.as_deref());
            self.vip_addresses = vip.into_iter().flat_map(|vip| vip.addresses.iter().map(bare)).collect();
        }
        let carries = |vip: &String| addresses.contains(&format!(" {vip}/"));
        let is_known = !addresses.trim().is_empty() && !self.vip_addresses.is_empty();
        sighting.carries = is_known.then(|| self.vip_addresses.iter().any(carries));
        sighting
    }

    fn saw(&self, sighting: Sighting) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = sighting;
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

fn is_at_end(reader: &io::PipeReader) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let fd = reader.as_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP))
}

/// All up to the mark of an end, and what comes after it.
fn first_word(said: &[u8]) -> Option<(String, Vec<u8>)> {
    let mark = format!("{END}\n");
    let at = said.windows(mark.len()).position(|window| window == mark.as_bytes())?;
    let (word, rest) = said.split_at_checked(at)?;
    Some((String::from_utf8_lossy(word).into_owned(), rest.get(mark.len()..).unwrap_or_default().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::super::site::samples;
    use super::*;
    use crate::status::{Role, VipStatus};

    fn here() -> Reach {
        Reach { prefix: Vec::new() }
    }

    #[test]
    fn script_that_fails_gives_its_last_words() {
        assert_eq!(here().run("exit 0", Duration::from_secs(10)), Ok(()));
        let failed = here().run("echo one; echo two >&2; exit 3", Duration::from_secs(10));
        assert_eq!(failed, Err("it ended with exit status: 3: two".to_owned()));
        let unreached = Reach { prefix: vec!["/nonexistent/ssh".to_owned()] }.run("true", Duration::from_secs(10));
        assert!(unreached.unwrap_err().starts_with("failed to start `/nonexistent/ssh`"));
    }

    #[test]
    fn script_that_leaves_something_running_is_done_all_the_same() {
        let left = here().run("sleep 2 & echo done", Duration::from_secs(10));
        assert_eq!(left, Ok(()));
        let late = here().run("echo so far; sleep 30", Duration::from_millis(300));
        assert_eq!(late, Err("it takes longer than 0 s: so far".to_owned()));
    }

    /// A file with the status of lb-a, and the VIP that it holds.
    fn status_file() -> std::path::PathBuf {
        let vip =
            VipStatus { role: Role::Active, addresses: vec!["192.0.2.100/24".to_owned()], ..VipStatus::default() };
        let json = serde_json::to_string(&samples::status("lb-a", vec![vip])).unwrap();
        let file = std::env::temp_dir().join(format!("baton-status-{:08x}", fastrand::u32(..)));
        std::fs::write(&file, json).unwrap();
        file
    }

    fn first_status(watch: &Watch) -> Sighting {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let seen = watch.latest();
            if seen.status.is_some() {
                return seen;
            }
            assert!(Instant::now() < deadline, "{seen:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn words_of_a_node_are_understood() {
        let file = status_file();
        let watch = Watch::begin(here(), &format!("cat {}", file.display()), None).unwrap();
        let seen = first_status(&watch);
        assert_eq!(seen.status.map(|status| status.node), Some("lb-a".to_owned()));
        assert_ne!(seen.carries, Some(true), "this machine has no 192.0.2.100");
        std::fs::remove_file(&file).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let silent = loop {
            let seen = watch.latest();
            if let Some(trouble) = seen.trouble {
                break trouble;
            }
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        };
        assert!(silent.contains("No such file"), "{silent}");
    }

    #[test]
    fn session_may_take_longer_to_begin_than_it_may_be_silent_later() {
        let file = status_file();
        let slowly = ["sh", "-c", "sleep 2.5; exec \"$@\"", "slowly"].map(str::to_owned).to_vec();
        let watch = Watch::begin(Reach { prefix: slowly }, &format!("cat {}", file.display()), None).unwrap();
        assert_eq!(first_status(&watch).status.map(|status| status.node), Some("lb-a".to_owned()));
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn addresses_of_the_vip_that_counts_are_looked_for_and_no_others() {
        let vip = |name: &str, address: &str| VipStatus {
            name: name.to_owned(),
            addresses: vec![format!("{address}/24")],
            ..VipStatus::default()
        };
        let vips = vec![vip("web", "192.0.2.100"), vip("api", "192.0.2.101")];
        let json = serde_json::to_string(&samples::status("lb-a", vips)).unwrap();
        let carries = |name: Option<&str>| {
            let nothing = Sighting { at: Instant::now(), status: None, carries: None, trouble: None };
            let mut session = Session {
                reach: here(),
                script: String::new(),
                latest: Arc::new(Mutex::new(nothing)),
                stopping: Arc::default(),
                vip: name.map(str::to_owned),
                vip_addresses: Vec::new(),
            };
            let word = format!("{json}\n{ADDRESSES}\n2: eth0 inet 192.0.2.101/24 scope global eth0\n");
            session.understand(&word, Instant::now()).carries
        };
        assert_eq!([None, Some("web"), Some("api")].map(carries), [Some(false), Some(false), Some(true)]);
    }
}
