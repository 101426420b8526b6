//! Two nodes that keep sessions for each other over a bad connection, in virtual time, from a seed.
//!
//! `BATON_SEEDS=10000 cargo test --release --test session_simulation` tries that many seeds, 300 if not told.
//! `BATON_SEED=7 cargo test --test session_simulation -- --nocapture` replays one with a trace of its events.
//!
//! Both nodes' clocks have origins of their own and run a little fast or slow. The connection is cut into pieces down to
//! single bytes, delayed, held up, broken at any byte with or without a word, and replaced while the old one still brings
//! something. Nodes crash and come back empty or with an old file; they take over from each other in order, or both are
//! active. Whoever is active writes sessions, both write facts.
//!
//! A shadow keeps who knew of which write (`model.rs`). After every event the checks of `checks.rs` hold, among them: a
//! node has the newest of what it was told, and says that it has dealt with nothing else; what waits or is under way is
//! within its bounds; whenever there is something to say, its turn is planned.
//!
//! Once writes and faults end, within 2.7 s (the silence that betrays a lost connection, and the longest pause before a
//! new one, with 200 ms for turns to speak) and 10 latencies (80 with 80,000 entries), both nodes are in sync with no
//! lag, and have the same sessions and facts: of each the newest write that outlived all crashes, used last at the same
//! time but for three ticks and a latency. Where a node took over only after the other had stopped, and knew of its
//! epoch, that is the last write by the clock on the wall. From then on nothing but heartbeats is sent.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

#[path = "session_simulation/checks.rs"]
mod checks;
#[path = "session_simulation/counts.rs"]
mod counts;
#[path = "session_simulation/faults.rs"]
mod faults;
#[path = "session_simulation/model.rs"]
mod model;
#[path = "session_simulation/node.rs"]
mod node;
#[path = "session_simulation/wire.rs"]
mod wire;
#[path = "session_simulation/world.rs"]
mod world;

use std::time::Duration;

use baton::session::key::Key;
use baton::session::table::PoolLimits;

use counts::Counts;
use faults::Trouble;
use node::{KEYS, NUMBER_BYTE, SERVERS, Setting};
use wire::{MILLISECOND, Micros, Pieces, SECOND};
use world::{Event, World};

const ROUNDS: usize = 3;

#[test]
fn both_nodes_come_to_the_same_and_newest_sessions() {
    if let Some(seed) = number("BATON_SEED") {
        let counts = run(seed, true).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        eprintln!("{counts:#?}");
        return;
    }
    let first = number("BATON_FIRST_SEED").unwrap_or(0);
    let seeds = number("BATON_SEEDS").unwrap_or(300);
    let mut total = Counts::default();
    for seed in first..first + seeds {
        match run(seed, false) {
            Ok(counts) => total.add(&counts),
            Err(failure) => panic!(
                "seed {seed}: {failure}\n\
                 replay: BATON_SEED={seed} cargo test --release --test session_simulation -- --nocapture"
            ),
        }
    }
    eprintln!("{seeds} seeds from {first}: {total:#?}");
    if seeds >= 300 {
        total.assert_everything_happened();
    }
}

#[test]
fn same_seed_gives_the_same_run() {
    assert_eq!(run(1, false), run(1, false));
    assert_ne!(run(1, false), run(2, false));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// One run. `Err` says what did not hold.
fn run(seed: u64, trace: bool) -> Result<Counts, String> {
    let mut world = random_world(seed, trace);
    for node in 0..2 {
        let at = world.random.u64(0..SECOND);
        world.schedule(at, Event::Trouble(Trouble::Start { node }));
    }
    for _ in 0..ROUNDS {
        traffic(&mut world)?;
        calm(&mut world)?;
    }
    Ok(world.counts)
}

fn random_world(seed: u64, trace: bool) -> World {
    let mut random = fastrand::Rng::with_seed(seed);
    let bulk = if random.u8(0..=255) == 0 { 80_000 } else { 0 };
    let is_full = bulk == 0 && random.u8(0..16) == 0;
    let is_short = random.u8(0..3) == 0;
    let limits = [0, 1].map(|_| PoolLimits {
        entries_max: match random.u8(0..3) {
            _ if bulk > 0 => 90_000,
            _ if is_full => random.usize(1..20),
            0 => 5_000,
            _ => 50,
        },
        idle: if is_short { Duration::from_millis(random.u64(1_000..8_000)) } else { Duration::from_secs(3_600) },
        absolute: (is_short && random.bool()).then(|| Duration::from_millis(random.u64(4_000..10_000))),
        servers: SERVERS.into(),
    });
    // Real keys are evenly spread; these may all lie in one bucket.
    let mask = if random.u8(0..4) == 0 { !(0xffff << 64 | 0xffff) } else { u128::MAX };
    let mut key = |number: usize| {
        let mut bytes = (random.u128(..) & mask).to_be_bytes();
        bytes[NUMBER_BYTE] = number as u8;
        Key::from_bytes(bytes)
    };
    let keys = (0..KEYS).map(&mut key).collect();
    let setting = Setting { limits, turned: random.bool(), keys, is_full, bulk };
    let mut world = World::new(random, setting, trace);
    let random = &mut world.random;
    world.may_be_two = random.bool();
    world.delay_max = [200, MILLISECOND, 10 * MILLISECOND, 150 * MILLISECOND][random.usize(0..4)];
    world.pace = [4, 20, 50, 200][random.usize(0..4)] * MILLISECOND;
    world.room = [16, 64, 256][random.usize(0..3)] * 1024;
    world.pieces = match random.u8(0..32) {
        0 => Pieces::Tiny,
        1..8 => Pieces::Small,
        _ => Pieces::Large,
    };
    if world.setting.bulk > 0 {
        (world.delay_max, world.room, world.pieces) = (10 * MILLISECOND, 256 * 1024, Pieces::Large);
    }
    world.note(|| format!("-- {:?} {:?}, {} us", world.setting.limits, world.pieces, world.delay_max));
    world
}

/// A key beyond those that are checked one by one.
fn bulk_key(number: u64) -> Key {
    let spread = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Key::from_bytes((spread ^ spread >> 64).to_be_bytes())
}

/// Nodes write, and most of the time something goes wrong.
fn traffic(world: &mut World) -> Result<(), String> {
    world.note(|| "-- traffic".to_owned());
    let end = world.now + world.random.u64(200 * MILLISECOND..3 * SECOND);
    world.writes_until = end;
    for node in 0..2 {
        let at = world.now + world.random.u64(0..=world.pace);
        world.schedule(at, Event::Write { node });
    }
    if world.setting.bulk > 0 {
        world.trouble(Trouble::Burst { node: usize::from(world.active[1]) })?;
    }
    for _ in 0..world.random.usize(0..=6) {
        world.plan_trouble(end);
    }
    world.run_until(end)
}

/// After the last fault, how long until both nodes know the same.
fn time_to_settle(world: &World) -> Micros {
    let latencies = if world.setting.bulk > 0 { 80 } else { 10 };
    2_700 * MILLISECOND + latencies * world.delay_max
}

/// All is well again and nobody writes: both nodes come to the same, and have nothing more to say.
fn calm(world: &mut World) -> Result<(), String> {
    // Nodes that are about to start.
    world.run_until(world.now + SECOND)?;
    world.note(|| "-- calm".to_owned());
    for node in 0..2 {
        if world.nodes[node].is_none() {
            world.trouble(Trouble::Start { node })?;
        }
    }
    if world.active == [false; 2] {
        world.take_over(0);
    }
    world.end_holds();
    world.run_until(world.now + time_to_settle(world))?;
    world.check_settled()?;
    let said = entries_sent(world);
    world.run_until(world.now + world.random.clone().u64(0..SECOND))?;
    if entries_sent(world) != said {
        return Err("entries are sent in a calm in which nobody writes".to_owned());
    }
    Ok(())
}

fn entries_sent(world: &mut World) -> [u64; 2] {
    let now = world.now;
    world.nodes.each_mut().map(|process| {
        let Some(process) = process else { return 0 };
        let clock = process.clock(now);
        process.end.as_mut().map_or(0, |end| end.replica.state(clock, &process.table).entries_sent)
    })
}
