//! The raw socket of one virtual router and one family of addresses: IP protocol 112 (RFC 9568 section 5.1).
//!
//! It sends what it is given and hands over what came, with what the IP header said of it; judging that is for others.
//! Checksums are the caller's as well: the kernel computes none for this protocol unless `IPV6_CHECKSUM` is set.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use pnet::datalink;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// IP protocol number of VRRP.
const PROTOCOL: i32 = 112;
/// Hop limit of every advert; a router would lower it, so that one from afar shows (RFC 9568 section 5.1.1.3).
const HOP_LIMIT: u32 = 255;
/// Class selector 6, network control, as every other VRRP implementation marks adverts.
pub(super) const TRAFFIC_CLASS: u32 = 0xc0;
/// Highest priority in this machine's own send queues that needs no capability (`SO_PRIORITY`, socket(7)). With it the
/// queueing discipline `pfifo_fast` sends ahead of proxy traffic; the traffic class alone does not have that effect.
pub(super) const QUEUE_PRIORITY: u32 = 6;
/// The group of all VRRP routers over IPv4 (RFC 9568 section 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The group of all VRRP routers over IPv6 (RFC 9568 section 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Room for an IP header with options and the largest advert over IPv4 (255 addresses); longer packets are cut and so
/// refused. Over IPv6 that is 126 addresses, of which a VIP has 16 at most.
const PACKET_MAX: usize = 2048;
/// Room for the two control messages of a packet over IPv6, with some to spare.
const CONTROL_MAX: usize = 128;
/// Packets thrown away in a row: bounded by what a receive buffer can hold of the smallest ones, so that a flood cannot
/// keep us there.
const DISCARD_MAX: usize = 4096;

/// Where adverts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To one address, the peer's.
    Peer(IpAddr),
    /// To [`GROUP_V4`] or [`GROUP_V6`].
    Group,
    /// Nowhere: a node without a peer, over unicast.
    Nowhere,
}

/// What a socket is opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The interface that carries the adverts.
    pub interface: String,
    /// This node's address; it says which family is spoken. To the group over IPv6 adverts come from the interface's
    /// link-local address instead, unless this is one.
    pub local: IpAddr,
    /// Where adverts go.
    pub destination: Destination,
    /// Addresses that may be on the interface and are not the node's own, the VIPs: none of them becomes the link-local
    /// source, since it would move to the peer in the middle of things.
    pub never_local: Vec<IpAddr>,
}

/// Sends and receives the adverts of one virtual router on one interface.
#[derive(Debug)]
pub struct VrrpSocket {
    socket: AsyncFd<Socket>,
    local: IpAddr,
    /// `None` for [`Destination::Nowhere`].
    destination: Option<SocketAddr>,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'buffer> {
    /// A whole IPv4 packet with its header.
    Ipv4(&'buffer [u8]),
    /// What an IPv6 packet carried; the kernel keeps the header and tells of it.
    Ipv6 {
        /// Its source address.
        source: Ipv6Addr,
        /// Its destination: this socket's own address or the group.
        destination: Ipv6Addr,
        /// Its hop limit as it arrived.
        hop_limit: u8,
        /// What follows the headers.
        payload: &'buffer [u8],
    },
}

impl VrrpSocket {
    /// Opens a raw socket on an interface. Needs `CAP_NET_RAW` and a tokio runtime.
    ///
    /// The receive buffer stays as the kernel makes it (over 200 adverts): more of them would only tell more of the past.
    ///
    /// # Errors
    /// `PermissionDenied` without the capability; `NotFound` (ENODEV) when the interface is gone; `AddrNotAvailable`
    /// when `local` is not an address of this machine, or over IPv6 not yet: for a second or two after it was added the
    /// kernel still asks the link whether somebody else has it (RFC 4862 section 5.4). The same where the interface has no
    /// link-local address that can be used.
    pub fn open(spec: &Spec) -> io::Result<Self> {
        let domain = if spec.local.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(PROTOCOL)))?;
        socket.bind_device(Some(spec.interface.as_bytes()))?;
        let index = rustix::net::netdevice::name_to_index(&socket, &spec.interface)?;
        let local = match spec.local {
            IpAddr::V4(local) => prepare_v4(&socket, local, index, spec.destination)?.into(),
            IpAddr::V6(local) => prepare_v6(&socket, local, index, spec)?.into(),
        };
        // After the traffic class, which sets it too.
        socket.set_priority(QUEUE_PRIORITY)?;
        let destination = match (spec.destination, local) {
            (Destination::Peer(peer), _) => Some(on_link(peer, index)),
            (Destination::Group, IpAddr::V4(_)) => Some(on_link(GROUP_V4.into(), index)),
            (Destination::Group, IpAddr::V6(_)) => Some(on_link(GROUP_V6.into(), index)),
            (Destination::Nowhere, _) => None,
        };
        // SAFETY: a `Socket` owns one descriptor and returns the same one until it is dropped, and nothing here replaces it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, local, destination })
    }

    /// The address that adverts come from; for the checksum, and to order the two nodes.
    pub fn local(&self) -> IpAddr {
        self.local
    }

    /// The address that adverts go to, for the checksum; `None` for [`Destination::Nowhere`].
    pub fn destination(&self) -> Option<IpAddr> {
        self.destination.map(|destination| destination.ip())
    }

    /// Sends one advert. Never waits: a full queue is an error, and the next advert says the same again.
    ///
    /// # Errors
    /// `NetworkUnreachable`, `NetworkDown` and whatever else sendto(2) says.
    pub fn send(&self, pdu: &[u8]) -> io::Result<()> {
        let Some(destination) = self.destination else { return Ok(()) };
        self.socket.get_ref().send_to(pdu, &destination.into()).map(|_| ())
    }

    /// Waits for one packet. Cancel safe: a packet is either returned or still queued.
    ///
    /// # Errors
    /// What recvmsg(2) says. An interface that goes down or away is no error: nothing comes any more.
    pub async fn receive<'buffer>(&self, buffer: &'buffer mut PacketBuffer) -> io::Result<Packet<'buffer>> {
        let is_ipv4 = self.local.is_ipv4();
        let (len_bytes, header) = loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| match is_ipv4 {
                true => socket.get_ref().read(&mut buffer.bytes).map(|len_bytes| (len_bytes, None)),
                false => receive_v6(socket.get_ref(), &mut buffer.bytes).map(|(len, header)| (len, Some(header))),
            });
            if let Ok(received) = received {
                break received?;
            }
        };
        let bytes = buffer.filled(len_bytes);
        Ok(match header {
            None => Packet::Ipv4(bytes),
            Some(Header { source, destination, hop_limit }) => {
                Packet::Ipv6 { source, destination, hop_limit, payload: bytes }
            }
        })
    }

    /// From now on nothing is queued for this socket: it is there to send.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    pub fn deafen(&self) -> io::Result<()> {
        // A program of one step (BPF): keep no byte of any packet.
        let keep_nothing = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        self.socket.get_ref().attach_filter(&[keep_nothing])
    }

    /// Throws away what is queued now: what came while this process was frozen tells of the past. Returns the count.
    pub fn discard_queued(&self, buffer: &mut PacketBuffer) -> usize {
        (0..DISCARD_MAX).take_while(|_| self.socket.get_ref().read(&mut buffer.bytes).is_ok()).count()
    }
}

/// A link-local address means something on its interface alone, and has to name it.
fn on_link(address: IpAddr, interface_index: u32) -> SocketAddr {
    match address {
        IpAddr::V4(address) => SocketAddr::new(address.into(), 0),
        IpAddr::V6(address) => {
            let is_link_wide = address.is_unicast_link_local() || address.is_multicast();
            SocketAddrV6::new(address, 0, 0, if is_link_wide { interface_index } else { 0 }).into()
        }
    }
}

fn prepare_v4(socket: &Socket, local: Ipv4Addr, index: u32, destination: Destination) -> io::Result<Ipv4Addr> {
    socket.set_tos_v4(TRAFFIC_CLASS)?;
    socket.set_ttl_v4(HOP_LIMIT)?;
    if destination != Destination::Group {
        socket.bind(&on_link(local.into(), index).into())?;
        return Ok(local);
    }
    socket.set_multicast_ttl_v4(HOP_LIMIT)?;
    socket.set_multicast_loop_v4(false)?;
    // By index as well as by address: the address may be on another interface (a macvlan's parent).
    let from = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
        imr_ifindex: index.cast_signed(),
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &from)?;
    socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
    // Bound to the group it receives nothing else, and still sends from `local` (raw(7), IP_MULTICAST_IF).
    socket.bind(&on_link(GROUP_V4.into(), index).into())?;
    Ok(local)
}

/// Bound to one of our addresses, a raw IPv6 socket receives what is sent to it and to the groups that it joined itself.
/// It is not bound to the group as over IPv4, because the kernel would then choose the source address.
fn prepare_v6(socket: &Socket, local: Ipv6Addr, index: u32, spec: &Spec) -> io::Result<Ipv6Addr> {
    socket.set_tclass_v6(TRAFFIC_CLASS)?;
    socket.set_unicast_hops_v6(HOP_LIMIT)?;
    socket.set_recv_hoplimit_v6(true)?;
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1_i32)?;
    // Otherwise it would also receive from groups that others on this machine joined.
    socket.set_multicast_all_v6(false)?;
    if spec.destination != Destination::Group {
        socket.bind(&on_link(local.into(), index).into())?;
        return Ok(local);
    }
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_if_v6(index)?;
    socket.join_multicast_v6(&GROUP_V6, index)?;
    let candidates = if local.is_unicast_link_local() { vec![local] } else { link_local_addresses(spec) };
    // An address that the kernel is not sure of yet, or that somebody else turned out to have, cannot be bound.
    let usable = candidates.into_iter().find(|address| socket.bind(&on_link((*address).into(), index).into()).is_ok());
    usable.ok_or_else(|| {
        let reason = format!("{} has no link-local IPv6 address that can be used (yet)", spec.interface);
        io::Error::new(io::ErrorKind::AddrNotAvailable, reason)
    })
}

/// The link-local addresses of the interface that are the node's own, in ascending order, so that the choice is the same
/// each time.
fn link_local_addresses(spec: &Spec) -> Vec<Ipv6Addr> {
    let interfaces = datalink::interfaces().into_iter().filter(|interface| interface.name == spec.interface);
    let mut found: Vec<Ipv6Addr> = interfaces
        .flat_map(|interface| interface.ips)
        .filter(|network| !spec.never_local.contains(&network.ip()))
        .filter_map(|network| match network.ip() {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            IpAddr::V6(_) | IpAddr::V4(_) => None,
        })
        .collect();
    found.sort_unstable();
    found
}

fn set_option<T>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len_bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to a live value of the stated length, which the kernel only reads.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len_bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel tells of the header of an IPv6 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
}

fn receive_v6(socket: &Socket, bytes: &mut [u8]) -> io::Result<(usize, Header)> {
    let mut control = [0_u8; CONTROL_MAX];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let fill = |storage: *mut socket2::SockAddrStorage, address_len: *mut libc::socklen_t| {
        // SAFETY: all zeros is a valid `msghdr`: numbers and null pointers.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = storage.cast();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_MAX as _;
        // SAFETY: `try_init` gives a live `sockaddr_storage` and its length.
        message.msg_namelen = unsafe { *address_len };
        // SAFETY: every pointer of the message is to a live buffer of the length beside it, and the kernel keeps to those.
        let len_bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
        // SAFETY: as above.
        unsafe { *address_len = message.msg_namelen };
        let len_bytes = usize::try_from(len_bytes).map_err(|_| io::Error::last_os_error())?;
        Ok((len_bytes, message.msg_controllen as usize))
    };
    // SAFETY: the kernel writes a whole socket address and its length, and on an error nothing is read from them.
    let ((len_bytes, control_len_bytes), source): ((usize, usize), SockAddr) = unsafe { SockAddr::try_init(fill) }?;
    let (destination, hop_limit) = header_fields(control.get(..control_len_bytes).unwrap_or(&[]));
    match (source.as_socket_ipv6(), destination, hop_limit) {
        (Some(source), Some(destination), Some(hop_limit)) => {
            Ok((len_bytes, Header { source: *source.ip(), destination, hop_limit }))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel told nothing of a packet's header")),
    }
}

/// Reads destination and hop limit from control messages (cmsg(3), ipv6(7)): each has its length with the header, level
/// and type, all in the machine's own order, then its data; the next one begins at a multiple of the size of its length.
fn header_fields(mut control: &[u8]) -> (Option<Ipv6Addr>, Option<u8>) {
    const LEVEL_AT: usize = size_of::<usize>();
    const TYPE_AT: usize = LEVEL_AT + size_of::<i32>();
    const DATA_AT: usize = TYPE_AT + size_of::<i32>();
    let (mut destination, mut hop_limit) = (None, None);
    while let Some(len_bytes) = control.first_chunk().map(|bytes| usize::from_ne_bytes(*bytes))
        && let Some(message) = control.get(..len_bytes)
        && let Some(level) = number(message, LEVEL_AT)
        && let Some(kind) = number(message, TYPE_AT)
        && let Some(data) = message.get(DATA_AT..)
    {
        match (level, kind) {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                destination = data.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                hop_limit = number(data, 0).and_then(|value| u8::try_from(value).ok());
            }
            _ => {}
        }
        control = control.get(len_bytes.next_multiple_of(size_of::<usize>())..).unwrap_or(&[]);
    }
    (destination, hop_limit)
}

fn number(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

/// Room for one packet.
#[derive(Debug)]
pub struct PacketBuffer {
    pub(super) bytes: [u8; PACKET_MAX],
}

impl PacketBuffer {
    /// An empty one.
    pub fn new() -> Self {
        Self { bytes: [0; PACKET_MAX] }
    }

    pub(super) fn filled(&self, len_bytes: usize) -> &[u8] {
        self.bytes.get(..len_bytes).unwrap_or(&[])
    }
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet to ff02::12 on interface 3 with hop limit 255, laid out by hand after cmsg(3) and ipv6(7).
    #[cfg(all(target_pointer_width = "64", target_endian = "little"))]
    const CONTROL: [u8; 64] = [
        36, 0, 0, 0, 0, 0, 0, 0, 41, 0, 0, 0, 50, 0, 0, 0, 0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 3,
        0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 41, 0, 0, 0, 52, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    #[cfg(all(target_pointer_width = "64", target_endian = "little"))]
    fn destination_and_hop_limit_are_read_from_control_messages() {
        assert_eq!(header_fields(&CONTROL), (Some("ff02::12".parse().unwrap()), Some(255)));
    }

    #[test]
    #[cfg(all(target_pointer_width = "64", target_endian = "little"))]
    fn control_messages_that_are_cut_give_nothing_more() {
        assert_eq!(header_fields(&CONTROL[..35]), (None, None));
        assert_eq!(header_fields(&CONTROL[..36]), (Some("ff02::12".parse().unwrap()), None));
        assert_eq!(header_fields(&CONTROL[..59]), (Some("ff02::12".parse().unwrap()), None));
        assert_eq!(header_fields(&[0; 64]), (None, None));
    }

    #[test]
    fn link_wide_addresses_name_their_interface() {
        let scope = |address: &str| match on_link(address.parse().unwrap(), 7) {
            SocketAddr::V6(address) => address.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        assert_eq!(scope("fe80::1"), 7);
        assert_eq!(scope("ff02::12"), 7);
        assert_eq!(scope("fd88::11"), 0);
    }
}
