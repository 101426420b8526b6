//! The transition table, literally, and both sides of every boundary. Faults in combination: `tests/simulation.rs`.
//!
//! Everywhere: priority 100 and interval 100 ms, so a skew of 156/256 × 100 ms = 60.9375 ms, an active-down interval of
//! 360.9375 ms, and 300.78125 ms until a peer of priority 254 may have taken over.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::units::{AdvertInterval, Priority, VirtualRouterId};
use crate::vrrp::packet::Version;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
const LOWER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 4));
const HIGHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 6));

mod epoch;
mod preference;
mod probing;
mod switchover;
mod witness;

const SEND: Action = Action::SendAdvert { priority: 100 };
const RESIGN: Action = Action::SendAdvert { priority: 0 };

/// A machine and a time line that starts at zero nanoseconds.
struct Bench {
    machine: Machine,
    zero: Instant,
}

impl Bench {
    fn new(parameters: Parameters) -> Self {
        let zero = Instant::now();
        Self { machine: Machine::new(parameters, zero), zero }
    }

    fn init() -> Self {
        Self::new(parameters())
    }

    /// Backup since 0.
    fn backup() -> Self {
        Self::backup_with(parameters())
    }

    fn backup_with(parameters: Parameters) -> Self {
        let mut bench = Self::new(parameters);
        bench.at(0, Input::Fit);
        bench
    }

    /// Active since 0, because the peer resigned, of which the last hello came 50 ms before.
    fn active() -> Self {
        Self::active_with(parameters()).0
    }

    /// And what it did then.
    fn active_with(parameters: Parameters) -> (Self, Vec<Action>) {
        let mut bench = Self::backup_with(parameters);
        bench.at(0, Input::PeerSeen(seen(State::Active)));
        bench.zero += Duration::from_millis(50);
        let actions = bench.at(0, heard(0));
        assert_eq!(bench.machine.state(), State::Active);
        (bench, actions)
    }

    fn at(&mut self, nanos: u64, input: Input) -> Vec<Action> {
        let at = self.zero + Duration::from_nanos(nanos);
        let interval = self.machine.parameters.advert_interval.get();
        // With a witness the shell calls once an interval, which alone changes nothing.
        while self.machine.parameters.witness && self.machine.ran_at + interval < at {
            let tick = self.machine.ran_at + interval;
            if self.machine.deadline().is_some_and(|deadline| deadline <= tick) {
                break;
            }
            assert_eq!(self.machine.handle(tick, Input::Timer), []);
        }
        self.machine.handle(at, input)
    }

    fn state(&self) -> State {
        self.machine.state()
    }

    /// In nanoseconds since zero.
    fn deadline(&self) -> Option<u64> {
        self.machine.deadline().map(|deadline| (deadline - self.zero).as_nanos() as u64)
    }
}

fn parameters() -> Parameters {
    Parameters {
        virtual_router_id: VirtualRouterId::new(51).unwrap(),
        priority: Priority::new(100).unwrap(),
        advert_interval: interval(100),
        preempt: Preempt::Never,
        resignation: Resignation::AtOnce,
        startup: Startup::Prompt,
        probe_first: false,
        witness: false,
        epoch: 0,
    }
}

fn interval(ms: u64) -> AdvertInterval {
    AdvertInterval::new(Duration::from_millis(ms)).unwrap()
}

fn heard(priority: u8) -> Input {
    heard_from(LOWER, priority, 100)
}

fn heard_from(source: IpAddr, priority: u8, interval_ms: u64) -> Input {
    Input::Heard(Heard {
        source,
        local: LOCAL,
        priority,
        interval: interval(interval_ms),
        version: Version::V3,
        addresses_differ: false,
    })
}

fn seen(state: State) -> PeerSeen {
    PeerSeen { state, interval: interval(100), fit: true, synced: true, epoch: 0, acknowledged: None }
}

fn unfit() -> Input {
    Input::Unfit("worker exited".into())
}

fn in_use() -> Input {
    Input::InUse("02:00:00:00:00:09".into())
}

fn lease_refused() -> Input {
    Input::Lease(LeaseAnswer::Refused { holder: "lb-b".into() })
}

fn refused(reason: HandOverRefusal) -> Action {
    Action::HandOverFailed { reason }
}

fn changed(from: State, to: State, reason: Reason) -> Action {
    Action::RoleChanged { from, to, reason }
}

#[test]
fn transition_table() {
    use Action::{AcquireVip, ReleaseVip};
    use HandOverRefusal::{NotActive, PeerNotSeen};
    use State::{Active, Backup, Init};
    type Row = (State, Input, State, Option<u64>, Vec<Action>);
    let granted = Input::Lease(LeaseAnswer::Granted { until: Instant::now() + Duration::from_secs(9) });
    let exited = || Reason::Unfit("worker exited".into());
    // Every input 50 ms after the state was entered: state, input, new state, new deadline in ns, actions.
    let table: Vec<Row> = vec![
        (Init, Input::Fit, Backup, Some(410_937_500), vec![changed(Init, Backup, Reason::Ready)]),
        (Init, unfit(), Init, None, vec![]),
        (Init, Input::Stop, Init, None, vec![]),
        (Init, heard(0), Init, None, vec![]),
        (Init, heard(99), Init, None, vec![]),
        (Init, heard(255), Init, None, vec![]),
        (Init, Input::Timer, Init, None, vec![]),
        (Init, Input::PeerSeen(seen(Backup)), Init, None, vec![]),
        (Init, Input::HandOver { force: true }, Init, None, vec![refused(NotActive)]),
        (Init, Input::ClaimRequested { epoch: 9 }, Init, None, vec![]),
        (Init, in_use(), Init, None, vec![]),
        (Init, Input::Synced(false), Init, None, vec![]),
        (Init, granted.clone(), Init, None, vec![Action::GiveLeaseBack]),
        (Init, lease_refused(), Init, None, vec![]),
        (Backup, Input::Fit, Backup, Some(360_937_500), vec![]),
        (Backup, unfit(), Init, None, vec![changed(Backup, Init, exited())]),
        (Backup, Input::Stop, Init, None, vec![changed(Backup, Init, Reason::Stopping)]),
        (
            Backup,
            heard(0),
            Active,
            Some(150_000_000),
            vec![SEND, AcquireVip, changed(Backup, Active, Reason::PeerResigned)],
        ),
        (Backup, heard(1), Backup, Some(410_937_500), vec![]),
        (Backup, heard(99), Backup, Some(410_937_500), vec![]),
        (Backup, heard(100), Backup, Some(410_937_500), vec![]),
        (Backup, heard(255), Backup, Some(410_937_500), vec![]),
        (Backup, Input::Timer, Backup, Some(360_937_500), vec![]),
        (Backup, Input::PeerSeen(seen(Backup)), Backup, Some(360_937_500), vec![]),
        (Backup, Input::HandOver { force: true }, Backup, Some(360_937_500), vec![refused(NotActive)]),
        (
            Backup,
            Input::ClaimRequested { epoch: 0 },
            Active,
            Some(50_000_000),
            vec![AcquireVip, changed(Backup, Active, Reason::PeerHandedOver)],
        ),
        (Backup, in_use(), Backup, Some(360_937_500), vec![]),
        (Backup, Input::Synced(false), Backup, Some(360_937_500), vec![]),
        (Backup, granted.clone(), Backup, Some(360_937_500), vec![Action::GiveLeaseBack]),
        (Backup, lease_refused(), Backup, Some(360_937_500), vec![]),
        (Active, Input::Fit, Active, Some(100_000_000), vec![]),
        (Active, unfit(), Init, None, vec![ReleaseVip, RESIGN, changed(Active, Init, exited())]),
        (Active, Input::Stop, Init, None, vec![ReleaseVip, RESIGN, changed(Active, Init, Reason::Stopping)]),
        (Active, heard(0), Active, Some(150_000_000), vec![SEND]),
        (Active, heard(1), Active, Some(100_000_000), vec![SEND]),
        (Active, heard(99), Active, Some(100_000_000), vec![SEND]),
        (Active, heard_from(LOWER, 100, 100), Active, Some(100_000_000), vec![SEND]),
        (
            Active,
            heard_from(HIGHER, 100, 100),
            Backup,
            Some(410_937_500),
            vec![ReleaseVip, SEND, changed(Active, Backup, Reason::PeerAddressHigher(HIGHER))],
        ),
        (
            Active,
            heard(101),
            Backup,
            Some(410_937_500),
            vec![ReleaseVip, SEND, changed(Active, Backup, Reason::PeerHigher(101))],
        ),
        (
            Active,
            heard(255),
            Backup,
            Some(410_937_500),
            vec![ReleaseVip, SEND, changed(Active, Backup, Reason::PeerHigher(255))],
        ),
        (Active, Input::PeerSeen(seen(Backup)), Active, Some(100_000_000), vec![]),
        (Active, Input::HandOver { force: true }, Active, Some(100_000_000), vec![refused(PeerNotSeen)]),
        (Active, Input::ClaimRequested { epoch: 9 }, Active, Some(100_000_000), vec![]),
        (Active, in_use(), Active, Some(100_000_000), vec![]),
        (Active, Input::Synced(false), Active, Some(100_000_000), vec![]),
        (Active, granted.clone(), Active, Some(100_000_000), vec![]),
        (Active, lease_refused(), Active, Some(100_000_000), vec![]),
        (Active, Input::Timer, Active, Some(100_000_000), vec![]),
    ];
    for (from, input, to, deadline, actions) in table {
        let mut bench = match from {
            Init => Bench::init(),
            Backup => Bench::backup(),
            Active => Bench::active(),
        };
        let row = format!("{from} and {input:?}");
        assert_eq!(bench.at(50_000_000, input), actions, "{row}");
        assert_eq!(bench.state(), to, "{row}");
        assert_eq!(bench.deadline(), deadline, "{row}");
    }
}

#[test]
fn backup_claims_at_its_deadline_and_not_before() {
    let mut bench = Bench::backup();
    assert_eq!(bench.at(360_937_499, Input::Timer), []);
    assert_eq!(bench.state(), State::Backup);
    let silence = Reason::PeerSilent(Duration::from_nanos(360_937_500));
    assert_eq!(
        bench.at(360_937_500, Input::Timer),
        [SEND, Action::AcquireVip, changed(State::Backup, State::Active, silence)]
    );
    assert_eq!(bench.deadline(), Some(460_937_500));
}

#[test]
fn skew_follows_priority() {
    let deadline = |priority| {
        let priority = Priority::new(priority).unwrap();
        Bench::backup_with(Parameters { priority, ..parameters() }).deadline()
    };
    assert_eq!(deadline(1), Some(399_609_375));
    assert_eq!(deadline(128), Some(350_000_000));
    assert_eq!(deadline(254), Some(300_781_250));
}

#[test]
fn shortest_and_longest_interval_give_exact_timers() {
    let deadline = |ms| Bench::backup_with(Parameters { advert_interval: interval(ms), ..parameters() }).deadline();
    assert_eq!(deadline(10), Some(36_093_750));
    assert_eq!(deadline(40_950), Some(147_803_906_250));
}

#[test]
fn second_node_listens_one_interval_longer_at_first() {
    let held = Parameters { startup: Startup::Held, ..parameters() };
    assert_eq!(Bench::backup_with(held.clone()).deadline(), Some(460_937_500));
    // Once it heard an advert there is nothing to hold back for.
    let mut bench = Bench::backup_with(held.clone());
    bench.at(50_000_000, heard(100));
    assert_eq!(bench.deadline(), Some(410_937_500));
    // After each return from Init it may again start together with its peer.
    bench.at(60_000_000, unfit());
    bench.at(70_000_000, Input::Fit);
    assert_eq!(bench.deadline(), Some(530_937_500));
}

#[test]
fn backup_learns_the_interval_of_the_peer() {
    let mut bench = Bench::backup();
    bench.at(50_000_000, heard_from(HIGHER, 200, 1000));
    assert_eq!(bench.deadline(), Some(3_659_375_000));
    bench.at(60_000_000, heard_from(HIGHER, 200, 10));
    assert_eq!(bench.deadline(), Some(96_093_750));
}

#[test]
fn learned_interval_is_forgotten_in_init() {
    let mut bench = Bench::backup();
    bench.at(0, heard_from(HIGHER, 200, 1000));
    bench.at(0, unfit());
    bench.at(0, Input::Fit);
    assert_eq!(bench.deadline(), Some(360_937_500));
}

#[test]
fn own_adverts_keep_our_own_interval_whatever_was_learned() {
    let mut bench = Bench::backup();
    bench.at(0, heard_from(HIGHER, 200, 1000));
    bench.at(0, heard_from(HIGHER, 0, 1000));
    assert_eq!(bench.state(), State::Active);
    assert_eq!(bench.deadline(), Some(100_000_000));
}

#[test]
fn backup_of_many_claims_a_skew_after_the_resignation() {
    let mut bench = Bench::backup_with(Parameters { resignation: Resignation::AfterSkew, ..parameters() });
    assert_eq!(bench.at(50_000_000, heard(0)), []);
    assert_eq!(bench.state(), State::Backup);
    assert_eq!(bench.deadline(), Some(110_937_500));
    assert_eq!(bench.at(110_937_499, Input::Timer), []);
    let resigned = changed(State::Backup, State::Active, Reason::PeerResigned);
    assert_eq!(bench.at(110_937_500, Input::Timer), [SEND, Action::AcquireVip, resigned]);
}

#[test]
fn adverts_keep_their_beat_when_the_timer_comes_late() {
    let mut bench = Bench::active();
    assert_eq!(bench.at(99_999_999, Input::Timer), []);
    assert_eq!(bench.at(130_000_000, Input::Timer), [SEND]);
    assert_eq!(bench.deadline(), Some(200_000_000));
    assert_eq!(bench.at(200_000_000, Input::Timer), [SEND]);
    assert_eq!(bench.deadline(), Some(300_000_000));
}

#[test]
fn missed_adverts_are_not_made_up_for() {
    let mut bench = Bench::active();
    assert_eq!(bench.at(199_999_999, Input::Timer), [SEND]);
    assert_eq!(bench.deadline(), Some(200_000_000));
    let mut bench = Bench::active();
    assert_eq!(bench.at(200_000_000, Input::Timer), [SEND]);
    assert_eq!(bench.deadline(), Some(300_000_000));
    let mut bench = Bench::active();
    assert_eq!(bench.at(290_000_000, Input::Timer), [SEND]);
    assert_eq!(bench.deadline(), Some(390_000_000));
}

#[test]
fn spurious_timers_do_nothing() {
    for mut bench in [Bench::init(), Bench::backup(), Bench::active()] {
        let (state, deadline) = (bench.state(), bench.deadline());
        for _ in 0..3 {
            assert_eq!(bench.at(10_000_000, Input::Timer), []);
        }
        assert_eq!((bench.state(), bench.deadline()), (state, deadline));
    }
}

#[test]
fn winner_announces_at_most_once_an_interval_and_once_more_after_the_last_rival() {
    let mut bench = Bench::active();
    // The claim itself announced at 0.
    assert_eq!(bench.at(99_999_999, heard(99)), [SEND]);
    assert_eq!(bench.at(100_000_000, heard(99)), [Action::Announce]);
    assert_eq!(bench.at(100_000_000, Input::Timer), [SEND]);
    assert_eq!(bench.at(199_999_999, heard(99)), [SEND]);
    // The rival has released by now. What it announced last is overwritten, once.
    assert_eq!(bench.at(200_000_000, Input::Timer), [SEND, Action::Announce]);
    assert_eq!(bench.at(300_000_000, Input::Timer), [SEND]);
    assert_eq!(bench.at(400_000_000, Input::Timer), [SEND]);
}

#[test]
fn active_announces_again_after_a_rival_resigned() {
    let mut bench = Bench::active();
    assert_eq!(bench.at(50_000_000, heard(0)), [SEND]);
    assert_eq!(bench.at(150_000_000, Input::Timer), [SEND, Action::Announce]);
    assert_eq!(bench.at(250_000_000, Input::Timer), [SEND]);
}

#[test]
fn advert_that_comes_on_two_paths_is_answered_once() {
    let mut bench = Bench::active();
    assert_eq!(bench.at(60_000_000, heard(99)), [SEND]);
    assert_eq!(bench.at(60_100_000, heard(99)), []);
    assert_eq!(bench.at(84_999_999, heard(99)), []);
    assert_eq!(bench.at(85_000_000, heard(99)), [SEND]);

    let mut bench = Bench::active();
    assert_eq!(bench.at(60_000_000, heard(0)), [SEND]);
    assert_eq!(bench.at(60_100_000, heard(0)), []);
    assert_eq!(bench.deadline(), Some(160_000_000));

    let mut bench = Bench::active();
    assert_eq!(bench.at(60_000_000, heard(101)).len(), 3);
    assert_eq!(bench.at(60_100_000, heard(101)), []);
    assert_eq!(bench.deadline(), Some(421_037_500));
}

#[test]
fn advert_that_the_resignation_overtook_is_ignored() {
    for priority in [1, 99, 100, 101, 255] {
        let mut bench = Bench::active();
        assert_eq!(bench.at(49_999_999, heard_from(HIGHER, priority, 100)), [], "{priority}");
        assert_eq!(bench.state(), State::Active);
        assert_ne!(bench.at(50_000_000, heard_from(HIGHER, priority, 100)), [], "{priority}");
    }
    // At most an interval.
    let mut bench = Bench::backup();
    bench.at(0, heard_from(LOWER, 101, 10));
    bench.at(0, heard_from(LOWER, 0, 10));
    assert_eq!(bench.at(9_999_999, heard(101)), []);
    assert_ne!(bench.at(10_000_000, heard(101)), []);
}

#[test]
fn active_that_gives_way_waits_by_the_interval_of_the_winner() {
    let mut bench = Bench::active();
    bench.at(50_000_000, heard_from(HIGHER, 200, 1000));
    assert_eq!(bench.deadline(), Some(3_659_375_000));
}

#[test]
fn unfit_and_stop_are_idempotent() {
    for input in [unfit(), Input::Stop] {
        let mut bench = Bench::active();
        assert_eq!(bench.at(0, input.clone()).len(), 3);
        assert_eq!(bench.at(0, input.clone()), []);
        assert_eq!(bench.at(0, unfit()), []);
        assert_eq!(bench.at(0, Input::Stop), []);
        assert_eq!(bench.state(), State::Init);
    }
}

#[test]
fn active_that_slept_until_the_peer_may_have_claimed_releases_and_says_nothing() {
    for input in [Input::Timer, Input::Fit, heard(0), heard(99), heard(255)] {
        let mut bench = Bench::active();
        assert_eq!(
            bench.at(300_781_250, input.clone()),
            [
                Action::ReleaseVip,
                Action::DiscardQueued,
                changed(State::Active, State::Backup, Reason::Stalled(Duration::from_nanos(200_781_250))),
            ],
            "{input:?}"
        );
        assert_eq!(bench.deadline(), Some(661_718_750), "{input:?}");
    }
}

#[test]
fn active_that_slept_less_goes_on() {
    let mut bench = Bench::active();
    assert_eq!(bench.at(300_781_249, Input::Timer), [SEND]);
    assert_eq!(bench.state(), State::Active);
    let mut bench = Bench::active();
    assert_eq!(bench.at(300_781_249, heard(99)), [SEND, Action::Announce]);
}

#[test]
fn patience_of_the_peer_counts_from_our_last_advert_of_any_kind() {
    let mut bench = Bench::active();
    assert_eq!(bench.at(50_000_000, heard(99)), [SEND]);
    assert_eq!(bench.at(350_781_249, Input::Timer), [SEND, Action::Announce]);
    assert_eq!(bench.state(), State::Active);
}

#[test]
fn patience_of_the_peer_is_a_matter_of_our_own_interval() {
    let mut bench = Bench::backup();
    bench.at(0, heard_from(HIGHER, 200, 1000));
    bench.at(0, heard_from(HIGHER, 0, 1000));
    assert_eq!(bench.at(300_781_250, Input::Timer).first(), Some(&Action::ReleaseVip));
    // And then waits by the interval of the peer, who is active by now: 3 s and a skew of 609.375 ms.
    assert_eq!(bench.deadline(), Some(3_910_156_250));
}

#[test]
fn active_that_wakes_unfit_or_stopping_leaves_without_a_word() {
    for (input, reason) in [(unfit(), Reason::Unfit("worker exited".into())), (Input::Stop, Reason::Stopping)] {
        let mut bench = Bench::active();
        assert_eq!(
            bench.at(300_781_250, input),
            [Action::ReleaseVip, Action::DiscardQueued, changed(State::Active, State::Init, reason)]
        );
        assert_eq!(bench.deadline(), None);
    }
}

#[test]
fn backup_that_overslept_by_its_patience_starts_to_wait_anew() {
    for input in [Input::Timer, Input::Fit, heard(0), heard(99), heard(255)] {
        let mut bench = Bench::backup();
        assert_eq!(bench.at(721_875_000, input.clone()), [Action::DiscardQueued], "{input:?}");
        assert_eq!(bench.state(), State::Backup);
        assert_eq!(bench.deadline(), Some(1_082_812_500), "{input:?}");
    }
}

#[test]
fn what_wakes_a_node_is_not_lost() {
    // A switchover is refused, a lease goes back, and sync is noted.
    let handover = Input::HandOver { force: true };
    let mut bench = Bench::active();
    assert_eq!(bench.at(300_781_250, handover.clone()).last(), Some(&refused(HandOverRefusal::NotActive)));
    let mut bench = Bench::backup();
    let not_active = refused(HandOverRefusal::NotActive);
    assert_eq!(bench.at(721_875_000, handover), [Action::DiscardQueued, not_active]);
    let mut bench = Bench::backup();
    let granted = Input::Lease(LeaseAnswer::Granted { until: bench.zero + Duration::from_secs(9) });
    assert_eq!(bench.at(721_875_000, granted), [Action::DiscardQueued, Action::GiveLeaseBack]);
    let prefers = Parameters { preempt: Preempt::WhenHigher { hold: Duration::ZERO }, ..parameters() };
    let mut bench = Bench::backup_with(prefers);
    bench.at(721_875_000, Input::Synced(false));
    bench.at(722_000_000, heard(99));
    assert_eq!(bench.machine.waiting_for(), Some(Waiting::Sync));
}

#[test]
fn backup_that_overslept_less_claims() {
    let mut bench = Bench::backup();
    assert_eq!(bench.at(721_874_999, Input::Timer).first(), Some(&SEND));
    assert_eq!(bench.state(), State::Active);
}

#[test]
fn backup_that_wakes_unfit_or_stopping_leaves() {
    for (input, reason) in [(unfit(), Reason::Unfit("worker exited".into())), (Input::Stop, Reason::Stopping)] {
        let mut bench = Bench::backup();
        assert_eq!(bench.at(721_875_000, input), [Action::DiscardQueued, changed(State::Backup, State::Init, reason)]);
    }
}

#[test]
fn init_never_stalls() {
    let mut bench = Bench::init();
    assert_eq!(bench.at(86_400_000_000_000, Input::Timer), []);
    assert_eq!(bench.at(86_400_000_000_000, Input::Fit), [changed(State::Init, State::Backup, Reason::Ready)]);
}

#[test]
fn since_and_reason_tell_when_and_why_the_state_was_entered() {
    let mut bench = Bench::active();
    bench.at(100_000_000, Input::Timer);
    assert_eq!(bench.machine.since(), bench.zero);
    assert_eq!(bench.machine.reason(), Some(&Reason::PeerResigned));
    bench.at(150_000_000, Input::Stop);
    assert_eq!(bench.machine.since(), bench.zero + Duration::from_millis(150));
    assert_eq!(bench.machine.reason(), Some(&Reason::Stopping));
    assert_eq!(Bench::init().machine.reason(), None);
}

#[test]
fn reasons_read_as_phrases() {
    let cases = [
        (Reason::Ready, "ready"),
        (Reason::PeerResigned, "peer resigned"),
        (Reason::PeerSilent(Duration::from_micros(302_900)), "no advert from the peer for 302 ms"),
        (Reason::PeerSilent(Duration::from_millis(999)), "no advert from the peer for 999 ms"),
        (Reason::PeerSilent(Duration::from_millis(1000)), "no advert from the peer for 1.0 s"),
        (Reason::PeerLower(90), "peer has lower priority 90"),
        (Reason::PeerHigher(250), "peer has higher priority 250"),
        (Reason::PeerAddressHigher(HIGHER), "peer has the same priority and higher address 10.0.0.6"),
        (Reason::PeerHandedOver, "peer handed over"),
        (Reason::HandedOver, "handed over to the peer"),
        (Reason::LostWitness, "lost the witness and the peer"),
        (Reason::Unfit("worker exited".into()), "worker exited"),
        (Reason::Stalled(Duration::from_millis(4190)), "woke from a stall of 4.1 s"),
        (Reason::Stopping, "stopping"),
    ];
    for (reason, text) in cases {
        assert_eq!(reason.to_string(), text);
    }
}
