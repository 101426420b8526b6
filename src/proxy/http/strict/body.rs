//! A chunked body (RFC 9112 section 7.1), followed so that the gate knows where the next head begins.

use super::head::{Head, Special, is_text, parse_field};
use super::{Limits, Line, Lines, Rejection, State, Step};

/// Bytes of a chunk size line with its CRLF. A size is 16 digits at most; nobody needs more than this for extensions.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of chunk extensions in a whole body: without a bound, one-byte chunks with long extensions make us read hundreds
/// of bytes for each byte that a server sees, and count as progress. hyper stops at 16 KiB.
const EXTENSION_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a trailer section with its empty line.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// The largest chunk: what a reader with signed 64-bit sizes can hold.
const CHUNK_BYTES_MAX: u64 = i64::MAX as u64;
/// Digits of a chunk size, leading zeros included.
const SIZE_DIGITS_MAX: usize = 16;

/// How far a chunked body has come.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    part: Part,
    extension_bytes: usize,
}

/// The part of the body that comes next.
#[derive(Debug)]
enum Part {
    SizeLine(Lines),
    /// That many bytes of a chunk's data are still to come; never 0.
    Data(u64),
    DataEnd,
    Trailers {
        lines: Lines,
        fields_count: usize,
    },
}

impl Default for Part {
    fn default() -> Self {
        Self::SizeLine(Lines::default())
    }
}

impl Chunked {
    /// Judges the part that `rest` begins with; `rest` is not empty.
    pub(super) fn advance(&mut self, rest: &[u8], limits: &Limits) -> Step {
        match &mut self.part {
            Part::SizeLine(lines) => {
                let line = match lines.next(rest, CHUNK_LINE_BYTES_MAX) {
                    Line::Complete(line) => line,
                    Line::Partial => return Step::Hold,
                    Line::TooLong => return Step::Reject(Rejection::ChunkLineTooLong),
                };
                self.size_line(line)
            }
            Part::Data(remaining) => {
                let len = usize::try_from(*remaining).unwrap_or(usize::MAX).min(rest.len());
                let remaining = *remaining - len as u64;
                self.next(len, if remaining == 0 { Part::DataEnd } else { Part::Data(remaining) })
            }
            Part::DataEnd => match rest {
                [b'\r', b'\n', ..] => self.next(2, Part::default()),
                [b'\r'] => Step::Hold,
                _ => Step::Reject(Rejection::ChunkEnd),
            },
            Part::Trailers { lines, fields_count } => trailers(rest, lines, fields_count, limits),
        }
    }

    fn next(&self, len: usize, part: Part) -> Step {
        Step::Next(len, State::Chunked(Self { part, extension_bytes: self.extension_bytes }))
    }

    /// Judges `chunk-size [ chunk-ext ] CRLF`; `line` comes without its LF.
    fn size_line(&mut self, line: &[u8]) -> Step {
        let len = line.len() + 1;
        let parsed = line.strip_suffix(b"\r").ok_or(Rejection::BareLf).and_then(parse_size_line);
        let (size, extension_bytes) = match parsed {
            Ok(parsed) => parsed,
            Err(rejection) => return Step::Reject(rejection),
        };
        self.extension_bytes += extension_bytes;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Step::Reject(Rejection::ChunkExtensionsTooLarge);
        }
        let last = Part::Trailers { lines: Lines::default(), fields_count: 0 };
        self.next(len, if size == 0 { last } else { Part::Data(size) })
    }
}

/// The size of a chunk and the bytes of its extensions.
///
/// RFC 9112 section 7.1.1 has a recipient remove "bad" whitespace around the `;` of an extension. In front of the first
/// one it is refused here instead: no known client sends it, and readers differ about a size that a space follows.
fn parse_size_line(line: &[u8]) -> Result<(u64, usize), Rejection> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    if !is_text(extension) {
        return Err(if extension.contains(&b'\r') { Rejection::BareCr } else { Rejection::ChunkExtension });
    }
    if size.is_empty() || !matches!(extension.first(), None | Some(b';')) {
        return Err(Rejection::ChunkSize);
    }
    if size.len() > SIZE_DIGITS_MAX {
        return Err(Rejection::ChunkSizeOverflow);
    }
    let value = |digit: u8| u64::from(if digit.is_ascii_digit() { digit - b'0' } else { (digit | 0x20) - b'a' + 10 });
    let size = size.iter().fold(0, |size, digit| size << 4 | value(*digit));
    if size > CHUNK_BYTES_MAX { Err(Rejection::ChunkSizeOverflow) } else { Ok((size, extension.len())) }
}

/// Judges the trailer section, which ends the message. It is held back until it is complete.
fn trailers(rest: &[u8], lines: &mut Lines, fields_count: &mut usize, limits: &Limits) -> Step {
    loop {
        let line = match lines.next(rest, TRAILER_BYTES_MAX) {
            Line::Complete(line) => line,
            Line::Partial => return Step::Hold,
            Line::TooLong => return Step::Reject(Rejection::TrailersTooLarge),
        };
        let Some(line) = line.strip_suffix(b"\r") else { return Step::Reject(Rejection::BareLf) };
        if line.is_empty() {
            return Step::Next(lines.len(), State::Head(Head::default()));
        }
        *fields_count += 1;
        if *fields_count > limits.headers_max {
            return Step::Reject(Rejection::TooManyFields);
        }
        match parse_field(line).map(|field| field.special) {
            Ok(Special::None | Special::Upgrade) => {}
            Ok(Special::Host | Special::ContentLength | Special::TransferEncoding) => {
                return Step::Reject(Rejection::TrailerForbidden);
            }
            Err(rejection) => return Step::Reject(rejection),
        }
    }
}
