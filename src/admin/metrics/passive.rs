//! The metrics of what came of requests: ejections and circuit breakers.

use super::{Label, Text};
use crate::health::breaker::Position;
use crate::status::{BreakerStatus, PoolStatus};

/// All of them; those of breakers where there are any.
pub(super) fn render(text: &mut Text, pools: &[PoolStatus]) {
    let servers = || pools.iter().flat_map(|pool| pool.servers.iter().map(|server| (pool.name.as_str(), server)));
    let help = "Whether the server gets no requests for a time, for what came of those before.";
    text.family("baton_server_ejected", "gauge", help);
    for (pool, server) in servers() {
        let labels = [("pool", pool), ("server", server.name.as_str())];
        text.sample("baton_server_ejected", &labels, u8::from(server.ejection.is_some()));
    }
    text.family("baton_server_ejections_total", "counter", "Times that the server was ejected.");
    for (pool, server) in servers() {
        text.sample("baton_server_ejections_total", &[("pool", pool), ("server", &server.name)], server.ejections);
    }
    let of_servers = servers().filter_map(|(pool, server)| {
        Some((vec![("pool", pool), ("server", server.name.as_str())], server.breaker.as_ref()?))
    });
    breakers(text, "baton_server_breaker", &of_servers.collect::<Vec<_>>());
    let of_pools = pools.iter().filter_map(|pool| Some((vec![("pool", pool.name.as_str())], pool.breaker.as_ref()?)));
    let of_pools: Vec<_> = of_pools.collect();
    breakers(text, "baton_pool_breaker", &of_pools);
    if of_pools.is_empty() {
        return;
    }
    text.family(
        "baton_pool_breaker_stopped_total",
        "counter",
        "Requests that the breaker did not let pass, by reason.",
    );
    for (labels, breaker) in &of_pools {
        for (reason, count) in &breaker.refused {
            let labels = [labels.as_slice(), &[("reason", reason)]].concat();
            text.sample("baton_pool_breaker_stopped_total", &labels, count);
        }
    }
}

fn breakers(text: &mut Text, name: &str, breakers: &[(Vec<Label<'_>>, &BreakerStatus)]) {
    if breakers.is_empty() {
        return;
    }
    let (state, opened) = (format!("{name}_state"), format!("{name}_opened_total"));
    let help =
        "1 for the state: closed (requests pass), open (none does), half_open (a few do, on trial); 0 for the rest.";
    text.family(&state, "gauge", help);
    for (labels, breaker) in breakers {
        for position in Position::ALL {
            let labels = [labels.as_slice(), &[("state", position.as_str())]].concat();
            text.sample(&state, &labels, u8::from(breaker.state == position.as_str()));
        }
    }
    text.family(&opened, "counter", "Times that the breaker has opened.");
    for (labels, breaker) in breakers {
        text.sample(&opened, labels, breaker.opened);
    }
}
