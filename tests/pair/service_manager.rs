//! What a service manager hears over its notification socket (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use baton::lab::pair::NODES;
use baton::lab::process::{Process, ProcessHandle};
use baton::status::Role;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, shown, until};

/// How often the watchdog has to be fed at least: the guard feeds it three times as often.
const WATCHDOG: Duration = Duration::from_millis(1500);

/// How often a worker is tried to be stopped in time.
const HOLD_ATTEMPTS: usize = 10;

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("ready_is_said_once_the_node_serves_and_takes_part", ready_is_said_once_the_node_serves),
        Plan::usual().trial("status_names_the_role_and_follows_it", status_names_the_role_and_follows_it),
        Plan::usual().trial("watchdog_is_fed_while_the_heartbeat_lives", watchdog_is_fed_while_the_heartbeat_lives),
        Plan::usual().trial("stopping_is_said_before_the_end", stopping_is_said_before_the_end),
    ]
}

/// A node under a service manager of our own.
struct Service {
    guard: Process,
    messages: Receiver<(Instant, String)>,
    heard: Vec<(Instant, String)>,
}

impl Service {
    fn start(scene: &Scene, name: &str) -> anyhow::Result<Self> {
        let path = scene.pair.directory().join(format!("{name}.notify"));
        // Left by a node of the same name in the same test.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        let (sender, messages) = channel();
        // Ends with the test: the read fails or finds nobody to tell, within a second of the service's end.
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match socket.recv(&mut buffer) {
                    Ok(len) => {
                        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                        for line in text.lines() {
                            if sender.send((Instant::now(), line.to_owned())).is_err() {
                                return;
                            }
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        if sender.send((Instant::now(), String::new())).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        });
        let environment =
            [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())];
        Ok(Self { guard: scene.start_with(name, &environment)?, messages, heard: Vec::new() })
    }

    /// Everything heard so far that is not silence.
    fn heard(&mut self) -> &[(Instant, String)] {
        self.heard.extend(self.messages.try_iter().filter(|(_, line)| !line.is_empty()));
        &self.heard
    }

    fn has_heard(&mut self, line: &str) -> bool {
        self.heard().iter().any(|(_, heard)| heard == line)
    }

    /// Waits for a line, and gives when it came.
    fn wait(&mut self, line: &str) -> anyhow::Result<Instant> {
        let found =
            until(line, PATIENCE, || Ok(self.heard().iter().find(|(_, heard)| heard == line).map(|(at, _)| *at)));
        found.with_context(|| format!("heard only {:?}", self.heard))
    }
}

/// Held back by a worker that does not serve yet, said as soon as it does.
fn ready_is_said_once_the_node_serves(scene: &mut Scene) -> Outcome {
    let [node, _] = NODES;
    let (mut service, worker) = start_with_worker_held_back(scene, node)?;
    let waits = || {
        let status = scene.status(node)?;
        Ok(status.worker.state == "starting" && status.vips[0].role == Role::Unfit && !service.has_heard("READY=1"))
    };
    scene.holds_for("the guard waits for its worker", Duration::from_millis(700), waits)?;
    worker.signal(Signal::CONT)?;
    service.wait("READY=1")?;
    let status = scene.status(node)?;
    assert_eq!(status.worker.state, "running");
    assert_ne!(status.vips[0].role, Role::Unfit);
    service.wait("STATUS=web: active")?;
    assert_eq!(service.heard().iter().filter(|(_, line)| line == "READY=1").count(), 1);
    Ok(())
}

/// Stops a new worker before it serves, which takes it some tens of milliseconds.
fn start_with_worker_held_back(scene: &Scene, node: &str) -> anyhow::Result<(Service, ProcessHandle)> {
    for _ in 0..HOLD_ATTEMPTS {
        let mut service = Service::start(scene, node)?;
        // By what it runs: one that is stopped before that holds up whoever started it.
        let is_worker = |child: &ProcessHandle| shown(child.pid(), "cmdline").starts_with("baton worker ");
        let worker = until("the guard to start a worker", PATIENCE, || {
            Ok(service.guard.children().into_iter().find(|child| is_worker(child)))
        })?;
        worker.signal(Signal::STOP)?;
        if until("a status", PATIENCE, || Ok(Some(scene.status(node)?)))?.worker.state == "starting" {
            return Ok((service, worker));
        }
        worker.signal(Signal::CONT)?;
        service.guard.signal(Signal::TERM)?;
        service.guard.wait(PATIENCE)?;
    }
    bail!("the worker served each time before it could be stopped")
}

fn status_names_the_role_and_follows_it(scene: &mut Scene) -> Outcome {
    let [first, second] = NODES;
    let mut services = [Service::start(scene, first)?, Service::start(scene, second)?];
    let (active, _) = scene.formed()?;
    let of_active = usize::from(active == second);
    services[of_active].wait("STATUS=web: active")?;
    services[1 - of_active].wait("STATUS=web: standby")?;
    assert!(!services[1 - of_active].has_heard("STATUS=web: active"));
    scene.node(active).worker()?.signal(Signal::KILL)?;
    services[1 - of_active].wait("STATUS=web: active")?;
    services[of_active].wait("STATUS=web: unfit")?;
    Ok(())
}

fn watchdog_is_fed_while_the_heartbeat_lives(scene: &mut Scene) -> Outcome {
    let [node, _] = NODES;
    let mut service = Service::start(scene, node)?;
    service.wait("READY=1")?;
    let feedings = |service: &mut Service| -> Vec<Instant> {
        service.heard().iter().filter(|(_, line)| line == "WATCHDOG=1").map(|(at, _)| *at).collect()
    };
    let fed = until("the watchdog to be fed six times", PATIENCE, || {
        Ok(Some(feedings(&mut service)).filter(|fed| fed.len() >= 6))
    })?;
    for pair in fed.windows(2) {
        assert!(pair[1] - pair[0] < WATCHDOG, "the watchdog would have bitten");
    }
    Ok(())
}

fn stopping_is_said_before_the_end(scene: &mut Scene) -> Outcome {
    let [node, _] = NODES;
    let mut service = Service::start(scene, node)?;
    service.wait("STATUS=web: active")?;
    service.guard.signal(Signal::TERM)?;
    service.wait("STOPPING=1")?;
    let status = service.guard.wait(PATIENCE)?;
    if status.code() != Some(0) {
        bail!("{status}");
    }
    assert!(!scene.holds(node)?);
    Ok(())
}
