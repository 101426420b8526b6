//! The listening sockets. The guard opens them once and keeps them, so that they survive any worker.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::reload::Listening;
use crate::config::{AdminToken, Config, Listener, SyncEnds};

/// Opens every socket of every listener.
///
/// # Errors
/// Which address could not be bound, and why.
pub fn open(config: &Config, threads: usize) -> anyhow::Result<Listening> {
    open_besides(config, threads, Listening::new())
}

/// As [`open`], but of each address no more than are missing. There may be more than threads: connections may wait in any
/// socket that there is, so that none is closed as long as its address is in use.
///
/// # Errors
/// As [`open`].
pub fn open_besides(config: &Config, threads: usize, mut known: Listening) -> anyhow::Result<Listening> {
    let mut listening = Listening::new();
    for listener in &config.listeners {
        for &address in &listener.bind {
            let mut sockets = known.remove(&address).unwrap_or_default();
            let missing = threads.saturating_sub(sockets.len());
            sockets.extend(bind(listener, address, missing)?.into_iter().map(Arc::new));
            listening.insert(address, sockets);
        }
    }
    Ok(listening)
}

fn bind(listener: &Listener, address: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpListener>> {
    let opened = crate::net::listen::tcp(address, count);
    opened.map_err(|error| anyhow!("listener {} cannot bind {address}: {}", listener.name, hint(&error)))
}

/// As [`open`], but for addresses that are open already.
///
/// # Errors
/// As [`open`].
pub fn open_new(config: &Config, threads: usize, known: &[SocketAddr]) -> anyhow::Result<Listening> {
    let mut listening = Listening::new();
    for listener in &config.listeners {
        for &address in listener.bind.iter().filter(|address| !known.contains(address)) {
            let sockets = bind(listener, address, threads)?;
            listening.insert(address, sockets.into_iter().map(Arc::new).collect());
        }
    }
    Ok(listening)
}

/// What `[admin]` is served with.
pub struct AdminListener {
    /// Where it listens.
    pub socket: TcpListener,
    /// What changes need.
    pub token: Option<AdminToken>,
}

/// Opens the socket of `[admin]` and reads its token, where there is one.
///
/// # Errors
/// Which address could not be bound, or which file not be used, and why.
pub fn open_admin(config: &Config) -> anyhow::Result<Option<AdminListener>> {
    open_admin_besides(config, None)
}

/// As [`open_admin`], with a socket that is open already, where there is one.
///
/// # Errors
/// As [`open_admin`].
pub fn open_admin_besides(config: &Config, known: Option<TcpListener>) -> anyhow::Result<Option<AdminListener>> {
    let Some(admin) = &config.admin else { return Ok(None) };
    let token = admin.token_file.as_deref().map(AdminToken::load).transpose()?;
    if let Some(socket) = known {
        return Ok(Some(AdminListener { socket, token }));
    }
    let opened = crate::net::listen::tcp(admin.bind, 1);
    let sockets = opened.map_err(|error| anyhow!("[admin] cannot bind {}: {}", admin.bind, hint(&error)))?;
    Ok(sockets.into_iter().next().map(|socket| AdminListener { socket, token }))
}

/// Time that the node's address gets to become usable, and the socket of an earlier life to be closed; and time between
/// two tries.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
const SYNC_PAUSE: Duration = Duration::from_millis(50);

/// Opens the socket of the sync link, where this node is the one that listens. Blocks for a while at most.
///
/// # Errors
/// Which address could not be bound, why, and what to do about it.
pub fn open_sync(ends: Option<SyncEnds<'_>>) -> anyhow::Result<Option<TcpListener>> {
    let Some(own) = ends.filter(|ends| ends.listens).map(|ends| ends.own) else { return Ok(None) };
    let until = Instant::now() + SYNC_TIMEOUT;
    loop {
        let error = match crate::net::listen::sync(own) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) => error,
        };
        // The kernel asks the link first whether somebody else has a new IPv6 address; a worker that was killed may not
        // be gone yet.
        if !matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse) || Instant::now() >= until {
            return Err(anyhow!("the sync link cannot listen on {own}: {}", sync_hint(&error)));
        }
        std::thread::sleep(SYNC_PAUSE);
    }
}

fn sync_hint(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrNotAvailable => format!(
            "{error}: the address of this node is on no interface of this machine: check node.address and --node"
        ),
        ErrorKind::AddrInUse => {
            format!("{error}: another program listens there, `ss -ltnp` says which; or set another pair.sync_port")
        }
        _ => hint(error),
    }
}

/// What the kernel says, and what to do about it.
fn hint(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{error}: ports below 1024 need CAP_NET_BIND_SERVICE, which root has")
        }
        ErrorKind::AddrInUse => format!("{error}: another program listens there, `ss -ltnp` says which"),
        _ => error.to_string(),
    }
}
