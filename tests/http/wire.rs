//! HTTP/1.1 as bytes on a socket, read strictly and without any of the program's own code.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::PATIENCE;

/// A message, as it stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The request line or the status line.
    pub start: String,
    /// The fields in order, names in lower case, values as they came.
    pub fields: Fields,
    /// The body, without framing.
    pub body: Vec<u8>,
    /// The trailer fields of a chunked body.
    pub trailers: Fields,
}

pub type Fields = Vec<(String, String)>;

/// What is known of a message before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    ResponseToHead,
}

impl Message {
    /// The status of a response.
    pub fn status(&self) -> u16 {
        let status = self.start.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("{:?} is no status line", self.start))
    }

    /// The values of a field, each time it is there.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that is there at most once.
    pub fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} is there {} times: {values:?}", values.len());
        values.first().copied()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Is shown what is read.
type Tap = Box<dyn FnMut(&[u8]) + Send>;

/// One end of a connection. Every read has a deadline.
pub struct Wire {
    stream: TcpStream,
    /// Read, and not yet used.
    unread: Vec<u8>,
    tap: Tap,
}

impl Wire {
    /// `tap` is shown every byte that is read.
    pub fn new(stream: TcpStream, tap: impl FnMut(&[u8]) + Send + 'static) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("the socket is open");
        stream.set_write_timeout(Some(PATIENCE)).expect("the socket is open");
        stream.set_nodelay(true).expect("the socket is open");
        Self { stream, unread: Vec::new(), tap: Box::new(tap) }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("the socket is open");
    }

    pub fn set_write_patience(&self, patience: Duration) {
        self.stream.set_write_timeout(Some(patience)).expect("the socket is open");
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        // The other side may have closed already.
        let _closed = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads what there is. False at the end of the stream.
    pub fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 * 1024];
        let len = self.stream.read(&mut buffer)?;
        (self.tap)(&buffer[..len]);
        self.unread.extend_from_slice(&buffer[..len]);
        Ok(len > 0)
    }

    /// All that comes until the other side ends the stream.
    ///
    /// # Errors
    /// A reset, or nothing for longer than the patience.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Up to `len_max` bytes, at least one; nothing at the end of the stream.
    pub fn some(&mut self, len_max: usize) -> io::Result<Vec<u8>> {
        if self.unread.is_empty() && !self.fill()? {
            return Ok(Vec::new());
        }
        let len = len_max.min(self.unread.len());
        Ok(self.unread.drain(..len).collect())
    }

    /// Exactly so many bytes.
    pub fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < len {
            self.need()?;
        }
        Ok(self.unread.drain(..len).collect())
    }

    /// A head, without its body.
    ///
    /// # Errors
    /// `UnexpectedEof` when the stream ends before it does; `InvalidData` when it is no head.
    pub fn head(&mut self) -> io::Result<Message> {
        let start = self.line()?;
        let fields = self.fields()?;
        Ok(Message { start, fields, body: Vec::new(), trailers: Vec::new() })
    }

    /// A whole message.
    ///
    /// # Errors
    /// As for [`Wire::head`]; a body that ends early is `UnexpectedEof` too.
    pub fn message(&mut self, kind: Kind) -> io::Result<Message> {
        let mut message = self.head()?;
        let has_no_body = match kind {
            Kind::Request => false,
            Kind::Response => matches!(message.status(), 100..=199 | 204 | 304),
            Kind::ResponseToHead => true,
        };
        if has_no_body {
            return Ok(message);
        }
        if let Some(coding) = message.value("transfer-encoding") {
            if coding != "chunked" {
                return Err(invalid(format!("transfer-encoding is {coding}")));
            }
            (message.body, message.trailers) = self.chunked()?;
        } else if let Some(len) = message.value("content-length") {
            let len = len.parse().map_err(|_| invalid(format!("content-length is {len}")))?;
            message.body = self.exactly(len)?;
        } else if kind == Kind::Response {
            message.body = self.rest()?;
        }
        Ok(message)
    }

    /// A chunked body and its trailer fields.
    pub fn chunked(&mut self) -> io::Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok((body, self.fields()?));
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// The next chunk; empty for the last one, whose trailer section is still to come.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid(format!("chunk size is {line:?}")))?;
        let chunk = self.exactly(size)?;
        if size > 0 && !self.line()?.is_empty() {
            return Err(invalid("a chunk is longer than its size".to_owned()));
        }
        Ok(chunk)
    }

    fn fields(&mut self) -> io::Result<Fields> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(format!("{line:?} is no field")))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|error| invalid(error.to_string()));
            }
            self.need()?;
        }
    }

    fn need(&mut self) -> io::Result<()> {
        if self.fill()? {
            return Ok(());
        }
        let unread = self.unread.escape_ascii();
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the stream ended after \"{unread}\"")))
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
