//! Takes off what a node has left on its interfaces that could not do it itself.

use std::path::Path;

use super::addresses::{self, Record};
use super::lock;
use crate::config::Config;
use crate::net::netlink::Netlink;

/// Takes the VIPs off this machine: what a service manager runs after a guard that could not do it itself. They are those
/// of the configuration, where that is good, and those that the guard has recorded, which may be others. False where it has
/// recorded none.
///
/// # Errors
/// A guard that runs, or which VIP is still there, and why.
pub fn release(config: Option<&Config>, runtime_dir: &Path) -> anyhow::Result<bool> {
    let _lock = lock(runtime_dir)?;
    let record = Record::of(runtime_dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let netlink = Netlink::open()?;
        let recorded = record.take_off(&netlink).await;
        if let Some(config) = config {
            addresses::remove_stale(&netlink, &config.vips).await?;
        }
        let is_recorded = recorded?;
        record.clear();
        Ok(is_recorded)
    })
}
