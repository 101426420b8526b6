//! Three servers, the first of which can be made to fail. They take some time for each request, as servers do.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// What a good server takes for a request.
const WORK: Duration = Duration::from_millis(2);

/// How a server that fails looks whether it still does.
const STEP: Duration = Duration::from_millis(5);

/// How long a proxy may take to its first checks.
const CHECKED_WITHIN: Duration = Duration::from_secs(20);

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BAD: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nbad";

/// How a server fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Good,
    Killed,
    Hung,
    Slow,
    Failing,
}

const MOODS: [Mood; 5] = [Mood::Good, Mood::Killed, Mood::Hung, Mood::Slow, Mood::Failing];

#[derive(Debug, Default)]
struct State {
    mood: AtomicU8,
    /// Requests of clients, not of checks.
    requests: AtomicU64,
    /// Checks that were answered.
    checks: AtomicU64,
}

impl State {
    fn mood(&self) -> Mood {
        MOODS[usize::from(self.mood.load(Ordering::SeqCst))]
    }
}

/// The servers, on a thread of their own that ends with the process.
pub struct Servers {
    addresses: Vec<SocketAddr>,
    states: [Arc<State>; 3],
}

impl Servers {
    pub fn start() -> Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let states: [Arc<State>; 3] = Default::default();
        let of_servers = states.clone();
        std::thread::Builder::new().name("servers".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let local = tokio::task::LocalSet::new();
            runtime.block_on(local.run_until(async move {
                for state in of_servers {
                    // Kept for as long as the server is killed: the port is not to go to somebody else.
                    let reserved = bound("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
                    let address = reserved.local_addr().expect("bound").as_socket().expect("of the internet");
                    sender.send(address).expect("somebody waits for it");
                    tokio::task::spawn_local(serve(address, reserved, state));
                }
                std::future::pending::<()>().await;
            }));
        })?;
        let addresses = receiver.iter().take(3).collect();
        Ok(Self { addresses, states })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Has the first server fare so from now on.
    pub fn become_(&self, mood: Mood) {
        let number = MOODS.iter().position(|known| *known == mood).expect("all are known");
        self.states[0].mood.store(u8::try_from(number).expect("few"), Ordering::SeqCst);
    }

    /// Waits until each server has answered so many checks.
    pub fn wait_for_checks(&self, count: u64) -> Result<()> {
        let deadline = Instant::now() + CHECKED_WITHIN;
        while !self.states.iter().all(|state| state.checks.load(Ordering::SeqCst) >= count) {
            ensure!(Instant::now() < deadline, "the proxy does not check its servers");
            std::thread::sleep(STEP);
        }
        Ok(())
    }

    /// Waits until clients' requests come to the first server at a rate of a good one again. How long after `over` that is.
    pub fn wait_for_request(&self, rate: u32, over: Instant, patience: Duration) -> Option<Duration> {
        // In a tenth of a second half of what is its share: more than trials of one that is looked at again.
        let share = u64::from(rate / 3 / 10 / 2).max(2);
        let count = || self.states[0].requests.load(Ordering::SeqCst);
        while over.elapsed() < patience {
            let (before, at) = (count(), over.elapsed());
            std::thread::sleep(Duration::from_millis(100));
            if count() >= before + share {
                return Some(at);
            }
        }
        None
    }
}

fn bound(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = bound(address).context("the port of a server")?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into())?)
}

/// Accepts, and does not while it is killed.
async fn serve(address: SocketAddr, _reserved: Socket, state: Arc<State>) {
    let connections: Rc<RefCell<Vec<AbortHandle>>> = Rc::default();
    loop {
        let listener = listen(address).expect("the port is ours");
        loop {
            let accepted = tokio::time::timeout(STEP, listener.accept()).await;
            if let Ok(Ok((stream, _))) = accepted {
                let task = tokio::task::spawn_local(answer(stream, Arc::clone(&state)));
                let mut connections = connections.borrow_mut();
                connections.retain(|connection| !connection.is_finished());
                connections.push(task.abort_handle());
            }
            if state.mood() == Mood::Killed {
                break;
            }
        }
        drop(listener);
        // Their sockets are closed with data unread, or in the middle of an answer: the proxy sees resets.
        connections.borrow_mut().drain(..).for_each(|connection| connection.abort());
        while state.mood() == Mood::Killed {
            tokio::time::sleep(STEP).await;
        }
    }
}

async fn answer(mut stream: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        while !buffer.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let is_check = buffer.starts_with(b"GET /health");
        buffer.clear();
        if !is_check {
            state.requests.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(if state.mood() == Mood::Slow { WORK * 10 } else { WORK }).await;
        while state.mood() == Mood::Hung {
            tokio::time::sleep(STEP).await;
        }
        let is_bad = state.mood() == Mood::Failing && fastrand::bool() && !is_check;
        stream.write_all(if is_bad { BAD } else { GOOD }).await?;
        if is_check {
            state.checks.fetch_add(1, Ordering::SeqCst);
        }
    }
}
