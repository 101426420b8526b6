//! The metrics of requests: what the worker's threads have counted.

use super::{Label, Text, seconds_of_us};
use crate::proxy::counters::{BOUNDS_US, CLASSES, Times};
use crate::proxy::http::trace::Hedge;
use crate::proxy::traffic::Traffic;

/// The names of the classes of statuses.
const CLASS_NAMES: [&str; CLASSES] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Everything that was counted, to stand behind what [`super::render`] gives.
pub fn render_traffic(traffic: &Traffic) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    listeners(&mut text, traffic);
    pools(&mut text, traffic);
    text.family("baton_access_log_lines_total", "counter", "Lines of access logs that were written, by place.");
    for log in &traffic.logs {
        text.sample("baton_access_log_lines_total", &[("log", &log.name)], log.written);
    }
    let help = "Lines of access logs that were dropped, because the place takes none or is too slow.";
    text.family("baton_access_log_dropped_lines_total", "counter", help);
    for log in &traffic.logs {
        text.sample("baton_access_log_dropped_lines_total", &[("log", &log.name)], log.dropped);
    }
    text.0
}

fn listeners(text: &mut Text, traffic: &Traffic) {
    let help = "Requests of clients, by listener and the class of the status that they were answered with.";
    text.family("baton_listener_responses_total", "counter", help);
    for listener in &traffic.listeners {
        classes(text, "baton_listener_responses_total", &[("listener", &listener.name)], &listener.responses);
    }
    let help = "Bytes of bodies and of TCP connections, from clients.";
    text.family("baton_listener_received_bytes_total", "counter", help);
    for listener in &traffic.listeners {
        text.sample("baton_listener_received_bytes_total", &[("listener", &listener.name)], listener.bytes_in);
    }
    let help = "Bytes of bodies and of TCP connections, to clients.";
    text.family("baton_listener_sent_bytes_total", "counter", help);
    for listener in &traffic.listeners {
        text.sample("baton_listener_sent_bytes_total", &[("listener", &listener.name)], listener.bytes_out);
    }
    if traffic.is_measured {
        let help = "From the head of a request to the last byte of its response.";
        text.family("baton_request_duration_seconds", "histogram", help);
        for listener in &traffic.listeners {
            let label = ("listener", listener.name.as_str());
            times(text, "baton_request_duration_seconds", label, &listener.durations);
        }
    }
}

fn pools(text: &mut Text, traffic: &Traffic) {
    let help = "Requests for a pool, by the class of the status that they were answered with, be it by Baton itself.";
    text.family("baton_pool_responses_total", "counter", help);
    for pool in &traffic.pools {
        classes(text, "baton_pool_responses_total", &[("pool", &pool.name)], &pool.responses);
    }
    text.family("baton_server_responses_total", "counter", "Responses of a server, by the class of their status.");
    for pool in &traffic.pools {
        for (server, responses) in &pool.servers {
            let labels = [("pool", pool.name.as_str()), ("server", server.as_str())];
            classes(text, "baton_server_responses_total", &labels, responses);
        }
    }
    text.family("baton_pool_retries_total", "counter", "Times that a request was sent again.");
    for pool in &traffic.pools {
        text.sample("baton_pool_retries_total", &[("pool", &pool.name)], pool.retries);
    }
    let help = "Second copies of requests that took too long, by whether they were answered with.";
    text.family("baton_pool_hedges_total", "counter", help);
    for pool in &traffic.pools {
        for (outcome, count) in [Hedge::Lost, Hedge::Won].into_iter().zip(pool.hedges) {
            let labels = [("pool", pool.name.as_str()), ("outcome", outcome.as_str())];
            text.sample("baton_pool_hedges_total", &labels, count);
        }
    }
    if traffic.is_measured {
        let help = "From the head of a request to that of the server's response.";
        text.family("baton_first_byte_seconds", "histogram", help);
        for pool in &traffic.pools {
            times(text, "baton_first_byte_seconds", ("pool", pool.name.as_str()), &pool.first_bytes);
        }
    }
}

/// All classes, so that a rate can be taken of one that comes for the first time.
fn classes(text: &mut Text, name: &str, labels: &[Label<'_>], counts: &[u64; CLASSES]) {
    for (class, count) in CLASS_NAMES.iter().zip(counts) {
        let labels: Vec<_> = labels.iter().copied().chain([("class", *class)]).collect();
        text.sample(name, &labels, count);
    }
}

/// One histogram of a family that has one for each label.
fn times(text: &mut Text, name: &str, label: Label<'_>, times: &Times) {
    let bucket = format!("{name}_bucket");
    let mut below = 0;
    let bounds = BOUNDS_US.iter().map(|bound| seconds_of_us(*bound).to_string());
    for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&times.counts) {
        below += count;
        text.sample(&bucket, &[label, ("le", &bound)], below);
    }
    text.sample(&format!("{name}_sum"), &[label], seconds_of_us(times.sum_us));
    text.sample(&format!("{name}_count"), &[label], below);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::access_log::DestinationStatus;
    use crate::proxy::traffic::{ListenerTraffic, PoolTraffic};

    #[test]
    fn classes_of_times_hold_those_below() {
        let mut durations = Times { counts: [0; BOUNDS_US.len() + 1], sum_us: 1_500_000 };
        durations.counts[0] = 2;
        durations.counts[16] = 1;
        let listener = ListenerTraffic {
            name: "web".to_owned(),
            responses: [0, 3, 0, 1, 0],
            durations,
            ..ListenerTraffic::default()
        };
        let pool = PoolTraffic {
            name: "app".to_owned(),
            retries: 4,
            hedges: [2, 3],
            servers: vec![("app1".to_owned(), [0, 7, 0, 0, 0])],
            ..PoolTraffic::default()
        };
        let log = DestinationStatus { name: "stdout".to_owned(), written: 5, dropped: 6, problem: None };
        let traffic = Traffic { listeners: vec![listener], pools: vec![pool], logs: vec![log], is_measured: true };
        let page = render_traffic(&traffic);
        for line in [
            "baton_listener_responses_total{listener=\"web\",class=\"2xx\"} 3",
            "baton_listener_responses_total{listener=\"web\",class=\"5xx\"} 0",
            "baton_request_duration_seconds_bucket{listener=\"web\",le=\"0.00025\"} 2",
            "baton_request_duration_seconds_bucket{listener=\"web\",le=\"30\"} 2",
            "baton_request_duration_seconds_bucket{listener=\"web\",le=\"+Inf\"} 3",
            "baton_request_duration_seconds_sum{listener=\"web\"} 1.5",
            "baton_request_duration_seconds_count{listener=\"web\"} 3",
            "baton_server_responses_total{pool=\"app\",server=\"app1\",class=\"2xx\"} 7",
            "baton_pool_retries_total{pool=\"app\"} 4",
            "baton_pool_hedges_total{pool=\"app\",outcome=\"lost\"} 2",
            "baton_pool_hedges_total{pool=\"app\",outcome=\"won\"} 3",
            "baton_access_log_lines_total{log=\"stdout\"} 5",
            "baton_access_log_dropped_lines_total{log=\"stdout\"} 6",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
        }
    }
}
