//! How many requests each server has at once, and who waits for one to end.
//!
//! A request takes a slot of a server, all threads from the same count, and gives it back at its end. Where there is none,
//! it waits: for a slot of the server that its client belongs to, or for one of any server. A slot that is given back goes
//! straight to who has waited longest, first among those who wait for just that server; nobody who comes later gets in
//! between. While nobody waits all of this is one atomic operation at the beginning of a request and one at its end. The
//! lock of the queue is taken by those that have to wait and, while there are any, by those that end; it is held for a push
//! or a pop.
//!
//! Memory is bounded by `queue_max`; one more is turned away.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// The slots of a pool's servers.
pub struct Slots {
    /// As many as each server has.
    per_server: Box<[u32]>,
    queue_max: usize,
    /// Slots that are taken, for each server.
    taken: Box<[AtomicU32]>,
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    /// What has come of those that waited.
    pub outcomes: Outcomes,
}

/// Counts of those that waited or would have had to. They only grow.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Those that began to wait.
    pub waited: AtomicU64,
    /// Those that were turned away because the queue was full.
    pub full: AtomicU64,
    /// Those that were given up because they had waited for too long.
    pub late: AtomicU64,
    /// Those whose client left.
    pub left: AtomicU64,
    /// Microseconds that those who got a slot had waited, together.
    pub waited_us: AtomicU64,
}

/// Those that wait, the first on top. Tickets ascend in each line.
struct Queue {
    next_ticket: u64,
    any: VecDeque<Arc<Waiter>>,
    by_server: Box<[VecDeque<Arc<Waiter>>]>,
}

struct Waiter {
    ticket: u64,
    /// The server that is wanted.
    wanted: Option<usize>,
    /// The index of the server whose slot it got, and 1; 0 before that.
    granted: AtomicU32,
    waker: AtomicWaker,
}

/// Somebody's place in the queue. Leaves it when dropped.
pub struct Ticket<'slots> {
    slots: &'slots Slots,
    waiter: Arc<Waiter>,
    is_done: bool,
}

/// What becomes of a request for which there was no slot.
pub enum Entry<'slots> {
    /// There is one by now.
    Taken(usize),
    /// It waits.
    Waits(Ticket<'slots>),
    /// There are as many that wait as may be.
    Full,
}

impl Slots {
    /// Slots that are all free: so many for each server. At most `u32::MAX - 1` servers.
    pub fn new(per_server: Box<[u32]>, queue_max: usize) -> Self {
        let servers = per_server.len();
        let lines = || (0..servers).map(|_| VecDeque::new()).collect();
        Self {
            per_server,
            queue_max,
            taken: (0..servers).map(|_| AtomicU32::new(0)).collect(),
            waiting: AtomicUsize::new(0),
            queue: Mutex::new(Queue { next_ticket: 0, any: VecDeque::new(), by_server: lines() }),
            outcomes: Outcomes::default(),
        }
    }

    /// Whether a server has a slot that is free just now.
    pub fn has_room(&self, server: usize) -> bool {
        self.taken(server) < self.most(server)
    }

    /// Slots of a server that are taken.
    pub fn taken(&self, server: usize) -> u32 {
        self.taken.get(server).map_or(0, |taken| taken.load(Ordering::SeqCst))
    }

    /// Slots that a server has.
    pub fn most(&self, server: usize) -> u32 {
        self.per_server.get(server).copied().unwrap_or(0)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Takes a slot of a server, when one is free.
    pub fn take(&self, server: usize) -> bool {
        let Some(taken) = self.taken.get(server) else { return false };
        let most = self.most(server);
        let one_more = |count: u32| (count < most).then(|| count + 1);
        taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    /// Joins the queue. `take` tries once more to take a slot, now that nobody can give one back unseen.
    pub fn enter(&self, wanted: Option<usize>, take: impl FnOnce() -> Option<usize>) -> Entry<'_> {
        let mut queue = self.lock();
        if self.waiting() >= self.queue_max {
            drop(queue);
            return take().map_or_else(
                || {
                    self.outcomes.full.fetch_add(1, Ordering::Relaxed);
                    Entry::Full
                },
                Entry::Taken,
            );
        }
        // First the count, then the look: who gives a slot back does it the other way round, so that one of both sees the
        // other.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if let Some(server) = take() {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Entry::Taken(server);
        }
        self.outcomes.waited.fetch_add(1, Ordering::Relaxed);
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        let waiter = Arc::new(Waiter { ticket, wanted, granted: AtomicU32::new(0), waker: AtomicWaker::new() });
        queue.line(wanted).push_back(Arc::clone(&waiter));
        Entry::Waits(Ticket { slots: self, waiter, is_done: false })
    }

    /// Gives a slot back: to who waits for it, where `may_serve` says that its server takes new requests.
    pub fn give_back(&self, server: usize, may_serve: impl Fn(usize) -> bool) {
        if self.waiting() > 0 {
            let mut queue = self.lock();
            if let Some(waiter) = queue.next(server, &may_serve) {
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                waiter.grant(server);
                return;
            }
        }
        self.free(server);
        // Somebody may have come after the look above.
        if self.waiting() > 0 {
            self.hand_out(may_serve);
        }
    }

    /// Gives free slots to those that wait: for servers that have become able to serve meanwhile.
    pub fn hand_out(&self, may_serve: impl Fn(usize) -> bool) {
        let mut queue = self.lock();
        for server in 0..self.taken.len() {
            while self.waiting() > 0 && self.take(server) {
                let Some(waiter) = queue.next(server, &may_serve) else {
                    self.free(server);
                    break;
                };
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                waiter.grant(server);
            }
        }
    }

    fn free(&self, server: usize) {
        if let Some(taken) = self.taken.get(server) {
            taken.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn line(&mut self, wanted: Option<usize>) -> &mut VecDeque<Arc<Waiter>> {
        // A server that is not there is as good as any.
        let line = wanted.and_then(|server| self.by_server.get_mut(server));
        line.unwrap_or(&mut self.any)
    }

    /// Who is next for a slot of a server.
    fn next(&mut self, server: usize, may_serve: &impl Fn(usize) -> bool) -> Option<Arc<Waiter>> {
        let of_server = self.by_server.get_mut(server).and_then(VecDeque::pop_front);
        of_server.or_else(|| if may_serve(server) { self.any.pop_front() } else { None })
    }

    /// False when it is not in any more.
    fn remove(&mut self, waiter: &Waiter) -> bool {
        let line = self.line(waiter.wanted);
        let found = line.binary_search_by_key(&waiter.ticket, |other| other.ticket);
        found.is_ok_and(|index| line.remove(index).is_some())
    }
}

impl Waiter {
    fn grant(&self, server: usize) {
        let granted = u32::try_from(server).unwrap_or(u32::MAX - 1).saturating_add(1);
        self.granted.store(granted, Ordering::SeqCst);
        self.waker.wake();
    }
}

impl Ticket<'_> {
    /// The server whose slot it got. After that the ticket is used up, and the slot has to be given back.
    pub fn poll(&mut self, context: &Context<'_>) -> Poll<usize> {
        self.waiter.waker.register(context.waker());
        match self.waiter.granted.load(Ordering::SeqCst) {
            0 => Poll::Pending,
            granted => {
                self.is_done = true;
                Poll::Ready(granted as usize - 1)
            }
        }
    }

    /// Leaves the queue; gives the server whose slot came at the last moment, which has to be given back.
    pub fn leave(mut self) -> Option<usize> {
        self.take_out()
    }

    fn take_out(&mut self) -> Option<usize> {
        if std::mem::replace(&mut self.is_done, true) {
            return None;
        }
        let mut queue = self.slots.lock();
        if queue.remove(&self.waiter) {
            self.slots.waiting.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let granted = self.waiter.granted.load(Ordering::SeqCst);
        (granted as usize).checked_sub(1)
    }
}

impl Drop for Ticket<'_> {
    /// The client has left, or nobody polls any more.
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        self.slots.outcomes.left.fetch_add(1, Ordering::Relaxed);
        if let Some(server) = self.take_out() {
            // Who waits for this very server, or for any: that it serves is what the grant has just found.
            self.slots.give_back(server, |_| true);
        }
    }
}

#[cfg(test)]
mod tests;
