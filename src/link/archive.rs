//! How a worker hands the archive of its sessions to the guard, who alone may write files: in frames, over a socket of
//! its own. Both ends block, each on a thread that does nothing else.
//!
//! A frame is a length of four bytes, big-endian, and so many bytes. Length 0 ends an archive; the next may follow. The
//! length `u32::MAX` stands before a frame that says why the archive that was there cannot be used.

use std::io::{self, Read, Write};

/// The longest frame.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
const COMPLETE: u32 = 0;
const DAMAGED: u32 = u32::MAX;

/// What comes from the worker.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// The next part of an archive.
    Part(Vec<u8>),
    /// It was the last part.
    Complete,
    /// The archive that the worker was started with is to be set aside, and why, in words.
    Damaged(String),
}

/// Sends a part, in as many frames as it takes.
///
/// # Errors
/// What write(2) says.
pub fn send_part(socket: &mut impl Write, part: &[u8]) -> io::Result<()> {
    for frame in part.chunks(FRAME_BYTES_MAX) {
        send_frame(socket, frame)?;
    }
    Ok(())
}

/// Ends an archive.
///
/// # Errors
/// What write(2) says.
pub fn send_complete(socket: &mut impl Write) -> io::Result<()> {
    socket.write_all(&COMPLETE.to_be_bytes())
}

/// Says that the archive that was there cannot be used.
///
/// # Errors
/// What write(2) says.
pub fn send_damaged(socket: &mut impl Write, reason: &str) -> io::Result<()> {
    socket.write_all(&DAMAGED.to_be_bytes())?;
    send_frame(socket, reason.as_bytes().get(..FRAME_BYTES_MAX).unwrap_or(reason.as_bytes()))
}

fn send_frame(socket: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    socket.write_all(&length.to_be_bytes())?;
    socket.write_all(frame)
}

/// The next frame; `None` when the worker is gone.
///
/// # Errors
/// `InvalidData` for a frame that is too long, `UnexpectedEof` for one that is cut off; what read(2) says.
pub fn receive(socket: &mut impl Read) -> io::Result<Option<Frame>> {
    let Some(length) = length(socket)? else { return Ok(None) };
    match length {
        COMPLETE => Ok(Some(Frame::Complete)),
        DAMAGED => {
            let length = self::length(socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let reason = String::from_utf8_lossy(&content(socket, length)?).into_owned();
            Ok(Some(Frame::Damaged(reason)))
        }
        length => Ok(Some(Frame::Part(content(socket, length)?))),
    }
}

fn length(socket: &mut impl Read) -> io::Result<Option<u32>> {
    let mut bytes = [0_u8; 4];
    match socket.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(u32::from_be_bytes(bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn content(socket: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame of the archive is too long"));
    }
    let mut content = vec![0; length];
    socket.read_exact(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were_sent() {
        let mut wire = Vec::new();
        send_damaged(&mut wire, "its checksum is wrong").unwrap();
        send_part(&mut wire, &vec![7; FRAME_BYTES_MAX + 1]).unwrap();
        send_complete(&mut wire).unwrap();
        let mut wire = wire.as_slice();
        assert_eq!(receive(&mut wire).unwrap(), Some(Frame::Damaged("its checksum is wrong".to_owned())));
        assert_eq!(receive(&mut wire).unwrap(), Some(Frame::Part(vec![7; FRAME_BYTES_MAX])));
        assert_eq!(receive(&mut wire).unwrap(), Some(Frame::Part(vec![7])));
        assert_eq!(receive(&mut wire).unwrap(), Some(Frame::Complete));
        assert_eq!(receive(&mut wire).unwrap(), None);
    }

    #[test]
    fn frames_that_are_too_long_or_cut_off_are_errors() {
        let kind = |wire: &[u8]| receive(&mut &*wire).unwrap_err().kind();
        assert_eq!(kind(&[0, 1, 0, 1]), io::ErrorKind::InvalidData);
        assert_eq!(kind(&[0, 0, 0, 2, 9]), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&[0xff, 0xff, 0xff, 0xff]), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), io::ErrorKind::InvalidData);
    }
}
