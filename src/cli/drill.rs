//! `baton drill`: plays failover events on a real pair under load, and proves what came of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::scenario::Scenario;
use crate::drill::Halt;
use crate::drill::Spectator as _;
use crate::drill::engine::{Engine, Plan};
use crate::drill::outcome::Report;
use crate::drill::remote::Remote;
use crate::drill::report;
use crate::drill::target::{described, load_spec};
use crate::lab::journal::{Journal, Losses};
use crate::lab::load::{Load, LoadSpec, ask_once_here};

use super::results;
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
at its end, when it fails, and after Ctrl-C or when the terminal is closed; then the reports have what was played until then. \
Each of them is written whole or not at all, also when nothing could be played, which it says then; one that cannot be \
written keeps no other from it. A ledger that lacks requests says how many in its last line, and the drill is not passed.

The exit status is 0 when every event was within its limits and all files could be written, 1 when not so or the drill could \
not be played to its end, 2 when the scenario has mistakes or is not about the pair that it leads to, and 128 + the number of a signal that ended it (130 for Ctrl-C, 129 for a terminal that was closed).";

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
    let node_names = scenario.nodes.each_ref().map(|node| node.name.clone());
    let plan = plan(&scenario);
    let mut report = Report::new(&plan, None, node_names.clone());
    let mut screen = Screen::new(node_names, scenario.vip.clone());
    let played = play(scenario, plan, arguments, &mut screen, &mut report);
    screen.finish();
    let is_told = tell(&report, played.as_ref().err(), arguments);
    // A terminal that was closed meanwhile is why it could not be told.
    let signal = report.interrupted.or_else(|| screen.signal().filter(|_| !is_told));
    match (played, signal) {
        (Err(Halt::Mistaken(_)), _) => ExitCode::from(USAGE),
        (_, Some(signal)) => ExitCode::from(128_u8.saturating_add(signal)),
        (Ok(()), None) if report.is_passed() && is_told => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn plan(scenario: &Scenario) -> Plan {
    Plan {
        name: scenario.name.clone(),
        vip: scenario.vip.clone(),
        steady: scenario.steady,
        quiet: scenario.quiet,
        hold: scenario.hold,
        start_timeout: START_TIMEOUT,
        events: scenario.events.clone(),
    }
}

/// Plays it, and writes down what came of it, which is all that there is when it did not come to its end.
fn play(
    scenario: Scenario,
    plan: Plan,
    arguments: &Arguments,
    screen: &mut Screen,
    report: &mut Report,
) -> Result<(), Halt> {
    let prepared = prepare(&scenario, arguments).and_then(|(spec, journal)| {
        report.load = described(&spec);
        Ok((spec, journal, Remote::begin(scenario)?))
    });
    let (spec, journal, pair) = prepared.inspect_err(|halt| report.halted(halt))?;
    let mut engine = Engine::new(pair, plan, screen);
    let played = engine.play(report, |engine| {
        if let Err(why) = ask_once_here(&spec.target, spec.answer_timeout) {
            let (host, path, address) = (&spec.target.host, &spec.target.path, spec.target.address);
            let why = format!("{host}{path} at {address} gives clients no good answer: {why}");
            return Err(Halt::Failed(format!("{why}; mend that, or correct [load] url")));
        }
        engine.load = Some(Load::start_here(spec, journal)?);
        Ok(())
    });
    if let Some(losses) = engine.load.take().and_then(Load::finish) {
        report.troubles.extend(missing(&losses));
    }
    played
}

/// Finds what cannot work before anything is done to the pair. What an earlier drill wrote is left as it is until this one is over.
fn prepare(scenario: &Scenario, arguments: &Arguments) -> Result<(LoadSpec, Option<Journal>), Halt> {
    let unwritable = results::check(&[&arguments.json, &arguments.junit, &arguments.report]);
    if !unwritable.is_empty() {
        return Err(Halt::Failed(unwritable.join("; ")));
    }
    let spec = load_spec(&scenario.load)?;
    let failed = |path: &Path, error| Halt::Failed(format!("failed to write the ledger {}: {error}", path.display()));
    let journal = arguments.ledger.as_deref().map(|path| Journal::create(path).map_err(|error| failed(path, error)));
    Ok((spec, journal.transpose()?))
}

/// What the ledger lacks, in a sentence; `None` when it is whole.
fn missing(losses: &Losses) -> Option<String> {
    match losses {
        Losses { lines: 0, error: None } => None,
        Losses { lines, error: None } => {
            Some(format!("{lines} requests are missing in the ledger: they came faster than it could be written"))
        }
        Losses { lines, error: Some(error) } => Some(format!("{lines} requests are missing in the ledger: {error}")),
    }
}

/// Writes the files, prints the table, and says what went wrong: each whatever becomes of the others. Files come first, as a terminal
/// may take nothing any more. Whether all of what was asked for could be written.
fn tell(report: &Report, halt: Option<&Halt>, arguments: &Arguments) -> bool {
    let files = [
        (&arguments.json, report::json(report)),
        (&arguments.junit, report::junit(report)),
        (&arguments.report, report::html(report)),
    ];
    let mut unwritten = results::write_all(&files.map(|(path, text)| results::Report { path, text }));
    // Where nothing was measured, there is nothing to be shown.
    if report.steady.is_some() {
        let verdict = if report.is_passed() && unwritten.is_empty() { "passed" } else { "NOT PASSED" };
        if let Err(error) = super::answer(&format!("\n{}{verdict}\n", report::table(report))) {
            unwritten.push(format!("failed to write the table: {error}"));
        }
    }
    let mut complaints = report.troubles.clone();
    complaints.extend(unwritten.iter().filter(|text| !report.troubles.contains(text)).cloned());
    let place = match halt {
        Some(Halt::Mistaken(_)) => format!("{}: ", arguments.scenario.display()),
        _ => String::new(),
    };
    for complaint in complaints {
        super::complain(&format!("baton drill: {place}{complaint}"));
    }
    if report.interrupted.is_some() {
        super::complain("baton drill: interrupted; what was broken has been mended, or is named above");
    }
    unwritten.is_empty()
}
