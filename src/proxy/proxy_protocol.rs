//! The PROXY protocol, versions 1 and 2, as a receiver reads it. Core.
//!
//! A proxy in front of us says in front of a connection's own bytes who its client is. The sections are those of
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Who may say so, and how long a header may take, is
//! decided where connections are accepted (`proxy::accept`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub mod encode;

#[cfg(test)]
mod tests;

/// Bytes of the longest header that is read: with the addresses, room for the facts of a TLS client and its certificate.
/// The protocol allows 64 KiB, which no sender needs, and requires that 536 are taken.
pub const HEADER_BYTES_MAX: usize = 4096;

/// What version 1 begins with.
const V1_PREFIX: &[u8] = b"PROXY ";

/// The longest line of version 1, with its end (section 2.1).
const V1_LINE_BYTES_MAX: usize = 107;

/// What version 2 begins with (section 2.2).
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and protocol, length.
const V2_FIXED_BYTES: usize = 16;

/// Where the value of the checksum is, a tag and a length behind its beginning.
const TLV_HEAD_BYTES: usize = 3;

const TLV_CRC32C: u8 = 0x03;
const TLV_SSL: u8 = 0x20;

/// The client came to the proxy over TLS (section 2.2.6).
const CLIENT_SSL: u8 = 0x01;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; those of the connection follow.
    pub len_bytes: usize,
    /// Whose connection it is.
    pub origin: Origin,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The proxy's own, such as a health check, or of somebody who has no address: the ends of the connection count.
    Itself,
    /// A client's.
    Client {
        /// Its address.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
        /// It spoke TLS with the proxy.
        is_tls: bool,
    },
}

/// Why what came is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It begins as none does.
    #[error("there is no header")]
    Missing,
    /// A line of version 1 that is none, or too long.
    #[error("the line is malformed")]
    Line,
    /// Neither version 2 nor a command of it.
    #[error("the version or the command is unknown")]
    Command,
    /// A family or a protocol that there is none of.
    #[error("the address family is unknown")]
    Family,
    /// Longer than [`HEADER_BYTES_MAX`].
    #[error("the header is too long")]
    TooLong,
    /// Too short for its addresses, or an extension goes over its end.
    #[error("the header is too short for what is in it")]
    Truncated,
    /// The checksum is wrong, or there are two.
    #[error("the checksum is wrong")]
    Checksum,
}

/// Reads the header that these bytes begin with; `None` as long as more of it has to come.
///
/// # Errors
/// When no bytes behind these can make it one.
pub fn decode(bytes: &[u8]) -> Result<Option<Header>, Refusal> {
    if begins_alike(bytes, V2_SIGNATURE) {
        return decode_v2(bytes);
    }
    if begins_alike(bytes, V1_PREFIX) {
        return decode_v1(bytes);
    }
    Err(Refusal::Missing)
}

/// Whether the bytes, as far as they have come, are those of the prefix.
fn begins_alike(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(byte, wanted)| byte == wanted)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n` (section 2.1).
fn decode_v1(bytes: &[u8]) -> Result<Option<Header>, Refusal> {
    let head = bytes.get(..V1_LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return if head.len() < V1_LINE_BYTES_MAX { Ok(None) } else { Err(Refusal::Line) };
    };
    let line = head.get(V1_PREFIX.len()..end).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Refusal::Line)?;
    let origin = if line == "UNKNOWN" || line.starts_with("UNKNOWN ") { Origin::Itself } else { v1_client(line)? };
    Ok(Some(Header { len_bytes: end + 2, origin }))
}

fn v1_client(line: &str) -> Result<Origin, Refusal> {
    let words: Vec<&str> = line.splitn(6, ' ').collect();
    let [family, source, destination, source_port, destination_port] = words.as_slice() else {
        return Err(Refusal::Line);
    };
    let address = |text: &str| -> Option<IpAddr> {
        match *family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let end = |ip: &str, port: &str| Some(SocketAddr::new(address(ip)?, decimal_port(port)?));
    let source = end(source, source_port).ok_or(Refusal::Line)?;
    let destination = end(destination, destination_port).ok_or(Refusal::Line)?;
    Ok(Origin::Client { source, destination, is_tls: false })
}

/// Without signs and without leading zeros, which another reader may take for something else.
fn decimal_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Section 2.2.
fn decode_v2(bytes: &[u8]) -> Result<Option<Header>, Refusal> {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, len_high, len_low] = *fixed;
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Refusal::Command),
    };
    let len_bytes = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([len_high, len_low]));
    if len_bytes > HEADER_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let Some(header) = bytes.get(..len_bytes) else { return Ok(None) };
    // What stands behind it has no meaning with LOCAL, the family included.
    let origin = if is_local { Origin::Itself } else { v2_origin(header, family)? };
    Ok(Some(Header { len_bytes, origin }))
}

fn v2_origin(header: &[u8], family: u8) -> Result<Origin, Refusal> {
    let block = header.get(V2_FIXED_BYTES..).unwrap_or_default();
    let (addresses_len, ends) = match family {
        // Nobody knows where the addresses would end.
        0x00 => return Ok(Origin::Itself),
        0x11 => (12, block.first_chunk::<12>().map(v4_ends)),
        0x21 => (36, block.first_chunk::<36>().map(v6_ends)),
        // Datagrams, and sockets of Unix: no address of a client of TCP.
        0x12 => (12, None),
        0x22 => (36, None),
        0x31 | 0x32 => (216, None),
        _ => return Err(Refusal::Family),
    };
    let extensions = block.get(addresses_len..).ok_or(Refusal::Truncated)?;
    let is_tls = check_extensions(header, extensions)?;
    Ok(match ends {
        Some((source, destination)) => Origin::Client { source, destination, is_tls },
        None => Origin::Itself,
    })
}

fn v4_ends(block: &[u8; 12]) -> (SocketAddr, SocketAddr) {
    let [a, b, c, d, e, f, g, h, from_high, from_low, to_high, to_low] = *block;
    let source = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([from_high, from_low])));
    (source, SocketAddr::from(([e, f, g, h], u16::from_be_bytes([to_high, to_low]))))
}

fn v6_ends(block: &[u8; 36]) -> (SocketAddr, SocketAddr) {
    let address =
        |at: usize| -> [u8; 16] { block.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default() };
    let [.., from_high, from_low, to_high, to_low] = *block;
    let source = SocketAddr::from((address(0), u16::from_be_bytes([from_high, from_low])));
    (source, SocketAddr::from((address(16), u16::from_be_bytes([to_high, to_low]))))
}

/// Walks over the extensions (section 2.2.1). Whether one says that the client spoke TLS.
fn check_extensions(header: &[u8], extensions: &[u8]) -> Result<bool, Refusal> {
    let (mut is_tls, mut is_checked) = (false, false);
    let mut rest = extensions;
    while let Some((head, behind)) = rest.split_first_chunk::<TLV_HEAD_BYTES>() {
        let [kind, len_high, len_low] = *head;
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        let value = behind.get(..len).ok_or(Refusal::Truncated)?;
        match kind {
            TLV_CRC32C => {
                let value_at = header.len() - behind.len();
                if std::mem::replace(&mut is_checked, true) || !is_checksum_right(header, value_at, value) {
                    return Err(Refusal::Checksum);
                }
            }
            // Flags, and then what the verification of a client's certificate came to.
            TLV_SSL => is_tls = value.first().ok_or(Refusal::Truncated)? & CLIENT_SSL != 0,
            _ => {}
        }
        rest = behind.get(len..).unwrap_or_default();
    }
    if rest.is_empty() { Ok(is_tls) } else { Err(Refusal::Truncated) }
}

/// Whether the value at `value_at` is the checksum of the header with zeros in its place (section 2.2.4).
fn is_checksum_right(header: &[u8], value_at: usize, value: &[u8]) -> bool {
    let Some(value) = value.first_chunk::<4>().filter(|_| value.len() == 4) else { return false };
    let is_of_value = |index: usize| (value_at..value_at + 4).contains(&index);
    let bytes = header.iter().enumerate().map(|(index, byte)| if is_of_value(index) { 0 } else { *byte });
    crc32c(bytes) == u32::from_be_bytes(*value)
}

/// CRC32c, bit by bit (RFC 3309 appendix C): a header is short, and comes once a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL_REVERSED: u32 = 0x82f6_3b78;
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            let carry = if crc & 1 == 1 { POLYNOMIAL_REVERSED } else { 0 };
            (crc >> 1) ^ carry
        })
    })
}
