//! Sessions in a real redis-server, which each test starts for itself: what load balancers find of each other's, and what
//! becomes of requests while it is away.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of a test may end the test"
)]

mod away;
mod certificates;
mod server;
mod shared;
mod ways;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::config::StoreUrl;
use baton::session::ServerRef;
use baton::session::key::Key;
use baton::store::{Found, Seen, Settings, Store, StorePool};

use server::{PATIENCE, RedisServer, wait_for};

const APP1: ServerRef = ServerRef { pool: 0, server: 0 };
const APP2: ServerRef = ServerRef { pool: 0, server: 1 };

fn key(number: u8) -> Key {
    Key::from_bytes([number; 16])
}

fn url(port: u16) -> StoreUrl {
    StoreUrl { host: "127.0.0.1".to_owned(), port, is_tls: false, database: 0 }
}

/// A store that waits for as long as a test does, so that a slow machine makes no difference.
fn settings(port: u16) -> Settings {
    Settings {
        urls: vec![url(port)],
        is_cluster: false,
        username: None,
        password: None,
        ca_pem: None,
        timeout: Duration::from_secs(10),
        prefix: "baton:".to_owned(),
    }
}

fn pool(servers: &[&str]) -> StorePool {
    StorePool {
        name: "app".to_owned(),
        servers: servers.iter().map(|&name| name.to_owned()).collect(),
        idle: Duration::from_secs(60),
        absolute: None,
    }
}

fn app() -> StorePool {
    pool(&["app1", "app2"])
}

/// A load balancer's handle, and what its table would be told.
struct Balancer {
    store: Store,
    seen: Arc<Mutex<Vec<(Key, Seen)>>>,
}

impl Balancer {
    /// Does not wait for the store.
    fn start(settings: Settings, pools: Vec<StorePool>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let apply = Box::new(move |key: &Key, found| told.lock().unwrap().push((*key, found)));
        Self { store: Store::start(settings, pools, apply).unwrap(), seen }
    }

    /// Of a store that is there.
    fn of(settings: Settings, pool: StorePool) -> Self {
        let balancer = Self::start(settings, vec![pool]);
        balancer.wait_until_connected();
        balancer
    }

    fn wait_until_connected(&self) {
        wait_for("the store is connected", || self.store.is_connected());
        assert_eq!(self.store.status().state, "connected");
    }

    fn wait_until_away(&self) {
        wait_for("the store is away", || !self.store.is_connected() && self.store.status().last_error.is_some());
        assert_eq!(self.store.status().state, "away");
    }

    fn lookup(&self, key: Key) -> Found {
        on_a_runtime(self.store.lookup(&key, 0))
    }

    fn claim(&self, key: Key, server: ServerRef) -> Option<ServerRef> {
        on_a_runtime(self.store.claim(&key, server))
    }

    /// As a request that is not in the table; by hashing it would be on the second server.
    fn find_or_claim(&self, key: Key, proposed: ServerRef) -> Option<ServerRef> {
        on_a_runtime(self.store.find_or_claim(&key, proposed, || Some(APP2)))
    }

    /// Uses a session until the comparison with the store has said something of it.
    fn use_until_seen(&self, key: Key, server: ServerRef) -> Seen {
        let mut found = None;
        wait_for("the comparison finds something", || {
            self.store.used(&key, server);
            found = self.seen.lock().unwrap().iter().find(|(of, _)| *of == key).map(|(_, seen)| seen.clone());
            found.is_some()
        });
        found.unwrap()
    }
}

fn on_a_runtime<T>(question: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, question).await.expect("it is answered") })
}
