//! Where the addresses of a VIP live, and how they get there and off again.

use std::io;
use std::net::IpAddr;

use futures_util::future::join_all;
use pnet::util::MacAddr;
use tracing::{info, warn};

use crate::config::Vip;
use crate::net::netlink::{Address, Interface, Netlink, PrefixRoute};
use crate::net::sysctl::{self, is_without_ipv6};
use crate::units::{IpNetwork, VirtualRouterId};

/// The loopback interface has this index in every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// What the names of our macvlans begin with: `bvr51.4` carries the IPv4 addresses of virtual router 51.
const MACVLAN_PREFIX: &str = "bvr";

/// An interface that carries addresses of a VIP while it is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// The interface of the configuration.
    pub interface: String,
    /// The macvlan on top of it that carries them instead, with virtual MAC.
    pub virtual_mac: Option<VirtualMac>,
    /// The addresses.
    pub networks: Vec<IpNetwork>,
}

/// A macvlan with the hardware address of a virtual router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMac {
    /// The macvlan's name.
    pub name: String,
    /// The hardware address.
    pub hardware: MacAddr,
}

/// Addresses that are where they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The interface that has them.
    pub index: u32,
    /// The hardware address that answers for them.
    pub hardware: MacAddr,
    /// The interface of the configuration, where their neighbours are heard.
    pub link_index: u32,
    /// The addresses.
    pub networks: Vec<IpNetwork>,
}

/// How it went to put a VIP where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Put {
    /// All of it.
    pub placed: Vec<Placed>,
    /// How many of the addresses were not there, or not usable.
    pub added: usize,
    /// Those of them that the kernel did not use, because another machine had answered for them.
    pub duplicates: Vec<IpAddr>,
}

/// The carriers of each VIP.
///
/// Virtual router ids are unique on an interface only: where two interfaces have the same one, the second macvlan is
/// called `bvr51.4-2`.
pub fn carriers(vips: &[Vip]) -> Vec<Vec<Carrier>> {
    let mut taken = Vec::new();
    vips.iter().map(|vip| carriers_of(vip, &mut taken)).collect()
}

fn carriers_of(vip: &Vip, taken: &mut Vec<String>) -> Vec<Carrier> {
    let mut carriers: Vec<Carrier> = Vec::new();
    for at in &vip.addresses {
        let address = at.network.address();
        let hardware = vip.virtual_mac.then(|| virtual_hardware(vip.virtual_router_id, address));
        let is_same = |carrier: &&mut Carrier| {
            carrier.interface == at.interface && carrier.virtual_mac.as_ref().map(|mac| mac.hardware) == hardware
        };
        if let Some(carrier) = carriers.iter_mut().find(is_same) {
            carrier.networks.push(at.network);
            continue;
        }
        let virtual_mac = hardware.map(|hardware| {
            let name = free_name(vip.virtual_router_id, address, taken);
            taken.push(name.clone());
            VirtualMac { name, hardware }
        });
        carriers.push(Carrier { interface: at.interface.clone(), virtual_mac, networks: vec![at.network] });
    }
    carriers
}

/// RFC 9568 section 7.3.
fn virtual_hardware(id: VirtualRouterId, address: IpAddr) -> MacAddr {
    MacAddr::new(0x00, 0x00, 0x5e, 0x00, if address.is_ipv4() { 0x01 } else { 0x02 }, id.get())
}

fn free_name(id: VirtualRouterId, address: IpAddr, taken: &[String]) -> String {
    let base = format!("{MACVLAN_PREFIX}{id}.{}", if address.is_ipv4() { 4 } else { 6 });
    let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
    let mut names = std::iter::once(base.clone()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or(base)
}

/// Puts every address of `carriers` where it belongs.
///
/// # Errors
/// Which one failed and why, in words. The others may be there then.
pub async fn put(netlink: &Netlink, carriers: &[Carrier]) -> Result<Put, String> {
    let mut put = Put::default();
    for carrier in carriers {
        let failed =
            |what: &str, error: &io::Error| Err(format!("failed to add {what} to {}: {error}", carrier.interface));
        let link = match netlink.interface(&carrier.interface).await {
            Ok(link) => link,
            Err(error) => return failed(&listed(&carrier.networks), &error),
        };
        let (interface, prefix_route) = match &carrier.virtual_mac {
            None => (link.clone(), PrefixRoute::Usual),
            Some(mac) => match macvlan(netlink, mac, &link).await {
                Ok(interface) => (interface, PrefixRoute::LastResort),
                Err(error) => return failed(&format!("the macvlan {}", mac.name), &error),
            },
        };
        for network in &carrier.networks {
            match add(netlink, interface.index, *network, prefix_route).await {
                Ok(Added::Already) => {}
                Ok(Added::New) => put.added += 1,
                Ok(Added::Again) => {
                    put.added += 1;
                    put.duplicates.push(network.address());
                }
                Err(error) if network.address().is_ipv6() && is_without_ipv6(&carrier.interface) => {
                    let interface = &carrier.interface;
                    return failed(&network.to_string(), &error).map_err(|reason| {
                        format!("{reason}: IPv6 is off there; sysctl net.ipv6.conf.{interface}.disable_ipv6=0")
                    });
                }
                Err(error) => return failed(&network.to_string(), &error),
            }
        }
        let networks = carrier.networks.clone();
        let Interface { index, hardware, .. } = interface;
        put.placed.push(Placed { index, hardware, link_index: link.index, networks });
    }
    Ok(put)
}

/// What became of an address that was to be added.
enum Added {
    /// It was there.
    Already,
    /// It was not.
    New,
    /// It was there, and the kernel did not use it.
    Again,
}

/// Adds an address; one that is there but that the kernel refuses to use is put there anew.
async fn add(netlink: &Netlink, index: u32, network: IpNetwork, prefix_route: PrefixRoute) -> io::Result<Added> {
    if netlink.add_address(index, network, prefix_route).await? {
        return Ok(Added::New);
    }
    let is_duplicate = |found: &Address| {
        found.interface_index == index && found.network.address() == network.address() && found.is_duplicate
    };
    if network.address().is_ipv4() || !netlink.all_addresses().await?.iter().any(is_duplicate) {
        return Ok(Added::Already);
    }
    netlink.remove_address(index, network).await?;
    netlink.add_address(index, network, prefix_route).await?;
    Ok(Added::Again)
}

/// The macvlan for a virtual hardware address, up. It is made with the VIP and goes with it, so that a standby has
/// nothing that could answer or send with that address. Traffic to clients leaves through the interface below where that
/// has a route to them, with its own hardware address, and so do adverts.
async fn macvlan(netlink: &Netlink, mac: &VirtualMac, link: &Interface) -> io::Result<Interface> {
    let is_new = netlink.create_macvlan(&mac.name, link.index, mac.hardware).await?;
    let interface = netlink.interface(&mac.name).await?;
    if interface.hardware != mac.hardware {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "another interface has that name"));
    }
    if is_new {
        let prepared = sysctl::prepare_macvlan(&mac.name).and_then(|()| sysctl::leave_arp_to_macvlans(&link.name));
        if let Err(error) = prepared {
            warn!(interface = mac.name, %error, "neighbours may learn another hardware address than the virtual one");
        }
    }
    netlink.set_up(interface.index).await?;
    Ok(interface)
}

/// Takes the addresses of `carriers` off this machine, and says which were there. It looks on all interfaces, since the
/// one that got them may have been renamed; loopback is left alone, where others may have put them on purpose.
///
/// # Errors
/// What the kernel says; the other addresses were still tried.
pub async fn take_off(netlink: &Netlink, carriers: &[Carrier]) -> io::Result<Vec<String>> {
    take_off_found(netlink, carriers, &netlink.all_addresses().await?).await
}

/// The same for those of the addresses of this machine, `found`, that `carriers` are for: all at once.
async fn take_off_found(netlink: &Netlink, carriers: &[Carrier], found: &[Address]) -> io::Result<Vec<String>> {
    let is_ours = |found: &&Address| found.interface_index != LOOPBACK_INDEX && has(carriers, found.network.address());
    let remove = async |found: &Address| match netlink.remove_address(found.interface_index, found.network).await {
        Ok(true) => Ok(Some(found.network.to_string())),
        Ok(false) => Ok(None),
        // The interface went, and the address with it.
        Err(error) if is_no_device(&error) => Ok(None),
        Err(error) => Err(error),
    };
    let removed = join_all(found.iter().filter(is_ours).map(remove)).await;
    Ok(removed.into_iter().collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Whether `address` is one of those that `carriers` are for.
pub fn has(carriers: &[Carrier], address: IpAddr) -> bool {
    carriers.iter().any(|carrier| carrier.networks.iter().any(|network| network.address() == address))
}

/// Removes the macvlans of `carriers`.
///
/// # Errors
/// What the kernel says.
pub async fn remove_macvlans(netlink: &Netlink, carriers: &[Carrier]) -> io::Result<()> {
    let ours: Vec<_> = carriers.iter().filter_map(|carrier| carrier.virtual_mac.as_ref()).collect();
    if ours.is_empty() {
        return Ok(());
    }
    for found in netlink.macvlans().await? {
        if ours.iter().any(|mac| (&mac.name, mac.hardware) == (&found.name, found.hardware)) {
            netlink.remove_interface(found.index).await?;
        }
    }
    Ok(())
}

/// Takes off what a guard that was killed left behind, before this one takes part; also macvlans that a changed
/// configuration has no use for, of any virtual router in it.
///
/// # Errors
/// What the kernel says, with the VIP's name.
pub async fn remove_stale(netlink: &Netlink, vips: &[Vip]) -> anyhow::Result<()> {
    take_all_off(netlink, vips).await.into_iter().collect::<anyhow::Result<()>>()?;
    remove_stale_macvlans(netlink, vips).await
}

/// As [`remove_stale`], for a guard that goes on for another one: `vips` are those of both, and of `kept`, which it holds,
/// nothing is removed.
///
/// # Errors
/// What the kernel says.
pub async fn remove_all_but(netlink: &Netlink, vips: &[Vip], kept: &[Carrier]) -> io::Result<()> {
    let all: Vec<Carrier> = carriers(vips).into_iter().flatten().collect();
    let found = netlink.all_addresses().await?;
    let is_kept = |address: &Address| has(kept, address.network.address());
    let found: Vec<_> = found.into_iter().filter(|address| !is_kept(address)).collect();
    take_off_found(netlink, &all, &found).await?;
    let is_kept = |mac: &VirtualMac| kept.iter().any(|carrier| carrier.virtual_mac.as_ref() == Some(mac));
    let macs = all.into_iter().filter(|carrier| carrier.virtual_mac.as_ref().is_some_and(|mac| !is_kept(mac)));
    remove_macvlans(netlink, &macs.collect::<Vec<_>>()).await
}

/// Takes the addresses of all VIPs off, and says of each how it went: what the kernel says, with the VIP's name.
pub async fn take_all_off(netlink: &Netlink, vips: &[Vip]) -> Vec<anyhow::Result<()>> {
    let failed = |vip: &Vip, error: &io::Error| {
        anyhow::anyhow!("failed to take vip {} off {}: {error}", vip.name, vip.interface)
    };
    let found = match netlink.all_addresses().await {
        Ok(found) => found,
        Err(error) => return vips.iter().map(|vip| Err(failed(vip, &error))).collect(),
    };
    let found = found.as_slice();
    let take_off = async |(vip, carriers): (&Vip, Vec<Carrier>)| {
        let removed = take_off_found(netlink, &carriers, found).await.map_err(|error| failed(vip, &error))?;
        if !removed.is_empty() {
            let (addresses, interface) = (removed.join(" "), &vip.interface);
            info!(vip = vip.name, interface, addresses, "removed a VIP that was left behind");
        }
        Ok(())
    };
    join_all(vips.iter().zip(carriers(vips)).map(take_off)).await
}

/// Removes the macvlans of any virtual router of `vips`.
async fn remove_stale_macvlans(netlink: &Netlink, vips: &[Vip]) -> anyhow::Result<()> {
    let is_ours = |hardware: MacAddr| {
        vips.iter().any(|vip| {
            let id = vip.virtual_router_id.get();
            [1, 2].iter().any(|family| hardware == MacAddr::new(0x00, 0x00, 0x5e, 0x00, *family, id))
        })
    };
    let failed = |name: &str, error: &io::Error| anyhow::anyhow!("failed to remove the macvlan {name}: {error}");
    for found in netlink.macvlans().await.map_err(|error| failed(MACVLAN_PREFIX, &error))? {
        if found.name.starts_with(MACVLAN_PREFIX) && is_ours(found.hardware) {
            netlink.remove_interface(found.index).await.map_err(|error| failed(&found.name, &error))?;
            info!(interface = found.name, "removed a macvlan that was left behind");
        }
    }
    Ok(())
}

fn listed(networks: &[IpNetwork]) -> String {
    networks.iter().map(IpNetwork::to_string).collect::<Vec<_>>().join(" ")
}

fn is_no_device(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
