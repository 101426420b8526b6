//! Active health checks: the shell around `health`. Runs on the worker's own runtime, so that checks take no time from
//! requests, and writes its verdicts where every thread reads them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{info, warn};

use crate::config::{Check, Health};
use crate::health::Judgement;
use crate::proxy::state::Site;

/// The most that the head of an answer to a check may take.
const RESPONSE_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Checks every server of every pool that has checks, until the runtime ends.
pub fn spawn_all(site: &Arc<Site>) {
    for (pool_index, pool) in site.pools.iter().enumerate() {
        let Some(health) = &pool.config.health else { continue };
        for server_index in 0..pool.servers.len() {
            tokio::spawn(watch(Arc::clone(site), pool_index, server_index, health.clone()));
        }
    }
}

async fn watch(site: Arc<Site>, pool_index: usize, server_index: usize, health: Health) -> Option<()> {
    let pool = site.pools.get(pool_index)?;
    let (server, config) = (pool.servers.get(server_index)?, pool.config.servers.get(server_index)?);
    let mut judgement = Judgement::new(health.fall, health.rise);
    // Spread over the interval, so that a hundred servers are not all checked in the same millisecond.
    let offset = health.interval.mul_f64(fastrand::f64());
    let mut turns = interval_at(Instant::now() + offset.min(Duration::from_secs(1)), health.interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let started = Instant::now();
        let result = check(config.address, &health).await;
        let changed = judgement.record(result.is_ok());
        let said = match &result {
            Ok(said) => format!("{said} in {} ms", started.elapsed().as_millis()),
            Err(reason) => reason.clone(),
        };
        // First the verdict, then the log: who reads that a server is down may rely on it.
        let is_first = server.checked().is_none();
        server.judge(judgement.is_up(), said.clone());
        if changed.is_some() || is_first {
            site.publish_health(&pool.config.name, &config.name, judgement.is_up());
        }
        match changed {
            Some(true) => info!(pool = pool.config.name, server = config.name, check = said, "server is up"),
            Some(false) => warn!(pool = pool.config.name, server = config.name, check = said, "server is down"),
            None => {}
        }
    }
}

/// One check: what the server said, or why it failed, in words.
async fn check(address: SocketAddr, health: &Health) -> Result<String, String> {
    let checked = timeout(health.timeout, async {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connect failed: {}", plain(&error)))?;
        match &health.check {
            Check::Tcp => Ok("connected".to_owned()),
            Check::Http { path, host } => http_check(stream, address, path, host.as_deref()).await,
        }
    });
    checked.await.unwrap_or_else(|_| Err(format!("no answer within {} ms", health.timeout.as_millis())))
}

async fn http_check(stream: TcpStream, address: SocketAddr, path: &str, host: Option<&str>) -> Result<String, String> {
    let request = Request::get(path)
        .header(header::HOST, host.map_or_else(|| address.to_string(), str::to_owned))
        .header(header::USER_AGENT, concat!("baton/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let handshake = http1::Builder::new().max_buf_size(RESPONSE_HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let mut response = std::pin::pin!(sender.send_request(request));
    // The connection fills the response. When it ends first, the response is there, or has become an error.
    let answered = tokio::select! {
        biased;
        answered = &mut response => answered,
        _ended = connection => response.await,
    };
    let status = answered.map_err(|error| format!("no HTTP answer: {error}"))?.status();
    if (StatusCode::OK..StatusCode::BAD_REQUEST).contains(&status) {
        Ok(format!("status {}", status.as_u16()))
    } else {
        Err(format!("status {}", status.as_u16()))
    }
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

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
        assert_eq!(check(good, &http()).await, Ok("status 200".to_owned()));
        let moved = server(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(check(moved, &http()).await, Ok("status 302".to_owned()));
        let bad = server(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(check(bad, &http()).await, Err("status 503".to_owned()));
    }

    #[tokio::test]
    async fn garbage_silence_and_refusal_are_failures_with_a_reason() {
        let garbage = server(b"SSH-2.0-OpenSSH\r\n").await;
        assert!(check(garbage, &http()).await.is_err());
        let closed = server(b"").await;
        assert!(check(closed, &http()).await.is_err());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap();
        let short = Health { timeout: Duration::from_millis(50), ..http() };
        assert_eq!(check(silent, &short).await, Err("no answer within 50 ms".to_owned()));
        assert_eq!(check(silent, &health(Check::Tcp)).await, Ok("connected".to_owned()));
        drop(listener);
        assert_eq!(check(silent, &http()).await, Err("connect failed: connection refused".to_owned()));
    }
}
