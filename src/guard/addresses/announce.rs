//! Tells the link which machine holds a VIP now: when, how often, and with which frames.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::place::Placed;
use crate::config::Announce;
use crate::net::clock::Clock;
use crate::net::neighbour::{Announcer, announcement};

/// A frame and the index of the interface that it leaves through.
pub type Outgoing = (u32, Vec<u8>);

/// The announcements of one time: each address as often as the configuration has it, in rounds, so that a frame that is
/// lost with others of the same moment has the next one farther away.
pub fn frames(placed: &[Placed], burst: u32) -> Vec<Outgoing> {
    let of_carrier = |placed: &Placed| {
        let Placed { index, hardware, ref networks, .. } = *placed;
        let of_address = move |address| Some((index, announcement(hardware, address)?));
        networks.iter().filter_map(|network| of_address(network.address())).collect::<Vec<_>>()
    };
    let round: Vec<Outgoing> = placed.iter().flat_map(of_carrier).collect();
    (0..burst).flat_map(|_| round.clone()).collect()
}

/// Repeats announcements that were sent at `started`, as long as it is polled: at the times of the configuration, and
/// from the last of them at its refresh interval.
pub async fn repeat(
    announcer: Arc<Announcer>,
    frames: Vec<Outgoing>,
    schedule: Announce,
    clock: Clock,
    started: Instant,
    advert_interval: Duration,
) {
    let send = || {
        for (interface_index, frame) in &frames {
            // One that is lost is followed by another; the first was logged.
            drop(announcer.send(*interface_index, frame));
        }
    };
    for after in &schedule.repeat {
        sleep_without_stall(clock, started + *after, advert_interval).await;
        send();
    }
    let Some(refresh) = schedule.refresh else { return };
    loop {
        sleep_without_stall(clock, clock.now() + refresh, advert_interval).await;
        send();
    }
}

/// Sleeps until `until`, and longer when the process was stalled meanwhile: what it believes is old then, and the
/// heartbeat, which woke at the same moment, gets an advert interval to release the VIP and so end this task.
async fn sleep_without_stall(clock: Clock, until: Instant, advert_interval: Duration) {
    let mut is_late = false;
    loop {
        let before = clock.now();
        let left = until.saturating_duration_since(before);
        if left.is_zero() && !is_late {
            return;
        }
        // A stall shows in a step no longer than an interval. So a long time ends with one, whatever was before it.
        let is_long = !is_late && left > advert_interval * 2;
        let step = match (is_late, is_long) {
            (true, _) => advert_interval,
            (false, true) => left.saturating_sub(advert_interval),
            (false, false) => left.min(advert_interval),
        };
        sleep(step).await;
        is_late = is_long || clock.now().saturating_duration_since(before) >= step + advert_interval;
    }
}
