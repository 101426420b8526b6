//! Rate limits on the request path: who a request counts for, and the counters that both nodes keep of that.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::sticky::with_network;
use crate::config::{self, Config, RateLimitKey};
use crate::limit::{Buckets, Change, Counts, Terms, Verdict};
use crate::session::counters::{CounterRecord, Counters};
use crate::session::key::{Key, KeyMaker};

/// The counters of all limits.
pub struct Limits {
    buckets: Buckets,
    /// Two for each limit, so that no header is taken for an address.
    keys: KeyMaker,
}

/// A listener's limit, prepared.
pub struct RateLimit {
    /// Its place among the limits of the configuration.
    place: u16,
    /// `None`: by address alone.
    header: Option<HeaderName>,
    prefix_v4: u8,
    prefix_v6: u8,
}

/// The listeners that have a limit, in the order of its places. Listeners are at most 256.
fn limited(config: &Config) -> impl Iterator<Item = (&str, &config::RateLimit)> {
    config.listeners.iter().filter_map(|listener| Some((listener.name.as_str(), listener.rate_limit.as_ref()?)))
}

/// The limits by the names that mean the same to the other node: those of their listeners.
pub fn replicated_limits(config: &Config) -> Vec<String> {
    limited(config).map(|(name, _)| name.to_owned()).collect()
}

/// For each listener of the configuration, its limit.
pub fn of_listeners(config: &Config) -> Vec<Option<RateLimit>> {
    let mut places = 0_u16..;
    let mut prepared = |limit: &config::RateLimit| Some(RateLimit::new(limit, places.next()?));
    config.listeners.iter().map(|listener| prepared(listener.rate_limit.as_ref()?)).collect()
}

impl Limits {
    /// Counters that fit the configuration, all at nothing. `secret` is the pair key; both nodes must use the same. `wake`
    /// is called when there is a change for the other node and there was none before.
    pub fn new(config: &Config, secret: &[u8], wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let names: Vec<String> = limited(config)
            .flat_map(|(name, _)| ["address", "header"].map(|kind| format!("limit {name} by {kind}")))
            .collect();
        let terms: Vec<Terms> = limited(config).map(|(_, limit)| terms(limit)).collect();
        Self {
            buckets: Buckets::new(&terms, fastrand::u16(..), wake),
            keys: KeyMaker::new(secret, names.iter().map(String::as_str)),
        }
    }

    /// Counts a request of a client, or says when it may come again.
    pub fn check(&self, limit: &RateLimit, address: IpAddr, headers: &HeaderMap, now: Duration) -> Verdict {
        match self.key(limit, address, headers) {
            Some(key) => self.buckets.take(limit.place, &key.to_bytes(), now),
            None => Verdict::Allowed,
        }
    }

    /// How many requests of a client count; `None` when there were none for so long that they do not matter any more.
    pub fn counts(&self, limit: &RateLimit, address: IpAddr, headers: &HeaderMap, now: Duration) -> Option<Counts> {
        self.buckets.peek(limit.place, &self.key(limit, address, headers)?.to_bytes(), now)
    }

    /// Forgets clients that have been quiet for long enough.
    pub fn sweep(&self, now: Duration) {
        self.buckets.sweep(now);
    }

    /// Who a request counts for. One without the header counts for its address: to leave it out is no way around.
    fn key(&self, limit: &RateLimit, address: IpAddr, headers: &HeaderMap) -> Option<Key> {
        let value = limit.header.as_ref().and_then(|name| headers.get(name));
        match value.map(|value| value.as_bytes().trim_ascii()).filter(|value| !value.is_empty()) {
            Some(value) => self.keys.key(limit.place * 2 + 1, value),
            None => with_network(address, limit.prefix_v4, limit.prefix_v6, |network| {
                self.keys.key(limit.place * 2, network)
            }),
        }
    }
}

impl RateLimit {
    fn new(config: &config::RateLimit, place: u16) -> Self {
        let header = match &config.by {
            RateLimitKey::SourceIp => None,
            // The name was checked, so this cannot fail.
            RateLimitKey::Header { name } => HeaderName::from_bytes(name.as_bytes()).ok(),
        };
        Self { place, header, prefix_v4: config.prefix_v4, prefix_v6: config.prefix_v6 }
    }
}

fn terms(limit: &config::RateLimit) -> Terms {
    Terms {
        requests: limit.requests,
        per: limit.per,
        burst: limit.burst,
        entries_max: usize::try_from(limit.entries_max).unwrap_or(usize::MAX),
    }
}

/// The two cores do not know of each other; what the link carries is what the buckets say.
impl Counters for Limits {
    fn keep_changes(&self, are_kept: bool) {
        self.buckets.keep_changes(are_kept);
    }

    fn has_changes(&self) -> bool {
        self.buckets.has_changes()
    }

    fn take_changes(&self, now: Duration, count: usize, take: &mut dyn FnMut(&CounterRecord)) {
        self.buckets.take_changes(now, count, |change| {
            let Change { key, limit, life, total, peer_life, peer_total, missing } = change;
            let key = Key::from_bytes(key);
            take(&CounterRecord { key, limit, life, total, peer_life, peer_total, missing });
        });
    }

    fn merge(&self, record: &CounterRecord, now: Duration) {
        let CounterRecord { key, limit, life, total, peer_life, peer_total, missing } = *record;
        let key = key.to_bytes();
        self.buckets.merge(&Change { key, limit, life, total, peer_life, peer_total, missing }, now);
    }
}
