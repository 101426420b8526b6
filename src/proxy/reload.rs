//! The next configuration's site, made of the one in use: what stays the same is the same.
//!
//! Pools and listeners are known by their names, servers by name and address. A pool or a listener whose configuration has
//! not changed is taken over as it is; of one that has, its servers' state, counters, TLS and limits stay where they can.
//! The worker calls this, and hands what comes of it to its threads.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::access::Access;
use super::counters::{Counters, PoolCounters};
use super::files::Files;
use super::limits;
use super::server::{AgentState, Server};
use super::sessions::Sessions;
use super::state::{self, Listener, ListenerLog, Parts, Pool, Site};
use super::tickets::Tickets;
use super::tls::Termination;
use super::upstream::dial::Dialer;
use crate::config::{self, Config, LogTarget};
use crate::limit::queue::Slots;
use crate::session::facts::FactKey;

/// What is in use.
pub struct InUse {
    /// What all threads read.
    pub site: Arc<Site>,
    /// What each of them counts.
    pub counters: Vec<Arc<Counters>>,
}

/// What is in use now, for who outlives a configuration.
pub type Current = ArcSwap<InUse>;

/// What a site is made of besides its configuration.
#[derive(Clone, Copy)]
pub struct Makings<'a> {
    /// The files of the configuration.
    pub files: &'a Files,
    /// The keys of TLS tickets.
    pub tickets: &'a Arc<Tickets>,
    /// The pair key.
    pub cookie_key: &'a [u8],
    /// What [`Site::prepare_access`] has made of it; the rest is made when it is needed.
    pub access: &'a PreparedAccess,
}

/// Who may come in at listeners, by their names.
pub type PreparedAccess = HashMap<String, Arc<Access>>;

impl Site {
    /// The site of the next configuration. Changes nothing here.
    ///
    /// # Errors
    /// In words: what cannot be used, and why.
    pub fn next(&self, config: &Config, sessions: Arc<Sessions>, makings: Makings<'_>) -> Result<Self, String> {
        let zone = state::zone(config, &self.node);
        let of_pool = |(index, pool)| self.next_pool((index, zone), pool, makings);
        let pools = config.pools.iter().enumerate().map(of_pool).collect::<Result<_, _>>()?;
        let targets = config.log_targets();
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for (listener, limits) in config.listeners.iter().zip(limits::of_listeners(config)) {
            let former = self.same_listener(listener);
            let are_limits_same = Arc::ptr_eq(&self.sessions, &sessions);
            let kept = former.filter(|former| are_limits_same && is_unchanged(former, listener, &targets));
            listeners.push(match kept {
                Some(former) => Arc::clone(former),
                None => {
                    let tls = next_tls(former, listener, makings)?;
                    let access = match same_access(former, listener).or_else(|| makings.access.get(&listener.name)) {
                        Some(made) => Arc::clone(made),
                        None => new_access(listener, makings.files)?,
                    };
                    let presence = former.map(|former| Arc::clone(&former.presence)).unwrap_or_default();
                    let next = Listener::new(listener, tls, access, limits, &targets, presence);
                    let pages = next.pages_changed(makings.files);
                    pages.map_err(|reason| format!("listener {}: {reason}", listener.name))?;
                    Arc::new(next)
                }
            });
        }
        let (load, verifier) = (self.load.with_limits(config.worker.limits), Arc::clone(&self.verifier));
        Ok(Self::of(config, self.node.clone(), sessions, Parts { pools, listeners, load, verifier }))
    }

    /// Makes what says who may come in, of the listeners for which that is another one than here. A list of a million networks
    /// takes a while, so that this is for a thread that may block.
    ///
    /// # Errors
    /// In words: what cannot be used, and why.
    pub fn prepare_access(&self, config: &Config, files: &Files) -> Result<PreparedAccess, String> {
        let is_other = |listener: &&config::Listener| same_access(self.same_listener(listener), listener).is_none();
        let others = config.listeners.iter().filter(is_other);
        others.map(|listener| Ok((listener.name.clone(), new_access(listener, files)?))).collect()
    }

    /// The listener of the same name and protocol.
    pub fn same_listener(&self, listener: &config::Listener) -> Option<&Arc<Listener>> {
        let is_same =
            |known: &&Arc<Listener>| known.config.name == listener.name && known.config.protocol == listener.protocol;
        self.listeners.iter().find(is_same)
    }

    /// Ends the listeners that `next` has not: their connections end with what is under way. True when there are any.
    pub fn end_listeners(&self, next: &Self) -> bool {
        let is_kept = |listener: &Listener| next.same_listener(&listener.config).is_some();
        let ended = self.listeners.iter().filter(|listener| !is_kept(listener));
        ended.map(|listener| listener.presence.end()).count() > 0
    }

    /// Has servers that `former` does not have be what operators and the other node have said of them.
    pub fn recall(&self, former: &Self) {
        let is_new = |pool: &Pool, position: usize| {
            let before = former.pools.iter().find(|before| before.config.name == pool.config.name);
            let server = pool.servers.get(position);
            !before.is_some_and(|before| {
                before.servers.iter().any(|known| server.is_some_and(|server| Arc::ptr_eq(known, server)))
            })
        };
        let new = |pool: &str, server: &str| {
            let pool = self.pools.iter().find(|known| known.config.name == pool)?;
            let position = pool.config.servers.iter().position(|known| known.name == server)?;
            is_new(pool, position).then(|| pool.servers.get(position)).flatten()
        };
        let facts = self.sessions.facts();
        for (key, value) in facts.iter() {
            match key {
                FactKey::Admin { pool, server } => {
                    new(pool, server).inspect(|found| found.recall_admin(value));
                }
                FactKey::Health { node, pool, server } if *node != self.node => {
                    new(pool, server).inspect(|found| found.recall_health(value));
                }
                FactKey::Health { .. } | FactKey::Outcomes { .. } | FactKey::TicketKeys => {}
            }
        }
    }

    /// Counters of a thread that go on with what it has counted.
    pub fn next_counters(&self, former: &Self, counters: &Counters) -> Counters {
        let listener = |listener: &Arc<Listener>| {
            let is_same = |before: &Arc<Listener>| before.config.name == listener.config.name;
            let position = former.listeners.iter().position(is_same);
            position.and_then(|position| counters.by_listener.get(position)).map(Arc::clone).unwrap_or_default()
        };
        let pool = |pool: &Arc<Pool>| {
            let position = former.pools.iter().position(|before| before.config.name == pool.config.name);
            let before = position.and_then(|at| Some((former.pools.get(at)?, counters.by_pool.get(at)?)));
            before.map_or_else(|| pool.counters(), |(before, counted)| pool.next_counters(before, counted))
        };
        Counters {
            totals: Arc::clone(&counters.totals),
            by_listener: self.listeners.iter().map(listener).collect(),
            by_pool: self.pools.iter().map(pool).collect(),
        }
    }

    fn next_pool(
        &self,
        (index, zone): (usize, Option<&str>),
        config: &config::Pool,
        makings: Makings<'_>,
    ) -> Result<Arc<Pool>, String> {
        let is_same = |pool: &(usize, &Arc<Pool>)| pool.1.config.name == config.name;
        let former = self.pools.iter().enumerate().find(is_same);
        if let Some((before, pool)) = former
            && before == index
            && pool.config == *config
            && pool.zone.as_deref() == zone
        {
            return Ok(Arc::clone(pool));
        }
        let former = former.map(|(_, pool)| pool);
        let is_reached_alike = |pool: &&Arc<Pool>| {
            let before = &pool.config;
            (&before.tls, before.protocol, before.send_proxy) == (&config.tls, config.protocol, config.send_proxy)
        };
        let dialer = match former.filter(is_reached_alike) {
            Some(pool) => Arc::clone(&pool.dialer),
            None => Arc::new(Dialer::new(config, makings.files)?),
        };
        let servers: Vec<_> = config.servers.iter().map(|server| next_server(former, config, server)).collect();
        let slots = next_slots(former, config, &servers);
        let circuit = former.map(|pool| Arc::clone(&pool.circuit)).unwrap_or_default();
        Ok(Arc::new(Pool::of(config, dialer, makings.cookie_key, (index, zone), servers, slots, circuit)))
    }
}

impl Pool {
    fn next_counters(&self, former: &Self, counters: &PoolCounters) -> PoolCounters {
        let server = |server: &config::Server| {
            let position = former.config.servers.iter().position(|before| before.name == server.name);
            position.and_then(|position| counters.by_server.get(position)).map(Arc::clone).unwrap_or_default()
        };
        PoolCounters { own: Arc::clone(&counters.own), by_server: self.config.servers.iter().map(server).collect() }
    }

    /// Where the server of a name and an address is.
    pub fn same_server(&self, server: &config::Server) -> Option<usize> {
        let is_same = |known: &config::Server| known.name == server.name && known.address == server.address;
        self.config.servers.iter().position(is_same)
    }
}

fn next_server(former: Option<&Arc<Pool>>, pool: &config::Pool, server: &config::Server) -> Arc<Server> {
    let is_never_checked = pool.health.is_none();
    let starts_up = pool.health.as_ref().is_none_or(|health| health.starts_up);
    let kept = former.and_then(|former| Some((former, former.servers.get(former.same_server(server)?)?)));
    let Some((former, kept)) = kept else { return Arc::new(Server::starting(is_never_checked, starts_up)) };
    if is_never_checked && former.config.health.is_some() {
        kept.judge(true, "not checked".to_owned());
    }
    if pool.agent.is_none() {
        kept.set_agent(AgentState::default());
    }
    Arc::clone(kept)
}

/// Slots count for servers by their places, and so stay where these do.
fn next_slots(former: Option<&Arc<Pool>>, config: &config::Pool, servers: &[Arc<Server>]) -> Option<Arc<Slots>> {
    let next = state::slots(config)?;
    let is_same = |former: &&Arc<Pool>| {
        former.config.connections == config.connections
            && former.servers.len() == servers.len()
            && former.servers.iter().zip(servers).all(|(before, server)| Arc::ptr_eq(before, server))
            && former.slots.as_ref().is_some_and(|slots| (0..servers.len()).all(|at| slots.most(at) == next.most(at)))
    };
    let kept = former.filter(is_same).and_then(|former| former.slots.as_ref()).map(Arc::clone);
    Some(kept.unwrap_or_else(|| Arc::new(next)))
}

fn is_unchanged(former: &Listener, listener: &config::Listener, targets: &[&LogTarget]) -> bool {
    let log = listener.access_log.as_ref().and_then(|log| ListenerLog::new(log, targets));
    former.config == *listener && former.log == log
}

fn next_tls(
    former: Option<&Arc<Listener>>,
    listener: &config::Listener,
    makings: Makings<'_>,
) -> Result<Option<Arc<Termination>>, String> {
    let is_same = |former: &&Arc<Listener>| former.config.tls == listener.tls && former.config.http2 == listener.http2;
    if let Some(former) = former.filter(is_same) {
        return Ok(former.tls.clone());
    }
    let made = Termination::new(listener, makings.files, makings.tickets);
    Ok(made.map_err(|reason| format!("listener {}: {reason}", listener.name))?.map(Arc::new))
}

fn new_access(listener: &config::Listener, files: &Files) -> Result<Arc<Access>, String> {
    let made = Access::new(listener, files).map(Arc::new);
    made.map_err(|reason| format!("listener {}: {reason}", listener.name))
}

/// What says who may come in, where that stays as it is.
fn same_access<'a>(former: Option<&'a Arc<Listener>>, listener: &config::Listener) -> Option<&'a Arc<Access>> {
    let former = former?;
    let (before, now) = (&former.config, listener);
    let is_same = before.access == now.access
        && before.routes.iter().map(|route| &route.access).eq(now.routes.iter().map(|route| &route.access));
    is_same.then_some(&former.access)
}
