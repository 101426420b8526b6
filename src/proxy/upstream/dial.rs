//! How a connection to a server is made.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::config::ServerProtocol;
use crate::proxy::server_io::ServerStream;

/// How the servers of a pool are reached.
pub struct Dialer {
    protocol: ServerProtocol,
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

    fn of_connect(error: &io::Error) -> Self {
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        let kind = if refused { "connection_refused" } else { "destination_ip_unroutable" };
        Self { error: kind, reason: error.to_string() }
    }
}

impl Dialer {
    /// As the pool has it.
    pub fn new(protocol: ServerProtocol) -> Self {
        Self { protocol }
    }

    /// Whether a connection may turn out to be one of HTTP/1.
    pub fn may_be_http1(&self) -> bool {
        matches!(self.protocol, ServerProtocol::Http1 | ServerProtocol::Auto)
    }

    /// Whether a connection may turn out to be one of HTTP/2.
    pub fn may_be_http2(&self) -> bool {
        self.protocol != ServerProtocol::Http1
    }

    /// Connects. Cancel safe: a half-made connection is dropped.
    ///
    /// # Errors
    /// What connect(2) says.
    pub async fn dial(&self, address: SocketAddr) -> Result<(ServerStream, Spoken), DialError> {
        let stream = TcpStream::connect(address).await.map_err(|error| DialError::of_connect(&error))?;
        stream.set_nodelay(true).map_err(|error| DialError::of_connect(&error))?;
        let spoken = match self.protocol {
            ServerProtocol::H2c | ServerProtocol::H2 => Spoken::Http2,
            ServerProtocol::Http1 | ServerProtocol::Auto => Spoken::Http1,
        };
        Ok((ServerStream::Plain(stream), spoken))
    }
}
