//! The gate between a client's socket and hyper: it sees every byte of the request stream first.
//!
//! hyper is lenient where RFC 9112 lets a recipient be lenient, and a server behind us may be lenient in another way. Two
//! readers that understand one stream differently is what request smuggling is made of (RFC 9112 section 11.2). So the
//! gate assembles each head completely, refuses whatever two readers could read in two ways, and follows the framing of
//! the body, so that it knows where the next head begins. Not one byte of a message with a bad head passes.
//!
//! A core: bytes in, verdict out, no sockets, no clock. The connection task of `proxy::http` calls it for each read. It
//! judges syntax and framing only; what a field means is for the code behind hyper.

use memchr::memchr;

mod body;
mod head;
mod rejection;
#[cfg(test)]
mod tests;

use body::Chunked;
use head::{Framing, Head};
pub(super) use head::{is_host_and_port, is_path_and_query};
pub use rejection::Rejection;

/// What a client may send at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, from its request line to its empty line, both included. Beyond: 431, or 414 when the request
    /// line alone is longer.
    pub head_bytes_max: usize,
    /// Fields of a head, and of a trailer section. Beyond: 431. hyper has to be told of more than 100.
    pub headers_max: usize,
    /// Bytes of a request target. Beyond: 414.
    pub uri_bytes_max: usize,
    /// Whether CONNECT is a request like others; otherwise it is refused.
    pub allows_connect: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes_max: 32 * 1024, headers_max: 100, uri_bytes_max: 8 * 1024, allows_connect: false }
    }
}

/// What to do with the bytes that were shown to [`Gate::inspect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The first `len` bytes may go on. What follows them is incomplete: keep it, and show it again in front of the next
    /// bytes of the connection.
    Pass {
        /// At most the number of bytes shown.
        len: usize,
    },
    /// The stream is bad from byte `after` on. The bytes before it are good and may go on: they belong to earlier
    /// messages, or, in [`Phase::Body`], to the part of the current message that is well formed. Answer those, then
    /// answer with the rejection's status, and close; no later byte of this connection means anything.
    Reject {
        /// At most the number of bytes shown.
        after: usize,
        /// The rule that was broken.
        rejection: Rejection,
    },
}

/// Where in the stream the next byte would fall. It chooses the time-out that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between two messages: of the next head nothing has come, or only the empty line that may precede it.
    Idle,
    /// Some of a head has come.
    Head,
    /// A head has passed, its body or trailer section has not ended.
    Body,
}

/// Judges the request stream of one connection.
///
/// Give it each read with [`Gate::inspect`]; what it holds back it wants to see again, at the front of the next call. It
/// remembers how far it has looked, so a head that arrives byte by byte is scanned once.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    state: State,
    heads_count: u64,
}

#[derive(Debug)]
enum State {
    /// In front of a head or inside one.
    Head(Head),
    /// That many bytes of a body with a Content-Length are still to come; never 0.
    Length(u64),
    /// Inside a chunked body.
    Chunked(Chunked),
    /// Behind a head that asks for another protocol: until the answer is known, so is not what the next byte is.
    Switching,
    /// The stream broke a rule.
    Rejected { rejection: Rejection, phase: Phase },
}

/// What a part of the message found at the front of the bytes it was given.
enum Step {
    /// It is complete and good: so many bytes, at least 1, and what comes after them.
    Next(usize, State),
    /// More bytes are needed to judge it.
    Hold,
    /// It breaks a rule.
    Reject(Rejection),
}

impl Gate {
    /// A gate in front of the first byte of a connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head(Head::default()), heads_count: 0 }
    }

    /// Judges by other limits from the next head on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Judges `bytes`: what the last call held back, followed by what has been read since.
    ///
    /// How the stream is cut into reads has no influence on what passes in the end, nor on the rejection. After a
    /// rejection every call rejects all it is shown, for the same reason.
    pub fn inspect(&mut self, bytes: &[u8]) -> Verdict {
        let mut passed = 0;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            if rest.is_empty() {
                return Verdict::Pass { len: passed };
            }
            let step = match &mut self.state {
                State::Head(head) => head.advance(rest, &self.limits),
                State::Length(remaining) => take_data(rest, *remaining),
                State::Chunked(chunked) => chunked.advance(rest, &self.limits),
                State::Switching => Step::Hold,
                State::Rejected { rejection, .. } => Step::Reject(*rejection),
            };
            match step {
                Step::Next(len, state) => {
                    self.heads_count += u64::from(matches!(self.state, State::Head(_)));
                    passed += len;
                    self.state = state;
                }
                Step::Hold => return Verdict::Pass { len: passed },
                Step::Reject(rejection) => {
                    self.state = State::Rejected { rejection, phase: self.phase() };
                    return Verdict::Reject { after: passed, rejection };
                }
            }
        }
    }

    /// Where the next byte would fall; after a rejection, where the bad byte fell. At the end of the stream anything but
    /// [`Phase::Idle`] means that the client left in the middle of a message.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Head(head) if head.has_begun() => Phase::Head,
            State::Head(_) | State::Switching => Phase::Idle,
            State::Length(_) | State::Chunked(_) => Phase::Body,
            State::Rejected { phase, .. } => *phase,
        }
    }

    /// Whether a head has passed that asks for another protocol (an upgrade without a body, or CONNECT). What follows it
    /// is held until [`Gate::stays_http`], as it may not be HTTP.
    pub fn is_switching(&self) -> bool {
        matches!(self.state, State::Switching)
    }

    /// The other protocol was not granted: what follows is the next head.
    pub fn stays_http(&mut self) {
        if self.is_switching() {
            self.state = State::Head(Head::default());
        }
    }

    /// How many heads have passed since the connection began: after a rejection, the number of requests to answer before
    /// the rejection itself.
    pub fn heads_count(&self) -> u64 {
        self.heads_count
    }
}

/// What follows a head.
fn after_head(framing: Framing) -> State {
    match framing {
        Framing::Length(0) => State::Head(Head::default()),
        Framing::Length(remaining) => State::Length(remaining),
        Framing::Chunked => State::Chunked(Chunked::default()),
        Framing::Switching => State::Switching,
    }
}

/// Passes body bytes of a message with a Content-Length; `rest` is not empty.
fn take_data(rest: &[u8], remaining: u64) -> Step {
    let len = usize::try_from(remaining).unwrap_or(usize::MAX).min(rest.len());
    Step::Next(len, after_head(Framing::Length(remaining - len as u64)))
}

/// Cuts lines off a section that grows with every call and always begins at the same byte of the stream. Remembers how
/// far it has looked.
#[derive(Debug, Default)]
struct Lines {
    /// Where the first line begins that has not been handed out.
    start: usize,
    /// No line feed lies in `start..scanned`.
    scanned: usize,
}

/// What [`Lines::next`] found.
enum Line<'a> {
    /// A line, without its line feed.
    Complete(&'a [u8]),
    /// The line feed has not come yet.
    Partial,
    /// The line feed is not within the section's limit.
    TooLong,
}

impl Lines {
    /// The next line of `section`, whose lines may take up `len_max` bytes together.
    fn next<'a>(&mut self, section: &'a [u8], len_max: usize) -> Line<'a> {
        let window = section.get(..len_max).unwrap_or(section);
        let Some(found) = memchr(b'\n', window.get(self.scanned..).unwrap_or_default()) else {
            self.scanned = window.len();
            return if window.len() == len_max { Line::TooLong } else { Line::Partial };
        };
        let end = self.scanned + found;
        let line = window.get(self.start..end).unwrap_or_default();
        self.start = end + 1;
        self.scanned = self.start;
        Line::Complete(line)
    }

    /// What follows the lines handed out, unless some of it has been looked at: so that whoever reads ahead, and finds no
    /// whole line, reads it once and not once for each byte that arrives.
    fn unseen<'a>(&self, section: &'a [u8], len_max: usize) -> &'a [u8] {
        let window = section.get(..len_max).unwrap_or(section);
        if self.scanned == self.start { window.get(self.start..).unwrap_or_default() } else { &[] }
    }

    /// Takes a line of `len` bytes, line end included, for handed out.
    fn skip(&mut self, len: usize) {
        self.start += len;
        self.scanned = self.start;
    }

    /// How many bytes the lines handed out so far take up.
    fn len(&self) -> usize {
        self.start
    }
}
