//! How a connection to a server is made: the socket, the PROXY protocol, TLS, and what is spoken then.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::tls::{Origination, Within};
use crate::config::{self, Config, SendProxy, ServerProtocol};
use crate::proxy::accept::Ends;
use crate::proxy::files::Files;
use crate::proxy::proxy_protocol::encode;
use crate::proxy::server_io::ServerStream;
use crate::proxy::socket::Socket;
use crate::proxy::state::Site;

/// How the servers of a pool are reached.
pub struct Dialer {
    protocol: ServerProtocol,
    send_proxy: Option<SendProxy>,
    tls: Option<Origination>,
}

/// Whose connection it is, for a server that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBehalf {
    /// Nobody's: ours.
    Ourselves,
    /// A client's.
    Client {
        /// Its address.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
}

impl OnBehalf {
    /// The client of a connection to us, where some server is told.
    pub fn of(site: &Site, stream: &TcpStream, ends: &Ends) -> Self {
        if !site.tells_clients {
            return Self::Ourselves;
        }
        let destination = ends.destination.or_else(|| stream.local_addr().ok());
        destination.map_or(Self::Ourselves, |destination| Self::Client { source: ends.source, destination })
    }
}

/// What was agreed to be spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct DialError {
    /// The error type of RFC 9209 section 2.3.
    pub error: &'static str,
    /// In words, for an operator.
    pub reason: String,
}

impl DialError {
    /// There is no such server.
    pub fn nowhere() -> Self {
        Self { error: "destination_not_found", reason: "there is no such server".to_owned() }
    }

    /// Whether it says something that health checks and a status do not.
    pub fn is_of_tls(&self) -> bool {
        self.error.starts_with("tls_")
    }

    fn of_connect(error: &io::Error) -> Self {
        let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
        let kind = if is_refused { "connection_refused" } else { "destination_ip_unroutable" };
        let reason = if is_refused { "connection refused".to_owned() } else { error.to_string() };
        Self { error: kind, reason: format!("connect failed: {reason}") }
    }
}

impl Dialer {
    /// As the pool has it.
    ///
    /// # Errors
    /// In words: which pool's file cannot be used, and why.
    pub fn new(pool: &config::Pool, files: &Files) -> Result<Self, String> {
        let tls = pool.tls.as_ref().map(|tls| Origination::new(tls, pool.protocol, files)).transpose();
        let tls = tls.map_err(|reason| format!("pool {}: {reason}", pool.name))?;
        Ok(Self { protocol: pool.protocol, send_proxy: pool.send_proxy, tls })
    }

    /// To a server that belongs to no pool and speaks HTTP/1.1.
    ///
    /// # Errors
    /// In words: which file cannot be used, and why.
    pub fn to_one(tls: Option<&config::ServerTls>, files: &Files) -> Result<Self, String> {
        let protocol = ServerProtocol::Http1;
        let tls = tls.map(|tls| Origination::new(tls, protocol, files)).transpose()?;
        Ok(Self { protocol, send_proxy: None, tls })
    }

    /// For each pool of a configuration.
    ///
    /// # Errors
    /// In words: which pool's file cannot be used, and why.
    pub fn of_pools(config: &Config, files: &Files) -> Result<Vec<Self>, String> {
        config.pools.iter().map(|pool| Self::new(pool, files)).collect()
    }

    /// Takes files that have changed.
    ///
    /// # Errors
    /// In words: which file cannot be used, and why. Everything is as before then.
    pub fn files_changed(&self, files: &Files) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.files_changed(files))
    }

    /// Whether a connection may turn out to be one of HTTP/1.
    pub fn may_be_http1(&self) -> bool {
        matches!(self.protocol, ServerProtocol::Http1 | ServerProtocol::Auto)
    }

    /// Whether a connection may turn out to be one of HTTP/2.
    pub fn may_be_http2(&self) -> bool {
        self.protocol != ServerProtocol::Http1
    }

    /// Whether a connection is one client's alone, as the server was told whose it is.
    pub fn tells_client(&self) -> bool {
        self.send_proxy.is_some()
    }

    /// Connects, for HTTP. Cancel safe: a half-made connection is dropped.
    ///
    /// # Errors
    /// Who failed, in the words of RFC 9209 and in those for an operator.
    pub async fn dial(&self, address: SocketAddr, behalf: OnBehalf) -> Result<(ServerStream, Spoken), DialError> {
        let stream = self.connect(address, behalf, Within::Http).await?;
        let spoken = match (self.protocol, stream.agreed_protocol()) {
            (ServerProtocol::H2c, _) | (ServerProtocol::H2 | ServerProtocol::Auto, Some(b"h2")) => Spoken::Http2,
            (ServerProtocol::Http1 | ServerProtocol::Auto, _) => Spoken::Http1,
            (ServerProtocol::H2, _) => {
                let reason = "the server does not agree to HTTP/2 within TLS".to_owned();
                return Err(DialError { error: "tls_protocol_error", reason });
            }
        };
        Ok((stream, spoken))
    }

    /// As [`Dialer::dial`], for HTTP/1.1 where there is a choice.
    ///
    /// # Errors
    /// As there.
    pub async fn dial_http1(&self, address: SocketAddr, behalf: OnBehalf) -> Result<ServerStream, DialError> {
        self.connect(address, behalf, Within::Http1).await
    }

    /// As [`Dialer::dial`], for bytes of any kind.
    ///
    /// # Errors
    /// As there.
    pub async fn dial_for_bytes(&self, address: SocketAddr, behalf: OnBehalf) -> Result<ServerStream, DialError> {
        self.connect(address, behalf, Within::Tcp).await
    }

    async fn connect(&self, address: SocketAddr, behalf: OnBehalf, within: Within) -> Result<ServerStream, DialError> {
        let failed = |error: io::Error| DialError::of_connect(&error);
        let mut stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        if let Some(version) = self.send_proxy {
            let header = match behalf {
                OnBehalf::Ourselves => encode::of_ourselves(version),
                OnBehalf::Client { source, destination } => encode::of_client(version, source, destination),
            };
            // In front of everything, TLS included (section 2 of the protocol).
            stream.write_all(&header).await.map_err(failed)?;
        }
        match &self.tls {
            None => Ok(ServerStream::Plain(Socket::new(stream))),
            Some(tls) => Ok(ServerStream::Tls(Box::new(tls.connect(stream, address, within).await?))),
        }
    }
}
