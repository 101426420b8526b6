//! Finds the servers of pools: by their names, in Consul, in files, and at addresses that list them.
//!
//! The sources are asked on the worker's own runtime. What they say goes through one gate ([`list`]): a list is taken whole or
//! refused whole, and a source that does not answer changes nothing. [`Discovery`] puts what was found together with the
//! configuration, and the worker applies that as it applies a changed file.

mod client;
pub mod consul;
mod dns;
pub mod list;
pub mod operators;
mod source;
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use self::operators::AllChanges;
use self::source::Material;
use self::state::{State, States};
use crate::config::{self, Config, DiscoverySource};
use crate::link::KeptList;
use crate::proxy::files::Files;
use crate::status::PoolStatus;

/// Time between two changes of what is served, however often lists change: each costs all threads a little.
const APPLY_INTERVAL: Duration = Duration::from_millis(200);

/// The sources of all pools.
pub struct Discovery {
    pools: BTreeMap<String, Followed>,
    overview: Overview,
    revision: watch::Receiver<u64>,
    applied: u64,
    applied_at: Option<Instant>,
}

/// A pool whose source is asked, for as long as this lives.
struct Followed {
    discovery: config::Discovery,
    material: Material,
    state: Arc<State>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

/// Says how the sources are, and has what operators have changed be applied. A copy does the same.
#[derive(Clone)]
pub struct Overview {
    states: Arc<Mutex<States>>,
    /// How often there was something new.
    revision: watch::Sender<u64>,
    /// Up to where it is applied.
    applied: watch::Sender<u64>,
}

impl Overview {
    /// Adds to each pool how the source of its servers is.
    pub fn add_to(&self, pools: &mut [PoolStatus]) {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in pools {
            pool.discovery = states.get(&pool.name).map(|state| state.status());
        }
    }

    /// There is something new to be applied.
    pub fn changed(&self) -> Change {
        let mut number = 0;
        self.revision.send_modify(|revision| {
            *revision += 1;
            number = *revision;
        });
        Change(number)
    }

    /// Waits until a change is applied, at most for `patience`. Whether it is.
    pub async fn applied(&self, change: Change, patience: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        matches!(timeout(patience, applied.wait_for(|applied| *applied >= change.0)).await, Ok(Ok(_)))
    }

    /// Sources that are not good, in words.
    pub fn warnings(&self) -> Vec<String> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let warning = |(pool, state): (&String, &Arc<State>)| {
            let status = state.status();
            let problem = status.problem?;
            let age = status.age_ms.map(|age_ms| format!(", found {} s ago,", age_ms / 1000)).unwrap_or_default();
            let servers = status.servers;
            let source = status.source;
            Some(format!(
                "pool {pool}: no servers are found by {source}: {problem}; the last list{age} with {servers} stays"
            ))
        };
        states.iter().filter_map(warning).collect()
    }
}

/// Something new that is applied some time later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change(u64);

impl Discovery {
    /// Begins to ask the sources of a configuration. What an earlier worker has left is used until they answer. Needs a
    /// tokio runtime.
    pub fn start(config: &Config, files: &Files, kept: &[KeptList]) -> Self {
        let (sender, revision) = watch::channel(0);
        let overview = Overview { states: Arc::default(), revision: sender, applied: watch::Sender::new(0) };
        let mut discovery = Self { pools: BTreeMap::new(), overview, revision, applied: 0, applied_at: None };
        discovery.reconfigured(config, files, kept);
        // The first configuration has what is known so far.
        let known = discovery.revision();
        discovery.took(known);
        discovery
    }

    /// Takes another configuration, or files that have changed. Sources that are as they were are not asked anew.
    pub fn reconfigured(&mut self, config: &Config, files: &Files, kept: &[KeptList]) {
        let mut before = std::mem::take(&mut self.pools);
        for pool in &config.pools {
            let Some(discovery) = &pool.discovery else { continue };
            let material = source::material(discovery, files);
            let followed = match before.remove(&pool.name) {
                Some(followed) if followed.discovery == *discovery && followed.material == material => followed,
                Some(followed) if followed.discovery == *discovery => {
                    let state = Arc::clone(&followed.state);
                    drop(followed);
                    follow(discovery.clone(), material, state, files)
                }
                other => {
                    let last = other.and_then(|followed| followed.state.kept());
                    let kept = last.as_ref().or_else(|| kept.iter().find(|kept| kept.pool == pool.name));
                    let state = Arc::new(State::new(&pool.name, discovery, kept, self.overview.revision.clone()));
                    follow(discovery.clone(), material, state, files)
                }
            };
            self.pools.insert(pool.name.clone(), followed);
        }
        let states = self.pools.iter().map(|(pool, followed)| (pool.clone(), Arc::clone(&followed.state)));
        *self.overview.states.lock().unwrap_or_else(PoisonError::into_inner) = states.collect();
    }

    /// Waits until lists differ from what was taken last. Cancel safe.
    pub async fn changed(&mut self) {
        let applied = self.applied;
        // The sender lives here, so that it does not end.
        drop(self.revision.wait_for(|revision| *revision != applied).await.map(drop));
        if let Some(at) = self.applied_at {
            sleep_until(at + APPLY_INTERVAL).await;
        }
    }

    /// How far everything is. To be asked before [`Discovery::applied_to`].
    pub fn revision(&mut self) -> Change {
        Change(*self.revision.borrow_and_update())
    }

    /// Notes that everything up to there is applied, or cannot be.
    pub fn took(&mut self, change: Change) {
        self.applied = change.0;
        self.applied_at = Some(Instant::now());
        self.overview.applied.send_replace(change.0);
    }

    /// The configuration with the servers that were found, and with what operators have changed of a pool.
    pub fn applied_to(&self, config: &Config, changes: &AllChanges) -> Config {
        let mut config = config.clone();
        for pool in &mut config.pools {
            let found = self.pools.get(&pool.name).map(|followed| followed.state.servers()).unwrap_or_default();
            let (servers, left_out) = list::merged(&pool.servers, &changes.of_pool(&pool.name), &found);
            if left_out > 0 {
                let reason = "their names or addresses are there already, or the pool is full";
                warn!(pool = pool.name, count = left_out, reason, "servers that were found are left out");
            }
            pool.servers = servers;
        }
        config
    }

    /// What the next worker begins with.
    pub fn kept(&self) -> Vec<KeptList> {
        self.pools.values().filter_map(|followed| followed.state.kept()).collect()
    }

    /// Says how the sources are.
    pub fn overview(&self) -> Overview {
        self.overview.clone()
    }
}

fn follow(discovery: config::Discovery, material: Material, state: Arc<State>, files: &Files) -> Followed {
    if let DiscoverySource::File { path } = &discovery.source {
        // There is nothing to be asked, and so they are there before the first request.
        state.answered(source::in_files(path, files));
        return Followed { discovery, material, state, task: None };
    }
    let (asked, reporter, files) = (discovery.clone(), Arc::clone(&state), files.clone());
    let task = tokio::spawn(async move {
        if let Err(reason) = source::follow(&asked, files, &reporter).await {
            reporter.failed(reason);
        }
    });
    Followed { discovery, material, state, task: Some(task) }
}
