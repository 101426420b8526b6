//! What the service manager is told (sd_notify(3)). Without one, nothing happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// The node serves: its listeners are bound and its VIPs take part.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The node stops.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// The role of each VIP, for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Feeds the watchdog for as long as the heartbeat's pulse rises, where there is a heartbeat; that this task runs shows
/// that the guard's own runtime does.
pub async fn feed_watchdog(pulse: Option<Arc<AtomicU64>>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut turns = tokio::time::interval((limit / 3).max(Duration::from_millis(250)));
    let mut last = None;
    loop {
        turns.tick().await;
        let now = pulse.as_ref().map(|pulse| pulse.load(Ordering::Relaxed));
        if now.is_none() || now != std::mem::replace(&mut last, now) {
            send(&[NotifyState::Watchdog]);
        }
    }
}

/// A service manager that cannot be reached is no reason to stop serving.
fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
