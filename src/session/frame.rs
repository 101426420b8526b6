//! What two workers say to each other, in bytes. A frame is its length in four bytes, its kind in one, and its contents;
//! numbers are big-endian. All lengths are checked before anything is read or allocated.

use std::time::Duration;

use super::counters::CounterRecord;
use super::facts::{FactKey, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use super::key::Key;
use super::record::Record;
use super::version::Version;

/// Bytes of a frame's contents at most.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Bytes before the contents.
pub const HEADER_BYTES: usize = 5;
/// Bytes of an entry.
pub const RECORD_BYTES: usize = 36;
/// Bytes of a counter.
pub const COUNTER_BYTES: usize = 34;
/// Entries or counters of a frame at most, so that no frame holds the line for long.
pub const RECORDS_MAX: usize = 1_024;

/// The first bytes of the first frame.
const MAGIC: [u8; 4] = *b"BTNS";
/// The server of a deleted entry.
const DELETED: u16 = u16::MAX;
/// The unit of times.
const STEP: Duration = Duration::from_millis(100);

/// Kinds of frames.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const NAMES: u8 = 2;
    pub(super) const ENTRIES: u8 = 3;
    pub(super) const FACT: u8 = 4;
    pub(super) const SNAPSHOT_END: u8 = 5;
    pub(super) const HANDLED: u8 = 6;
    pub(super) const GOODBYE: u8 = 7;
    pub(super) const LIMITS: u8 = 8;
    pub(super) const COUNTERS: u8 = 9;
}

/// Kinds of keys of facts.
mod fact {
    pub(super) const ADMIN: u8 = 1;
    pub(super) const HEALTH: u8 = 2;
    pub(super) const TICKET_KEYS: u8 = 3;
}

/// Before a server's name in a key of health, it is not about checks but about what came of requests. Releases that do
/// not know of that look for a server of this name, which no configuration can have, and pass over it.
const OUTCOMES_MARK: char = '!';

/// What each side says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version of this protocol that it speaks.
    pub version_min: u8,
    /// The highest.
    pub version_max: u8,
    /// Another number each time that the process starts.
    pub boot: u64,
    /// The highest version of a write that it knows.
    pub latest: Version,
    /// Of the configuration in use.
    pub checksum: [u8; 8],
    /// About as many entries as its snapshot will have.
    pub entries: u64,
    /// The node's name.
    pub node: String,
}

/// The names of some servers of a pool, so that the places in entries mean something to the other node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The pool's place.
    pub pool: u16,
    /// Its name.
    pub name: String,
    /// The place of the first server named here.
    pub first: u16,
    /// The names of that server and those after it.
    pub servers: Vec<String>,
}

/// The names of some rate limits, so that the places in counters mean something to the other node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The place of the first one named here.
    pub first: u16,
    /// The names of that one and those after it.
    pub names: Vec<String>,
}

/// A frame as it came. Entries and counters are read one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The first one.
    Hello(Hello),
    /// What places mean.
    Names(Names),
    /// What places of limits mean.
    Limits(Limits),
    /// Counters that changed, or all of them.
    Counters {
        /// As in [`Frame::Entries`].
        sequence: u64,
        /// Whole counters.
        records: CounterRecords<'a>,
    },
    /// Entries of the snapshot, or changes.
    Entries {
        /// Counts frames that are to be acknowledged.
        sequence: u64,
        /// Whether they are part of the snapshot.
        is_snapshot: bool,
        /// Whole entries.
        records: Records<'a>,
    },
    /// Something else that both share.
    Fact {
        /// As in [`Frame::Entries`].
        sequence: u64,
        /// What it is about.
        key: FactKey,
        /// Which write it is.
        version: Version,
        /// What is said.
        value: &'a [u8],
    },
    /// All of the snapshot has been sent.
    SnapshotEnd {
        /// As in [`Frame::Entries`].
        sequence: u64,
    },
    /// All frames up to one have been dealt with. Also sent when there is nothing else to say.
    Handled {
        /// That one.
        sequence: u64,
    },
    /// The connection ends, and why.
    Goodbye {
        /// In words.
        reason: String,
    },
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than any frame.
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// Not a kind of frame that there is.
    #[error("there is no frame of kind {0}")]
    UnknownKind(u8),
    /// Its contents end too early, go on too long or are out of range.
    #[error("a frame of kind {0} is malformed")]
    Malformed(u8),
}

/// The entries of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records<'a>(&'a [[u8; RECORD_BYTES]]);

impl Records<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them; `None` for one with a version that is not to be believed.
    pub fn iter(&self) -> impl Iterator<Item = Option<Record>> {
        self.0.iter().map(read_record)
    }
}

/// The counters of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterRecords<'a>(&'a [[u8; COUNTER_BYTES]]);

impl CounterRecords<'_> {
    /// Each of them; `None` for one that says what cannot be.
    pub fn iter(&self) -> impl Iterator<Item = Option<CounterRecord>> {
        self.0.iter().map(read_counter)
    }
}

/// Takes the first frame off `bytes`: the frame and its length with its header; `None` while it is not all there.
///
/// # Errors
/// What is wrong with it; there is no way to go on after that.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    let Some((kind, rest)) = rest.split_first() else { return Ok(None) };
    let Some(contents) = rest.get(..length) else { return Ok(None) };
    let mut reader = Reader(contents);
    let frame = match *kind {
        kind::HELLO => reader.hello(),
        kind::NAMES => reader.names(),
        kind::ENTRIES => reader.entries(),
        kind::FACT => reader.fact(),
        kind::LIMITS => reader.limits(),
        kind::COUNTERS => reader.counters(),
        kind::SNAPSHOT_END => reader.u64().map(|sequence| Frame::SnapshotEnd { sequence }),
        kind::HANDLED => reader.u64().map(|sequence| Frame::Handled { sequence }),
        kind::GOODBYE => reader.text().map(|reason| Frame::Goodbye { reason }),
        unknown => return Err(FrameError::UnknownKind(unknown)),
    };
    match frame {
        Some(frame) if reader.0.is_empty() => Ok(Some((frame, HEADER_BYTES + length))),
        _ => Err(FrameError::Malformed(*kind)),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn version(&mut self) -> Option<Version> {
        Version::new(self.u64()?)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u8()?;
        let text = std::str::from_utf8(self.bytes(usize::from(length))?).ok()?;
        Some(text.to_owned())
    }

    fn hello(&mut self) -> Option<Frame<'a>> {
        if self.array()? != MAGIC {
            return None;
        }
        Some(Frame::Hello(Hello {
            version_min: self.u8()?,
            version_max: self.u8()?,
            boot: self.u64()?,
            latest: self.version()?,
            checksum: self.array()?,
            entries: self.u64()?,
            node: self.text()?,
        }))
    }

    fn names(&mut self) -> Option<Frame<'a>> {
        let (pool, name) = (self.u16()?, self.text()?);
        let (first, servers) = self.list()?;
        Some(Frame::Names(Names { pool, name, first, servers }))
    }

    fn limits(&mut self) -> Option<Frame<'a>> {
        let (first, names) = self.list()?;
        Some(Frame::Limits(Limits { first, names }))
    }

    /// Names, and the place of the first.
    fn list(&mut self) -> Option<(u16, Vec<String>)> {
        let (first, count) = (self.u16()?, self.u16()?);
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(self.text()?);
        }
        Some((first, names))
    }

    fn counters(&mut self) -> Option<Frame<'a>> {
        let sequence = self.u64()?;
        let (records, rest) = self.0.as_chunks::<COUNTER_BYTES>();
        if records.len() > RECORDS_MAX {
            return None;
        }
        self.0 = rest;
        Some(Frame::Counters { sequence, records: CounterRecords(records) })
    }

    fn entries(&mut self) -> Option<Frame<'a>> {
        let (sequence, is_snapshot) = (self.u64()?, self.u8()?);
        let (records, rest) = self.0.as_chunks::<RECORD_BYTES>();
        if is_snapshot > 1 || records.len() > RECORDS_MAX {
            return None;
        }
        self.0 = rest;
        Some(Frame::Entries { sequence, is_snapshot: is_snapshot == 1, records: Records(records) })
    }

    fn fact(&mut self) -> Option<Frame<'a>> {
        let sequence = self.u64()?;
        let key = match self.u8()? {
            fact::ADMIN => FactKey::Admin { pool: self.text()?, server: self.text()? },
            fact::HEALTH => {
                let (node, pool, server) = (self.text()?, self.text()?, self.text()?);
                match server.strip_prefix(OUTCOMES_MARK) {
                    Some(server) => FactKey::Outcomes { node, pool, server: server.to_owned() },
                    None => FactKey::Health { node, pool, server },
                }
            }
            fact::TICKET_KEYS => FactKey::TicketKeys,
            _ => return None,
        };
        let version = self.version()?;
        let value = std::mem::take(&mut self.0);
        (value.len() <= VALUE_BYTES_MAX).then_some(Frame::Fact { sequence, key, version, value })
    }
}

fn read_record(bytes: &[u8; RECORD_BYTES]) -> Option<Record> {
    let mut reader = Reader(bytes);
    let key = Key::from_bytes(reader.array()?);
    let (version, pool, server) = (reader.version()?, reader.u16()?, reader.u16()?);
    let mut steps = || reader.array().map(|steps| STEP * u32::from_be_bytes(steps));
    let (idle, age) = (steps()?, steps()?);
    Some(Record { key, pool, server: (server != DELETED).then_some(server), version, idle, age })
}

fn read_counter(bytes: &[u8; COUNTER_BYTES]) -> Option<CounterRecord> {
    let mut reader = Reader(bytes);
    let record = CounterRecord {
        key: Key::from_bytes(reader.array()?),
        limit: reader.u16()?,
        life: reader.u16()?,
        total: reader.u32()?,
        peer_life: reader.u16()?,
        peer_total: reader.u32()?,
        missing: reader.u32()?,
    };
    Some(record).filter(|record| record.life != 0)
}

/// Appends a Hello.
pub fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    framed(out, kind::HELLO, |out| {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[hello.version_min, hello.version_max]);
        out.extend_from_slice(&hello.boot.to_be_bytes());
        out.extend_from_slice(&hello.latest.get().to_be_bytes());
        out.extend_from_slice(&hello.checksum);
        out.extend_from_slice(&hello.entries.to_be_bytes());
        put_text(out, &hello.node);
    });
}

/// Appends the names of a pool's servers, in as many frames as it takes.
pub fn put_names(out: &mut Vec<u8>, pool: u16, name: &str, servers: &[String]) {
    put_lists(out, kind::NAMES, servers, |out| {
        out.extend_from_slice(&pool.to_be_bytes());
        put_text(out, name);
    });
}

/// Appends the names of limits, in as many frames as it takes.
pub fn put_limits(out: &mut Vec<u8>, names: &[String]) {
    put_lists(out, kind::LIMITS, names, |_| {});
}

fn put_lists(out: &mut Vec<u8>, kind: u8, names: &[String], head: impl Fn(&mut Vec<u8>)) {
    /// As many as fit, however long their names are.
    const NAMES_MAX: usize = 512;
    for (part, first) in names.chunks(NAMES_MAX).zip((0_u16..).step_by(NAMES_MAX)) {
        framed(out, kind, |out| {
            head(out);
            out.extend_from_slice(&first.to_be_bytes());
            out.extend_from_slice(&u16::try_from(part.len()).unwrap_or_default().to_be_bytes());
            part.iter().for_each(|name| put_text(out, name));
        });
    }
}

/// Appends a frame of entries: `fill` appends each with [`put_record`]. Gives their number; without any, nothing is
/// appended.
pub fn put_entries(out: &mut Vec<u8>, sequence: u64, is_snapshot: bool, fill: impl FnOnce(&mut Vec<u8>)) -> usize {
    let head = |out: &mut Vec<u8>| {
        out.extend_from_slice(&sequence.to_be_bytes());
        out.push(u8::from(is_snapshot));
    };
    put_all(out, kind::ENTRIES, RECORD_BYTES, head, fill)
}

/// Appends a frame of counters as [`put_entries`] does, each with [`put_counter`].
pub fn put_counters(out: &mut Vec<u8>, sequence: u64, fill: impl FnOnce(&mut Vec<u8>)) -> usize {
    put_all(out, kind::COUNTERS, COUNTER_BYTES, |out| out.extend_from_slice(&sequence.to_be_bytes()), fill)
}

fn put_all(
    out: &mut Vec<u8>,
    kind: u8,
    record_bytes: usize,
    head: impl FnOnce(&mut Vec<u8>),
    fill: impl FnOnce(&mut Vec<u8>),
) -> usize {
    let start = out.len();
    let mut count = 0;
    framed(out, kind, |out| {
        head(out);
        let before = out.len();
        fill(out);
        count = (out.len() - before) / record_bytes;
    });
    if count == 0 {
        out.truncate(start);
    }
    count
}

/// Appends a counter.
pub fn put_counter(out: &mut Vec<u8>, record: &CounterRecord) {
    out.extend_from_slice(&record.key.to_bytes());
    out.extend_from_slice(&record.limit.to_be_bytes());
    out.extend_from_slice(&record.life.to_be_bytes());
    out.extend_from_slice(&record.total.to_be_bytes());
    out.extend_from_slice(&record.peer_life.to_be_bytes());
    out.extend_from_slice(&record.peer_total.to_be_bytes());
    out.extend_from_slice(&record.missing.to_be_bytes());
}

/// Appends an entry.
pub fn put_record(out: &mut Vec<u8>, record: &Record) {
    let steps = |time: Duration| u32::try_from(time.as_millis() / STEP.as_millis()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&record.key.to_bytes());
    out.extend_from_slice(&record.version.get().to_be_bytes());
    out.extend_from_slice(&record.pool.to_be_bytes());
    out.extend_from_slice(&record.server.unwrap_or(DELETED).to_be_bytes());
    out.extend_from_slice(&steps(record.idle));
    out.extend_from_slice(&steps(record.age));
}

/// Appends a fact.
pub fn put_fact(out: &mut Vec<u8>, sequence: u64, key: &FactKey, version: Version, value: &[u8]) {
    framed(out, kind::FACT, |out| {
        out.extend_from_slice(&sequence.to_be_bytes());
        match key {
            FactKey::Admin { pool, server } => {
                out.push(fact::ADMIN);
                [pool, server].into_iter().for_each(|name| put_text(out, name));
            }
            FactKey::Health { node, pool, server } => {
                out.push(fact::HEALTH);
                [node, pool, server].into_iter().for_each(|name| put_text(out, name));
            }
            FactKey::Outcomes { node, pool, server } => {
                out.push(fact::HEALTH);
                let marked = format!("{OUTCOMES_MARK}{server}");
                [node, pool, &marked].into_iter().for_each(|name| put_text(out, name));
            }
            FactKey::TicketKeys => out.push(fact::TICKET_KEYS),
        }
        out.extend_from_slice(&version.get().to_be_bytes());
        out.extend_from_slice(value);
    });
}

/// Appends the end of the snapshot.
pub fn put_snapshot_end(out: &mut Vec<u8>, sequence: u64) {
    framed(out, kind::SNAPSHOT_END, |out| out.extend_from_slice(&sequence.to_be_bytes()));
}

/// Appends an acknowledgement.
pub fn put_handled(out: &mut Vec<u8>, sequence: u64) {
    framed(out, kind::HANDLED, |out| out.extend_from_slice(&sequence.to_be_bytes()));
}

/// Appends a farewell.
pub fn put_goodbye(out: &mut Vec<u8>, reason: &str) {
    framed(out, kind::GOODBYE, |out| put_text(out, reason));
}

/// Writes the header before what `fill` writes.
fn framed(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    fill(out);
    let length = u32::try_from(out.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
    if let Some(header) = out.get_mut(start..start + 4) {
        header.copy_from_slice(&length.to_be_bytes());
    }
}

/// A text after its length in one byte; a longer one is cut short, which no name in a configuration is.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let end = (0..=text.len().min(NAME_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let bytes = text.as_bytes().get(..end).unwrap_or_default();
    out.push(u8::try_from(bytes.len()).unwrap_or_default());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
