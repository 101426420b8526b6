//! A short exchange of bytes with a server, within bounds: whatever it sends, no more than [`BYTES_MAX`] of that is read.
//! How long all of it may take is the affair of whoever runs the check.

use std::io;
use std::net::SocketAddr;

use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::{Expected, expression};
use crate::proxy::server_io::ServerStream;
use crate::proxy::upstream::dial::{Dialer, OnBehalf};

/// Bytes of all answers of one check.
pub(super) const BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4096;
/// A line of a protocol of lines, with room to spare: SMTP has 512 (RFC 5321 section 4.5.3.1.5).
const LINE_BYTES_MAX: usize = 2048;
/// What is shown of an answer that makes no sense.
const SHOWN_MAX: usize = 60;

/// A connection, and what has come on it.
pub(super) struct Exchange {
    stream: ServerStream,
    /// Read and not used yet.
    buffer: Vec<u8>,
    left: usize,
}

impl Exchange {
    /// Connects, with TLS where checks have it.
    pub(super) async fn dial(dialer: &Dialer, address: SocketAddr) -> Result<Self, String> {
        let stream = dialer.dial_for_bytes(address, OnBehalf::Ourselves).await.map_err(|error| error.reason)?;
        Ok(Self::new(stream))
    }

    /// On a connection that is there already.
    pub(super) fn new(stream: ServerStream) -> Self {
        Self { stream, buffer: Vec::new(), left: BYTES_MAX }
    }

    /// Begins another check on the same connection. False when the server has said something that nobody asked for.
    pub(super) fn begin(&mut self) -> bool {
        self.left = BYTES_MAX;
        self.buffer.is_empty()
    }

    /// Our own end of the connection.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.stream.socket().local_addr().ok()
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let failed = |error: io::Error| format!("the connection broke: {error}");
        self.stream.write_all(bytes).await.map_err(failed)?;
        self.stream.flush().await.map_err(failed)
    }

    /// Reads what there is, at least a byte. False at the end.
    async fn read(&mut self) -> Result<bool, String> {
        if self.left == 0 {
            return Err(format!("it sent more than {} KiB", BYTES_MAX / 1024));
        }
        let mut piece = [0; READ_BYTES];
        let room = piece.get_mut(..self.left.min(READ_BYTES)).unwrap_or_default();
        let len = self.stream.read(room).await.map_err(|error| format!("the connection broke: {error}"))?;
        self.buffer.extend(piece.iter().take(len));
        self.left -= len;
        Ok(len > 0)
    }

    async fn more(&mut self) -> Result<(), String> {
        if self.read().await? { Ok(()) } else { Err("it closed the connection".to_owned()) }
    }

    /// The next so many bytes.
    pub(super) async fn take(&mut self, len: usize) -> Result<Vec<u8>, String> {
        if len > self.buffer.len() + self.left {
            return Err(format!("it announced {len} bytes, which is too much"));
        }
        while self.buffer.len() < len {
            self.more().await?;
        }
        let rest = self.buffer.split_off(len);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// The next bytes in an array.
    pub(super) async fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N).await?;
        bytes.try_into().map_err(|_| "it sent too little".to_owned())
    }

    /// The next line, without its end.
    pub(super) async fn line(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line = self.take(end + 1).await?;
                line.truncate(line.trim_ascii_end().len());
                return Ok(line);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(no_sense(&self.buffer));
            }
            self.more().await?;
        }
    }

    /// The first line, or all there is where the server closes without ending it.
    pub(super) async fn line_or_all(&mut self) -> Result<Vec<u8>, String> {
        while !self.buffer.contains(&b'\n') {
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(no_sense(&self.buffer));
            }
            if !self.read().await? {
                return Ok(std::mem::take(&mut self.buffer));
            }
        }
        self.line().await
    }

    /// Reads until it is there.
    pub(super) async fn expect(&mut self, pattern: &Pattern) -> Result<(), String> {
        loop {
            if pattern.is_in(&self.buffer) {
                return Ok(());
            }
            let more = self.read().await;
            if !matches!(more, Ok(true)) {
                let why = more.err().unwrap_or_else(|| "it closed the connection".to_owned());
                return Err(format!("{}, and {why}", missing(&self.buffer)));
            }
        }
    }
}

/// What has to come, compiled.
pub(super) enum Pattern {
    Bytes(Vec<u8>),
    Regex(Regex),
}

impl Pattern {
    /// `None` for an expression that the configuration does not let through.
    pub(super) fn new(expected: &Expected) -> Option<Self> {
        match expected {
            Expected::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Expected::Regex(text) => expression(text).map(Self::Regex),
        }
    }

    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Bytes(wanted) => memchr::memmem::find(bytes, wanted).is_some(),
            Self::Regex(regex) => regex.is_match(bytes),
        }
    }
}

/// That what is expected has not come, in words.
pub(super) fn missing(came: &[u8]) -> String {
    if came.is_empty() {
        return "nothing came".to_owned();
    }
    format!("what is expected is not in its answer {}", shown(came))
}

/// That an answer is not one of the protocol.
pub(super) fn no_sense(came: &[u8]) -> String {
    format!("its answer makes no sense: {}", shown(came))
}

/// The beginning of what a server said, in one printable line.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(4 * SHOWN_MAX)).unwrap_or_default());
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.trim().chars().map(printable).take(SHOWN_MAX).collect();
    if text.trim().chars().nth(SHOWN_MAX).is_some() {
        line.push('…');
    }
    format!("\"{line}\"")
}
