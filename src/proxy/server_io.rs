//! What lies between hyper and the socket of a server: a limit to what the server may send before it has answered.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that a server may still send. Its clones are one.
#[derive(Debug, Clone, Default)]
pub struct ReadBudget(Rc<Cell<Option<usize>>>);

impl ReadBudget {
    /// From now on this many, give or take one read.
    pub fn limit(&self, bytes: usize) {
        self.0.set(Some(bytes));
    }

    /// From now on any number.
    pub fn lift(&self) {
        self.0.set(None);
    }

    /// Whether nothing is left: reads fail.
    pub fn is_used_up(&self) -> bool {
        self.0.get() == Some(0)
    }

    fn spend(&self, bytes: usize) {
        self.0.set(self.0.get().map(|left| left.saturating_sub(bytes)));
    }
}

/// The socket of a server. Reads fail with `InvalidData` once the budget is used up.
pub struct ServerIo {
    stream: TcpStream,
    budget: ReadBudget,
}

impl ServerIo {
    /// Reads on this budget.
    pub fn new(stream: TcpStream, budget: ReadBudget) -> Self {
        Self { stream, budget }
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.budget.is_used_up() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.budget.spend(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
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
