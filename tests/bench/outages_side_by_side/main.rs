//! What clients see of a server that fails, behind Baton and behind HAProxy. `tests/bench/outages` builds and runs it.
//!
//! Requests come at a steady rate, whether those before are answered or not, and their times count from when they were due.
//! The servers, the clients and the proxy share the machine, and each has a thread of its own.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::indexing_slicing)] // as in tests
#![allow(clippy::print_stdout)] // figures are for people

mod load;
mod proxy;
mod servers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use self::load::{Asked, Load};
use self::proxy::Proxy;
use self::servers::{Mood, Servers};

/// Nothing is wrong yet; the first second of it is not looked at.
const BEFORE: Duration = Duration::from_secs(4);

/// A second in which no request fails and 99 of 100 are answered in `BOUND` counts as recovered.
const CALM: Duration = Duration::from_secs(1);

/// Far above what a good server takes on a busy machine, below what a slow one does.
const BOUND: Duration = Duration::from_millis(15);

/// What becomes of the first server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Its connections break, and new ones are refused
    Killed,
    /// It accepts and never answers
    Hung,
    /// It takes ten times as long
    Slow,
    /// It answers half of its requests with 500, by chance
    Failing,
}

impl Scenario {
    fn mood(self) -> Mood {
        match self {
            Self::Killed => Mood::Killed,
            Self::Hung => Mood::Hung,
            Self::Slow => Mood::Slow,
            Self::Failing => Mood::Failing,
        }
    }
}

/// What clients see of a server that fails.
#[derive(Debug, Parser)]
#[command(name = "tests/bench/outages")]
struct Arguments {
    /// Requests a second
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// How long the server fails, in seconds
    #[arg(long, default_value_t = 15)]
    outage: u64,
    /// How long it is good again then, in seconds
    #[arg(long, default_value_t = 10)]
    after: u64,
    /// Rounds of each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads of each proxy
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// What becomes of the server
    #[arg(long, value_delimiter = ',', default_values = ["killed", "hung", "slow", "failing"])]
    scenarios: Vec<Scenario>,
    /// The program; the one built with this benchmark when not given
    #[arg(long, value_name = "FILE")]
    baton: Option<PathBuf>,
    /// HAProxy
    #[arg(long, value_name = "FILE", default_value = "haproxy")]
    haproxy: PathBuf,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outages: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "| first server | proxy | round | requests | failed | failed, % | p50 ms | p99 ms | worst ms | recovered after s | server back after s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for scenario in &arguments.scenarios {
        for round in 1..=arguments.rounds {
            for name in ["baton", "haproxy"] {
                let figures = measure(arguments, *scenario, name).with_context(|| format!("{scenario:?} {name}"))?;
                println!("| {scenario:?} | {name} | {round} | {figures} |");
            }
        }
    }
    Ok(())
}

/// What came of the requests of a round.
struct Figures {
    requests: usize,
    failed: usize,
    p50: Duration,
    p99: Duration,
    worst: Duration,
    /// From the fault to the first calm second.
    recovered: Option<Duration>,
    /// From the fault's end to the server's next request.
    back: Option<Duration>,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = self.failed as f64 * 100.0 / self.requests.max(1) as f64;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let seconds =
            |time: Option<Duration>| time.map_or("never".to_owned(), |time| format!("{:.2}", time.as_secs_f64()));
        write!(
            f,
            "{} | {} | {share:.3} | {:.1} | {:.1} | {:.1} | {} | {}",
            self.requests,
            self.failed,
            ms(self.p50),
            ms(self.p99),
            ms(self.worst),
            seconds(self.recovered),
            seconds(self.back)
        )
    }
}

fn measure(arguments: &Arguments, scenario: Scenario, name: &str) -> Result<Figures> {
    let servers = Servers::start()?;
    let proxy = match name {
        "baton" => {
            let program = arguments.baton.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_baton")));
            Proxy::baton(&program, &servers.addresses(), arguments.threads)?
        }
        _ => Proxy::haproxy(&arguments.haproxy, &servers.addresses(), arguments.threads)?,
    };
    // As many as bring a server up, so that both proxies know all of them.
    servers.wait_for_checks(2)?;
    let load = Load::start(proxy.address(), arguments.rate)?;
    std::thread::sleep(BEFORE);
    let fault = Instant::now();
    servers.become_(scenario.mood());
    std::thread::sleep(Duration::from_secs(arguments.outage));
    let over = Instant::now();
    servers.become_(Mood::Good);
    let back = servers.wait_for_request(arguments.rate, over, Duration::from_secs(arguments.after));
    std::thread::sleep(Duration::from_secs(arguments.after).saturating_sub(over.elapsed()));
    let asked = load.finish()?;
    let before = asked.iter().filter(|asked| asked.due < fault && !asked.is_good);
    ensure!(before.count() == 0, "requests failed while all was well: the machine is too slow for this rate");
    Ok(figures(&asked, fault, over, back))
}

fn figures(asked: &[Asked], fault: Instant, over: Instant, back: Option<Duration>) -> Figures {
    let during: Vec<&Asked> = asked.iter().filter(|asked| (fault..over).contains(&asked.due)).collect();
    let mut times: Vec<Duration> = during.iter().map(|asked| asked.took).collect();
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Figures {
        requests: during.len(),
        failed: during.iter().filter(|asked| !asked.is_good).count(),
        p50: at(0.5),
        p99: at(0.99),
        worst: times.last().copied().unwrap_or_default(),
        recovered: recovery(&during, fault, over),
        back,
    }
}

/// From the fault to the beginning of the first calm second, looked for in steps of 50 ms.
fn recovery(during: &[&Asked], fault: Instant, over: Instant) -> Option<Duration> {
    let step = Duration::from_millis(50);
    let mut from = fault;
    while from + CALM <= over {
        let second: Vec<_> = during.iter().filter(|asked| (from..from + CALM).contains(&asked.due)).collect();
        let late = second.iter().filter(|asked| asked.took > BOUND).count();
        if second.iter().all(|asked| asked.is_good) && late * 100 <= second.len() {
            return Some(from - fault);
        }
        from += step;
    }
    None
}
