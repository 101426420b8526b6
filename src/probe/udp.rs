//! A datagram to a server, and perhaps one back.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::exchange::{Pattern, missing};

/// A datagram of any size that IP carries.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Sends, and waits for what is expected. Where nothing is, silence until shortly before `patience` is over is as good.
pub(super) async fn ask(
    address: SocketAddr,
    bytes: &[u8],
    expected: Option<&Pattern>,
    patience: Duration,
) -> Result<String, String> {
    let socket = connect(address).await?;
    send(&socket, bytes).await?;
    match expected {
        Some(pattern) => {
            let answer = receive(&socket).await?;
            if pattern.is_in(&answer) { Ok("the answer that is expected".to_owned()) } else { Err(missing(&answer)) }
        }
        None => match timeout(patience.mul_f32(0.9), receive(&socket)).await {
            Ok(answer) => answer.map(|_| "an answer".to_owned()),
            Err(_) => Ok("nothing says that its port is unreachable".to_owned()),
        },
    }
}

/// A socket that hears from this server alone, its refusals among it.
pub(super) async fn connect(address: SocketAddr) -> Result<UdpSocket, String> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(|error| format!("no socket can be made: {error}"))?;
    socket.connect(address).await.map_err(|error| format!("connect failed: {error}"))?;
    Ok(socket)
}

pub(super) async fn send(socket: &UdpSocket, bytes: &[u8]) -> Result<(), String> {
    socket.send(bytes).await.map(drop).map_err(|error| failed(&error))
}

pub(super) async fn receive(socket: &UdpSocket) -> Result<Vec<u8>, String> {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    let len = socket.recv(&mut datagram).await.map_err(|error| failed(&error))?;
    datagram.truncate(len);
    Ok(datagram)
}

fn failed(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "its port is unreachable".to_owned(),
        _ => format!("the datagram is not delivered: {error}"),
    }
}

/// As connections to servers say it.
pub(super) fn connect_failed(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect failed: connection refused".to_owned(),
        _ => format!("connect failed: {error}"),
    }
}
