//! The figures: a line of JSON for each round, and a table drawn from them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::event::Event;
use crate::round::System;

/// What a round gave.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    pub event: String,
    pub interval_ms: u64,
    pub system: String,
    /// The longest time between two good answers, from the event until half a second and three intervals after the move.
    pub outage_us: u64,
    /// The same from then until all was settled: service lost once more, or noise.
    pub later_us: u64,
    /// The same in the half second before it.
    pub noise_us: u64,
    /// Whether the other node had the VIP, and clients were served after that.
    pub moved: bool,
    /// How many nodes held the VIP when all was over.
    pub holders_after: usize,
}

/// All rounds, written down as they come.
pub struct Figures {
    file: File,
    rounds: Vec<Round>,
}

/// A row's figures for one system, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Cell {
    event: Event,
    min: f64,
    median: f64,
    max: f64,
    rounds: usize,
    not_moved: usize,
    holders_most: usize,
}

/// What the table says about Baton.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verdict {
    /// Rows in which both were measured.
    pub rows: usize,
    /// Rows in which Baton's median is not the smaller one.
    pub behind: usize,
    /// Rows after which Baton's VIP was not on exactly one node.
    pub not_one_holder: usize,
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
        self.rounds.push(round);
        Ok(())
    }

    /// The table, and what it says.
    pub fn table(&self, events: &[Event], intervals_ms: &[u64]) -> (String, Verdict) {
        let mut verdict = Verdict::default();
        let mut text = String::from(
            "| event | adverts | Baton min / median / max | keepalived + HAProxy min / median / max | ratio of medians | ahead | \
             holders afterwards, Baton / keepalived | rounds |\n|---|---|---|---|---|---|---|---|\n",
        );
        for event in events {
            for interval_ms in intervals_ms {
                let baton = self.cell(System::Baton, *event, *interval_ms);
                let rival = self.rival(*event, *interval_ms);
                if baton.is_none() && rival.is_none() {
                    continue;
                }
                let ratio = baton.zip(rival).map(|(baton, rival)| baton.median / rival.median);
                verdict.rows += usize::from(ratio.is_some());
                verdict.behind += usize::from(ratio.is_some_and(|ratio| ratio >= 1.0));
                verdict.not_one_holder += usize::from(baton.is_some_and(|baton| baton.holders_most != 1));
                let leaves_two = rival.is_some_and(|rival| rival.holders_most > 1);
                let ahead = ratio.map_or("–", |ratio| match (ratio < 1.0, leaves_two) {
                    (true, _) => "yes",
                    (false, false) => "no",
                    // It did not give the VIP up, so nothing was interrupted.
                    (false, true) => "no, but the other leaves two holders",
                });
                let ratio = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
                let holders = |cell: Option<Cell>| cell.map_or("–".to_owned(), |cell| cell.holders_most.to_string());
                let rounds = |cell: Option<Cell>| cell.map_or(0, |cell| cell.rounds);
                let _ = writeln!(
                    text,
                    "| {} | {interval_ms} ms | {} | {} | {ratio} | {ahead} | {} / {} | {} + {} |",
                    event.title(),
                    describe(baton, *event),
                    describe(rival, *event),
                    holders(baton),
                    holders(rival),
                    rounds(baton),
                    rounds(rival),
                );
            }
        }
        (text, verdict)
    }

    /// The noise floor: the longest gap in half a second of peace before each event.
    pub fn noise(&self) -> String {
        let mut noise: Vec<u64> = self.rounds.iter().map(|round| round.noise_us).collect();
        noise.sort_unstable();
        let at = |position: usize| noise.get(position).map_or(0.0, |us| *us as f64 / 1000.0);
        let last = noise.len().saturating_sub(1);
        format!(
            "noise floor (longest gap in half a second of peace): min {:.1}, median {:.1}, max {:.1} ms",
            at(0),
            at(noise.len() / 2),
            at(last)
        )
    }

    /// The longest gap after the aftermath of an event. More than noise, it is service lost a second time.
    pub fn later(&self) -> String {
        let longest = |system: System| {
            let rounds = self.rounds.iter().filter(|round| round.system == system.name());
            rounds.map(|round| round.later_us).max().unwrap_or(0) as f64 / 1000.0
        };
        let (baton, rival) = (longest(System::Baton), longest(System::Keepalived));
        format!("longest gap when the move was over: Baton {baton:.1}, keepalived {rival:.1} ms")
    }

    /// keepalived's figures; for a planned hand-over those of its better way.
    fn rival(&self, event: Event, interval_ms: u64) -> Option<Cell> {
        if !Event::PLANNED.contains(&event) {
            return self.cell(System::Keepalived, event, interval_ms);
        }
        let ways = Event::PLANNED.iter().filter_map(|event| self.cell(System::Keepalived, *event, interval_ms));
        ways.min_by(|one, other| one.median.total_cmp(&other.median))
    }

    fn cell(&self, system: System, event: Event, interval_ms: u64) -> Option<Cell> {
        let is_of_cell = |round: &&Round| {
            round.system == system.name() && round.event == event.name() && round.interval_ms == interval_ms
        };
        let rounds: Vec<&Round> = self.rounds.iter().filter(is_of_cell).collect();
        let mut outages: Vec<f64> = rounds.iter().map(|round| round.outage_us as f64 / 1000.0).collect();
        outages.sort_unstable_by(f64::total_cmp);
        Some(Cell {
            event,
            min: *outages.first()?,
            median: median(&outages)?,
            max: *outages.last()?,
            rounds: rounds.len(),
            not_moved: rounds.iter().filter(|round| !round.moved).count(),
            holders_most: rounds.iter().map(|round| round.holders_after).max()?,
        })
    }
}

/// The middle of sorted figures, or the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// `min / median / max`, and what else is to be known of them in a row of `event`.
fn describe(cell: Option<Cell>, event: Event) -> String {
    let Some(cell) = cell else { return "not measured".to_owned() };
    let mut text = format!("{:.0} / {:.0} / {:.0}", cell.min, cell.median, cell.max);
    if cell.event != event {
        let _ = write!(text, " ({})", cell.event.title());
    }
    if cell.not_moved > 0 {
        let _ = write!(text, ", {} did not move", cell.not_moved);
    }
    text
}
