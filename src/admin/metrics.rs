//! The metrics of a node, in the text format 0.0.4 of Prometheus. All of them come from the status that `baton status` shows.

mod passive;
mod protection;
mod traffic;

use std::fmt::{Display, Write as _};

use crate::status::{
    ArchiveStatus, CertificateStatus, DelaysStatus, NodeStatus, OcspStatus, PoolStatus, Role, SessionPoolStatus,
    StoreStatus, SyncStatus, VipStatus,
};

pub use self::traffic::render_traffic;

/// The Content-Type of what [`render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A label and its value.
type Label<'a> = (&'a str, &'a str);

/// Everything that a node counts and measures.
pub fn render(status: &NodeStatus) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    text.family("baton_info", "gauge", "The running program and its configuration; always 1.");
    let info = [
        ("node", status.node.as_str()),
        ("version", status.version.as_str()),
        ("config_checksum", status.config_checksum.as_str()),
    ];
    text.sample("baton_info", &info, 1);
    text.one(
        "baton_warnings",
        "gauge",
        "What is less than it should be, as `baton status` says it.",
        status.warnings.len(),
    );
    worker(&mut text, status);
    vips(&mut text, &status.vips);
    if let Some(peer) = &status.peer {
        text.family("baton_peer_last_heard_age_seconds", "gauge", "Time since anything valid of the other node came.");
        if let Some(ms) = peer.last_heard_ms {
            text.sample("baton_peer_last_heard_age_seconds", &[("peer", &peer.node)], seconds_of_ms(ms));
        }
    }
    if let Some(sync) = &status.sync {
        of_sync(&mut text, sync);
    }
    sessions(&mut text, &status.sessions.pools);
    if let Some(archive) = &status.sessions.archive {
        of_archive(&mut text, archive);
    }
    if let Some(store) = &status.sessions.store {
        of_store(&mut text, store);
    }
    protection::render(&mut text, status);
    mirrors(&mut text, &status.pools);
    certificates(&mut text, &status.certificates);
    servers(&mut text, &status.pools);
    passive::render(&mut text, &status.pools);
    others(&mut text, status);
    text.0
}

fn certificates(text: &mut Text, certificates: &[CertificateStatus]) {
    const NAME: &str = "baton_certificate_not_after_timestamp_seconds";
    text.family(NAME, "gauge", "When a certificate expires, in seconds since 1970, by listener and file.");
    for certificate in certificates {
        let labels = [
            ("listener", certificate.listener.as_str()),
            ("file", certificate.file.as_str()),
            ("subject", certificate.subject.as_str()),
        ];
        text.sample(NAME, &labels, certificate.not_after_s);
    }
    const OCSP: &str = "baton_certificate_ocsp_next_update_timestamp_seconds";
    text.family(OCSP, "gauge", "When the OCSP response stapled to a certificate expires, in seconds since 1970.");
    for certificate in certificates {
        if let OcspStatus::Stapled { until_s } = certificate.ocsp {
            let labels = [("listener", certificate.listener.as_str()), ("file", certificate.file.as_str())];
            text.sample(OCSP, &labels, until_s);
        }
    }
}

fn worker(text: &mut Text, status: &NodeStatus) {
    let worker = &status.worker;
    let is_up = u8::from(worker.state == "running");
    text.one("baton_worker_up", "gauge", "Whether the worker serves.", is_up);
    text.one(
        "baton_worker_restarts_total",
        "counter",
        "Restarts of the worker since the guard started.",
        worker.restarts,
    );
    text.one("baton_worker_threads", "gauge", "Threads that serve clients.", worker.threads);
    text.one("baton_connections", "gauge", "Open client connections.", worker.connections);
    text.one("baton_requests_total", "counter", "Requests answered since the worker started.", worker.requests);
}

fn vips(text: &mut Text, vips: &[VipStatus]) {
    text.family("baton_vip_role", "gauge", "1 for the role that this node has for the VIP, 0 for the others.");
    for vip in vips {
        for role in [Role::Active, Role::Standby, Role::Unfit] {
            let labels = [("vip", vip.name.as_str()), ("role", &role.to_string())];
            text.sample("baton_vip_role", &labels, u8::from(vip.role == role));
        }
    }
    let mut each = |name, kind, help, value: fn(&VipStatus) -> u64| {
        text.family(name, kind, help);
        vips.iter().for_each(|vip| text.sample(name, &[("vip", &vip.name)], value(vip)));
    };
    each("baton_vip_fit", "gauge", "Whether nothing keeps this node from taking the VIP.", |vip| {
        u64::from(vip.faults.is_empty())
    });
    each("baton_vip_transitions_total", "counter", "Changes of role since the guard started.", |vip| vip.transitions);
    each("baton_vip_epoch", "gauge", "Takeovers so far, by whichever node.", |vip| u64::from(vip.epoch));
    each("baton_vip_adverts_sent_total", "counter", "Adverts sent.", |vip| vip.adverts_sent);
    each("baton_vip_adverts_received_total", "counter", "Valid adverts received.", |vip| vip.adverts_received);
    each("baton_vip_addresses_restored_total", "counter", "Addresses put back that somebody had removed.", |vip| {
        vip.addresses_restored
    });
    each(
        "baton_vip_address_conflicts_total",
        "counter",
        "Times that another machine had one of the addresses.",
        |vip| vip.address_conflicts,
    );
    text.family("baton_vip_adverts_dropped_total", "counter", "Adverts dropped, by reason.");
    for vip in vips {
        for (reason, count) in &vip.adverts_dropped {
            text.sample("baton_vip_adverts_dropped_total", &[("vip", &vip.name), ("reason", reason)], count);
        }
    }
    text.family("baton_vip_path_last_heard_age_seconds", "gauge", "Time since the other node was heard on a path.");
    for vip in vips {
        for (path, ms) in vip.paths.iter().filter_map(|path| Some((path, path.last_heard_ms?))) {
            let labels = [("vip", vip.name.as_str()), ("path", path.name.as_str())];
            text.sample("baton_vip_path_last_heard_age_seconds", &labels, seconds_of_ms(ms));
        }
    }
}

fn of_sync(text: &mut Text, sync: &SyncStatus) {
    text.one("baton_sync_connected", "gauge", "Whether the nodes are connected.", u8::from(sync.protocol != 0));
    let in_sync = u8::from(sync.in_sync);
    text.one("baton_sync_in_sync", "gauge", "Whether each node has the sessions that the other has.", in_sync);
    let help = "Entries that changed here and are not acknowledged yet.";
    text.one("baton_sync_lag_entries", "gauge", help, sync.lag_entries);
    let help = "Time since the oldest change that is not acknowledged yet.";
    text.one("baton_sync_lag_seconds", "gauge", help, seconds_of_us(sync.lag_us));
    let help = "The longest such time in the last ten seconds.";
    text.one("baton_sync_lag_max_seconds", "gauge", help, seconds_of_us(sync.lag_max_us));
    text.histogram("baton_sync_delay_seconds", "How long changes took to be acknowledged.", &sync.delays);
    let help = "Whether the other node runs another configuration.";
    text.one("baton_sync_config_differs", "gauge", help, u8::from(sync.config_differs));
    let directions = [("sent", &sync.snapshot_sent), ("received", &sync.snapshot_received)];
    text.family("baton_sync_snapshot_entries", "gauge", "Entries of the last snapshot that are done.");
    for (direction, progress) in directions {
        text.sample("baton_sync_snapshot_entries", &[("direction", direction)], progress.done);
    }
    text.family("baton_sync_snapshot_entries_expected", "gauge", "Entries that the last snapshot has.");
    for (direction, progress) in directions {
        text.sample("baton_sync_snapshot_entries_expected", &[("direction", direction)], progress.total);
    }
    text.one("baton_sync_entries_sent_total", "counter", "Entries sent since the worker started.", sync.entries_sent);
    let help = "Entries received since the worker started.";
    text.one("baton_sync_entries_received_total", "counter", help, sync.entries_received);
    let help = "Of these, entries that were expired, or of pools and servers that this node does not have.";
    text.one("baton_sync_entries_useless_total", "counter", help, sync.entries_useless);
    let help = "Connections to the other node that ended since the worker started.";
    text.one("baton_sync_disconnects_total", "counter", help, sync.disconnects);
    text.family("baton_sync_refused_total", "counter", "Who was refused or cut off on the sync port, by reason.");
    for (reason, count) in &sync.refused {
        text.sample("baton_sync_refused_total", &[("reason", reason)], count);
    }
}

fn sessions(text: &mut Text, pools: &[SessionPoolStatus]) {
    text.family("baton_sessions", "gauge", "Sessions in the table, by server.");
    for pool in pools {
        for server in &pool.by_server {
            text.sample("baton_sessions", &[("pool", &pool.pool), ("server", &server.server)], server.entries);
        }
    }
    let mut each = |name, kind, help, value: fn(&SessionPoolStatus) -> u64| {
        text.family(name, kind, help);
        pools.iter().for_each(|pool| text.sample(name, &[("pool", &pool.pool)], value(pool)));
    };
    each("baton_sessions_limit", "gauge", "Sessions that the pool may have.", |pool| pool.entries_max);
    each("baton_sessions_evicted_total", "counter", "Sessions that had to go because the pool was full.", |pool| {
        pool.evicted
    });
    each("baton_sessions_expired_total", "counter", "Sessions whose time had come.", |pool| pool.expired);
}

fn of_archive(text: &mut Text, archive: &ArchiveStatus) {
    let help = "Sessions that came back from the disk when the worker started.";
    text.one("baton_archive_restored_sessions", "gauge", help, archive.restored);
    text.one("baton_archive_sessions", "gauge", "Sessions in the last copy on the disk.", archive.entries);
    text.one("baton_archive_size_bytes", "gauge", "Size of the last copy on the disk.", archive.bytes);
    text.family("baton_archive_age_seconds", "gauge", "Time since the last copy was written.");
    if let Some(ms) = archive.written_ms {
        text.sample("baton_archive_age_seconds", &[], seconds_of_ms(ms));
    }
    let is_failing = u8::from(archive.last_error.is_some());
    text.one("baton_archive_failing", "gauge", "Whether the copy could not be written or read last.", is_failing);
}

fn of_store(text: &mut Text, store: &StoreStatus) {
    let is_connected = u8::from(store.state == "connected");
    text.one("baton_store_connected", "gauge", "Whether the session store answers.", is_connected);
    let mut count = |name, help, value| text.one(name, "counter", help, value);
    count("baton_store_lookups_total", "Questions asked of the session store.", store.lookups);
    count("baton_store_hits_total", "Questions that found a session.", store.hits);
    count("baton_store_timeouts_total", "Questions that were not answered in time.", store.timeouts);
    count("baton_store_hashed_total", "Requests that were placed by hashing, without the store.", store.hashed);
}

/// What became of copies of requests, of pools that get any.
fn mirrors(text: &mut Text, pools: &[PoolStatus]) {
    let mirrors = || pools.iter().filter_map(|pool| Some((pool.name.as_str(), pool.mirrored?)));
    if mirrors().next().is_none() {
        return;
    }
    text.family("baton_mirrored_requests_total", "counter", "Copies of requests for the pool, by what became of them.");
    for (pool, mirrored) in mirrors() {
        let outcomes = [
            ("answered", mirrored.answered),
            ("failed", mirrored.failed),
            ("too_large", mirrored.too_large),
            ("busy", mirrored.busy),
            ("broken_off", mirrored.broken_off),
        ];
        for (outcome, count) in outcomes {
            text.sample("baton_mirrored_requests_total", &[("pool", pool), ("outcome", outcome)], count);
        }
    }
}

fn servers(text: &mut Text, pools: &[PoolStatus]) {
    let servers = || pools.iter().flat_map(|pool| pool.servers.iter().map(|server| (pool.name.as_str(), server)));
    text.family("baton_server_requests_total", "counter", "Requests sent to the server since the worker started.");
    for (pool, server) in servers() {
        text.sample("baton_server_requests_total", &[("pool", pool), ("server", &server.name)], server.requests);
    }
    text.family("baton_server_up", "gauge", "Whether the server is healthy.");
    for (pool, server) in servers() {
        text.sample("baton_server_up", &[("pool", pool), ("server", &server.name)], u8::from(server.up));
    }
    let help = "The weight of the server now, by slow start and what it says of itself.";
    text.family("baton_server_weight", "gauge", help);
    for (pool, server) in servers() {
        text.sample("baton_server_weight", &[("pool", pool), ("server", &server.name)], server.effective_weight);
    }
    let help = "Whether servers of the pool are used that are not healthy, since so few are.";
    text.family("baton_pool_panicking", "gauge", help);
    for pool in pools {
        text.sample("baton_pool_panicking", &[("pool", &pool.name)], u8::from(pool.panicking));
    }
    text.family("baton_server_admin", "gauge", "1 for what an operator has ordered of the server, 0 for the rest.");
    for (pool, server) in servers() {
        for state in ["enabled", "draining", "disabled"] {
            let labels = [("pool", pool), ("server", server.name.as_str()), ("state", state)];
            text.sample("baton_server_admin", &labels, u8::from(server.admin == state));
        }
    }
}

fn others(text: &mut Text, status: &NodeStatus) {
    if let Some(events) = &status.events {
        text.one("baton_events_waiting", "gauge", "Events that somebody has still to be told of.", events.spooled);
        let help = "Events that everybody has been told of since the guard started.";
        text.one("baton_events_delivered_total", "counter", help, events.delivered);
        let help = "Events that had to go undelivered since then.";
        text.one("baton_events_dropped_total", "counter", help, events.dropped);
    }
    if let Some(witness) = &status.witness {
        let is_reachable = u8::from(witness.reachable);
        text.one("baton_witness_reachable", "gauge", "Whether the witness has answered lately.", is_reachable);
    }
}

fn seconds_of_ms(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

fn seconds_of_us(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64()
}

/// The page as it grows. Writing to a `String` cannot fail, so that the results are let go.
struct Text(String);

impl Text {
    /// Begins a metric: its samples have to follow.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, content)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, Escaped(content));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// A histogram of times. Classes on the page hold those below as well.
    fn histogram(&mut self, name: &str, help: &str, delays: &DelaysStatus) {
        self.family(name, "histogram", help);
        let (bucket, mut count) = (format!("{name}_bucket"), 0);
        let bounds = delays.bounds_us.iter().map(|bound| seconds_of_us(*bound).to_string());
        for (bound, of_class) in bounds.chain(["+Inf".to_owned()]).zip(&delays.counts) {
            count += of_class;
            self.sample(&bucket, &[("le", &bound)], count);
        }
        self.sample(&format!("{name}_sum"), &[], seconds_of_us(delays.sum_us));
        self.sample(&format!("{name}_count"), &[], count);
    }

    /// A metric with one sample.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// The value of a label, as the format wants it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests;
