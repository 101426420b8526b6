//! Before anything is given up: whether the program on the disk can go on for the one that runs. It says so itself, as a
//! process that is started for this question alone, because only it knows what it reads and what it makes of the file.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{VARIABLE, VERSION, check_version};
use crate::config::{self, AdminToken, Changes, Config, NodeHints, PairKey, Scope, Vip};
use crate::guard::{access_log, files, listeners, session_store};

/// Time for the answer: files are read, and names of servers may be looked up for them.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time between two looks whether it is there.
const POLL: Duration = Duration::from_millis(5);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What a program is asked.
#[derive(Serialize, Deserialize)]
pub struct Question {
    version: u32,
    config_path: PathBuf,
    /// The configuration to be used.
    config_text: String,
    /// The one in use.
    former_text: String,
    /// The node that was named where this one was started.
    node: Option<String>,
    /// Addresses that are bound.
    bound: Vec<SocketAddr>,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
pub struct Verdict {
    /// The VIPs that go on; the others are given up, and begin anew where they are in the new configuration.
    kept: Vec<String>,
    /// What is otherwise, a line each.
    changes: Vec<String>,
}

/// A program that can take over.
#[derive(Debug)]
pub struct Approved {
    /// Its file.
    pub program: PathBuf,
    /// The configuration that it has checked.
    pub config_text: String,
    /// The VIPs that go on.
    pub kept: Vec<String>,
    /// What is otherwise, a line each.
    pub changes: Vec<String>,
}

/// Whether the file of a program is another one than that which this process was started from.
pub fn is_other(program: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    match (identity(program), identity(Path::new("/proc/self/exe"))) {
        (Ok(there), Ok(running)) => there != running,
        // One that is not there cannot be started; and what is not known is not changed.
        _ => false,
    }
}

/// Asks a program. Blocks.
///
/// # Errors
/// Why it cannot take over.
pub fn ask(
    program: &Path,
    config_path: &Path,
    former_text: String,
    node: Option<String>,
    bound: Vec<SocketAddr>,
) -> anyhow::Result<Approved> {
    let config_text = config::read(config_path)?;
    let config_path = config_path.to_owned();
    let question =
        Question { version: VERSION, config_path, config_text: config_text.clone(), former_text, node, bound };
    let mut asked = memory()?;
    serde_json::to_writer(&asked, &question)?;
    asked.rewind()?;
    let (answer, complaint) = (memory()?, memory()?);
    let mut command = Command::new(program);
    command.arg("successor").env_remove(VARIABLE).stdin(asked);
    command.stdout(Stdio::from(answer.try_clone()?)).stderr(Stdio::from(complaint.try_clone()?));
    let cannot_start = || format!("{} cannot be started; the one that runs goes on", program.display());
    let mut child = command.spawn().with_context(cannot_start)?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{} does not say whether it can take over; the one that runs goes on", program.display());
        }
        std::thread::sleep(POLL);
    };
    let (answer, complaint) = (text_of(answer)?, text_of(complaint)?);
    if !status.success() {
        let reason = if complaint.trim().is_empty() { format!("it ended with {status}") } else { complaint };
        bail!("{} cannot take over, and the one that runs goes on: {}", program.display(), reason.trim());
    }
    let verdict = serde_json::from_str(&answer);
    let Verdict { kept, changes } =
        verdict.with_context(|| format!("{} is no baton that can take over", program.display()))?;
    Ok(Approved { program: program.to_owned(), config_text, kept, changes })
}

fn memory() -> io::Result<File> {
    Ok(File::from(memfd_create("baton-successor", MemfdFlags::CLOEXEC)?))
}

fn text_of(mut file: File) -> io::Result<String> {
    file.rewind()?;
    let mut text = Vec::new();
    file.take(ANSWER_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Answers the question that stands on the standard input, on the standard output.
///
/// # Errors
/// Why this program cannot take over.
pub fn answer(environment: Option<&str>, host_name: &str) -> anyhow::Result<()> {
    let mut asked = String::new();
    io::stdin().lock().read_to_string(&mut asked)?;
    let question: Question =
        serde_json::from_str(&asked).context("this command is started by `baton run`, not by hand")?;
    let hints = NodeHints { flag: question.node.as_deref(), environment, host_name };
    let verdict = serde_json::to_vec(&judge(&question, hints)?)?;
    Ok(io::stdout().lock().write_all(&verdict)?)
}

fn judge(question: &Question, hints: NodeHints<'_>) -> anyhow::Result<Verdict> {
    let Question { version, config_path, config_text, former_text, bound, .. } = question;
    check_version(*version)?;
    let (config, local) = config::parse_for_node(config_text, config_path, Scope::Machine, hints)?;
    config.pair.key_file.as_deref().map(PairKey::load).transpose()?;
    if let Some(admin) = &config.admin {
        admin.token_file.as_deref().map(AdminToken::load).transpose()?;
    }
    session_store::secrets(&config)?;
    files::Reader::start(config.worker_files())?;
    access_log::open_new(&config, &[])?;
    listeners::open_new(&config, 1, bound)?;
    if config.admin.as_ref().is_some_and(|admin| !bound.contains(&admin.bind)) {
        listeners::open_admin(&config)?;
    }
    if config.sync_ends(&local.name).is_some_and(|ends| !bound.contains(&ends.own)) {
        listeners::open_sync(config.sync_ends(&local.name))?;
    }
    let former = config::parse(former_text, config_path)
        .context("the configuration in use is not one of this release; restart the service")?;
    let Changes { lines, fixed } = Changes::between(&former, &config);
    let changes = fixed.iter().map(|key| format!("{key} has changed")).chain(lines).collect();
    Ok(Verdict { kept: kept(&former, &config), changes })
}

/// The VIPs of a configuration that the next one has as well.
fn kept(former: &Config, next: &Config) -> Vec<String> {
    let goes_on = |vip: &&Vip| next.vips.iter().any(|other| is_same(vip, other));
    former.vips.iter().filter(goes_on).map(|vip| vip.name.clone()).collect()
}

/// Whether a VIP is the same virtual router where it was, whatever else of it is otherwise.
fn is_same(vip: &Vip, next: &Vip) -> bool {
    let identity = |vip: &Vip| {
        let Vip { name, interface, advert_interface, virtual_router_id, virtual_mac, .. } = vip.clone();
        (name, interface, advert_interface, virtual_router_id, virtual_mac, vip.transport, vip.version)
    };
    let places: HashSet<_> = vip.addresses.iter().map(|at| (at.network, &at.interface)).collect();
    let stays = |at: &&config::VipAddress| {
        let is_known = vip.addresses.iter().any(|known| known.network.address() == at.network.address());
        is_known && !places.contains(&(at.network, &at.interface))
    };
    identity(vip) == identity(next) && !next.addresses.iter().any(|at| stays(&at))
}
