//! How the path of a request is read, so that no other spelling of it takes another route.
//!
//! | in a path | to routes | to servers |
//! |---|---|---|
//! | `%61` | `a`: an escaped character is the character | as sent |
//! | `/x/../a`, `/./a`, `/x/%2e%2e/a` | `/a` (RFC 3986 section 5.2.4) | `/a` |
//! | `//a` | `/a` | as sent |
//! | `/a;v=1/b` | `/a/b`: parameters of a segment do not count | as sent |
//! | `%2F`, `%5C`, `\`, `%3B`, `%3F`, `%23` | both what it is and what a reader that resolves it too early takes it for (`/`, `/`, `/`, `;`, the end): where both take one route, that one; else refused | as sent |
//! | `%25` | itself: nothing is resolved twice | as sent |
//! | `%3B` and, behind it in the segment, `%2F`, `%5C` or `\` | refused: some resolve the one and not the other | |
//! | `%zz`, `%00`, `/..`, `/..;x/`, `/..%2F`, `//` in front of `/../`, overlong UTF-8 | refused | |
//!
//! The reading of a path in which nothing has to be resolved is the path itself.

use std::fmt;

/// Why a path is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A `%` without two hexadecimal digits behind it.
    Escape,
    /// A zero byte.
    Zero,
    /// An escaped character in more bytes than it needs (RFC 3629 section 3).
    Overlong,
    /// `..` leads out of the root.
    AboveRoot,
    /// A dot segment that some readers see and some do not.
    HiddenDotSegment,
    /// Readers that resolve an escaped separator, and those that do not, would take different routes.
    TwoReadings,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Escape => "its path has a '%' without two hexadecimal digits",
            Refusal::Zero => "its path has a zero byte",
            Refusal::Overlong => "its path has a character in more bytes than it needs",
            Refusal::AboveRoot => "its path leads out of the root",
            Refusal::HiddenDotSegment => "its path has a dot segment that not everybody sees",
            Refusal::TwoReadings => "its path can be understood in two ways",
        })
    }
}

/// Memory for readings.
#[derive(Debug, Default)]
pub struct Buffers {
    narrow: Vec<u8>,
    wide: Vec<u8>,
}

/// A path that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// As routes see it.
    pub path: &'a [u8],
    /// As somebody might see it who resolves escaped separators, where there are any.
    pub wide: Option<&'a [u8]>,
    /// Whether dot segments were resolved.
    pub has_dot_segments: bool,
}

/// Reads a path that begins with `/`.
///
/// # Errors
/// See [`Refusal`].
pub fn read<'a>(path: &'a str, buffers: &'a mut Buffers) -> Result<Reading<'a>, Refusal> {
    let bytes = path.as_bytes();
    if is_plain(bytes) {
        return Ok(Reading { path: bytes, wide: None, has_dot_segments: false });
    }
    let Buffers { narrow, wide } = buffers;
    let (mut has, mut resolved) = (Has::default(), None);
    read_narrow(bytes, narrow, &mut has)?;
    let wide = match (has.separators, has.dot_segments) {
        (false, _) => None,
        (true, false) => Some(bytes),
        // Nobody sees the other.
        (true, true) => Some(resolved.insert(without_dot_segments(path)).as_bytes()),
    }
    .map(|sent| read_wide(sent, wide).map(|()| wide.as_slice()))
    .transpose()?;
    Ok(Reading { path: narrow, wide, has_dot_segments: has.dot_segments })
}

/// Whether nothing in a path has to be resolved.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match byte {
            b'%' | b';' | b'\\' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = *byte == b'/',
        }
    }
    true
}

/// What was seen on the way.
#[derive(Default)]
struct Has {
    dot_segments: bool,
    separators: bool,
}

/// The path as routes see it.
fn read_narrow(path: &[u8], out: &mut Vec<u8>, has: &mut Has) -> Result<(), Refusal> {
    out.clear();
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    let mut was_empty = false;
    while let Some(raw) = segments.next() {
        let is_last = segments.peek().is_none();
        let start = out.len();
        out.push(b'/');
        let named = raw.split(|byte| *byte == b';').next().unwrap_or_default();
        decode_segment(named, out, has)?;
        // A `;` or `%` in what follows it is as malformed as before it.
        check_escapes(raw.get(named.len()..).unwrap_or_default(), has)?;
        let segment = out.get(start + 1..).unwrap_or_default();
        let dots = Dots::of(segment);
        let is_empty = segment.is_empty();
        if dots.is_some() {
            if named.len() != raw.len() {
                return Err(Refusal::HiddenDotSegment);
            }
            has.dot_segments = true;
        }
        match dots {
            Some(Dots::Here) => out.truncate(start),
            // Who merges slashes and who does not would leave out different segments.
            Some(Dots::Above) if was_empty => return Err(Refusal::HiddenDotSegment),
            Some(Dots::Above) => {
                out.truncate(start);
                remove_last(out)?;
            }
            None if is_empty => out.truncate(start),
            None => {}
        }
        if is_last && (dots.is_some() || is_empty) {
            out.push(b'/');
        }
        was_empty |= dots.is_none() && is_empty;
    }
    Ok(())
}

/// The path as somebody sees it who takes every separator for one, however it is written. Its dot segments are resolved
/// already: those that are seen now were hidden.
fn read_wide(path: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    out.clear();
    out.push(b'/');
    let (mut start, mut end) = (1, None);
    let (mut is_parameter, mut is_hidden) = (false, false);
    let mut rest = path.get(1..).unwrap_or_default();
    while let Some(Byte { value, is_escaped, rest: after }) = next(rest)? {
        match value {
            // Who resolves the one and not the other sees a third path.
            b'/' | b'\\' if is_hidden && (is_escaped || value == b'\\') => return Err(Refusal::TwoReadings),
            b'/' | b'\\' => {
                refuse_dots(out, start)?;
                if out.last() != Some(&b'/') {
                    out.push(b'/');
                }
                start = out.len();
                (is_parameter, is_hidden) = (false, false);
            }
            b';' => {
                is_hidden |= is_escaped && !is_parameter;
                is_parameter = true;
            }
            _ if is_parameter => {}
            b'?' | b'#' if is_escaped => {
                refuse_dots(out, start)?;
                // It ends here to some. To others it goes on, and must hide nothing there either.
                end.get_or_insert(out.len());
                push(value, is_escaped, out);
            }
            _ => push(value, is_escaped, out),
        }
        rest = after;
    }
    refuse_dots(out, start)?;
    out.truncate(end.unwrap_or(out.len()));
    Ok(())
}

/// Refuses a segment, from `start` to the end, that is a dot segment to some readers alone.
fn refuse_dots(out: &[u8], start: usize) -> Result<(), Refusal> {
    Dots::of(out.get(start..).unwrap_or_default()).map_or(Ok(()), |_| Err(Refusal::HiddenDotSegment))
}

/// A segment that leads elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dots {
    Here,
    Above,
}

impl Dots {
    fn of(segment: &[u8]) -> Option<Self> {
        match segment {
            b"." => Some(Self::Here),
            b".." => Some(Self::Above),
            _ => None,
        }
    }
}

fn remove_last(out: &mut Vec<u8>) -> Result<(), Refusal> {
    let last = out.iter().rposition(|byte| *byte == b'/').ok_or(Refusal::AboveRoot)?;
    out.truncate(last);
    Ok(())
}

/// Resolves escapes, but for those of bytes that mean something else when they are not escaped, or nothing at all.
fn decode_segment(mut raw: &[u8], out: &mut Vec<u8>, has: &mut Has) -> Result<(), Refusal> {
    while let Some(Byte { value, is_escaped, rest }) = next(raw)? {
        has.separators |= is_separator(value, is_escaped);
        push(value, is_escaped, out);
        raw = rest;
    }
    Ok(())
}

fn push(value: u8, is_escaped: bool, out: &mut Vec<u8>) {
    if is_escaped && keeps_escape(value) {
        out.push(b'%');
        out.extend([value >> 4, value & 15].map(hex_digit));
    } else {
        out.push(value);
    }
}

fn check_escapes(mut raw: &[u8], has: &mut Has) -> Result<(), Refusal> {
    while let Some(Byte { value, is_escaped, rest }) = next(raw)? {
        has.separators |= is_separator(value, is_escaped);
        raw = rest;
    }
    Ok(())
}

/// Whether some readers take it for the end of a segment, of its name or of the path, and some do not.
fn is_separator(value: u8, is_escaped: bool) -> bool {
    match value {
        b'\\' => true,
        b'/' | b';' | b'?' | b'#' => is_escaped,
        _ => false,
    }
}

fn keeps_escape(value: u8) -> bool {
    matches!(value, b'%' | b'/' | b'\\' | b';' | b'?' | b'#' | 0..0x20 | 0x7f)
}

struct Byte<'a> {
    value: u8,
    is_escaped: bool,
    rest: &'a [u8],
}

/// The next byte that a path means.
fn next(path: &[u8]) -> Result<Option<Byte<'_>>, Refusal> {
    let (value, is_escaped, rest) = match path {
        [] => return Ok(None),
        [b'%', high, low, rest @ ..] => {
            let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low)) else { return Err(Refusal::Escape) };
            (high << 4 | low, true, rest)
        }
        [b'%', ..] => return Err(Refusal::Escape),
        [byte, rest @ ..] => (*byte, false, rest),
    };
    if value == 0 {
        return Err(Refusal::Zero);
    }
    if value >= 0xc0 && is_overlong(value, rest) {
        return Err(Refusal::Overlong);
    }
    Ok(Some(Byte { value, is_escaped, rest }))
}

/// Whether a byte and the escaped one behind it begin a character in more bytes than it needs.
fn is_overlong(lead: u8, rest: &[u8]) -> bool {
    let following = match rest {
        [b'%', high, low, ..] => hex_value(*high).zip(hex_value(*low)).map(|(high, low)| high << 4 | low),
        [byte, ..] => Some(*byte),
        [] => None,
    };
    matches!(
        (lead, following),
        (0xc0 | 0xc1, Some(0x80..=0xbf)) | (0xe0, Some(0x80..=0x9f)) | (0xf0, Some(0x80..=0x8f))
    )
}

pub(super) fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'A' + value - 10 }
}

/// A path as it was sent, without its dot segments. [`read`] has accepted it.
pub fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(raw) = segments.next() {
        let is_last = segments.peek().is_none();
        match dots_of_raw(raw) {
            None => kept.push(raw),
            Some(dots) => {
                if dots == Dots::Above {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
        }
    }
    kept.iter().flat_map(|segment| ["/", segment]).collect()
}

fn dots_of_raw(raw: &str) -> Option<Dots> {
    let mut rest = raw;
    let mut count = 0;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').or_else(|| rest.strip_prefix("%2e")).or_else(|| rest.strip_prefix("%2E"))?;
        count += 1;
    }
    match count {
        1 => Some(Dots::Here),
        2 => Some(Dots::Above),
        _ => None,
    }
}

/// A path as it was sent, without the segments of a prefix, which [`read`] finds at its front; `None` when it does not.
pub fn without_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let mut rest = path;
    let mut buffers = Buffers::default();
    for wanted in prefix.split('/').skip(1) {
        loop {
            let after = rest.strip_prefix('/')?;
            let len = after.find('/').unwrap_or(after.len());
            let (segment, tail) = after.split_at_checked(len)?;
            rest = tail;
            if segment.is_empty() && !rest.is_empty() {
                continue;
            }
            let named = segment.split(';').next().unwrap_or_default();
            let (mut found, mut expected) = (Vec::new(), std::mem::take(&mut buffers.narrow));
            expected.clear();
            decode_segment(named.as_bytes(), &mut found, &mut Has::default()).ok()?;
            decode_segment(wanted.as_bytes(), &mut expected, &mut Has::default()).ok()?;
            if found != expected {
                return None;
            }
            buffers.narrow = expected;
            break;
        }
    }
    Some(if rest.is_empty() { "/" } else { rest })
}

/// A path that is read, escaped so that it can be sent: what may not stand in one is escaped, what is escaped stays.
pub fn escaped(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        let is_escape = *byte == b'%'
            && matches!(after, [high, low, ..] if hex_value(*high).is_some() && hex_value(*low).is_some());
        let stays = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/|[]{}^".contains(byte) || is_escape;
        if stays {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            text.extend([byte >> 4, byte & 15].map(|value| char::from(hex_digit(value))));
        }
        rest = after;
    }
    text
}
