//! What is wrong with a configuration file, all of it, each mistake with its place, its rule and what to do.
//!
//! The readers and checks of this folder add to [`Mistakes`] while they go on; [`crate::config::load`] turns it into the
//! [`Report`] that an operator reads.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Mistakes that a report holds; more are counted and left out. Nobody reads a thousand, and a hostile file must not
/// make the report larger than itself many times over.
const MISTAKES_MAX: usize = 1000;

/// Characters of a source line, or of a value, that a report shows.
const EXCERPT_MAX: usize = 120;
/// Characters before the mistake where a line is too long to show its beginning.
const CONTEXT: usize = 20;
const VALUE_MAX: usize = 60;

/// Every mistake of a file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    path: PathBuf,
    mistakes: Vec<Mistake>,
    left_out: usize,
    /// Whether parts of the file could not be read at all.
    is_partial: bool,
}

/// One thing that an operator has to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands; `None` when it concerns the file as a whole.
    pub position: Option<Position>,
    /// The key, as `vip[web].virtual_router_id`; empty when it concerns no key.
    pub key: String,
    /// The value as written, when there is one.
    pub value: Option<String>,
    /// What is wrong, or what the value must be.
    pub rule: String,
    /// What to do about it.
    pub remedy: String,
}

/// A place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Counts from 1.
    pub line: usize,
    /// Counts from 1, in characters.
    pub column: usize,
    /// The line as it is written, without control characters; of a long one the part around the column.
    pub excerpt: String,
    /// Characters of the excerpt before the mistake.
    pub offset: usize,
    /// Characters that the mistake covers on that line, at least 1.
    pub width: usize,
}

impl Report {
    /// A report of one mistake that concerns the whole file, such as that there is none.
    pub(super) fn of_file(path: &Path, rule: impl Into<String>, remedy: impl Into<String>) -> Self {
        let mistake =
            Mistake { position: None, key: String::new(), value: None, rule: rule.into(), remedy: remedy.into() };
        Self { path: path.to_owned(), mistakes: vec![mistake], left_out: 0, is_partial: false }
    }

    /// The file that it is about.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mistakes, in the order of the file; those without a place come last. Never empty, at most 1000.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.mistakes {
            mistake.write(f, &self.path)?;
        }
        let count = self.mistakes.len() + self.left_out;
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "{count} {noun} in {}", self.path.display())?;
        if self.left_out > 0 {
            write!(f, ", {} of them not shown", self.left_out)?;
        }
        if self.is_partial {
            f.write_str("; more may show once its syntax is right")?;
        }
        Ok(())
    }
}

impl Mistake {
    fn write(&self, f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
        let (key, rule) = (&self.key, &self.rule);
        match &self.value {
            Some(value) => writeln!(f, "error: {key} = {value}: {rule}")?,
            None if key.is_empty() => writeln!(f, "error: {rule}")?,
            None => writeln!(f, "error: {key}: {rule}")?,
        }
        let gutter = match &self.position {
            Some(at) => {
                let number = at.line.to_string();
                let gutter = " ".repeat(number.len());
                writeln!(f, "{gutter}--> {}:{}:{}", path.display(), at.line, at.column)?;
                writeln!(f, "{gutter} |")?;
                writeln!(f, "{number} | {}", at.excerpt)?;
                writeln!(f, "{gutter} | {}{}", " ".repeat(at.offset), "^".repeat(at.width))?;
                gutter
            }
            None => {
                writeln!(f, " --> {}", path.display())?;
                " ".to_owned()
            }
        };
        writeln!(f, "{gutter} = remedy: {}\n", self.remedy)
    }
}

/// Where a key or a value stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The path of the key, as an operator would say it.
    pub(super) key: String,
    /// Bytes of the file.
    pub(super) span: Range<usize>,
}

impl Place {
    /// A key below this one.
    pub(super) fn below(&self, key: &str, span: Range<usize>) -> Self {
        let key = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        Self { key, span }
    }
}

/// A value together with where it stands, so that a check made later can still point at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// What is wrong with a value, before anybody knows where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) rule: String,
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(rule: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { rule: rule.into(), remedy: remedy.into() }
    }
}

/// Whether a mistake is something that stands in the file, or something that should and does not.
///
/// After an error of syntax the second kind proves nothing: what is absent may stand in the part that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    Present,
    Absent,
    Syntax,
}

#[derive(Debug)]
struct Found {
    evidence: Evidence,
    span: Option<Range<usize>>,
    /// Whether its line holds a secret, which no report may show.
    is_secret: bool,
    mistake: Mistake,
}

/// Collects mistakes while the file is read and checked.
#[derive(Debug)]
pub(super) struct Mistakes<'a> {
    text: &'a str,
    found: RefCell<Vec<Found>>,
}

impl<'a> Mistakes<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, found: RefCell::new(Vec::new()) }
    }

    /// Whether a further mistake would not be shown, so that no work need go into its remedy.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().len() >= MISTAKES_MAX
    }

    /// What stands at `place`.
    pub(super) fn written(&self, place: &Place) -> Option<&'a str> {
        self.text.get(place.span.clone())
    }

    /// The value at `place` breaks `rule`.
    pub(super) fn value(&self, place: &Place, rule: impl Into<String>, remedy: impl Into<String>) {
        let value = self.written(place).map(|written| shortened(written, VALUE_MAX));
        self.add(Evidence::Present, place, value, rule.into(), remedy.into());
    }

    /// As [`Mistakes::value`], with what the value's parser said.
    pub(super) fn wrong(&self, place: &Place, wrong: Wrong) {
        self.value(place, wrong.rule, wrong.remedy);
    }

    /// The key or block at `place` breaks `rule`, whatever its value.
    pub(super) fn block(&self, place: &Place, rule: impl Into<String>, remedy: impl Into<String>) {
        self.add(Evidence::Present, place, None, rule.into(), remedy.into());
    }

    /// The value at `place` is a secret that must not stand there. No line that it stands on is shown.
    pub(super) fn secret(&self, place: &Place, rule: impl Into<String>, remedy: impl Into<String>) {
        let mistake =
            Mistake { position: None, key: place.key.clone(), value: None, rule: rule.into(), remedy: remedy.into() };
        let (evidence, span) = (Evidence::Present, Some(place.span.clone()));
        self.found.borrow_mut().push(Found { evidence, span, is_secret: true, mistake });
    }

    /// Something that `place` needs stands nowhere.
    pub(super) fn absent(&self, place: &Place, rule: impl Into<String>, remedy: impl Into<String>) {
        self.add(Evidence::Absent, place, None, rule.into(), remedy.into());
    }

    /// The value at `place` names something that stands nowhere.
    pub(super) fn dangling(&self, place: &Place, rule: impl Into<String>, remedy: impl Into<String>) {
        let value = self.written(place).map(|written| shortened(written, VALUE_MAX));
        self.add(Evidence::Absent, place, value, rule.into(), remedy.into());
    }

    /// The text at `span` is not TOML.
    pub(super) fn syntax(&self, span: Option<Range<usize>>, rule: impl Into<String>, remedy: impl Into<String>) {
        let place = Place { key: String::new(), span: span.unwrap_or(self.text.len()..self.text.len()) };
        self.add(Evidence::Syntax, &place, None, rule.into(), remedy.into());
    }

    /// The file as a whole lacks something.
    pub(super) fn file(&self, rule: impl Into<String>, remedy: impl Into<String>) {
        let mistake =
            Mistake { position: None, key: String::new(), value: None, rule: rule.into(), remedy: remedy.into() };
        self.found.borrow_mut().push(Found { evidence: Evidence::Absent, span: None, is_secret: false, mistake });
    }

    fn add(&self, evidence: Evidence, place: &Place, value: Option<String>, rule: String, remedy: String) {
        let mistake = Mistake { position: None, key: place.key.clone(), value, rule, remedy };
        self.found.borrow_mut().push(Found { evidence, span: Some(place.span.clone()), is_secret: false, mistake });
    }

    /// The report, or `None` when nothing is wrong.
    pub(super) fn into_report(self, path: &Path) -> Option<Report> {
        let text = self.text;
        let mut found = self.found.into_inner();
        drop_consequences(text, &mut found);
        if found.is_empty() {
            return None;
        }
        let is_partial = found.iter().any(|found| found.evidence == Evidence::Syntax);
        found.sort_by_key(|found| found.span.as_ref().map_or(usize::MAX, |span| span.start));
        let left_out = found.len().saturating_sub(MISTAKES_MAX);
        found.truncate(MISTAKES_MAX);
        let lines = LineStarts::new(text);
        let spans_of_secrets = found.iter().filter(|found| found.is_secret).filter_map(|found| found.span.as_ref());
        let secret: HashSet<usize> =
            spans_of_secrets.flat_map(|span| lines.line(span.start)..=lines.line(span.end)).collect();
        let position = |span: Range<usize>| {
            let position = lines.position(&span);
            if secret.contains(&lines.line(span.start)) { position.concealed() } else { position }
        };
        let mistakes =
            found.into_iter().map(|found| Mistake { position: found.span.map(position), ..found.mistake }).collect();
        Some(Report { path: path.to_owned(), mistakes, left_out, is_partial })
    }
}

/// Leaves out what an error of syntax may have caused: everything absent, and everything on a line that could not be read.
fn drop_consequences(text: &str, found: &mut Vec<Found>) {
    let lines = LineStarts::new(text);
    let line_of = |found: &Found| found.span.as_ref().map(|span| lines.line(span.start));
    let broken: HashSet<usize> =
        found.iter().filter(|found| found.evidence == Evidence::Syntax).filter_map(line_of).collect();
    if broken.is_empty() {
        return;
    }
    let mut reported = HashSet::new();
    found.retain(|found| match found.evidence {
        // One slip makes the parser complain several times about a line; the first complaint is the useful one.
        Evidence::Syntax => reported.insert(line_of(found)),
        Evidence::Present => line_of(found).is_none_or(|line| !broken.contains(&line)),
        Evidence::Absent => false,
    });
}

impl Position {
    /// The same place, without what stands there.
    fn concealed(self) -> Self {
        Self { excerpt: "(not shown: there is a secret on this line)".to_owned(), offset: 0, width: 1, ..self }
    }
}

/// Finds lines and columns of byte offsets.
struct LineStarts<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineStarts<'a> {
    fn new(text: &'a str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// Index of the line that holds `offset`.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    fn position(&self, span: &Range<usize>) -> Position {
        let line = self.line(span.start);
        let start = self.starts.get(line).copied().unwrap_or(0);
        let before = self.text.get(start..span.start).unwrap_or("");
        let source = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("");
        let column = before.chars().count() + 1;
        let covered = self.text.get(span.clone()).and_then(|text| text.lines().next()).unwrap_or("");
        // A file may be one line of a mebibyte; the report must not become a thousand of them.
        let skipped = if column > EXCERPT_MAX { column - CONTEXT } else { 0 };
        let rest = source.char_indices().nth(skipped).and_then(|(at, _)| source.get(at..)).unwrap_or("");
        let begin = if skipped > 0 { "…" } else { "" };
        let excerpt = format!("{begin}{}", shortened(rest, EXCERPT_MAX));
        let offset = column - 1 - skipped + begin.chars().count();
        let room = excerpt.chars().count().saturating_sub(offset).max(1);
        let width = covered.chars().take(EXCERPT_MAX).count().clamp(1, room);
        Position { line: line + 1, column, excerpt, offset, width }
    }
}

/// The first line of `text` in at most `max` characters, safe to show on a terminal.
pub(super) fn shortened(text: &str, max: usize) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or("");
    let cut = first.chars().count() > max || lines.next().is_some();
    // A character for a character, so that the marker below the line stays under what it marks.
    let shown = first.chars().take(max).map(|c| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    });
    let mut shown: String = shown.collect();
    if cut {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(key: &str, span: Range<usize>) -> Place {
        Place { key: key.to_owned(), span }
    }

    #[test]
    fn report_shows_file_line_key_value_rule_and_remedy() {
        let text = "[[vip]]\nvirtual_router_id = 300\n";
        let mistakes = Mistakes::new(text);
        mistakes.value(&place("vip[web].virtual_router_id", 28..31), "must be 1 to 255", "choose a free number");
        let report = mistakes.into_report(Path::new("baton.toml")).expect("a mistake was added");
        assert_eq!(
            report.to_string(),
            "error: vip[web].virtual_router_id = 300: must be 1 to 255\n \
             --> baton.toml:2:21\n  \
             |\n\
             2 | virtual_router_id = 300\n  \
             |                     ^^^\n  \
             = remedy: choose a free number\n\n\
             1 mistake in baton.toml"
        );
    }

    #[test]
    fn report_follows_the_order_of_the_file() {
        let mistakes = Mistakes::new("a = 1\nb = 2\n");
        mistakes.file("whole", "x");
        mistakes.value(&place("b", 10..11), "second", "x");
        mistakes.value(&place("a", 4..5), "first", "x");
        let report = mistakes.into_report(Path::new("f")).expect("mistakes were added");
        let rules: Vec<&str> = report.mistakes().iter().map(|mistake| mistake.rule.as_str()).collect();
        assert_eq!(rules, ["first", "second", "whole"]);
    }

    #[test]
    fn what_is_absent_proves_nothing_after_a_syntax_error() {
        let mistakes = Mistakes::new("a = \nb = 2\nc = 3\n");
        mistakes.syntax(Some(4..4), "not a value", "x");
        mistakes.value(&place("a", 4..4), "same line", "x");
        mistakes.value(&place("b", 9..10), "kept", "x");
        mistakes.absent(&place("c", 11..12), "absent", "x");
        let report = mistakes.into_report(Path::new("f")).expect("mistakes were added");
        let rules: Vec<&str> = report.mistakes().iter().map(|mistake| mistake.rule.as_str()).collect();
        assert_eq!(rules, ["not a value", "kept"]);
        assert!(report.to_string().ends_with("2 mistakes in f; more may show once its syntax is right"));
    }

    #[test]
    fn a_thousand_mistakes_are_shown_and_the_rest_counted() {
        let mistakes = Mistakes::new("a = 1");
        for _ in 0..1003 {
            mistakes.value(&place("a", 4..5), "wrong", "x");
        }
        let report = mistakes.into_report(Path::new("f")).expect("mistakes were added");
        assert_eq!(report.mistakes().len(), 1000);
        assert!(report.to_string().ends_with("1003 mistakes in f, 3 of them not shown"));
    }

    #[test]
    fn a_mistake_far_along_a_line_is_shown_with_what_is_around_it() {
        let text = format!("a = \"{}\" ! b", "x".repeat(500));
        let mistakes = Mistakes::new(&text);
        mistakes.syntax(Some(507..508), "unexpected", "x");
        let report = mistakes.into_report(Path::new("f")).expect("a mistake was added");
        let at = report.mistakes()[0].position.clone().expect("it has a place");
        assert_eq!((at.column, at.offset, at.width), (508, 20, 1));
        assert_eq!(at.excerpt, "…xxxxxxxxxxxxxxxxx\" ! b");
    }

    #[test]
    fn control_characters_of_a_file_do_not_reach_the_terminal() {
        assert_eq!(shortened("a\u{1b}[31mb\tc", 20), "a\u{fffd}[31mb c");
        assert_eq!(shortened("abcdef", 3), "abc…");
        assert_eq!(shortened("ab\ncd", 3), "ab…");
    }
}
