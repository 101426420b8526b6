//! A drill from its beginning to its report: the pair is watched without an event, then struck by one after the other.

use std::time::{Duration, Instant};

use crate::config::scenario::{EventKind, ExpectedRole, ScenarioEvent};

use super::Halt;
use super::engine::Engine;
use super::outcome::{EventReport, Figures, Report, Verdict, milliseconds};
use super::site::{Blow, Site};
use super::timeline::{Moments, Timeline};

/// Time shown before an event.
const LEAD: Duration = Duration::from_secs(2);

impl<S: Site> Engine<'_, S> {
    /// Plays the whole plan, and writes down in `report` what came of it. The load is started by `start_load` once the pair is
    /// whole. What is broken is mended, however it ends; a failed event ends it early, and so does a signal, once there is
    /// something to report.
    ///
    /// # Errors
    /// A signal before the first event; or that the pair was not fit for a drill to begin with. The report says so too.
    pub fn play(
        &mut self,
        report: &mut Report,
        start_load: impl FnOnce(&mut Self) -> Result<(), Halt>,
    ) -> Result<(), Halt> {
        let began = Instant::now();
        let played = self.try_play(report, start_load);
        report.duration_ms = milliseconds(began.elapsed());
        played.inspect_err(|halt| report.halted(halt))
    }

    fn try_play(
        &mut self,
        report: &mut Report,
        start_load: impl FnOnce(&mut Self) -> Result<(), Halt>,
    ) -> Result<(), Halt> {
        let whole = self.wait_until_whole(self.plan.start_timeout);
        let load = std::mem::take(&mut report.load);
        *report = Report { load, ..Report::new(&self.plan, self.sightings.as_ref(), self.site.nodes()) };
        let active = whole?;
        let nodes = self.site.nodes();
        let active = nodes.get(active).cloned().unwrap_or_default();
        self.spectator.say(&format!("{active} is active and serves; load starts"));
        start_load(self)?;
        report.steady = Some(self.watch_steady()?);
        for (index, event) in self.plan.events.clone().iter().enumerate() {
            let played = self.play_event(index + 1, event);
            self.mend_whatever_is_broken();
            let is_failed = matches!(played.verdict, Verdict::Failed { .. });
            report.events.push(played);
            report.interrupted = self.spectator.signal();
            if is_failed || report.interrupted.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Watches the pair while nothing happens.
    fn watch_steady(&mut self) -> Result<Figures, Halt> {
        self.begin("no event");
        let (quiet, steady, timeout) = (self.plan.quiet, self.plan.steady, self.plan.start_timeout);
        let why = "clients to be served without a failure, while nothing has been done to the pair";
        self.until(why, timeout + quiet, |engine| Ok(engine.is_quiet(quiet).then_some(())))?;
        let from = Instant::now();
        self.until("the time to pass", steady * 2, |_| Ok((from.elapsed() >= steady).then_some(())))?;
        Ok(self.figures(from, Instant::now()))
    }

    fn figures(&self, from: Instant, to: Instant) -> Figures {
        self.load.as_ref().map(|load| Figures::of(&load.window(from, to))).unwrap_or_default()
    }

    /// Plays one event on a whole pair and brings the pair back to health. What goes wrong is in the report.
    fn play_event(&mut self, number: usize, event: &ScenarioEvent) -> EventReport {
        let mut report = EventReport::new(event);
        let mut moments = Moments::new(Instant::now());
        let played = self.try_event(number, event, &mut report, &mut moments);
        let to = Instant::now();
        if let Some(load) = &self.load {
            let from = moments.struck.checked_sub(LEAD).unwrap_or(moments.struck);
            let window = load.window(moments.struck, to);
            report.figures = Some(Figures::of(&window));
            let roles = self.roles.each_ref().map(|roles| roles.between(from, to));
            let timeline = Timeline::draw(from, to, &moments, &load.trace(from, to), window.outage);
            report.timeline = Some(timeline.with_roles(self.site.nodes(), &roles, &moments));
        }
        match played {
            Ok(verdict) => report.verdict = verdict,
            Err(Halt::Mistaken(reason) | Halt::Failed(reason)) => report.verdict = Verdict::Failed { reason },
            Err(Halt::Interrupted { signal }) => {
                report.verdict = Verdict::Failed { reason: format!("interrupted by signal {signal}") };
            }
        }
        report.held_by = self.holders();
        report.judge(event);
        let sentence = report.sentence();
        self.spectator.say(&format!("event {number} over: {sentence}"));
        report
    }

    fn try_event(
        &mut self,
        number: usize,
        event: &ScenarioEvent,
        report: &mut EventReport,
        moments: &mut Moments,
    ) -> Result<Verdict, Halt> {
        let struck = self.wait_until_whole(event.timeout)?;
        let nodes = self.site.nodes();
        let node_name = nodes.get(struck).cloned().unwrap_or_default();
        let blow =
            Blow { kind: event.kind, node: struck, name: event.server.clone().unwrap_or_else(|| node_name.clone()) };
        self.begin(&format!("{number}/{} {}", self.plan.events.len(), event.kind.title()));
        report.story = blow.story();
        self.spectator.say(&format!("event {number}: {}", report.story));
        moments.struck = Instant::now();
        match event.kind {
            EventKind::Reload | EventKind::Upgrade => self.roll(&blow, event)?,
            _ => self.strike(&blow, event)?,
        }
        if event.outcome == ExpectedRole::Moves {
            self.wait_until_moved(&blow, &node_name, event, report, moments)?;
        }
        self.until(end_awaited(event.kind), event.timeout, |engine| Ok(engine.site.is_over(&blow)?.then_some(())))?;
        self.mend(&blow, event, moments)?;
        let whole = self.wait_until_whole(event.timeout)?;
        if event.kind == EventKind::ServerKilled {
            let what = format!("the server {} to be up for both nodes", blow.name);
            let up = |engine: &mut Self| Ok(engine.is_server_up(&blow.name).then_some(()));
            self.until(&what, event.timeout, up)?;
        }
        let since = moments.mended.unwrap_or(moments.struck);
        moments.whole = Some(Instant::now());
        report.recovery_ms = Some(milliseconds(since.elapsed()));
        let quiet = self.plan.quiet;
        let what = "clients to be served without a failure again";
        self.until(what, event.timeout + quiet, |engine| Ok(engine.is_quiet(quiet).then_some(())))?;
        let (from, now) = (node_name, nodes.get(whole).cloned().unwrap_or_default());
        let other = nodes.get(1 - struck.min(1)).cloned().unwrap_or_default();
        let has_moved =
            self.roles.get(1 - struck.min(1)).and_then(|roles| roles.active_after(moments.struck)).is_some();
        Ok(match has_moved || whole != struck {
            true if whole == struck => Verdict::MovedBack { from, to: other },
            true => Verdict::Moved { from, to: now },
            false => Verdict::DidNotMove,
        })
    }

    fn strike(&mut self, blow: &Blow, event: &ScenarioEvent) -> Result<(), Halt> {
        self.wound = event.kind.is_mended().then(|| blow.clone());
        let job = self.site.strike(blow, event.timeout)?;
        self.finish(&job, &format!("the end of what was begun: {}", blow.story()), event.timeout)
    }

    /// What is done to one node after the other, the standby first.
    fn roll(&mut self, blow: &Blow, event: &ScenarioEvent) -> Result<(), Halt> {
        let nodes = self.site.nodes();
        for node in [1 - blow.node.min(1), blow.node] {
            let name = nodes.get(node).cloned().unwrap_or_default();
            let what = format!("the end of {} on {name}", event.kind.title());
            let job = self.site.strike(&Blow { node, name, ..blow.clone() }, event.timeout)?;
            self.finish(&job, &what, event.timeout)?;
            self.wait_until_whole(event.timeout)?;
        }
        Ok(())
    }

    fn wait_until_moved(
        &mut self,
        blow: &Blow,
        struck: &str,
        event: &ScenarioEvent,
        report: &mut EventReport,
        moments: &mut Moments,
    ) -> Result<(), Halt> {
        let other = 1 - blow.node.min(1);
        // The lapse that matters is in the ledger of the clients; this only waits for it to be over.
        let what = format!("the VIP to leave {struck} and the other node to hold it");
        self.until(&what, event.timeout, |engine| Ok(engine.holds(other).then_some(())))?;
        let now = Instant::now();
        let role_changed = self.roles.get(other).and_then(|roles| roles.active_after(moments.struck));
        let moved = role_changed.map_or(now, |changed| changed.min(now));
        moments.moved = Some(moved);
        report.moved_ms = Some(milliseconds(moved.saturating_duration_since(moments.struck)));
        self.until("service to come back", event.timeout, |engine| Ok(engine.answered_since(now).then_some(())))?;
        if matches!(event.kind, EventKind::LinkCut | EventKind::WorkerHung) {
            let what = "the lost node to give the VIP up";
            self.until(what, event.timeout, |engine| Ok((!engine.holds(blow.node)).then_some(())))?;
        }
        Ok(())
    }

    /// Takes the cause away, after it has lasted as long as it should. A node that cannot be reached yet is tried again.
    fn mend(&mut self, blow: &Blow, event: &ScenarioEvent, moments: &mut Moments) -> Result<(), Halt> {
        if !event.kind.is_mended() {
            return Ok(());
        }
        let (held, hold) = (Instant::now(), self.plan.hold);
        self.until("the time to pass", hold * 2, |_| Ok((held.elapsed() >= hold).then_some(())))?;
        let what = format!("{} to be mended", blow.name);
        let deadline = Instant::now() + event.timeout;
        loop {
            let mended = self.site.mend(blow).and_then(|job| self.finish(&job, &what, event.timeout));
            match mended {
                Err(Halt::Failed(_)) if Instant::now() < deadline => {
                    let pause = Instant::now();
                    let second = Duration::from_secs(1);
                    self.until("", second * 2, |_| Ok((pause.elapsed() >= second).then_some(())))?;
                }
                other => {
                    other?;
                    break;
                }
            }
        }
        self.wound = None;
        moments.mended = Some(Instant::now());
        Ok(())
    }
}

/// What is waited for before a cause is taken away, in words.
fn end_awaited(kind: EventKind) -> &'static str {
    match kind {
        EventKind::NodeStopped => "the stopped node to end with status 0",
        _ => "the event to be over",
    }
}
