//! What lies between hyper and the socket of a server: TLS, where there is any, and a watch over what the server sends
//! before it has answered.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::socket::{Socket, Stream};
use super::upstream::head_gate::HeadGate;

/// What a server may still send before its answer, and how the head of that has to look. Its clones are one.
#[derive(Clone)]
pub struct Watch(Rc<Watched>);

struct Watched {
    left: Cell<Option<usize>>,
    head: Cell<HeadGate>,
}

impl Default for Watch {
    /// Looks at nothing yet.
    fn default() -> Self {
        Self(Rc::new(Watched { left: Cell::new(None), head: Cell::new(HeadGate::open()) }))
    }
}

impl Watch {
    /// From now on comes a head, and no more bytes than this, give or take one read.
    pub fn expect_head(&self, bytes_max: usize) {
        self.0.left.set(Some(bytes_max));
        self.0.head.set(HeadGate::default());
    }

    /// From now on anything may come.
    pub fn lift(&self) {
        self.0.left.set(None);
    }

    /// Whether the server broke a rule: reads fail.
    pub fn is_broken(&self) -> bool {
        self.0.left.get() == Some(0)
    }

    fn saw(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(left) = self.0.left.get() else { return Ok(()) };
        let mut head = self.0.head.get();
        let is_good = head.inspect(bytes).is_ok();
        self.0.head.set(head);
        self.0.left.set(Some(if is_good { left.saturating_sub(bytes.len()) } else { 0 }));
        if is_good { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// A connection to a server, with or without TLS.
pub type ServerStream = Stream<TlsStream<Socket>>;

impl ServerStream {
    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream.tcp(),
            Self::Tls(stream) => stream.get_ref().0.tcp(),
        }
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The protocol that both sides agreed on (ALPN, RFC 7301).
    pub fn agreed_protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}

/// The socket of a server. Reads fail with `InvalidData` once it has broken a rule of its watch.
pub struct ServerIo {
    stream: ServerStream,
    watch: Watch,
}

impl ServerIo {
    /// Reads under this watch.
    pub fn new(stream: ServerStream, watch: Watch) -> Self {
        Self { stream, watch }
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.watch.is_broken() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        // On an error, hyper takes nothing of what is in the buffer.
        Poll::Ready(self.watch.saw(buffer.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
