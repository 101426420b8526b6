//! What operators say of servers: it holds on both nodes, whichever was told, and through restarts.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use baton::lab::load::ask_once;
use baton::lab::pair::{NODES, TARGET};
use libtest_mimic::Trial;

use crate::handover::{baton, said};
use crate::scene::{Outcome, PATIENCE, Plan, Scene, program, until};

/// The servers of the file, where the third one is not in it.
const TWO: [&str; 2] = ["web1", "web2"];

pub fn trials() -> Vec<Trial> {
    let without_web3 = || Plan::usual().patient().edit("  { name = \"web3\", address = \"10.77.0.23:8080\" },\n", "");
    vec![
        without_web3().trial("added_server_serves_after_a_failover_and_a_restart_of_both", added_server_serves),
        without_web3().trial("server_that_is_not_to_be_kept_is_gone_after_a_restart_of_both", added_server_is_gone),
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

fn order_of(scene: &Scene, node: &str, arguments: &[&str]) -> Outcome {
    let output = baton(scene, node, &[&["server"], arguments].concat())?;
    ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    Ok(())
}

/// Waits until both nodes have these servers, all of them up.
fn wait_for_servers(scene: &Scene, names: &[&str]) -> Outcome {
    NODES.iter().try_for_each(|node| {
        until(&format!("{node} to have the servers {names:?}"), PATIENCE, || {
            let status = scene.status(node)?;
            let servers = status.pools.iter().flat_map(|pool| &pool.servers).filter(|server| server.up);
            Ok(servers.map(|server| server.name.as_str()).eq(names.iter().copied()).then_some(()))
        })
    })
}

/// Has all requests go to what was added.
fn disable_the_others(scene: &Scene, node: &str) -> Outcome {
    TWO.iter().try_for_each(|name| order_of(scene, node, &["disable", &format!("app/{name}")]))?;
    NODES.iter().try_for_each(|node| wait_until(scene, node, "disabled"))
}

fn wait_for_answer_of(scene: &Scene, name: &str) -> Outcome {
    until(&format!("an answer of {name}"), PATIENCE, || {
        let answer = ask_once(scene.pair.client()?, TARGET, Duration::from_millis(500))?;
        Ok((answer == Ok(Some(name.to_owned()))).then_some(()))
    })
}

fn restart_both(scene: &mut Scene) -> Outcome {
    for node in NODES {
        scene.node_mut(node).stop(PATIENCE)?;
    }
    NODES.iter().try_for_each(|node| Ok(scene.node_mut(node).start()?))
}

fn added_server_serves(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    wait_for_servers(scene, &TWO)?;
    order_of(scene, active, &["add", "app/web3", "10.77.0.23:8080", "--keep"])?;
    wait_for_servers(scene, &["web1", "web2", "web3"])?;
    disable_the_others(scene, active)?;
    wait_for_answer_of(scene, "web3")?;
    scene.node_mut(active).kill_guard()?;
    scene.wait_for_holder(standby, PATIENCE)?;
    wait_for_answer_of(scene, "web3")?;
    scene.node_mut(active).start()?;
    wait_for_servers(scene, &["web1", "web2", "web3"])?;
    restart_both(scene)?;
    let (active, standby) = scene.formed()?;
    wait_for_servers(scene, &["web1", "web2", "web3"])?;
    wait_for_answer_of(scene, "web3")?;
    // Removed where it was not added, and kept so.
    order_of(scene, standby, &["enable", "app/web1"])?;
    order_of(scene, standby, &["remove", "app/web3"])?;
    wait_for_servers(scene, &TWO)?;
    wait_for_answer_of(scene, "web1")?;
    order_of(scene, active, &["remove", "app/web2", "--keep"])?;
    wait_for_servers(scene, &["web1"])?;
    restart_both(scene)?;
    wait_for_servers(scene, &["web1"])
}

fn added_server_is_gone(scene: &mut Scene) -> Outcome {
    let (_, standby) = scene.form()?;
    order_of(scene, standby, &["add", "app/web3", "10.77.0.23:8080"])?;
    wait_for_servers(scene, &["web1", "web2", "web3"])?;
    // As long as one of the nodes runs, both have it.
    scene.node_mut(standby).kill_all()?;
    scene.node_mut(standby).start()?;
    wait_for_servers(scene, &["web1", "web2", "web3"])?;
    restart_both(scene)?;
    wait_for_servers(scene, &TWO)
}
