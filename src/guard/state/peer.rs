//! What is known of the peer, and what that means for the VIPs.

use super::{Node, role};
use crate::config;
use crate::fitness::Input;
use crate::fitness::comparison::Seen;
use crate::guard::counters::VipCounters;
use crate::guard::counters::last_heard_ms;
use crate::guard::counters::millis;
use crate::guard::heartbeat::Command;
use crate::status::PeerStatus;
use crate::status::PeerVipStatus;

/// Advert intervals for which what the peer said counts.
const SAID_INTERVALS: u32 = 4;

impl Node {
    pub(super) fn peer(&self) -> Option<&config::Node> {
        self.config.nodes.iter().enumerate().find(|(index, _)| Some(*index) != self.local.index).map(|(_, node)| node)
    }

    pub(super) fn peer_status(&self) -> Option<PeerStatus> {
        let peer = self.peer()?;
        let last_heard_ms = self.vips.iter().filter_map(|vip| last_heard_ms(&vip.counters)).min();
        Some(PeerStatus { node: peer.name.clone(), address: peer.address.to_string(), last_heard_ms })
    }

    pub(super) fn peer_says(&self, counters: &VipCounters) -> Option<PeerVipStatus> {
        let (hello, age) = counters.last_hello()?;
        Some(PeerVipStatus {
            role: role(hello.state),
            fit: hello.fit,
            synced: hello.synced,
            epoch: hello.epoch,
            pools_up: hello.pools_up,
            servers_up: hello.servers_up,
            config_differs: hello.config_checksum != self.config.short_checksum(),
            age_ms: millis(age),
        })
    }

    /// Tells the peer what this node sees of the servers, and compares that, and whether it may hold a VIP, with what the peer
    /// says.
    pub(super) fn compare_with_peer(&mut self) {
        let checksum = self.config.short_checksum();
        for index in 0..self.vips.len() {
            let seen = self.checks.fitness.seen(index);
            let (Some(vip), Some(config)) = (self.vips.get_mut(index), self.config.vips.get(index)) else { return };
            if std::mem::replace(&mut vip.seen, seen) != seen {
                vip.tell(Command::Servers(seen.pools_up, seen.servers_up));
            }
            let patience = config.advert_interval.get() * SAID_INTERVALS;
            let said = vip.counters.last_hello().filter(|(_, age)| *age <= patience).map(|(hello, _)| hello);
            let is_unfit = said.as_ref().is_some_and(|hello| !hello.fit);
            let comparable = said.filter(|hello| hello.fit && hello.config_checksum == checksum);
            let of_peer = comparable.map(|hello| Seen { pools_up: hello.pools_up, servers_up: hello.servers_up });
            let was_unfit = std::mem::replace(&mut vip.is_peer_unfit, is_unfit);
            if std::mem::replace(&mut vip.seen_by_peer, of_peer) != of_peer || was_unfit != is_unfit {
                self.observe(Input::Peer { vip: index, seen: of_peer, is_unfit });
            }
        }
    }
}
