//! The metrics of limits: what was refused and why, who waits, how much the worker takes on.

use super::{Text, seconds_of_us};
use crate::status::{NodeStatus, PoolStatus, QueueStatus};

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
