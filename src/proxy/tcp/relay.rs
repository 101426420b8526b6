//! Moves bytes between a client and a server, in both directions, until both have ended.
//!
//! Each direction has one buffer at most, and has it only while there is something in it: a connection on which nothing
//! moves costs none. What one side does not take is not read from the other.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::account::Moved;
use crate::proxy::timers::{Deadlines, Party};

/// What is read at once, and so the most that a direction holds.
const BUFFER_BYTES: usize = 16 * 1024;

/// Buffers that a thread keeps ready; more are given back to the allocator.
const KEPT_MAX: usize = 64;

type Buffer = Box<[u8; BUFFER_BYTES]>;

/// The buffers of a thread that are not in use.
#[derive(Debug, Default)]
pub struct Buffers(RefCell<Vec<Buffer>>);

impl Buffers {
    fn take(&self) -> Buffer {
        self.0.borrow_mut().pop().unwrap_or_else(|| Box::new([0; BUFFER_BYTES]))
    }

    fn give_back(&self, buffer: Buffer) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides ended their direction, this one first, and all bytes were passed on.
    Orderly(Side),
    /// The client's connection broke.
    ClientBroke,
    /// The server's connection broke.
    ServerBroke,
    /// No byte moved for too long.
    Idle,
}

/// A side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// That of the client.
    Client,
    /// That of the server.
    Server,
}

/// Is shown what the server sends, before it is sent on, for as long as it gives true.
pub type Tap<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// Relays until both directions have ended, one has failed, or no byte has moved for `idle_timeout`. The end of one
/// direction is passed on at once and leaves the other open.
pub async fn relay<'a, C, S>(
    client: &mut C,
    server: &mut S,
    buffers: &'a Buffers,
    deadlines: &Deadlines,
    idle_timeout: Duration,
    tap: Option<Tap<'a>>,
    moved: &'a Moved,
) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut upwards, mut downwards) =
        (Direction::new(buffers, None, &moved.up), Direction::new(buffers, tap, &moved.down));
    deadlines.set(Party::ClientRead, idle_timeout);
    let mut ended_first = None;
    std::future::poll_fn(|context| {
        deadlines.attach(context);
        let up = upwards.poll(context, client, server);
        let down = downwards.poll(context, server, client);
        if ended_first.is_none() {
            ended_first = [(&upwards, Side::Client), (&downwards, Side::Server)]
                .into_iter()
                .find_map(|(direction, side)| (direction.stage != Stage::Open).then_some(side));
        }
        // Not `||`: both have to be asked.
        if upwards.take_moved() | downwards.take_moved() {
            deadlines.set(Party::ClientRead, idle_timeout);
        }
        // A server that has said all it wants to say need not listen: its last words still have to arrive.
        let up = match up {
            Poll::Ready(Err(Fault::Sink)) if downwards.stage != Stage::Open => Poll::Ready(Ok(())),
            up => up,
        };
        match (up, down) {
            (Poll::Ready(Err(Fault::Source)), _) | (_, Poll::Ready(Err(Fault::Sink))) => Poll::Ready(End::ClientBroke),
            (Poll::Ready(Err(Fault::Sink)), _) | (_, Poll::Ready(Err(Fault::Source))) => Poll::Ready(End::ServerBroke),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                Poll::Ready(End::Orderly(ended_first.unwrap_or(Side::Client)))
            }
            (Poll::Pending, _) | (_, Poll::Pending) if deadlines.is_late(Party::ClientRead) => Poll::Ready(End::Idle),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

/// Which side of a direction failed.
enum Fault {
    /// That which is read from.
    Source,
    /// That which is written to.
    Sink,
}

/// How far a direction has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The source has ended; what is left is written and then the sink's direction ended.
    Ending,
    Ended,
}

/// One direction of a connection.
struct Direction<'a> {
    buffers: &'a Buffers,
    /// Present while bytes wait in it, those from `from` to `to`.
    buffer: Option<Buffer>,
    from: usize,
    to: usize,
    stage: Stage,
    /// The sink may hold bytes back until it is flushed: TLS does.
    is_flushed: bool,
    has_moved: bool,
    tap: Option<Tap<'a>>,
    /// Bytes that the sink has taken.
    count: &'a Cell<u64>,
}

impl<'a> Direction<'a> {
    fn new(buffers: &'a Buffers, tap: Option<Tap<'a>>, count: &'a Cell<u64>) -> Self {
        Self {
            buffers,
            buffer: None,
            from: 0,
            to: 0,
            stage: Stage::Open,
            is_flushed: true,
            has_moved: false,
            tap,
            count,
        }
    }

    /// Whether a byte or an end has moved since the last time.
    fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Moves what can be moved. `Ready` once the source's end has been passed on.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Fault>> {
        loop {
            ready!(self.poll_write(context, sink)).map_err(|_| Fault::Sink)?;
            match self.stage {
                Stage::Open => {}
                Stage::Ending => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(context)).map_err(|_| Fault::Sink)?;
                    (self.stage, self.has_moved) = (Stage::Ended, true);
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
            if self.stage == Stage::Open {
                match self.poll_read(context, source) {
                    Poll::Ready(read) => read.map_err(|_| Fault::Source)?,
                    Poll::Pending => {
                        ready!(self.poll_flush(context, sink)).map_err(|_| Fault::Sink)?;
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Writes until the buffer is empty, and gives it back.
    fn poll_write(&mut self, context: &mut Context<'_>, sink: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        while let Some(buffer) = &self.buffer {
            let rest = buffer.get(self.from..self.to).unwrap_or_default();
            let written = if rest.is_empty() { 0 } else { ready!(Pin::new(&mut *sink).poll_write(context, rest))? };
            if written == 0 && !rest.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.from += written;
            self.count.set(self.count.get() + written as u64);
            (self.has_moved, self.is_flushed) = (true, false);
            if self.from >= self.to {
                self.buffer.take().into_iter().for_each(|buffer| self.buffers.give_back(buffer));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Fills an empty buffer, or notes the end.
    fn poll_read(&mut self, context: &mut Context<'_>, source: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<()>> {
        let mut buffer = self.buffers.take();
        let mut space = ReadBuf::new(&mut buffer[..]);
        let polled = Pin::new(source).poll_read(context, &mut space);
        let len = space.filled().len();
        self.show(space.filled());
        if polled.is_ready() && len > 0 {
            (self.buffer, self.from, self.to) = (Some(buffer), 0, len);
        } else {
            self.buffers.give_back(buffer);
            if let Poll::Ready(Ok(())) = polled {
                self.stage = Stage::Ending;
            }
        }
        polled
    }

    fn show(&mut self, bytes: &[u8]) {
        if let Some(tap) = &mut self.tap
            && !bytes.is_empty()
            && !tap(bytes)
        {
            self.tap = None;
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>, sink: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        if !self.is_flushed {
            ready!(Pin::new(sink).poll_flush(context))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Direction<'_> {
    fn drop(&mut self) {
        self.buffer.take().into_iter().for_each(|buffer| self.buffers.give_back(buffer));
    }
}
