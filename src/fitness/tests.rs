use std::time::Duration;

use super::*;

/// A time, in milliseconds after the start.
fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

fn good() -> Finding {
    Finding::Good("fine".to_owned())
}

fn bad() -> Finding {
    Finding::Bad("it failed".to_owned())
}

fn check(start: Start, fall: u32, rise: u32) -> Check {
    let subject = Subject::Command("probe".to_owned());
    Check { subject, severity: Severity::Broken, start, vips: vec![0], fall, rise }
}

/// The states after findings in a row, 1 s apart: `+` good, `-` bad, `?` untested.
fn states(check: Check, findings: &str) -> Vec<&'static str> {
    let start = Instant::now();
    let mut fitness = Fitness::new(1);
    let id = fitness.add(check, start);
    let step = |(second, sign): (usize, char)| {
        let finding = match sign {
            '+' => good(),
            '-' => bad(),
            _ => Finding::Untested("nobody was there".to_owned()),
        };
        let now = at(start, 1000 * second as u64);
        fitness.handle(now, Input::Found { check: id, finding });
        fitness.verdict(id).unwrap().state.as_str()
    };
    findings.chars().enumerate().map(step).collect()
}

#[test]
fn falls_after_its_number_of_bad_findings_and_rises_after_its_number_of_good_ones() {
    assert_eq!(
        states(check(Start::Open, 3, 2), "+--+---+-++"),
        ["good", "good", "good", "good", "good", "good", "broken", "broken", "broken", "broken", "good"]
    );
}

#[test]
fn first_finding_decides_alone_where_nothing_may_be_taken_before_it() {
    assert_eq!(states(check(Start::Closed, 3, 2), "-"), ["broken"]);
    assert_eq!(states(check(Start::Closed, 3, 2), "+"), ["good"]);
    assert_eq!(states(check(Start::Open, 3, 2), "---"), ["unknown", "unknown", "broken"]);
}

#[test]
fn what_cannot_be_looked_at_is_unknown_and_a_broken_subject_is_tried_again_after_ten_seconds() {
    assert_eq!(states(check(Start::Open, 1, 1), "+?+"), ["good", "unknown", "good"]);
    let said = states(check(Start::Open, 1, 1), "-???????????");
    assert_eq!(said[..2], ["broken", "held_down"]);
    assert_eq!(said[10..], ["held_down", "unknown"], "held down at 1 s, on trial from 11 s on");
    let said = states(check(Start::Open, 1, 1), "-?+?????????");
    assert_eq!(said[10..], ["held_down", "unknown"], "good on trial, and then not looked at again");
    let said = states(check(Start::Open, 1, 1), "-?+++++++++++");
    assert_eq!(said[10..], ["held_down", "good", "good"]);
    assert_eq!(states(check(Start::Open, 1, 1), "-?-"), ["broken", "held_down", "broken"]);
}

/// Falls and is good again 100 ms later, over and over. How long each recovery takes, in milliseconds.
fn recoveries(pause_ms: u64, count: usize) -> Vec<u64> {
    let start = Instant::now();
    let mut fitness = Fitness::new(1);
    let id = fitness.add(check(Start::Closed, 1, 1), start);
    fitness.handle(start, Input::Found { check: id, finding: good() });
    let mut now = start;
    let mut recovery = || {
        now += Duration::from_millis(pause_ms);
        let gone = fitness.handle(now, Input::Found { check: id, finding: bad() });
        assert_eq!(gone, [Change::Verdict(id), Change::Unfit { vip: 0, reason: "it failed".to_owned() }]);
        now += Duration::from_millis(100);
        let good_from = now;
        fitness.handle(now, Input::Found { check: id, finding: good() });
        if let Some(deadline) = fitness.deadline() {
            assert_eq!(fitness.verdict(id).unwrap().state, State::HeldDown);
            assert!(fitness.handle(deadline - Duration::from_millis(1), Input::Timer).is_empty(), "too early");
            now = deadline;
            assert_eq!(fitness.handle(now, Input::Timer), [Change::Verdict(id), Change::Fit { vip: 0 }]);
        }
        assert_eq!(fitness.verdict(id).unwrap().state, State::Good);
        u64::try_from((now - good_from).as_millis()).unwrap()
    };
    (0..count).map(|_| recovery()).collect()
}

#[test]
fn three_recoveries_are_free_and_each_further_one_takes_twice_as_long_up_to_a_minute() {
    let expected = [0, 0, 0, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000];
    assert_eq!(recoveries(1_000, 11), expected);
    assert_eq!(recoveries(59_999, 11), expected);
}

#[test]
fn recovery_that_lasted_a_minute_is_forgiven() {
    assert_eq!(recoveries(60_000, 6), [0; 6]);
}

#[test]
fn bad_finding_in_the_hold_starts_it_again_and_is_no_relapse() {
    let start = Instant::now();
    let mut fitness = Fitness::new(1);
    let id = fitness.add(check(Start::Closed, 1, 1), start);
    for second in 0..4 {
        fitness.handle(at(start, second * 1000), Input::Found { check: id, finding: bad() });
        fitness.handle(at(start, second * 1000 + 100), Input::Found { check: id, finding: good() });
    }
    assert_eq!(fitness.deadline(), Some(at(start, 4100)), "the fourth recovery takes 1 s");
    let evidence = fitness.verdict(id).unwrap().evidence;
    assert_eq!(evidence, "it failed; good again, which has to last 1 s");
    fitness.handle(at(start, 4000), Input::Found { check: id, finding: bad() });
    assert_eq!((fitness.verdict(id).unwrap().state, fitness.deadline()), (State::Broken, None));
    fitness.handle(at(start, 4050), Input::Found { check: id, finding: good() });
    assert_eq!(fitness.deadline(), Some(at(start, 5050)), "still 1 s");
    assert_eq!(fitness.handle(at(start, 5050), Input::Timer), [Change::Verdict(id), Change::Fit { vip: 0 }]);
}

#[test]
fn vip_is_fit_when_nothing_that_counts_for_it_speaks_against() {
    let start = Instant::now();
    let mut fitness = Fitness::new(2);
    let both = Check { vips: vec![0, 1], ..check(Start::Closed, 1, 1) };
    let (both, second) = (fitness.add(both, start), fitness.add(check_of_second(), start));
    let unseen: Vec<_> = fitness.faults(1).collect();
    assert_eq!(unseen, ["command probe was not looked at yet", "file maintenance was not looked at yet"]);
    let found = |fitness: &mut Fitness, check, finding| fitness.handle(start, Input::Found { check, finding });
    assert_eq!(found(&mut fitness, both, good()), [Change::Verdict(both), Change::Fit { vip: 0 }]);
    assert_eq!(found(&mut fitness, second, good()), [Change::Verdict(second), Change::Fit { vip: 1 }]);
    let reason = || "it failed".to_owned();
    assert_eq!(
        found(&mut fitness, both, bad()),
        [Change::Verdict(both), Change::Unfit { vip: 0, reason: reason() }, Change::Unfit { vip: 1, reason: reason() }]
    );
    assert_eq!(found(&mut fitness, second, bad()), [Change::Verdict(second)], "it was not fit before either");
    assert_eq!(found(&mut fitness, both, good()), [Change::Verdict(both), Change::Fit { vip: 0 }]);
    assert_eq!(found(&mut fitness, second, good()), [Change::Verdict(second), Change::Fit { vip: 1 }]);
}

fn check_of_second() -> Check {
    let subject = Subject::File("maintenance".to_owned());
    Check { subject, vips: vec![1], ..check(Start::Closed, 1, 1) }
}

/// Two pools of one VIP, which is fit and held here.
fn with_pools() -> (Instant, Fitness, [CheckId; 2]) {
    let start = Instant::now();
    let mut fitness = Fitness::new(1);
    let pool = |name: &str| Check {
        subject: Subject::Servers(name.to_owned()),
        severity: Severity::Weaker,
        ..check(Start::Open, 1, 1)
    };
    let pools = ["app", "api"].map(|name| fitness.add(pool(name), start));
    assert_eq!(fitness.handle(start, Input::Role { vip: 0, is_active: true }), [Change::Fit { vip: 0 }]);
    (start, fitness, pools)
}

fn servers(check: CheckId, up: u16) -> Input {
    Input::Servers { check, up, count: 3 }
}

fn peer(pools_up: u16, servers_up: u16) -> Input {
    Input::Peer { vip: 0, seen: Some(Seen { pools_up, servers_up }), is_unfit: false }
}

#[test]
fn servers_that_are_down_are_no_fault() {
    let (start, mut fitness, [app, _]) = with_pools();
    assert_eq!(fitness.handle(start, servers(app, 2)), [Change::Verdict(app)]);
    assert_eq!(fitness.handle(start, servers(app, 0)), [Change::Verdict(app)]);
    let verdict = fitness.verdict(app).unwrap();
    assert_eq!((verdict.state, verdict.evidence), (State::Weaker, "0 of 3 servers of pool app are up"));
    assert_eq!(fitness.faults(0).count(), 0);
    assert_eq!(fitness.seen(0), Seen { pools_up: 0, servers_up: 0 });
}

#[test]
fn active_hands_over_when_the_peer_has_seen_more_pools_for_three_seconds() {
    let (start, mut fitness, [app, api]) = with_pools();
    fitness.handle(start, servers(app, 3));
    fitness.handle(start, servers(api, 0));
    assert_eq!(fitness.seen(0), Seen { pools_up: 1, servers_up: 3 });
    fitness.handle(at(start, 500), peer(2, 4));
    assert_eq!(fitness.deadline(), Some(at(start, 3500)));
    assert_eq!(fitness.handle(at(start, 3499), Input::Timer), []);
    let reason = "the peer reaches servers of 2 pools (4 servers), this node of 1 (3 servers)".to_owned();
    let more = [Change::PeerSeesMore { vip: 0, reason }];
    assert_eq!(fitness.handle(at(start, 3500), Input::Timer), more);
    assert_eq!(fitness.handle(at(start, 3501), peer(2, 4)), [], "once");
    assert_eq!(fitness.handle(at(start, 33_499), Input::Timer), []);
    assert_eq!(fitness.handle(at(start, 33_500), Input::Timer), more, "and again after half a minute");
}

#[test]
fn nothing_moves_for_fewer_servers_of_as_many_pools() {
    let (start, mut fitness, [app, api]) = with_pools();
    fitness.handle(start, servers(app, 1));
    fitness.handle(start, servers(api, 1));
    for (pools_up, servers_up) in [(2, 6), (2, 2), (1, 3), (0, 0)] {
        assert_eq!(fitness.handle(start, peer(pools_up, servers_up)), []);
        assert_eq!(fitness.deadline(), None, "{pools_up} {servers_up}");
    }
}

#[test]
fn peer_has_to_see_more_without_a_break_and_the_node_to_be_active_and_to_know() {
    type Break = fn([CheckId; 2]) -> Input;
    let breaks: [(&str, Break); 4] = [
        ("the peer falls silent", |_| Input::Peer { vip: 0, seen: None, is_unfit: false }),
        ("the peer sees as little", |_| peer(0, 0)),
        ("no longer active", |_| Input::Role { vip: 0, is_active: false }),
        ("the worker is gone", |[app, _]| Input::Found { check: app, finding: Finding::Untested("no worker".into()) }),
    ];
    for (name, interruption) in breaks {
        let (start, mut fitness, pools) = with_pools();
        fitness.handle(start, servers(pools[0], 0));
        fitness.handle(start, servers(pools[1], 0));
        fitness.handle(start, peer(1, 1));
        assert_eq!(fitness.deadline(), Some(at(start, 3000)), "{name}");
        fitness.handle(at(start, 2999), interruption(pools));
        assert_eq!(fitness.deadline(), None, "{name}");
        let moved = fitness.handle(at(start, 9000), Input::Timer);
        assert!(!moved.iter().any(|change| matches!(change, Change::PeerSeesMore { .. })), "{name}: {moved:?}");
    }
}

#[test]
fn pool_that_flaps_counts_as_down_until_it_has_been_up_for_long_enough() {
    let (start, mut fitness, [app, api]) = with_pools();
    fitness.handle(start, servers(api, 3));
    for second in 0..4 {
        fitness.handle(at(start, second * 1000), servers(app, 0));
        fitness.handle(at(start, second * 1000 + 100), servers(app, 1));
    }
    assert_eq!(fitness.verdict(app).unwrap().state, State::HeldDown);
    assert_eq!(fitness.seen(0).pools_up, 1);
    fitness.handle(at(start, 4100), Input::Timer);
    assert_eq!((fitness.verdict(app).unwrap().state, fitness.seen(0).pools_up), (State::Good, 2));
}

/// A VIP that is held here with a check of this node, while the peer may hold it or not.
fn held_while_the_peer_is(is_unfit: bool) -> (Instant, Fitness, CheckId) {
    let start = Instant::now();
    let mut fitness = Fitness::new(1);
    let id = fitness.add(check(Start::Open, 1, 1), start);
    assert_eq!(fitness.handle(start, Input::Role { vip: 0, is_active: true }), [Change::Fit { vip: 0 }]);
    assert_eq!(fitness.handle(start, Input::Peer { vip: 0, seen: None, is_unfit }), []);
    (start, fitness, id)
}

fn slow() -> Finding {
    Finding::Slow("too slow".to_owned())
}

fn found(fitness: &mut Fitness, check: CheckId, finding: Finding) -> Vec<Change> {
    fitness.handle(Instant::now(), Input::Found { check, finding })
}

#[test]
fn slow_node_gives_way_to_a_peer_that_may_take_over_and_to_nobody_else() {
    let unfit = || Change::Unfit { vip: 0, reason: "too slow".to_owned() };
    let (_, mut fitness, id) = held_while_the_peer_is(false);
    assert_eq!(found(&mut fitness, id, slow()), [Change::Verdict(id), unfit()]);

    let (start, mut fitness, id) = held_while_the_peer_is(true);
    assert_eq!(found(&mut fitness, id, slow()), [Change::Verdict(id)]);
    assert_eq!(fitness.verdict(id).unwrap().state, State::Broken, "it is no secret");
    assert_eq!(fitness.faults(0).count(), 0);
    let recovers = Input::Peer { vip: 0, seen: None, is_unfit: false };
    assert_eq!(fitness.handle(start, recovers), [unfit()], "the peer is well again");
    // It does not come back for the peer's sake once it has given way.
    let relapses = Input::Peer { vip: 0, seen: None, is_unfit: true };
    assert_eq!(fitness.handle(start, relapses), []);
    assert_eq!(fitness.handle(start, Input::Role { vip: 0, is_active: false }), []);
    assert_eq!(found(&mut fitness, id, good()), [Change::Verdict(id), Change::Fit { vip: 0 }]);
}

#[test]
fn broken_or_standing_by_node_gives_way_whatever_the_peer_is() {
    let (_, mut fitness, id) = held_while_the_peer_is(true);
    found(&mut fitness, id, slow());
    let reason = "broken".to_owned();
    let changes = found(&mut fitness, id, Finding::Bad(reason.clone()));
    assert_eq!(changes, [Change::Unfit { vip: 0, reason }], "what was slow is broken now");

    let (start, mut fitness, id) = held_while_the_peer_is(true);
    fitness.handle(start, Input::Role { vip: 0, is_active: false });
    assert!(matches!(found(&mut fitness, id, slow())[..], [Change::Verdict(_), Change::Unfit { vip: 0, .. }]));
}

#[test]
fn unknown_check_or_vip_changes_nothing() {
    let start = Instant::now();
    let mut other = Fitness::new(1);
    other.add(check(Start::Closed, 1, 1), start);
    let id = other.add(check(Start::Closed, 1, 1), start);
    let mut fitness = Fitness::new(0);
    assert_eq!(fitness.handle(start, Input::Found { check: id, finding: good() }), []);
    assert_eq!(fitness.handle(start, servers(id, 1)), []);
    assert_eq!(fitness.handle(start, Input::Role { vip: 0, is_active: true }), []);
    assert_eq!(fitness.handle(start, peer(1, 1)), []);
    assert_eq!((fitness.verdict(id), fitness.vips_of(id)), (None, [].as_slice()));
}
