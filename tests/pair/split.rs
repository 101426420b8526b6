//! Two active nodes: the heartbeat alone is cut, and both are right to believe that they are alone.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use baton::lab::pair::{NODES, VIP};
use baton::status::Role;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, find_program};

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("healed_split_leaves_the_better_node_which_announces", heals),
        Plan::usual().multicast().trial("healed_split_leaves_the_better_node_over_multicast", heals),
    ]
}

/// Both hold the VIP while they cannot hear each other. Then the better one stays, and neighbours are told again,
/// since the other one's announcement may have been the last that they heard.
fn heals(scene: &mut Scene) -> Outcome {
    scene.form()?;
    let [better, lesser] = NODES;
    let cut = Instant::now();
    block_adverts(scene, &NODES)?;
    for node in NODES {
        scene.wait_for_role(node, Role::Active, PATIENCE)?;
    }
    assert_eq!(scene.holders()?, NODES);
    let capture = scene.capture(better)?;
    let of_lesser = scene.capture(lesser)?;
    // Those of its takeover are over then but for the last, which is five seconds after it.
    of_lesser.wait("two active nodes for a while", cut, 20, |seen| seen.priority() == Some(249))?;
    let healed = Instant::now();
    unblock_adverts(scene)?;
    scene.wait_for_holder(better, PATIENCE)?;
    let took = healed.elapsed();
    // Two intervals, and what nft, netlink and a busy machine take.
    assert!(took < scene.interval * 2 + Duration::from_millis(400), "it took {took:?}");
    capture.wait("the better node to announce again", healed, 1, |seen| seen.announces(VIP))?;
    assert_eq!(scene.formed()?, (better, lesser));
    let claims = of_lesser.since(healed + took + scene.interval);
    assert!(!claims.iter().any(|seen| seen.priority().is_some() || seen.announces(VIP)), "{claims:?}");
    Ok(())
}

/// Drops protocol 112 and the datagrams of the pair's link that come from these nodes, at the switch, and nothing else.
pub fn block_adverts(scene: &Scene, nodes: &[&str]) -> Outcome {
    let chain = |port: &&str| {
        format!(
            "chain from_{} {{ type filter hook ingress device \"{port}\" priority 0; ip protocol 112 drop; udp dport 7947 drop; }}\n",
            port.replace('-', "_")
        )
    };
    nft(scene, &format!("table netdev split {{\n{}}}\n", nodes.iter().map(chain).collect::<String>()))
}

/// Ends what [`block_adverts`] began.
pub fn unblock_adverts(scene: &Scene) -> Outcome {
    nft(scene, "delete table netdev split\n")
}

/// Gives the switch's packet filter rules.
pub fn nft(scene: &Scene, rules: &str) -> Outcome {
    let program = find_program("nft", "nftables")?;
    let mut command = scene.pair.topology().switch().command(&program);
    let mut child =
        command.args([Path::new("-f"), Path::new("-")]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe was asked for")?.write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft refused\n{rules}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
