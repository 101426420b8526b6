//! What servers report of themselves in the headers of their responses, and what it makes of their weight.
//!
//! Understood are the text form of ORCA (`cpu_utilization=0.3, mem_utilization=0.8`; a first word `TEXT` is passed over), its
//! JSON form, and a number alone. Shares are from 0 to 1, or have a `%`. The most that is said of processor, memory and
//! application counts: what is scarcest decides.

/// Bytes of a report at most; a longer one is none.
pub const REPORT_BYTES_MAX: usize = 1024;

/// A server that is fully loaded keeps so much of its weight, in 1000ths: one without any would never be heard again.
const SHARE_MIN: u32 = 50;
/// All of it.
pub const SHARE_WHOLE: u32 = 1000;

/// What is left of a server, and when it said so. All zeros: nothing was said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// 1000ths of the server that are free.
    free: u32,
    /// Milliseconds of some clock, modulo 2^32.
    at_ms: u32,
}

impl Report {
    /// As an atomic keeps it.
    pub fn to_bits(self) -> u64 {
        u64::from(self.free) << 32 | u64::from(self.at_ms)
    }

    /// From what an atomic keeps.
    pub fn from_bits(bits: u64) -> Self {
        let half = |half: u64| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { free: half(bits >> 32), at_ms: half(bits) }
    }

    /// After a report of a load of so many 1000ths: the average of both, so that one peak does not turn everything over.
    #[must_use]
    pub fn after(self, load: u32, now_ms: u64) -> Self {
        let free = SHARE_WHOLE.saturating_sub(load).max(SHARE_MIN);
        let free = if self.free == 0 { free } else { (self.free + free).div_ceil(2) };
        Self { free, at_ms: u32::try_from(now_ms & u64::from(u32::MAX)).unwrap_or(u32::MAX) }
    }

    /// How much of the server is free, in 1000ths, and how much that still counts, in 1000ths too: all of it up to `max_age_ms`,
    /// nothing from twice that on.
    fn counts(self, now_ms: u64, max_age_ms: u64) -> (u32, u32) {
        if self.free == 0 {
            return (0, 0);
        }
        let now = u32::try_from(now_ms & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let age = now.wrapping_sub(self.at_ms);
        // Another thread's clock may be a little ahead.
        let age = if age > u32::MAX / 2 { 0 } else { u64::from(age) };
        let left = (2 * max_age_ms).saturating_sub(age).min(max_age_ms);
        let counts = (left * u64::from(SHARE_WHOLE)).checked_div(max_age_ms).unwrap_or(0);
        (self.free, u32::try_from(counts).unwrap_or(SHARE_WHOLE))
    }
}

/// What part of its weight each server has, in 1000ths. Who has said nothing for long fades to the average of those that
/// have: more would draw all requests to a server that has lost its tongue.
pub fn shares(reports: &[Report], now_ms: u64, max_age_ms: u64) -> Vec<u32> {
    let counted: Vec<(u64, u64)> = reports
        .iter()
        .map(|report| report.counts(now_ms, max_age_ms))
        .map(|(free, counts)| (u64::from(free), u64::from(counts)))
        .collect();
    let counts: u64 = counted.iter().map(|(_, counts)| counts).sum();
    let sum: u64 = counted.iter().map(|(free, counts)| free * counts).sum();
    let whole = u64::from(SHARE_WHOLE);
    let neutral = sum.checked_div(counts).unwrap_or(whole);
    let share = |(free, counts): &(u64, u64)| (free * counts + neutral * (whole - counts)) / whole;
    counted.iter().map(|counted| u32::try_from(share(counted)).unwrap_or(SHARE_WHOLE)).collect()
}

/// The load that a report states, in 1000ths from 0 to 1000; `None` for what is no report.
pub fn load(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= REPORT_BYTES_MAX)?.trim();
    let text = text.strip_prefix("TEXT ").or_else(|| text.strip_prefix("JSON ")).unwrap_or(text).trim();
    if let Some(only) = share(text) {
        return Some(only);
    }
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let stated = inner.split([',', ';']).filter_map(|part| {
        let (name, value) = part.split_once(['=', ':'])?;
        is_load(name.trim().trim_matches('"')).then(|| share(value.trim()))?
    });
    stated.max()
}

fn is_load(name: &str) -> bool {
    ["cpu", "cpu_utilization", "mem", "memory", "mem_utilization", "load", "application_utilization"].contains(&name)
}

/// A share from 0 to 1, or in percent. What is above counts as full, what is below or no number as nothing.
fn share(text: &str) -> Option<u32> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 100.0),
        None => (text, 1.0),
    };
    let number: f64 = number.parse().ok()?;
    let is_share = number.is_finite() && number >= 0.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1000")]
    is_share.then(|| ((number / whole).min(1.0) * 1000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_in_every_form() {
        for (text, wanted) in [
            ("TEXT cpu_utilization=0.3, mem_utilization=0.8", Some(800)),
            ("cpu=30%;mem=12.5 %", Some(300)),
            ("JSON {\"cpu_utilization\": 0.25, \"rps_fractional\": 1200.0}", Some(250)),
            ("{\"application_utilization\":1.7,\"mem_utilization\":0.1}", Some(1000)),
            ("0.5", Some(500)),
            ("75%", Some(750)),
            ("0", Some(0)),
            ("", None),
            ("rps=5", None),
            ("cpu=", None),
            ("cpu=NaN", None),
            ("cpu=inf", None),
            ("cpu=-0.1", None),
            ("-1", None),
            ("\u{1f40c}", None),
        ] {
            assert_eq!(load(text.as_bytes()), wanted, "{text}");
        }
        assert_eq!(load(b"cpu=\xff"), None);
        assert_eq!(load(&[b'1'; REPORT_BYTES_MAX + 1]), None);
    }

    #[test]
    fn weight_is_what_is_free_and_never_nothing() {
        let idle = Report::default().after(0, 5);
        let busy = Report::default().after(900, 5);
        let full = Report::default().after(1000, 5);
        assert_eq!(shares(&[idle, busy, full], 5, 10_000), [1000, 100, 50]);
        // A peak counts by half, and more so when it lasts.
        assert_eq!(shares(&[idle.after(1000, 6), idle.after(1000, 6).after(1000, 7)], 7, 10_000), [525, 288]);
    }

    #[test]
    fn old_reports_fade_to_the_average_of_the_others() {
        let (old, new) = (Report::default().after(900, 0), Report::default().after(400, 20_000));
        assert_eq!(shares(&[old, new], 20_000, 10_000), [600, 600]);
        assert_eq!(shares(&[old, Report::default()], 10_000, 10_000), [100, 100]);
        // Half of it counts, and the average is (100 x 1 + 600 x 2) / 3.
        let new = Report::default().after(400, 15_000);
        assert_eq!(shares(&[old, new], 15_000, 10_000), [266, 600]);
        // Nobody says anything any more.
        assert_eq!(shares(&[old, new, Report::default()], 60_000, 10_000), [1000, 1000, 1000]);
        assert_eq!(shares(&[], 0, 10_000), Vec::<u32>::new());
    }

    #[test]
    fn clocks_may_wrap_and_differ() {
        let wrap = u64::from(u32::MAX);
        let known = Report::default().after(500, wrap);
        assert_eq!(shares(&[known], wrap + 1, 10_000), [500]);
        assert_eq!(shares(&[known], wrap - 50, 10_000), [500]);
        assert_eq!(Report::from_bits(known.to_bits()), known);
    }
}
