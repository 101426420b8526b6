//! What a node has to be to hold its VIPs. A core: shells look, and tell it what they found; it judges, and says what
//! that means for each VIP. The guard alone calls it.
//!
//! - A [`Check`] watches one [`Subject`] and counts for some of the VIPs. Its [`Severity`] says what becomes of a bad
//!   verdict: a **broken** node gives the VIP up; a **weaker** one, whose servers are down, keeps it, unless the peer says
//!   that it sees more of them ([`comparison`]).
//! - A verdict falls and rises after some findings in a row, and is held down while its subject flaps ([`track`]).
//! - A node that is merely slow ([`Finding::Slow`]) gives a VIP up as well, but not while the peer is unfit.
//! - A worker that does not answer is judged by what its threads are doing ([`silence`]), a listener that does not by
//!   whether it is busy ([`listener`]).

pub mod comparison;
pub mod listener;
pub mod silence;
pub mod track;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Instant;

use self::comparison::Comparison;
pub use self::comparison::Seen;
use self::track::{Standing, Track};

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The worker process: alive and answering.
    Worker,
    /// A listener, by its name: whether the worker answers on it.
    Listener(String),
    /// The carrier of an interface, by its name.
    Carrier(String),
    /// Whether a VIP's addresses could be put on their interface.
    Addresses,
    /// Whether a VIP's adverts can be sent.
    Adverts,
    /// The servers of a pool, by its name.
    Servers(String),
    /// A gateway, by the name of its check.
    Gateway(String),
    /// A command, by the name of its check.
    Command(String),
    /// A file, by the name of its check.
    File(String),
    /// Another process, by the name of its check.
    Process(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Worker => f.write_str("worker"),
            Subject::Listener(name) => write!(f, "listener {name}"),
            Subject::Carrier(interface) => write!(f, "carrier of {interface}"),
            Subject::Addresses => f.write_str("addresses"),
            Subject::Adverts => f.write_str("adverts"),
            Subject::Servers(pool) => write!(f, "servers of {pool}"),
            Subject::Gateway(name) => write!(f, "gateway {name}"),
            Subject::Command(name) => write!(f, "command {name}"),
            Subject::File(name) => write!(f, "file {name}"),
            Subject::Process(name) => write!(f, "process {name}"),
        }
    }
}

/// What a bad verdict means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// "I am broken": the VIPs are given up, and not taken.
    Broken,
    /// "My servers are down": no fault of this node; the VIPs move only if the peer sees more.
    Weaker,
}

/// What a subject counts as before anything was found out about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// As good; it falls after the usual number of findings.
    Open,
    /// As broken, and the first finding decides alone: a node must not take a VIP before it has looked once.
    Closed,
}

/// What is watched, and what it counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is looked at.
    pub subject: Subject,
    /// What a bad verdict means.
    pub severity: Severity,
    /// What it counts as at first.
    pub start: Start,
    /// The VIPs that it counts for, by their place in the configuration.
    pub vips: Vec<usize>,
    /// Bad findings in a row that make it bad, from 1.
    pub fall: u32,
    /// Good findings in a row that make it good again, from 1.
    pub rise: u32,
}

/// A check of a [`Fitness`], in the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId(usize);

/// What one look brought. Each carries its evidence, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As it has to be.
    Good(String),
    /// Not as it has to be.
    Bad(String),
    /// Too slow, as far as can be seen from here. A fault as well, but not of a VIP that is held while the peer cannot take
    /// over: slow service is better than none.
    Slow(String),
    /// It could not be looked at, which is nobody's fault. A subject that was good is unknown then and counts as good; a
    /// broken one is tried again after [`track::TRIAL_AFTER`], as nothing else could ever tell that it works again.
    Untested(String),
}

impl Finding {
    /// The evidence.
    pub fn evidence(&self) -> &str {
        match self {
            Finding::Good(evidence)
            | Finding::Bad(evidence)
            | Finding::Slow(evidence)
            | Finding::Untested(evidence) => evidence,
        }
    }
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// What a look at a subject brought.
    Found {
        /// The check.
        check: CheckId,
        /// What was found.
        finding: Finding,
    },
    /// The servers of a pool, as the worker reports them; for checks of [`Subject::Servers`].
    Servers {
        /// The check.
        check: CheckId,
        /// How many are up.
        up: u16,
        /// Of how many.
        count: u16,
    },
    /// This node's role for a VIP has changed.
    Role {
        /// The VIP.
        vip: usize,
        /// Whether it is active.
        is_active: bool,
    },
    /// What the peer says it sees of a VIP's servers; `None` when it says nothing, is not fit, or runs with another
    /// configuration, so that the numbers cannot be compared.
    Peer {
        /// The VIP.
        vip: usize,
        /// What it sees.
        seen: Option<Seen>,
        /// It says that it cannot hold the VIP.
        is_unfit: bool,
    },
    /// The deadline has passed.
    Timer,
}

/// What follows. Verdicts come first, then what they mean for the VIPs in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The verdict on a subject changed.
    Verdict(CheckId),
    /// The VIP may be held. Also the first word on every VIP that may.
    Fit {
        /// The VIP.
        vip: usize,
    },
    /// The VIP must not be held.
    Unfit {
        /// The VIP.
        vip: usize,
        /// Why, in words.
        reason: String,
    },
    /// The peer has seen more servers of a VIP that is held here, for long enough: hand it over. Repeated every
    /// [`comparison::AGAIN_AFTER`] while that lasts, as a hand-over may be refused.
    PeerSeesMore {
        /// The VIP.
        vip: usize,
        /// What each sees, in words.
        reason: String,
    },
}

/// A verdict as an operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it has to be.
    Good,
    /// Not, and the VIPs cannot be held.
    Broken,
    /// Not, and the VIPs are better held where that is otherwise.
    Weaker,
    /// Not looked at yet, or it cannot be looked at now.
    Unknown,
    /// Good again, but not for long enough to be believed.
    HeldDown,
}

impl State {
    /// As it is written in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Broken => "broken",
            State::Weaker => "weaker",
            State::Unknown => "unknown",
            State::HeldDown => "held_down",
        }
    }
}

/// What is thought of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'track> {
    /// What was looked at.
    pub subject: &'track Subject,
    /// What is thought of it.
    pub state: State,
    /// Why, in words.
    pub evidence: &'track str,
    /// Since when it is thought.
    pub since: Instant,
    /// Whether this keeps the VIPs from being held.
    pub is_fault: bool,
}

/// All checks of a node.
#[derive(Debug, Clone)]
pub struct Fitness {
    tracks: Vec<Track>,
    vips: Vec<VipFitness>,
}

#[derive(Debug, Clone, Default)]
struct VipFitness {
    is_fit: bool,
    /// What counts for it, as places among the tracks.
    tracks: Vec<usize>,
    comparison: Comparison,
    is_active: bool,
    is_peer_unfit: bool,
}

impl VipFitness {
    /// Whether it is held, and there is nobody else to hold it.
    fn is_last(&self) -> bool {
        self.is_fit && self.is_active && self.is_peer_unfit
    }
}

impl Fitness {
    /// A node with this many VIPs and no checks. None of the VIPs is fit until something was told.
    pub fn new(vip_count: usize) -> Self {
        Self { tracks: Vec::new(), vips: vec![VipFitness::default(); vip_count] }
    }

    /// Adds a check.
    pub fn add(&mut self, check: Check, now: Instant) -> CheckId {
        let index = self.tracks.len();
        for vip in &check.vips {
            if let Some(vip) = self.vips.get_mut(*vip) {
                vip.tracks.push(index);
            }
        }
        self.tracks.push(Track::new(check, now));
        CheckId(index)
    }

    /// Goes on with what another one, of the same VIPs, thought of the same subjects.
    pub fn adopt(&mut self, former: &Self) {
        for track in &mut self.tracks {
            let known = former.tracks.iter().find(|known| known.check().subject == track.check().subject);
            known.inspect(|known| track.adopt(known));
        }
        for (vip, known) in self.vips.iter_mut().zip(&former.vips) {
            *vip = VipFitness { tracks: std::mem::take(&mut vip.tracks), ..known.clone() };
        }
    }

    /// Takes what happened and says what follows. A timer that comes too early does no harm.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Change> {
        let mut changes = Vec::new();
        self.let_time_pass(now, &mut changes);
        match input {
            Input::Found { check, finding } => self.found(now, check, finding, &mut changes),
            Input::Servers { check, up, count } => self.servers(now, check, up, count, &mut changes),
            Input::Role { vip, is_active } => {
                if let Some(vip) = self.vips.get_mut(vip) {
                    vip.is_active = is_active;
                    vip.comparison.set_active(is_active);
                }
            }
            Input::Peer { vip, seen, is_unfit } => {
                if let Some(vip) = self.vips.get_mut(vip) {
                    vip.is_peer_unfit = is_unfit;
                    vip.comparison.set_peer(seen);
                }
            }
            Input::Timer => {}
        }
        self.judge_vips(now, &mut changes);
        changes
    }

    /// When to come back with [`Input::Timer`].
    pub fn deadline(&self) -> Option<Instant> {
        let tracks = self.tracks.iter().filter_map(Track::deadline);
        tracks.chain(self.vips.iter().filter_map(|vip| vip.comparison.deadline())).min()
    }

    /// The verdict of a check.
    pub fn verdict(&self, check: CheckId) -> Option<Verdict<'_>> {
        self.tracks.get(check.0).map(Track::verdict)
    }

    /// The VIPs that a check counts for.
    pub fn vips_of(&self, check: CheckId) -> &[usize] {
        self.tracks.get(check.0).map_or(&[], |track| &track.check().vips)
    }

    /// All verdicts that count for a VIP, in the order in which their checks were added.
    pub fn verdicts(&self, vip: usize) -> impl Iterator<Item = Verdict<'_>> {
        self.tracks_of(vip).map(Track::verdict)
    }

    /// What keeps a VIP from being held, in words; empty when it is fit.
    pub fn faults(&self, vip: usize) -> impl Iterator<Item = &str> {
        let is_last = self.vips.get(vip).is_some_and(VipFitness::is_last);
        let counts = move |track: &&Track| !(is_last && track.is_slow());
        self.tracks_of(vip).filter(counts).map(Track::verdict).filter(|verdict| verdict.is_fault).map(|it| it.evidence)
    }

    /// What this node sees of a VIP's servers, for the peer. Pools that nothing is known of count as down.
    pub fn seen(&self, vip: usize) -> Seen {
        self.pools(vip).fold(Seen::default(), |seen, pool| Seen {
            pools_up: seen.pools_up + u16::from(*pool.standing() == Standing::Good),
            servers_up: seen.servers_up.saturating_add(pool.servers_up()),
        })
    }

    fn pools(&self, vip: usize) -> impl Iterator<Item = &Track> {
        let is_pool = |track: &&Track| matches!(track.check().subject, Subject::Servers(_));
        self.tracks_of(vip).filter(is_pool)
    }

    fn tracks_of(&self, vip: usize) -> impl Iterator<Item = &Track> {
        let indexes = self.vips.get(vip).into_iter().flat_map(|vip| &vip.tracks);
        indexes.filter_map(|index| self.tracks.get(*index))
    }

    /// As [`Fitness::seen`], unless there is a pool that nothing is known of: then there is nothing to compare yet.
    fn known(&self, vip: usize) -> Option<Seen> {
        let is_known = |pool: &Track| *pool.standing() != Standing::Unknown;
        self.pools(vip).all(is_known).then(|| self.seen(vip))
    }

    fn found(&mut self, now: Instant, check: CheckId, finding: Finding, changes: &mut Vec<Change>) {
        if let Some(track) = self.tracks.get_mut(check.0)
            && track.record(now, finding)
        {
            changes.push(Change::Verdict(check));
        }
    }

    fn servers(&mut self, now: Instant, check: CheckId, up: u16, count: u16, changes: &mut Vec<Change>) {
        let Some(track) = self.tracks.get_mut(check.0) else { return };
        track.set_servers_up(up);
        let evidence = match &track.check().subject {
            Subject::Servers(pool) => format!("{up} of {count} servers of pool {pool} are up"),
            _ => return,
        };
        self.found(now, check, if up > 0 { Finding::Good(evidence) } else { Finding::Bad(evidence) }, changes);
    }

    fn let_time_pass(&mut self, now: Instant, changes: &mut Vec<Change>) {
        for (index, track) in self.tracks.iter_mut().enumerate() {
            if track.let_time_pass(now) {
                changes.push(Change::Verdict(CheckId(index)));
            }
        }
    }

    fn judge_vips(&mut self, now: Instant, changes: &mut Vec<Change>) {
        for index in 0..self.vips.len() {
            let fault = self.faults(index).next().map(str::to_owned);
            let known = self.known(index);
            let Some(vip) = self.vips.get_mut(index) else { return };
            let was_fit = std::mem::replace(&mut vip.is_fit, fault.is_none());
            match fault {
                Some(reason) if was_fit => changes.push(Change::Unfit { vip: index, reason }),
                None if !was_fit => changes.push(Change::Fit { vip: index }),
                _ => {}
            }
            if let Some(reason) = vip.comparison.judge(now, known) {
                changes.push(Change::PeerSeesMore { vip: index, reason });
            }
        }
    }
}
