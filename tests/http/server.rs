//! A server behind the program: a raw socket that records every byte it gets and answers as a test scripts it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::PATIENCE;
use crate::wire::{Kind, Message, Wire};

/// A port of the loopback address that nothing else gets while this lives.
///
/// Its socket is bound and does not listen: the kernel refuses connections to it until a second socket with
/// `SO_REUSEPORT`, here or in the program, listens on the same port.
pub struct Port {
    socket: Socket,
}

impl Port {
    pub fn reserve() -> Self {
        Self { socket: bound("127.0.0.1:0".parse().expect("an address")) }
    }

    pub fn address(&self) -> SocketAddr {
        let address = self.socket.local_addr().expect("it is bound");
        address.as_socket().expect("it is an internet socket")
    }

    /// Listens on it. Dropping the listener makes the kernel refuse connections again.
    pub fn listen(&self, backlog: i32) -> TcpListener {
        let socket = bound(self.address());
        socket.listen(backlog).expect("the port is ours");
        socket.into()
    }
}

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("sockets can be made");
    socket.set_reuse_port(true).expect("the kernel knows SO_REUSEPORT");
    socket.bind(&address.into()).expect("the port is free");
    socket
}

/// What a server does with a connection.
type Script = dyn Fn(&mut Exchange) -> io::Result<()> + Send + Sync;

/// A server, stopped at its drop.
pub struct Server {
    port: Port,
    script: Arc<Script>,
    shared: Arc<Shared>,
    keeps_bytes: bool,
    running: Option<Running>,
}

struct Running {
    listener: Socket,
    acceptor: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    record: Mutex<Record>,
    changed: Condvar,
}

/// What a server has seen.
#[derive(Default)]
pub struct Record {
    /// In the order in which they were accepted.
    pub connections: Vec<Connection>,
    /// In the order in which they were complete, over all connections.
    pub requests: Vec<Message>,
    /// A second handle of each open connection, by its number.
    streams: BTreeMap<usize, TcpStream>,
    /// How often the test has let a script go on.
    signals: usize,
}

impl Record {
    /// How often a script, or the test, has signalled without anybody having waited for it.
    pub fn signals(&self) -> usize {
        self.signals
    }
}

/// What came on one connection.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Every byte that the script read.
    pub received: Vec<u8>,
    /// The script is through with it, most often because the program closed it.
    pub is_ended: bool,
}

/// A connection, as its script sees it.
pub struct Exchange {
    wire: Wire,
    shared: Arc<Shared>,
}

impl Server {
    /// A server that runs `script` for each connection, and closes it when the script ends.
    pub fn start(script: impl Fn(&mut Exchange) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::new(script, true)
    }

    /// The same for bodies that are too large to keep: what comes is not recorded.
    pub fn unrecorded(script: impl Fn(&mut Exchange) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::new(script, false)
    }

    fn new(script: impl Fn(&mut Exchange) -> io::Result<()> + Send + Sync + 'static, keeps_bytes: bool) -> Self {
        let (port, script, shared) = (Port::reserve(), Arc::new(script), Arc::default());
        let mut server = Self { port, script, shared, keeps_bytes, running: None };
        server.resume();
        server
    }

    /// A server that gives the same answer to each request.
    pub fn answering(response: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::start(move |exchange| {
            loop {
                exchange.request()?;
                exchange.send(&response)?;
            }
        })
    }

    /// A server that answers with 200 and this text.
    pub fn saying(text: &'static str) -> Self {
        Self::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Refuses connections from now on and breaks those that are open.
    pub fn pause(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.listener.shutdown(Shutdown::Both).expect("it listens");
        running.acceptor.join().expect("the acceptor does not panic");
        for stream in std::mem::take(&mut self.shared.record().streams).into_values() {
            // It may be closed already.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    /// Accepts again after a pause, on the same port.
    pub fn resume(&mut self) {
        let listener = self.port.listen(128);
        let socket = Socket::from(listener.try_clone().expect("descriptors are left"));
        let (script, shared, keeps_bytes) = (Arc::clone(&self.script), Arc::clone(&self.shared), self.keeps_bytes);
        let acceptor = std::thread::spawn(move || accept(&listener, &script, &shared, keeps_bytes));
        self.running = Some(Running { listener: socket, acceptor });
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Message> {
        self.shared.record().requests.clone()
    }

    /// The only request so far.
    pub fn request(&self) -> Message {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// The connections so far.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.record().connections.clone()
    }

    /// Waits until the record is as described.
    pub fn wait_until(&self, description: &str, is_so: impl Fn(&Record) -> bool) {
        assert!(self.shared.wait_until(|record| is_so(record)), "waited in vain for this: {description}");
    }

    /// Lets one script go on that waits for it, now or later.
    pub fn signal(&self) {
        self.shared.update(|record| record.signals += 1);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.pause();
    }
}

impl Shared {
    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when it did not come about in time.
    fn wait_until(&self, mut is_so: impl FnMut(&mut Record) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut record = self.record();
        while !is_so(&mut record) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            record = self.changed.wait_timeout(record, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn update(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record());
        self.changed.notify_all();
    }
}

fn accept(listener: &TcpListener, script: &Arc<Script>, shared: &Arc<Shared>, keeps_bytes: bool) {
    // An error is the shutdown of a pause.
    while let Ok((stream, _)) = listener.accept() {
        let kept = stream.try_clone().expect("descriptors are left");
        let mut connection = 0;
        shared.update(|record| {
            connection = record.connections.len();
            record.connections.push(Connection::default());
            record.streams.insert(connection, kept);
        });
        let (script, shared) = (Arc::clone(script), Arc::clone(shared));
        std::thread::spawn(move || serve(stream, connection, &script, &shared, keeps_bytes));
    }
}

fn serve(stream: TcpStream, connection: usize, script: &Arc<Script>, shared: &Arc<Shared>, keeps_bytes: bool) {
    let record = Arc::clone(shared);
    let tap = move |bytes: &[u8]| {
        if keeps_bytes {
            record.update(|record| record.connections[connection].received.extend_from_slice(bytes));
        }
    };
    let mut exchange = Exchange { wire: Wire::new(stream, tap), shared: Arc::clone(shared) };
    // The error that ends a script is the end of its connection.
    let _ended = script(&mut exchange);
    // A second handle would hold the connection open.
    shared.update(|record| drop(record.streams.remove(&connection)));
    drop(exchange);
    shared.update(|record| record.connections[connection].is_ended = true);
}

impl Exchange {
    /// Reads a whole request and records it.
    ///
    /// # Errors
    /// When the connection ends instead.
    pub fn request(&mut self) -> io::Result<Message> {
        let request = self.wire.message(Kind::Request)?;
        self.shared.update(|record| record.requests.push(request.clone()));
        Ok(request)
    }

    /// Waits until the test lets it go on.
    pub fn wait_for_signal(&self) -> io::Result<()> {
        let was_signalled = self.shared.wait_until(|record| {
            let is_signalled = record.signals > 0;
            record.signals -= usize::from(is_signalled);
            is_signalled
        });
        if was_signalled { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }

    /// Tells the test that it has come so far.
    pub fn signal(&self) {
        self.shared.update(|record| record.signals += 1);
    }

    /// Waits until the program closes the connection.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        self.wire.rest().map(|_| ())
    }

    /// Makes the end of the script a reset instead of an orderly end.
    pub fn reset_at_end(&self) {
        let socket = socket2::SockRef::from(self.wire.stream());
        socket.set_linger(Some(Duration::ZERO)).expect("the socket is open");
    }
}

impl Deref for Exchange {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Exchange {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}
