//! The picture of an event: latency and failures over time, the time without service, and the role of each node below.
//!
//! Plain SVG whose colors are those of the page, so that it is right in the light and in the dark.

use std::fmt::Write as _;

use super::super::roles::Seen;
use super::super::timeline::{NodeRoles, Timeline};
use super::escaped;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 944.0;
/// Latency.
const LATENCY: (f64, f64) = (34.0, 186.0);
/// Answers and failures.
const COUNTS: (f64, f64) = (204.0, 252.0);
/// Roles: the top of the first band.
const BANDS: f64 = 272.0;
const BAND_HEIGHT: f64 = 20.0;
const BAND_STEP: f64 = 26.0;

/// Marks nearer to each other than this would write over each other.
const LABEL_WIDTH: f64 = 80.0;

/// Draws it. Writing to a `String` cannot fail, so that the results are let go.
pub(super) fn picture(timeline: &Timeline, title: &str) -> String {
    let axis_y = BANDS + BAND_STEP * timeline.roles.len() as f64 + 4.0;
    let height = axis_y + 24.0;
    let scale = Scale { from: timeline.from_ms, to: timeline.to_ms };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>\n",
        escaped(title)
    );
    write_time_axis(&mut svg, &scale, axis_y);
    write_latency(&mut svg, timeline, &scale);
    write_counts(&mut svg, timeline, &scale);
    for (row, node) in timeline.roles.iter().enumerate() {
        write_band(&mut svg, node, &scale, BANDS + BAND_STEP * row as f64);
    }
    write_gap(&mut svg, timeline, &scale);
    write_marks(&mut svg, timeline, &scale, axis_y);
    svg.push_str("</svg>\n");
    svg
}

/// Where a time is, from left to right.
struct Scale {
    from: i64,
    to: i64,
}

impl Scale {
    fn x(&self, ms: i64) -> f64 {
        let length = (self.to - self.from).max(1) as f64;
        let share = (ms - self.from) as f64 / length;
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }
}

/// Lines at round seconds, none of them too many.
fn write_time_axis(svg: &mut String, scale: &Scale, axis_y: f64) {
    let length = (scale.to - scale.from).max(1);
    let steps = [100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000, 600_000];
    let step = steps.into_iter().find(|step| length / step <= 14).unwrap_or(3_600_000);
    let mut at = scale.from.div_euclid(step) * step;
    while at <= scale.to {
        if at >= scale.from {
            let x = scale.x(at);
            let label = if step < 1000 { format!("{:.1} s", at as f64 / 1000.0) } else { format!("{} s", at / 1000) };
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{axis_y:.1}\"/>",
                LATENCY.0
            );
            let y = axis_y + 16.0;
            let _ =
                writeln!(svg, "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>");
        }
        at += step;
    }
}

/// Median and slowest of a hundred, on a logarithmic scale of whole decades.
fn write_latency(svg: &mut String, timeline: &Timeline, scale: &Scale) {
    let known =
        || timeline.p50_us.iter().chain(&timeline.p99_us).filter_map(|us| *us).map(|us| f64::from(us.max(1)).log10());
    let low = known().fold(f64::MAX, f64::min).floor().clamp(1.0, 6.0);
    let high = known().fold(low, f64::max).ceil().clamp(low + 1.0, 8.0);
    let (top, bottom) = LATENCY;
    let y = |us: u32| {
        let share = (f64::from(us.max(1)).log10() - low) / (high - low);
        bottom - share.clamp(0.0, 1.0) * (bottom - top)
    };
    let mut decade = low;
    while decade <= high {
        let us = 10_f64.powf(decade);
        let at = bottom - (decade - low) / (high - low) * (bottom - top);
        let label = if us < 1000.0 {
            format!("{us:.0} µs")
        } else if us < 1e6 {
            format!("{:.0} ms", us / 1e3)
        } else {
            format!("{:.0} s", us / 1e6)
        };
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = writeln!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            at + 4.0
        );
        decade += 1.0;
    }
    for (class, values) in [("p99", &timeline.p99_us), ("p50", &timeline.p50_us)] {
        let path =
            line(values.iter().enumerate().map(|(index, us)| (column_middle(timeline, scale, index), us.map(&y))));
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

/// A line through points, broken where there is none. A point alone is a dot, by way of a line without length.
fn line(points: impl Iterator<Item = (f64, Option<f64>)>) -> String {
    let mut path = String::new();
    let mut is_open = false;
    for (x, y) in points {
        match y {
            Some(y) if is_open => {
                let _ = write!(path, "L{x:.1} {y:.1}");
            }
            Some(y) => {
                let _ = write!(path, "M{x:.1} {y:.1}h.1");
            }
            None => {}
        }
        is_open = y.is_some();
    }
    path
}

fn column_middle(timeline: &Timeline, scale: &Scale, index: usize) -> f64 {
    let step = i64::try_from(timeline.step_ms).unwrap_or(i64::MAX);
    let start = i64::try_from(index).unwrap_or(i64::MAX).saturating_mul(step).saturating_add(timeline.from_ms);
    scale.x(start.saturating_add(step / 2))
}

/// Answers a second as an area, failures as bars before it, users who met another server as diamonds above.
fn write_counts(svg: &mut String, timeline: &Timeline, scale: &Scale) {
    let (top, bottom) = COUNTS;
    let column_width = (RIGHT - LEFT) / timeline.answered.len().max(1) as f64;
    let most = timeline.answered.iter().copied().max().unwrap_or(0).max(1);
    let height = |count: u32, most: u32| f64::from(count) / f64::from(most) * (bottom - top);
    let mut area = format!("M{LEFT} {bottom}");
    for (index, count) in timeline.answered.iter().enumerate() {
        let x = column_middle(timeline, scale, index) - column_width / 2.0;
        let y = bottom - height(*count, most);
        let _ = write!(area, "L{x:.1} {y:.1}h{column_width:.2}");
    }
    let _ = writeln!(svg, "<path class=\"answered\" d=\"{area}L{RIGHT} {bottom}Z\"/>");
    let most_failed = timeline.failed.iter().copied().max().unwrap_or(0).max(1);
    for (index, count) in timeline.failed.iter().enumerate().filter(|(_, count)| **count > 0) {
        let bar = (column_width * 0.8).max(2.0);
        let (x, tall) = (column_middle(timeline, scale, index) - bar / 2.0, height(*count, most_failed).max(4.0));
        let y = bottom - tall;
        let _ = writeln!(
            svg,
            "<rect class=\"failed\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{bar:.1}\" height=\"{tall:.1}\"><title>{count} failed</title></rect>"
        );
    }
    for (index, count) in timeline.moved.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (x, y) = (column_middle(timeline, scale, index), top - 4.0);
        let _ = writeln!(
            svg,
            "<path class=\"moved\" d=\"M{x:.1} {:.1}l5 5l-5 5l-5 -5z\"><title>{count} users lost their server</title></path>",
            y - 5.0
        );
    }
    let rate = u64::from(most).saturating_mul(1000) / timeline.step_ms.max(1);
    let _ = writeln!(
        svg,
        "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{rate}/s</text>",
        LEFT - 8.0,
        top + 8.0
    );
    let _ = writeln!(svg, "<line class=\"base\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
}

fn write_band(svg: &mut String, node: &NodeRoles, scale: &Scale, y: f64) {
    let name: String = node.node.chars().take(11).collect();
    let middle = y + BAND_HEIGHT / 2.0 + 4.0;
    let _ = writeln!(
        svg,
        "<text class=\"node\" x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
        LEFT - 8.0,
        escaped(&name)
    );
    for (start, end, seen) in &node.spans {
        let (x, width) = (scale.x(*start), (scale.x(*end) - scale.x(*start)).max(1.0));
        let class = match seen {
            Seen::Active => "active",
            Seen::Standby => "standby",
            Seen::Unfit => "unfit",
            Seen::Silent => "silent",
        };
        let word = seen.word();
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAND_HEIGHT}\" rx=\"2\"><title>{word}, {} ms</title></rect>",
            end - start
        );
        if width > 60.0 {
            let _ = writeln!(svg, "<text class=\"on-{class}\" x=\"{:.1}\" y=\"{middle:.1}\">{word}</text>", x + 7.0);
        }
    }
}

/// The time without service, over latency and failures, with its length.
fn write_gap(svg: &mut String, timeline: &Timeline, scale: &Scale) {
    let (start, length_ms) = timeline.gap_ms;
    let end = start.saturating_add(i64::try_from(length_ms).unwrap_or(i64::MAX));
    let (x, width) = (scale.x(start), (scale.x(end) - scale.x(start)).max(2.0));
    let (top, bottom) = (LATENCY.0, COUNTS.1);
    let _ = writeln!(
        svg,
        "<rect class=\"gap\" x=\"{x:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
        bottom - top
    );
    // Beside it, on the side that has room.
    let (anchor, at) = if x + width < RIGHT - 180.0 { ("start", x + width + 6.0) } else { ("end", x - 6.0) };
    let y = top + 16.0;
    let _ = writeln!(
        svg,
        "<text class=\"gap-text\" x=\"{at:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{length_ms} ms without service</text>"
    );
}

/// What happened when: lines from top to bottom, with a word above each.
fn write_marks(svg: &mut String, timeline: &Timeline, scale: &Scale, axis_y: f64) {
    let mut free_from = 0.0;
    for (at, what) in &timeline.marks {
        let word = match *what {
            "struck" => "event",
            "mended" => "cause ended",
            "whole" => "pair whole",
            // The bands show it.
            _ => continue,
        };
        let x = scale.x(*at);
        let _ = writeln!(svg, "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"24\" y2=\"{axis_y:.1}\"/>");
        let (y, anchor) = if x - LABEL_WIDTH / 2.0 < free_from { (28.0, "start") } else { (16.0, "middle") };
        let (text_x, y) = if anchor == "start" { (x.max(free_from) + 4.0, y - 12.0) } else { (x, y) };
        free_from = if anchor == "start" { text_x + LABEL_WIDTH } else { x + LABEL_WIDTH / 2.0 };
        let _ = writeln!(
            svg,
            "<text class=\"mark-text\" x=\"{text_x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{word}</text>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_broken_where_nothing_was_answered() {
        let points = [(1.0, Some(2.0)), (2.0, Some(3.0)), (3.0, None), (4.0, Some(5.0))];
        assert_eq!(line(points.into_iter()), "M1.0 2.0h.1L2.0 3.0M4.0 5.0h.1");
    }

    #[test]
    fn times_outside_are_drawn_at_the_edge() {
        let scale = Scale { from: -1000, to: 1000 };
        assert_eq!([-2000, -1000, 0, 1000, 9000].map(|ms| scale.x(ms)), [76.0, 76.0, 510.0, 944.0, 944.0]);
    }

    #[test]
    fn picture_of_nothing_is_a_picture() {
        let timeline = Timeline {
            from_ms: 0,
            to_ms: 0,
            step_ms: 20,
            answered: Vec::new(),
            p50_us: Vec::new(),
            p99_us: Vec::new(),
            failed: Vec::new(),
            moved: Vec::new(),
            gap_ms: (0, 0),
            marks: Vec::new(),
            roles: vec![NodeRoles { node: "<a>".to_owned(), spans: Vec::new() }],
        };
        let svg = picture(&timeline, "a \"b\"");
        assert!(svg.contains("aria-label=\"a &quot;b&quot;\"") && svg.contains("&lt;a&gt;"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
