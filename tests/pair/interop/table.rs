//! What the matrix came to, for people to read.

use std::fmt;

use super::Loss;
use super::rows::{Preferred, Row, Vip};

/// Which way a VIP goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Baton loses it.
    ToKeepalived,
    /// Baton takes it over.
    ToBaton,
}

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// The active node fails.
    Loss(Direction, Loss),
    /// The preferred node comes back. There is no direction in which nobody does.
    Return(Direction),
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loss(_, Loss::Stopped) => "stopped",
            Self::Loss(_, Loss::Killed) => "killed",
            Self::Return(_) => "returns",
        })
    }
}

/// The outcome of each cell: how many milliseconds it took, or why it failed.
#[derive(Debug, Default)]
pub struct Table {
    cells: Vec<(Row, Preferred, Trial, Result<u128, String>)>,
}

impl Table {
    /// Notes the outcome of a cell. A second one replaces a success.
    pub fn note(&mut self, vip: &Vip, trial: Trial, outcome: Result<u128, String>) {
        let same = |cell: &&mut (Row, Preferred, Trial, _)| (cell.0, cell.1, cell.2) == (vip.row, vip.preferred, trial);
        match self.cells.iter_mut().find(same) {
            Some((.., noted @ Ok(_))) if outcome.is_err() => *noted = outcome,
            Some(_) => (),
            None => self.cells.push((vip.row, vip.preferred, trial, outcome)),
        }
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// What failed.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.cells.iter().filter_map(|(row, preferred, trial, outcome)| {
            let way =
                if trial.direction() == Direction::ToBaton { "keepalived -> baton" } else { "baton -> keepalived" };
            outcome.as_ref().err().map(|why| format!("{row}, {way}, {preferred}, {trial}: {why}"))
        });
        failed.collect()
    }

    fn text(&self, row: Row, preferred: Preferred, trial: Trial) -> String {
        let is_it = |cell: &&(Row, Preferred, Trial, _)| (cell.0, cell.1, cell.2) == (row, preferred, trial);
        match self.cells.iter().find(is_it) {
            Some((.., Ok(ms))) => ms.to_string(),
            Some((.., Err(why))) => format!("failed: {why}"),
            None => String::new(),
        }
    }
}

impl Trial {
    fn direction(self) -> Direction {
        match self {
            Self::Loss(direction, _) | Self::Return(direction) => direction,
        }
    }
}

/// Widths of the first columns and of the others.
const WIDTHS: (usize, usize, usize) = (42, 21, 9);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (row_width, way_width, width) = WIDTHS;
        write!(f, "{:row_width$}{:way_width$}", "milliseconds until", "")?;
        for preferred in Preferred::ALL {
            write!(f, "| {preferred:<size$}", size = 3 * width)?;
        }
        write!(f, "\n{:row_width$}{:way_width$}", "the other node has the VIP", "")?;
        for _ in Preferred::ALL {
            write!(f, "| {:<width$}{:<width$}{:<width$}", "stopped", "killed", "returns")?;
        }
        for row in Row::ALL {
            for (direction, way) in
                [(Direction::ToBaton, "keepalived -> baton"), (Direction::ToKeepalived, "baton -> keepalived")]
            {
                write!(f, "\n{row:<row_width$}{way:<way_width$}")?;
                for preferred in Preferred::ALL {
                    f.write_str("| ")?;
                    for trial in [
                        Trial::Loss(direction, Loss::Stopped),
                        Trial::Loss(direction, Loss::Killed),
                        Trial::Return(direction),
                    ] {
                        write!(f, "{:<width$}", self.text(row, preferred, trial))?;
                    }
                }
            }
        }
        Ok(())
    }
}
