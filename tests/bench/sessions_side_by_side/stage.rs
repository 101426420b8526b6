//! The network, which both systems use by turns, and a pair of either at work in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton::lab::load::ask_once;
use baton::lab::namespace::Namespace;
use baton::lab::pair::{NODES, Pair, PairSpec, VIP};
use baton::lab::process::ProcessHandle;
use baton::lab::{LabError, wait_for};
use baton::status::NodeStatus;
use baton::units::AdvertInterval;

use crate::keepalived::{KeepalivedPair, Spec};
use crate::rival::{self, Admin, TlsFiles};

/// The pool of the lab's configuration that has a table.
pub const POOL: &str = "users";

/// Time for a pair to form, or for service to come back.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time for one question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Time between adverts.
const ADVERT_INTERVAL: Duration = Duration::from_millis(100);

/// How old what a node says of its table may be: the worker reports at each probe.
const REPORT_AGE: Duration = Duration::from_millis(200);

/// On a busy machine the kernel kills keepalived for 10 ms of work at one go, which is its default; the VIP would move
/// while something else is measured.
const KEEPALIVED: &str = "  vrrp_rlimit_rttime 1000000";

/// Length of the keys in HAProxy's table: the users' names.
pub const KEY_BYTES: u32 = 32;

/// Whose pair it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum System {
    Baton,
    Haproxy,
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            System::Baton => "baton",
            System::Haproxy => "haproxy",
        }
    }
}

/// A pair at work.
pub enum Running {
    Baton(Vec<ProcessHandle>),
    Haproxy { pair: KeepalivedPair, directory: PathBuf, configuration: String },
}

pub struct Stage {
    pub pair: Pair,
    pub tls: TlsFiles,
    program: PathBuf,
    /// Rounds so far, for names of directories, and to tell users apart.
    played: u32,
}

impl Stage {
    pub fn build(program: &Path, tls: TlsFiles) -> Result<Self> {
        let advert_interval = AdvertInterval::new(ADVERT_INTERVAL).context("no advert interval")?;
        let spec = PairSpec {
            program: program.to_owned(),
            advert_interval,
            config_extra: config_extra(&tls),
            netns_prefix: None,
        };
        Ok(Self { pair: Pair::build(&spec)?, tls, program: program.to_owned(), played: 0 })
    }

    pub fn client(&self) -> Result<&Namespace, LabError> {
        self.pair.client()
    }

    /// Another number for each round.
    pub fn next_tag(&mut self) -> u32 {
        self.played += 1;
        self.played
    }

    /// A directory that does not exist yet.
    pub fn next_directory(&mut self) -> PathBuf {
        let tag = self.next_tag();
        self.pair.directory().join(format!("haproxy-{tag}"))
    }

    /// HAProxy's configuration on both nodes.
    pub fn configuration(&self, key_bytes: u32) -> String {
        rival::configuration(key_bytes, &self.tls, false)
    }

    /// Starts both nodes, and returns once they are in sync and clients are served.
    pub fn start(&mut self, system: System, with_ticket_keys: bool) -> Result<Running> {
        let running = match system {
            System::Baton => {
                for node in NODES {
                    self.start_baton(node)?;
                }
                self.pair.wait_until_healthy(PATIENCE)?;
                self.wait_for_checks()?;
                wait_for("both nodes to be in sync", PATIENCE, || {
                    let statuses = self.pair.statuses();
                    statuses.iter().all(|status| status.as_ref().is_some_and(is_in_sync)).then_some(())
                })?;
                Running::Baton(self.pair.nodes().iter().flat_map(|node| node.processes()).collect())
            }
            System::Haproxy => {
                let configuration = rival::configuration(KEY_BYTES, &self.tls, with_ticket_keys);
                let spec = Spec {
                    directory: self.next_directory(),
                    advert_interval: ADVERT_INTERVAL,
                    process_events: None,
                    keepalived: KEEPALIVED,
                    haproxy: configuration.clone(),
                };
                let pair = KeepalivedPair::start(self.pair.topology(), &spec)?;
                let running = Running::Haproxy { pair, directory: spec.directory, configuration };
                running.admin(NODES[0])?.wait_until_connected_to(NODES[1])?;
                running
            }
        };
        self.pair.wait_until_serving(PATIENCE)?;
        Ok(running)
    }

    /// Starts a node without what it had remembered.
    pub fn start_baton(&mut self, node: &str) -> Result<()> {
        let node = self.pair.node_mut(node)?;
        // There is none at the first start.
        let _absent = fs::remove_dir_all(node.state_dir());
        Ok(node.start()?)
    }

    /// Waits until both nodes have asked all servers and found them good.
    fn wait_for_checks(&self) -> Result<()> {
        let is_good = || {
            self.pair.statuses().iter().all(|status| {
                let mut servers = status.iter().flat_map(|status| &status.pools).flat_map(|pool| &pool.servers);
                status.is_some() && servers.all(|server| server.up && server.last_check != "not checked")
            })
        };
        Ok(wait_for("both nodes to reach their servers", PATIENCE, || is_good().then_some(()))?)
    }

    /// The node that holds the VIP, and the other one.
    pub fn active_and_standby(&self) -> Result<(&'static str, &'static str)> {
        let holder = wait_for("the VIP to be on one node alone", PATIENCE, || match self.pair.holders() {
            Ok(holders) => holders.as_slice().first().filter(|_| holders.len() == 1).cloned().map(Ok),
            Err(error) => Some(Err(error)),
        })??;
        let active = NODES.iter().find(|node| **node == holder).context("a node of the pair")?;
        let standby = NODES.iter().find(|node| *node != active).context("the other node")?;
        Ok((active, standby))
    }

    /// A power cut: the cable out, and every process killed.
    pub fn kill(&mut self, running: &mut Running, node: &str) -> Result<()> {
        self.pair.topology().cut_cable(node)?;
        match running {
            Running::Baton(_) => self.pair.node_mut(node)?.kill_all()?,
            Running::Haproxy { pair, .. } => pair.node_mut(node)?.kill_all(),
        }
        Ok(())
    }

    /// Hands over as an administrator does.
    pub fn switch_over(&mut self, running: &mut Running, node: &str) -> Result<()> {
        match running {
            Running::Baton(_) => {
                let mut command = Command::new(&self.program);
                command.arg("switchover").arg("--runtime-dir").arg(self.pair.node(node)?.runtime_dir());
                let output = command.output()?;
                ensure!(output.status.success(), "no switchover: {}", String::from_utf8_lossy(&output.stderr));
                Ok(())
            }
            Running::Haproxy { pair, .. } => pair.node_mut(node)?.lower_priority(),
        }
    }

    /// Ends what proxies on a node, and leaves its network alone.
    pub fn stop_proxy(&mut self, running: &mut Running, node: &str) -> Result<()> {
        match running {
            Running::Baton(_) => Ok(self.pair.node_mut(node)?.kill_all()?),
            Running::Haproxy { pair, .. } => pair.node_mut(node)?.kill_haproxy(),
        }
    }

    /// Starts it again, with an empty table, and returns as soon as it is connected to the other node.
    pub fn start_proxy(&mut self, running: &mut Running, node: &'static str) -> Result<Instant> {
        let other = NODES.iter().find(|name| **name != node).context("the other node")?;
        match running {
            Running::Baton(processes) => {
                self.start_baton(node)?;
                let is_connected = |status: NodeStatus| {
                    status.sync.is_some_and(|sync| sync.state == "connected" || sync.state == "in_sync")
                };
                let node = self.pair.node(node)?;
                let connected = wait_for("the sync link to be up", PATIENCE, || {
                    node.status(QUESTION_TIMEOUT).is_ok_and(is_connected).then(Instant::now)
                })?;
                processes.extend(node.processes());
                Ok(connected)
            }
            Running::Haproxy { pair, configuration, .. } => {
                pair.node_mut(node)?.start_haproxy(self.pair.topology().host(node)?, configuration)?;
                running.admin(other)?.wait_until_connected_to(node)
            }
        }
    }

    /// Waits until a node holds the VIP and serves.
    pub fn wait_until_active(&self, node: &str) -> Result<()> {
        wait_for("the other node to hold the VIP", PATIENCE, || match self.pair.topology().carries(node, VIP) {
            Ok(carries) => carries.then_some(Ok(())),
            Err(error) => Some(Err(error)),
        })??;
        let client = self.client()?;
        Ok(wait_for("clients to be served", PATIENCE, || {
            ask_once(client, crate::USERS, QUESTION_TIMEOUT).ok()?.ok().map(drop)
        })?)
    }

    /// Entries in the table of a node that nobody writes to any more.
    pub fn entries(&self, running: &Running, node: &str) -> Result<u64> {
        match running {
            Running::Baton(_) => {
                std::thread::sleep(REPORT_AGE);
                self.baton_entries(node)
            }
            Running::Haproxy { .. } => running.admin(node)?.used(),
        }
    }

    /// Entries in the table of one of Baton's nodes, by its last report.
    pub fn baton_entries(&self, node: &str) -> Result<u64> {
        let status = self.pair.node(node)?.status(QUESTION_TIMEOUT)?;
        let pool = status.sessions.pools.iter().find(|pool| pool.pool == POOL);
        Ok(pool.context("the pool has no table")?.entries)
    }

    /// Whether one of Baton's nodes is in sync.
    pub fn is_baton_in_sync(&self, node: &str) -> bool {
        let status = self.pair.node(node).and_then(|node| node.status(QUESTION_TIMEOUT));
        status.is_ok_and(|status| is_in_sync(&status))
    }

    /// Ends all of a pair, and leaves the network as it was before.
    pub fn clear(&mut self, running: Option<Running>) -> Result<()> {
        for node in NODES {
            self.pair.node_mut(node)?.kill_all()?;
        }
        match running {
            Some(Running::Baton(processes)) => processes.iter().for_each(|process| {
                let _ended = process.signal(rustix::process::Signal::KILL);
                process.reap(PATIENCE);
            }),
            Some(Running::Haproxy { mut pair, .. }) => pair.kill_all(),
            None => {}
        }
        let topology = self.pair.topology();
        for node in NODES {
            // Each of them does nothing to a network that is whole.
            topology.restore_cable(node)?;
            topology.remove_address(node, VIP)?;
        }
        NODES.iter().try_for_each(|node| topology.wait_until_linked(node))?;
        Ok(())
    }

    pub fn show_logs(&self, running: &Running) {
        match running {
            Running::Baton(_) => self.pair.nodes().iter().for_each(|node| {
                eprintln!("--- the last lines of {}", node.log().display());
                node.log_tail(30).iter().for_each(|line| eprintln!("{line}"));
            }),
            Running::Haproxy { pair, .. } => pair.show_logs(),
        }
    }
}

impl Running {
    /// HAProxy's socket on a node.
    pub fn admin(&self, node: &str) -> Result<Admin> {
        match self {
            Running::Haproxy { directory, .. } => Admin::connect(&directory.join(node)),
            Running::Baton(_) => anyhow::bail!("Baton has no such socket"),
        }
    }
}

fn is_in_sync(status: &NodeStatus) -> bool {
    status.sync.as_ref().is_some_and(|sync| sync.in_sync)
}

/// What the configuration has besides the lab's: a pool with a table, on ports of its own.
fn config_extra(tls: &TlsFiles) -> String {
    let servers: String = (1..=3)
        .map(|number| format!("  {{ name = \"web{number}\", address = \"10.77.0.2{number}:8080\" }},\n"))
        .collect();
    format!(
        r#"
[[listener]]
name = "users"
bind = ["{VIP}:81"]
pool = "{POOL}"

[[listener]]
name = "https"
bind = ["{VIP}:443"]
pool = "{POOL}"
tls = {{ certificates = [{{ cert = "{certificate}", key = "{key}" }}] }}

[[pool]]
name = "{POOL}"
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
by = "header"
name = "X-User"
"#,
        certificate = tls.certificate.display(),
        key = tls.key.display(),
    )
}
