//! What is refused or cut short to protect the rest, counted by its reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::counters::Counters;

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A request over a rate limit.
    RateLimit,
    /// A request over a rate limit that only counts. It was let through.
    RateLimitLogOnly,
    /// A connection over the rate of its client.
    ConnectionRate,
    /// A connection of a client that has as many as it may.
    ConnectionsPerAddress,
    /// A request with a body that is too large.
    BodyTooLarge,
    /// A request whose body came too slowly.
    BodyTooSlow,
    /// A response that its client took too slowly.
    ResponseTooSlow,
    /// A request while as many were under way as may be.
    RequestsMax,
    /// A request while there was no memory left for more.
    Memory,
    /// A request for a pool whose queue was full.
    QueueFull,
    /// A request, or a connection of `protocol = "tcp"`, that waited for a server for too long.
    QueueTimeout,
    /// A request, or a connection of `protocol = "tcp"`, of an address that is not let in.
    Address,
    /// A connection that had to say in the PROXY protocol whose it is, and did not or not well.
    ProxyProtocol,
    /// A request without a name and a password that are right.
    BasicAuth,
    /// A request whose password had to wait for too many others.
    BasicAuthBusy,
    /// A request that another server does not let in.
    Authorize,
    /// A request of which that server said nothing. With `on_error = "allow"` it was let through.
    AuthorizeError,
    /// A request that comes round again and again.
    Loop,
}

/// All of them, in the order of their numbers.
const REASONS: [Reason; 18] = [
    Reason::RateLimit,
    Reason::RateLimitLogOnly,
    Reason::ConnectionRate,
    Reason::ConnectionsPerAddress,
    Reason::BodyTooLarge,
    Reason::BodyTooSlow,
    Reason::ResponseTooSlow,
    Reason::RequestsMax,
    Reason::Memory,
    Reason::QueueFull,
    Reason::QueueTimeout,
    Reason::Address,
    Reason::ProxyProtocol,
    Reason::BasicAuth,
    Reason::BasicAuthBusy,
    Reason::Authorize,
    Reason::AuthorizeError,
    Reason::Loop,
];

impl Reason {
    /// The word of the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::RateLimitLogOnly => "rate_limit_log_only",
            Self::ConnectionRate => "connection_rate",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::ResponseTooSlow => "response_too_slow",
            Self::RequestsMax => "requests_max",
            Self::Memory => "memory",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Address => "address",
            Self::ProxyProtocol => "proxy_protocol",
            Self::BasicAuth => "basic_auth",
            Self::BasicAuthBusy => "basic_auth_busy",
            Self::Authorize => "authorize",
            Self::AuthorizeError => "authorize_error",
            Self::Loop => "loop",
        }
    }
}

/// How often, for each reason. Written by one thread.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; REASONS.len()]);

impl Refusals {
    /// Counts one.
    pub fn count(&self, reason: Reason) {
        self.0.get(reason as usize).map(|count| count.fetch_add(1, Ordering::Relaxed));
    }

    fn get(&self, reason: Reason) -> u64 {
        self.0.get(reason as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// What all threads have refused at a listener, by the words of the reasons.
pub fn at_listener(threads: &[Arc<Counters>], listener: usize) -> BTreeMap<String, u64> {
    let of_threads = || threads.iter().filter_map(|thread| thread.by_listener.get(listener));
    let sum = |reason| of_threads().map(|counters| counters.refused.get(reason)).sum();
    REASONS.iter().map(|reason| (reason.as_str().to_owned(), sum(*reason))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_in_its_own_place() {
        for (number, reason) in REASONS.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{reason:?}");
            let refusals = Refusals::default();
            refusals.count(reason);
            assert_eq!(REASONS.map(|other| refusals.get(other)).iter().sum::<u64>(), 1);
            assert_eq!(refusals.get(reason), 1);
        }
    }
}
