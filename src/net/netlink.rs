//! Interfaces and their addresses, over rtnetlink(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode};
use pnet::util::MacAddr;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{AddressMessageBuilder, Handle, LinkMacVlan, LinkUnspec, MulticastGroup};
use tokio::time::timeout;

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

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The index of the interface.
    pub interface_index: u32,
    /// The address with its prefix length.
    pub network: IpNetwork,
    /// The kernel does not use it, because another machine answered for it when it was added (`dadfailed`; IPv6).
    pub is_duplicate: bool,
}

/// A macvlan: an interface with a hardware address of its own on top of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Macvlan {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its hardware address.
    pub hardware: MacAddr,
}

/// How the route to an address' network stands to others to that network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixRoute {
    /// As the kernel makes it.
    Usual,
    /// Used only where no other interface leads to the network.
    LastResort,
}

/// Something changed in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An address was added, or its state has changed.
    Appeared(Address),
    /// An address was removed.
    Disappeared(Address),
    /// An interface is new or has changed; without a carrier when it is gone.
    Interface(Interface),
    /// Changes were missed, because they came faster than they were read: look at everything.
    Missed,
}

/// Time that the kernel gets to answer. It carries a request out under a lock that a driver may hold for seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The metric of [`PrefixRoute::LastResort`], above what the kernel (0 and 256), its router advertisements (1024) and the
/// usual network services give.
const LAST_RESORT_METRIC: u32 = 30_000;

/// A connection to the kernel's routing tables, in the network namespace in which it was opened.
///
/// The kernel does the work of a request in the thread that sends it, and that waits for as long as another holds the
/// lock on its tables. So the connection has a thread of its own, and every call here ends after two seconds; what the
/// kernel was then asked for may still happen, before anything that it is asked for later.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a connection, and starts the thread that serves it and ends with the last clone.
    ///
    /// # Errors
    /// What socket(2) or clone(2) says.
    pub fn open() -> io::Result<Self> {
        Self::open_prepared(|| {})
    }

    /// The same; `prepare` is run on the thread first, to schedule it.
    ///
    /// # Errors
    /// As [`Netlink::open`].
    pub fn open_prepared(prepare: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (report, opened) = std::sync::mpsc::channel();
        let serve = move || {
            prepare();
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(report.send(Err(error))),
            };
            runtime.block_on(async {
                match rtnetlink::new_connection() {
                    Ok((connection, handle, unasked)) => {
                        drop(unasked);
                        drop(report.send(Ok(handle)));
                        connection.await;
                    }
                    Err(error) => drop(report.send(Err(error))),
                }
            });
        };
        // A thread starts in the namespaces of the one that makes it.
        std::thread::Builder::new().name("netlink".to_owned()).spawn(serve)?;
        let handle = opened.recv().map_err(|_| io::Error::other("the netlink thread has ended"))??;
        Ok(Self { handle })
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// `NotFound` when there is none; `TimedOut`; what the kernel says otherwise.
    pub async fn interface(&self, name: &str) -> io::Result<Interface> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        match answered(links.try_next()).await? {
            Some(link) => Ok(interface_of(&link)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The addresses of all interfaces.
    ///
    /// # Errors
    /// `TimedOut`; what the kernel says otherwise.
    pub async fn all_addresses(&self) -> io::Result<Vec<Address>> {
        let dump = self.handle.address().get().execute();
        let messages: Vec<AddressMessage> = answered(dump.try_collect()).await?;
        Ok(messages.iter().filter_map(address_of).collect())
    }

    /// Adds a virtual address. `Ok(false)` when the interface has it already.
    ///
    /// An IPv6 address is usable at once: without duplicate address detection, during which the kernel would not answer
    /// for it for a second or more, and which has no place here, since the machine that held it before a takeover may
    /// well be there still. It is deprecated from the start, so that the kernel takes it as the source of nothing that
    /// this machine begins itself (RFC 6724 rule 3): such connections would end with the next takeover. (IPv4 has no
    /// such mark; there the kernel prefers the addresses that came first, which are the machine's own.)
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN`; `NotFound` (ENODEV) when the interface is gone; `TimedOut`.
    pub async fn add_address(
        &self,
        interface_index: u32,
        network: IpNetwork,
        prefix_route: PrefixRoute,
    ) -> io::Result<bool> {
        let mut request = self.handle.address().add(interface_index, network.address(), network.prefix_len());
        let attributes = &mut request.message_mut().attributes;
        if network.address().is_ipv6() {
            let mut lifetimes = CacheInfo::default();
            (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, u32::MAX);
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        if prefix_route == PrefixRoute::LastResort {
            attributes.push(AddressAttribute::RoutePriority(LAST_RESORT_METRIC));
        }
        changed(answered(request.execute()).await, libc::EEXIST)
    }

    /// Removes an address. `Ok(false)` when the interface does not have it.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN`; `NotFound` (ENODEV) when the interface is gone; `TimedOut`.
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
        changed(answered(self.handle.address().del(message).execute()).await, libc::EADDRNOTAVAIL)
    }

    /// All macvlans.
    ///
    /// # Errors
    /// `TimedOut`; what the kernel says otherwise.
    pub async fn macvlans(&self) -> io::Result<Vec<Macvlan>> {
        let links: Vec<LinkMessage> = answered(self.handle.link().get().execute().try_collect()).await?;
        let macvlan = |link: &LinkMessage| {
            let Interface { name, index, hardware, .. } = interface_of(link);
            is_macvlan(link).then_some(Macvlan { name, index, hardware })
        };
        Ok(links.iter().filter_map(macvlan).collect())
    }

    /// Makes a macvlan on top of the interface `below`; it is down. `Ok(false)` when there is an interface of that name.
    ///
    /// It is one of mode `bridge`, so that what else shares the interface that way, such as containers on this machine,
    /// reaches it too.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN`; EOPNOTSUPP from a kernel without macvlan; EINVAL where `below` cannot
    /// carry one; `TimedOut`.
    pub async fn create_macvlan(&self, name: &str, below: u32, hardware: MacAddr) -> io::Result<bool> {
        let link = LinkMacVlan::new(name, below, MacVlanMode::Bridge).address(hardware.octets().to_vec()).build();
        changed(answered(self.handle.link().add(link).execute()).await, libc::EEXIST)
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN`; `NotFound` (ENODEV) when it is gone; `TimedOut`.
    pub async fn set_up(&self, interface_index: u32) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(interface_index).up().build();
        answered(self.handle.link().set(link).execute()).await
    }

    /// Removes an interface. `Ok(false)` when it is gone.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN`; EOPNOTSUPP for one of hardware; `TimedOut`.
    pub async fn remove_interface(&self, interface_index: u32) -> io::Result<bool> {
        changed(answered(self.handle.link().del(interface_index).execute()).await, libc::ENODEV)
    }
}

/// Interfaces as they change, from now on, in the current network namespace. Spawns the task that serves it.
///
/// # Errors
/// What socket(2) or bind(2) says.
pub fn watch_interfaces() -> io::Result<impl Stream<Item = Interface> + Unpin> {
    let changes = changes(&[MulticastGroup::Link])?;
    Ok(Box::pin(changes.filter_map(|change| async move {
        match change {
            Change::Interface(interface) => Some(interface),
            Change::Appeared(_) | Change::Disappeared(_) | Change::Missed => None,
        }
    })))
}

/// Addresses and interfaces as they change, from now on, in the current network namespace. Spawns the task that serves
/// it. It ends when the socket fails for good.
///
/// # Errors
/// What socket(2) or bind(2) says.
pub fn watch() -> io::Result<impl Stream<Item = Change> + Unpin> {
    changes(&[MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr, MulticastGroup::Link])
}

fn changes(groups: &[MulticastGroup]) -> io::Result<impl Stream<Item = Change> + Unpin> {
    let (connection, _, messages) = rtnetlink::new_multicast_connection(groups)?;
    tokio::spawn(connection);
    Ok(Box::pin(messages.filter_map(|(message, _)| async move {
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                Some(Change::Interface(interface_of(&link)))
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                Some(Change::Interface(Interface { has_carrier: false, ..interface_of(&link) }))
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                address_of(&address).map(Change::Appeared)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                address_of(&address).map(Change::Disappeared)
            }
            // The kernel's ENOBUFS.
            NetlinkPayload::Overrun(_) => Some(Change::Missed),
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

fn is_macvlan(link: &LinkMessage) -> bool {
    let is_kind = |info: &LinkInfo| *info == LinkInfo::Kind(InfoKind::MacVlan);
    link.attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.iter().any(is_kind)))
}

fn address_of(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Address(value) => address = Some(*value),
            AddressAttribute::Flags(value) => flags = *value,
            _ => {}
        }
    }
    // IFA_LOCAL is the interface's own address, and IFA_ADDRESS the far end of a point-to-point link; an IPv6 address
    // that has no far end comes as IFA_ADDRESS alone.
    let network = IpNetwork::new(local.or(address)?, message.header.prefix_len)?;
    let is_duplicate = flags.contains(AddressFlags::Dadfailed);
    Some(Address { interface_index: message.header.index, network, is_duplicate })
}

/// The answer to a request, in time.
async fn answered<T>(request: impl Future<Output = Result<T, rtnetlink::Error>>) -> io::Result<T> {
    match timeout(CALL_TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| kernel_error(&error)),
        Err(_) => {
            let reason = format!("the kernel did not answer within {} s", CALL_TIMEOUT.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, reason))
        }
    }
}

fn changed(result: io::Result<()>, already: i32) -> io::Result<bool> {
    match result {
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
