//! The events that are still to be delivered, in order, and whose turn it is. Decides; touches neither disk nor network.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::event::{Event, Lane};

/// How long an event waits to be on disk before it is delivered without: a disk that hangs must not keep anybody from
/// being told.
const SPOOL_PATIENCE: Duration = Duration::from_secs(2);

/// The pause after a delivery that failed: doubled each time, from this...
const RETRY_MIN: Duration = Duration::from_secs(1);
/// ...to this.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is kept, and how far each lane has come.
#[derive(Debug)]
pub struct Queue {
    /// In order.
    kept: VecDeque<Entry>,
    kept_max: usize,
    lanes: [LaneState; 2],
    delivered: u64,
    dropped: u64,
    last_error: Option<String>,
}

/// An event that is kept.
#[derive(Debug)]
struct Entry {
    event: Event,
    recorded: Instant,
    spooling: Spooling,
}

/// Whether an event is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spooling {
    /// It is about to be.
    Waiting,
    /// It is.
    Written,
    /// It is not, and is to be tried again.
    Failed,
    /// It is not to be.
    Without,
}

#[derive(Debug, Default)]
struct LaneState {
    is_wanted: bool,
    /// The last event delivered.
    done: u64,
    /// The event that the courier has, and since when.
    under_way: Option<(u64, Instant)>,
    failures: u32,
    retry_at: Option<Instant>,
}

/// What the courier's answer comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered {
    /// Events that everybody has now.
    pub finished: Vec<u64>,
    /// Times that this one has failed so far, and when it is tried again.
    pub failed: Option<(u32, Duration)>,
}

impl Queue {
    /// Empty. `command` and `webhook` say who is to be told; `kept_max` is at least 1.
    pub fn new(kept_max: usize, command: bool, webhook: bool) -> Self {
        let lanes = [command, webhook].map(|is_wanted| LaneState { is_wanted, ..LaneState::default() });
        Self { kept: VecDeque::new(), kept_max, lanes, delivered: 0, dropped: 0, last_error: None }
    }

    /// Takes an event, whose sequence is above all before it. Gives those that had to go to make room.
    pub fn push(&mut self, recorded: Instant, event: Event, spooling: Spooling) -> Vec<u64> {
        self.kept.push_back(Entry { event, recorded, spooling });
        let excess = self.kept.len().saturating_sub(self.kept_max);
        let gone: Vec<u64> = self.kept.drain(..excess).map(|entry| entry.event.sequence).collect();
        self.dropped += gone.len() as u64;
        gone
    }

    /// Notes events that were found on disk and are too many to keep.
    pub fn count_dropped(&mut self, count: u64) {
        self.dropped += count;
    }

    /// Notes how it went to write an event.
    pub fn spooled(&mut self, sequence: u64, spooling: Spooling) {
        if let Some(entry) = self.kept.iter_mut().find(|entry| entry.event.sequence == sequence) {
            entry.spooling = spooling;
        }
    }

    /// Events that are to be written again: they wait from now on.
    pub fn take_unwritten(&mut self) -> Vec<Event> {
        let failed = self.kept.iter_mut().filter(|entry| entry.spooling == Spooling::Failed);
        let events = failed.map(|entry| {
            entry.spooling = Spooling::Waiting;
            entry.event.clone()
        });
        events.collect()
    }

    /// What the courier is to try now; it has it from here on.
    pub fn due(&mut self, now: Instant) -> Vec<(Lane, Event)> {
        let mut due = Vec::new();
        for (lane, state) in Lane::ALL.into_iter().zip(&mut self.lanes) {
            let is_free = state.under_way.is_none() && state.retry_at.is_none_or(|at| at <= now);
            let next = self.kept.iter().find(|entry| entry.event.sequence > state.done);
            if let Some(entry) = next.filter(|entry| state.is_wanted && is_free && entry.is_ready(now)) {
                state.under_way = Some((entry.event.sequence, now));
                due.push((lane, entry.event.clone()));
            }
        }
        due
    }

    /// When something will be due that is not now, without anything else happening.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let waiting = |state: &LaneState| {
            let entry = self.kept.iter().find(|entry| entry.event.sequence > state.done)?;
            let ready_at = if entry.is_ready(now) { now } else { entry.recorded + SPOOL_PATIENCE };
            Some(state.retry_at.map_or(ready_at, |at| at.max(ready_at)))
        };
        let free = self.lanes.iter().filter(|state| state.is_wanted && state.under_way.is_none());
        free.filter_map(waiting).min()
    }

    /// Since when the courier has had what it has had longest.
    pub fn under_way_since(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(|state| state.under_way).map(|(_, since)| since).min()
    }

    /// Takes the courier's answer; `None` for one to a question that was not asked.
    pub fn answered(&mut self, now: Instant, lane: Lane, sequence: u64, failure: Option<String>) -> Option<Answered> {
        let [command, webhook] = &mut self.lanes;
        let state = match lane {
            Lane::Command => command,
            Lane::Webhook => webhook,
        };
        state.under_way.take_if(|(under_way, _)| *under_way == sequence)?;
        if let Some(reason) = failure {
            let pause = RETRY_MIN.saturating_mul(1 << state.failures.min(6)).min(RETRY_MAX);
            state.failures = state.failures.saturating_add(1);
            state.retry_at = Some(now + pause);
            self.last_error = Some(format!("{lane}: {reason}"));
            return Some(Answered { finished: Vec::new(), failed: Some((state.failures, pause)) });
        }
        (state.done, state.failures, state.retry_at) = (sequence, 0, None);
        Some(Answered { finished: self.take_finished(), failed: None })
    }

    /// The courier is gone: what it had is tried again.
    pub fn courier_lost(&mut self, reason: &str) {
        self.lanes.iter_mut().for_each(|state| state.under_way = None);
        self.last_error = Some(reason.to_owned());
    }

    /// Whether everything is on disk, or cannot be, and nothing would be delivered by waiting a little.
    pub fn is_settled(&self) -> bool {
        let is_written = self.kept.iter().all(|entry| entry.spooling != Spooling::Waiting);
        let last = self.kept.back().map_or(0, |entry| entry.event.sequence);
        is_written && self.lanes.iter().all(|state| !state.is_wanted || state.failures > 0 || state.done >= last)
    }

    /// Events kept, delivered to everybody, dropped; what went wrong last; when the oldest one was recorded.
    pub fn figures(&self) -> (usize, u64, u64, Option<String>, Option<Instant>) {
        let oldest = self.kept.front().map(|entry| entry.recorded);
        (self.kept.len(), self.delivered, self.dropped, self.last_error.clone(), oldest)
    }

    /// Forgets the events that every lane has. As each lane goes in order, they are the first ones.
    fn take_finished(&mut self) -> Vec<u64> {
        let done = self.lanes.iter().filter(|state| state.is_wanted).map(|state| state.done).min().unwrap_or(0);
        let count = self.kept.iter().take_while(|entry| entry.event.sequence <= done).count();
        let finished: Vec<u64> = self.kept.drain(..count).map(|entry| entry.event.sequence).collect();
        self.delivered += finished.len() as u64;
        if self.kept.is_empty() {
            self.last_error = None;
        }
        finished
    }
}

impl Entry {
    fn is_ready(&self, now: Instant) -> bool {
        self.spooling != Spooling::Waiting || now >= self.recorded + SPOOL_PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Role;

    fn event(sequence: u64) -> Event {
        Event {
            sequence,
            time: "2026-01-02T03:04:05.678Z".to_owned(),
            node: "lb-a".to_owned(),
            vip: "web".to_owned(),
            from: Role::Standby,
            to: Role::Active,
            reason: "peer resigned".to_owned(),
            epoch: 7,
            addresses: vec!["192.0.2.100/24".to_owned()],
            peer: Some("lb-b".to_owned()),
        }
    }

    fn due(queue: &mut Queue, now: Instant) -> Vec<(Lane, u64)> {
        queue.due(now).into_iter().map(|(lane, event)| (lane, event.sequence)).collect()
    }

    fn delivered(finished: &[u64]) -> Option<Answered> {
        Some(Answered { finished: finished.to_vec(), failed: None })
    }

    fn failed(times: u32, seconds: u64) -> Option<Answered> {
        Some(Answered { finished: Vec::new(), failed: Some((times, Duration::from_secs(seconds))) })
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_lane_gets_one_event_at_a_time_in_order() {
        let now = Instant::now();
        let mut queue = Queue::new(10, true, true);
        for sequence in 1..=2 {
            assert!(queue.push(now, event(sequence), Spooling::Written).is_empty());
        }
        assert_eq!(due(&mut queue, now), [(Lane::Command, 1), (Lane::Webhook, 1)]);
        assert_eq!(due(&mut queue, now), []);
        assert_eq!(queue.answered(now, Lane::Command, 1, None), delivered(&[]));
        // The webhook does not keep the command waiting.
        assert_eq!(due(&mut queue, now), [(Lane::Command, 2)]);
        assert_eq!(queue.answered(now, Lane::Command, 2, None), delivered(&[]));
        assert_eq!(queue.answered(now, Lane::Webhook, 1, None), delivered(&[1]));
        assert_eq!(due(&mut queue, now), [(Lane::Webhook, 2)]);
        assert!(!queue.is_settled());
        assert_eq!(queue.answered(now, Lane::Webhook, 2, None), delivered(&[2]));
        assert!(queue.is_settled());
        assert_eq!(queue.figures(), (0, 2, 0, None, None));
    }

    #[test]
    fn failed_delivery_is_repeated_ever_later_before_the_next_event() {
        let mut now = Instant::now();
        let mut queue = Queue::new(10, true, false);
        queue.push(now, event(1), Spooling::Written);
        queue.push(now, event(2), Spooling::Written);
        for (times, pause) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60)] {
            assert_eq!(due(&mut queue, now), [(Lane::Command, 1)]);
            assert_eq!(queue.answered(now, Lane::Command, 1, Some("exit status 1".to_owned())), failed(times, pause));
            assert_eq!(queue.deadline(now), Some(now + Duration::from_secs(pause)));
            now += Duration::from_secs(pause) - Duration::from_nanos(1);
            assert_eq!(due(&mut queue, now), []);
            now += Duration::from_nanos(1);
        }
        assert_eq!(queue.figures().3, Some("command: exit status 1".to_owned()));
        assert_eq!(due(&mut queue, now), [(Lane::Command, 1)]);
        assert_eq!(queue.answered(now, Lane::Command, 1, None), delivered(&[1]));
        assert_eq!(due(&mut queue, now), [(Lane::Command, 2)]);
        assert_eq!(queue.answered(now, Lane::Command, 2, Some(String::new())), failed(1, 1));
    }

    #[test]
    fn event_is_delivered_once_it_is_on_disk_or_has_waited_for_that() {
        let now = Instant::now();
        let mut queue = Queue::new(10, true, false);
        queue.push(now, event(1), Spooling::Waiting);
        assert_eq!(due(&mut queue, now), []);
        assert_eq!(queue.deadline(now), Some(now + 2 * SECOND));
        assert_eq!(due(&mut queue, now + 2 * SECOND - Duration::from_nanos(1)), []);
        assert_eq!(due(&mut queue, now + 2 * SECOND), [(Lane::Command, 1)]);

        for spooling in [Spooling::Written, Spooling::Failed] {
            let mut queue = Queue::new(10, true, false);
            queue.push(now, event(1), Spooling::Waiting);
            queue.spooled(1, spooling);
            assert_eq!(due(&mut queue, now), [(Lane::Command, 1)]);
        }
    }

    #[test]
    fn what_could_not_be_written_is_to_be_written_again_once_a_time() {
        let now = Instant::now();
        let mut queue = Queue::new(10, true, false);
        queue.push(now, event(1), Spooling::Written);
        queue.push(now, event(2), Spooling::Waiting);
        queue.spooled(2, Spooling::Failed);
        assert_eq!(queue.take_unwritten(), [event(2)]);
        assert_eq!(queue.take_unwritten(), []);
    }

    #[test]
    fn too_many_events_push_the_oldest_out() {
        let now = Instant::now();
        let mut queue = Queue::new(2, true, false);
        assert!(queue.push(now, event(1), Spooling::Written).is_empty());
        assert_eq!(due(&mut queue, now), [(Lane::Command, 1)]);
        assert!(queue.push(now, event(2), Spooling::Written).is_empty());
        assert_eq!(queue.push(now, event(3), Spooling::Written), [1]);
        // The courier is still at the one that went; whatever comes of it, the next one follows.
        assert_eq!(queue.answered(now, Lane::Command, 1, Some("no".to_owned())), failed(1, 1));
        assert_eq!(due(&mut queue, now + SECOND), [(Lane::Command, 2)]);
        assert_eq!(queue.figures().2, 1);
    }

    #[test]
    fn what_a_lost_courier_had_is_tried_again() {
        let now = Instant::now();
        let mut queue = Queue::new(10, true, false);
        queue.push(now, event(1), Spooling::Written);
        assert_eq!(due(&mut queue, now), [(Lane::Command, 1)]);
        assert_eq!(queue.under_way_since(), Some(now));
        queue.courier_lost("it was killed");
        assert_eq!(queue.under_way_since(), None);
        assert_eq!(queue.answered(now, Lane::Command, 1, None), None);
        assert_eq!(due(&mut queue, now), [(Lane::Command, 1)]);
    }

    #[test]
    fn queue_settles_when_waiting_a_little_would_bring_nothing() {
        let now = Instant::now();
        let mut queue = Queue::new(10, true, true);
        assert!(queue.is_settled());
        queue.push(now, event(1), Spooling::Waiting);
        queue.spooled(1, Spooling::Written);
        due(&mut queue, now);
        queue.answered(now, Lane::Command, 1, None);
        assert!(!queue.is_settled());
        queue.answered(now, Lane::Webhook, 1, Some("no answer".to_owned()));
        assert!(queue.is_settled());
        queue.push(now, event(2), Spooling::Waiting);
        assert!(!queue.is_settled());
    }
}
