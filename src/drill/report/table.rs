//! The table that a drill ends with.

use std::fmt::Write as _;

use super::super::outcome::{Figures, Report, Verdict};

/// Column heads, in two rows.
const HEADS: [[&str; 7]; 2] = [
    ["", "without", "failed", "broken", "users who lost", "", "held in the"],
    ["event", "service", "requests", "connections", "their server", "VIP moved", "end by"],
];

/// The table. Figures are on the right of their columns, words on the left. Writing to a `String` cannot fail, so that the
/// results are let go.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for head in HEADS {
        write_row(&mut text, head);
    }
    let no_figures = || ["-"; 4].map(str::to_owned);
    let [outage, failed, broken, moved] = report.steady.as_ref().map_or_else(no_figures, cells);
    write_row(&mut text, ["(no event)", &outage, &failed, &broken, &moved, "", ""]);
    for event in &report.events {
        let [outage, failed, broken, moved] = event.figures.as_ref().map_or_else(no_figures, cells);
        let held_by = if event.held_by.is_empty() { "-".to_owned() } else { event.held_by.join(" and ") };
        write_row(&mut text, [event.event, &outage, &failed, &broken, &moved, &event.verdict.to_string(), &held_by]);
        let mark = if matches!(event.verdict, Verdict::Failed { .. }) { "" } else { "NOT PASSED: " };
        for fault in &event.faults {
            let _ = writeln!(text, "  {mark}{fault}");
        }
    }
    for title in report.not_played() {
        write_row(&mut text, [title, "-", "-", "-", "-", "not played", ""]);
    }
    if let Some(signal) = report.interrupted {
        let _ = writeln!(text, "interrupted by signal {signal}");
    }
    for trouble in &report.troubles {
        let _ = writeln!(text, "NOT PASSED: {trouble}");
    }
    let seconds = report.duration_ms / 1000;
    let _ = writeln!(
        text,
        "\nadverts every {} ms; {} requests a second; {seconds} s in all",
        report.advert_interval_ms,
        report.steady.map_or(0, |steady| steady.requests_a_second)
    );
    let _ = writeln!(text, "A failed request is any of {}.", report.load);
    text
}

fn cells(figures: &Figures) -> [String; 4] {
    [
        format!("{} ms", figures.without_service_ms),
        figures.failed_requests.total().to_string(),
        figures.broken_total().to_string(),
        figures.users_moved.to_string(),
    ]
}

fn write_row(text: &mut String, [event, outage, failed, broken, moved, vip, held]: [&str; 7]) {
    let row = format!("{event:<15} {outage:>8}  {failed:>8}  {broken:>11}  {moved:>14}   {vip:<13}  {held}");
    let _ = writeln!(text, "{}", row.trim_end());
}

#[cfg(test)]
mod tests {
    use super::super::super::outcome::EventReport;
    use super::super::super::outcome::tests::{event, moved, report};
    use super::*;
    use crate::config::scenario::Limits;
    use std::time::Duration;

    #[test]
    fn table_shows_what_was_played_what_failed_and_what_was_not() {
        let reason = "waited 10000 ms in vain: service to come back".to_owned();
        let event = event(Limits::default());
        let mut failed =
            EventReport { event: "link cut", verdict: Verdict::Failed { reason }, ..EventReport::new(&event) };
        failed.judge(&event);
        let late = moved(&["lb-b"], Limits { gap: Some(Duration::from_millis(20)), ..Limits::default() });
        let expected = "\
                \x20                without    failed       broken  users who lost                  held in the
event            service  requests  connections    their server   VIP moved      end by
(no event)          4 ms         3            0               0
worker killed      23 ms        15           16               0   lb-a → lb-b    lb-b
  NOT PASSED: 23 ms without service; the limit is 20 ms
link cut               -         -            -               -   FAILED         -
  waited 10000 ms in vain: service to come back
guard killed           -         -            -               -   not played
clean stop             -         -            -               -   not played
worker hung            -         -            -               -   not played

adverts every 100 ms; 4012 requests a second; 48 s in all
A failed request is any of 500 new connections a second, 16 kept connections and 40 users with a cookie.
";
        assert_eq!(table(&report(vec![late, failed])), expected);
    }
}
