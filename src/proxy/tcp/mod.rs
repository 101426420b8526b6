//! `protocol = "tcp"`: the life of a connection whose bytes mean nothing to us.
//!
//! [`serve`] below brings a client to a server, `relay` moves bytes between them. One task does both for one connection.

mod account;
pub mod hello;
mod relay;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use self::account::Account;
pub use self::account::{Moved, note_end};
use self::hello::{ClientHello, HelloReader, Progress, ServerHello};
use self::relay::Tap;
pub use self::relay::{Buffers, End, relay};
use super::accept::{self, Ends};
use super::http::trace::{ChosenBy, Ended};
use super::outcomes::Outcome;
use super::queue::{self, Entrance, Slot};
use super::refusals::Reason;
use super::server_io::ServerStream;
use super::state::{Listener, Pool};
use super::sticky::{Visit, Way};
use super::thread::{Place, Thread};
use super::timers::{Deadlines, Registration};
use super::upstream::dial::OnBehalf;
use crate::config::{PoolIndex, Sticky, StickyKey};
use crate::proxy::tls::Termination;
use crate::session::key::Key;

/// Servers that may fail one connection before it is given up, so that it cannot walk through a thousand dead ones.
const FAILED_MAX: usize = 5;

/// How long a client of this very machine is waited for before a server is bothered. The guard knocks at listeners: it
/// connects, ends its direction and waits for ours to end. Were that passed on, the server's answer, not the worker's,
/// would decide whether this node is fit. A client that waits for the server to speak first loses this time once.
const KNOCK_WAIT: Duration = Duration::from_millis(50);

/// What is read of a client in search of its ClientHello: enough for the longest one, unless it comes in tiny records.
const OPENING_BYTES_MAX: usize = 2 * hello::MESSAGE_BYTES_MAX;

/// Room for the ClientHello of any client of today in one read.
const HELLO_BYTES_USUAL: usize = 2048;

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
    index: PoolIndex,
    pool: &'a Pool,
    /// The listener's index.
    of: usize,
    /// The client's.
    address: IpAddr,
    /// The other end of the connection.
    peer: IpAddr,
    behalf: OnBehalf,
    registration: Registration,
    account: Account,
}

/// What a pool is sticky by that a TLS handshake says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sought {
    ServerName,
    SessionId,
}

/// What is known of a client before a server is chosen.
#[derive(Default)]
struct Opening {
    /// Read already, and to be sent to the server first.
    bytes: Vec<u8>,
    /// What the pool is sticky by, where the client said it.
    value: Option<Vec<u8>>,
}

/// A connection to a server.
struct Arrival {
    stream: ServerStream,
    /// Its index in the pool.
    server: usize,
    visit: Visit,
    /// Its share of what the server takes on, where that is limited.
    _slot: Option<Slot>,
}

/// Serves a connection to its end.
pub async fn serve(thread: &Rc<Thread>, of: usize, stream: TcpStream, peer: SocketAddr, ends: Ends) {
    let listener_index = of;
    let Some(listener) = thread.site.listener(of) else { return };
    let Some(index) = listener.config.pool else { return };
    let Some(pool) = thread.site.pool(index) else { return };
    if listener.access.lists.as_ref().is_some_and(|lists| !lists.admit(ends.source.ip())) {
        if !accept::is_our_own(&stream, peer) {
            thread.refused(of, Reason::Address);
        }
        return;
    }
    let registration = thread.timers.register();
    let account = Account::default();
    account.marks.begin(listener.log.is_some());
    let behalf = OnBehalf::of(&thread.site, &stream, &ends);
    let (address, peer) = (ends.source.ip(), peer.ip());
    let passage = Passage { thread, listener, index, pool, of, address, peer, behalf, registration, account };
    passage.deadlines().attach_here().await;
    match &listener.tls {
        Some(tls) => passage.behind_tls(tls, stream).await,
        None => passage.in_clear(stream).await,
    }
    passage.account.close(thread, listener_index, pool, passage.address);
}

impl Passage<'_> {
    fn deadlines(&self) -> &Rc<Deadlines> {
        self.registration.deadlines()
    }

    /// TLS ends here.
    async fn behind_tls(&self, tls: &Termination, stream: TcpStream) {
        let timeout = self.listener.config.head_timeout;
        let handshake = self.thread.before_work(self.deadlines(), timeout, tls.accept(stream)).await;
        // Where it fails or takes too long, that is the client's affair.
        let Some(Ok(client)) = handshake else {
            let timed_out = handshake.is_none();
            let how = if timed_out { Ended::TimedOut } else { Ended::Refused };
            return self.account.marks.ends(how, "tls_handshake");
        };
        self.account.tls.set(tls_version(client.get_ref().1.protocol_version()));
        client.get_ref().1.server_name().unwrap_or("").clone_into(&mut self.account.sni.borrow_mut());
        let name = client.get_ref().1.server_name().map(|name| name.to_ascii_lowercase().into_bytes());
        let value = name.filter(|_| self.sought() == Some(Sought::ServerName));
        self.carry(client, Opening { bytes: Vec::new(), value }).await;
    }

    /// Bytes are passed on as they come, TLS or not.
    async fn in_clear(&self, mut client: TcpStream) {
        let opening = match self.sought() {
            None if self.is_knock(&client).await => return self.account.is_knock.set(true),
            None => Opening::default(),
            Some(sought) => {
                let hello = self.read_hello(&mut client, sought);
                let timeout = self.listener.config.head_timeout;
                match self.thread.before_work(self.deadlines(), timeout, hello).await {
                    Some(Ok(opening)) => opening,
                    // Too slow, or gone.
                    Some(Err(_)) => return self.account.marks.ends(Ended::ClientGone, ""),
                    None => return self.account.marks.ends(Ended::TimedOut, "client_too_slow"),
                }
            }
        };
        self.carry(client, opening).await;
    }

    /// Whether it is the guard that knocks, or somebody else of this machine who leaves without a word.
    async fn is_knock(&self, stream: &TcpStream) -> bool {
        if !stream.local_addr().is_ok_and(|local| local.ip() == self.peer) {
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

    fn sought(&self) -> Option<Sought> {
        let Some(Sticky::Table(table)) = &self.pool.config.sticky else { return None };
        match table.key {
            StickyKey::TlsSni => Some(Sought::ServerName),
            StickyKey::TlsSessionId => Some(Sought::SessionId),
            StickyKey::AppCookie { .. }
            | StickyKey::SourceIp { .. }
            | StickyKey::Header { .. }
            | StickyKey::Query { .. } => None,
        }
    }

    /// Reads until the ClientHello is complete. What is none is passed on all the same, and sticks nowhere.
    async fn read_hello(&self, client: &mut TcpStream, sought: Sought) -> io::Result<Opening> {
        let mut reader = HelloReader::<ClientHello>::default();
        let mut opening = Opening { bytes: Vec::with_capacity(HELLO_BYTES_USUAL), value: None };
        while opening.bytes.len() < OPENING_BYTES_MAX {
            let known = opening.bytes.len();
            if client.read_buf(&mut opening.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match reader.feed(opening.bytes.get(known..).unwrap_or_default()) {
                Progress::More => {}
                Progress::Refused(_) => break,
                Progress::Complete(hello) => {
                    opening.value = match sought {
                        Sought::ServerName => hello.server_name.map(String::into_bytes),
                        Sought::SessionId => hello.resumable_id().map(<[u8]>::to_vec),
                    };
                    break;
                }
            }
        }
        Ok(opening)
    }

    async fn carry<S: ClientSide>(&self, mut client: S, opening: Opening) {
        let Ok(_passage) = self.pool.admit() else {
            self.account.marks.ends(Ended::ServerFailed, "breaker_open");
            return reset(client.socket());
        };
        let Some(mut arrival) = self.connect(opening.value.as_deref()).await else {
            if self.account.marks.retries.get() > 0 {
                // Servers were tried.
                self.thread.site.settled(self.index, self.thread.index(), Outcome::Failure);
            }
            self.account.marks.ends(Ended::ServerFailed, "destination_unavailable");
            return reset(client.socket());
        };
        let idle_timeout = self.listener.config.idle_timeout;
        let first = self.deadlines().within(idle_timeout, arrival.stream.write_all(&opening.bytes)).await;
        let is_sent = matches!(first, Some(Ok(())));
        let opening_len = opening.bytes.len() as u64;
        drop(opening);
        let mut learn = self.learning(arrival.server);
        let tap = learn.as_mut().map(|learn| learn as Tap<'_>);
        let end = if is_sent {
            let (buffers, deadlines) = (&self.thread.buffers, self.deadlines());
            let moved = &self.account.moved;
            moved.up.set(opening_len);
            relay(&mut client, &mut arrival.stream, buffers, deadlines, idle_timeout, tap, moved).await
        } else {
            End::ServerBroke
        };
        if let Some(sticky) = &self.pool.sticky {
            sticky.left(&self.thread.site.sessions, &arrival.visit, arrival.server);
        }
        note_end(&self.account.marks, end);
        self.came_of(arrival.server, end);
        // An orderly end would make half of a message look whole.
        match end {
            End::Orderly(_) => {}
            End::ClientBroke => reset(arrival.stream.socket()),
            End::ServerBroke => reset(client.socket()),
            End::Idle => {
                reset(arrival.stream.socket());
                reset(client.socket());
            }
        }
    }

    /// A connection to a server of the pool: the one that the client belongs to, or the first one that can be reached, as
    /// nothing has been sent to any. `value` is what the client's handshake says.
    async fn connect(&self, value: Option<&[u8]>) -> Option<Arrival> {
        let (sessions, servers) = (&self.thread.site.sessions, &self.pool.servers);
        let sticky = self.pool.sticky.as_ref();
        let mut visit = sticky.map(|sticky| sticky.connection(sessions, self.address, value)).unwrap_or_default();
        if let Some(sticky) = sticky {
            sticky.recall(sessions, &mut visit).await;
        }
        if self.sought() == Some(Sought::SessionId) {
            visit = visit.if_known();
        }
        let mut wanted = match sticky.map_or(Way::Any, |sticky| sticky.way(&visit, servers)) {
            Way::Any => None,
            Way::Home(server) => Some(server),
            Way::Closed(_) => return None,
        };
        let marks = &self.account.marks;
        marks.chosen_by.set(if wanted.is_some() { ChosenBy::Session } else { ChosenBy::Algorithm });
        let mut failed = Vec::new();
        while failed.len() < FAILED_MAX {
            let (server, slot) = match wanted.take() {
                Some(server) => self.enter(Some(server), &failed).await?,
                None => self.pick(&mut visit, &failed).await?,
            };
            if let Some(stream) = self.connect_to(server).await {
                self.account.server.set(Some(server));
                if let Some(sticky) = sticky {
                    sticky.connected(sessions, &visit, server);
                }
                return Some(Arrival { stream, server, visit, _slot: slot });
            }
            failed.push(server);
            marks.retried();
            marks.chosen_by.set(ChosenBy::Retry);
        }
        None
    }

    /// The next server in turn, where the client then belongs.
    async fn pick(&self, visit: &mut Visit, failed: &[usize]) -> Option<(usize, Option<Slot>)> {
        let Some(sticky) = &self.pool.sticky else { return self.enter(None, failed).await };
        if sticky.is_bound(visit) {
            return None;
        }
        let (first, slot) = self.enter(None, failed).await?;
        let picked = first;
        let servers = &self.pool.servers;
        let may_take =
            |server: usize| !failed.contains(&server) && servers.get(server).is_some_and(|server| server.keeps_users());
        let sessions = &self.thread.site.sessions;
        let picked = if failed.is_empty() {
            let by_hash = |key: &Key| self.thread.pick_by_hash(self.index, key);
            sticky.agree(sessions, visit, picked, by_hash, may_take).await
        } else {
            picked
        };
        let settled = sticky.settle(sessions, visit, picked, failed.is_empty(), may_take);
        if settled == first {
            return Some((settled, slot));
        }
        drop(slot);
        self.enter(Some(settled), failed).await
    }

    /// A server that has room: `wanted`, or else the next in turn. Waits for it where the pool has it so.
    async fn enter(&self, wanted: Option<usize>, failed: &[usize]) -> Option<(usize, Option<Slot>)> {
        let may_try = |server: usize| !failed.contains(&server);
        let key = self.pool.hash_of_address(self.address);
        match queue::enter(self.thread, self.deadlines(), self.index, wanted, key, may_try).await {
            Entrance::Server(server, slot) => Some((server, slot)),
            Entrance::Nowhere => None,
            Entrance::Refused(reason) => {
                self.thread.refused(self.of, reason);
                None
            }
        }
    }

    async fn connect_to(&self, server: usize) -> Option<ServerStream> {
        let place = Place { pool: self.index, server };
        let address = self.pool.config.servers.get(server)?.address;
        self.account.marks.wait();
        let dial = self.pool.dialer.dial_for_bytes(address, self.behalf);
        let began = self.pool.measures.then(Instant::now);
        let dialled = self.deadlines().within(self.pool.config.connect_timeout, dial).await;
        self.account.marks.connected();
        match &dialled {
            Some(Ok(_)) => self.pool.answered(server, began),
            Some(Err(_)) | None => self.pool.failed(server),
        }
        let site = &self.thread.site;
        let Some(Ok(stream)) = dialled else {
            if let Some(Err(error)) = dialled {
                self.thread.warn_of_dial(place, &error);
            }
            site.came_of(place, self.thread.index(), Outcome::Failure, None);
            return None;
        };
        site.connected(place);
        self.thread.count(place);
        Some(stream)
    }

    /// Notes how a connection came out: one that the server breaks without having said a word is an error of its.
    fn came_of(&self, server: usize, end: End) {
        let is_error = end == End::ServerBroke && self.account.moved.down.get() == 0;
        let outcome = if is_error { Outcome::Error } else { Outcome::Good };
        self.thread.site.came_of(Place { pool: self.index, server }, self.thread.index(), outcome, None);
        self.thread.site.settled(self.index, self.thread.index(), outcome);
    }

    /// Learns from the ServerHello under which session its client comes back, before the client does.
    fn learning(&self, server: usize) -> Option<impl FnMut(&[u8]) -> bool> {
        let sticky = self.pool.sticky.as_ref().filter(|_| self.sought() == Some(Sought::SessionId))?;
        let mut reader = HelloReader::<ServerHello>::default();
        Some(move |bytes: &[u8]| match reader.feed(bytes) {
            Progress::More => true,
            Progress::Refused(_) => false,
            Progress::Complete(hello) => {
                if let Some(id) = hello.resumable_id() {
                    sticky.learned(&self.thread.site.sessions, id, server);
                }
                false
            }
        })
    }
}

/// As OpenSSL writes it.
fn tls_version(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "",
    }
}

/// Makes the end of a connection a reset.
fn reset(stream: &TcpStream) {
    // Fails only on a socket that is closed already.
    let _closed = stream.set_zero_linger();
}
