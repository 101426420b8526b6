//! What a pick costs, for each algorithm with 10 and with 1,000 servers: at most 100 ns and 1 µs. Run it with
//! `cargo bench --bench picks`.
//!
//! Servers are as the worker has them: each in memory of its own, with what is under way counted in an atomic. Counting is
//! part of the pick that is timed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a bench may end itself")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use baton::balance::latency::PeakEwma;
use baton::balance::ring::Ring;
use baton::balance::{Balancer, Condition, Method, Servers, Snapshot, Terms, WEIGHT_ONE, key_hash};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

#[repr(align(128))]
struct Server {
    up: AtomicBool,
    in_flight: AtomicU32,
    response_time: AtomicU64,
}

struct Pool(Vec<Arc<Server>>);

impl Pool {
    fn of(count: usize) -> Self {
        let server = |index: usize| {
            let answered = PeakEwma::default().after(300 + u32::try_from(index % 50).unwrap(), 5);
            Arc::new(Server {
                up: AtomicBool::new(true),
                in_flight: AtomicU32::new(u32::try_from(index % 7).unwrap()),
                response_time: AtomicU64::new(answered.unwrap_or_default().to_bits()),
            })
        };
        Self((0..count).map(server).collect())
    }
}

impl Servers for Pool {
    fn may_try(&self, server: usize) -> bool {
        self.0[server].up.load(Ordering::Relaxed)
    }

    fn has_room(&self, _: usize) -> bool {
        true
    }

    fn in_flight(&self, server: usize) -> u32 {
        self.0[server].in_flight.load(Ordering::Relaxed)
    }

    fn response_time_us(&self, server: usize) -> Option<u32> {
        PeakEwma::from_bits(self.0[server].response_time.load(Ordering::Relaxed)).estimate_us(1_000)
    }
}

fn weights(count: usize, is_even: bool) -> Vec<Condition> {
    let weight = |index: usize| if is_even { 1 } else { 1 + u32::try_from(index % 9).unwrap() };
    let condition = |index| Condition {
        is_healthy: true,
        is_enabled: true,
        is_backup: false,
        is_near: false,
        weight: weight(index) * WEIGHT_ONE,
    };
    (0..count).map(condition).collect()
}

fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for count in [10, 1_000] {
        let names: Vec<String> = (0..count).map(|number| format!("app{number}")).collect();
        let ring = Arc::new(Ring::new(names.iter().map(|name| (name.as_str(), 1))));
        let hash = |load_max_percent| Method::Hash { ring: Arc::clone(&ring), load_max_percent };
        for (name, method, is_even) in [
            ("round_robin", Method::Rotation, true),
            ("weighted_round_robin", Method::Rotation, false),
            ("least_connections", Method::LeastConnections, false),
            ("least_response_time", Method::LeastResponseTime, false),
            ("consistent_hash", hash(0), true),
            ("consistent_hash_bounded", hash(125), true),
            ("random", Method::Random, false),
            ("power_of_two", Method::PowerOfTwo, false),
        ] {
            let pool = Pool::of(count);
            let mut balancer = Balancer::new(&method, 0, 1);
            balancer.refresh(Snapshot::new(&weights(count, is_even), Terms::default()));
            let mut key = 0_u64;
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let server = balancer.pick(&pool, Some(black_box(key))).unwrap();
                    pool.0[server].in_flight.fetch_add(1, Ordering::Relaxed);
                    pool.0[server].in_flight.fetch_sub(1, Ordering::Relaxed);
                    server
                });
            });
        }
    }
    group.bench_function("key_hash of 16 bytes", |bencher| bencher.iter(|| key_hash(black_box(b"0123456789abcdef"))));
    group.finish();
}

criterion_group!(benches, picks);
criterion_main!(benches);
