//! What replication costs requests: their latency through a node that takes 20,000 changes a second from its peer, and
//! without a peer. The machine is shared with the peer, the servers and the clients, and so the same is measured for Baton
//! with that traffic between two others, of which the node knows nothing: what is left is what it costs the node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton::lab::pair::NODES;

use crate::failover::end;
use crate::link::{LinkNode, Pairing};
use crate::report::{Round, quantile};
use crate::stage::{Running, Stage, System};
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
    let (active, standby) = stage.active_and_standby()?;
    if system == System::Baton {
        // Its part is taken by this process.
        stage.stop_proxy(running, standby)?;
    }
    let mut none = measure(stage, running, system, (active, standby), Changes::None, wishes, tag)?;
    let mut here = measure(stage, running, system, (active, standby), Changes::Here, wishes, tag)?;
    let us = |latencies: &mut Vec<u32>, share| quantile(latencies, share).map_or(f64::NAN, f64::from);
    let (none_p99, here_p99) = (us(&mut none, 0.99), us(&mut here, 0.99));
    let mut round = Round::new("latency", "20,000 changes a second", system)
        .with("without_p50_us", us(&mut none, 0.5))
        .with("without_p99_us", none_p99)
        .with("with_p50_us", us(&mut here, 0.5))
        .with("with_p99_us", here_p99)
        .with("p99_over_without_percent", (here_p99 / none_p99 - 1.0) * 100.0);
    if system == System::Baton {
        let mut elsewhere = measure(stage, running, system, (active, standby), Changes::Elsewhere, wishes, tag)?;
        let elsewhere_p99 = us(&mut elsewhere, 0.99);
        round = round
            .with("elsewhere_p50_us", us(&mut elsewhere, 0.5))
            .with("elsewhere_p99_us", elsewhere_p99)
            .with("p99_over_elsewhere_percent", (here_p99 / elsewhere_p99 - 1.0) * 100.0);
    }
    Ok(round)
}

fn measure(
    stage: &Stage,
    running: &Running,
    system: System,
    (active, standby): (&'static str, &'static str),
    changes: Changes,
    wishes: &Wishes,
    tag: u32,
) -> Result<Vec<u32>> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| match (changes, system) {
            (Changes::None, _) => Ok(0.0),
            (_, System::Haproxy) => push_to_haproxy(running, standby, &stop),
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

/// Over the socket of the standby, whose peer is the active one.
fn push_to_haproxy(running: &Running, standby: &str, stop: &AtomicBool) -> Result<f64> {
    let mut admin = running.admin(standby).context("HAProxy's socket")?;
    let (batch, begun, mut batches) = (PACE / 1000, Instant::now(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep((begun + BATCH_INTERVAL * batches).saturating_duration_since(Instant::now()));
        let first = batches * batch % CHANGED;
        admin.set(u32::MAX, first..first + batch, u8::try_from(batches * batch / CHANGED % 3 + 1)?)?;
        batches += 1;
    }
    Ok(f64::from(batches * batch) / begun.elapsed().as_secs_f64())
}
