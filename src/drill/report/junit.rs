//! The report that CI systems read: JUnit's XML as Jenkins, GitLab and others take it, one test case an event.

use std::fmt::Write as _;

use super::super::outcome::Report;
use super::{clock_time, escaped};

/// All of it. Writing to a `String` cannot fail, so that the results are let go.
pub fn junit(report: &Report) -> String {
    let failures = report.events.iter().filter(|event| !event.passed).count();
    let errors = errors(report);
    let has_errors = usize::from(!errors.is_empty());
    let (tests, skipped) = (report.planned.len() + has_errors, report.not_played().count());
    let name = escaped(&report.name);
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let timestamp = clock_time(report.began_unix_s).replace(" UTC", "").replace(' ', "T");
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{name}\" tests=\"{tests}\" \
         failures=\"{failures}\" errors=\"{has_errors}\" skipped=\"{skipped}\" time=\"{}\" timestamp=\"{timestamp}\">\n",
        seconds(report.duration_ms)
    );
    if let Some((first, _)) = errors.split_first() {
        let all = escaped(&errors.join("\n"));
        let _ = writeln!(
            text,
            "    <testcase classname=\"{name}\" name=\"the drill itself\" time=\"0\">\n      \
             <error message=\"{}\" type=\"drill\">{all}</error>\n    </testcase>",
            escaped(first)
        );
    }
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
             <skipped message=\"not played: the drill ended before it\"/>\n    </testcase>"
        );
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// What no event stands for, and yet keeps the drill from being passed: a signal where no event has failed is of that kind.
fn errors(report: &Report) -> Vec<String> {
    let signal = report.interrupted.filter(|_| report.events.iter().all(|event| event.passed));
    let signal = signal.map(|signal| format!("interrupted by signal {signal}"));
    signal.into_iter().chain(report.troubles.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::Halt;
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
      <skipped message="not played: the drill ended before it"/>
    </testcase>
  </testsuite>
</testsuites>
"#;
        assert_eq!(junit(&report), expected);
    }

    #[test]
    fn drill_that_played_nothing_is_no_success() {
        let mut report = report(Vec::new());
        report.planned.truncate(1);
        report.halted(&Halt::Failed("waited for <lb-b>".to_owned()));
        let counts = "tests=\"2\" failures=\"0\" errors=\"1\" skipped=\"1\"";
        let error =
            "name=\"the drill itself\" time=\"0\">\n      <error message=\"waited for &lt;lb-b&gt;\" type=\"drill\">";
        let text = junit(&report);
        assert!(text.contains(counts) && text.contains(error), "{text}");
        (report.troubles, report.interrupted) = (Vec::new(), Some(15));
        let text = junit(&report);
        assert!(text.contains(counts) && text.contains("message=\"interrupted by signal 15\""), "{text}");
        report.events = vec![moved(&["lb-a"], Limits::default())];
        let text = junit(&report);
        assert!(text.contains("tests=\"1\" failures=\"1\" errors=\"0\" skipped=\"0\""), "{text}");
    }
}
