//! The few requests that build and cut a network, over rtnetlink. Each runs in the network namespace of the calling thread.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use netlink_packet_route::link::{BridgeStpState, LinkAttribute, State};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use super::LabError;
use crate::units::IpNetwork;

/// The number that the kernel gives the interface of each machine, after `lo` and the cable's far end. It takes links
/// whose two ends have the same number for no cables and brings them up to a second later, so no port may have it:
/// the bridge does.
const INDEX_OF_CABLE_ENDS: u32 = 3;

/// Whether a link carries traffic, as the administrator set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admin {
    Up,
    Down,
}

/// Whether packets can be sent from an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    Usable,
    Tentative,
}

/// A switch without spanning tree, so that a port forwards from the moment it is up.
pub(super) fn create_bridge(name: &str) -> Result<(), LabError> {
    with_netlink(&format!("make the bridge {name}"), async |netlink| {
        let bridge = LinkBridge::new(name).stp_state(BridgeStpState::Disabled).forward_delay(0);
        let bridge = bridge.index(INDEX_OF_CABLE_ENDS).up().build();
        netlink.link().add(bridge).execute().await
    })
}

/// A cable: `end` stays here, `far_end` goes into the namespace `far`.
pub(super) fn create_cable(end: &str, far_end: &str, far: BorrowedFd<'_>) -> Result<(), LabError> {
    with_netlink(&format!("lay a cable from {end} to {far_end}"), async |netlink| {
        netlink.link().add(LinkVeth::new(end, far_end).build()).execute().await?;
        let moved = LinkUnspec::new_with_name(far_end).setns_by_fd(far.as_raw_fd()).build();
        netlink.link().set(moved).execute().await
    })
}

/// Plugs the link `port` into the bridge `bridge` and brings it up.
pub(super) fn join_bridge(bridge: &str, port: &str) -> Result<(), LabError> {
    with_netlink(&format!("plug {port} into {bridge}"), async |netlink| {
        let bridge_index = index_of(&netlink, bridge).await?;
        let plugged = LinkUnspec::new_with_name(port).controller(bridge_index).up().build();
        netlink.link().set(plugged).execute().await
    })
}

/// Takes the link `port` out of its bridge. It stays up, so the machine at its other end keeps its carrier.
pub(super) fn leave_bridge(port: &str) -> Result<(), LabError> {
    with_netlink(&format!("take {port} out of its bridge"), async |netlink| {
        netlink.link().set(LinkUnspec::new_with_name(port).nocontroller().build()).execute().await
    })
}

/// Sets a link up or down.
pub(super) fn set_link(name: &str, admin: Admin) -> Result<(), LabError> {
    with_netlink(&format!("set {name} {}", if admin == Admin::Up { "up" } else { "down" }), async |netlink| {
        let link = LinkUnspec::new_with_name(name);
        let link = match admin {
            Admin::Up => link.up(),
            Admin::Down => link.down(),
        };
        netlink.link().set(link.build()).execute().await
    })
}

/// Gives a link an address. An IPv6 one can be used at once: in a network of our own nobody else has it.
pub(super) fn add_address(link: &str, address: IpNetwork) -> Result<(), LabError> {
    with_netlink(&format!("add {address} to {link}"), async |netlink| {
        let index = index_of(&netlink, link).await?;
        let mut request = netlink.address().add(index, address.address(), address.prefix_len());
        if address.address().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await
    })
}

/// Takes an address off a link, and says whether it was there.
pub(super) fn remove_address(link: &str, wanted: Ipv4Addr) -> Result<bool, LabError> {
    with_netlink(&format!("take {wanted} off {link}"), async |netlink| {
        let index = index_of(&netlink, link).await?;
        let mut found = netlink.address().get().set_link_index_filter(index).execute();
        let wanted = AddressAttribute::Local(IpAddr::V4(wanted));
        while let Some(message) = found.try_next().await? {
            if message.attributes.contains(&wanted) {
                return netlink.address().del(message).execute().await.map(|()| true);
            }
        }
        Ok(false)
    })
}

/// Whether a link is up in the kernel's own judgement. After its carrier came that takes up to a second, in which the
/// link drops what it should send.
pub(super) fn is_operational(link: &str) -> Result<bool, LabError> {
    with_netlink(&format!("read the state of {link}"), async |netlink| {
        let mut found = netlink.link().get().match_name(link).execute();
        let Some(message) = found.try_next().await? else { return Ok(false) };
        Ok(message.attributes.contains(&LinkAttribute::OperState(State::Up)))
    })
}

/// The addresses that a link carries, and whether they can be used: the kernel may still ask the link whether somebody
/// else has an IPv6 address.
pub(super) fn addresses(link: &str) -> Result<Vec<(IpAddr, Readiness)>, LabError> {
    with_netlink(&format!("read the addresses of {link}"), async |netlink| {
        let index = index_of(&netlink, link).await?;
        let mut found = netlink.address().get().set_link_index_filter(index).execute();
        let mut addresses = Vec::new();
        while let Some(message) = found.try_next().await? {
            let is_tentative = message.header.flags.contains(AddressHeaderFlags::Tentative);
            let readiness = if is_tentative { Readiness::Tentative } else { Readiness::Usable };
            // An IPv6 address has no local one beside it.
            let address = message.attributes.iter().find_map(|attribute| match (attribute, message.header.family) {
                (AddressAttribute::Local(address), _) => Some(*address),
                (AddressAttribute::Address(address), AddressFamily::Inet6) => Some(*address),
                _ => None,
            });
            addresses.extend(address.map(|address| (address, readiness)));
        }
        Ok(addresses)
    })
}

async fn index_of(netlink: &Handle, link: &str) -> Result<u32, rtnetlink::Error> {
    let mut found = netlink.link().get().match_name(link).execute();
    match found.try_next().await? {
        Some(link) => Ok(link.header.index),
        None => Err(rtnetlink::Error::RequestFailed),
    }
}

/// Runs `work` with a netlink socket in the namespace of this thread.
fn with_netlink<T, F>(doing: &str, work: impl FnOnce(Handle) -> F) -> Result<T, LabError>
where
    F: Future<Output = Result<T, rtnetlink::Error>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(LabError::system(doing))?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LabError::system(doing))?;
        let connection = tokio::spawn(connection);
        let outcome = work(handle).await;
        connection.abort();
        outcome.map_err(|error| LabError::Netlink { doing: doing.to_owned(), reason: reason(&error) })
    })
}

/// What the kernel said, without the words of the library around it.
fn reason(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    }
}
