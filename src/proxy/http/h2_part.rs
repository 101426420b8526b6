//! Parts of responses on their way through h2, which keeps them until a client takes them, and how much of that there is.
//!
//! h2 bounds what it keeps for a stream. A client that opens all windows and reads nothing has that for each of its streams,
//! so that streams have a share each of what may wait for their connection. No stream waits for what another has to send:
//! a part of its own it may always have.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Buf, Bytes};

use crate::proxy::timers::Deadlines;

/// What may wait for all streams of a connection, beside the part that each may have in any case and the one that goes
/// beyond its share. A connection with few streams does not come near it: h2 takes no more for each of them.
const CONNECTION_BYTES_MAX: usize = 512 * 1024;

/// A part of a response. Counted until it is written to the socket, or its stream has ended.
pub struct Part {
    data: Bytes,
    counted: Option<(Rc<Waiting>, usize)>,
}

/// What waits for the client on a stream.
pub struct Waiting {
    bytes: Cell<usize>,
    /// The stream is to be woken when it becomes less.
    is_awaited: Cell<bool>,
    deadlines: Rc<Deadlines>,
}

/// How much of a response waits for the client. Costs nothing for one that comes in a part or two.
pub struct Backlog {
    has_begun: bool,
    waiting: Option<Rc<Waiting>>,
}

impl Backlog {
    /// Of a response that has not begun.
    pub fn new() -> Self {
        Self { has_begun: false, waiting: None }
    }

    /// A part of the response that is not its last. `deadlines` are those of its stream, which it can be woken by.
    pub fn part(&mut self, data: Bytes, deadlines: &Rc<Deadlines>) -> Part {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Part::from(data);
        }
        let waiting = self.waiting.get_or_insert_with(|| {
            let deadlines = Rc::clone(deadlines);
            Rc::new(Waiting { bytes: Cell::new(0), is_awaited: Cell::new(false), deadlines })
        });
        waiting.bytes.set(waiting.bytes.get() + data.len());
        Part { counted: Some((Rc::clone(waiting), data.len())), data }
    }

    /// Whether as much waits as may, where so many streams are open. `is_short`, asked where anything waits, says whether
    /// memory is short: then nothing more is to wait. Who is told so is woken when a part has gone.
    pub fn is_full(&self, open: usize, is_short: impl FnOnce() -> bool) -> bool {
        let Some(waiting) = &self.waiting else { return false };
        let bytes = waiting.bytes.get();
        let is_full = bytes > 0 && (bytes.saturating_mul(open) >= CONNECTION_BYTES_MAX || is_short());
        waiting.is_awaited.set(is_full);
        is_full
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let Some((waiting, len)) = &self.counted else { return };
        waiting.bytes.set(waiting.bytes.get().saturating_sub(*len));
        if waiting.is_awaited.replace(false) {
            waiting.deadlines.wake();
        }
    }
}

/// One that nobody counts: the last of a response, or of a tunnel.
impl From<Bytes> for Part {
    fn from(data: Bytes) -> Self {
        Self { data, counted: None }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, len: usize) {
        self.data.advance(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::timers::Timers;

    fn is_full(backlog: &Backlog, open: usize) -> bool {
        backlog.is_full(open, || false)
    }

    #[test]
    fn streams_share_what_may_wait_and_each_may_have_a_part() {
        let timers = Rc::new(Timers::default());
        let registration = timers.register();
        let mut backlog = Backlog::new();
        let mut part = |len| backlog.part(Bytes::from(vec![0; len]), registration.deadlines());
        let (first, second) = (part(64 << 10), part(16 << 10));
        drop(first);
        // 512 KiB over 32 streams are 16 KiB.
        assert!(!is_full(&backlog, 31));
        assert!(is_full(&backlog, 32));
        assert!(backlog.is_full(1, || true));
        drop(second);
        assert!(!is_full(&backlog, usize::MAX));
        assert!(!backlog.is_full(1, || true));
    }

    #[test]
    fn part_counts_as_a_whole_until_all_of_it_has_gone() {
        let timers = Rc::new(Timers::default());
        let registration = timers.register();
        let mut backlog = Backlog::new();
        drop(backlog.part(Bytes::new(), registration.deadlines()));
        let mut part = backlog.part(Bytes::from_static(b"abcd"), registration.deadlines());
        part.advance(3);
        assert_eq!((part.remaining(), part.chunk()), (1, &b"d"[..]));
        assert!(backlog.is_full(1, || true));
        drop(part);
        assert!(!backlog.is_full(1, || true));
    }
}
