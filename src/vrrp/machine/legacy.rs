//! The machine across a change of the program: what one process leaves, and how the next one goes on with it as if it had
//! been the same, so that neither the peer nor an operator sees a change of role.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::backup::Watch;
use super::{Machine, Parameters, Phase, State};

/// What a machine leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Legacy {
    /// Its state.
    pub state: State,
    /// Takeovers of the VIP that it knew of.
    pub epoch: u32,
    /// The VIP was handed over to the peer, so its preference rested.
    pub handed_over: bool,
    /// How often the peer speaks.
    pub peer_interval: Duration,
    /// With a witness and active: for how long it had a right to the VIP.
    pub right_left: Option<Duration>,
}

impl Machine {
    /// What the next process goes on with. The last advert of this one has to be out.
    pub fn leave(&self, now: Instant) -> Legacy {
        Legacy {
            state: self.state(),
            epoch: self.epoch,
            handed_over: self.handed_over,
            peer_interval: self.peer_interval,
            right_left: self.right_until().map(|until| until.saturating_duration_since(now)),
        }
    }

    /// Goes on with what another process left, `passed` before `now`. An active machine's next advert is due at once; a
    /// backup waits for the peer from now on, as it heard nothing meanwhile. A switchover that was under way is not.
    pub fn resume(parameters: Parameters, now: Instant, legacy: &Legacy, passed: Duration) -> Self {
        let mut machine = Self::new(parameters, now);
        machine.epoch = machine.epoch.max(legacy.epoch);
        machine.handed_over = legacy.handed_over;
        machine.peer_interval = legacy.peer_interval;
        machine.phase = match legacy.state {
            State::Init => Phase::Init,
            State::Backup => Phase::Backup(Watch::new(now, machine.patience_of_a_newcomer())),
            State::Active => {
                let mut claim = machine.claim(now);
                claim.advert_at = now;
                if let Some(left) = legacy.right_left {
                    claim.right_until = now + left.saturating_sub(passed);
                }
                Phase::Active(claim)
            }
        };
        machine
    }
}
