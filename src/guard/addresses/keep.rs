//! Sees to it that the addresses of a VIP stay where the heartbeat had them put, whatever other programs on this machine
//! do.

use tokio::time::Instant;
use tracing::warn;

use super::limit::Leave;
use super::place::{self, LOOPBACK_INDEX, Placed};
use super::{Addresses, Event, Holding};
use crate::net::netlink::{Address, Change, Interface};

impl Addresses {
    /// Looks at everything: puts back what somebody else took off, takes off what does not belong here, and what could
    /// not be taken off before. It happens between orders, so it cannot undo one.
    pub(super) async fn review(&mut self) {
        let found = match self.netlink.all_addresses().await {
            Ok(found) => found,
            Err(error) => return warn!(%error, "the addresses of this machine cannot be read"),
        };
        for index in 0..self.groups.len() {
            let Some(group) = self.groups.get(index) else { continue };
            match group.holding {
                Holding::Held if group.is_complete(&found) => {}
                Holding::Held => _ = self.put_back(index).await,
                Holding::Leaving => drop(self.release(index).await),
                Holding::Free => {
                    let carriers = group.carriers.clone();
                    for stray in found.iter().filter(|at| place::has(&carriers, at.network.address())) {
                        self.take_stray_off(index, stray).await;
                    }
                }
            }
        }
    }

    pub(super) async fn changed(&mut self, change: Change) {
        match change {
            Change::Missed => {
                self.listen_everywhere().await;
                self.review().await;
            }
            Change::Interface(interface) => self.interface_changed(&interface).await,
            Change::Disappeared(address) => {
                let Some(index) = self.group_of(&address) else { return };
                let is_missing = self.groups.get(index).is_some_and(|group| group.is_placed(&address));
                if is_missing && self.may_act(index) {
                    let did = self.put_back(index).await;
                    self.acted(index, did);
                }
            }
            Change::Appeared(address) => {
                let Some(index) = self.group_of(&address) else { return };
                let Some(group) = self.groups.get(index) else { return };
                let (is_stray, is_lost) =
                    (group.holding == Holding::Free, address.is_duplicate && group.is_placed(&address));
                if is_stray && self.may_act(index) {
                    let did = self.take_stray_off(index, &address).await;
                    self.acted(index, did);
                } else if is_lost && self.may_act(index) {
                    let did = self.put_back(index).await;
                    self.acted(index, did);
                }
            }
        }
    }

    /// An interface that has got another hardware address answers with that one from now on.
    async fn interface_changed(&mut self, interface: &Interface) {
        self.listen_on(interface);
        for index in 0..self.groups.len() {
            let is_other = |placed: &Placed| placed.index == interface.index && placed.hardware != interface.hardware;
            let Some(group) = self.groups.get(index).filter(|group| group.holding == Holding::Held) else { continue };
            if group.vip.virtual_mac || !interface.has_carrier || !group.placed.iter().any(is_other) {
                continue;
            }
            if self.put(index).await.is_some() {
                self.announce(index);
            }
        }
    }

    fn group_of(&self, address: &Address) -> Option<usize> {
        self.groups.iter().position(|group| place::has(&group.carriers, address.network.address()))
    }

    /// Whether to act at once against what somebody did to a VIP's addresses.
    fn may_act(&mut self, index: usize) -> bool {
        let Some(group) = self.groups.get_mut(index) else { return false };
        let leave = group.acts.ask(Instant::now().into_std());
        if leave == Leave::RefusedFirst {
            warn!(vip = group.vip.name, "another program fights for its addresses; it is answered once a second now");
        }
        matches!(leave, Leave::Granted { .. })
    }

    /// Messages about what we did ourselves, and second ones about what has been mended, do not count.
    fn acted(&mut self, index: usize, did: bool) {
        if let Some(group) = self.groups.get_mut(index).filter(|_| !did) {
            group.acts.give_back();
        }
    }

    /// Puts back what is missing of a VIP that is held, and says whether anything was.
    async fn put_back(&mut self, index: usize) -> bool {
        if self.groups.get(index).is_none_or(|group| group.holding != Holding::Held) {
            return false;
        }
        let Some(put) = self.put(index).await.filter(|put| put.added > 0) else { return false };
        let Some(group) = self.groups.get_mut(index) else { return false };
        let removed = put.added - put.duplicates.len();
        if let Leave::Granted { refused } = group.lines.ask(Instant::now().into_std()) {
            let vip = &group.vip.name;
            if removed > 0 {
                warn!(vip, count = removed, unlogged = refused, "put back addresses that somebody else removed");
            }
            for address in &put.duplicates {
                warn!(vip, %address, unlogged = refused, "put an address anew that was in use elsewhere (dadfailed)");
            }
        }
        self.announce(index);
        if removed > 0 {
            self.tell(Event::Restored { vip: index, count: removed });
        }
        for address in put.duplicates {
            self.tell(Event::Duplicate { vip: index, address });
        }
        true
    }

    /// An address must never be on two machines. One that turns up on a node that does not hold it, because another
    /// program put it there, is taken off again: the peer may hold it, or be about to. Says whether it was there.
    async fn take_stray_off(&mut self, index: usize, stray: &Address) -> bool {
        if stray.interface_index == LOOPBACK_INDEX {
            return false;
        }
        let removed = self.netlink.remove_address(stray.interface_index, stray.network).await;
        let Some(group) = self.groups.get_mut(index) else { return false };
        if matches!(removed, Ok(false)) {
            return false;
        }
        if let Leave::Granted { refused } = group.lines.ask(Instant::now().into_std()) {
            let (vip, address) = (&group.vip.name, stray.network);
            match removed {
                Ok(_) => warn!(vip, %address, unlogged = refused, "took an address off that somebody else added"),
                Err(error) => {
                    warn!(vip, %address, %error, "an address that somebody else added could not be taken off");
                }
            }
        }
        true
    }
}
