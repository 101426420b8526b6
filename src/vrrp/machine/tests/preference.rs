//! When a preferred node takes the VIP back.

use super::*;

/// Prefers to be active, after being fit and synced for a second.
fn preferred(hold_ms: u64) -> Bench {
    let hold = Duration::from_millis(hold_ms);
    Bench::backup_with(Parameters { preempt: Preempt::WhenHigher { hold }, ..parameters() })
}

fn preemption(of: u8) -> [Action; 2] {
    [Action::AcquireVip, changed(State::Backup, State::Active, Reason::PeerLower(of))]
}

impl Bench {
    /// Adverts of the peer each 100 ms, from `from` to `to`, in milliseconds.
    fn hears(&mut self, from: u64, to: u64, priority: u8) {
        for ms in (from..=to).step_by(100) {
            assert_eq!(self.at(ms * 1_000_000, heard(priority)), []);
            assert_eq!(self.at(ms * 1_000_000, Input::Timer), []);
        }
    }

    fn waits_for_hold_until(&self, nanos: u64) -> bool {
        let until = self.zero + Duration::from_nanos(nanos);
        self.machine.waiting_for() == Some(Waiting::Hold { until })
    }
}

#[test]
fn preferred_node_takes_the_vip_back_after_its_hold_time() {
    let mut bench = preferred(1000);
    bench.hears(50, 950, 99);
    assert!(bench.waits_for_hold_until(1_000_000_000));
    assert_eq!(bench.deadline(), Some(1_000_000_000));
    assert_eq!(bench.at(999_999_999, Input::Timer), []);
    assert_eq!(bench.at(1_000_000_000, Input::Timer), preemption(99));
}

#[test]
fn preferred_node_waits_for_the_active_down_interval_at_least() {
    let mut bench = preferred(0);
    bench.hears(50, 350, 99);
    assert_eq!(bench.deadline(), Some(360_937_500));
    assert_eq!(bench.at(360_937_499, Input::Timer), []);
    assert_eq!(bench.at(360_937_500, Input::Timer), preemption(99));
}

#[test]
fn only_a_lower_priority_is_preempted() {
    for (priority, deadline) in [(99, 360_937_500), (100, 710_937_500), (101, 710_937_500)] {
        let mut bench = preferred(0);
        bench.hears(50, 350, priority);
        assert_eq!(bench.deadline(), Some(deadline), "{priority}");
    }
    let mut bench = preferred(0);
    bench.hears(50, 250, 99);
    bench.hears(350, 350, 101);
    assert_eq!(bench.at(400_000_000, Input::Timer), []);
}

#[test]
fn node_without_a_preference_leaves_the_lesser_one_alone() {
    let mut bench = Bench::backup();
    bench.hears(50, 10_050, 99);
    assert_eq!(bench.state(), State::Backup);
}

#[test]
fn peer_that_dies_during_the_hold_time_is_noticed() {
    let mut bench = preferred(30_000);
    bench.hears(50, 450, 99);
    assert_eq!(bench.deadline(), Some(810_937_500));
    assert_eq!(bench.at(810_937_499, Input::Timer), []);
    let silence = Reason::PeerSilent(Duration::from_nanos(360_937_500));
    let claim = [SEND, Action::AcquireVip, changed(State::Backup, State::Active, silence)];
    assert_eq!(bench.at(810_937_500, Input::Timer), claim);
}

#[test]
fn silence_counts_before_the_end_of_the_hold_time() {
    let mut bench = preferred(500);
    bench.hears(50, 50, 99);
    // Both are over at once when the timer comes late.
    let silence = Reason::PeerSilent(Duration::from_millis(500));
    let claim = [SEND, Action::AcquireVip, changed(State::Backup, State::Active, silence)];
    assert_eq!(bench.at(550_000_000, Input::Timer), claim);
}

#[test]
fn hold_time_begins_anew_when_sync_is_lost() {
    let mut bench = preferred(1000);
    bench.hears(50, 450, 99);
    bench.at(500_000_000, Input::Synced(false));
    assert_eq!(bench.machine.waiting_for(), Some(Waiting::Sync));
    bench.hears(550, 1450, 99);
    assert_eq!(bench.deadline(), Some(1_810_937_500));
    bench.at(1_500_000_000, Input::Synced(true));
    assert!(bench.waits_for_hold_until(2_500_000_000));
    // Saying so again changes nothing.
    bench.at(1_510_000_000, Input::Synced(true));
    bench.hears(1550, 2450, 99);
    assert_eq!(bench.at(2_499_999_999, Input::Timer), []);
    assert_eq!(bench.at(2_500_000_000, Input::Timer), preemption(99));
}

#[test]
fn sync_is_no_condition_of_a_failover() {
    let mut bench = preferred(1000);
    bench.at(0, Input::Synced(false));
    assert_eq!(bench.at(360_937_500, Input::Timer).first(), Some(&SEND));
}

#[test]
fn hold_time_begins_anew_when_the_node_becomes_fit_again_or_wakes() {
    let mut bench = preferred(1000);
    bench.hears(50, 450, 99);
    bench.at(500_000_000, unfit());
    bench.at(600_000_000, Input::Fit);
    bench.hears(650, 650, 99);
    assert!(bench.waits_for_hold_until(1_600_000_000));

    let mut bench = preferred(1000);
    bench.hears(50, 50, 99);
    assert_eq!(bench.at(900_000_000, Input::Timer), [Action::DiscardQueued]);
    bench.hears(950, 950, 99);
    assert!(bench.waits_for_hold_until(1_900_000_000));
}

#[test]
fn preference_rests_after_a_switchover_until_the_node_is_active_again() {
    let mut bench = preferred(0);
    bench.at(0, heard(0));
    bench.at(50_000_000, Input::PeerSeen(seen(State::Backup)));
    bench.at(50_000_000, Input::HandOver { force: false });
    bench.at(60_000_000, heard(99));
    assert_eq!(bench.state(), State::Backup);
    bench.hears(150, 10_050, 99);
    assert_eq!(bench.machine.waiting_for(), Some(Waiting::HandedOver));
    // Neither does it come back by becoming fit again.
    bench.at(10_100_000_000, unfit());
    bench.at(10_110_000_000, Input::Fit);
    bench.hears(10_150, 12_050, 99);
    // The peer becomes unfit.
    assert_eq!(bench.at(12_100_000_000, heard(0)).len(), 3);
    bench.at(12_200_000_000, heard(200));
    assert_eq!(bench.state(), State::Backup);
    bench.hears(12_250, 12_550, 99);
    assert_eq!(bench.at(12_600_000_000, Input::Timer), preemption(99));
}
