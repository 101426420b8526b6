//! The client's socket as h2 sees it: its frames are counted on their way in, and a client that takes nothing is given up.

use std::cell::{Cell, Ref, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Client;
use super::client_io::{ClientStream, LINGER_MAX};
use super::drain::Drain;
use super::h2_frames::{Frames, Offence};
use crate::proxy::timers::Party;

/// What the socket, the connection and its streams know together.
pub struct Ledger {
    /// The connection itself, under the configuration in use when it was last idle.
    client: RefCell<Rc<Client>>,
    /// How the client takes responses.
    drain: RefCell<Drain>,
    /// Streams that are served.
    pub open: Cell<usize>,
    /// All has been said, and the client's end is waited for.
    pub is_lingering: Cell<bool>,
    /// Why the connection has to end.
    pub offence: Cell<Option<Offence>>,
    /// Bytes that have been written.
    pub sent_bytes: Cell<u64>,
    frames: RefCell<Frames>,
    began: Instant,
}

impl Ledger {
    /// Of a connection in front of its preface.
    pub fn new(client: Rc<Client>) -> Rc<Self> {
        let began = client.thread().timers.coarse_now();
        let frames = RefCell::new(Frames::new(Duration::ZERO));
        Rc::new(Self {
            drain: RefCell::new(Drain::new(&client)),
            client: RefCell::new(client),
            open: Cell::new(0),
            is_lingering: Cell::new(false),
            offence: Cell::new(None),
            sent_bytes: Cell::new(0),
            frames,
            began,
        })
    }

    /// The connection itself, for its deadlines.
    pub fn client(&self) -> Ref<'_, Rc<Client>> {
        self.client.borrow()
    }

    /// Goes on with the same client under another configuration. No stream is open.
    pub fn go_over(&self, client: Rc<Client>) {
        *self.drain.borrow_mut() = Drain::new(&client);
        *self.client.borrow_mut() = client;
    }

    /// Whether the client has yet to take what is written: then it is not up to the windows of streams.
    pub fn is_congested(&self) -> bool {
        self.client().deadlines().is_set(Party::ClientWrite)
    }

    /// Whether a field block has begun and not ended.
    pub fn is_in_block(&self) -> bool {
        self.frames.borrow().is_in_block()
    }

    /// The client took a request back before its response had ended.
    pub fn taken_back(&self) {
        if let Err(offence) = self.frames.borrow_mut().taken_back(self.now()) {
            self.offence.set(Some(offence));
            self.client().deadlines().wake();
        }
    }

    /// A response was sent to its end.
    pub fn completed(&self) {
        self.frames.borrow_mut().completed();
    }

    fn received(&self, bytes: &[u8]) {
        let was_in_block = self.is_in_block();
        if let Err(offence) = self.frames.borrow_mut().received(bytes, self.now()) {
            self.offence.set(Some(offence));
        }
        let client = self.client();
        let deadlines = client.deadlines();
        match (was_in_block, self.is_in_block()) {
            // One deadline for a whole block, from its first byte: trickling does not help.
            (false, true) => {
                if let Some(listener) = client.listener() {
                    deadlines.set(Party::ClientRead, listener.config.head_timeout);
                }
            }
            (true, false) => deadlines.clear(Party::ClientRead),
            (true, true) | (false, false) => {}
        }
    }

    fn sent(&self, len: usize) {
        self.sent_bytes.set(self.sent_bytes.get().saturating_add(len as u64));
        self.drain.borrow_mut().moved(&self.client(), len);
        self.frames.borrow_mut().sent(len);
    }

    fn now(&self) -> Duration {
        self.client().thread().timers.coarse_now().saturating_duration_since(self.began)
    }
}

/// What h2 reads from and writes to.
pub struct H2Io {
    stream: ClientStream,
    ledger: Rc<Ledger>,
    /// Read before it was known that this is HTTP/2.
    read_ahead: Bytes,
    is_shut_down: bool,
}

impl H2Io {
    /// A connection of which `read_ahead` has been read.
    pub fn new(stream: ClientStream, ledger: Rc<Ledger>, read_ahead: Bytes) -> Self {
        Self { stream, ledger, read_ahead, is_shut_down: false }
    }

    /// Reads and forgets, until the client ends or its time does: so that what was written last is not overtaken by the
    /// reset that the kernel sends where something is left unread.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut space = [std::mem::MaybeUninit::uninit(); 4096];
            let mut forgotten = ReadBuf::uninit(&mut space);
            let is_open = match Pin::new(&mut self.stream).poll_read(context, &mut forgotten) {
                Poll::Ready(read) => read.is_ok() && !forgotten.filled().is_empty(),
                Poll::Pending if self.ledger.client().deadlines().is_late(Party::ClientRead) => false,
                Poll::Pending => return Poll::Pending,
            };
            if !is_open {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// A write that made no progress sets a deadline, one that did takes it back.
    fn watched<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let (client, socket) = (self.ledger.client(), self.stream.socket());
        let mut drain = self.ledger.drain.borrow_mut();
        match polled {
            Poll::Pending if drain.is_late(&client, socket) => {
                // An orderly end would leave the kernel with all that waits for who takes nothing. Fails only on a
                // socket that is closed already.
                let _closed = socket.set_zero_linger();
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => {
                drain.waits(&client, socket);
                Poll::Pending
            }
            ready => {
                client.deadlines().clear(Party::ClientWrite);
                ready
            }
        }
    }

    fn written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(len)) = polled {
            self.ledger.sent(len);
        }
        self.watched(polled)
    }
}

impl AsyncRead for H2Io {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The connection ends it with a word to the client.
        if this.ledger.offence.get().is_some() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.read_ahead.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        } else {
            let len = this.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.read_ahead.split_to(len));
        }
        this.ledger.received(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        this.watched(polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut_down {
            let polled = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.watched(polled))?;
            this.is_shut_down = true;
            this.ledger.is_lingering.set(true);
            this.ledger.client().deadlines().set(Party::ClientRead, LINGER_MAX);
        }
        this.poll_linger(context)
    }
}
