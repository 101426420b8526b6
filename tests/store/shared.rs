//! What load balancers find of each other's sessions.

use super::*;

#[test]
fn a_session_is_found_by_a_load_balancer_that_lists_its_servers_in_another_order() {
    let redis = RedisServer::start(&[]);
    let one = Balancer::of(settings(redis.port()), app());
    let two = Balancer::of(settings(redis.port()), pool(&["app2", "app3", "app1"]));
    assert_eq!(one.lookup(key(1)), Found::Nothing);
    assert_eq!(one.claim(key(1), APP1), Some(APP1));
    assert_eq!(two.lookup(key(1)), Found::At(ServerRef { pool: 0, server: 2 }));
    assert_eq!(two.claim(key(1), ServerRef { pool: 0, server: 0 }), Some(ServerRef { pool: 0, server: 2 }));
    assert_eq!(redis.cli(&["GET", "baton:01010101010101010101010101010101"]), "1 0 app/app1");
    let status = one.store.status();
    assert_eq!((status.lookups, status.hits, status.timeouts, status.hashed), (2, 0, 0, 0));
    let status = two.store.status();
    assert_eq!((status.lookups, status.hits, status.timeouts, status.hashed), (2, 2, 0, 0));
    assert_eq!(status.url, format!("redis://127.0.0.1:{}/0", redis.port()));
}

#[test]
fn of_two_that_claim_a_session_at_once_one_wins_and_both_know() {
    let redis = RedisServer::start(&[]);
    let (one, two) = (Balancer::of(settings(redis.port()), app()), Balancer::of(settings(redis.port()), app()));
    let mut winners = [0, 0];
    for number in 0..200 {
        let (first, second) = on_a_runtime(async {
            let (key_one, key_two) = (key(number), key(number));
            let second = two.store.claim(&key_two, APP2);
            tokio::join!(one.store.claim(&key_one, APP1), second)
        });
        assert_eq!(first, second, "session {number}");
        winners[usize::from(first.unwrap().server)] += 1;
    }
    assert_eq!(winners[0] + winners[1], 200);
}

#[test]
fn a_session_that_nobody_uses_is_forgotten() {
    let redis = RedisServer::start(&[]);
    let short = StorePool { idle: Duration::from_millis(300), ..app() };
    let balancer = Balancer::of(settings(redis.port()), short);
    balancer.claim(key(1), APP1);
    assert_ne!(redis.cli(&["PTTL", "baton:01010101010101010101010101010101"]), "-1");
    wait_for("redis forgets it", || redis.cli(&["EXISTS", "baton:01010101010101010101010101010101"]) == "0");
    assert_eq!(balancer.lookup(key(1)), Found::Nothing);
}

#[test]
fn a_session_in_use_lives_on_until_its_absolute_end() {
    let redis = RedisServer::start(&[]);
    let idle = Duration::from_secs(1);
    let (forever, limited) =
        (StorePool { idle, ..app() }, StorePool { idle, absolute: Some(Duration::from_secs(3)), ..app() });
    let (used, ended) = (Balancer::of(settings(redis.port()), forever), Balancer::of(settings(redis.port()), limited));
    used.claim(key(1), APP1);
    ended.claim(key(2), APP1);
    wait_for("the absolute end comes", || {
        assert_eq!(used.lookup(key(1)), Found::At(APP1));
        ended.lookup(key(2)) == Found::Nothing
    });
    // Asked again and again, it did not live by its idle time.
    assert_eq!(used.lookup(key(1)), Found::At(APP1));
}

#[test]
fn a_move_reaches_the_tables_of_other_load_balancers() {
    let redis = RedisServer::start(&[]);
    let (one, two) = (Balancer::of(settings(redis.port()), app()), Balancer::of(settings(redis.port()), app()));
    one.claim(key(1), APP1);
    on_a_runtime(one.store.put(&key(1), APP2));
    assert_eq!(two.use_until_seen(key(1), APP1), Seen::Moved { pool: "app".to_owned(), server: "app2".to_owned() });
}

#[test]
fn a_removal_reaches_the_tables_of_other_load_balancers_and_the_session_can_be_claimed_anew() {
    let redis = RedisServer::start(&[]);
    let (one, two) = (Balancer::of(settings(redis.port()), app()), Balancer::of(settings(redis.port()), app()));
    one.claim(key(1), APP1);
    one.store.remove(&key(1));
    assert_eq!(two.use_until_seen(key(1), APP1), Seen::Gone);
    assert_eq!(two.lookup(key(1)), Found::Nothing);
    assert_eq!(two.claim(key(1), APP2), Some(APP2));
    assert_eq!(one.lookup(key(1)), Found::At(APP2));
}

#[test]
fn a_session_in_use_is_put_back_into_a_store_that_lost_it() {
    let redis = RedisServer::start(&[]);
    let balancer = Balancer::of(settings(redis.port()), app());
    balancer.claim(key(1), APP2);
    assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    wait_for("it is back", || {
        balancer.store.used(&key(1), APP2);
        redis.cli(&["GET", "baton:01010101010101010101010101010101"]) == "1 0 app/app2"
    });
    assert_eq!(*balancer.seen.lock().unwrap(), []);
}

#[test]
fn a_session_with_an_end_is_not_put_back() {
    let redis = RedisServer::start(&[]);
    let limited = StorePool { absolute: Some(Duration::from_secs(600)), ..app() };
    let balancer = Balancer::of(settings(redis.port()), limited);
    balancer.claim(key(1), APP2);
    assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    assert_eq!(balancer.use_until_seen(key(1), APP2), Seen::Gone);
    assert_eq!(redis.cli(&["EXISTS", "baton:01010101010101010101010101010101"]), "0");
}

#[test]
fn a_session_on_a_server_that_this_one_does_not_have_is_moved_when_it_is_claimed() {
    let redis = RedisServer::start(&[]);
    let (other, own) = (pool(&["app9"]), app());
    let (one, two) = (Balancer::of(settings(redis.port()), other), Balancer::of(settings(redis.port()), own));
    one.claim(key(1), APP1);
    assert_eq!(two.lookup(key(1)), Found::Nothing);
    assert_eq!(two.claim(key(1), APP2), Some(APP2));
    assert_eq!(redis.cli(&["GET", "baton:01010101010101010101010101010101"]), "1 0 app/app2");
}

#[test]
fn sessions_in_use_are_compared_once_in_an_interval() {
    let redis = RedisServer::start(&[]);
    let balancer = Balancer::of(settings(redis.port()), app());
    balancer.claim(key(1), APP1);
    balancer.claim(key(2), APP1);
    for _ in 0..1000 {
        balancer.store.used(&key(1), APP1);
    }
    balancer.store.used(&key(2), APP1);
    wait_for("the second one is compared", || balancer.store.status().rechecks >= 2);
    // A thousand times within 3 s; on a machine that stands still in between, twice.
    assert!((2..=3).contains(&balancer.store.status().rechecks));
}

#[test]
fn another_numbering_finds_the_same_servers() {
    let server = RedisServer::start(&[]);
    let before = Balancer::of(settings(server.port()), app());
    assert_eq!(before.claim(key(1), APP2), Some(APP2));
    let store = before.store.with_pools(vec![pool(&["app0", "app2", "app3"]), app()]);
    let after = Balancer { store, seen: Arc::clone(&before.seen) };
    assert_eq!(after.lookup(key(1)), Found::At(ServerRef { pool: 0, server: 1 }));
    assert_eq!(after.claim(key(2), ServerRef { pool: 0, server: 2 }), Some(ServerRef { pool: 0, server: 2 }));
    // One that is still under way by the former numbers has no such server, and finds the others.
    assert_eq!(before.lookup(key(2)), Found::Nothing);
    assert_eq!(before.lookup(key(1)), Found::At(APP2));
    // The end of the former one ends nothing.
    drop(before);
    assert_eq!(after.lookup(key(1)), Found::At(ServerRef { pool: 0, server: 1 }));
}
