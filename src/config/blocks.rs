//! The blocks of the file as they are written: each value checked by itself, names not yet resolved.
//!
//! A block keeps what could be read of it, and where it stands, so that the checks across blocks still work when one of
//! them is broken.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::units::{AdvertInterval, IpNetwork, Priority, VirtualRouterId};

use super::access_log::{AccessLogBlock, ListenerLog};
use super::balance::HashOn;
use super::discovery::DiscoveryFiles;
use super::error_pages::ErrorPageBlock;
use super::health::HealthBlock;
use super::identity::AccessFiles;
use super::model::{
    AdvertChecksum, Announce, Authentication, Compression, Events, HeaderEdits, Hsts, Identity, ListenerAccess,
    ListenerProtection, Pool, Protocol, RedirectToHttps, Sessions, Transport, VrrpVersion, WorkerLimits,
    WorkerSettings,
};
use super::reader::{Table, Value, Written};
use super::report::{Located, Mistakes, Place};
use super::routes::RouteBlock;
use super::sticky::StickyBy;
use super::store::StoreBlock;
use super::tls::TlsBlock;
use super::upstream::WayFiles;
use super::{access_log, pools, protection, routes, sticky, traffic, values, vips, watching};

/// VIPs of a file, and so the most that a fitness check can name.
pub(super) const VIPS_MAX: usize = 64;
const FURTHER_ADDRESSES_MAX: usize = 4;
const ADVERT_KEYS_MAX: usize = 8;
const FITNESS_MAX: usize = 64;
const ADMIN_HOSTS_MAX: usize = 64;
const LISTENERS_MAX: usize = 256;
const ROUTES_MAX: usize = 4096;
const POOLS_MAX: usize = 1024;
/// Nodes that are read; a third one is refused by the checks across blocks, which can say why.
const NODES_READ_MAX: usize = 16;

/// Everything that the file says.
pub(super) struct Blocks {
    pub(super) nodes: Vec<NodeBlock>,
    pub(super) pair: PairBlock,
    pub(super) vips: Vec<VipBlock>,
    pub(super) listeners: Vec<ListenerBlock>,
    pub(super) routes: Vec<RouteBlock>,
    pub(super) pools: Vec<PoolBlock>,
    pub(super) fitness: Vec<FitnessBlock>,
    pub(super) events: EventsBlock,
    pub(super) sessions: SessionsBlock,
    pub(super) admin: Option<AdminBlock>,
    pub(super) access_log: Option<AccessLogBlock>,
    pub(super) worker: WorkerSettings,
    /// `worker.user` with its place in the file.
    pub(super) worker_user: Option<Located<String>>,
}

/// `[[node]]`
pub(super) struct NodeBlock {
    pub(super) place: Place,
    pub(super) name: Option<Located<String>>,
    pub(super) address: Option<Located<IpAddr>>,
    /// `None` for one that could not be read.
    pub(super) further_addresses: Vec<Option<Located<IpAddr>>>,
    pub(super) priority: Option<Located<Priority>>,
    pub(super) zone: Option<String>,
}

impl NodeBlock {
    /// The address and the further ones, as far as they could be read.
    pub(super) fn all_addresses(&self) -> impl Iterator<Item = &Located<IpAddr>> {
        self.address.iter().chain(self.further_addresses.iter().flatten())
    }
}

/// `[pair]`
pub(super) struct PairBlock {
    pub(super) key_file: Written<Located<PathBuf>>,
    pub(super) sync_port: Option<u16>,
    pub(super) advert_keys: Vec<AdvertKeyBlock>,
    /// Whether `advert_keys` is there, whatever it holds.
    pub(super) has_advert_keys: bool,
    pub(super) witness: Option<Located<SocketAddr>>,
    pub(super) switchover_drain: Duration,
}

/// An entry of `pair.advert_keys`.
pub(super) struct AdvertKeyBlock {
    pub(super) id: Option<Located<u8>>,
    pub(super) file: Option<Located<PathBuf>>,
}

/// `[[vip]]`
pub(super) struct VipBlock {
    pub(super) place: Place,
    pub(super) name: Option<Located<String>>,
    pub(super) addresses: Vec<VipAddressBlock>,
    /// Whether every address could be read.
    pub(super) are_addresses_whole: bool,
    pub(super) interface: Option<Located<String>>,
    pub(super) advert_interface: Written<Located<String>>,
    pub(super) virtual_router_id: Option<Located<VirtualRouterId>>,
    /// `None` when it is not written.
    pub(super) advert_interval: Option<AdvertInterval>,
    pub(super) transport: Written<Located<Transport>>,
    pub(super) version: VrrpVersion,
    pub(super) checksum: AdvertChecksum,
    pub(super) authentication: Written<Located<Authentication>>,
    pub(super) password_file: Option<Located<PathBuf>>,
    pub(super) virtual_mac: bool,
    pub(super) prefer: Option<Located<String>>,
    pub(super) prefer_hold: Duration,
    pub(super) announce: Announce,
    pub(super) probe_first: bool,
}

impl VipBlock {
    /// The interface that carries the adverts.
    pub(super) fn advert_interface(&self) -> Option<&str> {
        match &self.advert_interface {
            Written::No => self.interface.as_ref().map(|found| found.value.as_str()),
            Written::Broken => None,
            Written::As(found) => Some(&found.value),
        }
    }

    /// The interface that carries an address.
    pub(super) fn interface_of<'v>(&'v self, address: &'v VipAddressBlock) -> Option<&'v str> {
        match &address.interface {
            Written::No => self.interface.as_ref().map(|found| found.value.as_str()),
            Written::Broken => None,
            Written::As(found) => Some(&found.value),
        }
    }
}

/// An entry of `vip.addresses`.
pub(super) struct VipAddressBlock {
    pub(super) network: Located<IpNetwork>,
    pub(super) interface: Written<Located<String>>,
}

/// `[[fitness]]`
pub(super) struct FitnessBlock {
    pub(super) place: Place,
    pub(super) name: Option<Located<String>>,
    /// `None` when its type could not be read.
    pub(super) subject: Option<SubjectBlock>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) fall: u32,
    pub(super) rise: u32,
    /// `None` when it is not written: all.
    pub(super) vips: Option<Vec<Located<String>>>,
}

/// What a `[[fitness]]` looks at.
pub(super) enum SubjectBlock {
    Gateway { address: Option<Located<IpAddr>>, interface: Option<Located<String>> },
    Command { command: Vec<Located<String>> },
    File { path: Option<Located<PathBuf>>, must_exist: bool },
    Process { process: Option<Located<String>> },
}

/// `[events]`
pub(super) struct EventsBlock {
    /// Whole when the file has no mistake.
    pub(super) events: Events,
    /// `events.command[#1]` with its place in the file.
    pub(super) program: Option<Located<String>>,
    /// `events.user` with its place in the file.
    pub(super) user: Option<Located<String>>,
}

/// `[admin]`
pub(super) struct AdminBlock {
    pub(super) bind: Option<Located<SocketAddr>>,
    pub(super) token_file: Written<Located<PathBuf>>,
    pub(super) hosts: Vec<String>,
}

/// `[sessions]`
pub(super) struct SessionsBlock {
    /// Whole when the file has no mistake.
    pub(super) sessions: Sessions,
    pub(super) store: StoreBlock,
}

/// `[[listener]]`
pub(super) struct ListenerBlock {
    pub(super) place: Place,
    pub(super) name: Option<Located<String>>,
    pub(super) bind: Vec<Located<SocketAddr>>,
    pub(super) protocol: Protocol,
    pub(super) pool: PoolReference,
    pub(super) tls: Option<TlsBlock>,
    pub(super) hsts: Option<Hsts>,
    pub(super) redirect_to_https: Option<RedirectToHttps>,
    pub(super) head_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) connections_max: u32,
    pub(super) request_headers: HeaderEdits,
    pub(super) response_headers: HeaderEdits,
    pub(super) access_log: ListenerLog,
    pub(super) compression: Option<Compression>,
    pub(super) error_pages: Vec<ErrorPageBlock>,
    pub(super) intercept_errors: bool,
    pub(super) protection: ListenerProtection,
    pub(super) http2: bool,
    pub(super) connect: bool,
    pub(super) tunnel_timeout: Duration,
    /// Whole when the file has no mistake.
    pub(super) identity: Identity,
    /// Whole when the file has no mistake.
    pub(super) access: ListenerAccess,
    pub(super) access_files: AccessFiles,
}

/// The pool of a listener.
pub(super) enum PoolReference {
    None,
    /// Written, but not as a name; it counts as there.
    Broken,
    Named(Located<String>),
}

/// `[[pool]]`
pub(super) struct PoolBlock {
    pub(super) name: Option<Located<String>>,
    /// `sticky.by` with its place in the file.
    pub(super) sticky_by: Option<Located<StickyBy>>,
    /// `hash.on` with its place in the file.
    pub(super) hash_on: Option<Located<HashOn>>,
    /// What TLS to its servers needs.
    pub(super) files: WayFiles,
    /// What its health checks need of this machine.
    pub(super) health: HealthBlock,
    /// What is needed to find its servers.
    pub(super) discovery_files: DiscoveryFiles,
    /// Whole when the file has no mistake.
    pub(super) pool: Pool,
}

/// Reads the whole document. Relative paths in it are relative to `directory`.
pub(super) fn read(mut root: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> Blocks {
    let (worker, worker_user) = worker(root.block("worker"), mistakes);
    let blocks = Blocks {
        nodes: root.blocks("node", NODES_READ_MAX).into_iter().map(node).collect(),
        pair: pair(root.block("pair"), mistakes, directory),
        vips: root.blocks("vip", VIPS_MAX).into_iter().map(|table| vips::vip(table, mistakes, directory)).collect(),
        listeners: root
            .blocks("listener", LISTENERS_MAX)
            .into_iter()
            .map(|table| traffic::listener(table, mistakes, directory))
            .collect(),
        routes: root
            .blocks("route", ROUTES_MAX)
            .into_iter()
            .map(|table| routes::route(table, mistakes, directory))
            .collect(),
        pools: root
            .blocks("pool", POOLS_MAX)
            .into_iter()
            .map(|table| pools::pool(table, mistakes, directory))
            .collect(),
        fitness: root
            .blocks("fitness", FITNESS_MAX)
            .into_iter()
            .map(|table| watching::fitness(table, mistakes, directory))
            .collect(),
        events: watching::events(root.block("events")),
        sessions: sticky::sessions(root.block("sessions"), mistakes, directory),
        admin: root.block("admin").map(|table| admin(table, directory)),
        access_log: root.block("access_log").map(|table| access_log::access_log(table, directory)),
        worker,
        worker_user,
    };
    root.finish();
    blocks
}

fn node(mut table: Table<'_>) -> NodeBlock {
    let place = table.place().clone();
    let name = table.name();
    let address = table
        .required("address", "write the address that the other node reaches this one at, such as \"192.0.2.11\"")
        .and_then(|value| value.parsed(values::node_address));
    let further_addresses = table
        .optional("further_addresses")
        .map(|value| value.list_of(0, FURTHER_ADDRESSES_MAX))
        .unwrap_or_default()
        .into_iter()
        .map(|value| value.parsed(values::node_address))
        .collect();
    let priority = table.optional("priority").and_then(|value| value.integer(1..=254)).and_then(|found| {
        let value = u8::try_from(found.value).ok().and_then(Priority::new)?;
        Some(Located { value, place: found.place })
    });
    let zone = table.optional("zone").and_then(|value| value.parsed(values::name)).map(|found| found.value);
    table.finish();
    NodeBlock { place, name, address, further_addresses, priority, zone }
}

fn pair(table: Option<Table<'_>>, mistakes: &Mistakes<'_>, directory: &Path) -> PairBlock {
    let mut block = PairBlock {
        key_file: Written::No,
        sync_port: None,
        advert_keys: Vec::new(),
        has_advert_keys: false,
        witness: None,
        switchover_drain: SWITCHOVER_DRAIN_DEFAULT,
    };
    let Some(mut table) = table else { return block };
    block.key_file = table.written("key_file", |value| file(value, directory));
    block.sync_port = table
        .optional("sync_port")
        .and_then(|value| value.integer(1..=65_535))
        .and_then(|found| u16::try_from(found.value).ok());
    if let Some(value) = table.optional("advert_keys") {
        block.has_advert_keys = true;
        block.advert_keys =
            value.blocks(ADVERT_KEYS_MAX).into_iter().map(|table| advert_key(table, directory)).collect();
        let ids = || block.advert_keys.iter().filter_map(|key| key.id.as_ref());
        for (index, id) in ids().enumerate() {
            if let Some(first) = ids().take(index).find(|first| first.value == id.value) {
                mistakes.value(
                    &id.place,
                    format!("{} is the same", first.place.key),
                    "give each key a number of its own; other nodes choose the key by it",
                );
            }
        }
    }
    block.witness = table.optional("witness").and_then(|value| value.parsed(values::witness));
    block.switchover_drain =
        table.duration("switchover_drain", Duration::ZERO..=SWITCHOVER_DRAIN_MAX, block.switchover_drain);
    table.finish();
    block
}

fn admin(mut table: Table<'_>, directory: &Path) -> AdminBlock {
    let block = AdminBlock {
        bind: table
            .required("bind", "write the address to serve it on, such as \"127.0.0.1:9909\"")
            .and_then(|value| value.parsed(values::bind)),
        token_file: table.written("token_file", |value| file(value, directory)),
        hosts: admin_hosts(table.optional("hosts")),
    };
    table.finish();
    block
}

fn admin_hosts(value: Option<Value<'_>>) -> Vec<String> {
    let hosts = value.into_iter().flat_map(|value| value.list(ADMIN_HOSTS_MAX));
    hosts.filter_map(|value| value.parsed(values::host)).map(|found| found.value).collect()
}

fn advert_key(mut table: Table<'_>, directory: &Path) -> AdvertKeyBlock {
    let id = table
        .required("id", "give the key a number from 1 to 255, the same on every node")
        .and_then(|value| value.integer(1..=255))
        .and_then(|found| Some(Located { value: u8::try_from(found.value).ok()?, place: found.place }));
    let file = table
        .required("file", "name the file that holds the key, such as \"/etc/baton/advert2.key\"")
        .and_then(|value| file(value, directory));
    table.finish();
    AdvertKeyBlock { id, file }
}

/// The path of a file; a relative one is relative to the configuration's directory, wherever the program was started.
pub(super) fn file(value: Value<'_>, directory: &Path) -> Option<Located<PathBuf>> {
    let found = value.parsed(values::file)?;
    Some(Located { value: directory.join(found.value), place: found.place })
}

/// The ranges and defaults of something that is looked at again and again.
pub(super) struct Rhythm {
    pub(super) interval_min: Duration,
    pub(super) interval_default: Duration,
    pub(super) timeout_default: Duration,
}

/// The longest that may lie between two looks, and so the longest that one may take.
pub(super) const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(3600);
const LOOK_TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// Interval and timeout. They are not compared when the interval is broken, which is reported already.
pub(super) fn interval_and_timeout(
    table: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
    rhythm: &Rhythm,
) -> (Duration, Duration) {
    let written = table.written("interval", |value| value.duration(rhythm.interval_min..=LOOK_INTERVAL_MAX));
    let interval = written.or_default(rhythm.interval_default);
    let timeout = table.optional("timeout").and_then(|value| value.duration(LOOK_TIMEOUT_MIN..=LOOK_INTERVAL_MAX));
    let Some(interval) = interval else { return (rhythm.interval_default, rhythm.timeout_default) };
    let Some(timeout) = timeout else {
        return (interval, rhythm.timeout_default.min(interval));
    };
    if timeout.value > interval {
        let interval = values::duration_text(interval);
        mistakes.value(
            &timeout.place,
            format!("must not be above interval, which is {interval}"),
            format!("write at most \"{interval}\", or a longer interval"),
        );
    }
    (interval, timeout.value)
}

/// Probes of the worker: often enough to see a hang at once, not so often that they are the load.
const PROBE_MIN: Duration = Duration::from_millis(10);
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// What clients of a VIP get before it is moved.
const SWITCHOVER_DRAIN_DEFAULT: Duration = Duration::from_secs(1);
/// Above it, whoever asked for the move would lose patience.
const SWITCHOVER_DRAIN_MAX: Duration = Duration::from_secs(20);

const DRAIN_MAX: Duration = Duration::from_secs(3600);
const THREADS_MAX: u32 = 256;

fn worker(table: Option<Table<'_>>, mistakes: &Mistakes<'_>) -> (WorkerSettings, Option<Located<String>>) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut settings = WorkerSettings {
        threads: cores.min(THREADS_MAX as usize),
        user: None,
        probe_interval: Duration::from_millis(50),
        probe_timeout: Duration::from_millis(200),
        drain_timeout: Duration::from_secs(10),
        limits: WorkerLimits::default(),
    };
    let Some(mut table) = table else { return (settings, None) };
    if let Some(threads) = table.optional("threads").and_then(|value| value.integer(1..=THREADS_MAX)) {
        settings.threads = threads.value as usize;
    }
    let user = table.optional("user").and_then(|value| value.parsed(values::user));
    settings.user = user.as_ref().map(|found| found.value.clone());
    settings.probe_interval = table.duration("probe_interval", PROBE_MIN..=PROBE_INTERVAL_MAX, settings.probe_interval);
    let timeout = table.optional("probe_timeout");
    let place = timeout.as_ref().map_or_else(|| table.place().clone(), |value| value.place().clone());
    let timeout = timeout.and_then(|value| value.duration(PROBE_MIN..=PROBE_TIMEOUT_MAX));
    settings.probe_timeout = match timeout {
        Some(found) => found.value,
        // Not below the interval, however long the operator made that.
        None => settings.probe_timeout.max(settings.probe_interval),
    };
    if settings.probe_timeout < settings.probe_interval {
        let interval = values::duration_text(settings.probe_interval);
        mistakes.value(
            &place,
            format!("must not be below probe_interval, which is {interval}"),
            format!("write at least \"{interval}\", or a shorter probe_interval"),
        );
    }
    settings.drain_timeout = table.duration("drain_timeout", Duration::ZERO..=DRAIN_MAX, settings.drain_timeout);
    settings.limits = protection::worker(&mut table);
    table.finish();
    (settings, user)
}
