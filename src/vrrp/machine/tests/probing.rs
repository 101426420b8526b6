//! The first wait, in which nobody may be using the addresses.

use super::*;

const PROBE: Action = Action::ProbeAddresses;

fn prober() -> Bench {
    let mut bench = Bench::new(Parameters { probe_first: true, ..parameters() });
    assert_eq!(bench.at(0, Input::Fit), [changed(State::Init, State::Backup, Reason::Ready), PROBE]);
    bench
}

#[test]
fn unused_addresses_are_claimed_in_time() {
    let mut bench = prober();
    assert_eq!(bench.deadline(), Some(360_937_500));
    assert_eq!(bench.at(360_937_500, Input::Timer).len(), 3);
    assert_eq!(bench.state(), State::Active);
}

#[test]
fn used_addresses_are_left_alone_until_nobody_answers_any_more() {
    let mut bench = prober();
    assert_eq!(bench.at(1_000_000, in_use()), []);
    let who = "02:00:00:00:00:09".to_owned();
    let until = bench.zero + Duration::from_millis(1001);
    assert_eq!(bench.machine.waiting_for(), Some(Waiting::AddressInUse { who, until }));
    assert_eq!(bench.at(300_000_000, in_use()), []);
    assert_eq!(bench.at(1_299_999_999, Input::Timer), []);
    assert_eq!(bench.at(1_300_000_000, Input::Timer), [PROBE]);
    assert_eq!(bench.at(1_300_000_000, Input::Timer), []);
    assert_eq!(bench.at(1_301_000_000, in_use()), []);
    assert_eq!(bench.at(2_301_000_000, Input::Timer), [PROBE]);
    // Nobody this time.
    assert_eq!(bench.at(3_300_999_999, Input::Timer), []);
    let silence = Reason::PeerSilent(Duration::from_millis(3301));
    let claim = [SEND, Action::AcquireVip, changed(State::Backup, State::Active, silence)];
    assert_eq!(bench.at(3_301_000_000, Input::Timer), claim);
}

#[test]
fn wait_for_used_addresses_is_no_shorter_than_the_usual_one() {
    let mut bench = Bench::new(Parameters { probe_first: true, advert_interval: interval(1000), ..parameters() });
    bench.at(0, Input::Fit);
    assert_eq!(bench.deadline(), Some(3_609_375_000));
    bench.at(1_000_000, in_use());
    assert_eq!(bench.deadline(), Some(3_610_375_000));
}

#[test]
fn failover_does_not_wait_for_strangers() {
    let mut bench = prober();
    bench.at(10_000_000, in_use());
    bench.at(50_000_000, heard(101));
    assert_eq!(bench.deadline(), Some(410_937_500));
    bench.at(60_000_000, in_use());
    assert_eq!(bench.deadline(), Some(410_937_500));
    assert_eq!(bench.at(410_937_500, Input::Timer).len(), 3);

    let mut bench = prober();
    bench.at(10_000_000, in_use());
    assert_eq!(bench.at(20_000_000, heard(0)).len(), 3);
    assert_eq!(bench.state(), State::Active);
}

#[test]
fn node_that_was_active_no_longer_probes() {
    let mut bench = prober();
    bench.at(0, heard(0));
    bench.at(100_000_000, heard(101));
    bench.at(110_000_000, in_use());
    assert_eq!(bench.deadline(), Some(460_937_500));
}

#[test]
fn node_that_becomes_fit_again_probes_again() {
    let mut bench = prober();
    bench.at(0, heard(0));
    bench.at(100_000_000, unfit());
    let ready = changed(State::Init, State::Backup, Reason::Ready);
    assert_eq!(bench.at(200_000_000, Input::Fit), [ready, PROBE]);
    bench.at(210_000_000, in_use());
    assert_eq!(bench.deadline(), Some(1_210_000_000));
}

#[test]
fn node_that_wakes_from_a_stall_asks_again() {
    let mut bench = prober();
    bench.at(1_000_000, in_use());
    assert_eq!(bench.at(2_000_000_000, Input::Timer), [Action::DiscardQueued, PROBE]);
    assert_eq!(bench.deadline(), Some(2_360_937_500));
    bench.at(2_001_000_000, in_use());
    assert_eq!(bench.deadline(), Some(3_001_000_000));
}

#[test]
fn lease_is_not_taken_while_the_addresses_are_in_use() {
    let mut bench = Bench::new(Parameters { probe_first: true, witness: true, ..parameters() });
    bench.at(0, Input::Fit);
    assert_eq!(bench.at(721_875_000, Input::Timer), [Action::AskLease]);
    bench.at(722_000_000, in_use());
    let granted = Input::Lease(LeaseAnswer::Granted { until: bench.zero + Duration::from_secs(9) });
    assert_eq!(bench.at(723_000_000, granted), [Action::GiveLeaseBack]);
    assert_eq!(bench.at(1_722_000_000, Input::Timer), [PROBE]);
    assert_eq!(bench.at(2_722_000_000, Input::Timer), [Action::AskLease]);
}
