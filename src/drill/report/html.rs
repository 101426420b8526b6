//! The page that a drill leaves behind: one file with nothing to load, right on a screen, a phone and paper.

use std::fmt::Write as _;

use super::super::outcome::{EventReport, Expected, Figures, Report, Verdict};
use super::{clock_time, escaped, svg};

const STYLE: &str = include_str!("page.css");

/// Colors and words below each picture.
const LEGEND: [(&str, &str); 10] = [
    ("p50", "median latency"),
    ("p99", "slowest of a hundred"),
    ("answered", "answered requests a second"),
    ("bad", "failed requests"),
    ("gap", "time without service"),
    ("moved", "users who lost their server"),
    ("active", "active"),
    ("standby", "standby"),
    ("unfit", "unfit"),
    ("silent", "no answer"),
];

/// All of it. Writing to a `String` cannot fail, so that the results are let go.
pub fn html(report: &Report) -> String {
    let name = escaped(&report.name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{name}: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        if report.is_passed() { "passed" } else { "not passed" }
    );
    let _ = writeln!(
        page,
        "<p class=\"over\">Baton failover drill, {}</p>\n<h1>{name}</h1>",
        clock_time(report.began_unix_s)
    );
    write_verdict(&mut page, report);
    write_facts(&mut page, report);
    write_summary(&mut page, report);
    for (index, event) in report.events.iter().enumerate() {
        write_event(&mut page, index + 1, event);
    }
    page.push_str(READING);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

const READING: &str = "<footer><p>Time without service is the longest time between two answers to new connections that are made at \
a steady pace; what it comes to without any event is the noise of the measurement. A failed request is one without a good \
answer, of any client. A user carries a cookie and should meet the same server for as long as it lives. Times below the \
pictures count from the event.</p></footer>\n";

fn write_verdict(page: &mut String, report: &Report) {
    let passed = report.events.iter().filter(|event| event.passed).count();
    let planned = report.planned.len();
    if report.is_passed() {
        let _ =
            writeln!(page, "<div class=\"verdict good\">Passed: all {planned} events are within their limits</div>");
        return;
    }
    let _ = writeln!(
        page,
        "<div class=\"verdict bad\">Not passed: {passed} of {planned} events are within their limits<ul>"
    );
    for fault in report.faults() {
        let _ = writeln!(page, "<li>{}</li>", escaped(&fault));
    }
    if let Some(signal) = report.interrupted {
        let _ = writeln!(page, "<li>interrupted by signal {signal}</li>");
    }
    for title in report.not_played() {
        let _ = writeln!(page, "<li>{title}: not played</li>");
    }
    page.push_str("</ul></div>\n");
}

fn write_facts(page: &mut String, report: &Report) {
    page.push_str("<dl class=\"facts\">\n");
    let mut fact = |term: &str, text: String| {
        let _ = writeln!(page, "<div><dt>{term}</dt><dd>{}</dd></div>", escaped(&text));
    };
    for node in &report.nodes {
        let checksum: String = node.config_checksum.chars().take(12).collect();
        fact("Node", format!("{}: baton {}, configuration {checksum}", node.node, node.version));
    }
    fact("Virtual address", format!("{}, adverts every {} ms", report.vip.join(", "), report.advert_interval_ms));
    match &report.steady {
        Some(steady) => fact("Load", format!("{}: {} requests a second", report.load, steady.requests_a_second)),
        None => fact("Load", "none".to_owned()),
    }
    fact("Took", format!("{} s", report.duration_ms / 1000));
    page.push_str("</dl>\n");
}

fn write_summary(page: &mut String, report: &Report) {
    page.push_str(
        "<section class=\"card\"><div class=\"scroll\"><table>\n<thead><tr><th>Event</th><th>Without<br>service</th>\
         <th>Failed<br>requests</th><th>Broken<br>connections</th><th>Users who lost<br>their server</th>\
         <th class=\"word\">VIP</th><th>Whole<br>after</th><th class=\"word\">Verdict</th></tr></thead>\n<tbody>\n",
    );
    let cells = |figures: &Figures| {
        format!(
            "<td>{} ms</td><td>{}</td><td>{}</td><td>{}</td>",
            figures.without_service_ms,
            figures.failed_requests.total(),
            figures.broken_total(),
            figures.users_moved
        )
    };
    let no_figures = || "<td>-</td>".repeat(4);
    let _ = writeln!(
        page,
        "<tr><td>no event</td>{}<td class=\"word\"></td><td></td><td class=\"word\"></td></tr>",
        report.steady.as_ref().map_or_else(no_figures, cells)
    );
    for (index, event) in report.events.iter().enumerate() {
        let number = index + 1;
        let figures = event.figures.as_ref().map_or_else(no_figures, cells);
        let _ = writeln!(
            page,
            "<tr><td><a href=\"#event-{number}\">{}</a></td>{figures}<td class=\"word\">{}</td><td>{}</td><td class=\"word\">{}</td></tr>",
            escaped(event.event),
            escaped(&event.verdict.to_string()),
            event.recovery_ms.map_or_else(|| "-".to_owned(), seconds),
            badge(event)
        );
    }
    for title in report.not_played() {
        let _ = writeln!(
            page,
            "<tr><td>{title}</td>{}<td class=\"word\">-</td><td>-</td><td class=\"word\"><span class=\"badge none\">not played</span></td></tr>",
            no_figures()
        );
    }
    page.push_str("</tbody></table></div></section>\n");
}

fn badge(event: &EventReport) -> &'static str {
    match (&event.verdict, event.passed) {
        (_, true) => "<span class=\"badge good\">passed</span>",
        (Verdict::Failed { .. }, false) => "<span class=\"badge bad\">failed</span>",
        (_, false) => "<span class=\"badge bad\">over its limits</span>",
    }
}

fn write_event(page: &mut String, number: usize, event: &EventReport) {
    let _ = writeln!(
        page,
        "<section class=\"card\" id=\"event-{number}\">\n<div class=\"head\"><h2>{number}. {}</h2>{}</div>\n<p class=\"story\">{}</p>",
        escaped(event.event),
        badge(event),
        escaped(&event.story)
    );
    if !event.faults.is_empty() {
        let items: Vec<String> = event.faults.iter().map(|fault| format!("<li>{}</li>", escaped(fault))).collect();
        let _ = writeln!(page, "<ul class=\"faults\">{}</ul>", items.concat());
    }
    if let Some(figures) = &event.figures {
        write_tiles(page, event, figures);
    }
    if let Some(timeline) = &event.timeline {
        let title = format!("{}: {}", event.event, event.sentence());
        let _ = writeln!(page, "<div class=\"scroll\">\n{}</div>", svg::picture(timeline, &title));
        let item = |(color, word): &(&str, &str)| format!("<li><i style=\"background:var(--{color})\"></i>{word}</li>");
        let _ = writeln!(page, "<ul class=\"legend\">{}</ul>", LEGEND.iter().map(item).collect::<String>());
    }
    page.push_str("</section>\n");
}

fn write_tiles(page: &mut String, event: &EventReport, figures: &Figures) {
    let Expected { gap_max_ms, failed_max, users_moved_max, recovery_max_ms, vip } = event.expected;
    page.push_str("<div class=\"tiles\">\n");
    let mut tile = |term: &str, value: String, note: String, is_bad: bool| {
        let class = if is_bad { "tile bad" } else { "tile" };
        let (value, note) = (escaped(&value), escaped(&note));
        let _ = writeln!(
            page,
            "<dl class=\"{class}\"><dt>{term}</dt><dd>{value}<span class=\"limit\">{note}</span></dd></dl>"
        );
    };
    let limit = |max: Option<String>| max.map_or_else(|| "no limit".to_owned(), |max| format!("limit {max}"));
    let over = |found: u64, max: Option<u64>| max.is_some_and(|max| found > max);
    let gap = figures.without_service_ms;
    tile("Without service", format!("{gap} ms"), limit(gap_max_ms.map(|ms| format!("{ms} ms"))), over(gap, gap_max_ms));
    let failed = figures.failed_requests.total();
    let all = failed + figures.answered;
    let note = format!("of {all}, {}", limit(failed_max.map(|max| max.to_string())));
    tile("Failed requests", failed.to_string(), note, over(failed, failed_max.map(u64::from)));
    let (sockets, tcp) = (figures.broken_websockets, figures.broken_tcp_connections);
    let note = format!("{sockets} WebSockets, {tcp} TCP");
    tile("Broken connections", figures.broken_total().to_string(), note, false);
    let moved = figures.users_moved;
    let max = users_moved_max;
    tile(
        "Users who lost their server",
        moved.to_string(),
        limit(max.map(|max| max.to_string())),
        over(moved, max.map(u64::from)),
    );
    let note = match (event.moved_ms, vip) {
        (Some(ms), _) => format!("after {}", seconds(ms)),
        (None, "stays") => "has to stay".to_owned(),
        (None, "moves") => "has to move".to_owned(),
        (None, _) => "may move".to_owned(),
    };
    let is_misplaced = matches!(event.verdict, Verdict::Failed { .. });
    tile("VIP", event.verdict.to_string(), note, is_misplaced);
    if let Some(ms) = event.recovery_ms {
        tile("Pair whole after", seconds(ms), limit(recovery_max_ms.map(seconds)), over(ms, recovery_max_ms));
    }
    page.push_str("</div>\n");
}

/// `840 ms`, `3.2 s`, `61 s`.
fn seconds(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::outcome::tests::{moved, report};
    use super::*;
    use crate::config::scenario::Limits;

    #[test]
    fn page_says_what_failed_and_loads_nothing() {
        let mut bad = moved(&["lb-b"], Limits { failed: Some(0), ..Limits::default() });
        bad.story = "kill <b>it</b>".to_owned();
        let mut report = report(vec![moved(&["lb-b"], Limits::default()), bad]);
        report.name = "rack \"4\" <script>".to_owned();
        let page = html(&report);
        assert!(page.contains("<h1>rack &quot;4&quot; &lt;script&gt;</h1>"), "{page}");
        assert!(page.contains("<li>worker killed: 15 requests failed; the limit is 0</li>"), "{page}");
        assert!(page.contains("Not passed: 1 of 5 events"), "{page}");
        assert!(page.contains("kill &lt;b&gt;it&lt;/b&gt;"), "{page}");
        assert!(page.contains("<li>worker hung: not played</li>"), "{page}");
        for outside in ["http://", "https://", "<script", "url(", "@import", "src="] {
            let found = page.replace("style-src=", "");
            assert!(!found.contains(outside), "the page refers to something outside: {outside}");
        }
    }

    #[test]
    fn times_are_short() {
        assert_eq!([0, 999, 1000, 3240, 61_900].map(seconds), ["0 ms", "999 ms", "1.0 s", "3.2 s", "61 s"]);
    }
}
