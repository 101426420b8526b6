//! The session table as a file, for when both nodes restart: what is written, and what is believed of what is read.
//!
//! A header (magic, format, wall-clock time of writing, the names of pools and servers), the records, and at the end
//! their count and the SHA-256 of all that came before. Integers are big-endian. A file is read twice: nothing of it is
//! used before the first time has come to a good end. Both directions work in pieces, with memory for the names and one
//! record.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use super::key::Key;
use super::record::Record;
use super::version::Version;

/// What every archive begins with.
const MAGIC: [u8; 8] = *b"BATONSES";
/// The only format there is.
const FORMAT: u16 = 1;
/// A record follows.
const TAG_RECORD: u8 = 1;
/// Count and checksum follow.
const TAG_END: u8 = 0;
/// Key, pool, server, version, idle and age.
const RECORD_LEN_BYTES: usize = 16 + 2 + 2 + 8 + 4 + 4;
/// Count and checksum.
const END_LEN_BYTES: usize = 8 + 32;
/// In place of a server's index, for an entry that was deleted.
const NO_SERVER: u16 = u16::MAX;
/// The step of the times in a record.
const STEP: Duration = Duration::from_millis(100);
/// Pools of a configuration, and servers of a pool.
const NAMES_MAX: usize = 1024;

/// Bytes that a record takes in an archive.
pub const ENTRY_LEN_BYTES: u64 = RECORD_LEN_BYTES as u64 + 1;

/// Why an archive is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not begin as one.
    #[error("it is not an archive of sessions")]
    Foreign,
    /// A later release wrote it.
    #[error("it has format {0}, and this release reads format 1")]
    UnknownFormat(u16),
    /// It ends too early.
    #[error("it is cut off")]
    CutOff,
    /// A field has a value that is never written.
    #[error("a field of it holds no valid value")]
    Malformed,
    /// There are more or fewer records than it says.
    #[error("its number of records is wrong")]
    WrongCount,
    /// The checksum is not that of the content.
    #[error("its checksum is wrong")]
    WrongChecksum,
    /// Something follows the end.
    #[error("something follows its end")]
    TrailingBytes,
}

/// The names of a pool and its servers, in the order of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolNames {
    /// The pool's, at most 255 bytes.
    pub pool: String,
    /// The servers', each at most 255 bytes.
    pub servers: Vec<String>,
}

/// Writes an archive, piece by piece, to the end of a buffer that the caller empties.
pub struct Encoder {
    digest: Context,
    count: u64,
}

impl Encoder {
    /// The header. `written_at` is the wall-clock time since the Unix epoch.
    pub fn begin(written_at: Duration, pools: &[PoolNames], out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend(MAGIC);
        out.extend(FORMAT.to_be_bytes());
        out.extend(u64::try_from(written_at.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        out.extend(length(pools.len()).to_be_bytes());
        for pool in pools {
            put_name(&pool.pool, out);
            out.extend(length(pool.servers.len()).to_be_bytes());
            pool.servers.iter().for_each(|server| put_name(server, out));
        }
        let mut digest = Context::new(&SHA256);
        digest.update(out.get(start..).unwrap_or_default());
        Self { digest, count: 0 }
    }

    /// A record.
    pub fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(TAG_RECORD);
        out.extend(record.key.to_bytes());
        out.extend(record.pool.to_be_bytes());
        out.extend(record.server.unwrap_or(NO_SERVER).to_be_bytes());
        out.extend(record.version.get().to_be_bytes());
        out.extend(steps(record.idle).to_be_bytes());
        out.extend(steps(record.age).to_be_bytes());
        self.digest.update(out.get(start..).unwrap_or_default());
        self.count += 1;
    }

    /// The end.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(TAG_END);
        out.extend(self.count.to_be_bytes());
        self.digest.update(out.get(start..).unwrap_or_default());
        out.extend(self.digest.finish().as_ref());
    }
}

fn length(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn put_name(name: &str, out: &mut Vec<u8>) {
    // The configuration has no longer names; one that is cut would only not be known again.
    let bytes = name.as_bytes().get(..usize::from(u8::MAX)).unwrap_or(name.as_bytes());
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend(bytes);
}

fn steps(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / STEP.as_millis()).unwrap_or(u32::MAX)
}

/// What is read next.
enum Expect {
    Header,
    PoolName,
    ServerCount,
    ServerName { left: u16 },
    Tag,
    Record,
    End,
    Nothing,
}

/// Reads an archive, piece by piece.
pub struct Decoder {
    expect: Expect,
    pending: Vec<u8>,
    digest: Option<Context>,
    checksum: Option<[u8; 32]>,
    written_at: Duration,
    pools_left: u16,
    pools: Vec<PoolNames>,
    count: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// One that has read nothing.
    pub fn new() -> Self {
        Self {
            expect: Expect::Header,
            pending: Vec::new(),
            digest: Some(Context::new(&SHA256)),
            checksum: None,
            written_at: Duration::ZERO,
            pools_left: 0,
            pools: Vec::new(),
            count: 0,
        }
    }

    /// Takes a piece, and gives the records that end in it, of which nothing may be believed before [`Decoder::finish`] has
    /// said that the whole is good. The header has been read before the first record is given.
    ///
    /// # Errors
    /// What is wrong; the rest need not be read.
    pub fn feed(&mut self, piece: &[u8], mut on_record: impl FnMut(&Self, Record)) -> Result<(), Damage> {
        let mut input = std::mem::take(&mut self.pending);
        input.extend(piece);
        let mut rest = input.as_slice();
        while let Some(after) = self.step(rest, &mut on_record)? {
            if let Some(digest) = &mut self.digest {
                digest.update(rest.get(..rest.len() - after.len()).unwrap_or_default());
            }
            rest = after;
        }
        if matches!(self.expect, Expect::Nothing) && !rest.is_empty() {
            return Err(Damage::TrailingBytes);
        }
        self.pending = rest.to_vec();
        Ok(())
    }

    /// Whether all of it was there and is as it was written.
    ///
    /// # Errors
    /// What is wrong.
    pub fn finish(self) -> Result<(), Damage> {
        match (self.expect, self.checksum) {
            (Expect::Nothing, Some(_)) => Ok(()),
            (Expect::Header, _) if !MAGIC.starts_with(self.pending.get(..8).unwrap_or(&self.pending)) => {
                Err(Damage::Foreign)
            }
            _ => Err(Damage::CutOff),
        }
    }

    /// The wall-clock time of writing, since the Unix epoch.
    pub fn written_at(&self) -> Duration {
        self.written_at
    }

    /// The names that were read.
    pub fn pools(&self) -> &[PoolNames] {
        &self.pools
    }

    /// Records that were read.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Reads one thing, and gives what follows it; `None` when it is not all there yet.
    fn step<'b>(
        &mut self,
        input: &'b [u8],
        on_record: &mut impl FnMut(&Self, Record),
    ) -> Result<Option<&'b [u8]>, Damage> {
        match self.expect {
            Expect::Header => self.header(input),
            Expect::PoolName => {
                let Some((name, rest)) = take_name(input)? else { return Ok(None) };
                self.pools.push(PoolNames { pool: name, servers: Vec::new() });
                self.expect = Expect::ServerCount;
                Ok(Some(rest))
            }
            Expect::ServerCount => {
                let Some((count, rest)) = input.split_first_chunk::<2>() else { return Ok(None) };
                let left = u16::from_be_bytes(*count);
                if usize::from(left) > NAMES_MAX {
                    return Err(Damage::Malformed);
                }
                self.after_server(left);
                Ok(Some(rest))
            }
            Expect::ServerName { left } => {
                let Some((name, rest)) = take_name(input)? else { return Ok(None) };
                if let Some(pool) = self.pools.last_mut() {
                    pool.servers.push(name);
                }
                self.after_server(left.saturating_sub(1));
                Ok(Some(rest))
            }
            Expect::Tag => {
                let Some((tag, rest)) = input.split_first() else { return Ok(None) };
                self.expect = match *tag {
                    TAG_RECORD => Expect::Record,
                    TAG_END => Expect::End,
                    _ => return Err(Damage::Malformed),
                };
                Ok(Some(rest))
            }
            Expect::Record => {
                let Some((bytes, rest)) = input.split_first_chunk::<RECORD_LEN_BYTES>() else { return Ok(None) };
                let record = self.record(bytes)?;
                (self.expect, self.count) = (Expect::Tag, self.count + 1);
                on_record(self, record);
                Ok(Some(rest))
            }
            Expect::End => self.end(input),
            Expect::Nothing => Ok(None),
        }
    }

    fn header<'b>(&mut self, input: &'b [u8]) -> Result<Option<&'b [u8]>, Damage> {
        let Some((magic, rest)) = input.split_first_chunk::<8>() else { return Ok(None) };
        if *magic != MAGIC {
            return Err(Damage::Foreign);
        }
        let Some((format, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
        let format = u16::from_be_bytes(*format);
        if format != FORMAT {
            return Err(Damage::UnknownFormat(format));
        }
        let Some((written_at, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
        let Some((count, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
        self.written_at = Duration::from_millis(u64::from_be_bytes(*written_at));
        self.pools_left = u16::from_be_bytes(*count);
        if usize::from(self.pools_left) > NAMES_MAX {
            return Err(Damage::Malformed);
        }
        self.next_pool();
        Ok(Some(rest))
    }

    fn next_pool(&mut self) {
        self.expect = if self.pools_left == 0 { Expect::Tag } else { Expect::PoolName };
        self.pools_left = self.pools_left.saturating_sub(1);
    }

    fn after_server(&mut self, left: u16) {
        if left == 0 { self.next_pool() } else { self.expect = Expect::ServerName { left } }
    }

    fn record(&self, bytes: &[u8; RECORD_LEN_BYTES]) -> Result<Record, Damage> {
        let (key, rest) = bytes.split_first_chunk::<16>().ok_or(Damage::CutOff)?;
        let (pool, rest) = rest.split_first_chunk::<2>().ok_or(Damage::CutOff)?;
        let (server, rest) = rest.split_first_chunk::<2>().ok_or(Damage::CutOff)?;
        let (version, rest) = rest.split_first_chunk::<8>().ok_or(Damage::CutOff)?;
        let (idle, rest) = rest.split_first_chunk::<4>().ok_or(Damage::CutOff)?;
        let age = rest.first_chunk::<4>().ok_or(Damage::CutOff)?;
        let (pool, server) = (u16::from_be_bytes(*pool), u16::from_be_bytes(*server));
        let names = self.pools.get(usize::from(pool)).ok_or(Damage::Malformed)?;
        if server != NO_SERVER && usize::from(server) >= names.servers.len() {
            return Err(Damage::Malformed);
        }
        Ok(Record {
            key: Key::from_bytes(*key),
            pool,
            server: (server != NO_SERVER).then_some(server),
            version: Version::new(u64::from_be_bytes(*version)).ok_or(Damage::Malformed)?,
            idle: STEP * u32::from_be_bytes(*idle),
            age: STEP * u32::from_be_bytes(*age),
        })
    }

    fn end<'b>(&mut self, input: &'b [u8]) -> Result<Option<&'b [u8]>, Damage> {
        let Some((bytes, rest)) = input.split_first_chunk::<END_LEN_BYTES>() else { return Ok(None) };
        let (count, checksum) = bytes.split_first_chunk::<8>().ok_or(Damage::CutOff)?;
        let written: [u8; 32] = *checksum.first_chunk().ok_or(Damage::CutOff)?;
        let mut digest = self.digest.take().ok_or(Damage::Malformed)?;
        digest.update(count);
        if digest.finish().as_ref() != written {
            return Err(Damage::WrongChecksum);
        }
        if u64::from_be_bytes(*count) != self.count {
            return Err(Damage::WrongCount);
        }
        (self.expect, self.checksum) = (Expect::Nothing, Some(written));
        Ok(Some(rest))
    }
}

/// A name and what follows it; `None` when it is not all there yet.
fn take_name(input: &[u8]) -> Result<Option<(String, &[u8])>, Damage> {
    let Some((length, rest)) = input.split_first() else { return Ok(None) };
    let Some((name, rest)) = rest.split_at_checked(usize::from(*length)) else { return Ok(None) };
    let name = std::str::from_utf8(name).map_err(|_| Damage::Malformed)?;
    Ok(Some((name.to_owned(), rest)))
}

/// Where pools and servers of an archive are in the configuration of today, which may be another one than was written
/// under.
#[derive(Debug, Default)]
pub struct Mapping {
    pools: Vec<Option<(u16, Vec<Option<u16>>)>>,
}

impl Mapping {
    /// By names: from the indexes of `archived` to those of `current`.
    pub fn new(archived: &[PoolNames], current: &[PoolNames]) -> Self {
        let index = |index: usize| u16::try_from(index).ok();
        let pool = |archived: &PoolNames| {
            let position = current.iter().position(|pool| pool.pool == archived.pool)?;
            let known = current.get(position)?;
            let server = |name: &String| known.servers.iter().position(|server| server == name).and_then(index);
            Some((index(position)?, archived.servers.iter().map(server).collect()))
        };
        Self { pools: archived.iter().map(pool).collect() }
    }

    /// The record with the indexes of today, and older by the time that has passed; `None` when its pool or server is no
    /// more.
    pub fn apply(&self, record: Record, passed: Duration) -> Option<Record> {
        let (pool, servers) = self.pools.get(usize::from(record.pool))?.as_ref()?;
        let server = match record.server {
            None => None,
            Some(server) => Some((*servers.get(usize::from(server))?)?),
        };
        let (idle, age) = (record.idle.saturating_add(passed), record.age.saturating_add(passed));
        Some(Record { pool: *pool, server, idle, age, ..record })
    }
}

#[cfg(test)]
mod tests;
