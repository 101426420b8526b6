//! A real keepalived on the second node: what it is configured with, what it says it is, how it is lost.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use baton::lab::pair::NODES;
use baton::lab::process::{Process, ProcessHandle};
use rustix::process::Signal;

use super::Loss;
use crate::scene::{Outcome, PATIENCE, Scene, find_program, until};

/// The node that keepalived runs on.
pub const OTHER: &str = NODES[1];

/// Without it, a busy machine keeps keepalived waiting for longer than a few intervals of 100 ms, and Baton, which runs in
/// real time, rightly takes over. The limit is on the time it may run without a rest, which is 10 ms otherwise.
const REAL_TIME: &str = "vrrp_rt_priority 50\n  vrrp_rlimit_rttime 10000000";

/// One `vrrp_instance`.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its virtual router id.
    pub id: u8,
    /// What it says its version is.
    pub version: u8,
    /// Its priority.
    pub priority: u8,
    /// Time between its adverts.
    pub interval: Duration,
    /// Whether it takes the VIP from a living node of lower priority.
    pub preempt: Preempt,
    /// Its own address and the peer's; `None` for multicast.
    pub unicast: Option<(&'static str, &'static str)>,
    /// Its virtual addresses with prefix length and `dev`, in the order of its adverts.
    pub addresses: Vec<String>,
    /// Further lines.
    pub extra: String,
}

/// Whether keepalived takes the VIP from a living node of lower priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preempt {
    /// Never.
    Never,
    /// At once.
    AtOnce,
    /// After this time.
    After(Duration),
}

impl Instance {
    fn text(&self) -> String {
        let preempt = match self.preempt {
            Preempt::Never => "nopreempt".to_owned(),
            Preempt::AtOnce => String::new(),
            Preempt::After(time) => format!("preempt_delay {}", time.as_secs()),
        };
        let unicast = self
            .unicast
            .map_or(String::new(), |(own, peer)| format!("unicast_src_ip {own}\n  unicast_peer {{\n    {peer}\n  }}"));
        let addresses: Vec<String> = self.addresses.iter().map(|address| format!("    {address}\n")).collect();
        format!(
            "vrrp_instance {name} {{
  state BACKUP
  {preempt}
  version {version}
  interface eth0
  virtual_router_id {id}
  priority {priority}
  advert_int {interval}
  {unicast}
  {extra}
  virtual_ipaddress {{
{addresses}  }}
}}
",
            name = self.name,
            version = self.version,
            id = self.id,
            priority = self.priority,
            interval = self.interval.as_secs_f64(),
            extra = self.extra,
            addresses = addresses.concat(),
        )
    }
}

/// A running keepalived.
pub struct Keepalived {
    process: Process,
}

impl Keepalived {
    /// Starts it.
    pub fn start(scene: &mut Scene, instances: &[Instance]) -> anyhow::Result<Self> {
        let program = find_program("keepalived", "keepalived")?;
        // A directory for each start: one that was killed leaves its pid files, and the next would believe them.
        let directory = scene.pair.directory().join(format!("keepalived-{}", scene.logs.len()));
        fs::create_dir_all(&directory)?;
        let file = |name: &str| directory.join(name);
        let instances: Vec<String> = instances.iter().map(Instance::text).collect();
        let text = format!("global_defs {{\n  router_id other\n  {REAL_TIME}\n}}\n{}", instances.concat());
        fs::write(file("keepalived.conf"), text)?;
        let mut command = scene.node(OTHER).namespace().command(program);
        // Console log, in the foreground, VRRP alone.
        command.args(["-n", "-l", "-P", "-f"]).arg(file("keepalived.conf"));
        command.arg("-p").arg(file("pid")).arg("-r").arg(file("vrrp.pid"));
        scene.logs.push(file("log"));
        Ok(Self { process: Process::spawn("keepalived", command, &file("log"))? })
    }

    fn log(&self) -> PathBuf {
        self.process.log().to_owned()
    }

    /// Everything that it has said.
    pub fn said(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.log())?)
    }

    /// The state that an instance last said it is in.
    pub fn state(&self, instance: &str) -> anyhow::Result<Option<&'static str>> {
        let said = self.said()?;
        let entered = |line: &str, state: &str| line.contains(&format!("({instance}) Entering {state} STATE"));
        let states = ["MASTER", "BACKUP", "FAULT"];
        Ok(said.lines().rev().find_map(|line| states.into_iter().find(|state| entered(line, state))))
    }

    /// Waits until an instance says that it is in this state.
    pub fn wait_for_state(&self, instance: &str, state: &str) -> Outcome {
        until(&format!("keepalived to be {state} for {instance}"), PATIENCE, || {
            Ok((self.state(instance)? == Some(state)).then_some(()))
        })
    }

    /// Ends it without waiting until it has ended; [`Keepalived::end`] does.
    pub fn begin_to_lose(&mut self, loss: Loss) -> anyhow::Result<Vec<ProcessHandle>> {
        if loss == Loss::Stopped {
            self.process.signal(Signal::TERM)?;
            return Ok(Vec::new());
        }
        // A child that sees its parent end resigns, and a parent that sees its child end starts another.
        self.process.signal(Signal::STOP)?;
        let children = self.process.children();
        ensure!(!children.is_empty(), "keepalived has no child to kill");
        children.iter().try_for_each(|child| child.signal(Signal::KILL))?;
        self.process.signal(Signal::KILL)?;
        Ok(children)
    }

    /// Waits for the end of one that was lost, with the children that it had.
    pub fn end(&mut self, children: Vec<ProcessHandle>) -> Outcome {
        self.process.wait(PATIENCE)?;
        children.iter().for_each(|child| child.reap(PATIENCE));
        Ok(())
    }
}
