//! The UDP socket of one path of the peer link: datagrams between two fixed ends and with nobody else.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;

use super::vrrp_socket::{PacketBuffer, QUEUE_PRIORITY, TRAFFIC_CLASS};

/// Datagrams thrown away in a row; see [`super::vrrp_socket`].
const DISCARD_MAX: usize = 4096;

/// Sends to and receives from one peer. The kernel drops what comes from anybody else.
#[derive(Debug)]
pub struct LinkSocket {
    socket: AsyncFd<Socket>,
}

impl LinkSocket {
    /// Binds and connects the socket. Needs a tokio runtime and no capability. A link-local address needs its scope id.
    ///
    /// A second one between the same ends cannot be opened, so that nobody else on this machine can take what is meant
    /// for us: drop the first before opening it anew.
    ///
    /// # Errors
    /// `AddrNotAvailable` when `local` is not an address of this machine (over IPv6: not yet); `AddrInUse`;
    /// `NetworkUnreachable` without a route to the peer; `InvalidInput` when the ends differ in family.
    pub fn open(local: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        if local.is_ipv4() != peer.is_ipv4() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{local} and {peer} differ in family")));
        }
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        if local.is_ipv4() {
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        } else {
            socket.set_only_v6(true)?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
        // After the traffic class, which sets it too.
        socket.set_priority(QUEUE_PRIORITY)?;
        socket.bind(&local.into())?;
        socket.connect(&peer.into())?;
        Self::of(socket)
    }

    /// Takes over one that another process has opened, and that is the same one in both: what one of them receives the
    /// other does not. Needs a tokio runtime.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn inherit(descriptor: OwnedFd) -> io::Result<Self> {
        Self::of(Socket::from(descriptor))
    }

    /// For a process that is to inherit it.
    ///
    /// # Errors
    /// What dup(2) says.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.get_ref().try_clone().map(OwnedFd::from)
    }

    fn of(socket: Socket) -> io::Result<Self> {
        // SAFETY: a `Socket` owns one descriptor and returns the same one until it is dropped, and nothing here replaces it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket })
    }

    /// Sends one datagram. Never waits: a full queue is an error, and the next datagram says the same again.
    ///
    /// # Errors
    /// `NetworkUnreachable`, `NetworkDown` and whatever else send(2) says. That the peer refused an earlier datagram is none.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self.socket.get_ref().send(datagram) {
            // The call returned what the network had said of an earlier one, and sent nothing.
            Err(error) if is_of_earlier(&error) => self.socket.get_ref().send(datagram).map(|_| ()),
            result => result.map(|_| ()),
        }
    }

    /// Waits for one datagram; a longer one than the buffer is cut. Cancel safe: it is either returned or still queued.
    ///
    /// # Errors
    /// What recv(2) says, but for refusals by the peer: its process may be down for a while.
    pub async fn receive<'buffer>(&self, buffer: &'buffer mut PacketBuffer) -> io::Result<&'buffer [u8]> {
        let len_bytes = loop {
            // A flood of refusals must not keep other tasks of the thread waiting.
            consume_budget().await;
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| socket.get_ref().read(&mut buffer.bytes)) {
                Ok(Err(error)) if is_of_earlier(&error) => {}
                Ok(result) => break result?,
                Err(_would_block) => {}
            }
        };
        Ok(buffer.filled(len_bytes))
    }

    /// Throws away what is queued now: what came while this process was frozen tells of the past. Returns the count.
    pub fn discard_queued(&self, buffer: &mut PacketBuffer) -> usize {
        let mut read = || self.socket.get_ref().read(&mut buffer.bytes);
        (0..DISCARD_MAX)
            .map(|_| read())
            .take_while(|result| result.as_ref().err().is_none_or(is_of_earlier))
            .filter(Result::is_ok)
            .count()
    }
}

/// What an ICMP error about a datagram sent before is reported as: each is told once, and says nothing of this call
/// (udp(7)). A closed port, no such protocol, and a firewall that says so.
fn is_of_earlier(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOPROTOOPT | libc::EACCES | libc::EHOSTUNREACH))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// A socket between two free ports of one loopback address, and the far end's own socket.
    fn link(address: &str) -> (LinkSocket, UdpSocket) {
        let far = UdpSocket::bind((address, 0)).unwrap();
        let near = UdpSocket::bind((address, 0)).unwrap();
        let local = near.local_addr().unwrap();
        drop(near);
        let link = LinkSocket::open(local, far.local_addr().unwrap()).unwrap();
        far.connect(local).unwrap();
        (link, far)
    }

    async fn expect_echo(address: &str) {
        let (link, far) = link(address);
        link.send(b"there").unwrap();
        let mut bytes = [0; 16];
        assert_eq!(far.recv(&mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"there");
        far.send(b"and back").unwrap();
        assert_eq!(link.receive(&mut PacketBuffer::new()).await.unwrap(), b"and back");
    }

    #[tokio::test]
    async fn datagrams_pass_both_ways_in_both_families() {
        expect_echo("127.0.0.1").await;
        expect_echo("::1").await;
    }

    #[tokio::test]
    async fn strangers_are_not_heard() {
        let (link, far) = link("127.0.0.1");
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = far.peer_addr().unwrap();
        stranger.send_to(b"stranger", to).unwrap();
        far.send(b"peer").unwrap();
        assert_eq!(link.receive(&mut PacketBuffer::new()).await.unwrap(), b"peer");
    }

    #[tokio::test]
    async fn refusals_of_a_closed_port_are_no_errors_and_the_peer_is_heard_when_it_is_back() {
        let (link, far) = link("127.0.0.1");
        let (local, peer) = (far.peer_addr().unwrap(), far.local_addr().unwrap());
        drop(far);
        for _ in 0..5 {
            // Over loopback the refusal is there when send returns, so each of these meets that of the one before.
            link.send(b"nobody").unwrap();
        }
        let far = UdpSocket::bind(peer).unwrap();
        far.connect(local).unwrap();
        link.send(b"somebody").unwrap();
        let mut bytes = [0; 16];
        assert_eq!(far.recv(&mut bytes).unwrap(), 8);
        far.send(b"here").unwrap();
        assert_eq!(link.receive(&mut PacketBuffer::new()).await.unwrap(), b"here");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_does_not_end_the_wait_for_a_datagram() {
        let (link, far) = link("127.0.0.1");
        drop(far);
        link.send(b"nobody").unwrap();
        let mut buffer = PacketBuffer::new();
        let waited = tokio::time::timeout(std::time::Duration::from_secs(1), link.receive(&mut buffer)).await;
        assert!(waited.is_err(), "{waited:?}");
    }

    #[tokio::test]
    async fn queued_datagrams_can_be_thrown_away() {
        let (link, far) = link("127.0.0.1");
        for _ in 0..3 {
            far.send(b"old").unwrap();
        }
        let mut buffer = PacketBuffer::new();
        assert_eq!(link.discard_queued(&mut buffer), 3);
        far.send(b"new").unwrap();
        assert_eq!(link.receive(&mut buffer).await.unwrap(), b"new");
    }

    #[tokio::test]
    async fn ends_of_different_families_are_refused() {
        let opened = LinkSocket::open("127.0.0.1:0".parse().unwrap(), "[::1]:1".parse().unwrap());
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
