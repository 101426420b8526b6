use super::*;
use crate::config;
use crate::proxy::files::Files;
use crate::proxy::sessions::Sessions;
use crate::proxy::state::Prepared;
use crate::proxy::upstream::dial::Dialer;
use crate::session::version::Node;
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
health = { type = "tcp" }
"#;

fn site(node: Node, name: &str) -> Site {
    let config = config::parse(CONFIG, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    let sessions = Arc::new(Sessions::new(&config, node, b"secret"));
    let dialers = Dialer::of_pools(&config, &Files::default()).unwrap();
    let prepared = Prepared {
        tls: vec![None],
        access: vec![Arc::default()],
        dialers: dialers.into_iter().map(Arc::new).collect(),
    };
    Site::new(&config, name.to_owned(), sessions, b"secret", prepared)
}

/// What has changed on one node goes to the other, as the link does it.
fn send(from: &Site, to: &Site) {
    loop {
        let mut facts = from.sessions.facts();
        let Some((key, version, value)) = facts.take_change() else { return };
        let value = value.to_vec();
        drop(facts);
        to.sessions.table.saw(version);
        if to.sessions.facts().merge(&key, version, &value) {
            to.apply_fact(&key, &value);
        }
    }
}

fn admin(site: &Site, server: usize) -> Admin {
    site.pools[0].servers[server].admin()
}

#[test]
fn a_server_that_is_drained_here_is_drained_on_the_other_node() {
    let (a, b) = (site(Node::First, "lb-a"), site(Node::Second, "lb-b"));
    assert!(a.administer("app", "app2", Admin::Draining));
    send(&a, &b);
    assert_eq!((admin(&b, 0), admin(&b, 1)), (Admin::Enabled, Admin::Draining));
    assert!(b.administer("app", "app2", Admin::Enabled));
    send(&b, &a);
    assert_eq!(admin(&a, 1), Admin::Enabled);
    assert!(!a.administer("app", "app3", Admin::Disabled));
}

#[test]
fn what_comes_late_does_not_undo_what_was_said_later() {
    let (a, b) = (site(Node::First, "lb-a"), site(Node::Second, "lb-b"));
    a.administer("app", "app1", Admin::Disabled);
    a.sessions.table.saw(Version::new(1_000).unwrap());
    b.sessions.table.saw(Version::new(2_000).unwrap());
    b.administer("app", "app1", Admin::Draining);
    send(&a, &b);
    assert_eq!(admin(&b, 0), Admin::Draining);
    send(&b, &a);
    assert_eq!(admin(&a, 0), Admin::Draining);
}

#[test]
fn the_next_worker_has_what_operators_said_and_its_version() {
    let (a, b) = (site(Node::First, "lb-a"), site(Node::Second, "lb-b"));
    a.administer("app", "app1", Admin::Draining);
    let kept = a.administration();
    send(&a, &b);
    // While the worker of a is away, b hears something newer.
    b.administer("app", "app1", Admin::Disabled);
    let next = site(Node::First, "lb-a");
    next.restore_administration(&kept);
    assert_eq!(admin(&next, 0), Admin::Draining);
    assert_eq!(next.administration(), kept);
    next.sessions.facts().change_all();
    send(&next, &b);
    assert_eq!(admin(&b, 0), Admin::Disabled, "what is restored is no newer than it was");
    send(&b, &next);
    assert_eq!(admin(&next, 0), Admin::Disabled);
    next.administer("app", "app1", Admin::Enabled);
    send(&next, &b);
    assert_eq!(admin(&b, 0), Admin::Enabled);
}

#[test]
fn the_other_nodes_checks_count_until_there_was_one_here() {
    let (a, b) = (site(Node::First, "lb-a"), site(Node::Second, "lb-b"));
    a.publish_health("app", "app1", false);
    send(&a, &b);
    let server = &b.pools[0].servers[0];
    assert!(!server.is_up());
    assert_eq!(server.checked(), None);
    assert_eq!(b.pool_status(&[])[0].servers[0].last_check, "not checked here yet; down for the other node");
    server.judge(true, "connected".to_owned());
    assert!(server.is_up());
    a.publish_health("app", "app1", true);
    a.publish_health("app", "app1", false);
    send(&a, &b);
    assert!(server.is_up(), "this node sees for itself");
}

#[test]
fn what_an_earlier_worker_had_found_is_set_right() {
    let (a, b) = (site(Node::First, "lb-a"), site(Node::Second, "lb-b"));
    a.sessions.table.saw(Version::new(1_000).unwrap());
    a.publish_health("app", "app1", false);
    send(&a, &b);
    let restarted = site(Node::First, "lb-a");
    restarted.pools[0].servers[0].judge(true, "connected".to_owned());
    restarted.publish_health("app", "app1", true);
    b.sessions.facts().change_all();
    send(&b, &restarted);
    send(&restarted, &b);
    let key = FactKey::Health { node: "lb-a".to_owned(), pool: "app".to_owned(), server: "app1".to_owned() };
    assert_eq!(b.sessions.facts().get(&key), Some(&b"up"[..]));
    assert!(restarted.pools[0].servers[0].is_up());
}

#[test]
fn what_is_applied_late_does_not_undo_what_stands() {
    let a = site(Node::First, "lb-a");
    let key = FactKey::Admin { pool: "app".to_owned(), server: "app1".to_owned() };
    let version = Version::new(2).unwrap();
    a.sessions.table.saw(version);
    assert!(a.sessions.facts().merge(&key, version, b"draining"));
    // Before the link's thread comes to do what follows from it.
    a.administer("app", "app1", Admin::Disabled);
    a.apply_fact(&key, b"draining");
    assert_eq!(admin(&a, 0), Admin::Disabled);
}

#[test]
fn there_is_room_for_what_is_said_of_as_many_servers_as_a_file_can_name() {
    // The shortest that a server can be written.
    let shortest = r#"{name="a",address="1.1.1.1:1"},"#.len();
    assert!(crate::config::FILE_MAX_BYTES / shortest * 3 <= crate::session::facts::FACTS_MAX);
}

#[test]
fn values_of_no_meaning_change_nothing() {
    let a = site(Node::First, "lb-a");
    let key = |server: &str| FactKey::Admin { pool: "app".to_owned(), server: server.to_owned() };
    for (server, value) in [("app1", &b"asleep"[..]), ("app3", b"disabled")] {
        assert!(a.sessions.facts().merge(&key(server), Version::new(2).unwrap(), value));
        a.apply_fact(&key(server), value);
    }
    a.apply_fact(&FactKey::TicketKeys, b"x");
    assert_eq!((admin(&a, 0), admin(&a, 1)), (Admin::Enabled, Admin::Enabled));
}

#[test]
fn whatever_the_other_node_says_the_guard_gets_no_more_than_a_word_for_each_server() {
    let a = site(Node::First, "lb-a");
    let version = Version::new(2).unwrap();
    let said = |server: &str, value: &[u8]| {
        let key = FactKey::Admin { pool: "app".to_owned(), server: server.to_owned() };
        assert!(a.sessions.facts().merge(&key, version, value));
    };
    for number in 0..1_000 {
        said(&format!("server{number:03}"), b"draining");
    }
    said("app1", &[b'x'; 4_096]);
    said("app2", b"draining");
    let kept = a.administration();
    let kept: Vec<_> = kept.iter().map(|fact| (fact.server.as_str(), fact.value.as_slice())).collect();
    assert_eq!(kept, [("app2", &b"draining"[..])]);
    a.sessions.table.saw(version);
    a.administer("app", "app1", Admin::Draining);
    assert_eq!(a.administration().len(), 2);
}
