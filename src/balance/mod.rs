//! Picks a server of a pool. A core, used by `proxy`.

pub mod rendezvous;

/// What a pick has to know of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// May be given requests: up, and not tried for this request already.
    pub eligible: bool,
    /// Used only when no other server is eligible.
    pub backup: bool,
}

/// Each server in turn.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: usize,
}

impl RoundRobin {
    /// Starts at a server, so that threads that start together do not all begin with the first.
    pub fn starting_at(next: usize) -> Self {
        Self { next }
    }

    /// The index of the next eligible server; a backup only when nothing else is eligible, `None` when nothing is.
    pub fn pick(&mut self, count: usize, candidate: impl Fn(usize) -> Candidate) -> Option<usize> {
        let start = if self.next < count { self.next } else { 0 };
        let in_turn = || (start..count).chain(0..start);
        let picked = in_turn()
            .find(|&index| candidate(index).eligible && !candidate(index).backup)
            .or_else(|| in_turn().find(|&index| candidate(index).eligible))?;
        self.next = picked + 1;
        Some(picked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Candidate = Candidate { eligible: true, backup: false };
    const DOWN: Candidate = Candidate { eligible: false, backup: false };
    const SPARE: Candidate = Candidate { eligible: true, backup: true };

    fn picks(servers: &[Candidate], count: usize) -> Vec<Option<usize>> {
        let mut policy = RoundRobin::default();
        (0..count).map(|_| policy.pick(servers.len(), |index| servers[index])).collect()
    }

    #[test]
    fn servers_are_picked_in_turn() {
        assert_eq!(picks(&[UP, UP, UP], 5), [Some(0), Some(1), Some(2), Some(0), Some(1)]);
    }

    #[test]
    fn a_server_that_is_down_is_passed_over() {
        assert_eq!(picks(&[UP, DOWN, UP], 4), [Some(0), Some(2), Some(0), Some(2)]);
    }

    #[test]
    fn a_backup_serves_only_when_nothing_else_does() {
        assert_eq!(picks(&[UP, SPARE], 2), [Some(0), Some(0)]);
        assert_eq!(picks(&[DOWN, SPARE], 2), [Some(1), Some(1)]);
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        assert_eq!(picks(&[DOWN], 1), [None]);
        assert_eq!(picks(&[], 1), [None]);
    }
}
