//! Load balancers that are no pair and share their sessions in a redis-server of the test's own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::baton::{Baton, Settings};
use crate::redis::certificates::Certificates;
use crate::redis::server::{Directory, RedisServer, wait_for};
use crate::server::Server;

/// A load balancer before these servers, which knows clients by `sticky`.
fn balancer(servers: &[&Server], sticky: &str, redis: &RedisServer) -> Baton {
    let store = format!("[sessions]\nstore = \"redis://127.0.0.1:{}/1\"\nstore_timeout = \"5s\"\n", redis.port());
    let pool = format!("sticky = {sticky}\n{store}");
    let baton = Baton::with(servers, &Settings { pool, ..Settings::default() });
    baton.wait_for_log("the session store is connected");
    baton
}

fn ask(baton: &Baton, user: usize) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-User: {user}\r\n\r\n");
    let response = baton.client().ask(request);
    assert_eq!(response.status(), 200);
    response.text()
}

const BY_USER: &str = "{ by = \"header\", name = \"X-User\" }";

#[test]
fn a_user_has_one_server_whichever_load_balancer_is_asked() {
    let redis = RedisServer::start(&[]);
    let servers = ["0", "1", "2"].map(Server::saying);
    let of = || balancer(&servers.each_ref(), BY_USER, &redis);
    let (one, two, three) = (of(), of(), of());
    for user in 0..30 {
        // Each of them is the first for a third of the users.
        let asked = [[&one, &two, &three], [&two, &three, &one], [&three, &one, &two]][user % 3];
        let answers = asked.map(|baton| ask(baton, user));
        assert!(answers.iter().all(|answer| *answer == answers[0]), "user {user}: {answers:?}");
        // In turn, as without a store: ten of each load balancer's.
        assert_eq!(answers[0], ["0", "1", "2"][user / 3 % 3], "user {user}");
    }
    assert_eq!(redis.cli(&["-n", "1", "EVAL", "return #redis.call('KEYS', 'baton:????????*')", "0"]), "30");
}

#[test]
fn while_the_store_is_away_users_are_served_and_all_load_balancers_agree() {
    let mut redis = RedisServer::start(&[]);
    let servers = ["0", "1", "2"].map(Server::saying);
    let of = |redis: &RedisServer| balancer(&servers.each_ref(), BY_USER, redis);
    let (one, two) = (of(&redis), of(&redis));
    let known: Vec<String> = (0..6).map(|user| ask(&one, user)).collect();
    redis.kill();
    for baton in [&one, &two] {
        baton.wait_for_log("the session store is away: sessions are placed by hashing");
    }
    let known_still: Vec<String> = (0..6).map(|user| ask(&one, user)).collect();
    assert_eq!(known_still, known);
    let answers: Vec<String> = (100..130).map(|user| ask(&one, user)).collect();
    assert_eq!((100..130).map(|user| ask(&two, user)).collect::<Vec<_>>(), answers);
    for server in ["0", "1", "2"] {
        assert!(answers.iter().any(|answer| answer == server), "nobody is on {server}: {answers:?}");
    }
    redis.restart();
    for baton in [&one, &two] {
        baton.wait_for_logs(2, "the session store is connected");
    }
    // A third one, which was not there, learns of them from the store.
    let three = of(&redis);
    assert_eq!((100..130).map(|user| ask(&three, user)).collect::<Vec<_>>(), answers);
}

#[test]
fn what_an_application_sets_is_known_to_all_before_the_client_has_it() {
    let redis = RedisServer::start(&[]);
    let count = AtomicUsize::new(0);
    let servers = ["0", "1", "2"].map(|name| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let sessions = AtomicUsize::new(0);
        Server::start(move |exchange| {
            while let Ok(request) = exchange.request() {
                let session = sessions.fetch_add(1, Ordering::Relaxed);
                let is_new = request.value("cookie").is_none();
                let cookie = if is_new { format!("Set-Cookie: SID={number}-{session}\r\n") } else { String::new() };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{cookie}\r\n");
                exchange.send([head.as_bytes(), name.as_bytes()].concat())?;
            }
            Ok(())
        })
    });
    let sticky = "{ by = \"app_cookie\", name = \"SID\" }";
    let of = || balancer(&servers.each_ref(), sticky, &redis);
    let (one, two) = (of(), of());
    for _ in 0..50 {
        let first = one.client().get("/");
        let cookie = first.value("set-cookie").expect("a new client gets a cookie").to_owned();
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\nCookie: {cookie}\r\n\r\n");
        assert_eq!(two.client().ask(request).text(), first.text());
    }
}

#[test]
fn a_user_who_has_to_move_has_moved_everywhere() {
    let redis = RedisServer::start(&[]);
    let mut servers = ["0", "1"].map(Server::saying);
    let of = || balancer(&servers.each_ref(), BY_USER, &redis);
    let (one, two) = (of(), of());
    assert_eq!((ask(&one, 1), ask(&two, 1)), ("0".to_owned(), "0".to_owned()));
    servers[0].pause();
    assert_eq!(ask(&one, 1), "1");
    servers[0].resume();
    assert_eq!(ask(&one, 1), "1");
    // The other one has it in its table, and compares that with the store every 3 s while it is used.
    wait_for("the other one knows", || ask(&two, 1) == "1");
    assert_eq!(ask(&one, 1), "1");
}

#[test]
fn servers_that_come_go_and_change_places_keep_their_sessions() {
    let redis = RedisServer::start(&[]);
    let servers = ["0", "1", "2"].map(Server::saying);
    let fourth = Server::saying("3");
    let of = || balancer(&servers.each_ref(), BY_USER, &redis);
    let (one, two) = (of(), of());
    let known: Vec<String> = (0..6).map(|user| ask(&one, user)).collect();
    // The first one is gone, and the others have other numbers.
    let address = |number: usize| servers[number].address();
    let blocks = format!(
        "[[pool]]\nname = \"app\"\nservers = [{{ name = \"app3\", address = \"{}\" }}, {{ name = \"app2\", address = \
         \"{}\" }}]\nsticky = {BY_USER}\n[sessions]\nstore = \"redis://127.0.0.1:{}/1\"\nstore_timeout = \"5s\"\n\
         [worker]\nthreads = 1\n",
        address(2),
        address(1),
        redis.port()
    );
    one.write_config("pool = \"app\"", &blocks);
    one.done(&["reload"]);
    for user in (0..6).filter(|user| known[*user] != "0") {
        assert_eq!(ask(&one, user), known[user], "user {user}");
    }
    // One is found at run time, and the other load balancer finds its users once it has it too.
    for baton in [&one, &two] {
        baton.done(&["server", "add", "app/app4", &fourth.address().to_string()]);
        baton.wait_for_status(|status| {
            status["pools"][0]["servers"]
                .as_array()
                .is_some_and(|list| list.iter().any(|server| server["name"] == "app4"))
        });
    }
    let answers: Vec<String> = (100..112).map(|user| ask(&one, user)).collect();
    for server in ["1", "2", "3"] {
        assert!(answers.iter().any(|answer| answer == server), "nobody is on {server}: {answers:?}");
    }
    assert_eq!((100..112).map(|user| ask(&two, user)).collect::<Vec<_>>(), answers);
    assert_eq!(one.status()["sessions"]["store"]["state"], "connected");
}

#[test]
fn a_store_that_stands_still_is_no_reason_not_to_answer() {
    let redis = RedisServer::start(&[]);
    let servers = ["0", "1"].map(Server::saying);
    let store = format!("[sessions]\nstore = \"redis://127.0.0.1:{}\"\nstore_timeout = \"50ms\"\n", redis.port());
    let settings = Settings { pool: format!("sticky = {BY_USER}\n{store}"), ..Settings::default() };
    let baton = Baton::with(&servers.each_ref(), &settings);
    baton.wait_for_log("the session store is connected");
    redis.freeze();
    let answers: Vec<String> = (0..20).map(|user| ask(&baton, user)).collect();
    baton.wait_for_log("the session store is away: sessions are placed by hashing");
    assert_eq!((0..20).map(|user| ask(&baton, user)).collect::<Vec<_>>(), answers);
    redis.thaw();
    wait_for("it is told of them all", || {
        redis.cli(&["EVAL", "return #redis.call('KEYS', 'baton:????????*')", "0"]) == "20"
    });
}

#[test]
fn password_and_authorities_reach_the_worker_from_files_that_it_may_not_read() {
    let certificates = Certificates::make();
    let redis = certificates.server(&["--requirepass", "Zauberwort42"]);
    let directory = Directory::new();
    let password = directory.path().join("password");
    fs::write(&password, "Zauberwort42\n").unwrap();
    fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
    let store = format!(
        "[sessions]\nstore = \"rediss://127.0.0.1:{}\"\nstore_password_file = {password:?}\nstore_ca_file = {:?}\n",
        redis.port(),
        certificates.authority
    );
    let servers = ["0", "1"].map(Server::saying);
    let settings = Settings { pool: format!("sticky = {BY_USER}\n{store}"), ..Settings::default() };
    let baton = Baton::with(&servers.each_ref(), &settings);
    baton.wait_for_log("the session store is connected");
    let first = ask(&baton, 1);
    assert_eq!(ask(&baton, 1), first);
    let of_store = |pointer: &str| baton.status().pointer(&format!("/sessions/store/{pointer}")).cloned();
    // The guard asks the worker every now and then.
    wait_for("the status tells of it", || of_store("lookups") == Some(2.into()));
    assert_eq!(of_store("state"), Some("connected".into()));
    assert_eq!(of_store("url"), Some(format!("rediss://127.0.0.1:{}/0", redis.port()).into()));
    assert!(!baton.status().to_string().contains("Zauberwort42"));
}
