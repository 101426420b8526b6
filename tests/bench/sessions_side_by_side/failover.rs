//! Whether users stay on their servers when the active node is lost, or hands over, while sessions are made.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::report::Round;
use crate::stage::{Running, Stage, System};
use crate::users::{Acknowledged, Load, count_moved};
use crate::{USERS, Wishes};

/// Sessions acknowledged later than so long before the loss may be gone with it.
const GRACE: Duration = Duration::from_millis(10);

/// The loss comes at any time of a second.
const PHASE: Duration = Duration::from_secs(1);

/// How long sessions are made before one node comes back, and how soon after that the other may be lost.
const EARLY_LOAD: Duration = Duration::from_secs(2);
const EARLY_MIN: Duration = Duration::from_millis(200);
const EARLY_MAX: Duration = Duration::from_secs(2);

/// How long sessions are made after a hand-over.
const AFTERMATH: Duration = Duration::from_secs(2);

/// With a hand-over, every third request comes from a user who has a session already.
const REPEAT_EVERY: u32 = 2;

/// When the active node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The nodes have been connected for long.
    Settled,
    /// They have been connected for less than two seconds.
    Early,
}

/// Loses the active node while sessions are made, and asks all of them once more.
pub fn kill(stage: &mut Stage, system: System, moment: Moment, wishes: &Wishes) -> Result<Round> {
    let tag = stage.next_tag();
    let mut running = stage.start(system, false)?;
    let played = play_kill(stage, &mut running, system, moment, wishes, tag);
    end(stage, running, played)
}

fn play_kill(
    stage: &mut Stage,
    running: &mut Running,
    system: System,
    moment: Moment,
    wishes: &Wishes,
    tag: u32,
) -> Result<Round> {
    let (active, standby) = stage.active_and_standby()?;
    let load = match moment {
        Moment::Settled => {
            std::thread::sleep(wishes.settle);
            let load = Load::start(stage.client()?, USERS, tag, (wishes.rate, None))?;
            std::thread::sleep(wishes.load + PHASE.mul_f64(fastrand::f64()));
            load
        }
        Moment::Early => {
            stage.stop_proxy(running, standby)?;
            let load = Load::start(stage.client()?, USERS, tag, (wishes.rate, None))?;
            std::thread::sleep(EARLY_LOAD);
            let connected = stage.start_proxy(running, standby)?;
            let kill_at = connected + EARLY_MIN + (EARLY_MAX - EARLY_MIN).mul_f64(fastrand::f64());
            std::thread::sleep(kill_at.saturating_duration_since(Instant::now()));
            load
        }
    };
    let struck = Instant::now();
    stage.kill(running, active)?;
    let users = load.stop()?;
    stage.wait_until_active(standby)?;

    let all = users.acknowledged();
    let (early, late): (Vec<_>, Vec<_>) = all.iter().partition(|session| session.at + GRACE < struck);
    let (moved, lost) = check(stage, running, standby, tag, &early)?;
    let (late_moved, late_lost) = check(stage, running, standby, tag, &late)?;
    let variant = match moment {
        Moment::Settled => "kill -9",
        Moment::Early => "kill -9, just connected",
    };
    Ok(Round::new("kill", variant, system)
        .with("new_sessions_a_second", users.pace(struck).round())
        .with("users", early.len() as f64)
        .with("moved", moved as f64)
        .with("lost_entries", lost as f64)
        .with("users_in_last_10_ms", late.len() as f64)
        .with("moved_of_these", late_moved as f64)
        .with("lost_entries_of_these", late_lost as f64))
}

/// Hands over while sessions are made and used, and asks all of them once more.
pub fn switchover(stage: &mut Stage, system: System, wishes: &Wishes) -> Result<Round> {
    let tag = stage.next_tag();
    let mut running = stage.start(system, false)?;
    let played = play_switchover(stage, &mut running, system, wishes, tag);
    end(stage, running, played)
}

fn play_switchover(
    stage: &mut Stage,
    running: &mut Running,
    system: System,
    wishes: &Wishes,
    tag: u32,
) -> Result<Round> {
    let (active, standby) = stage.active_and_standby()?;
    std::thread::sleep(wishes.settle);
    let load = Load::start(stage.client()?, USERS, tag, (wishes.rate, Some(REPEAT_EVERY)))?;
    std::thread::sleep(wishes.load + PHASE.mul_f64(fastrand::f64()));
    stage.switch_over(running, active)?;
    stage.wait_until_active(standby)?;
    std::thread::sleep(AFTERMATH);
    let stopped = Instant::now();
    let users = load.stop()?;
    ensure!(stage.active_and_standby()?.0 == standby, "the VIP went back");

    let all = users.acknowledged();
    let (moved, lost) = check(stage, running, standby, tag, &all)?;
    Ok(Round::new("switchover", "planned", system)
        .with("new_sessions_a_second", users.pace(stopped).round())
        .with("users", all.len() as f64)
        .with("moved_meanwhile", f64::from(users.moved))
        .with("moved", moved as f64)
        .with("lost_entries", lost as f64)
        .with("failed_requests", f64::from(users.failed)))
}

/// How many of these users meet another server, and how many have no entry: each of these makes one.
fn check(stage: &Stage, running: &Running, node: &str, tag: u32, users: &[Acknowledged]) -> Result<(u64, u64)> {
    let before = stage.entries(running, node)?;
    let moved = count_moved(stage.client()?, USERS, tag, users)?;
    let after = stage.entries(running, node)?;
    Ok((moved, after.saturating_sub(before)))
}

/// Shows what the nodes said when something went wrong, and ends them.
pub fn end<T>(stage: &mut Stage, running: Running, played: Result<T>) -> Result<T> {
    if played.is_err() {
        stage.show_logs(&running);
    }
    stage.clear(Some(running))?;
    played
}
