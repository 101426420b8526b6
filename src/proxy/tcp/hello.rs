//! Reads the first message of each side of a TLS connection that passes through: whom the client asks for, and which
//! session it or the server names. A core: bytes in, values out.
//!
//! Every version of TLS from 1.0 to 1.3 begins so, in clear text (RFC 5246 sections 6.2.1, 7.4.1; RFC 8446 sections 4.1,
//! 5.1). A message may come in any number of records, and a record in any number of reads. What is longer than
//! [`MESSAGE_BYTES_MAX`] or breaks the format is refused: the connection can still be passed through, as bytes.

use std::marker::PhantomData;

/// The longest hello that is read. Those of today are below 2 KiB.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The longest content of a record in clear text (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
const RECORD_HEADER_LEN: usize = 5;
const RECORD_HANDSHAKE: u8 = 22;
const MESSAGE_HEADER_LEN: usize = 4;
const RANDOM_LEN: usize = 32;
const SESSION_ID_LEN_MAX: usize = 32;
const HOST_NAME_LEN_MAX: usize = 255;

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_PRE_SHARED_KEY: u16 = 41;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
const VERSION_TLS12: u16 = 0x0303;
const NAME_TYPE_HOST: u8 = 0;

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The host that it asks for (RFC 6066 section 3), in lower case, 1 to 255 characters.
    pub server_name: Option<String>,
    /// The session that it wants to resume, up to 32 bytes; empty for none. In TLS 1.3 it is random and names nothing.
    pub session_id: Vec<u8>,
    /// Whether the id can be nothing but random: the client speaks no version before TLS 1.3, or brings along what it
    /// resumes a session of TLS 1.3 with.
    pub is_id_random: bool,
}

impl ClientHello {
    /// The id of a session that it may want to resume. A client that speaks TLS 1.2 and 1.3 sends one that a server of
    /// TLS 1.2 has given it, and makes one up where it has none (RFC 8446 section 4.1.2): those two look alike.
    pub fn resumable_id(&self) -> Option<&[u8]> {
        let may_be_resumable = !self.is_id_random && !self.session_id.is_empty();
        may_be_resumable.then_some(self.session_id.as_slice())
    }
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHello {
    /// The session as the client may resume it, up to 32 bytes; empty when it cannot. In TLS 1.3 it is what the client
    /// sent.
    pub session_id: Vec<u8>,
    /// Whether TLS 1.3 or later was chosen.
    pub is_tls13: bool,
}

impl ServerHello {
    /// The id under which the client will come back. TLS 1.3 has none: what is there is the client's own random number,
    /// sent for the sake of old boxes on the way, and a new one each time (RFC 8446 appendix D.4).
    pub fn resumable_id(&self) -> Option<&[u8]> {
        let is_resumable = !self.is_tls13 && !self.session_id.is_empty();
        is_resumable.then_some(self.session_id.as_slice())
    }
}

/// Why the bytes are not such a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Another protocol, or an alert.
    #[error("the first bytes are no TLS handshake")]
    NotTls,
    /// A handshake that begins otherwise.
    #[error("the first message is another")]
    OtherMessage,
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("the message has {0} bytes, more than {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// A length that does not fit, or something else that the format does not allow.
    #[error("the message is malformed")]
    Malformed,
}

/// How far a reader has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<H> {
    /// The message is not complete.
    More,
    /// The message. What came behind it is not looked at.
    Complete(H),
    /// There is none.
    Refused(Rejection),
}

/// A message that [`HelloReader`] can read.
pub trait Hello: Sized {
    /// Its number (RFC 8446 section 4).
    const TYPE: u8;

    /// Reads the message without its header.
    fn parse(body: &[u8]) -> Option<Self>;
}

/// Collects one message. To be fed until it says something else than [`Progress::More`].
#[derive(Debug)]
pub struct HelloReader<H> {
    /// The record's header, as far as it has come.
    header: Vec<u8>,
    /// What is left of the record behind its header.
    record_left: usize,
    message: Vec<u8>,
    hello: PhantomData<H>,
}

impl<H: Hello> Default for HelloReader<H> {
    fn default() -> Self {
        Self { header: Vec::new(), record_left: 0, message: Vec::new(), hello: PhantomData }
    }
}

impl<H: Hello> HelloReader<H> {
    /// Takes what comes next on the connection.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Progress<H> {
        while !bytes.is_empty() {
            bytes = if self.record_left == 0 {
                match self.take_header(bytes) {
                    Ok(rest) => rest,
                    Err(rejection) => return Progress::Refused(rejection),
                }
            } else {
                let (content, rest) = bytes.split_at(bytes.len().min(self.record_left));
                self.record_left -= content.len();
                match self.take_content(content) {
                    Ok(None) => rest,
                    Ok(Some(hello)) => return Progress::Complete(hello),
                    Err(rejection) => return Progress::Refused(rejection),
                }
            };
        }
        Progress::More
    }

    /// Takes a part of a record's header, and gives what is left. Every byte is judged at once: an HTTP request does not
    /// have to be five bytes long to be seen as none of ours.
    fn take_header<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Rejection> {
        let missing = RECORD_HEADER_LEN - self.header.len();
        let (taken, rest) = bytes.split_at(bytes.len().min(missing));
        self.header.extend_from_slice(taken);
        let is_handshake = self.header.first().is_none_or(|&kind| kind == RECORD_HANDSHAKE);
        // All of them say 3 (RFC 8446 section 5.1).
        let is_known = self.header.get(1).is_none_or(|&major| major == 3);
        if !is_handshake || !is_known {
            return Err(Rejection::NotTls);
        }
        if let &[_, _, _, high, low] = self.header.as_slice() {
            self.record_left = usize::from(u16::from_be_bytes([high, low]));
            self.header.clear();
            // Nor may a record of a handshake be empty.
            if self.record_left == 0 || self.record_left > RECORD_BYTES_MAX {
                return Err(Rejection::Malformed);
            }
        }
        Ok(rest)
    }

    /// Takes a part of a record's content. The message, once it is complete.
    fn take_content(&mut self, content: &[u8]) -> Result<Option<H>, Rejection> {
        // The header of the message comes first: nothing is kept that is known to be of no use.
        for &byte in content {
            self.message.push(byte);
            if self.message.len() <= MESSAGE_HEADER_LEN {
                self.check_header()?;
            }
            if self.message_len().is_some_and(|len| self.message.len() == len) {
                let body = self.message.get(MESSAGE_HEADER_LEN..).unwrap_or_default();
                return H::parse(body).map(Some).ok_or(Rejection::Malformed);
            }
        }
        Ok(None)
    }

    fn check_header(&self) -> Result<(), Rejection> {
        if self.message.first().is_some_and(|&kind| kind != H::TYPE) {
            return Err(Rejection::OtherMessage);
        }
        match self.message_len() {
            Some(len) if len > MESSAGE_BYTES_MAX => Err(Rejection::TooLong(len)),
            _ => Ok(()),
        }
    }

    /// With its header, once that is there.
    fn message_len(&self) -> Option<usize> {
        let header = self.message.first_chunk::<MESSAGE_HEADER_LEN>()?;
        let [_, high, middle, low] = *header;
        let body = u32::from_be_bytes([0, high, middle, low]);
        Some(MESSAGE_HEADER_LEN + usize::try_from(body).ok()?)
    }
}

impl Hello for ClientHello {
    const TYPE: u8 = 1;

    fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let _version = fields.u16()?;
        fields.take(RANDOM_LEN)?;
        let session_id = fields.with_u8_len()?;
        let cipher_suites = fields.with_u16_len()?;
        let compression = fields.with_u8_len()?;
        let is_whole = session_id.len() <= SESSION_ID_LEN_MAX
            && !cipher_suites.is_empty()
            && cipher_suites.len() % 2 == 0
            && !compression.is_empty();
        if !is_whole {
            return None;
        }
        let name = extension(fields, EXTENSION_SERVER_NAME)?;
        let server_name = match name {
            Some(extension) => Some(host_name(extension)?),
            None => None,
        };
        let is_tls13_alone = match extension(fields, EXTENSION_SUPPORTED_VERSIONS)? {
            Some(extension) => !offers_before_tls13(extension)?,
            None => false,
        };
        let is_id_random = is_tls13_alone || extension(fields, EXTENSION_PRE_SHARED_KEY)?.is_some();
        Some(Self { server_name, session_id: session_id.to_vec(), is_id_random })
    }
}

impl Hello for ServerHello {
    const TYPE: u8 = 2;

    fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let version = fields.u16()?;
        fields.take(RANDOM_LEN)?;
        let session_id = fields.with_u8_len()?;
        let _cipher_suite = fields.u16()?;
        let _compression = fields.take(1)?;
        if session_id.len() > SESSION_ID_LEN_MAX {
            return None;
        }
        // It is there in TLS 1.3 and later alone, and then names the version (RFC 8446 section 4.2.1).
        let chosen = match extension(fields, EXTENSION_SUPPORTED_VERSIONS)? {
            Some(chosen) => Fields(chosen).u16()?,
            None => version,
        };
        Some(Self { session_id: session_id.to_vec(), is_tls13: chosen > VERSION_TLS12 })
    }
}

/// Whether a list of versions (RFC 8446 section 4.2.1) has one before TLS 1.3. Those that mean nothing (RFC 8701) are all
/// higher.
fn offers_before_tls13(extension: &[u8]) -> Option<bool> {
    let mut fields = Fields(extension);
    let (versions, rest) = fields.with_u8_len()?.as_chunks::<2>();
    let is_whole = fields.0.is_empty() && rest.is_empty() && !versions.is_empty();
    is_whole.then(|| versions.iter().any(|version| u16::from_be_bytes(*version) <= VERSION_TLS12))
}

/// The content of one extension, of those at the end of a hello. Refuses what has it twice (RFC 8446 section 4.2).
fn extension(mut fields: Fields<'_>, wanted: u16) -> Option<Option<&[u8]>> {
    let mut found = None;
    if fields.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Fields(fields.with_u16_len()?);
    if !fields.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.with_u16_len()?;
        if kind == wanted && found.replace(content).is_some() {
            return None;
        }
    }
    Some(found)
}

/// The host name of a server_name extension: a list with room for other kinds of names, of which there are none.
fn host_name(extension: &[u8]) -> Option<String> {
    let mut fields = Fields(extension);
    let mut names = Fields(fields.with_u16_len()?);
    let kind = names.take(1)?;
    let name = names.with_u16_len()?;
    let is_whole = fields.0.is_empty() && names.0.is_empty() && kind == [NAME_TYPE_HOST];
    let is_name = (1..=HOST_NAME_LEN_MAX).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    let name = std::str::from_utf8(name).ok()?;
    (is_whole && is_name).then(|| name.to_ascii_lowercase())
}

/// Fields that follow one another.
#[derive(Clone, Copy)]
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*taken))
    }

    /// A field behind its length in one byte.
    fn with_u8_len(&mut self) -> Option<&'b [u8]> {
        let (&len, rest) = self.0.split_first()?;
        self.0 = rest;
        self.take(usize::from(len))
    }

    /// A field behind its length in two bytes.
    fn with_u16_len(&mut self) -> Option<&'b [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

#[cfg(test)]
mod tests;
