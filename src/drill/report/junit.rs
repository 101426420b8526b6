//! The report that CI systems read: JUnit's XML as Jenkins, GitLab and others take it, one test case an event.

use std::fmt::Write as _;

use super::super::outcome::Report;
use super::{clock_time, escaped};

/// All of it. Writing to a `String` cannot fail, so that the results are let go.
pub fn junit(report: &Report) -> String {
    let failures = report.events.iter().filter(|event| !event.passed).count();
    let (tests, skipped) = (report.planned.len(), report.not_played().count());
    let name = escaped(&report.name);
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let timestamp = clock_time(report.began_unix_s).replace(" UTC", "").replace(' ', "T");
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{name}\" tests=\"{tests}\" \
         failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{}\" timestamp=\"{timestamp}\">\n",
        seconds(report.duration_ms)
    );
    for (index, event) in report.events.iter().enumerate() {
        let time = seconds(event.figures.map_or(0, |figures| figures.window_ms));
        let title = format!("{}. {}", index + 1, event.event);
        let _ = writeln!(text, "    <testcase classname=\"{name}\" name=\"{}\" time=\"{time}\">", escaped(&title));
        if let Some((first, _)) = event.faults.split_first() {
            let all = escaped(&event.faults.join("\n"));
            let _ = writeln!(text, "      <failure message=\"{}\" type=\"limit\">{all}</failure>", escaped(first));
        }
        let _ =
            writeln!(text, "      <system-out>{}\n{}</system-out>", escaped(&event.story), escaped(&event.sentence()));
        text.push_str("    </testcase>\n");
    }
    for (index, title) in (report.events.len() + 1..).zip(report.not_played()) {
        let title = escaped(&format!("{index}. {title}"));
        let _ = writeln!(
            text,
            "    <testcase classname=\"{name}\" name=\"{title}\" time=\"0\">\n      \
             <skipped message=\"not played: an event before it failed\"/>\n    </testcase>"
        );
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::outcome::tests::{moved, report};
    use super::*;
    use crate::config::scenario::Limits;

    #[test]
    fn each_event_is_a_case_that_passed_failed_or_was_left_out() {
        let good = moved(&["lb-b"], Limits::default());
        let mut bad = moved(&["lb-a"], Limits { failed: Some(0), ..Limits::default() });
        bad.story = "kill <everything> & \"more\"".to_owned();
        let mut report = report(vec![good, bad]);
        report.name = "rack <4>".to_owned();
        report.planned.truncate(3);
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="rack &lt;4&gt;" tests="3" failures="1" errors="0" skipped="1" time="48.700" timestamp="2023-11-14T22:13:20">
    <testcase classname="rack &lt;4&gt;" name="1. worker killed" time="3.000">
      <system-out>
lb-a → lb-b, 23 ms without service, 15 requests failed, 16 connections broken, 0 users lost their server</system-out>
    </testcase>
    <testcase classname="rack &lt;4&gt;" name="2. worker killed" time="3.000">
      <failure message="lb-a held the VIP in the end" type="limit">lb-a held the VIP in the end
15 requests failed; the limit is 0</failure>
      <system-out>kill &lt;everything&gt; &amp; &quot;more&quot;
lb-a → lb-b, 23 ms without service, 15 requests failed, 16 connections broken, 0 users lost their server, NOT PASSED</system-out>
    </testcase>
    <testcase classname="rack &lt;4&gt;" name="3. guard killed" time="0">
      <skipped message="not played: an event before it failed"/>
    </testcase>
  </testsuite>
</testsuites>
"#;
        assert_eq!(junit(&report), expected);
    }
}
