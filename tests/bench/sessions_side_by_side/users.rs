//! What the clients ask for: sessions of new users, the same users once more, or users at a steady pace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use baton::lab::namespace::Namespace;

use crate::client::{Answer, Clients, Next, Source};

/// Connections of the clients.
const CONNECTIONS: usize = 48;

/// Time for any load.
const LOAD_MAX: Duration = Duration::from_secs(3600);

/// Time for all users to be asked once more, for each of them and in any case.
const CHECK_TIMEOUT_EACH: Duration = Duration::from_micros(1_000);
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// A session that a client has seen acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    pub user: u32,
    pub server: u8,
    pub at: Instant,
}

/// New users at a pace; and after each so many of them, one that has a session already.
pub struct NewUsers {
    begun: Instant,
    interval: Duration,
    asked: u32,
    repeat_every: Option<u32>,
    /// By user.
    sessions: Vec<Option<Acknowledged>>,
    known: Vec<u32>,
    /// Users that met another server than before.
    pub moved: u32,
    pub failed: u32,
}

impl NewUsers {
    /// `rate` new ones a second. With `repeat_every` = 2, every third request comes from a user with a session.
    pub fn new(rate: u32, repeat_every: Option<u32>) -> Self {
        let requests = repeat_every.map_or(f64::from(rate), |every| f64::from(rate) * (1.0 + 1.0 / f64::from(every)));
        Self {
            begun: Instant::now(),
            interval: Duration::from_secs_f64(1.0 / requests),
            asked: 0,
            repeat_every,
            sessions: Vec::new(),
            known: Vec::new(),
            moved: 0,
            failed: 0,
        }
    }

    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.sessions.iter().flatten().copied().collect()
    }

    /// New sessions a second until `until`.
    pub fn pace(&self, until: Instant) -> f64 {
        self.known.len() as f64 / (until - self.begun).as_secs_f64()
    }
}

impl Source for NewUsers {
    fn next(&mut self, now: Instant) -> Next {
        let due = self.begun + self.interval * self.asked;
        if due > now {
            return Next::Wait(due);
        }
        self.asked += 1;
        let is_repeat = self.repeat_every.is_some_and(|every| self.asked.is_multiple_of(every + 1));
        if is_repeat && !self.known.is_empty() {
            return Next::Ask { user: self.known[fastrand::usize(..self.known.len())], due };
        }
        self.sessions.push(None);
        Next::Ask { user: u32::try_from(self.sessions.len() - 1).unwrap_or(u32::MAX), due }
    }

    fn answered(&mut self, Answer { user, server, at, .. }: Answer) {
        match &self.sessions[user as usize] {
            Some(session) => self.moved += u32::from(session.server != server),
            None => {
                self.sessions[user as usize] = Some(Acknowledged { user, server, at });
                self.known.push(user);
            }
        }
    }

    fn failed(&mut self, _user: u32) {
        self.failed += 1;
    }
}

/// New users at work on a thread of their own.
pub struct Load {
    stop: Arc<AtomicBool>,
    outcome: mpsc::Receiver<Result<NewUsers>>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Load {
    pub fn start(
        client: &Namespace,
        target: SocketAddr,
        tag: u32,
        (rate, repeat_every): (u32, Option<u32>),
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, outcome) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let thread = client.spawn("users", move || {
            let mut users = NewUsers::new(rate, repeat_every);
            let deadline = Instant::now() + LOAD_MAX;
            let clients = Clients { target, connections: CONNECTIONS, tag, deadline };
            let ran = clients.run(&mut users, &stopped);
            // Whoever does not want to know has given up.
            let _unwanted = sender.send(ran.map(|()| users));
        })?;
        Ok(Self { stop, outcome, thread })
    }

    /// Stops at once, whatever is under way.
    pub fn stop(self) -> Result<NewUsers> {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.outcome.recv().context("the users' thread ended")?;
        // It has nothing left to say.
        let _ended = self.thread.join();
        outcome
    }
}

/// Users that are asked for once more.
struct Check {
    left: Vec<Acknowledged>,
    expected: Vec<Option<u8>>,
    moved: u64,
}

impl Source for Check {
    fn next(&mut self, now: Instant) -> Next {
        match self.left.pop() {
            Some(session) => Next::Ask { user: session.user, due: now },
            None => Next::Done,
        }
    }

    fn answered(&mut self, answer: Answer) {
        if let Some(expected) = self.expected[answer.user as usize].take() {
            self.moved += u64::from(expected != answer.server);
        }
    }

    fn failed(&mut self, user: u32) {
        // Tried again, until somebody answers.
        if let Some(server) = self.expected[user as usize] {
            self.left.push(Acknowledged { user, server, at: Instant::now() });
        }
    }
}

/// Asks once more for each of these users, and counts those that meet another server.
pub fn count_moved(client: &Namespace, target: SocketAddr, tag: u32, users: &[Acknowledged]) -> Result<u64> {
    let places = users.iter().map(|session| session.user as usize + 1).max().unwrap_or(0);
    let mut expected = vec![None; places];
    for session in users {
        expected[session.user as usize] = Some(session.server);
    }
    let patience = CHECK_TIMEOUT + CHECK_TIMEOUT_EACH * u32::try_from(users.len())?;
    let mut check = Check { left: users.to_vec(), expected, moved: 0 };
    let clients = Clients { target, connections: CONNECTIONS, tag, deadline: Instant::now() + patience };
    client.run(|| clients.run(&mut check, &AtomicBool::new(false)))??;
    let unanswered = check.expected.iter().flatten().count();
    anyhow::ensure!(unanswered == 0, "{unanswered} users got no answer after the failover");
    Ok(check.moved)
}

/// A fixed number of users at a steady pace, whose answers are timed from when they were due.
pub struct Steady {
    begun: Instant,
    until: Instant,
    interval: Duration,
    asked: u32,
    users: u32,
    /// When a request was due, and how long it took from then on, in microseconds.
    pub latencies: Vec<(Instant, u32)>,
    pub failed: u32,
}

impl Steady {
    pub fn new(rate: u32, users: u32, begun: Instant, length: Duration) -> Self {
        let interval = Duration::from_secs_f64(1.0 / f64::from(rate));
        Self { begun, until: begun + length, interval, asked: 0, users, latencies: Vec::new(), failed: 0 }
    }

    /// Plays it to its end.
    pub fn play(mut self, client: &Namespace, target: SocketAddr, tag: u32) -> Result<Self> {
        let deadline = self.until + CHECK_TIMEOUT;
        let clients = Clients { target, connections: CONNECTIONS, tag, deadline };
        client.run(|| clients.run(&mut self, &AtomicBool::new(false)))??;
        Ok(self)
    }
}

impl Source for Steady {
    fn next(&mut self, now: Instant) -> Next {
        let due = self.begun + self.interval * self.asked;
        if due >= self.until {
            return Next::Done;
        }
        if due > now {
            return Next::Wait(due);
        }
        self.asked += 1;
        Next::Ask { user: fastrand::u32(..self.users), due }
    }

    fn answered(&mut self, answer: Answer) {
        let latency = answer.at.saturating_duration_since(answer.due);
        self.latencies.push((answer.due, u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)));
    }

    fn failed(&mut self, _user: u32) {
        self.failed += 1;
    }
}
