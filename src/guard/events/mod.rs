//! Events: every change of role, told in order to the operator's command and webhook.
//!
//! [`Events::record`] takes one and never waits. [`queue`] decides whose turn it is, [`spool`] keeps events on disk until
//! everybody has them, and the courier, a process without privileges, delivers them: the guard runs no command and speaks
//! to no server. Each event is delivered at least once. It can come twice, when the guard or the courier ends between a
//! delivery and the note that it was made; its sequence tells.

mod queue;
mod spool;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;
use time::macros::format_description;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use self::queue::{Queue, Spooling};
use self::spool::{Found, Order, Spool, Written};
use super::counters::millis;
use super::supervisor::exit_reason;
use crate::config::Config;
use crate::event::{Event, FromCourier, Settings, ToCourier};
use crate::link;
use crate::net::child;
use crate::status::{EventsStatus, Role};

/// Answers of the disk that may wait; the thread that writes waits beyond that.
const ANSWERS_MAX: usize = 64;

/// Time between two attempts to write what could not be written.
const REWRITE_INTERVAL: Duration = Duration::from_secs(5);

/// Time that a stop waits for the last events to be delivered.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for the courier to take a line that fits its socket many times over.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Time beyond that of a delivery after which a courier that has not answered hangs.
const HUNG_MARGIN: Duration = Duration::from_secs(5);

/// The pause before the courier is started again: doubled each time, from this...
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// ...to this...
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// ...and forgotten after it has run for so long.
const BACKOFF_RESET: Duration = Duration::from_secs(30);

/// A change of role, as the guard's loop sees it.
#[derive(Debug)]
pub struct Change {
    /// Its VIP's place in the configuration.
    pub vip: usize,
    /// The role before.
    pub from: Role,
    /// The role now.
    pub to: Role,
    /// Why.
    pub reason: String,
    /// Which holding of the VIP it belongs to.
    pub epoch: u32,
}

/// Where changes are recorded. Without anybody to be told it does nothing.
pub struct Events(Option<Rc<Shared>>);

/// What the guard's loop, the courier's task and the disk's task share. One thread.
struct Shared {
    queue: RefCell<Queue>,
    next_sequence: Cell<u64>,
    node: String,
    peer: Option<String>,
    /// Name and addresses of each VIP.
    vips: Vec<(String, Vec<String>)>,
    /// To the thread that writes, where there is one.
    orders: Option<SyncSender<Order>>,
    is_disk_failing: Cell<bool>,
    /// Something may be due.
    work: Notify,
    /// Something was delivered, failed or was written.
    progress: Notify,
}

impl Events {
    /// Reads what an earlier guard left, and starts to deliver on the current thread's local runtime. What is less than it
    /// should be is returned in words.
    pub fn start(config: &Config, node: &str, state_dir: &Path) -> (Self, Vec<String>) {
        let events = &config.events;
        if events.command.is_none() && events.webhook.is_none() {
            return (Self(None), Vec::new());
        }
        let kept_max = usize::try_from(events.kept_max).unwrap_or(usize::MAX);
        let (written, answers) = mpsc::channel(ANSWERS_MAX);
        let mut warnings = Vec::new();
        let path = state_dir.join("events");
        let (orders, found) = match open(&path, kept_max, written) {
            Ok((orders, found)) => (Some(orders), found),
            Err(error) => {
                let why = if error.kind() == io::ErrorKind::WouldBlock {
                    "another baton uses it".to_owned()
                } else {
                    error.to_string()
                };
                warnings.push(format!(
                    "events are kept in memory alone, and lost when baton ends: {} cannot be used ({why}); --state-dir \
                     names another directory",
                    path.display()
                ));
                (None, Found { next: unix_ms(), ..Found::default() })
            }
        };
        warnings.extend(found.warnings.iter().cloned());
        let mut queue = Queue::new(kept_max, events.command.is_some(), events.webhook.is_some());
        let next_sequence = Cell::new(found.next);
        fill(&mut queue, found);
        let vips = config.vips.iter().map(|vip| {
            let addresses = vip.addresses.iter().map(|at| at.network.to_string()).collect();
            (vip.name.clone(), addresses)
        });
        let shared = Rc::new(Shared {
            queue: RefCell::new(queue),
            next_sequence,
            node: node.to_owned(),
            peer: config.nodes.iter().find(|other| other.name != node).map(|peer| peer.name.clone()),
            vips: vips.collect(),
            orders,
            is_disk_failing: Cell::new(false),
            work: Notify::new(),
            progress: Notify::new(),
        });
        let settings = Settings {
            guard_pid: std::process::id(),
            command: events.command.clone(),
            webhook: events.webhook.clone(),
            timeout_ms: millis(events.timeout),
            user: events.user.clone(),
        };
        tokio::task::spawn_local(Rc::clone(&shared).follow_disk(answers));
        tokio::task::spawn_local(Rc::clone(&shared).keep_courier(settings));
        (Self(Some(shared)), warnings)
    }

    /// Records a change. Never waits, neither for the disk nor for whoever is told.
    pub fn record(&self, change: Change) {
        if let Some(shared) = &self.0 {
            shared.record(change);
        }
    }

    /// How it goes; `None` when nobody is to be told.
    pub fn status(&self) -> Option<EventsStatus> {
        let shared = self.0.as_ref()?;
        let (kept, delivered, dropped, last_error, oldest) = shared.queue.borrow().figures();
        Some(EventsStatus {
            spooled: kept as u64,
            delivered,
            dropped,
            last_error,
            oldest_age_ms: oldest.map(|recorded| millis(recorded.elapsed())),
        })
    }

    /// Waits, not long, until everything is on disk and delivered as far as it can be.
    pub async fn finish(&self) {
        let Some(shared) = &self.0 else { return };
        let settled = async {
            while !shared.queue.borrow().is_settled() {
                shared.progress.notified().await;
            }
        };
        if timeout(FINISH_TIMEOUT, settled).await.is_err() {
            warn!("events are left that the next start will deliver");
        }
    }
}

/// Opens the spool, reads it and starts its thread.
fn open(path: &Path, kept_max: usize, written: mpsc::Sender<Written>) -> io::Result<(SyncSender<Order>, Found)> {
    let spool = Spool::open(path)?;
    let found = spool.read(kept_max)?;
    Ok((spool.start(written)?, found))
}

/// Takes over what an earlier guard left.
fn fill(queue: &mut Queue, found: Found) {
    if found.dropped > 0 {
        error!(
            dropped = found.dropped,
            "events of an earlier run were dropped undelivered: more were left than are kept"
        );
        queue.count_dropped(found.dropped);
    }
    if !found.events.is_empty() {
        info!(count = found.events.len(), "events of an earlier run are still to be delivered");
    }
    let now = Instant::now();
    for (event, written) in found.events {
        let age = written.elapsed().unwrap_or_default();
        queue.push(now.checked_sub(age).unwrap_or(now), event, Spooling::Written);
    }
}

impl Shared {
    fn record(&self, change: Change) {
        let Some((vip, addresses)) = self.vips.get(change.vip) else { return };
        let sequence = self.next_sequence.get();
        self.next_sequence.set(sequence.saturating_add(1));
        let event = Event {
            sequence,
            time: timestamp(SystemTime::now()),
            node: self.node.clone(),
            vip: vip.clone(),
            from: change.from,
            to: change.to,
            reason: change.reason,
            epoch: change.epoch,
            addresses: addresses.clone(),
            peer: self.peer.clone(),
        };
        let spooling = self.write(&event);
        let gone = self.queue.borrow_mut().push(Instant::now(), event, spooling);
        for sequence in gone {
            error!(sequence, "an event was dropped undelivered: more are waiting than are kept");
            self.order(Order::Drop(sequence));
        }
        self.work.notify_one();
    }

    /// Has an event written. A queue that is full is a disk that hangs: it is tried again later.
    fn write(&self, event: &Event) -> Spooling {
        match &self.orders {
            None => Spooling::Without,
            Some(orders) if orders.try_send(Order::Write(event.clone())).is_ok() => Spooling::Waiting,
            Some(_) => Spooling::Failed,
        }
    }

    /// One that does not fit is a file that stays until the next start, which delivers it once more.
    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            drop(orders.try_send(order));
        }
    }

    /// Takes the answers of the disk, and has written what could not be.
    async fn follow_disk(self: Rc<Self>, mut answers: mpsc::Receiver<Written>) {
        let mut rewrites = interval(REWRITE_INTERVAL);
        rewrites.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(answer) = answers.recv() => self.written(answer),
                _ = rewrites.tick() => {
                    let events = self.queue.borrow_mut().take_unwritten();
                    for event in events {
                        let spooling = self.write(&event);
                        self.queue.borrow_mut().spooled(event.sequence, spooling);
                    }
                }
            }
        }
    }

    fn written(&self, answer: Written) {
        let spooling = match answer.outcome {
            Ok(()) => {
                if self.is_disk_failing.replace(false) {
                    info!("events can be written to disk again");
                }
                Spooling::Written
            }
            Err(error) => {
                if !self.is_disk_failing.replace(true) {
                    error!(%error, "events cannot be written to disk: they are kept in memory, and lost if baton ends");
                }
                Spooling::Failed
            }
        };
        self.queue.borrow_mut().spooled(answer.sequence, spooling);
        self.work.notify_one();
        self.progress.notify_one();
    }

    /// Keeps a courier running.
    async fn keep_courier(self: Rc<Self>, settings: Settings) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let started = Instant::now();
            let reason = match child::spawn("courier", child::Capabilities::None) {
                Ok((child, socket)) => self.serve(child, socket, &settings).await,
                Err(error) => format!("it could not be started: {error}"),
            };
            error!(reason, "the courier has ended and is started again; events wait meanwhile");
            self.queue.borrow_mut().courier_lost(&format!("the courier has ended: {reason}"));
            if started.elapsed() >= BACKOFF_RESET {
                backoff = BACKOFF_MIN;
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Gives a courier what is due, until it ends: why, in words.
    async fn serve(&self, mut child: Child, socket: StdUnixStream, settings: &Settings) -> String {
        let socket = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
        let (mut sender, mut receiver) = match socket {
            Ok(socket) => link::halves(socket),
            Err(error) => return error.to_string(),
        };
        if let Err(reason) = send(&mut sender, &ToCourier::Start(settings.clone())).await {
            return reason;
        }
        let patience = Duration::from_millis(settings.timeout_ms) + HUNG_MARGIN;
        loop {
            let now = Instant::now();
            let due = self.queue.borrow_mut().due(now);
            for (lane, event) in due {
                if let Err(reason) = send(&mut sender, &ToCourier::Deliver { lane, event }).await {
                    return reason;
                }
            }
            let (deadline, hung_at) = {
                let queue = self.queue.borrow();
                (queue.deadline(now), queue.under_way_since().map(|since| since + patience))
            };
            tokio::select! {
                biased;
                ended = child.wait() => return exit_reason(ended),
                answer = receiver.receive() => match answer {
                    Ok(Some(answer)) => self.answered(answer),
                    Ok(None) => return ended(child).await,
                    Err(error) => return format!("it answered nonsense: {error}"),
                },
                () = self.work.notified() => {}
                () = until(deadline) => {}
                () = until(hung_at) => return format!("it did not answer for {} s and was killed", patience.as_secs()),
            }
        }
    }

    fn answered(&self, answer: FromCourier) {
        let FromCourier { lane, sequence, failure } = answer;
        let taken = self.queue.borrow_mut().answered(Instant::now(), lane, sequence, failure.clone());
        let Some(taken) = taken else { return };
        match (taken.failed, failure) {
            (Some((attempts, pause)), Some(reason)) => {
                warn!(%lane, sequence, attempts, retry_in_s = pause.as_secs(), reason, "event not delivered");
            }
            _ => info!(%lane, sequence, "event delivered"),
        }
        for sequence in taken.finished {
            self.order(Order::Delivered(sequence));
        }
        self.progress.notify_one();
    }
}

/// Why a courier ended whose link has closed: a process that ends closes its link first.
async fn ended(mut child: Child) -> String {
    timeout(SEND_TIMEOUT, child.wait()).await.map_or_else(|_| "it closed its link".to_owned(), exit_reason)
}

async fn send(sender: &mut link::Sender, message: &ToCourier) -> Result<(), String> {
    match timeout(SEND_TIMEOUT, sender.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("it takes no events: {error}")),
        Err(_) => Err("it reads no events".to_owned()),
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(time: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    // Fails for no time that a clock can show.
    OffsetDateTime::from(time).format(format).unwrap_or_default()
}

/// Where numbers begin when none can be remembered: above those of earlier runs, if the clock is right.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_as_rfc_3339_has_it() {
        let at = |ms| timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(1_767_323_045_678), "2026-01-02T03:04:05.678Z");
        assert_eq!(at(951_782_400_010), "2000-02-29T00:00:00.010Z");
    }
}
