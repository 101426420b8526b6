//! With a witness. A right ends 25 ms early, a quarter of an interval; 300.78125 ms after an advert the peer may claim,
//! so 275.78125 ms after it we no longer may hold the VIP on the strength of it.

use super::*;

const ASK: Action = Action::AskLease;
const GIVE_BACK: Action = Action::GiveLeaseBack;

fn backup() -> Bench {
    Bench::backup_with(Parameters { witness: true, ..parameters() })
}

/// Active since 0, because the peer resigned.
fn active() -> Bench {
    let (bench, actions) = Bench::active_with(Parameters { witness: true, ..parameters() });
    let role = changed(State::Backup, State::Active, Reason::PeerResigned);
    assert_eq!(actions, [SEND, Action::AcquireVip, role, ASK]);
    bench
}

/// Silence is over at 360.9375 ms, and the witness has been asked.
fn asked() -> Bench {
    let mut bench = backup();
    bench.at(0, heard(101));
    assert_eq!(bench.at(360_937_499, Input::Timer), []);
    assert_eq!(bench.at(360_937_500, Input::Timer), [ASK]);
    bench
}

fn lost() -> [Action; 4] {
    let role = changed(State::Active, State::Backup, Reason::LostWitness);
    [Action::ReleaseVip, RESIGN, GIVE_BACK, role]
}

impl Bench {
    fn granted(&self, until: u64) -> Input {
        Input::Lease(LeaseAnswer::Granted { until: self.zero + Duration::from_nanos(until) })
    }

    fn acknowledged(&self, sent_at: u64, state: State) -> Input {
        let acknowledged = Some(self.zero + Duration::from_nanos(sent_at));
        Input::PeerSeen(PeerSeen { acknowledged, ..seen(state) })
    }

    fn right_until(&self) -> Option<u64> {
        self.machine.right_until().map(|until| (until - self.zero).as_nanos() as u64)
    }
}

#[test]
fn silence_alone_is_not_enough() {
    let mut bench = asked();
    assert_eq!(bench.state(), State::Backup);
    assert_eq!(bench.at(400_000_000, Input::Timer), []);
    // No answer, and so on for ever.
    for n in 1..100 {
        let at = 360_937_500 + n * 100_000_000;
        assert_eq!(bench.at(at - 1, Input::Timer), []);
        assert_eq!(bench.at(at, Input::Timer), [ASK]);
    }
}

#[test]
fn granted_lease_makes_active() {
    let mut bench = asked();
    let role = changed(State::Backup, State::Active, Reason::PeerSilent(Duration::from_millis(362)));
    assert_eq!(bench.at(362_000_000, bench.granted(660_937_500)), [SEND, Action::AcquireVip, role]);
    assert_eq!(bench.right_until(), Some(635_937_500));
}

#[test]
fn lease_that_is_over_or_about_to_be_is_not_taken() {
    let mut bench = asked();
    assert_eq!(bench.at(362_000_000, bench.granted(387_000_000)), []);
    assert_eq!(bench.state(), State::Backup);
    assert_eq!(bench.at(362_000_000, bench.granted(387_000_001)).len(), 3);
}

#[test]
fn refused_lease_is_asked_for_again_an_interval_later() {
    let mut bench = asked();
    assert_eq!(bench.at(362_000_000, lease_refused()), []);
    let (since, until) = (bench.zero, bench.zero + Duration::from_nanos(460_937_500));
    let holder = Some("lb-b".to_owned());
    assert_eq!(bench.machine.waiting_for(), Some(Waiting::Lease { since, holder, until }));
    assert_eq!(bench.at(460_937_499, Input::Timer), []);
    assert_eq!(bench.at(460_937_500, Input::Timer), [ASK]);
    let until = bench.zero + Duration::from_nanos(560_937_500);
    assert_eq!(bench.machine.waiting_for(), Some(Waiting::Lease { since, holder: None, until }));
}

#[test]
fn lease_goes_back_when_the_peer_spoke_in_the_meantime() {
    let mut bench = asked();
    bench.at(361_000_000, heard(101));
    assert_eq!(bench.at(362_000_000, bench.granted(660_937_500)), [GIVE_BACK]);
    assert_eq!(bench.deadline(), Some(721_937_500));
    let mut bench = asked();
    bench.at(361_000_000, unfit());
    assert_eq!(bench.at(362_000_000, bench.granted(660_937_500)), [GIVE_BACK]);
}

#[test]
fn word_of_the_peer_needs_no_lease_at_first() {
    let mut bench = backup();
    bench.at(0, heard(101));
    let role = changed(State::Backup, State::Active, Reason::PeerHandedOver);
    let request = Input::ClaimRequested { epoch: 0 };
    assert_eq!(bench.at(0, request), [Action::AcquireVip, role]);
    assert_eq!(bench.right_until(), Some(275_781_250));
    assert_eq!(active().right_until(), Some(275_781_250));

    let preempt = Preempt::WhenHigher { hold: Duration::ZERO };
    let mut bench = Bench::backup_with(Parameters { witness: true, preempt, ..parameters() });
    bench.at(300_000_000, heard(99));
    let role = changed(State::Backup, State::Active, Reason::PeerLower(99));
    assert_eq!(bench.at(360_937_500, Input::Timer), [Action::AcquireVip, role]);
    assert_eq!(bench.right_until(), Some(636_718_750));
}

#[test]
fn active_renews_its_lease_with_each_advert() {
    let mut bench = active();
    bench.at(1_000_000, bench.granted(300_000_000));
    assert_eq!(bench.at(100_000_000, Input::Timer), [SEND, ASK]);
    bench.at(101_000_000, bench.granted(400_000_000));
    assert_eq!(bench.right_until(), Some(375_000_000));
    // An older answer takes nothing away.
    bench.at(102_000_000, bench.granted(300_000_000));
    assert_eq!(bench.right_until(), Some(375_000_000));
    assert_eq!(bench.at(200_000_000, Input::Timer), [SEND, ASK]);
}

#[test]
fn active_without_lease_and_peer_gives_up() {
    let mut bench = active();
    bench.at(100_000_000, Input::Timer);
    bench.at(200_000_000, Input::Timer);
    assert_eq!(bench.deadline(), Some(275_781_250));
    assert_eq!(bench.at(275_781_249, Input::Timer), []);
    assert_eq!(bench.at(275_781_250, Input::Timer), lost());
    // Twice the active-down interval, as for whoever resigned.
    assert_eq!(bench.deadline(), Some(997_656_250));
}

#[test]
fn right_that_is_over_is_noticed_by_whatever_comes_first() {
    let over = |input| {
        let mut bench = active();
        bench.at(100_000_000, Input::Timer);
        bench.at(200_000_000, Input::Timer);
        bench.at(275_781_250, input)
    };
    assert_eq!(over(heard(99)), lost());
    assert_eq!(over(Input::Fit), lost());
    assert_eq!(over(Input::Synced(false)), lost());
    assert_eq!(over(Input::HandOver { force: true })[..4], lost());
    assert_eq!(over(unfit())[..4], lost());
    assert_eq!(over(lease_refused()), []);
}

#[test]
fn answer_that_comes_in_the_last_moment_counts() {
    let mut bench = active();
    bench.at(100_000_000, Input::Timer);
    bench.at(200_000_000, Input::Timer);
    assert_eq!(bench.at(275_781_250, bench.granted(500_000_000)), []);
    assert_eq!(bench.at(275_781_250, Input::Timer), []);
    assert_eq!(bench.state(), State::Active);
}

#[test]
fn peer_that_hears_us_is_as_good_as_a_lease() {
    for state in [State::Init, State::Backup] {
        let mut bench = active();
        bench.at(100_000_000, Input::Timer);
        bench.at(102_000_000, bench.acknowledged(100_000_000, state));
        assert_eq!(bench.right_until(), Some(375_781_250));
        bench.at(103_000_000, bench.acknowledged(0, state));
        assert_eq!(bench.right_until(), Some(375_781_250));
    }
}

#[test]
fn active_or_silent_peer_is_as_good_as_nothing() {
    let mut bench = active();
    bench.at(100_000_000, Input::Timer);
    bench.at(102_000_000, bench.acknowledged(100_000_000, State::Active));
    assert_eq!(bench.right_until(), Some(275_781_250));
    bench.at(102_000_000, Input::PeerSeen(seen(State::Backup)));
    assert_eq!(bench.right_until(), Some(275_781_250));
    // What is to come cannot have been heard.
    bench.at(102_000_000, bench.acknowledged(900_000_000, State::Backup));
    assert_eq!(bench.right_until(), Some(377_781_250));
}

#[test]
fn every_way_out_gives_the_lease_back_once_the_addresses_are_gone() {
    let exited = || Reason::Unfit("worker exited".into());
    let role = changed(State::Active, State::Init, exited());
    assert_eq!(active().at(60_000_000, unfit()), [Action::ReleaseVip, RESIGN, GIVE_BACK, role]);
    let role = changed(State::Active, State::Backup, Reason::PeerHigher(101));
    assert_eq!(active().at(60_000_000, heard(101)), [Action::ReleaseVip, SEND, GIVE_BACK, role]);
    let role = changed(State::Active, State::Backup, Reason::Stalled(Duration::from_nanos(200_781_250)));
    let woke = [Action::ReleaseVip, GIVE_BACK, Action::DiscardQueued, role];
    assert_eq!(active().at(300_781_250, Input::Timer), woke);
    let mut bench = active();
    bench.at(50_000_000, Input::PeerSeen(seen(State::Backup)));
    bench.at(50_000_000, Input::HandOver { force: false });
    let role = changed(State::Active, State::Backup, Reason::HandedOver);
    assert_eq!(bench.at(60_000_000, heard(99)), [Action::ReleaseVip, RESIGN, GIVE_BACK, role, Action::HandOverDone]);
    assert_eq!(bench.deadline(), Some(781_875_000));
}

#[test]
fn newcomer_listens_twice_as_long() {
    assert_eq!(backup().deadline(), Some(721_875_000));
    let held = Parameters { witness: true, startup: Startup::Held, ..parameters() };
    assert_eq!(Bench::backup_with(held).deadline(), Some(821_875_000));
    // Until it hears the peer.
    let mut bench = backup();
    bench.at(50_000_000, heard(101));
    assert_eq!(bench.deadline(), Some(410_937_500));
}

#[test]
fn without_a_witness_nobody_asks() {
    let mut bench = Bench::active();
    assert_eq!(bench.machine.right_until(), None);
    for ms in (100..=1000).step_by(100) {
        assert_eq!(bench.at(ms * 1_000_000, Input::Timer), [SEND]);
    }
}

#[test]
fn second_node_lets_the_first_claim_when_the_witness_does_not_answer() {
    let asked = |startup, peer: PeerSeen, answer: Option<Input>| {
        let mut bench = Bench::backup_with(Parameters { witness: true, startup, ..parameters() });
        bench.at(0, heard(101));
        assert_eq!(bench.at(360_937_500, Input::Timer), [ASK]);
        bench.at(361_000_000, Input::PeerSeen(peer));
        if let Some(answer) = answer {
            bench.at(362_000_000, answer);
        }
        (bench.at(460_937_500, Input::Timer), bench.deadline())
    };
    let backup = seen(State::Backup);
    // Twice the active-down interval, as for whoever resigned.
    assert_eq!(asked(Startup::Held, backup, None), (vec![RESIGN], Some(1_182_812_500)));
    let asks_again = (vec![ASK], Some(560_937_500));
    assert_eq!(asked(Startup::Held, backup, Some(lease_refused())), asks_again);
    assert_eq!(asked(Startup::Held, PeerSeen { fit: false, ..backup }, None), asks_again);
    assert_eq!(asked(Startup::Prompt, backup, None), asks_again);
}

#[test]
fn second_node_concedes_only_to_a_peer_seen_within_the_active_down_interval() {
    for (at, action) in [(100_000_000, ASK), (100_000_001, RESIGN)] {
        let mut bench = Bench::backup_with(Parameters { witness: true, startup: Startup::Held, ..parameters() });
        bench.at(0, heard(101));
        bench.at(at, Input::PeerSeen(seen(State::Backup)));
        bench.at(360_937_500, Input::Timer);
        assert_eq!(bench.at(460_937_500, Input::Timer), [action]);
    }
}

#[test]
fn node_whose_peer_takes_no_part_claims_when_the_witness_does_not_answer() {
    let asked = |startup, seen_at, answer: Option<Input>| {
        let mut bench = Bench::backup_with(Parameters { witness: true, startup, ..parameters() });
        bench.at(0, heard(101));
        bench.at(seen_at, Input::PeerSeen(seen(State::Init)));
        assert_eq!(bench.at(360_937_500, Input::Timer), [ASK]);
        if let Some(answer) = answer {
            bench.at(362_000_000, answer);
        }
        bench.at(460_937_500, Input::Timer)
    };
    let role = changed(State::Backup, State::Active, Reason::PeerSilent(Duration::from_nanos(460_937_500)));
    let claim = [SEND, Action::AcquireVip, role, ASK];
    for startup in [Startup::Prompt, Startup::Held] {
        // Two intervals.
        assert_eq!(asked(startup, 260_937_501, None), claim);
        assert_eq!(asked(startup, 260_937_500, None), [ASK]);
        assert_eq!(asked(startup, 300_000_000, Some(lease_refused())), [ASK]);
    }
}

/// A resignation that waited in a queue for who knows how long is no promise of the peer any more.
#[test]
fn backup_that_was_not_called_for_two_intervals_follows_no_resignation() {
    let mut bench = backup();
    bench.at(100_000_000, heard(101));
    let wake = |bench: &mut Bench, ms: u64| bench.machine.handle(bench.zero + Duration::from_millis(ms), heard(0));
    assert_eq!(wake(&mut bench, 300), [Action::DiscardQueued]);
    assert_eq!((bench.state(), bench.deadline()), (State::Backup, Some(660_937_500)));
    bench.at(400_000_000, heard(101));
    assert_eq!(wake(&mut bench, 599).len(), 4);
}

/// Two nodes resign to each other, and each word comes once on every path: neither follows what is from before its own.
#[test]
fn new_backup_follows_no_resignation_at_first() {
    let mut bench = backup();
    assert_eq!(bench.at(49_999_999, heard(0)), []);
    assert_eq!(bench.state(), State::Backup);
    assert_eq!(bench.at(50_000_000, heard(0)).len(), 4);
    assert_eq!(bench.state(), State::Active);
}
