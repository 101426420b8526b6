//! Which VIPs this node may have put on its interfaces, for whoever has to take them off after all of its processes have
//! ended at once: the configuration may be another one by then, or none.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pnet::util::MacAddr;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::place::{self, Carrier, VirtualMac};
use crate::config::Vip;
use crate::guard::administration;
use crate::net::netlink::Netlink;
use crate::units::IpNetwork;

/// Its name in the runtime directory.
const FILE: &str = "vips";

/// The addresses of a VIP on one interface.
#[derive(Serialize, Deserialize)]
struct Recorded {
    vip: String,
    interface: String,
    /// Each with the length of its prefix in bits.
    addresses: Vec<(std::net::IpAddr, u8)>,
    /// The name and hardware address of the macvlan that carries them.
    macvlan: Option<(String, [u8; 6])>,
}

/// The record of a runtime directory.
pub struct Record {
    directory: PathBuf,
}

impl Record {
    /// Of the node that has the lock of this directory.
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Says what may be put on interfaces from now on.
    pub fn write(&self, vips: &[Vip]) {
        let carriers = vips.iter().zip(place::carriers(vips));
        let recorded: Vec<Recorded> = carriers
            .flat_map(|(vip, carriers)| carriers.into_iter().map(|carrier| Recorded::new(&vip.name, carrier)))
            .collect();
        if let Err(error) = administration::write(&self.directory, FILE, &recorded) {
            let directory = self.directory.display();
            warn!(
                "the VIPs could not be noted in {directory}: {error}; should all processes of this node be killed, `baton \
                 release` will go by the configuration alone"
            );
        }
    }

    /// Takes off what stands there, also what the configuration of today has not. False when nothing does.
    ///
    /// # Errors
    /// What the kernel says, with the VIP's name. A record that cannot be read is warned of.
    pub async fn take_off(&self, netlink: &Netlink) -> anyhow::Result<bool> {
        let path = self.directory.join(FILE);
        let recorded: Vec<Recorded> = administration::read(&path).unwrap_or_else(|error| {
            warn!("{} was not used: {error}; VIPs are taken off by the configuration alone", path.display());
            Vec::new()
        });
        for recorded in &recorded {
            let Recorded { vip, interface, .. } = recorded;
            let carriers = [recorded.carrier()];
            let failed = || format!("failed to take vip {vip} off {interface}");
            let removed = place::take_off(netlink, &carriers).await.with_context(failed)?;
            place::remove_macvlans(netlink, &carriers).await.with_context(failed)?;
            if !removed.is_empty() {
                info!(vip, interface, addresses = removed.join(" "), "removed a VIP that was left behind");
            }
        }
        Ok(!recorded.is_empty())
    }

    /// None of them is there any more.
    pub fn clear(&self) {
        match std::fs::remove_file(self.directory.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!("{} cannot be removed: {error}", self.directory.join(FILE).display());
            }
            _ => {}
        }
    }
}

impl Recorded {
    fn new(vip: &str, carrier: Carrier) -> Self {
        Self {
            vip: vip.to_owned(),
            interface: carrier.interface,
            addresses: carrier.networks.iter().map(|network| (network.address(), network.prefix_len())).collect(),
            macvlan: carrier.virtual_mac.map(|mac| (mac.name, mac.hardware.octets())),
        }
    }

    fn carrier(&self) -> Carrier {
        let virtual_mac = self.macvlan.clone();
        Carrier {
            interface: self.interface.clone(),
            virtual_mac: virtual_mac.map(|(name, hardware)| VirtualMac { name, hardware: MacAddr::from(hardware) }),
            networks: self.addresses.iter().filter_map(|(address, len)| IpNetwork::new(*address, *len)).collect(),
        }
    }
}
