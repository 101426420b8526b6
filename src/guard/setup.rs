//! From the configuration to what the heartbeat is started with.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use tokio::sync::mpsc;

use super::counters::{PathCounters, VipCounters};
use super::heartbeat;
use super::leaving;
use super::links;
use super::paths::{self, LinkPath, VrrpPath};
use super::speaker::Voice;
use super::state::Vip;
use super::store::Memory;
use crate::config::{AdvertChecksum, AdvertPassword, Authentication, Config, LocalNode, PairKey, Vip as VipConfig};
use crate::net::netlink::Netlink;
use crate::units::Priority;
use crate::vrrp::auth::KeyRing;
use crate::vrrp::machine::{Parameters, Preempt, Resignation, Startup};
use crate::vrrp::packet::{Checksum, Format};

/// What a node that `prefer` names gets; the other one stays below it.
const PREFERRED: u8 = 254;

/// What a guard that takes part is made of.
pub struct Setups {
    /// The guard's side of each VIP.
    pub vips: Vec<Vip>,
    /// The heartbeat's.
    pub routers: Vec<heartbeat::Setup>,
    /// The links of the pair.
    pub links: links::Setup,
}

/// What a guard before this one, in the same process, has left of its heartbeat.
#[derive(Default)]
pub struct Inheritance {
    /// Of each VIP that goes on, by its name.
    pub vips: BTreeMap<String, heartbeat::Legacy>,
    /// What its hellos say of its process; `None` where there was none before.
    pub boot: Option<u64>,
    /// How many guards there were in this process before.
    pub generation: u64,
    /// The links that it has opened.
    pub links: Vec<(LinkPath, OwnedFd)>,
}

/// Works everything out. `memory` is what an earlier guard on this machine left for its successor.
///
/// # Errors
/// An interface that is not there, a key that cannot be read.
pub async fn setups(
    config: &Config,
    local: &LocalNode,
    pair_key: Option<&PairKey>,
    memory: &Memory,
    mut inherited: Inheritance,
    netlink: &Netlink,
) -> anyhow::Result<Setups> {
    let (own, peer) = config.local_and_peer(local).context("a vip needs a [[node]] for this machine")?;
    let link_paths = paths::links(config, local);
    let keys = key_ring(config, pair_key)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut vips, mut routers) = (Vec::new(), Vec::new());
    for (index, vip) in config.vips.iter().enumerate() {
        for name in interfaces(vip) {
            netlink.interface(name).await.with_context(|| format!("vip {}: interface {name}", vip.name))?;
        }
        let interface = netlink.interface(&vip.advert_interface).await;
        let interface = interface.with_context(|| format!("vip {}: interface {}", vip.name, vip.advert_interface))?;
        let vrrp = paths::vrrp(config, local, vip);
        if vrrp.is_empty() && link_paths.is_empty() && peer.is_some() {
            return Err(anyhow!("vip {}: there is no path for its adverts", vip.name));
        }
        let counters = Arc::new(VipCounters::new(path_counters(&vrrp, &link_paths)));
        let (priority, preempt) = standing(vip, local.index, own.priority);
        let (commands, received) = mpsc::channel(super::QUEUE_MAX);
        let parameters = Parameters {
            virtual_router_id: vip.virtual_router_id,
            priority,
            advert_interval: vip.advert_interval,
            preempt,
            resignation: Resignation::AtOnce,
            startup: if local.index == Some(vip.prefer.unwrap_or(0)) { Startup::Prompt } else { Startup::Held },
            probe_first: vip.probe_first,
            witness: config.pair.witness.is_some(),
            epoch: memory.epoch(&vip.name),
        };
        let voice = Voice {
            format: format(vip)?,
            keys: keys.clone().filter(|_| vip.authentication != Authentication::Off),
            sequence_floor: memory.sequence(&vip.name, now),
            floors: vrrp.iter().map(|path| memory.floor(&vip.name, &path.name())).collect(),
            siblings: siblings(config, index),
            vrrp,
            vip: vip.clone(),
        };
        vips.push(Vip::new(priority, Arc::clone(&counters), commands, interface.index));
        let config_checksum = config.short_checksum();
        let legacy = inherited.vips.remove(&vip.name);
        let setup = heartbeat::Setup {
            vip: index,
            parameters,
            voice,
            config_checksum,
            drain_max: leaving::time_max(config.pair.switchover_drain),
            counters,
            commands: received,
            legacy,
        };
        routers.push(setup);
    }
    let links = links::Setup {
        paths: link_paths,
        key: pair_key.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
        own_node: own.name.clone(),
        peer_node: peer.map(|peer| peer.name.clone()).unwrap_or_default(),
        boot: inherited.boot.map_or_else(random, Ok)?,
        generation: inherited.generation,
        inherited: inherited.links,
    };
    Ok(Setups { vips, routers, links })
}

fn interfaces(vip: &VipConfig) -> impl Iterator<Item = &str> {
    vip.addresses.iter().map(|at| at.interface.as_str())
}

fn path_counters(vrrp: &[VrrpPath], links: &[LinkPath]) -> Vec<PathCounters> {
    let vrrp = vrrp.iter().map(|path| PathCounters::new(path.name(), false));
    vrrp.chain(links.iter().map(|path| PathCounters::new(path.name(), true))).collect()
}

/// Priority and preemption. Whoever holds a VIP keeps it, unless `prefer` names a node: then that one is above all and
/// takes it back, and the other stays below.
fn standing(vip: &VipConfig, local: Option<usize>, own: Priority) -> (Priority, Preempt) {
    let limited = |priority: u8| Priority::new(priority).unwrap_or(own);
    match vip.prefer {
        None => (own, Preempt::Never),
        prefer if prefer == local => (limited(PREFERRED), Preempt::WhenHigher { hold: vip.prefer_hold }),
        Some(_) => (limited(own.get().min(PREFERRED - 1)), Preempt::Never),
    }
}

/// The router ids of the other VIPs whose adverts run over the same interface.
fn siblings(config: &Config, index: usize) -> Vec<u8> {
    let interface = config.vips.get(index).map(|vip| &vip.advert_interface);
    let others = config
        .vips
        .iter()
        .enumerate()
        .filter(|(other, vip)| *other != index && Some(&vip.advert_interface) == interface);
    others.map(|(_, vip)| vip.virtual_router_id.get()).collect()
}

/// The keys of the advert authentication: those of the file, or one derived from the pair key.
fn key_ring(config: &Config, pair_key: Option<&PairKey>) -> anyhow::Result<Option<KeyRing>> {
    if config.pair.advert_keys.is_empty() {
        return Ok(pair_key.map(|key| KeyRing::derived(key.as_bytes())));
    }
    let read = |key: &crate::config::AdvertKey| {
        let secret = PairKey::load(&key.file).map_err(|error| anyhow!("{error}: {}", error.remedy()))?;
        Ok((key.id, secret.as_bytes().to_vec()))
    };
    let keys = config.pair.advert_keys.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    KeyRing::new(keys).map(Some).context("advert_keys has no key, or an id twice")
}

fn format(vip: &VipConfig) -> anyhow::Result<Format> {
    let checksum = match vip.checksum {
        AdvertChecksum::Rfc => Checksum::Rfc,
        AdvertChecksum::WithoutPseudoHeader => Checksum::WithoutPseudoHeader,
    };
    let password = vip.password_file.as_deref().map(AdvertPassword::load).transpose();
    let password = password.map_err(|error| anyhow!("{error}: {}", error.remedy()))?;
    Ok(Format { checksum, password: password.map(|password| *password.as_bytes()) })
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(u64::from_ne_bytes(bytes))
}
