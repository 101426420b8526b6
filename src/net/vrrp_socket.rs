//! The raw socket of one virtual router: IP protocol 112 (RFC 9568 section 5.1).

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// IP protocol number of VRRP.
const PROTOCOL: i32 = 112;
/// Hop limit of every advert; a router would lower it, so that one from afar shows (RFC 9568 section 5.1.1.3).
const TTL: u32 = 255;
/// Class selector 6, network control, as every other VRRP implementation marks adverts.
const TOS: u32 = 0xc0;
/// The group of all VRRP routers (RFC 9568 section 5.1.1.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Room for an IP header with options and the largest IPv4 advert (255 addresses); longer ones are cut and so refused.
const PACKET_MAX: usize = 2048;

/// Where adverts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To one address, the peer's.
    Peer(Ipv4Addr),
    /// To [`GROUP`].
    Group,
    /// Nowhere: a node without a peer, over unicast.
    Nowhere,
}

impl Destination {
    /// The address that adverts go to, for the checksum; unspecified when there is none.
    pub fn address(self) -> Ipv4Addr {
        match self {
            Destination::Peer(address) => address,
            Destination::Group => GROUP,
            Destination::Nowhere => Ipv4Addr::UNSPECIFIED,
        }
    }
}

/// Sends and receives the adverts of one virtual router on one interface.
#[derive(Debug)]
pub struct VrrpSocket {
    socket: AsyncFd<Socket>,
    destination: Destination,
}

impl VrrpSocket {
    /// Opens a raw socket on an interface. Needs `CAP_NET_RAW` and a tokio runtime.
    ///
    /// # Errors
    /// `PermissionDenied` without the capability, `NotFound` (ENODEV) when the interface is gone, `AddrNotAvailable`
    /// when `local` is not an address of this machine.
    pub fn open(interface: &str, local: Ipv4Addr, destination: Destination) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::from(PROTOCOL)))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_tos_v4(TOS)?;
        socket.set_ttl_v4(TTL)?;
        match destination {
            Destination::Group => {
                socket.set_multicast_ttl_v4(TTL)?;
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_if_v4(&local)?;
                let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
                socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(index))?;
                // Bound to the group it receives nothing else, and still sends from `local` (raw(7), IP_MULTICAST_IF).
                socket.bind(&SocketAddrV4::new(GROUP, 0).into())?;
            }
            Destination::Peer(_) | Destination::Nowhere => socket.bind(&SocketAddrV4::new(local, 0).into())?,
        }
        // SAFETY: a `Socket` owns one descriptor and returns the same one until it is dropped, and nothing here replaces it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, destination })
    }

    /// Sends one advert. Never waits: a full queue is an error, and the next advert says the same again.
    ///
    /// # Errors
    /// `NetworkUnreachable`, `NetworkDown` and whatever else sendto(2) says.
    pub fn send(&self, pdu: &[u8]) -> io::Result<()> {
        if self.destination == Destination::Nowhere {
            return Ok(());
        }
        self.socket.get_ref().send_to(pdu, &SocketAddrV4::new(self.destination.address(), 0).into()).map(|_| ())
    }

    /// Waits for one packet, IP header included. Cancel safe: a packet is either returned or still queued.
    ///
    /// # Errors
    /// What recv(2) says; `NetworkDown` once after the interface went down.
    pub async fn receive<'buffer>(&self, buffer: &'buffer mut PacketBuffer) -> io::Result<&'buffer [u8]> {
        let len_bytes = loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(result) = ready.try_io(|socket| socket.get_ref().recv(&mut buffer.0)) {
                break result?;
            }
        };
        Ok(buffer.filled(len_bytes))
    }

    /// Throws away what is queued now: what came while this process was frozen tells of the past. Returns the count.
    pub fn discard_queued(&self, buffer: &mut PacketBuffer) -> usize {
        // Bounded by what a receive buffer can hold of the smallest packets, so that a flood cannot keep us here.
        const DISCARD_MAX: usize = 4096;
        (0..DISCARD_MAX).take_while(|_| self.socket.get_ref().recv(&mut buffer.0).is_ok()).count()
    }
}

/// Room for one packet.
#[derive(Debug)]
pub struct PacketBuffer([MaybeUninit<u8>; PACKET_MAX]);

impl PacketBuffer {
    /// An empty one.
    pub fn new() -> Self {
        Self([const { MaybeUninit::zeroed() }; PACKET_MAX])
    }

    fn filled(&self, len_bytes: usize) -> &[u8] {
        let part = self.0.get(..len_bytes).unwrap_or(&[]);
        // SAFETY: the buffer was made of zeros, so every byte is initialised whether or not the kernel wrote to it.
        unsafe { &*(std::ptr::from_ref(part) as *const [u8]) }
    }
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self::new()
    }
}
