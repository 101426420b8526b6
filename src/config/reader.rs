//! A typed way through a TOML document that goes on after a mistake.
//!
//! Serde stops at the first error, and an operator would have to run `baton check` once a mistake. Here every getter adds
//! to [`Mistakes`] and gives back what can still be used. Unknown keys are found by what nobody asked for.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Located, Mistakes, Place, Wrong};
use super::values;

/// A table of the file, and what was asked of it.
pub(super) struct Table<'a> {
    mistakes: &'a Mistakes<'a>,
    place: Place,
    entries: &'a DeTable<'a>,
    asked: Vec<&'static str>,
    missing: Vec<(&'static str, &'static str)>,
}

/// What an optional key says. A check that compares it with another key is silent about a broken one, which is reported
/// already.
pub(super) enum Written<T> {
    /// The key is not there.
    No,
    /// It is there, and its value cannot be used.
    Broken,
    /// Its value.
    As(T),
}

impl<T> Written<T> {
    /// Whether the key is there, whatever it says.
    pub(super) fn is_there(&self) -> bool {
        !matches!(self, Written::No)
    }

    /// Its value, when it is there and can be used.
    pub(super) fn known(&self) -> Option<&T> {
        match self {
            Written::As(value) => Some(value),
            Written::No | Written::Broken => None,
        }
    }

    /// As [`Written::known`], by value.
    pub(super) fn into_known(self) -> Option<T> {
        match self {
            Written::As(value) => Some(value),
            Written::No | Written::Broken => None,
        }
    }
}

impl<T: Copy> Written<Located<T>> {
    /// What holds: the value, or the default when the key is not there. `None` when nobody can say.
    pub(super) fn or_default(&self, default: T) -> Option<T> {
        match self {
            Written::No => Some(default),
            Written::Broken => None,
            Written::As(found) => Some(found.value),
        }
    }
}

/// A value of the file.
pub(super) struct Value<'a> {
    mistakes: &'a Mistakes<'a>,
    place: Place,
    value: &'a DeValue<'a>,
}

impl<'a> Table<'a> {
    /// The document itself.
    pub(super) fn root(mistakes: &'a Mistakes<'a>, entries: &'a DeTable<'a>) -> Self {
        Self::new(mistakes, Place { key: String::new(), span: 0..0 }, entries)
    }

    fn new(mistakes: &'a Mistakes<'a>, place: Place, entries: &'a DeTable<'a>) -> Self {
        Self { mistakes, place, entries, asked: Vec::new(), missing: Vec::new() }
    }

    /// Where the table begins.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The value of `key`, when there is one.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let entry = self.entries.get(key)?;
        Some(Value { mistakes: self.mistakes, place: self.place.below(key, entry.span()), value: entry.get_ref() })
    }

    /// Whether `key` is there, whatever it says.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// All entries of a table whose keys are free, up to `max`.
    pub(super) fn into_entries(self, max: usize) -> Vec<(&'a str, Value<'a>)> {
        if self.entries.len() > max {
            let rule = format!("must have at most {max} entries, has {}", self.entries.len());
            self.mistakes.block(&self.place, rule, "leave some out");
        }
        let entry = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let key: &'a std::borrow::Cow<'a, str> = key.get_ref();
            let place = self.place.below(&super::report::shortened(key, 60), value.span());
            (key.as_ref(), Value { mistakes: self.mistakes, place, value: value.get_ref() })
        };
        self.entries.iter().take(max).map(entry).collect()
    }

    /// The value of `key` as `read` has it.
    pub(super) fn written<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'a>) -> Option<Located<T>>,
    ) -> Written<Located<T>> {
        match self.optional(key).map(read) {
            None => Written::No,
            Some(None) => Written::Broken,
            Some(Some(found)) => Written::As(found),
        }
    }

    /// The value of `key`; a mistake when there is none.
    pub(super) fn required(&mut self, key: &'static str, remedy: &'static str) -> Option<Value<'a>> {
        let value = self.optional(key);
        if value.is_none() {
            self.missing.push((key, remedy));
        }
        value
    }

    /// The block's name, which everything else refers to it by.
    pub(super) fn name(&mut self) -> Option<Located<String>> {
        self.required("name", "give it a name of its own, such as name = \"web\"")?.parsed(values::name)
    }

    /// The blocks `[[key]]`.
    pub(super) fn blocks(&mut self, key: &'static str, max: usize) -> Vec<Table<'a>> {
        self.optional(key).map(|value| value.blocks(max)).unwrap_or_default()
    }

    /// The block `[key]`.
    pub(super) fn block(&mut self, key: &'static str) -> Option<Table<'a>> {
        self.optional(key)?.block()
    }

    /// A duration in `range`; `default` when there is none, or none that can be used.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.optional(key).and_then(|value| value.duration(range)).map_or(default, |found| found.value)
    }

    /// A whole number in `range`; `default` when there is none, or none that can be used.
    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>, default: u32) -> u32 {
        self.optional(key).and_then(|value| value.integer(range)).map_or(default, |found| found.value)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.optional(key).and_then(Value::boolean).unwrap_or(default)
    }

    /// Passes over keys that may have been meant, as far as can be told.
    pub(super) fn skip(&mut self, keys: &[&'static str]) {
        self.asked.extend(keys);
    }

    /// Refuses the keys that mean nothing beside what else the block says.
    pub(super) fn without_meaning(&mut self, keys: &[&'static str], rule: &str, remedy: &str) {
        for key in keys {
            if let Some(value) = self.optional(key) {
                self.mistakes.block(&value.place, rule, remedy);
            }
        }
    }

    /// Reports the keys that were asked for in vain, and no others: what is there cannot be judged without them.
    pub(super) fn finish_missing(self) {
        for (key, remedy) in self.missing {
            self.mistakes.absent(&self.place.below(key, self.place.span.clone()), "missing", remedy);
        }
    }

    /// Reports the keys that nobody asked for, and those that were asked for in vain.
    pub(super) fn finish(mut self) {
        let free: Vec<&str> = self.asked.iter().filter(|key| !self.entries.contains_key(**key)).copied().collect();
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.asked.contains(&key.get_ref().as_ref())) {
            let meant = if self.mistakes.is_full() { None } else { closest(key.get_ref(), &free) };
            // The missing key stands there, misspelt: one mistake, not two.
            self.missing.retain(|(missing, _)| Some(*missing) != meant);
            let remedy = match meant {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("remove it; the keys here are {}", self.asked.join(", ")),
            };
            let shown = super::report::shortened(key.get_ref(), 60);
            self.mistakes.block(&self.place.below(&shown, key.span()), "unknown key", remedy);
        }
        for (key, remedy) in self.missing {
            self.mistakes.absent(&self.place.below(key, self.place.span.clone()), "missing", remedy);
        }
    }
}

impl<'a> Value<'a> {
    fn wrong<T>(&self, rule: impl Into<String>, remedy: impl Into<String>) -> Option<T> {
        self.mistakes.value(&self.place, rule, remedy);
        None
    }

    fn wrong_type<T>(&self, wanted: &str, remedy: impl Into<String>) -> Option<T> {
        self.wrong(format!("must be {wanted}, not {}", with_article(self.value.type_str())), remedy)
    }

    /// Where the value stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    fn located<T>(self, value: T) -> Located<T> {
        Located { value, place: self.place }
    }

    /// A string that `parse` accepts.
    pub(super) fn parsed<T>(self, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<Located<T>> {
        let DeValue::String(text) = self.value else {
            return self.wrong_type("a string", "write it in quotes");
        };
        match parse(text) {
            Ok(value) => Some(self.located(value)),
            Err(wrong) => {
                self.mistakes.wrong(&self.place, wrong);
                None
            }
        }
    }

    /// One of the words in `known`; those in `planned` have a meaning, but not yet.
    pub(super) fn choice<T: Copy>(self, known: &[(&str, T)], planned: &[&str]) -> Option<Located<T>> {
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        let parse = |text: &str| {
            if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
                return Ok(*value);
            }
            let instead = format!("use {}", quoted(&words, " or "));
            if planned.contains(&text) {
                return Err(Wrong::new("not in this release", instead));
            }
            let remedy = closest(text, &words).map_or(instead, |meant| format!("did you mean \"{meant}\"?"));
            Err(Wrong::new(format!("must be {}", quoted(&words, " or ")), remedy))
        };
        // Where a number is one of the words, it is one without quotes as well: version = 3.
        let number = self.value.as_integer().filter(|number| number.radix() == 10).map(|number| number.as_str());
        match number.filter(|_| words.iter().any(|word| word.parse::<u32>().is_ok())).map(parse) {
            Some(Ok(value)) => Some(self.located(value)),
            Some(Err(wrong)) => self.wrong(wrong.rule, wrong.remedy),
            None => self.parsed(parse),
        }
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// Whether it is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// The values of a list of 1 to `max`, or the one value that stands alone.
    pub(super) fn one_or_list(self, max: usize) -> Vec<Value<'a>> {
        if self.is_list() { self.list(max) } else { vec![self] }
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// Whether it is `false`, where a table may stand as well.
    pub(super) fn is_false(&self) -> bool {
        matches!(self.value, DeValue::Boolean(false))
    }

    /// A duration in `range`.
    pub(super) fn duration(self, range: RangeInclusive<Duration>) -> Option<Located<Duration>> {
        if let DeValue::Integer(_) | DeValue::Float(_) = self.value {
            let number = self.written().unwrap_or_default();
            let remedy = format!("say which unit: \"{number}ms\" or \"{number}s\"");
            return self.wrong("a duration needs a unit", remedy);
        }
        self.parsed(|text| {
            let duration = values::duration(text)?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            let (min, max) = (values::duration_text(*range.start()), values::duration_text(*range.end()));
            let nearest = if duration < *range.start() { &min } else { &max };
            Err(Wrong::new(format!("must be {min} to {max}"), format!("the nearest that is allowed is \"{nearest}\"")))
        })
    }

    fn written(&self) -> Option<String> {
        self.mistakes.written(&self.place).map(|text| super::report::shortened(text, 20))
    }

    /// A whole number in `range`.
    pub(super) fn integer(self, range: RangeInclusive<u32>) -> Option<Located<u32>> {
        let (min, max) = (*range.start(), *range.end());
        let DeValue::Integer(number) = self.value else {
            return self.wrong_type("a whole number", format!("write a number from {min} to {max}, without quotes"));
        };
        // Larger than any i128 is out of any range as well.
        let number = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
        match u32::try_from(number) {
            Ok(number) if range.contains(&number) => Some(self.located(number)),
            _ => self.wrong(format!("must be {min} to {max}"), format!("choose a number from {min} to {max}")),
        }
    }

    /// A whole number in `range`, which may be negative.
    pub(super) fn signed(self, range: RangeInclusive<i32>) -> Option<Located<i32>> {
        let (min, max) = (*range.start(), *range.end());
        let DeValue::Integer(number) = self.value else {
            return self.wrong_type("a whole number", format!("write a number from {min} to {max}, without quotes"));
        };
        match i32::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if range.contains(&number) => Some(self.located(number)),
            _ => self.wrong(format!("must be {min} to {max}"), format!("choose a number from {min} to {max}")),
        }
    }

    /// A number of bytes in `range`: a whole number, or one with a unit such as "64KiB".
    pub(super) fn bytes(self, range: RangeInclusive<u64>) -> Option<Located<u64>> {
        let within = |bytes: u64| {
            if range.contains(&bytes) {
                return Ok(bytes);
            }
            let (min, max) = (values::bytes_text(*range.start()), values::bytes_text(*range.end()));
            let nearest = if bytes < *range.start() { &min } else { &max };
            Err(Wrong::new(format!("must be {min} to {max}"), format!("the nearest that is allowed is \"{nearest}\"")))
        };
        let DeValue::Integer(number) = self.value else {
            if self.text().is_none() {
                return self.wrong_type("a number of bytes", "write a whole number, or one with a unit: \"64KiB\"");
            }
            return self.parsed(|text| within(values::bytes(text)?));
        };
        // Larger than any i128 is out of any range as well.
        let number = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
        match within(u64::try_from(number.max(0)).unwrap_or(u64::MAX)) {
            Ok(bytes) if number >= 0 => Some(self.located(bytes)),
            Ok(_) => self.wrong("must not be negative", "write a whole number, or one with a unit: \"64KiB\""),
            Err(wrong) => self.wrong(wrong.rule, wrong.remedy),
        }
    }

    /// `true` and nothing else.
    pub(super) fn only_true(self, remedy: &str) -> Option<()> {
        match self.value {
            DeValue::Boolean(true) => Some(()),
            _ => self.wrong("must be true", remedy),
        }
    }

    /// What the key itself says, where keys are free.
    pub(super) fn key_parsed<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        parse(key).map_err(|wrong| self.mistakes.block(&self.place, wrong.rule, wrong.remedy)).ok()
    }

    /// A share above 0 up to 1, as so many parts of `whole`, at least one.
    pub(super) fn share(self, whole: u32) -> Option<u32> {
        let written = match self.value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => return self.wrong_type("a number", "write a number above 0 up to 1, without quotes"),
        };
        let parts = written.replace('_', "").parse::<f64>().map_or(-1.0, |share| share * f64::from(whole));
        if parts > 0.0 && parts <= f64::from(whole) {
            // In range, and rounded to a whole number.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to `whole`, an u32")]
            return Some((parts.round() as u32).max(1));
        }
        self.wrong("must be above 0 and at most 1", "write a share such as 0.01, which is one of a hundred")
    }

    /// The number 1 and nothing else.
    pub(super) fn only_one(self, rule: &str, remedy: &str) {
        let is_one = self.value.as_integer().is_some_and(|number| number.as_str() == "1");
        if !is_one {
            self.mistakes.value(&self.place, rule, remedy);
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_type("true or false", "write true or false, without quotes"),
        }
    }

    /// The values of a list of 1 to `max`. One value that stands alone is reported, and then read as a list of one.
    pub(super) fn list(self, max: usize) -> Vec<Value<'a>> {
        self.list_of(1, max)
    }

    /// As [`Value::list`], for a list of `min` to `max`.
    pub(super) fn list_of(self, min: usize, max: usize) -> Vec<Value<'a>> {
        let DeValue::Array(items) = self.value else {
            let written = self.mistakes.written(&self.place).unwrap_or("…");
            let shown = super::report::shortened(written, 60);
            let _: Option<()> = self.wrong_type("a list", format!("write [{shown}]"));
            return if matches!(self.value, DeValue::Table(_)) { Vec::new() } else { vec![self] };
        };
        if items.len() < min || items.len() > max {
            let rule = format!("must have {min} to {max} entries, has {}", items.len());
            self.mistakes.block(&self.place, rule, if items.len() < min { "add an entry" } else { "leave some out" });
        }
        let (mistakes, key) = (self.mistakes, &self.place.key);
        let item = |(index, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let place = Place { key: format!("{key}[#{}]", index + 1), span: item.span() };
            Value { mistakes, place, value: item.get_ref() }
        };
        items.iter().take(max).enumerate().map(item).collect()
    }

    /// A table.
    pub(super) fn block(self) -> Option<Table<'a>> {
        let key = self.place.key.clone();
        match self.value {
            DeValue::Table(entries) => Some(Table::new(self.mistakes, self.place, entries)),
            DeValue::Array(_) => {
                let remedy = format!("write it once, as [{}]", plain(&key));
                self.mistakes.block(&self.place, "must stand once, not in a list", remedy);
                None
            }
            DeValue::Boolean(true) => {
                let name = key.rsplit('.').next().unwrap_or(&key);
                self.wrong_type("a table", format!("write {name} = {{}} to have all of its defaults"))
            }
            _ => self.wrong_type("a table", format!("write [{}] and its keys below", plain(&key))),
        }
    }

    /// Tables in a list. A table that stands alone is reported, and then read as a list of one.
    pub(super) fn blocks(self, max: usize) -> Vec<Table<'a>> {
        match self.value {
            DeValue::Table(entries) => {
                let remedy = format!("write [[{}]], with two brackets", plain(&self.place.key));
                self.mistakes.block(&self.place, "must be a list of tables", remedy);
                let place = entry_place(&self.place.key, 0, entries, self.place.span.clone());
                vec![Table::new(self.mistakes, place, entries)]
            }
            DeValue::Array(_) => self.tables_of_list(max),
            _ => {
                let remedy = format!("write [[{}]] and its keys below", plain(&self.place.key));
                let _: Option<()> = self.wrong_type("a list of tables", remedy);
                Vec::new()
            }
        }
    }

    fn tables_of_list(self, max: usize) -> Vec<Table<'a>> {
        let key = self.place.key.clone();
        let mut tables = Vec::new();
        for (index, item) in self.list(max).into_iter().enumerate() {
            match item.value {
                DeValue::Table(entries) => {
                    let place = entry_place(&key, index, entries, item.place.span);
                    tables.push(Table::new(item.mistakes, place, entries));
                }
                _ => {
                    let _: Option<()> = item.wrong_type("a table", "write { name = \"…\", … }");
                }
            }
        }
        tables
    }
}

/// `pool[app]` for an entry with a name, `pool[#2]` for one without.
fn entry_place(key: &str, index: usize, entries: &DeTable<'_>, span: Range<usize>) -> Place {
    let name = entries.get("name").and_then(|name| name.get_ref().as_str()).filter(|name| values::name(name).is_ok());
    let label = name.map_or_else(|| format!("#{}", index + 1), str::to_owned);
    Place { key: format!("{key}[{label}]"), span }
}

/// The key of a block as its header has it: `pool[app].health` is `pool.health`.
fn plain(key: &str) -> String {
    let mut depth = 0_u32;
    let outside = |c: &char| match c {
        '[' => {
            depth += 1;
            false
        }
        ']' => {
            depth = depth.saturating_sub(1);
            false
        }
        _ => depth == 0,
    };
    key.chars().filter(outside).collect()
}

/// The word of `known` that somebody who wrote `word` may have meant.
pub(super) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |known: &&str| {
        let begins_alike = word.len() >= 4 && known.len() >= 4 && (known.starts_with(word) || word.starts_with(known));
        if begins_alike { 1 } else { strsim::osa_distance(word, known) }
    };
    // The distance takes time and memory for the product of both lengths; nobody misspells by this much.
    if word.len() > 64 {
        return None;
    }
    let near = |known: &&&str| distance(known) <= (known.len().max(word.len()) / 3).max(1);
    known.iter().filter(near).min_by_key(|known| distance(known)).copied()
}

/// `"a", "b" or "c"`.
fn quoted(words: &[&str], last: &str) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{}{last}{end}", rest.join(", ")),
        _ => words.concat(),
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}
