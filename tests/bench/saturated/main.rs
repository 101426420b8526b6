//! No false takeover on a saturated machine: a pair whose adverts come every 10 ms, clients that ask as fast as they are
//! answered, and a busy loop on every core. `tests/bench/soak` builds and runs it.
//!
//! Whether the VIP moved, the nodes' own count of changes of role says. How close it was, the longest time between two
//! adverts that came to the standby: its patience is three intervals and a skew. It is measured next to the standby, by
//! a real-time thread with a socket of its own.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::indexing_slicing)] // as in tests
#![allow(clippy::print_stdout)] // figures are for people

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton::lab::load::{Load, LoadSpec};
use baton::lab::namespace::{self, Namespace};
use baton::lab::pair::{NODES, Pair, PairSpec, SERVERS, TARGET};
use baton::net::realtime;
use baton::units::AdvertInterval;
use baton::vrrp::packet::IP_PROTOCOL;
use clap::Parser;
use socket2::{Domain, Protocol, Socket, Type};

/// Time for a pair to form.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time for a node to say how it is, on a machine that has no time.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Clients that ask again as soon as they are answered.
const BUSY_CONNECTIONS: u16 = 64;

/// Priority of the thread that listens, among real-time ones: below the heartbeat.
const EAR_PRIORITY: i32 = 40;

/// How long the thread that listens waits before it looks whether it is to stop.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// No false takeover on a saturated machine.
#[derive(Debug, Parser)]
#[command(name = "tests/bench/soak")]
struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Time between adverts, in milliseconds
    #[arg(long, default_value_t = 10, value_name = "MS")]
    interval: u64,
    /// The program; the one built with this benchmark when not given
    #[arg(long, value_name = "FILE")]
    baton: Option<PathBuf>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the VIP stayed where it was.
fn run(arguments: &Arguments) -> Result<bool> {
    // Before anything else: a process can enter namespaces only before it has threads.
    namespace::enter()?;
    let program = arguments.baton.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_baton")));
    let interval = Duration::from_millis(arguments.interval);
    let advert_interval = AdvertInterval::new(interval).context("no advert interval")?;
    let spec = PairSpec { program, advert_interval, config_extra: String::new(), netns_prefix: None };
    let mut pair = Pair::build(&spec)?;
    pair.start()?;
    let active = pair.wait_until_healthy(PATIENCE)?;
    let standby = NODES.into_iter().find(|node| *node != active).context("the other node")?;
    NODES.iter().try_for_each(|node| show_priority(&pair, node))?;
    let before = transitions(&pair)?;

    let ear = Ear::open(pair.node(standby)?.namespace())?;
    let servers = SERVERS.iter().map(|name| (*name).to_owned()).collect();
    let steady = LoadSpec::steady(TARGET, servers);
    let load = Load::start(
        pair.client()?,
        LoadSpec { busy_connections: BUSY_CONNECTIONS, busy_pause: Duration::ZERO, ..steady },
    )?;
    let loops = BusyLoops::start()?;
    let (begun, idle) = (Instant::now(), idle_time()?);
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    let mut moves = [0, 0];
    while begun.elapsed() < length {
        std::thread::sleep(REPORT_INTERVAL.min(length.saturating_sub(begun.elapsed())));
        let now = transitions(&pair)?;
        moves = [now[0] - before[0], now[1] - before[1]];
        let window = load.window(Instant::now() - Duration::from_secs(10), Instant::now());
        println!(
            "{:>4.0} s: changes of role {moves:?}, {} adverts, longest gap {:.2} ms, {} requests a second, cores idle {:.1} %",
            begun.elapsed().as_secs_f64(),
            ear.count.load(Ordering::Relaxed),
            ear.longest_gap().as_secs_f64() * 1000.0,
            window.requests_a_second(),
            idle_share(idle, begun)?,
        );
    }
    drop(loops);
    drop(load);
    let stayed = moves == [0, 0] && pair.holders()? == [active.as_str()];
    if !stayed {
        show_changes(&pair);
    }
    println!(
        "{}: {:.0} min at {} ms on saturated cores, longest gap between two adverts {:.2} ms",
        if stayed { "no false takeover" } else { "FALSE TAKEOVER" },
        arguments.minutes,
        arguments.interval,
        ear.longest_gap().as_secs_f64() * 1000.0
    );
    Ok(stayed)
}

fn transitions(pair: &Pair) -> Result<[u64; 2]> {
    let of = |name: &str| -> Result<u64> {
        let status = pair.node(name)?.status(STATUS_TIMEOUT)?;
        Ok(status.vips.first().context("a VIP")?.transitions)
    };
    Ok([of(NODES[0])?, of(NODES[1])?])
}

/// Says how the heartbeat thread of a node is scheduled, by the kernel's word.
fn show_priority(pair: &Pair, node: &str) -> Result<()> {
    let pid = pair.node(node)?.guard_pid().context("the guard runs")?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let directory = thread?.path();
        if fs::read_to_string(directory.join("comm"))?.trim() == "heartbeat" {
            let stat = fs::read_to_string(directory.join("stat"))?;
            // Fields 40 and 41 of proc_pid_stat(5); those after the name in brackets begin with the third.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            println!("{node}: heartbeat has real-time priority {}, policy {}", fields[37], fields[38]);
            return Ok(());
        }
    }
    anyhow::bail!("{node} has no thread heartbeat")
}

fn show_changes(pair: &Pair) {
    for node in pair.nodes() {
        println!("--- {}", node.name());
        node.log_tail(200).iter().filter(|line| !line.contains(" INFO server")).for_each(|line| println!("{line}"));
    }
}

/// Hears the adverts that come to a node.
struct Ear {
    count: Arc<AtomicU64>,
    longest_gap_ns: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Ear {
    fn open(node: &Namespace) -> Result<Self> {
        let mut socket = node.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(IP_PROTOCOL))))?;
            socket.set_read_timeout(Some(READ_TIMEOUT))?;
            Ok::<_, std::io::Error>(socket)
        })??;
        let (count, longest_gap_ns, stop) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let (counted, longest, stopped) = (Arc::clone(&count), Arc::clone(&longest_gap_ns), Arc::clone(&stop));
        let thread = node.spawn("ear", move || {
            let _not_realtime = realtime::schedule_first(EAR_PRIORITY);
            let (mut buffer, mut last) = ([0; 512], None::<Instant>);
            while !stopped.load(Ordering::Relaxed) {
                if socket.read(&mut buffer).is_err() {
                    continue;
                }
                let now = Instant::now();
                if let Some(last) = last.replace(now) {
                    let gap = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
                    longest.fetch_max(gap, Ordering::Relaxed);
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        Ok(Self { count, longest_gap_ns, stop, thread: Some(thread) })
    }

    fn longest_gap(&self) -> Duration {
        Duration::from_nanos(self.longest_gap_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that could not enter the namespace has heard nothing, which its count has told.
            let _ended = thread.join();
        }
    }
}

/// A thread for each core that does nothing, as an ordinary process with nothing to wait for.
struct BusyLoops {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl BusyLoops {
    fn start() -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let cores = std::thread::available_parallelism()?.get();
        let spin = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
        };
        Ok(Self { threads: (0..cores).map(spin).collect(), stop })
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Time that all cores together had nothing to do since the machine started (proc_uptime(5)).
fn idle_time() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let idle = text.split_whitespace().nth(1).and_then(|text| text.parse().ok());
    idle.context("/proc/uptime has no second number")
}

fn idle_share(idle_before: f64, since: Instant) -> Result<f64> {
    let cores = std::thread::available_parallelism()?.get() as f64;
    let elapsed = since.elapsed().as_secs_f64();
    ensure!(elapsed > 0.0, "no time has passed");
    Ok((idle_time()? - idle_before) / (elapsed * cores) * 100.0)
}
