//! Active health checks: the shell around `health`. Runs on the worker's own runtime, so that checks take no time from
//! requests, and writes its verdicts where every thread reads them.
//!
//! `check` makes one check, with a module for each protocol; `exchange` bounds what servers may answer; `agent` asks those who
//! stand beside servers.

mod agent;
mod check;
pub mod command;
mod database;
mod dns;
mod exchange;
mod grpc;
mod http;
mod mysql;
mod postgres;
mod redis;
mod scram;
mod smtp;
mod tls;
mod udp;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use self::check::Checker;
use self::command::Asker;
use crate::config::{Check, Health};
use crate::health::Judgement;
use crate::proxy::state::Site;

/// The first checks of this many servers begin at once; those of more are spread, so that they do not take each other's time.
const AT_ONCE: usize = 64;
const SPREAD_MAX: Duration = Duration::from_millis(500);

/// How long a worker that knows nothing of its servers waits for their first checks.
const FIRST_ROUND_TIMEOUT: Duration = Duration::from_secs(1);

/// Verdicts are told to the other node again after so many intervals, so that it knows them to be fresh...
const PUBLISHED_INTERVALS: u32 = 5;
/// ...and no more often than this.
const PUBLISHED_MIN: Duration = Duration::from_secs(10);

/// All checks of a site. They end when it is dropped.
#[derive(Debug)]
pub struct Checks {
    tasks: JoinSet<Option<()>>,
    /// Closed once every server has been checked.
    first_round: mpsc::Receiver<()>,
}

/// Checks every server of every pool that has checks. What they find of a server that was checked before goes on from there.
pub fn spawn_all(site: &Arc<Site>, asker: &Asker) -> Checks {
    let (first_done, first_round) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let checked = site.pools.iter().filter(|pool| pool.config.health.is_some()).map(|pool| pool.servers.len());
    let is_many = checked.sum::<usize>() > AT_ONCE;
    for (pool_index, pool) in site.pools.iter().enumerate() {
        for server_index in 0..pool.servers.len() {
            if let Some(health) = &pool.config.health {
                let watched = Watched { site: Arc::clone(site), pool_index, server_index, is_many };
                // A command may take its time, and nobody waits for it to start.
                let first_done = Some(first_done.clone()).filter(|_| !matches!(health.check, Check::Command(_)));
                tasks.spawn(watch(watched, health.clone(), asker.clone(), first_done));
            }
            if let Some(agent) = &pool.config.agent {
                tasks.spawn(agent::watch(Arc::clone(site), pool_index, server_index, agent.clone()));
            }
        }
    }
    Checks { tasks, first_round }
}

impl Checks {
    /// Waits for the first check of every server, or a second.
    pub async fn first_round(&mut self) {
        let _too_long = timeout(FIRST_ROUND_TIMEOUT, self.first_round.recv()).await;
    }

    /// How many servers and agents are watched.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is nothing to watch.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// A time like this one: a tenth more or less, so that checks do not fall into step.
fn apart(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Which server.
struct Watched {
    site: Arc<Site>,
    pool_index: usize,
    server_index: usize,
    /// Many others are watched.
    is_many: bool,
}

async fn watch(watched: Watched, health: Health, asker: Asker, mut first_done: Option<mpsc::Sender<()>>) -> Option<()> {
    let Watched { site, pool_index, server_index, is_many } = watched;
    let pool = site.pools.get(pool_index)?;
    let (server, config) = (pool.servers.get(server_index)?, pool.config.servers.get(server_index)?);
    let (pool_name, server_name) = (&pool.config.name, &config.name);
    let mut judgement = match server.checked() {
        None => Judgement::new(health.fall, health.rise),
        Some(is_up) => Judgement::resumed(health.fall, health.rise, is_up),
    };
    let mut checker = Checker::new(&health, &pool.dialer, config.address);
    let mut published_at = None;
    let published_again = (health.interval * PUBLISHED_INTERVALS).max(PUBLISHED_MIN);
    if is_many {
        sleep(health.interval.min(SPREAD_MAX).mul_f64(fastrand::f64())).await;
    }
    loop {
        let started = Instant::now();
        let result = match &health.check {
            Check::Command(_) => checker.check_by_command(&asker, pool_name, server_name).await,
            _ => checker.check().await,
        };
        let changed = judgement.record(result.is_ok());
        let said = match &result {
            Ok(said) => format!("{said} in {} ms", started.elapsed().as_millis()),
            Err(reason) => reason.clone(),
        };
        // First the verdict, then the log: who reads that a server is down may rely on it.
        let is_first = server.checked().is_none();
        server.judge(judgement.is_up(), said.clone());
        let is_due = published_at.is_none_or(|at: Instant| at.elapsed() >= published_again);
        if changed.is_some() || is_first || is_due {
            site.publish_health(pool_name, server_name, judgement.is_up());
            published_at = Some(Instant::now());
        }
        match changed {
            Some(true) => info!(pool = pool_name, server = server_name, check = said, "server is up"),
            Some(false) => warn!(pool = pool_name, server = server_name, check = said, "server is down"),
            None => {}
        }
        // Whoever waits for the first checks sees that this one is done.
        drop(first_done.take());
        let is_settled = judgement.is_up() && !judgement.is_changing();
        let interval = if is_settled { health.interval } else { health.interval_when_down };
        sleep_until(started + apart(interval)).await;
    }
}
