//! What a node knows of its lease on one VIP.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Key, Kind, LEASE_MAX, LEASE_MIN, Message, Name, Rejection, wire_ms};

/// Questions whose answers are still taken; of more, the oldest are forgotten.
const OPEN_MAX: usize = 8;

/// A datagram to the witness.
pub type Datagram = Vec<u8>;

/// A node's lease on one VIP.
#[derive(Debug)]
pub struct Client {
    key: Key,
    vip: Name,
    node: Name,
    boot: u64,
    number: u64,
    /// Boot and latest stamp of the witness.
    witness: (u64, u64),
    open: VecDeque<Question>,
    /// Until when we hold the lease, by our count.
    held_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    number: u64,
    kind: Kind,
    asked: Instant,
    time: Duration,
    /// Asked once more already, because the first one had an old stamp.
    is_repeated: bool,
}

/// What a client leaves to one that goes on for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Legacy {
    boot: u64,
    number: u64,
    witness: (u64, u64),
    held_left: Option<Duration>,
}

/// What the witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The lease is ours.
    Granted {
        /// Until then, unless it is renewed: counted from the moment at which we asked, so it may have passed.
        until: Instant,
    },
    /// The lease is not ours, or not yet.
    Refused(Refusal),
    /// Our stamp was too old: send this at once.
    Again(Datagram),
    /// The witness is there; nothing that was asked for depends on it.
    Seen {
        /// Who holds the lease, as far as the witness knows.
        holder: Option<Name>,
    },
}

/// Why the lease is not ours. Displays as who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another has it.
    Held {
        /// This node; with our own name an earlier process of ours.
        holder: Name,
        /// For so long, unless it is renewed.
        left: Duration,
    },
    /// The witness has just started and does not know who had it.
    Starting {
        /// It will know in this time.
        left: Duration,
    },
    /// The witness has no room.
    Full,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { holder, .. } => holder.fmt(f),
            Self::Starting { .. } => f.write_str("whoever had it before the witness was restarted"),
            Self::Full => f.write_str("nobody: the table of the witness is full"),
        }
    }
}

impl Client {
    /// Holds nothing. `boot` is random and never 0: it tells this process from others under the same name.
    pub fn new(key: Key, node: Name, vip: Name, boot: u64) -> Self {
        Self { key, vip, node, boot, number: 0, witness: (0, 0), open: VecDeque::new(), held_until: None }
    }

    /// What the next process of this node goes on with.
    pub fn leave(&self, now: Instant) -> Legacy {
        let held_left = self.held_until.map(|until| until.saturating_duration_since(now));
        Legacy { boot: self.boot, number: self.number, witness: self.witness, held_left }
    }

    /// Goes on with what another process left, `passed` before `now`: for the witness it is the same one.
    pub fn take_over(&mut self, now: Instant, legacy: &Legacy, passed: Duration) {
        (self.boot, self.number, self.witness) = (legacy.boot, legacy.number, legacy.witness);
        self.held_until = legacy.held_left.map(|left| now + left.saturating_sub(passed));
    }

    /// Asks for the lease, or to keep it, for `time` ([`LEASE_MIN`] to [`LEASE_MAX`], cut to that).
    pub fn ask(&mut self, now: Instant, time: Duration) -> Datagram {
        // Repeated now, a return of what was held before would return this.
        self.open.retain(|question| question.kind != Kind::GiveBack);
        self.question(now, Kind::Ask, time.clamp(LEASE_MIN, LEASE_MAX), false)
    }

    /// Gives the lease back. From here on it is not ours, whether the witness hears of it or not; it runs out then.
    pub fn give_back(&mut self, now: Instant) -> Datagram {
        self.held_until = None;
        // An answer to what was asked before must not make it ours again.
        self.open.clear();
        self.question(now, Kind::GiveBack, Duration::ZERO, false)
    }

    /// Asks who has it, which also keeps the stamp fresh: so that a later [`ask`](Self::ask) is granted at once.
    pub fn look(&mut self, now: Instant) -> Datagram {
        self.question(now, Kind::Look, Duration::ZERO, false)
    }

    /// Whether the lease is ours, by our count.
    pub fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| until > now)
    }

    /// Takes a datagram of the witness.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn answer(&mut self, now: Instant, datagram: &[u8]) -> Result<Answer, Rejection> {
        let (_, answer) = Message::decode(datagram, std::slice::from_ref(&self.key))?;
        let question = self.open.iter().find(|question| question.number == answer.number).copied();
        let is_ours = answer.node_boot == self.boot && answer.vip == self.vip;
        let question = question.filter(|_| is_ours).ok_or(Rejection::Unasked)?;
        // What was asked before it is out of date: a refusal that comes late must not undo what was granted since.
        self.open.retain(|open| open.number > answer.number);
        self.note_stamp(&answer);
        let left = Duration::from_millis(u64::from(answer.time_ms));
        match (question.kind, answer.kind) {
            (Kind::Ask, Kind::Granted) => Ok(self.granted(&question, left)),
            (Kind::Ask, Kind::Refused) => {
                let holder = answer.node.ok_or(Rejection::Name)?;
                Ok(self.refused(Refusal::Held { holder, left }))
            }
            (Kind::Ask, Kind::Starting) => Ok(self.refused(Refusal::Starting { left })),
            (Kind::Ask, Kind::Full) => Ok(self.refused(Refusal::Full)),
            (Kind::Ask | Kind::GiveBack, Kind::Stale) => Ok(self.again(now, &question)),
            (Kind::GiveBack | Kind::Look, Kind::Refused | Kind::Free | Kind::Full) => {
                Ok(Answer::Seen { holder: answer.node })
            }
            _ => Err(Rejection::Kind),
        }
    }

    fn question(&mut self, now: Instant, kind: Kind, time: Duration, is_repeated: bool) -> Datagram {
        self.number += 1;
        if self.open.len() >= OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(Question { number: self.number, kind, asked: now, time, is_repeated });
        let (witness_boot, stamp) = self.witness;
        let message = Message {
            kind,
            holds: self.is_held(now),
            node_boot: self.boot,
            number: self.number,
            witness_boot,
            stamp,
            time_ms: wire_ms(time),
            vip: self.vip.clone(),
            node: Some(self.node.clone()),
        };
        message.encode(&self.key)
    }

    /// Keeps the latest stamp. Of another boot it is always the latest: an answer of a witness that has ended can only come
    /// late by a little, costs one question more, and lends nothing.
    fn note_stamp(&mut self, answer: &Message) {
        if answer.witness_boot != self.witness.0 || answer.stamp > self.witness.1 {
            self.witness = (answer.witness_boot, answer.stamp);
        }
    }

    /// The time begins when we asked, which was before the witness counted.
    fn granted(&mut self, question: &Question, time: Duration) -> Answer {
        let until = question.asked + time.min(question.time);
        let until = self.held_until.map_or(until, |held| held.max(until));
        self.held_until = Some(until);
        Answer::Granted { until }
    }

    /// The witness knows better, whatever we counted.
    fn refused(&mut self, refusal: Refusal) -> Answer {
        self.held_until = None;
        Answer::Refused(refusal)
    }

    /// Once only: a witness whose stamps are never good enough would have us ask for ever.
    fn again(&mut self, now: Instant, question: &Question) -> Answer {
        if question.is_repeated {
            return Answer::Seen { holder: None };
        }
        Answer::Again(self.question(now, question.kind, question.time, true))
    }
}
