//! What replication costs requests: their latency through a node that takes 20,000 changes a second from its peer, and from
//! one that says nothing. The machine is shared with the peer, the servers and the clients, and so the same is measured with
//! that traffic between two others, of which the node knows nothing: what is left is what it costs the node.
//!
//! Which of the three it is changes every second, so that whatever else the machine does comes to all of them alike.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use baton::lab::pair::NODES;
use baton::session::key::Key;

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

/// Changes at a time, and the time between them.
const BATCH: u32 = PACE / 1000;
const BATCH_INTERVAL: Duration = Duration::from_millis(1);

/// Users that ask.
const ASKING: u32 = 10_000;

/// How long one thing lasts, and how much of it does not count.
const SLICE: Duration = Duration::from_secs(1);
const SLICE_LEAD: Duration = Duration::from_millis(100);

/// Time at first in which all who ask get their entry, and nothing counts.
const WARM_UP: Duration = Duration::from_secs(4);

/// Where changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    /// There are none.
    None = 0,
    /// To the node that is measured.
    Here = 1,
    /// To another machine.
    Elsewhere = 2,
}

impl Changes {
    const ALL: [Changes; 3] = [Changes::None, Changes::Here, Changes::Elsewhere];

    /// What the median and the 99th percentile are called.
    fn figures(self) -> (&'static str, &'static str) {
        match self {
            Changes::None => ("without_p50_us", "without_p99_us"),
            Changes::Here => ("with_p50_us", "with_p99_us"),
            Changes::Elsewhere => ("elsewhere_p50_us", "elsewhere_p99_us"),
        }
    }
}

/// A machine that has no part in it but that of a server, its end of a sync link, and the client's.
const ELSEWHERE: &str = "web3";
const ELSEWHERE_AT: &str = "10.77.0.23:7947";
const CLIENT_AT: &str = "10.77.0.50:0";

/// What those who make changes are told.
#[derive(Default)]
struct Orders {
    changes: AtomicU8,
    stop: AtomicBool,
}

/// Somebody whose peer takes changes.
enum Pusher {
    Link { node: LinkNode, keys: Vec<Key> },
    Socket(Admin),
}

/// Median and 99th percentile of the latency of requests, in microseconds, by what happens meanwhile: the median over slices.
pub fn latency(stage: &mut Stage, system: System, wishes: &Wishes) -> Result<Round> {
    let tag = stage.next_tag();
    let mut running = stage.start(system, false)?;
    let played = play(stage, &mut running, system, wishes, tag);
    end(stage, running, played)
}

fn play(stage: &mut Stage, running: &mut Running, system: System, wishes: &Wishes, tag: u32) -> Result<Round> {
    let (active, standby) = stage.active_and_standby()?;
    let directory = stage.next_directory();
    let slices = slices(wishes.latency_length);
    let latencies = match system {
        System::Baton => {
            // Its part is taken by this process.
            stage.stop_proxy(running, standby)?;
            let pairing = Pairing::of(stage)?;
            let here = Pusher::link(LinkNode::start(stage, &pairing, standby)?)?;
            let (pusher, _taker) = link_elsewhere(stage, &pairing, active, standby)?;
            measure(stage, here, Pusher::link(pusher)?, &slices, wishes, tag)?
        }
        System::Haproxy => {
            let here = Pusher::Socket(running.admin(standby)?);
            let (pusher, _taker) = haproxy_elsewhere(stage, &directory)?;
            measure(stage, here, Pusher::Socket(pusher.admin()?), &slices, wishes, tag)?
        }
    };
    let mut round = Round::new("latency", "20,000 changes a second", system);
    for changes in Changes::ALL {
        let of_it =
            slices.iter().zip(&latencies).filter(|(slice, _)| **slice == changes).map(|(_, latencies)| latencies);
        let over_slices = |share| {
            let mut each: Vec<u32> = of_it.clone().filter_map(|slice| quantile(&mut slice.clone(), share)).collect();
            quantile(&mut each, 0.5).map(f64::from).context("a slice without requests")
        };
        let (median, p99) = changes.figures();
        round = round.with(median, over_slices(0.5)?).with(p99, over_slices(0.99)?);
    }
    let p99 = |changes: Changes| round.figures[changes.figures().1];
    let over = |changes: Changes| (p99(Changes::Here) / p99(changes) - 1.0) * 100.0;
    let (over_none, over_elsewhere) = (over(Changes::None), over(Changes::Elsewhere));
    Ok(round.with("p99_over_without_percent", over_none).with("p99_over_elsewhere_percent", over_elsewhere))
}

/// What happens in each slice: all three in turn, in another order each time.
fn slices(length: Duration) -> Vec<Changes> {
    let turns = length.as_secs().max(1);
    let turn = |_| {
        let mut turn = Changes::ALL;
        fastrand::shuffle(&mut turn);
        turn
    };
    (0..turns).flat_map(turn).collect()
}

/// The latencies of the requests of each slice.
fn measure(
    stage: &Stage,
    here: Pusher,
    elsewhere: Pusher,
    slices: &[Changes],
    wishes: &Wishes,
    tag: u32,
) -> Result<Vec<Vec<u32>>> {
    let orders = Orders::default();
    let begun = Instant::now() + WARM_UP;
    let length = SLICE * u32::try_from(slices.len())?;
    std::thread::scope(|scope| {
        let here = scope.spawn(|| here.push(&orders, Changes::Here));
        let elsewhere = scope.spawn(|| elsewhere.push(&orders, Changes::Elsewhere));
        let asking = scope.spawn(|| {
            Steady::new(wishes.latency_rate, ASKING, begun - WARM_UP, WARM_UP + length).play(
                stage.client()?,
                USERS,
                tag,
            )
        });
        for (slice, number) in slices.iter().zip(0_u32..) {
            std::thread::sleep((begun + SLICE * number).saturating_duration_since(Instant::now()));
            orders.changes.store(*slice as u8, Ordering::Relaxed);
        }
        let asked = asking.join().map_err(|_| anyhow!("the clients' thread panicked"));
        orders.stop.store(true, Ordering::Relaxed);
        for pushing in [here, elsewhere] {
            let pace = pushing.join().map_err(|_| anyhow!("a pushing thread panicked"))??;
            ensure!(pace > f64::from(PACE) * 0.95, "only {pace:.0} changes a second");
        }
        let asked = asked??;
        ensure!(asked.failed == 0, "{} requests failed", asked.failed);
        let mut latencies = vec![Vec::new(); slices.len()];
        for (due, latency_us) in asked.latencies {
            let Some(at) = due.checked_duration_since(begun) else { continue };
            let slice = usize::try_from(at.as_nanos() / SLICE.as_nanos())?;
            if at >= SLICE * u32::try_from(slice)? + SLICE_LEAD && slice < slices.len() {
                latencies[slice].push(latency_us);
            }
        }
        Ok(latencies)
    })
}

impl Pusher {
    fn link(node: LinkNode) -> Result<Self> {
        node.wait_until_in_sync()?;
        Ok(Pusher::Link { keys: node.keys(u32::MAX, CHANGED)?, node })
    }

    /// Makes changes at the pace whenever it is told to, and gives the pace in fact.
    fn push(mut self, orders: &Orders, own: Changes) -> Result<f64> {
        let (mut batches, mut time) = (0_u32, Duration::ZERO);
        let mut next = Instant::now();
        while !orders.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            std::thread::sleep(next.saturating_duration_since(now));
            if orders.changes.load(Ordering::Relaxed) != own as u8 {
                next = now + BATCH_INTERVAL;
                continue;
            }
            self.change(batches)?;
            batches += 1;
            next += BATCH_INTERVAL;
            time += now.elapsed();
        }
        if let Pusher::Link { node, .. } = &self {
            ensure!(node.status().in_sync, "the sync link has ended: {:?}", node.status().last_error);
        }
        Ok(f64::from(batches * BATCH) / time.as_secs_f64())
    }

    /// Makes a batch of changes; each turn gives all to the next server.
    fn change(&mut self, batch: u32) -> Result<()> {
        let (first, turn) = (batch * BATCH % CHANGED, batch * BATCH / CHANGED);
        match self {
            Pusher::Link { node, keys } => {
                let keys = keys.iter().skip(first as usize).take(BATCH as usize);
                keys.for_each(|key| node.put(key, turn));
                Ok(())
            }
            Pusher::Socket(admin) => admin.set(u32::MAX, first..first + BATCH, u8::try_from(turn % 3 + 1)?),
        }
    }
}

/// Two nodes on machines that have no part in it. The first makes changes.
fn link_elsewhere(stage: &Stage, pairing: &Pairing, active: &str, standby: &str) -> Result<(LinkNode, LinkNode)> {
    let (mut pusher, mut taker) = (LinkNode::new(pairing, standby), LinkNode::new(pairing, active));
    let (listens, connects) = if active == NODES[0] { (&mut taker, &mut pusher) } else { (&mut pusher, &mut taker) };
    let (there, here) = (ELSEWHERE_AT.parse()?, CLIENT_AT.parse()?);
    listens.connect_at(stage.pair.topology().host(ELSEWHERE)?, pairing, NODES[0], (there, here))?;
    connects.connect_at(stage.client()?, pairing, NODES[1], (here, there))?;
    Ok((pusher, taker))
}

/// The same with HAProxy.
fn haproxy_elsewhere(stage: &Stage, directory: &Path) -> Result<(Haproxy, Haproxy)> {
    let configuration = stage.configuration(KEY_BYTES);
    let configuration = configuration.replace("10.77.0.11:", "10.77.0.50:").replace("10.77.0.12:", "10.77.0.23:");
    let taker = Haproxy::start(stage.client()?, directory, NODES[0], &configuration)?;
    let pusher = Haproxy::start(stage.pair.topology().host(ELSEWHERE)?, directory, NODES[1], &configuration)?;
    pusher.admin()?.wait_until_connected_to(NODES[0])?;
    Ok((pusher, taker))
}
