//! Each algorithm against its definition, over a hundred thousand picks; what moves when servers go; many threads at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const PICKS: usize = 100_000;

const UP: Condition =
    Condition { is_healthy: true, is_enabled: true, is_backup: false, is_near: false, weight: WEIGHT_ONE };
const DOWN: Condition = Condition { is_healthy: false, ..UP };

/// Servers as a test has them.
struct Bench {
    in_flight: Vec<Cell<u32>>,
    response_time_us: Vec<Cell<Option<u32>>>,
    failed: RefCell<Vec<usize>>,
    full: RefCell<Vec<usize>>,
}

impl Bench {
    fn of(count: usize) -> Self {
        Self {
            in_flight: vec![Cell::new(0); count],
            response_time_us: vec![Cell::new(None); count],
            failed: RefCell::default(),
            full: RefCell::default(),
        }
    }
}

impl Servers for Bench {
    fn may_try(&self, server: usize) -> bool {
        !self.failed.borrow().contains(&server)
    }

    fn has_room(&self, server: usize) -> bool {
        !self.full.borrow().contains(&server)
    }

    fn in_flight(&self, server: usize) -> u32 {
        self.in_flight[server].get()
    }

    fn response_time_us(&self, server: usize) -> Option<u32> {
        self.response_time_us[server].get()
    }
}

fn weighing(weight: u32) -> Condition {
    Condition { weight: weight * WEIGHT_ONE, ..UP }
}

fn snapshot(conditions: &[Condition]) -> Snapshot {
    Snapshot::new(conditions, Terms { panic_percent: 0, near_percent: 50 })
}

fn balancer(method: &Method, conditions: &[Condition]) -> Balancer {
    let mut balancer = Balancer::new(method, 0, 7);
    balancer.refresh(snapshot(conditions));
    balancer
}

fn hash(weights: &[u32], load_max_percent: u32) -> Method {
    let names: Vec<String> = (1..=weights.len()).map(|number| format!("app{number}")).collect();
    let servers = names.iter().map(String::as_str).zip(weights.iter().copied());
    Method::Hash { ring: Arc::new(Ring::new(servers)), load_max_percent }
}

/// All methods, for so many servers of weight 1.
fn methods(count: usize) -> [Method; 6] {
    let hash = hash(&vec![1; count], 0);
    [Method::Rotation, Method::LeastConnections, Method::LeastResponseTime, hash, Method::Random, Method::PowerOfTwo]
}

fn counts(balancer: &mut Balancer, bench: &Bench) -> Vec<usize> {
    let mut counts = vec![0; bench.in_flight.len()];
    for number in 0..PICKS {
        let key = key_hash(&number.to_be_bytes());
        counts[balancer.pick(bench, Some(key)).unwrap()] += 1;
    }
    counts
}

/// Whether counts are what chance makes of shares: within six standard deviations.
fn assert_near(counts: &[usize], weights: &[u32]) {
    let total: u32 = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        let share = f64::from(*weight) / f64::from(total);
        let wanted = PICKS as f64 * share;
        let room = 6.0 * (wanted * (1.0 - share)).sqrt();
        assert!((*count as f64 - wanted).abs() <= room, "{counts:?} for {weights:?}");
    }
}

fn letters(balancer: &mut Balancer, bench: &Bench, count: usize) -> String {
    let letter = |server| char::from(b'a' + u8::try_from(server).unwrap());
    (0..count).map(|_| balancer.pick(bench, None).map_or('-', letter)).collect()
}

#[test]
fn servers_of_one_weight_take_turns() {
    let mut balancer = balancer(&Method::Rotation, &[UP, UP, UP]);
    assert_eq!(letters(&mut balancer, &Bench::of(3), 7), "abcabca");
    let mut second = Balancer::new(&Method::Rotation, 1, 7);
    second.refresh(snapshot(&[UP, UP, UP]));
    assert_eq!(letters(&mut second, &Bench::of(3), 4), "bcab");
    let mut third = Balancer::new(&Method::Rotation, 10, 7);
    third.refresh(snapshot(&[UP, UP, DOWN]));
    assert_eq!(letters(&mut third, &Bench::of(3), 4), "baba");
}

#[test]
fn turns_of_weighted_servers_are_spread_out() {
    let mut balancer = balancer(&Method::Rotation, &[weighing(5), UP, UP]);
    assert_eq!(letters(&mut balancer, &Bench::of(3), 14), "abaaacaabaaaca");
    let conditions = [weighing(1), weighing(2), weighing(3), weighing(4)];
    let mut balancer = self::balancer(&Method::Rotation, &conditions);
    assert_eq!(letters(&mut balancer, &Bench::of(4), 10), "dcbdcadbcd");
}

#[test]
fn turns_are_as_many_as_weights_say_exactly() {
    for weights in [&[1, 1, 1, 1][..], &[5, 1, 1], &[256, 1], &[7, 3, 3, 0, 10, 1], &[3]] {
        let conditions: Vec<_> = weights.iter().map(|weight| weighing(*weight)).collect();
        let mut balancer = balancer(&Method::Rotation, &conditions);
        let bench = Bench::of(weights.len());
        let total: u32 = weights.iter().sum();
        let rounds = PICKS / total as usize;
        let mut counts = vec![0; weights.len()];
        (0..rounds * total as usize).for_each(|_| counts[balancer.pick(&bench, None).unwrap()] += 1);
        let wanted: Vec<_> = weights.iter().map(|weight| *weight as usize * rounds).collect();
        assert_eq!(counts, wanted);
    }
}

#[test]
fn turns_go_on_where_they_were_when_servers_or_weights_change() {
    let bench = Bench::of(3);
    let mut balancer = balancer(&Method::Rotation, &[UP, UP, UP]);
    assert_eq!(letters(&mut balancer, &bench, 4), "abca");
    balancer.refresh(snapshot(&[UP, DOWN, UP]));
    assert_eq!(letters(&mut balancer, &bench, 4), "caca");
    balancer.refresh(snapshot(&[UP, UP, UP]));
    assert_eq!(letters(&mut balancer, &bench, 4), "bcab");
    // Shares hold even if everything is put together anew before each pick.
    let mut balancer = self::balancer(&Method::Rotation, &[weighing(5), UP, UP]);
    let mut counts = [0_u32; 3];
    for turn in 0..70_000_u32 {
        let first = Condition { weight: 5 * WEIGHT_ONE + turn % 2, ..UP };
        balancer.refresh(snapshot(&[first, UP, UP]));
        counts[balancer.pick(&bench, None).unwrap()] += 1;
    }
    assert!((49_900..=50_100).contains(&counts[0]), "{counts:?}");
    assert!(counts[1].abs_diff(counts[2]) <= 2, "{counts:?}");
}

#[test]
fn a_server_that_was_full_for_long_is_not_served_in_one_go() {
    let bench = Bench::of(2);
    let mut balancer = balancer(&Method::Rotation, &[weighing(2), UP]);
    bench.full.borrow_mut().push(0);
    assert_eq!(letters(&mut balancer, &bench, 100), "b".repeat(100));
    bench.full.borrow_mut().clear();
    let after = letters(&mut balancer, &bench, 12);
    assert!(!after.contains("aaaa"), "{after}");
}

#[test]
fn chance_gives_each_its_share() {
    for weights in [&[1, 1, 1, 1, 1][..], &[5, 1, 1], &[256, 100, 1, 3]] {
        let conditions: Vec<_> = weights.iter().map(|weight| weighing(*weight)).collect();
        let bench = Bench::of(weights.len());
        assert_near(&counts(&mut balancer(&Method::Random, &conditions), &bench), weights);
    }
    // Few of many can be picked, so that draws alone do not find them.
    let bench = Bench::of(1000);
    let mut conditions = [UP; 1000];
    conditions[400] = weighing(3);
    bench.failed.borrow_mut().extend((0..1000).filter(|server| ![400, 500].contains(server)));
    let mut balancer = balancer(&Method::Random, &conditions);
    let picked = (0..1_000).filter(|_| balancer.pick(&bench, None) == Some(400)).count();
    assert!((650..=850).contains(&picked), "{picked}");
}

#[test]
fn the_less_busy_of_two_is_picked() {
    // Of ten servers of which one is busy, it is picked when it is drawn twice over, and so hardly ever.
    let bench = Bench::of(10);
    bench.in_flight[3].set(5);
    let busy = counts(&mut balancer(&Method::PowerOfTwo, &[UP; 10]), &bench)[3];
    assert_eq!(busy, 0);
    // Idle ones get shares by weight; two servers with the same burden for their weight are alike.
    let counts = counts(&mut balancer(&Method::PowerOfTwo, &[weighing(3), UP]), &Bench::of(2));
    assert_near(&counts, &[3, 1]);
    // The known result: with n requests for n servers the fullest has a few, where chance alone piles up more.
    let bench = Bench::of(1000);
    let mut balancer = balancer(&Method::PowerOfTwo, &[UP; 1000]);
    for _ in 0..1000 {
        let server = balancer.pick(&bench, None).unwrap();
        bench.in_flight[server].set(bench.in_flight[server].get() + 1);
    }
    let fullest = bench.in_flight.iter().map(Cell::get).max().unwrap();
    assert!((2..=4).contains(&fullest), "{fullest}");
}

#[test]
fn fewest_connections_for_the_weight() {
    let bench = Bench::of(3);
    let mut balancer = balancer(&Method::LeastConnections, &[weighing(4), weighing(2), UP]);
    for (in_flight, wanted) in [([4, 1, 1], 1), ([3, 2, 1], 0), ([8, 4, 1], 2), ([8, 3, 2], 1)] {
        in_flight.iter().zip(&bench.in_flight).for_each(|(count, server)| server.set(*count));
        assert_eq!(balancer.pick(&bench, None), Some(wanted), "{in_flight:?}");
    }
    // Requests that do not end fill them in proportion.
    let bench = Bench::of(3);
    for _ in 0..PICKS {
        let server = balancer.pick(&bench, None).unwrap();
        bench.in_flight[server].set(bench.in_flight[server].get() + 1);
    }
    let full: Vec<_> = bench.in_flight.iter().map(Cell::get).collect();
    for (count, wanted) in full.iter().zip([57_143, 28_571, 14_286]) {
        assert!(count.abs_diff(wanted) <= 4, "{full:?}");
    }
}

#[test]
fn idle_servers_get_what_their_weights_say() {
    let counts = counts(&mut balancer(&Method::LeastConnections, &[weighing(5), UP, UP]), &Bench::of(3));
    assert!(counts[0].abs_diff(71_429) <= 5 && counts[1].abs_diff(14_286) <= 5, "{counts:?}");
    let mut even = balancer(&Method::LeastConnections, &[UP, UP, UP]);
    assert_eq!(letters(&mut even, &Bench::of(3), 6), "abcabc");
}

#[test]
fn a_server_that_comes_back_has_no_turns_to_catch_up_on() {
    let bench = Bench::of(3);
    let mut balancer = balancer(&Method::LeastConnections, &[UP, UP, DOWN]);
    letters(&mut balancer, &bench, 1000);
    balancer.refresh(snapshot(&[UP, UP, UP]));
    let after = letters(&mut balancer, &bench, 9);
    assert_eq!(after.matches('c').count(), 3, "{after}");
    assert!(!after.contains("cc"), "{after}");
}

#[test]
fn fewest_connections_are_found_among_a_thousand_within_a_few_picks() {
    let bench = Bench::of(1000);
    bench.in_flight.iter().for_each(|server| server.set(2));
    bench.in_flight[777].set(1);
    let mut balancer = balancer(&Method::LeastConnections, &[UP; 1000]);
    let found = (0..1000_usize.div_ceil(least::WINDOW)).find(|_| balancer.pick(&bench, None) == Some(777));
    assert!(found.is_some());
    // However many are out of the question, one that is not is found.
    bench.failed.borrow_mut().extend((0..1000).filter(|server| *server != 5));
    assert_eq!(balancer.pick(&bench, None), Some(5));
}

#[test]
fn the_server_that_answers_soonest_is_picked() {
    let bench = Bench::of(3);
    let mut balancer = balancer(&Method::LeastResponseTime, &[UP, UP, UP]);
    for (time, wanted) in [([900, 300, 500], 1), ([200, 300, 500], 0), ([300, 300, 299], 2)] {
        time.iter().zip(&bench.response_time_us).for_each(|(time, server)| server.set(Some(*time)));
        assert_eq!(balancer.pick(&bench, None), Some(wanted));
    }
    // One that is twice as fast has twice as many under way.
    [100, 200, 200].iter().zip(&bench.response_time_us).for_each(|(time, server)| server.set(Some(*time)));
    for _ in 0..PICKS {
        let server = balancer.pick(&bench, None).unwrap();
        bench.in_flight[server].set(bench.in_flight[server].get() + 1);
    }
    let full: Vec<_> = bench.in_flight.iter().map(Cell::get).collect();
    assert!(full[0].abs_diff(50_000) <= 3 && full[1].abs_diff(25_000) <= 3, "{full:?}");
}

#[test]
fn servers_that_have_never_answered_get_one_request_each_until_they_do() {
    let bench = Bench::of(3);
    bench.response_time_us[0].set(Some(1_000_000));
    let mut balancer = balancer(&Method::LeastResponseTime, &[UP, UP, UP]);
    let mut order = Vec::new();
    for _ in 0..4 {
        let server = balancer.pick(&bench, None).unwrap();
        bench.in_flight[server].set(bench.in_flight[server].get() + 1);
        order.push(server);
    }
    assert_eq!(order, [1, 2, 0, 0]);
}

#[test]
fn hashing_gives_each_its_share() {
    for weights in [&[1; 10][..], &[5, 1, 1], &[100, 50, 50, 200]] {
        let conditions: Vec<_> = weights.iter().map(|weight| weighing(*weight)).collect();
        let counts = counts(&mut balancer(&hash(weights, 0), &conditions), &Bench::of(weights.len()));
        let total: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            // 256 points for each weight make for shares that are within 6 % of what is due, twice out of three times.
            let wanted = PICKS as f64 * f64::from(*weight) / f64::from(total);
            let room = 4.0 * wanted / f64::from(256 * weight).sqrt() + 6.0 * wanted.sqrt();
            assert!((*count as f64 - wanted).abs() <= room, "{counts:?} for {weights:?}");
        }
    }
}

/// The server of each key.
fn placed(method: &Method, conditions: &[Condition]) -> Vec<usize> {
    let (mut balancer, bench) = (balancer(method, conditions), Bench::of(conditions.len()));
    (0..PICKS).map(|number| balancer.pick(&bench, Some(key_hash(&number.to_be_bytes()))).unwrap()).collect()
}

#[test]
fn only_the_keys_of_a_server_that_goes_move_and_they_go_to_all_the_others() {
    for count in [2, 3, 10, 100] {
        let method = hash(&vec![1; count], 0);
        let before = placed(&method, &vec![UP; count]);
        let mut conditions = vec![UP; count];
        conditions[1] = DOWN;
        let after = placed(&method, &conditions);
        let mut moved = BTreeMap::new();
        for (old, new) in before.iter().zip(&after).filter(|(old, new)| old != new) {
            assert_eq!(*old, 1);
            *moved.entry(new).or_insert(0) += 1;
        }
        let all: usize = moved.values().sum();
        let due = PICKS / count;
        assert!(all <= due + due / 4, "{all} of {PICKS} keys moved among {count} servers");
        assert!(moved.len() >= (count - 1).min(80), "{moved:?}");
    }
}

#[test]
fn taking_a_server_out_of_the_file_moves_no_other_keys_either() {
    let names = |count: usize| (1..=count).map(|number| format!("app{number}")).collect::<Vec<_>>();
    let ring = |names: &[String]| Method::Hash {
        ring: Arc::new(Ring::new(names.iter().map(|name| (name.as_str(), 1)))),
        load_max_percent: 0,
    };
    let (ten, nine) = (names(10), names(9));
    let (before, after) = (placed(&ring(&ten), &[UP; 10]), placed(&ring(&nine), &[UP; 9]));
    assert!(before.iter().zip(&after).all(|(old, new)| old == new || *old == 9));
    // Nor does the order in which they are listed matter.
    let reversed: Vec<_> = ten.iter().rev().cloned().collect();
    let other = placed(&ring(&reversed), &[UP; 10]);
    assert!(before.iter().zip(&other).all(|(one, other)| ten[*one] == reversed[*other]));
}

#[test]
fn a_server_that_is_ramped_takes_over_its_keys_little_by_little() {
    let method = hash(&[1, 1, 1, 1], 0);
    let whole = placed(&method, &[UP; 4]);
    let (mut least, mut previous) = (0, None::<Vec<usize>>);
    for weight in [16, 64, 128, 255] {
        let now = placed(&method, &[UP, UP, Condition { weight, ..UP }, UP]);
        let taken = now.iter().filter(|server| **server == 2).count();
        assert!(taken > least, "{taken} with {weight}");
        assert!(now.iter().zip(&whole).all(|(now, whole)| now == whole || *whole == 2));
        if let Some(previous) = previous {
            assert!(previous.iter().zip(&now).all(|(before, now)| before == now || *now == 2));
        }
        (least, previous) = (taken, Some(now));
    }
    assert!(least > 20_000, "{least}");
}

#[test]
fn the_place_of_a_key_is_the_same_in_every_release() {
    assert_eq!(key_hash(b""), 0xe220_a839_7b1d_cdaf);
    let placed: Vec<_> = ["a", "b", "192.0.2.1", "user=17", "/static/app.js"]
        .map(|key| balancer(&hash(&[1, 1, 1, 1, 1], 0), &[UP; 5]).pick(&Bench::of(5), Some(key_hash(key.as_bytes()))))
        .into();
    assert_eq!(placed, [Some(3), Some(3), Some(3), Some(1), Some(4)]);
}

#[test]
fn one_key_alone_does_not_overload_its_server() {
    let bench = Bench::of(10);
    let mut balancer = balancer(&hash(&[1; 10], 125), &[UP; 10]);
    for _ in 0..1000 {
        let server = balancer.pick(&bench, Some(key_hash(b"the same"))).unwrap();
        bench.in_flight[server].set(bench.in_flight[server].get() + 1);
    }
    let fullest = bench.in_flight.iter().map(Cell::get).max().unwrap();
    assert!(fullest <= 130, "{fullest}");
    // With room everywhere keys are where they are without a bound.
    let bench = Bench::of(10);
    bench.in_flight.iter().for_each(|server| server.set(10));
    let free = placed(&hash(&[1; 10], 0), &[UP; 10]);
    let mut balancer = self::balancer(&hash(&[1; 10], 125), &[UP; 10]);
    let same =
        (0..PICKS).filter(|number| balancer.pick(&bench, Some(key_hash(&number.to_be_bytes()))) == Some(free[*number]));
    assert_eq!(same.count(), PICKS);
}

#[test]
fn a_request_without_a_key_goes_to_the_next_in_turn() {
    let mut balancer = balancer(&hash(&[1; 3], 0), &[UP; 3]);
    assert_eq!(letters(&mut balancer, &Bench::of(3), 6), "abcabc");
}

#[test]
fn a_key_finds_the_last_server_that_is_left_of_a_thousand() {
    let mut conditions = vec![DOWN; 1024];
    conditions[700] = UP;
    let placed = placed(&hash(&vec![1; 1024], 0), &conditions);
    assert!(placed.iter().all(|server| *server == 700));
    // Two are left: every key has its own of them, and either gets some.
    conditions[3] = UP;
    let placed = self::placed(&hash(&vec![1; 1024], 0), &conditions);
    let first = placed.iter().filter(|server| **server == 3).count();
    assert!((40_000..=60_000).contains(&first), "{first}");
}

#[test]
fn whatever_failed_or_is_full_is_picked_by_no_method() {
    for method in methods(4) {
        let bench = Bench::of(4);
        let mut balancer = balancer(&method, &[UP; 4]);
        bench.failed.borrow_mut().push(1);
        bench.full.borrow_mut().push(2);
        for number in 0..1_000_u32 {
            let picked = balancer.pick(&bench, Some(key_hash(&number.to_be_bytes())));
            assert!(matches!(picked, Some(0 | 3)), "{picked:?} by {method:?}");
        }
        bench.failed.borrow_mut().extend([0, 3]);
        assert_eq!(balancer.pick(&bench, Some(5)), None);
    }
}

#[test]
fn backups_help_where_all_others_failed_and_not_where_they_are_full() {
    let spare = Condition { is_backup: true, ..UP };
    for method in methods(3) {
        let bench = Bench::of(3);
        let mut balancer = balancer(&method, &[UP, spare, UP]);
        bench.failed.borrow_mut().push(0);
        assert_eq!(balancer.pick(&bench, Some(5)), Some(2));
        bench.full.borrow_mut().push(2);
        assert_eq!(balancer.pick(&bench, Some(5)), None);
        bench.failed.borrow_mut().push(2);
        assert_eq!(balancer.pick(&bench, Some(5)), Some(1));
    }
}

#[test]
fn servers_of_other_zones_help_where_near_ones_are_full() {
    let near = Condition { is_near: true, ..UP };
    for method in methods(3) {
        let bench = Bench::of(3);
        let mut balancer = balancer(&method, &[UP, near, UP]);
        assert_eq!(balancer.pick(&bench, Some(5)), Some(1));
        bench.full.borrow_mut().push(1);
        assert!(matches!(balancer.pick(&bench, Some(5)), Some(0 | 2)));
    }
}

#[test]
fn nothing_is_picked_from_nothing_and_the_only_one_always() {
    for method in methods(1) {
        let bench = Bench::of(1);
        assert_eq!(Balancer::new(&method, 3, 7).pick(&bench, Some(5)), None);
        assert_eq!(balancer(&method, &[]).pick(&bench, Some(5)), None);
        assert_eq!(balancer(&method, &[weighing(0)]).pick(&bench, Some(5)), None);
        let mut only = balancer(&method, &[UP]);
        assert!((0..100).all(|key| only.pick(&bench, Some(key)) == Some(0)));
    }
}

#[test]
fn a_server_without_weight_gets_nothing_from_any_method() {
    for method in methods(3) {
        let mut balancer = balancer(&method, &[UP, weighing(0), UP]);
        let counts = counts(&mut balancer, &Bench::of(3));
        assert!(counts[1] == 0 && counts[0] > 30_000 && counts[2] > 30_000, "{counts:?} by {method:?}");
    }
}

#[test]
fn a_thousand_and_twenty_four_servers_all_get_something() {
    for method in methods(1024) {
        let bench = Bench::of(1024);
        if matches!(method, Method::LeastResponseTime) {
            bench.response_time_us.iter().for_each(|server| server.set(Some(500)));
        }
        let counts = counts(&mut balancer(&method, &[UP; 1024]), &bench);
        assert!(counts.iter().all(|count| (40..=200).contains(count)), "{counts:?} by {method:?}");
    }
}

/// Servers that 64 threads share.
struct Shared(Vec<AtomicU32>);

impl Servers for Shared {
    fn may_try(&self, _: usize) -> bool {
        true
    }

    fn has_room(&self, _: usize) -> bool {
        true
    }

    fn in_flight(&self, server: usize) -> u32 {
        self.0[server].load(Ordering::Relaxed)
    }

    fn response_time_us(&self, _: usize) -> Option<u32> {
        Some(1_000)
    }
}

/// What each server got of 64 threads that pick at once, each with eight requests under way all the time.
fn shared_by_64_threads(method: &Method, conditions: &[Condition]) -> (Vec<usize>, u32) {
    let servers = Shared(conditions.iter().map(|_| AtomicU32::new(0)).collect());
    let fullest = AtomicU32::new(0);
    let counts = std::thread::scope(|scope| {
        let thread = |index: usize| {
            let (servers, fullest) = (&servers, &fullest);
            scope.spawn(move || {
                let mut balancer = Balancer::new(method, index, mix(index as u64));
                balancer.refresh(snapshot(conditions));
                let mut under_way = std::collections::VecDeque::new();
                let mut counts = vec![0; conditions.len()];
                for number in 0..2_000_u64 {
                    let server = balancer.pick(servers, Some(mix(number << 32 | index as u64))).unwrap();
                    let now = servers.0[server].fetch_add(1, Ordering::Relaxed) + 1;
                    fullest.fetch_max(now, Ordering::Relaxed);
                    counts[server] += 1;
                    under_way.push_back(server);
                    if under_way.len() > 8 {
                        servers.0[under_way.pop_front().unwrap()].fetch_sub(1, Ordering::Relaxed);
                    }
                }
                for server in under_way {
                    servers.0[server].fetch_sub(1, Ordering::Relaxed);
                }
                counts
            })
        };
        let threads: Vec<_> = (0..64).map(thread).collect();
        let counted = threads.into_iter().map(|thread| thread.join().unwrap());
        counted.reduce(|sum, counts| sum.iter().zip(&counts).map(|(one, other)| one + other).collect()).unwrap()
    });
    assert!(servers.0.iter().all(|server| server.load(Ordering::Relaxed) == 0));
    (counts, fullest.into_inner())
}

#[test]
fn sixty_four_threads_do_not_run_to_the_same_server() {
    for method in methods(16) {
        let (counts, fullest) = shared_by_64_threads(&method, &[UP; 16]);
        assert_eq!(counts.iter().sum::<usize>(), 128_000);
        // Of 512 at once 32 are due to each, and between the look of one thread and its count each other one may come.
        if matches!(method, Method::LeastConnections | Method::LeastResponseTime | Method::PowerOfTwo) {
            assert!(fullest <= 32 + 64, "{fullest} at once by {method:?}");
        }
    }
    let (counts, _) = shared_by_64_threads(&Method::Rotation, &[weighing(5), UP, UP, UP]);
    assert!(counts[0].abs_diff(80_000) <= 200, "{counts:?}");
}

#[test]
fn sixty_four_threads_are_fair_together() {
    for method in methods(16) {
        let bench = Bench::of(16);
        bench.response_time_us.iter().for_each(|server| server.set(Some(1_000)));
        let mut threads: Vec<_> = (0..64)
            .map(|index| {
                let mut balancer = Balancer::new(&method, index, mix(index as u64));
                balancer.refresh(snapshot(&[UP; 16]));
                (balancer, std::collections::VecDeque::new())
            })
            .collect();
        let (mut counts, mut fullest) = (vec![0_usize; 16], 0);
        for number in 0..PICKS {
            let (balancer, under_way) = &mut threads[number % 64];
            let server = balancer.pick(&bench, Some(key_hash(&number.to_be_bytes()))).unwrap();
            counts[server] += 1;
            bench.in_flight[server].set(bench.in_flight[server].get() + 1);
            fullest = fullest.max(bench.in_flight[server].get());
            under_way.push_back(server);
            if under_way.len() > 8 {
                let ended: usize = under_way.pop_front().unwrap();
                bench.in_flight[ended].set(bench.in_flight[ended].get() - 1);
            }
        }
        // 6250 are due to each; hashing leaves it to where points stand, and chance to chance.
        let room = match method {
            Method::Hash { .. } => 1_600,
            Method::Random => 500,
            _ => 250,
        };
        assert!(counts.iter().all(|count| count.abs_diff(6_250) <= room), "{counts:?} by {method:?}");
        match method {
            // 32 are due to each at once.
            Method::LeastConnections | Method::LeastResponseTime => assert!(fullest <= 34, "{fullest}"),
            // Threads that began at one and the same server would have 64 there.
            Method::PowerOfTwo | Method::Rotation => assert!(fullest <= 40, "{fullest} by {method:?}"),
            Method::Hash { .. } | Method::Random => {}
        }
    }
}
