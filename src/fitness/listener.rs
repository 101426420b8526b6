//! What it means that a connection to one of our own listeners was or was not answered.
//!
//! The probe comes in like a client, so that it fails like a client's when too many come: at the connection limit, or
//! when the kernel's queue is full. That is no reason to move the VIP, which would move the crowd along with it. So an
//! unanswered probe counts only when the worker took nobody else's connection either and was at no limit.

use super::Finding;

/// What the worker says of a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections accepted since the worker started, by all its threads.
    pub accepted: u64,
    /// Sockets on which nothing is accepted now: there are as many connections as may be, or no descriptors left.
    pub full_sockets: u64,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// The worker reacted, after so many milliseconds.
    Answered {
        /// That time.
        after_ms: u64,
    },
    /// Nothing came, or the kernel refused, in words.
    Failed(String),
    /// The probe could not be made, in words.
    NotMade(String),
}

/// Judges a probe with what the worker said of the listener before and after it.
pub fn judge(before: Load, after: Load, reaction: Reaction) -> Finding {
    let reason = match reaction {
        Reaction::Answered { after_ms } => return Finding::Good(format!("it answered in {after_ms} ms")),
        Reaction::NotMade(reason) => return Finding::Untested(reason),
        Reaction::Failed(reason) => reason,
    };
    if before.full_sockets > 0 || after.full_sockets > 0 {
        return Finding::Untested(format!("it takes no more connections for now ({reason})"));
    }
    match after.accepted.checked_sub(before.accepted) {
        None => Finding::Untested(format!("the worker was restarted ({reason})")),
        // The probe itself may be one of them: accepted, and then not answered.
        Some(0 | 1) => Finding::Slow(reason),
        Some(others) => Finding::Untested(format!("it is busy: it took {others} connections meanwhile ({reason})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(accepted: u64, full_sockets: u64) -> Load {
        Load { accepted, full_sockets }
    }

    #[test]
    fn only_an_idle_listener_that_does_not_answer_is_bad() {
        let failed = || Reaction::Failed("no reaction within 500 ms".to_owned());
        let table = [
            (load(7, 0), load(8, 0), Reaction::Answered { after_ms: 2 }, Finding::Good("it answered in 2 ms".into())),
            (load(7, 2), load(7, 2), Reaction::Answered { after_ms: 2 }, Finding::Good("it answered in 2 ms".into())),
            (load(7, 0), load(7, 0), failed(), Finding::Slow("no reaction within 500 ms".into())),
            (load(7, 0), load(8, 0), failed(), Finding::Slow("no reaction within 500 ms".into())),
            (
                load(7, 0),
                load(9, 0),
                failed(),
                Finding::Untested("it is busy: it took 2 connections meanwhile (no reaction within 500 ms)".into()),
            ),
            (
                load(7, 1),
                load(7, 0),
                failed(),
                Finding::Untested("it takes no more connections for now (no reaction within 500 ms)".into()),
            ),
            (
                load(7, 0),
                load(7, 1),
                failed(),
                Finding::Untested("it takes no more connections for now (no reaction within 500 ms)".into()),
            ),
            (
                load(7, 0),
                load(0, 0),
                failed(),
                Finding::Untested("the worker was restarted (no reaction within 500 ms)".into()),
            ),
            (load(7, 0), load(7, 0), Reaction::NotMade("no address".into()), Finding::Untested("no address".into())),
        ];
        for (before, after, reaction, expected) in table {
            assert_eq!(judge(before, after, reaction.clone()), expected, "{before:?} {after:?} {reaction:?}");
        }
    }
}
