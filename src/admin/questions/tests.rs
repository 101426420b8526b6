use super::*;
use crate::config::{self, ServerChange};
use crate::inquiry::{Fault, ServerOrder};
use crate::proxy::files::Files;
use crate::proxy::sessions::Sessions;
use crate::proxy::state::Prepared;
use crate::proxy::upstream::dial::Dialer;
use crate::session::facts::FactKey;
use crate::session::version::Node;
use crate::status::{ServerSessionsStatus, SessionPoolStatus};
use std::path::Path;
use std::sync::Arc;

const CONFIG: &str = r#"
[[listener]]
name = "web"
bind = ["127.0.0.1:80"]
pool = "app"
[[pool]]
name = "app"
servers = [{ name = "app1", address = "10.0.0.1:80" }, { name = "app2", address = "10.0.0.2:80" }]
sticky = { by = "header", name = "X-User" }
[[pool]]
name = "api"
servers = [{ name = "api1", address = "10.0.0.3:80" }]
sticky = { by = "source_ip", prefix_v4 = 24, entries_max = 500 }
[[pool]]
name = "own"
servers = [{ name = "own1", address = "10.0.0.4:80" }]
sticky = {}
[[pool]]
name = "plain"
servers = [{ name = "plain1", address = "10.0.0.5:80" }]
"#;

fn site() -> Site {
    let config = config::parse(CONFIG, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    let sessions = Arc::new(Sessions::new(&config, Node::First, b"secret"));
    let dialers = Dialer::of_pools(&config, &Files::default()).unwrap();
    let prepared = Prepared {
        tls: vec![None],
        access: vec![Arc::default()],
        dialers: dialers.into_iter().map(Arc::new).collect(),
    };
    Site::new(&config, "lb-a".to_owned(), sessions, b"secret", prepared)
}

fn put(site: &Site, pool: u16, value: &[u8], server: u16) -> Key {
    let key = site.sessions.keys.key(pool, value).unwrap();
    site.sessions.table.put(&key, ServerRef { pool, server }, site.sessions.now());
    key
}

/// Ten users on app1, five on app2, two networks on api1.
fn filled() -> Site {
    let site = site();
    for user in 0..15_u8 {
        put(&site, 0, &[b'u', user], u16::from(user >= 10));
    }
    put(&site, 1, &[192, 0, 2, 0], 0);
    put(&site, 1, &[198, 51, 100, 0], 0);
    site
}

fn filter(pool: &str, server: &str, key: &str) -> Filter {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Filter { pool: some(pool), server: some(server), key: some(key) }
}

fn ask(site: &Site, question: SessionsQuestion) -> Answer {
    answer(site, &Question::Sessions(question))
}

fn listed(site: &Site, filter: Filter, after: Option<String>, limit: u32) -> (Vec<SessionEntry>, Option<String>) {
    match ask(site, SessionsQuestion::List { filter, after, limit }) {
        Answer::Entries { entries, next } => (entries, next),
        other => panic!("{other:?}"),
    }
}

fn refused(answer: Answer) -> String {
    match answer {
        Answer::Refused(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

fn cleared(site: &Site, filter: Filter) -> u64 {
    match ask(site, SessionsQuestion::Clear { filter }) {
        Answer::Cleared { count } => count,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_hold_every_entry_once_in_the_order_of_their_keys() {
    let site = filled();
    let (whole, next) = listed(&site, Filter::default(), None, 100);
    assert_eq!((whole.len(), next), (17, None));
    assert!(whole.is_sorted_by(|one, other| one.key < other.key));
    let (mut paged, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (entries, next) = listed(&site, Filter::default(), after, 4);
        assert!(entries.len() <= 4);
        paged.extend(entries);
        (after, pages) = (next, pages + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!((paged, pages), (whole, 5));
}

#[test]
fn a_page_that_is_just_full_is_the_last_one() {
    assert_eq!(listed(&filled(), Filter::default(), None, 17).1, None);
    assert!(listed(&filled(), Filter::default(), None, 16).1.is_some());
}

#[test]
fn filters_restrict_by_pool_server_and_key() {
    let site = filled();
    let count = |pool, server, key| listed(&site, filter(pool, server, key), None, 100).0.len();
    assert_eq!(count("app", "", ""), 15);
    assert_eq!(count("app", "app2", ""), 5);
    assert_eq!(count("", "api1", ""), 2);
    let user = String::from_utf8(vec![b'u', 11]).unwrap();
    assert_eq!(count("app", "", &user), 1);
    assert_eq!(count("app", "app2", &user), 1);
    assert_eq!(count("app", "app1", &user), 0);
    assert_eq!(count("app", "", "nobody"), 0);
    assert_eq!(count("api", "", "192.0.2.77"), 1, "of the network that the address is in");
    assert_eq!(count("api", "", "192.0.3.77"), 0);
}

#[test]
fn an_entry_shows_the_hash_of_its_key_and_nothing_else_of_it() {
    let site = site();
    let key = put(&site, 0, b"a secret cookie", 1);
    let (entries, _) = listed(&site, filter("app", "", "a secret cookie"), None, 1);
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(entry.key, key.to_string());
    assert_eq!((entry.pool.as_str(), entry.server.as_str()), ("app", "app2"));
    assert!(entry.expires_in_ms > 3_590_000 && entry.expires_in_ms <= 3_600_000, "{entry:?}");
    assert!(!serde_json::to_string(entry).unwrap().contains("secret"));
}

#[test]
fn counts_are_by_pool_and_server() {
    let counted = |pool, server| match ask(&filled(), SessionsQuestion::Count { filter: filter(pool, server, "") }) {
        Answer::Counts(counts) => counts,
        other => panic!("{other:?}"),
    };
    let of = |server: &str, entries| ServerSessionsStatus { server: server.to_owned(), entries };
    let app = |by_server| SessionPoolStatus {
        pool: "app".to_owned(),
        entries: 15,
        entries_max: 1_000_000,
        evicted: 0,
        expired: 0,
        by_server,
    };
    let all = counted("", "");
    assert_eq!((all.entries, all.bytes, all.cookie_pools), (17, 17 * 52, vec!["own".to_owned()]));
    assert_eq!(all.pools.len(), 2);
    assert_eq!(all.pools[0], app(vec![of("app1", 10), of("app2", 5)]));
    assert_eq!((all.pools[1].entries, all.pools[1].entries_max), (2, 500));
    let one = counted("app", "app2");
    assert_eq!((one.entries, one.pools), (5, vec![app(vec![of("app2", 5)])]));
}

#[test]
fn clearing_removes_what_the_filter_says_and_tells_how_many() {
    let site = filled();
    let user = String::from_utf8(vec![b'u', 0]).unwrap();
    assert_eq!(cleared(&site, filter("", "", &user)), 1);
    assert_eq!(cleared(&site, filter("", "", &user)), 0);
    assert_eq!(cleared(&site, filter("app", "app2", "")), 5);
    assert_eq!(cleared(&site, filter("", "app1", "")), 9);
    assert_eq!(listed(&site, Filter::default(), None, 100).0.len(), 2);
    assert_eq!(cleared(&site, Filter::default()), 2);
    assert_eq!(listed(&site, Filter::default(), None, 100).0.len(), 0);
}

#[test]
fn unknown_names_are_told_with_the_known_ones() {
    let site = filled();
    let count = |pool, server| refused(ask(&site, SessionsQuestion::Count { filter: filter(pool, server, "") }));
    assert_eq!(count("ap", ""), "there is no pool ap; this node has app, api, own, plain");
    assert_eq!(count("app", "x"), "there is no server x; pool app has app1, app2");
    let order = |pool: &str, server: &str| {
        let (pool, server) = (pool.to_owned(), server.to_owned());
        refused(answer(&site, &Question::Server { pool, server, order: Order::Drain }))
    };
    assert_eq!(order("ap", "app1"), "there is no pool ap; this node has app, api, own, plain");
    assert_eq!(order("app", "api1"), "there is no server api1; pool app has app1, app2");
}

#[test]
fn pools_without_a_table_are_said_to_have_none() {
    let site = filled();
    let list = |pool| SessionsQuestion::List { filter: filter(pool, "", ""), after: None, limit: 1 };
    assert_eq!(
        refused(ask(&site, list("own"))),
        "pool own keeps no sessions here: each client carries the name of its server in a cookie of ours"
    );
    let fault = |question| match ask(&site, question) {
        Answer::Refused(refusal) => refusal.fault,
        other => panic!("{other:?}"),
    };
    assert_eq!((fault(list("plain")), fault(list("nothing"))), (Fault::Unfit, Fault::Unknown));
    assert_eq!(refused(ask(&site, list("plain"))), "pool plain keeps no sessions: not sticky");
    let clear = SessionsQuestion::Clear { filter: filter("own", "", "") };
    assert!(refused(ask(&site, clear)).starts_with("pool own keeps no sessions here"));
}

#[test]
fn keys_that_no_client_can_send_and_cursors_of_others_are_refused() {
    let site = filled();
    let list = |key: &str, after: Option<&str>| {
        let filter = filter("api", "", key);
        refused(ask(&site, SessionsQuestion::List { filter, after: after.map(str::to_owned), limit: 1 }))
    };
    assert_eq!(list("bob", None), "the key has to be an address, as the pool is sticky by source_ip");
    assert!(list(&"x".repeat(32 * 1024 + 1), None).starts_with("the key is longer than"));
    for after in ["", "zz", "00112233445566778899aabbccddeef", "00112233445566778899aabbccddeeff00"] {
        assert_eq!(list("", Some(after)), "the place to go on from is not understood", "{after}");
    }
}

#[test]
fn orders_set_the_administrative_state_here_and_for_the_other_node() {
    let site = filled();
    let order = |order| answer(&site, &Question::Server { pool: "app".to_owned(), server: "app1".to_owned(), order });
    for (given, admin) in [(Order::Drain, "draining"), (Order::Disable, "disabled"), (Order::Enable, "enabled")] {
        let expected = ServerAnswer {
            pool: "app".to_owned(),
            server: "app1".to_owned(),
            admin: admin.to_owned(),
            sessions: Some(10),
        };
        assert_eq!(order(given), Answer::Server(expected));
        assert_eq!(site.pool_status(&[])[0].servers[0].admin, admin);
        assert_eq!(site.administration()[0].value, admin.as_bytes());
    }
}

#[test]
fn no_more_changes_of_a_pool_are_remembered_than_may_be() {
    let site = site();
    let pool = &site.pools[0].config.name;
    let add = |name: &str| {
        let address = "10.0.1.1:80".to_owned();
        changes::change(&site, pool, name, &ServerOrder::Add { address, weight: 1, backup: false, keep: false })
    };
    let gone = ServerChange { server: None, keep: false }.to_value();
    for number in 0..4_095 {
        let key = FactKey::Admin { pool: pool.clone(), server: ServerChange::key(&format!("gone{number}")) };
        assert!(site.sessions.tell(key, gone.clone()));
    }
    assert!(add("last").is_ok());
    let refusal = add("one-too-many").unwrap_err();
    assert_eq!(refusal.fault, Fault::Unfit);
    assert!(refusal.reason.starts_with("4096 servers of pool app were added and removed"), "{}", refusal.reason);
    // A name that is remembered takes no more room, and other pools have their own.
    assert!(add("gone7").is_ok());
    let remove = ServerOrder::Remove { keep: false };
    assert!(changes::change(&site, "api", "api1", &remove).is_ok());
}
