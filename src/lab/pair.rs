//! All of the lab together: a directory for the run, the network, the servers, and the two nodes of a pair.

use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::load::{Load, LoadSpec, ask_once};
use super::namespace::Namespace;
use super::node::{Node, NodeSpec};
use super::process::{adopt_orphans, reap_orphans};
use super::topology::{Topology, TopologySpec};
use super::web::WebServer;
use super::{LabError, wait_for};
use crate::status::{NodeStatus, Role};
use crate::units::AdvertInterval;

/// The nodes, by the names in the generated configuration.
pub const NODES: [&str; 2] = ["lb-a", "lb-b"];

/// The servers.
pub const SERVERS: [&str; 3] = ["web1", "web2", "web3"];

/// The machine from which clients connect.
pub const CLIENT: &str = "client";

/// The virtual address.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

/// Where clients connect.
pub const TARGET: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VIP), 80);

/// Time for a node to say how it is; a guard that takes longer is as good as gone.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// Time for one request of [`Pair::wait_until_serving`].
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Directory names tried before giving up.
const DIRECTORY_ATTEMPTS: usize = 16;

/// What to build.
#[derive(Debug, Clone)]
pub struct PairSpec {
    /// The program `baton`; [`own_program`] for the program itself.
    pub program: PathBuf,
    /// Time between adverts.
    pub advert_interval: AdvertInterval,
    /// Text put at the end of the generated configuration; tables not in it yet, or keys of `[pool.sticky]`.
    pub config_extra: String,
    /// The prefix under which namespaces are shown in /run/netns, when they are to be.
    pub netns_prefix: Option<String>,
}

/// The file of the running program. By its own name where it still has one, so that the nodes are called `baton` in the
/// process table; a program that was replaced or lies under the machine's /run is reached as /proc/self/exe.
pub fn own_program() -> PathBuf {
    let named = std::env::current_exe().ok().filter(|path| path.is_file());
    named.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// A pair of nodes with servers behind and a client before it. Dropping it ends every process and removes the directory.
#[derive(Debug)]
pub struct Pair {
    // Dropped in this order: processes before the network they are in, the directory last.
    nodes: [Node; 2],
    servers: Vec<WebServer>,
    topology: Topology,
    directory: RunDirectory,
}

impl Pair {
    /// Builds the network, starts the servers, writes the configuration. The nodes are not started yet.
    /// The process must have [entered](super::namespace::enter) namespaces of its own.
    ///
    /// # Errors
    /// What could not be had, and why.
    pub fn build(spec: &PairSpec) -> Result<Self, LabError> {
        adopt_orphans();
        let directory = RunDirectory::create()?;
        let topology =
            Topology::build(&TopologySpec { netns_prefix: spec.netns_prefix.clone(), ..TopologySpec::pair() })?;
        let servers = start_servers(&topology)?;
        let config = write_config(spec, directory.path())?;
        let node = |name: &str| {
            let node = NodeSpec {
                name: name.to_owned(),
                program: spec.program.clone(),
                config: config.clone(),
                directory: directory.path().join(name),
            };
            Node::new(node, topology.host(name)?)
        };
        let [first, second] = NODES;
        Ok(Self { nodes: [node(first)?, node(second)?], servers, topology, directory })
    }

    /// Starts both nodes.
    ///
    /// # Errors
    /// When one of them runs already or cannot be started.
    pub fn start(&mut self) -> Result<(), LabError> {
        self.nodes.iter_mut().try_for_each(Node::start)
    }

    /// Both nodes.
    pub fn nodes(&self) -> &[Node; 2] {
        &self.nodes
    }

    /// A node by its name.
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`].
    pub fn node(&self, name: &str) -> Result<&Node, LabError> {
        self.nodes.iter().find(|node| node.name() == name).ok_or_else(|| LabError::NoSuchHost(name.to_owned()))
    }

    /// A node by its name, to do something to it.
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`].
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node, LabError> {
        self.nodes.iter_mut().find(|node| node.name() == name).ok_or_else(|| LabError::NoSuchHost(name.to_owned()))
    }

    /// The network.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The servers that run. Taking one out stops it.
    pub fn servers_mut(&mut self) -> &mut Vec<WebServer> {
        &mut self.servers
    }

    /// The namespace from which clients connect.
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`], which it never is.
    pub fn client(&self) -> Result<&Namespace, LabError> {
        self.topology.host(CLIENT)
    }

    /// A node whose guard has ended without being asked to, and how.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub fn first_ended(&mut self) -> Result<Option<(String, ExitStatus)>, LabError> {
        for node in &mut self.nodes {
            if let Some(status) = node.exit_status()? {
                return Ok(Some((node.name().to_owned(), status)));
            }
        }
        Ok(None)
    }

    /// Starts the nodes whose guard has ended, as a service manager does, and gives their names and how each ended.
    /// The process must have no children but those of this pair: the exit status of any other is taken.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn restart_what_ended(&mut self) -> Result<Vec<(String, ExitStatus)>, LabError> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            if let Some(status) = node.exit_status()? {
                node.start()?;
                ended.push((node.name().to_owned(), status));
            }
        }
        if !ended.is_empty() {
            let guards: Vec<u32> = self.nodes.iter().filter_map(Node::guard_pid).collect();
            reap_orphans(&guards);
        }
        Ok(ended)
    }

    /// The directory of the run.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves the directory in place when the pair is dropped.
    pub fn keep_directory(&mut self) {
        self.directory.kept = true;
    }

    /// Starts the steady load of [`LoadSpec::steady`] on the VIP.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start_load(&self) -> Result<Load, LabError> {
        let servers = SERVERS.iter().map(|name| (*name).to_owned()).collect();
        Load::start(self.client()?, LoadSpec::steady(TARGET, servers))
    }

    /// The nodes whose interface carries the VIP.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn holders(&self) -> Result<Vec<String>, LabError> {
        let mut holders = Vec::new();
        for node in NODES {
            if self.topology.carries(node, VIP)? {
                holders.push(node.to_owned());
            }
        }
        Ok(holders)
    }

    /// What each node says about itself; `None` for one that does not.
    pub fn statuses(&self) -> [Option<NodeStatus>; 2] {
        self.nodes.each_ref().map(|node| node.status(STATUS_TIMEOUT).ok())
    }

    /// Whether two fit nodes that are in sync hold the VIP between them exactly once.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn state(&self) -> Result<PairState, LabError> {
        Ok(judge(&NODES, None, &self.holders()?, &self.statuses()))
    }

    /// Waits until the pair is healthy, and gives the name of the active node.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] with what was still wrong at the end.
    pub fn wait_until_healthy(&self, within: Duration) -> Result<String, LabError> {
        let mut last = String::new();
        let waited = wait_for("the pair to be healthy", within, || match self.state() {
            Ok(PairState::Healthy { active }) => Some(active),
            Ok(PairState::Unhealthy { reason }) => {
                last = reason;
                None
            }
            Err(error) => {
                last = error.to_string();
                None
            }
        });
        waited.map_err(|_| LabError::TimedOut { what: format!("the pair to be healthy ({last})"), within })
    }

    /// Waits until a request through the VIP is answered, and gives the server that did.
    ///
    /// # Errors
    /// [`LabError::TimedOut`].
    pub fn wait_until_serving(&self, within: Duration) -> Result<String, LabError> {
        let client = self.client()?;
        wait_for("an answer through the VIP", within, || {
            let answer = ask_once(client, TARGET, REQUEST_TIMEOUT).ok()?;
            answer.ok().flatten()
        })
    }
}

/// Whether a pair can lose a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairState {
    /// Two fit nodes that have the same sessions where they have a pair key, and one of them holds the VIP.
    Healthy {
        /// That one.
        active: String,
    },
    /// Anything else.
    Unhealthy {
        /// What is missing, in words.
        reason: String,
    },
}

/// Judges the pair of `nodes` by what the kernel says about the VIP and what the nodes say about themselves. Both must agree.
/// With a name, the roles of that VIP count and not those of others.
pub fn judge(
    nodes: &[impl AsRef<str>; 2],
    vip_name: Option<&str>,
    holders: &[String],
    statuses: &[Option<NodeStatus>; 2],
) -> PairState {
    let unhealthy = |reason: String| PairState::Unhealthy { reason };
    let [active] = holders else {
        return unhealthy(match holders.len() {
            0 => "no node holds the VIP".to_owned(),
            _ => format!("{} all hold the VIP", holders.join(" and ")),
        });
    };
    for (node, status) in nodes.iter().map(AsRef::as_ref).zip(statuses) {
        let Some(status) = status else { return unhealthy(format!("{node} does not answer")) };
        let expected = if node == active { Role::Active } else { Role::Standby };
        if status.worker.state != "running" {
            return unhealthy(format!("the worker of {node} is {}", status.worker.state));
        }
        for vip in &status.vips {
            if let Some(fault) = vip.faults.first() {
                return unhealthy(format!("{node} is not fit: {fault}"));
            }
            if vip.role != expected && vip_name.is_none_or(|name| name == vip.name) {
                return unhealthy(format!("{node} is {} and should be {expected}", vip.role));
            }
        }
        if let Some(sync) = status.sync.as_ref().filter(|sync| !sync.in_sync) {
            return unhealthy(format!("{node} is not in sync: {}", sync.last_error.as_deref().unwrap_or(&sync.state)));
        }
        if status.vips.is_empty() {
            return unhealthy(format!("{node} has no VIP"));
        }
    }
    PairState::Healthy { active: active.clone() }
}

fn start_servers(topology: &Topology) -> Result<Vec<WebServer>, LabError> {
    let server = |(name, address): (&&str, SocketAddr)| WebServer::start(topology.host(name)?, name, address);
    SERVERS.iter().zip(server_addresses()).map(server).collect()
}

fn server_addresses() -> impl Iterator<Item = SocketAddr> {
    (21..).map(|last| SocketAddr::from(([10, 77, 0, last], 8080)))
}

/// Writes the pair key and the configuration, and gives the path of the latter.
fn write_config(spec: &PairSpec, directory: &Path) -> Result<PathBuf, LabError> {
    let key_file = directory.join("pair.key");
    let config = directory.join("baton.toml");
    let write = |path: &Path, text: String| {
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
        written.map_err(LabError::system(format!("write {}", path.display())))
    };
    write(&key_file, random_key().map_err(LabError::system("read /dev/urandom"))?)?;
    write(&config, config_text(spec.advert_interval, &key_file, &spec.config_extra))?;
    Ok(config)
}

/// 64 hex digits and a line feed.
fn random_key() -> io::Result<String> {
    let mut key = [0_u8; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect())
}

/// The configuration of both nodes.
fn config_text(advert_interval: AdvertInterval, key_file: &Path, extra: &str) -> String {
    let servers: Vec<String> = SERVERS
        .iter()
        .zip(server_addresses())
        .map(|(name, address)| format!("  {{ name = \"{name}\", address = \"{address}\" }},\n"))
        .collect();
    format!(
        r#"# Made by the lab; the same for both nodes.
[[node]]
name = "lb-a"
address = "10.77.0.11"

[[node]]
name = "lb-b"
address = "10.77.0.12"

[pair]
key_file = "{key_file}"

[[vip]]
name = "web"
addresses = ["10.77.0.100/24"]
interface = "eth0"
virtual_router_id = 51
advert_interval = "{advert_interval_ms}ms"
transport = "unicast"

[[listener]]
name = "http"
bind = ["10.77.0.100:80"]
protocol = "http"
pool = "app"

[[pool]]
name = "app"
servers = [
{servers}]

[pool.health]
type = "http"
path = "/health"
interval = "500ms"
timeout = "300ms"
fall = 2
rise = 1

[pool.sticky]
by = "cookie"
name = "BATON"
{extra}"#,
        key_file = key_file.display(),
        advert_interval_ms = advert_interval.get().as_millis(),
        servers = servers.concat(),
    )
}

/// A directory that only its owner can look into, removed in the end unless it is to be kept.
#[derive(Debug)]
struct RunDirectory {
    path: PathBuf,
    kept: bool,
}

impl RunDirectory {
    fn create() -> Result<Self, LabError> {
        let parent = directory_parent(std::env::temp_dir());
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..DIRECTORY_ATTEMPTS {
            // The name is no secret: the directory is made by us or not used at all.
            let path = parent.join(format!("baton-lab-{:08x}", fastrand::u32(..)));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path, kept: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(LabError::system(format!("make {}", path.display()))(error)),
            }
        }
        Err(LabError::system(format!("make a directory in {}", parent.display()))(last))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// /run is private to the lab: logs kept there would be gone with the process.
fn directory_parent(wanted: PathBuf) -> PathBuf {
    let real = fs::canonicalize(&wanted).unwrap_or(wanted);
    if real.starts_with("/run") { PathBuf::from("/tmp") } else { real }
}

#[cfg(test)]
mod tests;
