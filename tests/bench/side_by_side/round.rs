//! One round: a pair is started, its active node is lost, and what clients missed is read off the prober's ledger.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use baton::lab::load::Load;
use baton::lab::pair::{NODES, Pair, SERVERS, VIP};
use baton::lab::process::ProcessHandle;
use baton::lab::wait_for;
use rustix::process::Signal;

use crate::capture::Capture;
use crate::event::Event;
use crate::keepalived::{KeepalivedPair, ProcessEvents, Spec, haproxy_configuration};
use crate::report::Round;

/// Time for a pair to form, or for service to come back, over and above some intervals.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing may have failed before the event. The longest gap in it is the noise floor.
const QUIET_TIME: Duration = Duration::from_millis(500);

/// Time for clients to be served in peace: after an outage their machine asks for the VIP once a second.
const QUIET_PATIENCE: Duration = Duration::from_secs(20);

/// The event comes at any time of an interval, and of the second between two checks of a script.
const PHASE: Duration = Duration::from_secs(1);

/// How often it is asked who holds the VIP. Seldom, since the question costs time on the cores that are measured.
const HOLDER_POLL: Duration = Duration::from_millis(25);

/// After three intervals and this, whatever was going on is over.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Up to three intervals and this after the other node took the VIP, a gap belongs to the event.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Time for a command that hands over.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// Whose pair it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum System {
    Baton,
    Keepalived,
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            System::Baton => "baton",
            System::Keepalived => "keepalived",
        }
    }
}

/// The network, which both systems use by turns, the prober in it, and Baton's nodes.
pub struct Stage {
    pub pair: Pair,
    pub load: Load,
    pub program: PathBuf,
    pub interval: Duration,
    pub process_events: Option<ProcessEvents>,
    /// Where a capture of each round goes, if it is wanted.
    pub captures: Option<PathBuf>,
    /// Rounds so far, for names of directories.
    pub played: usize,
}

/// A pair at work.
enum Running {
    Baton(Vec<ProcessHandle>),
    Keepalived(KeepalivedPair),
}

impl Stage {
    /// Plays `event` once on a fresh pair of `system`, and leaves the stage empty.
    pub fn play(&mut self, system: System, event: Event) -> Result<Round> {
        self.played += 1;
        let mut running = match self.start(system) {
            Ok(running) => running,
            Err(error) => {
                self.clear(None)?;
                return Err(error);
            }
        };
        let name = format!("{}ms-{event}-{}-{}", self.interval.as_millis(), system.name(), self.played);
        let capture = match &self.captures {
            Some(directory) => Some(Capture::start(self.pair.topology(), &directory.join(name))?),
            None => None,
        };
        let played = self.play_on(&mut running, system, event, capture.as_ref());
        drop(capture);
        if played.is_err() {
            self.show_logs(&running);
        }
        self.clear(Some(running))?;
        played
    }

    fn start(&mut self, system: System) -> Result<Running> {
        match system {
            System::Baton => {
                self.pair.start()?;
                self.pair.wait_until_healthy(PATIENCE + self.interval * 5)?;
                self.wait_for_checks()?;
                Ok(Running::Baton(self.pair.nodes().iter().flat_map(|node| node.processes()).collect()))
            }
            System::Keepalived => {
                let spec = Spec {
                    directory: self.pair.directory().join(format!("keepalived-{}", self.played)),
                    advert_interval: self.interval,
                    process_events: self.process_events.clone(),
                    keepalived: "",
                    haproxy: haproxy_configuration(),
                };
                Ok(Running::Keepalived(KeepalivedPair::start(self.pair.topology(), &spec)?))
            }
        }
    }

    /// Waits until both nodes have asked their servers and found them good.
    fn wait_for_checks(&self) -> Result<()> {
        let is_good = || {
            self.pair.statuses().iter().all(|status| {
                let servers = status.iter().flat_map(|status| &status.pools).flat_map(|pool| &pool.servers);
                servers.filter(|server| server.up && server.last_check != "not checked").count() == SERVERS.len()
            })
        };
        Ok(wait_for("both nodes to reach their servers", PATIENCE, || is_good().then_some(()))?)
    }

    fn play_on(
        &mut self,
        running: &mut Running,
        system: System,
        event: Event,
        capture: Option<&Capture>,
    ) -> Result<Round> {
        self.pair.wait_until_serving(PATIENCE)?;
        let load = &self.load;
        wait_for("clients to be served in peace", QUIET_PATIENCE, || load.is_quiet(QUIET_TIME).then_some(()))?;
        // Keepalived may have two while it starts on a busy machine.
        let active = wait_for("the VIP to be on one node alone", PATIENCE, || match self.pair.holders() {
            Ok(holders) => holders.as_slice().first().filter(|_| holders.len() == 1).cloned().map(Ok),
            Err(error) => Some(Err(error)),
        })??;
        let active = NODES.iter().find(|node| **node == active).context("a node of the pair")?;
        let standby = NODES.iter().find(|node| *node != active).context("the other node")?;
        std::thread::sleep(PHASE.mul_f64(fastrand::f64()));

        let (from, struck_at) = (Instant::now(), SystemTime::now());
        let noise = self.load.window(from - QUIET_TIME, from).outage.length;
        let mut command = self.strike(running, event, active)?;
        let moved = self.wait_for_move(standby)?;
        self.settle();
        let to = Instant::now();
        // What comes long after the move is told apart: on a machine that does other things too, it is mostly theirs.
        let until = moved.map_or(to, |moved| to.min(moved + self.interval * 3 + AFTERMATH));
        let (window, later) = (self.load.window(from, until), self.load.window(until, to));
        ensure!(window.complete, "the prober's ledger is too short for this round");
        if let Some(capture) = capture {
            capture.write_probes(struck_at, from, &self.load.probes(from, to))?;
        }
        let answered = moved.is_some_and(|moved| self.load.answered_since(moved.min(to)));
        if let Some(command) = &mut command {
            expect_success(command)?;
        }
        let held_before_repair = (event != Event::BlackHole).then(|| self.holders_but(event, active)).transpose()?;
        let held_after_repair = self.repair_and_count(event, active)?;
        let holders_after = held_before_repair.into_iter().chain(held_after_repair).max().unwrap_or(0);
        Ok(Round {
            event: event.name().to_owned(),
            interval_ms: u64::try_from(self.interval.as_millis())?,
            system: system.name().to_owned(),
            outage_us: u64::try_from(window.outage.length.as_micros())?,
            later_us: u64::try_from(later.outage.length.as_micros())?,
            noise_us: u64::try_from(noise.as_micros())?,
            moved: answered,
            holders_after,
        })
    }

    fn strike(&mut self, running: &mut Running, event: Event, active: &str) -> Result<Option<Child>> {
        match event {
            Event::LinkCutAtSwitch => self.pair.topology().cut_cable(active)?,
            Event::LinkCutAtNode => self.pair.topology().take_interface_down(active)?,
            Event::BlackHole => self.pair.topology().isolate(active)?,
            Event::NodeGone => {
                self.pair.topology().cut_cable(active)?;
                match running {
                    Running::Baton(_) => self.pair.node_mut(active)?.kill_all()?,
                    Running::Keepalived(pair) => pair.node_mut(active)?.kill_all(),
                }
            }
            Event::WorkerKilled
            | Event::WorkerHung
            | Event::GuardKilled
            | Event::GuardHung
            | Event::Stopped
            | Event::Switchover => match running {
                Running::Baton(_) => return self.strike_baton(event, active),
                Running::Keepalived(pair) => strike_keepalived(pair, event, active)?,
            },
        }
        Ok(None)
    }

    fn strike_baton(&mut self, event: Event, active: &str) -> Result<Option<Child>> {
        let node = self.pair.node_mut(active)?;
        let guard = || ProcessHandle::open(node.guard_pid().context("the guard runs")?).map_err(anyhow::Error::from);
        match event {
            Event::WorkerKilled => node.kill_worker()?,
            Event::WorkerHung => node.hang_worker()?,
            Event::GuardKilled => guard()?.signal(Signal::KILL)?,
            Event::GuardHung => guard()?.signal(Signal::STOP)?,
            Event::Stopped => node.ask_to_stop()?,
            Event::Switchover => {
                let mut command = Command::new(&self.program);
                command.arg("switchover").arg("--runtime-dir").arg(node.runtime_dir());
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
                return Ok(Some(command.spawn()?));
            }
            Event::NodeGone | Event::LinkCutAtSwitch | Event::LinkCutAtNode | Event::BlackHole => {
                bail!("{event} is done to the network")
            }
        }
        Ok(None)
    }

    /// When the other node was seen to hold the VIP; `None` when it does not come to that.
    fn wait_for_move(&self, standby: &str) -> Result<Option<Instant>> {
        let deadline = Instant::now() + self.interval * 5 + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.pair.topology().carries(standby, VIP)? {
                return Ok(Some(Instant::now()));
            }
            std::thread::sleep(HOLDER_POLL);
        }
        Ok(None)
    }

    fn settle(&self) {
        std::thread::sleep(self.interval * 3 + SETTLE_TIME);
    }

    /// How many nodes hold the VIP, by the kernel's word. A node without power holds nothing, whatever its namespace says.
    fn holders_but(&self, event: Event, active: &str) -> Result<usize> {
        let is_there = |node: &&String| event != Event::NodeGone || node.as_str() != active;
        Ok(self.pair.holders()?.iter().filter(is_there).count())
    }

    /// Repairs the network, if it was that, and counts once more.
    fn repair_and_count(&self, event: Event, active: &str) -> Result<Option<usize>> {
        let topology = self.pair.topology();
        match event {
            Event::LinkCutAtSwitch => topology.restore_cable(active)?,
            Event::LinkCutAtNode => topology.take_interface_up(active)?,
            Event::BlackHole => topology.rejoin(active)?,
            _ => return Ok(None),
        }
        topology.wait_until_linked(active)?;
        self.settle();
        self.holders_but(event, active).map(Some)
    }

    /// Ends all of a pair, and leaves the network as it was before.
    fn clear(&mut self, running: Option<Running>) -> Result<()> {
        for node in NODES {
            self.pair.node_mut(node)?.kill_all()?;
        }
        match running {
            // Those of a guard that was killed, if one is left.
            Some(Running::Baton(processes)) => processes.iter().for_each(|process| {
                let _ = process.signal(Signal::KILL);
                process.reap(PATIENCE);
            }),
            Some(Running::Keepalived(mut pair)) => pair.kill_all(),
            None => {}
        }
        let topology = self.pair.topology();
        for node in NODES {
            // Each of them does nothing to a network that is whole.
            topology.rejoin(node)?;
            topology.restore_cable(node)?;
            topology.take_interface_up(node)?;
            topology.remove_address(node, VIP)?;
        }
        NODES.iter().try_for_each(|node| topology.wait_until_linked(node))?;
        Ok(())
    }

    fn show_logs(&self, running: &Running) {
        match running {
            Running::Baton(_) => self.pair.nodes().iter().for_each(|node| {
                eprintln!("--- the last lines of {}", node.log().display());
                node.log_tail(30).iter().for_each(|line| eprintln!("{line}"));
            }),
            Running::Keepalived(pair) => pair.show_logs(),
        }
    }
}

fn strike_keepalived(pair: &mut KeepalivedPair, event: Event, active: &str) -> Result<()> {
    let node = pair.node_mut(active)?;
    match event {
        Event::WorkerKilled => node.signal_haproxy(Signal::KILL),
        Event::WorkerHung => node.signal_haproxy(Signal::STOP),
        Event::GuardKilled => node.kill_vrrp(),
        Event::GuardHung => node.hang(),
        Event::Stopped => node.terminate(),
        Event::Switchover => node.lower_priority(),
        Event::NodeGone | Event::LinkCutAtSwitch | Event::LinkCutAtNode | Event::BlackHole => {
            bail!("{event} is done to the network")
        }
    }
}

/// Waits for a command that hands over; one that says it did not makes no round.
fn expect_success(command: &mut Child) -> Result<()> {
    let status = wait_for("the switchover command to end", COMMAND_TIMEOUT, || command.try_wait().ok()?)?;
    ensure!(status.success(), "the switchover command failed: {status}");
    Ok(())
}
