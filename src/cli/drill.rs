//! `baton drill`: plays failover events on a real pair under load, and proves what came of them.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::scenario::Scenario;
use crate::drill::Halt;
use crate::drill::engine::{Engine, Plan};
use crate::drill::outcome::Report;
use crate::drill::remote::Remote;
use crate::drill::report;
use crate::drill::target::{described, load_spec};
use crate::lab::journal::Journal;
use crate::lab::load::{Load, ask_once_here};

use super::screen::Screen;

/// What `--help` says.
pub(super) const ABOUT: &str = "\
Drill a pair: events under load, and a report of what clients noticed

The scenario names both nodes and how a shell on each is reached (SSH, nsenter, ip netns exec, or this machine), where \
clients ask, and which events are played: planned switchover, worker killed or hung, guard killed, node stopped, link cut, \
node rebooted, power cut, server killed, configuration reloaded, rolling upgrade. An annotated one is \
/usr/share/doc/baton/examples/drill.toml.

Clients run on this machine, which should be neither of the nodes. A drill begins only on the pair that the scenario names, by \
the word of the nodes themselves (their names, their peers, the VIP), and only when it is whole: both nodes answer, are fit \
and in sync, and one of them holds the VIP. Each event waits for that again. What an event broke is mended \
at its end, when it fails, and after Ctrl-C; then the reports have what was played until then.

The exit status is 0 when every event was within its limits, 1 when one was not or the drill could not be played to its \
end, 2 when the scenario has mistakes or is not about the pair that it leads to, and 128 + the number of a signal that ended it (130 for Ctrl-C).";

/// Time for the pair to be found whole, and clients to be served, before the first event.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// The status for a scenario with mistakes, as for a wrong command line.
const USAGE: u8 = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is played, on which pair
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// Check the scenario and the files that it names, and do nothing to the pair
    #[arg(long)]
    check: bool,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the verdicts to a file, as JUnit's XML for CI systems
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a page with a picture of each event: one file, for any browser
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write every single request to a file, a line of JSON each
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

/// Plays the scenario.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let scenario = match Scenario::load(&arguments.scenario) {
        Ok(scenario) => scenario,
        Err(report) => {
            super::complain(&report.to_string());
            return ExitCode::from(USAGE);
        }
    };
    if arguments.check {
        let events: Vec<_> = scenario.events.iter().map(|event| event.kind.title()).collect();
        let text = format!("{} is good: {}\n", arguments.scenario.display(), events.join(", "));
        return if super::answer(&text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let interrupted = |signal: u8| {
        super::complain("baton drill: interrupted; what was broken has been mended, or is named above");
        ExitCode::from(128_u8.saturating_add(signal))
    };
    match play(scenario, arguments) {
        Ok(Report { interrupted: Some(signal), .. }) => interrupted(signal),
        Ok(report) if report.is_passed() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(Halt::Interrupted { signal }) => interrupted(signal),
        Err(Halt::Mistaken(reason)) => {
            super::complain(&format!("baton drill: {}: {reason}", arguments.scenario.display()));
            ExitCode::from(USAGE)
        }
        Err(Halt::Failed(reason)) => {
            super::complain(&format!("baton drill: {reason}"));
            ExitCode::FAILURE
        }
    }
}

/// Plays it, and gives what came of it.
fn play(scenario: Scenario, arguments: &Arguments) -> Result<Report, Halt> {
    // What cannot work is found before anything is done to the pair.
    for path in [&arguments.json, &arguments.junit, &arguments.report].into_iter().flatten() {
        // What an earlier drill wrote is left as it is until this one is over.
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|error| failed(&format!("report {}", path.display()), &error))?;
    }
    let spec = load_spec(&scenario.load)?;
    let load = described(&spec);
    let journal =
        arguments.ledger.as_deref().map(Journal::create).transpose().map_err(|error| failed("ledger", &error))?;
    let mut screen = Screen::new(scenario.nodes.each_ref().map(|node| node.name.clone()), scenario.vip.clone());
    let plan = Plan {
        name: scenario.name.clone(),
        vip: scenario.vip.clone(),
        steady: scenario.steady,
        quiet: scenario.quiet,
        hold: scenario.hold,
        start_timeout: START_TIMEOUT,
        events: scenario.events.clone(),
    };
    let mut engine = Engine::new(Remote::begin(scenario)?, plan, &mut screen);
    let played = engine.play(|engine| {
        if let Err(failure) = ask_once_here(&spec.target, spec.answer_timeout) {
            let (host, path, address) = (&spec.target.host, &spec.target.path, spec.target.address);
            let why = format!("{host}{path} at {address} gives clients no good answer ({failure:?})");
            return Err(Halt::Failed(format!("{why}: mend that, or correct [load] url")));
        }
        engine.load = Some(Load::start_here(spec, journal)?);
        Ok(())
    });
    engine.load = None;
    drop(engine);
    screen.finish();
    let report = Report { load, ..played? };
    show(&report, arguments)?;
    Ok(report)
}

/// Prints the table and writes the files.
fn show(report: &Report, arguments: &Arguments) -> Result<(), Halt> {
    super::answer(&format!("\n{}", report::table(report))).map_err(|error| failed("table", &error))?;
    let files = [
        (&arguments.json, report::json(report)),
        (&arguments.junit, report::junit(report)),
        (&arguments.report, report::html(report)),
    ];
    for (path, text) in files {
        if let Some(path) = path {
            fs::write(path, text).map_err(|error| failed(&format!("report {}", path.display()), &error))?;
        }
    }
    let verdict = if report.is_passed() { "passed" } else { "NOT PASSED" };
    super::answer(&format!("{verdict}\n")).map_err(|error| failed("verdict", &error))
}

fn failed(what: &str, error: &io::Error) -> Halt {
    Halt::Failed(format!("failed to write the {what}: {error}"))
}
