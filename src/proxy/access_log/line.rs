//! A line of the access log: what is known of a request, or of a connection of `protocol = "tcp"`, as JSON or in the
//! combined format.
//!
//! A core: values in, bytes out. What a client sent may be any bytes; whatever they are, a line stays one line, JSON stays
//! JSON, and no field ends before its end. Nothing is allocated but by the buffer when it grows.

use std::fmt::Write as _;
use std::net::IpAddr;

use time::OffsetDateTime;

use crate::config::LogFormat;

/// What is known at the end. Texts that are empty are not known, and left out.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When its head was there, or a connection was accepted: microseconds since 1970.
    pub time_us: u64,
    /// The address that counts as the client's.
    pub client: IpAddr,
    /// The id that the request has on all its way.
    pub request_id: &'a [u8],
    /// Whose name and password were accepted.
    pub user: &'a [u8],
    /// The listener.
    pub listener: &'a str,
    /// What was asked for; its `line` alone where that cannot be read.
    pub request: Asked<'a>,
    /// The status that was answered; 499 where the client went away before there was one, 0 for a connection.
    pub status: u16,
    /// Bytes of the request's body, or from the client.
    pub bytes_in: u64,
    /// Bytes of the response's body, as they were sent, or to the client.
    pub bytes_out: u64,
    /// The route that matched.
    pub route: &'a str,
    /// The pool.
    pub pool: &'a str,
    /// The server that answered.
    pub server: &'a str,
    /// Why that one.
    pub chosen_by: &'a str,
    /// How often the request was sent again.
    pub retries: u32,
    /// What the last of these was for.
    pub retried_for: &'a str,
    /// What came of its second copy.
    pub hedge: &'a str,
    /// The version of TLS.
    pub tls: &'a str,
    /// The host that the client named in its TLS handshake.
    pub sni: &'a str,
    /// How long each phase took.
    pub phases: Phases,
    /// How it ended.
    pub ended: &'a str,
    /// Why, where it was refused or failed.
    pub reason: &'a str,
}

/// What a client asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The first line of what could not be read.
    pub line: &'a [u8],
    /// The method.
    pub method: &'a [u8],
    /// The host, with its port where it has one.
    pub host: &'a [u8],
    /// Path and query, or whatever form the target has.
    pub target: &'a [u8],
    /// `HTTP/1.1` and so on, or `TCP`.
    pub protocol: &'a str,
    /// The field Referer.
    pub referer: &'a [u8],
    /// The field User-Agent.
    pub user_agent: &'a [u8],
}

/// Times in microseconds; `None` for a phase that did not come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// From the first byte of the head to its last.
    pub head_us: Option<u64>,
    /// In the queue of the pool.
    pub queue_us: Option<u64>,
    /// For connecting to a server, over all tries; none where a connection was there already.
    pub connect_us: Option<u64>,
    /// From the head of the request to that of the server's response.
    pub first_byte_us: Option<u64>,
    /// From the head of the request to the last byte of the response.
    pub total_us: u64,
}

/// Appends a line, with its line feed.
pub fn write(format: LogFormat, entry: &Entry<'_>, line: &mut Vec<u8>) {
    match format {
        LogFormat::Json => json(entry, line),
        LogFormat::Combined => combined(entry, line),
    }
    line.push(b'\n');
}

fn json(entry: &Entry<'_>, line: &mut Vec<u8>) {
    line.extend_from_slice(b"{\"time\":\"");
    rfc3339(entry.time_us, line);
    line.extend_from_slice(b"\",\"client\":\"");
    show(entry.client, line);
    line.push(b'"');
    let asked = &entry.request;
    text(b"request_id", entry.request_id, line);
    text(b"user", entry.user, line);
    text(b"listener", entry.listener.as_bytes(), line);
    text(b"request_line", asked.line, line);
    text(b"method", asked.method, line);
    text(b"host", asked.host, line);
    text(b"path", asked.target, line);
    text(b"protocol", asked.protocol.as_bytes(), line);
    if entry.status != 0 {
        number(b"status", u64::from(entry.status), line);
    }
    number(b"bytes_in", entry.bytes_in, line);
    number(b"bytes_out", entry.bytes_out, line);
    text(b"referer", asked.referer, line);
    text(b"user_agent", asked.user_agent, line);
    text(b"route", entry.route.as_bytes(), line);
    text(b"pool", entry.pool.as_bytes(), line);
    text(b"server", entry.server.as_bytes(), line);
    text(b"chosen_by", entry.chosen_by.as_bytes(), line);
    if entry.retries > 0 {
        number(b"retries", u64::from(entry.retries), line);
    }
    text(b"retried_for", entry.retried_for.as_bytes(), line);
    text(b"hedge", entry.hedge.as_bytes(), line);
    text(b"tls", entry.tls.as_bytes(), line);
    text(b"sni", entry.sni.as_bytes(), line);
    let phases = &entry.phases;
    let each: [(&[u8], _); 4] = [
        (b"head_us", phases.head_us),
        (b"queue_us", phases.queue_us),
        (b"connect_us", phases.connect_us),
        (b"first_byte_us", phases.first_byte_us),
    ];
    each.into_iter().filter_map(|(name, us)| Some((name, us?))).for_each(|(name, us)| number(name, us, line));
    number(b"total_us", phases.total_us, line);
    text(b"ended", entry.ended.as_bytes(), line);
    text(b"reason", entry.reason.as_bytes(), line);
    line.push(b'}');
}

/// As nginx and Apache write it: `host - user [time] "request" status bytes "referer" "agent"`. Bytes that are no
/// printable ASCII, quotes and backslashes are written as nginx does, `\x` and two digits.
fn combined(entry: &Entry<'_>, line: &mut Vec<u8>) {
    show(entry.client, line);
    line.extend_from_slice(b" - ");
    if entry.user.is_empty() {
        line.push(b'-');
    } else {
        // A blank would begin the next column.
        entry.user.iter().for_each(|byte| if *byte == b' ' { hex(*byte, line) } else { plain(*byte, line) });
    }
    line.extend_from_slice(b" [");
    common_time(entry.time_us, line);
    line.extend_from_slice(b"] \"");
    let asked = &entry.request;
    if asked.method.is_empty() {
        if asked.line.is_empty() {
            line.push(b'-');
        }
        asked.line.iter().for_each(|byte| plain(*byte, line));
    } else {
        let parts = [asked.method, b" ", asked.target, b" ", asked.protocol.as_bytes()];
        parts.into_iter().flatten().for_each(|byte| plain(*byte, line));
    }
    line.extend_from_slice(b"\" ");
    let status = entry.status;
    let digits = [status / 100 % 10, status / 10 % 10, status % 10];
    line.extend(digits.map(|digit| b'0' + u8::try_from(digit).unwrap_or(0)));
    line.push(b' ');
    decimal(entry.bytes_out, line);
    for field in [asked.referer, asked.user_agent] {
        line.extend_from_slice(b" \"");
        if field.is_empty() {
            line.push(b'-');
        }
        field.iter().for_each(|byte| plain(*byte, line));
        line.push(b'"');
    }
}

/// A byte within quotes of the combined format.
fn plain(byte: u8, line: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => hex(byte, line),
        b' '..=b'~' => line.push(byte),
        _ => hex(byte, line),
    }
}

fn hex(byte: u8, line: &mut Vec<u8>) {
    line.extend_from_slice(b"\\x");
    line.extend([digit(byte >> 4).to_ascii_uppercase(), digit(byte & 15).to_ascii_uppercase()]);
}

fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }
}

fn name(name: &[u8], line: &mut Vec<u8>) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name);
    line.extend_from_slice(b"\":");
}

fn number(label: &[u8], value: u64, line: &mut Vec<u8>) {
    name(label, line);
    decimal(value, line);
}

fn text(label: &[u8], value: &[u8], line: &mut Vec<u8>) {
    if !value.is_empty() {
        name(label, line);
        line.push(b'"');
        quote(value, line);
        line.push(b'"');
    }
}

/// Any bytes as the inside of a JSON string (RFC 8259 section 7). What is UTF-8 stays as it is, but for what JSON or a
/// terminal would take for something else; what is not is taken for ISO 8859-1, as HTTP once had it (RFC 9110 section 5.5).
fn quote(value: &[u8], line: &mut Vec<u8>) {
    // Nearly every value is printable ASCII.
    if value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        return line.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => line.extend_from_slice(b"\\\""),
                '\\' => line.extend_from_slice(b"\\\\"),
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => escape(u16::try_from(u32::from(character)).unwrap_or(0), line),
                // Ends of a line to some readers of JSON.
                '\u{2028}' | '\u{2029}' => escape(u16::try_from(u32::from(character)).unwrap_or(0), line),
                _ => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        chunk.invalid().iter().for_each(|byte| escape(u16::from(*byte), line));
    }
}

fn escape(unit: u16, line: &mut Vec<u8>) {
    line.extend_from_slice(b"\\u");
    for byte in unit.to_be_bytes() {
        line.extend([digit(byte >> 4), digit(byte & 15)]);
    }
}

/// A number in decimal.
pub fn decimal(value: u64, line: &mut Vec<u8>) {
    let start = line.len();
    let mut rest = value;
    loop {
        line.push(b'0' + u8::try_from(rest % 10).unwrap_or(0));
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = line.get_mut(start..) {
        digits.reverse();
    }
}

/// Collects text in the buffer.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn show(value: impl std::fmt::Display, line: &mut Vec<u8>) {
    // A buffer takes whatever comes.
    let _ = write!(Text(line), "{value}");
}

/// Two digits, or more where there are.
fn padded(value: u8, line: &mut Vec<u8>) {
    if value < 10 {
        line.push(b'0');
    }
    decimal(u64::from(value), line);
}

fn moment(time_us: u64) -> OffsetDateTime {
    let seconds = i64::try_from(time_us / 1_000_000).unwrap_or(0);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `2026-11-21T22:43:14.000001Z` (RFC 3339).
pub fn rfc3339(time_us: u64, line: &mut Vec<u8>) {
    let at = moment(time_us);
    decimal(u64::try_from(at.year()).unwrap_or(0), line);
    for (before, part) in [(b'-', u8::from(at.month())), (b'-', at.day()), (b'T', at.hour())] {
        line.push(before);
        padded(part, line);
    }
    for part in [at.minute(), at.second()] {
        line.push(b':');
        padded(part, line);
    }
    line.push(b'.');
    let mut rest = time_us % 1_000_000;
    for unit in [100_000, 10_000, 1_000, 100, 10, 1] {
        decimal(rest / unit, line);
        rest %= unit;
    }
    line.push(b'Z');
}

/// `21/Nov/2026:22:43:14 +0000`.
fn common_time(time_us: u64, line: &mut Vec<u8>) {
    let at = moment(time_us);
    padded(at.day(), line);
    line.push(b'/');
    let months = [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let month = usize::from(u8::from(at.month())) - 1;
    line.extend_from_slice(months.get(month).map_or(b"Jan", |month| *month));
    line.push(b'/');
    decimal(u64::try_from(at.year()).unwrap_or(0), line);
    for part in [at.hour(), at.minute(), at.second()] {
        line.push(b':');
        padded(part, line);
    }
    line.extend_from_slice(b" +0000");
}

#[cfg(test)]
mod tests;
