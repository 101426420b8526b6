//! Active health checks: the shell around `health`. Runs on the worker's own runtime, so that checks take no time from
//! requests, and writes its verdicts where every thread reads them.
//!
//! `check` makes one check, with a module for each protocol; `exchange` bounds what servers may answer, and `connection` is one
//! of HTTP; `agent` asks those who stand beside servers.

mod agent;
mod check;
pub mod command;
mod connection;
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
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use self::check::Checker;
use self::command::Asker;
use crate::config::{self, Agent, Check, Health};
use crate::health::Judgement;
use crate::proxy::reload::Current;
use crate::proxy::server::Server;
use crate::proxy::state::{Pool, Site};

/// The first checks of this many servers begin at once; those of more are spread, so that they do not take each other's time.
const AT_ONCE: usize = 64;
const SPREAD_MAX: Duration = Duration::from_millis(500);

/// How long a worker that knows nothing of its servers waits for their first checks.
const FIRST_ROUND_TIMEOUT: Duration = Duration::from_secs(1);

/// Verdicts are told to the other node again after so many intervals, so that it knows them to be fresh...
const PUBLISHED_INTERVALS: u32 = 5;
/// ...and no more often than this.
const PUBLISHED_MIN: Duration = Duration::from_secs(10);

/// The checks that run. They end when this is dropped.
pub struct Checks {
    current: Arc<Current>,
    asker: Asker,
    running: Vec<Running>,
}

/// What is done again and again for one server.
#[derive(Clone, PartialEq)]
enum Watch {
    /// It is checked.
    Health(Box<Health>),
    /// Its agent is asked.
    Agent(Agent),
}

struct Running {
    watched: Watched,
    watch: Watch,
    task: AbortHandle,
}

/// Which server.
#[derive(Clone)]
struct Watched {
    pool: Arc<Pool>,
    index: usize,
    server: Arc<Server>,
}

impl Watched {
    fn config(&self) -> Option<&config::Server> {
        self.pool.config.servers.get(self.index)
    }
}

impl Checks {
    /// None yet.
    pub fn new(current: Arc<Current>, asker: Asker) -> Self {
        Self { current, asker, running: Vec::new() }
    }

    /// Checks every server of every pool that has checks, and asks the agents. What is done already, in the same way, goes
    /// on; a server that stays keeps its verdict. What is returned is closed once every new server has been checked.
    pub fn follow(&mut self) -> mpsc::Receiver<()> {
        let site = Arc::clone(&self.current.load().site);
        let (first_done, first_round) = mpsc::channel(1);
        let mut former = std::mem::take(&mut self.running);
        let checked = site.pools.iter().filter(|pool| pool.config.health.is_some()).map(|pool| pool.servers.len());
        let is_many = checked.sum::<usize>() > AT_ONCE;
        for (watched, watch) in wanted(&site) {
            let kept = former.iter().position(|running| running.is_same(&watched, &watch));
            let running = match kept {
                Some(position) => former.swap_remove(position),
                None => self.start(watched, watch, is_many, &first_done),
            };
            self.running.push(running);
        }
        first_round
    }

    fn start(&self, watched: Watched, watch: Watch, is_many: bool, first_done: &mpsc::Sender<()>) -> Running {
        let task = match watch.clone() {
            Watch::Agent(agent) => tokio::spawn(agent::watch(watched.clone(), agent)),
            Watch::Health(health) => {
                // A command may take its time, and nobody waits for it to start.
                let first_done = Some(first_done.clone()).filter(|_| !matches!(health.check, Check::Command(_)));
                let start = Start { asker: self.asker.clone(), is_many, first_done };
                tokio::spawn(self::watch(Arc::clone(&self.current), watched.clone(), *health, start))
            }
        };
        Running { watched, watch, task: task.abort_handle() }
    }

    /// How many servers and agents are watched.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether there is nothing to watch.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

/// Waits for the first check of every server, or a second.
pub async fn first_round(mut done: mpsc::Receiver<()>) {
    let _too_long = timeout(FIRST_ROUND_TIMEOUT, done.recv()).await;
}

/// What has to be watched of a site.
fn wanted(site: &Site) -> impl Iterator<Item = (Watched, Watch)> {
    site.pools.iter().flat_map(|pool| {
        let config = &pool.config;
        let watches = config
            .health
            .iter()
            .cloned()
            .map(Box::new)
            .map(Watch::Health)
            .chain(config.agent.iter().cloned().map(Watch::Agent));
        let watches: Vec<_> = watches.collect();
        pool.servers.iter().enumerate().flat_map(move |(index, server)| {
            let watched = Watched { pool: Arc::clone(pool), index, server: Arc::clone(server) };
            watches.clone().into_iter().map(move |watch| (watched.clone(), watch))
        })
    })
}

impl Running {
    fn is_same(&self, watched: &Watched, watch: &Watch) -> bool {
        let own = &self.watched;
        Arc::ptr_eq(&own.server, &watched.server)
            && Arc::ptr_eq(&own.pool.dialer, &watched.pool.dialer)
            && own.pool.config.name == watched.pool.config.name
            && self.watch == *watch
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A time like this one: a tenth more or less, so that checks do not fall into step.
fn apart(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// How the checks of a server begin.
struct Start {
    asker: Asker,
    /// Many others are watched.
    is_many: bool,
    /// Dropped after the first check.
    first_done: Option<mpsc::Sender<()>>,
}

async fn watch(current: Arc<Current>, watched: Watched, health: Health, start: Start) -> Option<()> {
    let (pool, server, config) = (&watched.pool, &watched.server, watched.config()?);
    let Start { asker, is_many, mut first_done } = start;
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
            current.load().site.publish_health(pool_name, server_name, judgement.is_up());
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
