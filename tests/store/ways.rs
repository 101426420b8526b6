//! The ways to a store: passwords, users, TLS, clusters, databases.

use std::fs;
use std::path::PathBuf;

use super::certificates::Certificates;
use super::server::free_port;
use super::*;

const SECRET: &str = "Zauberwort42";

#[test]
fn a_password_lets_in_and_a_wrong_one_is_told_without_showing_it() {
    let redis = RedisServer::start(&["--requirepass", SECRET]);
    let with = |password: Option<&str>| Settings { password: password.map(str::to_owned), ..settings(redis.port()) };
    let right = Balancer::of(with(Some(SECRET)), app());
    assert_eq!(right.claim(key(1), APP1), Some(APP1));
    for (wrong, reason) in [(Some("Wrong-Secret"), "WRONGPASS"), (None, "NOAUTH")] {
        let refused = Balancer::start(with(wrong), vec![app()]);
        refused.wait_until_away();
        let error = refused.store.status().last_error.unwrap();
        assert!(error.contains(reason) || error.contains("Password authentication failed"), "{error}");
        let warning = refused.store.warning().unwrap();
        assert!(!warning.contains("Wrong-Secret") && warning.contains("is away"), "{warning}");
    }
}

#[test]
fn a_user_of_the_acl_needs_these_commands_and_keys_alone() {
    let redis = RedisServer::start(&[]);
    let rule = format!(">{SECRET}");
    let rights = ["~baton:*", "+get", "+set", "+eval", "+pexpire", "+del"];
    let made = redis.cli(&[&["ACL", "SETUSER", "balancer", "on", &rule], &rights[..]].concat());
    assert_eq!(made, "OK");
    assert_eq!(redis.cli(&["ACL", "SETUSER", "reader", "on", &rule, "~baton:*", "+get"]), "OK");
    let with = |user: &str| Settings {
        username: Some(user.to_owned()),
        password: Some(SECRET.to_owned()),
        ..settings(redis.port())
    };
    let balancer = Balancer::of(with("balancer"), app());
    assert_eq!(balancer.claim(key(1), APP1), Some(APP1));
    assert_eq!(balancer.lookup(key(1)), Found::At(APP1));
    // Found at once, and not when a client waits.
    let reader = Balancer::start(with("reader"), vec![app()]);
    reader.wait_until_away();
    let error = reader.store.status().last_error.unwrap();
    assert!(error.contains("NOPERM") || error.contains("no permissions"), "{error}");
}

#[test]
fn a_database_and_a_prefix_keep_load_balancers_apart() {
    let redis = RedisServer::start(&[]);
    let of = |database, prefix: &str| Settings {
        urls: vec![StoreUrl { database, ..url(redis.port()) }],
        prefix: prefix.to_owned(),
        ..settings(redis.port())
    };
    let one = Balancer::of(of(3, "lb:"), app());
    one.claim(key(1), APP1);
    assert_eq!(redis.cli(&["-n", "3", "EXISTS", "lb:01010101010101010101010101010101"]), "1");
    assert_eq!(Balancer::of(of(4, "lb:"), app()).lookup(key(1)), Found::Nothing);
    assert_eq!(Balancer::of(of(3, "bl:"), app()).lookup(key(1)), Found::Nothing);
}

#[test]
fn tls_is_spoken_with_a_server_that_the_authority_vouches_for_and_no_other() {
    let (certificates, strangers) = (Certificates::make(), Certificates::make());
    let redis = certificates.server(&[]);
    let trusting = |authority: &PathBuf| Settings {
        urls: vec![StoreUrl { is_tls: true, ..url(redis.port()) }],
        ca_pem: Some(fs::read(authority).unwrap()),
        ..settings(redis.port())
    };
    let balancer = Balancer::of(trusting(&certificates.authority), app());
    assert_eq!(balancer.claim(key(1), APP1), Some(APP1));
    assert_eq!(balancer.lookup(key(1)), Found::At(APP1));
    let wary = Balancer::start(trusting(&strangers.authority), vec![app()]);
    wary.wait_until_away();
    let error = wary.store.status().last_error.unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(wary.lookup(key(1)), Found::Away);
}

#[test]
fn sessions_are_spread_over_the_nodes_of_a_cluster() {
    let node = |_| {
        let bus = free_port().to_string();
        let settings = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
        RedisServer::start(&settings)
    };
    let mut nodes: Vec<RedisServer> = (0..3).map(node).collect();
    let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(addresses.iter().map(String::as_str));
    create.push("--cluster-yes");
    nodes[0].cli(&create);
    for node in &nodes {
        wait_for("the cluster stands", || node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    }
    // Two of its nodes name the third.
    let urls: Vec<StoreUrl> = nodes[..2].iter().map(|node| url(node.port())).collect();
    let of = || Settings { urls: urls.clone(), is_cluster: true, ..settings(0) };
    let (one, two) = (Balancer::of(of(), app()), Balancer::of(of(), app()));
    for number in 0..100 {
        assert_eq!(one.claim(key(number), APP1), Some(APP1));
        assert_eq!(two.claim(key(number), APP2), Some(APP1));
    }
    for node in &nodes {
        assert!(node.cli(&["DBSIZE"]).parse::<u32>().unwrap() > 10, "a node has next to nothing");
    }
    nodes[2].kill();
    for number in 100..200 {
        assert!(one.find_or_claim(key(number), APP1).is_some());
    }
    assert!(one.store.status().hashed > 0, "{:?}", one.store.status());
}
