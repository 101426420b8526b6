//! What operators have said of servers, for the next worker and for the next guard: `servers` in the state directory, so
//! that a server that is drained stays so when both nodes are restarted at once, or the only one.
//!
//! The file has a line with the checksum of the rest, and then the values in JSON with their versions: where the other
//! node knows of a newer one, that one stands. It is written anew whenever something changes, in one step. A file that is
//! damaged is set aside as `servers.damaged` and said to be, and nothing of it is used.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::found::Found;
use super::takeover::Legacy;
use crate::config::{Config, POOL_SERVERS_MAX, ServerChange};
use crate::link::{KeptFact, KeptList};

const FILE: &str = "servers";
const DAMAGED_FILE: &str = "servers.damaged";
/// Bytes of the file that are read: more than what is kept of as many servers as a configuration can name.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of what is kept for each server: any state has a shorter name.
const VALUE_BYTES_MAX: usize = 64;
/// The same for a server that was added, with its name and address.
const CHANGE_BYTES_MAX: usize = 512;
const NAME_BYTES_MAX: usize = 64;
/// What is kept of a pool besides one value for each server of the configuration: its changes, and the states of servers that
/// are not in it.
const CHANGES_MAX: usize = 8 * POOL_SERVERS_MAX;
/// Time between two writes, so that a worker that goes on and on does not wear out the disk.
pub(super) const WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// What is kept, and the task that writes it.
pub struct Administration {
    directory: PathBuf,
    /// What the workers said last.
    facts: watch::Sender<Rc<Vec<KeptFact>>>,
    /// What the file has.
    written: watch::Sender<Rc<Vec<KeptFact>>>,
    problem: RefCell<Option<String>>,
    found: Rc<Found>,
}

/// What a worker says, to be kept for the next.
#[derive(Debug)]
pub enum Said {
    /// What operators want of servers.
    Facts(Vec<KeptFact>),
    /// The servers that were found.
    Found(Vec<KeptList>),
}

impl Administration {
    /// Reads what is there, as far as it is about servers of this configuration, and starts to keep what changes. Needs a
    /// local tokio runtime. What another guard has left in this process goes before what is on the disk.
    pub fn open(config: &Config, state_dir: &Path, legacy: Option<&Legacy>) -> Rc<Self> {
        let facts = legacy.map_or_else(|| read(&state_dir.join(FILE)), |legacy| Ok(legacy.facts.clone()));
        let (facts, problem) = match facts {
            Ok(facts) => (known(config, facts), None),
            Err(error) => (Vec::new(), Some(set_aside(state_dir, &error))),
        };
        let is_outside =
            |fact: &&KeptFact| fact.value != b"enabled" && ServerChange::name_in_key(&fact.server).is_none();
        let outside = facts.iter().filter(is_outside).count();
        if outside > 0 {
            info!(count = outside, "servers are drained or disabled, as they were before");
        }
        let facts = Rc::new(facts);
        let administration = Rc::new(Self {
            directory: state_dir.to_owned(),
            written: watch::Sender::new(Rc::clone(&facts)),
            facts: watch::Sender::new(facts),
            problem: RefCell::new(problem),
            found: Found::open(config, state_dir, legacy.map(|legacy| legacy.found.clone())),
        });
        let changes = administration.facts.subscribe();
        tokio::task::spawn_local(keep(Rc::clone(&administration), changes));
        administration
    }

    /// For a new worker.
    pub fn facts(&self) -> Vec<KeptFact> {
        self.facts.borrow().to_vec()
    }

    /// The servers that were found, for a new worker.
    pub fn found(&self) -> Vec<KeptList> {
        self.found.lists()
    }

    /// Takes what a worker says.
    pub fn said(&self, config: &Config, said: Said) {
        match said {
            Said::Facts(facts) => self.said_of_servers(config, facts),
            Said::Found(lists) => self.found.said(config, lists),
        }
    }

    /// One value for each server, and no more of whatever it may say.
    fn said_of_servers(&self, config: &Config, facts: Vec<KeptFact>) {
        let facts = known(config, facts);
        self.facts.send_if_modified(|before| {
            let is_new = **before != facts;
            if is_new {
                *before = Rc::new(facts);
            }
            is_new
        });
    }

    /// Waits until the file has what is kept, at most for `patience`.
    pub async fn finish(&self, patience: Duration) {
        let mut written = self.written.subscribe();
        let wanted = Rc::clone(&self.facts.borrow());
        let is_written = timeout(patience, written.wait_for(|written| **written == *wanted)).await.is_ok();
        if !is_written {
            warn!("what was said of servers is not on the disk; the next start knows of it from the other node alone");
        }
    }

    /// What is less than it should be, in a sentence. It goes when the file is written the next time.
    pub fn warning(&self) -> Option<String> {
        self.problem.borrow().clone().or_else(|| self.found.warning())
    }

    fn write_ended(&self, facts: Rc<Vec<KeptFact>>, ended: io::Result<()>) {
        let Err(error) = ended else {
            *self.problem.borrow_mut() = None;
            self.written.send_replace(facts);
            return;
        };
        let directory = self.directory.display();
        let problem = format!(
            "drained and disabled servers cannot be kept in {directory}: {error}; see to the disk, or a restart of both nodes \
             has them back in service"
        );
        let mut known = self.problem.borrow_mut();
        if known.as_ref() != Some(&problem) {
            warn!("{problem}");
        }
        *known = Some(problem);
    }
}

/// Writes what has changed, on a thread that may wait for a disk, one time after the other. What cannot be written is tried
/// again with the next change.
async fn keep(administration: Rc<Administration>, mut changes: watch::Receiver<Rc<Vec<KeptFact>>>) {
    while changes.changed().await.is_ok() {
        let facts = Rc::clone(&changes.borrow_and_update());
        let copy: Vec<KeptFact> = facts.iter().filter(|fact| fact.is_for_disk).cloned().collect();
        let directory = administration.directory.clone();
        let ended = tokio::task::spawn_blocking(move || write(&directory, FILE, &copy)).await;
        administration.write_ended(facts, ended.unwrap_or_else(|error| Err(io::Error::other(error))));
        sleep(WRITE_INTERVAL).await;
    }
}

/// Of these, what is about pools of the configuration: one for each of its servers, one for each change that operators have
/// made, and one for each server that is no longer than that, or was found.
fn known(config: &Config, facts: Vec<KeptFact>) -> Vec<KeptFact> {
    let mut room: HashMap<&str, usize> = config.pools.iter().map(|pool| (&*pool.name, CHANGES_MAX)).collect();
    let servers = config.pools.iter().flat_map(|pool| pool.servers.iter().map(|server| (&*pool.name, &*server.name)));
    let names: HashSet<(&str, &str)> = servers.collect();
    let mut seen: HashSet<(String, String)> = HashSet::new();
    let finds = |pool: &str| config.pools.iter().any(|known| known.name == pool && known.discovery.is_some());
    let added: HashSet<(String, String)> = facts
        .iter()
        .filter_map(|fact| Some((fact.pool.clone(), ServerChange::name_in_key(&fact.server)?.to_owned())))
        .collect();
    let mut is_known = |fact: &KeptFact| {
        if names.contains(&(&*fact.pool, &*fact.server)) {
            return fact.value.len() <= VALUE_BYTES_MAX && seen.insert((fact.pool.clone(), fact.server.clone()));
        }
        let is_change = ServerChange::name_in_key(&fact.server).is_some();
        let is_of_other = || finds(&fact.pool) || added.contains(&(fact.pool.clone(), fact.server.clone()));
        let bytes_max = if is_change { CHANGE_BYTES_MAX } else { VALUE_BYTES_MAX };
        let is_good =
            fact.value.len() <= bytes_max && fact.server.len() <= NAME_BYTES_MAX && (is_change || is_of_other());
        let Some(left) = room.get_mut(&*fact.pool).filter(|left| is_good && **left > 0) else { return false };
        *left -= 1;
        true
    };
    facts.into_iter().filter(|fact| is_known(fact)).collect()
}

/// # Errors
/// Why there is nothing to be read from it. That there is none is no error.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    // Whatever is there in place of a file, such as a pipe, is not waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let damaged = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
    let line_end = content.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it is cut off"))?;
    let (line, facts) = content.split_at(line_end);
    let facts = facts.get(1..).unwrap_or_default();
    if line != checksum(facts).as_bytes() {
        return Err(damaged("its checksum is wrong"));
    }
    serde_json::from_slice(facts).map_err(|error| damaged(&error.to_string()))
}

/// Writes it in one step: a crash leaves the file before or the new one.
///
/// # Errors
/// What open(2), write(2), fsync(2) or rename(2) says.
pub(super) fn write<T: Serialize>(directory: &Path, name: &str, facts: &[T]) -> io::Result<()> {
    let text = serde_json::to_vec(facts).map_err(io::Error::other)?;
    let path = directory.join(format!("{name}.new"));
    // Not a file that somebody has put there with other permissions.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(checksum(&text).as_bytes())?;
        file.write_all(b"\n")?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&path, directory.join(name))
    })();
    if written.is_err() {
        // What is left of it is of no use.
        drop(std::fs::remove_file(&path));
    }
    written?;
    File::open(directory)?.sync_all()
}

/// Puts away a file that cannot be used, and says so.
fn set_aside(directory: &Path, error: &io::Error) -> String {
    let (from, to) = (directory.join(FILE), directory.join(DAMAGED_FILE));
    let outcome = match std::fs::rename(&from, &to) {
        Ok(()) => format!("it is set aside as {}", to.display()),
        Err(error) => format!("it could not be set aside ({error})"),
    };
    let problem = format!(
        "what was said of servers in {} was not used: {error}; {outcome}; drain and disable servers again where the other \
         node does not say so",
        from.display()
    );
    warn!("{problem}");
    problem
}

/// SHA-256 in hex.
fn checksum(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest(&SHA256, bytes).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
        [[listener]]
        name = \"http\"
        bind = [\"127.0.0.1:8080\"]
        pool = \"app\"

        [[pool]]
        name = \"app\"
        servers = [{ name = \"app1\", address = \"127.0.0.1:8081\" }, { name = \"app2\", address = \"127.0.0.1:8082\" }]
    ";

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("baton-servers-{:016x}", fastrand::u64(..)));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn config() -> Config {
        crate::config::parse(CONFIG, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"))
    }

    fn fact(server: &str, value: &str, version: u64) -> KeptFact {
        KeptFact { pool: "app".to_owned(), server: server.to_owned(), value: value.into(), version, is_for_disk: true }
    }

    fn on_a_runtime(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(test);
    }

    async fn keep_drained(directory: &Directory) {
        let administration = Administration::open(&config(), &directory.0, None);
        administration.said(&config(), Said::Facts(vec![fact("app1", "draining", 7)]));
        administration.finish(Duration::from_secs(10)).await;
        assert_eq!(administration.warning(), None);
    }

    #[test]
    fn the_next_guard_knows_what_was_said_and_its_version() {
        on_a_runtime(async {
            let directory = Directory::new();
            assert_eq!(Administration::open(&config(), &directory.0, None).facts(), []);
            keep_drained(&directory).await;
            let next = Administration::open(&config(), &directory.0, None);
            assert_eq!((next.facts(), next.warning()), (vec![fact("app1", "draining", 7)], None));
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&directory.path("servers").metadata().unwrap().permissions());
            assert_eq!(mode & 0o7777, 0o600);
            assert!(!directory.path("servers.new").exists());
        });
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_reported_until_the_next_is_written() {
        on_a_runtime(async {
            let directory = Directory::new();
            keep_drained(&directory).await;
            let whole = std::fs::read(directory.path("servers")).unwrap();
            let flipped = whole.iter().map(|byte| if *byte == b'7' { b'8' } else { *byte }).collect();
            for damaged in [flipped, whole[..40].to_vec(), Vec::new(), whole[..whole.len() - 1].to_vec()] {
                std::fs::write(directory.path("servers"), &damaged).unwrap();
                let administration = Administration::open(&config(), &directory.0, None);
                assert_eq!(administration.facts(), []);
                let warning = administration.warning().unwrap();
                assert!(warning.contains("servers.damaged; drain and disable servers again"), "{warning}");
                assert_eq!(std::fs::read(directory.path("servers.damaged")).unwrap(), damaged);
                assert!(!directory.path("servers").exists());
                administration.said(&config(), Said::Facts(vec![fact("app1", "draining", 7)]));
                administration.finish(Duration::from_secs(10)).await;
                assert_eq!(administration.warning(), None);
            }
        });
    }

    #[test]
    fn what_cannot_be_written_is_reported_and_the_file_before_stays() {
        on_a_runtime(async {
            let directory = Directory::new();
            keep_drained(&directory).await;
            let administration = Administration::open(&config(), &directory.0, None);
            std::fs::create_dir_all(directory.path("servers.new/in_the_way")).unwrap();
            administration.said(&config(), Said::Facts(vec![fact("app1", "enabled", 9)]));
            while administration.warning().is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(administration.warning().unwrap().contains("cannot be kept"));
            assert_eq!(Administration::open(&config(), &directory.0, None).facts(), [fact("app1", "draining", 7)]);
        });
    }

    #[test]
    fn nothing_is_kept_but_one_word_for_each_server_of_the_configuration() {
        on_a_runtime(async {
            let directory = Directory::new();
            let administration = Administration::open(&config(), &directory.0, None);
            let long = "x".repeat(65);
            let mut said = vec![fact("app1", &long, 1), fact("gone", "draining", 1)];
            said.extend((0..5).map(|version| fact("app2", "disabled", version)));
            administration.said(&config(), Said::Facts(said));
            assert_eq!(administration.facts(), [fact("app2", "disabled", 0)]);
        });
    }
}
