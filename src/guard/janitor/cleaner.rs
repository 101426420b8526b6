//! What a janitor does in the end, with everything for it made ready before: between the end of a guard and the
//! resignation there is nothing but the kernel's work on the addresses.

use std::os::fd::OwnedFd;

use anyhow::{Context, anyhow};
use tokio::runtime::LocalRuntime;
use tracing::{error, info, warn};

use super::super::addresses;
use super::super::links::{self, Link};
use super::super::setup::{self, Inheritance, Setups};
use super::super::speaker::Speaker;
use super::super::store::Memory;
use super::super::vitals::Vitals;
use super::Bootstrap;
use crate::config::{self, Config, NodeHints, PairKey, Scope, Vip};
use crate::net::netlink::Netlink;
use crate::net::realtime;
use crate::vrrp::hello::Hello;
use crate::vrrp::machine::State;
use crate::vrrp::packet::PRIORITY_RESIGNED;

/// Cleans up after a guard.
pub struct Cleaner {
    bootstrap: Bootstrap,
    config: Config,
    runtime: LocalRuntime,
    netlink: Netlink,
    links: Vec<Link>,
    /// `None` until they could be made: an interface may be missing now and there in the end.
    resigners: Option<Vec<Resigner>>,
}

/// Resigns from one VIP.
struct Resigner {
    vip: usize,
    speaker: Speaker,
    hello: Hello,
}

impl Cleaner {
    /// Makes everything ready. `descriptors` are the guard's links.
    ///
    /// # Errors
    /// What cannot be done without; not what only keeps it from resigning, as the addresses matter more.
    pub fn prepare(bootstrap: Bootstrap, descriptors: Vec<OwnedFd>) -> anyhow::Result<Self> {
        let config = config::parse(&bootstrap.config_text, &bootstrap.config_path)
            .map_err(|report| anyhow!("the configuration that the guard sent is refused: {report}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
        let netlink = Netlink::open_prepared(|| drop(realtime::schedule_first(super::REALTIME_PRIORITY)))?;
        let links = runtime.block_on(async { links::inherit(descriptors) })?;
        let mut cleaner = Self { bootstrap, config, runtime, netlink, links, resigners: None };
        cleaner.make_resigners();
        Ok(cleaner)
    }

    /// The VIPs.
    pub fn vips(&self) -> &[Vip] {
        &self.config.vips
    }

    fn make_resigners(&mut self) {
        let Self { bootstrap, config, runtime, netlink, links, .. } = self;
        match runtime.block_on(resigners(bootstrap, config, netlink, links)) {
            Ok(resigners) => self.resigners = Some(resigners),
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "the janitor cannot resign for this node; the peer will have to wait"
                )
            }
        }
    }

    /// Takes every VIP off, and resigns from those that were held.
    pub fn clean(&mut self, vitals: &Vitals) {
        // The addresses first: the peer claims them the moment it hears the resignation.
        let taken = self.runtime.block_on(addresses::take_all_off(&self.netlink, &self.config.vips));
        if self.resigners.is_none() {
            self.make_resigners();
        }
        for mut resigner in self.resigners.take().unwrap_or_default() {
            let name = self.config.vips.get(resigner.vip).map(|vip| vip.name.as_str());
            let is_off = matches!(taken.get(resigner.vip), Some(Ok(())));
            if !is_off || !vitals.is_held(resigner.vip) {
                continue;
            }
            resigner.speaker.resume(resigner.vip, vitals);
            match self.runtime.block_on(async { resigner.speaker.resign(&resigner.hello) }) {
                Ok(()) => info!(vip = name, "the guard has ended without giving it up: taken off, and resigned"),
                Err(error) => {
                    warn!(vip = name, %error, "no resignation could be sent; the peer takes over when it has waited")
                }
            }
        }
        // The next guard opens them anew, which it cannot while they are open here.
        self.links.clear();
        taken.into_iter().filter_map(Result::err).for_each(|error| error!("{error:#}"));
    }

    /// Takes off what a guard that was killed in the middle of a call has still put there, and what carried the addresses.
    ///
    /// # Errors
    /// What is still there.
    pub fn clean_again(&self) -> anyhow::Result<()> {
        self.runtime.block_on(addresses::remove_stale(&self.netlink, &self.config.vips))
    }
}

async fn resigners(
    bootstrap: &Bootstrap,
    config: &Config,
    netlink: &Netlink,
    opened: &[Link],
) -> anyhow::Result<Vec<Resigner>> {
    let hints = NodeHints { flag: Some(&bootstrap.node), environment: None, host_name: "" };
    let (_, local) = config::parse_for_node(&bootstrap.config_text, &bootstrap.config_path, Scope::File, hints)
        .map_err(|report| anyhow!("{report}"))?;
    let key = bootstrap.pair_key.clone().map(PairKey::from_bytes);
    let Setups { routers, mut links, .. } =
        setup::setups(config, &local, key.as_ref(), &Memory::default(), Inheritance::default(), netlink).await?;
    links.boot = bootstrap.boot;
    let resigner = |router: super::super::heartbeat::Setup| {
        let (ends, mailbox) = links::join(&links, opened, &router.voice.vip.name, &mut Default::default());
        let mut speaker = Speaker::new(router.voice, ends, mailbox, router.counters);
        // What cannot be opened yet is tried again in the end.
        if speaker.open_vrrp().is_ok() {
            speaker.deafen().context("a socket that only sends cannot be made")?;
        }
        let hello = links::first_hello(router.config_checksum, &router.parameters, false);
        let hello = Hello { state: State::Init, priority: PRIORITY_RESIGNED, ..hello };
        Ok(Resigner { vip: router.vip, speaker, hello })
    };
    routers.into_iter().map(resigner).collect()
}
