//! Interfaces and their addresses, over rtnetlink(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use pnet::util::MacAddr;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{AddressMessageBuilder, Handle, MulticastGroup};

use crate::units::IpNetwork;

/// An interface, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index; changes when the interface is made anew.
    pub index: u32,
    /// Its hardware address; zeros where it has none.
    pub hardware: MacAddr,
    /// Administratively up, with a carrier, and in use by the kernel.
    pub has_carrier: bool,
}

/// A connection to the kernel's routing tables, in the network namespace in which it was opened.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a connection and spawns the task that serves it on the current tokio runtime.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// `NotFound` when there is none; what the kernel says otherwise.
    pub async fn interface(&self, name: &str) -> io::Result<Interface> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        match links.try_next().await.map_err(|error| kernel_error(&error))? {
            Some(link) => Ok(interface_of(&link)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The IPv4 addresses of all interfaces, each with the index of its interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn all_addresses(&self) -> io::Result<Vec<(u32, IpNetwork)>> {
        let dump = self.handle.address().get().execute();
        let messages: Vec<AddressMessage> = dump.try_collect().await.map_err(|error| kernel_error(&error))?;
        let with_index = |message| network_of(message).map(|network| (message.header.index, network));
        Ok(messages.iter().filter_map(with_index).collect())
    }

    /// Adds an address. `Ok(false)` when the interface has it already.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN`; `NotFound` (ENODEV) when the interface is gone.
    pub async fn add_address(&self, interface_index: u32, network: IpNetwork) -> io::Result<bool> {
        let request = self.handle.address().add(interface_index, network.address().into(), network.prefix_len());
        changed(request.execute().await, libc::EEXIST)
    }

    /// Removes an address. `Ok(false)` when the interface does not have it.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN`; `NotFound` (ENODEV) when the interface is gone.
    pub async fn remove_address(&self, interface_index: u32, network: IpNetwork) -> io::Result<bool> {
        let message = match network.address() {
            IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(interface_index)
                .address(address, network.prefix_len())
                .build(),
            IpAddr::V6(address) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(interface_index)
                .address(address, network.prefix_len())
                .build(),
        };
        changed(self.handle.address().del(message).execute().await, libc::EADDRNOTAVAIL)
    }
}

/// Keeps an interface's other addresses of the same network when its first one is removed
/// (`net.ipv4.conf.IFACE.promote_secondaries`). Without it the kernel removes them too: a VIP that has become the first,
/// because the node's own address was away for a moment, would take that along when it is released.
///
/// # Errors
/// What open(2) or write(2) says, when it is off and cannot be set.
pub fn promote_secondaries(interface: &str) -> io::Result<()> {
    let of = |name: &str| format!("/proc/sys/net/ipv4/conf/{name}/promote_secondaries");
    let is_on = |name| std::fs::read_to_string(of(name)).is_ok_and(|value| value.trim() != "0");
    if is_on("all") || is_on(interface) { Ok(()) } else { std::fs::write(of(interface), "1") }
}

/// Interfaces as they change, from now on, in the current network namespace. Spawns the task that serves it.
///
/// # Errors
/// What socket(2) or bind(2) says.
pub fn watch_interfaces() -> io::Result<impl Stream<Item = Interface> + Unpin> {
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    tokio::spawn(connection);
    Ok(Box::pin(messages.filter_map(|(message, _)| async move {
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Some(interface_of(&link)),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                Some(Interface { has_carrier: false, ..interface_of(&link) })
            }
            _ => None,
        }
    })))
}

fn interface_of(link: &LinkMessage) -> Interface {
    let mut name = String::new();
    let mut hardware = MacAddr::zero();
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name.clone_from(value),
            LinkAttribute::Address(bytes) => {
                if let Ok(octets) = <[u8; 6]>::try_from(bytes.as_slice()) {
                    hardware = MacAddr::from(octets);
                }
            }
            _ => {}
        }
    }
    // Running comes up to a second after the carrier, and until then the kernel drops what the link should send.
    let has_carrier = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running);
    Interface { name, index: link.header.index, hardware, has_carrier }
}

fn network_of(message: &AddressMessage) -> Option<IpNetwork> {
    // IFA_LOCAL is the interface's own address; IFA_ADDRESS is the far end on a point-to-point link.
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => IpNetwork::new(*address, message.header.prefix_len),
        _ => None,
    })
}

fn changed(result: Result<(), rtnetlink::Error>, already: i32) -> io::Result<bool> {
    match result.map_err(|error| kernel_error(&error)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(already) => Ok(false),
        Err(error) => Err(error),
    }
}

fn kernel_error(error: &rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
