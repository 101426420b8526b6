//! One literal a rule on outliers and breakers: a file with one mistake, and the line, key and rule that the report must give.

use super::rules::{TRAFFIC, check_one, refused};

/// A pool whose keys begin on line 4.
fn pool(keys: &str) -> String {
    format!("[[pool]]\nname = \"p\"\nservers = [{{ name = \"a\", address = \"10.0.0.9:80\" }}]\n{keys}\n{TRAFFIC}")
}

refused! {
    error_statuses_without_any: [pool("error_statuses = []")], 4, "pool[p].error_statuses", "must have 1 to 200 entries";
    error_status_that_is_none: [pool("error_statuses = [\"5x\"]")], 4, "pool[p].error_statuses[#1]", "must be a status from 400 to 599";
    error_status_that_is_no_error: [pool("error_statuses = [\"503\", \"302\"]")], 4, "pool[p].error_statuses[#2]", "must be a status from 400 to 599";
    outliers_row_too_long: [pool("outliers = { consecutive_failures = 1001 }")], 4, "pool[p].outliers.consecutive_failures", "must be 0 to 1000";
    outliers_of_all_and_more: [pool("outliers = { error_percent = 101 }")], 4, "pool[p].outliers.error_percent", "must be 0 to 100";
    outliers_as_fast_as_the_others: [pool("outliers = { latency_factor = 1 }")], 4, "pool[p].outliers.latency_factor", "as fast as the others";
    outliers_window_too_long: [pool("outliers = { window = \"61s\" }")], 4, "pool[p].outliers.window", "must be 1s to 1m";
    outliers_window_too_short: [pool("outliers = { window = \"999ms\" }")], 4, "pool[p].outliers.window", "must be 1s to 1m";
    outliers_longest_below_the_first: [pool("outliers = { ejection_time = \"10s\", ejection_time_max = \"9s\" }")], 4, "pool[p].outliers.ejection_time_max", "shorter than ejection_time";
    outliers_unknown_key: [pool("outliers = { consecutive_failure = 5 }")], 4, "pool[p].outliers.consecutive_failure", "unknown key";
    breaker_that_never_opens: [pool("breaker = { open_time = \"5s\" }")], 4, "pool[p].breaker", "says nothing that opens it";
    breaker_limit_of_nothing: [pool("breaker = { in_flight_max = 0 }")], 4, "pool[p].breaker.in_flight_max", "must be 1 to 1000000";
    breaker_without_trials: [pool("breaker = { error_percent = 50, trials = 0 }")], 4, "pool[p].breaker.trials", "must be 1 to 1000";
    server_breaker_with_a_limit_of_pools: [pool("server_breaker = { error_percent = 50, in_flight_max = 5 }")], 4, "pool[p].server_breaker.in_flight_max", "unknown key";
    server_breaker_that_never_opens: [pool("server_breaker = {}")], 4, "pool[p].server_breaker", "says nothing that opens it";
}
