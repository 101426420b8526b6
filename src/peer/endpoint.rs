//! How the two nodes come together: one of them listens, the other one connects. What leaves here is a connection whose
//! other end has shown that it is the peer.
//!
//! Anybody can reach the port. Whoever comes from another address than the peer's is closed at once; of the others at
//! most [`HANDSHAKES_MAX`] may be about to show who they are, and one more takes the place of the oldest: the peer needs a
//! few milliseconds for that, and those who hold places take their time.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tracing::{error, warn};

use super::identity::{ALPN, Identity};
use super::refusals::{Reason, Refusal, Refusals};

/// Time to show who one is; and for a connection to come about before that.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections at once that have not shown yet who they are.
pub const HANDSHAKES_MAX: usize = 4;

/// Bytes taken from the kernel at a time.
const READ_LEN: usize = 128 * 1024;

/// What the kernel holds of what the peer sent and this node has not read, roughly: what is new waits behind it, and a
/// network between two nodes of a pair needs no more to be filled.
const RECEIVE_BUFFER_LEN: usize = 256 * 1024;

/// Bytes that the kernel takes before it has sent them (tcp(7), `TCP_NOTSENT_LOWAT`): for the same reason.
const UNSENT_LEN: u32 = 64 * 1024;

/// Time after which a connection is given up whose other end acknowledges nothing (tcp(7), `TCP_USER_TIMEOUT`). Longer
/// than what a peer gets that does not read, so that it is known for that.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which the kernel asks whether the other end is still there, and time between two questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before connecting again: doubled each time, from this...
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// ...to this, and each time anything between half of it and all of it...
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// ...and forgotten after a connection that lasted as long.
const BACKOFF_RESET: Duration = Duration::from_secs(2);

/// Time after which accepting is tried again when the process has no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection to the peer, read through a buffer: the TLS library asks for small pieces.
pub type Stream = TlsStream<BufReader<TcpStream>>;

/// A connection whose other end is the peer.
pub struct Established {
    /// Its bytes.
    pub stream: Stream,
    /// Where its other end is.
    pub remote: SocketAddr,
    /// Dropped with the connection: whoever made it learns by that when it is over.
    pub life: Option<oneshot::Sender<()>>,
}

/// Which part this node has in coming together.
#[derive(Debug)]
pub enum End {
    /// It waits for the peer.
    Listen(std::net::TcpListener),
    /// It connects from its own address.
    Connect {
        /// Of this node.
        from: IpAddr,
        /// Of the peer.
        to: SocketAddr,
    },
}

/// What both parts have in common.
pub struct Gate {
    /// Who is let in.
    pub identity: Identity,
    /// The peer's address.
    pub peer: IpAddr,
    /// Where refusals are noted.
    pub refusals: Arc<Mutex<Refusals>>,
    /// Where connections go.
    pub established: mpsc::Sender<Established>,
}

impl Gate {
    /// Brings connections, until nobody takes them any more.
    pub async fn run(self, end: End) {
        if let Err(reason) = self.bring(end).await {
            error!(reason, "there will be no sync with the peer");
            self.refusals().unreachable(reason);
        }
    }

    /// As [`Gate::run`]. An error is why it cannot begin, in words.
    async fn bring(&self, end: End) -> Result<(), String> {
        match end {
            End::Listen(listener) => {
                let listener = ready(listener).map_err(|error| format!("the sync link cannot listen: {error}"))?;
                let acceptor = self.identity.acceptor()?;
                self.refusals().waiting(format!(
                    "{} has not connected yet; it does when its file has this node as the first [[node]] and a pair key",
                    self.peer
                ));
                self.listen(&listener, &acceptor).await;
            }
            End::Connect { from, to } => {
                let connector = self.identity.connector()?;
                self.connect(from, to, &connector).await;
            }
        }
        Ok(())
    }

    async fn listen(&self, listener: &TcpListener, acceptor: &TlsAcceptor) {
        let mut handshakes = JoinSet::new();
        let mut places: VecDeque<(SocketAddr, AbortHandle)> = VecDeque::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((_, remote)) if remote.ip().to_canonical() != self.peer => {
                        self.refuse(Some(remote), &Refusal::new(Reason::Stranger, format!("it is not {}", self.peer)));
                    }
                    Ok((stream, remote)) => {
                        places.retain(|(_, place)| !place.is_finished());
                        if places.len() >= HANDSHAKES_MAX && let Some((oldest, place)) = places.pop_front() {
                            place.abort();
                            let detail = format!("{HANDSHAKES_MAX} others came before it had shown who it is");
                            self.refuse(Some(oldest), &Refusal::new(Reason::CrowdedOut, detail));
                        }
                        let place = handshakes.spawn(accept(acceptor.clone(), stream, remote));
                        places.push_back((remote, place));
                    }
                    Err(error) => {
                        warn!(%error, "no connection can be accepted on the sync link");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = handshakes.join_next() => match ended {
                    Ok((remote, Ok(stream))) => {
                        let established = Established { stream, remote, life: None };
                        if self.established.send(established).await.is_err() {
                            return;
                        }
                    }
                    Ok((remote, Err(refusal))) => self.refuse(Some(remote), &refusal),
                    // It was crowded out, and that is noted.
                    Err(_aborted) => {}
                },
                () = self.established.closed() => return,
            }
        }
    }

    async fn connect(&self, from: IpAddr, to: SocketAddr, connector: &TlsConnector) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let (life, over) = oneshot::channel::<()>();
            match open(from, to).await {
                Err(detail) => self.refusals().unreachable(detail),
                Ok(stream) => match timely(shake_as_client(connector, stream, to)).await {
                    Err(refusal) => self.refuse(Some(to), &refusal),
                    Ok(stream) => {
                        let since = Instant::now();
                        let established = Established { stream, remote: to, life: Some(life) };
                        if self.established.send(established).await.is_err() {
                            return;
                        }
                        // Nothing is ever sent: it ends with the connection.
                        let _over = over.await;
                        if since.elapsed() >= BACKOFF_RESET {
                            backoff = BACKOFF_MIN;
                        }
                    }
                },
            }
            let pause = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.established.closed() => return,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn refuse(&self, remote: Option<SocketAddr>, refusal: &Refusal) {
        self.refusals().note(remote, refusal);
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listening socket that another process has bound. What it accepts has its size of buffer.
fn ready(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    SockRef::from(&listener).set_recv_buffer_size(RECEIVE_BUFFER_LEN)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Connects to the peer. An error is why that did not come about, in words.
async fn open(from: IpAddr, to: SocketAddr) -> Result<TcpStream, String> {
    let connected = async {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_recv_buffer_size(u32::try_from(RECEIVE_BUFFER_LEN).unwrap_or(u32::MAX))?;
        socket.bind(SocketAddr::new(from, 0))?;
        socket.connect(to).await
    };
    match timeout(HANDSHAKE_TIMEOUT, connected).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("{to} cannot be reached: {error}")),
        Err(_) => Err(format!("{to} cannot be reached: no answer within {} s", HANDSHAKE_TIMEOUT.as_secs())),
    }
}

async fn accept(acceptor: TlsAcceptor, stream: TcpStream, remote: SocketAddr) -> (SocketAddr, Result<Stream, Refusal>) {
    let shake = async {
        prepare(&stream)?;
        let stream = acceptor.accept(BufReader::with_capacity(READ_LEN, stream)).await?;
        Ok(TlsStream::from(stream))
    };
    (remote, timely(shake).await)
}

async fn shake_as_client(connector: &TlsConnector, stream: TcpStream, to: SocketAddr) -> io::Result<Stream> {
    prepare(&stream)?;
    let name = Identity::server_name(to.ip());
    let stream = connector.connect(name, BufReader::with_capacity(READ_LEN, stream)).await?;
    Ok(TlsStream::from(stream))
}

/// A handshake that ends in time, or is refused.
async fn timely(shake: impl Future<Output = io::Result<Stream>>) -> Result<Stream, Refusal> {
    let Ok(ended) = timeout(HANDSHAKE_TIMEOUT, shake).await else {
        let detail = format!("it did not show within {} s who it is", HANDSHAKE_TIMEOUT.as_secs());
        return Err(Refusal::new(Reason::HandshakeTimeout, detail));
    };
    let stream = ended.map_err(|error| Refusal::of_handshake(&error))?;
    // A side that names no protocol passes the library's own check.
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(Refusal::new(Reason::Tls, "it did not ask for the protocol of the sync link (ALPN)"));
    }
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_LEN)?;
    socket.set_tcp_user_timeout(Some(ACKNOWLEDGE_TIMEOUT))?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_INTERVAL).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)
}
