//! New TCP connections to some addresses, held back for a moment: nobody answers or refuses them, and when the addresses are
//! another machine's, they are handed on to it. For a planned move of addresses: what a client has begun here by then it
//! could not go on with there.
//!
//! Listening sockets get a filter that has the kernel drop SYNs (socket(7), `SO_ATTACH_FILTER`), and packet sockets take
//! copies of them, whole and unread. Clients whose SYN is lost all the same send it again after a second.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::{MutableTcpPacket, TcpPacket, ipv4_checksum, ipv6_checksum};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// Bytes of a packet that are taken: the longest header of each protocol, and data that a SYN may carry (RFC 7413).
const PACKET_MAX: usize = 2048;

/// SYNs that are handed on; the rest has to come again.
const HELD_MAX: usize = 4096;

/// Room for as many in the kernel, by its own reckoning of a small packet.
const BUFFER_BYTES: usize = HELD_MAX * 1024;

/// New connections that are held back, until this is dropped.
#[derive(Debug)]
pub struct Newcomers {
    listeners: Vec<Arc<TcpListener>>,
    addresses: Vec<IpAddr>,
    captures: Vec<Socket>,
}

impl Newcomers {
    /// Holds back whoever connects to one of these addresses at one of these sockets, except from that same address. Needs
    /// `CAP_NET_RAW`.
    ///
    /// # Errors
    /// What setsockopt(2) says of a filter; `PermissionDenied` without the capability.
    pub fn hold(listeners: Vec<Arc<TcpListener>>, addresses: Vec<IpAddr>) -> io::Result<Self> {
        // First the copies, so that none is missed.
        let captures = vec![capture(libc::ETH_P_IP)?, capture(libc::ETH_P_IPV6)?];
        let held = Self { listeners, addresses, captures };
        let filter = listener_filter(&held.addresses);
        for listener in &held.listeners {
            SockRef::from(&**listener).attach_filter(&filter)?;
        }
        Ok(held)
    }

    /// Lets new connections be, and sends those that were held back to where their address is now. Gives how many.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_RAW`, or what else socket(2) says.
    pub fn hand_on(self) -> io::Result<usize> {
        self.detach();
        let ipv4 =
            Socket::new(Domain::IPV4, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(libc::IPPROTO_RAW)))?;
        let ipv6 =
            Socket::new(Domain::IPV6, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(libc::IPPROTO_RAW)));
        let mut count = 0;
        for capture in &self.captures {
            let mut packet = [0; PACKET_MAX];
            for _ in 0..HELD_MAX {
                let mut capture = capture;
                let Ok(len) = capture.read(&mut packet) else { break };
                let Some(packet) = packet.get_mut(..len) else { break };
                let Some((from, to)) = completed(packet) else { continue };
                if from == to || !self.addresses.contains(&to) {
                    continue;
                }
                let socket = if to.is_ipv4() { Some(&ipv4) } else { ipv6.as_ref().ok() };
                // One that cannot be sent comes again.
                let is_sent =
                    socket.is_some_and(|socket| socket.send_to(packet, &SocketAddr::new(to, 0).into()).is_ok());
                count += usize::from(is_sent);
            }
        }
        Ok(count)
    }

    fn detach(&self) {
        for listener in &self.listeners {
            // Fails only where there is none.
            let _none = SockRef::from(&**listener).detach_filter();
        }
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.detach();
    }
}

/// A socket that takes copies of the SYNs that come for this machine.
fn capture(ethertype: i32) -> io::Result<Socket> {
    let ethertype = u16::try_from(ethertype).unwrap_or_default();
    // With protocol 0 it hears nothing until it is bound, and by then the filter is in place.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::from(0)))?;
    let filter = if i32::from(ethertype) == libc::ETH_P_IP { syn_over_ipv4() } else { syn_over_ipv6() };
    socket.attach_filter(&filter)?;
    // Without the right to so much room, fewer are handed on.
    let _less = socket.set_recv_buffer_size(BUFFER_BYTES);
    socket.bind(&super::neighbour::link_address(0, ethertype))?;
    Ok(socket)
}

/// Gives a packet the TCP checksum that a network card would have added, and says from where to where it goes.
fn completed(packet: &mut [u8]) -> Option<(IpAddr, IpAddr)> {
    let is_ipv4 = packet.first()? >> 4 == 4;
    let (from, to, header_len) = if is_ipv4 {
        let ip = Ipv4Packet::new(packet)?;
        let is_tcp = ip.get_next_level_protocol() == IpNextHeaderProtocols::Tcp;
        let addresses = (IpAddr::from(ip.get_source()), IpAddr::from(ip.get_destination()));
        is_tcp.then_some((addresses.0, addresses.1, usize::from(ip.get_header_length()) * 4))?
    } else {
        let ip = Ipv6Packet::new(packet)?;
        let is_tcp = ip.get_next_header() == IpNextHeaderProtocols::Tcp;
        is_tcp.then_some((ip.get_source().into(), ip.get_destination().into(), Ipv6Packet::minimum_packet_size()))?
    };
    let segment = packet.get_mut(header_len..)?;
    let checksum = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4_checksum(&TcpPacket::new(segment)?, &from, &to),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6_checksum(&TcpPacket::new(segment)?, &from, &to),
        _ => return None,
    };
    MutableTcpPacket::new(segment)?.set_checksum(checksum);
    Some((from, to))
}

const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_BYTE_FROM_X: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_IND) as u16;
const LOAD_HEADER_LEN: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
const TO_X: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_EQUAL_X: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_X) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const SKIP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Where the IP header begins, for a filter that sees the TCP header (`SKF_NET_OFF`).
const IP_HEADER: u32 = libc::SKF_NET_OFF as u32;
/// What kind of packet it is to this machine (`SKF_AD_PKTTYPE`), and the kind that is for it (`PACKET_HOST`).
const PACKET_KIND: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
const FOR_THIS_MACHINE: u32 = 0;
/// The flags of a TCP header, and those two that tell a SYN from its answer.
const FLAGS_AT: u32 = 13;
const SYN_AND_ACK: u32 = 0x12;
const SYN: u32 = 0x02;
const TCP: u32 = 6;

fn step(code: u16, value: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, value)
}

/// Skips so many steps if the comparison holds, and so many otherwise.
fn branch(code: u16, value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(code, then, otherwise, value)
}

fn take() -> SockFilter {
    step(RETURN, u32::MAX)
}

fn refuse() -> SockFilter {
    step(RETURN, 0)
}

/// Of the segments for a listening socket, drops SYNs to these addresses. Over IPv6 the last 32 bits tell: the few others
/// that agree in those have to come again.
fn listener_filter(addresses: &[IpAddr]) -> Vec<SockFilter> {
    let ipv4 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(Ipv4Addr::to_bits(*address)),
        IpAddr::V6(_) => None,
    });
    let ipv6 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some((Ipv6Addr::to_bits(*address) & u128::from(u32::MAX)) as u32),
    });
    let of_ipv4 = unless_from_or_to(12, 16, ipv4);
    let of_ipv6 = unless_from_or_to(20, 36, ipv6);
    let mut filter = vec![
        step(LOAD_BYTE, FLAGS_AT),
        step(AND, SYN_AND_ACK),
        branch(IF_EQUAL, SYN, 1, 0),
        take(),
        step(LOAD_BYTE, IP_HEADER),
        step(AND, 0xf0),
        branch(IF_EQUAL, 0x40, 0, 1),
        step(SKIP, u32::try_from(of_ipv6.len()).unwrap_or_default()),
    ];
    filter.extend(of_ipv6);
    filter.extend(of_ipv4);
    filter
}

/// Takes packets from an address to itself, and those that are to none of these.
fn unless_from_or_to(source_at: u32, destination_at: u32, words: impl Iterator<Item = u32>) -> Vec<SockFilter> {
    let mut filter = vec![
        step(LOAD_WORD, IP_HEADER.wrapping_add(source_at)),
        step(TO_X, 0),
        step(LOAD_WORD, IP_HEADER.wrapping_add(destination_at)),
        branch(IF_EQUAL_X, 0, 0, 1),
        take(),
    ];
    for word in words {
        filter.extend([branch(IF_EQUAL, word, 0, 1), refuse()]);
    }
    filter.push(take());
    filter
}

fn syn_over_ipv4() -> Vec<SockFilter> {
    vec![
        step(LOAD_WORD, PACKET_KIND),
        branch(IF_EQUAL, FOR_THIS_MACHINE, 0, 8),
        step(LOAD_BYTE, 9),
        branch(IF_EQUAL, TCP, 0, 6),
        step(LOAD_HALF, 6),
        // A fragment that is not the first has no TCP header.
        branch(IF_ANY_BIT, 0x1fff, 4, 0),
        step(LOAD_HEADER_LEN, 0),
        step(LOAD_BYTE_FROM_X, FLAGS_AT),
        step(AND, SYN_AND_ACK),
        branch(IF_EQUAL, SYN, 1, 0),
        refuse(),
        take(),
    ]
}

fn syn_over_ipv6() -> Vec<SockFilter> {
    vec![
        step(LOAD_WORD, PACKET_KIND),
        branch(IF_EQUAL, FOR_THIS_MACHINE, 0, 5),
        step(LOAD_BYTE, 6),
        branch(IF_EQUAL, TCP, 0, 3),
        step(LOAD_BYTE, 40 + FLAGS_AT),
        step(AND, SYN_AND_ACK),
        branch(IF_EQUAL, SYN, 1, 0),
        refuse(),
        take(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_that_was_left_to_the_network_card_is_made_up() {
        // An IPv4 SYN as a packet socket gives it, with the pseudo header's sum alone; the right one is of tcpdump's.
        let mut packet = vec![
            0x45, 0x00, 0x00, 0x28, 0x00, 0x01, 0x40, 0x00, 0x40, 0x06, 0x00, 0x00, 10, 0, 0, 1, 10, 0, 0, 2, 0x04,
            0xd2, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0x14, 0x1d, 0, 0,
        ];
        let ends = completed(&mut packet).unwrap();
        assert_eq!(ends, ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()));
        // RFC 1071 by hand: pseudo header 10.0.0.1, 10.0.0.2, 6, 20 and the words of the segment.
        let words: [u32; 11] = [0x0a00, 0x0001, 0x0a00, 0x0002, 0x0006, 0x0014, 0x04d2, 0x0050, 0x0001, 0x5002, 0xffff];
        let sum: u32 = words.iter().sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let expected = !u16::try_from(folded).unwrap();
        assert_eq!(u16::from_be_bytes([packet[36], packet[37]]), expected);
    }

    #[test]
    fn what_is_no_tcp_or_cut_off_is_not_handed_on() {
        assert_eq!(completed(&mut []), None);
        assert_eq!(completed(&mut [0x45; 20]), None);
        let mut udp = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 0, 8, 0, 0];
        assert_eq!(completed(&mut udp), None);
    }
}
