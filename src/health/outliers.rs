//! Which servers of a pool are ejected for a time, because clients' requests fare badly there. After Envoy's outlier
//! detection: failures in a row, the share of failures, and times that stand out; each ejection is longer than the last.

use std::time::{Duration, Instant};

use super::window::Tally;

/// Ejections that still make the next one longer.
const EJECTIONS_MAX: u32 = 32;

/// When servers are ejected, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Requests in a row without a response: no connection, one that broke, none in time. 0: never, up to 1000.
    pub consecutive_failures: u32,
    /// The same with a response that counts as an error among them. 0: never, up to 1000.
    pub consecutive_errors: u32,
    /// Share of requests in the window that got no response or an error. 0: never, up to 100.
    pub error_percent: u32,
    /// The mean time to a response as a multiple of the median of the other servers' means. 0: never, otherwise 2 to 1000.
    pub latency_factor: u32,
    /// Means below this are never too long, 0 to 1 h.
    pub latency_min: Duration,
    /// Requests in the window without which neither share nor mean says anything, 1 to 1000000.
    pub requests_min: u32,
    /// How far shares and means look back, 1 s to 60 s.
    pub window: Duration,
    /// Time of the first ejection; the n-th one takes n times as long. 100 ms to 1 h.
    pub ejection_time: Duration,
    /// The longest ejection, from `ejection_time` to 24 h.
    pub ejection_time_max: Duration,
    /// Share of the pool's servers that may be ejected at once, 0 to 100; one may be in any case above 0, and one always
    /// stays.
    pub ejected_percent_max: u32,
}

impl Settings {
    /// Whether anything leads to an ejection.
    pub fn is_on(&self) -> bool {
        let is_any = self.consecutive_failures > 0 || self.consecutive_errors > 0 || self.looks_back();
        is_any && self.ejected_percent_max > 0
    }

    /// Whether requests have to be counted.
    pub fn looks_back(&self) -> bool {
        self.error_percent > 0 || self.latency_factor > 0
    }

    /// How long the n-th ejection in a row takes; `chance` from 0 to 1 makes it up to a tenth longer, so that servers that
    /// went together do not come back together.
    fn ejection(&self, ejections: u32, chance: f64) -> Duration {
        let time = self.ejection_time.saturating_mul(ejections).min(self.ejection_time_max);
        time + time.mul_f64(chance.clamp(0.0, 1.0) / 10.0)
    }
}

/// How many servers a pool has, and how many of them serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// All of them.
    pub servers: usize,
    /// Those that are ejected.
    pub ejected: usize,
    /// Those that take requests, besides the one in question.
    pub others_serving: usize,
}

impl Census {
    /// Whether one more may be ejected.
    pub fn may_eject(&self, percent_max: u32) -> bool {
        let share = self.servers.saturating_mul(percent_max as usize) / 100;
        percent_max > 0 && self.others_serving > 0 && self.ejected < share.max(1)
    }
}

/// Whether a server is ejected, and how often it has been of late.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    until: Option<Instant>,
    ejections: u32,
    /// When it came back, or when an ejection was last forgotten.
    good_since: Option<Instant>,
}

impl Standing {
    /// Until when it is ejected.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// How many ejections make the next one longer.
    pub fn ejections(&self) -> u32 {
        self.ejections
    }

    /// Ejects it, longer each time. Returns until when.
    pub fn eject(&mut self, now: Instant, settings: &Settings, chance: f64) -> Instant {
        self.ejections = self.ejections.saturating_add(1).min(EJECTIONS_MAX);
        let until = now + settings.ejection(self.ejections, chance);
        self.until = Some(until);
        until
    }

    /// Ejects it because another node has, no longer than the longest ejection.
    pub fn eject_as_told(&mut self, now: Instant, settings: &Settings, left: Duration, ejections: u32) -> Instant {
        self.ejections = ejections.clamp(1, EJECTIONS_MAX);
        let until = now + left.min(settings.ejection_time_max.mul_f64(1.1));
        self.until = Some(until);
        until
    }

    /// Time passes. True when it is ejected no longer. A server that has behaved since then is forgiven one ejection for
    /// each `ejection_time`.
    pub fn turn(&mut self, now: Instant, settings: &Settings) -> bool {
        if let Some(until) = self.until {
            if now < until {
                return false;
            }
            self.pardon(now);
            return true;
        }
        let is_forgiven =
            self.good_since.is_some_and(|since| now.saturating_duration_since(since) >= settings.ejection_time);
        if is_forgiven && self.ejections > 0 {
            self.ejections -= 1;
            self.good_since = Some(now);
        }
        false
    }

    /// It comes back at once. True when it was ejected.
    pub fn pardon(&mut self, now: Instant) -> bool {
        let was_ejected = self.until.take().is_some();
        if was_ejected {
            self.good_since = Some(now);
        }
        was_ejected
    }
}

/// Whether a server's mean time stands out, in microseconds, and the median of the others that it is compared with.
pub fn slowness(means: &[Option<u64>], server: usize, settings: &Settings) -> Option<(u64, u64)> {
    let mean = means.get(server).copied().flatten()?;
    let others = means.iter().enumerate().filter(|(other, _)| *other != server);
    let mut others: Vec<u64> = others.filter_map(|(_, mean)| *mean).collect();
    others.sort_unstable();
    // Of two in the middle the slower one: in doubt nobody stands out.
    let median = *others.get(others.len() / 2)?;
    let is_long = u128::from(mean) >= settings.latency_min.as_micros();
    let limit = median.saturating_mul(u64::from(settings.latency_factor));
    (settings.latency_factor > 0 && is_long && mean >= limit.max(1)).then_some((mean, median))
}

/// Whether a server's share of failures is too large.
pub fn fails_often(tally: &Tally, settings: &Settings) -> bool {
    tally.is_bad(settings.error_percent, settings.requests_min)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(10);

    fn settings() -> Settings {
        Settings {
            consecutive_failures: 5,
            consecutive_errors: 0,
            error_percent: 50,
            latency_factor: 3,
            latency_min: Duration::from_millis(1),
            requests_min: 20,
            window: BASE,
            ejection_time: BASE,
            ejection_time_max: Duration::from_secs(25),
            ejected_percent_max: 50,
        }
    }

    #[test]
    fn each_ejection_is_longer_than_the_last_up_to_the_longest() {
        let now = Instant::now();
        let (settings, mut standing) = (settings(), Standing::default());
        let lengths: Vec<u64> =
            (0..4).map(|_| standing.eject(now, &settings, 0.0).duration_since(now).as_secs()).collect();
        assert_eq!(lengths, [10, 20, 25, 25]);
        assert_eq!(standing.eject(now, &settings, 1.0).duration_since(now), Duration::from_millis(27_500));
    }

    #[test]
    fn a_server_comes_back_when_its_time_is_over_and_not_before() {
        let now = Instant::now();
        let (settings, mut standing) = (settings(), Standing::default());
        standing.eject(now, &settings, 0.0);
        assert!(!standing.turn(now + BASE - Duration::from_millis(1), &settings));
        assert!(standing.turn(now + BASE, &settings));
        assert!(!standing.turn(now + BASE, &settings));
        assert_eq!(standing.until(), None);
    }

    #[test]
    fn one_ejection_is_forgiven_for_each_ejection_time_of_good_conduct() {
        let now = Instant::now();
        let (settings, mut standing) = (settings(), Standing::default());
        for _ in 0..2 {
            standing.eject(now, &settings, 0.0);
        }
        let back = now + 2 * BASE;
        assert!(standing.turn(back, &settings));
        assert!(!standing.turn(back + BASE - Duration::from_millis(1), &settings));
        assert_eq!(standing.ejections(), 2);
        standing.turn(back + BASE, &settings);
        assert_eq!(standing.ejections(), 1);
        standing.turn(back + 2 * BASE, &settings);
        standing.turn(back + 3 * BASE, &settings);
        assert_eq!(standing.ejections(), 0);
    }

    #[test]
    fn what_another_node_says_holds_no_longer_than_the_longest_ejection() {
        let now = Instant::now();
        let (settings, mut standing) = (settings(), Standing::default());
        let until = standing.eject_as_told(now, &settings, Duration::from_secs(1_000_000), 1_000);
        assert_eq!(until.duration_since(now), Duration::from_millis(27_500));
        assert_eq!(standing.ejections(), EJECTIONS_MAX);
        assert!(standing.pardon(now));
        assert!(!standing.pardon(now));
    }

    #[test]
    fn no_more_are_ejected_than_may_be_and_never_the_last() {
        let census = |servers, ejected, others_serving| Census { servers, ejected, others_serving };
        assert!(census(3, 0, 2).may_eject(50));
        assert!(!census(3, 1, 1).may_eject(50));
        assert!(census(4, 1, 2).may_eject(50));
        assert!(census(10, 0, 9).may_eject(1), "one in any case");
        assert!(!census(10, 0, 9).may_eject(0));
        assert!(!census(3, 0, 0).may_eject(100), "never the last");
        assert!(!census(1, 0, 0).may_eject(100));
    }

    #[test]
    fn a_server_is_slow_beside_the_others_and_not_by_itself() {
        let settings = settings();
        let ms = |ms: &[u64]| ms.iter().map(|ms| Some(ms * 1_000)).collect::<Vec<_>>();
        assert_eq!(slowness(&ms(&[10, 11, 30]), 2, &settings), None);
        assert_eq!(slowness(&ms(&[10, 10, 30]), 2, &settings), Some((30_000, 10_000)));
        assert_eq!(slowness(&ms(&[10, 10, 30]), 1, &settings), None);
        assert_eq!(slowness(&ms(&[10, 30]), 1, &settings), Some((30_000, 10_000)));
        assert_eq!(slowness(&ms(&[30]), 0, &settings), None, "nothing to compare it with");
        assert_eq!(slowness(&[Some(10_000), None, Some(9_000)], 1, &settings), None, "too few requests");
        assert_eq!(slowness(&[Some(100), Some(999)], 1, &settings), None, "below latency_min");
        assert_eq!(slowness(&[Some(100), Some(1_000)], 1, &settings), Some((1_000, 100)));
        let off = Settings { latency_factor: 0, ..settings };
        assert_eq!(slowness(&ms(&[10, 10_000]), 1, &off), None);
    }

    #[test]
    fn nothing_is_on_where_nothing_leads_to_an_ejection() {
        let all = settings();
        assert!(all.is_on() && all.looks_back());
        let none = Settings { consecutive_failures: 0, error_percent: 0, latency_factor: 0, ..all.clone() };
        assert!(!none.is_on() && !none.looks_back());
        assert!(!Settings { ejected_percent_max: 0, ..all }.is_on());
    }

    /// Whatever happens to a pool, as many stay as have to, and all come back.
    #[test]
    fn in_any_course_of_events_one_server_stays_and_every_one_comes_back() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let settings = Settings { ejected_percent_max: random.u32(1..=100), ..settings() };
            let count = random.usize(1..12);
            let (mut servers, mut now) = (vec![Standing::default(); count], Instant::now());
            for _ in 0..500 {
                now += Duration::from_millis(random.u64(0..3_000));
                for server in &mut servers {
                    server.turn(now, &settings);
                }
                let server = random.usize(..count);
                let ejected = servers.iter().filter(|server| server.until().is_some()).count();
                if servers[server].until().is_none() {
                    let census = Census { servers: count, ejected, others_serving: count - ejected - 1 };
                    if census.may_eject(settings.ejected_percent_max) {
                        let until = servers[server].eject(now, &settings, random.f64());
                        assert!(until - now <= Duration::from_millis(27_500), "seed {seed}");
                    }
                }
                let ejected = servers.iter().filter(|server| server.until().is_some()).count();
                let most = (count * settings.ejected_percent_max as usize / 100).max(1);
                assert!(ejected < count && ejected <= most, "seed {seed}: {ejected} of {count}");
            }
            now += Duration::from_secs(60);
            for server in &mut servers {
                server.turn(now, &settings);
            }
            assert!(servers.iter().all(|server| server.until().is_none()), "seed {seed}");
        }
    }
}
