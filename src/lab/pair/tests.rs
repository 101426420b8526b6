use super::*;
use crate::status::{SyncStatus, VipStatus, WorkerStatus};

fn status(node: &str, role: Role) -> NodeStatus {
    NodeStatus {
        switchover_drain_ms: 1_000,
        node: node.to_owned(),
        version: "0.1.0".to_owned(),
        config_checksum: String::new(),
        config_age_ms: 0,
        refused_reload: None,
        takeovers: 0,
        is_taking_over: false,
        guard_pid: 1,
        vips: vec![VipStatus { name: "web".to_owned(), role, ..VipStatus::default() }],
        peer: None,
        worker: WorkerStatus {
            state: "running".to_owned(),
            pid: Some(2),
            restarts: 0,
            last_exit: None,
            threads: 1,
            connections: 0,
            requests: 0,
            load: Default::default(),
            finishing: 0,
        },
        listeners: Vec::new(),
        pools: Vec::new(),
        events: None,
        witness: None,
        sync: None,
        sessions: crate::status::SessionsStatus::default(),
        certificates: Vec::new(),
        warnings: Vec::new(),
    }
}

fn judged(holders: &[&str], a: Option<NodeStatus>, b: Option<NodeStatus>) -> String {
    let holders: Vec<String> = holders.iter().map(|name| (*name).to_owned()).collect();
    match judge(&NODES, None, &holders, &[a, b]) {
        PairState::Healthy { active } => format!("healthy, {active}"),
        PairState::Unhealthy { reason } => reason,
    }
}

#[test]
fn healthy_pair_has_one_holder_that_says_so() {
    let (a, b) = (|role| Some(status("lb-a", role)), |role| Some(status("lb-b", role)));
    assert_eq!(judged(&["lb-b"], a(Role::Standby), b(Role::Active)), "healthy, lb-b");
    assert_eq!(judged(&[], a(Role::Standby), b(Role::Active)), "no node holds the VIP");
    assert_eq!(judged(&["lb-a", "lb-b"], a(Role::Active), b(Role::Active)), "lb-a and lb-b all hold the VIP");
    assert_eq!(judged(&["lb-a"], a(Role::Active), b(Role::Active)), "lb-b is active and should be standby");
    assert_eq!(judged(&["lb-a"], a(Role::Standby), b(Role::Standby)), "lb-a is standby and should be active");
    assert_eq!(judged(&["lb-a"], a(Role::Active), None), "lb-b does not answer");
}

#[test]
fn pair_that_is_not_in_sync_is_not_healthy() {
    let mut b = status("lb-b", Role::Standby);
    let sync = SyncStatus { state: "connecting".to_owned(), ..SyncStatus::default() };
    b.sync = Some(sync.clone());
    let a = || Some(status("lb-a", Role::Active));
    assert_eq!(judged(&["lb-a"], a(), Some(b.clone())), "lb-b is not in sync: connecting");
    b.sync = Some(SyncStatus { in_sync: true, ..sync });
    assert_eq!(judged(&["lb-a"], a(), Some(b)), "healthy, lb-a");
}

#[test]
fn pair_with_an_unfit_node_is_not_healthy() {
    let mut b = status("lb-b", Role::Standby);
    b.vips[0].faults.push("the link eth0 is down".to_owned());
    assert_eq!(
        judged(&["lb-a"], Some(status("lb-a", Role::Active)), Some(b)),
        "lb-b is not fit: the link eth0 is down"
    );
    let mut b = status("lb-b", Role::Standby);
    b.worker.state = "waiting".to_owned();
    assert_eq!(judged(&["lb-a"], Some(status("lb-a", Role::Active)), Some(b)), "the worker of lb-b is waiting");
}

#[test]
fn configuration_is_what_the_design_calls_it() {
    let interval = AdvertInterval::new(Duration::from_millis(100)).unwrap();
    let text = config_text(interval, Path::new("/tmp/x/pair.key"), "");
    let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    has(r#"key_file = "/tmp/x/pair.key""#);
    has(r#"advert_interval = "100ms""#);
    has(r#"  { name = "web1", address = "10.77.0.21:8080" },"#);
    has(r#"  { name = "web3", address = "10.77.0.23:8080" },"#);
    has("[pool.sticky]");
    crate::config::parse(&text, Path::new("baton.toml")).unwrap();
}

#[test]
fn key_is_64_hex_digits() {
    let key = random_key().unwrap();
    assert_eq!(key.len(), 65);
    assert!(key.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn directory_is_never_in_the_private_run() {
    assert_eq!(directory_parent(PathBuf::from("/run")), PathBuf::from("/tmp"));
    assert_eq!(directory_parent(PathBuf::from("/var/tmp")), PathBuf::from("/var/tmp"));
}
