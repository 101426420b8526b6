//! The listening sockets. The guard opens them once and keeps them, so that they survive any worker.

use std::net::TcpListener;

use anyhow::anyhow;

use crate::config::{AdminToken, Config, Listener};
use crate::link::CertificatePem;

/// Opens every socket of every listener, in the order of [`crate::link::Bootstrap`].
///
/// # Errors
/// Which address could not be bound, and why.
pub fn open(config: &Config, threads: usize) -> anyhow::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    for listener in &config.listeners {
        for &address in &listener.bind {
            let opened = crate::net::listen::tcp(address, threads);
            sockets.extend(
                opened
                    .map_err(|error| anyhow!("listener {} cannot bind {address}: {}", listener.name, hint(&error)))?,
            );
        }
    }
    Ok(sockets)
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
    let Some(admin) = &config.admin else { return Ok(None) };
    let token = admin.token_file.as_deref().map(AdminToken::load).transpose()?;
    let opened = crate::net::listen::tcp(admin.bind, 1);
    let sockets = opened.map_err(|error| anyhow!("[admin] cannot bind {}: {}", admin.bind, hint(&error)))?;
    Ok(sockets.into_iter().next().map(|socket| AdminListener { socket, token }))
}

/// What the kernel says, and what to do about it.
fn hint(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("{error}: ports below 1024 need CAP_NET_BIND_SERVICE, which root has")
        }
        std::io::ErrorKind::AddrInUse => format!("{error}: another program listens there, `ss -ltnp` says which"),
        _ => error.to_string(),
    }
}

/// Reads the certificates and keys of every listener, as the worker may read no file.
///
/// # Errors
/// Which file could not be read, and why.
pub fn certificates(config: &Config) -> std::io::Result<Vec<Vec<CertificatePem>>> {
    config.listeners.iter().map(of_listener).collect()
}

fn of_listener(listener: &Listener) -> std::io::Result<Vec<CertificatePem>> {
    let read = |path: &std::path::Path| {
        std::fs::read(path)
            .map_err(|error| std::io::Error::new(error.kind(), format!("{} cannot be read: {error}", path.display())))
    };
    let certificates = listener.tls.iter().flat_map(|tls| &tls.certificates);
    certificates.map(|pair| Ok(CertificatePem { chain: read(&pair.cert)?, key: read(&pair.key)? })).collect()
}
