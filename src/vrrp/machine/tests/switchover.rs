//! Handing the VIP over, from both ends. Make before break.

use super::*;

const REQUEST: Action = Action::RequestClaim;
const HAND_OVER: Input = Input::HandOver { force: false };
const FORCE: Input = Input::HandOver { force: true };

/// Active since 0, and saw the peer as a fit and synced backup at 50 ms.
fn ready() -> Bench {
    let mut bench = Bench::active();
    assert_eq!(bench.at(50_000_000, Input::PeerSeen(seen(State::Backup))), []);
    bench
}

/// Asked the peer at 60 ms.
fn asked() -> Bench {
    let mut bench = ready();
    assert_eq!(bench.at(60_000_000, HAND_OVER), [REQUEST]);
    bench
}

/// Active since 0, on request of an active peer of whatever priority.
fn asked_to_claim() -> Bench {
    let mut bench = Bench::backup();
    bench.at(0, heard(101));
    assert_eq!(bench.at(0, Input::ClaimRequested { epoch: 0 }).len(), 2);
    assert_eq!(bench.deadline(), Some(0));
    assert_eq!(bench.at(0, Input::Timer), [SEND]);
    assert_eq!(bench.deadline(), Some(100_000_000));
    bench
}

fn handed_over() -> [Action; 4] {
    let role = changed(State::Active, State::Backup, Reason::HandedOver);
    [Action::ReleaseVip, RESIGN, role, Action::HandOverDone]
}

#[test]
fn active_asks_and_releases_when_it_hears_the_claim() {
    for claim in
        [heard(1), heard(99), heard_from(LOWER, 100, 100), heard_from(HIGHER, 100, 100), heard(101), heard(255)]
    {
        let mut bench = asked();
        assert_eq!(bench.machine.claim_request(), Some(1));
        assert_eq!(bench.state(), State::Active);
        assert_eq!(bench.at(61_000_000, claim), handed_over());
        assert_eq!(bench.machine.claim_request(), None);
        assert_eq!(bench.deadline(), Some(421_937_500));
    }
}

#[test]
fn request_is_repeated_with_each_advert() {
    let mut bench = asked();
    assert_eq!(bench.at(100_000_000, Input::Timer), [SEND, REQUEST]);
    assert_eq!(bench.at(150_000_000, Input::Timer), []);
    assert_eq!(bench.at(200_000_000, Input::Timer), [SEND, REQUEST]);
    let until = bench.zero + Duration::from_millis(560);
    assert_eq!(bench.machine.waiting_for(), Some(Waiting::Claim { until }));
}

#[test]
fn second_request_of_the_operator_joins_the_first() {
    let mut bench = asked();
    assert_eq!(bench.at(61_000_000, HAND_OVER), []);
    assert_eq!(bench.at(62_000_000, FORCE), []);
    assert_eq!(bench.at(63_000_000, heard(99)), handed_over());
}

#[test]
fn resignation_of_the_peer_is_not_a_claim() {
    let mut bench = asked();
    assert_eq!(bench.at(61_000_000, heard(0)), [SEND]);
    assert_eq!(bench.machine.claim_request(), Some(1));
}

#[test]
fn peer_gets_half_a_second_to_claim_or_three_intervals() {
    let mut bench = asked();
    for ms in [100, 200, 300, 400, 500] {
        assert_eq!(bench.at(ms * 1_000_000, Input::Timer), [SEND, REQUEST]);
    }
    assert_eq!(bench.deadline(), Some(560_000_000));
    assert_eq!(bench.at(559_999_999, Input::Timer), []);
    assert_eq!(bench.at(560_000_000, Input::Timer), [refused(HandOverRefusal::PeerDidNotClaim)]);
    assert_eq!(bench.state(), State::Active);
    assert_eq!(bench.machine.claim_request(), None);
    assert_eq!(bench.at(600_000_000, Input::Timer), [SEND]);

    let mut bench = Bench::backup_with(Parameters { advert_interval: interval(1000), ..parameters() });
    bench.at(0, heard_from(LOWER, 0, 1000));
    bench.at(0, Input::PeerSeen(seen(State::Backup)));
    bench.at(0, HAND_OVER);
    bench.at(1_000_000_000, Input::Timer);
    bench.at(2_000_000_000, Input::Timer);
    assert_eq!(bench.at(2_999_999_999, Input::Timer), []);
    let did_not = refused(HandOverRefusal::PeerDidNotClaim);
    assert_eq!(bench.at(3_000_000_000, Input::Timer), [did_not, SEND, Action::Announce][..2]);
}

#[test]
fn late_claim_still_counts_for_a_while() {
    let timed_out = || {
        let mut bench = asked();
        for ms in [160, 260, 360, 460, 560] {
            bench.at(ms * 1_000_000, Input::Timer);
        }
        bench
    };
    let role = changed(State::Active, State::Backup, Reason::HandedOver);
    // 560 ms and the active-down interval.
    let mut bench = timed_out();
    bench.at(660_000_000, Input::Timer);
    bench.at(760_000_000, Input::Timer);
    bench.at(860_000_000, Input::Timer);
    assert_eq!(bench.at(920_937_499, heard(99)), [Action::ReleaseVip, RESIGN, role]);
    let mut bench = timed_out();
    bench.at(660_000_000, Input::Timer);
    bench.at(760_000_000, Input::Timer);
    bench.at(860_000_000, Input::Timer);
    assert_eq!(bench.at(920_937_500, heard(99)), [SEND, Action::Announce]);
    // A better node is a better node.
    let higher = changed(State::Active, State::Backup, Reason::PeerHigher(101));
    assert_eq!(timed_out().at(600_000_000, heard(101)), [Action::ReleaseVip, SEND, higher]);
}

#[test]
fn switchover_needs_a_peer_seen_within_the_active_down_interval() {
    let mut bench = ready();
    for ms in [100, 200, 300, 400] {
        bench.at(ms * 1_000_000, Input::Timer);
    }
    assert_eq!(bench.at(410_937_500, FORCE), [refused(HandOverRefusal::PeerNotSeen)]);
    let mut bench = ready();
    for ms in [100, 200, 300, 400] {
        bench.at(ms * 1_000_000, Input::Timer);
    }
    assert_eq!(bench.at(410_937_499, HAND_OVER), [REQUEST]);
}

#[test]
fn switchover_needs_a_peer_that_is_fit_and_synced_unless_forced() {
    use HandOverRefusal::{PeerNotSynced, PeerUnfit};
    let backup = seen(State::Backup);
    let table = [
        (PeerSeen { fit: false, ..backup }, vec![refused(PeerUnfit)], vec![REQUEST]),
        (PeerSeen { synced: false, ..backup }, vec![refused(PeerNotSynced)], vec![REQUEST]),
        (PeerSeen { fit: false, synced: false, ..backup }, vec![refused(PeerUnfit)], vec![REQUEST]),
        // It could not claim.
        (seen(State::Init), vec![refused(PeerUnfit)], vec![refused(PeerUnfit)]),
        // What it was before is what counts until its advert comes.
        (seen(State::Active), vec![REQUEST], vec![REQUEST]),
    ];
    for (peer, asked, forced) in table {
        let mut bench = ready();
        bench.at(55_000_000, Input::PeerSeen(peer));
        assert_eq!(bench.at(60_000_000, HAND_OVER), asked, "{peer:?}");
        let mut bench = ready();
        bench.at(55_000_000, Input::PeerSeen(peer));
        assert_eq!(bench.at(60_000_000, FORCE), forced, "{peer:?}");
    }
}

#[test]
fn switchover_that_is_interrupted_is_answered() {
    let interrupted = || refused(HandOverRefusal::Interrupted);
    let role = changed(State::Active, State::Init, Reason::Unfit("worker exited".into()));
    assert_eq!(asked().at(70_000_000, unfit()), [Action::ReleaseVip, RESIGN, role, interrupted()]);
    for input in [Input::Timer, HAND_OVER, heard(99)] {
        let role = changed(State::Active, State::Backup, Reason::Stalled(Duration::from_nanos(200_781_250)));
        let woke = [Action::ReleaseVip, Action::DiscardQueued, role, interrupted()];
        assert_eq!(asked().at(300_781_250, input), woke);
    }
}

#[test]
fn standby_claims_at_once_when_asked() {
    let mut bench = Bench::backup();
    bench.at(50_000_000, heard(101));
    let role = changed(State::Backup, State::Active, Reason::PeerHandedOver);
    assert_eq!(bench.at(60_000_000, Input::ClaimRequested { epoch: 0 }), [Action::AcquireVip, role]);
    // The request comes on, and again on the other path.
    assert_eq!(bench.at(60_000_000, Input::ClaimRequested { epoch: 0 }), []);
}

#[test]
fn claimer_does_not_give_way_to_the_one_that_asked_for_the_active_down_interval() {
    for priority in [99, 101, 255] {
        let mut bench = asked_to_claim();
        assert_eq!(bench.at(10_000_000, heard(priority)), []);
        bench.at(100_000_000, Input::Timer);
        bench.at(200_000_000, Input::Timer);
        bench.at(300_000_000, Input::Timer);
        assert_eq!(bench.at(360_937_499, heard(priority)), []);
        assert_eq!(bench.state(), State::Active);
    }
    let mut bench = asked_to_claim();
    bench.at(100_000_000, Input::Timer);
    bench.at(200_000_000, Input::Timer);
    bench.at(300_000_000, Input::Timer);
    let role = changed(State::Active, State::Backup, Reason::PeerHigher(101));
    assert_eq!(bench.at(360_937_500, heard(101)), [Action::ReleaseVip, SEND, role]);
}

#[test]
fn claimer_announces_again_when_the_other_has_released() {
    let mut bench = asked_to_claim();
    assert_eq!(bench.at(30_000_000, heard(0)), [SEND]);
    assert_eq!(bench.at(130_000_000, Input::Timer), [SEND, Action::Announce]);
}

#[test]
fn claimer_can_hand_back_at_once() {
    let mut bench = asked_to_claim();
    bench.at(30_000_000, heard(0));
    bench.at(40_000_000, Input::PeerSeen(seen(State::Backup)));
    assert_eq!(bench.at(50_000_000, HAND_OVER), [REQUEST]);
    assert_eq!(bench.at(60_000_000, heard(101)), handed_over());
}

#[test]
fn old_active_claims_again_when_the_new_one_resigns_or_dies() {
    let mut bench = asked();
    bench.at(70_000_000, heard(99));
    assert_eq!(bench.at(80_000_000, heard(0)).len(), 3);
    let mut bench = asked();
    bench.at(70_000_000, heard(99));
    assert_eq!(bench.at(430_937_499, Input::Timer), []);
    assert_eq!(bench.at(430_937_500, Input::Timer).len(), 3);
}

#[test]
fn refusals_read_as_phrases() {
    let cases = [
        (HandOverRefusal::NotActive, "this node does not hold the VIP"),
        (HandOverRefusal::PeerNotSeen, "the peer does not answer"),
        (HandOverRefusal::PeerUnfit, "the peer is not fit"),
        (HandOverRefusal::PeerNotSynced, "the peer is not in sync"),
        (HandOverRefusal::PeerDidNotClaim, "the peer was asked and did not claim"),
        (HandOverRefusal::Interrupted, "this node gave the VIP up for another reason"),
    ];
    for (refusal, text) in cases {
        assert_eq!(refusal.to_string(), text);
    }
}
