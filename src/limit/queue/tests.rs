use std::task::Waker;

use super::*;

const ANY: fn(usize) -> bool = |_| true;

fn waits<'slots>(slots: &'slots Slots, wanted: Option<usize>) -> Ticket<'slots> {
    match slots.enter(wanted, || None) {
        Entry::Waits(ticket) => ticket,
        Entry::Taken(_) | Entry::Full => panic!("it has to wait"),
    }
}

fn granted(ticket: &mut Ticket<'_>) -> Option<usize> {
    match ticket.poll(&Context::from_waker(Waker::noop())) {
        Poll::Ready(server) => Some(server),
        Poll::Pending => None,
    }
}

/// Two servers with one slot each, both taken.
fn full() -> Slots {
    let slots = Slots::new(Box::new([1; 2]), 10);
    assert!(slots.take(0) && slots.take(1));
    slots
}

#[test]
fn server_has_as_many_slots_as_it_is_said() {
    let slots = Slots::new(Box::new([2; 2]), 0);
    assert_eq!([0, 0, 0, 1].map(|server| slots.take(server)), [true, true, false, true]);
    assert_eq!((slots.has_room(0), slots.has_room(1), slots.taken(0)), (false, true, 2));
    slots.give_back(0, ANY);
    assert!(slots.has_room(0) && slots.take(0) && !slots.take(0));
    assert!(!slots.take(2), "there is no such server");
}

#[test]
fn slots_go_to_those_that_wait_in_their_order() {
    let slots = full();
    let (mut first, mut second) = (waits(&slots, None), waits(&slots, None));
    slots.give_back(1, ANY);
    assert_eq!((granted(&mut second), granted(&mut first)), (None, Some(1)));
    assert!(!slots.take(1), "it was handed over, not given up");
    slots.give_back(0, ANY);
    assert_eq!((granted(&mut second), slots.waiting()), (Some(0), 0));
    slots.give_back(0, ANY);
    slots.give_back(1, ANY);
    assert_eq!((slots.taken(0), slots.taken(1)), (0, 0));
}

#[test]
fn those_that_belong_to_a_server_are_the_first_of_its_slots_and_get_no_other() {
    let slots = full();
    let (mut any, mut bound) = (waits(&slots, None), waits(&slots, Some(1)));
    slots.give_back(1, ANY);
    assert_eq!((granted(&mut any), granted(&mut bound)), (None, Some(1)));
    let mut bound = waits(&slots, Some(1));
    slots.give_back(0, ANY);
    assert_eq!((granted(&mut any), granted(&mut bound)), (Some(0), None));
}

#[test]
fn server_that_takes_nobody_new_serves_those_that_belong_to_it() {
    let slots = full();
    let (mut any, mut bound) = (waits(&slots, None), waits(&slots, Some(0)));
    slots.give_back(0, |_| false);
    assert_eq!(granted(&mut bound), Some(0));
    slots.give_back(0, |_| false);
    assert_eq!((granted(&mut any), slots.taken(0)), (None, 0));
    // It is back.
    slots.hand_out(ANY);
    assert_eq!((granted(&mut any), slots.taken(0)), (Some(0), 1));
}

#[test]
fn one_more_than_the_queue_holds_is_turned_away() {
    let slots = Slots::new(Box::new([1; 1]), 1);
    assert!(slots.take(0));
    let waiting = waits(&slots, None);
    assert!(matches!(slots.enter(None, || None), Entry::Full));
    drop(waiting);
    assert_eq!(slots.waiting(), 0);
    let _waiting = waits(&slots, None);
    let outcomes = [&slots.outcomes.full, &slots.outcomes.left, &slots.outcomes.waited];
    assert_eq!(outcomes.map(|count| count.load(Ordering::Relaxed)), [1, 1, 2]);
}

#[test]
fn slot_that_has_become_free_meanwhile_needs_no_queue() {
    let slots = Slots::new(Box::new([1; 1]), 0);
    assert!(matches!(slots.enter(Some(0), || slots.take(0).then_some(0)), Entry::Taken(0)));
    assert_eq!((slots.waiting(), slots.taken(0)), (0, 1));
}

#[test]
fn who_leaves_is_passed_over_and_a_slot_that_came_too_late_goes_on() {
    let slots = full();
    let (first, mut second, third) = (waits(&slots, None), waits(&slots, None), waits(&slots, None));
    drop(first);
    slots.give_back(0, ANY);
    assert_eq!(granted(&mut second), Some(0));
    slots.give_back(1, ANY);
    // Granted, and gone before it knew.
    drop(third);
    assert_eq!((slots.waiting(), slots.taken(1)), (0, 0));
}

#[test]
fn who_gives_up_hears_of_a_slot_that_came_at_the_last_moment() {
    let slots = full();
    let (first, second) = (waits(&slots, None), waits(&slots, None));
    slots.give_back(1, ANY);
    assert_eq!((first.leave(), second.leave()), (Some(1), None));
    assert_eq!((slots.waiting(), slots.taken(1), slots.outcomes.left.load(Ordering::Relaxed)), (0, 1, 0));
}

/// Threads take, wait and give back as they like: no slot is lost, none is there twice, and everybody is served.
#[test]
fn no_slot_is_lost_or_doubled_between_threads() {
    const ROUNDS: usize = 2_000;
    let slots = Slots::new(Box::new([2; 2]), 1_000);
    let at_once = [AtomicU32::new(0), AtomicU32::new(0)];
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (slots, at_once) = (&slots, &at_once);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..ROUNDS {
                    let wanted = [None, Some(0), Some(1)][random.usize(..3)];
                    let take = || wanted.map_or(0..2, |server| server..server + 1).find(|server| slots.take(*server));
                    let server = take().unwrap_or_else(|| match slots.enter(wanted, take) {
                        Entry::Taken(server) => server,
                        Entry::Full => panic!("there are fewer threads than places"),
                        Entry::Waits(mut ticket) => loop {
                            if let Some(server) = granted(&mut ticket) {
                                break server;
                            }
                            std::thread::yield_now();
                        },
                    });
                    assert!(at_once[server].fetch_add(1, Ordering::SeqCst) < 2, "seed {seed}");
                    at_once[server].fetch_sub(1, Ordering::SeqCst);
                    slots.give_back(server, ANY);
                }
            });
        }
    });
    assert_eq!((slots.taken(0), slots.taken(1), slots.waiting()), (0, 0, 0));
}
