//! What all threads have counted together, for metrics and status.

use std::sync::Arc;

use super::access_log::DestinationStatus;
use super::counters::{CLASSES, Classes, Counters, ListenerCounters, PoolCounters, Times};
use super::state::Site;

/// Everything that was counted since the worker started.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// For each listener, in the order of the configuration.
    pub listeners: Vec<ListenerTraffic>,
    /// For each pool, in the order of the configuration.
    pub pools: Vec<PoolTraffic>,
    /// For each place that access logs go to.
    pub logs: Vec<DestinationStatus>,
    /// Whether times were measured.
    pub is_measured: bool,
}

/// What went through a listener.
#[derive(Debug, Clone, Default)]
pub struct ListenerTraffic {
    /// Its name.
    pub name: String,
    /// Responses by the class of their status, 1xx first.
    pub responses: [u64; CLASSES],
    /// Bytes of bodies from clients.
    pub bytes_in: u64,
    /// Bytes of bodies to clients.
    pub bytes_out: u64,
    /// From the head of a request to the last byte of its response.
    pub durations: Times,
}

/// What went to a pool.
#[derive(Debug, Clone, Default)]
pub struct PoolTraffic {
    /// Its name.
    pub name: String,
    /// Responses by the class of their status, ours included.
    pub responses: [u64; CLASSES],
    /// Times that a request was sent again.
    pub retries: u64,
    /// Second copies of requests, by what came of them: lost, won.
    pub hedges: [u64; 2],
    /// From the head of a request to that of the server's response.
    pub first_bytes: Times,
    /// Responses of each server.
    pub servers: Vec<(String, [u64; CLASSES])>,
}

fn sum<'t, C: 't>(counted: impl Iterator<Item = &'t C>, classes: impl Fn(&C) -> Option<&Classes>) -> [u64; CLASSES] {
    let mut sums = [0; CLASSES];
    counted.filter_map(classes).for_each(|classes| classes.add_to(&mut sums));
    sums
}

impl Site {
    /// What all threads have counted.
    pub fn traffic(&self, threads: &[Arc<Counters>], logs: Vec<DestinationStatus>) -> Traffic {
        let listeners = self.listeners.iter().enumerate().map(|(index, listener)| {
            let counted = threads.iter().filter_map(|thread| thread.by_listener.get(index));
            let counted: Vec<&ListenerCounters> = counted.map(|counters| &**counters).collect();
            let mut durations = Times::default();
            counted.iter().for_each(|counted| durations.add(&counted.durations));
            ListenerTraffic {
                name: listener.config.name.clone(),
                responses: sum(counted.iter().copied(), |counted| Some(&counted.responses)),
                bytes_in: counted.iter().map(|counted| counted.bytes_in.get()).sum(),
                bytes_out: counted.iter().map(|counted| counted.bytes_out.get()).sum(),
                durations,
            }
        });
        let pools = self.pools.iter().enumerate().map(|(index, pool)| {
            let counted: Vec<&PoolCounters> = threads.iter().filter_map(|thread| thread.by_pool.get(index)).collect();
            let mut first_bytes = Times::default();
            counted.iter().for_each(|counted| first_bytes.add(&counted.own.first_bytes));
            let servers = pool.config.servers.iter().enumerate().map(|(server, config)| {
                (
                    config.name.clone(),
                    sum(counted.iter().copied(), |counted| {
                        counted.by_server.get(server).map(|server| &server.responses)
                    }),
                )
            });
            PoolTraffic {
                name: pool.config.name.clone(),
                responses: sum(counted.iter().copied(), |counted| Some(&counted.own.responses)),
                retries: counted.iter().map(|counted| counted.own.retries.get()).sum(),
                hedges: [
                    counted.iter().map(|counted| counted.own.hedges_lost.get()).sum(),
                    counted.iter().map(|counted| counted.own.hedges_won.get()).sum(),
                ],
                first_bytes,
                servers: servers.collect(),
            }
        });
        Traffic { listeners: listeners.collect(), pools: pools.collect(), logs, is_measured: self.is_measured }
    }
}
