//! The figures: a line of JSON for each round, and a table for each part.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::stage::System;

/// What a round gave.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// The part of the benchmark.
    pub part: &'static str,
    /// What was done in it.
    pub variant: String,
    pub system: &'static str,
    /// By name, with the unit at its end.
    pub figures: BTreeMap<&'static str, f64>,
}

impl Round {
    pub fn new(part: &'static str, variant: impl Into<String>, system: System) -> Self {
        Self { part, variant: variant.into(), system: system.name(), figures: BTreeMap::new() }
    }

    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.figures.insert(name, value);
        self
    }
}

/// All rounds, written down as they come.
pub struct Figures {
    file: File,
    rounds: Vec<Round>,
}

/// What Baton has to reach.
struct Goal {
    part: &'static str,
    figure: &'static str,
    limit: Limit,
}

/// A limit, and which of the rounds it holds for.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// Every round.
    EveryAtMost(f64),
    EveryAtLeast(f64),
    /// The median of all rounds.
    MedianAtMost(f64),
    MedianAtLeast(f64),
}

const GOALS: [Goal; 14] = [
    Goal { part: "kill", figure: "moved", limit: Limit::EveryAtMost(0.0) },
    Goal { part: "kill", figure: "lost_entries", limit: Limit::EveryAtMost(0.0) },
    Goal { part: "switchover", figure: "moved", limit: Limit::EveryAtMost(0.0) },
    Goal { part: "switchover", figure: "moved_meanwhile", limit: Limit::EveryAtMost(0.0) },
    Goal { part: "switchover", figure: "lost_entries", limit: Limit::EveryAtMost(0.0) },
    Goal { part: "throughput", figure: "entries_a_second", limit: Limit::MedianAtLeast(500_000.0) },
    Goal { part: "throughput", figure: "differing_entries_afterwards", limit: Limit::EveryAtMost(0.0) },
    Goal { part: "lag", figure: "first_5_s_p99_ms", limit: Limit::MedianAtMost(3.0) },
    Goal { part: "lag", figure: "later_p99_ms", limit: Limit::MedianAtMost(3.0) },
    Goal { part: "lag", figure: "never_arrived", limit: Limit::EveryAtMost(0.0) },
    Goal { part: "snapshot", figure: "from_connected_ms", limit: Limit::MedianAtMost(400.0) },
    Goal { part: "latency", figure: "p99_over_elsewhere_percent", limit: Limit::MedianAtMost(5.0) },
    Goal { part: "memory", figure: "bytes_an_entry", limit: Limit::EveryAtMost(64.0) },
    Goal { part: "tls", figure: "resumed_after_kill_percent", limit: Limit::EveryAtLeast(99.0) },
];

/// A figure of one system over all rounds.
#[derive(Debug, Clone, Copy)]
struct Cell {
    min: f64,
    median: f64,
    max: f64,
}

impl Figures {
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self { file, rounds: Vec::new() })
    }

    pub fn add(&mut self, round: Round) -> Result<()> {
        let line = serde_json::to_string(&round)?;
        writeln!(self.file, "{line}")?;
        let figures: Vec<String> =
            round.figures.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
        eprintln!("{} {} {}: {}", round.part, round.variant, round.system, figures.join(", "));
        self.rounds.push(round);
        Ok(())
    }

    /// The table of a part, a row for each variant and figure; and how many of Baton's goals were not reached.
    pub fn table(&self, part: &str) -> (String, usize) {
        let mut missed = 0;
        let mut text = String::from(
            "| what | figure | Baton min / median / max | HAProxy min / median / max | Baton to HAProxy | Baton's goal | rounds |\n\
             |---|---|---|---|---|---|---|\n",
        );
        let rounds: Vec<&Round> = self.rounds.iter().filter(|round| round.part == part).collect();
        let mut rows: Vec<(&str, &str)> = Vec::new();
        for round in &rounds {
            for name in round.figures.keys() {
                if !rows.contains(&(round.variant.as_str(), *name)) {
                    rows.push((round.variant.as_str(), name));
                }
            }
        }
        for (variant, name) in rows {
            let values = |system: System| -> Vec<f64> {
                let own = rounds.iter().filter(|round| round.variant == variant && round.system == system.name());
                own.filter_map(|round| round.figures.get(name).copied()).collect()
            };
            let (baton, haproxy) = (values(System::Baton), values(System::Haproxy));
            let (one, other) = (Cell::of(&baton), Cell::of(&haproxy));
            let ratio = one.zip(other).filter(|(_, other)| other.median != 0.0);
            let ratio = ratio.map_or("–".to_owned(), |(one, other)| format!("{:.3}", one.median / other.median));
            let limit = GOALS.iter().find(|goal| goal.part == part && goal.figure == name).map(|goal| goal.limit);
            let goal = limit.zip(one).map_or(String::new(), |(limit, cell)| {
                missed += usize::from(!limit.is_kept(cell));
                limit.describe(cell)
            });
            let _ = writeln!(
                text,
                "| {variant} | {name} | {} | {} | {ratio} | {goal} | {} + {} |",
                Cell::describe(one),
                Cell::describe(other),
                baton.len(),
                haproxy.len()
            );
        }
        (text, missed)
    }
}

impl Limit {
    fn is_kept(self, cell: Cell) -> bool {
        match self {
            Limit::EveryAtMost(limit) => cell.max <= limit,
            Limit::EveryAtLeast(limit) => cell.min >= limit,
            Limit::MedianAtMost(limit) => cell.median <= limit,
            Limit::MedianAtLeast(limit) => cell.median >= limit,
        }
    }

    fn describe(self, cell: Cell) -> String {
        let (sign, limit) = match self {
            Limit::EveryAtMost(limit) | Limit::MedianAtMost(limit) => ("≤", limit),
            Limit::EveryAtLeast(limit) | Limit::MedianAtLeast(limit) => ("≥", limit),
        };
        format!("{sign} {limit}: {}", if self.is_kept(cell) { "reached" } else { "MISSED" })
    }
}

impl Cell {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        Some(Self { min: *sorted.first()?, median: f64::midpoint(lower, upper), max: *sorted.last()? })
    }

    fn describe(cell: Option<Self>) -> String {
        let Some(cell) = cell else { return "not measured".to_owned() };
        format!("{} / {} / {}", number(cell.min), number(cell.median), number(cell.max))
    }
}

/// Large ones without, small ones with places after the point.
fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// The value below which a share of them is; sorts them.
pub fn quantile<T: Copy + Ord>(values: &mut [T], share: f64) -> Option<T> {
    values.sort_unstable();
    let place = (values.len() as f64 * share) as usize;
    values.get(place.min(values.len().checked_sub(1)?)).copied()
}
