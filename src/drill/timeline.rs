//! An event over time: what clients saw in each of a few hundred columns, and which role each node had.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::lab::ledger::Gap;
use crate::lab::load::Trace;

use super::roles::Seen;

/// Columns of a timeline.
const COLUMNS_MAX: u64 = 240;

/// The shortest that a column is: a few answers should fall in each.
const STEP_MIN_MS: u64 = 20;

/// When things happened.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    /// The event.
    pub struck: Instant,
    /// The other node had the VIP.
    pub moved: Option<Instant>,
    /// The cause was taken away.
    pub mended: Option<Instant>,
    /// The pair was whole again.
    pub whole: Option<Instant>,
}

impl Moments {
    /// Struck, and nothing else yet.
    pub fn new(struck: Instant) -> Self {
        Self { struck, moved: None, mended: None, whole: None }
    }
}

/// An event over time. All times are milliseconds since it struck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// When the first column begins; negative.
    pub from_ms: i64,
    /// When the last one ends.
    pub to_ms: i64,
    /// Length of a column.
    pub step_ms: u64,
    /// Good answers in each.
    pub answered: Vec<u32>,
    /// Median latency in each, in microseconds; `None` where nothing was answered.
    pub p50_us: Vec<Option<u32>>,
    /// The same for the slowest of a hundred.
    pub p99_us: Vec<Option<u32>>,
    /// Requests that failed in each.
    pub failed: Vec<u32>,
    /// Users who met another server in each.
    pub moved: Vec<u32>,
    /// The longest time without a good answer of the prober: from when, and how long.
    pub gap_ms: (i64, u64),
    /// What happened when.
    pub marks: Vec<(i64, &'static str)>,
    /// Each node's roles.
    pub roles: Vec<NodeRoles>,
}

/// The roles of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeRoles {
    /// The node.
    pub node: String,
    /// From when to when it had which.
    pub spans: Vec<(i64, i64, Seen)>,
}

impl Timeline {
    /// Puts what clients saw into columns.
    pub fn draw(from: Instant, to: Instant, moments: &Moments, trace: &Trace, gap: Gap) -> Self {
        let length_ms = u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX).max(1);
        let step_ms = length_ms.div_ceil(COLUMNS_MAX).max(STEP_MIN_MS);
        let columns = usize::try_from(length_ms.div_ceil(step_ms)).unwrap_or(0);
        let column = |at: Instant| {
            let ms = u64::try_from(at.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX);
            usize::try_from(ms / step_ms).unwrap_or(usize::MAX)
        };
        let count = |times: &[Instant]| {
            let mut counts = vec![0_u32; columns];
            for at in times {
                if let Some(count) = counts.get_mut(column(*at)) {
                    *count = count.saturating_add(1);
                }
            }
            counts
        };
        let mut latencies: Vec<Vec<u32>> = vec![Vec::new(); columns];
        for (at, latency) in &trace.answers {
            if let Some(column) = latencies.get_mut(column(*at)) {
                column.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
            }
        }
        latencies.iter_mut().for_each(|column| column.sort_unstable());
        let share = |part: usize| latencies.iter().map(|column| percentile(column, part)).collect();
        let at_ms = |at| offset_ms(moments.struck, at);
        Self {
            from_ms: at_ms(from),
            to_ms: at_ms(to),
            step_ms,
            answered: latencies.iter().map(|column| u32::try_from(column.len()).unwrap_or(u32::MAX)).collect(),
            p50_us: share(50),
            p99_us: share(99),
            failed: count(&trace.failures),
            moved: count(&trace.moves),
            gap_ms: (at_ms(gap.start), u64::try_from(gap.length.as_millis()).unwrap_or(u64::MAX)),
            marks: Vec::new(),
            roles: Vec::new(),
        }
    }

    /// The same, with each node's roles and what happened when.
    #[must_use]
    pub fn with_roles(
        mut self,
        nodes: [String; 2],
        roles: &[Vec<(Instant, Instant, Seen)>; 2],
        moments: &Moments,
    ) -> Self {
        let at_ms = |at| offset_ms(moments.struck, at);
        let of_node = |(node, spans): (String, &Vec<(Instant, Instant, Seen)>)| {
            let spans = spans.iter().map(|(start, end, seen)| (at_ms(*start), at_ms(*end), *seen)).collect();
            NodeRoles { node, spans }
        };
        self.roles = nodes.into_iter().zip(roles).map(of_node).collect();
        let marks = [
            (Some(moments.struck), "struck"),
            (moments.moved, "moved"),
            (moments.mended, "mended"),
            (moments.whole, "whole"),
        ];
        self.marks = marks.into_iter().filter_map(|(at, what)| Some((at_ms(at?), what))).collect();
        self
    }
}

/// The value that `part` of a hundred do not exceed (nearest rank), of values in ascending order.
fn percentile(sorted: &[u32], part: usize) -> Option<u32> {
    let rank = (sorted.len() * part).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

fn offset_ms(zero: Instant, at: Instant) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match at.checked_duration_since(zero) {
        Some(after) => millis(after),
        None => -millis(zero.saturating_duration_since(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), Some(50));
        assert_eq!(percentile(&hundred, 99), Some(99));
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[1, 2], 50), Some(1));
        assert_eq!(percentile(&[1, 2], 99), Some(2));
        assert_eq!(percentile(&[], 99), None);
    }

    #[test]
    fn what_clients_saw_falls_into_columns() {
        let from = Instant::now();
        let at = |ms| from + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        let trace = Trace {
            answers: vec![(at(0), ms(1)), (at(19), ms(3)), (at(45), ms(2))],
            failures: vec![at(20), at(30)],
            moves: vec![at(59)],
        };
        let moments = Moments { moved: Some(at(44)), ..Moments::new(at(20)) };
        let gap = Gap { start: at(19), length: ms(26) };
        let spans = [vec![(at(0), at(40), Seen::Active)], vec![(at(0), at(60), Seen::Standby)]];
        let timeline = Timeline::draw(at(0), at(60), &moments, &trace, gap);
        let timeline = timeline.with_roles(["a".to_owned(), "b".to_owned()], &spans, &moments);
        assert_eq!((timeline.from_ms, timeline.to_ms, timeline.step_ms), (-20, 40, 20));
        assert_eq!(timeline.answered, [2, 0, 1]);
        assert_eq!(timeline.p50_us, [Some(1000), None, Some(2000)]);
        assert_eq!(timeline.p99_us, [Some(3000), None, Some(2000)]);
        assert_eq!((timeline.failed, timeline.moved), (vec![0, 2, 0], vec![0, 0, 1]));
        assert_eq!(timeline.gap_ms, (-1, 26));
        assert_eq!(timeline.marks, [(0, "struck"), (24, "moved")]);
        assert_eq!(timeline.roles[0].spans, [(-20, 20, Seen::Active)]);
    }
}
