//! Runs the commands by which servers are checked, for the worker, which starts no process and holds nothing that could.
//!
//! The worker says which server a check is about and when; which program is run says the configuration alone. It runs without
//! privileges, as the user that the worker is.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::fitness::command::{AsWhom, Program, look};
use super::supervisor::{self, CheckAsked};
use crate::config::{Check, Config};
use crate::fitness::Finding;
use crate::link::ToWorker;
use crate::net::privileges;

/// Commands that run at a time.
const RUNNING_MAX: usize = 32;
/// Those that wait for their turn. Each server has one at most, and the rest fails.
const WAITING_MAX: usize = 1024;

/// A command to run.
struct Run {
    id: u64,
    words: Vec<String>,
    environment: [(&'static str, String); 4],
    user: Option<String>,
    patience: Duration,
}

/// Has commands run.
pub struct Commands {
    runs: mpsc::Sender<Run>,
    to_worker: mpsc::Sender<supervisor::Command>,
}

/// Runs commands for as long as there is somebody to tell.
pub fn start(to_worker: mpsc::Sender<supervisor::Command>) -> Commands {
    let (runs, waiting) = mpsc::channel(WAITING_MAX);
    tokio::task::spawn_local(run_all(waiting, to_worker.clone()));
    Commands { runs, to_worker }
}

impl Commands {
    /// Takes what the worker asks for.
    pub fn ask(&self, config: &Config, asked: &CheckAsked) {
        let pool = config.pools.iter().find(|pool| pool.name == asked.pool);
        let health = pool.and_then(|pool| pool.health.as_ref());
        let (Some(health), Some(Check::Command(words))) = (health, health.map(|health| &health.check)) else {
            return self.refuse(asked.id, "this pool has no command");
        };
        let run = Run {
            id: asked.id,
            words: words.clone(),
            environment: [
                ("BATON_POOL_NAME", asked.pool.clone()),
                ("BATON_SERVER_NAME", asked.server.replace('\0', "")),
                ("BATON_SERVER_ADDRESS", asked.address.ip().to_string()),
                ("BATON_SERVER_PORT", asked.address.port().to_string()),
            ],
            user: config.worker.user.clone(),
            patience: health.timeout,
        };
        if self.runs.try_send(run).is_err() {
            self.refuse(asked.id, "too many commands wait to be run");
        }
    }

    fn refuse(&self, id: u64, reason: &str) {
        tell(&self.to_worker, id, Err(reason.to_owned()));
    }
}

fn tell(to_worker: &mpsc::Sender<supervisor::Command>, id: u64, result: Result<String, String>) {
    // Where the queue is full the check runs out of time, which is as bad as it is.
    drop(to_worker.try_send(supervisor::Command::Tell(ToWorker::Checked { id, result })));
}

async fn run_all(mut waiting: mpsc::Receiver<Run>, to_worker: mpsc::Sender<supervisor::Command>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = running.join_next() => {}
            run = waiting.recv(), if running.len() < RUNNING_MAX => {
                let Some(run) = run else { return };
                running.spawn_local(run_one(run, to_worker.clone()));
            }
        }
    }
}

async fn run_one(run: Run, to_worker: mpsc::Sender<supervisor::Command>) {
    let result = match privileges::unprivileged_user(run.user.as_deref()) {
        Err(error) => Err(format!("it cannot be started: {error}")),
        Ok(user) => {
            let as_whom = AsWhom::Nobody(user.as_ref());
            let program = Program { words: &run.words, environment: &run.environment, as_whom };
            // One that was killed and does not end is killed again when it is dropped here.
            match look(&program, run.patience).await.0 {
                Finding::Good(said) => Ok(said),
                Finding::Bad(said) | Finding::Slow(said) | Finding::Untested(said) => Err(said),
            }
        }
    };
    tell(&to_worker, run.id, result);
}
