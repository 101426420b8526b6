//! The bytes of one connection to the peer, in both directions and in bounded memory. What they mean is not known here.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;

use super::endpoint::{Established, Stream};
use super::refusals::{Reason, Refusal};

/// Bytes that are read before they are looked at.
const INCOMING_LEN: usize = 64 * 1024;

/// Time in which the peer has to take what was written: at most one batch and what the kernel holds.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// One connection. Its owner reads and writes by turns of [`Connection::progress`].
pub struct Connection {
    /// Where its other end is.
    pub remote: SocketAddr,
    stream: Stream,
    incoming: Box<[u8]>,
    /// Bytes of `incoming` that the last turn brought.
    received: usize,
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that the TLS library has taken.
    taken: usize,
    /// Since when something waits to be written.
    waiting_since: Option<Instant>,
    /// Dropped with the connection.
    _life: Option<oneshot::Sender<()>>,
}

/// Why a connection is over.
#[derive(Debug)]
pub enum Ending {
    /// The other end closed it, or the network did, and how.
    Over(String),
    /// It broke a rule.
    Refused(Refusal),
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        match Refusal::of_stream(&error) {
            Some(refusal) => Self::Refused(refusal),
            // As the end of a process closes it.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Over("the peer's end closed".to_owned()),
            None => Self::Over(error.to_string()),
        }
    }
}

impl Connection {
    /// Takes over a connection whose other end has shown that it is the peer.
    pub fn new(established: Established) -> Self {
        let Established { stream, remote, life } = established;
        Self {
            remote,
            stream,
            incoming: vec![0; INCOMING_LEN].into_boxed_slice(),
            received: 0,
            outgoing: Vec::new(),
            taken: 0,
            waiting_since: None,
            _life: life,
        }
    }

    /// Where to put what is to be sent next; `None` while the last batch waits. So no more than one batch ever waits.
    pub fn room(&mut self) -> Option<&mut Vec<u8>> {
        self.waiting_since.is_none().then_some(&mut self.outgoing)
    }

    /// Whether all that was to be sent is written.
    pub fn is_idle(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// What the last turn brought.
    pub fn received(&self) -> &[u8] {
        self.incoming.get(..self.received).unwrap_or_default()
    }

    /// When the peer has been too slow; `None` while nothing waits for it.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + WRITE_TIMEOUT)
    }

    /// Whether the peer has been too slow.
    ///
    /// # Errors
    /// When it has.
    pub fn check(&self, now: Instant) -> Result<(), Ending> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        let detail = format!("it did not read what waited for it within {} s", WRITE_TIMEOUT.as_secs());
        Err(Ending::Refused(Refusal::new(Reason::TooSlow, detail)))
    }

    /// Waits until something could be read, or all that waited was written. Cancel safe.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn progress(&mut self) -> Result<(), Ending> {
        self.received = 0;
        if !self.outgoing.is_empty() {
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        poll_fn(|context| {
            // Both directions in each turn: two nodes that only write would wait for each other.
            let is_written = self.poll_write(context)?;
            let is_read = self.poll_read(context)?;
            if is_written || is_read { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    /// Says a last word, if it can be said at once, and closes.
    pub fn break_off(mut self, last_word: &[u8]) {
        if self.is_idle() {
            // Whoever broke a rule is not waited for, nor whoever does not hear.
            let _said = async {
                self.stream.write_all(last_word).await?;
                self.stream.shutdown().await
            }
            .now_or_never();
        }
    }

    /// Says that nothing more will come, and waits until the peer has taken what was written and closed too. So that it is
    /// not thrown away: the kernel drops what is under way when a connection is closed that has something unread.
    pub async fn close(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        while self.stream.read(&mut self.incoming).await.is_ok_and(|len| len > 0) {}
    }

    /// Writes what can be written now. True when that was the rest.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<bool, Ending> {
        if self.waiting_since.is_none() {
            return Ok(false);
        }
        while let Some(rest) = self.outgoing.get(self.taken..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(context, rest)? {
                Poll::Ready(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(len) => self.taken += len,
                Poll::Pending => return Ok(false),
            }
        }
        if Pin::new(&mut self.stream).poll_flush(context)?.is_pending() {
            return Ok(false);
        }
        self.outgoing.clear();
        (self.taken, self.waiting_since) = (0, None);
        Ok(true)
    }

    /// Reads what can be read now, as far as there is room. True when that was something.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Result<bool, Ending> {
        let mut buffer = ReadBuf::new(&mut self.incoming);
        while buffer.remaining() > 0 {
            let before = buffer.filled().len();
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before => {}
                // What came before the end is looked at first: it may say why.
                _ if before > 0 => break,
                Poll::Ready(Ok(())) => return Err(Ending::Over("the peer closed it".to_owned())),
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return Ok(false),
            }
        }
        self.received = buffer.filled().len();
        Ok(true)
    }
}
