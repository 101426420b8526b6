//! What came of a drill, as a table for a terminal, as JSON, as JUnit's XML, and as a page that needs nothing else.

mod html;
mod junit;
mod svg;
mod table;

pub use self::html::html;
pub use self::junit::junit;
pub use self::table::table;

use super::outcome::Report;

/// All of it, with `passed`.
pub fn json(report: &Report) -> String {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("passed".to_owned(), report.is_passed().into());
    }
    format!("{value:#}\n")
}

/// A text in which no character means anything to XML or HTML. Those that XML has no way to write are left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

/// `2026-11-22 05:16:00 UTC`.
fn clock_time(unix_s: u64) -> String {
    let seconds = i64::try_from(unix_s).unwrap_or(0);
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    at.format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_means_anything_to_xml() {
        assert_eq!(escaped("<a href=\"x\" b='&'>\u{1b}[1m"), "&lt;a href=&quot;x&quot; b=&#39;&amp;&#39;&gt;[1m");
    }

    #[test]
    fn time_is_that_of_the_clock() {
        assert_eq!(clock_time(1_700_000_000), "2023-11-14 22:13:20 UTC");
    }

    #[test]
    fn json_has_the_figures_and_the_verdict() {
        use super::super::outcome::tests::{moved, report};
        let events = vec![moved(&["lb-b"], crate::config::scenario::Limits::default()); 5];
        let text = json(&report(events));
        assert!(text.contains("\"passed\": true"), "{text}");
        assert!(text.contains("\"without_service_ms\": 23"), "{text}");
    }
}
