//! The blocks of the file as they are written: each value checked by itself, names not yet resolved.
//!
//! A block keeps what could be read of it, and where it stands, so that the checks across blocks still work when one of
//! them is broken.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::units::{AdvertInterval, IpNetwork, Priority, VirtualRouterId};

use super::model::{Pool, Protocol, Transport, WorkerSettings};
use super::reader::{Table, Value};
use super::report::{Located, Mistakes, Place};
use super::{pools, traffic, values};

const VIPS_MAX: usize = 64;
const VIP_ADDRESSES_MAX: usize = 16;
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
    pub(super) worker: WorkerSettings,
    /// `worker.user` with its place in the file.
    pub(super) worker_user: Option<Located<String>>,
}

/// `[[node]]`
pub(super) struct NodeBlock {
    pub(super) place: Place,
    pub(super) name: Option<Located<String>>,
    pub(super) address: Option<Located<IpAddr>>,
    pub(super) priority: Option<Located<Priority>>,
}

/// `[pair]`
#[derive(Default)]
pub(super) struct PairBlock {
    pub(super) key_file: Option<Located<PathBuf>>,
    pub(super) sync_port: Option<u16>,
}

/// `[[vip]]`
pub(super) struct VipBlock {
    pub(super) place: Place,
    pub(super) name: Option<Located<String>>,
    pub(super) addresses: Vec<Located<IpNetwork>>,
    pub(super) interface: Option<Located<String>>,
    pub(super) virtual_router_id: Option<Located<VirtualRouterId>>,
    /// `None` when it is not written.
    pub(super) advert_interval: Option<AdvertInterval>,
    pub(super) transport: Transport,
    pub(super) prefer: Option<Located<String>>,
}

/// `[[listener]]`
pub(super) struct ListenerBlock {
    pub(super) place: Place,
    pub(super) name: Option<Located<String>>,
    pub(super) bind: Vec<Located<SocketAddr>>,
    pub(super) protocol: Protocol,
    pub(super) pool: PoolReference,
    pub(super) tls: Option<Vec<CertificateBlock>>,
    pub(super) head_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) connections_max: u32,
}

/// The pool of a listener.
pub(super) enum PoolReference {
    None,
    /// Written, but not as a name; it counts as there.
    Broken,
    Named(Located<String>),
}

/// An entry of `tls.certificates`.
pub(super) struct CertificateBlock {
    pub(super) cert: Option<Located<PathBuf>>,
    pub(super) key: Option<Located<PathBuf>>,
}

/// `[[route]]`
pub(super) struct RouteBlock {
    pub(super) place: Place,
    pub(super) listener: Option<Located<String>>,
    pub(super) host: Option<String>,
    pub(super) path_prefix: Option<String>,
    pub(super) pool: Option<Located<String>>,
    /// Whether host and path prefix were read as they stand.
    pub(super) is_whole: bool,
}

/// `[[pool]]`
pub(super) struct PoolBlock {
    pub(super) name: Option<Located<String>>,
    /// Whole when the file has no mistake.
    pub(super) pool: Pool,
}

/// Reads the whole document. Relative paths in it are relative to `directory`.
pub(super) fn read(mut root: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> Blocks {
    let (worker, worker_user) = worker(root.block("worker"), mistakes);
    let blocks = Blocks {
        nodes: root.blocks("node", NODES_READ_MAX).into_iter().map(node).collect(),
        pair: root.block("pair").map(|table| pair(table, directory)).unwrap_or_default(),
        vips: root.blocks("vip", VIPS_MAX).into_iter().map(|table| vip(table, mistakes)).collect(),
        listeners: root
            .blocks("listener", LISTENERS_MAX)
            .into_iter()
            .map(|table| traffic::listener(table, directory))
            .collect(),
        routes: root.blocks("route", ROUTES_MAX).into_iter().map(traffic::route).collect(),
        pools: root.blocks("pool", POOLS_MAX).into_iter().map(|table| pools::pool(table, mistakes)).collect(),
        worker,
        worker_user,
    };
    root.not_in_release("admin", "remove [admin]; `baton status` shows what the node does");
    root.not_in_release("sessions", "remove [sessions]; sticky cookies need no session table");
    root.finish();
    blocks
}

fn node(mut table: Table<'_>) -> NodeBlock {
    let place = table.place().clone();
    let name = table.name();
    let address = table
        .required("address", "write the address that the other node reaches this one at, such as \"192.0.2.11\"")
        .and_then(|value| value.parsed(values::node_address));
    let priority = table.optional("priority").and_then(|value| value.integer(1..=254)).and_then(|found| {
        let value = u8::try_from(found.value).ok().and_then(Priority::new)?;
        Some(Located { value, place: found.place })
    });
    table.finish();
    NodeBlock { place, name, address, priority }
}

fn pair(mut table: Table<'_>, directory: &Path) -> PairBlock {
    let key_file = table.optional("key_file").and_then(|value| file(value, directory));
    let sync_port = table
        .optional("sync_port")
        .and_then(|value| value.integer(1..=65_535))
        .and_then(|found| u16::try_from(found.value).ok());
    table.finish();
    PairBlock { key_file, sync_port }
}

/// The path of a file; a relative one is relative to the configuration's directory, wherever the program was started.
pub(super) fn file(value: Value<'_>, directory: &Path) -> Option<Located<PathBuf>> {
    let found = value.parsed(values::file)?;
    Some(Located { value: directory.join(found.value), place: found.place })
}

fn vip(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> VipBlock {
    let block = VipBlock {
        place: table.place().clone(),
        name: table.name(),
        addresses: table
            .required("addresses", "list the addresses that move together, such as [\"192.0.2.100/24\"]")
            .map(|value| value.list(VIP_ADDRESSES_MAX))
            .unwrap_or_default()
            .into_iter()
            .filter_map(|value| value.parsed(values::vip_address))
            .collect(),
        interface: table
            .required("interface", "name the interface that carries the addresses, such as \"eth0\"")
            .and_then(|value| value.parsed(values::interface)),
        virtual_router_id: table
            .required("virtual_router_id", "choose a number from 1 to 255 that no other virtual router here uses")
            .and_then(|value| value.integer(1..=255))
            .and_then(|found| {
                let value = u8::try_from(found.value).ok().and_then(VirtualRouterId::new)?;
                Some(Located { value, place: found.place })
            }),
        advert_interval: table
            .optional("advert_interval")
            .and_then(|value| value.duration(AdvertInterval::MIN..=AdvertInterval::MAX))
            .and_then(|found| advert_interval(&found, mistakes)),
        transport: table
            .optional("transport")
            .and_then(|value| {
                value.choice(&[("unicast", Transport::Unicast), ("multicast", Transport::Multicast)], &[])
            })
            .unwrap_or(Transport::Unicast),
        prefer: table.optional("prefer").and_then(|value| value.parsed(values::reference)),
    };
    table.finish();
    block
}

fn advert_interval(found: &Located<Duration>, mistakes: &Mistakes<'_>) -> Option<AdvertInterval> {
    let interval = AdvertInterval::new(found.value);
    if interval.is_none() {
        let below = values::duration_text(Duration::from_millis(found.value.as_millis() as u64 / 10 * 10));
        mistakes.value(
            &found.place,
            "must be a multiple of 10ms, the unit of an advert",
            format!("the nearest below is \"{below}\""),
        );
    }
    interval
}

/// Probes of the worker: often enough to see a hang at once, not so often that they are the load.
const PROBE_MIN: Duration = Duration::from_millis(10);
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(60);
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
    table.finish();
    (settings, user)
}
