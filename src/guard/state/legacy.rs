//! What the guard knows of its node, left to the guard that goes on for this one and taken from the one before.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::takeover::{Legacy, ago};
use super::{Node, Vip};
use crate::config::Config;
use crate::fitness::{Finding, Input};
use crate::link::Report;
use crate::vrrp::machine::State;

/// What is left of a VIP.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VipLegacy {
    /// Time in its state.
    age: Duration,
    reason: String,
    transitions: u64,
    restored: u64,
    conflicts: u64,
    sent: u64,
    received: u64,
}

impl Vip {
    /// For the next guard.
    pub fn leave(&self) -> VipLegacy {
        VipLegacy {
            age: self.since.elapsed(),
            reason: self.reason.clone(),
            transitions: self.transitions,
            restored: self.restored,
            conflicts: self.conflicts,
            sent: self.counters.sent.load(Ordering::Relaxed),
            received: self.counters.received.load(Ordering::Relaxed),
        }
    }

    fn resume(&mut self, left: &VipLegacy, state: State, epoch: u32) {
        (self.state, self.since, self.reason) = (state, ago(left.age), left.reason.clone());
        (self.transitions, self.epoch) = (left.transitions, epoch);
        (self.restored, self.conflicts) = (left.restored, left.conflicts);
        self.counters.sent.fetch_add(left.sent, Ordering::Relaxed);
        self.counters.received.fetch_add(left.received, Ordering::Relaxed);
    }
}

impl Node {
    /// What the worker has said last.
    pub fn last_report(&self) -> &Report {
        &self.report
    }

    /// The subjects of checks that keep VIPs from being held until they were looked at, and that were found bad.
    pub fn broken(&self) -> Vec<String> {
        let verdicts = self.checks.closed().filter_map(|check| self.checks.fitness.verdict(check));
        verdicts.filter(|verdict| verdict.is_fault).map(|verdict| verdict.subject.to_string()).collect()
    }

    /// Goes on with what another guard has left. What it found fit is fit until it is found otherwise: a program that has
    /// just begun to look is no reason to give a VIP up.
    pub fn resume(&mut self, legacy: &Legacy) {
        self.is_taking_over = true;
        for (vip, config) in self.vips.iter_mut().zip(&self.config.vips) {
            if let Some((left, heartbeat)) = legacy.vips.get(&config.name) {
                vip.resume(left, heartbeat.machine.state, heartbeat.machine.epoch);
            }
        }
        for check in self.checks.closed().collect::<Vec<_>>() {
            let subject = self.checks.fitness.verdict(check).map(|verdict| verdict.subject.to_string());
            let evidence = "as the program before has found it".to_owned();
            let is_broken = subject.is_some_and(|subject| legacy.broken.contains(&subject));
            self.found(check, if is_broken { Finding::Bad(evidence) } else { Finding::Good(evidence) });
        }
        for vip in 0..self.vips.len() {
            let is_active = self.vips.get(vip).is_some_and(|vip| vip.state == State::Active);
            self.observe(Input::Role { vip, is_active });
        }
        if has_pools_of(&self.config, &legacy.report) {
            self.take_report(legacy.report.clone());
        }
        self.publish();
    }
}

/// Whether a report is about the pools of a configuration, in their order.
fn has_pools_of(config: &Config, report: &Report) -> bool {
    let reported = report.pools.iter().map(|pool| &pool.name);
    reported.eq(config.pools.iter().map(|pool| &pool.name))
}
