//! What a valid configuration says that is probably not meant.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::model::{
    Algorithm, Authentication, Config, HostMatch, Listener, Node, Pool, PoolIndex, Server, Sticky, StoreUrl, Transport,
    Vip, VrrpVersion,
};
use super::values::duration_text;
use super::{loops, machine, shadows, values};

/// A worker that hangs for longer than this before anybody acts is longer away than one that died with its machine.
const HANG_MAX: Duration = Duration::from_secs(1);

impl Config {
    /// What is probably not meant, in sentences; nothing here keeps the configuration from working.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let routes = self.listeners.iter().flat_map(|listener| &listener.routes);
        let routed = routes.flat_map(|route| route.pools().chain(route.mirror.as_ref().map(|mirror| mirror.pool)));
        let used: HashSet<PoolIndex> =
            routed.chain(self.listeners.iter().filter_map(|listener| listener.pool)).collect();
        for (index, pool) in self.pools.iter().enumerate() {
            if !used.contains(&PoolIndex(index)) {
                warnings.push(format!("pool {} is used by no listener and no route", pool.name));
            }
            let is_weighted = |server: &Server| server.weight > 1;
            if pool.algorithm == Algorithm::RoundRobin && pool.servers.iter().any(is_weighted) {
                warnings.push(format!(
                    "pool {} has weights, which algorithm = \"round_robin\" does not go by: write \"weighted_round_robin\"",
                    pool.name
                ));
            }
            if pool.discovery.is_none() && pool.servers.iter().all(|server| server.weight == 0) {
                warnings
                    .push(format!("pool {} has weight 0 for every server, so that no new client gets one", pool.name));
            }
            if pool.discovery.is_none() && pool.servers.iter().all(|server| server.backup) {
                warnings.push(format!("pool {} has backup servers alone", pool.name));
            }
        }
        let has_table = |pool: &Pool| matches!(pool.sticky, Some(Sticky::Table(_)));
        if self.sessions.store.is_some() && !self.pools.iter().any(has_table) {
            warnings.push(
                "sessions.store is used by no pool, as none is sticky by something that has to be remembered"
                    .to_owned(),
            );
        }
        let is_heard = |url: &StoreUrl| !url.is_tls && !is_this_machine(&url.host);
        if self
            .sessions
            .store
            .as_ref()
            .is_some_and(|store| store.password_file.is_some() && store.urls.iter().any(is_heard))
        {
            warnings.push(
                "the password of sessions.store travels in clear: write rediss:// where the store has TLS".to_owned(),
            );
        }
        if !self.vips.is_empty() && self.nodes.len() == 1 {
            warnings.push("there is one node, so that nobody takes its vips over".to_owned());
        }
        if !self.vips.is_empty() && self.nodes.len() > 1 {
            self.warn_of_keys(&mut warnings);
        }
        self.warn_of_sessions(&mut warnings);
        for vip in &self.vips {
            warn_of_versions(vip, &mut warnings);
        }
        self.warn_of_unserved_vips(&mut warnings);
        if let Some(admin) = self.admin.as_ref().filter(|admin| !admin.bind.ip().to_canonical().is_loopback()) {
            warnings.push(format!(
                "admin.bind is {}, so that whoever reaches it can read metrics and status; what changes something needs \
                 the token, which travels in clear",
                admin.bind
            ));
        }
        self.warn_of_probes(&mut warnings);
        self.warn_of_cookies(&mut warnings);
        self.listeners.iter().for_each(|listener| shadows::warn(listener, &mut warnings));
        loops::warn(self, &mut warnings);
        warnings
    }

    /// As [`Config::warnings`], with those that depend on this machine and the node that it is.
    pub fn machine_warnings(&self, node: Option<&Node>) -> Vec<String> {
        let mut warnings = self.warnings();
        warnings.extend(machine::warnings(self, node));
        warnings
    }

    /// Two nodes have vips: what the adverts between them are worth.
    fn warn_of_keys(&self, warnings: &mut Vec<String>) {
        let has_key = self.pair.key_file.is_some() || !self.pair.advert_keys.is_empty();
        if !has_key {
            warnings.push("pair.key_file is not set, so that adverts are not authenticated".to_owned());
        }
        for vip in self.vips.iter().filter(|vip| has_key && vip.transport != Transport::Udp) {
            match vip.authentication {
                Authentication::Enforce => {}
                Authentication::Off => warnings.push(format!(
                    "vip {} has authentication = \"off\" although there is a key, so that anybody on its network can take it",
                    vip.name
                )),
                Authentication::Permissive | Authentication::ReceiveOnly => warnings.push(format!(
                    "vip {} also hears adverts without authentication; write \"enforce\" once every router sends it",
                    vip.name
                )),
            }
        }
        let is_second_of_its_family =
            |node: &Node| node.further_addresses.iter().any(|further| further.is_ipv4() == node.address.is_ipv4());
        if self.pair.key_file.is_none() && self.nodes.iter().any(is_second_of_its_family) {
            warnings.push(
                "pair.key_file is not set, so that no heartbeat runs between further_addresses of the family of address"
                    .to_owned(),
            );
        }
    }

    /// What is lost of sessions and counters without a pair key.
    fn warn_of_sessions(&self, warnings: &mut Vec<String>) {
        if self.pair.key_file.is_some() {
            return;
        }
        let mut warn = |lost: &str| warnings.push(format!("pair.key_file is not set, so that {lost}"));
        let has_table = self.pools.iter().any(|pool| matches!(pool.sticky, Some(Sticky::Table(_))));
        let is_pair = self.nodes.len() > 1;
        if is_pair && has_table && self.sessions.store.is_none() {
            warn("the nodes exchange no sessions, and a failover loses them");
        }
        if is_pair && self.listeners.iter().any(Listener::counts_clients) {
            warn("each node counts for its rate limits alone");
        }
        if self.pools.iter().any(|pool| pool.sticky.is_some()) {
            warn("anybody can work out a server's cookie or another client's key");
        }
    }

    /// A browser keeps one cookie of a name for a host and path: a second pool there would take the first one's away.
    fn warn_of_cookies(&self, warnings: &mut Vec<String>) {
        let mut warned = HashSet::new();
        for listener in &self.listeners {
            let mut by_host = HashMap::new();
            let mut of_any_host = HashMap::new();
            let routes = listener.routes.iter().filter_map(|route| {
                let host = Some(&route.matches.host).filter(|host| **host != HostMatch::Any);
                // Of pools that share requests one cookie of a name is enough: it names the one that a client is kept on.
                Some((host, route.pools().next()?))
            });
            for (host, index) in routes.chain(listener.pool.map(|pool| (None, pool))) {
                let Some(pool) = self.pools.get(index.0) else { continue };
                let Some(Sticky::Cookie(cookie)) = &pool.sticky else { continue };
                let what = (&cookie.name, &cookie.path, &cookie.domain);
                // Routes with a host come first, so that what is for any host finds one that is for some host here.
                let first_of_name: &mut PoolIndex = of_any_host.entry(what).or_insert(index);
                let first = match host {
                    Some(host) => *by_host.entry((what, host)).or_insert(index),
                    None => *first_of_name,
                };
                let Some(other) = self.pools.get(first.0).filter(|_| first != index) else { continue };
                if warned.insert((first, index)) {
                    warnings.push(format!(
                        "pools {} and {} of listener {} both set the cookie {}, and each takes the other's away: name one of them differently",
                        other.name, pool.name, listener.name, cookie.name
                    ));
                }
            }
        }
    }

    fn warn_of_probes(&self, warnings: &mut Vec<String>) {
        let worker = &self.worker;
        if worker.probe_timeout < worker.probe_interval * 2 {
            warnings.push(format!(
                "worker.probe_timeout is {}, less than two of probe_interval, so that one lost probe counts as a hang",
                duration_text(worker.probe_timeout)
            ));
        }
        if !self.vips.is_empty() && worker.probe_timeout > HANG_MAX {
            warnings.push(format!(
                "worker.probe_timeout is {}, and a node whose worker hangs keeps its vips for so long",
                duration_text(worker.probe_timeout)
            ));
        }
    }

    fn warn_of_unserved_vips(&self, warnings: &mut Vec<String>) {
        if self.listeners.is_empty() {
            return;
        }
        let binds: Vec<IpAddr> =
            self.listeners.iter().flat_map(|listener| &listener.bind).map(|bind| bind.ip()).collect();
        for vip in &self.vips {
            // A link-local address is there for the adverts.
            let all = vip.addresses.iter().map(|at| at.network.address());
            let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
                all.filter(|address| !values::is_link_local_v6(*address)).partition(IpAddr::is_ipv4);
            let is_served = |family: &[IpAddr]| family.iter().any(|address| serves(&binds, *address));
            if !is_served(&v4) && !is_served(&v6) {
                warnings.push(format!("no listener is bound to an address of vip {}", vip.name));
                continue;
            }
            for (family, name) in [(v4, "IPv4"), (v6, "IPv6")] {
                if !family.is_empty() && !is_served(&family) {
                    warnings.push(format!("no listener is bound to an {name} address of vip {}", vip.name));
                }
            }
        }
    }
}

/// Whether nobody on a network sees what is sent to a host.
fn is_this_machine(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
}

/// Whether a connect to `address` reaches one of the binds; `[::]` takes IPv4 as well.
fn serves(binds: &[IpAddr], address: IpAddr) -> bool {
    binds.iter().any(|bind| match bind {
        IpAddr::V6(bind) if bind.is_unspecified() => true,
        IpAddr::V4(bind) if bind.is_unspecified() => address.is_ipv4(),
        bind => bind.to_canonical() == address,
    })
}

/// What VRRPv2 costs.
fn warn_of_versions(vip: &Vip, warnings: &mut Vec<String>) {
    let interval = vip.advert_interval.get();
    match vip.version {
        VrrpVersion::V3 => {}
        VrrpVersion::V2 => warnings.push(format!(
            "vip {} speaks VRRPv2, which says whole seconds: a dead node is noticed after more than {}",
            vip.name,
            duration_text(interval * 3)
        )),
        VrrpVersion::Mixed if interval.subsec_nanos() == 0 => {}
        VrrpVersion::Mixed => warnings.push(format!(
            "vip {} has advert_interval {}, and its VRRPv2 adverts say whole seconds, at least 1s",
            vip.name,
            duration_text(interval)
        )),
    }
    if vip.password_file.is_some() {
        warnings.push(format!("the password of vip {} travels in clear: it stops mistakes and nobody else", vip.name));
    }
}
