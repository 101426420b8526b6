//! What replication costs requests: their latency through a node that takes 20,000 changes a second from its peer, and
//! without a peer. The machine is shared with the peer, the servers and the clients, and so the same is measured with that
//! traffic between two others, of which the node knows nothing: what is left is what it costs the node.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use baton::lab::pair::NODES;

use crate::failover::end;
use crate::link::{LinkNode, Pairing};
use crate::report::{Round, quantile};
use crate::rival::{Admin, Haproxy};
use crate::stage::{KEY_BYTES, Running, Stage, System};
use crate::users::Steady;
use crate::{USERS, Wishes};

/// Changes a second, and the entries that are changed.
const PACE: u32 = 20_000;
const CHANGED: u32 = 200_000;

/// Users that ask.
const ASKING: u32 = 10_000;

/// Time between two batches of changes.
const BATCH_INTERVAL: Duration = Duration::from_millis(1);

/// Time before the first request counts.
const SETTLE: Duration = Duration::from_secs(1);

/// Where changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    /// There are none, and no peer.
    None,
    /// To the node that is measured.
    Here,
    /// To another machine.
    Elsewhere,
}

impl Changes {
    /// What the median and the 99th percentile are called.
    fn figures(self) -> (&'static str, &'static str) {
        match self {
            Changes::None => ("without_p50_us", "without_p99_us"),
            Changes::Here => ("with_p50_us", "with_p99_us"),
            Changes::Elsewhere => ("elsewhere_p50_us", "elsewhere_p99_us"),
        }
    }
}

/// A machine that has no part in it but that of a server, and its end of a sync link.
const ELSEWHERE: &str = "web3";
const ELSEWHERE_AT: &str = "10.77.0.23:7947";

/// Median and 99th percentile of the latency of requests, in microseconds, by what happens meanwhile.
pub fn latency(stage: &mut Stage, system: System, wishes: &Wishes) -> Result<Round> {
    let tag = stage.next_tag();
    let mut running = stage.start(system, false)?;
    let played = play(stage, &mut running, system, wishes, tag);
    end(stage, running, played)
}

fn play(stage: &mut Stage, running: &mut Running, system: System, wishes: &Wishes, tag: u32) -> Result<Round> {
    let nodes = stage.active_and_standby()?;
    if system == System::Baton {
        // Its part is taken by this process.
        stage.stop_proxy(running, nodes.1)?;
    }
    let mut order = [Changes::None, Changes::Here, Changes::Elsewhere];
    fastrand::shuffle(&mut order);
    let mut round = Round::new("latency", "20,000 changes a second", system);
    for changes in order {
        let mut latencies = measure(stage, running, system, nodes, changes, wishes, tag)?;
        let mut us = |share| quantile(&mut latencies, share).map_or(f64::NAN, f64::from);
        let (median, p99) = changes.figures();
        round = round.with(median, us(0.5)).with(p99, us(0.99));
    }
    let p99 = |changes: Changes| round.figures[changes.figures().1];
    let over = |changes: Changes| (p99(Changes::Here) / p99(changes) - 1.0) * 100.0;
    let (over_none, over_elsewhere) = (over(Changes::None), over(Changes::Elsewhere));
    Ok(round.with("p99_over_without_percent", over_none).with("p99_over_elsewhere_percent", over_elsewhere))
}

fn measure(
    stage: &mut Stage,
    running: &Running,
    system: System,
    (active, standby): (&'static str, &'static str),
    changes: Changes,
    wishes: &Wishes,
    tag: u32,
) -> Result<Vec<u32>> {
    let stop = AtomicBool::new(false);
    let directory = stage.next_directory();
    let stage = &*stage;
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| match (changes, system) {
            (Changes::None, _) => Ok(0.0),
            (Changes::Here, System::Haproxy) => push_over_socket(running.admin(standby)?, &stop),
            (Changes::Elsewhere, System::Haproxy) => push_to_other_haproxy(stage, &directory, &stop),
            (Changes::Here, System::Baton) => push_to_node(stage, standby, &stop),
            (Changes::Elsewhere, System::Baton) => push_elsewhere(stage, active, standby, &stop),
        });
        let asked = (|| {
            // All have their entry before it counts, and what connects has connected.
            Steady::new(wishes.latency_rate, ASKING, SETTLE * 4).play(stage.client()?, USERS, tag)?;
            let steady = Steady::new(wishes.latency_rate, ASKING, wishes.latency_length);
            steady.play(stage.client()?, USERS, tag)
        })();
        stop.store(true, Ordering::Relaxed);
        let pace = pushing.join().map_err(|_| anyhow::anyhow!("the pushing thread panicked"))??;
        let asked = asked?;
        ensure!(asked.failed == 0, "{} requests failed", asked.failed);
        ensure!(changes == Changes::None || pace > f64::from(PACE) * 0.95, "only {pace:.0} changes a second");
        Ok(asked.latencies_us)
    })
}

/// This process takes the standby's place.
fn push_to_node(stage: &Stage, standby: &str, stop: &AtomicBool) -> Result<f64> {
    let pairing = Pairing::of(stage)?;
    let pusher = LinkNode::start(stage, &pairing, standby)?;
    push(&pusher, stop)
}

fn push_elsewhere(stage: &Stage, active: &str, standby: &str, stop: &AtomicBool) -> Result<f64> {
    let pairing = Pairing::of(stage)?;
    let (mut pusher, mut taker) = (LinkNode::new(&pairing, standby), LinkNode::new(&pairing, active));
    // The first node of the configuration listens, and it must not be in the way of the one that does so already.
    let (listens, connects) = if active == NODES[0] { (&mut taker, &mut pusher) } else { (&mut pusher, &mut taker) };
    let topology = stage.pair.topology();
    let (there, here) = (ELSEWHERE_AT.parse()?, "10.77.0.50:0".parse()?);
    listens.connect_at(topology.host(ELSEWHERE)?, &pairing, NODES[0], (there, here))?;
    connects.connect_at(stage.client()?, &pairing, NODES[1], (here, there))?;
    push(&pusher, stop)
}

/// Changes entries at the pace until it is told to stop, and gives the pace in fact.
fn push(pusher: &LinkNode, stop: &AtomicBool) -> Result<f64> {
    let keys = pusher.keys(u32::MAX, CHANGED)?;
    pusher.wait_until_in_sync()?;
    let begun = Instant::now();
    let mut batches = 0_u32;
    let mut places = (0_u32..).flat_map(|turn| (0..keys.len()).map(move |place| (turn, place)));
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep((begun + BATCH_INTERVAL * batches).saturating_duration_since(Instant::now()));
        for (turn, place) in places.by_ref().take(PACE as usize / 1000) {
            pusher.put(&keys[place], turn);
        }
        batches += 1;
    }
    ensure!(pusher.status().in_sync, "the sync link has ended: {:?}", pusher.status().last_error);
    Ok(f64::from(batches * (PACE / 1000)) / begun.elapsed().as_secs_f64())
}

/// Two more of them, on machines that have no part in it, which are the nodes of a pair of their own.
fn push_to_other_haproxy(stage: &Stage, directory: &Path, stop: &AtomicBool) -> Result<f64> {
    let configuration = stage.configuration(KEY_BYTES);
    let configuration = configuration.replace("10.77.0.11:", "10.77.0.50:").replace("10.77.0.12:", "10.77.0.23:");
    let taker = Haproxy::start(stage.client()?, directory, NODES[0], &configuration)?;
    let pusher = Haproxy::start(stage.pair.topology().host(ELSEWHERE)?, directory, NODES[1], &configuration)?;
    let mut admin = pusher.admin()?;
    admin.wait_until_connected_to(NODES[0])?;
    let pace = push_over_socket(admin, stop);
    drop(taker);
    pace
}

/// Over the socket of one whose peer is to take the changes.
fn push_over_socket(mut admin: Admin, stop: &AtomicBool) -> Result<f64> {
    let (batch, begun, mut batches) = (PACE / 1000, Instant::now(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep((begun + BATCH_INTERVAL * batches).saturating_duration_since(Instant::now()));
        let first = batches * batch % CHANGED;
        admin.set(u32::MAX, first..first + batch, u8::try_from(batches * batch / CHANGED % 3 + 1)?)?;
        batches += 1;
    }
    Ok(f64::from(batches * batch) / begun.elapsed().as_secs_f64())
}
