//! Failover drills: a pair under load, events that should not hurt it, and proof of what they did to its clients.
//!
//! One engine plays every drill, on a pair of real machines that scripts reach ([`remote`]) and on one in network namespaces
//! of this machine ([`rehearsal`], which is `baton demo`). Calls block, and nothing is printed here: whoever plays a drill
//! hands in a [`Spectator`].
//!
//! | file | what it holds |
//! |---|---|
//! | [`site`] | what a drill needs of a pair: look at it, strike it, mend it |
//! | [`remote`] | a pair behind scripts: over SSH, in containers, on this machine |
//! | [`watch`] | a session with each of its nodes that says how it is, all the time |
//! | [`rehearsal`] | the pair of the lab |
//! | [`target`] | where clients ask, from the scenario's URLs |
//! | [`roles`] | which node had which role when |
//! | [`engine`] | waits, strikes, mends |
//! | [`play`] | one event from its beginning to its verdict |
//! | [`outcome`] | what came of it: figures, verdicts, limits |
//! | [`timeline`] | an event over time, in columns |
//! | [`report`] | all of that as a table, JSON, JUnit and a page |

pub mod engine;
pub mod outcome;
pub mod play;
pub mod rehearsal;
pub mod remote;
pub mod report;
pub mod roles;
pub mod site;
pub mod target;
pub mod timeline;
pub mod watch;

use crate::lab::LabError;
use crate::status::NodeStatus;

/// Why a drill did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// A signal asked for it.
    Interrupted {
        /// Its number.
        signal: u8,
    },
    /// The scenario is not about the pair that was found, in words, with what to do.
    Mistaken(String),
    /// Something did not happen that should have, in words.
    Failed(String),
}

impl From<LabError> for Halt {
    fn from(error: LabError) -> Self {
        Halt::Failed(error.to_string())
    }
}

/// Who watches a drill, and may end it.
pub trait Spectator {
    /// Something has happened.
    fn say(&mut self, text: &str);
    /// Whether it is time for another [`Spectator::show`].
    fn is_due(&self) -> bool;
    /// How things are.
    fn show(&mut self, sight: &Sight);
    /// The number of the signal that asks the drill to end.
    fn signal(&self) -> Option<u8>;
}

/// How things are.
#[derive(Debug)]
pub struct Sight {
    /// What is going on.
    pub scene: String,
    /// What each node says.
    pub statuses: [Option<NodeStatus>; 2],
    /// Good answers in the last second; `None` before the load starts.
    pub requests_a_second: Option<u64>,
    /// Requests that have failed since the event began.
    pub failed: u64,
}
