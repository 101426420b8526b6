//! The IPv4 header around an advert.

use std::net::Ipv4Addr;

use super::{DropReason, Envelope, IP_PROTOCOL};

/// Bytes of an IPv4 header without options.
const HEADER_LEN: usize = 20;

/// Takes a whole IPv4 packet as a raw socket delivers it, header and options included, and returns what the header says
/// and the payload. Bytes past the packet's total length are padding and ignored; the checksum of the header is the
/// kernel's to check, the TTL [`super::decode`]'s.
///
/// # Errors
/// [`DropReason::Short`], [`DropReason::WrongIpVersion`], [`DropReason::BadIpHeader`], [`DropReason::WrongProtocol`] or
/// [`DropReason::Fragment`].
pub fn decode_ipv4(ip_packet: &[u8]) -> Result<(Envelope, &[u8]), DropReason> {
    match ip_packet.first() {
        None => return Err(DropReason::Short),
        Some(byte) if byte >> 4 != 4 => return Err(DropReason::WrongIpVersion),
        Some(_) => {}
    }
    let header = ip_packet.first_chunk::<HEADER_LEN>().ok_or(DropReason::Short)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < HEADER_LEN || total_len < header_len {
        return Err(DropReason::BadIpHeader);
    }
    let payload = ip_packet.get(header_len..total_len).ok_or(DropReason::Short)?;
    if header[9] != IP_PROTOCOL {
        return Err(DropReason::WrongProtocol);
    }
    // More fragments to come, or an offset. "Don't fragment" (0x4000) is allowed.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(DropReason::Fragment);
    }
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]).into();
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]).into();
    Ok((Envelope { source, destination, hop_limit: header[8] }, payload))
}
