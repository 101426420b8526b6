use super::*;
use crate::config;
use crate::proxy::access::Access;
use crate::proxy::files::Files;
use crate::proxy::sessions::Sessions;
use crate::proxy::state::Prepared;
use crate::proxy::upstream::dial::Dialer;
use crate::session::facts::FactKey;
use crate::session::version::Node;
use std::path::Path;

fn site(servers: usize, pool: &str) -> Site {
    let servers = (1..=servers).map(|number| format!("{{ name = \"app{number}\", address = \"10.0.0.{number}:80\" }}"));
    let servers = servers.collect::<Vec<_>>().join(", ");
    let text = format!(
        "[[listener]]\nname = \"web\"\nbind = [\"127.0.0.1:80\"]\npool = \"app\"\n\
         [[pool]]\nname = \"app\"\nservers = [{servers}]\n{pool}\n"
    );
    let config = config::parse(&text, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    let sessions = Arc::new(Sessions::new(&config, Node::Only, b"secret"));
    let dialers = Dialer::of_pools(&config, &Files::default()).unwrap().into_iter().map(Arc::new).collect();
    let prepared = Prepared { tls: vec![None], access: vec![Access::default().into()], dialers };
    Site::new(&config, "lb-a".to_owned(), sessions, b"secret", prepared)
}

fn at(server: usize) -> Place {
    Place { pool: PoolIndex(0), server }
}

fn come(site: &Site, server: usize, outcome: Outcome, count: usize) {
    (0..count).for_each(|_| site.came_of(at(server), 0, outcome, None));
}

fn ejected(site: &Site) -> Vec<bool> {
    site.pools[0].servers.iter().map(|server| server.ejection.is_out()).collect()
}

#[test]
fn five_failures_in_a_row_eject_a_server_without_any_configuration() {
    let site = site(2, "");
    come(&site, 0, Outcome::Failure, 4);
    come(&site, 0, Outcome::Good, 1);
    come(&site, 0, Outcome::Failure, 4);
    assert_eq!(ejected(&site), [false, false]);
    come(&site, 0, Outcome::Failure, 1);
    assert_eq!(ejected(&site), [true, false]);
    assert!(!site.pools[0].servers[0].takes_new() && !site.pools[0].servers[0].keeps_users());
    let status = site.pool_status(&[]);
    let ejection = status[0].servers[0].ejection.as_ref().unwrap();
    assert_eq!(ejection.reason, "5 requests in a row got no response");
    assert!((9_000..=11_000).contains(&ejection.left_ms), "{ejection:?}");
}

#[test]
fn errors_of_a_server_eject_it_only_where_that_is_wanted() {
    let quiet = site(2, "");
    come(&quiet, 0, Outcome::Error, 1_000);
    assert_eq!(ejected(&quiet), [false, false]);
    let strict = site(2, "outliers = { consecutive_errors = 3 }");
    come(&strict, 0, Outcome::Error, 3);
    assert_eq!(ejected(&strict), [true, false]);
}

#[test]
fn one_server_stays_however_badly_all_of_them_fare() {
    let site = site(3, "outliers = { ejected_percent_max = 100 }");
    (0..3).for_each(|server| come(&site, server, Outcome::Failure, 50));
    assert_eq!(ejected(&site), [true, true, false]);
    let half = self::site(4, "");
    (0..4).for_each(|server| come(&half, server, Outcome::Failure, 50));
    assert_eq!(ejected(&half), [true, true, false, false]);
}

#[test]
fn a_server_that_is_down_does_not_count_as_one_that_stays() {
    let site = site(2, "health = { type = \"tcp\" }");
    site.pools[0].servers[1].judge(false, "refused".to_owned());
    come(&site, 0, Outcome::Failure, 50);
    assert_eq!(ejected(&site), [false, false]);
}

#[test]
fn a_server_that_checks_have_seen_rise_is_back_at_once() {
    let site = site(2, "health = { type = \"tcp\" }");
    come(&site, 0, Outcome::Failure, 5);
    let server = &site.pools[0].servers[0];
    server.judge(true, "connected".to_owned());
    assert!(server.ejection.is_out(), "it was up all the time");
    server.judge(false, "refused".to_owned());
    server.judge(true, "connected".to_owned());
    assert!(server.takes_new());
}

#[test]
fn after_its_time_a_server_comes_back_and_its_first_failure_ejects_it_for_longer() {
    let site = site(2, "outliers = { ejection_time = \"100ms\" }");
    come(&site, 0, Outcome::Failure, 5);
    let server = &site.pools[0].servers[0];
    let wait = || {
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.ejection.is_out() {
            assert!(Instant::now() < deadline, "it does not come back");
            std::thread::sleep(Duration::from_millis(5));
            site.turn_outcomes();
        }
    };
    wait();
    come(&site, 0, Outcome::Failure, 1);
    assert!(server.ejection.is_out());
    assert!(server.ejection.judged().standing.ejections() >= 1);
    wait();
    come(&site, 0, Outcome::Good, 1);
    come(&site, 0, Outcome::Failure, 1);
    assert!(!server.ejection.is_out());
    assert_eq!(server.ejection.count(), 2);
}

#[test]
fn shares_and_times_are_found_out_at_a_turn() {
    let site = site(4, "outliers = { error_percent = 50, latency_factor = 3, ejected_percent_max = 100 }");
    for server in 0..4 {
        let ms = if server == 3 { 100 } else { 20 };
        (0..20).for_each(|_| site.came_of(at(server), 0, Outcome::Good, Some(Duration::from_millis(ms))));
    }
    come(&site, 1, Outcome::Error, 20);
    assert_eq!(ejected(&site), [false; 4]);
    site.turn_outcomes();
    assert_eq!(ejected(&site), [false, true, false, true]);
    let reason = |server: usize| site.pools[0].servers[server].ejection.judged().reason.clone();
    assert_eq!(reason(1), "20 of 40 requests failed within 10 s");
    assert_eq!(reason(3), "took 100.0 ms on average within 10 s, the others 20.0 ms");
}

#[test]
fn an_open_breaker_of_a_server_stops_what_is_new_and_tries_a_few() {
    let pool = "server_breaker = { consecutive_errors = 3, open_time = \"100ms\", trials = 1, successes = 1 }";
    let site = site(2, pool);
    let server = &site.pools[0].servers[0];
    come(&site, 0, Outcome::Error, 3);
    assert!(!server.takes_new() && server.begin().is_none());
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.circuit.position() != Position::HalfOpen {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
        site.turn_outcomes();
    }
    let trial = server.begin();
    assert!(trial.is_some() && server.begin().is_none() && !server.takes_new());
    drop(trial);
    assert!(server.takes_new());
    come(&site, 0, Outcome::Good, 1);
    assert_eq!(server.circuit.position(), Position::Closed);
}

#[test]
fn the_breaker_of_a_pool_has_limits_and_opens() {
    let site = site(1, "breaker = { consecutive_errors = 2, in_flight_max = 2, pending_max = 1, retries_max = 1 }");
    let pool = &site.pools[0];
    let passages = [pool.admit(), pool.admit()];
    assert!(passages.iter().all(|passage| matches!(passage, Ok(Some(_)))));
    assert_eq!(pool.admit().err(), Some(Stopped::InFlight));
    drop(passages);
    assert!(pool.admit().is_ok());
    let held = (pool.begin_pending(), pool.begin_retry());
    assert!(held.0.is_ok() && held.1.is_ok());
    assert_eq!(
        (pool.begin_pending().err(), pool.begin_retry().err()),
        (Some(Stopped::Pending), Some(Stopped::Retries))
    );
    drop(held);
    assert!(pool.begin_pending().is_ok() && pool.begin_retry().is_ok());
    site.settled(PoolIndex(0), 0, Outcome::Failure);
    site.settled(PoolIndex(0), 0, Outcome::Error);
    assert_eq!(pool.admit().err(), Some(Stopped::Open));
    let status = pool.breaker_status(Instant::now()).unwrap();
    assert_eq!(
        (status.meaning.as_str(), status.reason.as_str()),
        ("open: no request passes", "2 requests in a row failed")
    );
    let refused: Vec<_> = status.refused.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(refused, [("in_flight", 1), ("open", 1), ("pending", 1), ("retries", 1)]);
}

#[test]
fn a_pool_without_a_breaker_lets_all_pass() {
    let site = site(1, "");
    let pool = &site.pools[0];
    (0..100).for_each(|_| site.settled(PoolIndex(0), 0, Outcome::Failure));
    assert!(matches!(pool.admit(), Ok(None)));
    assert!(pool.breaker_status(Instant::now()).is_none());
}

/// What a node has told of a server.
fn told(site: &Site, server: &str) -> Option<Vec<u8>> {
    let key = FactKey::Outcomes { node: "lb-a".to_owned(), pool: "app".to_owned(), server: server.to_owned() };
    site.sessions.facts().get(&key).map(<[u8]>::to_vec)
}

#[test]
fn a_node_starts_with_what_the_other_one_has_found_out() {
    let pool = "server_breaker = { consecutive_errors = 7 }";
    let (a, b) = (site(3, pool), site(3, pool));
    come(&a, 1, Outcome::Failure, 5);
    b.take_outcomes("app", "app2", &told(&a, "app2").unwrap());
    assert_eq!(ejected(&b), [false, true, false]);
    let status = b.pool_status(&[]);
    let reason = &status[0].servers[1].ejection.as_ref().unwrap().reason;
    assert!(reason.starts_with("ejected by the other node"), "{reason}");
    come(&a, 1, Outcome::Failure, 2);
    b.take_outcomes("app", "app2", &told(&a, "app2").unwrap());
    assert_eq!(b.pools[0].servers[1].circuit.position(), Position::Open);
    b.take_outcomes("app", "app2", b"at=1");
    assert_eq!(ejected(&b), [false; 3], "the other one has taken it back");
}

#[test]
fn a_hint_that_is_too_old_or_comes_to_a_node_that_knows_better_counts_for_nothing() {
    let (a, b) = (site(3, ""), site(3, ""));
    b.take_outcomes("app", "app1", b"at=1700000000000 ejected=10000,1");
    assert_eq!(ejected(&b), [false; 3]);
    come(&a, 0, Outcome::Failure, 5);
    come(&b, 0, Outcome::Good, 1);
    b.turn_outcomes();
    b.take_outcomes("app", "app1", &told(&a, "app1").unwrap());
    assert_eq!(ejected(&b), [false; 3]);
    b.take_outcomes("app", "nobody", &told(&a, "app1").unwrap());
    let one = site(1, "");
    one.take_outcomes("app", "app1", &told(&a, "app1").unwrap());
    assert_eq!(ejected(&one), [false], "never the last");
}

#[test]
fn a_node_starts_with_a_breaker_of_a_pool_as_the_other_one_has_it() {
    let pool = "breaker = { consecutive_errors = 2, open_time = \"100ms\", trials = 1, successes = 1 }";
    let (a, b) = (site(1, pool), site(1, pool));
    let position = |site: &Site| site.pools[0].circuit.circuit.position();
    let tell = || b.take_outcomes("app", "", &told(&a, "").unwrap());
    let wait_for_trials = |site: &Site| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while position(site) != Position::HalfOpen {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
            site.turn_outcomes();
        }
    };
    (0..2).for_each(|_| a.settled(PoolIndex(0), 0, Outcome::Failure));
    tell();
    assert_eq!(position(&b), Position::Open);
    let reason = b.pools[0].breaker_status(Instant::now()).unwrap().reason;
    assert!(reason.starts_with("opened by the other node"), "{reason}");
    assert_eq!(b.pools[0].admit().err(), Some(Stopped::Open));
    wait_for_trials(&a);
    wait_for_trials(&b);
    tell();
    assert_eq!(position(&b), Position::HalfOpen, "what one tries the other one still has to try");
    a.settled(PoolIndex(0), 0, Outcome::Good);
    tell();
    assert_eq!(position(&b), Position::Closed, "no request comes here to try it");
}

#[test]
fn a_breaker_of_a_pool_that_knows_better_stays_as_it_is() {
    let pool = "breaker = { consecutive_errors = 2 }";
    let (a, b) = (site(1, pool), site(1, pool));
    (0..2).for_each(|_| a.settled(PoolIndex(0), 0, Outcome::Failure));
    b.settled(PoolIndex(0), 0, Outcome::Good);
    b.turn_outcomes();
    b.take_outcomes("app", "", &told(&a, "").unwrap());
    assert!(b.pools[0].admit().is_ok(), "it has had requests of its own");
    let c = site(1, pool);
    (0..2).for_each(|_| c.settled(PoolIndex(0), 0, Outcome::Failure));
    c.take_outcomes("app", "", b"at=1");
    assert_eq!(c.pools[0].admit().err(), Some(Stopped::Open), "it has opened itself");
    let without = site(1, "");
    without.take_outcomes("app", "", &told(&a, "").unwrap());
    assert!(without.pools[0].admit().is_ok());
}
