//! Rate limits on the request path: who a request or a connection counts for, and the counters that both nodes keep of that.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use super::sticky::with_network;
use crate::config::{self, Config, RateLimitKey};
use crate::limit::{Buckets, Change, Counts, Terms, Verdict};
use crate::session::cookie::cookie_values;
use crate::session::counters::{CounterRecord, Counters};
use crate::session::key::{Key, KeyMaker};

/// The counters of all limits.
pub struct Limits {
    buckets: Buckets,
    /// Two for each limit, so that no header and no cookie is taken for an address.
    keys: KeyMaker,
    names: Vec<String>,
    terms: Vec<Terms>,
}

/// The limits of a listener, prepared.
#[derive(Default)]
pub struct ListenerLimits {
    /// Of its requests.
    pub requests: Vec<RateLimit>,
    /// Of its connections.
    pub connections: Option<RateLimit>,
    /// Of the requests of its routes, in the order of the configuration.
    pub routes: Vec<Vec<RateLimit>>,
}

/// A limit, prepared.
pub struct RateLimit {
    /// Its place among the limits of the configuration.
    place: u16,
    by: By,
    prefix_v4: u8,
    prefix_v6: u8,
    /// What is over it is counted, and let through.
    pub log_only: bool,
    /// What clients are told of it, where they are.
    pub told: Option<Told>,
}

/// What clients are told of a limit, in the fields of draft-ietf-httpapi-ratelimit-headers-10: lists of strings, each with
/// parameters. In RateLimit-Policy (section 3) these are `q`, the quota, and `w`, its window in seconds; in RateLimit (section 4)
/// `r`, the quota that is left, and `t`, the seconds for which that has to do. `qu` is left out as "request" is the default,
/// `pk` as a client needs no name for its own address.
pub struct Told {
    name: String,
    /// Its item of RateLimit-Policy.
    pub policy: String,
    burst: u32,
    /// The time in which a request comes back.
    cost: Duration,
}

/// What a client is known by, besides its address.
enum By {
    Nothing,
    Header(HeaderName),
    Cookie(String),
}

/// What all limits of a configuration are, in the order of their places.
#[derive(Default)]
struct Plan {
    names: Vec<String>,
    terms: Vec<Terms>,
    listeners: Vec<ListenerLimits>,
}

impl Plan {
    /// Listeners are at most 256 and routes 4096, with at most nine limits each, so that places do not run out.
    fn new(config: &Config) -> Self {
        let mut plan = Self::default();
        for listener in &config.listeners {
            let protection = &listener.protection;
            let requests = plan.add_all(&listener.name, &protection.rate_limits);
            let connections = protection.connection_rate.as_ref();
            let connections = connections.map(|rate| plan.add(format!("{} connections", listener.name), &of(rate)));
            let routes = plan.add_routes(listener);
            plan.listeners.push(ListenerLimits { requests, connections, routes });
        }
        plan
    }

    /// The first limit has the name of what it is of, which both nodes have known it by since there were limits.
    fn add_all(&mut self, owner: &str, limits: &[config::RateLimit]) -> Vec<RateLimit> {
        let name = |number| if number == 1 { owner.to_owned() } else { format!("{owner}#{number}") };
        limits.iter().zip(1..).map(|(limit, number)| self.add(name(number), limit)).collect()
    }

    fn add_routes(&mut self, listener: &config::Listener) -> Vec<Vec<RateLimit>> {
        let of_route = |route: &config::Route| {
            self.add_all(&format!("{} route {}", listener.name, route.label), &route.rate_limits)
        };
        listener.routes.iter().map(of_route).collect()
    }

    fn add(&mut self, name: String, limit: &config::RateLimit) -> RateLimit {
        let place = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        let told = limit.headers.then(|| Told::new(&name, limit));
        self.names.push(name);
        self.terms.push(terms(limit));
        RateLimit::new(limit, place, told)
    }
}

/// The limits by the names that mean the same to the other node.
pub fn replicated_limits(config: &Config) -> Vec<String> {
    Plan::new(config).names
}

/// For each listener of the configuration, its limits.
pub fn of_listeners(config: &Config) -> Vec<ListenerLimits> {
    Plan::new(config).listeners
}

impl Limits {
    /// Counters that fit the configuration, all at nothing. `secret` is the pair key; both nodes must use the same. `wake`
    /// is called when there is a change for the other node and there was none before.
    pub fn new(config: &Config, secret: &[u8], wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let Plan { names, terms, .. } = Plan::new(config);
        Self { buckets: Buckets::new(&terms, fastrand::u16(..), wake), keys: keys(secret, &names), names, terms }
    }

    /// Counters that fit the next configuration: those of limits that have kept their name and their terms go on. `None`
    /// where these here fit.
    pub fn next(&self, config: &Config, secret: &[u8]) -> Option<Self> {
        let Plan { names, terms, .. } = Plan::new(config);
        if (&names, &terms) == (&self.names, &self.terms) {
            return None;
        }
        let kept = |(name, terms): (&String, &Terms)| {
            let place = self.names.iter().zip(&self.terms).position(|known| known == (name, terms));
            (*terms, place.and_then(|place| u16::try_from(place).ok()))
        };
        let kept: Vec<_> = names.iter().zip(&terms).map(kept).collect();
        let buckets = self.buckets.next(&kept, fastrand::u16(..));
        Some(Self { buckets, keys: keys(secret, &names), names, terms })
    }

    /// The same ones, for who is to own them.
    pub fn same(&self) -> Self {
        let places: Vec<_> = self.terms.iter().copied().zip((0..).map(Some)).collect();
        let (names, terms) = (self.names.clone(), self.terms.clone());
        Self { buckets: self.buckets.next(&places, 0), keys: self.keys.clone(), names, terms }
    }

    /// Others are in use from now on. What is still counted here counts there as well, where the limit is the same.
    pub fn give_way_to(&self, next: &Self) {
        self.buckets.give_way_to(&next.buckets);
    }

    /// Counts a request of a client, or says when it may come again.
    pub fn check(&self, limit: &RateLimit, address: IpAddr, headers: &HeaderMap, now: Duration) -> Verdict {
        self.take(limit, self.key(limit, address, headers), now)
    }

    /// Counts a connection of a client, or says when it may come again.
    pub fn check_connection(&self, limit: &RateLimit, address: IpAddr, now: Duration) -> Verdict {
        self.take(limit, self.key_of_address(limit, address), now)
    }

    fn take(&self, limit: &RateLimit, key: Option<Key>, now: Duration) -> Verdict {
        key.map_or(Verdict::Allowed, |key| self.buckets.take(limit.place, &key.to_bytes(), now))
    }

    /// How many requests of a client count; `None` when there were none for so long that they do not matter any more.
    pub fn counts(&self, limit: &RateLimit, address: IpAddr, headers: &HeaderMap, now: Duration) -> Option<Counts> {
        self.buckets.peek(limit.place, &self.key(limit, address, headers)?.to_bytes(), now)
    }

    /// Forgets clients that have been quiet for long enough.
    pub fn sweep(&self, now: Duration) {
        self.buckets.sweep(now);
    }

    /// Who a request counts for. One without the header or cookie counts for its address: to leave it out is no way around.
    fn key(&self, limit: &RateLimit, address: IpAddr, headers: &HeaderMap) -> Option<Key> {
        let value = match &limit.by {
            By::Nothing => None,
            By::Header(name) => headers.get(name).map(|value| value.as_bytes().trim_ascii()),
            By::Cookie(name) => {
                let mut fields = headers.get_all(header::COOKIE).iter();
                fields.find_map(|field| cookie_values(field.as_bytes(), name).next())
            }
        };
        match value.filter(|value| !value.is_empty()) {
            Some(value) => self.keys.key(limit.place * 2 + 1, value),
            None => self.key_of_address(limit, address),
        }
    }

    fn key_of_address(&self, limit: &RateLimit, address: IpAddr) -> Option<Key> {
        with_network(address, limit.prefix_v4, limit.prefix_v6, |network| self.keys.key(limit.place * 2, network))
    }
}

impl Told {
    fn new(name: &str, limit: &config::RateLimit) -> Self {
        // In whole seconds, at least one: what is allowed in a shorter time is said of a second.
        let window_secs = limit.per.as_nanos().div_ceil(SECOND_NANOS).max(1);
        let quota = u128::from(limit.requests) * window_secs * SECOND_NANOS / limit.per.as_nanos().max(1);
        Self {
            policy: format!("\"{name}\";q={quota};w={window_secs}"),
            name: name.to_owned(),
            burst: limit.burst,
            cost: limit.per / limit.requests.max(1),
        }
    }

    /// The item of RateLimit of a client with these counts: how many requests it has left, and the seconds until it has
    /// all of them again, or, where it has none left, until it has one. `retry_after` is that time where a request was
    /// refused.
    pub fn standing(&self, counts: Option<Counts>, retry_after: Option<Duration>) -> String {
        let missing = counts.map_or(0, |counts| counts.missing);
        let left = if retry_after.is_some() { 0 } else { self.burst.saturating_sub(missing.div_ceil(1_000)) };
        let thousandths = match left {
            0 => missing.saturating_sub(self.burst.saturating_sub(1).saturating_mul(1_000)),
            _ => missing,
        };
        let time = retry_after.map_or(self.cost.as_nanos() * u128::from(thousandths) / 1_000, |time| time.as_nanos());
        format!("\"{}\";r={left};t={}", self.name, time.div_ceil(SECOND_NANOS))
    }
}

const SECOND_NANOS: u128 = 1_000_000_000;

impl RateLimit {
    fn new(config: &config::RateLimit, place: u16, told: Option<Told>) -> Self {
        let by = match &config.by {
            RateLimitKey::SourceIp => By::Nothing,
            // The name was checked, so this cannot fail.
            RateLimitKey::Header { name } => HeaderName::from_bytes(name.as_bytes()).map_or(By::Nothing, By::Header),
            RateLimitKey::Cookie { name } => By::Cookie(name.clone()),
        };
        let config::RateLimit { prefix_v4, prefix_v6, log_only, .. } = *config;
        Self { place, by, prefix_v4, prefix_v6, log_only, told }
    }
}

fn keys(secret: &[u8], limits: &[String]) -> KeyMaker {
    let kinds = |name: &String| ["address", "header"].map(|kind| format!("limit {name} by {kind}"));
    let names: Vec<String> = limits.iter().flat_map(kinds).collect();
    KeyMaker::new(secret, names.iter().map(String::as_str))
}

/// A limit of connections as one of requests, which is what it is to the counters.
fn of(rate: &config::ConnectionRate) -> config::RateLimit {
    let config::ConnectionRate { connections, per, burst, prefix_v4, prefix_v6, entries_max } = *rate;
    config::RateLimit {
        requests: connections,
        per,
        burst,
        by: RateLimitKey::SourceIp,
        prefix_v4,
        prefix_v6,
        entries_max,
        log_only: false,
        headers: false,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const LIMIT: &str = "{ requests = 1, per = \"1s\" }";

    fn config(routes: &str) -> Config {
        let listener = "[[listener]]\nname = \"web\"\nbind = [\"0.0.0.0:80\"]\npool = \"app\"\n";
        let limits = format!("rate_limit = {LIMIT}\nrate_limits = [{LIMIT}]\n");
        let rate = "connection_rate = { connections = 1, per = \"1s\" }\n";
        let pool = "[[pool]]\nname = \"app\"\nservers = [{ name = \"a\", address = \"10.0.0.1:80\" }]\n";
        config::parse(&format!("{listener}{limits}{rate}{routes}{pool}"), Path::new("f")).unwrap()
    }

    fn route(host: &str, limits: usize) -> String {
        let limits = vec![LIMIT; limits].join(", ");
        let limits = if limits.is_empty() { limits } else { format!("rate_limits = [{limits}]\n") };
        format!("[[route]]\nname = \"{host}\"\nlistener = \"web\"\nhost = \"{host}\"\npool = \"app\"\n{limits}")
    }

    #[test]
    fn names_of_limits_do_not_depend_on_what_stands_before_them_where_routes_have_names() {
        let short = replicated_limits(&config(&route("a.example", 2)));
        let [first, second, connections, of_route, second_of_route] = short.as_slice() else { panic!("{short:?}") };
        assert_eq!([first, second, connections], ["web", "web#2", "web connections"]);
        assert_eq!([of_route, second_of_route], ["web route a.example", "web route a.example#2"]);
        let long = replicated_limits(&config(&(route("longer.example", 1) + &route("a.example", 2))));
        assert_eq!(long.len(), 6);
        assert!(short.iter().all(|name| long.contains(name)), "{short:?} {long:?}");
    }

    fn told(limit: &str) -> Told {
        let route = format!(
            "[[route]]\nname = \"a\"\nlistener = \"web\"\nhost = \"a\"\npool = \"app\"\nrate_limit = {limit}\n"
        );
        let mut listeners = of_listeners(&config(&route));
        listeners.remove(0).routes.remove(0).remove(0).told.unwrap()
    }

    #[test]
    fn clients_are_told_what_they_may_do_in_whole_seconds() {
        let policy = |limit: &str| told(&format!("{{ {limit}, headers = true }}")).policy;
        assert_eq!(policy("requests = 100, per = \"1m\", burst = 7"), "\"web route a\";q=100;w=60");
        assert_eq!(policy("requests = 1, per = \"100ms\""), "\"web route a\";q=10;w=1");
        assert_eq!(policy("requests = 3, per = \"1500ms\""), "\"web route a\";q=4;w=2");
    }

    #[test]
    fn clients_are_told_what_they_have_left_and_when_that_changes() {
        let told = told("{ requests = 6, per = \"1m\", burst = 3, headers = true }");
        let standing = |missing, retry_after| told.standing(Some(Counts { own: 1, peer: 0, missing }), retry_after);
        assert_eq!(told.standing(None, None), "\"web route a\";r=3;t=0");
        assert_eq!(standing(1_000, None), "\"web route a\";r=2;t=10");
        assert_eq!(standing(1_001, None), "\"web route a\";r=1;t=11");
        assert_eq!(standing(3_000, None), "\"web route a\";r=0;t=10");
        assert_eq!(standing(2_500, None), "\"web route a\";r=0;t=5");
        assert_eq!(standing(2_500, Some(Duration::from_millis(4_100))), "\"web route a\";r=0;t=5");
    }

    #[test]
    fn each_limit_has_a_place_of_its_own() {
        let config = config(&(route("a.example", 2) + &route("b.example", 0)));
        let listeners = of_listeners(&config);
        let [listener] = listeners.as_slice() else { panic!() };
        let of_routes = listener.routes.iter().flatten();
        let all = listener.requests.iter().chain(&listener.connections).chain(of_routes);
        assert_eq!(all.map(|limit| limit.place).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(listener.routes.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0]);
    }
}
