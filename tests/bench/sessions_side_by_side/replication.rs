//! How fast tables are copied: changes as fast as the peer takes them, the lag of changes at a pace, and a whole table for
//! a peer that has just connected. Baton's end of the link and the table, without guard and proxy, beside HAProxy's process,
//! whose socket is the fastest way to change its table; both over the same cable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton::lab::pair::NODES;
use baton::session::key::Key;

use crate::link::{LinkNode, Pairing, moment_when};
use crate::report::{Round, quantile};
use crate::rival::{Admin, Haproxy, wait_until_used};
use crate::stage::{KEY_BYTES, Stage, System};

/// Entries that are changed, and of a whole table.
const ENTRIES: u32 = 1_000_000;

/// How long changes are made at full speed, and how long at first nobody counts.
const FULL_SPEED: Duration = Duration::from_secs(6);
const WARM_UP: Duration = Duration::from_secs(1);

/// Changes that may wait for the peer: as many as it takes in some 50 ms.
const BACKLOG_MAX: usize = 50_000;

/// Changes a second when their lag is measured, and entries that the peer lacks at first.
const PACE: u32 = 20_000;
const LAG_ENTRIES: u32 = 100_000;

/// What counts as the beginning of a connection, and how long lag is measured in all.
const EARLY: Duration = Duration::from_secs(5);
const LAG_LENGTH: Duration = Duration::from_secs(10);

/// Time before the peer is started.
const LEAD: Duration = Duration::from_millis(300);

/// Time between two looks, and between two batches.
const LOOK_INTERVAL: Duration = Duration::from_micros(100);
const BATCH_INTERVAL: Duration = Duration::from_millis(1);

/// HAProxy's table can be asked for an entry, not for all: one of so many batches is looked for.
const SAMPLED_BATCHES: u32 = 10;

/// Time for anything to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Entries that arrive at the peer each second while changes are made as fast as it takes them.
pub fn throughput(stage: &mut Stage, system: System) -> Result<Round> {
    let round = Round::new("throughput", "changes at full speed", system);
    match system {
        System::Baton => baton_throughput(stage, round),
        System::Haproxy => {
            let (directory, configuration) = (stage.next_directory(), stage.configuration(KEY_BYTES));
            let topology = stage.pair.topology();
            let one = Haproxy::start_on(topology, &directory, NODES[0], &configuration)?;
            let other = Haproxy::start_on(topology, &directory, NODES[1], &configuration)?;
            let (mut near, mut far) = (one.admin()?, other.admin()?);
            near.wait_until_connected_to(NODES[1])?;
            let begun = Instant::now();
            near.fill(0, ENTRIES)?;
            let filled = begun.elapsed();
            let arrived = wait_until_used(&mut far, u64::from(ENTRIES), PATIENCE)? - begun;
            Ok(round
                .with("entries_a_second", f64::from(ENTRIES) / arrived.as_secs_f64())
                .with("changes_a_second", f64::from(ENTRIES) / filled.as_secs_f64()))
        }
    }
}

fn baton_throughput(stage: &Stage, round: Round) -> Result<Round> {
    let pairing = Pairing::of(stage)?;
    let near = LinkNode::start(stage, &pairing, NODES[0])?;
    let far = LinkNode::start(stage, &pairing, NODES[1])?;
    near.wait_until_in_sync()?;
    let keys = near.keys(0, ENTRIES)?;
    let stop = AtomicBool::new(false);
    let (begun, mut changes) = (Instant::now(), 0_u64);
    let arrivals = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch_arrivals(&far, &stop));
        let mut places = (0_u32..).flat_map(|turn| (0..keys.len()).map(move |place| (turn, place)));
        while begun.elapsed() < FULL_SPEED {
            if near.sessions.table.pending_changes() >= BACKLOG_MAX {
                std::thread::sleep(LOOK_INTERVAL);
                continue;
            }
            for (turn, place) in places.by_ref().take(256) {
                // Each turn gives a key to the next server, so that each is a change.
                near.put(&keys[place], turn);
            }
            changes += 256;
        }
        stop.store(true, Ordering::Relaxed);
        watch.join().map_err(|_| anyhow::anyhow!("the watching thread panicked"))
    })?;
    let written = begun.elapsed();
    let counted: Vec<_> = arrivals.iter().filter(|(at, _)| *at >= begun + WARM_UP).collect();
    let ((from, first), (to, last)) = counted.first().copied().zip(counted.last().copied()).context("arrivals")?;
    ensure!(to > from, "nothing arrived");
    moment_when("the last changes to arrive", PATIENCE, || {
        near.sessions.table.pending_changes() == 0 && near.status().lag_entries == 0
    })?;
    let differing = keys.iter().filter(|key| near.server(key) != far.server(key)).count();
    Ok(round
        .with("entries_a_second", (last - first) as f64 / (*to - *from).as_secs_f64())
        .with("changes_a_second", changes as f64 / written.as_secs_f64())
        .with("differing_entries_afterwards", differing as f64))
}

/// When the node said that so many entries had come, each time that it said so anew.
fn watch_arrivals(node: &LinkNode, stop: &AtomicBool) -> Vec<(Instant, u64)> {
    let mut arrivals = Vec::new();
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let received = node.status().entries_received;
        if received != last {
            arrivals.push((Instant::now(), received));
            last = received;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    arrivals
}

/// The time from a change to its presence at the peer, at 20,000 changes a second, from the moment that the nodes connect
/// and with a snapshot under way at first.
pub fn lag(stage: &mut Stage, system: System) -> Result<Round> {
    let measured = match system {
        System::Baton => baton_lag(stage)?,
        System::Haproxy => haproxy_lag(stage)?,
    };
    let (mut early, mut settled): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    for (at, lag) in &measured.lags {
        if *at < measured.connected + EARLY { early.push(*lag) } else { settled.push(*lag) }
    }
    let ms = |lags: &mut Vec<Duration>, share| quantile(lags, share).map_or(f64::NAN, |lag| lag.as_secs_f64() * 1e3);
    Ok(Round::new("lag", "20,000 changes a second", system)
        .with("changes_a_second", measured.pace.round())
        .with("first_5_s_p50_ms", ms(&mut early, 0.5))
        .with("first_5_s_p99_ms", ms(&mut early, 0.99))
        .with("first_5_s_max_ms", ms(&mut early, 1.0))
        .with("later_p50_ms", ms(&mut settled, 0.5))
        .with("later_p99_ms", ms(&mut settled, 0.99))
        .with("later_max_ms", ms(&mut settled, 1.0))
        .with("looked_for", measured.lags.len() as f64)
        .with("never_arrived", measured.missing as f64))
}

struct Lags {
    connected: Instant,
    /// When a change was made, and how long it took.
    lags: Vec<(Instant, Duration)>,
    missing: usize,
    /// Changes a second in fact.
    pace: f64,
}

/// Every change is looked for in the other table, ten thousand times a second.
fn baton_lag(stage: &Stage) -> Result<Lags> {
    let pairing = Pairing::of(stage)?;
    let near = LinkNode::start(stage, &pairing, NODES[0])?;
    near.fill(&near.keys(0, LAG_ENTRIES)?);
    let mut far = LinkNode::new(&pairing, NODES[1]);
    let keys = near.keys(1, PACE * u32::try_from((LAG_LENGTH + EARLY).as_secs())?)?;
    let (begun, interval) = (Instant::now(), Duration::from_secs(1) / PACE);
    let mut fresh = keys.iter().zip(0_u32..);
    let mut changes = 0_u32;
    let (mut connected, mut is_started) = (None::<Instant>, false);
    let (mut waiting, mut lags): (Vec<(&Key, Instant)>, Vec<_>) = (Vec::new(), Vec::new());
    loop {
        let now = Instant::now();
        if connected.is_some_and(|connected| now >= connected + LAG_LENGTH) {
            break;
        }
        ensure!(now < begun + PATIENCE, "the nodes do not connect");
        if !is_started && now >= begun + LEAD {
            far.connect(stage, &pairing, NODES[1])?;
            is_started = true;
        }
        if connected.is_none() && far.is_connected() {
            connected = Some(Instant::now());
        }
        while begun + interval * changes <= now {
            let (key, number) = fresh.next().context("keys enough")?;
            near.put(key, number);
            changes += 1;
            if connected.is_some() {
                waiting.push((key, Instant::now()));
            }
        }
        look_for(&far, &mut waiting, &mut lags);
        std::thread::sleep(LOOK_INTERVAL);
    }
    let pace = f64::from(changes) / begun.elapsed().as_secs_f64();
    let deadline = Instant::now() + EARLY;
    while !waiting.is_empty() && Instant::now() < deadline {
        look_for(&far, &mut waiting, &mut lags);
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(Lags { connected: connected.context("connected")?, lags, missing: waiting.len(), pace })
}

fn look_for(far: &LinkNode, waiting: &mut Vec<(&Key, Instant)>, lags: &mut Vec<(Instant, Duration)>) {
    waiting.retain(|(key, at)| {
        let is_there = far.server(key).is_some();
        if is_there {
            lags.push((*at, at.elapsed()));
        }
        !is_there
    });
}

/// The last entry of a batch every 10 ms is looked for over the other node's socket, one at a time.
fn haproxy_lag(stage: &mut Stage) -> Result<Lags> {
    let (directory, configuration) = (stage.next_directory(), stage.configuration(KEY_BYTES));
    let topology = stage.pair.topology();
    let near = Haproxy::start_on(topology, &directory, NODES[0], &configuration)?;
    let (mut changer, mut asker) = (near.admin()?, near.admin()?);
    changer.fill(0, LAG_ENTRIES)?;
    let stop = AtomicBool::new(false);
    let (sender, samples) = mpsc::channel();
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| change(&mut changer, sender, &stop));
        let played = (|| {
            std::thread::sleep(LEAD);
            let far = Haproxy::start_on(topology, &directory, NODES[1], &configuration)?;
            let mut looker = far.admin()?;
            let connected = asker.wait_until_connected_to(NODES[1])?;
            let (lags, missing) = look_over_socket(&mut looker, &samples, connected)?;
            Ok((connected, lags, missing))
        })();
        stop.store(true, Ordering::Relaxed);
        let pace = changing.join().map_err(|_| anyhow::anyhow!("the changing thread panicked"))??;
        let (connected, lags, missing) = played.map_err(|error: anyhow::Error| error)?;
        Ok(Lags { connected, lags, missing, pace })
    })
}

/// Makes changes at the pace, or as many as HAProxy takes, and says when some of them were made. Gives the pace in fact.
fn change(admin: &mut Admin, samples: mpsc::Sender<(u32, Instant)>, stop: &AtomicBool) -> Result<f64> {
    let batch = PACE / 1000;
    let (begun, mut batches) = (Instant::now(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep((begun + BATCH_INTERVAL * batches).saturating_duration_since(Instant::now()));
        let first = batches * batch;
        admin.set(1, first..first + batch, 1)?;
        batches += 1;
        if batches.is_multiple_of(SAMPLED_BATCHES) {
            // Nobody is left to take it at the end.
            let _late = samples.send((first + batch - 1, Instant::now()));
        }
    }
    Ok(f64::from(batches * batch) / begun.elapsed().as_secs_f64())
}

/// Looks for each of those that were changed once the nodes were connected. Also gives how many never came.
fn look_over_socket(
    admin: &mut Admin,
    samples: &mpsc::Receiver<(u32, Instant)>,
    connected: Instant,
) -> Result<(Vec<(Instant, Duration)>, usize)> {
    let (mut lags, mut missing) = (Vec::new(), 0);
    loop {
        let (user, at) = samples.recv().context("no more changes")?;
        if at < connected {
            continue;
        }
        if at >= connected + LAG_LENGTH {
            return Ok((lags, missing));
        }
        let name = crate::client::user_name(1, user);
        loop {
            if admin.has(&name)? {
                lags.push((at, at.elapsed()));
                break;
            }
            if at.elapsed() > EARLY {
                missing += 1;
                break;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

/// The time to bring a table of a million to a peer that has just connected, some times over.
pub fn snapshot(stage: &mut Stage, system: System, repetitions: u32) -> Result<Vec<Round>> {
    let round = || Round::new("snapshot", "1 million entries", system);
    let mut rounds = Vec::new();
    match system {
        System::Baton => {
            let pairing = Pairing::of(stage)?;
            let near = LinkNode::start(stage, &pairing, NODES[0])?;
            near.fill(&near.keys(0, ENTRIES)?);
            for _ in 0..repetitions {
                let started = Instant::now();
                let far = LinkNode::start(stage, &pairing, NODES[1])?;
                let connected = moment_when("a connection", PATIENCE, || far.is_connected())?;
                let arrived = moment_when("all entries", PATIENCE, || far.entries() == ENTRIES as usize)?;
                rounds.push(with_times(round(), started, connected, arrived));
            }
        }
        System::Haproxy => {
            let (directory, configuration) = (stage.next_directory(), stage.configuration(KEY_BYTES));
            let topology = stage.pair.topology();
            let near = Haproxy::start_on(topology, &directory, NODES[0], &configuration)?;
            let mut asker = near.admin()?;
            asker.fill(0, ENTRIES)?;
            for _ in 0..repetitions {
                let started = Instant::now();
                let mut far = Haproxy::start_on(topology, &directory, NODES[1], &configuration)?;
                let mut looker = far.admin()?;
                let connected = asker.wait_until_connected_to(NODES[1])?;
                let arrived = wait_until_used(&mut looker, u64::from(ENTRIES), PATIENCE)?;
                rounds.push(with_times(round(), started, connected, arrived));
                far.kill()?;
                moment_when("the end of the connection", PATIENCE, || {
                    asker.is_connected_to(NODES[1]).is_ok_and(|is_connected| !is_connected)
                })?;
            }
        }
    }
    Ok(rounds)
}

fn with_times(round: Round, started: Instant, connected: Instant, arrived: Instant) -> Round {
    let ms = |from: Instant| arrived.saturating_duration_since(from).as_secs_f64() * 1e3;
    round.with("from_start_ms", ms(started)).with("from_connected_ms", ms(connected))
}
