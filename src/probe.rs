//! Active health checks: the shell around `health`. Runs on the worker's own runtime, so that checks take no time from
//! requests, and writes its verdicts where every thread reads them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{info, warn};

use crate::config::{Check, Health};
use crate::health::Judgement;
use crate::proxy::reload::Current;
use crate::proxy::server::Server;
use crate::proxy::server_io::ServerStream;
use crate::proxy::state::Pool;
use crate::proxy::upstream::dial::{Dialer, OnBehalf, Spoken};

/// The most that the head of an answer to a check may take.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

const USER_AGENT: &str = concat!("baton/", env!("CARGO_PKG_VERSION"));

/// The checks that run. They end when this is dropped.
pub struct Checks {
    current: Arc<Current>,
    running: Vec<Running>,
}

/// The checks of one server.
struct Running {
    watched: Watched,
    health: Health,
    task: AbortHandle,
}

/// A server that is checked.
#[derive(Clone)]
struct Watched {
    pool: Arc<Pool>,
    index: usize,
    server: Arc<Server>,
}

impl Checks {
    /// None yet.
    pub fn new(current: Arc<Current>) -> Self {
        Self { current, running: Vec::new() }
    }

    /// Checks every server of every pool that has checks. What is checked already, in the same way, goes on; a server that
    /// stays keeps its verdict.
    pub fn follow(&mut self) {
        let site = Arc::clone(&self.current.load().site);
        let mut former = std::mem::take(&mut self.running);
        for pool in &site.pools {
            let Some(health) = &pool.config.health else { continue };
            for (index, server) in pool.servers.iter().enumerate() {
                let watched = Watched { pool: Arc::clone(pool), index, server: Arc::clone(server) };
                let kept = former.iter().position(|running| running.is_same(&watched, health));
                let running = kept.map(|position| former.swap_remove(position));
                self.running.push(running.unwrap_or_else(|| {
                    let watch = watch(Arc::clone(&self.current), watched.clone(), health.clone());
                    Running { watched, health: health.clone(), task: tokio::spawn(watch).abort_handle() }
                }));
            }
        }
    }
}

impl Running {
    fn is_same(&self, watched: &Watched, health: &Health) -> bool {
        let own = &self.watched;
        Arc::ptr_eq(&own.server, &watched.server)
            && Arc::ptr_eq(&own.pool.dialer, &watched.pool.dialer)
            && own.pool.config.name == watched.pool.config.name
            && self.health == *health
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(current: Arc<Current>, watched: Watched, health: Health) -> Option<()> {
    let Watched { pool, index, server } = watched;
    let config = pool.config.servers.get(index)?;
    let mut judgement = Judgement::new(health.fall, health.rise);
    if let Some(is_up) = server.checked() {
        judgement.resume(is_up);
    }
    // Spread over the interval, so that a hundred servers are not all checked in the same millisecond.
    let offset = health.interval.mul_f64(fastrand::f64());
    let mut turns = interval_at(Instant::now() + offset.min(Duration::from_secs(1)), health.interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let started = Instant::now();
        let result = check(&pool.dialer, config.address, &health).await;
        let changed = judgement.record(result.is_ok());
        let said = match &result {
            Ok(said) => format!("{said} in {} ms", started.elapsed().as_millis()),
            Err(reason) => reason.clone(),
        };
        // First the verdict, then the log: who reads that a server is down may rely on it.
        let is_first = server.checked().is_none();
        server.judge(judgement.is_up(), said.clone());
        if changed.is_some() || is_first {
            current.load().site.publish_health(&pool.config.name, &config.name, judgement.is_up());
        }
        match changed {
            Some(true) => info!(pool = pool.config.name, server = config.name, check = said, "server is up"),
            Some(false) => warn!(pool = pool.config.name, server = config.name, check = said, "server is down"),
            None => {}
        }
    }
}

/// One check: what the server said, or why it failed, in words.
async fn check(dialer: &Dialer, address: SocketAddr, health: &Health) -> Result<String, String> {
    let checked = timeout(health.timeout, async {
        match &health.check {
            Check::Tcp => {
                let connected = dialer.dial_for_bytes(address, OnBehalf::Ourselves).await;
                connected.map(|_| "connected".to_owned()).map_err(|error| error.reason)
            }
            Check::Http { path, host } => {
                let dialled = dialer.dial(address, OnBehalf::Ourselves).await;
                let (stream, spoken) = dialled.map_err(|error| error.reason)?;
                let host = host.clone().unwrap_or_else(|| address.to_string());
                judged(match spoken {
                    Spoken::Http1 => ask(stream, path, &host).await?,
                    Spoken::Http2 => ask_in_http2(stream, path, &host).await?,
                })
            }
        }
    });
    checked.await.unwrap_or_else(|_| Err(format!("no answer within {} ms", health.timeout.as_millis())))
}

async fn ask(stream: ServerStream, path: &str, host: &str) -> Result<StatusCode, String> {
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX as usize).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let mut response = std::pin::pin!(sender.send_request(request));
    // The connection fills the response. When it ends first, the response is there, or has become an error.
    let answered = tokio::select! {
        biased;
        answered = &mut response => answered,
        _ended = connection => response.await,
    };
    answered.map(|response| response.status()).map_err(|error| format!("no HTTP answer: {error}"))
}

async fn ask_in_http2(stream: ServerStream, path: &str, host: &str) -> Result<StatusCode, String> {
    let scheme = if stream.is_tls() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(path).build();
    let request = Request::get(uri.map_err(|error| error.to_string())?).header(header::USER_AGENT, USER_AGENT);
    let request = request.body(()).map_err(|error| error.to_string())?;
    let no_answer = |error: h2::Error| format!("no HTTP/2 answer: {error}");
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(no_answer)?;
    let (response, _no_body) = sender.send_request(request, true).map_err(no_answer)?;
    let mut response = std::pin::pin!(response);
    let answered = tokio::select! {
        biased;
        answered = &mut response => answered,
        _ended = connection => response.await,
    };
    answered.map(|response| response.status()).map_err(no_answer)
}

fn judged(status: StatusCode) -> Result<String, String> {
    if (StatusCode::OK..StatusCode::BAD_REQUEST).contains(&status) {
        Ok(format!("status {}", status.as_u16()))
    } else {
        Err(format!("status {}", status.as_u16()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn dialer() -> Dialer {
        let text = "[[listener]]\nname = \"l\"\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n\
            [[pool]]\nname = \"p\"\nservers = [{ name = \"s\", address = \"127.0.0.1:2\" }]\n";
        let config = crate::config::parse(text, std::path::Path::new("/x.toml")).unwrap();
        Dialer::of_pools(&config, &crate::proxy::files::Files::default()).unwrap().remove(0)
    }

    fn health(check: Check) -> Health {
        let timeout = Duration::from_secs(2);
        Health { check, interval: timeout, timeout, fall: 3, rise: 2 }
    }

    fn http() -> Health {
        health(Check::Http { path: "/health".to_owned(), host: None })
    }

    /// A server that reads a request and answers with these bytes, once.
    async fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _read = stream.read(&mut request).await;
            let _written = stream.write_all(answer).await;
        });
        address
    }

    #[tokio::test]
    async fn a_good_status_is_a_success_and_a_bad_one_is_not() {
        let good = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(check(&dialer(), good, &http()).await, Ok("status 200".to_owned()));
        let moved = server(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(check(&dialer(), moved, &http()).await, Ok("status 302".to_owned()));
        let bad = server(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(check(&dialer(), bad, &http()).await, Err("status 503".to_owned()));
    }

    #[tokio::test]
    async fn garbage_silence_and_refusal_are_failures_with_a_reason() {
        let garbage = server(b"SSH-2.0-OpenSSH\r\n").await;
        assert!(check(&dialer(), garbage, &http()).await.is_err());
        let closed = server(b"").await;
        assert!(check(&dialer(), closed, &http()).await.is_err());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap();
        let short = Health { timeout: Duration::from_millis(50), ..http() };
        assert_eq!(check(&dialer(), silent, &short).await, Err("no answer within 50 ms".to_owned()));
        assert_eq!(check(&dialer(), silent, &health(Check::Tcp)).await, Ok("connected".to_owned()));
        drop(listener);
        assert_eq!(check(&dialer(), silent, &http()).await, Err("connect failed: connection refused".to_owned()));
    }
}
