//! `baton status`: how this node is, for people and for programs.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use crate::guard::control::{self, Answer, Request};
use crate::status::{
    ArchiveStatus, BreakerStatus, CertificateStatus, DiscoveryStatus, LoadStatus, NodeStatus, OcspStatus, PoolStatus,
    Role, ServerStatus, SessionPoolStatus, StoreStatus, SyncStatus, VerdictStatus, VipStatus,
};

/// Time that the guard gets for its answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// Time after which a question is put again that a program which has gone did not answer.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Where the node keeps its control socket
    #[arg(long, value_name = "DIR", default_value = control::RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

/// Asks the guard and prints what it says.
///
/// # Errors
/// When no guard answers: whether none runs, or it is another user's, or it hangs.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Answer::Status(status) = ask(&arguments.runtime_dir, &Request::Status)? else {
        bail!("the guard answered something else than was asked");
    };
    let text = if arguments.json { serde_json::to_string_pretty(&status)? + "\n" } else { describe(&status) };
    super::answer(&text).context("failed to print the status")
}

pub(super) fn ask(runtime_dir: &Path, request: &Request) -> anyhow::Result<Answer> {
    ask_patiently(runtime_dir, request, PATIENCE)
}

/// As [`ask`], of what may take as long as that.
pub(super) fn ask_patiently(runtime_dir: &Path, request: &Request, patience: Duration) -> anyhow::Result<Answer> {
    let deadline = Instant::now() + patience;
    loop {
        match control::request(runtime_dir, request, patience) {
            // Another program has just taken over in the guard's process, and has not heard the question.
            Err(error) if is_of_one_gone(&error) && Instant::now() < deadline => {
                std::thread::sleep(AGAIN_AFTER);
            }
            result => return result.map_err(|error| explained(runtime_dir, patience, error)),
        }
    }
}

fn is_of_one_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn explained(runtime_dir: &Path, patience: Duration, error: io::Error) -> anyhow::Error {
    let path = control::socket_path(runtime_dir);
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow!("no baton runs here: nothing answers on {} (start it with `baton run`)", path.display())
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("{} may only be opened by the user that runs baton: try again as root", path.display())
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            anyhow!("the guard does not answer on {} within {} s", path.display(), patience.as_secs())
        }
        // It answered, and says itself what it did not do and why.
        io::ErrorKind::Other => anyhow!("{error}"),
        _ => anyhow!("failed to ask the guard on {}: {error}", path.display()),
    }
}

/// What a person reads. Writing to a `String` cannot fail, so that the results are let go.
fn describe(status: &NodeStatus) -> String {
    let mut text =
        format!("node {}   baton {}   config {}\n", status.node, status.version, short(&status.config_checksum));
    if let Some(refused) = &status.refused_reload {
        let (seconds, reason) = (refused.age_ms / 1_000, refused.reason.replace('\n', "\n  "));
        let _ = writeln!(
            text,
            "the last reload was refused {seconds} s ago, and the configuration before is in use: {reason}"
        );
    }
    for vip in &status.vips {
        describe_vip(&mut text, vip);
    }
    if let Some(peer) = &status.peer {
        let heard = match peer.last_heard_ms {
            Some(ms) => format!(": heard {} ago", time(ms)),
            // There is no heartbeat to hear.
            None if status.vips.is_empty() => String::new(),
            None => ": never heard".to_owned(),
        };
        let _ = writeln!(text, "\npeer {} at {}{heard}", peer.node, peer.address);
    }
    if let Some(sync) = &status.sync {
        describe_sync(&mut text, sync);
    }
    let worker = &status.worker;
    let pid = worker.pid.map_or(String::new(), |pid| format!(", pid {pid}"));
    let _ = writeln!(
        text,
        "\nworker {}{pid}, {} threads, {} connections, {} requests, {} restarts",
        worker.state, worker.threads, worker.connections, worker.requests, worker.restarts
    );
    if status.is_taking_over {
        let _ = writeln!(text, "  it is to take over from the worker before, which serves until then");
    }
    if worker.finishing > 0 {
        let _ = writeln!(text, "  {} workers before it finish what they have", worker.finishing);
    }
    describe_load(&mut text, &worker.load);
    if let Some(reason) = &worker.last_exit {
        let _ = writeln!(text, "  last exit: {reason}");
    }
    for listener in &status.listeners {
        let bind: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "\nlistener {} {} {}", listener.name, listener.protocol, bind.join(" "));
        if listener.rate_limited > 0 {
            let _ = writeln!(text, "  {} requests were over the rate limit", listener.rate_limited);
        }
        let others = listener.refused.iter().filter(|(reason, count)| **count > 0 && *reason != "rate_limit");
        let others: Vec<_> = others.map(|(reason, count)| format!("{} {count}", reason.replace('_', " "))).collect();
        if !others.is_empty() {
            let _ = writeln!(text, "  refused: {}", others.join(", "));
        }
        for certificate in status.certificates.iter().filter(|certificate| certificate.listener == listener.name) {
            describe_certificate(&mut text, certificate);
        }
    }
    for pool in &status.pools {
        let sessions = status.sessions.pools.iter().find(|sessions| sessions.pool == pool.name);
        describe_pool(&mut text, pool, sessions);
    }
    if let Some(archive) = &status.sessions.archive {
        describe_archive(&mut text, archive);
    }
    if let Some(store) = &status.sessions.store {
        describe_store(&mut text, store);
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "\nwarning: {warning}");
    }
    text
}

/// How much the worker takes on, where there are limits.
fn describe_load(text: &mut String, load: &LoadStatus) {
    if let Some(max) = load.connections_max_by_open_files {
        let _ = writeln!(
            text,
            "  {max} connections at most, by the limit on open files (LimitNOFILE): connections_max is higher"
        );
    }
    if let Some(max) = load.memory_bytes_max {
        let pressure = match load.pressure.as_str() {
            "shedding" => ", requests are answered 503",
            "closed" => ", requests are answered 503 and no connections are taken",
            _ => "",
        };
        let (now, max) = (load.memory_bytes >> 20, max >> 20);
        let _ = writeln!(text, "  {now} of {max} MiB of memory{pressure}");
    }
    if let Some(max) = load.requests_max {
        let _ = writeln!(text, "  {} of {max} requests under way", load.requests);
    }
}

/// Names of a certificate that are shown.
const NAMES_MAX: usize = 3;

fn describe_certificate(text: &mut String, certificate: &CertificateStatus) {
    let mut names = certificate.names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        names.clone_from(&certificate.subject);
    }
    let more = certificate.names.len().saturating_sub(NAMES_MAX);
    if more > 0 {
        let _ = write!(names, " and {more} more");
    }
    let until = time::OffsetDateTime::from_unix_timestamp(certificate.not_after_s);
    let until = until.map_or_else(|_| certificate.not_after_s.to_string(), |until| until.date().to_string());
    let stapled = if matches!(certificate.ocsp, OcspStatus::Stapled { .. }) { ", OCSP stapled" } else { "" };
    let _ = writeln!(text, "  certificate {}: {names}, until {until}{stapled}", certificate.file);
}

/// How the sync link is, without its refusals.
pub(super) fn sync_sentence(sync: &SyncStatus) -> String {
    let mut text = format!("{} for {}", sync.state.replace('_', " "), time(sync.since_ms));
    if sync.protocol != 0 {
        let _ = write!(text, ", {} entries sent, {} received", sync.entries_sent, sync.entries_received);
    }
    if sync.lag_entries > 0 {
        let _ = write!(text, ", {} behind by {} us", sync.lag_entries, sync.lag_us);
    }
    for (what, progress) in [("sent", sync.snapshot_sent), ("received", sync.snapshot_received)] {
        if sync.protocol != 0 && !progress.finished {
            let _ = write!(text, ", snapshot {what} to {} of {}", progress.done, progress.total);
        }
    }
    if sync.config_differs {
        text.push_str(", the peer runs another configuration");
    }
    match &sync.last_error {
        Some(error) if !sync.in_sync => format!("{text} ({error})"),
        _ => text,
    }
}

fn describe_vip(text: &mut String, vip: &VipStatus) {
    let _ = writeln!(
        text,
        "\nvip {}   {} for {}: {}\n  {} on {}, router id {}, priority {}, adverts every {} ms",
        vip.name,
        vip.role,
        time(vip.since_ms),
        vip.reason,
        vip.addresses.join(" "),
        vip.interface,
        vip.virtual_router_id,
        vip.priority,
        vip.advert_interval_ms
    );
    // What nobody could look at says something only where the VIP cannot be held: a standby reaches no listener of it.
    let is_news = |verdict: &&VerdictStatus| match verdict.state.as_str() {
        "good" => false,
        "unknown" => vip.role == Role::Unfit,
        _ => true,
    };
    for verdict in vip.verdicts.iter().filter(is_news) {
        let (state, since) = (verdict.state.replace('_', " "), time(verdict.since_ms));
        let _ = writeln!(text, "  {state} for {since}: {} ({})", verdict.subject, verdict.evidence);
    }
    let peer = vip.peer.as_ref().map_or("no advert of the peer yet".to_owned(), |peer| {
        format!("last advert of {} {} ago with priority {}", peer.address, time(peer.age_ms), peer.priority)
    });
    let _ = writeln!(
        text,
        "  {} adverts sent, {} received; {peer}; {} role changes",
        vip.adverts_sent, vip.adverts_received, vip.transitions
    );
    if !vip.adverts_dropped.is_empty() {
        let dropped: Vec<String> =
            vip.adverts_dropped.iter().map(|(reason, count)| format!("{} {count}", reason.replace('_', " "))).collect();
        let _ = writeln!(text, "  adverts dropped: {}", dropped.join(", "));
    }
}

/// How sessions come to the other node.
pub(super) fn describe_sync(text: &mut String, sync: &SyncStatus) {
    let _ = writeln!(text, "sync with {}: {}", sync.peer, sync_sentence(sync));
    if sync.entries_useless > 0 {
        let _ = writeln!(
            text,
            "  {} entries came that are of no use here: expired, or of pools and servers that only the peer's file has",
            sync.entries_useless
        );
    }
    if !sync.refused.is_empty() {
        let refused = sync.refused.iter().map(|(reason, count)| format!("{} {count}", reason.replace('_', " ")));
        let _ = writeln!(text, "  refused: {}", refused.collect::<Vec<_>>().join(", "));
    }
}

/// The file that sessions come back from.
pub(super) fn describe_archive(text: &mut String, archive: &ArchiveStatus) {
    let written = archive.written_ms.map_or("not written yet".to_owned(), |ms| {
        format!("{} sessions, {}, written {} ago", archive.entries, size(archive.bytes), time(ms))
    });
    let _ = writeln!(text, "\narchive of sessions: {written}; {} came back from it", archive.restored);
}

fn describe_pool(text: &mut String, pool: &PoolStatus, sessions: Option<&SessionPoolStatus>) {
    let up = pool.servers.iter().filter(|server| server.up).count();
    let count = sessions.map_or(String::new(), |sessions| format!(", {} sessions", sessions.entries));
    let requests = match (pool.requests, pool.errors) {
        // Of a pool of TCP connections, or nothing yet.
        (0, _) => String::new(),
        (requests, errors) => format!(", {requests} requests, {errors} errors"),
    };
    let _ = writeln!(
        text,
        "\npool {}   {}, {up} of {} servers up{count}{requests}",
        pool.name,
        pool.algorithm,
        pool.servers.len()
    );
    if pool.panicking {
        text.push_str("  too few servers are healthy, and all of them are used\n");
    }
    if let Some(queue) = &pool.queue {
        let dropped: u64 = queue.dropped.values().sum();
        let _ = writeln!(
            text,
            "  {} of {} requests wait for a server, {} had to, {dropped} got none",
            queue.length, queue.length_max, queue.waited
        );
    }
    if let Some(discovery) = &pool.discovery {
        describe_discovery(text, discovery);
    }
    if let Some(breaker) = &pool.breaker {
        let refused: u64 = breaker.refused.values().sum();
        let _ = writeln!(text, "  breaker {}, {refused} requests stopped", described(breaker));
    }
    for server in &pool.servers {
        let admin = match server.admin.as_str() {
            "" | "enabled" => String::new(),
            admin => format!("{admin}   "),
        };
        let of_server = sessions.and_then(|pool| pool.by_server.iter().find(|counted| counted.server == server.name));
        let count = of_server.map_or(String::new(), |counted| format!(", {} sessions", counted.entries));
        let agent = server.agent.as_ref().map_or(String::new(), |said| format!(", its agent says {said}"));
        let _ = writeln!(
            text,
            "  {:<4} {:<16} {:<22} for {:<8} {} requests{count}{}   {admin}{}{agent}",
            if server.up { "up" } else { "down" },
            server.name,
            server.address.to_string(),
            time(server.since_ms),
            server.requests,
            balance(server),
            server.last_check
        );
        if let Some(ejection) = &server.ejection {
            let (left, reason) = (time(ejection.left_ms), &ejection.reason);
            let _ = writeln!(text, "       ejected for {left} more, the {}. time of late: {reason}", ejection.in_a_row);
        }
        if let Some(breaker) = &server.breaker {
            let _ = writeln!(text, "       breaker {}", described(breaker));
        }
    }
}

/// What picks go by, where that is more than that it is up.
fn balance(server: &ServerStatus) -> String {
    let mut text = server.in_flight.map_or(String::new(), |count| format!(", {count} under way"));
    let is_changed = (server.effective_weight - f64::from(server.weight)).abs() > 0.005;
    if server.weight != 1 || is_changed {
        let _ = write!(text, ", weight {}", server.weight);
    }
    if is_changed {
        let _ = write!(text, " counts as {:.2}", server.effective_weight);
    }
    if let Some(zone) = &server.zone {
        let _ = write!(text, ", zone {zone}");
    }
    text
}

fn describe_discovery(text: &mut String, discovery: &DiscoveryStatus) {
    let DiscoveryStatus { source, servers, age_ms, problem, is_kept, .. } = discovery;
    let said = match age_ms {
        None => "nothing said yet".to_owned(),
        Some(age) if *is_kept => format!("{servers} servers, found {} ago by an earlier start", time(*age)),
        Some(age) => format!("{servers} servers, said {} ago", time(*age)),
    };
    let problem = problem.as_ref().map_or(String::new(), |problem| format!("; the last list stays: {problem}"));
    let _ = writeln!(text, "  found by {source}: {said}{problem}");
}

/// A breaker's state with what it means, and why.
fn described(breaker: &BreakerStatus) -> String {
    let reason = if breaker.reason.is_empty() { String::new() } else { format!(" ({})", breaker.reason) };
    let left = breaker.left_ms.map_or(String::new(), |left_ms| format!(" for {} more", time(left_ms)));
    format!("{}{left}{reason}", breaker.meaning)
}

fn describe_store(text: &mut String, store: &StoreStatus) {
    let (since, error) = (time(store.since_ms), store.last_error.as_deref().filter(|_| store.state != "connected"));
    let error = error.map_or(String::new(), |error| format!(": {error}"));
    let _ = writeln!(
        text,
        "\nsession store {}   {} for {since}{error}\n  {} questions, {} sessions found, {} not answered in time; {} placed by \
         hashing, {} still to be written",
        store.url, store.state, store.lookups, store.hits, store.timeouts, store.hashed, store.owed
    );
}

/// The first digits of a checksum: enough to see whether two nodes differ.
fn short(checksum: &str) -> &str {
    checksum.get(..12).unwrap_or(checksum)
}

/// A time in its two largest units.
pub(super) fn time(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..86_400_000 => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} d {} h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

/// A number of bytes, in the unit that leaves a few digits.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{}.{} KiB", bytes / 1_024, bytes % 1_024 * 10 / 1_024),
        _ => format!("{}.{} MiB", bytes / 1_048_576, bytes % 1_048_576 * 10 / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_a_unit_that_fits() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1_023), "1023 bytes");
        assert_eq!(size(1_024), "1.0 KiB");
        assert_eq!(size(1_048_575), "1023.9 KiB");
        assert_eq!(size(54_525_952), "52.0 MiB");
    }

    #[test]
    fn times_are_said_in_their_two_largest_units() {
        assert_eq!(time(0), "0 ms");
        assert_eq!(time(999), "999 ms");
        assert_eq!(time(1_000), "1.0 s");
        assert_eq!(time(59_999), "59.9 s");
        assert_eq!(time(60_000), "1 min 0 s");
        assert_eq!(time(3_661_000), "1 h 1 min");
        assert_eq!(time(90_000_000), "1 d 1 h");
    }
}
