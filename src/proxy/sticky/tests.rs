//! Against the real table, with servers that are up, down and ordered about as a test says.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::proxy::files::Files;
use crate::proxy::server::Admin;
use crate::proxy::state::{Pool, Prepared, Site};
use crate::proxy::upstream::dial::Dialer;
use crate::session::version::Node;

/// A site with one pool of three servers that is sticky as these keys say.
fn site(keys: &str) -> Site {
    let text = format!(
        "[[listener]]\nname = \"web\"\nbind = [\"0.0.0.0:80\"]\npool = \"other\"\n[[pool]]\nname = \"other\"\nservers = \
         [{{ name = \"x\", address = \"10.0.0.9:80\" }}]\n[[pool]]\nname = \"app\"\nservers = [{{ name = \"a\", address = \
         \"10.0.0.1:80\" }}, {{ name = \"b\", address = \"10.0.0.2:80\" }}, {{ name = \"c\", address = \"10.0.0.3:80\" \
         }}]\n[pool.sticky]\n{keys}\n"
    );
    let config = config::parse(&text, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    let sessions = Arc::new(Sessions::new(&config, Node::Only, b"key"));
    let dialers = Dialer::of_pools(&config, &Files::default()).unwrap();
    let prepared = Prepared {
        tls: vec![None],
        access: vec![Arc::default()],
        dialers: dialers.into_iter().map(Arc::new).collect(),
    };
    Site::new(&config, "lb".to_owned(), sessions, b"key", prepared)
}

fn app(site: &Site) -> (&Pool, &Stickiness) {
    (&site.pools[1], site.pools[1].sticky.as_ref().unwrap())
}

const BY_HEADER: &str = "by = \"header\"\nname = \"X-User\"";
const BY_APP_COOKIE: &str = "by = \"app_cookie\"\nname = \"SID\"";

fn request(target: &str, fields: &[(&str, &str)]) -> Request<()> {
    let builder = Request::builder().uri(target);
    fields.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn visit(site: &Site, request: &Request<()>) -> Visit {
    app(site).1.visit(&site.sessions, ip("192.0.2.1"), request)
}

fn of_user(site: &Site, user: &str) -> Visit {
    visit(site, &request("/", &[("x-user", user)]))
}

fn way(site: &Site, visit: &Visit) -> Way {
    let (pool, sticky) = app(site);
    sticky.way(visit, &pool.servers)
}

/// A first pick, as `forward` does it.
fn settle(site: &Site, visit: &mut Visit, picked: usize) -> usize {
    let (pool, sticky) = app(site);
    sticky.settle(&site.sessions, visit, picked, true, |server| pool.servers[server].keeps_users())
}

fn answered(site: &Site, visit: &Visit, server: usize, fields: &[&'static str]) -> HeaderMap {
    let field = |field: &&'static str| (header::SET_COOKIE, HeaderValue::from_static(field));
    let mut headers: HeaderMap = fields.iter().map(field).collect();
    app(site).1.answered(&site.sessions, visit, server, false, &mut headers);
    headers
}

/// Whether two requests are of one client, and of any at all.
fn key(site: &Site, request: &Request<()>) -> Option<Key> {
    visit(site, request).key
}

#[test]
fn clients_are_known_by_their_network() {
    let site = site("by = \"source_ip\"\nprefix_v4 = 25\nprefix_v6 = 56");
    let key = |address| app(&site).1.visit(&site.sessions, ip(address), &request("/", &[])).key.unwrap();
    assert_eq!(key("192.0.2.1"), key("192.0.2.127"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.128"));
    assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
    assert_eq!(key("2001:db8:0:100::1"), key("2001:db8:0:1ff::2"));
    assert_ne!(key("2001:db8:0:100::1"), key("2001:db8:0:200::1"));
    let connection = app(&site).1.connection(&site.sessions, ip("192.0.2.7"), Some(b"a.example"));
    assert_eq!(connection.key, Some(key("192.0.2.1")), "as by a request");
}

#[test]
fn whole_addresses_count_and_so_does_a_single_bit() {
    let whole = site("by = \"source_ip\"\nprefix_v4 = 32\nprefix_v6 = 128");
    let key = |site: &Site, address| app(site).1.visit(&site.sessions, ip(address), &request("/", &[])).key.unwrap();
    assert_ne!(key(&whole, "192.0.2.1"), key(&whole, "192.0.2.2"));
    assert_ne!(key(&whole, "2001:db8::1"), key(&whole, "2001:db8::2"));
    let bit = site("by = \"source_ip\"\nprefix_v4 = 1\nprefix_v6 = 1");
    assert_eq!(key(&bit, "10.0.0.1"), key(&bit, "127.0.0.1"));
    assert_ne!(key(&bit, "10.0.0.1"), key(&bit, "192.0.2.1"));
}

#[test]
fn clients_are_known_by_the_first_value_of_a_query_parameter() {
    let site = site("by = \"query\"\nname = \"user\"");
    let key = |target| key(&site, &request(target, &[]));
    let ann = key("/?user=ann");
    assert!(ann.is_some());
    assert_eq!(key("http://h.example/x?a=b&user=ann&user=bob"), ann);
    assert_ne!(key("/?user=bob"), ann);
    for target in ["/", "/?", "/?user", "/?user=", "/?users=ann", "/?xuser=ann", "/user=ann", "*"] {
        assert_eq!(key(target), None, "{target}");
    }
}

#[test]
fn clients_are_known_by_the_applications_cookie_or_a_parameter_of_the_path() {
    let site = site(BY_APP_COOKIE);
    let key = |target, cookie| key(&site, &request(target, &[("cookie", cookie)]));
    let abc = key("/", "a=b; SID=abc");
    assert!(abc.is_some());
    assert_eq!(key("/", "SID=\"abc\""), abc);
    assert_eq!(key("/x;a=b;sid=abc/y?z", "a=b"), abc);
    assert_eq!(key("/x;sid=other", "SID=abc"), abc, "the cookie counts more");
    assert_eq!(key("/x;sid=abc", "SID="), abc);
    for (target, cookie) in [("/", "SID="), ("/", "XSID=abc"), ("/;sid", ""), ("/x?y;sid=abc", ""), ("/sid=abc", "")] {
        assert_eq!(key(target, cookie), None, "{target} {cookie}");
    }
}

#[test]
fn connections_are_known_by_their_handshake() {
    let site = site("by = \"tls_sni\"");
    // The pool is used by no listener that speaks HTTP: a request could not say.
    assert_eq!(key(&site, &request("/", &[])), None);
    let connection = |handshake| app(&site).1.connection(&site.sessions, ip("192.0.2.1"), handshake);
    let visit = connection(Some(&b"a.example"[..]));
    assert_eq!(way(&site, &visit), Way::Any);
    app(&site).1.connected(&site.sessions, &visit, 2);
    assert_eq!(way(&site, &connection(Some(b"a.example"))), Way::Home(2));
    assert_eq!(way(&site, &connection(Some(b"b.example"))), Way::Any);
    assert_eq!((connection(None).key, connection(Some(b"")).key), (None, None));
}

#[test]
fn the_first_of_two_requests_at_once_decides() {
    let site = site(BY_HEADER);
    let (mut first, mut second) = (of_user(&site, "ann"), of_user(&site, "ann"));
    assert_eq!(way(&site, &first), Way::Any);
    assert_eq!(settle(&site, &mut first, 1), 1);
    assert_eq!(settle(&site, &mut second, 2), 1);
    assert_eq!(way(&site, &of_user(&site, "ann")), Way::Home(1));
    assert_eq!(way(&site, &of_user(&site, "bob")), Way::Any);
}

#[test]
fn a_server_that_is_drained_keeps_its_clients_and_gets_no_new_ones() {
    let site = site(BY_HEADER);
    let mut visit = of_user(&site, "ann");
    settle(&site, &mut visit, 0);
    let server = &app(&site).0.servers[0];
    let mut states = Vec::new();
    for up in [true, false] {
        server.judge(up, String::new());
        for admin in [Admin::Enabled, Admin::Draining, Admin::Disabled] {
            server.set_admin(admin);
            let is_home = way(&site, &of_user(&site, "ann")) == Way::Home(0);
            assert_eq!((server.admin(), is_home), (admin, server.keeps_users()));
            states.push((server.takes_new(), server.keeps_users()));
        }
    }
    let (serves, drains, rests) = ((true, true), (false, true), (false, false));
    assert_eq!(states, [serves, drains, rests, rests, rests, rests]);
}

#[test]
fn requests_at_once_of_a_client_whose_server_is_down_move_to_one_other() {
    let site = site(BY_HEADER);
    settle(&site, &mut of_user(&site, "ann"), 0);
    app(&site).0.servers[0].judge(false, String::new());
    let (mut first, mut second) = (of_user(&site, "ann"), of_user(&site, "ann"));
    assert_eq!(way(&site, &first), Way::Any);
    assert_eq!(settle(&site, &mut first, 1), 1);
    assert_eq!(settle(&site, &mut second, 2), 1);
    app(&site).0.servers[0].judge(true, String::new());
    assert_eq!(way(&site, &of_user(&site, "ann")), Way::Home(1), "for good");
}

#[test]
fn a_client_whose_server_fails_moves_once_another_has_answered() {
    let site = site(BY_HEADER);
    let (_, sticky) = app(&site);
    let mut visit = of_user(&site, "ann");
    settle(&site, &mut visit, 0);
    let has_not_failed = |server| server != 0;
    assert_eq!(sticky.settle(&site.sessions, &mut visit, 1, false, has_not_failed), 1);
    assert_eq!(way(&site, &of_user(&site, "ann")), Way::Home(0));
    answered(&site, &visit, 1, &[]);
    assert_eq!(way(&site, &of_user(&site, "ann")), Way::Home(1));
    // Another request, which began before and was answered elsewhere, does not move it again.
    let late = Visit { home: Some(0), ..visit };
    answered(&site, &late, 2, &[]);
    assert_eq!(way(&site, &of_user(&site, "ann")), Way::Home(1));
}

#[test]
fn a_client_that_may_go_to_no_other_server_waits() {
    let site = site(&format!("{BY_HEADER}\non_down = \"fail\""));
    let (pool, sticky) = app(&site);
    let mut first = of_user(&site, "ann");
    assert!(!sticky.is_bound(&first), "a new client is bound to none");
    settle(&site, &mut first, 0);
    assert!(!sticky.is_bound(&first), "nor while it is being settled");
    let known = of_user(&site, "ann");
    assert!(sticky.is_bound(&known));
    pool.servers[0].judge(false, String::new());
    assert_eq!(way(&site, &known), Way::Closed(0));
    pool.servers[0].judge(true, String::new());
    assert_eq!(way(&site, &known), Way::Home(0));
    pool.servers[0].set_admin(Admin::Disabled);
    assert_eq!(way(&site, &known), Way::Closed(0));
}

#[test]
fn an_entry_that_names_no_server_of_the_pool_is_written_over() {
    let site = site(&format!("{BY_HEADER}\non_down = \"fail\""));
    let key = of_user(&site, "ann").key.unwrap();
    site.sessions.table.put(&key, ServerRef { pool: 1, server: 7 }, site.sessions.now());
    let mut visit = of_user(&site, "ann");
    let (pool, sticky) = app(&site);
    assert_eq!((way(&site, &visit), sticky.is_bound(&visit)), (Way::Any, false));
    let may_take = |server: usize| pool.servers.get(server).is_some_and(|server| server.keeps_users());
    assert_eq!(sticky.settle(&site.sessions, &mut visit, 2, true, may_take), 2);
    assert_eq!(way(&site, &of_user(&site, "ann")), Way::Home(2));
}

#[test]
fn what_the_application_does_to_its_cookie_is_learned() {
    let site = site(BY_APP_COOKIE);
    let with = |cookie| visit(&site, &request("/", &[("cookie", cookie)]));
    let headers = answered(&site, &with("a=b"), 2, &["other=1", "SID=abc; Path=/"]);
    assert_eq!(headers.get_all(header::SET_COOKIE).iter().count(), 2, "nothing is added");
    assert_eq!(way(&site, &with("SID=abc")), Way::Home(2));
    // A new id for the same client, as after a log-in.
    answered(&site, &with("SID=abc"), 2, &["SID=new"]);
    assert_eq!((way(&site, &with("SID=abc")), way(&site, &with("SID=new"))), (Way::Home(2), Way::Home(2)));
    answered(&site, &with("SID=new"), 2, &["SID=new; Max-Age=0"]);
    assert_eq!(way(&site, &with("SID=new")), Way::Any);
    answered(&site, &with("SID=abc"), 2, &["SID=; Path=/", "SID=last"]);
    assert_eq!((way(&site, &with("SID=abc")), way(&site, &with("SID=last"))), (Way::Any, Way::Home(2)));
}

#[test]
fn our_cookie_is_set_when_it_names_another_server_than_the_one_that_answered() {
    let site = site("");
    let set = |visit: &Visit, server| {
        let headers = answered(&site, visit, server, &[]);
        headers.get(header::SET_COOKIE).map(|value| value.to_str().unwrap().to_owned())
    };
    let first = set(&Visit::default(), 0).unwrap();
    assert!(first.starts_with("BATON=") && first.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{first}");
    let cookie = first.split(';').next().unwrap();
    let known = visit(&site, &request("/", &[("cookie", &format!("BATON=bad; {cookie}"))]));
    assert_eq!(way(&site, &known), Way::Home(0));
    assert_eq!(set(&known, 0), None);
    assert!(set(&known, 1).is_some_and(|other| other != first));
    assert_eq!(site.sessions.table.slots_in_use(), 0, "the table has nothing to remember");
}

#[test]
fn attributes_follow_configuration_and_connection() {
    let both = |keys: &str| {
        let site = site(keys);
        let set = |is_tls| {
            let mut headers = HeaderMap::new();
            app(&site).1.answered(&site.sessions, &Visit::default(), 0, is_tls, &mut headers);
            let value = headers.get(header::SET_COOKIE).unwrap().to_str().unwrap();
            value.split_once(';').unwrap().1.to_owned()
        };
        [set(false), set(true)]
    };
    assert_eq!(both(""), [" Path=/; HttpOnly; SameSite=Lax", " Path=/; HttpOnly; SameSite=Lax; Secure"]);
    assert_eq!(both("secure = \"never\"\nhttp_only = false"), [" Path=/; SameSite=Lax", " Path=/; SameSite=Lax"]);
    assert_eq!(both("same_site = \"none\""), [" Path=/; HttpOnly", " Path=/; HttpOnly; SameSite=None; Secure"]);
    let all = " Path=/a; Domain=example.com; HttpOnly; SameSite=Strict; Secure; Max-Age=60";
    let keys = "secure = \"always\"\nsame_site = \"strict\"\npath = \"/a\"\ndomain = \"example.com\"\nttl = \"1m\"";
    assert_eq!(both(keys), [all, all]);
}
