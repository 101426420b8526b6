//! What came of a drill: the figures of each event, and whether they are within its limits.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::config::scenario::{ExpectedRole, Limits, ScenarioEvent};
use crate::lab::ledger::{FailedRequests, Window};

use super::Halt;
use super::engine::Plan;
use super::site::Sighting;
use super::timeline::Timeline;

/// All that a drill found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The title of the scenario.
    pub name: String,
    /// When it began, in seconds since 1970.
    pub began_unix_s: u64,
    /// Each node, as it said before the first event.
    pub nodes: Vec<NodeFacts>,
    /// The addresses of the VIP.
    pub vip: Vec<String>,
    /// Time between adverts.
    pub advert_interval_ms: u64,
    /// What clients did, in words.
    pub load: String,
    /// How long the whole drill took.
    pub duration_ms: u64,
    /// What clients saw while nothing happened: the noise of the measurement. `None` when it did not come to that.
    pub steady: Option<Figures>,
    /// In the order in which they were played; it ends with the first that failed.
    pub events: Vec<EventReport>,
    /// The titles of all events that were to be played.
    pub planned: Vec<&'static str>,
    /// The number of the signal that ended it early.
    pub interrupted: Option<u8>,
    /// What went wrong with the drill itself, in sentences: why it could not be played, what its ledger lacks.
    pub troubles: Vec<String>,
}

/// A node before the first event.
#[derive(Debug, Clone, Serialize)]
pub struct NodeFacts {
    /// Its name.
    pub node: String,
    /// Its release.
    pub version: String,
    /// SHA-256 of its configuration.
    pub config_checksum: String,
}

/// What clients saw in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Figures {
    /// The longest time between two answered probes.
    pub without_service_ms: u64,
    /// Requests without a good answer.
    pub failed_requests: FailedRequests,
    /// Busy connections that broke.
    pub broken_connections: u64,
    /// WebSockets that broke.
    pub broken_websockets: u64,
    /// TCP connections that broke.
    pub broken_tcp_connections: u64,
    /// Users answered by another server than before.
    pub users_moved: u64,
    /// Good answers.
    pub answered: u64,
    /// Good answers a second, of all clients.
    pub requests_a_second: u64,
    /// Length of the interval.
    pub window_ms: u64,
    /// Whether the ledgers still had all of the interval; the figures are too low otherwise.
    pub complete: bool,
}

/// One event and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct EventReport {
    /// Its name.
    pub event: &'static str,
    /// What was done, in a sentence; empty when it did not come to that.
    pub story: String,
    /// `None` when there was no load.
    pub figures: Option<Figures>,
    /// Whether the VIP moved.
    pub verdict: Verdict,
    /// The nodes that held the VIP in the end.
    pub held_by: Vec<String>,
    /// Time until the other node was active.
    pub moved_ms: Option<u64>,
    /// Time from the end of the cause until the pair was whole.
    pub recovery_ms: Option<u64>,
    /// What was expected.
    pub expected: Expected,
    /// What is not as expected, in sentences; empty when all is well.
    pub faults: Vec<String>,
    /// Whether there are no such faults.
    pub passed: bool,
    /// What clients saw over time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
}

/// What was expected of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// Where the VIP ends, in a word.
    pub vip: &'static str,
    /// The longest time without service.
    pub gap_max_ms: Option<u64>,
    /// The most requests that may fail.
    pub failed_max: Option<u32>,
    /// The most users who may meet another server.
    pub users_moved_max: Option<u32>,
    /// The longest time until the pair is whole.
    pub recovery_max_ms: Option<u64>,
}

/// Whether the VIP moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It did, and service came back.
    Moved {
        /// The node that was struck.
        from: String,
        /// The other one.
        to: String,
    },
    /// It did, and the node that was struck took it back, as the preferred one.
    MovedBack {
        /// The node that was struck.
        from: String,
        /// The other one.
        to: String,
    },
    /// The node that was struck has it still, or again.
    DidNotMove,
    /// Something did not happen that should have.
    Failed {
        /// That.
        reason: String,
    },
}

impl Report {
    /// Without any event yet.
    pub fn new(plan: &Plan, sightings: Option<&[Sighting; 2]>, nodes: [String; 2]) -> Self {
        let vip = plan.vip.as_deref();
        let facts = |(node, sighting): (String, &Sighting)| {
            let status = sighting.status.as_ref()?;
            let (version, config_checksum) = (status.version.clone(), status.config_checksum.clone());
            Some(NodeFacts { node, version, config_checksum })
        };
        let group = sightings.and_then(|[first, _]| first.vip(vip));
        Self {
            name: plan.name.clone(),
            began_unix_s: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            nodes: nodes.into_iter().zip(sightings.into_iter().flatten()).filter_map(facts).collect(),
            vip: group.map(|group| group.addresses.clone()).unwrap_or_default(),
            advert_interval_ms: group.map_or(0, |group| group.advert_interval_ms),
            load: String::new(),
            duration_ms: 0,
            steady: None,
            events: Vec::new(),
            planned: plan.events.iter().map(|event| event.kind.title()).collect(),
            interrupted: None,
            troubles: Vec::new(),
        }
    }

    /// It ended before its end.
    pub fn halted(&mut self, halt: &Halt) {
        match halt {
            Halt::Interrupted { signal } => self.interrupted = Some(*signal),
            Halt::Mistaken(reason) | Halt::Failed(reason) => self.troubles.push(reason.clone()),
        }
    }

    /// Whether every event was played, and passed, and nothing else went wrong.
    pub fn is_passed(&self) -> bool {
        self.troubles.is_empty()
            && self.events.len() == self.planned.len()
            && self.events.iter().all(|event| event.passed)
    }

    /// The titles of the events that were not played.
    pub fn not_played(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.planned.iter().skip(self.events.len()).copied()
    }

    /// Every fault, those of events with the event that they belong to, in sentences.
    pub fn faults(&self) -> Vec<String> {
        let of_event = |event: &EventReport| {
            event.faults.iter().map(|fault| format!("{}: {fault}", event.event)).collect::<Vec<_>>()
        };
        self.troubles.iter().cloned().chain(self.events.iter().flat_map(of_event)).collect()
    }
}

impl Figures {
    /// Those of a window.
    pub fn of(window: &Window) -> Self {
        Self {
            without_service_ms: milliseconds(window.outage.length),
            failed_requests: window.failed,
            broken_connections: window.connections_broken,
            broken_websockets: window.websockets_broken,
            broken_tcp_connections: window.tcp_broken,
            users_moved: window.users_moved,
            answered: window.answered,
            requests_a_second: window.requests_a_second(),
            window_ms: milliseconds(window.length),
            complete: window.complete,
        }
    }

    /// Connections of every kind that broke.
    pub fn broken_total(&self) -> u64 {
        self.broken_connections + self.broken_websockets + self.broken_tcp_connections
    }
}

impl Expected {
    fn of(event: &ScenarioEvent) -> Self {
        let Limits { gap, failed, users_moved, recovery } = event.limits;
        let vip = match event.outcome {
            ExpectedRole::Moves => "moves",
            ExpectedRole::Stays => "stays",
            ExpectedRole::Either => "either",
        };
        Self {
            vip,
            gap_max_ms: gap.map(milliseconds),
            failed_max: failed,
            users_moved_max: users_moved,
            recovery_max_ms: recovery.map(milliseconds),
        }
    }
}

impl EventReport {
    /// Of an event of which nothing is known yet.
    pub fn new(event: &ScenarioEvent) -> Self {
        Self {
            event: event.kind.title(),
            story: String::new(),
            figures: None,
            verdict: Verdict::DidNotMove,
            held_by: Vec::new(),
            moved_ms: None,
            recovery_ms: None,
            expected: Expected::of(event),
            faults: Vec::new(),
            passed: false,
            timeline: None,
        }
    }

    /// Compares what came of it with what was expected.
    pub fn judge(&mut self, event: &ScenarioEvent) {
        let mut faults: Vec<String> = self.wrong_role(event.outcome).into_iter().collect();
        let mut limit = |found: Option<u64>, max: Option<u64>, what: &dyn Fn(u64) -> String, unit: &str| {
            if let (Some(found), Some(max)) = (found, max)
                && found > max
            {
                faults.push(format!("{}; the limit is {max}{unit}", what(found)));
            }
        };
        let figures = self.figures.as_ref();
        let expected = &self.expected;
        let of = |figure: fn(&Figures) -> u64| figures.map(figure);
        limit(of(|f| f.without_service_ms), expected.gap_max_ms, &|ms| format!("{ms} ms without service"), " ms");
        let failed = of(|f| f.failed_requests.total());
        limit(failed, expected.failed_max.map(u64::from), &|count| format!("{count} requests failed"), "");
        let moved = of(|f| f.users_moved);
        limit(moved, expected.users_moved_max.map(u64::from), &|count| format!("{count} users lost their server"), "");
        let whole = |ms| format!("{ms} ms until the pair was whole again");
        limit(self.recovery_ms, expected.recovery_max_ms, &whole, " ms");
        if figures.is_some_and(|figures| !figures.complete) {
            faults.push("it took longer than the ledgers keep, so that its figures are too low".to_owned());
        }
        self.passed = faults.is_empty();
        self.faults = faults;
    }

    /// What is wrong about where the VIP is.
    fn wrong_role(&self, expected: ExpectedRole) -> Option<String> {
        match (&self.verdict, expected) {
            (Verdict::Failed { reason }, _) => return Some(reason.clone()),
            (Verdict::DidNotMove, ExpectedRole::Moves) => return Some("the VIP did not move".to_owned()),
            (Verdict::Moved { from, to } | Verdict::MovedBack { from, to }, ExpectedRole::Stays) => {
                return Some(format!("the VIP moved from {from} to {to} and should have stayed"));
            }
            _ => {}
        }
        let holder = match &self.verdict {
            Verdict::Moved { to, .. } => Some(to),
            Verdict::MovedBack { from, .. } => Some(from),
            Verdict::DidNotMove | Verdict::Failed { .. } => None,
        };
        match self.held_by.as_slice() {
            [only] if holder.is_none_or(|holder| holder == only) => None,
            [] => Some("nobody held the VIP in the end".to_owned()),
            [only] => Some(format!("{only} held the VIP in the end")),
            several => Some(format!("{} all held the VIP in the end", several.join(" and "))),
        }
    }

    /// What came of it, in a few words.
    pub fn sentence(&self) -> String {
        let judged = if self.passed { "" } else { ", NOT PASSED" };
        let Some(figures) = &self.figures else { return format!("{}{judged}", self.verdict) };
        let Figures { without_service_ms, users_moved, .. } = figures;
        let (failed, broken) = (figures.failed_requests.total(), figures.broken_total());
        format!(
            "{}, {without_service_ms} ms without service, {failed} requests failed, \
             {broken} connections broken, {users_moved} users lost their server{judged}",
            self.verdict
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Moved { from, to } => write!(f, "{from} → {to}"),
            Verdict::MovedBack { from, to } => write!(f, "{from} → {to} → {from}"),
            Verdict::DidNotMove => f.write_str("did not move"),
            Verdict::Failed { .. } => f.write_str("FAILED"),
        }
    }
}

/// Whole milliseconds; more than 584 million years are cut off.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::scenario::EventKind;

    pub(crate) fn figures(without_service_ms: u64, failed: u64, broken_connections: u64) -> Figures {
        Figures {
            without_service_ms,
            failed_requests: FailedRequests {
                new_connections: failed,
                busy_connections: 1,
                users: 2,
                reconnects: 9,
                ..FailedRequests::default()
            },
            broken_connections,
            requests_a_second: 4012,
            window_ms: 3000,
            complete: true,
            ..Figures::default()
        }
    }

    pub(crate) fn event(limits: Limits) -> ScenarioEvent {
        ScenarioEvent { limits, ..ScenarioEvent::usual(EventKind::WorkerKilled) }
    }

    pub(crate) fn moved(held_by: &[&str], limits: Limits) -> EventReport {
        let event = event(limits);
        let mut report = EventReport {
            figures: Some(figures(23, 12, 16)),
            verdict: Verdict::Moved { from: "lb-a".to_owned(), to: "lb-b".to_owned() },
            held_by: held_by.iter().map(|node| (*node).to_owned()).collect(),
            recovery_ms: Some(800),
            ..EventReport::new(&event)
        };
        report.judge(&event);
        report
    }

    pub(crate) fn report(events: Vec<EventReport>) -> Report {
        Report {
            interrupted: None,
            troubles: Vec::new(),
            name: "a drill".to_owned(),
            began_unix_s: 1_700_000_000,
            nodes: Vec::new(),
            vip: vec!["192.0.2.100/24".to_owned()],
            advert_interval_ms: 100,
            load: "500 new connections a second, 16 kept connections and 40 users with a cookie".to_owned(),
            duration_ms: 48_700,
            steady: Some(figures(4, 0, 0)),
            events,
            planned: vec!["worker killed", "link cut", "guard killed", "clean stop", "worker hung"],
        }
    }

    #[test]
    fn event_passes_only_when_the_other_node_alone_has_the_vip() {
        let faults = |held_by: &[&str]| moved(held_by, Limits::default()).faults;
        assert!(moved(&["lb-b"], Limits::default()).passed);
        assert_eq!(faults(&["lb-a", "lb-b"]), ["lb-a and lb-b all held the VIP in the end"]);
        assert_eq!(faults(&["lb-a"]), ["lb-a held the VIP in the end"]);
        assert_eq!(faults(&[]), ["nobody held the VIP in the end"]);
        let mut stayed = EventReport { verdict: Verdict::DidNotMove, ..moved(&["lb-a"], Limits::default()) };
        stayed.judge(&event(Limits::default()));
        assert_eq!(stayed.faults, ["the VIP did not move"]);
        let may_stay = ScenarioEvent { outcome: ExpectedRole::Either, ..event(Limits::default()) };
        stayed.judge(&may_stay);
        assert!(stayed.passed);
        let mut back = EventReport {
            verdict: Verdict::MovedBack { from: "lb-a".to_owned(), to: "lb-b".to_owned() },
            ..moved(&["lb-a"], Limits::default())
        };
        back.judge(&event(Limits::default()));
        assert!(back.passed);
        back.judge(&ScenarioEvent { outcome: ExpectedRole::Stays, ..may_stay });
        assert_eq!(back.faults, ["the VIP moved from lb-a to lb-b and should have stayed"]);
    }

    #[test]
    fn each_limit_holds_up_to_its_value() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let at = Limits { gap: ms(23), failed: Some(15), users_moved: Some(0), recovery: ms(800) };
        assert_eq!(moved(&["lb-b"], at).faults, [""; 0]);
        let below = Limits { gap: ms(22), failed: Some(14), users_moved: Some(0), recovery: ms(799) };
        let expected = [
            "23 ms without service; the limit is 22 ms",
            "15 requests failed; the limit is 14",
            "800 ms until the pair was whole again; the limit is 799 ms",
        ];
        assert_eq!(moved(&["lb-b"], below).faults, expected);
    }

    #[test]
    fn drill_passes_only_when_every_event_was_played() {
        let played = |count| report(vec![moved(&["lb-b"], Limits::default()); count]);
        assert!(!played(4).is_passed());
        assert!(played(5).is_passed());
        assert_eq!(played(4).not_played().collect::<Vec<_>>(), ["worker hung"]);
        let mut incomplete = played(5);
        incomplete.troubles.push("12 requests are missing in the ledger".to_owned());
        assert!(!incomplete.is_passed());
        assert_eq!(incomplete.faults(), ["12 requests are missing in the ledger"]);
    }
}
