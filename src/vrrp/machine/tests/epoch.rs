//! The count of takeovers.

use super::*;

#[test]
fn epoch_grows_by_one_at_each_takeover() {
    let mut bench = Bench::active();
    assert_eq!(bench.machine.epoch(), 1);
    bench.at(50_000_000, heard(101));
    assert_eq!(bench.machine.epoch(), 1);
    bench.at(60_000_000, heard(0));
    assert_eq!(bench.machine.epoch(), 2);
}

#[test]
fn epoch_goes_on_from_an_earlier_life_and_from_what_the_peer_knows() {
    let mut bench = Bench::backup_with(Parameters { epoch: 41, ..parameters() });
    assert_eq!(bench.machine.epoch(), 41);
    bench.at(0, heard(0));
    assert_eq!(bench.machine.epoch(), 42);

    for state in [State::Init, State::Backup, State::Active] {
        let mut bench = Bench::backup();
        bench.at(0, Input::PeerSeen(PeerSeen { epoch: 7, ..seen(state) }));
        bench.at(0, Input::PeerSeen(PeerSeen { epoch: 5, ..seen(state) }));
        assert_eq!(bench.machine.epoch(), 7);
        bench.at(0, heard(0));
        assert_eq!(bench.machine.epoch(), 8);
    }
}

#[test]
fn last_epoch_is_not_passed() {
    let mut bench = Bench::backup_with(Parameters { epoch: u32::MAX, ..parameters() });
    bench.at(0, heard(0));
    assert_eq!(bench.machine.epoch(), u32::MAX);
}

#[test]
fn request_from_before_a_later_takeover_is_ignored() {
    let with_epoch_3 = || {
        let mut bench = Bench::backup();
        bench.at(0, Input::PeerSeen(PeerSeen { epoch: 3, ..seen(State::Active) }));
        bench
    };
    let mut bench = with_epoch_3();
    assert_eq!(bench.at(1, Input::ClaimRequested { epoch: 2 }), []);
    assert_eq!(bench.at(1, Input::ClaimRequested { epoch: 3 }).len(), 2);
    assert_eq!(bench.machine.epoch(), 4);
    let mut bench = with_epoch_3();
    assert_eq!(bench.at(1, Input::ClaimRequested { epoch: 9 }).len(), 2);
    assert_eq!(bench.machine.epoch(), 10);
}

/// The peer was active after us and gave way when it heard us, and what it said then was lost: neighbours know it alone.
#[test]
fn peer_that_counts_more_takeovers_makes_an_active_node_announce() {
    for state in [State::Init, State::Backup] {
        let mut bench = Bench::active();
        bench.at(50_000_000, Input::PeerSeen(PeerSeen { epoch: 1, ..seen(state) }));
        assert_eq!(bench.at(100_000_000, Input::Timer), [SEND]);
        assert_eq!(bench.at(150_000_000, Input::PeerSeen(PeerSeen { epoch: 2, ..seen(state) })), []);
        assert_eq!(bench.at(200_000_000, Input::Timer), [SEND, Action::Announce]);
        bench.at(250_000_000, Input::PeerSeen(PeerSeen { epoch: 2, ..seen(state) }));
        assert_eq!(bench.at(300_000_000, Input::Timer), [SEND]);
    }
}

/// The peer was cut off and may have been active meanwhile, by the same count of takeovers as ours.
#[test]
fn peer_that_comes_back_makes_an_active_node_announce() {
    let mut bench = Bench::active();
    assert_eq!(bench.at(100_000_000, Input::Timer), [SEND]);
    assert_eq!(bench.at(200_000_000, Input::Timer), [SEND]);
    assert_eq!(bench.at(300_000_000, Input::Timer), [SEND]);
    // The last hello was 350 ms ago, and three intervals and the skew are 360.9375 ms.
    assert_eq!(bench.at(300_000_000, Input::PeerSeen(seen(State::Backup))), []);
    assert_eq!(bench.at(400_000_000, Input::Timer), [SEND]);
    for ms in [500, 600, 700] {
        assert_eq!(bench.at(ms * 1_000_000, Input::Timer), [SEND]);
    }
    assert_eq!(bench.at(700_000_000, Input::PeerSeen(seen(State::Backup))), []);
    assert_eq!(bench.at(800_000_000, Input::Timer), [SEND, Action::Announce]);
}
