//! The rules for a request's head: request line and fields (RFC 9112 sections 2 to 6).

use std::net::Ipv6Addr;
use std::ops::Range;

use memchr::memchr;

use super::{Limits, Line, Lines, Rejection, Step, after_head};

/// How the body of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes; 0 also where the head says nothing (RFC 9112 section 6.3).
    Length(u64),
    /// With the chunk of size 0 and the trailer section.
    Chunked,
    /// There is none, and what follows may be another protocol.
    Switching,
}

/// A field that decides about framing or routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    None,
    Host,
    ContentLength,
    TransferEncoding,
    Upgrade,
}

impl Special {
    fn of(name: &[u8]) -> Self {
        match (name.len(), name.first()) {
            (4, Some(b'h' | b'H')) if name.eq_ignore_ascii_case(b"host") => Self::Host,
            (7, Some(b'u' | b'U')) if name.eq_ignore_ascii_case(b"upgrade") => Self::Upgrade,
            (14, Some(b'c' | b'C')) if name.eq_ignore_ascii_case(b"content-length") => Self::ContentLength,
            (17, Some(b't' | b'T')) if name.eq_ignore_ascii_case(b"transfer-encoding") => Self::TransferEncoding,
            _ => Self::None,
        }
    }
}

/// A field line whose name is a token and whose value has no control byte but tabs.
pub(super) struct Field<'a> {
    pub(super) special: Special,
    /// From the colon to the end of the line, with the white space around it.
    value: &'a [u8],
    /// Bytes of the line without its end.
    len: usize,
}

/// A head that is being assembled, and what its lines have said so far.
#[derive(Debug, Default)]
pub(super) struct Head {
    lines: Lines,
    stage: Stage,
    is_http_10: bool,
    fields_count: usize,
    /// Where the authority of an absolute-form target lies in the head.
    authority: Option<Range<usize>>,
    /// Where the value of Host lies in the head.
    host: Option<Range<usize>>,
    content_length: Option<u64>,
    is_chunked: bool,
    is_connect: bool,
    has_upgrade: bool,
}

/// What the next line of a head is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// The request line, or one empty line in front of it.
    #[default]
    Start,
    /// The request line, after an empty line.
    AfterEmptyLine,
    /// The same, and the first byte of the request line has come.
    RequestLine,
    Fields,
}

impl Head {
    /// Whether anything but the tolerated empty line has come.
    pub(super) fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::RequestLine | Stage::Fields)
    }

    /// Judges the lines of the head that `rest` begins with; `rest` is not empty.
    pub(super) fn advance(&mut self, rest: &[u8], limits: &Limits) -> Step {
        match self.judge_lines(rest, limits) {
            Ok(Some(framing)) => Step::Next(self.lines.len(), after_head(framing)),
            Ok(None) => Step::Hold,
            Err(rejection) => Step::Reject(rejection),
        }
    }

    fn judge_lines(&mut self, rest: &[u8], limits: &Limits) -> Result<Option<Framing>, Rejection> {
        loop {
            if self.stage != Stage::Fields {
                self.look_at_first_byte(rest)?;
            }
            let start = self.lines.len();
            if self.stage == Stage::Fields {
                let unseen = self.lines.unseen(rest, limits.head_bytes_max);
                if let Some(field) = whole_field(unseen) {
                    self.field(&field, start, limits)?;
                    self.lines.skip(field.len + 2);
                    continue;
                }
                if unseen.starts_with(b"\r\n") {
                    self.lines.skip(2);
                    return self.end(rest).map(Some);
                }
            }
            let line = match self.lines.next(rest, limits.head_bytes_max) {
                Line::Complete(line) => line,
                Line::Partial => return Ok(None),
                Line::TooLong if self.stage == Stage::Fields => return Err(Rejection::HeadTooLarge),
                Line::TooLong => return Err(Rejection::UriTooLong),
            };
            let line = line.strip_suffix(b"\r").ok_or(Rejection::BareLf)?;
            match (self.stage, line.is_empty()) {
                (Stage::Fields, false) => self.field_line(line, start, limits)?,
                (Stage::Fields, true) => return self.end(rest).map(Some),
                (Stage::Start, true) => self.stage = Stage::AfterEmptyLine,
                (Stage::AfterEmptyLine, true) => return Err(Rejection::EmptyLines),
                (Stage::Start | Stage::AfterEmptyLine, false) | (Stage::RequestLine, _) => {
                    self.request_line(line, start, limits)?;
                    self.stage = Stage::Fields;
                }
            }
        }
    }

    /// Refuses what cannot become a request, such as a TLS handshake, at its first byte: its line feed may never come.
    fn look_at_first_byte(&mut self, rest: &[u8]) -> Result<(), Rejection> {
        match rest.get(self.lines.len()) {
            None | Some(b'\r') => Ok(()),
            Some(b'\n') => Err(Rejection::BareLf),
            Some(byte) if has_class(*byte, TOKEN) => {
                self.stage = Stage::RequestLine;
                Ok(())
            }
            Some(_) => Err(Rejection::Method),
        }
    }

    /// Judges `method SP request-target SP HTTP-version`; `start` is where `line` lies in the head.
    fn request_line(&mut self, line: &[u8], start: usize, limits: &Limits) -> Result<(), Rejection> {
        let malformed = |other| if line.contains(&b'\r') { Rejection::BareCr } else { other };
        let method_len = token_len(line);
        let (method, rest) = line.split_at(method_len);
        let rest = match rest {
            [b' ', rest @ ..] if method_len > 0 => rest,
            [] | [b' ', ..] => return Err(malformed(Rejection::RequestLine)),
            _ => return Err(malformed(Rejection::Method)),
        };
        let target_len = memchr(b' ', rest).ok_or_else(|| malformed(Rejection::RequestLine))?;
        let (target, version) = rest.split_at(target_len);
        self.is_http_10 = match version {
            b" HTTP/1.1" => false,
            b" HTTP/1.0" => true,
            [b' ', b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(Rejection::VersionNotSupported);
            }
            [_, version @ ..] if version.contains(&b' ') => return Err(malformed(Rejection::RequestLine)),
            _ => return Err(malformed(Rejection::Version)),
        };
        if target.len() > limits.uri_bytes_max {
            return Err(Rejection::UriTooLong);
        }
        if method == b"CONNECT" {
            // The target is authority-form, with a port (RFC 9112 section 3.2.3).
            let is_target =
                is_host_and_port(target) && target.last().is_some_and(u8::is_ascii_digit) && has_port(target);
            self.is_connect = true;
            return match (limits.allows_connect && !self.is_http_10, is_target) {
                (false, _) => Err(Rejection::Connect),
                (true, false) => Err(Rejection::Target),
                (true, true) => Ok(()),
            };
        }
        let authority = parse_target(method, target).map_err(malformed)?;
        let target_start = start + method_len + 1;
        self.authority = authority.map(|range| target_start + range.start..target_start + range.end);
        Ok(())
    }

    /// Judges a field line and notes what it says about framing; `start` is where `line` lies in the head.
    fn field_line(&mut self, line: &[u8], start: usize, limits: &Limits) -> Result<(), Rejection> {
        if self.fields_count >= limits.headers_max {
            return Err(Rejection::TooManyFields);
        }
        self.field(&parse_field(line)?, start, limits)
    }

    fn field(&mut self, field: &Field<'_>, start: usize, limits: &Limits) -> Result<(), Rejection> {
        self.fields_count += 1;
        if self.fields_count > limits.headers_max {
            return Err(Rejection::TooManyFields);
        }
        match field.special {
            Special::None => Ok(()),
            Special::Upgrade => {
                self.has_upgrade = true;
                Ok(())
            }
            Special::Host => self.host_field(field, start),
            Special::ContentLength => self.content_length_field(field.value.trim_ascii()),
            Special::TransferEncoding => self.transfer_encoding_field(field.value.trim_ascii()),
        }
    }

    fn host_field(&mut self, field: &Field<'_>, start: usize) -> Result<(), Rejection> {
        if self.host.is_some() {
            return Err(Rejection::HostRepeated);
        }
        let trimmed = field.value.trim_ascii_start();
        let host_start = start + field.len - trimmed.len();
        let host = trimmed.trim_ascii_end();
        // RFC 9110 section 7.2: a client whose target has no authority sends an empty Host.
        if !host.is_empty() && !is_host_and_port(host) {
            return Err(Rejection::HostInvalid);
        }
        self.host = Some(host_start..host_start + host.len());
        Ok(())
    }

    fn content_length_field(&mut self, value: &[u8]) -> Result<(), Rejection> {
        if self.content_length.is_some() || memchr(b',', value).is_some() {
            return Err(Rejection::ContentLengthRepeated);
        }
        if self.is_chunked {
            return Err(Rejection::TwoFramings);
        }
        self.content_length = Some(parse_content_length(value)?);
        Ok(())
    }

    fn transfer_encoding_field(&mut self, value: &[u8]) -> Result<(), Rejection> {
        if self.is_chunked {
            return Err(Rejection::TransferEncodingRepeated);
        }
        if self.is_http_10 {
            return Err(Rejection::TransferEncodingOnHttp10);
        }
        if self.content_length.is_some() {
            return Err(Rejection::TwoFramings);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(refuse_transfer_encoding(value));
        }
        self.is_chunked = true;
        Ok(())
    }

    /// The rules that need the whole head, and what they say about the body.
    fn end(&self, head: &[u8]) -> Result<Framing, Rejection> {
        let at = |range: &Range<usize>| head.get(range.clone()).unwrap_or_default();
        match (&self.host, &self.authority) {
            (None, _) if !self.is_http_10 => return Err(Rejection::HostMissing),
            (Some(host), Some(authority)) if !at(host).eq_ignore_ascii_case(at(authority)) => {
                return Err(Rejection::HostMismatch);
            }
            _ => {}
        }
        let has_body = self.is_chunked || self.content_length.is_some_and(|length| length > 0);
        if self.is_connect && has_body {
            return Err(Rejection::ConnectBody);
        }
        if !has_body && (self.is_connect || (self.has_upgrade && !self.is_http_10)) {
            return Ok(Framing::Switching);
        }
        Ok(if self.is_chunked { Framing::Chunked } else { Framing::Length(self.content_length.unwrap_or(0)) })
    }
}

/// Judges a request target; `Some` is where the authority of an absolute-form target lies in it.
fn parse_target(method: &[u8], target: &[u8]) -> Result<Option<Range<usize>>, Rejection> {
    match target {
        [b'/', ..] => parse_path_and_query(target).map(|()| None),
        b"*" if method == b"OPTIONS" => Ok(None),
        _ => {
            let is_scheme = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme));
            let scheme: &[u8] = if is_scheme(b"http://") { b"http://" } else { b"https://" };
            if !is_scheme(scheme) {
                return Err(Rejection::Target);
            }
            let rest = target.get(scheme.len()..).unwrap_or_default();
            let len = rest.iter().take_while(|byte| !matches!(byte, b'/' | b'?' | b'#')).count();
            let (authority, path_and_query) = rest.split_at(len);
            if authority.contains(&b'@') {
                return Err(Rejection::UserInfo);
            }
            if !is_host_and_port(authority) {
                return Err(Rejection::Authority);
            }
            parse_path_and_query(path_and_query)?;
            Ok(Some(scheme.len()..scheme.len() + len))
        }
    }
}

/// Judges `[path] ["?" query]`. What browsers leave unescaped is accepted, RFC 3986 or not, except where readers differ:
/// `#` (some cut a fragment off, some do not) and `\` in a path (some take it for `/`). And nothing that the `http`
/// crate would refuse, so that hyper never has to.
fn parse_path_and_query(bytes: &[u8]) -> Result<(), Rejection> {
    if is_path_and_query(bytes) { Ok(()) } else { Err(Rejection::Target) }
}

/// The same as a question.
pub(in crate::proxy::http) fn is_path_and_query(bytes: &[u8]) -> bool {
    let mut rest = bytes.iter().skip_while(|byte| has_class(**byte, PATH));
    match rest.next() {
        None => true,
        Some(b'?') => rest.all(|byte| has_class(*byte, QUERY)),
        Some(_) => false,
    }
}

/// The field at the front of `bytes`, if all of it is there and nothing is wrong with it. Found in one pass, without
/// looking for the line's end first: most of a head's bytes are seen here and nowhere else.
fn whole_field(bytes: &[u8]) -> Option<Field<'_>> {
    let (name, rest) = bytes.split_at(token_len(bytes));
    let [b':', rest @ ..] = rest else { return None };
    let (value, line_end) = rest.split_at(text_len(rest));
    if name.is_empty() || !line_end.starts_with(b"\r\n") {
        return None;
    }
    Some(Field { special: Special::of(name), value, len: name.len() + 1 + value.len() })
}

/// Splits a field line, which comes without its line end, at its colon.
pub(super) fn parse_field(line: &[u8]) -> Result<Field<'_>, Rejection> {
    let (name, rest) = line.split_at(token_len(line));
    let [b':', value @ ..] = rest else { return Err(refuse_field_name(name, rest)) };
    if name.is_empty() {
        return Err(Rejection::FieldNameEmpty);
    }
    if text_len(value) < value.len() {
        return Err(if value.contains(&b'\r') { Rejection::BareCr } else { Rejection::FieldValue });
    }
    Ok(Field { special: Special::of(name), value, len: line.len() })
}

/// Why a field line is bad in which `rest` follows the token `name` and does not begin with a colon.
#[cold]
fn refuse_field_name(name: &[u8], rest: &[u8]) -> Rejection {
    match rest {
        [] => Rejection::FieldColon,
        [b' ' | b'\t', ..] if name.is_empty() => Rejection::FieldFolded,
        [b' ' | b'\t', ..] => Rejection::FieldNameSpace,
        [b'\r', ..] => Rejection::BareCr,
        _ => Rejection::FieldName,
    }
}

/// A plain decimal number under 2^63. At most 19 digits, which holds them all and cannot overflow 64 bits.
fn parse_content_length(value: &[u8]) -> Result<u64, Rejection> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Rejection::ContentLength);
    }
    if value.len() > 19 {
        return Err(Rejection::ContentLengthOverflow);
    }
    let length = value.iter().fold(0, |length: u64, digit| length * 10 + u64::from(digit - b'0'));
    if length > i64::MAX as u64 { Err(Rejection::ContentLengthOverflow) } else { Ok(length) }
}

/// Why a Transfer-Encoding other than exactly `chunked` is bad: unknown where it is a list of codings in which `chunked`
/// stands nowhere or only at the end, else malformed.
#[cold]
fn refuse_transfer_encoding(value: &[u8]) -> Rejection {
    let mut chunked_seen = false;
    for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if chunked_seen || coding.is_empty() || token_len(coding) != coding.len() {
            return Rejection::TransferEncoding;
        }
        chunked_seen = coding.eq_ignore_ascii_case(b"chunked");
    }
    Rejection::TransferCodingUnknown
}

/// Whether `value` is `host[:port]` with a host: a name, an IPv4 address, or an IPv6 address in brackets.
///
/// Of the names that RFC 3986 permits only those of unreserved characters are accepted: percent-encoding and
/// sub-delimiters occur in no host name, and readers differ about them.
pub(in crate::proxy::http) fn is_host_and_port(value: &[u8]) -> bool {
    let (host_len, is_host) = if let [b'[', rest @ ..] = value {
        let len = memchr(b']', rest).unwrap_or(rest.len());
        let address = std::str::from_utf8(rest.get(..len).unwrap_or_default());
        (len + 2, address.is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok()))
    } else {
        let len = value.iter().take_while(|byte| has_class(**byte, HOST)).count();
        (len, len > 0)
    };
    let is_port = match value.get(host_len..) {
        Some([]) => true,
        Some([b':', port @ ..]) => is_port(port),
        _ => false,
    };
    is_host && is_port
}

/// Whether `host[:port]` has a port, which it has if a colon stands behind the brackets of an address.
fn has_port(value: &[u8]) -> bool {
    value.rsplit(|byte| *byte == b']').next().is_some_and(|rest| rest.contains(&b':'))
}

/// Digits, possibly none (RFC 3986 section 3.2.3), up to 65535.
fn is_port(port: &[u8]) -> bool {
    let all_digits = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    all_digits && port.iter().fold(0, |port, digit| port * 10 + u32::from(digit - b'0')) <= u32::from(u16::MAX)
}

/// How many bytes at the front of `bytes` are token characters (RFC 9110 section 5.6.2).
fn token_len(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let mut len = 0;
    for word in words {
        let found = first_not_letter_or_dash(*word);
        len += found;
        if found < word.len() {
            break;
        }
    }
    // What remains is nearly always the byte that ends the token.
    let rest = bytes.get(len..).unwrap_or_default();
    len + rest.iter().position(|byte| !has_class(*byte, TOKEN)).unwrap_or(rest.len())
}

/// Whether all of `bytes` are printable ASCII, space or tab.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

/// How many bytes at the front of `bytes` are no control bytes, or are tabs. Eight at a time: values are most of a head.
fn text_len(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let mut len = 0;
    for word in words {
        let found = first_control(*word);
        len += found;
        if found < word.len() {
            break;
        }
    }
    // What remains is a tail shorter than a word, a control byte, or a tab, after which values are rarely long.
    let rest = bytes.get(len..).unwrap_or_default();
    len + rest.iter().position(|byte| is_control(*byte)).unwrap_or(rest.len())
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

/// `byte` in each of the eight bytes of a word.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Where the first byte lies that is below 0x20, tabs included, or 0x7f; 8 if none is. The well-known test for a byte less
/// than n in a word: subtract n from each byte and look for a high bit that was not set before. A borrow can make a byte
/// look small only behind one that is, so the first is right.
fn first_control(word: [u8; 8]) -> usize {
    let word = u64::from_le_bytes(word);
    let below_space = word.wrapping_sub(eight(0x20)) & !word;
    let delete = word ^ eight(0x7f);
    let is_delete = delete.wrapping_sub(eight(1)) & !delete;
    ((below_space | is_delete) & eight(0x80)).trailing_zeros() as usize / 8
}

/// Where the first byte lies that is neither an ASCII letter nor `-`, which is what field names are made of; 8 if none is.
/// Each byte is cut to seven bits and something added that makes its high bit the answer; no sum reaches the next byte.
fn first_not_letter_or_dash(word: [u8; 8]) -> usize {
    let word = u64::from_le_bytes(word);
    let lower = (word | eight(0x20)) & eight(0x7f);
    let is_letter = (lower + eight(0x80 - b'a')) & !(lower + eight(0x7f - b'z'));
    let is_other_than_dash = ((word ^ eight(b'-')) & eight(0x7f)) + eight(0x7f);
    let is_good = (is_letter | !is_other_than_dash) & !word;
    (!is_good & eight(0x80)).trailing_zeros() as usize / 8
}

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;
const HOST: u8 = 8;

/// The classes of every byte.
static CLASSES: [u8; 256] = classes();

#[inline]
fn has_class(byte: u8, class: u8) -> bool {
    // The table has an entry for every byte, so the look-up cannot miss and compiles to a plain load.
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses an index out of range")]
const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        let is_alphanumeric = byte.is_ascii_alphanumeric();
        let mut class = 0;
        if is_alphanumeric
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>') {
            class |= QUERY;
            if !matches!(byte, b'?' | b'\\' | b'`') {
                class |= PATH;
            }
        }
        if is_alphanumeric || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            class |= HOST;
        }
        classes[byte as usize] = class;
        byte += 1;
    }
    classes
}
