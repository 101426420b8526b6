//! What a node says about itself: the answer of the control socket, and what `baton status` prints.
//!
//! The guard fills it in, the command line shows it, drills judge by it. Field names are an interface: add, do not rename.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Role of a node for one VIP group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds the VIP.
    Active,
    /// Ready to take it.
    Standby,
    /// Takes no part: starting, stopping, or unfit.
    #[default]
    Unfit,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Role::Active => "active",
            Role::Standby => "standby",
            Role::Unfit => "unfit",
        })
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// Version of the running program.
    pub version: String,
    /// SHA-256 of the configuration in use.
    pub config_checksum: String,
    /// Time since it was loaded.
    #[serde(default)]
    pub config_age_ms: u64,
    /// The last reload since then, which was refused.
    #[serde(default)]
    pub refused_reload: Option<RefusedReload>,
    /// Process id of the guard.
    pub guard_pid: u32,
    /// How often another program has taken over in the guard's process: for a configuration, or as another release.
    #[serde(default)]
    pub takeovers: u64,
    /// The last of them is not done: its worker does not serve yet, and the one before does.
    #[serde(default)]
    pub is_taking_over: bool,
    /// One for each VIP group.
    pub vips: Vec<VipStatus>,
    /// The other node of the pair, when there is one.
    pub peer: Option<PeerStatus>,
    /// The data plane.
    pub worker: WorkerStatus,
    /// Where clients connect.
    pub listeners: Vec<ListenerStatus>,
    /// Where requests go.
    pub pools: Vec<PoolStatus>,
    /// How events are delivered; `None` when nobody is to be told of any.
    #[serde(default)]
    pub events: Option<EventsStatus>,
    /// The witness, when the configuration names one.
    #[serde(default)]
    pub witness: Option<WitnessStatus>,
    /// Time that HTTP clients get to leave before a VIP is moved, in milliseconds.
    #[serde(default)]
    pub switchover_drain_ms: u64,
    /// The sync link to the other node; `None` where there is nobody to sync with.
    #[serde(default)]
    pub sync: Option<SyncStatus>,
    /// Sticky sessions.
    #[serde(default)]
    pub sessions: SessionsStatus,
    /// The certificates that listeners serve.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// What is less than it should be and does not stop service, in sentences.
    pub warnings: Vec<String>,
}

/// A reload that was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReload {
    /// Time since then.
    pub age_ms: u64,
    /// Why, in words.
    pub reason: String,
}

/// A certificate that a listener serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The listener.
    pub listener: String,
    /// The file of its chain.
    pub file: String,
    /// The host names that it is for.
    pub names: Vec<String>,
    /// Whose it is (RFC 4514).
    pub subject: String,
    /// SHA-256 of it in hex.
    pub fingerprint: String,
    /// Seconds since 1970 until which it is good.
    pub not_after_s: i64,
    /// What clients get with it.
    #[serde(default)]
    pub ocsp: OcspStatus,
}

/// The OCSP response beside a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OcspStatus {
    /// There is none.
    #[default]
    None,
    /// It is stapled to the certificate until it expires.
    Stapled {
        /// Seconds since 1970.
        until_s: i64,
    },
    /// It is not used.
    Refused {
        /// Why, as what follows "it".
        reason: String,
    },
}

/// The sync link to the other node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// The other node's name.
    pub peer: String,
    /// `connecting`, `connected` (its snapshot is on its way), `in_sync` or `refused`.
    pub state: String,
    /// Whether each node has all that the other has, but for what is under way just now.
    pub in_sync: bool,
    /// Time in that state, in milliseconds.
    pub since_ms: u64,
    /// Version of the protocol that is spoken; 0 without a connection.
    pub protocol: u8,
    /// Entries that changed here and are not acknowledged yet.
    pub lag_entries: u64,
    /// Time since the oldest of these changed, in microseconds; 0 when there is none.
    pub lag_us: u64,
    /// The longest such time in the last ten seconds, in microseconds.
    pub lag_max_us: u64,
    /// How long changes took to be acknowledged, since the worker started.
    #[serde(default)]
    pub delays: DelaysStatus,
    /// Entries of the snapshot for the peer that it has acknowledged, and of all that are to be sent.
    pub snapshot_sent: ProgressStatus,
    /// Entries of the peer's snapshot that have come, and of all that it announced.
    pub snapshot_received: ProgressStatus,
    /// Entries sent since the worker started.
    pub entries_sent: u64,
    /// Entries received since the worker started.
    pub entries_received: u64,
    /// Of these, those of no use here: expired, or of pools and servers that this node does not have.
    #[serde(default)]
    pub entries_useless: u64,
    /// Connections that ended since the worker started.
    pub disconnects: u64,
    /// Who was refused or cut off since the worker started, by reason.
    pub refused: BTreeMap<String, u64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Whether the peer runs another configuration than this node.
    pub config_differs: bool,
}

/// How long things took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelaysStatus {
    /// Upper bounds of the classes in microseconds, ascending; one more class has none.
    pub bounds_us: Vec<u64>,
    /// How many there were in each class alone.
    pub counts: Vec<u64>,
    /// The sum of all of them in microseconds.
    pub sum_us: u64,
}

/// How far something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressStatus {
    /// What is done.
    pub done: u64,
    /// Out of how much.
    pub total: u64,
    /// Whether that is all there will be.
    pub finished: bool,
}

/// Sticky sessions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionsStatus {
    /// The pools that keep sessions in the table.
    pub pools: Vec<SessionPoolStatus>,
    /// The store that other load balancers share, when the configuration names one.
    #[serde(default)]
    pub store: Option<StoreStatus>,
    /// The file that sessions come back from when both nodes restart.
    #[serde(default)]
    pub archive: Option<ArchiveStatus>,
}

/// The sessions of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPoolStatus {
    /// The pool.
    pub pool: String,
    /// Its sessions now.
    pub entries: u64,
    /// As many as it may have.
    pub entries_max: u64,
    /// Sessions that had to go because there were too many, since the worker started.
    pub evicted: u64,
    /// Sessions whose time had come, since the worker started.
    pub expired: u64,
    /// Sessions of each server, in the order of the configuration.
    pub by_server: Vec<ServerSessionsStatus>,
}

/// The sessions of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSessionsStatus {
    /// The server.
    pub server: String,
    /// Its sessions now.
    pub entries: u64,
}

/// The store that other load balancers share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Where it is, without secrets.
    pub url: String,
    /// `connected`, or `away`: new sessions are placed by hashing.
    pub state: String,
    /// Time in that state, in milliseconds.
    pub since_ms: u64,
    /// What went wrong last, whether or not it is over.
    pub last_error: Option<String>,
    /// Questions asked since the worker started.
    pub lookups: u64,
    /// Those that found a session.
    pub hits: u64,
    /// Those that were not answered in time.
    pub timeouts: u64,
    /// Those that were not asked, because too many were waiting.
    #[serde(default)]
    pub queue_full: u64,
    /// Requests that were served by hashing, because the store was away or too slow.
    pub hashed: u64,
    /// Times that a session in use was compared with the store.
    #[serde(default)]
    pub rechecks: u64,
    /// Sessions that the store is still to be told of.
    #[serde(default)]
    pub owed: u64,
    /// Sessions that it will not be told of, because too many were waiting.
    #[serde(default)]
    pub unwritten: u64,
}

/// The file that sessions come back from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// Sessions that came back from it when the worker started.
    pub restored: u64,
    /// Sessions in it.
    pub entries: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Time since it was written, in milliseconds; `None` when it has not been since the guard started.
    pub written_ms: Option<u64>,
    /// Why it could not be written or read last.
    pub last_error: Option<String>,
}

/// A VIP group on this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VipStatus {
    /// Its name.
    pub name: String,
    /// This node's role for it.
    pub role: Role,
    /// Time in that role, in milliseconds.
    pub since_ms: u64,
    /// Why it is in that role, in words.
    pub reason: String,
    /// What keeps it from taking the VIP; empty when it is fit.
    pub faults: Vec<String>,
    /// What was found out about everything that counts for it.
    #[serde(default)]
    pub verdicts: Vec<VerdictStatus>,
    /// Its addresses with prefix length.
    pub addresses: Vec<String>,
    /// The interface that carries them.
    pub interface: String,
    /// Virtual router id.
    pub virtual_router_id: u8,
    /// This node's priority.
    pub priority: u8,
    /// Time between adverts, in milliseconds.
    pub advert_interval_ms: u64,
    /// Times that the role changed since the guard started.
    pub transitions: u64,
    /// Addresses put back since the guard started that somebody else on this machine had removed.
    #[serde(default)]
    pub addresses_restored: u64,
    /// Times since the guard started that another machine claimed one of the addresses while this one held it, or that
    /// the kernel found one at another machine (dadfailed).
    #[serde(default)]
    pub address_conflicts: u64,
    /// Adverts sent.
    pub adverts_sent: u64,
    /// Valid adverts received.
    pub adverts_received: u64,
    /// Adverts dropped, by reason; reasons never seen are left out.
    pub adverts_dropped: BTreeMap<String, u64>,
    /// The peer as its adverts last told, `None` before the first one.
    pub peer: Option<HeardAdvert>,
    /// The peer as it last said over a link of the pair, `None` without one.
    pub peer_says: Option<PeerVipStatus>,
    /// The paths of its adverts.
    pub paths: Vec<PathStatus>,
    /// Takeovers so far, by whichever node.
    pub epoch: u32,
    /// What it waits for before it does something, in words; `None` when it waits for nothing in particular.
    pub waiting: Option<String>,
    /// Time that every path has to be silent before a standby claims it, in milliseconds.
    pub patience_ms: u64,
    /// The node that takes it back, when there is one.
    pub prefer: Option<String>,
    /// Time that the preferred node has to be fit and synced before it does, in milliseconds.
    pub prefer_hold_ms: u64,
    /// `off`, `receive_only`, `permissive` or `enforce`.
    pub authentication: String,
}

/// A path of a VIP's adverts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// Its name.
    pub name: String,
    /// Whether it is a link of the pair, on which a standby speaks too.
    pub is_link: bool,
    /// Packets sent on it.
    pub sent: u64,
    /// Valid packets of the peer.
    pub received: u64,
    /// Packets that the kernel did not take.
    pub send_failures: u64,
    /// Time since the last valid packet of the peer, in milliseconds; `None` before the first.
    pub last_heard_ms: Option<u64>,
}

/// What the peer says about a VIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerVipStatus {
    /// Its role.
    pub role: Role,
    /// Whether it may take part.
    pub fit: bool,
    /// Whether it has what this node has.
    pub synced: bool,
    /// Takeovers as it counts them.
    pub epoch: u32,
    /// Pools that have a server up, as it sees them.
    pub pools_up: u16,
    /// Servers that are up, as it sees them.
    pub servers_up: u16,
    /// Whether it runs another configuration than this node.
    pub config_differs: bool,
    /// Time since it said so, in milliseconds.
    pub age_ms: u64,
}

/// What a switchover came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverStatus {
    /// The VIP.
    pub vip: String,
    /// This node's role for it afterwards.
    pub role: Role,
    /// Why it did not move; `None` when it did.
    pub refused: Option<String>,
}

/// What this node thinks of one of the things that count for a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictStatus {
    /// What was looked at, for example `worker`, `listener http` or `gateway uplink`.
    pub subject: String,
    /// `good`; `broken`, which gives the VIP up; `weaker`, which moves it only if the peer is better off; `unknown`, not
    /// looked at yet or not possible now; `held_down`, good again but not for long enough to be believed.
    pub state: String,
    /// What was found, in words.
    pub evidence: String,
    /// Time since the state changed, in milliseconds.
    pub since_ms: u64,
}

/// The last valid advert of the peer for a VIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeardAdvert {
    /// Source address.
    pub address: String,
    /// Its priority; 0 when it resigned.
    pub priority: u8,
    /// Its advert interval, in milliseconds.
    pub advert_interval_ms: u64,
    /// Time since it came, in milliseconds.
    pub age_ms: u64,
}

/// The other node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub node: String,
    /// Its heartbeat address.
    pub address: String,
    /// Time since any advert of it came, in milliseconds; `None` when none came since the start.
    /// A standby sends no adverts, so silence is only a fault while the peer should be active.
    pub last_heard_ms: Option<u64>,
}

/// How events are delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsStatus {
    /// Events that somebody has still to be told of.
    pub spooled: u64,
    /// Events that everybody has been told of since the guard started.
    pub delivered: u64,
    /// Events that had to go undelivered since then, because more were waiting than are kept.
    pub dropped: u64,
    /// What went wrong last, until nothing is waiting any more.
    pub last_error: Option<String>,
    /// Time since the oldest one that is waiting was recorded, in milliseconds.
    pub oldest_age_ms: Option<u64>,
}

/// The witness, when the configuration names one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// Where it is.
    pub address: String,
    /// Whether it has answered lately. It is asked every few seconds at least.
    pub reachable: bool,
    /// Time since it last answered, in milliseconds; `None` when it never has since the start.
    pub last_answer_ms: Option<u64>,
    /// Datagrams sent to it.
    pub sent: u64,
    /// Answers of it.
    pub answers: u64,
    /// Datagrams that were not its answers to ours.
    pub dropped: u64,
}

/// The worker process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// `starting`, `running`, `hung`, `waiting` (to be restarted) or `draining`.
    pub state: String,
    /// Its process id while there is one.
    pub pid: Option<u32>,
    /// Restarts since the guard started.
    pub restarts: u64,
    /// Why the last one ended.
    pub last_exit: Option<String>,
    /// Worker threads.
    pub threads: usize,
    /// Open client connections.
    pub connections: u64,
    /// Requests answered since it started.
    pub requests: u64,
    /// How much it takes on.
    #[serde(default)]
    pub load: LoadStatus,
    /// Workers that another one has taken over from and that finish what they have.
    #[serde(default)]
    pub finishing: usize,
}

/// How much a worker takes on, as far as there are limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadStatus {
    /// `none`, `shedding` (requests are answered 503) or `closed` (no connections are taken either), by its memory.
    pub pressure: String,
    /// Bytes of memory that it has resident; 0 where there is no limit.
    pub memory_bytes: u64,
    /// The most it may have.
    pub memory_bytes_max: Option<u64>,
    /// Requests under way; 0 where there is no limit.
    pub requests: u64,
    /// The most there may be.
    pub requests_max: Option<u64>,
    /// The most client connections that it takes.
    pub connections_max: Option<u64>,
    /// The most that the limit on open files allows, where that is fewer than `connections_max` of the listeners and of the
    /// worker do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_max_by_open_files: Option<u64>,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub bind: Vec<SocketAddr>,
    /// `http` or `https`.
    pub protocol: String,
    /// Requests answered 429 since the worker started, because their client was over the rate limit.
    #[serde(default)]
    pub rate_limited: u64,
    /// What was refused or cut short since then to protect the rest, by the reason.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// How its servers are picked.
    #[serde(default)]
    pub algorithm: String,
    /// Whether servers are used that are not healthy, since so few are.
    #[serde(default)]
    pub panicking: bool,
    /// Requests for it since the worker started, whoever answered them.
    #[serde(default)]
    pub requests: u64,
    /// Of these, those that were answered with a status of 500 or more.
    #[serde(default)]
    pub errors: u64,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
    /// Copies of requests that routes made for it since the worker started; `None` when no route makes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrored: Option<MirroredStatus>,
    /// Requests that wait for a server; `None` where a server gets any number of them.
    #[serde(default)]
    pub queue: Option<QueueStatus>,
    /// Where servers of it are found; `None` where all of them stand in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<DiscoveryStatus>,
    /// Its circuit breaker; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
}

/// How the source of a pool's servers is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryStatus {
    /// `dns`, `consul`, `file` or `http`.
    pub kind: String,
    /// What is asked, in words.
    pub source: String,
    /// Servers of the list in use.
    pub servers: u64,
    /// Time since the source said last that the list holds, in milliseconds; `None` before it has said anything.
    pub age_ms: Option<u64>,
    /// Whether the list is one that an earlier worker has left, which the source has not said yet to this one.
    pub is_kept: bool,
    /// Good answers since the worker started.
    pub answers: u64,
    /// Answers that could not be used, and those that did not come.
    pub failures: u64,
    /// What is wrong now; `None` while the last answer is good.
    pub problem: Option<String>,
}

/// A circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// What that means for requests, in words.
    pub meaning: String,
    /// Why it opened, with figures; empty while it is closed.
    pub reason: String,
    /// Time until requests pass on trial, in milliseconds; `None` unless it is open.
    pub left_ms: Option<u64>,
    /// Times that it has opened since the worker started.
    pub opened: u64,
    /// Requests that a pool's breaker did not let pass, by the reason: `open`, `in_flight` or `pending`; and `retries`
    /// that were not made.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
}

/// Why a server gets no requests for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EjectionStatus {
    /// Why, with figures.
    pub reason: String,
    /// Time until it comes back, in milliseconds.
    pub left_ms: u64,
    /// How many ejections of late have made this one longer, itself included.
    pub in_a_row: u32,
}

/// What became of copies of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirroredStatus {
    /// The pool has answered.
    pub answered: u64,
    /// No server could be reached, or it broke off or took too long.
    pub failed: u64,
    /// Not sent, as the body was over the limit.
    pub too_large: u64,
    /// Not sent, as too many were under way.
    pub busy: u64,
    /// Not sent, as the body did not come to an end.
    pub broken_off: u64,
}

/// Requests that wait for a server, and what became of those that did since the worker started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// How many wait.
    pub length: u64,
    /// How many may wait.
    pub length_max: u64,
    /// Requests that each server gets at once, where it has no number of its own; 0 for any number.
    pub in_flight_max: u64,
    /// Those that had to wait.
    pub waited: u64,
    /// How long those that then got a server had waited, together, in microseconds.
    pub waited_us: u64,
    /// Those that got none: `full`, `timeout` or `client_left`.
    pub dropped: BTreeMap<String, u64>,
}

/// A server of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// Where it comes from: the `file`, an `operator` or the source of its pool (`found`).
    #[serde(default)]
    pub origin: String,
    /// Whether it is healthy.
    pub up: bool,
    /// What an operator has ordered: `enabled`; `draining`, which keeps the clients that it has and takes no new ones; or
    /// `disabled`, which gets no requests at all.
    #[serde(default)]
    pub admin: String,
    /// Whether that is known: it has no checks, which counts as up, or at least one of them is done.
    #[serde(default)]
    pub checked: bool,
    /// Time since it went up or down, in milliseconds.
    pub since_ms: u64,
    /// What the last check said, in words; `not checked` without checks.
    pub last_check: String,
    /// What its agent last said, in its words; `None` where it has none.
    #[serde(default)]
    pub agent: Option<String>,
    /// Requests, and connections of `protocol = "tcp"`, sent to it since the worker started.
    pub requests: u64,
    /// Those under way; `None` where nobody counts them: it gets any number of them, and the algorithm does not go by that.
    #[serde(default)]
    pub in_flight: Option<u64>,
    /// Why it gets no requests for a time although it is up; `None` while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<EjectionStatus>,
    /// Times that it was ejected since the worker started.
    #[serde(default)]
    pub ejections: u64,
    /// Its circuit breaker; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
    /// As many of them as it gets at once; `None` for any number.
    #[serde(default)]
    pub in_flight_max: Option<u32>,
    /// Its weight, as configured.
    #[serde(default)]
    pub weight: u32,
    /// What that comes to now, by slow start and what it says of itself.
    #[serde(default)]
    pub effective_weight: f64,
    /// Its zone, where it has one.
    #[serde(default)]
    pub zone: Option<String>,
}
