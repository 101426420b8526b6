//! `protocol = "tcp"`: the life of a connection whose bytes mean nothing to us.
//!
//! [`serve`] below brings a client to a server, `relay` moves bytes between them. One task does both for one connection.

pub mod hello;
mod relay;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub use self::relay::Buffers;
use self::relay::End;
use super::state::Listener;
use super::thread::{Place, Thread};
use super::timers::{Deadlines, Registration};
use crate::config::PoolIndex;

/// Servers that may fail one connection before it is given up, so that it cannot walk through a thousand dead ones.
const FAILED_MAX: usize = 5;

/// How long a client of this very machine is waited for before a server is bothered. The guard knocks at listeners: it
/// connects, ends its direction and waits for ours to end. Were that passed on, the server's answer, not the worker's,
/// would decide whether this node is fit. A client that waits for the server to speak first loses this time once.
const KNOCK_WAIT: Duration = Duration::from_millis(50);

/// A client's side, with or without TLS.
trait ClientSide: AsyncRead + AsyncWrite + Unpin {
    fn socket(&self) -> &TcpStream;
}

impl ClientSide for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl ClientSide for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// One client connection on its way to a server.
struct Passage<'a> {
    thread: &'a Rc<Thread>,
    listener: &'a Listener,
    pool: PoolIndex,
    registration: Registration,
}

/// Serves a connection to its end.
pub async fn serve(thread: &Rc<Thread>, listener: usize, stream: TcpStream, peer: SocketAddr) {
    let Some(listener) = thread.site.listeners.get(listener) else { return };
    let Some(pool) = listener.config.pool else { return };
    let passage = Passage { thread, listener, pool, registration: thread.timers.register() };
    passage.deadlines().attach_here().await;
    match &listener.tls {
        None if passage.is_knock(&stream, peer).await => {}
        None => passage.carry(stream).await,
        Some(acceptor) => {
            let handshake = acceptor.accept(stream);
            let timeout = listener.config.head_timeout;
            // Where it fails or takes too long, that is the client's affair.
            if let Some(Ok(stream)) = thread.before_work(passage.deadlines(), timeout, handshake).await {
                passage.carry(stream).await;
            }
        }
    }
}

impl Passage<'_> {
    fn deadlines(&self) -> &Rc<Deadlines> {
        self.registration.deadlines()
    }

    /// Whether it is the guard that knocks, or somebody else of this machine who leaves without a word.
    async fn is_knock(&self, stream: &TcpStream, peer: SocketAddr) -> bool {
        if !stream.local_addr().is_ok_and(|local| local.ip() == peer.ip()) {
            return false;
        }
        let mut first = [0; 1];
        match self.thread.before_work(self.deadlines(), KNOCK_WAIT, stream.peek(&mut first)).await {
            Some(Ok(len)) => len == 0,
            Some(Err(_)) => true,
            // It waits to be spoken to.
            None => self.thread.is_draining(),
        }
    }

    async fn carry<S: ClientSide>(&self, mut client: S) {
        let Some(mut server) = self.connect().await else { return reset(client.socket()) };
        let idle_timeout = self.listener.config.idle_timeout;
        match relay::relay(&mut client, &mut server, &self.thread.buffers, self.deadlines(), idle_timeout).await {
            End::Orderly => {}
            // An orderly end would make half of a message look whole.
            End::ClientBroke => reset(&server),
            End::ServerBroke => reset(client.socket()),
            End::Idle => {
                reset(&server);
                reset(client.socket());
            }
        }
    }

    /// A connection to a server of the pool: the first one that can be reached, as nothing has been sent to any.
    async fn connect(&self) -> Option<TcpStream> {
        let pool = self.thread.site.pool(self.pool)?;
        let mut failed = Vec::new();
        while failed.len() < FAILED_MAX {
            let server = self.thread.pick(self.pool, |server| !failed.contains(&server))?;
            let address = pool.config.servers.get(server)?.address;
            let connect = TcpStream::connect(address);
            match self.deadlines().within(pool.config.connect_timeout, connect).await {
                Some(Ok(stream)) => {
                    self.thread.count(Place { pool: self.pool, server });
                    // Bytes are passed on as they come. Fails only on a socket that is closed already.
                    let _closed = stream.set_nodelay(true);
                    return Some(stream);
                }
                Some(Err(_)) | None => failed.push(server),
            }
        }
        None
    }
}

/// Makes the end of a connection a reset.
fn reset(stream: &TcpStream) {
    // Fails only on a socket that is closed already.
    let _closed = stream.set_zero_linger();
}
