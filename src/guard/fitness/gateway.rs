//! Looks whether a gateway answers ARP or a neighbour solicitation.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pnet::util::MacAddr;

use super::Rhythm;
use crate::fitness::Finding;
use crate::net::neighbour::Asker;
use crate::net::netlink::{Address, Interface, Netlink};

/// A gateway on the link of an interface.
pub(super) struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// The interface.
    pub interface: String,
    /// The virtual addresses, from which nothing is asked: the answer would tell the gateway where they are.
    pub vips: Vec<IpAddr>,
    /// To look the interface up; another one may have its name by now.
    pub netlink: Netlink,
}

impl Gateway {
    /// Asks at the interval until the guard ends.
    pub async fn watch(self, rhythm: Rhythm) {
        let mut turns = rhythm.turns();
        let mut kept = None;
        loop {
            turns.tick().await;
            let finding = match self.ask(&mut kept, rhythm.timeout).await {
                Ok(Some(hardware)) => Finding::Good(format!("{} is at {hardware}", self.address)),
                Ok(None) => Finding::Bad(format!(
                    "{} did not answer on {} within {} ms",
                    self.address,
                    self.interface,
                    rhythm.timeout.as_millis()
                )),
                Err(error) => {
                    kept = None;
                    Finding::Bad(format!("{} cannot be asked on {}: {error}", self.address, self.interface))
                }
            };
            if !rhythm.report(finding).await {
                return;
            }
        }
    }

    /// With the sockets of the last time, unless the interface is another one by now.
    async fn ask(&self, kept: &mut Option<(Interface, Asker)>, patience: Duration) -> io::Result<Option<MacAddr>> {
        let interface = self.netlink.interface(&self.interface).await?;
        let is_same = |of: &Interface| (of.index, of.hardware) == (interface.index, interface.hardware);
        if let Some((of, asker)) = kept
            && is_same(of)
        {
            return asker.ask(patience).await;
        }
        let own = self.own_address(interface.index).await?;
        let asker = Asker::open(interface.index, interface.hardware, own, self.address)?;
        let (_, asker) = kept.insert((interface, asker));
        asker.ask(patience).await
    }

    /// An address of the interface. Without one the question is that of a host that looks for a free address
    /// (RFC 5227 section 2.1.1, RFC 4862 section 5.4), which has to be answered too.
    async fn own_address(&self, interface_index: u32) -> io::Result<IpAddr> {
        let is_own = |address: &Address| {
            let ip = address.network.address();
            let is_usable = address.interface_index == interface_index && !address.is_duplicate;
            is_usable && ip.is_ipv4() == self.address.is_ipv4() && !self.vips.contains(&ip)
        };
        let own = self.netlink.all_addresses().await?.into_iter().find(is_own);
        Ok(own.map(|own| own.network.address()).unwrap_or(match self.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }))
    }
}
