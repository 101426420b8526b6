//! The pair under load, and waiting for things to happen to it while whoever watches stays informed and can end it.

use std::thread;
use std::time::{Duration, Instant};

use crate::config::scenario::ScenarioEvent;
use crate::lab::load::Load;
use crate::lab::pair::{PairState, judge};

use super::roles::Roles;
use super::site::{Blow, Job, Sighting, Site, mistaken};
use super::{Halt, Sight, Spectator};

/// How often a condition is looked at. Often enough that the end of a wait is not what takes the time, seldom enough
/// to leave the machine to the pair.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Time between two looks at the nodes.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often mending is tried again: a node may not be reachable yet.
const MEND_PAUSE: Duration = Duration::from_secs(1);

/// Time to mend what was broken when a drill ends early.
const MEND_TIMEOUT: Duration = Duration::from_secs(60);

/// What is played.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its title.
    pub name: String,
    /// The VIP whose holder is struck; the first one where none is named.
    pub vip: Option<String>,
    /// How long the pair is watched without any event.
    pub steady: Duration,
    /// How long no client may have failed before an event counts as over.
    pub quiet: Duration,
    /// How long a cause lasts after the pair has answered it.
    pub hold: Duration,
    /// Time for the pair to become whole, and its clients to be served, before the first event.
    pub start_timeout: Duration,
    /// In the order in which they are played.
    pub events: Vec<ScenarioEvent>,
}

/// Everything that is on during a drill.
pub struct Engine<'a, S: Site> {
    // Dropped before the pair: clients of a pair that is taken down would only count errors.
    /// Clients at work, once they are.
    pub load: Option<Load>,
    /// The pair.
    pub site: S,
    /// What is played.
    pub plan: Plan,
    /// Who watches.
    pub spectator: &'a mut dyn Spectator,
    pub(super) roles: [Roles; 2],
    pub(super) sightings: Option<[Sighting; 2]>,
    looked: Option<Instant>,
    /// When the current event began: what the spectator counts from.
    scene_began: Instant,
    scene: String,
    /// Whether the pair has been whole: it is the one that was meant.
    is_known: bool,
    /// What is broken at the moment.
    pub(super) wound: Option<Blow>,
}

impl<'a, S: Site> Engine<'a, S> {
    /// Nothing has happened yet.
    pub fn new(site: S, plan: Plan, spectator: &'a mut dyn Spectator) -> Self {
        Self {
            load: None,
            site,
            plan,
            spectator,
            roles: [Roles::default(), Roles::default()],
            sightings: None,
            looked: None,
            scene_began: Instant::now(),
            scene: "starting".to_owned(),
            is_known: false,
            wound: None,
        }
    }

    /// A new event begins.
    pub fn begin(&mut self, scene: &str) {
        scene.clone_into(&mut self.scene);
        self.scene_began = Instant::now();
    }

    /// Waits until `condition` gives a value.
    ///
    /// # Errors
    /// A signal, an error of `condition`, or that `what` did not come within `within`.
    pub fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&mut Self) -> Result<Option<T>, Halt>,
    ) -> Result<T, Halt> {
        let deadline = Instant::now() + within;
        loop {
            let late = Instant::now() >= deadline;
            self.pause()?;
            if let Some(value) = condition(self)? {
                return Ok(value);
            }
            if late {
                return Err(Halt::Failed(format!("waited {} ms in vain: {what}", within.as_millis())));
            }
        }
    }

    /// Lets a moment pass: looks at the nodes, shows what is due, and sees to signals.
    ///
    /// # Errors
    /// The signal.
    pub fn pause(&mut self) -> Result<(), Halt> {
        if let Some(signal) = self.spectator.signal() {
            return Err(Halt::Interrupted { signal });
        }
        self.look();
        thread::sleep(POLL_INTERVAL);
        Ok(())
    }

    fn look(&mut self) {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            let sightings = self.site.look();
            for (roles, sighting) in self.roles.iter_mut().zip(&sightings) {
                roles.saw(sighting, self.plan.vip.as_deref());
            }
            self.sightings = Some(sightings);
            self.looked = Some(Instant::now());
        }
        if self.spectator.is_due() {
            self.refresh();
        }
    }

    /// Has a job done.
    ///
    /// # Errors
    /// That it failed, or took longer than `within`.
    pub fn finish(&mut self, job: &Job, what: &str, within: Duration) -> Result<(), Halt> {
        self.until(what, within, |_| Ok(job.is_done()?.then_some(())))
    }

    /// The names of the nodes that hold the VIP.
    pub fn holders(&self) -> Vec<String> {
        let sightings = self.sightings.iter().flatten();
        let holds = self.site.nodes().into_iter().zip(sightings);
        let vip = self.plan.vip.as_deref();
        holds.filter(|(_, sighting)| sighting.holds(vip)).map(|(name, _)| name).collect()
    }

    /// Whether the node of this number holds the VIP.
    pub(super) fn holds(&self, node: usize) -> bool {
        let sighting = self.sightings.as_ref().and_then(|sightings| sightings.get(node));
        sighting.is_some_and(|sighting| sighting.holds(self.plan.vip.as_deref()))
    }

    /// Waits until the pair could lose a node, and gives the number of the active one.
    ///
    /// # Errors
    /// As [`Engine::until`]; it says what was still wrong.
    pub fn wait_until_whole(&mut self, within: Duration) -> Result<usize, Halt> {
        let began = Instant::now();
        let mut last = "nobody has been asked".to_owned();
        let waited = self.until("", within, |engine| {
            engine.site.inspect()?;
            if let Some(reason) = engine.mistaken() {
                if !engine.is_known {
                    return Err(Halt::Mistaken(reason));
                }
                last = reason;
                return Ok(None);
            }
            // What was seen before says nothing about now.
            if !engine.sightings.iter().flatten().all(|sighting| sighting.at >= began) {
                if let Some((name, why)) = engine.unreachable() {
                    last = format!("{name} does not answer{why}");
                }
                return Ok(None);
            }
            match engine.state() {
                PairState::Healthy { active } => {
                    engine.is_known = true;
                    engine.refresh();
                    Ok(engine.site.nodes().iter().position(|node| *node == active))
                }
                PairState::Unhealthy { reason } => {
                    last = reason;
                    Ok(None)
                }
            }
        });
        waited.map_err(|halt| match halt {
            Halt::Failed(error) if error.starts_with("waited ") => {
                Halt::Failed(format!("waited {} ms in vain: the pair to be whole, but {last}", within.as_millis()))
            }
            other => other,
        })
    }

    fn mistaken(&self) -> Option<String> {
        mistaken(&self.site.nodes(), self.plan.vip.as_deref(), self.sightings.as_ref()?)
    }

    fn state(&self) -> PairState {
        let nodes = self.site.nodes();
        let Some([first, second]) = &self.sightings else {
            return PairState::Unhealthy { reason: "nobody has been asked".to_owned() };
        };
        if let Some((name, why)) = self.unreachable() {
            return PairState::Unhealthy { reason: format!("{name} does not answer{why}") };
        }
        let statuses = [first.status.clone(), second.status.clone()];
        judge(&nodes, self.plan.vip.as_deref(), &self.holders(), &statuses)
    }

    /// A node that does not answer, and why.
    fn unreachable(&self) -> Option<(String, String)> {
        let nodes = self.site.nodes();
        let mut silent = nodes.into_iter().zip(self.sightings.iter().flatten());
        let (name, sighting) = silent.find(|(_, sighting)| sighting.status.is_none())?;
        Some((name, sighting.trouble.as_ref().map_or_else(String::new, |why| format!(": {why}"))))
    }

    /// Whether a server is up for both nodes, as far as they know one of that name.
    pub(super) fn is_server_up(&self, name: &str) -> bool {
        let statuses = self.sightings.iter().flatten().filter_map(|sighting| sighting.status.as_ref());
        let mut servers = statuses.flat_map(|status| &status.pools).flat_map(|pool| &pool.servers);
        servers.all(|server| server.name != name || server.up)
    }

    /// Whether all clients have been content for that long.
    pub fn is_quiet(&self, quiet: Duration) -> bool {
        self.load.as_ref().is_some_and(|load| load.is_quiet(quiet))
    }

    /// Whether a connection made after `since` has been answered.
    pub fn answered_since(&self, since: Instant) -> bool {
        self.load.as_ref().is_some_and(|load| load.answered_since(since))
    }

    /// Mends what is broken, whatever asks to end: tries again until it is done or a minute has passed.
    pub fn mend_whatever_is_broken(&mut self) {
        let Some(blow) = self.wound.take() else { return };
        self.spectator.say(&format!("mending what was done ({})", blow.story()));
        let deadline = Instant::now() + MEND_TIMEOUT;
        loop {
            match self.site.mend(&blow).and_then(|job| wait_for_job(&job, deadline)) {
                Ok(()) => return,
                Err(Halt::Failed(reason)) if Instant::now() >= deadline => {
                    self.spectator.say(&format!("NOT MENDED: {}: {reason}. Mend it by hand", blow.story()));
                    return;
                }
                Err(_) => thread::sleep(MEND_PAUSE),
            }
        }
    }

    /// Shows how things are at this moment, so that what is said next fits what is seen.
    pub(super) fn refresh(&mut self) {
        let now = Instant::now();
        let last_second = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let status = |sighting: &Sighting| sighting.status.clone();
        let sight = Sight {
            scene: self.scene.clone(),
            statuses: self.sightings.as_ref().map_or([None, None], |sightings| sightings.each_ref().map(status)),
            requests_a_second: self.load.as_ref().map(|load| load.window(last_second, now).requests_a_second()),
            failed: self.load.as_ref().map_or(0, |load| load.window(self.scene_began, now).failed.total()),
        };
        self.spectator.show(&sight);
    }
}

fn wait_for_job(job: &Job, deadline: Instant) -> Result<(), Halt> {
    while !job.is_done()? {
        if Instant::now() >= deadline {
            return Err(Halt::Failed("it takes too long".to_owned()));
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}
