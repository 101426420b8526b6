//! `baton demo`: a real pair on this machine, under load, losing its active node in five ways.
//!
//! Everything happens in namespaces of its own: it needs no root, touches nothing of the machine, and leaves nothing behind.

mod event;
mod hold;
mod interrupt;
mod report;
mod screen;
mod stage;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::lab::LabError;
use crate::lab::namespace;
use crate::lab::pair::{Pair, PairSpec, own_program};
use crate::units::AdvertInterval;

use event::Event;
use interrupt::Interrupt;
use report::{EventReport, Report, Verdict};
use stage::{Halt, Stage};

/// Time for both nodes to start and one of them to take the VIP.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the pair is watched without any event, to tell the noise of the measurement from an outage.
const STEADY_TIME: Duration = Duration::from_secs(3);

/// Time for the other node to take the VIP after an event. The slowest allowed (a hung worker) takes one second.
const MOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a pair to be whole again after the cause of an event is gone.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long no client may have failed before an event counts as over.
const QUIET_TIME: Duration = Duration::from_secs(3);

/// Lines of each node's log shown after a failure.
const LOG_TAIL_LINES: usize = 20;

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
    let interrupt = Interrupt::listen();
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
    let mut stage = Stage::new(pair, interrupt, arguments.advert_interval.get());
    let outcome = if arguments.hold { hold::hold(&mut stage, entered) } else { rehearse(&mut stage, arguments) };
    stage.screen.finish();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Halt::Interrupted { signal }) => ExitCode::from(128_u8.saturating_add(signal)),
        Err(Halt::Failed(error)) => {
            explain_failure(&mut stage.pair, &error);
            ExitCode::FAILURE
        }
    }
}

/// Starts the pair, plays every event, and shows the figures.
fn rehearse(stage: &mut Stage, arguments: &Arguments) -> Result<(), Halt> {
    let began = Instant::now();
    stage.say("building: 1 switch, 1 client, 3 servers, 2 nodes");
    let active = start(stage)?;
    stage.say(&format!("{active} is active and serves; load starts"));
    stage.load = Some(stage.pair.start_load()?);
    let mut report = Report::new(arguments.advert_interval, watch_steady(stage)?);
    let mut failure = None;
    for (number, event) in (1..).zip(Event::ALL) {
        match play(stage, number, event) {
            Ok(played) => report.events.push(played),
            Err(Halt::Failed(error)) => {
                report.events.push(EventReport::failed(event, error.to_string()));
                failure = Some(error);
                break;
            }
            Err(interrupted) => return Err(interrupted),
        }
    }
    report.duration_ms = report::milliseconds(began.elapsed());
    stage.screen.finish();
    show(&report, arguments)?;
    failure.map_or(Ok(()), |error| Err(Halt::Failed(error)))
}

/// Starts both nodes and waits until one is active and answers.
fn start(stage: &mut Stage) -> Result<String, Halt> {
    stage.pair.start()?;
    let active = stage.wait_until_healthy(START_TIMEOUT)?;
    let client = stage.pair.client()?.clone();
    stage.until("an answer through the VIP", START_TIMEOUT, |_| Ok(stage::is_answered(&client).then_some(())))?;
    Ok(active)
}

/// Watches the pair while nothing happens.
fn watch_steady(stage: &mut Stage) -> Result<report::Figures, Halt> {
    stage.begin("no event");
    stage.until("clients to be at work", START_TIMEOUT, |stage| Ok(stage.is_quiet(QUIET_TIME).then_some(())))?;
    let from = Instant::now();
    stage.until("the time to pass", STEADY_TIME * 2, |_| Ok((from.elapsed() >= STEADY_TIME).then_some(())))?;
    Ok(stage.figures(from, Instant::now()))
}

/// Plays one event on a healthy pair and brings the pair back to health.
fn play(stage: &mut Stage, number: usize, event: Event) -> Result<EventReport, Halt> {
    let struck = stage.wait_until_healthy(RECOVERY_TIMEOUT)?;
    stage.begin(&format!("{number}/{} {}", Event::ALL.len(), event.title()));
    stage.say(&format!("event {number}: {}", event.story(&struck)));
    let from = Instant::now();
    event.strike(&mut stage.pair, &struck)?;
    // The lapse that matters is in the ledger of the clients; this only waits for it to be over.
    let what = format!("the VIP to leave {struck} and the other node to hold it");
    stage.until(&what, MOVE_TIMEOUT, |stage| {
        Ok(stage.pair.holders()?.iter().any(|holder| *holder != struck).then_some(()))
    })?;
    let moved = Instant::now();
    stage.until("service to come back", MOVE_TIMEOUT, |stage| Ok(stage.answered_since(moved).then_some(())))?;
    stage
        .until(event.end_awaited(), MOVE_TIMEOUT, |stage| Ok(event.is_over(&mut stage.pair, &struck)?.then_some(())))?;
    event.repair(&mut stage.pair, &struck)?;
    let now_active = stage.wait_until_healthy(RECOVERY_TIMEOUT)?;
    stage.until("clients to recover", RECOVERY_TIMEOUT, |stage| Ok(stage.is_quiet(QUIET_TIME).then_some(())))?;
    let figures = stage.figures(from, Instant::now());
    let held_by = stage.pair.holders()?;
    let verdict =
        if now_active == struck { Verdict::DidNotMove } else { Verdict::Moved { from: struck, to: now_active } };
    stage.say(&format!("event {number} over: {}", report::sentence(&verdict, &figures)));
    Ok(EventReport { event: event.title(), figures: Some(figures), verdict, held_by })
}

/// Prints the table, writes the file, and judges.
fn show(report: &Report, arguments: &Arguments) -> Result<(), Halt> {
    let lost = LabError::system::<io::Error>;
    super::answer(&format!("\n{report}")).map_err(lost("print the figures"))?;
    if let Some(path) = &arguments.json {
        let written = fs::write(path, format!("{}\n", report.to_json()));
        written.map_err(lost(&format!("write {}", path.display())))?;
    }
    match report.events.iter().find(|event| !event.is_passed()) {
        Some(EventReport { verdict: Verdict::Failed { .. }, .. }) | None => Ok(()),
        Some(event) => Err(Halt::Failed(LabError::Process {
            name: event.event.to_owned(),
            state: "the VIP did not end on the other node alone".to_owned(),
        })),
    }
}

/// Says what went wrong, what the nodes said last, and where all of it is kept.
fn explain_failure(pair: &mut Pair, error: &LabError) {
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
