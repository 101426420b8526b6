//! File descriptors passed between processes: `SCM_RIGHTS` over a Unix socket (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Descriptors in one message. The kernel's limit is 253 (`SCM_MAX_FD`).
const BATCH_MAX: usize = 64;

/// The one byte of data that carries a batch; the kernel drops descriptors that come with none.
const CARRIER: [u8; 1] = [b'F'];

/// Sends copies of `descriptors`, in order. Blocks until they are in the socket's buffer.
///
/// # Errors
/// What sendmsg(2) says.
pub fn send(socket: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for batch in descriptors.chunks(BATCH_MAX) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(io::Error::other("descriptors do not fit their message"));
        }
        sendmsg(socket, &[IoSlice::new(&CARRIER)], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives exactly `count` descriptors, in order, close-on-exec. Blocks until they are there.
///
/// # Errors
/// What recvmsg(2) says; `UnexpectedEof` when the other side is gone; `InvalidData` when a message brings none.
pub fn receive(socket: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::with_capacity(count);
    while received.len() < count {
        let mut carrier = [0_u8; 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(socket, &mut [IoSliceMut::new(&mut carrier)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = received.len();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                received.extend(descriptors);
            }
        }
        if received.len() == before {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message without descriptors"));
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn more_descriptors_than_one_batch_arrive_in_order() {
        let (here, there) = UnixStream::pair().unwrap();
        let pairs: Vec<_> = (0..150).map(|_| UnixStream::pair().unwrap()).collect();
        let borrowed: Vec<_> = pairs.iter().map(|(_, far)| far.as_fd()).collect();
        send(&here, &borrowed).unwrap();
        let received = receive(&there, 150).unwrap();
        for (index, (descriptor, (near, _))) in received.into_iter().zip(&pairs).enumerate() {
            UnixStream::from(descriptor).write_all(&[u8::try_from(index).unwrap()]).unwrap();
            let mut byte = [0];
            (&mut &*near).read_exact(&mut byte).unwrap();
            assert_eq!(usize::from(byte[0]), index);
        }
    }

    #[test]
    fn a_closed_socket_is_an_end_not_a_wait() {
        let (here, there) = UnixStream::pair().unwrap();
        drop(here);
        assert_eq!(receive(&there, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
