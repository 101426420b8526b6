//! `baton demo`: a real pair on this machine, under load, losing its active node in five ways.
//!
//! Everything happens in namespaces of its own: it needs no root, touches nothing of the machine, and leaves nothing behind.

mod hold;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::scenario::{EventKind, Limits, ScenarioEvent};
use crate::drill::Halt;
use crate::drill::engine::{Engine, Plan};
use crate::drill::outcome::{EventReport, Report, Verdict};
use crate::drill::rehearsal::Rehearsal;
use crate::drill::report;
use crate::drill::target::described;
use crate::lab::load::{LoadSpec, ask_once};
use crate::lab::namespace;
use crate::lab::namespace::Namespace;
use crate::lab::pair::{NODES, Pair, PairSpec, TARGET, own_program};
use crate::units::AdvertInterval;

use super::results;
use super::screen::Screen;

/// Time for both nodes to start and one of them to take the VIP.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the pair is watched without any event, to tell the noise of the measurement from an outage.
const STEADY_TIME: Duration = Duration::from_secs(3);

/// Time for each thing that has to happen after an event. The slowest allowed (a hung worker) takes one second.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Adverts that are missed before a node takes over, and one more for the wait to begin at a bad time.
const ADVERTS_MISSED_MAX: u32 = 4;

/// How long no client may have failed before an event counts as over.
const QUIET_TIME: Duration = Duration::from_secs(3);

/// Time for one request while the pair starts.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(300);

/// Lines of each node's log shown after a failure.
const LOG_TAIL_LINES: usize = 20;

/// The ways in which the active node is lost, in the order in which they are played.
const EVENTS: [EventKind; 5] = [
    EventKind::WorkerKilled,
    EventKind::LinkCut,
    EventKind::GuardKilled,
    EventKind::NodeStopped,
    EventKind::WorkerHung,
];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Leave the pair running instead of failing it, and say how to reach it from another terminal
    #[arg(long)]
    hold: bool,
    /// Time between two adverts of the active node, 10ms to 40.95s
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = parse_interval)]
    advert_interval: AdvertInterval,
    /// Write the figures to a file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with a picture of each event
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the demo. The status is 0 only when the VIP moved and service came back at every event, 128 + the signal's
/// number when a signal ended it (130 for Ctrl-C), else 1.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    // First of all: a process can enter namespaces only before it has threads.
    let entered = match namespace::enter() {
        Ok(entered) => entered,
        Err(forbidden) => {
            super::complain(&format!("baton demo: {forbidden}"));
            return ExitCode::FAILURE;
        }
    };
    let mut screen = Screen::new(NODES.map(str::to_owned), None);
    let spec = PairSpec {
        program: own_program(),
        advert_interval: arguments.advert_interval,
        config_extra: String::new(),
        netns_prefix: None,
    };
    let pair = match Pair::build(&spec) {
        Ok(pair) => pair,
        Err(error) => {
            super::complain(&format!("baton demo: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut engine = Engine::new(Rehearsal { pair }, plan(arguments.advert_interval), &mut screen);
    let outcome = if arguments.hold { hold::hold(&mut engine, entered) } else { rehearse(&mut engine, arguments) };
    engine.load = None;
    let mut pair = engine.site.pair;
    screen.finish();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Halt::Interrupted { signal }) => ExitCode::from(128_u8.saturating_add(signal)),
        Err(Halt::Mistaken(error) | Halt::Failed(error)) => {
            explain_failure(&mut pair, &error);
            ExitCode::FAILURE
        }
    }
}

/// The demo as a drill: nothing is limited but that the VIP moves and service comes back.
fn plan(advert_interval: AdvertInterval) -> Plan {
    let patience = advert_interval.get() * ADVERTS_MISSED_MAX;
    let event = |kind| ScenarioEvent {
        limits: Limits::default(),
        timeout: EVENT_TIMEOUT + patience,
        ..ScenarioEvent::usual(kind)
    };
    Plan {
        name: "demo on this machine".to_owned(),
        vip: None,
        steady: STEADY_TIME,
        quiet: QUIET_TIME,
        hold: Duration::ZERO,
        start_timeout: START_TIMEOUT + patience,
        events: EVENTS.map(event).to_vec(),
    }
}

/// Starts the pair, plays every event, and shows the figures.
fn rehearse(engine: &mut Engine<'_, Rehearsal>, arguments: &Arguments) -> Result<(), Halt> {
    engine.spectator.say("building: 1 switch, 1 client, 3 servers, 2 nodes");
    start(engine)?;
    let mut report = Report::new(&engine.plan, None, NODES.map(str::to_owned));
    report.load = described(&LoadSpec::steady(TARGET, Vec::new()));
    engine.play(&mut report, |engine| {
        engine.load = Some(engine.site.pair.start_load()?);
        Ok(())
    })?;
    show(&report, arguments)
}

/// Starts both nodes and waits until one is active and answers.
fn start(engine: &mut Engine<'_, Rehearsal>) -> Result<String, Halt> {
    engine.site.pair.start()?;
    let timeout = engine.plan.start_timeout;
    engine.wait_until_whole(timeout)?;
    let client = engine.site.pair.client()?.clone();
    engine.until("an answer through the VIP", timeout, |_| Ok(is_answered(&client).then_some(())))?;
    Ok(engine.holders().concat())
}

/// Whether a request through the VIP is answered.
fn is_answered(client: &Namespace) -> bool {
    matches!(ask_once(client, TARGET, REQUEST_TIMEOUT), Ok(Ok(_)))
}

/// Prints the table, writes the files, and judges.
fn show(report: &Report, arguments: &Arguments) -> Result<(), Halt> {
    let files = [(&arguments.json, report::json(report)), (&arguments.report, report::html(report))];
    let files = files.map(|(path, text)| results::Report { path, text });
    let mut complaints = results::write_all(&files);
    if let Err(error) = super::answer(&format!("\n{}", report::table(report))) {
        complaints.push(format!("failed to print the figures: {error}"));
    }
    if let Some(signal) = report.interrupted {
        complaints.iter().for_each(|complaint| super::complain(&format!("baton demo: {complaint}")));
        return Err(Halt::Interrupted { signal });
    }
    if !complaints.is_empty() {
        return Err(Halt::Failed(complaints.join("; ")));
    }
    match report.events.iter().find(|event| !event.passed) {
        None => Ok(()),
        Some(EventReport { verdict: Verdict::Failed { reason }, .. }) => Err(Halt::Failed(reason.clone())),
        Some(event) => Err(Halt::Failed(format!("{}: the VIP did not end on the other node alone", event.event))),
    }
}

/// Says what went wrong, what the nodes said last, and where all of it is kept.
fn explain_failure(pair: &mut Pair, error: &str) {
    pair.keep_directory();
    super::complain(&format!("baton demo: {error}"));
    for node in pair.nodes() {
        super::complain(&format!("\nthe last lines of {}:", node.log().display()));
        for line in node.log_tail(LOG_TAIL_LINES) {
            super::complain(&format!("  {line}"));
        }
    }
    super::complain(&format!("\nconfiguration and logs are kept in {}", pair.directory().display()));
}

/// A whole number of `ms` or `s`, within the range of the wire.
fn parse_interval(text: &str) -> Result<AdvertInterval, String> {
    let rule = || "write 10ms to 40.95s, in steps of 10ms, for example 100ms or 1s".to_owned();
    let (digits, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1000),
        (None, None) => return Err(rule()),
    };
    let count: u64 = digits.parse().map_err(|_| rule())?;
    let interval = count.checked_mul(unit_ms).map(Duration::from_millis);
    interval.and_then(AdvertInterval::new).ok_or_else(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advert_interval_is_within_the_range_of_the_wire() {
        let parsed = |text| parse_interval(text).ok().map(|interval| interval.get().as_millis());
        assert_eq!(parsed("100ms"), Some(100));
        assert_eq!(parsed("1s"), Some(1000));
        assert_eq!(parsed("40s"), Some(40_000));
        assert_eq!(parsed("41s"), None);
        assert_eq!(parsed("9ms"), None);
        assert_eq!(parsed("10ms"), Some(10));
        assert_eq!(parsed("100"), None);
        assert_eq!(parsed("s"), None);
        assert_eq!(parsed("-1s"), None);
    }
}
