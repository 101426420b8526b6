//! Deadlines of connections, checked together a few times a second.
//!
//! A timer of the runtime for each read, write and request would cost more than much of the work it guards. Here a
//! deadline is one store to a cell, and one sweep over all connections of the thread wakes those that are late.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Time between two sweeps: how late a time-out may be noticed.
pub const TICK: Duration = Duration::from_millis(TICK_MS);

const TICK_MS: u64 = 50;

/// A point in time, counted in sweeps. A thread that was held up counts no time meanwhile, so that a stall of ours is
/// not charged to clients and servers.
type Tick = u64;

/// No deadline.
const NEVER: Tick = u64::MAX;

/// How long clients may take nothing of what waits for them, where that is less than `idle_timeout`: memory is at its limit.
/// All threads have it together.
#[derive(Debug, Default)]
pub struct Patience {
    /// In milliseconds; 0 where there is no such limit.
    stall_ms: AtomicU64,
    cut_off: AtomicU64,
}

impl Patience {
    /// Sets the time that clients may take nothing in, from now on.
    pub fn set(&self, stall: Option<Duration>) {
        let stall_ms = stall.map_or(0, |stall| u64::try_from(stall.as_millis()).unwrap_or(u64::MAX).max(1));
        self.stall_ms.store(stall_ms, Ordering::Relaxed);
    }

    /// Connections and streams of HTTP/2 that were cut off for it so far.
    pub fn cut_off(&self) -> u64 {
        self.cut_off.load(Ordering::Relaxed)
    }

    fn stall_ticks(&self) -> Option<Tick> {
        let stall_ms = self.stall_ms.load(Ordering::Relaxed);
        (stall_ms > 0).then(|| stall_ms.div_ceil(TICK_MS))
    }
}

/// All deadlines of a thread.
#[derive(Debug, Default)]
pub struct Timers {
    patience: Arc<Patience>,
    now: Cell<Tick>,
    coarse_now: Cell<Option<Instant>>,
    connections: RefCell<Vec<Rc<Deadlines>>>,
    wake_sweeper: tokio::sync::Notify,
}

/// The deadlines of one client connection. All that a connection does happens in one task, hence the one waker.
#[derive(Debug)]
pub struct Deadlines {
    timers: Rc<Timers>,
    client_read: Cell<Tick>,
    client_write: Cell<Tick>,
    /// When the client began to owe us room; means nothing while it does not.
    stalled_since: Cell<Tick>,
    client_body: Cell<Tick>,
    rest: Cell<Tick>,
    server: Cell<Tick>,
    request: Cell<Tick>,
    waker: RefCell<Option<Waker>>,
    index: Cell<usize>,
}

/// Whose deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// Bytes that the client owes us.
    ClientRead,
    /// Room that the client owes us for ours.
    ClientWrite,
    /// The rate of a body that the client owes us.
    ClientBody,
    /// Nobody owes anything: the end of the time in which the client is expected to ask again soon.
    Rest,
    /// Something the server owes us.
    Server,
    /// The end of the response, whoever owes it.
    Request,
}

impl Timers {
    /// Of a thread whose clients get this patience.
    pub fn new(patience: Arc<Patience>) -> Self {
        Self { patience, ..Self::default() }
    }

    /// Takes a connection in. [`Registration`] takes it out again.
    pub fn register(self: &Rc<Self>) -> Registration {
        let mut connections = self.connections.borrow_mut();
        if connections.is_empty() {
            self.wake_sweeper.notify_one();
        }
        let deadlines = Rc::new(Deadlines {
            timers: Rc::clone(self),
            client_read: Cell::new(NEVER),
            client_write: Cell::new(NEVER),
            stalled_since: Cell::new(NEVER),
            client_body: Cell::new(NEVER),
            rest: Cell::new(NEVER),
            server: Cell::new(NEVER),
            request: Cell::new(NEVER),
            waker: RefCell::new(None),
            index: Cell::new(connections.len()),
        });
        connections.push(Rc::clone(&deadlines));
        Registration(deadlines)
    }

    /// Sweeps until the runtime ends; sleeps while there is no connection.
    pub async fn sweep(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.now.set(self.now.get() + 1);
            self.coarse_now.set(Some(Instant::now()));
            self.hurry();
            self.wake_late();
            if self.connections.borrow().is_empty() {
                self.wake_sweeper.notified().await;
            }
        }
    }

    /// Wakes every connection, for a drain.
    pub fn wake_all(&self) {
        for connection in self.connections.borrow().iter() {
            connection.wake();
        }
    }

    /// The time at the last sweep: good enough to age what lives for seconds, and free.
    pub fn coarse_now(&self) -> Instant {
        self.coarse_now.get().unwrap_or_else(Instant::now)
    }

    /// Open connections.
    pub fn connection_count(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Has clients be late that have taken nothing for longer than there is patience for.
    fn hurry(&self) {
        let Some(stall) = self.patience.stall_ticks() else { return };
        let now = self.now.get();
        let is_stalled = |connection: &&Rc<Deadlines>| {
            let late_at = connection.client_write.get();
            late_at != NEVER && late_at > now && connection.stalled_since.get().saturating_add(stall) <= now
        };
        for connection in self.connections.borrow().iter().filter(is_stalled) {
            connection.client_write.set(now);
            self.patience.cut_off.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wake_late(&self) {
        let now = self.now.get();
        for connection in self.connections.borrow().iter() {
            let Deadlines { client_read, client_write, client_body, rest, server, request, .. } = &**connection;
            let of_client = client_read.get().min(client_write.get()).min(client_body.get()).min(rest.get());
            let first = of_client.min(server.get()).min(request.get());
            if first <= now {
                connection.wake();
            }
        }
    }
}

impl Deadlines {
    /// Sets a deadline, `timeout` from now; it is noticed up to two ticks late, never early.
    pub fn set(&self, party: Party, timeout: Duration) {
        let ticks = u64::try_from(timeout.as_millis().div_ceil(TICK.as_millis())).unwrap_or(NEVER / 2);
        let now = self.timers.now.get();
        if party == Party::ClientWrite && !self.is_set(party) {
            self.stalled_since.set(now);
        }
        self.cell(party).set(now + ticks + 1);
    }

    /// Sets a deadline unless one is set already.
    pub fn set_once(&self, party: Party, timeout: Duration) {
        if self.cell(party).get() == NEVER {
            self.set(party, timeout);
        }
    }

    /// As [`Deadlines::set`], unless there is an earlier one.
    pub fn set_no_later(&self, party: Party, timeout: Duration) {
        let before = self.cell(party).get();
        self.set(party, timeout);
        self.cell(party).set(self.cell(party).get().min(before));
    }

    /// Takes a deadline back.
    pub fn clear(&self, party: Party) {
        self.cell(party).set(NEVER);
    }

    /// Whether there is a deadline.
    pub fn is_set(&self, party: Party) -> bool {
        self.cell(party).get() != NEVER
    }

    /// Whether a deadline has passed.
    pub fn is_late(&self, party: Party) -> bool {
        self.cell(party).get() <= self.timers.now.get()
    }

    /// Whether the server is late, with what it owes now or with all of the response.
    pub fn is_server_late(&self) -> bool {
        self.server.get().min(self.request.get()) <= self.timers.now.get()
    }

    /// Remembers the connection's task. Called at each of its turns; costs a comparison when nothing changed.
    pub fn attach(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }

    /// Makes the task that awaits this the one that is woken.
    pub async fn attach_here(&self) {
        std::future::poll_fn(|context| {
            self.attach(context);
            Poll::Ready(())
        })
        .await;
    }

    /// `future`, or `None` once the server's deadline, set here to `timeout`, or the request's has passed. Cancel safe if `future` is.
    pub async fn within<F: Future>(&self, timeout: Duration, future: F) -> Option<F::Output> {
        self.set(Party::Server, timeout);
        let mut future = std::pin::pin!(future);
        let output = std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.is_server_late() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        self.clear(Party::Server);
        output
    }

    fn cell(&self, party: Party) -> &Cell<Tick> {
        match party {
            Party::ClientRead => &self.client_read,
            Party::ClientWrite => &self.client_write,
            Party::ClientBody => &self.client_body,
            Party::Rest => &self.rest,
            Party::Server => &self.server,
            Party::Request => &self.request,
        }
    }

    /// Has the connection's task take a turn.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// A connection's place in the sweep, given up when dropped.
#[derive(Debug)]
pub struct Registration(Rc<Deadlines>);

impl Registration {
    /// Its deadlines.
    pub fn deadlines(&self) -> &Rc<Deadlines> {
        &self.0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut connections = self.0.timers.connections.borrow_mut();
        let index = self.0.index.get();
        connections.swap_remove(index);
        if let Some(moved) = connections.get(index) {
            moved.index.set(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_paused_time(test: impl AsyncFnOnce(Rc<Timers>)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build_local(Default::default());
        runtime.unwrap().block_on(async {
            let timers = Rc::new(Timers::default());
            let sweeper = tokio::task::spawn_local(Rc::clone(&timers).sweep());
            test(timers).await;
            sweeper.abort();
        });
    }

    #[test]
    fn a_future_that_never_ends_is_given_up_after_its_timeout() {
        on_paused_time(async |timers| {
            let connection = timers.register();
            connection.deadlines().attach_here().await;
            let start = tokio::time::Instant::now();
            let output = connection.deadlines().within(Duration::from_secs(1), std::future::pending::<()>()).await;
            assert_eq!(output, None);
            let waited = start.elapsed();
            assert!((Duration::from_secs(1)..=Duration::from_millis(1100)).contains(&waited), "{waited:?}");
        });
    }

    #[test]
    fn a_future_that_ends_in_time_is_not_disturbed() {
        on_paused_time(async |timers| {
            let connection = timers.register();
            connection.deadlines().attach_here().await;
            assert_eq!(connection.deadlines().within(Duration::from_millis(10), async { 7 }).await, Some(7));
            assert!(!connection.deadlines().is_late(Party::Server));
        });
    }

    #[test]
    fn connections_leave_the_sweep_in_any_order() {
        on_paused_time(async |timers| {
            let mut connections: Vec<_> = (0..5).map(|_| timers.register()).collect();
            connections.remove(1);
            connections.remove(3);
            connections.remove(0);
            assert_eq!(timers.connection_count(), 2);
            for connection in &connections {
                let index = connection.deadlines().index.get();
                assert!(Rc::ptr_eq(connection.deadlines(), &timers.connections.borrow()[index]));
            }
        });
    }

    #[test]
    fn client_that_takes_nothing_for_longer_than_there_is_patience_is_late() {
        on_paused_time(async |timers| {
            let connection = timers.register();
            let deadlines = connection.deadlines();
            deadlines.set_once(Party::ClientWrite, Duration::from_secs(60));
            timers.patience.set(Some(Duration::from_secs(1)));
            tokio::time::sleep(Duration::from_millis(900)).await;
            assert!(!deadlines.is_late(Party::ClientWrite));
            // It takes something, and its time begins anew.
            deadlines.clear(Party::ClientWrite);
            deadlines.set_once(Party::ClientWrite, Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(900)).await;
            // A deadline of another kind does not change that.
            deadlines.set_no_later(Party::ClientWrite, Duration::from_secs(30));
            assert!(!deadlines.is_late(Party::ClientWrite));
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(deadlines.is_late(Party::ClientWrite));
            assert_eq!(timers.patience.cut_off(), 1);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(timers.patience.cut_off(), 1);
            deadlines.clear(Party::ClientWrite);
            timers.patience.set(None);
            deadlines.set_once(Party::ClientWrite, Duration::from_secs(60));
            tokio::time::sleep(Duration::from_secs(59)).await;
            assert!(!deadlines.is_late(Party::ClientWrite));
        });
    }

    #[test]
    fn the_first_of_two_deadlines_counts_when_set_once() {
        on_paused_time(async |timers| {
            let connection = timers.register();
            let deadlines = connection.deadlines();
            deadlines.set_once(Party::ClientRead, Duration::from_millis(100));
            tokio::time::sleep(Duration::from_millis(150)).await;
            deadlines.set_once(Party::ClientRead, Duration::from_secs(100));
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(deadlines.is_late(Party::ClientRead));
            deadlines.clear(Party::ClientRead);
            assert!(!deadlines.is_late(Party::ClientRead));
        });
    }
}
