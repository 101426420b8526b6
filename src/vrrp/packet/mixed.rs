//! Two versions from one peer: which one counts.

use std::time::{Duration, Instant};

use super::{DropReason, Heard, Version};

/// A version counts as spoken for this many of its own intervals after an advert in it: the three that may be missed,
/// and the longest skew.
const SPOKEN_INTERVALS: u32 = 4;

/// Ignores VRRPv2 from a peer that also speaks VRRPv3 (RFC 5798 section 8.4.2): its adverts come twice, and those in
/// VRRPv2 tell the interval in whole seconds, which is not the one at which it sends.
///
/// One for each path and virtual router that hears both versions, behind [`super::judge`] and the verifier, so that
/// nothing but the peer itself can silence the peer.
#[derive(Debug, Clone, Default)]
pub struct MixedFilter {
    v3_spoken_until: Option<Instant>,
}

impl MixedFilter {
    /// Hears both versions until the peer speaks VRRPv3.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an advert counts.
    ///
    /// # Errors
    /// [`DropReason::SupersededVersion`] for one in VRRPv2 within four intervals of one in VRRPv3.
    pub fn admit(&mut self, now: Instant, heard: &Heard) -> Result<(), DropReason> {
        match heard.version {
            Version::V3 => {
                let spoken: Duration = heard.interval.get() * SPOKEN_INTERVALS;
                self.v3_spoken_until = Some(now + spoken);
                Ok(())
            }
            Version::V2 if self.v3_spoken_until.is_some_and(|until| now < until) => Err(DropReason::SupersededVersion),
            Version::V2 => Ok(()),
        }
    }
}
