//! Clients that keep a connection open for long: WebSockets and plain TCP. Each sends a message now and then, which the
//! server sends back.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::client::{Connection, Failure, Stream, connect};
use super::journal::Kind;
use super::ledger::Incident;
use super::load::{RECONNECT_PAUSE, Shared};
use super::websocket::{self, End};

/// Bytes of a message.
const MESSAGE_BYTES: usize = 16;

/// Starts all of them on the runtime of the calling thread.
pub(super) fn open_all(shared: &Arc<Shared>) {
    let websockets = shared.spec.websockets.as_ref().map_or(0, |(_, count)| *count);
    for number in 0..websockets {
        tokio::spawn(keep_open(Arc::clone(shared), Kind::Websocket, number));
    }
    let connections = shared.spec.tcp_connections.as_ref().map_or(0, |(_, count)| *count);
    for number in 0..connections {
        tokio::spawn(keep_open(Arc::clone(shared), Kind::Tcp, number));
    }
}

/// A connection that is opened, used until it breaks, and opened again.
async fn keep_open(shared: Arc<Shared>, kind: Kind, number: u16) {
    let spec = &shared.spec;
    // Spread over one pause, or all of them would speak in the same millisecond forever.
    sleep(spec.message_pause * u32::from(number % 16) / 16).await;
    loop {
        let mut start = Instant::now();
        let wrong = |start, incident| shared.went_wrong(kind, number, start, incident);
        let mut line = match Line::open(&shared, kind).await {
            Ok(line) => line,
            Err(failure) => {
                wrong(start, Incident::ReconnectFailed(failure));
                sleep(RECONNECT_PAUSE).await;
                continue;
            }
        };
        loop {
            start = Instant::now();
            let message: [u8; MESSAGE_BYTES] = fastrand::u128(..).to_be_bytes();
            match timeout(spec.answer_timeout, line.exchange(&message)).await {
                Ok(Ok(answer)) if answer == message => shared.answered(kind, number, start, None),
                // What came may belong to anything: the connection is of no more use.
                Ok(Ok(_)) => break wrong(start, Incident::ConnectionBroken(Failure::Refused)),
                Ok(Err(_)) => break wrong(start, Incident::ConnectionBroken(Failure::Broken)),
                Err(_) => break wrong(start, Incident::ConnectionBroken(Failure::TimedOut)),
            }
            sleep(spec.message_pause).await;
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

/// An open connection.
enum Line {
    Websocket(Box<dyn Stream>),
    Tcp(Box<dyn Stream>),
}

impl Line {
    async fn open(shared: &Shared, kind: Kind) -> Result<Self, Failure> {
        let spec = &shared.spec;
        match (&spec.websockets, spec.tcp_connections) {
            (Some((target, _)), _) if kind == Kind::Websocket => {
                let connection = Connection::open(target, spec.connect_timeout).await?;
                let upgraded = connection.upgrade(target, spec.answer_timeout).await?;
                Ok(Self::Websocket(Box::new(upgraded)))
            }
            (_, Some((address, _))) => Ok(Self::Tcp(connect(address, None, spec.connect_timeout).await?)),
            _ => Err(Failure::NotConnected),
        }
    }

    /// Sends a message and takes the one that comes back.
    async fn exchange(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Websocket(stream) => {
                websocket::send(stream, End::Client, message).await?;
                websocket::receive(stream, End::Client).await
            }
            Self::Tcp(stream) => {
                stream.write_all(message).await?;
                let mut answer = vec![0; message.len()];
                stream.read_exact(&mut answer).await?;
                Ok(answer)
            }
        }
    }
}
