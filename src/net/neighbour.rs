//! What neighbours on a link are told and asked about addresses: ARP for IPv4, neighbour discovery for IPv6.
//!
//! | file | what it holds |
//! |---|---|
//! | [`frames`] | the frames, built and read |
//! | [`watch`] | hearing who else claims an address, and asking for one |
//!
//! Everything here needs `CAP_NET_RAW`, and Ethernet.

mod frames;
mod watch;

#[cfg(test)]
mod tests;

use std::io;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

pub use frames::{Claim, announcement, claim_in, probe, question};
pub use watch::{Asker, ClaimWatcher, ask};

use super::vrrp_socket::QUEUE_PRIORITY;

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
        socket.set_priority(QUEUE_PRIORITY)?;
        Ok(Self { socket })
    }

    /// Sends one whole frame out of the interface with this index.
    ///
    /// # Errors
    /// `NetworkDown` when the interface is down; `NotFound` (ENXIO) when it is gone; what else send(2) says.
    pub fn send(&self, interface_index: u32, frame: &[u8]) -> io::Result<()> {
        let ethertype = frame.get(12..14).and_then(|bytes| bytes.first_chunk()).copied();
        let ethertype = u16::from_be_bytes(ethertype.unwrap_or_default());
        self.socket.send_to(frame, &link_address(interface_index, ethertype)).map(|_| ())
    }
}

/// The address of an interface, with the kind of frames that are meant.
pub(super) fn link_address(interface_index: u32, ethertype: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the address types that a `sockaddr_storage` is defined to hold (packet(7)).
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = ethertype.to_be();
    link.sll_ifindex = interface_index.cast_signed();
    // A whole frame says itself where it goes; the kernel wants some address of the right length beside it.
    link.sll_halen = 6;
    link.sll_addr = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
    // SAFETY: the storage was filled in as a whole `sockaddr_ll` just above, and this is its length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}
