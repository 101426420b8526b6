//! Rate limits whose requests both nodes count.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use baton::config;
use baton::limit::{Counts, Verdict};
use baton::proxy::limits::{RateLimit, of_listeners};
use http::HeaderMap;

use crate::rig::{CONFIG, KEY, Node, pair, until};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn limit() -> RateLimit {
    let config = config::parse(CONFIG, Path::new("baton.toml")).unwrap();
    of_listeners(&config).remove(0).requests.remove(0)
}

/// Requests that are let through of so many.
fn ask(node: &Node, count: usize) -> usize {
    let (limit, headers) = (limit(), HeaderMap::new());
    let now = || node.sessions.now();
    (0..count).filter(|_| node.sessions.limits.check(&limit, CLIENT, &headers, now()) == Verdict::Allowed).count()
}

fn counts(node: &Node) -> Option<Counts> {
    node.sessions.limits.counts(&limit(), CLIENT, &HeaderMap::new(), node.sessions.now())
}

fn wait_until_counted(node: &Node, own: u32, peer: u32) {
    until(&format!("{own} and {peer} requests to be counted"), || {
        counts(node).filter(|counts| (counts.own, counts.peer) == (own, peer))
    });
}

#[test]
fn requests_at_both_nodes_at_once_are_all_counted_by_both() {
    let (first, second) = pair();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(ask(&first, 300), 300));
        scope.spawn(|| assert_eq!(ask(&second, 300), 300));
    });
    wait_until_counted(&first, 300, 300);
    wait_until_counted(&second, 300, 300);
    assert_eq!(ask(&first, 1_000), 400);
    wait_until_counted(&second, 300, 700);
    assert_eq!(ask(&second, 1_000), 0);
}

#[test]
fn a_node_that_comes_back_knows_what_was_counted() {
    let socket = baton::net::listen::sync("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut first = Node::listening(KEY, socket.try_clone().unwrap());
    let second = Node::second(KEY, first.at);
    [&first, &second].into_iter().for_each(Node::wait_until_synced);
    assert_eq!((ask(&first, 200), ask(&second, 300)), (200, 300));
    wait_until_counted(&first, 200, 300);
    wait_until_counted(&second, 300, 200);
    first.link.stop();
    until("the second to notice", || (!second.status().in_sync).then_some(()));
    assert_eq!(ask(&second, 100), 100);
    let first = Node::listening(KEY, socket);
    // In sync is to know the counters as well.
    first.wait_until_synced();
    assert_eq!(counts(&first).map(|counts| (counts.own, counts.peer)), Some((0, 400)));
    assert_eq!(ask(&first, 1_000), 400);
    wait_until_counted(&second, 400, 400);
    assert_eq!(ask(&second, 1_000), 0);
}
