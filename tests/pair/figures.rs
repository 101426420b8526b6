//! How long clients go without service: a new connection every 2 ms through the VIP, and the longest time between two
//! good answers.
//!
//! The machine is shared and small, and noise only ever makes a gap longer. So each event is repeated, and fails only
//! when not one of five gaps is within its figure; all of them are printed. `BATON_BIN` names a release build where
//! the figures themselves matter.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use baton::lab::load::{Load, LoadSpec};
use baton::lab::pair::{SERVERS, TARGET};
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};

/// How often an event is played at least...
const ROUNDS_MIN: usize = 3;
/// ...and at most, while no gap is within its figure.
const ROUNDS_MAX: usize = 5;

/// How long nothing may have failed before an event begins.
const QUIET_TIME: Duration = Duration::from_millis(300);

/// How the active node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    WorkerKilled,
    CableCut,
    GuardKilled,
    Stopped,
    NodeGone,
}

/// A line for each event played, printed in the end.
static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Event {
    fn title(self) -> &'static str {
        match self {
            Event::WorkerKilled => "worker killed",
            Event::CableCut => "cable cut at the switch",
            Event::GuardKilled => "guard killed",
            Event::Stopped => "clean stop",
            Event::NodeGone => "node gone",
        }
    }
}

/// Prints the figures of the events that were played.
pub fn print_table() {
    let table = TABLE.lock().unwrap();
    if !table.is_empty() {
        println!("time without service, a new connection every 2 ms\n");
        println!("| event                    | advert | min    | median | max    | limit  | rounds |");
        println!("|---|---|---|---|---|---|---|");
        table.iter().for_each(|row| println!("{row}"));
    }
}

pub fn trials() -> Vec<Trial> {
    let events = [
        ("clients_miss_at_most_50_ms_when_the_worker_is_killed", Event::WorkerKilled, 100, 50),
        ("clients_miss_at_most_400_ms_when_the_cable_is_cut", Event::CableCut, 100, 400),
        ("clients_miss_at_most_400_ms_when_the_guard_is_killed", Event::GuardKilled, 100, 400),
        ("clients_miss_at_most_50_ms_at_a_clean_stop", Event::Stopped, 100, 50),
        ("clients_miss_at_most_60_ms_when_the_node_is_gone_at_10_ms", Event::NodeGone, 10, 60),
    ];
    let trial = |(name, event, interval_ms, limit_ms)| {
        let limit = Duration::from_millis(limit_ms);
        Plan::every_ms(interval_ms).trial(name, move |scene| stays_within(scene, event, limit))
    };
    events.into_iter().map(trial).collect()
}

fn stays_within(scene: &mut Scene, event: Event, limit: Duration) -> Outcome {
    scene.form()?;
    let servers = SERVERS.iter().map(|name| (*name).to_owned()).collect();
    let spec = LoadSpec { busy_connections: 0, users: 0, ..LoadSpec::steady(TARGET, servers) };
    let load = Load::start(scene.pair.client()?, spec)?;
    let mut gaps = Vec::new();
    while gaps.len() < ROUNDS_MIN || (gaps.len() < ROUNDS_MAX && gaps.iter().all(|gap| *gap > limit)) {
        gaps.push(play(scene, &load, event)?);
    }
    gaps.sort_unstable();
    let (best, median, worst) = (gaps[0], gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    let ms = |time: Duration| time.as_millis();
    let row = format!(
        "| {:<24} | {:>3} ms | {:>3} ms | {:>3} ms | {:>3} ms | {:>3} ms | {} |",
        event.title(),
        ms(scene.interval),
        ms(best),
        ms(median),
        ms(worst),
        ms(limit),
        gaps.len()
    );
    TABLE.lock().unwrap().push(row);
    assert!(best <= limit, "{event:?}: not one of {gaps:?} is within {limit:?}");
    Ok(())
}

/// Loses the active node once and brings it back. The time without service.
fn play(scene: &mut Scene, load: &Load, event: Event) -> anyhow::Result<Duration> {
    let (active, standby) = scene.formed()?;
    wait_for_servers(scene, standby)?;
    until("clients to be served in peace", PATIENCE, || Ok(load.is_quiet(QUIET_TIME).then_some(())))?;
    let from = Instant::now();
    strike(scene, event, active)?;
    until("the other node to hold the VIP", PATIENCE, || Ok(scene.holds(standby)?.then_some(())))?;
    let moved = Instant::now();
    until("service to come back", PATIENCE, || Ok(load.answered_since(moved).then_some(())))?;
    let window = load.window(from, Instant::now());
    repair(scene, event, active)?;
    assert_eq!(scene.formed()?, (standby, active));
    Ok(window.outage.length)
}

/// Waits until the last check of every server was good. After its cable was out, a machine asks for the hardware
/// addresses of its servers once a second, and until they answer has nothing to serve.
fn wait_for_servers(scene: &Scene, node: &str) -> Outcome {
    until(&format!("{node} to reach its servers"), PATIENCE, || {
        let servers = scene.status(node)?.pools.into_iter().flat_map(|pool| pool.servers);
        let good = servers.filter(|server| server.up && server.last_check.starts_with("status 200")).count();
        Ok((good == SERVERS.len()).then_some(()))
    })
}

fn strike(scene: &mut Scene, event: Event, active: &str) -> Outcome {
    match event {
        Event::WorkerKilled => scene.node(active).kill_worker()?,
        Event::CableCut => scene.pair.topology().cut_cable(active)?,
        Event::GuardKilled => scene.node_mut(active).kill_guard()?,
        Event::Stopped => scene.node_mut(active).ask_to_stop()?,
        Event::NodeGone => {
            scene.pair.topology().cut_cable(active)?;
            scene.node_mut(active).kill_guard()?;
        }
    }
    Ok(())
}

fn repair(scene: &mut Scene, event: Event, node: &str) -> Outcome {
    match event {
        Event::WorkerKilled => {}
        Event::CableCut => {
            scene.pair.topology().restore_cable(node)?;
            scene.pair.topology().wait_until_linked(node)?;
        }
        Event::GuardKilled => scene.node_mut(node).start()?,
        Event::Stopped => {
            let status = scene.node_mut(node).wait_stopped(PATIENCE)?;
            assert_eq!(status.code(), Some(0));
            scene.node_mut(node).start()?;
        }
        Event::NodeGone => {
            scene.pair.topology().restore_cable(node)?;
            scene.pair.topology().wait_until_linked(node)?;
            scene.node_mut(node).start()?;
        }
    }
    Ok(())
}
