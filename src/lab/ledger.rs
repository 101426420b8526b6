//! What clients saw, in bounded memory, and the figures drawn from it. No sockets and no clock: times come from outside.
//!
//! There are two books. The probe ledger keeps every probe with both its times, since the length of an outage is a gap between
//! two of them. The traffic ledger keeps what went wrong with its time, and of what went well only a count for each tenth
//! of a second, since thousands a second go well.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

pub use super::client::Failure;

/// Probes kept, the newest: more than four minutes at one every 2 ms, in 5 MB.
pub const PROBES_MAX: usize = 131_072;

/// Incidents kept, the newest.
pub const INCIDENTS_MAX: usize = 65_536;

/// Counters kept, the newest: an hour.
pub const BUCKETS_MAX: usize = 36_000;

/// Latencies kept, the newest: two minutes of four thousand a second, in 4 MB.
pub const LATENCIES_MAX: usize = 524_288;

/// The time that a counter covers.
const BUCKET: Duration = Duration::from_millis(100);

/// One request of the prober on a connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Before the connect.
    pub start: Instant,
    /// When the answer was whole, or given up.
    pub end: Instant,
    /// What came of it.
    pub outcome: ProbeOutcome,
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// A whole answer from a server, as an index into the names the load was started with; `None` for another name.
    Answered {
        /// The server.
        server: Option<u8>,
    },
    /// None.
    Failed(Failure),
}

/// Every probe, oldest first by its end.
#[derive(Debug, Default)]
pub struct ProbeLedger {
    probes: VecDeque<Probe>,
    dropped: bool,
}

impl ProbeLedger {
    /// Adds a probe that ended no earlier than the last one added. At [`PROBES_MAX`] the oldest goes.
    pub fn record(&mut self, probe: Probe) {
        if self.probes.len() == PROBES_MAX {
            self.probes.pop_front();
            self.dropped = true;
        }
        self.probes.push_back(probe);
    }

    /// The probes that ended within the interval, and the last success before it (an outage may have begun there).
    pub fn slice(&self, from: Instant, to: Instant) -> ProbeSlice {
        let first = self.probes.partition_point(|probe| probe.end < from);
        let is_success = |probe: &&Probe| matches!(probe.outcome, ProbeOutcome::Answered { .. });
        let success_before = self.probes.range(..first).rev().find(is_success).map(|probe| probe.end);
        let probes = self.probes.range(first..).take_while(|probe| probe.end <= to).copied().collect();
        let complete = !self.dropped || self.probes.front().is_some_and(|probe| probe.end < from);
        ProbeSlice { success_before, probes, complete }
    }

    /// When the last success ended.
    pub fn last_success(&self) -> Option<Instant> {
        self.probes.iter().rev().find(|probe| matches!(probe.outcome, ProbeOutcome::Answered { .. })).map(|p| p.end)
    }
}

/// The probes of an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSlice {
    /// The last success before the interval.
    pub success_before: Option<Instant>,
    /// Those that ended within it.
    pub probes: Vec<Probe>,
    /// Whether none of the interval had been dropped from the ledger by then.
    pub complete: bool,
}

/// Time in which nothing was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last success before it, or the start of the interval.
    pub start: Instant,
    /// How long, to the next success or the end of the interval.
    pub length: Duration,
}

impl ProbeSlice {
    /// The longest time between two successes that follow one another, one of which may lie before the interval.
    /// Without a success after it, a gap lasts to the end of the interval: service that did not come back counts in full.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Gap {
        let mut previous = self.success_before.unwrap_or(from);
        let mut longest = Gap { start: previous, length: Duration::ZERO };
        for end in self.successes().chain([to]) {
            let length = end.saturating_duration_since(previous);
            if length > longest.length {
                longest = Gap { start: previous, length };
            }
            previous = end;
        }
        longest
    }

    fn successes(&self) -> impl Iterator<Item = Instant> + '_ {
        let is_success = |probe: &&Probe| matches!(probe.outcome, ProbeOutcome::Answered { .. });
        self.probes.iter().filter(is_success).map(|probe| probe.end)
    }
}

/// Something that went wrong on a connection that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// A request got no good answer, and the connection is still of use.
    RequestFailed(Failure),
    /// A request was in the way when its connection broke.
    ConnectionBroken(Failure),
    /// A new connection in place of a lost one could not be had.
    ReconnectFailed(Failure),
    /// A user was answered by another server than before.
    ServerLost {
        /// The user's number.
        user: u16,
    },
}

impl Incident {
    /// Whether a request failed.
    pub fn is_failure(&self) -> bool {
        match self {
            Incident::RequestFailed(_) | Incident::ConnectionBroken(_) => true,
            Incident::ReconnectFailed(_) | Incident::ServerLost { .. } => false,
        }
    }
}

/// What clients on kept connections saw.
#[derive(Debug)]
pub struct TrafficLedger {
    start: Instant,
    buckets: VecDeque<u32>,
    buckets_dropped: u64,
    incidents: VecDeque<(Instant, Incident)>,
    incidents_dropped: bool,
    /// Of good answers: milliseconds since `start`, and how many microseconds it took.
    latencies: VecDeque<(u32, u32)>,
}

impl TrafficLedger {
    /// An empty one; `start` lies before all that will be recorded.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            buckets: VecDeque::new(),
            buckets_dropped: 0,
            incidents: VecDeque::new(),
            incidents_dropped: false,
            latencies: VecDeque::new(),
        }
    }

    /// Counts a good answer that came at `at` and took `latency`. At [`LATENCIES_MAX`] the oldest latency goes.
    pub fn record_success(&mut self, at: Instant, latency: Duration) {
        if self.latencies.len() == LATENCIES_MAX {
            self.latencies.pop_front();
        }
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.latencies.push_back((self.millis_of(at), latency_us));
        let number = self.bucket_of(at);
        while self.buckets_dropped + (self.buckets.len() as u64) <= number {
            if self.buckets.len() == BUCKETS_MAX {
                self.buckets.pop_front();
                self.buckets_dropped += 1;
            }
            self.buckets.push_back(0);
        }
        let position = number.checked_sub(self.buckets_dropped).and_then(|position| usize::try_from(position).ok());
        if let Some(count) = position.and_then(|position| self.buckets.get_mut(position)) {
            *count = count.saturating_add(1);
        }
    }

    /// Adds an incident no earlier than the last one added. At [`INCIDENTS_MAX`] the oldest goes.
    pub fn record_incident(&mut self, at: Instant, incident: Incident) {
        if self.incidents.len() == INCIDENTS_MAX {
            self.incidents.pop_front();
            self.incidents_dropped = true;
        }
        self.incidents.push_back((at, incident));
    }

    /// When the last incident was.
    pub fn last_incident(&self) -> Option<Instant> {
        self.incidents.back().map(|(at, _)| *at)
    }

    /// The incidents within the interval, and the good answers in the tenths of a second that begin in it.
    pub fn slice(&self, from: Instant, to: Instant) -> TrafficSlice {
        let first = self.incidents.partition_point(|(at, _)| *at < from);
        let incidents = self.incidents.range(first..).take_while(|(at, _)| *at <= to).copied().collect();
        let numbers = self.bucket_of(from)..self.bucket_of(to);
        let counted = (self.buckets_dropped..).zip(&self.buckets);
        let successes =
            counted.filter(|(number, _)| numbers.contains(number)).map(|(_, count)| u64::from(*count)).sum();
        let oldest_kept = self.incidents.front().is_some_and(|(at, _)| *at < from);
        TrafficSlice { successes, incidents, complete: !self.incidents_dropped || oldest_kept }
    }

    /// Good answers within the interval as far as they are kept: when each came, and how long it took.
    pub fn latencies(&self, from: Instant, to: Instant) -> Vec<(Instant, Duration)> {
        let (first, last) = (self.millis_of(from), self.millis_of(to));
        let begin = self.latencies.partition_point(|(at_ms, _)| *at_ms < first);
        let within = self.latencies.range(begin..).take_while(|(at_ms, _)| *at_ms <= last);
        let timed = |(at_ms, us): &(u32, u32)| {
            (self.start + Duration::from_millis(u64::from(*at_ms)), Duration::from_micros(u64::from(*us)))
        };
        within.map(timed).collect()
    }

    fn millis_of(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u32::MAX)
    }

    fn bucket_of(&self, at: Instant) -> u64 {
        let since_start = at.saturating_duration_since(self.start).as_millis();
        u64::try_from(since_start / BUCKET.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Traffic of an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficSlice {
    /// Good answers.
    pub successes: u64,
    /// What went wrong, and when.
    pub incidents: Vec<(Instant, Incident)>,
    /// Whether none of the interval had been dropped from the ledger by then.
    pub complete: bool,
}

/// Failed requests, by the kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct FailedRequests {
    /// Of the prober, each on a connection of its own.
    pub new_connections: u64,
    /// Of the busy connections.
    pub busy_connections: u64,
    /// Of the users.
    pub users: u64,
    /// Messages on WebSockets.
    pub websockets: u64,
    /// Messages on TCP connections.
    pub tcp_connections: u64,
    /// Attempts to connect again of all but the prober. They are no requests: how many there are says more about
    /// the pace of the attempts than about the outage, which the prober measures at a fixed pace.
    pub reconnects: u64,
}

impl FailedRequests {
    /// All requests, without the attempts to connect again.
    pub fn total(&self) -> u64 {
        self.new_connections + self.busy_connections + self.users + self.websockets + self.tcp_connections
    }
}

/// What clients saw in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its length.
    pub length: Duration,
    /// The longest gap between completed successes of the prober: time without service. A few milliseconds of it
    /// are the distance of the probes and the noise of a machine at work.
    pub outage: Gap,
    /// Requests without a good answer.
    pub failed: FailedRequests,
    /// Busy connections that broke.
    pub connections_broken: u64,
    /// WebSockets that broke.
    pub websockets_broken: u64,
    /// TCP connections that broke.
    pub tcp_broken: u64,
    /// Users who were answered by another server than before, each counted once.
    pub users_moved: u64,
    /// Good answers of all clients.
    pub answered: u64,
    /// False when the interval is older than what the ledgers keep: the figures are too low then.
    pub complete: bool,
}

/// What all ledgers have of an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slices {
    /// New connections.
    pub probes: ProbeSlice,
    /// Busy connections.
    pub busy: TrafficSlice,
    /// Users.
    pub users: TrafficSlice,
    /// WebSockets.
    pub websockets: TrafficSlice,
    /// TCP connections.
    pub tcp: TrafficSlice,
}

impl Slices {
    /// All but the prober's.
    pub(super) fn traffic(&self) -> [&TrafficSlice; 4] {
        [&self.busy, &self.users, &self.websockets, &self.tcp]
    }
}

impl Window {
    /// Draws the figures from the slices of the interval.
    pub fn draw(from: Instant, to: Instant, slices: &Slices) -> Self {
        let Slices { probes, busy, users, websockets, tcp } = slices;
        let answers = probes.successes().count() as u64;
        let is_moved = |(_, incident): &(Instant, Incident)| match incident {
            Incident::ServerLost { user } => Some(*user),
            Incident::RequestFailed(_) | Incident::ConnectionBroken(_) | Incident::ReconnectFailed(_) => None,
        };
        let moved: BTreeSet<u16> = users.incidents.iter().filter_map(is_moved).collect();
        Self {
            length: to.saturating_duration_since(from),
            outage: probes.longest_gap(from, to),
            failed: FailedRequests {
                new_connections: probes.probes.len() as u64 - answers,
                busy_connections: busy.failures(),
                users: users.failures(),
                websockets: websockets.failures(),
                tcp_connections: tcp.failures(),
                reconnects: slices.traffic().iter().map(|slice| slice.reconnects()).sum(),
            },
            connections_broken: busy.broken(),
            websockets_broken: websockets.broken(),
            tcp_broken: tcp.broken(),
            users_moved: moved.len() as u64,
            answered: answers + slices.traffic().iter().map(|slice| slice.successes).sum::<u64>(),
            complete: probes.complete && slices.traffic().iter().all(|slice| slice.complete),
        }
    }

    /// Good answers of all clients a second.
    pub fn requests_a_second(&self) -> u64 {
        let length_ms = u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX).max(1);
        self.answered.saturating_mul(1000) / length_ms
    }
}

impl TrafficSlice {
    fn failures(&self) -> u64 {
        self.count(Incident::is_failure)
    }

    fn broken(&self) -> u64 {
        self.count(|incident| matches!(incident, Incident::ConnectionBroken(_)))
    }

    fn reconnects(&self) -> u64 {
        self.count(|incident| matches!(incident, Incident::ReconnectFailed(_)))
    }

    fn count(&self, is_meant: fn(&Incident) -> bool) -> u64 {
        self.incidents.iter().filter(|(_, incident)| is_meant(incident)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds after the start of a test.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, ms: u64) -> Instant {
            self.0 + Duration::from_millis(ms)
        }

        fn success(&self, end_ms: u64) -> Probe {
            Probe { start: self.0, end: self.at(end_ms), outcome: ProbeOutcome::Answered { server: Some(0) } }
        }

        fn failure(&self, end_ms: u64) -> Probe {
            Probe { start: self.0, end: self.at(end_ms), outcome: ProbeOutcome::Failed(Failure::TimedOut) }
        }

        fn probes(&self, probes: &[Probe]) -> ProbeLedger {
            let mut ledger = ProbeLedger::default();
            probes.iter().for_each(|probe| ledger.record(*probe));
            ledger
        }

        fn gap(&self, ledger: &ProbeLedger, from_ms: u64, to_ms: u64) -> (u64, u64) {
            let (from, to) = (self.at(from_ms), self.at(to_ms));
            let gap = ledger.slice(from, to).longest_gap(from, to);
            ((gap.start - self.0).as_millis() as u64, gap.length.as_millis() as u64)
        }
    }

    fn clock() -> Clock {
        Clock(Instant::now())
    }

    #[test]
    fn outage_is_the_longest_time_between_two_successes() {
        let clock = clock();
        let ledger = clock.probes(&[
            clock.success(10),
            clock.success(12),
            clock.failure(40),
            clock.success(72),
            clock.success(80),
        ]);
        assert_eq!(clock.gap(&ledger, 10, 81), (12, 60));
    }

    #[test]
    fn outage_begins_at_the_last_success_before_the_interval() {
        let clock = clock();
        let ledger = clock.probes(&[clock.success(10), clock.failure(12), clock.success(50)]);
        assert_eq!(clock.gap(&ledger, 20, 51), (10, 40));
    }

    #[test]
    fn outage_without_an_end_lasts_to_the_end_of_the_interval() {
        let clock = clock();
        let ledger = clock.probes(&[clock.success(10), clock.failure(60)]);
        assert_eq!(clock.gap(&ledger, 5, 500), (10, 490));
    }

    #[test]
    fn without_any_success_the_whole_interval_is_an_outage() {
        let clock = clock();
        let ledger = clock.probes(&[clock.failure(60)]);
        assert_eq!(clock.gap(&ledger, 5, 500), (5, 495));
        assert_eq!(clock.gap(&clock.probes(&[]), 5, 500), (5, 495));
    }

    #[test]
    fn success_after_the_interval_does_not_count() {
        let clock = clock();
        let ledger = clock.probes(&[clock.success(10), clock.success(100), clock.success(101)]);
        assert_eq!(clock.gap(&ledger, 10, 99), (10, 89));
        assert_eq!(clock.gap(&ledger, 10, 100), (10, 90));
    }

    #[test]
    fn probe_ledger_keeps_the_newest_and_says_when_the_rest_is_missed() {
        let clock = clock();
        let mut ledger = ProbeLedger::default();
        for ms in 0..=PROBES_MAX as u64 {
            ledger.record(clock.success(ms));
        }
        assert_eq!(ledger.probes.len(), 131_072);
        assert!(!ledger.slice(clock.at(0), clock.at(9)).complete);
        assert!(!ledger.slice(clock.at(1), clock.at(9)).complete);
        assert!(ledger.slice(clock.at(2), clock.at(9)).complete);
    }

    #[test]
    fn window_counts_each_kind_of_client_on_its_own() {
        let clock = clock();
        let (from, to) = (clock.at(1000), clock.at(2000));
        let probes = clock.probes(&[clock.failure(999), clock.success(1000), clock.failure(1500), clock.success(1501)]);
        let mut busy = TrafficLedger::new(clock.at(0));
        busy.record_success(clock.at(999), Duration::from_millis(3));
        busy.record_success(clock.at(1000), Duration::from_millis(3));
        busy.record_success(clock.at(1999), Duration::from_millis(3));
        busy.record_success(clock.at(2000), Duration::from_millis(3));
        busy.record_incident(clock.at(999), Incident::ConnectionBroken(Failure::Broken));
        busy.record_incident(clock.at(1000), Incident::ConnectionBroken(Failure::Broken));
        busy.record_incident(clock.at(1001), Incident::ReconnectFailed(Failure::NotConnected));
        let mut users = TrafficLedger::new(clock.at(0));
        users.record_incident(clock.at(1400), Incident::RequestFailed(Failure::Refused));
        users.record_incident(clock.at(1500), Incident::ServerLost { user: 7 });
        users.record_incident(clock.at(1600), Incident::ServerLost { user: 7 });
        users.record_incident(clock.at(1700), Incident::ServerLost { user: 8 });

        let mut websockets = TrafficLedger::new(clock.at(0));
        websockets.record_incident(clock.at(1500), Incident::ConnectionBroken(Failure::Broken));
        let mut tcp = TrafficLedger::new(clock.at(0));
        tcp.record_incident(clock.at(1500), Incident::RequestFailed(Failure::TimedOut));

        let slices = Slices {
            probes: probes.slice(from, to),
            busy: busy.slice(from, to),
            users: users.slice(from, to),
            websockets: websockets.slice(from, to),
            tcp: tcp.slice(from, to),
        };
        let window = Window::draw(from, to, &slices);
        let expected = FailedRequests {
            new_connections: 1,
            busy_connections: 1,
            users: 1,
            websockets: 1,
            tcp_connections: 1,
            reconnects: 1,
        };
        assert_eq!(window.failed, expected);
        assert_eq!(window.failed.total(), 5);
        assert_eq!((window.websockets_broken, window.tcp_broken), (1, 0));
        assert_eq!(window.connections_broken, 1);
        assert_eq!(window.users_moved, 2);
        assert_eq!(window.answered, 4); // two probes, and two of the busy connections' tenths of a second
        assert_eq!(window.requests_a_second(), 4);
        assert_eq!(window.outage.length, Duration::from_millis(501));
        assert!(window.complete);
    }

    #[test]
    fn counters_older_than_an_hour_go() {
        let clock = clock();
        let mut ledger = TrafficLedger::new(clock.at(0));
        ledger.record_success(clock.at(0), Duration::from_millis(3));
        ledger.record_success(clock.at(3_599_900), Duration::from_millis(3));
        assert_eq!(ledger.slice(clock.at(0), clock.at(3_600_000)).successes, 2);
        ledger.record_success(clock.at(3_600_000), Duration::from_millis(3));
        assert_eq!(ledger.slice(clock.at(0), clock.at(3_600_100)).successes, 2);
        assert_eq!(ledger.buckets.len(), 36_000);
    }

    #[test]
    fn latencies_of_an_interval_are_kept_with_their_times() {
        let clock = clock();
        let mut ledger = TrafficLedger::new(clock.at(0));
        for ms in [9, 10, 20, 21] {
            ledger.record_success(clock.at(ms), Duration::from_micros(ms * 100));
        }
        let within = ledger.latencies(clock.at(10), clock.at(20));
        assert_eq!(within, [(clock.at(10), Duration::from_millis(1)), (clock.at(20), Duration::from_millis(2))]);
    }
}
