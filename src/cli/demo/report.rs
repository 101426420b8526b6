//! The figures of a demo, as a table and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::lab::ledger::{FailedRequests, Window};
use crate::units::AdvertInterval;

use super::event::Event;

/// All that a demo found.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// Time between adverts.
    pub(super) advert_interval_ms: u64,
    /// How long the whole demo took.
    pub(super) duration_ms: u64,
    /// What clients saw while nothing happened: the noise of the measurement.
    pub(super) steady: Figures,
    /// In the order in which they were played; it ends with the first that failed.
    pub(super) events: Vec<EventReport>,
}

/// What clients saw in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct Figures {
    /// The longest time between two answered probes.
    without_service_ms: u64,
    /// Requests without a good answer.
    failed_requests: FailedRequests,
    /// Busy connections that broke.
    broken_connections: u64,
    /// Users answered by another server than before.
    users_moved: u64,
    /// Good answers a second, of all clients.
    requests_a_second: u64,
    /// Length of the interval.
    window_ms: u64,
}

/// One event and what came of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EventReport {
    /// Its name.
    pub(super) event: &'static str,
    /// `None` when it failed.
    pub(super) figures: Option<Figures>,
    /// Whether the VIP moved.
    pub(super) verdict: Verdict,
    /// The nodes that carried the VIP in the end, by what the kernel said.
    pub(super) held_by: Vec<String>,
}

/// Whether the VIP moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It did, and service came back.
    Moved {
        /// The node that was struck.
        from: String,
        /// The other one.
        to: String,
    },
    /// The node that was struck has it again.
    DidNotMove,
    /// Something did not happen that should have.
    Failed {
        /// That.
        reason: String,
    },
}

impl Report {
    /// Without any event yet.
    pub(super) fn new(advert_interval: AdvertInterval, steady: Figures) -> Self {
        Self { advert_interval_ms: milliseconds(advert_interval.get()), duration_ms: 0, steady, events: Vec::new() }
    }

    /// All of it, with `passed`.
    pub(super) fn to_json(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.insert("passed".to_owned(), self.is_passed().into());
        }
        format!("{value:#}")
    }

    /// Whether every event was played, and passed.
    pub(super) fn is_passed(&self) -> bool {
        self.events.len() == Event::ALL.len() && self.events.iter().all(EventReport::is_passed)
    }
}

impl Figures {
    /// Those of a window.
    pub(super) fn of(window: &Window) -> Self {
        Self {
            without_service_ms: milliseconds(window.outage.length),
            failed_requests: window.failed,
            broken_connections: window.connections_broken,
            users_moved: window.users_moved,
            requests_a_second: window.requests_a_second(),
            window_ms: milliseconds(window.length),
        }
    }

    fn cells(&self) -> [String; 4] {
        [
            format!("{} ms", self.without_service_ms),
            self.failed_requests.total().to_string(),
            self.broken_connections.to_string(),
            self.users_moved.to_string(),
        ]
    }
}

impl EventReport {
    /// An event that did not come to its end.
    pub(super) fn failed(event: Event, reason: String) -> Self {
        Self { event: event.title(), figures: None, verdict: Verdict::Failed { reason }, held_by: Vec::new() }
    }

    /// Whether the VIP moved to the other node and was on that node alone in the end.
    pub(super) fn is_passed(&self) -> bool {
        match &self.verdict {
            Verdict::Moved { to, .. } => self.held_by == [to.as_str()],
            Verdict::DidNotMove | Verdict::Failed { .. } => false,
        }
    }
}

/// What came of an event, in a few words.
pub(super) fn sentence(verdict: &Verdict, figures: &Figures) -> String {
    let Figures { without_service_ms, broken_connections, users_moved, .. } = figures;
    let failed = figures.failed_requests.total();
    format!(
        "{verdict}, {without_service_ms} ms without service, {failed} requests failed, \
         {broken_connections} connections broken, {users_moved} users lost their server"
    )
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Moved { from, to } => write!(f, "{from} → {to}"),
            Verdict::DidNotMove => f.write_str("did not move"),
            Verdict::Failed { .. } => f.write_str("FAILED"),
        }
    }
}

/// Whole milliseconds; more than 584 million years are cut off.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Column heads, in two rows.
const HEADS: [[&str; 7]; 2] = [
    ["", "without", "failed", "broken", "users who lost", "", "held in the"],
    ["event", "service", "requests", "connections", "their server", "VIP moved", "end by"],
];

impl fmt::Display for Report {
    /// The table. Figures are on the right of their columns, words on the left.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for head in HEADS {
            write_row(f, head)?;
        }
        let [outage, failed, broken, moved] = self.steady.cells();
        write_row(f, ["(no event)", &outage, &failed, &broken, &moved, "", ""])?;
        for event in &self.events {
            let [outage, failed, broken, moved] =
                event.figures.as_ref().map_or_else(|| ["-"; 4].map(str::to_owned), Figures::cells);
            let held_by = if event.held_by.is_empty() { "-".to_owned() } else { event.held_by.join(" and ") };
            write_row(f, [event.event, &outage, &failed, &broken, &moved, &event.verdict.to_string(), &held_by])?;
            if let Verdict::Failed { reason } = &event.verdict {
                writeln!(f, "  {reason}")?;
            }
        }
        for event in Event::ALL.iter().skip(self.events.len()) {
            write_row(f, [event.title(), "-", "-", "-", "-", "not played", ""])?;
        }
        let seconds = self.duration_ms / 1000;
        writeln!(f, "\nadverts every {} ms; {} requests a second; {seconds} s in all", self.advert_interval_ms, {
            self.steady.requests_a_second
        })?;
        writeln!(
            f,
            "A failed request is any of 500 new connections a second, 16 busy connections and 40 users with a cookie."
        )
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, [event, outage, failed, broken, moved, vip, held]: [&str; 7]) -> fmt::Result {
    let row = format!("{event:<14} {outage:>8}  {failed:>8}  {broken:>11}  {moved:>14}   {vip:<13}  {held}");
    writeln!(f, "{}", row.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(without_service_ms: u64, failed: u64, broken_connections: u64) -> Figures {
        Figures {
            without_service_ms,
            failed_requests: FailedRequests { new_connections: failed, busy_connections: 1, users: 2, reconnects: 9 },
            broken_connections,
            users_moved: 0,
            requests_a_second: 4012,
            window_ms: 3000,
        }
    }

    fn moved(held_by: &[&str]) -> EventReport {
        EventReport {
            event: "worker killed",
            figures: Some(figures(23, 12, 16)),
            verdict: Verdict::Moved { from: "lb-a".to_owned(), to: "lb-b".to_owned() },
            held_by: held_by.iter().map(|node| (*node).to_owned()).collect(),
        }
    }

    fn report(events: Vec<EventReport>) -> Report {
        Report { advert_interval_ms: 100, duration_ms: 48_700, steady: figures(4, 0, 0), events }
    }

    #[test]
    fn table_shows_what_was_played_what_failed_and_what_was_not() {
        let failed = EventReport::failed(Event::LinkCut, "waited 10000 ms in vain: service to come back".to_owned());
        let expected = "\
                \x20               without    failed       broken  users who lost                  held in the
event           service  requests  connections    their server   VIP moved      end by
(no event)         4 ms         3            0               0
worker killed     23 ms        15           16               0   lb-a → lb-b    lb-b
link cut              -         -            -               -   FAILED         -
  waited 10000 ms in vain: service to come back
guard killed          -         -            -               -   not played
clean stop            -         -            -               -   not played
worker hung           -         -            -               -   not played

adverts every 100 ms; 4012 requests a second; 48 s in all
A failed request is any of 500 new connections a second, 16 busy connections and 40 users with a cookie.
";
        assert_eq!(report(vec![moved(&["lb-b"]), failed]).to_string(), expected);
    }

    #[test]
    fn event_passes_only_when_the_other_node_alone_has_the_vip() {
        assert!(moved(&["lb-b"]).is_passed());
        assert!(!moved(&["lb-a", "lb-b"]).is_passed());
        assert!(!moved(&["lb-a"]).is_passed());
        assert!(!moved(&[]).is_passed());
        assert!(!EventReport { verdict: Verdict::DidNotMove, ..moved(&["lb-a"]) }.is_passed());
    }

    #[test]
    fn demo_passes_only_when_every_event_was_played() {
        let played = |count| report(vec![moved(&["lb-b"]); count]);
        assert!(!played(4).is_passed());
        assert!(played(5).is_passed());
        assert!(played(5).to_json().contains("\"passed\": true"));
        assert!(played(5).to_json().contains("\"without_service_ms\": 23"));
    }
}
