//! Time without service, Baton's pair against keepalived + HAProxy: the same network, the same servers, the same prober, by
//! turns. `tests/bench/failover` builds and runs it.
//!
//! A prober makes a new connection through the VIP every 2 ms, with 50 ms for the answer. An outage is the longest time
//! between two good answers from the event on. Each round starts a fresh pair, does one thing to its active node, lets the
//! pair settle and counts who holds the VIP.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::indexing_slicing)] // as in tests
#![allow(clippy::print_stdout)] // figures are for people

mod capture;
mod event;
mod keepalived;
mod report;
mod round;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton::lab::load::{Load, LoadSpec};
use baton::lab::namespace;
use baton::lab::pair::{Pair, PairSpec, SERVERS, TARGET};
use baton::units::AdvertInterval;
use clap::Parser;

use crate::event::Event;
use crate::keepalived::{ProcessEvents, find_program};
use crate::report::Figures;
use crate::round::{Stage, System};

/// Time without service, Baton against keepalived + HAProxy, side by side.
#[derive(Debug, Parser)]
#[command(name = "tests/bench/failover", after_help = after_help())]
struct Arguments {
    /// Rounds of each event, interval and system
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Which events, in this order; all of them when not given
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    events: Vec<Event>,
    /// Times between adverts, in milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 100, 10], value_name = "LIST")]
    intervals: Vec<u64>,
    /// baton, keepalived, or both by turns
    #[arg(long, default_value = "both", value_parser = ["baton", "keepalived", "both"])]
    system: String,
    /// The program; the one built with this benchmark when not given
    #[arg(long, value_name = "FILE")]
    baton: Option<PathBuf>,
    /// Where a line of JSON for each round goes
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/failover.jsonl"))]
    json: PathBuf,
    /// Keep what the switch saw in each round there, and what became of the probes (needs dumpcap, of tshark)
    #[arg(long, value_name = "DIR")]
    captures: Option<PathBuf>,
    /// Fail unless Baton is ahead in every row and leaves exactly one holder
    #[arg(long)]
    require_ahead: bool,
    /// The library that brings process events to keepalived in a namespace
    #[arg(long, value_name = "FILE", hide = true)]
    process_events: Option<PathBuf>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn after_help() -> String {
    let names: Vec<&str> = Event::ALL.iter().map(|event| event.name()).collect();
    format!(
        "Events: {}.\n\nA round takes about 6 seconds, and 12 with adverts every second: an hour and a half for all of them. Keep the \
         machine quiet meanwhile; the noise of each round is printed with it.",
        names.join(", ")
    )
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failover: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all rounds could be played, and what was required is so.
fn run(arguments: &Arguments) -> Result<bool> {
    // Before anything else: a process can enter namespaces only before it has threads.
    let network = File::open("/proc/self/ns/net")?;
    let entered = namespace::enter()?;
    let program = arguments.baton.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_baton")));
    let program = program.canonicalize().with_context(|| format!("no program at {}", program.display()))?;
    let systems = systems(&arguments.system);
    let process_events = match &arguments.process_events {
        Some(library) if entered == namespace::Entered::AsRoot => Some(ProcessEvents {
            library: library.canonicalize()?,
            network: format!("/proc/{}/fd/{}", std::process::id(), network.as_raw_fd()).into(),
        }),
        _ => None,
    };
    if systems.contains(&System::Keepalived) {
        for program in ["keepalived", "haproxy", "curl"] {
            find_program(program)?;
        }
        if process_events.is_none() {
            println!(
                "keepalived is without track_process, for process events need root; it asks HAProxy once a second\n"
            );
        }
    }
    let all = Event::ALL.to_vec();
    let events = if arguments.events.is_empty() { &all } else { &arguments.events };
    let can_switch_over = can_switch_over(&program);
    if !can_switch_over && events.contains(&Event::Switchover) && systems.contains(&System::Baton) {
        println!("this baton has no command switchover: that row is not measured for it\n");
    }
    println!("{}\n", versions(&program));

    let mut figures = Figures::create(&arguments.json)?;
    let mut failures = 0;
    for interval_ms in &arguments.intervals {
        let mut stage = build_stage(&program, Duration::from_millis(*interval_ms), process_events.clone())?;
        stage.captures.clone_from(&arguments.captures);
        for event in events {
            for repetition in 1..=arguments.repetitions {
                for system in by_turns(&systems, repetition) {
                    if system == System::Baton && *event == Event::Switchover && !can_switch_over {
                        continue;
                    }
                    failures += usize::from(!play(&mut stage, system, *event, repetition, &mut figures)?);
                }
            }
        }
    }
    let (table, verdict) = figures.table(events, &arguments.intervals);
    println!("\ntime without service in milliseconds, {} rounds of each\n\n{table}", arguments.repetitions);
    println!("{}", figures.noise());
    println!("{}", figures.later());
    println!(
        "Baton is ahead in {} of {} rows; after {} rows its VIP was not on exactly one node",
        verdict.rows - verdict.behind,
        verdict.rows,
        verdict.not_one_holder
    );
    println!("every round: {}", arguments.json.display());
    if failures > 0 {
        println!("{failures} rounds could not be played");
    }
    let is_as_required = !arguments.require_ahead || (verdict.behind == 0 && verdict.not_one_holder == 0);
    Ok(failures == 0 && is_as_required)
}

/// Plays a round and writes it down; one that cannot be played is reported and counted by the caller.
fn play(stage: &mut Stage, system: System, event: Event, repetition: u32, figures: &mut Figures) -> Result<bool> {
    let interval_ms = stage.interval.as_millis();
    let (name, begun) = (system.name(), Instant::now());
    match stage.play(system, event) {
        Ok(round) => {
            eprintln!(
                "{interval_ms:>4} ms {event:<18} {repetition:>2} {name:<10} {:>7.1} ms, holders {}, later {:.1} ms, noise {:.1} ms{} ({:.0} s)",
                round.outage_us as f64 / 1000.0,
                round.holders_after,
                round.later_us as f64 / 1000.0,
                round.noise_us as f64 / 1000.0,
                if round.moved { "" } else { ", did not move" },
                begun.elapsed().as_secs_f64(),
            );
            figures.add(round)?;
            Ok(true)
        }
        Err(error) => {
            eprintln!("{interval_ms:>4} ms {event:<18} {repetition:>2} {name:<10} NOT PLAYED: {error:#}");
            Ok(false)
        }
    }
}

fn systems(name: &str) -> Vec<System> {
    match name {
        "baton" => vec![System::Baton],
        "keepalived" => vec![System::Keepalived],
        _ => vec![System::Baton, System::Keepalived],
    }
}

/// Each goes first in every other repetition.
fn by_turns(systems: &[System], repetition: u32) -> Vec<System> {
    let mut systems = systems.to_vec();
    if repetition.is_multiple_of(2) {
        systems.reverse();
    }
    systems
}

fn build_stage(program: &std::path::Path, interval: Duration, process_events: Option<ProcessEvents>) -> Result<Stage> {
    let advert_interval =
        AdvertInterval::new(interval).with_context(|| format!("{interval:?} is no advert interval"))?;
    let spec =
        PairSpec { program: program.to_owned(), advert_interval, config_extra: String::new(), netns_prefix: None };
    let pair = Pair::build(&spec)?;
    let servers = SERVERS.iter().map(|name| (*name).to_owned()).collect();
    let prober_alone = LoadSpec { busy_connections: 0, users: 0, ..LoadSpec::steady(TARGET, servers) };
    let load = Load::start(pair.client()?, prober_alone)?;
    Ok(Stage { pair, load, program: program.to_owned(), interval, process_events, captures: None, played: 0 })
}

fn can_switch_over(program: &std::path::Path) -> bool {
    let mut command = Command::new(program);
    command.args(["switchover", "--help"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn versions(program: &std::path::Path) -> String {
    let first_line = |program: &std::path::Path, argument: &str| -> Result<String> {
        let output = Command::new(program).arg(argument).output()?;
        ensure!(output.status.success(), "{} failed", program.display());
        // keepalived tells its version on the other output.
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    let of = |name: &str, argument: &str| find_program(name).and_then(|program| first_line(&program, argument));
    let all = [first_line(program, "--version"), of("keepalived", "--version"), of("haproxy", "-v")];
    all.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
