//! Looks whether a gateway answers ARP or a neighbour solicitation.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use pnet::util::MacAddr;

use super::Rhythm;
use crate::fitness::Finding;
use crate::net::netlink::Netlink;

/// A gateway on the link of an interface.
pub(super) struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// The interface.
    pub interface: String,
    /// This node's own address of that family, if it has one.
    pub own: Option<IpAddr>,
    /// To look the interface up; another one may have its name by now.
    pub netlink: Netlink,
}

impl Gateway {
    /// Asks at the interval until the guard ends.
    pub async fn watch(self, rhythm: Rhythm) {
        let mut turns = rhythm.turns();
        loop {
            turns.tick().await;
            let finding = match self.ask(rhythm.timeout).await {
                Ok(Some(hardware)) => Finding::Good(format!("{} is at {hardware}", self.address)),
                Ok(None) => Finding::Bad(format!(
                    "{} did not answer on {} within {} ms",
                    self.address,
                    self.interface,
                    rhythm.timeout.as_millis()
                )),
                Err(error) => Finding::Bad(format!("{} cannot be asked on {}: {error}", self.address, self.interface)),
            };
            if !rhythm.report(finding).await {
                return;
            }
        }
    }

    async fn ask(&self, patience: Duration) -> io::Result<Option<MacAddr>> {
        let interface = self.netlink.interface(&self.interface).await?;
        let unspecified = if self.address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let own = self.own.unwrap_or(unspecified);
        ask(interface.index, interface.hardware, own, self.address, patience).await
    }
}
