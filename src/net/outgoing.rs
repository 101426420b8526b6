//! What a TCP connection has still to bring to its other end.

use std::os::fd::{AsFd, AsRawFd};

/// Bytes that were written to a socket and that the other end has not acknowledged (SIOCOUTQ, tcp(7)); 0 where the kernel
/// does not say.
pub fn unsent_bytes(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, the same number as SIOCOUTQ, writes one int to a live one, and the descriptor is open while
    // `socket` is borrowed.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn bytes_count_until_the_other_end_has_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(unsent_bytes(&server), 0);
        // More than both of the kernel's buffers take.
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65_536]).is_ok() {}
        let before = unsent_bytes(&server);
        assert!(before > 0);
        let mut read = vec![0; 65_536];
        let deadline = Instant::now() + Duration::from_secs(10);
        while unsent_bytes(&server) >= before {
            client.read_exact(&mut read).unwrap();
            assert!(Instant::now() < deadline, "nothing is acknowledged");
        }
    }
}
