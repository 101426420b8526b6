//! What differs between the configuration in use and the next one: what an operator is told of a reload, and what only a
//! start can change.

use super::{Config, Listener, Pool, PoolIndex};

/// What a reload comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is otherwise, a line each.
    pub lines: Vec<String>,
    /// Keys whose values a reload cannot change.
    pub fixed: Vec<&'static str>,
}

impl Changes {
    /// From one configuration to the next.
    pub fn between(before: &Config, next: &Config) -> Self {
        Self { lines: lines(before, next), fixed: fixed(before, next) }
    }
}

/// Keys that differ and need a start.
fn fixed(before: &Config, next: &Config) -> Vec<&'static str> {
    let (worker, next_worker) = (&before.worker, &next.worker);
    let measures = |config: &Config| config.worker.limits.memory_max.is_some();
    let differs = [
        ("[[node]]", before.nodes != next.nodes),
        ("[pair]", before.pair != next.pair),
        ("[[vip]]", before.vips != next.vips),
        ("[[fitness]]", before.fitness != next.fitness),
        ("[events]", before.events != next.events),
        ("[admin]", before.admin != next.admin),
        ("sessions.store", before.sessions.store != next.sessions.store),
        ("sessions.snapshot_interval", before.sessions.snapshot_interval != next.sessions.snapshot_interval),
        ("worker.threads", worker.threads != next_worker.threads),
        ("worker.user", worker.user != next_worker.user),
        ("worker.probe_interval", worker.probe_interval != next_worker.probe_interval),
        ("worker.probe_timeout", worker.probe_timeout != next_worker.probe_timeout),
        ("worker.memory_max, from or to none", measures(before) != measures(next)),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

fn lines(before: &Config, next: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for listener in &next.listeners {
        let name = &listener.name;
        match before.listeners.iter().find(|known| known.name == *name) {
            None => lines.push(format!("listener {name} is new on {}", addresses(listener))),
            Some(known) => lines.extend(listener_line((before, known), (next, listener))),
        }
    }
    let is_gone = |known: &&Listener| !next.listeners.iter().any(|listener| listener.name == known.name);
    lines.extend(before.listeners.iter().filter(is_gone).map(|known| format!("listener {} is gone", known.name)));
    for pool in &next.pools {
        match before.pools.iter().find(|known| known.name == pool.name) {
            None => lines.push(format!("pool {} is new", pool.name)),
            Some(known) => lines.extend(pool_line(known, pool)),
        }
    }
    let is_gone = |known: &&Pool| !next.pools.iter().any(|pool| pool.name == known.name);
    lines.extend(before.pools.iter().filter(is_gone).map(|known| format!("pool {} is gone", known.name)));
    if before.worker != next.worker {
        lines.push("[worker] has changed".to_owned());
    }
    lines
}

fn addresses(listener: &Listener) -> String {
    listener.bind.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn listener_line((before, known): (&Config, &Listener), (next, listener): (&Config, &Listener)) -> Option<String> {
    let mut what = Vec::new();
    let added = listener.bind.iter().filter(|address| !known.bind.contains(address));
    what.extend(added.map(|address| format!("+{address}")));
    let removed = known.bind.iter().filter(|address| !listener.bind.contains(address));
    what.extend(removed.map(|address| format!("-{address}")));
    if known.routes != listener.routes {
        what.push("routes".to_owned());
    }
    if known.tls != listener.tls {
        what.push("tls".to_owned());
    }
    // A pool that has another place in the file is the same pool.
    if pool_name(before, known.pool) != pool_name(next, listener.pool) {
        what.push("pool".to_owned());
    }
    let alike = Listener {
        bind: listener.bind.clone(),
        routes: listener.routes.clone(),
        tls: listener.tls.clone(),
        pool: listener.pool,
        ..known.clone()
    };
    if alike != *listener {
        what.push("other settings".to_owned());
    }
    (!what.is_empty()).then(|| format!("listener {} has changed: {}", listener.name, what.join(", ")))
}

fn pool_name(config: &Config, index: Option<PoolIndex>) -> Option<&str> {
    config.pools.get(index?.0).map(|pool| pool.name.as_str())
}

fn pool_line(known: &Pool, pool: &Pool) -> Option<String> {
    let mut what = Vec::new();
    for server in &pool.servers {
        match known.servers.iter().find(|before| before.name == server.name) {
            None => what.push(format!("+{}", server.name)),
            Some(before) if before != server => what.push(server.name.clone()),
            Some(_) => {}
        }
    }
    let is_gone = |name: &str| !pool.servers.iter().any(|server| server.name == name);
    let gone = known.servers.iter().filter(|server| is_gone(&server.name));
    what.extend(gone.map(|server| format!("-{}", server.name)));
    if (Pool { servers: pool.servers.clone(), ..known.clone() }) != *pool {
        what.push("settings".to_owned());
    }
    if what.is_empty() && known.servers != pool.servers {
        what.push("order of servers".to_owned());
    }
    (!what.is_empty()).then(|| format!("pool {} has changed: {}", pool.name, what.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const LISTENER: &str = "[[listener]]\nname = \"web\"\nbind = [\"127.0.0.1:80\"]\npool = \"app\"\n";
    const POOL: &str = "[[pool]]\nname = \"app\"\nservers = [{ name = \"a\", address = \"10.0.0.1:80\" }, \
                        { name = \"b\", address = \"10.0.0.2:80\" }]\n";

    fn changes(before: &str, next: &str) -> Changes {
        let config = |text: &str| config::parse(text, Path::new("/f")).unwrap();
        Changes::between(&config(before), &config(next))
    }

    fn lines(before: &str, next: &str) -> Vec<String> {
        let Changes { lines, fixed } = changes(before, next);
        assert_eq!(fixed, [""; 0]);
        lines
    }

    #[test]
    fn what_is_only_written_otherwise_is_no_change() {
        assert_eq!(changes(&format!("{LISTENER}{POOL}"), &format!("# new\n{POOL}{LISTENER}")), Changes::default());
        let other = "[[pool]]\nname = \"other\"\nservers = [{ name = \"a\", address = \"10.0.0.3:80\" }]\n";
        let (before, next) = (format!("{LISTENER}{POOL}{other}"), format!("{LISTENER}{other}{POOL}"));
        assert_eq!(changes(&before, &next), Changes::default());
    }

    #[test]
    fn listeners_and_pools_are_told_by_name_and_servers_within_them() {
        let before = format!("{LISTENER}{POOL}");
        let next = before.replace("127.0.0.1:80", "127.0.0.1:81").replace("name = \"b\"", "name = \"c\"");
        let expected = ["listener web has changed: +127.0.0.1:81, -127.0.0.1:80", "pool app has changed: +c, -b"];
        assert_eq!(lines(&before, &next), expected);
        let next = before.replace("web", "www").replace("10.0.0.1:80", "10.0.0.9:80");
        let expected = ["listener www is new on 127.0.0.1:80", "listener web is gone", "pool app has changed: a"];
        assert_eq!(lines(&before, &next), expected);
        let next = format!("{before}connect_timeout = \"7s\"\n");
        assert_eq!(lines(&before, &next), ["pool app has changed: settings"]);
        let next = format!("{before}[[route]]\nlistener = \"web\"\nhost = \"x.example\"\npool = \"app\"\n");
        assert_eq!(lines(&before, &next), ["listener web has changed: routes"]);
    }

    #[test]
    fn keys_that_need_a_start_are_named() {
        let before = format!("{LISTENER}{POOL}");
        let next = format!("{before}[worker]\nthreads = 3\nuser = \"www-data\"\nmemory_max = \"1GiB\"\n");
        let expected = ["worker.threads", "worker.user", "worker.memory_max, from or to none"];
        assert_eq!(changes(&format!("{before}[worker]\nthreads = 2\n"), &next).fixed, expected);
        let next = format!("{before}[admin]\nbind = \"127.0.0.1:9909\"\n");
        assert_eq!(changes(&before, &next).fixed, ["[admin]"]);
        assert_eq!(changes(&before, &format!("{before}[worker]\ndrain_timeout = \"1s\"\n")).fixed, [""; 0]);
    }
}
