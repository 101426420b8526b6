//! The metrics of limits: what was refused and why, who waits, how much the worker takes on.

use super::{Text, seconds_of_us};
use crate::status::{DiscoveryStatus, NodeStatus, PoolStatus, QueueStatus};

/// All of them.
pub(super) fn render(text: &mut Text, status: &NodeStatus) {
    text.family("baton_listener_rate_limited_total", "counter", "Requests over the rate limit, by listener.");
    for listener in &status.listeners {
        let labels = [("listener", listener.name.as_str())];
        text.sample("baton_listener_rate_limited_total", &labels, listener.rate_limited);
    }
    let help = "What was refused or cut short to protect the rest, by reason.";
    text.family("baton_listener_refused_total", "counter", help);
    for listener in &status.listeners {
        for (reason, count) in &listener.refused {
            let labels = [("listener", listener.name.as_str()), ("reason", reason)];
            text.sample("baton_listener_refused_total", &labels, count);
        }
    }
    load(text, status);
    queues(text, &status.pools);
    sources(text, &status.pools);
}

fn load(text: &mut Text, status: &NodeStatus) {
    let load = &status.worker.load;
    text.family("baton_worker_pressure", "gauge", "1 for how much the worker takes on by its memory, 0 for the rest.");
    for level in ["none", "shedding", "closed"] {
        text.sample("baton_worker_pressure", &[("level", level)], u8::from(load.pressure == level));
    }
    if let Some(max) = load.memory_bytes_max {
        text.one("baton_worker_memory_bytes", "gauge", "Memory that the worker has resident.", load.memory_bytes);
        text.one("baton_worker_memory_limit_bytes", "gauge", "Memory that the worker may have.", max);
    }
    if let Some(max) = load.requests_max {
        text.one("baton_requests_in_flight", "gauge", "Requests under way.", load.requests);
        text.one("baton_requests_in_flight_limit", "gauge", "Requests that may be under way.", max);
    }
}

/// Sources of servers.
fn sources(text: &mut Text, pools: &[PoolStatus]) {
    let sources = || pools.iter().filter_map(|pool| Some((pool.name.as_str(), pool.discovery.as_ref()?)));
    if sources().next().is_none() {
        return;
    }
    let mut each = |name: &str, kind: &str, help: &str, value: fn(&DiscoveryStatus) -> Option<f64>| {
        text.family(name, kind, help);
        for (pool, source) in sources() {
            let labels = [("pool", pool), ("source", source.kind.as_str())];
            value(source).into_iter().for_each(|value| text.sample(name, &labels, value));
        }
    };
    let help = "Whether the last answer of the source of a pool's servers was good.";
    each("baton_discovery_good", "gauge", help, |source| Some(if source.problem.is_none() { 1.0 } else { 0.0 }));
    each("baton_discovery_servers", "gauge", "Servers of the list in use.", |source| Some(source.servers as f64));
    let help = "Time since the source said last that the list holds; not there before it has said anything.";
    each("baton_discovery_age_seconds", "gauge", help, |source| Some(source.age_ms? as f64 / 1000.0));
    each("baton_discovery_answers_total", "counter", "Good answers.", |source| Some(source.answers as f64));
    let help = "Answers that could not be used, and those that did not come.";
    each("baton_discovery_failures_total", "counter", help, |source| Some(source.failures as f64));
}

fn queues(text: &mut Text, pools: &[PoolStatus]) {
    let queues = || pools.iter().filter_map(|pool| Some((pool.name.as_str(), pool.queue.as_ref()?)));
    if queues().next().is_none() {
        return;
    }
    let mut each = |name, kind, help, value: fn(&QueueStatus) -> f64| {
        text.family(name, kind, help);
        queues().for_each(|(pool, queue)| text.sample(name, &[("pool", pool)], value(queue)));
    };
    each("baton_pool_queue_length", "gauge", "Requests that wait for a server.", |queue| queue.length as f64);
    each("baton_pool_queue_limit", "gauge", "Requests that may wait.", |queue| queue.length_max as f64);
    each("baton_pool_queue_waited_total", "counter", "Requests that had to wait.", |queue| queue.waited as f64);
    let help = "Time that requests which then got a server had waited.";
    each("baton_pool_queue_wait_seconds_total", "counter", help, |queue| seconds_of_us(queue.waited_us));
    text.family("baton_pool_queue_dropped_total", "counter", "Requests that got no server, by reason.");
    for (pool, queue) in queues() {
        for (reason, count) in &queue.dropped {
            text.sample("baton_pool_queue_dropped_total", &[("pool", pool), ("reason", reason)], count);
        }
    }
    text.family("baton_server_in_flight", "gauge", "Requests, and connections of protocol = \"tcp\", under way.");
    for pool in pools {
        for (server, in_flight) in pool.servers.iter().filter_map(|server| Some((server, server.in_flight?))) {
            text.sample("baton_server_in_flight", &[("pool", &pool.name), ("server", &server.name)], in_flight);
        }
    }
}
