//! Many clients on one thread: kept connections, each with one request under way, as cheap as can be, for they share the
//! machine with what they measure.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Time for a connection to come about, below the kernel's first retry of a SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// Time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after a connection that broke.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// The longest time in which nothing is looked at.
const POLL_MAX: Duration = Duration::from_millis(50);

/// What a source of requests has to ask now.
pub enum Next {
    /// Ask for this user; it was due then.
    Ask { user: u32, due: Instant },
    /// Nothing before that time.
    Wait(Instant),
    /// Nothing any more.
    Done,
}

/// A whole answer with status 200.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub user: u32,
    /// Which server it says it is, counted from 1.
    pub server: u8,
    /// When the request was due.
    pub due: Instant,
    /// When all of the answer was here.
    pub at: Instant,
}

/// Where requests come from, and answers go.
pub trait Source {
    fn next(&mut self, now: Instant) -> Next;
    fn answered(&mut self, answer: Answer);
    /// No good answer came.
    fn failed(&mut self, user: u32);
}

/// The clients. Users are told from those of other rounds by `tag`.
#[derive(Debug, Clone, Copy)]
pub struct Clients {
    pub target: SocketAddr,
    pub connections: usize,
    pub tag: u32,
    /// When it ends in any case.
    pub deadline: Instant,
}

/// What a user is called in requests and tables: 32 bytes, of which the first 16 tell it from others.
pub fn user_name(tag: u32, user: u32) -> String {
    format!("{tag:08x}{user:08x}{:016x}", 0)
}

enum State {
    Closed { until: Instant },
    Connecting { since: Instant },
    Idle,
    Asked { user: u32, due: Instant, since: Instant },
}

struct Connection {
    socket: Option<TcpStream>,
    state: State,
    buffer: Vec<u8>,
}

/// The head of an answer.
struct Head {
    is_good: bool,
    server: Option<u8>,
    closes: bool,
    /// With the body.
    length: usize,
}

impl Clients {
    /// Asks until the source has no more, or it is told to stop or late; then nobody waits for what is under way. To be called in
    /// the clients' namespace.
    pub fn run(&self, source: &mut dyn Source, stop: &AtomicBool) -> Result<()> {
        let now = Instant::now();
        let mut connections: Vec<Connection> = (0..self.connections).map(|_| Connection::closed(now)).collect();
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= self.deadline {
                return Ok(());
            }
            connections.iter_mut().for_each(|connection| connection.keep(self.target, source, now));
            let (wake, is_done) = self.hand_out(&mut connections, source, now);
            if is_done && !connections.iter().any(|connection| matches!(connection.state, State::Asked { .. })) {
                return Ok(());
            }
            let wake = if is_done { now + POLL_MAX } else { wake };
            for index in wait(&connections, wake)? {
                connections[index].progress(source);
            }
        }
        Ok(())
    }

    /// Gives idle connections what is due. The time at which more is due, and whether there will be no more.
    fn hand_out(&self, connections: &mut [Connection], source: &mut dyn Source, now: Instant) -> (Instant, bool) {
        for connection in connections.iter_mut().filter(|connection| matches!(connection.state, State::Idle)) {
            match source.next(now) {
                Next::Ask { user, due } => connection.ask(&user_name(self.tag, user), user, due, source),
                Next::Wait(until) => return (until.min(now + POLL_MAX), false),
                Next::Done => return (now, true),
            }
        }
        (now + POLL_MAX, false)
    }
}

/// Waits until something happens on a connection, and gives their places.
fn wait(connections: &[Connection], wake: Instant) -> Result<Vec<usize>> {
    let mut places = Vec::with_capacity(connections.len());
    let mut polled = Vec::with_capacity(connections.len());
    for (place, connection) in connections.iter().enumerate() {
        let Some(socket) = &connection.socket else { continue };
        let is_connecting = matches!(connection.state, State::Connecting { .. });
        let flags = if is_connecting { PollFlags::OUT } else { PollFlags::IN };
        polled.push(PollFd::from_borrowed_fd(socket.as_fd(), flags));
        places.push(place);
    }
    let timeout = wake.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.min(POLL_MAX).subsec_nanos()) };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno).context("failed to wait for answers"),
    }
    let ready = places.into_iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
    Ok(ready.map(|(place, _)| place).collect())
}

impl Connection {
    fn closed(until: Instant) -> Self {
        Self { socket: None, state: State::Closed { until }, buffer: Vec::with_capacity(1024) }
    }

    /// Opens it when it is closed, and gives up what takes too long.
    fn keep(&mut self, target: SocketAddr, source: &mut dyn Source, now: Instant) {
        match self.state {
            State::Closed { until } if now >= until => match connect(target) {
                Ok(socket) => {
                    self.socket = Some(socket);
                    self.state = State::Connecting { since: now };
                }
                Err(_) => *self = Self::closed(now + RECONNECT_PAUSE),
            },
            State::Connecting { since } if now - since > CONNECT_TIMEOUT => *self = Self::closed(now),
            State::Asked { since, .. } if now.saturating_duration_since(since) > ANSWER_TIMEOUT => {
                self.give_up(source, now);
            }
            _ => {}
        }
    }

    fn ask(&mut self, name: &str, user: u32, due: Instant, source: &mut dyn Source) {
        self.state = State::Asked { user, due, since: Instant::now() };
        let request = format!("GET / HTTP/1.1\r\nHost: bench\r\nX-User: {name}\r\n\r\n");
        let sent = self.socket.as_mut().map(|socket| socket.write(request.as_bytes()));
        if !matches!(sent, Some(Ok(length)) if length == request.len()) {
            self.give_up(source, Instant::now());
        }
    }

    /// Something has happened on it.
    fn progress(&mut self, source: &mut dyn Source) {
        let now = Instant::now();
        let Some(socket) = &mut self.socket else { return };
        if matches!(self.state, State::Connecting { .. }) {
            let is_open = matches!(socket.take_error(), Ok(None)) && socket.peer_addr().is_ok();
            if is_open {
                self.state = State::Idle;
            } else {
                *self = Self::closed(now + RECONNECT_PAUSE);
            }
            return;
        }
        let mut piece = [0; 4096];
        match socket.read(&mut piece) {
            Ok(0) => return self.give_up(source, now),
            Ok(length) => self.buffer.extend_from_slice(&piece[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.give_up(source, now),
        }
        let Some(head) = Head::parse(&self.buffer) else { return };
        if self.buffer.len() < head.length {
            return;
        }
        let State::Asked { user, due, .. } = self.state else { return self.give_up(source, now) };
        self.buffer.clear();
        self.state = State::Idle;
        match head.server.filter(|_| head.is_good) {
            Some(server) => source.answered(Answer { user, server, due, at: Instant::now() }),
            None => source.failed(user),
        }
        if head.closes {
            *self = Self::closed(now);
        }
    }

    fn give_up(&mut self, source: &mut dyn Source, now: Instant) {
        if let State::Asked { user, .. } = self.state {
            source.failed(user);
        }
        *self = Self::closed(now + RECONNECT_PAUSE);
    }
}

fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket.into()),
    }
}

impl Head {
    /// `None` until it is whole.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = text.split("\r\n");
        let is_good = lines.next().is_some_and(|line| line.get(9..12) == Some("200"));
        let mut head = Self { is_good, server: None, closes: false, length: end };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = end + value.parse().unwrap_or(0);
            } else if name.eq_ignore_ascii_case("x-server") {
                head.server = value.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                head.closes = value.eq_ignore_ascii_case("close");
            }
        }
        Some(head)
    }
}
