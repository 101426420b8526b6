//! Planned moves: `baton switchover`, and what `baton explain` says before and after.

use std::process::Output;
use std::time::Duration;

use baton::lab::load::{Load, LoadSpec};
use baton::lab::pair::{NODES, SERVERS, TARGET};
use baton::status::Role;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, program, until};

/// How long nothing may have failed before a move, and after it.
const QUIET_TIME: Duration = Duration::from_millis(300);

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("switchover_moves_the_vip_from_either_node", moves_from_either_node),
        Plan::every_ms(1_000).trial("switchover_takes_no_interval_and_fails_no_client", fails_no_client),
        Plan::usual().trial("switchover_to_a_dead_peer_is_refused", refused_without_a_peer),
        Plan::usual().trial("switchover_to_an_unfit_peer_is_refused", refused_to_an_unfit_peer),
        Plan::usual().trial("switchover_of_an_unknown_vip_is_refused", refused_for_an_unknown_vip),
        Plan::usual()
            .prefer(NODES[0])
            .trial("switchover_away_from_the_preferred_node_stays", stays_away_from_the_preferred),
        Plan::usual().trial("explain_says_why_a_vip_is_where_it_is", explains),
    ]
}

/// Runs a command of `baton` about a node.
pub fn baton(scene: &Scene, node: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = std::process::Command::new(program());
    command.args(arguments).arg("--runtime-dir").arg(scene.node(node).runtime_dir());
    Ok(command.output()?)
}

/// What it said.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The link of the pair has to be up before anything is asked over it.
fn form_with_link(scene: &mut Scene) -> anyhow::Result<(&'static str, &'static str)> {
    let (active, standby) = scene.form()?;
    for node in [active, standby] {
        until(&format!("{node} to hear the other over the link"), PATIENCE, || {
            Ok(scene.vip(node)?.peer_says.filter(|says| says.fit).map(|_| ()))
        })?;
    }
    Ok((active, standby))
}

fn moves_from_either_node(scene: &mut Scene) -> Outcome {
    let (active, standby) = form_with_link(scene)?;
    let output = baton(scene, active, &["switchover"])?;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "vip web is standby here now\n");
    scene.wait_for_holder(standby, PATIENCE)?;
    scene.wait_for_role(active, Role::Standby, PATIENCE)?;
    assert_eq!(scene.vip(standby)?.reason, "peer handed over");
    assert_eq!(scene.vip(active)?.reason, "handed over to the peer");
    // The same node asks to have it back.
    scene.formed()?;
    let output = baton(scene, active, &["switchover", "web"])?;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "vip web is active here now\n");
    scene.wait_for_holder(active, PATIENCE)?;
    for node in NODES {
        let refused = scene.vip(node)?.adverts_dropped;
        assert!(refused.is_empty(), "{node} refused what the other said: {refused:?}");
    }
    Ok(())
}

/// The standby claims first, so no client waits for an interval, which is a second here.
fn fails_no_client(scene: &mut Scene) -> Outcome {
    let (active, standby) = form_with_link(scene)?;
    let servers = SERVERS.iter().map(|name| (*name).to_owned()).collect();
    let spec = LoadSpec { busy_connections: 0, users: 0, ..LoadSpec::steady(TARGET, servers) };
    let load = Load::start(scene.pair.client()?, spec)?;
    until("clients to be served in peace", PATIENCE, || Ok(load.is_quiet(QUIET_TIME).then_some(())))?;
    let from = std::time::Instant::now();
    let output = baton(scene, active, &["switchover"])?;
    assert!(output.status.success(), "{}", said(&output));
    scene.wait_for_holder(standby, PATIENCE)?;
    until("clients to be served in peace", PATIENCE, || Ok(load.is_quiet(QUIET_TIME).then_some(())))?;
    let gap = load.window(from, std::time::Instant::now()).outage.length;
    assert!(gap < scene.interval / 2, "clients went without service for {gap:?}");
    Ok(())
}

fn refused_without_a_peer(scene: &mut Scene) -> Outcome {
    let (active, standby) = form_with_link(scene)?;
    scene.node_mut(standby).kill_all()?;
    until("the silence of the peer to show", PATIENCE, || {
        let output = baton(scene, active, &["switchover"])?;
        Ok((said(&output) == "vip web was not moved: the peer does not answer\n" && !output.status.success())
            .then_some(()))
    })?;
    assert_eq!(scene.holders()?, [active]);
    Ok(())
}

fn refused_to_an_unfit_peer(scene: &mut Scene) -> Outcome {
    let (active, standby) = form_with_link(scene)?;
    scene.node_mut(standby).hang_worker()?;
    scene.wait_for_role(standby, Role::Unfit, PATIENCE)?;
    until("the peer to be told of", PATIENCE, || {
        Ok(scene.vip(active)?.peer_says.filter(|says| !says.fit).map(|_| ()))
    })?;
    let output = baton(scene, active, &["switchover"])?;
    assert!(!output.status.success());
    assert_eq!(said(&output), "vip web was not moved: the peer is not fit\n");
    scene.node_mut(standby).wake_worker();
    scene.holds_for("the VIP stays", scene.interval * 5, || Ok(scene.holders()? == [active]))
}

fn refused_for_an_unknown_vip(scene: &mut Scene) -> Outcome {
    let (active, _) = form_with_link(scene)?;
    let output = baton(scene, active, &["switchover", "wbe"])?;
    assert!(!output.status.success());
    assert!(said(&output).contains("there is no vip wbe; this node has web"), "{}", said(&output));
    Ok(())
}

/// What an operator moves stays moved, until the node that holds it fails.
fn stays_away_from_the_preferred(scene: &mut Scene) -> Outcome {
    form_with_link(scene)?;
    let [active, standby] = NODES;
    scene.wait_for_holder(active, PATIENCE)?;
    let output = baton(scene, active, &["switchover"])?;
    assert!(output.status.success(), "{}", said(&output));
    scene.wait_for_holder(standby, PATIENCE)?;
    scene.holds_for("it stays", Duration::from_secs(2), || Ok(scene.holders()? == [standby]))
}

fn explains(scene: &mut Scene) -> Outcome {
    let (active, standby) = form_with_link(scene)?;
    let output = baton(scene, active, &["explain"])?;
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let (this, other) = (format!("This node, {active}, has held it for"), format!("The peer, {standby}, said"));
    let sync = format!("Sessions with {standby}: in sync for");
    for sentence in [
        "vip web (10.77.0.100/24 on eth0)",
        this.as_str(),
        other.as_str(),
        sync.as_str(),
        "that it is standby and fit",
        "Path vrrp ipv4 on eth0:",
        "Path link 10.77.0.1",
        "whoever holds the vip keeps it until it fails or `baton switchover` moves it",
    ] {
        assert!(text.contains(sentence), "{sentence:?} is missing in\n{text}");
    }
    let text = said(&baton(scene, standby, &["explain", "web"])?);
    assert!(text.contains(&format!("This node, {standby}, has been its standby for")), "{text}");
    assert!(text.contains("It claims the vip when every path has been silent for 302 ms"), "{text}");
    let output = baton(scene, standby, &["explain", "other"])?;
    assert!(!output.status.success());
    assert!(said(&output).contains("there is no vip other; this node has web"), "{}", said(&output));
    Ok(())
}
