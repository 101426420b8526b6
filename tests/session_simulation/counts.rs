//! How often what happened, to see that a simulation tests something.

use baton::session::replica::Fault;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    pub bytes: u64,
    pub writes: u64,
    pub clears: u64,
    pub facts_written: u64,
    pub facts_received: u64,
    pub wakes: u64,
    pub starts: u64,
    pub crashes: u64,
    pub restored: u64,
    pub takeovers: u64,
    pub duals: u64,
    pub connections: u64,
    pub breaks: u64,
    pub holds: u64,
    pub old_connections: u64,
    pub old_pieces: u64,
    pub silences: u64,
    pub farewells: u64,
    pub settled: u64,
    pub equal: u64,
    pub equal_in_order: u64,
    pub equal_facts: u64,
    pub requests: u64,
    pub equal_counters: u64,
    pub lag_max: u64,
    pub under_way_max: u64,
}

impl Counts {
    pub fn fault(&mut self, fault: &Fault) {
        match fault {
            Fault::Silent => self.silences += 1,
            _ => self.farewells += 1,
        }
    }

    pub fn add(&mut self, other: &Counts) {
        let (lag_max, under_way_max) = (self.lag_max.max(other.lag_max), self.under_way_max.max(other.under_way_max));
        for (sum, more) in self.all_mut().into_iter().zip(other.clone().all_mut()) {
            *sum += *more;
        }
        (self.lag_max, self.under_way_max) = (lag_max, under_way_max);
    }

    fn all_mut(&mut self) -> [&mut u64; 27] {
        [
            &mut self.events,
            &mut self.bytes,
            &mut self.writes,
            &mut self.clears,
            &mut self.facts_written,
            &mut self.facts_received,
            &mut self.wakes,
            &mut self.starts,
            &mut self.crashes,
            &mut self.restored,
            &mut self.takeovers,
            &mut self.duals,
            &mut self.connections,
            &mut self.breaks,
            &mut self.holds,
            &mut self.old_connections,
            &mut self.old_pieces,
            &mut self.silences,
            &mut self.farewells,
            &mut self.settled,
            &mut self.equal,
            &mut self.equal_in_order,
            &mut self.equal_facts,
            &mut self.requests,
            &mut self.equal_counters,
            &mut self.lag_max,
            &mut self.under_way_max,
        ]
    }

    /// A simulation in which nothing happens proves nothing.
    pub fn assert_everything_happened(&mut self) {
        let shown = format!("{self:#?}");
        assert!(self.all_mut().iter().all(|count| **count >= 10), "{shown}");
    }
}
