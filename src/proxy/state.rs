//! What the threads of a worker share: the configuration, prepared for the request path, and the health of servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderValue;

use super::accept::Proxies;
use super::access::Access;
use super::access::basic::Verifier;
use super::counters::{CLASSES, Counters, ListenerCounters, MirrorOutcome, PoolCounters};
use super::files::Files;
use super::hash_key::HashKey;
use super::http::error_pages::ErrorPages;
use super::http::https;
use super::http::identity::Identity;
use super::http::pages::RoutePages;
use super::limits::{self, ListenerLimits};
use super::load::Load;
use super::passive::PoolCircuit;
use super::picking;
use super::refusals;
use super::server::Server;
use super::sessions::Sessions;
use super::sticky::Stickiness;
use super::tls::Termination;
use super::upstream::dial::Dialer;
use crate::balance::{Candidate, Method, Snapshot, WEIGHT_ONE};
use crate::config::{self, AccessLog, Algorithm, Config, LogFormat, LogTarget, PoolCompression, PoolIndex};
use crate::limit::concurrent::Concurrent;
use crate::limit::queue::Slots;
use crate::link::ListenerLoad;
use crate::status::{CertificateStatus, MirroredStatus, PoolStatus, ServerStatus};

/// Everything that all threads read.
pub struct Site {
    /// Pools, in the order of the configuration.
    pub pools: Vec<Arc<Pool>>,
    /// Listeners, in the order of the configuration.
    pub listeners: Vec<Arc<Listener>>,
    /// How busy the worker is.
    pub load: Load,
    /// Which clients belong to which servers.
    pub sessions: Arc<Sessions>,
    /// Some pool's servers are told whose connection it is.
    pub tells_clients: bool,
    /// This node's name, for the errors that we answer ourselves.
    pub node: String,
    /// Verifies passwords.
    pub verifier: Arc<Verifier>,
    /// Whether somebody can ask how long requests take.
    pub is_measured: bool,
    /// Whether any response is compressed.
    pub compresses: bool,
    /// Whether a listener asks clients for certificates: what servers are told of these, no client may make up, on the
    /// other listeners least of all.
    pub asks_for_certificates: bool,
}

/// What was made of the worker's files, for each listener and each pool in the order of the configuration.
pub struct Prepared {
    /// What each listener that speaks TLS ends it with.
    pub tls: Vec<Option<Arc<Termination>>>,
    /// Who may come in at each listener.
    pub access: Vec<Arc<Access>>,
    /// How the servers of each pool are reached.
    pub dialers: Vec<Arc<Dialer>>,
}

/// What a site is put together from.
pub(super) struct Parts {
    pub(super) pools: Vec<Arc<Pool>>,
    pub(super) listeners: Vec<Arc<Listener>>,
    pub(super) load: Load,
    pub(super) verifier: Arc<Verifier>,
}

/// A listener, prepared.
pub struct Listener {
    /// As configured.
    pub config: config::Listener,
    /// Present when it speaks TLS.
    pub tls: Option<Arc<Termination>>,
    /// Present when it tells browsers to come over HTTPS alone.
    pub hsts: Option<HeaderValue>,
    /// Present when its requests are written down.
    pub log: Option<ListenerLog>,
    /// What is sent in place of errors.
    pub error_pages: ErrorPages,
    /// What its routes answer from files.
    pub route_pages: RoutePages,
    /// How often clients may ask and connect.
    pub limits: ListenerLimits,
    /// What stays with it from one configuration to the next.
    pub presence: Arc<Presence>,
    /// Present when proxies in front say whose connection it is.
    pub proxies: Option<Proxies>,
    /// Who clients are taken for.
    pub identity: Identity,
    /// Who may come in.
    pub access: Arc<Access>,
}

/// What stays with a listener for as long as one of its name and protocol is configured.
#[derive(Default)]
pub struct Presence {
    /// How many connections each client has, where there is a limit to that.
    pub connections: Concurrent,
    is_over: AtomicBool,
}

impl Presence {
    /// Whether it is configured no more: its connections end with the request that is under way.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Notes that it is configured no more.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Listener {
    /// Prepares a listener.
    pub(super) fn new(
        config: &config::Listener,
        tls: Option<Arc<Termination>>,
        access: Arc<Access>,
        limits: ListenerLimits,
        targets: &[&LogTarget],
        presence: Arc<Presence>,
    ) -> Self {
        Self {
            access,
            config: config.clone(),
            tls,
            hsts: config.hsts.as_ref().map(https::hsts_value),
            limits,
            presence,
            proxies: config.identity.accept_proxy.as_ref().map(Proxies::new),
            identity: Identity::new(&config.identity),
            log: config.access_log.as_ref().and_then(|log| ListenerLog::new(log, targets)),
            error_pages: ErrorPages::new(&config.error_pages, config.intercept_errors),
            route_pages: RoutePages::new(&config.routes),
        }
    }

    /// Takes the files of its pages, at the start and when they have changed. Those that cannot be used stay as they were.
    ///
    /// # Errors
    /// In words: one that cannot be used, and why.
    pub fn pages_changed(&self, files: &Files) -> Result<(), String> {
        self.error_pages.files_changed(files).and(self.route_pages.files_changed(files))
    }
}

/// What is written of the requests of a listener.
#[derive(PartialEq, Eq)]
pub struct ListenerLog {
    /// Where to, as an index into `Config::log_targets`.
    pub target: usize,
    /// How.
    pub format: LogFormat,
    /// Only what did not go well.
    pub only_errors: bool,
    /// Of a million requests so many.
    sample_ppm: u32,
    /// None of these paths.
    except_paths: Vec<String>,
}

impl ListenerLog {
    pub(super) fn new(config: &AccessLog, targets: &[&LogTarget]) -> Option<Self> {
        Some(Self {
            target: targets.iter().position(|target| **target == config.target)?,
            format: config.format,
            only_errors: config.only_errors,
            sample_ppm: config.sample_ppm,
            except_paths: config.except_paths.clone(),
        })
    }

    /// Whether a request is one of those that are written, as far as can be said at its beginning.
    pub fn wants(&self, path: Option<&str>) -> bool {
        let is_chosen = self.sample_ppm >= MILLION || fastrand::u32(..MILLION) < self.sample_ppm;
        is_chosen && path.is_none_or(|path| !self.except_paths.iter().any(|excepted| is_below(path, excepted)))
    }
}

const MILLION: u32 = 1_000_000;

/// Whole segments only: `/health` covers `/health` and `/health/x`, not `/healthy`.
fn is_below(path: &str, excepted: &str) -> bool {
    path.strip_prefix(excepted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A pool, prepared.
pub struct Pool {
    /// As configured.
    pub config: config::Pool,
    /// Its servers' state, in the order of the configuration.
    pub servers: Vec<Arc<Server>>,
    /// How its servers are reached.
    pub dialer: Arc<Dialer>,
    /// Present when the pool is sticky.
    pub sticky: Option<Stickiness>,
    /// Present when its servers get so many requests at once and not more.
    pub slots: Option<Arc<Slots>>,
    /// Its circuit breaker, which is closed where it has none.
    pub circuit: Arc<PoolCircuit>,
    /// How servers are picked.
    pub method: Method,
    /// Whether what is under way at each server is counted, for the method.
    pub counts: bool,
    /// Whether it is measured how long servers take to answer, for the method.
    pub measures: bool,
    /// What requests are placed by, where the method hashes something.
    pub hash_key: Option<HashKey>,
    /// Where this node is, if anybody has said.
    pub zone: Option<String>,
    /// Whether all servers are used, as too few are healthy.
    pub is_panicking: AtomicBool,
}

impl Site {
    /// Prepares a configuration.
    pub fn new(config: &Config, node: String, sessions: Arc<Sessions>, cookie_key: &[u8], prepared: Prepared) -> Self {
        let Prepared { tls, access, dialers } = prepared;
        let pools = config.pools.iter().zip(dialers).enumerate();
        let zone = zone(config, &node);
        let pool = |(index, (pool, dialer)): (usize, (&config::Pool, Arc<Dialer>))| {
            Arc::new(Pool::new(pool, dialer, index, cookie_key, zone))
        };
        let pools = pools.map(pool).collect();
        let listeners = config.listeners.iter().zip(tls).zip(access).zip(limits::of_listeners(config));
        let targets = config.log_targets();
        let listeners = listeners.map(|(((config, tls), access), limits)| {
            Arc::new(Listener::new(config, tls, access, limits, &targets, Arc::default()))
        });
        Self::of(
            config,
            node,
            sessions,
            Parts {
                pools,
                listeners: listeners.collect(),
                load: Load::new(config.worker.limits),
                verifier: Arc::default(),
            },
        )
    }

    /// What follows from a configuration besides its parts.
    pub(super) fn of(config: &Config, node: String, sessions: Arc<Sessions>, parts: Parts) -> Self {
        let Parts { pools, listeners, load, verifier } = parts;
        let compresses = config.listeners.iter().any(|listener| listener.compression.is_some())
            || config.pools.iter().any(|pool| matches!(pool.compression, PoolCompression::Own(_)));
        let tells_clients = config.pools.iter().any(|pool| pool.send_proxy.is_some());
        let asks_clients =
            |listener: &config::Listener| listener.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some());
        let asks_for_certificates = config.listeners.iter().any(asks_clients);
        Self {
            pools,
            load,
            listeners,
            sessions,
            tells_clients,
            node,
            verifier,
            asks_for_certificates,
            is_measured: config.admin.is_some(),
            compresses,
        }
    }

    /// Takes files that have changed. What cannot be used is left as it was, and said in words.
    pub fn files_changed(&self, files: &Files) -> Vec<String> {
        let mut warnings = Vec::new();
        for listener in &self.listeners {
            let refused = listener.tls.as_ref().map(|tls| tls.files_changed(files)).unwrap_or_default();
            let name = &listener.config.name;
            warnings.extend(refused.iter().map(|reason| format!("listener {name} keeps what it had: {reason}")));
            warnings.extend(listener.access.files_changed(files));
            if let Err(reason) = listener.pages_changed(files) {
                warnings.push(format!("listener {name} keeps a former page: {reason}"));
            }
        }
        for pool in &self.pools {
            if let Err(reason) = pool.dialer.files_changed(files) {
                warnings.push(format!("pool {} keeps its former certificates: {reason}", pool.config.name));
            }
        }
        warnings
    }

    /// Revocation lists that have expired at a time, in seconds since 1970, in words.
    pub fn expired_lists(&self, now_s: i64) -> impl Iterator<Item = String> {
        self.listeners.iter().filter_map(move |listener| {
            let (expires_s, file) = listener.tls.as_ref()?.revocation_expiry()?;
            let (file, name) = (file.display(), &listener.config.name);
            let text =
                || format!("a revocation list in {file} has expired, and listener {name} lets no client with a certificate in: renew it");
            (expires_s < now_s).then(text)
        })
    }

    /// The certificates of all listeners.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        self.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| tls.certificates()).collect()
    }

    /// The pool of an index, which the configuration made valid.
    pub fn pool(&self, index: PoolIndex) -> Option<&Pool> {
        self.pools.get(index.0).map(|pool| &**pool)
    }

    /// The listener of an index.
    pub fn listener(&self, index: usize) -> Option<&Listener> {
        self.listeners.get(index).map(|listener| &**listener)
    }

    /// Counters that fit this site.
    pub fn counters(&self) -> Counters {
        Counters {
            by_listener: self.listeners.iter().map(|_| Arc::default()).collect(),
            by_pool: self.pools.iter().map(|pool| pool.counters()).collect(),
            totals: Arc::default(),
        }
    }

    /// Listeners as they are, by what all threads counted.
    pub fn listener_load(&self, threads: &[Arc<Counters>]) -> Vec<ListenerLoad> {
        let sum = |listener: usize, count: fn(&ListenerCounters) -> &AtomicU64| {
            let counters = threads.iter().filter_map(|thread| thread.by_listener.get(listener));
            counters.map(|counters| count(counters).load(Ordering::Relaxed)).sum()
        };
        let load = |index| ListenerLoad {
            accepted: sum(index, |counters| &counters.accepted),
            full_sockets: sum(index, |counters| &counters.full_sockets),
            refused: refusals::at_listener(threads, index),
        };
        (0..self.listeners.len()).map(load).collect()
    }

    /// Pools and servers as they are, with the requests that all threads counted.
    pub fn pool_status(&self, threads: &[Arc<Counters>]) -> Vec<PoolStatus> {
        let pools = self.pools.iter().enumerate();
        let status = |(index, pool): (usize, &Arc<Pool>)| {
            let mut responses = [0; CLASSES];
            for counted in threads.iter().filter_map(|thread| thread.by_pool.get(index)) {
                counted.own.responses.add_to(&mut responses);
            }
            let [.., errors] = responses;
            PoolStatus {
                requests: responses.iter().sum(),
                errors,
                mirrored: self.is_mirror(PoolIndex(index)).then(|| mirrored(threads, index)),
                ..pool.status(|server| requests(threads, index, server))
            }
        };
        pools.map(status).collect()
    }

    /// Whether some route sends copies of its requests to a pool.
    fn is_mirror(&self, pool: PoolIndex) -> bool {
        let mut routes = self.listeners.iter().flat_map(|listener| &listener.config.routes);
        routes.any(|route| route.mirror.as_ref().is_some_and(|mirror| mirror.pool == pool))
    }
}

fn mirrored(threads: &[Arc<Counters>], pool: usize) -> MirroredStatus {
    let sum = |outcome: MirrorOutcome| {
        let counts = threads.iter().filter_map(|thread| thread.by_pool.get(pool)?.own.mirrored.get(outcome as usize));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    };
    MirroredStatus {
        answered: sum(MirrorOutcome::Answered),
        failed: sum(MirrorOutcome::Failed),
        too_large: sum(MirrorOutcome::TooLarge),
        busy: sum(MirrorOutcome::Busy),
        broken_off: sum(MirrorOutcome::BrokenOff),
    }
}

fn requests(threads: &[Arc<Counters>], pool: usize, server: usize) -> u64 {
    let of_server = |counters: &Arc<Counters>| {
        let counters = counters.by_pool.get(pool)?.by_server.get(server)?;
        Some(counters.requests.load(Ordering::Relaxed))
    };
    threads.iter().filter_map(of_server).sum()
}

/// The zone of a node, where it has one.
pub(super) fn zone<'config>(config: &'config Config, node: &str) -> Option<&'config str> {
    config.nodes.iter().find(|known| known.name == node)?.zone.as_deref()
}

/// The slots of a pool's servers, where these are limited.
pub(super) fn slots(config: &config::Pool) -> Option<Slots> {
    let limits = config.connections.as_ref()?;
    let most = |server: &config::Server| server.connections_max.or(limits.per_server).unwrap_or(u32::MAX);
    Some(Slots::new(config.servers.iter().map(most).collect(), limits.queue_max as usize))
}

impl Pool {
    fn new(config: &config::Pool, dialer: Arc<Dialer>, index: usize, cookie_key: &[u8], zone: Option<&str>) -> Self {
        let starts_up = config.health.as_ref().is_none_or(|health| health.starts_up);
        let server = || Arc::new(Server::starting(config.health.is_none(), starts_up));
        let servers = config.servers.iter().map(|_| server()).collect();
        let slots = slots(config).map(Arc::new);
        Self::of(config, dialer, cookie_key, (index, zone), servers, slots, Arc::default())
    }

    /// One with these servers, at its place among the pools and in the zone of this node.
    pub(super) fn of(
        config: &config::Pool,
        dialer: Arc<Dialer>,
        cookie_key: &[u8],
        (index, zone): (usize, Option<&str>),
        servers: Vec<Arc<Server>>,
        slots: Option<Arc<Slots>>,
        circuit: Arc<PoolCircuit>,
    ) -> Self {
        let sticky = config.sticky.as_ref().map(|sticky| Stickiness::new(sticky, config, index, cookie_key));
        Self {
            config: config.clone(),
            servers,
            dialer,
            sticky,
            slots,
            circuit,
            method: picking::method(config),
            counts: picking::counts(config),
            measures: config.algorithm == Algorithm::LeastResponseTime,
            hash_key: HashKey::of(&config.algorithm),
            zone: zone.map(str::to_owned),
            is_panicking: AtomicBool::new(false),
        }
    }

    pub(super) fn counters(&self) -> PoolCounters {
        PoolCounters { by_server: self.servers.iter().map(|_| Arc::default()).collect(), ..PoolCounters::default() }
    }

    /// The name of a server, as configured.
    pub fn server_name(&self, server: usize) -> &str {
        self.config.servers.get(server).map_or("", |server| server.name.as_str())
    }

    /// What there is to know of a server when one is picked for a new client.
    pub fn candidate(&self, server: usize) -> Candidate {
        let Some(config) = self.config.servers.get(server) else { return Candidate { eligible: false, backup: false } };
        Candidate {
            eligible: self.servers.get(server).is_some_and(|server| server.takes_new()) && config.weight > 0,
            backup: config.backup,
        }
    }

    fn status(&self, requests: impl Fn(usize) -> u64) -> PoolStatus {
        let now = Instant::now();
        let (conditions, _due) = self.conditions(now);
        let is_panicking = Snapshot::new(&conditions, self.terms()).is_panicking();
        let servers = self.config.servers.iter().zip(&self.servers).zip(conditions).enumerate();
        let servers = servers.map(|(index, ((config, server), condition))| {
            let verdict = server.verdict();
            ServerStatus {
                name: config.name.clone(),
                address: config.address,
                origin: config.origin.as_str().to_owned(),
                up: server.is_up(),
                admin: server.admin().as_str().to_owned(),
                checked: verdict.is_checked,
                since_ms: u64::try_from(verdict.since.elapsed().as_millis()).unwrap_or(u64::MAX),
                last_check: verdict.last_check.clone(),
                agent: self.config.agent.as_ref().map(|_| server.agent().to_string()),
                requests: requests(index),
                in_flight: self.in_flight(index),
                in_flight_max: self.slots.as_ref().map(|slots| slots.most(index)).filter(|most| *most < u32::MAX),
                weight: config.weight,
                effective_weight: f64::from(condition.weight) / f64::from(WEIGHT_ONE),
                zone: config.zone.clone(),
                ejection: self.ejection_status(server, now),
                ejections: server.ejection.count(),
                breaker: self.server_breaker_status(server, now),
            }
        });
        let (name, queue) = (self.config.name.clone(), self.queue_status());
        PoolStatus {
            name,
            algorithm: self.config.algorithm.word().to_owned(),
            requests: 0,
            errors: 0,
            panicking: is_panicking,
            servers: servers.collect(),
            mirrored: None,
            queue,
            discovery: None,
            breaker: self.breaker_status(now),
        }
    }

    /// Requests under way at a server, where they are counted.
    fn in_flight(&self, server: usize) -> Option<u64> {
        let of_slots = self.slots.as_ref().map(|slots| slots.taken(server));
        let counted = || self.servers.get(server).map(|server| server.measured.in_flight.load(Ordering::Relaxed));
        of_slots.or_else(|| counted().filter(|_| self.counts)).map(u64::from)
    }
}
