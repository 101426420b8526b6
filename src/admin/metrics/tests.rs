use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::status::{
    BreakerStatus, EjectionStatus, EventsStatus, ListenerStatus, LoadStatus, MirroredStatus, PathStatus, PeerStatus,
    ProgressStatus, QueueStatus, ServerSessionsStatus, ServerStatus, SessionsStatus, WitnessStatus, WorkerStatus,
};

fn server(name: &str, up: bool, admin: &str) -> ServerStatus {
    ServerStatus {
        name: name.to_owned(),
        origin: "file".to_owned(),
        address: "10.0.0.1:80".parse().unwrap(),
        up,
        admin: admin.to_owned(),
        checked: true,
        since_ms: 1,
        last_check: String::new(),
        agent: None,
        requests: 12,
        in_flight: Some(3),
        ejection: (!up).then(|| EjectionStatus {
            reason: "5 requests in a row got no response".to_owned(),
            left_ms: 2_500,
            in_a_row: 1,
        }),
        ejections: 4,
        breaker: None,
        in_flight_max: None,
        weight: 2,
        effective_weight: 0.5,
        zone: None,
    }
}

fn status() -> NodeStatus {
    let counted = |name: &str, entries| ServerSessionsStatus { server: name.to_owned(), entries };
    NodeStatus {
        switchover_drain_ms: 1_000,
        node: "lb-a".to_owned(),
        version: "1.0.0".to_owned(),
        config_checksum: "abc".to_owned(),
        config_age_ms: 0,
        refused_reload: None,
        takeovers: 0,
        is_taking_over: false,
        guard_pid: 1,
        vips: vec![VipStatus {
            name: "w\"e\\b\n".to_owned(),
            role: Role::Standby,
            transitions: 3,
            adverts_dropped: BTreeMap::from([("checksum".to_owned(), 2)]),
            paths: vec![PathStatus {
                name: "eth0".to_owned(),
                is_link: false,
                sent: 1,
                received: 1,
                send_failures: 0,
                last_heard_ms: Some(250),
            }],
            ..VipStatus::default()
        }],
        peer: Some(PeerStatus { node: "lb-b".to_owned(), address: String::new(), last_heard_ms: Some(1_500) }),
        worker: WorkerStatus {
            state: "running".to_owned(),
            pid: Some(2),
            restarts: 4,
            last_exit: None,
            threads: 2,
            connections: 7,
            requests: 99,
            finishing: 0,
            load: LoadStatus {
                pressure: "shedding".to_owned(),
                memory_bytes: 90,
                memory_bytes_max: Some(100),
                ..LoadStatus::default()
            },
        },
        listeners: vec![ListenerStatus {
            name: "http".to_owned(),
            bind: Vec::new(),
            protocol: "http".to_owned(),
            rate_limited: 2,
            refused: BTreeMap::from([("memory".to_owned(), 3)]),
        }],
        pools: vec![PoolStatus {
            requests: 9,
            errors: 1,
            name: "app".to_owned(),
            algorithm: "round_robin".to_owned(),
            panicking: true,
            servers: vec![server("app1", true, "draining"), server("app2", false, "enabled")],
            mirrored: Some(MirroredStatus { answered: 5, failed: 1, too_large: 2, busy: 3, broken_off: 4 }),
            discovery: None,
            queue: Some(QueueStatus {
                length: 4,
                length_max: 5,
                waited: 6,
                waited_us: 1_500_000,
                dropped: BTreeMap::from([("full".to_owned(), 7)]),
                ..QueueStatus::default()
            }),
            breaker: Some(BreakerStatus {
                state: "half_open".to_owned(),
                meaning: String::new(),
                reason: String::new(),
                left_ms: None,
                opened: 3,
                refused: BTreeMap::from([("in_flight".to_owned(), 9)]),
            }),
        }],
        events: Some(EventsStatus { spooled: 1, delivered: 2, dropped: 3, last_error: None, oldest_age_ms: None }),
        witness: Some(WitnessStatus {
            address: String::new(),
            reachable: true,
            last_answer_ms: None,
            sent: 0,
            answers: 0,
            dropped: 0,
        }),
        sync: Some(SyncStatus {
            peer: "lb-b".to_owned(),
            in_sync: true,
            protocol: 1,
            lag_entries: 5,
            lag_us: 2_500,
            delays: DelaysStatus { bounds_us: vec![100, 2_500], counts: vec![3, 0, 1], sum_us: 10_300 },
            snapshot_sent: ProgressStatus { done: 10, total: 20, finished: false },
            refused: BTreeMap::from([("wrong key".to_owned(), 6)]),
            ..SyncStatus::default()
        }),
        sessions: SessionsStatus {
            pools: vec![SessionPoolStatus {
                pool: "app".to_owned(),
                entries: 30,
                entries_max: 100,
                evicted: 8,
                expired: 9,
                by_server: vec![counted("app1", 10), counted("app2", 20)],
            }],
            archive: Some(ArchiveStatus { written_ms: Some(60_000), bytes: 1_024, ..ArchiveStatus::default() }),
            store: Some(StoreStatus { state: "connected".to_owned(), timeouts: 5, ..StoreStatus::default() }),
        },
        certificates: Vec::new(),
        warnings: vec!["one".to_owned()],
    }
}

/// What a page holds, read as Prometheus reads it: samples by name and labels, each in the family that came before it.
fn read(page: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut families, mut family) = (BTreeMap::new(), BTreeSet::new(), (String::new(), String::new()));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert_eq!(family.0, name, "HELP comes first: {line}");
            family.1 = kind.to_owned();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.len() > 10 && help.ends_with('.'), "{line}");
            assert!(families.insert(name.to_owned()), "{name} twice");
            family = (name.to_owned(), String::new());
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let name = sample.split('{').next().unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let of_family = of_histogram.filter(|_| family.1 == "histogram").unwrap_or(name);
        assert_eq!(family.0, of_family, "a sample outside its family");
        assert!(!family.1.is_empty());
        assert!(name.starts_with("baton_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{sample} twice");
    }
    assert!(page.ends_with('\n'));
    samples
}

#[test]
fn every_measure_is_on_the_page() {
    let samples = read(&render(&status()));
    let expected = [
        (r#"baton_info{node="lb-a",version="1.0.0",config_checksum="abc"}"#, 1.0),
        ("baton_warnings", 1.0),
        ("baton_worker_up", 1.0),
        ("baton_worker_restarts_total", 4.0),
        ("baton_connections", 7.0),
        ("baton_requests_total", 99.0),
        (r#"baton_vip_role{vip="w\"e\\b\n",role="standby"}"#, 1.0),
        (r#"baton_vip_role{vip="w\"e\\b\n",role="active"}"#, 0.0),
        (r#"baton_vip_transitions_total{vip="w\"e\\b\n"}"#, 3.0),
        (r#"baton_vip_adverts_dropped_total{vip="w\"e\\b\n",reason="checksum"}"#, 2.0),
        (r#"baton_vip_path_last_heard_age_seconds{vip="w\"e\\b\n",path="eth0"}"#, 0.25),
        (r#"baton_peer_last_heard_age_seconds{peer="lb-b"}"#, 1.5),
        ("baton_sync_connected", 1.0),
        ("baton_sync_in_sync", 1.0),
        ("baton_sync_lag_entries", 5.0),
        ("baton_sync_lag_seconds", 0.0025),
        (r#"baton_sync_delay_seconds_bucket{le="0.0001"}"#, 3.0),
        (r#"baton_sync_delay_seconds_bucket{le="0.0025"}"#, 3.0),
        (r#"baton_sync_delay_seconds_bucket{le="+Inf"}"#, 4.0),
        ("baton_sync_delay_seconds_sum", 0.0103),
        ("baton_sync_delay_seconds_count", 4.0),
        ("baton_sync_config_differs", 0.0),
        (r#"baton_sync_snapshot_entries{direction="sent"}"#, 10.0),
        (r#"baton_sync_snapshot_entries_expected{direction="sent"}"#, 20.0),
        (r#"baton_sync_refused_total{reason="wrong key"}"#, 6.0),
        (r#"baton_sessions{pool="app",server="app2"}"#, 20.0),
        (r#"baton_sessions_limit{pool="app"}"#, 100.0),
        (r#"baton_sessions_evicted_total{pool="app"}"#, 8.0),
        (r#"baton_sessions_expired_total{pool="app"}"#, 9.0),
        ("baton_archive_size_bytes", 1024.0),
        ("baton_archive_age_seconds", 60.0),
        (r#"baton_server_requests_total{pool="app",server="app1"}"#, 12.0),
        (r#"baton_mirrored_requests_total{pool="app",outcome="answered"}"#, 5.0),
        (r#"baton_mirrored_requests_total{pool="app",outcome="broken_off"}"#, 4.0),
        (r#"baton_server_up{pool="app",server="app2"}"#, 0.0),
        (r#"baton_server_ejected{pool="app",server="app1"}"#, 0.0),
        (r#"baton_server_ejected{pool="app",server="app2"}"#, 1.0),
        (r#"baton_server_ejections_total{pool="app",server="app2"}"#, 4.0),
        (r#"baton_pool_breaker_state{pool="app",state="half_open"}"#, 1.0),
        (r#"baton_pool_breaker_state{pool="app",state="closed"}"#, 0.0),
        (r#"baton_pool_breaker_opened_total{pool="app"}"#, 3.0),
        (r#"baton_pool_breaker_stopped_total{pool="app",reason="in_flight"}"#, 9.0),
        (r#"baton_server_admin{pool="app",server="app1",state="draining"}"#, 1.0),
        (r#"baton_server_admin{pool="app",server="app1",state="enabled"}"#, 0.0),
        ("baton_store_connected", 1.0),
        ("baton_store_timeouts_total", 5.0),
        (r#"baton_listener_rate_limited_total{listener="http"}"#, 2.0),
        (r#"baton_listener_refused_total{listener="http",reason="memory"}"#, 3.0),
        (r#"baton_worker_pressure{level="none"}"#, 0.0),
        (r#"baton_worker_pressure{level="shedding"}"#, 1.0),
        (r#"baton_worker_pressure{level="closed"}"#, 0.0),
        ("baton_worker_memory_bytes", 90.0),
        ("baton_worker_memory_limit_bytes", 100.0),
        (r#"baton_pool_queue_length{pool="app"}"#, 4.0),
        (r#"baton_pool_queue_limit{pool="app"}"#, 5.0),
        (r#"baton_pool_queue_waited_total{pool="app"}"#, 6.0),
        (r#"baton_pool_queue_wait_seconds_total{pool="app"}"#, 1.5),
        (r#"baton_pool_queue_dropped_total{pool="app",reason="full"}"#, 7.0),
        (r#"baton_server_in_flight{pool="app",server="app1"}"#, 3.0),
        ("baton_events_waiting", 1.0),
        ("baton_events_dropped_total", 3.0),
        ("baton_witness_reachable", 1.0),
    ];
    for (sample, value) in expected {
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
}

#[test]
fn what_is_not_configured_is_not_on_the_page() {
    let mut alone = status();
    (alone.sync, alone.peer, alone.events, alone.witness) = (None, None, None, None);
    (alone.sessions.archive, alone.sessions.store) = (None, None);
    let samples = read(&render(&alone));
    let is_there = |prefix: &str| samples.keys().any(|sample| sample.starts_with(prefix));
    for prefix in ["baton_sync_", "baton_peer_", "baton_events_", "baton_witness_", "baton_archive_", "baton_store_"] {
        assert!(!is_there(prefix), "{prefix}");
    }
}
