//! Who holds the VIP and when, by the kernel's messages: between two looks at a node's addresses a second holder could
//! come and go.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use baton::lab::pair::{NODES, VIP};
use baton::net::netlink::{Change, watch};
use baton::net::realtime;
use futures_util::StreamExt;
use tokio::sync::oneshot;

use crate::scene::Scene;

/// Priority of the threads that note what the kernel says, among real-time ones: above ordinary work, below a guard.
const PRIORITY: i32 = 5;

/// Changes as they are noted: when, on which node, and whether the VIP appeared there.
type Notes = Arc<Mutex<Vec<(Instant, &'static str, bool)>>>;

/// Notes every appearance of the VIP on a node, and every disappearance, from its start to its drop.
pub struct HolderWatch {
    first: BTreeSet<&'static str>,
    notes: Notes,
    stop: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl HolderWatch {
    /// Watches both nodes. Nothing may move while it starts.
    pub fn start(scene: &Scene) -> anyhow::Result<Self> {
        let mut holders =
            Self { first: BTreeSet::new(), notes: Notes::default(), stop: Vec::new(), threads: Vec::new() };
        for node in NODES {
            let (stop, stopped) = oneshot::channel();
            let (ready, is_ready) = mpsc::channel();
            let notes = Arc::clone(&holders.notes);
            let work = move || note_changes(node, &notes, &ready, stopped);
            holders.threads.push(scene.node(node).namespace().spawn(&format!("holder {node}"), work)?);
            holders.stop.push(stop);
            is_ready.recv().context("the kernel's address messages cannot be read")?;
        }
        for node in NODES {
            if scene.holds(node)? {
                holders.first.insert(node);
            }
        }
        Ok(holders)
    }

    /// Time from `from` to `to` in which exactly `count` nodes held the VIP.
    pub fn time_with(&self, count: usize, from: Instant, to: Instant) -> Duration {
        let mut holding = self.first.clone();
        let (mut since, mut total) = (from, Duration::ZERO);
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (at, node, is_there) in notes.into_iter().filter(|(at, ..)| *at <= to) {
            if holding.len() == count {
                total += at.saturating_duration_since(since);
            }
            since = since.max(at);
            if is_there {
                holding.insert(node)
            } else {
                holding.remove(node)
            };
        }
        if holding.len() == count { total + to.saturating_duration_since(since) } else { total }
    }
}

impl Drop for HolderWatch {
    fn drop(&mut self) {
        self.stop.clear();
        for thread in self.threads.drain(..) {
            // One that could not enter its namespace saw nothing, and the start has failed by that.
            let _ended = thread.join();
        }
    }
}

fn note_changes(node: &'static str, notes: &Notes, ready: &mpsc::Sender<()>, stopped: oneshot::Receiver<()>) {
    // Without it the times are a little late on a busy machine.
    let _not_realtime = realtime::schedule_first(PRIORITY);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let Ok(mut changes) = watch() else { return };
        // The starter may have given up by now.
        let _gone = ready.send(());
        let note = async {
            while let Some(change) = changes.next().await {
                let (address, is_there) = match change {
                    Change::Appeared(address) => (address, true),
                    Change::Disappeared(address) => (address, false),
                    Change::Interface(_) | Change::Missed => continue,
                };
                if address.network.address() == VIP {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), node, is_there));
                }
            }
        };
        tokio::select! {
            () = note => {}
            _ = stopped => {}
        }
    });
}
