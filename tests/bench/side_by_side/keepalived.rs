//! keepalived and HAProxy on the nodes of a pair, as people run them: both track the load balancer's process and ask it
//! over HTTP once a second; priorities 101 and 100; everything else is the default.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton::lab::load::ask_once;
use baton::lab::namespace::Namespace;
use baton::lab::pair::{CLIENT, NODES, VIP};
use baton::lab::process::{Process, ProcessHandle, log_tail};
use baton::lab::topology::Topology;
use baton::lab::wait_for;
use rustix::process::Signal;

/// Time for a daemon to be ready, or gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// Time for HAProxy to answer its health check.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(500);

/// The library by which process events reach keepalived in a namespace, and the machine's own network.
#[derive(Debug, Clone)]
pub struct ProcessEvents {
    pub library: PathBuf,
    pub network: PathBuf,
}

/// What both nodes have in common.
#[derive(Debug, Clone)]
pub struct Spec {
    /// For the files of this start; must not exist.
    pub directory: PathBuf,
    pub advert_interval: Duration,
    /// Without them keepalived learns of HAProxy's end by asking it.
    pub process_events: Option<ProcessEvents>,
    /// Settings of keepalived as a whole, besides those that it has in any case.
    pub keepalived: &'static str,
    /// Of HAProxy on both nodes, with DIRECTORY for the node's own one. It answers on port 8404.
    pub haproxy: String,
}

/// Both nodes. Dropping it kills what is left of them.
pub struct KeepalivedPair {
    nodes: Vec<KeepalivedNode>,
}

pub struct KeepalivedNode {
    name: &'static str,
    directory: PathBuf,
    haproxy: Process,
    keepalived: Process,
}

impl KeepalivedPair {
    /// Starts both, and returns once the first holds the VIP and the other is its backup.
    pub fn start(topology: &Topology, spec: &Spec) -> Result<Self> {
        let nodes: Result<Vec<_>> = NODES.iter().map(|name| KeepalivedNode::start(topology, spec, name)).collect();
        let pair = Self { nodes: nodes? };
        let formed = wait_for("keepalived to form a pair", PATIENCE, || {
            let is_master =
                topology.carries(NODES[0], VIP).unwrap_or(false) && !topology.carries(NODES[1], VIP).ok()?;
            (is_master && pair.nodes[0].said_last("MASTER") && pair.nodes[1].said_last("BACKUP")).then_some(())
        });
        if formed.is_err() {
            pair.show_logs();
        }
        formed?;
        Ok(pair)
    }

    pub fn node_mut(&mut self, name: &str) -> Result<&mut KeepalivedNode> {
        self.nodes.iter_mut().find(|node| node.name == name).with_context(|| format!("there is no node {name}"))
    }

    /// Kills all of it, and leaves the addresses where they are.
    pub fn kill_all(&mut self) {
        self.nodes.iter_mut().for_each(KeepalivedNode::kill_all);
    }

    pub fn show_logs(&self) {
        for node in &self.nodes {
            for log in [node.keepalived.log(), node.haproxy.log()] {
                eprintln!("--- the last lines of {}", log.display());
                log_tail(log, 30).iter().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

impl KeepalivedNode {
    fn start(topology: &Topology, spec: &Spec, name: &'static str) -> Result<Self> {
        let directory = spec.directory.join(name);
        fs::create_dir_all(&directory)?;
        let namespace = topology.host(name)?;
        let haproxy = start_haproxy(namespace, &directory, name, &spec.haproxy)?;
        let health = format!("10.77.0.{}:8404", last_octet(name)).parse()?;
        let client = topology.host(CLIENT)?;
        wait_for("HAProxy to answer", PATIENCE, || ask_once(client, health, HEALTH_TIMEOUT).ok()?.ok())?;
        let keepalived = start_keepalived(namespace, spec, &directory, name)?;
        Ok(Self { name, directory, haproxy, keepalived })
    }

    /// Whether this is the last state that keepalived said it entered.
    fn said_last(&self, state: &str) -> bool {
        let lines = log_tail(self.keepalived.log(), 200);
        let last = lines.iter().rev().find(|line| line.contains("Entering ") && line.contains(" STATE"));
        last.is_some_and(|line| line.contains(&format!("Entering {state} STATE")))
    }

    pub fn kill_all(&mut self) {
        // Stopped first: a child that sees its parent end resigns, and a parent that sees its child end starts another.
        let _ = self.keepalived.signal(Signal::STOP);
        let children = self.keepalived.children();
        for child in &children {
            let _ = child.signal(Signal::KILL);
        }
        for process in [&mut self.keepalived, &mut self.haproxy] {
            let _ = process.signal(Signal::KILL);
            let _ = process.wait(PATIENCE);
        }
        children.iter().for_each(|child| child.reap(PATIENCE));
    }

    pub fn signal_haproxy(&mut self, signal: Signal) -> Result<()> {
        Ok(self.haproxy.signal(signal)?)
    }

    /// Kills HAProxy, and leaves keepalived alone.
    #[allow(dead_code, reason = "for the benchmark of sessions")]
    pub fn kill_haproxy(&mut self) -> Result<()> {
        self.haproxy.signal(Signal::KILL)?;
        self.haproxy.wait(PATIENCE)?;
        Ok(())
    }

    /// Starts HAProxy anew after it was killed.
    #[allow(dead_code, reason = "for the benchmark of sessions")]
    pub fn start_haproxy(&mut self, namespace: &Namespace, configuration: &str) -> Result<()> {
        self.haproxy = start_haproxy(namespace, &self.directory, self.name, configuration)?;
        Ok(())
    }

    /// Kills the child that speaks VRRP; its parent lives.
    pub fn kill_vrrp(&self) -> Result<()> {
        Ok(self.vrrp_child()?.signal(Signal::KILL)?)
    }

    /// Stops both of keepalived's processes in their tracks.
    pub fn hang(&mut self) -> Result<()> {
        let child = self.vrrp_child()?;
        self.keepalived.signal(Signal::STOP)?;
        Ok(child.signal(Signal::STOP)?)
    }

    pub fn terminate(&mut self) -> Result<()> {
        Ok(self.keepalived.signal(Signal::TERM)?)
    }

    /// Takes 50 off its priority.
    pub fn lower_priority(&self) -> Result<()> {
        Ok(fs::write(self.directory.join("priority"), "-50\n")?)
    }

    fn vrrp_child(&self) -> Result<ProcessHandle> {
        let mut children = self.keepalived.children();
        ensure!(children.len() == 1, "keepalived has {} children, and should have one", children.len());
        children.pop().context("one child")
    }
}

fn last_octet(node: &str) -> u8 {
    if node == NODES[0] { 11 } else { 12 }
}

/// HAProxy under a name of its own on each node: both are in one process table, and keepalived looks for a name.
pub fn start_haproxy(namespace: &Namespace, directory: &Path, node: &str, configuration: &str) -> Result<Process> {
    let program = directory.join(format!("haproxy-{node}"));
    if !program.exists() {
        symlink(find_program("haproxy")?, &program)?;
    }
    let configuration = configuration.replace("DIRECTORY", &directory.display().to_string());
    fs::write(directory.join("haproxy.cfg"), configuration)?;
    let mut command = namespace.command(program);
    // Among peers it goes by the name of its node.
    command.arg("-db").args(["-L", node]).arg("-f").arg(directory.join("haproxy.cfg"));
    Ok(Process::spawn("haproxy", command, &directory.join("haproxy.log"))?)
}

fn start_keepalived(namespace: &Namespace, spec: &Spec, directory: &Path, node: &str) -> Result<Process> {
    fs::write(directory.join("priority"), "0\n")?;
    fs::write(directory.join("keepalived.conf"), keepalived_configuration(spec, directory, node))?;
    let mut command: Command = namespace.command(find_program("keepalived")?);
    if let Some(events) = &spec.process_events {
        command.env("LD_PRELOAD", &events.library).env("PROCESS_EVENTS_NETNS", &events.network);
    }
    // In the foreground, log to the console, VRRP alone.
    command.args(["-n", "-l", "-D", "-P", "-f"]).arg(directory.join("keepalived.conf"));
    command.arg("-p").arg(directory.join("pid")).arg("-r").arg(directory.join("vrrp.pid"));
    Ok(Process::spawn("keepalived", command, &directory.join("keepalived.log"))?)
}

/// Checks at the pace of Baton's, of which the lab's configuration says the same.
pub fn haproxy_configuration() -> String {
    let servers: String = (1..=3)
        .map(|number| format!("  server web{number} 10.77.0.2{number}:8080 check inter 500ms fall 2 rise 1\n"))
        .collect();
    format!(
        "global
  maxconn 4096
defaults
  mode http
  option redispatch
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  timeout check 300ms
frontend http
  bind {VIP}:80 transparent
  default_backend app
frontend health
  bind :8404
  http-request return status 200 content-type text/plain string ok
backend app
  balance roundrobin
  option httpchk GET /health
  http-reuse always
{servers}"
    )
}

/// `fall 1` is the quickest that a script at this pace can be.
fn keepalived_configuration(spec: &Spec, directory: &Path, node: &str) -> String {
    let (state, priority) = if node == NODES[0] { ("MASTER", 101) } else { ("BACKUP", 100) };
    let advert_int = spec.advert_interval.as_secs_f64();
    let (directory, further) = (directory.display(), spec.keepalived);
    let (process, track_process) = match &spec.process_events {
        Some(_) => (
            format!("vrrp_track_process haproxy {{\n  process haproxy-{node}\n  quorum 1\n}}"),
            "track_process { haproxy }",
        ),
        None => (String::new(), ""),
    };
    format!(
        "global_defs {{
  router_id {node}
  vrrp_version 3
  script_user root
  vrrp_rt_priority 50
{further}
}}
{process}
vrrp_script http {{
  script \"/usr/bin/curl -fs -o /dev/null -m 1 http://127.0.0.1:8404/\"
  interval 1
  timeout 2
  fall 1
  rise 1
}}
vrrp_track_file priority {{
  file \"{directory}/priority\"
  weight 1
}}
vrrp_instance web {{
  state {state}
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int {advert_int}
  virtual_ipaddress {{
    {VIP}/24 dev eth0
  }}
  {track_process}
  track_script {{ http }}
  track_file {{ priority weight 1 }}
}}
"
    )
}

/// A program that an administrator runs: an ordinary user's PATH may not have its directory.
pub fn find_program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places.map(|place| place.join(name)).find(|program| program.is_file());
    found.with_context(|| format!("needs the program {name}: install the package {name}"))
}
