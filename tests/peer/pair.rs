//! The two nodes between themselves.

use std::net::SocketAddr;

use baton::peer::identity::Identity;

use crate::rig::{KEY, Node, ONE, OTHER_KEY, TWO, assert_in_service, pair, until};

#[test]
fn two_nodes_with_one_key_come_into_sync_and_tell_each_other() {
    let (first, second) = pair();
    assert_in_service(&first, &second, "hello");
    for (node, peer) in [(&first, "lb-b"), (&second, "lb-a")] {
        let status = node.status();
        assert_eq!((status.peer.as_str(), status.state.as_str()), (peer, "in_sync"));
        assert_eq!(status.last_error, None);
        assert!(status.refused.is_empty());
    }
}

#[test]
fn a_session_made_on_one_node_is_known_to_the_other() {
    let (first, second) = pair();
    first.put(1, TWO);
    second.put(2, ONE);
    until("the sessions to arrive", || (second.find(1) == Some(TWO) && first.find(2) == Some(ONE)).then_some(()));
    // The other way round, of the same client: the newest write stands on both.
    second.put(1, ONE);
    until("the newer write to arrive", || (first.find(1) == Some(ONE)).then_some(()));
    assert!(first.sessions.table.remove(&first.key(1), first.sessions.now()));
    until("the deletion to arrive", || second.find(1).is_none().then_some(()));
    assert_eq!(second.find(2), Some(ONE));
}

/// A hundred thousand before the nodes know each other, and as many as can be made meanwhile.
#[test]
fn what_both_had_before_and_what_comes_meanwhile_arrives_on_both() {
    const BEFORE: u64 = 50_000;
    let first = Node::first(KEY);
    (0..BEFORE).for_each(|client| first.put(client, ONE));
    let second = Node::second(KEY, first.at);
    (BEFORE..BEFORE * 2).for_each(|client| second.put(client, TWO));
    let mut next = BEFORE * 2;
    until("the nodes to be in sync", || {
        (next..next + 100).for_each(|client| first.put(client, TWO));
        next += 100;
        (first.status().in_sync && second.status().in_sync).then_some(())
    });
    let (entries, now) = (usize::try_from(next).unwrap(), first.sessions.now());
    for node in [&first, &second] {
        until("every session to be there", || (node.sessions.table.stats(0).entries == entries).then_some(()));
        let wrong = (0..next).find(|&client| node.find(client) != Some(if client < BEFORE { ONE } else { TWO }));
        assert_eq!(wrong, None, "at {now:?}");
    }
    let status = first.status();
    assert!(status.snapshot_sent.finished && status.snapshot_received.finished);
    assert!(status.snapshot_sent.done >= BEFORE, "{:?}", status.snapshot_sent);
    until("nothing to be under way", || (first.status().lag_entries == 0).then_some(()));
}

#[test]
fn they_do_so_over_ipv6() {
    let first = Node::first_at(KEY, "[::1]:0");
    let second = Node::second(KEY, first.at);
    assert_in_service(&first, &second, "hello");
}

#[test]
fn nodes_with_different_keys_refuse_each_other_and_say_why() {
    let first = Node::first(KEY);
    let second = Node::second(OTHER_KEY, first.at);
    assert!(second.wait_until_refused("wrong_key", 1).contains("it does not have the key of the peer"));
    assert!(first.wait_until_refused("our_key_refused", 1).contains("it refuses this node's key"));
    for node in [&first, &second] {
        assert!(!node.status().in_sync);
        until("the state to show", || (node.status().state == "refused").then_some(()));
    }
}

#[test]
fn what_was_said_last_arrives_though_the_node_stops() {
    let (first, mut second) = pair();
    second.say("my last words");
    second.link.stop();
    first.wait_until_told("my last words");
    until("the end to be seen", || (!first.status().in_sync).then_some(()));
    assert!(first.status().refused.is_empty());
}

#[test]
fn a_node_that_comes_back_is_in_sync_again() {
    let socket = baton::net::listen::sync("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut first = Node::listening(KEY, socket.try_clone().unwrap());
    let mut second = Node::second(KEY, first.at);
    second.wait_until_synced();
    // The one that listens, on the same socket, as a new worker has it...
    first.link.stop();
    let first = Node::listening(KEY, socket);
    first.wait_until_synced();
    assert_in_service(&first, &second, "again");
    // ...and the one that connects.
    second.link.stop();
    let second = Node::second(KEY, first.at);
    second.wait_until_synced();
    assert_in_service(&first, &second, "and again");
    assert_eq!(first.status().disconnects, 1);
}

#[test]
fn a_node_that_comes_back_takes_the_place_of_its_former_life() {
    let (first, former) = pair();
    let second = Node::second(KEY, first.at);
    second.wait_until_synced();
    assert_in_service(&first, &second, "new");
    until("the former connection to be gone", || (former.status().disconnects >= 1).then_some(()));
}

#[test]
fn a_node_that_listens_says_whom_it_waits_for() {
    let first = Node::first(KEY);
    let told = until("what it waits for", || first.status().last_error);
    assert!(told.contains("127.0.0.1 has not connected yet") && told.contains("as the first [[node]]"), "{told}");
    assert_eq!(first.status().state, "connecting");
    let second = Node::second(KEY, first.at);
    first.wait_until_synced();
    assert_in_service(&first, &second, "there you are");
}

/// The handshake of the node that connects is over before the other one has refused its key.
#[test]
fn a_node_whose_key_is_refused_is_never_connected() {
    let listener = baton::net::listen::sync("127.0.0.1:0".parse().unwrap()).unwrap();
    let identity = Identity::derive(KEY, "lb-a", "lb-x").unwrap();
    let first = Node::waiting_for_another(KEY, listener, identity);
    let second = Node::second(KEY, first.at);
    let told = second.wait_until_refused("our_key_refused", 1);
    assert!(told.contains("it refuses this node's key"), "{told}");
    until("three refusals", || {
        let status = second.status();
        assert!(["refused", "connecting"].contains(&status.state.as_str()), "{status:?}");
        (status.refused["our_key_refused"] >= 3).then_some(())
    });
}

#[test]
fn a_peer_that_is_not_there_is_tried_again_until_it_is() {
    let taken = baton::net::listen::sync("127.0.0.1:0".parse().unwrap()).unwrap();
    let at: SocketAddr = taken.local_addr().unwrap();
    drop(taken);
    let second = Node::second(KEY, at);
    let error = until("the first refusal", || second.status().last_error);
    assert!(error.contains("cannot be reached: Connection refused"), "{error}");
    assert_eq!(second.status().state, "connecting");
    let first = Node::first_at(KEY, &at.to_string());
    second.wait_until_synced();
    assert_in_service(&first, &second, "there you are");
}
