//! What a node says about itself: the answer of the control socket, and what `baton status` prints.
//!
//! The guard fills it in, the command line shows it, drills judge by it. Field names are an interface: add, do not rename.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Role of a node for one VIP group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds the VIP.
    Active,
    /// Ready to take it.
    Standby,
    /// Takes no part: starting, stopping, or unfit.
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
    /// Process id of the guard.
    pub guard_pid: u32,
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
    /// What is less than it should be and does not stop service, in sentences.
    pub warnings: Vec<String>,
}

/// A VIP group on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Adverts sent.
    pub adverts_sent: u64,
    /// Valid adverts received.
    pub adverts_received: u64,
    /// Adverts dropped, by reason; reasons never seen are left out.
    pub adverts_dropped: std::collections::BTreeMap<String, u64>,
    /// The peer as its adverts last told, `None` before the first one.
    pub peer: Option<HeardAdvert>,
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
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// A server of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it gets requests.
    pub up: bool,
    /// Time since it went up or down, in milliseconds.
    pub since_ms: u64,
    /// What the last check said, in words; `not checked` without checks.
    pub last_check: String,
    /// Requests sent to it since the worker started.
    pub requests: u64,
}
