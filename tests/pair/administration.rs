//! What operators say of servers: it holds on both nodes, whichever was told, and through restarts.

use std::process::Command;

use anyhow::ensure;
use baton::lab::pair::NODES;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, program, until};

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().patient().trial("drained_server_is_drained_on_both_nodes", drained_on_both_nodes),
        Plan::usual().patient().trial("drained_servers_survive_a_restart_of_both_nodes", drained_servers_survive),
        Plan::usual().patient().trial("node_that_comes_back_learns_what_was_said", node_that_comes_back_learns),
    ]
}

fn order(scene: &Scene, node: &str, order: &str) -> Outcome {
    let mut command = Command::new(program());
    command.args(["server", order, "app/web1"]).arg("--runtime-dir").arg(scene.node(node).runtime_dir());
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn wait_until(scene: &Scene, node: &str, admin: &str) -> Outcome {
    until(&format!("{node} to have the server {admin}"), PATIENCE, || {
        let pools = scene.status(node)?.pools;
        let server = pools.iter().flat_map(|pool| &pool.servers).find(|server| server.name == "web1");
        Ok(server.is_some_and(|server| server.admin == admin).then_some(()))
    })
}

fn drained_on_both_nodes(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    order(scene, active, "drain")?;
    NODES.iter().try_for_each(|node| wait_until(scene, node, "draining"))?;
    order(scene, standby, "disable")?;
    NODES.iter().try_for_each(|node| wait_until(scene, node, "disabled"))?;
    scene.node(standby).kill_worker()?;
    until("the next worker", PATIENCE, || {
        let worker = scene.status(standby)?.worker;
        Ok((worker.restarts == 1 && worker.state == "running").then_some(()))
    })?;
    wait_until(scene, standby, "disabled")?;
    order(scene, standby, "enable")?;
    NODES.iter().try_for_each(|node| wait_until(scene, node, "enabled"))
}

fn node_that_comes_back_learns(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    order(scene, active, "disable")?;
    wait_until(scene, standby, "disabled")?;
    scene.node_mut(standby).kill_all()?;
    order(scene, active, "drain")?;
    scene.node_mut(standby).start()?;
    wait_until(scene, standby, "draining")?;
    wait_until(scene, active, "draining")
}

/// Each node has something that the other one never heard of, or an older state.
fn drained_servers_survive(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    order(scene, active, "drain")?;
    wait_until(scene, standby, "draining")?;
    scene.node_mut(standby).stop(PATIENCE)?;
    order(scene, active, "disable")?;
    scene.node_mut(active).stop(PATIENCE)?;
    // The one with the older state first: the newer one stands as soon as the nodes meet.
    scene.node_mut(standby).start()?;
    wait_until(scene, standby, "draining")?;
    scene.node_mut(active).start()?;
    NODES.iter().try_for_each(|node| wait_until(scene, node, "disabled"))
}
