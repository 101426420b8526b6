//! The heartbeat: one thread that sends and hears adverts, and does nothing else.
//!
//! It is scheduled before every ordinary process, opens no file, writes no log and makes no netlink call. What has to
//! be done about a decision it tells others over bounded queues: [`super::addresses`] moves the VIP, [`super`] logs.
//! Each VIP has a task here, a [`Router`]: its machine decides, its [`Speaker`] talks.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::addresses::Order;
use super::counters::{VipCounters, millis};
use super::leases::{self, Lease};
use super::links;
use super::speaker::{Ear, Incoming, Speaker, Voice};
use super::vitals::Vitals;
use crate::net::clock::{Clock, since_boot};
use crate::net::neighbour::Claim;
use crate::units::AdvertInterval;
use crate::vrrp::hello::{Hello, Opened, Stamps};
use crate::vrrp::machine::{Action, Input, LeaseAnswer, Machine, Parameters, PeerSeen, Reason, State, Waiting};
use crate::vrrp::packet::{DropReason, PRIORITY_RESIGNED};

/// Real-time priority of the thread: above the usual 1 to 49 of ordinary real-time work, below kernel threads at 99.
const REALTIME_PRIORITY: i32 = 50;

/// Packets handled in a row before a deadline that has passed is looked at: what is queued is heard first, but a flood
/// must not keep an advert from being sent.
const BURST_MAX: u32 = 64;

/// Time between two signs of life of the thread.
const PULSE_INTERVAL: Duration = Duration::from_millis(100);

/// Time between two log lines about packets of one VIP that were refused for one reason.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Time that a peer gets to hand a VIP over when it is asked to.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that the node's own addresses get at the start to become usable, and time between two looks.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
const ADDRESS_POLL: Duration = Duration::from_millis(100);

/// What one VIP is started with.
pub struct Setup {
    /// Its place among the VIPs.
    pub vip: usize,
    /// For its machine.
    pub parameters: Parameters,
    /// For its speaker.
    pub voice: Voice,
    /// The first bytes of the configuration's checksum.
    pub config_checksum: [u8; 8],
    /// What it counts.
    pub counters: Arc<VipCounters>,
    /// From the guard.
    pub commands: mpsc::Receiver<Command>,
}

/// What a switchover came to: why it was refused, in words.
pub type SwitchoverReply = oneshot::Sender<Result<(), String>>;

/// From the guard to one VIP.
#[derive(Debug)]
pub enum Command {
    /// It may take part.
    Fit,
    /// It must not hold the VIP, and why.
    Unfit(String),
    /// What this node sees of the servers behind the VIP: pools with a server that is up, and servers that are up.
    Servers(u16, u16),
    /// Open the sockets anew, and tell how that went.
    Reopen,
    /// Move the VIP: to the peer when we hold it, to us when the peer does.
    HandOver {
        /// Also while this node or the peer is not synced.
        force: bool,
        /// Told in the end.
        reply: SwitchoverReply,
    },
    /// Give the VIP up and say when that is done.
    Stop(oneshot::Sender<()>),
}

/// From the heartbeat to the guard.
#[derive(Debug)]
pub enum Event {
    /// The role for a VIP changed.
    Changed {
        /// Which.
        vip: usize,
        /// From this.
        from: State,
        /// To this.
        to: State,
        /// Why.
        reason: Reason,
        /// Takeovers of this VIP so far, by whichever node.
        epoch: u32,
    },
    /// The VIP could not be taken off the interface in time, so no resignation was sent.
    NotReleased {
        /// Which.
        vip: usize,
    },
    /// Adverts cannot be sent: several in a row failed on every path, or the sockets could not be opened anew.
    Mute {
        /// Which.
        vip: usize,
        /// Why.
        error: std::io::Error,
    },
    /// The sockets were opened anew.
    Reopened {
        /// Which.
        vip: usize,
    },
    /// The peer lists other addresses for this VIP than our configuration does.
    AddressesDiffer {
        /// Which.
        vip: usize,
    },
    /// The peer runs another configuration.
    ConfigDiffers {
        /// The VIP it was noticed for.
        vip: usize,
    },
    /// Packets were refused. At most one event in ten seconds for each VIP and reason.
    Refused {
        /// Which.
        vip: usize,
        /// Why.
        reason: DropReason,
        /// Where the last one came from, where that could be read.
        source: Option<IpAddr>,
        /// How many since the last event.
        count: u64,
    },
    /// What the machine waits for changed.
    Waits {
        /// Which.
        vip: usize,
        /// In words; `None` when it waits for nothing but the silence of the peer.
        what: Option<String>,
    },
    /// A switchover did not come about, and why.
    HandOverFailed {
        /// Which.
        vip: usize,
        /// In words.
        reason: String,
    },
}

/// The witness that decides when the nodes cannot hear each other.
pub struct Witness {
    /// Where it is.
    pub address: SocketAddr,
    /// Where it is noted how it is.
    pub health: Arc<leases::Health>,
}

/// The running thread.
pub struct Heartbeat {
    /// Rises ten times a second while the thread lives.
    pub pulse: Arc<AtomicU64>,
    /// Why it is not scheduled before other processes, where it is not.
    pub not_realtime: Option<std::io::Error>,
    /// The links of the pair, for the janitor.
    pub links: Vec<OwnedFd>,
}

/// Which VIP could not be started, where it was one, and what the kernel says.
pub type StartFailure = (Option<usize>, std::io::Error);

/// Starts the thread, which holds the lifeline of `vitals`. Returns once every socket is open.
///
/// # Errors
/// When the thread cannot be started or a socket cannot be opened: which VIP, and what the kernel says.
pub fn start(
    setups: Vec<Setup>,
    links: links::Setup,
    witness: Option<Witness>,
    vitals: Vitals,
    orders: mpsc::Sender<Order>,
    events: mpsc::Sender<Event>,
) -> Result<Heartbeat, StartFailure> {
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
            match open_all(setups, links, witness, &vitals, &orders, &events).await {
                Ok((routers, links)) => {
                    for router in routers {
                        tokio::task::spawn_local(router.run());
                    }
                    drop(report.send(Ok((not_realtime, links))));
                    beat(&thread_pulse).await;
                }
                Err(error) => drop(report.send(Err(error))),
            }
        });
    };
    std::thread::Builder::new().name("heartbeat".to_owned()).spawn(run).map_err(|error| (None, error))?;
    let started = started.recv().map_err(|_| (None, std::io::Error::other("the heartbeat thread ended")))?;
    let (not_realtime, links) = started?;
    Ok(Heartbeat { pulse, not_realtime, links })
}

/// Shows that the thread lives, for as long as the process does: also while the worker drains, with every router stopped.
async fn beat(pulse: &AtomicU64) {
    let mut turns = tokio::time::interval(PULSE_INTERVAL);
    loop {
        turns.tick().await;
        pulse.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tries again while an address cannot be used yet: until the kernel has asked the link whether somebody else has a new
/// IPv6 address, which takes it a second or two after boot (RFC 4862 section 5.4).
async fn once_addressed<T>(mut open: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    let until = Instant::now() + ADDRESS_TIMEOUT;
    loop {
        match open() {
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable && Instant::now() < until => {
                tokio::time::sleep(ADDRESS_POLL).await;
            }
            result => return result,
        }
    }
}

async fn open_all(
    setups: Vec<Setup>,
    links: links::Setup,
    witness: Option<Witness>,
    vitals: &Vitals,
    orders: &mpsc::Sender<Order>,
    events: &mpsc::Sender<Event>,
) -> Result<(Vec<Router>, Vec<OwnedFd>), StartFailure> {
    let clock = Clock::start();
    vitals.hold_lifeline().map_err(|error| (None, error))?;
    let opened = once_addressed(|| links::open(&links)).await.map_err(|error| (None, error))?;
    let for_janitor = links::descriptors(&opened).map_err(|error| (None, error))?;
    let vips = setups.iter().map(|setup| (setup.voice.vip.name.as_str(), setup.voice.vip.advert_interval)).collect();
    let mut leases = open_leases(&links, witness, vips, clock).map_err(|error| (None, error))?.into_iter();
    let mut mailboxes = HashMap::new();
    let mut routers = Vec::new();
    for setup in setups {
        let name = setup.voice.vip.name.clone();
        let (ends, mailbox) = links::join(&links, &opened, &name, &mut mailboxes);
        let mut speaker = Speaker::new(setup.voice, ends, mailbox, Arc::clone(&setup.counters));
        once_addressed(|| speaker.open_vrrp()).await.map_err(|error| (Some(setup.vip), error))?;
        let advert_interval = setup.parameters.advert_interval.get();
        let now = clock.now();
        routers.push(Router {
            vip: setup.vip,
            hello: links::first_hello(setup.config_checksum, &setup.parameters),
            machine: Machine::new(setup.parameters, now),
            speaker,
            stamps: Stamps::new(links.boot),
            hello_at: now,
            advert_interval,
            release_timeout: (advert_interval * 4).max(Duration::from_secs(1)),
            clock,
            lease: leases.next(),
            vitals: vitals.clone(),
            counters: setup.counters,
            commands: setup.commands,
            orders: orders.clone(),
            events: events.clone(),
            probed: None,
            waits: None,
            peer: Peer::default(),
            switchover: None,
            refusals: HashMap::new(),
            is_mute: false,
        });
    }
    let mailboxes = Rc::new(mailboxes);
    for (index, link) in opened.into_iter().enumerate() {
        tokio::task::spawn_local(links::read(index, link, Rc::clone(&mailboxes)));
    }
    Ok((routers, for_janitor))
}

/// A lease for each VIP, and the task that speaks with the witness; none without one.
fn open_leases(
    links: &links::Setup,
    witness: Option<Witness>,
    vips: Vec<(&str, AdvertInterval)>,
    clock: Clock,
) -> std::io::Result<Vec<Lease>> {
    let Some(Witness { address, health }) = witness else { return Ok(Vec::new()) };
    let (pair_key, node) = (links.key.as_slice(), links.own_node.as_str());
    let (task, leases) = leases::open(leases::Setup { witness: address, pair_key, node, vips, clock, health })?;
    tokio::task::spawn_local(task.run());
    Ok(leases)
}

/// What is remembered of the peer between two of its hellos.
#[derive(Debug, Default)]
struct Peer {
    boot: Option<u64>,
    state: Option<State>,
    claim_request: Option<u32>,
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

/// One VIP: its machine, its speaker, and where its decisions go.
struct Router {
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
    async fn run(mut self) {
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
                Turn::Command(None) => return self.handle(now, Input::Stop).await,
                Turn::Command(Some(command)) => self.obey(now, command).await,
                Turn::Incoming(Incoming::Advert(ear)) => self.heed(now, ear).await,
                Turn::Incoming(Incoming::Datagram(link, datagram)) => self.greet(now, link, &datagram).await,
                Turn::Lease(answer) => self.handle(now, Input::Lease(lease_answer(answer))).await,
                Turn::Probed(claim) => self.probed(now, claim).await,
                Turn::Deadline => self.tick(now).await,
            }
            if is_due && burst >= BURST_MAX {
                burst = 0;
                self.tick(self.clock.now()).await;
            }
        }
    }

    async fn next_turn(&mut self) -> Turn {
        let until_deadline = self.next_deadline().map(|deadline| deadline.saturating_duration_since(self.clock.now()));
        let deadline = async {
            match until_deadline {
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
        let hello_at = self.speaker.has_links().then_some(self.hello_at);
        let patience = self.switchover.as_ref().map(|switchover| switchover.until);
        [self.machine.deadline(), hello_at, patience].into_iter().flatten().min()
    }

    /// Something may be due. The machine looks first: what a node that woke from a stall believes is not to be said.
    async fn tick(&mut self, now: Instant) {
        self.handle(now, Input::Timer).await;
        if now >= self.hello_at {
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
            Command::Reopen => self.reopen(),
            Command::HandOver { force, reply } => self.hand_over(now, force, reply).await,
            Command::Stop(_) => {}
        }
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
        let asks_us_to_claim = is_new(&mut self.peer.claim_request, hello.claim_request);
        let asks_for_vip = is_new(&mut self.peer.handover_request, hello.handover_request);
        let acknowledged = self.stamps.sent_at(hello.heard_stamp);
        self.note_stamp(link, &hello);
        let Hello { state, interval, fit, synced, epoch, .. } = hello;
        let seen = PeerSeen { state, interval, fit, synced, epoch, acknowledged };
        self.handle(now, Input::PeerSeen(seen)).await;
        // That it is active no more says what a resignation says, which may have been lost.
        let priority = if hello.state == State::Active { hello.priority } else { PRIORITY_RESIGNED };
        if (hello.state == State::Active || hello.priority == PRIORITY_RESIGNED || was_active)
            && let Some(heard) = self.speaker.heard_over_link(link, priority, hello.interval)
        {
            self.counters.heard(self.speaker.path_of_link(link), priority, hello.interval.get());
            self.handle(now, Input::Heard(heard)).await;
        }
        if let Some(epoch) = hello.claim_request.filter(|_| asks_us_to_claim) {
            self.handle(now, Input::ClaimRequested { epoch }).await;
        }
        if asks_for_vip {
            self.handle(now, Input::HandOver { force: false }).await;
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
        self.switchover = Some(Switchover { reply, until: now + HAND_OVER_TIMEOUT.max(self.advert_interval * 4) });
        if self.machine.state() == State::Active {
            self.handle(now, Input::HandOver { force }).await;
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
        let mut may_send = true;
        let actions = self.machine.handle(now, input);
        if self.machine.state() == State::Active {
            // Before it is taken: if this process ends in between, the janitor looks for it.
            self.vitals.set_held(self.vip, true);
        }
        self.tell_waiting();
        for action in actions {
            match action {
                Action::SendAdvert { priority } if may_send => self.send(now, priority),
                Action::SendAdvert { .. } => {}
                Action::AcquireVip => self.order(Order::Acquire { vip: self.vip }),
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
