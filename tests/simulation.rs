//! Two nodes on a bad network, in virtual time, from a seed: what holds whatever happens, and how soon calm returns.
//!
//! `BATON_SEEDS=10000 cargo test --release --test simulation` tries that many seeds, 500 if not told.
//! `BATON_SEED=7 cargo test --release --test simulation -- --nocapture` replays one with a trace of its events.
//!
//! A run starts two nodes and lets faults and calm alternate. They have one or two networks for adverts, hellos or not,
//! signed adverts or not, a witness or not. The checks of `checks.rs` run after every event, among them: a node claims out
//! of silence only if every path was silent; what an attacker sends gets nowhere; with a witness, two processes that run
//! never hold the VIP, except where one takes it from the other by intent.
//!
//! Once calm, with one path dead or the witness out of reach as it may be, and with I the longer of the two advert
//! intervals and L the latency of the link:
//! - after 5 I (3 I, a skew under I, a startup hold of I), 4 L and 10 ms for the addresses, exactly one node is active
//!   and holds the VIP, and no role changes any more, but for a preferred node that has to wait for its hold time.
//!   With a witness it takes twice the silence, the rest of a lease and some questions more: 14 I, 8 L and a lease;
//! - two active nodes become one within 2 L and twice the time that the addresses take, and within I more where a
//!   partition, a loss or a pause, at most 5 I ago, kept them from hearing each other's claim;
//! - a switchover takes place, and at each moment of it somebody holds the VIP.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

#[path = "simulation/attacker.rs"]
mod attacker;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/counts.rs"]
mod counts;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/shell.rs"]
mod shell;
#[path = "simulation/wire.rs"]
mod wire;
#[path = "simulation/world.rs"]
mod world;

use std::time::Duration;

use baton::units::{AdvertInterval, Priority};
use baton::vrrp::machine::{HandOverRefusal, Input, Parameters, Preempt, Resignation, Startup};

use counts::Counts;
use faults::Fault;
use node::{Nanos, Node};
use wire::{ANSWER, ASK, HELLO, NAMES, Wire};
use world::{Event, JITTER_MAX, Link, MICROSECOND, MILLISECOND, OPERATION_MAX, Setting, World};

const ROUNDS: usize = 10;

#[test]
fn pair_keeps_its_promises_through_random_faults() {
    if let Some(seed) = number("BATON_SEED") {
        let counts = run(seed, true).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        eprintln!("{counts:#?}");
        return;
    }
    let first = number("BATON_FIRST_SEED").unwrap_or(0);
    let seeds = number("BATON_SEEDS").unwrap_or(500);
    let mut total = Counts::default();
    for seed in first..first + seeds {
        match run(seed, false) {
            Ok(counts) => total.add(counts),
            Err(failure) => panic!(
                "seed {seed}: {failure}\n\
                 replay: BATON_SEED={seed} cargo test --release --test simulation -- --nocapture"
            ),
        }
    }
    eprintln!("{seeds} seeds from {first}: {total:#?}");
    if seeds >= 200 {
        total.assert_everything_happened();
    }
}

#[test]
fn same_seed_gives_the_same_run() {
    let events = |seed| run(seed, false).map(|counts| (counts.events, counts.adverts, counts.claims));
    assert_eq!(events(1), events(1));
    assert_ne!(events(1), events(2));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// One run. `Err` says what did not hold.
fn run(seed: u64, trace: bool) -> Result<Counts, String> {
    let mut world = random_world(seed, trace);
    for node in 0..2 {
        let at = world.random.u64(0..world.interval_max());
        world.schedule(at, Event::Fault(Fault::Start { node }));
    }
    let started = world.interval_max();
    world.run_until(started)?;
    for _ in 0..ROUNDS {
        calm(&mut world)?;
        match world.random.u8(0..4) {
            0 | 1 => takeover(&mut world)?,
            2 => switchover(&mut world)?,
            _ => {}
        }
        faults(&mut world)?;
        heal(&mut world)?;
    }
    calm(&mut world)?;
    Ok(world.counts)
}

fn random_world(seed: u64, trace: bool) -> World {
    let mut random = fastrand::Rng::with_seed(seed);
    let intervals = [10, 10, 20, 50, 100, 100, 250, 1000];
    let mut intervals = [intervals[random.usize(0..8)], intervals[random.usize(0..8)]];
    let mut priorities = [random.u8(1..=254), random.u8(1..=254)];
    if random.u8(0..4) > 0 {
        intervals[1] = intervals[0];
    }
    match random.u8(0..4) {
        0 => priorities = [100, 101],
        1 => priorities[1] = priorities[0],
        _ => {}
    }
    let hold = Duration::from_millis(intervals[0] * [0, 0, 3, 20][random.usize(0..4)]);
    let preempt = if random.bool() { Preempt::WhenHigher { hold } } else { Preempt::Never };
    let resignation = if random.u8(0..4) > 0 { Resignation::AtOnce } else { Resignation::AfterSkew };
    let probe_first = random.bool();
    let mut setting = Setting {
        advert_paths: random.usize(1..=2),
        hellos: random.u8(0..4) > 0,
        authentic: random.u8(0..4) > 0,
        witness: random.u8(0..3) == 0,
    };
    if setting.witness {
        // It takes the key of the pair, with which there are both.
        (setting.authentic, setting.hellos) = (true, true);
        intervals[1] = intervals[0];
    }
    let node = |index: usize| {
        let parameters = Parameters {
            virtual_router_id: wire::router_id(),
            priority: Priority::new(priorities[index]).unwrap(),
            advert_interval: AdvertInterval::new(Duration::from_millis(intervals[index])).unwrap(),
            preempt,
            resignation,
            startup: if index == 0 { Startup::Prompt } else { Startup::Held },
            probe_first,
            witness: setting.witness,
            epoch: 0,
        };
        let wire = Wire::new(index, &parameters, setting.authentic);
        Node::new(NAMES[index], parameters, wire)
    };
    let nodes = [node(0), node(1)];
    let latency_max = random.u64(100 * MICROSECOND..=2 * MILLISECOND);
    let world = World::new(random, setting, nodes, latency_max, trace);
    world.note(|| format!("-- {intervals:?} ms, priorities {priorities:?}, {preempt:?}, {resignation:?}, {setting:?}"));
    world
}

/// From the end of all trouble, how long until one node is active.
fn time_to_settle(world: &World) -> Nanos {
    let interval = world.interval_max();
    if world.setting.witness {
        14 * interval + lease(world) + 8 * world.latency_max + 10 * MILLISECOND
    } else {
        5 * interval + 4 * world.latency_max + 10 * MILLISECOND
    }
}

/// For how long the witness lends, and lends to nobody else: by its clock, which may be the faster one.
fn lease(world: &World) -> Nanos {
    let time = (world.interval_max() * 29 / 10).max(100 * MILLISECOND);
    time + time / 64
}

/// How long a preferred node has to wait.
fn hold(world: &World) -> Nanos {
    match world.nodes[0].parameters.preempt {
        Preempt::WhenHigher { hold } => hold.as_nanos() as Nanos + 5 * world.interval_max(),
        Preempt::Never => 0,
    }
}

/// Nothing goes wrong any more: the pair settles in time, and stays so.
fn calm(world: &mut World) -> Result<(), String> {
    world.note(|| "-- calm".to_owned());
    let interval = world.interval_max();
    let mut settled = world.now.max(world.trouble_until) + time_to_settle(world);
    if world.setting.authentic && world.random.bool() {
        world.schedule(world.now, Event::Attack { until: settled + 4 * interval });
    }
    while world.now < settled {
        world.run_until(settled)?;
        // Somebody may have answered a probe meanwhile.
        settled = settled.max(world.trouble_until + time_to_settle(world));
    }
    if world.is_preempting() {
        settled += world.dual_max(false);
        world.run_until(settled)?;
    }
    world.check_settled()?;
    world.run_until(settled + hold(world))?;
    // Two more intervals for the announcement that a winner owes.
    let announced = world.now + 2 * interval;
    let transitions = world.nodes.each_ref().map(|node| node.transitions);
    world.run_until(announced)?;
    let active = world.check_settled()?;
    if let Some(active) = active {
        world.check_preference(active)?;
    }
    world.run_until(announced + world.random.clone().u64(0..4 * interval))?;
    if world.check_settled()? != active || transitions != world.nodes.each_ref().map(|node| node.transitions) {
        return Err("a role changed in a network where nothing goes wrong".to_owned());
    }
    world.check_epochs()
}

/// The active node goes, in one way or another, while all is calm: the other takes over in time.
fn takeover(world: &mut World) -> Result<(), String> {
    let Some(active) = world.check_settled()? else { return Ok(()) };
    let backup = 1 - active;
    if !world.nodes[backup].is_eligible() {
        return Ok(());
    }
    let priority = Nanos::from(world.nodes[backup].parameters.priority.get());
    let interval = world.nodes[active].interval();
    let skew = interval * (256 - priority) / 256;
    let delivery = world.latency_max + OPERATION_MAX + JITTER_MAX;
    let resigned = match world.nodes[backup].parameters.resignation {
        Resignation::AtOnce => delivery,
        Resignation::AfterSkew => delivery + skew,
    };
    // The last advert may only just have left. A lease has to run out, and is asked for once an interval.
    let mut silent = 3 * interval + skew + delivery;
    if world.setting.witness {
        silent = silent.max(lease(world)) + interval + 4 * world.latency_max + JITTER_MAX;
    }
    let kinds = if !world.setting.witness || world.reaches_witness(backup) { 4 } else { 1 };
    let (fault, within) = match world.random.u8(0..kinds) {
        0 => (Fault::Unfit { node: active }, resigned),
        1 => (Fault::Stop { node: active }, resigned),
        2 => (Fault::Crash { node: active }, silent),
        _ => (Fault::Pause { node: active, until: world.now + silent }, silent),
    };
    world.begin(fault)?;
    world.run_until(world.now + within)?;
    if !world.nodes[backup].is_active() {
        return Err(format!("{fault:?}, and no takeover within {:?}", Duration::from_nanos(within)));
    }
    world.counts.takeovers += 1;
    Ok(())
}

/// The operator wants the other node to be active while all is calm: it is, and at no time was none.
fn switchover(world: &mut World) -> Result<(), String> {
    let Some(active) = world.check_settled()? else { return Ok(()) };
    let backup = 1 - active;
    if !world.nodes[backup].is_eligible() || !world.is_linked_by_hellos() {
        return Ok(());
    }
    world.note(|| "-- switchover".to_owned());
    let delivery = world.latency_max + OPERATION_MAX + JITTER_MAX;
    let is_synced = world.random.bool();
    if !is_synced {
        // Is refused at first, as soon as the peer has said so.
        world.set_synced(backup, false)?;
        world.run_until(world.now + world.nodes[backup].interval() + delivery)?;
        world.hand_over(active, false)?;
        let refused = world.nodes[active].last_refusal.take();
        if refused != Some(HandOverRefusal::PeerNotSynced) || !world.nodes[active].is_active() {
            return Err(format!("a switchover to a peer that is not in sync: {refused:?}"));
        }
    }
    world.continuous = true;
    world.hand_over(active, !is_synced)?;
    // The request, the claim, and the release.
    world.run_until(world.now + 2 * world.latency_max + 3 * (OPERATION_MAX + JITTER_MAX))?;
    world.continuous = false;
    if world.nodes[active].switchover_open || !world.nodes[backup].is_active() || world.nodes[active].is_active() {
        return Err("the switchover did not take place in time".to_owned());
    }
    if world.nodes[active].vip_held {
        return Err("the old node kept the VIP".to_owned());
    }
    world.counts.switchovers_in_calm += 1;
    Ok(())
}

fn faults(world: &mut World) -> Result<(), String> {
    let end = world.now + world.random.u64(2..=16) * world.interval_max();
    for _ in 0..world.random.usize(1..=6) {
        world.plan_fault(end);
    }
    world.run_until(end)
}

/// All faults end, except that a node may stay down or unfit, a path dead, and the witness out of reach.
fn heal(world: &mut World) -> Result<(), String> {
    world.note(|| "-- heal".to_owned());
    let spared = if world.random.u8(0..8) == 0 { Some(world.random.usize(0..2)) } else { None };
    for node in 0..2 {
        world.nodes[node].paused = false;
        world.turn(node)?;
        world.set_synced(node, true)?;
        if spared != Some(node) {
            world.start(node)?;
            world.nodes[node].fit = true;
            world.signal(node, Input::Fit)?;
        }
    }
    // What was dead comes back, and something else dies.
    for path in world.setting.links() {
        world.links[path] = [Link::default(); 2];
    }
    let paths = world.setting.paths();
    let dead = match world.random.u8(0..6) {
        0 | 1 if paths.len() > 1 => vec![paths[world.random.usize(0..paths.len())]],
        2 if world.setting.witness => vec![ASK, ANSWER],
        _ => Vec::new(),
    };
    world.counts.calms_with_a_dead_path += u64::from(dead.len() == 1);
    world.counts.calms_without_witness += u64::from(dead.len() == 2);
    let ends = [(true, true), (true, false), (false, true)][world.random.usize(0..3)];
    for path in dead {
        world.note(|| format!("-- dead: {}", if path == HELLO { "hellos".to_owned() } else { format!("link {path}") }));
        world.links[path][0].cuts = u32::from(ends.0);
        world.links[path][1].cuts = u32::from(ends.1);
        // What was under way still arrives, and what died may have been what was relied upon.
        world.trouble(world.now + world.latency_max);
    }
    Ok(())
}
