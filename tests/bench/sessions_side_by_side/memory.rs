//! What a million sessions cost: growth of the resident memory of all processes of a node, on both nodes. They are pushed
//! into Baton's real nodes over the sync link, from this process, and into HAProxy over its socket.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use baton::lab::pair::NODES;
use baton::lab::wait_for;

use crate::failover::end;
use crate::link::{LinkNode, Pairing};
use crate::report::Round;
use crate::rival::{Haproxy, wait_until_used};
use crate::stage::{KEY_BYTES, Running, Stage, System};

const ENTRIES: u32 = 1_000_000;
const VARIANT: &str = "1 million entries";

/// As short as keys can be that tell users from each other.
pub const SHORT_KEY_BYTES: u32 = 16;

/// Time for all of them to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time for a process to be done with what it was doing.
const REST: Duration = Duration::from_secs(2);

/// Bytes an entry costs Baton on each node.
pub fn baton(stage: &mut Stage) -> Result<Round> {
    let mut running = stage.start(System::Baton, false)?;
    let played = baton_bytes(stage, &mut running);
    let grown = end(stage, running, played)?;
    Ok(Round::new("memory", VARIANT, System::Baton)
        .with("bytes_an_entry", grown[0].max(grown[1]))
        .with("bytes_an_entry_on_the_better_node", grown[0].min(grown[1])))
}

fn baton_bytes(stage: &mut Stage, running: &mut Running) -> Result<[f64; 2]> {
    std::thread::sleep(REST);
    let before = [baton_resident(stage, NODES[0])?, baton_resident(stage, NODES[1])?];
    stage.stop_proxy(running, NODES[1])?;
    {
        let pairing = Pairing::of(stage)?;
        let pusher = LinkNode::new(&pairing, NODES[1]);
        pusher.fill(&pusher.keys(0, ENTRIES)?);
        let mut pusher = pusher;
        pusher.connect(stage, &pairing, NODES[1])?;
        wait_for_entries(stage, NODES[0])?;
    }
    stage.start_proxy(running, NODES[1])?;
    wait_for_entries(stage, NODES[1])?;
    wait_for("both nodes to be in sync", PATIENCE, || {
        NODES.iter().all(|node| stage.is_baton_in_sync(node)).then_some(())
    })?;
    std::thread::sleep(REST);
    let after = [baton_resident(stage, NODES[0])?, baton_resident(stage, NODES[1])?];
    Ok([0, 1].map(|node| bytes_an_entry(before[node], after[node])))
}

fn wait_for_entries(stage: &Stage, node: &str) -> Result<()> {
    let what = format!("{node} to have {ENTRIES} entries");
    Ok(wait_for(&what, PATIENCE, || {
        stage.baton_entries(node).is_ok_and(|entries| entries == u64::from(ENTRIES)).then_some(())
    })?)
}

/// Bytes an entry costs HAProxy on each node, with a table of strings of that length.
pub fn haproxy(stage: &mut Stage, key_bytes: u32) -> Result<Round> {
    let (directory, configuration) = (stage.next_directory(), stage.configuration(key_bytes));
    let topology = stage.pair.topology();
    let one = Haproxy::start_on(topology, &directory, NODES[0], &configuration)?;
    let other = Haproxy::start_on(topology, &directory, NODES[1], &configuration)?;
    let (mut near, mut far) = (one.admin()?, other.admin()?);
    near.wait_until_connected_to(NODES[1])?;
    std::thread::sleep(REST);
    let before = [resident(one.pid())?, resident(other.pid())?];
    near.fill(0, ENTRIES)?;
    wait_until_used(&mut far, u64::from(ENTRIES), PATIENCE)?;
    std::thread::sleep(REST);
    let after = [resident(one.pid())?, resident(other.pid())?];
    let grown = [0, 1].map(|node| bytes_an_entry(before[node], after[node]));
    let variant =
        if key_bytes == KEY_BYTES { VARIANT.to_owned() } else { format!("{VARIANT}, keys of {key_bytes} bytes") };
    Ok(Round::new("memory", variant, System::Haproxy)
        .with("bytes_an_entry", grown[0].max(grown[1]))
        .with("bytes_an_entry_on_the_better_node", grown[0].min(grown[1])))
}

fn bytes_an_entry(before: u64, after: u64) -> f64 {
    after.saturating_sub(before) as f64 / f64::from(ENTRIES)
}

/// Of all processes of a node.
fn baton_resident(stage: &Stage, node: &str) -> Result<u64> {
    stage.pair.node(node)?.processes().iter().map(|process| resident(process.pid())).sum()
}

/// Resident memory of a process, in bytes (proc(5), smaps_rollup).
fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next()?.parse().ok());
    kilobytes.map(|kilobytes: u64| kilobytes * 1024).with_context(|| format!("no Rss in {path}"))
}
