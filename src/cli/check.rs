//! `baton check`: every mistake of a configuration, or what it would run.

mod routes;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::{
    self, AdvertChecksum, Algorithm, Authentication, Check, ClientAuthMode, Config, FitnessCheck, FitnessSubject,
    HashKey, Listener, LocalNode, NodeHints, OnDown, Pool, Protocol, Role, Scope, Sticky, StickyKey, Tls, TlsVersion,
    Transport, Vip, VrrpVersion, duration_text,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/baton/baton.toml")]
    config: PathBuf,
    /// The node that this machine is; otherwise BATON_NODE or the host name says so
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Check the file alone, not whether this machine has its interfaces, keys and certificates
    #[arg(long)]
    file_only: bool,
}

/// Checks the file and prints what it would run.
///
/// # Errors
/// Every mistake of the file, in one report.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let this_machine = super::ThisMachine::new(arguments.node.clone());
    let hints = this_machine.hints();
    let (config, node) = load(arguments, hints)?;

    super::answer(&summary(&arguments.config.display().to_string(), &config, node.as_ref()))
        .context("failed to print the summary")?;
    let warnings = if arguments.file_only {
        config.warnings()
    } else {
        let node = node.and_then(|node| node.index).and_then(|index| config.nodes.get(index));
        config.machine_warnings(node)
    };
    for warning in warnings {
        super::complain(&format!("warning: {warning}"));
    }
    Ok(())
}

/// With --file-only the file may be meant for other machines, so that it need not have a node for this one; a node that
/// was asked for by name it must have.
fn load(arguments: &Arguments, hints: NodeHints<'_>) -> Result<(Config, Option<LocalNode>), config::Report> {
    if arguments.file_only && hints.flag.is_none() {
        let config = config::load(&arguments.config, Scope::File)?;
        let node = config::choose_node(&config, hints).ok();
        return Ok((config, node));
    }
    let scope = if arguments.file_only { Scope::File } else { Scope::Machine };
    config::load_for_node(&arguments.config, scope, hints).map(|(config, node)| (config, Some(node)))
}

/// What would run. Writing to a `String` cannot fail, so that the results are let go.
fn summary(file: &str, config: &Config, node: Option<&LocalNode>) -> String {
    let mut text = format!("{file} is good\nchecksum {}\n\n", config.checksum);
    describe_nodes(&mut text, config, node);
    for vip in &config.vips {
        describe_vip(&mut text, config, vip);
    }
    for check in &config.fitness {
        describe_fitness(&mut text, config, check);
    }
    describe_events(&mut text, config);
    for listener in &config.listeners {
        describe_listener(&mut text, config, listener);
    }
    for pool in &config.pools {
        describe_pool(&mut text, pool);
    }
    if let Some(admin) = &config.admin {
        let changes = if admin.token_file.is_some() { "changes with a token" } else { "no changes" };
        let _ = writeln!(text, "admin: metrics and the API on {}, {changes}", admin.bind);
    }
    let worker = &config.worker;
    let threads = if worker.threads == 1 { "thread" } else { "threads" };
    let _ = writeln!(
        text,
        "worker: {} {threads} as user {}, probed every {}, hung after {}, drained for {}",
        worker.threads,
        worker.user.as_deref().unwrap_or("baton or nobody"),
        duration_text(worker.probe_interval),
        duration_text(worker.probe_timeout),
        duration_text(worker.drain_timeout),
    );
    text
}

fn describe_nodes(text: &mut String, config: &Config, local: Option<&LocalNode>) {
    match local {
        Some(local) => {
            let noun = if local.index.is_some() { "node " } else { "" };
            let _ = writeln!(text, "this machine is {noun}{}: {}", local.name, local.because);
        }
        None => text.push_str("this machine is none of the nodes\n"),
    }
    for (index, node) in config.nodes.iter().enumerate() {
        let is_local = local.is_some_and(|local| local.index == Some(index));
        let mark = if is_local { ", this machine" } else { "" };
        let addresses: Vec<String> = node.all_addresses().map(|address| address.to_string()).collect();
        let _ = writeln!(text, "node {}: {}, priority {}{mark}", node.name, addresses.join(", "), node.priority);
    }
    match &config.pair.key_file {
        Some(file) => {
            let _ = writeln!(text, "pair key: {}", file.display());
        }
        None if config.nodes.len() > 1 => text.push_str("pair key: none\n"),
        None => {}
    }
    let keys: Vec<String> = config.pair.advert_keys.iter().map(|key| key.id.to_string()).collect();
    if let Some(first) = keys.first() {
        let _ = writeln!(text, "advert keys: {}; {first} signs", keys.join(", "));
    }
    if let Some(witness) = config.pair.witness {
        let _ = writeln!(text, "witness: {witness}");
    }
}

fn describe_vip(text: &mut String, config: &Config, vip: &Vip) {
    let address = |at: &config::VipAddress| match at.interface == vip.interface {
        true => at.network.to_string(),
        false => format!("{} (on {})", at.network, at.interface),
    };
    let addresses: Vec<String> = vip.addresses.iter().map(address).collect();
    let transport = match vip.transport {
        Transport::Unicast => "unicast",
        Transport::Multicast => "multicast",
        Transport::Udp => "udp",
    };
    let elsewhere = match &vip.advert_interface {
        interface if *interface == vip.interface => String::new(),
        interface => format!(" on {interface}"),
    };
    let preference = match vip.prefer.and_then(|index| config.nodes.get(index)) {
        Some(node) if vip.prefer_hold.is_zero() => format!("{} takes it back at once", node.name),
        Some(node) => format!("{} takes it back after {}", node.name, duration_text(vip.prefer_hold)),
        None => "whoever holds it keeps it".to_owned(),
    };
    let _ = writeln!(
        text,
        "vip {}: {} on {}, router id {}, {transport} adverts{elsewhere} every {}; {preference}",
        vip.name,
        addresses.join(", "),
        vip.interface,
        vip.virtual_router_id,
        duration_text(vip.advert_interval.get()),
    );
    let _ = writeln!(text, "  {}", advert_manner(vip));
    let _ = writeln!(text, "  {}", announcements(vip));
}

/// What an advert is made of, and what else departs from the default.
fn advert_manner(vip: &Vip) -> String {
    let mut parts = Vec::new();
    if vip.transport == Transport::Udp {
        parts.push("no VRRP");
    } else {
        parts.push(match vip.version {
            VrrpVersion::V2 => "VRRPv2",
            VrrpVersion::V3 => "VRRPv3",
            VrrpVersion::Mixed => "VRRPv2 and VRRPv3",
        });
        parts.push(match vip.authentication {
            Authentication::Off => "authentication off",
            Authentication::ReceiveOnly => "authentication received alone",
            Authentication::Permissive => "authentication permissive",
            Authentication::Enforce => "authentication enforced",
        });
    }
    if vip.checksum == AdvertChecksum::WithoutPseudoHeader {
        parts.push("checksum without pseudo-header");
    }
    if vip.password_file.is_some() {
        parts.push("with a password");
    }
    if vip.virtual_mac {
        parts.push("virtual MAC");
    }
    if !vip.probe_first {
        parts.push("not probed before the first takeover");
    }
    parts.join(", ")
}

fn announcements(vip: &Vip) -> String {
    let announce = &vip.announce;
    let times = if announce.burst == 1 { "once".to_owned() } else { format!("{} times", announce.burst) };
    let again = match announce.repeat.as_slice() {
        [] => String::new(),
        repeat => {
            let times: Vec<String> = repeat.iter().map(|after| duration_text(*after)).collect();
            format!(", again after {}", times.join(", "))
        }
    };
    match announce.refresh {
        Some(refresh) => format!("announced {times}{again}, then every {}", duration_text(refresh)),
        None => format!("announced {times}{again}"),
    }
}

fn describe_fitness(text: &mut String, config: &Config, check: &FitnessCheck) {
    let subject = match &check.subject {
        FitnessSubject::Gateway { address, interface } => format!("gateway {address} answers on {interface}"),
        FitnessSubject::Command { command } => format!("{} exits with 0", command.first().map_or("", String::as_str)),
        FitnessSubject::File { path, must_exist: true } => format!("{} exists", path.display()),
        FitnessSubject::File { path, must_exist: false } => format!("{} is absent", path.display()),
        FitnessSubject::Process { process } => format!("process {process} runs"),
    };
    let vips: Vec<&str> =
        check.vips.iter().filter_map(|index| config.vips.get(*index)).map(|vip| vip.name.as_str()).collect();
    let _ = writeln!(
        text,
        "fitness {} for {}: {subject}, every {} within {}; unfit after {} failures, fit after {} successes",
        check.name,
        vips.join(", "),
        duration_text(check.interval),
        duration_text(check.timeout),
        check.fall,
        check.rise,
    );
}

fn describe_events(text: &mut String, config: &Config) {
    let events = &config.events;
    let program = events.command.as_ref().and_then(|command| command.first());
    let told: Vec<&str> = program.into_iter().chain(&events.webhook).map(String::as_str).collect();
    if !told.is_empty() {
        let _ = writeln!(
            text,
            "events: to {}, each within {}, at most {} kept",
            told.join(" and "),
            duration_text(events.timeout),
            events.kept_max,
        );
    }
}

fn describe_listener(text: &mut String, config: &Config, listener: &Listener) {
    let binds: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
    let protocol = match (listener.protocol, &listener.tls) {
        (Protocol::Http, None) => "http".to_owned(),
        (Protocol::Http, Some(ended)) => format!("https, {}", tls(ended)),
        (Protocol::Tcp, None) => "tcp".to_owned(),
        (Protocol::Tcp, Some(ended)) => format!("tcp within TLS, {}", tls(ended)),
    };
    let _ = writeln!(
        text,
        "listener {}: {} ({protocol}), at most {} connections, head within {}, idle for {}",
        listener.name,
        binds.join(", "),
        listener.connections_max,
        duration_text(listener.head_timeout),
        duration_text(listener.idle_timeout),
    );
    let pool_name = |index: config::PoolIndex| config.pools.get(index.0).map_or("", |pool| pool.name.as_str());
    routes::describe(text, config, listener);
    let rest = if listener.routes.is_empty() { "everything" } else { "everything else" };
    let _ = match listener.pool {
        Some(pool) => writeln!(text, "  {rest} -> pool {}", pool_name(pool)),
        None if listener.redirect_to_https.is_some() => writeln!(text, "  {rest} -> https"),
        None => writeln!(text, "  {rest} -> 404"),
    };
}

fn tls(tls: &Tls) -> String {
    let files = match (tls.certificates.len(), &tls.certificate_dir) {
        (0, Some(directory)) => format!("certificates in {}", directory.display()),
        (count, Some(directory)) => format!("{count} certificates and those in {}", directory.display()),
        (1, None) => "1 certificate".to_owned(),
        (count, None) => format!("{count} certificates"),
    };
    let version = match tls.min_version {
        TlsVersion::V12 => "",
        TlsVersion::V13 => ", TLS 1.3 alone",
    };
    let clients = match tls.client_auth.as_ref().map(|auth| auth.mode) {
        None => "",
        Some(ClientAuthMode::Require) => ", client certificates required",
        Some(ClientAuthMode::Optional) => ", client certificates optional",
    };
    format!("{files}{version}{clients}")
}

fn describe_pool(text: &mut String, pool: &Pool) {
    let algorithm = algorithm(&pool.algorithm);
    let sticky = pool.sticky.as_ref().map_or_else(|| "not sticky".to_owned(), sticky);
    let _ = writeln!(
        text,
        "pool {}: {algorithm}, {sticky}, connect within {}, response within {}, at most {} idle connections for {}",
        pool.name,
        duration_text(pool.connect_timeout),
        duration_text(pool.response_timeout),
        pool.idle_connections_max,
        duration_text(pool.idle_timeout),
    );
    let _ = writeln!(text, "  {}", health(pool));
    for server in &pool.servers {
        let backup = if server.backup { " (backup)" } else { "" };
        let weight = if server.weight == 1 { String::new() } else { format!(", weight {}", server.weight) };
        let zone = server.zone.as_ref().map_or(String::new(), |zone| format!(", zone {zone}"));
        let most = server.connections_max.map_or(String::new(), |most| format!(", at most {most} requests at once"));
        let _ = writeln!(text, "  server {}: {}{backup}{weight}{zone}{most}", server.name, server.address);
    }
}

fn algorithm(algorithm: &Algorithm) -> String {
    let word = algorithm.word();
    match algorithm {
        Algorithm::ConsistentHash(hash) => {
            let on = match &hash.key {
                HashKey::Address => "the address".to_owned(),
                HashKey::Header { name } => format!("header {name}"),
                HashKey::Cookie { name } => format!("cookie {name}"),
                HashKey::Query { name } => format!("query parameter {name}"),
                HashKey::Path => "the path".to_owned(),
            };
            let bound = hash.balance_factor.map_or(String::new(), |factor| format!(" within {factor} %"));
            format!("{word} on {on}{bound}")
        }
        Algorithm::Resource(reports) => format!("{word} by header {}", reports.header),
        Algorithm::RoundRobin
        | Algorithm::WeightedRoundRobin
        | Algorithm::LeastConnections
        | Algorithm::LeastResponseTime
        | Algorithm::IpHash
        | Algorithm::Random
        | Algorithm::PowerOfTwo => word.to_owned(),
    }
}

fn sticky(sticky: &Sticky) -> String {
    let (by, life, limit) = match sticky {
        Sticky::Cookie(cookie) => {
            let life = match cookie.ttl {
                Some(ttl) => format!("for {}", duration_text(ttl)),
                None => "until the browser is closed".to_owned(),
            };
            (format!("cookie {}", cookie.name), life, cookie.ttl_max)
        }
        Sticky::Table(table) => {
            let by = match &table.key {
                StickyKey::AppCookie { name } => format!("the application's cookie {name}"),
                StickyKey::SourceIp { prefix_v4, prefix_v6 } => {
                    format!("source address (/{prefix_v4}, IPv6 /{prefix_v6})")
                }
                StickyKey::Header { name } => format!("header {name}"),
                StickyKey::Query { name } => format!("query parameter {name}"),
                StickyKey::TlsSni => "the name in the TLS handshake".to_owned(),
                StickyKey::TlsSessionId => "TLS session id".to_owned(),
            };
            (by, format!("for {}, {} entries", duration_text(table.ttl), table.entries_max), table.ttl_max)
        }
    };
    let limit = limit.map(|limit| format!(", {} at most", duration_text(limit))).unwrap_or_default();
    let on_down = match sticky.on_down() {
        OnDown::Rebalance => "",
        OnDown::Fail => ", 503 while the server is down",
    };
    format!("sticky by {by} {life}{limit}{on_down}")
}

fn health(pool: &Pool) -> String {
    let Some(health) = &pool.health else {
        return "no health checks, every server counts as up".to_owned();
    };
    let check = words(&health.check);
    format!(
        "health: {check} every {} within {}; down after {} failures, up after {} successes",
        duration_text(health.interval),
        duration_text(health.timeout),
        health.fall,
        health.rise,
    )
}

/// What a health check does, in words.
fn words(check: &Check) -> String {
    let with = |what: &str, name: Option<&String>| name.map(|name| format!(" {what} {name}")).unwrap_or_default();
    let role = |role: &Role| match role {
        Role::Any => "",
        Role::Primary => ", which has to be the primary",
        Role::Replica => ", which has to be a replica",
    };
    match check {
        Check::Http(http) => format!("{} {}{}", http.method, http.path, with("with host", http.host.as_ref())),
        Check::Tcp { send, expect: None } if send.is_empty() => "a TCP connect".to_owned(),
        Check::Tcp { .. } => "an exchange over TCP".to_owned(),
        Check::Tls { .. } => "a TLS handshake".to_owned(),
        Check::Grpc { service, .. } if service.is_empty() => "gRPC health of the server".to_owned(),
        Check::Grpc { service, .. } => format!("gRPC health of {service}"),
        Check::Dns(dns) => format!("a DNS question for {}", if dns.name.is_empty() { "." } else { &dns.name }),
        Check::Udp { .. } => "a UDP datagram".to_owned(),
        Check::Postgres { user, role: wanted, .. } => format!("a login to PostgreSQL as {user}{}", role(wanted)),
        Check::Mysql { user: None, .. } => "the greeting of MySQL".to_owned(),
        Check::Mysql { user: Some(user), role: wanted } => format!("a login to MySQL as {user}{}", role(wanted)),
        Check::Redis { role: wanted, .. } => format!("a PING of Redis{}", role(wanted)),
        Check::Smtp => "the greeting of SMTP".to_owned(),
        Check::Command(command) => format!("the command {}", command.first().map_or("", String::as_str)),
    }
}
