//! What goes into the machine and what comes out of it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::units::{AdvertInterval, Priority, VirtualRouterId};
use crate::vrrp::packet::Heard;

/// What a machine is built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The virtual router that it speaks for.
    pub virtual_router_id: VirtualRouterId,
    /// Our priority.
    pub priority: Priority,
    /// Time between our adverts when we are active.
    pub advert_interval: AdvertInterval,
    /// Whether to take the VIP from a living peer of lower priority.
    pub preempt: Preempt,
    /// How fast to follow a peer that resigned.
    pub resignation: Resignation,
    /// How long to listen before the first claim.
    pub startup: Startup,
    /// Whether to ask the network for another holder before the first claim ([`Action::ProbeAddresses`]).
    pub probe_first: bool,
    /// Whether a witness decides who may hold the VIP when the nodes cannot hear each other ([`Action::AskLease`]).
    /// Both nodes of a pair have to agree on it, and on the advert interval.
    pub witness: bool,
    /// The highest epoch that an earlier life of this node knew, 0 if none; see [`super::Machine::epoch`].
    pub epoch: u32,
}

/// Whether a node takes the VIP from a living peer of lower priority (RFC 9568 section 6.1, `Preempt_Mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preempt {
    /// Whoever holds the VIP keeps it.
    Never,
    /// The node of higher priority takes it.
    WhenHigher {
        /// How long it has to be fit and synced before, and at least as long as a backup waits for an advert. During
        /// that time it stands by for the peer as any backup does.
        hold: Duration,
    },
}

/// When a backup claims after it heard the active node resign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resignation {
    /// Right away. In a pair no third node could claim at the same time, so a skew would only be downtime.
    AtOnce,
    /// After the skew, as RFC 9568 section 6.4.2 has it, so that of several backups the best comes first.
    AfterSkew,
}

/// How long a node that begins to take part listens beyond the usual time before its first claim, unless it hears an
/// advert. The two nodes of a pair differ in it, so that of two that start together one claims and the other hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// No longer than usual: the first node of the pair.
    Prompt,
    /// One advert interval longer: the second node.
    Held,
}

/// The states of RFC 9568 section 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Takes no part: starting, unfit or stopped.
    Init,
    /// Listens, ready to take the VIP.
    Backup,
    /// Holds the VIP and sends adverts.
    Active,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Init => "init",
            Self::Backup => "backup",
            Self::Active => "active",
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This node may take part.
    Fit,
    /// This node must not hold the VIP, and why, as a phrase for [`Reason::Unfit`]: `worker exited`.
    Unfit(Cow<'static, str>),
    /// This node is being stopped.
    Stop,
    /// An advert of the peer on any path, valid, authentic and for our virtual router. Everything else stops at
    /// `packet::judge` and the verifier. A hello of an active peer counts as one.
    Heard(Heard),
    /// A fresh and authentic hello of the peer, in whatever state it is. Of an active peer, `Heard` follows it.
    PeerSeen(PeerSeen),
    /// The operator wants the peer to hold the VIP. Answered by exactly one [`Action::HandOverDone`] or
    /// [`Action::HandOverFailed`]; while one is under way, a second one joins it.
    HandOver {
        /// Whether also to a peer that is not in sync or says that it is not fit.
        force: bool,
    },
    /// The active peer asks us to claim the VIP from it.
    ClaimRequested {
        /// [`super::Machine::epoch`] of the peer when it asked. A request from before a later takeover is ignored.
        epoch: u32,
    },
    /// Somebody on the network answers for one of the virtual addresses: who, for a person to read.
    InUse(String),
    /// The witness answered. The shell drops answers to questions from before the last [`Action::GiveLeaseBack`].
    Lease(LeaseAnswer),
    /// Whether this node has what the peer knows. A machine starts with `true`.
    Synced(bool),
    /// The deadline may have passed. Early or repeated, it does nothing.
    Timer,
}

/// What a hello of the peer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSeen {
    /// Its state.
    pub state: State,
    /// How often it says hello: its advert interval, which need not be ours.
    pub interval: AdvertInterval,
    /// Whether it calls itself fit to hold the VIP.
    pub fit: bool,
    /// Whether it has what the active node knows.
    pub synced: bool,
    /// Its [`super::Machine::epoch`].
    pub epoch: u32,
    /// When we sent the newest of our adverts that it says it heard, on any path. Before the peer claims out of
    /// silence, it waits for the active-down interval from there on; with a witness, this is as good as a lease.
    pub acknowledged: Option<Instant>,
}

/// What the witness answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// We have the lease.
    Granted {
        /// Until then, counted from the moment that we asked. The witness counts from when it received the question
        /// and gives the lease to nobody else before.
        until: Instant,
    },
    /// Another node has it.
    Refused {
        /// Who, for a person to read.
        holder: String,
    },
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send an advert with this priority on every path: our own, or 0 to resign.
    SendAdvert {
        /// 0 to 254.
        priority: u8,
    },
    /// Add the virtual addresses and announce them.
    AcquireVip,
    /// Remove the virtual addresses, and stop announcing them. Complete before the next action.
    ReleaseVip,
    /// Announce the virtual addresses once more: somebody else claimed them too.
    Announce,
    /// Throw away every packet that waits in a socket, and what is left of the one at hand: they are from before a stall
    /// and prove nothing.
    DiscardQueued,
    /// Record a change of state; it is done.
    RoleChanged {
        /// The state before.
        from: State,
        /// The state now.
        to: State,
        /// Why.
        reason: Reason,
    },
    /// Send a hello that asks the peer to claim the VIP. [`super::Machine::claim_request`] is what it says.
    RequestClaim,
    /// The peer has the VIP: tell the operator.
    HandOverDone,
    /// The switchover that the operator wanted does not take place: tell the operator.
    HandOverFailed {
        /// Why.
        reason: HandOverRefusal,
    },
    /// Ask the network who answers for the virtual addresses; [`Input::InUse`] if somebody does.
    ProbeAddresses,
    /// Ask the witness for the lease, or to renew it.
    AskLease,
    /// Tell the witness that we need the lease no longer. It may come out of order: the witness has to ignore a
    /// return that is older than our last question.
    GiveLeaseBack,
}

/// Why a switchover does not take place. Displays as a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOverRefusal {
    /// This node does not hold the VIP.
    NotActive,
    /// No hello of the peer came within three of its intervals and the skew.
    PeerNotSeen,
    /// The peer cannot claim, or says that it is not fit.
    PeerUnfit,
    /// The peer has not got all that we know.
    PeerNotSynced,
    /// The peer was asked and did not claim in time; we still hold the VIP.
    PeerDidNotClaim,
    /// This node gave the VIP up for another reason in the meantime.
    Interrupted,
}

impl fmt::Display for HandOverRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotActive => "this node does not hold the VIP",
            Self::PeerNotSeen => "the peer does not answer",
            Self::PeerUnfit => "the peer is not fit",
            Self::PeerNotSynced => "the peer is not in sync",
            Self::PeerDidNotClaim => "the peer was asked and did not claim",
            Self::Interrupted => "this node gave the VIP up for another reason",
        })
    }
}

/// Why the state changed. Displays as a phrase for logs and `baton status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The node became fit.
    Ready,
    /// The peer sent an advert of priority 0.
    PeerResigned,
    /// No advert that counts came for this long.
    PeerSilent(Duration),
    /// The peer is active with a lower priority than ours, this one, and we preempt.
    PeerLower(u8),
    /// The peer is active with a higher priority than ours, this one.
    PeerHigher(u8),
    /// The peer is active with our priority and a higher address than ours, this one.
    PeerAddressHigher(IpAddr),
    /// The active peer asked us to take over.
    PeerHandedOver,
    /// We asked the peer to take over, and it did.
    HandedOver,
    /// The witness did not renew our lease, and the peer did not say that it hears us.
    LostWitness,
    /// The node became unfit, and why.
    Unfit(Cow<'static, str>),
    /// The process was frozen for about this long, long enough for the peer to have taken over.
    Stalled(Duration),
    /// The node is being stopped.
    Stopping,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::PeerResigned => f.write_str("peer resigned"),
            Self::PeerSilent(time) => write!(f, "no advert from the peer for {}", Readable(*time)),
            Self::PeerLower(priority) => write!(f, "peer has lower priority {priority}"),
            Self::PeerHigher(priority) => write!(f, "peer has higher priority {priority}"),
            Self::PeerAddressHigher(address) => write!(f, "peer has the same priority and higher address {address}"),
            Self::PeerHandedOver => f.write_str("peer handed over"),
            Self::HandedOver => f.write_str("handed over to the peer"),
            Self::LostWitness => f.write_str("lost the witness and the peer"),
            Self::Unfit(why) => f.write_str(why),
            Self::Stalled(time) => write!(f, "woke from a stall of {}", Readable(*time)),
            Self::Stopping => f.write_str("stopping"),
        }
    }
}

/// A duration to read: `302 ms`, and from one second on `4.1 s`, cut and not rounded.
struct Readable(Duration);

impl fmt::Display for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms < 1000 { write!(f, "{ms} ms") } else { write!(f, "{}.{} s", ms / 1000, ms % 1000 / 100) }
    }
}

/// What a machine waits for, for `baton explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// To become fit.
    Fitness,
    /// For the peer to fail: we claim when no advert came until then.
    Silence {
        /// When it last spoke, or when we began to listen.
        since: Instant,
        /// When we claim, or ask the witness whether we may.
        until: Instant,
    },
    /// For the skew to pass after the peer resigned.
    Skew {
        /// When we claim.
        until: Instant,
    },
    /// For somebody else to leave the virtual addresses alone, who held them before anybody claimed them.
    AddressInUse {
        /// Who answered for one of them last.
        who: String,
        /// When we look again, or claim when nobody answers any more.
        until: Instant,
    },
    /// For the witness: the peer is silent, and we may claim with the lease only.
    Lease {
        /// When the peer last spoke.
        since: Instant,
        /// Who has the lease, if the witness said so; `None` when it did not answer.
        holder: Option<String>,
        /// When we ask again.
        until: Instant,
    },
    /// For the time to pass that a preferred node has to be fit and synced, while the peer is active.
    Hold {
        /// When we take the VIP back.
        until: Instant,
    },
    /// To be synced, before a preferred node takes the VIP back.
    Sync,
    /// For the peer to give the VIP up: we are preferred, but it was handed over to the peer.
    HandedOver,
    /// For the peer to claim: a switchover is under way.
    Claim {
        /// When we give that up.
        until: Instant,
    },
}
