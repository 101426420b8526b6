//! What keeps a client on its server: a cookie of ours, or something that the client brings along and a table.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::balancing::TCP_CHECKS;
use crate::baton::{Baton, Settings};
use crate::client::Client;
use crate::curl::curl;
use crate::server::Server;
use crate::wire::Message;

// printf '\0\0\0\0\0\0\0\3appapp1' | openssl dgst -sha256 -mac hmac -macopt hexkey: , the first 16 digits
const FIRST: &str = "63dd98b3b3949ee6";
const SECOND: &str = "f2f4fce63f17f3d9";

fn sticky(more: &str) -> Settings {
    Settings { pool: format!("{more}\n[pool.sticky]\nby = \"cookie\"\n"), ..Settings::default() }
}

fn with_cookie(cookie: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")
}

#[test]
fn cookie_is_set_once_and_keeps_a_client_on_its_server() {
    let servers = ["0", "1"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky(""));
    let mut client = baton.client();
    let first = client.get("/");
    let expected = format!("BATON={FIRST}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!((first.text().as_str(), first.value("set-cookie")), ("0", Some(expected.as_str())));
    for _ in 0..3 {
        let again = client.ask(with_cookie(&format!("a=b; BATON={FIRST}; c=d")));
        assert_eq!((again.text().as_str(), again.value("set-cookie")), ("0", None));
    }
    let other = client.get("/");
    let expected = format!("BATON={SECOND}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!((other.text().as_str(), other.value("set-cookie")), ("1", Some(expected.as_str())));
}

#[test]
fn servers_cookies_are_passed_on_next_to_ours() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nContent-Length: 2\r\n\r\nok");
    let settings = Settings { pool: "[pool.sticky]\nname = \"STICK\"\n".to_owned(), ..Settings::default() };
    let baton = Baton::with(&[&server], &settings);
    let response = baton.client().get("/");
    let ours = format!("STICK={FIRST}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(response.values("set-cookie"), ["own=1", ours.as_str()]);
}

#[test]
fn cookie_that_is_not_ours_is_ignored_and_replaced() {
    let servers = ["0", "1"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky(""));
    let mut client = baton.client();
    let mut tampered = FIRST.to_owned();
    tampered.replace_range(15.., if FIRST.ends_with('0') { "1" } else { "0" });
    for (index, value) in [tampered.as_str(), "", "app1", "0", "127.0.0.1", "../../x"].into_iter().enumerate() {
        let response = client.ask(with_cookie(&format!("BATON={value}")));
        assert_eq!(response.text(), (index % 2).to_string(), "{value:?} has a turn like any other");
        assert!(response.value("set-cookie").is_some(), "{value:?}");
    }
}

#[test]
fn client_whose_server_is_down_gets_another_and_its_cookie() {
    let (mut first, second) = (Server::saying("0"), Server::saying("1"));
    let baton = Baton::with(&[&first, &second], &sticky(TCP_CHECKS));
    let mut client = baton.client();
    assert_eq!(client.ask(with_cookie(&format!("BATON={FIRST}"))).text(), "0");
    first.pause();
    baton.wait_for_log("server is down");
    let moved = client.ask(with_cookie(&format!("BATON={FIRST}")));
    let expected = format!("BATON={SECOND}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!((moved.text().as_str(), moved.value("set-cookie")), ("1", Some(expected.as_str())));
    first.resume();
    baton.wait_for_log("server is up");
    let stays = client.ask(with_cookie(&format!("BATON={SECOND}")));
    assert_eq!((stays.text().as_str(), stays.value("set-cookie")), ("1", None));
}

#[test]
fn client_whose_server_refuses_before_any_check_gets_another_and_its_cookie() {
    let (mut first, second) = (Server::saying("0"), Server::saying("1"));
    first.pause();
    let baton = Baton::with(&[&first, &second], &sticky(""));
    let moved = baton.client().ask(with_cookie(&format!("BATON={FIRST}")));
    let expected = format!("BATON={SECOND}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!((moved.text().as_str(), moved.value("set-cookie")), ("1", Some(expected.as_str())));
}

#[test]
fn curl_keeps_its_server_with_a_cookie_jar() {
    let servers = ["0", "1", "2"].map(Server::saying);
    for keys in ["by = \"cookie\"", "ttl = \"1h\"\nttl_max = \"2h\"\npath = \"/shop\""] {
        let baton = Baton::with(&servers.each_ref(), &sticky_by(keys));
        let url = baton.url("/shop/cart");
        let output = curl(&["--cookie", "", &url, &url, &url, &url]);
        assert_eq!((output.code, output.text().as_str()), (Some(0), "0000"), "{keys}: {}", output.stderr);
    }
}

/// A pool that is sticky as these keys say.
fn sticky_by(keys: &str) -> Settings {
    Settings { pool: format!("[pool.sticky]\n{keys}\n"), ..Settings::default() }
}

/// The same with checks.
fn checked_and_sticky_by(keys: &str) -> Settings {
    Settings { pool: format!("{TCP_CHECKS}\n[pool.sticky]\n{keys}\n"), ..Settings::default() }
}

/// Asks with one more field.
fn ask_with(client: &mut Client, field: &str) -> Message {
    client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"))
}

/// Asks until the answer is as described.
fn ask_until(description: &str, mut ask: impl FnMut() -> Message, is_so: impl Fn(&Message) -> bool) -> Message {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if is_so(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for this: {description}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The value of our cookie in a response.
fn our_cookie(response: &Message) -> String {
    let field = response.value("set-cookie").expect("a cookie is set");
    let (cookie, _) = field.split_once(';').expect("it has attributes");
    cookie.strip_prefix("BATON=").expect("it is ours").to_owned()
}

#[test]
fn attributes_of_the_cookie_are_as_configured() {
    let server = Server::saying("ok");
    let set = |keys: &str| {
        let baton = Baton::with(&[&server], &sticky_by(keys));
        let response = baton.client().get("/");
        response.value("set-cookie").expect("a cookie is set").to_owned()
    };
    assert_eq!(
        set("secure = \"always\"\nhttp_only = false\nsame_site = \"none\"\npath = \"/shop\"\ndomain = \"Example.com\""),
        format!("BATON={FIRST}; Path=/shop; Domain=example.com; SameSite=None; Secure")
    );
    assert_eq!(set("same_site = \"strict\""), format!("BATON={FIRST}; Path=/; HttpOnly; SameSite=Strict"));
    assert_eq!(set("same_site = \"off\""), format!("BATON={FIRST}; Path=/; HttpOnly"));
}

#[test]
fn cookie_with_a_time_to_live_has_dates_and_says_how_long_to_keep_it() {
    let servers = ["0", "1"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("ttl = \"1h\"\nttl_max = \"90m\""));
    let mut client = baton.client();
    let first = client.get("/");
    let value = our_cookie(&first);
    assert_eq!((value.len(), value.starts_with(FIRST)), (48, true));
    let expected = format!("BATON={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
    assert_eq!(first.value("set-cookie"), Some(expected.as_str()));
    let again = client.ask(with_cookie(&format!("BATON={value}")));
    assert_eq!((again.text().as_str(), again.value("set-cookie")), ("0", None), "it is far from due");
}

#[test]
fn cookie_whose_dates_were_tampered_with_is_ignored_and_replaced() {
    let servers = ["0", "1"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("ttl = \"1h\""));
    let mut client = baton.client();
    let value = our_cookie(&client.get("/"));
    let mut longer = value.clone();
    longer.replace_range(24..32, "7fffffff");
    for (index, tampered) in [longer.as_str(), &value[..16], &value.to_uppercase(), ""].into_iter().enumerate() {
        let response = client.ask(with_cookie(&format!("BATON={tampered}")));
        assert_eq!(response.text(), ((index + 1) % 2).to_string(), "{tampered:?} has a turn like any other");
        assert_ne!(our_cookie(&response), tampered);
    }
}

#[test]
fn cookie_is_sent_again_while_it_is_used_and_counts_no_more_when_it_is_not() {
    let servers = ["0", "1"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("ttl = \"2s\""));
    let mut client = baton.client();
    let first = our_cookie(&client.get("/"));
    let mut ask = |value: &str| client.ask(with_cookie(&format!("BATON={value}")));
    let renewed = ask_until("the cookie is due", || ask(&first), |answer| answer.value("set-cookie").is_some());
    let second = our_cookie(&renewed);
    assert_eq!((renewed.text().as_str(), &second[..24]), ("0", &first[..24]), "the same server and date of issue");
    assert_ne!(second, first);
    // Whoever keeps an old one, against our wish, has a turn like any other once it is too old.
    let moved = ask_until("the first cookie is too old", || ask(&first), |answer| answer.text() == "1");
    assert_ne!(&our_cookie(&moved)[..16], &first[..16]);
}

#[test]
fn cookie_counts_no_longer_than_its_absolute_time() {
    let servers = ["0", "1"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("ttl = \"1s\"\nttl_max = \"2s\""));
    let mut client = baton.client();
    let mut value = our_cookie(&client.get("/"));
    // A browser that always has the newest.
    let ask = || {
        let answer = client.ask(with_cookie(&format!("BATON={value}")));
        if answer.value("set-cookie").is_some() {
            value = our_cookie(&answer);
        }
        answer
    };
    ask_until("the client has a turn again", ask, |answer| answer.text() == "1");
}

#[test]
fn client_waits_for_its_server_where_it_may_go_to_no_other() {
    let (mut first, second) = (Server::saying("0"), Server::saying("1"));
    let baton = Baton::with(&[&first, &second], &checked_and_sticky_by("by = \"cookie\"\non_down = \"fail\""));
    let mut client = baton.client();
    assert_eq!(client.ask(with_cookie(&format!("BATON={FIRST}"))).text(), "0");
    first.pause();
    baton.wait_for_log("server is down");
    let refused = client.ask(with_cookie(&format!("BATON={FIRST}")));
    assert_eq!(
        (refused.status(), refused.text().as_str(), refused.value("set-cookie")),
        (503, "503 Service Unavailable\nthe server that has your session is down\n", None)
    );
    let reason = "\"lb-test\"; error=destination_unavailable; next-hop=\"app1\"";
    assert_eq!(refused.value("proxy-status"), Some(reason));
    assert_eq!(client.get("/").text(), "1", "who belongs nowhere is served");
    first.resume();
    baton.wait_for_log("server is up");
    assert_eq!(client.ask(with_cookie(&format!("BATON={FIRST}"))).text(), "0");
}

#[test]
fn clients_of_one_network_stay_together() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("by = \"source_ip\"\nprefix_v4 = 24"));
    let from = |address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        Client::connect_from(SocketAddr::new(address, 0), baton.address()).get("/")
    };
    let sequence = ["127.0.1.1", "127.0.1.1", "127.0.1.9", "127.0.2.1", "127.0.2.2", "127.0.1.3", "127.0.3.1"];
    let order: String = sequence.iter().map(|address| from(address).text()).collect();
    assert_eq!(order, "0001102");
    assert_eq!(from("127.0.1.1").value("set-cookie"), None);
}

#[test]
fn clients_stay_by_their_whole_address_unless_told_otherwise() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("by = \"source_ip\""));
    let from = |address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        Client::connect_from(SocketAddr::new(address, 0), baton.address()).get("/").text()
    };
    let order: String = ["127.0.1.1", "127.0.1.2", "127.0.1.1", "127.0.1.2"].map(from).concat();
    assert_eq!(order, "0101");
}

#[test]
fn clients_stay_by_a_header() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("by = \"header\"\nname = \"X-User\""));
    let mut client = baton.client();
    let fields = ["X-User: ann", "X-User: bob", "x-user:  ann ", "X-User: bob", "X-User: cyd", "X-User: ann"];
    let order: String = fields.map(|field| ask_with(&mut client, field).text()).concat();
    assert_eq!(order, "010120");
    // Who has none takes turns, and so does who has an empty one.
    let fields = ["X-Other: ann", "X-User:", "X-User: ", "X-Other: ann"];
    let order: String = fields.map(|field| ask_with(&mut client, field).text()).concat();
    assert_eq!(order, "0120");
}

#[test]
fn clients_stay_by_a_parameter_of_the_query() {
    let servers = ["0", "1", "2"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("by = \"query\"\nname = \"user\""));
    let mut client = baton.client();
    let targets = ["/?user=ann", "/a?x=y&user=bob", "/b?user=ann&x", "/?user=bob&user=ann", "/?user=cyd", "/?user=ann"];
    let order: String = targets.map(|target| client.get(target).text()).concat();
    assert_eq!(order, "010120");
    let targets = ["/?users=ann", "/?user=", "/user=ann", "/?user"];
    let order: String = targets.map(|target| client.get(target).text()).concat();
    assert_eq!(order, "0120");
}

/// A server with sessions of its own: `/login` begins one, `/logout` ends it.
fn application(name: &'static str) -> Server {
    Server::start(move |exchange| {
        loop {
            let request = exchange.request()?;
            let cookie = match request.start.split(' ').nth(1) {
                Some("/login") => format!("Set-Cookie: JSESSIONID=of-{name}; Path=/; HttpOnly\r\n"),
                Some("/logout") => "Set-Cookie: JSESSIONID=gone; Max-Age=0; Path=/\r\n".to_owned(),
                _ => String::new(),
            };
            let length = name.len();
            exchange.send(format!("HTTP/1.1 200 OK\r\n{cookie}Content-Length: {length}\r\n\r\n{name}"))?;
        }
    })
}

#[test]
fn cookie_of_the_application_is_learned_and_forgotten_when_the_application_takes_it_away() {
    let servers = ["0", "1", "2"].map(application);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("by = \"app_cookie\"\nname = \"JSESSIONID\""));
    let mut client = baton.client();
    let mut get = |target: &str, cookie: &str| {
        client.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")).text()
    };
    assert_eq!(get("/", "a=b"), "0");
    assert_eq!(get("/login", "a=b"), "1");
    for _ in 0..4 {
        assert_eq!(get("/", "a=b; JSESSIONID=of-1; c=d"), "1");
    }
    assert_eq!(get("/", "a=b"), "2", "who has none takes turns");
    assert_eq!(get("/page;jsessionid=of-1;x=y/more?z", "a=b"), "1", "in the path where there are no cookies");
    assert_eq!(get("/page;JSESSIONID=of-1", "a=b"), "1");
    assert_eq!(get("/logout", "JSESSIONID=of-1"), "1");
    assert_eq!(get("/", "JSESSIONID=of-1"), "0", "it has a turn like any other");
}

#[test]
fn client_whose_server_is_down_gets_another_for_good() {
    let (mut first, second, third) = (Server::saying("0"), Server::saying("1"), Server::saying("2"));
    let settings = checked_and_sticky_by("by = \"header\"\nname = \"X-User\"");
    let baton = Baton::with(&[&first, &second, &third], &settings);
    let mut client = baton.client();
    let mut ask = |user: &str| ask_with(&mut client, &format!("X-User: {user}")).text();
    assert_eq!(ask("ann"), "0");
    first.pause();
    baton.wait_for_log("server is down");
    assert_eq!([ask("ann"), ask("bob"), ask("ann")], ["1", "2", "1"]);
    first.resume();
    baton.wait_for_log("server is up");
    assert_eq!([ask("ann"), ask("bob")], ["1", "2"]);
}

#[test]
fn client_whose_server_refuses_before_any_check_is_remembered_at_another() {
    let (mut first, second) = (Server::saying("0"), Server::saying("1"));
    let baton = Baton::with(&[&first, &second], &sticky_by("by = \"header\"\nname = \"X-User\""));
    let mut client = baton.client();
    let mut ask = || ask_with(&mut client, "X-User: ann").text();
    assert_eq!(ask(), "0");
    first.pause();
    assert_eq!(ask(), "1");
    first.resume();
    assert_eq!([ask(), ask()], ["1", "1"]);
}

#[test]
fn entry_of_a_client_is_kept_where_it_may_go_to_no_other_server() {
    let (mut first, second) = (Server::saying("0"), Server::saying("1"));
    let settings = checked_and_sticky_by("by = \"header\"\nname = \"X-User\"\non_down = \"fail\"");
    let baton = Baton::with(&[&first, &second], &settings);
    let mut client = baton.client();
    let mut ask = |user: &str| ask_with(&mut client, &format!("X-User: {user}"));
    assert_eq!(ask("ann").text(), "0");
    first.pause();
    // Refused by the server itself first, and by us once a check has found out.
    assert!([502, 503].contains(&ask("ann").status()));
    baton.wait_for_log("server is down");
    assert_eq!((ask("ann").status(), ask("bob").text().as_str()), (503, "1"));
    first.resume();
    baton.wait_for_log("server is up");
    assert_eq!(ask("ann").text(), "0");
}

#[test]
fn first_requests_of_one_client_at_once_land_on_one_server() {
    const CLIENTS: usize = 12;
    let servers = ["0", "1", "2"].map(Server::saying);
    let settings = Settings { threads: 4, ..sticky_by("by = \"header\"\nname = \"X-User\"") };
    let baton = Baton::with(&servers.each_ref(), &settings);
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let connections = (0..CLIENTS).map(|_| (baton.client(), Arc::clone(&barrier)));
    let threads: Vec<_> = connections
        .map(|(mut client, barrier)| {
            std::thread::spawn(move || {
                let ask = |user: usize| {
                    barrier.wait();
                    ask_with(&mut client, &format!("X-User: user{user}")).text()
                };
                (0..30).map(ask).collect::<Vec<_>>()
            })
        })
        .collect();
    let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("it asks to its end")).collect();
    for answer in &answers {
        assert_eq!(answer, &answers[0], "every client saw every user on the same server");
    }
}

#[test]
fn oldest_client_is_forgotten_when_the_pool_is_full() {
    let servers = ["0", "1", "2", "3"].map(Server::saying);
    let baton = Baton::with(&servers.each_ref(), &sticky_by("by = \"header\"\nname = \"X-User\"\nentries_max = 2"));
    let mut client = baton.client();
    let users = ["ann", "bob", "cyd", "bob", "cyd", "ann"];
    let order: String = users.map(|user| ask_with(&mut client, &format!("X-User: {user}")).text()).concat();
    assert_eq!(order, "012123", "ann has a turn again, which is the fourth");
}

#[test]
fn client_is_forgotten_after_the_absolute_time_however_much_it_asks() {
    let servers = ["0", "1"].map(Server::saying);
    let keys = "by = \"header\"\nname = \"X-User\"\nttl = \"1s\"\nttl_max = \"1s\"";
    let baton = Baton::with(&servers.each_ref(), &sticky_by(keys));
    let mut client = baton.client();
    let mut ask = || ask_with(&mut client, "X-User: ann");
    assert_eq!([ask().text(), ask().text()], ["0", "0"]);
    ask_until("the client has a turn again", ask, |answer| answer.text() == "1");
}
