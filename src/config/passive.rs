//! Reads what a `[[pool]]` does about servers where requests fare badly: outliers and breakers.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::model::{Passive, PoolBreaker};
use super::reader::{Table, Value};
use super::report::{Mistakes, Wrong};
use crate::health::{breaker, outliers};

const ROW_MAX: u32 = 1_000;
const FACTOR_MAX: u32 = 1_000;
const COUNT_MAX: u32 = 1_000_000;
const TRIALS_MAX: u32 = 1_000;
const STATUSES_MAX: usize = 200;
const HOUR: Duration = Duration::from_secs(3600);
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
const WINDOW_DEFAULT: Duration = Duration::from_secs(10);
const TIME_MIN: Duration = Duration::from_millis(100);

/// Reads the keys of a `[[pool]]`.
pub(super) fn passive(pool: &mut Table<'_>, mistakes: &Mistakes<'_>) -> Passive {
    Passive {
        error_statuses: pool.optional("error_statuses").map_or_else(|| vec![500..=599], statuses),
        outliers: pool.block("outliers").map_or_else(default_outliers, |table| outliers(table, mistakes)),
        breaker: pool.block("breaker").map(|table| pool_breaker(table, mistakes)),
        server_breaker: pool.block("server_breaker").map(|table| server_breaker(table, mistakes)),
    }
}

fn default_outliers() -> outliers::Settings {
    outliers::Settings {
        consecutive_failures: 5,
        consecutive_errors: 0,
        error_percent: 0,
        latency_factor: 0,
        latency_min: Duration::from_millis(10),
        requests_min: 20,
        window: WINDOW_DEFAULT,
        ejection_time: Duration::from_secs(10),
        ejection_time_max: Duration::from_secs(300),
        ejected_percent_max: 50,
    }
}

fn statuses(list: Value<'_>) -> Vec<RangeInclusive<u16>> {
    list.list_of(1, STATUSES_MAX).into_iter().filter_map(|value| Some(value.parsed(status)?.value)).collect()
}

fn status(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    let wrong =
        || Wrong::new("must be a status from 400 to 599, or all of a hundred", "write it such as \"503\" or \"5xx\"");
    match text {
        "4xx" => return Ok(400..=499),
        "5xx" => return Ok(500..=599),
        _ => {}
    }
    let status = text.parse::<u16>().ok().filter(|status| text.len() == 3 && (400..=599).contains(status));
    status.map(|status| status..=status).ok_or_else(wrong)
}

fn outliers(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> outliers::Settings {
    let default = default_outliers();
    let ejection_time = table.duration("ejection_time", TIME_MIN..=HOUR, default.ejection_time);
    let longest = table.optional("ejection_time_max");
    let place = longest.as_ref().map(|value| value.place().clone());
    let ejection_time_max = longest.and_then(|value| value.duration(TIME_MIN..=24 * HOUR)).map(|found| found.value);
    if let (Some(place), Some(longest)) = (place, ejection_time_max)
        && longest < ejection_time
    {
        mistakes.value(&place, "is shorter than ejection_time", "write at least as much, or shorten ejection_time");
    }
    let factor = table.optional("latency_factor").and_then(|value| value.integer(0..=FACTOR_MAX));
    if let Some(found) = factor.as_ref().filter(|found| found.value == 1) {
        mistakes.value(
            &found.place,
            "would eject servers that are as fast as the others",
            "write 2 or more, or 0 for none",
        );
    }
    let settings = outliers::Settings {
        consecutive_failures: table.integer("consecutive_failures", 0..=ROW_MAX, default.consecutive_failures),
        consecutive_errors: table.integer("consecutive_errors", 0..=ROW_MAX, default.consecutive_errors),
        error_percent: table.integer("error_percent", 0..=100, default.error_percent),
        latency_factor: factor.map_or(0, |found| found.value),
        latency_min: table.duration("latency_min", Duration::ZERO..=HOUR, default.latency_min),
        requests_min: table.integer("requests_min", 1..=COUNT_MAX, default.requests_min),
        window: table.duration("window", WINDOW, default.window),
        ejection_time,
        ejection_time_max: ejection_time_max.unwrap_or(default.ejection_time_max.max(ejection_time)),
        ejected_percent_max: table.integer("ejected_percent_max", 0..=100, default.ejected_percent_max),
    };
    table.finish();
    settings
}

fn pool_breaker(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> PoolBreaker {
    let mut limit = |key| Some(table.optional(key)?.integer(1..=COUNT_MAX)?.value);
    let (in_flight_max, pending_max, retries_max) =
        (limit("in_flight_max"), limit("pending_max"), limit("retries_max"));
    let is_limited = ["in_flight_max", "pending_max", "retries_max"].iter().any(|key| table.has(key));
    let terms = terms(&mut table, mistakes, is_limited);
    table.finish();
    PoolBreaker { terms, in_flight_max, pending_max, retries_max }
}

fn server_breaker(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> breaker::Settings {
    let terms = terms(&mut table, mistakes, false);
    table.finish();
    terms
}

/// When a breaker opens. One that never does is a mistake, unless it has limits beside that.
fn terms(table: &mut Table<'_>, mistakes: &Mistakes<'_>, is_limited: bool) -> breaker::Settings {
    let has_reason = table.has("consecutive_errors") || table.has("error_percent");
    let terms = breaker::Settings {
        consecutive_errors: table.integer("consecutive_errors", 0..=ROW_MAX, 0),
        error_percent: table.integer("error_percent", 0..=100, 0),
        requests_min: table.integer("requests_min", 1..=COUNT_MAX, 20),
        window: table.duration("window", WINDOW, WINDOW_DEFAULT),
        open_time: table.duration("open_time", TIME_MIN..=HOUR, Duration::from_secs(5)),
        trials: table.integer("trials", 1..=TRIALS_MAX, 3),
        successes: table.integer("successes", 1..=TRIALS_MAX, 3),
    };
    if !has_reason && !is_limited {
        mistakes.block(
            table.place(),
            "says nothing that opens it",
            "add consecutive_errors = 10 or error_percent = 50, or leave the block out",
        );
    }
    terms
}
