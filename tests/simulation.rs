//! Two nodes on a bad network, in virtual time, from a seed: what holds whatever happens, and how soon calm returns.
//!
//! `BATON_SEEDS=10000 cargo test --release --test simulation` tries that many seeds, 200 if not told.
//! `BATON_SEED=7 cargo test --release --test simulation -- --nocapture` replays one with a trace of its events.
//!
//! A run starts two nodes and lets faults and calm alternate. The checks of `checks.rs` run after every event. Once
//! calm, and with I the longer of the two advert intervals and L the latency of the link:
//! - after 5 I (3 I, a skew under I, a startup hold of I), 4 L and 10 ms for the addresses, exactly one node is active
//!   and holds the VIP, and no role changes any more;
//! - two active nodes become one within 2 L and twice the time that the addresses take, and within I more where a
//!   partition, a loss or a pause kept them from hearing each other's claim.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/world.rs"]
mod world;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use baton::units::{AdvertInterval, Priority, VirtualRouterId};
use baton::vrrp::machine::{Input, Parameters, Preempt, Resignation, Startup};
use baton::vrrp::packet::{Expected, ExpectedSource, Versions};

use faults::Fault;
use node::{Nanos, Node, VIP};
use world::{Counts, JITTER_MAX, MICROSECOND, MILLISECOND, OPERATION_MAX, World};

const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 12))];
const ROUNDS: usize = 10;

#[test]
fn pair_keeps_its_promises_through_random_faults() {
    if let Some(seed) = number("BATON_SEED") {
        let counts = run(seed, true).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        eprintln!("{counts:#?}");
        return;
    }
    let seeds = number("BATON_SEEDS").unwrap_or(200);
    let mut total = Counts::default();
    for seed in 0..seeds {
        match run(seed, false) {
            Ok(counts) => total.add(counts),
            Err(failure) => panic!(
                "seed {seed}: {failure}\n\
                 replay: BATON_SEED={seed} cargo test --release --test simulation -- --nocapture"
            ),
        }
    }
    eprintln!("{seeds} seeds: {total:#?}");
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
        world.schedule(at, world::Event::Fault(Fault::Start { node }));
    }
    let started = world.interval_max();
    world.run_until(started)?;
    for _ in 0..ROUNDS {
        calm(&mut world)?;
        if world.random.bool() {
            takeover(&mut world)?;
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
    let preempt = if random.bool() { Preempt::WhenHigher } else { Preempt::Never };
    let resignation = if random.u8(0..4) > 0 { Resignation::AtOnce } else { Resignation::AfterSkew };
    let node = |index: usize, name| {
        let interval = AdvertInterval::new(Duration::from_millis(intervals[index])).unwrap();
        let virtual_router_id = VirtualRouterId::new(51).unwrap();
        let parameters = Parameters {
            virtual_router_id,
            priority: Priority::new(priorities[index]).unwrap(),
            advert_interval: interval,
            preempt,
            resignation,
            startup: if index == 0 { Startup::Prompt } else { Startup::Held },
        };
        let expected = Expected {
            virtual_router_id,
            local: ADDRESSES[index],
            peer: ExpectedSource::Exactly(ADDRESSES[1 - index]),
            destination: ADDRESSES[index],
            addresses: vec![VIP],
            versions: Versions::V3,
            interval,
        };
        Node::new(name, parameters, expected)
    };
    let nodes = [node(0, "a"), node(1, "b")];
    let latency_max = random.u64(100 * MICROSECOND..=2 * MILLISECOND);
    let world = World::new(random, nodes, latency_max, trace);
    world.note(|| format!("-- {intervals:?} ms, priorities {priorities:?}, {preempt:?}, {resignation:?}"));
    world
}

/// Nothing goes wrong any more: the pair settles in time, and stays so.
fn calm(world: &mut World) -> Result<(), String> {
    world.note(|| "-- calm".to_owned());
    let interval = world.interval_max();
    let settled = world.now.max(world.trouble_until) + 5 * interval + 4 * world.latency_max + 10 * MILLISECOND;
    world.run_until(settled)?;
    // Two more intervals for the announcement that a winner owes.
    let announced = settled + 2 * interval;
    let transitions = world.nodes.each_ref().map(|node| node.transitions);
    world.run_until(announced)?;
    let active = world.check_settled()?;
    world.run_until(announced + world.random.clone().u64(0..4 * interval))?;
    if world.check_settled()? != active || transitions != world.nodes.each_ref().map(|node| node.transitions) {
        return Err("a role changed in a network where nothing goes wrong".to_owned());
    }
    Ok(())
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
    // The last advert may only just have left.
    let silent = 3 * interval + skew + delivery;
    let (fault, within) = match world.random.u8(0..4) {
        0 => (Fault::Stop { node: active }, resigned),
        1 => (Fault::Unfit { node: active }, resigned),
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

fn faults(world: &mut World) -> Result<(), String> {
    let end = world.now + world.random.u64(2..=16) * world.interval_max();
    for _ in 0..world.random.usize(1..=6) {
        world.plan_fault(end);
    }
    world.run_until(end)
}

/// All faults end, except that a node may stay down or unfit.
fn heal(world: &mut World) -> Result<(), String> {
    world.note(|| "-- heal".to_owned());
    let spared = if world.random.u8(0..8) == 0 { Some(world.random.usize(0..2)) } else { None };
    for node in 0..2 {
        world.nodes[node].paused = false;
        world.turn(node)?;
        if spared != Some(node) {
            world.start(node)?;
            world.nodes[node].fit = true;
            world.signal(node, Input::Fit)?;
        }
    }
    Ok(())
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.events += other.events;
        self.adverts += other.adverts;
        self.refused += other.refused;
        self.claims += other.claims;
        self.resignations += other.resignations;
        self.ways_given += other.ways_given;
        self.stalls += other.stalls;
        self.preemptions += other.preemptions;
        self.duals += other.duals;
        self.dual_in_calm_max = self.dual_in_calm_max.max(other.dual_in_calm_max);
        self.takeovers += other.takeovers;
    }

    /// A simulation in which nothing happens proves nothing.
    fn assert_everything_happened(&self) {
        let counts = [self.refused, self.claims, self.resignations, self.ways_given, self.stalls, self.preemptions];
        assert!(counts.iter().all(|count| *count > 50), "{self:#?}");
        assert!(self.duals > 100 && self.takeovers > 100, "{self:#?}");
    }
}
