//! keepalived as the other node, in VRRPv3: each takes over from the other, by either transport.

use std::fs;
use std::path::PathBuf;

use baton::lab::pair::NODES;
use baton::lab::process::{Process, log_tail};
use baton::status::Role;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, find_program, until};

/// The node that Baton runs on; keepalived runs on the other.
const BATON: &str = NODES[0];
const OTHER: &str = NODES[1];

/// keepalived's priority.
const PRIORITY: u8 = 100;

/// How the peer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It stops, and says so with priority 0.
    Stopped,
    /// All of it is killed, and it says nothing.
    Killed,
}

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (transport, plan) in
        [("unicast", Plan::usual().unauthenticated()), ("multicast", Plan::usual().unauthenticated().multicast())]
    {
        for (how, loss) in [("stopped", Loss::Stopped), ("killed", Loss::Killed)] {
            let name = format!("keepalived_takes_over_from_a_{how}_baton_over_{transport}");
            trials.push(plan.clone().trial(&name, move |scene| keepalived_takes_over(scene, loss)));
            let name = format!("baton_takes_over_from_a_{how}_keepalived_over_{transport}");
            trials.push(plan.clone().trial(&name, move |scene| baton_takes_over(scene, loss)));
        }
        let name = format!("baton_wins_by_priority_at_a_common_start_over_{transport}");
        trials.push(plan.clone().prefer(BATON).trial(&name, |scene| priority_decides(scene, BATON)));
        let name = format!("keepalived_wins_by_priority_at_a_common_start_over_{transport}");
        let low = plan.edit("address = \"10.77.0.11\"", "address = \"10.77.0.11\"\npriority = 50");
        trials.push(low.trial(&name, |scene| priority_decides(scene, OTHER)));
    }
    trials
}

/// Whether keepalived takes the VIP from a living node of lower priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preempt {
    Yes,
    No,
}

/// A running keepalived.
struct Keepalived {
    process: Process,
}

impl Keepalived {
    fn start(scene: &mut Scene, preempt: Preempt) -> anyhow::Result<Self> {
        let program = find_program("keepalived", "keepalived")?;
        // A directory for each start: one that was killed leaves its pid files, and the next would believe them.
        let directory = scene.pair.directory().join(format!("keepalived-{}", scene.logs.len()));
        fs::create_dir_all(&directory)?;
        let is_multicast = fs::read_to_string(scene.config())?.contains("transport = \"multicast\"");
        let file = |name: &str| directory.join(name);
        fs::write(file("keepalived.conf"), configuration(preempt, is_multicast))?;
        let mut command = scene.node(OTHER).namespace().command(program);
        // Console log, in the foreground, VRRP alone.
        command.args(["-n", "-l", "-D", "-P", "-f"]).arg(file("keepalived.conf"));
        command.arg("-p").arg(file("pid")).arg("-r").arg(file("vrrp.pid"));
        scene.logs.push(file("log"));
        Ok(Self { process: Process::spawn("keepalived", command, &file("log"))? })
    }

    fn log(&self) -> PathBuf {
        self.process.log().to_owned()
    }

    /// Waits until it says that it is in this state.
    fn wait_for_state(&self, state: &str) -> Outcome {
        let line = format!("Entering {state} STATE");
        until(&format!("keepalived to say {line}"), PATIENCE, || {
            let entered = log_tail(&self.log(), 200);
            let last = entered.iter().rev().find(|said| said.contains("Entering ") && said.contains(" STATE"));
            Ok(last.is_some_and(|said| said.contains(&line)).then_some(()))
        })
    }

    fn lose(&mut self, loss: Loss) -> Outcome {
        match loss {
            Loss::Stopped => self.process.signal(Signal::TERM)?,
            Loss::Killed => {
                // A child that sees its parent end resigns, and a parent that sees its child end starts another.
                self.process.signal(Signal::STOP)?;
                let children = self.process.children();
                children.iter().try_for_each(|child| child.signal(Signal::KILL))?;
                self.process.signal(Signal::KILL)?;
                self.process.wait(PATIENCE)?;
                children.iter().for_each(|child| child.reap(PATIENCE));
                return Ok(());
            }
        }
        self.process.wait(PATIENCE)?;
        Ok(())
    }
}

fn configuration(preempt: Preempt, is_multicast: bool) -> String {
    let preempt = if preempt == Preempt::Yes { "" } else { "nopreempt" };
    let peers = if is_multicast { "" } else { "unicast_src_ip 10.77.0.12\n  unicast_peer { 10.77.0.11 }" };
    format!(
        "global_defs {{
  router_id other
  vrrp_version 3
}}
vrrp_instance web {{
  state BACKUP
  {preempt}
  interface eth0
  virtual_router_id 51
  priority {PRIORITY}
  advert_int 0.1
  {peers}
  virtual_ipaddress {{
    10.77.0.100/24 dev eth0
  }}
}}
"
    )
}

/// Nobody else takes or loses the VIP for ten intervals.
fn expect_settled(scene: &Scene, holder: &str) -> Outcome {
    let is_alone = || Ok(scene.holders()? == [holder]);
    scene.holds_for(&format!("{holder} alone holds the VIP"), scene.interval * 10, is_alone)
}

/// Waits until `holder` has the VIP, and alone where its peer could still take it off.
fn wait_for_takeover(scene: &Scene, holder: &str, loss: Loss) -> Outcome {
    match loss {
        Loss::Stopped => scene.wait_for_holder(holder, PATIENCE),
        Loss::Killed => until(&format!("{holder} to take over"), PATIENCE, || Ok(scene.holds(holder)?.then_some(()))),
    }
}

fn keepalived_takes_over(scene: &mut Scene, loss: Loss) -> Outcome {
    scene.node_mut(BATON).start()?;
    scene.wait_for_role(BATON, Role::Active, PATIENCE)?;
    let keepalived = Keepalived::start(scene, Preempt::No)?;
    keepalived.wait_for_state("BACKUP")?;
    expect_settled(scene, BATON)?;
    match loss {
        Loss::Stopped => drop(scene.node_mut(BATON).stop(PATIENCE)?),
        Loss::Killed => scene.node_mut(BATON).kill_guard()?,
    }
    wait_for_takeover(scene, OTHER, loss)?;
    keepalived.wait_for_state("MASTER")?;
    // Baton comes back, hears keepalived, takes off what a killed guard left, and lets it be.
    scene.node_mut(BATON).start()?;
    scene.wait_for_role(BATON, Role::Standby, PATIENCE)?;
    scene.wait_for_holder(OTHER, PATIENCE)?;
    expect_settled(scene, OTHER)?;
    let heard = scene.vip(BATON)?.peer.expect("Baton hears keepalived");
    assert_eq!((heard.priority, heard.advert_interval_ms), (100, 100));
    assert!(scene.vip(BATON)?.adverts_dropped.is_empty(), "{:?}", scene.vip(BATON)?.adverts_dropped);
    Ok(())
}

fn baton_takes_over(scene: &mut Scene, loss: Loss) -> Outcome {
    let mut keepalived = Keepalived::start(scene, Preempt::No)?;
    keepalived.wait_for_state("MASTER")?;
    scene.node_mut(BATON).start()?;
    scene.wait_for_role(BATON, Role::Standby, PATIENCE)?;
    // Baton has the higher priority, and leaves the VIP where it is.
    expect_settled(scene, OTHER)?;
    keepalived.lose(loss)?;
    wait_for_takeover(scene, BATON, loss)?;
    let reason = scene.vip(BATON)?.reason;
    match loss {
        Loss::Stopped => assert_eq!(reason, "peer resigned"),
        Loss::Killed => assert!(reason.starts_with("no advert from the peer for "), "{reason}"),
    }
    scene.pair.wait_until_serving(PATIENCE)?;
    let back = Keepalived::start(scene, Preempt::No)?;
    back.wait_for_state("BACKUP")?;
    scene.wait_for_holder(BATON, PATIENCE)?;
    expect_settled(scene, BATON)
}

/// Both start at once and both preempt; whoever claims first, the one of higher priority has the VIP in the end.
fn priority_decides(scene: &mut Scene, winner: &str) -> Outcome {
    let keepalived = Keepalived::start(scene, Preempt::Yes)?;
    scene.node_mut(BATON).start()?;
    scene.wait_for_role(BATON, if winner == BATON { Role::Active } else { Role::Standby }, PATIENCE)?;
    keepalived.wait_for_state(if winner == OTHER { "MASTER" } else { "BACKUP" })?;
    scene.wait_for_holder(winner, PATIENCE)?;
    expect_settled(scene, winner)
}
