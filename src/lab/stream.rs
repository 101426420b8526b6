//! A tokio socket as hyper wants to see it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Hyper has its own read and write traits so that it needs no runtime; this is the bridge.
pub(super) struct HyperStream(pub(super) TcpStream);

impl hyper::rt::Read for HyperStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read_bytes = {
            let mut buffer = ReadBuf::new(into.initialize_unfilled());
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
            buffer.filled().len()
        };
        // SAFETY: all of the unfilled part was initialised above, and tokio says how much of it was filled.
        unsafe { into.advance(read_bytes) };
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for HyperStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
