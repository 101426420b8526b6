//! A pair that scripts reach: each is handed to `sh` on its standard input, so that nothing has to be quoted for SSH,
//! nsenter or whatever else stands before it.

use std::time::Duration;

use crate::config::scenario::{EventKind, Scenario, ScenarioNode, Script};

use super::Halt;
use super::site::{Blow, Job, Sighting, Site};
use super::watch::{Reach, Watch};

/// Time for a script that mends; it is tried again.
const MEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A cut link is joined again by the node itself after this time and `hold`, should nobody be left to do it.
const REJOIN_AFTER: Duration = Duration::from_secs(60);

/// A pair of real machines, containers or namespaces.
#[derive(Debug)]
pub struct Remote {
    scenario: Scenario,
    watches: [Watch; 2],
    /// How the last blow is mended, where that depends on what was found when it was struck.
    remedy: Option<String>,
}

impl Remote {
    /// Begins to watch both nodes.
    ///
    /// # Errors
    /// When there are no threads to be had.
    pub fn begin(scenario: Scenario) -> Result<Self, Halt> {
        let watch = |node: &ScenarioNode| {
            let reach = Reach { prefix: node.reach.clone() };
            Watch::begin(reach, &command(node, "status --json"), scenario.vip.clone())
        };
        let [first, second] = &scenario.nodes;
        let watches = [watch(first)?, watch(second)?];
        Ok(Self { scenario, watches, remedy: None })
    }

    fn node(&self, blow: &Blow) -> Result<&ScenarioNode, Halt> {
        self.scenario.nodes.get(blow.node).ok_or_else(|| Halt::Failed(format!("there is no node {}", blow.name)))
    }

    /// What is done, and where.
    fn means(&self, blow: &Blow) -> Result<(Script, Option<String>), Halt> {
        let node = self.node(blow)?;
        let scripts = &node.scripts;
        let there = |script: String| (Script::There(script), None);
        let own = |script: &Option<Script>, usual: &str| {
            (script.clone().unwrap_or_else(|| Script::There(usual.to_owned())), None)
        };
        Ok(match blow.kind {
            EventKind::Switchover => {
                let vip = self.scenario.vip.as_ref().map_or_else(String::new, |vip| format!(" {}", quoted(vip)));
                there(command(node, &format!("switchover{vip}")))
            }
            EventKind::WorkerKilled => there(format!("kill -9 {}", self.worker_pid(blow)?)),
            EventKind::WorkerHung => {
                let pid = self.worker_pid(blow)?;
                // Its guard may have ended it by then.
                (Script::There(format!("kill -STOP {pid}")), Some(format!("kill -CONT {pid} 2>/dev/null || :")))
            }
            EventKind::GuardKilled => there(format!("kill -9 {}", self.guard_pid(blow)?)),
            EventKind::NodeStopped => own(&scripts.stop, "systemctl stop baton"),
            EventKind::LinkCut => match &scripts.cut {
                Some(cut) => (cut.clone(), None),
                None => self.cut(blow)?,
            },
            EventKind::NodeRebooted => own(&scripts.reboot, "systemctl --no-block reboot"),
            EventKind::PowerCut => own(&scripts.power_off, "false"),
            EventKind::Reload => own(&scripts.reload, &command(node, "reload")),
            EventKind::Upgrade => own(&scripts.upgrade, "false"),
            EventKind::ServerKilled => {
                let server = self.scenario.servers.iter().find(|server| server.name == blow.name);
                let server = server.ok_or_else(|| Halt::Failed(format!("there is no [[server]] {}", blow.name)))?;
                (server.stop.clone(), None)
            }
        })
    }

    /// Takes the VIP's interface down, in such a way that it comes up again even when nobody is left to do it.
    fn cut(&self, blow: &Blow) -> Result<(Script, Option<String>), Halt> {
        let sighting = self.sighting(blow);
        let vip = sighting.vip(self.scenario.vip.as_deref());
        let interface = vip.map(|vip| vip.interface.clone()).filter(|interface| !interface.is_empty());
        let interface = interface.ok_or_else(|| Halt::Failed(format!("{} does not say its interface", blow.name)))?;
        let link = quoted(&interface);
        let after = (self.scenario.hold + REJOIN_AFTER).as_secs();
        let script = format!(
            "ip link set {link} down && {{ setsid sh -c 'sleep {after}; ip link set '{link}' up' </dev/null >/dev/null 2>&1 & }}"
        );
        Ok((Script::There(script), Some(format!("ip link set {link} up"))))
    }

    fn sighting(&self, blow: &Blow) -> Sighting {
        let [first, second] = &self.watches;
        if blow.node == 0 { first.latest() } else { second.latest() }
    }

    fn worker_pid(&self, blow: &Blow) -> Result<u32, Halt> {
        let pid = self.sighting(blow).status.and_then(|status| status.worker.pid);
        pid.ok_or_else(|| Halt::Failed(format!("{} does not say which process its worker is", blow.name)))
    }

    fn guard_pid(&self, blow: &Blow) -> Result<u32, Halt> {
        let pid = self.sighting(blow).status.map(|status| status.guard_pid);
        pid.ok_or_else(|| Halt::Failed(format!("{} does not say which process its guard is", blow.name)))
    }

    /// Runs a script of a blow's node or server on a thread.
    fn run(&self, blow: &Blow, script: &Script, within: Duration, what: &'static str) -> Result<Job, Halt> {
        let server = self.scenario.servers.iter().find(|server| server.name == blow.name);
        let there = match server.filter(|_| blow.kind == EventKind::ServerKilled) {
            Some(server) => &server.reach,
            None => &self.node(blow)?.reach,
        };
        let (prefix, text) = match script {
            Script::Here(text) => (Vec::new(), text.clone()),
            Script::There(text) => (there.clone(), text.clone()),
        };
        // A machine that goes down takes the session with it.
        let may_break = blow.kind == EventKind::NodeRebooted;
        let name = blow.name.clone();
        Job::begin(move || match (Reach { prefix }).run(&text, within) {
            Err(reason) if !may_break => Err(format!("failed to {what} {name}: {reason}")),
            _ => Ok(()),
        })
    }
}

impl Site for Remote {
    fn nodes(&self) -> [String; 2] {
        self.scenario.nodes.each_ref().map(|node| node.name.clone())
    }

    fn look(&mut self) -> [Sighting; 2] {
        self.watches.each_ref().map(Watch::latest)
    }

    fn strike(&mut self, blow: &Blow, within: Duration) -> Result<Job, Halt> {
        let (script, remedy) = self.means(blow)?;
        self.remedy = remedy;
        self.run(blow, &script, within, "strike")
    }

    fn is_over(&mut self, _blow: &Blow) -> Result<bool, Halt> {
        // What a script did is over when it ends.
        Ok(true)
    }

    fn mend(&mut self, blow: &Blow) -> Result<Job, Halt> {
        let scripts = &self.node(blow)?.scripts;
        let there = |text: &str| Script::There(text.to_owned());
        let found = || there(self.remedy.as_deref().unwrap_or(":"));
        let script = match blow.kind {
            EventKind::WorkerHung => found(),
            EventKind::LinkCut => scripts.mend.clone().unwrap_or_else(found),
            EventKind::GuardKilled | EventKind::NodeStopped => {
                scripts.start.clone().unwrap_or_else(|| there("systemctl start baton"))
            }
            EventKind::PowerCut => scripts.power_on.clone().unwrap_or_else(|| there("false")),
            EventKind::ServerKilled => {
                let server = self.scenario.servers.iter().find(|server| server.name == blow.name);
                server.map_or_else(|| there("false"), |server| server.start.clone())
            }
            EventKind::Switchover
            | EventKind::WorkerKilled
            | EventKind::NodeRebooted
            | EventKind::Reload
            | EventKind::Upgrade => return Ok(Job::done()),
        };
        self.run(blow, &script, MEND_TIMEOUT, "mend")
    }

    fn inspect(&mut self) -> Result<(), Halt> {
        Ok(())
    }
}

/// The command line of a node's own program.
fn command(node: &ScenarioNode, arguments: &str) -> String {
    let directory = node.runtime_dir.as_ref();
    let directory = directory.map_or_else(String::new, |directory| format!(" --runtime-dir {}", quoted(directory)));
    format!("{} {arguments}{directory}", quoted(&node.baton))
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_a_shell_as_they_are() {
        assert_eq!(quoted("/usr/bin/baton"), "/usr/bin/baton");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
