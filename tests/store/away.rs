//! A store that does not answer: requests are served all the same, and nobody waits for it twice.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Instant;

use super::*;

const NAME: &str = "baton:01010101010101010101010101010101";

#[test]
fn requests_are_served_by_hashing_while_it_is_killed_and_it_is_told_when_it_is_back() {
    let mut redis = RedisServer::start(&[]);
    let balancer = Balancer::of(settings(redis.port()), app());
    redis.kill();
    // Not noticed yet, or noticed: either way there is a server.
    assert_eq!(balancer.find_or_claim(key(1), APP1), Some(APP2));
    balancer.wait_until_away();
    assert_eq!(balancer.find_or_claim(key(2), APP1), Some(APP2));
    balancer.store.remove(&key(3));
    wait_for("three are owed", || balancer.store.status().owed == 3);
    assert_eq!(balancer.store.status().hashed, 2);
    assert!(balancer.store.warning().unwrap().contains("sessions are placed by hashing"));
    redis.restart();
    balancer.wait_until_connected();
    assert_eq!(balancer.store.warning(), None);
    wait_for("nothing is owed", || balancer.store.status().owed == 0);
    assert_eq!(redis.cli(&["GET", NAME]), "1 0 app/app2");
    assert_eq!(redis.cli(&["GET", "baton:03030303030303030303030303030303"]), "1 0 -");
    assert_eq!(balancer.claim(key(2), APP1), Some(APP2));
}

#[test]
fn what_another_load_balancer_wrote_meanwhile_stands() {
    let redis = RedisServer::start(&[]);
    let user = |state: &str| redis.cli(&["ACL", "SETUSER", "one", state, ">secret", "~*", "+@all"]);
    assert_eq!(user("on"), "OK");
    let named = (Some("one".to_owned()), Some("secret".to_owned()));
    let one = Settings { username: named.0, password: named.1, ..settings(redis.port()) };
    let (one, other) = (Balancer::of(one, app()), Balancer::of(settings(redis.port()), app()));
    assert_eq!(user("off"), "OK");
    redis.cli(&["CLIENT", "KILL", "USER", "one"]);
    one.wait_until_away();
    one.store.claim_later(&key(1), APP2);
    on_a_runtime(one.store.put(&key(2), APP2));
    one.store.claim_later(&key(3), APP2);
    wait_for("three are owed", || one.store.status().owed == 3);
    assert_eq!([1, 2].map(|number| other.claim(key(number), APP1)), [Some(APP1); 2]);
    assert_eq!(user("on"), "OK");
    one.wait_until_connected();
    wait_for("nothing is owed", || one.store.status().owed == 0);
    assert_eq!([1, 2, 3].map(|number| other.lookup(key(number))), [APP1, APP1, APP2].map(Found::At));
}

#[test]
fn a_store_that_stands_still_is_waited_for_once() {
    let redis = RedisServer::start(&[]);
    let timeout = Duration::from_millis(250);
    let balancer = Balancer::of(Settings { timeout, ..settings(redis.port()) }, app());
    redis.freeze();
    let begin = Instant::now();
    assert_eq!(balancer.find_or_claim(key(1), APP1), Some(APP2));
    assert!(begin.elapsed() >= Duration::from_millis(200), "it was not waited for");
    balancer.wait_until_away();
    for _ in 0..1000 {
        assert_eq!(balancer.find_or_claim(key(2), APP1), Some(APP2));
    }
    let status = balancer.store.status();
    assert_eq!((status.lookups, status.timeouts, status.hashed), (1, 1, 1001));
    assert_eq!(status.last_error.as_deref(), Some("no answer within 250ms"));
    redis.thaw();
    balancer.wait_until_connected();
    wait_for("it is told", || balancer.store.status().owed == 0);
    // The claim that was waited for may have been done, late: then it stands.
    assert_eq!(redis.cli(&["GET", "baton:02020202020202020202020202020202"]), "1 0 app/app2");
}

#[test]
fn those_who_wait_when_it_dies_are_told_at_once() {
    let mut redis = RedisServer::start(&[]);
    let balancer = Balancer::of(Settings { timeout: PATIENCE * 2, ..settings(redis.port()) }, app());
    redis.freeze();
    let waiting = async {
        let keys = [key(1), key(2), key(3)];
        let [one, two, three] = keys.each_ref().map(|key| balancer.store.lookup(key, 0));
        let killing = async {
            while balancer.store.status().lookups < 3 {
                tokio::task::yield_now().await;
            }
            redis.kill();
        };
        let (one, two, three, ()) = tokio::join!(one, two, three, killing);
        [one, two, three]
    };
    assert_eq!(on_a_runtime(waiting), [Found::Away; 3]);
}

#[test]
fn more_than_can_wait_are_not_let_wait() {
    let redis = RedisServer::start(&[]);
    let balancer = Balancer::of(Settings { timeout: PATIENCE * 2, ..settings(redis.port()) }, app());
    redis.freeze();
    let keys: Vec<Key> = (0..6000_u128).map(|number| Key::from_bytes(number.to_be_bytes())).collect();
    let all = futures_util::future::join_all(keys.iter().map(|key| balancer.store.lookup(key, 0)));
    let thawing = async {
        while balancer.store.status().queue_full == 0 {
            tokio::task::yield_now().await;
        }
        redis.thaw();
    };
    let (found, ()) = on_a_runtime(async { tokio::join!(all, thawing) });
    let away = found.iter().filter(|found| **found == Found::Away).count() as u64;
    let status = balancer.store.status();
    // The queue has 4096 places and 1024 more are being asked.
    assert!(away >= 1 && status.queue_full >= 1, "{status:?}");
    assert_eq!(status.lookups, 6000);
}

#[test]
fn something_else_on_the_port_is_no_store() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the test's process; each connection gets an answer that is none.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let balancer = Balancer::start(settings(port), vec![app()]);
    balancer.wait_until_away();
    assert_eq!(balancer.find_or_claim(key(1), APP1), Some(APP2));
    assert_eq!(balancer.store.status().lookups, 0);
}

#[test]
fn a_server_that_accepts_and_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let balancer = Balancer::start(settings(listener.local_addr().unwrap().port()), vec![app()]);
    assert_eq!(balancer.find_or_claim(key(1), APP1), Some(APP2));
    balancer.wait_until_away();
    assert_eq!(balancer.store.status().last_error.as_deref(), Some("it did not let us in within 2 s"));
}

#[test]
fn what_is_owed_to_a_store_that_answers_is_written_before_the_end() {
    let redis = RedisServer::start(&[]);
    let balancer = Balancer::of(settings(redis.port()), app());
    for number in 0..200 {
        balancer.store.claim_later(&key(number), APP1);
    }
    drop(balancer);
    // And the entry that tried the connection.
    let count = redis.cli(&["EVAL", "return #redis.call('KEYS', 'baton:*')", "0"]);
    assert!(["200", "201"].contains(&count.as_str()), "{count}");
}
