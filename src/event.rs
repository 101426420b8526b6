//! A change of role as others are told of it, and what guard and courier say to each other about it.
//!
//! The guard keeps events and decides which one is due; the courier, a process without any privilege, hands one at a time
//! to the operator's command or webhook, and answers how that went. Over a socket pair, one JSON object a line.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::status::Role;

/// A change of role. Field names are an interface: add, do not rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one with each event of this node, also across restarts.
    pub sequence: u64,
    /// When it happened, RFC 3339 in UTC with milliseconds.
    pub time: String,
    /// The node that changed its role.
    pub node: String,
    /// For this VIP.
    pub vip: String,
    /// Its role before.
    pub from: Role,
    /// Its role now.
    pub to: Role,
    /// Why, in words.
    pub reason: String,
    /// Which holding of the VIP this belongs to: the higher one is the later one, on both nodes.
    pub epoch: u32,
    /// The addresses of the VIP with prefix length.
    pub addresses: Vec<String>,
    /// The other node of the pair.
    pub peer: Option<String>,
}

/// Who is told. Each gets every event in order, and neither waits for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// The operator's command.
    Command,
    /// The operator's webhook.
    Webhook,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Command, Self::Webhook];
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Command => "command",
            Self::Webhook => "webhook",
        })
    }
}

/// What a courier is started with. Not `Debug`: a webhook's URL is often a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Process id of the guard.
    pub guard_pid: u32,
    /// Program and arguments.
    pub command: Option<Vec<String>>,
    /// Where events are posted to. A secret.
    pub webhook: Option<String>,
    /// Time that one delivery may take.
    pub timeout_ms: u64,
    /// The user to become.
    pub user: Option<String>,
}

/// From the guard.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToCourier {
    /// The first message.
    Start(Settings),
    /// Try once to deliver this. There is one at a time for each lane.
    Deliver {
        /// To whom.
        lane: Lane,
        /// What.
        event: Event,
    },
}

/// From the courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromCourier {
    /// To whom.
    pub lane: Lane,
    /// What.
    pub sequence: u64,
    /// Why it was not delivered, in words that hold no secret; `None` when it was.
    pub failure: Option<String>,
}
