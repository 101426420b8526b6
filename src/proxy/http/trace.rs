//! What a request leaves behind for the access log and the metrics: [`Marks`], written where things happen, and
//! [`Trace`], the texts of a request that is going to be a line.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, Request, Version, header};

use crate::proxy::access_log::line::{Asked, Phases};

/// Why a server was chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChosenBy {
    /// None was.
    #[default]
    Nothing,
    /// It was its turn.
    Algorithm,
    /// The client belongs to it.
    Session,
    /// Another one had failed.
    Retry,
    /// Another one took too long, and this one was faster.
    Hedge,
}

impl ChosenBy {
    /// As the log has it; nothing for none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Algorithm => "algorithm",
            Self::Session => "session",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
        }
    }
}

/// What came of the second copy of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hedge {
    /// None was sent.
    #[default]
    Unsent,
    /// The first copy was answered with, or neither was.
    Lost,
    /// The second one was.
    Won,
}

impl Hedge {
    /// As the log has it; nothing for none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "",
            Self::Lost => "lost",
            Self::Won => "won",
        }
    }
}

/// How a request or a connection came to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ended {
    /// All that was to be sent was.
    #[default]
    Complete,
    /// The client went away first.
    ClientGone,
    /// No server could be reached, or it broke off.
    ServerFailed,
    /// Somebody took too long.
    TimedOut,
    /// We answered it ourselves, with an error.
    Refused,
}

impl Ended {
    /// As the log has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::ServerFailed => "server_failed",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
        }
    }
}

/// What is noted of the request that a client makes now. Times only where somebody wants them.
#[derive(Debug, Default)]
pub struct Marks {
    /// The first byte of a head came, and not all of it.
    head_begun: Cell<Option<Instant>>,
    /// The head was there; `None` where nobody wants times.
    begun: Cell<Option<Instant>>,
    /// Something is waited for.
    waiting: Cell<Option<Instant>>,
    head_us: Cell<Option<u64>>,
    queue_us: Cell<Option<u64>>,
    connect_us: Cell<Option<u64>>,
    first_byte_us: Cell<Option<u64>>,
    /// Times that the request was sent again.
    pub retries: Cell<u32>,
    /// Why the server was chosen that has it now.
    pub chosen_by: Cell<ChosenBy>,
    /// Its second copy.
    pub hedge: Cell<Hedge>,
    /// Bytes of the request's body.
    pub bytes_in: Cell<u64>,
    /// How it ended and why, where that is known before the end.
    ended: Cell<Option<(Ended, &'static str)>>,
}

impl Marks {
    /// A part of a head has come. Called only where somebody wants times.
    pub fn head_begins(&self) {
        self.head_begun.set(Some(Instant::now()));
    }

    /// A head is there: the next request begins.
    pub fn begin(&self, is_timed: bool) {
        let now = is_timed.then(Instant::now);
        self.begun.set(now);
        let since = self.head_begun.take();
        self.head_us.set(since.and_then(|since| Some(micros(now?.saturating_duration_since(since)))));
        self.waiting.set(None);
        for phase in [&self.queue_us, &self.connect_us, &self.first_byte_us] {
            phase.set(None);
        }
        self.retries.set(0);
        self.chosen_by.set(ChosenBy::Nothing);
        self.hedge.set(Hedge::Unsent);
        self.bytes_in.set(0);
        self.ended.set(None);
    }

    /// It waits for a place in a queue, or for a connection, from now on.
    pub fn wait(&self) {
        if self.begun.get().is_some() {
            self.waiting.set(Some(Instant::now()));
        }
    }

    /// It has its place.
    pub fn queued(&self) {
        Self::waited(&self.waiting, &self.queue_us);
    }

    /// It has its connection, or gets none.
    pub fn connected(&self) {
        Self::waited(&self.waiting, &self.connect_us);
    }

    fn waited(since: &Cell<Option<Instant>>, phase: &Cell<Option<u64>>) {
        if let Some(since) = since.take() {
            let before = phase.get().unwrap_or(0);
            phase.set(Some(before.saturating_add(micros(since.elapsed()))));
        }
    }

    /// The head of the server's response has come. How long that took, where somebody wants to know.
    pub fn answered(&self) -> Option<u64> {
        let us = micros(self.begun.get()?.elapsed());
        self.first_byte_us.set(Some(us));
        Some(us)
    }

    /// It is sent again.
    pub fn retried(&self) {
        self.retries.set(self.retries.get().saturating_add(1));
    }

    /// It cannot come to a good end any more.
    pub fn ends(&self, how: Ended, why: &'static str) {
        self.ended.set(Some((how, why)));
    }

    /// How it had to end, where that was known before.
    pub fn ended(&self) -> Option<(Ended, &'static str)> {
        self.ended.get()
    }

    /// How long each phase took; the last one ends now. `None` where nobody wanted times.
    pub fn phases(&self) -> Option<Phases> {
        Some(Phases {
            head_us: self.head_us.get(),
            queue_us: self.queue_us.get(),
            connect_us: self.connect_us.get(),
            first_byte_us: self.first_byte_us.get(),
            total_us: micros(self.begun.get()?.elapsed()),
        })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// When something began that took so long until now: microseconds since 1970.
pub fn began_us(total_us: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    micros(now).saturating_sub(total_us)
}

/// The texts of a request, one after the other in one buffer, which is used again for the next one.
#[derive(Debug, Default)]
pub struct Trace {
    text: Vec<u8>,
    ends: [usize; TEXTS],
    version: Option<Version>,
}

const TEXTS: usize = 5;

impl Trace {
    /// Takes the texts of a request, each cut off after `bytes_max`.
    pub fn take<B>(&mut self, request: &Request<B>, bytes_max: usize) {
        let headers = request.headers();
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let host = authority.unwrap_or_else(|| value(headers, header::HOST));
        let path = request.uri().path_and_query().map(|path| path.as_str().as_bytes());
        // CONNECT has an authority alone.
        let target = path.unwrap_or(host);
        let referer = value(headers, header::REFERER);
        let texts = [request.method().as_str().as_bytes(), host, target, referer, value(headers, header::USER_AGENT)];
        self.text.clear();
        for (end, text) in self.ends.iter_mut().zip(texts) {
            self.text.extend_from_slice(text.get(..bytes_max).unwrap_or(text));
            *end = self.text.len();
        }
        self.version = Some(request.version());
    }

    /// Takes the line, cut off after `bytes_max`, of what could not be read.
    pub fn take_line(&mut self, line: &[u8], bytes_max: usize) {
        self.text.clear();
        self.text.extend_from_slice(line.get(..bytes_max).unwrap_or(line));
        self.version = None;
    }

    /// What was asked.
    pub fn asked(&self) -> Asked<'_> {
        let Some(version) = self.version else { return Asked { line: &self.text, ..Asked::default() } };
        let mut from = 0;
        let mut texts = self.ends.iter().map(|end| {
            let text = self.text.get(from..*end).unwrap_or_default();
            from = *end;
            text
        });
        let mut next = || texts.next().unwrap_or_default();
        let (method, host, target, referer, user_agent) = (next(), next(), next(), next(), next());
        Asked { line: &[], method, host, target, protocol: protocol(version), referer, user_agent }
    }
}

fn value(headers: &HeaderMap, name: HeaderName) -> &[u8] {
    headers.get(name).map_or(&[], |value| value.as_bytes())
}

/// As nginx and Apache write it.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str, fields: &[(&str, &[u8])], bytes_max: usize) -> (Trace, Vec<String>) {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut trace = Trace::default();
        trace.take(&request.body(()).unwrap(), bytes_max);
        let found = trace.asked();
        let texts = [found.method, found.host, found.target, found.referer, found.user_agent];
        let texts = texts.map(|text| text.escape_ascii().to_string()).to_vec();
        (trace, texts)
    }

    #[test]
    fn texts_are_taken_from_wherever_they_stand_and_cut_off() {
        let fields: [(&str, &[u8]); 3] =
            [("host", b"a.example:80"), ("referer", b"http://r/"), ("user-agent", b"x\xff")];
        assert_eq!(asked("/p?q", &fields, 100).1, ["GET", "a.example:80", "/p?q", "http://r/", "x\\xff"]);
        assert_eq!(asked("/p?q", &fields, 3).1, ["GET", "a.e", "/p?", "htt", "x\\xff"]);
        assert_eq!(asked("http://b.example/p", &[], 100).1, ["GET", "b.example", "/p", "", ""]);
    }

    #[test]
    fn line_of_what_could_not_be_read_is_all_that_is_known() {
        let (mut trace, _) = asked("/p", &[("user-agent", b"x")], 100);
        trace.take_line(b"GET  /", 4);
        assert_eq!(trace.asked().line, b"GET ");
        assert_eq!(trace.asked().user_agent, b"");
        assert_eq!(trace.asked().method, b"");
        assert_eq!(trace.asked().protocol, "");
        trace.take_line(b"", 4);
        assert_eq!(trace.asked().line, b"");
    }

    #[test]
    fn marks_of_one_request_are_not_those_of_the_next() {
        let marks = Marks::default();
        marks.head_begins();
        marks.begin(true);
        marks.wait();
        marks.connected();
        marks.retried();
        marks.ends(Ended::TimedOut, "x");
        let phases = marks.phases().unwrap();
        assert!(phases.head_us.is_some() && phases.connect_us.is_some() && phases.queue_us.is_none());
        marks.begin(false);
        assert_eq!(marks.phases(), None);
        assert_eq!(marks.answered(), None);
        assert_eq!((marks.retries.get(), marks.ended()), (0, None));
    }
}
