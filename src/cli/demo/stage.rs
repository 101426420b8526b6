//! The pair under load, and waiting for things to happen to it while the screen stays alive and Ctrl-C works.

use std::thread;
use std::time::{Duration, Instant};

use crate::lab::LabError;
use crate::lab::load::{Load, ask_once};
use crate::lab::namespace::Namespace;
use crate::lab::pair::{Pair, PairState, TARGET};

use super::interrupt::Interrupt;
use super::report::Figures;
use super::screen::{Screen, Sight};

/// How often a condition is looked at. Often enough that the end of a wait is not what takes the time, seldom enough
/// to leave the machine to the pair.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Adverts that are missed before a node takes over, and one more for the wait to begin at a bad time.
const ADVERTS_MISSED_MAX: u32 = 4;

/// Time for one request while the pair starts.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(300);

/// Why the demo did not come to its end.
#[derive(Debug)]
pub(super) enum Halt {
    /// A signal asked for it.
    Interrupted {
        /// Its number.
        signal: u8,
    },
    /// Something did not happen that should have.
    Failed(LabError),
}

impl From<LabError> for Halt {
    fn from(error: LabError) -> Self {
        Halt::Failed(error)
    }
}

/// Everything that is on during the demo.
#[derive(Debug)]
pub(super) struct Stage {
    // Dropped before the pair: clients of a pair that is taken down would only count errors.
    pub(super) load: Option<Load>,
    pub(super) pair: Pair,
    pub(super) screen: Screen,
    interrupt: Interrupt,
    advert_interval: Duration,
    /// When the current event began: what the screen counts from.
    scene_began: Instant,
    scene: String,
}

impl Stage {
    pub(super) fn new(pair: Pair, interrupt: Interrupt, advert_interval: Duration) -> Self {
        let screen = Screen::new();
        Self {
            load: None,
            pair,
            screen,
            interrupt,
            advert_interval,
            scene_began: Instant::now(),
            scene: "starting".to_owned(),
        }
    }

    /// A new event begins.
    pub(super) fn begin(&mut self, scene: &str) {
        scene.clone_into(&mut self.scene);
        self.scene_began = Instant::now();
    }

    /// Says something, above the progress line.
    pub(super) fn say(&mut self, text: &str) {
        self.screen.say(text);
    }

    /// Waits until `condition` gives a value: for `within`, and for as long as a pair with this advert interval takes
    /// to miss its adverts.
    ///
    /// # Errors
    /// A signal, an error of `condition`, or [`LabError::TimedOut`] with `what`.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&mut Stage) -> Result<Option<T>, LabError>,
    ) -> Result<T, Halt> {
        let within = within + self.advert_interval * ADVERTS_MISSED_MAX;
        let deadline = Instant::now() + within;
        loop {
            let late = Instant::now() >= deadline;
            self.pause()?;
            if let Some(value) = condition(self)? {
                return Ok(value);
            }
            if late {
                return Err(LabError::TimedOut { what: what.to_owned(), within }.into());
            }
        }
    }

    /// Lets a moment pass: shows what is due, and sees to signals.
    ///
    /// # Errors
    /// The signal.
    pub(super) fn pause(&mut self) -> Result<(), Halt> {
        if let Some(signal) = self.interrupt.signal() {
            return Err(Halt::Interrupted { signal });
        }
        if self.screen.is_due() {
            self.refresh();
        }
        thread::sleep(POLL_INTERVAL);
        Ok(())
    }

    /// Waits until the pair could lose a node, and gives the name of the active one.
    ///
    /// # Errors
    /// As [`Stage::until`]; the time-out says what was still wrong.
    pub(super) fn wait_until_healthy(&mut self, within: Duration) -> Result<String, Halt> {
        let mut last = String::new();
        let waited = self.until("", within, |stage| {
            if let Some((name, status)) = stage.pair.first_ended()? {
                let state = format!("ended ({status}) without being asked to");
                return Err(LabError::Process { name, state });
            }
            Ok(match stage.pair.state()? {
                PairState::Healthy { active } => {
                    stage.refresh();
                    Some(active)
                }
                PairState::Unhealthy { reason } => {
                    last = reason;
                    None
                }
            })
        });
        waited.map_err(|halt| match halt {
            Halt::Failed(LabError::TimedOut { within, .. }) => {
                LabError::TimedOut { what: format!("the pair to be healthy, but {last}"), within }.into()
            }
            other => other,
        })
    }

    /// Whether all clients have been content for that long.
    pub(super) fn is_quiet(&self, quiet: Duration) -> bool {
        self.load.as_ref().is_some_and(|load| load.is_quiet(quiet))
    }

    /// Whether a connection made after `since` has been answered.
    pub(super) fn answered_since(&self, since: Instant) -> bool {
        self.load.as_ref().is_some_and(|load| load.answered_since(since))
    }

    /// What clients saw between two times.
    pub(super) fn figures(&self, from: Instant, to: Instant) -> Figures {
        self.load.as_ref().map(|load| Figures::of(&load.window(from, to))).unwrap_or_default()
    }

    /// Shows how things are at this moment, so that what is said next fits what is seen.
    fn refresh(&mut self) {
        let sight = self.look();
        self.screen.show(&sight);
    }

    fn look(&self) -> Sight {
        let now = Instant::now();
        let last_second = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        Sight {
            scene: self.scene.clone(),
            statuses: self.pair.statuses(),
            requests_a_second: self.load.as_ref().map(|load| load.window(last_second, now).requests_a_second()),
            failed: self.load.as_ref().map_or(0, |load| load.window(self.scene_began, now).failed.total()),
        }
    }
}

/// Whether a request through the VIP is answered.
pub(super) fn is_answered(client: &Namespace) -> bool {
    matches!(ask_once(client, TARGET, REQUEST_TIMEOUT), Ok(Ok(_)))
}
