//! Sessions, Baton's pair against HAProxy with stick tables and peers (and keepalived, where a VIP has to move): the same
//! network, the same servers, the same clients, by turns. `tests/bench/sessions` builds and runs it.
//!
//! | part | what is measured |
//! |---|---|
//! | kill | users on another server, and entries lost, after the active node is gone under 5,000 new sessions a second |
//! | switchover | the same at a planned hand-over |
//! | throughput | entries a second that arrive at the peer |
//! | lag | time from a change to its presence at the peer, at 20,000 a second |
//! | snapshot | time to bring 1 million entries to a peer that has just connected |
//! | latency | of requests, with 20,000 changes a second from the peer and without |
//! | memory | resident bytes an entry at 1 million of them |
//! | tls | share of TLS 1.3 sessions that are resumed on the node that took over |

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::indexing_slicing)] // as in tests
#![allow(clippy::print_stdout)] // figures are for people

mod client;
mod failover;
#[path = "../side_by_side/keepalived.rs"]
#[allow(dead_code, reason = "the other benchmark does more to keepalived")]
mod keepalived;
mod latency;
mod link;
mod memory;
mod replication;
mod report;
mod rival;
mod stage;
mod tls;
mod users;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use baton::lab::namespace;
use baton::lab::pair::VIP;
use clap::{Parser, ValueEnum};

use crate::failover::Moment;
use crate::keepalived::find_program;
use crate::report::{Figures, Round};
use crate::stage::{Stage, System};

/// Where users ask: the listener whose pool has a table.
pub const USERS: SocketAddr = SocketAddr::new(IpAddr::V4(VIP), 81);

/// The same over TLS.
pub const TLS: SocketAddr = SocketAddr::new(IpAddr::V4(VIP), 443);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Kill,
    Switchover,
    Throughput,
    Lag,
    Snapshot,
    Latency,
    Memory,
    Tls,
}

/// Sessions, Baton against HAProxy with stick tables and peers, side by side.
#[derive(Debug, Parser)]
#[command(
    name = "tests/bench/sessions",
    after_help = "Keep the machine quiet meanwhile. All of it takes some 25 minutes."
)]
struct Arguments {
    /// What is measured, in this order; everything when not given
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    parts: Vec<Part>,
    /// Rounds of each part and system
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// baton, haproxy, or both by turns
    #[arg(long, default_value = "both", value_parser = ["baton", "haproxy", "both"])]
    system: String,
    /// The program; the one built with this benchmark when not given
    #[arg(long, value_name = "FILE")]
    baton: Option<PathBuf>,
    /// Where a line of JSON for each round goes
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/sessions.jsonl"))]
    json: PathBuf,
    #[command(flatten)]
    wishes: Wishes,
    /// Fail unless Baton reaches every goal
    #[arg(long)]
    require_goals: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Wishes {
    /// New sessions a second when a node is lost or hands over
    #[arg(long, default_value_t = 5_000)]
    pub rate: u32,
    /// Seconds between the nodes' connection and the first session
    #[arg(long, default_value = "12", value_parser = seconds)]
    pub settle: Duration,
    /// Seconds of new sessions before a node is lost or hands over
    #[arg(long, default_value = "4", value_parser = seconds)]
    pub load: Duration,
    /// Requests a second whose latency is measured
    #[arg(long, default_value_t = 2_000)]
    pub latency_rate: u32,
    /// Seconds of them with changes, without, and with changes elsewhere
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub latency_length: Duration,
    /// Clients that make a TLS session each
    #[arg(long, default_value_t = 200)]
    pub tls_clients: u32,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| format!("{text} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sessions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all rounds could be played, and what was required is so.
fn run(arguments: &Arguments) -> Result<bool> {
    // Before anything else: a process can enter namespaces only before it has threads.
    namespace::enter()?;
    let program = arguments.baton.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_baton")));
    let program = program.canonicalize().with_context(|| format!("no program at {}", program.display()))?;
    for program in ["keepalived", "haproxy", "curl", "openssl"] {
        find_program(program)?;
    }
    println!("{}\n", versions(&program));
    let directory = ScratchDirectory::create()?;
    let mut stage = Stage::build(&program, tls::prepare(&directory.0)?)?;
    let mut figures = Figures::create(&arguments.json)?;
    let parts = if arguments.parts.is_empty() { Part::value_variants() } else { &arguments.parts };
    let (mut failures, mut missed) = (0, 0);
    for part in parts {
        for repetition in 1..=arguments.repetitions {
            for system in by_turns(&arguments.system, repetition) {
                failures += play(&mut stage, *part, system, &arguments.wishes, &mut figures)?;
            }
        }
        let name = part.to_possible_value().context("each part has a name")?.get_name().to_owned();
        let (table, goals_missed) = figures.table(&name);
        missed += goals_missed;
        println!("\n{name}, {} rounds of each\n\n{table}", arguments.repetitions);
    }
    println!("goals that Baton missed: {missed}; every round: {}", arguments.json.display());
    if failures > 0 {
        println!("{failures} rounds could not be played");
    }
    Ok(failures == 0 && (missed == 0 || !arguments.require_goals))
}

/// Plays all variants of a part once, writes them down, and gives the number of those that could not be played.
fn play(stage: &mut Stage, part: Part, system: System, wishes: &Wishes, figures: &mut Figures) -> Result<usize> {
    let mut outcomes: Vec<Result<Vec<Round>>> = Vec::new();
    let one = |round: Result<Round>| round.map(|round| vec![round]);
    match part {
        Part::Kill => {
            outcomes.push(one(failover::kill(stage, system, Moment::Settled, wishes)));
            outcomes.push(one(failover::kill(stage, system, Moment::Early, wishes)));
        }
        Part::Switchover => outcomes.push(one(failover::switchover(stage, system, wishes))),
        Part::Throughput => outcomes.push(one(replication::throughput(stage, system))),
        Part::Lag => outcomes.push(one(replication::lag(stage, system))),
        Part::Snapshot => outcomes.push(replication::snapshot(stage, system, 1)),
        Part::Latency => outcomes.push(one(latency::latency(stage, system, wishes))),
        Part::Memory => match system {
            System::Baton => outcomes.push(one(memory::baton(stage))),
            System::Haproxy => {
                outcomes.push(one(memory::haproxy(stage, stage::KEY_BYTES)));
                outcomes.push(one(memory::haproxy(stage, memory::SHORT_KEY_BYTES)));
            }
        },
        Part::Tls => {
            outcomes.push(one(tls::resumption(stage, system, false, wishes)));
            if system == System::Haproxy {
                outcomes.push(one(tls::resumption(stage, system, true, wishes)));
            }
        }
    }
    let mut failures = 0;
    for outcome in outcomes {
        match outcome {
            Ok(rounds) => rounds.into_iter().try_for_each(|round| figures.add(round))?,
            Err(error) => {
                eprintln!("{part:?} {} NOT PLAYED: {error:#}", system.name());
                stage.clear(None)?;
                failures += 1;
            }
        }
    }
    Ok(failures)
}

/// Each goes first in every other repetition.
fn by_turns(systems: &str, repetition: u32) -> Vec<System> {
    let mut systems = match systems {
        "baton" => vec![System::Baton],
        "haproxy" => vec![System::Haproxy],
        _ => vec![System::Baton, System::Haproxy],
    };
    if repetition.is_multiple_of(2) {
        systems.reverse();
    }
    systems
}

fn versions(program: &Path) -> String {
    let first_line = |program: &Path, argument: &str| -> Option<String> {
        let output = Command::new(program).arg(argument).output().ok()?;
        // keepalived tells its version on the other output.
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        text.lines().next().map(str::to_owned)
    };
    let of = |name: &str, argument: &str| find_program(name).ok().and_then(|program| first_line(&program, argument));
    let all = [first_line(program, "--version"), of("keepalived", "--version"), of("haproxy", "-v")];
    all.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// For keys and certificates; gone in the end.
struct ScratchDirectory(PathBuf);

impl ScratchDirectory {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("baton-sessions-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        // It holds nothing of worth.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}
