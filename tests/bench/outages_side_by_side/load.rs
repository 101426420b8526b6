//! Clients that ask at a steady rate, whether those before are answered or not.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n";

/// A client gives up then.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub due: Instant,
    /// From then to the whole answer, or to the end of the client's patience.
    pub took: Duration,
    /// It was answered with 200.
    pub is_good: bool,
}

/// Requests under way, on a thread of their own.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Asked>>,
}

impl Load {
    pub fn start(target: SocketAddr, rate: u32) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let local = tokio::task::LocalSet::new();
            runtime.block_on(local.run_until(ask_on(target, rate, told)))
        };
        let thread = std::thread::Builder::new().name("clients".to_owned()).spawn(run)?;
        Ok(Self { stop, thread })
    }

    /// Ends it, and gives what came of all requests but those of its first second.
    pub fn finish(self) -> Result<Vec<Asked>> {
        self.stop.store(true, Ordering::SeqCst);
        let asked = self.thread.join().map_err(|_| anyhow!("the clients panicked"))?;
        let first = asked.iter().map(|asked| asked.due).min().context("nobody asked")?;
        Ok(asked.into_iter().filter(|asked| asked.due >= first + Duration::from_secs(1)).collect())
    }
}

/// What the clients share: connections that wait for a request, and what came of those so far.
#[derive(Default)]
struct Shared {
    idle: RefCell<Vec<TcpStream>>,
    asked: RefCell<Vec<Asked>>,
    /// One more is back.
    is_back: Notify,
}

async fn ask_on(target: SocketAddr, rate: u32, stop: Arc<AtomicBool>) -> Vec<Asked> {
    let shared = Rc::new(Shared::default());
    let begun = Instant::now();
    let mut count = 0_u32;
    while !stop.load(Ordering::SeqCst) {
        let due = begun + Duration::from_secs(1).mul_f64(f64::from(count) / f64::from(rate));
        if due > Instant::now() {
            // The clock of tokio goes in milliseconds: what was due in between is asked at once.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        count += 1;
        tokio::task::spawn_local(ask(target, due, Rc::clone(&shared)));
        if count.is_multiple_of(16) {
            tokio::task::yield_now().await;
        }
    }
    // Each of them has a time-out of its own.
    while shared.asked.borrow().len() < count as usize {
        shared.is_back.notified().await;
    }
    shared.asked.take()
}

async fn ask(target: SocketAddr, due: Instant, shared: Rc<Shared>) {
    let answered = tokio::time::timeout(PATIENCE, exchange(target, &shared)).await;
    let is_good = matches!(answered, Ok(Ok(true)));
    shared.asked.borrow_mut().push(Asked { due, took: due.elapsed(), is_good });
    shared.is_back.notify_one();
}

/// Whether the answer is a good one.
async fn exchange(target: SocketAddr, shared: &Shared) -> std::io::Result<bool> {
    let idle = shared.idle.borrow_mut().pop();
    let mut stream = match idle {
        Some(stream) => stream,
        None => TcpStream::connect(target).await?,
    };
    stream.set_nodelay(true)?;
    stream.write_all(REQUEST).await?;
    let mut buffer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(false);
        }
        let Some(head) = buffer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let Some(length) = length else { return Ok(false) };
        if buffer.len() < head + 4 + length {
            continue;
        }
        let is_good = text.starts_with("http/1.1 200");
        if !text.contains("connection: close") {
            shared.idle.borrow_mut().push(stream);
        }
        return Ok(is_good);
    }
}
