//! As much of WebSockets (RFC 6455) as an echo needs: short binary messages, one at a time.

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest payload: what fits the first length of a frame (section 5.2).
pub(super) const PAYLOAD_MAX_BYTES: usize = 125;

/// Section 1.3.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const BINARY: u8 = 0x02;
const CLOSE: u8 = 0x08;
const PING: u8 = 0x09;
const PONG: u8 = 0x0a;

/// The answer to a client's key.
pub(super) fn accept(key: &[u8]) -> String {
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_SUFFIX].concat());
    BASE64_STANDARD.encode(digest)
}

/// Which end of a connection: a client masks what it sends, a server does not (section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// Sends a message of at most [`PAYLOAD_MAX_BYTES`].
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), end: End, payload: &[u8]) -> io::Result<()> {
    send_frame(stream, end, BINARY, payload).await
}

/// The payload of the next message. Pings are answered on the way.
///
/// # Errors
/// When the connection ends, or something comes that an echo does not send.
pub(super) async fn receive(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), end: End) -> io::Result<Vec<u8>> {
    loop {
        let [first, second] = read_array(stream).await?;
        let length = usize::from(second & !MASKED);
        if first & FINAL == 0 || length > PAYLOAD_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mask: [u8; 4] = if second & MASKED == 0 { [0; 4] } else { read_array(stream).await? };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        match first & OPCODE {
            PING => send_frame(stream, end, PONG, &payload).await?,
            PONG => {}
            CLOSE => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => return Ok(payload),
        }
    }
}

async fn send_frame(stream: &mut (impl AsyncWrite + Unpin), end: End, opcode: u8, payload: &[u8]) -> io::Result<()> {
    let length = u8::try_from(payload.len()).ok().filter(|length| usize::from(*length) <= PAYLOAD_MAX_BYTES);
    let length = length.ok_or(io::ErrorKind::InvalidInput)?;
    let mut frame = vec![FINAL | opcode];
    match end {
        End::Client => {
            let mask = fastrand::u32(..).to_be_bytes();
            frame.push(MASKED | length);
            frame.extend(mask);
            frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
        End::Server => {
            frame.push(length);
            frame.extend(payload);
        }
    }
    stream.write_all(&frame).await?;
    stream.flush().await
}

async fn read_array<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_that_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn messages_come_back_and_pings_are_answered() {
        let (mut client, mut server) = tokio::io::duplex(1024);
        send_frame(&mut client, End::Client, PING, b"p").await.unwrap();
        send(&mut client, End::Client, b"hello").await.unwrap();
        assert_eq!(receive(&mut server, End::Server).await.unwrap(), b"hello");
        // The frame of section 5.7, which is the pong's shape: unmasked, as a server sends it.
        assert_eq!(read_array::<3>(&mut client).await.unwrap(), [0x8a, 0x01, b'p']);
        client.write_all(&[0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]).await.unwrap();
        assert_eq!(receive(&mut server, End::Server).await.unwrap(), b"Hello");
    }
}
