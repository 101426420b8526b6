//! Gratuitous ARP: tells every host and switch on a link which machine holds an address now (RFC 5227 section 3).
//! And the ordinary question for a neighbour.

use std::io;
use std::net::Ipv4Addr;

use pnet::packet::Packet;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet::util::MacAddr;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// Ethernet header (14 bytes) and ARP for IPv4 over Ethernet (28 bytes).
const FRAME_LEN_BYTES: usize = 42;

/// The frame that announces `address` at `hardware`: a broadcast ARP request whose sender and target are both the
/// address, as RFC 9568 section 6.4.2 asks for and as every other VRRP implementation sends it.
pub fn announcement(hardware: MacAddr, address: Ipv4Addr) -> Option<Vec<u8>> {
    request(hardware, address, (MacAddr::broadcast(), address))
}

/// The frame that asks everybody on the link for the hardware address of `peer`, and so tells `peer` ours: whoever is
/// asked notes who asks (RFC 826, "Packet Reception").
pub fn question(hardware: MacAddr, address: Ipv4Addr, peer: Ipv4Addr) -> Option<Vec<u8>> {
    request(hardware, address, (MacAddr::zero(), peer))
}

fn request(hardware: MacAddr, address: Ipv4Addr, target: (MacAddr, Ipv4Addr)) -> Option<Vec<u8>> {
    let mut payload = [0_u8; FRAME_LEN_BYTES - MutableEthernetPacket::minimum_packet_size()];
    let mut arp = MutableArpPacket::new(&mut payload)?;
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(ArpOperations::Request);
    arp.set_sender_hw_addr(hardware);
    arp.set_sender_proto_addr(address);
    arp.set_target_hw_addr(target.0);
    arp.set_target_proto_addr(target.1);
    let mut frame = vec![0_u8; FRAME_LEN_BYTES];
    let mut ethernet = MutableEthernetPacket::new(&mut frame)?;
    ethernet.set_destination(MacAddr::broadcast());
    ethernet.set_source(hardware);
    ethernet.set_ethertype(EtherTypes::Arp);
    ethernet.set_payload(arp.packet());
    Some(frame)
}

/// A packet socket that only sends. Its protocol is 0, so that the kernel never queues received frames on it
/// (packet(7)), which under proxy load would cost a copy of every packet.
#[derive(Debug)]
pub struct Announcer {
    socket: Socket,
}

impl Announcer {
    /// Opens the socket. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// `PermissionDenied` without the capability.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))?;
        Ok(Self { socket })
    }

    /// Sends one frame out of the interface with this index.
    ///
    /// # Errors
    /// `NetworkDown` when the interface is down; what send(2) says.
    pub fn send(&self, interface_index: u32, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &link_address(interface_index)).map(|_| ())
    }
}

fn link_address(interface_index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the address types that a `sockaddr_storage` is defined to hold (packet(7)).
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = (libc::ETH_P_ARP as u16).to_be();
    link.sll_ifindex = interface_index.cast_signed();
    link.sll_halen = 6;
    link.sll_addr = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
    // SAFETY: the storage was filled in as a whole `sockaddr_ll` just above, and this is its length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcement_is_byte_for_byte_what_keepalived_sends() {
        // First frame of tests/vectors/garp_on_takeover.hex.txt.
        let captured = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x88, 0x00, 0x0b, 0x08, 0x06, 0x00, 0x01, 0x08, 0x00,
            0x06, 0x04, 0x00, 0x01, 0x02, 0x00, 0x00, 0x88, 0x00, 0x0b, 0x0a, 0x58, 0x00, 0x64, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0x0a, 0x58, 0x00, 0x64,
        ];
        let built = announcement(MacAddr::new(2, 0, 0, 0x88, 0, 0x0b), Ipv4Addr::new(10, 88, 0, 100));
        assert_eq!(built, Some(captured.to_vec()));
    }

    #[test]
    fn question_has_the_fields_of_rfc_826_in_their_places() {
        // 10.77.0.12 at 02:00:00:88:00:0b looks for 10.77.0.11.
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x88, 0x00, 0x0b, 0x08, 0x06, 0x00, 0x01, 0x08, 0x00,
            0x06, 0x04, 0x00, 0x01, 0x02, 0x00, 0x00, 0x88, 0x00, 0x0b, 0x0a, 0x4d, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x0a, 0x4d, 0x00, 0x0b,
        ];
        let (asking, peer) = (Ipv4Addr::new(10, 77, 0, 12), Ipv4Addr::new(10, 77, 0, 11));
        assert_eq!(question(MacAddr::new(2, 0, 0, 0x88, 0, 0x0b), asking, peer), Some(expected.to_vec()));
    }
}
