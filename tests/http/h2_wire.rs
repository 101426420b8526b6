//! HTTP/2 by hand: frames as bytes, so that a test can send what no client would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The head of a usual request.
pub const GET: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
pub const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short");
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field block in which nothing is compressed: each field a literal with its name, not to be indexed (RFC 7541 section
/// 6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let text = |text: &[u8]| [integer(text.len(), 7), text.to_vec()].concat();
    let field = |(name, value): &(N, V)| [vec![0], text(name.as_ref()), text(value.as_ref())].concat();
    fields.iter().flat_map(field).collect()
}

/// An integer behind a prefix of so many bits (RFC 7541 section 5.1), the bits in front of it 0.
pub fn integer(value: usize, prefix_bits: u8) -> Vec<u8> {
    let max = (1_usize << prefix_bits) - 1;
    if value < max {
        return vec![u8::try_from(value).expect("it is below the prefix")];
    }
    let mut bytes = vec![u8::try_from(max).expect("a prefix has eight bits at most")];
    let mut rest = value - max;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

/// HEADERS with a whole block.
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// A whole GET.
pub fn get(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM, GET)
}

/// `fields` with others behind them.
pub fn with<'a>(fields: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [fields, more].concat()
}

/// What the program sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A head, with its status; trailers have none. Whether the stream ends with it.
    Head(u32, Option<u16>, bool),
    /// A part of a body.
    Data(u32, Vec<u8>, bool),
    Reset(u32, u32),
    Goaway(u32),
    /// PING with ACK.
    Pong,
    SettingsAck,
    /// SETTINGS, as pairs.
    Settings(Vec<(u16, u32)>),
    /// Any other frame's type.
    Other(u8),
    Closed,
}

/// A client's connection.
pub struct H2 {
    stream: TcpStream,
    received: Vec<u8>,
}

impl H2 {
    /// Without a preface.
    pub fn raw(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the listener accepts");
        stream.set_nodelay(true).expect("the socket is open");
        stream.set_write_timeout(Some(PATIENCE)).expect("the socket is open");
        Self { stream, received: Vec::new() }
    }

    /// Behind the preface and the SETTINGS of both sides.
    pub fn connect(address: SocketAddr) -> Self {
        Self::with_settings(address, &[])
    }

    /// The same, with SETTINGS of the client's.
    pub fn with_settings(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut client = Self::raw(address);
        client.send(&[PREFACE, &settings_frame(settings)].concat());
        client.wait_for("our SETTINGS are acknowledged", |event| *event == Event::SettingsAck);
        client.send(&frame(SETTINGS, ACK, 0, &[]));
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection is open");
    }

    /// False once the program has closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// What comes next, `None` when nothing does in this time.
    pub fn event(&mut self, patience: Duration) -> Option<Event> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(event) = self.take_event() {
                return Some(event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).expect("the socket is open");
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Some(Event::Closed),
                Ok(len) => self.received.extend_from_slice(&bytes[..len]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_reset) => return Some(Event::Closed),
            }
        }
    }

    /// Everything up to an event of which this is true, that one last.
    pub fn wait_for(&mut self, description: &str, is_it: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.event(PATIENCE);
            let Some(event) = event else { panic!("waited in vain for this: {description}; came: {events:?}") };
            let is_over = is_it(&event);
            let is_closed = event == Event::Closed;
            events.push(event);
            if is_over {
                return events;
            }
            assert!(!is_closed, "closed before this: {description}; came: {events:?}");
        }
    }

    /// Everything up to the end of a connection.
    pub fn rest(&mut self) -> Vec<Event> {
        self.wait_for("the end", |event| *event == Event::Closed)
    }

    /// The status and the body of a response that is read to its end.
    pub fn response(&mut self, stream: u32) -> (u16, String) {
        let is_end = |event: &Event| match event {
            Event::Head(of, _, is_end) | Event::Data(of, _, is_end) => *of == stream && *is_end,
            _ => false,
        };
        let events = self.wait_for("the end of a response", is_end);
        let status = events.iter().find_map(|event| match event {
            Event::Head(of, Some(status), _) if *of == stream && *status >= 200 => Some(*status),
            _ => None,
        });
        let body = events.iter().filter_map(|event| match event {
            Event::Data(of, data, _) if *of == stream => Some(data.as_slice()),
            _ => None,
        });
        let body = String::from_utf8_lossy(&body.collect::<Vec<_>>().concat()).into_owned();
        (status.expect("a head comes first"), body)
    }

    fn take_event(&mut self) -> Option<Event> {
        let head = self.received.get(..9)?;
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.received.get(9..9 + len)?.to_vec();
        self.received.drain(..9 + len);
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        Some(match kind {
            HEADERS => Event::Head(stream, status(&payload), flags & END_STREAM != 0),
            DATA => Event::Data(stream, payload, flags & END_STREAM != 0),
            RST_STREAM => Event::Reset(stream, number(0)),
            GOAWAY => Event::Goaway(number(4)),
            PING if flags & ACK != 0 => Event::Pong,
            SETTINGS if flags & ACK != 0 => Event::SettingsAck,
            SETTINGS => Event::Settings(
                payload
                    .chunks(6)
                    .map(|pair| {
                        (
                            u16::from_be_bytes([pair[0], pair[1]]),
                            u32::from_be_bytes(pair[2..].try_into().expect("four")),
                        )
                    })
                    .collect(),
            ),
            other => Event::Other(other),
        })
    }
}

/// SETTINGS of these pairs.
pub fn settings_frame(settings: &[(u16, u32)]) -> Vec<u8> {
    let pair = |(key, value): &(u16, u32)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &settings.iter().flat_map(pair).collect::<Vec<_>>())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// The `:status` that a field block of the program's begins with: indexed, or a literal whose value is digits.
fn status(block: &[u8]) -> Option<u16> {
    let mut block = block;
    // Updates of the dynamic table's size come first.
    while let [first, rest @ ..] = block
        && first & 0xe0 == 0x20
    {
        let skipped =
            if first & 0x1f == 0x1f { rest.iter().position(|byte| byte & 128 == 0).map_or(0, |at| at + 1) } else { 0 };
        block = &rest[skipped..];
    }
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [index @ 0x88..=0x8e, ..] => Some(indexed[usize::from(index - 0x88)]),
        // A literal, indexed or not, whose name is one of the static table's.
        [name, len, value @ ..] if matches!(name, 0x08..=0x0e | 0x48..=0x4e | 0x18..=0x1e) => {
            let value = value.get(..usize::from(len & 0x7f))?;
            if len & 0x80 == 0 { std::str::from_utf8(value).ok()?.parse().ok() } else { huffman_digits(value) }
        }
        // An entry of the dynamic table: not the first response of the connection.
        _ => None,
    }
}

/// Three digits in the code of RFC 7541 appendix B.
fn huffman_digits(value: &[u8]) -> Option<u16> {
    let bits: Vec<u8> = value.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = bits.get(at..at + 5)?.iter().fold(0, |code, bit| code << 1 | u16::from(*bit));
        let digit = if five <= 2 {
            at += 5;
            five
        } else {
            let six = five << 1 | u16::from(*bits.get(at + 5)?);
            at += 6;
            six.checked_sub(0b011001)? + 3
        };
        number = number * 10 + digit;
    }
    Some(number)
}
