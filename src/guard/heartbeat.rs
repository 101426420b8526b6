//! The heartbeat: one thread that sends and hears adverts, and does nothing else.
//!
//! It is scheduled before every ordinary process, opens no file, writes no log and makes no netlink call. What has to
//! be done about a decision it tells others over bounded queues: [`super::addresses`] moves the VIP, [`super`] logs.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::addresses::Order;
use crate::net::clock::Clock;
use crate::net::vrrp_socket::{Packet, PacketBuffer, VrrpSocket};
use crate::vrrp::machine::{Action, Input, Machine, Parameters, Reason, State};
use crate::vrrp::packet::{Advert, DropReason, Expected, Heard, decode, judge};

/// Real-time priority of the thread: above the usual 1 to 49 of ordinary real-time work, below kernel threads at 99.
const REALTIME_PRIORITY: i32 = 50;

/// Packets handled in a row before a deadline that has passed is looked at: what is queued is heard first, but a flood
/// must not keep an advert from being sent.
const BURST_MAX: u32 = 64;

/// Adverts in a row that may fail. The peer, which hears none of them either, is about to claim the VIP.
const SEND_FAILURES_MAX: u32 = 3;

/// Time between two signs of life of the thread.
const PULSE_INTERVAL: Duration = Duration::from_millis(100);

/// What one virtual router is started with.
pub struct Setup {
    /// Its place among the VIPs.
    pub vip: usize,
    /// For its machine.
    pub parameters: Parameters,
    /// Our adverts' address list.
    pub addresses: Vec<Ipv4Addr>,
    /// What an advert of the peer has to be.
    pub expected: Expected,
    /// Router ids of other VIPs, whose adverts are not for us and not worth counting.
    pub siblings: Vec<u8>,
    /// Opens its socket, at the start and when the interface was made anew; called on the heartbeat's own runtime.
    pub open: Box<dyn Fn() -> std::io::Result<VrrpSocket> + Send>,
    /// Where adverts go, for the checksum.
    pub destination: Ipv4Addr,
    /// What it counts.
    pub counters: Arc<VipCounters>,
    /// From the guard.
    pub commands: mpsc::Receiver<Command>,
}

/// From the guard to one virtual router.
#[derive(Debug)]
pub enum Command {
    /// It may take part.
    Fit,
    /// It must not hold the VIP, and why.
    Unfit(String),
    /// Open the socket anew, and tell how that went.
    Reopen,
    /// Give the VIP up and say when that is done.
    Stop(oneshot::Sender<()>),
}

/// From the heartbeat to the guard.
#[derive(Debug)]
pub enum Event {
    /// A virtual router changed its state.
    Changed {
        /// Which.
        vip: usize,
        /// From this.
        from: State,
        /// To this.
        to: State,
        /// Why.
        reason: Reason,
    },
    /// The VIP could not be taken off the interface in time, so no resignation was sent.
    NotReleased {
        /// Which.
        vip: usize,
    },
    /// Adverts cannot be sent: several in a row failed, or the socket could not be opened anew.
    Mute {
        /// Which.
        vip: usize,
        /// Why.
        error: std::io::Error,
    },
    /// The socket was opened anew.
    Reopened {
        /// Which.
        vip: usize,
    },
    /// The peer lists other addresses for this VIP than our configuration does.
    AddressesDiffer {
        /// Which.
        vip: usize,
    },
}

/// What one virtual router counts. The heartbeat writes, the guard reads.
#[derive(Debug)]
pub struct VipCounters {
    /// Adverts sent.
    pub sent: AtomicU64,
    /// Valid adverts of the peer.
    pub received: AtomicU64,
    /// Adverts dropped, by [`DropReason::index`].
    pub dropped: [AtomicU64; DropReason::ALL.len()],
    /// The last valid advert: priority in the lowest byte, interval in milliseconds above it; 0 before the first.
    pub last_heard: AtomicU64,
    /// When it came, in milliseconds after `epoch`.
    pub last_heard_at_ms: AtomicU64,
    /// The origin of the times here.
    pub epoch: Instant,
}

impl VipCounters {
    /// All zero.
    pub fn new() -> Self {
        Self {
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
            last_heard: AtomicU64::new(0),
            last_heard_at_ms: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    fn heard(&self, heard: &Heard) {
        let interval_ms = u64::try_from(heard.interval.get().as_millis()).unwrap_or(0);
        self.received.fetch_add(1, Ordering::Relaxed);
        self.last_heard_at_ms.store(millis(self.epoch.elapsed()), Ordering::Relaxed);
        self.last_heard.store((interval_ms << 8) | u64::from(heard.priority), Ordering::Relaxed);
    }

    fn dropped(&self, reason: DropReason) {
        if let Some(count) = self.dropped.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Default for VipCounters {
    fn default() -> Self {
        Self::new()
    }
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The running thread.
pub struct Heartbeat {
    /// Rises ten times a second while the thread lives.
    pub pulse: Arc<AtomicU64>,
    /// Why it is not scheduled before other processes, where it is not.
    pub not_realtime: Option<std::io::Error>,
}

/// Starts the thread. Returns once every socket is open.
///
/// # Errors
/// When the thread cannot be started or a socket cannot be opened: which VIP, and what the kernel says.
pub fn start(
    setups: Vec<Setup>,
    orders: mpsc::Sender<Order>,
    events: mpsc::Sender<Event>,
) -> Result<Heartbeat, (Option<usize>, std::io::Error)> {
    let pulse = Arc::new(AtomicU64::new(0));
    let (report, started) = std::sync::mpsc::channel();
    let thread_pulse = Arc::clone(&pulse);
    let run = move || {
        let not_realtime = crate::net::realtime::schedule_first(REALTIME_PRIORITY).err();
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(report.send(Err((None, error)))),
        };
        runtime.block_on(async move {
            match open_all(setups, &orders, &events) {
                Ok(routers) => {
                    for router in routers {
                        tokio::task::spawn_local(router.run());
                    }
                    drop(report.send(Ok(not_realtime)));
                    beat(&thread_pulse).await;
                }
                Err(error) => drop(report.send(Err(error))),
            }
        });
    };
    std::thread::Builder::new().name("heartbeat".to_owned()).spawn(run).map_err(|error| (None, error))?;
    let not_realtime = started.recv().map_err(|_| (None, std::io::Error::other("the heartbeat thread ended")))??;
    Ok(Heartbeat { pulse, not_realtime })
}

/// Shows that the thread lives, for as long as the process does: also while the worker drains, with every router stopped.
async fn beat(pulse: &AtomicU64) {
    let mut turns = tokio::time::interval(PULSE_INTERVAL);
    loop {
        turns.tick().await;
        pulse.fetch_add(1, Ordering::Relaxed);
    }
}

fn open_all(
    setups: Vec<Setup>,
    orders: &mpsc::Sender<Order>,
    events: &mpsc::Sender<Event>,
) -> Result<Vec<Router>, (Option<usize>, std::io::Error)> {
    let clock = Clock::start();
    let open = |setup: Setup| {
        let socket = (setup.open)().map_err(|error| (Some(setup.vip), error))?;
        let dead_interval = setup.parameters.advert_interval.get() * 4;
        Ok(Router {
            vip: setup.vip,
            machine: Machine::new(setup.parameters, clock.now()),
            addresses: setup.addresses,
            expected: setup.expected,
            siblings: setup.siblings,
            destination: setup.destination,
            release_timeout: dead_interval.max(Duration::from_secs(1)),
            open: setup.open,
            socket,
            send_failures: 0,
            clock,
            counters: setup.counters,
            commands: setup.commands,
            orders: orders.clone(),
            events: events.clone(),
            buffer: PacketBuffer::new(),
            has_warned_of_addresses: Rc::new(Cell::new(false)),
        })
    };
    setups.into_iter().map(open).collect()
}

/// One virtual router: its machine, its socket, and where its decisions go.
struct Router {
    vip: usize,
    machine: Machine,
    addresses: Vec<Ipv4Addr>,
    expected: Expected,
    siblings: Vec<u8>,
    destination: Ipv4Addr,
    /// Time that taking the VIP off the interface may take before we go on without it.
    release_timeout: Duration,
    open: Box<dyn Fn() -> std::io::Result<VrrpSocket> + Send>,
    socket: VrrpSocket,
    send_failures: u32,
    clock: Clock,
    counters: Arc<VipCounters>,
    commands: mpsc::Receiver<Command>,
    orders: mpsc::Sender<Order>,
    events: mpsc::Sender<Event>,
    buffer: PacketBuffer,
    has_warned_of_addresses: Rc<Cell<bool>>,
}

/// What a turn of the loop brought.
enum Turn {
    Command(Option<Command>),
    Heard(Heard),
    Ignored,
    Deadline,
}

impl Router {
    async fn run(mut self) {
        let mut burst = 0;
        loop {
            let turn = self.next_turn().await;
            let now = self.clock.now();
            let is_due = self.machine.deadline().is_some_and(|deadline| deadline <= now);
            burst = if matches!(turn, Turn::Heard(_) | Turn::Ignored) { burst + 1 } else { 0 };
            match turn {
                Turn::Command(Some(Command::Fit)) => self.handle(now, Input::Fit).await,
                Turn::Command(Some(Command::Unfit(reason))) => self.handle(now, Input::Unfit(reason.into())).await,
                Turn::Command(Some(Command::Reopen)) => self.reopen(),
                Turn::Command(Some(Command::Stop(done))) => {
                    self.handle(now, Input::Stop).await;
                    // The guard may have lost patience; then there is nobody to tell.
                    let _gone = done.send(());
                    return;
                }
                Turn::Command(None) => return self.handle(now, Input::Stop).await,
                Turn::Heard(heard) => self.handle(now, Input::Heard(heard)).await,
                Turn::Deadline => self.handle(now, Input::Timer).await,
                Turn::Ignored => {}
            }
            if is_due && burst >= BURST_MAX {
                burst = 0;
                self.handle(self.clock.now(), Input::Timer).await;
            }
        }
    }

    async fn next_turn(&mut self) -> Turn {
        let until_deadline =
            self.machine.deadline().map(|deadline| deadline.saturating_duration_since(self.clock.now()));
        let deadline = async {
            match until_deadline {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            command = self.commands.recv() => Turn::Command(command),
            packet = self.socket.receive(&mut self.buffer) => match packet {
                Ok(Packet::Ipv6 { .. }) => Turn::Ignored,
                Ok(Packet::Ipv4(packet)) => match examine(packet, &self.expected, &self.siblings) {
                    Examined::Heard(heard) => Turn::Heard(heard),
                    Examined::Dropped(reason) => {
                        self.counters.dropped(reason);
                        Turn::Ignored
                    }
                    Examined::Sibling => Turn::Ignored,
                },
                // The interface went down or something answered with an ICMP error; the link watch has its own view.
                Err(_) => Turn::Ignored,
            },
            () = deadline => Turn::Deadline,
        }
    }

    async fn handle(&mut self, now: Instant, input: Input) {
        if let Input::Heard(heard) = &input {
            self.counters.heard(heard);
            if heard.addresses_differ && !self.has_warned_of_addresses.replace(true) {
                self.tell(Event::AddressesDiffer { vip: self.vip });
            }
        }
        let mut may_send = true;
        for action in self.machine.handle(now, input) {
            match action {
                Action::SendAdvert { priority } if may_send => self.send(priority),
                Action::SendAdvert { .. } => {}
                Action::AcquireVip => self.order(Order::Acquire { vip: self.vip }),
                Action::Announce => self.order(Order::Announce { vip: self.vip }),
                Action::ReleaseVip => {
                    may_send = self.release().await;
                    if !may_send {
                        // The address may still be here: nobody may be told that it is free.
                        self.tell(Event::NotReleased { vip: self.vip });
                    }
                }
                Action::DiscardQueued => {
                    self.socket.discard_queued(&mut self.buffer);
                    self.order(Order::Introduce { vip: self.vip });
                }
                Action::RoleChanged { from, to, reason } => {
                    if (from, to) == (State::Init, State::Backup) {
                        self.order(Order::Introduce { vip: self.vip });
                    }
                    self.tell(Event::Changed { vip: self.vip, from, to, reason });
                }
            }
        }
    }

    fn reopen(&mut self) {
        match (self.open)() {
            Ok(socket) => {
                (self.socket, self.send_failures) = (socket, 0);
                self.tell(Event::Reopened { vip: self.vip });
            }
            Err(error) => self.tell(Event::Mute { vip: self.vip, error }),
        }
    }

    fn send(&mut self, priority: u8) {
        let parameters = self.machine.parameters();
        let advert = Advert {
            virtual_router_id: parameters.virtual_router_id,
            priority,
            interval: parameters.advert_interval,
            addresses: self.addresses.clone(),
        };
        match self.socket.send(&advert.encode(parameters.local_address, self.destination)) {
            Ok(()) => {
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
                self.send_failures = 0;
            }
            Err(error) => {
                self.send_failures += 1;
                if self.send_failures == SEND_FAILURES_MAX {
                    self.tell(Event::Mute { vip: self.vip, error });
                }
            }
        }
    }

    /// Has the VIP taken off the interface. False when that could not be confirmed in time.
    async fn release(&self) -> bool {
        let (done, released) = oneshot::channel();
        let order = Order::Release { vip: self.vip, done };
        if self.orders.try_send(order).is_err() {
            return false;
        }
        matches!(tokio::time::timeout(self.release_timeout, released).await, Ok(Ok(true)))
    }

    /// The queue holds more orders than a VIP could give in many seconds; when it is full, whoever serves it hangs, and
    /// the watchdog ends the guard.
    fn order(&self, order: Order) {
        drop(self.orders.try_send(order));
    }

    /// Logging may lag or lose a line; the heartbeat does not wait for it.
    fn tell(&self, event: Event) {
        drop(self.events.try_send(event));
    }
}

enum Examined {
    Heard(Heard),
    Dropped(DropReason),
    Sibling,
}

fn examine(packet: &[u8], expected: &Expected, siblings: &[u8]) -> Examined {
    let received = match decode(packet) {
        Ok(received) => received,
        Err(reason) => return Examined::Dropped(reason),
    };
    if siblings.contains(&received.advert.virtual_router_id.get()) {
        return Examined::Sibling;
    }
    match judge(&received, expected) {
        Ok(heard) => Examined::Heard(heard),
        Err(reason) => Examined::Dropped(reason),
    }
}
