//! `baton check`: every mistake of a configuration, or what it would run.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::{
    self, Algorithm, Check, Config, Listener, LocalNode, NodeHints, Pool, Route, Scope, Sticky, Transport, Vip,
    duration_text,
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
    for listener in &config.listeners {
        describe_listener(&mut text, config, listener);
    }
    for pool in &config.pools {
        describe_pool(&mut text, pool);
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
        let _ = writeln!(text, "node {}: {}, priority {}{mark}", node.name, node.address, node.priority);
    }
    match &config.pair.key_file {
        Some(file) => {
            let _ = writeln!(text, "pair key: {}", file.display());
        }
        None if config.nodes.len() > 1 => text.push_str("pair key: none\n"),
        None => {}
    }
}

fn describe_vip(text: &mut String, config: &Config, vip: &Vip) {
    let addresses: Vec<String> = vip.addresses.iter().map(|at| at.network.to_string()).collect();
    let transport = match vip.transport {
        Transport::Unicast => "unicast",
        Transport::Multicast => "multicast",
        Transport::Udp => "udp",
    };
    let preference = match vip.prefer.and_then(|index| config.nodes.get(index)) {
        Some(node) => format!("{} takes it back when it can", node.name),
        None => "whoever holds it keeps it".to_owned(),
    };
    let _ = writeln!(
        text,
        "vip {}: {} on {}, router id {}, {transport} adverts every {}; {preference}",
        vip.name,
        addresses.join(", "),
        vip.interface,
        vip.virtual_router_id,
        duration_text(vip.advert_interval.get()),
    );
}

fn describe_listener(text: &mut String, config: &Config, listener: &Listener) {
    let binds: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
    let protocol = match &listener.tls {
        Some(tls) if tls.certificates.len() == 1 => "https, 1 certificate".to_owned(),
        Some(tls) => format!("https, {} certificates", tls.certificates.len()),
        None => "http".to_owned(),
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
    for route in &listener.routes {
        let _ = writeln!(text, "  {} -> pool {}", matched(route), pool_name(route.pool));
    }
    let rest = if listener.routes.is_empty() { "everything" } else { "everything else" };
    let _ = match listener.pool {
        Some(pool) => writeln!(text, "  {rest} -> pool {}", pool_name(pool)),
        None => writeln!(text, "  {rest} -> 404"),
    };
}

fn matched(route: &Route) -> String {
    let path = route.path_prefix.as_deref().unwrap_or("");
    match route.host.as_deref() {
        Some(host) => format!("{host}{}", if path.is_empty() { "/" } else { path }),
        None if path.is_empty() => "any request".to_owned(),
        None => format!("any host, {path}"),
    }
}

fn describe_pool(text: &mut String, pool: &Pool) {
    let algorithm = match pool.algorithm {
        Algorithm::RoundRobin => "round_robin",
    };
    let sticky = match &pool.sticky {
        Some(Sticky::Cookie { name, ttl: Some(ttl) }) => format!("sticky by cookie {name} for {}", duration_text(*ttl)),
        Some(Sticky::Cookie { name, ttl: None }) => format!("sticky by cookie {name} until the browser is closed"),
        None => "not sticky".to_owned(),
    };
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
        let _ = writeln!(text, "  server {}: {}{backup}", server.name, server.address);
    }
}

fn health(pool: &Pool) -> String {
    let Some(health) = &pool.health else {
        return "no health checks, every server counts as up".to_owned();
    };
    let check = match &health.check {
        Check::Http { path, host: Some(host) } => format!("GET {path} with host {host}"),
        Check::Http { path, host: None } => format!("GET {path}"),
        Check::Tcp => "a TCP connect".to_owned(),
    };
    format!(
        "health: {check} every {} within {}; down after {} failures, up after {} successes",
        duration_text(health.interval),
        duration_text(health.timeout),
        health.fall,
        health.rise,
    )
}
