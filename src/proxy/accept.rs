//! Whose connection it is that was just accepted: its own client's, or that of a client of a proxy in front, which says so
//! with the PROXY protocol. Called for listeners of both protocols, before anything else is read.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::proxy_protocol::{HEADER_BYTES_MAX, Header, Origin, Refusal, decode};
use super::refusals::Reason;
use super::state::Listener;
use super::thread::Thread;
use crate::config;
use crate::units::networks::NetworkSet;

/// The proxies in front of a listener.
pub struct Proxies {
    from: NetworkSet,
    is_required: bool,
}

/// The two ends of a client's connection, which may be one to a proxy in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Where the client is.
    pub source: SocketAddr,
    /// Where it connected to, where a proxy in front says so or servers are told.
    pub destination: Option<SocketAddr>,
    /// Whether it spoke TLS with the proxy in front.
    pub is_tls: bool,
}

/// Why a connection is closed at once.
enum Closed {
    /// What came is no header.
    Refused(Refusal),
    /// It ended or broke before its header was there.
    Gone,
}

impl Proxies {
    /// As configured.
    pub fn new(config: &config::AcceptProxy) -> Self {
        Self { from: NetworkSet::new(config.from.iter().copied()), is_required: config.required }
    }
}

/// The ends of a connection; `None` when it has to be closed. Reads nothing but a header of the PROXY protocol.
/// What is closed for what it says of its ends is counted, at the listener of the number `of`.
pub async fn ends(
    thread: &Rc<Thread>,
    (of, listener): (usize, &Listener),
    stream: &TcpStream,
    peer: SocketAddr,
) -> Option<Ends> {
    let destination = if listener.identity.tells_port() { stream.local_addr().ok() } else { None };
    let own = Ends { source: peer, destination, is_tls: false };
    let Some(proxies) = &listener.proxies else { return Some(own) };
    if !proxies.from.contains(peer.ip()) {
        if proxies.is_required && !is_our_own(stream, peer) {
            thread.refused(of, Reason::ProxyProtocol);
        }
        return (!proxies.is_required).then_some(own);
    }
    let registration = thread.timers.register();
    registration.deadlines().attach_here().await;
    let header = read_header(stream);
    let header = thread.before_work(registration.deadlines(), listener.config.head_timeout, header).await;
    if header.is_none() && !thread.is_draining() {
        thread.refused(of, Reason::ProxyProtocol);
    }
    match header? {
        Ok(Header { origin: Origin::Client { source, destination, is_tls }, .. }) => {
            Some(Ends { source, destination: Some(destination), is_tls })
        }
        Ok(Header { origin: Origin::Itself, .. }) => Some(own),
        Err(Closed::Refused(Refusal::Missing)) if !proxies.is_required => Some(own),
        Err(Closed::Refused(_)) => {
            thread.refused(of, Reason::ProxyProtocol);
            None
        }
        Err(Closed::Gone) => None,
    }
}

/// Whether a connection is from the address that it is to: the guard looks so whether we accept any.
pub fn is_our_own(stream: &TcpStream, peer: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|own| own.ip() == peer.ip())
}

/// Reads a header, and nothing of what stands behind it; nothing at all where there is none.
async fn read_header(stream: &TcpStream) -> Result<Header, Closed> {
    let mut bytes = vec![0; HEADER_BYTES_MAX];
    let mut known = 0;
    loop {
        let len = stream.peek(&mut bytes).await.map_err(|_| Closed::Gone)?;
        if len == 0 {
            return Err(Closed::Gone);
        }
        match decode(bytes.get(..len).unwrap_or_default()) {
            Ok(None) => wait_for_more(stream, len > known).await?,
            Ok(Some(header)) => {
                consume(stream, bytes.get_mut(..header.len_bytes).unwrap_or_default()).map_err(|_| Closed::Gone)?;
                return Ok(header);
            }
            Err(refusal) => return Err(Closed::Refused(refusal)),
        }
        known = len;
    }
}

/// Has the next look at the socket wait until something has come: what was only looked at keeps it readable.
async fn wait_for_more(stream: &TcpStream, has_grown: bool) -> Result<(), Closed> {
    let readiness = stream.ready(Interest::READABLE).await.map_err(|_| Closed::Gone)?;
    if !has_grown && readiness.is_read_closed() {
        return Err(Closed::Gone);
    }
    // The error says to the runtime that there is nothing to read for now, and comes back as it is.
    let _nothing = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    Ok(())
}

/// Takes bytes from the socket that are known to be there.
fn consume(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    let mut taken = 0;
    while let Some(rest) = bytes.get_mut(taken..).filter(|rest| !rest.is_empty()) {
        match stream.try_read(rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => taken += len,
        }
    }
    Ok(())
}
