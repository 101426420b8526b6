//! Our leases at the witness: the socket to it, on the heartbeat's thread.
//!
//! Each virtual router has a [`Lease`], through which it asks and hears. Nothing here waits for the witness: a datagram
//! that cannot be sent at once or gets lost is asked again with the next advert. Whatever else is to be done about a lease
//! is done here: it is renewed each second where adverts are rarer, and a node that needs none asks who has it every few
//! seconds, so that its first question in need is granted at once, and so that a witness that is gone is known before
//! that.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::counters::millis;
use crate::net::clock::Clock;
use crate::status::WitnessStatus;
use crate::units::AdvertInterval;
use crate::vrrp::witness::{self, Answer, Client, DATAGRAM_LEN_BYTES, Datagram, Key, LEASE_MAX, Name, Refusal, vip_of};

/// Answers of one VIP that may wait. More come only to a router that hangs, and the latest is not worth more to it.
const ANSWERS_MAX: usize = 16;

/// Time between two looks at what is due.
const TURN_INTERVAL: Duration = Duration::from_secs(1);

/// A lease that is held is asked for again after this time.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// After this time in which nothing was asked, somebody asks who has the lease. Less than a third of the time for which
/// a stamp of the witness is good, so that two may be lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// A witness that has not answered for so long cannot be reached: three looks.
const SILENCE_MAX: Duration = Duration::from_secs(9);

/// What the leases of a node are opened with.
pub struct Setup<'a> {
    /// Where the witness is.
    pub witness: SocketAddr,
    /// The secret that it shares with both nodes.
    pub pair_key: &'a [u8],
    /// This node.
    pub node: &'a str,
    /// The VIPs and how often each is advertised.
    pub vips: Vec<(&'a str, AdvertInterval)>,
    /// The clock by which leases are counted: that of the machines.
    pub clock: Clock,
    /// Where it is noted how the witness is.
    pub health: Arc<Health>,
}

/// What the witness says to one virtual router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The lease is ours.
    Granted {
        /// Until then, counted from the moment at which we asked. It may have passed.
        until: Instant,
    },
    /// The lease is not ours, or not yet.
    Refused(Refusal),
}

/// The lease on one VIP.
pub struct Lease {
    shared: Rc<Shared>,
    vip: usize,
    answers: mpsc::Receiver<LeaseAnswer>,
}

impl Lease {
    /// Asks for the lease, or to keep it.
    pub fn ask(&self) {
        self.shared.ask(self.vip);
    }

    /// Asks for the lease for as long as a peer waits that is told of this interval, now and from here on. Returns for how
    /// long that is.
    pub fn ask_for_longer(&self, interval: AdvertInterval) -> Duration {
        let time = lease_time(interval);
        if let Some(vip) = self.shared.vips.borrow_mut().get_mut(self.vip) {
            vip.time = time;
        }
        self.ask();
        time
    }

    /// What the next process of this node goes on with.
    pub fn leave(&self) -> Option<witness::Legacy> {
        let now = self.shared.clock.now();
        self.shared.vips.borrow().get(self.vip).map(|vip| vip.client.leave(now))
    }

    /// Goes on with what another process left so long ago.
    pub fn take_over(&self, legacy: &witness::Legacy, passed: Duration) {
        let now = self.shared.clock.now();
        if let Some(vip) = self.shared.vips.borrow_mut().get_mut(self.vip) {
            vip.client.take_over(now, legacy, passed);
        }
    }

    /// Gives it back. No answer to anything that was asked before comes after this.
    pub fn give_back(&mut self) {
        while self.answers.try_recv().is_ok() {}
        self.shared.send_of(self.vip, Client::give_back);
    }

    /// The next answer. Cancel safe.
    pub async fn answer(&mut self) -> LeaseAnswer {
        match self.answers.recv().await {
            Some(answer) => answer,
            // The other end lives as long as we do.
            None => std::future::pending().await,
        }
    }
}

/// All leases of this node: a task on the heartbeat's thread.
pub struct Leases {
    shared: Rc<Shared>,
    by_name: HashMap<Name, (usize, mpsc::Sender<LeaseAnswer>)>,
}

/// What the routers and the task share. One thread, so nobody waits for anybody.
struct Shared {
    socket: UdpSocket,
    /// The same one. A runtime's socket refuses to send before the runtime has seen that it could.
    sending: StdUdpSocket,
    witness: SocketAddr,
    clock: Clock,
    health: Arc<Health>,
    vips: RefCell<Vec<Vip>>,
}

struct Vip {
    client: Client,
    time: Duration,
    asked_at: Option<Instant>,
    sent_at: Option<Instant>,
}

/// How the witness is. The heartbeat writes, the guard reads.
#[derive(Debug)]
pub struct Health {
    witness: SocketAddr,
    /// When it last answered, in milliseconds after `epoch` and one more; 0 before it first did.
    answered_at_ms: AtomicU64,
    sent: AtomicU64,
    answers: AtomicU64,
    dropped: AtomicU64,
    epoch: Instant,
}

impl Health {
    /// Of a witness that has said nothing yet.
    pub fn new(witness: SocketAddr) -> Self {
        let [answered_at_ms, sent, answers, dropped] = [const { AtomicU64::new(0) }; 4];
        Self { witness, answered_at_ms, sent, answers, dropped, epoch: Instant::now() }
    }

    /// For the node's status.
    pub fn status(&self) -> WitnessStatus {
        let at_ms = self.answered_at_ms.load(Ordering::Relaxed);
        let age = |at_ms| millis(self.epoch.elapsed()).saturating_sub(at_ms - 1);
        let last_answer_ms = (at_ms > 0).then(|| age(at_ms));
        WitnessStatus {
            address: self.witness.to_string(),
            reachable: last_answer_ms.is_some_and(|age_ms| age_ms <= millis(SILENCE_MAX)),
            last_answer_ms,
            sent: self.sent.load(Ordering::Relaxed),
            answers: self.answers.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.answered_at_ms.store(millis(self.epoch.elapsed()) + 1, Ordering::Relaxed);
    }
}

/// For how long a lease is asked for: as long as a peer waits before it asks for it, and a little less, so that the first
/// question of a peer that has heard nothing for three intervals is granted.
fn lease_time(interval: AdvertInterval) -> Duration {
    (interval.get() * 29 / 10).min(LEASE_MAX)
}

/// Opens the socket. The leases are in the order of the VIPs. Called on the heartbeat's thread.
///
/// # Errors
/// `InvalidInput` for a name that is none; what socket(2) or bind(2) says, or that there are no random numbers.
pub fn open(setup: Setup<'_>) -> io::Result<(Leases, Vec<Lease>)> {
    let any: SocketAddr = match setup.witness {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Not connected: a connected socket keeps the source address it had at first, whatever becomes of the interface.
    // What comes from elsewhere has no MAC.
    let socket = StdUdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    let name = |text: &str| Name::new(text).ok_or_else(|| invalid(text));
    let (key, boot) = (Key::derived(setup.pair_key), random_boot()?);
    let node = name(setup.node)?;
    let mut vips = Vec::new();
    for (vip, interval) in &setup.vips {
        let client = Client::new(key.clone(), node.clone(), name(vip)?, boot);
        vips.push(Vip { client, time: lease_time(*interval), asked_at: None, sent_at: None });
    }
    let shared = Rc::new(Shared {
        sending: socket.try_clone()?,
        socket: UdpSocket::from_std(socket)?,
        witness: setup.witness,
        clock: setup.clock,
        health: setup.health,
        vips: RefCell::new(vips),
    });
    let (mut leases, mut by_name) = (Vec::new(), HashMap::new());
    for (vip, (text, _)) in setup.vips.iter().enumerate() {
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        by_name.insert(name(text)?, (vip, sender));
        leases.push(Lease { shared: Rc::clone(&shared), vip, answers });
    }
    Ok((Leases { shared, by_name }, leases))
}

impl Leases {
    /// Takes answers and does what is due, for as long as the thread lives.
    pub async fn run(self) {
        let mut turns = tokio::time::interval(TURN_INTERVAL);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut buffer = [0; DATAGRAM_LEN_BYTES + 1];
        loop {
            tokio::select! {
                biased;
                received = self.shared.socket.recv_from(&mut buffer) => {
                    // An error is an ICMP message about a datagram that was lost.
                    if let Ok((length, _)) = received {
                        self.answered(buffer.get(..length).unwrap_or_default());
                    }
                }
                _ = turns.tick() => self.shared.do_what_is_due(),
            }
        }
    }

    fn answered(&self, datagram: &[u8]) {
        let Some((vip, sender)) = vip_of(datagram).and_then(|name| self.by_name.get(&name)) else {
            self.shared.health.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Some(answer) = self.shared.answered(*vip, datagram) {
            // Of a router that takes none any more, or has many to take, nobody misses one.
            drop(sender.try_send(answer));
        }
    }
}

impl Shared {
    fn ask(&self, vip: usize) {
        let now = self.clock.now();
        if let Some(vip) = self.vips.borrow_mut().get_mut(vip) {
            vip.asked_at = Some(now);
        }
        let time = self.vips.borrow().get(vip).map_or(LEASE_MAX, |vip| vip.time);
        self.send_of(vip, |client, now| client.ask(now, time));
    }

    fn send_of(&self, vip: usize, question: impl FnOnce(&mut Client, Instant) -> Datagram) {
        if let Some(vip) = self.vips.borrow_mut().get_mut(vip) {
            let now = self.clock.now();
            vip.sent_at = Some(now);
            self.send(&question(&mut vip.client, now));
        }
    }

    fn send(&self, datagram: &[u8]) {
        self.health.sent.fetch_add(1, Ordering::Relaxed);
        // A datagram that cannot be sent now is one that got lost.
        drop(self.sending.send_to(datagram, self.witness));
    }

    fn answered(&self, vip: usize, datagram: &[u8]) -> Option<LeaseAnswer> {
        let now = self.clock.now();
        let answer = self.vips.borrow_mut().get_mut(vip)?.client.answer(now, datagram);
        if answer.is_err() {
            self.health.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            self.health.answered();
        }
        match answer.ok()? {
            Answer::Granted { until } => Some(LeaseAnswer::Granted { until }),
            Answer::Refused(refusal) => Some(LeaseAnswer::Refused(refusal)),
            Answer::Again(question) => {
                self.send(&question);
                None
            }
            Answer::Seen { .. } => None,
        }
    }

    fn do_what_is_due(&self) {
        let now = self.clock.now();
        let count = self.vips.borrow().len();
        for index in 0..count {
            let (is_renewal_due, is_look_due) = self.vips.borrow().get(index).map_or((false, false), |vip| {
                let is_over = |at: Option<Instant>, time| at.is_none_or(|at| now >= at + time);
                (
                    vip.client.is_held(now) && is_over(vip.asked_at, RENEWAL_INTERVAL),
                    is_over(vip.sent_at, LOOK_INTERVAL),
                )
            });
            if is_renewal_due {
                self.ask(index);
            } else if is_look_due {
                self.send_of(index, Client::look);
            }
        }
    }
}

fn random_boot() -> io::Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(u64::from_be_bytes(bytes).max(1))
}

fn invalid(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::witness::Server;

    const KEY: [u8; 32] = [5; 32];

    /// A witness on the loopback interface that has been there for a minute.
    struct Witness {
        socket: UdpSocket,
        server: Server,
        clock: Clock,
    }

    impl Witness {
        async fn start(clock: Clock) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let server = Server::new(vec![Key::derived(&KEY)], 9, clock.now() - Duration::from_secs(60));
            Self { socket, server, clock }
        }

        /// Takes one datagram, and answers it unless it is to get lost.
        async fn turn(&mut self, is_lost: bool) {
            let mut buffer = [0; 512];
            let (length, from) = self.socket.recv_from(&mut buffer).await.unwrap();
            let reply = self.server.handle(self.clock.now(), &buffer[..length]).unwrap();
            if !is_lost {
                self.socket.send_to(&reply.datagram, from).await.unwrap();
            }
        }
    }

    fn node<'a>(name: &'a str, witness: SocketAddr, clock: Clock) -> Setup<'a> {
        let interval = AdvertInterval::new(Duration::from_millis(1000)).unwrap();
        let vips = vec![("web", interval), ("mail", interval)];
        Setup { witness, pair_key: &KEY, node: name, vips, clock, health: Arc::new(Health::new(witness)) }
    }

    fn on_the_heartbeats_thread(test: impl Future<Output = ()>) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
        let within = async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("an end") };
        runtime.block_on(within);
    }

    #[test]
    fn leases_are_asked_for_held_refused_and_given_back() {
        on_the_heartbeats_thread(async {
            let clock = Clock::start();
            let mut witness = Witness::start(clock).await;
            let addr = witness.socket.local_addr().unwrap();
            let (setup_a, setup_b) = (node("lb-a", addr, clock), node("lb-b", addr, clock));
            let (health, never) = (Arc::clone(&setup_a.health), Arc::new(Health::new(addr)));
            let (task_a, mut leases_a) = open(setup_a).unwrap();
            let (task_b, mut leases_b) = open(setup_b).unwrap();
            tokio::task::spawn_local(task_a.run());
            tokio::task::spawn_local(task_b.run());
            tokio::task::spawn_local(async move {
                loop {
                    witness.turn(false).await;
                }
            });
            let asked = clock.now();
            leases_a[0].ask();
            let LeaseAnswer::Granted { until } = leases_a[0].answer().await else { panic!("refused") };
            assert!(until >= asked + Duration::from_millis(2900) && until < clock.now() + Duration::from_millis(2900));
            leases_b[0].ask();
            let refused = leases_b[0].answer().await;
            let holder = |refusal: &Refusal| refusal.to_string();
            assert!(matches!(&refused, LeaseAnswer::Refused(refusal) if holder(refusal) == "lb-a"), "{refused:?}");
            leases_b[1].ask();
            assert!(matches!(leases_b[1].answer().await, LeaseAnswer::Granted { .. }));

            leases_a[0].give_back();
            // Datagrams of two sockets need not keep their order.
            loop {
                leases_b[0].ask();
                if matches!(leases_b[0].answer().await, LeaseAnswer::Granted { .. }) {
                    break;
                }
            }
            assert!(health.status().reachable);
            assert_eq!(health.status().dropped, 0);
            assert!(!never.status().reachable && never.status().last_answer_ms.is_none());
        });
    }

    #[test]
    fn lost_datagrams_are_asked_again_and_a_held_lease_is_renewed_by_itself() {
        on_the_heartbeats_thread(async {
            let clock = Clock::start();
            let mut witness = Witness::start(clock).await;
            let (task, mut leases) = open(node("lb-a", witness.socket.local_addr().unwrap(), clock)).unwrap();
            tokio::task::spawn_local(task.run());
            leases[0].ask();
            witness.turn(true).await;
            leases[0].ask();
            tokio::task::spawn_local(async move {
                loop {
                    witness.turn(false).await;
                }
            });
            let LeaseAnswer::Granted { until: first } = leases[0].answer().await else { panic!("refused") };
            // Nobody asks any more, and yet it goes on.
            let LeaseAnswer::Granted { until: second } = leases[0].answer().await else { panic!("refused") };
            assert!(second > first);
        });
    }

    #[test]
    fn lease_of_a_node_that_leaves_lasts_as_long_as_its_peer_is_told_to_wait() {
        on_the_heartbeats_thread(async {
            let clock = Clock::start();
            let mut witness = Witness::start(clock).await;
            let addr = witness.socket.local_addr().unwrap();
            let interval = |ms| AdvertInterval::new(Duration::from_millis(ms)).unwrap();
            let setup = Setup { vips: vec![("web", interval(100))], ..node("lb-a", addr, clock) };
            let (task, mut leases) = open(setup).unwrap();
            tokio::task::spawn_local(task.run());
            tokio::task::spawn_local(async move {
                loop {
                    witness.turn(false).await;
                }
            });
            leases[0].ask();
            let LeaseAnswer::Granted { until } = leases[0].answer().await else { panic!("refused") };
            assert!(until < clock.now() + Duration::from_millis(290));

            let asked = clock.now();
            assert_eq!(leases[0].ask_for_longer(interval(1_000)), Duration::from_millis(2_900));
            let LeaseAnswer::Granted { until } = leases[0].answer().await else { panic!("refused") };
            assert!(until >= asked + Duration::from_millis(2_900));
            // What an advert asks for meanwhile is as long.
            let asked = clock.now();
            leases[0].ask();
            let LeaseAnswer::Granted { until } = leases[0].answer().await else { panic!("refused") };
            assert!(until >= asked + Duration::from_millis(2_900));
        });
    }

    #[test]
    fn lease_is_over_when_a_peer_asks_that_heard_nothing_for_three_intervals() {
        let time = |ms| lease_time(AdvertInterval::new(Duration::from_millis(ms)).unwrap());
        assert_eq!(time(100), Duration::from_millis(290));
        assert_eq!(time(1_000), Duration::from_millis(2_900));
        assert_eq!(time(1_720), Duration::from_millis(4_988));
        assert_eq!(time(1_730), Duration::from_secs(5));
        assert_eq!(time(40_950), Duration::from_secs(5));
    }
}
