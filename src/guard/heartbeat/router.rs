//! One VIP on the heartbeat's thread: what it hears goes to its machine, and what that decides is done.

mod leaving;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::super::addresses::Order;
use super::super::counters::{VipCounters, millis};
use super::super::leases::{self, Lease};
use super::super::speaker::{Ear, Incoming, Speaker};
use super::super::vitals::Vitals;
use super::{Command, Event, SwitchoverReply};
use crate::net::clock::{Clock, since_boot};
use crate::net::neighbour::Claim;
use crate::vrrp::hello::{Hello, Opened, Stamps};
use crate::vrrp::machine::{Action, Input, LeaseAnswer, Machine, Parameters, PeerSeen, Reason, State, Waiting};
use crate::vrrp::packet::{DropReason, PRIORITY_RESIGNED};

use self::leaving::Leaving;
pub use self::leaving::Legacy;

/// Packets handled in a row before a deadline that has passed is looked at: what is queued is heard first, but a flood
/// must not keep an advert from being sent.
const BURST_MAX: u32 = 64;

/// Time between two log lines about packets of one VIP that were refused for one reason.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Time that a peer gets to hand a VIP over when it is asked to.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// What an operator can do about a node that is asked to take a VIP too early.
const NOT_SYNCED: &str = "`baton status` says why, and with --force on the active node the vip moves all the same";

/// What is remembered of the peer between two of its hellos.
#[derive(Debug, Default)]
struct Peer {
    boot: Option<u64>,
    state: Option<State>,
    handover_request: Option<u32>,
    has_told_of_addresses: bool,
    has_told_of_config: bool,
}

/// A switchover that somebody waits for.
struct Switchover {
    reply: SwitchoverReply,
    until: Instant,
}

/// Refusals for one reason.
struct Refusals {
    told_at: Option<Instant>,
    untold: u64,
}

/// What a router is made of.
pub struct Parts {
    /// Its place among the VIPs.
    pub vip: usize,
    /// For its machine.
    pub parameters: Parameters,
    /// Time that the peer may take before it begins a switchover that it is asked for.
    pub drain_max: Duration,
    /// Its voice and ears.
    pub speaker: Speaker,
    /// What its first hello says.
    pub hello: Hello,
    /// For the adverts that it sends.
    pub stamps: Stamps,
    /// The time.
    pub clock: Clock,
    /// What the witness lends us, where there is one.
    pub lease: Option<Lease>,
    /// For the janitor.
    pub vitals: Vitals,
    /// What it counts.
    pub counters: Arc<VipCounters>,
    /// From the guard.
    pub commands: mpsc::Receiver<Command>,
    /// To whoever moves addresses.
    pub orders: mpsc::Sender<Order>,
    /// To the guard.
    pub events: mpsc::Sender<Event>,
    /// What a guard before this one, in the same process, has left of it.
    pub legacy: Option<Legacy>,
}

/// One VIP: its machine, its speaker, and where its decisions go.
pub struct Router {
    vip: usize,
    machine: Machine,
    speaker: Speaker,
    /// What the next hello says; state, priority and what is heard are filled in when it is said.
    hello: Hello,
    /// When our adverts were sent, for the peer to acknowledge.
    stamps: Stamps,
    /// When the next hello is due.
    hello_at: Instant,
    advert_interval: Duration,
    drain_max: Duration,
    /// Time that taking the VIP off the interface may take before we go on without it.
    release_timeout: Duration,
    clock: Clock,
    /// What the witness lends us, where there is one.
    lease: Option<Lease>,
    vitals: Vitals,
    counters: Arc<VipCounters>,
    commands: mpsc::Receiver<Command>,
    orders: mpsc::Sender<Order>,
    events: mpsc::Sender<Event>,
    /// Where it is told who answers for an address, while that is asked.
    probed: Option<oneshot::Receiver<Claim>>,
    /// What the guard was last told that the machine waits for.
    waits: Option<std::mem::Discriminant<Waiting>>,
    peer: Peer,
    switchover: Option<Switchover>,
    leaving: Option<Leaving>,
    refusals: HashMap<DropReason, Refusals>,
    is_mute: bool,
}

/// What a turn of the loop brought.
enum Turn {
    Command(Option<Command>),
    Incoming(Incoming),
    Lease(leases::LeaseAnswer),
    Probed(Option<Claim>),
    Deadline,
}

impl Router {
    /// One that takes no part yet.
    pub fn new(parts: Parts) -> Self {
        let now = parts.clock.now();
        let advert_interval = parts.parameters.advert_interval.get();
        let machine = match &parts.legacy {
            Some(legacy) => Machine::resume(parts.parameters, now, &legacy.machine, legacy.passed()),
            None => Machine::new(parts.parameters, now),
        };
        if let Some((lease, legacy)) = parts.lease.as_ref().zip(parts.legacy.as_ref())
            && let Some(left) = &legacy.lease
        {
            lease.take_over(left, legacy.passed());
        }
        Self {
            vip: parts.vip,
            machine,
            speaker: parts.speaker,
            hello: parts.hello,
            stamps: parts.stamps,
            hello_at: now,
            advert_interval,
            drain_max: parts.drain_max,
            release_timeout: (advert_interval * 4).max(Duration::from_secs(1)),
            clock: parts.clock,
            lease: parts.lease,
            vitals: parts.vitals,
            counters: parts.counters,
            commands: parts.commands,
            orders: parts.orders,
            events: parts.events,
            probed: None,
            waits: None,
            peer: Peer::default(),
            switchover: None,
            leaving: None,
            refusals: HashMap::new(),
            is_mute: false,
        }
    }

    /// Runs until it is stopped, or the guard is gone.
    pub async fn run(mut self) {
        self.begin().await;
        let mut burst = 0;
        loop {
            let turn = self.next_turn().await;
            let now = self.clock.now();
            self.vitals.ran_at(self.vip, millis(since_boot()));
            let is_due = self.next_deadline().is_some_and(|deadline| deadline <= now);
            burst = if matches!(turn, Turn::Incoming(_)) { burst + 1 } else { 0 };
            match turn {
                Turn::Command(Some(Command::Stop(done))) => {
                    self.handle(now, Input::Stop).await;
                    // The guard may have lost patience; then there is nobody to tell.
                    let _gone = done.send(());
                    return;
                }
                Turn::Command(Some(Command::Leave(reply))) => self.begin_to_leave(now, reply),
                Turn::Command(None) => return self.handle(now, Input::Stop).await,
                Turn::Command(Some(command)) => self.obey(now, command).await,
                Turn::Incoming(Incoming::Advert(ear)) => self.heed(now, ear).await,
                Turn::Incoming(Incoming::Datagram(link, datagram)) => self.greet(now, link, &datagram).await,
                Turn::Lease(answer) => {
                    self.note_lease(now, &answer);
                    self.handle(now, Input::Lease(lease_answer(answer))).await;
                }
                Turn::Probed(claim) => self.probed(now, claim).await,
                Turn::Deadline => self.tick(now).await,
            }
            if is_due && burst >= BURST_MAX {
                burst = 0;
                self.tick(self.clock.now()).await;
            }
            if self.leaves(now) {
                return;
            }
        }
    }

    /// A machine that another process has left active holds the VIP already, and says so at once. What is not there of it
    /// is put there.
    async fn begin(&mut self) {
        let now = self.clock.now();
        if self.machine.state() == State::Active {
            self.vitals.set_held(self.vip, true);
            self.vitals.ran_at(self.vip, millis(since_boot()));
        }
        // The advert first: a machine that is not active sends none.
        self.handle(now, Input::Timer).await;
        self.handle(now, Input::Synced(self.hello.synced)).await;
        if self.machine.state() == State::Active {
            let (done, _nobody_waits) = oneshot::channel();
            self.order(Order::Acquire { vip: self.vip, done });
        }
    }

    async fn next_turn(&mut self) -> Turn {
        let until_deadline = self.next_deadline().map(|deadline| deadline.saturating_duration_since(self.clock.now()));
        let deadline = async {
            match until_deadline {
                // A sleep, however short, lasts until the next millisecond.
                Some(Duration::ZERO) => {}
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let probed = async {
            match &mut self.probed {
                Some(probed) => probed.await.ok(),
                None => std::future::pending().await,
            }
        };
        let lease = async {
            match &mut self.lease {
                Some(lease) => lease.answer().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            command = self.commands.recv() => Turn::Command(command),
            incoming = self.speaker.listen() => Turn::Incoming(incoming),
            answer = lease => Turn::Lease(answer),
            claim = probed => Turn::Probed(claim),
            () = deadline => Turn::Deadline,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let hello_at = self.says_hello().then_some(self.hello_at);
        let patience = self.switchover.as_ref().map(|switchover| switchover.until);
        let leave_at = self.leaving.as_ref().map(|leaving| leaving.until);
        [self.machine.deadline(), hello_at, patience, leave_at].into_iter().flatten().min()
    }

    /// Whether hellos go out by themselves. Those of an active node are adverts, and the machine says when.
    fn says_hello(&self) -> bool {
        self.speaker.has_links() && self.machine.state() != State::Active
    }

    /// Something may be due. The machine looks first: what a node that woke from a stall believes is not to be said.
    async fn tick(&mut self, now: Instant) {
        self.handle(now, Input::Timer).await;
        if now >= self.hello_at && self.says_hello() {
            self.say_hello(now);
        }
        if self.switchover.as_ref().is_some_and(|switchover| now >= switchover.until) {
            self.hello.handover_request = None;
            self.settle(Err(
                "the active node did not hand it over in time; ask there with `baton switchover`".to_owned()
            ));
        }
    }

    async fn obey(&mut self, now: Instant, command: Command) {
        match command {
            Command::Fit => self.handle(now, Input::Fit).await,
            Command::Unfit(reason) => self.handle(now, Input::Unfit(reason.into())).await,
            Command::Servers(pools, servers) => (self.hello.pools_up, self.hello.servers_up) = (pools, servers),
            Command::Synced(synced) => self.synced(now, synced).await,
            Command::Configured(checksum) => {
                self.hello.config_checksum = checksum;
                self.say_hello(now);
            }
            Command::Reopen => self.reopen(),
            Command::MayHandOver { force, reply } => {
                let refusal = self.machine.hand_over_is_refused(now, force);
                // Whoever asked may have gone away.
                let _gone = reply.send(refusal.map_or(Ok(()), |reason| Err(reason.to_string())));
            }
            Command::HandOver { force, reply } => self.hand_over(now, force, reply).await,
            Command::Stop(_) | Command::Leave(_) => {}
        }
    }

    /// The peer learns of it at once: an operator may be waiting for it to move the VIP.
    async fn synced(&mut self, now: Instant, synced: bool) {
        self.handle(now, Input::Synced(synced)).await;
        self.hello.synced = synced;
        self.say_hello(now);
    }

    /// An advert, or what was taken for one.
    async fn heed(&mut self, now: Instant, ear: Ear) {
        match ear {
            Ear::Heard(path, heard) => {
                self.counters.heard(path, heard.priority, heard.interval.get());
                if heard.addresses_differ && !std::mem::replace(&mut self.peer.has_told_of_addresses, true) {
                    self.tell(Event::AddressesDiffer { vip: self.vip });
                }
                self.handle(now, Input::Heard(heard)).await;
            }
            Ear::Refused(reason, source) => self.refuse(now, reason, source),
            Ear::Nothing => {}
        }
    }

    /// The network was asked who answers for the addresses. Nobody did when there is no claim.
    async fn probed(&mut self, now: Instant, claim: Option<Claim>) {
        self.probed = None;
        if let Some(claim) = claim {
            let who = format!("{} for {}", claim.hardware, claim.address);
            self.handle(now, Input::InUse(who)).await;
        }
    }

    /// A datagram of a link.
    async fn greet(&mut self, now: Instant, link: usize, datagram: &[u8]) {
        match self.speaker.open_hello(link, datagram) {
            Ok(Opened::Fresh(hello)) => self.greeted(now, link, hello).await,
            Ok(Opened::Unproven { answer_now }) => {
                if answer_now {
                    self.handle(now, Input::Timer).await;
                    self.say_hello(now);
                }
            }
            Err(reason) => self.refuse(now, reason, self.speaker.peer_of_link(link)),
        }
    }

    async fn greeted(&mut self, now: Instant, link: usize, hello: Hello) {
        if hello.config_checksum != self.hello.config_checksum
            && !std::mem::replace(&mut self.peer.has_told_of_config, true)
        {
            self.tell(Event::ConfigDiffers { vip: self.vip });
        }
        self.peer.has_told_of_config &= hello.config_checksum != self.hello.config_checksum;
        self.counters.keep(&hello);
        let was_active = self.peer.state.replace(hello.state) == Some(State::Active);
        let is_new =
            |seen: &mut Option<u32>, said: Option<u32>| said.is_some() && std::mem::replace(seen, said) != said;
        let asks_for_vip = is_new(&mut self.peer.handover_request, hello.handover_request);
        let acknowledged = self.stamps.sent_at(hello.heard_stamp);
        self.note_stamp(link, &hello);
        let Hello { state, interval, fit, synced, epoch, .. } = hello;
        let seen = PeerSeen { state, interval, fit, synced, epoch, acknowledged };
        if !self.handle_awake(now, Input::PeerSeen(seen)).await {
            return;
        }
        // That it is active no more says what a resignation says, which may have been lost; but it is no promise to let
        // us claim, and with a witness only such a promise is as good as a lease.
        let has_left = was_active && !self.machine.parameters().witness;
        let priority = if hello.state == State::Active { hello.priority } else { PRIORITY_RESIGNED };
        if (hello.state == State::Active || hello.priority == PRIORITY_RESIGNED || has_left)
            && let Some(heard) = self.speaker.heard_over_link(link, priority, hello.interval)
        {
            self.counters.heard(self.speaker.path_of_link(link), priority, hello.interval.get());
            self.handle(self.clock.now(), Input::Heard(heard)).await;
        }
        // Every one of them, as the machine may not have been able to follow the last one; it knows an old one.
        if let Some(epoch) = hello.claim_request {
            self.handle(self.clock.now(), Input::ClaimRequested { epoch }).await;
        }
        if asks_for_vip {
            self.tell(Event::Asked { vip: self.vip });
        }
    }

    /// Notes which advert of the peer was heard last, to tell it. Stamps of another process of it are not comparable.
    fn note_stamp(&mut self, link: usize, hello: &Hello) {
        let boot = self.speaker.peer_boot(link);
        let is_other = std::mem::replace(&mut self.peer.boot, boot) != boot;
        if hello.advert_stamp != 0 && (is_other || hello.advert_stamp > self.hello.heard_stamp) {
            self.hello.heard_stamp = hello.advert_stamp;
        } else if is_other {
            self.hello.heard_stamp = 0;
        }
    }

    async fn hand_over(&mut self, now: Instant, force: bool, reply: SwitchoverReply) {
        self.settle(Err("another switchover was asked for".to_owned()));
        if self.machine.state() == State::Init {
            // Nobody waits for what cannot be; the same for whoever went away.
            let _gone = reply.send(Err("this node is unfit and takes no part; `baton explain` says why".to_owned()));
            return;
        }
        let until = now + HAND_OVER_TIMEOUT.max(self.advert_interval * 4);
        // The peer has its clients leave before.
        let drain = if self.machine.state() == State::Active { Duration::ZERO } else { self.drain_max };
        self.switchover = Some(Switchover { reply, until: until + drain });
        if self.machine.state() == State::Active {
            self.handle(now, Input::HandOver { force }).await;
        } else if self.speaker.has_links() && !self.hello.synced {
            let what = if force { "only the active node can move it all the same: run it there" } else { NOT_SYNCED };
            self.settle(Err(format!("this node is not in sync; {what}")));
        } else if self.speaker.has_links() {
            self.hello.handover_request = Some(fastrand::u32(1..));
            self.say_hello(now);
        } else {
            self.settle(Err(
                "without pair.key_file the nodes cannot ask each other: run it on the active node".to_owned()
            ));
        }
    }

    /// Tells the guard what is waited for, when that is another thing than before.
    fn tell_waiting(&mut self) {
        let waiting = self.machine.waiting_for();
        let kind = waiting.as_ref().map(std::mem::discriminant);
        if kind != self.waits {
            self.waits = kind;
            self.tell(Event::Waits { vip: self.vip, what: waiting.and_then(|waiting| in_words(&waiting)) });
        }
    }

    /// Tells whoever waits for a switchover what it came to.
    fn settle(&mut self, result: Result<(), String>) {
        if let Some(switchover) = self.switchover.take() {
            // Whoever asked may have gone away.
            let _gone = switchover.reply.send(result);
        }
    }

    async fn handle(&mut self, now: Instant, input: Input) {
        self.handle_awake(now, input).await;
    }

    /// False when this process slept for so long that what is left of the packet at hand proves nothing.
    async fn handle_awake(&mut self, now: Instant, input: Input) -> bool {
        let (mut may_send, mut is_acquired, mut is_awake) = (true, true, true);
        let actions = self.machine.handle(now, input);
        if self.machine.state() == State::Active {
            // Before it is taken: if this process ends in between, the janitor looks for it.
            self.vitals.set_held(self.vip, true);
        }
        self.tell_waiting();
        for action in actions {
            match action {
                Action::SendAdvert { priority } if may_send && !self.is_old(now) => self.send(now, priority),
                Action::SendAdvert { .. } => {}
                Action::AcquireVip => is_acquired = self.acquire(now).await,
                Action::Announce => self.order(Order::Announce { vip: self.vip }),
                Action::ProbeAddresses => self.probe(now),
                Action::ReleaseVip => {
                    may_send = self.release().await;
                    if may_send {
                        self.vitals.set_held(self.vip, false);
                    } else {
                        // The address may still be here: nobody may be told that it is free.
                        self.tell(Event::NotReleased { vip: self.vip });
                    }
                }
                Action::DiscardQueued => {
                    is_awake = false;
                    self.speaker.discard_queued();
                    self.order(Order::Introduce { vip: self.vip });
                }
                Action::RequestClaim => self.say_hello(now),
                Action::HandOverDone => self.settle(Ok(())),
                Action::HandOverFailed { reason } => {
                    self.tell(Event::HandOverFailed { vip: self.vip, reason: reason.to_string() });
                    self.settle(Err(reason.to_string()));
                }
                Action::AskLease => {
                    if let Some(lease) = &self.lease {
                        lease.ask();
                    }
                }
                Action::GiveLeaseBack => {
                    if let Some(lease) = &mut self.lease {
                        lease.give_back();
                    }
                }
                Action::RoleChanged { from, to, reason } => self.role_changed(now, from, to, reason),
            }
        }
        if !is_acquired {
            // The peer still holds it and is not to hear that we do. The guard is told why by whoever was to place it.
            let why = Input::Unfit("the vip could not be put on its interface".into());
            Box::pin(self.handle(self.clock.now(), why)).await;
        }
        is_awake
    }

    /// Whether a decision of then is too old to be told, because the process was frozen or the addresses took so long.
    fn is_old(&self, now: Instant) -> bool {
        self.clock.now().saturating_duration_since(now) >= self.advert_interval * 3
    }

    /// Has the VIP put on its interfaces. False when that failed, and the peer holds it.
    ///
    /// Where an advert has gone before, nobody waits for it. Where one is due as soon as it is there, the peer holds the
    /// VIP until it hears that one. Should it take so long that the peer would give us up, so does the machine.
    async fn acquire(&mut self, now: Instant) -> bool {
        let (done, acquired) = oneshot::channel();
        self.order(Order::Acquire { vip: self.vip, done });
        if self.machine.deadline().is_none_or(|deadline| deadline > now) {
            return true;
        }
        !matches!(tokio::time::timeout(self.advert_interval * 4, acquired).await, Ok(Ok(false)))
    }

    /// Has the network asked who answers for the addresses, while the machine waits.
    fn probe(&mut self, now: Instant) {
        let within = self.machine.deadline().map_or(self.advert_interval, |at| at.saturating_duration_since(now));
        let (found, answer) = oneshot::channel();
        self.probed = Some(answer);
        self.order(Order::Probe { vip: self.vip, within, found });
    }

    fn role_changed(&mut self, now: Instant, from: State, to: State, reason: Reason) {
        if (from, to) == (State::Init, State::Backup) {
            self.order(Order::Introduce { vip: self.vip });
        }
        if to == State::Active && self.hello.handover_request.take().is_some() {
            self.settle(Ok(()));
        }
        if to != State::Active {
            // Adverts go out no more; whoever listens learns at once, and from now on by hellos alone.
            self.say_hello(now);
        }
        self.tell(Event::Changed { vip: self.vip, from, to, reason, epoch: self.machine.epoch() });
    }

    fn refuse(&mut self, now: Instant, reason: DropReason, source: Option<IpAddr>) {
        self.counters.dropped(reason);
        let refusals = self.refusals.entry(reason).or_insert(Refusals { told_at: None, untold: 0 });
        refusals.untold += 1;
        if refusals.told_at.is_none_or(|at| now.saturating_duration_since(at) >= REFUSAL_LOG_INTERVAL) {
            refusals.told_at = Some(now);
            let count = std::mem::take(&mut refusals.untold);
            self.tell(Event::Refused { vip: self.vip, reason, source, count });
        }
    }

    fn reopen(&mut self) {
        match self.speaker.open_vrrp() {
            Ok(()) => {
                self.is_mute = false;
                self.tell(Event::Reopened { vip: self.vip });
            }
            Err(error) => self.tell(Event::Mute { vip: self.vip, error }),
        }
    }

    fn send(&mut self, now: Instant, priority: u8) {
        let mut hello = Hello { advert_stamp: self.stamps.next(now), ..self.present_hello(priority) };
        if priority != PRIORITY_RESIGNED {
            // Also the last one of a node that gives way: the winner has to hear that there was another holder.
            hello.state = State::Active;
        }
        self.hello_at = now + self.advert_interval * 3 / 2;
        let result = self.speaker.advertise(priority, &hello);
        self.speaker.note(self.vip, &self.vitals);
        match result {
            Ok(()) => self.is_mute = false,
            Err(error) => {
                if !std::mem::replace(&mut self.is_mute, true) {
                    self.tell(Event::Mute { vip: self.vip, error });
                }
            }
        }
    }

    /// Says hello between adverts, and where there are none.
    fn say_hello(&mut self, now: Instant) {
        self.hello_at = now + self.advert_interval;
        if self.speaker.has_links() {
            let hello = self.present_hello(self.machine.parameters().priority.get());
            // One that is lost is followed by another; the counters of the path say that it was.
            drop(self.speaker.hello(&hello));
            self.speaker.note(self.vip, &self.vitals);
        }
    }

    fn present_hello(&self, priority: u8) -> Hello {
        Hello {
            state: self.machine.state(),
            priority,
            interval: self.machine.parameters().advert_interval,
            epoch: self.machine.epoch(),
            fit: self.machine.state() != State::Init,
            claim_request: self.machine.claim_request(),
            heard_paths: self.counters.heard_paths(self.advert_interval * 4),
            ..self.hello
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

/// What the witness said, for the machine.
fn lease_answer(answer: leases::LeaseAnswer) -> LeaseAnswer {
    match answer {
        leases::LeaseAnswer::Granted { until } => LeaseAnswer::Granted { until },
        leases::LeaseAnswer::Refused(refusal) => LeaseAnswer::Refused { holder: refusal.to_string() },
    }
}

/// What a machine waits for, in words; nothing of what goes without saying.
fn in_words(waiting: &Waiting) -> Option<String> {
    match waiting {
        Waiting::Fitness | Waiting::Silence { .. } | Waiting::Skew { .. } => None,
        Waiting::AddressInUse { who, .. } => {
            Some(format!("another machine answers before anybody has claimed the vip: {who}"))
        }
        Waiting::Lease { holder: Some(holder), .. } => {
            Some(format!("the peer is silent, and the witness does not lend the vip: {holder}"))
        }
        Waiting::Lease { holder: None, .. } => Some("the peer is silent, and the witness has not answered".to_owned()),
        Waiting::Hold { .. } => {
            Some("until it has been fit and synced for long enough to take the vip back from the peer".to_owned())
        }
        Waiting::Sync => Some("to be synced, before it takes the vip back from the peer".to_owned()),
        Waiting::HandedOver => {
            Some("for the peer to give the vip up or hand it back, as an operator moved it there".to_owned())
        }
        Waiting::Claim { .. } => Some("for the peer to claim the vip, as a switchover is under way".to_owned()),
    }
}
