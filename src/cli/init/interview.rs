//! Where answers come from: a flag, else the terminal, else what the machine suggests.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};

use super::finding::Finding;

/// How it ends when an answer cannot be.
pub(super) const REFUSED: &str = "nothing was written; correct what is marked as an error";

/// One question.
pub(super) struct Question {
    /// In one line, without a mark at its end.
    pub(super) label: &'static str,
    /// What an empty answer means.
    pub(super) default: Option<String>,
}

/// Asks, has the answers judged, and shows what was found.
#[derive(Debug)]
pub(super) struct Interview {
    asks: bool,
}

impl Interview {
    /// `silent`: nothing is asked, though there may be a terminal.
    pub(super) fn new(silent: bool) -> Self {
        Self { asks: !silent && io::stdin().is_terminal() }
    }

    /// Makes sure that flags say what nobody can be asked: each flag, and whether it was given.
    ///
    /// # Errors
    /// All of those that are missing.
    pub(super) fn require(&self, flags: &[(&str, bool)]) -> anyhow::Result<()> {
        let missing: Vec<&str> = flags.iter().filter(|(_, is_given)| !is_given).map(|(flag, _)| *flag).collect();
        if self.asks || missing.is_empty() {
            return Ok(());
        }
        bail!("there is no terminal to ask on, or --yes forbids it: add {}", missing.join(", "));
    }

    /// The answer to a question, judged; on the terminal asked for again until it can be. `None` when the answer of a flag
    /// cannot be, which was shown.
    ///
    /// # Errors
    /// When the input ends before there is an answer.
    pub(super) fn settle<T>(
        &self,
        question: &Question,
        given: Option<&str>,
        mut judge: impl FnMut(&str, &mut Vec<Finding>) -> Result<T, Finding>,
    ) -> anyhow::Result<Option<T>> {
        if let Some(answer) = given.or(question.default.as_deref().filter(|_| !self.asks)) {
            return Ok(self.judge(|said| judge(answer, said)));
        }
        if !self.asks {
            let what = format!("{}: nothing on this machine suggests an answer", question.label);
            self.show(&[Finding::error(what, "say it with a flag; `baton init --help` names them")]);
            return Ok(None);
        }
        loop {
            let answer = self.read(question)?;
            if answer.is_empty() {
                self.show(&[Finding::error("there is no answer", "write one, or end with Ctrl-C")]);
            } else if let Some(value) = self.judge(|said| judge(&answer, said)) {
                return Ok(Some(value));
            }
        }
    }

    /// What a check comes to, which is shown with all that it has found on its way.
    pub(super) fn judge<T>(&self, judge: impl FnOnce(&mut Vec<Finding>) -> Result<T, Finding>) -> Option<T> {
        let mut found = Vec::new();
        let judged = judge(&mut found);
        let (value, error) = match judged {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        found.extend(error);
        self.show(&found);
        value
    }

    /// Shows what was found.
    pub(super) fn show(&self, findings: &[Finding]) {
        findings.iter().for_each(|finding| super::super::complain(&finding.to_string()));
    }

    /// The last question; without a terminal it is not asked.
    ///
    /// # Errors
    /// When the answer is no.
    pub(super) fn confirm(&self, label: &str) -> anyhow::Result<()> {
        if !self.asks {
            return Ok(());
        }
        loop {
            match read_line(&format!("{label}? [yes]: "))?.to_ascii_lowercase().as_str() {
                "" | "y" | "yes" => return Ok(()),
                "n" | "no" => bail!("nothing was written"),
                _ => self.show(&[Finding::error("that is neither yes nor no", "write yes or no")]),
            }
        }
    }

    fn read(&self, question: &Question) -> anyhow::Result<String> {
        let default = question.default.as_deref();
        let hint = default.map_or(String::new(), |default| format!(" [{default}]"));
        let answer = read_line(&format!("{}{hint}: ", question.label))?;
        Ok(if answer.is_empty() { default.unwrap_or_default().to_owned() } else { answer })
    }
}

/// Values of a flag that was given several times, as they would be typed.
pub(super) fn joined(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| values.join(" "))
}

fn read_line(prompt: &str) -> anyhow::Result<String> {
    // Beside what was asked for, so that it shows when that goes to a file.
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(prompt.as_bytes()).and_then(|()| stderr.flush());
    let mut line = String::new();
    if io::stdin().read_line(&mut line).context("failed to read an answer; nothing was written")? == 0 {
        bail!("the input has ended; nothing was written");
    }
    Ok(line.trim().to_owned())
}
