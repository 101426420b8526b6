//! What is known of the servers of one pool: the last good list, since when, and what was wrong afterwards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::list::judged;
use super::source::Failure;
use crate::config::{Discovery, DiscoverySource, FoundServer, OnEmpty};
use crate::link::KeptList;
use crate::status::DiscoveryStatus;

/// What is known of one pool. Written by the task that asks its source.
pub(super) struct State {
    pool: String,
    discovery: Discovery,
    known: Mutex<Known>,
    /// How often a list has changed, of all pools.
    revision: watch::Sender<u64>,
}

struct Known {
    servers: Vec<FoundServer>,
    /// When the source said so last; `None` before its first good answer.
    good_at: Option<Instant>,
    /// When the list was found that an earlier worker has left.
    kept_at_s: Option<u64>,
    /// What is wrong now.
    problem: Option<String>,
    answers: u64,
    failures: u64,
}

impl State {
    /// With the list that an earlier worker has left, if it is of the same source.
    pub(super) fn new(
        pool: &str,
        discovery: &Discovery,
        kept: Option<&KeptList>,
        revision: watch::Sender<u64>,
    ) -> Self {
        let kept = kept.filter(|kept| kept.source == discovery.source.to_string());
        // What was kept goes the same way: the networks may be others now.
        let judge =
            |kept: &KeptList| judged(kept.servers.clone(), discovery.networks.as_ref(), is_trusted(discovery)).ok();
        let servers = kept.and_then(judge);
        let kept_at_s = kept.filter(|_| servers.is_some()).map(|kept| kept.found_at_s);
        let known = Known {
            servers: servers.unwrap_or_default(),
            good_at: None,
            kept_at_s,
            problem: None,
            answers: 0,
            failures: 0,
        };
        Self { pool: pool.to_owned(), discovery: discovery.clone(), known: Mutex::new(known), revision }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the source has answered. Whether there is a good list in it.
    pub(super) fn answered(&self, result: Result<Vec<FoundServer>, Failure>) -> bool {
        let networks = self.discovery.networks.as_ref();
        let judged = result.and_then(|servers| {
            if servers.is_empty() {
                return Err(Failure::Empty("it has no servers".to_owned()));
            }
            judged(servers, networks, is_trusted(&self.discovery)).map_err(Failure::Wrong)
        });
        match judged {
            Ok(servers) => self.took(servers),
            Err(Failure::Empty(_)) if self.discovery.on_empty == OnEmpty::Remove => self.took(Vec::new()),
            Err(failure) => {
                self.failed(failure.into_reason());
                return false;
            }
        }
        true
    }

    /// The source says that its last list still holds.
    pub(super) fn confirmed(&self) -> bool {
        self.good_again(&mut self.known());
        true
    }

    fn took(&self, servers: Vec<FoundServer>) {
        let mut known = self.known();
        self.good_again(&mut known);
        if known.servers == servers {
            return;
        }
        let is_in = |list: &[FoundServer], name: &str| list.iter().any(|server| server.name == name);
        let added = servers.iter().filter(|server| !is_in(&known.servers, &server.name)).count();
        let removed = known.servers.iter().filter(|server| !is_in(&servers, &server.name)).count();
        let (pool, source) = (&self.pool, self.discovery.source.to_string());
        info!(pool, source, servers = servers.len(), added, removed, "servers were found");
        known.servers = servers;
        drop(known);
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn good_again(&self, known: &mut Known) {
        known.good_at = Some(Instant::now());
        known.answers += 1;
        if known.problem.take().is_some() {
            info!(pool = self.pool, source = self.discovery.source.to_string(), "the source of servers is good again");
        }
    }

    /// There is no new list, and the last one stays.
    pub(super) fn failed(&self, reason: String) {
        let mut known = self.known();
        known.failures += 1;
        if known.problem.is_none() {
            let (pool, source, servers) = (&self.pool, self.discovery.source.to_string(), known.servers.len());
            warn!(pool, source, servers, reason, "no servers are found, and the last list stays in use");
        }
        known.problem = Some(reason);
    }

    /// The last good list.
    pub(super) fn servers(&self) -> Vec<FoundServer> {
        self.known().servers.clone()
    }

    /// For the next worker; nothing before there is a list.
    pub(super) fn kept(&self) -> Option<KeptList> {
        let known = self.known();
        let found_at_s =
            known.good_at.map(|at| since_epoch_s().saturating_sub(at.elapsed().as_secs())).or(known.kept_at_s)?;
        let (pool, source, servers) = (self.pool.clone(), self.discovery.source.to_string(), known.servers.clone());
        Some(KeptList { pool, source, found_at_s, servers, is_for_disk: self.discovery.keep })
    }

    /// How it is.
    pub(super) fn status(&self) -> DiscoveryStatus {
        let known = self.known();
        let kept = |at_s| Duration::from_secs(since_epoch_s().saturating_sub(at_s));
        let age = known.good_at.map(|at| at.elapsed()).or_else(|| known.kept_at_s.map(kept));
        DiscoveryStatus {
            kind: self.discovery.source.kind().to_owned(),
            source: self.discovery.source.to_string(),
            servers: known.servers.len() as u64,
            age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            is_kept: known.good_at.is_none() && known.kept_at_s.is_some(),
            answers: known.answers,
            failures: known.failures,
            problem: known.problem.clone(),
        }
    }
}

/// A file is the operator's word, and may name this machine.
fn is_trusted(discovery: &Discovery) -> bool {
    matches!(discovery.source, DiscoverySource::File { .. })
}

fn since_epoch_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// States of several pools, for whoever says how they are.
pub(super) type States = std::collections::BTreeMap<String, Arc<State>>;
