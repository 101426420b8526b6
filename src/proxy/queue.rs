//! Waiting for a server that has as many requests as it may.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::refusals::Reason;
use super::state::{Pool, Site};
use super::thread::{Place, Thread};
use super::timers::Deadlines;
use crate::config::PoolIndex;
use crate::limit::queue::{Entry, Slots};
use crate::status::QueueStatus;

/// A request's slot of a server. Goes to the next one when dropped.
pub struct Slot {
    site: Arc<Site>,
    /// Whose it is.
    pub place: Place,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(pool) = self.site.pool(self.place.pool) else { return };
        if let Some(slots) = &pool.slots {
            slots.give_back(self.place.server, |server| pool.may_serve(server, |_| true));
        }
    }
}

/// A way to a server.
pub enum Entrance {
    /// To this one, with its slot where the pool has any.
    Server(usize, Option<Slot>),
    /// No server can be tried.
    Nowhere,
    /// All that could be tried have as much as they may.
    Refused(Reason),
}

/// Finds a server of a pool: `wanted`, or else the next one that `may_try` allows and that has room; waits where there is
/// none, as long as the pool has it. The deadlines have to be attached to the task that awaits this. Cancel safe: who does
/// not wait any more is out of the queue.
pub async fn enter(
    thread: &Rc<Thread>,
    deadlines: &Deadlines,
    index: PoolIndex,
    wanted: Option<usize>,
    may_try: impl Fn(usize) -> bool,
) -> Entrance {
    let Some(pool) = thread.site.pool(index) else { return Entrance::Nowhere };
    let Some(slots) = &pool.slots else {
        let server = wanted.or_else(|| thread.pick(index, may_try));
        return server.map_or(Entrance::Nowhere, |server| Entrance::Server(server, None));
    };
    let slot = |server| {
        let slot = Slot { site: Arc::clone(&thread.site), place: Place { pool: index, server } };
        Entrance::Server(server, Some(slot))
    };
    let take = || match wanted {
        Some(server) => slots.take(server).then_some(server),
        None => next_with_room(thread, index, pool, slots, &may_try),
    };
    if let Some(server) = take() {
        return slot(server);
    }
    if wanted.is_none() && !(0..pool.servers.len()).any(|server| pool.may_serve(server, &may_try)) {
        return Entrance::Nowhere;
    }
    // Boxed: a request that need not wait would carry the room for it about.
    match Box::pin(wait(pool, slots, deadlines, wanted, take)).await {
        // One that this request has tried in vain may be all that has come free.
        Ok(server) if wanted.is_some() || may_try(server) => slot(server),
        Ok(server) => {
            drop(slot(server));
            Entrance::Nowhere
        }
        Err(reason) => Entrance::Refused(reason),
    }
}

/// The next server that `may_try` allows and that has room. Waits for none.
pub fn enter_now(
    thread: &Rc<Thread>,
    index: PoolIndex,
    may_try: impl Fn(usize) -> bool,
) -> Option<(usize, Option<Slot>)> {
    let pool = thread.site.pool(index)?;
    let Some(slots) = &pool.slots else { return Some((thread.pick(index, may_try)?, None)) };
    let server = next_with_room(thread, index, pool, slots, &may_try)?;
    Some((server, Some(Slot { site: Arc::clone(&thread.site), place: Place { pool: index, server } })))
}

/// Takes a slot of the next server that has one.
fn next_with_room(
    thread: &Thread,
    index: PoolIndex,
    pool: &Pool,
    slots: &Slots,
    may_try: &impl Fn(usize) -> bool,
) -> Option<usize> {
    loop {
        // That the others are full is no reason for a backup to serve.
        let server = thread.pick(index, |server| slots.has_room(server) && pool.may_serve(server, may_try))?;
        // Another thread may have been faster: then the server has no room any more, so that this ends.
        if slots.take(server) {
            return Some(server);
        }
    }
}

async fn wait(
    pool: &Pool,
    slots: &Slots,
    deadlines: &Deadlines,
    wanted: Option<usize>,
    take: impl FnOnce() -> Option<usize>,
) -> Result<usize, Reason> {
    let timeout = pool.config.connections.as_ref().map(|connections| connections.queue_timeout).unwrap_or_default();
    let mut ticket = match slots.enter(wanted, take) {
        Entry::Taken(server) => return Ok(server),
        Entry::Full => return Err(Reason::QueueFull),
        Entry::Waits(ticket) => ticket,
    };
    let since = Instant::now();
    let granted = deadlines.within(timeout, std::future::poll_fn(|context| ticket.poll(context))).await;
    let granted = match granted {
        Some(server) => Some(server),
        None => ticket.leave(),
    };
    match granted {
        Some(server) => {
            let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            slots.outcomes.waited_us.fetch_add(waited, Ordering::Relaxed);
            Ok(server)
        }
        None => {
            slots.outcomes.late.fetch_add(1, Ordering::Relaxed);
            Err(Reason::QueueTimeout)
        }
    }
}

impl Pool {
    /// Whether a server may serve those that belong to no server, among those that `may_try` allows: a backup only while
    /// no other one can.
    fn may_serve(&self, server: usize, may_try: impl Fn(usize) -> bool) -> bool {
        let candidate = self.candidate(server);
        let is_usual = |server| {
            let candidate = self.candidate(server);
            candidate.eligible && !candidate.backup && may_try(server)
        };
        let is_eligible = candidate.eligible && may_try(server);
        is_eligible && (!candidate.backup || !(0..self.servers.len()).any(is_usual))
    }

    /// How many wait, and what has come of those that did.
    pub fn queue_status(&self) -> Option<QueueStatus> {
        let (slots, config) = (self.slots.as_ref()?, self.config.connections.as_ref()?);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let outcomes = &slots.outcomes;
        Some(QueueStatus {
            length: slots.waiting() as u64,
            length_max: u64::from(config.queue_max),
            in_flight_max: u64::from(config.per_server),
            waited: count(&outcomes.waited),
            waited_us: count(&outcomes.waited_us),
            dropped: [("full", &outcomes.full), ("timeout", &outcomes.late), ("client_left", &outcomes.left)]
                .map(|(reason, outcome)| (reason.to_owned(), count(outcome)))
                .into(),
        })
    }

    /// Gives slots of servers that have come back to those that wait.
    pub fn hand_out_slots(&self) {
        if let Some(slots) = self.slots.as_ref().filter(|slots| slots.waiting() > 0) {
            slots.hand_out(|server| self.may_serve(server, |_| true));
        }
    }
}
